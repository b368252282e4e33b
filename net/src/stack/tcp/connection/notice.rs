//! What the owner hears on the way about the path.

use core::time::Duration;

use super::timer::Timer;
use super::{Connection, Controller};

impl Connection {
    /// The owner says how large packets towards the other end may be, IP header included.
    pub(crate) fn handle_mtu(&mut self, mtu: u16, now: Duration) {
        let before = self.mss();
        self.path.tell(mtu);
        let after = self.mss();
        if after < before {
            self.resize();
            if matches!(self.timer, Some((Timer::Retransmit, _))) {
                self.patience.rto_base = now;
            }
        } else if after > before {
            self.congestion.set_mss(after);
        }
        self.arm(now);
    }

    /// Somebody on the way says that the other end cannot be reached. That may pass: it is only
    /// remembered as the reason, should nobody answer (RFC 9293 section 3.9.2.2).
    pub(crate) fn handle_unreachable(&mut self) {
        self.unreachable = true;
    }

    /// Segments have another size from now on. What is in flight and too large did not arrive, and
    /// goes again at once; that is no sign of congestion (RFC 1191 section 6.5).
    pub(super) fn resize(&mut self) {
        let mss = self.mss();
        self.congestion.set_mss(mss);
        self.send.mark_lost(|flight| Some(flight.text() > mss));
    }
}

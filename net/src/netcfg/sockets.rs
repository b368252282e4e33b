//! `sockets`: a line for each socket, made in pieces while it is read.
//!
//! ```text
//! tcp LISTEN 0.0.0.0:80 0.0.0.0:0 recv 2 send 128 pid 7
//! udp - [fd00::1]:53 [::]:0 recv 512 send 0 pid 9
//! ```
//!
//! Protocol, state, both ends, and then pairs of a name and a value. There may be very many sockets:
//! one read makes no more lines than its [budget](LINES), and the file is neither compared for
//! changes nor kept in memory.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use scheme::Caller;
use scheme::errno::{self, Errno};

use crate::net::Net;
use crate::stack::{Listed, Owner, TcpPlace};

/// Most lines that one read makes: packets wait that long at most.
const LINES: usize = 256;

/// One reader's walk over all sockets.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// The user that reads it.
    uid: u32,
    place: Place,
    /// The end of the last line, for which the reader had no room.
    rest: String,
    /// Where the reader is to go on, bytes from the start.
    position: u64,
}

/// The socket behind which a listing goes on.
#[derive(Clone, Copy, Debug)]
enum Place {
    Tcp(TcpPlace),
    Udp(usize),
    Echo(usize),
    Raw(usize),
}

impl Default for Place {
    fn default() -> Self {
        Self::Tcp(TcpPlace::default())
    }
}

impl Place {
    /// The next socket, by its protocol and state, and moves behind it.
    fn next(&mut self, net: &Net) -> Option<(&'static str, String, Listed)> {
        let none = || "-".to_owned();
        if let Self::Tcp(place) = self {
            if let Some(listed) = net.tcp.list(place, net.ip.now.monotonic) {
                let state = listed.state.unwrap_or("-").to_owned();
                return Some(("tcp", state, listed));
            }
            *self = Self::Udp(0);
        }
        if let Self::Udp(at) = self {
            if let Some(listed) = net.udp.list(at) {
                return Some(("udp", none(), listed));
            }
            *self = Self::Echo(0);
        }
        if let Self::Echo(at) = self {
            if let Some(listed) = net.echo.list(at) {
                return Some(("icmp", none(), listed));
            }
            *self = Self::Raw(0);
        }
        let Self::Raw(at) = self else {
            return None;
        };
        let (protocol, listed) = net.raw.list(at)?;
        Some(("ip", protocol.to_string(), listed))
    }
}

impl Listing {
    /// A listing for `uid`, who is told the processes of own sockets; the superuser, of all.
    pub(super) fn new(uid: u32) -> Self {
        Self {
            uid,
            ..Self::default()
        }
    }

    /// Reads on. A read at the start begins again; one anywhere else than where the last one ended
    /// is `EINVAL`. `opener` tells who opened a socket.
    pub(crate) fn read(
        &mut self,
        net: &Net,
        opener: impl Fn(Owner) -> Option<Caller>,
        buf: &mut [u8],
        offset: u64,
    ) -> Result<usize, Errno> {
        if offset == 0 {
            *self = Self::new(self.uid);
        }
        if offset != self.position {
            return Err(errno::EINVAL);
        }
        let mut filled = 0;
        let mut lines = 0;
        while filled < buf.len() {
            if self.rest.is_empty() {
                if lines == LINES {
                    break;
                }
                let Some((protocol, state, listed)) = self.place.next(net) else {
                    break;
                };
                lines += 1;
                let opener = listed.owner.and_then(&opener);
                let shown = opener.filter(|opener| self.uid == 0 || opener.uid == self.uid);
                let pid = shown.map_or(0, |opener| opener.pid.0);
                write_line(&mut self.rest, protocol, &state, &listed, pid);
            }
            let len = self.rest.len().min(buf.len() - filled);
            buf[filled..filled + len].copy_from_slice(&self.rest.as_bytes()[..len]);
            // Lines are ASCII, so every byte is the end of a character.
            self.rest.drain(..len);
            filled += len;
        }
        self.position += filled as u64;
        Ok(filled)
    }
}

fn write_line(text: &mut String, protocol: &str, state: &str, listed: &Listed, pid: u32) {
    let Listed {
        local,
        remote,
        recv,
        send,
        path,
        ..
    } = listed;
    let _ = write!(text, "{protocol} {state} ");
    write_name(text, *local);
    text.push(' ');
    write_name(text, *remote);
    let _ = write!(text, " recv {recv} send {send} pid {pid}");
    if let Some(path) = path {
        let counters = &path.counters;
        let srtt = path.srtt.unwrap_or_default();
        let least = path.min_rtt.unwrap_or_default();
        let pairs = [
            ("srtt_us", srtt.as_micros() as u64),
            ("rto_us", path.rto.as_micros() as u64),
            ("cwnd", path.cwnd.into()),
            ("ssthresh", path.ssthresh.into()),
            ("inflight", path.in_flight.into()),
            ("mss", path.mss.into()),
            ("retransmits", counters.retransmits.into()),
            ("rttvar_us", path.rttvar.as_micros() as u64),
            ("minrtt_us", least.as_micros() as u64),
            ("snd_wnd", path.send_window.into()),
            ("rcv_wnd", path.receive_window.into()),
            ("delivery_rate", path.delivery_rate),
            ("acked", path.acked.into()),
            ("received", path.received.into()),
            ("lost", counters.lost.into()),
            ("spurious", counters.spurious.into()),
            ("undone", counters.undone.into()),
            ("timeouts", counters.timeouts.into()),
            ("tail_probes", counters.tail_probes.into()),
            ("recoveries", counters.recoveries.into()),
        ];
        for (name, value) in pairs {
            let _ = write!(text, " {name} {value}");
        }
    }
    text.push('\n');
}

/// Writes an address, and a port if there is one.
fn write_name(text: &mut String, (addr, port): (IpAddr, Option<u16>)) {
    let _ = match port {
        Some(port) => write!(text, "{}", SocketAddr::new(addr, port)),
        None => write!(text, "{addr}"),
    };
}

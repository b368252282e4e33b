//! What is left of a connection in TIME-WAIT.

use super::segment::Segment;
use super::seq::SeqNumber;

/// What answers a late segment, and tells a new connection from an old SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeWait {
    /// `SND.NXT`: number of every answer. A new connection of ours must begin above it.
    pub(crate) snd_nxt: SeqNumber,
    /// `RCV.NXT`: what every answer acknowledges.
    pub(crate) rcv_nxt: SeqNumber,
    /// The last of the other end's clock, if it sent timestamps.
    pub(crate) ts_recent: Option<u32>,
}

impl TimeWait {
    /// Whether a SYN begins a new connection, and is not an old one that comes late (RFC 6191
    /// section 2).
    pub(crate) fn admits(&self, syn: &Segment<'_>) -> bool {
        if !syn.is_first_syn() {
            return false;
        }
        let above = syn.seq > self.rcv_nxt;
        match (self.ts_recent, syn.options.timestamps) {
            (Some(recent), Some(clocks)) => {
                let ahead = clocks.value.wrapping_sub(recent).cast_signed();
                ahead > 0 || ahead == 0 && above
            }
            _ => above,
        }
    }
}

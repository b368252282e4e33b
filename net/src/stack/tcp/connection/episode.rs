//! An episode of recovery: what it began with, what may undo it, and proportional rate reduction
//! (RFC 9937).

use super::seq::SeqNumber;

/// What began it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Segments are missing, others arrived.
    Loss,
    /// The retransmission timer fired.
    Timeout,
}

/// From a loss until everything that was in flight then has arrived.
#[derive(Debug)]
pub(super) struct Episode {
    pub(super) cause: Cause,
    /// It is over when this is acknowledged.
    pub(super) recover: SeqNumber,
    /// Our clock, as it goes into timestamps, when the first segment went again (RFC 3522).
    pub(super) first_resent: Option<u32>,
    /// Segments that went again and did not arrive twice.
    pub(super) resent: u32,
    /// Whether a segment went again at all.
    pub(super) any_resent: bool,
    /// Whether a timeout may still turn out to be spurious (RFC 5682).
    pub(super) doubtful: bool,
    reduction: Reduction,
}

/// Proportional rate reduction.
#[derive(Debug, Default)]
struct Reduction {
    /// Bytes in flight when it began.
    flight: u32,
    delivered: u32,
    sent: u32,
}

impl Episode {
    /// Begins one, with so many bytes in flight up to `nxt`.
    pub(super) fn new(cause: Cause, nxt: SeqNumber, flight: u32) -> Self {
        Self {
            cause,
            recover: nxt,
            first_resent: None,
            resent: 0,
            any_resent: false,
            doubtful: cause == Cause::Timeout,
            reduction: Reduction {
                flight: flight.max(1),
                delivered: 0,
                sent: 0,
            },
        }
    }

    /// Segments left.
    pub(super) fn sent(&mut self, bytes: u32) {
        self.reduction.sent = self.reduction.sent.saturating_add(bytes);
    }

    /// The window after an ACK that delivered so many bytes (RFC 9937 section 6). `safe` if it
    /// moved on and showed no further loss.
    pub(super) fn reduce(
        &mut self,
        delivered: u32,
        safe: bool,
        (pipe, threshold, mss): (u32, u32, u32),
    ) -> u32 {
        let prr = &mut self.reduction;
        prr.delivered = prr.delivered.saturating_add(delivered);
        let quota = if pipe > threshold {
            let share = u64::from(prr.delivered) * u64::from(threshold);
            let share = share.div_ceil(u64::from(prr.flight));
            u32::try_from(share)
                .unwrap_or(u32::MAX)
                .saturating_sub(prr.sent)
        } else {
            let mut limit = prr.delivered.saturating_sub(prr.sent);
            if safe {
                limit = limit.max(delivered).saturating_add(mss);
            }
            limit.min(threshold - pipe)
        };
        // The first retransmission goes in any case.
        let quota = if prr.sent == 0 { quota.max(mss) } else { quota };
        pipe.saturating_add(quota)
    }
}

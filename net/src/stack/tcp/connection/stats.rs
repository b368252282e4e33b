//! What can be seen of a connection.

use core::time::Duration;

/// Figures of a connection, as they stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    /// Smoothed round-trip time; `None` before the first measurement.
    pub(crate) srtt: Option<Duration>,
    /// Variation of the round-trip time.
    pub(crate) rttvar: Duration,
    /// Least round-trip time of the last minutes.
    pub(crate) min_rtt: Option<Duration>,
    /// Retransmission timeout, with its backoff.
    pub(crate) rto: Duration,
    /// Congestion window, in bytes.
    pub(crate) cwnd: u32,
    /// Slow-start threshold, in bytes; the largest number for none.
    pub(crate) ssthresh: u32,
    /// Bytes in flight.
    pub(crate) in_flight: u32,
    /// Bytes of text in a full segment.
    pub(crate) mss: u32,
    /// The window of the other end, in bytes.
    pub(crate) send_window: u32,
    /// The window that the other end has of us, in bytes.
    pub(crate) receive_window: u32,
    /// Bytes per second that last arrived at the other end.
    pub(crate) delivery_rate: u64,
    /// Bytes of the stream that the other end acknowledged, the FIN included, modulo 2^32.
    pub(crate) acked: u32,
    /// Bytes of the stream that arrived, likewise.
    pub(crate) received: u32,
    /// What was counted.
    pub(crate) counters: Counters,
}

/// What was counted since the connection began. An owner that sums them up takes differences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Segments that went again.
    pub(crate) retransmits: u32,
    /// Bytes that were taken for lost.
    pub(crate) lost: u32,
    /// Losses or timeouts that turned out to be none, and were undone.
    pub(crate) undone: u32,
    /// Segments of ours that the other end received twice.
    pub(crate) spurious: u32,
    /// Retransmission timeouts.
    pub(crate) timeouts: u32,
    /// Tail loss probes.
    pub(crate) tail_probes: u32,
    /// Recoveries without a timeout.
    pub(crate) recoveries: u32,
    /// ACKs sent in answer to what could have been forged.
    pub(crate) challenges: u32,
    /// Resets sent.
    pub(crate) resets: u32,
}

impl Counters {
    /// Adds what a connection counted since it had counted `before`.
    pub(crate) fn add(&mut self, now: &Self, before: &Self) {
        let sums = [
            (&mut self.retransmits, now.retransmits, before.retransmits),
            (&mut self.lost, now.lost, before.lost),
            (&mut self.undone, now.undone, before.undone),
            (&mut self.spurious, now.spurious, before.spurious),
            (&mut self.timeouts, now.timeouts, before.timeouts),
            (&mut self.tail_probes, now.tail_probes, before.tail_probes),
            (&mut self.recoveries, now.recoveries, before.recoveries),
            (&mut self.challenges, now.challenges, before.challenges),
            (&mut self.resets, now.resets, before.resets),
        ];
        for (sum, now, before) in sums {
            *sum = sum.wrapping_add(now.wrapping_sub(before));
        }
    }
}

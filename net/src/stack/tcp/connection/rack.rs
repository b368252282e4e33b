//! Loss by time: RACK (RFC 8985 section 6).

use core::time::Duration;

use super::send::{Flight, Send};
use super::seq::SeqNumber;

/// Bytes beyond a hole that make a loss likely if nothing was ever reordered, in segments.
const THRESHOLD: u32 = 3;
/// Recoveries for which a wider reordering window is kept.
const PERSIST: u8 = 16;

/// The segment sent last of those that arrived, and how late others may be.
#[derive(Debug, Default)]
pub(super) struct Rack {
    /// When that segment was sent, and where it ends.
    latest: Option<(Duration, SeqNumber)>,
    /// Its round-trip time.
    rtt: Duration,
    /// One past the highest number that arrived.
    highest: Option<SeqNumber>,
    /// Whether segments ever arrived in another order.
    reordered: bool,
    /// Quarters of the round-trip time that a segment may be late, less one.
    widened: u8,
    /// Recoveries after which that is forgotten.
    persist: u8,
    /// No other D-SACK counts until this is acknowledged.
    round: Option<SeqNumber>,
}

impl Rack {
    /// A segment arrived. `stale` if it went more than once and this is about an earlier time.
    pub(super) fn delivered(&mut self, flight: &Flight, stale: bool, now: Duration) {
        let end = flight.end();
        match self.highest {
            Some(highest) if end < highest => self.reordered |= !flight.resent,
            _ => self.highest = Some(end),
        }
        let later = self
            .latest
            .is_none_or(|(sent, end)| flight.is_after(sent, end));
        if !stale && later {
            self.rtt = now.saturating_sub(flight.sent);
            self.latest = Some((flight.sent, end));
        }
    }

    /// The other end received something twice: what was late was taken for lost.
    pub(super) fn received_twice(&mut self, una: SeqNumber, nxt: SeqNumber) {
        if self.round.is_none_or(|round| una >= round) {
            self.round = Some(nxt);
            self.widened = self.widened.saturating_add(1);
            self.persist = PERSIST;
        }
    }

    /// Whether segments ever arrived in another order.
    pub(super) fn has_seen_reordering(&self) -> bool {
        self.reordered
    }

    /// What was taken for lost was late.
    pub(super) fn was_late(&mut self) {
        self.reordered = true;
    }

    /// A recovery ended.
    pub(super) fn recovered(&mut self) {
        self.persist = self.persist.saturating_sub(1);
        if self.persist == 0 {
            self.widened = 0;
        }
    }

    /// How late a segment may be (RFC 8985 section 6.2, step 4).
    fn window(
        &self,
        send: &Send,
        mss: u32,
        recovering: bool,
        least: Duration,
        smoothed: Duration,
    ) -> Duration {
        if !self.reordered && (recovering || send.sacked() >= THRESHOLD * mss) {
            return Duration::ZERO;
        }
        self.widest(least, smoothed)
    }

    /// How late a segment may be where the network is known to reorder.
    fn widest(&self, least: Duration, smoothed: Duration) -> Duration {
        let quarters = u32::from(self.widened) + 1;
        (least * quarters / 4).min(smoothed)
    }

    /// Marks what is lost. Returns how many bytes that are, and how long from now until more may
    /// be.
    pub(super) fn detect(
        &self,
        send: &mut Send,
        (mss, recovering): (u32, bool),
        (least, smoothed): (Duration, Duration),
        now: Duration,
    ) -> (u32, Option<Duration>) {
        let Some((sent, end)) = self.latest else {
            return (0, None);
        };
        let late = self.rtt + self.window(send, mss, recovering, least, smoothed);
        let mut wait = None;
        let lost = send.mark_lost(|flight| {
            if flight.is_after(sent, end) {
                // Those that went once are in the order in which they went.
                return if flight.resent { Some(false) } else { None };
            }
            let due = flight.sent + late;
            if due <= now {
                return Some(true);
            }
            wait = wait.max(Some(due - now));
            Some(false)
        });
        (lost, wait)
    }

    /// Whether a segment is old enough to be lost when the retransmission timer fires (RFC 8985
    /// section 6.3).
    pub(super) fn is_overdue(
        &self,
        flight: &Flight,
        (least, smoothed): (Duration, Duration),
        now: Duration,
    ) -> bool {
        let late = self.rtt + self.widest(least, smoothed);
        flight.sent + late <= now
    }
}

//! Pacing: what a window lets go at once is spread over the round trip.
//!
//! In slow start an ACK lets go twice what it tells of, so half a window stands before the narrowest
//! link, and overflows its queue long before the window is as large as the path; ACKs that come in
//! heaps, or to a host that was busy, do it later, too. A round trip later the window is found too
//! large, however much the path could have carried.

use core::time::Duration;

/// Windows from which on segments are paced, bytes: some hundred segments. Less fits into any queue,
/// and those who fetch a little wait for the last of it.
pub(super) const LEAST_WINDOW: u32 = 128 << 10;
/// Round-trip time from which on they are. Below, a queue is gone before a timer fires.
pub(super) const LEAST_ROUND_TRIP: Duration = Duration::from_millis(10);
/// Time whose segments may go at once, after a timer that was late.
const CREDIT: Duration = Duration::from_millis(4);
/// Time whose segments are sent together, so that not each has a timer.
const QUANTUM: Duration = Duration::from_millis(1);

/// When new segments may go.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The time of the next.
    next: Duration,
    /// When to look again, if one had to wait.
    wake: Option<Duration>,
}

impl Pace {
    /// Whether a new segment may go now. If it may not, a timer is to be set.
    pub(super) fn allows(&mut self, now: Duration) -> bool {
        let allowed = self.next <= now;
        self.wake = (!allowed).then(|| self.next + QUANTUM);
        allowed
    }

    /// A new segment of `len` bytes left, at a rate of so many bytes a second.
    pub(super) fn sent(&mut self, len: u32, rate: u64, now: Duration) {
        let takes = u64::from(len) * 1_000_000_000 / rate.max(1);
        self.next = self.next.max(now.saturating_sub(CREDIT)) + Duration::from_nanos(takes);
    }

    /// When to look again, if something waits.
    pub(super) fn wake(&self) -> Option<Duration> {
        self.wake
    }

    /// It was looked at: nothing waits any more, unless it is told again.
    pub(super) fn look(&mut self, now: Duration) {
        self.wake = self.wake.filter(|&at| at > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_rate_is_kept_and_lost_time_is_made_up_for_a_little() {
        let mut pace = Pace::default();
        // A segment a millisecond, four of them on credit.
        let burst = |pace: &mut Pace, now| {
            let mut sent = 0;
            while pace.allows(now) {
                pace.sent(1000, 1_000_000, now);
                sent += 1;
            }
            sent
        };
        assert_eq!(burst(&mut pace, ms(100)), 5);
        assert_eq!(pace.wake(), Some(ms(102)));
        pace.look(ms(101));
        assert_eq!(pace.wake(), Some(ms(102)));
        pace.look(ms(102));
        assert_eq!(pace.wake(), None);
        assert_eq!(burst(&mut pace, ms(102)), 2);
        assert_eq!(burst(&mut pace, ms(105)), 3);
        assert_eq!(burst(&mut pace, ms(900)), 5);
    }
}

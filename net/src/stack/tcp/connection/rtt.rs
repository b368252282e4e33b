//! Round-trip time and retransmission timeout (RFC 6298, RFC 7323 section 4).

use core::time::Duration;

/// Least allowance for a peer that is slow to acknowledge. RFC 6298 says a second in all; Linux and
/// everybody else live with this since 1999.
const LEAST: Duration = Duration::from_millis(200);
/// Largest timeout.
const MOST: Duration = Duration::from_secs(120);
/// Timeout before anything was measured (RFC 6298 section 2.1).
pub(super) const INITIAL: Duration = Duration::from_secs(1);
/// Timeout if the SYN had to be sent again (RFC 6298 section 5.7).
const AFTER_SYN: Duration = Duration::from_secs(3);
/// How long the least round trip counts: routes change.
const MEMORY: Duration = Duration::from_secs(300);

/// What is known about the time to the other end and back.
#[derive(Debug)]
pub(super) struct Rtt {
    /// Smoothed; `None` before the first measurement.
    smoothed: Option<Duration>,
    variance: Duration,
    /// The least of the last minutes, and when it was.
    least: Option<(Duration, Duration)>,
    /// The timeout without backoff.
    base: Duration,
    /// How many times the timeout has doubled.
    backoff: u8,
}

impl Default for Rtt {
    fn default() -> Self {
        Self {
            smoothed: None,
            variance: Duration::ZERO,
            least: None,
            base: INITIAL,
            backoff: 0,
        }
    }
}

impl Rtt {
    /// Takes in a measurement.
    pub(super) fn sample(&mut self, rtt: Duration, now: Duration) {
        let smoothed = match self.smoothed {
            None => {
                self.variance = rtt / 2;
                rtt
            }
            Some(smoothed) => {
                self.variance = (self.variance * 3 + smoothed.abs_diff(rtt)) / 4;
                (smoothed * 7 + rtt) / 8
            }
        };
        self.smoothed = Some(smoothed);
        self.base = (smoothed + (self.variance * 4).max(LEAST)).min(MOST);
        self.sample_least(rtt, now);
    }

    /// Takes in what is only good as a lower bound.
    pub(super) fn sample_least(&mut self, rtt: Duration, now: Duration) {
        if self
            .least
            .is_none_or(|(least, at)| rtt <= least || now.saturating_sub(at) > MEMORY)
        {
            self.least = Some((rtt, now));
        }
    }

    /// The SYN had to be sent again: the path may be slower than was thought.
    pub(super) fn repeated_syn(&mut self) {
        self.base = AFTER_SYN;
    }

    /// The smoothed round-trip time.
    pub(super) fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    pub(super) fn variance(&self) -> Duration {
        self.variance
    }

    /// The least round-trip time of the last minutes.
    pub(super) fn least(&self) -> Option<Duration> {
        self.least.map(|(least, _)| least)
    }

    /// The timeout without backoff.
    pub(super) fn base(&self) -> Duration {
        self.base
    }

    /// The timeout.
    pub(super) fn timeout(&self) -> Duration {
        if self.backoff == 0 {
            return self.base;
        }
        self.base
            .saturating_mul(1 << self.backoff.min(16))
            .min(MOST)
    }

    /// A timeout passed: the next is twice as long (RFC 6298 section 5.5).
    pub(super) fn back_off(&mut self) {
        self.backoff = self.backoff.saturating_add(1);
    }

    /// The other end answered.
    pub(super) fn relax(&mut self) {
        self.backoff = 0;
    }

    /// How many timeouts passed without an answer.
    pub(super) fn backoff(&self) -> u8 {
        self.backoff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_timeout_follows_the_path() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.timeout(), INITIAL);
        rtt.sample(ms(100), ms(0));
        assert_eq!(rtt.timeout(), ms(300));
        for n in 0..100 {
            rtt.sample(ms(20), ms(n));
        }
        assert!(rtt.timeout() <= ms(225));
        rtt.back_off();
        rtt.back_off();
        assert_eq!(rtt.timeout(), rtt.base() * 4);
        for _ in 0..20 {
            rtt.back_off();
        }
        assert_eq!(rtt.timeout(), MOST);
        rtt.relax();
        assert!(rtt.timeout() <= ms(225));
        assert_eq!(rtt.least(), Some(ms(20)));
        rtt.sample(ms(50), Duration::from_secs(400));
        assert_eq!(rtt.least(), Some(ms(50)));
    }

    #[test]
    fn a_repeated_syn_makes_cautious() {
        let mut rtt = Rtt::default();
        rtt.repeated_syn();
        assert_eq!(rtt.timeout(), AFTER_SYN);
        rtt.sample(ms(10), ms(0));
        assert_eq!(rtt.timeout(), ms(210));
    }
}

//! The token bucket at the way out of a send queue: ALTQ's `tbr`.

use std::time::Duration;

use super::spec::Rate;

/// One bit, in the unit of the tokens: a rate in bits a second earns so many of them in a nanosecond.
const BIT: i64 = 1_000_000_000;

/// Lets frames go at a rate, and after a pause as many at once as the burst allows.
///
/// A frame may go while there are tokens, and may leave the bucket in debt, so one that is larger
/// than the burst passes, too.
#[derive(Clone, Debug)]
pub(super) struct TokenBucket {
    rate: Rate,
    /// Tokens at the time `at`: bits times 10⁹. Negative is a debt.
    tokens: i64,
    at: Duration,
}

impl TokenBucket {
    /// A bucket that is full.
    pub(super) fn full(rate: Rate, now: Duration) -> Self {
        Self {
            rate,
            tokens: bits_of(rate.burst),
            at: now,
        }
    }

    /// The bucket that takes the place of this one: with its tokens, or its debt, so that a change
    /// of the rate is no burst.
    pub(super) fn with_rate(&self, rate: Rate, now: Duration) -> Self {
        Self {
            rate,
            tokens: self.tokens(now).min(bits_of(rate.burst)),
            at: now,
        }
    }

    /// The tokens now.
    fn tokens(&self, now: Duration) -> i64 {
        let passed = now.saturating_sub(self.at).as_nanos();
        let earned = passed.saturating_mul(self.rate.bits.into());
        let earned = i64::try_from(earned).unwrap_or(i64::MAX);
        let tokens = self.tokens.saturating_add(earned);
        tokens.min(bits_of(self.rate.burst))
    }

    /// Whether a frame may go.
    pub(super) fn may_send(&self, now: Duration) -> bool {
        self.tokens > 0 || self.tokens(now) > 0
    }

    /// Pays for a frame of `len` bytes that goes.
    pub(super) fn take(&mut self, len: usize, now: Duration) {
        self.tokens = self.tokens(now).saturating_sub(bits_of(len));
        self.at = self.at.max(now);
    }

    /// Gives back the tokens of a frame that came back.
    pub(super) fn give(&mut self, len: usize) {
        let tokens = self.tokens.saturating_add(bits_of(len));
        self.tokens = tokens.min(bits_of(self.rate.burst));
    }

    /// The time from which a frame may go; `None` if one may go now.
    pub(super) fn opens_at(&self, now: Duration) -> Option<Duration> {
        if self.may_send(now) {
            return None;
        }
        let wait = self.tokens.unsigned_abs() / self.rate.bits.max(1) + 1;
        Some(self.at.saturating_add(Duration::from_nanos(wait)))
    }
}

/// What a number of bytes costs.
fn bits_of(bytes: usize) -> i64 {
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    bytes.saturating_mul(8 * BIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(bits: u64, burst: usize) -> Rate {
        Rate { bits, burst }
    }

    #[test]
    fn a_frame_larger_than_the_burst_passes_and_is_paid_for_later() {
        let ms = Duration::from_millis;
        let mut bucket = TokenBucket::full(rate(8000, 100), ms(0));
        assert!(bucket.may_send(ms(0)));
        bucket.take(1100, ms(0));
        // 1000 bytes of debt, at a byte a millisecond.
        let opens = bucket.opens_at(ms(10)).unwrap();
        assert_eq!(opens, ms(1000) + Duration::from_nanos(1));
        assert!(!bucket.may_send(ms(1000)) && bucket.may_send(opens));
        assert_eq!(bucket.opens_at(opens), None);
        bucket.give(1100);
        assert!(bucket.may_send(ms(10)));
    }

    #[test]
    fn over_any_interval_the_rate_and_the_burst_are_kept() {
        for (bits, burst) in [(8000, 1), (1_000_000, 3000), (100_000_000_000, 65_536)] {
            let mut bucket = TokenBucket::full(rate(bits, burst), Duration::ZERO);
            let mut rng = fastrand::Rng::with_seed(bits);
            let (mut now, mut sent) = (Duration::ZERO, Vec::new());
            for _ in 0..2000 {
                let len = rng.usize(20..1515);
                match bucket.opens_at(now) {
                    Some(at) => now = at,
                    None => {
                        bucket.take(len, now);
                        sent.push((now, len));
                    }
                }
                if rng.u8(..) < 5 {
                    now += Duration::from_micros(rng.u64(..5000));
                }
            }
            for (first, &(from, _)) in sent.iter().enumerate().step_by(37) {
                let mut bytes = 0;
                for &(until, len) in &sent[first..] {
                    // The last one may leave a debt, so it does not count.
                    let allowed = (until - from).as_secs_f64() * bits as f64 / 8.0;
                    assert!(f64::from(bytes) <= allowed + burst as f64 + 1.0);
                    bytes += len as u32;
                }
            }
            // And with packets waiting the rate is reached.
            let (first, last) = (sent[0].0, sent[sent.len() - 1].0);
            let bytes: usize = sent.iter().map(|(_, len)| len).sum();
            let busy = bytes as f64 * 8.0 / bits as f64;
            let pauses = 0.005 * 2000.0 * 5.0 / 256.0;
            assert!((last - first).as_secs_f64() <= busy + pauses + 1e-6);
        }
    }

    #[test]
    fn a_new_rate_inherits_the_debt() {
        let mut bucket = TokenBucket::full(rate(8000, 1000), Duration::ZERO);
        for _ in 0..3 {
            bucket.take(1000, Duration::ZERO);
            bucket = bucket.with_rate(rate(16_000, 1000), Duration::ZERO);
        }
        let opens = bucket.opens_at(Duration::ZERO).unwrap();
        assert_eq!(opens.as_millis(), 1000);
        let later = bucket.with_rate(rate(8000, 5), Duration::from_secs(100));
        let mut later = later;
        later.take(5, Duration::from_secs(100));
        assert!(!later.may_send(Duration::from_secs(100)));
    }

    #[test]
    fn no_number_overflows() {
        let mut bucket = TokenBucket::full(rate(8000, usize::MAX), Duration::ZERO);
        for _ in 0..10 {
            bucket.take(usize::MAX, Duration::ZERO);
        }
        assert!(bucket.opens_at(Duration::ZERO).is_some());
        assert!(bucket.opens_at(Duration::MAX).is_some());
        bucket.take(1, Duration::MAX);
        bucket.give(usize::MAX);
        bucket.give(usize::MAX);
        assert!(bucket.may_send(Duration::ZERO));
    }
}

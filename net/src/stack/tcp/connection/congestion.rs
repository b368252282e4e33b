//! How much may be in flight: the [`Controller`] trait, and CUBIC (RFC 9438) with HyStart++ (RFC
//! 9406).
//!
//! What is in flight beyond a window that shrank is none of a controller's business: proportional
//! rate reduction is in [`episode`](super::episode).

use core::time::Duration;

use super::pace;
use super::seq::SeqNumber;

/// Segments that may go before anything is acknowledged (RFC 6928).
const INITIAL_SEGMENTS: u32 = 10;
/// Bytes that those may be, unless two segments are more.
const INITIAL_BYTES: u32 = 14_600;
/// What remains of the window after a loss (RFC 9438 section 4.6).
const BETA: f64 = 0.7;
/// Growth of the cubic function, in segments per second cubed (RFC 9438 section 5.1).
const C: f64 = 0.4;
/// Segments per round trip of a window that is fair to Reno's (RFC 9438 section 4.3).
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);
/// Least and largest rise of the round-trip time that ends slow start, and its share of the
/// round-trip time (RFC 9406 section 4.3).
const RISE: (Duration, Duration, u32) = (Duration::from_millis(4), Duration::from_millis(16), 8);
/// Measurements that a round needs to be judged.
const SAMPLES: u8 = 8;
/// How much slower the window grows while it is unsure whether slow start should end.
const CAREFUL: u32 = 4;
/// Windows that may go in a round trip while slow start doubles them, and later: more than one, so that
/// it is the window that counts in the end.
const START_GAIN: f64 = 2.0;
const GAIN: f64 = 1.25;
/// Rounds after which it is sure.
const CAREFUL_ROUNDS: u8 = 5;

/// An ACK that delivered something.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivery {
    /// Bytes that were acknowledged or selectively acknowledged for the first time.
    pub(crate) bytes: u32,
    /// Round-trip time of the segment sent last among them, if it was sent once.
    pub(crate) rtt: Option<Duration>,
    /// The smoothed round-trip time.
    pub(crate) smoothed: Duration,
    /// Bytes per second that arrived between the sending and the acknowledgment of that segment.
    #[expect(dead_code, reason = "for a controller that paces")]
    pub(crate) rate: Option<u64>,
    /// Whether it was the window that kept more from being sent.
    pub(crate) limited: bool,
    /// The acknowledgment, and the end of what was sent: by these rounds are counted.
    pub(crate) una: SeqNumber,
    /// See `una`.
    pub(crate) nxt: SeqNumber,
    /// Now.
    pub(crate) now: Duration,
}

/// Decides how much may be in flight. Windows are in bytes.
pub(crate) trait Controller {
    /// An ACK outside of recovery delivered something.
    fn on_delivery(&mut self, delivery: &Delivery);
    /// Something was lost: the window that recovery is to end with.
    fn on_loss(&mut self, now: Duration);
    /// All was lost, or so it seems.
    fn on_timeout(&mut self, now: Duration);
    /// The last loss or timeout was none.
    fn on_undo(&mut self);
    /// Nothing was sent for as many timeouts (RFC 5681 section 4.1).
    fn on_idle(&mut self, timeouts: u32);
    /// Segments have another size from now on.
    fn set_mss(&mut self, mss: u32);
    /// Sets the window within recovery.
    fn set_window(&mut self, window: u32);
    /// Bytes that may be in flight.
    fn window(&self) -> u32;
    /// Where slow start ends; the largest number for nowhere.
    fn threshold(&self) -> u32;
    /// Bytes a second at which new segments may go at this smoothed round-trip time, or `None` for as
    /// many at once as the window allows.
    fn pacing_rate(&self, smoothed: Duration) -> Option<u64>;
}

/// CUBIC.
#[derive(Debug)]
pub(crate) struct Cubic {
    mss: u32,
    /// The window in bytes; a fraction is not lost.
    window: f64,
    threshold: u32,
    /// The window at the last loss, in segments: the plateau of the function.
    plateau: f64,
    /// When the function began, if it did.
    epoch: Option<Epoch>,
    start: SlowStart,
    before: Option<Before>,
}

#[derive(Clone, Copy, Debug)]
struct Epoch {
    since: Duration,
    /// Seconds until it reaches the plateau.
    k: f64,
    /// What Reno would have, in segments.
    reno: f64,
    /// When the window last grew: idle times must not count.
    grown: Duration,
}

/// What a loss took.
#[derive(Clone, Copy, Debug)]
struct Before {
    window: f64,
    threshold: u32,
    plateau: f64,
}

/// HyStart++.
#[derive(Clone, Copy, Debug, Default)]
struct SlowStart {
    /// End of the round under way.
    round: Option<SeqNumber>,
    /// Least round-trip times of the last round and of this.
    last: Option<Duration>,
    this: Option<Duration>,
    samples: u8,
    /// While careful: the round-trip time from which on it is, and rounds so far.
    careful: Option<(Duration, u8)>,
}

impl Cubic {
    /// Before anything was sent, with segments of `mss` bytes.
    pub(crate) fn new(mss: u32) -> Self {
        Self {
            mss,
            window: f64::from(initial_window(mss)),
            threshold: u32::MAX,
            plateau: 0.0,
            epoch: None,
            start: SlowStart::default(),
            before: None,
        }
    }

    fn in_slow_start(&self) -> bool {
        self.window < f64::from(self.threshold)
    }

    fn slow_start(&mut self, delivery: &Delivery) {
        // However many one ACK is for: receivers, and who joins packets on the way, make few of many
        // (RFC 9406 section 4.2 has a bound of 8 segments, Linux none).
        let mut bytes = delivery.bytes;
        // Only the first slow start is a search; a later one ends at the threshold.
        if self.threshold == u32::MAX {
            if self.start.careful.is_some() {
                bytes /= CAREFUL;
            }
            if self.start.is_over(delivery) {
                self.threshold = self.window();
                return;
            }
        }
        let window = self.window + f64::from(bytes);
        self.window = window.min(f64::from(self.threshold).max(self.window));
    }

    fn avoid_congestion(&mut self, delivery: &Delivery) {
        let mss = f64::from(self.mss);
        let window = self.window / mss;
        let now = delivery.now;
        let epoch = self.epoch.get_or_insert_with(|| {
            // After slow start without a loss, the function begins at its plateau (RFC 9438 section
            // 4.8).
            self.plateau = self.plateau.max(window);
            Epoch {
                since: now,
                k: ((self.plateau - window) / C).cbrt(),
                reno: window,
                grown: now,
            }
        });
        // A pause of the program is no time in which the network showed anything (RFC 9438 section
        // 5.8).
        let pause = now.saturating_sub(epoch.grown);
        if pause > delivery.smoothed * 2 + Duration::from_millis(200) {
            epoch.since += pause;
        }
        epoch.grown = now;
        let acked = f64::from(delivery.bytes) / mss;
        let elapsed = now.saturating_sub(epoch.since).as_secs_f64();
        let cubic = |t: f64| C * (t - epoch.k).powi(3) + self.plateau;
        // Past the window of the last loss, as fast as Reno (RFC 9438 section 4.3).
        let alpha = if epoch.reno >= self.plateau {
            1.0
        } else {
            ALPHA
        };
        epoch.reno += alpha * acked / window;
        let target = cubic(elapsed + delivery.smoothed.as_secs_f64()).clamp(window, 1.5 * window);
        let grown = window + (target - window) / window * acked;
        let grown = if cubic(elapsed) < epoch.reno {
            grown.max(epoch.reno)
        } else {
            grown
        };
        self.window = grown * mss;
    }

    fn remember(&mut self) {
        self.before = Some(Before {
            window: self.window,
            threshold: self.threshold,
            plateau: self.plateau,
        });
    }

    fn reduce(&mut self) {
        self.remember();
        let window = self.window / f64::from(self.mss);
        // Fast convergence: who lost before it was back leaves room for who came in between (RFC
        // 9438 section 4.7).
        self.plateau = if window < self.plateau {
            window * (1.0 + BETA) / 2.0
        } else {
            window
        };
        self.threshold = ((self.window * BETA) as u32).max(2 * self.mss);
        self.epoch = None;
        self.start = SlowStart::default();
    }
}

impl Controller for Cubic {
    fn on_delivery(&mut self, delivery: &Delivery) {
        if !delivery.limited {
            if let Some(epoch) = &mut self.epoch {
                let pause = delivery.now.saturating_sub(epoch.grown);
                epoch.since += pause;
                epoch.grown = delivery.now;
            }
            return;
        }
        if self.in_slow_start() {
            self.slow_start(delivery);
        } else {
            self.avoid_congestion(delivery);
        }
    }

    fn on_loss(&mut self, _now: Duration) {
        self.reduce();
    }

    fn on_timeout(&mut self, _now: Duration) {
        self.reduce();
        self.window = f64::from(self.mss);
    }

    fn on_undo(&mut self) {
        if let Some(before) = self.before.take() {
            self.window = self.window.max(before.window);
            self.threshold = self.threshold.max(before.threshold);
            self.plateau = before.plateau;
            self.epoch = None;
        }
    }

    fn on_idle(&mut self, timeouts: u32) {
        let least = f64::from(initial_window(self.mss)).min(self.window);
        // The threshold remembers most of what was (RFC 2861 section 3.1, as Linux).
        if !self.in_slow_start() || self.threshold != u32::MAX {
            self.threshold = self.threshold.max((self.window * 0.75) as u32);
        }
        self.window = (self.window / 2_f64.powi(timeouts.min(32).cast_signed())).max(least);
        self.epoch = None;
    }

    fn set_mss(&mut self, mss: u32) {
        // The window is in bytes, and stays; at the very start, it is a number of segments.
        if self.threshold == u32::MAX && self.window <= f64::from(initial_window(self.mss)) {
            self.window = f64::from(initial_window(mss));
        }
        self.plateau = self.plateau * f64::from(self.mss) / f64::from(mss.max(1));
        self.mss = mss.max(1);
        self.window = self.window.max(f64::from(self.mss));
        self.epoch = None;
    }

    fn set_window(&mut self, window: u32) {
        self.window = f64::from(window.max(self.mss));
    }

    fn window(&self) -> u32 {
        self.window as u32
    }

    fn threshold(&self) -> u32 {
        self.threshold
    }

    fn pacing_rate(&self, smoothed: Duration) -> Option<u64> {
        if self.window < f64::from(pace::LEAST_WINDOW) || smoothed < pace::LEAST_ROUND_TRIP {
            return None;
        }
        let gain = if self.in_slow_start() {
            START_GAIN
        } else {
            GAIN
        };
        Some((gain * self.window / smoothed.as_secs_f64()) as u64)
    }
}

impl SlowStart {
    /// Whether the round-trip time says that a queue builds up.
    fn is_over(&mut self, delivery: &Delivery) -> bool {
        if self.round.is_none_or(|round| delivery.una >= round) {
            self.round = Some(delivery.nxt);
            self.last = self.this.take().or(self.last);
            self.samples = 0;
            if let Some((_, rounds)) = &mut self.careful {
                *rounds += 1;
                if *rounds >= CAREFUL_ROUNDS {
                    return true;
                }
            }
        }
        let Some(rtt) = delivery.rtt else {
            return false;
        };
        let this = self.this.map_or(rtt, |this| this.min(rtt));
        self.this = Some(this);
        self.samples = self.samples.saturating_add(1);
        if self.samples < SAMPLES {
            return false;
        }
        match (self.careful, self.last) {
            // It was only a moment's jam.
            (Some((baseline, _)), _) if this < baseline => self.careful = None,
            (None, Some(last)) => {
                let (least, most, share) = RISE;
                if this >= last + (last / share).clamp(least, most) {
                    self.careful = Some((this, 0));
                }
            }
            _ => {}
        }
        false
    }
}

/// Bytes that may go before anything is acknowledged (RFC 6928 section 2).
pub(super) fn initial_window(mss: u32) -> u32 {
    (INITIAL_SEGMENTS * mss).min(INITIAL_BYTES.max(2 * mss))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;

    /// Acknowledges one window after the other for so long, a round trip of `rtt` each.
    fn grow(cubic: &mut Cubic, mut now: Duration, span: Duration, rtt: Duration) {
        let until = now + span;
        let mut una = cubic.start.round.unwrap_or_default();
        while now < until {
            let window = cubic.window();
            let nxt = una + window;
            while una < nxt {
                let bytes = (2 * MSS).min(nxt.since(una));
                una += bytes;
                cubic.on_delivery(&Delivery {
                    bytes,
                    rtt: Some(rtt),
                    smoothed: rtt,
                    rate: None,
                    limited: true,
                    una,
                    nxt: una + cubic.window(),
                    now,
                });
            }
            now += rtt;
        }
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn slow_start_doubles_and_a_growing_queue_ends_it() {
        let mut cubic = Cubic::new(MSS);
        assert_eq!(cubic.window(), 10_000);
        grow(&mut cubic, ms(0), ms(300), ms(100));
        assert_eq!(cubic.window(), 80_000);
        // A quarter as fast for five rounds, and then no more.
        grow(&mut cubic, ms(300), ms(700), ms(130));
        let window = cubic.window();
        assert!(window < 400_000 && cubic.threshold() < u32::MAX, "{window}");
        grow(&mut cubic, ms(1000), ms(500), ms(130));
        assert!(cubic.window() < window * 5 / 4);
    }

    #[test]
    fn the_function_of_rfc_9438() {
        let mut cubic = Cubic::new(MSS);
        cubic.set_window(1_000_000);
        cubic.on_loss(ms(0));
        assert_eq!(cubic.threshold(), 700_000);
        cubic.set_window(700_000);
        // K is the cubic root of 300/0.4: 9.1 s.
        grow(&mut cubic, ms(0), ms(4500), ms(100));
        let half = cubic.window();
        assert!((930_000..980_000).contains(&half), "{half}");
        grow(&mut cubic, ms(4500), ms(4600), ms(100));
        let plateau = cubic.window();
        assert!((990_000..1_010_000).contains(&plateau), "{plateau}");
        grow(&mut cubic, ms(9100), ms(4500), ms(100));
        assert!(cubic.window() > 1_030_000);
        // Fast convergence.
        cubic.set_window(800_000);
        cubic.plateau = 1000.0;
        cubic.on_loss(ms(20_000));
        assert_eq!(cubic.plateau as u32, 680);
    }

    #[test]
    fn small_windows_grow_as_renos_without_truncation() {
        let mut cubic = Cubic::new(MSS);
        cubic.set_window(20_000);
        cubic.on_loss(ms(0));
        cubic.set_window(14_000);
        grow(&mut cubic, ms(0), ms(400), ms(20));
        // 0.53 segments each round trip up to the plateau, then one.
        let window = cubic.window();
        assert!((21_000..33_000).contains(&window), "{window}");
    }

    #[test]
    fn what_was_no_loss_is_undone_and_idleness_shrinks() {
        let mut cubic = Cubic::new(MSS);
        cubic.set_window(100_000);
        cubic.on_timeout(ms(0));
        assert_eq!(cubic.window(), MSS);
        cubic.on_undo();
        assert_eq!(cubic.window(), 100_000);
        assert_eq!(cubic.threshold(), u32::MAX);
        cubic.on_idle(2);
        assert_eq!(cubic.window(), 25_000);
        cubic.on_idle(9);
        assert_eq!(cubic.window(), 10_000);
    }
}

//! CoDel (RFC 8289): drops from a queue that stands, until the delay in it is as small as it can be.

use std::time::Duration;

/// The numbers of CoDel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    /// The delay that a queue may always have.
    pub(super) target: Duration,
    /// How long the delay may be longer: the time that senders need to notice.
    pub(super) interval: Duration,
    /// Whether packets are marked instead of dropped, where their transport understands that.
    pub(super) ecn: bool,
}

/// The queue that CoDel looks after.
pub(super) trait Backlog {
    /// A packet in it.
    type Frame;

    /// Takes the oldest packet, and the time at which it was queued.
    fn pop(&mut self) -> Option<(Self::Frame, Duration)>;

    /// Whether no more than one packet of the largest size is left. Then none is dropped.
    fn is_short(&self) -> bool;

    /// Marks a packet. False if its transport does not understand that.
    fn mark(&mut self, frame: &mut Self::Frame) -> bool;

    /// Drops a packet.
    fn discard(&mut self, frame: Self::Frame);
}

/// The state of CoDel, by the names of RFC 8289 section 5.3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Codel {
    /// The time from which the delay has been too long for an interval; `None` while it is not.
    first_above: Option<Duration>,
    /// The time of the next drop.
    drop_next: Duration,
    /// Drops since it began to drop.
    count: u32,
    /// The same, when it last began to drop.
    last_count: u32,
    dropping: bool,
}

impl Codel {
    /// `dequeue` of RFC 8289 section 5.5: releases the next packet, and drops or marks as it sees fit.
    pub(super) fn dequeue<Q: Backlog>(
        &mut self,
        terms: &Terms,
        now: Duration,
        queue: &mut Q,
    ) -> Option<Q::Frame> {
        /// Within so many intervals after it stopped to drop, it goes on where it was.
        const RECENT: u32 = 16;

        let (mut frame, mut drop) = self.pop(terms, now, queue)?;
        if self.dropping {
            self.dropping = drop;
            while self.dropping && now >= self.drop_next {
                self.count = self.count.saturating_add(1);
                self.drop_next = control_law(self.drop_next, terms.interval, self.count);
                if terms.ecn && queue.mark(&mut frame) {
                    break;
                }
                queue.discard(frame);
                (frame, drop) = self.pop(terms, now, queue)?;
                self.dropping = drop;
            }
        } else if drop {
            if !(terms.ecn && queue.mark(&mut frame)) {
                queue.discard(frame);
                (frame, _) = self.pop(terms, now, queue)?;
            }
            self.dropping = true;
            let delta = self.count.saturating_sub(self.last_count);
            let recent = now.saturating_sub(self.drop_next) < terms.interval * RECENT;
            self.count = if recent && delta > 1 { delta } else { 1 };
            self.drop_next = control_law(now, terms.interval, self.count);
            self.last_count = self.count;
        }
        Some(frame)
    }

    /// `dodequeue` of RFC 8289 section 5.6: the next packet, and whether it may be dropped.
    fn pop<Q: Backlog>(
        &mut self,
        terms: &Terms,
        now: Duration,
        queue: &mut Q,
    ) -> Option<(Q::Frame, bool)> {
        let Some((frame, queued_at)) = queue.pop() else {
            self.first_above = None;
            self.dropping = false;
            return None;
        };
        if now.saturating_sub(queued_at) < terms.target || queue.is_short() {
            self.first_above = None;
            return Some((frame, false));
        }
        let since = self.first_above.get_or_insert(now + terms.interval);
        Some((frame, now >= *since))
    }
}

/// The time of the drop after that at `at`: the more there were, the sooner.
fn control_law(at: Duration, interval: Duration, count: u32) -> Duration {
    let pause = interval.as_nanos() as f64 / f64::from(count.max(1)).sqrt();
    at.saturating_add(Duration::from_nanos(pause as u64))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const MTU: usize = 1500;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn terms(ecn: bool) -> Terms {
        Terms {
            target: ms(5),
            interval: ms(100),
            ecn,
        }
    }

    /// Packets of 1500 bytes: a number and the time of arrival.
    #[derive(Default)]
    struct Queue {
        packets: VecDeque<(u64, Duration)>,
        dropped: Vec<u64>,
        marked: Vec<u64>,
        capable: bool,
    }

    impl Backlog for Queue {
        type Frame = u64;

        fn pop(&mut self) -> Option<(u64, Duration)> {
            self.packets.pop_front()
        }

        fn is_short(&self) -> bool {
            self.packets.len() * MTU <= MTU
        }

        fn mark(&mut self, frame: &mut u64) -> bool {
            if self.capable {
                self.marked.push(*frame);
            }
            self.capable
        }

        fn discard(&mut self, frame: u64) {
            self.dropped.push(frame);
        }
    }

    /// The pseudocode of RFC 8289 section 5, line by line, in seconds.
    #[derive(Default)]
    struct Pseudocode {
        first_above_time: f64,
        drop_next: f64,
        count: u32,
        lastcount: u32,
        dropping: bool,
        packets: VecDeque<(u64, f64)>,
        dropped: Vec<u64>,
    }

    const TARGET: f64 = 0.005;
    const INTERVAL: f64 = 0.1;

    impl Pseudocode {
        fn dodequeue(&mut self, now: f64) -> (Option<u64>, bool) {
            let Some((packet, tstamp)) = self.packets.pop_front() else {
                self.first_above_time = 0.0;
                return (None, false);
            };
            let mut ok_to_drop = false;
            let sojourn_time = now - tstamp;
            if sojourn_time < TARGET || self.packets.len() * MTU <= MTU {
                self.first_above_time = 0.0;
            } else if self.first_above_time == 0.0 {
                self.first_above_time = now + INTERVAL;
            } else if now >= self.first_above_time {
                ok_to_drop = true;
            }
            (Some(packet), ok_to_drop)
        }

        fn dequeue(&mut self, now: f64) -> Option<u64> {
            let law = |t: f64, count: u32| t + INTERVAL / f64::from(count).sqrt();
            let (mut p, mut ok_to_drop) = self.dodequeue(now);
            if self.dropping {
                if !ok_to_drop {
                    self.dropping = false;
                }
                while now >= self.drop_next && self.dropping {
                    self.dropped.extend(p);
                    self.count += 1;
                    (p, ok_to_drop) = self.dodequeue(now);
                    if !ok_to_drop {
                        self.dropping = false;
                    } else {
                        self.drop_next = law(self.drop_next, self.count);
                    }
                }
            } else if ok_to_drop {
                self.dropped.extend(p);
                (p, _) = self.dodequeue(now);
                self.dropping = true;
                let delta = self.count - self.lastcount;
                self.count = 1;
                if delta > 1 && now - self.drop_next < 16.0 * INTERVAL {
                    self.count = delta;
                }
                self.drop_next = law(now, self.count);
                self.lastcount = self.count;
            }
            p
        }
    }

    #[test]
    fn it_drops_exactly_as_the_pseudocode_does() {
        for seed in 0..30 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut codel, mut queue, mut model) =
                (Codel::default(), Queue::default(), Pseudocode::default());
            let mut number = 0;
            // An odd number of nanoseconds, so that no comparison is of equal times.
            let mut now = Duration::from_nanos(1_000_000_007);
            for round in 0..20_000 {
                now += Duration::from_nanos(1_000_003 + rng.u64(..1000));
                // Floods and pauses.
                let arrivals = match round / 2500 % 3 {
                    0 => rng.usize(..3),
                    1 => rng.usize(..2),
                    _ => usize::from(rng.u8(..10) == 0),
                };
                for _ in 0..arrivals {
                    queue.packets.push_back((number, now));
                    model.packets.push_back((number, now.as_secs_f64()));
                    number += 1;
                }
                let released = codel.dequeue(&terms(false), now, &mut queue);
                assert_eq!(released, model.dequeue(now.as_secs_f64()), "round {round}");
            }
            assert_eq!(queue.dropped, model.dropped);
            assert!(queue.dropped.len() > 20, "{}", queue.dropped.len());
        }
    }

    #[test]
    fn the_times_of_drops_follow_the_control_law() {
        // A queue that never gets shorter, and a packet a millisecond.
        let (mut codel, mut queue) = (Codel::default(), Queue::default());
        let (mut times, mut seen) = (Vec::new(), 0);
        for at in 0..1000 {
            queue.packets.resize(100, (0, Duration::ZERO));
            codel.dequeue(&terms(false), ms(100 + at), &mut queue);
            if queue.dropped.len() > seen {
                seen = queue.dropped.len();
                times.push(at);
            }
        }
        // The first after an interval, the next after 100 ms, and then 100/√2, 100/√3 … later.
        assert_eq!(times[..8], [100, 200, 271, 329, 379, 424, 464, 502]);
    }

    #[test]
    fn a_packet_that_understands_marks_is_not_lost() {
        let (mut codel, mut queue) = (Codel::default(), Queue::default());
        queue.capable = true;
        for at in 0..1000 {
            queue.packets.resize(100, (at, Duration::ZERO));
            let released = codel.dequeue(&terms(true), ms(100 + at), &mut queue);
            assert!(released.is_some());
        }
        assert!(queue.dropped.is_empty());
        assert!(queue.marked.len() > 15, "{}", queue.marked.len());
        // Without ecn the same packets are dropped.
        let mut codel = Codel::default();
        queue.marked.clear();
        for at in 0..300 {
            queue.packets.resize(100, (at, Duration::ZERO));
            codel.dequeue(&terms(false), ms(100 + at), &mut queue);
        }
        assert!(queue.marked.is_empty() && queue.dropped.len() >= 3);
    }

    #[test]
    fn the_last_packet_is_never_dropped() {
        let (mut codel, mut queue) = (Codel::default(), Queue::default());
        for at in 0..1000 {
            queue.packets.push_back((at, Duration::ZERO));
            let released = codel.dequeue(&terms(false), ms(200 + at), &mut queue);
            assert_eq!(released, Some(at));
        }
        assert!(queue.dropped.is_empty());
        assert_eq!(codel.dequeue(&terms(false), ms(5000), &mut queue), None);
    }
}

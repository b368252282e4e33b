//! Timers in the order in which they are due, with one entry for each.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::Duration;

/// Many timers, each with a key of its own.
///
/// The owner of each keeps a [`Timer`], which says where its entry is. So it is found without a
/// search, and there is never more than one: arming a timer again moves it.
#[derive(Debug)]
pub(crate) struct Timers<K> {
    order: BTreeSet<(Duration, K)>,
}

/// The time at which a timer is due; `None` while it is not armed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timer(Option<Duration>);

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self {
            order: BTreeSet::new(),
        }
    }
}

impl<K: Ord + Copy> Timers<K> {
    /// Arms a timer to be due at `at`, instead of at any earlier setting.
    pub(crate) fn arm(&mut self, timer: &mut Timer, key: K, at: Duration) {
        if timer.0 != Some(at) {
            self.disarm(timer, key);
            timer.0 = Some(at);
            self.order.insert((at, key));
        }
    }

    /// Disarms a timer.
    pub(crate) fn disarm(&mut self, timer: &mut Timer, key: K) {
        if let Some(at) = timer.0.take() {
            self.order.remove(&(at, key));
        }
    }

    /// Takes the timer that is due first, if it is due by `now`. The caller has to call
    /// [`Timer::expired`] on it.
    #[must_use]
    pub(crate) fn pop(&mut self, now: Duration) -> Option<K> {
        let &(at, _) = self.order.first()?;
        if at > now {
            return None;
        }
        self.order.pop_first().map(|(_, key)| key)
    }

    /// The time at which the first timer is due.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.order.first().map(|&(at, _)| at)
    }

    /// The key of the timer that is due first.
    pub(crate) fn first(&self) -> Option<K> {
        self.order.first().map(|&(_, key)| key)
    }

    /// The keys of all timers that are armed, in the order in which they are due.
    pub(crate) fn iter(&self) -> impl Iterator<Item = K> {
        self.order.iter().map(|&(_, key)| key)
    }

    /// The timers that are due after `last`, and when; `None` for all.
    pub(crate) fn after(&self, last: Option<(Duration, K)>) -> impl Iterator<Item = (Duration, K)> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        self.order.range((from, Bound::Unbounded)).copied()
    }

    /// The number of armed timers.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }
}

impl Timer {
    /// The time at which it is due; `None` while it is not armed.
    pub(crate) fn at(self) -> Option<Duration> {
        self.0
    }

    /// Notes that it was [taken](Timers::pop).
    pub(crate) fn expired(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_entry_for_each_in_the_order_of_time() {
        let ms = Duration::from_millis;
        let mut timers = Timers::default();
        let mut armed = [Timer::default(); 3];
        timers.arm(&mut armed[0], 0, ms(30));
        timers.arm(&mut armed[1], 1, ms(10));
        timers.arm(&mut armed[2], 2, ms(20));
        timers.arm(&mut armed[0], 0, ms(5));
        timers.disarm(&mut armed[2], 2);
        assert_eq!((timers.len(), timers.deadline()), (2, Some(ms(5))));
        assert_eq!(timers.pop(ms(4)), None);
        assert_eq!(timers.pop(ms(10)), Some(0));
        armed[0].expired();
        assert_eq!(armed[0].at(), None);
        assert_eq!(timers.pop(ms(10)), Some(1));
        assert_eq!(timers.pop(Duration::MAX), None);
    }
}

//! Connections of which only the TIME-WAIT is left (RFC 9293 section 3.6.1): what it takes to answer
//! a late segment, without a socket and its buffers.

use std::collections::HashMap;
use std::time::Duration;

use super::connection::TimeWait;
use crate::ip::header::Endpoints;
use crate::timers::{Timer, Timers};

/// Most records; one more pushes out the one that is over first.
const MAX_RECORDS: usize = 65_536;

/// All connections that wait.
#[derive(Debug)]
pub(super) struct TimeWaits {
    records: HashMap<Endpoints, (TimeWait, Duration, Timer), ahash::RandomState>,
    timers: Timers<Endpoints>,
}

impl TimeWaits {
    pub(super) fn new(hasher: ahash::RandomState) -> Self {
        Self {
            records: HashMap::with_hasher(hasher),
            timers: Timers::default(),
        }
    }

    /// Whether these endpoints wait.
    pub(super) fn get(&self, endpoints: &Endpoints, now: Duration) -> Option<TimeWait> {
        let &(wait, until, _) = self.records.get(endpoints)?;
        (now < until).then_some(wait)
    }

    /// The one that is over next after `last`, and when that is; `None` for `last` begins with those
    /// that are not over.
    pub(super) fn after(
        &self,
        last: Option<(Duration, Endpoints)>,
        now: Duration,
    ) -> Option<(Duration, Endpoints)> {
        self.timers.after(last).find(|(until, _)| now < *until)
    }

    /// Has these endpoints wait until then, exclusive.
    pub(super) fn insert(&mut self, endpoints: Endpoints, wait: TimeWait, until: Duration) {
        self.remove(&endpoints);
        if self.records.len() >= MAX_RECORDS
            && let Some(first) = self.timers.pop(Duration::MAX)
        {
            self.records.remove(&first);
        }
        let mut timer = Timer::default();
        self.timers.arm(&mut timer, endpoints, until);
        self.records.insert(endpoints, (wait, until, timer));
    }

    pub(super) fn remove(&mut self, endpoints: &Endpoints) {
        if let Some((.., mut timer)) = self.records.remove(endpoints) {
            self.timers.disarm(&mut timer, *endpoints);
        }
    }

    /// Forgets those that are over. Nobody needs to wake for that: [`Self::get`] does not find them.
    pub(super) fn expire(&mut self, now: Duration) {
        while let Some(endpoints) = self.timers.pop(now) {
            self.records.remove(&endpoints);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::connection::SeqNumber;
    use super::*;

    fn endpoints(n: u32) -> Endpoints {
        let addr = |n: u32| std::net::Ipv4Addr::from(n).into();
        Endpoints {
            local: (addr(1), 80),
            remote: (addr(n), 4000),
            link: None,
        }
    }

    const WAITS: TimeWait = TimeWait {
        snd_nxt: SeqNumber(1),
        rcv_nxt: SeqNumber(2),
        ts_recent: None,
    };

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn waits() -> TimeWaits {
        TimeWaits::new(ahash::RandomState::with_seeds(1, 2, 3, 4))
    }

    #[test]
    fn a_wait_ends_and_begins_again() {
        let mut waits = waits();
        waits.insert(endpoints(1), WAITS, ms(10));
        waits.insert(endpoints(1), WAITS, ms(20));
        waits.expire(ms(19));
        assert_eq!(waits.get(&endpoints(1), ms(19)), Some(WAITS));
        assert_eq!(waits.get(&endpoints(1), ms(20)), None);
        waits.expire(ms(20));
        assert!(waits.records.is_empty() && waits.timers.deadline().is_none());
    }

    #[test]
    fn the_first_to_be_over_makes_room() {
        let mut waits = waits();
        let most = MAX_RECORDS as u32;
        for n in 0..=most {
            waits.insert(endpoints(n), WAITS, ms(u64::from(n) + 1));
        }
        assert_eq!(waits.records.len(), MAX_RECORDS);
        assert_eq!(waits.timers.len(), MAX_RECORDS);
        assert_eq!(waits.get(&endpoints(0), Duration::ZERO), None);
        assert!(waits.get(&endpoints(most), Duration::ZERO).is_some());
    }
}

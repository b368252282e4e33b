//! Connections of which only the TIME-WAIT is left (RFC 9293 section 3.6.1): what it takes to answer
//! a late segment, without a socket and its buffers.

use std::collections::HashMap;
use std::time::Duration;

use smoltcp::wire::TcpSeqNumber;

use crate::ip::header::Endpoints;
use crate::timers::{Timer, Timers};

/// Most records; one more pushes out the one that is over first.
const MAX_RECORDS: usize = 65_536;
/// How long a wait lasts from the last FIN on: as long as smoltcp's.
pub(super) const WAIT: Duration = Duration::from_secs(10);

/// A connection that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimeWait {
    /// `SND.NXT`.
    pub(super) seq: TcpSeqNumber,
    /// `RCV.NXT`.
    pub(super) ack: TcpSeqNumber,
    /// When it is over, exclusive.
    pub(super) until: Duration,
}

/// All connections that wait.
pub(super) struct TimeWaits {
    records: HashMap<Endpoints, (TimeWait, Timer), ahash::RandomState>,
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
        let &(wait, _) = self.records.get(endpoints)?;
        (now < wait.until).then_some(wait)
    }

    pub(super) fn insert(&mut self, endpoints: Endpoints, wait: TimeWait) {
        self.remove(&endpoints);
        if self.records.len() >= MAX_RECORDS
            && let Some(first) = self.timers.pop(Duration::MAX)
        {
            self.records.remove(&first);
        }
        let mut timer = Timer::default();
        self.timers.arm(&mut timer, endpoints, wait.until);
        self.records.insert(endpoints, (wait, timer));
    }

    pub(super) fn remove(&mut self, endpoints: &Endpoints) {
        if let Some((_, mut timer)) = self.records.remove(endpoints) {
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
    use super::*;

    fn endpoints(n: u32) -> Endpoints {
        let addr = |n: u32| std::net::Ipv4Addr::from(n).into();
        Endpoints {
            local: (addr(1), 80),
            remote: (addr(n), 4000),
        }
    }

    fn wait(until: u64) -> TimeWait {
        TimeWait {
            seq: TcpSeqNumber(1),
            ack: TcpSeqNumber(2),
            until: Duration::from_millis(until),
        }
    }

    fn waits() -> TimeWaits {
        TimeWaits::new(ahash::RandomState::with_seeds(1, 2, 3, 4))
    }

    #[test]
    fn a_wait_ends_and_begins_again() {
        let mut waits = waits();
        waits.insert(endpoints(1), wait(10));
        waits.insert(endpoints(1), wait(20));
        waits.expire(Duration::from_millis(19));
        let now = Duration::from_millis(19);
        assert_eq!(waits.get(&endpoints(1), now), Some(wait(20)));
        let now = Duration::from_millis(20);
        assert_eq!(waits.get(&endpoints(1), now), None);
        waits.expire(now);
        assert!(waits.records.is_empty() && waits.timers.deadline().is_none());
    }

    #[test]
    fn the_first_to_be_over_makes_room() {
        let mut waits = waits();
        let most = MAX_RECORDS as u32;
        for n in 0..=most {
            waits.insert(endpoints(n), wait(u64::from(n) + 1));
        }
        assert_eq!(waits.records.len(), MAX_RECORDS);
        assert_eq!(waits.timers.len(), MAX_RECORDS);
        assert_eq!(waits.get(&endpoints(0), Duration::ZERO), None);
        assert!(waits.get(&endpoints(most), Duration::ZERO).is_some());
    }
}

//! Requests that wait, first come first served for each file and direction.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::server::FileId;

/// The queue of a file that a request waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// For data to read.
    Read,
    /// For room to write.
    Write,
}

/// A request kept for later.
#[derive(Debug)]
pub(crate) struct Waiter<T, W> {
    /// Its tag, unique among the requests that wait.
    pub(crate) tag: T,
    /// The request itself.
    pub(crate) request: W,
    /// The monotonic time at which it times out; `None` waits for ever.
    pub(crate) deadline: Option<Duration>,
    /// The monotonic time at which it began to wait.
    pub(crate) since: Duration,
    /// Bytes that it takes besides its place.
    pub(crate) bytes: usize,
}

/// Most requests that wait.
const MAX_WAITING: usize = 65_536;
/// Of these, how many are reserved for the superuser.
const RESERVED_WAITING: usize = 4096;
/// Most bytes that they take, such as those of writes.
const MAX_BYTES: usize = 64 << 20;
/// Of these, how many are reserved for the superuser.
const RESERVED_BYTES: usize = 16 << 20;

/// The place of a request in its queue. Later requests have higher numbers.
type Place = (FileId, Direction, u64);

/// Every request that waits. An operation costs the logarithm of their number.
#[derive(Debug)]
pub(crate) struct Waits<T, W> {
    /// All queues, one after the other.
    queues: BTreeMap<Place, Waiter<T, W>>,
    places: BTreeMap<T, Place>,
    deadlines: BTreeSet<(Duration, T)>,
    /// Bytes of all requests.
    bytes: usize,
    /// The number of the next request.
    next: u64,
}

impl<T, W> Default for Waits<T, W> {
    fn default() -> Self {
        Self {
            queues: BTreeMap::new(),
            places: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            bytes: 0,
            next: 0,
        }
    }
}

impl<T: Copy + Ord, W> Waits<T, W> {
    /// Whether a request of `uid` may wait, with so many bytes.
    pub(crate) fn has_room(&self, bytes: usize, uid: u32) -> bool {
        let (requests, most) = match uid {
            0 => (MAX_WAITING, MAX_BYTES),
            _ => (MAX_WAITING - RESERVED_WAITING, MAX_BYTES - RESERVED_BYTES),
        };
        self.len() < requests && (bytes == 0 || self.bytes + bytes <= most)
    }

    /// Queues a request behind those that wait already.
    pub(crate) fn park(&mut self, file: FileId, direction: Direction, waiter: Waiter<T, W>) {
        self.bytes += waiter.bytes;
        let place = (file, direction, self.next);
        self.next += 1;
        self.places.insert(waiter.tag, place);
        self.deadlines
            .extend(waiter.deadline.map(|deadline| (deadline, waiter.tag)));
        self.queues.insert(place, waiter);
    }

    /// Whether a new request would have to queue behind another.
    pub(crate) fn occupied(&self, file: FileId, direction: Direction) -> bool {
        self.queues.range(queue(file, direction)).next().is_some()
    }

    /// The request that has waited longest.
    pub(crate) fn front(
        &mut self,
        file: FileId,
        direction: Direction,
    ) -> Option<&mut Waiter<T, W>> {
        let (_, waiter) = self.queues.range_mut(queue(file, direction)).next()?;
        Some(waiter)
    }

    /// Takes the request that has waited longest.
    pub(crate) fn pop(&mut self, file: FileId, direction: Direction) -> Option<Waiter<T, W>> {
        let tag = self.front(file, direction)?.tag;
        self.cancel(tag)
    }

    /// Takes the request with this tag, wherever it is in its queue.
    pub(crate) fn cancel(&mut self, tag: T) -> Option<Waiter<T, W>> {
        let waiter = self.queues.remove(&self.places.remove(&tag)?)?;
        self.bytes -= waiter.bytes;
        if let Some(deadline) = waiter.deadline {
            self.deadlines.remove(&(deadline, tag));
        }
        Some(waiter)
    }

    /// Takes every request of a file for which `wanted` holds.
    pub(crate) fn purge(
        &mut self,
        file: FileId,
        wanted: impl Fn(&Waiter<T, W>) -> bool,
    ) -> Vec<Waiter<T, W>> {
        let both = (file, Direction::Read, 0)..=(file, Direction::Write, u64::MAX);
        let all = self.queues.range(both).map(|(_, waiter)| waiter);
        let tags: Vec<T> = all
            .filter(|waiter| wanted(waiter))
            .map(|waiter| waiter.tag)
            .collect();
        tags.into_iter()
            .filter_map(|tag| self.cancel(tag))
            .collect()
    }

    /// The time of the next timeout.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// Takes a request that has timed out.
    pub(crate) fn expire(&mut self, now: Duration) -> Option<Waiter<T, W>> {
        let &(deadline, tag) = self.deadlines.first()?;
        if deadline > now {
            return None;
        }
        self.cancel(tag)
    }

    /// The number of waiting requests.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }
}

/// All places of a queue.
fn queue(file: FileId, direction: Direction) -> RangeInclusive<Place> {
    (file, direction, 0)..=(file, direction, u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: FileId = FileId(1);

    fn waits(tags: &[u64]) -> Waits<u64, &'static str> {
        let mut waits = Waits::default();
        for &tag in tags {
            let waiter = Waiter {
                tag,
                request: "r",
                deadline: Some(Duration::from_secs(10 - tag)),
                since: Duration::ZERO,
                bytes: 5,
            };
            waits.park(FILE, Direction::Read, waiter);
        }
        waits
    }

    #[test]
    fn bounded_in_number_and_bytes_and_the_last_are_the_superusers() {
        let mut waits = Waits::default();
        let park = |waits: &mut Waits<usize, ()>, bytes| {
            let tag = waits.len();
            let waiter = Waiter {
                tag,
                request: (),
                deadline: None,
                since: Duration::ZERO,
                bytes,
            };
            waits.park(FILE, Direction::Write, waiter);
        };
        while waits.has_room(1 << 16, 1000) {
            park(&mut waits, 1 << 16);
        }
        assert_eq!(waits.bytes, MAX_BYTES - RESERVED_BYTES);
        assert!(waits.has_room(1 << 16, 0) && waits.has_room(0, 1000));
        while waits.has_room(1 << 16, 0) {
            park(&mut waits, 1 << 16);
        }
        assert_eq!(waits.bytes, MAX_BYTES);
        while waits.has_room(0, 1000) {
            park(&mut waits, 0);
        }
        assert_eq!(waits.len(), MAX_WAITING - RESERVED_WAITING);
        assert!(waits.has_room(0, 0));
        while waits.has_room(0, 0) {
            park(&mut waits, 0);
        }
        assert_eq!(waits.len(), MAX_WAITING);
        waits.purge(FILE, |_| true);
        assert_eq!((waits.len(), waits.bytes), (0, 0));
    }

    #[test]
    fn first_come_first_served() {
        let mut waits = waits(&[1, 2, 3]);
        assert!(waits.cancel(2).is_some());
        assert!(waits.cancel(2).is_none());
        assert_eq!(waits.pop(FILE, Direction::Read).unwrap().tag, 1);
        assert_eq!(waits.pop(FILE, Direction::Read).unwrap().tag, 3);
        assert!(!waits.occupied(FILE, Direction::Read));
        assert_eq!(waits.len(), 0);
    }

    #[test]
    fn the_first_to_be_over_is_not_the_first_to_come() {
        let mut waits = waits(&[1, 2, 3]);
        assert_eq!(waits.deadline(), Some(Duration::from_secs(7)));
        assert!(waits.expire(Duration::from_secs(6)).is_none());
        let over = waits.expire(Duration::from_secs(8)).unwrap();
        assert_eq!(over.tag, 3);
        assert!(waits.pop(FILE, Direction::Read).is_some());
        assert_eq!(waits.deadline(), Some(Duration::from_secs(8)));
        assert!(waits.cancel(2).is_some());
        assert_eq!(waits.deadline(), None);
    }

    #[test]
    fn purge_takes_only_the_wanted() {
        let mut waits = waits(&[1, 2, 3, 4]);
        let odd = waits.purge(FILE, |waiter| waiter.tag % 2 == 1);
        assert_eq!(odd.len(), 2);
        assert_eq!(waits.len(), 2);
        assert!(waits.cancel(1).is_none());
        assert_eq!(waits.front(FILE, Direction::Read).unwrap().tag, 2);
    }
}

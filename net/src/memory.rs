//! The memory that all things of one kind take together, such as the queues of sockets.

/// Most bytes.
pub(crate) const LIMIT: usize = 64 << 20;
/// Of these, how many are reserved for the superuser, so that nobody else can take what it needs.
pub(crate) const RESERVED: usize = 16 << 20;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Places that the queue of a socket keeps when nothing is in them.
pub(crate) const SPARE_PLACES: usize = 8;

/// Takes the first of a queue. When three quarters of its places are empty most of them are given
/// back, but for so many that are `spare`: many may have a queue that was long once.
#[inline]
pub(crate) fn pop_front<T>(queue: &mut VecDeque<T>, spare: usize) -> Option<T> {
    let first = queue.pop_front();
    if queue.capacity() > spare.max(4 * queue.len()) {
        queue.shrink_to(2 * queue.len());
    }
    first
}

/// Bytes that all things of one kind take.
#[derive(Debug, Default)]
pub(crate) struct Memory(usize);

impl Memory {
    /// Whether something of `uid` may grow by so many bytes.
    pub(crate) fn has_room(&self, bytes: usize, uid: u32) -> bool {
        let limit = match uid {
            0 => LIMIT,
            _ => LIMIT - RESERVED,
        };
        self.0 + bytes <= limit
    }

    /// Something grew by so many bytes.
    pub(crate) fn take(&mut self, bytes: usize) {
        self.0 += bytes;
    }

    /// Something shrank by so many bytes.
    pub(crate) fn give_back(&mut self, bytes: usize) {
        self.0 -= bytes;
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0 == 0
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.0
    }
}

/// Memory of things of one kind that end in many places: each has a [`Share`] of it. Nobody but the
/// superuser has such things, so there is no reserve.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pool(Arc<AtomicUsize>);

/// The memory that one thing takes of a [`Pool`], which gets it back when the thing is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    pool: Pool,
    bytes: usize,
}

impl Pool {
    /// The share of a thing that takes nothing yet.
    pub(crate) fn share(&self) -> Share {
        Share {
            pool: self.clone(),
            bytes: 0,
        }
    }

    /// Bytes of all shares together.
    pub(crate) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Share {
    /// The memory that it is a part of.
    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The thing takes so many bytes from now on. False, and nothing changes, if they are more than
    /// before and the pool has no room for them.
    pub(crate) fn resize(&mut self, bytes: usize) -> bool {
        let others = self.pool.bytes() - self.bytes;
        if bytes > self.bytes && others + bytes > LIMIT {
            return false;
        }
        // One thread at a time has the network, so nobody comes in between.
        self.pool.0.store(others + bytes, Ordering::Relaxed);
        self.bytes = bytes;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.resize(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_was_long_does_not_keep_its_places() {
        let mut queue: VecDeque<u64> = (0..10_000).collect();
        for at in 0..10_000 {
            assert_eq!(pop_front(&mut queue, SPARE_PLACES), Some(at));
            let left = queue.len();
            assert!(queue.capacity() <= SPARE_PLACES.max(4 * left), "{left}");
        }
        assert_eq!(pop_front(&mut queue, SPARE_PLACES), None);
        // One that comes and goes is not moved each time.
        queue.push_back(1);
        let places = queue.capacity();
        pop_front(&mut queue, SPARE_PLACES);
        assert_eq!(queue.capacity(), places);
    }

    #[test]
    fn a_pool_gets_back_what_was_taken_of_it() {
        let pool = Pool::default();
        let (mut one, mut other) = (pool.share(), pool.share());
        assert!(one.resize(LIMIT - 10) && other.resize(10) && !other.resize(11));
        assert_eq!(pool.bytes(), LIMIT);
        assert!(one.resize(7));
        drop(one);
        assert_eq!(pool.bytes(), 10);
        drop(other);
        assert_eq!(pool.bytes(), 0);
    }

    #[test]
    fn the_last_bytes_are_the_superusers() {
        let mut memory = Memory::default();
        assert!(memory.has_room(LIMIT - RESERVED, 1000));
        memory.take(LIMIT - RESERVED);
        assert!(!memory.has_room(1, 1000) && memory.has_room(RESERVED, 0));
        memory.take(RESERVED);
        assert!(!memory.has_room(1, 0));
        memory.give_back(LIMIT);
        assert!(memory.is_empty() && memory.has_room(1, 1000));
    }
}

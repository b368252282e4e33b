//! Starting a daemon again: when, and with what.
//!
//! A parent starts a worker, waits for its end, and starts the next. The worker leaves the state of
//! its server in memory that both have ([`Handover`]), and the next one begins with it. What the
//! parent does is decided here ([`Restarts`]); it never looks into the state.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Pause before a worker is started in the place of one that ended.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A worker that lived this long was not broken from the start: the next pause is the first again.
const HEALTHY: Duration = Duration::from_secs(10);

/// How a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// There was no memory or process for it.
    NotStarted,
    /// It ended, or was ended, before it was ready.
    BeforeReady {
        /// Whether it was given a state.
        given: bool,
    },
    /// It ended later.
    Later,
}

/// What to do after the end of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    /// Pause before the next worker is started.
    pub pause: Duration,
    /// Whether to forget the state: it may be what kept the worker from becoming ready.
    pub forget: bool,
}

/// The workers that were started, as far as it matters for the next one.
#[derive(Debug)]
pub struct Restarts {
    started: Duration,
    pause: Duration,
}

impl Default for Restarts {
    fn default() -> Self {
        Self {
            started: Duration::ZERO,
            pause: PAUSE,
        }
    }
}

impl Restarts {
    /// Notes that a worker is started at this monotonic time.
    pub fn start(&mut self, now: Duration) {
        self.started = now;
    }

    /// What to do after the worker that was started last ended, at this monotonic time.
    pub fn end(&mut self, now: Duration, end: End) -> Restart {
        if now.saturating_sub(self.started) >= HEALTHY {
            self.pause = PAUSE;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        Restart {
            pause,
            forget: matches!(end, End::BeforeReady { given: true }),
        }
    }
}

/// Words before the first copy of the state.
const HEADER: usize = 4;
/// Not zero if the worker is ready.
const READY: usize = 0;
/// The copy that is valid, counted from 1; 0 for none.
const VALID: usize = 1;
/// The length of the first copy, in bytes. That of the second is in the next word.
const LENGTH: usize = 2;

/// Memory that a parent and its worker share. It has two places for a state, and only one is valid:
/// a worker may be killed while it writes, and then the state before is still there. Writing never
/// waits.
#[derive(Clone, Copy, Debug)]
pub struct Handover<'a> {
    memory: &'a [AtomicU64],
    /// Words of one copy.
    room: usize,
}

impl<'a> Handover<'a> {
    /// The number of words of memory needed for states of up to `len` bytes.
    pub const fn words(len: usize) -> usize {
        HEADER + 2 * len.div_ceil(size_of::<u64>())
    }

    /// In this memory, which is zero before it is first used.
    pub fn new(memory: &'a [AtomicU64]) -> Self {
        let room = memory.len().saturating_sub(HEADER) / 2;
        Self { memory, room }
    }

    /// Begins the life of a worker. The state of the one before is kept.
    pub fn begin(&self) {
        self.store(READY, 0);
    }

    /// Forgets the state.
    pub fn forget(&self) {
        self.store(VALID, 0);
    }

    /// Whether there is a state.
    pub fn is_given(&self) -> bool {
        matches!(self.load(VALID), 1 | 2)
    }

    /// Notes that the worker is ready.
    pub fn ready(&self) {
        self.store(READY, 1);
    }

    /// Whether the worker became ready.
    pub fn is_ready(&self) -> bool {
        self.load(READY) != 0
    }

    /// The state, if there is one.
    pub fn read(&self) -> Option<Vec<u8>> {
        let valid = match self.load(VALID) {
            1 => 0,
            2 => 1,
            _ => return None,
        };
        let len = usize::try_from(self.load(LENGTH + valid)).ok()?;
        let words = self.copy(valid)?.get(..len.div_ceil(size_of::<u64>()))?;
        let words = words.iter().map(|word| word.load(Ordering::Relaxed));
        let mut state: Vec<u8> = words.flat_map(u64::to_ne_bytes).collect();
        state.truncate(len);
        Some(state)
    }

    /// Replaces the state. False if there is no room for it, and the state before is still there.
    pub fn write(&self, state: &[u8]) -> bool {
        let free = usize::from(self.load(VALID) == 1);
        let words = state.chunks(size_of::<u64>());
        let Some(copy) = self.copy(free).filter(|copy| words.len() <= copy.len()) else {
            return false;
        };
        for (word, bytes) in copy.iter().zip(words) {
            let mut padded = [0; size_of::<u64>()];
            padded[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_ne_bytes(padded), Ordering::Relaxed);
        }
        self.store(LENGTH + free, state.len() as u64);
        self.store(VALID, free as u64 + 1);
        true
    }

    fn copy(&self, number: usize) -> Option<&'a [AtomicU64]> {
        let copies = self.memory.get(HEADER..)?;
        copies.chunks_exact(self.room.max(1)).take(2).nth(number)
    }

    fn load(&self, at: usize) -> u64 {
        let word = self.memory.get(at);
        word.map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn store(&self, at: usize, value: u64) {
        if let Some(word) = self.memory.get(at) {
            word.store(value, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: End = End::Later;

    /// The pauses after workers that live so many seconds, in milliseconds.
    fn pauses(lives: &[u64]) -> Vec<u128> {
        let mut restarts = Restarts::default();
        let mut now = Duration::from_secs(1000);
        let mut pauses = Vec::new();
        for &life in lives {
            restarts.start(now);
            now += Duration::from_secs(life);
            let pause = restarts.end(now, LATER).pause;
            now += pause;
            pauses.push(pause.as_millis());
        }
        pauses
    }

    #[test]
    fn pauses_grow_only_for_workers_that_end_soon() {
        assert_eq!(pauses(&[3600, 3600, 10, 10]), [100; 4]);
        assert_eq!(
            pauses(&[0; 8]),
            [100, 200, 400, 800, 1600, 3200, 5000, 5000]
        );
        assert_eq!(pauses(&[0, 9, 9, 10, 9, 0]), [100, 200, 400, 100, 200, 400]);
    }

    /// What each worker of a sequence is given, if each leaves a state once it is ready.
    fn given(ends: &[bool]) -> Vec<bool> {
        let memory: Vec<AtomicU64> = (0..Handover::words(64))
            .map(|_| AtomicU64::new(0))
            .collect();
        let handover = Handover::new(&memory);
        let mut restarts = Restarts::default();
        let mut given = Vec::new();
        for &ready in ends {
            handover.begin();
            restarts.start(Duration::ZERO);
            given.push(handover.is_given());
            if ready {
                handover.ready();
                assert!(handover.write(b"state"));
            }
            let end = match handover.is_ready() {
                true => End::Later,
                false => End::BeforeReady {
                    given: handover.is_given(),
                },
            };
            if restarts.end(Duration::ZERO, end).forget {
                handover.forget();
            }
        }
        given
    }

    #[test]
    fn a_state_that_keeps_a_worker_from_becoming_ready_is_given_once() {
        const T: bool = true;
        const F: bool = false;

        assert_eq!(given(&[T; 5]), [F, T, T, T, T]);
        assert_eq!(given(&[F, F, T, T]), [F, F, F, T]);
        assert_eq!(given(&[T, F, F, T, T]), [F, T, F, F, T]);
        assert_eq!(given(&[T, T, F, T, F, T]), [F, T, T, F, T, F]);
    }

    #[test]
    fn a_worker_that_could_not_be_started_takes_no_state_along() {
        let restart = Restarts::default().end(Duration::ZERO, End::NotStarted);
        assert!(!restart.forget && restart.pause == PAUSE);
    }

    #[test]
    fn the_state_is_the_last_one_written_whole() {
        let memory: Vec<AtomicU64> = (0..Handover::words(20))
            .map(|_| AtomicU64::new(0))
            .collect();
        let handover = Handover::new(&memory);
        assert_eq!(handover.read(), None);
        let mut last = Vec::new();
        for len in (0..=24).chain([3, 24, 0]) {
            let state: Vec<u8> = (0..len).collect();
            assert!(handover.write(&state));
            assert_eq!(handover.read(), Some(state.clone()));
            last = state;
        }
        assert!(!handover.write(&[1; 25]));
        assert_eq!(handover.read(), Some(last));
        assert!(handover.write(b"the one before"));
        // A worker that is killed while it writes has not touched what is valid.
        for at in [LENGTH, LENGTH + 1] {
            let other = handover.load(VALID) != (at - LENGTH) as u64 + 1;
            if other {
                handover.store(at, 7);
                handover.copy(at - LENGTH).unwrap()[0].store(u64::MAX, Ordering::Relaxed);
            }
        }
        assert_eq!(handover.read().as_deref(), Some(&b"the one before"[..]));
        handover.forget();
        assert!(!handover.is_given() && handover.read().is_none());
    }

    #[test]
    fn memory_with_any_content_is_no_trap() {
        for words in 0..12 {
            for value in [0, 1, 2, 3, 9, u64::MAX] {
                let memory: Vec<AtomicU64> = (0..words).map(|_| AtomicU64::new(value)).collect();
                let handover = Handover::new(&memory);
                let read = handover.read();
                assert!(read.is_none_or(|state| state.len() <= words * size_of::<u64>()));
                let _ = handover.write(b"12345678");
                handover.forget();
                assert_eq!(handover.read(), None);
            }
        }
    }
}

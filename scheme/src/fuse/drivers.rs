//! The wake-ups of drivers, for the thread that serves.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::{read, write};

use crate::local::Clock;

/// The data of the event that a thread has something. Others carry the driver's number.
const NEWS: u64 = u64::MAX;
/// Most events taken at a time.
const MAX_EVENTS: usize = 64;

/// With this, a driver's thread has the server work for it.
#[derive(Clone)]
pub struct DriverWork(Arc<Shared>);

struct Shared {
    clock: Arc<dyn Clock>,
    /// The descriptors that are watched, and `news`.
    events: OwnedFd,
    /// Readable while there are drivers that have something.
    news: OwnedFd,
    /// Drivers whose threads have something for the server.
    have: Mutex<BTreeSet<usize>>,
}

/// Something that happened to a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Its watched descriptor became readable.
    Readable(usize),
    /// Its thread has something for the server.
    Has(usize),
}

impl DriverWork {
    /// For drivers whose calls are timed by this clock, which is the server's.
    pub fn new(clock: Arc<dyn Clock>) -> io::Result<Self> {
        let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let news = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let data = epoll::EventData::new_u64(NEWS);
        epoll::add(&events, &news, data, epoll::EventFlags::IN)?;
        Ok(Self(Arc::new(Shared {
            clock,
            events,
            news,
            have: Mutex::default(),
        })))
    }

    /// The present monotonic time.
    pub fn now(&self) -> Duration {
        self.0.clock.now().monotonic
    }

    /// Has [`Drivers::receive`](crate::Drivers::receive) called for a driver, soon.
    pub fn receive(&self, driver: usize) {
        if self.have().insert(driver) {
            // It fails only when it is readable anyway.
            let _ = write(&self.0.news, &1u64.to_ne_bytes());
        }
    }

    /// From now on [`Drivers::readable`](crate::Drivers::readable) is called when this descriptor
    /// of a driver becomes readable, until it is closed.
    pub fn watch(&self, fd: BorrowedFd<'_>, driver: usize) -> io::Result<()> {
        let data = epoll::EventData::new_u64(driver as u64);
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        Ok(epoll::add(&self.0.events, fd, data, flags)?)
    }

    /// Readable when there are [events](Self::events).
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.events.as_fd()
    }

    /// What happened since the last call. Some of it may be left for the next.
    pub(super) fn events(&self) -> io::Result<Vec<Event>> {
        let mut ready = Vec::with_capacity(MAX_EVENTS);
        let room = rustix::buffer::spare_capacity(&mut ready);
        match epoll::wait(&self.0.events, room, Some(&Default::default())) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut events = Vec::new();
        for event in ready {
            match event.data.u64() {
                NEWS => {
                    // Before the set is emptied, so that no wake-up is lost.
                    let _ = read(&self.0.news, &mut [0; 8]);
                    let have = std::mem::take(&mut *self.have());
                    events.extend(have.into_iter().map(Event::Has));
                }
                driver => events.extend(usize::try_from(driver).map(Event::Readable)),
            }
        }
        Ok(events)
    }

    fn have(&self) -> MutexGuard<'_, BTreeSet<usize>> {
        self.0.have.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::ManualClock;

    #[test]
    fn what_happened_is_told_once() {
        let work = DriverWork::new(Arc::new(ManualClock::default())).unwrap();
        assert_eq!(work.events().unwrap(), []);
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        work.watch(reader.as_fd(), 3).unwrap();
        work.receive(7);
        work.receive(7);
        write(&writer, b"frame").unwrap();
        let mut events = work.events().unwrap();
        events.sort_by_key(|event| matches!(event, Event::Readable(_)));
        assert_eq!(events, [Event::Has(7), Event::Readable(3)]);
        assert_eq!(work.events().unwrap(), []);
        work.receive(7);
        assert_eq!(work.events().unwrap(), [Event::Has(7)]);
    }
}

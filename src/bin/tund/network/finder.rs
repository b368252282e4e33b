//! The thread that looks for drivers, and makes their threads.
//!
//! Both call other processes: on Redox the managers of namespaces and of processes. The first may be
//! waiting for a driver that does not answer.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread;

use parking_lot::{Condvar, Mutex};

use super::{Card, Counted, Place, SEARCH, STACK_SIZE, Work, serve};

/// The thread, as the network sees it. It ends when this is dropped.
pub(super) struct Finder<F>(Findings<F>);

/// What it found, and what it is to do.
pub(super) struct Findings<F>(Arc<Shared<F>>);

struct Shared<F> {
    desk: Mutex<Desk<F>>,
    changed: Condvar,
}

struct Desk<F> {
    /// Whether the drivers are to be looked up.
    wanted: bool,
    /// Whether the network waits for their names.
    waits: bool,
    found: Option<Names>,
    /// What was found, when the network has been told.
    accepted: Option<Names>,
    /// The names that the network had last.
    last: Vec<String>,
    /// The drivers that threads are to be made for.
    start: Vec<(Arc<Card<F>>, Counted)>,
    /// Whether there is something that the network has not been told of.
    news: bool,
    /// Whether it can be told. Before that, it looks.
    told: bool,
    closed: bool,
}

struct Names {
    names: Vec<String>,
    /// Whether the network waited for them.
    wanted: bool,
}

impl<F> Clone for Findings<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<F> Finder<F> {
    /// Starts the thread. The threads of drivers that it makes are counted.
    pub(super) fn start<P: Place<Frames = F>>(
        place: Arc<P>,
        work: Work,
        threads: Arc<AtomicUsize>,
    ) -> io::Result<Self>
    where
        F: Send + Sync + 'static,
    {
        let findings = Findings(Arc::new(Shared {
            desk: Mutex::new(Desk {
                wanted: false,
                waits: false,
                found: None,
                accepted: None,
                last: Vec::new(),
                start: Vec::new(),
                news: false,
                told: false,
                closed: false,
            }),
            changed: Condvar::new(),
        }));
        let builder = thread::Builder::new().stack_size(STACK_SIZE);
        let thread = findings.clone();
        builder.spawn(move || run(&thread.0, &place, &work, &threads))?;
        Ok(Self(findings))
    }

    pub(super) fn findings(&self) -> Findings<F> {
        self.0.clone()
    }

    /// The names of the drivers, if they were looked up since the network wanted them. Otherwise they
    /// are looked up now.
    pub(super) fn names(&self) -> Option<Vec<String>> {
        let mut desk = self.0.0.desk.lock();
        let accepted = desk.accepted.take();
        desk.waits = accepted.is_none();
        // Since a list was found that nobody waited for, there may have been another change.
        desk.wanted |= accepted.as_ref().is_none_or(|names| !names.wanted);
        self.0.0.changed.notify_one();
        let names = accepted?.names;
        desk.last.clone_from(&names);
        Some(names)
    }

    /// Has a thread made that serves a driver.
    pub(super) fn make_thread(&self, card: Arc<Card<F>>, counted: Counted) {
        self.0.0.desk.lock().start.push((card, counted));
        self.0.0.changed.notify_one();
    }
}

impl<F> Drop for Finder<F> {
    fn drop(&mut self) {
        self.0.0.desk.lock().closed = true;
        self.0.0.changed.notify_one();
    }
}

impl<F> Findings<F> {
    /// Lets the network have what was found.
    pub(super) fn accept(&self) {
        let mut desk = self.0.desk.lock();
        if let Some(found) = desk.found.take() {
            desk.accepted = Some(found);
        }
    }

    /// From now on the network is told of what is found.
    pub(super) fn tell(&self) {
        self.0.desk.lock().told = true;
        self.0.changed.notify_one();
    }
}

/// Something to do for the thread.
enum Task<F> {
    Start(Vec<(Arc<Card<F>>, Counted)>),
    Look,
    Tell,
}

fn run<P: Place>(
    shared: &Shared<P::Frames>,
    place: &Arc<P>,
    work: &Work,
    threads: &Arc<AtomicUsize>,
) {
    while let Some(task) = next(shared) {
        match task {
            Task::Start(cards) => {
                for (card, counted) in cards {
                    let (place, threads) = (Arc::clone(place), Arc::clone(threads));
                    let served = Arc::clone(&card);
                    let spawned = counted.spawn(move || serve(&served, &place, &threads));
                    if let Err(error) = spawned {
                        card.lock().opened = Some(Err(error));
                        shared.desk.lock().news = true;
                    }
                }
            }
            Task::Look => {
                let names = place.names().unwrap_or_else(|error| {
                    log::warn!("adapters: {error}");
                    Vec::new()
                });
                let mut desk = shared.desk.lock();
                let wanted = desk.waits;
                if wanted || names != desk.last {
                    desk.found = Some(Names { names, wanted });
                    desk.news = true;
                }
            }
            Task::Tell => work.receive(SEARCH),
        }
    }
}

/// Waits for something to do. `None` if nobody is interested any more.
fn next<F>(shared: &Shared<F>) -> Option<Task<F>> {
    let mut desk = shared.desk.lock();
    loop {
        if desk.closed {
            return None;
        }
        if !desk.start.is_empty() {
            return Some(Task::Start(std::mem::take(&mut desk.start)));
        }
        if desk.told && std::mem::take(&mut desk.news) {
            return Some(Task::Tell);
        }
        if std::mem::take(&mut desk.wanted) {
            return Some(Task::Look);
        }
        shared.changed.wait(&mut desk);
    }
}

//! The parent of a daemon. When a scheme's daemon dies, its clients hang and its names stay taken,
//! so the parent removes the names and starts the daemon again.

use std::io;
use std::time::{Duration, Instant};

use super::system::{self, InitNotify};
use crate::restart::{End, Handover, Restarts};

/// Longest time until a SIGTERM during the pause is seen.
const STOP_INTERVAL: Duration = Duration::from_millis(50);

/// What a worker begins with.
pub struct Worker {
    pub(super) notify: InitNotify,
    pub(super) handover: Handover<'static>,
}

impl Worker {
    /// The state that the worker before left.
    pub fn state(&self) -> Option<Vec<u8>> {
        self.handover.read()
    }
}

/// Has `work` done by a child, again and again until one ends by itself, without error, or we get
/// SIGTERM. The names of its schemes are removed each time. Only the first child notifies init. Each
/// begins with the state that the one before left, of up to `room` bytes.
///
/// The caller has one thread only.
pub fn supervise(
    names: &[&str],
    room: usize,
    work: impl Fn(Worker) -> io::Result<()>,
) -> io::Result<()> {
    system::catch_signals();
    let handover = Handover::new(system::shared_memory(Handover::words(room))?);
    let clock = Instant::now();
    let mut restarts = Restarts::default();
    let mut notify = InitNotify::take();
    // Both a daemon and its parent may have been killed.
    for name in left(names).filter(|name| system::is_orphan(name)) {
        system::unlink_scheme(name);
    }
    while !system::stopped() {
        restarts.start(clock.elapsed());
        handover.begin();
        let given = handover.is_given();
        let end = match system::fork() {
            Ok(None) => return work(Worker { notify, handover }),
            Ok(Some(child)) => {
                system::set_child(child);
                // A signal may have come before there was a child to pass it on to.
                if system::stopped() {
                    system::stop_child();
                }
                // Init waits as long as we have the pipe, too.
                notify = InitNotify::none();
                let status = system::wait(child)?;
                system::set_child(0);
                for name in left(names) {
                    system::unlink_scheme(name);
                }
                if status.success() || system::stopped() {
                    break;
                }
                log::error!("the daemon ended ({status}); starting it again");
                match handover.is_ready() {
                    true => End::Later,
                    false => End::BeforeReady { given },
                }
            }
            Err(error) => {
                // Memory, or a place for a process, may be there again later.
                log::error!("the daemon cannot be started: {error}");
                End::NotStarted
            }
        };
        let restart = restarts.end(clock.elapsed(), end);
        if restart.forget {
            log::error!(
                "the daemon was not ready when it ended: the next one begins without the settings"
            );
            handover.forget();
        }
        rest(restart.pause);
    }
    Ok(())
}

/// Those of `names` that are in our namespace. Redox's log has a line for each look at one that is
/// not.
fn left<'a>(names: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    let there = system::scheme_names();
    if let Err(error) = &there {
        log::warn!("/scheme: {error}");
    }
    // Without a list, they are all tried.
    let left = move |name: &&str| match &there {
        Ok(there) => there.iter().any(|other| other == name),
        Err(_) => true,
    };
    names.iter().copied().filter(left)
}

/// Pauses, until a SIGTERM at the longest. A signal does not interrupt a sleep.
fn rest(pause: Duration) {
    let started = Instant::now();
    while !system::stopped()
        && let left = pause.saturating_sub(started.elapsed())
        && !left.is_zero()
    {
        std::thread::sleep(left.min(STOP_INTERVAL));
    }
}

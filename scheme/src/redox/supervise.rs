//! The parent of a daemon. When a scheme's daemon dies, its clients hang and its names stay taken,
//! so the parent removes the names and starts the daemon again.

use std::io;
use std::process::Command;
use std::time::{Duration, Instant};

use super::system::{self, InitNotify};

/// A daemon that lived this long was not broken from the start.
const HEALTHY: Duration = Duration::from_secs(10);
/// Longest pause before a daemon that keeps dying is started again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Longest time until a SIGTERM during the pause is seen.
const STOP_INTERVAL: Duration = Duration::from_millis(50);

/// Runs `command` again and again until it ends by itself, without error, or we get SIGTERM. The
/// names of its schemes are removed each time. Only the first child notifies init.
pub fn supervise(mut command: Command, names: &[&str]) -> io::Result<()> {
    system::catch_signals();
    let mut pause = Duration::from_millis(100);
    // The child inherits the pipe by its number. Our copy is closed when the first child starts,
    // and later children do not get it.
    let mut notify = Some(InitNotify::take());
    // Both a daemon and its parent may have been killed.
    for name in names.iter().filter(|name| system::is_orphan(name)) {
        system::unlink_scheme(name);
    }
    while !system::stopped() {
        let started = Instant::now();
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                // Memory, or a place for a process, may be there again later.
                log::error!("the daemon cannot be started: {error}");
                rest(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
                continue;
            }
        };
        system::set_child(child.id());
        // A signal may have come before there was a child to pass it on to.
        if system::stopped() {
            system::stop_child();
        }
        drop(notify.take());
        command.env_remove("INIT_NOTIFY");
        let status = loop {
            match child.wait() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                status => break status?,
            }
        };
        system::set_child(0);
        for name in names {
            system::unlink_scheme(name);
        }
        if status.success() || system::stopped() {
            break;
        }
        log::error!("the daemon ended ({status}); starting it again");
        if started.elapsed() > HEALTHY {
            pause = Duration::from_millis(100);
        }
        rest(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(())
}

/// Pauses, until a SIGTERM at the longest. A signal does not interrupt a sleep.
fn rest(pause: Duration) {
    let until = Instant::now() + pause;
    while !system::stopped() && Instant::now() < until {
        std::thread::sleep(STOP_INTERVAL);
    }
}

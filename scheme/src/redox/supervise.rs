//! The parent of a daemon. When a scheme's daemon dies its clients hang, and its names stay taken:
//! so somebody must take the names away and start it again.

use std::io;
use std::process::Command;
use std::time::{Duration, Instant};

use super::system::{self, Notify};

/// A daemon that lived so long was not broken from the start.
const HEALTHY: Duration = Duration::from_secs(10);
/// Longest pause before a daemon that keeps dying is started again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Runs `command` again and again until it ends by itself, without error, or we get SIGTERM. The
/// names of its schemes are taken away each time. Init hears from the first one.
pub fn supervise(mut command: Command, names: &[&str]) -> io::Result<()> {
    system::catch_stop();
    let mut pause = Duration::from_millis(100);
    // The child inherits the pipe by its number. Ours closes with the first child's start, and
    // those after it hear nothing of it.
    let mut notify = Some(Notify::take());
    // A daemon and its parent may both have been killed.
    for name in names.iter().filter(|name| system::is_orphan(name)) {
        system::unlink_scheme(name);
    }
    loop {
        let started = Instant::now();
        let mut child = command.spawn()?;
        system::set_child(child.id());
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
            return Ok(());
        }
        log::error!("the daemon ended ({status}); starting it again");
        if started.elapsed() > HEALTHY {
            pause = Duration::from_millis(100);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

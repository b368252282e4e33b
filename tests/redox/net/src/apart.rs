//! Work in a process of its own, so that a hang, panic or crash affects nothing else.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// Exit code of a process whose work failed and that reported it.
pub const FAILED: u8 = 76;
/// Exit code of a process whose work does not apply here.
pub const SKIPPED: u8 = 77;

/// The way in which a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With this code; it has printed its line.
    Code(u8),
    /// In some other way, which is described.
    Other(String),
}

/// Runs this program again with `args`, and stops it when `limit` has passed.
pub fn run(args: &[&str], limit: Duration) -> End {
    let child = std::env::current_exe().and_then(|me| Command::new(me).args(args).spawn());
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return End::Other(format!("cannot start: {error}")),
    };
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => {
                let mut known = [0, FAILED, SKIPPED].into_iter();
                let code = known.find(|code| status.code() == Some((*code).into()));
                return code.map_or_else(|| End::Other(format!("ended with {status}")), End::Code);
            }
            Ok(None) if start.elapsed() < limit => thread::sleep(Duration::from_millis(10)),
            Ok(None) => {
                // Not waited for: a process that hangs in the kernel does not even die.
                let _ = child.kill();
                thread::sleep(Duration::from_millis(200));
                let _ = child.try_wait();
                return End::Other(format!("no end within {limit:?}"));
            }
            Err(error) => return End::Other(error.to_string()),
        }
    }
}

//! The processes of the system, and the daemon among them.

use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use crate::{netcfg, sys};

/// One line of the process list.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) threads: u32,
    name: String,
}

/// Every process that is alive.
fn processes() -> Vec<Process> {
    let list = fs::read_to_string("/scheme/proc/ps").expect("the process list");
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // PID PGID PPID SID RUID RGID EUID EGID NTHRD STATUS NAME
        let [pid, _, parent, .., threads, status, name] = words[..] else {
            return None;
        };
        if matches!(status, "E" | "X") {
            return None;
        }
        Some(Process {
            pid: pid.parse().ok()?,
            parent: parent.parse().ok()?,
            threads: threads.parse().ok()?,
            name: name.to_owned(),
        })
    };
    list.lines().filter_map(line).collect()
}

fn tunds() -> Vec<Process> {
    let is_tund = |process: &Process| process.name.rsplit('/').next() == Some("tund");
    processes().into_iter().filter(is_tund).collect()
}

/// The daemon: the process that serves, not the one that supervises it.
pub(crate) fn daemon() -> Option<Process> {
    let tunds = tunds();
    let watched = |process: &&Process| tunds.iter().any(|other| other.pid == process.parent);
    tunds
        .iter()
        .find(watched)
        .or_else(|| tunds.first())
        .cloned()
}

/// The process that starts the daemon again when it dies.
pub(crate) fn supervisor() -> Option<Process> {
    let tunds = tunds();
    let child = daemon()?;
    tunds
        .into_iter()
        .find(|process| process.pid == child.parent)
}

/// Whether the daemon serves.
pub(crate) fn is_serving() -> bool {
    fs::read_to_string(netcfg::path("ip/forwarding")).is_ok()
}

/// Starts a daemon where there is none, removes names that another daemon left, and waits until it
/// serves.
pub(crate) fn start_daemon() {
    for name in ["tun", "netcfg", "bpf", "icmp", "tcp", "udp", "ip", "netisr"] {
        // Most names do not exist.
        let _ = sys::unlink_scheme(name);
    }
    run_daemon();
}

/// Starts a daemon, and waits until it serves.
pub(crate) fn run_daemon() {
    let program = env::var("TUND").unwrap_or_else(|_| "/usr/bin/tund".to_owned());
    let started = Command::new(&program)
        .env_remove("INIT_NOTIFY")
        .stdin(Stdio::null())
        .spawn();
    if let Err(error) = started {
        panic!("cannot start {program}: {error}");
    }
    let serves = sys::becomes(Duration::from_secs(10), is_serving);
    assert!(serves, "{program} does not serve");
}

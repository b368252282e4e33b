//! The death of the daemon. These tests come last: files that other tests have open do not survive
//! it.

use std::time::Duration;

use crate::device::{Tun, Wire, assert_errno, bsd};
use crate::harness::skip;
use crate::packet::{assert_echo_reply, echo_request};
use crate::process::{daemon, is_serving, run_daemon, start_daemon, supervisor};
use crate::sys::{self, fork};
use crate::{netcfg, tests};

tests![
    sigio_does_not_end_the_daemon,
    killed_daemon_comes_back,
    killed_daemon_comes_back_again_and_again,
    terminated_daemon_ends_clean,
    daemon_starts_over_names_left_behind,
];

const LONG: Duration = Duration::from_secs(10);

#[track_caller]
fn assert_works() {
    let tun = Tun::up(31);
    tun.write(&echo_request(31, 1, 84)).expect("write");
    assert_echo_reply(&tun.read_now(), 31, 1, 84);
    drop(Wire::open(31));
    assert!(netcfg::list("ifaces").contains(&"lo0".to_owned()));
}

/// Kills the daemon, and waits until there is another.
#[track_caller]
fn kill_daemon() {
    let old = daemon().expect("a process named tund");
    sys::kill(old.pid, libc::SIGKILL).expect("kill");
    let other = || daemon().is_some_and(|new| new.pid != old.pid) && is_serving();
    assert!(sys::becomes(LONG, other), "no daemon comes in its place");
}

/// Init's services are one process group, the daemon among them, and on Redox SIGIO ends a process
/// that does not handle or ignore it: a service that is the owner by its group must not end the
/// daemon.
fn sigio_does_not_end_the_daemon() {
    let (Some(old), watcher) = (daemon(), supervisor()) else {
        skip("no process named tund");
    };
    for process in watcher.iter().chain([&old]) {
        sys::kill(process.pid, libc::SIGIO).expect("kill");
    }
    sys::pause(300);
    let same = daemon().is_some_and(|now| now.pid == old.pid);
    let watched = supervisor().map(|now| now.pid) == watcher.map(|watcher| watcher.pid);
    if !sys::becomes(Duration::from_secs(3), is_serving) {
        // The tests that follow need a daemon.
        start_daemon();
    }
    assert!(same, "SIGIO ended it");
    assert!(watched, "SIGIO ended the one that watches over it");
    assert_works();
}

fn killed_daemon_comes_back() {
    if supervisor().is_none() {
        skip("nothing watches over the daemon");
    }
    let tun = Tun::up(31);
    let mut reader = fork(|parent| {
        parent.ready();
        // It waits for ever: only SIGKILL helps.
        let _ = tun.read(100);
    });
    reader.waiting();
    kill_daemon();
    // Files that were open before stay unusable.
    assert_errno(tun.write(&[0x45; 20]), libc::ENODEV);
    assert_errno(tun.call(bsd::TUNGIFHEAD, &mut [0; 4]), libc::ENODEV);
    reader.kill();
    assert_works();
}

fn killed_daemon_comes_back_again_and_again() {
    if supervisor().is_none() {
        skip("nothing watches over the daemon");
    }
    for _ in 0..4 {
        kill_daemon();
        assert_works();
    }
}

/// SIGTERM ends the daemon and its supervisor, and removes the names.
fn terminated_daemon_ends_clean() {
    let Some(supervisor) = supervisor() else {
        skip("nothing watches over the daemon");
    };
    sys::kill(supervisor.pid, libc::SIGTERM).expect("kill");
    let gone = sys::becomes(LONG, || daemon().is_none());
    let names = netcfg::names("/scheme");
    start_daemon();
    assert!(gone, "it did not end");
    for name in ["tun", "netcfg", "bpf"] {
        assert!(
            !names.iter().any(|other| other == name),
            "{name} is still in {names:?}"
        );
    }
    assert_works();
}

/// Both are killed at once: the names stay, but are not served. A new daemon takes them over.
fn daemon_starts_over_names_left_behind() {
    let Some(old) = daemon() else {
        skip("no process named tund");
    };
    if let Some(supervisor) = supervisor() {
        sys::kill(supervisor.pid, libc::SIGKILL).expect("kill");
    }
    sys::kill(old.pid, libc::SIGKILL).expect("kill");
    assert!(sys::becomes(LONG, || daemon().is_none()), "still there");
    assert!(
        netcfg::names("/scheme").contains(&"tun".to_owned()),
        "the trap"
    );
    assert_errno(Tun::open(31), libc::ENODEV);
    run_daemon();
    assert_works();
}

//! The death of the daemon. These tests come last: files that other tests have open do not survive
//! it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::device::{Tun, Wire, assert_errno, bsd};
use crate::harness::{say, skip};
use crate::packet::{assert_echo_reply, echo_request};
use crate::process::{daemon, is_serving, run_daemon, start_daemon, supervisor};
use crate::sys::{self, fork};
use crate::{netcfg, tests};

tests![
    sigio_does_not_end_the_daemon,
    killed_daemon_comes_back,
    killed_daemon_comes_back_again_and_again,
    settings_survive_ten_kills,
    settings_that_may_be_the_fault_are_dropped,
    terminated_daemon_ends_clean,
    daemon_starts_over_names_left_behind,
];

const LONG: Duration = Duration::from_secs(10);
/// The mtu of `lo0` from the beginning.
const LO_MTU: &str = "32896";

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

/// What somebody set, and is there after the last close of every unit. Each is a file, and a line.
const SETTINGS: [(&str, &str); 8] = [
    ("ip/forwarding", "1\n"),
    ("resolv/nameserver", "192.0.2.53\n"),
    ("ifaces/lo0/mtu", "9000\n"),
    ("ifaces/tun30/mtu", "1400\n"),
    ("ifaces/tun30/addr/list", "10.0.30.1/24\n"),
    ("ifaces/tun30/flags", "BROADCAST,MULTICAST\n"),
    ("ifaces/tun30/queue", "fifo limit 7 packets 7000 bytes\n"),
    ("ifaces/tun30/multicast", "239.3.3.3\n"),
];
/// A route over an interface that is not a tunnel.
const ROUTE: &str = "198.51.100.0/24 dev lo0 metric 5\n";

/// Sets everything that is to survive.
fn set_all() {
    // Another test may have left an interface behind.
    let _ = netcfg::put_if(30, "destroy", "1");
    let tun = Tun::open(30).expect("open");
    tun.set(bsd::TUNSIFMODE, 0x8002);
    tun.set(bsd::TUNSIFHEAD, 1);
    netcfg::put("ifaces/tun30/addr/set", "10.0.30.1/24").expect("an address");
    netcfg::put("ifaces/tun30/multicast", "join 239.3.3.3").expect("a group");
    netcfg::put("route/add", ROUTE.trim_end()).expect("a route");
    for (file, line) in SETTINGS {
        if !file.ends_with("list") && !file.ends_with("flags") && !file.ends_with("multicast") {
            netcfg::put(file, line.trim_end()).expect(file);
        }
    }
}

/// Takes it all back.
fn reset_all() {
    let tun = Tun::open(30).expect("open");
    tun.set(bsd::TUNSTRANSIENT, 1);
    drop(tun);
    netcfg::put("route/rm", ROUTE.trim_end()).expect("the route");
    netcfg::put("ip/forwarding", "0").expect("forwarding");
    netcfg::put("ifaces/lo0/mtu", LO_MTU).expect("the mtu");
}

fn connects() -> bool {
    let Ok(listener) = TcpListener::bind("127.0.0.1:0") else {
        return false;
    };
    let Ok(mut stream) = listener.local_addr().and_then(TcpStream::connect) else {
        return false;
    };
    let Ok((mut other, _)) = listener.accept() else {
        return false;
    };
    let mut byte = [0];
    stream.write_all(b"x").is_ok() && other.read_exact(&mut byte).is_ok() && byte == *b"x"
}

/// The daemon that comes in the place of a killed one has what was set before its names appear, and
/// tunnels can be opened again at once.
fn settings_survive_ten_kills() {
    if supervisor().is_none() {
        skip("nothing watches over the daemon");
    }
    // The first pause is short for one that lived long enough.
    sys::pause(10_500);
    set_all();
    for kill in 0..10 {
        let held = Tun::open(30).expect("open at once");
        assert_eq!(held.get(bsd::TUNGIFHEAD), 1);
        netcfg::put("ifaces/tun30/flags", "up").expect("up");
        let started = Instant::now();
        kill_daemon();
        // Tunnels are down, and what left by them is gone.
        for (file, line) in SETTINGS {
            assert_eq!(netcfg::get(file), line, "{file} after kill {kill}");
        }
        let routes = netcfg::get("route/list");
        assert!(routes.contains(ROUTE), "{routes}");
        assert!(!routes.contains("tun30"), "{routes}");
        let connected = sys::becomes(LONG, connects);
        let took = started.elapsed();
        assert!(connected, "no connection after kill {kill}");
        if kill == 0 {
            say(&format!("redox-test: works {took:?} after the first kill"));
        }
        drop(held);
    }
    reset_all();
    assert_works();
}

/// Threads of a daemon that has begun to open its adapters: the first, that of the log, that which looks
/// for adapters, and that of the first adapter. A process that is killed while it makes a thread may
/// never end, so none is being made then.
const STARTING: u32 = 3;

/// A daemon that was given settings and ends before it serves is followed by one without them.
fn settings_that_may_be_the_fault_are_dropped() {
    let Some(supervisor) = supervisor() else {
        skip("nothing watches over the daemon");
    };
    set_all();
    for _ in 0..10 {
        assert_eq!(netcfg::get("ip/forwarding"), "1\n", "lost too early");
        let old = daemon().expect("a process named tund").pid;
        sys::kill(old, libc::SIGKILL).expect("kill");
        let started = Instant::now();
        // The next one is caught on its way: it has begun to open its adapters, and has no name yet.
        let next = loop {
            let next = daemon().filter(|next| next.pid != old && next.parent == supervisor.pid);
            if let Some(next) = next.filter(|next| next.threads > STARTING) {
                break next.pid;
            }
            assert!(started.elapsed() < LONG, "no daemon comes in its place");
        };
        if !netcfg::names("/scheme").contains(&"netcfg".to_owned()) {
            sys::kill(next, libc::SIGKILL).expect("kill");
            let other = || daemon().is_some_and(|new| new.pid != next) && is_serving();
            assert!(sys::becomes(LONG, other), "no daemon comes in its place");
        }
        assert!(sys::becomes(LONG, is_serving), "it does not serve");
        // It may have been ready a moment before it was killed: then nothing is lost.
        if netcfg::get("ip/forwarding") == "0\n" {
            assert!(!netcfg::exists(30), "tun30 is there");
            assert_eq!(netcfg::get("ifaces/lo0/mtu").trim_end(), LO_MTU);
            return assert_works();
        }
    }
    reset_all();
    skip("each daemon was ready before it could be killed");
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

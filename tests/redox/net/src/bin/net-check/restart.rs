//! The network when its daemon is killed: another one comes, and has what was set.

use std::fs;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use redox_net::place::{ECHO, Place};
use redox_net::say;

use crate::ethernet::GATEWAY;
use crate::{Test, icmp, skip};

pub(crate) const TESTS: &[Test] = &[Test::eth("lease_survives_ten_kills", ten_kills)];

const LONG: Duration = Duration::from_secs(12);

/// The process that serves: the child of another tund.
fn worker() -> Option<i32> {
    let list = fs::read_to_string("/scheme/proc/ps").ok()?;
    let tund = |line: &str| {
        // PID PGID PPID SID RUID RGID EUID EGID NTHRD STATUS NAME
        let words: Vec<&str> = line.split_whitespace().collect();
        let [pid, _, parent, .., status, name] = words[..] else {
            return None;
        };
        let alive = !matches!(status, "E" | "X");
        let named = name.rsplit('/').next() == Some("tund");
        let numbers: (i32, i32) = (pid.parse().ok()?, parent.parse().ok()?);
        (alive && named).then_some(numbers)
    };
    let tunds: Vec<_> = list.lines().filter_map(tund).collect();
    let child = |(_, parent): &&(i32, i32)| tunds.iter().any(|(pid, _)| pid == parent);
    tunds.iter().find(child).map(|(pid, _)| *pid)
}

fn read(file: &str) -> Option<String> {
    fs::read_to_string(format!("/scheme/netcfg/{file}")).ok()
}

/// What dhcpd set: the address, the way out, and the name server. IPv6 is learned again.
fn lease() -> Option<[String; 3]> {
    let lines = |text: String| {
        let v4 = text.lines().filter(|line| line.contains('.'));
        v4.map(|line| format!("{line}\n")).collect::<String>()
    };
    Some([
        lines(read("ifaces/eth0/addr/list")?),
        lines(read("route/list")?),
        read("resolv/nameserver")?,
    ])
}

fn ten_kills(_place: &Place) {
    if worker().is_none() {
        skip("no process that watches over tund");
    }
    // The runner's network is shut off from the world, and so offers neither of these.
    for (file, line) in [
        ("route/add", format!("default via {GATEWAY}\n")),
        ("resolv/nameserver", "10.0.2.3\n".to_owned()),
    ] {
        fs::write(format!("/scheme/netcfg/{file}"), line).expect(file);
    }
    let before = lease().expect("a lease");
    assert!(before[1].contains("default via"), "{before:?}");
    for kill in 0..10 {
        let old = worker().expect("a process named tund");
        let started = Instant::now();
        // SAFETY: a number and a number; the process is the daemon.
        assert_eq!(unsafe { libc::kill(old, libc::SIGKILL) }, 0);
        // The next one serves, and has found the adapter.
        let mut now = None;
        while now.is_none() && started.elapsed() < LONG {
            thread::sleep(Duration::from_millis(10));
            if worker().is_some_and(|new| new != old) {
                now = lease();
            }
        }
        assert_eq!(now.as_ref(), Some(&before), "after kill {kill}");
        TcpStream::connect(ECHO).expect("a connection");
        let took = started.elapsed();
        icmp::answered(GATEWAY, 56);
        if kill == 0 {
            say(&format!(
                "redox-test: connected {took:?} after the first kill"
            ));
        }
    }
}

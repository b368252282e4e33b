//! Adapters that come and go: the interface when its driver ends.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use redox_net::place::Place;

use crate::ethernet::GATEWAY;
use crate::{Test, icmp, skip};

pub(crate) const TESTS: &[Test] = &[
    Test::eth("driver_starts_again", driver_starts_again),
    Test::eth("driver_that_does_not_answer", driver_that_does_not_answer),
];

/// Starts the drivers of devices that have none.
const SPAWNER: &str = "/usr/bin/pcid-spawner";
const FLAGS: &str = "/scheme/netcfg/ifaces/eth0/flags";
const LONG: Duration = Duration::from_secs(8);

fn is_running() -> bool {
    fs::read_to_string(FLAGS).is_ok_and(|flags| flags.contains("RUNNING"))
}

fn becomes(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LONG, "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// The program that drives the first adapter, by the name of its scheme:
/// `network.pci-0000-00-02.0_e1000` is `e1000d`'s.
pub(crate) fn program() -> Option<String> {
    let schemes = fs::read_dir("/scheme").ok()?.flatten();
    let names = schemes.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let first = names.filter(|name| name.starts_with("network.")).min()?;
    Some(format!("{}d", first.rsplit('_').next()?))
}

/// The process of the driver.
fn driver() -> Option<i32> {
    let program = program()?;
    let processes = fs::read_to_string("/scheme/proc/ps").ok()?;
    let of = |line: &str| {
        // PID PGID PPID SID RUID RGID EUID EGID NTHRD STATUS NAME
        let words: Vec<&str> = line.split_whitespace().collect();
        let [pid, .., status, name] = words[..] else {
            return None;
        };
        let alive = !matches!(status, "E" | "X");
        let same = name.rsplit('/').next() == Some(&program);
        pid.parse().ok().filter(|_| alive && same)
    };
    processes.lines().find_map(of)
}

/// The interface is not RUNNING while its driver is gone, keeps its address, and works again when
/// there is another driver.
fn driver_starts_again(place: &Place) {
    if !Path::new(FLAGS).exists() {
        skip("no flags of interfaces: not tund");
    }
    if driver().is_none() || !Path::new(SPAWNER).exists() {
        skip("no driver that could be started again");
    }
    let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
    // The end of the driver is noticed when a frame is sent, or when the interfaces are listed.
    let shows: [&dyn Fn(); 2] = [
        &|| {
            let _ = socket.send_to(b"x", (GATEWAY, 9));
        },
        &|| {
            let _ = fs::read_dir("/scheme/netcfg/ifaces");
        },
    ];
    for show in shows {
        icmp::answered(GATEWAY, 56);
        assert!(is_running());
        let pid = driver().expect("a driver");
        // SAFETY: a number and a number; the process is the driver.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
        becomes("the driver does not end", || driver() != Some(pid));
        becomes("nobody misses the driver", || {
            show();
            !is_running()
        });
        let error = socket.send_to(b"x", (GATEWAY, 9)).expect_err("a way");
        assert_eq!(error.raw_os_error(), Some(libc::ENETDOWN));

        let started = Command::new(SPAWNER).status().expect("the spawner");
        assert!(started.success(), "{started}");
        becomes("nobody finds the driver", is_running);
        let addresses = fs::read_to_string("/scheme/netcfg/ifaces/eth0/addr/list");
        let addresses = addresses.expect("addresses");
        assert!(addresses.contains(&place.target.to_string()), "{addresses}");
        icmp::answered(GATEWAY, 56);
    }
}

/// A driver that is stopped costs only its own interface: everything else goes on, however much is
/// sent to it. When it goes on, or another takes its place, so does its interface.
fn driver_that_does_not_answer(place: &Place) {
    if !Path::new(FLAGS).exists() {
        skip("no flags of interfaces: not tund");
    }
    let Some(pid) = driver().filter(|_| Path::new(SPAWNER).exists()) else {
        skip("no driver that could be started again");
    };
    icmp::answered(GATEWAY, 56);
    // SAFETY: a number and a number; the process is the driver.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGSTOP) }, 0);
    let started = Instant::now();
    let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
    let (here, there) = [(); 2]
        .map(|()| UdpSocket::bind("127.0.0.1:0").expect("bind"))
        .into();
    there.set_read_timeout(Some(LONG)).expect("a timeout");
    let mut longest = Duration::ZERO;
    // Until it is noticed that nobody answers.
    while is_running() && started.elapsed() < LONG {
        let turn = Instant::now();
        for _ in 0..20 {
            let _ = socket.send_to(&[0; 1400], (GATEWAY, 9));
        }
        let _ = fs::read_dir("/scheme/netcfg/ifaces");
        let to = there.local_addr().expect("an address");
        here.send_to(b"x", to).expect("a way");
        let mut buffer = [0; 16];
        let heard = there.recv(&mut buffer).expect("an answer");
        assert_eq!(&buffer[..heard], b"x");
        longest = longest.max(turn.elapsed());
        thread::sleep(Duration::from_millis(20));
    }
    let noticed = !is_running();
    // SAFETY: as above.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGCONT) }, 0);
    assert!(noticed, "nobody misses the driver");
    assert!(
        longest < Duration::from_secs(1),
        "others waited {longest:?}"
    );
    becomes("the interface does not come back", || {
        // Drivers end when they are continued, since their wait is interrupted. One that is there
        // already keeps its device.
        let started = Command::new(SPAWNER).status().expect("the spawner");
        assert!(started.success(), "{started}");
        thread::sleep(Duration::from_millis(500));
        let _ = fs::read_dir("/scheme/netcfg/ifaces");
        is_running()
    });
    let addresses = fs::read_to_string("/scheme/netcfg/ifaces/eth0/addr/list");
    let addresses = addresses.expect("addresses");
    assert!(addresses.contains(&place.target.to_string()), "{addresses}");
    icmp::answered(GATEWAY, 56);
}

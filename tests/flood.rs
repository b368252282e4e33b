//! Floods in short: no time is measured, only bytes and counters. `FLOOD=1500000` in the environment
//! is how many fragments come through the mount; benches/flood measures.

mod common;

use std::fs;
use std::time::Duration;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use net::link::Mac;
use net::{Host, Services};
use scheme::{FileServer, Now, OpenFlags};

use common::packet::{self, first_fragment, tcp_syn};
use common::system::{MountSystem, System, counter, host, machine};

const BOTH: OpenFlags = OpenFlags::READ.union(OpenFlags::WRITE);
/// As the system's own `_IOW` has it.
const TUNSBATCH: u32 = 0x4004_7482;
/// Most fragments that reassembly holds of one source, and of all.
const HELD: u64 = 256;
/// Packets in one write, which may still be in the input queue.
const BATCH: u32 = 250;

type Mounted = fn(&MountSystem);

fn main() {
    let mut args = Arguments::from_args();
    args.test_threads = Some(1);
    let through_a_mount: [(&str, Mounted); 3] = [
        ("fragments_through_a_mount", fragments_through_a_mount),
        ("names_through_a_mount", names_through_a_mount),
        ("pings_of_oneself_through_a_mount", pings_through_a_mount),
    ];
    let mounted = through_a_mount.map(|(name, test)| {
        Trial::ignorable_test(name, move || -> Result<Completion, Failed> {
            if let Some(reason) = MountSystem::missing() {
                return Ok(Completion::ignored_with(reason));
            }
            test(&MountSystem::new());
            Ok(Completion::Completed)
        })
    });
    let here: [(&str, fn()); 2] = [("syn", syn), ("neighbours", neighbours)];
    let here = here.map(|(name, test)| {
        Trial::test(name, move || -> Result<(), Failed> {
            test();
            Ok(())
        })
    });
    libtest_mimic::run(&args, mounted.into_iter().chain(here).collect()).exit();
}

/// Resident bytes of a process.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.unwrap().trim().strip_suffix(" kB").unwrap();
    kib.parse::<u64>().unwrap() << 10
}

/// Packets in batch frames.
fn batch(packets: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut batch = Vec::new();
    for packet in packets {
        batch.extend_from_slice(&(packet.len() as u32).to_ne_bytes());
        batch.extend_from_slice(&packet);
        batch.resize(batch.len().next_multiple_of(4), 0);
    }
    batch
}

/// Opens `tun0` with batch mode on, as 10.9.0.1/16.
fn tunnel(system: &MountSystem) -> i32 {
    let tun = system.open("tun/0", true, true).unwrap();
    system
        .set("netcfg/ifaces/tun0/addr/set", "10.9.0.1/16\n")
        .unwrap();
    system
        .ioctl(tun, TUNSBATCH, &mut 1_i32.to_ne_bytes())
        .unwrap();
    tun
}

fn fragments_through_a_mount(system: &MountSystem) {
    let count = std::env::var("FLOOD").map_or(150_000, |count| count.parse().unwrap());
    let queued = || {
        let ledger = system.text("netcfg/ifaces/tun0/ledger");
        counter(&ledger, "in.queued")
    };
    let before = resident(system.daemon_pid());
    let grown = || resident(system.daemon_pid()).saturating_sub(before);
    let mut first = 0;
    // The second time it is another interface, with the number of the first.
    for round in 0..2 {
        let tun = tunnel(system);
        assert_eq!(queued(), 0);
        let end = first + if round == 0 { count } else { 10_000 };
        while first < end {
            let next = (first + BATCH).min(end);
            let fragments = (first..next).map(|at| first_fragment("10.9.0.2", "10.9.0.1", at));
            let batch = batch(fragments);
            assert_eq!(system.write(tun, &batch), Ok(batch.len()));
            first = next;
            if first.is_multiple_of(2500) {
                let queued = queued();
                assert!(queued <= HELD + u64::from(BATCH), "{queued}");
                assert!(grown() < 40 << 20, "{} bytes more", grown());
            }
        }
        assert!(queued() > 0);
        system.assert_ledger_closes("tun0");
        system.close(tun).unwrap();
        system.set("netcfg/ifaces/tun0/destroy", "1\n").unwrap();
    }
    let _tun = tunnel(system);
    assert_eq!(queued(), 0);
    system.assert_ledger_closes("tun0");
    assert!(grown() < 40 << 20, "{} bytes more", grown());
}

/// As many names of sockets as there are: the kernel keeps them, we do not.
fn names_through_a_mount(system: &MountSystem) {
    let look = |from: u32, to: u32| {
        for at in from..to {
            let [_, a, b, c] = at.to_be_bytes();
            let path = format!("udp/10.{a}.{b}.{c}:9");
            assert!(system.dir().join(path).metadata().is_ok());
        }
    };
    look(0, 66_000);
    let before = resident(system.daemon_pid());
    look(66_000, 100_000);
    let grown = resident(system.daemon_pid()).saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes more");
}

fn pings_through_a_mount(system: &MountSystem) {
    let before = resident(system.daemon_pid());
    let mut sockets = Vec::new();
    for _ in 0..600 {
        let socket = system.open("icmp/echo/127.0.0.1", true, true).unwrap();
        for _ in 0..128 {
            let _ = system.write(socket, &[0; 1402]);
        }
        sockets.push(socket);
    }
    let grown = resident(system.daemon_pid()).saturating_sub(before);
    assert!((16 << 20..100 << 20).contains(&grown), "{grown} bytes more");
    let stats = system.text("netcfg/ifaces/lo0/stats");
    assert!(counter(&stats, "drop.socket_full") > 0);
    system.assert_ledger_closes("lo0");
    for socket in sockets {
        system.close(socket).unwrap();
    }
}

fn syn() {
    let (local, _) = machine(1, Services::ECHO);
    let root = local.process(1, 0);
    let tun = common::program::tunnel(&root, 0, "10.9.0.1/24");
    root.ioctl(tun, TUNSBATCH, &mut 1_i32.to_ne_bytes())
        .unwrap();
    let mut rng = fastrand::Rng::with_seed(1);
    for _ in 0..100 {
        let segments = (0..500).map(|_| {
            let from = format!("11.{}.{}.{}", rng.u8(..), rng.u8(..), rng.u8(1..));
            tcp_syn((&from, rng.u16(1024..)), ("10.9.0.1", 7), rng.u32(..))
        });
        root.write(tun, &batch(segments)).unwrap();
        local.pump();
        while root.read(tun, &mut [0; 1 << 20]).is_ok() {}
    }
    let stats = common::program::text(&root, "tcp/stats");
    // The backlog of the service is 1024: what does not fit is a cookie, which is kept nowhere.
    let cookies = counter(&stats, "cookies_sent");
    assert!((50_000 - 1100..50_000).contains(&cookies), "{cookies}");
    let tun0 = |host: &mut Host| {
        let stats = &host.interface("tun0").unwrap().stats;
        (stats.input(), stats.output())
    };
    let (input, _) = local.with_server(tun0);
    assert_eq!((input.offered, input.delivered), (50_000, 50_000));
    assert_eq!(input.queued, 0);
}

/// Solicitations of stations that do not exist, and packets for others.
fn neighbours() {
    let us = Mac([2, 0, 0, 0, 0, 1]);
    let mut host = host(1, Services::ECHO);
    let adapter = host.attach_ethernet(us).unwrap();
    let root = scheme::Caller {
        pid: scheme::Pid(1),
        uid: 0,
    };
    for (path, text) in [("add", "10.9.0.1/16\n"), ("add", "fd09::1/64\n")] {
        let path = format!("netcfg/ifaces/eth0/addr/{path}");
        let file = host.open(&path, OpenFlags::WRITE, root).unwrap();
        let _ = host.write(file, text.as_bytes(), 0, root);
        host.close(file);
    }
    let mut rng = fastrand::Rng::with_seed(2);
    for milli in 0..20_000_u64 {
        let mac = [2, 9, rng.u8(..), rng.u8(..), rng.u8(..), rng.u8(..)];
        let from = format!("fd09::{:x}:{:x}", rng.u16(1..), rng.u16(1..));
        let target = std::net::Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1);
        let message = [
            &[135, 0, 0, 0, 0, 0, 0, 0][..],
            &target.octets(),
            &[1, 1],
            &mac,
        ];
        let packet = packet::icmpv6(from.parse().unwrap(), target, &message.concat());
        let frame = [&us.0[..], &mac, &0x86dd_u16.to_be_bytes(), &packet].concat();
        host.handle_frame(adapter, &frame);
        let to = format!("udp/10.9.{}.{}:9", rng.u8(1..), rng.u8(1..255));
        let sender = host.open(&to, BOTH, root).unwrap();
        let _ = host.write(sender, &[0; 1400], 0, root);
        host.close(sender);
        let time = Duration::from_millis(milli);
        let _ = host.turn(Now {
            monotonic: time,
            wall: time,
        });
        while host.poll_frame(adapter).is_some() {}
        while host.poll_wakeup().is_some() {}
        let output = host.interface("eth0").unwrap().stats.output();
        // What waits is bounded in bytes, and each is 1400 and more.
        assert!(output.queued <= (1 << 20) / 1400, "{}", output.queued);
        let places = output.delivered + output.queued + output.dropped;
        assert_eq!(output.offered, places);
    }
}

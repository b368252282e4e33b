//! Floods in short: no time is measured, only bytes and counters; benches/flood measures. Each of them
//! has a sibling there.

mod common;

use std::time::Duration;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use net::link::Mac;
use net::{Host, Services};
use scheme::{FileServer, Now, OpenFlags};

use common::packet::{self, batch, first_fragment, tcp_syn};
use common::system::{MountSystem, System, counter, host, machine};
use common::usage::{allow_files, resident};

const BOTH: OpenFlags = OpenFlags::READ.union(OpenFlags::WRITE);
/// As the system's own `_IOW` has it.
const TUNSBATCH: u32 = 0x4004_7482;
/// Most datagrams that reassembly holds of one source.
const HELD: u64 = 64;
/// Fragments in the flood of them.
const FRAGMENTS: u32 = 1_500_000;
/// Files that a program may have open, as many as the stack has, and some.
const FILES: u64 = 70_000;
/// Packets in one write, which may still be in the input queue.
const BATCH: u32 = 250;

type Mounted = fn(&MountSystem);

fn main() {
    let mut args = Arguments::from_args();
    args.test_threads = Some(1);
    let through_a_mount: [(&str, Mounted); 7] = [
        ("fragments_through_a_mount", fragments_through_a_mount),
        ("names_through_a_mount", names_through_a_mount),
        ("pings_of_oneself_through_a_mount", pings_through_a_mount),
        ("sleepers_through_a_mount", sleepers_through_a_mount),
        ("opens_through_a_mount", opens_through_a_mount),
        ("texts_through_a_mount", texts_through_a_mount),
        ("captures_through_a_mount", captures_through_a_mount),
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
        let end = first + if round == 0 { FRAGMENTS } else { 10_000 };
        while first < end {
            let next = (first + BATCH).min(end);
            let fragments = (first..next).map(|at| first_fragment("10.9.0.2", "10.9.0.1", at));
            let batch = batch(fragments);
            assert_eq!(system.write(tun, &batch), Ok(batch.len()));
            first = next;
            if first.is_multiple_of(10_000) {
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

/// Does something as a user who is nobody in particular.
fn as_user<T>(something: impl FnOnce() -> T) -> T {
    // SAFETY: changes only by whom this thread's files are opened.
    unsafe { ::libc::setfsuid(1000) };
    let done = something();
    // SAFETY: as above.
    unsafe { ::libc::setfsuid(0) };
    done
}

/// Waits until the memory is nearly what it was: the kernel tells of closed files later.
fn assert_given_back(system: &MountSystem, before: u64) {
    let left = || resident(system.daemon_pid()).saturating_sub(before);
    for _ in 0..1000 {
        if left() < 20 << 20 {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{} bytes left", left());
}

/// An honest program's datagram comes back.
fn assert_echo(system: &MountSystem) {
    let socket = system.open_rw("udp/127.0.0.1:7");
    assert_eq!(system.write(socket, b"honest"), Ok(6));
    assert_eq!(system.read(socket, &mut [0; 64]), Ok(6));
    system.close(socket).unwrap();
}

/// Sockets whose readers sleep: what waits for them is bounded in all, and dropped by name. The second
/// time it takes the memory of the first.
fn sleepers_through_a_mount(system: &MountSystem) {
    let before = resident(system.daemon_pid());
    let tun = tunnel(system);
    let mut frame = [0; 256];
    let mut most = 0;
    for round in 0..3 {
        let mut sockets = Vec::new();
        for _ in 0..400 {
            let socket = as_user(|| system.open_rw("udp/10.9.0.2:9"));
            assert_eq!(system.write(socket, b"x"), Ok(1));
            // Its port is in what it sends, behind the length and the address header.
            assert_eq!(system.read(tun, &mut frame), Ok(4 + 32));
            sockets.push((socket, u16::from_be_bytes([frame[24], frame[25]])));
        }
        // 160 MB and more.
        for _ in 0..300 {
            for some in sockets.chunks(100) {
                let datagram =
                    |&(_, port)| packet::udp(("10.9.0.2", 9), ("10.9.0.1", port), &[0; 1400]);
                let batch = batch(some.iter().map(datagram));
                assert_eq!(system.write(tun, &batch), Ok(batch.len()));
            }
        }
        let grown = resident(system.daemon_pid()).saturating_sub(before);
        assert!((30 << 20..100 << 20).contains(&grown), "{grown} bytes more");
        assert!(
            round == 0 || grown < most + (8 << 20),
            "{grown} after {most}"
        );
        most = most.max(grown);
        assert!(system.stat("tun0", "drop.socket_full") > 0);
        system.assert_ledger_closes("tun0");
        assert_echo(system);
        for (socket, _) in sockets {
            system.close(socket).unwrap();
        }
    }
}

/// As many files as a user can have.
fn opens_through_a_mount(system: &MountSystem) {
    allow_files(FILES);
    let before = resident(system.daemon_pid());
    let mut files = Vec::new();
    let error = loop {
        match as_user(|| system.open("netcfg/ip/forwarding", true, false)) {
            Ok(file) => files.push(file),
            Err(error) => break error,
        }
        assert!(files.len() <= 65_536 - 4096);
    };
    // The stack's, or this process's: not every system lets it have so many.
    assert!([::libc::ENFILE, ::libc::EMFILE].contains(&error), "{error}");
    for file in files.drain(..16) {
        system.close(file).unwrap();
    }
    let grown = resident(system.daemon_pid()).saturating_sub(before);
    assert!(
        grown < 60 << 20,
        "{} files, {grown} bytes more",
        files.len()
    );
    assert_echo(system);
    for file in files {
        system.close(file).unwrap();
    }
}

/// Readers of a text that changes under each, which have begun and never go on.
fn texts_through_a_mount(system: &MountSystem) {
    let tun = tunnel(system);
    let routes = |from: u32, to: u32| -> String {
        let prefix = |at: u32| format!("11.{}.{}.0/24 dev tun0\n", at >> 8, at & 255);
        (from..to).map(prefix).collect()
    };
    system.set("netcfg/route/add", &routes(0, 20_000)).unwrap();
    let before = resident(system.daemon_pid());
    let mut readers = Vec::new();
    let mut refused = 0;
    for at in 20_000..20_300 {
        system.set("netcfg/route/add", &routes(at, at + 1)).unwrap();
        let reader = as_user(|| system.open("netcfg/route/list", true, false)).unwrap();
        match system.read(reader, &mut [0; 16]) {
            Ok(16) => {}
            Err(::libc::ENOBUFS) => refused += 1,
            other => panic!("{other:?}"),
        }
        readers.push(reader);
    }
    assert!(refused > 100, "{refused} of 300");
    let grown = resident(system.daemon_pid()).saturating_sub(before);
    assert!(grown < 100 << 20, "{grown} bytes more");
    assert_echo(system);
    for reader in readers {
        system.close(reader).unwrap();
    }
    // There is room again.
    assert!(system.text("netcfg/route/list").lines().count() > 20_300);
    system.close(tun).unwrap();
}

fn captures_through_a_mount(system: &MountSystem) {
    let before = resident(system.daemon_pid());
    let captures: Vec<i32> = (0..200).map(|_| system.open_rw("bpf/lo0")).collect();
    let socket = system.open_rw("udp/127.0.0.1:9");
    for _ in 0..2000 {
        assert_eq!(system.write(socket, &[0; 1400]), Ok(1400));
    }
    let grown = resident(system.daemon_pid()).saturating_sub(before);
    assert!((30 << 20..100 << 20).contains(&grown), "{grown} bytes more");
    assert_echo(system);
    system.assert_ledger_closes("lo0");
    for capture in captures {
        system.close(capture).unwrap();
    }
    assert_given_back(system, before);
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

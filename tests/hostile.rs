//! Attacks by programs and packets that must not affect others: packets and time are the test's.
#![allow(missing_docs)]

mod common;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use common::packet::{checksum, ipv4, payload_v4};
use common::system::{host, machine};
use net::ifnet::DropReason;
use net::{Host, Services};
use scheme::errno::{self, Errno};
use scheme::local::{Fd, Local, ManualClock, Process};
use scheme::{Caller, FileServer, Now, OpenFlags, Pid};

const BOTH: OpenFlags = OpenFlags::READ.union(OpenFlags::WRITE);

struct System {
    local: Arc<Local<Host>>,
    #[allow(dead_code, reason = "the first tests need no time")]
    clock: Arc<ManualClock>,
    root: Process<Host>,
    user: Process<Host>,
}

fn system() -> System {
    let (local, clock) = machine(3, Services::all());
    System {
        root: local.process(1, 0),
        user: local.process(9, 1000),
        local,
        clock,
    }
}

impl System {
    fn set(&self, path: &str, text: &str) -> Result<usize, Errno> {
        common::program::set(&self.root, path, text)
    }

    /// Tunnel `tunN` with address `10.N.0.1/24`.
    fn tunnel(&self, unit: u16) -> Fd {
        let address = format!("10.{unit}.0.1/24");
        common::program::tunnel(&self.root, unit.into(), &address)
    }

    fn text(&self, path: &str) -> String {
        common::program::text(&self.root, path)
    }

    /// Every packet that is queued for the tunnel.
    fn sent(&self, tun: Fd) -> Vec<Vec<u8>> {
        self.local.pump();
        let mut packets = Vec::new();
        let mut buf = [0; 70_000];
        while let Ok(len) = self.root.read(tun, &mut buf) {
            packets.push(buf[..len].to_vec());
        }
        packets
    }
}

#[test]
fn a_socket_of_one_family_does_not_send_to_the_other() {
    let system = system();
    for names in ["[::1]:9/127.0.0.1:5000", "127.0.0.1:9/[::1]:5000"] {
        let path = format!("/scheme/udp/{names}");
        // It must be refused, by either of the two calls.
        let written = system
            .user
            .open(&path, BOTH)
            .and_then(|fd| system.user.write(fd, b"x"));
        assert!(written.is_err(), "{path}: {written:?}");
        let tcp = system.user.open(&format!("/scheme/tcp/{names}"), BOTH);
        assert!(tcp.is_err(), "tcp {names}: {tcp:?}");
    }
    let fd = system.user.open("/scheme/udp", BOTH).unwrap();
    let bound = system.user.dup_verb(fd, b"/127.0.0.1:5001").unwrap();
    let mixed = system.user.dup_verb(bound, b"[::1]:9");
    let written = mixed.and_then(|fd| system.user.write(fd, b"x"));
    assert_eq!(written, Err(errno::EADDRNOTAVAIL));
    system.local.pump();
}

#[test]
fn a_group_is_never_a_source() {
    let system = system();
    let tun = system.tunnel(0);
    for group in ["239.1.2.3", "255.255.255.255", "10.0.0.255"] {
        let path = format!("/scheme/udp/10.0.0.2:99/{group}:5000");
        let Ok(fd) = system.user.open(&path, BOTH) else {
            continue;
        };
        assert_eq!(system.user.write(fd, b"x"), Ok(1));
        let sent = system.sent(tun);
        assert_eq!(sent[0][12..16], [10, 0, 0, 1], "{group}");
        assert_eq!(payload_v4(&sent[0])[..2], 5000_u16.to_be_bytes());
        system.user.close(fd).unwrap();
        let tcp = format!("/scheme/tcp/10.0.0.2:99/{group}:5000");
        system.root.set_nonblocking(tun, true).unwrap();
        if group == "239.1.2.3" {
            assert!(system.user.open(&tcp, BOTH).is_err());
        }
        assert_eq!(system.sent(tun), Vec::<Vec<u8>>::new());
    }
}

#[test]
fn nobody_sends_as_a_host_that_we_are_not() {
    let system = system();
    let tun = system.tunnel(0);
    system.root.set_nonblocking(tun, true).unwrap();
    // A stranger on the link, one far away, nobody, and the other end itself.
    for source in ["10.0.0.9", "9.9.9.9", "0.0.0.1", "10.0.0.2"] {
        for kind in ["udp", "tcp"] {
            let path = format!("/scheme/{kind}/10.0.0.2:99/{source}:5000");
            let opened = system.user.open(&path, BOTH);
            assert_eq!(opened, Err(errno::EADDRNOTAVAIL), "{path}");
        }
        let datagram = system.user.open("/scheme/udp", BOTH).unwrap();
        let bound = system
            .user
            .dup_verb(datagram, format!("/{source}:5000").as_bytes());
        assert_eq!(bound, Err(errno::EADDRNOTAVAIL), "{source}");
        system.user.close(datagram).unwrap();
    }
    assert_eq!(system.sent(tun), Vec::<Vec<u8>>::new());
}

#[test]
fn a_tunnel_that_nobody_reads_holds_up_nobody() {
    let system = system();
    let (_asleep, awake) = (system.tunnel(0), system.tunnel(1));
    system.root.set_nonblocking(awake, true).unwrap();
    let far = system.user.open("/scheme/udp/10.0.0.2:9", BOTH).unwrap();
    let near = system.user.open("/scheme/udp/127.0.0.1:7", BOTH).unwrap();
    let other = system.user.open("/scheme/udp/10.1.0.2:9", BOTH).unwrap();
    let connection = system.user.open("/scheme/tcp/127.0.0.1:7", BOTH).unwrap();
    let mut refused = 0;
    for _ in 0..1000 {
        refused += u32::from(system.user.write(far, &[0; 1400]) == Err(errno::ENOBUFS));
        let mut buf = [0; 64];
        assert_eq!(system.user.write(near, b"near"), Ok(4));
        assert_eq!(system.user.read(near, &mut buf), Ok(4));
        assert_eq!(system.user.write(connection, b"stream"), Ok(6));
        assert_eq!(system.user.read(connection, &mut buf), Ok(6));
        assert_eq!(system.user.write(other, b"other"), Ok(5));
        assert_eq!(system.sent(awake).len(), 1);
    }
    assert_eq!(refused, 750);
}

/// "Too big", about a packet of ours; it quotes eight bytes of its payload.
fn too_big(dst: &str, protocol: u8, ports: [u16; 2], mtu: u16) -> Vec<u8> {
    let here: Ipv4Addr = "10.0.0.1".parse().unwrap();
    let [[a, b], [c, d]] = ports.map(u16::to_be_bytes);
    let quote = ipv4(
        here,
        dst.parse().unwrap(),
        protocol,
        &[a, b, c, d, 0, 0, 0, 0],
    );
    let [high, low] = mtu.to_be_bytes();
    let mut message = [&[3, 4, 0, 0, 0, 0, high, low], &quote[..]].concat();
    let sum = checksum(&[&message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ipv4("66.6.6.6".parse().unwrap(), here, 1, &message)
}

#[test]
fn a_path_is_narrow_only_for_those_who_sent_there() {
    let system = system();
    let tun = system.tunnel(0);
    let sizes = |datagram: Fd| {
        assert_eq!(system.user.write(datagram, &[0; 1400]), Ok(1400));
        let sent = system.sent(tun);
        sent.iter().map(Vec::len).max().unwrap()
    };
    let open = || {
        let path = "/scheme/udp/10.0.0.2:99/0.0.0.0:5000";
        system.user.open(path, BOTH).unwrap()
    };
    let datagram = open();
    // Forged: the port is in use, but nothing was sent to that destination.
    for forged in [
        too_big("10.0.0.2", 17, [7, 99], 600),
        too_big("10.0.0.2", 17, [5000, 98], 600),
        too_big("10.0.0.2", 17, [5000, 99], 600),
        too_big("10.0.0.2", 6, [5000, 99], 600),
        too_big("10.0.0.2", 1, [0x0800, 0], 600),
    ] {
        system.root.write(tun, &forged).unwrap();
        system.local.pump();
    }
    assert_eq!(sizes(datagram), 1428);
    let genuine = too_big("10.0.0.2", 17, [5000, 99], 600);
    system.root.write(tun, &genuine).unwrap();
    system.local.pump();
    assert!(sizes(datagram) <= 600);
}

#[test]
fn empty_datagrams_fill_a_queue_too() {
    let system = system();
    let taker = system
        .user
        .open("/scheme/udp//127.0.0.1:5000", BOTH)
        .unwrap();
    let giver = system
        .user
        .open("/scheme/udp/127.0.0.1:5000", BOTH)
        .unwrap();
    for _ in 0..5000 {
        system.user.write(giver, b"").unwrap();
    }
    system.local.pump();
    let lo0 = |net: &mut Host| {
        let lo0 = net.interface("lo0").unwrap();
        lo0.stats.drops(DropReason::SocketFull)
    };
    let dropped = system.local.with_server(lo0);
    assert!((4000..5000).contains(&dropped), "{dropped} of 5000 dropped");
    system.user.close(taker).unwrap();
}

#[test]
fn who_watches_counters_is_told_ten_times_a_second() {
    let root = Caller {
        pid: Pid(1),
        uid: 0,
    };
    let mut net = host(1, Services::all());
    let stats = net
        .open("netcfg/ifaces/lo0/stats", OpenFlags::READ, root)
        .unwrap();
    let mtu = net
        .open("netcfg/ifaces/lo0/mtu", OpenFlags::READ, root)
        .unwrap();
    let discard = net.open("udp/127.0.0.1:9", BOTH, root).unwrap();
    let mut told = 0;
    let mut step = |net: &mut Host, milli: u64, write: bool| {
        if write {
            for file in [stats, mtu] {
                let _ = net.read(file, &mut [0; 4096], 0, root);
                net.ready(file);
            }
            let _ = net.write(discard, b"x", 0, root);
        }
        let time = Duration::from_millis(milli);
        let turn = net.turn(Now {
            monotonic: time,
            wall: time,
        });
        while let Some(wakeup) = net.poll_wakeup() {
            assert_ne!(wakeup.file, mtu);
            told += usize::from(wakeup.file == stats);
        }
        (turn.deadline, told)
    };
    for milli in 0..1000 {
        step(&mut net, milli, true);
    }
    step(&mut net, 1000, true);
    let (deadline, told) = step(&mut net, 1050, true);
    assert!((9..=11).contains(&told), "told {told} times");
    // The last change is reported, too; after that there is no needless wake-up.
    let due = deadline.unwrap();
    assert!(due <= Duration::from_millis(1100), "{due:?}");
    let (_, again) = step(&mut net, 1100, false);
    assert_eq!(again, told + 1);
    step(&mut net, 1300, false);
    step(&mut net, 1500, false);
    assert_eq!(step(&mut net, 1700, false).0, None);
}

#[test]
fn what_is_refused_leaves_the_routes_as_they_were() {
    let system = system();
    let tun = system.tunnel(0);
    let routes = || system.text("route/list");
    let twice = |path: &str, line: &str| {
        let before = routes();
        let text = format!("{line}\n{line}\n");
        assert_eq!(system.set(path, &text), Err(errno::EINVAL), "{path} {line}");
        assert_eq!(routes(), before, "{path} {line}");
    };
    twice("ifaces/tun0/addr/add", "10.5.0.1/24");
    twice("ifaces/tun0/addr/rm", "10.0.0.1/24");
    system.set("route/rm", "10.0.0.0/24\n").unwrap();
    twice("ifaces/tun0/addr/add", "10.5.0.1/24");
    system.set("ifaces/tun0/flags", "down\n").unwrap();
    twice("ifaces/tun0/addr/add", "10.5.0.1/24");
    let many = "up\n".repeat(1025);
    assert_eq!(system.set("ifaces/tun0/flags", &many), Err(errno::ENOSPC));
    // The state kept to undo a refused last line is bounded, too.
    let routes: String = (0..10_000)
        .map(|at| format!("10.{}.{}.0/24 dev tun0\n", at >> 8, at & 255))
        .collect();
    system.set("route/add", &routes).unwrap();
    let many = "1400\n".repeat(30);
    assert_eq!(system.set("ifaces/tun0/mtu", &many), Err(errno::ENOSPC));
    assert_eq!(system.set("ifaces/tun0/mtu", "1500\n"), Ok(5));
    system.root.close(tun).unwrap();
    twice("ifaces/tun0/destroy", "1");
    assert_eq!(system.text("ifaces/tun0/mtu"), "1500\n");
}

//! What a tunnel program needs beside its device: routes that stand beside the machine's own, a
//! socket that keeps out of the tunnel, the answer to where packets go, and news of its interface.
#![allow(missing_docs)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::libc::{BOTH, Libc};
use common::packet::{ipv4, udp};
use common::wire::Wire;
use scheme::errno::{self, Errno};
use scheme::local::{Fd, Process};
use scheme::{OpenFlags, Ready};

const ADD: &str = "route/add";
const RM: &str = "route/rm";
/// As C programs on Linux and on Redox write it, and as BSD would.
const TUNSBYPASS: [u32; 2] = [0x4010_7485, 0x8010_7485];

/// A machine with 10.0.0.1 on Ethernet, and its default route there.
struct Machine {
    wire: Wire,
    libc: Arc<Libc>,
}

impl Machine {
    fn new() -> Self {
        let wire = Wire::new();
        wire.take_address();
        wire.set(ADD, "default via 10.0.0.254\n").unwrap();
        let libc = Libc::new(&wire.local);
        Self { wire, libc }
    }

    fn process(&self) -> &Process<net::Host> {
        &self.libc.0
    }

    fn set(&self, path: &str, text: &str) -> Result<(), Errno> {
        self.wire.set(path, text)
    }

    fn list(&self) -> String {
        self.wire.text("route/list")
    }

    fn tunnel(&self, unit: u32, address: &str) -> Fd {
        common::program::tunnel(self.process(), unit, address)
    }

    /// What `route/lookup` says, without its newline.
    fn lookup(&self, dst: &str) -> Result<String, Errno> {
        lookup(self.process(), dst)
    }

    /// The packets that left by a tunnel: where to, and the whole.
    fn sent(&self, tun: Fd) -> Vec<(String, Vec<u8>)> {
        let mut buf = vec![0; 70_000];
        let mut sent = Vec::new();
        while let Ok(len @ 20..) = self.process().read(tun, &mut buf) {
            let dst: [u8; 4] = buf[16..20].try_into().unwrap();
            sent.push((
                std::net::Ipv4Addr::from(dst).to_string(),
                buf[..len].to_vec(),
            ));
        }
        sent
    }

    /// The destinations of packets that left by a tunnel, IGMP not included.
    fn destinations(&self, tun: Fd) -> Vec<String> {
        let sent = self.sent(tun).into_iter();
        let others = sent.filter(|(_, packet)| packet[9] != 2);
        others.map(|(dst, _)| dst).collect()
    }

    fn bypass(&self, socket: Fd, name: &str) -> Result<(), Errno> {
        bypass(self.process(), socket, name)
    }

    /// Sends a datagram by a socket that has no peer.
    fn send(&self, socket: Fd, to: &str) -> Result<usize, Errno> {
        let copy = self.process().dup_verb(socket, to.as_bytes())?;
        let sent = self.process().write(copy, b"datagram");
        self.process().close(copy).unwrap();
        sent
    }
}

fn lookup(process: &Process<net::Host>, dst: &str) -> Result<String, Errno> {
    let file = process.open("/scheme/netcfg/route/lookup", BOTH).unwrap();
    let asked = process.write(file, format!("{dst}\n").as_bytes());
    let mut buf = [0; 200];
    let len = process.read(file, &mut buf).unwrap();
    process.close(file).unwrap();
    let line = std::str::from_utf8(&buf[..len]).unwrap();
    match asked {
        Ok(_) => Ok(line.strip_suffix('\n').unwrap().to_owned()),
        Err(error) => {
            assert_eq!(line, "");
            Err(error)
        }
    }
}

fn padded(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    bytes
}

fn bypass(process: &Process<net::Host>, socket: Fd, name: &str) -> Result<(), Errno> {
    process.ioctl(socket, TUNSBYPASS[0], &mut padded(name))
}

#[test]
fn a_tunnel_stands_beside_the_machines_own_route() {
    let machine = Machine::new();
    let own = machine.list();
    let eth0 = "default via 10.0.0.254 dev eth0 src 10.0.0.1";
    assert_eq!(machine.lookup("9.9.9.9").unwrap(), eth0);
    let tun = machine.tunnel(0, "10.8.0.1/24");
    machine.set(ADD, "default dev tun0\n").unwrap();
    let both = "default via 10.0.0.254 dev eth0\ndefault dev tun0\n";
    assert!(machine.list().starts_with(both), "{}", machine.list());
    let tun0 = "default dev tun0 src 10.8.0.1";
    assert_eq!(machine.lookup("9.9.9.9").unwrap(), tun0);
    let socket = machine.libc.bind(machine.libc.socket("udp"), "0.0.0.0:0");
    machine.send(socket.unwrap(), "9.9.9.9:9").unwrap();
    assert_eq!(machine.destinations(tun), ["9.9.9.9"]);
    // A lease that is renewed, or one on another adapter, leaves the traffic in the tunnel.
    machine.set(ADD, "default via 10.0.0.253\n").unwrap();
    assert!(machine.list().starts_with(&both.replace("254", "253")));
    assert_eq!(machine.lookup("9.9.9.9").unwrap(), tun0);
    machine.set(ADD, "default via 10.0.0.254\n").unwrap();
    machine.set("ifaces/tun0/flags", "down\n").unwrap();
    assert_eq!(machine.lookup("9.9.9.9").unwrap(), eth0);
    machine.set("ifaces/tun0/flags", "up\n").unwrap();
    assert_eq!(machine.lookup("9.9.9.9").unwrap(), tun0);
    // What goes is the one in use, and then the other.
    machine.set(RM, "default\n").unwrap();
    assert_eq!(machine.lookup("9.9.9.9").unwrap(), eth0);
    machine.set(ADD, "default dev tun0\n").unwrap();
    machine.set(RM, "default via 10.0.0.254\n").unwrap();
    assert_eq!(machine.lookup("9.9.9.9").unwrap(), tun0);
    machine
        .set(ADD, "default via 10.0.0.254 dev eth0\n")
        .unwrap();
    assert_eq!(machine.lookup("9.9.9.9").unwrap(), tun0);
    // When the program ends, the network is as it was.
    machine.process().close(tun).unwrap();
    assert_eq!(machine.list(), own);
    assert_eq!(machine.lookup("9.9.9.9").unwrap(), eth0);
    machine.set(RM, "default dev eth0\n").unwrap();
    assert_eq!(machine.set(RM, "default\n"), Err(errno::EINVAL));
    assert_eq!(machine.lookup("9.9.9.9"), Err(errno::ENETUNREACH));
    machine.wire.assert_ledger_closes();
}

#[test]
fn what_is_listed_makes_the_same_table() {
    let machine = Machine::new();
    let tuns: Vec<Fd> = (0..3)
        .map(|unit| machine.tunnel(unit, &format!("10.8.{unit}.1/24")))
        .collect();
    for line in [
        "default dev tun1",
        "default dev tun0 metric 7",
        "default via 10.0.0.253 metric 7",
        "default dev tun2 metric 7",
        "default dev tun0",
        "default unreachable metric 7",
        "10.9.0.0/16 dev tun2",
        "10.9.0.0/16 dev eth0",
        "10.9.0.0/16 dev tun0",
    ] {
        machine.set(ADD, &format!("{line}\n")).unwrap();
    }
    let used = || ["9.9.9.9", "10.9.0.1"].map(|dst| machine.lookup(dst).unwrap());
    let (list, before) = (machine.list(), used());
    assert!(before[0].contains("dev tun0 src") && before[1].contains("dev tun0 src"));
    // Backwards, because a line without a metric is for every metric.
    for line in list.lines().rev() {
        machine.set(RM, &format!("{line}\n")).unwrap();
    }
    assert_eq!(machine.list(), "");
    machine.set(ADD, &list).unwrap();
    assert_eq!((machine.list(), used()), (list.clone(), before.clone()));
    // So it is when a write is refused: what was removed, replaced and added is where it was.
    for (path, lines) in [
        (RM, "default dev tun1\ndefault\n10.9.0.0/16\n10.9.0.0/16\n"),
        (ADD, "default dev tun1 src 10.8.1.1\n10.9.0.0/16 dev tun1\n"),
    ] {
        let refused = machine.set(path, &format!("{lines}10.10.0.0/16 via 10.0.0.1\n"));
        assert_eq!(refused, Err(errno::EINVAL));
        assert_eq!((machine.list(), used()), (list.clone(), before.clone()));
    }
    // Without a device the one in use goes, of whatever metric.
    machine.set(RM, "10.9.0.0/16\n").unwrap();
    assert!(machine.lookup("10.9.0.1").unwrap().contains("dev tun2"));
    for tun in tuns {
        machine.process().close(tun).unwrap();
    }
    assert!(!machine.list().contains("tun"), "{}", machine.list());
}

#[test]
fn a_connected_route_comes_back_to_its_place() {
    let machine = Machine::new();
    let tun0 = machine.tunnel(0, "10.8.0.1/24");
    let tun1 = machine.tunnel(1, "10.8.0.2/24");
    let list = machine.list();
    let both = "10.8.0.0/24 dev tun0\n10.8.0.0/24 dev tun1\n";
    assert!(list.contains(both), "{list}");
    let used = || machine.lookup("10.8.0.9").unwrap();
    assert_eq!(used(), "10.8.0.0/24 dev tun1 src 10.8.0.2");
    machine.process().close(tun0).unwrap();
    assert!(!machine.list().contains("tun0"));
    let tun0 = machine.process().open("/scheme/tun/0", BOTH).unwrap();
    machine.set("ifaces/tun0/flags", "up\n").unwrap();
    assert_eq!((machine.list(), used()), (list.clone(), used()));
    // The same address again, as a lease that is renewed, or another of the network.
    for addr in ["10.8.0.1/24", "10.8.0.7/24"] {
        machine
            .set("ifaces/tun0/addr/set", &format!("{addr}\n"))
            .unwrap();
        assert_eq!(machine.list(), list);
    }
    let refused = machine.set("ifaces/tun0/addr/set", "10.66.0.1/24\nx\n");
    assert_eq!((refused, machine.list()), (Err(errno::EINVAL), list));
    // An address that was taken away and comes later is the last one.
    machine.set("ifaces/tun0/addr/rm", "10.8.0.7/24\n").unwrap();
    machine
        .set("ifaces/tun0/addr/add", "10.8.0.7/24\n")
        .unwrap();
    assert_eq!(used(), "10.8.0.0/24 dev tun0 src 10.8.0.7");
    for tun in [tun0, tun1] {
        machine.process().close(tun).unwrap();
    }
}

#[test]
fn what_is_unreachable_is_told_to_senders() {
    let machine = Machine::new();
    let tun = machine.tunnel(0, "10.8.0.1/24");
    machine
        .set(
            ADD,
            "default dev tun0\ndefault unreachable metric 1000\n::/0 unreachable\n",
        )
        .unwrap();
    machine.set(RM, "default dev eth0\n").unwrap();
    let list = machine.list();
    assert!(
        list.contains("default unreachable metric 1000\n") && list.contains("::/0 unreachable\n")
    );
    assert!(machine.lookup("9.9.9.9").unwrap().contains("dev tun0"));
    machine.process().close(tun).unwrap();
    assert_eq!(machine.lookup("9.9.9.9"), Err(errno::EHOSTUNREACH));
    assert_eq!(machine.lookup("2001:db8::1"), Err(errno::EHOSTUNREACH));
    assert_eq!(machine.lookup("239.1.2.3"), Err(errno::EHOSTUNREACH));
    let libc = &machine.libc;
    let socket = libc.bind(libc.socket("udp"), "0.0.0.0:0").unwrap();
    assert_eq!(machine.send(socket, "9.9.9.9:9"), Err(errno::EHOSTUNREACH));
    let connected = libc.connect(libc.socket("tcp"), "9.9.9.9:9");
    assert_eq!(connected.err(), Some(errno::EHOSTUNREACH));
    let ping = libc.0.open("/scheme/icmp/echo/9.9.9.9", BOTH).unwrap();
    assert_eq!(libc.0.write(ping, &[0, 1]), Err(errno::EHOSTUNREACH));
    // A DHCP client still reaches its server.
    while machine.wire.sent().is_some() {}
    machine.send(socket, "255.255.255.255:67").unwrap();
    assert_eq!(machine.wire.sent().unwrap().1, 0x0800);
    machine.set(RM, "default unreachable\n").unwrap();
    assert_eq!(machine.lookup("9.9.9.9"), Err(errno::ENETUNREACH));
}

#[test]
fn what_is_unreachable_is_told_to_those_whose_packets_are_forwarded() {
    let machine = Machine::new();
    let tun = machine.tunnel(0, "10.8.0.1/24");
    machine.set("ip/forwarding", "1\n").unwrap();
    machine.set(ADD, "10.77.0.0/16 unreachable\n").unwrap();
    let packet = udp(("10.8.0.2", 5), ("10.77.0.1", 6), b"x");
    machine.process().write(tun, &packet).unwrap();
    let errors = machine.sent(tun);
    let errors: Vec<_> = errors.iter().filter(|(_, sent)| sent[9] == 1).collect();
    assert_eq!(errors.len(), 1);
    // Destination unreachable, host.
    assert_eq!(errors[0].1[20..22], [3, 1]);
    let stats = machine.wire.text("ifaces/tun0/stats");
    assert!(stats.contains("drop.unreachable 1\n"), "{stats}");
    machine.wire.local.with_server(|net| {
        let stats = &net.interface("tun0").unwrap().stats;
        assert!(stats.input().closes() && stats.output().closes());
    });
    // Nor is an answer sent past it, by the way that the question came.
    machine.set(ADD, "10.8.0.9/32 unreachable\n").unwrap();
    let ping = ipv4(
        [10, 8, 0, 9].into(),
        [10, 8, 0, 1].into(),
        1,
        &[8, 0, 0xf7, 0xff, 0, 0, 0, 0],
    );
    machine.process().write(tun, &ping).unwrap();
    assert!(machine.destinations(tun).is_empty());
}

/// A machine with a tunnel `tun0` that takes everything, over an outer network at `tun1`.
fn vpn() -> (Machine, Fd, Fd) {
    let machine = Machine::new();
    machine.set(RM, "default dev eth0\n").unwrap();
    let outer = machine.tunnel(1, "10.1.0.1/24");
    let inner = machine.tunnel(0, "10.8.0.1/24");
    machine.set(ADD, "default via 10.1.0.254\n").unwrap();
    machine
        .set(ADD, "default dev tun0\n0.0.0.0/1 dev tun0\n")
        .unwrap();
    machine.sent(outer);
    (machine, inner, outer)
}

#[test]
fn a_socket_bypasses_an_interface_whatever_the_routes() {
    let (machine, inner, outer) = vpn();
    let libc = &machine.libc;
    let fresh = libc.socket("udp");
    machine.bypass(fresh, "tun0").unwrap();
    // It is kept through bind and connect.
    let socket = libc.bind(fresh, "0.0.0.0:0").unwrap();
    machine.send(socket, "9.9.9.9:9").unwrap();
    let connected = libc.0.dup_verb(socket, b"9.9.9.8:9").unwrap();
    libc.0.write(connected, b"x").unwrap();
    assert!(libc.sockname(connected).starts_with("10.1.0.1:"));
    assert_eq!(machine.destinations(outer), ["9.9.9.9", "9.9.9.8"]);
    assert!(machine.destinations(inner).is_empty());
    // Nobody else's packets go around.
    let other = libc.bind(libc.socket("udp"), "0.0.0.0:0").unwrap();
    machine.send(other, "9.9.9.9:9").unwrap();
    assert_eq!(machine.destinations(inner), ["9.9.9.9"]);
    // Routes are as they are at the moment of each packet.
    machine.set(RM, "default via 10.1.0.254\n").unwrap();
    assert_eq!(libc.0.write(connected, b"x"), Err(errno::ENETUNREACH));
    machine
        .set(ADD, "9.9.0.0/16 dev tun1\n9.9.9.0/24 dev tun0\n")
        .unwrap();
    libc.0.write(connected, b"x").unwrap();
    assert_eq!(machine.destinations(outer), ["9.9.9.8"]);
    machine.set("ifaces/tun1/flags", "down\n").unwrap();
    assert_eq!(libc.0.write(connected, b"x"), Err(errno::ENETDOWN));
    machine.set("ifaces/tun1/flags", "up\n").unwrap();
    // Groups, and the network of the bypassed interface itself.
    machine.send(socket, "239.1.2.3:9").unwrap();
    assert_eq!(machine.send(socket, "10.8.0.9:9"), Err(errno::ENETUNREACH));
    assert!(machine.destinations(inner).is_empty());
    // Cleared, it sends as everybody does.
    machine.bypass(connected, "").unwrap();
    libc.0.write(connected, b"x").unwrap();
    assert_eq!(machine.destinations(inner), ["9.9.9.8"]);
}

#[test]
fn a_connection_bypasses_too() {
    let (machine, inner, outer) = vpn();
    let libc = &machine.libc;
    let stream = libc.socket("tcp");
    libc.0.set_nonblocking(stream, true).unwrap();
    machine.bypass(stream, "tun0").unwrap();
    let begun = libc.0.dup_verb(stream, b"9.9.9.9:80");
    assert_eq!(begun, Err(errno::EINPROGRESS));
    assert_eq!(machine.destinations(outer), ["9.9.9.9"]);
    assert!(libc.sockname(stream).starts_with("10.1.0.1:"));
    // One that is under way changes over.
    machine.bypass(stream, "tun1").unwrap();
    machine.wire.wait(1100);
    assert_eq!(machine.destinations(inner), ["9.9.9.9"]);
    assert!(machine.destinations(outer).is_empty());
    machine.bypass(stream, "tun0").unwrap();
    machine.wire.wait(2200);
    assert_eq!(machine.destinations(outer), ["9.9.9.9"]);
    // A listener's answers do, however the question came.
    let listener = libc.bind(libc.socket("tcp"), "0.0.0.0:81").unwrap();
    machine.bypass(listener, "tun0").unwrap();
    let head = [
        0, 9, 0, 81, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 16, 0, 0, 0, 0, 0,
    ];
    let (src, dst) = ([9, 9, 9, 9], [10, 8, 0, 1]);
    let sum = common::packet::checksum(&[&src, &dst, &[0, 6, 0, 20], &head]);
    let mut syn = head.to_vec();
    syn[16..18].copy_from_slice(&sum.to_be_bytes());
    libc.0
        .write(inner, &ipv4(src.into(), dst.into(), 6, &syn))
        .unwrap();
    assert_eq!(machine.destinations(outer), ["9.9.9.9"]);
    assert!(machine.destinations(inner).is_empty());
}

#[test]
fn a_bypass_needs_no_interface_and_is_the_superusers() {
    let (machine, inner, outer) = vpn();
    let libc = &machine.libc;
    let socket = libc.bind(libc.socket("udp"), "0.0.0.0:0").unwrap();
    machine.bypass(socket, "tun2").unwrap();
    machine.send(socket, "9.9.9.9:9").unwrap();
    assert_eq!(machine.destinations(inner), ["9.9.9.9"]);
    let late = machine.tunnel(2, "10.2.0.1/24");
    machine.set(ADD, "9.9.9.9/32 dev tun2\n").unwrap();
    machine.send(socket, "9.9.9.9:9").unwrap();
    assert_eq!(machine.destinations(inner), ["9.9.9.9"]);
    assert!(machine.destinations(late).is_empty() && machine.destinations(outer).is_empty());

    let user = machine.wire.local.process(7, 1000);
    for scheme in ["udp", "tcp"] {
        let theirs = user.open(&format!("/scheme/{scheme}"), BOTH).unwrap();
        assert_eq!(bypass(&user, theirs, "tun0"), Err(errno::EPERM));
        let ours = libc.socket(scheme);
        for request in TUNSBYPASS {
            let ioctl = |arg: &mut [u8]| libc.0.ioctl(ours, request, arg);
            assert_eq!(ioctl(&mut padded("tun0")), Ok(()));
            for bad in [
                &[b'x'; 16][..],
                b"tun0\0tun1\0\0\0\0\0\0\0",
                b"\0tun0\0\0\0\0\0\0\0\0\0\0\0",
            ] {
                assert_eq!(ioctl(&mut bad.to_vec()), Err(errno::EINVAL), "{bad:?}");
            }
            assert_eq!(ioctl(&mut padded("tun 0")), Err(errno::EINVAL));
            // As a call, which is how it travels on Redox.
            let words = [request.into()];
            let call = |arg: &mut [u8]| libc.0.sys_call(ours, arg, &words);
            assert_eq!(call(&mut padded("tun0")), Ok(0));
            assert_eq!(call(&mut [0; 15]), Err(errno::EINVAL));
            assert_eq!(call(&mut []), Err(errno::EINVAL));
        }
    }
    // Other files do not have it.
    for path in ["tun/9", "icmp/echo/10.8.0.2", "netcfg/route/list"] {
        let flags = if path.starts_with("netcfg") {
            OpenFlags::READ
        } else {
            BOTH
        };
        let file = libc.0.open(&format!("/scheme/{path}"), flags).unwrap();
        assert_eq!(bypass(&libc.0, file, "tun0"), Err(errno::ENOTTY), "{path}");
    }
}

#[test]
fn where_packets_go_can_be_asked() {
    let machine = Machine::new();
    let _tun = machine.tunnel(0, "10.8.0.1/24");
    machine.set("ifaces/tun0/addr/add", "fd00::1/64\n").unwrap();
    machine.set(ADD, "10.9.0.0/16 dev tun0 metric 5\n").unwrap();
    machine
        .set(ADD, "fd09::/16 via fd00::2 src fd00::1\n")
        .unwrap();
    let user = machine.wire.local.process(7, 1000);
    for (dst, line) in [
        ("10.8.0.9", "10.8.0.0/24 dev tun0 src 10.8.0.1"),
        ("10.9.0.9", "10.9.0.0/16 dev tun0 src 10.8.0.1 metric 5"),
        ("9.9.9.9", "default via 10.0.0.254 dev eth0 src 10.0.0.1"),
        ("fd09::1", "fd09::/16 via fd00::2 dev tun0 src fd00::1"),
        ("10.8.0.1", "local 10.8.0.1 dev tun0"),
        ("127.0.0.1", "local 127.0.0.1 dev lo0"),
        ("127.9.9.9", "local 127.9.9.9 dev lo0"),
        ("::1", "local ::1 dev lo0"),
        ("239.1.2.3", "multicast 239.1.2.3 dev eth0 src 10.0.0.1"),
        (
            "255.255.255.255",
            "broadcast 255.255.255.255 dev eth0 src 10.0.0.1",
        ),
    ] {
        assert_eq!(machine.lookup(dst).as_deref(), Ok(line));
        assert_eq!(lookup(&user, dst).as_deref(), Ok(line));
    }
    machine.set(ADD, "239.0.0.0/8 dev tun0\n").unwrap();
    let group = machine.lookup("239.1.2.3").unwrap();
    assert_eq!(group, "multicast 239.1.2.3 dev tun0 src 10.8.0.1");
    assert_eq!(machine.lookup("2001:db8::1"), Err(errno::ENETUNREACH));
    assert_eq!(machine.lookup("0.0.0.0"), Err(errno::ENETUNREACH));
    machine.set("ifaces/tun0/flags", "down\n").unwrap();
    assert_eq!(machine.lookup("10.9.0.9"), Err(errno::ENETDOWN));
    for bad in [
        "",
        "x",
        "10.8.0.0/24",
        "10.8.0.1 10.8.0.2",
        "10.8.0.1\n10.8.0.2",
    ] {
        assert_eq!(machine.lookup(bad), Err(errno::EINVAL), "{bad:?}");
    }

    // One open file answers many questions, each whole, from wherever it is read.
    let file = user.open("/scheme/netcfg/route/lookup", BOTH).unwrap();
    let mut buf = [0; 100];
    assert_eq!(user.read(file, &mut buf), Ok(0));
    for dst in ["10.8.0.1", "127.0.0.1"] {
        user.write(file, dst.as_bytes()).unwrap();
        let (mut answer, mut part) = (Vec::new(), [0; 7]);
        while let Ok(len @ 1..) = user.read(file, &mut part) {
            answer.extend_from_slice(&part[..len]);
        }
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with(&format!("local {dst} dev ")), "{answer}");
    }
    assert_eq!(user.write(file, b"x"), Err(errno::EINVAL));
    assert_eq!(user.read(file, &mut buf), Ok(0));
    assert_eq!(user.write(file, &[0xff, 0xfe]), Err(errno::EINVAL));
}

struct Events<'a>(&'a Process<net::Host>, Fd);

impl<'a> Events<'a> {
    fn of(process: &'a Process<net::Host>, interface: &str) -> Self {
        let path = format!("/scheme/netcfg/ifaces/{interface}/events");
        let file = process.open(&path, OpenFlags::READ).unwrap();
        process.set_nonblocking(file, true).unwrap();
        Self(process, file)
    }

    /// What there is to read now.
    fn read(&self) -> String {
        let mut text = String::new();
        let mut buf = [0; 300];
        loop {
            match self.0.read(self.1, &mut buf) {
                Ok(0) => return text + "<end>",
                Ok(len) => {
                    assert_eq!(buf[len - 1], b'\n', "whole lines");
                    text.push_str(std::str::from_utf8(&buf[..len]).unwrap());
                }
                Err(error) => {
                    assert_eq!(error, errno::EAGAIN);
                    return text;
                }
            }
        }
    }

    fn is_ready(&self) -> bool {
        let ready = self.0.poll(&[(self.1, Ready::READ)], Some(Duration::ZERO));
        ready.unwrap()[0].contains(Ready::READ)
    }
}

#[test]
fn what_changes_at_an_interface_is_told() {
    let machine = Machine::new();
    let process = machine.process();
    let tun = process.open("/scheme/tun/0", BOTH).unwrap();
    let user = machine.wire.local.process(7, 1000);
    let (events, theirs) = (Events::of(process, "tun0"), Events::of(&user, "tun0"));
    assert!(!events.is_ready() && events.read().is_empty());
    let set = |file: &str, line: &str| machine.set(&format!("ifaces/tun0/{file}"), line);
    set("addr/set", "10.8.0.1/24\n").unwrap();
    assert!(events.is_ready());
    assert_eq!(events.read(), "addr add 10.8.0.1/24\nup\nrunning\n");
    assert!(!events.is_ready());
    set("mtu", "1400\n").unwrap();
    set("mtu", "1500\n").unwrap();
    set("addr/set", "10.8.0.1 peer 10.8.0.2\n").unwrap();
    let lines = "mtu 1400\nmtu 1500\naddr rm 10.8.0.1/24\naddr add 10.8.0.1 peer 10.8.0.2\n";
    assert_eq!(events.read(), lines);
    set("flags", "down\n").unwrap();
    set("flags", "up\n").unwrap();
    assert_eq!(events.read(), "down\nup\n");
    // Neither what is refused, nor what happens at others, nor what changes nothing.
    assert_eq!(set("mtu", "1400\nx\n"), Err(errno::EINVAL));
    assert_eq!(set("addr/add", "10.8.0.7/24\nx\n"), Err(errno::EINVAL));
    set("mtu", "1500\n").unwrap();
    let _other = machine.tunnel(1, "10.9.0.1/24");
    assert_eq!((events.read(), events.is_ready()), (String::new(), false));
    // By the ioctl, too, and by the last close.
    process
        .ioctl(tun, 0x8008_745b, &mut [0, 0, 0, 0, 0x14, 5, 0x17, 0])
        .unwrap();
    assert_eq!(events.read(), "mtu 1300\n");
    process.close(tun).unwrap();
    assert_eq!(events.read(), "down\nstopped\n");
    set("destroy", "1\n").unwrap();
    assert!(events.is_ready());
    let gone = "addr rm 10.8.0.1 peer 10.8.0.2\ndestroyed\n<end>";
    assert_eq!(events.read(), gone);
    assert!(events.is_ready(), "its end");
    // The other reader has heard the same, in order, and not of the next interface of that name.
    let _next = machine.tunnel(0, "10.8.9.1/24");
    let all = theirs.read();
    assert!(
        all.starts_with("addr add 10.8.0.1/24\nup\nrunning\nmtu 1400\n"),
        "{all}"
    );
    assert!(all.ends_with(gone), "{all}");
    assert_eq!(
        process.open("/scheme/netcfg/ifaces/tun0/events", BOTH),
        Err(errno::EACCES)
    );
}

#[test]
fn a_reader_waits_for_what_changes() {
    let machine = Machine::new();
    let tun = machine.tunnel(0, "10.8.0.1/24");
    let process = machine.process();
    let waiter = machine.wire.local.process(8, 0);
    let file = waiter
        .open("/scheme/netcfg/ifaces/tun0/events", OpenFlags::READ)
        .unwrap();
    let wait = std::thread::spawn(move || {
        let mut buf = [0; 100];
        let len = waiter.read(file, &mut buf).unwrap();
        String::from_utf8(buf[..len].to_vec()).unwrap()
    });
    process
        .ioctl(tun, 0x8004_7462, &mut 1_i32.to_ne_bytes())
        .unwrap();
    process.close(tun).unwrap();
    let gone = "down\nstopped\naddr rm 10.8.0.1/24\ndestroyed\n";
    assert_eq!(wait.join().unwrap(), gone);
}

#[test]
fn a_reader_that_is_slow_hears_that_lines_were_lost() {
    let machine = Machine::new();
    let _tun = machine.tunnel(0, "10.8.0.1/24");
    let events = Events::of(machine.process(), "tun0");
    let mtus = |count: usize| {
        for mtu in 0..count {
            let line = format!("{}\n", 1400 + mtu % 100);
            machine.set("ifaces/tun0/mtu", &line).unwrap();
        }
    };
    mtus(8000);
    let text = events.read();
    assert!(
        text.len() <= (64 << 10) + 5 && text.len() > 65_000,
        "{}",
        text.len()
    );
    assert!(text.ends_with("\nlost\n") && text.matches("lost").count() == 1);
    mtus(2);
    assert_eq!(events.read(), "mtu 1400\nmtu 1401\n");
    assert_eq!(machine.process().read(events.1, &mut []), Ok(0));
    mtus(1);
    let short = machine.process().read(events.1, &mut [0; 3]);
    assert_eq!(short, Err(errno::EINVAL));
    assert_eq!(events.read(), "mtu 1400\n");
}

//! An Ethernet adapter that is not there: frames by hand, time by hand.
#![allow(missing_docs)]

mod common;

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use common::packet::{self, echo_request, payload_v4, udp};
use common::system::TestProcesses;
use scheme::local::{Local, ManualClock, Process};
use scheme::{OpenFlags, errno};
use tund::link::{Mac, PortId};
use tund::{Config, Net, Services};

const US: Mac = Mac([2, 0, 0, 0, 0, 1]);
const PEER: Mac = Mac([2, 0, 0, 0, 0, 2]);
const EVERYBODY: [u8; 6] = [0xff; 6];
const BOTH: OpenFlags = OpenFlags::READ.union(OpenFlags::WRITE);

struct Wire {
    local: Arc<Local<Net>>,
    process: Process<Net>,
    clock: Arc<ManualClock>,
    port: PortId,
}

impl Wire {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::default());
        let config = Config {
            seed: 5,
            services: Services::ECHO,
        };
        let local = Local::with_clock(Net::new(config, TestProcesses), Arc::clone(&clock));
        let port = local.with_server(|net| net.attach_ethernet(US)).unwrap();
        let process = local.process(1, 0);
        Self {
            local,
            process,
            clock,
            port,
        }
    }

    fn set(&self, path: &str, line: &str) -> Result<(), errno::Errno> {
        let file = self
            .process
            .open(&format!("/scheme/netcfg/{path}"), OpenFlags::WRITE)?;
        let written = self.process.write(file, line.as_bytes()).map(drop);
        self.process.close(file)?;
        written
    }

    fn text(&self, path: &str) -> String {
        let file = self
            .process
            .open(&format!("/scheme/netcfg/{path}"), OpenFlags::READ)
            .unwrap();
        let mut text = vec![0; 8192];
        let len = self.process.read(file, &mut text).unwrap();
        self.process.close(file).unwrap();
        String::from_utf8(text[..len].to_vec()).unwrap()
    }

    fn send(&self, dst: [u8; 6], ethertype: u16, payload: &[u8]) {
        let frame = [&dst[..], &PEER.0, &ethertype.to_be_bytes(), payload].concat();
        self.local
            .with_server(|net| net.handle_frame(self.port, &frame));
        self.local.pump();
    }

    /// The next frame we sent: where to, what, and its payload.
    fn sent(&self) -> Option<([u8; 6], u16, Vec<u8>)> {
        let frame = self.local.with_server(|net| net.poll_frame(self.port))?;
        assert_eq!(frame[6..12], US.0);
        let ethertype = u16::from_be_bytes([frame[12], frame[13]]);
        Some((
            frame[..6].try_into().unwrap(),
            ethertype,
            frame[14..].to_vec(),
        ))
    }

    fn wait(&self, millis: u64) {
        self.clock.advance(Duration::from_millis(millis));
        self.local.pump();
    }

    fn arp(&self, operation: u8, source: [u8; 4], target: [u8; 4]) -> Vec<u8> {
        let head = [0, 1, 8, 0, 6, 4, 0, operation];
        [&head[..], &PEER.0, &source, &[0; 6], &target].concat()
    }

    fn assert_ledger_closes(&self) {
        self.local.with_server(|net| {
            let ifp = net.interface("eth0").unwrap();
            assert!(ifp.stats.input().closes(), "{:?}", ifp.stats.input());
            assert!(ifp.stats.output().closes(), "{:?}", ifp.stats.output());
        });
    }
}

fn ping() -> Vec<u8> {
    echo_request("10.0.0.2", "10.0.0.1", 1, b"data")
}

#[test]
fn it_is_there_from_the_start() {
    let wire = Wire::new();
    assert_eq!(wire.text("ifaces/eth0/mac"), "02-00-00-00-00-01\n");
    assert_eq!(
        wire.text("ifaces/eth0/flags"),
        "UP,BROADCAST,RUNNING,MULTICAST\n"
    );
    assert_eq!(wire.text("ifaces/eth0/addr/list"), "fe80::ff:fe00:1/64\n");
    wire.set("ifaces/eth0/addr/set", "10.0.0.1/24\n").unwrap();
    assert_eq!(
        wire.text("ifaces/eth0/addr/list"),
        "fe80::ff:fe00:1/64\n10.0.0.1/24\n"
    );
    wire.set("ifaces/eth0/mac", "02:00:00:00:00:09\n").unwrap();
    assert_eq!(wire.text("ifaces/eth0/mac"), "02-00-00-00-00-09\n");
    assert_eq!(
        wire.text("ifaces/eth0/addr/list"),
        "10.0.0.1/24\nfe80::ff:fe00:9/64\n"
    );
    assert_eq!(
        wire.set("ifaces/lo0/mac", "02:00:00:00:00:09\n"),
        Err(errno::EINVAL)
    );
    wire.local.with_server(|net| net.detach_ethernet(wire.port));
    assert!(
        wire.process
            .open("/scheme/netcfg/ifaces/eth0/mac", OpenFlags::READ)
            .is_err()
    );
}

#[test]
fn who_asks_for_us_gets_an_answer_and_is_noted() {
    let wire = Wire::new();
    wire.set("ifaces/eth0/addr/set", "10.0.0.1/24\n").unwrap();
    wire.send(
        EVERYBODY,
        0x0806,
        &wire.arp(1, [10, 0, 0, 2], [10, 0, 0, 1]),
    );
    let (dst, ethertype, arp) = wire.sent().unwrap();
    assert_eq!((dst, ethertype), (PEER.0, 0x0806));
    assert_eq!(arp[6..8], [0, 2]);
    assert_eq!(arp[8..14], US.0);
    assert_eq!(arp[14..18], [10, 0, 0, 1]);
    // Not asked again: the answer to the ping goes straight there.
    wire.send(US.0, 0x0800, &ping());
    let (dst, ethertype, reply) = wire.sent().unwrap();
    assert_eq!((dst, ethertype), (PEER.0, 0x0800));
    assert_eq!(payload_v4(&reply)[0], 0);
    // For others nobody answers.
    wire.send(
        EVERYBODY,
        0x0806,
        &wire.arp(1, [10, 0, 0, 2], [10, 0, 0, 3]),
    );
    assert_eq!(wire.sent(), None);
    wire.assert_ledger_closes();
}

#[test]
fn packets_wait_for_the_answer() {
    let wire = Wire::new();
    wire.set("ifaces/eth0/addr/set", "10.0.0.1/24\n").unwrap();
    for _ in 0..3 {
        wire.send(US.0, 0x0800, &ping());
    }
    let (dst, ethertype, arp) = wire.sent().unwrap();
    assert_eq!((dst, ethertype), (EVERYBODY, 0x0806));
    assert_eq!(arp[24..28], [10, 0, 0, 2]);
    assert_eq!(wire.sent(), None);
    wire.assert_ledger_closes();
    wire.send(US.0, 0x0806, &wire.arp(2, [10, 0, 0, 2], [10, 0, 0, 1]));
    for _ in 0..3 {
        let (dst, ethertype, _) = wire.sent().unwrap();
        assert_eq!((dst, ethertype), (PEER.0, 0x0800));
    }
    wire.assert_ledger_closes();
}

#[test]
fn who_does_not_answer_is_unreachable() {
    let wire = Wire::new();
    wire.set("ifaces/eth0/addr/set", "10.0.0.1/24\n").unwrap();
    let socket = wire.process.open("/scheme/udp", BOTH).unwrap();
    let socket = wire.process.dup_verb(socket, b"10.0.0.2:9").unwrap();
    wire.process.set_nonblocking(socket, true).unwrap();
    wire.process.write(socket, b"anybody?").unwrap();
    for _ in 0..3 {
        assert_eq!(wire.sent().unwrap().1, 0x0806);
        assert_eq!(wire.sent(), None);
        wire.wait(1000);
    }
    assert_eq!(wire.sent(), None);
    wire.assert_ledger_closes();
    let stats = wire.text("ifaces/eth0/stats");
    assert!(stats.contains("drop.no_neighbor 1\n"), "{stats}");
}

#[test]
fn neighbour_discovery() {
    let wire = Wire::new();
    wire.set("ifaces/eth0/addr/add", "fd00::1/64\n").unwrap();
    let us: Ipv6Addr = "fd00::1".parse().unwrap();
    let peer: Ipv6Addr = "fd00::2".parse().unwrap();
    let nd = |kind: u8, flags: u8, target: Ipv6Addr, option: u8, mac: Mac, dst: Ipv6Addr| {
        let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
        message.extend_from_slice(&target.octets());
        message.extend_from_slice(&[option, 1]);
        message.extend_from_slice(&mac.0);
        let pseudo = [
            &peer.octets()[..],
            &dst.octets(),
            &[0, 0, 0, 32, 0, 0, 0, 58],
        ]
        .concat();
        let sum = packet::checksum(&[&pseudo, &message]);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut packet = packet::ipv6(peer, dst, 58, &message);
        packet[7] = 255;
        packet
    };
    // Asked at the group of our address.
    let group: Ipv6Addr = "ff02::1:ff00:1".parse().unwrap();
    wire.send(
        [0x33, 0x33, 0xff, 0, 0, 1],
        0x86dd,
        &nd(135, 0, us, 1, PEER, group),
    );
    let (dst, ethertype, advert) = wire.sent().unwrap();
    assert_eq!((dst, ethertype), (PEER.0, 0x86dd));
    assert_eq!((advert[40], advert[44]), (136, 0x60));
    assert_eq!(advert[48..64], us.octets());
    assert_eq!(advert[66..72], US.0);
    wire.assert_ledger_closes();

    // And the other way: a ping waits until the peer says where it is.
    let other: Ipv6Addr = "fd00::3".parse().unwrap();
    let icmp = wire
        .process
        .open("/scheme/icmp/echo/fd00::3", BOTH)
        .unwrap();
    wire.process.write(icmp, &[0, 1, 9, 9]).unwrap();
    let (dst, _, solicit) = wire.sent().unwrap();
    assert_eq!(dst, [0x33, 0x33, 0xff, 0, 0, 3]);
    assert_eq!((solicit[7], solicit[40]), (255, 135));
    wire.send(US.0, 0x86dd, &nd(136, 0x60, other, 2, PEER, us));
    let (dst, _, request) = wire.sent().unwrap();
    assert_eq!((dst, request[40]), (PEER.0, 128));
    // What comes from beyond the link is not believed.
    let mut forged = nd(136, 0x60, other, 2, Mac([2, 9, 9, 9, 9, 9]), us);
    forged[7] = 254;
    wire.send(US.0, 0x86dd, &forged);
    wire.process.write(icmp, &[0, 2, 9, 9]).unwrap();
    assert_eq!(wire.sent().unwrap().0, PEER.0);
    wire.assert_ledger_closes();
}

#[test]
fn dhcp_without_an_address() {
    let wire = Wire::new();
    // As dhcpd does it: bind, connect to everybody, send, receive from whoever answers.
    let socket = wire.process.open("/scheme/udp", BOTH).unwrap();
    let bound = wire.process.dup_verb(socket, b"/0.0.0.0:68").unwrap();
    wire.process.close(socket).unwrap();
    let client = wire.process.dup_verb(bound, b"255.255.255.255:67").unwrap();
    wire.process.close(bound).unwrap();
    wire.process.write(client, &[1; 548]).unwrap();
    let (dst, ethertype, discover) = wire.sent().unwrap();
    assert_eq!((dst, ethertype), (EVERYBODY, 0x0800));
    assert_eq!(discover[12..20], [0, 0, 0, 0, 255, 255, 255, 255]);
    // The offer comes to everybody, or to the address that it offers.
    let mut read = [0; 1000];
    for to in ["255.255.255.255", "10.0.0.1"] {
        let offer = udp(("10.0.0.254", 67), (to, 68), &[2; 300]);
        wire.send(
            if to == "10.0.0.1" { US.0 } else { EVERYBODY },
            0x0800,
            &offer,
        );
        assert_eq!(wire.process.read(client, &mut read), Ok(300));
    }
    let file = wire
        .process
        .open("/scheme/netcfg/ifaces/eth0/addr/set", OpenFlags::WRITE)
        .unwrap();
    wire.process.write(file, b"10.0.0.1/24\n").unwrap();
    assert_eq!(wire.process.sync(file), Ok(()));
    wire.process.close(file).unwrap();
    for _ in 0..2 {
        let file = wire
            .process
            .open("/scheme/netcfg/route/add", OpenFlags::WRITE)
            .unwrap();
        wire.process.write(file, b"default via 10.0.0.254").unwrap();
        assert_eq!(wire.process.sync(file), Ok(()));
        wire.process.close(file).unwrap();
    }
    assert!(
        wire.text("route/list")
            .starts_with("default via 10.0.0.254 dev eth0\n")
    );
    wire.process.write(client, &[1; 548]).unwrap();
    let (dst, _, request) = wire.sent().unwrap();
    assert_eq!(dst, EVERYBODY);
    assert_eq!(request[12..16], [10, 0, 0, 1]);
    // Beyond the link: to the router.
    let icmp = wire
        .process
        .open("/scheme/icmp/echo/8.8.8.8", BOTH)
        .unwrap();
    wire.process.write(icmp, &[0, 1]).unwrap();
    let (_, ethertype, arp) = wire.sent().unwrap();
    assert_eq!((ethertype, &arp[24..28]), (0x0806, &[10, 0, 0, 254][..]));
    wire.assert_ledger_closes();
}

#[test]
fn frames_of_any_kind_are_counted() {
    let wire = Wire::new();
    wire.set("ifaces/eth0/addr/set", "10.0.0.1/24\n").unwrap();
    wire.send([2, 9, 9, 9, 9, 9], 0x0800, &ping());
    wire.send(US.0, 0x9999, b"what?");
    wire.send(US.0, 0x0806, b"short");
    wire.local
        .with_server(|net| net.handle_frame(wire.port, &[1, 2, 3]));
    // Somebody with our address, or with everybody's.
    wire.send(US.0, 0x0806, &wire.arp(2, [10, 0, 0, 1], [10, 0, 0, 1]));
    wire.send(
        US.0,
        0x0800,
        &udp(("10.0.0.1", 5), ("10.0.0.1", 7), b"spoofed"),
    );
    assert_eq!(wire.sent(), None);
    let stats = wire.text("ifaces/eth0/stats");
    for line in [
        "drop.not_for_us 1",
        "drop.unknown_family 1",
        "drop.malformed 2",
        "drop.bad_source 1",
    ] {
        assert!(stats.contains(&format!("{line}\n")), "{line} in {stats}");
    }
    wire.assert_ledger_closes();
}

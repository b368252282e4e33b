//! What a host knows of its link besides what it asks: connections that show that a neighbour is
//! there, and routers that know a better one. Frames, segments and time are made by hand.
#![allow(missing_docs)]

mod common;

use std::net::Ipv6Addr;

use common::packet::{self, echo_request, icmpv6, ipv4, payload_v4, tcp, udp};
use common::wire::{EVERYBODY, PEER, US, Wire};
use net::link::Mac;
use scheme::local::Fd;
use scheme::{OpenFlags, errno};

const BOTH: OpenFlags = OpenFlags::READ.union(OpenFlags::WRITE);
const SYN: u8 = 2;
const ACK: u8 = 0x10;
const PUSH: u8 = 8;

/// A connection of ours to port 80 of a host, of which the test plays both the neighbour that leads
/// there and the other end.
struct Stream<'a> {
    wire: &'a Wire,
    file: Fd,
    host: &'static str,
    port: u16,
    /// What the other end has of ours, exclusive.
    heard: u32,
}

impl<'a> Stream<'a> {
    fn connect(wire: &'a Wire, host: &'static str) -> Self {
        let socket = wire.process.open("/scheme/tcp", BOTH).unwrap();
        wire.process.set_nonblocking(socket, true).unwrap();
        let name = format!("{host}:80");
        let begun = wire.process.dup_verb(socket, name.as_bytes());
        assert_eq!(begun, Err(errno::EINPROGRESS));
        let (_, _, syn) = wire.sent().unwrap();
        let syn = payload_v4(&syn);
        let mut stream = Self {
            wire,
            file: socket,
            host,
            port: u16::from_be_bytes([syn[0], syn[1]]),
            heard: number(syn) + 1,
        };
        stream.answer(SYN | ACK, 7);
        stream.file = wire.process.dup_verb(socket, name.as_bytes()).unwrap();
        while wire.sent().is_some() {}
        stream
    }

    /// The other end sends a segment without text.
    fn answer(&self, flags: u8, seq: u32) {
        let (from, to) = ((self.host, 80), ("10.0.0.1", self.port));
        let segment = tcp(from, to, flags, [seq, self.heard]);
        self.wire.send(US.0, 0x0800, &segment);
    }

    /// The program sends a byte. Returns the station that the segment went to.
    fn send(&mut self) -> [u8; 6] {
        assert_eq!(self.wire.process.write(self.file, b"x"), Ok(1));
        let (dst, ethertype, segment) = self.wire.sent().unwrap();
        assert_eq!(ethertype, 0x0800);
        let segment = payload_v4(&segment);
        assert_eq!((segment[13], number(segment)), (ACK | PUSH, self.heard));
        self.heard += 1;
        dst
    }
}

/// The sequence number of a segment.
fn number(segment: &[u8]) -> u32 {
    u32::from_be_bytes(*segment[4..].first_chunk().unwrap())
}

/// An adapter with 10.0.0.1, whose peer just answered that it has 10.0.0.2.
fn resolved() -> Wire {
    let wire = Wire::new();
    wire.take_address();
    // Nobody asks for routers meanwhile.
    wire.set("ifaces/eth0/autoconf", "0\n").unwrap();
    wire.send(US.0, 0x0800, &echo_request("10.0.0.2", "10.0.0.1", 1, b""));
    assert_eq!(wire.sent().unwrap().1, 0x0806);
    let answer = wire.arp(2, [10, 0, 0, 2], [10, 0, 0, 1]);
    wire.send(US.0, 0x0806, &answer);
    assert_eq!(wire.sent().unwrap().1, 0x0800);
    wire
}

/// The questions that were sent, and to whom.
fn questions(wire: &Wire) -> Vec<[u8; 6]> {
    let frames = std::iter::from_fn(|| wire.sent());
    let asked = frames.filter(|(_, ethertype, arp)| (*ethertype, arp[7]) == (0x0806, 1));
    asked.map(|(dst, ..)| dst).collect()
}

/// RFC 4861 section 7.3.1.
#[test]
fn a_neighbour_that_a_connection_talks_with_is_not_asked() {
    let wire = resolved();
    let mut stream = Stream::connect(&wire, "10.0.0.2");
    for _ in 0..300 {
        wire.wait(1000);
        assert_eq!(stream.send(), PEER.0);
        stream.answer(ACK, 8);
        assert_eq!(questions(&wire), [[0; 6]; 0]);
    }
    // Nor for some time after. Then it is, when it is used.
    wire.wait(14_000);
    stream.send();
    wire.wait(100);
    stream.answer(ACK, 8);
    wire.wait(6000);
    assert_eq!(questions(&wire), [[0; 6]; 0]);
    wire.wait(60_000);
    stream.send();
    wire.wait(5000);
    assert_eq!(questions(&wire), [PEER.0]);
    // What is acknowledged while it is asked is an answer.
    stream.answer(ACK, 8);
    wire.wait(10_000);
    assert_eq!(questions(&wire), [[0; 6]; 0]);
    wire.assert_ledger_closes();
}

/// What anybody could forge, and what was sent long ago, is no proof.
#[test]
fn only_what_acknowledges_something_new_confirms() {
    for forged in [
        // Nothing new, what was never sent, from outside the window, without ACK.
        (ACK, 8, 0),
        (ACK, 8, 1000),
        (ACK, 8_000_000, 1),
        (0, 8, 1),
    ] {
        let wire = resolved();
        let mut stream = Stream::connect(&wire, "10.0.0.2");
        wire.wait(60_000);
        stream.send();
        let (flags, seq, more) = forged;
        stream.heard = stream.heard - 1 + more;
        for _ in 0..5 {
            stream.answer(flags, seq);
            wire.wait(1000);
        }
        assert_eq!(questions(&wire), [PEER.0], "{forged:?}");
        // It does not answer: it is given up, and asked for anew.
        for _ in 0..5 {
            wire.wait(1000);
            stream.answer(flags, seq);
        }
        assert!(questions(&wire).contains(&EVERYBODY), "{forged:?}");
    }
}

/// Over a router, it is the router that is there.
#[test]
fn a_connection_confirms_its_first_hop() {
    let wire = resolved();
    wire.set("route/add", "default via 10.0.0.2\n").unwrap();
    let mut stream = Stream::connect(&wire, "192.0.2.1");
    for _ in 0..100 {
        wire.wait(1000);
        assert_eq!(stream.send(), PEER.0);
        stream.answer(ACK, 8);
        assert_eq!(questions(&wire), [[0; 6]; 0]);
    }
    // What is acknowledged now went by this router, and says nothing of the next.
    stream.send();
    let (other, mac) = ([10, 0, 0, 3], Mac([2, 0, 0, 0, 0, 3]));
    let asks = [
        &[0, 1, 8, 0, 6, 4, 0, 1],
        &mac.0[..],
        &other,
        &[0; 6],
        &[10, 0, 0, 1],
    ]
    .concat();
    let frame = [&EVERYBODY[..], &mac.0, &[8, 6], &asks].concat();
    wire.local
        .with_server(|net| net.handle_frame(wire.port, &frame));
    wire.local.pump();
    assert_eq!(wire.sent().unwrap().0, mac.0);
    wire.set("route/add", "default via 10.0.0.3\n").unwrap();
    stream.heard += 1;
    assert_eq!(wire.process.write(stream.file, b"x"), Ok(1));
    stream.heard -= 1;
    stream.answer(ACK, 8);
    stream.heard += 1;
    while let Some((dst, ethertype, _)) = wire.sent() {
        assert_eq!((dst, ethertype), (mac.0, 0x0800));
    }
    wire.wait(5000);
    assert_eq!(questions(&wire), [mac.0]);
    stream.answer(ACK, 8);
    wire.wait(5000);
    assert_eq!(questions(&wire), [[0; 6]; 0]);
    wire.assert_ledger_closes();
}

/// A tunnel has no neighbours.
#[test]
fn connections_without_a_link_have_nothing_to_confirm() {
    let wire = resolved();
    let tun = common::program::tunnel(&wire.process, 0, "10.1.0.1/24");
    let syn = packet::tcp_syn(("10.1.0.2", 4000), ("10.1.0.1", 7), 100);
    wire.process.write(tun, &syn).unwrap();
    wire.wait(60_000);
    let mut buffer = [0; 2000];
    let len = wire.process.read(tun, &mut buffer).unwrap();
    let answer = payload_v4(&buffer[..len]);
    assert_eq!(answer[13], SYN | ACK);
    let ack = tcp(
        ("10.1.0.2", 4000),
        ("10.1.0.1", 7),
        ACK,
        [101, number(answer) + 1],
    );
    wire.process.write(tun, &ack).unwrap();
    wire.wait(0);
    // The neighbour on the link has the same addresses as ever, and is asked as ever.
    wire.send(US.0, 0x0800, &echo_request("10.0.0.2", "10.0.0.1", 1, b""));
    wire.wait(5000);
    assert_eq!(questions(&wire), [PEER.0]);
}

/// Another station of the link.
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 3]);

fn send_from(wire: &Wire, src: Mac, ethertype: u16, payload: &[u8]) {
    let frame = [&US.0[..], &src.0, &ethertype.to_be_bytes(), payload].concat();
    let handle = |net: &mut net::Host| net.handle_frame(wire.port, &frame);
    wire.local.with_server(handle);
    wire.local.pump();
}

fn refused(wire: &Wire) -> String {
    let stats = wire.text("ifaces/eth0/stats");
    let mut lines = stats.lines();
    let line = lines.find(|line| line.starts_with("drop.redirect_refused "));
    line.unwrap().to_owned()
}

/// An adapter whose default route is over the peer, and a socket that sends beyond.
struct Routed {
    wire: Wire,
    socket: Fd,
    /// The datagram that it sent last.
    last: Vec<u8>,
}

impl Routed {
    fn new() -> Self {
        let wire = resolved();
        wire.set("route/add", "default via 10.0.0.2\n").unwrap();
        let socket = wire.process.open("/scheme/udp", BOTH).unwrap();
        let socket = wire.process.dup_verb(socket, b"192.0.2.1:9").unwrap();
        let mut routed = Self {
            wire,
            socket,
            last: Vec::new(),
        };
        assert_eq!(routed.hop(), PEER.0);
        routed
    }

    /// Where a datagram goes, or who is asked for.
    fn hop(&mut self) -> [u8; 6] {
        assert_eq!(self.wire.process.write(self.socket, b"data"), Ok(4));
        let (dst, ethertype, packet) = self.wire.sent().unwrap();
        if ethertype == 0x0800 {
            self.last = packet;
        }
        dst
    }

    /// A redirect of a station to another, for the last datagram.
    fn redirect(&self, from: [u8; 4], to: [u8; 4]) {
        self.redirect_about(from, to, 1, &self.last);
    }

    fn redirect_about(&self, from: [u8; 4], to: [u8; 4], code: u8, quote: &[u8]) {
        let mut message = [&[5, code, 0, 0][..], &to, &quote[..quote.len().min(28)]].concat();
        let sum = packet::checksum(&[&message]);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let packet = ipv4(from.into(), [10, 0, 0, 1].into(), 1, &message);
        self.wire.send(US.0, 0x0800, &packet);
    }

    /// The other station answers that it has 10.0.0.3.
    fn resolve_other(&self) {
        let head = [0, 1, 8, 0, 6, 4, 0, 2];
        let (has, asked) = ([10, 0, 0, 3], [10, 0, 0, 1]);
        let answer = [&head[..], &OTHER.0, &has, &US.0, &asked].concat();
        send_from(&self.wire, OTHER, 0x0806, &answer);
    }

    /// The datagrams go by the other station, which the peer named.
    fn redirected(&mut self) {
        self.redirect([10, 0, 0, 2], [10, 0, 0, 3]);
        assert_eq!(self.hop(), EVERYBODY);
        self.resolve_other();
        assert_eq!(self.wire.sent().unwrap().0, OTHER.0);
        assert_eq!(self.hop(), OTHER.0);
    }

    fn lookup(&self, addr: &str) -> String {
        let path = "/scheme/netcfg/route/lookup";
        let file = self.wire.process.open(path, BOTH).unwrap();
        self.wire.process.write(file, addr.as_bytes()).unwrap();
        let mut line = [0; 200];
        let len = self.wire.process.read(file, &mut line).unwrap();
        self.wire.process.close(file).unwrap();
        String::from_utf8(line[..len].to_vec()).unwrap()
    }
}

#[test]
fn a_better_router_is_taken_for_one_destination() {
    let mut routed = Routed::new();
    let table = routed.wire.text("route/list");
    routed.redirected();
    let lookup = routed.lookup("192.0.2.1");
    assert!(
        lookup.starts_with("192.0.2.1/32 via 10.0.0.3 dev eth0 "),
        "{lookup}"
    );
    let lookup = routed.lookup("192.0.2.2");
    assert!(
        lookup.starts_with("default via 10.0.0.2 dev eth0 "),
        "{lookup}"
    );
    assert_eq!(routed.wire.text("route/list"), table);
    // The new one is the first hop now, and the old one is not.
    routed.redirect([10, 0, 0, 2], [10, 0, 0, 4]);
    assert_eq!(refused(&routed.wire), "drop.redirect_refused 1");
    assert_eq!(routed.hop(), OTHER.0);
    routed.redirect([10, 0, 0, 3], [10, 0, 0, 2]);
    assert_eq!(routed.hop(), PEER.0);
    // One for a network counts for the host.
    let quote = routed.last.clone();
    routed.redirect_about([10, 0, 0, 2], [10, 0, 0, 3], 0, &quote);
    assert_eq!(routed.hop(), OTHER.0);
    assert_eq!(refused(&routed.wire), "drop.redirect_refused 1");
    // The route is another: nobody said anything of that.
    routed.wire.set("route/rm", "default\n").unwrap();
    routed
        .wire
        .set("route/add", "default via 10.0.0.9\n")
        .unwrap();
    assert_eq!(routed.hop(), EVERYBODY);
    routed.wire.assert_ledger_closes();
}

#[test]
fn a_redirect_ends() {
    // With its time.
    let mut routed = Routed::new();
    routed.redirected();
    for _ in 0..599 {
        routed.wire.wait(1000);
        // Another's answers keep it resolved.
        routed.resolve_other();
        while routed.wire.sent().is_some() {}
    }
    assert!(routed.lookup("192.0.2.1").contains("via 10.0.0.3"));
    routed.wire.wait(1000);
    assert!(routed.lookup("192.0.2.1").contains("via 10.0.0.2"));
    // With its interface.
    let mut routed = Routed::new();
    routed.redirected();
    for line in ["down\n", "up\n"] {
        routed.wire.set("ifaces/eth0/flags", line).unwrap();
    }
    routed
        .wire
        .set("route/add", "default via 10.0.0.2\n")
        .unwrap();
    assert!(routed.lookup("192.0.2.1").contains("via 10.0.0.2"));
    // When this host begins to forward.
    let mut routed = Routed::new();
    routed.redirected();
    routed.wire.set("ip/forwarding", "1\n").unwrap();
    assert_eq!(routed.hop(), PEER.0);
    routed.wire.set("ip/forwarding", "0\n").unwrap();
    assert_eq!(routed.hop(), PEER.0);
    // When who was named does not answer.
    let mut routed = Routed::new();
    routed.redirect([10, 0, 0, 2], [10, 0, 0, 3]);
    assert_eq!(routed.hop(), EVERYBODY);
    for _ in 0..3 {
        while routed.wire.sent().is_some() {}
        assert!(routed.lookup("192.0.2.1").contains("via 10.0.0.3"));
        routed.wire.wait(1000);
    }
    assert_eq!(routed.hop(), PEER.0);
    routed.wire.assert_ledger_closes();
}

#[test]
fn a_redirect_that_is_not_to_be_believed() {
    let mut routed = Routed::new();
    let ours = routed.last.clone();
    let quote = |src, dst, data: &[u8]| udp(src, dst, data);
    let cases: [([u8; 4], [u8; 4], Vec<u8>); 9] = [
        // From a station that is not the first hop; to one on another network, to us, to the
        // broadcast address, to a group, to itself.
        ([10, 0, 0, 4], [10, 0, 0, 3], ours.clone()),
        ([10, 0, 0, 2], [10, 0, 1, 3], ours.clone()),
        ([10, 0, 0, 2], [10, 0, 0, 1], ours.clone()),
        ([10, 0, 0, 2], [10, 0, 0, 255], ours.clone()),
        ([10, 0, 0, 2], [224, 0, 0, 1], ours.clone()),
        ([10, 0, 0, 2], [0, 0, 0, 0], ours),
        // About what was not sent: from another port, to another port, to a neighbour.
        (
            [10, 0, 0, 2],
            [10, 0, 0, 3],
            quote(("10.0.0.1", 5), ("192.0.2.1", 9), b""),
        ),
        (
            [10, 0, 0, 2],
            [10, 0, 0, 3],
            quote(("10.0.0.1", 4000), ("192.0.2.1", 10), b""),
        ),
        (
            [10, 0, 0, 2],
            [10, 0, 0, 3],
            quote(("10.0.0.1", 4000), ("10.0.0.2", 9), b""),
        ),
    ];
    for (at, (from, to, quote)) in cases.iter().enumerate() {
        routed.redirect_about(*from, *to, 1, quote);
        let expected = format!("drop.redirect_refused {}", at + 1);
        assert_eq!(refused(&routed.wire), expected, "{from:?} {to:?}");
        assert_eq!(routed.hop(), PEER.0, "{from:?} {to:?}");
    }
    // Of a code that does not exist, or cut short: no redirect at all.
    let quote = routed.last.clone();
    routed.redirect_about([10, 0, 0, 2], [10, 0, 0, 3], 4, &quote);
    routed.redirect_about([10, 0, 0, 2], [10, 0, 0, 3], 1, &quote[..20]);
    assert_eq!(routed.hop(), PEER.0);
    // A router follows none.
    routed.wire.set("ip/forwarding", "1\n").unwrap();
    routed.redirect([10, 0, 0, 2], [10, 0, 0, 3]);
    assert_eq!(refused(&routed.wire), "drop.redirect_refused 10");
    assert_eq!(routed.hop(), PEER.0);
    routed.wire.assert_ledger_closes();
}

#[test]
fn a_connection_follows_a_redirect() {
    let mut routed = Routed::new();
    let wire = &routed.wire;
    let mut stream = Stream::connect(wire, "192.0.2.1");
    assert_eq!(wire.process.write(stream.file, b"x"), Ok(1));
    let (dst, _, segment) = wire.sent().unwrap();
    assert_eq!(dst, PEER.0);
    stream.heard += 1;
    stream.answer(ACK, 8);
    routed.redirect_about([10, 0, 0, 2], [10, 0, 0, 3], 1, &segment);
    assert_eq!(wire.process.write(stream.file, b"x"), Ok(1));
    assert_eq!(wire.sent().unwrap().0, EVERYBODY);
    routed.resolve_other();
    assert_eq!(wire.sent().unwrap().0, OTHER.0);
    assert_eq!(routed.hop(), OTHER.0);
}

/// One other end is the only first hop that there is.
#[test]
fn a_tunnel_redirects_nobody() {
    let wire = resolved();
    let tun = common::program::tunnel(&wire.process, 0, "10.1.0.1/24");
    wire.set("route/add", "192.0.2.0/24 via 10.1.0.2\n")
        .unwrap();
    let socket = wire.process.open("/scheme/udp", BOTH).unwrap();
    let socket = wire.process.dup_verb(socket, b"192.0.2.1:9").unwrap();
    wire.process.write(socket, b"data").unwrap();
    let mut sent = [0; 2000];
    wire.process.read(tun, &mut sent).unwrap();
    let mut message = [&[5, 1, 0, 0, 10, 1, 0, 3][..], &sent[..28]].concat();
    let sum = packet::checksum(&[&message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let redirect = ipv4([10, 1, 0, 2].into(), [10, 1, 0, 1].into(), 1, &message);
    wire.process.write(tun, &redirect).unwrap();
    wire.wait(0);
    let stats = wire.text("ifaces/tun0/stats");
    assert!(stats.contains("\ndrop.redirect_refused 1\n"), "{stats}");
}

fn addr6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// A redirect of IPv6, with these options.
fn redirect6(from: &str, dst: &str, to: &str, options: &[u8]) -> Vec<u8> {
    let [dst, to] = [dst, to].map(|addr| addr6(addr).octets());
    let message = [&[137, 0, 0, 0, 0, 0, 0, 0], &to[..], &dst, options].concat();
    icmpv6(addr6(from), addr6("fe80::ff:fe00:1"), &message)
}

/// The option with the hardware address of the target.
fn named(mac: Mac) -> Vec<u8> {
    [&[2, 1][..], &mac.0].concat()
}

/// An adapter whose router of IPv6 is the peer, `fe80::2`, and a socket that sends to 2001:db8::9.
fn routed6() -> (Wire, Fd) {
    let wire = Wire::new();
    wire.set("ifaces/eth0/addr/add", "fd00::1/64\n").unwrap();
    wire.set("route/add", "default via fe80::2 dev eth0\n")
        .unwrap();
    wire.wait(2000);
    let solicit = [
        &[135, 0, 0, 0, 0, 0, 0, 0],
        &addr6("fe80::ff:fe00:1").octets()[..],
    ]
    .concat();
    let solicit = [&solicit[..], &[1, 1], &PEER.0].concat();
    let packet = icmpv6(addr6("fe80::2"), addr6("fe80::ff:fe00:1"), &solicit);
    wire.send(US.0, 0x86dd, &packet);
    let socket = wire.process.open("/scheme/udp", BOTH).unwrap();
    let socket = wire.process.dup_verb(socket, b"[2001:db8::9]:9").unwrap();
    while wire.sent().is_some() {}
    assert_eq!(hop6(&wire, socket), PEER.0);
    (wire, socket)
}

fn hop6(wire: &Wire, socket: Fd) -> [u8; 6] {
    assert_eq!(wire.process.write(socket, b"data"), Ok(4));
    let (dst, ethertype, _) = wire.sent().unwrap();
    assert_eq!(ethertype, 0x86dd);
    dst
}

/// The group in whose frames 2001:db8::9 is asked for.
const GROUP: [u8; 6] = [0x33, 0x33, 0xff, 0, 0, 9];

#[test]
fn redirects_of_ipv6() {
    let (wire, socket) = routed6();
    let dst = "2001:db8::9";
    // With the hardware address, and a part of the packet that it is about.
    let quoted = [&[4, 7, 0, 0, 0, 0, 0, 0], &[0x60; 48][..]].concat();
    let options = [named(OTHER), quoted].concat();
    wire.send(
        US.0,
        0x86dd,
        &redirect6("fe80::2", dst, "fe80::3", &options),
    );
    assert_eq!(hop6(&wire, socket), OTHER.0);
    // By the one that was named, to the destination itself.
    wire.send(US.0, 0x86dd, &redirect6("fe80::2", dst, dst, &[]));
    assert_eq!(refused(&wire), "drop.redirect_refused 1");
    wire.send(US.0, 0x86dd, &redirect6("fe80::3", dst, dst, &[]));
    assert_eq!(hop6(&wire, socket), GROUP);
    let advert = [
        &[136, 0, 0, 0, 0x60, 0, 0, 0],
        &addr6(dst).octets()[..],
        &named(OTHER),
    ]
    .concat();
    // That it is no router is no news of who is on the link.
    let ours = addr6("fe80::ff:fe00:1");
    send_from(&wire, OTHER, 0x86dd, &icmpv6(addr6(dst), ours, &advert));
    assert_eq!(wire.sent().unwrap().0, OTHER.0);
    assert_eq!(hop6(&wire, socket), OTHER.0);
    wire.assert_ledger_closes();
}

#[test]
fn a_router_that_is_none_any_more_redirects_nobody_to_itself() {
    let (wire, socket) = routed6();
    let redirect = redirect6("fe80::2", "2001:db8::9", "fe80::3", &named(OTHER));
    wire.send(US.0, 0x86dd, &redirect);
    assert_eq!(hop6(&wire, socket), OTHER.0);
    let target = addr6("fe80::3").octets();
    for (flags, hop) in [(0xa0, OTHER.0), (0x20, PEER.0)] {
        let advert = [&[136, 0, 0, 0, flags, 0, 0, 0], &target[..], &named(OTHER)].concat();
        let packet = icmpv6(addr6("fe80::3"), addr6("fe80::ff:fe00:1"), &advert);
        wire.send(US.0, 0x86dd, &packet);
        assert_eq!(hop6(&wire, socket), hop, "{flags:x}");
    }
}

/// RFC 4861 section 8.1.
#[test]
fn redirects_of_ipv6_that_are_not_valid() {
    let (wire, socket) = routed6();
    let (router, dst, better) = ("fe80::2", "2001:db8::9", "fe80::3");
    let valid = redirect6(router, dst, better, &named(OTHER));
    let change = |at: usize, value: u8| {
        let mut packet = valid.clone();
        packet[at] = value;
        let message = packet.split_off(40);
        let mut message = message;
        message[2..4].fill(0);
        let mut changed = icmpv6(addr6(router), addr6("fe80::ff:fe00:1"), &message);
        changed[7] = packet[7];
        changed
    };
    for (packet, reason) in [
        // From elsewhere, not from a link-local address, or not from the router in use.
        (change(7, 254), "bad_option"),
        (redirect6("fd00::2", dst, better, &[]), "redirect_refused"),
        (redirect6("fe80::4", dst, better, &[]), "redirect_refused"),
        // With a code; too short; with an option that has no length, or is cut off.
        (change(41, 1), "malformed"),
        (redirect6(router, dst, better, &[2, 0, 0, 0]), "malformed"),
        (redirect6(router, dst, better, &[2]), "malformed"),
        (
            redirect6(router, dst, better, &[2, 2, 0, 0, 0, 0, 0, 0]),
            "malformed",
        ),
        // For a group; to a router that is not on the link; to us.
        (
            redirect6(router, "ff05::9", better, &[]),
            "redirect_refused",
        ),
        (redirect6(router, dst, "fd00::3", &[]), "redirect_refused"),
        (
            redirect6(router, dst, "2001:db8::3", &[]),
            "redirect_refused",
        ),
        (
            redirect6(router, dst, "fe80::ff:fe00:1", &[]),
            "redirect_refused",
        ),
        (redirect6(router, dst, "ff02::2", &[]), "redirect_refused"),
        // For what is on the link anyway, and goes there by no router.
        (
            redirect6(router, "fd00::9", better, &[]),
            "redirect_refused",
        ),
        (
            redirect6(router, "fe80::9", better, &[]),
            "redirect_refused",
        ),
        (
            redirect6(router, "fd00::1", better, &[]),
            "redirect_refused",
        ),
    ] {
        let count = |wire: &Wire| {
            common::system::counter(&wire.text("ifaces/eth0/stats"), &format!("drop.{reason}"))
        };
        let before = count(&wire);
        wire.send(US.0, 0x86dd, &packet);
        assert_eq!(count(&wire), before + 1, "{reason} {packet:02x?}");
        assert_eq!(hop6(&wire, socket), PEER.0, "{packet:02x?}");
    }
    let mut short = [137, 0, 0, 0, 0, 0, 0, 0].to_vec();
    short.extend([0; 31]);
    wire.send(
        US.0,
        0x86dd,
        &icmpv6(addr6(router), addr6("fe80::ff:fe00:1"), &short),
    );
    wire.set("ip/forwarding", "1\n").unwrap();
    wire.send(US.0, 0x86dd, &valid);
    assert_eq!(hop6(&wire, socket), PEER.0);
    wire.set("ip/forwarding", "0\n").unwrap();
    wire.send(US.0, 0x86dd, &valid);
    assert_eq!(hop6(&wire, socket), OTHER.0);
    wire.assert_ledger_closes();
}

//! What a host knows of its link besides what it asks: connections that show that a neighbour is
//! there. Frames, segments and time are made by hand.
#![allow(missing_docs)]

mod common;

use common::packet::{self, echo_request, payload_v4, tcp};
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
        let mut stream = Stream {
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

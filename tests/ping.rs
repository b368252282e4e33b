//! Pings that hear who says what: replies, errors of routers, and what this host finds out itself.
#![allow(missing_docs)]

mod common;

use std::net::IpAddr;
use std::sync::Arc;

use common::packet::{checksum, icmpv6, ipv4};
use common::program::{set, tunnel};
use common::system::machine;
use common::wire::Wire;
use net::{Host, Services};
use scheme::errno;
use scheme::local::{Fd, Local, Process};
use scheme::{OpenFlags, Ready};

const BOTH: OpenFlags = OpenFlags::READ.union(OpenFlags::WRITE);
const TUNSIFHEAD: u32 = 0x8004_7460;

/// A message as it is read: who sent it, type, code, sequence number, second word, and data.
type Heard = (IpAddr, u8, u8, u16, u32, Vec<u8>);

fn open(program: &Process<Host>, path: &str) -> Fd {
    let ping = program.open(&format!("/scheme/icmp/{path}"), BOTH).unwrap();
    program.set_nonblocking(ping, true).unwrap();
    ping
}

fn hear(program: &Process<Host>, ping: Fd) -> Option<Heard> {
    let mut buf = [0; 2000];
    let len = match program.read(ping, &mut buf) {
        Err(errno::EAGAIN) => return None,
        read => read.unwrap(),
    };
    let addr: [u8; 16] = buf[8..24].try_into().unwrap();
    let from = match u16::from_ne_bytes([buf[0], buf[1]]) {
        2 => IpAddr::from(*addr.first_chunk::<4>().unwrap()),
        10 => IpAddr::from(addr),
        family => panic!("family {family}"),
    };
    assert_eq!(buf[2..8], [0; 6], "no port, no scope");
    let word = u32::from_be_bytes(buf[28..32].try_into().unwrap());
    let sequence = u16::from_be_bytes([buf[26], buf[27]]);
    Some((
        from,
        buf[24],
        buf[25],
        sequence,
        word,
        buf[32..len].to_vec(),
    ))
}

/// A machine with a tunnel that carries both families.
struct Tunnel {
    local: Arc<Local<Host>>,
    root: Process<Host>,
    tun: Fd,
}

impl Tunnel {
    fn new() -> Self {
        let (local, _) = machine(3, Services::empty());
        let root = local.process(1, 0);
        let tun = tunnel(&root, 0, "10.9.0.1/24");
        root.ioctl(tun, TUNSIFHEAD, &mut [1, 0, 0, 0]).unwrap();
        set(&root, "ifaces/tun0/addr/add", "fd09::1/64\n").unwrap();
        let tunnel = Self { local, root, tun };
        while tunnel.sent().is_some() {}
        tunnel
    }

    fn sent(&self) -> Option<Vec<u8>> {
        let mut buf = [0; 70_000];
        let len = self.root.read(self.tun, &mut buf).ok()?;
        Some(buf[4..len].to_vec())
    }

    fn send(&self, packet: &[u8]) {
        let family = if packet[0] >> 4 == 4 { 2 } else { 10 };
        let frame = [&[0, 0, 0, family], packet].concat();
        assert_eq!(self.root.write(self.tun, &frame), Ok(frame.len()));
        self.local.pump();
    }
}

/// An ICMP message of `from` to us, of the family of `from`.
fn message(from: &str, kind: u8, code: u8, word: u32, rest: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, code, 0, 0], &word.to_be_bytes()[..], rest].concat();
    match from.parse().unwrap() {
        IpAddr::V4(from) => {
            let sum = checksum(&[&message]);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            ipv4(from, [10, 9, 0, 1].into(), 1, &message)
        }
        IpAddr::V6(from) => icmpv6(from, "fd09::1".parse().unwrap(), &message),
    }
}

#[test]
fn an_error_says_who_sent_it_and_what_it_is_about() {
    let tunnel = Tunnel::new();
    let root = &tunnel.root;
    for (to, router, errors) in [
        (
            "10.9.0.2",
            "10.9.0.9",
            [(3, 1, 0), (11, 0, 0), (12, 0, 9 << 24)],
        ),
        ("fd09::2", "fd09::9", [(1, 3, 0), (3, 0, 0), (2, 0, 1280)]),
    ] {
        let ping = open(root, &format!("ping/{to}"));
        let echo = open(root, &format!("echo/{to}"));
        for (sequence, (kind, code, word)) in (7..).zip(errors) {
            for socket in [ping, echo] {
                let [a, b] = u16::to_be_bytes(sequence);
                root.write(socket, &[a, b, 1, 2, 3]).unwrap();
                let request = tunnel.sent().unwrap();
                tunnel.send(&message(router, kind, code, word, &request));
                // Once more: this one is about a request of somebody else.
                let mut other = request;
                let ident = other.len() - 7;
                other[ident] ^= 0xff;
                tunnel.send(&message(router, kind, code, word, &other));
            }
            let ready = [(ping, Ready::READ), (echo, Ready::READ)];
            let ready = root.poll(&ready, Some(std::time::Duration::ZERO)).unwrap();
            assert_eq!(ready, [Ready::READ, Ready::empty()]);
            let router = router.parse().unwrap();
            let right = (router, kind, code, sequence, word, Vec::new());
            assert_eq!(hear(root, ping), Some(right));
            assert_eq!(hear(root, ping), None);
            assert_eq!(root.read(echo, &mut [0; 100]), Err(errno::EAGAIN));
        }
        // A reply has the same form, behind the errors that came before it.
        root.write(ping, &[0, 99, 1, 2, 3]).unwrap();
        let request = tunnel.sent().unwrap();
        let at = request.len() - 7;
        let word = u32::from_be_bytes(request[at..at + 4].try_into().unwrap());
        let reply = if to.contains(':') { 129 } else { 0 };
        tunnel.send(&message(to, reply, 0, word, &[1, 2, 3]));
        let right = (to.parse().unwrap(), reply, 0, 99, 0, vec![1, 2, 3]);
        assert_eq!(hear(root, ping), Some(right));
        // A short buffer gets the head, as of any datagram.
        tunnel.send(&message(to, reply, 0, word, &[1, 2, 3]));
        assert_eq!(root.read(ping, &mut [0; 9]), Ok(9));
        assert_eq!(hear(root, ping), None);
        assert_eq!(root.path(ping).unwrap(), format!("/scheme/icmp/ping/{to}"));
        root.close(ping).unwrap();
        root.close(echo).unwrap();
    }
}

#[test]
fn of_many_that_answer_each_is_named() {
    let tunnel = Tunnel::new();
    let root = &tunnel.root;
    for (group, members) in [
        ("239.1.2.3", ["10.9.0.2", "10.9.0.3"]),
        ("ff05::5", ["fd09::2", "fd09::3"]),
    ] {
        let ping = open(root, &format!("ping/{group}"));
        root.write(ping, &[0, 1]).unwrap();
        let request = tunnel.sent().unwrap();
        let at = request.len() - 4;
        let word = u32::from_be_bytes(request[at..].try_into().unwrap());
        for member in members {
            let reply = if member.contains(':') { 129 } else { 0 };
            tunnel.send(&message(member, reply, 0, word, &[]));
            let right = (member.parse().unwrap(), reply, 0, 1, 0, Vec::new());
            assert_eq!(hear(root, ping), Some(right));
        }
    }
}

#[test]
fn this_host_says_that_a_neighbour_is_not_there() {
    let wire = Wire::new();
    let root = &wire.process;
    wire.set("ifaces/eth0/addr/set", "10.0.0.1/24\n").unwrap();
    wire.set("ifaces/eth0/addr/add", "fd00::1/64\n").unwrap();
    for _ in 0..5 {
        wire.wait(1000);
    }
    for (to, from, said) in [
        ("10.0.0.9", "10.0.0.1", (3, 1)),
        ("fd00::9", "fd00::1", (1, 3)),
    ] {
        let ping = open(root, &format!("ping/{to}"));
        for sequence in 0..3 {
            root.write(ping, &[0, sequence, 5]).unwrap();
        }
        for _ in 0..5 {
            assert_eq!(hear(root, ping), None);
            while wire.sent().is_some() {}
            wire.wait(500);
        }
        wire.wait(1000);
        for sequence in 0..3 {
            let from = from.parse().unwrap();
            let right = (from, said.0, said.1, sequence, 0, Vec::new());
            assert_eq!(hear(root, ping), Some(right));
        }
        assert_eq!(hear(root, ping), None);
    }
    wire.assert_ledger_closes();
}

#[test]
fn only_addresses_are_below_it() {
    let (local, _) = machine(3, Services::empty());
    let user = local.process(9, 1000);
    for (path, error) in [
        ("ping/x", errno::EINVAL),
        ("ping/", errno::EISDIR),
        ("pin/10.0.0.2", errno::ENOENT),
        ("10.0.0.2", errno::ENOENT),
    ] {
        let path = format!("/scheme/icmp/{path}");
        assert_eq!(user.open(&path, BOTH), Err(error), "{path}");
    }
    let ping = user.open("/scheme/icmp/ping/127.0.0.1", BOTH).unwrap();
    user.write(ping, &[0, 1, 9]).unwrap();
    local.pump();
    let right = ([127, 0, 0, 1].into(), 0, 0, 1, 0, vec![9]);
    assert_eq!(hear(&user, ping), Some(right));
}

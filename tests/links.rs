//! Addresses that are valid on one link only (RFC 4007), with a host of the same address on each of
//! two links.
#![allow(missing_docs)]

mod common;

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use common::libc::{BOTH, Libc};
use common::packet::{echo_request, icmpv6, tcp, udp};
use common::program::text;
use common::system::{TestProcesses, counter};
use net::{Config, Host, Services};
use scheme::errno::{self, Errno};
use scheme::local::{Fd, Local, ManualClock};

const TUNSIFHEAD: u32 = 0x8004_7460;
const FAMILY: [u8; 4] = [0, 0, 0, 10];
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 0x10;
/// The other host, of which there are two.
const PEER: &str = "fe80::99";

/// A machine with an address on each of two tunnels, `tun0` and `tun1`. A route alone would lead to
/// the second.
struct Links {
    local: Arc<Local<Host>>,
    clock: Arc<ManualClock>,
    libc: Arc<Libc>,
    tuns: [Fd; 2],
}

impl Links {
    fn new(addrs: [&str; 2]) -> Self {
        let clock = Arc::new(ManualClock::default());
        let config = Config {
            seed: 3.into(),
            services: Services::ECHO,
        };
        let host = Host::new(config, TestProcesses);
        let local = Local::with_clock(host, Arc::clone(&clock));
        let libc = Libc::new(&local);
        let tuns = [0, 1].map(|unit| {
            let tun = libc.0.open(&format!("/scheme/tun/{unit}"), BOTH).unwrap();
            libc.0.set_nonblocking(tun, true).unwrap();
            libc.0.ioctl(tun, TUNSIFHEAD, &mut [1, 0, 0, 0]).unwrap();
            let path = format!("ifaces/tun{unit}/addr/set");
            common::program::set(&libc.0, &path, &format!("{}/64\n", addrs[unit])).unwrap();
            tun
        });
        let links = Self {
            local,
            clock,
            libc,
            tuns,
        };
        // What the interfaces say of their groups, and say again.
        links.wait(20);
        for link in 0..2 {
            links.sent(link);
        }
        links
    }

    fn wait(&self, seconds: u64) {
        for _ in 0..seconds {
            self.clock.advance(Duration::from_secs(1));
            self.local.pump();
        }
    }

    fn arrive(&self, link: usize, packet: &[u8]) {
        let packet = [&FAMILY[..], packet].concat();
        let written = self.libc.0.write(self.tuns[link], &packet);
        assert_eq!(written, Ok(packet.len()));
        self.local.pump();
    }

    /// The packets that left by a link.
    fn sent(&self, link: usize) -> Vec<Vec<u8>> {
        let mut buf = vec![0; 2000];
        let next = || {
            let len = self.libc.0.read(self.tuns[link], &mut buf).ok()?;
            Some(buf[4..len].to_vec())
        };
        std::iter::from_fn(next).collect()
    }

    /// The only packet that left, and its link.
    #[track_caller]
    fn only(&self) -> (usize, Vec<u8>) {
        let mut all = [0, 1].map(|link| self.sent(link));
        let counts = [all[0].len(), all[1].len()];
        match counts {
            [1, 0] => (0, all[0].remove(0)),
            [0, 1] => (1, all[1].remove(0)),
            _ => panic!("{counts:?}"),
        }
    }

    fn bound(&self, name: &str) -> Fd {
        let socket = self.libc.socket("udp");
        let socket = self.libc.bind(socket, name).unwrap();
        self.libc.0.set_nonblocking(socket, true).unwrap();
        socket
    }

    /// `sendto`.
    fn send_to(&self, socket: Fd, name: &str, data: &[u8]) -> Result<usize, Errno> {
        let copy = self.libc.0.dup_verb(socket, name.as_bytes())?;
        let sent = self.libc.0.write(copy, data);
        self.libc.0.close(copy).unwrap();
        sent
    }

    fn drops(&self, link: usize, reason: &str) -> u64 {
        let stats = text(&self.libc.0, &format!("ifaces/tun{link}/stats"));
        counter(&stats, &format!("drop.{reason}"))
    }

    fn connections(&self) -> Vec<String> {
        let sockets = text(&self.libc.0, "sockets");
        let lines = sockets.lines().filter(|line| line.contains(PEER));
        let names = lines.map(|line| line.split(" recv").next().unwrap().to_owned());
        names.collect()
    }
}

/// The same address on both, and one for each.
const ADDRESSES: [[&str; 2]; 2] = [["fe80::1", "fe80::1"], ["fe80::1", "fe80::2"]];

#[test]
fn a_datagram_is_answered_by_the_link_that_it_came_by() {
    for addrs in ADDRESSES {
        let links = Links::new(addrs);
        let socket = links.bound("[::]:5000");
        for link in [0, 1, 0, 0, 1] {
            let question = udp((PEER, 6000), (addrs[link], 5000), b"question");
            links.arrive(link, &question);
            let (name, ..) = links.libc.recvmsg(socket, 100, 0).unwrap();
            assert_eq!(name, "/scheme/udp/[fe80::99]:6000");
            assert_eq!(links.send_to(socket, "[fe80::99]:6000", b"answer"), Ok(6));
            let (by, answer) = links.only();
            assert_eq!(by, link);
            let own: Ipv6Addr = addrs[link].parse().unwrap();
            assert_eq!(
                (&answer[8..24], &answer[48..]),
                (&own.octets()[..], &b"answer"[..])
            );
        }
        // It answers who was read, not who came last.
        for (link, data) in [(0, b"first"), (1, b"other")] {
            links.arrive(link, &udp((PEER, 6000), (addrs[link], 5000), data));
        }
        for link in 0..2 {
            links.libc.recvmsg(socket, 100, 0).unwrap();
            links.send_to(socket, "[fe80::99]:6000", b"answer").unwrap();
            assert_eq!(links.only().0, link);
        }
    }
}

#[test]
fn a_service_answers_by_the_link_that_it_was_asked_by() {
    for addrs in ADDRESSES {
        let links = Links::new(addrs);
        for link in [0, 1, 0] {
            links.arrive(link, &udp((PEER, 6000), (addrs[link], 7), b"echo"));
            assert_eq!(links.only().0, link);
            links.arrive(link, &udp((PEER, 6000), (addrs[link], 999), b"closed"));
            let (by, error) = links.only();
            assert_eq!((by, error[40]), (link, 1));
            links.arrive(link, &echo_request(PEER, addrs[link], 1, b"ping"));
            let (by, reply) = links.only();
            assert_eq!((by, reply[40]), (link, 129));
        }
    }
}

#[test]
fn a_connected_socket_stays_on_the_link_of_its_peer() {
    let links = Links::new(["fe80::1"; 2]);
    let socket = links.bound("[::]:5000");
    let datagram = |data| udp((PEER, 6000), ("fe80::1", 5000), data);
    links.arrive(0, &datagram(b"hello"));
    assert_eq!(links.libc.0.read(socket, &mut [0; 100]), Ok(5));
    let socket = links.libc.connect(socket, "[fe80::99]:6000").unwrap();
    links.libc.0.set_nonblocking(socket, true).unwrap();
    links.arrive(1, &datagram(b"another's"));
    assert_eq!(links.drops(1, "no_port"), 1);
    assert_eq!(links.only().0, 1, "the error");
    assert_eq!(links.libc.0.read(socket, &mut [0; 100]), Err(errno::EAGAIN));
    links.arrive(0, &datagram(b"more"));
    assert_eq!(links.libc.0.read(socket, &mut [0; 100]), Ok(4));
    assert_eq!(links.libc.0.write(socket, b"answer"), Ok(6));
    let (by, answer) = links.only();
    assert_eq!(by, 0);
    // What is said on the other link about it is not about it.
    for (link, told) in [(1, Ok(1)), (0, Err(errno::ECONNREFUSED))] {
        let message = [&[1, 4, 0, 0, 0, 0, 0, 0], &answer[..]].concat();
        let (from, to) = (PEER.parse().unwrap(), "fe80::1".parse().unwrap());
        links.arrive(link, &icmpv6(from, to, &message));
        assert_eq!(links.libc.0.write(socket, b"x"), told, "{link}");
        links.sent(0);
    }
}

#[test]
fn a_name_says_which_link_is_meant() {
    let links = Links::new(["fe80::1"; 2]);
    let socket = links.bound("[::]:5000");
    for link in [0, 1, 0] {
        let name = format!("[fe80::99%tun{link}]:6000");
        assert_eq!(links.send_to(socket, &name, b"x"), Ok(1));
        assert_eq!(links.only().0, link);
        // Groups, too.
        let name = format!("[ff02::1234%tun{link}]:6000");
        assert_eq!(links.send_to(socket, &name, b"x"), Ok(1));
        assert_eq!(links.only().0, link);
        // The name is kept as it was given.
        let path = format!("/scheme/udp/[fe80::99%tun{link}]:9");
        let peer = links.libc.0.open(&path, BOTH).unwrap();
        links.libc.0.set_nonblocking(peer, true).unwrap();
        let path = links.libc.0.path(peer).unwrap();
        let start = format!("/scheme/udp/[fe80::99%tun{link}]:9/[fe80::1]:");
        let port: u16 = path.strip_prefix(&start).unwrap().parse().unwrap();
        assert_eq!(links.libc.peername(peer), Ok(path));
        assert_eq!(links.libc.0.write(peer, b"x"), Ok(1));
        assert_eq!(links.only().0, link);
        let answer = udp((PEER, 9), ("fe80::1", port), b"answer");
        links.arrive(1 - link, &answer);
        assert_eq!(links.libc.0.read(peer, &mut [0; 100]), Err(errno::EAGAIN));
        links.sent(1 - link);
        links.arrive(link, &answer);
        assert_eq!(links.libc.0.read(peer, &mut [0; 100]), Ok(6));
    }
    // Our own address can be named on its link.
    assert_eq!(links.send_to(socket, "[fe80::1%tun0]:5000", b"self"), Ok(4));
    links.local.pump();
    assert_eq!(links.libc.0.read(socket, &mut [0; 100]), Ok(4));
    let nowhere = links.send_to(socket, "[fe80::99%tun7]:9", b"x");
    assert_eq!(nowhere, Err(errno::ENETUNREACH));
    for bad in ["[fd00::9%tun0]:9", "[fe80::99%]:9", "/[fe80::1%tun0]:9"] {
        assert_eq!(
            links.send_to(socket, bad, b"x"),
            Err(errno::EINVAL),
            "{bad}"
        );
    }
    let tcp = links.libc.socket("tcp");
    let nowhere = links.libc.0.dup_verb(tcp, b"[fe80::99%tun7]:80");
    assert_eq!(nowhere, Err(errno::ENETUNREACH));
}

/// The sequence number of a segment.
fn number(packet: &[u8]) -> u32 {
    u32::from_be_bytes(*packet[44..].first_chunk().unwrap())
}

#[test]
fn connections_of_two_links_are_two() {
    let links = Links::new(["fe80::1"; 2]);
    let ours = ("fe80::1", 7);
    let mut heard = [0; 2];
    for link in [1, 0] {
        let seq = 1000 * (link as u32 + 1);
        links.arrive(link, &tcp((PEER, 4000), ours, SYN, [seq, 0]));
        let (by, answer) = links.only();
        assert_eq!((by, answer[53]), (link, SYN | ACK));
        heard[link] = number(&answer) + 1;
    }
    assert_ne!(heard[0], heard[1]);
    for (link, heard) in heard.into_iter().enumerate() {
        let seq = 1000 * (link as u32 + 1) + 1;
        links.arrive(link, &tcp((PEER, 4000), ours, ACK, [seq, heard]));
    }
    let line = "tcp ESTABLISHED [fe80::1]:7 [fe80::99]:4000";
    assert_eq!(links.connections(), [line, line]);
    // One ends, and the other stays.
    links.arrive(0, &tcp((PEER, 4000), ours, RST | ACK, [1001, heard[0]]));
    assert_eq!(links.connections(), [line]);
    links.arrive(0, &tcp((PEER, 4000), ours, ACK, [2001, heard[1]]));
    let (by, reset) = links.only();
    assert_eq!((by, reset[53]), (0, RST));
    assert_eq!(links.connections(), [line]);
}

#[test]
fn a_connection_is_made_on_the_link_that_is_named() {
    let links = Links::new(["fe80::1"; 2]);
    // From the same port to the same address: two.
    let begun = [0, 1].map(|link| {
        let name = format!("/scheme/tcp/[fe80::99%tun{link}]:80/[::]:4000");
        let stream = links.libc.0.open(&name, BOTH).unwrap();
        links.local.pump();
        let (by, syn) = links.only();
        assert_eq!((by, syn[53]), (link, SYN));
        let path = links.libc.0.path(stream).unwrap();
        assert_eq!(
            path,
            format!("/scheme/tcp/[fe80::99%tun{link}]:80/[fe80::1]:4000")
        );
        number(&syn)
    });
    assert_eq!(links.connections().len(), 2);
    // An answer counts on its own link, and so does what others say of it.
    for (link, iss) in begun.into_iter().enumerate() {
        let answer = tcp((PEER, 80), ("fe80::1", 4000), SYN | ACK, [7, iss + 1]);
        links.arrive(1 - link, &answer);
        links.sent(1 - link);
        let connections = links.connections();
        let waiting = connections.iter().filter(|line| line.contains("SYN-SENT"));
        assert_eq!(waiting.count(), 2 - link, "{connections:?}");
        links.arrive(link, &answer);
        assert!(links.sent(link).iter().all(|packet| packet[53] == ACK));
    }
    let line = "tcp ESTABLISHED [fe80::1]:4000 [fe80::99]:80";
    assert_eq!(links.connections(), [line, line]);
}

#[test]
fn what_comes_from_an_address_of_a_link_leaves_by_it() {
    let links = Links::new(["fe80::1", "fe80::2"]);
    for (link, own) in [(0, "fe80::1"), (1, "fe80::2")] {
        let name = format!("/scheme/tcp/[fe80::99]:80/[{own}]:0");
        let stream = links.libc.0.open(&name, BOTH).unwrap();
        links.local.pump();
        assert_eq!(links.only().0, link);
        links.libc.0.close(stream).unwrap();
        let socket = links.bound(&format!("[{own}]:5000"));
        links.send_to(socket, "[fe80::99]:9", b"x").unwrap();
        assert_eq!(links.only().0, link);
    }
}

#[test]
fn a_ping_of_one_link() {
    let links = Links::new(["fe80::1"; 2]);
    let reply = |request: &[u8]| {
        let message = [&[129, 0, 0, 0], &request[44..]].concat();
        icmpv6(PEER.parse().unwrap(), "fe80::1".parse().unwrap(), &message)
    };
    // A socket, and its request, which leaves by the link that its path names.
    let asks = |path: String, link| {
        let ping = links.libc.0.open(&path, BOTH).unwrap();
        links.libc.0.set_nonblocking(ping, true).unwrap();
        assert_eq!(links.libc.0.path(ping).unwrap(), path);
        assert_eq!(links.libc.0.write(ping, &[0, 1, 9, 9]), Ok(4));
        let (by, request) = links.only();
        assert_eq!(by, link);
        (ping, request)
    };
    for link in [0, 1] {
        let (ping, request) = asks(format!("/scheme/icmp/echo/fe80::99%tun{link}"), link);
        links.arrive(1 - link, &reply(&request));
        assert_eq!(links.libc.0.read(ping, &mut [0; 100]), Err(errno::EAGAIN));
        links.arrive(link, &reply(&request));
        assert_eq!(links.libc.0.read(ping, &mut [0; 100]), Ok(4));
    }
    // Its errors come by the link, too, for one that hears them.
    for (peer, link) in [(PEER, 0), (PEER, 1), ("ff02::7", 0)] {
        let (ping, request) = asks(format!("/scheme/icmp/ping/{peer}%tun{link}"), link);
        let too_big = [&[2, 0, 0, 0, 0, 0, 5, 0], &request[..]].concat();
        let router = "fe80::9".parse().unwrap();
        let error = icmpv6(router, "fe80::1".parse().unwrap(), &too_big);
        let mut heard = [0; 100];
        links.arrive(1 - link, &error);
        assert_eq!(links.libc.0.read(ping, &mut heard), Err(errno::EAGAIN));
        links.arrive(link, &error);
        assert_eq!(links.libc.0.read(ping, &mut heard), Ok(32));
        assert_eq!(heard[8..24], router.octets());
        assert_eq!(heard[24..32], [2, 0, 0, 1, 0, 0, 5, 0]);
    }
    // Our own address on the link, by lo0.
    let own = links
        .libc
        .0
        .open("/scheme/icmp/echo/fe80::1%tun0", BOTH)
        .unwrap();
    links.libc.0.set_nonblocking(own, true).unwrap();
    assert_eq!(links.libc.0.write(own, &[0, 1, 9, 9]), Ok(4));
    links.local.pump();
    assert_eq!(links.libc.0.read(own, &mut [0; 100]), Ok(4));
    for bad in ["fe80::99%", "fd00::9%tun0", "10.0.0.1%tun0"] {
        for kind in ["echo", "ping"] {
            let path = format!("/scheme/icmp/{kind}/{bad}");
            assert_eq!(links.libc.0.open(&path, BOTH), Err(errno::EINVAL), "{path}");
        }
    }
    let gone = links
        .libc
        .0
        .open("/scheme/icmp/echo/fe80::99%tun7", BOTH)
        .unwrap();
    assert_eq!(links.libc.0.write(gone, &[0, 1]), Err(errno::ENETUNREACH));
}

/// A link that is gone takes its connections nowhere else.
#[test]
fn a_link_that_is_gone_is_not_another() {
    let links = Links::new(["fe80::1"; 2]);
    let socket = links.bound("[::]:5000");
    links.arrive(0, &udp((PEER, 6000), ("fe80::1", 5000), b"hello"));
    let peer = links.libc.connect(socket, "[fe80::99%tun0]:6000").unwrap();
    links.arrive(0, &tcp((PEER, 4000), ("fe80::1", 7), SYN, [1000, 0]));
    let (_, answer) = links.only();
    let ack = tcp(
        (PEER, 4000),
        ("fe80::1", 7),
        ACK,
        [1001, number(&answer) + 1],
    );
    links.arrive(0, &ack);
    links.libc.0.close(links.tuns[0]).unwrap();
    common::program::set(&links.libc.0, "ifaces/tun0/destroy", "1\n").unwrap();
    assert_eq!(links.libc.0.write(peer, b"x"), Err(errno::ENETUNREACH));
    // The same from the other link is for another connection.
    links.arrive(1, &ack);
    let sent = links.sent(1);
    assert_eq!((sent.len(), sent[0][53]), (1, RST));
    links.wait(10);
    assert!(links.sent(1).is_empty());
}

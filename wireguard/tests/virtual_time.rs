//! Two, three and hostile ends in virtual time: hours pass in a moment.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use wireguard::config::{self, Host};
use wireguard::tunnel::{Dropped, MAX_PACKET, Outbox, Tunnel};

const A: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
const A_PUBLIC: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
const B: &str = "XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=";
const B_PUBLIC: &str = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=";

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// What one end wants to send.
#[derive(Default)]
struct Out {
    datagrams: VecDeque<(SocketAddr, Vec<u8>)>,
    packets: Vec<Vec<u8>>,
}

impl Outbox for Out {
    fn datagram(&mut self, to: SocketAddr, datagram: &[u8]) {
        self.datagrams.push_back((to, datagram.to_vec()));
    }

    fn packet(&mut self, packet: &[u8]) {
        self.packets.push(packet.to_vec());
    }
}

struct End {
    tunnel: Tunnel,
    address: SocketAddr,
    out: Out,
    /// It cannot be reached, and reaches nobody.
    cut: bool,
}

/// Ends on one network without loss or delay, and a clock.
struct Net {
    now: Duration,
    ends: Vec<End>,
    /// Every datagram that was sent: from, to, bytes.
    seen: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
}

impl Net {
    fn new() -> Self {
        Self {
            now: Duration::ZERO,
            ends: Vec::new(),
            seen: Vec::new(),
        }
    }

    /// Adds an end with this file, which begins at once.
    fn add(&mut self, address: &str, text: &str) -> usize {
        self.ends.push(End {
            tunnel: made(text, self.ends.len() as u32 * 1000, self.now),
            address: address.parse().unwrap(),
            out: Out::default(),
            cut: false,
        });
        let end = self.ends.last_mut().unwrap();
        end.tunnel.start(self.now, &mut end.out);
        self.deliver();
        self.ends.len() - 1
    }

    /// Hands over what was sent, and what that leads to.
    fn deliver(&mut self) {
        let mut steps = 0;
        while let Some(from) = self
            .ends
            .iter()
            .position(|end| !end.out.datagrams.is_empty())
        {
            steps += 1;
            assert!(steps < 10_000, "they never stop");
            let (to, bytes) = self.ends[from].out.datagrams.pop_front().unwrap();
            let source = self.ends[from].address;
            self.seen.push((source, to, bytes.clone()));
            let reached = self
                .ends
                .iter()
                .position(|end| end.address == to && !end.cut);
            if let Some(index) = reached.filter(|_| !self.ends[from].cut) {
                self.inject(index, source, &bytes);
            }
        }
    }

    fn inject(&mut self, to: usize, from: SocketAddr, bytes: &[u8]) {
        let end = &mut self.ends[to];
        end.tunnel.datagram(self.now, from, bytes, &mut end.out);
    }

    fn send(&mut self, from: usize, packet: &[u8]) {
        let end = &mut self.ends[from];
        end.tunnel.packet(self.now, packet, &mut end.out);
        self.deliver();
    }

    /// Lets time pass as the program does: it waits no longer than it is told.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            let next = self
                .ends
                .iter()
                .filter_map(|end| end.tunnel.next_timer())
                .min();
            self.now = (self.now + next.unwrap_or(time).max(MS)).min(end);
            for end in &mut self.ends {
                end.tunnel.timers(self.now, &mut end.out);
            }
            self.deliver();
        }
    }

    fn packets(&mut self, end: usize) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.ends[end].out.packets)
    }

    fn dropped(&self, end: usize, reason: Dropped) -> u64 {
        self.ends[end].tunnel.dropped()[reason as usize]
    }

    /// Messages of a kind that were sent so far.
    fn count(&self, kind: u8) -> usize {
        self.seen
            .iter()
            .filter(|(_, _, bytes)| bytes[0] == kind)
            .count()
    }

    /// Whether a packet of `from`'s arrives at `to`, whole.
    fn reaches(&mut self, from: usize, to: usize, source: &str, destination: &str) -> bool {
        self.packets(to);
        let packet = packet(source, destination, 100);
        self.send(from, &packet);
        self.packets(to) == [packet]
    }
}

fn made(text: &str, chance: u32, now: Duration) -> Tunnel {
    let config = config::parse(text.as_bytes()).unwrap();
    let endpoint = |peer: &config::Peer| match &peer.endpoint.as_ref()?.host {
        Host::Address(address) => Some(*address),
        Host::Name(..) => None,
    };
    let endpoints: Vec<_> = config.peers.iter().map(endpoint).collect();
    Tunnel::new(&config, &endpoints, chance, now)
}

/// An IP packet of `len` bytes with contents that tell cuts and changes.
fn packet(source: &str, destination: &str, len: usize) -> Vec<u8> {
    let mut packet: Vec<u8> = (0..len).map(|index| (index * 7 % 251) as u8).collect();
    match (source.parse().unwrap(), destination.parse().unwrap()) {
        (std::net::IpAddr::V4(source), std::net::IpAddr::V4(destination)) => {
            packet[0] = 0x45;
            packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            packet[12..16].copy_from_slice(&source.octets());
            packet[16..20].copy_from_slice(&destination.octets());
        }
        (std::net::IpAddr::V6(source), std::net::IpAddr::V6(destination)) => {
            packet[0] = 0x60;
            packet[4..6].copy_from_slice(&(len as u16 - 40).to_be_bytes());
            packet[8..24].copy_from_slice(&source.octets());
            packet[24..40].copy_from_slice(&destination.octets());
        }
        _ => panic!("{source} and {destination}"),
    }
    packet
}

fn a_file(more: &str) -> String {
    format!(
        "[Interface]\nPrivateKey={A}\n[Peer]\nPublicKey={B_PUBLIC}\nEndpoint=192.0.2.2:2\n\
         AllowedIPs=10.0.0.2, fd00::2\n{more}"
    )
}

fn b_file(more: &str) -> String {
    format!(
        "[Interface]\nPrivateKey={B}\n[Peer]\nPublicKey={A_PUBLIC}\nAllowedIPs=10.0.0.1, fd00::1\n{more}"
    )
}

/// A, that calls, and B, that listens.
fn pair() -> Net {
    let mut net = Net::new();
    net.add("192.0.2.2:2", &b_file(""));
    net.add("192.0.2.1:1", &a_file(""));
    net.ends.swap(0, 1);
    net
}

const FROM_A: usize = 0;
const FROM_B: usize = 1;

#[test]
fn the_handshake_is_made_at_the_start_and_packets_pass_both_ways() {
    let mut net = pair();
    assert_eq!((net.count(1), net.count(2)), (1, 1));
    for end in 0..2 {
        assert_eq!(
            net.ends[end].tunnel.peers()[0].last_handshake(),
            Some(Duration::ZERO)
        );
    }
    assert!(net.reaches(FROM_A, FROM_B, "10.0.0.1", "10.0.0.2"));
    assert!(net.reaches(FROM_B, FROM_A, "10.0.0.2", "10.0.0.1"));
    assert!(net.reaches(FROM_A, FROM_B, "fd00::1", "fd00::2"));
    assert!(net.reaches(FROM_B, FROM_A, "fd00::2", "fd00::1"));
    // Lengths are hidden by padding, up to the mtu, and packets arrive without it.
    for len in [20, 21, 1405, 1420] {
        let sent = packet("10.0.0.1", "10.0.0.2", len);
        net.send(FROM_A, &sent);
        assert_eq!(net.packets(FROM_B), [sent]);
        let carried = net.seen.last().unwrap().2.len() - 32;
        assert_eq!(carried, len.next_multiple_of(16).min(1420));
    }
}

#[test]
fn keys_are_renewed_before_they_are_old_and_nothing_is_lost() {
    let mut net = pair();
    for second in 0..400 {
        assert!(
            net.reaches(FROM_A, FROM_B, "10.0.0.1", "10.0.0.2"),
            "second {second}"
        );
        assert!(
            net.reaches(FROM_B, FROM_A, "10.0.0.2", "10.0.0.1"),
            "second {second}"
        );
        net.pass(SECOND);
    }
    // At the start, and after each 120 s.
    assert_eq!(net.count(1), 4);
    for end in 0..2 {
        let last = net.ends[end].tunnel.peers()[0].last_handshake().unwrap();
        assert!(net.now - last < Duration::from_secs(121), "{last:?}");
    }
}

#[test]
fn an_idle_tunnel_is_silent_and_asks_for_no_timer_and_wakes() {
    let mut net = pair();
    assert!(net.reaches(FROM_A, FROM_B, "10.0.0.1", "10.0.0.2"));
    net.pass(Duration::from_secs(20));
    let after_keepalive = net.seen.len();
    net.pass(Duration::from_secs(3600));
    assert_eq!(net.seen.len(), after_keepalive);
    assert_eq!(net.ends[FROM_A].tunnel.next_timer(), None);
    // The packet that wakes it waits for the handshake and arrives.
    assert!(net.reaches(FROM_A, FROM_B, "10.0.0.1", "10.0.0.2"));
    assert_eq!(net.count(1), 2);
    net.pass(Duration::from_secs(3600));
    // The other end knows where we are, and can call, too.
    assert!(net.reaches(FROM_B, FROM_A, "10.0.0.2", "10.0.0.1"));
}

#[test]
fn a_persistent_keepalive_holds_the_session_and_outlives_an_outage() {
    let mut net = Net::new();
    let b = net.add("192.0.2.2:2", &b_file(""));
    let a = net.add("192.0.2.1:1", &a_file("PersistentKeepalive=25\n"));
    net.pass(Duration::from_secs(600));
    assert!(
        net.seen
            .iter()
            .filter(|(_, _, bytes)| bytes.len() == 32)
            .count()
            >= 600 / 25 - 2
    );
    let handshake = net.ends[b].tunnel.peers()[0].last_handshake().unwrap();
    assert!(
        net.now - handshake < Duration::from_secs(200),
        "{handshake:?}"
    );
    // Much longer than an end calls before it gives up.
    net.ends[b].cut = true;
    net.pass(Duration::from_secs(1200));
    net.ends[b].cut = false;
    net.pass(Duration::from_secs(10));
    let handshake = net.ends[a].tunnel.peers()[0].last_handshake().unwrap();
    assert!(
        net.now - handshake <= Duration::from_secs(10),
        "{handshake:?}"
    );
    assert!(net.reaches(b, a, "10.0.0.2", "10.0.0.1"));
}

#[test]
fn who_does_not_answer_is_called_every_five_seconds_for_ninety() {
    let mut net = Net::new();
    let a = net.add("192.0.2.1:1", &a_file(""));
    net.pass(Duration::from_secs(600));
    let calls = net.count(1);
    assert!((15..=19).contains(&calls), "{calls}");
    assert_eq!(net.ends[a].tunnel.next_timer(), None);
    // A packet is a reason to begin anew; memory for those that wait is bounded by boringtun.
    for _ in 0..10_000 {
        net.send(a, &packet("10.0.0.1", "10.0.0.2", 100));
    }
    assert_eq!(net.count(1), calls + 1);
    let b = net.add("192.0.2.2:2", &b_file(""));
    net.pass(Duration::from_secs(6));
    assert_eq!(net.packets(b).len(), 256);
}

#[test]
fn a_peer_that_roams_is_followed_both_ways() {
    let mut net = pair();
    for address in ["198.51.100.7:9", "[2001:db8::7]:9", "192.0.2.1:1"] {
        net.ends[FROM_A].address = address.parse().unwrap();
        assert!(net.reaches(FROM_A, FROM_B, "10.0.0.1", "10.0.0.2"));
        assert_eq!(
            net.ends[FROM_B].tunnel.peers()[0].endpoint(),
            Some(address.parse().unwrap())
        );
        assert!(
            net.reaches(FROM_B, FROM_A, "10.0.0.2", "10.0.0.1"),
            "{address}"
        );
    }
    // The listener moves, vanishes for a while and comes back elsewhere.
    net.ends[FROM_B].address = "198.51.100.8:9".parse().unwrap();
    assert!(!net.reaches(FROM_A, FROM_B, "10.0.0.1", "10.0.0.2"));
    assert!(net.reaches(FROM_B, FROM_A, "10.0.0.2", "10.0.0.1"));
    assert!(net.reaches(FROM_A, FROM_B, "10.0.0.1", "10.0.0.2"));
}

#[test]
fn either_side_may_start_again() {
    let mut net = pair();
    assert!(net.reaches(FROM_A, FROM_B, "10.0.0.1", "10.0.0.2"));
    net.pass(Duration::from_secs(30));
    // The caller calls at its start: the listener need not find out by itself.
    net.ends[FROM_A].tunnel = made(&a_file(""), 77, net.now);
    net.pass(SECOND);
    let now = net.now;
    let end = &mut net.ends[FROM_A];
    end.tunnel.start(now, &mut end.out);
    net.deliver();
    assert!(net.reaches(FROM_B, FROM_A, "10.0.0.2", "10.0.0.1"));
    // The listener cannot: the caller notices after 15 s without an answer to its packets.
    net.ends[FROM_B].tunnel = made(&b_file(""), 78, net.now);
    net.pass(SECOND);
    assert!(!net.reaches(FROM_A, FROM_B, "10.0.0.1", "10.0.0.2"));
    net.pass(Duration::from_secs(16));
    assert!(net.reaches(FROM_A, FROM_B, "10.0.0.1", "10.0.0.2"));
    assert!(net.reaches(FROM_B, FROM_A, "10.0.0.2", "10.0.0.1"));
}

#[test]
fn replays_of_every_kind_are_refused() {
    let mut net = pair();
    for _ in 0..5 {
        assert!(net.reaches(FROM_A, FROM_B, "10.0.0.1", "10.0.0.2"));
    }
    let elsewhere = "203.0.113.1:5".parse().unwrap();
    let seen = net.seen.clone();
    let to_b: Vec<_> = seen
        .iter()
        .filter(|(_, to, _)| *to == net.ends[FROM_B].address)
        .collect();
    let known = net.ends[FROM_B].tunnel.peers()[0].endpoint();
    let (stranger, old) = (
        net.dropped(FROM_B, Dropped::Stranger),
        net.dropped(FROM_B, Dropped::NotGenuine),
    );
    for (_, _, bytes) in &to_b {
        net.inject(FROM_B, elsewhere, bytes);
    }
    net.deliver();
    assert!(net.packets(FROM_B).is_empty());
    assert_eq!(net.seen.len(), seen.len(), "somebody answered");
    // And who replays is not taken for the peer that has moved.
    assert_eq!(net.ends[FROM_B].tunnel.peers()[0].endpoint(), known);
    assert_eq!(net.dropped(FROM_B, Dropped::Stranger) - stranger, 1);
    assert_eq!(
        net.dropped(FROM_B, Dropped::NotGenuine) - old,
        to_b.len() as u64 - 1
    );
    // Each bit counts.
    let (_, _, last) = to_b.last().unwrap();
    for index in 0..last.len() {
        let mut altered = last.clone();
        altered[index] ^= 1;
        net.inject(FROM_B, elsewhere, &altered);
    }
    assert!(net.packets(FROM_B).is_empty() && net.ends[FROM_B].out.datagrams.is_empty());
    assert!(net.reaches(FROM_B, FROM_A, "10.0.0.2", "10.0.0.1"));
}

#[test]
fn a_counter_at_its_end_is_refused_before_it_is_looked_at() {
    let mut net = pair();
    assert!(net.reaches(FROM_A, FROM_B, "10.0.0.1", "10.0.0.2"));
    let mut message = net.seen.last().unwrap().2.clone();
    for counter in [u64::MAX, u64::MAX - 1, u64::MAX - (1 << 13)] {
        message[8..16].copy_from_slice(&counter.to_le_bytes());
        net.inject(FROM_B, "203.0.113.1:5".parse().unwrap(), &message);
    }
    assert_eq!(net.dropped(FROM_B, Dropped::NotGenuine), 3);
    assert!(net.reaches(FROM_A, FROM_B, "10.0.0.1", "10.0.0.2"));
}

#[test]
fn strangers_get_no_answer() {
    let mut net = Net::new();
    let b = net.add("192.0.2.2:2", &b_file(""));
    // This one knows our key, and we do not know it.
    let stranger = format!(
        "[Interface]\nPrivateKey=GCl4Y2nZbxUvHNvFvVgFxFIqXJmPpqeMdhvhmOWyHXA=\n[Peer]\n\
         PublicKey={B_PUBLIC}\nEndpoint=192.0.2.2:2\nAllowedIPs=0.0.0.0/0\n"
    );
    net.add("203.0.113.1:5", &stranger);
    assert_eq!(net.dropped(b, Dropped::Stranger), 1);
    // And this one knows another's.
    let lost = stranger.replace(B_PUBLIC, A_PUBLIC);
    net.add("203.0.113.2:5", &lost);
    assert_eq!(net.dropped(b, Dropped::BadDatagram), 1);
    assert_eq!(net.seen.len(), 2, "somebody answered");
}

#[test]
fn a_wrong_preshared_key_gives_no_session() {
    let mut net = Net::new();
    let b = net.add("192.0.2.2:2", &b_file(&format!("PresharedKey={A}\n")));
    let a = net.add("192.0.2.1:1", &a_file(&format!("PresharedKey={B}\n")));
    assert!(!net.reaches(a, b, "10.0.0.1", "10.0.0.2"));
    assert_eq!(net.ends[a].tunnel.peers()[0].last_handshake(), None);
    assert_eq!(net.ends[b].tunnel.peers()[0].last_handshake(), None);
}

#[test]
fn a_peer_speaks_only_for_its_own_addresses() {
    let mut net = Net::new();
    let c_key = "GCl4Y2nZbxUvHNvFvVgFxFIqXJmPpqeMdhvhmOWyHXA=";
    let c_public = wireguard::key::Secret::parse(c_key).unwrap().public();
    let c_peer = format!("[Peer]\nPublicKey={c_public}\nAllowedIPs=10.0.0.0/24\n");
    let b = net.add("192.0.2.2:2", &b_file(&c_peer));
    let a = net.add("192.0.2.1:1", &a_file(""));
    let c_file = a_file("")
        .replace(A, c_key)
        .replace("AllowedIPs=", "AllowedIPs=10.0.0.0/8,");
    let c = net.add("192.0.2.3:3", &c_file);
    assert!(net.reaches(c, b, "10.0.0.3", "10.0.0.2"));
    // 10.0.0.1 is in both peers' networks, and A's is the longer.
    assert!(!net.reaches(c, b, "10.0.0.1", "10.0.0.2"));
    assert!(!net.reaches(c, b, "172.16.0.1", "10.0.0.2"));
    assert!(!net.reaches(a, b, "10.0.0.3", "10.0.0.2"));
    assert_eq!(net.dropped(b, Dropped::WrongSource), 3);
    // The same decides where packets go.
    assert!(net.reaches(b, a, "10.0.0.2", "10.0.0.1"));
    assert!(net.reaches(b, c, "10.0.0.2", "10.0.0.3"));
    net.send(b, &packet("10.0.0.2", "172.16.0.1", 40));
    assert_eq!(net.dropped(b, Dropped::NoPeer), 1);
}

#[test]
fn what_is_not_a_packet_or_not_a_message() {
    let mut net = pair();
    for packet in [
        &[][..],
        &[0x45],
        &[0x60; 39],
        &[0x45; 19],
        &[0x20; 100],
        &packet("10.0.0.1", "10.0.0.2", MAX_PACKET + 1),
        &vec![0x45; 65_535],
    ] {
        net.send(FROM_A, packet);
    }
    assert_eq!(net.dropped(FROM_A, Dropped::BadPacket), 7);
    let longest = packet("10.0.0.1", "10.0.0.2", MAX_PACKET);
    net.send(FROM_A, &longest);
    assert_eq!(net.packets(FROM_B), [longest]);
    let from = "203.0.113.1:5".parse().unwrap();
    let before = net.seen.len();
    let mut wrong = 0;
    for len in [
        0, 1, 3, 4, 31, 32, 63, 64, 91, 92, 147, 148, 149, 16_500, 65_507,
    ] {
        for kind in 0..=5 {
            let mut bytes = vec![0xaa; len];
            bytes
                .iter_mut()
                .zip([kind, 0, 0, 0])
                .for_each(|(byte, head)| *byte = head);
            net.inject(FROM_B, from, &bytes);
            wrong += 1;
        }
    }
    net.deliver();
    assert_eq!(net.seen.len(), before);
    assert!(net.packets(FROM_B).is_empty());
    assert_eq!(net.ends[FROM_B].tunnel.dropped().iter().sum::<u64>(), wrong);
    assert!(net.reaches(FROM_A, FROM_B, "10.0.0.1", "10.0.0.2"));
}

#[test]
fn a_genuine_peer_that_sends_rubbish_inside() {
    let mut net = pair();
    // The peer's own program would not let this through, so its interface is lied to: a packet whose
    // length field is more than there is.
    let mut cut = packet("10.0.0.1", "10.0.0.2", 100);
    cut[3] = 200;
    net.send(FROM_A, &cut);
    assert!(net.packets(FROM_B).is_empty());
    assert_eq!(net.dropped(FROM_B, Dropped::BadPacket), 1);
    assert!(net.reaches(FROM_A, FROM_B, "10.0.0.1", "10.0.0.2"));
}

#[test]
fn under_load_a_cookie_is_asked_for_and_the_peer_brings_it() {
    let mut net = Net::new();
    let b = net.add("192.0.2.2:2", &b_file(""));
    let mut flood = Net::new();
    flood.add(
        "203.0.113.1:5",
        &a_file("").replace(A, "GCl4Y2nZbxUvHNvFvVgFxFIqXJmPpqeMdhvhmOWyHXA="),
    );
    let strange = flood.seen[0].2.clone();
    for _ in 0..150 {
        net.inject(b, "203.0.113.1:5".parse().unwrap(), &strange);
    }
    net.deliver();
    // Those over the limit got cookies, smaller than what was sent.
    assert_eq!((net.count(3), net.dropped(b, Dropped::Stranger)), (50, 100));
    // The peer's first handshake meets the same, and its second has the cookie with it.
    let a = net.add("192.0.2.1:1", &a_file(""));
    assert_eq!((net.count(2), net.count(3)), (0, 51));
    for _ in 0..60 {
        net.pass(Duration::from_millis(100));
        for _ in 0..150 {
            net.inject(b, "203.0.113.1:5".parse().unwrap(), &strange);
        }
        net.deliver();
    }
    assert_eq!(net.count(2), 1);
    assert!(net.reaches(a, b, "10.0.0.1", "10.0.0.2"));
}

#[test]
fn nothing_goes_to_a_peer_that_nobody_has_heard_of() {
    let mut net = Net::new();
    let b = net.add("192.0.2.2:2", &b_file("PersistentKeepalive=25\n"));
    net.send(b, &packet("10.0.0.2", "10.0.0.1", 100));
    net.pass(Duration::from_secs(100));
    assert!(net.seen.is_empty());
    assert_eq!(net.dropped(b, Dropped::NoEndpoint), 1);
    // It calls in the end.
    let a = net.add("192.0.2.1:1", &a_file(""));
    assert!(net.reaches(b, a, "10.0.0.2", "10.0.0.1"));
}

#[test]
fn bytes_are_counted_as_they_are_on_the_wire() {
    let mut net = pair();
    assert!(net.reaches(FROM_A, FROM_B, "10.0.0.1", "10.0.0.2"));
    for end in 0..2 {
        let address = net.ends[end].address;
        let sum = |sent: bool| {
            let mine = net.seen.iter().filter(|(from, to, _)| {
                if sent {
                    *from == address
                } else {
                    *to == address
                }
            });
            mine.map(|(_, _, bytes)| bytes.len() as u64).sum::<u64>()
        };
        let peer = &net.ends[end].tunnel.peers()[0];
        assert_eq!((peer.sent(), peer.received()), (sum(true), sum(false)));
    }
}

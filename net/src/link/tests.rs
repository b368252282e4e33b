//! The driver with a hand-made network layer, frame by frame.

use std::net::{IpAddr, Ipv4Addr};

use scheme::Now;

use super::*;
use crate::ifnet::Activity;
use crate::ip::header::proto;
use crate::ip::testing::{HOST, PEER, bare, give_addr, ipv4};

const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// A network layer, and `eth0` in it, up, with an address.
struct Bench {
    ip: Ip,
    link: Link,
    id: AdapterId,
    dev: IfIndex,
}

impl Bench {
    fn new() -> Self {
        let (mut ip, mut link) = (bare(), Link::default());
        let id = link.attach_ethernet(&mut ip, OURS).unwrap();
        let dev = link.interface(id).unwrap();
        // Without IPv6 there is nothing on the wire but what a test sends.
        ip.set_mtu(dev, 1000).unwrap();
        link.autoconf_stop(&mut ip, id);
        give_addr(&mut ip, dev, &format!("{HOST}/24"));
        let mut bench = Self { ip, link, id, dev };
        // Discards the frames that the adapter sent when it was attached.
        bench.frames();
        bench
    }

    /// The system sends a packet to the peer.
    fn output(&mut self) -> Packet {
        let packet = ipv4(HOST, PEER, proto::UDP, b"hello");
        let (dev, next_hop) = (self.dev, IpAddr::from(PEER));
        self.ip
            .if_output(dev, Family::Inet, packet.clone(), next_hop)
            .unwrap();
        packet
    }

    /// Tells the driver what happened at its interface, as a turn does, and takes its frames.
    fn frames(&mut self) -> Vec<Packet> {
        let Self { ip, link, id, .. } = self;
        while let Some((_, activity)) = ip.ifs.poll_activity() {
            if activity.contains(Activity::QUEUED) {
                link.start(ip, *id);
            }
        }
        std::iter::from_fn(|| link.poll_frame(ip, *id)).collect()
    }

    /// Delivers a frame of the peer with an ARP message.
    fn arp(&mut self, dst: Mac, operation: u8, sender: Ipv4Addr, target: Ipv4Addr) {
        self.arp_by(THEIRS, dst, operation, (THEIRS, sender), target);
    }

    /// The same, in a frame of any station about any other.
    fn arp_by(
        &mut self,
        src: Mac,
        dst: Mac,
        operation: u8,
        (mac, sender): (Mac, Ipv4Addr),
        target: Ipv4Addr,
    ) {
        let mut frame = header(dst, src, ETHERTYPE_ARP).to_vec();
        frame.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, operation]);
        frame.extend_from_slice(&mac.0);
        frame.extend_from_slice(&sender.octets());
        frame.extend_from_slice(&[0; 6]);
        frame.extend_from_slice(&target.octets());
        self.link.handle_frame(&mut self.ip, self.id, &frame);
    }

    fn advance(&mut self, seconds: u64) {
        let time = Duration::from_secs(seconds);
        self.ip.now = Now {
            monotonic: time,
            wall: time,
        };
        self.link.run(&mut self.ip);
    }

    fn check_ledger(&self) {
        let ledger = self.ip.ifs.get(self.dev).unwrap().stats.output();
        assert_eq!(
            ledger.offered,
            ledger.delivered + ledger.queued + ledger.dropped
        );
    }
}

/// The target that an ARP request asks for, and its destination.
fn question(frame: &[u8]) -> (Ipv4Addr, Mac) {
    assert_eq!(frame[12..14], ETHERTYPE_ARP.to_be_bytes());
    assert_eq!(frame[20..22], [0, 1], "a request");
    let target: [u8; 4] = frame[38..42].try_into().unwrap();
    (target.into(), Mac(frame[..6].try_into().unwrap()))
}

#[test]
fn an_unknown_neighbour_is_asked_for_and_then_the_packet_leaves() {
    let mut bench = Bench::new();
    let packet = bench.output();
    let frames = bench.frames();
    assert_eq!(frames.len(), 1, "the packet waits");
    assert_eq!(question(&frames[0]), (PEER, Mac::BROADCAST));
    let another = bench.output();
    assert!(bench.frames().is_empty(), "asked already");
    bench.arp(OURS, 2, PEER, HOST);
    let frames = bench.frames();
    let expected = [packet, another].map(|mut packet| {
        packet.prepend(&header(THEIRS, OURS, ETHERTYPE_IPV4));
        packet
    });
    assert_eq!(frames, expected);
    bench.output();
    assert_eq!(bench.frames()[0][..6], THEIRS.0, "known from now on");
    bench.check_ledger();
}

#[test]
fn a_neighbour_that_does_not_answer_is_given_up_and_the_sender_hears_of_it() {
    use crate::ip::IcmpError;
    use crate::ip::icmp::Notice;

    let mut bench = Bench::new();
    bench.output();
    assert_eq!(bench.frames().len(), 1);
    for second in 1..=2 {
        bench.advance(second);
        let frames = bench.frames();
        assert_eq!(question(&frames[0]), (PEER, Mac::BROADCAST));
        assert!(bench.ip.poll_notice().is_none());
    }
    bench.advance(3);
    assert!(bench.frames().is_empty());
    let IcmpError { quoted, notice, .. } = bench.ip.poll_notice().unwrap();
    assert_eq!(notice, Notice::Unreachable);
    assert_eq!(quoted.endpoints.remote.0, IpAddr::from(PEER));
    let stats = &bench.ip.ifs.get(bench.dev).unwrap().stats;
    assert_eq!(stats.drops(DropReason::NoNeighbor), 1);
    bench.check_ledger();
}

#[test]
fn a_question_for_us_is_answered_and_the_asker_noted() {
    let mut bench = Bench::new();
    bench.arp(Mac::BROADCAST, 1, PEER, HOST);
    let frames = bench.frames();
    let [answer] = &frames[..] else {
        panic!("{} frames", frames.len());
    };
    assert_eq!(answer[..6], THEIRS.0);
    assert_eq!(answer[20..28], [0, 2, 2, 0, 0, 0, 0, 1]);
    bench.output();
    assert_eq!(bench.frames()[0][..6], THEIRS.0, "nobody has to ask");
    bench.arp(Mac::BROADCAST, 1, PEER, [10, 0, 0, 9].into());
    assert!(bench.frames().is_empty(), "another's question");
}

const ANOTHER: Mac = Mac([2, 0, 0, 0, 0, 3]);

/// The stations that frames with packets are sent to.
fn destinations(bench: &mut Bench) -> Vec<Mac> {
    let frames = bench.frames();
    let packets = frames.iter().filter(|frame| frame[12..14] == [8, 0]);
    packets
        .map(|frame| Mac(frame[..6].try_into().unwrap()))
        .collect()
}

#[test]
fn an_answer_counts_if_somebody_asked() {
    let mut bench = Bench::new();
    // Not asked for: it makes no entry, whether it is for us or for all.
    for dst in [OURS, Mac::BROADCAST] {
        bench.arp(dst, 2, PEER, HOST);
        bench.arp(dst, 2, PEER, PEER);
    }
    bench.output();
    assert_eq!(question(&bench.frames()[0]), (PEER, Mac::BROADCAST));
    // A card of several that share an address may answer for another.
    bench.arp_by(ANOTHER, OURS, 2, (THEIRS, PEER), HOST);
    assert_eq!(destinations(&mut bench), [THEIRS]);
    // But it cannot take the address over when nobody asks.
    bench.arp_by(THEIRS, OURS, 2, (ANOTHER, PEER), HOST);
    bench.output();
    assert_eq!(destinations(&mut bench), [THEIRS]);
    // Only the new owner itself can.
    bench.arp_by(ANOTHER, Mac::BROADCAST, 1, (ANOTHER, PEER), PEER);
    bench.output();
    assert_eq!(destinations(&mut bench), [ANOTHER]);
    bench.check_ledger();
}

#[test]
fn what_was_only_said_is_asked_about_when_it_is_used() {
    let mut bench = Bench::new();
    bench.arp(Mac::BROADCAST, 1, PEER, HOST);
    bench.frames();
    bench.advance(60);
    assert!(bench.frames().is_empty(), "nobody uses it");
    bench.output();
    assert_eq!(destinations(&mut bench), [THEIRS]);
    for (second, dst) in [(65, THEIRS), (66, THEIRS), (67, Mac::BROADCAST)] {
        bench.advance(second);
        assert_eq!(question(&bench.frames()[0]), (PEER, dst));
    }
    // What others hear is no proof; an answer to us is.
    bench.arp(Mac::BROADCAST, 1, PEER, [10, 0, 0, 9].into());
    bench.advance(68);
    assert!(bench.frames().is_empty());
    bench.output();
    assert_eq!(question(&bench.frames()[0]), (PEER, Mac::BROADCAST));
    bench.arp(OURS, 2, PEER, HOST);
    bench.frames();
    bench.output();
    assert_eq!(destinations(&mut bench), [THEIRS]);
    assert_eq!(bench.link.deadline(), None);
    bench.check_ledger();
}

#[test]
fn a_question_comes_from_one_station() {
    let broadcast = [10, 0, 0, 255].into();
    let group = [224, 0, 0, 1].into();
    let mut bench = Bench::new();
    for sender in [broadcast, group, Ipv4Addr::BROADCAST] {
        bench.arp(Mac::BROADCAST, 1, sender, HOST);
        assert!(bench.frames().is_empty(), "{sender}");
    }
    let all = Mac([0x01, 0, 0x5e, 0, 0, 1]);
    bench.arp_by(all, Mac::BROADCAST, 1, (THEIRS, PEER), HOST);
    bench.arp_by(THEIRS, Mac::BROADCAST, 1, (all, PEER), HOST);
    assert!(bench.frames().is_empty());
    // One that is about to take the address has none yet.
    bench.arp(Mac::BROADCAST, 1, Ipv4Addr::UNSPECIFIED, HOST);
    assert_eq!(bench.frames().len(), 1);
}

#[test]
fn a_frame_is_for_us_or_dropped_and_counted() {
    let mut bench = Bench::new();
    let packet = ipv4(PEER, HOST, proto::UDP, b"hello");
    let frame = |dst: Mac, src: Mac, ethertype: u16| {
        let mut frame = packet.clone();
        frame.prepend(&header(dst, src, ethertype));
        frame
    };
    let cases = [
        (
            &frame(THEIRS, THEIRS, ETHERTYPE_IPV4)[..],
            DropReason::NotForUs,
        ),
        (&frame(OURS, OURS, ETHERTYPE_IPV4)[..], DropReason::NotForUs),
        (&frame(OURS, THEIRS, 0x88cc)[..], DropReason::UnknownFamily),
        (&packet[..HEADER - 1], DropReason::Malformed),
        (
            &frame(OURS, THEIRS, ETHERTYPE_ARP)[..],
            DropReason::Malformed,
        ),
    ];
    for (frame, reason) in cases {
        let drops = |bench: &Bench| bench.ip.ifs.get(bench.dev).unwrap().stats.drops(reason);
        let before = drops(&bench);
        bench.link.handle_frame(&mut bench.ip, bench.id, frame);
        assert_eq!(drops(&bench), before + 1, "{reason:?}");
        assert!(!bench.ip.has_work());
    }
    let good = frame(OURS, THEIRS, ETHERTYPE_IPV4);
    bench.link.handle_frame(&mut bench.ip, bench.id, &good);
    assert!(bench.ip.has_work());
}

#[test]
fn an_adapter_that_is_gone_sends_nothing() {
    let mut bench = Bench::new();
    bench.output();
    bench.frames();
    bench.link.detach_ethernet(&mut bench.ip, bench.id);
    assert!(bench.ip.ifs.get(bench.dev).is_none());
    assert!(bench.link.poll_frame(&mut bench.ip, bench.id).is_none());
    assert_eq!(bench.link.deadline(), None);
    bench
        .link
        .handle_frame(&mut bench.ip, bench.id, &[0xff; 60]);
    assert!(!bench.ip.has_work());
}

#[test]
fn frames_before_the_send_queue_are_bounded() {
    let mut bench = Bench::new();
    let hosts = || (2..102).map(|host| Ipv4Addr::new(10, 0, 0, host));
    for host in hosts() {
        for _ in 0..64 {
            let (packet, dev) = (ipv4(HOST, host, proto::UDP, b"hello"), bench.dev);
            let sent = bench.ip.if_output(dev, Family::Inet, packet, host.into());
            sent.unwrap();
        }
        bench.frames();
    }
    // All answer before the adapter takes a frame.
    for host in hosts() {
        bench.arp(OURS, 2, host, HOST);
    }
    let stats = &bench.ip.ifs.get(bench.dev).unwrap().stats;
    let dropped = 6400 - MAX_FRAMES as u64;
    assert_eq!(stats.output().queued, MAX_FRAMES as u64);
    assert_eq!(stats.drops(DropReason::QueueFull), dropped);
    bench.check_ledger();
    assert_eq!(bench.frames().len(), MAX_FRAMES);
}

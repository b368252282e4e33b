//! Reports of groups, in the version of the queriers.

use std::time::Duration;

use super::*;
use crate::ifnet::MemberKind;
use crate::ip::testing::ipv4;

/// A machine with addresses on a tunnel that is in these groups, all of which has been reported.
fn member(groups: &[&str]) -> (Ip, IfIndex) {
    let (mut ip, [dev]) = machine([&["10.9.0.1/24", "fe80::1/64"]]);
    for group in groups {
        assert!(ip.group_join(dev, group.parse().unwrap(), MemberKind::Setting, 999));
    }
    wait(&mut ip, dev, 20_000);
    (ip, dev)
}

/// What is sent within this time, milliseconds.
fn wait(ip: &mut Ip, dev: IfIndex, millis: u64) -> Vec<Packet> {
    let until = ip.now.monotonic + Duration::from_millis(millis);
    while let Some(at) = ip.deadline().filter(|at| *at <= until) {
        ip.now.monotonic = at;
        ip.netisr_expire();
    }
    ip.now.monotonic = until;
    sent(ip, dev)
}

/// A query of IGMP, for a group or all.
fn igmp(ip: &mut Ip, dev: IfIndex, code: u8, group: [u8; 4], rest: &[u8]) {
    let mut query = [&[0x11, code, 0, 0], &group[..], rest].concat();
    let sum = checksum::fill_plain(&query);
    query[2..4].copy_from_slice(&sum.to_be_bytes());
    let (src, all) = ("10.9.0.2".parse().unwrap(), "224.0.0.1".parse().unwrap());
    let packet = ipv4(src, all, proto::IGMP, &query);
    assert_eq!(arrive(ip, dev, packet), Some(Verdict::Delivered));
}

/// A query of MLD.
fn mld(ip: &mut Ip, dev: IfIndex, code: u16, group: &str, rest: &[u8]) {
    let group: std::net::Ipv6Addr = group.parse().unwrap();
    let body = [&group.octets()[..], rest].concat();
    let mut query = icmp6("fe80::9", "ff02::1", 130, &body);
    query[4..6].copy_from_slice(&code.to_be_bytes());
    query[2..4].fill(0);
    let [src, dst] = ["fe80::9", "ff02::1"].map(|text| text.parse().unwrap());
    let sum = checksum::fill(&src, &dst, proto::ICMPV6, &query);
    query[2..4].copy_from_slice(&sum.to_be_bytes());
    let alert = [proto::ICMPV6, 0, 5, 2, 0, 0, 1, 0];
    let payload = [&alert[..], &query].concat();
    let mut packet = ipv6("fe80::9", "ff02::1", proto::HOP_BY_HOP, &payload);
    packet[7] = 1;
    assert_eq!(arrive(ip, dev, &packet[..]), Some(Verdict::Delivered));
}

/// What a report says, if its headers are right: to whom, the type, and what is behind.
fn said(packet: &Packet) -> (String, u8, Vec<u8>) {
    let (dst, message) = match packet[0] >> 4 {
        4 => {
            assert_eq!((packet[0], packet[8], packet[9]), (0x46, 1, proto::IGMP));
            assert!(checksum::verify_plain(&packet[..24]) && checksum::verify_plain(&packet[24..]));
            assert_eq!(packet[20..24], [148, 4, 0, 0]);
            (
                crate::ip::destination_of(Family::Inet, packet),
                &packet[24..],
            )
        }
        _ => {
            assert_eq!((packet[6], packet[7]), (proto::HOP_BY_HOP, 1));
            assert_eq!(packet[40..48], [proto::ICMPV6, 0, 5, 2, 0, 0, 1, 0]);
            let dst = crate::ip::destination_of(Family::Inet6, packet);
            let src = "fe80::1".parse().unwrap();
            assert!(checksum::verify(&src, &dst, proto::ICMPV6, &packet[48..]));
            (dst, &packet[48..])
        }
    };
    (dst.to_string(), message[0], message[4..].to_vec())
}

#[test]
fn one_message_has_records_of_all_groups() {
    let groups = ["239.1.0.1", "239.1.0.2", "ff05::1", "ff05::2"];
    let (mut ip, dev) = member(&groups);
    igmp(&mut ip, dev, 10, [0; 4], &[2, 125, 0, 0]);
    let answers = wait(&mut ip, dev, 1000);
    let mut records = vec![0, 0, 0, 2];
    records.extend([2, 0, 0, 0, 239, 1, 0, 1, 2, 0, 0, 0, 239, 1, 0, 2]);
    let dst = "224.0.0.22".to_owned();
    assert_eq!(
        answers.iter().map(said).collect::<Vec<_>>(),
        [(dst, 0x22, records)]
    );
    mld(&mut ip, dev, 1000, "::", &[2, 125, 0, 0]);
    let answers = wait(&mut ip, dev, 1000);
    let [(dst, kind, records)] = &answers.iter().map(said).collect::<Vec<_>>()[..] else {
        panic!("{answers:?}");
    };
    assert_eq!((&dst[..], *kind), ("ff02::16", 143));
    let group = |last| [&[2, 0, 0, 0, 0xff, 5][..], &[0; 13], &[last]].concat();
    assert_eq!(records[..], [vec![0, 0, 0, 2], group(1), group(2)].concat());
}

#[test]
fn a_message_is_no_longer_than_a_packet() {
    let groups: Vec<_> = (0..200).map(|last| format!("239.1.0.{last}")).collect();
    let groups: Vec<_> = groups.iter().map(String::as_str).collect();
    let (mut ip, dev) = member(&groups);
    igmp(&mut ip, dev, 10, [0; 4], &[2, 125, 0, 0]);
    let lengths: Vec<_> = wait(&mut ip, dev, 1000)
        .iter()
        .map(|packet| packet.len())
        .collect();
    assert_eq!(lengths, [32 + 183 * 8, 32 + 17 * 8]);
    // However short that is.
    ip.ifs.get_mut(dev).unwrap().mtu = 30;
    igmp(&mut ip, dev, 10, [0; 4], &[2, 125, 0, 0]);
    assert_eq!(wait(&mut ip, dev, 1000).len(), 200);
}

#[test]
fn a_group_or_its_sources_are_asked_for() {
    let (mut ip, dev) = member(&["239.1.0.1", "239.1.0.2", "ff05::1", "ff05::2"]);
    for rest in [&[2, 125, 0, 0][..], &[2, 125, 0, 1, 10, 9, 0, 7]] {
        igmp(&mut ip, dev, 10, [239, 1, 0, 2], rest);
        let answers: Vec<_> = wait(&mut ip, dev, 1000).iter().map(said).collect();
        let record = vec![0, 0, 0, 1, 2, 0, 0, 0, 239, 1, 0, 2];
        assert_eq!(answers, [("224.0.0.22".to_owned(), 0x22, record)]);
    }
    mld(&mut ip, dev, 1000, "ff05::2", &[2, 125, 0, 0]);
    let answers: Vec<_> = wait(&mut ip, dev, 1000).iter().map(said).collect();
    assert_eq!((answers.len(), answers[0].2.len()), (1, 24));
    // Nobody answers for a group that was left meanwhile, or for others.
    igmp(&mut ip, dev, 100, [239, 1, 0, 2], &[2, 125, 0, 0]);
    ip.group_leave(dev, "239.1.0.2".parse().unwrap(), MemberKind::Setting);
    let kinds = |packets: Vec<Packet>| {
        packets
            .iter()
            .map(|packet| said(packet).2[4])
            .collect::<Vec<_>>()
    };
    assert_eq!(
        kinds(wait(&mut ip, dev, 20_000)),
        [3, 3],
        "it left, said twice"
    );
    igmp(&mut ip, dev, 10, [239, 9, 9, 9], &[2, 125, 0, 0]);
    assert_eq!(kinds(wait(&mut ip, dev, 1000)), []);
}

#[test]
fn an_older_querier_hears_what_it_understands() {
    const GROUP: [u8; 4] = [239, 1, 0, 1];

    let (mut ip, dev) = member(&["239.1.0.1", "ff05::1"]);
    let member = MemberKind::Setting;
    let other = [239, 1, 0, 2].into();
    for (code, report, leave) in [(0, 0x12, None), (10, 0x16, Some(0x17))] {
        // No querier of version 1 is there any more.
        wait(&mut ip, dev, 300_000);
        igmp(&mut ip, dev, code, [0; 4], &[]);
        // A newer one beside it does not change that.
        igmp(&mut ip, dev, 10, [0; 4], &[2, 125, 0, 0]);
        let answers: Vec<_> = wait(&mut ip, dev, 10_000).iter().map(said).collect();
        assert_eq!(answers, [("239.1.0.1".to_owned(), report, GROUP.to_vec())]);
        ip.group_join(dev, other, member, 9);
        let joined: Vec<_> = wait(&mut ip, dev, 10_000)
            .iter()
            .map(|sent| said(sent).1)
            .collect();
        assert_eq!(joined, [report; 2]);
        ip.group_leave(dev, other, member);
        let left = wait(&mut ip, dev, 10_000);
        let left: Vec<_> = left
            .iter()
            .map(said)
            .map(|(dst, kind, _)| (dst, kind))
            .collect();
        let routers = "224.0.0.2".to_owned();
        assert_eq!(
            left,
            leave
                .map(|kind| (routers, kind))
                .into_iter()
                .collect::<Vec<_>>()
        );
    }
    // It is gone, after 2 * 125 s and the time that it gave.
    wait(&mut ip, dev, 221_000);
    ip.group_join(dev, other, member, 9);
    let joined: Vec<_> = wait(&mut ip, dev, 10_000)
        .iter()
        .map(|sent| said(sent).1)
        .collect();
    assert_eq!(joined, [0x22; 2]);

    mld(&mut ip, dev, 1000, "ff05::1", &[]);
    mld(&mut ip, dev, 1000, "ff05::1", &[2, 125, 0, 0]);
    let answers: Vec<_> = wait(&mut ip, dev, 1000).iter().map(said).collect();
    assert_eq!(
        (answers.len(), &answers[0].0[..], answers[0].1),
        (1, "ff05::1", 131)
    );
    ip.group_leave(dev, "ff05::1".parse().unwrap(), member);
    let left: Vec<_> = wait(&mut ip, dev, 10_000).iter().map(said).collect();
    assert_eq!((left.len(), &left[0].0[..], left[0].1), (1, "ff02::2", 132));
    // IGMP has queriers of its own.
    ip.group_leave(dev, other, member);
    assert_eq!(said(&wait(&mut ip, dev, 1000)[0]).1, 0x22);
}

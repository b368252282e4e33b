//! How far addresses are valid, and which groups are heard.

use std::net::IpAddr;
use std::time::Duration;

use super::super::testing::ipv4;
use super::*;
use crate::ifnet::MemberKind;
use crate::ip::NetError;

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn the_source_reaches_the_destination() {
    let none: &[&str] = &[];
    let (ip, [dev, ..]) = machine([none, &["fe80::1/64"], &["fe80::2/64", "fd09::1/64"]]);
    let source = |dst: &str| ip.route_to(&addr(dst), Some(dev)).unwrap().src;
    assert_eq!(source("2001:db8::1"), Some(addr("fd09::1")));
    assert_eq!(source("ff05::5"), Some(addr("fd09::1")));
    // That of another link means nothing on this one.
    let (ip, [dev, _]) = machine([none, &["fe80::1/64"]]);
    assert_eq!(
        ip.route_to(&addr("2001:db8::1"), Some(dev)).unwrap().src,
        None
    );
    assert_eq!(ip.route_to(&addr("fe80::9"), Some(dev)).unwrap().src, None);
    // One's own of too small a scope is better than none.
    let (ip, [dev]) = machine([&["fe80::1/64"]]);
    let path = ip.route_to(&addr("2001:db8::1"), Some(dev)).unwrap();
    assert_eq!(path.src, Some(addr("fe80::1")));
}

#[test]
fn groups_of_the_interface_stay_whatever_their_flags() {
    let (mut ip, [dev]) = machine([&["fd09::1/64"]]);
    for group in ["ff01::5", "ff11::5", "ff31::5", "ff10::5"] {
        ip.group_join(dev, addr(group), MemberKind::Setting, 9);
        assert!(sent(&mut ip, dev).is_empty(), "{group}");
        let echo = icmp6("fd09::2", group, 128, b"");
        let packet = ipv6("fd09::2", group, proto::ICMPV6, &echo);
        let verdict = arrive(&mut ip, dev, &packet[..]);
        assert_eq!(verdict, Some(Verdict::Dropped(DropReason::BadDestination)));
        let path = ip.route_to(&addr(group), Some(dev)).unwrap();
        let src = path.src.unwrap();
        let data = Packet::zeroed(8);
        assert_eq!(ip.ip_output(path, src, addr(group), 17, 1, data), Ok(()));
        assert!(sent(&mut ip, dev).is_empty(), "{group}");
    }
}

#[test]
fn a_mapped_address_is_on_no_wire() {
    let (mut ip, [dev, _]) = machine([&["fd09::1/64"], &["::1.2.3.4/1"]]);
    ip.forwarding = true;
    let mapped = "::ffff:10.9.0.2";
    assert_eq!(ip.route_to(&addr(mapped), None), Err(NetError::NoRoute));
    assert_eq!(ip.way_to(&addr(mapped), Some(dev)), Err(NetError::NoRoute));
    let to = ipv6("fd09::2", mapped, proto::NO_NEXT, b"");
    let verdict = arrive(&mut ip, dev, &to[..]);
    assert_eq!(verdict, Some(Verdict::Dropped(DropReason::BadDestination)));
    let from = ipv6(mapped, "fd09::1", proto::NO_NEXT, b"");
    let verdict = arrive(&mut ip, dev, &from[..]);
    assert_eq!(verdict, Some(Verdict::Dropped(DropReason::BadSource)));
}

#[test]
fn a_query_of_mld_comes_from_the_link_and_is_seen_by_routers() {
    for (options, hop_limit, heard) in [
        ([proto::ICMPV6, 0, 5, 2, 0, 0, 1, 0], 1, true),
        ([proto::ICMPV6, 0, 1, 0, 5, 2, 0, 0], 1, true),
        ([proto::ICMPV6, 0, 1, 4, 0, 0, 0, 0], 1, false),
        ([proto::ICMPV6, 0, 5, 2, 0, 0, 1, 0], 2, false),
    ] {
        let (mut ip, [dev]) = machine([&["fe80::1/64"]]);
        ip.group_join(dev, addr("ff05::5"), MemberKind::Setting, 9);
        ip.now.monotonic = Duration::from_secs(20);
        ip.netisr_expire();
        assert_eq!(ip.deadline(), None);
        let query = icmp6("fe80::9", "ff02::1", 130, &[0; 16]);
        let payload = [&options[..], &query].concat();
        let mut packet = ipv6("fe80::9", "ff02::1", proto::HOP_BY_HOP, &payload);
        packet[7] = hop_limit;
        arrive(&mut ip, dev, &packet[..]);
        assert_eq!(ip.deadline().is_some(), heard, "{options:?} {hop_limit}");
        if heard {
            // Without the options, nobody on the way has looked at it.
            let (mut ip, [dev]) = machine([&["fe80::1/64"]]);
            ip.now.monotonic = Duration::from_secs(20);
            ip.netisr_expire();
            let mut bare = ipv6("fe80::9", "ff02::1", proto::ICMPV6, &query);
            bare[7] = 1;
            let verdict = arrive(&mut ip, dev, &bare[..]);
            assert_eq!(verdict, Some(Verdict::Dropped(DropReason::NotWanted)));
        }
    }
}

#[test]
fn version_one_of_igmp_waits_ten_seconds() {
    let latest = |tenths: u8| {
        let (mut ip, [dev]) = machine([&["10.9.0.1/24"]]);
        for last in 1..=50 {
            ip.group_join(
                dev,
                addr(&format!("239.1.2.{last}")),
                MemberKind::Setting,
                99,
            );
        }
        ip.now.monotonic = Duration::from_secs(20);
        ip.netisr_expire();
        let mut query = [0x11, tenths, 0, 0, 0, 0, 0, 0];
        let sum = checksum::fill_plain(&query);
        query[2..4].copy_from_slice(&sum.to_be_bytes());
        let (src, all) = ("10.9.0.2".parse().unwrap(), "224.0.0.1".parse().unwrap());
        arrive(&mut ip, dev, ipv4(src, all, proto::IGMP, &query));
        let mut last = Duration::ZERO;
        while let Some(at) = ip.deadline() {
            last = at - Duration::from_secs(20);
            ip.now.monotonic = at;
            ip.netisr_expire();
        }
        last
    };
    let [v1, v2] = [latest(0), latest(20)];
    assert!(
        v1 > Duration::from_secs(5) && v1 <= Duration::from_secs(10),
        "{v1:?}"
    );
    assert!(v2 <= Duration::from_secs(2), "{v2:?}");
}

#[test]
fn an_address_of_a_link_is_ours_on_that_link_only() {
    let (mut ip, [one, two]) = machine([&["fe80::1/64"], &["fe80::2/64"]]);
    let mut ask = |dev, dst: &str| {
        let echo = icmp6("fe80::99", dst, 128, b"");
        let packet = ipv6("fe80::99", dst, proto::ICMPV6, &echo);
        arrive(&mut ip, dev, &packet[..]);
        (sent(&mut ip, one).len(), sent(&mut ip, two).len())
    };
    assert_eq!(ask(one, "fe80::1"), (1, 0));
    assert_eq!(ask(two, "fe80::2"), (0, 1));
    assert_eq!(ask(two, "fe80::1"), (0, 0));
    assert_eq!(ask(one, "fe80::2"), (0, 0));
    assert_eq!(ask(two, "ff02::1"), (0, 1));
    // Another host may have there what is ours here, and this host still reaches its own.
    let lo0 = ip.ifs.loopback().unwrap().index;
    assert_eq!(ip.way_to(&addr("fe80::1"), Some(two)).unwrap().dev, two);
    assert_eq!(ip.way_to(&addr("fe80::1"), Some(one)).unwrap().dev, lo0);
    assert_eq!(ip.way_to(&addr("fe80::1"), None).unwrap().dev, lo0);
    assert_eq!(
        ip.ifs.link_of(&addr("fe80::2"), &addr("fe80::99")),
        Some(two)
    );
    // An error goes back by the same link.
    let packet = ipv6("fe80::99", "fe80::2", 99, b"");
    arrive(&mut ip, two, &packet[..]);
    assert_eq!((sent(&mut ip, one).len(), sent(&mut ip, two).len()), (0, 1));
}

#[test]
fn a_small_mtu_takes_the_groups_of_ipv6() {
    let (mut ip, [dev]) = machine([&["fd09::1/64", "10.9.0.1/24"]]);
    for group in ["ff05::5", "239.1.2.3"] {
        assert!(ip.group_join(dev, addr(group), MemberKind::Setting, 9));
    }
    ip.set_mtu(dev, 1279).unwrap();
    let ifp = ip.ifs.get(dev).unwrap();
    assert!(ifp.groups.keys().all(IpAddr::is_ipv4) && ifp.groups.len() == 1);
    sent(&mut ip, dev);
    ip.now.monotonic = Duration::from_secs(20);
    ip.netisr_expire();
    assert_eq!(sent(&mut ip, dev).len(), 1);
}

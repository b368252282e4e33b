//! Autoconfiguration of an adapter: its own address, the router, and the network's prefixes. Frames
//! and time are made by hand.
#![allow(missing_docs)]

mod common;

use std::net::Ipv6Addr;
use std::time::Duration;

use common::packet;
use common::wire::{PEER, US, Wire};
use scheme::{FileServer, Now, OpenFlags, errno};

const LINK_LOCAL: &str = "fe80::ff:fe00:1";
const ROUTER: &str = "fe80::1";
const ALL_NODES: &str = "ff02::1";
const HOUR: u32 = 3600;
const BOTH: OpenFlags = OpenFlags::READ.union(OpenFlags::WRITE);

/// An IPv6 frame that we sent: source, destination, ICMP type, and the ICMP message.
#[derive(Debug)]
struct Sent {
    src: Ipv6Addr,
    dst: Ipv6Addr,
    kind: u8,
    message: Vec<u8>,
}

fn addr(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// All frames sent since the last call.
fn sent(wire: &Wire) -> Vec<Sent> {
    let mut all = Vec::new();
    while let Some((_, ethertype, packet)) = wire.sent() {
        assert_eq!(ethertype, 0x86dd);
        let field = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap());
        // Group reports have a hop-by-hop header in between.
        let message = if packet[6] == 0 { 48 } else { 40 };
        all.push(Sent {
            src: field(8),
            dst: field(24),
            kind: packet[message],
            message: packet[message..].to_vec(),
        });
    }
    all
}

/// The frames of one type among them.
fn sent_of(wire: &Wire, kind: u8) -> Vec<Sent> {
    let mut sent = sent(wire);
    sent.retain(|sent| sent.kind == kind);
    sent
}

const SOLICITATION: u8 = 133;
const NEIGHBOR_SOLICITATION: u8 = 135;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;
const MLD_REPORT: u8 = 143;

/// An option that advertises a /64: on the link or not, valid and preferred for this many seconds.
fn prefix(net: &str, on_link: bool, valid: u32, preferred: u32) -> Vec<u8> {
    let flags = if on_link { 0xc0 } else { 0x40 };
    let mut option = vec![3, 4, 64, flags];
    option.extend_from_slice(&valid.to_be_bytes());
    option.extend_from_slice(&preferred.to_be_bytes());
    option.extend_from_slice(&[0; 4]);
    option.extend_from_slice(&addr(net).octets());
    option
}

/// The same, for a prefix of any length, with any flags.
fn prefix_as(net: &str, len: u8, flags: u8, valid: u32) -> Vec<u8> {
    let mut option = prefix(net, true, valid, valid);
    option[2..4].copy_from_slice(&[len, flags]);
    option
}

/// A router advertises itself for this many seconds.
fn advertise(wire: &Wire, router: &str, seconds: u16, options: &[Vec<u8>]) {
    advertise_as(wire, router, 0, seconds, options);
}

/// The same, with flags.
fn advertise_as(wire: &Wire, router: &str, flags: u8, seconds: u16, options: &[Vec<u8>]) {
    let mut message = vec![134, 0, 0, 0, 64, flags];
    message.extend_from_slice(&seconds.to_be_bytes());
    message.extend_from_slice(&[0; 8]);
    // The router's hardware address.
    message.extend_from_slice(&[1, 1]);
    message.extend_from_slice(&PEER.0);
    message.extend(options.concat());
    let packet = packet::icmpv6(addr(router), addr(ALL_NODES), &message);
    wire.send([0x33, 0x33, 0, 0, 0, 1], 0x86dd, &packet);
}

/// A neighbour asks for, or claims, an address.
fn neighbor(wire: &Wire, kind: u8, src: &str, dst: &str, target: &str) {
    let mut message = vec![kind, 0, 0, 0, 0x20, 0, 0, 0];
    message.extend_from_slice(&addr(target).octets());
    if kind == NEIGHBOR_ADVERTISEMENT {
        message.extend_from_slice(&[2, 1]);
        message.extend_from_slice(&PEER.0);
    }
    let dst = addr(dst);
    let [.., a, b, c, d] = dst.octets();
    let packet = packet::icmpv6(addr(src), dst, &message);
    wire.send([0x33, 0x33, a, b, c, d], 0x86dd, &packet);
}

/// Discards the frames sent so far.
fn settle(wire: &Wire) {
    while wire.sent().is_some() {}
}

fn addrs(wire: &Wire) -> Vec<String> {
    let text = wire.text("ifaces/eth0/addr/list");
    text.lines().map(str::to_owned).collect()
}

/// The default routes.
fn defaults(wire: &Wire) -> Vec<String> {
    let text = wire.text("route/list");
    let lines = text.lines().filter(|line| line.starts_with("default"));
    lines.map(str::to_owned).collect()
}

#[test]
fn an_address_is_asked_for_before_it_is_taken() {
    let wire = Wire::fresh();
    assert!(addrs(&wire).is_empty());
    // The group is reported first, so that switches learn of it.
    let [report, probe] = &sent(&wire)[..] else {
        panic!("two frames");
    };
    assert_eq!((report.kind, report.src), (MLD_REPORT, addr("::")));
    assert_eq!((probe.kind, probe.src), (NEIGHBOR_SOLICITATION, addr("::")));
    assert_eq!(probe.dst, addr("ff02::1:ff00:1"));
    assert_eq!(probe.message[8..24], addr(LINK_LOCAL).octets());
    assert_eq!(probe.message.len(), 24, "it has no address to be found at");
    // The address is not ours yet: requests for it are not answered.
    wire.wait(500);
    sent(&wire);
    neighbor(
        &wire,
        NEIGHBOR_SOLICITATION,
        "fe80::2",
        "ff02::1:ff00:1",
        LINK_LOCAL,
    );
    assert!(sent_of(&wire, NEIGHBOR_ADVERTISEMENT).is_empty());
    wire.wait(500);
    assert_eq!(addrs(&wire), [format!("{LINK_LOCAL}/64")]);
    neighbor(
        &wire,
        NEIGHBOR_SOLICITATION,
        "::",
        "ff02::1:ff00:1",
        LINK_LOCAL,
    );
    assert_eq!(
        sent_of(&wire, NEIGHBOR_ADVERTISEMENT)[0].dst,
        addr(ALL_NODES)
    );
    wire.assert_ledger_closes();
}

/// As in a daemon: adapters exist before the first turn.
#[test]
fn time_does_not_begin_with_the_adapter() {
    let config = net::Config::default();
    let mut net = net::Host::new(config, common::system::TestProcesses);
    let port = net.attach_ethernet(US).unwrap();
    let time = Duration::from_secs(12_345);
    let turn = net.turn(Now {
        monotonic: time,
        wall: time,
    });
    let first = turn.deadline.unwrap() - time;
    assert!(first <= Duration::from_secs(1));
    assert!(net.interface("eth0").unwrap().addrs.is_empty());
    assert!(net.poll_frame(port).is_some(), "somebody is asked");
}

#[test]
fn an_address_that_somebody_has_is_not_taken() {
    // Another station says that it has the address, or is about to take it too.
    let rivals = [
        (NEIGHBOR_ADVERTISEMENT, LINK_LOCAL, ALL_NODES),
        (NEIGHBOR_SOLICITATION, "::", "ff02::1:ff00:1"),
    ];
    for (kind, src, dst) in rivals {
        let wire = Wire::fresh();
        wire.wait(500);
        neighbor(&wire, kind, src, dst, LINK_LOCAL);
        wire.wait(60_000);
        assert!(addrs(&wire).is_empty());
        assert_eq!(wire.text("ifaces/eth0/multicast"), "");
        // Bringing the interface up again means to try again.
        wire.set("ifaces/eth0/flags", "down\n").unwrap();
        wire.set("ifaces/eth0/flags", "up\n").unwrap();
        wire.wait(1000);
        assert_eq!(addrs(&wire), [format!("{LINK_LOCAL}/64")]);
        wire.assert_ledger_closes();
    }
}

/// RFC 7559 section 2.
#[test]
fn routers_are_asked_for_until_one_answers() {
    let wire = Wire::fresh();
    let mut solicitations = Vec::new();
    for second in 0..4 * 3600 {
        wire.wait(1000);
        let sent = sent_of(&wire, SOLICITATION);
        solicitations.extend(sent.into_iter().map(|sent| (second, sent)));
    }
    let (_, last) = &solicitations[2];
    assert_eq!((last.src, last.dst), (addr(LINK_LOCAL), addr("ff02::2")));
    assert_eq!(last.message[8..], [&[1, 1][..], &US.0].concat());
    let times: Vec<_> = solicitations.iter().map(|(second, _)| *second).collect();
    assert_eq!(times[0], 0);
    let pauses: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!((3..=5).contains(&pauses[0]), "{pauses:?}");
    for pair in pauses.windows(2) {
        // Twice as long, to a tenth and the second that is looked at; or the longest.
        let (least, most) = (pair[0] * 19 / 10 - 2, pair[0] * 21 / 10 + 2);
        let longest = (3239..=3961).contains(&pair[1]);
        assert!((least..=most).contains(&pair[1]) || longest, "{pauses:?}");
    }
    assert!(
        pauses.last().is_some_and(|pause| *pause > 3000),
        "{pauses:?}"
    );
    // However late, an answer ends it.
    advertise(&wire, ROUTER, u16::MAX, &[]);
    wire.wait(4 * 3600 * 1000);
    assert!(sent_of(&wire, SOLICITATION).is_empty());
    // A station that answers is not asked again.
    let wire = Wire::fresh();
    wire.wait(2000);
    assert_eq!(sent_of(&wire, SOLICITATION).len(), 1);
    advertise(&wire, ROUTER, 1800, &[]);
    wire.wait(60_000);
    assert!(sent_of(&wire, SOLICITATION).is_empty());
}

#[test]
fn a_router_and_its_prefixes() {
    let wire = Wire::new();
    let options = [
        prefix("2001:db8:1::", true, 4 * HOUR, HOUR),
        // Unknown options are ignored.
        vec![25, 1, 0, 0, 0, 0, 0, 0],
        prefix("fd00:1::", false, 4 * HOUR, HOUR),
    ];
    advertise(&wire, ROUTER, 1800, &options);
    // An advertisement that says the same changes nothing.
    advertise(&wire, ROUTER, 1800, &options);
    let probes = sent_of(&wire, NEIGHBOR_SOLICITATION);
    assert_eq!(probes.len(), 2);
    wire.wait(1000);
    let link_local = format!("{LINK_LOCAL}/64");
    assert_eq!(
        addrs(&wire),
        [
            &link_local,
            "2001:db8:1::ff:fe00:1/64",
            "fd00:1::ff:fe00:1/128"
        ]
    );
    let default = wire.text("route/list");
    assert!(default.contains("default via fe80::1 dev eth0 metric 1025\n"));
    // There is a route: to the router's address, and with the right source address.
    let icmp = wire.process.open("/scheme/icmp/echo/2001:db8:9::9", BOTH);
    let icmp = icmp.unwrap();
    wire.process.write(icmp, &[0, 1, 9, 9]).unwrap();
    let request = &sent_of(&wire, 128)[0];
    assert_eq!(request.src, addr("2001:db8:1::ff:fe00:1"));
    // An address that dhcpd sets does not remove them.
    wire.take_address();
    assert_eq!(addrs(&wire).len(), 4);
    // After its preferred lifetime no connection uses an address, and later it is removed; so is
    // the router.
    wire.wait(u64::from(HOUR) * 1000);
    assert!(defaults(&wire).is_empty());
    assert_eq!(addrs(&wire).len(), 4);
    advertise(
        &wire,
        ROUTER,
        9000,
        &[prefix("2001:db8:2::", true, 4 * HOUR, HOUR)],
    );
    wire.wait(1000);
    sent(&wire);
    wire.process.write(icmp, &[0, 2, 9, 9]).unwrap();
    let request = &sent_of(&wire, 128)[0];
    assert_eq!(request.src, addr("2001:db8:2::ff:fe00:1"));
    wire.wait(u64::from(3 * HOUR) * 1000);
    let left = ["10.0.0.1/24", "2001:db8:2::ff:fe00:1/64"];
    let mut now = addrs(&wire);
    now.retain(|own| *own != link_local);
    assert_eq!(now, left);
    wire.assert_ledger_closes();
}

#[test]
fn what_is_forged_or_senseless_changes_nothing() {
    let wire = Wire::new();
    let good = prefix("2001:db8:1::", true, HOUR, HOUR);
    let mut options = vec![
        prefix("fe80::", true, HOUR, HOUR),
        prefix("ff05::", true, HOUR, HOUR),
        prefix("2001:db8:2::", true, HOUR, 2 * HOUR),
        prefix("2001:db8:3::", true, 0, 0),
    ];
    let mut long = prefix("2001:db8:4::", true, HOUR, HOUR);
    long[2] = 96;
    let mut not_for_addresses = prefix("2001:db8:5::", true, HOUR, HOUR);
    not_for_addresses[3] = 0x80;
    options.extend([long, not_for_addresses]);
    advertise(&wire, ROUTER, 0, &options);
    // From beyond the link, or not from a station on it.
    advertise(&wire, "2001:db8::1", 1800, std::slice::from_ref(&good));
    let mut message = vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(&good);
    let mut far = packet::icmpv6(addr(ROUTER), addr(ALL_NODES), &message);
    far[7] = 254;
    wire.send([0x33, 0x33, 0, 0, 0, 1], 0x86dd, &far);
    message[1] = 1;
    let coded = packet::icmpv6(addr(ROUTER), addr(ALL_NODES), &message);
    wire.send([0x33, 0x33, 0, 0, 0, 1], 0x86dd, &coded);
    // An option without a length, and a truncated one.
    for end in [&[3, 0, 64, 0xc0, 0, 0, 0, 0][..], &good[..24]] {
        advertise(&wire, ROUTER, 1800, &[end.to_vec()]);
    }
    wire.wait(2000);
    assert_eq!(addrs(&wire), [format!("{LINK_LOCAL}/64")]);
    assert!(defaults(&wire).is_empty());
    // No router can end the lifetime of an address before two hours are over.
    advertise(
        &wire,
        ROUTER,
        1800,
        &[prefix("2001:db8:1::", true, 5 * HOUR, HOUR)],
    );
    wire.wait(1000);
    advertise(&wire, ROUTER, 1800, &[prefix("2001:db8:1::", true, 1, 1)]);
    wire.wait(u64::from(2 * HOUR) * 1000 - 1000);
    assert_eq!(addrs(&wire).len(), 2);
    wire.wait(2000);
    assert_eq!(addrs(&wire).len(), 1);
    wire.assert_ledger_closes();
}

#[test]
fn however_much_is_advertised() {
    let wire = Wire::new();
    for network in 0..1000 {
        let options = [
            prefix(&format!("2001:db8:{network:x}::"), true, HOUR, HOUR),
            // On the link only: nobody makes an address of it.
            prefix_as(&format!("2001:db9:{network:x}::"), 64, 0x80, HOUR),
        ];
        advertise(&wire, &format!("fe80::1:{network:x}"), 1800, &options);
        settle(&wire);
    }
    wire.wait(1000);
    assert_eq!(addrs(&wire).len(), 1 + 16);
    assert_eq!(defaults(&wire).len(), 1);
    let routes = wire.text("route/list");
    let on_link = routes.lines().filter(|line| line.contains("2001:db9:"));
    // Each router names two.
    assert_eq!(on_link.count(), 8, "{routes}");
    wire.assert_ledger_closes();
}

#[test]
fn the_next_router_takes_over() {
    let wire = Wire::new();
    let options = [prefix("2001:db8:1::", true, HOUR, HOUR)];
    advertise(&wire, "fe80::a", 1800, &options);
    advertise(&wire, "fe80::b", 1800, &options);
    wire.wait(1000);
    assert_eq!(via(&wire), ["fe80::a"]);
    // The router says that it is no router any more.
    advertise(&wire, "fe80::a", 0, &[]);
    assert_eq!(via(&wire), ["fe80::b"]);
    advertise(&wire, "fe80::a", 1800, &[]);
    assert_eq!(via(&wire), ["fe80::b"]);
    // The router does not answer.
    let icmp = wire.process.open("/scheme/icmp/echo/2001:db8:9::9", BOTH);
    let icmp = icmp.unwrap();
    wire.wait(90_000);
    wire.process.write(icmp, &[0, 1, 9, 9]).unwrap();
    for _ in 0..7 {
        wire.wait(1000);
        assert_eq!(via(&wire), ["fe80::b"]);
    }
    wire.wait(1000);
    assert_eq!(via(&wire), ["fe80::a"]);
    // A static route is preferred.
    wire.set("route/add", "default via fe80::c dev eth0\n")
        .unwrap();
    assert_eq!(via(&wire), ["fe80::c", "fe80::a"]);
    wire.assert_ledger_closes();
}

#[test]
fn it_can_be_turned_off() {
    let wire = Wire::new();
    assert_eq!(wire.text("ifaces/eth0/autoconf"), "1\n");
    let options = [prefix("2001:db8:1::", true, HOUR, HOUR)];
    advertise(&wire, ROUTER, 1800, &options);
    wire.wait(1000);
    assert_eq!(addrs(&wire).len(), 2);
    wire.set("ifaces/eth0/autoconf", "0\n").unwrap();
    advertise(&wire, ROUTER, 1800, &options);
    wire.wait(60_000);
    assert_eq!(addrs(&wire), [format!("{LINK_LOCAL}/64")]);
    assert!(defaults(&wire).is_empty());
    assert!(sent_of(&wire, SOLICITATION).is_empty());
    wire.set("ifaces/eth0/autoconf", "1\n").unwrap();
    wire.wait(1000);
    assert_eq!(sent_of(&wire, SOLICITATION).len(), 1);
    assert_eq!(wire.set("ifaces/eth0/autoconf", "2\n"), Err(errno::EINVAL));
    // Only adapters have the setting.
    let lo0 = wire
        .process
        .open("/scheme/netcfg/ifaces/lo0/autoconf", OpenFlags::READ);
    assert_eq!(lo0.unwrap_err(), errno::ENOENT);
}

#[test]
fn another_hardware_address_makes_others() {
    let wire = Wire::new();
    let options = [prefix("2001:db8:1::", true, HOUR, HOUR)];
    advertise(&wire, ROUTER, 1800, &options);
    wire.wait(1000);
    settle(&wire);
    wire.set("ifaces/eth0/mac", "02:00:00:00:00:09\n").unwrap();
    assert!(addrs(&wire).is_empty() && defaults(&wire).is_empty());
    wire.wait(1000);
    advertise(&wire, ROUTER, 1800, &options);
    wire.wait(1000);
    assert_eq!(
        addrs(&wire),
        ["fe80::ff:fe00:9/64", "2001:db8:1::ff:fe00:9/64"]
    );
    assert_eq!(wire.text("ifaces/eth0/multicast"), "ff02::1:ff00:9\n");
    wire.assert_ledger_closes();
}

/// An address that the adapter would make itself, if it were allowed to.
const MADE: &str = "2001:db8:1::ff:fe00:1/64";
const ADD: &str = "ifaces/eth0/addr/add";

fn good() -> [Vec<u8>; 1] {
    [prefix("2001:db8:1::", true, HOUR, HOUR)]
}

#[test]
fn what_somebody_sets_is_no_routers_affair() {
    let both = [format!("{LINK_LOCAL}/64"), MADE.to_owned()];
    let hour = u64::from(HOUR) * 1000;
    // Set before a router advertises it: neither its lifetime nor a forged one ends it.
    let wire = Wire::new();
    wire.set(ADD, MADE).unwrap();
    advertise(&wire, ROUTER, 1800, &[prefix("2001:db8:1::", true, 1, 0)]);
    wire.local.with_server(|net| {
        assert!(net.interface("eth0").unwrap().deprecated.is_empty());
    });
    wire.set("ifaces/eth0/autoconf", "0\n").unwrap();
    wire.wait(hour);
    assert_eq!(addrs(&wire), both);
    // Set while the adapter has it, and with the prefix length that was set.
    let wire = Wire::new();
    advertise(
        &wire,
        ROUTER,
        1800,
        &[prefix("2001:db8:1::", false, HOUR, 0)],
    );
    wire.wait(1000);
    wire.set("ifaces/eth0/addr/set", MADE).unwrap();
    wire.local.with_server(|net| {
        assert!(net.interface("eth0").unwrap().deprecated.is_empty());
    });
    wire.wait(hour);
    assert_eq!(addrs(&wire), both);
    // Once removed, it does not come back with the next advertisement, until it is set.
    let wire = Wire::new();
    for _ in 0..2 {
        advertise(&wire, ROUTER, 1800, &good());
        wire.wait(1000);
        let _ = wire.set("ifaces/eth0/addr/rm", MADE);
        assert_eq!(addrs(&wire), both[..1]);
    }
    wire.set(ADD, MADE).unwrap();
    wire.wait(hour);
    assert_eq!(addrs(&wire), both);
    wire.assert_ledger_closes();
}

#[test]
fn who_is_no_router_does_not_end_the_search() {
    let wire = Wire::fresh();
    advertise(&wire, "fe80::b", 0, &good());
    let mut solicitations = 0;
    for _ in 0..70 {
        wire.wait(1000);
        solicitations += sent_of(&wire, SOLICITATION).len();
    }
    assert_eq!(solicitations, 5);
    // However long there was no turn.
    let wire = Wire::fresh();
    wire.wait(60_000);
    assert_eq!(sent_of(&wire, SOLICITATION).len(), 1);
}

#[test]
fn one_router_knows_more_of_a_network_than_another() {
    for first in [true, false] {
        let wire = Wire::new();
        for on_link in [first, !first].repeat(5) {
            let option = prefix("2001:db8:1::", on_link, 3 * HOUR, HOUR);
            advertise(&wire, ROUTER, 9000, &[option]);
            wire.wait(u64::from(HOUR) * 1000);
        }
        assert_eq!(addrs(&wire)[1..], [MADE]);
        assert!(wire.text("route/list").contains("2001:db8:1::/64 dev eth0"));
    }
}

#[test]
fn what_nobody_could_answer_is_asked_again() {
    // The driver was gone, or the interface down.
    let lost: fn(&Wire) = |wire| {
        wire.local.with_server(|net| net.ethernet_lost(wire.port));
        wire.wait(900);
        wire.local
            .with_server(|net| net.ethernet_found(wire.port, US));
    };
    let down: fn(&Wire) = |wire| {
        wire.set("ifaces/eth0/flags", "down\n").unwrap();
        // Advertisements are not received in the meantime.
        advertise(wire, ROUTER, 1800, &good());
        neighbor(
            wire,
            NEIGHBOR_SOLICITATION,
            "fe80::2",
            "ff02::1:ff00:1",
            LINK_LOCAL,
        );
        wire.wait(900);
        assert!(sent(wire).is_empty() && defaults(wire).is_empty());
        wire.set("ifaces/eth0/flags", "up\n").unwrap();
    };
    for interrupt in [lost, down] {
        let wire = Wire::fresh();
        advertise(&wire, ROUTER, 1800, &good());
        settle(&wire);
        advertise(&wire, ROUTER, 0, &[]);
        interrupt(&wire);
        wire.wait(0);
        wire.wait(999);
        assert!(addrs(&wire).is_empty());
        assert_eq!(sent_of(&wire, NEIGHBOR_SOLICITATION).len(), 2);
        wire.wait(1);
        assert_eq!(addrs(&wire), [format!("{LINK_LOCAL}/64"), MADE.to_owned()]);
        wire.assert_ledger_closes();
    }
}

#[test]
fn our_own_question_is_no_rivals() {
    let wire = Wire::fresh();
    while let Some(frame) = wire.local.with_server(|net| net.poll_frame(wire.port)) {
        wire.local
            .with_server(|net| net.handle_frame(wire.port, &frame));
        wire.local.pump();
    }
    wire.wait(1000);
    assert_eq!(addrs(&wire).len(), 1);
    // Nor is one whose destination is not the solicited-node group (RFC 4861 section 7.1.1).
    let wire = Wire::fresh();
    neighbor(&wire, NEIGHBOR_SOLICITATION, "::", ALL_NODES, LINK_LOCAL);
    wire.wait(1000);
    assert_eq!(addrs(&wire).len(), 1);
}

#[test]
fn a_duplicate_stays_one() {
    let wire = Wire::new();
    let taken = "2001:db8:1::ff:fe00:1";
    let mut probes = 0;
    for _ in 0..5 {
        advertise(&wire, ROUTER, 1800, &good());
        probes += sent_of(&wire, NEIGHBOR_SOLICITATION).len();
        neighbor(&wire, NEIGHBOR_ADVERTISEMENT, taken, ALL_NODES, taken);
        wire.wait(1000);
    }
    advertise(&wire, ROUTER, 1800, &good());
    wire.wait(1000);
    assert_eq!((probes, addrs(&wire).len()), (1, 1));
}

#[test]
fn without_ipv6_there_is_no_route() {
    let wire = Wire::new();
    advertise(
        &wire,
        ROUTER,
        1800,
        &[prefix("2001:db8:1::", true, HOUR, 600)],
    );
    wire.wait(1000);
    wire.set("ifaces/eth0/mtu", "1000\n").unwrap();
    settle(&wire);
    // Another station that does not answer, and a deprecated address, change nothing.
    wire.take_address();
    let absent = wire.process.open("/scheme/icmp/echo/10.0.0.9", BOTH);
    wire.process.write(absent.unwrap(), &[0, 1, 9, 9]).unwrap();
    for _ in 0..5 {
        wire.wait(1000);
    }
    wire.wait(600_000);
    assert!(defaults(&wire).is_empty());
    assert_eq!(addrs(&wire), ["10.0.0.1/24"]);
    wire.set("ifaces/eth0/mtu", "1500\n").unwrap();
    wire.wait(1000);
    assert_eq!((addrs(&wire).len(), defaults(&wire).len()), (3, 1));
}

#[test]
fn neighbour_discovery_comes_in_one_piece() {
    let wire = Wire::new();
    let mut message = vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(&good()[0]);
    let whole = packet::icmpv6(addr(ROUTER), addr(ALL_NODES), &message);
    let fragment = [44, 0, 0, 0, 0, 0, 0, 1];
    let mut packet = [&whole[..40], &fragment, &whole[40..]].concat();
    packet[5] += 8;
    packet[40] = 58;
    packet[6] = 44;
    wire.send([0x33, 0x33, 0, 0, 0, 1], 0x86dd, &packet);
    wire.wait(1000);
    assert!(defaults(&wire).is_empty());
    assert_eq!(addrs(&wire).len(), 1);
}

#[test]
fn a_router_that_says_it_is_none() {
    let wire = Wire::new();
    advertise(&wire, "fe80::a", 1800, &[]);
    advertise(&wire, "fe80::b", 1800, &[]);
    neighbor(
        &wire,
        NEIGHBOR_ADVERTISEMENT,
        "fe80::a",
        ALL_NODES,
        "fe80::a",
    );
    assert!(!defaults(&wire)[0].contains("fe80::a"));
}

#[test]
fn what_a_router_says_comes_after_what_somebody_sets() {
    let wire = Wire::new();
    advertise(&wire, ROUTER, 0, &[prefix("fd00:7::", true, HOUR, HOUR)]);
    wire.wait(1000);
    let tun = wire.process.open("/scheme/tun/0", BOTH).unwrap();
    wire.set("ifaces/tun0/addr/set", "fd00:7::1/64\n").unwrap();
    let text = wire.text("route/list");
    let mut lines = text.lines();
    let first = lines.find(|line| line.starts_with("fd00:7::/64"));
    assert_eq!(first, Some("fd00:7::/64 dev tun0"), "{text}");
    wire.process.close(tun).unwrap();
}

#[test]
fn what_is_refused_asks_nobody() {
    let wire = Wire::new();
    wire.set("ifaces/eth0/flags", "down\n").unwrap();
    wire.wait(1000);
    settle(&wire);
    let twice = format!("{MADE}\n{MADE}\n");
    assert_eq!(wire.set(ADD, &twice), Err(errno::EINVAL));
    wire.wait(10_000);
    assert!(sent(&wire).is_empty());
    assert_eq!(addrs(&wire), [format!("{LINK_LOCAL}/64")]);
}

#[test]
fn for_ever_is_for_ever() {
    let wire = Wire::new();
    let options = [prefix("2001:db8:1::", true, u32::MAX, u32::MAX)];
    advertise(&wire, ROUTER, 1800, &options);
    wire.wait(1000);
    wire.wait(u64::from(u32::MAX) * 2000);
    assert_eq!(addrs(&wire)[1..], [MADE]);
    assert!(defaults(&wire).is_empty());
    let deadline = wire.local.with_server(|net| net.turn(wire.now()).deadline);
    assert_eq!(deadline, None);
}

#[test]
fn a_blocked_connection_hears_of_a_router_that_is_gone() {
    let wire = Wire::new();
    let mac = net::link::Mac([2, 0, 0, 0, 0, 3]);
    let second = wire.local.with_server(|net| net.attach_ethernet(mac));
    let second = second.unwrap();
    let by_second = || {
        let frames = std::iter::from_fn(|| wire.local.with_server(|net| net.poll_frame(second)));
        frames.count()
    };
    for _ in 0..15 {
        wire.wait(1000);
        settle(&wire);
        by_second();
    }
    wire.set(ADD, "fd01::3/64\n").unwrap();
    wire.set("ifaces/eth1/addr/add", "fd00::3/64\n").unwrap();
    wire.set("ifaces/eth0/queue", "fifo limit 1 packets\n")
        .unwrap();
    wire.set("route/add", "default via fe80::c dev eth1 metric 5000\n")
        .unwrap();
    advertise(&wire, ROUTER, 5, &[]);
    wire.wait(4000);
    settle(&wire);
    let icmp = wire.process.open("/scheme/icmp/echo/2001:db8:9::9", BOTH);
    wire.process.write(icmp.unwrap(), &[0, 1, 9, 9]).unwrap();
    let tcp = wire.process.open("/scheme/tcp/[2001:db8:9::9]:80", BOTH);
    tcp.unwrap();
    by_second();
    wire.wait(1100);
    assert_eq!(by_second(), 1);
}

/// In any order of events: groups and addresses stay consistent, no timer is due without being
/// handled, and each adapter has one default route at most.
#[test]
fn whatever_happens() {
    for seed in 0..100 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let wire = Wire::fresh();
        for _ in 0..150 {
            let net = rng.u8(1..6);
            let mac = [1, 9][rng.usize(..2)];
            let made = format!("2001:db8:{net}::ff:fe00:{mac}");
            let set = |path: &str, line: &str| {
                let _ = wire.set(&format!("ifaces/eth0/{path}"), &format!("{line}\n"));
            };
            match rng.u8(..16) {
                0..3 => {
                    let times = [0, 1, 2, 7201, 10_000, u32::MAX];
                    let mut time = || times[rng.usize(..times.len())];
                    let (valid, preferred) = (time(), time());
                    let option = prefix(&format!("2001:db8:{net}::"), rng.bool(), valid, preferred);
                    let router = format!("fe80::1:{}", rng.u8(1..4));
                    advertise(&wire, &router, rng.u16(..4), &[option]);
                }
                3 => set("flags", "down"),
                4 => set("flags", "up"),
                5 => set("mtu", "1000"),
                6 => set("mtu", "1500"),
                7 => set("mac", &format!("02:00:00:00:00:0{mac}")),
                8 => set("autoconf", if rng.bool() { "0" } else { "1" }),
                9 => set("addr/add", &format!("{made}/64")),
                10 => set("addr/add", &format!("{made}/64\n10.0.0.1/24\n10.0.0.1/24")),
                11 => set("addr/rm", &made),
                12 => set("addr/set", &format!("{made}/64")),
                13 => wire.local.with_server(|net| net.ethernet_lost(wire.port)),
                14 => {
                    let mac = net::link::Mac([2, 0, 0, 0, 0, mac]);
                    wire.local
                        .with_server(|net| net.ethernet_found(wire.port, mac));
                }
                _ => neighbor(&wire, NEIGHBOR_ADVERTISEMENT, &made, ALL_NODES, &made),
            }
            wire.wait(rng.choice([0, 0, 1, 700, 1500, 3000]).unwrap_or(0));
            let turn = wire.local.with_server(|net| net.turn(wire.now()));
            let late = turn.deadline.is_some_and(|at| at <= wire.now().monotonic);
            assert!(!late || turn.pending, "seed {seed}");
            while wire.frame().is_some() {}
            assert!(defaults(&wire).len() <= 1, "seed {seed}");
            wire.assert_ledger_closes();
        }
        wire.wait(1000);
        wire.local.with_server(|net| {
            let ifp = net.interface("eth0").unwrap();
            let v6 = ifp.addrs.iter().filter(|own| own.addr.is_ipv6()).count() as u32;
            let members = ifp.groups.values().map(|members| members.addresses);
            assert_eq!(members.sum::<u32>(), v6, "seed {seed}");
        });
        // Nothing of it remains.
        wire.set("ifaces/eth0/addr/set", "10.0.0.9/24\n").unwrap();
        wire.set("ifaces/eth0/autoconf", "0\n").unwrap();
        let mut left = addrs(&wire);
        left.retain(|own| !own.starts_with("fe80::"));
        assert_eq!(left, ["10.0.0.9/24"], "seed {seed}");
        // And all of it begins again.
        wire.local
            .with_server(|net| net.ethernet_found(wire.port, US));
        for (path, line) in [("mtu", "1500"), ("autoconf", "1")] {
            wire.set(&format!("ifaces/eth0/{path}"), line).unwrap();
        }
        for up in ["down", "up"] {
            wire.set("ifaces/eth0/flags", up).unwrap();
        }
        wire.wait(0);
        advertise(&wire, ROUTER, 1800, &good());
        wire.wait(0);
        wire.wait(1000);
        let now = (addrs(&wire).len(), defaults(&wire).len());
        assert_eq!(now, (3, 1), "seed {seed}");
        let groups = wire.text("ifaces/eth0/multicast");
        assert_eq!(groups.lines().count(), 1, "seed {seed}");
    }
}

/// The files that a program can read about an interface, and the routes.
fn state(wire: &Wire) -> String {
    let files = ["addr/list", "mtu", "flags", "multicast"];
    let texts = files.map(|file| wire.text(&format!("ifaces/eth0/{file}")));
    texts.concat() + &wire.text("route/list")
}

/// A write whose last line is refused changes nothing: not at once, not on the link, and not later.
#[test]
fn what_is_refused_leaves_no_trace() {
    let run = |seed: u64, refused: bool| -> Vec<String> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let wire = Wire::fresh();
        settle(&wire);
        let mut states = Vec::new();
        for _ in 0..40 {
            let net = rng.u8(1..4);
            let addr = match rng.bool() {
                true => format!(
                    "2001:db8:{net}::ff:fe00:{}/{}",
                    rng.u8(1..3),
                    [64, 128][rng.usize(..2)]
                ),
                false => format!(
                    "10.0.{net}.{}/{}",
                    rng.u8(1..4),
                    [8, 24, 32][rng.usize(..3)]
                ),
            };
            let verb = ["add", "set", "rm"][rng.usize(..3)];
            match rng.u8(..8) {
                0..3 => {
                    let times = [0, 1, 2, 7201, 10_000];
                    let mut time = || times[rng.usize(..times.len())];
                    let (valid, preferred) = (time(), time());
                    let option = prefix(&format!("2001:db8:{net}::"), rng.bool(), valid, preferred);
                    advertise(&wire, ROUTER, rng.u16(..4), &[option]);
                }
                3 => drop(wire.set(&format!("ifaces/eth0/addr/{verb}"), &format!("{addr}\n"))),
                4 => drop(wire.set("ifaces/eth0/flags", ["up", "down"][rng.usize(..2)])),
                5 => drop(wire.set(
                    "route/add",
                    &format!(
                        "2001:db8:{net}::/64 dev eth0 metric {}\n",
                        1023 + rng.u16(..4)
                    ),
                )),
                _ if refused => {
                    let (before, verb) = (state(&wire), ["add", "rm"][usize::from(verb == "rm")]);
                    let last = "10.9.9.9/32\n".repeat(2);
                    let result = wire.set(
                        &format!("ifaces/eth0/addr/{verb}"),
                        &format!("{addr}\n{last}"),
                    );
                    assert_eq!(result, Err(errno::EINVAL));
                    assert_eq!(state(&wire), before, "seed {seed}");
                    let frame = wire.frame();
                    assert!(
                        frame.is_none(),
                        "seed {seed} {addr} {verb} {:?}",
                        frame.map(|frame| frame.to_vec())
                    );
                }
                _ => {}
            }
            wire.wait(rng.choice([0, 0, 1, 700, 1500, 3000]).unwrap_or(0));
            while wire.frame().is_some() {}
            states.push(state(&wire));
        }
        states
    };
    for seed in 0..50 {
        assert_eq!(run(seed, true), run(seed, false), "seed {seed}");
    }
}

#[test]
fn a_network_is_on_the_link_after_all() {
    // While the address is still tentative, from another router or another option.
    let wire = Wire::new();
    let options = [false, true].map(|on_link| prefix("2001:db8:1::", on_link, HOUR, HOUR));
    advertise(&wire, ROUTER, 1800, &options);
    wire.wait(1000);
    assert_eq!(addrs(&wire)[1..], [MADE]);
    // When a program sets an address in the network, its route is no longer an advertised one.
    assert!(
        wire.text("route/list")
            .contains("2001:db8:1::/64 dev eth0 metric 1025\n")
    );
    wire.set(ADD, "2001:db8:1::5/64\n").unwrap();
    assert!(
        wire.text("route/list")
            .contains("2001:db8:1::/64 dev eth0\n")
    );
    wire.set("ifaces/eth0/autoconf", "0\n").unwrap();
    assert_eq!(addrs(&wire)[1..], ["2001:db8:1::5/64"]);
}

#[test]
fn lines_of_one_write_come_one_after_the_other() {
    let wire = Wire::new();
    advertise(&wire, ROUTER, 1800, &good());
    wire.wait(1000);
    wire.set("ifaces/eth0/mtu", "1000\n1500\n").unwrap();
    wire.wait(1000);
    assert_eq!((addrs(&wire).len(), defaults(&wire).len()), (2, 1));
    let lines = format!("{MADE}\n10.0.0.1/24\n");
    wire.set("ifaces/eth0/addr/set", &lines).unwrap();
    let link_local = format!("{LINK_LOCAL}/64");
    assert_eq!(addrs(&wire), [&link_local, "10.0.0.1/24"]);
}

#[test]
fn however_many_addresses_somebody_sets() {
    let wire = Wire::new();
    for number in 0..255 {
        wire.set(ADD, &format!("fd00::{number:x}:{number:x}/128\n"))
            .unwrap();
    }
    // There is room for groups, but none for another address.
    wire.set("ifaces/eth0/multicast", "join ff05::99\n")
        .unwrap();
    settle(&wire);
    advertise(&wire, ROUTER, 1800, &good());
    assert!(sent_of(&wire, NEIGHBOR_SOLICITATION).is_empty());
    assert_eq!(wire.set(ADD, "fd01::1/64\n"), Err(errno::ENOSPC));
}

/// The routers of the default routes.
fn via(wire: &Wire) -> Vec<String> {
    let defaults = defaults(wire);
    let via = defaults.iter().map(|line| line.split(' ').nth(2).unwrap());
    via.map(str::to_owned).collect()
}

const MEDIUM: u8 = 0;
const HIGH: u8 = 0x08;
const LOW: u8 = 0x18;

/// A router answers the questions whether it is there, if it is one of these.
fn answer(wire: &Wire, routers: &[&str]) {
    for question in sent_of(wire, NEIGHBOR_SOLICITATION) {
        let target = Ipv6Addr::from(<[u8; 16]>::try_from(&question.message[8..24]).unwrap());
        if !routers.iter().any(|router| addr(router) == target) {
            continue;
        }
        let mut message = vec![NEIGHBOR_ADVERTISEMENT, 0, 0, 0, 0xe0, 0, 0, 0];
        message.extend_from_slice(&target.octets());
        message.extend_from_slice(&[2, 1]);
        message.extend_from_slice(&PEER.0);
        let packet = packet::icmpv6(target, question.src, &message);
        wire.send(US.0, 0x86dd, &packet);
    }
}

#[test]
fn routers_make_room_for_a_better_one() {
    // One that is preferred, however many were there before.
    let wire = Wire::new();
    for number in 0..8 {
        advertise(&wire, &format!("fe80::bad:{number}"), u16::MAX, &[]);
    }
    advertise_as(&wire, ROUTER, MEDIUM, 1800, &good());
    assert_eq!(via(&wire), ["fe80::bad:0"]);
    advertise_as(&wire, ROUTER, HIGH, 1800, &good());
    assert_eq!(via(&wire), [ROUTER]);
    // Its preference may change.
    advertise_as(&wire, ROUTER, LOW, 1800, &good());
    assert_eq!(via(&wire), ["fe80::bad:1"]);

    // One that answers, when others do not.
    let wire = Wire::new();
    for number in 0..8 {
        advertise_as(&wire, &format!("fe80::bad:{number}"), MEDIUM, u16::MAX, &[]);
    }
    wire.wait(1000);
    let icmp = wire.process.open("/scheme/icmp/echo/2001:db8:9::9", BOTH);
    let icmp = icmp.unwrap();
    for second in 0..100_u8 {
        advertise_as(&wire, ROUTER, MEDIUM, 1800, &good());
        // Those that do not answer go on advertising themselves.
        for number in 0..8 {
            advertise_as(&wire, &format!("fe80::bad:{number}"), MEDIUM, u16::MAX, &[]);
        }
        let _ = wire.process.write(icmp, &[0, second, 9, 9]);
        wire.wait(1000);
        answer(&wire, &[ROUTER]);
    }
    assert_eq!(via(&wire), [ROUTER]);
    wire.assert_ledger_closes();
}

#[test]
fn a_preferred_router_is_used_again_when_it_answers_again() {
    let wire = Wire::new();
    advertise_as(&wire, "fe80::a", HIGH, 1800, &good());
    advertise_as(&wire, "fe80::b", MEDIUM, 1800, &good());
    wire.wait(1000);
    assert_eq!(via(&wire), ["fe80::a"]);
    let icmp = wire.process.open("/scheme/icmp/echo/2001:db8:9::9", BOTH);
    wire.process.write(icmp.unwrap(), &[0, 1, 9, 9]).unwrap();
    for _ in 0..8 {
        wire.wait(1000);
        answer(&wire, &["fe80::b"]);
    }
    assert_eq!(via(&wire), ["fe80::b"]);
    // Its advertisement alone is no proof that it hears us.
    advertise_as(&wire, "fe80::a", HIGH, 1800, &good());
    assert_eq!(via(&wire), ["fe80::b"]);
    answer(&wire, &["fe80::a", "fe80::b"]);
    assert_eq!(via(&wire), ["fe80::a"]);
    wire.assert_ledger_closes();
}

/// Whatever a router fills the tables with that does not answer, or says itself that it is none.
#[test]
fn what_strangers_advertised_makes_room() {
    for lifetime in [u16::MAX, 0] {
        let wire = Wire::new();
        let forged: Vec<_> = (0..16)
            .map(|net| prefix(&format!("2001:db8:bad:{net:x}::"), true, u32::MAX, u32::MAX))
            .chain([servers(u32::MAX, &["fd00::a", "fd00::b", "fd00::c"])])
            .collect();
        let honest = [
            prefix("2001:db8:1::", true, HOUR, HOUR),
            servers(600, &["fd00::53"]),
        ];
        advertise(&wire, "fe80::bad", lifetime, &forged);
        wire.wait(1000);
        let state = || {
            let text = wire.text("route/list");
            (
                addrs(&wire).contains(&"2001:db8:1::ff:fe00:1/64".to_owned()),
                text.contains("2001:db8:1::/64 dev eth0"),
                wire.text("resolv/nameserver") == "fd00::53\n",
            )
        };
        let icmp = wire.process.open("/scheme/icmp/echo/2001:db8:9::9", BOTH);
        let icmp = icmp.unwrap();
        for second in 0..20_u8 {
            advertise(&wire, ROUTER, 1800, &honest);
            let _ = wire.process.write(icmp, &[0, second, 9, 9]);
            wire.wait(1000);
            answer(&wire, &[ROUTER]);
        }
        assert_eq!(via(&wire), [ROUTER]);
        assert_eq!(state(), (true, true, true), "{lifetime}");
        assert_eq!(addrs(&wire).len(), 1 + 16);
        // They stay, whatever else comes.
        for number in 0..40 {
            let prefix = prefix(&format!("2001:db8:bad:f{number:x}::"), true, HOUR, HOUR);
            let servers = servers(600, &[&format!("fd00::bad:{number}")]);
            advertise_as(
                &wire,
                &format!("fe80::bad:{number}"),
                HIGH,
                0,
                &[prefix, servers],
            );
        }
        wire.wait(1000);
        assert_eq!(state(), (true, true, true), "{lifetime}");
        wire.assert_ledger_closes();
    }
}

/// What is on the link and which addresses to make are two questions (RFC 4861 section 6.3.4).
#[test]
fn a_prefix_may_be_on_the_link_without_an_address_in_it() {
    const ON_LINK: u8 = 0x80;
    const BOTH_FLAGS: u8 = 0xc0;
    let route = |wire: &Wire, prefix: &str| {
        let line = format!(
            "{prefix} dev eth0 metric 1025
"
        );
        wire.text("route/list").contains(&line)
    };
    let wire = Wire::new();
    let options = [
        prefix_as("2001:db8:1::", 64, ON_LINK, HOUR),
        prefix_as("2001:db8:2::", 48, BOTH_FLAGS, HOUR),
        // The bits behind the prefix do not count.
        prefix_as("2001:db8:3::8888", 112, ON_LINK, HOUR),
        prefix_as("2001:db8:4::9", 128, ON_LINK, 10),
        prefix_as("2001:db8:5::", 64, BOTH_FLAGS, 3 * HOUR),
    ];
    // Neither is this one: it would be a default route, or none at all.
    let senseless = [
        ("::", 0),
        ("fe80::", 64),
        ("ff02::", 64),
        ("2001:db8::", 129),
    ];
    let senseless = senseless.map(|(net, len)| prefix_as(net, len, ON_LINK, HOUR));
    advertise(&wire, ROUTER, 1800, &options);
    advertise(&wire, ROUTER, 1800, &senseless);
    wire.wait(1000);
    let all = [
        "2001:db8:1::/64",
        "2001:db8:2::/48",
        "2001:db8:3::/112",
        "2001:db8:4::9/128",
        "2001:db8:5::/64",
    ];
    for prefix in all {
        assert!(
            route(&wire, prefix),
            "{prefix}: {}",
            wire.text("route/list")
        );
    }
    assert_eq!(
        wire.text("route/list").matches("eth0 metric 1025").count(),
        6
    );
    assert_eq!(addrs(&wire)[1..], ["2001:db8:5::ff:fe00:1/64"]);
    // Packets to such an address go to its neighbour, not to the router.
    let icmp = wire
        .process
        .open("/scheme/icmp/echo/2001:db8:2:ffff::9", BOTH);
    settle(&wire);
    wire.process.write(icmp.unwrap(), &[0, 1, 9, 9]).unwrap();
    assert_eq!(
        sent_of(&wire, NEIGHBOR_SOLICITATION)[0].dst,
        addr("ff02::1:ff00:9")
    );
    // Each ends with its lifetime.
    wire.wait(10_000);
    assert!(!route(&wire, all[3]));
    // A lifetime of zero ends it at once. Only addresses live for two more hours.
    let ends = [
        prefix_as("2001:db8:1::", 64, ON_LINK, 0),
        prefix_as("2001:db8:5::", 64, BOTH_FLAGS, 0),
    ];
    advertise(&wire, ROUTER, 1800, &ends);
    assert!(!route(&wire, all[0]) && !route(&wire, all[4]));
    assert!(route(&wire, all[1]) && route(&wire, all[2]));
    assert_eq!(addrs(&wire).len(), 2);
    // However many are advertised, and whatever becomes of the adapter.
    for number in 0..100 {
        let prefix = prefix_as(&format!("2001:db8:f{number:03}::"), 64, ON_LINK, HOUR);
        advertise(&wire, ROUTER, 1800, &[prefix]);
    }
    assert_eq!(
        wire.text("route/list").matches("eth0 metric 1025").count(),
        17
    );
    wire.set(
        "ifaces/eth0/autoconf",
        "0
",
    )
    .unwrap();
    assert_eq!(wire.text("route/list").matches("metric 1025").count(), 0);
    wire.assert_ledger_closes();
}

/// RFC 4862 section 5.4 is about addresses that somebody sets, too.
#[test]
fn an_address_that_somebody_sets_is_asked_for() {
    let group = "ff02::1:ff00:5";
    let rivals = [
        (NEIGHBOR_ADVERTISEMENT, "fd00::5", ALL_NODES),
        (NEIGHBOR_SOLICITATION, "::", group),
    ];
    for (kind, src, dst) in rivals {
        let wire = Wire::new();
        let claim = || {
            wire.set(ADD, "fd00::5/64\n").unwrap();
            let question = &sent_of(&wire, NEIGHBOR_SOLICITATION)[0];
            assert_eq!((question.src, question.dst), (addr("::"), addr(group)));
        };
        claim();
        assert_eq!(addrs(&wire).len(), 2, "it can be used meanwhile");
        neighbor(&wire, kind, src, dst, "fd00::5");
        assert_eq!(addrs(&wire), [format!("{LINK_LOCAL}/64")]);
        assert!(!wire.text("route/list").contains("fd00::/64"));
        assert!(!wire.text("ifaces/eth0/multicast").contains(group));
        // It is free later on. From then on nobody can take it away.
        claim();
        wire.wait(1000);
        settle(&wire);
        for _ in 0..2 {
            neighbor(&wire, kind, src, dst, "fd00::5");
        }
        assert!(!sent_of(&wire, NEIGHBOR_ADVERTISEMENT).is_empty());
        assert_eq!(addrs(&wire).len(), 2);
        wire.assert_ledger_closes();
    }
}

/// An option that advertises an mtu.
fn mtu(bytes: u32) -> Vec<u8> {
    [&[5, 1, 0, 0][..], &bytes.to_be_bytes()].concat()
}

/// An option that advertises name servers for this many seconds.
fn servers(seconds: u32, addrs: &[&str]) -> Vec<u8> {
    let mut option = vec![25, 1 + 2 * addrs.len() as u8, 0, 0];
    option.extend_from_slice(&seconds.to_be_bytes());
    for text in addrs {
        option.extend_from_slice(&addr(text).octets());
    }
    option
}

/// A router advertises this hop limit.
fn advertise_hops(wire: &Wire, hops: u8) {
    let mut message = vec![134, 0, 0, 0, hops, 0, 0x70, 0x80];
    message.extend_from_slice(&[0; 8]);
    let packet = packet::icmpv6(addr(ROUTER), addr(ALL_NODES), &message);
    wire.send([0x33, 0x33, 0, 0, 0, 1], 0x86dd, &packet);
}

/// The IPv6 packets with data for another host that were sent since the last call.
fn datagrams(wire: &Wire) -> Vec<Vec<u8>> {
    let frames = std::iter::from_fn(|| wire.sent());
    let packets = frames.map(|(.., packet)| packet);
    packets
        .filter(|packet| matches!(packet[6], 6 | 17 | 44))
        .collect()
}

#[test]
fn a_router_says_how_large_packets_may_be() {
    let wire = Wire::new();
    advertise(
        &wire,
        ROUTER,
        1800,
        &[prefix("2001:db8:1::", true, HOUR, HOUR)],
    );
    wire.wait(1000);
    let udp = wire.process.open("/scheme/udp", BOTH).unwrap();
    let udp = wire.process.dup_verb(udp, b"[2001:db8:9::9]:9").unwrap();
    let lengths = || {
        wire.process.write(udp, &[0; 1400]).unwrap();
        datagrams(&wire).iter().map(Vec::len).collect::<Vec<_>>()
    };
    assert_eq!(lengths(), [1448]);
    advertise(&wire, ROUTER, 1800, &[mtu(1300)]);
    let fragments = lengths();
    assert_eq!(fragments.len(), 2);
    assert!(fragments.iter().all(|len| *len <= 1300), "{fragments:?}");
    // It is said nowhere else, and IPv4 has its own.
    assert_eq!(wire.text("ifaces/eth0/mtu"), "1500\n");
    // What is no mtu of IPv6, or more than the link carries, changes nothing.
    for senseless in [0, 1279, 1501, 70_000, u32::MAX] {
        advertise(&wire, ROUTER, 1800, &[mtu(senseless)]);
        assert_eq!(lengths(), fragments, "{senseless}");
    }
    advertise(&wire, ROUTER, 1800, &[mtu(1500)]);
    assert_eq!(lengths(), [1448]);
    // Without autoconfiguration nothing of it is left.
    advertise(&wire, ROUTER, 1800, &[mtu(1280)]);
    wire.set("ifaces/eth0/autoconf", "0\n").unwrap();
    wire.set("route/add", "default via fe80::1 dev eth0\n")
        .unwrap();
    wire.set(ADD, "2001:db8:1::7/64\n").unwrap();
    assert_eq!(lengths(), [1448]);
    wire.assert_ledger_closes();
}

#[test]
fn a_router_says_how_far_packets_go() {
    let wire = Wire::new();
    advertise(
        &wire,
        ROUTER,
        1800,
        &[prefix("2001:db8:1::", true, HOUR, HOUR)],
    );
    wire.wait(1000);
    let udp = wire.process.open("/scheme/udp", BOTH).unwrap();
    let udp = wire.process.dup_verb(udp, b"[2001:db8:9::9]:9").unwrap();
    let hops = || {
        wire.process.write(udp, b"x").unwrap();
        let stream = wire.process.open("/scheme/tcp", BOTH).unwrap();
        wire.process.set_nonblocking(stream, true).unwrap();
        let begun = wire.process.dup_verb(stream, b"[2001:db8:9::9]:9");
        assert_eq!(begun, Err(errno::EINPROGRESS));
        wire.wait(0);
        let sent = datagrams(&wire);
        let mut hops: Vec<_> = sent.iter().map(|sent| (sent[6], sent[7])).collect();
        hops.sort_unstable();
        hops.dedup();
        hops
    };
    assert_eq!(hops(), [(6, 64), (17, 64)]);
    advertise_hops(&wire, 33);
    assert_eq!(hops(), [(6, 33), (17, 33)]);
    // Zero says nothing.
    advertise_hops(&wire, 0);
    assert_eq!(hops(), [(6, 33), (17, 33)]);
    // A program's choice counts more.
    let option = wire.process.dup_verb(udp, b"hop_limit").unwrap();
    wire.process.write(option, &[9]).unwrap();
    assert_eq!(hops(), [(6, 33), (17, 9)]);
    wire.assert_ledger_closes();
}

#[test]
fn a_router_names_servers() {
    const FILE: &str = "resolv/nameserver";

    let wire = Wire::new();
    let say = |options: &[Vec<u8>]| advertise(&wire, ROUTER, 9000, options);
    assert_eq!(wire.text(FILE), "");
    say(&[servers(600, &["2001:db8::53", "2001:db8::54"])]);
    assert_eq!(wire.text(FILE), "2001:db8::53\n");
    // Each has its lifetime, which another advertisement renews or ends.
    say(&[servers(1200, &["2001:db8::54"])]);
    wire.wait(601_000);
    assert_eq!(wire.text(FILE), "2001:db8::54\n");
    say(&[
        servers(u32::MAX, &["2001:db8::55"]),
        servers(0, &["2001:db8::54"]),
    ]);
    assert_eq!(wire.text(FILE), "2001:db8::55\n");
    wire.wait(u64::from(u32::MAX) * 1000);
    assert_eq!(wire.text(FILE), "2001:db8::55\n");
    // What is no address of a host is no server; nor is there room for ever more.
    say(&[
        servers(0, &["2001:db8::55"]),
        servers(600, &["::", "ff02::1", "::1"]),
    ]);
    assert_eq!(wire.text(FILE), "");
    say(&[
        vec![25, 1, 0, 0, 0, 0, 2, 0],
        vec![25, 2, 0, 0, 0, 0, 2, 0, 0x20, 1, 0, 0, 0, 0, 0, 0],
    ]);
    assert_eq!(wire.text(FILE), "");
    for number in 1..9 {
        say(&[servers(600, &[&format!("fd00::{number}")])]);
    }
    for number in 1..4 {
        assert_eq!(wire.text(FILE), format!("fd00::{number}\n"));
        say(&[servers(0, &[&format!("fd00::{number}")])]);
    }
    assert_eq!(wire.text(FILE), "");
    // What somebody set counts more, before and after.
    say(&[servers(600, &["fd00::1"])]);
    wire.set(FILE, "10.0.0.53\n").unwrap();
    assert_eq!(wire.text(FILE), "10.0.0.53\n");
    say(&[servers(600, &["fd00::2"])]);
    assert_eq!(wire.text(FILE), "10.0.0.53\n");
    // Off is off.
    let wire = Wire::new();
    advertise(&wire, ROUTER, 1800, &[servers(600, &["fd00::1"])]);
    wire.set("ifaces/eth0/autoconf", "0\n").unwrap();
    assert_eq!(wire.text(FILE), "");
}

//! The header before a packet: none, an address family, or the next hop.

use std::io::{IoSlice, IoSliceMut, Read, Write};

use crate::device::{Tun, Wire, assert_errno, bsd};
use crate::packet::{self, addresses, assert_echo_reply, echo_request, numbered};
use crate::{netcfg, tests};

tests![
    head_carries_ipv4_and_ipv6,
    head_by_vectors,
    head_families_on_write,
    head_of_the_moment,
    without_head_no_ipv6,
    lmode_carries_the_next_hop,
    small_mtu_has_no_ipv6,
];

const INET: [u8; 4] = [0, 0, 0, 2];
const INET6: [u8; 4] = [0, 0, 0, 10];

fn up_with_ipv6(unit: u16) -> Tun {
    let tun = Tun::up(unit);
    let (own, _) = packet::addresses6(unit);
    netcfg::put_if(unit, "addr/add", &format!("{own}/64")).expect("add the address");
    tun
}

/// The next packet that answers an IPv6 echo request: the stack may also send packets of its own.
#[track_caller]
fn read_reply6(tun: &Tun) -> Vec<u8> {
    loop {
        let packet = tun.read_now();
        if packet::is_echo_reply6(&packet[4..]) {
            return packet;
        }
    }
}

fn head_carries_ipv4_and_ipv6() {
    let tun = up_with_ipv6(21);
    tun.set(bsd::TUNSIFHEAD, 1);
    let request = [&INET[..], &echo_request(21, 1, 84)].concat();
    assert_eq!(tun.write(&request).expect("write"), 88);
    let reply = loop {
        let packet = tun.read_now();
        if packet[..4] == INET {
            break packet;
        }
    };
    assert_echo_reply(&reply[4..], 21, 1, 84);
    let request = [&INET6[..], &packet::echo_request6(21, 1)].concat();
    assert_eq!(tun.write(&request).expect("write"), request.len());
    let reply = read_reply6(&tun);
    assert_eq!(reply[..4], INET6);
    let (own, peer) = packet::addresses6(21);
    assert_eq!(packet::ends(&reply[4..]), (own.into(), peer.into()));
    netcfg::assert_ledger_closes(21);
}

fn head_by_vectors() {
    let tun = Tun::up(21);
    tun.set(bsd::TUNSIFHEAD, 1);
    let request = echo_request(21, 1, 84);
    let pieces = [IoSlice::new(&INET), IoSlice::new(&request)];
    assert_eq!((&tun.file).write_vectored(&pieces).expect("writev"), 88);
    let (mut head, mut packet) = ([0; 4], [0; 84]);
    let mut pieces = [IoSliceMut::new(&mut head), IoSliceMut::new(&mut packet)];
    assert_eq!((&tun.file).read_vectored(&mut pieces).expect("readv"), 88);
    assert_eq!(head, INET);
    assert_echo_reply(&packet, 21, 1, 84);
}

fn head_families_on_write() {
    let tun = up_with_ipv6(21);
    tun.set(bsd::TUNSIFHEAD, 1);
    while tun.get(bsd::FIONREAD) != 0 {
        tun.read_now();
    }
    let with = |family: u32, packet: &[u8]| [&family.to_be_bytes()[..], packet].concat();
    let request = packet::echo_request6(21, 1);
    for family in [10, 24, 28, 30] {
        tun.write(&with(family, &request)).expect("an IPv6 family");
        assert_eq!(read_reply6(&tun)[..4], INET6);
    }
    let before = netcfg::stats(21);
    for family in [0, 3, 4, 23, 5, 16, 99, u32::MAX, 0x0200_0000] {
        let refused = tun.write(&with(family, &request));
        assert_errno(refused, libc::EAFNOSUPPORT);
    }
    let after = netcfg::stats(21);
    assert_eq!(
        after["drop.unknown_family"] - before["drop.unknown_family"],
        9
    );
    assert_eq!(after["ipackets"], before["ipackets"]);
    for len in 1..4 {
        assert_errno(tun.write(&INET[..len]), libc::EINVAL);
    }
    assert_eq!(tun.write(&with(2, &[0; 16384])).expect("write"), 16388);
    assert_errno(tun.write(&with(2, &[0; 16385])), libc::EIO);
    netcfg::assert_ledger_closes(21);
}

fn head_of_the_moment() {
    let tun = Tun::up(21);
    let packets = [
        numbered(21, 1, 60),
        numbered(21, 2, 60),
        numbered(21, 3, 60),
    ];
    tun.inject(&packets[..1]);
    tun.set(bsd::TUNSIFHEAD, 1);
    tun.inject(&packets[1..2]);
    tun.set(bsd::TUNSIFHEAD, 0);
    tun.inject(&packets[2..]);
    // Queued packets keep the header mode in which they were queued.
    assert_eq!(tun.read_now(), packets[0]);
    assert_eq!(tun.get(bsd::FIONREAD), 64);
    assert_eq!(tun.read_now(), [&INET[..], &packets[1]].concat());
    assert_eq!(tun.read_now(), packets[2]);
    let stats = netcfg::stats(21);
    assert_eq!(stats["obytes"], 180, "headers do not count: {stats:?}");
}

fn without_head_no_ipv6() {
    let tun = up_with_ipv6(21);
    let before = netcfg::stats(21)["drop.family_refused"];
    let wire = Wire::open(21);
    let sent = wire.send(&packet::echo_request6(21, 1));
    assert_errno(sent, libc::EAFNOSUPPORT);
    assert_eq!(netcfg::stats(21)["drop.family_refused"] - before, 1);
    tun.assert_empty();
    netcfg::assert_ledger_closes(21);
}

fn lmode_carries_the_next_hop() {
    let tun = Tun::up(21);
    tun.set(bsd::TUNSLMODE, 1);
    let (_, peer) = addresses(21);
    // Writes carry no next hop.
    tun.write(&echo_request(21, 1, 84)).expect("write");
    let reply = tun.read_now();
    let mut next_hop = [0; 16];
    next_hop[..2].copy_from_slice(&[16, 2]);
    next_hop[4..8].copy_from_slice(&peer.octets());
    assert_eq!(reply[..16], next_hop);
    assert_echo_reply(&reply[16..], 21, 1, 84);
    // Through a router, the next hop is the router.
    netcfg::put("route/add", "172.31.0.0/16 via 10.0.21.9 dev tun21").expect("add the route");
    let mut request = echo_request(21, 2, 84);
    request[12..16].copy_from_slice(&[172, 31, 0, 5]);
    request[10..12].fill(0);
    let words = request[..20].chunks(2);
    let sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    request[10..12].copy_from_slice(&sum.to_be_bytes());
    tun.write(&request).expect("write");
    let reply = tun.read_now();
    assert_eq!(reply[4..8], [10, 0, 21, 9], "the router");
    tun.set(bsd::TUNSLMODE, 0);
    tun.write(&echo_request(21, 3, 84)).expect("write");
    assert_echo_reply(&tun.read_now(), 21, 3, 84);
}

fn small_mtu_has_no_ipv6() {
    let tun = Tun::up(21);
    tun.set(bsd::TUNSIFHEAD, 1);
    netcfg::put_if(21, "mtu", "1279").expect("set the mtu");
    let (own, _) = packet::addresses6(21);
    let added = netcfg::put_if(21, "addr/add", &format!("{own}/64"));
    assert_errno(added, libc::EINVAL);
    let request = [&INET6[..], &packet::echo_request6(21, 1)].concat();
    assert_eq!(tun.write(&request).expect("write"), request.len());
    assert_eq!(netcfg::stats(21)["drop.no_ipv6"], 1);
    netcfg::put_if(21, "mtu", "1280").expect("set the mtu");
    netcfg::put_if(21, "addr/add", &format!("{own}/64")).expect("add the address");
    netcfg::assert_ledger_closes(21);
}

//! Tests of the whole layer: packets in, and what becomes of them.

mod errors;
mod fragments;
mod groups;
mod options;
mod router;
mod scopes;

use super::header::{ipv6_header, proto};
use super::testing::{bare, give_addr, keep, sent};
use super::{Budget, Delivery, Ip, Verdict, checksum};
use crate::ifnet::{Driver, DropReason, Family, IfFlags, IfIndex};
use crate::packet::Packet;

/// A network layer with a tunnel for each list of addresses.
fn machine<const N: usize>(tunnels: [&[&str]; N]) -> (Ip, [IfIndex; N]) {
    let mut ip = bare();
    let devs = std::array::from_fn(|unit| {
        let flags = IfFlags::POINTOPOINT | IfFlags::MULTICAST;
        let (name, driver) = (format!("tun{unit}"), Driver::Tun(unit as u16));
        let dev = ip
            .ifs
            .attach(&name, driver, keep, flags, 0x17, 1500)
            .unwrap();
        ip.ifs.get_mut(dev).unwrap().flags.insert(IfFlags::UP);
        for addr in tunnels[unit] {
            give_addr(&mut ip, dev, addr);
        }
        // What the addresses themselves sent: reports of groups.
        sent(&mut ip, dev);
        dev
    });
    (ip, devs)
}

/// Receives a packet, and returns what was counted for it. That of a transport is that it was
/// delivered; `None` is a fragment that waits for others.
fn arrive(ip: &mut Ip, dev: IfIndex, packet: impl Into<Packet>) -> Option<Verdict> {
    let packet = packet.into();
    let family = match packet[0] >> 4 {
        6 => Family::Inet6,
        _ => Family::Inet,
    };
    let before = ip.ifs.get(dev).unwrap().stats.clone();
    ip.netisr_enqueue(dev, family, packet);
    while let Some((received, receipt)) = ip.poll_received(&mut { Budget::TURN }) {
        let verdict = match ip.dispatch(received, false) {
            Delivery::Settled(verdict) => verdict,
            _ => Verdict::Delivered,
        };
        ip.netisr_count(receipt, verdict);
    }
    let after = &ip.ifs.get(dev).unwrap().stats;
    assert!(after.input().closes(), "{after:?}");
    let dropped = |reason: &DropReason| after.drops(*reason) > before.drops(*reason);
    if let Some(reason) = DropReason::ALL.into_iter().find(dropped) {
        Some(Verdict::Dropped(reason))
    } else if after.input().delivered > before.input().delivered {
        Some(Verdict::Delivered)
    } else if after.input().forwarded > before.input().forwarded {
        Some(Verdict::Forwarded)
    } else {
        None
    }
}

/// An IPv6 packet.
fn ipv6(src: &str, dst: &str, next: u8, payload: &[u8]) -> Vec<u8> {
    let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
    let head = ipv6_header(src, dst, next, 64, payload.len() as u16);
    [&head[..], payload].concat()
}

/// A message of ICMPv6, with eight bytes of header.
fn icmp6(src: &str, dst: &str, kind: u8, data: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 7, 0, 1];
    message.extend_from_slice(data);
    let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
    let sum = checksum::fill(&src, &dst, proto::ICMPV6, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

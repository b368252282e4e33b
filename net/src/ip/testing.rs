//! A network layer for unit tests of modules that take one as an argument.
//!
//! The machine has [`HOST`] on a network on which [`PEER`] is, too. A test hands in packets with
//! [`receive`], and looks at those that went out with [`sent`].

use std::net::Ipv4Addr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr};

use super::header::IPV4_HEADER;
use super::{Budget, Delivery, Ip, Verdict};
use crate::ifnet::{Driver, Family, Frame, IfAddr, IfFlags, IfIndex, Ifnet};
use crate::ifnet::{Outgoing, OutputError, Sent};
use crate::packet::Packet;
use crate::seed::Seed;

/// The address of the machine.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The address of another, on the same network.
pub(crate) const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// A network layer without any interface but `lo0`.
pub(crate) fn bare() -> Ip {
    let mut ip = Ip::new(&Seed::from(1));
    ip.attach_loopback();
    ip
}

/// A network layer with `lo0` and an interface that keeps its output.
pub(crate) fn connected() -> (Ip, IfIndex) {
    let mut ip = bare();
    let flags = IfFlags::POINTOPOINT | IfFlags::MULTICAST;
    let dev = ip
        .ifs
        .attach("test0", Driver::Tun(0), keep, flags, 0x17, 1500);
    let dev = dev.unwrap();
    give_addr(&mut ip, dev, &format!("{HOST}/24"));
    (ip, dev)
}

/// Gives an interface an address, and brings it up.
pub(crate) fn give_addr(ip: &mut Ip, dev: IfIndex, addr: &str) {
    assert!(ip.ifs.add_addr(dev, IfAddr::parse(addr).unwrap()));
    ip.if_init(dev);
}

/// An output function that puts every packet on the send queue.
pub(crate) fn keep(ifp: &mut Ifnet, outgoing: &mut Outgoing) -> Result<Sent, OutputError> {
    let class = ifp.snd.classify(outgoing.family, &outgoing.packet);
    let (frame, len) = Frame::of(outgoing, class);
    ifp.enqueue(frame, len, outgoing.now)
}

/// Takes the packets in the send queue of an interface.
pub(crate) fn sent(ip: &mut Ip, dev: IfIndex) -> Vec<Packet> {
    let now = ip.now;
    let ifp = ip.ifs.get_mut(dev).unwrap();
    std::iter::from_fn(|| ifp.dequeue(now))
        .map(|frame| frame.bytes)
        .collect()
}

/// An IPv4 packet.
pub(crate) fn ipv4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, payload: &[u8]) -> Packet {
    let repr = Ipv4Repr {
        src_addr: src,
        dst_addr: dst,
        next_header: protocol.into(),
        payload_len: payload.len(),
        hop_limit: 64,
    };
    let mut header = [0; IPV4_HEADER];
    repr.emit(
        &mut Ipv4Packet::new_unchecked(&mut header[..]),
        &ChecksumCapabilities::default(),
    );
    Packet::concat(&header, payload)
}

/// A UDP datagram in a packet.
pub(crate) fn udp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), data: &[u8]) -> Packet {
    let repr = UdpRepr {
        src_port: from.1,
        dst_port: to.1,
    };
    let mut datagram = vec![0; repr.header_len() + data.len()];
    repr.emit(
        &mut UdpPacket::new_unchecked(&mut datagram[..]),
        &from.0.into(),
        &to.0.into(),
        data.len(),
        |payload| payload.copy_from_slice(data),
        &ChecksumCapabilities::default(),
    );
    ipv4(from.0, to.0, super::header::proto::UDP, &datagram)
}

/// Receives a packet by an interface. `deliver` plays the receivers above, and is called if the
/// packet is for one of them; the verdict it returns is counted.
pub(crate) fn receive(
    ip: &mut Ip,
    dev: IfIndex,
    packet: Packet,
    deliver: impl FnOnce(&mut Ip, Delivery) -> Verdict,
) -> Verdict {
    ip.netisr_enqueue(dev, Family::Inet, packet);
    let mut budget = Budget::TURN;
    let (received, receipt) = ip.poll_received(&mut budget).expect("dropped below");
    let delivery = ip.dispatch(received, false);
    let verdict = match delivery {
        Delivery::Settled(verdict) => verdict,
        delivery => deliver(ip, delivery),
    };
    ip.netisr_count(receipt, verdict);
    verdict
}

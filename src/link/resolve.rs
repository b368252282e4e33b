//! ARP (RFC 826) and IPv6 neighbour discovery (RFC 4861), as a host.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv6Packet, Icmpv6Repr,
    NdiscNeighborFlags, NdiscRepr,
};

use super::{BROADCAST, ETHERTYPE_ARP, HEADER, Mac, PortId, header};
use crate::ifnet::{Driver, DropReason, Family, Frame, IfIndex, is_host, solicited_node};
use crate::net::Net;
use crate::netisr::Verdict;
use crate::netisr::groups::ALL_NODES;
use crate::netisr::icmp::Notice;
use crate::netisr::input::{Header, proto};
use crate::packet::Packet;

/// Hop limit of neighbour discovery: nobody off the link can send it (RFC 4861 section 3.1).
const ND_HOP_LIMIT: u8 = 255;
/// Bytes of a router advertisement before its options (RFC 4861 section 4.2).
const RA_OPTIONS: usize = 16;

impl Net {
    /// Asks who has `addr`: everybody, or the station that had it.
    pub(super) fn solicit(&mut self, id: PortId, addr: IpAddr, of: Option<Mac>) {
        let Some(port) = self.links.get_mut(id) else {
            return;
        };
        let (dev, mac) = (port.dev, port.mac);
        let src = self
            .ifs
            .get(dev)
            .and_then(|ifp| ifp.source_for(&addr, &addr));
        match (addr, src) {
            (IpAddr::V4(target), src) => {
                let src = match src {
                    Some(IpAddr::V4(src)) => src,
                    _ => Ipv4Addr::UNSPECIFIED,
                };
                let question = (ArpOperation::Request, mac, src);
                self.arp_send(
                    id,
                    dev,
                    of.unwrap_or(BROADCAST),
                    question,
                    (Mac([0; 6]), target),
                );
            }
            (IpAddr::V6(target), Some(IpAddr::V6(src))) => {
                let message = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit {
                    target_addr: target,
                    lladdr: Some(EthernetAddress(mac.0).into()),
                });
                self.nd_send(id, dev, src, solicited_node(&target), &message);
            }
            (IpAddr::V6(_), _) => {}
        }
    }

    /// Tells all stations where an address of ours is now: some may remember another place (RFC 5227
    /// section 3, RFC 4861 section 7.2.6).
    pub(crate) fn announce(&mut self, id: PortId, dev: IfIndex, addr: IpAddr) {
        let port = self.links.get_mut(id).filter(|port| port.present);
        let Some(mac) = port.map(|port| port.mac).filter(|_| self.is_up(dev)) else {
            return;
        };
        match addr {
            IpAddr::V4(addr) => {
                let question = (ArpOperation::Request, mac, addr);
                self.arp_send(id, dev, BROADCAST, question, (Mac([0; 6]), addr));
            }
            IpAddr::V6(addr) => self.advertise(id, dev, mac, addr, None),
        }
    }

    /// Says where an address of ours is: to a station that asked, or to all.
    fn advertise(
        &mut self,
        id: PortId,
        dev: IfIndex,
        mac: Mac,
        target_addr: Ipv6Addr,
        to: Option<Ipv6Addr>,
    ) {
        let mut flags = NdiscNeighborFlags::OVERRIDE;
        flags.set(NdiscNeighborFlags::SOLICITED, to.is_some());
        flags.set(NdiscNeighborFlags::ROUTER, self.forwarding);
        let message = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
            flags,
            target_addr,
            lladdr: Some(EthernetAddress(mac.0).into()),
        });
        self.nd_send(id, dev, target_addr, to.unwrap_or(ALL_NODES), &message);
    }

    fn arp_send(
        &mut self,
        id: PortId,
        dev: IfIndex,
        dst: Mac,
        (operation, source_mac, source): (ArpOperation, Mac, Ipv4Addr),
        (target_mac, target): (Mac, Ipv4Addr),
    ) {
        let Some(mac) = self.mac_of(id) else {
            return;
        };
        let arp = ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: EthernetAddress(source_mac.0),
            source_protocol_addr: source,
            target_hardware_addr: EthernetAddress(target_mac.0),
            target_protocol_addr: target,
        };
        let mut packet = Packet::zeroed(arp.buffer_len());
        arp.emit(&mut ArpPacket::new_unchecked(&mut packet[..]));
        let len = packet.len();
        packet.prepend(&header(dst, mac, ETHERTYPE_ARP));
        let frame = Frame {
            bytes: packet,
            header: HEADER,
        };
        if let Some(ifp) = self.ifs.get_mut(dev) {
            ifp.stats.output.offered += 1;
        }
        // What finds the queue full is asked again.
        let _ = self.queue_frame(dev, frame, len);
    }

    pub(super) fn arp_input(&mut self, id: PortId, from: Mac, payload: &[u8]) {
        let Some(dev) = self.links.get_mut(id).map(|port| port.dev) else {
            return;
        };
        if let Some(ifp) = self.ifs.get_mut(dev) {
            ifp.stats.ipackets += 1;
            ifp.stats.ibytes += payload.len() as u64;
        }
        let arp = ArpPacket::new_checked(payload).and_then(|packet| ArpRepr::parse(&packet));
        let Ok(ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr,
            source_protocol_addr: source,
            target_protocol_addr: target,
            ..
        }) = arp
        else {
            return self.drop_frame(dev, DropReason::Malformed);
        };
        let source_mac = Mac(source_hardware_addr.0);
        let for_us = self
            .ifs
            .get(dev)
            .is_some_and(|ifp| ifp.addr(&target.into()).is_some());
        // Somebody who claims our own address is not believed.
        let believable = source_mac.is_station()
            && source_mac == from
            && is_host(&source.into())
            && !self.ifs.is_local(&source.into());
        if let Some(ifp) = self.ifs.get_mut(dev) {
            ifp.stats.input.offered += 1;
            ifp.stats.input.delivered += 1;
        }
        if believable {
            self.learned(id, dev, source.into(), source_mac, for_us);
        }
        if for_us && operation == ArpOperation::Request && source_mac.is_station() {
            let Some(mac) = self.mac_of(id) else {
                return;
            };
            let answer = (ArpOperation::Reply, mac, target);
            self.arp_send(id, dev, source_mac, answer, (source_mac, source));
        }
    }

    /// Neighbour discovery.
    pub(crate) fn nd_input(&mut self, rcvif: IfIndex, header: &Header, message: &[u8]) -> Verdict {
        const NOT_WANTED: Verdict = Verdict::Dropped(DropReason::NotWanted);

        let Some(Driver::Ethernet(id)) = self.ifs.get(rcvif).map(|ifp| ifp.driver) else {
            return NOT_WANTED;
        };
        let (IpAddr::V6(src), IpAddr::V6(dst)) = (header.src, header.dst) else {
            return NOT_WANTED;
        };
        if !self.runs_ipv6(rcvif) {
            return NOT_WANTED;
        }
        if header.hop_limit != ND_HOP_LIMIT {
            return Verdict::Dropped(DropReason::BadOption);
        }
        if message.get(1) != Some(&0) {
            return Verdict::Dropped(DropReason::Malformed);
        }
        let unchecked = ChecksumCapabilities::ignored();
        let parsed = Icmpv6Packet::new_checked(message)
            .and_then(|packet| Icmpv6Repr::parse(&src, &dst, &packet, &unchecked));
        let Ok(Icmpv6Repr::Ndisc(nd)) = parsed else {
            return Verdict::Dropped(DropReason::Malformed);
        };
        let station = |lladdr: Option<smoltcp::wire::RawHardwareAddress>| {
            let bytes: [u8; 6] = lladdr?.as_bytes().try_into().ok()?;
            Some(Mac(bytes)).filter(|mac| mac.is_station())
        };
        match nd {
            NdiscRepr::NeighborSolicit {
                target_addr,
                lladdr,
            } => {
                // Who is about to take an address asks those who may have it, and is nowhere to be
                // found yet (RFC 4861 section 7.1.1).
                let rival = src.is_unspecified();
                if rival && (dst != solicited_node(&target_addr) || lladdr.is_some()) {
                    return Verdict::Dropped(DropReason::Malformed);
                }
                let ours = self
                    .ifs
                    .get(rcvif)
                    .is_some_and(|ifp| ifp.addr(&target_addr.into()).is_some());
                let Some(mac) = self.mac_of(id).filter(|_| ours) else {
                    // Two about to take the same address: neither does.
                    return match rival && self.autoconf_duplicate(id, target_addr) {
                        true => Verdict::Delivered,
                        false => NOT_WANTED,
                    };
                };
                if let Some(asker) = station(lladdr) {
                    self.learned(id, rcvif, src.into(), asker, true);
                }
                // Somebody who is about to take the address has none yet to be answered at
                // (RFC 4861 section 7.2.4).
                self.advertise(id, rcvif, mac, target_addr, (!rival).then_some(src));
                Verdict::Delivered
            }
            NdiscRepr::NeighborAdvert {
                flags,
                target_addr,
                lladdr,
            } => {
                if self.autoconf_duplicate(id, target_addr) {
                    return Verdict::Delivered;
                }
                if !flags.contains(NdiscNeighborFlags::ROUTER) {
                    self.autoconf_retired(id, target_addr);
                }
                let ours = self.ifs.is_local(&target_addr.into());
                match station(lladdr).filter(|_| !ours) {
                    Some(mac) => {
                        self.learned(id, rcvif, target_addr.into(), mac, false);
                        Verdict::Delivered
                    }
                    None => NOT_WANTED,
                }
            }
            NdiscRepr::RouterAdvert {
                router_lifetime,
                lladdr,
                ..
            } => {
                if !src.is_unicast_link_local() {
                    return Verdict::Dropped(DropReason::Malformed);
                }
                if let Some(router) = station(lladdr) {
                    self.learned(id, rcvif, src.into(), router, true);
                }
                let options = message.get(RA_OPTIONS..).unwrap_or_default();
                self.ra_input(id, src, router_lifetime.into(), options)
            }
            // Nobody here advertises, and of two ways to the same place one is enough.
            _ => NOT_WANTED,
        }
    }

    pub(super) fn nd_send(
        &mut self,
        id: PortId,
        dev: IfIndex,
        src: Ipv6Addr,
        dst: Ipv6Addr,
        message: &Icmpv6Repr<'_>,
    ) {
        let mut packet = Packet::zeroed(message.buffer_len());
        let mut icmp = Icmpv6Packet::new_unchecked(&mut packet[..]);
        message.emit(&src, &dst, &mut icmp, &ChecksumCapabilities::default());
        let mut head = [0; crate::netisr::input::IPV6_HEADER];
        head[0] = 0x60;
        head[4..6].copy_from_slice(&(packet.len() as u16).to_be_bytes());
        head[6] = proto::ICMPV6;
        head[7] = ND_HOP_LIMIT;
        head[8..24].copy_from_slice(&src.octets());
        head[24..].copy_from_slice(&dst.octets());
        packet.prepend(&head);
        if let Some(ifp) = self.ifs.get_mut(dev) {
            ifp.stats.output.offered += 1;
        }
        // To a station it goes as everything does, and the station was noted just before.
        let _ = self.ether_output(id, dev, Family::Inet6, packet, dst.into());
    }

    /// Notes a neighbour and sends what waited for it.
    fn learned(&mut self, id: PortId, dev: IfIndex, addr: IpAddr, mac: Mac, new: bool) {
        let now = self.now.monotonic;
        let Some(port) = self.links.get_mut(id) else {
            return;
        };
        let waiting: VecDeque<_> = port.neighbors.learn(addr, mac, new, now);
        for (family, packet) in waiting {
            if let Some(ifp) = self.ifs.get_mut(dev) {
                ifp.stats.output.queued -= 1;
            }
            let _ = self.ether_send(id, dev, family, packet, mac);
        }
    }

    /// Packets whose neighbour does not answer: whoever sent them hears of it.
    pub(super) fn unreachable(&mut self, dev: IfIndex, lost: Vec<(Family, Packet)>) {
        if let Some(ifp) = self.ifs.get_mut(dev) {
            ifp.stats.output.queued -= lost.len() as u64;
            ifp.stats
                .drop_output(DropReason::NoNeighbor, lost.len() as u64);
        }
        for (_, packet) in lost {
            let _ = self.icmp_notice(&packet, Notice::Unreachable);
            self.icmp_unreachable_host(dev, &packet);
        }
    }
}

//! ARP (RFC 826) and IPv6 neighbour discovery (RFC 4861), as a host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv6Packet, Icmpv6Repr,
    NdiscNeighborFlags, NdiscRepr,
};

use super::autoconf::Preference;
use super::neighbor::Heard;
use super::{
    ETHERTYPE_ARP, ETHERTYPE_IPV6, EtherSoftc, HEADER, Link, Mac, adapter_of, drop_frame, header,
};
use crate::ifnet::{AdapterId, DropReason, Family, Frame, IfIndex, Ifnet, is_host, solicited_node};
use crate::ip::groups::ALL_NODES;
use crate::ip::header::{ipv6_header, proto};
use crate::ip::icmp::REDIRECT_V6;
use crate::ip::redirect::Redirect;
use crate::ip::{Ip, Received, Verdict};
use crate::packet::Packet;

/// Hop limit of neighbour discovery. A message from another link would arrive with a smaller one
/// (RFC 4861 section 3.1).
const ND_HOP_LIMIT: u8 = 255;
/// Bytes of a router advertisement before its options (RFC 4861 section 4.2).
const RA_OPTIONS: usize = 16;
/// Offset of its flags.
const RA_FLAGS: usize = 5;
/// Bytes of it before its options (RFC 4861 section 4.5).
const REDIRECT_OPTIONS: usize = 40;

impl Link {
    /// Asks for the hardware address of `addr`: all stations, or the one that had it before.
    pub(super) fn solicit(&mut self, ip: &mut Ip, id: AdapterId, addr: IpAddr, of: Option<Mac>) {
        let Some(&EtherSoftc { dev, mac, .. }) = self.get(id) else {
            return;
        };
        let src = ip.ifs.get(dev).and_then(|ifp| ifp.source_for(&addr, &addr));
        match (addr, src) {
            (IpAddr::V4(target), src) => {
                let src = match src {
                    Some(IpAddr::V4(src)) => src,
                    _ => Ipv4Addr::UNSPECIFIED,
                };
                let question = (ArpOperation::Request, mac, src);
                let dst = of.unwrap_or(Mac::BROADCAST);
                self.arp_send(ip, id, dst, question, (Mac([0; 6]), target));
            }
            (IpAddr::V6(target), Some(IpAddr::V6(src))) => {
                let message = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit {
                    target_addr: target,
                    lladdr: Some(EthernetAddress(mac.0).into()),
                });
                let group = solicited_node(&target);
                let packet = nd_packet(src, of.map_or(group, |_| target), &message);
                let wall = ip.now.wall;
                let tap = |ifp: &mut Ifnet| {
                    ifp.tap(wall, Family::Inet6.dlt_null(), &packet);
                    of.or(Mac::mapped_from(&group.into(), ifp))
                };
                if let Some(Some(dst)) = ip.ifs.with(dev, tap) {
                    self.send_own(ip, id, ETHERTYPE_IPV6, packet, dst, true);
                }
            }
            (IpAddr::V6(_), _) => {}
        }
    }

    /// Announces the hardware address of an address of ours to all stations. Some may have cached
    /// another (RFC 5227 section 3, RFC 4861 section 7.2.6).
    pub(crate) fn announce(&mut self, ip: &mut Ip, id: AdapterId, addr: IpAddr) {
        let softc = self.present(ip, id);
        let Some(mac) = softc
            .filter(|softc| ip.is_up(softc.dev))
            .map(|softc| softc.mac)
        else {
            return;
        };
        match addr {
            IpAddr::V4(addr) => {
                let question = (ArpOperation::Request, mac, addr);
                self.arp_send(ip, id, Mac::BROADCAST, question, (Mac([0; 6]), addr));
            }
            IpAddr::V6(addr) => self.advertise(ip, id, mac, addr, None),
        }
    }

    /// Sends a neighbour advertisement for an address of ours: to the station that asked, or to
    /// all.
    fn advertise(
        &mut self,
        ip: &mut Ip,
        id: AdapterId,
        mac: Mac,
        target_addr: Ipv6Addr,
        to: Option<Ipv6Addr>,
    ) {
        let mut flags = NdiscNeighborFlags::OVERRIDE;
        flags.set(NdiscNeighborFlags::SOLICITED, to.is_some());
        flags.set(NdiscNeighborFlags::ROUTER, ip.forwarding);
        let message = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
            flags,
            target_addr,
            lladdr: Some(EthernetAddress(mac.0).into()),
        });
        self.nd_send(ip, id, target_addr, to.unwrap_or(ALL_NODES), &message);
    }

    pub(super) fn arp_send(
        &mut self,
        ip: &mut Ip,
        id: AdapterId,
        dst: Mac,
        (operation, source_mac, source): (ArpOperation, Mac, Ipv4Addr),
        (target_mac, target): (Mac, Ipv4Addr),
    ) {
        let arp = ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: EthernetAddress(source_mac.0),
            source_protocol_addr: source,
            target_hardware_addr: EthernetAddress(target_mac.0),
            target_protocol_addr: target,
        };
        let mut packet = Packet::zeroed(arp.buffer_len());
        arp.emit(&mut ArpPacket::new_unchecked(&mut packet[..]));
        let first = is_question(operation, source, target);
        self.send_own(ip, id, ETHERTYPE_ARP, packet, dst, first);
    }

    /// Sends a packet that the driver made itself: through the send queue, or if `first`, before
    /// the packets that wait for its answer.
    fn send_own(
        &mut self,
        ip: &mut Ip,
        id: AdapterId,
        ethertype: u16,
        mut packet: Packet,
        dst: Mac,
        first: bool,
    ) {
        let now = ip.now;
        let Some(softc) = self.get_mut(id) else {
            return;
        };
        let (dev, len) = (softc.dev, packet.len());
        packet.prepend(&header(dst, softc.mac, ethertype));
        ip.ifs.with(dev, |ifp| {
            ifp.stats.output.offered += 1;
            if !first {
                let family = Family::Other(ethertype.into());
                let class = ifp.snd.classify(family, &packet);
                let next_hop = Ipv4Addr::UNSPECIFIED.into();
                let frame = Frame::new(packet, family, next_hop)
                    .headed(HEADER as u8)
                    .in_class(class);
                // If the queue is full, the station will ask again.
                let _ = ifp.enqueue(frame, len, now);
                return;
            }
            ifp.stats.opackets += 1;
            ifp.stats.obytes += len as u64;
            ifp.stats.output.queued += 1;
            ifp.snd.charge(packet.len(), now);
            softc.push_frame(ifp, packet);
        });
    }

    pub(super) fn arp_input(&mut self, ip: &mut Ip, id: AdapterId, from: Mac, frame: &[u8]) {
        let payload = frame.get(HEADER..).unwrap_or_default();
        let Some(&EtherSoftc { dev, mac, .. }) = self.get(id) else {
            return;
        };
        if let Some(ifp) = ip.ifs.get_mut(dev) {
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
            return drop_frame(ip, dev, DropReason::Malformed, frame);
        };
        let source_mac = Mac(source_hardware_addr.0);
        let for_us = ip.has_addr(dev, &target.into());
        let reply = operation == ArpOperation::Reply;
        if let Some(ifp) = ip.ifs.get_mut(dev) {
            ifp.stats.input.offered += 1;
            ifp.stats.input.delivered += 1;
        }
        let broadcasts = |ifp: &Ifnet| ifp.broadcasts(&source);
        let station = source_mac.is_station()
            && is_host(&source.into())
            && !ip.ifs.get(dev).is_some_and(broadcasts);
        if station && ip.has_addr(dev, &source.into()) {
            return self.conflict(ip, id, source.into(), source_mac);
        }
        // A station that claims our own address is not believed.
        if station && !ip.ifs.is_local(&source.into()) {
            let softc = self.get_mut(id);
            let asked = softc.is_some_and(|softc| softc.neighbors_v4.asked(&source.into()));
            // Of the cards that share one address, another may send than the one that the answer
            // names. Whatever nobody asked for has to name its sender.
            let answer = reply && for_us && asked;
            let heard = match operation {
                ArpOperation::Request if for_us => Heard::Talks,
                _ => Heard::Advert {
                    solicited: answer,
                    overrides: true,
                },
            };
            if answer || source_mac == from {
                self.learned(ip, id, source.into(), Some(source_mac), heard);
            }
        }
        // A station that is about to take the address asks from the unspecified one (RFC 5227).
        let asker = from.is_station() && (station || source.is_unspecified());
        if for_us && operation == ArpOperation::Request && asker && source_mac.is_station() {
            let answer = (ArpOperation::Reply, mac, target);
            self.arp_send(ip, id, source_mac, answer, (source_mac, source));
        }
    }

    /// Handles a message of neighbour discovery.
    pub(crate) fn nd_input(&mut self, ip: &mut Ip, received: &Received) -> Verdict {
        const NOT_WANTED: Verdict = Verdict::Dropped(DropReason::NotWanted);

        let &Received {
            rcvif,
            header: ref ip_header,
            ..
        } = received;
        let message = received.payload();
        let Some(id) = adapter_of(ip, rcvif) else {
            return NOT_WANTED;
        };
        let (IpAddr::V6(src), IpAddr::V6(dst)) = (ip_header.src, ip_header.dst) else {
            return NOT_WANTED;
        };
        if !ip.runs_ipv6(rcvif) {
            return NOT_WANTED;
        }
        if ip_header.hop_limit != ND_HOP_LIMIT {
            return Verdict::Dropped(DropReason::BadOption);
        }
        if message.get(1) != Some(&0) {
            return Verdict::Dropped(DropReason::Malformed);
        }
        if message.first() == Some(&REDIRECT_V6) {
            return self.nd_redirect(ip, id, rcvif, src, message);
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
                // A station that is about to take an address asks whether another has it, from the
                // unspecified address (RFC 4861 section 7.1.1).
                let rival = src.is_unspecified();
                if rival && (dst != solicited_node(&target_addr) || lladdr.is_some()) {
                    return Verdict::Dropped(DropReason::Malformed);
                }
                let ours = ip.has_addr(rcvif, &target_addr.into());
                let Some(mac) = self.mac_of(id).filter(|_| ours) else {
                    // Two stations are about to take the same address: neither does.
                    return match rival && self.autoconf_duplicate(ip, id, target_addr) {
                        true => Verdict::Delivered,
                        false => NOT_WANTED,
                    };
                };
                if rival && self.rival(ip, id, target_addr.into()) {
                    return Verdict::Delivered;
                }
                if let Some(asker) = station(lladdr) {
                    self.learned(ip, id, src.into(), Some(asker), Heard::Talks);
                }
                // A station that is about to take the address has none yet, so all stations get the
                // answer (RFC 4861 section 7.2.4).
                self.advertise(ip, id, mac, target_addr, (!rival).then_some(src));
                Verdict::Delivered
            }
            NdiscRepr::NeighborAdvert {
                flags,
                target_addr,
                lladdr,
            } => {
                let solicited = flags.contains(NdiscNeighborFlags::SOLICITED);
                // RFC 4861 section 7.1.2.
                if target_addr.is_multicast() || (solicited && dst.is_multicast()) {
                    return Verdict::Dropped(DropReason::Malformed);
                }
                if self.autoconf_duplicate(ip, id, target_addr) {
                    return Verdict::Delivered;
                }
                if ip.ifs.is_local(&target_addr.into()) {
                    if let Some(mac) = station(lladdr)
                        && ip.has_addr(rcvif, &target_addr.into())
                    {
                        self.conflict(ip, id, target_addr.into(), mac);
                    }
                    return NOT_WANTED;
                }
                let heard = Heard::Advert {
                    solicited,
                    overrides: flags.contains(NdiscNeighborFlags::OVERRIDE),
                };
                if !self.learned(ip, id, target_addr.into(), station(lladdr), heard) {
                    return NOT_WANTED;
                }
                if !flags.contains(NdiscNeighborFlags::ROUTER) {
                    ip.redirects_retired(rcvif, &target_addr.into());
                    self.autoconf_retired(ip, id, target_addr);
                }
                Verdict::Delivered
            }
            NdiscRepr::RouterAdvert {
                hop_limit,
                router_lifetime,
                lladdr,
                ..
            } => {
                if !src.is_unicast_link_local() {
                    return Verdict::Dropped(DropReason::Malformed);
                }
                if let Some(router) = station(lladdr) {
                    self.learned(ip, id, src.into(), Some(router), Heard::Talks);
                }
                let options = message.get(RA_OPTIONS..).unwrap_or_default();
                let preference = Preference::of(message[RA_FLAGS]);
                let router = (src, preference, hop_limit);
                self.ra_input(ip, id, router, router_lifetime.into(), options)
            }
            // This host sends no router advertisements.
            _ => NOT_WANTED,
        }
    }

    /// Handles a redirect (RFC 4861 section 8.3). It is parsed here, because smoltcp refuses one
    /// that quotes a part of a packet.
    fn nd_redirect(
        &mut self,
        ip: &mut Ip,
        id: AdapterId,
        rcvif: IfIndex,
        src: Ipv6Addr,
        message: &[u8],
    ) -> Verdict {
        const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
        const MALFORMED: Verdict = Verdict::Dropped(DropReason::Malformed);

        let Some((fixed, mut rest)) = message.split_first_chunk::<REDIRECT_OPTIONS>() else {
            return MALFORMED;
        };
        let mut mac = None;
        while let [kind, len, ..] = *rest {
            let len = usize::from(len) * 8;
            let (1.., Some((option, behind))) = (len, rest.split_at_checked(len)) else {
                return MALFORMED;
            };
            if let (TARGET_LINK_LAYER_ADDRESS, [_, _, addr @ ..]) = (kind, option) {
                let addr = addr.try_into().map(Mac).ok();
                mac = addr.filter(|mac| mac.is_station());
            }
            rest = behind;
        }
        let addr = |at: usize| fixed[at..].first_chunk::<16>().copied().map(Ipv6Addr::from);
        let (true, Some(to), Some(dst)) = (rest.is_empty(), addr(8), addr(24)) else {
            return MALFORMED;
        };
        if !src.is_unicast_link_local() {
            return Verdict::Dropped(DropReason::RedirectRefused);
        }
        let (from, dst, to) = (src.into(), dst.into(), to.into());
        let verdict = ip.redirect(&Redirect {
            rcvif,
            from,
            dst,
            to,
        });
        if verdict == Verdict::Delivered && mac.is_some() {
            self.learned(ip, id, to, mac, Heard::Talks);
        }
        verdict
    }

    pub(super) fn nd_send(
        &self,
        ip: &mut Ip,
        id: AdapterId,
        src: Ipv6Addr,
        dst: Ipv6Addr,
        message: &Icmpv6Repr<'_>,
    ) {
        let packet = nd_packet(src, dst, message);
        if let Some(dev) = self.interface(id) {
            // The station that is answered was noted just before, so this does not wait.
            let _ = ip.if_output(dev, Family::Inet6, packet, dst.into());
        }
    }

    /// Notes what was heard of a neighbour, and sends the packets that waited for it. False if it
    /// says nothing to us: nobody looked for the neighbour, or we believe another.
    fn learned(
        &mut self,
        ip: &mut Ip,
        id: AdapterId,
        addr: IpAddr,
        mac: Option<Mac>,
        heard: Heard,
    ) -> bool {
        let now = ip.now.monotonic;
        let Some(softc) = self.get_mut(id) else {
            return false;
        };
        let Some(ifp) = ip.ifs.get_mut(softc.dev) else {
            return false;
        };
        let chance = ip.delays.fraction();
        let neighbors = softc.neighbors(&addr);
        let learned = neighbors.learn(addr, mac, heard, now, chance);
        for (family, packet) in learned.packets {
            if let Some(mac) = mac {
                softc.send_first(ifp, family, packet, mac);
            }
        }
        if learned.reachable {
            self.autoconf_reachable(ip, id, &addr);
        }
        learned.taken
    }
}

/// Whether the message is a request. An announcement of the sender's own address is not.
fn is_question(operation: ArpOperation, source: Ipv4Addr, target: Ipv4Addr) -> bool {
    operation == ArpOperation::Request && source != target
}

fn nd_packet(src: Ipv6Addr, dst: Ipv6Addr, message: &Icmpv6Repr<'_>) -> Packet {
    let mut packet = Packet::zeroed(message.buffer_len());
    let mut icmp = Icmpv6Packet::new_unchecked(&mut packet[..]);
    message.emit(&src, &dst, &mut icmp, &ChecksumCapabilities::default());
    let len = packet.len() as u16;
    packet.prepend(&ipv6_header(src, dst, proto::ICMPV6, ND_HOP_LIMIT, len));
    packet
}

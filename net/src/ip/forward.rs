//! Forwarding: packets for other hosts.

use std::net::{IpAddr, Ipv4Addr};

use smoltcp::wire::{Ipv4Packet, Ipv6Packet, TcpPacket};

use super::header::{IPV4_HEADER, IPV6_HEADER, addresses, proto};
use super::icmp::Problem;
use super::options::{self, Refused};
use super::output::{NetError, Path, fragment_v4};
use super::{Ip, Verdict};
use crate::ifnet::{DropReason, Family, IfFlags, IfIndex, Ifnet, Outgoing, is_link_local};
use crate::packet::Packet;

impl Ip {
    /// Forwards a valid packet whose destination is another host (RFC 1812 section 5.2).
    pub(crate) fn ip_forward(&mut self, rcvif: IfIndex, mut packet: Packet) -> Verdict {
        if !self.forwarding {
            return Verdict::Dropped(DropReason::NotForUs);
        }
        let Some((src, dst)) = addresses(&packet) else {
            return Verdict::Dropped(DropReason::Malformed);
        };
        // Link-local addresses must not leave their link (RFC 4291 section 2.5.6).
        if is_link_local(&src) || is_link_local(&dst) {
            return Verdict::Dropped(DropReason::NotForUs);
        }
        let hop_limit = if dst.is_ipv4() { packet[8] } else { packet[7] };
        // Its way led through lo0 already, and would again.
        if self.is_loopback(rcvif) {
            return Verdict::Dropped(DropReason::NotForUs);
        }
        if hop_limit <= 1 {
            self.icmp_error(rcvif, &packet, Problem::HopLimit);
            return Verdict::Dropped(DropReason::TtlExceeded);
        }
        let path = match self.way_to(&dst, None) {
            Ok(path) => path,
            Err(error) => {
                let (problem, reason) = match error {
                    NetError::Unreachable => (Problem::Host, DropReason::Unreachable),
                    NetError::Down => (Problem::NoRoute, DropReason::NetDown),
                    _ => (Problem::NoRoute, DropReason::NoRoute),
                };
                self.icmp_error(rcvif, &packet, problem);
                return Verdict::Dropped(reason);
            }
        };
        if path.dev == rcvif && self.is_other_end(rcvif, &dst) {
            self.icmp_error(rcvif, &packet, Problem::Host);
            return Verdict::Dropped(DropReason::NoRoute);
        }
        if let Err(refused) = self.forward_options(&path, &dst, &mut packet) {
            self.refuse_options(rcvif, &packet, refused);
            return Verdict::Dropped(DropReason::BadOption);
        }
        if dst.is_ipv4() {
            let mut ip = Ipv4Packet::new_unchecked(&mut packet[..]);
            ip.set_hop_limit(hop_limit - 1);
            ip.fill_checksum();
        } else {
            Ipv6Packet::new_unchecked(&mut packet[..]).set_hop_limit(hop_limit - 1);
        }
        // Segments of the other direction leave by the interface that this SYN came by: both mtus
        // count.
        let back = self.ifs.get(rcvif).map_or(path.mtu, |ifp| ifp.mtu_to(&dst));
        clamp_mss(&mut packet, path.mtu.min(back));
        let family = Family::of(&dst);
        if packet.len() <= usize::from(path.mtu) {
            let mut outgoing = Outgoing {
                family,
                packet,
                next_hop: path.next_hop,
                now: self.now,
            };
            let sent = self.if_send(path.dev, &mut outgoing);
            return self.forwarded(rcvif, &outgoing.packet, sent);
        }
        let may_split = match dst {
            IpAddr::V4(_) => !Ipv4Packet::new_unchecked(&packet[..]).dont_frag(),
            IpAddr::V6(_) => false,
        };
        if !may_split {
            let mtu = path.mtu;
            self.icmp_error(rcvif, &packet, Problem::TooBig { mtu });
            return Verdict::Dropped(DropReason::TooBig);
        }
        let Some(fragments) = fragment_v4(&packet, path.mtu) else {
            return Verdict::Dropped(DropReason::TooBig);
        };
        let sent = self.output_all(path, family, fragments);
        self.forwarded(rcvif, &packet, sent)
    }

    /// Whether a packet that came by an interface with one peer, for this IPv6 address of its own
    /// network, would only go back and forth (RFC 4443 section 3.1).
    fn is_other_end(&self, rcvif: IfIndex, dst: &IpAddr) -> bool {
        let one_peer = |ifp: &&Ifnet| ifp.flags.contains(IfFlags::POINTOPOINT);
        dst.is_ipv6()
            && self
                .ifs
                .get(rcvif)
                .filter(one_peer)
                .is_some_and(|ifp| ifp.addrs.iter().any(|own| own.covers(dst)))
    }

    /// The verdict for a packet that was given to an interface. If that cannot send it, its sender
    /// is told; one that found a full queue was on its way.
    fn forwarded(&mut self, rcvif: IfIndex, packet: &[u8], sent: Result<(), NetError>) -> Verdict {
        match sent {
            Ok(()) | Err(NetError::NoBuffers) => Verdict::Forwarded,
            Err(_) => {
                self.icmp_error(rcvif, packet, Problem::Host);
                Verdict::Dropped(DropReason::NetDown)
            }
        }
    }

    /// Fills in the options of an IPv4 packet that leaves by `path` (RFC 1812 section 5.3.13). The
    /// checksum is left to the caller.
    fn forward_options(&self, path: &Path, dst: &IpAddr, packet: &mut [u8]) -> Result<(), Refused> {
        let header_len = usize::from(packet[0] & 0xf) * 4;
        if dst.is_ipv6() || header_len <= IPV4_HEADER {
            return Ok(());
        }
        let ifp = self.ifs.get(path.dev);
        let own = ifp.and_then(|ifp| self.source(ifp, dst, &path.next_hop));
        let Some(IpAddr::V4(own)) = own else {
            return Ok(());
        };
        let is_ours = |addr: Ipv4Addr| self.ifs.is_local(&addr.into());
        let options = &mut packet[IPV4_HEADER..header_len];
        options::fill_in(options, own, is_ours, self.now.wall)
    }
}

/// Lowers the maximum segment size in a forwarded SYN to what fits into an mtu of `mtu` bytes.
fn clamp_mss(packet: &mut [u8], mtu: u16) {
    const MSS: u8 = 2;

    let (at, headers) = match packet.first().map(|byte| byte >> 4) {
        Some(4) if packet.get(9) == Some(&proto::TCP) => {
            let fragment = u16::from_be_bytes([packet[6], packet[7]]) & 0x1fff;
            if fragment != 0 {
                return;
            }
            (usize::from(packet[0] & 0xf) * 4, IPV4_HEADER + 20)
        }
        Some(6) if packet.get(6) == Some(&proto::TCP) => (IPV6_HEADER, IPV6_HEADER + 20),
        _ => return,
    };
    let Some(most) = usize::from(mtu).checked_sub(headers) else {
        return;
    };
    let Some(segment) = packet.get_mut(at..) else {
        return;
    };
    let Ok(tcp) = TcpPacket::new_checked(&*segment) else {
        return;
    };
    if !tcp.syn() {
        return;
    }
    let end = usize::from(tcp.header_len());
    let mut option = 20;
    while option + 4 <= end {
        match (segment[option], segment[option + 1]) {
            (0, _) => return,
            (1, _) => option += 1,
            (MSS, 4) => {
                let old = u16::from_be_bytes([segment[option + 2], segment[option + 3]]);
                let new = old.min(u16::try_from(most).unwrap_or(u16::MAX));
                segment[option + 2..option + 4].copy_from_slice(&new.to_be_bytes());
                // RFC 1624, equation 3; the option may stand across two words of the sum.
                let shift = |value: u16| {
                    if option % 2 == 0 {
                        value
                    } else {
                        value.swap_bytes()
                    }
                };
                let sum = u16::from_be_bytes([segment[16], segment[17]]);
                let mut sum = u32::from(!sum) + u32::from(!shift(old)) + u32::from(shift(new));
                sum = (sum & 0xffff) + (sum >> 16);
                sum = (sum & 0xffff) + (sum >> 16);
                segment[16..18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
                return;
            }
            (_, len) if len >= 2 => option += usize::from(len),
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip::checksum;

    #[test]
    fn the_clamp_keeps_the_checksum_right() {
        let (src, dst) = ("10.0.0.1".parse().unwrap(), "10.9.0.1".parse().unwrap());
        for padding in [0, 1] {
            let mut packet = vec![0; 20 + 28];
            packet[0] = 0x45;
            packet[9] = proto::TCP;
            let segment = &mut packet[20..];
            segment[12] = 0x70;
            segment[13] = 2;
            segment[20..20 + padding].fill(1);
            segment[20 + padding..24 + padding].copy_from_slice(&[2, 4, 5, 0xb4]);
            let sum = checksum::fill(&src, &dst, proto::TCP, segment);
            segment[16..18].copy_from_slice(&sum.to_be_bytes());
            clamp_mss(&mut packet, 1280);
            assert_eq!(packet[42 + padding..44 + padding], 1240_u16.to_be_bytes());
            assert!(checksum::verify(&src, &dst, proto::TCP, &packet[20..]));
            let clamped = packet.clone();
            clamp_mss(&mut packet, 1500);
            assert_eq!(packet, clamped);
        }
    }
}

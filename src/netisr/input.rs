//! `ip_input` and `ip6_input`: is it a packet, may it be here, is it for us?

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::{Ipv4Packet, Ipv6Packet};

use super::icmp::Problem;
use super::reassembly::{Added, Fragment, Key, Parts};
use super::{Fate, Verdict, checksum};
use crate::ifnet::{Driver, DropReason, IfIndex};
use crate::net::Net;
use crate::packet::Packet;

/// Protocol numbers.
pub(crate) mod proto {
    pub(crate) const HOP_BY_HOP: u8 = 0;
    pub(crate) const ICMP: u8 = 1;
    pub(crate) const IGMP: u8 = 2;
    pub(crate) const TCP: u8 = 6;
    pub(crate) const UDP: u8 = 17;
    pub(crate) const ROUTING: u8 = 43;
    pub(crate) const FRAGMENT: u8 = 44;
    pub(crate) const ICMPV6: u8 = 58;
    pub(crate) const NO_NEXT: u8 = 59;
    pub(crate) const DESTINATION: u8 = 60;
}

/// Length of an IPv4 header without options.
pub(crate) const IPV4_HEADER: usize = 20;
/// Length of an IPv6 header.
pub(crate) const IPV6_HEADER: usize = 40;
/// Length of an IPv6 fragment header.
pub(crate) const FRAGMENT_HEADER: usize = 8;
/// Most extension headers followed; real packets have one or two.
const MAX_EXTENSIONS: usize = 8;

/// What the transports need to know of a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) hop_limit: u8,
    /// Where the payload begins.
    pub(crate) payload: usize,
    /// Whom it was sent to.
    pub(crate) place: Place,
}

/// What kind of destination an address is, seen from the interface a packet came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// This host.
    Host,
    /// Everybody on a network of ours.
    Broadcast,
    /// A group that the interface hears.
    Multicast,
    /// Another host.
    Elsewhere,
}

/// Where the payload of an IPv6 packet is, behind its extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Walk {
    /// Here.
    Payload { protocol: u8, at: usize },
    /// This is a fragment; `at` is its fragment header.
    Fragment { at: usize },
    /// It cannot be told.
    Broken,
    /// An option or header that must not be passed over; the sender may be told where.
    Refused {
        code: Option<u8>,
        pointer: usize,
        even_multicast: bool,
    },
}

/// Follows the extension headers of a packet whose fixed header is sound.
pub(crate) fn walk(packet: &[u8]) -> Walk {
    let Some(&first) = packet.get(6) else {
        return Walk::Broken;
    };
    let (mut protocol, mut at) = (first, IPV6_HEADER);
    // Where the number of the current header stands, for an error about it.
    let mut number_at = 6;
    for step in 0..MAX_EXTENSIONS {
        match protocol {
            proto::HOP_BY_HOP if step > 0 => {
                let (code, pointer) = (Some(1), number_at);
                return Walk::Refused {
                    code,
                    pointer,
                    even_multicast: true,
                };
            }
            proto::FRAGMENT => {
                return match packet.len() >= at + FRAGMENT_HEADER {
                    true => Walk::Fragment { at },
                    false => Walk::Broken,
                };
            }
            proto::HOP_BY_HOP | proto::DESTINATION | proto::ROUTING => {}
            _ => return Walk::Payload { protocol, at },
        }
        let (Some(&next), Some(&len)) = (packet.get(at), packet.get(at + 1)) else {
            return Walk::Broken;
        };
        let end = at + (usize::from(len) + 1) * 8;
        let Some(header) = packet.get(at..end) else {
            return Walk::Broken;
        };
        if protocol == proto::ROUTING {
            // Segments are left: a route through us, which we do not offer (RFC 8200 section 4.4).
            if header[3] != 0 {
                let (code, pointer) = (Some(0), at + 2);
                return Walk::Refused {
                    code,
                    pointer,
                    even_multicast: false,
                };
            }
        } else if let Some(refused) = options(header, at) {
            return refused;
        }
        (protocol, number_at, at) = (next, at, end);
    }
    Walk::Broken
}

/// The first option that must not be passed over (RFC 8200 section 4.2).
fn options(header: &[u8], at: usize) -> Option<Walk> {
    const PAD1: u8 = 0;
    const PADN: u8 = 1;
    const ROUTER_ALERT: u8 = 5;

    let mut rest = 2;
    while rest < header.len() {
        let kind = header[rest];
        if kind == PAD1 {
            rest += 1;
            continue;
        }
        let Some(&len) = header.get(rest + 1) else {
            return Some(Walk::Broken);
        };
        if kind != PADN && kind != ROUTER_ALERT && kind >> 6 != 0 {
            let code = (kind >> 6 >= 2).then_some(2);
            let even_multicast = kind >> 6 == 2;
            return Some(Walk::Refused {
                code,
                pointer: at + rest,
                even_multicast,
            });
        }
        rest += 2 + usize::from(len);
    }
    (rest != header.len()).then_some(Walk::Broken)
}

impl Net {
    pub(crate) fn ip_input(&mut self, rcvif: IfIndex, mut packet: Packet) -> Fate {
        let Ok(ip) = Ipv4Packet::new_checked(&packet[..]) else {
            return DropReason::Malformed.into();
        };
        let header_len = usize::from(ip.header_len());
        let total_len = usize::from(ip.total_len());
        if ip.version() != 4 || header_len < IPV4_HEADER {
            return DropReason::Malformed.into();
        }
        if !ip.verify_checksum() {
            return DropReason::BadChecksum.into();
        }
        let (src, dst) = (IpAddr::V4(ip.src_addr()), IpAddr::V4(ip.dst_addr()));
        let protocol = u8::from(ip.next_header());
        let hop_limit = ip.hop_limit();
        let ident = ip.ident();
        let (more, offset) = (ip.more_frags(), usize::from(ip.frag_offset()));
        packet.truncate(total_len);
        if refuses_options(&packet[IPV4_HEADER..header_len]) {
            return DropReason::BadOption.into();
        }
        let place = match self.judge(rcvif, &src, &dst) {
            Ok(place) => place,
            Err(reason) => return reason.into(),
        };
        let place = match place {
            Place::Elsewhere if self.is_dhcp_reply(rcvif, protocol, &packet[header_len..]) => {
                Place::Host
            }
            Place::Elsewhere => return Fate::Decided(self.ip_forward(rcvif, packet)),
            place => place,
        };
        let mut header = Header {
            src,
            dst,
            protocol,
            hop_limit,
            payload: header_len,
            place,
        };
        if !more && offset == 0 {
            return Fate::Decided(self.deliver(rcvif, header, packet));
        }
        let key = Key {
            src,
            dst,
            ident: ident.into(),
            protocol,
        };
        let fragment = Fragment {
            offset,
            more,
            data: &packet[header_len..],
            packet: &packet,
            protocol,
        };
        let (_, payload, parts) = match self.reassemble(key, rcvif, fragment) {
            Ok(whole) => whole,
            Err(fate) => return fate,
        };
        if IPV4_HEADER + payload.len() > usize::from(u16::MAX) {
            return Fate::DecidedWith(Verdict::Dropped(DropReason::Malformed), parts);
        }
        header.payload = IPV4_HEADER;
        let whole = whole_v4(&packet[..IPV4_HEADER], &payload);
        Fate::DecidedWith(self.deliver(rcvif, header, whole), parts)
    }

    pub(crate) fn ip6_input(&mut self, rcvif: IfIndex, mut packet: Packet) -> Fate {
        let Ok(ip) = Ipv6Packet::new_checked(&packet[..]) else {
            return DropReason::Malformed.into();
        };
        if ip.version() != 6 {
            return DropReason::Malformed.into();
        }
        if self.ifs.get(rcvif).is_some_and(|ifp| !ifp.has_ipv6()) {
            return DropReason::NoIpv6.into();
        }
        let (src, dst) = (IpAddr::V6(ip.src_addr()), IpAddr::V6(ip.dst_addr()));
        let hop_limit = ip.hop_limit();
        let total_len = ip.total_len();
        packet.truncate(total_len);
        let place = match self.judge(rcvif, &src, &dst) {
            Ok(place) => place,
            Err(reason) => return reason.into(),
        };
        if place == Place::Elsewhere {
            return Fate::Decided(self.ip_forward(rcvif, packet));
        }
        let mut header = Header {
            src,
            dst,
            protocol: proto::NO_NEXT,
            hop_limit,
            payload: IPV6_HEADER,
            place,
        };
        match walk(&packet) {
            Walk::Payload { protocol, at } => {
                (header.protocol, header.payload) = (protocol, at);
                Fate::Decided(self.deliver(rcvif, header, packet))
            }
            Walk::Broken => DropReason::Malformed.into(),
            Walk::Refused {
                code,
                pointer,
                even_multicast,
            } => {
                if let Some(code) = code
                    && (even_multicast || place == Place::Host)
                {
                    let pointer = pointer as u32;
                    self.icmp_error(rcvif, &packet, Problem::Parameter { code, pointer });
                }
                DropReason::BadOption.into()
            }
            Walk::Fragment { at } => self.ip6_fragment(rcvif, header, packet, at),
        }
    }

    fn ip6_fragment(
        &mut self,
        rcvif: IfIndex,
        mut header: Header,
        packet: Packet,
        at: usize,
    ) -> Fate {
        let fragment_header = &packet[at..at + FRAGMENT_HEADER];
        let word = u16::from_be_bytes([fragment_header[2], fragment_header[3]]);
        let ident: [u8; 4] = [4, 5, 6, 7].map(|at| fragment_header[at]);
        let next = fragment_header[0];
        let (more, offset) = (word & 1 != 0, usize::from(word & !7));
        let data = &packet[at + FRAGMENT_HEADER..];
        let (protocol, payload, parts) = if !more && offset == 0 {
            // An atomic fragment stands alone, whatever else has its number (RFC 6946).
            (next, data.to_vec(), Parts::new())
        } else {
            let key = Key {
                src: header.src,
                dst: header.dst,
                ident: u32::from_be_bytes(ident),
                protocol: proto::FRAGMENT,
            };
            let fragment = Fragment {
                offset,
                more,
                data,
                packet: &packet,
                protocol: next,
            };
            match self.reassemble(key, rcvif, fragment) {
                Ok(whole) => whole,
                Err(fate) => return fate,
            }
        };
        // What stood before the fragment header has been dealt with: the whole goes without it.
        let mut head = [0; IPV6_HEADER];
        head.copy_from_slice(&packet[..IPV6_HEADER]);
        let Ok(len) = u16::try_from(payload.len()) else {
            return Fate::DecidedWith(Verdict::Dropped(DropReason::Malformed), parts);
        };
        head[4..6].copy_from_slice(&len.to_be_bytes());
        head[6] = protocol;
        let whole = Packet::concat(&head, &payload);
        match walk(&whole) {
            // Neighbour discovery in fragments passes what guards a network (RFC 6980).
            Walk::Payload { protocol, at }
                if protocol != proto::ICMPV6
                    || whole.get(at).is_none_or(|kind| !super::icmp::is_nd(*kind)) =>
            {
                (header.protocol, header.payload) = (protocol, at);
                Fate::DecidedWith(self.deliver(rcvif, header, whole), parts)
            }
            _ => Fate::DecidedWith(Verdict::Dropped(DropReason::BadOption), parts),
        }
    }

    fn reassemble(
        &mut self,
        key: Key,
        rcvif: IfIndex,
        fragment: Fragment<'_>,
    ) -> Result<(u8, Vec<u8>, Parts), Fate> {
        let now = self.now.monotonic;
        match self.netisr.reassembly.add(key, rcvif, fragment, now) {
            Added::Held => Err(Fate::Held),
            Added::Whole {
                protocol,
                payload,
                parts,
            } => Ok((protocol, payload, parts)),
            Added::Dropped(reason, parts) => {
                Err(Fate::DecidedWith(Verdict::Dropped(reason), parts))
            }
        }
    }

    /// Whom a packet is for, if its addresses may be on the wire at all (RFC 1122 section 3.2.1.3,
    /// RFC 4291 section 2).
    fn judge(&self, rcvif: IfIndex, src: &IpAddr, dst: &IpAddr) -> Result<Place, DropReason> {
        let Some(ifp) = self.ifs.get(rcvif) else {
            return Err(DropReason::NotWanted);
        };
        let looped = ifp.driver == Driver::Loopback;
        let place = match dst {
            IpAddr::V4(v4) => {
                let reserved = v4.octets()[0] == 0 || (v4.octets()[0] >= 240 && !v4.is_broadcast());
                if reserved || (v4.is_loopback() && !looped) {
                    return Err(DropReason::BadDestination);
                }
                if self.ifs.is_broadcast(v4) && !looped {
                    Place::Broadcast
                } else {
                    self.place_of(dst)
                }
            }
            IpAddr::V6(v6) => {
                let interface_local = v6.octets()[..2] == [0xff, 1] || v6.is_loopback();
                if v6.is_unspecified() || (interface_local && !looped) {
                    return Err(DropReason::BadDestination);
                }
                self.place_of(dst)
            }
        };
        if place == Place::Multicast && !ifp.hears(dst) {
            return Err(DropReason::NotMember);
        }
        let may_be = match src {
            IpAddr::V4(v4) if v4.is_unspecified() => {
                matches!(place, Place::Broadcast | Place::Multicast)
            }
            IpAddr::V6(v6) if v6.is_unspecified() => place == Place::Multicast,
            // One of ours can come from nowhere but here.
            _ if looped => true,
            IpAddr::V4(v4) => {
                crate::ifnet::is_host(src) && !v4.is_loopback() && !self.ifs.is_broadcast(v4)
            }
            IpAddr::V6(v6) => crate::ifnet::is_host(src) && !v6.is_loopback(),
        };
        if !may_be || (!looped && self.ifs.is_local(src)) {
            return Err(DropReason::BadSource);
        }
        Ok(place)
    }

    /// Whether this offers an address to an interface that has none: servers may send it to the
    /// address that they offer (RFC 2131 section 4.1).
    fn is_dhcp_reply(&self, rcvif: IfIndex, protocol: u8, payload: &[u8]) -> bool {
        const CLIENT: [u8; 2] = 68_u16.to_be_bytes();

        let waits = self.ifs.get(rcvif).is_some_and(|ifp| {
            let ethernet = matches!(ifp.driver, Driver::Ethernet(_));
            ethernet && !ifp.addrs.iter().any(|addr| addr.addr.is_ipv4())
        });
        waits && protocol == proto::UDP && payload.get(2..4) == Some(&CLIENT)
    }

    #[inline]
    fn place_of(&self, dst: &IpAddr) -> Place {
        if dst.is_multicast() {
            Place::Multicast
        } else if self.ifs.is_local(dst) {
            Place::Host
        } else {
            Place::Elsewhere
        }
    }

    /// Gives a whole packet to the protocol above.
    fn deliver(&mut self, rcvif: IfIndex, header: Header, packet: Packet) -> Verdict {
        let payload = &packet[header.payload..];
        let sound = match header.protocol {
            proto::ICMP | proto::IGMP => checksum::verify_plain(payload),
            // IPv4 may do without (RFC 768).
            proto::UDP if header.dst.is_ipv4() && payload.get(6..8) == Some(&[0, 0]) => true,
            proto::UDP | proto::TCP | proto::ICMPV6 => {
                let covered = match header.protocol {
                    // A datagram may be shorter than its packet.
                    proto::UDP => udp_len(payload).and_then(|len| payload.get(..len)),
                    _ => Some(payload),
                };
                let Some(covered) = covered else {
                    return Verdict::Dropped(DropReason::Malformed);
                };
                checksum::verify(&header.src, &header.dst, header.protocol, covered)
            }
            _ => true,
        };
        if !sound {
            return Verdict::Dropped(DropReason::BadChecksum);
        }
        let shown = self.raw_input(header.protocol, &packet);
        match (header.protocol, header.dst) {
            (proto::TCP, _) => self.tcp_input(rcvif, header, packet),
            (proto::UDP, _) => self.udp_input(rcvif, header, packet),
            (proto::ICMP, IpAddr::V4(_)) => self.icmp_input(rcvif, header, packet),
            (proto::ICMPV6, IpAddr::V6(_)) => self.icmp6_input(rcvif, header, packet),
            (proto::IGMP, IpAddr::V4(_)) => self.igmp_input(rcvif, header, &packet),
            (proto::NO_NEXT, IpAddr::V6(_)) => Verdict::Dropped(DropReason::NoProtocol),
            _ if shown => Verdict::Delivered,
            _ => {
                if header.place == Place::Host {
                    let pointer = next_header_at(&packet, header.payload);
                    self.icmp_error(rcvif, &packet, Problem::Protocol { pointer });
                }
                Verdict::Dropped(DropReason::NoProtocol)
            }
        }
    }
}

/// Where the number of the header at `payload` stands.
fn next_header_at(packet: &[u8], payload: usize) -> u32 {
    let mut number_at = 6;
    let mut at = IPV6_HEADER;
    while at < payload {
        let Some(&len) = packet.get(at + 1) else {
            break;
        };
        number_at = at;
        at += (usize::from(len) + 1) * 8;
    }
    number_at as u32
}

/// The length a UDP header claims, if it can be.
fn udp_len(payload: &[u8]) -> Option<usize> {
    let len = usize::from(u16::from_be_bytes([*payload.get(4)?, *payload.get(5)?]));
    (len >= 8 && len <= payload.len()).then_some(len)
}

/// Whether the options of an IPv4 header ask for what we do not do (source routes), or are none.
fn refuses_options(mut options: &[u8]) -> bool {
    const END: u8 = 0;
    const NOP: u8 = 1;
    const LSRR: u8 = 0x83;
    const SSRR: u8 = 0x89;

    loop {
        match options {
            [] | [END, ..] => return false,
            [NOP, rest @ ..] => options = rest,
            [LSRR | SSRR, ..] => return true,
            [_, len, ..] if *len >= 2 && usize::from(*len) <= options.len() => {
                options = &options[usize::from(*len)..];
            }
            _ => return true,
        }
    }
}

/// A packet with the addresses of `head`, which has no options, and a whole payload.
fn whole_v4(head: &[u8], payload: &[u8]) -> Packet {
    let mut packet = Packet::concat(head, payload);
    let mut ip = Ipv4Packet::new_unchecked(&mut packet[..]);
    ip.set_header_len(IPV4_HEADER as u8);
    ip.set_total_len((IPV4_HEADER + payload.len()) as u16);
    ip.set_more_frags(false);
    ip.set_frag_offset(0);
    ip.fill_checksum();
    packet
}

/// The version-independent parts of a packet that is sound: source, destination.
pub(crate) fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match packet.first()? >> 4 {
        4 => {
            let src: [u8; 4] = *packet.get(12..16)?.first_chunk()?;
            let dst: [u8; 4] = *packet.get(16..20)?.first_chunk()?;
            Some((Ipv4Addr::from(src).into(), Ipv4Addr::from(dst).into()))
        }
        6 => {
            let src: [u8; 16] = *packet.get(8..24)?.first_chunk()?;
            let dst: [u8; 16] = *packet.get(24..40)?.first_chunk()?;
            Some((Ipv6Addr::from(src).into(), Ipv6Addr::from(dst).into()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv6 packet with the given extension headers, each naming the next.
    fn packet(first: u8, extensions: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; IPV6_HEADER];
        packet[0] = 0x60;
        packet[6] = first;
        packet.extend_from_slice(extensions);
        packet
    }

    #[test]
    fn extension_headers_are_followed() {
        let plain = packet(proto::UDP, &[]);
        assert_eq!(
            walk(&plain),
            Walk::Payload {
                protocol: 17,
                at: 40
            }
        );
        let hop = packet(0, &[60, 0, 5, 2, 0, 0, 1, 0, 17, 0, 1, 4, 0, 0, 0, 0]);
        assert_eq!(
            walk(&hop),
            Walk::Payload {
                protocol: 17,
                at: 56
            }
        );
        let fragment = packet(44, &[17, 0, 0, 1, 0, 0, 0, 9]);
        assert_eq!(walk(&fragment), Walk::Fragment { at: 40 });
        let spent_route = packet(43, &[6, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            walk(&spent_route),
            Walk::Payload {
                protocol: 6,
                at: 48
            }
        );
    }

    #[test]
    fn what_must_not_be_passed_over() {
        let refused = |code, pointer, even_multicast| Walk::Refused {
            code,
            pointer,
            even_multicast,
        };
        let route = packet(43, &[6, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(walk(&route), refused(Some(0), 42, false));
        let skip = packet(60, &[6, 0, 0x1e, 4, 0, 0, 0, 0]);
        assert_eq!(
            walk(&skip),
            Walk::Payload {
                protocol: 6,
                at: 48
            }
        );
        let discard = packet(60, &[6, 0, 0x5e, 4, 0, 0, 0, 0]);
        assert_eq!(walk(&discard), refused(None, 42, false));
        let tell = packet(60, &[6, 0, 0x9e, 4, 0, 0, 0, 0]);
        assert_eq!(walk(&tell), refused(Some(2), 42, true));
        let tell_one = packet(60, &[6, 0, 0xde, 4, 0, 0, 0, 0]);
        assert_eq!(walk(&tell_one), refused(Some(2), 42, false));
        let late_hop = packet(60, &[0, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0]);
        assert_eq!(walk(&late_hop), refused(Some(1), 40, true));
    }

    #[test]
    fn what_cannot_be_told() {
        assert_eq!(walk(&packet(0, &[17])), Walk::Broken);
        assert_eq!(walk(&packet(0, &[17, 1, 1, 4, 0, 0, 0, 0])), Walk::Broken);
        assert_eq!(walk(&packet(0, &[17, 0, 1, 5, 0, 0, 0, 0])), Walk::Broken);
        assert_eq!(walk(&packet(44, &[17, 0, 0, 1])), Walk::Broken);
        assert_eq!(walk(&[]), Walk::Broken);
        let endless = [60, 0, 1, 4, 0, 0, 0, 0].repeat(9);
        assert_eq!(walk(&packet(60, &endless)), Walk::Broken);
    }

    #[test]
    fn source_routes_and_broken_options_are_refused() {
        assert!(!refuses_options(&[]));
        assert!(!refuses_options(&[1, 1, 0, 0]));
        assert!(!refuses_options(&[0x94, 4, 0, 0]));
        assert!(refuses_options(&[1, 0x83, 3, 4]));
        assert!(refuses_options(&[0x89, 3, 4, 0]));
        assert!(refuses_options(&[7]));
        assert!(refuses_options(&[7, 1, 0, 0]));
        assert!(refuses_options(&[7, 5, 0, 0]));
    }
}

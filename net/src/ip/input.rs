//! `ip_input` and `ip6_input`: validates received packets and finds those for this host.

use std::net::IpAddr;

use smoltcp::wire::{Ipv4Packet, Ipv6FragmentHeader, Ipv6Packet};

use super::header::{
    Addressee, FRAGMENT_HEADER, Header, IPV4_HEADER, IPV6_HEADER, Walk, cuts_last_header, proto,
    set_ipv6_payload, walk, walk_behind_fragment,
};
use super::icmp::Problem;
use super::options::{self, Refused};
use super::reassembly::{Added, Fragment, HeldFragments, Key};
use super::{Addressed, Delivery, Fate, Ip, Received, Verdict, checksum};
use crate::ifnet::{Driver, DropReason, IfIndex, is_host, is_interface_local, is_mapped};
use crate::packet::Packet;

impl Ip {
    pub(super) fn ip_input(
        &mut self,
        rcvif: IfIndex,
        mut packet: Packet,
        addressed: Addressed,
    ) -> Fate {
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
        let addressee = match self.check_addresses(rcvif, &src, &dst) {
            Ok(addressee) => addressee,
            Err(reason) => return reason.into(),
        };
        if let Err(refused) = options::check(&packet[IPV4_HEADER..header_len]) {
            // It is not ours to tell if it only came by.
            if addressee != Addressee::OtherHost || self.forwarding {
                self.refuse_options(rcvif, &packet, refused);
            }
            return DropReason::BadOption.into();
        }
        let addressee = match addressee {
            Addressee::OtherHost if self.is_dhcp_reply(rcvif, protocol, &packet[header_len..]) => {
                Addressee::Host
            }
            one if is_lost_unicast(one, addressed) => return DropReason::BadDestination.into(),
            Addressee::OtherHost => return self.ip_forward(rcvif, packet).into(),
            addressee => addressee,
        };
        let mut header = Header {
            src,
            dst,
            protocol,
            hop_limit,
            payload: header_len,
            addressee,
        };
        if !more && offset == 0 {
            return self.ours(rcvif, header, packet, HeldFragments::new());
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
        let (_, payload, held) = match self.reassemble(key, rcvif, fragment) {
            Ok(whole) => whole,
            Err(fate) => return fate,
        };
        if IPV4_HEADER + payload.len() > usize::from(u16::MAX) {
            return Fate::Decided(Verdict::Dropped(DropReason::Malformed), held);
        }
        header.payload = IPV4_HEADER;
        let whole = whole_v4(&packet[..IPV4_HEADER], &payload);
        self.ours(rcvif, header, whole, held)
    }

    /// Tells the sender of a packet what is wrong with its options (RFC 1122 section 3.2.2.5).
    pub(super) fn refuse_options(&mut self, rcvif: IfIndex, packet: &[u8], refused: Refused) {
        if let Refused::At(at) = refused {
            let (code, pointer) = (0, (IPV4_HEADER + at) as u32);
            self.icmp_error(rcvif, packet, Problem::Parameter { code, pointer });
        }
    }

    pub(super) fn ip6_input(
        &mut self,
        rcvif: IfIndex,
        mut packet: Packet,
        addressed: Addressed,
    ) -> Fate {
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
        let addressee = match self.check_addresses(rcvif, &src, &dst) {
            Ok(addressee) => addressee,
            // Another station that has an address of ours says so from there (RFC 4862 section
            // 5.4.4).
            Err(DropReason::BadSource) if self.ifs.is_local(&src) && is_advert(&packet) => {
                self.addressee(rcvif, &dst)
            }
            Err(reason) => return reason.into(),
        };
        if is_lost_unicast(addressee, addressed) {
            return DropReason::BadDestination.into();
        }
        if addressee == Addressee::OtherHost {
            return self.ip_forward(rcvif, packet).into();
        }
        let mut header = Header {
            src,
            dst,
            protocol: proto::NO_NEXT,
            hop_limit,
            payload: IPV6_HEADER,
            addressee,
        };
        match walk(&packet) {
            Walk::Payload { protocol, at } => {
                (header.protocol, header.payload) = (protocol, at);
                self.ours(rcvif, header, packet, HeldFragments::new())
            }
            Walk::Fragment { at } => self.ip6_fragment(rcvif, header, packet, at),
            end => self.ip6_refuse(rcvif, addressee, &packet, end).into(),
        }
    }

    /// Reports why the headers of a packet for us lead to no payload, if the rules want that.
    fn ip6_refuse(
        &mut self,
        rcvif: IfIndex,
        addressee: Addressee,
        packet: &[u8],
        end: Walk,
    ) -> DropReason {
        let Walk::Refused {
            code,
            pointer,
            even_multicast,
        } = end
        else {
            return DropReason::Malformed;
        };
        if let Some(code) = code
            && (even_multicast || addressee == Addressee::Host)
        {
            let pointer = pointer as u32;
            self.icmp_error(rcvif, packet, Problem::Parameter { code, pointer });
        }
        DropReason::BadOption
    }

    fn ip6_fragment(
        &mut self,
        rcvif: IfIndex,
        mut header: Header,
        packet: Packet,
        at: usize,
    ) -> Fate {
        let next = packet[at];
        let fields = Ipv6FragmentHeader::new_unchecked(&packet[at + 2..at + FRAGMENT_HEADER]);
        let (more, offset) = (fields.more_frags(), usize::from(fields.frag_offset()) * 8);
        let ident = fields.ident();
        let data = &packet[at + FRAGMENT_HEADER..];
        let addressee = header.addressee;
        let problem = |code, pointer| Walk::Refused {
            code: Some(code),
            pointer,
            even_multicast: false,
        };
        // RFC 8200 section 4.5. The fields: the payload length, and the offset.
        let refused = if more && !data.len().is_multiple_of(8) {
            Some(problem(0, 4))
        } else if offset + data.len() > usize::from(u16::MAX) {
            Some(problem(0, at + 2))
        } else if offset > 0 {
            None
        } else {
            // A first fragment has all headers, so they are checked before the others come.
            match walk_behind_fragment(&packet, at) {
                Walk::Cut if more => Some(problem(3, 0)),
                Walk::Payload { protocol, at }
                    if more && cuts_last_header(&packet, protocol, at) =>
                {
                    Some(problem(3, 0))
                }
                // Neighbour discovery in fragments is refused: it evades filters in switches (RFC
                // 6980).
                Walk::Payload { protocol, at }
                    if protocol == proto::ICMPV6
                        && packet.get(at).is_none_or(|kind| super::icmp::is_nd(*kind)) =>
                {
                    return DropReason::BadOption.into();
                }
                Walk::Payload { .. } => None,
                end => Some(end),
            }
        };
        if let Some(refused) = refused {
            return self.ip6_refuse(rcvif, addressee, &packet, refused).into();
        }
        let (protocol, payload, held) = if !more && offset == 0 {
            // An atomic fragment is complete by itself, even if others have the same number (RFC
            // 6946).
            (next, data.to_vec(), HeldFragments::new())
        } else {
            let key = Key {
                src: header.src,
                dst: header.dst,
                ident,
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
        // The extension headers before the fragment header have been handled. The reassembled
        // packet does not have them.
        let mut head = [0; IPV6_HEADER];
        head.copy_from_slice(&packet[..IPV6_HEADER]);
        let Ok(len) = u16::try_from(payload.len()) else {
            return Fate::Decided(Verdict::Dropped(DropReason::Malformed), held);
        };
        set_ipv6_payload(&mut head, protocol, len);
        let whole = Packet::concat(&head, &payload);
        let Walk::Payload { protocol, at } = walk(&whole) else {
            return Fate::Decided(Verdict::Dropped(DropReason::Malformed), held);
        };
        (header.protocol, header.payload) = (protocol, at);
        self.ours(rcvif, header, whole, held)
    }

    fn reassemble(
        &mut self,
        key: Key,
        rcvif: IfIndex,
        fragment: Fragment<'_>,
    ) -> Result<(u8, Vec<u8>, HeldFragments), Fate> {
        let now = self.now.monotonic;
        match self.reassembly.add(key, rcvif, fragment, now) {
            Added::Held(thrown_out) => {
                for held in thrown_out {
                    self.release(Verdict::Dropped(DropReason::FragmentLimit), held);
                }
                Err(Fate::Held)
            }
            Added::Whole {
                protocol,
                payload,
                held,
            } => Ok((protocol, payload, held)),
            Added::Dropped(reason, held) => Err(Fate::Decided(Verdict::Dropped(reason), held)),
        }
    }

    /// The kind of a packet's destination. It is an error if its addresses must not be on the wire
    /// (RFC 1122 section 3.2.1.3, RFC 4291 section 2).
    fn check_addresses(
        &self,
        rcvif: IfIndex,
        src: &IpAddr,
        dst: &IpAddr,
    ) -> Result<Addressee, DropReason> {
        let Some(ifp) = self.ifs.get(rcvif) else {
            return Err(DropReason::NotWanted);
        };
        let looped = ifp.driver == Driver::Loopback;
        let addressee = match dst {
            IpAddr::V4(v4) => {
                let reserved = v4.octets()[0] == 0 || (v4.octets()[0] >= 240 && !v4.is_broadcast());
                if reserved || (v4.is_loopback() && !looped) {
                    return Err(DropReason::BadDestination);
                }
                if self.ifs.is_broadcast(v4) && !looped {
                    Addressee::Broadcast
                } else {
                    self.addressee(rcvif, dst)
                }
            }
            IpAddr::V6(v6) => {
                let stays = is_interface_local(dst) || v6.is_loopback();
                if v6.is_unspecified() || is_mapped(dst) || (stays && !looped) {
                    return Err(DropReason::BadDestination);
                }
                self.addressee(rcvif, dst)
            }
        };
        if addressee == Addressee::Multicast && !ifp.hears(dst) {
            return Err(DropReason::NotMember);
        }
        let may_be = match src {
            IpAddr::V4(v4) if v4.is_unspecified() => {
                matches!(addressee, Addressee::Broadcast | Addressee::Multicast)
            }
            IpAddr::V6(v6) if v6.is_unspecified() => addressee == Addressee::Multicast,
            // On the loopback interface any source is ours.
            _ if looped => true,
            IpAddr::V4(v4) => is_host(src) && !v4.is_loopback() && !self.ifs.is_broadcast(v4),
            IpAddr::V6(v6) => is_host(src) && !v6.is_loopback(),
        };
        if !may_be || (!looped && self.ifs.is_local_on(src, rcvif)) {
            return Err(DropReason::BadSource);
        }
        Ok(addressee)
    }

    /// Whether a packet may be the reply of a DHCP server to an interface that has no address:
    /// servers may send it to the address that they offer (RFC 2131 section 4.1).
    fn is_dhcp_reply(&self, rcvif: IfIndex, protocol: u8, payload: &[u8]) -> bool {
        const CLIENT: [u8; 2] = 68_u16.to_be_bytes();

        let waits = self.ifs.get(rcvif).is_some_and(|ifp| {
            let ethernet = matches!(ifp.driver, Driver::Ethernet(_));
            ethernet && !ifp.addrs.iter().any(|addr| addr.addr.is_ipv4())
        });
        waits && protocol == proto::UDP && payload.get(2..4) == Some(&CLIENT)
    }

    #[inline]
    fn addressee(&self, rcvif: IfIndex, dst: &IpAddr) -> Addressee {
        if dst.is_multicast() {
            Addressee::Multicast
        } else if self.ifs.is_local_on(dst, rcvif) {
            Addressee::Host
        } else {
            Addressee::OtherHost
        }
    }

    /// Checks the transport checksum of a complete packet for this host, and decides its fate.
    fn ours(
        &mut self,
        rcvif: IfIndex,
        header: Header,
        packet: Packet,
        held: HeldFragments,
    ) -> Fate {
        let payload = &packet[header.payload..];
        let sound = match header.protocol {
            proto::ICMP | proto::IGMP => checksum::verify_plain(payload),
            // In IPv4 the checksum is optional (RFC 768).
            proto::UDP if header.dst.is_ipv4() && payload.get(6..8) == Some(&[0, 0]) => true,
            proto::UDP | proto::TCP | proto::ICMPV6 => {
                let covered = match header.protocol {
                    // A datagram may be shorter than its packet.
                    proto::UDP => udp_len(payload).and_then(|len| payload.get(..len)),
                    _ => Some(payload),
                };
                let Some(covered) = covered else {
                    return Fate::Decided(Verdict::Dropped(DropReason::Malformed), held);
                };
                checksum::verify(&header.src, &header.dst, header.protocol, covered)
            }
            _ => true,
        };
        if !sound {
            self.bad_segments += u64::from(header.protocol == proto::TCP);
            return Fate::Decided(Verdict::Dropped(DropReason::BadChecksum), held);
        }
        let received = Received {
            rcvif,
            header,
            packet,
        };
        Fate::Ours(received, held)
    }

    /// Returns a packet for this host with its receiver, or handles it. `shown` says whether a raw
    /// socket got a copy.
    pub(crate) fn dispatch(&mut self, received: Received, shown: bool) -> Delivery {
        let Header {
            protocol,
            dst,
            addressee,
            payload,
            ..
        } = received.header;
        let verdict = match (protocol, dst) {
            (proto::TCP, _) => return Delivery::Tcp(received),
            (proto::UDP, _) => return Delivery::Udp(received),
            (proto::ICMP, IpAddr::V4(_)) => return self.icmp_input(received),
            (proto::ICMPV6, IpAddr::V6(_)) => return self.icmp6_input(received),
            (proto::IGMP, IpAddr::V4(_)) => self.igmp_input(&received),
            (proto::NO_NEXT, IpAddr::V6(_)) => Verdict::Dropped(DropReason::NoProtocol),
            _ if shown => Verdict::Delivered,
            _ => {
                if addressee == Addressee::Host {
                    let pointer = next_header_at(&received.packet, payload);
                    let problem = Problem::Protocol { pointer };
                    self.icmp_error(received.rcvif, &received.packet, problem);
                }
                Verdict::Dropped(DropReason::NoProtocol)
            }
        };
        Delivery::Settled(verdict)
    }
}

/// Whether a valid IPv6 packet is a neighbour advertisement, from its own link.
fn is_advert(packet: &[u8]) -> bool {
    const ADVERT: u8 = 136;

    packet[6..8] == [proto::ICMPV6, 255] && packet.get(IPV6_HEADER) == Some(&ADVERT)
}

/// Whether a packet for one host came in a frame for many. Each of these would forward it, answer
/// it, or complain (RFC 1122 section 3.3.6, RFC 1812 section 5.3.4).
fn is_lost_unicast(addressee: Addressee, addressed: Addressed) -> bool {
    addressed == Addressed::Group && matches!(addressee, Addressee::Host | Addressee::OtherHost)
}

/// Offset of the field with the number of the header at `payload`.
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

/// The length in a UDP header; `None` if it is too small, or more than there is.
fn udp_len(payload: &[u8]) -> Option<usize> {
    let len = usize::from(u16::from_be_bytes([*payload.get(4)?, *payload.get(5)?]));
    (len >= 8 && len <= payload.len()).then_some(len)
}

/// A packet with the addresses of `head`, which has no options, and a reassembled payload.
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

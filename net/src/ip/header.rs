//! Parsing and building headers of both versions of IP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6FragmentHeader, Ipv6Packet, Ipv6Repr};

use crate::ifnet::IfName;

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

/// The fields of a packet's headers that its receiver needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) hop_limit: u8,
    /// Offset of the payload, bytes.
    pub(crate) payload: usize,
    /// The kind of destination that `dst` is.
    pub(crate) addressee: Addressee,
}

/// The kind of a destination address, as seen from the interface a packet came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Addressee {
    /// This host.
    Host,
    /// All hosts on a network of ours.
    Broadcast,
    /// A group that the interface hears.
    Multicast,
    /// Another host.
    OtherHost,
}

/// The result of walking the extension headers of an IPv6 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Walk {
    /// The payload is at offset `at`.
    Payload { protocol: u8, at: usize },
    /// This is a fragment; `at` is its fragment header.
    Fragment { at: usize },
    /// The headers are broken, or there are too many.
    Broken,
    /// It ends before its last header does.
    Cut,
    /// An option or header must not be ignored. If there is a `code`, the sender gets a parameter
    /// problem at `pointer`; for a multicast only if `even_multicast`.
    Refused {
        code: Option<u8>,
        pointer: usize,
        even_multicast: bool,
    },
}

/// Walks the extension headers of a packet whose fixed header is valid.
pub(crate) fn walk(packet: &[u8]) -> Walk {
    let Some(&protocol) = packet.get(6) else {
        return Walk::Cut;
    };
    // Hop-by-hop options may be the first header, and no other.
    if protocol != proto::HOP_BY_HOP {
        return walk_on(packet, protocol, 6, IPV6_HEADER, 0);
    }
    match extension(packet, protocol, IPV6_HEADER) {
        Ok((next, end)) => walk_on(packet, next, IPV6_HEADER, end, 1),
        Err(end) => end,
    }
}

/// Walks the headers behind the fragment header at offset `at` of a first fragment. They go on from
/// those before it, so there are no hop-by-hop options, and no second fragment header.
pub(crate) fn walk_behind_fragment(packet: &[u8], at: usize) -> Walk {
    let Some(&protocol) = packet.get(at) else {
        return Walk::Cut;
    };
    match walk_on(packet, protocol, at, at + FRAGMENT_HEADER, 0) {
        Walk::Fragment { .. } => Walk::Broken,
        end => end,
    }
}

/// Walks on at the header of this `protocol` at `at`, behind `seen` others. `number_at` is the
/// offset of the field with its number, for an error about it.
fn walk_on(
    packet: &[u8],
    mut protocol: u8,
    mut number_at: usize,
    mut at: usize,
    seen: usize,
) -> Walk {
    for _ in seen..=MAX_EXTENSIONS {
        match protocol {
            proto::HOP_BY_HOP => {
                return Walk::Refused {
                    code: Some(1),
                    pointer: number_at,
                    even_multicast: true,
                };
            }
            proto::FRAGMENT if packet.len() < at + FRAGMENT_HEADER => return Walk::Cut,
            proto::FRAGMENT => return Walk::Fragment { at },
            proto::DESTINATION | proto::ROUTING => {}
            _ => return Walk::Payload { protocol, at },
        }
        match extension(packet, protocol, at) {
            Ok((next, end)) => (protocol, number_at, at) = (next, at, end),
            Err(end) => return end,
        }
    }
    Walk::Broken
}

/// Checks the extension header at `at`. Returns the protocol behind it, and where that begins.
fn extension(packet: &[u8], protocol: u8, at: usize) -> Result<(u8, usize), Walk> {
    let (Some(&next), Some(&len)) = (packet.get(at), packet.get(at + 1)) else {
        return Err(Walk::Cut);
    };
    let end = at + (usize::from(len) + 1) * 8;
    let header = packet.get(at..end).ok_or(Walk::Cut)?;
    if protocol != proto::ROUTING {
        return options(header, at).map_or(Ok((next, end)), Err);
    }
    // A source route that leads through us is refused (RFC 8200 section 4.4).
    match header[3] {
        0 => Ok((next, end)),
        _ => Err(Walk::Refused {
            code: Some(0),
            pointer: at + 2,
            even_multicast: false,
        }),
    }
}

/// Whether the last header of a first fragment is not all there (RFC 7112).
pub(crate) fn cuts_last_header(packet: &[u8], protocol: u8, at: usize) -> bool {
    let whole = match protocol {
        proto::TCP => 20,
        proto::UDP | proto::ICMPV6 => 8,
        proto::NO_NEXT => 0,
        _ => 1,
    };
    packet.len() < at + whole
}

/// Router Alert (RFC 2711).
const ROUTER_ALERT: u8 = 5;
/// The one option without a length.
const PAD1: u8 = 0;

/// The first option that must not be ignored (RFC 8200 section 4.2).
fn options(header: &[u8], at: usize) -> Option<Walk> {
    const PADN: u8 = 1;

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

/// Whether the hop-by-hop options of a packet that was walked make routers look at it.
pub(crate) fn has_router_alert(packet: &[u8]) -> bool {
    if packet.get(6) != Some(&proto::HOP_BY_HOP) {
        return false;
    }
    let len = packet
        .get(IPV6_HEADER + 1)
        .map_or(0, |&len| usize::from(len));
    let options = packet.get(IPV6_HEADER + 2..IPV6_HEADER + (len + 1) * 8);
    let mut rest = options.unwrap_or_default();
    while let [kind, behind @ ..] = rest {
        rest = match (*kind, behind) {
            (ROUTER_ALERT, _) => return true,
            (PAD1, _) => behind,
            (_, [len, behind @ ..]) => behind.get(usize::from(*len)..).unwrap_or_default(),
            _ => return false,
        };
    }
    false
}

/// Both ends of a flow, as an address and a port each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Endpoints {
    pub(crate) local: (IpAddr, u16),
    pub(crate) remote: (IpAddr, u16),
    /// The interface by which the other end is reached, if its address is valid on one link only:
    /// there may be another host with it on another link (RFC 4007 section 6).
    pub(crate) link: Option<IfName>,
}

/// Source and destination of a packet of either version; `None` if it is too short for them.
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

/// Whether an IPv6 packet is a fragment other than the first, of a payload that does not begin with
/// an ICMP message.
pub(crate) fn is_later_fragment(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first >> 4 == 6)
        && matches!(walk(packet), Walk::Fragment { at } if packet[at] != proto::ICMPV6)
}

/// Protocol of a packet's payload, and its offset; `None` for a fragment other than the first.
pub(crate) fn payload_of(packet: &[u8]) -> Option<(u8, usize)> {
    match packet.first()? >> 4 {
        4 => {
            let offset = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x1fff;
            let at = usize::from(packet[0] & 0xf) * 4;
            (offset == 0).then_some((*packet.get(9)?, at))
        }
        6 => {
            let end = match walk(packet) {
                Walk::Fragment { at } => {
                    let offset = u16::from_be_bytes([packet[at + 2], packet[at + 3]]) & !7;
                    if offset != 0 {
                        return None;
                    }
                    walk_behind_fragment(packet, at)
                }
                end => end,
            };
            match end {
                Walk::Payload { protocol, at } => Some((protocol, at)),
                // The rest is behind a header that is refused, or is not there: it is no ICMP
                // message.
                Walk::Refused { .. } | Walk::Cut => Some((proto::NO_NEXT, IPV6_HEADER)),
                Walk::Fragment { .. } | Walk::Broken => None,
            }
        }
        _ => None,
    }
}

/// The header of an IPv4 packet of `total` bytes in all, without options.
pub(crate) fn ipv4_header(
    src: Ipv4Addr,
    dst: Ipv4Addr,
    protocol: u8,
    hop_limit: u8,
    total: u16,
    fragments: Fragments,
) -> [u8; IPV4_HEADER] {
    let mut header = [0; IPV4_HEADER];
    let mut ip = Ipv4Packet::new_unchecked(&mut header[..]);
    ip.set_version(4);
    ip.set_header_len(IPV4_HEADER as u8);
    ip.set_total_len(total);
    match fragments {
        Fragments::Never => ip.set_dont_frag(true),
        Fragments::Of(ident) => ip.set_ident(ident),
    }
    ip.set_hop_limit(hop_limit);
    ip.set_next_header(protocol.into());
    ip.set_src_addr(src);
    ip.set_dst_addr(dst);
    ip.fill_checksum();
    header
}

/// Whether routers may fragment a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fragments {
    /// They may not.
    Never,
    /// Its fragments have this identification.
    Of(u16),
}

/// The header of an IPv6 packet with `len` bytes behind it.
pub(crate) fn ipv6_header(
    src: Ipv6Addr,
    dst: Ipv6Addr,
    protocol: u8,
    hop_limit: u8,
    len: u16,
) -> [u8; IPV6_HEADER] {
    let mut header = [0; IPV6_HEADER];
    let repr = Ipv6Repr {
        src_addr: src,
        dst_addr: dst,
        next_header: IpProtocol::from(protocol),
        payload_len: len.into(),
        hop_limit,
    };
    repr.emit(&mut Ipv6Packet::new_unchecked(&mut header[..]));
    header
}

/// Changes the header of an IPv6 packet: `len` bytes of `protocol` are behind it.
pub(crate) fn set_ipv6_payload(header: &mut [u8; IPV6_HEADER], protocol: u8, len: u16) {
    let mut ip = Ipv6Packet::new_unchecked(&mut header[..]);
    ip.set_next_header(protocol.into());
    ip.set_payload_len(len);
}

/// The fragment header of a piece of a payload of `protocol`, `offset` bytes from its start.
/// `offset` is a multiple of eight.
pub(crate) fn fragment_header(
    protocol: u8,
    offset: u16,
    more: bool,
    ident: u32,
) -> [u8; FRAGMENT_HEADER] {
    let mut header = [0; FRAGMENT_HEADER];
    header[0] = protocol;
    let mut fragment = Ipv6FragmentHeader::new_unchecked(&mut header[2..]);
    fragment.set_frag_offset(offset / 8);
    fragment.set_more_frags(more);
    fragment.set_ident(ident);
    header
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
        assert_eq!(walk(&packet(0, &[17])), Walk::Cut);
        assert_eq!(walk(&packet(0, &[17, 1, 1, 4, 0, 0, 0, 0])), Walk::Cut);
        assert_eq!(walk(&packet(0, &[17, 0, 1, 5, 0, 0, 0, 0])), Walk::Broken);
        assert_eq!(walk(&packet(44, &[17, 0, 0, 1])), Walk::Cut);
        assert_eq!(walk(&[]), Walk::Cut);
        let endless = [60, 0, 1, 4, 0, 0, 0, 0].repeat(9);
        assert_eq!(walk(&packet(60, &endless)), Walk::Broken);
        assert_eq!(walk(&packet(0, &endless)), Walk::Broken);
    }

    #[test]
    fn as_many_headers_as_the_limit_says() {
        for first in [proto::DESTINATION, proto::HOP_BY_HOP] {
            let mut most = [60, 0, 1, 4, 0, 0, 0, 0].repeat(MAX_EXTENSIONS);
            most[(MAX_EXTENSIONS - 1) * 8] = proto::UDP;
            let (protocol, at) = (proto::UDP, IPV6_HEADER + most.len());
            assert_eq!(walk(&packet(first, &most)), Walk::Payload { protocol, at });
        }
    }
}

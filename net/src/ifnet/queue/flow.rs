//! What a discipline sees of a packet: its flow, its traffic class, and its ECN bits.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use super::super::Family;

/// IPv4's header without options, bytes.
const IPV4_HEADER: usize = 20;
/// IPv6's header, bytes.
const IPV6_HEADER: usize = 40;
/// Extension headers of IPv6 in which the ports are looked for.
const MOST_HEADERS: usize = 8;

/// A flow: addresses, protocol and ports. The fragments of a packet, of which only the first has
/// ports, are a flow by addresses and identification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    addrs: Addrs,
    protocol: u8,
    fragment: bool,
    /// Both ports, or the identification, or 0.
    detail: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Addrs {
    V4(u64),
    V6(u128, u128),
    /// Not IP: packets of a family are one flow.
    None(u32),
}

impl Hash for Flow {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.addrs {
            Addrs::V4(both) => state.write_u64(both),
            Addrs::V6(src, dst) => {
                state.write_u128(src);
                state.write_u128(dst);
            }
            Addrs::None(family) => state.write_u32(family),
        }
        let kind = u64::from(self.protocol) << 1 | u64::from(self.fragment);
        state.write_u64(kind << 32 | u64::from(self.detail));
    }
}

impl Flow {
    /// The flow of packets between two endpoints.
    pub fn between(protocol: u8, src: (IpAddr, u16), dst: (IpAddr, u16)) -> Self {
        let addrs = match (src.0, dst.0) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                Addrs::V4(u64::from(src.to_bits()) << 32 | u64::from(dst.to_bits()))
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => Addrs::V6(src.to_bits(), dst.to_bits()),
            _ => Addrs::None(0),
        };
        Self {
            addrs,
            protocol,
            fragment: false,
            detail: u32::from(src.1) << 16 | u32::from(dst.1),
        }
    }

    /// The flow of a packet without the header of its link.
    pub(super) fn of(family: Family, packet: &[u8]) -> Self {
        let flow = match family {
            Family::Inet => Self::of_v4(packet),
            Family::Inet6 => Self::of_v6(packet),
            _ => None,
        };
        flow.unwrap_or(Self {
            addrs: Addrs::None(family.af()),
            protocol: 0,
            fragment: false,
            detail: 0,
        })
    }

    fn of_v4(packet: &[u8]) -> Option<Self> {
        let header = packet.first_chunk::<IPV4_HEADER>()?;
        let flow = Self {
            addrs: Addrs::V4(u64::from_be_bytes(*header.last_chunk()?)),
            protocol: header[9],
            fragment: false,
            detail: 0,
        };
        // More fragments, or an offset.
        if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
            let detail = u16::from_be_bytes([header[4], header[5]]).into();
            return Some(Self {
                fragment: true,
                detail,
                ..flow
            });
        }
        let payload = packet.get(usize::from(header[0] & 15) * 4..);
        Some(flow.with_ports(payload))
    }

    fn of_v6(packet: &[u8]) -> Option<Self> {
        const HOP_BY_HOP: u8 = 0;
        const ROUTING: u8 = 43;
        const FRAGMENT: u8 = 44;
        const DESTINATION: u8 = 60;

        let (header, mut rest) = packet.split_first_chunk::<IPV6_HEADER>()?;
        let src = u128::from_be_bytes(*header[8..24].first_chunk()?);
        let dst = u128::from_be_bytes(*header[24..40].first_chunk()?);
        let mut flow = Self {
            addrs: Addrs::V6(src, dst),
            protocol: header[6],
            fragment: false,
            detail: 0,
        };
        for _ in 0..MOST_HEADERS {
            match (flow.protocol, rest) {
                (FRAGMENT, &[_, _, _, _, a, b, c, d, ..]) => {
                    flow.fragment = true;
                    flow.detail = u32::from_be_bytes([a, b, c, d]);
                    return Some(flow);
                }
                (HOP_BY_HOP | ROUTING | DESTINATION, &[next, len, ..]) => {
                    flow.protocol = next;
                    rest = rest.get(usize::from(len) * 8 + 8..).unwrap_or_default();
                }
                _ => break,
            }
        }
        Some(flow.with_ports(Some(rest)))
    }

    /// Adds the ports, if the protocol has any: TCP, UDP, DCCP, SCTP and UDP-Lite have theirs first.
    fn with_ports(mut self, payload: Option<&[u8]>) -> Self {
        if matches!(self.protocol, 6 | 17 | 33 | 132 | 136)
            && let Some(ports) = payload.and_then(|payload| payload.first_chunk())
        {
            self.detail = u32::from_be_bytes(*ports);
        }
        self
    }
}

/// The upper three bits of the traffic class (RFC 2474 section 4.2.2, the class selectors): 7 is the
/// most urgent. What a link says for itself is network control.
pub(super) fn precedence(family: Family, packet: &[u8]) -> u8 {
    match (family, packet) {
        (Family::Inet, [_, tos, ..]) => tos >> 5,
        (Family::Inet6, [first, ..]) => (first & 0x0e) >> 1,
        (Family::Other(_), _) => 7,
        _ => 0,
    }
}

/// Marks a packet with "congestion experienced" (RFC 3168 section 5). False if its transport does
/// not know ECN, or it is not IP.
pub(super) fn mark(family: Family, packet: &mut [u8]) -> bool {
    match (family, packet) {
        (Family::Inet, [version, tos, _, _, _, _, _, _, _, _, sum0, sum1, ..]) => {
            let old = u16::from_be_bytes([*version, *tos]);
            if old & 3 == 0 {
                return false;
            }
            let new = old | 3;
            *tos |= 3;
            // RFC 1624 section 3: HC' = ~(~HC + ~m + m').
            let sum = u32::from(!u16::from_be_bytes([*sum0, *sum1]));
            let sum = sum + u32::from(!old) + u32::from(new);
            let sum = (sum & 0xffff) + (sum >> 16);
            let sum = (sum & 0xffff) + (sum >> 16);
            [*sum0, *sum1] = (!(sum as u16)).to_be_bytes();
            true
        }
        (Family::Inet6, [_, second, ..]) if *second & 0x30 != 0 => {
            *second |= 0x30;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(tos: u8, fragment: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, tos, 0, 60, 0x12, 0x34];
        packet.extend(fragment.to_be_bytes());
        packet.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        let sum = !sum(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(payload);
        packet
    }

    fn sum(header: &[u8]) -> u16 {
        let words = header
            .as_chunks()
            .0
            .iter()
            .map(|word| u16::from_be_bytes(*word));
        words.fold(0, |sum, word| {
            let (sum, carry) = sum.overflowing_add(word);
            sum + u16::from(carry)
        })
    }

    fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 64];
        packet.extend([0xfd; 16]);
        packet.extend([0xfc; 16]);
        packet.extend(payload);
        packet
    }

    const PORTS: [u8; 8] = [0x12, 0x34, 0, 80, 9, 9, 9, 9];

    #[test]
    fn a_flow_is_addresses_protocol_and_ports() {
        let (src, dst) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let flow = Flow::of(Family::Inet, &v4(0, 0, 6, &PORTS));
        assert_eq!(flow, Flow::between(6, (src, 0x1234), (dst, 80)));
        assert_ne!(flow, Flow::of(Family::Inet, &v4(0, 0, 17, &PORTS)));
        // DF is no fragment, and the traffic class is not part of it.
        assert_eq!(flow, Flow::of(Family::Inet, &v4(0xff, 0x4000, 6, &PORTS)));
        let ping = |data: u8| Flow::of(Family::Inet, &v4(0, 0, 1, &[8, 0, data, 0]));
        assert_eq!(ping(1), ping(2));
        let six = Flow::of(Family::Inet6, &v6(6, &PORTS));
        let [src, dst] = [[0xfd; 16], [0xfc; 16]].map(IpAddr::from);
        assert_eq!(six, Flow::between(6, (src, 0x1234), (dst, 80)));
        // Behind options for every hop and for the destination.
        let options = [
            &[60, 0, 1, 4, 0, 0, 0, 0][..],
            &[6, 0, 1, 4, 0, 0, 0, 0],
            &PORTS,
        ];
        assert_eq!(six, Flow::of(Family::Inet6, &v6(0, &options.concat())));
    }

    #[test]
    fn fragments_of_a_packet_are_one_flow() {
        let first = Flow::of(Family::Inet, &v4(0, 0x2000, 17, &PORTS));
        let later = Flow::of(Family::Inet, &v4(0, 0x00b9, 17, &[7; 20]));
        assert_eq!(first, later);
        assert_ne!(first, Flow::of(Family::Inet, &v4(0, 0, 17, &PORTS)));
        let fragment = |offset: u8, ident: u8, rest: &[u8]| {
            let head = [17, 0, 0, offset, 0, 0, 0, ident];
            Flow::of(Family::Inet6, &v6(44, &[&head[..], rest].concat()))
        };
        assert_eq!(fragment(1, 5, &PORTS), fragment(8, 5, b"rest"));
        assert_ne!(fragment(1, 5, &PORTS), fragment(1, 6, &PORTS));
    }

    #[test]
    fn whatever_the_bytes_are_there_is_a_flow() {
        let mut rng = fastrand::Rng::with_seed(1);
        for len in 0..200 {
            let mut bytes: Vec<u8> = (0..len).map(|_| rng.u8(..)).collect();
            for family in [Family::Inet, Family::Inet6, Family::Ipx, Family::Other(9)] {
                let flow = Flow::of(family, &bytes);
                assert_eq!(flow, Flow::of(family, &bytes));
                assert!(precedence(family, &bytes) < 8);
                mark(family, &mut bytes);
            }
        }
    }

    #[test]
    fn precedence_is_the_upper_three_bits() {
        for class in 0..8 {
            let packet = v4(class << 5 | 0x1f, 0, 6, &[]);
            assert_eq!(precedence(Family::Inet, &packet), class);
            let mut packet = v6(6, &[]);
            packet[0] |= class << 1 | 1;
            packet[1] = 0xff;
            assert_eq!(precedence(Family::Inet6, &packet), class);
        }
    }

    #[test]
    fn a_mark_keeps_the_checksum_right() {
        for tos in 0..=255 {
            let mut packet = v4(tos, 0, 6, &PORTS);
            let before = packet.clone();
            match tos & 3 {
                0 => {
                    assert!(!mark(Family::Inet, &mut packet));
                    assert_eq!(packet, before);
                }
                _ => {
                    assert!(mark(Family::Inet, &mut packet));
                    assert_eq!(packet[1], tos | 3);
                    assert_eq!(sum(&packet[..20]), 0xffff);
                }
            }
        }
        let mut packet = v6(6, &PORTS);
        assert!(!mark(Family::Inet6, &mut packet));
        packet[1] = 0x1f;
        assert!(mark(Family::Inet6, &mut packet));
        assert_eq!(packet[1], 0x3f);
    }
}

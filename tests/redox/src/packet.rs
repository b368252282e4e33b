//! Packets to write, and checks of the answers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A protocol that no host implements (RFC 3692).
const EXPERIMENT: u8 = 253;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// The address of interface `tunN` in these tests, and of its peer.
pub(crate) fn addresses(unit: u16) -> (Ipv4Addr, Ipv4Addr) {
    let [high, low] = unit.to_be_bytes();
    let address = |last| Ipv4Addr::new(10, high, low, last);
    (address(1), address(2))
}

fn sum(pieces: &[&[u8]]) -> u16 {
    let words = pieces.iter().flat_map(|piece| piece.chunks(2));
    let mut sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn ipv4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&(20 + payload.len() as u16).to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0x40, 0, 64, protocol, 0, 0]);
    packet.extend_from_slice(&src.octets());
    packet.extend_from_slice(&dst.octets());
    let check = sum(&[&packet]);
    packet[10..12].copy_from_slice(&check.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

/// A packet of `len` bytes, at least 24, from `tunN` to its peer, with a number in it.
pub(crate) fn numbered(unit: u16, number: u32, len: usize) -> Vec<u8> {
    let (own, peer) = addresses(unit);
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(len - 20, number as u8);
    ipv4(own, peer, EXPERIMENT, &payload)
}

/// The number in a packet.
pub(crate) fn number(packet: &[u8]) -> u32 {
    let bytes = packet.get(20..24).expect("a numbered packet");
    u32::from_be_bytes(bytes.try_into().expect("four bytes"))
}

/// An echo request of `len` bytes, at least 28, from the peer to `tunN`.
pub(crate) fn echo_request(unit: u16, sequence: u16, len: usize) -> Vec<u8> {
    let (own, peer) = addresses(unit);
    let mut message = vec![8, 0, 0, 0, 0x12, 0x34];
    message.extend_from_slice(&sequence.to_be_bytes());
    message.resize(len - 20, sequence as u8);
    let check = sum(&[&message]);
    message[2..4].copy_from_slice(&check.to_be_bytes());
    ipv4(peer, own, ICMP, &message)
}

/// Fails unless `reply` answers such a request.
#[track_caller]
pub(crate) fn assert_echo_reply(reply: &[u8], unit: u16, sequence: u16, len: usize) {
    let (own, peer) = addresses(unit);
    assert_eq!(reply.len(), len, "length of the reply");
    assert_eq!(sum(&[&reply[..20]]), 0, "checksum of the header");
    assert_eq!(reply[9], ICMP, "protocol");
    assert_eq!(reply[12..16], own.octets(), "source");
    assert_eq!(reply[16..20], peer.octets(), "destination");
    assert_eq!(sum(&[&reply[20..]]), 0, "checksum of the message");
    assert_eq!(reply[20..22], [0, 0], "an echo reply");
    assert_eq!(reply[24..26], [0x12, 0x34], "identifier");
    assert_eq!(reply[26..28], sequence.to_be_bytes(), "sequence number");
    let data = &reply[28..];
    assert!(data.iter().all(|&byte| byte == sequence as u8), "data");
}

/// The IPv6 addresses of an interface and of its peer.
pub(crate) fn addresses6(unit: u16) -> (Ipv6Addr, Ipv6Addr) {
    let address = |last| Ipv6Addr::new(0xfd00, 0, 0, unit, 0, 0, 0, last);
    (address(1), address(2))
}

/// An ICMPv6 echo request from the peer to `tunN`.
pub(crate) fn echo_request6(unit: u16, sequence: u16) -> Vec<u8> {
    let (own, peer) = addresses6(unit);
    let mut message = vec![128, 0, 0, 0, 0x12, 0x34];
    message.extend_from_slice(&sequence.to_be_bytes());
    message.extend_from_slice(b"eight by");
    let len = (message.len() as u32).to_be_bytes();
    let next = [0, 0, 0, ICMPV6];
    let check = sum(&[&peer.octets(), &own.octets(), &len, &next, &message]);
    message[2..4].copy_from_slice(&check.to_be_bytes());
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend_from_slice(&(message.len() as u16).to_be_bytes());
    packet.extend_from_slice(&[ICMPV6, 64]);
    packet.extend_from_slice(&peer.octets());
    packet.extend_from_slice(&own.octets());
    packet.extend_from_slice(&message);
    packet
}

/// Whether a packet is an ICMPv6 echo reply.
pub(crate) fn is_echo_reply6(packet: &[u8]) -> bool {
    packet.len() > 48 && packet[0] >> 4 == 6 && packet[6] == ICMPV6 && packet[40] == 129
}

/// Source and destination of a packet.
pub(crate) fn ends(packet: &[u8]) -> (IpAddr, IpAddr) {
    match packet[0] >> 4 {
        4 => {
            let at = |from: usize| {
                let octets: [u8; 4] = packet[from..from + 4].try_into().expect("four bytes");
                IpAddr::from(octets)
            };
            (at(12), at(16))
        }
        _ => {
            let at = |from: usize| {
                let octets: [u8; 16] = packet[from..from + 16].try_into().expect("16 bytes");
                IpAddr::from(octets)
            };
            (at(8), at(24))
        }
    }
}

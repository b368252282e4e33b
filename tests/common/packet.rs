//! Packets made by hand, so that a test does not rely on the stack that it tests.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub fn checksum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

pub fn ipv4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&(20 + payload.len() as u16).to_be_bytes());
    packet.extend_from_slice(&[0, 1, 0, 0, 64, protocol, 0, 0]);
    packet.extend_from_slice(&src.octets());
    packet.extend_from_slice(&dst.octets());
    let sum = checksum(&[&packet]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

pub fn ipv6(src: Ipv6Addr, dst: Ipv6Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    packet.extend_from_slice(&[protocol, 64]);
    packet.extend_from_slice(&src.octets());
    packet.extend_from_slice(&dst.octets());
    packet.extend_from_slice(payload);
    packet
}

/// A neighbour discovery message, with its checksum and the hop limit of a packet from the link.
pub fn icmpv6(src: Ipv6Addr, dst: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let len = (message.len() as u32).to_be_bytes();
    let sum = checksum(&[&src.octets(), &dst.octets(), &len, &[0, 0, 0, 58], &message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut packet = ipv6(src, dst, 58, &message);
    packet[7] = 255;
    packet
}

pub fn ip(src: IpAddr, dst: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ipv4(src, dst, protocol, payload),
        (IpAddr::V6(src), IpAddr::V6(dst)) => ipv6(src, dst, protocol, payload),
        _ => panic!("one address of each family"),
    }
}

fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> Vec<u8> {
    let mut pseudo = Vec::new();
    for addr in [src, dst] {
        match addr {
            IpAddr::V4(addr) => pseudo.extend_from_slice(&addr.octets()),
            IpAddr::V6(addr) => pseudo.extend_from_slice(&addr.octets()),
        }
    }
    pseudo.extend_from_slice(&(len as u32).to_be_bytes());
    pseudo.extend_from_slice(&u32::from(protocol).to_be_bytes());
    pseudo
}

/// An echo request, ready to be written.
pub fn echo_request(src: &str, dst: &str, sequence: u16, data: &[u8]) -> Vec<u8> {
    let (src, dst): (IpAddr, IpAddr) = (src.parse().unwrap(), dst.parse().unwrap());
    let (kind, protocol) = if src.is_ipv4() { (8, 1) } else { (128, 58) };
    let mut message = vec![kind, 0, 0, 0, 0x12, 0x34];
    message.extend_from_slice(&sequence.to_be_bytes());
    message.extend_from_slice(data);
    let sum = match src {
        IpAddr::V4(_) => checksum(&[&message]),
        IpAddr::V6(_) => checksum(&[&pseudo(src, dst, protocol, message.len()), &message]),
    };
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ip(src, dst, protocol, &message)
}

/// A datagram, ready to be written.
pub fn udp(src: (&str, u16), dst: (&str, u16), data: &[u8]) -> Vec<u8> {
    let (from, to): (IpAddr, IpAddr) = (src.0.parse().unwrap(), dst.0.parse().unwrap());
    let mut datagram = Vec::new();
    datagram.extend_from_slice(&src.1.to_be_bytes());
    datagram.extend_from_slice(&dst.1.to_be_bytes());
    datagram.extend_from_slice(&(8 + data.len() as u16).to_be_bytes());
    datagram.extend_from_slice(&[0, 0]);
    datagram.extend_from_slice(data);
    let sum = checksum(&[&pseudo(from, to, 17, datagram.len()), &datagram]);
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    ip(from, to, 17, &datagram)
}

/// Splits an IPv4 packet at multiples of eight.
pub fn fragments_v4(packet: &[u8], size: usize) -> Vec<Vec<u8>> {
    assert_eq!(size % 8, 0);
    let payload = &packet[20..];
    let pieces = payload.chunks(size).enumerate().map(|(number, piece)| {
        let offset = (number * size / 8) as u16;
        let more = (number + 1) * size < payload.len();
        let mut head = packet[..20].to_vec();
        head[2..4].copy_from_slice(&(20 + piece.len() as u16).to_be_bytes());
        head[6..8].copy_from_slice(&(offset | u16::from(more) << 13).to_be_bytes());
        head[10..12].fill(0);
        let sum = checksum(&[&head]);
        head[10..12].copy_from_slice(&sum.to_be_bytes());
        [&head[..], piece].concat()
    });
    pieces.collect()
}

/// Checks that an IPv4 packet is valid, and returns its payload.
pub fn payload_v4(packet: &[u8]) -> &[u8] {
    assert_eq!(packet[0] >> 4, 4, "not IPv4: {packet:02x?}");
    let len = usize::from(packet[0] & 15) * 4;
    assert_eq!(checksum(&[&packet[..len]]), 0, "header checksum");
    assert_eq!(
        usize::from(u16::from_be_bytes([packet[2], packet[3]])),
        packet.len()
    );
    &packet[len..]
}

/// A segment without text, ready to be written; `numbers` are its own, and the acknowledged one.
pub fn tcp(src: (&str, u16), dst: (&str, u16), flags: u8, numbers: [u32; 2]) -> Vec<u8> {
    let (from, to): (IpAddr, IpAddr) = (src.0.parse().unwrap(), dst.0.parse().unwrap());
    let mut segment = Vec::new();
    segment.extend_from_slice(&src.1.to_be_bytes());
    segment.extend_from_slice(&dst.1.to_be_bytes());
    segment.extend(numbers.map(u32::to_be_bytes).concat());
    segment.extend_from_slice(&[0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    let sum = checksum(&[&pseudo(from, to, 6, segment.len()), &segment]);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    ip(from, to, 6, &segment)
}

/// A SYN, ready to be written.
pub fn tcp_syn(src: (&str, u16), dst: (&str, u16), seq: u32) -> Vec<u8> {
    const SYN: u8 = 2;

    tcp(src, dst, SYN, [seq, 0])
}

/// The first fragment of a datagram of its own, of which no other comes. There are as many as there
/// are numbers: where the identification ends, the source goes on.
pub fn first_fragment(src: &str, dst: &str, number: u32) -> Vec<u8> {
    let (src, dst): (Ipv4Addr, Ipv4Addr) = (src.parse().unwrap(), dst.parse().unwrap());
    let src = Ipv4Addr::from(u32::from(src).wrapping_add(number >> 16 << 8));
    let mut packet = ipv4(src, dst, 17, &[0; 64]);
    packet[4..6].copy_from_slice(&(number as u16).to_be_bytes());
    packet[6] = 0x20;
    packet[10..12].fill(0);
    let sum = checksum(&[&packet[..20]]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Packets as batch mode has them: each behind its length, and padded.
pub fn batch(packets: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut batch = Vec::new();
    for packet in packets {
        batch.extend_from_slice(&(packet.len() as u32).to_ne_bytes());
        batch.extend_from_slice(&packet);
        batch.resize(batch.len().next_multiple_of(4), 0);
    }
    batch
}

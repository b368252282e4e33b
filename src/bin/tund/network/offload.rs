//! Frames that the system left unfinished, because a card could finish them: checksums that are not
//! filled, and segments that were put together.

use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, IpAddress, Ipv4Packet, Ipv6Packet, TcpPacket, TcpSeqNumber,
    UdpPacket,
};

const ETHERNET: usize = 14;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// TCP's flag that the congestion window was reduced, and that its sender has no more to say.
const CWR: u8 = 0x80;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
/// Offset of TCP's flags.
const FLAGS: usize = 13;

/// What is left to do (`struct virtio_net_hdr`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Offload {
    /// The checksum's place: where its bytes begin, and where in them it is. `None` if it is filled.
    checksum: Option<(usize, usize)>,
    /// How segments were put together.
    segments: Segments,
    /// Bytes of payload in each segment but the last.
    size: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Segments {
    #[default]
    One,
    Tcp,
    Udp,
    /// In a way that is not known here.
    Unknown,
}

impl Offload {
    /// Bytes of its encoding.
    pub(super) const LEN: usize = 10;

    pub(super) fn parse(bytes: &[u8; Self::LEN]) -> Self {
        const NEEDS_CSUM: u8 = 1;
        const ECN: u8 = 0x80;

        let &[flags, kind, _, _, s0, s1, c0, c1, o0, o1] = bytes;
        let number = |bytes| usize::from(u16::from_ne_bytes(bytes));
        let place = (number([c0, c1]), number([o0, o1]));
        Self {
            checksum: (flags & NEEDS_CSUM != 0).then_some(place),
            segments: match kind & !ECN {
                0 => Segments::One,
                1 | 4 => Segments::Tcp,
                5 => Segments::Udp,
                _ => Segments::Unknown,
            },
            size: number([s0, s1]),
        }
    }
}

/// The frames as they are on a wire. `None` if they cannot be known.
pub(super) fn undo(offload: Offload, frame: &mut [u8]) -> Option<Vec<Vec<u8>>> {
    match (offload.segments, offload.checksum) {
        (Segments::One, None) => Some(vec![frame.to_vec()]),
        (Segments::One, Some((start, offset))) => {
            fill(frame.get_mut(start..)?, offset)?;
            Some(vec![frame.to_vec()])
        }
        (Segments::Unknown, _) | (_, None) => None,
        (kind, Some((start, _))) => split(kind, frame, start, offload.size),
    }
}

/// Fills the checksum of `bytes`, which has the sum of the pseudo-header in its place.
fn fill(bytes: &mut [u8], offset: usize) -> Option<()> {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    // A UDP checksum of zero would mean that there is none. Elsewhere both are the same.
    let sum = if sum == 0 { 0xffff } else { sum };
    let place = bytes.get_mut(offset..)?.first_chunk_mut()?;
    *place = sum.to_be_bytes();
    Some(())
}

/// Splits a frame into segments with `size` bytes of payload. The header of TCP or UDP begins at
/// `start`.
fn split(kind: Segments, frame: &[u8], start: usize, size: usize) -> Option<Vec<Vec<u8>>> {
    let transport = frame.get(start..)?;
    let header = match kind {
        Segments::Tcp => usize::from(transport.get(12)? >> 4) * 4,
        _ => UDP_HEADER,
    };
    let least = if kind == Segments::Tcp {
        TCP_HEADER
    } else {
        UDP_HEADER
    };
    let payload = transport
        .get(header..)
        .filter(|_| header >= least && size > 0)?;
    let last = payload.len().div_ceil(size).saturating_sub(1);
    let segment = |(number, part): (usize, &[u8])| {
        let mut segment = [frame.get(..start + header)?, part].concat();
        let (network, transport) = segment
            .get_mut(ETHERNET..)?
            .split_at_mut_checked(start - ETHERNET)?;
        let protocol = EthernetFrame::new_checked(frame).ok()?.ethertype();
        let (src, dst) = lengthen(protocol, network, transport.len(), number)?;
        match kind {
            Segments::Tcp => {
                let flags = transport.get_mut(FLAGS)?;
                if number > 0 {
                    *flags &= !CWR;
                }
                if number < last {
                    *flags &= !(FIN | PSH);
                }
                let mut tcp = TcpPacket::new_checked(transport).ok()?;
                let TcpSeqNumber(seq) = tcp.seq_number();
                let sent = i32::try_from(number * size).ok()?;
                tcp.set_seq_number(TcpSeqNumber(seq.wrapping_add(sent)));
                tcp.fill_checksum(&src, &dst);
            }
            _ => {
                let len = u16::try_from(transport.len()).ok()?;
                let mut udp = UdpPacket::new_unchecked(transport);
                udp.set_len(len);
                udp.fill_checksum(&src, &dst);
            }
        }
        Some(segment)
    };
    payload.chunks(size).enumerate().map(segment).collect()
}

/// Sets the length of a packet whose IP header is `network`, and its number among the segments.
/// Returns its addresses.
fn lengthen(
    protocol: EthernetProtocol,
    network: &mut [u8],
    payload: usize,
    number: usize,
) -> Option<(IpAddress, IpAddress)> {
    match protocol {
        EthernetProtocol::Ipv4 if network.len() >= IPV4_HEADER => {
            let len = u16::try_from(network.len() + payload).ok()?;
            let mut ip = Ipv4Packet::new_unchecked(network);
            let header = usize::from(ip.header_len());
            if header != usize::from(len) - payload {
                return None;
            }
            ip.set_total_len(len);
            ip.set_ident(ip.ident().wrapping_add(number as u16));
            ip.fill_checksum();
            Some((ip.src_addr().into(), ip.dst_addr().into()))
        }
        EthernetProtocol::Ipv6 if network.len() >= IPV6_HEADER => {
            let len = u16::try_from(network.len() - IPV6_HEADER + payload).ok()?;
            let mut ip = Ipv6Packet::new_unchecked(network);
            ip.set_payload_len(len);
            Some((ip.src_addr().into(), ip.dst_addr().into()))
        }
        _ => None,
    }
}

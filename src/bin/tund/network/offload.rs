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
    let network = start.checked_sub(ETHERNET)?;
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
        let (network, transport) = segment.get_mut(ETHERNET..)?.split_at_mut_checked(network)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use smoltcp::wire::{IpProtocol, Ipv4Address, Ipv6Address};

    const SRC: Ipv4Address = Ipv4Address::new(10, 0, 0, 2);
    const DST: Ipv4Address = Ipv4Address::new(10, 0, 0, 1);
    const SRC_V6: Ipv6Address = Ipv6Address::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
    const DST_V6: Ipv6Address = Ipv6Address::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);

    /// A frame as the system hands it out: without checksums.
    fn frame(v6: bool, protocol: IpProtocol, transport: &[u8]) -> (Vec<u8>, usize) {
        let mut frame = vec![2; ETHERNET];
        if v6 {
            frame[12..].copy_from_slice(&[0x86, 0xdd]);
            frame.extend([0; IPV6_HEADER]);
            let mut ip = Ipv6Packet::new_unchecked(&mut frame[ETHERNET..]);
            ip.set_version(6);
            ip.set_next_header(protocol);
            ip.set_hop_limit(64);
            ip.set_src_addr(SRC_V6);
            ip.set_dst_addr(DST_V6);
        } else {
            frame[12..].copy_from_slice(&[8, 0]);
            frame.extend([0; IPV4_HEADER]);
            let mut ip = Ipv4Packet::new_unchecked(&mut frame[ETHERNET..]);
            ip.set_version(4);
            ip.set_header_len(IPV4_HEADER as u8);
            ip.set_ident(0xffff);
            ip.set_next_header(protocol);
            ip.set_hop_limit(64);
            ip.set_src_addr(SRC);
            ip.set_dst_addr(DST);
        }
        let start = frame.len();
        frame.extend_from_slice(transport);
        (frame, start)
    }

    fn header(checksum: Option<(usize, usize)>, kind: u8, size: u16) -> [u8; Offload::LEN] {
        let (start, offset) = checksum.unwrap_or_default();
        let [c0, c1] = (start as u16).to_ne_bytes();
        let [o0, o1] = (offset as u16).to_ne_bytes();
        let [s0, s1] = size.to_ne_bytes();
        [
            checksum.is_some().into(),
            kind,
            0,
            0,
            s0,
            s1,
            c0,
            c1,
            o0,
            o1,
        ]
    }

    /// The payload of IP. Its length and checksum must be right.
    fn transport(frame: &[u8], v6: bool) -> &[u8] {
        if v6 {
            let ip = Ipv6Packet::new_checked(&frame[ETHERNET..]).unwrap();
            assert_eq!(ip.total_len(), frame.len() - ETHERNET);
            return &frame[ETHERNET + IPV6_HEADER..];
        }
        let ip = Ipv4Packet::new_checked(&frame[ETHERNET..]).unwrap();
        assert!(ip.verify_checksum());
        assert_eq!(usize::from(ip.total_len()), frame.len() - ETHERNET);
        &frame[ETHERNET + IPV4_HEADER..]
    }

    fn addresses(v6: bool) -> (IpAddress, IpAddress) {
        match v6 {
            true => (SRC_V6.into(), DST_V6.into()),
            false => (SRC.into(), DST.into()),
        }
    }

    #[test]
    fn a_frame_that_is_finished_stays_as_it_is() {
        let (mut whole, _) = frame(false, IpProtocol::Udp, b"datagram");
        let before = whole.clone();
        let offload = Offload::parse(&header(None, 0, 0));
        assert_eq!(undo(offload, &mut whole), Some(vec![before]));
    }

    #[test]
    fn tcp_is_split_as_a_card_does_it() {
        for (v6, kind) in [(false, 1), (true, 4), (false, 0x81)] {
            let mut bytes = vec![0; TCP_HEADER + 4];
            bytes.extend((0..2500).map(|at| at as u8));
            let mut tcp = TcpPacket::new_unchecked(&mut bytes[..]);
            tcp.set_header_len(TCP_HEADER as u8 + 4);
            tcp.set_seq_number(TcpSeqNumber(-1000));
            tcp.set_fin(true);
            tcp.set_psh(true);
            tcp.set_ack(true);
            bytes[FLAGS] |= CWR;
            let (mut whole, start) = frame(v6, IpProtocol::Tcp, &bytes);
            let offload = Offload::parse(&header(Some((start, 16)), kind, 1000));
            let frames = undo(offload, &mut whole).unwrap();
            let mut got = Vec::new();
            for (number, frame) in frames.iter().enumerate() {
                let tcp = TcpPacket::new_checked(transport(frame, v6)).unwrap();
                let (src, dst) = addresses(v6);
                assert!(tcp.verify_checksum(&src, &dst));
                assert_eq!(tcp.seq_number(), TcpSeqNumber(1000 * number as i32 - 1000));
                let last = number == 2;
                assert_eq!((tcp.fin(), tcp.psh(), tcp.ack()), (last, last, true));
                assert_eq!(transport(frame, v6)[FLAGS] & CWR != 0, number == 0);
                got.extend_from_slice(tcp.payload());
            }
            assert_eq!((frames.len(), &got[..]), (3, &bytes[TCP_HEADER + 4..]));
        }
    }

    #[test]
    fn datagrams_are_split() {
        for v6 in [false, true] {
            let mut bytes = vec![0, 7, 0, 7, 0, 0, 0, 0];
            bytes.extend([9; 25]);
            let (mut whole, start) = frame(v6, IpProtocol::Udp, &bytes);
            let offload = Offload::parse(&header(Some((start, 6)), 5, 10));
            let frames = undo(offload, &mut whole).unwrap();
            let lengths = frames.iter().map(|frame| {
                let udp = UdpPacket::new_checked(transport(frame, v6)).unwrap();
                let (src, dst) = addresses(v6);
                assert!(udp.verify_checksum(&src, &dst));
                udp.payload().len()
            });
            assert_eq!(lengths.collect::<Vec<_>>(), [10, 10, 5]);
        }
    }

    /// The system is believed, but not with our life.
    #[test]
    fn what_makes_no_sense_is_no_frame() {
        let mut bytes = vec![0; 100];
        bytes[12] = 0x60;
        for v6 in [false, true] {
            let (whole, start) = frame(v6, IpProtocol::Tcp, &bytes);
            for cut in 0..whole.len() {
                for at in [0, 5, ETHERNET, start, whole.len(), 0xffff] {
                    for kind in 0..=6 {
                        for size in [0, 1, 0xffff] {
                            let header = header(Some((at, 16)), kind, size);
                            let _ = undo(Offload::parse(&header), &mut whole[..cut].to_vec());
                        }
                    }
                }
            }
        }
        let (mut whole, start) = frame(false, IpProtocol::Tcp, &bytes);
        for header in [
            header(Some((whole.len(), 0)), 0, 0),
            header(Some((start, 16)), 1, 0),
            header(Some((start, 16)), 3, 10),
            header(None, 1, 10),
        ] {
            assert_eq!(undo(Offload::parse(&header), &mut whole), None);
        }
    }
}

//! A segment as it comes, parsed once, and as it goes.

use smoltcp::wire::{TCP_HEADER_LEN, TcpPacket, TcpSeqNumber};

use super::options::{MAX_LEN, Options};
use super::seq::SeqNumber;
use crate::packet::Packet;

/// The control bits that we know, as they stand in the header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags(pub(crate) u8);

impl Flags {
    pub(crate) const FIN: Self = Self(0x01);
    pub(crate) const SYN: Self = Self(0x02);
    pub(crate) const RST: Self = Self(0x04);
    pub(crate) const PSH: Self = Self(0x08);
    pub(crate) const ACK: Self = Self(0x10);
    pub(crate) const URG: Self = Self(0x20);

    /// Both.
    pub(crate) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those of `self` that `other` does not have.
    pub(crate) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of `other` are set.
    pub(crate) const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is set.
    pub(crate) const fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// A segment that came. Its checksum was verified by whoever parsed the IP header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment<'a> {
    /// The sender's port.
    pub(crate) src_port: u16,
    /// Our port.
    pub(crate) dst_port: u16,
    /// Number of the first byte, or of the SYN.
    pub(crate) seq: SeqNumber,
    /// What the sender expects next; means nothing without an ACK.
    pub(crate) ack: SeqNumber,
    /// As it stands in the header, not scaled.
    pub(crate) window: u16,
    /// Control bits.
    pub(crate) flags: Flags,
    /// Options.
    pub(crate) options: Options,
    /// Text.
    pub(crate) payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Reads a segment, without its IP header. `None` if it is shorter than it says.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let tcp = TcpPacket::new_checked(bytes).ok()?;
        let bits = [
            (tcp.fin(), Flags::FIN),
            (tcp.syn(), Flags::SYN),
            (tcp.rst(), Flags::RST),
            (tcp.psh(), Flags::PSH),
            (tcp.ack(), Flags::ACK),
            (tcp.urg(), Flags::URG),
        ];
        let mut flags = Flags::default();
        for (set, flag) in bits {
            if set {
                flags = flags.with(flag);
            }
        }
        let header = usize::from(tcp.header_len());
        Some(Self {
            src_port: tcp.src_port(),
            dst_port: tcp.dst_port(),
            seq: SeqNumber(tcp.seq_number().0.cast_unsigned()),
            ack: SeqNumber(tcp.ack_number().0.cast_unsigned()),
            window: tcp.window_len(),
            flags,
            options: Options::parse(bytes.get(TCP_HEADER_LEN..header)?),
            payload: bytes.get(header..)?,
        })
    }

    /// Sequence numbers it takes: its text, SYN and FIN.
    pub(crate) fn len(&self) -> u32 {
        let control = self.flags.has(Flags::SYN) as u32 + self.flags.has(Flags::FIN) as u32;
        (self.payload.len() as u32).wrapping_add(control)
    }

    /// One past its last sequence number.
    pub(crate) fn end(&self) -> SeqNumber {
        self.seq + self.len()
    }

    /// Whether a connection may begin with it.
    pub(crate) const fn is_first_syn(&self) -> bool {
        self.flags.has(Flags::SYN) && !self.flags.any(Flags::ACK.with(Flags::RST))
    }
}

/// The header of a segment to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
    pub(crate) seq: SeqNumber,
    /// Means nothing without an ACK.
    pub(crate) ack: SeqNumber,
    pub(crate) window: u16,
    pub(crate) flags: Flags,
    pub(crate) options: Options,
}

impl Header {
    /// The segment, with the text in up to two pieces and a checksum of zero.
    pub(crate) fn emit(&self, first: &[u8], second: &[u8]) -> Packet {
        let mut bytes = [0; TCP_HEADER_LEN + MAX_LEN];
        let mut options = [0; MAX_LEN];
        let len = TCP_HEADER_LEN + self.options.emit(&mut options);
        let mut tcp = TcpPacket::new_unchecked(&mut bytes[..]);
        tcp.set_src_port(self.src_port);
        tcp.set_dst_port(self.dst_port);
        tcp.set_seq_number(TcpSeqNumber(self.seq.0.cast_signed()));
        tcp.set_header_len(len as u8);
        tcp.set_window_len(self.window);
        tcp.set_fin(self.flags.has(Flags::FIN));
        tcp.set_syn(self.flags.has(Flags::SYN));
        tcp.set_rst(self.flags.has(Flags::RST));
        tcp.set_psh(self.flags.has(Flags::PSH));
        if self.flags.has(Flags::ACK) {
            tcp.set_ack(true);
            tcp.set_ack_number(TcpSeqNumber(self.ack.0.cast_signed()));
        }
        if let Some(room) = bytes.get_mut(TCP_HEADER_LEN..) {
            room.copy_from_slice(&options);
        }
        let header = bytes.get(..len).unwrap_or_default();
        Packet::gather(&[header, first, second])
    }
}

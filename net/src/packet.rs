//! One packet, with room in front for a header.

use std::ops::{Deref, DerefMut};

/// Bytes kept free in front of a packet: for an IPv6 header and a `sockaddr_in`, the longest header
/// of the tun device.
const HEADROOM: usize = 56;

/// One packet in memory. It begins with the IP header, unless another was
/// [prepended](Packet::prepend).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    buf: Vec<u8>,
    start: usize,
}

impl Packet {
    /// A packet of `len` zero bytes, to be filled in.
    pub fn zeroed(len: usize) -> Self {
        Self {
            buf: vec![0; HEADROOM + len],
            start: HEADROOM,
        }
    }

    /// A packet that consists of `head` and then `tail`.
    pub fn concat(head: &[u8], tail: &[u8]) -> Self {
        let mut buf = Vec::with_capacity(HEADROOM + head.len() + tail.len());
        buf.resize(HEADROOM, 0);
        buf.extend_from_slice(head);
        buf.extend_from_slice(tail);
        Self {
            buf,
            start: HEADROOM,
        }
    }

    /// A packet of these pieces, concatenated.
    pub fn gather(pieces: &[&[u8]]) -> Self {
        let len: usize = pieces.iter().map(|piece| piece.len()).sum();
        let mut buf = Vec::with_capacity(HEADROOM + len);
        buf.resize(HEADROOM, 0);
        for piece in pieces {
            buf.extend_from_slice(piece);
        }
        Self {
            buf,
            start: HEADROOM,
        }
    }

    /// Puts `header` in front, without a copy if it fits the room.
    pub fn prepend(&mut self, header: &[u8]) {
        match self.start.checked_sub(header.len()) {
            Some(start) => {
                self.buf[start..self.start].copy_from_slice(header);
                self.start = start;
            }
            None => *self = Self::concat(header, self),
        }
    }

    /// Cuts `len` bytes off the front, or all if there are fewer; they become room for a header.
    pub fn strip(&mut self, len: usize) {
        self.start += len.min(self.len());
    }

    /// Cuts the packet to `len` bytes. Memory of which less than half is used from then on is given
    /// back: a packet may wait in a queue for long.
    pub fn truncate(&mut self, len: usize) {
        self.buf.truncate(self.start + len);
        if self.buf.len() < self.buf.capacity() / 2 {
            self.buf.shrink_to_fit();
        }
    }

    /// Bytes of memory that it holds, which are what a queue is charged for it.
    pub fn memory(&self) -> usize {
        self.buf.capacity()
    }
}

impl From<&[u8]> for Packet {
    fn from(bytes: &[u8]) -> Self {
        Self::concat(bytes, &[])
    }
}

impl Deref for Packet {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buf[self.start..]
    }
}

impl DerefMut for Packet {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.buf[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_off_takes_no_memory() {
        let mut packet = Packet::from(&[7; 1500][..]);
        assert!(packet.memory() >= 1500);
        packet.truncate(1400);
        assert!(packet.memory() >= 1400, "a copy would not be worth it");
        packet.truncate(28);
        assert_eq!(packet[..], [7; 28]);
        assert!(packet.memory() < 2 * (HEADROOM + 28));
        // Of a header that was cut off, the room stays, and counts.
        packet.strip(28);
        assert!(packet.is_empty() && packet.memory() >= HEADROOM + 28);
    }

    #[test]
    fn headers_go_in_front_even_past_the_room() {
        let mut packet = Packet::from(&b"payload"[..]);
        packet.prepend(&[1; 56]);
        packet.prepend(&[2; 4]);
        assert_eq!(packet.len(), 67);
        assert_eq!(packet[..5], [2, 2, 2, 2, 1]);
        assert_eq!(&packet[60..], b"payload");
        packet.truncate(61);
        assert_eq!(&packet[60..], b"p");
        packet.strip(58);
        packet.prepend(b"x");
        assert_eq!(&packet[..], b"x\x01\x01p");
        packet.strip(100);
        assert!(packet.is_empty());
    }
}

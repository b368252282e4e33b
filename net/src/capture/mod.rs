//! Captures: packets as a stream that programs for captures read, in a bounded ring.
//!
//! A slow reader loses captures, which are counted. It never slows down traffic.
//!
//! - [`pcap`]: the packets of one interface, as classic pcap;
//! - [`pcapng`]: the packets that all interfaces dropped, as pcapng with a comment on each.

mod pcap;
mod pcapng;

use std::collections::VecDeque;

use crate::memory::{Pool, Share};

pub(crate) use pcap::Capture;
pub(crate) use pcapng::{CommentedCapture, Framing};

/// Most bytes of a packet that are captured, its family included.
pub(crate) const SNAPLEN: u32 = 65_535;
/// Most bytes that a ring takes. All rings together have a [`Pool`].
pub(crate) const RING_BYTES: usize = 1 << 20;
/// Bytes of a ring with little in it.
const SMALLEST_RING: usize = 4 << 10;

/// One reader's stream: the part that is not yet read.
#[derive(Debug)]
pub(crate) struct Ring {
    bytes: VecDeque<u8>,
    /// Its memory. An empty one takes none but what is `besides`.
    share: Share,
    /// Bytes that its stream takes besides.
    besides: usize,
    seen: u32,
    lost: u32,
}

impl Ring {
    fn new(rings: &Pool) -> Self {
        Self {
            bytes: VecDeque::new(),
            share: rings.share(),
            besides: 0,
            seen: 0,
            lost: 0,
        }
    }

    /// Takes the share for what was written before the first packet. Without room for that, there is
    /// none for packets.
    fn settle(&mut self) {
        self.share.resize(self.besides + self.bytes.capacity());
    }

    /// Whether there is nothing to read.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Moves bytes of the stream to `buf`, as many as there are and fit; returns how many.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> usize {
        let len = buf.len().min(self.bytes.len());
        let (front, back) = self.bytes.as_slices();
        let of_front = len.min(front.len());
        buf[..of_front].copy_from_slice(&front[..of_front]);
        buf[of_front..len].copy_from_slice(&back[..len - of_front]);
        self.bytes.drain(..len);
        if self.bytes.is_empty() {
            self.bytes = VecDeque::new();
            self.share.resize(self.besides);
        }
        len
    }

    /// The number of packets seen, and of those lost. Both wrap around.
    pub(crate) fn counters(&self) -> (u32, u32) {
        (self.seen, self.lost)
    }

    /// Counts a packet that takes `len` bytes of the stream, and so many `besides`. False if there is
    /// no room for all of them: it is lost.
    fn admit(&mut self, len: usize, besides: usize) -> bool {
        self.seen = self.seen.wrapping_add(1);
        let fits = self.make_room(len, besides);
        if !fits {
            self.lost = self.lost.wrapping_add(1);
        }
        fits
    }

    /// Has the ring grow if it needs to. False if it has no room for so many bytes more.
    fn make_room(&mut self, bytes: usize, besides: usize) -> bool {
        let (needed, capacity) = (self.bytes.len() + bytes, self.bytes.capacity());
        let besides = self.besides + besides;
        if needed <= capacity && besides == self.besides {
            return true;
        }
        let grown = needed.max(capacity * 2).clamp(SMALLEST_RING, RING_BYTES);
        let wanted = if needed > capacity { grown } else { capacity };
        if needed > RING_BYTES || !self.share.resize(besides + wanted) {
            return false;
        }
        self.besides = besides;
        self.bytes.reserve_exact(wanted - self.bytes.len());
        true
    }

    #[cfg(test)]
    fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}

//! Captures: packets as a stream that programs for captures read, in a bounded ring.
//!
//! A slow reader loses captures, which are counted. It never slows down traffic.
//!
//! - [`pcap`]: the packets of one interface, as classic pcap;
//! - [`pcapng`]: the packets that all interfaces dropped, as pcapng with a comment on each.

mod pcap;
mod pcapng;

use std::collections::VecDeque;

pub(crate) use pcap::Capture;
pub(crate) use pcapng::{CommentedCapture, Framing};

/// Most bytes of a packet that are captured, its family included.
pub(crate) const SNAPLEN: u32 = 65_535;
/// Bytes that a ring holds for its reader.
pub(crate) const RING_BYTES: usize = 1 << 20;

/// One reader's stream: the part that is not yet read.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    bytes: VecDeque<u8>,
    seen: u32,
    lost: u32,
}

impl Ring {
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
        len
    }

    /// The number of packets seen, and of those lost. Both wrap around.
    pub(crate) fn counters(&self) -> (u32, u32) {
        (self.seen, self.lost)
    }

    /// Counts a packet that takes `len` bytes of the stream. False if there is no room for all of
    /// them: it is lost.
    fn admit(&mut self, len: usize) -> bool {
        self.seen = self.seen.wrapping_add(1);
        let fits = self.bytes.len() + len <= RING_BYTES;
        if !fits {
            self.lost = self.lost.wrapping_add(1);
        }
        fits
    }
}

//! The send queue of an interface, behind a small trait so that disciplines can differ.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;

use scheme::Now;

use super::{Family, Outgoing};
use crate::packet::Packet;

/// A packet in a send queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The packet. For a tun device it includes the header, as the program will read it.
    pub bytes: Packet,
    /// Of these bytes, how many are the header.
    pub header: usize,
    /// Family of the packet.
    pub family: Family,
    /// The router, or the destination itself when it is on the link.
    pub next_hop: IpAddr,
}

impl Frame {
    /// The frame of a packet without a header, and its length. It takes the packet.
    pub(crate) fn of(outgoing: &mut Outgoing) -> (Self, usize) {
        let bytes = std::mem::take(&mut outgoing.packet);
        let len = bytes.len();
        let (family, next_hop) = (outgoing.family, outgoing.next_hop);
        let frame = Self {
            bytes,
            header: 0,
            family,
            next_hop,
        };
        (frame, len)
    }

    /// Puts a header in front.
    pub(crate) fn prepend(&mut self, header: &[u8]) {
        self.bytes.prepend(header);
        self.header += header.len();
    }

    /// The packet, without the header.
    pub(crate) fn packet(&self) -> &[u8] {
        self.bytes.get(self.header..).unwrap_or_default()
    }
}

/// A queue refused the frame, which it returns.
#[derive(Debug)]
pub struct Full(pub Frame);

/// A queueing discipline: chooses the frames to keep and the frame to release next.
///
/// Times are arguments. A queue may hold frames that it does not release yet; only
/// [`ready`](Self::ready) says whether [`dequeue`](Self::dequeue) would give one.
pub trait Discipline: fmt::Debug + Send {
    /// Takes a frame, or hands it back if the queue is full.
    fn enqueue(&mut self, frame: Frame, now: Now) -> Result<(), Full>;

    /// Releases the next frame.
    fn dequeue(&mut self, now: Now) -> Option<Frame>;

    /// The frame that would be released next.
    fn peek(&self, now: Now) -> Option<&Frame>;

    /// Puts a released frame back at the head, even beyond the limit, because it was not delivered.
    fn requeue(&mut self, frame: Frame);

    /// Whether a frame of `len` bytes would be taken.
    fn has_room(&self, len: usize) -> bool;

    /// Whether so many frames, of `bytes` in all, would be taken one after another.
    fn takes(&self, frames: usize, bytes: usize) -> bool;

    /// Whether the queue is so full that senders that can wait should leave the rest to others.
    fn pressed(&self) -> bool;

    /// The number of waiting senders that may go on.
    fn free(&self) -> usize;

    /// Whether a frame is released now.
    fn ready(&self, now: Now) -> bool {
        self.peek(now).is_some()
    }

    /// Frames held.
    fn len(&self) -> usize;

    /// Whether none are held.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives up all frames, which it returns.
    fn purge(&mut self) -> VecDeque<Frame>;

    /// Its parameters, in the format of `ifaces/IF/queue`.
    fn describe(&self) -> String;
}

/// First in, first out, bounded in packets and in bytes. When it is full, the newest frame is
/// refused.
#[derive(Debug)]
pub struct Fifo {
    frames: VecDeque<Frame>,
    bytes: usize,
    limits: FifoLimits,
}

/// The bounds of a [`Fifo`], both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FifoLimits {
    /// Most frames held.
    pub packets: usize,
    /// Most bytes held, headers included.
    pub bytes: usize,
}

impl Default for FifoLimits {
    fn default() -> Self {
        Self {
            packets: 250,
            bytes: 1_048_576,
        }
    }
}

impl FifoLimits {
    /// Largest bounds that can be asked for: memory is bounded whatever is written.
    const MOST: Self = Self {
        packets: 65_536,
        bytes: 64 << 20,
    };

    /// Reads `fifo limit 250 packets 1048576 bytes`; either part may be left out.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        if words.next() != Some("fifo") {
            return None;
        }
        let mut limits = Self::default();
        let Some(word) = words.next() else {
            return Some(limits);
        };
        if word != "limit" {
            return None;
        }
        let mut seen = (false, false);
        while let Some(number) = words.next() {
            let number: usize = number.parse().ok()?;
            match words.next()? {
                "packets" if !seen.0 && (1..=Self::MOST.packets).contains(&number) => {
                    limits.packets = number;
                    seen.0 = true;
                }
                "bytes" if !seen.1 && (1..=Self::MOST.bytes).contains(&number) => {
                    limits.bytes = number;
                    seen.1 = true;
                }
                _ => return None,
            }
        }
        (seen.0 || seen.1).then_some(limits)
    }
}

impl Fifo {
    /// An empty queue.
    pub fn new(limits: FifoLimits) -> Self {
        Self {
            frames: VecDeque::new(),
            bytes: 0,
            limits,
        }
    }
}

impl Discipline for Fifo {
    fn enqueue(&mut self, frame: Frame, _now: Now) -> Result<(), Full> {
        if !self.has_room(frame.bytes.len()) {
            return Err(Full(frame));
        }
        self.bytes += frame.bytes.len();
        self.frames.push_back(frame);
        Ok(())
    }

    fn dequeue(&mut self, _now: Now) -> Option<Frame> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.bytes.len();
        Some(frame)
    }

    fn peek(&self, _now: Now) -> Option<&Frame> {
        self.frames.front()
    }

    fn requeue(&mut self, frame: Frame) {
        self.bytes += frame.bytes.len();
        self.frames.push_front(frame);
    }

    fn pressed(&self) -> bool {
        let full = |held: usize, limit: usize| held >= limit - limit / 4;
        full(self.frames.len(), self.limits.packets) || full(self.bytes, self.limits.bytes)
    }

    fn free(&self) -> usize {
        if self.pressed() {
            return 0;
        }
        self.limits.packets - self.limits.packets / 4 - self.frames.len()
    }

    fn has_room(&self, len: usize) -> bool {
        self.takes(1, len)
    }

    fn takes(&self, frames: usize, bytes: usize) -> bool {
        self.frames.len() + frames <= self.limits.packets && self.bytes + bytes <= self.limits.bytes
    }

    fn len(&self) -> usize {
        self.frames.len()
    }

    fn purge(&mut self) -> VecDeque<Frame> {
        self.bytes = 0;
        std::mem::take(&mut self.frames)
    }

    fn describe(&self) -> String {
        let FifoLimits { packets, bytes } = self.limits;
        format!("fifo limit {packets} packets {bytes} bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(len: usize) -> Frame {
        Frame {
            bytes: Packet::zeroed(len),
            header: 0,
            family: Family::Inet,
            next_hop: IpAddr::from([10, 0, 0, 2]),
        }
    }

    #[test]
    fn bounded_in_packets_and_in_bytes() {
        let now = Now::default();
        let mut fifo = Fifo::new(FifoLimits {
            packets: 2,
            bytes: 100,
        });
        assert!(fifo.enqueue(frame(60), now).is_ok());
        let Full(back) = fifo.enqueue(frame(41), now).unwrap_err();
        assert_eq!(back, frame(41));
        assert!(fifo.enqueue(frame(40), now).is_ok());
        assert!(fifo.enqueue(frame(0), now).is_err());
        assert_eq!(fifo.dequeue(now), Some(frame(60)));
        fifo.requeue(frame(60));
        assert_eq!(fifo.peek(now), Some(&frame(60)));
        assert_eq!(fifo.purge().len(), 2);
        assert!(!fifo.ready(now));
        assert!(fifo.enqueue(frame(100), now).is_ok());
    }

    #[test]
    fn limits_are_read_back_as_they_are_shown() {
        let default = "fifo limit 250 packets 1048576 bytes";
        assert_eq!(FifoLimits::parse(default), Some(FifoLimits::default()));
        assert_eq!(Fifo::new(FifoLimits::default()).describe(), default);
        assert_eq!(FifoLimits::parse("fifo"), Some(FifoLimits::default()));
        let limits = FifoLimits::parse("fifo limit 9 packets").unwrap();
        assert_eq!((limits.packets, limits.bytes), (9, 1_048_576));
        for bad in [
            "",
            "codel",
            "fifo limit",
            "fifo limit 0 packets",
            "fifo limit 9",
            "fifo limit 9 apples",
            "fifo limit 9 packets 8 packets",
            "fifo limit 65537 packets",
            "fifo limit -1 bytes",
        ] {
            assert_eq!(FifoLimits::parse(bad), None, "{bad:?}");
        }
    }
}

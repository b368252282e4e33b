//! A capture: packets as a classic pcap stream, `DLT_NULL`, in host byte order, in a bounded ring.
//!
//! A slow reader loses captures, which are counted. It never slows down traffic.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::Duration;

use byteorder_slice::NativeEndian;
use pcap_file::pcap::{PcapHeader, RawPcapPacket};
use pcap_file::{DataLink, Endianness, TsResolution};

use crate::memory::{Pool, Share};

/// Most bytes of a packet that are captured, its family included.
pub(crate) const SNAPLEN: u32 = 65_535;
/// Most bytes that a ring takes. All rings together have a [`Pool`].
const RING_BYTES: usize = 1 << 20;
/// Bytes of a ring with little in it.
const SMALLEST_RING: usize = 4 << 10;
/// Bytes in front of the data of a record.
const RECORD_HEADER: usize = 16;

/// One reader's stream: the part that is not yet read.
#[derive(Debug)]
pub(crate) struct Capture {
    ring: VecDeque<u8>,
    /// The memory of the ring. An empty one takes none.
    share: Share,
    seen: u32,
    lost: u32,
}

impl Capture {
    /// A stream that has its header already, and no packet.
    pub(crate) fn new(rings: &Pool) -> Self {
        let header = PcapHeader {
            snaplen: SNAPLEN,
            datalink: DataLink::NULL,
            ts_resolution: TsResolution::MicroSecond,
            endianness: Endianness::native(),
            ..PcapHeader::default()
        };
        let mut ring = VecDeque::new();
        let written = header.write_to(&mut ring);
        debug_assert!(written.is_ok(), "a ring takes everything");
        let mut share = rings.share();
        // Without room for the header, there is none for packets.
        share.resize(ring.capacity());
        Self {
            ring,
            share,
            seen: 0,
            lost: 0,
        }
    }

    /// Adds a packet, if there is room for all of it. `family` is the number of its family in
    /// `DLT_NULL`. True when there was nothing to read before.
    pub(crate) fn record(&mut self, wall: Duration, family: u32, packet: &[u8]) -> bool {
        self.seen = self.seen.wrapping_add(1);
        let whole = 4 + packet.len();
        let kept = whole.min(SNAPLEN as usize);
        if !self.make_room(RECORD_HEADER + kept) {
            self.lost = self.lost.wrapping_add(1);
            return false;
        }
        let edge = self.ring.is_empty();
        let record = RawPcapPacket {
            ts_sec: wall.as_secs() as u32,
            ts_frac: wall.subsec_micros(),
            incl_len: kept as u32,
            orig_len: u32::try_from(whole).unwrap_or(u32::MAX),
            data: Cow::Borrowed(&family.to_ne_bytes()),
        };
        // The packet itself follows, without copying both into one buffer first.
        let written = record.write_to::<_, NativeEndian>(&mut self.ring);
        debug_assert!(written.is_ok(), "a ring takes everything");
        self.ring.extend(&packet[..kept - 4]);
        edge
    }

    /// Has the ring grow if it needs to. False if it has no room for so many bytes more.
    fn make_room(&mut self, bytes: usize) -> bool {
        let (needed, capacity) = (self.ring.len() + bytes, self.ring.capacity());
        if needed <= capacity {
            return true;
        }
        let wanted = needed.max(capacity * 2).clamp(SMALLEST_RING, RING_BYTES);
        if needed > RING_BYTES || !self.share.resize(wanted) {
            return false;
        }
        self.ring.reserve_exact(wanted - self.ring.len());
        true
    }

    /// Whether there is nothing to read.
    pub(crate) fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Moves bytes of the stream to `buf`, as many as there are and fit; returns how many.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> usize {
        let len = buf.len().min(self.ring.len());
        let (front, back) = self.ring.as_slices();
        let of_front = len.min(front.len());
        buf[..of_front].copy_from_slice(&front[..of_front]);
        buf[of_front..len].copy_from_slice(&back[..len - of_front]);
        self.ring.drain(..len);
        if self.ring.is_empty() {
            self.ring = VecDeque::new();
            self.share.resize(0);
        }
        len
    }

    /// The number of packets seen, and of those lost. Both wrap around.
    pub(crate) fn counters(&self) -> (u32, u32) {
        (self.seen, self.lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::LIMIT;

    #[test]
    fn a_stream_that_pcap_readers_read() {
        let mut capture = Capture::new(&Pool::default());
        let wall = Duration::from_micros(1_700_000_000_000_007);
        assert!(!capture.record(wall, 2, &[0x45; 20]), "the header is there");
        let mut stream = vec![0; 4096];
        let len = capture.read(&mut stream);
        assert!(capture.is_empty());
        let mut reader = pcap_file::pcap::PcapReader::new(&stream[..len]).unwrap();
        assert_eq!(reader.header().datalink, DataLink::NULL);
        let packet = reader.next_packet().unwrap().unwrap();
        assert_eq!((packet.timestamp, packet.orig_len), (wall, 24));
        assert_eq!(
            packet.data[..5],
            [2_u32.to_ne_bytes().as_slice(), &[0x45]].concat()
        );
        assert!(reader.next_packet().is_none());
        assert!(capture.record(wall, 2, &[]), "it was empty");
    }

    #[test]
    fn what_has_no_room_is_counted() {
        let mut capture = Capture::new(&Pool::default());
        for _ in 0..RING_BYTES / 65_536 + 8 {
            capture.record(Duration::ZERO, 28, &[0; 70_000]);
        }
        let (seen, lost) = capture.counters();
        assert!(lost > 0 && lost < seen && capture.ring.capacity() <= RING_BYTES);
    }

    #[test]
    fn all_rings_together_are_bounded_and_an_empty_one_takes_nothing() {
        let rings = Pool::default();
        let mut captures: Vec<_> = (0..200).map(|_| Capture::new(&rings)).collect();
        for _ in 0..20 {
            for capture in &mut captures {
                capture.record(Duration::ZERO, 28, &[0; 60_000]);
            }
        }
        let held: usize = captures.iter().map(|one| one.ring.capacity()).sum();
        assert!(held > LIMIT / 2 && held <= LIMIT && rings.bytes() == held);
        assert!(captures.iter().any(|one| one.counters().1 > 4));
        let mut buf = vec![0; RING_BYTES];
        let full = captures.iter_mut().find(|one| one.ring.len() > 100_000);
        let len = full.unwrap().read(&mut buf);
        assert!(len > 100_000 && rings.bytes() < held - len);
        drop(captures);
        assert_eq!(rings.bytes(), 0);
    }
}

//! The packets of one interface: a classic pcap stream, `DLT_NULL`, in host byte order.

use std::borrow::Cow;
use std::time::Duration;

use byteorder_slice::NativeEndian;
use pcap_file::pcap::{PcapHeader, RawPcapPacket};
use pcap_file::{DataLink, Endianness, TsResolution};

use super::{Ring, SNAPLEN};
use crate::memory::Pool;

/// Bytes in front of the data of a record.
const RECORD_HEADER: usize = 16;

/// One reader's stream.
#[derive(Debug)]
pub(crate) struct Capture {
    ring: Ring,
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
        let mut ring = Ring::new(rings);
        let written = header.write_to(&mut ring.bytes);
        debug_assert!(written.is_ok(), "a ring takes everything");
        ring.settle();
        Self { ring }
    }

    /// Adds a packet, if there is room for all of it. `family` is the number of its family in
    /// `DLT_NULL`. True when there was nothing to read before.
    pub(crate) fn record(&mut self, wall: Duration, family: u32, packet: &[u8]) -> bool {
        let whole = 4 + packet.len();
        let kept = whole.min(SNAPLEN as usize);
        let edge = self.ring.is_empty();
        if !self.ring.admit(RECORD_HEADER + kept, 0) {
            return false;
        }
        let record = RawPcapPacket {
            ts_sec: wall.as_secs() as u32,
            ts_frac: wall.subsec_micros(),
            incl_len: kept as u32,
            orig_len: u32::try_from(whole).unwrap_or(u32::MAX),
            data: Cow::Borrowed(&family.to_ne_bytes()),
        };
        // The packet itself follows, without copying both into one buffer first.
        let written = record.write_to::<_, NativeEndian>(&mut self.ring.bytes);
        debug_assert!(written.is_ok(), "a ring takes everything");
        self.ring.bytes.extend(&packet[..kept - 4]);
        edge
    }

    /// Whether there is nothing to read.
    pub(crate) fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// The stream, to be read.
    pub(crate) fn ring(&mut self) -> &mut Ring {
        &mut self.ring
    }
}

#[cfg(test)]
mod tests {
    use super::super::RING_BYTES;
    use super::*;
    use crate::memory::LIMIT;

    #[test]
    fn a_stream_that_pcap_readers_read() {
        let mut capture = Capture::new(&Pool::default());
        let wall = Duration::from_micros(1_700_000_000_000_007);
        assert!(!capture.record(wall, 2, &[0x45; 20]), "the header is there");
        let mut stream = vec![0; 4096];
        let len = capture.ring().read(&mut stream);
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
        let (seen, lost) = capture.ring().counters();
        assert!(lost > 0 && lost < seen && capture.ring().capacity() <= RING_BYTES);
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
        let held: usize = captures.iter_mut().map(|one| one.ring().capacity()).sum();
        assert!(held > LIMIT / 2 && held <= LIMIT && rings.bytes() == held);
        assert!(captures.iter_mut().any(|one| one.ring().counters().1 > 4));
        let mut buf = vec![0; RING_BYTES];
        let full = captures
            .iter_mut()
            .find(|one| one.ring.bytes.len() > 100_000);
        let len = full.unwrap().ring().read(&mut buf);
        assert!(len > 100_000 && rings.bytes() < held - len);
        drop(captures);
        assert_eq!(rings.bytes(), 0);
    }
}

//! Packets of many interfaces with a comment on each: a pcapng stream in host byte order.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use byteorder_slice::NativeEndian;
use pcap_file::pcapng::PcapNgBlock;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::section_header::SectionHeaderBlock;
use pcap_file::{DataLink, Endianness};

use super::{Ring, SNAPLEN};
use crate::memory::Pool;

/// Times are counted in units of ten to the minus this, seconds.
const NANOSECONDS: u8 = 9;

/// Bytes charged for an interface whose block was written: its name and number in a tree.
const INTERFACE_BYTES: usize = 128;

/// What a captured packet begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Framing {
    /// The packet itself; its family goes before it, by its number in `DLT_NULL`.
    Null(u32),
    /// The header of Ethernet.
    Ethernet,
}

impl Framing {
    fn link_type(self) -> DataLink {
        match self {
            Self::Null(_) => DataLink::NULL,
            Self::Ethernet => DataLink::ETHERNET,
        }
    }
}

/// One reader's stream.
#[derive(Debug)]
pub(crate) struct CommentedCapture {
    ring: Ring,
    /// The numbers of the interface blocks that were written: one for each name and link type.
    interfaces: BTreeMap<(String, u32), u32>,
    /// Packets lost since the one that was recorded last.
    missed: u64,
}

impl CommentedCapture {
    /// A stream that has its section header already, and no packet.
    pub(crate) fn new(rings: &Pool) -> Self {
        let header = SectionHeaderBlock {
            endianness: Endianness::native(),
            ..SectionHeaderBlock::default()
        };
        let mut ring = Ring::new(rings);
        ring.bytes.extend(encoded(header));
        ring.settle();
        Self {
            ring,
            interfaces: BTreeMap::new(),
            missed: 0,
        }
    }

    /// Adds a packet with a comment, if there is room for all of it: of `len` bytes, of which `packet`
    /// has as many as were kept.
    pub(crate) fn record(
        &mut self,
        wall: Duration,
        interface: &str,
        framing: Framing,
        comment: &str,
        packet: &[u8],
        len: usize,
    ) {
        let key = (interface.to_owned(), framing.link_type().into());
        let known = self.interfaces.get(&key).copied();
        let number = known.unwrap_or(self.interfaces.len() as u32);
        let mut bytes = Vec::new();
        if known.is_none() {
            let mut block = InterfaceDescriptionBlock::new(framing.link_type(), SNAPLEN);
            block.options = vec![
                InterfaceDescriptionOption::IfName(interface.into()),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ];
            bytes = encoded(block);
        }
        let family = match framing {
            Framing::Null(family) => Some(family.to_ne_bytes()),
            Framing::Ethernet => None,
        };
        let head = family.as_ref().map_or(&[][..], |family| &family[..]);
        let kept = packet.len().min(SNAPLEN as usize - head.len());
        let mut options = vec![EnhancedPacketOption::Comment(comment.into())];
        if self.missed > 0 {
            options.push(EnhancedPacketOption::DropCount(self.missed));
        }
        bytes.extend(encoded(EnhancedPacketBlock {
            interface_id: number,
            timestamp: wall,
            original_len: u32::try_from(head.len() + len).unwrap_or(u32::MAX),
            data: Cow::Owned([head, &packet[..kept]].concat()),
            options,
        }));
        // The name of an interface is kept for as long as the stream is read.
        let besides = if known.is_some() { 0 } else { INTERFACE_BYTES };
        if !self.ring.admit(bytes.len(), besides) {
            self.missed += 1;
            return;
        }
        self.ring.bytes.extend(bytes);
        self.interfaces.insert(key, number);
        self.missed = 0;
    }

    /// Counts packets that were lost before they came here.
    pub(crate) fn miss(&mut self, packets: u64) {
        let packets = u32::try_from(packets).unwrap_or(u32::MAX);
        self.ring.seen = self.ring.seen.wrapping_add(packets);
        self.ring.lost = self.ring.lost.wrapping_add(packets);
        self.missed += u64::from(packets);
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

/// The bytes of a block.
fn encoded<'a>(block: impl PcapNgBlock<'a>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let written = block.into_block().write_to::<NativeEndian, _>(&mut bytes);
    debug_assert!(written.is_ok(), "a vector takes everything");
    bytes
}

#[cfg(test)]
mod tests {
    use pcap_file::pcapng::{Block, PcapNgReader};

    use super::super::RING_BYTES;
    use super::*;

    const WALL: Duration = Duration::from_nanos(1_700_000_000_000_007_009);

    fn read(capture: &mut CommentedCapture) -> Vec<u8> {
        let mut stream = vec![0; 2 * RING_BYTES];
        let len = capture.ring().read(&mut stream);
        stream.truncate(len);
        stream
    }

    #[test]
    fn a_stream_that_pcapng_readers_read() {
        let mut capture = CommentedCapture::new(&Pool::default());
        let null = Framing::Null(2);
        capture.record(WALL, "tun0", null, "in no_port", &[0x45; 21], 21);
        capture.record(WALL, "eth0", Framing::Ethernet, "in refused", &[7; 60], 60);
        capture.record(
            WALL,
            "tun0",
            Framing::Null(28),
            "out purged",
            &[0x60; 40],
            90,
        );
        let stream = read(&mut capture);
        let mut reader = PcapNgReader::new(&stream[..]).unwrap();
        let mut seen = Vec::new();
        while let Some(block) = reader.next_block() {
            match block.unwrap() {
                Block::InterfaceDescription(block) => {
                    let name = InterfaceDescriptionOption::IfName("tun0".into());
                    let of_tun = block.options.contains(&name);
                    assert_eq!(of_tun, block.linktype == DataLink::NULL);
                }
                Block::EnhancedPacket(block) => {
                    assert_eq!(block.timestamp, WALL);
                    let comment = match &block.options[..] {
                        [EnhancedPacketOption::Comment(comment)] => comment.to_string(),
                        options => panic!("{options:?}"),
                    };
                    seen.push((
                        block.interface_id,
                        block.original_len,
                        block.data.len(),
                        comment,
                    ));
                }
                block => panic!("{block:?}"),
            }
        }
        let expected = [
            (0, 25, 25, "in no_port".to_owned()),
            (1, 60, 60, "in refused".to_owned()),
            (0, 94, 44, "out purged".to_owned()),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn the_names_of_interfaces_are_charged() {
        let pool = Pool::default();
        let mut capture = CommentedCapture::new(&pool);
        let mut record = |name: &str| {
            let null = Framing::Null(2);
            capture.record(WALL, name, null, "in no_port", &[0; 20], 20);
            read(&mut capture);
        };
        record("tun0");
        record("tun0");
        assert_eq!(pool.bytes(), INTERFACE_BYTES);
        (1..1000).for_each(|unit| record(&format!("tun{unit}")));
        assert_eq!(pool.bytes(), 1000 * INTERFACE_BYTES);
        // Without room for a name the packet is lost, and nothing is charged.
        let mut others = pool.share();
        assert!(others.resize(crate::memory::LIMIT - pool.bytes() - 16_384 - 1));
        let null = Framing::Null(2);
        for _ in 0..1000 {
            capture.record(WALL, "more", null, "in no_port", &[0; 16_384], 20);
        }
        assert_eq!(capture.ring().counters().1, 1000);
        assert!(!capture.interfaces.contains_key(&("more".to_owned(), 0)));
        drop(others);
        drop(capture);
        assert_eq!(pool.bytes(), 0);
    }

    #[test]
    fn what_has_no_room_is_counted_and_the_next_packet_says_so() {
        let mut capture = CommentedCapture::new(&Pool::default());
        let mut recorded = 0;
        while capture.ring().counters().1 < 3 {
            capture.record(
                WALL,
                "tun0",
                Framing::Null(2),
                "in no_port",
                &[0; 70_000],
                70_000,
            );
            recorded += 1;
        }
        assert!(capture.ring.bytes.len() <= RING_BYTES);
        capture.miss(4);
        assert_eq!(capture.ring().counters(), (recorded + 4, 7));
        read(&mut capture);
        // An interface whose block was lost gets it with its next packet.
        capture.record(WALL, "tun1", Framing::Null(2), "in no_port", &[0; 20], 20);
        let stream = read(&mut capture);
        let count = [4_u16.to_ne_bytes(), 8_u16.to_ne_bytes()].concat();
        let count = [&count[..], &7_u64.to_ne_bytes()].concat();
        assert!(stream.windows(count.len()).any(|bytes| bytes == count));
        assert!(stream.windows(4).any(|bytes| bytes == b"tun1"));
    }
}

//! The format of reads and writes in batch mode: a sequence of frames, each the length as a
//! native-endian `u32`, the packet with its header, and zeros up to a multiple of four.
//!
//! ```
//! use tun::batch;
//!
//! let mut batch = Vec::new();
//! batch::push(&mut batch, b"one packet");
//! batch::push(&mut batch, b"another");
//! assert_eq!(batch.len(), 4 + 12 + 4 + 8);
//!
//! let packets: Vec<&[u8]> = batch::packets(&batch).collect();
//! assert_eq!(packets, [&b"one packet"[..], b"another"]);
//! ```

/// Bytes of the length before a packet.
const LENGTH: usize = 4;

/// Adds a packet to a batch.
pub fn push(batch: &mut Vec<u8>, packet: &[u8]) {
    let len = u32::try_from(packet.len()).unwrap_or(u32::MAX);
    batch.extend_from_slice(&len.to_ne_bytes());
    batch.extend_from_slice(packet);
    batch.resize(batch.len().next_multiple_of(4), 0);
}

/// The packets of a batch that was read. Ends at the first incomplete frame.
pub fn packets(batch: &[u8]) -> Packets<'_> {
    Packets { rest: batch }
}

/// Iterator over the packets of a batch.
#[derive(Clone, Debug)]
pub struct Packets<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Packets<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (len, rest) = self.rest.split_first_chunk::<LENGTH>()?;
        let len = usize::try_from(u32::from_ne_bytes(*len)).ok()?;
        let packet = rest.get(..len)?;
        self.rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let mut batch = Vec::new();
        for packet in [&b"one"[..], b"four", b"seventeen bytes !"] {
            push(&mut batch, packet);
        }
        assert_eq!(batch.len() % 4, 0);
        let out: Vec<_> = packets(&batch).collect();
        assert_eq!(out, [&b"one"[..], b"four", b"seventeen bytes !"]);
        assert_eq!(packets(&batch[..5]).count(), 0);
        assert_eq!(packets(&[0xff; 8]).count(), 0);
    }
}

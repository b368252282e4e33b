//! A stream of bytes in which each has its place, so that lost, doubled or moved bytes are
//! detected.

use std::io::{self, Read, Write};
use std::sync::OnceLock;

/// The stream repeats after this many bytes.
const PERIOD: usize = 1 << 20;
const PAGE: usize = 4096;

/// A page-aligned buffer: unaligned ones cost more on Redox.
pub struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    /// A buffer of `len` zeros.
    pub fn new(len: usize) -> Self {
        let bytes = vec![0; len + PAGE];
        let start = bytes.as_ptr().align_offset(PAGE);
        Self { bytes, start, len }
    }

    /// The bytes.
    pub fn get(&self) -> &[u8] {
        &self.bytes[self.start..][..self.len]
    }

    /// The bytes.
    pub fn get_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..][..self.len]
    }
}

fn bytes() -> &'static [u8] {
    static BYTES: OnceLock<Aligned> = OnceLock::new();

    let filled = || {
        let mut bytes = Aligned::new(PERIOD);
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for word in bytes.get_mut().chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        bytes
    };
    BYTES.get_or_init(filled).get()
}

/// Up to `len` bytes of the stream from `position`: fewer at the end of a period.
pub fn at(position: usize, len: usize) -> &'static [u8] {
    let start = position % PERIOD;
    &bytes()[start..(start + len).min(PERIOD)]
}

/// The position of the first difference between `data` and the stream at `position`.
pub fn difference(position: usize, data: &[u8]) -> Option<usize> {
    let mut done = 0;
    while done < data.len() {
        let expected = at(position + done, data.len() - done);
        let part = &data[done..][..expected.len()];
        if part != expected {
            let bad = part.iter().zip(expected).position(|(a, b)| a != b);
            return bad.map(|bad| position + done + bad);
        }
        done += expected.len();
    }
    None
}

/// Writes the first `total` bytes, `chunk` at a time.
pub fn send(mut to: impl Write, total: usize, chunk: usize) -> io::Result<()> {
    let mut position = 0;
    while position < total {
        let part = at(position, chunk.min(total - position));
        to.write_all(part)?;
        position += part.len();
    }
    Ok(())
}

/// Reads and checks up to `total` bytes; returns how many there were before the end. Fails at the
/// first wrong byte.
pub fn receive(mut from: impl Read, total: usize, chunk: usize) -> io::Result<usize> {
    let mut buffer = Aligned::new(chunk);
    let mut position = 0;
    while position < total {
        let want = chunk.min(total - position);
        let len = from.read(&mut buffer.get_mut()[..want])?;
        if len == 0 {
            break;
        }
        if let Some(bad) = difference(position, &buffer.get()[..len]) {
            return Err(io::Error::other(format!("byte {bad} is wrong")));
        }
        position += len;
    }
    Ok(position)
}

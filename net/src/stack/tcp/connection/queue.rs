//! Bytes in a row, in chunks that come with the bytes and go with them.

use std::collections::VecDeque;

/// Most bytes of a chunk that is filled bit by bit.
pub(super) const CHUNK: usize = 16 * 1024;
/// Bytes of a chunk that does not grow any more.
const LONG: usize = CHUNK / 4;
/// Bytes of the first chunk, at the least.
const SMALLEST: usize = 64;
/// A chunk of so few bytes is kept when it is empty, for the next few.
const SPARE: usize = 128;
/// Slots for chunks that an empty queue keeps.
const SLOTS: usize = 4;
/// From so many bytes on, a whole buffer is taken in and not copied.
const WORTH_TAKING: usize = 4096;

#[derive(Debug)]
struct Chunk {
    /// Place of the first byte in the stream.
    at: u64,
    bytes: Vec<u8>,
}

impl Chunk {
    fn end(&self) -> u64 {
        self.at + self.bytes.len() as u64
    }
}

/// A queue of bytes, of which any can be looked at.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// In order, without holes.
    chunks: VecDeque<Chunk>,
    /// Place of the first byte that is left.
    start: u64,
    /// One past the place of the last.
    end: u64,
    /// Bytes of all chunks.
    occupied: usize,
}

impl Queue {
    /// Bytes in it.
    pub(super) fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.end == self.start
    }

    /// Bytes of memory it takes.
    pub(super) fn memory(&self) -> usize {
        self.occupied + self.chunks.capacity() * size_of::<Chunk>()
    }

    /// Adds bytes at the end.
    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            // A long chunk is not made longer, which would copy it.
            let full = self.chunks.back().is_none_or(|last| {
                let len = last.bytes.len();
                len >= CHUNK || len >= LONG && len == last.bytes.capacity()
            });
            if full {
                // Where one chunk was filled, more is to be expected.
                let size = if self.chunks.is_empty() {
                    bytes.len().clamp(SMALLEST, CHUNK)
                } else {
                    CHUNK
                };
                self.add(Vec::with_capacity(size));
            }
            let Some(last) = self.chunks.back_mut() else {
                return;
            };
            let before = last.bytes.capacity();
            let room = CHUNK.saturating_sub(last.bytes.len());
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            last.bytes.extend_from_slice(now);
            self.occupied += last.bytes.capacity() - before;
            self.end += now.len() as u64;
            bytes = later;
        }
    }

    /// Adds bytes at the end, a whole buffer of them.
    pub(super) fn append(&mut self, bytes: Vec<u8>) {
        if bytes.len() < WORTH_TAKING {
            self.push(&bytes);
        } else {
            let len = bytes.len() as u64;
            self.add(bytes);
            self.end += len;
        }
    }

    /// Has `fill` write up to `max` bytes at the end, and say how many it did.
    pub(super) fn push_with(&mut self, max: usize, fill: impl FnOnce(&mut [u8]) -> usize) -> usize {
        let mut bytes = vec![0; max.min(CHUNK)];
        let len = fill(&mut bytes).min(bytes.len());
        bytes.truncate(len);
        self.append(bytes);
        len
    }

    /// The first bytes that are in one piece.
    pub(super) fn front(&self) -> &[u8] {
        let Some(first) = self.chunks.front() else {
            return &[];
        };
        let skip = (self.start - first.at) as usize;
        first.bytes.get(skip..).unwrap_or_default()
    }

    /// All of it, piece by piece.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.chunks.iter().map(|chunk| {
            let skip = self.start.saturating_sub(chunk.at) as usize;
            chunk.bytes.get(skip..).unwrap_or_default()
        })
    }

    /// The `len` bytes from `offset` on, in two pieces, or as many of them as there are in those.
    pub(super) fn slices(&self, offset: usize, len: usize) -> (&[u8], &[u8]) {
        let at = self.start + offset as u64;
        // New bytes are at the end, and what goes again is mostly at the front.
        let index = match self.chunks.back() {
            Some(last) if last.at <= at => self.chunks.len() - 1,
            _ => self.chunks.partition_point(|chunk| chunk.end() <= at),
        };
        let Some(chunk) = self.chunks.get(index) else {
            return (&[], &[]);
        };
        let skip = at.saturating_sub(chunk.at) as usize;
        let first = chunk.bytes.get(skip..).unwrap_or_default();
        if let Some(first) = first.get(..len) {
            return (first, &[]);
        }
        let rest = len - first.len();
        let second = self.chunks.get(index + 1);
        let second = second.map_or(&[][..], |chunk| &chunk.bytes);
        (first, second.get(..rest).unwrap_or(second))
    }

    /// Takes up to `len` bytes off the front.
    pub(super) fn consume(&mut self, len: usize) {
        self.start = self.end.min(self.start + len as u64);
        if self.is_empty() {
            self.settle();
            return;
        }
        while let Some(first) = self.chunks.front()
            && first.end() <= self.start
        {
            self.occupied -= first.bytes.capacity();
            self.chunks.pop_front();
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.start = self.end;
        self.occupied = 0;
        self.chunks = VecDeque::new();
    }

    /// Keeps little of an empty queue.
    fn settle(&mut self) {
        let mut spare = self.chunks.pop_back();
        self.chunks.clear();
        self.occupied = 0;
        if self.chunks.capacity() > SLOTS {
            self.chunks = VecDeque::new();
        }
        if let Some(chunk) = &mut spare
            && chunk.bytes.capacity() <= SPARE
        {
            let mut bytes = core::mem::take(&mut chunk.bytes);
            bytes.clear();
            self.add(bytes);
        }
    }

    fn add(&mut self, bytes: Vec<u8>) {
        self.occupied += bytes.capacity();
        self.chunks.push_back(Chunk {
            at: self.end,
            bytes,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut queue = Queue::default();
        let mut model: VecDeque<u8> = VecDeque::new();
        let mut next = 0_u8;
        for _ in 0..3000 {
            let most = if rng.bool() { 20 } else { 40_000 };
            let len = rng.usize(..most);
            if rng.bool() {
                let bytes: Vec<u8> = (0..len).map(|n| next.wrapping_add(n as u8)).collect();
                next = next.wrapping_add(len as u8);
                model.extend(&bytes);
                if rng.bool() {
                    queue.push(&bytes);
                } else {
                    queue.append(bytes);
                }
            } else {
                let len = len.min(model.len());
                model.drain(..len);
                queue.consume(len);
            }
            assert_eq!(queue.len(), model.len());
            assert_eq!(queue.is_empty(), queue.front().is_empty());
            if !model.is_empty() {
                let offset = rng.usize(..model.len());
                let len = rng.usize(..=(model.len() - offset).min(1500));
                let (first, second) = queue.slices(offset, len);
                let there: Vec<u8> = model.range(offset..offset + len).copied().collect();
                let got = [first, second].concat();
                assert_eq!(got, there[..got.len()]);
                assert!(got.len() == len || !second.is_empty());
            } else {
                assert!(queue.memory() <= 300);
            }
            assert!(queue.memory() <= 3 * model.len() + 8 * CHUNK + 64 * queue.chunks.len());
        }
    }
}

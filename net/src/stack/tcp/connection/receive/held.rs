//! Bytes beyond a hole.

use std::collections::VecDeque;

use super::super::options::{Block, Blocks, MAX_BLOCKS};
use super::super::queue::CHUNK;
use super::super::seq::SeqNumber;

/// Most runs. With every other segment of the largest window lost there are fewer.
const MAX_RUNS: usize = 4096;
/// What a run costs beside its bytes: a stranger may send many of one byte.
const COST: usize = 64;

#[derive(Debug)]
struct Run {
    start: SeqNumber,
    bytes: Vec<u8>,
}

impl Run {
    fn end(&self) -> SeqNumber {
        self.start + self.bytes.len() as u32
    }
}

/// What was received out of order.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// In order, not overlapping; one may begin where another ends.
    runs: VecDeque<Run>,
    /// A byte of each block that was last received, latest first.
    recent: [SeqNumber; MAX_BLOCKS],
    memory: usize,
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub(super) fn memory(&self) -> usize {
        self.memory + size_of::<Self>()
    }

    /// One past the last byte.
    pub(super) fn end(&self) -> Option<SeqNumber> {
        self.runs.back().map(Run::end)
    }

    /// Takes bytes in, unless they would make it take more than `most` bytes of memory or
    /// [`MAX_RUNS`]; returns what of them was
    /// there before. `base` is before everything.
    pub(super) fn insert(
        &mut self,
        base: SeqNumber,
        mut seq: SeqNumber,
        mut bytes: &[u8],
        most: usize,
    ) -> Option<Block> {
        let mut twice = None;
        let place = seq.since(base);
        let mut index = match self.runs.back() {
            Some(last) if last.start <= seq => self.runs.len(),
            _ => self
                .runs
                .partition_point(|run| run.start.since(base) <= place),
        };
        let before = index.checked_sub(1).and_then(|index| self.runs.get(index));
        if let Some(end) = before.map(Run::end)
            && end > seq
        {
            let overlap = end.since(seq) as usize;
            let (there, rest) = bytes.split_at(overlap.min(bytes.len()));
            twice = Some((seq, seq + there.len() as u32));
            self.touch(seq);
            seq = end;
            bytes = rest;
        }
        if !bytes.is_empty() {
            self.touch(seq);
        }
        while !bytes.is_empty() {
            let next = self.runs.get(index).map(|next| (next.start, next.end()));
            let len = next.map_or(bytes.len(), |(start, _)| start.since(seq) as usize);
            let (now, later) = bytes.split_at(len.min(bytes.len()));
            if !now.is_empty() {
                if self.memory + now.len() + COST > most || self.runs.len() >= MAX_RUNS {
                    return twice;
                }
                index += self.put(index, seq, now);
            }
            let Some((start, end)) = next.filter(|_| !later.is_empty()) else {
                break;
            };
            let overlap = (end.since(start) as usize).min(later.len());
            twice.get_or_insert((start, start + overlap as u32));
            bytes = later.get(overlap..).unwrap_or_default();
            seq = end;
            index += 1;
        }
        twice
    }

    /// Puts bytes before the run of this index; returns how many runs more there are.
    fn put(&mut self, index: usize, seq: SeqNumber, bytes: &[u8]) -> usize {
        if let Some(before) = index
            .checked_sub(1)
            .and_then(|index| self.runs.get_mut(index))
            && before.end() == seq
            && before.bytes.len() + bytes.len() <= CHUNK
        {
            let room = before.bytes.capacity();
            before.bytes.extend_from_slice(bytes);
            self.memory += before.bytes.capacity() - room;
            return 0;
        }
        if let Some(after) = self.runs.get_mut(index)
            && after.start == seq + bytes.len() as u32
            && after.bytes.len() + bytes.len() <= CHUNK
        {
            let room = after.bytes.capacity();
            after.bytes.splice(..0, bytes.iter().copied());
            after.start = seq;
            self.memory += after.bytes.capacity() - room;
            return 0;
        }
        let bytes = bytes.to_vec();
        self.memory += bytes.capacity() + COST;
        self.runs.insert(index, Run { start: seq, bytes });
        1
    }

    /// Takes the bytes that follow right on `nxt`, if they are there.
    pub(super) fn pop(&mut self, nxt: SeqNumber) -> Option<Vec<u8>> {
        while let Some(first) = self.runs.front()
            && first.start <= nxt
        {
            let Run { start, mut bytes } = self.runs.pop_front()?;
            self.memory = self.memory.saturating_sub(bytes.capacity() + COST);
            let old = nxt.since(start) as usize;
            if old < bytes.len() {
                if old > 0 {
                    bytes.drain(..old);
                }
                return Some(bytes);
            }
        }
        None
    }

    /// The block that was last added to is told first (RFC 2018 section 4).
    fn touch(&mut self, seq: SeqNumber) {
        let old = self.recent.iter().position(|&recent| {
            self.block(recent)
                .is_some_and(|(left, right)| left <= seq && seq <= right)
        });
        let last = old.unwrap_or(MAX_BLOCKS - 1);
        if let Some(recent) = self.recent.get_mut(..=last) {
            recent.rotate_right(1);
        }
        if let Some(first) = self.recent.first_mut() {
            *first = seq;
        }
    }

    /// The block that a byte is in.
    fn block(&self, seq: SeqNumber) -> Option<Block> {
        let base = self.runs.front()?.start;
        let place = seq.since(base);
        let index = self
            .runs
            .partition_point(|run| run.start.since(base) <= place)
            .checked_sub(1)?;
        let run = self.runs.get(index).filter(|run| seq < run.end())?;
        let (mut left, mut right) = (run.start, run.end());
        for before in self.runs.range(..index).rev() {
            if before.end() != left {
                break;
            }
            left = before.start;
        }
        for after in self.runs.range(index + 1..) {
            if after.start != right {
                break;
            }
            right = after.end();
        }
        Some((left, right))
    }

    /// Adds up to as many blocks that there are `max` in all.
    pub(super) fn report(&self, blocks: &mut Blocks, max: usize) {
        let fresh = blocks.as_slice().len();
        for &recent in &self.recent {
            if blocks.as_slice().len() >= max {
                return;
            }
            if let Some(block) = self.block(recent)
                && !blocks
                    .as_slice()
                    .iter()
                    .skip(fresh)
                    .any(|&told| told == block)
            {
                blocks.push(block);
            }
        }
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn invariants(&self, nxt: SeqNumber, edge: SeqNumber) {
        let mut last = nxt;
        let mut memory = 0;
        for (index, run) in self.runs.iter().enumerate() {
            assert!(!run.bytes.is_empty());
            assert!(run.start > last || (index > 0 && run.start == last));
            last = run.end();
            memory += run.bytes.capacity() + COST;
        }
        assert!(last <= edge, "{last:?} {edge:?}");
        assert_eq!(memory, self.memory);
        assert!(!self.runs.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that arrive one by one, at these numbers.
    fn held(numbers: impl IntoIterator<Item = u32>) -> Held {
        let mut held = Held::default();
        let base = SeqNumber(1000);
        for number in numbers {
            held.insert(base, base + number, &[number as u8], 12 << 20);
            held.invariants(base, base + (1 << 20));
        }
        held
    }

    #[test]
    fn bytes_beside_others_join_them_whichever_came_first() {
        for (name, mut held) in [
            ("ascending", held(1..=5000)),
            ("descending", held((1..=5000).rev())),
        ] {
            assert_eq!(held.runs.len(), 1, "{name}");
            let expected: Vec<_> = (1..=5000_u32).map(|number| number as u8).collect();
            assert_eq!(held.pop(SeqNumber(1001)), Some(expected), "{name}");
            assert_eq!((held.memory, held.is_empty()), (0, true), "{name}");
        }
    }

    #[test]
    fn a_stranger_cannot_have_us_keep_any_number_of_pieces() {
        for (name, held) in [
            ("ascending", held((1..=5000).map(|at| 2 * at))),
            ("descending", held((1..=5000).rev().map(|at| 2 * at))),
        ] {
            assert_eq!(held.runs.len(), MAX_RUNS, "{name}");
        }
    }
}

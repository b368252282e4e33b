//! TCP options: read with mercy, written with care.
//!
//! An option that makes no sense is passed over, and one whose length does makes no sense ends the
//! list, since nobody knows where the next begins; neither costs the segment (RFC 9293 section 3.1:
//! robust against bad option lengths).

use super::seq::SeqNumber;

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;

/// Largest shift of a window (RFC 7323 section 2.3): a larger one counts as this.
pub(super) const MAX_SHIFT: u8 = 14;
/// Bytes that timestamps take, filled up to a word.
pub(super) const TIMESTAMPS_LEN: usize = 12;
/// Bytes that a header has for options.
pub(super) const MAX_LEN: usize = 40;
/// Most SACK blocks in one segment.
pub(super) const MAX_BLOCKS: usize = 4;

/// What is received or sent out of order: from the first, inclusive, to the second, exclusive.
pub(crate) type Block = (SeqNumber, SeqNumber);

/// A few SACK blocks, in the order in which they stand in the segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Blocks {
    blocks: [Block; MAX_BLOCKS],
    len: u8,
}

impl Blocks {
    /// Adds one; nothing happens if there are as many as can be.
    pub(super) fn push(&mut self, block: Block) {
        if let Some(slot) = self.blocks.get_mut(usize::from(self.len)) {
            *slot = block;
            self.len += 1;
        }
    }

    /// Those that there are.
    pub(crate) fn as_slice(&self) -> &[Block] {
        self.blocks.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Whether there are none.
    #[cfg(test)]
    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// TSval and TSecr (RFC 7323 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timestamps {
    /// The sender's clock.
    pub(crate) value: u32,
    /// What it last saw of the receiver's; means nothing without an ACK.
    pub(crate) echo: u32,
}

/// The options of a segment that we know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Largest payload that the sender takes, never zero.
    pub(crate) mss: Option<u16>,
    /// Shift of the sender's windows, at most 14.
    pub(crate) window_scale: Option<u8>,
    /// Whether the sender understands SACK blocks.
    pub(crate) sack_permitted: bool,
    /// Both clocks.
    pub(crate) timestamps: Option<Timestamps>,
    /// What the sender has beyond its acknowledgment.
    pub(crate) sack: Blocks,
}

impl Options {
    /// Reads the options of a header.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let mut options = Self::default();
        // Nearly every segment looks like this (RFC 7323 appendix A).
        if let [NOP, NOP, TIMESTAMPS, 10, clocks @ ..] = bytes
            && clocks.len() == 8
        {
            options.timestamps = timestamps(clocks);
            return options;
        }
        let mut rest = bytes;
        while let [kind, tail @ ..] = rest {
            match *kind {
                END => break,
                NOP => {
                    rest = tail;
                    continue;
                }
                _ => {}
            }
            let [len, ..] = tail else { break };
            let Some((option, after)) = rest.split_at_checked(usize::from(*len)) else {
                break;
            };
            let [_, _, value @ ..] = option else { break };
            options.note(*kind, value);
            rest = after;
        }
        options
    }

    fn note(&mut self, kind: u8, value: &[u8]) {
        match (kind, value) {
            (MSS, &[high, low]) => {
                self.mss = Some(u16::from_be_bytes([high, low])).filter(|&mss| mss > 0);
            }
            (WINDOW_SCALE, &[shift]) => self.window_scale = Some(shift.min(MAX_SHIFT)),
            (SACK_PERMITTED, []) => self.sack_permitted = true,
            (TIMESTAMPS, clocks) if clocks.len() == 8 => self.timestamps = timestamps(clocks),
            (SACK, blocks) if blocks.len().is_multiple_of(8) => {
                for block in blocks.as_chunks::<8>().0 {
                    let [a, b, c, d, e, f, g, h] = *block;
                    self.sack.push((
                        SeqNumber(u32::from_be_bytes([a, b, c, d])),
                        SeqNumber(u32::from_be_bytes([e, f, g, h])),
                    ));
                }
            }
            _ => {}
        }
    }

    /// Writes them into `room`; returns how many bytes they took, a multiple of four. What does not
    /// fit is left out.
    pub(super) fn emit(&self, room: &mut [u8; MAX_LEN]) -> usize {
        let mut writer = Writer { room, len: 0 };
        if let Some(mss) = self.mss {
            let [high, low] = mss.to_be_bytes();
            writer.put(&[MSS, 4, high, low]);
        }
        if let Some(Timestamps { value, echo }) = self.timestamps {
            let lead = if self.sack_permitted {
                [SACK_PERMITTED, 2]
            } else {
                [NOP, NOP]
            };
            writer.put(&lead);
            writer.put(&[TIMESTAMPS, 10]);
            writer.put(&value.to_be_bytes());
            writer.put(&echo.to_be_bytes());
        } else if self.sack_permitted {
            writer.put(&[NOP, NOP, SACK_PERMITTED, 2]);
        }
        if let Some(shift) = self.window_scale {
            writer.put(&[NOP, WINDOW_SCALE, 3, shift]);
        }
        let fit = (MAX_LEN - writer.len).saturating_sub(4) / 8;
        let blocks = self.sack.as_slice();
        let blocks = blocks.get(..fit.min(blocks.len())).unwrap_or_default();
        if !blocks.is_empty() {
            writer.put(&[NOP, NOP, SACK, 2 + 8 * blocks.len() as u8]);
            for (left, right) in blocks {
                writer.put(&left.0.to_be_bytes());
                writer.put(&right.0.to_be_bytes());
            }
        }
        writer.len
    }
}

struct Writer<'a> {
    room: &'a mut [u8; MAX_LEN],
    len: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        if let Some(room) = self.room.get_mut(self.len..self.len + bytes.len()) {
            room.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }
}

fn timestamps(clocks: &[u8]) -> Option<Timestamps> {
    let (value, echo) = clocks.split_first_chunk::<4>()?;
    Some(Timestamps {
        value: u32::from_be_bytes(*value),
        echo: u32::from_be_bytes(*echo.first_chunk()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut options = Options {
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            timestamps: Some(Timestamps {
                value: 1,
                echo: u32::MAX,
            }),
            sack: Blocks::default(),
        };
        for _ in 0..2 {
            let mut room = [0; MAX_LEN];
            let len = options.emit(&mut room);
            assert_eq!(len % 4, 0);
            assert_eq!(Options::parse(&room[..len]), options);
            options.timestamps = None;
        }
        let mut sack = Options::default();
        for n in 0..4 {
            sack.sack.push((SeqNumber(n), SeqNumber(n + 9)));
        }
        let mut room = [0; MAX_LEN];
        assert_eq!(sack.emit(&mut room), 36);
        assert_eq!(Options::parse(&room[..36]), sack);
        // Three are left beside timestamps.
        sack.timestamps = options
            .timestamps
            .or(Some(Timestamps { value: 0, echo: 0 }));
        assert_eq!(sack.emit(&mut room), 40);
        assert_eq!(Options::parse(&room).sack.as_slice().len(), 3);
    }

    #[test]
    fn a_bad_option_costs_nothing_but_itself() {
        // Lengths of 0 and 1, and past the end, end the list.
        for bad in [
            &[MSS, 0, 5, 180][..],
            &[MSS, 1],
            &[9, 40, 0],
            &[MSS],
            &[SACK, 3, 1],
        ] {
            let mut bytes = vec![MSS, 4, 5, 180];
            bytes.extend_from_slice(bad);
            assert_eq!(Options::parse(&bytes).mss, Some(1460), "{bad:?}");
        }
        // One of a wrong length, and one that nobody knows, are passed over.
        let bytes = [
            TIMESTAMPS, 4, 0, 0, 99, 3, 0, SACK, 6, 1, 1, 1, 1, MSS, 4, 5, 180,
        ];
        let options = Options::parse(&bytes);
        assert_eq!(options.mss, Some(1460));
        assert!(options.timestamps.is_none() && options.sack.is_empty());
        assert_eq!(
            Options::parse(&[WINDOW_SCALE, 3, 200]).window_scale,
            Some(14)
        );
        assert_eq!(Options::parse(&[MSS, 4, 0, 0]).mss, None);
    }
}

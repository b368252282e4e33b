//! The frames of a batch in memory: the length as a native-endian `u32`, that many bytes, of which
//! the first are a prefix, and zeros up to a multiple of four.

use std::io;

use crate::pages::Pages;

/// Bytes of the length before a frame.
pub(crate) const LENGTH: usize = 4;
/// Most bytes of one operation.
pub(crate) const MOST: usize = 1 << 20;

/// Bytes of a frame.
const fn size(len: usize) -> usize {
    LENGTH + len.next_multiple_of(4)
}

/// Frames that are to be written, each with a prefix of the same length.
#[derive(Debug)]
pub(crate) struct Writing {
    pages: Pages,
    prefix: usize,
    /// The frames that are not written yet are between these two.
    start: usize,
    end: usize,
    frames: usize,
    /// Bytes lent behind the last frame.
    lent: usize,
}

impl Writing {
    /// Room for so many bytes, at most 1 MiB, and for one frame of `least`.
    pub(crate) fn new(capacity: usize, prefix: usize, least: usize) -> Self {
        let least = size(prefix + least);
        Self {
            pages: Pages::new(capacity.clamp(least, MOST)),
            prefix,
            start: 0,
            end: 0,
            frames: 0,
            lent: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.frames
    }

    pub(crate) fn clear(&mut self) {
        (self.start, self.end, self.frames, self.lent) = (0, 0, 0, 0);
    }

    /// Where the bytes behind the prefix of the next frame begin.
    fn data(&self) -> usize {
        self.end + LENGTH + self.prefix
    }

    /// Room for the bytes behind the prefix of the next frame; `None` if there is none.
    pub(crate) fn lend(&mut self, len: usize) -> Option<&mut [u8]> {
        let start = self.data();
        // With its padding.
        let end = start.checked_add(len)?.checked_next_multiple_of(4)?;
        self.pages.get().get(start..end)?;
        self.lent = len;
        self.pages.get_mut().get_mut(start..start + len)
    }

    /// The first `len` of the bytes that were lent; `None` if that were fewer.
    pub(crate) fn lent(&self, len: usize) -> Option<&[u8]> {
        let start = self.data();
        let lent = self.pages.get().get(start..start + self.lent)?;
        lent.get(..len)
    }

    /// Adds the frame whose first `len` bytes behind the prefix were lent and written.
    pub(crate) fn commit(&mut self, prefix: &[u8], len: usize) {
        debug_assert!(prefix.len() == self.prefix && len <= self.lent);
        let (at, end) = (self.end, self.end + size(self.prefix + len));
        let whole = (self.prefix + len) as u32;
        let frame = &mut self.pages.get_mut()[at..end];
        frame[..LENGTH].copy_from_slice(&whole.to_ne_bytes());
        frame[LENGTH..LENGTH + prefix.len()].copy_from_slice(prefix);
        frame[LENGTH + prefix.len() + len..].fill(0);
        self.end = end;
        self.frames += 1;
        self.lent = 0;
    }

    /// Gives all frames to `write` at once, which takes all or none.
    pub(crate) fn write_whole(
        &mut self,
        write: impl Fn(&[u8]) -> io::Result<usize>,
    ) -> io::Result<()> {
        let rest = &self.pages.get()[self.start..self.end];
        if rest.is_empty() {
            return Ok(());
        }
        let written = loop {
            match write(rest) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                written => break written,
            }
        };
        self.clear();
        written.map(drop)
    }

    /// Gives all frames to `write`, which answers with how many bytes of frames it took, or with an
    /// error about the first. Such a frame is passed over, and the first of the errors is returned
    /// at the end; an error for which `stop` holds is returned at once, and the frames stay.
    pub(crate) fn write_all(
        &mut self,
        mut write: impl FnMut(&[u8]) -> io::Result<usize>,
        stop: impl Fn(&io::Error) -> bool,
    ) -> io::Result<()> {
        let mut first = Ok(());
        while self.start < self.end {
            let rest = &self.pages.get()[self.start..self.end];
            let taken = match write(rest) {
                Ok(taken) => taken,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if stop(&error) => return Err(error),
                Err(error) => {
                    first = first.and(Err(error));
                    0
                }
            };
            // What was refused is passed over, and so is the rest if something does not add up.
            let mut passed = 0;
            let mut left = self.frames;
            while passed < taken.max(1) {
                passed += first_size(&rest[passed..]).unwrap_or(rest.len() - passed);
                left = left.saturating_sub(1);
            }
            self.start += passed;
            self.frames = left;
        }
        self.clear();
        first
    }
}

/// Bytes of the first frame, with its length and padding.
fn first_size(frames: &[u8]) -> Option<usize> {
    let len = frames.first_chunk::<LENGTH>()?;
    let size = size(u32::from_ne_bytes(*len) as usize);
    (size <= frames.len()).then_some(size)
}

/// What the first frame carries.
pub(crate) fn first(frames: &[u8]) -> &[u8] {
    let len = frames
        .first_chunk::<LENGTH>()
        .copied()
        .map(u32::from_ne_bytes);
    let end = LENGTH + len.unwrap_or(0) as usize;
    frames.get(LENGTH..end).unwrap_or_default()
}

/// Frames that were read.
#[derive(Debug)]
pub(crate) struct Reading {
    pages: Pages,
    filled: usize,
}

impl Reading {
    /// Room for so many bytes, at least `least` and at most 1 MiB.
    pub(crate) fn new(capacity: usize, least: usize) -> Self {
        Self {
            pages: Pages::new(capacity.clamp(least, MOST)),
            filled: 0,
        }
    }

    /// Replaces the frames by those that `read` reads. Tries again when a signal interrupts it.
    pub(crate) fn read(
        &mut self,
        mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<()> {
        self.filled = 0;
        loop {
            match read(self.pages.get_mut()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(filled) => {
                    self.filled = filled.min(self.pages.get().len());
                    return Ok(());
                }
            }
        }
    }

    /// The frames.
    pub(crate) fn frames(&mut self) -> FramesMut<'_> {
        let filled = self.filled;
        FramesMut {
            rest: &mut self.pages.get_mut()[..filled],
        }
    }
}

/// Iterator over what the frames carry.
#[derive(Debug)]
pub(crate) struct FramesMut<'a> {
    rest: &'a mut [u8],
}

impl<'a> Iterator for FramesMut<'a> {
    type Item = &'a mut [u8];

    fn next(&mut self) -> Option<&'a mut [u8]> {
        let rest = std::mem::take(&mut self.rest);
        let (len, rest) = rest.split_first_chunk_mut::<LENGTH>()?;
        let len = usize::try_from(u32::from_ne_bytes(*len)).ok()?;
        let (frame, rest) = rest.split_at_mut_checked(len)?;
        let padding = len.next_multiple_of(4) - len;
        self.rest = rest.get_mut(padding..).unwrap_or_default();
        Some(frame)
    }
}

/// Writes the length of a frame of `len` bytes that stands at the start of `to`, and its padding.
/// Returns its size.
pub(crate) fn finish(to: &mut [u8], len: usize) -> usize {
    let end = size(len).min(to.len());
    to[..LENGTH].copy_from_slice(&(len as u32).to_ne_bytes());
    to[(LENGTH + len).min(end)..end].fill(0);
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writing(frames: &[&[u8]]) -> Writing {
        let mut writing = Writing::new(0, 2, 100);
        for frame in frames {
            writing.lend(frame.len()).unwrap().copy_from_slice(frame);
            writing.commit(b"p:", frame.len());
        }
        writing
    }

    fn text(frames: &[u8]) -> Vec<String> {
        let mut reading = Reading::new(0, 200);
        reading
            .read(|buf| {
                buf[..frames.len()].copy_from_slice(frames);
                Ok(frames.len())
            })
            .unwrap();
        let frames = reading.frames();
        frames
            .map(|frame| String::from_utf8(frame.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let mut writing = writing(&[b"one", b"", b"three"]);
        assert_eq!(writing.len(), 3);
        assert!(writing.lend(101).is_none(), "it is full");
        let mut seen = Vec::new();
        let write = |frames: &[u8]| {
            seen = text(frames);
            Ok(frames.len())
        };
        writing.write_all(write, |_| false).unwrap();
        assert_eq!(seen, ["p:one", "p:", "p:three"]);
        assert_eq!(writing.len(), 0);
        assert!(writing.lend(100).is_some());
        assert_eq!(writing.lent(101), None);
        assert_eq!(writing.lent(7).map(<[u8]>::len), Some(7));
    }

    #[test]
    fn what_is_refused_is_passed_over() {
        let mut writing = writing(&[b"one", b"bad", b"three", b"four"]);
        let mut seen = Vec::new();
        // As a write of datagrams does it: up to the first that cannot be sent.
        let write = |frames: &[u8]| {
            let texts = text(frames);
            let good = texts.iter().take_while(|text| *text != "p:bad");
            let good: Vec<_> = good.cloned().collect();
            let taken = good.iter().map(|text| size(text.len())).sum();
            seen.extend(good);
            match taken {
                0 => Err(io::ErrorKind::InvalidInput.into()),
                _ => Ok(taken),
            }
        };
        let error = writing.write_all(write, |_| false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(seen, ["p:one", "p:three", "p:four"]);
        assert_eq!(writing.len(), 0);
    }

    #[test]
    fn what_waits_stays() {
        let mut writing = writing(&[b"one", b"two"]);
        let full = |_: &io::Error| true;
        let mut calls = 0;
        let write = |frames: &[u8]| {
            calls += 1;
            match calls {
                1 => Err(io::ErrorKind::Interrupted.into()),
                2 => Ok(first_size(frames).unwrap()),
                _ => Err(io::ErrorKind::WouldBlock.into()),
            }
        };
        assert!(writing.write_all(write, full).is_err());
        assert_eq!((calls, writing.len()), (3, 1));
        let mut seen = Vec::new();
        let write = |frames: &[u8]| {
            seen = text(frames);
            Ok(frames.len())
        };
        writing.write_all(write, full).unwrap();
        assert_eq!(seen, ["p:two"]);
    }

    #[test]
    fn what_does_not_add_up_ends_the_frames() {
        for bad in [&[1, 0][..], &[0xff; 12], &[9, 0, 0, 0, b'x']] {
            assert_eq!(text(bad), [""; 0]);
        }
    }
}

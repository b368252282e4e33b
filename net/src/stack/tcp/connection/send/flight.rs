//! A segment that waits for its acknowledgment.

use core::time::Duration;

use super::super::seq::SeqNumber;

/// What is known of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Mark {
    /// It is on its way.
    InFlight,
    /// It did not arrive, and goes again.
    Lost,
    /// It arrived, beyond a hole.
    Sacked,
}

/// A segment that waits for its acknowledgment.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Flight {
    pub(in super::super) seq: SeqNumber,
    /// Numbers it takes: its text, and one for a FIN. Never zero.
    pub(in super::super) len: u32,
    pub(in super::super) mark: Mark,
    /// Whether it went more than once.
    pub(in super::super) resent: bool,
    /// Whether it carries the FIN.
    pub(in super::super) fin: bool,
    /// When it last went.
    pub(in super::super) sent: Duration,
    /// Bytes delivered on the connection when it last went, and when the last of them were.
    pub(in super::super) delivered: u32,
    pub(in super::super) delivered_at: Duration,
}

impl Flight {
    /// One past its last number.
    pub(in super::super) fn end(&self) -> SeqNumber {
        self.seq + self.len
    }

    /// Bytes of text.
    pub(in super::super) fn text(&self) -> u32 {
        self.len - u32::from(self.fin)
    }

    /// Its first `len` numbers, and the rest.
    pub(super) fn split(&self, len: u32) -> (Self, Self) {
        let len = len.min(self.len);
        let before = Self {
            len,
            fin: self.fin && len == self.len,
            ..*self
        };
        let after = Self {
            seq: self.seq + len,
            len: self.len - len,
            ..*self
        };
        (before, after)
    }

    /// Adds the one right behind.
    pub(super) fn join(&mut self, after: &Self) {
        self.len += after.len;
        self.fin |= after.fin;
    }

    /// Whether it was sent after another that ends at `end` (RFC 8985 section 6.2).
    pub(in super::super) fn is_after(&self, sent: Duration, end: SeqNumber) -> bool {
        self.sent > sent || (self.sent == sent && self.end() > end)
    }
}

//! Sequence numbers (RFC 9293 section 3.4).

use core::cmp::Ordering;
use core::ops::{Add, AddAssign, Sub};

/// A place in the stream of one direction. Numbers wrap: one is before another if it is less than
/// half of the space behind it, so only those of one window can be ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct SeqNumber(pub(crate) u32);

impl SeqNumber {
    /// Bytes from `earlier` to here; wraps if it is later.
    pub(crate) const fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// Bytes from `earlier` to here, or zero if it is later.
    pub(crate) fn past(self, earlier: Self) -> u32 {
        if self > earlier {
            self.since(earlier)
        } else {
            0
        }
    }

    /// The later of two.
    pub(crate) fn later(self, other: Self) -> Self {
        if other > self { other } else { self }
    }

    /// The earlier of two.
    pub(crate) fn earlier(self, other: Self) -> Self {
        if other < self { other } else { self }
    }
}

impl PartialOrd for SeqNumber {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.0.wrapping_sub(other.0).cast_signed().cmp(&0))
    }
}

impl Add<u32> for SeqNumber {
    type Output = Self;

    fn add(self, len: u32) -> Self {
        Self(self.0.wrapping_add(len))
    }
}

impl AddAssign<u32> for SeqNumber {
    fn add_assign(&mut self, len: u32) {
        *self = *self + len;
    }
}

impl Sub<u32> for SeqNumber {
    type Output = Self;

    fn sub(self, len: u32) -> Self {
        Self(self.0.wrapping_sub(len))
    }
}

#[cfg(test)]
mod tests {
    use super::SeqNumber;

    #[test]
    fn order_survives_the_wrap() {
        let (last, first) = (SeqNumber(u32::MAX), SeqNumber(0));
        assert!(last < first);
        assert!(first > last);
        assert_eq!(last + 1, first);
        assert_eq!(first - 1, last);
        assert_eq!(first.since(last), 1);
        assert_eq!(last.past(first), 0);
        assert_eq!(last.later(first), first);
        assert_eq!(last.earlier(first), last);
    }
}

//! The frames of a batch: the length as a native-endian `u32`, that many bytes, and zeros up to a
//! multiple of four.

/// Bytes of the length.
const LENGTH: usize = 4;

/// Bytes of a frame that carries `len`.
pub(crate) const fn size(len: usize) -> usize {
    LENGTH + len.next_multiple_of(4)
}

/// Writes the frame of these pieces, concatenated, over the whole of `to`, which has its
/// [size].
pub(crate) fn put(to: &mut [u8], pieces: &[&[u8]]) {
    let len: usize = pieces.iter().map(|piece| piece.len()).sum();
    let (length, mut to) = to.split_at_mut(LENGTH);
    length.copy_from_slice(&(len as u32).to_ne_bytes());
    for piece in pieces {
        let (at, rest) = to.split_at_mut(piece.len());
        at.copy_from_slice(piece);
        to = rest;
    }
    to.fill(0);
}

/// Takes the first frame off a batch, and returns what it carries. `None` at the end, and if the
/// first frame is not whole; then the batch is as it was.
pub(crate) fn take<'a>(batch: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, rest) = batch.split_first_chunk::<LENGTH>()?;
    let len = usize::try_from(u32::from_ne_bytes(*len)).ok()?;
    let frame = rest.get(..len)?;
    *batch = rest.get(len.next_multiple_of(4)..)?;
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_taken() {
        let mut batch = vec![0xee; size(5) + size(0) + size(8)];
        let (first, rest) = batch.split_at_mut(size(5));
        let (second, third) = rest.split_at_mut(size(0));
        put(first, &[b"ab", b"cde"]);
        put(second, &[]);
        put(third, &[b"12345678"]);
        assert_eq!(batch[9..12], [0; 3]);
        let mut rest = &batch[..];
        let mut next = || take(&mut rest).map(<[u8]>::to_vec);
        assert_eq!(next().as_deref(), Some(&b"abcde"[..]));
        assert_eq!(next().as_deref(), Some(&b""[..]));
        assert_eq!(next().as_deref(), Some(&b"12345678"[..]));
        assert_eq!(next(), None);
        assert!(rest.is_empty());
    }

    #[test]
    fn a_frame_that_is_not_whole_stays() {
        for bad in [&[1, 0][..], &[0xff; 12], &[5, 0, 0, 0, 1, 2, 3, 4, 5]] {
            let mut rest = bad;
            assert_eq!((take(&mut rest), rest), (None, bad));
        }
    }
}

//! Payloads of `recvmsg` and `sendmsg`, as relibc packs them: lengths are little-endian words of
//! eight bytes.

/// Bytes of a length.
const WORD: usize = 8;

/// The request of a `recvmsg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Whether the sender's name is wanted.
    pub(super) name: bool,
    /// Most bytes of data.
    pub(super) data: usize,
}

fn word(payload: &[u8], at: usize) -> Option<usize> {
    let bytes = payload.get(at..at + WORD)?.first_chunk()?;
    usize::try_from(u64::from_le_bytes(*bytes)).ok()
}

impl Wanted {
    /// Parses a request. `None` if it is too short, or has no room for its answer.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let name = word(payload, 0)? > 0;
        let room = payload.len().checked_sub(2 * WORD)?;
        let data = word(payload, WORD)?.min(room);
        Some(Self { name, data })
    }

    /// Writes the answer over the request: the name if it is wanted, the length of the datagram,
    /// and as much of its data as fits. Returns the number of bytes written; `None` if there is no
    /// room.
    pub(super) fn answer(self, payload: &mut [u8], name: &str, data: &[u8]) -> Option<usize> {
        let name = if self.name { name.as_bytes() } else { &[] };
        let fits = data.len().min(self.data);
        let total = 2 * WORD + name.len() + fits;
        let payload = payload.get_mut(..total)?;
        let (head, rest) = payload.split_at_mut(WORD);
        head.copy_from_slice(&(name.len() as u64).to_le_bytes());
        let (at, rest) = rest.split_at_mut(name.len());
        at.copy_from_slice(name);
        let (at, rest) = rest.split_at_mut(WORD);
        at.copy_from_slice(&(data.len() as u64).to_le_bytes());
        rest.copy_from_slice(&data[..fits]);
        Some(total)
    }
}

/// The data of a `sendmsg`; empty if it carries none. `None` if it is shorter than it says.
pub(super) fn sent(payload: &[u8]) -> Option<&[u8]> {
    match word(payload, 0) {
        Some(len) => payload.get(WORD..)?.get(..len),
        None => Some(&[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(name: u64, data: u64, room: usize) -> Vec<u8> {
        let mut payload = vec![0; 24 + room];
        payload[..8].copy_from_slice(&name.to_le_bytes());
        payload[8..16].copy_from_slice(&data.to_le_bytes());
        payload
    }

    #[test]
    fn the_answer_is_packed_without_gaps() {
        let mut payload = request(16, 4, 100);
        let wanted = Wanted::parse(&payload).unwrap();
        assert_eq!(
            wanted.answer(&mut payload, "abc", b"defgh"),
            Some(8 + 3 + 8 + 4)
        );
        assert_eq!(payload[..8], 3_u64.to_le_bytes());
        assert_eq!(&payload[8..11], b"abc");
        // The whole length, so that the reader sees that it lost some.
        assert_eq!(payload[11..19], 5_u64.to_le_bytes());
        assert_eq!(&payload[19..23], b"defg");
    }

    #[test]
    fn a_name_that_is_not_wanted_is_not_given() {
        let mut payload = request(0, 9, 100);
        let wanted = Wanted::parse(&payload).unwrap();
        assert_eq!(wanted.answer(&mut payload, "abc", b""), Some(16));
        assert_eq!(payload[..16], [0; 16]);
    }

    #[test]
    fn whatever_a_client_writes_is_in_bounds() {
        assert_eq!(Wanted::parse(&[0; 15]), None);
        let mut payload = request(u64::MAX, u64::MAX, 0);
        let wanted = Wanted::parse(&payload).unwrap();
        assert_eq!(wanted.answer(&mut payload, "abc", &[7; 100]), None);
        assert_eq!(sent(&[]), Some(&[][..]));
        assert_eq!(sent(&[255; 8]), None);
        assert_eq!(sent(&[1, 0, 0, 0, 0, 0, 0, 0, 42, 43]), Some(&[42][..]));
    }
}

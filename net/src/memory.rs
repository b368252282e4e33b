//! The memory that the queues of all sockets of one kind take together.

/// Most bytes.
const LIMIT: usize = 64 << 20;
/// Of these, how many are reserved for the superuser's sockets, so that nobody else can take what
/// they need.
const RESERVED: usize = 16 << 20;

/// Bytes in the queues of all sockets of one kind.
#[derive(Debug, Default)]
pub(super) struct Memory(usize);

impl Memory {
    /// Whether a queue of a socket of `uid` may grow by so many bytes.
    pub(super) fn has_room(&self, bytes: usize, uid: u32) -> bool {
        let limit = match uid {
            0 => LIMIT,
            _ => LIMIT - RESERVED,
        };
        self.0 + bytes <= limit
    }

    /// A queue grew by so many bytes.
    pub(super) fn take(&mut self, bytes: usize) {
        self.0 += bytes;
    }

    /// A queue shrank by so many bytes.
    pub(super) fn give_back(&mut self, bytes: usize) {
        self.0 -= bytes;
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bytes_are_the_superusers() {
        let mut memory = Memory::default();
        assert!(memory.has_room(LIMIT - RESERVED, 1000));
        memory.take(LIMIT - RESERVED);
        assert!(!memory.has_room(1, 1000) && memory.has_room(RESERVED, 0));
        memory.take(RESERVED);
        assert!(!memory.has_room(1, 0));
        memory.give_back(LIMIT);
        assert!(memory.is_empty() && memory.has_room(1, 1000));
    }
}

//! The memory that all things of one kind take together, such as the queues of sockets.

/// Most bytes.
pub(crate) const LIMIT: usize = 64 << 20;
/// Of these, how many are reserved for the superuser, so that nobody else can take what it needs.
pub(crate) const RESERVED: usize = 16 << 20;

/// Bytes that all things of one kind take.
#[derive(Debug, Default)]
pub(crate) struct Memory(usize);

impl Memory {
    /// Whether something of `uid` may grow by so many bytes.
    pub(crate) fn has_room(&self, bytes: usize, uid: u32) -> bool {
        let limit = match uid {
            0 => LIMIT,
            _ => LIMIT - RESERVED,
        };
        self.0 + bytes <= limit
    }

    /// Something grew by so many bytes.
    pub(crate) fn take(&mut self, bytes: usize) {
        self.0 += bytes;
    }

    /// Something shrank by so many bytes.
    pub(crate) fn give_back(&mut self, bytes: usize) {
        self.0 -= bytes;
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0 == 0
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.0
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

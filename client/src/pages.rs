//! Memory that begins on a page.

/// Bytes of a page.
const PAGE: usize = 4096;

/// Zeroed bytes, the first of which is the first of a page: the system then carries a whole MiB in
/// one operation, without a copy of the pages at both ends.
pub(crate) struct Pages {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Pages {
    pub(crate) fn new(len: usize) -> Self {
        let bytes = vec![0; len + PAGE];
        // Without a result for this, it is only slower.
        let start = match bytes.as_ptr().align_offset(PAGE) {
            start if start < PAGE => start,
            _ => 0,
        };
        Self { bytes, start, len }
    }

    pub(crate) fn get(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }

    pub(crate) fn get_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages").field("len", &self.len).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_on_a_page() {
        for len in [0, 1, 1 << 20] {
            let mut pages = Pages::new(len);
            assert_eq!(pages.get().len(), len);
            assert_eq!(pages.get_mut().as_ptr().addr() % PAGE, 0);
        }
    }
}

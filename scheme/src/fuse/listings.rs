//! The entries of each open directory. Offsets are indices into them, which must stay stable.

use std::collections::BTreeMap;

use crate::errno::{self, Errno};
use crate::server::{DirEntry, FileId};

/// Most entries of all open directories.
const MAX_ENTRIES: usize = 1 << 20;
/// Of these, how many are reserved for the superuser.
const RESERVED_ENTRIES: usize = 1 << 18;

#[derive(Debug, Default)]
pub(super) struct Listings {
    lists: BTreeMap<FileId, Vec<DirEntry>>,
    /// Entries of all lists.
    entries: usize,
}

impl Listings {
    /// Keeps the list of a directory, in place of an older one. `ENOBUFS` if all lists are too long.
    pub(super) fn keep(
        &mut self,
        file: FileId,
        list: Vec<DirEntry>,
        uid: u32,
    ) -> Result<(), Errno> {
        self.forget(file);
        let most = match uid {
            0 => MAX_ENTRIES,
            _ => MAX_ENTRIES - RESERVED_ENTRIES,
        };
        if self.entries + list.len() > most {
            return Err(errno::ENOBUFS);
        }
        self.entries += list.len();
        self.lists.insert(file, list);
        Ok(())
    }

    /// The list of a directory; empty if none is kept.
    pub(super) fn get(&self, file: FileId) -> &[DirEntry] {
        self.lists.get(&file).map_or(&[], Vec::as_slice)
    }

    /// The directory is closed.
    pub(super) fn forget(&mut self, file: FileId) {
        if let Some(list) = self.lists.remove(&file) {
            self.entries -= list.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::FileKind;

    #[test]
    fn all_lists_are_bounded_and_the_last_entries_are_the_superusers() {
        let entry = DirEntry {
            name: String::new(),
            kind: FileKind::Text,
        };
        let list = vec![entry; 1 << 16];
        let mut listings = Listings::default();
        let mut keep = |file, uid| listings.keep(FileId(file), list.clone(), uid);
        for file in 0..12 {
            assert_eq!(keep(file, 1000), Ok(()));
        }
        assert_eq!(keep(12, 1000), Err(errno::ENOBUFS));
        assert_eq!(keep(3, 1000), Ok(()), "in place of the old one");
        for file in 12..16 {
            assert_eq!(keep(file, 0), Ok(()));
        }
        assert_eq!(keep(16, 0), Err(errno::ENOBUFS));
        listings.forget(FileId(5));
        assert_eq!(
            (listings.get(FileId(5)).len(), listings.entries),
            (0, 15 << 16)
        );
    }
}

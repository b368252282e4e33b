//! Who watches a file, for an edge protocol such as Redox's `fevent`.
//!
//! A watcher is told once when something becomes possible, and is told again only after it was not
//! possible in between or after it asked anew. Asking answers with what is possible now, so that
//! no edge falls between the question and the watch.

use std::collections::BTreeMap;

use crate::server::{FileId, Ready};

/// What each watched file's watchers want to hear of.
#[derive(Debug, Default)]
pub struct Watches {
    masks: BTreeMap<FileId, Ready>,
}

impl Watches {
    /// Watches `file` for `mask` from now on, instead of for what was asked before. Empty ends it.
    /// Returns what to tell at once.
    #[must_use]
    pub fn arm(&mut self, file: FileId, mask: Ready, ready: Ready) -> Ready {
        if mask.is_empty() {
            self.masks.remove(&file);
        } else {
            self.masks.insert(file, mask);
        }
        ready & mask
    }

    /// What to tell the watchers of `file` when `risen` became possible; empty for nothing.
    #[must_use]
    pub fn post(&self, file: FileId, risen: Ready) -> Ready {
        self.masks.get(&file).copied().unwrap_or_default() & risen
    }

    /// Forgets a closed file.
    pub fn close(&mut self, file: FileId) {
        self.masks.remove(&file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_answers_the_present_state() {
        let mut watches = Watches::default();
        let file = FileId(3);
        assert_eq!(watches.post(file, Ready::READ), Ready::empty());
        assert_eq!(
            watches.arm(file, Ready::READ, Ready::READ | Ready::WRITE),
            Ready::READ
        );
        assert_eq!(watches.post(file, Ready::all()), Ready::READ);
        assert_eq!(
            watches.arm(file, Ready::empty(), Ready::READ),
            Ready::empty()
        );
        assert_eq!(watches.post(file, Ready::all()), Ready::empty());
    }
}

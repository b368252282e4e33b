//! The watchers of files, for an edge-triggered protocol such as Redox's `fevent`.
//!
//! A watcher is told once when something becomes possible, and is told again only after it was not
//! possible in between or after it asked anew. The answer to such a request is the present
//! readiness, so no edge is lost between the request and the watch.

use crate::server::{FileId, Ready};
use crate::table::Table;

/// The readiness that the watchers of each file want to be told of.
#[derive(Debug, Default)]
pub struct Watches {
    files: Table<Watch>,
}

#[derive(Debug)]
struct Watch {
    mask: Ready,
    /// The readiness they were told of, and have not used since.
    told: Ready,
}

impl Watches {
    /// Watches `file` for `mask` from now on, instead of the previous mask. An empty mask ends the
    /// watch. Returns the readiness to report at once.
    #[must_use]
    pub fn arm(&mut self, file: FileId, mask: Ready, ready: Ready) -> Ready {
        let told = ready & mask;
        if mask.is_empty() {
            self.files.remove(file.0);
        } else {
            self.files.insert(file.0, Watch { mask, told });
        }
        told
    }

    /// Whether this file has watchers.
    pub fn has(&self, file: FileId) -> bool {
        self.files.get(file.0).is_some()
    }

    /// The readiness to report to the watchers of `file` when `risen` became possible; empty for
    /// none.
    #[must_use]
    pub fn post(&mut self, file: FileId, risen: Ready) -> Ready {
        let Some(watch) = self.files.get_mut(file.0) else {
            return Ready::empty();
        };
        let news = watch.mask & risen & !watch.told;
        watch.told |= news;
        news
    }

    /// Notes that a request used readiness that the watchers were told of: they may be told again.
    pub fn used(&mut self, file: FileId, used: Ready) {
        if let Some(watch) = self.files.get_mut(file.0) {
            watch.told.remove(used);
        }
    }

    /// Forgets a closed file.
    pub fn close(&mut self, file: FileId) {
        self.files.remove(file.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn told_once_until_it_is_used_or_asked_anew() {
        let mut watches = Watches::default();
        let file = FileId(3);
        assert_eq!(
            watches.arm(file, Ready::READ, Ready::empty()),
            Ready::empty()
        );
        assert_eq!(watches.post(file, Ready::all()), Ready::READ);
        assert_eq!(watches.post(file, Ready::READ), Ready::empty());
        watches.used(file, Ready::READ);
        assert_eq!(watches.post(file, Ready::READ), Ready::READ);
        assert_eq!(watches.arm(file, Ready::READ, Ready::READ), Ready::READ);
        assert_eq!(watches.post(file, Ready::READ), Ready::empty());
    }

    #[test]
    fn asking_answers_the_present_state() {
        let mut watches = Watches::default();
        let file = FileId(3);
        assert_eq!(watches.post(file, Ready::READ), Ready::empty());
        assert_eq!(
            watches.arm(file, Ready::READ, Ready::READ | Ready::WRITE),
            Ready::READ
        );
        assert_eq!(watches.post(file, Ready::all()), Ready::empty());
        assert_eq!(
            watches.arm(file, Ready::empty(), Ready::READ),
            Ready::empty()
        );
        assert_eq!(watches.post(file, Ready::all()), Ready::empty());
    }
}

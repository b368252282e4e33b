//! Open files by number, and the readiness that rose on them.

use std::collections::VecDeque;

use scheme::errno::{self, Errno};
use scheme::{Caller, FileId, Ready, Wakeup};
use slab::Slab;

/// Most files open at once.
const MAX_FILES: usize = 65_536;
/// Of these, how many are reserved for the superuser.
const RESERVED_FILES: usize = 4096;

/// Every open file.
#[derive(Debug)]
pub(crate) struct Files<F> {
    slots: Slab<Slot<F>>,
    /// Serial number of the file that was made last.
    serial: u64,
}

#[derive(Debug)]
struct Slot<F> {
    file: F,
    /// Who opened it.
    opener: Caller,
    /// The serial number, which unlike the file's number is never used again.
    serial: u64,
}

/// A reference from one file to another, which may be closed meanwhile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    id: FileId,
    serial: u64,
}

impl<F> Files<F> {
    /// An empty table.
    pub(crate) fn new() -> Self {
        Self {
            slots: Slab::new(),
            serial: 0,
        }
    }

    /// The number of the next file that `uid` opens. `ENFILE` if there are too many: the last files
    /// are the superuser's, so that nobody else can lock everybody out.
    pub(crate) fn next_id(&self, uid: u32) -> Result<FileId, Errno> {
        let limit = match uid {
            0 => MAX_FILES,
            _ => MAX_FILES - RESERVED_FILES,
        };
        if self.slots.len() >= limit {
            return Err(errno::ENFILE);
        }
        let key = u32::try_from(self.slots.vacant_key());
        key.map(FileId).map_err(|_| errno::ENFILE)
    }

    /// Opens the file with the [next number](Self::next_id).
    pub(crate) fn insert(&mut self, file: F, opener: Caller) -> FileId {
        self.serial += 1;
        let slot = Slot {
            file,
            opener,
            serial: self.serial,
        };
        FileId(self.slots.insert(slot) as u32)
    }

    /// Who opened a file; `None` if there is none with this number.
    pub(crate) fn opener(&self, id: FileId) -> Option<Caller> {
        Some(self.slots.get(id.0 as usize)?.opener)
    }

    pub(crate) fn remove(&mut self, id: FileId) {
        self.slots.try_remove(id.0 as usize);
    }

    pub(crate) fn get(&self, id: FileId) -> Result<&F, Errno> {
        let slot = self.slots.get(id.0 as usize).ok_or(errno::EBADF)?;
        Ok(&slot.file)
    }

    pub(crate) fn get_mut(&mut self, id: FileId) -> Result<&mut F, Errno> {
        let slot = self.slots.get_mut(id.0 as usize).ok_or(errno::EBADF)?;
        Ok(&mut slot.file)
    }

    /// Makes a reference to a file.
    pub(crate) fn hold(&self, id: FileId) -> Result<Held, Errno> {
        let slot = self.slots.get(id.0 as usize).ok_or(errno::EBADF)?;
        let serial = slot.serial;
        Ok(Held { id, serial })
    }

    /// The file that a reference stands for; `EBADF` if it is closed, even if another file has its
    /// number now.
    pub(crate) fn held(&mut self, held: Held) -> Result<(FileId, &mut F), Errno> {
        let slot = self.slots.get_mut(held.id.0 as usize);
        let slot = slot.filter(|slot| slot.serial == held.serial);
        Ok((held.id, &mut slot.ok_or(errno::EBADF)?.file))
    }
}

/// Files that became readable or writable, in order.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    /// By file number: the readiness that has risen since the file was last [taken](Self::poll).
    risen: Vec<Ready>,
    queue: VecDeque<FileId>,
}

impl Wakes {
    /// Notes that something became possible on a file. The file is queued once, until it is
    /// [taken](Self::poll).
    pub(crate) fn wake(&mut self, id: FileId, ready: Ready) {
        let at = id.0 as usize;
        if at >= self.risen.len() {
            self.risen.resize(at + 1, Ready::empty());
        }
        let Some(risen) = self.risen.get_mut(at) else {
            return;
        };
        if risen.is_empty() {
            self.queue.push_back(id);
        }
        *risen |= ready;
    }

    /// The next file on which something became possible.
    #[must_use]
    pub(crate) fn poll(&mut self) -> Option<Wakeup> {
        loop {
            let file = self.queue.pop_front()?;
            let risen = self.risen.get_mut(file.0 as usize)?;
            let ready = std::mem::take(risen);
            if !ready.is_empty() {
                return Some(Wakeup { file, ready });
            }
        }
    }

    /// Forgets a closed file: nobody is left to be told.
    pub(crate) fn forget(&mut self, id: FileId) {
        if let Some(risen) = self.risen.get_mut(id.0 as usize) {
            *risen = Ready::empty();
        }
    }
}

#[cfg(test)]
mod tests {
    use scheme::Pid;

    use super::*;

    const ROOT: Caller = Caller {
        pid: Pid(1),
        uid: 0,
    };

    #[test]
    fn a_file_is_told_once_and_not_after_its_close() {
        let mut wakes = Wakes::default();
        wakes.wake(FileId(7), Ready::READ);
        wakes.wake(FileId(2), Ready::READ);
        wakes.wake(FileId(7), Ready::WRITE);
        let told = wakes.poll().map(|wakeup| (wakeup.file.0, wakeup.ready));
        assert_eq!(told, Some((7, Ready::all())));
        wakes.forget(FileId(2));
        assert_eq!(wakes.poll(), None);
    }

    #[test]
    fn the_last_files_are_the_superusers() {
        let mut files = Files::new();
        for _ in 0..MAX_FILES - RESERVED_FILES {
            files.next_id(1000).unwrap();
            files.insert((), ROOT);
        }
        assert_eq!(files.next_id(1000), Err(errno::ENFILE));
        assert!(files.next_id(0).is_ok());
        let held = files.hold(FileId(5)).unwrap();
        files.remove(FileId(5));
        assert_eq!(files.next_id(0), Ok(FileId(5)));
        files.insert((), ROOT);
        assert!(files.held(held).is_err());
    }
}

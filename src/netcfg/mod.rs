//! `netcfg`: interfaces, routes and settings as text files.
//!
//! One setting a line. A write that ends in a newline takes effect at once; an unfinished line waits
//! for the rest, for fsync, or for close. Everything a write says happens, or nothing: a line that
//! is refused leaves things as they were.
//!
//! - [`node`]: the tree of paths, and what is read from each;
//! - [`setting`]: what can be written, parsed whole before anything is done;
//! - this module: the open files, and who watches them.

mod node;
mod setting;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use scheme::errno::{self, Errno};
use scheme::{Caller, DirEntry, FileId, FileKind, OpenFlags, Ready, Stat};

use crate::net::{DIRECTORY, File, Net};
use node::Node;
use setting::Setting;

/// Most bytes of an unfinished line.
const LONGEST_LINE: usize = 4096;

/// Most lines that happen together.
const MOST_LINES: usize = 1024;
/// The same of routes, of which there may be many.
const MOST_ROUTES: usize = 1 << 16;
/// How things were before each line is kept until the last is done: so many addresses and routes.
const MOST_KEPT: usize = 1 << 18;
/// Counters change with every packet: who watches them hears of it not more often than this.
const COUNTERS: Duration = Duration::from_millis(100);

/// An open text file.
pub(crate) struct Handle {
    node: Node,
    /// The text as it was when the reader began at its start.
    snapshot: Option<String>,
    /// An unfinished line.
    pending: Vec<u8>,
    /// Whether somebody asked to hear of changes.
    watched: bool,
}

impl Handle {
    pub(crate) fn path(&self) -> String {
        format!("netcfg/{}", self.node.path())
    }

    pub(crate) fn stat(&self) -> Stat {
        stat(&self.node)
    }
}

fn stat(node: &Node) -> Stat {
    Stat {
        kind: FileKind::Text,
        mode: if node.is_writable() { 0o644 } else { 0o444 },
        size: 0,
    }
}

/// Open files whose next change somebody wants to hear of. Their texts are compared only when
/// something happened that can have changed them: packets pay nothing for who watches.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    /// Of what only settings change.
    settings: BTreeSet<FileId>,
    /// Of what packets change.
    counters: BTreeSet<FileId>,
    /// Rises with every change that the generation of the routing table does not show.
    changes: u64,
    /// Generation of what `settings` were last compared with.
    compared: u64,
    /// When `counters` are compared again, at the earliest.
    due: Duration,
    /// Whether they may have changed since they were compared.
    stale: bool,
}

impl Watchers {
    /// A setting may have changed.
    pub(crate) fn touch(&mut self) {
        self.changes += 1;
    }

    /// When there is something to compare.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.stale.then_some(self.due)
    }
}

impl Net {
    pub(crate) fn netcfg_list(&self, path: &str) -> Result<Vec<DirEntry>, Errno> {
        node::list(self, path).ok_or(errno::ENOTDIR)
    }

    pub(crate) fn netcfg_stat(&self, path: &str) -> Result<Stat, Errno> {
        if node::list(self, path).is_some() {
            return Ok(DIRECTORY);
        }
        Node::parse(self, path)
            .map(|node| stat(&node))
            .ok_or(errno::ENOENT)
    }

    pub(crate) fn netcfg_open(
        &mut self,
        path: &str,
        flags: OpenFlags,
        caller: Caller,
    ) -> Result<FileId, Errno> {
        let node = Node::parse(self, path).ok_or(errno::ENOENT)?;
        let writes = flags.intersects(OpenFlags::WRITE | OpenFlags::TRUNCATE);
        if writes && (caller.uid != 0 || !node.is_writable()) {
            return Err(errno::EACCES);
        }
        self.add_file(File::Text(Handle {
            node,
            snapshot: None,
            pending: Vec::new(),
            watched: false,
        }))
    }

    fn text(&mut self, id: FileId) -> Result<&mut Handle, Errno> {
        match self.file_mut(id)? {
            File::Text(handle) => Ok(handle),
            _ => Err(errno::EBADF),
        }
    }

    pub(crate) fn netcfg_read(
        &mut self,
        id: FileId,
        buf: &mut [u8],
        offset: u64,
    ) -> Result<usize, Errno> {
        let handle = self.text(id)?;
        // Whoever begins anew sees anew; whoever reads on sees the same text to its end.
        if offset == 0 || handle.snapshot.is_none() {
            let node = handle.node.clone();
            let text = node.read(self).ok_or(errno::ENOENT)?;
            let handle = self.text(id)?;
            handle.snapshot = Some(text);
            if handle.watched {
                // What it was told of is used: it hears of the next change without asking again.
                self.netcfg_await(id);
            }
        }
        let text = self.text(id)?.snapshot.as_deref().unwrap_or_default();
        let at = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(text.len());
        let rest = &text.as_bytes()[at..];
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    pub(crate) fn netcfg_write(&mut self, id: FileId, buf: &[u8]) -> Result<usize, Errno> {
        let handle = self.text(id)?;
        let mut text = std::mem::take(&mut handle.pending);
        text.extend_from_slice(buf);
        let finished = text
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |at| at + 1);
        let pending = text.split_off(finished);
        if pending.len() > LONGEST_LINE {
            return Err(errno::EINVAL);
        }
        if !text.is_empty() {
            self.netcfg_commit(id, &text)?;
        }
        self.text(id)?.pending = pending;
        Ok(buf.len())
    }

    /// Takes what is pending as a line.
    pub(crate) fn netcfg_sync(&mut self, id: FileId) -> Result<(), Errno> {
        let pending = std::mem::take(&mut self.text(id)?.pending);
        if pending.is_empty() {
            return Ok(());
        }
        self.netcfg_commit(id, &pending)
    }

    pub(crate) fn netcfg_close(&mut self, id: FileId) {
        // Nobody is left to hear of an error.
        if let Err(error) = self.netcfg_sync(id) {
            log::debug!("netcfg: line refused at close: {error}");
        }
        self.watchers.settings.remove(&id);
        self.watchers.counters.remove(&id);
    }

    /// Does what the lines say, all of it or nothing.
    fn netcfg_commit(&mut self, id: FileId, text: &[u8]) -> Result<(), Errno> {
        self.watchers.touch();
        let node = self.text(id)?.node.clone();
        let text = std::str::from_utf8(text).map_err(|_| errno::EINVAL)?;
        let most = match node {
            Node::RouteAdd | Node::RouteRm => MOST_ROUTES,
            _ => MOST_LINES,
        };
        if text.lines().count() > most {
            return Err(errno::ENOSPC);
        }
        let parse = |line: &str| Setting::parse(&node, line).ok_or(errno::EINVAL);
        let settings: Vec<_> = text.lines().map(parse).collect::<Result<_, _>>()?;
        // What cannot be put back stands alone.
        if settings.len() > 1 && settings.iter().any(Setting::is_final) {
            return Err(errno::EINVAL);
        }
        // All lines are for one file, so for one interface.
        let dev = settings.first().and_then(Setting::interface);
        let dev = dev.and_then(|name| self.ifs.by_name(name));
        let mut change = dev.map(|dev| self.change(dev));
        let count = settings.len();
        let (mut done, mut kept) = (Vec::with_capacity(count), 0);
        for setting in settings {
            let refused = match self.apply(setting) {
                Ok(undo) => {
                    kept += undo.weight();
                    done.push(undo);
                    if let Some(change) = &mut change {
                        self.note(change);
                    }
                    // The last one is never undone.
                    (kept > MOST_KEPT && done.len() < count).then_some(errno::ENOSPC)
                }
                Err(error) => Some(error),
            };
            if let Some(error) = refused {
                done.into_iter().rev().for_each(|undo| self.undo(undo));
                return Err(error);
            }
        }
        if let Some(change) = change {
            self.announce_change(change);
        }
        Ok(())
    }

    /// Readable when the text is not what was last read; writable always.
    pub(crate) fn netcfg_ready(&mut self, id: FileId) -> Ready {
        self.stir();
        if let Ok(handle) = self.text(id) {
            handle.watched = true;
        }
        if self.netcfg_changed(id) {
            return Ready::all();
        }
        self.netcfg_await(id);
        Ready::WRITE
    }

    /// Somebody wants to hear of the next change.
    fn netcfg_await(&mut self, id: FileId) {
        let counts = self.text(id).is_ok_and(|handle| handle.node.counts());
        let watchers = match counts {
            true => &mut self.watchers.counters,
            false => &mut self.watchers.settings,
        };
        watchers.insert(id);
    }

    fn netcfg_changed(&mut self, id: FileId) -> bool {
        let Ok(handle) = self.text(id) else {
            return false;
        };
        let (node, seen) = (handle.node.clone(), handle.snapshot.take());
        let changed = seen.is_none() || node.read(self) != seen;
        if let Ok(handle) = self.text(id) {
            handle.snapshot = seen;
        }
        changed
    }

    /// Counters changed outside of a turn: the next looks whether somebody watches them.
    #[inline]
    pub(crate) fn netcfg_counted(&mut self) {
        if !self.watchers.counters.is_empty() {
            self.stir();
        }
    }

    /// Wakes those whose text has changed. They are told once, and again after they read or asked.
    pub(crate) fn netcfg_watch(&mut self) {
        let generation = self.watchers.changes + self.routes.generation();
        if std::mem::replace(&mut self.watchers.compared, generation) != generation {
            let told = self.netcfg_changed_of(&self.watchers.settings);
            self.watchers.settings.retain(|id| !told.contains(id));
            told.into_iter().for_each(|id| self.wake(id, Ready::READ));
        }
        let now = self.now.monotonic;
        self.watchers.stale = !self.watchers.counters.is_empty() && now < self.watchers.due;
        if !self.watchers.stale && !self.watchers.counters.is_empty() {
            self.watchers.due = now + COUNTERS;
            let told = self.netcfg_changed_of(&self.watchers.counters);
            self.watchers.counters.retain(|id| !told.contains(id));
            told.into_iter().for_each(|id| self.wake(id, Ready::READ));
        }
    }

    /// Which of these have another text than they last saw. Each text is made once.
    fn netcfg_changed_of(&self, watchers: &BTreeSet<FileId>) -> BTreeSet<FileId> {
        let mut texts = BTreeMap::new();
        let changed = |id: &&FileId| match self.file(**id) {
            Ok(File::Text(Handle { node, snapshot, .. })) => {
                let text = texts.entry(node).or_insert_with(|| node.read(self));
                snapshot.is_none() || *text != *snapshot
            }
            _ => false,
        };
        watchers.iter().filter(changed).copied().collect()
    }
}

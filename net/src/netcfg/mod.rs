//! `netcfg`: interfaces, routes and settings as text files.
//!
//! Each line is one setting. A write that ends in a newline takes effect at once; an unfinished
//! line waits for the rest, for fsync, or for close. A write is applied as a whole or not at all: a
//! line that is refused leaves everything as it was.
//!
//! - [`node`]: the tree of paths, and the text of each file;
//! - [`setting`]: lines that can be written, and how they are parsed;
//! - [`apply`]: applying them, one by one;
//! - [`undo`]: undoing them if one is refused, and announcing them if none was;
//! - [`sockets`]: the list of sockets, which is no setting;
//! - [`texts`]: the texts that readers have begun, each kept once;
//! - [`watched`]: the files whose next change a program waits for;
//! - [`lookup`]: the file that says which route an address has;
//! - [`events`]: the files that tell what changes at an interface;
//! - [`state`]: everything that was set, as the lines that set it again on another host;
//! - this module: open files, and watching them for changes.

mod apply;
mod events;
mod lookup;
mod node;
mod setting;
mod sockets;
mod state;
mod texts;
mod undo;
mod watched;

use std::sync::Arc;
use std::time::Duration;

use scheme::errno::{self, Errno};
use scheme::{Caller, DirEntry, FileId, FileKind, OpenFlags, Ready, Stat};

use crate::files::Wakes;
use crate::ifnet::IfIndex;
use crate::ip::Ip;
use crate::memory::Memory;
use crate::net::Net;
use node::{IfNode, Node};
use setting::Setting;
pub(crate) use sockets::Listing;
pub(crate) use state::Keeper;
pub use state::MAX_STATE;
use texts::Texts;
use undo::Change;
use watched::Watched;

pub(crate) use events::Events;
pub(crate) use lookup::Lookup;

/// Most bytes of an unfinished line.
const LONGEST_LINE: usize = 4096;

/// Most lines of one write.
const MOST_LINES: usize = 1024;
/// Most lines of one write of routes, of which there may be many.
const MOST_ROUTES: usize = 1 << 16;
/// Most addresses and routes saved to undo the lines of one write.
const MOST_KEPT: usize = 1 << 18;
/// Counters change with every packet. A watcher is told of that at most once in this time.
const COUNTERS: Duration = Duration::from_millis(100);

/// The path of the list of sockets, below `netcfg/`, which is [opened](open_sockets) apart.
pub(crate) const SOCKETS: &str = "sockets";

/// The answer of `stat` for a text that nobody may write.
pub(crate) const READ_ONLY: Stat = text(0o444);

/// An open text file.
pub(crate) struct Handle {
    node: Node,
    /// The user that opened it.
    uid: u32,
    /// The text as it was when the reader began at its start.
    snapshot: Option<Arc<str>>,
    /// An unfinished line.
    pending: Vec<u8>,
    /// Whether a line was applied since the writer was at the start.
    written: bool,
    /// Whether a program asked to be told of changes.
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

/// The answer of `stat` for `route/lookup`.
pub(crate) const LOOKUP: Stat = text(0o666);
/// The answer of `stat` for a file of events.
pub(crate) const EVENTS: Stat = Stat {
    kind: FileKind::Stream,
    ..text(0o444)
};

const fn text(mode: u16) -> Stat {
    Stat {
        kind: FileKind::Text,
        mode,
        size: 0,
    }
}

fn stat(node: &Node) -> Stat {
    match node {
        Node::RouteLookup => LOOKUP,
        Node::Interface(_, IfNode::Events) => EVENTS,
        _ if node.is_writable() => text(0o644),
        _ => READ_ONLY,
    }
}

/// Describes what a path below `netcfg` leads to; `None` for a directory.
pub(crate) fn stat_path(net: &Net, path: &str) -> Result<Option<Stat>, Errno> {
    if node::is_directory(net, path) {
        return Ok(None);
    }
    let node = Node::parse(net, path).ok_or(errno::ENOENT)?;
    Ok(Some(stat(&node)))
}

/// The entries of a directory below `netcfg`.
pub(crate) fn list(net: &Net, path: &str) -> Result<Vec<DirEntry>, Errno> {
    node::list(net, path).ok_or(errno::ENOTDIR)
}

/// A file that was opened, by its kind.
pub(crate) enum Opened {
    Text(Handle),
    Lookup(Lookup),
    /// The events of this interface.
    Events(IfIndex),
}

/// Opens a file. Every user may read, and ask for a route; only the superuser may write anything
/// else: `EACCES` otherwise.
pub(crate) fn open(
    net: &Net,
    path: &str,
    flags: OpenFlags,
    caller: Caller,
) -> Result<Opened, Errno> {
    let node = Node::parse(net, path).ok_or(errno::ENOENT)?;
    if node == Node::RouteLookup {
        return Ok(Opened::Lookup(Lookup::default()));
    }
    let writes = flags.intersects(OpenFlags::WRITE | OpenFlags::TRUNCATE);
    if writes && (caller.uid != 0 || !node.is_writable()) {
        return Err(errno::EACCES);
    }
    if let Node::Interface(name, IfNode::Events) = &node {
        let dev = net.ip.ifs.by_name(name).ok_or(errno::ENOENT)?;
        return Ok(Opened::Events(dev));
    }
    Ok(Opened::Text(Handle {
        node,
        uid: caller.uid,
        snapshot: None,
        pending: Vec::new(),
        written: false,
        watched: false,
    }))
}

/// Opens the list of sockets, which nobody may write: `EACCES`.
pub(crate) fn open_sockets(flags: OpenFlags, caller: Caller) -> Result<Listing, Errno> {
    if flags.intersects(OpenFlags::WRITE | OpenFlags::TRUNCATE) {
        return Err(errno::EACCES);
    }
    Ok(Listing::new(caller.uid))
}

impl Handle {
    /// Reads the text from `offset`, as it was when the reader was at its start. `ENOBUFS` if the
    /// texts of all readers take too much memory.
    pub(crate) fn read(
        &mut self,
        net: &Net,
        watchers: &mut Watchers,
        id: FileId,
        buf: &mut [u8],
        offset: u64,
    ) -> Result<usize, Errno> {
        // A reader at the start sees the current text. A reader that continues sees the same text
        // to its end.
        if offset == 0 || self.snapshot.is_none() {
            watchers.unwatch(self, id);
            watchers
                .texts
                .release(net, &self.node, self.snapshot.take());
            self.snapshot = Some(watchers.texts.read(net, &self.node, self.uid)?);
            if self.watched {
                // The reader has seen the change that it was told of. It is told of the next
                // without asking again.
                watchers.watch(self, id);
            }
        }
        let text = self.snapshot.as_deref().unwrap_or_default();
        let at = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(text.len());
        let rest = &text.as_bytes()[at..];
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    /// Applies the lines that are finished with a newline, and keeps the rest.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a line that cannot be parsed, is refused or is too long, and for a second one
    /// where there is one value only; `ENOBUFS` if the unfinished lines of all writers take too much
    /// memory.
    pub(crate) fn write(
        &mut self,
        net: &mut Net,
        watchers: &mut Watchers,
        buf: &[u8],
        offset: u64,
    ) -> Result<usize, Errno> {
        // A writer at the start writes another text.
        self.written &= offset > 0;
        let mut text = self.take_pending(watchers);
        text.extend_from_slice(buf);
        let finished = text
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |at| at + 1);
        let mut pending = text.split_off(finished);
        pending.shrink_to_fit();
        if pending.len() > LONGEST_LINE {
            return Err(errno::EINVAL);
        }
        if !watchers.lines.has_room(pending.capacity(), self.uid) {
            return Err(errno::ENOBUFS);
        }
        if !text.is_empty() {
            self.commit(net, &text)?;
        }
        watchers.lines.take(pending.capacity());
        self.pending = pending;
        Ok(buf.len())
    }

    fn take_pending(&mut self, watchers: &mut Watchers) -> Vec<u8> {
        watchers.lines.give_back(self.pending.capacity());
        std::mem::take(&mut self.pending)
    }

    /// Applies the unfinished line.
    pub(crate) fn sync(&mut self, net: &mut Net, watchers: &mut Watchers) -> Result<(), Errno> {
        let pending = self.take_pending(watchers);
        if pending.is_empty() {
            return Ok(());
        }
        self.commit(net, &pending)
    }

    /// Applies lines.
    fn commit(&mut self, net: &mut Net, text: &[u8]) -> Result<(), Errno> {
        // A program that writes one value behind another hears that only one is kept. Name servers
        // are written as lists, of which a shell may make a write each; a switch is turned again by
        // who has it open.
        let lines = text.split_inclusive(|&byte| byte == b'\n').count();
        let behind = self.written && self.node == Node::Nameserver;
        if behind || (lines > 1 && self.node.is_one_value()) {
            return Err(errno::EINVAL);
        }
        commit(net, &self.node, text)?;
        self.written = true;
        Ok(())
    }

    pub(crate) fn close(&mut self, net: &mut Net, watchers: &mut Watchers, id: FileId) {
        // Nobody is left who could be told of an error.
        if let Err(error) = self.sync(net, watchers) {
            log::debug!("netcfg: line refused at close: {error}");
        }
        watchers.unwatch(self, id);
        watchers
            .texts
            .release(net, &self.node, self.snapshot.take());
    }

    /// Readable when the text has changed since it was last read; writable always. After this call
    /// the file is told of the next change.
    pub(crate) fn ready(&mut self, net: &Net, watchers: &mut Watchers, id: FileId) -> Ready {
        self.watched = true;
        if self.snapshot.is_none() || watchers.texts.present(net, &self.node) != self.snapshot {
            return Ready::all();
        }
        watchers.watch(self, id);
        Ready::WRITE
    }
}

/// Applies all the lines, or if one is refused, none.
fn commit(net: &mut Net, node: &Node, text: &[u8]) -> Result<(), Errno> {
    net.ip.ifs.touch();
    let text = std::str::from_utf8(text).map_err(|_| errno::EINVAL)?;
    let most = match node {
        Node::RouteAdd | Node::RouteRm => MOST_ROUTES,
        _ => MOST_LINES,
    };
    if text.lines().count() > most {
        return Err(errno::ENOSPC);
    }
    let parse = |line: &str| Setting::parse(node, line).ok_or(errno::EINVAL);
    let settings: Vec<_> = text.lines().map(parse).collect::<Result<_, _>>()?;
    // A setting that cannot be undone must be the only one.
    if settings.len() > 1 && settings.iter().any(Setting::is_final) {
        return Err(errno::EINVAL);
    }
    // All lines are for one file, and so for one interface.
    let dev = settings.first().and_then(Setting::interface);
    let dev = dev.and_then(|name| net.ip.ifs.by_name(name));
    let mut change = dev.map(|dev| Change::new(&net.ip, dev));
    // Only now it is known which addresses stay.
    let forget = |net: &mut Net| {
        if let Some(dev) = dev {
            net.ip.forget_places(dev);
        }
    };
    let count = settings.len();
    let (mut done, mut kept) = (Vec::with_capacity(count), 0);
    for setting in settings {
        let refused = match setting.apply(net) {
            Ok(undo) => {
                kept += undo.weight();
                done.push(undo);
                if let Some(change) = &mut change {
                    change.note(&net.ip);
                }
                // The last one is never undone.
                (kept > MOST_KEPT && done.len() < count).then_some(errno::ENOSPC)
            }
            Err(error) => Some(error),
        };
        if let Some(error) = refused {
            done.into_iter().rev().for_each(|undo| undo.undo(net));
            forget(net);
            return Err(error);
        }
    }
    forget(net);
    if let Some(change) = change {
        change.announce(net);
    }
    Ok(())
}

/// Open files whose next change a program waits for. Their texts are compared only after an event
/// that can have changed them, so watchers do not slow down packets.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    /// Files whose text changes only with settings.
    settings: Watched,
    /// Files whose text also changes with packets.
    counters: Watched,
    /// The generation at which `settings` were last compared.
    compared: u64,
    /// The earliest time at which `counters` are compared again.
    due: Duration,
    /// Whether `counters` may have changed since then.
    stale: bool,
    /// The texts that files were read as, which they are compared with.
    texts: Texts,
    /// Bytes of the unfinished lines of all writers.
    lines: Memory,
}

impl Watchers {
    /// The time of the next comparison; `None` if nothing has changed.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.stale.then_some(self.due)
    }

    /// Whether a program waits for changes of counters.
    #[inline]
    pub(crate) fn counted(&self) -> bool {
        !self.counters.is_empty()
    }

    /// The files that wait for changes as this one does.
    fn watched(&mut self, handle: &Handle) -> &mut Watched {
        match handle.node.counts() {
            true => &mut self.counters,
            false => &mut self.settings,
        }
    }

    /// Watches for the next change of a file, which was read.
    fn watch(&mut self, handle: &Handle, id: FileId) {
        if let Some(text) = &handle.snapshot {
            self.watched(handle).add(&handle.node, text, id);
        }
    }

    fn unwatch(&mut self, handle: &Handle, id: FileId) {
        if handle.watched {
            self.watched(handle).remove(&handle.node, id);
        }
    }

    /// Wakes files whose text has changed. Each is told once, and again after it was read or
    /// polled.
    pub(crate) fn run(&mut self, net: &Net, wakes: &mut Wakes) {
        let now = net.ip.now.monotonic;
        self.texts.expire(now);
        let texts = &mut self.texts;
        if std::mem::replace(&mut self.compared, generation(&net.ip)) != generation(&net.ip) {
            self.settings.tell(wakes, |node| texts.present(net, node));
        }
        self.stale = !self.counters.is_empty() && now < self.due;
        if !self.stale && !self.counters.is_empty() {
            self.due = now + COUNTERS;
            self.counters.tell(wakes, |node| texts.present(net, node));
        }
    }
}

/// Grows with every change that files show, counters not included.
fn generation(ip: &Ip) -> u64 {
    ip.ifs.generation() + ip.routes.generation()
}

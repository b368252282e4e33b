//! A file server as redox-scheme sees it.
//!
//! - `operation`: requests that may wait: read, write, dup, call.
//! - `immediate`: requests that never do.

mod immediate;
mod operation;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use redox_scheme::scheme::{IntoTag, Op, SchemeResponse, SchemeState};
use redox_scheme::{CallerCtx, Id, OpenResult, Response};
use syscall::error::{Error, Result};
use syscall::flag::EventFlags;

use self::immediate::OneScheme;
use self::operation::respond;
use crate::dispatch::{Answer, Dispatch, Life, Request};
use crate::errno::{self, Errno};
use crate::readiness::Watches;
use crate::server::{
    Caller, DirEntry, FileId, FileKind, FileServer, Now, Pid, Ready, Stat, Turn, Wakeup,
};
use crate::table::Table;

/// The handle number of a scheme's root.
pub const ROOT: usize = 0;
/// The first handle number of files, one after the root.
const FIRST_FILE: usize = 1;
/// The first number of handles that are only used for stat: above any number of open files, on a
/// machine of 32 bits too.
const FIRST_STAT_HANDLE: usize = 1 << (usize::BITS - 8);
/// Most of these handles at a time.
const MAX_STAT_HANDLES: usize = 65_536;
/// Of these, how many are reserved for the superuser, so that nobody else can lock everybody out.
const RESERVED_STAT_HANDLES: usize = 4096;
/// Most entries of directories that are kept for their readers.
const MAX_LISTED: usize = 1 << 17;

/// Who made a request within this time is taken to be alive, unless the handle is seen to be shared:
/// whether it is so is found out by calls that take longer, and would be made for every packet of a
/// conversation.
const FRESH: Duration = Duration::from_millis(1);

/// A server behind any number of schemes.
pub struct SchemeFront<S> {
    /// The server and the requests that wait for it.
    pub dispatch: Dispatch<S, Op>,
    names: Vec<&'static str>,
    open: Table<OpenFile>,
    watches: Watches,
    /// The highest number of a process that made a request.
    newest: Pid,
    stat_handles: BTreeMap<usize, StatHandle>,
    next_stat_handle: usize,
    /// The entries of directories that are being read, as they were at the start.
    listings: BTreeMap<FileId, Vec<DirEntry>>,
    /// The number of these entries.
    listed: usize,
    /// Kept from turn to turn, so that its memory is reused.
    answers: Vec<Answer<Op>>,
    edges: Vec<(FileId, Ready)>,
}

impl<S: FileServer> SchemeFront<S> {
    /// Serves `server` under these names of schemes.
    pub fn new(server: S, names: &[&'static str]) -> Self {
        Self {
            dispatch: Dispatch::new(server),
            names: names.to_vec(),
            open: Table::default(),
            watches: Watches::default(),
            newest: Pid(0),
            stat_handles: BTreeMap::new(),
            next_stat_handle: FIRST_STAT_HANDLE,
            listings: BTreeMap::new(),
            listed: 0,
            answers: Vec::new(),
            edges: Vec::new(),
        }
    }

    /// Handles a request to a scheme, whose locks are in `state`. Responses are added to `out`; a
    /// request that waits is answered later by [`turn`](Self::turn), [`cancel`](Self::cancel) or
    /// [`close`](Self::close).
    ///
    /// `asked` tells whether the server asked for something that has to be found out first. Then
    /// nothing was done, and the request is returned, to be handled again.
    pub fn handle(
        &mut self,
        scheme: usize,
        state: &mut SchemeState,
        mut op: Op,
        ctx: &CallerCtx,
        out: &mut Vec<Outgoing>,
        asked: impl FnOnce() -> bool,
    ) -> Option<Op> {
        let user = caller(ctx, false).pid;
        self.newest = self.newest.max(user);
        let target = op.file_id().and_then(|number| file(number).ok());
        if let Some(open) = target.and_then(|file| self.open.get_mut(file.0)) {
            open.shared |= open.user != user;
        }
        if let (Some(file), Op::Read(_) | Op::Write(_) | Op::Dup(_) | Op::Call(_)) = (target, &op) {
            return self.submit(scheme, file, op, ctx, out, asked);
        }
        let mut one = OneScheme {
            front: self,
            scheme,
        };
        let mut after = AfterSend::Nothing;
        let response = match op.handle_sync_dont_consume(ctx, &mut one, state) {
            SchemeResponse::Opened(Err(_)) if asked() => return Some(op),
            SchemeResponse::Opened(opened) => {
                if let Ok(OpenResult::ThisScheme { number, .. }) = &opened {
                    after = AfterSend::CloseIfRefused(*number);
                }
                Response::open_dup_like(opened, op)
            }
            SchemeResponse::Regular(result) => Response::new(result, op),
            SchemeResponse::RegularAndNotifyOnDetach(result) => {
                Response::new_notify_on_detach(result, op)
            }
        };
        out.push(Outgoing {
            scheme,
            response,
            after,
        });
        None
    }

    fn submit(
        &mut self,
        scheme: usize,
        file: FileId,
        op: Op,
        ctx: &CallerCtx,
        out: &mut Vec<Outgoing>,
        asked: impl FnOnce() -> bool,
    ) -> Option<Op> {
        // For reads and writes the kernel passes the flag itself.
        let silent = !matches!(op, Op::Read(_) | Op::Write(_));
        let nonblocking = self.open.get(file.0).is_some_and(|open| open.nonblocking);
        let request = Request {
            tag: (scheme, op.req_id()),
            file,
            caller: caller(ctx, !matches!(op, Op::Call(_))),
            nonblocking: op.is_explicitly_nonblock() || (silent && nonblocking),
            operation: op,
        };
        let answer = self.dispatch.submit(request)?;
        if asked() {
            return Some(answer.request.operation);
        }
        self.answer(answer, out);
        None
    }

    /// Ends the wait of a caller that was interrupted by a signal, unless it was answered already.
    pub fn cancel(&mut self, scheme: usize, id: Id, out: &mut Vec<Outgoing>) {
        if let Some(answer) = self.dispatch.cancel((scheme, id), errno::ECANCELED) {
            self.answer(answer, out);
        }
    }

    /// Handles the close of the last descriptor of a handle.
    pub fn close(&mut self, number: usize, out: &mut Vec<Outgoing>) {
        if self.stat_handles.remove(&number).is_some() {
            return;
        }
        let Ok(file) = file(number) else {
            return;
        };
        self.watches.close(file);
        self.open.remove(file.0);
        self.forget_listing(file);
        for answer in self.dispatch.close(file) {
            self.answer(answer, out);
        }
    }

    /// Runs [`Dispatch::turn`]. The kernel does not report a waiter that was killed while another
    /// process has the handle, so some are not given anything before it is known whether they live:
    /// see [`take_held`](Self::take_held).
    pub fn turn(&mut self, now: Now, out: &mut Vec<Outgoing>) -> Turn {
        let serve = |dispatch: &mut Dispatch<S, Op>, parts: Parts<'_>| {
            let life = |request: &Request<Op>, waited| match parts.open.get(request.file.0) {
                Some(open) if open.shared || (open.precious && waited > FRESH) => Life::Unknown,
                _ => Life::Alive,
            };
            let answer = |answer, _: &mut S, (): &()| parts.answers.push(answer);
            let watched = |file| parts.watches.has(file);
            dispatch.turn(now, answer, parts.edges, life, watched)
        };
        self.serve(serve, out)
    }

    /// Takes the files that were woken, and for whose waiters it has to be found out first whether
    /// they live. They are then [released](Self::release).
    pub fn take_held(&mut self) -> Vec<Wakeup> {
        self.dispatch.take_held()
    }

    /// Gives those who wait for files that were [held](Self::take_held) what they wait for, if they
    /// are `alive`. Another turn has to follow.
    pub fn release(
        &mut self,
        held: Vec<Wakeup>,
        alive: impl Fn(Pid) -> bool,
        out: &mut Vec<Outgoing>,
    ) {
        let serve = |dispatch: &mut Dispatch<S, Op>, parts: Parts<'_>| {
            let life = |request: &Request<Op>, _| match alive(request.caller.pid) {
                true => Life::Alive,
                false => Life::Dead,
            };
            let answer = |answer, _: &mut S, (): &()| parts.answers.push(answer);
            let watched = |file| parts.watches.has(file);
            dispatch.release(held, answer, parts.edges, life, watched);
        };
        self.serve(serve, out);
    }

    /// The highest number of a process that made a request.
    pub fn newest(&self) -> Pid {
        self.newest
    }

    /// Has waits served, and hands out the answers and events.
    fn serve<T>(
        &mut self,
        serve: impl FnOnce(&mut Dispatch<S, Op>, Parts<'_>) -> T,
        out: &mut Vec<Outgoing>,
    ) -> T {
        let mut answers = std::mem::take(&mut self.answers);
        let mut edges = std::mem::take(&mut self.edges);
        let parts = Parts {
            open: &self.open,
            watches: &self.watches,
            answers: &mut answers,
            edges: &mut edges,
        };
        let served = serve(&mut self.dispatch, parts);
        for answer in answers.drain(..) {
            self.answer(answer, out);
        }
        for (file, ready) in edges.drain(..) {
            let told = self.watches.post(file, ready);
            if let Some(open) = self.open.get(file.0)
                && !told.is_empty()
            {
                let event = Response::post_fevent(number(file), event_flags(told).bits());
                out.push(Outgoing::answer(open.scheme, event));
            }
        }
        self.answers = answers;
        self.edges = edges;
        served
    }

    fn answer(&mut self, answer: Answer<Op>, out: &mut Vec<Outgoing>) {
        let Answer { request, result } = answer;
        let (scheme, _) = request.tag;
        let file = request.file;
        let (used, after) = match (&request.operation, result) {
            (Op::Read(_), Ok(_)) => (Ready::READ, AfterSend::CompleteRead(file)),
            (Op::Read(_), Err(_)) => (Ready::READ, AfterSend::Nothing),
            (Op::Write(_), _) => (Ready::WRITE, AfterSend::Nothing),
            (Op::Dup(_), Ok(made)) => {
                if let Ok(made) = self::file(made) {
                    self.dispatch.adopt(made);
                    self.note_open(scheme, made, request.caller.pid, request.nonblocking);
                }
                (Ready::all(), AfterSend::CloseIfRefused(made))
            }
            // A connect uses up the writability of a fresh socket.
            _ => (Ready::all(), AfterSend::Nothing),
        };
        self.watches.used(file, used);
        out.push(Outgoing {
            scheme,
            after,
            response: respond(request.operation, result),
        });
    }

    /// The open file with this number.
    fn file(&self, number: usize) -> Result<FileId> {
        let file = file(number)?;
        match self.open.get(file.0) {
            Some(_) => Ok(file),
            None => Err(error(errno::EBADF)),
        }
    }

    /// The entries of a directory, for a reader at `start`. It sees the directory as it was when it
    /// began, unless too many read at once.
    fn listing(&mut self, file: FileId, start: usize) -> Result<Cow<'_, [DirEntry]>> {
        if start == 0 {
            self.forget_listing(file);
        }
        if !self.listings.contains_key(&file) {
            let entries = self.dispatch.server.list(file).map_err(error)?;
            if start > 0 || self.listed + entries.len() > MAX_LISTED {
                return Ok(Cow::Owned(entries));
            }
            self.listed += entries.len();
            self.listings.insert(file, entries);
        }
        let entries = self.listings.get(&file).map_or(&[][..], Vec::as_slice);
        Ok(Cow::Borrowed(entries))
    }

    fn forget_listing(&mut self, file: FileId) {
        if let Some(entries) = self.listings.remove(&file) {
            self.listed -= entries.len();
        }
    }

    fn note_open(&mut self, scheme: usize, file: FileId, user: Pid, nonblocking: bool) {
        let open = OpenFile {
            scheme,
            nonblocking,
            user,
            shared: false,
            precious: self.dispatch.server.looks_at_waiters(file),
        };
        self.open.insert(file.0, open);
    }

    /// The path, below a scheme's name, to which `path` relative to `dir` resolves.
    fn resolve(&mut self, scheme: usize, dir: usize, path: &str) -> Result<String> {
        let name = self.names[scheme];
        let base = if dir == ROOT {
            name.to_owned()
        } else if let Some(look) = self.stat_handles.get(&dir) {
            match look.stat.kind {
                FileKind::Directory => look.path.clone(),
                _ => return Err(error(errno::ENOTDIR)),
            }
        } else {
            let file = self.file(dir)?;
            let server = &mut self.dispatch.server;
            match server.fstat(file).map_err(error)?.kind {
                FileKind::Directory => server.path(file).map_err(error)?,
                _ => return Err(error(errno::ENOTDIR)),
            }
        };
        Ok(if path.is_empty() {
            base
        } else {
            format!("{base}/{path}")
        })
    }
}

/// A message for the kernel, and the scheme whose socket it is sent through.
pub struct Outgoing {
    /// The scheme, as an index into the names.
    pub scheme: usize,
    /// An answer, or an event.
    pub response: Response,
    /// The action after it was sent.
    pub after: AfterSend,
}

/// The action after the kernel has taken an answer, or refused it because its caller is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterSend {
    /// Nothing.
    Nothing,
    /// Tell the server whether the bytes read from this file were delivered.
    CompleteRead(FileId),
    /// If it was refused, close the handle with this number, since no client will.
    CloseIfRefused(usize),
}

impl Outgoing {
    /// An answer with no action after it.
    pub fn answer(scheme: usize, response: Response) -> Self {
        Self {
            scheme,
            response,
            after: AfterSend::Nothing,
        }
    }
}

/// The front's state of an open file.
struct OpenFile {
    scheme: usize,
    /// `O_NONBLOCK`; the kernel passes it only with reads and writes.
    nonblocking: bool,
    /// The first process that used it.
    user: Pid,
    /// Whether more than one process used it.
    shared: bool,
    /// Whether those who wait for it are looked at even if they are not seen to share it: the kernel
    /// does not tell of a process that has inherited a handle, and has not used it yet.
    precious: bool,
}

/// The parts of the front that serving waits needs.
struct Parts<'a> {
    open: &'a Table<OpenFile>,
    watches: &'a Watches,
    answers: &'a mut Vec<Answer<Op>>,
    edges: &'a mut Vec<(FileId, Ready)>,
}

/// A handle that was opened with `O_STAT`, only for stat. It claims nothing.
struct StatHandle {
    path: String,
    stat: Stat,
}

fn event_flags(ready: Ready) -> EventFlags {
    let mut flags = EventFlags::empty();
    flags.set(EventFlags::EVENT_READ, ready.contains(Ready::READ));
    flags.set(EventFlags::EVENT_WRITE, ready.contains(Ready::WRITE));
    flags
}

fn number(file: FileId) -> usize {
    file.0 as usize + FIRST_FILE
}

fn error(errno: Errno) -> Error {
    Error::new(errno.raw())
}

/// The file with a handle's number. `EBADF` if it is not that of a file.
fn file(number: usize) -> Result<FileId> {
    let file = number
        .checked_sub(FIRST_FILE)
        .filter(|_| number < FIRST_STAT_HANDLE);
    let file = file.and_then(|file| u32::try_from(file).ok());
    file.map(FileId).ok_or(error(errno::EBADF))
}

/// The caller of a request. The user in a `call` is the client's choice, and is not trusted.
fn caller(ctx: &CallerCtx, trusted: bool) -> Caller {
    Caller {
        pid: Pid(u32::try_from(ctx.pid).unwrap_or(0)),
        uid: if trusted { ctx.uid } else { u32::MAX },
    }
}

//! A file server as redox-scheme sees it.

use std::collections::BTreeMap;

use redox_scheme::scheme::{IntoTag, Op, SchemeResponse, SchemeState, SchemeSync};
use redox_scheme::{CallerCtx, Id, OpenResult, Response};
use syscall::dirent::{DirEntry as SysDirEntry, DirentBuf, DirentKind};
use syscall::error::{Error, Result};
use syscall::flag::{
    EventFlags, F_GETFL, F_SETFL, MODE_CHR, MODE_DIR, MODE_FILE, MapFlags, O_ACCMODE, O_ASYNC,
    O_DIRECTORY, O_NONBLOCK, O_RDONLY, O_RDWR, O_STAT, O_TRUNC, O_WRONLY,
};
use syscall::schemev2::NewFdFlags;

use crate::dispatch::{Answer, Dispatch, Kind, Operation, Request};
use crate::errno::{self, Errno};
use crate::readiness::Watches;
use crate::server::{
    Caller, FileId, FileKind, FileServer, Now, OpenFlags, Outcome, Pid, Ready, Stat, Turn,
};
use crate::table::Table;

/// The number of a scheme's root.
pub const ROOT: usize = 0;
/// Numbers of files begin here, one after the root.
const FILES: usize = 1;
/// Numbers of handles that can only be looked at begin here.
const LOOKS: usize = 1 << 40;
/// Most of the latter.
const MAX_LOOKS: usize = 65_536;

fn number(file: FileId) -> usize {
    file.0 as usize + FILES
}

fn error(errno: Errno) -> Error {
    Error::new(errno.raw())
}

/// A file, if the number is one's.
fn file(number: usize) -> Result<FileId> {
    let file = number.checked_sub(FILES).filter(|_| number < LOOKS);
    let file = file.and_then(|file| u32::try_from(file).ok());
    file.map(FileId).ok_or(error(errno::EBADF))
}

/// Who asks. What comes with a `call` as user is the client's choice, and is believed by nobody.
fn caller(ctx: &CallerCtx, trusted: bool) -> Caller {
    Caller {
        pid: Pid(u32::try_from(ctx.pid).unwrap_or(0)),
        uid: if trusted { ctx.uid } else { u32::MAX },
    }
}

/// With the client's buffer.
impl Operation for Op {
    /// The scheme that it came to, and its number there.
    type Tag = (usize, Id);
    type Waiting = Self;
    type Buffer = ();

    fn kind(&mut self) -> Kind<'_> {
        match self {
            Self::Write(_) => Kind::Write,
            Self::Dup(dup) => Kind::Dup(dup.buf()),
            Self::Call(call) => Kind::Call(call.payload_and_metadata().1),
            // Nothing else is ever made into a request.
            _ => Kind::Read,
        }
    }

    fn into_waiting(self) -> Self {
        self
    }

    fn attempt<S: FileServer>(
        request: &mut Request<Self>,
        server: &mut S,
        (): &mut (),
    ) -> Outcome<usize> {
        let Request { file, caller, .. } = *request;
        match &mut request.operation {
            Self::Read(read) => {
                let offset = read.offset;
                server.read(file, read.buf(), offset, caller)
            }
            Self::Write(write) => server.write(file, write.buf(), write.offset, caller),
            Self::Dup(dup) => match server.dup(file, dup.buf(), request.nonblocking, caller) {
                Outcome::Done(made) => Outcome::Done(made.map(number)),
                Outcome::Wait => Outcome::Wait,
            },
            Self::Call(call) => {
                let (payload, metadata) = call.payload_and_metadata();
                server.call(file, payload, metadata, caller)
            }
            _ => errno::ENOSYS.into(),
        }
    }
}

/// The response that answers an operation.
fn respond(op: Op, result: std::result::Result<usize, Errno>) -> Response {
    match (&op, result) {
        (Op::Dup(_), Ok(made)) => {
            let flags = NewFdFlags::empty();
            let opened = OpenResult::ThisScheme {
                number: made,
                flags,
            };
            Response::open_dup_like(Ok(opened), op)
        }
        (_, result) => Response::new(result.map_err(error), op),
    }
}

/// What to tell the kernel, and through which scheme's socket.
pub struct Outgoing {
    /// The scheme, by its place among the names.
    pub scheme: usize,
    /// An answer, or an event.
    pub response: Response,
    /// What hangs on its arrival.
    pub settles: Settles,
}

/// What hangs on whether an answer arrives: its caller may be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settles {
    /// Nothing.
    Nothing,
    /// What was read from this file: the server wants to know.
    Read(FileId),
    /// The handle with this number: nobody else would ever close it.
    Handle(usize),
}

impl Outgoing {
    /// An answer that nothing hangs on.
    pub fn answer(scheme: usize, response: Response) -> Self {
        Self {
            scheme,
            response,
            settles: Settles::Nothing,
        }
    }
}

/// What the adapter remembers of an open file.
struct Open {
    scheme: usize,
    /// `O_NONBLOCK`; the kernel tells of it only with reads and writes.
    nonblocking: bool,
    /// The first process seen on it.
    user: Pid,
    /// More than one process was.
    shared: bool,
}

/// A handle that was opened only to be looked at (`O_STAT`): it claims nothing.
struct Look {
    path: String,
    stat: Stat,
}

/// The state of the adapter, apart from the system.
pub struct Face<S> {
    /// The server and the requests that wait for it.
    pub dispatch: Dispatch<S, Op>,
    names: Vec<&'static str>,
    open: Table<Open>,
    watches: Watches,
    looks: BTreeMap<usize, Look>,
    next_look: usize,
    /// Kept from turn to turn, to be filled anew.
    answers: Vec<Answer<Op>>,
    edges: Vec<(FileId, Ready)>,
}

impl<S: FileServer> Face<S> {
    /// Serves `server` under these names of schemes.
    pub fn new(server: S, names: &[&'static str]) -> Self {
        Self {
            dispatch: Dispatch::new(server),
            names: names.to_vec(),
            open: Table::default(),
            watches: Watches::default(),
            looks: BTreeMap::new(),
            next_look: LOOKS,
            answers: Vec::new(),
            edges: Vec::new(),
        }
    }

    /// Handles a request that came to a scheme, whose locks are in `state`. What is to be sent is
    /// added to `out`; a request that waits comes up again in [`turn`](Self::turn),
    /// [`cancel`](Self::cancel) or [`close`](Self::close).
    pub fn handle(
        &mut self,
        scheme: usize,
        state: &mut SchemeState,
        mut op: Op,
        ctx: &CallerCtx,
        out: &mut Vec<Outgoing>,
    ) {
        let target = op.file_id().and_then(|number| file(number).ok());
        if let Some(open) = target.and_then(|file| self.open.get_mut(file.0)) {
            open.shared |= open.user != caller(ctx, false).pid;
        }
        if let (Some(file), Op::Read(_) | Op::Write(_) | Op::Dup(_) | Op::Call(_)) = (target, &op) {
            return self.submit(scheme, file, op, ctx, out);
        }
        let mut one = One { face: self, scheme };
        let mut settles = Settles::Nothing;
        let response = match op.handle_sync_dont_consume(ctx, &mut one, state) {
            SchemeResponse::Opened(opened) => {
                if let Ok(OpenResult::ThisScheme { number, .. }) = &opened {
                    settles = Settles::Handle(*number);
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
            settles,
        });
    }

    fn submit(
        &mut self,
        scheme: usize,
        file: FileId,
        op: Op,
        ctx: &CallerCtx,
        out: &mut Vec<Outgoing>,
    ) {
        let told = matches!(op, Op::Read(_) | Op::Write(_));
        let kept = self.open.get(file.0).is_some_and(|open| open.nonblocking);
        let request = Request {
            tag: (scheme, op.req_id()),
            file,
            caller: caller(ctx, !matches!(op, Op::Call(_))),
            nonblocking: op.is_explicitly_nonblock() || (!told && kept),
            operation: op,
        };
        if let Some(answer) = self.dispatch.submit(request) {
            self.answer(answer, out);
        }
    }

    /// A waiting caller was interrupted by a signal. Nothing, if it was answered already.
    pub fn cancel(&mut self, scheme: usize, id: Id, out: &mut Vec<Outgoing>) {
        if let Some(answer) = self.dispatch.cancel((scheme, id), errno::ECANCELED) {
            self.answer(answer, out);
        }
    }

    /// The last descriptor of a handle is gone.
    pub fn close(&mut self, number: usize, out: &mut Vec<Outgoing>) {
        if self.looks.remove(&number).is_some() {
            return;
        }
        let Ok(file) = file(number) else {
            return;
        };
        self.watches.close(file);
        self.open.remove(file.0);
        for answer in self.dispatch.close(file) {
            self.answer(answer, out);
        }
    }

    /// [`Dispatch::turn`]. Where a handle is shared, nothing tells of a waiter that was killed:
    /// then `alive` is asked before it is given anything.
    pub fn turn(&mut self, now: Now, alive: impl Fn(Pid) -> bool, out: &mut Vec<Outgoing>) -> Turn {
        let mut answers = std::mem::take(&mut self.answers);
        let mut edges = std::mem::take(&mut self.edges);
        let (open, watches) = (&self.open, &self.watches);
        let alive = |request: &Request<Op>| {
            let shared = open.get(request.file.0).is_some_and(|open| open.shared);
            !shared || alive(request.caller.pid)
        };
        let watched = |file| watches.has(file);
        let answer = |answer, _: &mut S, (): &()| answers.push(answer);
        let turn = self.dispatch.turn(now, answer, &mut edges, alive, watched);
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
        turn
    }

    fn answer(&mut self, answer: Answer<Op>, out: &mut Vec<Outgoing>) {
        let Answer { request, result } = answer;
        let (scheme, _) = request.tag;
        let file = request.file;
        let (used, settles) = match (&request.operation, result) {
            (Op::Read(_), Ok(_)) => (Ready::READ, Settles::Read(file)),
            (Op::Read(_), Err(_)) => (Ready::READ, Settles::Nothing),
            (Op::Write(_), _) => (Ready::WRITE, Settles::Nothing),
            (Op::Dup(_), Ok(made)) => {
                if let Ok(made) = self::file(made) {
                    self.dispatch.adopt(made);
                    self.note_open(scheme, made, request.caller.pid, request.nonblocking);
                }
                (Ready::all(), Settles::Handle(made))
            }
            // A connect has used that a fresh socket is writable.
            _ => (Ready::all(), Settles::Nothing),
        };
        self.watches.used(file, used);
        out.push(Outgoing {
            scheme,
            settles,
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

    fn note_open(&mut self, scheme: usize, file: FileId, user: Pid, nonblocking: bool) {
        let open = Open {
            scheme,
            nonblocking,
            user,
            shared: false,
        };
        self.open.insert(file.0, open);
    }

    /// The path below a scheme's name that `path` is relative to `dir` of.
    fn resolve(&mut self, scheme: usize, dir: usize, path: &str) -> Result<String> {
        let name = self.names[scheme];
        let base = if dir == ROOT {
            name.to_owned()
        } else if let Some(look) = self.looks.get(&dir) {
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

fn event_flags(ready: Ready) -> EventFlags {
    let mut flags = EventFlags::empty();
    flags.set(EventFlags::EVENT_READ, ready.contains(Ready::READ));
    flags.set(EventFlags::EVENT_WRITE, ready.contains(Ready::WRITE));
    flags
}

fn fill(stat: Stat, out: &mut syscall::Stat) {
    let kind = match stat.kind {
        FileKind::Directory => MODE_DIR,
        FileKind::Text => MODE_FILE,
        FileKind::Device => MODE_CHR,
    };
    *out = syscall::Stat {
        st_mode: kind | stat.mode,
        st_nlink: 1,
        st_size: stat.size,
        st_blksize: 4096,
        ..Default::default()
    };
}

/// One scheme of a face, for the requests that never wait.
struct One<'a, S> {
    face: &'a mut Face<S>,
    scheme: usize,
}

impl<S: FileServer> SchemeSync for One<'_, S> {
    fn openat(
        &mut self,
        dir: usize,
        path: &str,
        flags: usize,
        fcntl_flags: u32,
        ctx: &CallerCtx,
    ) -> Result<OpenResult> {
        let path = self.face.resolve(self.scheme, dir, path)?;
        let server = &mut self.face.dispatch.server;
        let stat = server.stat(&path).map_err(error)?;
        if flags & O_STAT == O_STAT {
            return self.look(path, stat);
        }
        let mut open = match flags & O_ACCMODE {
            O_RDONLY => OpenFlags::READ,
            O_WRONLY => OpenFlags::WRITE,
            O_RDWR => OpenFlags::READ | OpenFlags::WRITE,
            _ => OpenFlags::empty(),
        };
        open.set(OpenFlags::DIRECTORY, flags & O_DIRECTORY == O_DIRECTORY);
        open.set(OpenFlags::TRUNCATE, flags & O_TRUNC == O_TRUNC);
        let file = self
            .face
            .dispatch
            .open(&path, open, caller(ctx, true))
            .map_err(error)?;
        let fcntl_flags = fcntl_flags as usize;
        let nonblocking = fcntl_flags & O_NONBLOCK != 0;
        let user = caller(ctx, true).pid;
        self.face.note_open(self.scheme, file, user, nonblocking);
        if fcntl_flags & O_ASYNC != 0 {
            self.face
                .dispatch
                .server
                .set_async(file, true)
                .map_err(error)?;
        }
        let flags = match stat.kind {
            // The kernel keeps the offset of texts; packets have none.
            FileKind::Text | FileKind::Directory => NewFdFlags::POSITIONED,
            FileKind::Device => NewFdFlags::empty(),
        };
        let number = number(file);
        Ok(OpenResult::ThisScheme { number, flags })
    }

    fn fcntl(&mut self, id: usize, cmd: usize, arg: usize, _ctx: &CallerCtx) -> Result<usize> {
        if self.face.looks.contains_key(&id) {
            return Ok(0);
        }
        match cmd {
            // The kernel answers with what it keeps; it only wants to hear no error.
            F_GETFL => Ok(0),
            F_SETFL => {
                let file = self.face.file(id)?;
                let open = self.face.open.get_mut(file.0).ok_or(error(errno::EBADF))?;
                open.nonblocking = arg & O_NONBLOCK != 0;
                let server = &mut self.face.dispatch.server;
                server.set_async(file, arg & O_ASYNC != 0).map_err(error)?;
                Ok(0)
            }
            _ => Err(error(errno::EINVAL)),
        }
    }

    fn fevent(&mut self, id: usize, flags: EventFlags, _ctx: &CallerCtx) -> Result<EventFlags> {
        let Ok(file) = self.face.file(id) else {
            // Never an error: poll would fail for all the files it was asked about.
            return Ok(EventFlags::empty());
        };
        let mut mask = Ready::empty();
        mask.set(Ready::READ, flags.contains(EventFlags::EVENT_READ));
        mask.set(Ready::WRITE, flags.contains(EventFlags::EVENT_WRITE));
        let ready = self.face.dispatch.server.ready(file);
        Ok(event_flags(self.face.watches.arm(file, mask, ready)))
    }

    fn fpath(&mut self, id: usize, buf: &mut [u8], _ctx: &CallerCtx) -> Result<usize> {
        let path = if id == ROOT {
            self.face.names[self.scheme].to_owned()
        } else if let Some(look) = self.face.looks.get(&id) {
            look.path.clone()
        } else {
            let file = self.face.file(id)?;
            self.face.dispatch.server.path(file).map_err(error)?
        };
        let path = format!("/scheme/{path}");
        let len = path.len().min(buf.len());
        buf[..len].copy_from_slice(&path.as_bytes()[..len]);
        Ok(len)
    }

    fn fstat(&mut self, id: usize, stat: &mut syscall::Stat, _ctx: &CallerCtx) -> Result<()> {
        let found = if id == ROOT {
            let name = self.face.names[self.scheme];
            self.face.dispatch.server.stat(name)
        } else if let Some(look) = self.face.looks.get(&id) {
            Ok(look.stat)
        } else {
            let file = self.face.file(id)?;
            self.face.dispatch.server.fstat(file)
        };
        fill(found.map_err(error)?, stat);
        Ok(())
    }

    fn fsync(&mut self, id: usize, _ctx: &CallerCtx) -> Result<()> {
        let file = self.face.file(id)?;
        self.face.dispatch.server.sync(file).map_err(error)
    }

    fn ftruncate(&mut self, id: usize, _len: u64, _ctx: &CallerCtx) -> Result<()> {
        // O_TRUNC and ftruncate change nothing: there is no file to shorten.
        self.face.file(id).map(drop)
    }

    fn getdents<'buf>(
        &mut self,
        id: usize,
        mut buf: DirentBuf<&'buf mut [u8]>,
        opaque_offset: u64,
    ) -> Result<DirentBuf<&'buf mut [u8]>> {
        let file = self.face.file(id)?;
        let entries = self.face.dispatch.server.list(file).map_err(error)?;
        let start = usize::try_from(opaque_offset).map_err(|_| error(errno::EINVAL))?;
        for (at, entry) in entries.iter().enumerate().skip(start) {
            let kind = match entry.kind {
                FileKind::Directory => DirentKind::Directory,
                FileKind::Text => DirentKind::Regular,
                FileKind::Device => DirentKind::CharDev,
            };
            let added = buf.entry(SysDirEntry {
                inode: 0,
                next_opaque_id: at as u64 + 1,
                name: &entry.name,
                kind,
            });
            match added {
                Ok(()) => {}
                // Full; unless not even one fits, the rest comes with the next call.
                Err(error) if at == start => return Err(error),
                Err(_) => break,
            }
        }
        Ok(buf)
    }

    fn mmap_prep(
        &mut self,
        _id: usize,
        _offset: u64,
        _size: usize,
        _flags: MapFlags,
        _ctx: &CallerCtx,
    ) -> Result<usize> {
        // Nothing is shared with clients; and a private mapping of ours would take the kernel down.
        Err(error(errno::ENODEV))
    }
}

impl<S: FileServer> One<'_, S> {
    fn look(&mut self, path: String, stat: Stat) -> Result<OpenResult> {
        let face = &mut *self.face;
        if face.looks.len() >= MAX_LOOKS {
            return Err(error(errno::ENFILE));
        }
        face.next_look += 1;
        face.looks.insert(face.next_look, Look { path, stat });
        Ok(OpenResult::ThisScheme {
            number: face.next_look,
            flags: NewFdFlags::empty(),
        })
    }
}

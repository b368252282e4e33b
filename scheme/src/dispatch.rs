//! The bookkeeping that every front needs: access modes, waits, and exactly one answer per request.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use crate::errno::{self, Errno};
use crate::server::{
    Caller, FileId, FileServer, Now, OpenFlags, Outcome, Ready, Turn, Wakeup, earlier,
};
use crate::table::Table;
use crate::wait::{Direction, Waiter, Waits};

/// The method of the server that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method<'a> {
    /// [`FileServer::read`] of so many bytes.
    Read(usize),
    /// [`FileServer::write`].
    Write,
    /// [`FileServer::dup`] with this verb.
    Dup(&'a [u8]),
    /// [`FileServer::call`] with these words.
    Call(&'a [u64]),
}

impl Method<'_> {
    /// The mode in which the file must be open for it.
    fn access(self) -> OpenFlags {
        match self {
            Self::Read(_) => OpenFlags::READ,
            Self::Write => OpenFlags::WRITE,
            Self::Dup(_) | Self::Call(_) => OpenFlags::empty(),
        }
    }

    /// The queue it waits in.
    fn direction(self, server: &impl FileServer) -> Direction {
        match self {
            Self::Read(_) => Direction::Read,
            Self::Write => Direction::Write,
            Self::Dup(verb) => server.dup_direction(verb),
            Self::Call(words) => server.call_direction(words),
        }
    }

    /// Whether it queues behind requests that wait already. A request that takes nothing from them,
    /// such as a control or a read of no bytes, does not.
    fn queues(self) -> bool {
        match self {
            Self::Read(len) => len > 0,
            Self::Write => true,
            Self::Dup(_) | Self::Call(_) => false,
        }
    }
}

/// The part of a request that differs between fronts: where its bytes are, and how to try it.
pub trait Operation: Sized {
    /// The front's name for a request.
    type Tag: Copy + Ord + Debug;
    /// The operation while it waits, with memory of its own.
    type Waiting: Operation<Tag = Self::Tag, Buffer = Self::Buffer>;
    /// Memory shared by all attempts, such as for the bytes read: each attempt overwrites it.
    type Buffer: Default;

    /// The method it asks for.
    fn method(&mut self) -> Method<'_>;

    /// Tries it once.
    fn attempt<S: FileServer>(
        request: &mut Request<Self>,
        server: &mut S,
        buffer: &mut Self::Buffer,
    ) -> Outcome<usize>;

    /// Turns it into one that waits, with no more memory than it needs.
    fn into_waiting(self) -> Self::Waiting;

    /// Bytes that it takes while it waits, besides its own: those of a write.
    fn memory(&self) -> usize;
}

/// A request to a server.
#[derive(Debug)]
pub struct Request<O: Operation> {
    /// Its name, unique among the requests that wait.
    pub tag: O::Tag,
    /// The file it is for.
    pub file: FileId,
    /// The process that made the request.
    pub caller: Caller,
    /// Whether it may not wait (`O_NONBLOCK` on the file or for this request).
    pub nonblocking: bool,
    /// The operation, which depends on the front.
    pub operation: O,
}

impl<O: Operation> Request<O> {
    fn into_waiting(self) -> Request<O::Waiting> {
        Request {
            tag: self.tag,
            file: self.file,
            caller: self.caller,
            nonblocking: self.nonblocking,
            operation: self.operation.into_waiting(),
        }
    }
}

/// What is known of the process of a request that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It is alive, or it does not matter.
    Alive,
    /// It is dead, and must not be given anything.
    Dead,
    /// It has to be found out first.
    Unknown,
}

/// A request that has its answer.
#[derive(Debug)]
#[must_use]
pub struct Answer<O: Operation> {
    /// The request, to be answered now.
    pub request: Request<O>,
    /// Its result.
    pub result: Result<usize, Errno>,
}

/// A server together with the requests that wait for it, which are of type `O`.
///
/// Every request given to [`submit`](Self::submit) comes back exactly once as an [`Answer`]: from
/// `submit` itself, from [`turn`](Self::turn), [`cancel`](Self::cancel),
/// [`interrupt`](Self::interrupt) or [`close`](Self::close).
pub struct Dispatch<S, O: Operation> {
    /// The server. Requests that never wait go to it directly.
    pub server: S,
    /// The memory of the last attempt: its answer is sent before the next request is tried.
    pub buffer: O::Buffer,
    open: Table<OpenFlags>,
    waits: Waits<O::Tag, Request<O>>,
    /// Files that were woken, and whose waits are not served before more is known of them.
    held: BTreeMap<FileId, Ready>,
    /// The monotonic time of the last turn.
    now: Duration,
}

impl<S: FileServer, O: Operation> Dispatch<S, O> {
    /// A server with nothing open.
    pub fn new(server: S) -> Self {
        Self {
            server,
            buffer: O::Buffer::default(),
            open: Table::default(),
            waits: Waits::default(),
            held: BTreeMap::new(),
            now: Duration::ZERO,
        }
    }

    /// Calls [`FileServer::open`], and notes the access mode.
    pub fn open(&mut self, path: &str, flags: OpenFlags, caller: Caller) -> Result<FileId, Errno> {
        let file = self.server.open(path, flags, caller)?;
        self.open.insert(file.0, flags);
        Ok(file)
    }

    /// Notes a file that a `dup` verb made; it may be read and written.
    pub fn adopt(&mut self, file: FileId) {
        self.open.insert(file.0, OpenFlags::READ | OpenFlags::WRITE);
    }

    /// Tries a request, and keeps it if it has to wait; `ENOBUFS` if too much waits already.
    pub fn submit<N>(&mut self, mut request: Request<N>) -> Option<Answer<N>>
    where
        N: Operation<Tag = O::Tag, Waiting = O, Buffer = O::Buffer>,
    {
        let file = request.file;
        let method = request.operation.method();
        let mode = self.open.get(file.0);
        if !mode.is_some_and(|flags| flags.contains(method.access())) {
            let result = Err(errno::EBADF);
            return Some(Answer { request, result });
        }
        let direction = method.direction(&self.server);
        // First come, first served: a later request queues behind, unless it may not wait at all.
        let must_queue =
            method.queues() && !request.nonblocking && self.waits.occupied(file, direction);
        if !must_queue {
            match N::attempt(&mut request, &mut self.server, &mut self.buffer) {
                Outcome::Done(result) => return Some(Answer { request, result }),
                Outcome::Wait if request.nonblocking => {
                    let result = Err(errno::EAGAIN);
                    return Some(Answer { request, result });
                }
                Outcome::Wait => {}
            }
        }
        let bytes = request.operation.memory();
        if !self.waits.has_room(bytes, request.caller.uid) {
            let result = Err(errno::ENOBUFS);
            return Some(Answer { request, result });
        }
        let timeout = self.server.timeout(file, direction);
        let waiter = Waiter {
            tag: request.tag,
            deadline: timeout.map(|timeout| self.now.saturating_add(timeout)),
            since: self.now,
            bytes,
            request: request.into_waiting(),
        };
        self.waits.park(file, direction, waiter);
        None
    }

    /// Runs [`FileServer::turn`], serves the waits that can go on or have timed out, and gathers
    /// the events for watchers. The result is pending, too, when a wait was served, which may have
    /// led to more work.
    ///
    /// `answer` gets each completed request, with the server, so that it can confirm a read, and
    /// the buffer as the attempt left it. `life` is asked before a waiting request is tried, and told
    /// how long it has waited: if its process is dead it ends with `EINTR`, and takes nothing; if that
    /// is not known, its file is [held](Self::take_held). `watched` tells whether a file has watchers.
    pub fn turn(
        &mut self,
        now: Now,
        mut answer: impl FnMut(Answer<O>, &mut S, &O::Buffer),
        edges: &mut Vec<(FileId, Ready)>,
        mut life: impl FnMut(&Request<O>, Duration) -> Life,
        watched: impl Fn(FileId) -> bool,
    ) -> Turn {
        self.now = self.now.max(now.monotonic);
        let mut turn = self.server.turn(now);
        let mut served = false;
        let mut answer = |request, result, server: &mut S, buffer: &O::Buffer| {
            served = true;
            answer(Answer { request, result }, server, buffer);
        };
        while let Some(wakeup) = self.server.poll_wakeup() {
            self.serve_waits(wakeup, &mut answer, edges, &mut life, &watched);
        }
        while let Some(Waiter { request, .. }) = self.waits.expire(self.now) {
            let result = Err(errno::ETIMEDOUT);
            answer(request, result, &mut self.server, &self.buffer);
        }
        turn.pending |= served;
        turn.deadline = earlier(turn.deadline, self.waits.deadline());
        turn
    }

    /// Whether there are files to [take](Self::take_held).
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Takes the files that were woken while it was not known whether those who wait for them live.
    /// They are [released](Self::release) when it is.
    pub fn take_held(&mut self) -> Vec<Wakeup> {
        let held = std::mem::take(&mut self.held);
        let wakeup = |(file, ready)| Wakeup { file, ready };
        held.into_iter().map(wakeup).collect()
    }

    /// Serves the waits of files that were [held](Self::take_held), as [`turn`](Self::turn) does. Each
    /// may have led to more work: another turn has to follow.
    pub fn release(
        &mut self,
        held: Vec<Wakeup>,
        mut answer: impl FnMut(Answer<O>, &mut S, &O::Buffer),
        edges: &mut Vec<(FileId, Ready)>,
        mut life: impl FnMut(&Request<O>, Duration) -> Life,
        watched: impl Fn(FileId) -> bool,
    ) {
        let mut answer = |request, result, server: &mut S, buffer: &O::Buffer| {
            answer(Answer { request, result }, server, buffer);
        };
        for wakeup in held {
            self.serve_waits(wakeup, &mut answer, edges, &mut life, &watched);
        }
    }

    fn serve_waits(
        &mut self,
        wakeup: Wakeup,
        answer: &mut impl FnMut(Request<O>, Result<usize, Errno>, &mut S, &O::Buffer),
        edges: &mut Vec<(FileId, Ready)>,
        life: &mut impl FnMut(&Request<O>, Duration) -> Life,
        watched: &impl Fn(FileId) -> bool,
    ) {
        let file = wakeup.file;
        for direction in [Direction::Read, Direction::Write] {
            while let Some(waiter) = self.waits.front(file, direction) {
                let waited = self.now.saturating_sub(waiter.since);
                let result = match life(&waiter.request, waited) {
                    Life::Alive => {
                        match O::attempt(&mut waiter.request, &mut self.server, &mut self.buffer) {
                            Outcome::Done(result) => result,
                            Outcome::Wait => break,
                        }
                    }
                    Life::Dead => Err(errno::EINTR),
                    Life::Unknown => {
                        *self.held.entry(file).or_default() |= wakeup.ready;
                        return;
                    }
                };
                if let Some(Waiter { request, .. }) = self.waits.pop(file, direction) {
                    answer(request, result, &mut self.server, &self.buffer);
                }
            }
        }
        if watched(file) && self.open.get(file.0).is_some() {
            // A request that waited may have taken what the watchers would be told of.
            let risen = wakeup.ready & self.server.ready(file);
            if !risen.is_empty() {
                edges.push((file, risen));
            }
        }
    }

    /// Ends one wait, with `error`. `None` if it was answered already.
    pub fn cancel(&mut self, tag: O::Tag, error: Errno) -> Option<Answer<O>> {
        let Waiter { request, .. } = self.waits.cancel(tag)?;
        let result = Err(error);
        Some(Answer { request, result })
    }

    /// Ends, with `EINTR`, those waits on a file for which `wanted` holds.
    pub fn interrupt(
        &mut self,
        file: FileId,
        wanted: impl Fn(&Request<O>) -> bool,
    ) -> Vec<Answer<O>> {
        let waiters = self.waits.purge(file, |waiter| wanted(&waiter.request));
        answers(waiters, errno::EINTR)
    }

    /// Handles the close of the last descriptor: ends every wait with `EBADF`, and closes the file.
    pub fn close(&mut self, file: FileId) -> Vec<Answer<O>> {
        if self.open.remove(file.0).is_some() {
            self.server.close(file);
        }
        self.held.remove(&file);
        let waiters = self.waits.purge(file, |_| true);
        answers(waiters, errno::EBADF)
    }

    /// The number of waiting requests.
    pub fn waiting(&self) -> usize {
        self.waits.len()
    }
}

fn answers<O: Operation>(waiters: Vec<Waiter<O::Tag, Request<O>>>, error: Errno) -> Vec<Answer<O>> {
    let answer = |waiter: Waiter<_, _>| Answer {
        request: waiter.request,
        result: Err(error),
    };
    waiters.into_iter().map(answer).collect()
}

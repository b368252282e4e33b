//! The interface of a file server: its requests, and their possible answers.

use std::time::Duration;

use bitflags::bitflags;

use crate::errno::{self, Errno};
use crate::wait::Direction;

/// One open file of a server, shared by every descriptor that was made from it by dup, fork or
/// passing. Numbers are small, and used again after [`FileServer::close`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u32);

/// A process id, as the clients' system counts them. 0 is no process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pid(pub u32);

/// The caller of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The process, never a thread.
    pub pid: Pid,
    /// Effective user. Only [`FileServer::open`] and [`FileServer::dup`] may trust it: on Redox a
    /// client chooses the one that comes with a `call`.
    pub uid: u32,
}

bitflags! {
    /// The mode in which a file is opened.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct OpenFlags: u32 {
        /// Reads are allowed.
        const READ = 1;
        /// Writes are allowed.
        const WRITE = 2;
        /// The caller wants a directory, `ENOTDIR` if it is something else.
        const DIRECTORY = 4;
        /// Empty the file.
        const TRUNCATE = 16;
    }

    /// The operations that are possible at once, without waiting.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Ready: u32 {
        /// A read would not wait.
        const READ = 1;
        /// A write would not wait.
        const WRITE = 2;
    }
}

/// The kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A directory, which lists other files.
    Directory,
    /// A text file, read and written by offset.
    Text,
    /// A device or socket: a stream of packets or bytes, without offsets.
    Device,
    /// A text that each opening reads once, as it comes: without offsets.
    Stream,
}

/// The attributes that `stat` returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Kind of file.
    pub kind: FileKind,
    /// Permission bits, without the kind.
    pub mode: u16,
    /// Size in bytes, 0 where unknown.
    pub size: u64,
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Name, without a slash.
    pub name: String,
    /// Kind of file.
    pub kind: FileKind,
}

/// The argument of an ioctl, as far as the system carried it.
///
/// Linux carries it only in the directions that the request number encodes, and through FUSE a
/// number in BSD's encoding (the two direction bits are swapped) loses it.
#[derive(Debug)]
pub struct Argument<'a> {
    bytes: &'a mut [u8],
    filled: bool,
    returned: bool,
}

impl<'a> Argument<'a> {
    /// An argument that travels both ways.
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self {
            bytes,
            filled: true,
            returned: true,
        }
    }

    /// An argument that the client `filled`, or that is `returned` to it, or both, or neither.
    pub fn one_way(bytes: &'a mut [u8], filled: bool, returned: bool) -> Self {
        Self {
            bytes,
            filled,
            returned,
        }
    }

    /// The argument that the client passed. `EINVAL` if it did not arrive or is not `N` bytes.
    pub fn get<const N: usize>(&self) -> Result<[u8; N], Errno> {
        if !self.filled {
            return Err(errno::EINVAL);
        }
        (*self.bytes).try_into().map_err(|_| errno::EINVAL)
    }

    /// Writes the answer. `EINVAL` if it could not reach the client or is not `N` bytes.
    pub fn put<const N: usize>(&mut self, answer: [u8; N]) -> Result<(), Errno> {
        if !self.returned || self.bytes.len() != N {
            return Err(errno::EINVAL);
        }
        self.bytes.copy_from_slice(&answer);
        Ok(())
    }
}

/// The outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// It is answered.
    Done(Result<T, Errno>),
    /// It cannot be answered yet. Nothing was taken; try again after the next wake-up of the file.
    Wait,
}

impl<T> From<Result<T, Errno>> for Outcome<T> {
    fn from(result: Result<T, Errno>) -> Self {
        Self::Done(result)
    }
}

impl<T> From<Errno> for Outcome<T> {
    fn from(errno: Errno) -> Self {
        Self::Done(Err(errno))
    }
}

/// The two clocks, read once for each turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Time since an arbitrary start; never goes back. Timers run on it.
    pub monotonic: Duration,
    /// Time since 1970; may jump. For people to read.
    pub wall: Duration,
}

/// The remaining work after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Turn {
    /// The budget ran out: call [`FileServer::turn`] again without waiting.
    pub pending: bool,
    /// The monotonic time at which to call it again; `None` means not before the next request.
    pub deadline: Option<Duration>,
}

/// The earlier of two deadlines; `None` is never.
#[inline]
pub fn earlier(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        _ => one.or(other),
    }
}

/// A file whose readiness rose, and the bits that rose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wakeup {
    /// The file whose waits are to be tried again and whose watchers are to be told.
    pub file: FileId,
    /// The operations that became possible.
    pub ready: Ready,
}

/// The target of a signal, as in `kill(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalTarget {
    /// One process.
    Process(Pid),
    /// Every process of a group.
    Group(Pid),
}

/// A `SIGIO` to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Where it goes.
    pub target: SignalTarget,
    /// The [identity](Processes::identity) that a process had when it asked for signals. It gets none
    /// if it has another now, or none.
    pub identity: Option<u64>,
}

impl Signal {
    /// Whether its target is still the one that asked for it, as far as that can be told of a group.
    pub fn is_wanted(&self, processes: &dyn Processes) -> bool {
        match self.target {
            SignalTarget::Process(pid) => {
                self.identity.is_some() && processes.identity(pid) == self.identity
            }
            // A group is known by its number only.
            SignalTarget::Group(_) => true,
        }
    }
}

/// A server's queries about its clients' processes. Passed in, so that a server does not depend on
/// a system.
///
/// A front may have to call another process to find an answer, which must not be done while others
/// wait for the server. So it may give any answer at first, find out the true one while the server
/// does other things, and then make the same request again. A server therefore asks before the
/// request has changed anything.
pub trait Processes {
    /// The session of `target`; `None` when there is no such process or group.
    fn session(&self, target: SignalTarget) -> Option<Pid>;

    /// A number that tells the process from a later one with the same pid, as far as this system
    /// has one; `None` when the process does not exist.
    fn identity(&self, pid: Pid) -> Option<u64>;

    /// Whether the process exists and is not a zombie.
    fn alive(&self, pid: Pid) -> bool {
        self.identity(pid).is_some()
    }

    /// Whether the process is known to be dead. What happened a moment ago may not be known. This may
    /// be asked at any time: no request is made again because of it.
    fn is_known_dead(&self, pid: Pid) -> bool {
        !self.alive(pid)
    }

    /// Whether this system may fail to report a close. Then a device whose holders are all dead may
    /// be taken over.
    fn closes_get_lost(&self) -> bool;
}

/// A tree of files and devices, served through any of the fronts: local, FUSE, Redox.
///
/// **Only these methods change a server, and only a front calls them, one at a time.** Order:
///
/// 1. [`turn`](Self::turn) with the time, then any number of requests;
/// 2. [`turn`](Self::turn) again, [`poll_wakeup`](Self::poll_wakeup) until `None`, serving the
///    waits it names, and [`poll_signal`](Self::poll_signal) until `None`;
/// 3. all of 2 again, while the turn was pending or a wait was served or a packet came back
///    ([`complete_read`](Self::complete_read)): each may have led to more work, or to an earlier deadline;
/// 4. sleep until a request comes or the deadline of the last turn passes.
///
/// Paths come as `scheme/rest`, unnormalised: a server refuses `.`, `..` and empty parts.
pub trait FileServer {
    /// Advances time and does a bounded amount of queued work.
    fn turn(&mut self, now: Now) -> Turn;

    /// The next file whose readiness rose since the last call, in the order in which they did.
    #[must_use]
    fn poll_wakeup(&mut self) -> Option<Wakeup>;

    /// The next `SIGIO` to send, if it is [wanted](Signal::is_wanted) still.
    #[must_use]
    fn poll_signal(&mut self) -> Option<Signal> {
        None
    }

    /// Everything that programs have set, as a text with which another server can begin, if it may
    /// have changed since the last call. A server whose state nobody asks for makes no text.
    #[must_use]
    fn poll_state(&mut self) -> Option<String> {
        None
    }

    /// Describes the file at `path` without opening, claiming or making it.
    fn stat(&mut self, path: &str) -> Result<Stat, Errno>;

    /// Opens the file at `path`.
    fn open(&mut self, path: &str, flags: OpenFlags, caller: Caller) -> Result<FileId, Errno>;

    /// Makes a new file from an open one, according to a verb. A plain dup is not passed on. An
    /// answer of [`Outcome::Wait`] to a `nonblocking` caller becomes `EAGAIN`.
    fn dup(
        &mut self,
        file: FileId,
        verb: &[u8],
        nonblocking: bool,
        caller: Caller,
    ) -> Outcome<FileId> {
        let _ = (file, verb, nonblocking, caller);
        errno::EINVAL.into()
    }

    /// The time limit of a request for `file` from now; after it the request ends with `ETIMEDOUT`.
    /// `None` is no limit.
    fn timeout(&self, file: FileId, direction: Direction) -> Option<Duration> {
        let _ = (file, direction);
        None
    }

    /// The queue that a dup with this verb would wait in.
    fn dup_direction(&self, verb: &[u8]) -> Direction {
        let _ = verb;
        Direction::Read
    }

    /// The queue that a call with these words would wait in.
    fn call_direction(&self, metadata: &[u64]) -> Direction {
        let _ = metadata;
        Direction::Read
    }

    /// Reads into `buf`; `offset` counts only for [`FileKind::Text`].
    fn read(&mut self, file: FileId, buf: &mut [u8], offset: u64, caller: Caller)
    -> Outcome<usize>;

    /// Whether those who wait for this file are looked at before they are given anything, even if no
    /// other process has used it: where nobody else gets what a dead reader took. On Redox that costs
    /// a reading of the list of processes each time.
    fn looks_at_waiters(&self, file: FileId) -> bool {
        let _ = file;
        false
    }

    /// Ends a read that was answered without error: tells whether its bytes were `delivered` to the
    /// client. It is called once for each such read, in order. A packet that was not delivered goes
    /// back to the head of its queue.
    fn complete_read(&mut self, file: FileId, delivered: bool) {
        let _ = (file, delivered);
    }

    /// Writes `buf`; returns the number of bytes accepted.
    fn write(&mut self, file: FileId, buf: &[u8], offset: u64, caller: Caller) -> Outcome<usize>;

    /// A device control. `request` may come in BSD's or in Linux's encoding.
    fn ioctl(
        &mut self,
        file: FileId,
        request: u32,
        arg: Argument<'_>,
        caller: Caller,
    ) -> Result<(), Errno> {
        let _ = (file, request, arg, caller);
        Err(errno::ENOTTY)
    }

    /// Redox's `SYS_CALL`: a verb and its words in `metadata`, and a payload in both directions.
    fn call(
        &mut self,
        file: FileId,
        payload: &mut [u8],
        metadata: &[u64],
        caller: Caller,
    ) -> Outcome<usize> {
        let _ = (file, payload, metadata, caller);
        errno::EOPNOTSUPP.into()
    }

    /// Sets `O_ASYNC`, as `F_SETFL` does. `O_NONBLOCK` stays with the front.
    fn set_async(&mut self, file: FileId, on: bool) -> Result<(), Errno> {
        let _ = (file, on);
        Ok(())
    }

    /// `fsync(2)`.
    fn sync(&mut self, file: FileId) -> Result<(), Errno> {
        let _ = file;
        Ok(())
    }

    /// Describes an open file.
    fn fstat(&mut self, file: FileId) -> Result<Stat, Errno>;

    /// Lists an open directory.
    fn list(&mut self, file: FileId) -> Result<Vec<DirEntry>, Errno>;

    /// The path of an open file, without the leading `/scheme/`.
    fn path(&self, file: FileId) -> Result<String, Errno>;

    /// The operations that are possible at once.
    fn ready(&mut self, file: FileId) -> Ready;

    /// Closes a file whose last descriptor is gone. Never fails; the number may be reused.
    fn close(&mut self, file: FileId);
}

//! What a file server is: the requests, and what it may answer.

use std::time::Duration;

use bitflags::bitflags;

use crate::errno::{self, Errno};
use crate::wait::Direction;

/// One open file of a server, shared by every descriptor that was made from it by dup, fork or
/// passing. Numbers are small, and used again after [`FileServer::close`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u32);

/// A process id, as the clients' system counts them. 0 is nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pid(pub u32);

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The process, never a thread.
    pub pid: Pid,
    /// Effective user. Only [`FileServer::open`] and [`FileServer::dup`] may trust it: on Redox a
    /// client chooses the one that comes with a `call`.
    pub uid: u32,
}

bitflags! {
    /// How a file is opened.
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

    /// What can be done at once, without waiting.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Ready: u32 {
        /// A read would not wait.
        const READ = 1;
        /// A write would not wait.
        const WRITE = 2;
    }
}

/// What kind of file a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// It lists others.
    Directory,
    /// A text, read and written by offset.
    Text,
    /// A device or socket: a stream of packets or bytes, without offsets.
    Device,
}

/// What `stat` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Kind of file.
    pub kind: FileKind,
    /// Permission bits, without the kind.
    pub mode: u16,
    /// Bytes, 0 where unknown.
    pub size: u64,
}

/// One line of a directory.
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

    /// What the client passed. `EINVAL` if it did not arrive or is not `N` bytes.
    pub fn get<const N: usize>(&self) -> Result<[u8; N], Errno> {
        if !self.filled {
            return Err(errno::EINVAL);
        }
        (*self.bytes).try_into().map_err(|_| errno::EINVAL)
    }

    /// Answers. `EINVAL` if it could not reach the client or is not `N` bytes.
    pub fn put<const N: usize>(&mut self, answer: [u8; N]) -> Result<(), Errno> {
        if !self.returned || self.bytes.len() != N {
            return Err(errno::EINVAL);
        }
        self.bytes.copy_from_slice(&answer);
        Ok(())
    }
}

/// What became of a request.
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
    /// Since an arbitrary start; never goes back. Timers run on it.
    pub monotonic: Duration,
    /// Since 1970; may jump. For people to read.
    pub wall: Duration,
}

/// What is left after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Turn {
    /// The budget ran out: call [`FileServer::turn`] again without waiting.
    pub pending: bool,
    /// The monotonic time at which to call it again; `None` means not before the next request.
    pub deadline: Option<Duration>,
}

/// A file whose state rose, and the bits that did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wakeup {
    /// Whose waits to try again and whose watchers to tell.
    pub file: FileId,
    /// What became possible.
    pub ready: Ready,
}

/// Who gets a signal, in the manner of `kill(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalTarget {
    /// One process.
    Process(Pid),
    /// Every process of a group.
    Group(Pid),
}

/// What a server must ask the system about its clients' processes. Injected, so that a server has
/// no system of its own.
pub trait Processes {
    /// The session of `target`; `None` when there is no such process or group.
    fn session(&self, target: SignalTarget) -> Option<Pid>;

    /// What tells the process from another that has its number later, as far as this system knows
    /// such a thing; `None` when it is not there.
    fn identity(&self, pid: Pid) -> Option<u64>;

    /// Whether the process is there and not a corpse.
    fn alive(&self, pid: Pid) -> bool {
        self.identity(pid).is_some()
    }

    /// Whether this system may forget to tell of a close. Then a device held by the dead may be
    /// taken over.
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

    /// The next `SIGIO` to send.
    #[must_use]
    fn poll_signal(&mut self) -> Option<SignalTarget> {
        None
    }

    /// Describes the file at `path` without opening, claiming or making it.
    fn stat(&mut self, path: &str) -> Result<Stat, Errno>;

    /// Opens the file at `path`.
    fn open(&mut self, path: &str, flags: OpenFlags, caller: Caller) -> Result<FileId, Errno>;

    /// Makes a new file from an open one, as a verb says. Plain dup never gets here. An answer of
    /// [`Outcome::Wait`] to a `nonblocking` caller becomes `EAGAIN`.
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

    /// How long a request for `file` may wait from now. After that it ends with `ETIMEDOUT`. `None`
    /// is for ever.
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

    /// Ends a read that was answered without error: tells whether its bytes were `delivered` to the
    /// client. It is called once for each such read, in their order. A packet that was not delivered
    /// goes back to the head of its queue.
    fn complete_read(&mut self, file: FileId, delivered: bool) {
        let _ = (file, delivered);
    }

    /// Writes `buf`; returns what was taken.
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

    /// Redox's `SYS_CALL`: a verb and its words in `metadata`, a payload both ways.
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

    /// `O_ASYNC` as set by `F_SETFL`. `O_NONBLOCK` stays with the front.
    fn set_async(&mut self, file: FileId, on: bool) -> Result<(), Errno> {
        let _ = (file, on);
        Ok(())
    }

    /// `fsync`.
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

    /// What can be done at once.
    fn ready(&mut self, file: FileId) -> Ready;

    /// The last descriptor is gone. Never fails; `file` may be used again for another.
    fn close(&mut self, file: FileId);
}

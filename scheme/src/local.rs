//! The adapter without a system: programs are threads of this process.
//!
//! A [`Local`] plays the kernel. Each [`Process`] has its own credentials and descriptor table, and
//! its methods are the system calls: they wait, are interrupted, share descriptions across
//! [`dup`](Process::dup) and [`fork`](Process::fork), and fail with the same errors as on a real
//! one. There is no thread of its own: whoever calls does the work that is due, and whoever waits
//! keeps the timers.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::dispatch::{Answer, Dispatch, Kind, Operation, Request};
use crate::errno::{self, Errno};
use crate::server::{
    Argument, Caller, DirEntry, FileId, FileServer, Now, OpenFlags, Outcome, Pid, Processes, Ready,
    SignalTarget, Stat,
};
use crate::table::Table;

/// Turns of a pending server before a call returns; the rest is left to the next.
const TURNS_PER_CALL: usize = 64;

/// Processes that are all there, in one session: for programs that are alone with their server.
#[derive(Clone, Copy, Debug)]
pub struct OneSession;

impl Processes for OneSession {
    fn session(&self, _target: SignalTarget) -> Option<Pid> {
        Some(Pid(1))
    }

    fn identity(&self, _pid: Pid) -> Option<u64> {
        Some(0)
    }

    fn closes_get_lost(&self) -> bool {
        false
    }
}

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Both clocks.
    fn now(&self) -> Now;
}

/// The system's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        Now {
            monotonic: self.start.elapsed(),
            wall: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
        }
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug, Default)]
pub struct ManualClock {
    now: Mutex<Now>,
}

impl ManualClock {
    /// Moves both clocks on.
    pub fn advance(&self, by: Duration) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.monotonic += by;
        now.wall += by;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Now {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Now {
        (**self).now()
    }
}

/// A descriptor of a [`Process`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fd(u32);

impl Fd {
    /// The descriptor with this number, whether it is open or not.
    pub const fn from_raw(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn raw(self) -> u32 {
        self.0
    }
}

/// The kernel that the processes share.
pub struct Local<S> {
    kernel: Mutex<Kernel<S>>,
    wake: Condvar,
    clock: Box<dyn Clock>,
}

struct Kernel<S> {
    dispatch: Dispatch<S, Call>,
    descriptions: BTreeMap<u64, Description>,
    done: BTreeMap<u64, Answer<Call>>,
    signals: Vec<SignalTarget>,
    next: u64,
    deadline: Option<Duration>,
}

/// An open file description: what dup and fork share.
struct Description {
    file: FileId,
    descriptors: usize,
    nonblocking: bool,
    offset: u64,
}

struct Call {
    offset: u64,
    kind: CallKind,
}

enum CallKind {
    Read(Vec<u8>),
    Write(Vec<u8>),
    Dup(Vec<u8>),
    Call(Vec<u8>, Vec<u64>),
}

impl Operation for Call {
    type Tag = u64;
    type Waiting = Self;
    type Buffer = ();

    fn kind(&mut self) -> Kind<'_> {
        match &self.kind {
            CallKind::Read(_) => Kind::Read,
            CallKind::Write(_) => Kind::Write,
            CallKind::Dup(verb) => Kind::Dup(verb),
            CallKind::Call(_, words) => Kind::Call(words),
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
        let Self { offset, kind } = &mut request.operation;
        match kind {
            CallKind::Read(buf) => server.read(file, buf, *offset, caller),
            CallKind::Write(buf) => server.write(file, buf, *offset, caller),
            CallKind::Dup(verb) => match server.dup(file, verb, request.nonblocking, caller) {
                Outcome::Done(result) => Outcome::Done(result.map(|file| file.0 as usize)),
                Outcome::Wait => Outcome::Wait,
            },
            CallKind::Call(payload, words) => server.call(file, payload, words, caller),
        }
    }
}

impl<S: FileServer> Local<S> {
    /// A kernel that serves `server`, with the system's clocks.
    pub fn new(server: S) -> Arc<Self> {
        Self::with_clock(server, SystemClock::default())
    }

    /// A kernel with a clock of the caller's choice.
    pub fn with_clock(server: S, clock: impl Clock + 'static) -> Arc<Self> {
        let local = Arc::new(Self {
            kernel: Mutex::new(Kernel {
                dispatch: Dispatch::new(server),
                descriptions: BTreeMap::new(),
                done: BTreeMap::new(),
                signals: Vec::new(),
                next: 0,
                deadline: None,
            }),
            wake: Condvar::new(),
            clock: Box::new(clock),
        });
        local.pump();
        local
    }

    /// A new process.
    pub fn process(self: &Arc<Self>, pid: u32, uid: u32) -> Process<S> {
        let caller = Caller { pid: Pid(pid), uid };
        Process {
            local: Arc::clone(self),
            caller,
            table: Mutex::default(),
        }
    }

    /// Does what is due now: for a clock that was moved by hand.
    pub fn pump(&self) {
        let mut kernel = self.lock();
        kernel.run(self.clock.now());
        drop(kernel);
        self.wake.notify_all();
    }

    /// The monotonic time at which something is due next.
    pub fn deadline(&self) -> Option<Duration> {
        self.lock().deadline
    }

    /// Looks at the server itself.
    pub fn with_server<T>(&self, look: impl FnOnce(&mut S) -> T) -> T {
        look(&mut self.lock().dispatch.server)
    }

    /// How many calls wait.
    pub fn waiting(&self) -> usize {
        self.lock().dispatch.waiting()
    }

    /// The signals sent so far, oldest first; forgets them.
    pub fn take_signals(&self) -> Vec<SignalTarget> {
        std::mem::take(&mut self.lock().signals)
    }

    // A panic in one client thread must not take the others along.
    fn lock(&self) -> MutexGuard<'_, Kernel<S>> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: FileServer> Kernel<S> {
    /// Runs the server until it is idle and hands out what came of it. True if anybody who sleeps
    /// may have been meant, if only to sleep less.
    fn run(&mut self, now: Now) -> bool {
        let mut woke = false;
        let before = self.deadline;
        for _ in 0..TURNS_PER_CALL {
            let (mut answers, mut edges) = (Vec::new(), Vec::new());
            let answer = |answer, _: &mut S, (): &()| answers.push(answer);
            let turn = self
                .dispatch
                .turn(now, answer, &mut edges, |_| true, |_| true);
            self.deadline = match turn.pending {
                true => Some(now.monotonic),
                false => turn.deadline,
            };
            woke |= !answers.is_empty() || !edges.is_empty();
            for answer in answers {
                self.finish(answer);
            }
            while let Some(target) = self.dispatch.server.poll_signal() {
                self.signals.push(target);
            }
            if !turn.pending {
                break;
            }
        }
        let earlier = self
            .deadline
            .is_some_and(|deadline| before.is_none_or(|before| deadline < before));
        woke || earlier
    }

    /// Keeps the answer of a call that waited for the thread that made it.
    fn finish(&mut self, answer: Answer<Call>) {
        if matches!(answer.request.operation.kind, CallKind::Read(_)) && answer.result.is_ok() {
            self.dispatch.server.settle(answer.request.file, true);
        }
        self.done.insert(answer.request.tag, answer);
    }

    fn close(&mut self, id: u64, caller: Caller) {
        let Some(description) = self.descriptions.get_mut(&id) else {
            return;
        };
        let file = description.file;
        for answer in self
            .dispatch
            .interrupt(file, |call| call.caller.pid == caller.pid)
        {
            self.finish(answer);
        }
        if let Some(description) = self.descriptions.get_mut(&id) {
            description.descriptors -= 1;
            if description.descriptors == 0 {
                self.descriptions.remove(&id);
                for answer in self.dispatch.close(file) {
                    self.finish(answer);
                }
            }
        }
    }
}

/// A process: credentials, and descriptors. Its threads share it by reference.
pub struct Process<S: FileServer> {
    local: Arc<Local<S>>,
    caller: Caller,
    /// The open file description behind each descriptor.
    table: Mutex<Table<u64>>,
}

impl<S: FileServer> Process<S> {
    /// `open(2)`. A path may begin with `/scheme/`.
    pub fn open(&self, path: &str, flags: OpenFlags) -> Result<Fd, Errno> {
        self.kernel(|kernel| {
            let path = path.strip_prefix("/scheme/").unwrap_or(path);
            let file = kernel.dispatch.open(path, flags, self.caller)?;
            Ok(self.install(kernel, file))
        })
    }

    /// `stat(2)`.
    pub fn stat(&self, path: &str) -> Result<Stat, Errno> {
        self.kernel(|kernel| kernel.dispatch.server.stat(path))
    }

    /// `read(2)`.
    pub fn read(&self, fd: Fd, buf: &mut [u8]) -> Result<usize, Errno> {
        let answer = self.call(fd, CallKind::Read(vec![0; buf.len()]))?;
        let CallKind::Read(bytes) = answer.request.operation.kind else {
            return Err(errno::EIO);
        };
        let len = answer.result?;
        buf[..len].copy_from_slice(&bytes[..len]);
        self.advance(fd, len);
        Ok(len)
    }

    /// `write(2)`.
    pub fn write(&self, fd: Fd, buf: &[u8]) -> Result<usize, Errno> {
        let len = self.call(fd, CallKind::Write(buf.to_vec()))?.result?;
        self.advance(fd, len);
        Ok(len)
    }

    /// `ioctl(2)`, with an argument of exactly the encoded size.
    pub fn ioctl(&self, fd: Fd, request: u32, arg: &mut [u8]) -> Result<(), Errno> {
        self.kernel(|kernel| {
            let file = self.file(kernel, fd)?;
            let arg = Argument::new(arg);
            kernel
                .dispatch
                .server
                .ioctl(file, request, arg, self.caller)
        })
    }

    /// Redox's `SYS_CALL`.
    pub fn sys_call(&self, fd: Fd, payload: &mut [u8], words: &[u64]) -> Result<usize, Errno> {
        let answer = self.call(fd, CallKind::Call(payload.to_vec(), words.to_vec()))?;
        let CallKind::Call(bytes, _) = answer.request.operation.kind else {
            return Err(errno::EIO);
        };
        payload.copy_from_slice(&bytes);
        answer.result
    }

    /// Redox's `dup` with a verb: a new file.
    pub fn dup_verb(&self, fd: Fd, verb: &[u8]) -> Result<Fd, Errno> {
        let file = self.call(fd, CallKind::Dup(verb.to_vec()))?.result?;
        self.kernel(|kernel| {
            let file = FileId(u32::try_from(file).map_err(|_| errno::EIO)?);
            kernel.dispatch.adopt(file);
            Ok(self.install(kernel, file))
        })
    }

    /// `dup(2)`: the same description.
    pub fn dup(&self, fd: Fd) -> Result<Fd, Errno> {
        self.kernel(|kernel| {
            let id = self.description(fd)?;
            let description = kernel.descriptions.get_mut(&id).ok_or(errno::EBADF)?;
            description.descriptors += 1;
            Ok(Fd(self.lock_table().add(id)))
        })
    }

    /// `fork(2)`: a child with the same descriptors.
    pub fn fork(&self, pid: u32) -> Self {
        let mut kernel = self.local.lock();
        let table = self.lock_table().clone();
        for id in table.values() {
            if let Some(description) = kernel.descriptions.get_mut(id) {
                description.descriptors += 1;
            }
        }
        drop(kernel);
        let caller = Caller {
            pid: Pid(pid),
            ..self.caller
        };
        Self {
            local: Arc::clone(&self.local),
            caller,
            table: Mutex::new(table),
        }
    }

    /// `close(2)`. Ends this process's waits on the file with `EINTR`, as Linux's FLUSH lets us.
    pub fn close(&self, fd: Fd) -> Result<(), Errno> {
        self.kernel(|kernel| {
            let id = self.lock_table().remove(fd.0).ok_or(errno::EBADF)?;
            kernel.close(id, self.caller);
            Ok(())
        })?;
        self.local.wake.notify_all();
        Ok(())
    }

    /// `F_SETFL` with or without `O_NONBLOCK`.
    pub fn set_nonblocking(&self, fd: Fd, on: bool) -> Result<(), Errno> {
        self.kernel(|kernel| {
            let id = self.description(fd)?;
            let description = kernel.descriptions.get_mut(&id).ok_or(errno::EBADF)?;
            description.nonblocking = on;
            Ok(())
        })
    }

    /// `fsync(2)`.
    pub fn sync(&self, fd: Fd) -> Result<(), Errno> {
        self.kernel(|kernel| {
            let file = self.file(kernel, fd)?;
            kernel.dispatch.server.sync(file)
        })
    }

    /// `fstat(2)`.
    pub fn fstat(&self, fd: Fd) -> Result<Stat, Errno> {
        self.kernel(|kernel| {
            let file = self.file(kernel, fd)?;
            kernel.dispatch.server.fstat(file)
        })
    }

    /// The path of an open file, as `fpath` gives it.
    pub fn path(&self, fd: Fd) -> Result<String, Errno> {
        self.kernel(|kernel| {
            let file = self.file(kernel, fd)?;
            Ok(format!("/scheme/{}", kernel.dispatch.server.path(file)?))
        })
    }

    /// The lines of an open directory.
    pub fn list(&self, fd: Fd) -> Result<Vec<DirEntry>, Errno> {
        self.kernel(|kernel| {
            let file = self.file(kernel, fd)?;
            kernel.dispatch.server.list(file)
        })
    }

    /// `poll(2)`: waits until one of `wanted` holds or the time is over, and tells for each file
    /// what does. `None` waits for ever.
    pub fn poll(
        &self,
        wanted: &[(Fd, Ready)],
        timeout: Option<Duration>,
    ) -> Result<Vec<Ready>, Errno> {
        let clock = &self.local.clock;
        let end = timeout.map(|timeout| clock.now().monotonic + timeout);
        let mut kernel = self.local.lock();
        loop {
            if kernel.run(clock.now()) {
                self.local.wake.notify_all();
            }
            let mut ready = Vec::with_capacity(wanted.len());
            for &(fd, mask) in wanted {
                let file = self.file(&kernel, fd)?;
                ready.push(kernel.dispatch.server.ready(file) & mask);
            }
            let over = end.is_some_and(|end| clock.now().monotonic >= end);
            if over || ready.iter().any(|ready| !ready.is_empty()) {
                return Ok(ready);
            }
            kernel = self.sleep(kernel, end);
        }
    }

    /// A signal with a handler: every call of this process that waits ends with `EINTR`.
    pub fn interrupt(&self) {
        let mut kernel = self.local.lock();
        let ids: Vec<u64> = self.lock_table().values().copied().collect();
        for id in ids {
            let Some(file) = kernel.descriptions.get(&id).map(|d| d.file) else {
                continue;
            };
            let pid = self.caller.pid;
            for answer in kernel
                .dispatch
                .interrupt(file, |call| call.caller.pid == pid)
            {
                kernel.finish(answer);
            }
        }
        drop(kernel);
        self.local.wake.notify_all();
    }

    fn kernel<T>(&self, body: impl FnOnce(&mut Kernel<S>) -> T) -> T {
        let mut kernel = self.local.lock();
        let now = self.local.clock.now();
        let mut woke = kernel.run(now);
        let result = body(&mut kernel);
        woke |= kernel.run(now);
        drop(kernel);
        if woke {
            self.local.wake.notify_all();
        }
        result
    }

    fn call(&self, fd: Fd, kind: CallKind) -> Result<Answer<Call>, Errno> {
        let mut kernel = self.local.lock();
        let now = self.local.clock.now();
        if kernel.run(now) {
            self.local.wake.notify_all();
        }
        kernel.next += 1;
        let id = self.description(fd)?;
        let description = kernel.descriptions.get(&id).ok_or(errno::EBADF)?;
        let tag = kernel.next;
        let request = Request {
            tag,
            file: description.file,
            caller: self.caller,
            nonblocking: description.nonblocking,
            operation: Call {
                offset: description.offset,
                kind,
            },
        };
        if let Some(answer) = kernel.dispatch.submit(request) {
            if matches!(answer.request.operation.kind, CallKind::Read(_)) && answer.result.is_ok() {
                kernel.dispatch.server.settle(answer.request.file, true);
            }
            if kernel.run(now) {
                self.local.wake.notify_all();
            }
            return Ok(answer);
        }
        loop {
            if kernel.run(self.local.clock.now()) {
                self.local.wake.notify_all();
            }
            if let Some(answer) = kernel.done.remove(&tag) {
                return Ok(answer);
            }
            kernel = self.sleep(kernel, None);
        }
    }

    /// Sleeps until woken, until `end`, or until the server has something to do.
    fn sleep<'a>(
        &self,
        kernel: MutexGuard<'a, Kernel<S>>,
        end: Option<Duration>,
    ) -> MutexGuard<'a, Kernel<S>> {
        let wake = &self.local.wake;
        let due = match (kernel.deadline, end) {
            (Some(deadline), Some(end)) => Some(deadline.min(end)),
            (deadline, end) => deadline.or(end),
        };
        let Some(due) = due else {
            return wake.wait(kernel).unwrap_or_else(PoisonError::into_inner);
        };
        // A clock that stands still never gets there: look again once in a while.
        let pause = due
            .saturating_sub(self.local.clock.now().monotonic)
            .clamp(Duration::from_micros(50), Duration::from_secs(1));
        let (kernel, _) = wake
            .wait_timeout(kernel, pause)
            .unwrap_or_else(PoisonError::into_inner);
        kernel
    }

    fn advance(&self, fd: Fd, len: usize) {
        let Ok(id) = self.description(fd) else {
            return;
        };
        if let Some(description) = self.local.lock().descriptions.get_mut(&id) {
            description.offset += len as u64;
        }
    }

    fn lock_table(&self) -> MutexGuard<'_, Table<u64>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn description(&self, fd: Fd) -> Result<u64, Errno> {
        self.lock_table().get(fd.0).copied().ok_or(errno::EBADF)
    }

    fn file(&self, kernel: &Kernel<S>, fd: Fd) -> Result<FileId, Errno> {
        let id = self.description(fd)?;
        let description = kernel.descriptions.get(&id).ok_or(errno::EBADF)?;
        Ok(description.file)
    }

    fn install(&self, kernel: &mut Kernel<S>, file: FileId) -> Fd {
        kernel.next += 1;
        let id = kernel.next;
        let description = Description {
            file,
            descriptors: 1,
            nonblocking: false,
            offset: 0,
        };
        kernel.descriptions.insert(id, description);
        Fd(self.lock_table().add(id))
    }
}

impl<S: FileServer> Drop for Process<S> {
    /// `exit(2)`.
    fn drop(&mut self) {
        let mut kernel = self.local.lock();
        let ids = std::mem::take(&mut *self.lock_table());
        for &id in ids.values() {
            kernel.close(id, self.caller);
        }
        kernel.run(self.local.clock.now());
        drop(kernel);
        self.local.wake.notify_all();
    }
}

//! Processes, and the system calls that they make.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::system_call::{SystemCall, read_of};
use super::{Description, Kernel, Local, complete};
use crate::dispatch::{Answer, Request};
use crate::errno::{self, Errno};
use crate::server::{Argument, Caller, FileId, FileServer, OpenFlags, Pid, Ready};
use crate::table::Table;

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

/// A process: credentials, and descriptors. Its threads share it by reference.
pub struct Process<S: FileServer> {
    local: Arc<Local<S>>,
    caller: Caller,
    /// The open file description behind each descriptor.
    table: Mutex<Table<u64>>,
}

impl<S: FileServer> Process<S> {
    pub(super) fn new(local: Arc<Local<S>>, caller: Caller) -> Self {
        Self {
            local,
            caller,
            table: Mutex::default(),
        }
    }

    /// `open(2)`. A path may begin with `/scheme/`.
    pub fn open(&self, path: &str, flags: OpenFlags) -> Result<Fd, Errno> {
        self.kernel(|kernel| {
            let path = path.strip_prefix("/scheme/").unwrap_or(path);
            let file = kernel.dispatch.open(path, flags, self.caller)?;
            Ok(self.install(kernel, file))
        })
    }

    /// `read(2)`.
    pub fn read(&self, fd: Fd, buf: &mut [u8]) -> Result<usize, Errno> {
        let size = buf.len();
        let answer = self.call(fd, buf, |offset| SystemCall::Read { offset, size })?;
        let len = answer.result?;
        self.advance(fd, len);
        Ok(len)
    }

    /// `write(2)`.
    pub fn write(&self, fd: Fd, buf: &[u8]) -> Result<usize, Errno> {
        let answer = self.call(fd, &mut [], |offset| SystemCall::Write {
            offset,
            bytes: buf.to_vec(),
        })?;
        let len = answer.result?;
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
        let answer = self.call(fd, &mut [], |_| SystemCall::Call {
            payload: payload.to_vec(),
            metadata: words.to_vec(),
        })?;
        let SystemCall::Call { payload: bytes, .. } = answer.request.operation else {
            return Err(errno::EIO);
        };
        payload.copy_from_slice(&bytes);
        answer.result
    }

    /// Redox's `dup` with a verb: a new file.
    pub fn dup_verb(&self, fd: Fd, verb: &[u8]) -> Result<Fd, Errno> {
        let verb = verb.to_vec();
        let file = self
            .call(fd, &mut [], |_| SystemCall::Dup { verb })?
            .result?;
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

    /// `close(2)`. Ends this process's waits on the file with `EINTR`, as FLUSH does on Linux.
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

    /// The path of an open file, as `fpath` gives it.
    pub fn path(&self, fd: Fd) -> Result<String, Errno> {
        self.kernel(|kernel| {
            let file = self.file(kernel, fd)?;
            Ok(format!("/scheme/{}", kernel.dispatch.server.path(file)?))
        })
    }

    /// `poll(2)`: waits until one of `wanted` holds or the time is over, and returns for each file
    /// the readiness that holds. `None` waits for ever.
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

    /// Makes a call, at the offset of the description, and waits for its answer. The bytes it reads
    /// are put into `buf`.
    fn call(
        &self,
        fd: Fd,
        buf: &mut [u8],
        call: impl FnOnce(u64) -> SystemCall,
    ) -> Result<Answer<SystemCall>, Errno> {
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
            operation: call(description.offset),
        };
        if let Some(answer) = kernel.dispatch.submit(request) {
            let read = read_of(&answer, &kernel.dispatch.buffer);
            buf[..read.len()].copy_from_slice(read);
            complete(&mut kernel.dispatch.server, &answer);
            if kernel.run(now) {
                self.local.wake.notify_all();
            }
            return Ok(answer);
        }
        loop {
            if kernel.run(self.local.clock.now()) {
                self.local.wake.notify_all();
            }
            if let Some((answer, read)) = kernel.done.remove(&tag) {
                buf[..read.len()].copy_from_slice(&read);
                return Ok(answer);
            }
            kernel = self.sleep(kernel, None);
        }
    }

    /// Sleeps until woken, until `end`, or until the server has work to do.
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
        // A clock that stands still never gets there, so this checks from time to time.
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

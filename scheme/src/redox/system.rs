//! Processes, clocks and signals of Redox. All the unsafe code of the front.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use libredox::Fd;
use libredox::data::TimeSpec;
use libredox::protocol::{NsDup, NsPermissions};
use syscall::dirent::DirentIter;

use super::processes::{self, Manager};
use crate::server::{Now, Pid, SignalTarget};

// The libc crate does not declare it for Redox.
unsafe extern "C" {
    fn getsid(pid: libc::pid_t) -> libc::pid_t;
}

/// The manager of processes, which is a process.
pub(super) struct ProcessManager {
    /// The root of `/scheme/proc`.
    root: Fd,
}

impl ProcessManager {
    /// Keeps the way to it, for use after this process has left its namespace.
    pub(super) fn keep() -> io::Result<Self> {
        let flags = libredox::flag::O_DIRECTORY | libredox::flag::O_CLOEXEC;
        let namespace = libredox::call::getns()?;
        let root = libredox::call::openat(namespace, "/scheme/proc", flags, 0)?;
        Ok(Self {
            root: Fd::new(root),
        })
    }

    fn read(&self) -> io::Result<String> {
        let flags = libredox::flag::O_RDONLY | libredox::flag::O_CLOEXEC;
        let list = self.root.openat("ps", flags, 0)?;
        processes::read_list(|piece| Ok(list.read(piece)?))
    }
}

impl Manager for ProcessManager {
    fn list(&self) -> Option<String> {
        let list = self.read();
        list.inspect_err(|error| log::error!("the list of processes: {error}"))
            .ok()
    }

    fn session(&self, target: SignalTarget) -> Option<Pid> {
        let pid = match target {
            SignalTarget::Process(pid) | SignalTarget::Group(pid) => pid,
        };
        let pid = i32::try_from(pid.0).ok()?;
        let reached = match target {
            SignalTarget::Process(_) => pid,
            SignalTarget::Group(_) => -pid,
        };
        if !exists(reached) {
            return None;
        }
        // SAFETY: getsid takes a number and touches no memory of ours.
        let session = unsafe { getsid(pid) };
        u32::try_from(session).ok().map(Pid)
    }

    fn exists(&self, pid: Pid) -> bool {
        i32::try_from(pid.0).is_ok_and(exists)
    }
}

fn exists(pid: i32) -> bool {
    // SAFETY: signal 0 is not delivered; kill touches no memory of ours.
    let found = unsafe { libc::kill(pid, 0) } == 0;
    found || io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}

/// Sends `SIGIO`. Another process cannot have got the number of one that is dead.
pub(super) fn signal(target: SignalTarget) {
    let pid = match target {
        SignalTarget::Process(pid) => i32::try_from(pid.0).ok(),
        SignalTarget::Group(group) => i32::try_from(group.0).ok().map(|group| -group),
    };
    if let Some(pid) = pid {
        // SAFETY: kill touches no memory of ours. That nobody is there is not our affair.
        unsafe { libc::kill(pid, libc::SIGIO) };
    }
}

/// The present time, of both clocks.
pub fn now() -> Now {
    Clocks::default().now()
}

/// Both clocks. Each costs a system call, so the wall clock is read only now and then.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    /// The time since 1970 less the monotonic time, and the monotonic time at which it was read.
    offset: Option<(Duration, Duration)>,
    last: Now,
}

impl Clocks {
    /// How long the offset between the two clocks is used before it is read again.
    const OFFSET_LIFETIME: Duration = Duration::from_secs(1);

    #[inline]
    pub(super) fn now(&mut self) -> Now {
        let monotonic = read(libredox::flag::CLOCK_MONOTONIC);
        let offset = match self.offset {
            Some((offset, found)) if monotonic < found + Self::OFFSET_LIFETIME => offset,
            _ => {
                let wall = read(libredox::flag::CLOCK_REALTIME);
                let offset = wall.saturating_sub(monotonic);
                self.offset = Some((offset, monotonic));
                offset
            }
        };
        self.last = Now {
            monotonic,
            wall: monotonic + offset,
        };
        self.last
    }

    /// The time that was read last.
    pub(super) fn last(&self) -> Now {
        self.last
    }
}

fn read(clock: i32) -> Duration {
    let read = || {
        let time = libredox::call::clock_gettime(clock).ok()?;
        Some(Duration::new(
            u64::try_from(time.tv_sec).ok()?,
            u32::try_from(time.tv_nsec).ok()?,
        ))
    };
    read().unwrap_or_default()
}

/// A timer of `/scheme/time`: it becomes readable at the deadline.
pub(super) struct Timer {
    fd: Fd,
    armed: Option<Duration>,
}

impl Timer {
    pub(super) fn new() -> io::Result<Self> {
        let path = format!("/scheme/time/{}", libredox::flag::CLOCK_MONOTONIC);
        let flags = libredox::flag::O_RDWR | libredox::flag::O_NONBLOCK | libredox::flag::O_CLOEXEC;
        let fd = Fd::open(&path, flags, 0)?;
        Ok(Self { fd, armed: None })
    }

    pub(super) fn raw(&self) -> usize {
        self.fd.raw()
    }

    /// Requests an event at `deadline`. An earlier one that was requested still comes.
    pub(super) fn arm(&mut self, deadline: Duration) -> io::Result<()> {
        if self.armed.is_some_and(|armed| armed <= deadline) {
            return Ok(());
        }
        let time = TimeSpec {
            tv_sec: i64::try_from(deadline.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: deadline.subsec_nanos() as _,
        };
        // SAFETY: a TimeSpec is plain numbers, and the slice covers exactly its bytes.
        let bytes = unsafe {
            std::slice::from_raw_parts((&raw const time).cast::<u8>(), size_of::<TimeSpec>())
        };
        self.fd.write(bytes)?;
        self.armed = Some(deadline);
        Ok(())
    }

    /// Handles the event of the timer.
    pub(super) fn fired(&mut self) {
        self.armed = None;
        let mut time = [0; size_of::<TimeSpec>()];
        // The bytes read are the time, which is not used.
        let _ = self.fd.read(&mut time);
    }
}

static STOP: AtomicBool = AtomicBool::new(false);
static CHILD: AtomicI32 = AtomicI32::new(0);

extern "C" fn on_stop(_signal: libc::c_int) {
    STOP.store(true, Ordering::SeqCst);
    // SAFETY: it is this thread's own errno, which lives as long as the thread.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above; what was interrupted may be about to read it.
    let before = unsafe { *errno };
    stop_child();
    // SAFETY: as above.
    unsafe { *errno = before };
}

/// Passes a termination signal on to the [child](set_child), if there is one. A handler may call
/// it.
pub(super) fn stop_child() {
    let child = CHILD.load(Ordering::SeqCst);
    if child > 0 {
        // SAFETY: kill touches no memory of ours, and may be called from a handler.
        unsafe { libc::kill(child, libc::SIGTERM) };
    }
}

/// From now on SIGTERM and SIGINT only set the flag that [`stopped`] returns, and are passed on to
/// the [child](set_child). SIGIO, which ends a process by default on Redox, is ignored: init's
/// services are one process group, and a daemon that left it would no longer be waited for by init.
pub(super) fn catch_signals() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // SAFETY: the handler only stores to an atomic, calls kill, which is allowed there, and
        // leaves errno as it was.
        unsafe { libc::signal(signal, on_stop as *const () as libc::sighandler_t) };
    }
    // SAFETY: no handler of ours is involved.
    unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) };
}

pub(super) fn stopped() -> bool {
    STOP.load(Ordering::SeqCst)
}

/// The child that a termination signal is passed on to; 0 for none.
pub(super) fn set_child(pid: i32) {
    CHILD.store(pid, Ordering::SeqCst);
}

/// Makes a process that goes on from here, as this one does: its number, or `None` in the new one.
/// The caller has one thread only.
pub(super) fn fork() -> io::Result<Option<i32>> {
    // SAFETY: there is no other thread that could hold a lock which nobody releases in the child.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        child => Ok(Some(child)),
    }
}

/// Waits for the end of a child.
pub(super) fn wait(child: i32) -> io::Result<ExitStatus> {
    let mut status = 0;
    loop {
        // SAFETY: the status is written to, and lives during the call.
        if unsafe { libc::waitpid(child, &raw mut status, 0) } == child {
            return Ok(ExitStatus::from_raw(status));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Zeroed memory that this process shares with those that it forks, for ever.
pub(super) fn shared_memory(words: usize) -> io::Result<&'static [AtomicU64]> {
    let len = words * size_of::<AtomicU64>();
    let (read_write, shared) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_SHARED | libc::MAP_ANONYMOUS,
    );
    // SAFETY: new memory, at an address that the kernel chooses.
    let memory = unsafe { libc::mmap(std::ptr::null_mut(), len, read_write, shared, -1, 0) };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the memory is that long, aligned to a page, zeroed, and never unmapped. All who have it
    // use it as atomic words.
    let memory = unsafe { std::slice::from_raw_parts(memory.cast::<AtomicU64>(), words) };
    // A page that nobody has written to is not shared yet: each process would get its own.
    for word in memory {
        word.store(0, Ordering::Relaxed);
    }
    Ok(memory)
}

/// Removes a scheme's name from our namespace, where a daemon that died has left it.
pub(super) fn unlink_scheme(name: &str) {
    let unlinked = libredox::call::getns()
        .map_err(io::Error::from)
        .and_then(|namespace| unlink_from(namespace, name));
    if let Err(error) = unlinked {
        log::debug!("unlink {name}: {error}");
    }
}

fn unlink_from(namespace: usize, name: &str) -> io::Result<()> {
    let path = format!("/scheme/{name}");
    // SAFETY: the path is readable for its length during the call.
    let unlinked = unsafe {
        syscall::syscall4(
            syscall::SYS_UNLINKAT,
            namespace,
            path.as_ptr() as usize,
            path.len(),
            0,
        )
    };
    let error = |error: syscall::Error| io::Error::from_raw_os_error(error.errno);
    unlinked.map(drop).map_err(error)
}

/// The original namespace of this process, kept for use after the process has left it.
///
/// Its holder can still open every scheme in it: the kernel has no way to keep only some of a
/// namespace and still see schemes that come later. But no path leads there, and no scheme can be
/// made.
pub struct Namespace {
    namespace: Fd,
    list: Fd,
}

impl Namespace {
    /// Keeps the namespace of this process.
    pub fn keep() -> io::Result<Self> {
        let current = libredox::call::getns()?;
        let mut verb = (NsDup::ShrinkPermissions as usize).to_ne_bytes().to_vec();
        let permissions = NsPermissions::LIST | NsPermissions::DELETE;
        verb.extend_from_slice(&permissions.bits().to_ne_bytes());
        let namespace = Fd::new(libredox::call::dup(current, verb)?);
        let list = Fd::open(
            "/scheme",
            libredox::flag::O_DIRECTORY | libredox::flag::O_CLOEXEC,
            0,
        )?;
        Ok(Self { namespace, list })
    }

    /// The names of its schemes.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        let mut buffer = [0; 4096];
        let mut next = 0;
        loop {
            let len = libredox::call::getdents(self.list.raw(), &mut buffer, next)?;
            if len == 0 {
                return Ok(names);
            }
            for entry in DirentIter::new(&buffer[..len]) {
                let Ok((header, name)) = entry else {
                    return Err(io::ErrorKind::InvalidData.into());
                };
                next = header.next_opaque_id;
                // Records are padded with zeros.
                let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
                names.push(String::from_utf8_lossy(name).into_owned());
            }
        }
    }

    /// Opens a file of a scheme; the root of the scheme for an empty path.
    pub fn open(&self, scheme: &str, path: &str, flags: i32) -> io::Result<std::fs::File> {
        use std::os::fd::FromRawFd;

        let root = self.root(scheme)?;
        let fcntl = u32::try_from(flags & !libredox::flag::O_ACCMODE).unwrap_or(0);
        let file = root.openat(path, flags | libredox::flag::O_CLOEXEC, fcntl)?;
        let raw = i32::try_from(file.into_raw()).map_err(|_| io::ErrorKind::InvalidData)?;
        // SAFETY: the descriptor was just opened, and nobody else knows of it.
        Ok(unsafe { std::fs::File::from_raw_fd(raw) })
    }

    /// Removes the name of a scheme if its daemon is gone, so that the next daemon can take it.
    pub fn clear(&self, scheme: &str) {
        let gone = |error: &io::Error| error.raw_os_error() == Some(libc::ENODEV);
        // The namespace opens the root of a scheme even if its daemon is gone.
        let opened = self.open(scheme, "", libredox::flag::O_RDONLY);
        if opened.is_err_and(|error| gone(&error)) {
            // Another process that saw that it is gone may have been faster.
            if let Err(error) = unlink_from(self.namespace.raw(), scheme) {
                log::debug!("unlink {scheme}: {error}");
            }
        }
    }

    fn root(&self, scheme: &str) -> io::Result<Fd> {
        let path = format!("/scheme/{scheme}");
        let flags = libredox::flag::O_DIRECTORY | libredox::flag::O_CLOEXEC;
        Ok(self.namespace.openat(&path, flags, 0)?)
    }
}

/// The names of the schemes in the namespace of this process.
pub(super) fn scheme_names() -> io::Result<Vec<String>> {
    Namespace::keep()?.names()
}

/// Whether a scheme's name exists, but its daemon does not.
pub(super) fn is_orphan(name: &str) -> bool {
    let root = Fd::open(&format!("/scheme/{name}"), libredox::flag::O_RDONLY, 0);
    matches!(root, Err(error) if error.errno() == libc::ENODEV)
}

/// Whether a descriptor is open. -1, which a file may not be made of, never is.
fn is_open(fd: i32) -> bool {
    // SAFETY: F_GETFD takes no argument and touches no memory of ours.
    fd >= 0 && unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0
}

/// The pipe on which init waits to hear that we are ready.
pub(super) struct InitNotify(Option<std::fs::File>);

impl InitNotify {
    /// Takes the pipe from the environment. Init waits as long as any process has it open.
    pub(super) fn take() -> Self {
        use std::os::fd::FromRawFd;

        let fd = std::env::var("INIT_NOTIFY")
            .ok()
            .and_then(|fd| fd.parse().ok())
            .filter(|&fd| is_open(fd));
        // SAFETY: the descriptor is open. Init made it for us, says so, and nobody else here uses
        // it.
        Self(fd.map(|fd| unsafe { std::fs::File::from_raw_fd(fd) }))
    }

    /// Nobody waits.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// Tells init that we are ready.
    pub(super) fn ready(self) {
        use std::io::Write;

        if let Some(mut pipe) = self.0
            && let Err(error) = pipe.write_all(&[0])
        {
            log::warn!("cannot tell init that we are ready: {error}");
        }
    }
}

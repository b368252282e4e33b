//! System calls that std does not have.

use std::ffi::c_int;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::panic::AssertUnwindSafe;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use event::{EventFlags, RawEventQueue};
use syscall::CallFlags;

use crate::harness::{caught, message};

fn check(result: c_int) -> io::Result<c_int> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(result),
    }
}

/// Turns the errors of libredox into those of std.
pub(crate) fn redox<T>(result: libredox::error::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::from_raw_os_error(error.errno()))
}

/// Opens a path with flags that std does not pass.
pub(crate) fn open(path: &str, flags: c_int) -> io::Result<File> {
    let fd = redox(libredox::call::open(path, flags, 0))?;
    // SAFETY: the descriptor was just made, and nobody else has it.
    Ok(unsafe { File::from_raw_fd(fd as RawFd) })
}

/// Opens a path relative to a descriptor.
pub(crate) fn openat(dir: &impl AsRawFd, path: &str, flags: c_int) -> io::Result<File> {
    let dir = dir.as_raw_fd() as usize;
    let fd = redox(libredox::call::openat(dir, path, flags, 0))?;
    // SAFETY: the descriptor was just made, and nobody else has it.
    Ok(unsafe { File::from_raw_fd(fd as RawFd) })
}

/// dup(2) with a verb.
pub(crate) fn dup(file: &impl AsRawFd, verb: &str) -> io::Result<File> {
    let fd = redox(libredox::call::dup(file.as_raw_fd() as usize, verb))?;
    // SAFETY: the descriptor was just made, and nobody else has it.
    Ok(unsafe { File::from_raw_fd(fd as RawFd) })
}

/// The path of a descriptor.
pub(crate) fn fpath(file: &impl AsRawFd) -> io::Result<String> {
    let mut path = [0; 256];
    let len = redox(libredox::call::fpath(file.as_raw_fd() as usize, &mut path))?;
    Ok(String::from_utf8_lossy(&path[..len]).into_owned())
}

/// `SYS_CALL`, which carries an ioctl.
pub(crate) fn call(file: &impl AsRawFd, payload: &mut [u8], words: &[u64]) -> io::Result<usize> {
    let fd = file.as_raw_fd() as usize;
    redox(libredox::call::call_rw(
        fd,
        payload,
        CallFlags::empty(),
        words,
    ))
}

/// Sends a descriptor to the server of a handle.
pub(crate) fn send_to_server(file: &impl AsRawFd, sent: OwnedFd) -> io::Result<usize> {
    let fd = file.as_raw_fd() as usize;
    let payload = (sent.as_raw_fd() as usize).to_ne_bytes();
    redox(libredox::call::call_wo(fd, &payload, CallFlags::FD, &[]))
}

/// Asks the server of a handle for a descriptor.
pub(crate) fn receive_from_server(file: &impl AsRawFd) -> io::Result<usize> {
    let fd = file.as_raw_fd() as usize;
    let mut payload = usize::MAX.to_ne_bytes();
    redox(libredox::call::call_ro(
        fd,
        &mut payload,
        CallFlags::FD,
        &[],
    ))
}

/// `fcntl(2)` with a number.
pub(crate) fn fcntl(file: &impl AsRawFd, command: c_int, arg: c_int) -> io::Result<c_int> {
    // SAFETY: the commands used here take a number.
    check(unsafe { libc::fcntl(file.as_raw_fd(), command, arg) })
}

/// Switches a flag of `F_SETFL`.
pub(crate) fn set_flag(file: &impl AsRawFd, flag: c_int, on: bool) {
    let flags = fcntl(file, libc::F_GETFL, 0).expect("F_GETFL");
    let flags = if on { flags | flag } else { flags & !flag };
    fcntl(file, libc::F_SETFL, flags).expect("F_SETFL");
}

/// Closes a descriptor that others may be using.
pub(crate) fn close(fd: RawFd) -> io::Result<()> {
    // SAFETY: the callers gave it up (`into_raw_fd`).
    check(unsafe { libc::close(fd) }).map(drop)
}

/// `read(2)` on a bare descriptor.
pub(crate) fn read(fd: RawFd, buf: &mut [u8]) -> io::Result<usize> {
    redox(libredox::call::read(fd as usize, buf))
}

/// `tcsetpgrp(3)`.
pub(crate) fn tcsetpgrp(file: &impl AsRawFd, group: i32) -> io::Result<()> {
    // SAFETY: takes numbers.
    check(unsafe { libc::tcsetpgrp(file.as_raw_fd(), group) }).map(drop)
}

/// `tcgetpgrp(3)`.
pub(crate) fn tcgetpgrp(file: &impl AsRawFd) -> io::Result<i32> {
    // SAFETY: takes a number.
    check(unsafe { libc::tcgetpgrp(file.as_raw_fd()) })
}

/// Waits on one descriptor; returns the events, 0 for none.
pub(crate) fn poll(file: &impl AsRawFd, events: i16, millis: i32) -> i16 {
    let mut fd = libc::pollfd {
        fd: file.as_raw_fd(),
        events,
        revents: 0,
    };
    // SAFETY: one pollfd, as the count says.
    check(unsafe { libc::poll(&raw mut fd, 1, millis) }).expect("poll");
    fd.revents
}

/// An epoll instance.
pub(crate) struct Epoll(OwnedFd);

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: takes a number.
        let fd = check(unsafe { libc::epoll_create1(0) })?;
        // SAFETY: the descriptor was just made, and nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub(crate) fn control(&self, operation: c_int, file: &impl AsRawFd, events: c_int) {
        let mut event = libc::epoll_event {
            events: events as u32,
            u64: 7,
            _pad: 0,
        };
        // SAFETY: the event is read before the call returns.
        let done = unsafe {
            libc::epoll_ctl(
                self.0.as_raw_fd(),
                operation,
                file.as_raw_fd(),
                &raw mut event,
            )
        };
        check(done).expect("epoll_ctl");
    }

    /// The events of each ready descriptor.
    pub(crate) fn wait(&self, millis: i32) -> Vec<u32> {
        const MOST: usize = 16;
        let none = libc::epoll_event {
            events: 0,
            u64: 0,
            _pad: 0,
        };
        let mut events = [none; MOST];
        // SAFETY: there is room for as many events as the count says.
        let got = unsafe {
            libc::epoll_wait(
                self.0.as_raw_fd(),
                events.as_mut_ptr(),
                MOST as c_int,
                millis,
            )
        };
        let got = check(got).expect("epoll_wait");
        events[..got as usize]
            .iter()
            .map(|event| event.events)
            .collect()
    }
}

/// An event queue that can be waited on with a time limit: a thread reads it.
pub(crate) struct Events {
    queue: &'static RawEventQueue,
    got: mpsc::Receiver<(usize, EventFlags)>,
}

impl Events {
    pub(crate) fn new() -> Self {
        // The thread keeps the queue until the process ends.
        let queue: &RawEventQueue =
            Box::leak(Box::new(RawEventQueue::new().expect("an event queue")));
        let (send, got) = mpsc::channel();
        thread::spawn(move || {
            while let Ok(event) = queue.next_event() {
                let flags = EventFlags::from_bits_truncate(event.flags);
                if send.send((event.user_data, flags)).is_err() {
                    break;
                }
            }
        });
        Self { queue, got }
    }

    pub(crate) fn subscribe(&self, file: &impl AsRawFd, data: usize, flags: EventFlags) {
        let fd = file.as_raw_fd() as usize;
        redox(self.queue.subscribe(fd, data, flags)).expect("subscribe");
    }

    /// The next event, if it comes in time.
    pub(crate) fn next(&self, limit: Duration) -> Option<(usize, EventFlags)> {
        self.got.recv_timeout(limit).ok()
    }

    /// The number of events that come until there is none for `quiet`.
    pub(crate) fn count(&self, quiet: Duration) -> usize {
        std::iter::from_fn(|| self.next(quiet)).count()
    }
}

/// Maps the first page of a file, and unmaps it.
pub(crate) fn map(file: &impl AsRawFd, flags: c_int) -> io::Result<()> {
    const PAGE: usize = 4096;
    // SAFETY: a new mapping, which nobody touches.
    let page = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            PAGE,
            libc::PROT_READ,
            flags,
            file.as_raw_fd(),
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping that was just made.
    check(unsafe { libc::munmap(page, PAGE) }).map(drop)
}

/// Handles `signal` with `handler`; a waiting system call is interrupted unless `restart`.
pub(crate) fn on_signal(signal: c_int, handler: extern "C" fn(c_int), restart: bool) {
    // SAFETY: the zeroes are an empty mask and no flags.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = if restart { libc::SA_RESTART } else { 0 };
    // SAFETY: the handlers used here only count or do nothing.
    check(unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) })
        .expect("sigaction");
}

/// Ignores `signal`.
pub(crate) fn ignore(signal: c_int) {
    // SAFETY: takes numbers.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// `kill(2)`.
pub(crate) fn kill(pid: i32, signal: c_int) -> io::Result<()> {
    // SAFETY: takes numbers.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// This process.
pub(crate) fn pid() -> i32 {
    std::process::id() as i32
}

/// This process's group.
pub(crate) fn group() -> i32 {
    // SAFETY: takes nothing.
    unsafe { libc::getpgrp() }
}

/// Puts this process into a group of its own.
pub(crate) fn new_group() {
    // SAFETY: takes numbers.
    check(unsafe { libc::setpgid(0, 0) }).expect("setpgid");
}

/// Makes this process the leader of a session of its own.
pub(crate) fn new_session() {
    // SAFETY: takes nothing.
    check(unsafe { libc::setsid() }).expect("setsid");
}

/// Drops root privileges: becomes the user `uid`.
pub(crate) fn become_user(uid: u32) {
    // SAFETY: takes numbers.
    check(unsafe { libc::setgid(uid) }).expect("setgid");
    // SAFETY: takes numbers.
    check(unsafe { libc::setuid(uid) }).expect("setuid");
}

/// Ends this process at once, as `_exit(2)` does.
pub(crate) fn exit_now(code: c_int) -> ! {
    // SAFETY: takes a number.
    unsafe { libc::_exit(code) }
}

/// Takes a name out of the namespace of this process.
pub(crate) fn unlink_scheme(name: &str) -> io::Result<()> {
    let namespace = redox(libredox::call::getns())?;
    syscall::unlinkat(namespace, format!("/scheme/{name}"), 0)
        .map(drop)
        .map_err(|error| io::Error::from_raw_os_error(error.errno))
}

/// A pipe.
pub(crate) fn pipe() -> (File, File) {
    let (read, write) = io::pipe().expect("a pipe");
    (OwnedFd::from(read).into(), OwnedFd::from(write).into())
}

/// Two connected sockets.
pub(crate) fn socket_pair() -> (OwnedFd, OwnedFd) {
    let mut fds = [0; 2];
    // SAFETY: there is room for two descriptors.
    let done = unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, fds.as_mut_ptr()) };
    check(done).expect("socketpair");
    // SAFETY: both were just made, and nobody else has them.
    unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) }
}

/// Room for the control message of one descriptor.
#[repr(C, align(8))]
struct Control([u8; 64]);

fn with_message<T>(byte: &mut [u8; 1], use_it: impl FnOnce(&mut libc::msghdr) -> T) -> T {
    let mut control = Control([0; 64]);
    let mut piece = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: 1,
    };
    // SAFETY: zeroes are a message without anything.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut piece;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len();
    use_it(&mut header)
}

/// Passes a descriptor (`SCM_RIGHTS`). On Redox this moves it: the sender no longer has it.
pub(crate) fn send_fd(socket: &impl AsRawFd, fd: RawFd) -> io::Result<()> {
    with_message(&mut [b'x'], |header| {
        // SAFETY: takes a number.
        header.msg_controllen = unsafe { libc::CMSG_SPACE(4) } as usize;
        // SAFETY: the control buffer is large enough for one header and one descriptor, and aligned.
        unsafe {
            let message = libc::CMSG_FIRSTHDR(header);
            (*message).cmsg_level = libc::SOL_SOCKET;
            (*message).cmsg_type = libc::SCM_RIGHTS;
            (*message).cmsg_len = libc::CMSG_LEN(4) as usize;
            libc::CMSG_DATA(message).cast::<RawFd>().write_unaligned(fd);
        }
        // SAFETY: the message and what it points to live until the call returns.
        let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), header, 0) };
        match sent {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    })
}

/// Takes a descriptor that was passed.
pub(crate) fn receive_fd(socket: &impl AsRawFd) -> io::Result<File> {
    with_message(&mut [0], |header| {
        // SAFETY: the message and what it points to live until the call returns.
        let got = unsafe { libc::recvmsg(socket.as_raw_fd(), header, 0) };
        if got == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel filled the control buffer, which is aligned.
        let message = unsafe { libc::CMSG_FIRSTHDR(header) };
        if message.is_null() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // SAFETY: a message with one descriptor, which nobody else has.
        unsafe {
            let fd = libc::CMSG_DATA(message).cast::<RawFd>().read_unaligned();
            Ok(File::from_raw_fd(fd))
        }
    })
}

/// A forked process. It is killed and waited for when dropped.
pub(crate) struct Child {
    pub(crate) pid: i32,
    /// The pipe on which it reports that it is ready, and why it failed.
    said: File,
    waited: bool,
}

/// The child's end of the pipe to its parent.
pub(crate) struct Parent(File);

impl Parent {
    /// Lets [`Child::ready`] return.
    pub(crate) fn ready(&self) {
        (&self.0).write_all(b"!").expect("tell the parent");
    }
}

/// Forks. The child runs `body` and exits; if it panics, so does [`Child::finish`].
pub(crate) fn fork(body: impl FnOnce(&Parent)) -> Child {
    let (said, say) = pipe();
    // SAFETY: called where no other thread holds a lock: tests fork before they make threads.
    let pid = check(unsafe { libc::fork() }).expect("fork");
    if pid != 0 {
        drop(say);
        let waited = false;
        return Child { pid, said, waited };
    }
    drop(said);
    let parent = Parent(say);
    let code = match caught(AssertUnwindSafe(|| body(&parent))) {
        Ok(()) => 0,
        Err(payload) => {
            let _ = (&parent.0).write_all(format!("?{}", message(&*payload)).as_bytes());
            1
        }
    };
    exit_now(code)
}

impl Child {
    /// Waits until the child says that it is ready.
    #[track_caller]
    pub(crate) fn ready(&mut self) {
        let mut byte = [0];
        let got = self.said.read(&mut byte).expect("hear the child");
        if (got, byte) != (1, *b"!") {
            let mut rest = String::new();
            let _ = self.said.read_to_string(&mut rest);
            panic!("in the child: {rest}");
        }
    }

    /// Waits until the child is ready, and then for a while, so that it can enter a system call.
    #[track_caller]
    pub(crate) fn waiting(&mut self) {
        self.ready();
        pause(100);
    }

    pub(crate) fn signal(&self, signal: c_int) {
        kill(self.pid, signal).expect("kill");
    }

    /// Kills it, and returns when it is dead.
    pub(crate) fn kill(mut self) {
        self.signal(libc::SIGKILL);
        self.wait();
    }

    /// Waits until a signal has ended it, for as long as `limit`. Returns the signal.
    #[track_caller]
    pub(crate) fn ended_by(&mut self, limit: Duration) -> Option<c_int> {
        let mut status = 0;
        // SAFETY: the status is written before the call returns.
        let mut reap = || unsafe { libc::waitpid(self.pid, &raw mut status, libc::WNOHANG) };
        if !becomes(limit, || reap() == self.pid) {
            return None;
        }
        self.waited = true;
        assert!(libc::WIFSIGNALED(status), "it ended by itself: {status}");
        Some(libc::WTERMSIG(status))
    }

    fn wait(&mut self) -> c_int {
        let mut status = 0;
        // SAFETY: the status is written before the call returns.
        while unsafe { libc::waitpid(self.pid, &raw mut status, 0) } == -1 {
            let error = io::Error::last_os_error();
            assert_eq!(error.kind(), io::ErrorKind::Interrupted, "waitpid: {error}");
        }
        self.waited = true;
        status
    }

    /// Waits until the child ends, and fails if it failed.
    #[track_caller]
    pub(crate) fn finish(mut self) {
        let status = self.wait();
        let mut said = String::new();
        let _ = self.said.read_to_string(&mut said);
        let said = said.trim_start_matches(['!', '?']);
        assert!(status == 0, "in the child: {said} (status {status})");
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.waited {
            let _ = kill(self.pid, libc::SIGKILL);
            self.wait();
        }
    }
}

/// Runs `work` in a thread; `None` if it does not end in time.
pub(crate) fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    background(work).recv_timeout(limit).ok()
}

/// Runs `work` in a thread; the result comes through the channel.
pub(crate) fn background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> mpsc::Receiver<T> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let _ = send.send(work());
    });
    receive
}

/// Sleeps.
pub(crate) fn pause(millis: u64) {
    thread::sleep(Duration::from_millis(millis));
}

/// Waits until `so` is true, for as long as `limit`.
pub(crate) fn becomes(limit: Duration, mut so: impl FnMut() -> bool) -> bool {
    let start = std::time::Instant::now();
    while !so() {
        if start.elapsed() > limit {
            return false;
        }
        pause(10);
    }
    true
}

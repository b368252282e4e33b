//! Two systems with the same calls: threads of this process, and files of a real mount.

use std::ffi::CString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use net::{Config, Host, Services};
use scheme::local::{Fd, Local, ManualClock, Process};
use scheme::{OpenFlags, Pid, Processes, Ready, SignalTarget};

/// An error number.
pub type Errno = i32;

/// System calls, as a program makes them. Paths are below `/scheme`.
pub trait System: Send + Sync {
    fn open(&self, path: &str, read: bool, write: bool) -> Result<i32, Errno>;
    fn read(&self, fd: i32, buf: &mut [u8]) -> Result<usize, Errno>;
    fn write(&self, fd: i32, bytes: &[u8]) -> Result<usize, Errno>;
    fn ioctl(&self, fd: i32, request: u32, arg: &mut [u8]) -> Result<(), Errno>;
    /// Whether READ (1) and WRITE (4) hold, waiting for READ until the time is over.
    fn poll(&self, fd: i32, timeout: Duration) -> Result<(bool, bool), Errno>;
    fn set_nonblocking(&self, fd: i32) -> Result<(), Errno>;
    fn dup(&self, fd: i32) -> Result<i32, Errno>;
    fn close(&self, fd: i32) -> Result<(), Errno>;
    fn fsync(&self, fd: i32) -> Result<(), Errno>;
    fn pid(&self) -> u32;

    fn open_rw(&self, path: &str) -> i32 {
        self.open(path, true, true)
            .unwrap_or_else(|error| panic!("open {path}: {error}"))
    }

    fn text(&self, path: &str) -> String {
        let fd = self
            .open(path, true, false)
            .unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut text = Vec::new();
        let mut buf = [0; 8192];
        loop {
            match self.read(fd, &mut buf).unwrap() {
                0 => break,
                len => text.extend_from_slice(&buf[..len]),
            }
        }
        self.close(fd).unwrap();
        String::from_utf8(text).unwrap()
    }

    fn set(&self, path: &str, line: &str) -> Result<(), Errno> {
        let fd = self.open(path, false, true)?;
        let written = self.write(fd, line.as_bytes());
        self.close(fd).unwrap();
        written.map(|len| assert_eq!(len, line.len()))
    }

    /// A counter of an interface.
    fn stat(&self, interface: &str, name: &str) -> u64 {
        let text = self.text(&format!("netcfg/ifaces/{interface}/stats"));
        counter(&text, name)
    }

    /// The packets dropped on the interface, for all reasons together.
    fn drops(&self, interface: &str) -> u64 {
        let stats = self.text(&format!("netcfg/ifaces/{interface}/stats"));
        let drops = stats.lines().filter(|line| line.starts_with("drop."));
        drops
            .map(|line| line.split(' ').nth(1).unwrap().parse::<u64>().unwrap())
            .sum()
    }

    /// Checks that every packet of the interface is in exactly one place, and every drop has a
    /// reason.
    ///
    /// Packets may arrive meanwhile: each text is of one moment, but not both of the same.
    fn assert_ledger_closes(&self, interface: &str) {
        let before = self.drops(interface);
        let text = self.text(&format!("netcfg/ifaces/{interface}/ledger"));
        let after = self.drops(interface);
        let get = |name: &str| counter(&text, name);
        for way in ["in", "out"] {
            let parts = ["delivered", "forwarded", "queued", "dropped"];
            let sum: u64 = parts.iter().map(|part| get(&format!("{way}.{part}"))).sum();
            assert_eq!(get(&format!("{way}.offered")), sum, "{interface}:\n{text}");
        }
        let dropped = get("in.dropped") + get("out.dropped");
        assert!(
            (before..=after).contains(&dropped),
            "{dropped} dropped, for reasons between {before} and {after}:\n{text}"
        );
    }
}

/// One line's number: `NAME 42`.
pub fn counter(text: &str, name: &str) -> u64 {
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = value.unwrap_or_else(|| panic!("no {name} in {text}"));
    value.parse().unwrap()
}

/// The processes of the local system: the test's own.
pub struct TestProcesses;

impl Processes for TestProcesses {
    fn session(&self, target: SignalTarget) -> Option<Pid> {
        match target {
            SignalTarget::Process(Pid(pid)) | SignalTarget::Group(Pid(pid)) if pid < 100 => {
                Some(Pid(1))
            }
            SignalTarget::Process(Pid(999)) => Some(Pid(999)),
            _ => None,
        }
    }

    fn identity(&self, pid: Pid) -> Option<u64> {
        (pid.0 < 100).then_some(0)
    }

    fn closes_get_lost(&self) -> bool {
        false
    }
}

/// A machine of this seed, without a front.
pub fn host(seed: u64, services: Services) -> Host {
    let seed = seed.into();
    Host::new(Config { seed, services }, TestProcesses)
}

/// A machine of this seed, and its clock, which the test moves.
pub fn machine(seed: u64, services: Services) -> (Arc<Local<Host>>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::default());
    (
        Local::with_clock(host(seed, services), Arc::clone(&clock)),
        clock,
    )
}

/// Threads of this process, through the local front.
pub struct LocalSystem {
    process: Process<Host>,
}

impl LocalSystem {
    pub fn new() -> Self {
        Self::over(&Local::new(host(1, Services::all())))
    }

    /// The superuser's programs on this machine.
    pub fn over(local: &Arc<Local<Host>>) -> Self {
        Self {
            process: local.process(42, 0),
        }
    }
}

// The local front's descriptors are opaque. Those of the tests are numbers, as on a real system.
fn fd(fd: i32) -> Fd {
    Fd::from_raw(fd as u32)
}

impl System for LocalSystem {
    fn open(&self, path: &str, read: bool, write: bool) -> Result<i32, Errno> {
        let mut flags = OpenFlags::empty();
        flags.set(OpenFlags::READ, read);
        flags.set(OpenFlags::WRITE, write);
        let opened = self.process.open(&format!("/scheme/{path}"), flags);
        opened
            .map(|fd| fd.raw() as i32)
            .map_err(|error| error.raw())
    }

    fn read(&self, at: i32, buf: &mut [u8]) -> Result<usize, Errno> {
        self.process.read(fd(at), buf).map_err(|error| error.raw())
    }

    fn write(&self, at: i32, bytes: &[u8]) -> Result<usize, Errno> {
        self.process
            .write(fd(at), bytes)
            .map_err(|error| error.raw())
    }

    fn ioctl(&self, at: i32, request: u32, arg: &mut [u8]) -> Result<(), Errno> {
        self.process
            .ioctl(fd(at), request, arg)
            .map_err(|error| error.raw())
    }

    fn poll(&self, at: i32, timeout: Duration) -> Result<(bool, bool), Errno> {
        // As poll(2) with POLLIN alone, and then the readiness of both.
        let wait = self.process.poll(&[(fd(at), Ready::READ)], Some(timeout));
        wait.map_err(|error| error.raw())?;
        let ready = self
            .process
            .poll(&[(fd(at), Ready::all())], Some(Duration::ZERO));
        let ready = ready.map_err(|error| error.raw())?[0];
        Ok((ready.contains(Ready::READ), ready.contains(Ready::WRITE)))
    }

    fn set_nonblocking(&self, at: i32) -> Result<(), Errno> {
        self.process
            .set_nonblocking(fd(at), true)
            .map_err(|error| error.raw())
    }

    fn dup(&self, at: i32) -> Result<i32, Errno> {
        let copy = self.process.dup(fd(at));
        copy.map(|fd| fd.raw() as i32).map_err(|error| error.raw())
    }

    fn close(&self, at: i32) -> Result<(), Errno> {
        self.process.close(fd(at)).map_err(|error| error.raw())
    }

    fn fsync(&self, at: i32) -> Result<(), Errno> {
        self.process.sync(fd(at)).map_err(|error| error.raw())
    }

    fn pid(&self) -> u32 {
        42
    }
}

/// A real mount, served by the real daemon.
pub struct MountSystem {
    dir: PathBuf,
    daemon: Child,
    _temporary: tempfile::TempDir,
}

impl MountSystem {
    /// The reason why a mount is not possible here, if there is one.
    pub fn missing() -> Option<&'static str> {
        // SAFETY: takes and touches nothing.
        if unsafe { libc::geteuid() } != 0 {
            return Some("not root");
        }
        if !Path::new("/dev/fuse").exists() {
            return Some("no /dev/fuse");
        }
        None
    }

    pub fn new() -> Self {
        Self::started(Command::new(env!("CARGO_BIN_EXE_tund")))
    }

    /// The mount of the daemon that this command starts. It is given the rest of its arguments.
    pub fn started(mut command: Command) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().to_owned();
        let mut daemon = command
            .args(["--serve", "echo,discard,chargen", "--mount"])
            .arg(&dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(daemon.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert!(line.contains("serving"), "tund said {line:?}");
        Self {
            dir,
            daemon,
            _temporary: temporary,
        }
    }

    /// Sends the daemon a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: a signal to our own child, which is not reaped yet.
        assert_eq!(unsafe { libc::kill(self.daemon.id() as i32, signal) }, 0);
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn daemon_pid(&self) -> u32 {
        self.daemon.id()
    }
}

impl Drop for MountSystem {
    fn drop(&mut self) {
        self.signal(libc::SIGTERM);
        let status = self.daemon.wait().unwrap();
        if !std::thread::panicking() {
            assert!(status.success(), "tund ended with {status}");
        }
    }
}

fn check<T: PartialEq + From<i8>>(result: T) -> Result<T, Errno> {
    match result == T::from(-1) {
        true => Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)),
        false => Ok(result),
    }
}

impl System for MountSystem {
    fn open(&self, path: &str, read: bool, write: bool) -> Result<i32, Errno> {
        let path = self.dir.join(path);
        let path = CString::new(path.to_str().unwrap()).unwrap();
        let flags = match (read, write) {
            (true, true) => libc::O_RDWR,
            (false, true) => libc::O_WRONLY,
            _ => libc::O_RDONLY,
        };
        // SAFETY: the path is a C string that lives through the call.
        check(unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) })
    }

    fn read(&self, fd: i32, buf: &mut [u8]) -> Result<usize, Errno> {
        // SAFETY: the buffer is writable for its length.
        let len = check(unsafe { libc::read(fd, buf.as_mut_ptr().cast(), buf.len()) })?;
        Ok(len as usize)
    }

    fn write(&self, fd: i32, bytes: &[u8]) -> Result<usize, Errno> {
        // SAFETY: the bytes are readable for their length.
        let len = check(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) })?;
        Ok(len as usize)
    }

    fn ioctl(&self, fd: i32, request: u32, arg: &mut [u8]) -> Result<(), Errno> {
        // Whatever size a request encodes, the kernel must find that much memory here.
        let mut memory = vec![0; 16_384.max(arg.len())];
        memory[..arg.len()].copy_from_slice(arg);
        // SAFETY: no request encodes more than 16383 bytes.
        check(unsafe { libc::ioctl(fd, request.into(), memory.as_mut_ptr()) })?;
        arg.copy_from_slice(&memory[..arg.len()]);
        Ok(())
    }

    fn poll(&self, fd: i32, timeout: Duration) -> Result<(bool, bool), Errno> {
        let ask = |events, timeout| {
            let revents = 0;
            let mut poll = libc::pollfd {
                fd,
                events,
                revents,
            };
            // SAFETY: one pollfd, writable.
            check(unsafe { libc::poll(&raw mut poll, 1, timeout) })?;
            Ok::<i16, Errno>(poll.revents)
        };
        ask(libc::POLLIN, timeout.as_millis() as i32)?;
        let ready = ask(libc::POLLIN | libc::POLLOUT, 0)?;
        Ok((ready & libc::POLLIN != 0, ready & libc::POLLOUT != 0))
    }

    fn set_nonblocking(&self, fd: i32) -> Result<(), Errno> {
        // SAFETY: no pointers.
        check(unsafe { libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK) }).map(drop)
    }

    fn dup(&self, fd: i32) -> Result<i32, Errno> {
        // SAFETY: no pointers.
        check(unsafe { libc::dup(fd) })
    }

    fn close(&self, fd: i32) -> Result<(), Errno> {
        // SAFETY: the tests close what they opened.
        check(unsafe { libc::close(fd) }).map(drop)
    }

    fn fsync(&self, fd: i32) -> Result<(), Errno> {
        // SAFETY: no pointers.
        check(unsafe { libc::fsync(fd) }).map(drop)
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }
}

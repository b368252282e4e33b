//! The adapter for Linux: the tree as real files, through `/dev/fuse`.
//!
//! The protocol is spoken directly, because a tun device needs three things at once that no FUSE
//! crate carries: ioctl, poll, and interrupt, with replies kept for later. The structures are those
//! of `polyfuse-kernel`; requests are served in the order in which the kernel hands them out, so
//! that a close that came before an open is served before it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use polyfuse_kernel as abi;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno as Sys;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::{Pid as SysPid, PidfdFlags, Signal};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::dispatch::{Answer, Dispatch, Kind, Operation, Request};
use crate::errno::{self, Errno};
use crate::local::Clock;
use crate::server::{
    Argument, Caller, DirEntry, FileId, FileKind, FileServer, Now, OpenFlags, Outcome, Pid,
    Processes, Ready, SignalTarget, Stat, Turn,
};

/// Most bytes of one read or write.
const MAX_OPERATION: usize = 1 << 20;
/// The same in pages, as the kernel counts.
const MAX_PAGES: u16 = 256;
/// Requests served before the stop signal is looked at again.
const REQUESTS_PER_TURN: usize = 64;
/// The kernel allows several writes at once (`FOPEN_PARALLEL_DIRECT_WRITES`); without it a waiting
/// read would hold the lock that a write needs.
const PARALLEL_DIRECT_WRITES: u32 = 1 << 6;

/// The size of what has none, bytes.
const ENDLESS: u64 = 1 << 40;
/// Most of a write that is kept while it waits, bytes. Only streams wait for room, and they take a
/// part.
const KEPT: usize = 64 << 10;

/// The kernel's number for the root of the tree.
const ROOT: u64 = 1;

const POLLIN: u32 = 0x0001 | 0x0040;
const POLLOUT: u32 = 0x0004 | 0x0100;

/// What a mount of ours calls itself.
const KIND: &str = "fuse.tund";

/// A mounted tree; unmounted on drop.
#[derive(Debug)]
pub struct Mount {
    device: OwnedFd,
    dir: PathBuf,
}

impl Mount {
    /// Mounts at `dir`, which must exist. Needs root, or a user namespace of one's own. Takes the
    /// place of a mount whose daemon died; a living one keeps it, `EBUSY`.
    pub fn new(dir: &Path) -> io::Result<Self> {
        use std::os::fd::AsRawFd;

        let dir = vacate(dir)?;
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let device = rustix::fs::open("/dev/fuse", flags, Mode::empty())?;
        let options = format!(
            "fd={},rootmode=40000,user_id={},group_id={},allow_other,max_read={MAX_OPERATION}",
            device.as_raw_fd(),
            rustix::process::getuid().as_raw(),
            rustix::process::getgid().as_raw(),
        );
        let options = std::ffi::CString::new(options)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
        rustix::mount::mount("tund", &dir, KIND, flags, options.as_c_str())?;
        Ok(Self { device, dir })
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether the kernel has closed the connection.
    fn is_gone(&self) -> bool {
        let mut fds = [PollFd::new(&self.device, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&Timespec::default())), Ok(1..))
            && fds[0].revents().contains(PollFlags::ERR)
    }
}

/// The real path of `dir`, once no mount of ours is there. A dead one is taken away.
fn vacate(dir: &Path) -> io::Result<PathBuf> {
    let dir = dir.canonicalize()?;
    while is_ours(&dir)? {
        match rustix::fs::stat(&dir) {
            Err(Sys::NOTCONN) => {
                log::warn!("the daemon that served {} died", dir.display());
                rustix::mount::unmount(&dir, UnmountFlags::DETACH)?;
            }
            _ => {
                let busy = io::ErrorKind::ResourceBusy;
                return Err(io::Error::new(busy, "another tund serves it"));
            }
        }
    }
    Ok(dir)
}

/// Whether a path is on a mount of ours, alive or dead.
fn is_ours(path: &Path) -> io::Result<bool> {
    // The dead cannot be asked, but the kernel remembers where they were.
    let flags = AtFlags::STATX_DONT_SYNC;
    let stat = rustix::fs::statx(CWD, path, flags, StatxFlags::empty())?;
    let device = format!("{}:{}", stat.stx_dev_major, stat.stx_dev_minor);
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(mounts.lines().any(|line| {
        // Number, parent, device, ... - kind, ...
        let kind = line
            .split_once(" - ")
            .map(|(_, rest)| rest.split(' ').next());
        line.split(' ').nth(2) == Some(&device) && kind == Some(Some(KIND))
    }))
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.is_gone() {
            // Somebody has unmounted it. What is at the directory now is not ours.
            return;
        }
        if let Err(error) = rustix::mount::unmount(&self.dir, UnmountFlags::DETACH) {
            log::warn!("cannot unmount {}: {error}", self.dir.display());
        }
    }
}

/// A descriptor that becomes readable at SIGINT, SIGTERM or SIGHUP; not at a SIGHUP that was
/// ignored before us, by `nohup`.
pub fn stop_signals() -> io::Result<OwnedFd> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        if signal != SIGHUP || !is_ignored(signal) {
            signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
        }
    }
    Ok(reader)
}

/// Whether we ignore a signal.
fn is_ignored(signal: i32) -> bool {
    let mask = || {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        u64::from_str_radix(mask?.trim(), 16).ok()
    };
    mask().unwrap_or(0) & 1 << (signal - 1) != 0
}

/// Linux's processes.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinuxProcesses;

impl Processes for LinuxProcesses {
    fn session(&self, target: SignalTarget) -> Option<Pid> {
        let session = |pid: Pid| {
            let pid = SysPid::from_raw(i32::try_from(pid.0).ok()?)?;
            let session = rustix::process::getsid(Some(pid)).ok()?;
            Some(Pid(session.as_raw_nonzero().get().unsigned_abs()))
        };
        match target {
            SignalTarget::Process(pid) => session(pid),
            // The leader may be gone while its group lives on.
            SignalTarget::Group(group) => members(group).find_map(session),
        }
    }

    /// When it began, to a hundredth of a second, and, since Linux 6.9, its own inode.
    fn identity(&self, pid: Pid) -> Option<u64> {
        let started = stat_field(pid, 19)?;
        let number = SysPid::from_raw(i32::try_from(pid.0).ok()?)?;
        let open = rustix::process::pidfd_open(number, PidfdFlags::empty());
        let inode = open
            .and_then(rustix::fs::fstat)
            .map_or(0, |stat| stat.st_ino);
        Some(started.rotate_left(32) ^ inode)
    }

    fn closes_get_lost(&self) -> bool {
        false
    }
}

/// The processes of a group.
fn members(group: Pid) -> impl Iterator<Item = Pid> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(move |entry| {
        let pid = Pid(entry.file_name().to_str()?.parse().ok()?);
        (stat_field(pid, 2)? == u64::from(group.0)).then_some(pid)
    })
}

/// A number of `/proc/PID/stat`, counted from the state, which is 0.
fn stat_field(pid: Pid, at: usize) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.0)).ok()?;
    // The name before it may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(at)?.parse().ok()
}

/// A line of `/proc/THREAD/status`; `None` if there is no such thread.
fn status_of(thread: Pid, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{}/status", thread.0)).ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.trim().to_owned())
}

/// The process of a thread. FUSE reports threads.
fn process_of(thread: Pid) -> Pid {
    let process = status_of(thread, "Tgid:").and_then(|pid| pid.parse().ok());
    process.map_or(thread, Pid)
}

/// Whether a thread is gone, or will be before it sees an answer.
fn is_killed(thread: Pid) -> bool {
    let Some(pending) = status_of(thread, "SigPnd:") else {
        return true;
    };
    let pending = u64::from_str_radix(&pending, 16).unwrap_or(0);
    pending & 1 << (Signal::KILL.as_raw() - 1) != 0
}

/// Who has used an open file.
#[derive(Debug)]
struct Users {
    process: Pid,
    /// Threads of the process that were seen.
    threads: Vec<Pid>,
    /// Whether others use it too, or too many to be sure.
    shared: bool,
}

impl Users {
    /// Most threads remembered.
    const MOST: usize = 16;

    fn new(process: Pid, thread: Pid) -> Self {
        Self {
            process,
            threads: vec![thread],
            shared: false,
        }
    }

    fn add(&mut self, thread: Pid) {
        if self.shared || self.threads.contains(&thread) {
            return;
        }
        let process = self.process;
        if self.threads.len() >= Self::MOST {
            // Those that have ended are nobody's.
            self.threads.retain(|&thread| process_of(thread) == process);
        }
        self.shared = self.threads.len() >= Self::MOST || process_of(thread) != process;
        self.threads.push(thread);
    }
}

/// Serves `server` at `mount` until `stop` becomes readable or somebody unmounts it.
pub fn serve<S: FileServer>(
    server: S,
    mount: &Mount,
    clock: &dyn Clock,
    stop: BorrowedFd<'_>,
) -> io::Result<()> {
    let mut session = Session {
        device: mount.device.as_fd(),
        dispatch: Dispatch::new(server),
        nodes: Nodes::default(),
        pollers: BTreeMap::new(),
        users: BTreeMap::new(),
        listings: BTreeMap::new(),
        connected: true,
    };
    let mut buffer = vec![0; MAX_OPERATION + 4096];
    loop {
        let mut turn = session.turn(clock.now());
        let mut served = 0;
        while session.connected && served < REQUESTS_PER_TURN {
            match rustix::io::read(session.device, &mut buffer[..]) {
                Ok(len) => session.handle(&buffer[..len]),
                Err(Sys::AGAIN) => break,
                // The request was interrupted before it was handed out.
                Err(Sys::INTR | Sys::NOENT) => {}
                Err(Sys::NODEV) => session.connected = false,
                Err(error) => return Err(error.into()),
            }
            served += 1;
            // What a request leads to comes before the next request: whoever writes a packet and
            // then changes something finds that done to the next packet, not to this one.
            turn = session.turn(clock.now());
        }
        if !session.connected {
            return Ok(());
        }
        if turn.pending || served == REQUESTS_PER_TURN {
            continue;
        }
        let timeout = turn.deadline.map(|deadline| {
            let pause = deadline.saturating_sub(clock.now().monotonic);
            Timespec {
                tv_sec: pause.as_secs().min(86_400) as i64,
                tv_nsec: pause.subsec_nanos().into(),
            }
        });
        let mut fds = [
            PollFd::new(&session.device, PollFlags::IN),
            PollFd::new(&stop, PollFlags::IN),
        ];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) if !fds[1].revents().is_empty() => return Ok(()),
            Ok(_) | Err(Sys::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A read or write that may wait.
#[derive(Debug)]
struct Call {
    offset: u64,
    kind: CallKind,
}

#[derive(Debug)]
enum CallKind {
    /// The size wanted, and what was read.
    Read(usize, Vec<u8>),
    Write(Vec<u8>),
}

impl Operation for Call {
    /// The request's number in the protocol.
    type Tag = u64;

    fn kind(&mut self) -> Kind<'_> {
        match self.kind {
            CallKind::Read(..) => Kind::Read,
            CallKind::Write(_) => Kind::Write,
        }
    }

    fn park(&mut self) {
        if let CallKind::Write(bytes) = &mut self.kind {
            bytes.truncate(KEPT);
            bytes.shrink_to_fit();
        }
    }

    fn attempt<S: FileServer>(request: &mut Request<Self>, server: &mut S) -> Outcome<usize> {
        let Request { file, caller, .. } = *request;
        let Self { offset, kind } = &mut request.operation;
        match kind {
            CallKind::Read(size, bytes) => {
                let mut buf = vec![0; *size];
                let outcome = server.read(file, &mut buf, *offset, caller);
                if let Outcome::Done(Ok(len)) = outcome {
                    buf.truncate(len);
                    *bytes = buf;
                }
                outcome
            }
            CallKind::Write(bytes) => server.write(file, bytes, *offset, caller),
        }
    }
}

/// The paths that the kernel holds numbers of.
#[derive(Debug, Default)]
struct Nodes {
    nodes: BTreeMap<u64, Node>,
    numbers: BTreeMap<String, u64>,
    last: u64,
}

#[derive(Debug)]
struct Node {
    path: String,
    lookups: u64,
}

impl Nodes {
    fn path(&self, number: u64) -> Result<&str, Errno> {
        match number {
            ROOT => Ok(""),
            _ => Ok(&self.nodes.get(&number).ok_or(errno::ENOENT)?.path),
        }
    }

    fn child(&self, parent: u64, name: &str) -> Result<String, Errno> {
        let parent = self.path(parent)?;
        Ok(match parent {
            "" => name.to_owned(),
            _ => format!("{parent}/{name}"),
        })
    }

    fn look_up(&mut self, path: String) -> u64 {
        let number = *self.numbers.entry(path.clone()).or_insert_with(|| {
            self.last += 1;
            self.last + ROOT
        });
        let node = self
            .nodes
            .entry(number)
            .or_insert(Node { path, lookups: 0 });
        node.lookups += 1;
        number
    }

    fn forget(&mut self, number: u64, lookups: u64) {
        let Some(node) = self.nodes.get_mut(&number) else {
            return;
        };
        node.lookups = node.lookups.saturating_sub(lookups);
        if node.lookups == 0
            && let Some(node) = self.nodes.remove(&number)
        {
            self.numbers.remove(&node.path);
        }
    }
}

struct Session<'a, S> {
    device: BorrowedFd<'a>,
    dispatch: Dispatch<S, Call>,
    nodes: Nodes,
    /// The kernel's handle for each file that somebody polls.
    pollers: BTreeMap<FileId, u64>,
    /// Who uses each open file.
    users: BTreeMap<FileId, Users>,
    /// What each open directory lists. Offsets are places in it, which no change may move.
    listings: BTreeMap<FileId, Vec<DirEntry>>,
    connected: bool,
}

/// What a request is answered with, unless it waits or wants no answer.
type Reply = Result<Vec<u8>, Errno>;

impl<S: FileServer> Session<'_, S> {
    fn handle(&mut self, message: &[u8]) {
        let Ok((header, body)) = abi::fuse_in_header::read_from_prefix(message) else {
            return;
        };
        let caller = Caller {
            pid: Pid(header.pid),
            uid: header.uid,
        };
        let reply = match header.opcode {
            abi::FUSE_INIT => self.init(body),
            abi::FUSE_DESTROY => {
                self.connected = false;
                Ok(Vec::new())
            }
            abi::FUSE_LOOKUP => self.look_up(header.nodeid, body),
            abi::FUSE_FORGET => {
                if let Ok(forget) = parse::<abi::fuse_forget_in>(body) {
                    self.nodes.forget(header.nodeid, forget.nlookup);
                }
                return;
            }
            abi::FUSE_BATCH_FORGET => return self.forget_many(body),
            abi::FUSE_GETATTR => self.attributes(header.nodeid),
            // Truncation, times: nothing here keeps any. Modes and owners stay as they are.
            abi::FUSE_SETATTR => self.set_attributes(header.nodeid, body),
            abi::FUSE_OPEN => self.open(header.nodeid, body, caller),
            abi::FUSE_OPENDIR => self.open_directory(header.nodeid, caller),
            abi::FUSE_READDIR => self.read_directory(body),
            abi::FUSE_READ => return self.read(header.unique, body, caller),
            abi::FUSE_WRITE => return self.write(header.unique, body, caller),
            abi::FUSE_IOCTL => self.ioctl(body, caller),
            abi::FUSE_POLL => self.poll(body),
            abi::FUSE_FLUSH => self.flush(body, caller),
            abi::FUSE_FSYNC => parse::<abi::fuse_fsync_in>(body)
                .and_then(|fsync| self.dispatch.server.sync(file(fsync.fh)))
                .map(|()| Vec::new()),
            abi::FUSE_FSYNCDIR => Ok(Vec::new()),
            abi::FUSE_ACCESS => self.access(header.nodeid, body, caller),
            abi::FUSE_RELEASE | abi::FUSE_RELEASEDIR => self.release(body),
            abi::FUSE_STATFS => Ok(abi::fuse_statfs_out::default().as_bytes().to_vec()),
            abi::FUSE_INTERRUPT => {
                if let Ok(interrupt) = parse::<abi::fuse_interrupt_in>(body) {
                    let answer = self.dispatch.cancel(interrupt.unique, errno::EINTR);
                    answer.into_iter().for_each(|answer| self.answer(answer));
                }
                return;
            }
            // O_CREAT makes nothing: what is not there is not there.
            abi::FUSE_CREATE => Err(errno::ENOENT),
            abi::FUSE_MKNOD
            | abi::FUSE_MKDIR
            | abi::FUSE_UNLINK
            | abi::FUSE_RMDIR
            | abi::FUSE_RENAME
            | abi::FUSE_RENAME2 => Err(errno::EPERM),
            _ => Err(errno::ENOSYS),
        };
        self.reply(header.unique, reply.as_deref());
    }

    fn init(&mut self, body: &[u8]) -> Reply {
        let init = parse::<abi::fuse_init_in>(body)?;
        let wanted = abi::FUSE_ATOMIC_O_TRUNC
            | abi::FUSE_BIG_WRITES
            | abi::FUSE_MAX_PAGES
            | abi::FUSE_PARALLEL_DIROPS;
        let out = abi::fuse_init_out {
            max_readahead: init.max_readahead,
            flags: init.flags & wanted,
            // Releases travel in the background: none may be held back behind others.
            max_background: u16::MAX,
            congestion_threshold: u16::MAX,
            max_write: MAX_OPERATION as u32,
            time_gran: 1,
            max_pages: MAX_PAGES,
            ..Default::default()
        };
        Ok(out.as_bytes().to_vec())
    }

    fn look_up(&mut self, parent: u64, body: &[u8]) -> Reply {
        let path = self.nodes.child(parent, name(body)?)?;
        let stat = self.dispatch.server.stat(&path)?;
        let nodeid = self.nodes.look_up(path);
        // Nothing is remembered: interfaces come and go.
        let entry = abi::fuse_entry_out {
            nodeid,
            attr: attributes(nodeid, stat),
            ..Default::default()
        };
        Ok(entry.as_bytes().to_vec())
    }

    fn forget_many(&mut self, body: &[u8]) {
        let Ok((batch, mut rest)) = abi::fuse_batch_forget_in::read_from_prefix(body) else {
            return;
        };
        for _ in 0..batch.count {
            let Ok((one, tail)) = abi::fuse_forget_one::read_from_prefix(rest) else {
                return;
            };
            self.nodes.forget(one.nodeid, one.nlookup);
            rest = tail;
        }
    }

    fn attributes(&mut self, nodeid: u64) -> Reply {
        let stat = self.dispatch.server.stat(self.nodes.path(nodeid)?)?;
        let out = abi::fuse_attr_out {
            attr: attributes(nodeid, stat),
            ..Default::default()
        };
        Ok(out.as_bytes().to_vec())
    }

    /// Answers by the mode, which holds for root too: so does an open.
    fn access(&mut self, nodeid: u64, body: &[u8], caller: Caller) -> Reply {
        let wanted = parse::<abi::fuse_access_in>(body)?.mask;
        let stat = self.dispatch.server.stat(self.nodes.path(nodeid)?)?;
        // Everything is root's.
        let granted = match caller.uid {
            0 => stat.mode >> 6,
            _ => stat.mode,
        };
        match wanted & 0o7 & !u32::from(granted) {
            0 => Ok(Vec::new()),
            _ => Err(errno::EACCES),
        }
    }

    fn set_attributes(&mut self, nodeid: u64, body: &[u8]) -> Reply {
        let set = parse::<abi::fuse_setattr_in>(body)?;
        if set.valid & (abi::FATTR_MODE | abi::FATTR_UID | abi::FATTR_GID) != 0 {
            return Err(errno::EPERM);
        }
        self.attributes(nodeid)
    }

    fn open(&mut self, nodeid: u64, body: &[u8], caller: Caller) -> Reply {
        let open = parse::<abi::fuse_open_in>(body)?;
        let sys = OFlags::from_bits_retain(open.flags);
        let mut flags = match sys & OFlags::RWMODE {
            OFlags::WRONLY => OpenFlags::WRITE,
            OFlags::RDWR => OpenFlags::READ | OpenFlags::WRITE,
            _ => OpenFlags::READ,
        };
        flags.set(OpenFlags::TRUNCATE, sys.contains(OFlags::TRUNC));
        let path = self.nodes.path(nodeid)?.to_owned();
        let stat = self.dispatch.server.stat(&path)?;
        let thread = caller.pid;
        let caller = Caller {
            pid: process_of(thread),
            ..caller
        };
        let id = self.dispatch.open(&path, flags, caller)?;
        self.users.insert(id, Users::new(caller.pid, thread));
        let open_flags = match stat.kind {
            FileKind::Device => {
                abi::FOPEN_DIRECT_IO
                    | abi::FOPEN_STREAM
                    | abi::FOPEN_NONSEEKABLE
                    | PARALLEL_DIRECT_WRITES
            }
            FileKind::Text | FileKind::Directory => abi::FOPEN_DIRECT_IO,
        };
        let out = abi::fuse_open_out {
            fh: id.0.into(),
            open_flags,
            padding: 0,
        };
        Ok(out.as_bytes().to_vec())
    }

    fn open_directory(&mut self, nodeid: u64, caller: Caller) -> Reply {
        let path = self.nodes.path(nodeid)?.to_owned();
        let flags = OpenFlags::READ | OpenFlags::DIRECTORY;
        let id = self.dispatch.open(&path, flags, caller)?;
        let out = abi::fuse_open_out {
            fh: id.0.into(),
            ..Default::default()
        };
        Ok(out.as_bytes().to_vec())
    }

    fn read_directory(&mut self, body: &[u8]) -> Reply {
        let read = parse::<abi::fuse_read_in>(body)?;
        let file = file(read.fh);
        // Whoever begins anew sees anew.
        if read.offset == 0 {
            let dot = |name: &str| DirEntry {
                name: name.to_owned(),
                kind: FileKind::Directory,
            };
            let mut entries = vec![dot("."), dot("..")];
            entries.extend(self.dispatch.server.list(file)?);
            self.listings.insert(file, entries);
        }
        let entries = self.listings.get(&file).map_or(&[][..], Vec::as_slice);
        let start = usize::try_from(read.offset).map_err(|_| errno::EINVAL)?;
        let mut out = Vec::new();
        for (at, entry) in entries.iter().enumerate().skip(start) {
            let dirent = abi::fuse_dirent {
                ino: u64::MAX,
                off: at as u64 + 1,
                namelen: entry.name.len() as u32,
                typ: kind_bits(entry.kind) >> 12,
                name: [],
            };
            let len = (dirent.as_bytes().len() + entry.name.len()).next_multiple_of(8);
            if out.len() + len > read.size as usize {
                break;
            }
            let end = out.len() + len;
            out.extend_from_slice(dirent.as_bytes());
            out.extend_from_slice(entry.name.as_bytes());
            out.resize(end, 0);
        }
        Ok(out)
    }

    fn read(&mut self, unique: u64, body: &[u8], caller: Caller) {
        let read = match parse::<abi::fuse_read_in>(body) {
            Ok(read) => read,
            Err(error) => return self.reply_error(unique, error),
        };
        let size = (read.size as usize).min(MAX_OPERATION);
        self.submit(Request {
            tag: unique,
            file: file(read.fh),
            caller,
            nonblocking: nonblocking(read.flags),
            operation: Call {
                offset: read.offset,
                kind: CallKind::Read(size, Vec::new()),
            },
        });
    }

    fn write(&mut self, unique: u64, body: &[u8], caller: Caller) {
        let Ok((write, bytes)) = abi::fuse_write_in::read_from_prefix(body) else {
            return self.reply_error(unique, errno::EINVAL);
        };
        self.submit(Request {
            tag: unique,
            file: file(write.fh),
            caller,
            nonblocking: nonblocking(write.flags),
            operation: Call {
                offset: write.offset,
                kind: CallKind::Write(bytes.to_vec()),
            },
        });
    }

    fn submit(&mut self, request: Request<Call>) {
        if let Some(users) = self.users.get_mut(&request.file) {
            users.add(request.caller.pid);
        }
        let answer = self.dispatch.submit(request);
        answer.into_iter().for_each(|answer| self.answer(answer));
    }

    fn ioctl(&mut self, body: &[u8], caller: Caller) -> Reply {
        let Ok((ioctl, input)) = abi::fuse_ioctl_in::read_from_prefix(body) else {
            return Err(errno::EINVAL);
        };
        let filled = ioctl.in_size as usize;
        let returned = ioctl.out_size as usize;
        if filled > input.len() || filled.max(returned) > MAX_OPERATION {
            return Err(errno::EINVAL);
        }
        let mut bytes = input[..filled].to_vec();
        bytes.resize(filled.max(returned), 0);
        let arg = Argument::one_way(&mut bytes, filled > 0, returned > 0);
        let caller = Caller {
            pid: process_of(caller.pid),
            ..caller
        };
        self.dispatch
            .server
            .ioctl(file(ioctl.fh), ioctl.cmd, arg, caller)?;
        let mut out = abi::fuse_ioctl_out::default().as_bytes().to_vec();
        out.extend_from_slice(&bytes[..returned]);
        Ok(out)
    }

    fn poll(&mut self, body: &[u8]) -> Reply {
        let poll = parse::<abi::fuse_poll_in>(body)?;
        let file = file(poll.fh);
        if poll.flags & abi::FUSE_POLL_SCHEDULE_NOTIFY != 0 {
            self.pollers.insert(file, poll.kh);
        }
        let ready = self.dispatch.server.ready(file);
        let mut revents = 0;
        if ready.contains(Ready::READ) {
            revents |= POLLIN;
        }
        if ready.contains(Ready::WRITE) {
            revents |= POLLOUT;
        }
        let out = abi::fuse_poll_out {
            revents: revents & poll.events,
            padding: 0,
        };
        Ok(out.as_bytes().to_vec())
    }

    /// A descriptor was closed, perhaps not the last one. The waits of that process end.
    fn flush(&mut self, body: &[u8], caller: Caller) -> Reply {
        let file = file(parse::<abi::fuse_flush_in>(body)?.fh);
        // Whoever is outside our pid namespace is 0, and not one with the others that are.
        if caller.pid != Pid(0) && self.dispatch.has_waiters(file) {
            let closer = process_of(caller.pid);
            let same = |request: &Request<Call>| process_of(request.caller.pid) == closer;
            for answer in self.dispatch.interrupt(file, same) {
                self.answer(answer);
            }
        }
        Ok(Vec::new())
    }

    fn release(&mut self, body: &[u8]) -> Reply {
        let file = file(parse::<abi::fuse_release_in>(body)?.fh);
        self.pollers.remove(&file);
        self.users.remove(&file);
        self.listings.remove(&file);
        for answer in self.dispatch.close(file) {
            self.answer(answer);
        }
        Ok(Vec::new())
    }

    /// [`Dispatch::turn`], telling everybody what came of it.
    fn turn(&mut self, now: Now) -> Turn {
        let (mut answers, mut edges) = (Vec::new(), Vec::new());
        let (pollers, users) = (&self.pollers, &self.users);
        let watched = |file| pollers.contains_key(&file);
        // A reader that was killed goes on to take what it is given until the kernel has told that
        // it is gone. Only on a shared file is there somebody else to miss it.
        let alive = |request: &Request<Call>| {
            let shared = users.get(&request.file).is_some_and(|users| users.shared);
            let thread = request.caller.pid;
            !shared || thread == Pid(0) || !is_killed(thread)
        };
        let turn = self
            .dispatch
            .turn(now, &mut answers, &mut edges, alive, watched);
        for answer in answers {
            self.answer(answer);
        }
        for (file, _) in edges {
            if let Some(kh) = self.pollers.remove(&file) {
                self.notify_poll(kh);
            }
        }
        while let Some(target) = self.dispatch.server.poll_signal() {
            signal(target);
        }
        turn
    }

    fn answer(&mut self, answer: Answer<Call>) {
        let Answer { request, result } = answer;
        let size = |len: usize| abi::fuse_write_out {
            size: len as u32,
            padding: 0,
        };
        match (request.operation.kind, result) {
            (CallKind::Read(_, bytes), Ok(_)) => {
                let delivered = self.reply(request.tag, Ok(&bytes));
                self.dispatch.server.settle(request.file, delivered);
            }
            (CallKind::Write(_), Ok(len)) => {
                self.reply(request.tag, Ok(size(len).as_bytes()));
            }
            (_, Err(error)) => self.reply_error(request.tag, error),
        }
    }

    fn reply_error(&self, unique: u64, error: Errno) {
        self.reply(unique, Err(&error));
    }

    /// Answers; false if the kernel would not have it, because nobody asks any more.
    fn reply(&self, unique: u64, reply: Result<&[u8], &Errno>) -> bool {
        let (error, bytes) = match reply {
            Ok(bytes) => (0, bytes),
            Err(error) => (-error.raw(), &[][..]),
        };
        self.send(unique, error, bytes)
    }

    fn notify_poll(&self, kh: u64) {
        let wakeup = abi::fuse_notify_poll_wakeup_out { kh };
        // A notification has no request, and its code where an error would be.
        self.send(0, abi::FUSE_NOTIFY_POLL as i32, wakeup.as_bytes());
    }

    fn send(&self, unique: u64, error: i32, bytes: &[u8]) -> bool {
        let header = abi::fuse_out_header {
            len: (size_of::<abi::fuse_out_header>() + bytes.len()) as u32,
            error,
            unique,
        };
        let parts = [IoSlice::new(header.as_bytes()), IoSlice::new(bytes)];
        match rustix::io::writev(self.device, &parts) {
            Ok(_) => true,
            Err(error) => {
                log::debug!("fuse: answer {unique} refused: {error}");
                false
            }
        }
    }
}

fn parse<T: FromBytes + KnownLayout + Immutable>(body: &[u8]) -> Result<T, Errno> {
    match T::read_from_prefix(body) {
        Ok((value, _)) => Ok(value),
        Err(_) => Err(errno::EINVAL),
    }
}

fn file(fh: u64) -> FileId {
    // We gave the kernel a u32; anything else is not open.
    FileId(u32::try_from(fh).unwrap_or(u32::MAX))
}

fn name(body: &[u8]) -> Result<&str, Errno> {
    let bytes = body.split(|&byte| byte == 0).next().unwrap_or_default();
    std::str::from_utf8(bytes).map_err(|_| errno::ENOENT)
}

fn nonblocking(flags: u32) -> bool {
    OFlags::from_bits_retain(flags).contains(OFlags::NONBLOCK)
}

fn kind_bits(kind: FileKind) -> u32 {
    match kind {
        FileKind::Directory => 0o040_000,
        // Linux would open a device node itself: on a mount a device is a regular file.
        FileKind::Text | FileKind::Device => 0o100_000,
    }
}

fn attributes(nodeid: u64, stat: Stat) -> abi::fuse_attr {
    abi::fuse_attr {
        ino: nodeid,
        // A write past the end would have the kernel lock the path for all who write to it, and
        // keep it locked while one of them waits.
        size: match stat.kind {
            FileKind::Device => ENDLESS,
            _ => stat.size,
        },
        mode: kind_bits(stat.kind) | u32::from(stat.mode),
        nlink: 1,
        blksize: 4096,
        ..Default::default()
    }
}

fn signal(target: SignalTarget) {
    let pid = |pid: Pid| i32::try_from(pid.0).ok().and_then(SysPid::from_raw);
    let sent = match target {
        SignalTarget::Process(process) => {
            pid(process).map(|pid| rustix::process::kill_process(pid, Signal::IO))
        }
        SignalTarget::Group(group) => {
            pid(group).map(|pid| rustix::process::kill_process_group(pid, Signal::IO))
        }
    };
    if let Some(Err(error)) = sent {
        log::debug!("SIGIO to {target:?}: {error}");
    }
}

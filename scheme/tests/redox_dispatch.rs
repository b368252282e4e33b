//! The real dispatcher of redox-scheme, driven with hand-made requests: they have the format of the
//! kernel, are decoded by redox-scheme, and answered by the front with a file server behind it.
#![cfg(feature = "redox-dispatch")]
#![allow(missing_docs)]

use std::time::Duration;

use redox_scheme::scheme::{Op, SchemeState};
use redox_scheme::{CallerCtx, Request, RequestKind, Response};
use scheme::redox::front::{AfterSend, Outgoing, ROOT, SchemeFront};
use scheme::redox::processes::{Known, List};
use scheme::{
    Argument, Caller, DirEntry, Errno, FileId, FileKind, FileServer, Now, OpenFlags, Outcome, Pid,
    Processes, Ready, Stat, Turn, Wakeup, errno,
};
use syscall::flag::{EventFlags, O_NONBLOCK, O_RDONLY, O_RDWR, O_STAT};
use syscall::schemev2::{Cqe, Opcode, Sqe};

/// A mailbox: each write adds a message, each read takes one; a read of an empty mailbox waits.
#[derive(Default)]
struct Mailbox {
    mail: Vec<Vec<u8>>,
    unsettled: Vec<Vec<u8>>,
    open: u32,
    edges: Vec<Ready>,
    /// Whether waiters are looked at even if nobody is seen to share the file.
    precious: bool,
    /// Where it asks for processes before it opens anything.
    processes: Option<Known>,
}

const DEVICE: Stat = Stat {
    kind: FileKind::Device,
    mode: 0o600,
    size: 0,
};

impl FileServer for Mailbox {
    fn turn(&mut self, _now: Now) -> Turn {
        Turn {
            pending: false,
            deadline: None,
        }
    }

    fn poll_wakeup(&mut self) -> Option<Wakeup> {
        let ready = self.edges.pop()?;
        let file = FileId(0);
        Some(Wakeup { file, ready })
    }

    fn stat(&mut self, path: &str) -> Result<Stat, Errno> {
        match path {
            "mail/box" => Ok(DEVICE),
            "mail" => Ok(Stat {
                kind: FileKind::Directory,
                ..DEVICE
            }),
            _ => Err(errno::ENOENT),
        }
    }

    fn open(&mut self, path: &str, _flags: OpenFlags, caller: Caller) -> Result<FileId, Errno> {
        if caller.uid != 0 {
            return Err(errno::EPERM);
        }
        assert_eq!(path, "mail/box");
        let alive = |known: &Known| known.alive(Pid(1));
        if self.processes.as_ref().is_some_and(alive) {
            return Err(errno::EBUSY);
        }
        self.open += 1;
        Ok(FileId(self.open - 1))
    }

    fn read(&mut self, _: FileId, buf: &mut [u8], _: u64, _: Caller) -> Outcome<usize> {
        if self.mail.is_empty() {
            return Outcome::Wait;
        }
        let message = self.mail.remove(0);
        buf[..message.len()].copy_from_slice(&message);
        let len = message.len();
        self.unsettled.push(message);
        Outcome::Done(Ok(len))
    }

    fn looks_at_waiters(&self, _: FileId) -> bool {
        self.precious
    }

    fn complete_read(&mut self, _: FileId, delivered: bool) {
        let message = self.unsettled.remove(0);
        if !delivered {
            self.mail.insert(0, message);
        }
    }

    fn write(&mut self, _: FileId, buf: &[u8], _: u64, _: Caller) -> Outcome<usize> {
        if self.mail.is_empty() {
            self.edges.push(Ready::READ);
        }
        self.mail.push(buf.to_vec());
        Outcome::Done(Ok(buf.len()))
    }

    fn ioctl(&mut self, _: FileId, _: u32, _: Argument<'_>, _: Caller) -> Result<(), Errno> {
        Err(errno::ENOTTY)
    }

    fn call(
        &mut self,
        _: FileId,
        payload: &mut [u8],
        words: &[u64],
        who: Caller,
    ) -> Outcome<usize> {
        assert_eq!(
            who.uid,
            u32::MAX,
            "the user of a call is the client's choice"
        );
        payload.reverse();
        Outcome::Done(Ok(words[0] as usize))
    }

    /// Begins an operation that completes at once, as a connection to this host does.
    fn dup(&mut self, _: FileId, _: &[u8], _: bool, _: Caller) -> Outcome<FileId> {
        self.edges.push(Ready::WRITE);
        errno::EINPROGRESS.into()
    }

    fn fstat(&mut self, _: FileId) -> Result<Stat, Errno> {
        Ok(DEVICE)
    }

    /// An entry for each message.
    fn list(&mut self, _: FileId) -> Result<Vec<DirEntry>, Errno> {
        let entry = |message: &Vec<u8>| DirEntry {
            name: String::from_utf8_lossy(message).into_owned(),
            kind: FileKind::Text,
        };
        Ok(self.mail.iter().map(entry).collect())
    }

    fn path(&self, _: FileId) -> Result<String, Errno> {
        Ok("mail/box".to_owned())
    }

    fn ready(&mut self, _: FileId) -> Ready {
        match self.mail.is_empty() {
            true => Ready::WRITE,
            false => Ready::all(),
        }
    }

    fn close(&mut self, _: FileId) {}
}

/// A kernel that hands out requests one by one.
struct Kernel {
    front: SchemeFront<Mailbox>,
    state: SchemeState,
    tag: u32,
    /// The process that makes the requests.
    pid: usize,
    /// Those that are dead.
    dead: Vec<Pid>,
}

impl Kernel {
    fn new() -> Self {
        Self {
            front: SchemeFront::new(Mailbox::default(), &["mail"]),
            state: SchemeState::new(),
            tag: 0,
            pid: 7,
            dead: Vec::new(),
        }
    }

    /// Sends a request in the kernel's format; returns the resulting answers, as results by tag.
    fn request(&mut self, opcode: Opcode, args: [u64; 6], uid: u32) -> Vec<(u32, i64)> {
        let (op, ctx) = self.decode(opcode, args, uid);
        let mut out = Vec::new();
        let settled = || false;
        let again = self
            .front
            .handle(0, &mut self.state, op, &ctx, &mut out, settled);
        assert!(again.is_none());
        let _ = self.front.turn(Now::default(), &mut out);
        self.release(&mut out);
        self.results(out)
    }

    fn decode(&mut self, opcode: Opcode, args: [u64; 6], uid: u32) -> (Op, CallerCtx) {
        self.tag += 1;
        let sqe = Sqe {
            opcode: opcode as u8,
            tag: self.tag,
            args,
            caller: self.pid as u64,
            ..Sqe::default()
        };
        // SAFETY: the addresses among the arguments are those of buffers that outlive the answer.
        let op = unsafe { Op::from_sqe_unchecked(&sqe) }.expect("a known opcode");
        let RequestKind::Call(call) = Request::default().kind() else {
            panic!("an empty request is a call");
        };
        let ctx = CallerCtx {
            pid: self.pid,
            uid,
            gid: 0,
            id: call.request_id(),
        };
        (op, ctx)
    }

    /// Finds out who lives, and serves the waits that depend on it.
    fn release(&mut self, out: &mut Vec<Outgoing>) {
        let held = self.front.take_held();
        let alive = |pid| !self.dead.contains(&pid);
        self.front.release(held, alive, out);
    }

    fn results(&mut self, out: Vec<Outgoing>) -> Vec<(u32, i64)> {
        let mut results = Vec::new();
        for Outgoing {
            response, after, ..
        } in out
        {
            // SAFETY: a response is a Cqe and nothing else (repr(transparent)).
            let cqe: Cqe = unsafe { std::mem::transmute::<Response, Cqe>(response) };
            results.push((cqe.tag, cqe.result as i64));
            if let AfterSend::CompleteRead(file) = after {
                self.front.dispatch.server.complete_read(file, true);
            }
        }
        results
    }

    fn open(&mut self, dir: usize, path: &str, flags: usize, uid: u32) -> i64 {
        let (at, len) = (path.as_ptr() as u64, path.len() as u64);
        let fcntl = (flags & O_NONBLOCK) as u64;
        let args = [dir as u64, at, len, flags as u64, fcntl, u64::from(uid)];
        let results = self.request(Opcode::OpenAt, args, uid);
        results[0].1
    }
}

fn buffer(opcode_args: (i64, &mut [u8]), flags: usize) -> [u64; 6] {
    let (number, buf) = opcode_args;
    [
        number as u64,
        buf.as_mut_ptr() as u64,
        buf.len() as u64,
        0,
        flags as u64,
        0,
    ]
}

#[test]
fn open_checks_paths_users_and_handles() {
    let mut kernel = Kernel::new();
    assert_eq!(kernel.open(ROOT, "box", O_RDWR, 1000), -1);
    assert_eq!(kernel.open(ROOT, "nothing", O_RDWR, 0), -2);
    let number = kernel.open(ROOT, "box", O_RDWR, 0);
    assert!(number > 0);
    // A device is not a directory.
    assert_eq!(kernel.open(number as usize, "x", O_RDWR, 0), -20);
    assert_eq!(kernel.open(77, "x", O_RDWR, 0), -9);
    // A stat handle claims nothing and needs no permission.
    assert!(kernel.open(ROOT, "box", O_RDONLY | O_STAT, 1000) > 1 << 32);
    assert_eq!(kernel.front.dispatch.server.open, 1);
}

#[test]
fn the_last_stat_handles_are_the_superusers() {
    let mut kernel = Kernel::new();
    let look = |kernel: &mut Kernel, uid| kernel.open(ROOT, "box", O_RDONLY | O_STAT, uid);
    let taken: Vec<_> = std::iter::repeat_with(|| look(&mut kernel, 1000))
        .take_while(|&number| number > 0)
        .collect();
    assert!(taken.len() > 1000);
    assert_eq!(look(&mut kernel, 1000), -23);
    assert!(look(&mut kernel, 0) > 0);
    kernel.front.close(taken[0] as usize, &mut Vec::new());
    kernel.front.close(taken[1] as usize, &mut Vec::new());
    assert!(look(&mut kernel, 1000) > 0);
    // The superuser's come to an end, too.
    let others = std::iter::repeat_with(|| look(&mut kernel, 0));
    let others = others.take_while(|&number| number > 0).count();
    assert!((1..taken.len()).contains(&others), "{others}");
}

/// The names in one piece of a directory, and where the next piece begins.
fn piece(kernel: &mut Kernel, dir: i64, offset: u64) -> (Vec<String>, u64) {
    let mut buf = [0; 64];
    let header = size_of::<syscall::dirent::DirentHeader>();
    let (at, len) = (buf.as_mut_ptr() as u64, buf.len() as u64);
    let args = [dir as u64, at, len, header as u64, offset, 0];
    let result = kernel.request(Opcode::Getdents, args, 0)[0].1;
    let len = usize::try_from(result).expect("entries");
    let entries = syscall::dirent::DirentIter::new(&buf[..len]).map(|entry| entry.unwrap());
    let (mut names, mut next) = (Vec::new(), offset);
    for (header, name) in entries {
        next = header.next_opaque_id;
        let name = name.split(|&byte| byte == 0).next().unwrap();
        names.push(String::from_utf8(name.to_vec()).unwrap());
    }
    (names, next)
}

/// An entry that goes while a directory is read makes no other be skipped.
#[test]
fn a_directory_that_is_read_in_pieces_is_as_it_was_at_the_start() {
    let mut kernel = Kernel::new();
    let dir = kernel.open(ROOT, "box", O_RDWR, 0);
    let names = ["a", "b", "c", "d", "e", "f", "g"].map(str::to_owned);
    kernel.front.dispatch.server.mail = names.iter().map(|name| name.clone().into()).collect();
    let (first, mut next) = piece(&mut kernel, dir, 0);
    assert!(first.len() < names.len() && names.starts_with(&first));
    kernel.front.dispatch.server.mail.drain(..2);
    let mut seen = first;
    loop {
        let (more, after) = piece(&mut kernel, dir, next);
        if more.is_empty() {
            break;
        }
        seen.extend(more);
        next = after;
    }
    assert_eq!(seen, names);
    // A new start sees what there is now.
    assert_eq!(piece(&mut kernel, dir, 0).0[0], "c");
}

#[test]
fn lists_are_kept_as_long_as_there_is_room() {
    /// More than half of what there is room for.
    const MANY: usize = 100_000;

    let mut kernel = Kernel::new();
    let name = |number: usize| format!("{number:06}");
    kernel.front.dispatch.server.mail = (0..MANY).map(|at| name(at).into()).collect();
    let dirs = [(); 2].map(|()| kernel.open(ROOT, "box", O_RDWR, 0));
    let mut second_piece = |kernel: &mut Kernel, dirs: [i64; 2], before: usize| {
        let first = dirs.map(|dir| piece(kernel, dir, 0));
        kernel.front.dispatch.server.mail.remove(0);
        let mut dirs = dirs.into_iter().zip(first);
        dirs.all(|(dir, (names, next))| piece(kernel, dir, next).0[0] == name(before + names.len()))
    };
    // There is no room for both, so the second list is made anew and misses an entry.
    assert!(!second_piece(&mut kernel, dirs, 0));
    assert!(second_piece(&mut kernel, [dirs[0]; 2], 1));
    kernel.front.close(dirs[0] as usize, &mut Vec::new());
    assert!(second_piece(&mut kernel, [dirs[1]; 2], 2));
}

#[test]
fn access_modes_are_ours_to_enforce() {
    let mut kernel = Kernel::new();
    let number = kernel.open(ROOT, "box", O_RDONLY, 0);
    let mut buf = *b"abc";
    let results = kernel.request(Opcode::Write, buffer((number, &mut buf), 0), 0);
    assert_eq!(results[0].1, -9);
}

#[test]
fn a_read_waits_and_is_answered_once() {
    let mut kernel = Kernel::new();
    let number = kernel.open(ROOT, "box", O_RDWR, 0);
    let (mut first, mut second, mut message) = ([0; 8], [0; 8], *b"hello");
    assert_eq!(
        kernel.request(Opcode::Read, buffer((number, &mut first), 0), 0),
        []
    );
    let waiting = kernel.tag;
    // A request that may not wait gets its answer at once.
    let results = kernel.request(Opcode::Read, buffer((number, &mut second), O_NONBLOCK), 0);
    assert_eq!(results, [(kernel.tag, -11)]);
    let results = kernel.request(Opcode::Write, buffer((number, &mut message), 0), 0);
    assert_eq!(results, [(kernel.tag, 5), (waiting, 5)]);
    assert_eq!(first[..5], *b"hello");
    assert_eq!(kernel.front.dispatch.waiting(), 0);
}

/// One process waits, and another has the handle as well, which it may not have used yet.
fn dead_reader(precious: bool, shared: bool, waited: Duration) -> (bool, Vec<(u32, i64)>) {
    let mut kernel = Kernel::new();
    kernel.front.dispatch.server.precious = precious;
    let number = kernel.open(ROOT, "box", O_RDWR, 0);
    let (mut read, mut message) = ([0; 8], *b"hello");
    let waits = kernel.request(Opcode::Read, buffer((number, &mut read), 0), 0);
    assert_eq!(waits, []);
    kernel.pid = 8;
    kernel.dead.push(Pid(7));
    if shared {
        let fstat = [number as u64, 0, 0, 0, 0, 0];
        let _ = kernel.request(Opcode::Fsync, fstat, 0);
    }
    // The network has something for it.
    let server = &mut kernel.front.dispatch.server;
    let _ = server.write(
        FileId(0),
        &message,
        0,
        Caller {
            pid: Pid(0),
            uid: 0,
        },
    );
    let mut out = Vec::new();
    let now = Now {
        monotonic: waited,
        ..Now::default()
    };
    let _ = kernel.front.turn(now, &mut out);
    let held = out.is_empty();
    kernel.release(&mut out);
    let mut results = kernel.results(out);
    message.fill(0);
    results.extend(kernel.request(Opcode::Read, buffer((number, &mut message), O_NONBLOCK), 0));
    (held, results)
}

const MILLI: Duration = Duration::from_millis(1);

#[test]
fn a_dead_reader_takes_nothing_from_its_heir() {
    let tag = |results: &[(u32, i64)]| results[0].0;
    for (precious, shared) in [(true, false), (false, true), (true, true)] {
        let (held, results) = dead_reader(precious, shared, 2 * MILLI);
        assert!(held, "it is not known at first whether it lives");
        let eintr = -i64::from(errno::EINTR.raw());
        let first = tag(&results);
        assert_eq!(results[0], (first, eintr));
        assert_eq!(results[1].1, 5, "the heir gets the message");
    }
    // Where it does not matter, nobody is looked at, nor is who has only just made the request.
    for (precious, waited) in [(false, 2 * MILLI), (true, MILLI)] {
        let (held, results) = dead_reader(precious, false, waited);
        assert!(!held);
        assert_eq!(results[0].1, 5);
    }
    assert!(dead_reader(false, true, Duration::ZERO).0);
}

#[test]
fn a_request_that_asks_who_lives_is_made_again() {
    let known = Known::default();
    let mut kernel = Kernel::new();
    kernel.front.dispatch.server.processes = Some(known.clone());
    let (at, len) = ("box".as_ptr() as u64, 3);
    let args = [ROOT as u64, at, len, O_RDWR as u64, 0, 0];
    let (op, ctx) = kernel.decode(Opcode::OpenAt, args, 0);
    let mut out = Vec::new();
    let Kernel { front, state, .. } = &mut kernel;
    let asked = || known.is_asked();
    let op = front.handle(0, state, op, &ctx, &mut out, asked);
    let op = op.expect("it has to be made again");
    assert!(out.is_empty());
    assert_eq!(front.dispatch.server.open, 0);
    let _ = known.take();
    known.learn(List::parse("7     R\n", front.newest()));
    let asked = || known.is_asked();
    assert!(front.handle(0, state, op, &ctx, &mut out, asked).is_none());
    assert!(kernel.results(out)[0].1 > 0, "the other is dead");
}

#[test]
fn events_tell_the_present_state_and_then_edges() {
    let mut kernel = Kernel::new();
    let number = kernel.open(ROOT, "box", O_RDWR, 0);
    let both = EventFlags::EVENT_READ | EventFlags::EVENT_WRITE;
    let fevent = [number as u64, both.bits() as u64, 0, 0, 0, 0];
    let results = kernel.request(Opcode::Fevent, fevent, 0);
    assert_eq!(results[0].1, EventFlags::EVENT_WRITE.bits() as i64);
    let mut message = *b"x";
    let write = buffer((number, &mut message), 0);
    // There is the answer, and an event: its tag is the flags, its result the file.
    let results = kernel.request(Opcode::Write, write, 0);
    assert_eq!(results[1], (EventFlags::EVENT_READ.bits() as u32, number));
    assert_eq!(kernel.request(Opcode::Write, write, 0).len(), 1);
    let results = kernel.request(Opcode::Fevent, fevent, 0);
    assert_eq!(results[0].1, both.bits() as i64);
    // The result of a connect is reported, although a fresh socket was writable before.
    let dup = buffer((number, &mut message), 0);
    let results = kernel.request(Opcode::Dup, dup, 0);
    let in_progress = -i64::from(errno::EINPROGRESS.raw());
    assert_eq!(results[0].1, in_progress);
    assert_eq!(results[1], (EventFlags::EVENT_WRITE.bits() as u32, number));
    // The answer is never an error, whatever the handle.
    let strange = [999, both.bits() as u64, 0, 0, 0, 0];
    assert_eq!(kernel.request(Opcode::Fevent, strange, 0)[0].1, 0);
}

#[test]
fn cancel_and_close_end_waits() {
    let mut kernel = Kernel::new();
    let number = kernel.open(ROOT, "box", O_RDWR, 0);
    let mut buf = [0; 8];
    assert_eq!(
        kernel.request(Opcode::Read, buffer((number, &mut buf), 0), 0),
        []
    );
    let waiting = kernel.tag;
    let mut out = Vec::new();
    kernel.front.close(number as usize, &mut out);
    assert_eq!(kernel.results(out), [(waiting, -9)]);
    let mut message = *b"late";
    let results = kernel.request(Opcode::Write, buffer((number, &mut message), 0), 0);
    assert_eq!(results[0].1, -9);
}

#[test]
fn calls_are_not_believed_about_their_user() {
    let mut kernel = Kernel::new();
    let number = kernel.open(ROOT, "box", O_RDWR, 0);
    let mut payload = *b"abc";
    let at = payload.as_mut_ptr() as u64;
    let results = kernel.request(Opcode::Call, [number as u64, at, 3, 42, 0, 0], 0);
    assert_eq!(results[0].1, 42);
    assert_eq!(payload, *b"cba");
}

#[test]
fn nothing_is_ever_mapped() {
    let mut kernel = Kernel::new();
    let number = kernel.open(ROOT, "box", O_RDWR, 0);
    let results = kernel.request(Opcode::MmapPrep, [number as u64, 4096, 2, 0, 0, 0], 0);
    assert_eq!(results[0].1, -19);
}

//! The loop: requests are read, served, and answered.
//!
//! - `tree`: requests about paths: lookup, attributes, open, directories.
//! - `file`: requests about open files: read, write, ioctl, poll, close.

mod file;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::BorrowedFd;

use polyfuse_kernel as abi;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno as Sys;
use zerocopy::{FromBytes, IntoBytes};

use crate::dispatch::{Answer, Dispatch, Life, Request};
use crate::drivers::Drivers;
use crate::errno;
use crate::fuse::MAX_OPERATION;
use crate::fuse::drivers::{DriverWork, Event};
use crate::fuse::listings::Listings;
use crate::fuse::message::{Channel, Reply, file, parse};
use crate::fuse::mount::Mount;
use crate::fuse::nodes::Nodes;
use crate::fuse::processes::{is_killed, send_sigio};
use crate::fuse::transfer::{Data, Transfer};
use crate::local::Clock;
use crate::server::{Caller, FileId, FileServer, Now, Pid, Turn};

/// The largest operation in pages, as the kernel counts.
const MAX_PAGES: u16 = 256;
/// Requests served before the stop signal is looked at again.
const REQUESTS_PER_TURN: usize = 64;

/// Serves `server` at `mount` until `stop` becomes readable or somebody unmounts it.
/// `ECONNABORTED` if the kernel aborts the connection, and the mount is still there. The server
/// exchanges bytes with `drivers`, if there are any.
pub fn serve<S: FileServer>(
    server: S,
    mount: &Mount,
    clock: &dyn Clock,
    stop: BorrowedFd<'_>,
    drivers: Option<(Box<dyn Drivers<S>>, DriverWork)>,
) -> io::Result<()> {
    let (drivers, work) = drivers.unzip();
    let mut session = Session {
        drivers,
        channel: mount.channel(),
        dispatch: Dispatch::new(server),
        nodes: Nodes::default(),
        pollers: BTreeMap::new(),
        opened: BTreeSet::new(),
        devices: BTreeSet::new(),
        waiting: BTreeSet::new(),
        listings: Listings::default(),
        connected: true,
    };
    let mut buffer = vec![0; MAX_OPERATION + 4096];
    loop {
        let mut turn = session.turn(clock.now());
        if let Some(work) = &work {
            for event in work.events()? {
                session.exchange(event);
                turn = session.turn(clock.now());
            }
        }
        let mut served = 0;
        while session.connected && served < REQUESTS_PER_TURN {
            match session.channel.read(&mut buffer) {
                Ok(len) => session.handle(&buffer[..len]),
                Err(Sys::AGAIN) => break,
                // The request was interrupted before it was handed out.
                Err(Sys::INTR | Sys::NOENT) => {}
                Err(Sys::NODEV | Sys::CONNABORTED) => session.connected = false,
                Err(error) => return Err(error.into()),
            }
            served += 1;
            // The work caused by a request is done before the next request: a program that writes a
            // packet and then changes a setting must find it in force for the next packet, not for
            // this one.
            turn = session.turn(clock.now());
        }
        if !session.connected {
            return mount.ended();
        }
        let timeout = match turn.deadline {
            // There is more to do, but the stop signal is looked at first.
            _ if turn.pending || served == REQUESTS_PER_TURN => Some(Timespec::default()),
            Some(deadline) => {
                let pause = deadline.saturating_sub(clock.now().monotonic);
                Some(Timespec {
                    tv_sec: pause.as_secs().min(86_400) as i64,
                    tv_nsec: pause.subsec_nanos().into(),
                })
            }
            None => None,
        };
        let work_fd = work.as_ref().map_or(stop, DriverWork::fd);
        let mut fds = [
            PollFd::new(&session.channel, PollFlags::IN),
            PollFd::new(&stop, PollFlags::IN),
            PollFd::new(&work_fd, PollFlags::IN),
        ];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) if !fds[1].revents().is_empty() => return Ok(()),
            Ok(_) | Err(Sys::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

struct Session<'a, S> {
    channel: Channel<'a>,
    dispatch: Dispatch<S, Transfer<'static>>,
    drivers: Option<Box<dyn Drivers<S>>>,
    nodes: Nodes,
    /// The kernel's handle for each file that is polled.
    pollers: BTreeMap<FileId, u64>,
    /// The open files of each node, which may outlive the path.
    opened: BTreeSet<(u64, FileId)>,
    /// The open files whose reads and writes are packets or parts of a stream, without offsets.
    devices: BTreeSet<FileId>,
    /// Every request that waits: its file, the table of descriptors it came by, and its tag.
    waiting: BTreeSet<(FileId, u64, u64)>,
    listings: Listings,
    connected: bool,
}

impl<S: FileServer> Session<'_, S> {
    /// Exchanges bytes with a driver.
    fn exchange(&mut self, event: Event) {
        if let Some(drivers) = &mut self.drivers {
            match event {
                Event::Readable(driver) => drivers.readable(driver),
                Event::Has(driver) => drivers.receive(&mut self.dispatch.server, driver),
            }
        }
    }

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
            // Sizes and times are accepted and ignored. Modes and owners cannot be changed.
            abi::FUSE_SETATTR => self.set_attributes(header.nodeid, body),
            abi::FUSE_OPEN => self.open(header.nodeid, body, caller),
            abi::FUSE_OPENDIR => self.open_directory(header.nodeid, caller),
            abi::FUSE_READDIR => self.read_directory(body, caller),
            abi::FUSE_READ => return self.read(header.unique, body, caller),
            abi::FUSE_WRITE => return self.write(header.unique, body, caller),
            abi::FUSE_IOCTL => self.ioctl(body, caller),
            abi::FUSE_POLL => self.poll(body),
            abi::FUSE_FLUSH => self.flush(body),
            abi::FUSE_FSYNC => parse::<abi::fuse_fsync_in>(body)
                .and_then(|fsync| self.dispatch.server.sync(file(fsync.fh)))
                .map(|()| Vec::new()),
            abi::FUSE_FSYNCDIR => Ok(Vec::new()),
            abi::FUSE_ACCESS => self.access(header.nodeid, body, caller),
            abi::FUSE_RELEASE | abi::FUSE_RELEASEDIR => self.release(header.nodeid, body),
            abi::FUSE_STATFS => Ok(tree::statistics()),
            abi::FUSE_INTERRUPT => {
                if let Ok(interrupt) = parse::<abi::fuse_interrupt_in>(body) {
                    self.cancel(interrupt.unique);
                }
                return;
            }
            // O_CREAT creates nothing: the kernel asks only for a path that does not exist.
            abi::FUSE_CREATE => Err(errno::ENOENT),
            abi::FUSE_MKNOD
            | abi::FUSE_MKDIR
            | abi::FUSE_UNLINK
            | abi::FUSE_RMDIR
            | abi::FUSE_SYMLINK
            | abi::FUSE_LINK
            | abi::FUSE_RENAME
            | abi::FUSE_RENAME2 => Err(errno::EPERM),
            _ => Err(errno::ENOSYS),
        };
        self.channel.reply(header.unique, reply.as_deref());
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
            // Releases are sent in the background: none may be held back behind others.
            max_background: u16::MAX,
            congestion_threshold: u16::MAX,
            max_write: MAX_OPERATION as u32,
            time_gran: 1,
            max_pages: MAX_PAGES,
            ..Default::default()
        };
        Ok(out.as_bytes().to_vec())
    }

    /// Runs [`Dispatch::turn`], and sends answers, notifications, and what is for drivers.
    fn turn(&mut self, now: Now) -> Turn {
        let mut edges = Vec::new();
        let (channel, pollers, waiting) = (self.channel, &self.pollers, &mut self.waiting);
        let watched = |file| pollers.contains_key(&file);
        // A killed reader still takes the answer it is given, until the kernel tells us that it is
        // gone; but another process may have the file, and would miss the packet. Nothing tells us
        // of a process that inherited the file and has not used it yet, so every waiter is looked at.
        let life = |request: &Request<Transfer<'_>>, _| match request.caller.pid {
            thread if thread != Pid(0) && is_killed(thread) => Life::Dead,
            _ => Life::Alive,
        };
        let answer = |answer: Answer<Transfer<'_>>, server: &mut S, buffer: &Vec<u8>| {
            waiting.remove(&wait_of(&answer.request));
            channel.answer(answer, server, buffer);
        };
        let mut turn = self.dispatch.turn(now, answer, &mut edges, life, watched);
        for (file, _) in edges {
            if let Some(kh) = self.pollers.remove(&file) {
                self.channel.notify_poll(kh);
            }
        }
        while let Some(signal) = self.dispatch.server.poll_signal() {
            send_sigio(signal);
        }
        if let Some(drivers) = &mut self.drivers {
            turn.pending |= drivers.transmit(&mut self.dispatch.server);
        }
        turn
    }

    /// Answers a request that waited.
    fn answer(&mut self, answer: Answer<Transfer<'_>>) {
        self.waiting.remove(&wait_of(&answer.request));
        let Dispatch { server, buffer, .. } = &mut self.dispatch;
        self.channel.answer(answer, server, buffer);
    }
}

/// What a request is called in `Session::waiting`.
fn wait_of(request: &Request<Transfer<'_>>) -> (FileId, u64, u64) {
    (request.file, request.operation.owner, request.tag)
}

impl Channel<'_> {
    /// Answers a request that could have waited. The bytes it read are at the start of `buffer`.
    fn answer<S: FileServer>(&self, answer: Answer<Transfer<'_>>, server: &mut S, buffer: &[u8]) {
        let Answer { request, result } = answer;
        let size = |len: usize| abi::fuse_write_out {
            size: len as u32,
            padding: 0,
        };
        match (request.operation.data, result) {
            (Data::Read(_), Ok(len)) => {
                let bytes = &buffer[..len.min(buffer.len())];
                let delivered = self.reply(request.tag, Ok(bytes));
                server.complete_read(request.file, delivered);
            }
            (Data::Write(_), Ok(len)) => {
                self.reply(request.tag, Ok(size(len).as_bytes()));
            }
            (_, Err(error)) => self.reply_error(request.tag, error),
        }
    }
}

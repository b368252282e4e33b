//! Requests about open files.

use std::borrow::Cow;

use polyfuse_kernel as abi;
use rustix::fs::OFlags;
use zerocopy::{FromBytes, IntoBytes};

use super::Session;
use crate::dispatch::Request;
use crate::errno;
use crate::fuse::MAX_OPERATION;
use crate::fuse::message::{Reply, file, parse};
use crate::fuse::processes::process_of;
use crate::fuse::transfer::Transfer;
use crate::server::{Argument, Caller, FileServer, Pid, Ready};

const POLLIN: u32 = 0x0001 | 0x0040;
const POLLOUT: u32 = 0x0004 | 0x0100;

impl<S: FileServer> Session<'_, S> {
    pub(super) fn read(&mut self, unique: u64, body: &[u8], caller: Caller) {
        let read = match parse::<abi::fuse_read_in>(body) {
            Ok(read) => read,
            Err(error) => return self.channel.reply_error(unique, error),
        };
        let size = (read.size as usize).min(MAX_OPERATION);
        self.submit(Request {
            tag: unique,
            file: file(read.fh),
            caller,
            nonblocking: nonblocking(read.flags),
            operation: Transfer::Read {
                offset: read.offset,
                size,
            },
        });
    }

    pub(super) fn write(&mut self, unique: u64, body: &[u8], caller: Caller) {
        let Ok((write, bytes)) = abi::fuse_write_in::read_from_prefix(body) else {
            return self.channel.reply_error(unique, errno::EINVAL);
        };
        self.submit(Request {
            tag: unique,
            file: file(write.fh),
            caller,
            nonblocking: nonblocking(write.flags),
            operation: Transfer::Write {
                offset: write.offset,
                bytes: Cow::Borrowed(bytes),
            },
        });
    }

    pub(super) fn submit(&mut self, request: Request<Transfer<'_>>) {
        if let Some(sharing) = self.sharing.get_mut(&request.file) {
            sharing.note(request.caller.pid);
        }
        let answer = self.dispatch.submit(request);
        answer.into_iter().for_each(|answer| self.answer(answer));
    }

    pub(super) fn ioctl(&mut self, body: &[u8], caller: Caller) -> Reply {
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

    pub(super) fn poll(&mut self, body: &[u8]) -> Reply {
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

    /// Handles the close of a descriptor, perhaps not the last: ends the process's waits on the
    /// file.
    pub(super) fn flush(&mut self, body: &[u8], caller: Caller) -> Reply {
        let file = file(parse::<abi::fuse_flush_in>(body)?.fh);
        // Every process outside our pid namespace has number 0, so two of them may not be the same.
        if caller.pid != Pid(0) && self.dispatch.has_waiters(file) {
            let closer = process_of(caller.pid);
            let same = |request: &Request<Transfer<'_>>| process_of(request.caller.pid) == closer;
            for answer in self.dispatch.interrupt(file, same) {
                self.answer(answer);
            }
        }
        Ok(Vec::new())
    }

    pub(super) fn release(&mut self, nodeid: u64, body: &[u8]) -> Reply {
        let file = file(parse::<abi::fuse_release_in>(body)?.fh);
        self.opened.remove(&(nodeid, file));
        self.pollers.remove(&file);
        self.sharing.remove(&file);
        self.listings.remove(&file);
        for answer in self.dispatch.close(file) {
            self.answer(answer);
        }
        Ok(Vec::new())
    }
}

fn nonblocking(flags: u32) -> bool {
    OFlags::from_bits_retain(flags).contains(OFlags::NONBLOCK)
}

//! Requests about open files.

use std::borrow::Cow;

use polyfuse_kernel as abi;
use rustix::fs::OFlags;
use zerocopy::{FromBytes, IntoBytes};

use super::{Session, wait_of};
use crate::dispatch::{Dispatch, Request};
use crate::errno;
use crate::fuse::MAX_OPERATION;
use crate::fuse::message::{Reply, file, parse};
use crate::fuse::processes::process_of;
use crate::fuse::transfer::{Data, Transfer};
use crate::server::{Argument, Caller, FileServer, Ready};

const POLLIN: u32 = 0x0001 | 0x0040;
const POLLOUT: u32 = 0x0004 | 0x0100;

impl<S: FileServer> Session<'_, S> {
    pub(super) fn read(&mut self, unique: u64, body: &[u8], caller: Caller) {
        let read = match parse::<abi::fuse_read_in>(body) {
            Ok(read) => read,
            Err(error) => return self.channel.reply_error(unique, error),
        };
        let file = file(read.fh);
        if self.devices.contains(&file) {
            // The kernel fills a page for a private mapping, which no program can ask to be a
            // packet. It names no owner for that.
            if read.read_flags & abi::FUSE_READ_LOCKOWNER == 0 {
                return self.channel.reply_error(unique, errno::ENODEV);
            }
            // The rest of a call that the kernel cut. What came before is all that was there.
            if read.offset != 0 {
                self.channel.reply(unique, Ok(&[]));
                return;
            }
        }
        let size = (read.size as usize).min(MAX_OPERATION);
        self.submit(Request {
            tag: unique,
            file,
            caller,
            nonblocking: flags(read.flags).contains(OFlags::NONBLOCK),
            operation: Transfer {
                owner: read.lock_owner,
                offset: read.offset,
                data: Data::Read(size),
            },
        });
    }

    pub(super) fn write(&mut self, unique: u64, body: &[u8], caller: Caller) {
        let Ok((write, bytes)) = abi::fuse_write_in::read_from_prefix(body) else {
            return self.channel.reply_error(unique, errno::EINVAL);
        };
        let file = file(write.fh);
        let flags = flags(write.flags);
        // The rest of a call that the kernel cut is no packet of its own. (With O_APPEND every write
        // has an offset, and the rest of one cannot be told.)
        let rest = write.offset != 0 && !flags.contains(OFlags::APPEND);
        if rest && self.devices.contains(&file) {
            return self.channel.reply_error(unique, errno::EMSGSIZE);
        }
        self.submit(Request {
            tag: unique,
            file,
            caller,
            nonblocking: flags.contains(OFlags::NONBLOCK),
            operation: Transfer {
                owner: write.lock_owner,
                offset: write.offset,
                data: Data::Write(Cow::Borrowed(bytes)),
            },
        });
    }

    pub(super) fn submit(&mut self, request: Request<Transfer<'_>>) {
        let wait = wait_of(&request);
        match self.dispatch.submit(request) {
            Some(answer) => {
                let Dispatch { server, buffer, .. } = &mut self.dispatch;
                self.channel.answer(answer, server, buffer);
            }
            None => {
                self.waiting.insert(wait);
            }
        }
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
    pub(super) fn flush(&mut self, body: &[u8]) -> Reply {
        let flush = parse::<abi::fuse_flush_in>(body)?;
        let waits = |tag| (file(flush.fh), flush.lock_owner, tag);
        let waiting = self.waiting.range(waits(0)..=waits(u64::MAX));
        for (_, _, tag) in waiting.copied().collect::<Vec<_>>() {
            self.cancel(tag);
        }
        Ok(Vec::new())
    }

    /// Ends a wait, if there is one with this tag, with `EINTR`.
    pub(super) fn cancel(&mut self, tag: u64) {
        if let Some(answer) = self.dispatch.cancel(tag, errno::EINTR) {
            self.answer(answer);
        }
    }

    pub(super) fn release(&mut self, nodeid: u64, body: &[u8]) -> Reply {
        let file = file(parse::<abi::fuse_release_in>(body)?.fh);
        self.opened.remove(&(nodeid, file));
        self.pollers.remove(&file);
        self.devices.remove(&file);
        self.listings.forget(file);
        for answer in self.dispatch.close(file) {
            self.answer(answer);
        }
        Ok(Vec::new())
    }
}

fn flags(bits: u32) -> OFlags {
    OFlags::from_bits_retain(bits)
}

//! The messages read from and written to `/dev/fuse`.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd};

use polyfuse_kernel as abi;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::errno::{self, Errno};
use crate::server::FileId;

/// The answer to a request, unless it waits or wants no answer.
pub(super) type Reply = Result<Vec<u8>, Errno>;
/// The connection to the kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Channel<'a>(pub(super) BorrowedFd<'a>);

impl Channel<'_> {
    /// The next request; `EAGAIN` if there is none.
    pub(super) fn read(&self, buf: &mut [u8]) -> rustix::io::Result<usize> {
        rustix::io::read(self.0, buf)
    }

    pub(super) fn reply_error(&self, unique: u64, error: Errno) {
        self.reply(unique, Err(&error));
    }

    /// Answers a request; false if the kernel refused the answer, because its caller is gone.
    pub(super) fn reply(&self, unique: u64, reply: Result<&[u8], &Errno>) -> bool {
        let (error, bytes) = match reply {
            Ok(bytes) => (0, bytes),
            Err(error) => (-error.raw(), &[][..]),
        };
        self.send(unique, error, bytes)
    }

    pub(super) fn notify_poll(&self, kh: u64) {
        let wakeup = abi::fuse_notify_poll_wakeup_out { kh };
        // A notification has no request, and carries its code in place of an error.
        self.send(0, abi::FUSE_NOTIFY_POLL as i32, wakeup.as_bytes());
    }

    fn send(&self, unique: u64, error: i32, bytes: &[u8]) -> bool {
        let header = abi::fuse_out_header {
            len: (size_of::<abi::fuse_out_header>() + bytes.len()) as u32,
            error,
            unique,
        };
        let parts = [IoSlice::new(header.as_bytes()), IoSlice::new(bytes)];
        match rustix::io::writev(self.0, &parts) {
            Ok(_) => true,
            Err(error) => {
                log::debug!("fuse: answer {unique} refused: {error}");
                false
            }
        }
    }
}

impl AsFd for Channel<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0
    }
}

pub(super) fn parse<T: FromBytes + KnownLayout + Immutable>(body: &[u8]) -> Result<T, Errno> {
    match T::read_from_prefix(body) {
        Ok((value, _)) => Ok(value),
        Err(_) => Err(errno::EINVAL),
    }
}

pub(super) fn file(fh: u64) -> FileId {
    // We gave the kernel a u32; anything else is not an open file.
    FileId(u32::try_from(fh).unwrap_or(u32::MAX))
}

pub(super) fn name(body: &[u8]) -> Result<&str, Errno> {
    let bytes = body.split(|&byte| byte == 0).next().unwrap_or_default();
    std::str::from_utf8(bytes).map_err(|_| errno::ENOENT)
}

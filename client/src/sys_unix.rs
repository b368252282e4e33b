//! ioctl(2) and fcntl(2).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `arg` must have the size that `request` encodes.
pub(crate) fn ioctl(fd: BorrowedFd<'_>, request: u32, arg: &mut [u8]) -> io::Result<()> {
    let size = (request >> 16 & 0x3fff) as usize;
    if size != arg.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the kernel reads and writes at most the encoded size, which is that of `arg`.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), request.into(), arg.as_mut_ptr()) };
    match done {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    // SAFETY: F_GETFL takes no pointer.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    if flags == -1 {
        return Err(io::Error::last_os_error());
    }
    let flags = match on {
        true => flags | libc::O_NONBLOCK,
        false => flags & !libc::O_NONBLOCK,
    };
    // SAFETY: F_SETFL takes no pointer.
    match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

//! ioctl(2).

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

//! On Redox an ioctl is a `SYS_CALL`: the request in the first word, the argument as payload.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use syscall::CallFlags;

pub(crate) fn ioctl(fd: BorrowedFd<'_>, request: u32, arg: &mut [u8]) -> io::Result<()> {
    let fd = usize::try_from(fd.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let words = [u64::from(request)];
    libredox::call::call_rw(fd, arg, CallFlags::empty(), &words)
        .map(drop)
        .map_err(|error| io::Error::from_raw_os_error(error.errno()))
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

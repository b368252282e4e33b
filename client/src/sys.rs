//! System calls.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

pub(crate) use self::imp::ioctl;

#[cfg_attr(target_os = "redox", path = "sys_redox.rs")]
#[cfg_attr(not(target_os = "redox"), path = "sys_unix.rs")]
mod imp;

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

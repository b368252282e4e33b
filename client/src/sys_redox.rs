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

//! System calls.

use std::io;
use std::net::{SocketAddr, UdpSocket};
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

/// Receives a datagram that is there already. `EAGAIN` if there is none.
#[cfg(target_os = "linux")]
pub(crate) fn recv_now(socket: &UdpSocket, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    use rustix::net::{RecvFlags, recvfrom};

    let (len, _, from) = recvfrom(socket, &mut *buf, RecvFlags::DONTWAIT)?;
    let from = from.ok_or(io::ErrorKind::InvalidData)?;
    let from = from.try_into().map_err(|_| io::ErrorKind::InvalidData)?;
    Ok((len, from))
}

/// Elsewhere std cannot say that it does not want to wait, and reads one at a time.
#[cfg(not(target_os = "linux"))]
pub(crate) fn recv_now(_: &UdpSocket, _: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    Err(io::ErrorKind::WouldBlock.into())
}

//! poll(2), and sockets that std cannot make.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// The events, as poll(2) returns them, that hold within `limit`; 0 if none does.
pub fn poll(fd: &impl AsRawFd, events: libc::c_short, limit: Duration) -> libc::c_short {
    let mut polled = libc::pollfd {
        fd: fd.as_raw_fd(),
        events,
        revents: 0,
    };
    let limit = libc::c_int::try_from(limit.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: one pollfd, as the count says.
    let count = unsafe { libc::poll(&raw mut polled, 1, limit) };
    assert!(count >= 0, "poll: {}", io::Error::last_os_error());
    polled.revents
}

/// Whether it becomes readable within `limit`.
pub fn readable(fd: &impl AsRawFd, limit: Duration) -> bool {
    poll(fd, libc::POLLIN, limit) & libc::POLLIN != 0
}

/// Whether it becomes writable within `limit`.
pub fn writable(fd: &impl AsRawFd, limit: Duration) -> bool {
    poll(fd, libc::POLLOUT, limit) & libc::POLLOUT != 0
}

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}

fn address(addr: SocketAddrV4) -> libc::sockaddr_in {
    // SAFETY: a sockaddr_in is plain numbers, for which zero is a value.
    let mut name: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    name.sin_family = libc::AF_INET as _;
    name.sin_port = addr.port().to_be();
    name.sin_addr.s_addr = u32::from_ne_bytes(addr.ip().octets());
    name
}

/// A stream socket without a name.
pub fn stream_socket(nonblocking: bool) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers.
    let fd = checked(unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) })?;
    // SAFETY: the descriptor is new, and ours.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    if nonblocking {
        // SAFETY: takes numbers.
        checked(unsafe { libc::fcntl(fd, libc::F_SETFL, libc::O_RDWR | libc::O_NONBLOCK) })?;
    }
    Ok(socket)
}

const LEN: libc::socklen_t = size_of::<libc::sockaddr_in>() as libc::socklen_t;

/// bind(2).
pub fn bind(socket: &OwnedFd, addr: SocketAddrV4) -> io::Result<()> {
    let name = address(addr);
    // SAFETY: the name is readable for the length given.
    checked(unsafe { libc::bind(socket.as_raw_fd(), (&raw const name).cast(), LEN) }).map(drop)
}

/// connect(2).
pub fn connect(socket: &OwnedFd, addr: SocketAddrV4) -> io::Result<()> {
    let name = address(addr);
    // SAFETY: the name is readable for the length given.
    checked(unsafe { libc::connect(socket.as_raw_fd(), (&raw const name).cast(), LEN) }).map(drop)
}

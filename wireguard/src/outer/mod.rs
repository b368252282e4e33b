//! The UDP that carries the tunnel.

#[cfg(target_os = "linux")]
mod host;
mod stack;

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// Sockets for IPv4 and IPv6 with the same port.
pub enum Outer {
    /// Those of the Linux kernel.
    #[cfg(target_os = "linux")]
    Host(host::Host),
    /// Those of a tund; on Redox of whatever serves `udp`.
    Stack(stack::Stack),
}

impl Outer {
    /// Opens sockets of the Linux kernel. `EADDRINUSE` if somebody has the port.
    #[cfg(target_os = "linux")]
    pub fn host(port: u16) -> io::Result<Self> {
        host::Host::open(port).map(Self::Host)
    }

    /// Opens sockets of the tund that serves its tree at `root`. What they send never leaves by
    /// `interface`, that of the tunnel, so it cannot go around in circles, whatever the routes say.
    /// `EADDRINUSE` if somebody has the port.
    pub fn stack(root: &Path, port: u16, interface: &str) -> io::Result<Self> {
        stack::Stack::open(root, port, interface).map(Self::Stack)
    }

    /// The port that peers send to.
    pub fn port(&self) -> u16 {
        match self {
            #[cfg(target_os = "linux")]
            Self::Host(host) => host.port(),
            Self::Stack(stack) => stack.port(),
        }
    }

    /// The descriptors that become readable when something arrived.
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Host(host) => host.fds(),
            Self::Stack(stack) => stack.fds(),
        }
    }

    /// Reads what has arrived, up to a bound, and calls `each` with every datagram. Errors of UDP are
    /// about what was sent earlier: it is lost, and that is all.
    pub fn receive(&mut self, mut each: impl FnMut(&mut Sender<'_>, SocketAddr, &[u8])) {
        match self {
            #[cfg(target_os = "linux")]
            Self::Host(host) => host.receive(|sender, from, datagram| {
                each(&mut Sender::Host(sender), from, datagram);
            }),
            Self::Stack(stack) => stack.receive(|sender, from, datagram| {
                each(&mut Sender::Stack(sender), from, datagram);
            }),
        }
    }

    /// The way out.
    pub fn sender(&mut self) -> Sender<'_> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Host(host) => Sender::Host(host.sender()),
            Self::Stack(stack) => Sender::Stack(stack.sender()),
        }
    }
}

/// The way out.
pub enum Sender<'a> {
    /// By the Linux kernel.
    #[cfg(target_os = "linux")]
    Host(&'a mut host::Sender),
    /// By a tund.
    Stack(&'a mut stack::Sender),
}

impl Sender<'_> {
    /// Sends a datagram, or keeps it until [`flush`](Self::flush). One that cannot be sent is lost,
    /// as on the way.
    pub fn push(&mut self, to: SocketAddr, datagram: &[u8]) {
        match self {
            #[cfg(target_os = "linux")]
            Self::Host(sender) => sender.push(to, datagram),
            Self::Stack(sender) => sender.push(to, datagram),
        }
    }

    /// Sends what is kept.
    pub fn flush(&mut self) {
        match self {
            #[cfg(target_os = "linux")]
            Self::Host(sender) => sender.flush(),
            Self::Stack(sender) => sender.flush(),
        }
    }
}

//! UDP, many datagrams at a time.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;
use std::sync::Arc;

use crate::frames::{self, FramesMut, LENGTH, Reading, Writing};
use crate::{request, sys};

/// Bytes of an address before a datagram.
const ADDRESS: usize = 24;
/// Least room for datagrams that are read, bytes: the longest there is.
const LEAST_READ: usize = 65_560;
/// The longest datagram, bytes.
pub const LONGEST: usize = 65_507;

/// A UDP socket that is bound and not connected. It belongs to the stack of a tund ([`bind`] on
/// Redox, [`bind_below`] on a mount), and one operation then carries many datagrams; or to another
/// stack, and each is an operation. A program need not know which.
///
/// [`bind`]: Self::bind
/// [`bind_below`]: Self::bind_below
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use tun::udp::{Datagrams, Outgoing, UdpSocket};
///
/// let socket = UdpSocket::bind("127.0.0.1:0".parse().unwrap())?;
/// let own = socket.local_addr()?;
///
/// let mut outgoing = Outgoing::default();
/// let room = outgoing.lend(1500).expect("room for at least one");
/// room[..5].copy_from_slice(b"hello");
/// outgoing.commit(5, own)?;
/// socket.send(&mut outgoing)?;
///
/// let mut datagrams = Datagrams::default();
/// for (from, data) in socket.recv(&mut datagrams)? {
///     assert_eq!((from, &*data), (own, &b"hello"[..]));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct UdpSocket {
    pub(crate) kind: Arc<Kind>,
}

#[derive(Debug)]
pub(crate) enum Kind {
    /// A file of tund's `udp`, in batch mode.
    Batch(File),
    Plain(std::net::UdpSocket),
}

impl UdpSocket {
    /// Binds a socket of the system: on Redox of tund if it serves `udp` there, elsewhere of the
    /// kernel. Port 0 is any port. `EADDRINUSE`, `EADDRNOTAVAIL`; `EACCES` for a low port.
    pub fn bind(addr: SocketAddr) -> io::Result<Self> {
        #[cfg(target_os = "redox")]
        match Self::bind_below("/scheme", addr) {
            Err(error) if is_other_stack(&error) => {}
            bound => return bound,
        }
        let socket = std::net::UdpSocket::bind(addr)?;
        let kind = Arc::new(Kind::Plain(socket));
        Ok(Self { kind })
    }

    /// Binds a socket of the stack that tund serves below `root`. `ENOENT` if there is none.
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// let any = "0.0.0.0:0".parse().unwrap();
    /// let socket = tun::udp::UdpSocket::bind_below("/tmp/net", any)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn bind_below(root: impl AsRef<Path>, addr: SocketAddr) -> io::Result<Self> {
        // Without a scope, which the stack has no use for.
        let name = SocketAddr::new(addr.ip(), addr.port()).to_string();
        let path = root.as_ref().join("udp/bind").join(name);
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        sys::ioctl(file.as_fd(), request::TUNSBATCH, &mut 1_i32.to_ne_bytes())?;
        let kind = Arc::new(Kind::Batch(file));
        Ok(Self { kind })
    }

    /// The address and port that it is bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &*self.kind {
            Kind::Plain(socket) => socket.local_addr(),
            Kind::Batch(file) => {
                let mut name = [0; ADDRESS];
                sys::ioctl(file.as_fd(), request::TUNGSOCKNAME, &mut name)?;
                decode(&name).ok_or(io::ErrorKind::InvalidData.into())
            }
        }
    }

    /// Whether one operation carries many datagrams.
    pub fn is_batch(&self) -> bool {
        matches!(*self.kind, Kind::Batch(_))
    }

    /// Sets whether an operation that would wait is `EAGAIN` instead.
    pub fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        sys::set_nonblocking(self.as_fd(), on)
    }

    /// Sets the interface by which nothing of this socket may leave (`TUNSBYPASS`): a tunnel's, for
    /// the socket that carries the tunnel. The interface need not be there; `None` lifts it.
    /// `EPERM` unless the socket is root's; `ErrorKind::Unsupported` for one of another stack than
    /// tund's.
    pub fn set_bypass(&self, interface: Option<&str>) -> io::Result<()> {
        self.kind.set_bypass(interface)
    }

    /// Waits for datagrams and reads as many as are there and fit. They replace those that were in
    /// `datagrams`. When a signal interrupts it, it is tried again.
    pub fn recv<'a>(&self, datagrams: &'a mut Datagrams) -> io::Result<Received<'a>> {
        let frames = &mut datagrams.frames;
        match &*self.kind {
            Kind::Batch(file) => frames.read(|buf| { file }.read(buf))?,
            Kind::Plain(socket) => frames.read(|buf| recv_plain(socket, buf))?,
        }
        Ok(datagrams.datagrams())
    }

    /// Sends all datagrams of `outgoing`, which is empty afterwards. One that cannot be sent, for
    /// want of a route for instance, is passed over, and the first such error returned at the end.
    /// After `EAGAIN` or `ENOBUFS` the rest stays: there is no room at present.
    pub fn send(&self, outgoing: &mut Outgoing) -> io::Result<()> {
        let full = |error: &io::Error| {
            let kind = error.kind();
            kind == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS)
        };
        let frames = &mut outgoing.frames;
        match &*self.kind {
            Kind::Batch(file) => frames.write_all(|bytes| { file }.write(bytes), full),
            Kind::Plain(socket) => frames.write_all(|bytes| send_plain(socket, bytes), full),
        }
    }
}

impl Kind {
    pub(crate) fn set_bypass(&self, interface: Option<&str>) -> io::Result<()> {
        let Self::Batch(file) = self else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let interface = interface.unwrap_or_default();
        let mut name = [0; 16];
        let room = name
            .get_mut(..interface.len())
            .filter(|_| interface.len() < 16);
        let room = room.ok_or(io::ErrorKind::InvalidInput)?;
        room.copy_from_slice(interface.as_bytes());
        sys::ioctl(file.as_fd(), request::TUNSBYPASS, &mut name)
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &*self.kind {
            Kind::Batch(file) => file.as_fd(),
            Kind::Plain(socket) => socket.as_fd(),
        }
    }
}

impl AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// Whether an error of an open says that another stack than tund serves `udp`.
#[cfg(target_os = "redox")]
fn is_other_stack(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::EINVAL | libc::ENOTTY | libc::EOPNOTSUPP | libc::ENODEV)
    )
}

/// Reads what is there, one datagram after the other, as frames.
fn recv_plain(socket: &std::net::UdpSocket, buf: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while buf.len() - filled >= LEAST_READ {
        let rest = &mut buf[filled..];
        let room = &mut rest[LENGTH + ADDRESS..];
        let got = match filled {
            0 => socket.recv_from(room),
            _ => sys::recv_now(socket, room),
        };
        let (len, from) = match got {
            Ok(got) => got,
            // What was read is not lost for an error behind it.
            Err(_) if filled > 0 => break,
            Err(error) => return Err(error),
        };
        rest[LENGTH..LENGTH + ADDRESS].copy_from_slice(&encode(from));
        filled += frames::finish(rest, ADDRESS + len);
    }
    Ok(filled)
}

/// Sends the first datagram of a batch.
fn send_plain(socket: &std::net::UdpSocket, frames: &[u8]) -> io::Result<usize> {
    let (address, data) = frames::first(frames)
        .split_first_chunk()
        .ok_or(io::ErrorKind::InvalidInput)?;
    let to = decode(address).ok_or(io::ErrorKind::InvalidInput)?;
    socket.send_to(data, to)?;
    Ok(1)
}

fn encode(addr: SocketAddr) -> [u8; ADDRESS] {
    let mut bytes = [0; ADDRESS];
    let family: u16 = match addr {
        SocketAddr::V4(addr) => {
            bytes[8..12].copy_from_slice(&addr.ip().octets());
            2
        }
        SocketAddr::V6(addr) => {
            bytes[4..8].copy_from_slice(&addr.scope_id().to_ne_bytes());
            bytes[8..].copy_from_slice(&addr.ip().octets());
            10
        }
    };
    bytes[..2].copy_from_slice(&family.to_ne_bytes());
    bytes[2..4].copy_from_slice(&addr.port().to_be_bytes());
    bytes
}

/// `None` if there is no address.
fn decode(bytes: &[u8; ADDRESS]) -> Option<SocketAddr> {
    let [f0, f1, p0, p1, s0, s1, s2, s3, addr @ ..] = *bytes;
    let port = u16::from_be_bytes([p0, p1]);
    match u16::from_ne_bytes([f0, f1]) {
        2 => {
            let [a, b, c, d, ..] = addr;
            Some((IpAddr::from(Ipv4Addr::new(a, b, c, d)), port).into())
        }
        10 => {
            let scope = u32::from_ne_bytes([s0, s1, s2, s3]);
            let addr = std::net::SocketAddrV6::new(Ipv6Addr::from(addr), port, 0, scope);
            Some(addr.into())
        }
        _ => None,
    }
}

/// Datagrams that were received, in memory that begins on a page.
#[derive(Debug)]
pub struct Datagrams {
    frames: Reading,
}

impl Datagrams {
    /// Room for so many bytes in one read: at least 65 560, at most 1 MiB. A socket of tund queues
    /// up to 208 KiB.
    pub fn new(capacity: usize) -> Self {
        Self {
            frames: Reading::new(capacity, LEAST_READ),
        }
    }

    /// The datagrams that were received last.
    pub fn datagrams(&mut self) -> Received<'_> {
        Received {
            frames: self.frames.frames(),
        }
    }
}

impl Default for Datagrams {
    /// Room for 192 KiB.
    fn default() -> Self {
        Self::new(192 * 1024)
    }
}

/// Iterator over datagrams that were received: where each came from, and its data, which may be
/// changed in place.
#[derive(Debug)]
pub struct Received<'a> {
    frames: FramesMut<'a>,
}

impl<'a> Iterator for Received<'a> {
    type Item = (SocketAddr, &'a mut [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (address, data) = self.frames.next()?.split_first_chunk_mut()?;
        Some((decode(address)?, data))
    }
}

/// Datagrams to be sent. It lends the room for each, so that none is copied.
#[derive(Debug)]
pub struct Outgoing {
    frames: Writing,
}

impl Outgoing {
    /// Room for so many bytes, at most 1 MiB, with 28 to 31 bytes more for each; at least for one
    /// of [`LONGEST`].
    pub fn new(capacity: usize) -> Self {
        Self {
            frames: Writing::new(capacity, ADDRESS, LONGEST),
        }
    }

    /// Room for a datagram of at most `len` bytes; `None` if there is not so much left. It holds
    /// whatever was in it before. The datagram is added by [`commit`](Self::commit); until then,
    /// lending again lends the same room.
    pub fn lend(&mut self, len: usize) -> Option<&mut [u8]> {
        self.frames.lend(len)
    }

    /// Adds the datagram that is in the first `len` bytes of the room that was lent last.
    /// `EMSGSIZE` if it is longer than that, or than [`LONGEST`].
    pub fn commit(&mut self, len: usize, to: SocketAddr) -> io::Result<()> {
        if self.frames.lent(len).is_none() || len > LONGEST {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        self.frames.commit(&encode(to), len);
        Ok(())
    }

    /// Adds a copy of a datagram. `EMSGSIZE` if it is too long, `ENOBUFS` if there is no more room:
    /// send the batch first.
    pub fn push(&mut self, data: &[u8], to: SocketAddr) -> io::Result<()> {
        if data.len() > LONGEST {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        let full = || io::Error::from_raw_os_error(libc::ENOBUFS);
        self.lend(data.len())
            .ok_or_else(full)?
            .copy_from_slice(data);
        self.commit(data.len(), to)
    }

    /// The number of datagrams in it.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes all datagrams out.
    pub fn clear(&mut self) {
        self.frames.clear();
    }
}

impl Default for Outgoing {
    /// Room for 192 KiB.
    fn default() -> Self {
        Self::new(192 * 1024)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let addr = socket.local_addr().unwrap();
        (socket, addr)
    }

    #[test]
    fn an_address_there_and_back() {
        for name in ["10.0.0.1:53", "[fd00::1]:65535", "[fe80::1%7]:9"] {
            let name: SocketAddr = name.parse().unwrap();
            assert_eq!(decode(&encode(name)), Some(name));
        }
        assert_eq!(decode(&[0; ADDRESS]), None);
    }

    #[test]
    fn another_stack_has_the_same_face() {
        let [(one, one_addr), (two, two_addr)] = [bound(), bound()];
        assert!(!one.is_batch());
        let mut outgoing = Outgoing::new(0);
        for size in [0, 1, 1400] {
            outgoing.push(&vec![7; size], two_addr).unwrap();
        }
        assert_eq!(outgoing.len(), 3);
        one.send(&mut outgoing).unwrap();
        let mut datagrams = Datagrams::default();
        let mut sizes = Vec::new();
        while sizes.len() < 3 {
            for (from, data) in two.recv(&mut datagrams).unwrap() {
                assert_eq!(from, one_addr);
                sizes.push(data.len());
            }
        }
        assert_eq!(sizes, [0, 1, 1400]);
        two.set_nonblocking(true).unwrap();
        let empty = two.recv(&mut datagrams).map(drop).unwrap_err();
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
        let bypass = two.set_bypass(Some("tun0")).unwrap_err();
        assert_eq!(bypass.kind(), io::ErrorKind::Unsupported);
    }

    #[test]
    fn one_that_cannot_be_sent_does_not_stop_the_others() {
        let [(one, _), (two, two_addr)] = [bound(), bound()];
        let mut outgoing = Outgoing::default();
        outgoing.push(b"first", two_addr).unwrap();
        // Nobody has port 0.
        outgoing
            .push(b"nobody", (Ipv4Addr::LOCALHOST, 0).into())
            .unwrap();
        outgoing.push(b"second", two_addr).unwrap();
        assert!(one.send(&mut outgoing).is_err());
        assert!(outgoing.is_empty());
        let mut datagrams = Datagrams::default();
        let mut got = Vec::new();
        while got.len() < 2 {
            got.extend(
                two.recv(&mut datagrams)
                    .unwrap()
                    .map(|(_, data)| data.to_vec()),
            );
        }
        assert_eq!(got, [b"first".to_vec(), b"second".to_vec()]);
    }

    #[test]
    fn what_is_too_long_is_refused_alone() {
        let mut outgoing = Outgoing::new(0);
        let to = (Ipv4Addr::LOCALHOST, 9).into();
        let error = outgoing.push(&vec![0; LONGEST + 1], to).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
        outgoing.push(&vec![0; LONGEST], to).unwrap();
        let error = outgoing.push(b"x", to).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS));
        assert_eq!(outgoing.len(), 1);
    }
}

//! The UDP of a tund: many datagrams in one operation.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::rc::Rc;

use tun::udp::{Datagrams, Outgoing, UdpSocket};

/// Room for what one operation carries, bytes.
const ROOM: usize = 256 << 10;
/// Datagrams of a socket without batches that are read before something else is done.
const DATAGRAMS: usize = 64;

/// Sockets for both families, of which a machine may lack IPv6's.
pub struct Stack {
    sockets: Vec<Rc<UdpSocket>>,
    sender: Sender,
    datagrams: Datagrams,
    port: u16,
}

/// What is kept, for each family.
pub struct Sender {
    v4: Way,
    v6: Option<Way>,
}

struct Way {
    socket: Rc<UdpSocket>,
    outgoing: Outgoing,
}

impl Stack {
    pub(super) fn open(root: &Path, port: u16, interface: &str) -> io::Result<Self> {
        let v4 = bind(root, (Ipv4Addr::UNSPECIFIED, port).into(), interface)?;
        let port = v4.local_addr()?.port();
        let v6 = match bind(root, (Ipv6Addr::UNSPECIFIED, port).into(), interface) {
            Ok(socket) => Some(Rc::new(socket)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            Err(_) => None,
        };
        let v4 = Rc::new(v4);
        let way = |socket: &Rc<UdpSocket>| Way {
            socket: Rc::clone(socket),
            outgoing: Outgoing::new(ROOM),
        };
        Ok(Self {
            sender: Sender {
                v4: way(&v4),
                v6: v6.as_ref().map(way),
            },
            sockets: std::iter::once(v4).chain(v6).collect(),
            datagrams: Datagrams::new(ROOM),
            port,
        })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.sockets.iter().map(|socket| socket.as_fd()).collect()
    }

    pub(super) fn sender(&mut self) -> &mut Sender {
        &mut self.sender
    }

    pub(super) fn receive(&mut self, mut each: impl FnMut(&mut Sender, SocketAddr, &[u8])) {
        for socket in &self.sockets {
            let reads = if socket.is_batch() { 1 } else { DATAGRAMS };
            for _ in 0..reads {
                let Ok(received) = socket.recv(&mut self.datagrams) else {
                    break;
                };
                for (from, datagram) in received {
                    each(&mut self.sender, from, datagram);
                }
            }
        }
    }
}

impl Sender {
    pub(super) fn push(&mut self, to: SocketAddr, datagram: &[u8]) {
        let way = match to {
            SocketAddr::V4(_) => Some(&mut self.v4),
            SocketAddr::V6(_) => self.v6.as_mut(),
        };
        let Some(way) = way else {
            return;
        };
        if way.outgoing.push(datagram, to).is_err() {
            way.flush();
            let _ = way.outgoing.push(datagram, to);
        }
    }

    pub(super) fn flush(&mut self) {
        self.v4.flush();
        if let Some(way) = &mut self.v6 {
            way.flush();
        }
    }
}

impl Way {
    fn flush(&mut self) {
        if self.outgoing.is_empty() {
            return;
        }
        if let Err(error) = self.socket.send(&mut self.outgoing) {
            log::debug!("not all datagrams were sent: {error}");
            self.outgoing.clear();
        }
    }
}

fn bind(root: &Path, address: SocketAddr, interface: &str) -> io::Result<UdpSocket> {
    let bound = match cfg!(target_os = "redox") && root == Path::new("/scheme") {
        // Of whatever stack there is.
        true => UdpSocket::bind(address),
        false => UdpSocket::bind_below(root, address),
    };
    let socket = bound?;
    socket.set_nonblocking(true)?;
    match socket.set_bypass(Some(interface)) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            log::warn!("this network cannot keep the tunnel's own packets out of {interface}");
        }
        done => done?,
    }
    Ok(socket)
}

//! The Linux kernel's UDP: as many datagrams in one system call as it can carry.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover};
use socket2::{Domain, Protocol, Type};

/// Room for what one call receives in one buffer, bytes: many datagrams, if the kernel joined them.
const ROOM: usize = 1 << 16;
/// Buffers of one call.
const BUFFERS: usize = if BATCH_SIZE < 16 { BATCH_SIZE } else { 16 };
/// Most bytes that are sent at once: a datagram cannot have more, and the kernel cuts one up.
const MAX_SENT: usize = 65_507;
/// Room in the kernel's queues that is asked for, bytes.
const QUEUE: usize = 4 << 20;

/// Sockets for both families, of which a machine may lack IPv6's.
pub struct Host {
    sockets: Vec<Rc<Socket>>,
    sender: Sender,
    port: u16,
    room: Vec<u8>,
}

struct Socket {
    udp: UdpSocket,
    state: UdpSocketState,
}

/// What is kept goes to one peer, and all but the last datagram have the same length.
pub struct Sender {
    v4: Rc<Socket>,
    v6: Option<Rc<Socket>>,
    to: SocketAddr,
    kept: Vec<u8>,
    segment: usize,
    count: usize,
}

impl Host {
    pub(super) fn open(port: u16) -> io::Result<Self> {
        let v4 = Rc::new(Socket::open((Ipv4Addr::UNSPECIFIED, port).into())?);
        // A way that is too narrow for our datagrams shall still carry them.
        set_ip_mtu_discover(&v4.udp, Ipv4PathMtuDiscovery::DONT)?;
        let port = v4.udp.local_addr()?.port();
        let v6 = match Socket::open((Ipv6Addr::UNSPECIFIED, port).into()) {
            Ok(socket) => Some(Rc::new(socket)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            Err(_) => None,
        };
        Ok(Self {
            sockets: std::iter::once(&v4).chain(&v6).cloned().collect(),
            sender: Sender {
                v4,
                v6,
                to: (Ipv4Addr::UNSPECIFIED, 0).into(),
                kept: Vec::with_capacity(MAX_SENT),
                segment: 0,
                count: 0,
            },
            port,
            room: vec![0; BUFFERS * ROOM],
        })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.sockets
            .iter()
            .map(|socket| socket.udp.as_fd())
            .collect()
    }

    pub(super) fn sender(&mut self) -> &mut Sender {
        &mut self.sender
    }

    pub(super) fn receive(&mut self, mut each: impl FnMut(&mut Sender, SocketAddr, &[u8])) {
        for socket in &self.sockets {
            let mut met = [RecvMeta::default(); BUFFERS];
            let received = {
                let mut buffers: Vec<_> = self.room.chunks_mut(ROOM).map(IoSliceMut::new).collect();
                socket
                    .state
                    .recv(UdpSockRef::from(&socket.udp), &mut buffers, &mut met)
            };
            let Ok(count) = received else {
                continue;
            };
            for (buffer, meta) in self.room.chunks(ROOM).zip(&met[..count.min(BUFFERS)]) {
                let received = &buffer[..meta.len.min(ROOM)];
                if received.is_empty() {
                    each(&mut self.sender, meta.addr, received);
                }
                for datagram in received.chunks(meta.stride.max(1)) {
                    each(&mut self.sender, meta.addr, datagram);
                }
            }
        }
    }
}

impl Sender {
    pub(super) fn push(&mut self, to: SocketAddr, datagram: &[u8]) {
        let Some(socket) = self.socket(to) else {
            return;
        };
        let fits = self.count > 0
            && self.to == to
            && datagram.len() <= self.segment
            && self.kept.len() == self.count * self.segment
            && self.count < socket.state.max_gso_segments()
            && self.kept.len() + datagram.len() <= MAX_SENT;
        if !fits {
            self.flush();
            self.to = to;
            self.segment = datagram.len();
        }
        self.kept.extend_from_slice(datagram);
        self.count += 1;
    }

    pub(super) fn flush(&mut self) {
        if let Some(socket) = self.socket(self.to).filter(|_| self.count > 0) {
            let transmit = Transmit {
                destination: self.to,
                ecn: None,
                contents: &self.kept,
                segment_size: (self.count > 1).then_some(self.segment),
                src_ip: None,
            };
            if let Err(error) = socket
                .state
                .try_send(UdpSockRef::from(&socket.udp), &transmit)
            {
                log::debug!("{}: {error}", self.to);
                if self.count > 1 && error.kind() != io::ErrorKind::WouldBlock {
                    // Perhaps only together: longer than the mtu of the way, for example.
                    for datagram in self.kept.chunks(self.segment.max(1)) {
                        let _ = socket.udp.send_to(datagram, self.to);
                    }
                }
            }
        }
        self.kept.clear();
        self.count = 0;
    }

    fn socket(&self, to: SocketAddr) -> Option<&Socket> {
        match to {
            SocketAddr::V4(_) => Some(&self.v4),
            SocketAddr::V6(_) => self.v6.as_deref(),
        }
    }
}

impl Socket {
    fn open(address: SocketAddr) -> io::Result<Self> {
        let domain = Domain::for_address(address);
        let socket = socket2::Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        if domain == Domain::IPV6 {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        let udp = UdpSocket::from(socket);
        let state = UdpSocketState::new(UdpSockRef::from(&udp))?;
        // As much as the system gives.
        let _ = state.set_recv_buffer_size(UdpSockRef::from(&udp), QUEUE);
        let _ = state.set_send_buffer_size(UdpSockRef::from(&udp), QUEUE);
        Ok(Self { udp, state })
    }
}

//! `tcp` and `udp`.
//!
//! A program opens the bare scheme and gets a socket without a name. `bind` and `connect` are dups
//! with a name, and `accept` is dup `"listen"`; each gives a new file, which the C library puts in
//! place of the old one. Options, names, and messages with flags come as calls.
//!
//! - [`stream`]: listening, accepting, connecting;
//! - [`datagram`]: binding, and the files that share a socket;
//! - [`group`]: membership in groups;
//! - [`transfer`]: reading and writing, with flags or without;
//! - [`option`]: what `setsockopt` and `getsockopt` know of sockets, and [`level`]: of protocols.

mod datagram;
mod group;
mod level;
mod option;
mod stream;
mod transfer;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use scheme::errno::{self, Errno};
use scheme::wait::Direction;
use scheme::{Caller, FileId, Outcome, Ready, Stat};
use smallvec::SmallVec;
use smoltcp::socket::tcp::State as TcpState;

use super::SOCKET;
use super::message::sent;
use super::name::{self, Names};
use super::setting;
use crate::net::{File, Net};
use crate::stack::{FlowId, ListenerId, UdpId};

use group::{Member, Memberships};
use level::Level;
use option::Options;
use transfer::MSG_DONTWAIT;

/// Ports up to this one, inclusive, are the superuser's.
const PRIVILEGED: u16 = 1024;

/// `SocketCall` of Redox's protocol.
mod verb {
    pub(super) const SET_OPTION: u64 = 2;
    pub(super) const GET_OPTION: u64 = 3;
    pub(super) const SEND_MESSAGE: u64 = 4;
    pub(super) const RECEIVE_MESSAGE: u64 = 5;
    pub(super) const PEER_NAME: u64 = 8;
    pub(super) const SHUTDOWN: u64 = 9;
}

/// Which scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A stream.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Kind {
    const fn scheme(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// An open socket.
#[derive(Debug)]
pub(crate) struct Socket {
    kind: Kind,
    /// Who opened it; only the superuser has the low ports.
    uid: u32,
    state: State,
    options: Options,
    shut_read: bool,
    shut_write: bool,
}

#[derive(Debug)]
enum State {
    /// It has no name yet.
    Fresh,
    /// TCP, bound: `listen` itself never arrives, so it accepts from then on.
    Listening {
        listener: ListenerId,
        local: (IpAddr, u16),
    },
    /// TCP, with another end. `told` says whether the program knows how connecting went.
    Flow {
        flow: FlowId,
        local: (IpAddr, u16),
        remote: (IpAddr, u16),
        told: bool,
    },
    /// UDP, bound; `peer` is where writes go.
    Datagrams {
        socket: UdpId,
        local: (IpAddr, u16),
        peer: Option<(IpAddr, u16)>,
    },
    /// Its socket went to another file.
    Moved,
}

/// The queue that a dup waits in: to accept is to read, to connect is to write.
pub(crate) fn dup_direction(verb: &[u8]) -> Direction {
    match verb {
        b"listen" => Direction::Read,
        _ => Direction::Write,
    }
}

/// The queue that a call waits in.
pub(crate) fn call_direction(metadata: &[u64]) -> Direction {
    match metadata.first() {
        Some(&verb::SEND_MESSAGE) => Direction::Write,
        _ => Direction::Read,
    }
}

/// The files of a UDP socket: in most cases, one.
type Holders = SmallVec<[FileId; 1]>;

/// What all sockets share.
#[derive(Debug, Default)]
pub(crate) struct InetSockets {
    /// The files of each UDP socket: dup makes more than one.
    holders: BTreeMap<UdpId, Holders>,
    memberships: Memberships,
}

impl InetSockets {
    /// The files of a UDP socket.
    pub(crate) fn holders(&self, socket: UdpId) -> Holders {
        self.holders.get(&socket).cloned().unwrap_or_default()
    }
}

/// Whether a path below `tcp` or `udp` can be opened.
pub(crate) fn stat(path: &str) -> Result<Stat, Errno> {
    Names::parse(path).map(|_| SOCKET).ok_or(errno::ENOENT)
}

/// Whether an address stands for any of ours.
fn specific(addr: IpAddr) -> Option<IpAddr> {
    (!addr.is_unspecified()).then_some(addr)
}

/// To connect to no address in particular means this host.
fn destination((addr, port): (IpAddr, u16)) -> (IpAddr, u16) {
    let addr = match addr {
        IpAddr::V4(addr) if addr.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(addr) if addr.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        addr => addr,
    };
    (addr, port)
}

impl Net {
    /// Opens a socket, with names if the path has some.
    pub(crate) fn inet_open(
        &mut self,
        kind: Kind,
        path: &str,
        caller: Caller,
    ) -> Result<FileId, Errno> {
        let fresh = Socket {
            kind,
            uid: caller.uid,
            state: State::Fresh,
            options: Options::default(),
            shut_read: false,
            shut_write: false,
        };
        let id = self.add_file(File::Inet(Box::new(fresh)))?;
        if path.is_empty() {
            return Ok(id);
        }
        let names = Names::parse(path).ok_or(errno::EINVAL);
        let opened = names.and_then(|names| match (names.local, names.remote, kind) {
            (local, Some(remote), Kind::Tcp) => self.start_connect(id, local, destination(remote)),
            (local, peer, Kind::Udp) => {
                let any = (Ipv4Addr::UNSPECIFIED.into(), 0);
                self.bind_datagrams(id, local.unwrap_or(any))?;
                self.set_peer(id, peer.map(destination))
            }
            (Some(local), None, Kind::Tcp) => self.start_listen(id, local),
            (None, None, Kind::Tcp) => Err(errno::EINVAL),
        });
        match opened {
            Ok(()) => Ok(id),
            Err(error) => {
                self.discard_file(id);
                Err(error)
            }
        }
    }

    fn inet(&mut self, id: FileId) -> Result<&mut Socket, Errno> {
        match self.file_mut(id)? {
            File::Inet(socket) => Ok(socket),
            _ => Err(errno::EBADF),
        }
    }

    /// A new file with the settings of `id`, and this state.
    fn derive(&mut self, id: FileId, state: State) -> Result<FileId, Errno> {
        let socket = self.inet(id)?;
        let derived = Socket {
            kind: socket.kind,
            uid: socket.uid,
            state,
            options: socket.options,
            shut_read: socket.shut_read,
            shut_write: socket.shut_write,
        };
        self.add_file(File::Inet(Box::new(derived)))
    }

    fn check_port(&mut self, id: FileId, port: u16) -> Result<(), Errno> {
        match self.inet(id)?.uid {
            0 => Ok(()),
            _ if (1..=PRIVILEGED).contains(&port) => Err(errno::EACCES),
            _ => Ok(()),
        }
    }

    /// A datagram socket may be bound to a group, whose packets it then receives.
    fn check_local(&self, kind: Kind, addr: IpAddr) -> Result<Option<IpAddr>, Errno> {
        match specific(addr) {
            Some(addr) if kind == Kind::Udp && addr.is_multicast() => Ok(Some(addr)),
            Some(addr) if !self.ifs.is_local(&addr) => Err(errno::EADDRNOTAVAIL),
            addr => Ok(addr),
        }
    }

    /// The verbs of dup.
    pub(crate) fn inet_dup(
        &mut self,
        id: FileId,
        verb: &[u8],
        nonblocking: bool,
    ) -> Outcome<FileId> {
        let Ok(verb) = std::str::from_utf8(verb) else {
            return errno::EINVAL.into();
        };
        match verb {
            "listen" => self.inet_accept(id),
            "disconnect" => self.inet_disconnect(id).into(),
            _ => match (setting::Name::parse(verb), Names::parse(verb)) {
                (Some(name), _) => self.setting_open(id, name).into(),
                (None, Some(names)) => self.inet_name(id, names, nonblocking),
                (None, None) => errno::EINVAL.into(),
            },
        }
    }

    /// `bind` and `connect`.
    fn inet_name(&mut self, id: FileId, names: Names, nonblocking: bool) -> Outcome<FileId> {
        let kind = match self.inet(id) {
            Ok(socket) => socket.kind,
            Err(error) => return error.into(),
        };
        match (kind, names.remote) {
            (Kind::Tcp, Some(remote)) => {
                self.tcp_connect_file(id, names.local, destination(remote), nonblocking)
            }
            (Kind::Tcp, None) => self.tcp_bind_file(id, names.local).into(),
            (Kind::Udp, remote) => self
                .udp_name(id, names.local, remote.map(destination))
                .into(),
        }
    }

    /// Calls: options, names, messages, shutdown.
    pub(crate) fn inet_call(
        &mut self,
        id: FileId,
        payload: &mut [u8],
        metadata: &[u64],
    ) -> Outcome<usize> {
        let word = |at: usize| metadata.get(at).copied().unwrap_or_default();
        if word(0) != verb::RECEIVE_MESSAGE {
            self.stir();
        }
        match word(0) {
            verb::GET_OPTION => match Level::parse(word(2)) {
                None => errno::ENOPROTOOPT.into(),
                Some(Level::Socket) => self.get_option(id, word(1), payload).into(),
                Some(level) => self.get_protocol_option(id, level, word(1), payload).into(),
            },
            verb::SET_OPTION => match Level::parse(word(2)) {
                None => errno::ENOPROTOOPT.into(),
                Some(Level::Socket) => self.set_option(id, word(1), payload).into(),
                Some(level) => self.set_protocol_option(id, level, word(1), payload).into(),
            },
            verb::SEND_MESSAGE => {
                let Some(data) = sent(payload) else {
                    return errno::EINVAL.into();
                };
                match self.inet_write(id, data) {
                    Outcome::Wait if word(1) & MSG_DONTWAIT != 0 => errno::EAGAIN.into(),
                    outcome => outcome,
                }
            }
            verb::RECEIVE_MESSAGE => self.receive_message(id, payload, word(1)),
            verb::PEER_NAME => self.peer_name(id, payload).into(),
            verb::SHUTDOWN => self.shutdown(id, word(1)).into(),
            0 | 1 | 6 | 7 => errno::EOPNOTSUPP.into(),
            _ => errno::EINVAL.into(),
        }
    }

    fn peer_name(&mut self, id: FileId, payload: &mut [u8]) -> Result<usize, Errno> {
        let remote = match self.inet(id)?.state {
            State::Flow {
                remote, told: true, ..
            } => Some(remote),
            // Who does not wait for the connection hears of it from poll.
            State::Flow { flow, remote, .. } => {
                let socket = self.tcp.socket(flow);
                let connected = socket.is_some_and(|socket| {
                    use TcpState::{Closed, Listen, SynReceived, SynSent};
                    !matches!(socket.state(), Closed | Listen | SynSent | SynReceived)
                });
                connected.then_some(remote)
            }
            State::Datagrams { peer, .. } => peer,
            _ => None,
        };
        remote.ok_or(errno::ENOTCONN)?;
        let path = format!("/scheme/{}", self.inet_path(id));
        let to = payload.get_mut(..path.len()).ok_or(errno::EINVAL)?;
        to.copy_from_slice(path.as_bytes());
        Ok(path.len())
    }

    /// `tcp/REMOTE/LOCAL`.
    pub(crate) fn inet_path(&self, id: FileId) -> String {
        let Ok(File::Inet(socket)) = self.file(id) else {
            return String::new();
        };
        let (remote, local) = match socket.state {
            State::Fresh | State::Moved => (None, None),
            State::Listening { local, .. } => (None, Some(local)),
            State::Flow { local, remote, .. } => (Some(remote), Some(local)),
            State::Datagrams {
                local: (addr, port),
                peer,
                ..
            } => {
                // Who is connected has an address, if only for that.
                let chosen = peer.and_then(|(dst, _)| self.route_to(&dst, None).ok()?.src);
                let addr = specific(addr).or(chosen).unwrap_or(addr);
                (peer, Some((addr, port)))
            }
        };
        let mut path = format!("{}/", socket.kind.scheme());
        name::write(&mut path, remote);
        path.push('/');
        name::write(&mut path, local);
        path
    }

    pub(crate) fn inet_ready(&mut self, id: FileId) -> Ready {
        let Ok(socket) = self.inet(id) else {
            return Ready::empty();
        };
        let (shut_read, shut_write) = (socket.shut_read, socket.shut_write);
        let mut ready = match socket.state {
            State::Fresh | State::Moved => Ready::WRITE,
            State::Listening { listener, .. } => match self.tcp.has_queued(listener) {
                true => Ready::READ,
                false => Ready::empty(),
            },
            State::Datagrams { socket, .. } => match self.udp.has_queued(socket) {
                true => Ready::all(),
                false => Ready::WRITE,
            },
            State::Flow { flow, .. } => match self.tcp.socket(flow) {
                None => Ready::all(),
                Some(tcp) => {
                    let connecting =
                        matches!(tcp.state(), TcpState::SynSent | TcpState::SynReceived);
                    let mut ready = Ready::empty();
                    ready.set(
                        Ready::READ,
                        tcp.can_recv() || (!connecting && !tcp.may_recv()),
                    );
                    ready.set(
                        Ready::WRITE,
                        tcp.can_send() || (!connecting && !tcp.may_send()),
                    );
                    ready
                }
            },
        };
        ready.set(Ready::READ, ready.contains(Ready::READ) || shut_read);
        ready.set(Ready::WRITE, ready.contains(Ready::WRITE) || shut_write);
        ready
    }

    pub(crate) fn inet_close(&mut self, id: FileId) {
        let Ok(socket) = self.inet(id) else {
            return;
        };
        match std::mem::replace(&mut socket.state, State::Moved) {
            State::Fresh | State::Moved => self.inet_leave_all(Member::Fresh(id)),
            State::Listening { listener, .. } => self.tcp_unlisten(listener),
            State::Flow { flow, .. } => self.tcp_close(flow),
            State::Datagrams { socket, .. } => {
                let holders = self.inet.holders.entry(socket).or_default();
                holders.retain(|holder| *holder != id);
                if holders.is_empty() {
                    self.inet.holders.remove(&socket);
                    self.inet_leave_all(Member::Bound(socket));
                    self.udp.unbind(socket);
                } else {
                    self.filter_datagrams(socket);
                }
            }
        }
    }
}

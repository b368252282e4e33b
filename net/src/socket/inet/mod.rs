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
//! - [`batch`]: many datagrams in one read or write;
//! - [`option`]: the options of sockets, and [`level`]: those of protocols;
//! - [`ioctl`]: device controls.

mod batch;
mod datagram;
mod group;
mod ioctl;
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

use super::SOCKET;
use super::message::sent;
use super::name::{self, Names};
use super::option_file;
use crate::files::Wakes;
use crate::ifnet::IfIndex;
use crate::net::Net;
use crate::stack::{FlowId, ListenerId, Owner, Peer, TcpState, UdpId};

pub(crate) use ioctl::request;

use group::{Memberships, SocketKey};
use level::Level;
use option::Options;
use transfer::{MSG_DONTWAIT, MSG_PEEK};

/// Ports up to this one, inclusive, are reserved for the superuser.
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

/// The transport of a scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// A stream.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Transport {
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
    transport: Transport,
    /// The user that opened it; only the superuser may bind low ports.
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
    /// TCP, bound. `listen` itself never arrives, so the socket accepts from then on.
    Listening {
        listener: ListenerId,
        local: (IpAddr, u16),
    },
    /// TCP, with a peer. `told` says whether the program knows the result of connecting.
    Flow {
        flow: FlowId,
        local: (IpAddr, u16),
        remote: Peer,
        told: bool,
    },
    /// UDP, bound; `peer` is the destination of writes.
    Datagrams {
        socket: UdpId,
        local: (IpAddr, u16),
        peer: Option<Peer>,
    },
    /// The socket was moved to another file.
    Moved,
}

/// The queue that a dup waits in: accept waits like a read, connect like a write.
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

/// A file of a UDP socket, and the destination of its writes.
#[derive(Clone, Copy, Debug)]
struct Holder {
    file: FileId,
    peer: Option<Peer>,
}

/// The state that all sockets share.
#[derive(Debug, Default)]
pub(crate) struct InetSockets {
    /// The files of each UDP socket: in most cases one, and dup makes more.
    holders: BTreeMap<UdpId, SmallVec<[Holder; 1]>>,
    memberships: Memberships,
}

impl InetSockets {
    /// The files of a UDP socket.
    pub(crate) fn holders(&self, socket: UdpId) -> impl Iterator<Item = FileId> {
        let holders = self.holders.get(&socket).into_iter().flatten();
        holders.map(|holder| holder.file)
    }

    /// Removes every membership on an interface that is gone.
    pub(crate) fn detach(&mut self, dev: IfIndex) {
        self.memberships.detach(dev);
    }
}

/// The context of a request for a socket.
pub(crate) struct Context<'a> {
    net: &'a mut Net,
    shared: &'a mut InetSockets,
    wakes: &'a mut Wakes,
    /// The file of the socket.
    id: FileId,
}

impl<'a> Context<'a> {
    /// The context for the socket of file `id`.
    pub(crate) fn new(
        net: &'a mut Net,
        shared: &'a mut InetSockets,
        wakes: &'a mut Wakes,
        id: FileId,
    ) -> Self {
        Self {
            net,
            shared,
            wakes,
            id,
        }
    }
}

impl Context<'_> {
    /// The owner in events of the socket.
    fn owner(&self) -> Owner {
        Owner(self.id.0)
    }

    /// The context for another file.
    fn with(&mut self, id: FileId) -> Context<'_> {
        Context::new(self.net, self.shared, self.wakes, id)
    }
}

/// The result of a dup of a socket.
#[derive(Debug)]
pub(crate) enum Derived {
    Socket(Box<Socket>),
    /// The file of an option.
    Option(option_file::Name),
}

/// The directory of `udp` whose files are bound and not connected.
pub(crate) const BIND: &str = "bind";

/// The address and port to bind, of a path below `udp`.
fn bound(path: &str) -> Option<Names> {
    let name = path.strip_prefix(BIND)?.strip_prefix('/')?;
    let names = Names::parse(name)?;
    // It names one end only, without a slash.
    let Names { remote, local } = names;
    let local = remote.filter(|remote| local.is_none() && remote.link.is_none());
    let local = local.map(|local| local.name());
    local.is_some().then_some(Names {
        remote: None,
        local,
    })
}

impl Transport {
    /// The names in a path.
    fn names(self, path: &str) -> Option<Names> {
        let bound = match self {
            Self::Udp => bound(path),
            Self::Tcp => None,
        };
        bound.or_else(|| Names::parse(path))
    }

    /// Whether a path below the scheme can be opened. `None` is a directory.
    pub(crate) fn stat(self, path: &str) -> Result<Option<Stat>, Errno> {
        match (self, path) {
            (Self::Udp, BIND) => Ok(None),
            _ => self.names(path).map(|_| Some(SOCKET)).ok_or(errno::ENOENT),
        }
    }
}

/// The address as a specific one; `None` for the unspecified address.
fn specific(addr: IpAddr) -> Option<IpAddr> {
    (!addr.is_unspecified()).then_some(addr)
}

/// The name of a socket that has none and is to have this peer: any port of all addresses.
fn any(peer: Option<Peer>) -> (IpAddr, u16) {
    let addr = match peer.map(|peer| peer.addr) {
        Some(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    };
    (addr, 0)
}

/// `EADDRNOTAVAIL` if a socket that is bound to an address of one family has a peer of the other.
fn check_family(local: IpAddr, peer: Option<Peer>) -> Result<(), Errno> {
    let fits = peer.is_none_or(|peer| peer.addr.is_ipv4() == local.is_ipv4());
    fits.then_some(()).ok_or(errno::EADDRNOTAVAIL)
}

/// The destination of a connect: the unspecified address means this host. Nobody has port 0:
/// `EADDRNOTAVAIL`, as on BSD.
fn destination(mut peer: Peer) -> Result<Peer, Errno> {
    if peer.port == 0 {
        return Err(errno::EADDRNOTAVAIL);
    }
    peer.addr = match peer.addr {
        IpAddr::V4(addr) if addr.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(addr) if addr.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        addr => addr,
    };
    Ok(peer)
}

impl Socket {
    /// Opens a socket, with names if the path has some.
    pub(crate) fn open(
        cx: &mut Context<'_>,
        transport: Transport,
        path: &str,
        caller: Caller,
    ) -> Result<Self, Errno> {
        let mut socket = Self {
            transport,
            uid: caller.uid,
            state: State::Fresh,
            options: Options::default(),
            shut_read: false,
            shut_write: false,
        };
        if path.is_empty() {
            return Ok(socket);
        }
        let names = transport.names(path).ok_or(errno::EINVAL)?;
        match (names.local, names.remote, transport) {
            (local, Some(remote), Transport::Tcp) => {
                socket.start_connect(cx, local, destination(remote)?)?;
            }
            (local, peer, Transport::Udp) => {
                let peer = peer.map(destination).transpose()?;
                socket.bind_datagrams(cx, local.unwrap_or_else(|| any(peer)))?;
                socket.set_peer(cx, peer)?;
            }
            (Some(local), None, Transport::Tcp) => socket.start_listen(cx, local)?,
            (None, None, Transport::Tcp) => return Err(errno::EINVAL),
        }
        Ok(socket)
    }

    /// Another socket with the same settings, in this state.
    fn derive(&self, state: State) -> Box<Self> {
        Box::new(Self {
            transport: self.transport,
            uid: self.uid,
            state,
            options: self.options,
            shut_read: self.shut_read,
            shut_write: self.shut_write,
        })
    }

    fn check_port(&self, port: u16) -> Result<(), Errno> {
        match self.uid {
            0 => Ok(()),
            _ if (1..=PRIVILEGED).contains(&port) => Err(errno::EACCES),
            _ => Ok(()),
        }
    }

    /// A datagram socket may be bound to a group or broadcast address, whose packets it then
    /// receives.
    fn check_local(&self, net: &Net, addr: IpAddr) -> Result<(), Errno> {
        let udp = self.transport == Transport::Udp;
        let hears =
            addr.is_unspecified() || net.ip.ifs.is_local(&addr) || udp && net.ip.ifs.is_many(&addr);
        hears.then_some(()).ok_or(errno::EADDRNOTAVAIL)
    }

    /// Handles the verbs of dup. The new file has the number `new`.
    pub(crate) fn dup(
        &mut self,
        cx: &mut Context<'_>,
        verb: &[u8],
        nonblocking: bool,
        new: FileId,
    ) -> Outcome<Derived> {
        let Ok(verb) = std::str::from_utf8(verb) else {
            return errno::EINVAL.into();
        };
        let derived = match verb {
            "listen" => self.accept(cx, new),
            "disconnect" => self.disconnect(cx, new).into(),
            _ => match (option_file::Name::parse(verb), Names::parse(verb)) {
                (Some(name), _) => return Outcome::Done(Ok(Derived::Option(name))),
                (None, Some(names)) => self.name(cx, names, nonblocking, new),
                (None, None) => errno::EINVAL.into(),
            },
        };
        match derived {
            Outcome::Done(socket) => Outcome::Done(socket.map(Derived::Socket)),
            Outcome::Wait => Outcome::Wait,
        }
    }

    /// `bind` and `connect`.
    fn name(
        &mut self,
        cx: &mut Context<'_>,
        names: Names,
        nonblocking: bool,
        new: FileId,
    ) -> Outcome<Box<Self>> {
        let remote = match names.remote.map(destination).transpose() {
            Ok(remote) => remote,
            Err(error) => return error.into(),
        };
        match (self.transport, remote) {
            (Transport::Tcp, Some(remote)) => {
                self.connect(cx, names.local, remote, nonblocking, new)
            }
            (Transport::Tcp, None) => self.bind(cx, names.local, new).into(),
            (Transport::Udp, remote) => self.name_datagrams(cx, names.local, remote, new).into(),
        }
    }

    /// Whether a call can change anything but the queue of received data.
    pub(crate) fn changes(metadata: &[u64]) -> bool {
        metadata.first() != Some(&verb::RECEIVE_MESSAGE)
    }

    /// Whether a call takes received data.
    pub(crate) fn takes(metadata: &[u64]) -> bool {
        let flags = metadata.get(1).copied().unwrap_or_default();
        metadata.first() == Some(&verb::RECEIVE_MESSAGE) && flags & MSG_PEEK == 0
    }

    /// Calls: options, names, messages, shutdown.
    pub(crate) fn call(
        &mut self,
        cx: &mut Context<'_>,
        payload: &mut [u8],
        metadata: &[u64],
    ) -> Outcome<usize> {
        let word = |at: usize| metadata.get(at).copied().unwrap_or_default();
        match word(0) {
            verb::GET_OPTION => match Level::parse(word(2)) {
                None => errno::ENOPROTOOPT.into(),
                Some(Level::Socket) => self.get_option(cx, word(1), payload).into(),
                Some(level) => self.get_protocol_option(level, word(1), payload).into(),
            },
            verb::SET_OPTION => match Level::parse(word(2)) {
                None => errno::ENOPROTOOPT.into(),
                Some(Level::Socket) => self.set_option(cx, word(1), payload).into(),
                Some(level) => self.set_protocol_option(cx, level, word(1), payload).into(),
            },
            verb::SEND_MESSAGE => {
                let Some(data) = sent(payload) else {
                    return errno::EINVAL.into();
                };
                match self.send(cx, data) {
                    Outcome::Wait if word(1) & MSG_DONTWAIT != 0 => errno::EAGAIN.into(),
                    outcome => outcome,
                }
            }
            verb::RECEIVE_MESSAGE => self.receive_message(cx, payload, word(1)),
            verb::PEER_NAME => self.peer_name(cx.net, payload).into(),
            verb::SHUTDOWN => self.shutdown(cx, word(1)).into(),
            0 | 1 | 6 | 7 => errno::EOPNOTSUPP.into(),
            _ => errno::EINVAL.into(),
        }
    }

    fn peer_name(&self, net: &Net, payload: &mut [u8]) -> Result<usize, Errno> {
        let remote = match self.state {
            State::Flow {
                remote, told: true, ..
            } => Some(remote),
            // A program that does not wait for the connection learns of it from poll.
            State::Flow { flow, remote, .. } => {
                let connected = net.tcp.connection(flow).is_some_and(|connection| {
                    use TcpState::{Closed, SynReceived, SynSent};
                    !matches!(connection.state(), Closed | SynSent | SynReceived)
                });
                connected.then_some(remote)
            }
            State::Datagrams { peer, .. } => peer,
            _ => None,
        };
        remote.ok_or(errno::ENOTCONN)?;
        let path = format!("/scheme/{}", self.path(net));
        let to = payload.get_mut(..path.len()).ok_or(errno::EINVAL)?;
        to.copy_from_slice(path.as_bytes());
        Ok(path.len())
    }

    /// `tcp/REMOTE/LOCAL`.
    pub(crate) fn path(&self, net: &Net) -> String {
        let (remote, local) = match self.state {
            State::Fresh | State::Moved => (None, None),
            State::Listening { local, .. } => (None, Some(local)),
            State::Flow { local, remote, .. } => (Some(remote), Some(local)),
            State::Datagrams {
                socket,
                local: (addr, port),
                peer,
            } => {
                // A connected socket has an address, even if only for this destination.
                let chosen = peer.and_then(|peer| {
                    let links = (peer.link, self.options.bypass);
                    let egress = net.udp.egress(&net.ip, socket, None, peer.name(), links);
                    net.ip.route_to(&peer.addr, egress.ok()?).ok()?.src
                });
                let addr = specific(addr).or(chosen).unwrap_or(addr);
                (peer, Some((addr, port)))
            }
        };
        let mut path = format!("{}/", self.transport.scheme());
        name::write_peer(&mut path, remote);
        path.push('/');
        name::write(&mut path, local);
        path
    }

    pub(crate) fn ready(&self, net: &Net) -> Ready {
        let mut ready = match self.state {
            State::Fresh | State::Moved => Ready::WRITE,
            State::Listening { listener, .. } => match net.tcp.has_queued(listener) {
                true => Ready::READ,
                false => Ready::empty(),
            },
            State::Datagrams { socket, .. } => match net.udp.has_queued(socket) {
                true => Ready::all(),
                false => Ready::WRITE,
            },
            State::Flow { flow, .. } => match net.tcp.connection(flow) {
                None => Ready::all(),
                Some(tcp) => {
                    let connecting =
                        matches!(tcp.state(), TcpState::SynSent | TcpState::SynReceived);
                    let mut ready = Ready::empty();
                    ready.set(
                        Ready::READ,
                        !connecting && (tcp.can_recv() || !tcp.may_recv()),
                    );
                    ready.set(
                        Ready::WRITE,
                        !connecting && (tcp.can_send() || !tcp.may_send()),
                    );
                    ready
                }
            },
        };
        ready.set(Ready::READ, ready.contains(Ready::READ) || self.shut_read);
        ready.set(
            Ready::WRITE,
            ready.contains(Ready::WRITE) || self.shut_write,
        );
        ready
    }

    pub(crate) fn close(&mut self, cx: &mut Context<'_>) {
        match std::mem::replace(&mut self.state, State::Moved) {
            State::Fresh | State::Moved => cx.leave_all(SocketKey::Fresh(cx.id)),
            State::Listening { listener, .. } => cx.net.tcp.unlisten(listener),
            State::Flow { flow, .. } => cx.net.tcp.close(&cx.net.ip, flow),
            State::Datagrams { socket, .. } => {
                let holders = cx.shared.holders.entry(socket).or_default();
                holders.retain(|holder| holder.file != cx.id);
                if holders.is_empty() {
                    cx.shared.holders.remove(&socket);
                    cx.leave_all(SocketKey::Bound(socket));
                    cx.net.udp.unbind(socket);
                } else {
                    cx.filter_datagrams(socket);
                    // The file may be the one that the socket was bound with.
                    if let Some(left) = cx.shared.holders(socket).next() {
                        cx.net.udp.set_owner(socket, Owner(left.0));
                    }
                }
            }
        }
    }
}

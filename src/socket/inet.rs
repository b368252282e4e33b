//! `tcp` and `udp`.
//!
//! A program opens the bare scheme and gets a socket without a name. `bind` and `connect` are dups
//! with a name, and `accept` is dup `"listen"`; each gives a new file, which the C library puts in
//! place of the old one. Options, names, and messages with flags come as calls.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use scheme::errno::{self, Errno};
use scheme::wait::Direction;
use scheme::{Caller, FileId, Outcome, Ready, Stat};
use smallvec::{SmallVec, smallvec};
use smoltcp::socket::tcp::State as TcpState;

use super::SOCKET;
use super::message::{Wanted, sent};
use super::name::{self, Names};
use crate::net::{File, Held, Net};
use crate::stack::{FlowId, ListenerId, Owner, UdpId, ephemeral_ports};

/// Connections that a listener lets wait. The C library does not tell what `listen` was given.
const BACKLOG: usize = 128;
/// Ports up to this one, inclusive, are the superuser's.
const PRIVILEGED: u16 = 1024;
/// Largest datagram's data.
const LONGEST_DATAGRAM: usize = 65_507;

/// `SocketCall` of Redox's protocol.
mod verb {
    pub(super) const SET_OPTION: u64 = 2;
    pub(super) const GET_OPTION: u64 = 3;
    pub(super) const SEND_MESSAGE: u64 = 4;
    pub(super) const RECEIVE_MESSAGE: u64 = 5;
    pub(super) const PEER_NAME: u64 = 8;
    pub(super) const SHUTDOWN: u64 = 9;
}

/// Options of `SOL_SOCKET`.
mod option {
    pub(super) const REUSEADDR: u64 = 2;
    pub(super) const TYPE: u64 = 3;
    pub(super) const ERROR: u64 = 4;
    pub(super) const BROADCAST: u64 = 6;
    pub(super) const SNDBUF: u64 = 7;
    pub(super) const RCVBUF: u64 = 8;
    pub(super) const KEEPALIVE: u64 = 9;
    pub(super) const LINGER: u64 = 13;
    pub(super) const REUSEPORT: u64 = 15;
    pub(super) const RCVTIMEO: u64 = 20;
    pub(super) const SNDTIMEO: u64 = 21;
}

/// Message flags.
const MSG_PEEK: u64 = 2;
const MSG_DONTWAIT: u64 = 64;

/// Takes what arrived, and who sent it.
type Take<'a> = &'a mut dyn FnMut(&[u8], (IpAddr, u16));

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
    /// How long a read and a write may wait.
    timeouts: [Option<Duration>; 2],
    shut_read: bool,
    shut_write: bool,
    keep_alive: bool,
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

/// A file that dup makes of a socket to read or write one of its settings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    socket: Held,
    direction: Direction,
}

const fn place(direction: Direction) -> usize {
    match direction {
        Direction::Read => 0,
        Direction::Write => 1,
    }
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
            timeouts: [None; 2],
            shut_read: false,
            shut_write: false,
            keep_alive: false,
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
            timeouts: socket.timeouts,
            shut_read: socket.shut_read,
            shut_write: socket.shut_write,
            keep_alive: socket.keep_alive,
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

    fn start_listen(&mut self, id: FileId, local: (IpAddr, u16)) -> Result<(), Errno> {
        self.check_port(id, local.1)?;
        let addr = self.check_local(Kind::Tcp, local.0)?;
        let owner = Owner::File(id);
        let (listener, port) = match local.1 {
            0 => {
                let try_port = |port| {
                    let listener = self.tcp.listen(addr, port, BACKLOG, owner).ok()?;
                    Some((listener, port))
                };
                let found = ephemeral_ports(&mut self.rng).find_map(try_port);
                found.ok_or(errno::EADDRINUSE)?
            }
            port => (self.tcp.listen(addr, port, BACKLOG, owner)?, port),
        };
        let local = (local.0, port);
        self.inet(id)?.state = State::Listening { listener, local };
        Ok(())
    }

    fn start_connect(
        &mut self,
        id: FileId,
        local: Option<(IpAddr, u16)>,
        remote: (IpAddr, u16),
    ) -> Result<(), Errno> {
        if let Some((addr, port)) = local {
            self.check_port(id, port)?;
            self.check_local(Kind::Tcp, addr)?;
        }
        if remote.1 == 0 || remote.0.is_multicast() {
            return Err(errno::EADDRNOTAVAIL);
        }
        let flow = self.tcp_connect(local, remote, Owner::File(id))?;
        let local = self.tcp.local(flow).ok_or(errno::EADDRNOTAVAIL)?;
        let socket = self.inet(id)?;
        let keep_alive = socket.keep_alive;
        socket.state = State::Flow {
            flow,
            local,
            remote,
            told: false,
        };
        self.tcp_keep_alive(flow, keep_alive);
        Ok(())
    }

    fn bind_datagrams(&mut self, id: FileId, local: (IpAddr, u16)) -> Result<(), Errno> {
        self.check_port(id, local.1)?;
        let addr = self.check_local(Kind::Udp, local.0)?;
        let owner = Owner::File(id);
        let (socket, port) = match local.1 {
            0 => {
                let try_port = |port| Some((self.udp.bind(addr, port, owner).ok()?, port));
                let found = ephemeral_ports(&mut self.rng).find_map(try_port);
                found.ok_or(errno::EADDRINUSE)?
            }
            port => (self.udp.bind(addr, port, owner)?, port),
        };
        let local = (local.0, port);
        self.inet(id)?.state = State::Datagrams {
            socket,
            local,
            peer: None,
        };
        self.inet.holders.insert(socket, smallvec![id]);
        Ok(())
    }

    /// Where writes go from now on, and, for the only holder, where reads come from.
    fn set_peer(&mut self, id: FileId, new: Option<(IpAddr, u16)>) -> Result<(), Errno> {
        if let State::Datagrams { socket, peer, .. } = &mut self.inet(id)?.state {
            *peer = new;
            let socket = *socket;
            self.filter_datagrams(socket);
        }
        Ok(())
    }

    /// A socket takes only its peer's datagrams when it has one file, and that has a peer. (The
    /// copy that sendto makes must not filter what the original receives; nor does a peer that
    /// is many.)
    fn filter_datagrams(&mut self, socket: UdpId) {
        let holders = self.inet.holders(socket);
        let peer = match holders[..] {
            [only] => match self.inet(only).map(|socket| &socket.state) {
                Ok(State::Datagrams { peer, .. }) => *peer,
                _ => None,
            },
            _ => None,
        };
        let one = |&(addr, _): &(IpAddr, u16)| match addr {
            IpAddr::V4(v4) => !addr.is_multicast() && !self.ifs.is_broadcast(&v4),
            IpAddr::V6(_) => !addr.is_multicast(),
        };
        let peer = peer.filter(one);
        self.udp.connect(socket, peer);
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
            "read_timeout" => self.inet_setting(id, Direction::Read).into(),
            "write_timeout" => self.inet_setting(id, Direction::Write).into(),
            _ => match Names::parse(verb) {
                Some(names) => self.inet_name(id, names, nonblocking),
                None => errno::EINVAL.into(),
            },
        }
    }

    fn inet_setting(&mut self, id: FileId, direction: Direction) -> Result<FileId, Errno> {
        let socket = self.hold(id)?;
        self.add_file(File::InetSetting(Setting { socket, direction }))
    }

    fn inet_accept(&mut self, id: FileId) -> Outcome<FileId> {
        let listener = match self.inet(id).map(|socket| &socket.state) {
            Ok(State::Listening { listener, .. }) => *listener,
            Ok(_) => return errno::EINVAL.into(),
            Err(error) => return error.into(),
        };
        let Some(flow) = self.tcp.accept(listener) else {
            return Outcome::Wait;
        };
        let Some((local, remote)) = self.tcp.endpoints(flow) else {
            return errno::ECONNRESET.into();
        };
        let state = State::Flow {
            flow,
            local,
            remote,
            told: true,
        };
        match self.derive(id, state) {
            Ok(accepted) => {
                self.tcp.set_owner(flow, Owner::File(accepted));
                Outcome::Done(Ok(accepted))
            }
            Err(error) => {
                self.tcp_close(flow);
                error.into()
            }
        }
    }

    fn inet_disconnect(&mut self, id: FileId) -> Result<FileId, Errno> {
        match self.inet(id)?.state {
            State::Datagrams { socket, local, .. } => self.share_datagrams(id, socket, local, None),
            _ => Err(errno::EINVAL),
        }
    }

    /// Another file of the same UDP socket.
    fn share_datagrams(
        &mut self,
        id: FileId,
        socket: UdpId,
        local: (IpAddr, u16),
        peer: Option<(IpAddr, u16)>,
    ) -> Result<FileId, Errno> {
        let shared = self.derive(
            id,
            State::Datagrams {
                socket,
                local,
                peer,
            },
        )?;
        self.inet.holders.entry(socket).or_default().push(shared);
        self.filter_datagrams(socket);
        Ok(shared)
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

    fn tcp_bind_file(&mut self, id: FileId, local: Option<(IpAddr, u16)>) -> Result<FileId, Errno> {
        let local = local.ok_or(errno::EINVAL)?;
        if !matches!(self.inet(id)?.state, State::Fresh) {
            return Err(errno::EINVAL);
        }
        let bound = self.derive(id, State::Fresh)?;
        self.start_listen(bound, local)
            .map(|()| bound)
            .inspect_err(|_| self.discard_file(bound))
    }

    /// `connect` of a stream: begins it, waits for it, or says how it went.
    fn tcp_connect_file(
        &mut self,
        id: FileId,
        local: Option<(IpAddr, u16)>,
        remote: (IpAddr, u16),
        nonblocking: bool,
    ) -> Outcome<FileId> {
        let begun = match self.inet(id).map(|socket| &socket.state) {
            Err(error) => return error.into(),
            Ok(State::Fresh) => self.start_connect(id, local, remote),
            Ok(&State::Listening {
                listener,
                local: bound,
            }) => {
                // A bound socket that turns out to be a client. It stays bound if that fails.
                let begun = self.start_connect(id, Some(bound), remote);
                if begun.is_ok() {
                    self.tcp_unlisten(listener);
                }
                begun
            }
            Ok(State::Flow { told: true, .. }) => return errno::EISCONN.into(),
            Ok(State::Flow { .. }) if nonblocking => match self.inet_ready(id).is_empty() {
                true => return errno::EALREADY.into(),
                false => Ok(()),
            },
            Ok(State::Flow { .. }) => Ok(()),
            Ok(State::Datagrams { .. } | State::Moved) => Err(errno::EINVAL),
        };
        if let Err(error) = begun {
            return error.into();
        }
        let State::Flow {
            flow,
            local,
            remote,
            ..
        } = (match self.inet(id) {
            Ok(socket) => &socket.state,
            Err(error) => return error.into(),
        })
        else {
            return errno::EINVAL.into();
        };
        let (flow, local, remote) = (*flow, *local, *remote);
        let state = self
            .tcp
            .socket(flow)
            .map_or(TcpState::Closed, |socket| socket.state());
        match state {
            TcpState::SynSent | TcpState::SynReceived if nonblocking => errno::EINPROGRESS.into(),
            TcpState::SynSent | TcpState::SynReceived => Outcome::Wait,
            TcpState::Closed => {
                let error = self.tcp.error(flow).unwrap_or(errno::ECONNREFUSED);
                self.tcp_close(flow);
                if let Ok(socket) = self.inet(id) {
                    socket.state = State::Fresh;
                }
                error.into()
            }
            _ => {
                // The new file takes the connection along; the old one is about to be closed.
                let state = State::Flow {
                    flow,
                    local,
                    remote,
                    told: true,
                };
                match self.derive(id, state) {
                    Ok(connected) => {
                        self.tcp.set_owner(flow, Owner::File(connected));
                        if let Ok(socket) = self.inet(id) {
                            socket.state = State::Moved;
                        }
                        Outcome::Done(Ok(connected))
                    }
                    Err(error) => error.into(),
                }
            }
        }
    }

    /// `bind`, `connect` and `sendto` of a datagram socket.
    fn udp_name(
        &mut self,
        id: FileId,
        local: Option<(IpAddr, u16)>,
        peer: Option<(IpAddr, u16)>,
    ) -> Result<FileId, Errno> {
        match (&self.inet(id)?.state, local) {
            (State::Fresh, local) => {
                let family =
                    peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |(addr, _)| match addr {
                        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
                    });
                // In place: answers to what is sent now come to the original.
                self.bind_datagrams(id, local.unwrap_or((family, 0)))?;
            }
            (State::Datagrams { .. }, None) => {}
            _ => return Err(errno::EINVAL),
        }
        let State::Datagrams { socket, local, .. } = self.inet(id)?.state else {
            return Err(errno::EINVAL);
        };
        self.share_datagrams(id, socket, local, peer)
    }

    /// `SO_RCVTIMEO` and `SO_SNDTIMEO`.
    pub(crate) fn inet_patience(&self, id: FileId, direction: Direction) -> Option<Duration> {
        match self.file(id) {
            Ok(File::Inet(socket)) => socket.timeouts[place(direction)],
            _ => None,
        }
    }

    pub(crate) fn inet_read(&mut self, id: FileId, buf: &mut [u8]) -> Outcome<usize> {
        let limit = buf.len();
        let mut taken = 0;
        let mut take = |data: &[u8], _| {
            taken = data.len().min(buf.len());
            buf[..taken].copy_from_slice(&data[..taken]);
        };
        match self.receive(id, limit, false, &mut take) {
            Outcome::Done(Ok(())) => Outcome::Done(Ok(taken)),
            Outcome::Done(Err(error)) => error.into(),
            Outcome::Wait => Outcome::Wait,
        }
    }

    /// Gives `take` a datagram, or as much of a stream as there is in one piece and as `limit`
    /// allows; nothing at the end of a stream.
    fn receive(&mut self, id: FileId, limit: usize, peek: bool, take: Take<'_>) -> Outcome<()> {
        let socket = match self.inet(id) {
            Ok(socket) => socket,
            Err(error) => return error.into(),
        };
        let shut = socket.shut_read;
        match socket.state {
            State::Fresh | State::Listening { .. } if socket.kind == Kind::Tcp => {
                errno::ENOTCONN.into()
            }
            State::Moved => errno::EBADF.into(),
            State::Flow { .. } | State::Datagrams { .. } if shut => Outcome::Done(Ok(())),
            State::Flow { flow, remote, .. } => {
                let error = self.tcp.error(flow);
                let Some(tcp) = self.tcp.socket(flow) else {
                    return errno::ENOTCONN.into();
                };
                if limit == 0 && tcp.can_recv() {
                    return Outcome::Done(Ok(()));
                }
                if tcp.can_recv() {
                    let received = if peek {
                        tcp.peek(limit).map(|data| take(data, remote))
                    } else {
                        tcp.recv(|data| {
                            let len = data.len().min(limit);
                            take(&data[..len], remote);
                            (len, ())
                        })
                    };
                    self.tcp_touch(flow);
                    return received.map_err(|_| errno::EIO).into();
                }
                let connecting = matches!(tcp.state(), TcpState::SynSent | TcpState::SynReceived);
                if tcp.may_recv() || connecting {
                    return Outcome::Wait;
                }
                match error {
                    Some(error) => {
                        self.tcp.clear_error(flow);
                        error.into()
                    }
                    None => Outcome::Done(Ok(())),
                }
            }
            State::Datagrams { socket, .. } => {
                if let Some(error) = self.udp.take_error(socket) {
                    return error.into();
                }
                let datagram = match peek {
                    true => self.udp.peek(socket).cloned(),
                    false => self.udp.recv(socket),
                };
                let Some(datagram) = datagram else {
                    return Outcome::Wait;
                };
                take(datagram.data(), datagram.from);
                Outcome::Done(Ok(()))
            }
            // Nothing can come to a datagram socket without a name.
            State::Fresh | State::Listening { .. } => Outcome::Wait,
        }
    }

    pub(crate) fn inet_write(&mut self, id: FileId, buf: &[u8]) -> Outcome<usize> {
        let socket = match self.inet(id) {
            Ok(socket) => socket,
            Err(error) => return error.into(),
        };
        if socket.shut_write {
            return errno::EPIPE.into();
        }
        match socket.state {
            State::Fresh if socket.kind == Kind::Udp => errno::EDESTADDRREQ.into(),
            State::Fresh | State::Listening { .. } => errno::ENOTCONN.into(),
            State::Moved => errno::EBADF.into(),
            State::Datagrams { peer: None, .. } => errno::EDESTADDRREQ.into(),
            State::Datagrams {
                socket,
                local,
                peer: Some(peer),
            } => {
                if let Some(error) = self.udp.take_error(socket) {
                    return error.into();
                }
                if buf.len() > LONGEST_DATAGRAM {
                    return errno::EMSGSIZE.into();
                }
                let sent = self.udp_send(socket, specific(local.0), peer, buf);
                sent.map(|()| buf.len()).map_err(Errno::from).into()
            }
            State::Flow { flow, .. } => {
                let error = self.tcp.error(flow);
                let Some(tcp) = self.tcp.socket(flow) else {
                    return errno::ENOTCONN.into();
                };
                if matches!(tcp.state(), TcpState::SynSent | TcpState::SynReceived) {
                    return Outcome::Wait;
                }
                if !tcp.may_send() {
                    self.tcp.clear_error(flow);
                    return error.unwrap_or(errno::EPIPE).into();
                }
                let room = tcp.send_capacity() - tcp.send_queue();
                if buf.is_empty() {
                    return Outcome::Done(Ok(0));
                }
                if room == 0 {
                    return Outcome::Wait;
                }
                let taken = tcp.send_slice(buf).map_err(|_| errno::EPIPE);
                self.tcp_touch(flow);
                taken.into()
            }
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
        match word(0) {
            verb::GET_OPTION => self.get_option(id, word(1), payload).into(),
            verb::SET_OPTION => self.set_option(id, word(1), payload).into(),
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

    fn receive_message(&mut self, id: FileId, payload: &mut [u8], flags: u64) -> Outcome<usize> {
        let Some(wanted) = Wanted::parse(payload) else {
            return errno::EINVAL.into();
        };
        let scheme = match self.inet(id) {
            Ok(socket) => socket.kind.scheme(),
            Err(error) => return error.into(),
        };
        let peek = flags & MSG_PEEK != 0;
        let mut answered = None;
        let mut take = |data: &[u8], from: (IpAddr, u16)| {
            let mut sender = format!("/scheme/{scheme}/");
            name::write(&mut sender, Some(from));
            answered = wanted.answer(payload, &sender, data);
        };
        match self.receive(id, wanted.data, peek, &mut take) {
            // The end of a stream is an answer without data.
            Outcome::Done(Ok(())) => {
                let total = answered.or_else(|| wanted.answer(payload, "", &[]));
                total.ok_or(errno::EMSGSIZE).into()
            }
            Outcome::Done(Err(error)) => error.into(),
            Outcome::Wait if flags & MSG_DONTWAIT != 0 => errno::EAGAIN.into(),
            Outcome::Wait => Outcome::Wait,
        }
    }

    fn get_option(&mut self, id: FileId, name: u64, payload: &mut [u8]) -> Result<usize, Errno> {
        let socket = self.inet(id)?;
        let (kind, timeouts, keep_alive) = (socket.kind, socket.timeouts, socket.keep_alive);
        let int = |value: i32| value.to_ne_bytes().to_vec();
        let value = match name {
            option::TYPE => int(if kind == Kind::Tcp { 1 } else { 2 }),
            option::ERROR => {
                let error = match self.inet(id)?.state {
                    State::Flow { flow, .. } => {
                        let error = self.tcp.error(flow);
                        self.tcp.clear_error(flow);
                        error
                    }
                    State::Datagrams { socket, .. } => self.udp.take_error(socket),
                    _ => None,
                };
                int(error.map_or(0, Errno::raw))
            }
            option::SNDBUF | option::RCVBUF => {
                let size = match self.inet(id)?.state {
                    State::Flow { flow, .. } => {
                        let socket = self.tcp.socket(flow);
                        socket.map_or(0, |socket| match name {
                            option::SNDBUF => socket.send_capacity(),
                            _ => socket.recv_capacity(),
                        })
                    }
                    _ => 65_536,
                };
                int(i32::try_from(size).unwrap_or(i32::MAX))
            }
            option::KEEPALIVE => int(keep_alive.into()),
            option::REUSEADDR | option::REUSEPORT | option::BROADCAST => int(1),
            option::LINGER => vec![0; 8],
            option::RCVTIMEO | option::SNDTIMEO => {
                let timeout = timeouts[usize::from(name == option::SNDTIMEO)].unwrap_or_default();
                let mut value = timeout.as_secs().to_ne_bytes().to_vec();
                value.extend_from_slice(&timeout.subsec_micros().to_ne_bytes());
                value.resize(16, 0);
                value
            }
            _ => return Err(errno::ENOPROTOOPT),
        };
        let len = value.len();
        payload
            .get_mut(..len)
            .ok_or(errno::EINVAL)?
            .copy_from_slice(&value);
        Ok(len)
    }

    fn set_option(&mut self, id: FileId, name: u64, payload: &[u8]) -> Result<usize, Errno> {
        let int = || {
            payload
                .first_chunk()
                .map(|bytes| i32::from_ne_bytes(*bytes))
        };
        let socket = self.inet(id)?;
        match name {
            option::KEEPALIVE => {
                socket.keep_alive = int().ok_or(errno::EINVAL)? != 0;
                let on = socket.keep_alive;
                if let State::Flow { flow, .. } = socket.state {
                    self.tcp_keep_alive(flow, on);
                }
            }
            // What they would allow is allowed, and sizes are ours to choose.
            option::REUSEADDR
            | option::REUSEPORT
            | option::BROADCAST
            | option::SNDBUF
            | option::RCVBUF
            | option::LINGER => {}
            _ => return Err(errno::ENOPROTOOPT),
        }
        Ok(0)
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

    fn shutdown(&mut self, id: FileId, how: u64) -> Result<usize, Errno> {
        let socket = self.inet(id)?;
        if socket.kind == Kind::Tcp && !matches!(socket.state, State::Flow { .. }) {
            return Err(errno::ENOTCONN);
        }
        let (read, write) = match how {
            0 => (true, false),
            1 => (false, true),
            2 => (true, true),
            _ => return Err(errno::EINVAL),
        };
        socket.shut_read |= read;
        socket.shut_write |= write;
        if let State::Flow { flow, .. } = socket.state
            && write
        {
            if let Some(tcp) = self.tcp.socket(flow) {
                tcp.close();
            }
            self.tcp_touch(flow);
        }
        // Whoever waits hears of it.
        self.wake(id, Ready::all());
        Ok(0)
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
            State::Fresh | State::Moved => {}
            State::Listening { listener, .. } => self.tcp_unlisten(listener),
            State::Flow { flow, .. } => self.tcp_close(flow),
            State::Datagrams { socket, .. } => {
                let holders = self.inet.holders.entry(socket).or_default();
                holders.retain(|holder| *holder != id);
                if holders.is_empty() {
                    self.inet.holders.remove(&socket);
                    self.udp.unbind(socket);
                } else {
                    self.filter_datagrams(socket);
                }
            }
        }
    }

    /// A timeout as the C library writes it: seconds of eight bytes, nanoseconds of four, padding.
    /// Zero means none.
    pub(crate) fn inet_setting_write(
        &mut self,
        setting: Setting,
        buf: &[u8],
    ) -> Result<usize, Errno> {
        let bytes: &[u8; 16] = buf.first_chunk().ok_or(errno::EINVAL)?;
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, ..] = *bytes;
        let seconds = i64::from_ne_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let nanos = i32::from_ne_bytes([n0, n1, n2, n3]);
        let seconds = u64::try_from(seconds).map_err(|_| errno::EINVAL)?;
        let nanos = u32::try_from(nanos)
            .ok()
            .filter(|&nanos| nanos < 1_000_000_000);
        let timeout = Duration::new(seconds, nanos.ok_or(errno::EINVAL)?);
        let id = self.held(setting.socket)?;
        self.inet(id)?.timeouts[place(setting.direction)] = (!timeout.is_zero()).then_some(timeout);
        Ok(16)
    }

    pub(crate) fn inet_setting_read(
        &mut self,
        setting: Setting,
        buf: &mut [u8],
    ) -> Result<usize, Errno> {
        let id = self.held(setting.socket)?;
        let Some(timeout) = self.inet(id)?.timeouts[place(setting.direction)] else {
            return Ok(0);
        };
        let to: &mut [u8; 16] = buf.first_chunk_mut().ok_or(errno::EINVAL)?;
        to[..8].copy_from_slice(&timeout.as_secs().to_ne_bytes());
        to[8..12].copy_from_slice(&timeout.subsec_nanos().to_ne_bytes());
        to[12..].fill(0);
        Ok(16)
    }
}

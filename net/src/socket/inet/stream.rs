//! Streams: listening, accepting, connecting.

use std::net::IpAddr;

use scheme::errno::{self, Errno};
use scheme::{FileId, Outcome, Ready};

use super::{Context, Socket, State, Transport, check_family};
use crate::net::Net;
use crate::stack::{FlowId, Owner, Peer, TcpState, bind_port};

/// Most connections of a listener that wait. The C library does not pass on the backlog of
/// `listen`.
const BACKLOG: usize = 128;

impl Socket {
    pub(super) fn start_listen(
        &mut self,
        cx: &mut Context<'_>,
        local: (IpAddr, u16),
    ) -> Result<(), Errno> {
        self.check_port(local.1)?;
        let addr = local.0;
        self.check_local(cx.net, addr)?;
        let owner = cx.owner();
        let Net { ip, tcp, .. } = &mut *cx.net;
        let listen = |port| tcp.listen(addr, port, BACKLOG, owner, self.uid);
        let (listener, port) = bind_port(&mut ip.ports, self.uid, local.1, listen)?;
        let local = (addr, port);
        self.state = State::Listening { listener, local };
        cx.net
            .tcp
            .set_listener_terms(listener, self.options.terms());
        Ok(())
    }

    pub(super) fn start_connect(
        &mut self,
        cx: &mut Context<'_>,
        local: Option<(IpAddr, u16)>,
        remote: Peer,
    ) -> Result<(), Errno> {
        if let Some((addr, port)) = local {
            self.check_port(port)?;
            self.check_local(cx.net, addr)?;
            check_family(addr, Some(remote))?;
        }
        if remote.addr.is_multicast() {
            return Err(errno::EADDRNOTAVAIL);
        }
        let (owner, terms) = (cx.owner(), self.options.terms());
        let ip = &mut cx.net.ip;
        let tcp = &mut cx.net.tcp;
        let flow = tcp.connect(ip, local, remote, owner, self.uid, terms)?;
        let local = cx.net.tcp.local(flow).ok_or(errno::EADDRNOTAVAIL)?;
        self.state = State::Flow {
            flow,
            local,
            remote,
            told: false,
        };
        Ok(())
    }

    pub(super) fn accept(&self, cx: &mut Context<'_>, new: FileId) -> Outcome<Box<Self>> {
        let State::Listening { listener, .. } = self.state else {
            return errno::EINVAL.into();
        };
        let Some(flow) = cx.net.tcp.accept(listener) else {
            return Outcome::Wait;
        };
        let accepted = self.hand_over(cx, flow, new);
        if accepted.is_err() {
            cx.net.tcp.close(&cx.net.ip, flow);
        }
        accepted.into()
    }

    /// Moves a connection to a new file, with the settings of this one.
    fn hand_over(
        &self,
        cx: &mut Context<'_>,
        flow: FlowId,
        new: FileId,
    ) -> Result<Box<Self>, Errno> {
        let (local, remote) = cx.net.tcp.endpoints(flow).ok_or(errno::ECONNRESET)?;
        let remote = match self.state {
            // As the program named it.
            State::Flow { remote, .. } => remote,
            _ => remote.into(),
        };
        let socket = self.derive(State::Flow {
            flow,
            local,
            remote,
            told: true,
        });
        cx.net.tcp.set_owner(flow, Owner(new.0));
        // The listener's options may have changed since the handshake began.
        socket.apply_options(cx.net);
        Ok(socket)
    }

    pub(super) fn bind(
        &self,
        cx: &mut Context<'_>,
        local: Option<(IpAddr, u16)>,
        new: FileId,
    ) -> Result<Box<Self>, Errno> {
        let local = local.ok_or(errno::EINVAL)?;
        if !matches!(self.state, State::Fresh) {
            return Err(errno::EINVAL);
        }
        let mut bound = self.derive(State::Fresh);
        bound.start_listen(&mut cx.with(new), local)?;
        Ok(bound)
    }

    /// `connect` of a stream: begins it, waits for it, or reports its result.
    pub(super) fn connect(
        &mut self,
        cx: &mut Context<'_>,
        local: Option<(IpAddr, u16)>,
        remote: Peer,
        nonblocking: bool,
        new: FileId,
    ) -> Outcome<Box<Self>> {
        let begun = match self.state {
            State::Fresh => self.start_connect(cx, local, remote),
            State::Listening {
                listener,
                local: bound,
            } => {
                // A bound socket turns out to be a client. It stays bound if connecting fails.
                let begun = self.start_connect(cx, Some(bound), remote);
                if begun.is_ok() {
                    cx.net.tcp.unlisten(listener);
                }
                begun
            }
            State::Flow { told: true, .. } => return errno::EISCONN.into(),
            State::Flow { .. } if nonblocking => match self.ready(cx.net).is_empty() {
                true => return errno::EALREADY.into(),
                false => Ok(()),
            },
            State::Flow { .. } => Ok(()),
            State::Datagrams { .. } | State::Moved => Err(errno::EINVAL),
        };
        if let Err(error) = begun {
            return error.into();
        }
        let State::Flow { flow, .. } = self.state else {
            return errno::EINVAL.into();
        };
        let tcp = cx.net.tcp.connection(flow);
        match tcp.map_or(TcpState::Closed, |tcp| tcp.state()) {
            TcpState::SynSent | TcpState::SynReceived if nonblocking => errno::EINPROGRESS.into(),
            TcpState::SynSent | TcpState::SynReceived => Outcome::Wait,
            TcpState::Closed => {
                let error = cx.net.tcp.error(flow).unwrap_or(errno::ECONNREFUSED);
                cx.net.tcp.close(&cx.net.ip, flow);
                self.state = State::Fresh;
                error.into()
            }
            _ => {
                // The new file takes over the connection; the old one is about to be closed.
                let connected = self.hand_over(cx, flow, new);
                if connected.is_ok() {
                    self.state = State::Moved;
                }
                connected.into()
            }
        }
    }

    /// Whether its peer is an address of this host.
    pub(crate) fn connects_here(&self, net: &Net) -> bool {
        matches!(&self.state, State::Flow { remote, .. } if net.ip.ifs.is_local(&remote.addr))
    }

    /// Whether a connect was begun, and has failed.
    pub(crate) fn has_failed(&self, net: &Net) -> bool {
        let State::Flow {
            flow, told: false, ..
        } = self.state
        else {
            return false;
        };
        let tcp = net.tcp.connection(flow);
        tcp.is_none_or(|tcp| tcp.state() == TcpState::Closed)
    }

    pub(super) fn shutdown(&mut self, cx: &mut Context<'_>, how: u64) -> Result<usize, Errno> {
        if self.transport == Transport::Tcp && !matches!(self.state, State::Flow { .. }) {
            return Err(errno::ENOTCONN);
        }
        let (read, write) = match how {
            0 => (true, false),
            1 => (false, true),
            2 => (true, true),
            _ => return Err(errno::EINVAL),
        };
        self.shut_read |= read;
        self.shut_write |= write;
        if let State::Flow { flow, .. } = self.state
            && write
        {
            let now = cx.net.ip.now.monotonic;
            cx.net.tcp.with(flow, |connection| connection.close(now));
        }
        // Requests that wait are tried again.
        cx.wakes.wake(cx.id, Ready::all());
        Ok(0)
    }
}

//! Streams: listening, accepting, connecting.

use std::net::IpAddr;

use scheme::errno::{self, Errno};
use scheme::{FileId, Outcome, Ready};
use smoltcp::socket::tcp::State as TcpState;

use super::{Kind, State};
use crate::net::Net;
use crate::stack::{FlowId, Owner, ephemeral_ports};

/// Connections that a listener lets wait. The C library does not tell what `listen` was given.
const BACKLOG: usize = 128;

impl Net {
    pub(super) fn start_listen(&mut self, id: FileId, local: (IpAddr, u16)) -> Result<(), Errno> {
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
        let socket = self.inet(id)?;
        socket.state = State::Listening { listener, local };
        let terms = socket.options.terms();
        self.tcp.set_listener_terms(listener, terms);
        Ok(())
    }

    pub(super) fn start_connect(
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
        let terms = self.inet(id)?.options.terms();
        let flow = self.tcp_connect(local, remote, Owner::File(id), terms)?;
        let local = self.tcp.local(flow).ok_or(errno::EADDRNOTAVAIL)?;
        self.inet(id)?.state = State::Flow {
            flow,
            local,
            remote,
            told: false,
        };
        Ok(())
    }

    pub(super) fn inet_accept(&mut self, id: FileId) -> Outcome<FileId> {
        let listener = match self.inet(id).map(|socket| &socket.state) {
            Ok(State::Listening { listener, .. }) => *listener,
            Ok(_) => return errno::EINVAL.into(),
            Err(error) => return error.into(),
        };
        let Some(flow) = self.tcp.accept(listener) else {
            return Outcome::Wait;
        };
        let accepted = self.hand_over(id, flow);
        if accepted.is_err() {
            self.tcp_close(flow);
        }
        accepted.into()
    }

    /// A new file that has a connection, with the settings of `id`.
    fn hand_over(&mut self, id: FileId, flow: FlowId) -> Result<FileId, Errno> {
        let (local, remote) = self.tcp.endpoints(flow).ok_or(errno::ECONNRESET)?;
        let state = State::Flow {
            flow,
            local,
            remote,
            told: true,
        };
        let file = self.derive(id, state)?;
        self.tcp.set_owner(flow, Owner::File(file));
        // A listener's may have changed since the handshake began.
        self.apply_options(file);
        Ok(file)
    }

    pub(super) fn tcp_bind_file(
        &mut self,
        id: FileId,
        local: Option<(IpAddr, u16)>,
    ) -> Result<FileId, Errno> {
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
    pub(super) fn tcp_connect_file(
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
        let flow = match self.inet(id).map(|socket| &socket.state) {
            Ok(State::Flow { flow, .. }) => *flow,
            Ok(_) => return errno::EINVAL.into(),
            Err(error) => return error.into(),
        };
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
                let connected = self.hand_over(id, flow);
                if connected.is_ok()
                    && let Ok(socket) = self.inet(id)
                {
                    socket.state = State::Moved;
                }
                connected.into()
            }
        }
    }

    pub(super) fn shutdown(&mut self, id: FileId, how: u64) -> Result<usize, Errno> {
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
}

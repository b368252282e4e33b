//! Reading and writing.

use std::net::IpAddr;

use scheme::Outcome;
use scheme::errno::{self, Errno};

use super::super::message::Wanted;
use super::super::name;
use super::{Context, Socket, State, Transport};
use crate::net::Net;
use crate::stack::{FlowId, Peer, SendTerms, TcpState};

/// Largest datagram's data.
pub(super) const LONGEST_DATAGRAM: usize = 65_507;

/// Message flags.
pub(super) const MSG_PEEK: u64 = 2;
pub(super) const MSG_DONTWAIT: u64 = 64;
/// Inline capacity for names, bytes: most fit.
const NAME: usize = 64;

/// A function that takes the received bytes and the name of their sender.
type Take<'a> = &'a mut dyn FnMut(&[u8], (IpAddr, u16));

impl Socket {
    pub(crate) fn read(&self, net: &mut Net, buf: &mut [u8]) -> Outcome<usize> {
        // It takes nothing, not even a datagram, as on Linux.
        if buf.is_empty() {
            return Outcome::Done(Ok(0));
        }
        if self.options.batch {
            return self.read_batch(net, buf);
        }
        if let State::Flow { flow, .. } = self.state
            && !self.shut_read
        {
            return match stream_ready(net, flow) {
                Outcome::Done(Ok(true)) => {
                    let read = net.tcp.with(flow, |connection| connection.read(buf));
                    Outcome::Done(Ok(read.unwrap_or(0)))
                }
                Outcome::Done(Ok(false)) => Outcome::Done(Ok(0)),
                Outcome::Done(Err(error)) => error.into(),
                Outcome::Wait => Outcome::Wait,
            };
        }
        let limit = buf.len();
        let mut taken = 0;
        let mut take = |data: &[u8], _| {
            taken = data.len().min(buf.len());
            buf[..taken].copy_from_slice(&data[..taken]);
        };
        match self.receive(net, limit, false, &mut take) {
            Outcome::Done(Ok(())) => Outcome::Done(Ok(taken)),
            Outcome::Done(Err(error)) => error.into(),
            Outcome::Wait => Outcome::Wait,
        }
    }

    /// Passes a datagram to `take`, or as much of a stream as there is and `limit` allows; nothing
    /// at the end of a stream.
    fn receive(&self, net: &mut Net, limit: usize, peek: bool, take: Take<'_>) -> Outcome<()> {
        let shut = self.shut_read;
        match self.state {
            State::Fresh | State::Listening { .. } if self.transport == Transport::Tcp => {
                errno::ENOTCONN.into()
            }
            State::Moved => errno::EBADF.into(),
            State::Flow { .. } | State::Datagrams { .. } if shut => Outcome::Done(Ok(())),
            State::Flow { flow, remote, .. } => {
                match stream_ready(net, flow) {
                    Outcome::Done(Ok(true)) => {}
                    Outcome::Done(Ok(false)) => return Outcome::Done(Ok(())),
                    Outcome::Done(Err(error)) => return error.into(),
                    Outcome::Wait => return Outcome::Wait,
                }
                if limit == 0 {
                    return Outcome::Done(Ok(()));
                }
                if peek {
                    let connection = net.tcp.connection(flow);
                    let data = connection.map(|connection| connection.peek_all(limit));
                    take(&data.unwrap_or_default(), remote.name());
                } else {
                    net.tcp.with(flow, |connection| {
                        let mut data = vec![0; limit.min(connection.recv_queue())];
                        let len = connection.read(&mut data);
                        take(&data[..len], remote.name());
                    });
                }
                Outcome::Done(Ok(()))
            }
            State::Datagrams { socket, .. } => {
                let datagram = match peek {
                    true => net.udp.peek(socket).cloned(),
                    false => net.udp.recv(socket),
                };
                // An error is told after the data that came before it.
                let Some(datagram) = datagram else {
                    let error = net.udp.take_error(socket);
                    return error.map_or(Outcome::Wait, Outcome::from);
                };
                take(datagram.data(), datagram.from);
                Outcome::Done(Ok(()))
            }
            // Nothing can come to a datagram socket without a name.
            State::Fresh | State::Listening { .. } => Outcome::Wait,
        }
    }

    pub(crate) fn write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Outcome<usize> {
        if self.options.batch && !self.shut_write {
            return self.write_batch(cx, buf).into();
        }
        self.send(cx, buf)
    }

    /// Sends one datagram to the peer, or as much of a stream as there is room for.
    pub(super) fn send(&self, cx: &mut Context<'_>, buf: &[u8]) -> Outcome<usize> {
        if self.shut_write {
            return errno::EPIPE.into();
        }
        let net = &mut *cx.net;
        match self.state {
            State::Fresh if self.transport == Transport::Udp => errno::EDESTADDRREQ.into(),
            State::Fresh | State::Listening { .. } => errno::ENOTCONN.into(),
            State::Moved => errno::EBADF.into(),
            State::Datagrams { peer: None, .. } => errno::EDESTADDRREQ.into(),
            State::Datagrams {
                peer: Some(peer), ..
            } => {
                let sent = self.send_datagram(net, peer, buf);
                sent.map(|()| buf.len()).into()
            }
            State::Flow { flow, .. } => {
                let error = net.tcp.error(flow);
                let Some(connection) = net.tcp.connection(flow) else {
                    return errno::ENOTCONN.into();
                };
                if matches!(
                    connection.state(),
                    TcpState::SynSent | TcpState::SynReceived
                ) {
                    return Outcome::Wait;
                }
                if !connection.may_send() {
                    net.tcp.clear_error(flow);
                    return error.unwrap_or(errno::EPIPE).into();
                }
                if buf.is_empty() {
                    return Outcome::Done(Ok(0));
                }
                let room = net.tcp.room_to_send(flow).min(buf.len());
                if connection.send_room() == 0 || room == 0 {
                    return Outcome::Wait;
                }
                let buf = &buf[..room];
                let sent = net.tcp.with(flow, |connection| connection.send(buf));
                sent.ok_or(errno::EPIPE).into()
            }
        }
    }

    /// Sends one datagram of a socket that has a name. An error about an earlier one to the peer is
    /// told instead.
    pub(super) fn send_datagram(&self, net: &mut Net, to: Peer, data: &[u8]) -> Result<(), Errno> {
        let State::Datagrams { socket, .. } = self.state else {
            return Err(errno::EDESTADDRREQ);
        };
        if let Some(error) = net.udp.take_error(socket) {
            return Err(error);
        }
        if data.len() > LONGEST_DATAGRAM {
            return Err(errno::EMSGSIZE);
        }
        let terms = SendTerms {
            link: to.link,
            ..self.options.send_terms()
        };
        let (ip, to) = (&mut net.ip, to.name());
        let sent = net.udp.send_on(ip, socket, None, to, data, terms);
        sent.map_err(Errno::from)
    }

    pub(super) fn receive_message(
        &self,
        cx: &mut Context<'_>,
        payload: &mut [u8],
        flags: u64,
    ) -> Outcome<usize> {
        let Some(wanted) = Wanted::parse(payload) else {
            return errno::EINVAL.into();
        };
        let scheme = self.transport.scheme();
        let peek = flags & MSG_PEEK != 0;
        let mut answered = None;
        let mut take = |data: &[u8], from: (IpAddr, u16)| {
            let mut sender = String::new();
            if wanted.name {
                sender.reserve(NAME);
                sender.extend(["/scheme/", scheme, "/"]);
                name::write(&mut sender, Some(from));
            }
            answered = wanted.answer(payload, &sender, data);
        };
        match self.receive(cx.net, wanted.data, peek, &mut take) {
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
}

/// Whether a stream has data to read: true, or false at its end, or the error that ended it.
fn stream_ready(net: &mut Net, flow: FlowId) -> Outcome<bool> {
    let error = net.tcp.error(flow);
    let Some(connection) = net.tcp.connection(flow) else {
        return errno::ENOTCONN.into();
    };
    if connection.can_recv() {
        return Outcome::Done(Ok(true));
    }
    let connecting = matches!(
        connection.state(),
        TcpState::SynSent | TcpState::SynReceived
    );
    if connection.may_recv() || connecting {
        return Outcome::Wait;
    }
    match error {
        Some(error) => {
            net.tcp.clear_error(flow);
            error.into()
        }
        None => Outcome::Done(Ok(false)),
    }
}

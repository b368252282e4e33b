//! Options of sockets.

use std::net::Ipv4Addr;
use std::num::NonZeroU8;
use std::time::Duration;

use scheme::errno::{self, Errno};
use scheme::wait::Direction;

use super::transfer::LONGEST_DATAGRAM;
use super::{Context, Socket, State, Transport};
use crate::ifnet::IfName;
use crate::ip::output::HOP_LIMIT;
use crate::net::Net;
use crate::stack::{Buffers, QUEUE_BYTES, SendTerms, Terms, Udp};

/// Options of `SOL_SOCKET`.
mod sol_socket {
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

/// The size in bytes that a program asks for.
fn size(asked: Option<i32>) -> Result<usize, Errno> {
    let asked = asked.ok_or(errno::EINVAL)?;
    usize::try_from(asked).map_err(|_| errno::EINVAL)
}

const fn index(direction: Direction) -> usize {
    match direction {
        Direction::Read => 0,
        Direction::Write => 1,
    }
}

/// The options that a program set. The file that bind, connect or accept makes inherits them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    /// The time limits of a read and of a write.
    pub(super) timeouts: [Option<Duration>; 2],
    keep_alive: bool,
    pub(super) no_delay: bool,
    /// `None` for that of the path.
    pub(super) hop_limit: Option<NonZeroU8>,
    pub(super) group_hops: u8,
    pub(super) group_loop: bool,
    pub(super) group_if: Option<Ipv4Addr>,
    pub(super) bypass: Option<IfName>,
    /// Sizes to receive and to send, bytes, if a program set them.
    receive_buffer: Option<usize>,
    send_buffer: Option<usize>,
    /// Whether reads and writes carry many datagrams.
    pub(super) batch: bool,
}

impl Default for Options {
    fn default() -> Self {
        let SendTerms {
            hop_limit,
            group_hops,
            group_loop,
            group_if,
            bypass,
            // It is said of each datagram.
            link: _,
        } = SendTerms::default();
        Self {
            timeouts: [None; 2],
            keep_alive: false,
            no_delay: false,
            hop_limit,
            group_hops,
            group_loop,
            group_if,
            bypass,
            receive_buffer: None,
            send_buffer: None,
            batch: false,
        }
    }
}

impl Options {
    /// The terms of a connection that follow from them.
    pub(super) fn terms(&self) -> Terms {
        Terms {
            hop_limit: self.hop_limit,
            keep_alive: self.keep_alive,
            no_delay: self.no_delay,
            idle_limit: None,
            bypass: self.bypass,
            buffers: Buffers {
                receive: self.receive_buffer.map(Buffers::clamp),
                send: self.send_buffer.map(Buffers::clamp),
            },
        }
    }

    /// The terms of datagrams that follow from them.
    pub(super) fn send_terms(&self) -> SendTerms {
        SendTerms {
            hop_limit: self.hop_limit,
            group_hops: self.group_hops,
            group_loop: self.group_loop,
            group_if: self.group_if,
            bypass: self.bypass,
            link: None,
        }
    }
}

impl Socket {
    /// Applies the options to the underlying connection or listener.
    pub(super) fn apply_options(&self, net: &mut Net) {
        let terms = self.options.terms();
        match self.state {
            State::Listening { listener, .. } => net.tcp.set_listener_terms(listener, terms),
            State::Flow { flow, .. } => net.tcp.set_terms(&net.ip, flow, terms),
            // The buffer size was set by the last call on any of its files, and is not each file's
            // own.
            State::Datagrams { .. } | State::Fresh | State::Moved => {}
        }
    }

    /// Applies the receive buffer size of a datagram socket, if a program set it.
    pub(super) fn apply_receive_buffer(&self, net: &mut Net) {
        if let (&State::Datagrams { socket, .. }, Some(bytes)) =
            (&self.state, self.options.receive_buffer)
        {
            net.udp.set_limit(socket, bytes);
        }
    }

    /// `SO_RCVTIMEO` and `SO_SNDTIMEO`.
    pub(crate) fn timeout(&self, direction: Direction) -> Option<Duration> {
        self.options.timeouts[index(direction)]
    }

    pub(super) fn get_option(
        &self,
        cx: &mut Context<'_>,
        name: u64,
        payload: &mut [u8],
    ) -> Result<usize, Errno> {
        let Self {
            transport, options, ..
        } = *self;
        let net = &mut *cx.net;
        let int = |value: i32| value.to_ne_bytes().to_vec();
        let value = match name {
            sol_socket::TYPE => int(if transport == Transport::Tcp { 1 } else { 2 }),
            sol_socket::ERROR => {
                let error = match self.state {
                    State::Flow { flow, .. } => {
                        let error = net.tcp.error(flow);
                        net.tcp.clear_error(flow);
                        error
                    }
                    State::Datagrams { socket, .. } => net.udp.take_error(socket),
                    _ => None,
                };
                int(error.map_or(0, Errno::raw))
            }
            sol_socket::SNDBUF | sol_socket::RCVBUF => {
                let (receive, send) = self.buffers(net);
                let size = match name {
                    sol_socket::SNDBUF => send,
                    _ => receive,
                };
                int(i32::try_from(size).unwrap_or(i32::MAX))
            }
            sol_socket::KEEPALIVE => int(options.keep_alive.into()),
            sol_socket::REUSEADDR | sol_socket::REUSEPORT | sol_socket::BROADCAST => int(1),
            sol_socket::LINGER => vec![0; 8],
            sol_socket::RCVTIMEO | sol_socket::SNDTIMEO => {
                let direction = match name {
                    sol_socket::RCVTIMEO => Direction::Read,
                    _ => Direction::Write,
                };
                let timeout = options.timeouts[index(direction)].unwrap_or_default();
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

    /// The sizes of the receive and the send buffer, bytes. For a connection they are the actual
    /// ones, for others those it would get.
    fn buffers(&self, net: &Net) -> (usize, usize) {
        let options = &self.options;
        match (self.transport, &self.state) {
            (_, &State::Flow { flow, .. }) => match net.tcp.connection(flow) {
                Some(connection) => {
                    let (send, receive) = connection.buffers();
                    (receive as usize, send as usize)
                }
                None => (0, 0),
            },
            (Transport::Tcp, _) => {
                let Buffers { receive, send } = options.terms().buffers;
                (Buffers::first(receive), Buffers::first(send))
            }
            (Transport::Udp, state) => {
                let asked = options.receive_buffer.map(Udp::clamp_queue);
                let held = match *state {
                    State::Datagrams { socket, .. } => net.udp.limit(socket),
                    _ => asked,
                };
                // Datagrams are sent at once, so the send buffer never holds more than one.
                (held.unwrap_or(QUEUE_BYTES), LONGEST_DATAGRAM)
            }
        }
    }

    pub(super) fn set_option(
        &mut self,
        cx: &mut Context<'_>,
        name: u64,
        payload: &[u8],
    ) -> Result<usize, Errno> {
        let int = || {
            payload
                .first_chunk()
                .map(|bytes| i32::from_ne_bytes(*bytes))
        };
        match name {
            sol_socket::KEEPALIVE => {
                self.options.keep_alive = int().ok_or(errno::EINVAL)? != 0;
            }
            sol_socket::SNDBUF => self.options.send_buffer = Some(size(int())?),
            sol_socket::RCVBUF => {
                self.options.receive_buffer = Some(size(int())?);
                self.apply_receive_buffer(cx.net);
            }
            // These are accepted and have no effect: what they would permit is always permitted.
            sol_socket::REUSEADDR
            | sol_socket::REUSEPORT
            | sol_socket::BROADCAST
            | sol_socket::LINGER => {}
            _ => return Err(errno::ENOPROTOOPT),
        }
        self.apply_options(cx.net);
        Ok(0)
    }

    /// The hop limit, for its option file.
    pub(crate) fn hop_limit(&self) -> u8 {
        self.options.hop_limit.map_or(HOP_LIMIT, NonZeroU8::get)
    }

    /// Sets the hop limit, which is never zero, for its option file.
    pub(crate) fn set_hop_limit(&mut self, net: &mut Net, hops: NonZeroU8) {
        self.options.hop_limit = Some(hops);
        self.apply_options(net);
    }

    /// Sets the time limit of reads or writes, for its option file.
    pub(crate) fn set_timeout(&mut self, direction: Direction, timeout: Option<Duration>) {
        self.options.timeouts[index(direction)] = timeout;
    }
}

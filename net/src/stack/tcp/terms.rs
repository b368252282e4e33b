//! What a program asks of its connections.

use std::time::Duration;

use smoltcp::socket::tcp::Socket;

use super::flows::{LARGEST_BUFFER, SMALLEST_BUFFER};
use super::patience::PROBE;
use super::{FlowId, ListenerId, Tcp};
use crate::ip::Ip;
use crate::ip::output::HOP_LIMIT;

/// What a connection is made with. All but the buffers can be changed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// Hop limit of what is sent; never zero.
    pub(crate) hop_limit: u8,
    /// Whether an idle connection is probed.
    pub(crate) keep_alive: bool,
    /// Whether small segments go out at once, and not when all before them is acknowledged.
    pub(crate) no_delay: bool,
    /// How long a connection that makes no progress is kept, if it is not for ever.
    pub(crate) idle_limit: Option<Duration>,
    /// Bytes of its buffers, at the most: there is less when memory is short.
    pub(crate) buffers: Buffers,
}

/// Bytes of the buffers of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Buffers {
    pub(crate) receive: usize,
    pub(crate) send: usize,
}

impl Buffers {
    /// Both as large as this.
    pub(crate) const fn both(size: usize) -> Self {
        Self {
            receive: size,
            send: size,
        }
    }

    /// The nearest size that a buffer can have.
    pub(crate) fn clamp(size: usize) -> usize {
        size.clamp(SMALLEST_BUFFER, LARGEST_BUFFER)
    }

    /// The same, neither larger than `size`.
    pub(super) fn within(self, size: usize) -> Self {
        Self {
            receive: self.receive.min(size),
            send: self.send.min(size),
        }
    }

    pub(super) fn total(self) -> usize {
        self.receive + self.send
    }
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            hop_limit: HOP_LIMIT,
            keep_alive: false,
            no_delay: false,
            idle_limit: None,
            buffers: Buffers::both(LARGEST_BUFFER),
        }
    }
}

impl Terms {
    /// Has a socket that sends packets of up to `mtu` bytes keep to them.
    pub(super) fn apply(&self, socket: &mut Socket<'static>, mtu: u16) {
        // smoltcp has no mercy with zero.
        socket.set_hop_limit(Some(self.hop_limit.max(1)));
        // Of so few segments one is never full, and would wait for an ACK that is delayed.
        let few = socket.send_capacity() < 4 * usize::from(mtu);
        socket.set_nagle_enabled(!self.no_delay && !few);
        let probe = smoltcp::time::Duration::from_secs(PROBE.as_secs());
        socket.set_keep_alive(self.keep_alive.then_some(probe));
    }
}

impl Tcp {
    /// What connections that a listener accepts begin with, from now on.
    pub(crate) fn set_listener_terms(&mut self, id: ListenerId, terms: Terms) {
        if let Some(listener) = self.listeners.get_mut(id.0 as usize) {
            listener.terms = terms;
        }
    }
}

impl Tcp {
    /// Changes what is asked of a connection.
    pub(crate) fn set_terms(&mut self, ip: &mut Ip, id: FlowId, terms: Terms) {
        let Some(flow) = self.flow_mut(id) else {
            return;
        };
        if flow.terms == terms {
            return;
        }
        let probed_before = std::mem::replace(&mut flow.terms, terms).keep_alive;
        terms.apply(flow.set.get_mut(flow.socket), flow.mtu);
        if terms.keep_alive && !probed_before {
            // Silence until now says nothing: nobody asked.
            self.renew(ip, id);
        }
        self.make_ready(id);
    }
}

//! What a program asks of its connections.

use std::num::NonZeroU8;
use std::time::Duration;

use super::connection::{FIRST, LARGEST};
use super::{FlowId, ListenerId, Tcp};
use crate::ifnet::IfName;
use crate::ip::Ip;

/// Smallest buffer that can be asked for, bytes.
const SMALLEST: usize = 4 << 10;

/// What a connection is made with. All but the buffers can be changed later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    /// Hop limit of what is sent; `None` for that of the path.
    pub(crate) hop_limit: Option<NonZeroU8>,
    /// Whether an idle connection is probed.
    pub(crate) keep_alive: bool,
    /// Whether small segments go out at once, and not when all before them is acknowledged.
    pub(crate) no_delay: bool,
    /// How long a connection that makes no progress is kept, if it is not for ever.
    pub(crate) idle_limit: Option<Duration>,
    /// The interface that nothing leaves by.
    pub(crate) bypass: Option<IfName>,
    /// Sizes of its buffers.
    pub(crate) buffers: Buffers,
}

/// Bytes of the buffers of a connection; `None` for as many as its path needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Buffers {
    pub(crate) receive: Option<usize>,
    pub(crate) send: Option<usize>,
}

impl Buffers {
    /// The nearest size that a buffer can have.
    pub(crate) fn clamp(size: usize) -> usize {
        size.clamp(SMALLEST, LARGEST as usize)
    }

    /// What a buffer of this size holds at first.
    pub(crate) fn first(size: Option<usize>) -> usize {
        size.unwrap_or(FIRST as usize)
    }
}

impl Tcp {
    /// What connections that a listener accepts begin with, from now on.
    pub(crate) fn set_listener_terms(&mut self, id: ListenerId, terms: Terms) {
        if let Some(listener) = self.listeners.get_mut(id.0 as usize) {
            listener.terms = terms;
        }
    }

    /// Changes what is asked of a connection.
    pub(crate) fn set_terms(&mut self, ip: &Ip, id: FlowId, terms: Terms) {
        let now = ip.now.monotonic;
        let Some(flow) = self.flow_mut(id) else {
            return;
        };
        let old = std::mem::replace(&mut flow.terms, terms);
        if old == terms {
            return;
        }
        if old.bypass != terms.bypass {
            flow.path = None;
        }
        let connection = &mut flow.connection;
        connection.set_no_delay(terms.no_delay);
        connection.set_keep_alive(terms.keep_alive, now);
        self.make_ready(id);
    }
}

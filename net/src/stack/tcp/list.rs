//! Listeners and connections as a listing shows them.

use std::net::IpAddr;
use std::time::Duration;

use super::connection::State;
use super::{Flow, Holder, Listener, Tcp};
use crate::ip::header::Endpoints;
use crate::stack::listed::{Listed, next_of};
use crate::stack::unspecified;

/// Where a listing goes on: with listeners, connections, and then those of which only the TIME-WAIT
/// is left.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TcpPlace {
    Listeners(usize),
    Flows(usize),
    /// Behind the one that waits until then.
    Waits(Option<(Duration, Endpoints)>),
}

impl Default for TcpPlace {
    fn default() -> Self {
        Self::Listeners(0)
    }
}

impl Tcp {
    /// The next socket of a listing, and moves its place behind it; `None` at the end.
    pub(crate) fn list(&self, place: &mut TcpPlace, now: Duration) -> Option<Listed> {
        if let TcpPlace::Listeners(at) = place {
            if let Some((_, listener)) = next_of(&self.listeners, at) {
                return Some(listener.listed());
            }
            *place = TcpPlace::Flows(0);
        }
        if let TcpPlace::Flows(at) = place {
            if let Some((_, flow)) = next_of(&self.flows, at) {
                return Some(flow.listed());
            }
            *place = TcpPlace::Waits(None);
        }
        let TcpPlace::Waits(last) = place else {
            return None;
        };
        let next = self.waits.after(*last, now)?;
        *last = Some(next);
        Some(Listed {
            state: Some(State::TimeWait.name()),
            recv: 0,
            send: 0,
            owner: None,
            path: None,
            ..between(&next.1)
        })
    }
}

impl Listener {
    fn listed(&self) -> Listed {
        Listed {
            state: Some("LISTEN"),
            local: (self.local, Some(self.port)),
            remote: (unspecified(&self.local), Some(0)),
            recv: self.queue.len(),
            send: self.backlog,
            owner: Some(self.owner),
            path: None,
        }
    }
}

impl Flow {
    fn listed(&self) -> Listed {
        let connection = &self.connection;
        let state = connection.state();
        let owner = match self.holder {
            Holder::Owner(owner) if state != State::TimeWait => Some(owner),
            _ => None,
        };
        Listed {
            state: Some(state.name()),
            recv: connection.recv_queue(),
            send: connection.send_queue(),
            owner,
            path: Some(connection.stats()),
            ..between(&self.endpoints)
        }
    }
}

/// The ends of a connection, and nothing else yet.
fn between(endpoints: &Endpoints) -> Listed {
    let name = |(addr, port): (IpAddr, u16)| (addr, Some(port));
    Listed {
        state: None,
        local: name(endpoints.local),
        remote: name(endpoints.remote),
        recv: 0,
        send: 0,
        owner: None,
        path: None,
    }
}

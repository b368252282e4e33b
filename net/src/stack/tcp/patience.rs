//! How long a connection is waited for.
//!
//! smoltcp has a timeout of its own, but measures it from the last segment that came: whoever sets
//! it on a connection that was idle ends it at once. So the deadlines are kept here, and smoltcp
//! knows of none. They do not need its timers either: who cannot send, because a queue is full or
//! there is no way, is given up all the same.

use std::time::Duration;

use scheme::errno;
use smoltcp::socket::tcp::{Socket, State};

use super::{Flow, FlowId, Holder, Tcp};
use crate::ip::Ip;

/// A handshake that takes longer is given up. RFC 9293 section 3.8.3 wants three minutes at least
/// from whoever opens.
const HANDSHAKE: Duration = Duration::from_secs(180);
/// The same for one that somebody else began: its memory is a stranger's to take (RFC 4987).
const EMBRYO: Duration = Duration::from_secs(75);
/// R2 of RFC 9293 section 3.8.3: how long what was sent may go unanswered. A window of zero is an
/// answer (section 3.8.6.1), so it is measured from the last segment that came.
const UNANSWERED: Duration = Duration::from_secs(15 * 60);
/// A connection that nobody holds any more is given up after so long without progress; then a
/// window of zero is none.
const ORPHAN: Duration = Duration::from_secs(60);
/// Time between two probes of an idle connection. As long as Linux waits, and longer than any NAT
/// would.
pub(super) const PROBE: Duration = Duration::from_secs(75);
/// Probes without an answer before the other end is taken for gone.
const PROBES: u32 = 9;

/// What the deadline of a connection follows from.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// When it last got further: it was made, given up by its holder, moved on, sent or got data.
    progress: Duration,
    /// When a segment last came.
    heard: Duration,
    /// Since when something waits for its acknowledgement.
    asked: Option<Duration>,
    /// Its entry among the deadlines. The deadline itself may be later.
    watched: Option<Duration>,
}

/// By what progress is seen: the state, and the bytes to send and to read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) state: State,
    pub(super) unsent: usize,
    pub(super) unread: usize,
}

impl Flow {
    fn tcp(&self) -> &Socket<'static> {
        self.set.get(self.socket)
    }

    pub(super) fn standing(&self) -> Standing {
        let socket = self.tcp();
        Standing {
            state: socket.state(),
            unsent: socket.send_queue(),
            unread: socket.recv_queue(),
        }
    }

    /// A segment came, and this is how the connection stood before.
    pub(super) fn heard(&mut self, before: Standing, now: Duration) {
        self.patience.heard = now;
        if self.standing() != before {
            self.patience.progress = now;
        }
    }

    /// When it is to be given up.
    fn deadline(&self) -> Option<Duration> {
        let Patience {
            progress,
            heard,
            asked,
            ..
        } = self.patience;
        let socket = self.tcp();
        match (self.holder, socket.state()) {
            (Holder::Orphan, _) => Some(progress + ORPHAN),
            (_, State::Closed | State::TimeWait) => None,
            (Holder::Embryo(_), _) => Some(progress + EMBRYO),
            (_, State::SynSent | State::SynReceived) => Some(progress + HANDSHAKE),
            _ if self.terms.idle_limit.is_some() => {
                self.terms.idle_limit.map(|limit| progress + limit)
            }
            _ => {
                let unanswered = asked.map(|asked| heard.max(asked) + UNANSWERED);
                let probed = socket.keep_alive().map(|_| heard + PROBE * (PROBES + 1));
                unanswered.into_iter().chain(probed).min()
            }
        }
    }
}

impl Tcp {
    fn watch(&mut self, id: FlowId, at: Duration) {
        let Some(flow) = self.flow_mut(id) else {
            return;
        };
        // Deadlines mostly move away; the entry does not follow until it is due.
        if flow.patience.watched.is_none_or(|watched| at < watched) {
            if let Some(watched) = flow.patience.watched.replace(at) {
                self.deadlines.remove(&(watched, id));
            }
            self.deadlines.insert((at, id));
        }
    }

    /// A connection is gone.
    pub(super) fn unwatch(&mut self, id: FlowId, patience: &Patience) {
        if let Some(watched) = patience.watched {
            self.deadlines.remove(&(watched, id));
        }
    }
}

impl Tcp {
    /// Begins to wait for a connection anew.
    pub(super) fn renew(&mut self, ip: &mut Ip, id: FlowId) {
        let now = ip.now.monotonic;
        if let Some(flow) = self.flow_mut(id) {
            flow.patience.progress = now;
            flow.patience.heard = now;
        }
        self.note_deadline(ip, id);
    }

    /// Notes until when a connection is waited for, after it moved.
    pub(super) fn note_deadline(&mut self, ip: &mut Ip, id: FlowId) {
        let now = ip.now.monotonic;
        let Some(flow) = self.flow_mut(id) else {
            return;
        };
        let fin = matches!(
            flow.tcp().state(),
            State::FinWait1 | State::Closing | State::LastAck
        );
        if !fin && flow.tcp().send_queue() == 0 {
            flow.patience.asked = None;
        } else {
            flow.patience.asked.get_or_insert(now);
        }
        if let Some(at) = flow.deadline() {
            self.watch(id, at);
        }
    }

    /// Gives up the connections whose deadline is over.
    pub(super) fn expire(&mut self, ip: &mut Ip) {
        let now = ip.now.monotonic;
        while let Some(&(at, id)) = self.deadlines.first()
            && at <= now
        {
            self.deadlines.pop_first();
            let Some(flow) = self.flow_mut(id) else {
                continue;
            };
            flow.patience.watched = None;
            match flow.deadline() {
                Some(at) if at <= now => self.give_up(ip, id),
                Some(at) => self.watch(id, at),
                None => {}
            }
        }
    }

    fn give_up(&mut self, ip: &mut Ip, id: FlowId) {
        let Some(flow) = self.flow_mut(id) else {
            return;
        };
        flow.error.get_or_insert(errno::ETIMEDOUT);
        let orphan = flow.holder == Holder::Orphan;
        if let Some(socket) = self.socket(id) {
            socket.abort();
        }
        // The other end hears of it if there is room to tell it; that is not waited for.
        self.drive(ip, id, None);
        if orphan {
            self.remove(id);
        }
    }
}

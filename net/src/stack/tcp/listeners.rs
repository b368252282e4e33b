//! Listeners: the handshakes of strangers, and the connections that wait to be accepted.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;

use scheme::errno::{self, Errno};

use super::connection::{Connection, Flags, Segment};
use super::path::way;
use super::{FlowId, GUEST, Holder, Listener, ListenerId, Pending, STRANGER, Tcp, Terms, cookies};
use crate::ifnet::{DropReason, IfIndex};
use crate::ip::Ip;
use crate::ip::header::Endpoints;
use crate::memory::{self, SPARE_PLACES};
use crate::stack::{Owner, unspecified};

/// Handshakes under way that every listener may have; with a longer backlog, as many as that. Further
/// ones are answered by cookies.
const EMBRYOS: usize = 256;
/// Handshakes under way at all listeners together, likewise: they must not take the places of
/// connections.
pub(super) const MAX_EMBRYOS: usize = 16_384;
/// Connections made of cookies are added to a queue of up to so many.
const COOKIES: usize = 1024;
/// Most listeners.
const MAX_LISTENERS: usize = 65_536;

impl Tcp {
    /// Listens on a port of one address, or of all of a family if it is unspecified.
    pub(crate) fn listen(
        &mut self,
        local: IpAddr,
        port: u16,
        backlog: usize,
        owner: Owner,
        uid: u32,
    ) -> Result<ListenerId, Errno> {
        // One of all addresses of a family clashes with every one of the port.
        let clash = match local.is_unspecified() {
            true => self.ports.is_held(&local, port),
            false => self.listener_for(&local, port).is_some(),
        };
        // The last ports are the superuser's.
        if clash || !self.ports.may_take(&local, port, uid) {
            return Err(errno::EADDRINUSE);
        }
        if self.listeners.len() >= MAX_LISTENERS {
            return Err(errno::ENFILE);
        }
        let listener = Listener {
            owner,
            uid,
            local,
            port,
            backlog: backlog.max(1),
            terms: Terms::default(),
            embryos: BTreeSet::new(),
            queue: VecDeque::new(),
            told: false,
        };
        let id = ListenerId(self.listeners.insert(listener) as u32);
        self.by_local.insert((local, port), id);
        self.ports.add(&local, port);
        Ok(id)
    }

    /// Takes the connection that waited longest.
    pub(crate) fn accept(&mut self, id: ListenerId) -> Option<FlowId> {
        let listener = self.listeners.get_mut(id.0 as usize)?;
        let flow_id = memory::pop_front(&mut listener.queue, SPARE_PLACES)?;
        let (owner, uid) = (listener.owner, listener.uid);
        if let Some(flow) = self.flow_mut(flow_id) {
            flow.uid = uid;
            flow.holder = Holder::Owner(owner);
        }
        // It may have brought data along.
        self.tell(flow_id);
        Some(flow_id)
    }

    /// Whether a listener has connections to accept.
    pub(crate) fn has_queued(&self, id: ListenerId) -> bool {
        let listener = self.listeners.get(id.0 as usize);
        listener.is_some_and(|listener| !listener.queue.is_empty())
    }

    pub(super) fn listener_for(&self, addr: &IpAddr, port: u16) -> Option<ListenerId> {
        let fits = |local| self.by_local.get(&(local, port)).copied();
        fits(*addr).or_else(|| fits(unspecified(addr)))
    }

    pub(super) fn tell_listener(&mut self, id: ListenerId) {
        if let Some(listener) = self.listeners.get_mut(id.0 as usize)
            && !std::mem::replace(&mut listener.told, true)
        {
            self.events.push_back(Pending::Listener(id));
        }
    }

    /// A segment came for a listener (RFC 9293 section 3.10.7.2): a SYN begins a handshake, and the
    /// ACK of a cookie ends one. `NoPort` for a segment that is to be answered by a reset.
    pub(super) fn open(
        &mut self,
        ip: &mut Ip,
        rcvif: IfIndex,
        id: ListenerId,
        endpoints: &Endpoints,
        segment: &Segment<'_>,
    ) -> Result<(), DropReason> {
        if segment.flags.has(Flags::RST) {
            return Err(DropReason::NotWanted);
        }
        let listener = &self.listeners[id.0 as usize];
        let queued = listener.queue.len();
        let full = queued >= listener.backlog;
        let crowded =
            listener.embryos.len() >= listener.backlog.max(EMBRYOS) || self.embryos >= MAX_EMBRYOS;
        let guest = if listener.uid == 0 { GUEST } else { STRANGER };
        let terms = listener.terms;
        let now = ip.now.monotonic;
        if segment.flags.has(Flags::ACK) {
            let cookie = match self.cookies.expected(now) && !segment.flags.has(Flags::SYN) {
                true => cookies::read(&self.secret, endpoints, segment, now),
                false => None,
            };
            let cookie = cookie.ok_or(DropReason::NoPort)?;
            // Whoever brings one back was let in before the queue was full.
            if queued >= COOKIES {
                // It is not reset: the same comes again with its data, and finds room.
                return Err(DropReason::BacklogFull);
            }
            let path = way(ip, endpoints, &terms).ok();
            let config = self.config(ip, endpoints, path.as_ref(), &terms);
            let mut connection = Connection::from_cookie(&config, &cookie, now);
            connection.handle_segment(segment, now);
            let flow = self
                .insert(
                    *endpoints,
                    connection,
                    Holder::Queued(id),
                    guest,
                    terms,
                    now,
                )
                .ok_or(DropReason::NoMemory)?;
            self.stats.cookies_taken += 1;
            self.listeners[id.0 as usize].queue.push_back(flow);
            self.tell_listener(id);
            self.drive(ip, flow);
            return Ok(());
        }
        if !segment.flags.has(Flags::SYN) {
            // Neither a beginning nor an answer: a scanner's FIN, or nothing at all.
            return Err(DropReason::NotWanted);
        }
        if full {
            return Err(DropReason::BacklogFull);
        }
        let path = way(ip, endpoints, &terms).ok();
        let config = self.config(ip, endpoints, path.as_ref(), &terms);
        if crowded {
            let mut made = cookies::make(&self.secret, endpoints, config, segment, now);
            if let Some(answer) = made.poll_transmit(now) {
                self.cookies.given(now);
                self.stats.cookies_sent += 1;
                self.answer(ip, rcvif, endpoints, answer, terms.bypass);
            }
            return Ok(());
        }
        let iss = self.isn(ip, endpoints);
        let connection = Connection::accept(&config, segment, iss, now);
        let flow = self
            .insert(
                *endpoints,
                connection,
                Holder::Embryo(id),
                guest,
                terms,
                now,
            )
            .ok_or(DropReason::NoMemory)?;
        self.listeners[id.0 as usize].embryos.insert(flow);
        self.embryos += 1;
        self.drive(ip, flow);
        Ok(())
    }

    /// A handshake at a listener is not under way any more.
    pub(super) fn embryo_ended(&mut self, listener: ListenerId, flow: FlowId) {
        if let Some(listener) = self.listeners.get_mut(listener.0 as usize)
            && listener.embryos.remove(&flow)
        {
            self.embryos -= 1;
        }
    }

    /// Ends a listener; what it has not handed out is reset.
    pub(crate) fn unlisten(&mut self, id: ListenerId) {
        let Some(listener) = self.listeners.try_remove(id.0 as usize) else {
            return;
        };
        self.by_local.remove(&(listener.local, listener.port));
        self.ports.remove(&listener.local, listener.port);
        self.embryos -= listener.embryos.len();
        for id in listener.embryos.into_iter().chain(listener.queue) {
            if let Some(flow) = self.flow_mut(id) {
                flow.holder = Holder::Orphan;
                flow.connection.abort();
            }
            self.make_ready(id);
        }
    }
}

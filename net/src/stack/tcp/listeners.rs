//! Listeners: the handshakes of strangers, and the connections that wait to be accepted.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::time::Duration;

use scheme::errno;
use scheme::errno::Errno;
use smoltcp::wire::IpListenEndpoint;

use super::flows::{LARGEST_BUFFER, MEMORY, SMALLEST_BUFFER};
use super::{FlowId, Holder, Listener, ListenerId, Pending, Tcp, Terms};
use crate::ifnet::DropReason;
use crate::ip::Ip;
use crate::ip::header::Endpoints;
use crate::stack::Owner;

/// Most handshakes under way of one listener; those beyond its backlog get the smallest buffers, and
/// only while half of the memory is free.
const MAX_EMBRYOS: usize = 4096;
/// A handshake gets at least this long, more than most round trips; while all are younger, a new SYN
/// is dropped, and comes again.
const YOUNG: Duration = Duration::from_millis(200);
/// Most listeners.
const MAX_LISTENERS: usize = 65_536;

impl Tcp {
    /// Listens on a port of one address, or of all.
    pub(crate) fn listen(
        &mut self,
        local: Option<IpAddr>,
        port: u16,
        backlog: usize,
        owner: Owner,
    ) -> Result<ListenerId, Errno> {
        // One of all addresses clashes with every one of the port.
        let clash = match local {
            Some(addr) => self.listener_for(&addr, port).is_some(),
            None => self.ports.contains_key(&port),
        };
        if clash {
            return Err(errno::EADDRINUSE);
        }
        if self.listeners.len() >= MAX_LISTENERS {
            return Err(errno::ENFILE);
        }
        let listener = Listener {
            owner,
            local,
            port,
            backlog: backlog.max(1),
            terms: Terms::default(),
            embryos: VecDeque::new(),
            queue: VecDeque::new(),
            told: false,
        };
        let id = ListenerId(self.listeners.insert(listener) as u32);
        self.by_local.insert((local, port), id);
        *self.ports.entry(port).or_default() += 1;
        Ok(id)
    }

    /// Takes the connection that waited longest.
    pub(crate) fn accept(&mut self, id: ListenerId) -> Option<FlowId> {
        let listener = self.listeners.get_mut(id.0 as usize)?;
        let flow_id = listener.queue.pop_front()?;
        let owner = listener.owner;
        if let Some(flow) = self.flow_mut(flow_id) {
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
        fits(Some(*addr)).or_else(|| fits(None))
    }

    pub(super) fn tell_listener(&mut self, id: ListenerId) {
        if let Some(listener) = self.listeners.get_mut(id.0 as usize)
            && !std::mem::replace(&mut listener.told, true)
        {
            self.events.push_back(Pending::Listener(id));
        }
    }
}

impl Tcp {
    /// A SYN for a listener: a connection in the making.
    pub(super) fn open(
        &mut self,
        ip: &mut Ip,
        endpoints: &Endpoints,
    ) -> Result<FlowId, DropReason> {
        let (addr, port) = endpoints.local;
        let listener_id = self.listener_for(&addr, port).ok_or(DropReason::NoPort)?;
        let listener = &mut self.listeners[listener_id.0 as usize];
        if listener.queue.len() >= listener.backlog {
            return Err(DropReason::BacklogFull);
        }
        let terms = listener.terms;
        let now = ip.now.monotonic;
        let crowded = listener.embryos.len() >= listener.backlog;
        let full = listener.embryos.len() >= MAX_EMBRYOS || self.memory >= MEMORY / 2;
        if crowded && full {
            // A flood: the oldest has had its time (RFC 4987 section 3.4).
            match listener.embryos.front() {
                Some(&(since, oldest)) if now >= since + YOUNG => self.remove(oldest),
                _ => return Err(DropReason::BacklogFull),
            }
        }
        let most = if crowded {
            SMALLEST_BUFFER
        } else {
            LARGEST_BUFFER
        };
        let holder = Holder::Embryo(listener_id);
        let id = self
            .insert(*endpoints, holder, terms, most)
            .ok_or(DropReason::NoMemory)?;
        self.renew(ip, id);
        if let Some(socket) = self.socket(id) {
            let local = IpListenEndpoint {
                addr: Some(addr.into()),
                port,
            };
            if socket.listen(local).is_err() {
                self.remove(id);
                return Err(DropReason::NotWanted);
            }
        }
        self.listeners[listener_id.0 as usize]
            .embryos
            .push_back((now, id));
        Ok(id)
    }

    /// Ends a listener; what it has not handed out is reset.
    pub(crate) fn unlisten(&mut self, ip: &mut Ip, id: ListenerId) {
        let Some(listener) = self.listeners.try_remove(id.0 as usize) else {
            return;
        };
        self.by_local.remove(&(listener.local, listener.port));
        if let Entry::Occupied(mut count) = self.ports.entry(listener.port) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        let embryos = listener.embryos.into_iter().map(|(_, embryo)| embryo);
        for flow in embryos.chain(listener.queue) {
            if let Some(socket) = self.socket(flow) {
                socket.abort();
            }
            if let Some(flow) = self.flow_mut(flow) {
                flow.holder = Holder::Orphan;
            }
            self.renew(ip, flow);
            self.make_ready(flow);
        }
    }
}

//! Connections as they come and go, and the memory they take.

use std::time::Duration;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer};

use super::challenge::Challenge;
use super::patience::Patience;
use super::{Buffers, Flow, FlowId, Holder, Tcp, Terms};
use crate::ip::header::Endpoints;
use crate::stack::time_wait::TimeWait;

/// Bytes of memory that the buffers of all connections may take.
pub(super) const MEMORY: usize = 512 << 20;
/// Bytes of each buffer of a connection, by the bytes up to which that much is given, exclusive: the
/// first thousand connections get the largest, and tens of thousands still get in.
const BUFFERS: [(usize, usize); 5] = [
    (128 << 20, LARGEST_BUFFER),
    (192 << 20, 32 << 10),
    (224 << 20, 16 << 10),
    (240 << 20, 8 << 10),
    (MEMORY, SMALLEST_BUFFER),
];
pub(super) const LARGEST_BUFFER: usize = 64 << 10;
/// Most sockets, with the largest buffers, that are kept for use again; not counted above.
const MAX_SPARE: usize = 64;
pub(super) const SMALLEST_BUFFER: usize = 4 << 10;
/// Most connections.
const MAX_FLOWS: usize = 65_536;
/// How long an ACK may wait for company (RFC 1122 section 4.2.3.2 allows half a second).
const ACK_DELAY: smoltcp::time::Duration = smoltcp::time::Duration::from_millis(10);

impl Tcp {
    /// A closed socket with these endpoints, and buffers of `most` bytes at the most.
    pub(super) fn insert(
        &mut self,
        endpoints: Endpoints,
        holder: Holder,
        terms: Terms,
        most: usize,
    ) -> Option<FlowId> {
        let buffers = terms.buffers.within(self.buffer_size()?.min(most));
        let (mut set, socket) = self.fresh_socket(buffers);
        terms.apply(set.get_mut::<Socket<'static>>(socket), 0);
        self.serial = self.serial.wrapping_add(1);
        let flow = Flow {
            serial: self.serial,
            endpoints,
            set,
            socket,
            holder,
            terms,
            path: None,
            mtu: 0,
            armed: None,
            challenge: Challenge::default(),
            patience: Patience::default(),
            ready: false,
            blocked: None,
            told: false,
            memory: buffers.total(),
            error: None,
            snd_nxt: None,
            rcv_nxt: None,
            rescued: None,
        };
        self.memory += flow.memory;
        let key = self.flows.insert(flow) as u32;
        let serial = self.serial;
        let id = FlowId { key, serial };
        self.by_endpoints.insert(endpoints, id);
        self.waits.remove(&endpoints);
        Some(id)
    }

    /// Keeps of a connection in TIME-WAIT only what answers late segments.
    pub(super) fn wait(&mut self, id: FlowId, until: Duration) {
        if let Some(flow) = self.flow(id)
            && let (Some(seq), Some(ack)) = (flow.snd_nxt, flow.rcv_nxt)
        {
            let endpoints = flow.endpoints;
            // A new connection may have its name already.
            let current = self.by_endpoints.get(&endpoints) == Some(&id);
            self.remove(id);
            if current {
                self.waits.insert(endpoints, TimeWait { seq, ack, until });
            }
        }
    }

    pub(super) fn remove(&mut self, id: FlowId) {
        if self.flow(id).is_none() {
            return;
        }
        let mut flow = self.flows.remove(id.key as usize);
        self.unwatch(id, &flow.patience);
        self.memory -= flow.memory;
        // Fresh memory for each connection costs more than all its packets.
        if flow.memory == 2 * LARGEST_BUFFER && self.spare.len() < MAX_SPARE {
            flow.set.get_mut::<Socket<'static>>(flow.socket).abort();
            self.spare.push((flow.set, flow.socket));
        }
        if self.by_endpoints.get(&flow.endpoints) == Some(&id) {
            self.by_endpoints.remove(&flow.endpoints);
        }
        if let Holder::Embryo(listener) | Holder::Queued(listener) = flow.holder
            && let Some(listener) = self.listeners.get_mut(listener.0 as usize)
        {
            listener.embryos.retain(|&(_, embryo)| embryo != id);
            listener.queue.retain(|&queued| queued != id);
        }
    }

    /// Bytes for each buffer of a new connection: less for each, the more memory is in use. `None`
    /// when it is used up.
    fn buffer_size(&self) -> Option<usize> {
        let fits = |&&(bound, size): &&(usize, usize)| {
            self.memory < bound && self.memory + 2 * size <= MEMORY
        };
        let &(_, size) = BUFFERS.iter().find(fits)?;
        (self.flows.len() < MAX_FLOWS).then_some(size)
    }

    /// A closed socket with these buffers, as if it were new but for the [terms](Terms) of its last
    /// connection.
    fn fresh_socket(&mut self, buffers: Buffers) -> (SocketSet<'static>, SocketHandle) {
        let spare = if buffers == Buffers::both(LARGEST_BUFFER) {
            self.spare.pop()
        } else {
            None
        };
        let (mut set, handle) = spare.unwrap_or_else(|| {
            let buffer = |size| SocketBuffer::new(vec![0; size]);
            let mut set = SocketSet::new(Vec::with_capacity(1));
            let handle = set.add(Socket::new(buffer(buffers.receive), buffer(buffers.send)));
            (set, handle)
        });
        let socket = set.get_mut::<Socket<'static>>(handle);
        // Opening it resets the connection, but not what was asked for the last one; terms are still
        // to be applied.
        socket.set_congestion_control(CongestionControl::Cubic);
        socket.set_timeout(None);
        socket.set_ack_delay(Some(ACK_DELAY));
        socket.set_tsval_generator(None);
        (set, handle)
    }
}

#[cfg(test)]
mod tests {
    use smoltcp::socket::tcp::State;

    use super::*;
    use crate::ip::output::HOP_LIMIT;

    #[test]
    fn buffers_shrink_as_memory_fills_and_connections_end_there() {
        let mut tcp = tcp();
        assert_eq!(tcp.buffer_size(), Some(64 << 10));
        tcp.memory = 128 << 20;
        assert_eq!(tcp.buffer_size(), Some(32 << 10));
        tcp.memory = MEMORY - (8 << 10);
        assert_eq!(tcp.buffer_size(), Some(4 << 10));
        tcp.memory += 1;
        assert_eq!(tcp.buffer_size(), None);
    }

    fn tcp() -> Tcp {
        Tcp::new(ahash::RandomState::with_seeds(1, 2, 3, 4), [5, 6])
    }

    fn endpoints(n: u32) -> Endpoints {
        Endpoints {
            local: (std::net::Ipv4Addr::LOCALHOST.into(), 80),
            remote: (std::net::Ipv4Addr::from(n).into(), 4000),
        }
    }

    #[test]
    fn ten_thousand_connections_with_both_ends_here_fit() {
        let mut tcp = tcp();
        for n in 0..20_000 {
            assert!(
                tcp.insert(
                    endpoints(n),
                    Holder::Orphan,
                    Terms::default(),
                    LARGEST_BUFFER
                )
                .is_some()
            );
        }
        assert!(tcp.memory <= MEMORY);
    }

    #[test]
    fn a_socket_is_used_again_without_its_past() {
        let mut tcp = tcp();
        let id = tcp
            .insert(
                endpoints(1),
                Holder::Orphan,
                Terms::default(),
                LARGEST_BUFFER,
            )
            .unwrap();
        let socket = tcp.socket(id).unwrap();
        socket.set_nagle_enabled(false);
        socket.set_keep_alive(Some(smoltcp::time::Duration::from_secs(1)));
        socket.set_timeout(None);
        socket.set_ack_delay(None);
        socket.set_hop_limit(Some(1));
        socket.listen(80).unwrap();
        tcp.remove(id);
        assert_eq!((tcp.spare.len(), tcp.memory), (1, 0));
        let id = tcp
            .insert(
                endpoints(2),
                Holder::Orphan,
                Terms::default(),
                LARGEST_BUFFER,
            )
            .unwrap();
        assert!(tcp.spare.is_empty());
        let socket = tcp.socket(id).unwrap();
        let fresh = Socket::new(SocketBuffer::new(vec![]), SocketBuffer::new(vec![]));
        assert_eq!(socket.state(), State::Closed);
        assert_eq!(socket.nagle_enabled(), fresh.nagle_enabled());
        assert_eq!(socket.keep_alive(), fresh.keep_alive());
        assert_eq!(socket.ack_delay(), fresh.ack_delay());
        assert_eq!(socket.hop_limit(), Some(HOP_LIMIT));
        assert_eq!(socket.timeout(), None);
        assert_eq!(socket.remote_endpoint(), None);
    }

    #[test]
    fn few_sockets_are_kept() {
        let mut tcp = tcp();
        let ids: Vec<_> = (0..2 * MAX_SPARE as u32)
            .map(|n| {
                tcp.insert(
                    endpoints(n),
                    Holder::Orphan,
                    Terms::default(),
                    LARGEST_BUFFER,
                )
                .unwrap()
            })
            .collect();
        for id in ids {
            tcp.remove(id);
        }
        assert_eq!((tcp.spare.len(), tcp.memory), (MAX_SPARE, 0));
    }
}

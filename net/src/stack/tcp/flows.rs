//! Connections as they come and go, and the memory they take.

use std::fmt::Write;
use std::time::Duration;

use super::connection::{Buffer, Config, Connection, Counters, LARGEST, SeqNumber};
use super::{Flow, FlowId, Holder, State, Tcp, Terms};
use crate::ip::Ip;
use crate::ip::header::Endpoints;
use crate::timers::Timer;

/// Bytes of memory that all connections may take; further ones are not begun.
const MEMORY: usize = 512 << 20;
/// With more than this, buffers stop growing.
const PRESSURE: usize = MEMORY / 4 * 3;
/// Bytes that a connection is charged besides its own.
const OVERHEAD: usize = size_of::<Flow>() - size_of::<Connection>() + 128;
/// Most connections.
const MAX_FLOWS: usize = 65_536;

/// What was counted of all connections.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TcpStats {
    counters: Counters,
    /// Resets sent for segments that were for nobody.
    pub(super) resets: u64,
    /// Handshakes answered by a cookie.
    pub(super) cookies_sent: u64,
    /// Connections made of one.
    pub(super) cookies_taken: u64,
}

impl TcpStats {
    /// The text of `netcfg/tcp/stats`; `bad_checksums` is how many segments had a wrong one.
    pub(crate) fn render(&self, bad_checksums: u64) -> String {
        let of = &self.counters;
        let lines = [
            ("retransmits", of.retransmits.into()),
            ("timeouts", of.timeouts.into()),
            ("tail_loss_probes", of.tail_probes.into()),
            ("fast_recoveries", of.recoveries.into()),
            ("undone", of.undone.into()),
            ("lost_bytes", of.lost.into()),
            ("spurious", of.spurious.into()),
            ("checksum_errors", bad_checksums),
            ("resets_sent", self.resets + u64::from(of.resets)),
            ("challenge_acks", of.challenges.into()),
            ("cookies_sent", self.cookies_sent),
            ("cookies_accepted", self.cookies_taken),
        ];
        let mut text = String::with_capacity(256);
        for (name, value) in lines {
            let _ = writeln!(text, "{name} {value}");
        }
        text
    }
}

impl Flow {
    /// When one that makes no progress is ended.
    pub(super) fn idle_end(&self) -> Option<Duration> {
        let limit = self.terms.idle_limit?;
        let ended = self.connection.state() == State::Closed;
        (!ended).then_some(self.progress + limit)
    }
}

impl Tcp {
    /// What was counted.
    pub(crate) fn stats(&self) -> TcpStats {
        self.stats
    }

    /// What a connection is made with.
    pub(super) fn config(&self, ip: &Ip, endpoints: &Endpoints, mtu: u16, terms: &Terms) -> Config {
        let remote = &endpoints.remote.0;
        let buffer = |asked: Option<usize>| match asked {
            Some(size) => Buffer::Fixed(size as u32),
            None => Buffer::Auto(LARGEST),
        };
        Config {
            local_port: endpoints.local.1,
            remote_port: endpoints.remote.1,
            v6: remote.is_ipv6(),
            mtu: ip.path_mtu(remote, mtu),
            send_buffer: buffer(terms.buffers.send),
            receive_buffer: buffer(terms.buffers.receive),
            no_delay: terms.no_delay,
            keep_alive: terms.keep_alive,
            clock: self.secret.clock(endpoints),
        }
    }

    /// The initial sequence number of a connection: above those of the last one with its ends (RFC
    /// 6191 section 2).
    pub(super) fn isn(&self, ip: &Ip, endpoints: &Endpoints) -> SeqNumber {
        let now = ip.now.monotonic;
        let isn = self.secret.isn(endpoints, now);
        match self.waits.get(endpoints, now) {
            Some(old) => isn.later(old.snd_nxt + 1),
            None => isn,
        }
    }

    /// Adds a connection. `None` if there are too many, or they take too much.
    pub(super) fn insert(
        &mut self,
        endpoints: Endpoints,
        connection: Connection,
        holder: Holder,
        terms: Terms,
        now: Duration,
    ) -> Option<FlowId> {
        if self.flows.len() >= MAX_FLOWS || self.memory >= MEMORY {
            return None;
        }
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial;
        let key = self.flows.insert(Flow {
            serial,
            endpoints,
            connection,
            holder,
            terms,
            path: None,
            timer: Timer::default(),
            ready: false,
            blocked: None,
            told: false,
            progress: now,
            memory: 0,
            counted: Counters::default(),
            error: None,
        }) as u32;
        let id = FlowId { key, serial };
        self.by_endpoints.insert(endpoints, id);
        self.waits.remove(&endpoints);
        self.account(id);
        Some(id)
    }

    /// Counts what a connection takes now, and what it did.
    pub(super) fn account(&mut self, id: FlowId) {
        let Some(flow) = self.flows.get_mut(id.key as usize) else {
            return;
        };
        let memory = OVERHEAD + flow.connection.memory();
        self.memory = self.memory - flow.memory + memory;
        flow.memory = memory;
        let counters = flow.connection.counters();
        if counters != flow.counted {
            self.stats.counters.add(&counters, &flow.counted);
            flow.counted = counters;
        }
    }

    /// Whether buffers must not grow.
    pub(super) fn is_pressed(&self) -> bool {
        self.memory > PRESSURE
    }

    /// Keeps of a connection in TIME-WAIT only what answers late segments.
    pub(super) fn rest(&mut self, id: FlowId, until: Duration) {
        let Some(flow) = self.flow(id) else {
            return;
        };
        let (endpoints, wait) = (flow.endpoints, flow.connection.time_wait());
        // A new connection may have its name already.
        let current = self.by_endpoints.get(&endpoints) == Some(&id);
        self.remove(id);
        if let Some(wait) = wait.filter(|_| current) {
            self.waits.insert(endpoints, wait, until);
        }
    }

    pub(super) fn remove(&mut self, id: FlowId) {
        if self.flow(id).is_none() {
            return;
        }
        let mut flow = self.flows.remove(id.key as usize);
        self.timers.disarm(&mut flow.timer, id);
        self.memory -= flow.memory;
        if self.by_endpoints.get(&flow.endpoints) == Some(&id) {
            self.by_endpoints.remove(&flow.endpoints);
        }
        match flow.holder {
            Holder::Embryo(listener) => {
                if let Some(listener) = self.listeners.get_mut(listener.0 as usize) {
                    listener.embryos = listener.embryos.saturating_sub(1);
                }
            }
            Holder::Queued(listener) => {
                if let Some(listener) = self.listeners.get_mut(listener.0 as usize) {
                    listener.queue.retain(|&queued| queued != id);
                }
            }
            Holder::Owner(_) | Holder::Orphan => {}
        }
    }
}

//! The turns of connections.

use std::num::NonZeroU8;

use scheme::errno::{self, Errno};

use super::answers::fill_checksum;
use super::connection::{CloseReason, State, TIME_WAIT};
use super::{FlowId, Holder, Tcp};
use crate::ip::header::proto;
use crate::ip::output::Path;
use crate::ip::{Budget, Ip};
use crate::packet::Packet;

/// Most packets that one connection sends before another gets its turn.
const BURST: usize = 16;

impl Tcp {
    /// Nobody holds the connection any more. What is queued is still sent.
    pub(crate) fn close(&mut self, ip: &Ip, id: FlowId) {
        let now = ip.now.monotonic;
        if let Some(flow) = self.flow_mut(id) {
            flow.holder = Holder::Orphan;
            flow.connection.abandon(now);
            self.make_ready(id);
        }
    }

    /// Runs timers that are due and connections that have something to send, as many as the budget
    /// allows.
    #[inline(never)]
    pub(crate) fn run(&mut self, ip: &mut Ip, budget: Budget) {
        let now = ip.now.monotonic;
        self.waits.expire(now);
        while let Some(id) = self.timers.pop(now) {
            if let Some(flow) = self.flow_mut(id) {
                flow.timer.expired();
                match flow.idle_end() {
                    Some(at) if at <= now => flow.connection.abort(),
                    _ => flow.connection.handle_timeout(now),
                }
                self.make_ready(id);
            }
        }
        // Those that become ready meanwhile wait for the next turn.
        let waiting = self.ready.len();
        for _ in 0..waiting.min(budget.get()) {
            let Some(id) = self.ready.pop_front() else {
                break;
            };
            if let Some(flow) = self.flow_mut(id) {
                flow.ready = false;
                self.drive(ip, id);
            }
        }
    }

    /// Lets a connection send what it has to, and sees where that leaves it.
    pub(super) fn drive(&mut self, ip: &mut Ip, id: FlowId) {
        let Some(path) = self.path(ip, id) else {
            return;
        };
        let now = ip.now.monotonic;
        let pressure = self.is_pressed();
        if let Some(flow) = self.flow_mut(id) {
            flow.connection.set_memory_pressure(pressure);
        }
        let mut burst = BURST;
        let mut blocked = false;
        let more = loop {
            if burst == 0 {
                break true;
            }
            blocked = path.is_some_and(|path| !self.has_room(ip, path.dev, id));
            if blocked {
                break false;
            }
            let Some(flow) = self.flows.get_mut(id.key as usize) else {
                return;
            };
            let Some(segment) = flow.connection.poll_transmit(now) else {
                break false;
            };
            self.transmit(ip, id, path, segment);
            burst -= 1;
        };
        self.follow(ip, id, more || blocked);
        if more {
            self.make_ready(id);
        } else if blocked {
            self.block(ip, id, path);
        } else {
            self.pass_on(ip, id, path);
        }
    }

    fn transmit(&self, ip: &mut Ip, id: FlowId, path: Option<Path>, mut segment: Packet) {
        let (Some(flow), Some(path)) = (self.flow(id), path) else {
            // Without a way it is lost, as on one.
            return;
        };
        let endpoints = flow.endpoints;
        fill_checksum(&endpoints, &mut segment);
        let (src, dst) = (endpoints.local.0, endpoints.remote.0);
        let (hops, whole) = (
            flow.terms.hop_limit.map_or(path.hops, NonZeroU8::get),
            flow.connection.dont_fragment(),
        );
        // A packet that finds the queue full is counted there, and sent again in time.
        let _ = ip.ip_output_sized(path, src, dst, proto::TCP, hops, segment, whole);
    }

    /// After a connection moved: where does it stand now, when is it looked at again, and who should
    /// hear? `more` says that it has more to send.
    fn follow(&mut self, ip: &Ip, id: FlowId, more: bool) {
        let now = ip.now.monotonic;
        self.account(id);
        let Some(flow) = self.flow_mut(id) else {
            return;
        };
        let state = flow.connection.state();
        if state == State::Closed && flow.error.is_none() {
            flow.error = flow.connection.close_reason().map(errno_of);
        }
        match flow.holder {
            Holder::Embryo(listener) => match state {
                State::SynReceived => {}
                State::Closed | State::SynSent => return self.remove(id),
                _ => {
                    flow.holder = Holder::Queued(listener);
                    self.embryo_ended(listener, id);
                    if let Some(listener) = self.listeners.get_mut(listener.0 as usize) {
                        listener.queue.push_back(id);
                    }
                    self.tell_listener(listener);
                }
            },
            // It stays until it is accepted, so that the program hears what became of it.
            Holder::Queued(_) => {}
            Holder::Owner(_) => self.tell(id),
            Holder::Orphan => match flow.connection.time_wait() {
                _ if more => {}
                Some(_) => return self.rest(id, now + TIME_WAIT),
                None if state == State::Closed => return self.remove(id),
                None => {}
            },
        }
        self.arm(id);
    }

    /// Notes when a connection is to be looked at again. Its deadlines mostly move away; the entry
    /// does not follow until it is due.
    fn arm(&mut self, id: FlowId) {
        let Some(flow) = self.flows.get_mut(id.key as usize) else {
            return;
        };
        let ends = [flow.connection.poll_timeout(), flow.idle_end()];
        let Some(at) = ends.into_iter().flatten().min() else {
            return self.timers.disarm(&mut flow.timer, id);
        };
        if flow.timer.at().is_none_or(|armed| at < armed) {
            self.timers.arm(&mut flow.timer, id, at);
        }
    }
}

fn errno_of(reason: CloseReason) -> Errno {
    match reason {
        CloseReason::TimedOut => errno::ETIMEDOUT,
        CloseReason::Refused => errno::ECONNREFUSED,
        CloseReason::Reset => errno::ECONNRESET,
        CloseReason::Unreachable => errno::EHOSTUNREACH,
    }
}

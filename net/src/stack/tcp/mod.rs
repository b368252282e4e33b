//! TCP: smoltcp's state machine for each connection, and around it what a server needs.
//!
//! smoltcp looks through a whole socket set for every packet, so each connection has a set of its
//! own and is found by hashing its endpoints. A listener is ours: a SYN makes a fresh socket, which
//! waits among the half-open ones until its handshake is done and then in the accept queue.

mod answers;
mod blocked;
mod challenge;
mod connect;
#[allow(dead_code)]
mod connection;
mod flows;
mod listeners;
mod path;
mod patience;
mod rescue;
mod terms;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use scheme::errno::{self, Errno};
use siphasher::sip::SipHasher13;
use slab::Slab;
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, State};
use smoltcp::time::Instant;
use smoltcp::wire::{TcpPacket, TcpSeqNumber};

use self::challenge::Challenge;
use self::patience::Patience;
pub(crate) use self::terms::{Buffers, Terms};
use super::Owner;
use super::engine::Engines;
use super::time_wait::TimeWaits;
use crate::ifnet::{DropReason, Family, IfIndex};
use crate::ip::header::Endpoints;
use crate::ip::header::{Addressee, Header, IPV6_HEADER, proto};
use crate::ip::output::Path;
use crate::ip::{Budget, Ip, Received, Verdict, checksum};
use crate::packet::Packet;

/// Most packets that one connection sends before another gets its turn.
const BURST: usize = 16;
/// In TIME-WAIT, only the wait itself lasts longer; an ACK that is still owed is due sooner.
const OWES_NOTHING: Duration = Duration::from_secs(1);

/// Number of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FlowId {
    key: u32,
    /// Tells it from a later one with the same key.
    serial: u32,
}

/// Number of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ListenerId(u32);

/// Who has a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    /// Its listener, until the handshake is done.
    Embryo(ListenerId),
    /// Its listener, until it is accepted.
    Queued(ListenerId),
    /// A program.
    Owner(Owner),
    /// Nobody: it ends by itself.
    Orphan,
}

struct Flow {
    serial: u32,
    endpoints: Endpoints,
    set: SocketSet<'static>,
    socket: SocketHandle,
    holder: Holder,
    terms: Terms,
    /// The way to the other end, and the routing table's generation it is from.
    path: Option<(u64, Path)>,
    /// The mtu in use: that of the path's interface, or less if a router said so.
    mtu: u16,
    /// When its entry in the heap of timers is due.
    armed: Option<Duration>,
    /// For answering what could be forged.
    challenge: Challenge,
    /// How long it is still waited for.
    patience: Patience,
    /// Whether it stands in the ready list.
    ready: bool,
    /// The interface among whose blocked ones it stands.
    blocked: Option<IfIndex>,
    /// Whether an event about it waits to be taken.
    told: bool,
    /// Bytes of buffers.
    memory: usize,
    /// Why it ended, if not as it should.
    error: Option<Errno>,
    /// One past the highest sequence number that was sent: `SND.NXT`, which smoltcp sets back.
    snd_nxt: Option<TcpSeqNumber>,
    /// The last acknowledgment that was sent: `RCV.NXT`, or less while an ACK is delayed.
    rcv_nxt: Option<TcpSeqNumber>,
    /// The last acknowledgment that was taken from repeated data.
    rescued: Option<TcpSeqNumber>,
}

struct Listener {
    owner: Owner,
    local: Option<IpAddr>,
    port: u16,
    backlog: usize,
    terms: Terms,
    /// Handshakes under way, oldest first.
    embryos: VecDeque<(Duration, FlowId)>,
    /// Connections to accept, oldest first.
    queue: VecDeque<FlowId>,
    told: bool,
}

/// Something happened that an owner wants to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TcpEvent {
    /// A listener has connections to accept.
    Acceptable(ListenerId, Owner),
    /// A connection may have become readable, writable, or have ended.
    Changed(FlowId, Owner),
}

enum Pending {
    Listener(ListenerId),
    Flow(FlowId),
}

/// Every connection and listener.
pub(crate) struct Tcp {
    flows: Slab<Flow>,
    by_endpoints: HashMap<Endpoints, FlowId, ahash::RandomState>,
    listeners: Slab<Listener>,
    by_local: HashMap<(Option<IpAddr>, u16), ListenerId, ahash::RandomState>,
    /// How many listeners each port has; none is not kept.
    ports: HashMap<u16, usize, ahash::RandomState>,
    timers: BinaryHeap<Reverse<(Duration, FlowId)>>,
    /// When to look whether a connection is to be given up; at most one entry for each.
    deadlines: BTreeSet<(Duration, FlowId)>,
    ready: VecDeque<FlowId>,
    /// Connections that wait for room in an interface's send queue.
    blocked: HashMap<IfIndex, VecDeque<FlowId>, ahash::RandomState>,
    /// The routing table's generation when they were last looked at.
    generation: u64,
    events: VecDeque<Pending>,
    waits: TimeWaits,
    /// Closed sockets with the largest buffers.
    spare: Vec<(SocketSet<'static>, SocketHandle)>,
    memory: usize,
    serial: u32,
    /// Keyed for initial sequence numbers.
    secret: SipHasher13,
    engines: Engines,
    /// Kept from call to call, to be filled anew.
    scratch: Vec<Packet>,
}

impl Tcp {
    pub(crate) fn new(hasher: ahash::RandomState, secret: [u64; 2]) -> Self {
        Self {
            flows: Slab::new(),
            by_endpoints: HashMap::with_hasher(hasher.clone()),
            listeners: Slab::new(),
            by_local: HashMap::with_hasher(hasher.clone()),
            ports: HashMap::with_hasher(hasher.clone()),
            timers: BinaryHeap::new(),
            deadlines: BTreeSet::new(),
            ready: VecDeque::new(),
            blocked: HashMap::with_hasher(hasher.clone()),
            generation: 0,
            events: VecDeque::new(),
            waits: TimeWaits::new(hasher),
            spare: Vec::new(),
            memory: 0,
            serial: 0,
            secret: SipHasher13::new_with_keys(secret[0], secret[1]),
            engines: Engines::default(),
            scratch: Vec::new(),
        }
    }

    /// Whether there is such a connection.
    pub(crate) fn knows(&self, endpoints: &Endpoints) -> bool {
        self.by_endpoints.contains_key(endpoints)
    }

    /// Whether connections have something to send, or owners something to hear.
    pub(crate) fn has_work(&self) -> bool {
        !self.ready.is_empty() || !self.events.is_empty()
    }

    /// When a timer is due.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        timer.into_iter().chain(deadline).min()
    }

    /// The next thing that an owner should hear.
    pub(crate) fn poll_event(&mut self) -> Option<TcpEvent> {
        loop {
            match self.events.pop_front()? {
                Pending::Listener(id) => {
                    if let Some(listener) = self.listeners.get_mut(id.0 as usize) {
                        listener.told = false;
                        return Some(TcpEvent::Acceptable(id, listener.owner));
                    }
                }
                Pending::Flow(id) => {
                    if let Some(flow) = self.flow_mut(id) {
                        flow.told = false;
                        if let Holder::Owner(owner) = flow.holder {
                            return Some(TcpEvent::Changed(id, owner));
                        }
                    }
                }
            }
        }
    }

    /// The socket of a connection.
    pub(crate) fn socket(&mut self, id: FlowId) -> Option<&mut Socket<'static>> {
        let flow = self.flow_mut(id)?;
        Some(flow.set.get_mut::<Socket<'static>>(flow.socket))
    }

    /// Both ends of a connection, ours first.
    pub(crate) fn endpoints(&self, id: FlowId) -> Option<((IpAddr, u16), (IpAddr, u16))> {
        let Endpoints { local, remote } = self.flow(id)?.endpoints;
        Some((local, remote))
    }

    /// Our end of a connection.
    pub(crate) fn local(&self, id: FlowId) -> Option<(IpAddr, u16)> {
        Some(self.flow(id)?.endpoints.local)
    }

    /// Gives a connection to somebody else.
    pub(crate) fn set_owner(&mut self, id: FlowId, owner: Owner) {
        if let Some(flow) = self.flow_mut(id) {
            flow.holder = Holder::Owner(owner);
        }
        self.tell(id);
    }

    /// The program knows why its connection ended.
    pub(crate) fn clear_error(&mut self, id: FlowId) {
        if let Some(flow) = self.flow_mut(id) {
            flow.error = None;
        }
    }

    /// Why a connection ended, if not as it should.
    pub(crate) fn error(&self, id: FlowId) -> Option<Errno> {
        self.flow(id)?.error
    }

    fn flow(&self, id: FlowId) -> Option<&Flow> {
        let flow = self.flows.get(id.key as usize)?;
        (flow.serial == id.serial).then_some(flow)
    }

    fn flow_mut(&mut self, id: FlowId) -> Option<&mut Flow> {
        let flow = self.flows.get_mut(id.key as usize)?;
        (flow.serial == id.serial).then_some(flow)
    }

    fn tell(&mut self, id: FlowId) {
        if let Some(flow) = self.flow_mut(id)
            && matches!(flow.holder, Holder::Owner(_))
            && !std::mem::replace(&mut flow.told, true)
        {
            self.events.push_back(Pending::Flow(id));
        }
    }

    fn make_ready(&mut self, id: FlowId) {
        if let Some(flow) = self.flow_mut(id)
            && !std::mem::replace(&mut flow.ready, true)
        {
            self.ready.push_back(id);
        }
    }
}

impl Flow {
    /// Fills in the checksum of a packet that the socket sends, and learns from it.
    fn note(&mut self, packet: &mut [u8]) {
        let (src, dst) = (self.endpoints.local.0, self.endpoints.remote.0);
        let segment = packet.get_mut(self.endpoints.ip_header()..);
        let Ok(mut tcp) = TcpPacket::new_checked(segment.unwrap_or_default()) else {
            return;
        };
        tcp.set_checksum(0);
        let sum = checksum::fill(&src, &dst, proto::TCP, tcp.as_ref());
        tcp.set_checksum(sum);
        if tcp.rst() {
            return;
        }
        let end = tcp.seq_number() + tcp.segment_len();
        if self.snd_nxt.is_none_or(|snd_nxt| snd_nxt < end) {
            self.snd_nxt = Some(end);
        }
        if tcp.ack() {
            self.rcv_nxt = Some(tcp.ack_number());
            self.challenge.window = tcp.window_len();
            self.challenge.unacked = 0;
        }
    }
}

/// What the initial sequence number of a connection follows from (RFC 6528 section 3): nobody who
/// sees those of other connections, or of other times, can tell.
fn chance(mut secret: SipHasher13, endpoints: &Endpoints, draw: usize, now: Duration) -> u64 {
    (endpoints, draw, now.as_micros() / 4).hash(&mut secret);
    secret.finish()
}

/// A packet as smoltcp wants it: this segment right behind the header.
fn plain(header: &Header, packet: &[u8], segment: &[u8]) -> Packet {
    let at = match header.dst {
        IpAddr::V4(_) => header.payload,
        IpAddr::V6(_) => IPV6_HEADER,
    };
    let mut plain = Packet::concat(&packet[..at], segment);
    let (field, len) = match header.dst {
        IpAddr::V4(_) => (2, plain.len()),
        IpAddr::V6(_) => {
            plain[6] = proto::TCP;
            (4, segment.len())
        }
    };
    plain[field..field + 2].copy_from_slice(&(len as u16).to_be_bytes());
    plain
}

/// What of a segment decides where it goes.
#[derive(Clone, Copy)]
struct Segment {
    syn: bool,
    ack: bool,
    rst: bool,
}

impl Tcp {
    /// A segment came.
    pub(crate) fn input(&mut self, ip: &mut Ip, received: Received) -> Verdict {
        let Received {
            rcvif,
            header,
            packet,
        } = received;
        let Ok(tcp) = TcpPacket::new_checked(&packet[header.payload..]) else {
            return Verdict::Dropped(DropReason::Malformed);
        };
        // Neither end can be many, or nobody.
        if header.addressee != Addressee::Host || header.src.is_unspecified() {
            return Verdict::Dropped(DropReason::NotWanted);
        }
        if tcp.src_port() == 0 || tcp.dst_port() == 0 {
            return Verdict::Dropped(DropReason::Malformed);
        }
        let endpoints = Endpoints {
            local: (header.dst, tcp.dst_port()),
            remote: (header.src, tcp.src_port()),
        };
        let segment = Segment {
            syn: tcp.syn(),
            ack: tcp.ack(),
            rst: tcp.rst(),
        };
        let new = segment.syn && !segment.ack && !segment.rst;
        let mut flow = self.by_endpoints.get(&endpoints).copied();
        if let Some(id) = flow
            && new
            && let Some(socket) = self.socket(id)
            && matches!(socket.state(), State::TimeWait | State::Closed)
        {
            // The old connection is over; its last wait must not refuse a new one (RFC 6191).
            match self.flow(id).map(|flow| flow.holder) {
                Some(Holder::Owner(_)) => {
                    self.by_endpoints.remove(&endpoints);
                }
                _ => self.remove(id),
            }
            flow = None;
        }
        let id = match flow {
            Some(id) => id,
            None if new => match self.open(ip, &endpoints) {
                Ok(id) => id,
                Err(reason) => {
                    if reason == DropReason::NoPort {
                        self.refuse(ip, rcvif, &header, &packet);
                    }
                    return Verdict::Dropped(reason);
                }
            },
            None if self.late(ip, rcvif, &endpoints, &header, &packet) => {
                return Verdict::Delivered;
            }
            None => {
                if !segment.rst {
                    self.refuse(ip, rcvif, &header, &packet);
                }
                return Verdict::Dropped(DropReason::NoPort);
            }
        };
        if let Some(verdict) = self.challenge(ip, id, &packet[header.payload..]) {
            return verdict;
        }
        let tail = &packet[header.payload..];
        let known = self.flow(id).and_then(|flow| flow.rcv_nxt);
        // IPv6 may have more headers in between, which smoltcp need not see again.
        if header.dst.is_ipv4() || header.payload == IPV6_HEADER {
            self.drive(ip, id, Some((&packet, segment.rst)));
        } else {
            let packet = plain(&header, &packet, tail);
            self.drive(ip, id, Some((&packet, segment.rst)));
        }
        // Now that repeated data has been answered, what was acknowledged last is known.
        if let Some(flow) = self.flow_mut(id)
            && let Some(known) = known
            && let Some(ack) = flow.rescue_ack(tail, known)
        {
            let packet = plain(&header, &packet, &ack);
            self.drive(ip, id, Some((&packet, false)));
        }
        Verdict::Delivered
    }

    /// Says that a connection has something new to send or has room again.
    pub(crate) fn touch(&mut self, id: FlowId) {
        self.make_ready(id);
    }

    /// Nobody holds the connection any more. What is queued is still sent.
    pub(crate) fn close(&mut self, ip: &mut Ip, id: FlowId) {
        let Some(flow) = self.flow_mut(id) else {
            return;
        };
        flow.holder = Holder::Orphan;
        let socket = flow.set.get_mut::<Socket<'static>>(flow.socket);
        // Who closes without reading what came tells the other end that it is lost (RFC 1122
        // section 4.2.2.13).
        if socket.recv_queue() > 0 {
            socket.abort();
        } else {
            socket.close();
        }
        self.renew(ip, id);
        self.make_ready(id);
    }

    /// Runs timers that are due and connections that have something to send, as many as the budget
    /// allows.
    #[inline(never)]
    pub(crate) fn run(&mut self, ip: &mut Ip, budget: Budget) {
        let now = ip.now.monotonic;
        self.waits.expire(now);
        self.expire(ip);
        while let Some(&Reverse((at, id))) = self.timers.peek() {
            if at > now {
                break;
            }
            self.timers.pop();
            if let Some(flow) = self.flow_mut(id)
                && flow.armed == Some(at)
            {
                flow.armed = None;
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
                self.drive(ip, id, None);
            }
        }
    }

    /// Lets a connection process a packet, if one came, and send what it has to.
    fn drive(&mut self, ip: &mut Ip, id: FlowId, received: Option<(&[u8], bool)>) {
        let Some(path) = self.path(ip, id) else {
            return;
        };
        let now = self.smoltcp_now(ip);
        let mut sent = std::mem::take(&mut self.scratch);
        let Some(flow) = self.flows.get_mut(id.key as usize) else {
            return;
        };
        let mtu = flow.mtu;
        let before = flow.set.get::<Socket<'static>>(flow.socket).state();
        let standing = flow.standing();
        if let Some((packet, _)) = received {
            if before == State::Listen {
                let chance = chance(self.secret, &flow.endpoints, 0, ip.now.monotonic);
                self.engines.seed(mtu, now, chance);
            }
            self.engines
                .receive(mtu, now, &mut flow.set, packet, &mut sent);
            flow.heard(standing, ip.now.monotonic);
            flow.note_received(standing);
            self.output(ip, id, path, &mut sent);
        }
        let mut burst = BURST;
        let mut blocked = false;
        let more = loop {
            if burst == 0 {
                break true;
            }
            blocked = path.is_some_and(|path| !self.has_room(ip, path.dev));
            if blocked {
                break false;
            }
            let Some(flow) = self.flows.get_mut(id.key as usize) else {
                break false;
            };
            if !self.engines.transmit(mtu, now, &mut flow.set, &mut sent) {
                break false;
            }
            self.output(ip, id, path, &mut sent);
            burst -= 1;
        };
        sent.clear();
        self.scratch = sent;
        let reset = received.is_some_and(|(_, reset)| reset);
        self.follow(id, before, reset);
        self.note_deadline(ip, id);
        if more {
            self.make_ready(id);
        } else if blocked {
            self.block(id, path);
        } else {
            self.arm(ip, id, mtu, now);
            self.pass_on(ip, path);
        }
    }

    fn output(&mut self, ip: &mut Ip, id: FlowId, path: Option<Path>, sent: &mut Vec<Packet>) {
        for mut packet in sent.drain(..) {
            let Some(flow) = self.flow_mut(id) else {
                continue;
            };
            flow.note(&mut packet);
            if let Some(path) = path {
                let family = Family::of(&path.next_hop);
                // What finds the queue full is counted there, and sent again in time.
                let _ = ip.if_output(path.dev, family, packet, path.next_hop);
            }
        }
    }

    /// After a connection moved: where does it stand now, and who should hear?
    fn follow(&mut self, id: FlowId, before: State, reset: bool) {
        let Some(flow) = self.flow_mut(id) else {
            return;
        };
        let socket = flow.set.get_mut::<Socket<'static>>(flow.socket);
        let state = socket.state();
        let over = state == State::Closed && socket.remote_endpoint().is_none();
        if over && before != State::Closed && flow.error.is_none() {
            flow.error = match (before, reset) {
                (State::SynSent, true) => Some(errno::ECONNREFUSED),
                (State::LastAck | State::TimeWait | State::Closing, _) => None,
                (_, true) => Some(errno::ECONNRESET),
                (_, false) => Some(errno::ETIMEDOUT),
            };
        }
        match flow.holder {
            Holder::Embryo(listener_id) => match state {
                State::SynReceived => {}
                // A reset, or a segment that was no SYN after all.
                State::Listen | State::Closed | State::SynSent => self.remove(id),
                _ => {
                    flow.holder = Holder::Queued(listener_id);
                    if let Some(listener) = self.listeners.get_mut(listener_id.0 as usize) {
                        listener.embryos.retain(|&(_, embryo)| embryo != id);
                        listener.queue.push_back(id);
                    }
                    self.tell_listener(listener_id);
                }
            },
            // It stays until it is accepted, so that the program hears what became of it.
            Holder::Queued(_) => {}
            Holder::Owner(_) => {
                self.tell(id);
            }
            Holder::Orphan => {
                if over || state == State::Listen {
                    self.remove(id);
                }
            }
        }
    }

    /// Notes when a connection wants to be polled again.
    fn arm(&mut self, ip: &mut Ip, id: FlowId, mtu: u16, now: Instant) {
        let Some(flow) = self.flows.get_mut(id.key as usize) else {
            return;
        };
        if flow.serial != id.serial {
            return;
        }
        let Some(at) = self.engines.poll_at(mtu, now, &flow.set) else {
            return;
        };
        let at = Duration::from_micros(u64::try_from(at.total_micros()).unwrap_or(0));
        // "At once" after it said that it has nothing to send: a state it cannot leave by itself.
        let at = at.max(ip.now.monotonic + Duration::from_millis(1));
        let state = flow.set.get::<Socket<'static>>(flow.socket).state();
        if flow.holder == Holder::Orphan
            && state == State::TimeWait
            && at > ip.now.monotonic + OWES_NOTHING
        {
            self.wait(id, at);
            return;
        }
        if flow.armed.is_none_or(|armed| at < armed) {
            flow.armed = Some(at);
            self.timers.push(Reverse((at, id)));
        }
    }

    fn smoltcp_now(&self, ip: &mut Ip) -> Instant {
        Instant::from_micros(i64::try_from(ip.now.monotonic.as_micros()).unwrap_or(i64::MAX))
    }
}

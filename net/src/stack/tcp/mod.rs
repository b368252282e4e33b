//! TCP: [connections](connection), and around them what a host needs.
//!
//! A [`connection`] is a state machine without IO. Here it gets what it does not know: addresses and a
//! way to them, a holder, a timer, and a turn.
//!
//! - [`listeners`]: handshakes under way, [`cookies`] when there are too many, and connections that
//!   wait to be accepted; [`connect`]: those that begin here;
//! - [`flows`]: connections as they come and go, and the memory they take;
//! - [`drive`]: their turns; [`blocked`]: those that wait for room in a send queue;
//! - [`list`]: what a listing shows of them;
//! - [`path`]: the way to the other end, and what is said about it;
//! - [`answers`]: segments that no connection sees; `time_wait`: what is left of one that is over;
//! - [`terms`]: what a program asks of its connections.

mod answers;
mod blocked;
mod connect;
pub(crate) mod connection;
mod cookies;
mod drive;
mod flows;
mod list;
mod listeners;
mod path;
mod secret;
mod terms;
mod time_wait;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use scheme::errno::Errno;
use slab::Slab;

pub(crate) use self::connection::Connection;
use self::connection::{Counters, Flags, Segment, SeqNumber, TIME_WAIT};
pub(crate) use self::connection::{State, Stats as ConnectionStats};
use self::cookies::Cookies;
pub(crate) use self::flows::TcpStats;
pub(crate) use self::list::TcpPlace;
use self::secret::Secret;
pub(crate) use self::terms::{Buffers, Terms};
use self::time_wait::TimeWaits;
use super::Owner;
use super::ports::Ports;
use crate::ifnet::{DropReason, IfIndex};
use crate::ip::header::{Addressee, Endpoints};
use crate::ip::output::Path;
use crate::ip::{Ip, Received, Verdict};
use crate::seed::{Purpose, Seed};
use crate::timers::{Timer, Timers};

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

/// A connection and what surrounds it.
#[derive(Debug)]
struct Flow {
    serial: u32,
    endpoints: Endpoints,
    connection: Connection,
    holder: Holder,
    /// The user of it. Until a connection that somebody else began is accepted, it is a stranger's.
    uid: u32,
    terms: Terms,
    /// Whether it counts among those that [users began](Tcp::begun) from ephemeral ports.
    begun: bool,
    /// The way to the other end, and the routing table's generation it is from.
    path: Option<(u64, Path)>,
    proof: Proof,
    timer: Timer,
    /// Whether it stands in the ready list.
    ready: bool,
    /// The interface among whose blocked ones it stands.
    blocked: Option<IfIndex>,
    /// Whether an event about it waits to be taken.
    told: bool,
    /// When it last made progress, for one that is not kept for ever without.
    progress: Duration,
    /// Bytes of it that are counted.
    memory: usize,
    /// What of its counters is in those of the host.
    counted: Counters,
    /// Why it ended, if not as it should, and nobody has been told of it yet.
    error: Option<Errno>,
}

/// What will show next that the first hop of a connection is there (RFC 4861 section 7.3.1).
#[derive(Clone, Copy, Debug)]
struct Proof {
    /// Not before this time; never, if the first hop needs no proof.
    from: Duration,
    /// An acknowledgment beyond this: so much was sent over other hops, or was proof already.
    beyond: SeqNumber,
}

/// A port that strangers may connect to.
#[derive(Debug)]
struct Listener {
    owner: Owner,
    /// The user of it.
    uid: u32,
    /// Its address; an unspecified one for all of that family.
    local: IpAddr,
    port: u16,
    backlog: usize,
    terms: Terms,
    /// Handshakes under way.
    embryos: BTreeSet<FlowId>,
    /// Connections to accept, oldest first.
    queue: VecDeque<FlowId>,
    told: bool,
}

/// The user of connections that nobody here has accepted yet, and of those of the small services: not
/// the superuser.
pub(crate) const STRANGER: u32 = u32::MAX;
/// The user of those that a program of the superuser has not accepted yet.
const GUEST: u32 = u32::MAX - 1;

/// Something happened that an owner wants to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TcpEvent {
    /// A listener has connections to accept.
    Acceptable(ListenerId, Owner),
    /// A connection may have become readable, writable, or have ended.
    Changed(FlowId, Owner),
}

#[derive(Debug)]
enum Pending {
    Listener(ListenerId),
    Flow(FlowId),
}

/// Every connection and listener.
#[derive(Debug)]
pub(crate) struct Tcp {
    /// Each for itself, so that memory comes and goes with each.
    flows: Slab<Box<Flow>>,
    by_endpoints: HashMap<Endpoints, FlowId, ahash::RandomState>,
    listeners: Slab<Listener>,
    by_local: HashMap<(IpAddr, u16), ListenerId, ahash::RandomState>,
    /// The ports that are listened on.
    ports: Ports,
    /// How many connections users began from ephemeral ports, by their ends without the port; none is
    /// not kept.
    begun: HashMap<Endpoints, usize, ahash::RandomState>,
    timers: Timers<FlowId>,
    ready: VecDeque<FlowId>,
    /// Connections that wait for room in an interface's send queue.
    blocked: HashMap<IfIndex, VecDeque<FlowId>, ahash::RandomState>,
    /// The routing table's generation when they were last looked at.
    generation: u64,
    events: VecDeque<Pending>,
    /// First hops that are there. As many as segments of one turn, at most.
    proven: Vec<(IfIndex, IpAddr)>,
    waits: TimeWaits,
    cookies: Cookies,
    secret: Secret,
    /// Handshakes under way at all listeners.
    embryos: usize,
    /// Bytes that connections take.
    memory: usize,
    serial: u32,
    stats: TcpStats,
}

impl Tcp {
    /// No connections. What nobody must guess follows from `seed`.
    pub(crate) fn new(seed: &Seed) -> Self {
        let hasher = seed.tables(Purpose::TcpTables);
        Self {
            flows: Slab::new(),
            by_endpoints: HashMap::with_hasher(hasher.clone()),
            listeners: Slab::new(),
            by_local: HashMap::with_hasher(hasher.clone()),
            ports: Ports::new(hasher.clone()),
            begun: HashMap::with_hasher(hasher.clone()),
            timers: Timers::default(),
            ready: VecDeque::new(),
            blocked: HashMap::with_hasher(hasher.clone()),
            generation: 0,
            events: VecDeque::new(),
            proven: Vec::new(),
            waits: TimeWaits::new(hasher),
            cookies: Cookies::default(),
            secret: Secret::new(seed),
            embryos: 0,
            memory: 0,
            serial: 0,
            stats: TcpStats::default(),
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
        self.timers.deadline()
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

    /// A connection, to be looked at.
    pub(crate) fn connection(&self, id: FlowId) -> Option<&Connection> {
        Some(&self.flow(id)?.connection)
    }

    /// Lets a program do something to its connection, which gets a turn for what follows from that.
    pub(crate) fn with<T>(
        &mut self,
        id: FlowId,
        change: impl FnOnce(&mut Connection) -> T,
    ) -> Option<T> {
        let result = change(&mut self.flow_mut(id)?.connection);
        self.make_ready(id);
        Some(result)
    }

    /// Moves bytes of a connection, which gets a turn if that moved any. Returns how many it were.
    pub(crate) fn pump(
        &mut self,
        id: FlowId,
        pump: impl FnOnce(&mut Connection) -> usize,
    ) -> Option<usize> {
        let moved = pump(&mut self.flow_mut(id)?.connection);
        if moved > 0 {
            self.make_ready(id);
        }
        Some(moved)
    }

    /// Both ends of a connection, ours first.
    pub(crate) fn endpoints(&self, id: FlowId) -> Option<((IpAddr, u16), (IpAddr, u16))> {
        let Endpoints { local, remote, .. } = self.flow(id)?.endpoints;
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

    /// A segment came.
    pub(crate) fn input(&mut self, ip: &mut Ip, received: Received) -> Verdict {
        let Received { rcvif, header, .. } = received;
        let Some(mut segment) = Segment::parse(received.payload()) else {
            return Verdict::Dropped(DropReason::Malformed);
        };
        // Neither end can be many, or nobody.
        if header.addressee != Addressee::Host || header.src.is_unspecified() {
            return Verdict::Dropped(DropReason::NotWanted);
        }
        if segment.src_port == 0 || segment.dst_port == 0 {
            return Verdict::Dropped(DropReason::Malformed);
        }
        let (local, remote) = (
            (header.dst, segment.dst_port),
            (header.src, segment.src_port),
        );
        let endpoints = ip.endpoints(local, remote, rcvif);
        let now = ip.now.monotonic;
        if let Some(id) = self.current(&endpoints, &segment, now) {
            let room = self.room_to_receive(id);
            if room < segment.payload.len() {
                if room == 0 {
                    // It comes again, and until then what there is may have been read.
                    return Verdict::Dropped(DropReason::NoMemory);
                }
                segment.payload = &segment.payload[..room];
                segment.flags = segment.flags.without(Flags::FIN);
            }
            if let Some(flow) = self.flow_mut(id) {
                flow.connection.handle_segment(&segment, now);
                flow.progress = now;
                if flow.proof.from <= now {
                    self.prove(id, now);
                }
            }
            self.drive(ip, id);
            return Verdict::Delivered;
        }
        self.input_without(ip, rcvif, &endpoints, &segment)
    }

    /// The connection that a segment is for. One that is over has to make room for a new one (RFC
    /// 6191), which its last wait must not refuse.
    fn current(
        &mut self,
        endpoints: &Endpoints,
        segment: &Segment<'_>,
        now: Duration,
    ) -> Option<FlowId> {
        let id = *self.by_endpoints.get(endpoints)?;
        if !segment.is_first_syn() {
            return Some(id);
        }
        let flow = self.flow(id)?;
        let over = match flow.connection.time_wait() {
            Some(wait) => wait.admits(segment),
            None => flow.connection.state() == State::Closed,
        };
        if !over {
            return Some(id);
        }
        let wait = flow.connection.time_wait();
        match flow.holder {
            Holder::Owner(_) => {
                self.by_endpoints.remove(endpoints);
            }
            _ => self.remove(id),
        }
        if let Some(wait) = wait {
            // Its numbers are what the new one must begin above.
            self.waits.insert(*endpoints, wait, now + TIME_WAIT);
        }
        None
    }

    /// A segment came that is for no connection.
    #[inline(never)]
    fn input_without(
        &mut self,
        ip: &mut Ip,
        rcvif: IfIndex,
        endpoints: &Endpoints,
        segment: &Segment<'_>,
    ) -> Verdict {
        let old = self.waits.get(endpoints, ip.now.monotonic);
        if let Some(wait) = old
            && !wait.admits(segment)
        {
            self.answer_late(ip, rcvif, endpoints, wait, segment);
            return Verdict::Delivered;
        }
        let taken = match self.listener_for(&endpoints.local.0, endpoints.local.1) {
            Some(listener) => self.open(ip, rcvif, listener, endpoints, segment),
            None => Err(DropReason::NoPort),
        };
        if taken == Err(DropReason::NoPort) {
            self.refuse(ip, rcvif, endpoints, segment);
        }
        taken.map_or_else(Verdict::Dropped, |()| Verdict::Delivered)
    }
}

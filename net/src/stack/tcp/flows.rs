//! Connections as they come and go, and the memory they take.

use std::fmt::Write;
use std::time::Duration;

use super::connection::{Buffer, Config, Connection, Counters, LARGEST, SeqNumber};
use super::{Flow, FlowId, GUEST, Holder, Proof, State, Tcp, Terms};
use crate::ifnet::IPV6_MINMTU;
use crate::ip::Ip;
use crate::ip::header::Endpoints;
use crate::ip::output::Path;
use crate::stack::ports::{EPHEMERAL, count_down, most_ports};
use crate::timers::Timer;

/// Bytes of memory that all connections may take. With more, no further ones are begun, and no data
/// is taken from programs or the network.
pub(super) const MEMORY: usize = 512 << 20;
/// Of these, how many are reserved for connections of the superuser; the first half, also for those that
/// strangers begin with a program of the superuser.
pub(super) const RESERVED: usize = 64 << 20;
/// Of what connections may take, how much is for further ones: data stops short of it, or a few that
/// nobody reads would keep everybody from beginning any.
const CONNECTIONS: usize = 64 << 20;
/// Bytes that a connection may have each way whatever the others take, so that it gets on.
pub(super) const LEAST: usize = 4 << 10;
/// With more than this, buffers stop growing.
const PRESSURE: usize = MEMORY / 4 * 3;
/// Bytes that a connection is charged besides its own.
const OVERHEAD: usize = size_of::<Flow>() - size_of::<Connection>() + 128;
/// Most connections.
pub(super) const MAX_FLOWS: usize = 65_536;
/// Of these, how many are reserved in the same way.
pub(super) const RESERVED_FLOWS: usize = 4096;

/// Bytes that all connections may take before one of `uid` may not begin.
const fn most(uid: u32) -> usize {
    match uid {
        0 => MEMORY,
        GUEST => MEMORY - RESERVED / 2,
        _ => MEMORY - RESERVED,
    }
}

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

    /// What a connection is made with, whose way begins with this path, if there is one.
    pub(super) fn config(
        &self,
        ip: &Ip,
        endpoints: &Endpoints,
        path: Option<&Path>,
        terms: &Terms,
    ) -> Config {
        let remote = &endpoints.remote.0;
        let ifp = path.and_then(|path| ip.ifs.get(path.dev));
        let buffer = |asked: Option<usize>| match asked {
            Some(size) => Buffer::Fixed(size as u32),
            None => Buffer::Auto(LARGEST),
        };
        Config {
            local_port: endpoints.local.1,
            remote_port: endpoints.remote.1,
            v6: remote.is_ipv6(),
            mtu: ip.path_mtu(remote, path.map_or(IPV6_MINMTU, |path| path.mtu)),
            send_buffer: buffer(terms.buffers.send),
            receive_buffer: buffer(terms.buffers.receive),
            rx_ring: ifp.and_then(|ifp| ifp.rx_ring),
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

    /// Whether a connection of `uid` may begin, so far as memory goes.
    pub(super) fn has_memory(&self, uid: u32) -> bool {
        self.memory < most(uid)
    }

    /// Bytes that a connection may take in from its program now, for the sake of memory.
    pub(crate) fn room_to_send(&self, id: FlowId) -> usize {
        self.flow(id).map_or(0, |flow| {
            self.memory_for(flow.uid, flow.connection.send_queue())
        })
    }

    /// Bytes that a connection may take in from the network now, likewise.
    pub(super) fn room_to_receive(&self, id: FlowId) -> usize {
        self.flow(id).map_or(0, |flow| {
            self.memory_for(flow.uid, flow.connection.receive_memory())
        })
    }

    fn memory_for(&self, uid: u32, held: usize) -> usize {
        match self.memory < most(uid) - CONNECTIONS {
            true => usize::MAX,
            false => LEAST.saturating_sub(held),
        }
    }

    /// Adds a connection of `uid`. `None` if there are too many, or they take too much.
    pub(super) fn insert(
        &mut self,
        endpoints: Endpoints,
        connection: Connection,
        holder: Holder,
        uid: u32,
        terms: Terms,
        now: Duration,
    ) -> Option<FlowId> {
        let most = match uid {
            0 => MAX_FLOWS,
            GUEST => MAX_FLOWS - RESERVED_FLOWS / 2,
            _ => MAX_FLOWS - RESERVED_FLOWS,
        };
        if self.flows.len() >= most || !self.has_memory(uid) {
            return None;
        }
        let begun = uid != 0
            && matches!(holder, Holder::Owner(_))
            && EPHEMERAL.contains(&endpoints.local.1);
        if begun {
            *self.begun.entry(any_port(endpoints)).or_default() += 1;
        }
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial;
        let key = self.flows.insert(Box::new(Flow {
            serial,
            endpoints,
            connection,
            holder,
            uid,
            terms,
            begun,
            path: None,
            proof: Proof::NONE,
            timer: Timer::default(),
            ready: false,
            blocked: None,
            told: false,
            progress: now,
            memory: 0,
            counted: Counters::default(),
            error: None,
        })) as u32;
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

    /// Whether a user may begin another connection from an ephemeral port: to each destination the
    /// last ports are the superuser's.
    pub(super) fn may_begin(&self, endpoints: &Endpoints, uid: u32) -> bool {
        let begun = self.begun.get(&any_port(*endpoints));
        uid == 0 || begun.is_none_or(|&begun| begun < most_ports(uid))
    }

    pub(super) fn remove(&mut self, id: FlowId) {
        if self.flow(id).is_none() {
            return;
        }
        let mut flow = self.flows.remove(id.key as usize);
        if flow.begun {
            count_down(&mut self.begun, any_port(flow.endpoints));
        }
        self.timers.disarm(&mut flow.timer, id);
        self.memory -= flow.memory;
        if self.by_endpoints.get(&flow.endpoints) == Some(&id) {
            self.by_endpoints.remove(&flow.endpoints);
        }
        match flow.holder {
            Holder::Embryo(listener) => self.embryo_ended(listener, id),
            Holder::Queued(listener) => {
                if let Some(listener) = self.listeners.get_mut(listener.0 as usize) {
                    listener.queue.retain(|&queued| queued != id);
                }
            }
            Holder::Owner(_) | Holder::Orphan => {}
        }
    }
}

/// The ends of a connection, whichever port it has here.
fn any_port(endpoints: Endpoints) -> Endpoints {
    Endpoints {
        local: (endpoints.local.0, 0),
        ..endpoints
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::answers::fill_checksum;
    use super::super::connection::Flags;
    use super::super::listeners::MAX_EMBRYOS;
    use super::*;
    use crate::ifnet::{DropReason, IfIndex};
    use crate::ip::testing::{self, HOST, PEER, connected, sent};
    use crate::ip::{Delivery, Verdict};
    use crate::packet::Packet;
    use crate::seed::Seed;
    use crate::stack::Owner;

    const USER: u32 = 1000;

    struct System {
        ip: Ip,
        dev: IfIndex,
        tcp: Tcp,
    }

    impl System {
        fn new() -> Self {
            let (ip, dev) = connected();
            let tcp = Tcp::new(&Seed::from(1));
            Self { ip, dev, tcp }
        }

        /// A segment from a port of `PEER` to port 80 of ours.
        fn arrive(&mut self, port: u16, flags: Flags, numbers: [u32; 2], data: &[u8]) -> Verdict {
            let endpoints = Endpoints {
                local: (PEER.into(), port),
                remote: (HOST.into(), 80),
                link: None,
            };
            let [seq, ack] = numbers.map(u32::to_be_bytes);
            let ports = [port.to_be_bytes(), 80_u16.to_be_bytes()].concat();
            let rest = [0x50, flags.0, 0xff, 0xff, 0, 0, 0, 0];
            let mut segment = Packet::gather(&[&ports[..], &seq[..], &ack[..], &rest[..], data]);
            fill_checksum(&endpoints, &mut segment);
            let packet = testing::ipv4(PEER, HOST, 6, &segment);
            let tcp = &mut self.tcp;
            testing::receive(
                &mut self.ip,
                self.dev,
                packet,
                |ip, delivery| match delivery {
                    Delivery::Tcp(received) => tcp.input(ip, received),
                    other => panic!("{other:?}"),
                },
            )
        }

        /// A connection from port 4000 to port 80, whose peer's text begins at 8, and our initial
        /// number.
        fn accepted(&mut self) -> (FlowId, u32) {
            let listener = self.tcp.listen(HOST.into(), 80, 128, Owner(2), USER);
            let _ = self.arrive(4000, Flags::SYN, [7, 0], b"");
            let answer = &sent(&mut self.ip, self.dev)[0];
            let iss = u32::from_be_bytes(*answer[24..].first_chunk().unwrap());
            let _ = self.arrive(4000, Flags::ACK, [8, iss + 1], b"");
            (self.tcp.accept(listener.unwrap()).unwrap(), iss)
        }

        fn connect(&mut self, port: u16, uid: u32) -> Option<FlowId> {
            let to = (Ipv4Addr::new(10, 0, 0, 9).into(), port);
            let terms = Terms::default();
            let flow = self
                .tcp
                .connect(&mut self.ip, None, to, Owner(1), uid, terms);
            flow.ok()
        }
    }

    #[test]
    fn the_last_memory_is_the_superusers() {
        let mut system = System::new();
        system.tcp.memory = MEMORY - RESERVED;
        let root = system.tcp.listen(HOST.into(), 80, 128, Owner(2), 0);
        assert_eq!(system.connect(1, USER), None);
        // A stranger has half of it, where the superuser listens, and no more.
        let syn = system.arrive(4000, Flags::SYN, [7, 0], b"");
        assert_eq!(syn, Verdict::Delivered);
        system.tcp.memory = MEMORY - RESERVED / 2;
        let syn = system.arrive(4001, Flags::SYN, [7, 0], b"");
        assert_eq!(syn, Verdict::Dropped(DropReason::NoMemory));
        assert!(system.connect(2, 0).is_some());
        // Where a user listens, none.
        system.tcp.unlisten(root.unwrap());
        let user = system.tcp.listen(HOST.into(), 80, 128, Owner(2), USER);
        assert!(user.is_ok());
        system.tcp.memory = MEMORY - RESERVED;
        let syn = system.arrive(4002, Flags::SYN, [7, 0], b"");
        assert_eq!(syn, Verdict::Dropped(DropReason::NoMemory));
        system.tcp.memory = MEMORY;
        assert_eq!(system.connect(3, 0), None);
    }

    #[test]
    fn data_that_nobody_reads_leaves_room_for_connections() {
        let mut system = System::new();
        let (flow, _) = system.accepted();
        for (uid, most) in [(USER, MEMORY - RESERVED), (0, MEMORY)] {
            system.tcp.flow_mut(flow).unwrap().uid = uid;
            system.tcp.memory = most - CONNECTIONS - 1;
            assert_eq!(system.tcp.room_to_send(flow), usize::MAX);
            system.tcp.memory += 1;
            assert_eq!(system.tcp.room_to_send(flow), LEAST);
            assert_eq!(system.tcp.room_to_receive(flow), LEAST);
            // Idle ones, as many as there may be in most cases.
            let ports = (1..20_000).map_while(|port| system.connect(port, uid));
            assert_eq!(ports.count(), 19_999);
        }
        let syn = system.arrive(4001, Flags::SYN, [7, 0], b"");
        assert_eq!(syn, Verdict::Dropped(DropReason::NoMemory));
        system.tcp.memory = MEMORY - RESERVED - CONNECTIONS;
        let syn = system.arrive(4001, Flags::SYN, [7, 0], b"");
        assert_eq!(syn, Verdict::Delivered);
    }

    #[test]
    fn the_last_connections_are_the_superusers() {
        let mut system = System::new();
        let ports = 1..=u16::MAX;
        let begun = ports.map_while(|port| system.connect(port, USER)).count();
        assert_eq!(begun, MAX_FLOWS - RESERVED_FLOWS);
        let ports = 1..=u16::MAX;
        let free = ports
            .rev()
            .map_while(|port| system.connect(port, 0))
            .count();
        assert_eq!(free, RESERVED_FLOWS);
    }

    #[test]
    fn without_memory_a_connection_takes_the_least_and_no_more() {
        let mut system = System::new();
        let (flow, iss) = system.accepted();
        assert_eq!(system.tcp.room_to_send(flow), usize::MAX);
        let others = MEMORY - RESERVED - system.tcp.memory;
        system.tcp.memory += others;
        let mut seq = 8;
        let mut verdicts = Vec::new();
        for _ in 0..10 {
            verdicts.push(system.arrive(4000, Flags::ACK, [seq, iss + 1], &[1; 1000]));
            seq = 8 + system.tcp.connection(flow).unwrap().recv_queue() as u32;
        }
        assert_eq!(verdicts[0], Verdict::Delivered);
        assert_eq!(verdicts[9], Verdict::Dropped(DropReason::NoMemory));
        let connection = system.tcp.connection(flow).unwrap();
        assert!((LEAST / 2..=LEAST).contains(&connection.recv_queue()));
        assert_eq!(system.tcp.room_to_send(flow), LEAST);
        // What is read makes room, and with memory everything is taken.
        system
            .tcp
            .with(flow, |connection| connection.read(&mut [0; 8192]));
        let more = system.arrive(4000, Flags::ACK, [seq, iss + 1], &[1; 1000]);
        assert_eq!(more, Verdict::Delivered);
        system.tcp.memory -= others;
        for part in 1..=10 {
            let seq = seq + part * 1000;
            let verdict = system.arrive(4000, Flags::ACK, [seq, iss + 1], &[1; 1000]);
            assert_eq!(verdict, Verdict::Delivered);
        }
        assert_eq!(system.tcp.connection(flow).unwrap().recv_queue(), 11_000);
    }

    #[test]
    fn listeners_and_what_waits_at_one_are_bounded() {
        let mut system = System::new();
        let other = Ipv4Addr::new(10, 0, 0, 7).into();
        for port in 1..=u16::MAX {
            system
                .tcp
                .listen(HOST.into(), port, 1, Owner(2), 0)
                .unwrap();
        }
        system.tcp.listen(other, 1, 1, Owner(2), USER).unwrap();
        let more = system.tcp.listen(other, 2, 1, Owner(2), 0);
        assert_eq!(more, Err(scheme::errno::ENFILE));

        let mut system = System::new();
        system
            .tcp
            .listen(HOST.into(), 80, 128, Owner(2), 0)
            .unwrap();
        let ports = 4000..5500;
        let mut numbers = Vec::new();
        for port in ports.clone() {
            let _ = system.arrive(port, Flags::SYN, [7, 0], b"");
            let answer = sent(&mut system.ip, system.dev).remove(0);
            numbers.push(u32::from_be_bytes(*answer[24..].first_chunk().unwrap()));
        }
        let (embryos, cookies) = (256, 1024);
        assert_eq!(system.tcp.flows.len(), embryos);
        assert_eq!(system.tcp.stats.cookies_sent, 1500 - embryos as u64);
        let mut verdicts = Vec::new();
        for (port, iss) in ports.zip(numbers) {
            verdicts.push(system.arrive(port, Flags::ACK, [8, iss + 1], b""));
        }
        let full = Verdict::Dropped(DropReason::BacklogFull);
        let taken = verdicts.iter().position(|verdict| *verdict == full);
        assert_eq!(taken, Some(cookies));
        let id = system.tcp.listener_for(&HOST.into(), 80).unwrap();
        assert_eq!(system.tcp.listeners[id.0 as usize].queue.len(), cookies);
        // Past the backlog nobody begins.
        assert_eq!(system.arrive(9000, Flags::SYN, [7, 0], b""), full);
    }

    #[test]
    fn a_listener_ends_with_its_own_handshakes_and_no_others() {
        let mut system = System::new();
        let own = system.tcp.listen(HOST.into(), 80, 128, Owner(2), USER);
        let own = own.unwrap();
        let other = system.connect(9, USER).unwrap();
        let mut numbers = Vec::new();
        let _ = sent(&mut system.ip, system.dev);
        for port in 4000..4004 {
            let _ = system.arrive(port, Flags::SYN, [7, 0], b"");
            let answer = sent(&mut system.ip, system.dev).remove(0);
            numbers.push(u32::from_be_bytes(*answer[24..].first_chunk().unwrap()));
        }
        // One is given up, and one is done: neither is under way.
        let _ = system.arrive(4000, Flags::RST, [8, 0], b"");
        let _ = system.arrive(4001, Flags::ACK, [8, numbers[1] + 1], b"");
        let listener = &system.tcp.listeners[own.0 as usize];
        assert_eq!((listener.embryos.len(), listener.queue.len()), (2, 1));
        system.tcp.unlisten(own);
        system.tcp.run(&mut system.ip, crate::ip::Budget::TURN);
        assert_eq!(system.tcp.flows.len(), 1);
        assert!(system.tcp.connection(other).is_some());
    }

    #[test]
    fn handshakes_of_all_listeners_together_are_bounded() {
        let mut system = System::new();
        let listeners: Vec<_> = (0..80)
            .map(|number| {
                let addr = Ipv4Addr::new(127, 0, 0, number).into();
                system.tcp.listen(addr, 80, 128, Owner(2), USER).unwrap()
            })
            .collect();
        system
            .tcp
            .listen(HOST.into(), 80, 128, Owner(2), USER)
            .unwrap();
        // Those of the others are under way.
        let mut left = MAX_EMBRYOS - 10;
        for id in &listeners {
            let embryos = left.min(256);
            let of_nobody = |at| FlowId {
                key: u32::MAX,
                serial: at as u32,
            };
            system.tcp.listeners[id.0 as usize].embryos = (0..embryos).map(of_nobody).collect();
            system.tcp.embryos += embryos;
            left -= embryos;
        }
        for port in 4000..4020 {
            let syn = system.arrive(port, Flags::SYN, [7, 0], b"");
            assert_eq!(syn, Verdict::Delivered);
        }
        let (begun, cookies) = (system.tcp.flows.len(), system.tcp.stats.cookies_sent);
        assert_eq!((begun, cookies), (10, 10));
        // One that ends, however it does, makes room for another.
        let keys: Vec<_> = system
            .tcp
            .flows
            .iter()
            .map(|(key, flow)| (key, flow.serial))
            .collect();
        let (key, serial) = keys[0];
        let key = key as u32;
        system.tcp.remove(FlowId { key, serial });
        assert_eq!(system.tcp.embryos, MAX_EMBRYOS - 1);
        let own = system.tcp.listener_for(&HOST.into(), 80).unwrap();
        system.tcp.unlisten(own);
        assert_eq!(system.tcp.embryos, MAX_EMBRYOS - 10);
        // Of the others none is left behind.
        for id in listeners {
            system.tcp.unlisten(id);
        }
        assert_eq!(system.tcp.embryos, 0);
    }

    #[test]
    fn a_connection_has_one_timer_whatever_it_does() {
        let mut system = System::new();
        let (flow, iss) = system.accepted();
        let terms = Terms {
            keep_alive: true,
            ..Terms::default()
        };
        system.tcp.set_terms(&system.ip, flow, terms);
        for segment in 0..4000 {
            // Each owes an acknowledgment, and puts off the question whether the peer is there.
            let _ = system.arrive(4000, Flags::ACK, [8 + segment, iss + 1], b"x");
            system
                .tcp
                .with(flow, |connection| connection.read(&mut [0; 8]));
            system.ip.now.monotonic += Duration::from_millis(1);
            system.tcp.run(&mut system.ip, crate::ip::Budget::TURN);
            assert!(system.tcp.timers.len() <= 1);
        }
        let _ = sent(&mut system.ip, system.dev);
        // Nor is it woken more often than it has something to do.
        let mut woken = 0;
        while let Some(at) = system.tcp.deadline()
            && at < system.ip.now.monotonic + Duration::from_secs(3600)
        {
            system.ip.now.monotonic = at;
            system.tcp.run(&mut system.ip, crate::ip::Budget::TURN);
            woken += 1;
        }
        assert!(woken < 20, "{woken}");
    }
}

//! Two ends and an emulated link between them, in virtual time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::LazyLock;

use super::*;

/// One direction of a link, and both are alike.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    /// One way.
    pub(super) delay: Duration,
    /// Share of packets that are lost, that come 3 ms late, that come twice.
    pub(super) loss: f64,
    pub(super) late: f64,
    pub(super) twice: f64,
    /// Bits per second, and packets that wait for their turn.
    pub(super) rate: Option<f64>,
    pub(super) queue: usize,
}

impl Path {
    /// A round-trip time in milliseconds and a share lost, at 50 Mbit/s.
    pub(super) fn new(rtt: u64, loss: f64) -> Self {
        Self {
            delay: Duration::from_micros(rtt * 500),
            loss,
            late: 0.0,
            twice: 0.0,
            rate: Some(50e6),
            queue: 100,
        }
    }
}

/// Something with an end of connections.
pub(super) trait End {
    fn receive(&mut self, flow: usize, segment: &[u8], now: Duration);
    fn time_out(&mut self, now: Duration);
    /// The next segment, and its flow.
    fn transmit(&mut self, now: Duration) -> Option<(usize, Vec<u8>)>;
    fn deadline(&self) -> Option<Duration>;
}

#[derive(Default)]
struct Wire {
    /// When what waits has gone.
    departures: VecDeque<Duration>,
}

/// A packet under way: when it comes, its serial number, which end it is for, its flow, its bytes.
type Coming = Reverse<(Duration, u64, usize, usize, Vec<u8>)>;

pub(super) struct Link {
    pub(super) now: Duration,
    path: Path,
    wires: [Wire; 2],
    coming: BinaryHeap<Coming>,
    serial: u64,
    rng: fastrand::Rng,
    pub(super) carried: [u64; 2],
    pub(super) dropped: [u64; 2],
}

impl Link {
    pub(super) fn new(path: Path, seed: u64) -> Self {
        Self {
            now: Duration::from_secs(1),
            path,
            wires: Default::default(),
            coming: BinaryHeap::new(),
            serial: 0,
            rng: fastrand::Rng::with_seed(seed),
            carried: [0; 2],
            dropped: [0; 2],
        }
    }

    fn send(&mut self, to: usize, flow: usize, segment: Vec<u8>) {
        self.carried[to] += 1;
        let mut at = self.now;
        if self.rng.f64() < self.path.loss {
            self.dropped[to] += 1;
            return;
        }
        if let Some(rate) = self.path.rate {
            let wire = &mut self.wires[to];
            while wire
                .departures
                .front()
                .is_some_and(|&gone| gone <= self.now)
            {
                wire.departures.pop_front();
            }
            if wire.departures.len() >= self.path.queue {
                self.dropped[to] += 1;
                return;
            }
            let bits = (segment.len() + 20) as f64 * 8.0;
            let last = wire.departures.back().copied().unwrap_or(self.now);
            at = last.max(self.now) + Duration::from_secs_f64(bits / rate);
            wire.departures.push_back(at);
        }
        at += self.path.delay;
        if self.rng.f64() < self.path.late {
            at += ms(3);
        }
        if self.rng.f64() < self.path.twice {
            self.serial += 1;
            let copy = Reverse((at + ms(1), self.serial, to, flow, segment.clone()));
            self.coming.push(copy);
        }
        self.serial += 1;
        self.coming
            .push(Reverse((at, self.serial, to, flow, segment)));
    }

    /// Goes on to the next event, unless that is after `until`. False if there is none.
    pub(super) fn step(&mut self, ends: [&mut dyn End; 2], until: Duration) -> bool {
        let [left, right] = ends;
        for (to, end) in [(1, &mut *left), (0, &mut *right)] {
            let mut packets = 0;
            while let Some((flow, segment)) = end.transmit(self.now) {
                self.send(to, flow, segment);
                packets += 1;
                assert!(packets < 20_000, "no end of packets at {:?}", self.now);
            }
        }
        let arrival = self.coming.peek().map(|Reverse((at, ..))| *at);
        let deadlines = [left.deadline(), right.deadline()];
        let next = deadlines.into_iter().flatten().chain(arrival).min();
        let Some(next) = next.filter(|&next| next <= until) else {
            self.now = self.now.max(until);
            return false;
        };
        self.now = self.now.max(next);
        // One at a time: each may be answered.
        if let Some(Reverse((at, ..))) = self.coming.peek()
            && *at <= self.now
            && let Some(Reverse((_, _, to, flow, segment))) = self.coming.pop()
        {
            let end = if to == 0 { &mut *left } else { &mut *right };
            end.receive(flow, &segment, self.now);
        }
        for end in [left, right] {
            if end.deadline().is_some_and(|at| at <= self.now) {
                end.time_out(self.now);
            }
        }
        true
    }
}

/// What the program of an end does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// Reads everything.
    Sink,
    /// Writes so many bytes and closes; reads everything.
    Source(u64),
}

/// One connection of ours and its program.
pub(super) struct Ours {
    pub(super) connection: Connection,
    pub(super) program: Program,
    pub(super) written: u64,
    pub(super) read: u64,
}

/// After so many bytes every stream begins again: a prime, so that no two segments are alike.
const PERIOD: usize = 65_521;

/// The bytes from a place of every stream on: `len` of them, or fewer.
pub(super) fn bytes(at: u64, len: usize) -> &'static [u8] {
    static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let byte = |n: usize| {
            let n = n % PERIOD;
            (n ^ (n >> 8)) as u8
        };
        (0..2 * PERIOD).map(byte).collect()
    });
    let start = (at % PERIOD as u64) as usize;
    &BYTES[start..start + len.min(PERIOD)]
}

impl Ours {
    pub(super) fn new(connection: Connection, program: Program) -> Self {
        Self {
            connection,
            program,
            written: 0,
            read: 0,
        }
    }

    fn run(&mut self, now: Duration) {
        let connection = &mut self.connection;
        while connection.can_recv() {
            let mut at = self.read;
            self.read += connection.recv(usize::MAX, |bytes| {
                let whole = bytes.len();
                for got in bytes.chunks(PERIOD) {
                    assert!(got == self::bytes(at, got.len()), "other bytes at {at}");
                    at += got.len() as u64;
                }
                whole
            }) as u64;
        }
        if let Program::Source(total) = self.program {
            while self.written < total && connection.can_send() {
                let at = self.written;
                let most = (total - at).min(1 << 20) as usize;
                self.written += connection.send_with(most, |room| {
                    let bytes = bytes(at, room.len());
                    room[..bytes.len()].copy_from_slice(bytes);
                    bytes.len()
                }) as u64;
            }
            if self.written == total
                && connection.may_send()
                && connection.state() != State::SynSent
            {
                connection.close(now);
            }
        } else if !connection.may_recv()
            && connection.state() != State::SynSent
            && connection.state() != State::SynReceived
            && connection.may_send()
        {
            connection.close(now);
        }
    }
}

/// One machine with our connections. One that listens makes them as SYNs come.
pub(super) struct Machine {
    pub(super) flows: Vec<Option<Ours>>,
    accepts: Option<Program>,
    pub(super) config: Config,
    turn: usize,
    /// Whether what must always hold is checked all the time.
    pub(super) strict: bool,
}

impl Machine {
    pub(super) fn client(config: Config, programs: &[Program], now: Duration) -> Self {
        let connect = |(index, &program): (usize, &Program)| {
            let iss = SeqNumber(u32::MAX - 5000 + index as u32);
            Some(Ours::new(Connection::connect(&config, iss, now), program))
        };
        Self {
            flows: programs.iter().enumerate().map(connect).collect(),
            accepts: None,
            config,
            turn: 0,
            strict: false,
        }
    }

    pub(super) fn server(config: Config, flows: usize, program: Program) -> Self {
        Self {
            flows: (0..flows).map(|_| None).collect(),
            accepts: Some(program),
            config,
            turn: 0,
            strict: false,
        }
    }

    pub(super) fn flow(&mut self, index: usize) -> &mut Ours {
        self.flows[index].as_mut().expect("no such flow")
    }

    pub(super) fn read(&self, index: usize) -> u64 {
        self.flows[index].as_ref().map_or(0, |flow| flow.read)
    }
}

impl End for Machine {
    fn receive(&mut self, flow: usize, bytes: &[u8], now: Duration) {
        let segment = Segment::parse(bytes).expect("a segment");
        let slot = &mut self.flows[flow];
        match slot {
            None if segment.is_first_syn() && self.accepts.is_some() => {
                let connection = Connection::accept(&self.config, &segment, SeqNumber(7000), now);
                *slot = self.accepts.map(|program| Ours::new(connection, program));
            }
            None => {}
            Some(ours) => {
                ours.connection.handle_segment(&segment, now);
                ours.run(now);
                if self.strict {
                    ours.connection.invariants();
                }
            }
        }
    }

    fn time_out(&mut self, now: Duration) {
        for ours in self.flows.iter_mut().flatten() {
            if ours.connection.poll_timeout().is_some_and(|at| at <= now) {
                ours.connection.handle_timeout(now);
                if self.strict {
                    ours.connection.invariants();
                }
            }
        }
    }

    fn transmit(&mut self, now: Duration) -> Option<(usize, Vec<u8>)> {
        for _ in 0..self.flows.len() {
            let index = self.turn;
            self.turn = (self.turn + 1) % self.flows.len();
            if let Some(ours) = &mut self.flows[index] {
                ours.run(now);
                if let Some(packet) = ours.connection.poll_transmit(now) {
                    if self.strict {
                        ours.connection.invariants();
                    }
                    return Some((index, packet.to_vec()));
                }
            }
        }
        None
    }

    fn deadline(&self) -> Option<Duration> {
        let flows = self.flows.iter().flatten();
        flows
            .filter_map(|ours| ours.connection.poll_timeout())
            .min()
    }
}

//! One way through the emulated network: loss, a queue before a line of a given rate, delay, and
//! packets that come late. Reads no clock, and draws its chance from a seed.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use fastrand::Rng;

/// The extra delay of a reordered packet.
pub(crate) const LATE: Duration = Duration::from_millis(3);

/// The properties of the network. Both ways are alike, each with a queue of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shape {
    /// Round trip; each way takes half of it.
    pub(crate) rtt: Duration,
    /// Share of packets that get lost, 0 to 1.
    pub(crate) loss: f64,
    /// Share of packets that come [`LATE`], 0 to 1.
    pub(crate) reordered: f64,
    /// Bits a second, of whole IP packets; `None` for no limit.
    pub(crate) rate: Option<u64>,
    /// Packets that wait for the line; one more is dropped. Without a rate nothing waits.
    pub(crate) queue: usize,
    /// The seed of loss and reordering. The same seed loses the packets with the same numbers.
    pub(crate) seed: u64,
}

impl Shape {
    /// A line of 50 Mbit/s with a queue of 100 packets, which loses nothing.
    pub(crate) fn line(rtt_ms: u64) -> Self {
        Self {
            rtt: Duration::from_millis(rtt_ms),
            loss: 0.0,
            reordered: 0.0,
            rate: Some(50_000_000),
            queue: 100,
            seed: 1,
        }
    }
}

/// Packet counters of one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Handed to the way.
    pub(crate) offered: u64,
    /// Lost by chance.
    pub(crate) lost: u64,
    /// Dropped because the queue was full.
    pub(crate) overflowed: u64,
    /// Made to come late.
    pub(crate) late: u64,
}

/// One direction. Put packets in with [`handle_packet`](Self::handle_packet), take out those that
/// are due with [`poll_delivery`](Self::poll_delivery), and come back at
/// [`poll_at`](Self::poll_at).
#[derive(Debug)]
pub(crate) struct Way {
    shape: Shape,
    rng: Rng,
    count: Count,
    /// The time at which the line has sent all the packets it was given.
    idle_at: Option<Instant>,
    /// The times at which the line takes the waiting packets, in order.
    waiting: VecDeque<Instant>,
    /// Packets on their way, by time of arrival and then by order of departure.
    flying: BTreeMap<(Instant, u64), Vec<u8>>,
}

impl Way {
    /// Makes a way. `number` tells the ways of a link apart: each draws random numbers of its own.
    pub(crate) fn new(shape: Shape, number: u64) -> Self {
        Self {
            shape,
            rng: Rng::with_seed(shape.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number),
            count: Count::default(),
            idle_at: None,
            waiting: VecDeque::new(),
            flying: BTreeMap::new(),
        }
    }

    /// From now on nothing is lost and nothing comes late.
    pub(crate) fn calm(&mut self) {
        self.shape.loss = 0.0;
        self.shape.reordered = 0.0;
    }

    /// The packet counters.
    pub(crate) fn count(&self) -> Count {
        self.count
    }

    /// Takes a packet at the beginning of the way. `now` must not go back.
    pub(crate) fn handle_packet(&mut self, now: Instant, packet: &[u8]) {
        self.count.offered += 1;
        // Both numbers are drawn for every packet: its fate depends on its number alone.
        let lost = self.rng.f64() < self.shape.loss;
        let late = self.rng.f64() < self.shape.reordered;
        if lost {
            self.count.lost += 1;
            return;
        }
        let Some(sent) = self.send(now, packet.len()) else {
            self.count.overflowed += 1;
            return;
        };
        let mut arrival = sent + self.shape.rtt / 2;
        if late {
            self.count.late += 1;
            arrival += LATE;
        }
        let key = (arrival, self.count.offered);
        self.flying.insert(key, packet.to_vec());
    }

    /// The time at which the line has sent the packet; `None` if the queue before it is full.
    fn send(&mut self, now: Instant, len: usize) -> Option<Instant> {
        let Some(rate) = self.shape.rate else {
            return Some(now);
        };
        while self.waiting.front().is_some_and(|&start| start <= now) {
            self.waiting.pop_front();
        }
        if self.waiting.len() >= self.shape.queue {
            return None;
        }
        let start = self.idle_at.map_or(now, |idle| idle.max(now));
        if start > now {
            self.waiting.push_back(start);
        }
        let nanos = len as u64 * 8 * 1_000_000_000 / rate;
        let sent = start + Duration::from_nanos(nanos);
        self.idle_at = Some(sent);
        Some(sent)
    }

    /// The next packet that has arrived, if one has.
    #[must_use]
    pub(crate) fn poll_delivery(&mut self, now: Instant) -> Option<Vec<u8>> {
        let first = self.flying.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// The time at which the next packet arrives; `None` while nothing is on the way.
    #[must_use]
    pub(crate) fn poll_at(&self) -> Option<Instant> {
        self.flying.first_key_value().map(|(key, _)| key.0)
    }
}

/// The destination of an IPv4 packet; `None` if it is not one.
pub(crate) fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    let (version, address) = (packet.first()? >> 4, packet.get(16..20)?);
    let address = <[u8; 4]>::try_from(address).ok()?;
    (version == 4).then(|| address.into())
}

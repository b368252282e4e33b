//! A link in virtual time: a seed decides which packets it loses, delays, repeats and reorders.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// The faults of a link.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quality {
    /// The least delay of a packet.
    pub delay: Duration,
    /// The most extra delay: if it exceeds the gap between two packets, they are reordered.
    pub jitter: Duration,
    /// Packets lost, of a thousand.
    pub loss: u32,
    /// Packets that arrive twice, of a thousand.
    pub duplicate: u32,
}

/// Two directions, each with the same quality. Way 0 is from the first end to the second.
pub struct Link {
    rng: fastrand::Rng,
    quality: Quality,
    /// No packet is sent while it is down; packets on their way arrive.
    pub up: bool,
    serial: u64,
    flying: [BinaryHeap<Reverse<Flying>>; 2],
    /// Packets offered, lost, repeated, and overtaken by a later one.
    pub offered: u64,
    pub lost: u64,
    pub repeated: u64,
    pub overtaken: u64,
    newest: [u64; 2],
}

/// Ordered by time of arrival, and then by order of departure.
type Flying = (Duration, u64, Vec<u8>);

impl Link {
    pub fn new(seed: u64, quality: Quality) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(seed),
            quality,
            up: true,
            serial: 0,
            flying: Default::default(),
            offered: 0,
            lost: 0,
            repeated: 0,
            overtaken: 0,
            newest: [0; 2],
        }
    }

    /// Takes a packet at one end.
    pub fn send(&mut self, now: Duration, way: usize, packet: &[u8]) {
        self.offered += 1;
        if !self.up || self.rng.u32(0..1000) < self.quality.loss {
            self.lost += 1;
            return;
        }
        let twice = self.rng.u32(0..1000) < self.quality.duplicate;
        self.repeated += u64::from(twice);
        for _ in 0..=u32::from(twice) {
            let jitter = self.rng.u64(0..=self.quality.jitter.as_micros() as u64);
            let at = now + self.quality.delay + Duration::from_micros(jitter);
            self.serial += 1;
            self.flying[way].push(Reverse((at, self.serial, packet.to_vec())));
        }
    }

    /// Takes a packet that has arrived at the other end by now.
    pub fn receive(&mut self, now: Duration, way: usize) -> Option<Vec<u8>> {
        let Reverse((at, ..)) = self.flying[way].peek()?;
        if *at > now {
            return None;
        }
        let Reverse((_, serial, packet)) = self.flying[way].pop()?;
        self.overtaken += u64::from(serial < self.newest[way]);
        self.newest[way] = self.newest[way].max(serial);
        Some(packet)
    }

    /// The time at which the next packet arrives.
    pub fn deadline(&self) -> Option<Duration> {
        let first = |flying: &BinaryHeap<Reverse<Flying>>| flying.peek().map(|next| next.0.0);
        self.flying.iter().filter_map(first).min()
    }
}

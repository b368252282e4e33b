//! Hardware addresses of neighbours, and the packets that wait for one. Both are bounded.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::Mac;
use crate::ifnet::Family;
use crate::packet::Packet;
use crate::timers::{Timer, Timers};

/// Most neighbours known or asked for.
const MAX_NEIGHBORS: usize = 1024;
/// Most packets that wait for one neighbour. The oldest is dropped for another (RFC 4861 section
/// 7.2.2).
const MAX_WAITING: usize = 64;
/// How long an answer is valid (RFC 1122 section 2.3.2.1: of the order of a minute).
const BELIEVED: Duration = Duration::from_secs(60);
/// Pause between questions (RFC 4861 section 10).
const PAUSE: Duration = Duration::from_secs(1);
/// Questions before a neighbour is given up.
const QUESTIONS: u32 = 3;

#[derive(Debug)]
struct Neighbor {
    mac: Option<Mac>,
    /// The time until which it is valid.
    until: Duration,
    /// Questions since the last answer.
    asked: u32,
    /// The time at which to ask again, or give up.
    timer: Timer,
    waiting: VecDeque<(Family, Packet)>,
}

impl Neighbor {
    fn unknown(now: Duration) -> Self {
        Self {
            mac: None,
            until: now,
            asked: 0,
            timer: Timer::default(),
            waiting: VecDeque::new(),
        }
    }

    /// Whether to ask it: its hardware address is no longer valid, and no request is under way.
    /// Notes that one is from now on.
    fn ask(&mut self, addr: IpAddr, timers: &mut Timers<IpAddr>, now: Duration) -> bool {
        let ask = self.timer.at().is_none() && self.until <= now;
        if ask {
            self.asked = 1;
            timers.arm(&mut self.timer, addr, now + PAUSE);
        }
        ask
    }
}

/// The result of looking up the neighbour of a packet.
#[derive(Debug)]
pub(super) enum Lookup {
    /// Send it. With `ask`, also ask whether the neighbour is still there.
    Known { packet: Packet, mac: Mac, ask: bool },
    /// It waits for the answer. This many others were dropped for it.
    Kept { ask: bool, thrown_out: u64 },
    /// There are too many neighbours; it is lost.
    Full,
}

/// The action when an answer did not come.
#[derive(Debug)]
pub(super) enum Overdue {
    /// Ask again: the station itself, if its hardware address was known.
    Ask(IpAddr, Option<Mac>),
    /// Give it up: these packets waited, and are lost.
    GiveUp(IpAddr, Vec<(Family, Packet)>),
}

/// The neighbours on one link.
#[derive(Debug, Default)]
pub(super) struct Neighbors {
    neighbors: BTreeMap<IpAddr, Neighbor>,
    timers: Timers<IpAddr>,
}

impl Neighbors {
    pub(super) fn look_up(
        &mut self,
        addr: IpAddr,
        family: Family,
        packet: Packet,
        now: Duration,
    ) -> Lookup {
        if !self.neighbors.contains_key(&addr) && !self.make_room() {
            return Lookup::Full;
        }
        let neighbor = self.neighbors.entry(addr).or_insert(Neighbor::unknown(now));
        let ask = neighbor.ask(addr, &mut self.timers, now);
        if let Some(mac) = neighbor.mac {
            return Lookup::Known { packet, mac, ask };
        }
        let mut thrown_out = 0;
        if neighbor.waiting.len() >= MAX_WAITING {
            neighbor.waiting.pop_front();
            thrown_out = 1;
        }
        neighbor.waiting.push_back((family, packet));
        Lookup::Kept { ask, thrown_out }
    }

    /// Notes the hardware address of a neighbour. Returns the packets that waited for it. A
    /// neighbour that was not asked for is noted only if `new`: it is about to talk to us.
    pub(super) fn learn(
        &mut self,
        addr: IpAddr,
        mac: Mac,
        new: bool,
        now: Duration,
    ) -> VecDeque<(Family, Packet)> {
        if !self.neighbors.contains_key(&addr) && (!new || !self.make_room()) {
            return VecDeque::new();
        }
        let known = Neighbor {
            mac: Some(mac),
            until: now + BELIEVED,
            asked: 0,
            timer: Timer::default(),
            waiting: VecDeque::new(),
        };
        let Some(mut old) = self.neighbors.insert(addr, known) else {
            return VecDeque::new();
        };
        self.timers.disarm(&mut old.timer, addr);
        old.waiting
    }

    /// Asks for a neighbour whose packet is still in the send queue. Returns `Some` if a request is
    /// to be sent, with the last hardware address, if there is one; `None` also if there are too
    /// many neighbours.
    pub(super) fn ask_early(&mut self, addr: IpAddr, now: Duration) -> Option<Option<Mac>> {
        if !self.neighbors.contains_key(&addr) && !self.make_room() {
            return None;
        }
        let neighbor = self.neighbors.entry(addr).or_insert(Neighbor::unknown(now));
        let ask = neighbor.ask(addr, &mut self.timers, now);
        ask.then_some(neighbor.mac)
    }

    /// The next answer that did not come in time.
    pub(super) fn poll(&mut self, now: Duration) -> Option<Overdue> {
        let addr = self.timers.pop(now)?;
        let neighbor = self.neighbors.get_mut(&addr)?;
        neighbor.timer.expired();
        if neighbor.asked >= QUESTIONS {
            let neighbor = self.neighbors.remove(&addr)?;
            return Some(Overdue::GiveUp(addr, neighbor.waiting.into()));
        }
        neighbor.asked += 1;
        self.timers.arm(&mut neighbor.timer, addr, now + PAUSE);
        // The last question goes to all stations: the address may have moved to another.
        let last = neighbor.asked >= QUESTIONS;
        Some(Overdue::Ask(addr, neighbor.mac.filter(|_| !last)))
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.timers.deadline()
    }

    /// Forgets all neighbours. Returns the number of packets that waited, which are lost.
    pub(super) fn forget(&mut self) -> u64 {
        let Self { neighbors, .. } = std::mem::take(self);
        let waiting = neighbors.values().map(|neighbor| neighbor.waiting.len());
        waiting.sum::<usize>() as u64
    }

    /// Forgets the neighbour whose answer is oldest, if there are too many. False if none can be
    /// forgotten, because packets wait for each of them.
    fn make_room(&mut self) -> bool {
        if self.neighbors.len() < MAX_NEIGHBORS {
            return true;
        }
        let idle = self
            .neighbors
            .iter()
            .filter(|(_, neighbor)| neighbor.mac.is_some());
        let oldest = idle
            .min_by_key(|(_, neighbor)| neighbor.until)
            .map(|(&addr, _)| addr);
        let Some(addr) = oldest else {
            return false;
        };
        if let Some(mut neighbor) = self.neighbors.remove(&addr) {
            self.timers.disarm(&mut neighbor.timer, addr);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
    const MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn look_up(neighbors: &mut Neighbors, now: u64) -> Lookup {
        let packet = Packet::from(&b"packet"[..]);
        neighbors.look_up(ADDR, Family::Inet, packet, Duration::from_secs(now))
    }

    #[test]
    fn asked_once_kept_and_released() {
        let mut neighbors = Neighbors::default();
        assert!(matches!(
            look_up(&mut neighbors, 0),
            Lookup::Kept {
                ask: true,
                thrown_out: 0
            }
        ));
        assert!(matches!(
            look_up(&mut neighbors, 0),
            Lookup::Kept {
                ask: false,
                thrown_out: 0
            }
        ));
        assert_eq!(neighbors.learn(ADDR, MAC, false, Duration::ZERO).len(), 2);
        let known = look_up(&mut neighbors, 59);
        assert!(matches!(
            known,
            Lookup::Known {
                mac: MAC,
                ask: false,
                ..
            }
        ));
        // The address stays in use while the neighbour is asked again.
        let known = look_up(&mut neighbors, 61);
        assert!(matches!(
            known,
            Lookup::Known {
                mac: MAC,
                ask: true,
                ..
            }
        ));
        assert_eq!(neighbors.deadline(), Some(Duration::from_secs(62)));
    }

    #[test]
    fn given_up_after_three_questions() {
        let mut neighbors = Neighbors::default();
        look_up(&mut neighbors, 0);
        for now in 1..3 {
            assert!(
                neighbors
                    .poll(Duration::from_millis(now * 1000 - 1))
                    .is_none()
            );
            let due = neighbors.poll(Duration::from_secs(now));
            assert!(matches!(due, Some(Overdue::Ask(ADDR, None))));
        }
        let due = neighbors.poll(Duration::from_secs(3));
        assert!(matches!(due, Some(Overdue::GiveUp(ADDR, lost)) if lost.len() == 1));
        assert_eq!(neighbors.deadline(), None);
    }

    #[test]
    fn bounded() {
        let mut neighbors = Neighbors::default();
        for _ in 0..MAX_WAITING {
            look_up(&mut neighbors, 0);
        }
        assert!(matches!(
            look_up(&mut neighbors, 0),
            Lookup::Kept { thrown_out: 1, .. }
        ));
        for host in 0..5000_u32 {
            neighbors.learn(IpAddr::V4(host.into()), MAC, true, Duration::ZERO);
        }
        assert_eq!(neighbors.neighbors.len(), MAX_NEIGHBORS);
    }
}

//! Hardware addresses of neighbours, and the packets that wait for one. Both are bounded.
//!
//! The states are those of RFC 4861 section 7.3.2, for both families: ARP, which knows none, gets
//! the same answers from them (RFC 1122 section 2.3.2.1). Whatever strangers send or make us look
//! for, they push out neither those that answered lately nor more than a share of the table.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::Mac;
use crate::ifnet::Family;
use crate::packet::Packet;
use crate::timers::{Timer, Timers};

/// Most neighbours with a hardware address.
const MAX_RESOLVED: usize = 1024;
/// Most neighbours that are looked for. The one that was first is given up for another, so those
/// that exist have time to answer, however many addresses are tried (RFC 6583 section 4.2).
const MAX_UNRESOLVED: usize = 256;
/// Most packets that wait for one neighbour. The oldest is dropped for another (RFC 4861 section
/// 7.2.2).
const MAX_WAITING: usize = 64;
/// Most bytes of memory of what waits, for all neighbours together.
const MAX_WAITING_BYTES: usize = 1 << 20;
/// How long a neighbour that answered is believed, on average. For each answer it is between half
/// and one and a half of this, at random (RFC 4861 section 6.3.2, `BaseReachableTime`).
const REACHABLE: Duration = Duration::from_secs(30);
/// Time from the use of an old address to the question whether it is still right. Until then an
/// upper layer may hear from the neighbour, and a stranger's word is not asked about at once.
const DELAY: Duration = Duration::from_secs(5);
/// Pause between questions (RFC 4861 section 10).
const PAUSE: Duration = Duration::from_secs(1);
/// Questions before a neighbour is given up.
const QUESTIONS: u32 = 3;

/// How much is known of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// INCOMPLETE: it is asked for, and has no hardware address yet. `asked` is the number of
    /// questions so far.
    Incomplete { asked: u32 },
    /// REACHABLE: it answered a question. From the given time on it is STALE.
    Reachable(Duration),
    /// STALE: its hardware address was right once, or is what somebody said.
    Stale,
    /// DELAY: the same, but packets are sent there.
    Delay,
    /// PROBE: it is asked whether it is still there.
    Probe { asked: u32 },
}

#[derive(Debug)]
struct Neighbor {
    state: State,
    /// Meaningless while it is INCOMPLETE.
    mac: Mac,
    /// The time of the next question, or of giving it up.
    timer: Timer,
    /// Its place in the order in which neighbours make room: the time until which it is known to
    /// be of use. Not armed while it is INCOMPLETE.
    useful: Timer,
    waiting: VecDeque<(Family, Packet)>,
}

impl Neighbor {
    /// Its hardware address, if it has one.
    fn mac(&self) -> Option<Mac> {
        match self.state {
            State::Incomplete { .. } => None,
            _ => Some(self.mac),
        }
    }
}

/// The result of looking up the neighbour of a packet.
#[derive(Debug)]
pub(super) enum Lookup {
    /// Send it.
    Known { packet: Packet, mac: Mac },
    /// It waits for the answer. These others are dropped for it.
    Kept {
        ask: bool,
        thrown_out: Vec<(Family, Packet)>,
    },
}

/// What was heard of the hardware address of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It says so itself, and is about to talk to us (RFC 4861 section 7.2.3).
    Talks,
    /// An advertisement (RFC 4861 section 7.2.5).
    Advert {
        /// It answers a question of ours, so packets of ours reach the neighbour.
        solicited: bool,
        /// It may replace another hardware address.
        overrides: bool,
    },
}

/// The result of [`Neighbors::learn`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Learned {
    /// Packets that waited, and can be sent.
    pub(super) packets: VecDeque<(Family, Packet)>,
    /// Whether the neighbour is in the table, and the message was not in contradiction to it.
    pub(super) taken: bool,
    /// Whether the neighbour is now known to be reachable.
    pub(super) reachable: bool,
}

/// The action when an answer did not come.
#[derive(Debug)]
pub(super) enum Overdue {
    /// Ask again: the station itself, if its hardware address was known.
    Ask(IpAddr, Option<Mac>),
    /// Give it up: these packets waited, and are lost.
    GiveUp(IpAddr, Vec<(Family, Packet)>),
}

/// The neighbours of one family on one link.
#[derive(Debug, Default)]
pub(super) struct Neighbors {
    neighbors: BTreeMap<IpAddr, Neighbor>,
    timers: Timers<IpAddr>,
    /// Those with a hardware address, the first to make room first.
    order: Timers<IpAddr>,
    /// Those without, the oldest first.
    unresolved: VecDeque<IpAddr>,
    /// Bytes of the packets that wait.
    bytes: usize,
}

impl Neighbors {
    /// Looks up the neighbour that a packet is for.
    pub(super) fn look_up(
        &mut self,
        addr: IpAddr,
        family: Family,
        packet: Packet,
        now: Duration,
    ) -> Lookup {
        if let Some(mac) = self.use_known(addr, now) {
            return Lookup::Known { packet, mac };
        }
        let (ask, mut thrown_out) = self.look_for(addr, now);
        thrown_out.extend(self.make_bytes(cost(&packet)));
        if let Some(neighbor) = self.neighbors.get_mut(&addr) {
            if neighbor.waiting.len() >= MAX_WAITING
                && let Some(oldest) = neighbor.waiting.pop_front()
            {
                self.bytes -= cost(&oldest.1);
                thrown_out.push(oldest);
            }
            self.bytes += cost(&packet);
            neighbor.waiting.push_back((family, packet));
        }
        Lookup::Kept { ask, thrown_out }
    }

    /// Looks for a neighbour whose packet is still in the send queue. Returns whether to ask for
    /// it, and the packets that are dropped for it.
    pub(super) fn look_early(
        &mut self,
        addr: IpAddr,
        now: Duration,
    ) -> (bool, Vec<(Family, Packet)>) {
        match self.use_known(addr, now) {
            Some(_) => (false, Vec::new()),
            None => self.look_for(addr, now),
        }
    }

    /// The hardware address of a neighbour that a packet is sent to now.
    fn use_known(&mut self, addr: IpAddr, now: Duration) -> Option<Mac> {
        let neighbor = self.neighbors.get_mut(&addr)?;
        let mac = neighbor.mac()?;
        let old = match neighbor.state {
            State::Reachable(until) => until <= now,
            State::Stale => true,
            _ => false,
        };
        if old {
            neighbor.state = State::Delay;
            self.timers.arm(&mut neighbor.timer, addr, now + DELAY);
            let decided = now + DELAY + PAUSE * QUESTIONS;
            self.order.arm(&mut neighbor.useful, addr, decided);
        }
        Some(mac)
    }

    /// Makes an entry for a neighbour without a hardware address, unless there is one.
    fn look_for(&mut self, addr: IpAddr, now: Duration) -> (bool, Vec<(Family, Packet)>) {
        if self.neighbors.contains_key(&addr) {
            return (false, Vec::new());
        }
        let mut thrown_out = Vec::new();
        if self.unresolved.len() >= MAX_UNRESOLVED
            && let Some(oldest) = self.unresolved.front().copied()
        {
            thrown_out = self.remove(&oldest).into();
        }
        let mut neighbor = Neighbor {
            state: State::Incomplete { asked: 1 },
            mac: Mac::BROADCAST,
            timer: Timer::default(),
            useful: Timer::default(),
            waiting: VecDeque::new(),
        };
        self.timers.arm(&mut neighbor.timer, addr, now + PAUSE);
        self.neighbors.insert(addr, neighbor);
        self.unresolved.push_back(addr);
        (true, thrown_out)
    }

    /// Asks a neighbour whether it is there, now instead of when a packet is sent to it. Returns
    /// its hardware address, if there is one and no question is under way.
    pub(super) fn probe(&mut self, addr: IpAddr, now: Duration) -> Option<Mac> {
        let neighbor = self.neighbors.get_mut(&addr)?;
        let mac = neighbor.mac()?;
        if matches!(neighbor.state, State::Probe { .. }) {
            return None;
        }
        neighbor.state = State::Probe { asked: 1 };
        self.timers.arm(&mut neighbor.timer, addr, now + PAUSE);
        let decided = now + PAUSE * QUESTIONS;
        self.order.arm(&mut neighbor.useful, addr, decided);
        Some(mac)
    }

    /// Whether a question to or for a neighbour is under way.
    pub(super) fn asked(&self, addr: &IpAddr) -> bool {
        let neighbor = self.neighbors.get(addr);
        neighbor.is_some_and(|neighbor| {
            matches!(
                neighbor.state,
                State::Incomplete { .. } | State::Probe { .. }
            )
        })
    }

    /// Notes what was heard of a neighbour: its hardware address, if the message had it. `chance`,
    /// from 0 to 1, spreads the times at which neighbours are asked again. Only a neighbour that
    /// [talks](Heard::Talks) gets an entry.
    pub(super) fn learn(
        &mut self,
        addr: IpAddr,
        said: Option<Mac>,
        heard: Heard,
        now: Duration,
        chance: f64,
    ) -> Learned {
        let known = self.neighbors.get(&addr).map(Neighbor::mac);
        let mac = match (known, said) {
            // RFC 4861 section 7.2.5: an advertisement makes no entry.
            (None, Some(mac)) if heard == Heard::Talks && self.make_room(now) => mac,
            (None, _) | (Some(None), None) => return Learned::default(),
            (Some(Some(mac)), None) => mac,
            (Some(_), Some(mac)) => mac,
        };
        let changed = known.flatten() != Some(mac);
        let (solicited, overrides) = match heard {
            Heard::Talks => (false, true),
            Heard::Advert {
                solicited,
                overrides,
            } => (solicited, overrides),
        };
        let unresolved = known == Some(None);
        if unresolved {
            self.resolved(&addr);
        }
        let neighbor = self.neighbors.entry(addr).or_insert_with(|| Neighbor {
            state: State::Stale,
            mac,
            timer: Timer::default(),
            useful: Timer::default(),
            waiting: VecDeque::new(),
        });
        if changed && known.flatten().is_some() && !overrides {
            if let State::Reachable(_) = neighbor.state {
                neighbor.state = State::Stale;
                self.order.arm(&mut neighbor.useful, addr, now);
            }
            return Learned::default();
        }
        neighbor.mac = mac;
        let packets = std::mem::take(&mut neighbor.waiting);
        if changed {
            neighbor.state = State::Stale;
            self.timers.disarm(&mut neighbor.timer, addr);
            self.order.arm(&mut neighbor.useful, addr, now);
        }
        if solicited {
            self.reached(addr, now, chance);
        }
        self.bytes -= bytes_of(&packets);
        if !packets.is_empty() {
            // They are sent there now.
            self.use_known(addr, now);
        }
        Learned {
            packets,
            taken: true,
            reachable: solicited,
        }
    }

    /// Notes that what is sent to a neighbour reaches it, as an upper layer knows (RFC 4861 section
    /// 7.3.1). `chance` is as in [`learn`](Self::learn). False if it has no hardware address: then
    /// nothing was sent there.
    pub(super) fn confirm(&mut self, addr: IpAddr, now: Duration, chance: f64) -> bool {
        let known = self.neighbors.get(&addr).and_then(Neighbor::mac);
        if known.is_some() {
            self.reached(addr, now, chance);
        }
        known.is_some()
    }

    /// Packets reach a neighbour that has a hardware address: it is REACHABLE.
    fn reached(&mut self, addr: IpAddr, now: Duration, chance: f64) {
        let Some(neighbor) = self.neighbors.get_mut(&addr) else {
            return;
        };
        let until = now + REACHABLE.mul_f64(0.5 + chance);
        neighbor.state = State::Reachable(until);
        self.timers.disarm(&mut neighbor.timer, addr);
        self.order.arm(&mut neighbor.useful, addr, until);
    }

    /// The next answer that did not come in time.
    pub(super) fn poll(&mut self, now: Duration) -> Option<Overdue> {
        let addr = self.timers.pop(now)?;
        let neighbor = self.neighbors.get_mut(&addr)?;
        neighbor.timer.expired();
        let of = neighbor.mac();
        let asked = match &mut neighbor.state {
            State::Incomplete { asked } | State::Probe { asked } => {
                *asked += 1;
                *asked
            }
            state => {
                *state = State::Probe { asked: 1 };
                1
            }
        };
        if asked > QUESTIONS {
            return Some(Overdue::GiveUp(addr, self.remove(&addr).into()));
        }
        self.timers.arm(&mut neighbor.timer, addr, now + PAUSE);
        // The last question goes to all stations: the address may have moved to another (RFC 7048
        // section 3).
        Some(Overdue::Ask(addr, of.filter(|_| asked < QUESTIONS)))
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.timers.deadline()
    }

    /// Forgets all neighbours. Returns the packets that waited, which are lost.
    pub(super) fn forget(&mut self) -> Vec<(Family, Packet)> {
        let Self { neighbors, .. } = std::mem::take(self);
        let waiting = neighbors.into_values().map(|neighbor| neighbor.waiting);
        waiting.flatten().collect()
    }

    /// Removes an entry. Returns the packets that waited for it.
    fn remove(&mut self, addr: &IpAddr) -> VecDeque<(Family, Packet)> {
        let Some(mut neighbor) = self.neighbors.remove(addr) else {
            return VecDeque::new();
        };
        self.timers.disarm(&mut neighbor.timer, *addr);
        self.order.disarm(&mut neighbor.useful, *addr);
        self.unresolved.retain(|other| other != addr);
        self.bytes -= bytes_of(&neighbor.waiting);
        neighbor.waiting
    }

    /// Moves a neighbour to those that have a hardware address. Another makes room for it: it
    /// answered, so it is of use.
    fn resolved(&mut self, addr: &IpAddr) {
        self.unresolved.retain(|other| other != addr);
        if self.neighbors.len() - self.unresolved.len() > MAX_RESOLVED
            && let Some(first) = self.order.first()
        {
            self.remove(&first);
        }
    }

    /// Makes room for a neighbour that nobody looked for. False if all others are of more use.
    fn make_room(&mut self, now: Duration) -> bool {
        if self.neighbors.len() - self.unresolved.len() < MAX_RESOLVED {
            return true;
        }
        let useless = self.order.deadline().is_some_and(|until| until <= now);
        if useless && let Some(first) = self.order.first() {
            self.remove(&first);
        }
        useless
    }

    /// Makes room for a waiting packet: drops those of the neighbours that were looked for first.
    /// Returns them.
    fn make_bytes(&mut self, len: usize) -> Vec<(Family, Packet)> {
        let mut thrown_out = Vec::new();
        if self.bytes + len <= MAX_WAITING_BYTES {
            return thrown_out;
        }
        for addr in &self.unresolved {
            let Some(neighbor) = self.neighbors.get_mut(addr) else {
                continue;
            };
            while self.bytes + len > MAX_WAITING_BYTES
                && let Some(oldest) = neighbor.waiting.pop_front()
            {
                self.bytes -= cost(&oldest.1);
                thrown_out.push(oldest);
            }
        }
        thrown_out
    }
}

fn bytes_of(packets: &VecDeque<(Family, Packet)>) -> usize {
    packets.iter().map(|(_, packet)| cost(packet)).sum()
}

/// Bytes that a waiting packet is charged.
fn cost(packet: &Packet) -> usize {
    size_of::<(Family, Packet)>() + packet.memory()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
    const MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 3]);
    const ANSWER: Heard = Heard::Advert {
        solicited: true,
        overrides: true,
    };
    const ANNOUNCED: Heard = Heard::Advert {
        solicited: false,
        overrides: true,
    };

    fn host(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn look_up_host(neighbors: &mut Neighbors, addr: IpAddr, now: u64) -> Lookup {
        let packet = Packet::zeroed(1000);
        neighbors.look_up(addr, Family::Inet, packet, seconds(now))
    }

    fn look_up(neighbors: &mut Neighbors, now: u64) -> Lookup {
        look_up_host(neighbors, ADDR, now)
    }

    fn learn(neighbors: &mut Neighbors, mac: Mac, heard: Heard, now: u64) -> Learned {
        neighbors.learn(ADDR, Some(mac), heard, seconds(now), 0.5)
    }

    fn state(neighbors: &Neighbors) -> Option<(State, Mac)> {
        let neighbor = neighbors.neighbors.get(&ADDR)?;
        Some((neighbor.state, neighbor.mac))
    }

    /// The states of RFC 4861 section 7.3.3, one after the other.
    #[test]
    fn from_one_state_to_the_next() {
        let mut neighbors = Neighbors::default();
        for ask in [true, false] {
            let kept = look_up(&mut neighbors, 0);
            assert!(
                matches!(kept, Lookup::Kept { ask: asked, thrown_out } if asked == ask && thrown_out.is_empty())
            );
        }
        assert_eq!(learn(&mut neighbors, MAC, ANSWER, 0).packets.len(), 2);
        let reachable = State::Reachable(seconds(30));
        assert_eq!(state(&neighbors), Some((reachable, MAC)));
        let known = |lookup| matches!(lookup, Lookup::Known { mac: MAC, .. });
        assert!(known(look_up(&mut neighbors, 29)));
        assert_eq!(neighbors.deadline(), None);
        // The address stays in use while the neighbour is asked again.
        assert!(known(look_up(&mut neighbors, 31)));
        assert_eq!(state(&neighbors), Some((State::Delay, MAC)));
        assert_eq!(neighbors.deadline(), Some(seconds(36)));
        for (now, of) in [(36, Some(MAC)), (37, Some(MAC)), (38, None)] {
            let due = neighbors.poll(seconds(now));
            assert!(matches!(due, Some(Overdue::Ask(ADDR, asked)) if asked == of));
            assert!(neighbors.poll(seconds(now)).is_none());
            assert!(known(look_up(&mut neighbors, now)));
        }
        let due = neighbors.poll(seconds(39));
        assert!(matches!(due, Some(Overdue::GiveUp(ADDR, _))));
        assert_eq!(state(&neighbors), None);
    }

    /// RFC 4861 section 7.3.1: what an upper layer knows is as good as an answer.
    #[test]
    fn an_upper_layer_confirms_who_has_a_hardware_address() {
        let reachable = |until| Some((State::Reachable(seconds(until)), MAC));
        let mut neighbors = Neighbors::default();
        assert!(!neighbors.confirm(ADDR, seconds(0), 0.5));
        assert_eq!(state(&neighbors), None, "it makes no entry");
        look_up(&mut neighbors, 0);
        assert!(!neighbors.confirm(ADDR, seconds(0), 0.5));
        assert!(matches!(
            state(&neighbors),
            Some((State::Incomplete { asked: 1 }, _))
        ));
        learn(&mut neighbors, MAC, Heard::Talks, 0);
        assert_eq!(state(&neighbors), Some((State::Delay, MAC)));
        assert!(neighbors.confirm(ADDR, seconds(2), 0.5));
        assert_eq!(state(&neighbors), reachable(32));
        assert_eq!(neighbors.deadline(), None, "nobody asks");
        assert!(neighbors.confirm(ADDR, seconds(30), 0.5));
        assert_eq!(state(&neighbors), reachable(60));
        look_up(&mut neighbors, 59);
        assert_eq!(state(&neighbors), reachable(60));
        // It had not been used for long, and is while it is asked.
        assert!(neighbors.confirm(ADDR, seconds(100), 0.5));
        assert_eq!(neighbors.probe(ADDR, seconds(100)), Some(MAC));
        assert!(neighbors.confirm(ADDR, seconds(101), 0.5));
        assert_eq!(state(&neighbors), reachable(131));
        assert!(neighbors.poll(seconds(102)).is_none());
        learn(&mut neighbors, OTHER, ANNOUNCED, 103);
        assert!(neighbors.confirm(ADDR, seconds(104), 0.5));
        assert_eq!(
            state(&neighbors),
            Some((State::Reachable(seconds(134)), OTHER))
        );
    }

    #[test]
    fn given_up_after_three_questions() {
        let mut neighbors = Neighbors::default();
        look_up(&mut neighbors, 0);
        for now in 1..3 {
            let early = seconds(now) - Duration::from_millis(1);
            assert!(neighbors.poll(early).is_none());
            let due = neighbors.poll(seconds(now));
            assert!(matches!(due, Some(Overdue::Ask(ADDR, None))));
        }
        let due = neighbors.poll(seconds(3));
        assert!(matches!(due, Some(Overdue::GiveUp(ADDR, lost)) if lost.len() == 1));
        assert_eq!(neighbors.deadline(), None);
        assert_eq!(neighbors.bytes, 0);
    }

    /// RFC 4861 section 7.2.5, and the table in its appendix C.
    #[test]
    fn what_an_advertisement_changes() {
        let advert = |solicited, overrides| Heard::Advert {
            solicited,
            overrides,
        };
        let reachable = State::Reachable(seconds(30));
        let again = State::Reachable(seconds(31));
        let cases = [
            // From REACHABLE: the message, the hardware address in it, and what comes of it.
            (advert(false, false), MAC, reachable, MAC, true),
            (advert(false, false), OTHER, State::Stale, MAC, false),
            (advert(true, false), OTHER, State::Stale, MAC, false),
            (advert(true, false), MAC, again, MAC, true),
            (advert(true, true), OTHER, again, OTHER, true),
            (advert(false, true), MAC, reachable, MAC, true),
            (advert(false, true), OTHER, State::Stale, OTHER, true),
            (Heard::Talks, MAC, reachable, MAC, true),
            (Heard::Talks, OTHER, State::Stale, OTHER, true),
        ];
        for (heard, mac, after, kept, taken) in cases {
            let mut neighbors = Neighbors::default();
            look_up(&mut neighbors, 0);
            learn(&mut neighbors, MAC, ANSWER, 0);
            let learned = learn(&mut neighbors, mac, heard, 1);
            assert_eq!(learned.taken, taken, "{heard:?} {mac}");
            assert_eq!(state(&neighbors), Some((after, kept)), "{heard:?} {mac}");
        }
        // From INCOMPLETE, every address is better than none.
        for (heard, after) in [
            (advert(false, false), State::Delay),
            (advert(true, false), reachable),
        ] {
            let mut neighbors = Neighbors::default();
            look_up(&mut neighbors, 0);
            assert!(!neighbors.learn(ADDR, None, heard, seconds(0), 0.5).taken);
            assert_eq!(learn(&mut neighbors, MAC, heard, 0).packets.len(), 1);
            assert_eq!(state(&neighbors), Some((after, MAC)));
        }
        // From PROBE, only an answer is a proof; it need not repeat the hardware address.
        let mut neighbors = Neighbors::default();
        learn(&mut neighbors, MAC, Heard::Talks, 0);
        assert_eq!(neighbors.probe(ADDR, seconds(0)), Some(MAC));
        assert_eq!(neighbors.probe(ADDR, seconds(0)), None);
        learn(&mut neighbors, MAC, ANNOUNCED, 0);
        assert!(matches!(
            state(&neighbors),
            Some((State::Probe { .. }, MAC))
        ));
        neighbors.learn(ADDR, None, ANSWER, seconds(0), 0.5);
        assert_eq!(state(&neighbors), Some((reachable, MAC)));
        assert_eq!(neighbors.deadline(), None);
        // And no advertisement makes an entry.
        let mut neighbors = Neighbors::default();
        learn(&mut neighbors, MAC, ANSWER, 0);
        assert_eq!(state(&neighbors), None);
    }

    #[test]
    fn bounded() {
        let mut neighbors = Neighbors::default();
        for _ in 0..MAX_WAITING {
            look_up(&mut neighbors, 0);
        }
        let kept = look_up(&mut neighbors, 0);
        assert!(matches!(kept, Lookup::Kept { thrown_out, .. } if thrown_out.len() == 1));
        for number in 0..5000 {
            neighbors.learn(host(number), Some(MAC), Heard::Talks, seconds(0), 0.5);
        }
        let unresolved = 1;
        assert_eq!(neighbors.neighbors.len(), MAX_RESOLVED + unresolved);
        let (mut offered, mut lost) = (0, 0);
        for number in 5000..10_000 {
            for _ in 0..10 {
                if let Lookup::Kept { thrown_out, .. } =
                    look_up_host(&mut neighbors, host(number), 0)
                {
                    lost += thrown_out.len();
                }
                offered += 1;
            }
        }
        assert_eq!(neighbors.neighbors.len(), MAX_RESOLVED + MAX_UNRESOLVED);
        assert!(neighbors.bytes <= MAX_WAITING_BYTES);
        // Every packet waits, or was counted.
        let bytes: usize = neighbors
            .neighbors
            .values()
            .map(|one| bytes_of(&one.waiting))
            .sum();
        assert_eq!(neighbors.bytes, bytes);
        let before = MAX_WAITING;
        assert_eq!(neighbors.forget().len(), before + offered - lost);
    }

    /// Neither addresses that are only tried, nor stations that only talk, push out one that
    /// answered, or one that a packet waits for.
    #[test]
    fn strangers_push_out_nobody() {
        let mut neighbors = Neighbors::default();
        look_up(&mut neighbors, 0);
        learn(&mut neighbors, MAC, ANSWER, 0);
        let waits = host(1);
        for number in 1000..6000 {
            look_up_host(&mut neighbors, host(number), 1);
        }
        look_up_host(&mut neighbors, waits, 1);
        for number in 10_000..15_000 {
            neighbors.learn(host(number), Some(OTHER), Heard::Talks, seconds(1), 0.5);
        }
        assert_eq!(
            state(&neighbors),
            Some((State::Reachable(seconds(30)), MAC))
        );
        assert!(neighbors.neighbors.contains_key(&waits));
        // Nor while it is asked whether it is still there.
        look_up(&mut neighbors, 31);
        for number in 20_000..25_000 {
            neighbors.learn(host(number), Some(OTHER), Heard::Talks, seconds(31), 0.5);
        }
        assert_eq!(state(&neighbors), Some((State::Delay, MAC)));
        // And one that answers finds room among them.
        neighbors.learn(waits, Some(MAC), ANSWER, seconds(31), 0.5);
        assert!(neighbors.neighbors.contains_key(&waits));
        assert!(neighbors.neighbors.len() <= MAX_RESOLVED + MAX_UNRESOLVED);
    }
}

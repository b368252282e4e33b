//! All interfaces, and the index of their addresses.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use scheme::Now;
use slab::Slab;

use super::{
    Activity, Driver, Drops, IfAddr, IfFlags, IfIndex, IfName, IfOutput, IfStats, Ifnet, MAX_ADDRS,
    QueueSpec, SendQueue, is_link_local,
};
use crate::memory::Pool;
use crate::timers::{Timer, Timers};

/// All interfaces, and the index of their addresses.
#[derive(Debug)]
pub struct IfTable {
    /// `None` for an interface that is gone, until [`free_number`](Self::free_number).
    ifs: Slab<Option<Ifnet>>,
    names: BTreeMap<String, IfIndex>,
    locals: HashMap<IpAddr, Vec<IfIndex>, ahash::RandomState>,
    broadcasts: HashMap<Ipv4Addr, u32, ahash::RandomState>,
    /// Interfaces with activity that [`poll_activity`](Self::poll_activity) has not reported.
    active: VecDeque<IfIndex>,
    /// Interfaces that are gone and not yet reported.
    detached: VecDeque<Ifnet>,
    /// Bytes of memory that all send queues take.
    queued: usize,
    /// Interfaces whose send queues hold packets back, and until when.
    releases: Timers<IfIndex>,
    generation: u64,
    /// The memory for what interfaces drop, if somebody watches that.
    drops: Option<Pool>,
    /// Addresses of all interfaces.
    addrs: usize,
    /// Bytes of memory that the flows of all send queues take.
    flows: usize,
}

/// Bytes of memory that all send queues may take. With more, only an empty one takes a packet.
pub(crate) const SEND_QUEUES: usize = 256 << 20;
/// Bytes of memory that the flows of all send queues may take, besides their packets.
const FLOW_QUEUES: usize = 128 << 20;
/// Most addresses of all interfaces.
const MAX_ALL_ADDRS: usize = 131_072;

impl IfTable {
    /// An empty table. `hasher` hashes the addresses.
    pub fn new(hasher: ahash::RandomState) -> Self {
        Self {
            ifs: Slab::new(),
            names: BTreeMap::new(),
            locals: HashMap::with_hasher(hasher.clone()),
            broadcasts: HashMap::with_hasher(hasher),
            active: VecDeque::new(),
            detached: VecDeque::new(),
            queued: 0,
            releases: Timers::default(),
            generation: 0,
            drops: None,
            addrs: 0,
            flows: 0,
        }
    }

    /// `if_attach`: makes an interface; `None` if the name is taken.
    pub fn attach(
        &mut self,
        name: &str,
        driver: Driver,
        output: IfOutput,
        flags: IfFlags,
        if_type: u8,
        mtu: u16,
    ) -> Option<IfIndex> {
        if self.names.contains_key(name) {
            return None;
        }
        let entry = self.ifs.vacant_entry();
        let index = IfIndex(u32::try_from(entry.key()).ok()?);
        entry.insert(Some(Ifnet {
            index,
            name: name.to_owned(),
            driver,
            output,
            link_flags: 0,
            present: true,
            debug: false,
            mtu,
            wanted_mtu: mtu,
            most_mtu: u16::MAX,
            rx_ring: None,
            advertised_mtu: u16::MAX,
            advertised_hops: None,
            flags,
            if_type,
            baudrate: 0,
            addrs: Vec::new(),
            deprecated: Vec::new(),
            tentative: Vec::new(),
            advertised: Vec::new(),
            groups: BTreeMap::new(),
            stats: IfStats::new(self.drops.as_ref()),
            snd: SendQueue::default(),
            snd_counted: 0,
            may_queue: true,
            room_awaited: false,
            release: Timer::default(),
            next_hops: Vec::new(),
            taps: Vec::new(),
            activity: Activity::empty(),
        }));
        self.names.insert(name.to_owned(), index);
        self.touch();
        Some(index)
    }

    /// `if_detach`: removes an interface and its addresses. [`poll_detached`](Self::poll_detached)
    /// gives what is left of it. False if there is none with this number.
    pub fn detach(&mut self, index: IfIndex) -> bool {
        let Some(ifp) = self.get(index) else {
            return false;
        };
        for addr in ifp.addrs.clone() {
            self.remove_addr(index, &addr);
        }
        let slot = self.ifs.get_mut(index.0 as usize);
        let Some(mut ifp) = slot.and_then(Option::take) else {
            return false;
        };
        self.releases.disarm(&mut ifp.release, index);
        self.names.remove(&ifp.name);
        self.queued -= ifp.snd_counted;
        self.flows -= ifp.snd.spec().flow_memory();
        self.detached.push_back(ifp);
        self.touch();
        true
    }

    /// The next interface that is gone. Its number is not used again before
    /// [`free_number`](Self::free_number).
    #[must_use]
    pub fn poll_detached(&mut self) -> Option<Ifnet> {
        self.detached.pop_front()
    }

    /// Frees the number of an interface that is gone: nothing stands for it any more.
    pub(crate) fn free_number(&mut self, index: IfIndex) {
        if let Some(None) = self.ifs.get(index.0 as usize) {
            self.ifs.remove(index.0 as usize);
        }
    }

    /// The next interface with activity, and that activity.
    #[must_use]
    pub fn poll_activity(&mut self) -> Option<(IfIndex, Activity)> {
        loop {
            let index = self.active.pop_front()?;
            // It may be gone since then.
            if let Some(ifp) = self.get_mut(index) {
                return Some((index, std::mem::take(&mut ifp.activity)));
            }
        }
    }

    /// Arms the timer of an interface whose send queue holds packets back. To be called after anything
    /// that puts packets on the queue or takes them off.
    #[inline]
    pub(crate) fn watch_release(&mut self, index: IfIndex, now: Now) {
        let Some(Some(ifp)) = self.ifs.get_mut(index.0 as usize) else {
            return;
        };
        match ifp.snd.released_at(now) {
            Some(at) => self.releases.arm(&mut ifp.release, index, at),
            None => self.releases.disarm(&mut ifp.release, index),
        }
    }

    /// The monotonic time at which the first queue releases a packet that its rate holds back.
    #[inline]
    pub(crate) fn release_deadline(&self) -> Option<Duration> {
        self.releases.deadline()
    }

    /// `tunstart`'s caller: notes the interfaces whose queues release a packet by now.
    #[inline(never)]
    pub(crate) fn release(&mut self, now: Now) {
        while let Some(index) = self.releases.pop(now.monotonic) {
            let ready = self.get_mut(index).is_some_and(|ifp| {
                ifp.release.expired();
                ifp.snd.ready(now)
            });
            match ready {
                true => self.note(index, Activity::READY | Activity::RELEASED),
                false => self.watch_release(index, now),
            }
        }
    }

    /// Whether there is activity that was not polled. While drops are watched there may always be
    /// some.
    #[inline]
    pub(crate) fn has_activity(&self) -> bool {
        !self.active.is_empty() | !self.detached.is_empty() | self.drops.is_some()
    }

    /// Has interfaces keep what they drop in this memory, until it is [taken](Ifnet::take_drops), or
    /// not any more.
    pub(crate) fn watch_drops(&mut self, drops: Option<Pool>) {
        for (_, ifp) in &mut self.ifs {
            if let Some(ifp) = ifp {
                let watched = drops.as_ref().map(|drops| Box::new(Drops::new(drops)));
                ifp.stats.watched = watched;
            }
        }
        self.drops = drops;
    }

    /// Whether interfaces keep what they drop.
    #[inline]
    pub(crate) fn watches_drops(&self) -> bool {
        self.drops.is_some()
    }

    /// Applies `change` to an interface. Resulting activity will be polled.
    #[inline]
    pub(crate) fn with<T>(
        &mut self,
        index: IfIndex,
        change: impl FnOnce(&mut Ifnet) -> T,
    ) -> Option<T> {
        let ifp = self.ifs.get_mut(index.0 as usize)?.as_mut()?;
        let before = ifp.activity;
        ifp.may_queue = self.queued < SEND_QUEUES || ifp.snd.is_empty();
        let result = change(ifp);
        let memory = ifp.snd.memory();
        self.queued = self.queued - ifp.snd_counted + memory;
        ifp.snd_counted = memory;
        if before.is_empty() && !ifp.activity.is_empty() {
            self.active.push_back(index);
        }
        Some(result)
    }

    /// Bytes of memory that all send queues take.
    #[cfg(test)]
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// Notes activity at an interface.
    #[inline]
    pub(crate) fn note(&mut self, index: IfIndex, activity: Activity) {
        self.with(index, |ifp| ifp.activity |= activity);
    }

    /// Notes that packets left the send queue of an interface. That is activity if somebody waits for
    /// the room, or if a rate says when the next may leave.
    #[inline]
    pub(crate) fn note_room(&mut self, index: IfIndex) {
        self.with(index, |ifp| {
            if ifp.room_awaited || ifp.holds_back() {
                ifp.activity |= Activity::ROOM;
            }
        });
    }

    /// Notes a change that files show, counters not included.
    pub(crate) fn touch(&mut self) {
        self.generation += 1;
    }

    /// Grows with every change, except of counters.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// The interface with this number.
    pub fn get(&self, index: IfIndex) -> Option<&Ifnet> {
        self.ifs.get(index.0 as usize)?.as_ref()
    }

    /// The interface with this number, to change it.
    pub fn get_mut(&mut self, index: IfIndex) -> Option<&mut Ifnet> {
        self.ifs.get_mut(index.0 as usize)?.as_mut()
    }

    /// The interface with this name.
    pub fn by_name(&self, name: &str) -> Option<IfIndex> {
        self.names.get(name).copied()
    }

    /// `lo0`: made first, and never gone.
    pub fn loopback(&self) -> Option<&Ifnet> {
        let first = self.get(IfIndex(0));
        first.filter(|ifp| ifp.flags.contains(IfFlags::LOOPBACK))
    }

    /// The name of the interface with this number.
    pub(crate) fn name_of(&self, index: IfIndex) -> Option<IfName> {
        IfName::new(&self.get(index)?.name)
    }

    /// Names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// Every interface.
    pub fn iter(&self) -> impl Iterator<Item = &Ifnet> {
        self.ifs.iter().filter_map(|(_, ifp)| ifp.as_ref())
    }

    /// Every interface, to change it.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Ifnet> {
        self.ifs.iter_mut().filter_map(|(_, ifp)| ifp.as_mut())
    }

    /// Whether an interface may have one more address.
    pub(crate) fn has_room_for_addr(&self, index: IfIndex) -> bool {
        let ifp = self.get(index);
        ifp.is_some_and(|ifp| ifp.addrs.len() < MAX_ADDRS) && self.addrs < MAX_ALL_ADDRS
    }

    /// Replaces the discipline and the rate of a send queue, as [`Ifnet::change_queue`] does. `None`
    /// if there is no such interface; false if the flows of all queues would take too much memory.
    pub(crate) fn change_queue(
        &mut self,
        index: IfIndex,
        spec: QueueSpec,
        key: &ahash::RandomState,
        now: Now,
    ) -> Option<bool> {
        let old = self.get(index)?.snd.spec().flow_memory();
        let flows = self.flows - old + spec.flow_memory();
        if flows > FLOW_QUEUES && spec.flow_memory() > old {
            return Some(false);
        }
        self.with(index, |ifp| ifp.change_queue(spec, key, now))?;
        self.flows = flows;
        Some(true)
    }

    /// Adds an address to an interface. False if it is there already, or there are too many.
    pub fn add_addr(&mut self, index: IfIndex, addr: IfAddr) -> bool {
        let Some(ifp) = self.get(index) else {
            return false;
        };
        if ifp.addr(&addr.addr).is_some() || !self.has_room_for_addr(index) {
            return false;
        }
        let Some(ifp) = self.get_mut(index) else {
            return false;
        };
        ifp.addrs.push(addr);
        self.addrs += 1;
        self.locals.entry(addr.addr).or_default().push(index);
        if let Some(broadcast) = addr.broadcast() {
            *self.broadcasts.entry(broadcast).or_default() += 1;
        }
        true
    }

    /// Removes an address. False if the interface does not have it.
    pub fn remove_addr(&mut self, index: IfIndex, addr: &IfAddr) -> bool {
        let Some(ifp) = self.get_mut(index) else {
            return false;
        };
        let Some(at) = ifp.addrs.iter().position(|own| own == addr) else {
            return false;
        };
        ifp.addrs.remove(at);
        self.addrs -= 1;
        if let Some(holders) = self.locals.get_mut(&addr.addr) {
            if let Some(at) = holders.iter().position(|&holder| holder == index) {
                holders.remove(at);
            }
            if holders.is_empty() {
                self.locals.remove(&addr.addr);
            }
        }
        if let Some(broadcast) = addr.broadcast()
            && let Some(count) = self.broadcasts.get_mut(&broadcast)
        {
            *count -= 1;
            if *count == 0 {
                self.broadcasts.remove(&broadcast);
            }
        }
        true
    }

    /// Whether the address is ours, on whichever interface: the weak host model of RFC 1122
    /// section 3.3.4.2.
    #[inline]
    pub fn is_local(&self, addr: &IpAddr) -> bool {
        self.locals.contains_key(addr)
            // The whole of 127/8 is this host.
            || matches!(addr, IpAddr::V4(addr) if addr.is_loopback())
    }

    /// Whether the address is ours as seen from an interface. One that is valid on a single link is
    /// ours on its own only (RFC 4007 section 6); lo0 is on all of them.
    #[inline]
    pub(crate) fn is_local_on(&self, addr: &IpAddr, dev: IfIndex) -> bool {
        let on_link = |ifp: &Ifnet| ifp.is_loopback() || ifp.addr(addr).is_some();
        self.is_local(addr) && (!is_link_local(addr) || self.get(dev).is_some_and(on_link))
    }

    /// The interface that packets leave by because both addresses are valid on a single link, that
    /// of `src`; `None` if a route decides.
    pub(crate) fn link_of(&self, src: &IpAddr, dst: &IpAddr) -> Option<IfIndex> {
        let on_link = is_link_local(src) && is_link_local(dst);
        on_link.then(|| self.holder(src)).flatten()
    }

    /// An interface that has the address.
    pub fn holder(&self, addr: &IpAddr) -> Option<IfIndex> {
        self.locals.get(addr)?.first().copied()
    }

    /// Whether the address stands for many hosts: a group, or a [broadcast](Self::is_broadcast)
    /// address.
    pub fn is_many(&self, addr: &IpAddr) -> bool {
        addr.is_multicast() || matches!(addr, IpAddr::V4(v4) if self.is_broadcast(v4))
    }

    /// Whether the address is the broadcast address of a network we are on, or 255.255.255.255.
    #[inline]
    pub fn is_broadcast(&self, addr: &Ipv4Addr) -> bool {
        addr.is_broadcast() || self.broadcasts.contains_key(addr)
    }
}

#[cfg(test)]
mod tests {
    use scheme::Now;

    use super::super::{DropReason, Family, Frame, Outgoing, OutputError, Sent};
    use super::*;
    use crate::packet::Packet;

    /// An interface that sends nothing.
    fn refuse(_: &mut Ifnet, _: &mut Outgoing) -> Result<Sent, OutputError> {
        Err(OutputError::Down)
    }

    fn table() -> IfTable {
        IfTable::new(ahash::RandomState::with_seeds(1, 2, 3, 4))
    }

    fn attach(ifs: &mut IfTable, unit: u16) -> Option<IfIndex> {
        let (driver, flags) = (Driver::Tun(unit), IfFlags::POINTOPOINT);
        ifs.attach(&format!("tun{unit}"), driver, refuse, flags, 0x17, 1500)
    }

    #[test]
    fn addresses_of_all_interfaces_are_bounded() {
        let mut ifs = table();
        let addr = |unit: u16, at: usize| {
            let text = format!("10.{}.{}.{}/32", unit >> 8, unit & 0xff, at);
            IfAddr::parse(&text).unwrap()
        };
        let full = (MAX_ALL_ADDRS / MAX_ADDRS) as u16;
        let devs: Vec<_> = (0..full)
            .map(|unit| {
                let dev = attach(&mut ifs, unit).unwrap();
                (0..MAX_ADDRS).for_each(|at| assert!(ifs.add_addr(dev, addr(unit, at))));
                dev
            })
            .collect();
        let more = attach(&mut ifs, full).unwrap();
        assert!(!ifs.has_room_for_addr(more) && !ifs.add_addr(more, addr(full, 1)));
        // One that goes, alone or with its interface, makes room.
        assert!(ifs.remove_addr(devs[0], &addr(0, 9)));
        assert!(ifs.add_addr(more, addr(full, 1)) && !ifs.add_addr(more, addr(full, 2)));
        ifs.detach(devs[1]);
        let taken = (2..=255).filter(|&at| ifs.add_addr(more, addr(full, at)));
        assert_eq!(taken.count(), MAX_ADDRS - 2);
    }

    #[test]
    fn an_address_is_local_while_one_interface_has_it() {
        let mut ifs = table();
        let a = attach(&mut ifs, 0).unwrap();
        let b = attach(&mut ifs, 1).unwrap();
        assert_eq!(attach(&mut ifs, 1), None);
        let addr = IfAddr::parse("10.0.0.1/24").unwrap();
        assert!(ifs.add_addr(a, addr));
        assert!(!ifs.add_addr(a, addr));
        assert!(ifs.add_addr(b, addr));
        assert!(ifs.is_broadcast(&Ipv4Addr::new(10, 0, 0, 255)));
        assert!(ifs.remove_addr(a, &addr));
        assert!(!ifs.remove_addr(a, &addr));
        assert!(ifs.is_local(&addr.addr));
        assert!(ifs.detach(b));
        assert!(!ifs.is_local(&addr.addr));
        assert!(!ifs.is_broadcast(&Ipv4Addr::new(10, 0, 0, 255)));
        assert_eq!(ifs.by_name("tun1"), None);
        assert!(ifs.is_local(&"127.3.2.1".parse().unwrap()));
    }

    #[test]
    fn a_number_is_used_again_when_its_end_has_been_handled() {
        let mut ifs = table();
        let a = attach(&mut ifs, 0).unwrap();
        assert!(ifs.detach(a) && !ifs.detach(a));
        assert!(ifs.get(a).is_none() && ifs.iter().next().is_none());
        assert_ne!(attach(&mut ifs, 0), Some(a));
        assert_eq!(ifs.poll_detached().map(|ifp| ifp.index), Some(a));
        let other = attach(&mut ifs, 1).unwrap();
        assert_ne!(other, a, "somebody may be about to handle its end");
        ifs.free_number(a);
        assert_eq!(attach(&mut ifs, 2), Some(a));
        // One that is there has its number.
        ifs.free_number(other);
        assert!(ifs.get(other).is_some());
    }

    #[test]
    fn all_send_queues_together_are_bounded_and_an_empty_one_takes_a_packet() {
        let mut ifs = table();
        let spec = |discipline| {
            QueueSpec::parse(&format!("{discipline} limit 65536 packets 67108864 bytes")).unwrap()
        };
        let specs = ["fifo", "priq", "fq_codel"].map(spec);
        let send = |ifs: &mut IfTable, dev| {
            let next_hop = Ipv4Addr::LOCALHOST.into();
            let frame = Frame::new(Packet::zeroed(60_000), Family::Inet, next_hop);
            let sent = ifs.with(dev, |ifp| ifp.enqueue(frame, 60_000, Now::default()));
            sent.unwrap().is_ok()
        };
        let mut devs = Vec::new();
        for unit in 0..6 {
            let dev = attach(&mut ifs, unit).unwrap();
            let spec = specs[unit as usize % specs.len()];
            let key = ahash::RandomState::with_seed(1);
            assert_eq!(
                ifs.change_queue(dev, spec, &key, Now::default()),
                Some(true)
            );
            // One of these makes room for the newest.
            let _ = (0..1200).all(|_| send(&mut ifs, dev));
            devs.push(dev);
        }
        let held: usize = ifs.iter().map(|ifp| ifp.snd.memory()).sum();
        assert_eq!(ifs.queued(), held);
        assert!(
            held > SEND_QUEUES && held < SEND_QUEUES + 3 * 65_536,
            "{held}"
        );
        let last = ifs.get(devs[5]).unwrap();
        assert_eq!(
            (last.snd.len(), last.stats.drops(DropReason::NoMemory)),
            (1, 1)
        );
        // What is taken, and what goes with its interface, makes room.
        ifs.with(devs[5], |ifp| ifp.snd.purge());
        assert!(ifs.detach(devs[0]) && send(&mut ifs, devs[5]) && send(&mut ifs, devs[5]));
        let held: usize = ifs.iter().map(|ifp| ifp.snd.memory()).sum();
        assert_eq!(ifs.queued(), held);
    }

    #[test]
    fn what_happens_is_told_once() {
        let mut ifs = table();
        let a = attach(&mut ifs, 0).unwrap();
        assert!(!ifs.has_activity());
        ifs.note(a, Activity::QUEUED);
        ifs.note(a, Activity::READY);
        let both = Activity::QUEUED | Activity::READY;
        assert_eq!(ifs.poll_activity(), Some((a, both)));
        assert_eq!(ifs.poll_activity(), None);
        ifs.note(a, Activity::ROOM);
        ifs.detach(a);
        assert_eq!(ifs.poll_activity(), None);
    }
}

//! Interfaces: names, flags, addresses, counters, send queues. The kernel's `struct ifnet`.
//!
//! An [`Ifnet`] knows nothing of its driver but a [tag](Driver); what the driver does with a packet
//! is decided where the two meet, in [`crate::netisr`]'s output path.

mod family;
mod queue;
mod stats;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bitflags::bitflags;
use ipnet::IpNet;
use scheme::{FileId, Now};
use slab::Slab;

use crate::link::PortId;

pub use family::Family;
pub use queue::{Discipline, Fifo, FifoLimits, Frame, Full};
pub use stats::{DropReason, IfStats, Ledger};

/// Smallest mtu of an interface, bytes (`IF_MINMTU`: TCP/IP headers and 32 bytes).
pub const IF_MINMTU: u16 = 72;
/// Smallest mtu over which IPv6 runs, bytes (RFC 8200 section 5).
pub const IPV6_MINMTU: u16 = 1280;
/// Most addresses of one interface.
pub const MAX_ADDRS: usize = 256;
/// Most groups that one interface can join.
pub const MAX_GROUPS: usize = 256;
/// Of these, what only the superuser may still join.
pub const RESERVED_GROUPS: usize = 32;

/// Number of an interface. Used again after it is destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IfIndex(pub u32);

/// Which driver an interface belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// The loopback interface: what goes out comes in.
    Loopback,
    /// The tun device of this unit.
    Tun(u16),
    /// The Ethernet adapter with this number.
    Ethernet(PortId),
}

bitflags! {
    /// Interface flags, by their BSD numbers.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct IfFlags: u32 {
        /// Wanted up by the administrator.
        const UP = 0x1;
        /// Has a broadcast address.
        const BROADCAST = 0x2;
        /// Is a loopback.
        const LOOPBACK = 0x8;
        /// Has one peer.
        const POINTOPOINT = 0x10;
        /// The driver is ready.
        const RUNNING = 0x40;
        /// Carries multicast.
        const MULTICAST = 0x8000;
    }
}

impl fmt::Display for IfFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (name, _) in self.iter_names() {
            if !std::mem::replace(&mut first, false) {
                f.write_str(",")?;
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IfAddr {
    /// Ours.
    pub addr: IpAddr,
    /// Length of the network's prefix, bits. The whole address if there is a peer.
    pub prefix_len: u8,
    /// The one host at the other end, instead of a network.
    pub peer: Option<IpAddr>,
}

impl IfAddr {
    /// Reads `10.0.0.1/24`, `10.0.0.1` or `10.0.0.1 peer 10.0.0.2`. `None` for anything else, and
    /// for what no interface can have.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let first = words.next()?;
        let bits = |addr: &IpAddr| if addr.is_ipv4() { 32 } else { 128 };
        let (addr, prefix_len) = match first.split_once('/') {
            Some((addr, len)) => {
                let addr: IpAddr = addr.parse().ok()?;
                (addr, parse_decimal(len).filter(|&len| len <= bits(&addr))?)
            }
            None => {
                let addr: IpAddr = first.parse().ok()?;
                (addr, bits(&addr))
            }
        };
        let peer = match words.next() {
            None => None,
            Some("peer") if prefix_len == bits(&addr) => {
                let peer: IpAddr = words.next()?.parse().ok()?;
                Some(peer).filter(|peer| peer.is_ipv4() == addr.is_ipv4() && is_host(peer))
            }
            Some(_) => return None,
        };
        let wants_peer = text.split_ascii_whitespace().count() > 1;
        if words.next().is_some() || !is_host(&addr) || wants_peer != peer.is_some() {
            return None;
        }
        Some(Self {
            addr,
            prefix_len,
            peer,
        })
    }

    /// An address without a network.
    pub fn host(addr: IpAddr) -> Self {
        let prefix_len = if addr.is_ipv4() { 32 } else { 128 };
        Self {
            addr,
            prefix_len,
            peer: None,
        }
    }

    /// What is reached directly because of it: its network, or its peer. `None` for an address that
    /// stands alone.
    pub fn prefix(&self) -> Option<IpNet> {
        match self.peer {
            Some(peer) => Some(IpNet::from(peer)),
            None => {
                let net = IpNet::new(self.addr, self.prefix_len).ok()?.trunc();
                (net.prefix_len() < net.max_prefix_len()).then_some(net)
            }
        }
    }

    /// Whether `addr` is on the network of this address, or its peer.
    pub fn covers(&self, addr: &IpAddr) -> bool {
        match self.peer {
            Some(peer) => peer == *addr,
            None => common_prefix(&self.addr, addr) >= u32::from(self.prefix_len),
        }
    }

    /// The broadcast address of its network (RFC 1122 section 3.2.1.3); none for a /31 or longer.
    pub fn broadcast(&self) -> Option<Ipv4Addr> {
        match (self.addr, self.peer) {
            (IpAddr::V4(addr), None) if self.prefix_len <= 30 => {
                let host = u32::MAX.checked_shr(self.prefix_len.into()).unwrap_or(0);
                Some(Ipv4Addr::from(u32::from(addr) | host))
            }
            _ => None,
        }
    }
}

impl fmt::Display for IfAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer {
            Some(peer) => write!(f, "{} peer {peer}", self.addr),
            None => write!(f, "{}/{}", self.addr, self.prefix_len),
        }
    }
}

/// A decimal number with nothing around it: no sign, and no zero in front of another digit.
pub(crate) fn parse_decimal<T: std::str::FromStr>(text: &str) -> Option<T> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let plain = text == "0" || !text.starts_with('0');
    (digits && plain).then(|| text.parse().ok()).flatten()
}

/// Bits that two addresses have in common from the left; 0 across families.
pub(crate) fn common_prefix(a: &IpAddr, b: &IpAddr) -> u32 {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u32::from(*a) ^ u32::from(*b)).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(*a) ^ u128::from(*b)).leading_zeros(),
        _ => 0,
    }
}

/// Whether one host can have this address: not unspecified, multicast, broadcast or reserved.
#[inline]
pub fn is_host(addr: &IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => v4.octets()[0] != 0 && v4.octets()[0] < 224,
        IpAddr::V6(v6) => {
            !v6.is_unspecified() && !v6.is_multicast() && v6.to_ipv4_mapped().is_none()
        }
    }
}

/// Who is in a group on an interface: how often each joined and did not leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Sockets.
    pub sockets: u32,
    /// Lines written to `multicast`.
    pub settings: u32,
    /// Addresses of the interface, by whose solicited-node group they are found.
    pub addresses: u32,
}

impl Members {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn of(&mut self, member: Member) -> &mut u32 {
        match member {
            Member::Socket => &mut self.sockets,
            Member::Setting => &mut self.settings,
        }
    }
}

/// One of them: nobody can leave for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Member {
    Socket,
    Setting,
}

/// One interface.
#[derive(Debug)]
pub struct Ifnet {
    /// Its number.
    pub index: IfIndex,
    /// Its name, such as `tun0`.
    pub name: String,
    /// Its driver.
    pub driver: Driver,
    /// Largest packet, bytes, link header not included.
    pub mtu: u16,
    /// Flags.
    pub flags: IfFlags,
    /// Type, by `<net/if_types.h>`.
    pub if_type: u8,
    /// Line speed, bits a second; 0 for unknown.
    pub baudrate: i32,
    /// Addresses, in the order in which they were added.
    pub addrs: Vec<IfAddr>,
    /// Addresses from which nothing is to begin any more (RFC 4862 section 5.5.4), whether the
    /// interface has them or is about to.
    pub deprecated: Vec<IpAddr>,
    /// Groups joined, and by whom.
    pub groups: BTreeMap<IpAddr, Members>,
    /// Counters.
    pub stats: IfStats,
    /// Packets for the wire.
    pub snd: Box<dyn Discipline>,
    /// Who captures here.
    pub taps: Vec<FileId>,
}

impl Ifnet {
    /// Whether IPv6 runs here.
    pub fn has_ipv6(&self) -> bool {
        self.mtu >= IPV6_MINMTU
    }

    /// Whether what is sent by it comes back.
    pub fn is_loopback(&self) -> bool {
        self.flags.contains(IfFlags::LOOPBACK)
    }

    /// Whether packets leave by it.
    pub fn is_up(&self) -> bool {
        self.flags.contains(IfFlags::UP)
    }

    /// Whether `group` is received: joined, or one that every host hears.
    pub fn hears(&self, group: &IpAddr) -> bool {
        if !self
            .flags
            .intersects(IfFlags::MULTICAST | IfFlags::LOOPBACK)
        {
            return false;
        }
        let by_nature = match group {
            IpAddr::V4(group) => *group == Ipv4Addr::new(224, 0, 0, 1),
            IpAddr::V6(group) => {
                let octets = group.octets();
                // All nodes, of the interface and of the link; and the solicited-node groups of
                // its addresses.
                octets == [0xff, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
                    || octets == [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
                    || self.addrs.iter().any(|addr| match &addr.addr {
                        IpAddr::V6(addr) => solicited_node(addr) == *group,
                        IpAddr::V4(_) => false,
                    })
            }
        };
        by_nature || self.groups.contains_key(group)
    }

    /// An address of its own, with its network or peer.
    pub(crate) fn addr(&self, addr: &IpAddr) -> Option<IfAddr> {
        self.addrs.iter().find(|own| own.addr == *addr).copied()
    }

    /// Its first link-local IPv6 address.
    pub(crate) fn link_local(&self) -> Option<Ipv6Addr> {
        self.addrs.iter().find_map(|own| match own.addr {
            IpAddr::V6(addr) if addr.is_unicast_link_local() => Some(addr),
            _ => None,
        })
    }

    /// Whether `addr` is a broadcast address of one of its networks.
    pub fn broadcasts(&self, addr: &Ipv4Addr) -> bool {
        self.addrs.iter().any(|own| own.broadcast() == Some(*addr))
    }

    /// The address to send from to `dst`, by way of `next_hop`: one on the next hop's network
    /// first, then the one with most in common with the destination, of the same scope, and not
    /// deprecated if it can be helped.
    pub fn source_for(&self, dst: &IpAddr, next_hop: &IpAddr) -> Option<IpAddr> {
        let candidates = self
            .addrs
            .iter()
            .filter(|own| own.addr.is_ipv4() == dst.is_ipv4());
        let rank = |own: &&IfAddr| {
            let same_scope = is_link_local(&own.addr) == is_link_local(dst);
            let common = if dst.is_ipv6() {
                common_prefix(&own.addr, dst)
            } else {
                0
            };
            let fresh = !self.deprecated.contains(&own.addr);
            (same_scope, fresh, own.covers(next_hop), common)
        };
        // The first of equals, where max_by_key takes the last.
        let best = candidates.rev().max_by_key(rank)?;
        Some(best.addr)
    }
}

/// The group of the few stations whose address ends alike (RFC 4291 section 2.7.1).
pub(crate) fn solicited_node(addr: &Ipv6Addr) -> Ipv6Addr {
    let end = u128::from(*addr) & 0xff_ffff;
    Ipv6Addr::from(0xff02_0000_0000_0000_0000_0001_ff00_0000 | end)
}

/// Whether the address means something on one link only.
pub(crate) fn is_link_local(addr: &IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => addr.is_link_local(),
        IpAddr::V6(addr) => addr.is_unicast_link_local(),
    }
}

/// Every interface, and whose address is whose.
#[derive(Debug)]
pub struct IfTable {
    ifs: Slab<Ifnet>,
    names: BTreeMap<String, IfIndex>,
    locals: HashMap<IpAddr, Vec<IfIndex>, ahash::RandomState>,
    broadcasts: HashMap<Ipv4Addr, u32, ahash::RandomState>,
}

impl IfTable {
    /// No interfaces. `hasher` decides how addresses spread in the tables.
    pub fn new(hasher: ahash::RandomState) -> Self {
        Self {
            ifs: Slab::new(),
            names: BTreeMap::new(),
            locals: HashMap::with_hasher(hasher.clone()),
            broadcasts: HashMap::with_hasher(hasher),
        }
    }

    /// `if_attach`: makes an interface; `None` if the name is taken.
    pub fn attach(
        &mut self,
        name: &str,
        driver: Driver,
        flags: IfFlags,
        if_type: u8,
        mtu: u16,
    ) -> Option<IfIndex> {
        if self.names.contains_key(name) {
            return None;
        }
        let entry = self.ifs.vacant_entry();
        let index = IfIndex(u32::try_from(entry.key()).ok()?);
        entry.insert(Ifnet {
            index,
            name: name.to_owned(),
            driver,
            mtu,
            flags,
            if_type,
            baudrate: 0,
            addrs: Vec::new(),
            deprecated: Vec::new(),
            groups: BTreeMap::new(),
            stats: IfStats::default(),
            snd: Box::new(Fifo::new(FifoLimits::default())),
            taps: Vec::new(),
        });
        self.names.insert(name.to_owned(), index);
        Some(index)
    }

    /// `if_detach`: the interface and its addresses are gone.
    pub fn detach(&mut self, index: IfIndex) -> Option<Ifnet> {
        for addr in self.get(index)?.addrs.clone() {
            self.remove_addr(index, &addr);
        }
        let ifp = self.ifs.try_remove(index.0 as usize)?;
        self.names.remove(&ifp.name);
        Some(ifp)
    }

    /// The interface with this number.
    pub fn get(&self, index: IfIndex) -> Option<&Ifnet> {
        self.ifs.get(index.0 as usize)
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, index: IfIndex) -> Option<&mut Ifnet> {
        self.ifs.get_mut(index.0 as usize)
    }

    /// The interface with this name.
    pub fn by_name(&self, name: &str) -> Option<IfIndex> {
        self.names.get(name).copied()
    }

    /// `lo0`: made first, and never gone.
    pub fn loopback(&self) -> Option<&Ifnet> {
        let first = self.ifs.get(0);
        first.filter(|ifp| ifp.flags.contains(IfFlags::LOOPBACK))
    }

    /// Names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// Every interface.
    pub fn iter(&self) -> impl Iterator<Item = &Ifnet> {
        self.ifs.iter().map(|(_, ifp)| ifp)
    }

    /// Gives an interface an address. False if it has it, or has too many.
    pub fn add_addr(&mut self, index: IfIndex, addr: IfAddr) -> bool {
        let Some(ifp) = self.ifs.get_mut(index.0 as usize) else {
            return false;
        };
        if ifp.addr(&addr.addr).is_some() || ifp.addrs.len() >= MAX_ADDRS {
            return false;
        }
        ifp.addrs.push(addr);
        self.locals.entry(addr.addr).or_default().push(index);
        if let Some(broadcast) = addr.broadcast() {
            *self.broadcasts.entry(broadcast).or_default() += 1;
        }
        true
    }

    /// Takes an address away. False if the interface does not have it.
    pub fn remove_addr(&mut self, index: IfIndex, addr: &IfAddr) -> bool {
        let Some(ifp) = self.ifs.get_mut(index.0 as usize) else {
            return false;
        };
        let Some(at) = ifp.addrs.iter().position(|own| own == addr) else {
            return false;
        };
        ifp.addrs.remove(at);
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

    /// An interface that has the address.
    pub fn holder(&self, addr: &IpAddr) -> Option<IfIndex> {
        self.locals.get(addr)?.first().copied()
    }

    /// Whether the address is the broadcast address of a network we are on, or of all.
    #[inline]
    pub fn is_broadcast(&self, addr: &Ipv4Addr) -> bool {
        addr.is_broadcast() || self.broadcasts.contains_key(addr)
    }
}

/// When an interface changed state.
pub(crate) fn stamp(ifp: &mut Ifnet, now: Now) {
    ifp.stats.lastchange = now.wall;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> IfTable {
        IfTable::new(ahash::RandomState::with_seeds(1, 2, 3, 4))
    }

    #[test]
    fn addresses_are_read_back_as_they_are_shown() {
        for good in [
            "10.0.0.1/24",
            "10.0.0.1/0",
            "10.0.0.1 peer 10.0.0.2",
            "fd00::1/64",
            "fe80::1 peer fe80::2",
        ] {
            assert_eq!(IfAddr::parse(good).unwrap().to_string(), good);
        }
        assert_eq!(
            IfAddr::parse("10.0.0.1").unwrap().to_string(),
            "10.0.0.1/32"
        );
        for bad in [
            "",
            "10.0.0.1/33",
            "10.0.0.1/-1",
            "10.0.0.1/+8",
            "10.0.0.1/08",
            "10.0.0.1/",
            "10.0.0/24",
            "0.0.0.0/0",
            "224.0.0.1/4",
            "255.255.255.255",
            "::/0",
            "ff02::1/64",
            "::ffff:10.0.0.1/96",
            "fd00::1/129",
            "10.0.0.1 peer",
            "10.0.0.1 peer fd00::1",
            "10.0.0.1 peer 224.0.0.1",
            "10.0.0.1/24 peer 10.0.0.2",
            "10.0.0.1 10.0.0.2",
            "10.0.0.1 peer 10.0.0.2 x",
            "10.0.0.1/24 x",
        ] {
            assert_eq!(IfAddr::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn flags_are_named_in_bsd_order() {
        let flags = IfFlags::MULTICAST | IfFlags::RUNNING | IfFlags::POINTOPOINT | IfFlags::UP;
        assert_eq!(flags.to_string(), "UP,POINTOPOINT,RUNNING,MULTICAST");
        assert_eq!(IfFlags::empty().to_string(), "");
    }

    #[test]
    fn an_address_is_local_while_one_interface_has_it() {
        let mut ifs = table();
        let flags = IfFlags::POINTOPOINT;
        let a = ifs
            .attach("tun0", Driver::Tun(0), flags, 0x17, 1500)
            .unwrap();
        let b = ifs
            .attach("tun1", Driver::Tun(1), flags, 0x17, 1500)
            .unwrap();
        assert_eq!(ifs.attach("tun1", Driver::Tun(1), flags, 0x17, 1500), None);
        let addr = IfAddr::parse("10.0.0.1/24").unwrap();
        assert!(ifs.add_addr(a, addr));
        assert!(!ifs.add_addr(a, addr));
        assert!(ifs.add_addr(b, addr));
        assert!(ifs.is_broadcast(&Ipv4Addr::new(10, 0, 0, 255)));
        assert!(ifs.remove_addr(a, &addr));
        assert!(!ifs.remove_addr(a, &addr));
        assert!(ifs.is_local(&addr.addr));
        ifs.detach(b).unwrap();
        assert!(!ifs.is_local(&addr.addr));
        assert!(!ifs.is_broadcast(&Ipv4Addr::new(10, 0, 0, 255)));
        assert_eq!(ifs.by_name("tun1"), None);
        assert!(ifs.is_local(&"127.3.2.1".parse().unwrap()));
    }

    #[test]
    fn the_source_is_the_one_nearest_to_the_destination() {
        let mut ifs = table();
        let flags = IfFlags::POINTOPOINT;
        let tun = ifs
            .attach("tun0", Driver::Tun(0), flags, 0x17, 1500)
            .unwrap();
        for addr in [
            "10.0.0.1/24",
            "10.0.1.1/24",
            "fe80::1/64",
            "fd00::1/64",
            "fd01::1/64",
        ] {
            assert!(ifs.add_addr(tun, IfAddr::parse(addr).unwrap()));
        }
        let ifp = ifs.get(tun).unwrap();
        let source = |dst: &str, hop: &str| {
            let source = ifp.source_for(&dst.parse().unwrap(), &hop.parse().unwrap());
            source.unwrap().to_string()
        };
        assert_eq!(source("10.0.1.9", "10.0.1.9"), "10.0.1.1");
        assert_eq!(source("8.8.8.8", "10.0.1.9"), "10.0.1.1");
        assert_eq!(source("8.8.8.8", "10.9.1.9"), "10.0.0.1");
        assert_eq!(source("fd01::5", "fd01::5"), "fd01::1");
        assert_eq!(source("fe80::5", "fe80::5"), "fe80::1");
        assert_eq!(source("2001:db8::1", "fe80::5"), "fd00::1");
    }

    #[test]
    fn which_groups_are_heard() {
        let mut ifs = table();
        let tun = ifs
            .attach("tun0", Driver::Tun(0), IfFlags::MULTICAST, 0x17, 1500)
            .unwrap();
        ifs.add_addr(tun, IfAddr::parse("fd00::12:3456/64").unwrap());
        let ifp = ifs.get_mut(tun).unwrap();
        ifp.groups
            .insert("239.1.2.3".parse().unwrap(), Members::default());
        let hears = |group: &str| ifp.hears(&group.parse().unwrap());
        assert!(hears("224.0.0.1") && hears("239.1.2.3") && hears("ff02::1"));
        assert!(hears("ff02::1:ff12:3456"));
        assert!(!hears("224.0.0.2") && !hears("ff02::2") && !hears("ff02::1:ff12:3457"));
    }
}

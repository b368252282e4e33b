//! Interfaces: names, flags, addresses, counters, send queues. The kernel's `struct ifnet`.
//!
//! An [`Ifnet`] knows nothing of its driver but a [tag](Driver) and the function that
//! [sends](IfOutput) a packet. It notes events that others have to know about, which
//! [`IfTable::poll_activity`] returns.

mod addr;
mod dropped;
mod family;
mod name;
mod output;
mod queue;
mod stats;
mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU8;
use std::time::Duration;

use bitflags::bitflags;
use scheme::Now;

use crate::capture::Capture;
use crate::timers::Timer;

pub use addr::{IfAddr, is_host};
pub(crate) use addr::{
    common_prefix, is_interface_local, is_link_local, is_mapped, parse_decimal, scope,
    solicited_node,
};
pub(crate) use dropped::{Drops, Way};
pub use family::Family;
pub use name::IfName;
pub use output::{Activity, IfOutput, Outgoing, OutputError, Sent};
pub use queue::{
    Class, DisciplineSpec, Flow, FqCodelSpec, Frame, Full, Limits, QueueSpec, Rate, SendQueue,
};
pub use stats::{DropReason, IfStats, Ledger};
pub use table::IfTable;

/// Smallest mtu of an interface, bytes (`IF_MINMTU`: TCP/IP headers and 32 bytes).
pub const IF_MINMTU: u16 = 72;
/// Smallest mtu over which IPv6 runs, bytes (RFC 8200 section 5).
pub const IPV6_MINMTU: u16 = 1280;
/// Most addresses of one interface.
pub const MAX_ADDRS: usize = 256;
/// Most groups that one interface can join.
pub const MAX_GROUPS: usize = 256;
/// Of these, how many are reserved for the superuser.
pub const RESERVED_GROUPS: usize = 32;

/// Number of an interface. It may be reused after the interface is destroyed, but not before
/// [`IfTable::poll_detached`] has reported that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IfIndex(pub u32);

/// The driver that an interface belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// The loopback interface: packets sent are received again.
    Loopback,
    /// The tun device of this unit.
    Tun(u16),
    /// The network card with this number.
    Ethernet(AdapterId),
}

/// Number of a network card. It may be reused after the card is detached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AdapterId(pub u32);

/// Number of a capture, chosen by its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapId(pub u32);

/// One capture on an interface.
#[derive(Debug)]
pub(crate) struct Tap {
    pub(crate) id: TapId,
    pub(crate) capture: Capture,
    /// Whether its reader has to be told that there are packets to read.
    pub(crate) rose: bool,
}

bitflags! {
    /// Interface flags, by their BSD numbers.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct IfFlags: u32 {
        /// Administratively up.
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

/// The members of a group on an interface: for each kind, the joins that were not yet left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Sockets.
    pub sockets: u32,
    /// Lines written to `multicast`.
    pub settings: u32,
    /// Addresses of the interface whose solicited-node group it is.
    pub addresses: u32,
}

impl Members {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn of(&mut self, member: MemberKind) -> &mut u32 {
        match member {
            MemberKind::Socket => &mut self.sockets,
            MemberKind::Setting => &mut self.settings,
        }
    }
}

/// A kind of member. One kind cannot leave for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemberKind {
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
    /// The driver's function that sends a packet.
    pub output: IfOutput,
    /// The driver's own flags, which only it understands (BSD's `IFF_LINK0` to `IFF_LINK2`).
    pub link_flags: u16,
    /// Whether the driver is running. The driver of a network card may end.
    pub present: bool,
    /// Whether the driver traces what it does.
    pub debug: bool,
    /// Largest packet, bytes, link header not included.
    pub mtu: u16,
    /// The mtu that was set last, of which `mtu` is as much as the link carries.
    pub(crate) wanted_mtu: u16,
    /// The largest packet that the link carries, bytes.
    pub(crate) most_mtu: u16,
    /// Frames that the driver has room for until they are taken from it, where that is few.
    pub(crate) rx_ring: Option<u16>,
    /// The largest IPv6 packet that routers of the link let hosts send, bytes; `u16::MAX` if none
    /// says so (RFC 4861 section 6.3.4).
    pub(crate) advertised_mtu: u16,
    /// The hop limit of IPv6 packets whose sender chose none, if a router advertised one.
    pub(crate) advertised_hops: Option<NonZeroU8>,
    /// Flags.
    pub flags: IfFlags,
    /// Type, by `<net/if_types.h>`.
    pub if_type: u8,
    /// Line speed, bits a second; 0 for unknown.
    pub baudrate: i32,
    /// Addresses, in the order in which they were added.
    pub addrs: Vec<IfAddr>,
    /// Deprecated addresses, from which no new connection begins (RFC 4862 section 5.5.4). The
    /// interface has them, or is about to.
    pub deprecated: Vec<IpAddr>,
    /// Tentative addresses: the interface is still asking whether another host has them (RFC 4862
    /// section 5.4).
    pub tentative: Vec<IpAddr>,
    /// Addresses that it made from prefixes that routers advertise.
    pub advertised: Vec<IpAddr>,
    /// Groups joined, and their members.
    pub groups: BTreeMap<IpAddr, Members>,
    /// Counters.
    pub stats: IfStats,
    /// Packets for the wire.
    pub snd: SendQueue,
    /// What of the send queue's memory is in that of all queues.
    pub(crate) snd_counted: usize,
    /// Whether the send queues together leave room for the packet that is sent now.
    pub(crate) may_queue: bool,
    /// Whether somebody waits for room in the send queue.
    pub(crate) room_awaited: bool,
    /// When the rate of the send queue releases the next packet, if that is not now.
    release: Timer,
    /// Next hops of packets that were queued since the driver was last told, for drivers that have
    /// to resolve hardware addresses.
    pub(crate) next_hops: Vec<IpAddr>,
    /// The captures on this interface.
    pub(crate) taps: Vec<Tap>,
    /// The activity since the last [`IfTable::poll_activity`].
    activity: Activity,
}

impl Ifnet {
    /// `bpf_mtap`: gives every capture a copy of a packet. `family` is its number in `DLT_NULL`.
    #[inline]
    pub(crate) fn tap(&mut self, wall: Duration, family: u32, packet: &[u8]) {
        // Interfaces rarely have a capture.
        if !self.taps.is_empty() {
            self.record(wall, family, packet);
        }
    }

    #[cold]
    fn record(&mut self, wall: Duration, family: u32, packet: &[u8]) {
        for tap in &mut self.taps {
            if tap.capture.record(wall, family, packet) {
                tap.rose = true;
                self.activity |= Activity::CAPTURED;
            }
        }
    }

    /// Puts a frame on the send queue, and counts its packet: `len` bytes, the driver's header not
    /// included.
    pub(crate) fn enqueue(
        &mut self,
        frame: Frame,
        len: usize,
        now: Now,
    ) -> Result<Sent, OutputError> {
        if !self.may_queue {
            self.drop_output(DropReason::NoMemory, frame.family, frame.packet());
            return Err(OutputError::NoBuffers);
        }
        let first = self.snd.is_empty();
        if let Err(Full(frame)) = self.snd.enqueue(frame, now, &mut self.stats) {
            self.drop_output(DropReason::QueueFull, frame.family, frame.packet());
            return Err(OutputError::NoBuffers);
        }
        self.stats.opackets += 1;
        self.stats.obytes += len as u64;
        self.stats.output.queued += 1;
        self.activity |= Activity::QUEUED;
        // Nobody is told of a packet before the rate lets it go.
        if self.snd.is_open(now) {
            self.activity |= match first {
                true => Activity::READY | Activity::RELEASED,
                false => Activity::RELEASED,
            };
        }
        Ok(Sent::Queued)
    }

    /// Takes the next frame out of the send queue; `None` while its rate holds it back.
    #[inline]
    pub(crate) fn dequeue(&mut self, now: Now) -> Option<Frame> {
        self.snd.dequeue(now, &mut self.stats)
    }

    /// The frame that leaves the send queue next; `None` while its rate holds it back.
    pub(crate) fn peek(&mut self, now: Now) -> Option<&Frame> {
        self.snd.peek(now, &mut self.stats)
    }

    /// Replaces the discipline and the rate of the send queue. Packets that are queued stay, as far
    /// as the new limits allow. `key` decides which flows share a queue.
    fn change_queue(&mut self, spec: QueueSpec, key: &ahash::RandomState, now: Now) {
        let was_ready = self.snd.ready(now);
        self.snd.change(spec, key, now, &mut self.stats);
        self.activity |= Activity::ROOM;
        if !was_ready && self.snd.ready(now) {
            self.activity |= Activity::READY | Activity::RELEASED;
        }
    }

    /// Whether its send queue has a rate, or had one when its timer was armed.
    #[inline]
    pub(crate) fn holds_back(&self) -> bool {
        self.snd.has_rate() || self.release.at().is_some()
    }

    /// The text of `ifaces/IF/stats`.
    pub(crate) fn render_stats(&self) -> String {
        use std::fmt::Write;

        let mut text = self.stats.render();
        let queue = [
            ("marked", self.stats.marked),
            ("queue.packets", self.snd.len() as u64),
            ("queue.bytes", self.snd.bytes() as u64),
            ("queue.delay_us", self.snd.delay().as_micros() as u64),
        ];
        for (name, value) in queue {
            let _ = writeln!(text, "{name} {value}");
        }
        text
    }

    /// Counts a packet that is not sent. Returns `error`.
    pub(crate) fn refuse(
        &mut self,
        outgoing: &Outgoing,
        reason: DropReason,
        error: OutputError,
    ) -> OutputError {
        self.drop_output(reason, outgoing.family, &outgoing.packet);
        error
    }

    /// `if_qflush`: drops the packets in the send queue.
    pub(crate) fn purge(&mut self) {
        for frame in self.snd.purge() {
            self.stats.lose(&frame, DropReason::Purged);
        }
    }

    /// Notes that the interface changed its state.
    pub(crate) fn set_lastchange(&mut self, now: Now) {
        self.stats.lastchange = now.wall;
    }

    /// Whether IPv6 runs here.
    pub fn has_ipv6(&self) -> bool {
        self.mtu >= IPV6_MINMTU
    }

    /// Largest packet that can be sent to `dst` by it, bytes.
    #[inline]
    pub(crate) fn mtu_to(&self, dst: &IpAddr) -> u16 {
        match dst {
            IpAddr::V4(_) => self.mtu,
            IpAddr::V6(_) => self.mtu.min(self.advertised_mtu),
        }
    }

    /// Whether it is a loopback: packets sent by it are received again.
    pub fn is_loopback(&self) -> bool {
        self.flags.contains(IfFlags::LOOPBACK)
    }

    /// Whether it is a tunnel: the packets that leave by it come to a program.
    pub fn is_tunnel(&self) -> bool {
        matches!(self.driver, Driver::Tun(_))
    }

    /// Whether IPv6 packets can leave by it.
    pub fn runs_ipv6(&self) -> bool {
        self.is_up() && self.has_ipv6()
    }

    /// Whether it is up: packets can leave by it.
    pub fn is_up(&self) -> bool {
        self.flags.contains(IfFlags::UP)
    }

    /// Whether packets for `group` are received: it is joined, or every host is in it.
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

    /// Its own address `addr`, with its network or peer; `None` if it does not have it.
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

    /// The source address for packets to `dst` by way of `next_hop`. It prefers, in this order, an
    /// address of the smallest scope that reaches the destination (RFC 6724 section 5, rule 2), one that is not deprecated, one on the next hop's network, and
    /// the one with the longest prefix in common with the destination.
    pub fn source_for(&self, dst: &IpAddr, next_hop: &IpAddr) -> Option<IpAddr> {
        let candidates = self
            .addrs
            .iter()
            .filter(|own| own.addr.is_ipv4() == dst.is_ipv4());
        let rank = |own: &&IfAddr| {
            let (scope, wanted) = (scope(&own.addr), scope(dst));
            let reaches = scope >= wanted;
            let appropriate = (reaches, if reaches { u8::MAX - scope } else { scope });
            let common = if dst.is_ipv6() {
                common_prefix(&own.addr, dst)
            } else {
                0
            };
            let fresh = !self.deprecated.contains(&own.addr);
            (appropriate, fresh, own.covers(next_hop), common)
        };
        // Reversed, because max_by_key takes the last of equals, and the first is wanted.
        let best = candidates.rev().max_by_key(rank)?;
        Some(best.addr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An interface that sends nothing.
    fn refuse(_: &mut Ifnet, _: &mut Outgoing) -> Result<Sent, OutputError> {
        Err(OutputError::Down)
    }

    fn table() -> IfTable {
        IfTable::new(ahash::RandomState::with_seeds(1, 2, 3, 4))
    }

    #[test]
    fn flags_are_named_in_bsd_order() {
        let flags = IfFlags::MULTICAST | IfFlags::RUNNING | IfFlags::POINTOPOINT | IfFlags::UP;
        assert_eq!(flags.to_string(), "UP,POINTOPOINT,RUNNING,MULTICAST");
        assert_eq!(IfFlags::empty().to_string(), "");
    }

    #[test]
    fn the_source_is_the_one_nearest_to_the_destination() {
        let mut ifs = table();
        let flags = IfFlags::POINTOPOINT;
        let tun = ifs
            .attach("tun0", Driver::Tun(0), refuse, flags, 0x17, 1500)
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
        assert_eq!(source("ff02::fb", "ff02::fb"), "fe80::1");
        assert_eq!(source("ff12::fb", "ff12::fb"), "fe80::1");
        assert_eq!(source("ff05::fb", "ff05::fb"), "fd00::1");
    }

    #[test]
    fn which_groups_are_heard() {
        let mut ifs = table();
        let tun = ifs
            .attach(
                "tun0",
                Driver::Tun(0),
                refuse,
                IfFlags::MULTICAST,
                0x17,
                1500,
            )
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

//! The network layer: input, forwarding, ICMP, and output.
//!
//! [`Ip`] holds the interfaces, the routes, the queue of received packets, and the state of input
//! and output. Drivers and transports are given it as an argument; it knows none of them. A driver
//! hands a packet to [`Ip::netisr_enqueue`], which never blocks: the queue is bounded, and a packet
//! that finds it full is dropped and counted. [`Ip::poll_received`] takes packets out, a budget at
//! a time, and [`Ip::dispatch`] returns each with its receiver, as a [`Delivery`]:
//!
//! - [`input`]: validates packets and finds those for this host;
//! - [`reassembly`]: puts fragments together, within bounds;
//! - [`registered`]: packets of other protocols, for programs that registered for them;
//! - [`forward`]: sends on packets for other hosts, when forwarding is on;
//! - [`redirect`]: better first hops, which routers tell us;
//! - [`icmp`]: echo replies, errors about packets, and errors that others send us;
//! - [`groups`]: IGMP and MLD;
//! - [`reports`]: when groups are reported, and in which version;
//! - [`identification`]: numbers that tell the fragments of one packet from those of another;
//! - [`output`]: finds the route, makes the header, fragments, and hands packets to the interface;
//! - [`ifioctl`]: sets addresses, mtu and flags of an interface, and updates routes and groups;
//! - [`header`], [`options`], [`checksum`]: the formats.

pub(crate) mod checksum;
mod forward;
pub(crate) mod groups;
pub(crate) mod header;
pub(crate) mod icmp;
mod identification;
mod ifioctl;
mod input;
mod options;
pub(crate) mod output;
mod pmtu;
mod reassembly;
pub(crate) mod redirect;
mod registered;
mod reports;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use scheme::{Now, earlier};

use crate::capture::Framing;
use crate::ifnet::{DropReason, Family, IfIndex, IfName, IfTable, Ifnet, Way, is_link_local};
use crate::memory::Pool;
use crate::packet::Packet;
use crate::route::RouteTable;
use crate::seed::{Chance, Purpose, Seed};
use header::{Endpoints, Header};
use icmp::{Notice, RateLimit, Said};
use identification::Identifications;
use pmtu::PathMtus;
use reassembly::{HeldFragments, HeldFrom, Reassembly};
use redirect::{Redirect, Redirects};
use reports::Reports;

pub(crate) use ifioctl::LOOPBACK_ADDRS;
pub(crate) use output::NetError;
pub(crate) use registered::Arrived;
use registered::Registered;

/// Most packets in the input queue.
const MAX_PACKETS: usize = 8192;
/// Most bytes in the input queue.
const MAX_BYTES: usize = 16 << 20;
/// Most packets of `lo0` in the input queue at which it takes another datagram: what programs send to
/// this host is held back before it takes the places of what others send.
const MAX_LOOPED: usize = 512;

/// The number of packets, connections or events one turn may serve. It is bounded because requests
/// and timers wait for the end of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget(usize);

impl Budget {
    /// The budget of one turn.
    pub(crate) const TURN: Self = Self(256);

    /// The number that is left.
    pub(crate) const fn get(self) -> usize {
        self.0
    }

    /// Takes one. False if none is left.
    pub(crate) fn take(&mut self) -> bool {
        let left = self.0.checked_sub(1);
        self.0 = left.unwrap_or(0);
        left.is_some()
    }
}

/// The fate of a received packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Delivered to a protocol or socket of ours.
    Delivered,
    /// Sent on by another interface.
    Forwarded,
    /// Dropped, for this reason.
    Dropped(DropReason),
}

/// A complete and valid packet for this host.
#[derive(Debug)]
pub(crate) struct Received {
    /// The interface it came by.
    pub(crate) rcvif: IfIndex,
    pub(crate) header: Header,
    pub(crate) packet: Packet,
}

impl Received {
    /// The bytes behind the headers of IP.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.packet[self.header.payload..]
    }
}

/// A packet for this host, by kind of receiver.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// It was handled here, or dropped.
    Settled(Verdict),
    /// A TCP segment.
    Tcp(Received),
    /// A UDP datagram.
    Udp(Received),
    /// A reply to an echo request.
    EchoReply(Received),
    /// A message of neighbour discovery, for the driver of the link.
    Neighbour(Received),
    /// An ICMP error about a packet that this host may have sent.
    Notice(IcmpError),
    /// A redirect for a packet that this host may have sent.
    Redirect(Quoted, Redirect),
}

/// A packet that this host may have sent, and that an ICMP message or a driver is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quoted {
    /// The protocol of the packet.
    pub(crate) protocol: u8,
    /// Its addresses and ports. The ports mean something only if the protocol has them.
    pub(crate) endpoints: Endpoints,
    /// The interface by which the message came, or of the driver.
    pub(crate) dev: IfIndex,
    /// Its identifier and sequence number, if it is an echo request.
    pub(crate) echo: Option<(u16, [u8; 2])>,
}

/// An error about a packet that this host may have sent, from an ICMP message or a driver.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IcmpError {
    /// The packet.
    pub(crate) quoted: Quoted,
    /// The error.
    pub(crate) notice: Notice,
    /// The same in the words of ICMP.
    pub(crate) said: Said,
}

/// The obligation to report the fate of a packet: every packet is in exactly one place.
#[derive(Debug)]
#[must_use]
pub(crate) struct Receipt {
    rcvif: IfIndex,
    /// Fragments of the same datagram that were held until now.
    held: HeldFragments,
}

/// The result for one packet, and for held fragments of the same datagram.
#[derive(Debug)]
enum Fate {
    /// It is decided.
    Decided(Verdict, HeldFragments),
    /// It is for this host: alone, or as the last fragment of a datagram.
    Ours(Received, HeldFragments),
    /// It is a fragment that waits for the others.
    Held,
}

impl From<DropReason> for Fate {
    fn from(reason: DropReason) -> Self {
        Verdict::Dropped(reason).into()
    }
}

impl From<Verdict> for Fate {
    fn from(verdict: Verdict) -> Self {
        Self::Decided(verdict, HeldFragments::new())
    }
}

/// A packet in the input queue.
#[derive(Debug)]
struct Queued {
    rcvif: IfIndex,
    family: Family,
    packet: Packet,
    addressed: Addressed,
}

/// How the frame of a packet was addressed on its link: BSD's `M_BCAST` and `M_MCAST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Addressed {
    /// To this host, or the link has no hardware addresses.
    Host,
    /// To many stations.
    Group,
}

/// The network layer of one machine.
#[derive(Debug)]
pub(crate) struct Ip {
    /// The time of this turn.
    pub(crate) now: Now,
    /// The source of delays.
    pub(crate) delays: Chance,
    /// The source of ephemeral ports.
    pub(crate) ports: Chance,
    /// The source of the identifiers of pings.
    pub(crate) pings: Chance,
    pub(crate) ifs: IfTable,
    pub(crate) routes: RouteTable,
    /// Whether packets for other hosts are forwarded.
    pub(crate) forwarding: bool,
    queue: VecDeque<Queued>,
    /// Bytes in the queue.
    bytes: usize,
    /// Packets of `lo0` in the queue.
    looped: usize,
    reassembly: Reassembly,
    rate_limit: RateLimit,
    pub(crate) path_mtus: PathMtus,
    redirects: Redirects,
    reports: Reports,
    registered: Registered,
    /// Errors about packets of ours that a driver noted, without an ICMP message.
    notices: VecDeque<IcmpError>,
    /// The memory of the rings of all captures.
    pub(crate) rings: Pool,
    /// TCP segments for this host whose checksum was wrong.
    pub(crate) bad_segments: u64,
    /// Of the packets that may have to be fragmented.
    idents: Identifications,
    /// Decides which flows share a queue where queueing is fair.
    flows: ahash::RandomState,
    /// A copy of the received packet whose fate is not decided yet; only while drops are watched.
    judged: Option<(Family, Packet)>,
}

impl Ip {
    /// A network layer without interfaces and routes.
    pub(crate) fn new(seed: &Seed) -> Self {
        let hasher = seed.tables(Purpose::IpTables);
        Self {
            now: Now::default(),
            delays: seed.chance(Purpose::Delays),
            ports: seed.chance(Purpose::Ports),
            pings: seed.chance(Purpose::Pings),
            ifs: IfTable::new(hasher.clone()),
            routes: RouteTable::new(),
            forwarding: false,
            queue: VecDeque::new(),
            bytes: 0,
            looped: 0,
            reassembly: Reassembly::new(hasher.clone()),
            rate_limit: RateLimit::new(hasher.clone()),
            path_mtus: PathMtus::new(hasher.clone()),
            redirects: Redirects::new(hasher),
            reports: Reports::default(),
            registered: Registered::default(),
            notices: VecDeque::new(),
            rings: Pool::default(),
            bad_segments: 0,
            idents: Identifications::new(seed.keyed(Purpose::Identifications)),
            flows: seed.tables(Purpose::Flows),
            judged: None,
        }
    }

    /// The identification of the next packet that may have to be fragmented.
    pub(crate) fn next_ident(&mut self, src: &IpAddr, dst: &IpAddr) -> u32 {
        self.idents.next(src, dst)
    }

    /// Both ends of a flow whose packets come and go by an interface.
    #[inline]
    pub(crate) fn endpoints(
        &self,
        local: (IpAddr, u16),
        remote: (IpAddr, u16),
        dev: IfIndex,
    ) -> Endpoints {
        let link = match is_link_local(&remote.0) {
            true => self.ifs.name_of(dev),
            false => None,
        };
        Endpoints {
            local,
            remote,
            link,
        }
    }

    /// Whether packets or errors are queued.
    pub(crate) fn has_work(&self) -> bool {
        !self.queue.is_empty() || !self.notices.is_empty()
    }

    /// The time of the next timer; `None` if none is armed.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let held = earlier(self.reassembly.deadline(), self.reports.deadline());
        earlier(held, self.redirects.deadline())
    }

    /// The interface that a program named for a destination. One that is not there leads nowhere.
    pub(crate) fn named(&self, link: IfName) -> Result<IfIndex, NetError> {
        self.ifs.by_name(link.as_str()).ok_or(NetError::NoRoute)
    }

    /// Whether packets can leave by the interface.
    pub(crate) fn is_up(&self, dev: IfIndex) -> bool {
        self.ifs.get(dev).is_some_and(Ifnet::is_up)
    }

    /// Whether IPv6 packets can leave by the interface.
    pub(crate) fn runs_ipv6(&self, dev: IfIndex) -> bool {
        self.ifs.get(dev).is_some_and(Ifnet::runs_ipv6)
    }

    /// Whether input accepts packets of this family. Otherwise the writer gets `EAFNOSUPPORT`.
    pub(crate) fn netisr_takes(&self, family: Family) -> bool {
        matches!(family, Family::Inet | Family::Inet6) || self.registered.takes(family)
    }

    /// `netisr_dispatch`: queues a packet that an interface received. If the queue is full, the
    /// packet is dropped and counted; that is not an error.
    pub(crate) fn netisr_enqueue(&mut self, rcvif: IfIndex, family: Family, packet: Packet) {
        self.netisr_enqueue_from(rcvif, family, packet, Addressed::Host);
    }

    /// The same, for a packet from a frame.
    pub(crate) fn netisr_enqueue_from(
        &mut self,
        rcvif: IfIndex,
        family: Family,
        packet: Packet,
        addressed: Addressed,
    ) {
        let Some(ifp) = self.ifs.get_mut(rcvif) else {
            return;
        };
        ifp.stats.input.offered += 1;
        ifp.stats.ipackets += 1;
        ifp.stats.ibytes += packet.len() as u64;
        if !matches!(family, Family::Inet | Family::Inet6) {
            match self.registered.enqueue(family, rcvif, &ifp.name, packet) {
                Ok(()) => ifp.stats.input.queued += 1,
                Err(packet) => ifp.drop_input(DropReason::NetisrFull, family, &packet),
            }
            return;
        }
        if self.queue.len() >= MAX_PACKETS || self.bytes + packet.len() > MAX_BYTES {
            ifp.drop_input(DropReason::NetisrFull, family, &packet);
            return;
        }
        ifp.stats.input.queued += 1;
        self.looped += usize::from(ifp.is_loopback());
        self.bytes += packet.len();
        self.queue.push_back(Queued {
            rcvif,
            family,
            packet,
            addressed,
        });
    }

    /// Whether a datagram can leave by an interface now, as far as this host's own input queue tells:
    /// only `lo0` leads there. A connection is held back by acknowledgments, but a program may send
    /// any number of datagrams, and in one write. `NoBuffers` otherwise, as from a full send queue.
    pub(crate) fn admit_datagram(&self, dev: IfIndex) -> Result<(), NetError> {
        match self.looped >= MAX_LOOPED && self.is_loopback(dev) {
            true => Err(NetError::NoBuffers),
            false => Ok(()),
        }
    }

    /// Takes packets out of the queue until one is for this host. Returns it, and the obligation to
    /// [report](Self::netisr_count) its fate. `None` when the queue is empty or the budget used up.
    #[must_use]
    pub(crate) fn poll_received(&mut self, budget: &mut Budget) -> Option<(Received, Receipt)> {
        while !self.queue.is_empty() && budget.take() {
            let Queued {
                rcvif,
                family,
                packet,
                addressed,
            } = self.queue.pop_front()?;
            self.bytes -= packet.len();
            if let Some(ifp) = self.ifs.get_mut(rcvif) {
                ifp.stats.input.queued -= 1;
                self.looped -= usize::from(ifp.is_loopback());
            }
            if self.ifs.watches_drops() {
                self.judged = Some((family, packet.clone()));
            }
            let fate = match family {
                Family::Inet6 => self.ip6_input(rcvif, packet, addressed),
                _ => self.ip_input(rcvif, packet, addressed),
            };
            match fate {
                Fate::Ours(received, held) => return Some((received, Receipt { rcvif, held })),
                Fate::Decided(verdict, held) => {
                    self.netisr_count(Receipt { rcvif, held }, verdict);
                }
                Fate::Held => {
                    if let Some(ifp) = self.ifs.get_mut(rcvif) {
                        ifp.stats.input.queued += 1;
                    }
                }
            }
        }
        None
    }

    /// The next error about a packet of ours that no ICMP message brought.
    #[must_use]
    pub(crate) fn poll_notice(&mut self) -> Option<IcmpError> {
        self.notices.pop_front()
    }

    /// Runs timers: fragments and redirects whose time is over, and reports that are due.
    #[inline(never)]
    pub(crate) fn netisr_expire(&mut self) {
        let now = self.now.monotonic;
        while let Some(expired) = self.reassembly.pop_expired(now) {
            if let Some(first) = &expired.first {
                self.icmp_reassembly_timeout(first);
            }
            let verdict = Verdict::Dropped(DropReason::FragmentTimeout);
            self.release(verdict, expired.held);
        }
        self.redirects_expire();
        self.groups_run();
    }

    /// Drops the queued packets of an interface that is gone.
    fn netisr_detach(&mut self, dev: IfIndex) {
        let bytes = &mut self.bytes;
        self.queue.retain(|queued| {
            let keep = queued.rcvif != dev;
            if !keep {
                *bytes -= queued.packet.len();
            }
            keep
        });
        self.registered.detach(dev);
        self.redirects_detach(dev);
        for held in self.reassembly.detach(dev) {
            self.release(Verdict::Dropped(DropReason::FragmentLimit), held);
        }
        for family in [Family::Inet, Family::Inet6] {
            self.reports.detach(dev, family);
        }
    }

    /// Has dropped packets kept for those who watch, or not any more.
    pub(crate) fn watch_drops(&mut self, on: bool) {
        let rings = on.then(|| self.rings.clone());
        self.ifs.watch_drops(rings);
        self.reassembly.keep_packets(on);
        self.judged = None;
    }

    /// Counts the fate of a packet, and of the fragments that were held with it.
    #[inline]
    pub(crate) fn netisr_count(&mut self, receipt: Receipt, verdict: Verdict) {
        self.count(receipt.rcvif, verdict, 1);
        if let Verdict::Dropped(reason) = verdict {
            self.show_judged(receipt.rcvif, reason);
        }
        if !receipt.held.is_empty() {
            self.release(verdict, receipt.held);
        }
    }

    /// Shows the received packet, which was dropped, to those who watch.
    fn show_judged(&mut self, rcvif: IfIndex, reason: DropReason) {
        if let Some((family, packet)) = self.judged.take()
            && let Some(ifp) = self.ifs.get_mut(rcvif)
        {
            let framing = Framing::Null(family.dlt_null());
            ifp.show_dropped(Way::In, reason, framing, &packet);
        }
    }

    #[inline]
    fn count(&mut self, rcvif: IfIndex, verdict: Verdict, packets: u64) {
        let Some(ifp) = self.ifs.get_mut(rcvif) else {
            return;
        };
        match verdict {
            Verdict::Delivered => ifp.stats.input.delivered += packets,
            Verdict::Forwarded => ifp.stats.input.forwarded += packets,
            Verdict::Dropped(reason) => {
                ifp.stats.drop_input(reason, packets);
                if ifp.debug {
                    log::debug!("{}: dropped, {}", ifp.name, reason.name());
                }
            }
        }
    }

    /// Counts fragments that are held no longer.
    fn release(&mut self, verdict: Verdict, held: HeldFragments) {
        for HeldFrom {
            rcvif,
            count,
            packets,
        } in held
        {
            if let Some(ifp) = self.ifs.get_mut(rcvif) {
                ifp.stats.input.queued -= count;
            }
            self.count(rcvif, verdict, count);
            let (Verdict::Dropped(reason), Some(ifp)) = (verdict, self.ifs.get_mut(rcvif)) else {
                continue;
            };
            ifp.miss_dropped(count.saturating_sub(packets.len() as u64));
            for (family, packet) in packets {
                ifp.show_dropped(Way::In, reason, Framing::Null(family.dlt_null()), &packet);
            }
        }
    }
}

/// The destination in a packet's header, or the unspecified address if the packet is too short. It
/// is the next hop of a packet that is sent without a route.
pub(crate) fn destination_of(family: Family, packet: &[u8]) -> IpAddr {
    let v4 = || Some(Ipv4Addr::from(*packet.get(16..20)?.first_chunk::<4>()?).into());
    let v6 = || Some(Ipv6Addr::from(*packet.get(24..40)?.first_chunk::<16>()?).into());
    match family {
        Family::Inet6 => v6().unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        _ => v4().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
    }
}

//! The network layer: dispatch of received packets, and the way out.
//!
//! [`Ip`] is what a kernel's network layer is: interfaces, routes, the queue of received packets, and
//! what input and output have to remember. Drivers and transports are given it as an argument; it
//! knows none of them. A driver hands a packet to [`Ip::netisr_enqueue`], which never blocks: the
//! queue is bounded, and what finds it full is counted. [`Ip::poll_received`] takes packets out, a
//! budget at a time, and [`Ip::dispatch`] says as a [`Delivery`] whom each is for:
//!
//! - [`input`]: is it a packet, may it be here, is it for us?
//! - [`reassembly`]: puts fragments together, within bounds;
//! - [`forward`]: the way of what is not for us, when forwarding is on;
//! - [`icmp`]: echo, errors about packets, and what others' errors mean for us;
//! - [`groups`]: IGMP and MLD;
//! - [`output`]: route, fragment, and give to the interface;
//! - [`ifioctl`]: what is set of an interface, with all that follows from it;
//! - [`header`], [`checksum`]: the formats.

pub(crate) mod checksum;
mod forward;
pub(crate) mod groups;
pub(crate) mod header;
pub(crate) mod icmp;
mod ifioctl;
mod input;
pub(crate) mod output;
mod pmtu;
mod reassembly;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use scheme::Now;

use crate::ifnet::{DropReason, Family, IfIndex, IfTable, Ifnet};
use crate::packet::Packet;
use crate::route::RouteTable;
use groups::Reports;
use header::{Endpoints, Header};
use icmp::{Notice, RateLimit};
use pmtu::PathMtus;
use reassembly::{Parts, Reassembly};

pub(crate) use output::NetError;

/// Most packets in the input queue.
const MAX_PACKETS: usize = 8192;
/// Most bytes in the input queue.
const MAX_BYTES: usize = 16 << 20;

/// How many packets, connections or events one turn may serve. Capped, for two reasons: other
/// requests wait meanwhile, and timers run late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget(usize);

impl Budget {
    /// What a turn gets.
    pub(crate) const TURN: Self = Self(256);

    /// What is left.
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

/// Where a received packet ended up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// With a protocol or socket of ours.
    Delivered,
    /// On another interface.
    Forwarded,
    /// Nowhere.
    Dropped(DropReason),
}

/// A whole and sound packet for this host.
#[derive(Debug)]
pub(crate) struct Received {
    /// The interface it came by.
    pub(crate) rcvif: IfIndex,
    pub(crate) header: Header,
    pub(crate) packet: Packet,
}

impl Received {
    /// What stands behind the headers of IP.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.packet[self.header.payload..]
    }
}

/// Whom a packet for this host is for.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// Nobody above: it is decided what became of it.
    Settled(Verdict),
    /// A TCP segment.
    Tcp(Received),
    /// A UDP datagram.
    Udp(Received),
    /// The reply to an echo request.
    EchoReply(Received),
    /// A message of neighbour discovery, for the driver of the link.
    Neighbour(Received),
    /// Something is said about a packet that this host may have sent.
    Notice(Quoted),
}

/// What somebody says about a packet of ours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quoted {
    /// The protocol of the packet.
    pub(crate) protocol: u8,
    /// Its ends, if the protocol has ports.
    pub(crate) endpoints: Endpoints,
    /// Its identifier, if it is an echo request.
    pub(crate) ident: Option<u16>,
    /// What is said.
    pub(crate) notice: Notice,
}

/// The obligation to say what became of a packet: every packet is in exactly one place.
#[derive(Debug)]
#[must_use]
pub(crate) struct Receipt {
    rcvif: IfIndex,
    /// The fragments that had been held for its sake.
    parts: Parts,
}

/// What became of one packet, and of those that had been held for its sake.
#[derive(Debug)]
enum Fate {
    /// It is decided.
    Decided(Verdict, Parts),
    /// It is for this host: alone, or as the last fragment of a datagram.
    Ours(Received, Parts),
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
        Self::Decided(verdict, Parts::new())
    }
}

/// A packet in the input queue.
#[derive(Debug)]
struct Queued {
    rcvif: IfIndex,
    family: Family,
    packet: Packet,
}

/// The network layer of one machine.
#[derive(Debug)]
pub(crate) struct Ip {
    /// The time of this turn.
    pub(crate) now: Now,
    /// Where all chance comes from.
    pub(crate) rng: fastrand::Rng,
    pub(crate) ifs: IfTable,
    pub(crate) routes: RouteTable,
    /// Whether packets for others are passed on.
    pub(crate) forwarding: bool,
    queue: VecDeque<Queued>,
    /// Bytes in the queue.
    bytes: usize,
    reassembly: Reassembly,
    rate_limit: RateLimit,
    pub(crate) path_mtus: PathMtus,
    reports: Reports,
    /// What is said about packets of ours without a packet that says it.
    notices: VecDeque<Quoted>,
    /// Counts the packets that we may have to fragment.
    ident: u32,
    /// Where the identifications of a destination begin.
    idents: ahash::RandomState,
}

impl Ip {
    /// No interfaces and no routes. `hasher` decides how keys spread in the tables.
    pub(crate) fn new(rng: fastrand::Rng, hasher: ahash::RandomState) -> Self {
        Self {
            now: Now::default(),
            rng,
            ifs: IfTable::new(hasher.clone()),
            routes: RouteTable::new(),
            forwarding: false,
            queue: VecDeque::new(),
            bytes: 0,
            reassembly: Reassembly::new(hasher.clone()),
            rate_limit: RateLimit::default(),
            path_mtus: PathMtus::new(hasher.clone()),
            reports: Reports::default(),
            notices: VecDeque::new(),
            ident: 0,
            idents: hasher,
        }
    }

    /// Identification of the next packet. It counts from a number that is secret and another for each
    /// pair of addresses: who sees what is sent to it does not learn what is sent to others (RFC 7739
    /// section 5.2).
    pub(crate) fn next_ident(&mut self, src: &IpAddr, dst: &IpAddr) -> u32 {
        self.ident = self.ident.wrapping_add(1);
        let secret = self.idents.hash_one((src, dst));
        self.ident.wrapping_add(secret as u32)
    }

    /// Whether packets are queued.
    pub(crate) fn has_work(&self) -> bool {
        !self.queue.is_empty() || !self.notices.is_empty()
    }

    /// When something is due.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        [self.reassembly.deadline(), self.reports.deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether packets leave by the interface.
    pub(crate) fn is_up(&self, dev: IfIndex) -> bool {
        self.ifs.get(dev).is_some_and(Ifnet::is_up)
    }

    /// Whether IPv6 packets do.
    pub(crate) fn runs_ipv6(&self, dev: IfIndex) -> bool {
        self.ifs.get(dev).is_some_and(Ifnet::runs_ipv6)
    }

    /// Whether somebody takes packets of this family. Others are `EAFNOSUPPORT` to the writer.
    pub(crate) fn netisr_takes(&self, family: Family) -> bool {
        matches!(family, Family::Inet | Family::Inet6)
    }

    /// `netisr_dispatch`: queues a packet that an interface received. A full queue drops it, and
    /// that is counted, not an error.
    pub(crate) fn netisr_enqueue(&mut self, rcvif: IfIndex, family: Family, packet: Packet) {
        let Some(ifp) = self.ifs.get_mut(rcvif) else {
            return;
        };
        ifp.stats.input.offered += 1;
        ifp.stats.ipackets += 1;
        ifp.stats.ibytes += packet.len() as u64;
        if self.queue.len() >= MAX_PACKETS || self.bytes + packet.len() > MAX_BYTES {
            ifp.stats.drop_input(DropReason::NetisrFull, 1);
            return;
        }
        ifp.stats.input.queued += 1;
        self.bytes += packet.len();
        self.queue.push_back(Queued {
            rcvif,
            family,
            packet,
        });
    }

    /// Takes packets out of the queue until one is for this host: that, and the obligation to
    /// [say](Self::netisr_count) what became of it. `None` when the queue is empty or the budget used
    /// up.
    #[must_use]
    pub(crate) fn poll_received(&mut self, budget: &mut Budget) -> Option<(Received, Receipt)> {
        while !self.queue.is_empty() && budget.take() {
            let Queued {
                rcvif,
                family,
                packet,
            } = self.queue.pop_front()?;
            self.bytes -= packet.len();
            if let Some(ifp) = self.ifs.get_mut(rcvif) {
                ifp.stats.input.queued -= 1;
            }
            let fate = match family {
                Family::Inet6 => self.ip6_input(rcvif, packet),
                _ => self.ip_input(rcvif, packet),
            };
            match fate {
                Fate::Ours(received, parts) => return Some((received, Receipt { rcvif, parts })),
                Fate::Decided(verdict, parts) => {
                    self.netisr_count(Receipt { rcvif, parts }, verdict);
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

    /// The next thing that is said about a packet of ours without a packet that says it.
    #[must_use]
    pub(crate) fn poll_notice(&mut self) -> Option<Quoted> {
        self.notices.pop_front()
    }

    /// Timers: fragments whose time is over, and reports that are due.
    #[inline(never)]
    pub(crate) fn netisr_expire(&mut self) {
        let now = self.now.monotonic;
        while let Some(expired) = self.reassembly.pop_expired(now) {
            if let Some(first) = &expired.first {
                self.icmp_reassembly_timeout(first);
            }
            let verdict = Verdict::Dropped(DropReason::FragmentTimeout);
            self.release(verdict, expired.parts);
        }
        self.groups_run();
    }

    /// Forgets what came from an interface that is gone.
    fn netisr_detach(&mut self, dev: IfIndex) {
        let bytes = &mut self.bytes;
        self.queue.retain(|queued| {
            let keep = queued.rcvif != dev;
            if !keep {
                *bytes -= queued.packet.len();
            }
            keep
        });
        for parts in self.reassembly.detach(dev) {
            self.release(Verdict::Dropped(DropReason::FragmentLimit), parts);
        }
        self.reports.detach(dev);
    }

    /// Counts what became of a packet, and of the fragments that had been held for its sake.
    pub(crate) fn netisr_count(&mut self, receipt: Receipt, verdict: Verdict) {
        self.count(receipt.rcvif, verdict, 1);
        if !receipt.parts.is_empty() {
            self.release(verdict, receipt.parts);
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
    fn release(&mut self, verdict: Verdict, parts: Parts) {
        for (rcvif, packets) in parts {
            if let Some(ifp) = self.ifs.get_mut(rcvif) {
                ifp.stats.input.queued -= packets;
            }
            self.count(rcvif, verdict, packets);
        }
    }
}

/// The destination in a packet's header, as far as it has one: the next hop of what is sent without
/// a route.
pub(crate) fn destination_of(family: Family, packet: &[u8]) -> IpAddr {
    let v4 = || Some(Ipv4Addr::from(*packet.get(16..20)?.first_chunk::<4>()?).into());
    let v6 = || Some(Ipv6Addr::from(*packet.get(24..40)?.first_chunk::<16>()?).into());
    match family {
        Family::Inet6 => v6().unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        _ => v4().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifications_of_one_destination_do_not_tell_those_of_another() {
        let hasher = |seed| ahash::RandomState::with_seeds(seed, 2, 3, 4);
        let [a, b, c] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|addr| addr.parse().unwrap());
        let mut ip = Ip::new(fastrand::Rng::with_seed(1), hasher(1));
        let first = ip.next_ident(&a, &b);
        assert_eq!(ip.next_ident(&a, &b), first.wrapping_add(1));
        assert_ne!(ip.next_ident(&a, &c), first.wrapping_add(2));
        assert_ne!(
            Ip::new(fastrand::Rng::with_seed(1), hasher(5)).next_ident(&a, &b),
            first
        );
    }
}

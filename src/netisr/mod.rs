//! Dispatch of received packets, and the way out.
//!
//! A driver hands a packet to [`Net::netisr_enqueue`], which never blocks: the queue is bounded,
//! and what finds it full is counted. [`Net::netisr_run`] takes packets out, a budget at a time:
//!
//! - [`input`]: is it a packet, may it be here, is it for us?
//! - [`reassembly`]: puts fragments together, within bounds;
//! - [`forward`]: the way of what is not for us, when forwarding is on;
//! - [`icmp`]: echo, errors about packets, and what others' errors mean for us;
//! - [`groups`]: IGMP and MLD;
//! - [`output`]: route, fragment, and give to the interface.

pub(crate) mod checksum;
mod forward;
pub(crate) mod groups;
pub(crate) mod icmp;
pub(crate) mod input;
pub(crate) mod output;
mod pmtu;
mod reassembly;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::ifnet::{DropReason, Family, IfIndex};
use crate::net::Net;
use crate::packet::Packet;
use groups::Reports;
use icmp::RateLimit;
use pmtu::PathMtus;
use reassembly::Reassembly;

pub use output::NetError;

/// Most packets in the input queue.
const MAX_PACKETS: usize = 8192;
/// Most bytes in the input queue.
const MAX_BYTES: usize = 16 << 20;

/// How many packets or connections one turn may serve. Capped, for two reasons: other requests
/// wait meanwhile, and timers run late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget(usize);

impl Budget {
    /// What a turn gets.
    pub const TURN: Self = Self(256);

    /// The number.
    pub const fn get(self) -> usize {
        self.0
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

/// What became of one packet, and of those that had been held for its sake.
#[derive(Debug)]
pub(crate) enum Fate {
    /// It is decided.
    Decided(Verdict),
    /// It is a fragment that waits for the others.
    Held,
    /// It completed, or spoiled, a datagram of which these fragments were held.
    DecidedWith(Verdict, reassembly::Parts),
}

impl From<DropReason> for Fate {
    fn from(reason: DropReason) -> Self {
        Self::Decided(Verdict::Dropped(reason))
    }
}

#[derive(Debug)]
struct Received {
    rcvif: IfIndex,
    family: Family,
    packet: Packet,
}

/// The input queue, and what input has to remember.
#[derive(Debug)]
pub(crate) struct Netisr {
    queue: VecDeque<Received>,
    bytes: usize,
    pub(crate) reassembly: Reassembly,
    pub(crate) rate_limit: RateLimit,
    pub(crate) path_mtus: PathMtus,
    pub(crate) reports: Reports,
    /// Counts the packets that we may have to fragment.
    ident: u32,
    /// Where the identifications of a destination begin.
    idents: ahash::RandomState,
}

impl Netisr {
    pub(crate) fn new(hasher: ahash::RandomState) -> Self {
        Self {
            queue: VecDeque::new(),
            bytes: 0,
            reassembly: Reassembly::new(hasher.clone()),
            rate_limit: RateLimit::default(),
            path_mtus: PathMtus::new(hasher.clone()),
            reports: Reports::default(),
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
        !self.queue.is_empty()
    }

    /// When something is due.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        [self.reassembly.deadline(), self.reports.deadline()]
            .into_iter()
            .flatten()
            .min()
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

impl Net {
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
        let netisr = &mut self.netisr;
        if netisr.queue.len() >= MAX_PACKETS || netisr.bytes + packet.len() > MAX_BYTES {
            ifp.stats.drop_input(DropReason::NetisrFull, 1);
            return;
        }
        ifp.stats.input.queued += 1;
        netisr.bytes += packet.len();
        netisr.queue.push_back(Received {
            rcvif,
            family,
            packet,
        });
    }

    /// Handles queued packets, as many as the budget allows.
    pub(crate) fn netisr_run(&mut self, budget: Budget) {
        for _ in 0..budget.get() {
            let Some(received) = self.netisr.queue.pop_front() else {
                return;
            };
            let Received {
                rcvif,
                family,
                packet,
            } = received;
            self.netisr.bytes -= packet.len();
            if let Some(ifp) = self.ifs.get_mut(rcvif) {
                ifp.stats.input.queued -= 1;
            }
            let fate = match family {
                Family::Inet6 => self.ip6_input(rcvif, packet),
                _ => self.ip_input(rcvif, packet),
            };
            match fate {
                Fate::Decided(verdict) => self.netisr_count(rcvif, verdict, 1),
                Fate::Held => {
                    if let Some(ifp) = self.ifs.get_mut(rcvif) {
                        ifp.stats.input.queued += 1;
                    }
                }
                Fate::DecidedWith(verdict, parts) => {
                    self.netisr_count(rcvif, verdict, 1);
                    self.netisr_release(verdict, parts);
                }
            }
        }
    }

    /// Timers: fragments whose time is over, and reports that are due.
    #[inline(never)]
    pub(crate) fn netisr_expire(&mut self) {
        let now = self.now.monotonic;
        while let Some(expired) = self.netisr.reassembly.pop_expired(now) {
            if let Some(first) = &expired.first {
                self.icmp_reassembly_timeout(first);
            }
            let verdict = Verdict::Dropped(expired.reason);
            self.netisr_release(verdict, expired.parts);
        }
        self.groups_run();
    }

    /// Forgets what came from an interface that is gone.
    pub(crate) fn netisr_detach(&mut self, dev: IfIndex) {
        let bytes = &mut self.netisr.bytes;
        self.netisr.queue.retain(|received| {
            let keep = received.rcvif != dev;
            if !keep {
                *bytes -= received.packet.len();
            }
            keep
        });
        for parts in self.netisr.reassembly.detach(dev) {
            self.netisr_release(Verdict::Dropped(DropReason::FragmentLimit), parts);
        }
        self.netisr.reports.detach(dev);
    }

    #[inline]
    fn netisr_count(&mut self, rcvif: IfIndex, verdict: Verdict, packets: u64) {
        let Some(ifp) = self.ifs.get_mut(rcvif) else {
            return;
        };
        match verdict {
            Verdict::Delivered => ifp.stats.input.delivered += packets,
            Verdict::Forwarded => ifp.stats.input.forwarded += packets,
            Verdict::Dropped(reason) => {
                ifp.stats.drop_input(reason, packets);
                if self.tun.debug != 0 {
                    log::debug!("{}: dropped, {}", ifp.name, reason.name());
                }
            }
        }
    }

    /// Counts fragments that are held no longer.
    pub(crate) fn netisr_release(&mut self, verdict: Verdict, parts: reassembly::Parts) {
        for (rcvif, packets) in parts {
            if let Some(ifp) = self.ifs.get_mut(rcvif) {
                ifp.stats.input.queued -= packets;
            }
            self.netisr_count(rcvif, verdict, packets);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifications_of_one_destination_do_not_tell_those_of_another() {
        let hasher = |seed| ahash::RandomState::with_seeds(seed, 2, 3, 4);
        let [a, b, c] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|addr| addr.parse().unwrap());
        let mut netisr = Netisr::new(hasher(1));
        let first = netisr.next_ident(&a, &b);
        assert_eq!(netisr.next_ident(&a, &b), first.wrapping_add(1));
        assert_ne!(netisr.next_ident(&a, &c), first.wrapping_add(2));
        assert_ne!(Netisr::new(hasher(5)).next_ident(&a, &b), first);
    }
}

//! Group membership: IGMP version 2 (RFC 2236) and MLD version 1 (RFC 2710), as a host.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use smoltcp::wire::{IgmpPacket, IgmpRepr, IgmpVersion, IpProtocol, Ipv4Packet};

use super::header::{IPV4_HEADER, has_router_alert, ipv6_header, proto};
use super::{Ip, Received, Verdict, checksum};
use crate::ifnet::{
    DropReason, Family, IfFlags, IfIndex, MemberKind, Members, is_interface_local, is_link_local,
    solicited_node,
};
use crate::packet::Packet;
use crate::timers::{Timer, Timers};

/// Bytes of a query of IGMP version 1 or 2.
const IGMP_V2_QUERY: usize = 8;
/// Bytes of a query of MLD version 1.
const MLD_V1_QUERY: usize = 24;
const IGMP_QUERY: u8 = 0x11;
const IGMP_REPORT: u8 = 0x16;
const IGMP_LEAVE: u8 = 0x17;
const MLD_QUERY: u8 = 130;
const MLD_REPORT: u8 = 131;
const MLD_DONE: u8 = 132;
const ALL_ROUTERS_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 2);
pub(crate) const ALL_ROUTERS_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const ALL_SYSTEMS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
pub(crate) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The second report of a group is sent within this time, in case the first was lost (RFC 2236
/// section 8.10).
const UNSOLICITED: Duration = Duration::from_secs(10);

/// Reports that are due, by interface and group; bounded by the number of joined groups.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    planned: BTreeMap<(IfIndex, IpAddr), Timer>,
    timers: Timers<(IfIndex, IpAddr)>,
}

impl Reports {
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.timers.deadline()
    }

    /// Plans a report, or brings forward one that is planned.
    fn plan(&mut self, dev: IfIndex, group: IpAddr, at: Duration) {
        let timer = self.planned.entry((dev, group)).or_default();
        let at = timer.at().map_or(at, |planned| planned.min(at));
        self.timers.arm(timer, (dev, group), at);
    }

    fn cancel(&mut self, dev: IfIndex, group: IpAddr) {
        if let Some(mut timer) = self.planned.remove(&(dev, group)) {
            self.timers.disarm(&mut timer, (dev, group));
        }
    }

    /// Takes the next report that is due.
    fn pop(&mut self, now: Duration) -> Option<(IfIndex, IpAddr)> {
        let key = self.timers.pop(now)?;
        self.planned.remove(&key);
        Some(key)
    }

    /// Cancels the reports of a family by an interface.
    pub(crate) fn detach(&mut self, dev: IfIndex, family: Family) {
        let all = self.planned.keys().copied();
        let gone = |(of, group): &(IfIndex, IpAddr)| *of == dev && Family::of(group) == family;
        let gone: Vec<_> = all.filter(gone).collect();
        for (dev, group) in gone {
            self.cancel(dev, group);
        }
    }
}

/// Whether a group is reported to routers. Groups that every host is in, and those that stay on
/// this host, are not (RFC 2236 section 6, RFC 2710 section 5).
fn is_reported(group: &IpAddr) -> bool {
    match group {
        IpAddr::V4(group) => *group != ALL_SYSTEMS,
        IpAddr::V6(v6) => *v6 != ALL_NODES && !is_interface_local(group),
    }
}

/// Whether a query is as long as its version says. The first version ends after `first` bytes. The
/// later ones go on with four bytes, the last two of which count the sources behind, of `size` bytes
/// each (RFC 3376 section 7.1, RFC 3810 section 8.1).
fn names_its_sources(query: &[u8], first: usize, size: usize) -> bool {
    if query.len() == first {
        return true;
    }
    let Some(&[_, _, high, low]) = query.get(first..).and_then(|rest| rest.first_chunk()) else {
        return false;
    };
    let sources = usize::from(u16::from_be_bytes([high, low]));
    query.len() >= first + 4 + sources * size
}

impl Ip {
    /// Joins a group on an interface, or joins once more, and reports it. False if the interface
    /// cannot, or is in `most` others.
    pub(crate) fn group_join(
        &mut self,
        dev: IfIndex,
        group: IpAddr,
        member: MemberKind,
        most: usize,
    ) -> bool {
        let known = self.is_in(dev, &group);
        let joined = self.group_enter(dev, group, member, most);
        if joined && !known {
            self.group_announce(dev, group);
        }
        joined
    }

    /// Leaves a group, once, and tells routers if that was the last membership. False if no member
    /// of this kind joined it.
    pub(crate) fn group_leave(&mut self, dev: IfIndex, group: IpAddr, member: MemberKind) -> bool {
        let left = self.group_exit(dev, group, member);
        if left && !self.is_in(dev, &group) {
            self.group_left(dev, group);
        }
        left
    }

    fn is_in(&self, dev: IfIndex, group: &IpAddr) -> bool {
        let ifp = self.ifs.get(dev);
        ifp.is_some_and(|ifp| ifp.groups.contains_key(group))
    }

    /// The groups that sockets and settings joined on an interface.
    pub(crate) fn groups_joined(&self, dev: IfIndex) -> BTreeSet<IpAddr> {
        let groups = self.ifs.get(dev).map(|ifp| &ifp.groups);
        let joined = |members: &Members| members.sockets + members.settings > 0;
        let groups = groups.into_iter().flatten();
        groups
            .filter_map(|(&group, members)| joined(members).then_some(group))
            .collect()
    }

    /// Reports what has become of the groups that were joined on an interface before.
    pub(crate) fn groups_changed(&mut self, dev: IfIndex, before: &BTreeSet<IpAddr>) {
        let now = self.groups_joined(dev);
        for &group in before.difference(&now) {
            if !self.is_in(dev, &group) {
                self.group_left(dev, group);
            }
        }
        for &group in now.difference(before) {
            self.group_announce(dev, group);
        }
    }

    /// [Joins](Self::group_join) without a report.
    pub(crate) fn group_enter(
        &mut self,
        dev: IfIndex,
        group: IpAddr,
        member: MemberKind,
        most: usize,
    ) -> bool {
        let Some(ifp) = self.ifs.get_mut(dev) else {
            return false;
        };
        let can = ifp.flags.contains(IfFlags::MULTICAST) && (group.is_ipv4() || ifp.has_ipv6());
        let known = ifp.groups.contains_key(&group);
        // Solicited-node groups do not count: the number of addresses bounds them.
        let joined = |members: &&Members| members.sockets + members.settings > 0;
        let full = || ifp.groups.values().filter(joined).count() >= most;
        if !group.is_multicast() || !can || (!known && full()) {
            return false;
        }
        *ifp.groups.entry(group).or_default().of(member) += 1;
        if !known {
            self.ifs.touch();
        }
        true
    }

    /// [Leaves](Self::group_leave) without a report.
    pub(crate) fn group_exit(&mut self, dev: IfIndex, group: IpAddr, member: MemberKind) -> bool {
        let Some(ifp) = self.ifs.get_mut(dev) else {
            return false;
        };
        let Some(members) = ifp.groups.get_mut(&group) else {
            return false;
        };
        let times = members.of(member);
        if *times == 0 {
            return false;
        }
        *times -= 1;
        if members.is_empty() {
            ifp.groups.remove(&group);
            self.ifs.touch();
        }
        true
    }

    /// Tells routers that a group has no members left.
    fn group_left(&mut self, dev: IfIndex, group: IpAddr) {
        self.reports.cancel(dev, group);
        match group {
            _ if !is_reported(&group) => {}
            IpAddr::V4(group_addr) => {
                self.igmp_send(dev, &IgmpRepr::LeaveGroup { group_addr }, ALL_ROUTERS_V4);
            }
            IpAddr::V6(group) => self.mld_send(dev, MLD_DONE, group, ALL_ROUTERS_V6),
        }
    }

    /// Forgets the groups of a family, which the interface carries no longer.
    pub(super) fn groups_forget(&mut self, dev: IfIndex, family: Family) {
        if let Some(ifp) = self.ifs.get_mut(dev) {
            ifp.groups.retain(|group, _| Family::of(group) != family);
        }
        self.reports.detach(dev, family);
        self.ifs.touch();
    }

    /// Joins the solicited-node groups of the addresses of an interface, and leaves those of
    /// addresses that are gone. Switches pass multicasts on only to members.
    pub(crate) fn groups_follow(&mut self, dev: IfIndex) {
        let Some(ifp) = self.ifs.get_mut(dev) else {
            return;
        };
        let mut wanted = BTreeMap::<IpAddr, u32>::new();
        let tentative = ifp.tentative.iter().copied();
        for addr in ifp.addrs.iter().map(|own| own.addr).chain(tentative) {
            if let IpAddr::V6(addr) = addr {
                *wanted.entry(solicited_node(&addr).into()).or_default() += 1;
            }
        }
        let (mut joined, mut left) = (Vec::new(), Vec::new());
        for (&group, &addresses) in &wanted {
            let members = ifp.groups.entry(group).or_default();
            if members.is_empty() {
                joined.push(group);
            }
            members.addresses = addresses;
        }
        for (&group, members) in &mut ifp.groups {
            if members.addresses > 0 && !wanted.contains_key(&group) {
                members.addresses = 0;
                if members.is_empty() {
                    left.push(group);
                }
            }
        }
        ifp.groups.retain(|_, members| !members.is_empty());
        for group in left {
            self.ifs.touch();
            self.group_left(dev, group);
        }
        for group in joined {
            self.ifs.touch();
            self.group_announce(dev, group);
        }
    }

    /// Sends the reports that are due.
    pub(crate) fn groups_run(&mut self) {
        let now = self.now.monotonic;
        while let Some((dev, group)) = self.reports.pop(now) {
            self.group_report(dev, group);
        }
    }

    /// Whether an interface can report groups: it is up, and has an address to send from.
    pub(crate) fn can_report(&self, dev: IfIndex, family: Family) -> bool {
        let ifp = self.ifs.get(dev).filter(|ifp| ifp.is_up());
        let addrs = ifp.map_or(&[][..], |ifp| &ifp.addrs);
        addrs.iter().any(|addr| Family::of(&addr.addr) == family)
    }

    /// Reports the groups of a family that an interface is in. Its link may have forgotten them, or
    /// reports may not have been possible before.
    pub(crate) fn groups_announce(&mut self, dev: IfIndex, family: Family) {
        let groups = self.ifs.get(dev).map(|ifp| &ifp.groups);
        let groups = groups.into_iter().flatten().map(|(&group, _)| group);
        let groups: Vec<_> = groups.filter(|group| Family::of(group) == family).collect();
        for group in groups {
            self.group_announce(dev, group);
        }
    }

    /// Sends an unsolicited report of a group, and schedules another.
    fn group_announce(&mut self, dev: IfIndex, group: IpAddr) {
        if !is_reported(&group) {
            return;
        }
        self.group_report(dev, group);
        let again = self.now.monotonic + UNSOLICITED.mul_f64(self.rng.f64());
        self.reports.plan(dev, group, again);
    }

    fn group_report(&mut self, dev: IfIndex, group: IpAddr) {
        match group {
            IpAddr::V4(group_addr) => {
                let version = IgmpVersion::Version2;
                let report = IgmpRepr::MembershipReport {
                    group_addr,
                    version,
                };
                self.igmp_send(dev, &report, group_addr);
            }
            IpAddr::V6(group) => self.mld_send(dev, MLD_REPORT, group, group),
        }
    }

    pub(super) fn igmp_input(&mut self, received: &Received) -> Verdict {
        let rcvif = received.rcvif;
        let Some(&[kind, tenths, _, _, a, b, c, d]) = received.payload().first_chunk() else {
            return Verdict::Dropped(DropReason::Malformed);
        };
        match kind {
            IGMP_QUERY => {
                if !names_its_sources(received.payload(), IGMP_V2_QUERY, 4) {
                    return Verdict::Dropped(DropReason::Malformed);
                }
                let group = Ipv4Addr::new(a, b, c, d);
                let asked = (!group.is_unspecified()).then_some(IpAddr::V4(group));
                // Version 1 has no such field, and means ten seconds (RFC 2236 section 4).
                let tenths = if tenths == 0 { 100 } else { tenths };
                let within = Duration::from_millis(u64::from(tenths) * 100);
                self.group_query(rcvif, asked, within, Family::Inet)
            }
            // The report of another host. We send our own all the same.
            IGMP_REPORT | IGMP_LEAVE | 0x12 | 0x22 => Verdict::Delivered,
            _ => Verdict::Dropped(DropReason::NotWanted),
        }
    }

    pub(super) fn mld_input(&mut self, received: &Received) -> Verdict {
        let (header, message) = (&received.header, received.payload());
        // RFC 2710 section 3: queries and reports come from the link, and stay on it.
        let from_link = is_link_local(&header.src) && header.hop_limit == 1;
        if message.len() < 24 || !from_link {
            return Verdict::Dropped(DropReason::Malformed);
        }
        if message[0] != MLD_QUERY {
            return Verdict::Delivered;
        }
        // RFC 3810 section 6.2: every router on the way has seen a query.
        if !has_router_alert(&received.packet) {
            return Verdict::Dropped(DropReason::NotWanted);
        }
        if !names_its_sources(message, MLD_V1_QUERY, 16) {
            return Verdict::Dropped(DropReason::Malformed);
        }
        let millis = u16::from_be_bytes([message[4], message[5]]);
        let group: [u8; 16] = std::array::from_fn(|at| message[8 + at]);
        let group = Ipv6Addr::from(group);
        let asked = (!group.is_unspecified()).then_some(IpAddr::V6(group));
        let within = Duration::from_millis(millis.max(1).into());
        self.group_query(received.rcvif, asked, within, Family::Inet6)
    }

    /// Handles a router's query. Each group is reported at a random time, up to `within` from now.
    fn group_query(
        &mut self,
        rcvif: IfIndex,
        asked: Option<IpAddr>,
        within: Duration,
        family: Family,
    ) -> Verdict {
        let Some(ifp) = self.ifs.get(rcvif) else {
            return Verdict::Dropped(DropReason::NotWanted);
        };
        let groups = ifp.groups.keys().copied();
        let meant = |group: &IpAddr| {
            let asked = asked.is_none_or(|asked| asked == *group);
            asked && Family::of(group) == family && is_reported(group)
        };
        let groups: Vec<_> = groups.filter(meant).collect();
        let now = self.now.monotonic;
        for group in groups {
            let at = now + within.mul_f64(self.rng.f64());
            self.reports.plan(rcvif, group, at);
        }
        Verdict::Delivered
    }

    fn igmp_send(&mut self, dev: IfIndex, message: &IgmpRepr, dst: Ipv4Addr) {
        /// Router Alert (RFC 2113): makes every router on the way look at the packet.
        const ROUTER_ALERT: [u8; 4] = [0x94, 4, 0, 0];
        const HEADER: usize = IPV4_HEADER + ROUTER_ALERT.len();
        /// Type of service: internetwork control. RFC 2236 does not ask for it, but other systems
        /// do so.
        const CONTROL: u8 = 0xc0;

        let Some(ifp) = self.ifs.get(dev).filter(|ifp| ifp.is_up()) else {
            return;
        };
        let Some(IpAddr::V4(src)) = ifp.source_for(&dst.into(), &dst.into()) else {
            return;
        };
        let mut packet = Packet::zeroed(HEADER + message.buffer_len());
        let (head, payload) = packet.split_at_mut(HEADER);
        message.emit(&mut IgmpPacket::new_unchecked(payload));
        head[IPV4_HEADER..].copy_from_slice(&ROUTER_ALERT);
        // Field by field, because smoltcp's `Ipv4Repr` has no options.
        let mut ip = Ipv4Packet::new_unchecked(head);
        ip.set_version(4);
        ip.set_header_len(HEADER as u8);
        ip.set_dscp(CONTROL >> 2);
        ip.set_total_len((HEADER + message.buffer_len()) as u16);
        ip.set_hop_limit(1);
        ip.set_next_header(IpProtocol::Igmp);
        ip.set_src_addr(src);
        ip.set_dst_addr(dst);
        ip.fill_checksum();
        let _ = self.if_output(dev, Family::Inet, packet, dst.into());
    }

    fn mld_send(&mut self, dev: IfIndex, kind: u8, group: Ipv6Addr, dst: Ipv6Addr) {
        /// Router Alert in a hop-by-hop header (RFC 2711), padded.
        const ROUTER_ALERT: [u8; 8] = [proto::ICMPV6, 0, 5, 2, 0, 0, 1, 0];

        let Some(ifp) = self.ifs.get(dev).filter(|ifp| ifp.is_up()) else {
            return;
        };
        // RFC 3590: the source is unspecified as long as there is no link-local address.
        let src = ifp.link_local().unwrap_or(Ipv6Addr::UNSPECIFIED);
        // By hand, because smoltcp knows version 2 of the protocol only.
        let mut message = [0; 24];
        message[0] = kind;
        message[8..].copy_from_slice(&group.octets());
        let sum = checksum::fill(&src.into(), &dst.into(), proto::ICMPV6, &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut packet = Packet::concat(&ROUTER_ALERT, &message);
        let len = packet.len() as u16;
        packet.prepend(&ipv6_header(src, dst, proto::HOP_BY_HOP, 1, len));
        let _ = self.if_output(dev, Family::Inet6, packet, dst.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_as_long_as_it_says() {
        for (first, size) in [(IGMP_V2_QUERY, 4), (MLD_V1_QUERY, 16)] {
            let query = |len: usize, sources: u8| {
                let mut query = vec![0; len];
                if let Some(count) = query.get_mut(first + 3) {
                    *count = sources;
                }
                names_its_sources(&query, first, size)
            };
            assert!(query(first, 0) && query(first + 4, 0));
            assert!(query(first + 4 + 2 * size, 2) && query(first + 4 + 3 * size, 2));
            assert!(!query(first + 1, 0) && !query(first + 3, 0));
            assert!(!query(first + 4, 1) && !query(first + 3 + 2 * size, 2));
        }
    }
}

//! Group membership, as a host that hears every source: IGMP version 3 (RFC 3376) and MLD version 2
//! (RFC 3810), and for older queriers IGMP versions 1 and 2 (RFC 2236) and MLD version 1 (RFC 2710).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use smoltcp::wire::{IpProtocol, Ipv4Packet};

use super::header::{IPV4_HEADER, IPV6_HEADER, has_router_alert, ipv6_header, proto};
use super::reports::{Occasion, Query, Report, Version};
use super::{Ip, Received, Verdict, checksum};
use crate::ifnet::{
    DropReason, Family, IfFlags, IfIndex, MemberKind, Members, is_interface_local, is_link_local,
    solicited_node,
};
use crate::packet::Packet;

const IGMP_QUERY: u8 = 0x11;
const IGMP_V1_REPORT: u8 = 0x12;
const IGMP_V2_REPORT: u8 = 0x16;
const IGMP_LEAVE: u8 = 0x17;
const IGMP_V3_REPORT: u8 = 0x22;
const MLD_QUERY: u8 = 130;
const MLD_V1_REPORT: u8 = 131;
const MLD_DONE: u8 = 132;
const MLD_V2_REPORT: u8 = 143;
const ALL_ROUTERS_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 2);
pub(crate) const ALL_ROUTERS_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// The routers that understand IGMP version 3.
const V3_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 22);
/// The routers that understand MLD version 2.
const V2_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
const ALL_SYSTEMS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
pub(crate) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// A change is reported again within this time, in case the first report was lost (RFC 3376 section
/// 8.11, RFC 3810 section 9.11). With a robustness of 2 there is no third.
const UNSOLICITED: Duration = Duration::from_secs(1);
/// The same, of the older versions (RFC 2236 section 8.10, RFC 2710 section 7.10).
const UNSOLICITED_OLDER: Duration = Duration::from_secs(10);
/// Router Alert (RFC 2113): makes every router on the way look at the packet.
const ROUTER_ALERT_V4: [u8; 4] = [0x94, 4, 0, 0];
/// The same, in a hop-by-hop header (RFC 2711), padded.
const ROUTER_ALERT_V6: [u8; 8] = [proto::ICMPV6, 0, 5, 2, 0, 0, 1, 0];

/// What a record says of a group: all sources are wanted, or none (RFC 3376 section 4.2.12).
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
enum RecordType {
    /// MODE_IS_EXCLUDE, of no source.
    Joined = 2,
    /// CHANGE_TO_INCLUDE_MODE, of no source.
    Leaves = 3,
    /// CHANGE_TO_EXCLUDE_MODE, of no source.
    Joins = 4,
}

/// Whether a group is reported to routers. Groups that every host is in, and those that stay on
/// this host, are not (RFC 2236 section 6, RFC 2710 section 5).
fn is_reported(group: &IpAddr) -> bool {
    match group {
        IpAddr::V4(group) => *group != ALL_SYSTEMS,
        IpAddr::V6(v6) => *v6 != ALL_NODES && !is_interface_local(group),
    }
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
            self.groups_report_change(dev, &[group]);
        }
        joined
    }

    /// Leaves a group, once, and tells routers if that was the last membership. False if no member
    /// of this kind joined it.
    pub(crate) fn group_leave(&mut self, dev: IfIndex, group: IpAddr, member: MemberKind) -> bool {
        let left = self.group_exit(dev, group, member);
        if left && !self.is_in(dev, &group) {
            self.groups_report_change(dev, &[group]);
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
        let left = before.difference(&now).copied();
        let mut changed: Vec<_> = left.filter(|group| !self.is_in(dev, group)).collect();
        changed.extend(now.difference(before));
        self.groups_report_change(dev, &changed);
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
        let mut changed = Vec::new();
        for (&group, &addresses) in &wanted {
            let members = ifp.groups.entry(group).or_default();
            if members.is_empty() {
                changed.push(group);
            }
            members.addresses = addresses;
        }
        for (&group, members) in &mut ifp.groups {
            if members.addresses > 0 && !wanted.contains_key(&group) {
                members.addresses = 0;
                if members.is_empty() {
                    changed.push(group);
                }
            }
        }
        ifp.groups.retain(|_, members| !members.is_empty());
        if !changed.is_empty() {
            self.ifs.touch();
            self.groups_report_change(dev, &changed);
        }
    }

    /// Sends the reports that are due.
    pub(crate) fn groups_run(&mut self) {
        let due = self.reports.take_due(self.now.monotonic);
        for due in due.chunk_by(|(dev, group, _), (next_dev, next, _)| {
            dev == next_dev && group.is_ipv4() == next.is_ipv4()
        }) {
            self.groups_report(due);
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
        self.groups_report_change(dev, &groups);
    }

    /// Reports that groups were joined or left, and plans to do so again.
    fn groups_report_change(&mut self, dev: IfIndex, groups: &[IpAddr]) {
        let now = self.now.monotonic;
        for family in [Family::Inet, Family::Inet6] {
            let changed = groups.iter().filter(|group| Family::of(group) == family);
            let changed = changed.filter(|group| is_reported(group));
            let changed: Vec<_> = changed
                .map(|&group| (dev, group, Occasion::Changed))
                .collect();
            if changed.is_empty() {
                continue;
            }
            self.groups_report(&changed);
            let newest = self.reports.version(dev, family, now) == Version::V3;
            let together = now + UNSOLICITED.mul_f64(self.delays.fraction());
            for (_, group, _) in changed {
                let is_in = self.is_in(dev, &group);
                if !is_in {
                    self.reports.cancel(dev, group, Occasion::Asked);
                }
                if newest {
                    self.reports.plan_change(dev, group, together);
                } else if is_in {
                    let again = now + UNSOLICITED_OLDER.mul_f64(self.delays.fraction());
                    self.reports.plan_change(dev, group, again);
                } else {
                    self.reports.cancel(dev, group, Occasion::Changed);
                }
            }
        }
    }

    /// Sends reports, which are all of one interface and family.
    fn groups_report(&mut self, reports: &[Report]) {
        let Some(&(dev, group, _)) = reports.first() else {
            return;
        };
        let family = Family::of(&group);
        let version = self.reports.version(dev, family, self.now.monotonic);
        if version == Version::V3 {
            return self.records_send(dev, family, reports);
        }
        for &(_, group, _) in reports {
            match (self.is_in(dev, &group), version, group) {
                (true, Version::V1, IpAddr::V4(group)) => {
                    self.igmp_send_older(dev, IGMP_V1_REPORT, group, group);
                }
                (true, _, IpAddr::V4(group)) => {
                    self.igmp_send_older(dev, IGMP_V2_REPORT, group, group);
                }
                // Version 1 has no message for it.
                (false, Version::V1, IpAddr::V4(_)) => {}
                (false, _, IpAddr::V4(group)) => {
                    self.igmp_send_older(dev, IGMP_LEAVE, group, ALL_ROUTERS_V4);
                }
                (true, _, IpAddr::V6(group)) => {
                    self.mld_send_older(dev, MLD_V1_REPORT, group, group);
                }
                (false, _, IpAddr::V6(group)) => {
                    self.mld_send_older(dev, MLD_DONE, group, ALL_ROUTERS_V6);
                }
            }
        }
    }

    /// Sends records of groups, as many in one message as fit.
    fn records_send(&mut self, dev: IfIndex, family: Family, reports: &[Report]) {
        /// Bytes before the first record.
        const HEAD: usize = 8;

        let (Some(ifp), Some((_, group, _))) = (self.ifs.get(dev), reports.first()) else {
            return;
        };
        let mtu = usize::from(ifp.mtu_to(group));
        let (headers, group_len) = match family {
            Family::Inet6 => (IPV6_HEADER + ROUTER_ALERT_V6.len(), 16),
            _ => (IPV4_HEADER + ROUTER_ALERT_V4.len(), 4),
        };
        let fit = mtu.saturating_sub(headers + HEAD) / (4 + group_len);
        let records = reports.iter().filter_map(|&(_, group, occasion)| {
            let record = match (occasion, self.is_in(dev, &group)) {
                (Occasion::Asked, true) => RecordType::Joined,
                (Occasion::Asked, false) => return None,
                (Occasion::Changed, true) => RecordType::Joins,
                (Occasion::Changed, false) => RecordType::Leaves,
            };
            Some((record, group))
        });
        let records: Vec<_> = records.collect();
        for records in records.chunks(fit.max(1)) {
            let mut message = vec![0; HEAD];
            message[6..].copy_from_slice(&(records.len() as u16).to_be_bytes());
            for (record, group) in records {
                // Neither auxiliary data nor sources.
                message.extend_from_slice(&[*record as u8, 0, 0, 0]);
                match group {
                    IpAddr::V4(group) => message.extend_from_slice(&group.octets()),
                    IpAddr::V6(group) => message.extend_from_slice(&group.octets()),
                }
            }
            match family {
                Family::Inet6 => {
                    message[0] = MLD_V2_REPORT;
                    self.mld_send(dev, &mut message, V2_ROUTERS);
                }
                _ => {
                    message[0] = IGMP_V3_REPORT;
                    self.igmp_send(dev, &mut message, V3_ROUTERS);
                }
            }
        }
    }

    pub(super) fn igmp_input(&mut self, received: &Received) -> Verdict {
        let rcvif = received.rcvif;
        let Some([kind, ..]) = received.payload().first_chunk::<8>() else {
            return Verdict::Dropped(DropReason::Malformed);
        };
        match *kind {
            IGMP_QUERY => {}
            // The report of another host. We send our own all the same.
            IGMP_V1_REPORT | IGMP_V2_REPORT | IGMP_LEAVE | IGMP_V3_REPORT => {
                return Verdict::Delivered;
            }
            _ => return Verdict::Dropped(DropReason::NotWanted),
        }
        match Query::igmp(received.payload()) {
            Some(query) => self.group_query(rcvif, &query, Family::Inet),
            None => Verdict::Dropped(DropReason::Malformed),
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
        match Query::mld(message) {
            Some(query) => self.group_query(received.rcvif, &query, Family::Inet6),
            None => Verdict::Dropped(DropReason::Malformed),
        }
    }

    /// Handles a router's query. Each group that is meant is reported at a random time within the
    /// one that the query gives; a query for sources, too, because we hear them all.
    fn group_query(&mut self, rcvif: IfIndex, query: &Query, family: Family) -> Verdict {
        let now = self.now.monotonic;
        let Some(ifp) = self.ifs.get(rcvif) else {
            return Verdict::Dropped(DropReason::NotWanted);
        };
        self.reports.heard(rcvif, family, query, now);
        let groups = ifp.groups.keys().copied();
        let meant = |group: &IpAddr| {
            let asked = query.group.is_none_or(|asked| asked == *group);
            asked && Family::of(group) == family && is_reported(group)
        };
        let groups: Vec<_> = groups.filter(meant).collect();
        let newest = self.reports.version(rcvif, family, now) == Version::V3;
        let together = now + query.within.mul_f64(self.delays.fraction());
        for group in groups {
            // One message has them all, or each has its own.
            let at = match newest {
                true => together,
                false => now + query.within.mul_f64(self.delays.fraction()),
            };
            self.reports.plan_answer(rcvif, group, at);
        }
        Verdict::Delivered
    }

    fn igmp_send_older(&mut self, dev: IfIndex, kind: u8, group: Ipv4Addr, dst: Ipv4Addr) {
        let mut message = [kind, 0, 0, 0, 0, 0, 0, 0];
        message[4..].copy_from_slice(&group.octets());
        self.igmp_send(dev, &mut message, dst);
    }

    /// Sends a message of IGMP, in which it fills in the checksum.
    fn igmp_send(&mut self, dev: IfIndex, message: &mut [u8], dst: Ipv4Addr) {
        const HEADER: usize = IPV4_HEADER + ROUTER_ALERT_V4.len();
        /// Type of service: internetwork control (RFC 3376 section 4).
        const CONTROL: u8 = 0xc0;

        let Some(ifp) = self.ifs.get(dev).filter(|ifp| ifp.is_up()) else {
            return;
        };
        let Some(IpAddr::V4(src)) = ifp.source_for(&dst.into(), &dst.into()) else {
            return;
        };
        let sum = checksum::fill_plain(message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut head = [0; HEADER];
        head[IPV4_HEADER..].copy_from_slice(&ROUTER_ALERT_V4);
        // Field by field, because smoltcp's `Ipv4Repr` has no options.
        let mut ip = Ipv4Packet::new_unchecked(&mut head[..]);
        ip.set_version(4);
        ip.set_header_len(HEADER as u8);
        ip.set_dscp(CONTROL >> 2);
        ip.set_total_len((HEADER + message.len()) as u16);
        ip.set_hop_limit(1);
        ip.set_next_header(IpProtocol::Igmp);
        ip.set_src_addr(src);
        ip.set_dst_addr(dst);
        ip.fill_checksum();
        let packet = Packet::concat(&head, message);
        let _ = self.if_output(dev, Family::Inet, packet, dst.into());
    }

    fn mld_send_older(&mut self, dev: IfIndex, kind: u8, group: Ipv6Addr, dst: Ipv6Addr) {
        let mut message = [0; 24];
        message[0] = kind;
        message[8..].copy_from_slice(&group.octets());
        self.mld_send(dev, &mut message, dst);
    }

    /// Sends a message of MLD, in which it fills in the checksum.
    fn mld_send(&mut self, dev: IfIndex, message: &mut [u8], dst: Ipv6Addr) {
        let Some(ifp) = self.ifs.get(dev).filter(|ifp| ifp.is_up()) else {
            return;
        };
        // RFC 3590: the source is unspecified as long as there is no link-local address.
        let src = ifp.link_local().unwrap_or(Ipv6Addr::UNSPECIFIED);
        let sum = checksum::fill(&src.into(), &dst.into(), proto::ICMPV6, message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut packet = Packet::concat(&ROUTER_ALERT_V6, message);
        let len = packet.len() as u16;
        packet.prepend(&ipv6_header(src, dst, proto::HOP_BY_HOP, 1, len));
        let _ = self.if_output(dev, Family::Inet6, packet, dst.into());
    }
}

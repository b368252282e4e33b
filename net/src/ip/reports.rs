//! When group memberships are reported, and in which version of the protocols: IGMP (RFC 3376) and
//! MLD (RFC 3810), each as old as the oldest querier of the link.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::ifnet::{Family, IfIndex};
use crate::timers::{Timer, Timers};

/// Bytes of a query of IGMP version 1 or 2.
const IGMP_V2_QUERY: usize = 8;
/// Bytes of a query of MLD version 1.
const MLD_V1_QUERY: usize = 24;
/// A querier asks this often, unless it says how often (RFC 3376 section 8.2).
const QUERY_INTERVAL: Duration = Duration::from_secs(125);
/// How often a message is sent in case some are lost (RFC 3376 section 8.1).
pub(super) const ROBUSTNESS: u32 = 2;
/// Most changes of one interface that are kept to be reported again. Programs can leave groups, and
/// join others, without end; those that are too many are reported once.
const MAX_CHANGES: usize = 512;

/// A version of IGMP. Those of MLD count one less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    /// IGMP version 1 (RFC 1112): nobody tells that it leaves.
    V1,
    /// IGMP version 2 (RFC 2236), and MLD version 1 (RFC 2710): one group in each message.
    V2,
    /// IGMP version 3, and MLD version 2: records of many groups in one message.
    V3,
}

/// The occasion of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Occasion {
    /// A router asked.
    Asked,
    /// The group was joined, or left.
    Changed,
}

/// A report by an interface.
pub(super) type Report = (IfIndex, IpAddr, Occasion);

/// What a router asks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Query {
    /// The group, or all.
    pub(super) group: Option<IpAddr>,
    /// The answer is sent within this time.
    pub(super) within: Duration,
    version: Version,
    /// The pause between queries for all groups, if it says so.
    interval: Option<Duration>,
}

impl Query {
    /// A query of IGMP; `None` if its length is that of no version (RFC 3376 section 7.1).
    pub(super) fn igmp(message: &[u8]) -> Option<Self> {
        let &[_, code, _, _, a, b, c, d] = message.first_chunk()?;
        let interval = interval_behind(message, IGMP_V2_QUERY, 4)?;
        let group = Ipv4Addr::new(a, b, c, d);
        let (version, tenths) = match (interval, code) {
            // Version 1 has no such field, and means ten seconds (RFC 2236 section 4).
            (None, 0) => (Version::V1, 100),
            (None, code) => (Version::V2, code.into()),
            (Some(_), code) => (Version::V3, small_float(code).max(1)),
        };
        Some(Self {
            group: (!group.is_unspecified()).then_some(group.into()),
            within: Duration::from_millis(u64::from(tenths) * 100),
            version,
            interval,
        })
    }

    /// The same, of MLD (RFC 3810 section 8.1).
    pub(super) fn mld(message: &[u8]) -> Option<Self> {
        let interval = interval_behind(message, MLD_V1_QUERY, 16)?;
        let code = u16::from_be_bytes(*message.get(4..)?.first_chunk()?);
        let group = Ipv6Addr::from(*message.get(8..)?.first_chunk::<16>()?);
        let (version, millis) = match interval {
            None => (Version::V2, code.into()),
            Some(_) => (Version::V3, large_float(code)),
        };
        Some(Self {
            group: (!group.is_unspecified()).then_some(group.into()),
            within: Duration::from_millis(millis.max(1).into()),
            version,
            interval,
        })
    }
}

/// The pause between queries in the four bytes that later versions add behind the `first` ones; in
/// the last two is the number of sources behind, of `size` bytes each. `None` if the query is not as
/// long as it says, `Some(None)` if it ends before.
#[allow(clippy::option_option)]
fn interval_behind(query: &[u8], first: usize, size: usize) -> Option<Option<Duration>> {
    if query.len() == first {
        return Some(None);
    }
    let &[_, code, high, low] = query.get(first..)?.first_chunk()?;
    let sources = usize::from(u16::from_be_bytes([high, low]));
    if query.len() < first + 4 + sources * size {
        return None;
    }
    Some(Some(match code {
        0 => QUERY_INTERVAL,
        code => Duration::from_secs(small_float(code).into()),
    }))
}

/// The value of a byte that is a small floating-point number from 128 on (RFC 3376 section 4.1.1).
fn small_float(code: u8) -> u32 {
    match code {
        0..128 => code.into(),
        _ => u32::from(code & 0xf | 0x10) << ((code >> 4 & 7) + 3),
    }
}

/// The same, of two bytes, from 32 768 on (RFC 3810 section 5.1.3).
fn large_float(code: u16) -> u32 {
    match code {
        0..0x8000 => code.into(),
        _ => u32::from(code & 0xfff | 0x1000) << ((code >> 12 & 7) + 3),
    }
}

/// What the queriers of one link are known to understand.
#[derive(Debug)]
struct Queriers {
    /// The time until which one of version 1 is there, and one of version 2.
    older: [Duration; 2],
    interval: Duration,
}

/// Reports that are due, and the versions of each link. Bounded by the number of interfaces and
/// joined groups, and by [`MAX_CHANGES`].
#[derive(Debug, Default)]
pub(crate) struct Reports {
    planned: BTreeMap<Report, Timer>,
    timers: Timers<Report>,
    queriers: BTreeMap<(IfIndex, Family), Queriers>,
}

/// The groups of a family.
fn groups_of(family: Family) -> RangeInclusive<IpAddr> {
    match family {
        Family::Inet => Ipv4Addr::UNSPECIFIED.into()..=Ipv4Addr::BROADCAST.into(),
        _ => Ipv6Addr::UNSPECIFIED.into()..=Ipv6Addr::from(u128::MAX).into(),
    }
}

impl Reports {
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.timers.deadline()
    }

    /// The version in which an interface reports: that of the oldest querier heard lately (RFC 3376
    /// section 7.2.1, RFC 3810 section 8.2.1).
    pub(super) fn version(&self, dev: IfIndex, family: Family, now: Duration) -> Version {
        match self.queriers.get(&(dev, family)) {
            Some(queriers) if now < queriers.older[0] => Version::V1,
            Some(queriers) if now < queriers.older[1] => Version::V2,
            _ => Version::V3,
        }
    }

    /// Notes the version of a query. If reports are to be older from now on, those that were
    /// planned are not sent.
    pub(super) fn heard(&mut self, dev: IfIndex, family: Family, query: &Query, now: Duration) {
        let before = self.version(dev, family, now);
        let queriers = self.queriers.entry((dev, family));
        let queriers = queriers.or_insert(Queriers {
            older: [Duration::ZERO; 2],
            interval: QUERY_INTERVAL,
        });
        if let Some(interval) = query.interval {
            queriers.interval = interval;
        }
        // RFC 3376 section 8.12: the Older Version Querier Present Timeout.
        let until = now + queriers.interval * ROBUSTNESS + query.within;
        match query.version {
            Version::V1 => queriers.older[0] = until,
            Version::V2 => queriers.older[1] = until,
            Version::V3 => {}
        }
        if self.version(dev, family, now) != before {
            self.cancel_all(dev, family);
        }
    }

    /// Plans the answer to a query, or brings forward one that is planned.
    pub(super) fn plan_answer(&mut self, dev: IfIndex, group: IpAddr, at: Duration) {
        let report = (dev, group, Occasion::Asked);
        let timer = self.planned.entry(report).or_default();
        let at = timer.at().map_or(at, |planned| planned.min(at));
        self.timers.arm(timer, report, at);
    }

    /// Plans to report a change again, instead of an earlier change of the same group.
    pub(super) fn plan_change(&mut self, dev: IfIndex, group: IpAddr, at: Duration) {
        let report = (dev, group, Occasion::Changed);
        let full = || {
            let [inet, inet6] = [Family::Inet, Family::Inet6].map(groups_of);
            let first = (dev, *inet.start(), Occasion::Asked);
            let last = (dev, *inet6.end(), Occasion::Changed);
            let planned = self.planned.range(first..=last);
            let changes = planned.filter(|((.., occasion), _)| *occasion == Occasion::Changed);
            changes.count() >= MAX_CHANGES
        };
        if self.planned.contains_key(&report) || !full() {
            let timer = self.planned.entry(report).or_default();
            self.timers.arm(timer, report, at);
        }
    }

    pub(super) fn cancel(&mut self, dev: IfIndex, group: IpAddr, occasion: Occasion) {
        let report = (dev, group, occasion);
        if let Some(mut timer) = self.planned.remove(&report) {
            self.timers.disarm(&mut timer, report);
        }
    }

    /// Takes the reports that are due, those of one interface and family after each other.
    pub(super) fn take_due(&mut self, now: Duration) -> Vec<Report> {
        let mut due = Vec::new();
        while let Some(report) = self.timers.pop(now) {
            self.planned.remove(&report);
            due.push(report);
        }
        due.sort_unstable();
        due
    }

    /// Cancels the reports of a family by an interface, and forgets the queriers.
    pub(crate) fn detach(&mut self, dev: IfIndex, family: Family) {
        self.cancel_all(dev, family);
        self.queriers.remove(&(dev, family));
    }

    fn cancel_all(&mut self, dev: IfIndex, family: Family) {
        let (first, last) = groups_of(family).into_inner();
        let all = (dev, first, Occasion::Asked)..=(dev, last, Occasion::Changed);
        let gone: Vec<_> = self.planned.range(all).map(|(&report, _)| report).collect();
        for (dev, group, occasion) in gone {
            self.cancel(dev, group, occasion);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEV: IfIndex = IfIndex(1);

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn group(last: u32) -> IpAddr {
        Ipv4Addr::from(0xef01_0000 + last).into()
    }

    #[test]
    fn a_query_is_as_long_as_it_says() {
        type Parse = fn(&[u8]) -> Option<Query>;
        let kinds: [(usize, usize, Parse); 2] = [
            (IGMP_V2_QUERY, 4, Query::igmp),
            (MLD_V1_QUERY, 16, Query::mld),
        ];
        for (first, size, parse) in kinds {
            let query = |len: usize, sources: u8| {
                let mut query = vec![0; len];
                if let Some(count) = query.get_mut(first + 3) {
                    *count = sources;
                }
                parse(&query).is_some()
            };
            assert!(query(first, 0) && query(first + 4, 0));
            assert!(query(first + 4 + 2 * size, 2) && query(first + 4 + 3 * size, 2));
            assert!(!query(first - 1, 0) && !query(0, 0));
            assert!(!query(first + 1, 0) && !query(first + 3, 0));
            assert!(!query(first + 4, 1) && !query(first + 3 + 2 * size, 2));
        }
    }

    #[test]
    fn times_of_queries() {
        let within = |code, rest: &[u8]| {
            let head = [0x11, code, 0, 0, 0, 0, 0, 0];
            let query = Query::igmp(&[&head, rest].concat()).unwrap();
            (query.version, query.within, query.interval)
        };
        assert_eq!(within(0, &[]), (Version::V1, secs(10), None));
        // Version 2 knows no floating-point numbers.
        let v2 = Duration::from_millis(25_500);
        assert_eq!(within(255, &[]), (Version::V2, v2, None));
        let largest = within(255, &[0, 255, 0, 0]);
        assert_eq!(
            largest,
            (
                Version::V3,
                Duration::from_millis(3_174_400),
                Some(secs(31_744))
            )
        );
        let least = within(0, &[0, 0, 0, 0]);
        let tenth = Duration::from_millis(100);
        assert_eq!(least, (Version::V3, tenth, Some(QUERY_INTERVAL)));

        let within = |code: [u8; 2], rest: &[u8]| {
            let head = [130, 0, 0, 0, code[0], code[1], 0, 0];
            let query = Query::mld(&[&head, &[0; 16][..], rest].concat()).unwrap();
            (query.version, query.within.as_millis())
        };
        assert_eq!(within([255, 255], &[]), (Version::V2, 65_535));
        assert_eq!(within([127, 255], &[0; 4]), (Version::V3, 32_767));
        assert_eq!(within([128, 0], &[0; 4]), (Version::V3, 32_768));
        assert_eq!(within([255, 255], &[0; 4]), (Version::V3, 8_387_584));
    }

    #[test]
    fn the_oldest_querier_decides_as_long_as_it_is_there() {
        let mut reports = Reports::default();
        let query = |code: u8, rest: &[u8]| {
            Query::igmp(&[&[0x11, code, 0, 0, 0, 0, 0, 0], rest].concat()).unwrap()
        };
        let version = |reports: &Reports, at| reports.version(DEV, Family::Inet, secs(at));
        assert_eq!(version(&reports, 0), Version::V3);
        reports.heard(DEV, Family::Inet, &query(0, &[]), secs(1));
        reports.heard(DEV, Family::Inet, &query(100, &[]), secs(100));
        assert_eq!(version(&reports, 260), Version::V1);
        assert_eq!(version(&reports, 261), Version::V2);
        // A newer one beside it changes nothing, but it says how often is asked here.
        reports.heard(DEV, Family::Inet, &query(100, &[2, 20, 0, 0]), secs(300));
        assert_eq!(version(&reports, 359), Version::V2);
        assert_eq!(version(&reports, 360), Version::V3);
        reports.heard(DEV, Family::Inet, &query(100, &[]), secs(400));
        assert_eq!(version(&reports, 449), Version::V2);
        assert_eq!(version(&reports, 450), Version::V3);
        // Every family and interface has its own, and a new interface none.
        reports.heard(DEV, Family::Inet, &query(100, &[]), secs(500));
        assert_eq!(version(&reports, 501), Version::V2);
        let inet6 = reports.version(DEV, Family::Inet6, secs(501));
        let other = reports.version(IfIndex(2), Family::Inet, secs(501));
        assert_eq!([inet6, other], [Version::V3; 2]);
        reports.detach(DEV, Family::Inet);
        assert_eq!(version(&reports, 501), Version::V3);
    }

    #[test]
    fn what_was_planned_in_a_newer_version_is_not_sent() {
        let mut reports = Reports::default();
        let other = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 1).into();
        for group in [group(1), group(2), other] {
            reports.plan_change(DEV, group, secs(1));
            reports.plan_answer(DEV, group, secs(1));
        }
        let query = Query::igmp(&[0x11, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        reports.heard(DEV, Family::Inet, &query, secs(0));
        let left = reports.take_due(secs(1));
        assert_eq!(
            left,
            [
                (DEV, other, Occasion::Asked),
                (DEV, other, Occasion::Changed)
            ]
        );
        // The next one is no change.
        reports.plan_answer(DEV, group(1), secs(3));
        reports.heard(DEV, Family::Inet, &query, secs(2));
        assert_eq!(reports.deadline(), Some(secs(3)));
    }

    #[test]
    fn changes_to_be_repeated_are_bounded() {
        let mut reports = Reports::default();
        for last in 0..1000 {
            reports.plan_change(DEV, group(last), secs(1));
        }
        reports.plan_change(IfIndex(2), group(1), secs(1));
        // One of those that are kept may change again, and all are answered for.
        reports.plan_change(DEV, group(0), secs(2));
        reports.plan_answer(DEV, group(999), secs(2));
        assert_eq!(reports.take_due(secs(1)).len(), MAX_CHANGES);
        assert_eq!(reports.take_due(secs(2)).len(), 2);
        assert_eq!((reports.planned.len(), reports.deadline()), (0, None));
    }
}

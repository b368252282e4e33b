//! The routing table: longest prefix first, then lowest metric among interfaces that are up.
//!
//! Routes with the same prefix and metric over different interfaces stand side by side. Of these one
//! over a tunnel is used before the others, and of those again the one that was added last. Each
//! keeps its place for as long as it is there, and a [connected](Origin::Connected) one beyond that,
//! until it [is forgotten](RouteTable::forget).

mod spec;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;
use smallvec::SmallVec;

pub use spec::{RouteSpec, write_route};

use crate::ifnet::IfIndex;

/// Most routes in the table.
pub const MAX_ROUTES: usize = 1 << 20;
/// Most routes with the same prefix. It also bounds the search for one whose interface is up.
const MAX_METRICS: usize = 64;

/// The metric of an advertised route over `dev`. It differs for each interface, and is higher than
/// that of a static route without a metric.
pub(crate) fn advertised_metric(dev: IfIndex) -> u32 {
    const FIRST: u32 = 1024;

    FIRST.saturating_add(dev.0)
}

/// The origin of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An address of an interface: the route comes and goes with it.
    Connected,
    /// The administrator.
    Static,
    /// A router's advertisement, for its lifetime.
    Advertised,
}

/// A route: the next hop of packets for a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The interface that packets leave by; `None` if they are refused, because the destinations
    /// are unreachable.
    pub dev: Option<IfIndex>,
    /// Whether that is a tunnel. Such a route is used before others of the same metric.
    pub tunnel: bool,
    /// The router; `None` when the destination is on the link.
    pub via: Option<IpAddr>,
    /// The source address; `None` leaves it to the interface.
    pub src: Option<IpAddr>,
    /// Lower is preferred.
    pub metric: u32,
    /// The origin.
    pub origin: Origin,
}

/// A route of the table with its place among its equals, to be [put back](RouteTable::restore).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The route.
    pub route: Route,
    /// Grows with every route that is added.
    place: u64,
}

impl Placed {
    /// Routes of one prefix, in this order: the first that can be used is used.
    fn preference(&self) -> (u32, bool, Reverse<u64>) {
        let Route { metric, tunnel, .. } = self.route;
        (metric, !tunnel, Reverse(self.place))
    }

    /// Whether one of the two has to make room for the other.
    fn excludes(&self, other: &Route) -> bool {
        self.route.metric == other.metric && self.route.dev == other.dev
    }
}

/// The reason why a destination has no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupError {
    /// No prefix covers it (`ENETUNREACH`).
    NoRoute,
    /// The interfaces of the longest prefix that covers it are down (`ENETDOWN`).
    Down,
}

/// The table is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteTableFull;

/// Routes of both families.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// The routes of a prefix stand in the order in which they are preferred.
    v4: PrefixMap<Ipv4Net, Vec<Placed>>,
    v6: PrefixMap<Ipv6Net, Vec<Placed>>,
    /// The prefixes of the routes over each interface.
    over: BTreeSet<(IfIndex, IpNet)>,
    /// The places of connected routes that are gone, and may come back.
    places: BTreeMap<(IfIndex, IpNet), u64>,
    len: usize,
    /// The place of the route that was added last.
    last: u64,
    generation: u64,
    /// How many prefixes routes were removed from.
    #[cfg(test)]
    visited: usize,
}

impl RouteTable {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a route; one with the same prefix, metric and interface is replaced and returned.
    pub fn insert(
        &mut self,
        prefix: IpNet,
        route: Route,
    ) -> Result<Option<Placed>, RouteTableFull> {
        let prefix = prefix.trunc();
        if let Some(replaced) = self.replace(prefix, route) {
            return Ok(Some(replaced));
        }
        if !self.has_room(prefix) {
            return Err(RouteTableFull);
        }
        self.last += 1;
        let remembered = match (route.origin, route.dev) {
            (Origin::Connected, Some(dev)) => self.places.remove(&(dev, prefix)),
            _ => None,
        };
        let place = remembered.unwrap_or(self.last);
        self.put(prefix, Placed { route, place });
        Ok(None)
    }

    /// Puts back a route that was replaced or removed, at its old place.
    pub fn restore(&mut self, prefix: IpNet, placed: Placed) {
        if self.replace(prefix, placed.route).is_none() && self.has_room(prefix) {
            self.put(prefix, placed);
        }
    }

    /// A place between those that were added before and those that will be, for a route that
    /// [moves there](Self::move_to) later.
    pub fn reserve(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Moves the routes of one prefix for which `wanted` holds to a place.
    pub fn move_to(&mut self, prefix: IpNet, place: u64, wanted: impl Fn(&Route) -> bool) {
        let Some(routes) = self.routes_mut(prefix) else {
            return;
        };
        for placed in routes.iter_mut().filter(|placed| wanted(&placed.route)) {
            placed.place = place;
        }
        routes.sort_by_key(Placed::preference);
        self.generation += 1;
    }

    /// Replaces the route that the new one excludes, and returns it. The place stays.
    fn replace(&mut self, prefix: IpNet, route: Route) -> Option<Placed> {
        let routes = self.routes_mut(prefix)?;
        let old = routes.iter_mut().find(|old| old.excludes(&route))?;
        let replaced = *old;
        old.route = route;
        self.generation += 1;
        self.remember(prefix, &replaced);
        Some(replaced)
    }

    fn put(&mut self, prefix: IpNet, placed: Placed) {
        self.generation += 1;
        self.len += 1;
        if let Some(dev) = placed.route.dev {
            self.over.insert((dev, prefix));
        }
        // Most prefixes have one route, and there may be very many.
        let one = || Vec::with_capacity(1);
        let routes = match prefix {
            IpNet::V4(prefix) => self.v4.entry(prefix).or_insert_with(one),
            IpNet::V6(prefix) => self.v6.entry(prefix).or_insert_with(one),
        };
        let at = routes.partition_point(|old| old.preference() < placed.preference());
        routes.insert(at, placed);
    }

    /// Notes the place of a connected route that is gone.
    fn remember(&mut self, prefix: IpNet, gone: &Placed) {
        if let (Origin::Connected, Some(dev)) = (gone.route.origin, gone.route.dev) {
            self.places.insert((dev, prefix), gone.place);
        }
    }

    /// Forgets the places of connected routes over an interface whose prefix is none of these.
    pub fn forget(&mut self, dev: IfIndex, but: impl Fn(&IpNet) -> bool) {
        let prefixes = self
            .places
            .range(range_of(dev))
            .map(|((_, prefix), _)| *prefix);
        let prefixes: Vec<_> = prefixes.filter(|prefix| !but(prefix)).collect();
        for prefix in prefixes {
            self.places.remove(&(dev, prefix));
        }
    }

    /// Whether one more route of this prefix would be taken.
    pub fn has_room(&self, prefix: IpNet) -> bool {
        self.len < MAX_ROUTES && self.routes(prefix).len() < MAX_METRICS
    }

    /// Removes the routes of one prefix for which `wanted` holds, and returns them.
    pub fn remove(&mut self, prefix: IpNet, wanted: impl Fn(&Route) -> bool) -> Vec<Placed> {
        #[cfg(test)]
        {
            self.visited += 1;
        }
        let Some(routes) = self.routes_mut(prefix) else {
            return Vec::new();
        };
        let removed: Vec<_> = routes.extract_if(.., |old| wanted(&old.route)).collect();
        let left: SmallVec<[_; 1]> = routes.iter().map(|left| left.route.dev).collect();
        if left.is_empty() {
            match prefix {
                IpNet::V4(prefix) => self.v4.remove(&prefix),
                IpNet::V6(prefix) => self.v6.remove(&prefix),
            };
        }
        for gone in &removed {
            self.remember(prefix, gone);
            if let Some(dev) = gone.route.dev
                && !left.contains(&gone.route.dev)
            {
                self.over.remove(&(dev, prefix));
            }
        }
        self.len -= removed.len();
        self.generation += u64::from(!removed.is_empty());
        removed
    }

    /// Removes the routes over an interface whose prefix is `wanted`. The routes over others are not
    /// looked at.
    pub fn remove_over(&mut self, dev: IfIndex, wanted: impl Fn(&IpNet) -> bool) {
        let prefixes: Vec<_> = self.prefixes_over(dev).filter(wanted).collect();
        for prefix in prefixes {
            self.remove(prefix, |route| route.dev == Some(dev));
        }
    }

    /// The prefixes of the routes over an interface.
    fn prefixes_over(&self, dev: IfIndex) -> impl Iterator<Item = IpNet> {
        self.over.range(range_of(dev)).map(|(_, prefix)| *prefix)
    }

    /// The routes over an interface, to be [put back](Self::restore).
    pub fn over(&self, dev: IfIndex) -> impl Iterator<Item = (IpNet, Placed)> {
        let of = move |prefix| self.placed(prefix).map(move |placed| (prefix, placed));
        let routes = self.prefixes_over(dev).flat_map(of);
        routes.filter(move |(_, placed)| placed.route.dev == Some(dev))
    }

    /// The best route to `dst` over an interface that is `up`, with its prefix. It is as if routes
    /// over `never` were not there, nor an unreachable one that stands beside them, with the same
    /// prefix, to take their place.
    #[inline(always)]
    pub fn lookup(
        &self,
        dst: &IpAddr,
        never: Option<IfIndex>,
        up: impl Fn(IfIndex) -> bool,
    ) -> Result<(IpNet, &Route), LookupError> {
        let longest = match never {
            None => self.longest(dst),
            Some(never) => self.longest_but(dst, never),
        };
        let (prefix, routes) = longest.ok_or(LookupError::NoRoute)?;
        let unreachable = never.is_none_or(|never| !is_over(routes, never));
        let mut routes = routes.iter().map(|placed| &placed.route);
        let may = |route: &&Route| match route.dev {
            Some(dev) => route.dev != never && up(dev),
            None => unreachable,
        };
        let route = routes.find(may).ok_or(LookupError::Down)?;
        Ok((prefix, route))
    }

    /// The longest prefix that covers `dst`, and its routes.
    #[inline(always)]
    fn longest(&self, dst: &IpAddr) -> Option<(IpNet, &[Placed])> {
        match dst {
            IpAddr::V4(dst) => {
                let (prefix, routes) = self.v4.get_lpm(&Ipv4Net::from(*dst))?;
                Some((IpNet::V4(prefix), routes))
            }
            IpAddr::V6(dst) => {
                let (prefix, routes) = self.v6.get_lpm(&Ipv6Net::from(*dst))?;
                Some((IpNet::V6(prefix), routes))
            }
        }
    }

    /// The longest one that has routes over other interfaces than `never`.
    #[cold]
    fn longest_but(&self, dst: &IpAddr, never: IfIndex) -> Option<(IpNet, &[Placed])> {
        let others = |routes: &[Placed]| {
            let unreachable = !is_over(routes, never);
            let mut routes = routes.iter();
            routes.any(|placed| match placed.route.dev {
                Some(dev) => dev != never,
                None => unreachable,
            })
        };
        match dst {
            IpAddr::V4(dst) => {
                let cover = self.v4.cover(&Ipv4Net::from(*dst));
                let (prefix, routes) = cover.filter(|(_, routes)| others(routes)).last()?;
                Some((IpNet::V4(prefix), routes))
            }
            IpAddr::V6(dst) => {
                let cover = self.v6.cover(&Ipv6Net::from(*dst));
                let (prefix, routes) = cover.filter(|(_, routes)| others(routes)).last()?;
                Some((IpNet::V6(prefix), routes))
            }
        }
    }

    fn routes(&self, prefix: IpNet) -> &[Placed] {
        let routes = match prefix {
            IpNet::V4(prefix) => self.v4.get(&prefix),
            IpNet::V6(prefix) => self.v6.get(&prefix),
        };
        routes.map_or(&[], Vec::as_slice)
    }

    fn routes_mut(&mut self, prefix: IpNet) -> Option<&mut Vec<Placed>> {
        match prefix {
            IpNet::V4(prefix) => self.v4.get_mut(&prefix),
            IpNet::V6(prefix) => self.v6.get_mut(&prefix),
        }
    }

    /// The routes of exactly this prefix, in the order in which they are preferred.
    pub fn at(&self, prefix: IpNet) -> impl Iterator<Item = &Route> {
        self.routes(prefix).iter().map(|placed| &placed.route)
    }

    /// The same, to be [put back](Self::restore).
    pub fn placed(&self, prefix: IpNet) -> impl Iterator<Item = Placed> {
        self.routes(prefix).iter().copied()
    }

    /// Every route, IPv4 first, by prefix, then metric, and then from the oldest on: added again in
    /// this order they make the same table.
    pub fn iter(&self) -> impl Iterator<Item = (IpNet, &Route)> {
        let v4 = self.v4.iter();
        let v4 = v4.map(|(prefix, routes)| (IpNet::V4(prefix), routes));
        let v6 = self.v6.iter();
        let v6 = v6.map(|(prefix, routes)| (IpNet::V6(prefix), routes));
        v4.chain(v6).flat_map(|(prefix, routes)| {
            let mut routes: SmallVec<[&Placed; 1]> = routes.iter().collect();
            routes.sort_by_key(|placed| (placed.route.metric, placed.place));
            let routes = routes.into_iter();
            routes.map(move |placed| (prefix, &placed.route))
        })
    }

    /// Grows with every change. A caller that keeps the result of a lookup compares it.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Invalidates kept results, because an interface changed.
    pub fn touch(&mut self) {
        self.generation += 1;
    }
}

/// Whether one of these routes is over an interface.
fn is_over(routes: &[Placed], dev: IfIndex) -> bool {
    routes.iter().any(|placed| placed.route.dev == Some(dev))
}

/// The prefixes of an interface in an index by interface and prefix.
fn range_of(dev: IfIndex) -> impl std::ops::RangeBounds<(IfIndex, IpNet)> {
    let last = Ipv6Net::new_assert(Ipv6Addr::from([0xff; 16]), 128);
    (dev, default_prefix(false))..=(dev, IpNet::V6(last))
}

/// The prefix that contains one address only.
pub fn host_prefix(addr: IpAddr) -> IpNet {
    IpNet::from(addr)
}

/// The prefix that contains every address of a family.
pub fn default_prefix(ipv6: bool) -> IpNet {
    if ipv6 {
        IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0))
    } else {
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(dev: u32, metric: u32) -> Route {
        Route {
            dev: Some(IfIndex(dev)),
            tunnel: false,
            via: None,
            src: None,
            metric,
            origin: Origin::Static,
        }
    }

    fn tunnel(dev: u32, metric: u32) -> Route {
        Route {
            tunnel: true,
            ..route(dev, metric)
        }
    }

    fn unreachable(metric: u32) -> Route {
        Route {
            dev: None,
            ..route(0, metric)
        }
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn devs(table: &RouteTable) -> Vec<u32> {
        let dev = |route: &Route| route.dev.map_or(0, |dev| dev.0);
        table.iter().map(|(_, route)| dev(route)).collect()
    }

    #[test]
    fn longest_prefix_then_lowest_metric_then_up() {
        let mut table = RouteTable::new();
        table.insert(net("0.0.0.0/0"), route(1, 0)).unwrap();
        table.insert(net("10.0.0.0/8"), route(2, 5)).unwrap();
        table.insert(net("10.0.0.0/8"), route(3, 1)).unwrap();
        table.insert(net("fd00::/8"), route(4, 0)).unwrap();
        let dev = |dst: &str, down: u32| {
            let found = table.lookup(&dst.parse().unwrap(), None, |dev| dev.0 != down);
            found.map(|(_, route)| route.dev.unwrap().0)
        };
        assert_eq!(dev("10.1.2.3", 0), Ok(3));
        assert_eq!(dev("10.1.2.3", 3), Ok(2));
        assert_eq!(dev("11.1.2.3", 0), Ok(1));
        assert_eq!(dev("11.1.2.3", 1), Err(LookupError::Down));
        assert_eq!(dev("fd12::1", 0), Ok(4));
        assert_eq!(dev("fe80::1", 0), Err(LookupError::NoRoute));
    }

    #[test]
    fn of_equals_a_tunnel_is_used_and_then_the_last() {
        let mut table = RouteTable::new();
        let prefix = net("0.0.0.0/0");
        let used = |table: &RouteTable, down: &[u32]| {
            let dst = "10.0.0.1".parse().unwrap();
            let found = table.lookup(&dst, None, |dev| !down.contains(&dev.0));
            found.map(|(_, route)| route.dev.map_or(0, |dev| dev.0))
        };
        for new in [
            route(1, 0),
            tunnel(2, 0),
            route(3, 0),
            tunnel(4, 0),
            route(5, 0),
        ] {
            assert_eq!(table.insert(prefix, new), Ok(None));
        }
        table.insert(prefix, unreachable(9)).unwrap();
        assert_eq!(devs(&table), [1, 2, 3, 4, 5, 0]);
        assert_eq!(used(&table, &[]), Ok(4));
        assert_eq!(used(&table, &[4]), Ok(2));
        assert_eq!(used(&table, &[4, 2]), Ok(5));
        assert_eq!(used(&table, &[4, 2, 5]), Ok(3));
        assert_eq!(used(&table, &[1, 2, 3, 4, 5]), Ok(0));
        // Added again, one keeps its place; removed and added, it does not.
        assert!(table.insert(prefix, tunnel(2, 0)).unwrap().is_some());
        assert_eq!(used(&table, &[]), Ok(4));
        let removed = table.remove(prefix, |route| route.dev == Some(IfIndex(2)));
        table.insert(prefix, tunnel(2, 0)).unwrap();
        assert_eq!(used(&table, &[]), Ok(2));
        assert_eq!(devs(&table), [1, 3, 4, 5, 2, 0]);
        table.remove(prefix, |route| route.dev == Some(IfIndex(2)));
        table.restore(prefix, removed[0]);
        assert_eq!(devs(&table), [1, 2, 3, 4, 5, 0]);
        // What is listed makes the same table.
        let mut copy = RouteTable::new();
        for (prefix, route) in table.iter() {
            copy.insert(prefix, *route).unwrap();
        }
        assert!(copy.iter().eq(table.iter()));
        for down in [&[][..], &[4], &[4, 2], &[2, 4, 5]] {
            assert_eq!(used(&copy, down), used(&table, down));
        }
    }

    #[test]
    fn a_connected_route_comes_back_to_its_place() {
        let mut table = RouteTable::new();
        let prefix = net("10.0.0.0/8");
        let connected = |dev| Route {
            origin: Origin::Connected,
            ..route(dev, 0)
        };
        for dev in [1, 2, 3] {
            table.insert(prefix, connected(dev)).unwrap();
        }
        table.remove_over(IfIndex(1), |_| true);
        assert_eq!(devs(&table), [2, 3]);
        table.forget(IfIndex(1), |place| *place == prefix);
        table.insert(prefix, connected(1)).unwrap();
        assert_eq!(devs(&table), [1, 2, 3]);
        table.remove_over(IfIndex(1), |_| true);
        table.forget(IfIndex(1), |_| false);
        table.insert(prefix, connected(1)).unwrap();
        assert_eq!(devs(&table), [2, 3, 1]);
    }

    #[test]
    fn a_bypass_goes_on_to_shorter_prefixes() {
        let mut table = RouteTable::new();
        table.insert(net("0.0.0.0/0"), route(1, 0)).unwrap();
        table.insert(net("0.0.0.0/0"), tunnel(2, 0)).unwrap();
        table.insert(net("0.0.0.0/1"), tunnel(2, 0)).unwrap();
        table.insert(net("10.0.0.0/8"), tunnel(2, 0)).unwrap();
        table.insert(net("10.0.0.0/8"), route(3, 7)).unwrap();
        table.insert(net("10.1.0.0/16"), tunnel(2, 0)).unwrap();
        table.insert(net("fd00::/8"), tunnel(2, 0)).unwrap();
        let dev = |dst: &str, down: u32| {
            let never = Some(IfIndex(2));
            let found = table.lookup(&dst.parse().unwrap(), never, |dev| dev.0 != down);
            found.map(|(prefix, route)| (prefix.prefix_len(), route.dev.unwrap().0))
        };
        assert_eq!(dev("9.9.9.9", 0), Ok((0, 1)));
        assert_eq!(dev("10.1.0.1", 0), Ok((8, 3)));
        assert_eq!(dev("10.1.0.1", 3), Err(LookupError::Down));
        assert_eq!(dev("9.9.9.9", 1), Err(LookupError::Down));
        assert_eq!(dev("fd00::1", 0), Err(LookupError::NoRoute));
    }

    #[test]
    fn a_bypass_passes_what_is_unreachable_only_beside_its_tunnel() {
        let mut table = RouteTable::new();
        table.insert(net("0.0.0.0/0"), route(1, 0)).unwrap();
        table.insert(net("0.0.0.0/0"), tunnel(2, 0)).unwrap();
        table.insert(net("0.0.0.0/0"), unreachable(0)).unwrap();
        table.insert(net("10.0.0.0/8"), unreachable(0)).unwrap();
        let dev = |dst: &str, never: Option<u32>| {
            let found = table.lookup(&dst.parse().unwrap(), never.map(IfIndex), |_| true);
            found.map(|(_, route)| route.dev.map(|dev| dev.0))
        };
        // Others than the tunnel's own packets do not get out beside it.
        assert_eq!(dev("9.9.9.9", None), Ok(Some(2)));
        assert_eq!(dev("9.9.9.9", Some(2)), Ok(Some(1)));
        assert_eq!(dev("10.0.0.1", Some(2)), Ok(None));
        table.remove_over(IfIndex(2), |_| true);
        let found = table.lookup(&"9.9.9.9".parse().unwrap(), None, |_| true);
        assert_eq!(found.map(|(_, route)| route.dev), Ok(None));
    }

    #[test]
    fn same_prefix_metric_and_interface_is_replaced() {
        let mut table = RouteTable::new();
        let prefix = net("10.0.0.0/8");
        let via = Route {
            via: Some([10, 0, 0, 9].into()),
            ..route(1, 0)
        };
        assert_eq!(table.insert(prefix, route(1, 0)), Ok(None));
        let replaced = table.insert(prefix, via).unwrap().unwrap();
        assert_eq!(replaced.route, route(1, 0));
        assert_eq!(table.iter().count(), 1);
        assert_eq!(table.remove(prefix, |route| route.via.is_none()), []);
        assert_eq!(table.remove(prefix, |_| true)[0].route, via);
        assert_eq!(table.iter().count(), 0);
        assert_eq!((table.over.len(), table.len), (0, 0));
    }

    #[test]
    fn a_full_table_still_replaces() {
        let mut table = RouteTable::new();
        let prefix = net("10.0.0.0/8");
        for metric in 0..MAX_METRICS as u32 {
            assert_eq!(table.insert(prefix, route(1, metric)), Ok(None));
        }
        let one_more = route(1, MAX_METRICS as u32);
        assert_eq!(table.insert(prefix, one_more), Err(RouteTableFull));
        assert_eq!(table.insert(prefix, route(2, 7)), Err(RouteTableFull));
        assert!(table.insert(prefix, route(1, 7)).unwrap().is_some());
        table.len = MAX_ROUTES;
        assert_eq!(table.insert(net("fd00::/8"), one_more), Err(RouteTableFull));
        assert!(table.insert(prefix, route(1, 7)).unwrap().is_some());
        // What was refused has left nothing behind.
        assert_eq!(table.v6.iter().count(), 0);
    }

    #[test]
    fn all_of_an_interface_are_removed_and_the_generation_changes() {
        let mut table = RouteTable::new();
        table.insert(net("10.0.0.0/8"), route(1, 0)).unwrap();
        table.insert(net("10.0.0.0/8"), route(1, 3)).unwrap();
        table.insert(net("10.0.0.0/8"), route(2, 1)).unwrap();
        table.insert(net("fd00::/8"), route(1, 0)).unwrap();
        assert_eq!(table.over(IfIndex(1)).count(), 3);
        let generation = table.generation();
        table.remove_over(IfIndex(1), |prefix| prefix.network().is_ipv6());
        assert_eq!(devs(&table), [1, 2, 1]);
        table.remove_over(IfIndex(1), |_| true);
        assert_eq!(devs(&table), [2]);
        assert!(table.generation() > generation);
        assert_eq!(table.over.len(), 1);
    }

    #[test]
    fn an_interface_that_goes_costs_what_it_has_and_not_what_the_table_holds() {
        let mut table = RouteTable::new();
        for number in 0..10_000_u32 {
            let prefix = Ipv4Net::new_assert((number << 12).into(), 20);
            table.insert(prefix.into(), route(1, 7)).unwrap();
        }
        let own = ["0.0.0.0/0", "10.0.0.0/8", "fd00::/8"].map(net);
        for prefix in own {
            table.insert(prefix, route(2, 0)).unwrap();
            table.insert(prefix, route(2, 1)).unwrap();
        }
        let over =
            |table: &RouteTable| table.over(IfIndex(2)).map(|(at, _)| at).collect::<Vec<_>>();
        assert_eq!(
            over(&table),
            [own[0], own[0], own[1], own[1], own[2], own[2]]
        );
        let before = table.visited;
        table.remove_over(IfIndex(2), |prefix| prefix.network().is_ipv6());
        assert_eq!((table.visited - before, over(&table).len()), (1, 4));
        table.remove_over(IfIndex(2), |_| true);
        assert_eq!((table.visited - before, table.iter().count()), (3, 10_000));
        table.remove_over(IfIndex(2), |_| true);
        assert_eq!(table.visited - before, 3);
    }

    /// A list of routes in the order in which they were added, searched from end to end.
    #[derive(Default)]
    struct Slow(Vec<(IpNet, Route)>);

    impl Slow {
        fn insert(&mut self, prefix: IpNet, new: Route) {
            let same = |(of, old): &&mut (IpNet, Route)| {
                *of == prefix && old.metric == new.metric && old.dev == new.dev
            };
            match self.0.iter_mut().find(same) {
                Some((_, old)) => *old = new,
                None => self.0.push((prefix, new)),
            }
        }

        fn lookup(
            &self,
            dst: IpAddr,
            never: Option<IfIndex>,
            down: u32,
        ) -> Result<(IpNet, &Route), LookupError> {
            let beside = |prefix: &IpNet| {
                let over = |(of, route): &(IpNet, Route)| of == prefix && route.dev == never;
                never.is_some() && self.0.iter().any(over)
            };
            let covers = |(prefix, route): &&(IpNet, Route)| {
                let passed = match route.dev {
                    Some(_) => route.dev == never,
                    None => beside(prefix),
                };
                prefix.contains(&dst) && !passed
            };
            let covering = || self.0.iter().filter(covers);
            let longest = covering().map(|(prefix, _)| prefix.prefix_len()).max();
            let longest = longest.ok_or(LookupError::NoRoute)?;
            let up = |route: &Route| route.dev.is_none_or(|dev| dev.0 != down);
            let usable = covering().filter(|(prefix, _)| prefix.prefix_len() == longest);
            let usable = usable.filter(|(_, route)| up(route));
            // The last of equals.
            let best = usable.min_by(|(_, a), (_, b)| {
                let key = |route: &Route| (route.metric, !route.tunnel);
                key(a).cmp(&key(b)).then(std::cmp::Ordering::Greater)
            });
            let (prefix, route) = best.ok_or(LookupError::Down)?;
            Ok((*prefix, route))
        }
    }

    #[test]
    fn the_table_does_what_a_list_does() {
        for seed in 0..40 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut table, mut list) = (RouteTable::new(), Slow::default());
            let pick = |rng: &mut fastrand::Rng| match rng.bool() {
                true => IpAddr::from([10, rng.u8(..3), rng.u8(..3), 0]),
                false => IpAddr::from([0xfd00, rng.u16(..3), rng.u16(..3), 0, 0, 0, 0, 0]),
            };
            for _ in 0..300 {
                let addr = pick(&mut rng);
                let bits = [0, 8, 16, 24, 32][rng.usize(..5)];
                let prefix = IpNet::new(addr, bits).unwrap().trunc();
                let dev = rng.u32(..6);
                match rng.u8(..10) {
                    0..7 => {
                        let new = Route {
                            dev: (dev > 0).then_some(IfIndex(dev)),
                            tunnel: dev > 3,
                            src: rng.bool().then_some(addr),
                            ..route(0, rng.u32(..2))
                        };
                        table.insert(prefix, new).unwrap();
                        list.insert(prefix, new);
                    }
                    7 => {
                        let wanted = |route: &Route| route.metric == 1;
                        table.remove(prefix, wanted);
                        list.0.retain(|(of, route)| *of != prefix || !wanted(route));
                    }
                    8 => {
                        table.remove_over(IfIndex(dev), |_| true);
                        list.0.retain(|(_, route)| route.dev != Some(IfIndex(dev)));
                    }
                    _ => {
                        let of = table.over(IfIndex(dev)).count();
                        let routes = list.0.iter();
                        let there = routes.filter(|(_, route)| route.dev == Some(IfIndex(dev)));
                        assert_eq!(of, there.count(), "seed {seed}");
                    }
                }
                let dst = pick(&mut rng);
                let never = rng.bool().then(|| IfIndex(rng.u32(1..6)));
                let down = rng.u32(..6);
                let found = table.lookup(&dst, never, |dev| dev.0 != down);
                assert_eq!(found, list.lookup(dst, never, down), "seed {seed} {dst}");
                assert_eq!(table.iter().count(), list.0.len());
            }
        }
    }
}

//! The routing table: longest prefix first, then lowest metric among interfaces that are up.

mod spec;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

pub use spec::{RouteSpec, write_route};

use crate::ifnet::IfIndex;

/// Most routes in the table.
pub const MAX_ROUTES: usize = 1 << 20;
/// Most routes with the same prefix.
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
    /// The interface that packets leave by.
    pub dev: IfIndex,
    /// The router; `None` when the destination is on the link.
    pub via: Option<IpAddr>,
    /// The source address; `None` leaves it to the interface.
    pub src: Option<IpAddr>,
    /// Lower is preferred.
    pub metric: u32,
    /// The origin.
    pub origin: Origin,
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
    v4: PrefixMap<Ipv4Net, Vec<Route>>,
    v6: PrefixMap<Ipv6Net, Vec<Route>>,
    /// The prefixes of the routes over each interface.
    by_dev: BTreeSet<(IfIndex, IpNet)>,
    len: usize,
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

    /// Adds a route; one with the same prefix and metric is replaced and returned.
    pub fn insert(&mut self, prefix: IpNet, route: Route) -> Result<Option<Route>, RouteTableFull> {
        let prefix = prefix.trunc();
        let replaces = |old: &Route| old.metric == route.metric;
        if !self.at(prefix).iter().any(replaces) && !self.has_room(prefix) {
            return Err(RouteTableFull);
        }
        self.generation += 1;
        self.by_dev.insert((route.dev, prefix));
        let routes = match prefix {
            IpNet::V4(prefix) => self.v4.entry(prefix).or_default(),
            IpNet::V6(prefix) => self.v6.entry(prefix).or_default(),
        };
        match routes.binary_search_by_key(&route.metric, |route| route.metric) {
            Ok(at) => {
                let old = std::mem::replace(&mut routes[at], route);
                self.unindex(prefix, old.dev);
                Ok(Some(old))
            }
            Err(at) => {
                routes.insert(at, route);
                self.len += 1;
                Ok(None)
            }
        }
    }

    /// A route of this prefix over `dev` is gone.
    fn unindex(&mut self, prefix: IpNet, dev: IfIndex) {
        if self.at(prefix).iter().all(|route| route.dev != dev) {
            self.by_dev.remove(&(dev, prefix));
        }
    }

    /// Whether one more route of this prefix would be taken.
    pub fn has_room(&self, prefix: IpNet) -> bool {
        self.len < MAX_ROUTES && self.at(prefix).len() < MAX_METRICS
    }

    /// Removes the routes of one prefix for which `wanted` holds, and returns them.
    pub fn remove(&mut self, prefix: IpNet, wanted: impl Fn(&Route) -> bool) -> Vec<Route> {
        #[cfg(test)]
        {
            self.visited += 1;
        }
        let mut removed = Vec::new();
        let keep = |route: &Route| {
            let out = wanted(route);
            if out {
                removed.push(*route);
            }
            !out
        };
        match prefix {
            IpNet::V4(prefix) => {
                if let Some(routes) = self.v4.get_mut(&prefix) {
                    routes.retain(keep);
                    if routes.is_empty() {
                        self.v4.remove(&prefix);
                    }
                }
            }
            IpNet::V6(prefix) => {
                if let Some(routes) = self.v6.get_mut(&prefix) {
                    routes.retain(keep);
                    if routes.is_empty() {
                        self.v6.remove(&prefix);
                    }
                }
            }
        }
        self.len -= removed.len();
        self.generation += u64::from(!removed.is_empty());
        for route in &removed {
            self.unindex(prefix, route.dev);
        }
        removed
    }

    /// Deletes the routes over an interface whose prefix is `wanted`. It costs what these are, and
    /// not what the table holds.
    pub fn purge(&mut self, dev: IfIndex, wanted: impl Fn(&IpNet) -> bool) {
        let gone: Vec<_> = self.prefixes_of(dev).filter(wanted).collect();
        for prefix in gone {
            self.remove(prefix, |route| route.dev == dev);
        }
    }

    /// The routes over an interface, IPv4 first, by prefix and then metric.
    pub fn of(&self, dev: IfIndex) -> impl Iterator<Item = (IpNet, &Route)> {
        self.prefixes_of(dev).flat_map(move |prefix| {
            let routes = self.at(prefix).iter().filter(move |route| route.dev == dev);
            routes.map(move |route| (prefix, route))
        })
    }

    fn prefixes_of(&self, dev: IfIndex) -> impl Iterator<Item = IpNet> {
        let first = (dev, default_prefix(false));
        let prefixes = self.by_dev.range(first..);
        prefixes
            .take_while(move |(of, _)| *of == dev)
            .map(|&(_, prefix)| prefix)
    }

    /// The best route to `dst` over an interface that is `up`.
    pub fn lookup(
        &self,
        dst: &IpAddr,
        up: impl Fn(IfIndex) -> bool,
    ) -> Result<&Route, LookupError> {
        let routes = match dst {
            IpAddr::V4(dst) => self
                .v4
                .get_lpm(&Ipv4Net::from(*dst))
                .map(|(_, routes)| routes),
            IpAddr::V6(dst) => self
                .v6
                .get_lpm(&Ipv6Net::from(*dst))
                .map(|(_, routes)| routes),
        };
        let routes = routes.ok_or(LookupError::NoRoute)?;
        routes
            .iter()
            .find(|route| up(route.dev))
            .ok_or(LookupError::Down)
    }

    /// The routes of exactly this prefix, by metric.
    pub fn at(&self, prefix: IpNet) -> &[Route] {
        let routes = match prefix {
            IpNet::V4(prefix) => self.v4.get(&prefix),
            IpNet::V6(prefix) => self.v6.get(&prefix),
        };
        routes.map_or(&[], Vec::as_slice)
    }

    /// Every route, IPv4 first, by prefix and then metric.
    pub fn iter(&self) -> impl Iterator<Item = (IpNet, &Route)> {
        let v4 = self.v4.iter().flat_map(|(prefix, routes)| {
            routes.iter().map(move |route| (IpNet::V4(prefix), route))
        });
        let v6 = self.v6.iter().flat_map(|(prefix, routes)| {
            routes.iter().map(move |route| (IpNet::V6(prefix), route))
        });
        v4.chain(v6)
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
            dev: IfIndex(dev),
            via: None,
            src: None,
            metric,
            origin: Origin::Static,
        }
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn longest_prefix_then_lowest_metric_then_up() {
        let mut table = RouteTable::new();
        table.insert(net("0.0.0.0/0"), route(1, 0)).unwrap();
        table.insert(net("10.0.0.0/8"), route(2, 5)).unwrap();
        table.insert(net("10.0.0.0/8"), route(3, 1)).unwrap();
        table.insert(net("fd00::/8"), route(4, 0)).unwrap();
        let dev = |dst: &str, down: u32| {
            let found = table.lookup(&dst.parse().unwrap(), |dev| dev.0 != down);
            found.map(|route| route.dev.0)
        };
        assert_eq!(dev("10.1.2.3", 0), Ok(3));
        assert_eq!(dev("10.1.2.3", 3), Ok(2));
        assert_eq!(dev("11.1.2.3", 0), Ok(1));
        assert_eq!(dev("11.1.2.3", 1), Err(LookupError::Down));
        assert_eq!(dev("fd12::1", 0), Ok(4));
        assert_eq!(dev("fe80::1", 0), Err(LookupError::NoRoute));
    }

    #[test]
    fn same_prefix_and_metric_is_replaced() {
        let mut table = RouteTable::new();
        let prefix = net("10.0.0.0/8");
        assert_eq!(table.insert(prefix, route(1, 0)), Ok(None));
        assert_eq!(table.insert(prefix, route(2, 0)), Ok(Some(route(1, 0))));
        assert_eq!(table.iter().count(), 1);
        assert_eq!(table.remove(prefix, |route| route.dev.0 == 1), []);
        assert_eq!(table.remove(prefix, |_| true), [route(2, 0)]);
        assert_eq!(table.iter().count(), 0);
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
        assert_eq!(table.insert(prefix, route(2, 7)), Ok(Some(route(1, 7))));
        table.len = MAX_ROUTES;
        assert_eq!(table.insert(net("fd00::/8"), one_more), Err(RouteTableFull));
        assert_eq!(table.insert(prefix, route(3, 7)), Ok(Some(route(2, 7))));
        // What was refused has left nothing behind.
        assert_eq!(table.v6.iter().count(), 0);
    }

    #[test]
    fn purge_takes_all_of_an_interface_and_changes_the_generation() {
        let mut table = RouteTable::new();
        table.insert(net("10.0.0.0/8"), route(1, 0)).unwrap();
        table.insert(net("10.0.0.0/8"), route(2, 1)).unwrap();
        table.insert(net("fd00::/8"), route(1, 0)).unwrap();
        let generation = table.generation();
        table.purge(IfIndex(1), |_| true);
        assert_eq!(
            table
                .iter()
                .map(|(_, route)| route.dev.0)
                .collect::<Vec<_>>(),
            [2]
        );
        assert_eq!(table.iter().count(), 1);
        assert!(table.generation() > generation);
        assert_eq!(table.by_dev.len(), 1);
    }

    #[test]
    fn a_purge_costs_what_the_interface_has_and_not_what_the_table_holds() {
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
        let before = table.visited;
        let of = |table: &RouteTable| table.of(IfIndex(2)).map(|(at, _)| at).collect::<Vec<_>>();
        assert_eq!(of(&table), [own[0], own[0], own[1], own[1], own[2], own[2]]);
        table.purge(IfIndex(2), |prefix| prefix.network().is_ipv6());
        assert_eq!(
            (table.visited - before, table.of(IfIndex(2)).count()),
            (1, 4)
        );
        table.purge(IfIndex(2), |_| true);
        assert_eq!((table.visited - before, table.iter().count()), (3, 10_000));
        table.purge(IfIndex(2), |_| true);
        assert_eq!(table.visited - before, 3);
    }

    #[test]
    fn the_index_follows_every_change() {
        let mut table = RouteTable::new();
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..20_000 {
            let prefix = Ipv4Net::new_assert((rng.u32(..4) << 28).into(), rng.u8(1..5)).trunc();
            let (dev, metric) = (rng.u32(..4), rng.u32(..4));
            match rng.u8(..4) {
                0 => drop(table.remove(prefix.into(), |route| route.metric == metric)),
                1 if metric == 0 => table.purge(IfIndex(dev), |_| true),
                _ => drop(table.insert(prefix.into(), route(dev, metric)).unwrap()),
            }
            let all: BTreeSet<_> = table.iter().map(|(at, route)| (route.dev, at)).collect();
            assert_eq!(all, table.by_dev);
        }
    }
}

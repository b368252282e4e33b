//! Router discovery (RFC 4861 section 6.3) and stateless address autoconfiguration (RFC 4862), as a
//! host: which addresses an adapter gives itself, and which router it found.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use smoltcp::wire::{
    Icmpv6Repr, NdiscOption, NdiscOptionRepr, NdiscPrefixInfoFlags, NdiscPrefixInformation,
    NdiscRepr,
};

use super::{Mac, PortId};
use crate::ifnet::{DropReason, Family, IfAddr, IfIndex, Ifnet, Member, is_host, solicited_node};
use crate::net::Net;
use crate::netisr::Verdict;
use crate::route::{Origin, Route, default_prefix};

/// How long an address is asked for before it is ours (RFC 4862 section 5.1: `RetransTimer`, once).
const PROBE: Duration = Duration::from_secs(1);
/// The first solicitation is sent within this time (RFC 4861 section 10).
const SOLICIT_WITHIN: Duration = Duration::from_secs(1);
/// Pause between solicitations.
const SOLICIT_PAUSE: Duration = Duration::from_secs(4);
/// Solicitations without an answer before there is no router.
const SOLICITATIONS: u8 = 3;
/// What nobody can shorten the rest of an address's life below: advertisements can be forged
/// (RFC 4862 section 5.5.3).
const SAFE_LIFETIME: Duration = Duration::from_secs(2 * 60 * 60);
/// Most routers remembered.
const MAX_ROUTERS: usize = 8;
/// Most prefixes that an adapter makes itself addresses of.
const MAX_PREFIXES: usize = 16;
/// Metric of the first adapter's router: behind every route that somebody set without one.
const METRIC: u32 = 1024;
/// Length of the prefixes that addresses are made of: the rest is the adapter's.
const PREFIX_LEN: u8 = 64;

#[derive(Debug)]
struct Router {
    addr: Ipv6Addr,
    until: Duration,
}

/// An address that was made of a router's prefix.
#[derive(Debug)]
struct Made {
    addr: IfAddr,
    /// Until when connections may begin from it.
    preferred: Duration,
    until: Duration,
    deprecated: bool,
}

/// What is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Ask for routers.
    Solicit,
    /// Nobody else has this address.
    Unique(IfAddr),
    /// The life of a router is over.
    RouterGone,
    /// Nothing begins from one of the addresses any more.
    Deprecated,
    /// The life of this address is over.
    Expired(IfAddr),
}

/// What one adapter found out by itself. Bounded, whatever is advertised.
#[derive(Debug, Default)]
pub(super) struct Autoconf {
    /// Whether routers are neither asked for nor believed.
    pub(super) off: bool,
    /// When to ask for routers, and how often yet.
    solicit: Option<(Duration, u8)>,
    /// Addresses that somebody else may have, and when it is known that nobody has.
    tentative: Vec<(Duration, IfAddr)>,
    /// The first of them is used.
    routers: Vec<Router>,
    made: Vec<Made>,
    deadline: Option<Duration>,
}

impl Autoconf {
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    fn settle(&mut self) {
        let made = self.made.iter().map(|made| match made.deprecated {
            true => made.until,
            false => made.preferred.min(made.until),
        });
        let solicit = self.solicit.map(|(at, _)| at);
        self.deadline = made
            .chain(solicit)
            .chain(self.tentative.iter().map(|(until, _)| *until))
            .chain(self.routers.iter().map(|router| router.until))
            .min();
    }

    /// The router to use.
    fn router(&self) -> Option<Ipv6Addr> {
        self.routers.first().map(|router| router.addr)
    }

    fn deprecated(&self) -> impl Iterator<Item = IpAddr> {
        let deprecated = self.made.iter().filter(|made| made.deprecated);
        deprecated.map(|made| made.addr.addr)
    }

    fn has_made(&self, addr: &IpAddr) -> bool {
        self.made.iter().any(|made| made.addr.addr == *addr)
    }

    /// Asks for routers from `at` on.
    fn solicit(&mut self, at: Duration) {
        self.solicit = (!self.off).then_some((at, SOLICITATIONS));
        self.settle();
    }

    /// Waits until nobody can have the address. False if that goes on already.
    fn probe(&mut self, addr: IfAddr, now: Duration) -> bool {
        if self.tentative.iter().any(|(_, other)| *other == addr) {
            return false;
        }
        self.tentative.push((now + PROBE, addr));
        self.settle();
        true
    }

    /// Probes an address no longer. `None` if it was not probed.
    fn give_up(&mut self, addr: Ipv6Addr) -> Option<IfAddr> {
        let probed = |(_, own): &(Duration, IfAddr)| own.addr == IpAddr::V6(addr);
        let at = self.tentative.iter().position(probed)?;
        let (_, addr) = self.tentative.remove(at);
        self.settle();
        Some(addr)
    }

    /// A router is there for so long, or with no `lifetime` is one no longer.
    fn advertised(&mut self, addr: Ipv6Addr, lifetime: Duration, now: Duration) {
        self.solicit = None;
        let known = self.routers.iter().position(|router| router.addr == addr);
        let until = now + lifetime;
        match known {
            Some(at) if lifetime.is_zero() => drop(self.routers.remove(at)),
            Some(at) => self.routers[at].until = until,
            None if lifetime.is_zero() || self.routers.len() >= MAX_ROUTERS => {}
            None => self.routers.push(Router { addr, until }),
        }
        self.settle();
    }

    /// A router does not answer: another gets its turn (RFC 4861 section 6.3.6).
    fn unreachable(&mut self, addr: &IpAddr) {
        if self.router().map(IpAddr::V6) == Some(*addr) {
            self.routers.rotate_left(1);
        }
    }

    /// A prefix was advertised. Returns the address that is made of it, if any.
    fn prefix(&mut self, info: &NdiscPrefixInformation, mac: Mac, now: Duration) -> Option<IfAddr> {
        let valid = Duration::from(info.valid_lifetime);
        let preferred = Duration::from(info.preferred_lifetime);
        if !info.flags.contains(NdiscPrefixInfoFlags::ADDRCONF)
            || info.prefix_len != PREFIX_LEN
            || info.prefix.is_unicast_link_local()
            || preferred > valid
        {
            return None;
        }
        let on_link = info.flags.contains(NdiscPrefixInfoFlags::ON_LINK);
        let prefix = u128::from(info.prefix) >> 64 << 64;
        let addr = IfAddr {
            addr: Ipv6Addr::from(prefix | u128::from(mac.interface_id())).into(),
            prefix_len: if on_link { PREFIX_LEN } else { 128 },
            peer: None,
        };
        let known = self.made.iter_mut().find(|own| own.addr == addr);
        match known {
            Some(made) => {
                let rest = made.until.saturating_sub(now);
                if valid > SAFE_LIFETIME || valid > rest {
                    made.until = now + valid;
                } else {
                    made.until = now + rest.min(SAFE_LIFETIME);
                }
                made.preferred = now + preferred;
                made.deprecated = preferred.is_zero();
            }
            None => {
                let room = self.made.len() < MAX_PREFIXES;
                if valid.is_zero() || !room || !is_host(&addr.addr) || self.has_made(&addr.addr) {
                    return None;
                }
                self.made.push(Made {
                    addr,
                    preferred: now + preferred,
                    until: now + valid,
                    deprecated: preferred.is_zero(),
                });
            }
        }
        self.settle();
        Some(addr)
    }

    /// The next thing that is due.
    fn poll(&mut self, now: Duration) -> Option<Due> {
        let due = self.take_due(now);
        self.settle();
        due
    }

    fn take_due(&mut self, now: Duration) -> Option<Due> {
        if let Some(at) = self.tentative.iter().position(|(until, _)| *until <= now) {
            return Some(Due::Unique(self.tentative.remove(at).1));
        }
        if let Some((at, left)) = self.solicit.filter(|(at, _)| *at <= now) {
            self.solicit = (left > 1).then(|| (at + SOLICIT_PAUSE, left - 1));
            return Some(Due::Solicit);
        }
        let over = |router: &Router| router.until <= now;
        if let Some(at) = self.routers.iter().position(over) {
            self.routers.remove(at);
            return Some(Due::RouterGone);
        }
        if let Some(at) = self.made.iter().position(|made| made.until <= now) {
            return Some(Due::Expired(self.made.remove(at).addr));
        }
        let old = |made: &&mut Made| !made.deprecated && made.preferred <= now;
        self.made.iter_mut().find(old)?.deprecated = true;
        Some(Due::Deprecated)
    }

    /// Forgets all that routers said. Returns the addresses made of it.
    fn forget(&mut self) -> Vec<IfAddr> {
        self.solicit = None;
        self.routers.clear();
        let made: Vec<_> = self.made.drain(..).map(|made| made.addr).collect();
        self.settle();
        made
    }
}

impl Net {
    /// An adapter is there, or is up again: it takes its link-local address, and asks for routers.
    pub(crate) fn autoconf_start(&mut self, id: PortId) {
        let now = self.now.monotonic;
        let Some(port) = self.links.get_mut(id).filter(|port| port.present) else {
            return;
        };
        let (dev, mac) = (port.dev, port.mac);
        if !self.is_up(dev) {
            return;
        }
        self.autoconf_probe(id, dev, mac.link_local_addr());
        let at = now + SOLICIT_WITHIN.mul_f64(self.rng.f64());
        if let Some(port) = self.links.get_mut(id) {
            port.autoconf.solicit(at);
        }
    }

    /// Asks whether anybody has an address that is not ours yet (RFC 4862 section 5.4.2).
    fn autoconf_probe(&mut self, id: PortId, dev: IfIndex, addr: IfAddr) {
        let now = self.now.monotonic;
        let IpAddr::V6(target_addr) = addr.addr else {
            return;
        };
        let has = |ifp: &Ifnet| ifp.addrs.iter().any(|own| own.addr == addr.addr);
        if self
            .ifs
            .get(dev)
            .is_none_or(|ifp| !ifp.has_ipv6() || has(ifp))
        {
            return;
        }
        let port = self.links.get_mut(id);
        if !port.is_some_and(|port| port.autoconf.probe(addr, now)) {
            return;
        }
        let group = solicited_node(&target_addr);
        self.group_join(dev, group.into(), Member::Address, usize::MAX);
        let probe = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit {
            target_addr,
            lladdr: None,
        });
        self.nd_send(id, dev, Ipv6Addr::UNSPECIFIED, group, &probe);
    }

    /// The probe of an address is over: its group is the address's business now, or nobody's.
    fn autoconf_probed(&mut self, dev: IfIndex, addr: &IfAddr) {
        if let IpAddr::V6(addr) = addr.addr {
            self.group_leave(dev, solicited_node(&addr).into(), Member::Address);
        }
    }

    /// Somebody else has, or is about to take, an address. True if we were about to take it, and
    /// do not.
    pub(super) fn autoconf_duplicate(&mut self, id: PortId, dev: IfIndex, addr: Ipv6Addr) -> bool {
        let taken = self.autoconf_give_up(id, dev, addr);
        if taken {
            let name = self.ifs.get(dev).map_or("?", |ifp| &ifp.name);
            log::error!("{name}: another station has {addr}");
        }
        taken
    }

    /// Probes an address no longer. False if it was not probed.
    pub(super) fn autoconf_give_up(&mut self, id: PortId, dev: IfIndex, addr: Ipv6Addr) -> bool {
        let port = self.links.get_mut(id);
        let Some(addr) = port.and_then(|port| port.autoconf.give_up(addr)) else {
            return false;
        };
        self.autoconf_probed(dev, &addr);
        true
    }

    /// A router advertised itself: for `lifetime`, with these `options` behind the fixed part of
    /// its message.
    pub(super) fn ra_input(
        &mut self,
        id: PortId,
        dev: IfIndex,
        router: Ipv6Addr,
        lifetime: Duration,
        options: &[u8],
    ) -> Verdict {
        const NOT_WANTED: Verdict = Verdict::Dropped(DropReason::NotWanted);

        let now = self.now.monotonic;
        let Some(port) = self.links.get_mut(id).filter(|port| !port.autoconf.off) else {
            return NOT_WANTED;
        };
        port.autoconf.advertised(router, lifetime, now);
        let mac = port.mac;
        let mut new = Vec::new();
        let mut rest = options;
        // smoltcp's own reading of the message knows one prefix; two are usual.
        while let Ok(option) = NdiscOption::new_checked(rest) {
            if let Ok(NdiscOptionRepr::PrefixInformation(info)) = NdiscOptionRepr::parse(&option) {
                new.extend(port.autoconf.prefix(&info, mac, now));
            }
            let len = usize::from(option.data_len()) * 8;
            let (1.., Some(behind)) = (len, rest.get(len..)) else {
                break;
            };
            rest = behind;
        }
        for addr in new {
            self.autoconf_probe(id, dev, addr);
        }
        self.autoconf_changed(id);
        Verdict::Delivered
    }

    /// Makes the default route, and the addresses that nothing begins from, what routers say.
    fn autoconf_changed(&mut self, id: PortId) {
        let Some(port) = self.links.get_mut(id) else {
            return;
        };
        let dev = port.dev;
        let via = port.autoconf.router().map(IpAddr::V6);
        let deprecated: Vec<_> = port.autoconf.deprecated().collect();
        if let Some(ifp) = self.ifs.get_mut(dev)
            && ifp.deprecated != deprecated
        {
            ifp.deprecated = deprecated;
            self.routes.touch();
        }
        let prefix = default_prefix(true);
        let learned = |route: &Route| route.dev == dev && route.origin == Origin::Advertised;
        let routes = self.routes.at(prefix);
        if routes
            .iter()
            .find(|route| learned(route))
            .map(|route| route.via)
            == via.map(Some)
        {
            return;
        }
        self.routes.remove(prefix, learned);
        // Each adapter's has its own place, and takes nobody else's.
        let metric = METRIC.saturating_add(dev.0);
        let routes = self.routes.at(prefix);
        if via.is_some() && routes.iter().all(|route| route.metric != metric) {
            let route = Route {
                dev,
                via,
                src: None,
                metric,
                origin: Origin::Advertised,
            };
            // A full table has no room for it until the next advertisement.
            let _ = self.routes.insert(prefix, route);
        }
        self.watchers.touch();
    }

    /// Does what is due on an adapter.
    pub(super) fn autoconf_run(&mut self, id: PortId) {
        let now = self.now.monotonic;
        while let Some(port) = self.links.get_mut(id)
            && let Some(due) = port.autoconf.poll(now)
        {
            let dev = port.dev;
            match due {
                Due::Solicit => self.router_solicit(id),
                Due::Unique(addr) => {
                    self.autoconf_take(dev, addr);
                    self.autoconf_probed(dev, &addr);
                }
                Due::Expired(addr) => {
                    if let IpAddr::V6(addr) = addr.addr {
                        self.autoconf_give_up(id, dev, addr);
                    }
                    self.remove_addr(dev, &addr);
                    self.autoconf_changed(id);
                }
                Due::RouterGone | Due::Deprecated => self.autoconf_changed(id),
            }
        }
    }

    /// Nobody has the address: it is ours.
    fn autoconf_take(&mut self, dev: IfIndex, addr: IfAddr) {
        // Where nobody could answer nobody was asked.
        if !self.runs_ipv6(dev) || !self.has_driver(dev) {
            return;
        }
        let was_silent = !self.can_report(dev, Family::Inet6);
        self.add_addr(dev, addr);
        self.connect_routes(dev);
        self.watchers.touch();
        if was_silent {
            self.groups_announce(dev, Family::Inet6);
        }
    }

    /// A neighbour did not answer.
    pub(super) fn autoconf_unreachable(&mut self, id: PortId, addr: &IpAddr) {
        if let Some(port) = self.links.get_mut(id) {
            port.autoconf.unreachable(addr);
            self.autoconf_changed(id);
        }
    }

    /// Whether routers are asked for, and believed.
    pub(crate) fn autoconf(&self, id: PortId) -> bool {
        let port = self.links.ports.get(id.0 as usize);
        port.is_some_and(|port| !port.autoconf.off)
    }

    /// Believes routers, or forgets what they said.
    pub(crate) fn set_autoconf(&mut self, id: PortId, on: bool) {
        let Some(port) = self.links.get_mut(id) else {
            return;
        };
        if port.autoconf.off != on {
            return;
        }
        port.autoconf.off = !on;
        match on {
            true => self.autoconf_start(id),
            false => self.autoconf_forget(id),
        }
    }

    /// Forgets what routers said, and every address that is made of it or still looked into.
    pub(super) fn autoconf_forget(&mut self, id: PortId) {
        let Some(port) = self.links.get_mut(id) else {
            return;
        };
        let dev = port.dev;
        let made = port.autoconf.forget();
        for addr in made {
            if let IpAddr::V6(addr) = addr.addr {
                self.autoconf_give_up(id, dev, addr);
            }
            self.remove_addr(dev, &addr);
        }
        self.autoconf_changed(id);
    }

    /// Whether an address is the adapter's own doing, and not from anybody's setting.
    pub(crate) fn is_self_made(&self, dev: IfIndex, addr: &IfAddr) -> bool {
        let port = self.port_of(dev);
        let Some(port) = port.and_then(|id| self.links.ports.get(id.0 as usize)) else {
            return false;
        };
        addr.addr == IpAddr::V6(port.mac.link_local()) || port.autoconf.has_made(&addr.addr)
    }
}

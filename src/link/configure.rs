//! An adapter configures itself: what [`autoconf`](super::autoconf) finds out, done to addresses,
//! groups and routes.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use smoltcp::wire::{EthernetAddress, Icmpv6Repr, NdiscOption, NdiscOptionRepr, NdiscRepr};

use super::autoconf::{Due, Made};
use super::{Port, PortId};
use crate::ifnet::{DropReason, Family, IfAddr, IfIndex, Ifnet, MAX_ADDRS, solicited_node};
use crate::net::Net;
use crate::netisr::Verdict;
use crate::netisr::groups::ALL_ROUTERS_V6;
use crate::route::{Origin, Route, advertised_metric, default_prefix};

/// Routers are asked for the first time within this time (RFC 4861 section 10).
const SOLICIT_WITHIN: Duration = Duration::from_secs(1);

impl Net {
    /// An adapter is there, or is up again: it takes its link-local address, and asks for routers.
    pub(crate) fn autoconf_start(&mut self, id: PortId) {
        let delay = SOLICIT_WITHIN.mul_f64(self.rng.f64());
        let can = |port: &&Port| port.present && self.runs_ipv6(port.dev);
        let Some(&Port { dev, mac, .. }) = self.links.get(id).filter(can) else {
            return;
        };
        let mut wanted = vec![mac.link_local_addr()];
        if let Some(port) = self.links.get_mut(id) {
            wanted.extend(port.autoconf.start(delay));
        }
        for addr in wanted {
            self.autoconf_probe(id, dev, addr);
        }
        self.autoconf_changed(id);
    }

    /// An adapter is gone, or down: what nobody was asked for cannot be taken.
    pub(crate) fn autoconf_stop(&mut self, id: PortId) {
        let Some(port) = self.links.get_mut(id) else {
            return;
        };
        port.autoconf.stop();
        let dev = port.dev;
        self.groups_follow(dev);
    }

    /// Asks for an address that is not ours yet (RFC 4862 section 5.4).
    fn autoconf_probe(&mut self, id: PortId, dev: IfIndex, addr: IfAddr) {
        let cannot = |ifp: &Ifnet| ifp.addr(&addr.addr).is_some() || ifp.addrs.len() >= MAX_ADDRS;
        if !self.runs_ipv6(dev) || self.ifs.get(dev).is_none_or(cannot) {
            return;
        }
        if let Some(port) = self.links.get_mut(id) {
            port.autoconf.probe(addr);
            // Who else has it asks and answers there.
            self.groups_follow(dev);
        }
    }

    /// The addresses that an adapter asks for.
    pub(crate) fn autoconf_tentative(&self, dev: IfIndex) -> Vec<IpAddr> {
        let port = self.port(dev);
        port.map_or(Vec::new(), |port| port.autoconf.tentative().collect())
    }

    /// Asks for an address no longer. False if it was not asked for.
    pub(crate) fn autoconf_give_up(&mut self, id: PortId, addr: &IpAddr) -> bool {
        let Some(port) = self.links.get_mut(id) else {
            return false;
        };
        let dev = port.dev;
        let given_up = port.autoconf.give_up(addr);
        if given_up {
            self.groups_follow(dev);
        }
        given_up
    }

    /// Somebody else has, or is about to take, an address. True if we were about to take it, and
    /// do not.
    pub(super) fn autoconf_duplicate(&mut self, id: PortId, addr: Ipv6Addr) -> bool {
        let ours = self.autoconf_give_up(id, &addr.into());
        if ours && let Some(port) = self.links.get_mut(id) {
            port.autoconf.refuse(&addr.into());
            let name = self.ethernet_name(id).unwrap_or("?");
            log::error!("{name}: another station has {addr}");
        }
        ours
    }

    /// A router advertised itself: for `lifetime`, with these `options` behind the fixed part of
    /// its message.
    pub(super) fn ra_input(
        &mut self,
        id: PortId,
        router: Ipv6Addr,
        lifetime: Duration,
        options: &[u8],
    ) -> Verdict {
        let now = self.now.monotonic;
        let Some(port) = self.links.get_mut(id).filter(|port| !port.autoconf.off) else {
            return Verdict::Dropped(DropReason::NotWanted);
        };
        port.autoconf.advertised(router, lifetime, now);
        let (dev, mac) = (port.dev, port.mac);
        let ifp = self.ifs.get(dev);
        let is_set = |addr: &IpAddr| ifp.is_some_and(|ifp| ifp.addr(addr).is_some());
        let mut found = Vec::new();
        let mut rest = options;
        // smoltcp's own reading of the message knows one prefix; two are usual.
        while let Ok(option) = NdiscOption::new_checked(rest) {
            if let Ok(NdiscOptionRepr::PrefixInformation(info)) = NdiscOptionRepr::parse(&option) {
                found.extend(port.autoconf.prefix(&info, mac, is_set, now));
            }
            let len = usize::from(option.data_len()) * 8;
            let (1.., Some(behind)) = (len, rest.get(len..)) else {
                break;
            };
            rest = behind;
        }
        for addr in found {
            self.autoconf_found(id, dev, addr);
        }
        self.autoconf_changed(id);
        Verdict::Delivered
    }

    /// The adapter would have an address: it is asked for; or is there, and its network is on the
    /// link after all.
    fn autoconf_found(&mut self, id: PortId, dev: IfIndex, addr: IfAddr) {
        match self.ifs.get(dev).and_then(|ifp| ifp.addr(&addr.addr)) {
            Some(own) if own != addr => {
                self.remove_addr(dev, &own);
                self.autoconf_take(dev, addr);
            }
            Some(_) => {}
            None => self.autoconf_probe(id, dev, addr),
        }
    }

    /// Makes the default route, and the addresses that nothing begins from, what routers say.
    fn autoconf_changed(&mut self, id: PortId) {
        let Some(port) = self.links.get(id) else {
            return;
        };
        let dev = port.dev;
        let has_ipv6 = self.ifs.get(dev).is_some_and(Ifnet::has_ipv6);
        let via = port.autoconf.router().map(IpAddr::V6).filter(|_| has_ipv6);
        self.autoconf_deprecate(dev);
        let prefix = default_prefix(true);
        let learned = |route: &Route| route.dev == dev && route.origin == Origin::Advertised;
        let old = self.routes.at(prefix).iter().find(|route| learned(route));
        if old.and_then(|route| route.via) == via {
            return;
        }
        self.routes.remove(prefix, learned);
        let metric = advertised_metric(dev);
        let taken = |route: &Route| route.metric == metric;
        // A route that somebody set stays.
        if via.is_some() && !self.routes.at(prefix).iter().any(taken) {
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

    /// Makes the addresses that nothing begins from what routers say.
    pub(crate) fn autoconf_deprecate(&mut self, dev: IfIndex) {
        let deprecated = self
            .port(dev)
            .map(|port| port.autoconf.deprecated().collect());
        if let (Some(deprecated), Some(ifp)) = (deprecated, self.ifs.get_mut(dev))
            && ifp.deprecated != deprecated
        {
            ifp.deprecated = deprecated;
            self.routes.touch();
        }
    }

    /// Does what is due on an adapter.
    pub(super) fn autoconf_run(&mut self, id: PortId) {
        let now = self.now.monotonic;
        while let Some(port) = self.links.get_mut(id)
            && let Some(due) = port.autoconf.poll(now)
        {
            let dev = port.dev;
            match due {
                Due::Probe(addr) => self.autoconf_ask(id, dev, &addr),
                Due::Unique(addr) => self.autoconf_take(dev, addr),
                Due::Solicit => self.router_solicit(id),
                Due::Expired(addr) => {
                    self.autoconf_leave(id, dev, &addr);
                    self.autoconf_changed(id);
                }
                Due::RouterGone | Due::Deprecated => self.autoconf_changed(id),
            }
        }
    }

    /// Asks for routers.
    fn router_solicit(&mut self, id: PortId) {
        let Some(Port { dev, mac, .. }) = self.links.get_mut(id).filter(|port| port.present) else {
            return;
        };
        let (dev, mac) = (*dev, *mac);
        if !self.is_up(dev) {
            return;
        }
        let src = self.ifs.get(dev).and_then(Ifnet::link_local);
        // Who has no address yet does not say where it is either (RFC 4861 section 4.1).
        let lladdr = src.map(|_| EthernetAddress(mac.0).into());
        let message = Icmpv6Repr::Ndisc(NdiscRepr::RouterSolicit { lladdr });
        let src = src.unwrap_or(Ipv6Addr::UNSPECIFIED);
        self.nd_send(id, dev, src, ALL_ROUTERS_V6, &message);
    }

    /// Asks who has an address (RFC 4862 section 5.4.2).
    fn autoconf_ask(&mut self, id: PortId, dev: IfIndex, addr: &IfAddr) {
        if let IpAddr::V6(target_addr) = addr.addr {
            let probe = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit {
                target_addr,
                lladdr: None,
            });
            let group = solicited_node(&target_addr);
            self.nd_send(id, dev, Ipv6Addr::UNSPECIFIED, group, &probe);
        }
    }

    /// Nobody else has the address: it is ours.
    fn autoconf_take(&mut self, dev: IfIndex, addr: IfAddr) {
        let silent = |ifp: &Ifnet| ifp.link_local().is_none();
        let was_silent = self.ifs.get(dev).is_some_and(silent);
        self.ifs.add_addr(dev, addr);
        self.groups_follow(dev);
        self.connect_routes(dev);
        self.watchers.touch();
        // Reports from nowhere are not for keeps (RFC 3590).
        if was_silent && !self.ifs.get(dev).is_some_and(silent) {
            self.groups_announce(dev, Family::Inet6);
        }
    }

    /// An address that the adapter gave itself is given up, whether it is there yet or not.
    pub(super) fn autoconf_leave(&mut self, id: PortId, dev: IfIndex, addr: &IpAddr) {
        self.autoconf_give_up(id, addr);
        if let Some(own) = self.ifs.get(dev).and_then(|ifp| ifp.addr(addr)) {
            self.remove_addr(dev, &own);
            self.groups_follow(dev);
        }
    }

    /// A neighbour did not answer.
    pub(super) fn autoconf_unreachable(&mut self, id: PortId, addr: &IpAddr) {
        let port = self.links.get_mut(id);
        if port.is_some_and(|port| port.autoconf.unreachable(addr)) {
            self.autoconf_changed(id);
        }
    }

    /// A neighbour says that it is no router (RFC 4861 section 7.2.5).
    pub(super) fn autoconf_retired(&mut self, id: PortId, addr: Ipv6Addr) {
        let port = self.links.get_mut(id);
        if port.is_some_and(|port| port.autoconf.retired(addr)) {
            self.autoconf_changed(id);
        }
    }

    /// Whether routers are asked for, and believed.
    pub(crate) fn autoconf(&self, id: PortId) -> bool {
        let port = self.links.get(id);
        port.is_some_and(|port| !port.autoconf.off)
    }

    /// Believes routers, or forgets what they said.
    pub(crate) fn set_autoconf(&mut self, id: PortId, on: bool) {
        let Some(port) = self
            .links
            .get_mut(id)
            .filter(|port| port.autoconf.off == on)
        else {
            return;
        };
        port.autoconf.off = !on;
        match on {
            true => self.autoconf_start(id),
            false => self.autoconf_forget(id),
        }
    }

    /// Forgets what routers said, and every address that is made of it.
    pub(super) fn autoconf_forget(&mut self, id: PortId) {
        let Some(port) = self.links.get_mut(id) else {
            return;
        };
        let dev = port.dev;
        for addr in port.autoconf.forget() {
            self.autoconf_leave(id, dev, &addr);
        }
        self.autoconf_changed(id);
    }

    /// Whether an address was made of a prefix that a router advertises.
    pub(crate) fn is_made(&self, dev: IfIndex, addr: &IpAddr) -> bool {
        let port = self.port(dev);
        port.is_some_and(|port| port.autoconf.has_made(addr))
    }

    /// Whether an address is the adapter's own doing, and not from anybody's setting.
    pub(crate) fn is_self_made(&self, dev: IfIndex, addr: &IpAddr) -> bool {
        let own = |port: &Port| *addr == IpAddr::V6(port.mac.link_local());
        self.port(dev).is_some_and(own) || self.is_made(dev, addr)
    }

    /// What an adapter made of the prefixes of routers, to be [put back](Self::autoconf_restore).
    pub(crate) fn autoconf_made(&self, dev: IfIndex) -> Vec<Made> {
        let port = self.port(dev);
        port.map_or(Vec::new(), |port| port.autoconf.made())
    }

    pub(crate) fn autoconf_restore(&mut self, dev: IfIndex, made: Vec<Made>) {
        if let Some(port) = self.port_mut(dev) {
            port.autoconf.restore(made);
        }
    }

    /// Somebody sets an address: it is theirs, even if the adapter gave it itself before.
    pub(crate) fn autoconf_disown(&mut self, dev: IfIndex, addr: &IpAddr) {
        if let Some(port) = self.port_mut(dev) {
            port.autoconf.disown(addr);
        }
    }

    /// Somebody takes an address away: it does not come back with the next advertisement.
    pub(crate) fn autoconf_refuse(&mut self, dev: IfIndex, addr: &IpAddr) {
        if let Some(port) = self.port_mut(dev) {
            port.autoconf.refuse(addr);
        }
    }
}

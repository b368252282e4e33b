//! The effects of autoconfiguration: carries out what [`autoconf`](super::autoconf) decides, on
//! addresses, groups and routes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;
use smoltcp::wire::{EthernetAddress, Icmpv6Repr, NdiscOption, NdiscOptionRepr, NdiscRepr};

use super::autoconf::{Action, AutoAddr, Autoconf, Preference};
use super::{EtherSoftc, Link};
use crate::ifnet::{AdapterId, DropReason, Family, IfAddr, IfIndex, Ifnet, solicited_node};
use crate::ip::groups::ALL_ROUTERS_V6;
use crate::ip::{Ip, Verdict};
use crate::route::{Origin, Route, advertised_metric, default_prefix};

/// Routers are first solicited within this time, at random (RFC 4861 section 10).
const SOLICIT_WITHIN: Duration = Duration::from_secs(1);
/// The type of the option that names recursive name servers (RFC 8106 section 5.1).
const RDNSS: u8 = 25;

impl Link {
    /// Starts an adapter that is new or up again: it takes its link-local address, and asks for
    /// routers.
    pub(crate) fn autoconf_start(&mut self, ip: &mut Ip, id: AdapterId) {
        let delay = SOLICIT_WITHIN.mul_f64(ip.delays.fraction());
        let softc = self.present(ip, id);
        let Some(softc) = softc.filter(|softc| ip.runs_ipv6(softc.dev)) else {
            return;
        };
        let dev = softc.dev;
        let mut wanted = vec![softc.mac.link_local_addr()];
        wanted.extend(softc.autoconf.start(delay));
        for addr in wanted {
            self.autoconf_probe(ip, id, dev, addr);
        }
        self.autoconf_changed(ip, id);
    }

    /// Stops an adapter that is gone or down: addresses that are being asked for are not taken.
    pub(crate) fn autoconf_stop(&mut self, ip: &mut Ip, id: AdapterId) {
        if let Some((dev, ())) = self.autoconf_change(ip, id, Autoconf::stop) {
            ip.groups_follow(dev);
        }
    }

    /// Asks for an address that is not ours yet (RFC 4862 section 5.4).
    fn autoconf_probe(&mut self, ip: &mut Ip, id: AdapterId, dev: IfIndex, addr: IfAddr) {
        let has = |ifp: &Ifnet| ifp.addr(&addr.addr).is_some();
        if !ip.runs_ipv6(dev) || !ip.ifs.has_room_for_addr(dev) || ip.ifs.get(dev).is_none_or(has) {
            return;
        }
        self.autoconf_change(ip, id, |autoconf| autoconf.probe(addr));
        // Other hosts that have the address ask and answer in its solicited-node group.
        ip.groups_follow(dev);
    }

    /// Changes the state of an adapter, and copies to its interface the parts that others use.
    fn autoconf_change<T>(
        &mut self,
        ip: &mut Ip,
        id: AdapterId,
        change: impl FnOnce(&mut Autoconf) -> T,
    ) -> Option<(IfIndex, T)> {
        let softc = self.get_mut(id)?;
        let server = softc.autoconf.server();
        let result = change(&mut softc.autoconf);
        if softc.autoconf.server() != server {
            // Whoever watches the name server looks at it again.
            ip.ifs.touch();
        }
        let ifp = ip.ifs.get_mut(softc.dev)?;
        ifp.tentative = softc.autoconf.tentative().collect();
        ifp.advertised = softc.autoconf.advertised().collect();
        let mtu = softc.autoconf.mtu().unwrap_or(u16::MAX);
        let sending = (mtu, softc.autoconf.hops());
        if sending != (ifp.advertised_mtu, ifp.advertised_hops) {
            (ifp.advertised_mtu, ifp.advertised_hops) = sending;
            // Connections keep both with their path. This makes them look it up again.
            ip.routes.touch();
        }
        Some((softc.dev, result))
    }

    /// Stops asking for an address. False if it was not asked for.
    pub(crate) fn autoconf_give_up(&mut self, ip: &mut Ip, id: AdapterId, addr: &IpAddr) -> bool {
        let change = self.autoconf_change(ip, id, |autoconf| autoconf.give_up(addr));
        match change {
            Some((dev, true)) => {
                ip.groups_follow(dev);
                true
            }
            _ => false,
        }
    }

    /// Handles another station that has, or is about to take, an address. True if we were about to
    /// take it, in which case we do not.
    pub(super) fn autoconf_duplicate(
        &mut self,
        ip: &mut Ip,
        id: AdapterId,
        addr: Ipv6Addr,
    ) -> bool {
        let ours = self.autoconf_give_up(ip, id, &addr.into());
        if ours && let Some(softc) = self.get_mut(id) {
            softc.autoconf.refuse(&addr.into());
            let name = ip.ifs.get(softc.dev).map_or("?", |ifp| &ifp.name);
            log::error!("{name}: another station has {addr}");
        }
        ours
    }

    /// Handles the advertisement of a router with this hop limit and `lifetime`, and with these
    /// `options` behind the fixed part.
    pub(super) fn ra_input(
        &mut self,
        ip: &mut Ip,
        id: AdapterId,
        (router, preference, hops): (Ipv6Addr, Preference, u8),
        lifetime: Duration,
        options: &[u8],
    ) -> Verdict {
        let now = ip.now.monotonic;
        let Some(softc) = self.get(id).filter(|softc| !softc.autoconf.off) else {
            return Verdict::Dropped(DropReason::NotWanted);
        };
        let (dev, mac) = (softc.dev, softc.mac);
        let most = ip.ifs.get(dev).map_or(0, |ifp| ifp.mtu);
        let set = ip.addrs_of(dev);
        let is_set = |addr: &IpAddr| set.iter().any(|own| own.addr == *addr);
        let (mut found, mut given_up) = (Vec::new(), Vec::new());
        let mut silent = false;
        self.autoconf_change(ip, id, |autoconf| {
            silent = autoconf.router_advertised(router, preference, lifetime, now);
            autoconf.hops_advertised(hops);
            let mut rest = options;
            // smoltcp's representation of the message has one prefix only, and two are usual.
            while let Ok(option) = NdiscOption::new_checked(rest) {
                let len = usize::from(option.data_len()) * 8;
                let (1.., Some((bytes, behind))) = (len, rest.split_at_checked(len)) else {
                    break;
                };
                match NdiscOptionRepr::parse(&option) {
                    Ok(NdiscOptionRepr::PrefixInformation(info)) => {
                        autoconf.prefix_on_link(&info, router, now);
                        let taken = autoconf.prefix(&info, router, mac, is_set, &mut given_up, now);
                        found.extend(taken);
                    }
                    Ok(NdiscOptionRepr::Mtu(mtu)) => autoconf.mtu_advertised(mtu, most),
                    _ if bytes[0] == RDNSS => autoconf.servers_advertised(bytes, router, now),
                    _ => {}
                }
                rest = behind;
            }
        });
        for addr in given_up {
            self.autoconf_leave(ip, id, &addr);
        }
        for addr in found {
            self.autoconf_found(ip, id, dev, addr);
        }
        self.autoconf_changed(ip, id);
        let router = IpAddr::V6(router);
        if silent
            && let Some(softc) = self.get_mut(id)
            && let Some(mac) = softc.neighbors(&router).probe(router, now)
        {
            self.solicit(ip, id, router, Some(mac));
        }
        Verdict::Delivered
    }

    /// Takes an address for the adapter: asks for it, or if it is there already, notes that its
    /// network is now on the link.
    fn autoconf_found(&mut self, ip: &mut Ip, id: AdapterId, dev: IfIndex, addr: IfAddr) {
        match ip.ifs.get(dev).and_then(|ifp| ifp.addr(&addr.addr)) {
            Some(own) if own != addr => {
                ip.remove_addr(dev, &own);
                take_address(ip, dev, addr);
                ip.forget_places(dev);
            }
            Some(_) => {}
            None => self.autoconf_probe(ip, id, dev, addr),
        }
    }

    /// Updates the routes and the deprecated addresses from what routers advertise.
    fn autoconf_changed(&mut self, ip: &mut Ip, id: AdapterId) {
        let Some(softc) = self.get(id) else {
            return;
        };
        let dev = softc.dev;
        let has_ipv6 = ip.ifs.get(dev).is_some_and(Ifnet::has_ipv6);
        let router = softc.autoconf.router().map(IpAddr::V6);
        let default = router.map(|router| (default_prefix(true), Some(router)));
        let on_link = softc.autoconf.on_link().map(|prefix| (prefix, None));
        let mut wanted: Vec<_> = default.into_iter().chain(on_link).collect();
        wanted.retain(|_| has_ipv6);
        self.autoconf_deprecate(ip, id);
        let routed: Vec<_> = wanted.iter().map(|(prefix, _)| *prefix).collect();
        let old = match self.get_mut(id) {
            Some(softc) => std::mem::replace(&mut softc.routed, routed),
            None => return,
        };
        let learned = |route: &Route| route.dev == Some(dev) && route.origin == Origin::Advertised;
        let via_of = |ip: &Ip, prefix| {
            let mut routes = ip.routes.at(prefix);
            routes.find(|route| learned(route)).map(|route| route.via)
        };
        let old = old.into_iter().map(|prefix| (prefix, None));
        let all = old.chain(wanted.into_iter().map(|(prefix, via)| (prefix, Some(via))));
        let all: BTreeMap<IpNet, Option<Option<IpAddr>>> = all.collect();
        let changed = all
            .into_iter()
            .filter(|(prefix, via)| via_of(ip, *prefix) != *via);
        let changed: Vec<_> = changed.collect();
        if changed.is_empty() {
            return;
        }
        for (prefix, via) in changed {
            ip.routes.remove(prefix, learned);
            if let Some(via) = via {
                advertised_route(ip, dev, prefix, via);
            }
        }
        ip.ifs.touch();
    }

    /// Updates the deprecated addresses from what routers advertise.
    pub(crate) fn autoconf_deprecate(&self, ip: &mut Ip, id: AdapterId) {
        let Some(softc) = self.get(id) else {
            return;
        };
        let deprecated: Vec<_> = softc.autoconf.deprecated().collect();
        if let Some(ifp) = ip.ifs.get_mut(softc.dev)
            && ifp.deprecated != deprecated
        {
            ifp.deprecated = deprecated;
            ip.routes.touch();
        }
    }

    /// Runs the actions that are due on an adapter.
    pub(super) fn autoconf_run(&mut self, ip: &mut Ip, id: AdapterId) {
        let now = ip.now.monotonic;
        let over = |at: Duration| at <= now;
        while self
            .get(id)
            .and_then(|softc| softc.autoconf.deadline())
            .is_some_and(over)
        {
            let chance = ip.delays.fraction();
            let polled = self.autoconf_change(ip, id, |autoconf| autoconf.poll(now, chance));
            let Some((dev, Some(action))) = polled else {
                break;
            };
            match action {
                Action::Probe(addr) => self.autoconf_ask(ip, id, &addr),
                Action::Unique(addr) => take_address(ip, dev, addr),
                Action::Solicit => self.router_solicit(ip, id),
                Action::Expired(addr) => {
                    self.autoconf_leave(ip, id, &addr);
                    self.autoconf_changed(ip, id);
                }
                Action::ServerGone => {}
                Action::RouteGone | Action::Deprecated => self.autoconf_changed(ip, id),
            }
        }
    }

    /// Asks for routers.
    fn router_solicit(&mut self, ip: &mut Ip, id: AdapterId) {
        let Some(&mut EtherSoftc { dev, mac, .. }) = self.present(ip, id) else {
            return;
        };
        if !ip.is_up(dev) {
            return;
        }
        let src = ip.ifs.get(dev).and_then(Ifnet::link_local);
        // A host without an address does not send its hardware address either (RFC 4861 section
        // 4.1).
        let lladdr = src.map(|_| EthernetAddress(mac.0).into());
        let message = Icmpv6Repr::Ndisc(NdiscRepr::RouterSolicit { lladdr });
        let src = src.unwrap_or(Ipv6Addr::UNSPECIFIED);
        self.nd_send(ip, id, src, ALL_ROUTERS_V6, &message);
    }

    /// Asks whether another station has an address (RFC 4862 section 5.4.2).
    pub(super) fn autoconf_ask(&mut self, ip: &mut Ip, id: AdapterId, addr: &IfAddr) {
        if let IpAddr::V6(target_addr) = addr.addr {
            let probe = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit {
                target_addr,
                lladdr: None,
            });
            let group = solicited_node(&target_addr);
            self.nd_send(ip, id, Ipv6Addr::UNSPECIFIED, group, &probe);
        }
    }

    /// Gives up an address that the adapter made itself, whether it has it yet or not.
    pub(super) fn autoconf_leave(&mut self, ip: &mut Ip, id: AdapterId, addr: &IpAddr) {
        self.autoconf_give_up(ip, id, addr);
        let Some(dev) = self.interface(id) else {
            return;
        };
        if let Some(own) = ip.ifs.get(dev).and_then(|ifp| ifp.addr(addr)) {
            ip.remove_addr(dev, &own);
            ip.forget_places(dev);
            ip.groups_follow(dev);
        }
    }

    /// Handles a neighbour that did not answer.
    pub(super) fn autoconf_unreachable(&mut self, ip: &mut Ip, id: AdapterId, addr: &IpAddr) {
        let softc = self.get_mut(id);
        if softc.is_some_and(|softc| softc.autoconf.unreachable(addr)) {
            self.autoconf_changed(ip, id);
        }
    }

    /// Handles a neighbour that answered.
    pub(super) fn autoconf_reachable(&mut self, ip: &mut Ip, id: AdapterId, addr: &IpAddr) {
        let softc = self.get_mut(id);
        if softc.is_some_and(|softc| softc.autoconf.reachable(addr)) {
            self.autoconf_changed(ip, id);
        }
    }

    /// Handles a neighbour that says it is no router (RFC 4861 section 7.2.5).
    pub(super) fn autoconf_retired(&mut self, ip: &mut Ip, id: AdapterId, addr: Ipv6Addr) {
        let softc = self.get_mut(id);
        if softc.is_some_and(|softc| softc.autoconf.retired(addr)) {
            self.autoconf_changed(ip, id);
        }
    }

    /// The name server that a router advertised, of the first adapter that heard of one.
    pub(crate) fn nameserver(&self) -> Option<IpAddr> {
        let mut adapters = self.adapters.iter();
        let server = adapters.find_map(|(_, softc)| softc.autoconf.server());
        server.map(IpAddr::V6)
    }

    /// Whether routers are solicited, and their advertisements used.
    pub(crate) fn autoconf(&self, id: AdapterId) -> bool {
        let softc = self.get(id);
        softc.is_some_and(|softc| !softc.autoconf.off)
    }

    /// Switches autoconfiguration on; or off, and forgets what routers advertised.
    pub(crate) fn set_autoconf(&mut self, ip: &mut Ip, id: AdapterId, on: bool) {
        let Some(softc) = self.get_mut(id).filter(|softc| softc.autoconf.off == on) else {
            return;
        };
        softc.autoconf.off = !on;
        match on {
            true => self.autoconf_start(ip, id),
            false => self.autoconf_forget(ip, id),
        }
    }

    /// Forgets what routers advertised, and removes every address made from it.
    pub(super) fn autoconf_forget(&mut self, ip: &mut Ip, id: AdapterId) {
        let addrs = self.autoconf_change(ip, id, Autoconf::forget);
        for addr in addrs.into_iter().flat_map(|(_, addrs)| addrs) {
            self.autoconf_leave(ip, id, &addr);
        }
        self.autoconf_changed(ip, id);
    }

    /// Whether the adapter made an address itself, and no administrator set it.
    pub(crate) fn is_autoconfigured(&self, id: AdapterId, addr: &IpAddr) -> bool {
        self.get(id).is_some_and(|softc| {
            let auto = softc.autoconf.advertised().any(|auto| auto == *addr);
            auto || *addr == IpAddr::V6(softc.mac.link_local())
        })
    }

    /// The addresses that an adapter made from prefixes, to be [put back](Self::autoconf_restore).
    pub(crate) fn autoconf_addrs(&self, id: AdapterId) -> Vec<AutoAddr> {
        let softc = self.get(id);
        softc.map_or(Vec::new(), |softc| softc.autoconf.addrs())
    }

    pub(crate) fn autoconf_restore(&mut self, ip: &mut Ip, id: AdapterId, addrs: Vec<AutoAddr>) {
        self.autoconf_change(ip, id, |autoconf| autoconf.restore(addrs));
    }

    /// Handles an address that a program sets. It is theirs, even if the adapter made it before.
    pub(crate) fn autoconf_disown(&mut self, ip: &mut Ip, id: AdapterId, addr: &IpAddr) {
        self.autoconf_change(ip, id, |autoconf| autoconf.disown(addr));
    }

    /// Handles an address that a program removes. The next advertisement does not add it again.
    pub(crate) fn autoconf_refuse(&mut self, ip: &mut Ip, id: AdapterId, addr: &IpAddr) {
        self.autoconf_change(ip, id, |autoconf| autoconf.refuse(addr));
    }
}

/// Adds a route that a router advertised, unless it is there. A route of another origin stays.
fn advertised_route(ip: &mut Ip, dev: IfIndex, prefix: IpNet, via: Option<IpAddr>) {
    let metric = advertised_metric(dev);
    let taken = |route: &Route| route.metric == metric && route.dev == Some(dev);
    if ip.routes.at(prefix).any(taken) {
        return;
    }
    let route = Route {
        dev: Some(dev),
        tunnel: false,
        via,
        src: None,
        metric,
        origin: Origin::Advertised,
    };
    // If the table is full, the next advertisement tries again.
    let _ = ip.routes.insert(prefix, route);
}

/// Gives the interface an address that no other station has.
fn take_address(ip: &mut Ip, dev: IfIndex, addr: IfAddr) {
    let silent = |ifp: &Ifnet| ifp.link_local().is_none();
    let was_silent = ip.ifs.get(dev).is_some_and(silent);
    ip.ifs.add_addr(dev, addr);
    ip.groups_follow(dev);
    ip.connect_routes(dev);
    ip.ifs.touch();
    // Reports that were sent from the unspecified address have to be repeated (RFC 3590).
    if was_silent && !ip.ifs.get(dev).is_some_and(silent) {
        ip.groups_announce(dev, Family::Inet6);
    }
}

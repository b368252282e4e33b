//! DragonFly's `if_ioctl`: sets addresses, mtu and flags of an interface, and updates routes and
//! groups accordingly. Permissions and text formats are left to the files above.

use std::net::IpAddr;

use ipnet::IpNet;
use scheme::errno::{self, Errno};

use super::Ip;
use super::output::looutput;
use crate::ifnet::{
    Activity, Driver, Family, IF_MINMTU, IfAddr, IfFlags, IfIndex, Ifnet, QueueSpec,
};
use crate::route::{Origin, Route};

/// The addresses that `lo0` has from the beginning.
pub(crate) const LOOPBACK_ADDRS: [&str; 2] = ["127.0.0.1/8", "::1/128"];

impl Ip {
    /// Makes `lo0`, which is up from the beginning.
    pub(crate) fn attach_loopback(&mut self) {
        const IFT_LOOP: u8 = 0x18;
        // What programs write are powers of two, mostly: with headers beside the text, it does not
        // leave a few bytes for a packet of their own. Two packets fit into the smallest window.
        const LOMTU: u16 = (32 << 10) + 128;

        let flags = IfFlags::UP | IfFlags::LOOPBACK | IfFlags::RUNNING | IfFlags::MULTICAST;
        let lo0 = self
            .ifs
            .attach("lo0", Driver::Loopback, looutput, flags, IFT_LOOP, LOMTU);
        for addr in LOOPBACK_ADDRS {
            if let (Some(lo0), Some(addr)) = (lo0, IfAddr::parse(addr)) {
                self.ifs.add_addr(lo0, addr);
            }
        }
    }

    /// `if_detach`: removes an interface, with its routes, its packets and its fragments.
    pub(crate) fn if_detach(&mut self, dev: IfIndex) {
        self.netisr_detach(dev);
        self.routes.remove_over(dev, |_| true);
        self.routes.forget(dev, |_| false);
        self.ifs.detach(dev);
        self.routes.touch();
    }

    /// A copy of the addresses of an interface, for callers that change them meanwhile.
    pub(crate) fn addrs_of(&self, dev: IfIndex) -> Vec<IfAddr> {
        let ifp = self.ifs.get(dev);
        ifp.map_or(Vec::new(), |ifp| ifp.addrs.clone())
    }

    /// `SIOCSIFMTU`, with bounds: `EINVAL` below 72, and more than the link carries is as much as it
    /// does. Below 1280 an interface carries no IPv6.
    pub(crate) fn set_mtu(&mut self, dev: IfIndex, mtu: u16) -> Result<(), Errno> {
        if mtu < IF_MINMTU {
            return Err(errno::EINVAL);
        }
        let ifp = self.ifs.get_mut(dev).ok_or(errno::ENXIO)?;
        ifp.wanted_mtu = mtu;
        let mtu = mtu.min(ifp.most_mtu);
        if ifp.mtu == mtu {
            return Ok(());
        }
        ifp.mtu = mtu;
        trace(ifp, "mtu set");
        if !ifp.has_ipv6() {
            let addrs = self.addrs_of(dev);
            for addr in addrs.iter().filter(|addr| addr.addr.is_ipv6()) {
                self.remove_addr(dev, addr);
            }
            self.routes
                .remove_over(dev, |prefix| prefix.network().is_ipv6());
            self.groups_forget(dev, Family::Inet6);
        }
        // Connections keep the mtu of their path. This makes them look it up again.
        self.routes.touch();
        Ok(())
    }

    /// Notes the largest packet that the link of an interface carries, bytes.
    pub(crate) fn limit_mtu(&mut self, dev: IfIndex, most: u16) {
        let wanted = self.ifs.get_mut(dev).map(|ifp| {
            ifp.most_mtu = most.max(IF_MINMTU);
            ifp.wanted_mtu
        });
        if let Some(wanted) = wanted {
            // It was in range when it was set.
            let _ = self.set_mtu(dev, wanted);
        }
    }

    /// `if_up` and `if_down`. An interface with addresses comes up through
    /// [`if_init`](Self::if_init).
    pub(crate) fn set_up(&mut self, dev: IfIndex, up: bool) {
        let now = self.now;
        let Some(ifp) = self.ifs.get_mut(dev) else {
            return;
        };
        if up && !ifp.addrs.is_empty() {
            let running = ifp.flags.contains(IfFlags::RUNNING);
            if !ifp.is_up() || (!running && ifp.present) {
                self.if_init(dev);
            }
            return;
        }
        if ifp.is_up() != up {
            ifp.flags.set(IfFlags::UP, up);
            ifp.set_lastchange(now);
        }
        if !up {
            self.redirects_detach(dev);
        }
        self.routes.touch();
        self.ifs.note(dev, Activity::ROOM);
    }

    /// `tuninit`: brings an interface up because it got an address, or was brought up with one.
    pub(crate) fn if_init(&mut self, dev: IfIndex) {
        let now = self.now;
        if let Some(ifp) = self.ifs.get_mut(dev) {
            ifp.flags.insert(IfFlags::UP);
            let present = ifp.present;
            ifp.flags.set(IfFlags::RUNNING, present);
            ifp.set_lastchange(now);
            trace(ifp, "init");
        }
        self.connect_routes(dev);
    }

    /// Replaces the discipline and the rate of a send queue. Packets that are queued stay, as far as
    /// the new limits allow. `EINVAL` for the loopback, which has no queue.
    pub(crate) fn set_queue(&mut self, dev: IfIndex, spec: QueueSpec) -> Result<(), Errno> {
        let now = self.now;
        if self.is_loopback(dev) {
            return Err(errno::EINVAL);
        }
        let Self { ifs, flows, .. } = self;
        match ifs.change_queue(dev, spec, flows, now) {
            Some(true) => Ok(()),
            Some(false) => Err(errno::ENOSPC),
            None => Err(errno::ENXIO),
        }
    }

    /// Removes an address, and its route unless another address needs it.
    pub(crate) fn remove_addr(&mut self, dev: IfIndex, addr: &IfAddr) {
        if !self.ifs.remove_addr(dev, addr) {
            return;
        }
        if let Some(prefix) = addr.prefix() {
            self.routes.remove(prefix, |route| connects(route, dev));
        }
        self.connect_routes(dev);
    }

    /// Forgets the places of routes for addresses that an interface does not have any more. As long
    /// as it has an address of the network, the route keeps its place though it may come and go.
    pub(crate) fn forget_places(&mut self, dev: IfIndex) {
        let addrs = self.addrs_of(dev);
        let has = |prefix: &IpNet| addrs.iter().any(|addr| addr.prefix() == Some(*prefix));
        self.routes.forget(dev, has);
    }

    /// Whether the table has room for the route of an address that an interface is to get.
    pub(crate) fn can_connect(&self, dev: IfIndex, addr: &IfAddr) -> bool {
        addr.prefix().is_none_or(|prefix| {
            let mut there = self.routes.at(prefix);
            self.routes.has_room(prefix) || there.any(|route| connects(route, dev))
        })
    }

    /// Adds the missing routes for the addresses of an interface.
    pub(crate) fn connect_routes(&mut self, dev: IfIndex) {
        for addr in self.addrs_of(dev) {
            self.connect_route(dev, &addr);
        }
        self.routes.touch();
    }

    /// Adds the route for one address: to its network, or its peer.
    fn connect_route(&mut self, dev: IfIndex, addr: &IfAddr) {
        let missing = self.missing_route(dev, addr);
        let Some(prefix) = missing.filter(|_| self.is_up(dev)) else {
            return;
        };
        let tunnel = self.ifs.get(dev).is_some_and(Ifnet::is_tunnel);
        let taken = || {
            let routes = self.routes.at(prefix);
            routes.filter(|route| route.dev == Some(dev))
        };
        // The lowest metric at which it replaces none. Those over other interfaces stand beside it.
        let metric = (0..).find(|&metric| taken().all(|route| route.metric != metric));
        let route = Route {
            dev: Some(dev),
            tunnel,
            via: None,
            src: None,
            metric: metric.unwrap_or(0),
            origin: Origin::Connected,
        };
        if self.routes.insert(prefix, route).is_err() {
            log::warn!("no room for the route of {addr}");
        }
    }

    /// The prefix to which an address of an interface has a route when it comes up, and now has
    /// none.
    pub(crate) fn missing_route(&self, dev: IfIndex, addr: &IfAddr) -> Option<IpNet> {
        let may = |ifp: &&Ifnet| ifp.driver != Driver::Loopback;
        let ifp = self.ifs.get(dev).filter(may)?;
        // The router says which prefixes are on the link: not every address that it leads to is in
        // one (RFC 5942 section 4).
        if ifp.advertised.contains(&addr.addr) {
            return None;
        }
        let there = |route: &Route| connects(route, dev);
        addr.prefix()
            .filter(|prefix| !self.routes.at(*prefix).any(there))
    }

    /// Whether an interface has the address.
    pub(crate) fn has_addr(&self, dev: IfIndex, addr: &IpAddr) -> bool {
        let ifp = self.ifs.get(dev);
        ifp.is_some_and(|ifp| ifp.addr(addr).is_some())
    }
}

/// Whether a route is that of an address of the interface.
fn connects(route: &Route, dev: IfIndex) -> bool {
    route.dev == Some(dev) && route.origin == Origin::Connected
}

fn trace(ifp: &Ifnet, what: &str) {
    if ifp.debug {
        log::info!("{}: {what}", ifp.name);
    }
}

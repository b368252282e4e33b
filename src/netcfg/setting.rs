//! What can be written: parsed whole, then done whole, and undone if a later line is refused.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use scheme::errno::{self, Errno};

use super::node::{IfNode, Node};
use crate::ifnet::{
    Driver, Family, Fifo, FifoLimits, IF_MINMTU, IfAddr, IfFlags, IfIndex, Ifnet, MAX_ADDRS,
    MAX_GROUPS, Member, is_host, parse_decimal, stamp,
};
use crate::link::{Mac, Made};
use crate::net::Net;
use crate::route::{Origin, Route, RouteSpec};

/// One line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    Nameserver(IpAddr),
    TunDebug(i32),
    Forwarding(bool),
    AddRoute(RouteSpec),
    RemoveRoute(RouteSpec),
    Interface(String, IfSetting),
}

/// One line about an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum IfSetting {
    SetAddr(IfAddr),
    AddAddr(IfAddr),
    RemoveAddr(IfAddr),
    Mtu(u16),
    Up(bool),
    Join(IpAddr),
    Leave(IpAddr),
    Queue(FifoLimits),
    Mac(Mac),
    Autoconf(bool),
    Destroy,
}

/// How things were before a setting.
pub(super) enum Undo {
    /// Nothing: no line of the same write can be refused after it.
    Nothing,
    Nameserver(Option<IpAddr>),
    TunDebug(i32),
    Forwarding(bool),
    /// Take out the first, put the others back.
    Routes(Option<(IpNet, Route)>, Vec<(IpNet, Route)>),
    Interface {
        dev: IfIndex,
        addrs: Vec<IfAddr>,
        flags: IfFlags,
        lastchange: Duration,
        mtu: u16,
        /// Its routes that the setting can touch.
        routes: Vec<(IpNet, Route)>,
        /// What it made of the prefixes of routers.
        made: Vec<Made>,
    },
    Join(IfIndex, IpAddr),
    Leave(IfIndex, IpAddr),
}

/// What becomes of an interface in one write.
pub(super) struct Change {
    dev: IfIndex,
    /// Whether it was up, and IPv6 ran there.
    up: bool,
    ipv6: bool,
    /// Whether IPv6 did not, if only between two lines.
    interrupted: bool,
    /// Families in which it could not report groups.
    silent: Vec<Family>,
    addrs: Vec<IfAddr>,
}

impl Undo {
    /// How many things it keeps.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Routes(_, removed) => 1 + removed.len(),
            Self::Interface {
                addrs,
                routes,
                made,
                ..
            } => 1 + addrs.len() + routes.len() + made.len(),
            _ => 1,
        }
    }
}

impl Setting {
    /// The interface that it is about.
    pub(super) fn interface(&self) -> Option<&str> {
        match self {
            Self::Interface(name, _) => Some(name),
            _ => None,
        }
    }

    /// Whether it can be put back.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Interface(_, IfSetting::Destroy))
    }

    /// Reads a line written to `node`. `None` if it says nothing that the file takes.
    pub(super) fn parse(node: &Node, line: &str) -> Option<Self> {
        let line = line.trim_ascii();
        Some(match node {
            Node::Nameserver => Self::Nameserver(line.parse().ok().filter(is_host)?),
            Node::TunDebug => Self::TunDebug(line.parse().ok()?),
            Node::Forwarding => Self::Forwarding(parse_switch(line)?),
            Node::RouteAdd => Self::AddRoute(RouteSpec::parse(line)?),
            Node::RouteRm => Self::RemoveRoute(RouteSpec::parse(line)?),
            Node::RouteList => return None,
            Node::Interface(name, node) => {
                Self::Interface(name.clone(), IfSetting::parse(*node, line)?)
            }
        })
    }
}

fn parse_switch(line: &str) -> Option<bool> {
    match line {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

impl IfSetting {
    fn parse(node: IfNode, line: &str) -> Option<Self> {
        Some(match node {
            IfNode::AddrSet => Self::SetAddr(IfAddr::parse(line)?),
            IfNode::AddrAdd => Self::AddAddr(IfAddr::parse(line)?),
            IfNode::AddrRm => Self::RemoveAddr(IfAddr::parse(line)?),
            IfNode::Mtu => Self::Mtu(parse_decimal(line).filter(|&mtu| mtu >= IF_MINMTU)?),
            IfNode::Flags => Self::Up(match line {
                "up" => true,
                "down" => false,
                _ => return None,
            }),
            IfNode::Multicast => {
                let (verb, group) = line.split_once(' ')?;
                let group: IpAddr = group.trim_ascii().parse().ok()?;
                match verb {
                    _ if !group.is_multicast() => return None,
                    "join" => Self::Join(group),
                    "leave" => Self::Leave(group),
                    _ => return None,
                }
            }
            IfNode::Queue => Self::Queue(FifoLimits::parse(line)?),
            IfNode::Destroy if line == "1" => Self::Destroy,
            IfNode::Mac => Self::Mac(Mac::parse(line)?),
            IfNode::Autoconf => Self::Autoconf(parse_switch(line)?),
            IfNode::Destroy
            | IfNode::AddrList
            | IfNode::Status
            | IfNode::Stats
            | IfNode::Ledger => return None,
        })
    }
}

impl Net {
    /// Does one thing, or refuses it and changes nothing.
    pub(super) fn apply(&mut self, setting: Setting) -> Result<Undo, Errno> {
        Ok(match setting {
            Setting::Nameserver(addr) => Undo::Nameserver(self.nameserver.replace(addr)),
            Setting::TunDebug(debug) => {
                Undo::TunDebug(std::mem::replace(&mut self.tun.debug, debug))
            }
            Setting::Forwarding(on) => {
                Undo::Forwarding(std::mem::replace(&mut self.forwarding, on))
            }
            Setting::AddRoute(spec) => {
                let route = self.resolve_route(&spec)?;
                let old = self
                    .routes
                    .insert(spec.prefix, route)
                    .map_err(|_| errno::ENOSPC)?;
                let old = old.into_iter().map(|old| (spec.prefix, old)).collect();
                Undo::Routes(Some((spec.prefix, route)), old)
            }
            Setting::RemoveRoute(spec) => {
                let ifs = &self.ifs;
                let removed = self.routes.remove(spec.prefix, |route| {
                    ifs.get(route.dev)
                        .is_some_and(|ifp| spec.matches(route, &ifp.name))
                });
                if removed.is_empty() {
                    return Err(errno::EINVAL);
                }
                let removed = removed.into_iter().map(|old| (spec.prefix, old)).collect();
                Undo::Routes(None, removed)
            }
            Setting::Interface(name, setting) => {
                let dev = self.ifs.by_name(&name).ok_or(errno::ENOENT)?;
                self.apply_to(dev, setting)?
            }
        })
    }

    /// How an interface is before settings of it are done.
    pub(super) fn change(&self, dev: IfIndex) -> Change {
        let mut silent = vec![Family::Inet, Family::Inet6];
        silent.retain(|&family| !self.can_report(dev, family));
        Change {
            dev,
            up: self.is_up(dev),
            ipv6: self.runs_ipv6(dev),
            interrupted: false,
            silent,
            addrs: self.addrs_of(dev),
        }
    }

    /// One of the settings is done.
    pub(super) fn note(&self, change: &mut Change) {
        change.interrupted |= !self.runs_ipv6(change.dev);
    }

    /// All settings are done, and none was refused: the link hears what is new.
    pub(super) fn announce_change(&mut self, change: Change) {
        let dev = change.dev;
        let port = self.port_of(dev);
        let runs_ipv6 = self.runs_ipv6(dev);
        let addrs = self.addrs_of(dev);
        if let Some(port) = port {
            if change.interrupted {
                self.autoconf_stop(port);
            }
            // What somebody set is not asked for any more.
            for own in &addrs {
                self.autoconf_give_up(port, &own.addr);
            }
            self.groups_follow(dev);
            self.autoconf_deprecate(dev);
        }
        // What was joined meanwhile nobody has heard of.
        for family in change.silent {
            if self.can_report(dev, family) {
                self.groups_announce(dev, family);
            }
        }
        let Some(port) = port else {
            return;
        };
        if !change.up && self.is_up(dev) {
            return self.link_up(port);
        }
        for new in addrs.iter().filter(|addr| !change.addrs.contains(addr)) {
            self.announce(port, dev, new.addr);
        }
        if runs_ipv6 && (!change.ipv6 || change.interrupted) {
            self.autoconf_start(port);
        }
    }

    fn apply_to(&mut self, dev: IfIndex, setting: IfSetting) -> Result<Undo, Errno> {
        let ifp = self.ifs.get(dev).ok_or(errno::ENOENT)?;
        let (driver, ipv6) = (ifp.driver, ifp.has_ipv6());
        let undo = Undo::Interface {
            dev,
            addrs: ifp.addrs.clone(),
            flags: ifp.flags,
            lastchange: ifp.stats.lastchange,
            mtu: ifp.mtu,
            routes: self.routes_touched(ifp, &setting),
            made: self.autoconf_made(dev),
        };
        match setting {
            IfSetting::SetAddr(addr) => {
                if addr.addr.is_ipv6() && !ipv6 {
                    return Err(errno::EINVAL);
                }
                for old in ifp.addrs.clone() {
                    if old.addr == addr.addr || !self.is_self_made(dev, &old.addr) {
                        self.remove_addr(dev, &old);
                    }
                }
                self.autoconf_disown(dev, &addr.addr);
                self.ifs.add_addr(dev, addr);
                self.if_init(dev);
            }
            IfSetting::AddAddr(addr) => {
                if (addr.addr.is_ipv6() && !ipv6) || ifp.addr(&addr.addr).is_some() {
                    return Err(errno::EINVAL);
                }
                if ifp.addrs.len() >= MAX_ADDRS {
                    return Err(errno::ENOSPC);
                }
                self.autoconf_disown(dev, &addr.addr);
                self.ifs.add_addr(dev, addr);
                self.if_init(dev);
            }
            IfSetting::RemoveAddr(addr) => {
                // The address alone is enough to say which.
                let own = ifp.addrs.iter().find(|own| {
                    own.addr == addr.addr && (**own == addr || addr == IfAddr::host(addr.addr))
                });
                let own = *own.ok_or(errno::EINVAL)?;
                self.autoconf_refuse(dev, &own.addr);
                self.remove_addr(dev, &own);
            }
            IfSetting::Mtu(mtu) => self.set_mtu(dev, mtu)?,
            IfSetting::Up(up) => self.set_up(dev, up),
            IfSetting::Join(group) => {
                if !self.group_join(dev, group, Member::Setting, MAX_GROUPS) {
                    return Err(errno::EINVAL);
                }
                return Ok(Undo::Join(dev, group));
            }
            IfSetting::Leave(group) => {
                if !self.group_leave(dev, group, Member::Setting) {
                    return Err(errno::EINVAL);
                }
                return Ok(Undo::Leave(dev, group));
            }
            IfSetting::Queue(limits) => {
                self.set_queue(dev, limits);
                return Ok(Undo::Nothing);
            }
            IfSetting::Mac(mac) => {
                // Only Ethernet has one to set.
                let port = self.port_of(dev).ok_or(errno::EINVAL)?;
                self.set_mac(port, mac);
                return Ok(Undo::Nothing);
            }
            IfSetting::Autoconf(on) => {
                let port = self.port_of(dev).ok_or(errno::EINVAL)?;
                self.set_autoconf(port, on);
                return Ok(Undo::Nothing);
            }
            IfSetting::Destroy => {
                let Driver::Tun(unit) = driver else {
                    return Err(errno::EINVAL);
                };
                if !self.tun_destroy(unit) {
                    return Err(errno::EBUSY);
                }
                return Ok(Undo::Nothing);
            }
        }
        Ok(undo)
    }

    /// The routes over an interface that a setting of it can add or take away: those for the
    /// prefixes of its addresses; all of them for the mtu, which decides whether it has IPv6.
    fn routes_touched(&self, ifp: &Ifnet, setting: &IfSetting) -> Vec<(IpNet, Route)> {
        let own = |(_, route): &(IpNet, &Route)| route.dev == ifp.index;
        let copy = |(prefix, route): (IpNet, &Route)| (prefix, *route);
        let new = match setting {
            IfSetting::Mtu(_) => return self.routes.iter().filter(own).map(copy).collect(),
            IfSetting::SetAddr(addr) | IfSetting::AddAddr(addr) => Some(addr),
            _ => None,
        };
        let prefixes: BTreeSet<_> = ifp.addrs.iter().chain(new).map(IfAddr::prefix).collect();
        let routes = prefixes.into_iter().flatten().flat_map(|prefix| {
            let routes = self.routes.at(prefix).iter();
            routes.map(move |route| (prefix, route))
        });
        routes.filter(own).map(copy).collect()
    }

    /// Puts things back as they were.
    pub(super) fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Nothing => {}
            Undo::Nameserver(addr) => self.nameserver = addr,
            Undo::TunDebug(debug) => self.tun.debug = debug,
            Undo::Forwarding(on) => self.forwarding = on,
            Undo::Routes(added, removed) => {
                if let Some((prefix, added)) = added {
                    self.routes.remove(prefix, |route| *route == added);
                }
                for (prefix, route) in removed {
                    // There was room for it before.
                    let _ = self.routes.insert(prefix, route);
                }
            }
            Undo::Interface {
                dev,
                addrs,
                flags,
                lastchange,
                mtu,
                routes,
                made,
            } => {
                self.autoconf_restore(dev, made);
                if let Some(ifp) = self.ifs.get_mut(dev) {
                    ifp.flags = flags;
                    ifp.mtu = mtu;
                    ifp.stats.lastchange = lastchange;
                }
                let now = self.addrs_of(dev);
                for addr in now.iter().filter(|addr| !addrs.contains(addr)) {
                    self.remove_addr(dev, addr);
                }
                for addr in addrs.iter().filter(|addr| !now.contains(addr)) {
                    self.ifs.add_addr(dev, *addr);
                }
                for prefix in now.iter().chain(&addrs).filter_map(IfAddr::prefix) {
                    self.routes.remove(prefix, |route| route.dev == dev);
                }
                for (prefix, route) in routes {
                    // There was room for it before.
                    let _ = self.routes.insert(prefix, route);
                }
                if let Some(ifp) = self.ifs.get_mut(dev) {
                    // The same ones, in their old order.
                    ifp.addrs = addrs;
                }
                self.routes.touch();
            }
            Undo::Join(dev, group) => {
                self.group_leave(dev, group, Member::Setting);
            }
            Undo::Leave(dev, group) => {
                self.group_join(dev, group, Member::Setting, MAX_GROUPS);
            }
        }
    }

    /// Completes a route: which interface, if the line does not say, is the one that reaches the
    /// router.
    fn resolve_route(&self, spec: &RouteSpec) -> Result<Route, Errno> {
        let dev = match (&spec.dev, spec.via) {
            (Some(name), _) => self.ifs.by_name(name).ok_or(errno::EINVAL)?,
            (None, Some(via)) => {
                let route = self
                    .routes
                    .lookup(&via, |_| true)
                    .map_err(|_| errno::EINVAL)?;
                // A router must be on the link.
                match route.via {
                    None => route.dev,
                    Some(_) => return Err(errno::EINVAL),
                }
            }
            (None, None) => return Err(errno::EINVAL),
        };
        Ok(Route {
            dev,
            via: spec.via,
            src: spec.src,
            metric: spec.metric.unwrap_or(0),
            origin: Origin::Static,
        })
    }

    /// Takes an address away, and its route unless another address needs it.
    pub(crate) fn remove_addr(&mut self, dev: IfIndex, addr: &IfAddr) {
        if !self.ifs.remove_addr(dev, addr) {
            return;
        }
        if let Some(prefix) = addr.prefix() {
            self.routes.remove(prefix, |route| {
                route.dev == dev && route.origin == Origin::Connected
            });
        }
        self.connect_routes(dev);
    }

    /// `if_up` and `if_down`. An interface with addresses comes up as `tuninit` brings it up.
    fn set_up(&mut self, dev: IfIndex, up: bool) {
        let now = self.now;
        let Some(ifp) = self.ifs.get_mut(dev) else {
            return;
        };
        if up && !ifp.addrs.is_empty() {
            let (was_up, running) = (ifp.is_up(), ifp.flags.contains(IfFlags::RUNNING));
            if !was_up || (!running && self.has_driver(dev)) {
                self.if_init(dev);
            }
            return;
        }
        if ifp.is_up() != up {
            ifp.flags.set(IfFlags::UP, up);
            stamp(ifp, now);
        }
        self.routes.touch();
        self.tcp_unblock(dev);
    }

    fn set_queue(&mut self, dev: IfIndex, limits: FifoLimits) {
        let now = self.now;
        let Some(ifp) = self.ifs.get_mut(dev) else {
            return;
        };
        // What is queued stays, in its order.
        let mut held = Vec::with_capacity(ifp.snd.len());
        while let Some(frame) = ifp.snd.dequeue(now) {
            held.push(frame);
        }
        let mut fifo: Box<dyn crate::ifnet::Discipline> = Box::new(Fifo::new(limits));
        for frame in held.into_iter().rev() {
            fifo.requeue(frame);
        }
        ifp.snd = fifo;
        self.tcp_unblock(dev);
    }
}

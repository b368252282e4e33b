//! What can be written: parsed whole, then done whole, and undone if a later line is refused.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use scheme::errno::{self, Errno};

use super::node::{IfNode, Node};
use crate::ifnet::{
    Driver, Family, FifoLimits, IF_MINMTU, IfAddr, IfFlags, IfIndex, Ifnet, MAX_ADDRS, MAX_GROUPS,
    MemberKind, is_host, parse_decimal,
};
use crate::ip::Ip;
use crate::link::{AutoAddr, Mac, adapter_of};
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
        /// Addresses that it made from prefixes of routers.
        auto_addrs: Vec<AutoAddr>,
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
                auto_addrs,
                ..
            } => 1 + addrs.len() + routes.len() + auto_addrs.len(),
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

impl Setting {
    /// Does one thing, or refuses it and changes nothing.
    pub(super) fn apply(self, net: &mut Net) -> Result<Undo, Errno> {
        Ok(match self {
            Self::Nameserver(addr) => Undo::Nameserver(net.nameserver.replace(addr)),
            Self::TunDebug(debug) => Undo::TunDebug(net.tun.set_debug(&mut net.ip, debug)),
            Self::Forwarding(on) => Undo::Forwarding(std::mem::replace(&mut net.ip.forwarding, on)),
            Self::AddRoute(spec) => {
                let route = resolve_route(&net.ip, &spec)?;
                let old = net
                    .ip
                    .routes
                    .insert(spec.prefix, route)
                    .map_err(|_| errno::ENOSPC)?;
                let old = old.into_iter().map(|old| (spec.prefix, old)).collect();
                Undo::Routes(Some((spec.prefix, route)), old)
            }
            Self::RemoveRoute(spec) => {
                let ifs = &net.ip.ifs;
                let removed = net.ip.routes.remove(spec.prefix, |route| {
                    ifs.get(route.dev)
                        .is_some_and(|ifp| spec.matches(route, &ifp.name))
                });
                if removed.is_empty() {
                    return Err(errno::EINVAL);
                }
                let removed = removed.into_iter().map(|old| (spec.prefix, old)).collect();
                Undo::Routes(None, removed)
            }
            Self::Interface(name, setting) => {
                let dev = net.ip.ifs.by_name(&name).ok_or(errno::ENOENT)?;
                setting.apply(net, dev)?
            }
        })
    }
}

impl IfSetting {
    fn apply(self, net: &mut Net, dev: IfIndex) -> Result<Undo, Errno> {
        let adapter = adapter_of(&net.ip, dev);
        let ifp = net.ip.ifs.get(dev).ok_or(errno::ENOENT)?;
        let (driver, ipv6) = (ifp.driver, ifp.has_ipv6());
        let undo = Undo::Interface {
            dev,
            addrs: ifp.addrs.clone(),
            flags: ifp.flags,
            lastchange: ifp.stats.lastchange,
            mtu: ifp.mtu,
            routes: self.routes_touched(&net.ip, ifp),
            auto_addrs: adapter.map_or(Vec::new(), |adapter| net.link.autoconf_addrs(adapter)),
        };
        match self {
            Self::SetAddr(addr) => {
                if addr.addr.is_ipv6() && !ipv6 {
                    return Err(errno::EINVAL);
                }
                let self_made = |old: &IfAddr| {
                    adapter.is_some_and(|adapter| net.link.is_autoconfigured(adapter, &old.addr))
                };
                let mut replaced = ifp.addrs.clone();
                replaced.retain(|old| old.addr == addr.addr || !self_made(old));
                for old in replaced {
                    net.ip.remove_addr(dev, &old);
                }
                disown(net, dev, &addr.addr);
                net.ip.ifs.add_addr(dev, addr);
                net.ip.if_init(dev);
            }
            Self::AddAddr(addr) => {
                if (addr.addr.is_ipv6() && !ipv6) || ifp.addr(&addr.addr).is_some() {
                    return Err(errno::EINVAL);
                }
                if ifp.addrs.len() >= MAX_ADDRS {
                    return Err(errno::ENOSPC);
                }
                disown(net, dev, &addr.addr);
                net.ip.ifs.add_addr(dev, addr);
                net.ip.if_init(dev);
            }
            Self::RemoveAddr(addr) => {
                // The address alone is enough to say which.
                let own = ifp.addrs.iter().find(|own| {
                    own.addr == addr.addr && (**own == addr || addr == IfAddr::host(addr.addr))
                });
                let own = *own.ok_or(errno::EINVAL)?;
                if let Some(adapter) = adapter {
                    net.link.autoconf_refuse(&mut net.ip, adapter, &own.addr);
                }
                net.ip.remove_addr(dev, &own);
            }
            Self::Mtu(mtu) => net.ip.set_mtu(dev, mtu)?,
            Self::Up(up) => net.ip.set_up(dev, up),
            Self::Join(group) => {
                if !net
                    .ip
                    .group_join(dev, group, MemberKind::Setting, MAX_GROUPS)
                {
                    return Err(errno::EINVAL);
                }
                return Ok(Undo::Join(dev, group));
            }
            Self::Leave(group) => {
                if !net.ip.group_leave(dev, group, MemberKind::Setting) {
                    return Err(errno::EINVAL);
                }
                return Ok(Undo::Leave(dev, group));
            }
            Self::Queue(limits) => {
                net.ip.set_queue(dev, limits);
                return Ok(Undo::Nothing);
            }
            Self::Mac(mac) => {
                // Only Ethernet has one to set.
                let adapter = adapter.ok_or(errno::EINVAL)?;
                net.link.set_mac(&mut net.ip, adapter, mac);
                return Ok(Undo::Nothing);
            }
            Self::Autoconf(on) => {
                let adapter = adapter.ok_or(errno::EINVAL)?;
                net.link.set_autoconf(&mut net.ip, adapter, on);
                return Ok(Undo::Nothing);
            }
            Self::Destroy => {
                let Driver::Tun(unit) = driver else {
                    return Err(errno::EINVAL);
                };
                if !net.tun.destroy(&mut net.ip, unit) {
                    return Err(errno::EBUSY);
                }
                return Ok(Undo::Nothing);
            }
        }
        Ok(undo)
    }

    /// The routes over an interface that a setting of it can add or take away: those for the
    /// prefixes of its addresses; all of them for the mtu, which decides whether it has IPv6.
    fn routes_touched(&self, ip: &Ip, ifp: &Ifnet) -> Vec<(IpNet, Route)> {
        let own = |(_, route): &(IpNet, &Route)| route.dev == ifp.index;
        let copy = |(prefix, route): (IpNet, &Route)| (prefix, *route);
        let new = match self {
            Self::Mtu(_) => return ip.routes.iter().filter(own).map(copy).collect(),
            Self::SetAddr(addr) | Self::AddAddr(addr) => Some(addr),
            _ => None,
        };
        let prefixes: BTreeSet<_> = ifp.addrs.iter().chain(new).map(IfAddr::prefix).collect();
        let routes = prefixes.into_iter().flatten().flat_map(|prefix| {
            let routes = ip.routes.at(prefix).iter();
            routes.map(move |route| (prefix, route))
        });
        routes.filter(own).map(copy).collect()
    }
}

impl Undo {
    /// Puts things back as they were.
    pub(super) fn undo(self, net: &mut Net) {
        match self {
            Self::Nothing => {}
            Self::Nameserver(addr) => net.nameserver = addr,
            Self::TunDebug(debug) => {
                net.tun.set_debug(&mut net.ip, debug);
            }
            Self::Forwarding(on) => net.ip.forwarding = on,
            Self::Routes(added, removed) => {
                if let Some((prefix, added)) = added {
                    net.ip.routes.remove(prefix, |route| *route == added);
                }
                for (prefix, route) in removed {
                    // There was room for it before.
                    let _ = net.ip.routes.insert(prefix, route);
                }
            }
            Self::Interface {
                dev,
                addrs,
                flags,
                lastchange,
                mtu,
                routes,
                auto_addrs,
            } => {
                if let Some(adapter) = adapter_of(&net.ip, dev) {
                    net.link.autoconf_restore(&mut net.ip, adapter, auto_addrs);
                }
                if let Some(ifp) = net.ip.ifs.get_mut(dev) {
                    ifp.flags = flags;
                    ifp.mtu = mtu;
                    ifp.stats.lastchange = lastchange;
                }
                let now = net.ip.addrs_of(dev);
                for addr in now.iter().filter(|addr| !addrs.contains(addr)) {
                    net.ip.remove_addr(dev, addr);
                }
                for addr in addrs.iter().filter(|addr| !now.contains(addr)) {
                    net.ip.ifs.add_addr(dev, *addr);
                }
                for prefix in now.iter().chain(&addrs).filter_map(IfAddr::prefix) {
                    net.ip.routes.remove(prefix, |route| route.dev == dev);
                }
                for (prefix, route) in routes {
                    // There was room for it before.
                    let _ = net.ip.routes.insert(prefix, route);
                }
                if let Some(ifp) = net.ip.ifs.get_mut(dev) {
                    // The same ones, in their old order.
                    ifp.addrs = addrs;
                }
                net.ip.routes.touch();
            }
            Self::Join(dev, group) => {
                net.ip.group_leave(dev, group, MemberKind::Setting);
            }
            Self::Leave(dev, group) => {
                net.ip
                    .group_join(dev, group, MemberKind::Setting, MAX_GROUPS);
            }
        }
    }
}

impl Change {
    /// How an interface is before settings of it are done.
    pub(super) fn new(ip: &Ip, dev: IfIndex) -> Self {
        let mut silent = vec![Family::Inet, Family::Inet6];
        silent.retain(|&family| !ip.can_report(dev, family));
        Self {
            dev,
            up: ip.is_up(dev),
            ipv6: ip.runs_ipv6(dev),
            interrupted: false,
            silent,
            addrs: ip.addrs_of(dev),
        }
    }

    /// One of the settings is done.
    pub(super) fn note(&mut self, ip: &Ip) {
        self.interrupted |= !ip.runs_ipv6(self.dev);
    }

    /// All settings are done, and none was refused: the link hears what is new.
    pub(super) fn announce(self, net: &mut Net) {
        let dev = self.dev;
        let adapter = adapter_of(&net.ip, dev);
        let runs_ipv6 = net.ip.runs_ipv6(dev);
        let addrs = net.ip.addrs_of(dev);
        if let Some(adapter) = adapter {
            if self.interrupted {
                net.link.autoconf_stop(&mut net.ip, adapter);
            }
            // What somebody set is not asked for any more.
            for own in &addrs {
                net.link.autoconf_give_up(&mut net.ip, adapter, &own.addr);
            }
            net.ip.groups_follow(dev);
            net.link.autoconf_deprecate(&mut net.ip, adapter);
        }
        // What was joined meanwhile nobody has heard of.
        for family in self.silent {
            if net.ip.can_report(dev, family) {
                net.ip.groups_announce(dev, family);
            }
        }
        let Some(adapter) = adapter else {
            return;
        };
        if !self.up && net.ip.is_up(dev) {
            return net.link.link_up(&mut net.ip, adapter);
        }
        for new in addrs.iter().filter(|addr| !self.addrs.contains(addr)) {
            net.link.announce(&mut net.ip, adapter, new.addr);
        }
        if runs_ipv6 && (!self.ipv6 || self.interrupted) {
            net.link.autoconf_start(&mut net.ip, adapter);
        }
    }
}

/// Completes a route: which interface, if the line does not say, is the one that reaches the
/// router.
fn resolve_route(ip: &Ip, spec: &RouteSpec) -> Result<Route, Errno> {
    let dev = match (&spec.dev, spec.via) {
        (Some(name), _) => ip.ifs.by_name(name).ok_or(errno::EINVAL)?,
        (None, Some(via)) => {
            let route = ip
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

/// Somebody sets an address: it is theirs, even if the adapter gave it itself before.
fn disown(net: &mut Net, dev: IfIndex, addr: &IpAddr) {
    if let Some(adapter) = adapter_of(&net.ip, dev) {
        net.link.autoconf_disown(&mut net.ip, adapter, addr);
    }
}

//! Applying settings.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use scheme::errno::{self, Errno};

use super::node::name_of;
use super::setting::{IfSetting, Setting};
use super::undo::Undo;
use crate::ifnet::{Driver, IfAddr, IfIndex, Ifnet, MAX_GROUPS, MemberKind};
use crate::ip::Ip;
use crate::link::adapter_of;
use crate::net::Net;
use crate::route::{Origin, Placed, Route, RouteSpec};

impl Setting {
    /// Applies one setting, and returns how to undo it. If it is refused, nothing has changed.
    pub(super) fn apply(self, net: &mut Net) -> Result<Undo, Errno> {
        Ok(match self {
            Self::Nameserver(addr) => Undo::Nameserver(net.nameserver.replace(addr)),
            Self::TunDebug(debug) => Undo::TunDebug(net.tun.set_debug(&mut net.ip, debug)),
            Self::Forwarding(on) => Undo::Forwarding(net.ip.set_forwarding(on)),
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
                let matches = |route: &Route| spec.matches(route, name_of(net, route));
                let meant: Vec<Route> = match spec.dev {
                    Some(_) => {
                        let there = net.ip.routes.at(spec.prefix);
                        there.copied().filter(matches).collect()
                    }
                    None => in_use(&net.ip, spec.prefix, matches).into_iter().collect(),
                };
                let removed = net
                    .ip
                    .routes
                    .remove(spec.prefix, |route| meant.contains(route));
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
            wanted_mtu: ifp.wanted_mtu,
            routes: self.routes_touched(&net.ip, ifp),
            groups: ifp.groups.clone(),
            auto_addrs: adapter.map_or(Vec::new(), |adapter| net.link.autoconf_addrs(adapter)),
        };
        match self {
            Self::SetAddr(addr) => {
                if addr.addr.is_ipv6() && !ipv6 {
                    return Err(errno::EINVAL);
                }
                // One that it replaces makes room.
                let room = !ifp.addrs.is_empty() || net.ip.ifs.has_room_for_addr(dev);
                if !room || !net.ip.can_connect(dev, &addr) {
                    return Err(errno::ENOSPC);
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
                if !net.ip.ifs.has_room_for_addr(dev) || !net.ip.can_connect(dev, &addr) {
                    return Err(errno::ENOSPC);
                }
                disown(net, dev, &addr.addr);
                net.ip.ifs.add_addr(dev, addr);
                net.ip.if_init(dev);
            }
            Self::RemoveAddr(addr) => {
                // The address alone is enough to identify it.
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
                    .group_enter(dev, group, MemberKind::Setting, MAX_GROUPS)
                {
                    return Err(errno::EINVAL);
                }
                return Ok(Undo::Join(dev, group));
            }
            Self::Leave(group) => {
                if !net.ip.group_exit(dev, group, MemberKind::Setting) {
                    return Err(errno::EINVAL);
                }
                return Ok(Undo::Leave(dev, group));
            }
            Self::Queue(spec) => {
                net.ip.set_queue(dev, spec)?;
                return Ok(Undo::Nothing);
            }
            Self::Mac(mac) => {
                // Only Ethernet has a hardware address to set.
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

    /// The routes over an interface that a setting of it can add or remove: those for the prefixes
    /// of its addresses; all of them for the mtu, which decides whether it carries IPv6.
    fn routes_touched(&self, ip: &Ip, ifp: &Ifnet) -> Vec<(IpNet, Placed)> {
        let own = |(_, placed): &(IpNet, Placed)| placed.route.dev == Some(ifp.index);
        let new = match self {
            Self::Mtu(_) => return ip.routes.over(ifp.index).collect(),
            Self::SetAddr(addr) | Self::AddAddr(addr) => Some(addr),
            _ => None,
        };
        let prefixes: BTreeSet<_> = ifp.addrs.iter().chain(new).map(IfAddr::prefix).collect();
        let routes = prefixes.into_iter().flatten().flat_map(|prefix| {
            let routes = ip.routes.placed(prefix);
            routes.map(move |placed| (prefix, placed))
        });
        routes.filter(own).collect()
    }
}

/// Of the routes of a prefix for which `wanted` holds, the one that is used, or would be if none of
/// them were down.
fn in_use(ip: &Ip, prefix: IpNet, wanted: impl Fn(&Route) -> bool) -> Option<Route> {
    let wanted = || ip.routes.at(prefix).filter(|route| wanted(route));
    let up = |route: &&Route| route.dev.is_none_or(|dev| ip.is_up(dev));
    wanted().find(up).or_else(|| wanted().next()).copied()
}

/// Completes a route. If the line does not name an interface, the one that reaches the router is
/// used. `EINVAL` if there is none, the router is not on its link or is this host, or the interface
/// does not carry IPv6.
fn resolve_route(ip: &Ip, spec: &RouteSpec) -> Result<Route, Errno> {
    let metric = spec.metric.unwrap_or(0);
    if spec.unreachable {
        return Ok(Route {
            dev: None,
            tunnel: false,
            via: None,
            src: None,
            metric,
            origin: Origin::Static,
        });
    }
    let dev = match (&spec.dev, spec.via) {
        (Some(name), _) => ip.ifs.by_name(name).ok_or(errno::EINVAL)?,
        (None, Some(via)) => {
            let found = ip.routes.lookup(&via, None, |_| true);
            let (_, route) = found.map_err(|_| errno::EINVAL)?;
            match (route.via, route.dev) {
                (None, Some(dev)) => dev,
                _ => return Err(errno::EINVAL),
            }
        }
        (None, None) => return Err(errno::EINVAL),
    };
    let ipv6 = spec.prefix.network().is_ipv6();
    let ifp = ip.ifs.get(dev).ok_or(errno::EINVAL)?;
    let carries = !ipv6 || ifp.has_ipv6();
    let ours = |via: IpAddr| ip.ifs.is_local_on(&via, dev);
    if !carries || spec.via.is_some_and(ours) {
        return Err(errno::EINVAL);
    }
    Ok(Route {
        dev: Some(dev),
        tunnel: ifp.is_tunnel(),
        via: spec.via,
        src: spec.src,
        metric,
        origin: Origin::Static,
    })
}

/// Marks an address as set by a program, even if the adapter made it before.
fn disown(net: &mut Net, dev: IfIndex, addr: &IpAddr) {
    if let Some(adapter) = adapter_of(&net.ip, dev) {
        net.link.autoconf_disown(&mut net.ip, adapter, addr);
    }
}

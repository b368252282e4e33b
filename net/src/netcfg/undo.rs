//! Undoing lines when a later one is refused, and announcing them when none was.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::ifnet::{Family, IfAddr, IfFlags, IfIndex, MAX_GROUPS, MemberKind, Members};
use crate::ip::Ip;
use crate::link::{AutoAddr, adapter_of};
use crate::net::Net;
use crate::route::{Placed, Route};

/// The state before a setting.
pub(super) enum Undo {
    /// Nothing to undo: no line of the same write can be refused after it.
    Nothing,
    Nameserver(Option<IpAddr>),
    TunDebug(i32),
    Forwarding(bool),
    /// Remove the first, and put the others back.
    Routes(Option<(IpNet, Route)>, Vec<(IpNet, Placed)>),
    Interface {
        dev: IfIndex,
        addrs: Vec<IfAddr>,
        flags: IfFlags,
        lastchange: Duration,
        mtu: u16,
        wanted_mtu: u16,
        /// Its routes that the setting can touch.
        routes: Vec<(IpNet, Placed)>,
        /// Its groups, of which an mtu takes those of IPv6.
        groups: BTreeMap<IpAddr, Members>,
        /// Addresses that it made from prefixes of routers.
        auto_addrs: Vec<AutoAddr>,
    },
    Join(IfIndex, IpAddr),
    Leave(IfIndex, IpAddr),
}

impl Undo {
    /// The number of addresses and routes it holds, and one for itself.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Routes(_, removed) => 1 + removed.len(),
            Self::Interface {
                addrs,
                routes,
                groups,
                auto_addrs,
                ..
            } => 1 + addrs.len() + routes.len() + groups.len() + auto_addrs.len(),
            _ => 1,
        }
    }
}

impl Undo {
    /// Restores the state before the setting.
    pub(super) fn undo(self, net: &mut Net) {
        match self {
            Self::Nothing => {}
            Self::Nameserver(addr) => net.nameserver = addr,
            Self::TunDebug(debug) => {
                net.tun.set_debug(&mut net.ip, debug);
            }
            Self::Forwarding(on) => {
                net.ip.set_forwarding(on);
            }
            Self::Routes(added, removed) => {
                if let Some((prefix, added)) = added {
                    net.ip.routes.remove(prefix, |route| *route == added);
                }
                for (prefix, placed) in removed {
                    net.ip.routes.restore(prefix, placed);
                }
            }
            Self::Interface {
                dev,
                addrs,
                flags,
                lastchange,
                mtu,
                wanted_mtu,
                routes,
                groups,
                auto_addrs,
            } => {
                if let Some(adapter) = adapter_of(&net.ip, dev) {
                    net.link.autoconf_restore(&mut net.ip, adapter, auto_addrs);
                }
                if let Some(ifp) = net.ip.ifs.get_mut(dev) {
                    ifp.flags = flags;
                    ifp.mtu = mtu;
                    ifp.wanted_mtu = wanted_mtu;
                    ifp.groups = groups;
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
                    let over = |route: &Route| route.dev == Some(dev);
                    net.ip.routes.remove(prefix, over);
                }
                for (prefix, placed) in routes {
                    net.ip.routes.restore(prefix, placed);
                }
                if let Some(ifp) = net.ip.ifs.get_mut(dev) {
                    // The same ones, in their old order.
                    ifp.addrs = addrs;
                }
                net.ip.routes.touch();
            }
            Self::Join(dev, group) => {
                net.ip.group_exit(dev, group, MemberKind::Setting);
            }
            Self::Leave(dev, group) => {
                net.ip
                    .group_enter(dev, group, MemberKind::Setting, MAX_GROUPS);
            }
        }
    }
}

/// An interface as it was before a write, to announce on its link what the write changed.
pub(super) struct Change {
    dev: IfIndex,
    /// Whether it was up and carried IPv6.
    up: bool,
    ipv6: bool,
    /// Whether it did not carry IPv6 after one of the lines.
    interrupted: bool,
    /// Families in which it could not report groups.
    silent: Vec<Family>,
    addrs: Vec<IfAddr>,
    groups: BTreeSet<IpAddr>,
}

impl Change {
    /// The interface as it is now.
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
            groups: ip.groups_joined(dev),
        }
    }

    /// Notes that one of the lines was applied.
    pub(super) fn note(&mut self, ip: &Ip) {
        self.interrupted |= !ip.runs_ipv6(self.dev);
    }

    /// Announces the changes on the link, after all lines were applied.
    pub(super) fn announce(self, net: &mut Net) {
        let dev = self.dev;
        net.ip.groups_changed(dev, &self.groups);
        let adapter = adapter_of(&net.ip, dev);
        let runs_ipv6 = net.ip.runs_ipv6(dev);
        let addrs = net.ip.addrs_of(dev);
        if let Some(adapter) = adapter {
            if self.interrupted {
                net.link.autoconf_stop(&mut net.ip, adapter);
            }
            // The adapter stops asking for addresses that somebody set.
            for own in &addrs {
                net.link.autoconf_give_up(&mut net.ip, adapter, &own.addr);
            }
            net.ip.groups_follow(dev);
            net.link.autoconf_deprecate(&mut net.ip, adapter);
        }
        // Groups that were joined when they could not be reported.
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
            net.link.claim(&mut net.ip, adapter, new.addr);
        }
        if runs_ipv6 && (!self.ipv6 || self.interrupted) {
            net.link.autoconf_start(&mut net.ip, adapter);
        }
    }
}

//! The state of an adapter's autoconfiguration: the addresses that it makes itself, and the routers
//! (RFC 4862, RFC 4861 section 6.3). It is bounded, whatever routers advertise.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU8;
use std::time::Duration;

use ipnet::{IpNet, Ipv6Net};
use smoltcp::wire::{NdiscPrefixInfoFlags, NdiscPrefixInformation};

use super::Mac;
use crate::ifnet::{IPV6_MINMTU, IfAddr, is_host};

/// How long other stations have to object to an address before we take it (RFC 4862 section 5.1:
/// `RetransTimer`, once).
const PROBE: Duration = Duration::from_secs(1);
/// Pause after the first solicitation of routers, which doubles with each (RFC 7559 section 2).
const SOLICIT_PAUSE: Duration = Duration::from_secs(4);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// Each pause is longer or shorter by up to this part of it, at random, so that hosts that start
/// together do not go on asking together (RFC 8415 section 15).
const PAUSE_SPREAD: f64 = 0.1;
/// No advertisement can make the rest of an address's lifetime shorter than this, because
/// advertisements can be forged (RFC 4862 section 5.5.3).
const SAFE_LIFETIME: Duration = Duration::from_secs(2 * 60 * 60);
/// Most routers remembered.
const MAX_ROUTERS: usize = 8;
/// Most prefixes from which an adapter makes addresses, and most that are on its link.
const MAX_PREFIXES: usize = 16;
/// Most name servers remembered. RFC 8106 section 5.3.1 wants three.
const MAX_SERVERS: usize = 3;
/// Length of such a prefix, bits. The rest of an address is made from the hardware address.
const PREFIX_LEN: u8 = 64;
/// An infinite lifetime, seconds.
const FOR_EVER: u64 = 0xffff_ffff;

/// An address that another host may have.
#[derive(Debug)]
struct Tentative {
    addr: IfAddr,
    /// The time until which other hosts can object; `None` before they have been asked.
    until: Option<Duration>,
}

#[derive(Debug)]
struct Solicit {
    /// Pause before the first one, so that hosts that start together do not all ask at once.
    delay: Duration,
    /// The time of the next one; `None` until `poll` sees the time.
    at: Option<Duration>,
    /// The pause after the last one; zero before the first.
    pause: Duration,
}

impl Solicit {
    /// Goes on to the next pause, which `chance`, from 0 to 1, makes longer or shorter.
    fn back_off(&mut self, now: Duration, chance: f64) {
        let spread = PAUSE_SPREAD * (2.0 * chance - 1.0);
        self.pause = match self.pause {
            Duration::ZERO => SOLICIT_PAUSE.mul_f64(1.0 + spread),
            last => last.mul_f64(2.0 + spread),
        };
        if self.pause > LONGEST_PAUSE {
            self.pause = LONGEST_PAUSE.mul_f64(1.0 + spread);
        }
        self.at = Some(now + self.pause);
    }
}

/// How much a router is to be preferred to others (RFC 4191 section 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Preference {
    Low,
    Medium,
    High,
}

impl Preference {
    /// The preference in the flags of an advertisement. The reserved value means medium.
    pub(super) fn of(flags: u8) -> Self {
        match flags >> 3 & 3 {
            0b01 => Self::High,
            0b11 => Self::Low,
            _ => Self::Medium,
        }
    }
}

#[derive(Debug)]
struct Router {
    addr: Ipv6Addr,
    until: Duration,
    preference: Preference,
    /// It did not answer when it was last asked.
    silent: bool,
}

impl Router {
    /// The value of a router: those that answer come before those that do not, and only among the
    /// former does the preference count (RFC 4861 section 6.3.6, RFC 4191 section 3.2).
    fn rank(&self) -> Option<Preference> {
        (!self.silent).then_some(self.preference)
    }
}

/// An address made from a router's prefix.
#[derive(Clone, Debug)]
pub(crate) struct AutoAddr {
    addr: IfAddr,
    /// The router that advertised the prefix last.
    by: Ipv6Addr,
    /// The time until which new connections may use it.
    preferred: Duration,
    until: Duration,
    deprecated: bool,
    /// It must not be taken: another station has it, or somebody removed it.
    refused: bool,
}

/// A prefix whose addresses are on the link, until a time.
#[derive(Debug)]
struct OnLink {
    prefix: IpNet,
    /// The router that said so last.
    by: Ipv6Addr,
    until: Duration,
}

/// A name server, until a time.
#[derive(Debug)]
struct Server {
    addr: Ipv6Addr,
    /// The router that named it last.
    by: Ipv6Addr,
    until: Duration,
}

/// Where something new goes in a bounded table.
#[derive(Debug)]
enum Place {
    /// Behind the others.
    Free,
    /// Instead of the one at this place.
    Of(usize),
}

/// Something to do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Ask whether another station has this address.
    Probe(IfAddr),
    /// No other station has this address.
    Unique(IfAddr),
    /// Ask for routers.
    Solicit,
    /// The lifetime of a router, or of a prefix on the link, is over.
    RouteGone,
    /// The lifetime of the name server that is used is over.
    ServerGone,
    /// One of the addresses is deprecated: no new connection uses it.
    Deprecated,
    /// The lifetime of this address is over.
    Expired(IpAddr),
}

/// The state of one adapter.
#[derive(Debug, Default)]
pub(super) struct Autoconf {
    /// Whether it is switched off: routers are neither asked for nor believed.
    pub(super) off: bool,
    tentative: Vec<Tentative>,
    solicit: Option<Solicit>,
    /// Routers that advertised themselves. Of equals the first is used.
    routers: Vec<Router>,
    addrs: Vec<AutoAddr>,
    on_link: Vec<OnLink>,
    /// Recursive name servers, in the order in which they were heard of first.
    servers: Vec<Server>,
    /// The mtu of IPv6 on the link, if a router said so.
    mtu: Option<u16>,
    /// The hop limit of packets whose sender chose none, if a router said so.
    hops: Option<NonZeroU8>,
    deadline: Option<Duration>,
}

/// The end of a lifetime that begins now; `Duration::MAX` if it never ends.
fn end(now: Duration, lifetime: Duration) -> Duration {
    match lifetime.as_secs() {
        FOR_EVER.. => Duration::MAX,
        _ => now.saturating_add(lifetime),
    }
}

impl Autoconf {
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// Arms the timer for the next action.
    fn rearm(&mut self) {
        let tentative = self.tentative.iter().map(|probed| probed.until);
        let solicit = self.solicit.iter().map(|solicit| solicit.at);
        // Those without a time are due at once.
        let asked = tentative.chain(solicit).map(Option::unwrap_or_default);
        let auto = self.addrs.iter().map(|auto| match auto.deprecated {
            true => auto.until,
            false => auto.preferred.min(auto.until),
        });
        let routers = self.routers.iter().map(|router| router.until);
        let on_link = self.on_link.iter().map(|on_link| on_link.until);
        let servers = self.servers.iter().map(|server| server.until);
        let advertised = routers.chain(on_link).chain(servers);
        let first = asked.chain(auto).chain(advertised).min();
        self.deadline = first.filter(|at| *at < Duration::MAX);
    }

    /// The router to use.
    pub(super) fn router(&self) -> Option<Ipv6Addr> {
        // Reversed, because max_by_key takes the last of equals.
        let best = self.routers.iter().rev().max_by_key(|router| router.rank());
        best.map(|router| router.addr)
    }

    /// The name server to use: the first that a router named that answers, or else the first.
    pub(super) fn server(&self) -> Option<Ipv6Addr> {
        let mut servers = self.servers.iter();
        let answered = servers.find(|server| self.answers(&server.by));
        let best = answered.or_else(|| self.servers.first());
        best.map(|server| server.addr)
    }

    /// Whether a station is a router, and answered when it was last asked.
    fn answers(&self, router: &Ipv6Addr) -> bool {
        let mut known = self.routers.iter();
        known.any(|known| known.addr == *router && !known.silent)
    }

    /// The mtu of IPv6 on the link, if a router said so.
    pub(super) fn mtu(&self) -> Option<u16> {
        self.mtu
    }

    /// The hop limit of packets whose sender chose none, if a router said so.
    pub(super) fn hops(&self) -> Option<NonZeroU8> {
        self.hops
    }

    /// The prefixes whose addresses are on the link.
    pub(super) fn on_link(&self) -> impl Iterator<Item = IpNet> {
        self.on_link.iter().map(|on_link| on_link.prefix)
    }

    /// The deprecated addresses.
    pub(super) fn deprecated(&self) -> impl Iterator<Item = IpAddr> {
        let deprecated = self.addrs.iter().filter(|auto| auto.deprecated);
        deprecated.map(|auto| auto.addr.addr)
    }

    /// The addresses made from prefixes.
    pub(super) fn advertised(&self) -> impl Iterator<Item = IpAddr> {
        self.addrs.iter().map(|auto| auto.addr.addr)
    }

    /// The adapter is up. Routers are asked for after `delay`, and addresses that could not be
    /// taken before may be tried again. Returns the addresses to ask for.
    pub(super) fn start(&mut self, delay: Duration) -> Vec<IfAddr> {
        self.solicit = (!self.off).then_some(Solicit {
            delay,
            at: None,
            pause: Duration::ZERO,
        });
        for auto in &mut self.addrs {
            auto.refused = false;
        }
        self.rearm();
        self.addrs.iter().map(|auto| auto.addr).collect()
    }

    /// The adapter is down: stops asking.
    pub(super) fn stop(&mut self) {
        self.solicit = None;
        self.tentative.clear();
        self.rearm();
    }

    /// Begins to ask for an address, unless it is asked for already.
    pub(super) fn probe(&mut self, addr: IfAddr) {
        let mut known = self.tentative.iter_mut();
        match known.find(|probed| probed.addr.addr == addr.addr) {
            // Its network may have turned out to be on the link.
            Some(probed) => probed.addr = addr,
            None => self.tentative.push(Tentative { addr, until: None }),
        }
        self.rearm();
    }

    /// The addresses that are asked for.
    pub(super) fn tentative(&self) -> impl Iterator<Item = IpAddr> {
        self.tentative.iter().map(|probed| probed.addr.addr)
    }

    /// Stops asking for an address. False if it was not asked for.
    pub(super) fn give_up(&mut self, addr: &IpAddr) -> bool {
        let before = self.tentative.len();
        self.tentative.retain(|probed| probed.addr.addr != *addr);
        self.rearm();
        self.tentative.len() < before
    }

    /// Notes that an address must not be taken, though its prefix is still advertised.
    pub(super) fn refuse(&mut self, addr: &IpAddr) {
        let auto = self.addrs.iter_mut().find(|auto| auto.addr.addr == *addr);
        if let Some(auto) = auto {
            auto.refused = true;
        }
    }

    /// Forgets an address, because a program set it.
    pub(super) fn disown(&mut self, addr: &IpAddr) {
        self.addrs.retain(|auto| auto.addr.addr != *addr);
        self.rearm();
    }

    /// The addresses made from prefixes, to be [put back](Self::restore).
    pub(super) fn addrs(&self) -> Vec<AutoAddr> {
        self.addrs.clone()
    }

    /// Puts back addresses made from prefixes.
    pub(super) fn restore(&mut self, addrs: Vec<AutoAddr>) {
        self.addrs = addrs;
        self.rearm();
    }

    /// Handles an advertisement of a router. A `lifetime` of zero means that it is no router any
    /// more. True if it is one that did not answer, and should be asked whether it does now.
    pub(super) fn router_advertised(
        &mut self,
        addr: Ipv6Addr,
        preference: Preference,
        lifetime: Duration,
        now: Duration,
    ) -> bool {
        if lifetime.is_zero() {
            // Such a station advertises prefixes, but does not forward. We go on asking (RFC 4861
            // section 6.3.7).
            self.retired(addr);
            return false;
        }
        let until = end(now, lifetime);
        let advertised = Router {
            addr,
            until,
            preference,
            silent: false,
        };
        let known = self.position(&addr.into());
        let silent = known.is_some_and(|at| self.routers[at].silent);
        match known {
            // An advertisement is no proof that the router hears us.
            Some(at) => {
                self.routers[at] = Router {
                    silent,
                    ..advertised
                };
            }
            None if self.routers.len() < MAX_ROUTERS => self.routers.push(advertised),
            None => self.replace_router(advertised),
        }
        self.solicit = None;
        self.rearm();
        silent
    }

    /// Handles an advertised hop limit. Zero says nothing (RFC 4861 section 6.3.4).
    pub(super) fn hops_advertised(&mut self, hops: u8) {
        self.hops = NonZeroU8::new(hops).or(self.hops);
    }

    /// Handles an advertised mtu. One that is too small for IPv6, or more than the `most` that the
    /// link carries, is ignored.
    pub(super) fn mtu_advertised(&mut self, mtu: u32, most: u16) {
        let usable = u16::try_from(mtu).ok();
        let usable = usable.filter(|mtu| (IPV6_MINMTU..=most).contains(mtu));
        self.mtu = usable.or(self.mtu);
    }

    /// Handles an option of a router that advertises name servers (RFC 8106 section 5.1). A lifetime
    /// of zero ends those that are named.
    pub(super) fn servers_advertised(&mut self, option: &[u8], by: Ipv6Addr, now: Duration) {
        let Some((head, addrs)) = option.split_first_chunk::<8>() else {
            return;
        };
        let &[_, _, _, _, seconds @ ..] = head;
        let lifetime = Duration::from_secs(u32::from_be_bytes(seconds).into());
        let until = end(now, lifetime);
        for addr in addrs.as_chunks::<16>().0 {
            let addr = Ipv6Addr::from(*addr);
            let advertised = Server { addr, by, until };
            let mut known = self.servers.iter_mut();
            match known.find(|server| server.addr == addr) {
                Some(server) => *server = advertised,
                None if lifetime.is_zero() || !is_host(&addr.into()) || addr.is_loopback() => {}
                None => {
                    let routers = self.servers.iter().map(|server| server.by);
                    match self.place(routers, MAX_SERVERS, by) {
                        Some(Place::Free) => self.servers.push(advertised),
                        Some(Place::Of(at)) => {
                            self.servers.remove(at);
                            self.servers.push(advertised);
                        }
                        None => {}
                    }
                }
            }
            self.servers.retain(|server| server.until > now);
        }
        self.rearm();
    }

    /// Puts a router in the place of the one of least value, if that is less than its own.
    fn replace_router(&mut self, router: Router) {
        let places = 0..self.routers.len();
        let least = places.min_by_key(|&at| self.routers[at].rank());
        if let Some(at) = least
            && self.routers[at].rank() < router.rank()
        {
            self.routers.remove(at);
            self.routers.push(router);
        }
    }

    /// Forgets a router. False if it was not known.
    pub(super) fn retired(&mut self, addr: Ipv6Addr) -> bool {
        let before = self.routers.len();
        self.routers.retain(|router| router.addr != addr);
        self.rearm();
        self.routers.len() < before
    }

    /// Notes that a station does not answer. If it is a router, any other is used instead; the
    /// routers of which none answers are tried in turn (RFC 4861 section 6.3.6). True if the
    /// station is a router.
    pub(super) fn unreachable(&mut self, addr: &IpAddr) -> bool {
        let Some(at) = self.position(addr) else {
            return false;
        };
        let mut router = self.routers.remove(at);
        router.silent = true;
        self.routers.push(router);
        true
    }

    /// Notes that a station answers. True if it is a router that did not before.
    pub(super) fn reachable(&mut self, addr: &IpAddr) -> bool {
        let at = self.position(addr);
        at.is_some_and(|at| std::mem::take(&mut self.routers[at].silent))
    }

    fn position(&self, addr: &IpAddr) -> Option<usize> {
        let mut routers = self.routers.iter();
        routers.position(|router| IpAddr::V6(router.addr) == *addr)
    }

    /// Where something that router `by` advertises goes in a table for `most` things, which have
    /// these `routers`; `None` if there is no room. What was advertised by a router that answers is
    /// not given up for another's, since advertisements can be forged.
    fn place(
        &self,
        routers: impl ExactSizeIterator<Item = Ipv6Addr>,
        most: usize,
        by: Ipv6Addr,
    ) -> Option<Place> {
        if routers.len() < most {
            return Some(Place::Free);
        }
        let mut useless = routers.enumerate().filter(|(_, of)| !self.answers(of));
        let (at, _) = useless.next().filter(|_| self.answers(&by))?;
        Some(Place::Of(at))
    }

    /// Handles what a prefix that router `by` advertises says of the link (RFC 4861 section 6.3.4).
    /// A lifetime of zero ends it at once. A prefix that is not said to be on the link is not said
    /// to be off it either.
    pub(super) fn prefix_on_link(
        &mut self,
        info: &NdiscPrefixInformation,
        by: Ipv6Addr,
        now: Duration,
    ) {
        // A prefix of all addresses would be a default route.
        let prefix = match info.prefix_len {
            1..=128 => Ipv6Net::new(info.prefix, info.prefix_len),
            _ => return,
        };
        let Ok(prefix) = prefix.map(|prefix| IpNet::V6(prefix.trunc())) else {
            return;
        };
        if !info.flags.contains(NdiscPrefixInfoFlags::ON_LINK)
            || info.prefix.is_unicast_link_local()
            || info.prefix.is_multicast()
        {
            return;
        }
        let until = end(now, info.valid_lifetime.into());
        let advertised = OnLink { prefix, by, until };
        let mut known = self.on_link.iter_mut();
        match known.find(|on_link| on_link.prefix == prefix) {
            Some(on_link) => *on_link = advertised,
            None if until <= now => {}
            None => {
                let routers = self.on_link.iter().map(|on_link| on_link.by);
                match self.place(routers, MAX_PREFIXES, by) {
                    Some(Place::Free) => self.on_link.push(advertised),
                    Some(Place::Of(at)) => self.on_link[at] = advertised,
                    None => {}
                }
            }
        }
        self.on_link.retain(|on_link| on_link.until > now);
        self.rearm();
    }

    /// Handles a prefix that router `by` advertises. Returns the address to take because of it, if
    /// any; one that makes room for it is added to `given_up`. `is_set` tells whether the interface
    /// was given this address by a program.
    pub(super) fn prefix(
        &mut self,
        info: &NdiscPrefixInformation,
        by: Ipv6Addr,
        mac: Mac,
        is_set: impl Fn(&IpAddr) -> bool,
        given_up: &mut Vec<IpAddr>,
        now: Duration,
    ) -> Option<IfAddr> {
        let valid = Duration::from(info.valid_lifetime);
        let preferred = Duration::from(info.preferred_lifetime);
        if !info.flags.contains(NdiscPrefixInfoFlags::ADDRCONF)
            || info.prefix_len != PREFIX_LEN
            || info.prefix.is_unicast_link_local()
            || preferred > valid
        {
            return None;
        }
        let prefix = u128::from(info.prefix) >> 64 << 64;
        let addr = IpAddr::V6((prefix | u128::from(mac.interface_id())).into());
        let on_link = info.flags.contains(NdiscPrefixInfoFlags::ON_LINK);
        let (preferred_until, until) = (end(now, preferred), end(now, valid));
        let auto = match self.addrs.iter().position(|auto| auto.addr.addr == addr) {
            Some(at) => {
                let auto = &mut self.addrs[at];
                let rest = auto.until.saturating_sub(now);
                auto.until = match valid > SAFE_LIFETIME || valid > rest {
                    true => until,
                    false => now.saturating_add(rest.min(SAFE_LIFETIME)),
                };
                auto
            }
            None => {
                if valid.is_zero() || !is_host(&addr) || is_set(&addr) {
                    return None;
                }
                let routers = self.addrs.iter().map(|auto| auto.by);
                if let Place::Of(at) = self.place(routers, MAX_PREFIXES, by)? {
                    given_up.push(self.addrs.remove(at).addr.addr);
                }
                self.addrs.push(AutoAddr {
                    addr: IfAddr::host(addr),
                    by,
                    preferred: preferred_until,
                    until,
                    deprecated: false,
                    refused: false,
                });
                self.addrs.last_mut()?
            }
        };
        auto.by = by;
        auto.preferred = preferred_until;
        auto.deprecated = preferred.is_zero();
        if on_link {
            auto.addr.prefix_len = PREFIX_LEN;
        }
        let found = (!auto.refused).then_some(auto.addr);
        self.rearm();
        found
    }

    /// The next action that is due at `now`. `chance`, from 0 to 1, spreads the times at which
    /// routers are asked again.
    pub(super) fn poll(&mut self, now: Duration, chance: f64) -> Option<Action> {
        let due = self.take_due(now, chance);
        self.rearm();
        due
    }

    fn take_due(&mut self, now: Duration, chance: f64) -> Option<Action> {
        let over = |probed: &Tentative| probed.until.is_none_or(|until| until <= now);
        if let Some(at) = self.tentative.iter().position(over) {
            let probed = &mut self.tentative[at];
            return Some(match probed.until {
                None => {
                    probed.until = Some(now + PROBE);
                    Action::Probe(probed.addr)
                }
                Some(_) => Action::Unique(self.tentative.remove(at).addr),
            });
        }
        if let Some(solicit) = &mut self.solicit {
            let at = *solicit.at.get_or_insert(now + solicit.delay);
            if at <= now {
                solicit.back_off(now, chance);
                return Some(Action::Solicit);
            }
        }
        let over = |router: &Router| router.until <= now;
        if let Some(at) = self.routers.iter().position(over) {
            self.routers.remove(at);
            return Some(Action::RouteGone);
        }
        let over = |on_link: &OnLink| on_link.until <= now;
        if let Some(at) = self.on_link.iter().position(over) {
            self.on_link.remove(at);
            return Some(Action::RouteGone);
        }
        if self.servers.iter().any(|server| server.until <= now) {
            self.servers.retain(|server| server.until > now);
            return Some(Action::ServerGone);
        }
        if let Some(at) = self.addrs.iter().position(|auto| auto.until <= now) {
            return Some(Action::Expired(self.addrs.remove(at).addr.addr));
        }
        let old = |auto: &&mut AutoAddr| !auto.deprecated && auto.preferred <= now;
        self.addrs.iter_mut().find(old)?.deprecated = true;
        Some(Action::Deprecated)
    }

    /// Forgets everything that routers advertised. Returns the addresses made from it.
    pub(super) fn forget(&mut self) -> Vec<IpAddr> {
        self.solicit = None;
        self.routers.clear();
        self.on_link.clear();
        self.servers.clear();
        (self.mtu, self.hops) = (None, None);
        let addrs = self.addrs.drain(..).map(|auto| auto.addr.addr).collect();
        self.rearm();
        addrs
    }
}

//! What an adapter finds out by itself: which addresses nobody else has, which router there is, and
//! which networks (RFC 4862, RFC 4861 section 6.3). Bounded, whatever is advertised.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use smoltcp::wire::{NdiscPrefixInfoFlags, NdiscPrefixInformation};

use super::Mac;
use crate::ifnet::{IfAddr, is_host};

/// How long an address is asked for before it is ours (RFC 4862 section 5.1: `RetransTimer`, once).
const PROBE: Duration = Duration::from_secs(1);
/// Pause between solicitations of routers (RFC 4861 section 10).
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
/// Length of these: the rest of an address is the adapter's.
const PREFIX_LEN: u8 = 64;
/// A lifetime without an end, seconds.
const FOR_EVER: u64 = 0xffff_ffff;

/// An address that somebody else may have.
#[derive(Debug)]
struct Tentative {
    addr: IfAddr,
    /// Until when the others have time to say so; `None` while nobody has been asked.
    until: Option<Duration>,
}

#[derive(Debug)]
struct Solicit {
    /// Before the first one, so that not all who come up together ask at once.
    delay: Duration,
    /// When the next is sent; `None` while nobody has looked at the clock.
    at: Option<Duration>,
    left: u8,
}

#[derive(Debug)]
struct Router {
    addr: Ipv6Addr,
    until: Duration,
}

/// An address made of a router's prefix.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    addr: IfAddr,
    /// Until when connections may begin from it.
    preferred: Duration,
    until: Duration,
    deprecated: bool,
    /// It is not to be taken: another station has it, or somebody took it away.
    refused: bool,
}

/// What is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Ask whether anybody has this address.
    Probe(IfAddr),
    /// Nobody has.
    Unique(IfAddr),
    /// Ask for routers.
    Solicit,
    /// The life of a router is over.
    RouterGone,
    /// Nothing begins from one of the addresses any more.
    Deprecated,
    /// The life of this address is over.
    Expired(IpAddr),
}

/// The state of one adapter.
#[derive(Debug, Default)]
pub(super) struct Autoconf {
    /// Whether routers are neither asked for nor believed.
    pub(super) off: bool,
    tentative: Vec<Tentative>,
    solicit: Option<Solicit>,
    /// The first of them is used.
    routers: Vec<Router>,
    made: Vec<Made>,
    deadline: Option<Duration>,
}

/// When a lifetime from now is over.
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

    /// Notes when something is due next.
    fn rearm(&mut self) {
        let tentative = self.tentative.iter().map(|probed| probed.until);
        let solicit = self.solicit.iter().map(|solicit| solicit.at);
        // What waits for the clock is due at once.
        let asked = tentative.chain(solicit).map(Option::unwrap_or_default);
        let made = self.made.iter().map(|made| match made.deprecated {
            true => made.until,
            false => made.preferred.min(made.until),
        });
        let routers = self.routers.iter().map(|router| router.until);
        let first = asked.chain(made).chain(routers).min();
        self.deadline = first.filter(|at| *at < Duration::MAX);
    }

    /// The router to use.
    pub(super) fn router(&self) -> Option<Ipv6Addr> {
        self.routers.first().map(|router| router.addr)
    }

    /// The addresses from which nothing is to begin.
    pub(super) fn deprecated(&self) -> impl Iterator<Item = IpAddr> {
        let deprecated = self.made.iter().filter(|made| made.deprecated);
        deprecated.map(|made| made.addr.addr)
    }

    /// The addresses made here.
    pub(super) fn advertised(&self) -> impl Iterator<Item = IpAddr> {
        self.made.iter().map(|made| made.addr.addr)
    }

    /// The adapter is up: routers are asked for after `delay`, and what could not be had before may
    /// be had now. Returns the addresses that it would have.
    pub(super) fn start(&mut self, delay: Duration) -> Vec<IfAddr> {
        self.solicit = (!self.off).then_some(Solicit {
            delay,
            at: None,
            left: SOLICITATIONS,
        });
        for made in &mut self.made {
            made.refused = false;
        }
        self.rearm();
        self.made.iter().map(|made| made.addr).collect()
    }

    /// The adapter is down: nobody can be asked.
    pub(super) fn stop(&mut self) {
        self.solicit = None;
        self.tentative.clear();
        self.rearm();
    }

    /// Asks for an address, unless that goes on already.
    pub(super) fn probe(&mut self, addr: IfAddr) {
        let mut known = self.tentative.iter_mut();
        match known.find(|probed| probed.addr.addr == addr.addr) {
            // Its network may turn out to be on the link meanwhile.
            Some(probed) => probed.addr = addr,
            None => self.tentative.push(Tentative { addr, until: None }),
        }
        self.rearm();
    }

    /// The addresses that are asked for.
    pub(super) fn tentative(&self) -> impl Iterator<Item = IpAddr> {
        self.tentative.iter().map(|probed| probed.addr.addr)
    }

    /// Asks for an address no longer. False if it was not asked for.
    pub(super) fn give_up(&mut self, addr: &IpAddr) -> bool {
        let before = self.tentative.len();
        self.tentative.retain(|probed| probed.addr.addr != *addr);
        self.rearm();
        self.tentative.len() < before
    }

    /// An address that was made here is not to be taken, though its prefix is still advertised.
    pub(super) fn refuse(&mut self, addr: &IpAddr) {
        let made = self.made.iter_mut().find(|made| made.addr.addr == *addr);
        if let Some(made) = made {
            made.refused = true;
        }
    }

    /// An address is somebody else's affair from now on.
    pub(super) fn disown(&mut self, addr: &IpAddr) {
        self.made.retain(|made| made.addr.addr != *addr);
        self.rearm();
    }

    /// What was made of prefixes, and not forgotten since.
    pub(super) fn made(&self) -> Vec<Made> {
        self.made.clone()
    }

    /// Puts back what was made.
    pub(super) fn restore(&mut self, made: Vec<Made>) {
        self.made = made;
        self.rearm();
    }

    /// A router is there for so long, or with no `lifetime` is one no longer.
    pub(super) fn router_advertised(&mut self, addr: Ipv6Addr, lifetime: Duration, now: Duration) {
        if lifetime.is_zero() {
            // Who only knows of prefixes is not whom we look for (RFC 4861 section 6.3.7).
            self.retired(addr);
            return;
        }
        let until = end(now, lifetime);
        let room = self.routers.len() < MAX_ROUTERS;
        let mut known = self.routers.iter_mut();
        match known.find(|router| router.addr == addr) {
            Some(router) => router.until = until,
            None if room => self.routers.push(Router { addr, until }),
            None => {}
        }
        self.solicit = None;
        self.rearm();
    }

    /// A router is one no longer. False if it was none.
    pub(super) fn retired(&mut self, addr: Ipv6Addr) -> bool {
        let before = self.routers.len();
        self.routers.retain(|router| router.addr != addr);
        self.rearm();
        self.routers.len() < before
    }

    /// A station does not answer: if it is the router, another gets its turn (RFC 4861 section
    /// 6.3.6). Whether one did.
    pub(super) fn unreachable(&mut self, addr: &IpAddr) -> bool {
        let ours = self.router().map(IpAddr::V6) == Some(*addr) && self.routers.len() > 1;
        if ours {
            self.routers.rotate_left(1);
        }
        ours
    }

    /// A prefix was advertised. Returns the address to have because of it, if any; `is_set` tells
    /// whether somebody gave the interface an address.
    pub(super) fn prefix(
        &mut self,
        info: &NdiscPrefixInformation,
        mac: Mac,
        is_set: impl Fn(&IpAddr) -> bool,
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
        let made = match self.made.iter().position(|made| made.addr.addr == addr) {
            Some(at) => {
                let made = &mut self.made[at];
                let rest = made.until.saturating_sub(now);
                made.until = match valid > SAFE_LIFETIME || valid > rest {
                    true => until,
                    false => now.saturating_add(rest.min(SAFE_LIFETIME)),
                };
                made
            }
            None => {
                let room = self.made.len() < MAX_PREFIXES;
                if valid.is_zero() || !room || !is_host(&addr) || is_set(&addr) {
                    return None;
                }
                self.made.push(Made {
                    addr: IfAddr::host(addr),
                    preferred: preferred_until,
                    until,
                    deprecated: false,
                    refused: false,
                });
                self.made.last_mut()?
            }
        };
        made.preferred = preferred_until;
        made.deprecated = preferred.is_zero();
        // That one router does not say so does not mean that it is not (RFC 4861 section 6.3.4).
        if on_link {
            made.addr.prefix_len = PREFIX_LEN;
        }
        let found = (!made.refused).then_some(made.addr);
        self.rearm();
        found
    }

    /// The next thing that is due.
    pub(super) fn poll(&mut self, now: Duration) -> Option<Action> {
        let due = self.take_due(now);
        self.rearm();
        due
    }

    fn take_due(&mut self, now: Duration) -> Option<Action> {
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
                solicit.at = Some(now + SOLICIT_PAUSE);
                solicit.left -= 1;
                if solicit.left == 0 {
                    self.solicit = None;
                }
                return Some(Action::Solicit);
            }
        }
        let over = |router: &Router| router.until <= now;
        if let Some(at) = self.routers.iter().position(over) {
            self.routers.remove(at);
            return Some(Action::RouterGone);
        }
        if let Some(at) = self.made.iter().position(|made| made.until <= now) {
            return Some(Action::Expired(self.made.remove(at).addr.addr));
        }
        let old = |made: &&mut Made| !made.deprecated && made.preferred <= now;
        self.made.iter_mut().find(old)?.deprecated = true;
        Some(Action::Deprecated)
    }

    /// Forgets all that routers said. Returns the addresses made of it.
    pub(super) fn forget(&mut self) -> Vec<IpAddr> {
        self.solicit = None;
        self.routers.clear();
        let made = self.made.drain(..).map(|made| made.addr.addr).collect();
        self.rearm();
        made
    }
}

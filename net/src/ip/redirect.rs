//! Better first hops, which routers tell a host in redirects (RFC 1122 section 3.2.2.2, RFC 4861
//! section 8).
//!
//! Only the first hop that is in use is believed, and only as long as its route is. A router
//! believes none (RFC 1812 section 5.2.7.2).

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use super::{Ip, Verdict};
use crate::ifnet::{DropReason, IfFlags, IfIndex, is_host, is_link_local};
use crate::timers::{Timer, Timers};

/// Most destinations that are redirected. One more makes room by pushing out the oldest.
const MAX_REDIRECTS: usize = 1024;
/// How long a redirect is followed. If it is still right then, the router says it again.
const LIFETIME: Duration = Duration::from_secs(600);

/// What a router says of the way to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Redirect {
    /// The interface that this came by.
    pub(crate) rcvif: IfIndex,
    /// The router.
    pub(crate) from: IpAddr,
    /// The destination.
    pub(crate) dst: IpAddr,
    /// The better first hop: another router, or the destination itself, which is on the link.
    pub(crate) to: IpAddr,
}

/// The first hop of a destination.
#[derive(Debug)]
struct Detour {
    dev: IfIndex,
    /// The router of the route, for which this stands.
    router: IpAddr,
    to: IpAddr,
    timer: Timer,
}

/// The destinations that have another first hop than their route says.
#[derive(Debug)]
pub(crate) struct Redirects {
    detours: HashMap<IpAddr, Detour, ahash::RandomState>,
    timers: Timers<IpAddr>,
}

impl Redirects {
    pub(super) fn new(hasher: ahash::RandomState) -> Self {
        Self {
            detours: HashMap::with_hasher(hasher),
            timers: Timers::default(),
        }
    }

    /// The first hop to `dst`, whose route leads to this router of an interface.
    #[inline]
    pub(super) fn first_hop(&self, dst: &IpAddr, dev: IfIndex, router: IpAddr) -> IpAddr {
        match self.detours.is_empty() {
            true => router,
            false => self.detour(dst, dev, &router).unwrap_or(router),
        }
    }

    #[cold]
    fn detour(&self, dst: &IpAddr, dev: IfIndex, router: &IpAddr) -> Option<IpAddr> {
        let detour = self.detours.get(dst)?;
        (detour.dev == dev && detour.router == *router).then_some(detour.to)
    }

    /// The time at which the first of them ends.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.timers.deadline()
    }

    /// Notes another first hop for a destination, until its time is over.
    fn insert(&mut self, dst: IpAddr, dev: IfIndex, router: IpAddr, to: IpAddr, now: Duration) {
        if self.detours.len() >= MAX_REDIRECTS
            && !self.detours.contains_key(&dst)
            && let Some(oldest) = self.timers.first()
        {
            self.remove(&oldest);
        }
        let detour = self.detours.entry(dst).or_insert(Detour {
            dev,
            router,
            to,
            timer: Timer::default(),
        });
        (detour.dev, detour.router, detour.to) = (dev, router, to);
        self.timers.arm(&mut detour.timer, dst, now + LIFETIME);
    }

    fn remove(&mut self, dst: &IpAddr) {
        if let Some(mut detour) = self.detours.remove(dst) {
            self.timers.disarm(&mut detour.timer, *dst);
        }
    }

    /// Forgets those for which `wanted` holds. False if there are none.
    fn forget(&mut self, wanted: impl Fn(&IpAddr, &Detour) -> bool) -> bool {
        let gone = self.detours.iter();
        let gone = gone.filter(|(dst, detour)| wanted(dst, detour));
        let gone: Vec<_> = gone.map(|(dst, _)| *dst).collect();
        for dst in &gone {
            self.remove(dst);
        }
        !gone.is_empty()
    }

    /// Forgets those whose time is over. False if there are none.
    fn expire(&mut self, now: Duration) -> bool {
        let before = self.detours.len();
        while let Some(dst) = self.timers.pop(now) {
            self.detours.remove(&dst);
        }
        self.detours.len() < before
    }
}

impl Ip {
    /// Follows a redirect, or refuses it.
    pub(crate) fn redirect(&mut self, redirect: &Redirect) -> Verdict {
        let Some(router) = self.check_redirect(redirect) else {
            return Verdict::Dropped(DropReason::RedirectRefused);
        };
        let &Redirect { rcvif, dst, to, .. } = redirect;
        let before = self.redirects.first_hop(&dst, rcvif, router);
        let now = self.now.monotonic;
        self.redirects.insert(dst, rcvif, router, to, now);
        if before != to {
            // Connections keep their path. This makes them look it up again.
            self.routes.touch();
        }
        Verdict::Delivered
    }

    /// The router of the destination's route, if a redirect comes from the first hop in use, and
    /// what it names can be one (RFC 4861 section 8.1, RFC 1122 section 3.2.2.2).
    fn check_redirect(&self, redirect: &Redirect) -> Option<IpAddr> {
        let Redirect {
            rcvif,
            from,
            dst,
            to,
        } = redirect;
        // With one other end there is no other first hop.
        let one_peer = IfFlags::LOOPBACK | IfFlags::POINTOPOINT;
        let ifp = self.ifs.get(*rcvif)?;
        if self.forwarding || ifp.flags.intersects(one_peer) {
            return None;
        }
        let (_, route) = self.routes.lookup(dst, None, |dev| self.is_up(dev)).ok()?;
        let router = route.via.filter(|_| route.dev == Some(*rcvif))?;
        let current = self.redirects.first_hop(dst, *rcvif, router);
        let reaches = match to {
            IpAddr::V4(v4) => {
                let on_link = ifp.addrs.iter().any(|own| own.covers(to));
                on_link && !self.ifs.is_broadcast(v4)
            }
            IpAddr::V6(_) => to == dst || is_link_local(to),
        };
        let hosts = [dst, to]
            .iter()
            .all(|addr| is_host(addr) && !self.ifs.is_local(addr));
        (current == *from && reaches && hosts).then_some(router)
    }

    /// Forgets the redirects to a neighbour that does not answer.
    pub(crate) fn redirects_unreachable(&mut self, dev: IfIndex, to: &IpAddr) {
        self.forget_redirects(|_, detour| detour.dev == dev && detour.to == *to);
    }

    /// Forgets the redirects to a neighbour that is no router any more (RFC 4861 section 7.2.5), but
    /// for those to itself.
    pub(crate) fn redirects_retired(&mut self, dev: IfIndex, to: &IpAddr) {
        let over_it = |dst: &IpAddr, detour: &Detour| detour.to == *to && dst != to;
        self.forget_redirects(|dst, detour| detour.dev == dev && over_it(dst, detour));
    }

    /// Forgets the redirects over an interface.
    pub(crate) fn redirects_detach(&mut self, dev: IfIndex) {
        self.forget_redirects(|_, detour| detour.dev == dev);
    }

    /// Has packets for other hosts forwarded, or not. Returns whether they were before.
    pub(crate) fn set_forwarding(&mut self, on: bool) -> bool {
        if on {
            self.forget_redirects(|_, _| true);
        }
        std::mem::replace(&mut self.forwarding, on)
    }

    /// Ends the redirects whose time is over.
    pub(super) fn redirects_expire(&mut self) {
        if self.redirects.expire(self.now.monotonic) {
            self.routes.touch();
        }
    }

    fn forget_redirects(&mut self, wanted: impl Fn(&IpAddr, &Detour) -> bool) {
        if self.redirects.forget(wanted) {
            self.routes.touch();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEV: IfIndex = IfIndex(1);

    fn host(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn bounded_and_the_oldest_makes_room() {
        let mut redirects = Redirects::new(ahash::RandomState::with_seeds(1, 2, 3, 4));
        let (router, to) = (host(1), host(2));
        let at = |milli: u32| Duration::from_millis(milli.into());
        for number in 0..5000 {
            redirects.insert(host(number), DEV, router, to, at(number));
        }
        assert_eq!(redirects.detours.len(), MAX_REDIRECTS);
        assert_eq!(redirects.timers.len(), MAX_REDIRECTS);
        let first = 5000 - MAX_REDIRECTS as u32;
        let hop = |redirects: &Redirects, number| redirects.first_hop(&host(number), DEV, router);
        assert_eq!(hop(&redirects, first - 1), router);
        assert_eq!(hop(&redirects, first), to);
        // One that is there already takes no room, and lives longer.
        redirects.insert(host(first), DEV, router, to, at(6000));
        assert_eq!(redirects.detours.len(), MAX_REDIRECTS);
        assert_eq!(redirects.deadline(), Some(at(first + 1) + LIFETIME));
        assert!(redirects.expire(at(5000) + LIFETIME));
        assert_eq!(redirects.detours.len(), 1);
        assert!(redirects.forget(|_, _| true) && !redirects.forget(|_, _| true));
        assert_eq!(redirects.deadline(), None);
    }

    #[test]
    fn it_stands_for_one_router_of_one_interface() {
        let mut redirects = Redirects::new(ahash::RandomState::with_seeds(1, 2, 3, 4));
        let (router, to, dst) = (host(1), host(2), host(9));
        redirects.insert(dst, DEV, router, to, Duration::ZERO);
        assert_eq!(redirects.first_hop(&dst, DEV, router), to);
        assert_eq!(redirects.first_hop(&dst, DEV, host(3)), host(3));
        assert_eq!(redirects.first_hop(&dst, IfIndex(2), router), router);
        assert_eq!(redirects.first_hop(&host(8), DEV, router), router);
    }
}

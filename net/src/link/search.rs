//! Drivers that end, and when to look for them again.

use std::time::Duration;

use super::{Link, Mac};
use crate::ifnet::{Activity, AdapterId, Family, IfFlags};
use crate::ip::Ip;

/// Pause before a driver that ended is looked for the second time; the first time is at once. Each
/// is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest of them.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A driver that stays away so long is looked for only when somebody asks.
const GIVEN_UP: Duration = Duration::from_secs(5 * 60);
/// A driver that was found again and ended within this time is looked for less and less often, and
/// not for longer than if it had stayed away.
const HEALTHY: Duration = LONGEST_PAUSE;
/// Pause between two searches, however often somebody asks.
const ASKED_PAUSE: Duration = Duration::from_millis(100);

/// When adapters are looked for. Nobody tells that one is there: so it is when one is missing, and
/// when somebody looks at the interfaces. While all is well nothing is due.
#[derive(Debug, Default)]
pub(crate) struct Search {
    /// Whether there is anybody who searches.
    possible: bool,
    due: Option<Duration>,
    pause: Duration,
    /// When missing drivers are given up.
    until: Duration,
    /// Before this nobody's asking leads to a search.
    rest: Duration,
}

impl Search {
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.due
    }

    fn bring_forward(&mut self, at: Duration) {
        if self.possible {
            self.due = Some(self.due.map_or(at, |due| due.min(at)));
        }
    }
}

impl Link {
    /// The driver of an adapter ended. The interface stays, with all its settings, but is not
    /// RUNNING: what is sent by it is lost until the adapter is [there again](Self::ethernet_found).
    pub(crate) fn ethernet_lost(&mut self, ip: &mut Ip, id: AdapterId) {
        let now = ip.now;
        let Some(softc) = self.present(ip, id) else {
            return;
        };
        let healthy = softc
            .found
            .is_none_or(|found| now.monotonic >= found + HEALTHY);
        let dev = softc.dev;
        let frames = std::mem::take(&mut softc.frames);
        let lost = softc.neighbors.forget() + frames.len() as u64;
        if let Some(ifp) = ip.ifs.get_mut(dev) {
            ifp.present = false;
            ifp.flags.remove(IfFlags::RUNNING);
            ifp.stamp(now);
            ifp.purge(lost);
        }
        self.autoconf_stop(ip, id);
        ip.ifs.touch();
        ip.ifs.note(dev, Activity::ROOM);
        let search = &mut self.search;
        if healthy {
            search.pause = FIRST_PAUSE;
            search.until = now.monotonic + GIVEN_UP;
            search.bring_forward(now.monotonic);
        } else if now.monotonic < search.until {
            search.bring_forward(now.monotonic + search.pause);
        }
    }

    /// The adapter is there again, maybe with another address. Addresses, routes, groups and whether
    /// it is up are as they were.
    pub(crate) fn ethernet_found(&mut self, ip: &mut Ip, id: AdapterId, mac: Mac) {
        let now = ip.now;
        let Some(softc) = self.get_mut(id) else {
            return;
        };
        let dev = softc.dev;
        let Some(ifp) = ip.ifs.get_mut(dev).filter(|ifp| !ifp.present) else {
            return;
        };
        ifp.present = true;
        ifp.flags.insert(IfFlags::RUNNING);
        ifp.stamp(now);
        softc.found = Some(now.monotonic);
        let changed = std::mem::replace(&mut softc.hardware, mac) != mac;
        // One that somebody set holds for the same adapter.
        if changed {
            self.set_mac(ip, id, mac);
        }
        ip.ifs.touch();
        for family in [Family::Inet, Family::Inet6] {
            ip.groups_announce(dev, family);
        }
        if !changed {
            self.link_up(ip, id);
        }
    }

    /// Whether adapters are to be looked for now. Whoever has adapters asks after every turn, and
    /// [says](Self::adapters_searched) when it is done.
    pub(crate) fn wants_adapters(&self, ip: &Ip) -> bool {
        let due = self.search.due;
        due.is_some_and(|due| due <= ip.now.monotonic)
    }

    /// Adapters have been looked for; some may still be `missing`.
    pub(crate) fn adapters_searched(&mut self, ip: &Ip, missing: bool) {
        let now = ip.now.monotonic;
        let search = &mut self.search;
        search.possible = true;
        search.rest = now + ASKED_PAUSE;
        search.due = (missing && now < search.until).then_some(now + search.pause);
        search.pause = (search.pause * 2).min(LONGEST_PAUSE);
    }

    /// Somebody wants to know which interfaces there are.
    pub(crate) fn ask_for_adapters(&mut self, ip: &Ip) {
        let search = &mut self.search;
        search.bring_forward(ip.now.monotonic.max(search.rest));
    }
}

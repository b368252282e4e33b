//! Drivers that end, and when to look for them again.

use std::time::Duration;

use super::{Mac, PortId};
use crate::ifnet::{DropReason, Family, IfFlags, stamp};
use crate::net::Net;

/// Pause before a driver that ended is looked for the second time; the first time is at once. Each
/// is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest of them.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A driver that stays away so long is looked for only when somebody asks.
const PATIENCE: Duration = Duration::from_secs(5 * 60);
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

impl Net {
    /// The driver of an adapter ended. The interface stays, with all its settings, but is not
    /// RUNNING: what is sent by it is lost until the adapter is [there again](Self::ethernet_found).
    pub fn ethernet_lost(&mut self, id: PortId) {
        self.stir();
        let now = self.now;
        let Some(port) = self.links.get_mut(id).filter(|port| port.present) else {
            return;
        };
        port.present = false;
        let healthy = port
            .found
            .is_none_or(|found| now.monotonic >= found + HEALTHY);
        let dev = port.dev;
        let forgotten = port.neighbors.forget();
        if let Some(ifp) = self.ifs.get_mut(dev) {
            ifp.flags.remove(IfFlags::RUNNING);
            stamp(ifp, now);
            let purged = ifp.snd.purge();
            self.links.queued -= purged;
            let lost = purged as u64 + forgotten;
            ifp.stats.output.queued -= lost;
            ifp.stats.drop_output(DropReason::Purged, lost);
        }
        self.autoconf_stop(id);
        self.watchers.touch();
        self.tcp_unblock(dev);
        let search = &mut self.links.search;
        if healthy {
            search.pause = FIRST_PAUSE;
            search.until = now.monotonic + PATIENCE;
            search.bring_forward(now.monotonic);
        } else if now.monotonic < search.until {
            search.bring_forward(now.monotonic + search.pause);
        }
    }

    /// The adapter is there again, maybe with another address. Addresses, routes, groups and whether
    /// it is up are as they were.
    pub fn ethernet_found(&mut self, id: PortId, mac: Mac) {
        self.stir();
        let now = self.now;
        let Some(port) = self.links.get_mut(id).filter(|port| !port.present) else {
            return;
        };
        port.present = true;
        port.found = Some(now.monotonic);
        let dev = port.dev;
        let changed = std::mem::replace(&mut port.hardware, mac) != mac;
        if let Some(ifp) = self.ifs.get_mut(dev) {
            ifp.flags.insert(IfFlags::RUNNING);
            stamp(ifp, now);
        }
        // One that somebody set holds for the same adapter.
        if changed {
            self.set_mac(id, mac);
        }
        self.watchers.touch();
        for family in [Family::Inet, Family::Inet6] {
            self.groups_announce(dev, family);
        }
        if !changed {
            self.link_up(id);
        }
    }

    /// Whether adapters are to be looked for now. Whoever has adapters asks after every turn, and
    /// [says](Self::adapters_searched) when it is done.
    pub fn wants_adapters(&self) -> bool {
        let due = self.links.search.due;
        due.is_some_and(|due| due <= self.now.monotonic)
    }

    /// Adapters have been looked for; some may still be `missing`.
    pub fn adapters_searched(&mut self, missing: bool) {
        self.stir();
        let now = self.now.monotonic;
        let search = &mut self.links.search;
        search.possible = true;
        search.rest = now + ASKED_PAUSE;
        search.due = (missing && now < search.until).then_some(now + search.pause);
        search.pause = (search.pause * 2).min(LONGEST_PAUSE);
    }

    /// Somebody wants to know which interfaces there are.
    pub(crate) fn ask_for_adapters(&mut self) {
        self.stir();
        let search = &mut self.links.search;
        search.bring_forward(self.now.monotonic.max(search.rest));
    }
}

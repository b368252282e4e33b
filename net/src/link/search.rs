//! The times at which to look for drivers that ended.

use std::time::Duration;

use super::{Link, Mac, drop_packets};
use crate::capture::Framing;
use crate::ifnet::{Activity, AdapterId, DropReason, Family, IfFlags};
use crate::ip::Ip;

/// A driver that ended is looked for at once, and again after this pause. Each pause is twice the
/// one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A driver that stays away for this long is looked for only on request.
const GIVEN_UP: Duration = Duration::from_secs(5 * 60);
/// If a driver was found again and ended within this time, the pauses go on growing, and it is
/// given up as if it had stayed away.
const HEALTHY: Duration = LONGEST_PAUSE;
/// Pause between two searches, however many requests there are.
const ASKED_PAUSE: Duration = Duration::from_millis(100);

/// If a search is not over, there is another one after this time, if nobody asks before.
const OPENING_PAUSE: Duration = Duration::from_secs(3);

/// The outcome of a search for adapters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Every adapter that was ever seen is there.
    All,
    /// Some that were there before are not.
    Missing,
    /// Some are still being opened. The program [asks](crate::Host::ask_for_adapters) for another
    /// search when that is over.
    Opening,
    /// It is not known yet which there are. The program asks for another search when it is.
    Looking,
}

/// The schedule of searches for adapters. Nothing tells us of a new one, so we look when one is
/// missing, and when a program lists the interfaces. Otherwise nothing is due.
#[derive(Debug, Default)]
pub(crate) struct Search {
    /// Whether there is a program that can look for adapters.
    possible: bool,
    due: Option<Duration>,
    pause: Duration,
    /// The time at which missing drivers are given up.
    until: Duration,
    /// Before this time, a request does not lead to a search.
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
    /// Notes that the driver of an adapter ended. The interface stays, with all its settings, but
    /// is not RUNNING: packets sent through it are lost until the adapter is [found
    /// again](Self::ethernet_found).
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
        let waited = softc.forget_neighbors();
        if let Some(ifp) = ip.ifs.get_mut(dev) {
            ifp.present = false;
            ifp.flags.remove(IfFlags::RUNNING);
            ifp.set_lastchange(now);
            for frame in &frames {
                ifp.drop_queued(DropReason::Purged, Framing::Ethernet, frame);
            }
            drop_packets(ifp, DropReason::Purged, &waited);
            ifp.purge();
        }
        self.autoconf_stop(ip, id);
        ip.redirects_detach(dev);
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

    /// Notes that the adapter is there again, maybe with another hardware address. The interface
    /// keeps its addresses, routes, groups and UP flag.
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
        ifp.set_lastchange(now);
        softc.found = Some(now.monotonic);
        let changed = std::mem::replace(&mut softc.hardware, mac) != mac;
        // If it is the same adapter, an address that a program set stays.
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

    /// Whether to look for adapters now. A program that has adapters asks after every turn, and
    /// [says](Self::adapters_searched) when it has looked.
    pub(crate) fn wants_adapters(&self, ip: &Ip) -> bool {
        let due = self.search.due;
        due.is_some_and(|due| due <= ip.now.monotonic)
    }

    /// The program has looked for adapters.
    pub(crate) fn adapters_searched(&mut self, ip: &Ip, found: Found) {
        let now = ip.now.monotonic;
        let search = &mut self.search;
        search.possible = true;
        search.rest = match found {
            Found::Looking => now,
            _ => now + ASKED_PAUSE,
        };
        search.due = match found {
            Found::Opening | Found::Looking => Some(now + OPENING_PAUSE),
            Found::Missing if now < search.until => Some(now + search.pause),
            Found::Missing | Found::All => None,
        };
        if matches!(found, Found::All | Found::Missing) {
            search.pause = (search.pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Handles a listing of the interfaces: looks for adapters soon.
    pub(crate) fn ask_for_adapters(&mut self, ip: &Ip) {
        let search = &mut self.search;
        search.bring_forward(ip.now.monotonic.max(search.rest));
    }
}

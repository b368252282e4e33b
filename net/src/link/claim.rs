//! Addresses that somebody sets: whether another station has them.
//!
//! They are ours at once, because a program that sets one uses it next. Other stations are asked
//! meanwhile. An IPv6 address that one of them turns out to have is removed (RFC 4862 section
//! 5.4.5); an IPv4 address is kept and defended (RFC 5227 section 2.4 (c)), because nobody would
//! give this host another. Both are logged.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use smoltcp::wire::ArpOperation;

use super::{Link, Mac};
use crate::ifnet::{AdapterId, IfAddr, MAX_ADDRS};
use crate::ip::Ip;

/// How long other stations have to object (RFC 4862 section 5.1: `RetransTimer`).
const OBJECTIONS: Duration = Duration::from_secs(1);
/// Pause between defences, so that two stations do not flood the link with theirs (RFC 5227 section
/// 1.1, `DEFEND_INTERVAL`).
const DEFEND: Duration = Duration::from_secs(10);

/// The state of one adapter.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// Addresses that were set, and the times until which other stations can object. There are as
    /// many as an interface has addresses at most.
    fresh: Vec<(IpAddr, Duration)>,
    /// The time of the last defence, if there was one.
    defended: Option<Duration>,
}

impl Claims {
    fn add(&mut self, addr: IpAddr, now: Duration) {
        self.fresh
            .retain(|(other, until)| *until > now && *other != addr);
        if self.fresh.len() >= MAX_ADDRS {
            self.fresh.remove(0);
        }
        self.fresh.push((addr, now + OBJECTIONS));
    }

    /// Whether other stations can still object to an address.
    fn is_fresh(&self, addr: &IpAddr, now: Duration) -> bool {
        let mut fresh = self.fresh.iter();
        fresh.any(|(other, until)| other == addr && *until > now)
    }

    /// Whether to defend an address now. Notes that it is.
    fn defend(&mut self, now: Duration) -> bool {
        let due = self.defended.is_none_or(|last| now >= last + DEFEND);
        if due {
            self.defended = Some(now);
        }
        due
    }
}

impl Link {
    /// Handles an address that somebody set: asks whether another station has it, and announces it.
    pub(crate) fn claim(&mut self, ip: &mut Ip, id: AdapterId, addr: IpAddr) {
        let now = ip.now.monotonic;
        let softc = self.present(ip, id).filter(|softc| ip.is_up(softc.dev));
        let Some(softc) = softc else {
            return;
        };
        softc.claims.add(addr, now);
        let mac = softc.mac;
        match addr {
            IpAddr::V4(target) => {
                // From no address, so that no station believes it before the others can object.
                let question = (ArpOperation::Request, mac, Ipv4Addr::UNSPECIFIED);
                self.arp_send(ip, id, Mac::BROADCAST, question, (Mac([0; 6]), target));
            }
            IpAddr::V6(_) => self.autoconf_ask(ip, id, &IfAddr::host(addr)),
        }
        self.announce(ip, id, addr);
    }

    /// Handles another station that is about to take an address of ours. True if we are about to
    /// take it, too: neither does.
    pub(super) fn rival(&mut self, ip: &mut Ip, id: AdapterId, addr: IpAddr) -> bool {
        let now = ip.now.monotonic;
        let softc = self.get(id);
        let ours = softc.is_some_and(|softc| softc.claims.is_fresh(&addr, now));
        if ours {
            self.give_way(ip, id, addr);
        }
        ours
    }

    /// Handles another station, `mac`, that says that it has an address of ours.
    pub(super) fn conflict(&mut self, ip: &mut Ip, id: AdapterId, addr: IpAddr, mac: Mac) {
        if addr.is_ipv6() && self.rival(ip, id, addr) {
            return;
        }
        let now = ip.now.monotonic;
        let Some(softc) = self.get_mut(id) else {
            return;
        };
        if mac != softc.mac && softc.claims.defend(now) {
            let name = ip.ifs.get(softc.dev).map_or("?", |ifp| &ifp.name);
            log::error!("{name}: {mac} has our address {addr}, too");
            self.announce(ip, id, addr);
        }
    }

    /// Removes an address that another station has.
    fn give_way(&mut self, ip: &mut Ip, id: AdapterId, addr: IpAddr) {
        let Some(dev) = self.interface(id) else {
            return;
        };
        let name = ip.ifs.get(dev).map_or("?", |ifp| &ifp.name);
        log::error!("{name}: another station has {addr}, which is removed");
        self.autoconf_leave(ip, id, &addr);
        ip.ifs.touch();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_asked_about_no_longer() {
        let mut claims = Claims::default();
        let now = Duration::from_secs(9);
        let addr = |number: usize| IpAddr::from([10, 9, (number >> 8) as u8, number as u8]);
        for number in 0..MAX_ADDRS + 9 {
            claims.add(addr(number), now);
        }
        assert_eq!(claims.fresh.len(), MAX_ADDRS);
        assert!(!claims.is_fresh(&addr(8), now) && claims.is_fresh(&addr(9), now));
        // One that is set again is asked about anew, in one place.
        let later = now + OBJECTIONS / 2;
        claims.add(addr(9), later);
        assert_eq!(claims.fresh.len(), MAX_ADDRS);
        assert!(claims.is_fresh(&addr(9), now + OBJECTIONS));
        assert!(!claims.is_fresh(&addr(10), now + OBJECTIONS));
        claims.add(addr(0), now + 2 * OBJECTIONS);
        assert_eq!(claims.fresh.len(), 1);
    }
}

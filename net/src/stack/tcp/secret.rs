//! Numbers that nobody outside can guess.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use siphasher::sip::SipHasher13;

use super::connection::SeqNumber;
use crate::ip::header::Endpoints;
use crate::seed::{Purpose, Seed};

/// One keyed hash for each purpose, so that who learns one learns no other.
#[derive(Debug)]
pub(super) struct Secret {
    isn: SipHasher13,
    clock: SipHasher13,
    cookie: SipHasher13,
}

impl Secret {
    pub(super) fn new(seed: &Seed) -> Self {
        Self {
            isn: seed.keyed(Purpose::SequenceNumbers),
            clock: seed.keyed(Purpose::Clocks),
            cookie: seed.keyed(Purpose::Cookies),
        }
    }

    /// The initial sequence number of a connection: a clock of four microseconds, and a number of its
    /// own for each pair of ends (RFC 6528 section 3). Later connections of the same ends begin above
    /// earlier ones.
    pub(super) fn isn(&self, endpoints: &Endpoints, now: Duration) -> SeqNumber {
        let clock = (now.as_micros() / 4) as u32;
        SeqNumber(clock.wrapping_add(hash(self.isn, endpoints) as u32))
    }

    /// Where the clock begins that two hosts see in our timestamps (RFC 7323 section 5.4).
    pub(super) fn clock(&self, endpoints: &Endpoints) -> u32 {
        let hosts: (IpAddr, IpAddr) = (endpoints.local.0, endpoints.remote.0);
        hash(self.clock, &hosts) as u32
    }

    /// What a cookie proves: that these ends began with this number, and so on.
    pub(super) fn cookie(&self, endpoints: &Endpoints, proven: (u32, u32)) -> u32 {
        hash(self.cookie, &(endpoints, proven)) as u32
    }
}

fn hash(mut hasher: SipHasher13, value: &impl Hash) -> u64 {
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_connection_of_the_same_ends_begins_above_an_earlier_one() {
        let secret = Secret::new(&Seed::from(1));
        let endpoints = |port| Endpoints {
            local: (IpAddr::from([10, 0, 0, 1]), port),
            remote: (IpAddr::from([10, 0, 0, 2]), 80),
            link: None,
        };
        let at = |port, secs| secret.isn(&endpoints(port), Duration::from_secs(secs));
        assert_eq!(at(1, 61).since(at(1, 60)), 250_000);
        assert_ne!(at(2, 60), at(1, 60));
        assert_ne!(
            Secret::new(&Seed::from(3)).isn(&endpoints(1), Duration::ZERO),
            at(1, 0)
        );
    }
}

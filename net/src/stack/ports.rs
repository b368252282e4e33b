//! Ports: who has which, and the one of a socket whose program names none.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use scheme::errno::{self, Errno};

use super::unspecified;
use crate::seed::Chance;

/// Ports for sockets whose program does not name one (RFC 6335 section 6). Their number is a power of
/// two.
pub(super) const EPHEMERAL: RangeInclusive<u16> = 49_152..=65_535;
/// The number of these.
const EPHEMERAL_PORTS: usize = 16_384;
/// Of these, how many are reserved for the superuser, whichever they are.
const RESERVED_PORTS: usize = 1024;
/// Most ports that are tried for a user. As long as a user may have one, so many are not all taken but
/// by an accident that does not happen.
const MOST_TRIES: usize = 1024;

/// How many ephemeral ports all sockets of `uid` and of others may take before it gets no further one.
pub(super) const fn most_ports(uid: u32) -> usize {
    match uid {
        0 => EPHEMERAL_PORTS,
        _ => EPHEMERAL_PORTS - RESERVED_PORTS,
    }
}

/// Ephemeral ports to be tried for `uid`: each once, in an order that nobody can foretell and nobody
/// can make long by taking neighbouring ones (RFC 6056 section 3.3). For the superuser these are all.
pub(super) fn ephemeral_ports(chance: &mut Chance, uid: u32) -> impl Iterator<Item = u16> + use<> {
    let tries = match uid {
        0 => EPHEMERAL_PORTS,
        _ => MOST_TRIES,
    };
    let above = |number: u16| EPHEMERAL.start() + number % EPHEMERAL_PORTS as u16;
    each_once(chance).map(above).take(tries)
}

/// Every number once, in an order that nobody can foretell. The lower bits of the first 2^n numbers
/// are each number of n bits once.
pub(super) fn each_once(chance: &mut Chance) -> impl Iterator<Item = u16> + use<> {
    let random = chance.next();
    // A step that is odd comes by every number.
    let (start, step) = (random as u16, (random >> 16) as u16 | 1);
    (0..=u16::MAX).map(move |count| start.wrapping_add(step.wrapping_mul(count)))
}

/// Has `bind` take a port for `uid`: this one, or for 0 any ephemeral port that is free. Returns the
/// result of `bind`, and the port.
///
/// # Errors
///
/// The error of `bind`; `EADDRINUSE` if no port is free.
pub(crate) fn bind_port<T>(
    chance: &mut Chance,
    uid: u32,
    port: u16,
    mut bind: impl FnMut(u16) -> Result<T, Errno>,
) -> Result<(T, u16), Errno> {
    if port != 0 {
        return Ok((bind(port)?, port));
    }
    for port in ephemeral_ports(chance, uid) {
        match bind(port) {
            Err(errno::EADDRINUSE) => {}
            bound => return Ok((bound?, port)),
        }
    }
    Err(errno::EADDRINUSE)
}

/// Counts one less of a thing. True if it was the last, of which no count is kept.
pub(super) fn count_down<K: Eq + Hash>(
    counts: &mut HashMap<K, usize, ahash::RandomState>,
    of: K,
) -> bool {
    let Entry::Occupied(mut count) = counts.entry(of) else {
        return false;
    };
    *count.get_mut() -= 1;
    let last = *count.get() == 0;
    if last {
        count.remove();
    }
    last
}

/// The ports of one transport. Those of a family are apart from the other's.
#[derive(Debug)]
pub(super) struct Ports {
    /// How many sockets each port has, by the name for all addresses of its family. A port without any
    /// is not kept.
    holders: HashMap<(IpAddr, u16), usize, ahash::RandomState>,
    /// How many ephemeral ports of IPv4 and of IPv6 have holders.
    ephemeral: [usize; 2],
}

impl Ports {
    pub(super) fn new(hasher: ahash::RandomState) -> Self {
        Self {
            holders: HashMap::with_hasher(hasher),
            ephemeral: [0; 2],
        }
    }

    /// Whether a socket has the port, on any address of the family of this one.
    pub(super) fn is_held(&self, addr: &IpAddr, port: u16) -> bool {
        self.holders.contains_key(&(unspecified(addr), port))
    }

    /// Whether a socket of `uid` may have the port as far as the superuser's reserve goes.
    pub(super) fn may_take(&self, addr: &IpAddr, port: u16, uid: u32) -> bool {
        let [v4, v6] = self.ephemeral;
        let taken = if addr.is_ipv4() { v4 } else { v6 };
        taken < most_ports(uid) || !EPHEMERAL.contains(&port) || self.is_held(addr, port)
    }

    /// A socket was bound to a port of this address.
    pub(super) fn add(&mut self, addr: &IpAddr, port: u16) {
        let holders = self.holders.entry((unspecified(addr), port)).or_default();
        if *holders == 0 && EPHEMERAL.contains(&port) {
            self.ephemeral[usize::from(addr.is_ipv6())] += 1;
        }
        *holders += 1;
    }

    /// Such a socket is gone.
    pub(super) fn remove(&mut self, addr: &IpAddr, port: u16) {
        let last = count_down(&mut self.holders, (unspecified(addr), port));
        if last && EPHEMERAL.contains(&port) {
            self.ephemeral[usize::from(addr.is_ipv6())] -= 1;
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.holders.is_empty() && self.ephemeral == [0; 2]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::seed::{Purpose, Seed};

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
    const USER: u32 = 1000;

    fn chance() -> Chance {
        Seed::from(1).chance(Purpose::Ports)
    }

    #[test]
    fn each_port_is_tried_once_in_another_order_each_time() {
        let mut chance = chance();
        let mut order = |uid| ephemeral_ports(&mut chance, uid).collect::<Vec<_>>();
        let (one, other) = (order(0), order(0));
        assert_ne!(one, other);
        for mut ports in [one, other] {
            ports.sort_unstable();
            assert!(ports.into_iter().eq(EPHEMERAL));
        }
        let few: BTreeSet<_> = order(USER).into_iter().collect();
        assert_eq!(few.len(), MOST_TRIES);
        let all: BTreeSet<_> = each_once(&mut chance).collect();
        assert_eq!(all.len(), 65_536);
    }

    #[test]
    fn the_last_ports_of_a_family_are_the_superusers() {
        let mut ports = Ports::new(ahash::RandomState::with_seeds(1, 2, 3, 4));
        let user = EPHEMERAL.take_while(|&port| {
            let may = ports.may_take(&V4, port, USER);
            if may {
                ports.add(&V4, port);
            }
            may
        });
        assert_eq!(user.count(), EPHEMERAL_PORTS - RESERVED_PORTS);
        let last = *EPHEMERAL.end();
        assert!(!ports.may_take(&V4, last, USER) && ports.may_take(&V4, last, 0));
        // The other family, other ports, and one that is taken anyway are not the superuser's.
        assert!(ports.may_take(&V6, last, USER) && ports.may_take(&V4, 8080, USER));
        let first = *EPHEMERAL.start();
        assert!(ports.may_take(&V4, first, USER));
        ports.add(&V4, first);
        ports.remove(&V4, first);
        assert!(
            !ports.may_take(&V4, last, USER),
            "somebody else has it, too"
        );
        ports.remove(&V4, first);
        assert!(ports.may_take(&V4, last, USER));
    }

    #[test]
    fn a_user_hears_of_an_error_after_few_tries() {
        let mut tries = 0;
        let mut bind = |error| {
            tries = 0;
            let bound = bind_port(&mut chance(), USER, 0, |_| {
                tries += 1;
                Err::<(), _>(error)
            });
            (bound, tries)
        };
        assert_eq!(
            bind(errno::EADDRINUSE),
            (Err(errno::EADDRINUSE), MOST_TRIES)
        );
        // One that no other port mends is told at once.
        assert_eq!(bind(errno::ENFILE), (Err(errno::ENFILE), 1));
    }
}

//! Identifications of packets that may have to be fragmented.
//!
//! One counter for all packets would tell each destination how many packets went to others, which is
//! enough to scan somebody's ports in our name. So there is a table of counters, as RFC 7739 section
//! 5.3 and Linux have it: a keyed hash of the addresses says which counter a packet uses, and at what
//! number that begins for these addresses. Two destinations share a counter once in [`COUNTERS`], and
//! which ones do cannot be found out without the key.

use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

/// The number of counters.
const COUNTERS: usize = 8192;

/// The counters of one machine.
#[derive(Debug)]
pub(super) struct Identifications {
    keyed: SipHasher13,
    counters: Box<[u32]>,
}

impl Identifications {
    pub(super) fn new(keyed: SipHasher13) -> Self {
        Self {
            keyed,
            counters: vec![0; COUNTERS].into(),
        }
    }

    /// The identification of the next packet.
    #[inline]
    pub(super) fn next(&mut self, src: &IpAddr, dst: &IpAddr) -> u32 {
        let mut hasher = self.keyed;
        for addr in [src, dst] {
            match addr {
                IpAddr::V4(addr) => hasher.write_u32(addr.to_bits()),
                IpAddr::V6(addr) => hasher.write_u128(addr.to_bits()),
            }
        }
        let hash = hasher.finish();
        let (start, at) = (hash as u32, (hash >> 32) as usize % COUNTERS);
        match self.counters.get_mut(at) {
            Some(counter) => {
                *counter = counter.wrapping_add(1);
                counter.wrapping_add(start)
            }
            None => start,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::seed::{Purpose, Seed};

    const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

    fn identifications(seed: u64) -> Identifications {
        Identifications::new(Seed::from(seed).keyed(Purpose::Identifications))
    }

    fn host(number: u32) -> IpAddr {
        Ipv4Addr::from(0xc000_0200 + number).into()
    }

    #[test]
    fn a_destination_does_not_see_how_many_packets_went_to_others() {
        let mut idents = identifications(1);
        let (watcher, victims) = (host(0), 1..=100);
        let mut steps = Vec::new();
        let mut last = idents.next(&HOST, &watcher);
        for victim in victims.map(host) {
            for _ in 0..1000 {
                idents.next(&HOST, &victim);
            }
            let next = idents.next(&HOST, &watcher);
            steps.push(next.wrapping_sub(last));
            last = next;
        }
        assert_eq!(steps, [1; 100]);
    }

    #[test]
    fn pairs_that_share_a_counter_are_few_and_do_not_use_a_number_twice() {
        let mut idents = identifications(1);
        let moved = |idents: &mut Identifications, number| {
            let before = idents.next(&HOST, &host(0));
            idents.next(&HOST, &host(number));
            idents.next(&HOST, &host(0)).wrapping_sub(before) > 1
        };
        let sharing = (1..=40_000).filter(|&number| moved(&mut idents, number));
        let sharing = sharing.count();
        assert!((1..=15).contains(&sharing), "{sharing}");
    }

    #[test]
    fn where_a_destination_begins_follows_from_the_key_and_both_addresses() {
        let first = |seed, src: IpAddr, dst: IpAddr| identifications(seed).next(&src, &dst);
        let one = first(1, HOST, host(1));
        assert_eq!(one, first(1, HOST, host(1)));
        let v6 = "2001:db8::1".parse().unwrap();
        for other in [
            first(1, HOST, host(2)),
            first(1, host(1), HOST),
            first(2, HOST, host(1)),
            first(1, HOST, v6),
        ] {
            assert_ne!(one, other);
        }
    }
}

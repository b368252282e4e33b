//! Chance: 256 bits of it, and the keys that follow from them.

use std::fmt;
use std::hash::Hasher;

use siphasher::sip::SipHasher13;
use siphasher::sip128::{Hasher128, SipHasher24};

/// The seed of all randomness, best from the system's own source. A machine that is to be repeated bit
/// for bit gets a [number](Self::from) instead.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Seed([u8; 32]);

impl From<[u8; 32]> for Seed {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// A seed that can be guessed: for tests and simulations.
impl From<u64> for Seed {
    fn from(number: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        Self(bytes)
    }
}

/// Does not tell it.
impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed")
    }
}

/// What a key is for. Who learns one key learns nothing about the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Delays, which everybody on the link sees.
    Delays,
    /// Ephemeral ports, which other users of this host see.
    Ports,
    /// Identifiers of pings, which everybody on the way sees.
    Pings,
    /// Identifications of packets.
    Identifications,
    /// Hash tables of the network layer.
    IpTables,
    /// Hash tables of TCP.
    TcpTables,
    /// Hash tables of UDP.
    UdpTables,
    /// Initial sequence numbers of TCP.
    SequenceNumbers,
    /// Clocks in TCP's timestamps.
    Clocks,
    /// Cookies of TCP.
    Cookies,
    /// Flows of fair queueing.
    Flows,
}

impl Seed {
    /// 128 bits for a purpose; `part` counts them.
    fn draw(&self, purpose: Purpose, part: u8) -> [u64; 2] {
        // Whoever does not know both halves does not know the result. The number of the half keeps
        // two that are alike from cancelling out.
        let halves = self.0.as_chunks().0.iter().zip(0..);
        let bits = halves.fold(0, |bits, (half, number)| {
            let mut hasher = SipHasher24::new_with_key(half);
            hasher.write(&[purpose as u8, part, number]);
            bits ^ hasher.finish128().as_u128()
        });
        [bits as u64, (bits >> 64) as u64]
    }

    /// A keyed hash whose results do not tell its key.
    pub(crate) fn keyed(&self, purpose: Purpose) -> SipHasher13 {
        let [one, other] = self.draw(purpose, 0);
        SipHasher13::new_with_keys(one, other)
    }

    /// The hash of tables whose keys strangers choose.
    pub(crate) fn tables(&self, purpose: Purpose) -> ahash::RandomState {
        let [[a, b], [c, d]] = [0, 1].map(|part| self.draw(purpose, part));
        ahash::RandomState::with_seeds(a, b, c, d)
    }

    /// Numbers that nobody can foretell.
    pub(crate) fn chance(&self, purpose: Purpose) -> Chance {
        Chance {
            keyed: self.keyed(purpose),
            drawn: 0,
        }
    }
}

/// Numbers that nobody can foretell, however many of them are known: a keyed hash of how many were
/// drawn.
#[derive(Clone, Debug)]
pub(crate) struct Chance {
    keyed: SipHasher13,
    drawn: u64,
}

impl Chance {
    /// The next number; each is as likely as any other.
    pub(crate) fn next(&mut self) -> u64 {
        self.drawn = self.drawn.wrapping_add(1);
        let mut hasher = self.keyed;
        hasher.write_u64(self.drawn);
        hasher.finish()
    }

    /// A number from 0, inclusive, to 1, exclusive.
    pub(crate) fn fraction(&mut self) -> f64 {
        // As many bits as the number has.
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_counts_and_every_purpose_has_a_key_of_its_own() {
        let bytes: [u8; 32] = std::array::from_fn(|at| at as u8);
        let draw = |bytes: [u8; 32], purpose| Seed::from(bytes).draw(purpose, 0);
        let first = draw(bytes, Purpose::Ports);
        assert_eq!(first, draw(bytes, Purpose::Ports), "the same again");
        for bit in 0..256 {
            let mut other = bytes;
            other[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(draw(other, Purpose::Ports), first, "{bit}");
        }
        assert_ne!(draw(bytes, Purpose::Cookies), first);
        assert_ne!(Seed::from(bytes).draw(Purpose::Ports, 1), first);
        // Halves that are alike do not cancel out.
        assert_ne!(Seed::from([7; 32]).draw(Purpose::Ports, 0), [0; 2]);
    }

    #[test]
    fn numbers_are_drawn_from_a_key_of_their_purpose() {
        let draw = |number: u64, purpose| {
            let mut chance = Seed::from(number).chance(purpose);
            std::array::from_fn::<_, 4, _>(|_| chance.next())
        };
        let drawn = draw(1, Purpose::Ports);
        assert_eq!(drawn, draw(1, Purpose::Ports), "the same again");
        // Pings go over the wire, and nothing of the ports follows from them.
        for other in [draw(1, Purpose::Pings), draw(2, Purpose::Ports)] {
            assert!(drawn.iter().all(|number| !other.contains(number)));
        }
        let mut chance = Seed::from(1).chance(Purpose::Delays);
        let fractions: Vec<_> = (0..10_000).map(|_| chance.fraction()).collect();
        assert!(
            fractions
                .iter()
                .all(|fraction| (0.0..1.0).contains(fraction))
        );
        let mean = fractions.iter().sum::<f64>() / 10_000.0;
        assert!((0.49..0.51).contains(&mean), "{mean}");
    }

    #[test]
    fn a_seed_is_not_printed() {
        assert_eq!(format!("{:?}", Seed::from(0xdead_beef)), "Seed");
    }
}

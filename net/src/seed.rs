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
    /// Ephemeral ports, and the identifiers of pings.
    Ports,
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

    /// A generator of numbers.
    pub(crate) fn rng(&self, purpose: Purpose) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.draw(purpose, 0)[0])
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
    fn a_seed_is_not_printed() {
        assert_eq!(format!("{:?}", Seed::from(0xdead_beef)), "Seed");
    }
}

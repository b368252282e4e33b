//! Path MTUs, as reported by routers on the path (RFC 1191, RFC 8201).

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// Most destinations remembered. It bounds the memory that an attacker can fill.
const MAX_PATHS: usize = 1024;
/// How long a reported path mtu is used (RFC 8201 section 4).
const LIFETIME: Duration = Duration::from_secs(600);
/// The least mtu used for an IPv4 path, bytes. Smaller reports are attacks, and raised to it.
const MIN_V4: u16 = 552;
/// The least mtu of an IPv6 path, bytes: every link carries so much.
const MIN_V6: u16 = 1280;

/// Path MTUs by destination.
#[derive(Debug)]
pub(crate) struct PathMtus {
    paths: HashMap<IpAddr, (u16, Duration), ahash::RandomState>,
}

impl PathMtus {
    pub(crate) fn new(hasher: ahash::RandomState) -> Self {
        Self {
            paths: HashMap::with_hasher(hasher),
        }
    }

    /// Notes a router's report that packets to `dst` may have at most `mtu` bytes. Returns the mtu
    /// that is used.
    pub(crate) fn learn(&mut self, dst: IpAddr, mtu: u16, now: Duration) -> u16 {
        let floor = if dst.is_ipv4() { MIN_V4 } else { MIN_V6 };
        let mtu = mtu.max(floor).min(self.get(&dst, now).unwrap_or(u16::MAX));
        if self.paths.len() >= MAX_PATHS && !self.paths.contains_key(&dst) {
            // The oldest is missed least: a router will say again that a packet is too big.
            let oldest = self.paths.iter().min_by_key(|(_, (_, until))| *until);
            if let Some(oldest) = oldest.map(|(&dst, _)| dst) {
                self.paths.remove(&oldest);
            }
        }
        self.paths.insert(dst, (mtu, now + LIFETIME));
        mtu
    }

    /// The mtu of the path to `dst` at `now`, bytes; `None` for that of the interface.
    #[inline]
    pub(crate) fn get(&self, dst: &IpAddr, now: Duration) -> Option<u16> {
        let &(mtu, until) = self.paths.get(dst)?;
        (until > now).then_some(mtu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn believed_for_ten_minutes_and_never_below_the_floor() {
        let mut paths = PathMtus::new(ahash::RandomState::with_seeds(1, 2, 3, 4));
        let (v4, v6) = ("10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap());
        let now = Duration::from_secs(1);
        assert_eq!(paths.learn(v4, 68, now), 552);
        assert_eq!(paths.learn(v4, 1400, now), 552);
        assert_eq!(paths.learn(v6, 0, now), 1280);
        assert_eq!(paths.get(&v4, now + LIFETIME), None);
        assert_eq!(paths.get(&v6, now), Some(1280));
    }

    #[test]
    fn bounded_and_the_oldest_goes() {
        let mut paths = PathMtus::new(ahash::RandomState::with_seeds(1, 2, 3, 4));
        let host = |host: u32| IpAddr::V4(host.into());
        let at = |milli: u32| Duration::from_millis(milli.into());
        for milli in 0..5000 {
            paths.learn(host(milli), 1400, at(milli));
        }
        assert_eq!(paths.paths.len(), MAX_PATHS);
        // The newest are the ones that stay.
        assert_eq!(paths.get(&host(4999), at(5000)), Some(1400));
        assert_eq!(
            paths.get(&host(5000 - MAX_PATHS as u32), at(5000)),
            Some(1400)
        );
        assert_eq!(paths.get(&host(0), at(5000)), None);
    }
}

//! Path MTU: what is believed, and black holes (RFC 1191, RFC 8201, RFC 4821).

use core::time::Duration;

/// Least IPv4 packet that segments are cut down to; told less, larger ones go without DF, since
/// fragments are better than a flood of tiny packets (RFC 1191 section 3, as Linux).
const LEAST_V4: u16 = 552;
/// Least link of IPv6 (RFC 8200 section 5).
const LEAST_V6: u16 = 1280;
/// Timeouts in a row of full segments that make a black hole likely.
const TIMEOUTS: u8 = 3;
/// How long a size that was found by timeouts is kept before larger ones are tried again: at first,
/// since it may have been an outage and no black hole, and at most (RFC 1191 section 6.3). Each time
/// twice as long.
const KEEP: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(600));
/// Sizes to try when larger ones vanish (RFC 4821 section 7.2).
const STEPS: [u16; 4] = [1400, 1280, 1024, LEAST_V4];
/// Bytes of both headers without options.
const HEADERS_V4: u16 = 40;
const HEADERS_V6: u16 = 60;

/// How large packets may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pmtu {
    v6: bool,
    /// As the owner says: the interface's, or what a router said.
    told: u16,
    /// Found by timeouts, and when.
    found: Option<(u16, Duration)>,
    /// How many times larger ones were tried again.
    tries: u8,
}

impl Pmtu {
    pub(super) fn new(v6: bool, mtu: u16) -> Self {
        Self {
            v6,
            told: mtu,
            found: None,
            tries: 0,
        }
    }

    fn least(&self) -> u16 {
        if self.v6 { LEAST_V6 } else { LEAST_V4 }
    }

    /// Bytes of a packet, IP header included.
    pub(super) fn mtu(&self) -> u16 {
        let found = self.found.map_or(u16::MAX, |(found, _)| found);
        self.told.min(found).max(self.least())
    }

    /// Bytes of text that fit a packet beside headers without options.
    pub(super) fn mss(&self) -> u16 {
        self.mtu() - if self.v6 { HEADERS_V6 } else { HEADERS_V4 }
    }

    /// Whether routers may cut the packets up.
    pub(super) fn dont_fragment(&self) -> bool {
        self.v6 || self.told >= LEAST_V4 && self.mtu() > LEAST_V4 || self.told == LEAST_V4
    }

    /// The owner says how large packets may be.
    pub(super) fn tell(&mut self, mtu: u16) {
        self.told = mtu;
    }

    /// Full segments timed out so many times in a row; true if smaller ones are to be tried.
    pub(super) fn timed_out(&mut self, timeouts: u8, now: Duration) -> bool {
        if timeouts < TIMEOUTS {
            return false;
        }
        let mtu = self.mtu();
        let next = STEPS
            .into_iter()
            .find(|&step| step < mtu && step >= self.least());
        if let Some(next) = next {
            self.found = Some((next, now));
        }
        next.is_some()
    }

    /// Whether it is time to try larger ones again; then they are.
    pub(super) fn renew(&mut self, now: Duration) -> bool {
        let keep = (KEEP.0 * (1 << self.tries.min(8))).min(KEEP.1);
        let over = self
            .found
            .take_if(|(_, at)| now.saturating_sub(*at) >= keep)
            .is_some();
        self.tries = self.tries.saturating_add(u8::from(over));
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_than_552_goes_without_df() {
        let mut path = Pmtu::new(false, 1500);
        assert_eq!((path.mss(), path.dont_fragment()), (1460, true));
        path.tell(552);
        assert_eq!((path.mss(), path.dont_fragment()), (512, true));
        path.tell(296);
        assert_eq!((path.mss(), path.dont_fragment()), (512, false));
        let mut path = Pmtu::new(true, 1500);
        path.tell(300);
        assert_eq!((path.mss(), path.dont_fragment()), (1220, true));
    }

    #[test]
    fn a_black_hole_is_found_and_forgotten() {
        let mut path = Pmtu::new(false, 1500);
        let now = Duration::from_secs(1);
        assert!(!path.timed_out(2, now));
        let mut sizes = Vec::new();
        while path.timed_out(3, now) {
            sizes.push(path.mtu());
        }
        assert_eq!(sizes, STEPS);
        assert!(!path.renew(now + KEEP.0 / 2));
        assert!(path.renew(now + KEEP.0));
        assert_eq!(path.mtu(), 1500);
        assert!(path.timed_out(3, now));
        assert!(!path.renew(now + KEEP.0));
        assert!(path.renew(now + KEEP.0 * 2));
    }
}

//! Protocol families, by the numbers that each system gives them.

/// A protocol family of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    Inet,
    /// IPv6.
    Inet6,
    /// Novell's IPX.
    Ipx,
    /// AppleTalk.
    AppleTalk,
    /// Any other, by the number that the writer gave it. Only captures see it.
    Other(u32),
}

impl Family {
    /// The family that a writer means by a number; `None` if it is unknown. IPv6 has another number
    /// on every system: 10 on Linux and Redox, 24 on OpenBSD and NetBSD, 28 on FreeBSD and
    /// DragonFly, 30 on Darwin. IPX is 23 and AppleTalk 16 on BSD, 4 and 5 on Linux.
    pub const fn from_af(af: u32) -> Option<Self> {
        match af {
            2 => Some(Self::Inet),
            10 | 24 | 28 | 30 => Some(Self::Inet6),
            4 | 23 => Some(Self::Ipx),
            5 | 16 => Some(Self::AppleTalk),
            _ => None,
        }
    }

    /// The number that a reader gets: that of Redox.
    pub const fn af(self) -> u32 {
        match self {
            Self::Inet => 2,
            Self::Inet6 => 10,
            Self::Ipx => 4,
            Self::AppleTalk => 5,
            Self::Other(number) => number,
        }
    }

    /// The number in a `DLT_NULL` capture, where readers of captures know 24, 28 and 30 as IPv6.
    pub const fn dlt_null(self) -> u32 {
        match self {
            Self::Inet => 2,
            Self::Inet6 => 28,
            Self::Ipx => 23,
            Self::AppleTalk => 16,
            Self::Other(number) => number,
        }
    }

    /// The family of the address.
    pub const fn of(addr: &std::net::IpAddr) -> Self {
        match addr {
            std::net::IpAddr::V4(_) => Self::Inet,
            std::net::IpAddr::V6(_) => Self::Inet6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_the_contract() {
        let takes = |family, numbers: &[u32]| {
            for &number in numbers {
                assert_eq!(Family::from_af(number), Some(family), "{number}");
            }
        };
        takes(Family::Inet, &[2]);
        takes(Family::Inet6, &[10, 24, 28, 30]);
        takes(Family::Ipx, &[4, 23]);
        takes(Family::AppleTalk, &[5, 16]);
        for unknown in [0, 1, 3, 6, 9, 29, 255, 2 << 24, u32::MAX] {
            assert_eq!(Family::from_af(unknown), None, "{unknown}");
        }
        assert_eq!(Family::Inet.af(), 2);
        assert_eq!(Family::Inet6.af(), 10);
    }
}

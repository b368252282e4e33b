//! Hardware addresses.

use std::net::{IpAddr, Ipv6Addr};

use crate::ifnet::{IfAddr, Ifnet};

/// A hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// All stations.
    pub(super) const BROADCAST: Self = Self([0xff; 6]);

    /// The hardware address that belongs to a broadcast or multicast address. `None` for a unicast
    /// address, which has to be resolved.
    pub(super) fn mapped_from(addr: &IpAddr, ifp: &Ifnet) -> Option<Self> {
        match addr {
            IpAddr::V4(v4) => {
                let [_, b, c, d] = v4.octets();
                if v4.is_broadcast() || ifp.broadcasts(v4) {
                    Some(Self::BROADCAST)
                } else if v4.is_multicast() {
                    // RFC 1112 section 6.4.
                    Some(Self([0x01, 0x00, 0x5e, b & 0x7f, c, d]))
                } else {
                    None
                }
            }
            IpAddr::V6(v6) => {
                let [.., a, b, c, d] = v6.octets();
                // RFC 2464 section 7.
                v6.is_multicast().then_some(Self([0x33, 0x33, a, b, c, d]))
            }
        }
    }

    /// Parses `02-00-00-00-00-01`, with dashes or colons. `None` for anything but a unicast
    /// address.
    pub fn parse(text: &str) -> Option<Self> {
        let mut octets = [0; 6];
        let mut parts = text.split(['-', ':']);
        for octet in &mut octets {
            let part = parts.next()?;
            let hex = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !hex {
                return None;
            }
            *octet = u8::from_str_radix(part, 16).ok()?;
        }
        let mac = Self(octets);
        (parts.next().is_none() && mac.is_station()).then_some(mac)
    }

    pub(super) fn is_station(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }

    /// The interface identifier of the addresses that a station with this address makes itself (RFC
    /// 4291, appendix A).
    pub(super) fn interface_id(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f])
    }

    /// The link-local address that a station with this address gives itself.
    pub fn link_local(self) -> Ipv6Addr {
        Ipv6Addr::from(0xfe80 << 112 | u128::from(self.interface_id()))
    }

    pub(super) fn link_local_addr(self) -> IfAddr {
        IfAddr {
            addr: self.link_local().into(),
            prefix_len: 64,
            peer: None,
        }
    }
}

impl std::fmt::Display for Mac {
    /// With dashes, as netstack writes it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}-{b:02x}-{c:02x}-{d:02x}-{e:02x}-{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_as_text() {
        let mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        assert_eq!(mac.to_string(), "52-54-00-12-34-56");
        assert_eq!(Mac::parse("52-54-00-12-34-56"), Some(mac));
        assert_eq!(Mac::parse("52:54:00:12:34:56"), Some(mac));
        let bad = [
            "",
            "52-54-00-12-34",
            "52-54-00-12-34-56-78",
            "01-00-5e-00-00-01",
            "00-00-00-00-00-00",
            "+2-54-00-12-34-56",
            "5-54-00-12-34-56",
        ];
        for bad in bad {
            assert_eq!(Mac::parse(bad), None, "{bad:?}");
        }
        assert_eq!(mac.link_local().to_string(), "fe80::5054:ff:fe12:3456");
    }
}

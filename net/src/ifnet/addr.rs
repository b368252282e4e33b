//! Addresses of interfaces, and what kind of address an address is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IfAddr {
    /// Address of this host.
    pub addr: IpAddr,
    /// Length of the network's prefix, bits. With a peer it is the whole address.
    pub prefix_len: u8,
    /// The one host at the other end, instead of a network.
    pub peer: Option<IpAddr>,
}

impl IfAddr {
    /// Parses `10.0.0.1/24`, `10.0.0.1` or `10.0.0.1 peer 10.0.0.2`. `None` for anything else, and
    /// for an address that no interface can have.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let first = words.next()?;
        let bits = |addr: &IpAddr| if addr.is_ipv4() { 32 } else { 128 };
        let (addr, prefix_len) = match first.split_once('/') {
            Some((addr, len)) => {
                let addr: IpAddr = addr.parse().ok()?;
                (addr, parse_decimal(len).filter(|&len| len <= bits(&addr))?)
            }
            None => {
                let addr: IpAddr = first.parse().ok()?;
                (addr, bits(&addr))
            }
        };
        let peer = match words.next() {
            None => None,
            Some("peer") if prefix_len == bits(&addr) => {
                let peer: IpAddr = words.next()?.parse().ok()?;
                Some(peer).filter(|peer| peer.is_ipv4() == addr.is_ipv4() && is_host(peer))
            }
            Some(_) => return None,
        };
        let wants_peer = text.split_ascii_whitespace().count() > 1;
        if words.next().is_some() || !is_host(&addr) || wants_peer != peer.is_some() {
            return None;
        }
        Some(Self {
            addr,
            prefix_len,
            peer,
        })
    }

    /// An address without a network.
    pub fn host(addr: IpAddr) -> Self {
        let prefix_len = if addr.is_ipv4() { 32 } else { 128 };
        Self {
            addr,
            prefix_len,
            peer: None,
        }
    }

    /// The prefix of the destinations on its link: its network, or its peer. `None` for an address
    /// without either.
    pub fn prefix(&self) -> Option<IpNet> {
        match self.peer {
            Some(peer) => Some(IpNet::from(peer)),
            None => {
                let net = IpNet::new(self.addr, self.prefix_len).ok()?.trunc();
                (net.prefix_len() < net.max_prefix_len()).then_some(net)
            }
        }
    }

    /// Whether `addr` is on the network of this address, or its peer.
    pub fn covers(&self, addr: &IpAddr) -> bool {
        match self.peer {
            Some(peer) => peer == *addr,
            None => common_prefix(&self.addr, addr) >= u32::from(self.prefix_len),
        }
    }

    /// The broadcast address of its network (RFC 1122 section 3.2.1.3); none for a /31 or longer.
    pub fn broadcast(&self) -> Option<Ipv4Addr> {
        match (self.addr, self.peer) {
            (IpAddr::V4(addr), None) if self.prefix_len <= 30 => {
                let host = u32::MAX.checked_shr(self.prefix_len.into()).unwrap_or(0);
                Some(Ipv4Addr::from(u32::from(addr) | host))
            }
            _ => None,
        }
    }
}

impl fmt::Display for IfAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer {
            Some(peer) => write!(f, "{} peer {peer}", self.addr),
            None => write!(f, "{}/{}", self.addr, self.prefix_len),
        }
    }
}

/// Parses a plain decimal number: no sign, no space, no leading zero.
pub(crate) fn parse_decimal<T: std::str::FromStr>(text: &str) -> Option<T> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let plain = text == "0" || !text.starts_with('0');
    (digits && plain).then(|| text.parse().ok()).flatten()
}

/// The number of leading bits that two addresses have in common; 0 across families.
pub(crate) fn common_prefix(a: &IpAddr, b: &IpAddr) -> u32 {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u32::from(*a) ^ u32::from(*b)).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(*a) ^ u128::from(*b)).leading_zeros(),
        _ => 0,
    }
}

/// Whether one host can have this address: not unspecified, multicast, broadcast or reserved.
#[inline]
pub fn is_host(addr: &IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => v4.octets()[0] != 0 && v4.octets()[0] < 224,
        IpAddr::V6(v6) => {
            !v6.is_unspecified() && !v6.is_multicast() && v6.to_ipv4_mapped().is_none()
        }
    }
}

/// The solicited-node group of an address: that of all hosts whose address ends in the same 24 bits
/// (RFC 4291 section 2.7.1).
pub(crate) fn solicited_node(addr: &Ipv6Addr) -> Ipv6Addr {
    let end = u128::from(*addr) & 0xff_ffff;
    Ipv6Addr::from(0xff02_0000_0000_0000_0000_0001_ff00_0000 | end)
}

/// Whether the address is valid on one link only.
pub(crate) fn is_link_local(addr: &IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => addr.is_link_local(),
        IpAddr::V6(addr) => addr.is_unicast_link_local(),
    }
}

/// The scope of an address (RFC 4291 section 2.7, RFC 6724 section 3.1): how far it is valid, as the
/// number that groups have. Unicast is valid everywhere, unless it belongs to one link.
pub(crate) fn scope(addr: &IpAddr) -> u8 {
    const LINK: u8 = 2;
    const GLOBAL: u8 = 14;

    match addr {
        IpAddr::V6(addr) if addr.is_multicast() => addr.octets()[1] & 0xf,
        _ if is_link_local(addr) || addr.is_loopback() => LINK,
        _ => GLOBAL,
    }
}

/// Whether it is a group that does not leave this host (RFC 4291 section 2.7), whatever its flags.
/// Scope 0 is reserved, and goes nowhere either.
pub(crate) fn is_interface_local(addr: &IpAddr) -> bool {
    const INTERFACE: u8 = 1;

    addr.is_multicast() && scope(addr) <= INTERFACE
}

/// Whether it is an IPv4 address in the form of IPv6, which is for programs and not for packets (RFC
/// 4291 section 2.5.5.2).
pub(crate) fn is_mapped(addr: &IpAddr) -> bool {
    matches!(addr, IpAddr::V6(addr) if addr.to_ipv4_mapped().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_back_as_they_are_shown() {
        for good in [
            "10.0.0.1/24",
            "10.0.0.1/0",
            "10.0.0.1 peer 10.0.0.2",
            "fd00::1/64",
            "fe80::1 peer fe80::2",
        ] {
            assert_eq!(IfAddr::parse(good).unwrap().to_string(), good);
        }
        assert_eq!(
            IfAddr::parse("10.0.0.1").unwrap().to_string(),
            "10.0.0.1/32"
        );
        for bad in [
            "",
            "10.0.0.1/33",
            "10.0.0.1/-1",
            "10.0.0.1/+8",
            "10.0.0.1/08",
            "10.0.0.1/",
            "10.0.0/24",
            "0.0.0.0/0",
            "224.0.0.1/4",
            "255.255.255.255",
            "::/0",
            "ff02::1/64",
            "::ffff:10.0.0.1/96",
            "fd00::1/129",
            "10.0.0.1 peer",
            "10.0.0.1 peer fd00::1",
            "10.0.0.1 peer 224.0.0.1",
            "10.0.0.1/24 peer 10.0.0.2",
            "10.0.0.1 10.0.0.2",
            "10.0.0.1 peer 10.0.0.2 x",
            "10.0.0.1/24 x",
        ] {
            assert_eq!(IfAddr::parse(bad), None, "{bad:?}");
        }
    }
}

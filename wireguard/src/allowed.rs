//! Which peer an address belongs to: the longest prefix decides, for packets in both directions.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

/// Prefixes of all peers. A prefix has one peer.
#[derive(Debug, Default)]
pub struct AllowedIps {
    v4: PrefixMap<Ipv4Net, usize>,
    v6: PrefixMap<Ipv6Net, usize>,
}

impl AllowedIps {
    /// Gives a prefix to a peer, and takes it from the one that had it, which is returned.
    pub fn insert(&mut self, prefix: IpNet, peer: usize) -> Option<usize> {
        match prefix.trunc() {
            IpNet::V4(prefix) => self.v4.insert(prefix, peer),
            IpNet::V6(prefix) => self.v6.insert(prefix, peer),
        }
    }

    /// The peer whose prefix is the longest that covers `address`.
    pub fn peer(&self, address: IpAddr) -> Option<usize> {
        match address {
            IpAddr::V4(address) => self.v4.get_lpm(&address.into()).map(|(_, &peer)| peer),
            IpAddr::V6(address) => self.v6.get_lpm(&address.into()).map(|(_, &peer)| peer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_wins_whatever_the_order() {
        let mut allowed = AllowedIps::default();
        let prefixes = [
            "10.1.2.3/32",
            "0.0.0.0/0",
            "10.1.0.0/16",
            "10.0.0.0/8",
            "fd00::/8",
            "fd00:1::/32",
        ];
        for (peer, prefix) in prefixes.iter().enumerate() {
            assert_eq!(allowed.insert(prefix.parse().unwrap(), peer), None);
        }
        for (address, peer) in [
            ("10.1.2.3", Some(0)),
            ("10.1.2.4", Some(2)),
            ("10.2.0.0", Some(3)),
            ("11.0.0.0", Some(1)),
            ("fd00:1::1", Some(5)),
            ("fd00:2::1", Some(4)),
            ("fe80::1", None),
            ("::ffff:10.1.2.3", None),
        ] {
            assert_eq!(allowed.peer(address.parse().unwrap()), peer, "{address}");
        }
        // Bits behind the prefix do not matter; the last peer has it.
        assert_eq!(allowed.insert("10.1.9.9/16".parse().unwrap(), 7), Some(2));
        assert_eq!(allowed.peer("10.1.2.4".parse().unwrap()), Some(7));
    }
}

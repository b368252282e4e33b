//! Addresses with a port, as programs read and write them in bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use scheme::errno::{self, Errno};

/// Bytes of an address.
pub(super) const ADDRESS: usize = 24;

/// The family in an address. They are those of the tun device.
mod family {
    /// No address: the peer.
    pub(super) const UNSPEC: u16 = 0;
    pub(super) const INET: u16 = 2;
    pub(super) const INET6: u16 = 10;
}

/// Writes an address and a port as `{ u16 family, u16 port, u32 scope, u8 addr[16] }`: the port in
/// network order, the rest in native order. There is no scope.
pub(super) fn encode((addr, port): (IpAddr, u16)) -> [u8; ADDRESS] {
    let mut bytes = [0; ADDRESS];
    let family = match addr {
        IpAddr::V4(addr) => {
            bytes[8..12].copy_from_slice(&addr.octets());
            family::INET
        }
        IpAddr::V6(addr) => {
            bytes[8..].copy_from_slice(&addr.octets());
            family::INET6
        }
    };
    bytes[..2].copy_from_slice(&family.to_ne_bytes());
    bytes[2..4].copy_from_slice(&port.to_be_bytes());
    bytes
}

/// Reads an address and a port; `None` for the peer. `EAFNOSUPPORT` if it is of another family. An
/// IPv4-mapped address is the IPv4 address, as in a path.
pub(super) fn decode(bytes: &[u8; ADDRESS]) -> Result<Option<(IpAddr, u16)>, Errno> {
    let [f0, f1, p0, p1, _, _, _, _, addr @ ..] = *bytes;
    let addr = match u16::from_ne_bytes([f0, f1]) {
        family::UNSPEC => return Ok(None),
        family::INET => {
            let [a, b, c, d, ..] = addr;
            Ipv4Addr::new(a, b, c, d).into()
        }
        family::INET6 => IpAddr::from(Ipv6Addr::from(addr)).to_canonical(),
        _ => return Err(errno::EAFNOSUPPORT),
    };
    Ok(Some((addr, u16::from_be_bytes([p0, p1]))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_there_and_back() {
        for name in ["10.0.0.1:53", "[fd00::1]:65535"] {
            let name: std::net::SocketAddr = name.parse().unwrap();
            let name = (name.ip(), name.port());
            assert_eq!(decode(&encode(name)), Ok(Some(name)));
        }
        let bytes = encode((Ipv4Addr::new(10, 0, 0, 1).into(), 53));
        assert_eq!(bytes[..2], 2_u16.to_ne_bytes());
        assert_eq!(bytes[2..4], [0, 53]);
        assert_eq!(bytes[8..12], [10, 0, 0, 1]);
        assert_eq!(bytes[12..], [0; 12]);
        let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
        let decoded = decode(&encode((mapped.into(), 7)));
        assert_eq!(decoded, Ok(Some((Ipv4Addr::LOCALHOST.into(), 7))));
        assert_eq!(decode(&[0; ADDRESS]), Ok(None));
        assert_eq!(decode(&[1; ADDRESS]), Err(errno::EAFNOSUPPORT));
    }
}

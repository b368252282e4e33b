//! Addresses as text: `REMOTE/LOCAL`, each `10.0.0.1:80` or `[fd00::1]:80`; of another host also
//! `[fe80::1%tun0]:80`.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::ifnet::{IfName, scope};
use crate::stack::Peer;

/// Both ends in a path or verb. `None` for one that is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) remote: Option<Peer>,
    pub(super) local: Option<(IpAddr, u16)>,
}

impl Names {
    /// Parses `10.0.0.1:80`, `/0.0.0.0:80` or `10.0.0.1:80/0.0.0.0:5000`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (remote, local) = match text.split_once('/') {
            Some((remote, local)) => (remote, Some(local)),
            None => (text, None),
        };
        let local = local.filter(|local| !local.is_empty());
        let names = Self {
            remote: match remote.is_empty() {
                true => None,
                false => Some(parse_peer(remote)?),
            },
            local: match local {
                Some(local) => Some(parse(local)?),
                None => None,
            },
        };
        (names != Self::default()).then_some(names)
    }
}

/// Parses an address and a port. The C library and `SocketAddr` use the same format. An IPv4-mapped
/// address is the IPv4 address: it must not be on a wire (RFC 4291 section 2.5.5.2, RFC 5156).
fn parse(text: &str) -> Option<(IpAddr, u16)> {
    let addr: SocketAddr = text.parse().ok().filter(|_| !text.contains('%'))?;
    Some((addr.ip().to_canonical(), addr.port()))
}

/// The same of another host, which may be on the link of a named interface: `[fe80::1%tun0]:80` (RFC
/// 4007 section 11).
fn parse_peer(text: &str) -> Option<Peer> {
    let Some((before, behind)) = text.split_once('%') else {
        return parse(text).map(Peer::from);
    };
    let (link, behind) = behind.split_once(']')?;
    let (addr, port) = parse(&format!("{before}]{behind}"))?;
    let link = Some(link_named(&addr, link)?);
    Some(Peer { addr, port, link })
}

/// The interface of this name, for an address that is valid on one link only.
pub(super) fn link_named(addr: &IpAddr, name: &str) -> Option<IfName> {
    const LINK: u8 = 2;

    let name = IfName::new(name)?;
    (addr.is_ipv6() && !addr.is_loopback() && scope(addr) == LINK).then_some(name)
}

/// Writes the name of a peer as it was given, `0.0.0.0:0` for none.
pub(super) fn write_peer(text: &mut String, peer: Option<Peer>) {
    match peer {
        Some(Peer {
            addr,
            port,
            link: Some(link),
        }) => {
            let _ = write!(text, "[{addr}%{}]:{port}", link.as_str());
        }
        _ => write(text, peer.map(|peer| peer.name())),
    }
}

/// Writes an address and a port, `0.0.0.0:0` for none.
pub(super) fn write(text: &mut String, name: Option<(IpAddr, u16)>) {
    let (addr, port) = name.unwrap_or((Ipv4Addr::UNSPECIFIED.into(), 0));
    let mut number = itoa::Buffer::new();
    match addr {
        // Each datagram comes with the name of its sender, and the formatting of std takes three
        // times as long.
        IpAddr::V4(addr) => {
            for (at, octet) in addr.octets().into_iter().enumerate() {
                text.push_str(if at > 0 { "." } else { "" });
                text.push_str(number.format(octet));
            }
            text.push(':');
            text.push_str(number.format(port));
        }
        IpAddr::V6(_) => {
            let _ = write!(text, "{}", SocketAddr::new(addr, port));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_c_library_sends() {
        let name = |text: &str| parse(text);
        let names = |text| Names::parse(text).unwrap();
        let peer = |text: &str| name(text).map(Peer::from);
        assert_eq!(names("10.0.0.1:80").remote, peer("10.0.0.1:80"));
        assert_eq!(names("/0.0.0.0:80").local, name("0.0.0.0:80"));
        assert_eq!(names("[fd00::1]:80/[::]:5").local, name("[::]:5"));
        assert_eq!(name("[::ffff:10.0.0.1]:80"), name("10.0.0.1:80"));
        for bad in [
            "",
            "/",
            "10.0.0.1",
            "termios",
            "10.0.0.1:65536",
            "1.2.3.4:5/6",
            "a/b/c",
            "::1:80",
        ] {
            assert_eq!(Names::parse(bad), None, "{bad:?}");
        }
        for scoped in ["[fe80::1%tun0]:80", "[ff02::fb%eth0]:5353"] {
            let peer = Names::parse(&format!("{scoped}/[::]:5"));
            let peer = peer.and_then(|names| names.remote);
            let mut text = String::new();
            write_peer(&mut text, peer);
            assert_eq!(text, scoped);
        }
        for bad in [
            "[fe80::1%]:80",
            "[fe80::1%tun0:80",
            "[fe80::1%1234567890123456]:80",
            "[fe80::1]%tun0:80",
            "[fe80::1%tun0]80",
            "[fd00::1%tun0]:80",
            "[ff05::1%tun0]:80",
            "[::1%lo0]:80",
            "[::%lo0]:80",
            "169.254.0.1%tun0:80",
            "/[fe80::1%tun0]:80",
            "/[fe80::1%3]:80",
        ] {
            assert_eq!(Names::parse(bad), None, "{bad:?}");
        }
        let mut text = String::new();
        write(&mut text, None);
        write(&mut text, name("[fd00::1]:80"));
        write(&mut text, name("10.0.255.1:65535"));
        assert_eq!(text, "0.0.0.0:0[fd00::1]:8010.0.255.1:65535");
    }
}

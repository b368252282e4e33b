//! Addresses as text: `REMOTE/LOCAL`, each `10.0.0.1:80` or `[fd00::1]:80`.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Both ends in a path or verb. `None` for one that is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) remote: Option<(IpAddr, u16)>,
    pub(super) local: Option<(IpAddr, u16)>,
}

impl Names {
    /// Parses `10.0.0.1:80`, `/0.0.0.0:80` or `10.0.0.1:80/0.0.0.0:5000`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (remote, local) = match text.split_once('/') {
            Some((remote, local)) => (remote, Some(local)),
            None => (text, None),
        };
        let part = |text: &str| match text.is_empty() {
            true => Some(None),
            false => parse(text).map(Some),
        };
        let names = Self {
            remote: part(remote)?,
            local: part(local.unwrap_or_default())?,
        };
        (names != Self::default()).then_some(names)
    }
}

/// Parses an address and a port. The C library and `SocketAddr` use the same format. An IPv4-mapped
/// address is the IPv4 address: it must not be on a wire (RFC 4291 section 2.5.5.2, RFC 5156).
fn parse(text: &str) -> Option<(IpAddr, u16)> {
    let addr: SocketAddr = text.parse().ok()?;
    Some((addr.ip().to_canonical(), addr.port()))
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
        assert_eq!(names("10.0.0.1:80").remote, name("10.0.0.1:80"));
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
        let mut text = String::new();
        write(&mut text, None);
        write(&mut text, name("[fd00::1]:80"));
        write(&mut text, name("10.0.255.1:65535"));
        assert_eq!(text, "0.0.0.0:0[fd00::1]:8010.0.255.1:65535");
    }
}

//! Routes as text: `10.8.0.0/16 via 10.0.0.2 dev tun0 src 10.0.0.1 metric 10`, or `default
//! unreachable metric 1000`.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Route, default_prefix, host_prefix};
use crate::ifnet::{is_host, parse_decimal};

/// A line of `route/add` or `route/rm`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSpec {
    /// Destinations; no bits are set behind the prefix.
    pub prefix: IpNet,
    /// Whether the destinations are declared unreachable.
    pub unreachable: bool,
    /// Router.
    pub via: Option<IpAddr>,
    /// Name of the interface.
    pub dev: Option<String>,
    /// Address to send from.
    pub src: Option<IpAddr>,
    /// Preference, lower first.
    pub metric: Option<u32>,
}

impl RouteSpec {
    /// Parses a line. `None` if it is not a route: unknown words, mixed families, host bits set.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let prefix = words.next()?;
        let (mut via, mut dev, mut src, mut metric) = (None, None, None, None);
        let mut rest = words.clone();
        let unreachable = rest.next() == Some("unreachable");
        if unreachable {
            words = rest;
        }
        while let Some(word) = words.next() {
            let value = words.next()?;
            match word {
                "metric" if metric.is_none() => metric = Some(parse_decimal(value)?),
                _ if unreachable => return None,
                "via" if via.is_none() => {
                    via = Some(value.parse::<IpAddr>().ok().filter(is_host)?);
                }
                "dev" if dev.is_none() => dev = Some(value.to_owned()),
                "src" if src.is_none() => {
                    src = Some(value.parse::<IpAddr>().ok().filter(is_host)?);
                }
                _ => return None,
            }
        }
        let prefix = match prefix {
            "default" => default_prefix(via.or(src).is_some_and(|addr| addr.is_ipv6())),
            _ => match prefix.parse::<IpNet>() {
                Ok(prefix) if prefix == prefix.trunc() => prefix,
                Ok(_) => return None,
                Err(_) => host_prefix(prefix.parse().ok()?),
            },
        };
        let is_v6 = prefix.network().is_ipv6();
        let one_family = [via, src]
            .iter()
            .flatten()
            .all(|addr| addr.is_ipv6() == is_v6);
        one_family.then_some(Self {
            prefix,
            unreachable,
            via,
            dev,
            src,
            metric,
        })
    }

    /// Whether the line describes this route of its prefix, over the interface with this name if it
    /// is over one. Fields that it does not mention are not compared.
    pub fn matches(&self, route: &Route, dev_name: Option<&str>) -> bool {
        (!self.unreachable || route.dev.is_none())
            && self.via.is_none_or(|via| route.via == Some(via))
            && self.dev.as_deref().is_none_or(|dev| dev_name == Some(dev))
            && self.src.is_none_or(|src| route.src == Some(src))
            && self.metric.is_none_or(|metric| route.metric == metric)
    }
}

/// Writes one line of `route/list`, which `route/add` accepts. The name is that of the interface.
pub fn write_route(text: &mut String, prefix: &IpNet, route: &Route, dev_name: Option<&str>) {
    use std::fmt::Write;

    let is_default = prefix.prefix_len() == 0;
    if is_default && (prefix.network().is_ipv4() || route.via.or(route.src).is_some()) {
        text.push_str("default");
    } else {
        let _ = write!(text, "{prefix}");
    }
    if let Some(via) = route.via {
        let _ = write!(text, " via {via}");
    }
    let _ = match (route.dev, dev_name) {
        (None, _) => write!(text, " unreachable"),
        (Some(_), name) => write!(text, " dev {}", name.unwrap_or("?")),
    };
    if let Some(src) = route.src {
        let _ = write!(text, " src {src}");
    }
    if route.metric != 0 {
        let _ = write!(text, " metric {}", route.metric);
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::Origin;
    use super::*;
    use crate::ifnet::IfIndex;

    #[test]
    fn a_listed_route_is_read_back_as_itself() {
        for line in [
            "default via 10.0.0.2 dev tun0",
            "default dev tun0",
            "::/0 dev tun0",
            "default via fe80::1 dev tun0 src fd00::2 metric 10",
            "10.8.0.0/16 dev tun0",
            "fd00::/8 via fe80::1 dev tun0 src fd00::2 metric 10",
            "10.0.0.2/32 dev tun0",
            "default unreachable metric 1000",
            "::/0 unreachable",
            "10.8.0.0/16 unreachable",
        ] {
            let spec = RouteSpec::parse(line).unwrap();
            let route = Route {
                dev: (!spec.unreachable).then_some(IfIndex(0)),
                tunnel: true,
                via: spec.via,
                src: spec.src,
                metric: spec.metric.unwrap_or(0),
                origin: Origin::Static,
            };
            let mut text = String::new();
            write_route(&mut text, &spec.prefix, &route, Some("tun0"));
            assert_eq!(text.trim_end(), line);
            assert!(spec.matches(&route, Some("tun0")));
        }
    }

    #[test]
    fn what_is_not_a_route() {
        for bad in [
            "",
            "default via",
            "default via 10.0.0.2 via 10.0.0.3",
            "default via 0.0.0.0",
            "default via 224.0.0.1",
            "default near 10.0.0.2",
            "10.8.0.1/16 dev tun0",
            "10.8.0.0/33 dev tun0",
            "10.8.0.0/16 via fe80::1",
            "fd00::/8 src 10.0.0.1",
            "10.8.0.0/16 dev tun0 metric -1",
            "10.8.0.0/16 dev tun0 metric 4294967296",
            "10.8.0.0/16 dev",
            "tun0",
            "unreachable",
            "10.8.0.0/16 unreachable dev tun0",
            "10.8.0.0/16 dev tun0 unreachable",
            "10.8.0.0/16 unreachable via 10.0.0.2",
            "10.8.0.0/16 unreachable src 10.0.0.2",
            "10.8.0.0/16 unreachable unreachable",
            "10.8.0.0/16 unreachable metric",
            "10.8.0.0/16 metric 3 unreachable",
        ] {
            assert_eq!(RouteSpec::parse(bad), None, "{bad:?}");
        }
        let host = RouteSpec::parse("10.0.0.2 dev tun0").unwrap();
        assert_eq!(host.prefix.to_string(), "10.0.0.2/32");
    }
}

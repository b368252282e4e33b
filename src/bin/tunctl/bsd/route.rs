//! `route`: shows and changes routes.

use std::fmt::Write;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Usage, address, class_len, following, interface_with, mask_len, network, prefix_len};
use crate::report::{RouteLine, say};
use crate::tree::{Failure, Tree};

pub(super) const USAGE: &str = "\
usage: route [-n] [-q] add | delete [-inet | -inet6] [-net | -host] DEST[/LEN] GATEWAY [MASK]
       route [-n] [-q] add | delete [-inet | -inet6] [-net | -host] DEST[/LEN] -interface IF
             with [-netmask MASK] or [-prefixlen LEN]
       route [-n] get [-inet | -inet6] ADDR | default
       route [-n] show [-inet | -inet6]";

/// A command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Add(Change),
    Delete(Change),
    /// The route to an address; `None` is for the default route, of IPv6 if so marked.
    Get(Option<IpAddr>, bool),
    /// Every route, or those of one family: of IPv6 if so marked.
    Show(Option<bool>),
}

/// A route to add or delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    prefix: IpNet,
    gateway: Option<Gateway>,
    /// Whether nothing is said of what was done.
    quiet: bool,
}

/// What packets are given to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Gateway {
    /// A router, on this interface if it is named; or, if it is an address of this machine, the
    /// interface that has it.
    Router(IpAddr, Option<String>),
    /// An interface by its name.
    Interface(String),
    /// The interface that has this address.
    InterfaceWith(IpAddr),
}

pub(super) fn parse(words: &[&str]) -> Result<Command, Usage> {
    let mut words = words.iter().copied().peekable();
    let mut quiet = false;
    while let Some(word) = words.next_if(|word| word.starts_with('-')) {
        match word {
            "-n" => {}
            "-q" | "-qn" | "-nq" => quiet = true,
            _ => return Err(Usage::new(format!("{word}: not known"))),
        }
    }
    let verb = words
        .next()
        .ok_or_else(|| Usage::new("what is to be done?"))?;
    let rest: Vec<&str> = words.collect();
    match verb {
        "add" => {
            let change = Words::parse(&rest)?.change(quiet)?;
            let gateway = change.gateway.is_some();
            let missing = || Usage::new("a gateway, or -interface IF, is missing");
            gateway.then_some(Command::Add(change)).ok_or_else(missing)
        }
        "delete" => Ok(Command::Delete(Words::parse(&rest)?.change(quiet)?)),
        "get" => Words::parse(&rest)?.get(),
        "show" => match rest[..] {
            [] => Ok(Command::Show(None)),
            ["-inet"] => Ok(Command::Show(Some(false))),
            ["-inet6"] => Ok(Command::Show(Some(true))),
            _ => Err(Usage::new("show takes nothing but a family")),
        },
        _ => Err(Usage::new(format!("{verb}: not known"))),
    }
}

/// The words about a route.
#[derive(Default)]
struct Words<'a> {
    ipv6: Option<bool>,
    net: bool,
    host: bool,
    /// Whether the gateway is an interface.
    interface: bool,
    mask: Option<&'a str>,
    len: Option<&'a str>,
    /// Destination, gateway, netmask.
    plain: Vec<&'a str>,
}

impl<'a> Words<'a> {
    fn parse(words: &[&'a str]) -> Result<Self, Usage> {
        let mut of = Self::default();
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            let mut value = || following(&mut words, word);
            match word {
                "-inet" => of.ipv6 = Some(false),
                "-inet6" => of.ipv6 = Some(true),
                "-net" => of.net = true,
                "-host" => of.host = true,
                "-interface" | "-iface" => of.interface = true,
                "-netmask" => of.mask = Some(value()?),
                "-prefixlen" => of.len = Some(value()?),
                // What macOS says of a network on the link.
                "-cloning" => {}
                _ if word.starts_with('-') => {
                    return Err(Usage::new(format!("{word}: not known")));
                }
                _ => of.plain.push(word),
            }
        }
        Ok(of)
    }

    fn change(self, quiet: bool) -> Result<Change, Usage> {
        let (dest, gateway, mask) = match self.plain[..] {
            [dest] => (dest, None, None),
            [dest, gateway] => (dest, Some(gateway), None),
            [dest, gateway, mask] if self.mask.is_none() => (dest, Some(gateway), Some(mask)),
            _ => return Err(Usage::new("a route has a destination and a gateway")),
        };
        let prefix = self.prefix(dest, self.mask.or(mask))?;
        let gateway = gateway.map(|gateway| self.gateway(gateway)).transpose()?;
        let fits = match &gateway {
            Some(Gateway::Router(router, _)) => router.is_ipv6() == prefix.network().is_ipv6(),
            Some(_) => true,
            None => !self.interface,
        };
        match fits {
            true => Ok(Change {
                prefix,
                gateway,
                quiet,
            }),
            false => Err(Usage::new(
                "a gateway of the destination's family is wanted",
            )),
        }
    }

    fn gateway(&self, word: &str) -> Result<Gateway, Usage> {
        if self.interface {
            return Ok(match word.parse() {
                Ok(addr) => Gateway::InterfaceWith(addr),
                Err(_) => Gateway::Interface(word.to_owned()),
            });
        }
        // BSD has no other way to name the link of a link-local address.
        match word.split_once('%') {
            Some((router, dev)) => Ok(Gateway::Router(address(router)?, Some(dev.to_owned()))),
            None => Ok(Gateway::Router(address(word)?, None)),
        }
    }

    fn prefix(&self, dest: &str, mask: Option<&str>) -> Result<IpNet, Usage> {
        let ipv6 = self.ipv6.unwrap_or(dest.contains(':'));
        if dest == "default" {
            return Ok(default_prefix(ipv6));
        }
        let (addr, len) = match dest.split_once('/') {
            Some((addr, len)) => (addr, Some(len)),
            None => (dest, None),
        };
        let addr = address(addr)?;
        if addr.is_ipv6() != ipv6 {
            return Err(Usage::new(format!("{dest}: of the other family")));
        }
        let len = match (len.or(self.len), mask) {
            (Some(_), Some(_)) => return Err(Usage::new("a length and a netmask at once")),
            (Some(len), None) => Some(prefix_len(len, addr)?),
            (None, Some(mask)) if addr.is_ipv4() => Some(mask_len(mask)?),
            (None, Some(_)) => return Err(Usage::new("a netmask is for IPv4")),
            (None, None) => None,
        };
        let whole = if addr.is_ipv4() { 32 } else { 128 };
        let class = class_len(addr);
        // Without a word about it, an address with nothing behind the network's part is a network.
        let is_net = self.net || network(addr, class)?.network() == addr;
        let usual = match addr {
            _ if self.host => whole,
            addr if addr.is_unspecified() => 0,
            IpAddr::V4(_) if is_net => class,
            _ => whole,
        };
        match len {
            Some(len) if self.host && len != whole => Err(Usage::new("a host has no network")),
            len => network(addr, len.unwrap_or(usual)),
        }
    }

    fn get(self) -> Result<Command, Usage> {
        let odd = self.interface || self.mask.is_some() || self.len.is_some();
        match self.plain[..] {
            ["default" | "0.0.0.0"] if !odd => Ok(Command::Get(None, self.ipv6 == Some(true))),
            [dst] if !odd => {
                let dst = address(dst)?;
                match self.ipv6.is_none_or(|ipv6| ipv6 == dst.is_ipv6()) {
                    true => Ok(Command::Get(Some(dst), dst.is_ipv6())),
                    false => Err(Usage::new(format!("{dst}: of the other family"))),
                }
            }
            _ => Err(Usage::new("get takes one address")),
        }
    }
}

impl Command {
    pub(super) fn run(self, tree: &Tree) -> Result<(), Failure> {
        match self {
            Self::Add(change) => change.write(tree, "add"),
            Self::Delete(change) => change.write(tree, "rm"),
            Self::Get(Some(dst), _) => {
                let line = tree.lookup(dst)?;
                say(&described(&dst.to_string(), &RouteLine::parse(&line)))
            }
            Self::Get(None, ipv6) => {
                let route = default_route(tree, ipv6)?;
                let route = route.ok_or_else(|| Failure::new("default: no route"))?;
                say(&described("default", &route))
            }
            Self::Show(family) => show(tree, family),
        }
    }
}

impl Change {
    fn write(self, tree: &Tree, file: &str) -> Result<(), Failure> {
        let Self {
            prefix,
            gateway,
            quiet,
        } = self;
        let mut line = prefix.to_string();
        let shown = match &gateway {
            None => String::new(),
            Some(Gateway::Interface(dev)) => {
                let _ = write!(line, " dev {}", tree.interface(dev)?);
                format!(": gateway {dev}")
            }
            Some(Gateway::InterfaceWith(addr)) => {
                let dev = interface_with(tree, *addr)?;
                let dev = dev.ok_or_else(|| Failure::new(format!("no interface has {addr}")))?;
                let _ = write!(line, " dev {dev}");
                format!(": gateway {addr}")
            }
            Some(Gateway::Router(router, dev)) => {
                match (interface_with(tree, *router)?, dev) {
                    (Some(own), _) => drop(write!(line, " dev {own}")),
                    (None, Some(dev)) => drop(write!(line, " via {router} dev {dev}")),
                    (None, None) => drop(write!(line, " via {router}")),
                }
                format!(": gateway {router}")
            }
        };
        tree.write(&format!("netcfg/route/{file}"), &line)?;
        if quiet {
            return Ok(());
        }
        let verb = if file == "add" { "add" } else { "delete" };
        let kind = match prefix.prefix_len() == prefix.max_prefix_len() {
            true => format!("host {}", prefix.network()),
            false => format!("net {}", name_of(prefix)),
        };
        say(&format!("{verb} {kind}{shown}"))
    }
}

fn name_of(prefix: IpNet) -> String {
    match prefix.prefix_len() {
        0 => "default".to_owned(),
        _ => prefix.to_string(),
    }
}

/// The prefix in a line of the table, of which `default` does not say the family.
fn prefix_of(route: &RouteLine) -> Option<IpNet> {
    let ipv6 = [&route.via, &route.src].into_iter().flatten();
    let ipv6 = ipv6.into_iter().any(|addr| addr.contains(':'));
    match route.prefix.as_str() {
        "default" if ipv6 => Some(default_prefix(true)),
        "default" => Some(default_prefix(false)),
        prefix => prefix.parse().ok(),
    }
}

/// The prefix of every address of a family.
fn default_prefix(ipv6: bool) -> IpNet {
    match ipv6 {
        true => IpNet::V6(Ipv6Net::default()),
        false => IpNet::V4(Ipv4Net::default()),
    }
}

/// The default route that is in use.
fn default_route(tree: &Tree, ipv6: bool) -> Result<Option<RouteLine>, Failure> {
    let list = tree.read("netcfg/route/list")?;
    let routes = list.lines().map(RouteLine::parse);
    let wanted = Some(default_prefix(ipv6));
    let mut best: Option<RouteLine> = None;
    for route in routes.filter(|route| prefix_of(route) == wanted) {
        let up = match &route.dev {
            Some(dev) => tree
                .get(dev, "flags")?
                .trim()
                .split(',')
                .any(|flag| flag == "UP"),
            None => true,
        };
        // Of equals a tunnel is used, and then the one that was added last.
        let key = |route: &RouteLine| {
            let tunnel = route
                .dev
                .as_deref()
                .is_some_and(|dev| dev.starts_with("tun"));
            (route.metric, !tunnel)
        };
        if up && best.as_ref().is_none_or(|best| key(&route) <= key(best)) {
            best = Some(route);
        }
    }
    Ok(best)
}

/// A route as BSD's `route get` shows it.
fn described(dst: &str, route: &RouteLine) -> String {
    let prefix = prefix_of(route);
    let host = prefix.is_none_or(|prefix| prefix.prefix_len() == prefix.max_prefix_len());
    let mut text = format!("   route to: {dst}\n");
    let destination = match prefix {
        Some(prefix) if prefix.prefix_len() == 0 => "default".to_owned(),
        Some(prefix) => prefix.network().to_string(),
        None => dst.to_owned(),
    };
    let _ = writeln!(text, "destination: {destination}");
    if let Some(prefix) = prefix.filter(|_| !host) {
        let mask = match prefix.prefix_len() {
            0 => "default".to_owned(),
            _ => prefix.netmask().to_string(),
        };
        let _ = writeln!(text, "       mask: {mask}");
    }
    if let Some(via) = &route.via {
        let _ = writeln!(text, "    gateway: {via}");
    }
    if let Some(dev) = &route.dev {
        let _ = writeln!(text, "  interface: {dev}");
    }
    if let Some(src) = &route.src {
        let _ = writeln!(text, " if address: {src}");
    }
    let mut flags = vec!["UP"];
    flags.extend(route.via.as_ref().map(|_| "GATEWAY"));
    flags.extend(host.then_some("HOST"));
    flags.extend(route.unreachable.then_some("REJECT"));
    flags.push("DONE");
    let _ = write!(text, "      flags: <{}>", flags.join(","));
    text
}

/// The table as BSD shows it.
fn show(tree: &Tree, family: Option<bool>) -> Result<(), Failure> {
    let list = tree.read("netcfg/route/list")?;
    let routes: Vec<_> = list.lines().map(RouteLine::parse).collect();
    let mut text = "Routing tables\n".to_owned();
    for (ipv6, title) in [(false, "Internet"), (true, "Internet6")] {
        if family.is_some_and(|family| family != ipv6) {
            continue;
        }
        let width = if ipv6 { 33 } else { 18 };
        let _ = writeln!(text, "\n{title}:");
        let _ = writeln!(
            text,
            "{:width$} {:width$} {:6} Netif",
            "Destination", "Gateway", "Flags"
        );
        for route in &routes {
            let Some(prefix) = prefix_of(route) else {
                continue;
            };
            if prefix.network().is_ipv6() != ipv6 {
                continue;
            }
            let host = prefix.prefix_len() == prefix.max_prefix_len();
            let name = if host {
                prefix.network().to_string()
            } else {
                name_of(prefix)
            };
            let dev = route.dev.clone().unwrap_or_default();
            let gateway = match &route.via {
                Some(via) => via.clone(),
                None => format!("link#{dev}"),
            };
            let gateway = if route.unreachable {
                "unreachable".to_owned()
            } else {
                gateway
            };
            let mut flags = "U".to_owned();
            flags.push_str(if route.via.is_some() { "G" } else { "" });
            flags.push_str(if host { "H" } else { "" });
            flags.push_str(if route.unreachable { "R" } else { "" });
            let line = format!("{name:width$} {gateway:width$} {flags:6} {dev}");
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
    say(text.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<&str> {
        line.split(' ').collect()
    }

    /// What is done, as a line with the gateway.
    fn does(line: &str) -> String {
        let (verb, change) = match parse(&words(line)) {
            Ok(Command::Add(change)) => ("add", change),
            Ok(Command::Delete(change)) => ("rm", change),
            other => panic!("{line}: {other:?}"),
        };
        let gateway = match change.gateway {
            None => String::new(),
            Some(Gateway::Router(router, None)) => format!(" via {router}"),
            Some(Gateway::Router(router, Some(dev))) => format!(" via {router} dev {dev}"),
            Some(Gateway::Interface(dev)) => format!(" dev {dev}"),
            Some(Gateway::InterfaceWith(addr)) => format!(" with {addr}"),
        };
        format!("{verb} {}{gateway}", change.prefix)
    }

    /// What OpenVPN's route.c runs on each BSD and macOS.
    #[test]
    fn openvpn() {
        for (line, done) in [
            // FreeBSD, DragonFly and macOS.
            (
                "add -net 10.9.0.0 10.8.0.1 255.255.0.0",
                "add 10.9.0.0/16 via 10.8.0.1",
            ),
            (
                "delete -net 10.9.0.0 10.8.0.1 255.255.0.0",
                "rm 10.9.0.0/16 via 10.8.0.1",
            ),
            (
                "add -net 0.0.0.0 10.8.0.1 128.0.0.0",
                "add 0.0.0.0/1 via 10.8.0.1",
            ),
            (
                "add -net 128.0.0.0 10.8.0.1 128.0.0.0",
                "add 128.0.0.0/1 via 10.8.0.1",
            ),
            (
                "add -net 0.0.0.0 10.8.0.1 0.0.0.0",
                "add 0.0.0.0/0 via 10.8.0.1",
            ),
            (
                "add -net 9.9.9.9 10.0.0.254 255.255.255.255",
                "add 9.9.9.9/32 via 10.0.0.254",
            ),
            (
                "add -cloning -net 9.9.9.9 -netmask 255.255.255.255 -interface eth0",
                "add 9.9.9.9/32 dev eth0",
            ),
            (
                "delete -cloning -net 9.9.9.9 -netmask 255.255.255.255 -interface eth0",
                "rm 9.9.9.9/32 dev eth0",
            ),
            // OpenBSD and NetBSD.
            (
                "add -net 10.9.0.0 10.8.0.1 -netmask 255.255.0.0",
                "add 10.9.0.0/16 via 10.8.0.1",
            ),
            (
                "delete -net 10.9.0.0 10.8.0.1 -netmask 255.255.0.0",
                "rm 10.9.0.0/16 via 10.8.0.1",
            ),
            // IPv6.
            ("add -inet6 fd09::/16 -iface tun0", "add fd09::/16 dev tun0"),
            ("add -inet6 fd09::/16 fd00::1", "add fd09::/16 via fd00::1"),
            (
                "add -inet6 fd09::/16 fe80::1%eth0",
                "add fd09::/16 via fe80::1 dev eth0",
            ),
            (
                "delete -inet6 fd09::/16 -iface tun0",
                "rm fd09::/16 dev tun0",
            ),
            (
                "delete -inet6 fd09::/16 fd00::1",
                "rm fd09::/16 via fd00::1",
            ),
            (
                "add -inet6 fd09:: -prefixlen 16 fd00::1",
                "add fd09::/16 via fd00::1",
            ),
            (
                "add -inet6 fd09:: -prefixlen 16 -iface tun0",
                "add fd09::/16 dev tun0",
            ),
            (
                "delete -inet6 fd09:: -prefixlen 16 fd00::1",
                "rm fd09::/16 via fd00::1",
            ),
            ("delete -inet6 fd00::2", "rm fd00::2/128"),
        ] {
            assert_eq!(does(line), done, "{line}");
        }
    }

    /// What tinc's manual has, and what its `ifconfig.c` writes; and what iodine's tun.c runs.
    #[test]
    fn tinc_and_iodine() {
        for (line, done) in [
            ("add 10.2.0.0/16 10.1.54.1", "add 10.2.0.0/16 via 10.1.54.1"),
            (
                "add 10.2.0.0/16 10.1.54.1 -interface",
                "add 10.2.0.0/16 with 10.1.54.1",
            ),
            ("add -inet6 fd09::/16 fd00::1", "add fd09::/16 via fd00::1"),
            (
                "add -inet6 fd09:: fd00::1 -prefixlen 16",
                "add fd09::/16 via fd00::1",
            ),
            (
                "add -inet6 fd09::/16 fd00::1 -interface",
                "add fd09::/16 with fd00::1",
            ),
            ("add 10.0.0.0/27 10.0.0.2", "add 10.0.0.0/27 via 10.0.0.2"),
        ] {
            assert_eq!(does(line), done, "{line}");
        }
    }

    /// What openconnect's and vpnc's vpnc-script runs where there is no `ip`.
    #[test]
    fn vpnc_script() {
        for (line, done) in [
            (
                "add -host 192.0.2.1 10.0.0.254",
                "add 192.0.2.1/32 via 10.0.0.254",
            ),
            (
                "delete -host 192.0.2.1 10.0.0.254",
                "rm 192.0.2.1/32 via 10.0.0.254",
            ),
            ("delete default 10.0.0.254", "rm 0.0.0.0/0 via 10.0.0.254"),
            ("add default 10.8.0.2", "add 0.0.0.0/0 via 10.8.0.2"),
            (
                "add default 10.8.0.2 -interface",
                "add 0.0.0.0/0 with 10.8.0.2",
            ),
            (
                "add -net 10.9.0.0 -netmask 255.255.0.0 10.8.0.2",
                "add 10.9.0.0/16 via 10.8.0.2",
            ),
            (
                "delete -net 10.9.0.0 -netmask 255.255.0.0 10.8.0.2",
                "rm 10.9.0.0/16 via 10.8.0.2",
            ),
            ("add -inet6 default fd00::2", "add ::/0 via fd00::2"),
            ("delete -inet6 default fd00::2", "rm ::/0 via fd00::2"),
            (
                "add -inet6 -net fd09::/16 fd00::2",
                "add fd09::/16 via fd00::2",
            ),
            (
                "delete -inet6 fd09::/16 fd00::2",
                "rm fd09::/16 via fd00::2",
            ),
        ] {
            assert_eq!(does(line), done, "{line}");
        }
    }

    #[test]
    fn the_words_of_the_manual() {
        for (line, done) in [
            ("-n add default -interface tun0", "add 0.0.0.0/0 dev tun0"),
            (
                "-q -n add -inet default -iface tun0",
                "add 0.0.0.0/0 dev tun0",
            ),
            ("add 10.9.3.4/16 10.8.0.1", "add 10.9.0.0/16 via 10.8.0.1"),
            ("add 10.9.3.4 10.8.0.1", "add 10.9.3.4/32 via 10.8.0.1"),
            (
                "add 192.168.7.0 10.8.0.1",
                "add 192.168.7.0/24 via 10.8.0.1",
            ),
            (
                "add -host 192.168.7.0 10.8.0.1",
                "add 192.168.7.0/32 via 10.8.0.1",
            ),
            (
                "add -net 192.168.7.9 10.8.0.1",
                "add 192.168.7.0/24 via 10.8.0.1",
            ),
            ("delete default", "rm 0.0.0.0/0"),
            ("delete fd09::1", "rm fd09::1/128"),
        ] {
            assert_eq!(does(line), done, "{line}");
        }
        let get = |line: &str| parse(&words(line));
        let addr = "9.9.9.9".parse().ok();
        assert_eq!(get("get 9.9.9.9"), Ok(Command::Get(addr, false)));
        assert_eq!(get("-n get default"), Ok(Command::Get(None, false)));
        assert_eq!(get("-n get -inet6 default"), Ok(Command::Get(None, true)));
        assert_eq!(get("-n show"), Ok(Command::Show(None)));
        assert_eq!(get("-n show -inet6"), Ok(Command::Show(Some(true))));
    }

    #[test]
    fn anything_else_is_a_usage_error() {
        for line in [
            "",
            "-x show",
            "flush",
            "monitor",
            "show me",
            "get",
            "get x",
            "get 9.9.9.9 10.0.0.1",
            "get -inet6 9.9.9.9",
            "add",
            "add default ",
            "add default",
            "add x 10.8.0.1",
            "add 10.9.0.0/33 10.8.0.1",
            "add 10.9.0.0/16 x",
            "add 10.9.0.0/16 fd00::1",
            "add 10.9.0.0/16 -interface",
            "add 10.9.0.0/16 10.8.0.1 255.255.0.0",
            "add 10.9.0.0 10.8.0.1 255.0.255.0",
            "add 10.9.0.0 -netmask 255.255.0.0 10.8.0.1 255.255.0.0",
            "add -net 10.9.0.0 -netmask",
            "add -host 10.9.0.0/16 10.8.0.1",
            "add -inet6 10.9.0.0/16 10.8.0.1",
            "add -inet6 fd09:: -netmask 255.0.0.0 fd00::1",
            "add -rtt 3 10.9.0.0/16 10.8.0.1",
            "add a b c d",
        ] {
            assert!(parse(&words(line)).is_err(), "{line}");
        }
    }

    #[test]
    fn a_route_as_bsd_shows_it() {
        let line = "default via 10.0.0.254 dev eth0 src 10.0.0.1";
        let text = described("9.9.9.9", &RouteLine::parse(line));
        let bsd = "   route to: 9.9.9.9\ndestination: default\n       mask: default\n    gateway: \
                   10.0.0.254\n  interface: eth0\n if address: 10.0.0.1\n      flags: \
                   <UP,GATEWAY,DONE>";
        assert_eq!(text, bsd);
        let text = described("10.8.0.1", &RouteLine::parse("local 10.8.0.1 dev tun0"));
        assert!(
            text.contains("destination: 10.8.0.1\n  interface: tun0\n"),
            "{text}"
        );
    }
}

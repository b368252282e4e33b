//! `ifconfig`: shows interfaces, and sets addresses, mtu and flags.

use std::fmt::Write;
use std::fs::OpenOptions;
use std::net::IpAddr;

use super::{Usage, address, class_len, following, mask_len, network, prefix_len};
use crate::report::say;
use crate::tree::{Failure, Tree};

pub(super) const USAGE: &str = "\
usage: ifconfig [-a | -l | IF]
       ifconfig IF [inet] ADDR[/LEN] [DEST] [netmask MASK] [alias | -alias] [mtu N] [up | down]
       ifconfig IF inet6 ADDR[/LEN] [prefixlen LEN] [alias | -alias] [mtu N] [up | down]
       ifconfig IF create | destroy | delete | link MAC";

/// A command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Every interface, or one.
    Show(Option<String>),
    /// Names only.
    Names,
    Create(String),
    Destroy(String),
    Change(String, Change),
}

/// What is changed, in the order in which it is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    mac: Option<String>,
    mtu: Option<u16>,
    address: Option<Address>,
    up: Option<bool>,
}

/// What becomes of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Address {
    /// It takes the place of the first of its family.
    Set(IpAddr, String),
    /// It is one more.
    Add(IpAddr, String),
    Remove(IpAddr),
    /// The first IPv4 address goes.
    RemoveFirst,
}

/// The words about an address, until it is known what they are for.
#[derive(Default)]
struct Words {
    ipv6: bool,
    local: Option<(IpAddr, Option<u8>)>,
    dest: Option<IpAddr>,
    len: Option<u8>,
    add: bool,
    remove: bool,
}

pub(super) fn parse(words: &[&str]) -> Result<Command, Usage> {
    let (&name, rest) = match words {
        [] | ["-a"] => return Ok(Command::Show(None)),
        ["-l"] => return Ok(Command::Names),
        [name, rest @ ..] => (name, rest),
    };
    if name.starts_with('-') || name.is_empty() || name.contains('/') {
        return Err(Usage::new(format!("{name}: not an interface")));
    }
    let name = name.to_owned();
    match rest {
        [] => Ok(Command::Show(Some(name))),
        ["create" | "plumb"] => Ok(Command::Create(name)),
        ["destroy" | "unplumb"] => Ok(Command::Destroy(name)),
        _ => Ok(Command::Change(name, parse_change(rest)?)),
    }
}

fn parse_change(words: &[&str]) -> Result<Change, Usage> {
    let (mut change, mut of) = (Change::default(), Words::default());
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        let mut value = || following(&mut words, word);
        match word {
            "inet" => {}
            "inet6" => of.ipv6 = true,
            "up" => change.up = Some(true),
            "down" => change.up = Some(false),
            "mtu" => {
                let mtu = value()?;
                let number = mtu
                    .parse()
                    .map_err(|_| Usage::new(format!("{mtu}: not an mtu")));
                change.mtu = Some(number?);
            }
            "netmask" => of.len = Some(mask_len(value()?)?),
            "prefixlen" => {
                let family = of.local.map_or(IpAddr::from([0_u8; 16]), |(addr, _)| addr);
                of.len = Some(prefix_len(value()?, family)?);
            }
            "alias" | "add" => of.add = true,
            "-alias" | "delete" | "del" | "remove" => of.remove = true,
            "link" | "lladdr" | "ether" => change.mac = Some(value()?.to_owned()),
            // A tunnel of packets is what there is; and IPv6 is not disabled.
            "-link0" | "-ifdisabled" => {}
            _ => of.take(word)?,
        }
    }
    change.address = of.address()?;
    Ok(change)
}

impl Words {
    /// Takes an address: ours, and then that of the other end.
    fn take(&mut self, word: &str) -> Result<(), Usage> {
        let (addr, len) = match word.split_once('/') {
            Some((addr, len)) => {
                let addr = address(addr)?;
                (addr, Some(prefix_len(len, addr)?))
            }
            None => (address(word)?, None),
        };
        match (self.local, len) {
            (None, _) => self.local = Some((addr, len)),
            (Some((local, _)), None)
                if self.dest.is_none() && local.is_ipv4() == addr.is_ipv4() =>
            {
                self.dest = Some(addr);
            }
            _ => return Err(Usage::new(format!("{word}: one address too many"))),
        }
        Ok(())
    }

    fn address(self) -> Result<Option<Address>, Usage> {
        let Some((local, len)) = self.local else {
            let lone =
                self.add || self.dest.is_some() || self.len.is_some() || self.ipv6 && self.remove;
            return match (lone, self.remove) {
                (true, _) => Err(Usage::new("an address is missing")),
                (false, remove) => Ok(remove.then_some(Address::RemoveFirst)),
            };
        };
        if local.is_ipv6() != self.ipv6 {
            return Err(Usage::new(format!("{local}: of the other family")));
        }
        if self.add && self.remove {
            return Err(Usage::new("alias and -alias at once"));
        }
        if self.remove {
            return Ok(Some(Address::Remove(local)));
        }
        // To have no address is to have this one.
        if local.is_unspecified() && local.is_ipv4() {
            return Ok(Some(Address::RemoveFirst));
        }
        let line = match self.dest {
            // The other end of such a link is on it whatever the netmask.
            Some(dest) if dest != local => format!("{local} peer {dest}"),
            dest => {
                let own = if dest.is_some() { 32 } else { class_len(local) };
                let usual = if local.is_ipv6() { 64 } else { own };
                format!("{local}/{}", len.or(self.len).unwrap_or(usual))
            }
        };
        // An IPv6 address never takes the place of another.
        Ok(Some(match self.add || self.ipv6 {
            true => Address::Add(local, line),
            false => Address::Set(local, line),
        }))
    }
}

impl Command {
    pub(super) fn run(self, tree: &Tree) -> Result<(), Failure> {
        match self {
            Self::Show(None) => {
                let names = tree.interfaces()?;
                let shown: Result<Vec<_>, _> = names.iter().map(|name| show(tree, name)).collect();
                say(shown?.concat().trim_end())
            }
            Self::Show(Some(name)) => say(show(tree, there(tree, &name)?)?.trim_end()),
            Self::Names => say(&tree.interfaces()?.join(" ")),
            Self::Create(name) => create(tree, &name),
            Self::Destroy(name) => tree.set(there(tree, &name)?, "destroy", "1"),
            Self::Change(name, change) => change.run(tree, there(tree, &name)?),
        }
    }
}

fn there<'a>(tree: &Tree, name: &'a str) -> Result<&'a str, Failure> {
    let names = tree.interfaces()?;
    match names.iter().any(|known| known == name) {
        true => Ok(name),
        false => Err(Failure::new(format!("interface {name} does not exist"))),
    }
}

/// Makes a tun interface. It comes with the first open of its device, and stays.
fn create(tree: &Tree, name: &str) -> Result<(), Failure> {
    if there(tree, name).is_ok() {
        return Err(Failure::new(format!("interface {name} already exists")));
    }
    let unit = name.strip_prefix("tun").unwrap_or_default();
    let path = format!("tun/{unit}");
    if unit.is_empty() || !unit.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(Failure::new(format!(
            "{name}: only tun interfaces can be made"
        )));
    }
    let open = OpenOptions::new()
        .read(true)
        .write(true)
        .open(tree.path(&path));
    open.map(drop)
        .map_err(|error| tree.explain(&path, None, &error))
}

impl Change {
    fn run(self, tree: &Tree, name: &str) -> Result<(), Failure> {
        if let Some(mac) = self.mac {
            tree.set(name, "mac", &mac)?;
        }
        // IPv6 needs an mtu that carries it.
        if let Some(mtu) = self.mtu {
            tree.set(name, "mtu", &mtu.to_string())?;
        }
        if let Some(address) = self.address {
            address.run(tree, name)?;
        }
        match self.up {
            Some(true) => tree.set(name, "flags", "up"),
            Some(false) => tree.set(name, "flags", "down"),
            None => Ok(()),
        }
    }
}

impl Address {
    fn run(self, tree: &Tree, name: &str) -> Result<(), Failure> {
        let list = tree.get(name, "addr/list")?;
        let own: Vec<(IpAddr, &str)> = list.lines().filter_map(parse_own).collect();
        let same = |wanted: IpAddr| own.iter().find(|(addr, _)| *addr == wanted);
        let first = || own.iter().find(|(addr, _)| addr.is_ipv4());
        match self {
            Self::Remove(addr) => tree.set(name, "addr/rm", &addr.to_string()),
            Self::RemoveFirst => match first() {
                Some((_, line)) => tree.set(name, "addr/rm", line),
                None => Ok(()),
            },
            Self::Add(addr, line) | Self::Set(addr, line)
                if same(addr).is_some_and(|(_, old)| *old == line) =>
            {
                // It may be left from the last time that the device was open. To set an address
                // brings an interface up.
                tree.set(name, "flags", "up")
            }
            // The same address with another network or peer.
            Self::Add(addr, line) | Self::Set(addr, line) if same(addr).is_some() => {
                if let Some((_, old)) = same(addr) {
                    tree.set(name, "addr/rm", old)?;
                }
                tree.set(name, "addr/add", &line)
            }
            Self::Add(_, line) => tree.set(name, "addr/add", &line),
            Self::Set(_, line) => {
                tree.set(name, "addr/add", &line)?;
                match first() {
                    Some((_, old)) => tree.set(name, "addr/rm", old),
                    None => Ok(()),
                }
            }
        }
    }
}

/// The address in a line of `addr/list`, and the line.
fn parse_own(line: &str) -> Option<(IpAddr, &str)> {
    let addr = line.split([' ', '/']).next()?;
    Some((addr.parse().ok()?, line))
}

/// An interface as BSD shows it.
fn show(tree: &Tree, name: &str) -> Result<String, Failure> {
    let get = |file: &str| tree.get(name, file);
    let (flags, mtu) = (get("flags")?, get("mtu")?);
    let (flags, mtu) = (flags.trim(), mtu.trim());
    let mut text = format!("{name}: flags={:x}<{flags}> mtu {mtu}\n", bits(flags));
    let mac = get("mac")?;
    if let [_, _] = mac.trim().splitn(2, '-').collect::<Vec<_>>()[..] {
        let _ = writeln!(text, "\tether {}", mac.trim().replace('-', ":"));
    }
    for line in get("addr/list")?.lines() {
        if let Some(shown) = show_address(line) {
            let _ = writeln!(text, "\t{shown}");
        }
    }
    text.push_str(&get("status")?);
    Ok(text)
}

/// The numbers of the flags on BSD.
fn bits(flags: &str) -> u32 {
    let bit = |flag: &str| match flag {
        "UP" => 0x1,
        "BROADCAST" => 0x2,
        "LOOPBACK" => 0x8,
        "POINTOPOINT" => 0x10,
        "RUNNING" => 0x40,
        "MULTICAST" => 0x8000,
        _ => 0,
    };
    flags.split(',').map(bit).sum()
}

fn show_address(line: &str) -> Option<String> {
    let (addr, rest) = parse_own(line)?;
    if let Some((_, peer)) = rest.split_once(" peer ") {
        let family = if addr.is_ipv4() { "inet" } else { "inet6" };
        let mask = if addr.is_ipv4() {
            "netmask 0xffffffff"
        } else {
            "prefixlen 128"
        };
        return Some(format!("{family} {addr} --> {peer} {mask}"));
    }
    let len: u8 = rest.split_once('/')?.1.parse().ok()?;
    match (addr, network(addr, len).ok()?) {
        (IpAddr::V4(addr), ipnet::IpNet::V4(net)) => {
            let mask = u32::from(net.netmask());
            let broadcast = match len {
                31.. => String::new(),
                _ => format!(" broadcast {}", net.broadcast()),
            };
            Some(format!("inet {addr} netmask {mask:#010x}{broadcast}"))
        }
        (addr, _) => Some(format!("inet6 {addr} prefixlen {len}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(line: &str) -> Change {
        let words: Vec<&str> = line.split(' ').collect();
        match parse(&words) {
            Ok(Command::Change(_, change)) => change,
            other => panic!("{line}: {other:?}"),
        }
    }

    /// The line that is set or added, the mtu, and up or down.
    fn does(line: &str) -> (String, Option<u16>, Option<bool>) {
        let change = change(line);
        let address = match change.address {
            Some(Address::Set(_, line)) => format!("set {line}"),
            Some(Address::Add(_, line)) => format!("add {line}"),
            Some(Address::Remove(addr)) => format!("rm {addr}"),
            Some(Address::RemoveFirst) => "rm".to_owned(),
            None => String::new(),
        };
        (address, change.mtu, change.up)
    }

    /// What OpenVPN's tun.c runs on each BSD, macOS and Haiku.
    #[test]
    fn openvpn() {
        for (line, address, mtu, up) in [
            // FreeBSD, DragonFly and NetBSD, and OpenBSD with its flag.
            (
                "tun2 10.2.0.2 10.2.0.1 mtu 1450 netmask 255.255.255.255 up",
                "set 10.2.0.2 peer 10.2.0.1",
                Some(1450),
                Some(true),
            ),
            (
                "tun2 10.2.0.2 10.2.0.1 mtu 1450 netmask 255.255.255.255 up -link0",
                "set 10.2.0.2 peer 10.2.0.1",
                Some(1450),
                Some(true),
            ),
            (
                "tun0 10.8.0.2/24 mtu 1500 up",
                "set 10.8.0.2/24",
                Some(1500),
                Some(true),
            ),
            (
                "tun0 10.8.0.2 10.8.0.1 mtu 1500 netmask 255.255.255.0 up",
                "set 10.8.0.2 peer 10.8.0.1",
                Some(1500),
                Some(true),
            ),
            (
                "tun0 10.8.0.2 netmask 255.255.255.0 mtu 1500",
                "set 10.8.0.2/24",
                Some(1500),
                None,
            ),
            // macOS.
            ("tun0 delete", "rm", None, None),
            (
                "tun0 10.8.0.2 10.8.0.2 netmask 255.255.255.0 mtu 1500 up",
                "set 10.8.0.2/24",
                Some(1500),
                Some(true),
            ),
            // Haiku.
            (
                "tun0 inet 10.8.0.2 10.8.0.1 mtu 1500 up",
                "set 10.8.0.2 peer 10.8.0.1",
                Some(1500),
                Some(true),
            ),
            (
                "tun0 inet6 fd00::2/64 mtu 1500 up",
                "add fd00::2/64",
                Some(1500),
                Some(true),
            ),
            ("tun0 inet6 -ifdisabled", "", None, None),
            ("tun0 10.8.0.2 -alias", "rm 10.8.0.2", None, None),
            ("tun0 inet6 fd00::2/64 -alias", "rm fd00::2", None, None),
        ] {
            assert_eq!(does(line), (address.to_owned(), mtu, up), "{line}");
        }
        assert_eq!(
            parse(&["tun0", "destroy"]),
            Ok(Command::Destroy("tun0".to_owned()))
        );
    }

    /// What tinc's scripts and manual have, and what its `ifconfig.c` writes.
    #[test]
    fn tinc() {
        for (line, address) in [
            ("tun0 192.168.1.1 netmask 255.255.0.0", "set 192.168.1.1/16"),
            ("tun0 10.1.54.1 netmask 255.0.0.0", "set 10.1.54.1/8"),
            ("tun0 172.168.1.1/16", "set 172.168.1.1/16"),
            ("tun0 inet6 fd00::1/64", "add fd00::1/64"),
            ("tun0 inet6 fd00::1 prefixlen 48", "add fd00::1/48"),
        ] {
            assert_eq!(does(line), (address.to_owned(), None, None), "{line}");
        }
        assert_eq!(does("tun0 up").2, Some(true));
        assert_eq!(does("tun0 down").2, Some(false));
        let mac = change("eth0 link fe:fd:0:0:0:1").mac;
        assert_eq!(mac.as_deref(), Some("fe:fd:0:0:0:1"));
    }

    /// What openconnect's and vpnc's vpnc-script runs where there is no `ip`.
    #[test]
    fn vpnc_script() {
        let (address, mtu, up) =
            does("tun0 inet 10.8.0.2 10.8.0.2 netmask 255.255.255.255 mtu 1412 up");
        assert_eq!(
            (&*address, mtu, up),
            ("set 10.8.0.2/32", Some(1412), Some(true))
        );
        let (address, mtu, up) = does("tun0 inet6 fd00::2/64 mtu 1412 up");
        assert_eq!(
            (&*address, mtu, up),
            ("add fd00::2/64", Some(1412), Some(true))
        );
        assert_eq!(does("tun0 0.0.0.0").0, "rm");
        assert_eq!(does("tun0 inet6 del fd00::2/128").0, "rm fd00::2");
        assert_eq!(parse(&["tun0"]), Ok(Command::Show(Some("tun0".to_owned()))));
        assert_eq!(
            parse(&["tun0", "create"]),
            Ok(Command::Create("tun0".to_owned()))
        );
        // It looks for the name of a program that is not this one.
        assert!(parse(&["--help"]).is_err());
    }

    /// What iodine's tun.c runs: with the other end on FreeBSD, with itself elsewhere.
    #[test]
    fn iodine() {
        let other = does("tun0 10.0.0.2 10.0.0.1 netmask 255.255.255.224").0;
        assert_eq!(other, "set 10.0.0.2 peer 10.0.0.1");
        let itself = does("tun0 10.0.0.2 10.0.0.2 netmask 255.255.255.224").0;
        assert_eq!(itself, "set 10.0.0.2/27");
        assert_eq!(does("tun0 mtu 1130").1, Some(1130));
    }

    #[test]
    fn the_words_of_the_manual() {
        assert_eq!(
            does("tun0 10.0.0.3 netmask 0xffffffff alias").0,
            "add 10.0.0.3/32"
        );
        assert_eq!(does("tun0 inet 10.0.0.3 delete").0, "rm 10.0.0.3");
        assert_eq!(does("tun0 192.168.1.1").0, "set 192.168.1.1/24");
        for none in [&[][..], &["-a"]] {
            assert_eq!(parse(none), Ok(Command::Show(None)));
        }
        assert_eq!(parse(&["-l"]), Ok(Command::Names));
    }

    #[test]
    fn anything_else_is_a_usage_error() {
        for line in [
            "-x",
            "tun0 x",
            "tun0 mtu",
            "tun0 mtu x",
            "tun0 mtu 65536",
            "tun0 netmask 255.255.255.0",
            "tun0 10.0.0.1 netmask",
            "tun0 10.0.0.1 netmask 255.0.255.0",
            "tun0 10.0.0.1/33",
            "tun0 10.0.0.1/",
            "tun0 10.0.0.1 10.0.0.2 10.0.0.3",
            "tun0 10.0.0.1 10.0.0.2/24",
            "tun0 10.0.0.1 fd00::1",
            "tun0 fd00::1/64",
            "tun0 inet6 10.0.0.1",
            "tun0 inet6 fd00::1/129",
            "tun0 alias",
            "tun0 inet6 -alias",
            "tun0 10.0.0.1 alias -alias",
            "tun0 link",
            "tun0 create up",
            "tun0 destroy now",
            "tun0 link0",
            "../tun0 up",
            " up",
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            assert!(parse(&words).is_err(), "{line}");
        }
    }

    #[test]
    fn addresses_as_bsd_shows_them() {
        for (line, shown) in [
            (
                "10.8.0.1 peer 10.8.0.2",
                "inet 10.8.0.1 --> 10.8.0.2 netmask 0xffffffff",
            ),
            (
                "10.8.0.1/24",
                "inet 10.8.0.1 netmask 0xffffff00 broadcast 10.8.0.255",
            ),
            ("10.8.0.1/32", "inet 10.8.0.1 netmask 0xffffffff"),
            ("fd00::1/64", "inet6 fd00::1 prefixlen 64"),
        ] {
            assert_eq!(show_address(line).as_deref(), Some(shown));
        }
        assert_eq!(bits("UP,POINTOPOINT,RUNNING,MULTICAST"), 0x8051);
    }
}

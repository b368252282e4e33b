//! The tree of files, and explanations for people of the errors there.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

/// An error, with advice.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The tree of files that tund serves.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
}

impl Tree {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn root(&self) -> &std::path::Path {
        &self.root
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The text of a file.
    pub(crate) fn read(&self, path: &str) -> Result<String, Failure> {
        fs::read_to_string(self.path(path)).map_err(|error| self.explain(path, None, &error))
    }

    /// Writes a line.
    pub(crate) fn write(&self, path: &str, line: &str) -> Result<(), Failure> {
        let write = || {
            let mut file = OpenOptions::new().write(true).open(self.path(path))?;
            file.write_all(format!("{line}\n").as_bytes())
        };
        write().map_err(|error| self.explain(path, Some(line), &error))
    }

    /// The line of the route that packets to an address take.
    pub(crate) fn lookup(&self, dst: IpAddr) -> Result<String, Failure> {
        let path = "netcfg/route/lookup";
        let ask = || {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .open(self.path(path))?;
            file.write_all(format!("{dst}\n").as_bytes())?;
            io::read_to_string(file)
        };
        ask().map_err(|error| match error.raw_os_error() {
            Some(100) => Failure::new(format!("{dst}: the interface of the route is down")),
            Some(101) => Failure::new(format!("{dst}: no route")),
            Some(113) => Failure::new(format!("{dst}: unreachable, as a route says")),
            _ => self.explain(path, None, &error),
        })
    }

    /// The text of a file of an interface.
    pub(crate) fn get(&self, interface: &str, file: &str) -> Result<String, Failure> {
        self.read(&format!(
            "netcfg/ifaces/{}/{file}",
            self.interface(interface)?
        ))
    }

    /// Writes a line to a file of an interface.
    pub(crate) fn set(&self, interface: &str, file: &str, line: &str) -> Result<(), Failure> {
        let path = format!("netcfg/ifaces/{}/{file}", self.interface(interface)?);
        self.write(&path, line)
    }

    /// Names of the interfaces.
    pub(crate) fn interfaces(&self) -> Result<Vec<String>, Failure> {
        let path = "netcfg/ifaces";
        let list = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(self.path(path))? {
                names.push(entry?.file_name().to_string_lossy().into_owned());
            }
            names.sort_by(|a, b| by_number(a).cmp(&by_number(b)));
            Ok(names)
        };
        list().map_err(|error| self.explain(path, None, &error))
    }

    /// Checks that there is such an interface. The error lists those that exist.
    pub(crate) fn interface<'a>(&self, name: &'a str) -> Result<&'a str, Failure> {
        let names = self.interfaces()?;
        if names.iter().any(|known| known == name) {
            return Ok(name);
        }
        Err(Failure::new(format!(
            "there is no interface {name}; there are: {}. A tun interface comes with the first open \
             of its device.",
            names.join(", ")
        )))
    }

    /// The process that has the device of an interface open, if there is one.
    fn opened_by(&self, interface: &str) -> Option<u32> {
        let status = self.path(&format!("netcfg/ifaces/{interface}/status"));
        let status = fs::read_to_string(status).ok()?;
        status.split_ascii_whitespace().last()?.parse().ok()
    }

    /// Turns a system error into an explanation.
    pub(crate) fn explain(&self, path: &str, line: Option<&str>, error: &io::Error) -> Failure {
        let root = self.root.display();
        if matches!(
            error.kind(),
            ErrorKind::ConnectionAborted | ErrorKind::NotConnected
        ) {
            return Failure::new(format!(
                "tund, which served {root}, has ended. Start it again; if {root} is still mounted, \
                 `umount {root}` first."
            ));
        }
        if !self.path("netcfg").exists() {
            return Failure::new(format!(
                "tund serves nothing at {root}. On Linux start it with `tund --mount DIR`, as root, \
                 and say where with `--root DIR` or TUND_ROOT=DIR."
            ));
        }
        let what = line.unwrap_or(path);
        let interface = interface_of(path).unwrap_or_default();
        Failure::new(match (error.kind(), error.raw_os_error()) {
            (ErrorKind::PermissionDenied, _) => format!("{path}: only root may do that"),
            (ErrorKind::InvalidInput, _) if path.ends_with("/destroy") => {
                format!("{interface}: {}", self.hint(path, what))
            }
            (ErrorKind::InvalidInput, _) => {
                format!("'{what}' was refused: {}", self.hint(path, what))
            }
            (ErrorKind::ResourceBusy, _) => match self.opened_by(&interface) {
                Some(pid) => format!("{path}: the device is open by PID {pid}"),
                None => format!("{path}: the device is open, by another program"),
            },
            (_, Some(100)) => {
                format!("{path}: the interface of the route is down; `tunctl up` brings it up")
            }
            (_, Some(101)) => format!("{path}: no route; `tunctl route` shows those there are"),
            (_, Some(112)) if path.starts_with("tun/") => {
                format!("{path}: the device was shut, or its interface removed")
            }
            (_, Some(112)) => format!("{path}: no program has the tun device open"),
            _ => format!("{path}: {error}"),
        })
    }

    /// The reason why a file did not accept this line, or the lines that it accepts.
    fn hint(&self, path: &str, line: &str) -> String {
        if let (true, Some(network)) = (path.contains("/route/"), network_of(line)) {
            return format!("the destination has host bits set; its network is {network}");
        }
        let hint = match path.rsplit('/').next().unwrap_or_default() {
            "set" | "add" if path.contains("/addr/") => return self.address_hint(path, line),
            "rm" if path.contains("/addr/") => {
                "the interface does not have that address; `tunctl addr` shows those it has"
            }
            "add" => {
                "a route is PREFIX [via ROUTER] [dev INTERFACE] [src ADDRESS] [metric N], with a \
                 router that is on a link or an interface that is there, or PREFIX unreachable \
                 [metric N]"
            }
            "rm" => "there is no such route; `tunctl route` shows those there are",
            "mtu" => "an mtu is 72 to 65535",
            "queue" => "a queue is: fifo limit N packets M bytes",
            "destroy" if interface_of(path).as_deref() == Some("lo0") => {
                "the loopback interface stays"
            }
            "destroy" => "only a tun interface can be removed",
            _ => "see `tunctl --help`",
        };
        hint.to_owned()
    }

    /// The reason why an interface did not accept an address.
    fn address_hint(&self, path: &str, line: &str) -> String {
        let interface = interface_of(path).unwrap_or_default();
        let Some(wanted) = address(line) else {
            return "an address is ADDRESS/LENGTH, or ADDRESS peer ADDRESS".to_owned();
        };
        let own = self.get(&interface, "addr/list").unwrap_or_default();
        if path.ends_with("/add") && own.lines().any(|own| address(own) == Some(wanted)) {
            return format!("{interface} already has {wanted}");
        }
        let mtu = self.get(&interface, "mtu").unwrap_or_default();
        match mtu.trim().parse() {
            Ok(0..1280_u32) if wanted.is_ipv6() => {
                format!(
                    "IPv6 needs an mtu of 1280, and {interface} has {}",
                    mtu.trim()
                )
            }
            _ => "no host can have this address, or the interface has as many as it can".to_owned(),
        }
    }
}

/// The order in which people count: tun2 before tun10.
fn by_number(name: &str) -> (&str, usize, &str) {
    let word = name.trim_end_matches(|digit: char| digit.is_ascii_digit());
    let number = name[word.len()..].trim_start_matches('0');
    (word, number.len(), number)
}

/// The network of a route's destination that has host bits, which no route may have.
fn network_of(line: &str) -> Option<IpNet> {
    let prefix: IpNet = line.split_ascii_whitespace().next()?.parse().ok()?;
    (prefix.addr() != prefix.network()).then(|| prefix.trunc())
}

/// The interface that a path is about.
fn interface_of(path: &str) -> Option<String> {
    match path.split('/').collect::<Vec<_>>()[..] {
        ["netcfg", "ifaces", interface, ..] => Some(interface.to_owned()),
        ["tun", unit] => Some(format!("tun{unit}")),
        _ => None,
    }
}

/// The address of a line `ADDRESS/LENGTH` or `ADDRESS peer ADDRESS`, if it is one.
fn address(line: &str) -> Option<IpAddr> {
    match line.split_ascii_whitespace().collect::<Vec<_>>()[..] {
        [network] => match network.parse::<IpNet>() {
            Ok(network) => Some(network.addr()),
            Err(_) => network.parse().ok(),
        },
        [address, "peer", peer] => {
            let _: IpAddr = peer.parse().ok()?;
            address.parse().ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_in_the_order_of_their_numbers() {
        let mut names = [
            "tun10", "tun1", "lo0", "tun2", "eth0.7", "eth0.12", "tun", "8",
        ];
        names.sort_by(|a, b| by_number(a).cmp(&by_number(b)));
        let sorted = [
            "8", "eth0.7", "eth0.12", "lo0", "tun", "tun1", "tun2", "tun10",
        ];
        assert_eq!(names, sorted);
    }

    #[test]
    fn host_bits_are_named() {
        let network = |line: &str| network_of(line).map(|network| network.to_string());
        assert_eq!(
            network("10.1.0.1/16 dev tun0"),
            Some("10.1.0.0/16".to_owned())
        );
        assert_eq!(network("fd00::1/64"), Some("fd00::/64".to_owned()));
        assert_eq!(network("10.1.0.0/16 dev tun0"), None);
        assert_eq!(network("default via 10.0.0.2"), None);
    }
}

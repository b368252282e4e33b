//! The file that describes a tunnel: what wg-quick(8) reads.
//!
//! ```
//! let text = "[Interface]\nPrivateKey = dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\nMTU = 70\n";
//! let problems = wireguard::config::parse(text.as_bytes()).unwrap_err();
//! assert_eq!(problems[0].to_string(), "3: MTU: a number from 576 to 65535");
//! ```

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::key::{Public, Secret};

/// Largest file that is read, bytes.
pub const MAX_FILE: u64 = 1 << 20;
/// mtu of the interface, bytes, if the file does not say: what fits into 1500 with an IPv6 header
/// of 40 bytes, UDP's of 8 and WireGuard's of 32.
const DEFAULT_MTU: u16 = 1420;
/// Smallest mtu, bytes: what every IPv4 host takes (RFC 791 section 3.1).
const MIN_MTU: u16 = 576;
/// Smallest mtu with IPv6, bytes (RFC 8200 section 5).
const MIN_MTU_IPV6: u16 = 1280;
/// Most of a text that a message shows, characters; fewer than a key has.
const SHOWN: usize = 40;

/// A tunnel, as its file describes it.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our private key.
    pub private_key: Secret,
    /// Addresses of the interface, with the network around them.
    pub addresses: Vec<Network>,
    /// UDP port on which we listen; 0 for any.
    pub listen_port: u16,
    /// Largest packet of the interface, bytes.
    pub mtu: u16,
    /// Name servers to be used while the tunnel is there.
    pub dns: Vec<IpAddr>,
    /// Whether what peers are allowed becomes routes: not with `Table = off`.
    pub routes: bool,
    /// Those at the other ends.
    pub peers: Vec<Peer>,
    /// Lines that were passed over, and why.
    pub warnings: Vec<Problem>,
}

/// A peer, as the file describes it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its public key, which is its name.
    pub public_key: Public,
    /// A key that only it and we know, mixed into the handshake.
    pub preshared_key: Option<Secret>,
    /// Where it is reached; without, it has to call us.
    pub endpoint: Option<Endpoint>,
    /// Networks that are behind it.
    pub allowed_ips: Vec<Network>,
    /// Seconds after which something is sent so that gateways on the way remember us.
    pub keepalive: Option<u16>,
    /// The line of its section, from 1.
    pub line: usize,
}

/// A network, or an address in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The network.
    pub net: IpNet,
    /// The line in the file, from 1.
    pub line: usize,
}

/// Where a peer is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Name or address, and port.
    pub host: Host,
    /// The line in the file, from 1.
    pub line: usize,
}

/// Name or address, and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An address.
    Address(SocketAddr),
    /// A name that must be looked up.
    Name(String, u16),
}

/// What is wrong, or was passed over, in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.what)
    }
}

/// Reads a file. Everything that is wrong is told at once, in the order of lines.
pub fn parse(text: &[u8]) -> Result<Config, Vec<Problem>> {
    let mut parser = Parser::default();
    for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
        parser.number = index + 1;
        match std::str::from_utf8(line) {
            Ok(line) => parser.line(line),
            Err(_) => parser.error("not UTF-8"),
        }
    }
    parser.finish()
}

#[derive(Default)]
struct Parser {
    /// The line that is read.
    number: usize,
    section: Section,
    interface: Option<Interface>,
    peers: Vec<Partial>,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Section {
    #[default]
    None,
    Interface,
    Peer,
    /// One that we do not know: named once, its lines are passed over.
    Unknown,
}

/// `[Interface]`, as far as it was read.
#[derive(Default)]
struct Interface {
    line: usize,
    /// Keys that may be there once, and where they were.
    seen: Seen,
    private_key: Option<Secret>,
    addresses: Vec<Network>,
    listen_port: u16,
    mtu: Option<(u16, usize)>,
    dns: Vec<IpAddr>,
    table_off: bool,
}

/// `[Peer]`, as far as it was read.
#[derive(Default)]
struct Partial {
    line: usize,
    seen: Seen,
    public_key: Option<(Public, usize)>,
    preshared_key: Option<Secret>,
    endpoint: Option<Endpoint>,
    allowed_ips: Vec<Network>,
    keepalive: Option<u16>,
}

type Seen = HashMap<&'static str, usize>;

impl Parser {
    fn error(&mut self, what: impl Into<String>) {
        self.errors.push(Problem {
            line: self.number,
            what: what.into(),
        });
    }

    fn line(&mut self, line: &str) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            return;
        }
        if line.starts_with('[') {
            return self.section(line);
        }
        let Some((key, value)) = line.split_once('=') else {
            return self.error("neither [Section] nor Key = Value");
        };
        let (key, value) = (key.trim(), value.trim());
        match self.section {
            Section::None => self.error(format!("{}: before any section", shown(key))),
            Section::Unknown => {}
            Section::Interface => self.interface(key, value),
            Section::Peer => self.peer(key, value),
        }
    }

    fn section(&mut self, line: &str) {
        if line.eq_ignore_ascii_case("[Interface]") {
            self.section = Section::Interface;
            match &self.interface {
                Some(Interface { line, .. }) => {
                    let first = *line;
                    self.error(format!(
                        "a second [Interface], the first is in line {first}"
                    ));
                }
                None => {
                    self.interface = Some(Interface {
                        line: self.number,
                        ..Interface::default()
                    })
                }
            }
        } else if line.eq_ignore_ascii_case("[Peer]") {
            self.section = Section::Peer;
            self.peers.push(Partial {
                line: self.number,
                ..Partial::default()
            });
        } else {
            self.section = Section::Unknown;
            self.error(format!(
                "{}: only [Interface] and [Peer] are known",
                shown(line)
            ));
        }
    }

    fn interface(&mut self, key: &str, value: &str) {
        let number = self.number;
        let Some(interface) = &mut self.interface else {
            return;
        };
        let done = match Key::of(INTERFACE, key) {
            None => Err(format!("{}: not known in [Interface]", shown(key))),
            Some(key) => once(&mut interface.seen, key, number).and_then(|()| {
                let in_key = |what: String| format!("{}: {what}", key.name);
                match key.name {
                    "PrivateKey" => Secret::parse(value)
                        .map(|secret| interface.private_key = Some(secret))
                        .map_err(|error| error.to_string()),
                    "Address" => networks(value, number).map(|all| interface.addresses.extend(all)),
                    "ListenPort" => {
                        range(value, 0, u16::MAX).map(|port| interface.listen_port = port)
                    }
                    "MTU" => range(value, MIN_MTU, u16::MAX)
                        .map(|mtu| interface.mtu = Some((mtu, number))),
                    "DNS" => {
                        let (servers, domains) = name_servers(value)?;
                        interface.dns.extend(servers);
                        if domains {
                            let what = "DNS: a search domain is passed over".to_owned();
                            self.warnings.push(Problem { line: number, what });
                        }
                        Ok(())
                    }
                    "Table" if value.eq_ignore_ascii_case("off") => {
                        interface.table_off = true;
                        Ok(())
                    }
                    "Table" if value.eq_ignore_ascii_case("auto") => Ok(()),
                    "Table" => Err("off or auto: there is one routing table".to_owned()),
                    _ => {
                        let what = in_key("passed over".to_owned());
                        self.warnings.push(Problem { line: number, what });
                        Ok(())
                    }
                }
                .map_err(in_key)
            }),
        };
        if let Err(what) = done {
            self.error(what);
        }
    }

    fn peer(&mut self, key: &str, value: &str) {
        let number = self.number;
        let Some(peer) = self.peers.last_mut() else {
            return;
        };
        let done = match Key::of(PEER, key) {
            None => Err(format!("{}: not known in [Peer]", shown(key))),
            Some(key) => once(&mut peer.seen, key, number).and_then(|()| {
                match key.name {
                    "PublicKey" => Public::parse(value)
                        .map(|key| peer.public_key = Some((key, number)))
                        .map_err(|error| error.to_string()),
                    "PresharedKey" => Secret::parse(value)
                        .map(|secret| peer.preshared_key = Some(secret))
                        .map_err(|error| error.to_string()),
                    "Endpoint" => host(value)
                        .map(|host| peer.endpoint = Some(Endpoint { host, line: number })),
                    "PersistentKeepalive" if value.eq_ignore_ascii_case("off") => Ok(()),
                    "PersistentKeepalive" => range(value, 0, u16::MAX)
                        .map(|seconds| {
                            peer.keepalive = Some(seconds).filter(|&seconds| seconds > 0)
                        })
                        .map_err(|what| format!("{what}, or off")),
                    // AllowedIPs: the list may be empty, and there may be several.
                    _ if value.is_empty() => Ok(()),
                    _ => networks(value, number).map(|mut all| {
                        all.iter_mut()
                            .for_each(|network| network.net = network.net.trunc());
                        peer.allowed_ips.extend(all);
                    }),
                }
                .map_err(|what| format!("{}: {what}", key.name))
            }),
        };
        if let Err(what) = done {
            self.error(what);
        }
    }

    /// What only the whole file can tell.
    fn finish(mut self) -> Result<Config, Vec<Problem>> {
        let interface = self.interface.take();
        let (own, line) = match &interface {
            Some(Interface {
                private_key, line, ..
            }) => (private_key.as_ref().map(Secret::public), *line),
            None => (None, 1),
        };
        let at = |line, what: &str| Problem {
            line,
            what: what.to_owned(),
        };
        match &interface {
            None => self.errors.push(at(1, "no [Interface]")),
            Some(interface) if !interface.seen.contains_key("PrivateKey") => {
                self.errors.push(at(line, "[Interface] without PrivateKey"));
            }
            Some(_) => {}
        }
        let mut keys = HashMap::new();
        let mut prefixes: HashMap<IpNet, (usize, usize)> = HashMap::new();
        let mut peers: Vec<Peer> = Vec::new();
        for (index, peer) in self.peers.into_iter().enumerate() {
            if !peer.seen.contains_key("PublicKey") {
                self.errors.push(at(peer.line, "[Peer] without PublicKey"));
            }
            let Some((public_key, line)) = peer.public_key else {
                continue;
            };
            if Some(public_key) == own {
                self.errors.push(at(
                    line,
                    "PublicKey: our own, that of the other end is needed",
                ));
            }
            if let Some(first) = keys.insert(public_key, line) {
                let what = format!("PublicKey: the peer in line {first} has it already");
                self.errors.push(Problem { line, what });
            }
            for &Network { net, line } in &peer.allowed_ips {
                match prefixes.insert(net, (index, line)) {
                    Some((other, first)) if other != index => {
                        let what = format!(
                            "AllowedIPs: {net} goes from the peer in line {first} to this one"
                        );
                        self.warnings.push(Problem { line, what });
                    }
                    _ => {}
                }
            }
            peers.push(Peer {
                public_key,
                preshared_key: peer.preshared_key,
                endpoint: peer.endpoint,
                allowed_ips: peer.allowed_ips,
                keepalive: peer.keepalive,
                line: peer.line,
            });
        }
        let interface = interface.unwrap_or_default();
        if let Some((mtu, line)) = interface.mtu
            && mtu < MIN_MTU_IPV6
            && interface
                .addresses
                .iter()
                .any(|address| matches!(address.net, IpNet::V6(_)))
        {
            self.errors.push(at(line, "MTU: IPv6 needs 1280"));
        }
        self.errors.sort_by_key(|problem| problem.line);
        self.warnings.sort_by_key(|problem| problem.line);
        match interface.private_key {
            Some(private_key) if self.errors.is_empty() => Ok(Config {
                private_key,
                addresses: interface.addresses,
                listen_port: interface.listen_port,
                mtu: interface.mtu.map_or(DEFAULT_MTU, |(mtu, _)| mtu),
                dns: interface.dns,
                routes: !interface.table_off,
                peers,
                warnings: self.warnings,
            }),
            _ => Err(self.errors),
        }
    }
}

/// A key that a section may have.
#[derive(Clone, Copy)]
struct Key {
    name: &'static str,
    /// Whether it may be there more than once.
    many: bool,
}

const INTERFACE: &[Key] = &[
    Key {
        name: "PrivateKey",
        many: false,
    },
    Key {
        name: "Address",
        many: true,
    },
    Key {
        name: "ListenPort",
        many: false,
    },
    Key {
        name: "MTU",
        many: false,
    },
    Key {
        name: "DNS",
        many: true,
    },
    Key {
        name: "Table",
        many: false,
    },
    // What follows is passed over: there is no shell to run commands in, and no firewall mark.
    Key {
        name: "PreUp",
        many: true,
    },
    Key {
        name: "PostUp",
        many: true,
    },
    Key {
        name: "PreDown",
        many: true,
    },
    Key {
        name: "PostDown",
        many: true,
    },
    Key {
        name: "SaveConfig",
        many: true,
    },
    Key {
        name: "FwMark",
        many: true,
    },
];

const PEER: &[Key] = &[
    Key {
        name: "PublicKey",
        many: false,
    },
    Key {
        name: "PresharedKey",
        many: false,
    },
    Key {
        name: "Endpoint",
        many: false,
    },
    Key {
        name: "AllowedIPs",
        many: true,
    },
    Key {
        name: "PersistentKeepalive",
        many: false,
    },
];

impl Key {
    fn of(known: &[Self], name: &str) -> Option<Self> {
        known
            .iter()
            .copied()
            .find(|key| key.name.eq_ignore_ascii_case(name))
    }
}

fn once(seen: &mut Seen, key: Key, line: usize) -> Result<(), String> {
    match seen.insert(key.name, line) {
        Some(first) if !key.many => Err(format!(
            "{}: a second one, the first is in line {first}",
            key.name
        )),
        _ => Ok(()),
    }
}

fn range(value: &str, min: u16, max: u16) -> Result<u16, String> {
    let number = value
        .parse::<u16>()
        .ok()
        .filter(|_| value.bytes().all(|byte| byte.is_ascii_digit()));
    number
        .filter(|number| (min..=max).contains(number))
        .ok_or_else(|| format!("a number from {min} to {max}"))
}

/// A list of addresses, each with the length of its network or alone.
fn networks(value: &str, line: usize) -> Result<Vec<Network>, String> {
    let one = |text: &str| address(text.trim()).map(|net| Network { net, line });
    value.split(',').map(one).collect()
}

fn address(text: &str) -> Result<IpNet, String> {
    let net = text.parse::<IpNet>().ok();
    net.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
        .ok_or_else(|| format!("{}: an address, or ADDRESS/LENGTH", shown(text)))
}

/// A list of name servers, and whether there were domains in it.
fn name_servers(value: &str) -> Result<(Vec<IpAddr>, bool), String> {
    let mut servers = Vec::new();
    let mut domains = false;
    for text in value.split(',').map(str::trim) {
        match text.parse() {
            Ok(server) => servers.push(server),
            Err(_) if is_name(text) => domains = true,
            Err(_) => return Err(format!("DNS: {}: an address", shown(text))),
        }
    }
    Ok((servers, domains))
}

fn host(value: &str) -> Result<Host, String> {
    let wrong = || {
        format!(
            "{}: ADDRESS:PORT, [ADDRESS]:PORT or NAME:PORT",
            shown(value)
        )
    };
    let (name, port) = value.rsplit_once(':').ok_or_else(wrong)?;
    let port = range(port, 1, u16::MAX).map_err(|what| format!("port: {what}"))?;
    if let Ok(address) = value.parse::<SocketAddr>() {
        return Ok(Host::Address(address));
    }
    match is_name(name) {
        true => Ok(Host::Name(name.to_owned(), port)),
        false => Err(wrong()),
    }
}

/// Whether a text can be the name of a host (RFC 1123 section 2.1), and not a broken address.
fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let text = text.strip_suffix('.').unwrap_or(text);
    text.len() <= 253
        && text.split('.').all(label)
        && text
            .rsplit('.')
            .next()
            .is_some_and(|last| !last.bytes().all(|byte| byte.is_ascii_digit()))
}

/// What somebody wrote, short enough for a message. What may be a key is not shown, wherever it is.
fn shown(text: &str) -> String {
    let in_key = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    if text.split(|c| !in_key(c)).any(|word| word.len() >= SHOWN) {
        return "(hidden)".to_owned();
    }
    let short: String = text.chars().take(SHOWN).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("{}{more}", short.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
    const A_PUBLIC: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
    const B_PUBLIC: &str = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=";

    fn problems(text: &str) -> Vec<String> {
        match parse(text.as_bytes()) {
            Ok(config) => panic!("{config:?}"),
            Err(problems) => problems.iter().map(ToString::to_string).collect(),
        }
    }

    /// What is wrong with a line in `[Interface]`, or in a `[Peer]` that follows.
    fn wrong_in_interface(line: &str) -> String {
        let all = problems(&format!(
            "[Interface]\nPrivateKey={A}\n{line}\n[Peer]\nPublicKey={B_PUBLIC}\n"
        ));
        assert_eq!(all.len(), 1, "{line}: {all:?}");
        all[0].strip_prefix("3: ").expect(line).to_owned()
    }

    fn wrong_in_peer(line: &str) -> String {
        let all = problems(&format!(
            "[Interface]\nPrivateKey={A}\n[Peer]\nPublicKey={B_PUBLIC}\n{line}\n"
        ));
        assert_eq!(all.len(), 1, "{line}: {all:?}");
        all[0].strip_prefix("5: ").expect(line).to_owned()
    }

    #[test]
    fn a_whole_file() {
        let text = format!(
            "# a comment\r\n[interface]\r\nprivatekey={A} # behind a value, too\r\n\
             Address = 10.0.0.2/24, fd00::2/64\nAddress=10.0.1.2\nListenPort = 51820\nMTU=1380\n\
             DNS = 9.9.9.9, 2620:fe::fe, example.org\nTable = off\nPostUp = iptables -A x = y\nFwMark = 0x1\n\
             SaveConfig = true\n\n[Peer]\nPublicKey = {B_PUBLIC}\nPresharedKey = {A}\n\
             AllowedIPs = 10.0.0.1/24,fd00::/64\nAllowedIPs = 0.0.0.0/0\nEndpoint = [fe80::1]:51820\n\
             PersistentKeepalive = 25\n"
        );
        let config = parse(text.as_bytes()).unwrap();
        assert_eq!(config.private_key.public().to_string(), A_PUBLIC);
        let texts = |nets: &[Network]| {
            nets.iter()
                .map(|network| network.net.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            texts(&config.addresses),
            ["10.0.0.2/24", "fd00::2/64", "10.0.1.2/32"]
        );
        assert_eq!(
            (config.listen_port, config.mtu, config.routes),
            (51820, 1380, false)
        );
        assert_eq!(
            config.dns,
            [
                "9.9.9.9".parse::<IpAddr>().unwrap(),
                "2620:fe::fe".parse().unwrap()
            ]
        );
        let warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
        let passed_over = [
            "10: PostUp: passed over",
            "11: FwMark: passed over",
            "12: SaveConfig: passed over",
        ];
        assert_eq!(warnings[0], "8: DNS: a search domain is passed over");
        assert_eq!(warnings[1..], passed_over);
        let [peer] = &config.peers[..] else {
            panic!("{config:?}")
        };
        assert_eq!(
            texts(&peer.allowed_ips),
            ["10.0.0.0/24", "fd00::/64", "0.0.0.0/0"]
        );
        let endpoint = Endpoint {
            host: Host::Address("[fe80::1]:51820".parse().unwrap()),
            line: 19,
        };
        assert_eq!(peer.endpoint, Some(endpoint));
        assert_eq!((peer.keepalive, peer.line), (Some(25), 14));
        assert!(peer.preshared_key.is_some());
        assert!(!format!("{config:?}").contains(A));
    }

    #[test]
    fn what_may_be_left_out() {
        let config = parse(format!("[Interface]\nPrivateKey={A}").as_bytes()).unwrap();
        assert_eq!(
            (config.listen_port, config.mtu, config.routes),
            (0, 1420, true)
        );
        assert!(config.peers.is_empty() && config.warnings.is_empty());
        let text = format!(
            "[Interface]\nPrivateKey={A}\nTable=auto\n[Peer]\nPublicKey={B_PUBLIC}\nAllowedIPs =\n\
             PersistentKeepalive = off\nEndpoint = vpn.example.org:1\n"
        );
        let peer = &parse(text.as_bytes()).unwrap().peers[0];
        assert_eq!((peer.keepalive, peer.allowed_ips.len()), (None, 0));
        let host = &peer.endpoint.as_ref().unwrap().host;
        assert_eq!(host, &Host::Name("vpn.example.org".to_owned(), 1));
    }

    #[test]
    fn each_wrong_line_of_an_interface() {
        let key = "a key is 32 bytes in base64, 44 characters";
        for (line, what) in [
            ("x", "neither [Section] nor Key = Value"),
            ("Colour = red", "Colour: not known in [Interface]"),
            ("PublicKey = x", "PublicKey: not known in [Interface]"),
            (
                "PrivateKey = x",
                "PrivateKey: a second one, the first is in line 2",
            ),
            (
                "Address = 10.0.0.1/33",
                "Address: 10.0.0.1/33: an address, or ADDRESS/LENGTH",
            ),
            (
                "Address = 10.0.0.1,,10.0.0.2",
                "Address: : an address, or ADDRESS/LENGTH",
            ),
            ("Address =", "Address: : an address, or ADDRESS/LENGTH"),
            (
                "Address = fd00::/129",
                "Address: fd00::/129: an address, or ADDRESS/LENGTH",
            ),
            (
                "Address = localhost",
                "Address: localhost: an address, or ADDRESS/LENGTH",
            ),
            ("ListenPort = 65536", "ListenPort: a number from 0 to 65535"),
            ("ListenPort = -1", "ListenPort: a number from 0 to 65535"),
            ("ListenPort = +1", "ListenPort: a number from 0 to 65535"),
            ("ListenPort =", "ListenPort: a number from 0 to 65535"),
            ("MTU = 575", "MTU: a number from 576 to 65535"),
            ("MTU = 65536", "MTU: a number from 576 to 65535"),
            ("DNS = 9.9.9.256", "DNS: 9.9.9.256: an address"),
            ("DNS = ", "DNS: : an address"),
            ("DNS = a b", "DNS: a b: an address"),
            (
                "Table = 51820",
                "Table: off or auto: there is one routing table",
            ),
            (
                "[Interface]",
                "a second [Interface], the first is in line 1",
            ),
            ("[Peers]", "[Peers]: only [Interface] and [Peer] are known"),
            ("[Peer", "[Peer: only [Interface] and [Peer] are known"),
            ("= x", ": not known in [Interface]"),
        ] {
            assert_eq!(wrong_in_interface(line), what, "{line}");
        }
        let all = problems(&format!("[Interface]\nPrivateKey = {}\n", &A[1..]));
        assert_eq!(all, [format!("2: PrivateKey: {key}")]);
        let all = problems(&format!(
            "[Interface]\nPrivateKey={A}\nMTU=1279\nAddress=fd00::1\n"
        ));
        assert_eq!(all, ["3: MTU: IPv6 needs 1280"]);
    }

    #[test]
    fn each_wrong_line_of_a_peer() {
        let key = "a key is 32 bytes in base64, 44 characters";
        for (line, what) in [
            (
                "PublicKey = x",
                "PublicKey: a second one, the first is in line 4",
            ),
            ("PresharedKey = x", &format!("PresharedKey: {key}")),
            ("MTU = 1420", "MTU: not known in [Peer]"),
            (
                "AllowedIPs = 10.0.0.0/8 10.1.0.0/8",
                "AllowedIPs: 10.0.0.0/8 10.1.0.0/8: an address, or ADDRESS/LENGTH",
            ),
            (
                "AllowedIPs = 10.0.0.0/255.0.0.0",
                "AllowedIPs: 10.0.0.0/255.0.0.0: an address, or ADDRESS/LENGTH",
            ),
            (
                "PersistentKeepalive = 65536",
                "PersistentKeepalive: a number from 0 to 65535, or off",
            ),
            (
                "PersistentKeepalive = 2.5",
                "PersistentKeepalive: a number from 0 to 65535, or off",
            ),
            (
                "Endpoint = 10.0.0.1",
                "Endpoint: 10.0.0.1: ADDRESS:PORT, [ADDRESS]:PORT or NAME:PORT",
            ),
            (
                "Endpoint = 10.0.0.1:0",
                "Endpoint: port: a number from 1 to 65535",
            ),
            (
                "Endpoint = 10.0.0.1:x",
                "Endpoint: port: a number from 1 to 65535",
            ),
            (
                "Endpoint = 10.0.0.256:1",
                "Endpoint: 10.0.0.256:1: ADDRESS:PORT, [ADDRESS]:PORT or NAME:PORT",
            ),
            (
                "Endpoint = fd00::1:1",
                "Endpoint: fd00::1:1: ADDRESS:PORT, [ADDRESS]:PORT or NAME:PORT",
            ),
            (
                "Endpoint = :1",
                "Endpoint: :1: ADDRESS:PORT, [ADDRESS]:PORT or NAME:PORT",
            ),
            (
                "Endpoint = -x.org:1",
                "Endpoint: -x.org:1: ADDRESS:PORT, [ADDRESS]:PORT or NAME:PORT",
            ),
        ] {
            assert_eq!(wrong_in_peer(line), what, "{line}");
        }
    }

    #[test]
    fn what_the_whole_file_lacks_or_says_twice() {
        assert_eq!(problems(""), ["1: no [Interface]"]);
        assert_eq!(
            problems("MTU = 1\n"),
            ["1: MTU: before any section", "1: no [Interface]"]
        );
        assert_eq!(
            problems("\n[Interface]\n"),
            ["2: [Interface] without PrivateKey"]
        );
        let interface = format!("[Interface]\nPrivateKey={A}\n");
        assert_eq!(
            problems(&format!("{interface}[Peer]\n")),
            ["3: [Peer] without PublicKey"]
        );
        assert_eq!(
            problems(&format!("{interface}[Peer]\nPublicKey={A_PUBLIC}\n")),
            ["4: PublicKey: our own, that of the other end is needed"]
        );
        let twice = format!("[Peer]\nPublicKey={B_PUBLIC}\n");
        assert_eq!(
            problems(&format!("{interface}{twice}{twice}")),
            ["6: PublicKey: the peer in line 4 has it already"]
        );
        let bytes = [interface.as_bytes(), b"MTU = \xff\n"].concat();
        assert_eq!(parse(&bytes).unwrap_err()[0].to_string(), "3: not UTF-8");
    }

    #[test]
    fn a_prefix_of_two_peers_goes_to_the_last() {
        let text = format!(
            "[Interface]\nPrivateKey={A}\n[Peer]\nPublicKey={A}\nAllowedIPs=10.0.0.0/8\n[Peer]\n\
             PublicKey={B_PUBLIC}\nAllowedIPs=10.1.1.1/8\n"
        );
        let warnings = parse(text.as_bytes()).unwrap().warnings;
        assert_eq!(
            warnings[0].to_string(),
            "8: AllowedIPs: 10.0.0.0/8 goes from the peer in line 5 to this one"
        );
    }

    #[test]
    fn no_message_has_a_key_in_it() {
        let wrong = format!("{A}{A}");
        let text = format!(
            "[Interface]\nPrivateKey={wrong}\n[Peer]\nPresharedKey={wrong}\nPublicKey={wrong}\n{wrong}\n"
        );
        for problem in problems(&text) {
            assert!(!problem.contains(&A[..20]), "{problem}");
        }
    }
}

//! The tree of paths, and the text of each file.

use scheme::{DirEntry, FileKind};

use crate::ifnet::{Driver, Ifnet};
use crate::net::Net;
use crate::route::{Route, write_route};

/// A text file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Node {
    /// `resolv/nameserver`
    Nameserver,
    /// `debug/if_tun_debug`
    TunDebug,
    /// `route/list`
    RouteList,
    /// `route/add`
    RouteAdd,
    /// `route/rm`
    RouteRm,
    /// `route/lookup`
    RouteLookup,
    /// `ip/forwarding`
    Forwarding,
    /// `tcp/stats`
    TcpStats,
    /// `sockets`, whose text is made [while it is read](super::sockets)
    Sockets,
    /// `ifaces/IF/…`
    Interface(String, IfNode),
}

/// A file of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum IfNode {
    Mac,
    Autoconf,
    AddrList,
    AddrSet,
    AddrAdd,
    AddrRm,
    Mtu,
    Flags,
    Status,
    Multicast,
    Queue,
    Stats,
    Ledger,
    Events,
    Destroy,
}

impl IfNode {
    /// Paths below `ifaces/IF/`, in the order in which they are listed.
    const ALL: [(&'static str, Self); 15] = [
        ("mac", Self::Mac),
        ("autoconf", Self::Autoconf),
        ("addr/list", Self::AddrList),
        ("addr/set", Self::AddrSet),
        ("addr/add", Self::AddrAdd),
        ("addr/rm", Self::AddrRm),
        ("mtu", Self::Mtu),
        ("flags", Self::Flags),
        ("status", Self::Status),
        ("multicast", Self::Multicast),
        ("queue", Self::Queue),
        ("stats", Self::Stats),
        ("ledger", Self::Ledger),
        ("events", Self::Events),
        ("destroy", Self::Destroy),
    ];

    /// The files that an interface has.
    fn all_of(ifp: &Ifnet) -> impl Iterator<Item = &'static (&'static str, Self)> {
        let ethernet = matches!(ifp.driver, Driver::Ethernet(_));
        let has = move |node: Self| ethernet || node != Self::Autoconf;
        Self::ALL.iter().filter(move |(_, node)| has(*node))
    }
}

/// The directory of interfaces.
const IFACES: &str = "ifaces";

/// Paths outside `ifaces/`.
const FIXED: [(&str, Node); 9] = [
    ("resolv/nameserver", Node::Nameserver),
    ("debug/if_tun_debug", Node::TunDebug),
    ("route/list", Node::RouteList),
    ("route/add", Node::RouteAdd),
    ("route/rm", Node::RouteRm),
    ("route/lookup", Node::RouteLookup),
    ("ip/forwarding", Node::Forwarding),
    ("tcp/stats", Node::TcpStats),
    (super::SOCKETS, Node::Sockets),
];

impl Node {
    /// The file at `path`, below `netcfg/`.
    pub(super) fn parse(net: &Net, path: &str) -> Option<Self> {
        if let Some((_, node)) = FIXED.iter().find(|(fixed, _)| *fixed == path) {
            return Some(node.clone());
        }
        let (name, rest) = path.strip_prefix("ifaces/")?.split_once('/')?;
        let (_, node) = IfNode::all_of(interface(net, name)?).find(|(path, _)| *path == rest)?;
        Some(Self::Interface(name.to_owned(), *node))
    }

    pub(super) fn path(&self) -> String {
        match self {
            Self::Interface(name, node) => {
                let path = IfNode::ALL.iter().find(|(_, other)| other == node);
                format!("ifaces/{name}/{}", path.map_or("", |(path, _)| path))
            }
            _ => {
                let path = FIXED.iter().find(|(_, other)| other == self);
                path.map_or("", |(path, _)| path).to_owned()
            }
        }
    }

    /// Whether packets change its text, and not only settings.
    pub(super) fn counts(&self) -> bool {
        matches!(
            self,
            Self::TcpStats | Self::Interface(_, IfNode::Stats | IfNode::Ledger)
        )
    }

    /// Whether it is one value of the machine, so that of several lines only the last would count.
    pub(super) fn is_one_value(&self) -> bool {
        matches!(self, Self::Nameserver | Self::TunDebug | Self::Forwarding)
    }

    pub(super) fn is_writable(&self) -> bool {
        !matches!(
            self,
            Self::RouteList
                | Self::TcpStats
                | Self::Sockets
                | Self::Interface(
                    _,
                    IfNode::AddrList
                        | IfNode::Status
                        | IfNode::Stats
                        | IfNode::Ledger
                        | IfNode::Events
                )
        )
    }

    /// Its text now; `None` if the interface is gone.
    pub(super) fn read(&self, net: &Net) -> Option<String> {
        Some(match self {
            Self::Nameserver => net
                .nameserver()
                .map_or_else(String::new, |addr| format!("{addr}\n")),
            Self::TunDebug => format!("{}\n", net.tun.debug()),
            Self::RouteList => {
                let mut text = String::new();
                for (prefix, route) in net.ip.routes.iter() {
                    write_route(&mut text, &prefix, route, name_of(net, route));
                }
                text
            }
            Self::RouteAdd | Self::RouteRm | Self::RouteLookup | Self::Sockets => String::new(),
            Self::TcpStats => net.tcp.stats().render(net.ip.bad_segments),
            Self::Forwarding => format!("{}\n", u8::from(net.ip.forwarding)),
            Self::Interface(name, node) => node.read(net, interface(net, name)?),
        })
    }
}

impl IfNode {
    fn read(self, net: &Net, ifp: &Ifnet) -> String {
        match self {
            Self::Mac => match ifp.driver {
                Driver::Ethernet(adapter) => net
                    .link
                    .mac_of(adapter)
                    .map_or_else(String::new, |mac| format!("{mac}\n")),
                _ => "Not configured\n".to_owned(),
            },
            Self::Autoconf => {
                let on =
                    matches!(ifp.driver, Driver::Ethernet(adapter) if net.link.autoconf(adapter));
                format!("{}\n", u8::from(on))
            }
            Self::AddrList => ifp.addrs.iter().map(|addr| format!("{addr}\n")).collect(),
            Self::AddrSet | Self::AddrAdd | Self::AddrRm | Self::Destroy | Self::Events => {
                String::new()
            }
            Self::Mtu => format!("{}\n", ifp.mtu),
            Self::Flags => format!("{}\n", ifp.flags),
            Self::Status => match ifp.driver {
                Driver::Tun(unit) => net.tun.status(unit),
                Driver::Loopback | Driver::Ethernet(_) => String::new(),
            },
            Self::Multicast => ifp
                .groups
                .keys()
                .map(|group| format!("{group}\n"))
                .collect(),
            Self::Queue if ifp.is_loopback() => String::new(),
            Self::Queue => format!("{}\n", ifp.snd.describe()),
            Self::Stats => ifp.render_stats(),
            Self::Ledger => ifp.stats.render_ledger(),
        }
    }
}

/// The name of the interface that a route is over.
pub(super) fn name_of<'a>(net: &'a Net, route: &Route) -> Option<&'a str> {
    let ifp = net.ip.ifs.get(route.dev?)?;
    Some(&ifp.name)
}

fn interface<'a>(net: &'a Net, name: &str) -> Option<&'a Ifnet> {
    net.ip.ifs.get(net.ip.ifs.by_name(name)?)
}

/// Whether a path is a directory.
pub(super) fn is_directory(net: &Net, path: &str) -> bool {
    // There may be many interfaces.
    path == IFACES || list(net, path).is_some()
}

/// The entries of a directory; `None` if the path is not one. Directories are the parents of the
/// paths of files.
pub(super) fn list(net: &Net, path: &str) -> Option<Vec<DirEntry>> {
    let directory = |name: &str| entry(name, FileKind::Directory);
    if path == IFACES {
        return Some(net.ip.ifs.names().map(directory).collect());
    }
    let paths: Vec<&str> = match path.strip_prefix("ifaces/") {
        Some(below) => {
            let (name, below) = below.split_once('/').unwrap_or((below, ""));
            let paths = IfNode::all_of(interface(net, name)?).map(|(path, _)| *path);
            return children(paths.collect(), below);
        }
        None => FIXED.iter().map(|(path, _)| *path).collect(),
    };
    let mut entries = children(paths, path)?;
    if path.is_empty() {
        entries.push(directory(IFACES));
    }
    Some(entries)
}

fn children(paths: Vec<&str>, below: &str) -> Option<Vec<DirEntry>> {
    let mut entries: Vec<DirEntry> = Vec::new();
    for path in paths {
        let rest = match below {
            "" => path,
            _ => match path
                .strip_prefix(below)
                .and_then(|rest| rest.strip_prefix('/'))
            {
                Some(rest) => rest,
                None => continue,
            },
        };
        let (name, kind) = match rest.split_once('/') {
            Some((name, _)) => (name, FileKind::Directory),
            None => (rest, FileKind::Text),
        };
        if entries.iter().all(|entry| entry.name != name) {
            entries.push(entry(name, kind));
        }
    }
    (!entries.is_empty()).then_some(entries)
}

fn entry(name: &str, kind: FileKind) -> DirEntry {
    DirEntry {
        name: name.to_owned(),
        kind,
    }
}

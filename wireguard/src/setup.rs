//! Addresses and routes of the interface. They are gone with it when the device is closed.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::thread;
use std::time::Duration;

use ipnet::IpNet;

use crate::config::{Config, Host, Problem};

/// How often a name is looked up before we give up, and the pause after the first time, which
/// doubles: half a minute, in which a network that has just started can come up.
const LOOKUPS: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Where the peers are, in their order. Looks names up, which may take half a minute.
pub fn endpoints(config: &Config) -> Result<Vec<Option<SocketAddr>>, Problem> {
    let mut endpoints = Vec::new();
    for peer in &config.peers {
        let endpoint = match &peer.endpoint {
            None => None,
            Some(endpoint) => match &endpoint.host {
                Host::Address(address) => Some(*address),
                Host::Name(name, port) => {
                    let found = lookup(name, *port).map_err(|error| Problem {
                        line: endpoint.line,
                        what: format!("Endpoint: {name}: {error}"),
                    });
                    Some(found?)
                }
            },
        };
        endpoints.push(endpoint);
    }
    Ok(endpoints)
}

fn lookup(name: &str, port: u16) -> io::Result<SocketAddr> {
    let mut pause = FIRST_PAUSE;
    let mut times = 1;
    loop {
        match (name, port).to_socket_addrs().map(|mut found| found.next()) {
            Ok(Some(address)) => return Ok(address),
            Ok(None) if times == LOOKUPS => return Err(io::ErrorKind::NotFound.into()),
            Err(error) if times == LOOKUPS => return Err(error),
            _ => log::warn!("{name}: not found yet"),
        }
        thread::sleep(pause);
        pause *= 2;
        times += 1;
    }
}

/// Sets the addresses of the interface, which is up after that, and a route for each network of the
/// peers.
pub fn interface(root: &Path, name: &str, config: &Config) -> Result<(), Problem> {
    let file = format!("netcfg/ifaces/{name}/addr/add");
    for address in &config.addresses {
        write(root, &file, &address.net.to_string()).map_err(|error| Problem {
            line: address.line,
            what: format!("Address: {}: {error}", address.net),
        })?;
    }
    if config.addresses.is_empty() {
        // Without one it is not up by itself, and routes need it up.
        let file = format!("netcfg/ifaces/{name}/flags");
        write(root, &file, "up").map_err(|error| Problem {
            line: 1,
            what: format!("{name}: {error}"),
        })?;
    }
    if !config.routes {
        return Ok(());
    }
    let networks = config.peers.iter().flat_map(|peer| &peer.allowed_ips);
    for network in networks {
        // The networks of our addresses have their routes.
        let own = |address: &IpNet| address.trunc() == network.net;
        if config.addresses.iter().any(|address| own(&address.net)) {
            continue;
        }
        write(
            root,
            "netcfg/route/add",
            &format!("{} dev {name}", network.net),
        )
        .map_err(|error| Problem {
            line: network.line,
            what: format!("AllowedIPs: {}: {error}", network.net),
        })?;
    }
    Ok(())
}

/// Adds, behind each default route of the tunnel's, one that lets nothing out. It stays when the
/// tunnel is gone, until somebody removes it. What carries the tunnel passes it, as it passes the
/// tunnel's.
pub fn kill_switch(root: &Path, config: &Config) -> io::Result<()> {
    let networks = config.peers.iter().flat_map(|peer| &peer.allowed_ips);
    for network in networks.filter(|network| network.net.prefix_len() == 0) {
        let line = format!("{} unreachable", network.net);
        // One that is there from the last time would stand behind routes that are newer.
        let _ = write(root, "netcfg/route/rm", &line);
        write(root, "netcfg/route/add", &line)?;
    }
    Ok(())
}

/// The name server that is used: the first with IPv4, which is what Redox's resolver speaks.
pub fn name_server(config: &Config) -> Option<IpAddr> {
    config.dns.iter().copied().find(IpAddr::is_ipv4)
}

/// Writes a line to a file below `root`.
fn write(root: &Path, file: &str, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(root.join(file))?;
    file.write_all(format!("{line}\n").as_bytes())
}

//! `route/lookup`: the route that packets to an address take.

use std::fmt::Write;
use std::net::IpAddr;

use scheme::errno::{self, Errno};

use super::node::name_of;
use crate::ip::{Ip, NetError};
use crate::net::Net;
use crate::route::{Route, host_prefix, write_route};

/// An open `route/lookup`. A write asks, and reads give the answer, from its beginning wherever the
/// position of the file is.
#[derive(Debug, Default)]
pub(crate) struct Lookup {
    answer: String,
    /// Bytes of it that were read.
    read: usize,
}

impl Lookup {
    /// Looks up an address. The errors are those that a packet to it would get; `EINVAL` if it is no
    /// address.
    pub(crate) fn write(&mut self, net: &Net, buf: &[u8]) -> Result<usize, Errno> {
        *self = Self::default();
        let text = std::str::from_utf8(buf).map_err(|_| errno::EINVAL)?;
        let dst: IpAddr = text.trim_ascii().parse().map_err(|_| errno::EINVAL)?;
        self.answer = describe(net, &dst)?;
        Ok(buf.len())
    }

    /// Reads on in the answer; zero bytes at its end.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> usize {
        let rest = self.answer.as_bytes().get(self.read..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        self.read += len;
        len
    }
}

/// One line: the route that a packet to `dst` takes now, with the source that it gets if its sender
/// does not choose one.
fn describe(net: &Net, dst: &IpAddr) -> Result<String, NetError> {
    let ip = &net.ip;
    let path = ip.route_to(dst, None)?;
    let kind = match dst {
        _ if ip.ifs.is_local(dst) => Some("local"),
        IpAddr::V4(dst) if dst.is_broadcast() => Some("broadcast"),
        _ if dst.is_multicast() => Some("multicast"),
        _ => None,
    };
    let mut line = String::new();
    let Some(kind) = kind else {
        let (prefix, route) = ip.routes.lookup(dst, None, |dev| ip.is_up(dev))?;
        let mut route = Route {
            src: path.src,
            ..*route
        };
        let mut prefix = prefix;
        if path.next_hop != route.via.unwrap_or(*dst) {
            // A redirect is a route of its own.
            route.via = Some(path.next_hop).filter(|next_hop| next_hop != dst);
            prefix = host_prefix(*dst);
        }
        write_route(&mut line, &prefix, &route, name_of(net, &route));
        return Ok(line);
    };
    // An address of ours is shown with its own interface, though packets to it stay on lo0.
    let holder = ip.ifs.holder(dst).filter(|_| kind == "local");
    let name = name(ip, holder.unwrap_or(path.dev));
    let _ = write!(line, "{kind} {dst} dev {name}");
    if let Some(src) = path.src.filter(|_| kind != "local") {
        let _ = write!(line, " src {src}");
    }
    line.push('\n');
    Ok(line)
}

fn name(ip: &Ip, dev: crate::ifnet::IfIndex) -> &str {
    ip.ifs.get(dev).map_or("?", |ifp| &ifp.name)
}

//! `icmp/echo/ADDR`: ping. An address on one link may name an interface, `fe80::1%tun0`. A write is two bytes of sequence number, in network order, and the data
//! of an echo request; a read is the same of a reply.

use std::net::IpAddr;

use scheme::errno::{self, Errno};
use scheme::{Caller, FileId, Outcome, Ready, Stat};

use super::SOCKET;
use super::name::link_named;
use super::option_file::Name;
use crate::ifnet::IfName;
use crate::net::Net;
use crate::stack::{EchoId, Owner};

/// Describes what a path below `icmp` leads to; `None` for the directory of the echo sockets.
pub(crate) fn stat(path: &str) -> Result<Option<Stat>, Errno> {
    match path {
        "echo" => Ok(None),
        _ => remote(path).map(|_| Some(SOCKET)),
    }
}

/// The address that a path names, and the interface on whose link that is meant, as in
/// `fe80::1%tun0`.
fn remote(path: &str) -> Result<(IpAddr, Option<IfName>), Errno> {
    let name = path.strip_prefix("echo/").ok_or(errno::ENOENT)?;
    let (addr, link) = match name.split_once('%') {
        Some((addr, link)) => (addr, Some(link)),
        None => (name, None),
    };
    let addr: IpAddr = addr.parse().map_err(|_| errno::EINVAL)?;
    // An IPv4-mapped address must not be on a wire.
    let addr = addr.to_canonical();
    let link = match link {
        Some(link) => Some(link_named(&addr, link).ok_or(errno::EINVAL)?),
        None => None,
    };
    Ok((addr, link))
}

/// Opens a socket; events of it come with `file`.
pub(crate) fn open(
    net: &mut Net,
    path: &str,
    caller: Caller,
    file: FileId,
) -> Result<EchoId, Errno> {
    let owner = Owner(file.0);
    net.echo.open(&mut net.ip, remote(path)?, owner, caller.uid)
}

pub(crate) fn read(net: &mut Net, id: EchoId, buf: &mut [u8]) -> Outcome<usize> {
    if buf.is_empty() {
        return Outcome::Done(Ok(0));
    }
    let Some(reply) = net.echo.recv(id) else {
        return Outcome::Wait;
    };
    let len = reply.len().min(buf.len());
    buf[..len].copy_from_slice(&reply[..len]);
    Outcome::Done(Ok(len))
}

pub(crate) fn write(net: &mut Net, id: EchoId, buf: &[u8]) -> Result<usize, Errno> {
    let (sequence, data) = buf.split_first_chunk::<2>().ok_or(errno::EINVAL)?;
    net.echo.send(&mut net.ip, id, *sequence, data)?;
    Ok(buf.len())
}

/// The only verb of dup: the file of the hop limit.
pub(crate) fn dup(verb: &[u8]) -> Result<Name, Errno> {
    let name = std::str::from_utf8(verb).ok().and_then(Name::parse);
    name.filter(|name| *name == Name::HopLimit)
        .ok_or(errno::EINVAL)
}

pub(crate) fn ready(net: &Net, id: EchoId) -> Ready {
    match net.echo.has_queued(id) {
        true => Ready::all(),
        false => Ready::WRITE,
    }
}

pub(crate) fn path(net: &Net, id: EchoId) -> String {
    match net.echo.remote(id) {
        Some((remote, Some(link))) => format!("icmp/echo/{remote}%{}", link.as_str()),
        Some((remote, None)) => format!("icmp/echo/{remote}"),
        None => "icmp".to_owned(),
    }
}

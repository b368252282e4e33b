//! `icmp/echo/ADDR`: ping. An address on one link may name an interface, `fe80::1%tun0`. A write is
//! two bytes of sequence number, in network order, and the data of an echo request; a read is the
//! same of a reply.
//!
//! `icmp/ping/ADDR`: the same, for programs that want to know who says what. A read is a reply or an
//! error about a request, behind a [header](encode_head).

use std::net::IpAddr;

use scheme::errno::{self, Errno};
use scheme::{Caller, FileId, Outcome, Ready, Stat};

use super::SOCKET;
use super::address::{self, ADDRESS};
use super::name::link_named;
use super::option_file::Name;
use crate::ifnet::IfName;
use crate::net::Net;
use crate::stack::{EchoId, Heard, Owner};

/// The directory of the sockets that hear replies only.
pub(crate) const ECHO: &str = "echo";
/// The directory of those that hear errors, too.
pub(crate) const PING: &str = "ping";

/// Describes what a path below `icmp` leads to; `None` for the directories of the sockets.
pub(crate) fn stat(path: &str) -> Result<Option<Stat>, Errno> {
    match path {
        ECHO | PING => Ok(None),
        _ => parse(path).map(|_| Some(SOCKET)),
    }
}

/// What a path names: the address, the interface on whose link that is meant, as in
/// `fe80::1%tun0`, and whether the socket hears errors.
fn parse(path: &str) -> Result<((IpAddr, Option<IfName>), bool), Errno> {
    let (kind, name) = path.split_once('/').ok_or(errno::ENOENT)?;
    let hears_errors = match kind {
        ECHO => false,
        PING => true,
        _ => return Err(errno::ENOENT),
    };
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
    Ok(((addr, link), hears_errors))
}

/// Opens a socket; events of it come with `file`.
pub(crate) fn open(
    net: &mut Net,
    path: &str,
    caller: Caller,
    file: FileId,
) -> Result<EchoId, Errno> {
    let (remote, hears_errors) = parse(path)?;
    let owner = Owner(file.0);
    let Net { ip, echo, .. } = net;
    echo.open(ip, remote, hears_errors, owner, caller.uid)
}

pub(crate) fn read(net: &mut Net, id: EchoId, buf: &mut [u8]) -> Outcome<usize> {
    if buf.is_empty() {
        return Outcome::Done(Ok(0));
    }
    let with_head = net.echo.hears_errors(id);
    let Some(heard) = net.echo.recv(id) else {
        return Outcome::Wait;
    };
    let head = encode_head(&heard);
    let head = match with_head {
        true => &head[..],
        false => &heard.sequence,
    };
    let mut filled = 0;
    for part in [head, &heard.data] {
        let room = &mut buf[filled..];
        let len = part.len().min(room.len());
        room[..len].copy_from_slice(&part[..len]);
        filled += len;
    }
    Outcome::Done(Ok(filled))
}

/// Bytes before the data of a reply.
const HEAD: usize = ADDRESS + 8;

/// `{ struct address from; u8 type, code; u8 sequence[2]; u8 word[4] }`: the [address]
/// of who sent the message, with port 0, the type and code of ICMP or ICMPv6, the sequence number of
/// the request that it is about, and of an error the second word, both in network order.
fn encode_head(heard: &Heard) -> [u8; HEAD] {
    let Heard { said, sequence, .. } = heard;
    let mut head = [0; HEAD];
    head[..ADDRESS].copy_from_slice(&address::encode((said.by, 0)));
    head[ADDRESS..ADDRESS + 2].copy_from_slice(&[said.kind, said.code]);
    head[ADDRESS + 2..ADDRESS + 4].copy_from_slice(sequence);
    head[ADDRESS + 4..].copy_from_slice(&said.word);
    head
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
    let kind = match net.echo.hears_errors(id) {
        true => PING,
        false => ECHO,
    };
    match net.echo.remote(id) {
        Some((remote, Some(link))) => format!("icmp/{kind}/{remote}%{}", link.as_str()),
        Some((remote, None)) => format!("icmp/{kind}/{remote}"),
        None => "icmp".to_owned(),
    }
}

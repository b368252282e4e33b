//! `icmp/echo/ADDR`: ping. A write is two bytes of sequence number, in network order, and the data
//! of an echo request; a read is the same of a reply.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::num::NonZeroU8;

use super::{SOCKET, setting};
use scheme::errno::{self, Errno};
use scheme::{FileId, Outcome, Ready, Stat};
use slab::Slab;

use crate::ifnet::DropReason;
use crate::net::{File, Net};
use crate::netisr::input::{Header, proto};
use crate::netisr::output::HOP_LIMIT;
use crate::netisr::{Verdict, checksum};
use crate::packet::Packet;

/// Most sockets: each has an identifier of its own.
const MAX_SOCKETS: usize = 32_768;
/// Most replies that a socket holds.
const QUEUE_PACKETS: usize = 128;
/// Most bytes of them.
const QUEUE_BYTES: usize = 208 << 10;

#[derive(Debug)]
struct EchoSocket {
    remote: IpAddr,
    ident: u16,
    /// Of requests, if it was set.
    hop_limit: Option<NonZeroU8>,
    file: Option<FileId>,
    replies: VecDeque<Vec<u8>>,
    bytes: usize,
}

/// Every echo socket.
#[derive(Debug, Default)]
pub(crate) struct IcmpSockets {
    sockets: Slab<EchoSocket>,
    idents: std::collections::BTreeMap<u16, u32>,
}

/// Whether the path is one that can be opened.
pub(crate) fn stat(path: &str) -> Result<Stat, Errno> {
    if path == "echo" {
        return Ok(crate::net::DIRECTORY);
    }
    remote(path).map(|_| SOCKET)
}

fn remote(path: &str) -> Result<IpAddr, Errno> {
    let addr = path.strip_prefix("echo/").ok_or(errno::ENOENT)?;
    addr.parse().map_err(|_| errno::EINVAL)
}

impl Net {
    pub(crate) fn icmp_open(&mut self, path: &str) -> Result<FileId, Errno> {
        let remote = remote(path)?;
        if self.icmp.sockets.len() >= MAX_SOCKETS {
            return Err(errno::ENFILE);
        }
        let start = self.rng.u16(1..);
        let mut idents = (start..=u16::MAX).chain(1..start);
        let ident = idents.find(|ident| !self.icmp.idents.contains_key(ident));
        let ident = ident.ok_or(errno::ENFILE)?;
        let socket = EchoSocket {
            remote,
            ident,
            hop_limit: None,
            file: None,
            replies: VecDeque::new(),
            bytes: 0,
        };
        let key = self.icmp.sockets.insert(socket);
        let id = self.add_file(File::Icmp(key as u32));
        let Ok(file) = id else {
            self.icmp.sockets.remove(key);
            return id;
        };
        self.icmp.sockets[key].file = Some(file);
        self.icmp.idents.insert(ident, key as u32);
        Ok(file)
    }

    fn echo_socket(&mut self, id: FileId) -> Result<&mut EchoSocket, Errno> {
        match self.file(id)? {
            &File::Icmp(key) => self.icmp.sockets.get_mut(key as usize).ok_or(errno::EBADF),
            _ => Err(errno::EBADF),
        }
    }

    pub(crate) fn icmp_read(&mut self, id: FileId, buf: &mut [u8]) -> Outcome<usize> {
        let socket = match self.echo_socket(id) {
            Ok(socket) => socket,
            Err(error) => return error.into(),
        };
        if buf.is_empty() {
            return Outcome::Done(Ok(0));
        }
        let Some(reply) = socket.replies.pop_front() else {
            return Outcome::Wait;
        };
        socket.bytes -= reply.len();
        let more = !socket.replies.is_empty();
        let len = reply.len().min(buf.len());
        buf[..len].copy_from_slice(&reply[..len]);
        if more {
            // Programs read once for each event: there is another.
            self.wake(id, Ready::READ);
        }
        Outcome::Done(Ok(len))
    }

    pub(crate) fn icmp_write(&mut self, id: FileId, buf: &[u8]) -> Result<usize, Errno> {
        let (sequence, data) = buf.split_first_chunk::<2>().ok_or(errno::EINVAL)?;
        let socket = self.echo_socket(id)?;
        let (dst, ident) = (socket.remote, socket.ident);
        let hop_limit = socket.hop_limit.map_or(HOP_LIMIT, NonZeroU8::get);
        let path = self.route_to(&dst, None)?;
        let src = path.src.ok_or(errno::EADDRNOTAVAIL)?;
        let (protocol, kind) = match dst {
            IpAddr::V4(_) => (proto::ICMP, 8),
            IpAddr::V6(_) => (proto::ICMPV6, 128),
        };
        let [a, b] = ident.to_be_bytes();
        let head = [kind, 0, 0, 0, a, b, sequence[0], sequence[1]];
        let mut message = Packet::concat(&head, data);
        let sum = match dst {
            IpAddr::V4(_) => checksum::fill_plain(&message),
            IpAddr::V6(_) => checksum::fill(&src, &dst, protocol, &message),
        };
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        self.ip_output(path, src, dst, protocol, hop_limit, message)?;
        Ok(buf.len())
    }

    /// The only verb of dup: the file of the hop limit.
    pub(crate) fn icmp_dup(&mut self, id: FileId, verb: &[u8]) -> Result<FileId, Errno> {
        match std::str::from_utf8(verb)
            .ok()
            .and_then(setting::Name::parse)
        {
            Some(name @ setting::Name::HopLimit) => self.setting_open(id, name),
            _ => Err(errno::EINVAL),
        }
    }

    pub(super) fn icmp_hop_limit(&mut self, id: FileId) -> Result<u8, Errno> {
        let socket = self.echo_socket(id)?;
        Ok(socket.hop_limit.map_or(HOP_LIMIT, NonZeroU8::get))
    }

    pub(super) fn icmp_set_hop_limit(&mut self, id: FileId, hops: NonZeroU8) -> Result<(), Errno> {
        self.echo_socket(id)?.hop_limit = Some(hops);
        Ok(())
    }

    /// A reply came: to whom?
    pub(crate) fn icmp_deliver(&mut self, header: &Header, message: &[u8]) -> Verdict {
        let Some(&[_, _, _, _, a, b]) = message.first_chunk() else {
            return Verdict::Dropped(DropReason::Malformed);
        };
        let key = self.icmp.idents.get(&u16::from_be_bytes([a, b]));
        let socket = key.and_then(|&key| self.icmp.sockets.get_mut(key as usize));
        // Whoever asked a group hears from its members.
        let meant =
            |socket: &&mut EchoSocket| socket.remote == header.src || socket.remote.is_multicast();
        let Some(socket) = socket.filter(meant) else {
            return Verdict::Dropped(DropReason::NotWanted);
        };
        let reply = &message[6..];
        if socket.replies.len() >= QUEUE_PACKETS || socket.bytes + reply.len() > QUEUE_BYTES {
            return Verdict::Dropped(DropReason::SocketFull);
        }
        socket.bytes += reply.len();
        socket.replies.push_back(reply.to_vec());
        if let Some(file) = socket.file {
            self.wake(file, Ready::READ);
        }
        Verdict::Delivered
    }

    /// Whether an echo request of ours to `dst` begins like this.
    pub(crate) fn icmp_knows(&self, dst: &IpAddr, message: &[u8]) -> bool {
        let Some(&[_, _, _, _, a, b]) = message.first_chunk() else {
            return false;
        };
        let key = self.icmp.idents.get(&u16::from_be_bytes([a, b]));
        let socket = key.and_then(|&key| self.icmp.sockets.get(key as usize));
        socket.is_some_and(|socket| socket.remote == *dst)
    }

    pub(crate) fn icmp_ready(&mut self, id: FileId) -> Ready {
        match self.echo_socket(id) {
            Ok(socket) if socket.replies.is_empty() => Ready::WRITE,
            Ok(_) => Ready::all(),
            Err(_) => Ready::empty(),
        }
    }

    pub(crate) fn icmp_path(&self, key: u32) -> String {
        let socket = self.icmp.sockets.get(key as usize);
        socket.map_or_else(
            || "icmp".to_owned(),
            |socket| format!("icmp/echo/{}", socket.remote),
        )
    }

    pub(crate) fn icmp_close(&mut self, id: FileId) {
        if let Ok(&File::Icmp(key)) = self.file(id)
            && let Some(socket) = self.icmp.sockets.try_remove(key as usize)
        {
            self.icmp.idents.remove(&socket.ident);
        }
    }
}

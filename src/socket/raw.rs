//! `ip/HH`: whole packets of one protocol, its number in hexadecimal, headers included. The
//! superuser's.

use std::collections::{BTreeMap, VecDeque};

use scheme::errno::{self, Errno};
use scheme::{Caller, FileId, Outcome, Ready, Stat};
use slab::Slab;
use smoltcp::wire::{Ipv4Packet, Ipv6Packet};

use super::SOCKET;
use crate::ifnet::Family;
use crate::net::{File, Net};
use crate::netisr::input::{IPV6_HEADER, addresses};
use crate::netisr::output::fragment_v4;
use crate::packet::Packet;

/// Most sockets.
const MAX_SOCKETS: usize = 1024;
/// Most bytes of packets that a socket holds.
const QUEUE_BYTES: usize = 208 << 10;

#[derive(Debug)]
struct RawSocket {
    protocol: u8,
    file: Option<FileId>,
    packets: VecDeque<Packet>,
    bytes: usize,
}

/// Every raw socket.
#[derive(Debug, Default)]
pub(crate) struct RawSockets {
    sockets: Slab<RawSocket>,
    protocols: BTreeMap<u8, Vec<u32>>,
}

/// Whether a path below `ip` can be opened.
pub(crate) fn stat(path: &str) -> Result<Stat, Errno> {
    // Only the superuser opens one.
    let stat = Stat {
        mode: 0o600,
        ..SOCKET
    };
    protocol(path).map(|_| stat)
}

fn protocol(path: &str) -> Result<u8, Errno> {
    let digits = (1..=2).contains(&path.len()) && path.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = digits.then(|| u8::from_str_radix(path, 16).ok()).flatten();
    number.ok_or(errno::ENOENT)
}

impl Net {
    pub(crate) fn raw_open(&mut self, path: &str, caller: Caller) -> Result<FileId, Errno> {
        if caller.uid != 0 {
            return Err(errno::EACCES);
        }
        let protocol = protocol(path)?;
        if self.raw.sockets.len() >= MAX_SOCKETS {
            return Err(errno::ENFILE);
        }
        let key = self.raw.sockets.insert(RawSocket {
            protocol,
            file: None,
            packets: VecDeque::new(),
            bytes: 0,
        });
        let file = self.add_file(File::Raw(key as u32));
        match file {
            Ok(file) => {
                self.raw.sockets[key].file = Some(file);
                self.raw
                    .protocols
                    .entry(protocol)
                    .or_default()
                    .push(key as u32);
            }
            Err(_) => drop(self.raw.sockets.remove(key)),
        }
        file
    }

    fn raw_socket(&mut self, id: FileId) -> Result<&mut RawSocket, Errno> {
        match self.file(id)? {
            &File::Raw(key) => self.raw.sockets.get_mut(key as usize).ok_or(errno::EBADF),
            _ => Err(errno::EBADF),
        }
    }

    /// Shows a sound packet for this host to the sockets of its protocol. True if there are any.
    pub(crate) fn raw_input(&mut self, protocol: u8, packet: &Packet) -> bool {
        let Some(keys) = self.raw.protocols.get(&protocol).cloned() else {
            return false;
        };
        for key in keys {
            let Some(socket) = self.raw.sockets.get_mut(key as usize) else {
                continue;
            };
            // Who reads too slowly loses copies; the packet itself is with its protocol.
            if socket.bytes + packet.len() > QUEUE_BYTES {
                continue;
            }
            socket.bytes += packet.len();
            socket.packets.push_back(packet.clone());
            if let Some(file) = socket.file {
                self.wake(file, Ready::READ);
            }
        }
        true
    }

    pub(crate) fn raw_read(&mut self, id: FileId, buf: &mut [u8]) -> Outcome<usize> {
        let socket = match self.raw_socket(id) {
            Ok(socket) => socket,
            Err(error) => return error.into(),
        };
        if buf.is_empty() {
            return Outcome::Done(Ok(0));
        }
        let Some(packet) = socket.packets.pop_front() else {
            return Outcome::Wait;
        };
        socket.bytes -= packet.len();
        let len = packet.len().min(buf.len());
        buf[..len].copy_from_slice(&packet[..len]);
        Outcome::Done(Ok(len))
    }

    /// Sends a packet with its header. An unspecified source is filled in, and so is the checksum of
    /// an IPv4 header.
    pub(crate) fn raw_write(&mut self, id: FileId, buf: &[u8]) -> Result<usize, Errno> {
        let protocol = self.raw_socket(id)?.protocol;
        let mut packet = Packet::from(buf);
        let (src, dst) = addresses(buf).ok_or(errno::EINVAL)?;
        let path = self.route_to(&dst, None)?;
        let fill = if src.is_unspecified() { path.src } else { None };
        let family = Family::of(&dst);
        if family == Family::Inet {
            let ip = Ipv4Packet::new_checked(buf).map_err(|_| errno::EINVAL)?;
            let whole = usize::from(ip.total_len()) == buf.len() && ip.header_len() >= 20;
            if !whole || u8::from(ip.next_header()) != protocol {
                return Err(errno::EINVAL);
            }
            let may_split = !ip.dont_frag();
            let mut ip = Ipv4Packet::new_unchecked(&mut packet[..]);
            if let Some(std::net::IpAddr::V4(src)) = fill {
                ip.set_src_addr(src);
            }
            ip.fill_checksum();
            if packet.len() > usize::from(path.mtu) {
                let fragments = may_split.then(|| fragment_v4(&packet, path.mtu)).flatten();
                for fragment in fragments.ok_or(errno::EMSGSIZE)? {
                    self.if_output(path.dev, family, fragment, path.next_hop)?;
                }
                return Ok(buf.len());
            }
        } else {
            let ip = Ipv6Packet::new_checked(buf).map_err(|_| errno::EINVAL)?;
            let whole = IPV6_HEADER + usize::from(ip.payload_len()) == buf.len();
            if !whole || u8::from(ip.next_header()) != protocol {
                return Err(errno::EINVAL);
            }
            if let Some(std::net::IpAddr::V6(src)) = fill {
                Ipv6Packet::new_unchecked(&mut packet[..]).set_src_addr(src);
            }
            if packet.len() > usize::from(path.mtu) {
                return Err(errno::EMSGSIZE);
            }
        }
        self.if_output(path.dev, family, packet, path.next_hop)?;
        Ok(buf.len())
    }

    pub(crate) fn raw_ready(&mut self, id: FileId) -> Ready {
        match self.raw_socket(id) {
            Ok(socket) if socket.packets.is_empty() => Ready::WRITE,
            Ok(_) => Ready::all(),
            Err(_) => Ready::empty(),
        }
    }

    pub(crate) fn raw_path(&self, key: u32) -> String {
        let socket = self.raw.sockets.get(key as usize);
        socket.map_or_else(
            || "ip".to_owned(),
            |socket| format!("ip/{:02x}", socket.protocol),
        )
    }

    pub(crate) fn raw_close(&mut self, id: FileId) {
        if let Ok(&File::Raw(key)) = self.file(id)
            && let Some(socket) = self.raw.sockets.try_remove(key as usize)
            && let Some(keys) = self.raw.protocols.get_mut(&socket.protocol)
        {
            keys.retain(|&other| other != key);
            if keys.is_empty() {
                self.raw.protocols.remove(&socket.protocol);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_hexadecimal() {
        assert_eq!(protocol("01"), Ok(1));
        assert_eq!(protocol("1"), Ok(1));
        assert_eq!(protocol("fF"), Ok(255));
        for bad in ["", "g", "100", "+1", "icmp", "1/2"] {
            assert_eq!(protocol(bad), Err(errno::ENOENT), "{bad:?}");
        }
    }
}

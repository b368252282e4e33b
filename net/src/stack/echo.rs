//! Sockets for pings, each with an identifier of its own (RFC 792, RFC 4443 section 4).
//!
//! A socket hears replies; one that was opened for it also hears the errors about its requests.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::num::NonZeroU8;

use scheme::errno::{self, Errno};
use slab::Slab;

use super::listed::{Listed, next_of};
use super::ports::each_once;
use super::{OVERHEAD, Owner, unspecified};
use crate::ifnet::{DropReason, IfIndex, IfName};
use crate::ip::header::proto;
use crate::ip::icmp::Said;
use crate::ip::output::HOP_LIMIT;
use crate::ip::{Ip, Quoted, Received, Verdict, checksum};
use crate::memory::{self, Memory, SPARE_PLACES};
use crate::packet::Packet;

/// Most sockets: each has an identifier of its own.
const MAX_SOCKETS: usize = 32_768;
/// Of these, how many are reserved for the superuser.
const RESERVED_SOCKETS: usize = 1024;
/// Most messages in a socket's queue.
const QUEUE_PACKETS: usize = 128;
/// Most bytes in a socket's queue, overhead included.
const QUEUE_BYTES: usize = 208 << 10;

/// A message that came to a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    /// A reply or an error, and who sent it. Of a reply, the second word is left zero.
    pub(crate) said: Said,
    /// The sequence number of the request.
    pub(crate) sequence: [u8; 2],
    /// The data of a reply.
    pub(crate) data: Vec<u8>,
}

/// Number of an echo socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EchoId(u32);

#[derive(Debug)]
struct EchoSocket {
    owner: Owner,
    /// The user of it.
    uid: u32,
    remote: IpAddr,
    /// The interface on whose link that is meant, if the program said so.
    link: Option<IfName>,
    ident: u16,
    /// Hop limit of requests; `None` for that of the path.
    hop_limit: Option<NonZeroU8>,
    /// Whether it hears errors.
    hears_errors: bool,
    heard: VecDeque<Heard>,
    bytes: usize,
}

/// Every echo socket.
#[derive(Debug, Default)]
pub(crate) struct Echo {
    sockets: Slab<EchoSocket>,
    idents: BTreeMap<u16, u32>,
    events: VecDeque<Owner>,
    /// Bytes in all queues.
    memory: Memory,
}

impl Echo {
    /// A socket of `uid` that pings `remote`, which may be a group, on the link of an interface if
    /// one is named. `ENFILE` if there are too many.
    pub(crate) fn open(
        &mut self,
        ip: &mut Ip,
        (remote, link): (IpAddr, Option<IfName>),
        hears_errors: bool,
        owner: Owner,
        uid: u32,
    ) -> Result<EchoId, Errno> {
        let most = match uid {
            0 => MAX_SOCKETS,
            _ => MAX_SOCKETS - RESERVED_SOCKETS,
        };
        if self.sockets.len() >= most {
            return Err(errno::ENFILE);
        }
        let free = |ident: &u16| *ident != 0 && !self.idents.contains_key(ident);
        let ident = each_once(&mut ip.pings).find(free);
        let ident = ident.ok_or(errno::ENFILE)?;
        let key = self.sockets.insert(EchoSocket {
            owner,
            uid,
            remote,
            link,
            ident,
            hop_limit: None,
            hears_errors,
            heard: VecDeque::new(),
            bytes: 0,
        }) as u32;
        self.idents.insert(ident, key);
        Ok(EchoId(key))
    }

    pub(crate) fn close(&mut self, id: EchoId) {
        if let Some(socket) = self.sockets.try_remove(id.0 as usize) {
            self.idents.remove(&socket.ident);
            self.memory.give_back(socket.bytes);
        }
    }

    fn get(&self, id: EchoId) -> Option<&EchoSocket> {
        self.sockets.get(id.0 as usize)
    }

    /// The next socket of a listing from place `at` on, which is moved behind it; `None` at the end.
    pub(crate) fn list(&self, at: &mut usize) -> Option<Listed> {
        let (_, socket) = next_of(&self.sockets, at)?;
        Some(Listed {
            state: None,
            local: (unspecified(&socket.remote), None),
            remote: (socket.remote, None),
            recv: socket.heard.iter().map(|heard| heard.data.len() + 2).sum(),
            send: 0,
            owner: Some(socket.owner),
            path: None,
        })
    }

    /// The address that it pings, and the interface that was named with it.
    pub(crate) fn remote(&self, id: EchoId) -> Option<(IpAddr, Option<IfName>)> {
        let socket = self.get(id)?;
        Some((socket.remote, socket.link))
    }

    /// Whether it hears errors about its requests.
    pub(crate) fn hears_errors(&self, id: EchoId) -> bool {
        self.get(id).is_some_and(|socket| socket.hears_errors)
    }

    /// The hop limit of its requests.
    pub(crate) fn hop_limit(&self, id: EchoId) -> Option<u8> {
        Some(self.get(id)?.hop_limit.map_or(HOP_LIMIT, NonZeroU8::get))
    }

    /// Sets the hop limit of its requests.
    pub(crate) fn set_hop_limit(&mut self, id: EchoId, hops: NonZeroU8) {
        if let Some(socket) = self.sockets.get_mut(id.0 as usize) {
            socket.hop_limit = Some(hops);
        }
    }

    /// Whether a message waits to be read.
    pub(crate) fn has_queued(&self, id: EchoId) -> bool {
        self.get(id).is_some_and(|socket| !socket.heard.is_empty())
    }

    /// Takes the oldest message.
    pub(crate) fn recv(&mut self, id: EchoId) -> Option<Heard> {
        let socket = self.sockets.get_mut(id.0 as usize)?;
        let heard = memory::pop_front(&mut socket.heard, SPARE_PLACES)?;
        socket.bytes -= heard.cost();
        self.memory.give_back(heard.cost());
        Some(heard)
    }

    /// The owner of the next socket to which a message came.
    #[must_use]
    pub(crate) fn poll_event(&mut self) -> Option<Owner> {
        self.events.pop_front()
    }

    /// Whether [`poll_event`](Self::poll_event) has one.
    pub(crate) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Sends a request.
    pub(crate) fn send(
        &self,
        ip: &mut Ip,
        id: EchoId,
        sequence: [u8; 2],
        data: &[u8],
    ) -> Result<(), Errno> {
        let socket = self.get(id).ok_or(errno::EBADF)?;
        let dst = socket.remote;
        let only = socket.link.map(|link| ip.named(link)).transpose()?;
        let path = ip.route_to(&dst, only)?;
        let src = path.src.ok_or(errno::EADDRNOTAVAIL)?;
        let (protocol, kind) = match dst {
            IpAddr::V4(_) => (proto::ICMP, 8),
            IpAddr::V6(_) => (proto::ICMPV6, 128),
        };
        let [a, b] = socket.ident.to_be_bytes();
        let head = [kind, 0, 0, 0, a, b, sequence[0], sequence[1]];
        let mut message = Packet::concat(&head, data);
        let sum = match dst {
            IpAddr::V4(_) => checksum::fill_plain(&message),
            IpAddr::V6(_) => checksum::fill(&src, &dst, protocol, &message),
        };
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let hops = socket.hop_limit.map_or(path.hops, NonZeroU8::get);
        ip.ip_output(path, src, dst, protocol, hops, message)?;
        Ok(())
    }

    /// Handles a reply.
    pub(crate) fn input(&mut self, ip: &Ip, received: &Received) -> Verdict {
        let message = received.payload();
        let Some((&[kind, code, _, _, a, b, c, d], data)) = message.split_first_chunk() else {
            return Verdict::Dropped(DropReason::Malformed);
        };
        let key = self.idents.get(&u16::from_be_bytes([a, b]));
        let socket = key.and_then(|&key| self.sockets.get_mut(key as usize));
        // A socket that pings many hosts gets the reply of each.
        let src = received.header.src;
        let meant = |socket: &&mut EchoSocket| {
            (socket.remote == src || ip.ifs.is_many(&socket.remote))
                && socket.is_on(ip, received.rcvif)
        };
        let Some(socket) = socket.filter(meant) else {
            return Verdict::Dropped(DropReason::NotWanted);
        };
        let heard = Heard {
            said: Said {
                by: src,
                kind,
                code,
                word: [0; 4],
            },
            sequence: [c, d],
            data: data.to_vec(),
        };
        match socket.push(heard, &mut self.memory) {
            true => {
                self.events.push_back(socket.owner);
                Verdict::Delivered
            }
            false => Verdict::Dropped(DropReason::SocketFull),
        }
    }

    /// The key of the socket whose request a message is about.
    fn asker(&self, ip: &Ip, quoted: &Quoted) -> Option<usize> {
        let (ident, _) = quoted.echo?;
        let key = *self.idents.get(&ident)? as usize;
        let socket = self.sockets.get(key)?;
        let there = socket.remote == quoted.endpoints.remote.0 && socket.is_on(ip, quoted.dev);
        there.then_some(key)
    }

    /// Whether a message is about an echo request of ours.
    pub(crate) fn knows(&self, ip: &Ip, quoted: &Quoted) -> bool {
        self.asker(ip, quoted).is_some()
    }

    /// Passes an error to the socket whose request it is about, if that hears errors.
    pub(crate) fn notice(&mut self, ip: &Ip, quoted: &Quoted, said: Said) {
        let key = self.asker(ip, quoted);
        let socket = key.and_then(|key| self.sockets.get_mut(key));
        let socket = socket.filter(|socket| socket.hears_errors);
        let (Some(socket), Some((_, sequence))) = (socket, quoted.echo) else {
            return;
        };
        let heard = Heard {
            said,
            sequence,
            data: Vec::new(),
        };
        // One that finds the queue full is lost, like a reply.
        if socket.push(heard, &mut self.memory) {
            self.events.push_back(socket.owner);
        }
    }
}

impl EchoSocket {
    /// Whether what came by an interface may be from the link that the program named.
    fn is_on(&self, ip: &Ip, dev: IfIndex) -> bool {
        let there = |link| ip.ifs.name_of(dev) == Some(link) || ip.is_loopback(dev);
        self.link.is_none_or(there)
    }

    /// Queues a message. False if there is no room.
    fn push(&mut self, heard: Heard, memory: &mut Memory) -> bool {
        let cost = heard.cost();
        let full = self.heard.len() >= QUEUE_PACKETS || self.bytes + cost > QUEUE_BYTES;
        if full || !memory.has_room(cost, self.uid) {
            return false;
        }
        self.bytes += cost;
        memory.take(cost);
        self.heard.push_back(heard);
        true
    }
}

impl Heard {
    /// Bytes charged for it.
    fn cost(&self) -> usize {
        self.data.len() + OVERHEAD
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip::testing::{self, HOST, PEER, connected, sent};

    const SEQUENCE: [u8; 2] = [0x12, 0x34];

    /// The reply of `from` to a request.
    fn reply_to(request: &[u8], from: std::net::Ipv4Addr) -> Packet {
        let mut message = request[20..].to_vec();
        message[0] = 0;
        message[2..4].fill(0);
        let sum = checksum::fill_plain(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        testing::ipv4(from, HOST, proto::ICMP, &message)
    }

    /// A packet to a host, which a message that came by an interface quotes.
    fn quoted(ip: &Ip, dev: IfIndex, ident: Option<u16>, remote: IpAddr) -> Quoted {
        Quoted {
            protocol: proto::ICMP,
            endpoints: ip.endpoints((HOST.into(), 0), (remote, 0), dev),
            dev,
            echo: ident.map(|ident| (ident, SEQUENCE)),
        }
    }

    fn arrive(echo: &mut Echo, ip: &mut Ip, reply: Packet) -> Verdict {
        let dev = ip.ifs.by_name("test0").unwrap();
        testing::receive(ip, dev, reply, |ip, delivery| match delivery {
            crate::ip::Delivery::EchoReply(received) => echo.input(ip, &received),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn a_reply_comes_to_the_socket_that_asked() {
        let (mut ip, dev) = connected();
        let mut echo = Echo::default();
        let id = echo
            .open(&mut ip, (PEER.into(), None), false, Owner(9), 0)
            .unwrap();
        echo.send(&mut ip, id, SEQUENCE, b"ping").unwrap();
        let request = sent(&mut ip, dev).remove(0);
        assert_eq!((request[9], request[20]), (proto::ICMP, 8));
        assert!(checksum::verify_plain(&request[20..]));
        let verdict = arrive(&mut echo, &mut ip, reply_to(&request, PEER));
        assert_eq!(verdict, Verdict::Delivered);
        assert_eq!(echo.poll_event(), Some(Owner(9)));
        let heard = echo.recv(id).unwrap();
        assert_eq!((heard.said.by, heard.said.kind), (PEER.into(), 0));
        assert_eq!((heard.sequence, &heard.data[..]), (SEQUENCE, &b"ping"[..]));
        assert!(!echo.has_queued(id) && echo.recv(id).is_none());
    }

    #[test]
    fn a_reply_from_elsewhere_or_to_nobody_is_dropped() {
        let not_wanted = Verdict::Dropped(DropReason::NotWanted);
        let (mut ip, dev) = connected();
        let mut echo = Echo::default();
        let id = echo
            .open(&mut ip, (PEER.into(), None), false, Owner(0), 0)
            .unwrap();
        echo.send(&mut ip, id, SEQUENCE, b"").unwrap();
        let request = sent(&mut ip, dev).remove(0);
        let elsewhere = reply_to(&request, [10, 0, 0, 3].into());
        assert_eq!(arrive(&mut echo, &mut ip, elsewhere), not_wanted);
        echo.close(id);
        let late = reply_to(&request, PEER);
        assert_eq!(arrive(&mut echo, &mut ip, late), not_wanted);
        assert!(echo.idents.is_empty() && echo.poll_event().is_none());
    }

    #[test]
    fn a_broadcast_is_answered_by_many() {
        let (mut ip, dev) = connected();
        let mut echo = Echo::default();
        let all = IpAddr::from([10, 0, 0, 255]);
        let id = echo.open(&mut ip, (all, None), false, Owner(0), 0).unwrap();
        echo.send(&mut ip, id, SEQUENCE, b"").unwrap();
        let request = sent(&mut ip, dev).remove(0);
        for from in [PEER, [10, 0, 0, 3].into()] {
            let verdict = arrive(&mut echo, &mut ip, reply_to(&request, from));
            assert_eq!(verdict, Verdict::Delivered);
        }
    }

    #[test]
    fn a_full_queue_drops() {
        let (mut ip, dev) = connected();
        let mut echo = Echo::default();
        let id = echo
            .open(&mut ip, (PEER.into(), None), false, Owner(0), 0)
            .unwrap();
        echo.send(&mut ip, id, SEQUENCE, b"").unwrap();
        let request = sent(&mut ip, dev).remove(0);
        for _ in 0..QUEUE_PACKETS {
            let verdict = arrive(&mut echo, &mut ip, reply_to(&request, PEER));
            assert_eq!(verdict, Verdict::Delivered);
        }
        let verdict = arrive(&mut echo, &mut ip, reply_to(&request, PEER));
        assert_eq!(verdict, Verdict::Dropped(DropReason::SocketFull));
        // Long ones are bounded in bytes.
        let other = echo
            .open(&mut ip, (PEER.into(), None), false, Owner(0), 0)
            .unwrap();
        echo.send(&mut ip, other, SEQUENCE, b"").unwrap();
        let request = [&sent(&mut ip, dev).remove(0)[..], &[0; 8000]].concat();
        let taken = (0..QUEUE_PACKETS)
            .take_while(|_| {
                let verdict = arrive(&mut echo, &mut ip, reply_to(&request, PEER));
                verdict == Verdict::Delivered
            })
            .count();
        assert!(
            (QUEUE_BYTES / 9000..=QUEUE_BYTES / 8000).contains(&taken),
            "{taken}"
        );
    }

    #[test]
    fn sockets_that_are_not_read_leave_room_for_the_superusers() {
        let (mut ip, dev) = connected();
        let mut echo = Echo::default();
        let request = |echo: &Echo, ip: &mut Ip, id| {
            echo.send(ip, id, SEQUENCE, &[0; 1400]).unwrap();
            sent(ip, dev).remove(0)
        };
        let mut full = || {
            let id = echo
                .open(&mut ip, (PEER.into(), None), false, Owner(0), 1000)
                .unwrap();
            let reply = reply_to(&request(&echo, &mut ip, id), PEER);
            let taken = (0..QUEUE_PACKETS)
                .take_while(|_| arrive(&mut echo, &mut ip, reply.clone()) == Verdict::Delivered);
            taken.count() < QUEUE_PACKETS
        };
        let sockets = (0..1000).position(|_| full());
        assert!(sockets.is_some_and(|sockets| sockets > 100));
        let mut pings = |uid| {
            let id = echo
                .open(&mut ip, (PEER.into(), None), false, Owner(0), uid)
                .unwrap();
            let reply = reply_to(&request(&echo, &mut ip, id), PEER);
            (id, arrive(&mut echo, &mut ip, reply))
        };
        assert_eq!(pings(1000).1, Verdict::Dropped(DropReason::SocketFull));
        let (id, verdict) = pings(0);
        assert_eq!(verdict, Verdict::Delivered);
        assert!(echo.recv(id).is_some());
        let ids: Vec<_> = echo
            .sockets
            .iter()
            .map(|(key, _)| EchoId(key as u32))
            .collect();
        ids.into_iter().for_each(|id| echo.close(id));
        assert!(echo.memory.is_empty());
    }

    #[test]
    fn an_error_is_for_who_asked_to_hear_it() {
        let (mut ip, dev) = connected();
        let mut echo = Echo::default();
        let said = Said {
            by: [10, 0, 0, 9].into(),
            kind: 3,
            code: 1,
            word: [0; 4],
        };
        for hears in [false, true] {
            let id = echo.open(&mut ip, (PEER.into(), None), hears, Owner(7), 0);
            let id = id.unwrap();
            let ident = echo.get(id).unwrap().ident;
            let quoted = |ident: Option<u16>, remote| quoted(&ip, dev, ident, remote);
            for unknown in [
                quoted(Some(ident), HOST.into()),
                quoted(Some(!ident), PEER.into()),
                quoted(None, PEER.into()),
            ] {
                assert!(!echo.knows(&ip, &unknown));
                echo.notice(&ip, &unknown, said);
            }
            assert!(!echo.has_queued(id));
            for _ in 0..2 * QUEUE_PACKETS {
                let asked = quoted(Some(ident), PEER.into());
                assert!(echo.knows(&ip, &asked));
                echo.notice(&ip, &asked, said);
            }
            let heard: Vec<_> = std::iter::from_fn(|| echo.recv(id)).collect();
            let told: Vec<_> = std::iter::from_fn(|| echo.poll_event()).collect();
            let right = if hears { QUEUE_PACKETS } else { 0 };
            assert_eq!((heard.len(), told.len()), (right, right));
            let right = (said, SEQUENCE);
            assert!(
                heard
                    .iter()
                    .all(|heard| (heard.said, heard.sequence) == right)
            );
            assert!(echo.memory.is_empty());
        }
    }

    #[test]
    fn an_error_is_from_the_link_that_was_named() {
        let (mut ip, dev) = connected();
        let mut echo = Echo::default();
        for remote in ["fe80::2", "ff02::1"] {
            let remote: IpAddr = remote.parse().unwrap();
            for (name, right) in [(None, true), (Some("test0"), true), (Some("test1"), false)] {
                let link = name.map(|name| IfName::new(name).unwrap());
                let id = echo.open(&mut ip, (remote, link), true, Owner(7), 0);
                let id = id.unwrap();
                let ident = echo.get(id).unwrap().ident;
                let quoted = quoted(&ip, dev, Some(ident), remote);
                let by = "fe80::9".parse().unwrap();
                let (kind, code, word) = (2, 0, [0, 0, 5, 0]);
                let said = Said {
                    by,
                    kind,
                    code,
                    word,
                };
                echo.notice(&ip, &quoted, said);
                assert_eq!(echo.knows(&ip, &quoted), right, "{remote} {name:?}");
                assert_eq!(echo.recv(id).map(|heard| heard.said), right.then_some(said));
            }
        }
    }
}

//! UDP: sockets with bounded queues of their own, and fan-out.

use std::collections::{HashMap, VecDeque};
use std::iter;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU8;
use std::ops::Range;

use scheme::errno::{self, Errno};
use slab::Slab;
use smallvec::SmallVec;
use smoltcp::wire::UdpPacket;

use super::listed::{Listed, next_of};
use super::ports::Ports;
use super::{OVERHEAD, Owner, Peer, unspecified};
use crate::ifnet::{DropReason, IfIndex, IfName, Ifnet, is_link_local};
use crate::ip::header::{Addressee, Endpoints, proto};
use crate::ip::icmp::{Notice, Problem};
use crate::ip::output::Egress;
use crate::ip::{Ip, NetError, Received, Verdict, checksum};
use crate::memory::{self, Memory, SPARE_PLACES};
use crate::packet::Packet;

/// Bytes of a UDP header.
const HEADER: usize = 8;
/// Most bytes in a socket's queue, overhead included, unless its program asks for fewer.
pub(crate) const QUEUE_BYTES: usize = 208 << 10;
/// The smallest size of a queue, bytes.
const SMALLEST_QUEUE: usize = 4 << 10;
/// The number of recent destinations that a socket remembers.
const RECENT: usize = 16;
/// Most sockets.
const MAX_SOCKETS: usize = 65_536;

/// Number of a UDP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct UdpId(u32);

/// The options with which a datagram is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SendTerms {
    /// Hop limit of unicasts and broadcasts; `None` for that of the path.
    pub(crate) hop_limit: Option<NonZeroU8>,
    /// Hop limit of multicasts. With zero they do not leave this host.
    pub(crate) group_hops: u8,
    /// Whether this host gets its own multicasts, if it is in the group.
    pub(crate) group_loop: bool,
    /// The address of the interface that multicasts leave by; `None` for the interface of the
    /// route.
    pub(crate) group_if: Option<Ipv4Addr>,
    /// The interface that nothing leaves by.
    pub(crate) bypass: Option<IfName>,
    /// The interface on whose link the destination is meant, if the program said so.
    pub(crate) link: Option<IfName>,
}

impl Default for SendTerms {
    fn default() -> Self {
        Self {
            hop_limit: None,
            // RFC 1112 sections 6.1 and 6.2.
            group_hops: 1,
            group_loop: true,
            group_if: None,
            bypass: None,
            link: None,
        }
    }
}

/// A datagram that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Datagram {
    /// Address and port of the sender.
    pub(crate) from: (IpAddr, u16),
    /// The address it was sent to.
    pub(crate) to: IpAddr,
    /// The interface on whose link the sender is, if its address is valid on one link only.
    link: Option<IfName>,
    packet: Packet,
    data: Range<usize>,
}

impl Datagram {
    /// Its payload.
    pub(crate) fn data(&self) -> &[u8] {
        &self.packet[self.data.clone()]
    }

    /// Bytes charged for it: the memory that it holds.
    fn cost(&self) -> usize {
        self.packet.memory() + OVERHEAD
    }
}

#[derive(Debug)]
struct UdpSocket {
    owner: Owner,
    /// The user of it.
    uid: u32,
    /// Its address; an unspecified one for all of that family.
    local: IpAddr,
    port: u16,
    /// The only sender that it hears. If that is on one link, the link is noted.
    peer: Option<Peer>,
    /// The last destinations, and the links of those that are on one. ICMP errors about others are
    /// ignored.
    recent: VecDeque<((IpAddr, u16), Option<IfName>)>,
    /// The last senders whose addresses are valid on one link only, and the link by which each was
    /// heard last: answers go there.
    heard: VecDeque<(IpAddr, IfName)>,
    /// The error about a datagram to `remote` that the program has not seen yet.
    error: Option<Errno>,
    queue: VecDeque<Datagram>,
    bytes: usize,
    /// Most bytes of the queue.
    limit: usize,
    /// Whether an event about it is queued.
    told: bool,
}

impl UdpSocket {
    /// Whether it hears the sender of a datagram.
    fn hears(&self, endpoints: &Endpoints) -> bool {
        self.peer.is_none_or(|peer| {
            let there = peer.link.is_none() || peer.link == endpoints.link;
            peer.name() == endpoints.remote && there
        })
    }

    /// Notes the link by which a sender was heard.
    fn hear(&mut self, addr: IpAddr, link: IfName) {
        self.heard.retain(|(other, _)| *other != addr);
        if self.heard.len() == RECENT {
            self.heard.pop_front();
        }
        self.heard.push_back((addr, link));
    }

    /// The link by which a sender was heard last.
    fn link_of(&self, addr: &IpAddr) -> Option<IfName> {
        let mut heard = self.heard.iter();
        heard
            .find(|(other, _)| other == addr)
            .map(|(_, link)| *link)
    }
}

/// A socket that has something to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UdpEvent {
    pub(crate) socket: UdpId,
    pub(crate) owner: Owner,
}

/// Every UDP socket.
#[derive(Debug)]
pub(crate) struct Udp {
    sockets: Slab<UdpSocket>,
    /// Sockets by name: an address, or the unspecified one of a family for all of that, and a port.
    /// Names are unique.
    names: HashMap<(IpAddr, u16), u32, ahash::RandomState>,
    ports: Ports,
    events: VecDeque<u32>,
    /// Bytes in all queues.
    memory: Memory,
}

impl Udp {
    pub(crate) fn new(hasher: ahash::RandomState) -> Self {
        Self {
            sockets: Slab::new(),
            names: HashMap::with_hasher(hasher.clone()),
            ports: Ports::new(hasher),
            events: VecDeque::new(),
            memory: Memory::default(),
        }
    }

    /// Makes a socket of `uid` on a port of one address, or of all of a family if it is
    /// unspecified. `ENFILE` if there are too many, `EADDRINUSE` if the port is taken or among the
    /// last ones, which are the superuser's.
    pub(crate) fn bind(
        &mut self,
        local: IpAddr,
        port: u16,
        owner: Owner,
        uid: u32,
    ) -> Result<UdpId, Errno> {
        if self.sockets.len() >= MAX_SOCKETS {
            return Err(errno::ENFILE);
        }
        // A socket bound to all addresses of a family takes the port of each.
        let taken = match local.is_unspecified() {
            true => self.ports.is_held(&local, port),
            false => self.holder((local, port)).is_some(),
        };
        if taken || !self.ports.may_take(&local, port, uid) {
            return Err(errno::EADDRINUSE);
        }
        let socket = UdpSocket {
            owner,
            uid,
            local,
            port,
            peer: None,
            recent: VecDeque::new(),
            heard: VecDeque::new(),
            error: None,
            queue: VecDeque::new(),
            bytes: 0,
            limit: QUEUE_BYTES,
            told: false,
        };
        let id = self.sockets.insert(socket) as u32;
        self.names.insert((local, port), id);
        self.ports.add(&local, port);
        Ok(UdpId(id))
    }

    /// The socket that gets datagrams for an address and port of ours.
    fn holder(&self, local: (IpAddr, u16)) -> Option<u32> {
        let (addr, port) = local;
        let names = [addr, unspecified(&addr)].map(|addr| (addr, port));
        names.iter().find_map(|name| self.names.get(name)).copied()
    }

    /// Takes the oldest datagram.
    pub(crate) fn recv(&mut self, id: UdpId) -> Option<Datagram> {
        let socket = self.sockets.get_mut(id.0 as usize)?;
        let datagram = memory::pop_front(&mut socket.queue, SPARE_PLACES)?;
        socket.bytes -= datagram.cost();
        self.memory.give_back(datagram.cost());
        if let Some(link) = datagram.link {
            socket.hear(datagram.from.0, link);
        }
        Some(datagram)
    }

    /// Looks at the oldest datagram.
    pub(crate) fn peek(&self, id: UdpId) -> Option<&Datagram> {
        self.sockets.get(id.0 as usize)?.queue.front()
    }

    /// Whether there is something to read.
    pub(crate) fn has_queued(&self, id: UdpId) -> bool {
        let socket = self.sockets.get(id.0 as usize);
        socket.is_some_and(|socket| !socket.queue.is_empty() || socket.error.is_some())
    }

    /// Restricts a socket to datagrams of one sender, or lifts that with `None`. A sender on a link
    /// that is not named is meant where it was heard last.
    pub(crate) fn connect(&mut self, ip: &Ip, id: UdpId, peer: Option<Peer>) {
        let Some(socket) = self.sockets.get_mut(id.0 as usize) else {
            return;
        };
        let name = |peer: &Option<Peer>| peer.map(|peer| peer.name());
        let stays = name(&socket.peer) == name(&peer);
        let before = socket.peer.take().and_then(|peer| peer.link);
        socket.peer = peer.map(|mut peer| {
            peer.link = match peer.link {
                // What is for an address of our own comes by lo0.
                Some(link) => {
                    let only = ip.named(link).ok();
                    let way = only.and_then(|only| ip.way_to(&peer.addr, Some(only)).ok());
                    way.and_then(|path| ip.ifs.name_of(path.dev)).or(Some(link))
                }
                None if stays => before,
                None => socket.link_of(&peer.addr),
            };
            peer
        });
    }

    /// The interfaces by which a socket reaches a destination, from `src` or else its own address.
    /// `link` is the one that the program named.
    pub(crate) fn egress(
        &self,
        ip: &Ip,
        id: UdpId,
        src: Option<IpAddr>,
        dst: (IpAddr, u16),
        (link, bypass): (Option<IfName>, Option<IfName>),
    ) -> Result<Egress, NetError> {
        let never = ip.bypassed(bypass);
        let only = match link {
            Some(link) => Some(ip.named(link)?),
            None if !is_link_local(&dst.0) => None,
            None => {
                let socket = self.sockets.get(id.0 as usize);
                let peer = socket.and_then(|socket| socket.peer);
                let peer = peer.filter(|peer| peer.name() == dst);
                let link = match peer.and_then(|peer| peer.link) {
                    Some(link) => Some(ip.named(link)?),
                    None => {
                        let heard = socket.and_then(|socket| socket.link_of(&dst.0));
                        heard.and_then(|link| ip.named(link).ok())
                    }
                };
                // What is from an address of one link stays on it (RFC 4007 section 9).
                let src = src.or(socket.map(|socket| socket.local));
                link.or_else(|| ip.ifs.link_of(&src?, &dst.0))
            }
        };
        Ok(Egress { only, never })
    }

    /// Takes the error about our datagrams.
    pub(crate) fn take_error(&mut self, id: UdpId) -> Option<Errno> {
        self.sockets.get_mut(id.0 as usize)?.error.take()
    }

    /// Reports that a datagram of ours did not arrive. If its socket is connected to the
    /// destination, it gets the error.
    pub(crate) fn refuse(&mut self, endpoints: &Endpoints, error: Errno) {
        if let Some(id) = self.holder(endpoints.local)
            && let Some(socket) = self.sockets.get_mut(id as usize)
            && socket.peer.is_some()
            && socket.hears(endpoints)
        {
            socket.error = Some(error);
            if !std::mem::replace(&mut socket.told, true) {
                self.events.push_back(id);
            }
        }
    }

    /// Closes a socket. Datagrams that were not read are lost.
    pub(crate) fn unbind(&mut self, id: UdpId) {
        let Some(socket) = self.sockets.try_remove(id.0 as usize) else {
            return;
        };
        self.memory.give_back(socket.bytes);
        self.names.remove(&(socket.local, socket.port));
        self.ports.remove(&socket.local, socket.port);
    }

    /// Gives a socket to another owner.
    pub(crate) fn set_owner(&mut self, id: UdpId, owner: Owner) {
        if let Some(socket) = self.sockets.get_mut(id.0 as usize) {
            socket.owner = owner;
        }
    }

    /// The next socket of a listing from place `at` on, which is moved behind it; `None` at the end.
    pub(crate) fn list(&self, at: &mut usize) -> Option<Listed> {
        let (_, socket) = next_of(&self.sockets, at)?;
        let nobody = (unspecified(&socket.local), 0);
        let (remote, port) = socket.peer.map_or(nobody, |peer| peer.name());
        Some(Listed {
            state: None,
            local: (socket.local, Some(socket.port)),
            remote: (remote, Some(port)),
            recv: socket.queue.iter().map(|queued| queued.data.len()).sum(),
            send: 0,
            owner: Some(socket.owner),
            path: None,
        })
    }

    /// The nearest permitted size of a queue.
    pub(crate) fn clamp_queue(bytes: usize) -> usize {
        bytes.clamp(SMALLEST_QUEUE, QUEUE_BYTES)
    }

    /// Sets how many bytes a socket's queue holds, overhead included. Datagrams that are queued
    /// stay.
    pub(crate) fn set_limit(&mut self, id: UdpId, bytes: usize) {
        if let Some(socket) = self.sockets.get_mut(id.0 as usize) {
            socket.limit = Self::clamp_queue(bytes);
        }
    }

    /// Most bytes in a socket's queue.
    pub(crate) fn limit(&self, id: UdpId) -> Option<usize> {
        Some(self.sockets.get(id.0 as usize)?.limit)
    }

    /// The address and port that a socket is bound to.
    fn local(&self, id: UdpId) -> Option<(IpAddr, u16)> {
        let socket = self.sockets.get(id.0 as usize)?;
        Some((socket.local, socket.port))
    }

    /// The next socket with something to read that was not told before.
    pub(crate) fn poll_event(&mut self) -> Option<UdpEvent> {
        loop {
            let id = self.events.pop_front()?;
            // It may have been closed since then.
            if let Some(socket) = self.sockets.get_mut(id as usize) {
                socket.told = false;
                return Some(UdpEvent {
                    socket: UdpId(id),
                    owner: socket.owner,
                });
            }
        }
    }

    /// Whether there are events to take.
    pub(crate) fn has_work(&self) -> bool {
        !self.events.is_empty()
    }

    /// Handles an error about a datagram of ours.
    pub(crate) fn notice(&mut self, endpoints: &Endpoints, notice: Notice) {
        match notice {
            Notice::Refused => self.refuse(endpoints, errno::ECONNREFUSED),
            Notice::Unreachable => self.refuse(endpoints, errno::EHOSTUNREACH),
            Notice::Narrow(_) | Notice::Lost => {}
        }
    }

    /// Whether a socket of ours recently sent a datagram between these endpoints.
    pub(crate) fn knows(&self, endpoints: &Endpoints) -> bool {
        let holder = self.holder(endpoints.local);
        let socket = holder.and_then(|id| self.sockets.get(id as usize));
        let sent = (endpoints.remote, endpoints.link);
        socket.is_some_and(|socket| socket.recent.contains(&sent))
    }

    /// Whether a socket of ours may have sent a datagram between these endpoints. One that has sent
    /// to more destinations than it remembers is believed to have: an mtu that is false costs little,
    /// and without a true one the path is a black hole.
    pub(crate) fn may_have_sent(&self, endpoints: &Endpoints) -> bool {
        let holder = self.holder(endpoints.local);
        let socket = holder.and_then(|id| self.sockets.get(id as usize));
        self.knows(endpoints) || socket.is_some_and(|socket| socket.recent.len() == RECENT)
    }

    /// Notes the destination of a datagram.
    fn note(&mut self, id: UdpId, endpoints: &Endpoints) {
        let dst = (endpoints.remote, endpoints.link);
        let Some(socket) = self.sockets.get_mut(id.0 as usize) else {
            return;
        };
        if socket.recent.contains(&dst) {
            return;
        }
        if socket.recent.len() == RECENT {
            socket.recent.pop_front();
        }
        socket.recent.push_back(dst);
    }

    /// The sockets that get a datagram. A unicast goes to one; a multicast or broadcast to the
    /// sockets of the port that are bound to no address, or to this one. A broadcast also goes to
    /// sockets that are bound to an address of the interface it came by, which `own` are, as those of
    /// DHCP clients may be. However many others have the port costs nothing.
    fn takers(
        &self,
        addressee: Addressee,
        endpoints: &Endpoints,
        own: impl Iterator<Item = IpAddr>,
    ) -> SmallVec<[u32; 1]> {
        let mut takers = self.holders(addressee, endpoints.local, own);
        takers.retain(|&mut id| {
            let socket = self.sockets.get(id as usize);
            socket.is_some_and(|socket| socket.hears(endpoints))
        });
        takers
    }

    /// The same, without regard to what they hear.
    fn holders(
        &self,
        addressee: Addressee,
        to: (IpAddr, u16),
        own: impl Iterator<Item = IpAddr>,
    ) -> SmallVec<[u32; 1]> {
        if addressee == Addressee::Host {
            return self.holder(to).into_iter().collect();
        }
        let (addr, port) = to;
        let own = own.filter(|_| addressee == Addressee::Broadcast);
        let mut holders = SmallVec::new();
        for addr in [unspecified(&addr), addr].into_iter().chain(own) {
            // An interface may have one address in two networks.
            if let Some(&id) = self.names.get(&(addr, port))
                && !holders.contains(&id)
            {
                holders.push(id);
            }
        }
        holders
    }

    /// Whether a socket's queue, and the memory of all queues, have room for a datagram.
    fn has_room(&self, id: u32, datagram: &Datagram) -> bool {
        let cost = datagram.cost();
        self.sockets.get(id as usize).is_some_and(|socket| {
            socket.bytes + cost <= socket.limit && self.memory.has_room(cost, socket.uid)
        })
    }

    /// Gives a copy of a datagram to each socket that has room for it. True if one had.
    fn queue_all(&mut self, ids: &[u32], datagram: Datagram) -> bool {
        let Some((&last, others)) = ids.split_last() else {
            return false;
        };
        let mut taken = false;
        for &id in others {
            if self.has_room(id, &datagram) {
                self.queue(id, datagram.clone());
                taken = true;
            }
        }
        if self.has_room(last, &datagram) {
            self.queue(last, datagram);
            taken = true;
        }
        taken
    }

    /// Queues a datagram for which there is room.
    fn queue(&mut self, id: u32, datagram: Datagram) {
        let Some(socket) = self.sockets.get_mut(id as usize) else {
            return;
        };
        let cost = datagram.cost();
        socket.bytes += cost;
        self.memory.take(cost);
        socket.queue.push_back(datagram);
        if !std::mem::replace(&mut socket.told, true) {
            self.events.push_back(id);
        }
    }
}

impl Udp {
    /// Handles a received datagram.
    pub(crate) fn input(&mut self, ip: &mut Ip, received: Received) -> Verdict {
        let Received {
            rcvif,
            header,
            packet,
        } = received;
        let Ok(udp) = UdpPacket::new_checked(&packet[header.payload..]) else {
            return Verdict::Dropped(DropReason::Malformed);
        };
        let (src_port, dst_port) = (udp.src_port(), udp.dst_port());
        let len = usize::from(udp.len());
        if dst_port == 0 {
            return Verdict::Dropped(DropReason::Malformed);
        }
        let from = (header.src, src_port);
        let endpoints = ip.endpoints((header.dst, dst_port), from, rcvif);
        let own = ip.ifs.get(rcvif).into_iter().flat_map(|ifp| &ifp.addrs);
        let own = own.map(|own| own.addr);
        let takers = self.takers(header.addressee, &endpoints, own);
        if takers.is_empty() {
            if header.addressee == Addressee::Host {
                ip.icmp_error(rcvif, &packet, Problem::Port);
            }
            return Verdict::Dropped(DropReason::NoPort);
        }
        let data = header.payload + HEADER..header.payload + len;
        let datagram = Datagram {
            from,
            to: header.dst,
            link: endpoints.link,
            packet,
            data,
        };
        match self.queue_all(&takers, datagram) {
            true => Verdict::Delivered,
            false => Verdict::Dropped(DropReason::SocketFull),
        }
    }

    /// Sends a datagram from a socket's port: from `src`, or the address that the socket is bound to,
    /// or else the one that the route gives.
    pub(crate) fn send(
        &mut self,
        ip: &mut Ip,
        id: UdpId,
        src: Option<IpAddr>,
        dst: (IpAddr, u16),
        data: &[u8],
    ) -> Result<(), NetError> {
        self.send_on(ip, id, src, dst, data, SendTerms::default())
    }

    /// Sends with terms other than the default.
    pub(crate) fn send_on(
        &mut self,
        ip: &mut Ip,
        id: UdpId,
        src: Option<IpAddr>,
        dst: (IpAddr, u16),
        data: &[u8],
        terms: SendTerms,
    ) -> Result<(), NetError> {
        let (local, port) = self.local(id).ok_or(NetError::NoAddress)?;
        if local.is_ipv4() != dst.0.is_ipv4() {
            return Err(NetError::NoAddress);
        }
        let chosen = src.or(Some(local).filter(|local| !local.is_unspecified()));
        let len = u16::try_from(HEADER + data.len()).map_err(|_| NetError::TooBig)?;
        let group = dst.0.is_multicast();
        let mut egress = self.egress(ip, id, src, dst, (terms.link, terms.bypass))?;
        if let Some(addr) = terms.group_if
            && group
            && dst.0.is_ipv4()
        {
            let dev = ip.ifs.holder(&addr.into());
            egress.only = Some(dev.ok_or(NetError::NoAddress)?);
        }
        let path = ip.route_to(&dst.0, egress)?;
        ip.admit_datagram(path.dev)?;
        // A DHCP client broadcasts before it has an address.
        let everybody = matches!(dst.0, IpAddr::V4(dst) if dst.is_broadcast());
        let nobody = everybody.then_some(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let src = ip
            .source_to(&path, chosen, &dst.0)
            .or_else(|error| nobody.filter(|_| chosen.is_none()).ok_or(error))?;
        let endpoints = ip.endpoints((src, port), dst, path.dev);
        self.note(id, &endpoints);
        let mut packet = Packet::concat(&[0; HEADER], data);
        let mut udp = UdpPacket::new_unchecked(&mut packet[..]);
        udp.set_src_port(port);
        udp.set_dst_port(dst.1);
        udp.set_len(len);
        let sum = match checksum::fill(&src, &dst.0, proto::UDP, &packet) {
            // Zero would mean that there is no checksum (RFC 768).
            0 => u16::MAX,
            sum => sum,
        };
        packet[6..8].copy_from_slice(&sum.to_be_bytes());
        if !group {
            let hops = terms.hop_limit.map_or(path.hops, NonZeroU8::get);
            return ip.ip_output(path, src, dst.0, proto::UDP, hops, packet);
        }
        let lo = ip.ifs.get(path.dev).is_some_and(Ifnet::is_loopback);
        if terms.group_loop && !lo {
            self.loop_back(ip, path.dev, (src, port), dst, &packet);
        }
        // A packet on lo0 does not leave the host anyway.
        match terms.group_hops {
            0 if !lo => Ok(()),
            hops => ip.ip_output(path, src, dst.0, proto::UDP, hops, packet),
        }
    }

    /// Gives a copy of a datagram for a group to this host's own sockets, as if it had come in by
    /// the interface that it leaves by (RFC 1112 section 6.2).
    fn loop_back(
        &mut self,
        ip: &Ip,
        dev: IfIndex,
        from: (IpAddr, u16),
        dst: (IpAddr, u16),
        datagram: &[u8],
    ) {
        if !ip.ifs.get(dev).is_some_and(|ifp| ifp.hears(&dst.0)) {
            return;
        }
        let endpoints = ip.endpoints(dst, from, dev);
        let takers = self.takers(Addressee::Multicast, &endpoints, iter::empty());
        if takers.is_empty() {
            return;
        }
        let datagram = Datagram {
            from,
            to: dst.0,
            link: endpoints.link,
            packet: Packet::from(datagram),
            data: HEADER..datagram.len(),
        };
        // A slow reader loses it, as it loses received packets.
        self.queue_all(&takers, datagram);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    use crate::ip::Delivery;
    use crate::ip::testing::{self, HOST, PEER, connected, sent};

    const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    const PORT: u16 = 7;
    const THERE: (Ipv4Addr, u16) = (PEER, 4000);

    fn udp() -> Udp {
        Udp::new(ahash::RandomState::with_seeds(1, 2, 3, 4))
    }

    /// A datagram of the peer comes to a port of ours.
    fn arrive(udp: &mut Udp, ip: &mut Ip, dev: IfIndex, port: u16, data: &[u8]) -> Verdict {
        let packet = testing::udp(THERE, (HOST, port), data);
        testing::receive(ip, dev, packet, |ip, delivery| match delivery {
            Delivery::Udp(received) => udp.input(ip, received),
            other => panic!("{other:?}"),
        })
    }

    fn peer() -> (IpAddr, u16) {
        (THERE.0.into(), THERE.1)
    }

    #[test]
    fn sockets_are_bounded() {
        let mut udp = udp();
        for port in 0..=u16::MAX {
            udp.bind(HOST.into(), port, Owner(1), 0).unwrap();
        }
        let more = udp.bind(PEER.into(), 1, Owner(1), 0);
        assert_eq!(more, Err(errno::ENFILE));
    }

    #[test]
    fn a_name_is_one_sockets() {
        let mut udp = udp();
        let addr = |last: u8| IpAddr::from([127, 0, 0, last]);
        let one = udp.bind(addr(1), 7, Owner(0), 0).unwrap();
        let two = udp.bind(addr(2), 7, Owner(0), 0).unwrap();
        let taken =
            |udp: &mut Udp, local| udp.bind(local, 7, Owner(0), 0) == Err(errno::EADDRINUSE);
        assert!(taken(&mut udp, addr(1)) && taken(&mut udp, ANY));
        assert_eq!(udp.holder((addr(2), 7)), Some(two.0));
        assert_eq!(udp.holder((addr(3), 7)), None);
        udp.unbind(one);
        assert!(taken(&mut udp, ANY));
        udp.unbind(two);
        let all = udp.bind(ANY, 7, Owner(0), 0).unwrap();
        assert!(taken(&mut udp, addr(1)));
        // The other family has ports of its own.
        let v6 = udp
            .bind(Ipv6Addr::UNSPECIFIED.into(), 7, Owner(0), 0)
            .unwrap();
        assert_eq!(udp.holder((Ipv6Addr::LOCALHOST.into(), 7)), Some(v6.0));
        udp.unbind(v6);
        assert_eq!(udp.holder((Ipv6Addr::LOCALHOST.into(), 7)), None);
        assert_eq!(udp.holder((addr(3), 7)), Some(all.0));
        udp.unbind(all);
        assert!(udp.names.is_empty() && udp.ports.is_empty());
    }

    #[test]
    fn however_many_have_a_port_a_datagram_for_many_looks_at_those_it_may_be_for() {
        let mut udp = udp();
        let mut bind = |addr: [u8; 4]| udp.bind(addr.into(), PORT, Owner(0), 1000).unwrap().0;
        for number in 0..10_000_u32 {
            let [_, _, a, b] = number.to_be_bytes();
            bind([226, 0, a, b]);
            bind([127, 1, a, b]);
        }
        let [group, all, own] = [[224, 0, 0, 1], [10, 0, 0, 255], [10, 0, 0, 1]].map(bind);
        let holders = |addressee, to: [u8; 4]| {
            // One address in two networks.
            let addrs = [IpAddr::from([10, 0, 0, 1]); 2];
            let mut holders = udp.holders(addressee, (to.into(), PORT), addrs.into_iter());
            holders.sort_unstable();
            holders.to_vec()
        };
        assert_eq!(holders(Addressee::Multicast, [224, 0, 0, 1]), [group]);
        assert_eq!(holders(Addressee::Multicast, [224, 0, 0, 2]), []);
        assert_eq!(holders(Addressee::Broadcast, [10, 0, 0, 255]), [all, own]);
        assert_eq!(holders(Addressee::Broadcast, [255; 4]), [own]);
        assert_eq!(holders(Addressee::Host, [10, 0, 0, 1]), [own]);
    }

    #[test]
    fn a_datagram_goes_to_the_socket_of_its_port_and_its_owner_is_told_once() {
        let (mut ip, dev) = connected();
        let mut udp = udp();
        let id = udp.bind(ANY, PORT, Owner(9), 0).unwrap();
        let other = udp.bind(ANY, PORT + 1, Owner(10), 0).unwrap();
        for data in [&b"one"[..], b"two"] {
            let verdict = arrive(&mut udp, &mut ip, dev, PORT, data);
            assert_eq!(verdict, Verdict::Delivered);
        }
        let event = UdpEvent {
            socket: id,
            owner: Owner(9),
        };
        assert_eq!((udp.poll_event(), udp.poll_event()), (Some(event), None));
        let datagram = udp.recv(id).unwrap();
        assert_eq!(datagram.data(), b"one");
        assert_eq!((datagram.from, datagram.to), (peer(), HOST.into()));
        assert_eq!(udp.recv(id).unwrap().data(), b"two");
        assert!(!udp.has_queued(id) && !udp.has_queued(other) && udp.memory.is_empty());
        assert!(sent(&mut ip, dev).is_empty());
    }

    #[test]
    fn a_connected_socket_hears_its_peer_only() {
        let (mut ip, dev) = connected();
        let mut udp = udp();
        let id = udp.bind(ANY, PORT, Owner(0), 0).unwrap();
        udp.connect(&ip, id, Some((PEER.into(), 4001).into()));
        let verdict = arrive(&mut udp, &mut ip, dev, PORT, b"stranger");
        assert_eq!(verdict, Verdict::Dropped(DropReason::NoPort));
        udp.connect(&ip, id, Some(peer().into()));
        let verdict = arrive(&mut udp, &mut ip, dev, PORT, b"peer");
        assert_eq!(verdict, Verdict::Delivered);
    }

    #[test]
    fn without_a_socket_the_sender_is_told() {
        let (mut ip, dev) = connected();
        let verdict = arrive(&mut udp(), &mut ip, dev, PORT, b"anybody?");
        assert_eq!(verdict, Verdict::Dropped(DropReason::NoPort));
        let [error] = &sent(&mut ip, dev)[..] else {
            panic!("no ICMP error");
        };
        // Destination unreachable, port, about the datagram (RFC 792).
        assert_eq!((error[9], &error[20..22]), (proto::ICMP, &[3, 3][..]));
        assert_eq!(error[16..20], PEER.octets());
        assert_eq!(error[28..], *testing::udp(THERE, (HOST, PORT), b"anybody?"));
    }

    #[test]
    fn a_full_queue_drops_until_it_is_read() {
        let (mut ip, dev) = connected();
        let mut udp = udp();
        let id = udp.bind(ANY, PORT, Owner(0), 0).unwrap();
        udp.set_limit(id, 0);
        assert_eq!(udp.limit(id), Some(SMALLEST_QUEUE));
        let cost = 20 + HEADER + 1000 + OVERHEAD;
        for _ in 0..SMALLEST_QUEUE / cost {
            let verdict = arrive(&mut udp, &mut ip, dev, PORT, &[0; 1000]);
            assert_eq!(verdict, Verdict::Delivered);
        }
        let verdict = arrive(&mut udp, &mut ip, dev, PORT, &[0; 1000]);
        assert_eq!(verdict, Verdict::Dropped(DropReason::SocketFull));
        assert!(sent(&mut ip, dev).is_empty(), "no error about it");
        udp.recv(id).unwrap();
        let verdict = arrive(&mut udp, &mut ip, dev, PORT, &[0; 1000]);
        assert_eq!(verdict, Verdict::Delivered);
        udp.unbind(id);
        assert!(udp.memory.is_empty());
        let stats = &ip.ifs.get(dev).unwrap().stats;
        let ledger = stats.input();
        assert_eq!(ledger.offered, ledger.delivered + ledger.dropped);
    }

    #[test]
    fn a_datagram_in_a_long_frame_is_charged_what_is_kept() {
        let (mut ip, dev) = connected();
        let mut udp = udp();
        let id = udp.bind(ANY, PORT, Owner(0), 1000).unwrap();
        let whole = testing::udp(THERE, (HOST, PORT), b"");
        let padded = Packet::concat(&whole, &[0; 1472]);
        let verdict = testing::receive(&mut ip, dev, padded, |ip, delivery| match delivery {
            Delivery::Udp(received) => udp.input(ip, received),
            other => panic!("{other:?}"),
        });
        assert_eq!(verdict, Verdict::Delivered);
        let datagram = udp.peek(id).unwrap();
        assert_eq!(datagram.cost(), datagram.packet.memory() + OVERHEAD);
        assert!(datagram.packet.memory() < 256);
    }

    #[test]
    fn a_datagram_leaves_with_its_header_and_checksum() {
        let (mut ip, dev) = connected();
        let mut udp = udp();
        let id = udp.bind(ANY, PORT, Owner(0), 0).unwrap();
        udp.send(&mut ip, id, None, peer(), b"hello").unwrap();
        let [packet] = &sent(&mut ip, dev)[..] else {
            panic!("not one packet");
        };
        let datagram = UdpPacket::new_checked(&packet[20..]).unwrap();
        assert_eq!((datagram.src_port(), datagram.dst_port()), (PORT, THERE.1));
        assert!(datagram.verify_checksum(&HOST.into(), &PEER.into()));
        assert_eq!(datagram.payload(), b"hello");
        let too_long = vec![0; 65_536 - HEADER];
        let refused = udp.send(&mut ip, id, None, peer(), &too_long);
        assert_eq!(refused, Err(NetError::TooBig));
        let nowhere = (IpAddr::from([192, 0, 2, 1]), 1);
        let refused = udp.send(&mut ip, id, None, nowhere, b"");
        assert_eq!(refused, Err(NetError::NoRoute));
    }

    #[test]
    fn a_notice_is_for_the_socket_that_sent_and_is_connected() {
        let (mut ip, _) = connected();
        let mut udp = udp();
        let id = udp.bind(ANY, PORT, Owner(9), 0).unwrap();
        let endpoints = |port| Endpoints {
            local: (HOST.into(), PORT),
            remote: (PEER.into(), port),
            link: None,
        };
        assert!(!udp.knows(&endpoints(THERE.1)), "nothing was sent");
        assert!(!udp.may_have_sent(&endpoints(THERE.1)));
        udp.send(&mut ip, id, None, peer(), b"hello").unwrap();
        assert!(udp.knows(&endpoints(THERE.1)) && !udp.knows(&endpoints(1)));
        udp.notice(&endpoints(THERE.1), Notice::Refused);
        assert_eq!((udp.take_error(id), udp.poll_event()), (None, None));
        udp.connect(&ip, id, Some(peer().into()));
        udp.notice(&endpoints(1), Notice::Refused);
        udp.notice(&endpoints(THERE.1), Notice::Narrow(1400));
        assert!(!udp.has_queued(id));
        udp.notice(&endpoints(THERE.1), Notice::Refused);
        assert!(udp.has_queued(id) && udp.has_work());
        assert_eq!(udp.poll_event().map(|event| event.owner), Some(Owner(9)));
        assert_eq!(udp.take_error(id), Some(errno::ECONNREFUSED));
        assert_eq!(udp.take_error(id), None, "told once");
        for port in 1..=RECENT as u16 {
            let other = (PEER.into(), port);
            udp.send(&mut ip, id, None, other, b"").unwrap();
        }
        assert!(!udp.knows(&endpoints(THERE.1)) && udp.may_have_sent(&endpoints(THERE.1)));
    }
}

//! Sockets for whole packets of one protocol.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

use scheme::errno::{self, Errno};
use slab::Slab;
use smoltcp::wire::{Ipv4Packet, Ipv6Packet};

use super::listed::{Listed, next_of};
use super::{OVERHEAD, Owner};
use crate::ifnet::{Family, is_mapped};
use crate::ip::header::{IPV6_HEADER, addresses};
use crate::ip::output::fragment_v4;
use crate::ip::{Ip, Received};
use crate::memory::{self, Memory, SPARE_PLACES};
use crate::packet::Packet;

/// Most sockets.
const MAX_SOCKETS: usize = 1024;
/// Most bytes of packets that a socket holds, overhead included.
const QUEUE_BYTES: usize = 208 << 10;

/// Number of a raw socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawId(u32);

#[derive(Debug)]
struct RawSocket {
    owner: Owner,
    protocol: u8,
    packets: VecDeque<Packet>,
    bytes: usize,
}

/// Every raw socket.
#[derive(Debug, Default)]
pub(crate) struct Raw {
    sockets: Slab<RawSocket>,
    protocols: BTreeMap<u8, Vec<u32>>,
    events: VecDeque<Owner>,
    /// Bytes in all queues.
    memory: Memory,
}

impl Raw {
    /// A socket for packets of one protocol. `ENFILE` if there are too many.
    pub(crate) fn open(&mut self, protocol: u8, owner: Owner) -> Result<RawId, Errno> {
        if self.sockets.len() >= MAX_SOCKETS {
            return Err(errno::ENFILE);
        }
        let key = self.sockets.insert(RawSocket {
            owner,
            protocol,
            packets: VecDeque::new(),
            bytes: 0,
        }) as u32;
        self.protocols.entry(protocol).or_default().push(key);
        Ok(RawId(key))
    }

    pub(crate) fn close(&mut self, id: RawId) {
        let Some(socket) = self.sockets.try_remove(id.0 as usize) else {
            return;
        };
        self.memory.give_back(socket.bytes);
        if let Some(keys) = self.protocols.get_mut(&socket.protocol) {
            keys.retain(|&other| other != id.0);
            if keys.is_empty() {
                self.protocols.remove(&socket.protocol);
            }
        }
    }

    fn get(&self, id: RawId) -> Option<&RawSocket> {
        self.sockets.get(id.0 as usize)
    }

    /// The next socket of a listing from place `at` on, which is moved behind it, and its protocol;
    /// `None` at the end.
    pub(crate) fn list(&self, at: &mut usize) -> Option<(u8, Listed)> {
        let (_, socket) = next_of(&self.sockets, at)?;
        let any = (IpAddr::from(Ipv4Addr::UNSPECIFIED), None);
        let listed = Listed {
            state: None,
            local: any,
            remote: any,
            recv: socket.packets.iter().map(|packet| packet.len()).sum(),
            send: 0,
            owner: Some(socket.owner),
            path: None,
        };
        Some((socket.protocol, listed))
    }

    /// The protocol of its packets.
    pub(crate) fn protocol(&self, id: RawId) -> Option<u8> {
        Some(self.get(id)?.protocol)
    }

    /// Whether a packet waits to be read.
    pub(crate) fn has_queued(&self, id: RawId) -> bool {
        self.get(id)
            .is_some_and(|socket| !socket.packets.is_empty())
    }

    /// Takes the oldest packet.
    pub(crate) fn recv(&mut self, id: RawId) -> Option<Packet> {
        let socket = self.sockets.get_mut(id.0 as usize)?;
        let packet = memory::pop_front(&mut socket.packets, SPARE_PLACES)?;
        socket.bytes -= cost(&packet);
        self.memory.give_back(cost(&packet));
        Some(packet)
    }

    /// The owner of the next socket to which a packet came.
    #[must_use]
    pub(crate) fn poll_event(&mut self) -> Option<Owner> {
        self.events.pop_front()
    }

    /// Whether [`poll_event`](Self::poll_event) has one.
    pub(crate) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Gives a copy of a packet for this host to the sockets of its protocol. True if there are
    /// any.
    #[inline]
    pub(crate) fn input(&mut self, received: &Received) -> bool {
        // There is rarely any such socket.
        !self.protocols.is_empty() && self.show(received)
    }

    #[cold]
    fn show(&mut self, received: &Received) -> bool {
        let packet = &received.packet;
        let Some(keys) = self.protocols.get(&received.header.protocol) else {
            return false;
        };
        for &key in keys {
            let Some(socket) = self.sockets.get_mut(key as usize) else {
                continue;
            };
            // A slow reader loses copies. The packet itself goes to its protocol all the same.
            let copy = packet.clone();
            let cost = cost(&copy);
            // Only the superuser has such sockets.
            if socket.bytes + cost > QUEUE_BYTES || !self.memory.has_room(cost, 0) {
                continue;
            }
            socket.bytes += cost;
            self.memory.take(cost);
            socket.packets.push_back(copy);
            self.events.push_back(socket.owner);
        }
        true
    }

    /// Sends a packet with its header. An unspecified source is filled in, and so is the checksum of
    /// an IPv4 header. `EINVAL` if the header does not fit the packet or the protocol.
    pub(crate) fn send(&self, ip: &mut Ip, id: RawId, buf: &[u8]) -> Result<(), Errno> {
        let protocol = self.protocol(id).ok_or(errno::EBADF)?;
        let mut packet = Packet::from(buf);
        let (src, dst) = addresses(buf).ok_or(errno::EINVAL)?;
        let path = ip.route_to(&dst, None)?;
        if is_mapped(&src) || !ip.may_leave(&path, &src) {
            return Err(errno::EADDRNOTAVAIL);
        }
        let fill = if src.is_unspecified() { path.src } else { None };
        let family = Family::of(&dst);
        if family == Family::Inet {
            let header = Ipv4Packet::new_checked(buf).map_err(|_| errno::EINVAL)?;
            let whole = usize::from(header.total_len()) == buf.len() && header.header_len() >= 20;
            if !whole || u8::from(header.next_header()) != protocol {
                return Err(errno::EINVAL);
            }
            let may_split = !header.dont_frag();
            let mut header = Ipv4Packet::new_unchecked(&mut packet[..]);
            if let Some(IpAddr::V4(src)) = fill {
                header.set_src_addr(src);
            }
            // As in BSD's `ip_output`: fragments of different packets must differ.
            if header.ident() == 0 && may_split {
                header.set_ident(ip.next_ident(&header.src_addr().into(), &dst) as u16);
            }
            header.fill_checksum();
            if packet.len() > usize::from(path.mtu) {
                let fragments = may_split.then(|| fragment_v4(&packet, path.mtu)).flatten();
                let fragments = fragments.ok_or(errno::EMSGSIZE)?;
                return Ok(ip.output_all(path, family, fragments)?);
            }
        } else {
            let header = Ipv6Packet::new_checked(buf).map_err(|_| errno::EINVAL)?;
            let whole = IPV6_HEADER + usize::from(header.payload_len()) == buf.len();
            if !whole || u8::from(header.next_header()) != protocol {
                return Err(errno::EINVAL);
            }
            if let Some(IpAddr::V6(src)) = fill {
                Ipv6Packet::new_unchecked(&mut packet[..]).set_src_addr(src);
            }
            if packet.len() > usize::from(path.mtu) {
                return Err(errno::EMSGSIZE);
            }
        }
        ip.if_output(path.dev, family, packet, path.next_hop)?;
        Ok(())
    }
}

/// Bytes charged for a packet.
fn cost(packet: &Packet) -> usize {
    packet.memory() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip::header::proto;
    use crate::ip::testing::{self, HOST, PEER, connected, sent};
    use crate::ip::{Budget, Delivery, Verdict};

    /// OSPF: a protocol that nothing here implements.
    const PROTOCOL: u8 = 89;

    /// Receives a packet, which is shown to the sockets before it is dispatched, as in a turn.
    fn arrive(raw: &mut Raw, ip: &mut Ip, packet: Packet) -> Verdict {
        let dev = ip.ifs.by_name("test0").unwrap();
        ip.netisr_enqueue(dev, Family::Inet, packet);
        let (received, receipt) = ip.poll_received(&mut { Budget::TURN }).unwrap();
        let shown = raw.input(&received);
        let Delivery::Settled(verdict) = ip.dispatch(received, shown) else {
            panic!("it is for somebody else");
        };
        ip.netisr_count(receipt, verdict);
        verdict
    }

    #[test]
    fn every_socket_of_a_protocol_gets_a_copy() {
        let (mut ip, dev) = connected();
        let mut raw = Raw::default();
        let packet = testing::ipv4(PEER, HOST, PROTOCOL, b"hello");
        let verdict = arrive(&mut raw, &mut ip, packet.clone());
        assert_eq!(
            verdict,
            Verdict::Dropped(crate::ifnet::DropReason::NoProtocol)
        );
        assert_eq!(sent(&mut ip, dev).len(), 1, "the sender is told");
        let one = raw.open(PROTOCOL, Owner(1)).unwrap();
        let two = raw.open(PROTOCOL, Owner(2)).unwrap();
        let other = raw.open(PROTOCOL + 1, Owner(3)).unwrap();
        let verdict = arrive(&mut raw, &mut ip, packet.clone());
        assert_eq!(verdict, Verdict::Delivered);
        assert_eq!(raw.poll_event(), Some(Owner(1)));
        assert_eq!(raw.poll_event(), Some(Owner(2)));
        assert_eq!(raw.poll_event(), None);
        assert_eq!(raw.recv(one).unwrap(), packet);
        assert_eq!(raw.recv(two).unwrap(), packet);
        assert!(!raw.has_queued(one) && !raw.has_queued(other));
        for id in [one, two, other] {
            raw.close(id);
        }
        assert!(raw.protocols.is_empty());
    }

    #[test]
    fn a_full_queue_loses_copies_only() {
        let (mut ip, _) = connected();
        let mut raw = Raw::default();
        let id = raw.open(PROTOCOL, Owner(1)).unwrap();
        let packet = testing::ipv4(PEER, HOST, PROTOCOL, &[0; 1400]);
        let fit = QUEUE_BYTES / cost(&packet);
        for _ in 0..fit + 5 {
            let verdict = arrive(&mut raw, &mut ip, packet.clone());
            assert_eq!(verdict, Verdict::Delivered);
        }
        let read = std::iter::from_fn(|| raw.recv(id)).count();
        assert_eq!(read, fit);
        assert!(raw.memory.is_empty());
    }

    #[test]
    fn a_packet_is_sent_with_the_header_that_it_has() {
        let (mut ip, dev) = connected();
        let mut raw = Raw::default();
        let id = raw.open(PROTOCOL, Owner(1)).unwrap();
        let mut packet = testing::ipv4([0; 4].into(), PEER, PROTOCOL, b"hello");
        packet[10..12].fill(0xff);
        raw.send(&mut ip, id, &packet).unwrap();
        let out = sent(&mut ip, dev).remove(0);
        let header = Ipv4Packet::new_checked(&out[..]).unwrap();
        assert!(header.verify_checksum());
        assert_eq!((header.src_addr(), header.payload()), (HOST, &b"hello"[..]));
    }

    #[test]
    fn what_must_not_leave_the_host_is_refused() {
        let (mut ip, dev) = connected();
        let mut raw = Raw::default();
        let id = raw.open(PROTOCOL, Owner(1)).unwrap();
        let from = |src: [u8; 4]| testing::ipv4(src.into(), PEER, PROTOCOL, b"hello");
        let refused = raw.send(&mut ip, id, &from([127, 0, 0, 1]));
        assert_eq!(refused, Err(errno::EADDRNOTAVAIL));
        assert!(sent(&mut ip, dev).is_empty());
        // A raw socket may say that it is another host.
        assert_eq!(raw.send(&mut ip, id, &from([10, 0, 0, 9])), Ok(()));
        let inside = testing::ipv4([127, 0, 0, 1].into(), HOST, PROTOCOL, b"hello");
        assert_eq!(raw.send(&mut ip, id, &inside), Ok(()));
        let mut mapped = [0; 40];
        mapped[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, PROTOCOL, 64]);
        mapped[34..40].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 2]);
        assert_eq!(raw.send(&mut ip, id, &mapped), Err(errno::ENETUNREACH));
    }

    #[test]
    fn fragments_of_different_packets_differ() {
        let (mut ip, dev) = connected();
        let mut raw = Raw::default();
        let id = raw.open(PROTOCOL, Owner(1)).unwrap();
        let mut idents = |ident: u16, len: usize| {
            let mut packet = testing::ipv4(HOST, PEER, PROTOCOL, &vec![0; len]);
            packet[4..6].copy_from_slice(&ident.to_be_bytes());
            packet[6] = 0;
            raw.send(&mut ip, id, &packet).unwrap();
            let fragments = sent(&mut ip, dev);
            let ident = |fragment: &Packet| u16::from_be_bytes([fragment[4], fragment[5]]);
            let mut idents: Vec<_> = fragments.iter().map(ident).collect();
            idents.dedup();
            idents
        };
        let [first, second] = [idents(0, 2000), idents(0, 2000)];
        assert_eq!((first.len(), second.len()), (1, 1));
        assert_ne!(first, second);
        // A router may still cut one that fits here. What the program chose stays.
        assert_ne!(idents(0, 8), idents(0, 8));
        assert_eq!(idents(77, 2000), [77]);
    }

    #[test]
    fn what_does_not_fit_the_socket_is_refused() {
        let (mut ip, dev) = connected();
        let mut raw = Raw::default();
        let id = raw.open(PROTOCOL, Owner(1)).unwrap();
        let mut send = |packet: &[u8]| raw.send(&mut ip, id, packet);
        let of_udp = testing::ipv4(HOST, PEER, proto::UDP, b"hello");
        assert_eq!(send(&of_udp), Err(errno::EINVAL));
        let whole = testing::ipv4(HOST, PEER, PROTOCOL, b"hello");
        assert_eq!(send(&whole[..22]), Err(errno::EINVAL));
        assert_eq!(send(&[]), Err(errno::EINVAL));
        // Longer than the mtu: smoltcp's header says "don't fragment"; without it, the packet is
        // fragmented.
        let mut long = testing::ipv4(HOST, PEER, PROTOCOL, &[0; 2000]);
        assert_eq!(send(&long), Err(errno::EMSGSIZE));
        long[6] = 0;
        assert_eq!(send(&long), Ok(()));
        assert_eq!(sent(&mut ip, dev).len(), 2);
    }
}

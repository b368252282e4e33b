//! Ethernet: interfaces on adapters that carry frames.
//!
//! The core has no descriptors: whoever has an adapter [attaches](Net::attach_ethernet) it, hands in
//! the frames that came ([`Net::handle_frame`]) and takes those to send ([`Net::poll_frame`]).
//!
//! - [`adapters`]: all of a machine, through traits that a system implements;
//! - [`search`]: drivers that end, and when to look for them again;
//! - [`neighbor`]: who is at which hardware address, and what waits for an answer;
//! - [`resolve`]: ARP and IPv6 neighbour discovery, on smoltcp's wire formats;
//! - [`autoconf`]: addresses that an adapter gives itself, and what routers advertise;
//! - [`configure`]: the same, done to addresses, groups and routes.

mod adapters;
mod autoconf;
mod configure;
mod neighbor;
mod resolve;
mod search;

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use slab::Slab;

use crate::ifnet::{Driver, DropReason, Family, Frame, IfAddr, IfFlags, IfIndex};
use crate::net::Net;
use crate::netisr::NetError;
use crate::packet::Packet;
pub use adapters::{Adapters, Bus, Frames};
use autoconf::Autoconf;
pub(crate) use autoconf::Made;
use neighbor::{Due, Lookup, Neighbors};
use search::Search;

const IFT_ETHER: u8 = 6;
const ETHERMTU: u16 = 1500;
/// Bytes of a frame's header.
pub const HEADER: usize = 14;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const BROADCAST: Mac = Mac([0xff; 6]);

/// A hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Reads `02-00-00-00-00-01`, with dashes or colons. `None` for anything but one station's.
    pub fn parse(text: &str) -> Option<Self> {
        let mut octets = [0; 6];
        let mut parts = text.split(['-', ':']);
        for octet in &mut octets {
            let part = parts.next()?;
            let hex = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !hex {
                return None;
            }
            *octet = u8::from_str_radix(part, 16).ok()?;
        }
        let mac = Self(octets);
        (parts.next().is_none() && mac.is_station()).then_some(mac)
    }

    fn is_station(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }

    /// The latter half of the addresses that a station with this address makes itself (RFC 4291,
    /// appendix A).
    fn interface_id(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f])
    }

    /// The link-local address that a station with this address gives itself.
    pub fn link_local(self) -> Ipv6Addr {
        Ipv6Addr::from(0xfe80 << 112 | u128::from(self.interface_id()))
    }

    fn link_local_addr(self) -> IfAddr {
        IfAddr {
            addr: self.link_local().into(),
            prefix_len: 64,
            peer: None,
        }
    }
}

impl std::fmt::Display for Mac {
    /// With dashes, as netstack writes it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}-{b:02x}-{c:02x}-{d:02x}-{e:02x}-{g:02x}")
    }
}

/// Number of an adapter. Used again after it is detached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub u32);

#[derive(Debug)]
struct Port {
    dev: IfIndex,
    mac: Mac,
    /// What the adapter had for an address when it was found.
    hardware: Mac,
    /// Whether there is a driver.
    present: bool,
    /// When it was found again, if ever.
    found: Option<Duration>,
    neighbors: Neighbors,
    autoconf: Autoconf,
}

/// Every adapter.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    ports: Slab<Port>,
    /// Frames queued on all of them. Whoever has adapters asks after every turn.
    queued: usize,
    search: Search,
}

impl Ports {
    /// When a neighbour or a router has to be asked again, what it said is over, or adapters are to
    /// be looked for.
    #[inline]
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.ports
            .iter()
            .flat_map(|(_, port)| [port.neighbors.deadline(), port.autoconf.deadline()])
            .flatten()
            .chain(self.search.deadline())
            .min()
    }

    fn get(&self, id: PortId) -> Option<&Port> {
        self.ports.get(id.0 as usize)
    }

    fn get_mut(&mut self, id: PortId) -> Option<&mut Port> {
        self.ports.get_mut(id.0 as usize)
    }
}

/// Where on the wire a packet goes.
enum Target {
    /// To these.
    Known(Mac),
    /// To a neighbour that has to be found first.
    Neighbor,
}

impl Net {
    /// Makes `ethN`, the lowest that is free, on an adapter with this address. It is up at once, so
    /// that a program can ask the network for an address.
    pub fn attach_ethernet(&mut self, mac: Mac) -> Option<PortId> {
        self.stir();
        let entry = self.links.ports.vacant_entry();
        let id = PortId(u32::try_from(entry.key()).ok()?);
        let free = |name: &String| self.ifs.by_name(name).is_none();
        let name = (0..).map(|number| format!("eth{number}")).find(free)?;
        let flags = IfFlags::UP | IfFlags::BROADCAST | IfFlags::RUNNING | IfFlags::MULTICAST;
        let dev = self
            .ifs
            .attach(&name, Driver::Ethernet(id), flags, IFT_ETHER, ETHERMTU)?;
        entry.insert(Port {
            dev,
            mac,
            hardware: mac,
            present: true,
            found: None,
            neighbors: Neighbors::default(),
            autoconf: Autoconf::default(),
        });
        self.link_up(id);
        Some(id)
    }

    /// An adapter is there, or is up again, or has another address: what is on its link hears of it.
    pub(crate) fn link_up(&mut self, id: PortId) {
        let Some(dev) = self.links.get_mut(id).map(|port| port.dev) else {
            return;
        };
        for own in self.addrs_of(dev) {
            self.announce(id, dev, own.addr);
        }
        self.autoconf_start(id);
    }

    /// An adapter is gone for good, and its interface with it.
    pub fn detach_ethernet(&mut self, id: PortId) {
        self.stir();
        if let Some(port) = self.links.ports.try_remove(id.0 as usize) {
            let queued = self.ifs.get(port.dev).map_or(0, |ifp| ifp.snd.len());
            self.links.queued -= queued;
            self.if_destroy(port.dev);
        }
    }

    /// The interface of an adapter.
    pub fn ethernet_name(&self, id: PortId) -> Option<&str> {
        Some(&self.ifs.get(self.links.get(id)?.dev)?.name)
    }

    /// The address of an interface's adapter.
    pub(crate) fn mac_of(&self, id: PortId) -> Option<Mac> {
        Some(self.links.get(id)?.mac)
    }

    /// Asks again those who have not answered, gives up on those who will not, and does what is due
    /// with addresses.
    #[inline(never)]
    pub(crate) fn links_run(&mut self) {
        let now = self.now.monotonic;
        let ids: Vec<_> = self
            .links
            .ports
            .iter()
            .map(|(key, _)| PortId(key as u32))
            .collect();
        for id in ids {
            while let Some(port) = self.links.get_mut(id)
                && let Some(due) = port.neighbors.poll(now)
            {
                let dev = port.dev;
                match due {
                    Due::Ask(addr, of) => self.solicit(id, addr, of),
                    Due::GiveUp(addr, lost) => {
                        self.unreachable(dev, lost);
                        self.autoconf_unreachable(id, &addr);
                    }
                }
            }
            self.autoconf_run(id);
        }
    }

    /// The adapter of an interface, if it has one.
    pub(crate) fn port_of(&self, dev: IfIndex) -> Option<PortId> {
        match self.ifs.get(dev)?.driver {
            Driver::Ethernet(port) => Some(port),
            Driver::Loopback | Driver::Tun(_) => None,
        }
    }

    fn port(&self, dev: IfIndex) -> Option<&Port> {
        self.links.get(self.port_of(dev)?)
    }

    fn port_mut(&mut self, dev: IfIndex) -> Option<&mut Port> {
        let id = self.port_of(dev)?;
        self.links.get_mut(id)
    }

    /// Whether the driver of an interface is there: only adapters' ever end.
    pub(crate) fn has_driver(&self, dev: IfIndex) -> bool {
        match self.ifs.get(dev).map(|ifp| ifp.driver) {
            Some(Driver::Ethernet(id)) => {
                let port = self.links.get(id);
                port.is_some_and(|port| port.present)
            }
            Some(Driver::Loopback | Driver::Tun(_)) => true,
            None => false,
        }
    }

    /// Gives an adapter another address.
    pub(crate) fn set_mac(&mut self, id: PortId, mac: Mac) {
        let Some(port) = self.links.get_mut(id) else {
            return;
        };
        if port.mac == mac {
            return;
        }
        let dev = port.dev;
        let old = std::mem::replace(&mut port.mac, mac);
        // Its addresses were made of the old one.
        self.autoconf_forget(id);
        self.autoconf_leave(id, dev, &old.link_local().into());
        self.link_up(id);
    }

    /// A frame came, without its check sequence.
    pub fn handle_frame(&mut self, id: PortId, frame: &[u8]) {
        self.stir();
        let port = self.links.get_mut(id).filter(|port| port.present);
        let Some(&mut Port { dev, mac, .. }) = port else {
            return;
        };
        let Some((header, payload)) = frame.split_first_chunk::<HEADER>() else {
            return self.drop_frame(dev, DropReason::Malformed);
        };
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *header;
        let (dst, src) = ([d0, d1, d2, d3, d4, d5], Mac([s0, s1, s2, s3, s4, s5]));
        // What we sent ourselves may come back from a switch: our own question is no rival's.
        if (Mac(dst) != mac && dst[0] & 1 == 0) || src == mac {
            return self.drop_frame(dev, DropReason::NotForUs);
        }
        if !self.is_up(dev) {
            return self.drop_frame(dev, DropReason::NetDown);
        }
        match u16::from_be_bytes([t0, t1]) {
            ETHERTYPE_IPV4 => self.handle_packet(dev, Family::Inet, payload),
            ETHERTYPE_IPV6 => self.handle_packet(dev, Family::Inet6, payload),
            ETHERTYPE_ARP => self.arp_input(id, src, payload),
            _ => self.drop_frame(dev, DropReason::UnknownFamily),
        }
    }

    fn handle_packet(&mut self, dev: IfIndex, family: Family, packet: &[u8]) {
        self.bpf_tap(dev, family.dlt_null(), packet);
        self.netisr_enqueue(dev, family, Packet::from(packet));
    }

    fn drop_frame(&mut self, dev: IfIndex, reason: DropReason) {
        if let Some(ifp) = self.ifs.get_mut(dev) {
            ifp.stats.input.offered += 1;
            ifp.stats.drop_input(reason, 1);
        }
    }

    /// The next frame to send, if there is one.
    #[must_use]
    pub fn poll_frame(&mut self, id: PortId) -> Option<Packet> {
        if self.links.queued == 0 {
            return None;
        }
        let dev = self.links.get_mut(id)?.dev;
        let now = self.now;
        let ifp = self.ifs.get_mut(dev)?;
        let frame = ifp.snd.dequeue(now)?;
        self.links.queued -= 1;
        ifp.stats.output.queued -= 1;
        ifp.stats.output.delivered += 1;
        self.tcp_unblock(dev);
        self.netcfg_counted();
        Some(frame.bytes)
    }

    /// Gives a packet to its neighbour, or finds out who that is first.
    pub(crate) fn ether_output(
        &mut self,
        id: PortId,
        dev: IfIndex,
        family: Family,
        packet: Packet,
        next_hop: IpAddr,
    ) -> Result<(), NetError> {
        if !self.links.get_mut(id).is_some_and(|port| port.present) {
            if let Some(ifp) = self.ifs.get_mut(dev) {
                ifp.stats.drop_output(DropReason::NotOpen, 1);
            }
            return Err(NetError::Down);
        }
        self.bpf_tap(dev, family.dlt_null(), &packet);
        let refused = match self.ifs.get(dev) {
            Some(ifp) if family == Family::Inet6 && !ifp.has_ipv6() => Some(DropReason::NoIpv6),
            _ if !self.netisr_takes(family) => Some(DropReason::FamilyRefused),
            _ => None,
        };
        if let Some(reason) = refused {
            if let Some(ifp) = self.ifs.get_mut(dev) {
                ifp.stats.drop_output(reason, 1);
            }
            return Err(NetError::Family);
        }
        match self.target(dev, &next_hop) {
            Target::Known(mac) => self.ether_send(id, dev, family, packet, mac),
            Target::Neighbor => {
                let now = self.now.monotonic;
                let Some(port) = self.links.get_mut(id) else {
                    return Err(NetError::NoRoute);
                };
                match port.neighbors.look_up(next_hop, family, packet, now) {
                    Lookup::Known { packet, mac, ask } => {
                        if ask {
                            self.solicit(id, next_hop, Some(mac));
                        }
                        self.ether_send(id, dev, family, packet, mac)
                    }
                    Lookup::Kept { ask, thrown_out } => {
                        if let Some(ifp) = self.ifs.get_mut(dev) {
                            ifp.stats.output.queued += 1;
                            ifp.stats.output.queued -= thrown_out;
                            ifp.stats.drop_output(DropReason::NoNeighbor, thrown_out);
                        }
                        if ask {
                            self.solicit(id, next_hop, None);
                        }
                        Ok(())
                    }
                    Lookup::Full => {
                        if let Some(ifp) = self.ifs.get_mut(dev) {
                            ifp.stats.drop_output(DropReason::NoNeighbor, 1);
                        }
                        Err(NetError::NoBuffers)
                    }
                }
            }
        }
    }

    fn target(&self, dev: IfIndex, next_hop: &IpAddr) -> Target {
        match next_hop {
            IpAddr::V4(v4) => {
                let broadcasts = self.ifs.get(dev).is_some_and(|ifp| ifp.broadcasts(v4));
                let [_, b, c, d] = v4.octets();
                if v4.is_broadcast() || broadcasts {
                    Target::Known(BROADCAST)
                } else if v4.is_multicast() {
                    // RFC 1112 section 6.4.
                    Target::Known(Mac([0x01, 0x00, 0x5e, b & 0x7f, c, d]))
                } else {
                    Target::Neighbor
                }
            }
            IpAddr::V6(v6) if v6.is_multicast() => {
                // RFC 2464 section 7.
                let octets = v6.octets();
                Target::Known(Mac([
                    0x33, 0x33, octets[12], octets[13], octets[14], octets[15],
                ]))
            }
            IpAddr::V6(_) => Target::Neighbor,
        }
    }

    /// Puts a packet on the send queue, in a frame.
    fn ether_send(
        &mut self,
        id: PortId,
        dev: IfIndex,
        family: Family,
        mut packet: Packet,
        dst: Mac,
    ) -> Result<(), NetError> {
        let ethertype = match family {
            Family::Inet6 => ETHERTYPE_IPV6,
            _ => ETHERTYPE_IPV4,
        };
        let Some(src) = self.mac_of(id) else {
            return Err(NetError::NoRoute);
        };
        let len = packet.len();
        packet.prepend(&header(dst, src, ethertype));
        let frame = Frame {
            bytes: packet,
            header: HEADER,
        };
        self.queue_frame(dev, frame, len)
    }

    fn queue_frame(&mut self, dev: IfIndex, frame: Frame, len: usize) -> Result<(), NetError> {
        let now = self.now;
        let Some(ifp) = self.ifs.get_mut(dev) else {
            return Err(NetError::NoRoute);
        };
        if ifp.snd.enqueue(frame, now).is_err() {
            ifp.stats.drop_output(DropReason::QueueFull, 1);
            return Err(NetError::NoBuffers);
        }
        ifp.stats.opackets += 1;
        ifp.stats.obytes += len as u64;
        ifp.stats.output.queued += 1;
        self.links.queued += 1;
        Ok(())
    }
}

fn header(dst: Mac, src: Mac, ethertype: u16) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..6].copy_from_slice(&dst.0);
    header[6..12].copy_from_slice(&src.0);
    header[12..].copy_from_slice(&ethertype.to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_as_text() {
        let mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        assert_eq!(mac.to_string(), "52-54-00-12-34-56");
        assert_eq!(Mac::parse("52-54-00-12-34-56"), Some(mac));
        assert_eq!(Mac::parse("52:54:00:12:34:56"), Some(mac));
        let bad = [
            "",
            "52-54-00-12-34",
            "52-54-00-12-34-56-78",
            "01-00-5e-00-00-01",
            "00-00-00-00-00-00",
            "+2-54-00-12-34-56",
            "5-54-00-12-34-56",
        ];
        for bad in bad {
            assert_eq!(Mac::parse(bad), None, "{bad:?}");
        }
        assert_eq!(mac.link_local().to_string(), "fe80::5054:ff:fe12:3456");
    }
}

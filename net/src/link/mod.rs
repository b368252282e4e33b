//! Ethernet: interfaces on network cards, which carry frames.
//!
//! There are no descriptors here. A program that has an adapter [attaches](Link::attach_ethernet)
//! it, hands in the frames that came ([`Link::handle_frame`]) and takes the frames to send
//! ([`Link::poll_frame`]). A packet waits in the send queue as the network layer gave it, and gets
//! its header when it leaves.
//!
//! - [`mac`]: hardware addresses;
//! - [`neighbor`]: hardware addresses of neighbours, and packets that wait for one;
//! - [`resolve`]: ARP and IPv6 neighbour discovery, on smoltcp's wire formats;
//! - [`autoconf`]: the state of autoconfiguration: addresses that an adapter gives itself, and
//!   routers;
//! - [`configure`]: its effects on addresses, groups and routes;
//! - [`claim`]: whether another station has an address that somebody sets;
//! - [`search`]: the times at which to look for drivers that ended.

mod autoconf;
mod claim;
mod configure;
mod mac;
mod neighbor;
mod resolve;
mod search;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use scheme::earlier;
use slab::Slab;

use crate::capture::Framing;
use crate::ifnet::{
    AdapterId, Driver, DropReason, Family, Frame, IfFlags, IfIndex, Ifnet, Outgoing, OutputError,
    Sent, Way,
};
use crate::ip::{Addressed, Ip};
use crate::packet::Packet;
pub(crate) use autoconf::AutoAddr;
use autoconf::Autoconf;
use claim::Claims;
pub use mac::Mac;
use neighbor::{Lookup, Neighbors, Overdue};
pub use search::Found;
use search::Search;

const IFT_ETHER: u8 = 6;
const ETHERMTU: u16 = 1500;
/// Bytes of a frame's header.
pub const HEADER: usize = 14;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Most frames that leave before the send queue. Their packets waited for a neighbour to be
/// resolved.
const MAX_FRAMES: usize = 4096;

/// The state of an adapter.
#[derive(Debug)]
struct EtherSoftc {
    dev: IfIndex,
    mac: Mac,
    /// The adapter's own address, as it was found. `mac` may have been set since.
    hardware: Mac,
    /// The time at which it was last found again, if ever.
    found: Option<Duration>,
    /// Neighbours that speak IPv4, and those that speak IPv6: a flood of one family leaves the
    /// other alone.
    neighbors_v4: Neighbors,
    neighbors_v6: Neighbors,
    autoconf: Autoconf,
    claims: Claims,
    /// The prefixes of the routes that were added because routers advertised them.
    routed: Vec<IpNet>,
    /// Frames that leave before those in the send queue. They are counted as queued.
    frames: VecDeque<Packet>,
    /// A copy of the frame that the driver was given last, which it may refuse; only while drops are
    /// watched.
    last: Option<Packet>,
}

/// Numbers of frames that a driver lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Frames that came, and that it could not hand out.
    pub missed: u64,
    /// Frames that it was given to send, and refused.
    pub refused: u64,
}

/// Every adapter.
#[derive(Debug, Default)]
pub(crate) struct Link {
    adapters: Slab<EtherSoftc>,
    search: Search,
}

/// `ether_output`: puts the packet on the send queue without a header. The header depends on a
/// neighbour, which may have to be resolved first.
fn output(ifp: &mut Ifnet, outgoing: &mut Outgoing) -> Result<Sent, OutputError> {
    let Outgoing {
        family,
        next_hop,
        now,
        ..
    } = *outgoing;
    if !ifp.present {
        return Err(ifp.refuse(outgoing, DropReason::NotOpen, OutputError::Down));
    }
    let class = ifp.snd.classify(family, &outgoing.packet);
    ifp.tap(now.wall, family.dlt_null(), &outgoing.packet);
    match family {
        Family::Inet6 if !ifp.has_ipv6() => {
            return Err(ifp.refuse(outgoing, DropReason::NoIpv6, OutputError::Family));
        }
        Family::Inet | Family::Inet6 => {}
        _ => return Err(ifp.refuse(outgoing, DropReason::FamilyRefused, OutputError::Family)),
    }
    let (frame, len) = Frame::of(outgoing, class);
    let sent = ifp.enqueue(frame.owe(HEADER as u8), len, now)?;
    if ifp.next_hops.last() != Some(&next_hop) {
        ifp.next_hops.push(next_hop);
    }
    Ok(sent)
}

impl Link {
    /// The time of the next timer: for neighbours, autoconfiguration, or the search for adapters.
    #[inline]
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.adapters
            .iter()
            .filter_map(|(_, softc)| softc.deadline())
            .chain(self.search.deadline())
            .min()
    }

    /// The time of the next question to a neighbour on an adapter.
    #[inline]
    pub(crate) fn next_question(&self, id: AdapterId) -> Option<Duration> {
        self.get(id).and_then(EtherSoftc::next_question)
    }

    fn get(&self, id: AdapterId) -> Option<&EtherSoftc> {
        self.adapters.get(id.0 as usize)
    }

    fn get_mut(&mut self, id: AdapterId) -> Option<&mut EtherSoftc> {
        self.adapters.get_mut(id.0 as usize)
    }

    /// The adapter, if its driver is there.
    fn present(&mut self, ip: &Ip, id: AdapterId) -> Option<&mut EtherSoftc> {
        let softc = self.get_mut(id)?;
        let ifp = ip.ifs.get(softc.dev)?;
        ifp.present.then_some(softc)
    }

    /// Makes `ethN`, with the lowest free number, on an adapter with this address. It is up at
    /// once, so that a program can ask the network for an address.
    pub(crate) fn attach_ethernet(&mut self, ip: &mut Ip, mac: Mac) -> Option<AdapterId> {
        let entry = self.adapters.vacant_entry();
        let id = AdapterId(u32::try_from(entry.key()).ok()?);
        let free = |name: &String| ip.ifs.by_name(name).is_none();
        let name = (0..).map(|number| format!("eth{number}")).find(free)?;
        let flags = IfFlags::UP | IfFlags::BROADCAST | IfFlags::RUNNING | IfFlags::MULTICAST;
        let driver = Driver::Ethernet(id);
        let dev = ip
            .ifs
            .attach(&name, driver, output, flags, IFT_ETHER, ETHERMTU)?;
        entry.insert(EtherSoftc {
            dev,
            mac,
            hardware: mac,
            found: None,
            neighbors_v4: Neighbors::default(),
            neighbors_v6: Neighbors::default(),
            autoconf: Autoconf::default(),
            claims: Claims::default(),
            routed: Vec::new(),
            frames: VecDeque::new(),
            last: None,
        });
        self.link_up(ip, id);
        Some(id)
    }

    /// Announces an adapter on its link: it is new, up again, or has another hardware address.
    pub(crate) fn link_up(&mut self, ip: &mut Ip, id: AdapterId) {
        let Some(dev) = self.get(id).map(|softc| softc.dev) else {
            return;
        };
        for own in ip.addrs_of(dev) {
            self.announce(ip, id, own.addr);
        }
        self.autoconf_start(ip, id);
    }

    /// Removes an adapter that is gone for good, and its interface.
    pub(crate) fn detach_ethernet(&mut self, ip: &mut Ip, id: AdapterId) {
        if let Some(softc) = self.adapters.try_remove(id.0 as usize) {
            ip.if_detach(softc.dev);
        }
    }

    /// The interface of an adapter.
    pub(crate) fn interface(&self, id: AdapterId) -> Option<IfIndex> {
        Some(self.get(id)?.dev)
    }

    /// The hardware address of an adapter.
    pub(crate) fn mac_of(&self, id: AdapterId) -> Option<Mac> {
        Some(self.get(id)?.mac)
    }

    /// The hardware address that somebody set in place of the adapter's own.
    pub(crate) fn mac_set(&self, id: AdapterId) -> Option<Mac> {
        let softc = self.get(id)?;
        (softc.mac != softc.hardware).then_some(softc.mac)
    }

    /// Sets the hardware address of an adapter.
    pub(crate) fn set_mac(&mut self, ip: &mut Ip, id: AdapterId, mac: Mac) {
        let Some(softc) = self.get_mut(id) else {
            return;
        };
        if softc.mac == mac {
            return;
        }
        let old = std::mem::replace(&mut softc.mac, mac);
        // Its IPv6 addresses were made from the old one.
        self.autoconf_forget(ip, id);
        self.autoconf_leave(ip, id, &old.link_local().into());
        self.link_up(ip, id);
    }

    /// Runs timers: asks neighbours again, gives up those that do not answer, and configures
    /// addresses.
    #[inline(never)]
    pub(crate) fn run(&mut self, ip: &mut Ip) {
        let now = ip.now.monotonic;
        let ids: Vec<_> = self
            .adapters
            .iter()
            .map(|(key, _)| AdapterId(key as u32))
            .collect();
        for id in ids {
            while let Some(softc) = self.get_mut(id)
                && let Some(overdue) = softc.poll_overdue(now)
            {
                let dev = softc.dev;
                match overdue {
                    Overdue::Ask(addr, of) => self.solicit(ip, id, addr, of),
                    Overdue::GiveUp(addr, lost) => {
                        unreachable(ip, dev, lost);
                        ip.redirects_unreachable(dev, &addr);
                        self.autoconf_unreachable(ip, id, &addr);
                    }
                }
            }
            self.autoconf_run(ip, id);
        }
    }

    /// Notes that what is sent to a neighbour reaches it, as an upper layer knows.
    pub(crate) fn confirm(&mut self, ip: &mut Ip, dev: IfIndex, addr: IpAddr) {
        let Some(id) = adapter_of(ip, dev) else {
            return;
        };
        let (now, chance) = (ip.now.monotonic, ip.delays.fraction());
        let softc = self.get_mut(id);
        if softc.is_some_and(|softc| softc.neighbors(&addr).confirm(addr, now, chance)) {
            self.autoconf_reachable(ip, id, &addr);
        }
    }

    /// Handles a received frame, without its check sequence.
    pub(crate) fn handle_frame(&mut self, ip: &mut Ip, id: AdapterId, frame: &[u8]) {
        let Some(&mut EtherSoftc { dev, mac, .. }) = self.present(ip, id) else {
            return;
        };
        let Some((header, payload)) = frame.split_first_chunk::<HEADER>() else {
            return drop_frame(ip, dev, DropReason::Malformed, frame);
        };
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *header;
        let (dst, src) = ([d0, d1, d2, d3, d4, d5], Mac([s0, s1, s2, s3, s4, s5]));
        // A switch may send our own frames back. Our own request must not look like another host's.
        if (Mac(dst) != mac && dst[0] & 1 == 0) || src == mac {
            return drop_frame(ip, dev, DropReason::NotForUs, frame);
        }
        if !ip.is_up(dev) {
            return drop_frame(ip, dev, DropReason::NetDown, frame);
        }
        let family = match u16::from_be_bytes([t0, t1]) {
            ETHERTYPE_IPV4 => Family::Inet,
            ETHERTYPE_IPV6 => Family::Inet6,
            ETHERTYPE_ARP => return self.arp_input(ip, id, src, frame),
            _ => return drop_frame(ip, dev, DropReason::UnknownFamily, frame),
        };
        let wall = ip.now.wall;
        ip.ifs
            .with(dev, |ifp| ifp.tap(wall, family.dlt_null(), payload));
        let addressed = match dst[0] & 1 {
            0 => Addressed::Host,
            _ => Addressed::Group,
        };
        ip.netisr_enqueue_from(dev, family, Packet::from(payload), addressed);
    }

    /// The next frame to send, if there is one.
    #[must_use]
    pub(crate) fn poll_frame(&mut self, ip: &mut Ip, id: AdapterId) -> Option<Packet> {
        loop {
            let softc = self.get_mut(id)?;
            let (dev, now) = (softc.dev, ip.now);
            if let Some(frame) = softc.frames.pop_front() {
                let ifp = ip.ifs.get_mut(dev)?;
                ifp.stats.output.queued -= 1;
                ifp.stats.output.delivered += 1;
                softc.last = ip.ifs.watches_drops().then(|| frame.clone());
                return Some(frame);
            }
            let ifp = ip.ifs.get_mut(dev)?;
            let frame = ifp.dequeue(now)?;
            // The packet is in `frames` now, waits for its neighbour, or was dropped.
            ip.ifs.note_room(dev);
            self.resolve(ip, id, frame);
        }
    }

    /// Counts frames that the driver of an adapter lost. Of those that it refused, the one that was
    /// [polled](Self::poll_frame) last can be shown.
    pub(crate) fn frames_lost(&mut self, ip: &mut Ip, id: AdapterId, lost: Lost) {
        let Some(softc) = self.get_mut(id) else {
            return;
        };
        let Some(ifp) = ip.ifs.get_mut(softc.dev) else {
            return;
        };
        ifp.stats.input.offered += lost.missed;
        ifp.stats.drop_input(DropReason::Missed, lost.missed);
        // They were counted as sent.
        let refused = lost.refused.min(ifp.stats.output.delivered);
        ifp.stats.output.delivered -= refused;
        ifp.stats.drop_output(DropReason::Refused, refused);
        let shown = match softc.last.take_if(|_| refused > 0) {
            Some(frame) => {
                ifp.show_dropped(Way::Out, DropReason::Refused, Framing::Ethernet, &frame);
                1
            }
            None => 0,
        };
        ifp.miss_dropped(lost.missed + refused - shown);
    }

    /// Notes the longest packet that an adapter carries, bytes.
    pub(crate) fn ethernet_mtu(&self, ip: &mut Ip, id: AdapterId, most: Option<u16>) {
        if let Some(dev) = self.interface(id) {
            ip.limit_mtu(dev, most.unwrap_or(u16::MAX));
        }
    }

    /// Notes how many frames an adapter has room for until they are received, if that is few.
    pub(crate) fn ethernet_rx_ring(&self, ip: &mut Ip, id: AdapterId, frames: Option<u16>) {
        if let Some(ifp) = self.interface(id).and_then(|dev| ip.ifs.get_mut(dev)) {
            ifp.rx_ring = frames;
        }
    }

    /// `if_start`: packets were queued. Starts to resolve unknown neighbours at once, before the
    /// adapter takes the packets.
    pub(crate) fn start(&mut self, ip: &mut Ip, id: AdapterId) {
        let now = ip.now.monotonic;
        let Some(dev) = self.interface(id) else {
            return;
        };
        let next_hops = ip
            .ifs
            .get_mut(dev)
            .map(|ifp| std::mem::take(&mut ifp.next_hops));
        for next_hop in next_hops.into_iter().flatten() {
            let (Some(softc), Some(ifp)) = (self.get_mut(id), ip.ifs.get(dev)) else {
                return;
            };
            if Mac::mapped_from(&next_hop, ifp).is_some() {
                continue;
            }
            let (ask, thrown_out) = softc.neighbors(&next_hop).look_early(next_hop, now);
            if let Some(ifp) = ip.ifs.get_mut(dev) {
                drop_packets(ifp, DropReason::NoNeighbor, &thrown_out);
            }
            if ask {
                self.solicit(ip, id, next_hop, None);
            }
        }
    }

    /// Resolves the hardware address of a packet. If it is known, the packet leaves next.
    fn resolve(&mut self, ip: &mut Ip, id: AdapterId, frame: Frame) {
        let Frame {
            bytes: packet,
            family,
            next_hop,
            ..
        } = frame;
        let now = ip.now.monotonic;
        let Some(softc) = self.get_mut(id) else {
            return;
        };
        let Some(ifp) = ip.ifs.get_mut(softc.dev) else {
            return;
        };
        if let Family::Other(_) = family {
            // A frame that the driver made itself has its header.
            return softc.push_frame(ifp, packet);
        }
        if let Some(mac) = Mac::mapped_from(&next_hop, ifp) {
            return softc.send_first(ifp, family, packet, mac);
        }
        let neighbors = softc.neighbors(&next_hop);
        match neighbors.look_up(next_hop, family, packet, now) {
            Lookup::Known { packet, mac } => softc.send_first(ifp, family, packet, mac),
            Lookup::Kept { ask, thrown_out } => {
                drop_packets(ifp, DropReason::NoNeighbor, &thrown_out);
                if ask {
                    self.solicit(ip, id, next_hop, None);
                }
            }
        }
    }
}

impl EtherSoftc {
    /// The neighbours of a family.
    fn neighbors(&mut self, addr: &IpAddr) -> &mut Neighbors {
        match addr {
            IpAddr::V4(_) => &mut self.neighbors_v4,
            IpAddr::V6(_) => &mut self.neighbors_v6,
        }
    }

    /// Forgets all neighbours. Returns the packets that waited, which are lost.
    fn forget_neighbors(&mut self) -> Vec<(Family, Packet)> {
        let mut lost = self.neighbors_v4.forget();
        lost.extend(self.neighbors_v6.forget());
        lost
    }

    fn poll_overdue(&mut self, now: Duration) -> Option<Overdue> {
        let overdue = self.neighbors_v4.poll(now);
        overdue.or_else(|| self.neighbors_v6.poll(now))
    }

    fn deadline(&self) -> Option<Duration> {
        earlier(self.next_question(), self.autoconf.deadline())
    }

    fn next_question(&self) -> Option<Duration> {
        let (v4, v6) = (&self.neighbors_v4, &self.neighbors_v6);
        earlier(v4.deadline(), v6.deadline())
    }

    /// Makes a frame of a packet that is counted as queued. It leaves before the send queue.
    fn send_first(&mut self, ifp: &mut Ifnet, family: Family, mut packet: Packet, dst: Mac) {
        let ethertype = match family {
            Family::Inet6 => ETHERTYPE_IPV6,
            _ => ETHERTYPE_IPV4,
        };
        packet.prepend(&header(dst, self.mac, ethertype));
        self.push_frame(ifp, packet);
    }

    /// Queues a packet that has its header, likewise before the send queue.
    fn push_frame(&mut self, ifp: &mut Ifnet, frame: Packet) {
        if self.frames.len() >= MAX_FRAMES {
            ifp.drop_queued(DropReason::QueueFull, Framing::Ethernet, &frame);
        } else {
            self.frames.push_back(frame);
        }
    }
}

fn header(dst: Mac, src: Mac, ethertype: u16) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..6].copy_from_slice(&dst.0);
    header[6..12].copy_from_slice(&src.0);
    header[12..].copy_from_slice(&ethertype.to_be_bytes());
    header
}

/// The adapter of an interface, if it has one.
pub(crate) fn adapter_of(ip: &Ip, dev: IfIndex) -> Option<AdapterId> {
    match ip.ifs.get(dev)?.driver {
        Driver::Ethernet(adapter) => Some(adapter),
        Driver::Loopback | Driver::Tun(_) => None,
    }
}

/// Counts a received frame as dropped.
fn drop_frame(ip: &mut Ip, dev: IfIndex, reason: DropReason, frame: &[u8]) {
    if let Some(ifp) = ip.ifs.get_mut(dev) {
        ifp.stats.input.offered += 1;
        ifp.stats.drop_input(reason, 1);
        ifp.show_dropped(Way::In, reason, Framing::Ethernet, frame);
    }
}

/// Counts packets that were queued elsewhere on behalf of the interface as dropped.
fn drop_packets(ifp: &mut Ifnet, reason: DropReason, lost: &[(Family, Packet)]) {
    for (family, packet) in lost {
        ifp.drop_queued(reason, Framing::Null(family.dlt_null()), packet);
    }
}

/// Drops packets whose neighbour does not answer, and tells their senders.
fn unreachable(ip: &mut Ip, dev: IfIndex, lost: Vec<(Family, Packet)>) {
    if let Some(ifp) = ip.ifs.get_mut(dev) {
        drop_packets(ifp, DropReason::NoNeighbor, &lost);
    }
    for (_, packet) in lost {
        ip.notice_unreachable(dev, &packet);
        ip.icmp_unreachable_host(dev, &packet);
    }
}

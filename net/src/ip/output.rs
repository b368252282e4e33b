//! The output path: route, header, fragments, interface.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU8;

use scheme::errno::{self, Errno};
use smoltcp::wire::Ipv4Packet;

use super::Ip;
use super::header::{
    FRAGMENT_HEADER, Fragments, IPV4_HEADER, IPV6_HEADER, fragment_header, ipv4_header,
    ipv6_header, proto, set_ipv6_payload,
};
use crate::ifnet::{
    Driver, DropReason, Family, IfFlags, IfIndex, IfName, Ifnet, Outgoing, OutputError, Sent,
};
use crate::ifnet::{is_interface_local, is_link_local, is_mapped, scope};
use crate::packet::Packet;
use crate::route::LookupError;

/// Hop limit of the packets that this host sends.
pub(crate) const HOP_LIMIT: u8 = 64;

/// Why a packet was not sent. The sender's fault only for [`TooBig`](Self::TooBig) and
/// [`NoAddress`](Self::NoAddress).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetError {
    /// No route covers the destination.
    NoRoute,
    /// The route says that the destination is unreachable.
    Unreachable,
    /// The route's interface is down.
    Down,
    /// Nobody has the tun device open.
    HostDown,
    /// The interface's queue is full.
    NoBuffers,
    /// The interface cannot carry the family.
    Family,
    /// It is longer than a packet can be.
    TooBig,
    /// There is no address to send from.
    NoAddress,
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Errno::from(*self).fmt(f)
    }
}

impl std::error::Error for NetError {}

impl From<OutputError> for NetError {
    fn from(error: OutputError) -> Self {
        match error {
            OutputError::Down => Self::Down,
            OutputError::HostDown => Self::HostDown,
            OutputError::NoBuffers => Self::NoBuffers,
            OutputError::Family => Self::Family,
        }
    }
}

impl From<LookupError> for NetError {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::NoRoute => Self::NoRoute,
            LookupError::Down => Self::Down,
        }
    }
}

impl From<NetError> for Errno {
    fn from(error: NetError) -> Self {
        match error {
            NetError::NoRoute => errno::ENETUNREACH,
            NetError::Unreachable => errno::EHOSTUNREACH,
            NetError::Down => errno::ENETDOWN,
            NetError::HostDown => errno::EHOSTDOWN,
            NetError::NoBuffers => errno::ENOBUFS,
            NetError::Family => errno::EAFNOSUPPORT,
            NetError::TooBig => errno::EMSGSIZE,
            NetError::NoAddress => errno::EADDRNOTAVAIL,
        }
    }
}

/// The way to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) dev: IfIndex,
    /// The router, or the destination itself.
    pub(crate) next_hop: IpAddr,
    /// The address to send from, if the sender has not chosen one.
    pub(crate) src: Option<IpAddr>,
    /// Mtu of the interface for such packets, bytes.
    pub(crate) mtu: u16,
    /// The hop limit, if the sender has not chosen one.
    pub(crate) hops: u8,
}

/// The hop limit of packets to `dst` by an interface, if the sender has not chosen one.
fn hops_to(ifp: &Ifnet, dst: &IpAddr) -> u8 {
    let advertised = ifp.advertised_hops.filter(|_| dst.is_ipv6());
    advertised.map_or(HOP_LIMIT, NonZeroU8::get)
}

/// The interfaces that a packet may leave by.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Egress {
    /// This one, unless the destination is this host; `None` leaves it to the route.
    pub(crate) only: Option<IfIndex>,
    /// All but this one.
    pub(crate) never: Option<IfIndex>,
}

impl From<Option<IfIndex>> for Egress {
    fn from(only: Option<IfIndex>) -> Self {
        Self { only, never: None }
    }
}

impl Ip {
    /// The interface that a socket bypasses, if it is there.
    pub(crate) fn bypassed(&self, name: Option<IfName>) -> Option<IfIndex> {
        self.ifs.by_name(name?.as_str())
    }

    /// The path to `dst`, with the source address.
    pub(crate) fn route_to(
        &self,
        dst: &IpAddr,
        egress: impl Into<Egress>,
    ) -> Result<Path, NetError> {
        let mut path = self.way_to(dst, egress)?;
        if path.src.is_none()
            && let Some(ifp) = self.ifs.get(path.dev)
        {
            path.src = self.source(ifp, dst, &path.next_hop);
        }
        Ok(path)
    }

    /// The path for a packet that has a source already. This spares the search for one, which may
    /// look at every interface.
    pub(crate) fn way_to(&self, dst: &IpAddr, egress: impl Into<Egress>) -> Result<Path, NetError> {
        let Egress { only, never } = egress.into();
        let allowed = |ifp: &&Ifnet| never != Some(ifp.index);
        let ours = match only {
            Some(dev) => self.ifs.is_local_on(dst, dev),
            None => self.ifs.is_local(dst),
        };
        if ours {
            let lo0 = self.ifs.loopback().filter(|lo0| lo0.is_up());
            let lo0 = lo0.ok_or(NetError::Down)?;
            if !allowed(&lo0) {
                return Err(NetError::NoRoute);
            }
            return Ok(Path {
                dev: lo0.index,
                next_hop: *dst,
                src: Some(*dst),
                mtu: lo0.mtu,
                hops: HOP_LIMIT,
            });
        }
        if dst.is_unspecified() || is_mapped(dst) {
            return Err(NetError::NoRoute);
        }
        if let Some(only) = only {
            let ifp = self.ifs.get(only).filter(allowed);
            let ifp = ifp.ok_or(NetError::NoRoute)?;
            return Self::direct(ifp, dst);
        }
        // Packets for many hosts need no router. A broadcast leaves by the first interface that has
        // broadcasts; a multicast by that of its route, or the first that has multicasts.
        let many = match dst {
            IpAddr::V4(dst) if dst.is_broadcast() => Some(IfFlags::UP | IfFlags::BROADCAST),
            _ if dst.is_multicast() => Some(IfFlags::UP | IfFlags::MULTICAST),
            _ => None,
        };
        let found = self.routes.lookup(dst, never, |dev| self.is_up(dev));
        if let Some(flags) = many {
            let routed = found.ok().filter(|_| dst.is_multicast());
            let routed = routed.map(|(_, route)| route.dev.ok_or(NetError::Unreachable));
            let routed = routed.transpose()?;
            let fits =
                |ifp: &&Ifnet| ifp.flags.contains(flags) && !ifp.is_loopback() && allowed(ifp);
            let ifp = routed.and_then(|dev| self.ifs.get(dev)).filter(fits);
            let ifp = ifp.or_else(|| self.ifs.iter().find(fits));
            return Self::direct(ifp.ok_or(NetError::NoRoute)?, dst);
        }
        let (_, route) = found?;
        let dev = route.dev.ok_or(NetError::Unreachable)?;
        let ifp = self.ifs.get(dev).ok_or(NetError::NoRoute)?;
        let next_hop = match route.via {
            Some(router) => self.redirects.first_hop(dst, dev, router),
            None => *dst,
        };
        Ok(Path {
            dev,
            next_hop,
            // The route may name an address that is gone since.
            src: route.src.filter(|src| self.ifs.is_local(src)),
            mtu: ifp.mtu_to(dst),
            hops: hops_to(ifp, dst),
        })
    }

    /// The path of an answer from `src`, or from the address of the path, to `dst`. It leaves by the
    /// link that the question came by if `dst` means something only there (RFC 4007 section 9), or
    /// if there is no route: the other end may know one. What is declared unreachable gets none, and
    /// none leaves by `never`.
    pub(crate) fn route_back(
        &self,
        rcvif: IfIndex,
        src: Option<IpAddr>,
        dst: &IpAddr,
        never: Option<IfIndex>,
    ) -> Result<Path, NetError> {
        let way = |only| match src {
            Some(_) => self.way_to(dst, Egress { only, never }),
            None => self.route_to(dst, Egress { only, never }),
        };
        match is_link_local(dst) {
            true => way(Some(rcvif)),
            false => way(None).or_else(|error| match error {
                NetError::Unreachable => Err(error),
                _ => way(Some(rcvif)),
            }),
        }
    }

    pub(crate) fn is_loopback(&self, dev: IfIndex) -> bool {
        self.ifs.get(dev).is_some_and(Ifnet::is_loopback)
    }

    fn direct(ifp: &Ifnet, dst: &IpAddr) -> Result<Path, NetError> {
        if !ifp.is_up() {
            return Err(NetError::Down);
        }
        Ok(Path {
            dev: ifp.index,
            next_hop: *dst,
            src: None,
            mtu: ifp.mtu_to(dst),
            hops: hops_to(ifp, dst),
        })
    }

    /// The source address: of the interface, or of any other if it has none that reaches the
    /// destination. An address of another link is of no use here (RFC 4007 section 6).
    pub(super) fn source(&self, ifp: &Ifnet, dst: &IpAddr, next_hop: &IpAddr) -> Option<IpAddr> {
        let own = ifp.source_for(dst, next_hop);
        let reaches = |src: &IpAddr| scope(src) >= scope(dst);
        own.filter(reaches)
            .or_else(|| {
                let others = self.ifs.iter();
                let mut others = others.filter(|ifp| !ifp.flags.contains(IfFlags::LOOPBACK));
                let fits = |src: &IpAddr| reaches(src) && !is_link_local(src);
                others.find_map(|ifp| ifp.source_for(dst, next_hop).filter(fits))
            })
            .or(own)
    }

    /// The source address for packets to `dst`: the sender's choice, or that of the path. A group
    /// is never a source (RFC 1122 section 3.2.1.3), so a socket bound to one uses the address of
    /// the path.
    pub(crate) fn source_to(
        &self,
        path: &Path,
        chosen: Option<IpAddr>,
        dst: &IpAddr,
    ) -> Result<IpAddr, NetError> {
        let src = chosen.filter(|chosen| !self.ifs.is_many(chosen));
        // The address that a socket is bound to may be gone since.
        if src.is_some_and(|src| !self.ifs.is_local(&src) || !self.may_leave(path, &src)) {
            return Err(NetError::NoAddress);
        }
        // A socket that is bound to one family has no address in the other.
        src.or(path.src)
            .filter(|src| src.is_ipv4() == dst.is_ipv4())
            .ok_or(NetError::NoAddress)
    }

    /// Whether a packet with this source may take this path: one with a loopback address must not
    /// leave the host (RFC 1122 section 3.2.1.3 (g), RFC 4291 section 2.5.3).
    pub(crate) fn may_leave(&self, path: &Path, src: &IpAddr) -> bool {
        !src.is_loopback() || self.ifs.get(path.dev).is_some_and(Ifnet::is_loopback)
    }

    /// The largest packet, bytes, that reaches a destination over an interface of this mtu, as far
    /// as routers have reported it.
    pub(crate) fn path_mtu(&self, dst: &IpAddr, mtu: u16) -> u16 {
        let known = self.path_mtus.get(dst, self.now.monotonic);
        known.map_or(mtu, |known| known.min(mtu))
    }

    /// Sends a payload, whose checksum is filled in, in as many fragments as it takes.
    pub(crate) fn ip_output(
        &mut self,
        path: Path,
        src: IpAddr,
        dst: IpAddr,
        protocol: u8,
        hop_limit: u8,
        mut packet: Packet,
    ) -> Result<(), NetError> {
        let mtu = self.path_mtu(&dst, path.mtu);
        let family = Family::of(&dst);
        let payload_len = packet.len();
        match (src, dst) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let total = u16::try_from(IPV4_HEADER + payload_len);
                let total = total.map_err(|_| NetError::TooBig)?;
                let fragments = Fragments::Of(self.next_ident(&src, &dst) as u16);
                let head = ipv4_header(from, to, protocol, hop_limit, total, fragments);
                packet.prepend(&head);
                self.output_v4(path, mtu, packet)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let len = u16::try_from(payload_len).map_err(|_| NetError::TooBig)?;
                // Members on this host have got it, and nobody else does.
                if is_interface_local(&dst) && !self.is_loopback(path.dev) {
                    return Ok(());
                }
                let head = ipv6_header(from, to, protocol, hop_limit, len);
                if IPV6_HEADER + payload_len <= usize::from(mtu) {
                    packet.prepend(&head);
                    return self.if_output(path.dev, family, packet, path.next_hop);
                }
                let ident = self.next_ident(&src, &dst);
                let fragments = fragment_v6(head, protocol, &packet, mtu, ident);
                self.output_all(path, family, fragments.ok_or(NetError::TooBig)?)
            }
            _ => Err(NetError::NoAddress),
        }
    }

    /// Sends an IPv4 payload behind a header with options, whose length is a multiple of four.
    pub(crate) fn ip_output_options(
        &mut self,
        path: Path,
        src: Ipv4Addr,
        dst: Ipv4Addr,
        protocol: u8,
        options: &[u8],
        mut packet: Packet,
    ) -> Result<(), NetError> {
        let ident = self.next_ident(&src.into(), &dst.into());
        let mtu = self.path_mtu(&dst.into(), path.mtu);
        let header_len = IPV4_HEADER + options.len();
        let total = u16::try_from(header_len + packet.len()).map_err(|_| NetError::TooBig)?;
        let fragments = Fragments::Of(ident as u16);
        packet.prepend(options);
        packet.prepend(&ipv4_header(
            src, dst, protocol, HOP_LIMIT, total, fragments,
        ));
        let mut ip = Ipv4Packet::new_unchecked(&mut packet[..]);
        ip.set_header_len(header_len as u8);
        ip.fill_checksum();
        self.output_v4(path, mtu, packet)
    }

    /// Sends a complete IPv4 packet that may be fragmented.
    fn output_v4(&mut self, path: Path, mtu: u16, packet: Packet) -> Result<(), NetError> {
        if packet.len() <= usize::from(mtu) {
            return self.if_output(path.dev, Family::Inet, packet, path.next_hop);
        }
        let fragments = fragment_v4(&packet, mtu).ok_or(NetError::TooBig)?;
        self.output_all(path, Family::Inet, fragments)
    }

    /// Sends a payload that its maker has fitted to the path. `whole` says that routers must not
    /// fragment it.
    #[expect(clippy::too_many_arguments, reason = "one more than ip_output")]
    pub(crate) fn ip_output_sized(
        &mut self,
        path: Path,
        src: IpAddr,
        dst: IpAddr,
        protocol: u8,
        hop_limit: u8,
        mut packet: Packet,
        whole: bool,
    ) -> Result<(), NetError> {
        let len = packet.len();
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) if whole => {
                let total = u16::try_from(IPV4_HEADER + len).map_err(|_| NetError::TooBig)?;
                let never = Fragments::Never;
                packet.prepend(&ipv4_header(src, dst, protocol, hop_limit, total, never));
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let len = u16::try_from(len).map_err(|_| NetError::TooBig)?;
                packet.prepend(&ipv6_header(src, dst, protocol, hop_limit, len));
            }
            _ => return self.ip_output(path, src, dst, protocol, hop_limit, packet),
        }
        if packet.len() > usize::from(path.mtu) {
            return Err(NetError::TooBig);
        }
        self.if_output(path.dev, Family::of(&dst), packet, path.next_hop)
    }

    /// `if_output`: gives a packet to an interface, and so to its driver.
    pub(crate) fn if_output(
        &mut self,
        dev: IfIndex,
        family: Family,
        packet: Packet,
        next_hop: IpAddr,
    ) -> Result<(), NetError> {
        let now = self.now;
        let mut outgoing = Outgoing {
            family,
            packet,
            next_hop,
            now,
        };
        self.if_send(dev, &mut outgoing)
    }

    /// [`if_output`](Self::if_output) that leaves a packet behind that the interface cannot send.
    pub(super) fn if_send(
        &mut self,
        dev: IfIndex,
        outgoing: &mut Outgoing,
    ) -> Result<(), NetError> {
        let sent = self.ifs.with(dev, |ifp| {
            ifp.stats.output.offered += 1;
            let output = ifp.output;
            output(ifp, outgoing)
        });
        match sent.ok_or(NetError::NoRoute)?? {
            Sent::Queued => {}
            Sent::Looped(packet) => self.netisr_enqueue(dev, outgoing.family, packet),
        }
        Ok(())
    }

    /// Sends the fragments of one packet. If the queue has no room for all of them, none is sent,
    /// because the others would be useless.
    pub(crate) fn output_all(
        &mut self,
        path: Path,
        family: Family,
        fragments: Vec<Packet>,
    ) -> Result<(), NetError> {
        /// The longest header that a driver puts before a packet, bytes.
        const LINK_HEADER: usize = 20;

        let count = fragments.len();
        let bytes = fragments
            .iter()
            .map(|fragment| fragment.len() + LINK_HEADER);
        let bytes = bytes.sum();
        let first = fragments.first().map_or(&[][..], |first| first);
        let class = |ifp: &Ifnet| ifp.snd.classify(family, first);
        // What an interface cannot send at all is refused below, for its own reason.
        let full = self.ifs.get_mut(path.dev).filter(|ifp| {
            ifp.driver != Driver::Loopback && !ifp.snd.takes(class(ifp), count, bytes)
        });
        if let Some(ifp) = full {
            ifp.stats.output.offered += count as u64;
            for fragment in &fragments {
                ifp.drop_output(DropReason::QueueFull, family, fragment);
            }
            return Err(NetError::NoBuffers);
        }
        for fragment in fragments {
            self.if_output(path.dev, family, fragment, path.next_hop)?;
        }
        Ok(())
    }
}

/// The output function of the loopback interface: the packet is received again.
pub(crate) fn looutput(ifp: &mut Ifnet, outgoing: &mut Outgoing) -> Result<Sent, OutputError> {
    let Outgoing { family, now, .. } = *outgoing;
    ifp.tap(now.wall, family.dlt_null(), &outgoing.packet);
    if !matches!(family, Family::Inet | Family::Inet6) {
        return Err(ifp.refuse(outgoing, DropReason::FamilyRefused, OutputError::Family));
    }
    let packet = std::mem::take(&mut outgoing.packet);
    ifp.stats.opackets += 1;
    ifp.stats.obytes += packet.len() as u64;
    ifp.stats.output.delivered += 1;
    Ok(Sent::Looped(packet))
}

/// Fragments a valid IPv4 packet (RFC 791 section 2.3). `None` if not even eight bytes fit.
pub(crate) fn fragment_v4(packet: &[u8], mtu: u16) -> Option<Vec<Packet>> {
    let ip = Ipv4Packet::new_unchecked(packet);
    let header_len = usize::from(ip.header_len());
    let (last, base) = (!ip.more_frags(), ip.frag_offset());
    let head = &packet[..header_len];
    let payload = &packet[header_len..];
    let later = later_header(head);
    let mut fragments = Vec::new();
    let mut at = 0;
    while at < payload.len() {
        let head = if at == 0 { head } else { &later };
        let room = usize::from(mtu).checked_sub(head.len())? & !7;
        if room == 0 {
            return None;
        }
        let len = room.min(payload.len() - at);
        let mut fragment = Packet::concat(head, &payload[at..at + len]);
        let total = u16::try_from(fragment.len()).ok()?;
        let header_len = head.len() as u8;
        let mut ip = Ipv4Packet::new_unchecked(&mut fragment[..]);
        ip.set_header_len(header_len);
        ip.set_total_len(total);
        ip.set_frag_offset(base.checked_add(u16::try_from(at).ok()?)?);
        ip.set_more_frags(!last || at + len < payload.len());
        ip.fill_checksum();
        fragments.push(fragment);
        at += len;
    }
    Some(fragments)
}

/// The header of the fragments after the first. It has only the options that are marked to be
/// copied.
fn later_header(head: &[u8]) -> Vec<u8> {
    let mut later = head[..IPV4_HEADER].to_vec();
    let mut options = &head[IPV4_HEADER..];
    while let [kind, rest @ ..] = options {
        let len = match kind {
            0 => break,
            1 => 1,
            _ => usize::from(*rest.first().unwrap_or(&0))
                .max(2)
                .min(options.len()),
        };
        if kind & 0x80 != 0 {
            later.extend_from_slice(&options[..len]);
        }
        options = &options[len..];
    }
    later.resize(later.len().next_multiple_of(4), 0);
    later
}

/// Fragments an IPv6 payload (RFC 8200 section 4.5). `head` is the header of the whole packet.
fn fragment_v6(
    mut head: [u8; IPV6_HEADER],
    protocol: u8,
    payload: &[u8],
    mtu: u16,
    ident: u32,
) -> Option<Vec<Packet>> {
    let room = usize::from(mtu).checked_sub(IPV6_HEADER + FRAGMENT_HEADER)? & !7;
    if room == 0 {
        return None;
    }
    let mut fragments = Vec::new();
    for (number, piece) in payload.chunks(room).enumerate() {
        let offset = u16::try_from(number * room).ok()?;
        let more = usize::from(offset) + piece.len() < payload.len();
        let len = u16::try_from(FRAGMENT_HEADER + piece.len()).ok()?;
        set_ipv6_payload(&mut head, proto::FRAGMENT, len);
        let mut fragment = Packet::concat(&fragment_header(protocol, offset, more, ident), piece);
        fragment.prepend(&head);
        fragments.push(fragment);
    }
    Some(fragments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_carry_every_byte_and_only_copied_options() {
        let mut packet = vec![0_u8; 28];
        packet[0] = 0x47;
        packet[8] = 64;
        // Router Alert, which is copied, and a timestamp, which is not.
        packet[20..28].copy_from_slice(&[0x94, 4, 0, 0, 0x44, 4, 5, 0]);
        packet.extend((0..1000_u32).map(|byte| byte as u8));
        let len = packet.len() as u16;
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        let fragments = fragment_v4(&packet, 300).unwrap();
        let mut payload = Vec::new();
        for (number, fragment) in fragments.iter().enumerate() {
            let ip = Ipv4Packet::new_checked(&fragment[..]).unwrap();
            assert!(ip.verify_checksum() && fragment.len() <= 300);
            assert_eq!(usize::from(ip.frag_offset()), payload.len());
            assert_eq!(ip.more_frags(), number + 1 < fragments.len());
            assert_eq!(ip.header_len(), if number == 0 { 28 } else { 24 });
            payload.extend_from_slice(ip.payload());
        }
        assert_eq!(payload, packet[28..]);
        assert_eq!(fragment_v4(&packet, 31), None);
    }

    #[test]
    fn ipv6_fragments_are_multiples_of_eight() {
        let payload: Vec<u8> = (0..3000_u32).map(|byte| byte as u8).collect();
        let head = [0x60; IPV6_HEADER];
        let fragments = fragment_v6(head, 17, &payload, 1283, 7).unwrap();
        let pieces: Vec<u8> = fragments.iter().flat_map(|f| f[48..].to_vec()).collect();
        assert_eq!(pieces, payload);
        for fragment in &fragments[..fragments.len() - 1] {
            assert_eq!(fragment.len(), 40 + 8 + 1232);
            assert_eq!(fragment[43] & 1, 1);
        }
        assert_eq!(fragments.last().unwrap()[43] & 1, 0);
    }
}

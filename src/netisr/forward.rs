//! The router's part: packets for others.

use std::net::IpAddr;

use smoltcp::wire::Ipv4Packet;

use super::Verdict;
use super::icmp::Problem;
use super::input::addresses;
use super::output::NetError;
use crate::ifnet::{DropReason, Family, IfIndex, is_link_local};
use crate::net::Net;
use crate::packet::Packet;
use crate::stack::clamp_mss;

impl Net {
    /// Sends on a sound packet whose destination is another host (RFC 1812 section 5.2).
    pub(crate) fn ip_forward(&mut self, rcvif: IfIndex, mut packet: Packet) -> Verdict {
        if !self.forwarding {
            return Verdict::Dropped(DropReason::NotForUs);
        }
        let Some((src, dst)) = addresses(&packet) else {
            return Verdict::Dropped(DropReason::Malformed);
        };
        // What means something on one link only must not leave it (RFC 4291 section 2.5.6).
        if is_link_local(&src) || is_link_local(&dst) {
            return Verdict::Dropped(DropReason::NotForUs);
        }
        let hop_limit = if dst.is_ipv4() { packet[8] } else { packet[7] };
        if hop_limit <= 1 {
            self.icmp_error(rcvif, &packet, Problem::HopLimit);
            return Verdict::Dropped(DropReason::TtlExceeded);
        }
        let path = match self.way_to(&dst, None) {
            Ok(path) => path,
            Err(error) => {
                self.icmp_error(rcvif, &packet, Problem::NoRoute);
                return Verdict::Dropped(match error {
                    NetError::Down => DropReason::NetDown,
                    _ => DropReason::NoRoute,
                });
            }
        };
        if dst.is_ipv4() {
            let mut ip = Ipv4Packet::new_unchecked(&mut packet[..]);
            ip.set_hop_limit(hop_limit - 1);
            ip.fill_checksum();
        } else {
            packet[7] = hop_limit - 1;
        }
        // What one end may send comes in where the other's answer goes out: both ways count.
        let back = self.ifs.get(rcvif).map_or(path.mtu, |ifp| ifp.mtu);
        clamp_mss(&mut packet, path.mtu.min(back));
        let family = Family::of(&dst);
        if packet.len() <= usize::from(path.mtu) {
            let _ = self.if_output(path.dev, family, packet, path.next_hop);
            return Verdict::Forwarded;
        }
        let may_split = match dst {
            IpAddr::V4(_) => !Ipv4Packet::new_unchecked(&packet[..]).dont_frag(),
            IpAddr::V6(_) => false,
        };
        if !may_split {
            let mtu = path.mtu;
            self.icmp_error(rcvif, &packet, Problem::TooBig { mtu });
            return Verdict::Dropped(DropReason::TooBig);
        }
        let Some(fragments) = super::output::fragment_v4(&packet, path.mtu) else {
            return Verdict::Dropped(DropReason::TooBig);
        };
        for fragment in fragments {
            let _ = self.if_output(path.dev, family, fragment, path.next_hop);
        }
        Verdict::Forwarded
    }
}

//! `tunoutput`: packets that the system sends by a tun interface.

use std::net::IpAddr;

use super::frame::sockaddr_in;
use super::softc::TunFlags;
use super::trace;
use crate::ifnet::{DropReason, Family, Frame, Ifnet, Outgoing, OutputError, Sent};

/// Queues a packet from the system for the program that has the device open. The header of the
/// current mode precedes it.
pub(super) fn output(ifp: &mut Ifnet, outgoing: &mut Outgoing) -> Result<Sent, OutputError> {
    let Outgoing {
        family,
        next_hop,
        now,
        ..
    } = *outgoing;
    trace(ifp, "output");
    let flags = TunFlags::of(ifp);
    if !flags.contains(TunFlags::OPEN) {
        return Err(ifp.refuse(outgoing, DropReason::NotOpen, OutputError::HostDown));
    }
    let class = ifp.snd.classify(family, &outgoing.packet);
    ifp.tap(now.wall, family.dlt_null(), &outgoing.packet);
    if family == Family::Inet6 && !ifp.has_ipv6() {
        return Err(ifp.refuse(outgoing, DropReason::NoIpv6, OutputError::Family));
    }
    let unknown = matches!(family, Family::Other(_));
    if unknown || (family != Family::Inet && !flags.contains(TunFlags::IFHEAD)) {
        return Err(ifp.refuse(outgoing, DropReason::FamilyRefused, OutputError::Family));
    }
    let (mut frame, len) = Frame::of(outgoing, class);
    if flags.contains(TunFlags::LMODE)
        && let IpAddr::V4(next_hop) = next_hop
    {
        frame.prepend(&sockaddr_in(next_hop));
    }
    if flags.contains(TunFlags::IFHEAD) {
        frame.prepend(&family.af().to_be_bytes());
    }
    ifp.enqueue(frame, len, now)
}

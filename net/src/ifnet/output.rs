//! The output function of an interface, and the activity that is reported to others.

use std::fmt;
use std::net::IpAddr;

use bitflags::bitflags;
use scheme::Now;

use super::{Family, Ifnet};
use crate::packet::Packet;

/// A packet on its way out of an interface.
#[derive(Debug)]
pub struct Outgoing {
    /// Family of the packet.
    pub family: Family,
    /// The packet, without any header of the link.
    pub packet: Packet,
    /// The router, or the destination itself when it is on the link.
    pub next_hop: IpAddr,
    /// The time of this turn.
    pub now: Now,
}

/// `if_output`: the driver's function that sends a packet. Whether it takes or refuses the packet,
/// it has counted it and given it to captures. It leaves a packet that it cannot send where it was,
/// so that its sender can be told; only one that a full queue refused is gone.
///
/// It is a plain function, as in BSD's `struct ifnet`, so that the network layer sends through an
/// interface without knowing its driver. It sees the interface only, so the driver keeps the state
/// that it needs there.
pub type IfOutput = fn(&mut Ifnet, &mut Outgoing) -> Result<Sent, OutputError>;

/// The result for a packet that an interface took.
#[derive(Debug)]
#[must_use]
pub enum Sent {
    /// It is in the send queue.
    Queued,
    /// It comes back to this host, as received.
    Looped(Packet),
}

/// Why an interface refused a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputError {
    /// Its driver is gone.
    Down,
    /// Nobody has the tun device open.
    HostDown,
    /// The send queue is full.
    NoBuffers,
    /// It cannot carry the family.
    Family,
}

impl fmt::Display for OutputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Down => "the driver is gone",
            Self::HostDown => "nobody has the device open",
            Self::NoBuffers => "the send queue is full",
            Self::Family => "the interface does not carry this family",
        })
    }
}

impl std::error::Error for OutputError {}

bitflags! {
    /// Events at an interface since they were last reported by
    /// [`IfTable::poll_activity`](super::IfTable::poll_activity).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Activity: u8 {
        /// Packets were put on the send queue.
        const QUEUED = 1;
        /// The send queue went from having nothing to release to having something.
        const READY = 2;
        /// The send queue may have room again, or nobody is left to take from it.
        const ROOM = 4;
        /// A capture went from having nothing to read to having something.
        const CAPTURED = 8;
        /// Packets were put on the send queue that its rate does not hold back, or it holds the first
        /// one back no longer.
        const RELEASED = 16;
    }
}

//! The transports, on smoltcp where it is good: its TCP state machine and its wire formats.
//!
//! - [`tcp`]: connections, each with a socket set of its own, found by hash; listeners with a real
//!   accept queue; timers in a heap.
//! - `time_wait`: connections that are over, without their buffers.
//! - [`engine`]: smoltcp's interface, one for each mtu, lent to a connection for one packet.
//! - [`udp`]: sockets with bounded queues, and fan-out of multicast to all of them.

mod engine;
mod tcp;
mod time_wait;
mod udp;

use std::net::IpAddr;

use scheme::FileId;

pub(crate) use engine::Engines;
pub(crate) use tcp::{Buffers, Tcp, TcpEvent, Terms, clamp_mss};
pub use tcp::{FlowId, ListenerId};
pub use udp::UdpId;
pub(crate) use udp::{Datagram, QUEUE_BYTES, SendTerms, Udp, UdpEvent};

use crate::netisr::input::{IPV4_HEADER, IPV6_HEADER};
use crate::serve::Service;

/// Ports for who does not name one (RFC 6335 section 6).
const EPHEMERAL: std::ops::RangeInclusive<u16> = 49_152..=65_535;

/// Each of these ports once, from a random one on (RFC 6056 section 3.3.1).
pub(crate) fn ephemeral_ports(rng: &mut fastrand::Rng) -> impl Iterator<Item = u16> + use<> {
    let start = rng.u16(EPHEMERAL);
    (start..=*EPHEMERAL.end()).chain(*EPHEMERAL.start()..start)
}

/// Both ends of a flow, as an address and a port each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Endpoints {
    pub(crate) local: (IpAddr, u16),
    pub(crate) remote: (IpAddr, u16),
}

impl Endpoints {
    /// Bytes of the IP header between them, without options and extensions.
    fn ip_header(&self) -> usize {
        match self.local.0 {
            IpAddr::V4(_) => IPV4_HEADER,
            IpAddr::V6(_) => IPV6_HEADER,
        }
    }
}

/// Who a socket belongs to, and so who hears of its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// One of the small services.
    Service(Service),
    /// An open file.
    File(FileId),
}

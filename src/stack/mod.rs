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
pub(crate) use tcp::{EPHEMERAL, Tcp, TcpEvent, clamp_mss};
pub use tcp::{FlowId, ListenerId};
pub use udp::UdpId;
pub(crate) use udp::{Datagram, Udp, UdpEvent};

use crate::serve::Service;

/// Both ends of a flow, as an address and a port each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Endpoints {
    pub(crate) local: (IpAddr, u16),
    pub(crate) remote: (IpAddr, u16),
}

/// Who a socket belongs to, and so who hears of its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// One of the small services.
    Service(Service),
    /// An open file.
    File(FileId),
}

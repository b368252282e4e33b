//! The transports, on smoltcp's wire formats.
//!
//! - [`tcp`]: connections, found by hash; listeners with a real accept queue; one timer for each.
//! - [`udp`]: sockets with bounded queues, and fan-out of multicast to all of them.
//! - [`mod@echo`]: sockets for pings; [`raw`]: sockets for whole packets;
//! - [`ports`]: who has which port;
//! - [`listed`]: what a listing shows of each.
//!
//! Each is given the [network layer](crate::ip::Ip) as an argument, and its events are taken with
//! its `poll_event`.

mod echo;
mod listed;
mod ports;
mod raw;
mod tcp;
mod udp;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::ifnet::IfName;

pub(crate) use echo::{Echo, EchoId, Heard};
pub(crate) use listed::Listed;
pub(crate) use ports::bind_port;
pub(crate) use raw::{Raw, RawId};
#[cfg(fuzzing)]
pub use tcp::connection::segments;
pub(crate) use tcp::{Buffers, Connection, State as TcpState, Tcp, TcpEvent, Terms};
pub(crate) use tcp::{FlowId, ListenerId, STRANGER, TcpPlace};
pub(crate) use udp::UdpId;
pub(crate) use udp::{Datagram, QUEUE_BYTES, SendTerms, Udp, UdpEvent};

/// Bytes charged for a queued packet besides its memory, so that empty ones are bounded, too.
const OVERHEAD: usize = 256;

/// The other end of a socket, as a program names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) addr: IpAddr,
    pub(crate) port: u16,
    /// The interface on whose link the address is meant, if the program said so.
    pub(crate) link: Option<IfName>,
}

impl Peer {
    /// Its address and port.
    pub(crate) fn name(&self) -> (IpAddr, u16) {
        (self.addr, self.port)
    }
}

impl From<(IpAddr, u16)> for Peer {
    fn from((addr, port): (IpAddr, u16)) -> Self {
        Self {
            addr,
            port,
            link: None,
        }
    }
}

/// The name for all addresses of the family of this one.
fn unspecified(addr: &IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// The owner of a socket, which gets its events: a number with a meaning only for the files above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Owner(pub u32);

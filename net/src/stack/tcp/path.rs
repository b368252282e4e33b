//! The way to the other end: which it is, how wide, and what others say about it.

use std::net::IpAddr;

use scheme::errno;
use smoltcp::socket::tcp::{Socket, State};
use smoltcp::wire::TCP_HEADER_LEN;

use super::{Flow, FlowId, Tcp};
use crate::ifnet::IPV6_MINMTU;
use crate::ip::Ip;
use crate::ip::header::Endpoints;
use crate::ip::icmp::Notice;
use crate::ip::output::Path;

impl Flow {
    /// Sends packets of up to `mtu` bytes from now on; of less, where not even two segments of those
    /// fit a buffer: the other end would not acknowledge the first without the second.
    pub(super) fn set_mtu(&mut self, mtu: u16) {
        let socket = self.set.get_mut::<Socket<'static>>(self.socket);
        let buffer = socket.send_capacity().min(socket.recv_capacity());
        let most = self.endpoints.ip_header() + TCP_HEADER_LEN + buffer / 2;
        self.mtu = mtu.min(u16::try_from(most).unwrap_or(u16::MAX));
        self.terms.apply(socket, self.mtu);
    }
}

impl Tcp {
    /// What somebody on the way says about a segment of a connection.
    pub(crate) fn notice(&mut self, endpoints: &Endpoints, notice: Notice) {
        let Some(&id) = self.by_endpoints.get(endpoints) else {
            return;
        };
        let Some(flow) = self.flow_mut(id) else {
            return;
        };
        let error = match notice {
            // It is known to the network layer already: send again, smaller.
            Notice::Narrow(_) => {
                flow.path = None;
                return self.make_ready(id);
            }
            Notice::Refused => errno::ECONNREFUSED,
            Notice::Unreachable => errno::EHOSTUNREACH,
        };
        // A connection in the making ends; one that stands goes on (RFC 1122 section 4.2.3.9).
        let socket = flow.set.get_mut::<Socket<'static>>(flow.socket);
        if socket.state() == State::SynSent {
            socket.abort();
            flow.error = Some(error);
            self.tell(id);
        }
    }

    /// The mtu to use towards an address over an interface with `mtu`; 0 is for none.
    pub(super) fn mtu(&self, ip: &mut Ip, remote: &IpAddr, mtu: u16) -> u16 {
        let known = ip.path_mtus.get(remote, ip.now.monotonic);
        // Whoever has no way sends into the void, and needs some size for that. Below 1280 there is
        // no IPv6, and no room for its headers either.
        match mtu {
            0 => IPV6_MINMTU,
            mtu if remote.is_ipv6() => mtu.min(known.unwrap_or(u16::MAX)).max(IPV6_MINMTU),
            mtu => mtu.min(known.unwrap_or(u16::MAX)),
        }
    }

    /// The way of a connection, looked up again only when the table has changed. `None` if there is
    /// no such connection; `Some(None)` if there is no way at the moment.
    pub(super) fn path(&mut self, ip: &mut Ip, id: FlowId) -> Option<Option<Path>> {
        let generation = ip.routes.generation();
        let flow = self.flow(id)?;
        if let Some((from, path)) = flow.path
            && from == generation
        {
            return Some(Some(path));
        }
        let remote = flow.endpoints.remote.0;
        let path = ip.route_to(&remote, None).ok();
        let mtu = path.map_or(flow.mtu, |path| path.mtu);
        let mtu = self.mtu(ip, &remote, mtu);
        let flow = self.flow_mut(id)?;
        flow.path = path.map(|path| (generation, path));
        flow.set_mtu(mtu);
        Some(path)
    }
}

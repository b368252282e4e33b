//! The way to the other end: which it is, how wide, and what others say about it.

use scheme::errno;

use super::connection::State;
use super::{FlowId, Tcp, Terms};
use crate::ifnet::IPV6_MINMTU;
use crate::ip::Ip;
use crate::ip::header::Endpoints;
use crate::ip::icmp::Notice;
use crate::ip::output::{Egress, NetError, Path};

/// What a router leaves to us that does not say how much it can carry (RFC 1191 section 5).
const UNSAID: u16 = 552;

/// The way between these ends, as routes are now.
fn way(ip: &Ip, endpoints: &Endpoints, terms: &Terms) -> Result<Path, NetError> {
    let (local, remote) = (endpoints.local.0, endpoints.remote.0);
    let egress = Egress {
        // What is from an address of one link stays on it (RFC 4007 section 9).
        only: ip.ifs.link_of(&local, &remote),
        never: ip.bypassed(terms.bypass),
    };
    ip.way_to(&remote, egress)
}

impl Tcp {
    /// What somebody on the way says about a segment of a connection.
    pub(crate) fn notice(&mut self, ip: &Ip, endpoints: &Endpoints, notice: Notice) {
        let Some(&id) = self.by_endpoints.get(endpoints) else {
            return;
        };
        let now = ip.now.monotonic;
        let Some(flow) = self.flow_mut(id) else {
            return;
        };
        let connection = &mut flow.connection;
        match notice {
            Notice::Narrow(0) => connection.handle_mtu(UNSAID, now),
            Notice::Narrow(mtu) => connection.handle_mtu(mtu, now),
            // A connection in the making ends; one that stands goes on (RFC 1122 section 4.2.3.9).
            Notice::Refused if connection.state() == State::SynSent => {
                connection.abort();
                flow.error = Some(errno::ECONNREFUSED);
            }
            Notice::Unreachable if connection.state() == State::SynSent => {
                connection.abort();
                flow.error = Some(errno::EHOSTUNREACH);
            }
            // One in the making ends with that when it has waited in vain once more.
            Notice::Refused | Notice::Unreachable | Notice::Lost => connection.handle_unreachable(),
        }
        self.make_ready(id);
    }

    /// Largest packet on the way between these ends, as far as routes tell.
    pub(super) fn mtu_to(&self, ip: &Ip, endpoints: &Endpoints, terms: &Terms) -> u16 {
        let path = way(ip, endpoints, terms);
        path.map_or(IPV6_MINMTU, |path| path.mtu)
    }

    /// The way of a connection, looked up again only when the table has changed. `None` if there is
    /// no such connection; `Some(None)` if there is no way at the moment.
    pub(super) fn path(&mut self, ip: &Ip, id: FlowId) -> Option<Option<Path>> {
        let generation = ip.routes.generation();
        let flow = self.flow_mut(id)?;
        let before = flow.path;
        if let Some((from, path)) = before
            && from == generation
        {
            return Some(Some(path));
        }
        let path = way(ip, &flow.endpoints, &flow.terms).ok();
        let Endpoints { local, remote } = flow.endpoints;
        let (local, remote) = (local.0, remote.0);
        // While its own address is gone, it has no way either.
        let path = path.filter(|path| ip.ifs.is_local(&local) && ip.may_leave(path, &local));
        flow.path = path.map(|path| (generation, path));
        if let Some(path) = path
            && before.is_none_or(|(_, before)| before.mtu != path.mtu)
        {
            let mtu = ip.path_mtu(&remote, path.mtu);
            flow.connection.handle_mtu(mtu, ip.now.monotonic);
        }
        Some(path)
    }
}

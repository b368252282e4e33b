//! The way to the other end: which it is, how wide, and what others say about it.

use std::net::IpAddr;
use std::time::Duration;

use scheme::errno;

use super::connection::{SeqNumber, State};
use super::{Flow, FlowId, Proof, Tcp, Terms};
use crate::ifnet::{Driver, IfIndex};
use crate::ip::Ip;
use crate::ip::header::Endpoints;
use crate::ip::icmp::Notice;
use crate::ip::output::{Egress, NetError, Path};

/// What a router leaves to us that does not say how much it can carry (RFC 1191 section 5).
const UNSAID: u16 = 552;
/// Pause between two proofs of one connection that its first hop is there. It is far less than the
/// time for which a neighbour is believed.
const PROOF_PAUSE: Duration = Duration::from_secs(1);

/// The way between these ends, as routes are now.
pub(super) fn way(ip: &Ip, endpoints: &Endpoints, terms: &Terms) -> Result<Path, NetError> {
    let egress = Egress {
        // What belongs to one link stays on it (RFC 4007 section 9).
        only: endpoints.link.map(|link| ip.named(link)).transpose()?,
        never: ip.bypassed(terms.bypass),
    };
    ip.way_to(&endpoints.remote.0, egress)
}

impl Proof {
    /// None is needed.
    pub(super) const NONE: Self = Self {
        from: Duration::MAX,
        beyond: SeqNumber(0),
    };
}

impl Flow {
    /// Takes a way, which is from now on as routes are.
    pub(super) fn take(&mut self, ip: &Ip, path: Path) {
        let hop = |path: &Path| (path.dev, path.next_hop);
        let before = self.path.replace((ip.routes.generation(), path));
        if before.is_some_and(|(_, before)| hop(&before) == hop(&path)) {
            return;
        }
        let driver = ip.ifs.get(path.dev).map(|ifp| ifp.driver);
        self.proof = match driver {
            Some(Driver::Ethernet(_)) => Proof {
                from: Duration::ZERO,
                beyond: self.connection.on_its_way().end,
            },
            _ => Proof::NONE,
        };
    }
}

impl Tcp {
    /// Notes that the first hop of a connection is there, if the other end has acknowledged what
    /// was sent over it since it was noted last.
    #[cold]
    pub(super) fn prove(&mut self, id: FlowId, now: Duration) {
        let Some(flow) = self.flow_mut(id) else {
            return;
        };
        let acknowledged = flow.connection.on_its_way().start;
        let Some((_, path)) = flow.path.filter(|_| acknowledged > flow.proof.beyond) else {
            return;
        };
        flow.proof = Proof {
            from: now + PROOF_PAUSE,
            beyond: acknowledged,
        };
        let hop = (path.dev, path.next_hop);
        if self.proven.last() != Some(&hop) {
            self.proven.push(hop);
        }
    }

    /// The next first hop that is there: a neighbour on the link of this interface.
    #[must_use]
    pub(crate) fn poll_proven(&mut self) -> Option<(IfIndex, IpAddr)> {
        self.proven.pop()
    }

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
        let Endpoints { local, remote, .. } = flow.endpoints;
        let (local, remote) = (local.0, remote.0);
        // While its own address is gone, it has no way either.
        let path = path.filter(|path| ip.ifs.is_local(&local) && ip.may_leave(path, &local));
        match path {
            Some(path) => flow.take(ip, path),
            None => flow.path = None,
        }
        if let Some(path) = path
            && before.is_none_or(|(_, before)| before.mtu != path.mtu)
        {
            let mtu = ip.path_mtu(&remote, path.mtu);
            flow.connection.handle_mtu(mtu, ip.now.monotonic);
        }
        Some(path)
    }
}

//! Connections that begin here.

use std::net::IpAddr;

use scheme::errno::{self, Errno};

use super::connection::Connection;
use super::{FlowId, Holder, Tcp, Terms};
use crate::ifnet::is_host;
use crate::ip::Ip;
use crate::ip::header::Endpoints;
use crate::ip::output::Egress;
use crate::stack::ports::{EPHEMERAL, ephemeral_ports};
use crate::stack::{Owner, Peer};

impl Tcp {
    /// Begins a connection. The owner hears when it is there, or why it is not.
    pub(crate) fn connect(
        &mut self,
        ip: &mut Ip,
        local: Option<(IpAddr, u16)>,
        remote: impl Into<Peer>,
        owner: Owner,
        uid: u32,
        terms: Terms,
    ) -> Result<FlowId, Errno> {
        let peer = remote.into();
        let remote = peer.name();
        // A connection has two ends, not many (RFC 1122 section 4.2.3.10).
        if !is_host(&remote.0) || ip.ifs.is_many(&remote.0) {
            return Err(errno::ENETUNREACH);
        }
        let bound = local
            .map(|local| local.0)
            .filter(|addr| !addr.is_unspecified());
        let only = match peer.link {
            Some(link) => Some(ip.named(link)?),
            // What is from an address of one link stays on it (RFC 4007 section 9).
            None => bound.and_then(|bound| ip.ifs.link_of(&bound, &remote.0)),
        };
        let never = ip.bypassed(terms.bypass);
        let path = ip.route_to(&remote.0, Egress { only, never })?;
        let src = ip.source_to(&path, bound, &remote.0)?;
        let link = ip.endpoints((src, 0), remote, path.dev).link;
        let endpoints = |port| Endpoints {
            local: (src, port),
            remote,
            link,
        };
        let now = ip.now.monotonic;
        let free = |tcp: &Self, port| !tcp.knows(&endpoints(port));
        let rested = |tcp: &Self, port| tcp.waits.get(&endpoints(port), now).is_none();
        let port = match local.map(|local| local.1).filter(|&port| port != 0) {
            Some(port) if free(self, port) => port,
            Some(_) => return Err(errno::EADDRINUSE),
            None => {
                // Where all others are taken, the superuser also gets a port that is listened on, or
                // whose last connection with these ends is over since a moment ago: its numbers are
                // above those of that.
                let mut second = None;
                // The other end's own would reach itself.
                let fits = |&port: &u16| {
                    let fits = (src, port) != remote && free(self, port);
                    let unused = self.listener_for(&src, port).is_none();
                    let best = fits && unused && rested(self, port);
                    if fits && !best && uid == 0 {
                        second.get_or_insert(port);
                    }
                    best
                };
                let first = match self.may_begin(&endpoints(0), uid) {
                    true => ephemeral_ports(&mut ip.ports, uid).find(fits),
                    false => None,
                };
                first.or(second).ok_or(errno::EADDRNOTAVAIL)?
            }
        };
        let endpoints = endpoints(port);
        if EPHEMERAL.contains(&port) && !self.may_begin(&endpoints, uid) {
            return Err(errno::EADDRNOTAVAIL);
        }
        let config = self.config(ip, &endpoints, Some(&path), &terms);
        let iss = self.isn(ip, &endpoints);
        let connection = Connection::connect(&config, iss, now);
        let holder = Holder::Owner(owner);
        let id = self
            .insert(endpoints, connection, holder, uid, terms, now)
            .ok_or(errno::ENOBUFS)?;
        if let Some(flow) = self.flow_mut(id) {
            flow.take(ip, path);
        }
        self.make_ready(id);
        Ok(id)
    }
}

//! Connections that begin here.

use std::net::IpAddr;

use scheme::errno;
use scheme::errno::Errno;
use smoltcp::socket::tcp::Socket;
use smoltcp::wire::{IpListenEndpoint, TcpSeqNumber};

use super::flows::LARGEST_BUFFER;
use super::{FlowId, Holder, Tcp, Terms, chance};
use crate::ifnet::is_host;
use crate::ip::Ip;
use crate::ip::header::Endpoints;
use crate::ip::output::Path;
use crate::stack::{Owner, ephemeral_ports};

impl Tcp {
    /// Begins a connection. The owner hears when it is there, or why it is not.
    pub(crate) fn connect(
        &mut self,
        ip: &mut Ip,
        local: Option<(IpAddr, u16)>,
        remote: (IpAddr, u16),
        owner: Owner,
        terms: Terms,
    ) -> Result<FlowId, Errno> {
        let path = ip.route_to(&remote.0, None)?;
        let bound = local
            .map(|local| local.0)
            .filter(|addr| !addr.is_unspecified());
        let src = bound.or(path.src).filter(is_host);
        let src = src.filter(|src| src.is_ipv4() == remote.0.is_ipv4());
        let src = src.ok_or(errno::EADDRNOTAVAIL)?;
        let endpoints = |port| Endpoints {
            local: (src, port),
            remote,
        };
        let now = ip.now.monotonic;
        let free = |tcp: &Self, port| !tcp.knows(&endpoints(port));
        let rested = |tcp: &Self, port| tcp.waits.get(&endpoints(port), now).is_none();
        let port = match local.map(|local| local.1).filter(|&port| port != 0) {
            Some(port) if free(self, port) => port,
            Some(_) => return Err(errno::EADDRINUSE),
            None => {
                // The other end's own, or one that is listened on, would reach itself.
                let fits = |&port: &u16| {
                    let unused = self.listener_for(&src, port).is_none();
                    let other = (src, port) != remote;
                    unused && other && free(self, port) && rested(self, port)
                };
                let port = ephemeral_ports(&mut ip.rng).find(fits);
                port.ok_or(errno::EADDRNOTAVAIL)?
            }
        };
        // Whoever names the port of a connection in TIME-WAIT gets it all the same.
        let old = self.waits.get(&endpoints(port), now);
        let mtu = self.mtu(ip, &remote.0, path.mtu);
        let id = self
            .insert(endpoints(port), Holder::Owner(owner), terms, LARGEST_BUFFER)
            .ok_or(errno::ENOBUFS)?;
        self.renew(ip, id);
        let Some(flow) = self.flows.get_mut(id.key as usize) else {
            return Err(errno::ENOBUFS);
        };
        flow.path = Some((ip.routes.generation(), path));
        flow.set_mtu(mtu);
        if !self.begin(ip, id, 0) {
            self.remove(id);
            return Err(errno::EADDRNOTAVAIL);
        }
        if let Some(old) = old {
            self.begin_above(ip, id, old.seq, path);
        }
        self.make_ready(id);
        Ok(id)
    }

    /// Has a closed socket send a SYN; its sequence number is another for each `draw`. False if it
    /// cannot.
    fn begin(&mut self, ip: &mut Ip, id: FlowId, draw: usize) -> bool {
        let now = self.smoltcp_now(ip);
        let Some(flow) = self.flow(id) else {
            return false;
        };
        let (mtu, Endpoints { local, remote }) = (flow.mtu, flow.endpoints);
        let chance = chance(self.secret, &flow.endpoints, draw, ip.now.monotonic);
        self.engines.seed(mtu, now, chance);
        let Some(flow) = self.flows.get_mut(id.key as usize) else {
            return false;
        };
        let socket = flow.set.get_mut::<Socket<'static>>(flow.socket);
        let remote = (smoltcp::wire::IpAddress::from(remote.0), remote.1);
        let local = IpListenEndpoint {
            addr: Some(local.0.into()),
            port: local.1,
        };
        let begun = self.engines.with(mtu, now, |engine| {
            socket.connect(engine.context(), remote, local)
        });
        begun.is_ok()
    }

    /// Sends the SYN of a connection whose sequence numbers must begin above those of the last one
    /// with its endpoints (RFC 6191 section 2). smoltcp draws them and does not say which, so this
    /// draws again until the SYN shows one that is: each time, one of two is.
    fn begin_above(&mut self, ip: &mut Ip, id: FlowId, seq: TcpSeqNumber, path: Path) {
        const DRAWS: usize = 64;

        let now = self.smoltcp_now(ip);
        let mut sent = Vec::new();
        for draw in 1..=DRAWS {
            let Some(flow) = self.flows.get_mut(id.key as usize) else {
                return;
            };
            flow.snd_nxt = None;
            let mtu = flow.mtu;
            self.engines.transmit(mtu, now, &mut flow.set, &mut sent);
            if let Some(syn) = sent.first_mut() {
                flow.note(syn);
            }
            if flow.snd_nxt.is_some_and(|snd_nxt| seq < snd_nxt) {
                break;
            }
            sent.clear();
            let socket = flow.set.get_mut::<Socket<'static>>(flow.socket);
            socket.abort();
            let again = self.begin(ip, id, draw);
            debug_assert!(again);
        }
        self.output(ip, id, Some(path), &mut sent);
    }
}

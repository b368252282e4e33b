//! Datagrams: binding, and the files that share a socket.

use std::net::IpAddr;

use scheme::FileId;
use scheme::errno::{self, Errno};
use smallvec::smallvec;

use super::{Context, Holder, Socket, State, any, check_family};
use crate::net::Net;
use crate::stack::{Peer, UdpId, bind_port};

/// Most files of one socket: each is told of every datagram.
const MAX_HOLDERS: usize = 1024;

impl Socket {
    pub(super) fn bind_datagrams(
        &mut self,
        cx: &mut Context<'_>,
        local: (IpAddr, u16),
    ) -> Result<(), Errno> {
        self.check_port(local.1)?;
        let addr = local.0;
        self.check_local(cx.net, addr)?;
        let owner = cx.owner();
        let Net { ip, udp, .. } = &mut *cx.net;
        let bind = |port| udp.bind(addr, port, owner, self.uid);
        let (socket, port) = bind_port(&mut ip.ports, self.uid, local.1, bind)?;
        let local = (addr, port);
        self.state = State::Datagrams {
            socket,
            local,
            peer: None,
        };
        let holder = Holder {
            file: cx.id,
            peer: None,
        };
        cx.shared.holders.insert(socket, smallvec![holder]);
        cx.shared.memberships.bound(cx.id, socket);
        self.apply_receive_buffer(cx.net);
        Ok(())
    }

    /// Sets the destination of writes, and, if the socket has only this file, the accepted source.
    pub(super) fn set_peer(
        &mut self,
        cx: &mut Context<'_>,
        new: Option<Peer>,
    ) -> Result<(), Errno> {
        if let State::Datagrams {
            socket,
            local,
            peer,
        } = &mut self.state
        {
            check_family(local.0, new)?;
            *peer = new;
            let holders = cx.shared.holders.get_mut(socket);
            for holder in holders.into_iter().flatten() {
                if holder.file == cx.id {
                    holder.peer = new;
                }
            }
            cx.filter_datagrams(*socket);
        }
        Ok(())
    }

    pub(super) fn disconnect(&self, cx: &mut Context<'_>, new: FileId) -> Result<Box<Self>, Errno> {
        match self.state {
            State::Datagrams { socket, local, .. } => {
                self.share_datagrams(cx, socket, local, None, new)
            }
            _ => Err(errno::EINVAL),
        }
    }

    /// Another file, with the number `new`, of the same UDP socket. `ENFILE` if that has too many.
    fn share_datagrams(
        &self,
        cx: &mut Context<'_>,
        socket: UdpId,
        local: (IpAddr, u16),
        peer: Option<Peer>,
        new: FileId,
    ) -> Result<Box<Self>, Errno> {
        let shared = self.derive(State::Datagrams {
            socket,
            local,
            peer,
        });
        let holders = cx.shared.holders.entry(socket).or_default();
        if holders.len() >= MAX_HOLDERS {
            return Err(errno::ENFILE);
        }
        holders.push(Holder { file: new, peer });
        cx.filter_datagrams(socket);
        Ok(shared)
    }

    /// `bind`, `connect` and `sendto` of a datagram socket.
    pub(super) fn name_datagrams(
        &mut self,
        cx: &mut Context<'_>,
        local: Option<(IpAddr, u16)>,
        peer: Option<Peer>,
        new: FileId,
    ) -> Result<Box<Self>, Errno> {
        match (&self.state, local) {
            (State::Fresh, local) => {
                let local = local.unwrap_or_else(|| any(peer));
                check_family(local.0, peer)?;
                // In place: answers to what is sent now come to the original.
                self.bind_datagrams(cx, local)?;
            }
            (State::Datagrams { .. }, None) => {}
            _ => return Err(errno::EINVAL),
        }
        match self.state {
            State::Datagrams { socket, local, .. } => {
                check_family(local.0, peer)?;
                self.share_datagrams(cx, socket, local, peer, new)
            }
            _ => Err(errno::EINVAL),
        }
    }
}

impl Context<'_> {
    /// Filters a socket's datagrams by source: only if it has one file, and that has a peer. (The
    /// copy that sendto makes must not filter datagrams for the original, nor must a peer that is a
    /// group or broadcast address.)
    pub(super) fn filter_datagrams(&mut self, socket: UdpId) {
        let peer = match self.shared.holders.get(&socket).map(|holders| &holders[..]) {
            Some(&[Holder { peer, .. }]) => peer,
            _ => None,
        };
        let Net { ip, udp, .. } = &mut *self.net;
        let peer = peer.filter(|peer| !ip.ifs.is_many(&peer.addr));
        udp.connect(ip, socket, peer);
    }
}

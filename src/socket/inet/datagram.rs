//! Datagrams: binding, and the files that share a socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use scheme::FileId;
use scheme::errno::{self, Errno};
use smallvec::smallvec;

use super::{Kind, State};
use crate::net::Net;
use crate::stack::{Owner, UdpId, ephemeral_ports};

impl Net {
    pub(super) fn bind_datagrams(&mut self, id: FileId, local: (IpAddr, u16)) -> Result<(), Errno> {
        self.check_port(id, local.1)?;
        let addr = self.check_local(Kind::Udp, local.0)?;
        let owner = Owner::File(id);
        let (socket, port) = match local.1 {
            0 => {
                let try_port = |port| Some((self.udp.bind(addr, port, owner).ok()?, port));
                let found = ephemeral_ports(&mut self.rng).find_map(try_port);
                found.ok_or(errno::EADDRINUSE)?
            }
            port => (self.udp.bind(addr, port, owner)?, port),
        };
        let local = (local.0, port);
        self.inet(id)?.state = State::Datagrams {
            socket,
            local,
            peer: None,
        };
        self.inet.holders.insert(socket, smallvec![id]);
        self.inet.memberships.bound(id, socket);
        self.apply_receive_buffer(id);
        Ok(())
    }

    /// Where writes go from now on, and, for the only holder, where reads come from.
    pub(super) fn set_peer(&mut self, id: FileId, new: Option<(IpAddr, u16)>) -> Result<(), Errno> {
        if let State::Datagrams { socket, peer, .. } = &mut self.inet(id)?.state {
            *peer = new;
            let socket = *socket;
            self.filter_datagrams(socket);
        }
        Ok(())
    }

    /// A socket takes only its peer's datagrams when it has one file, and that has a peer. (The
    /// copy that sendto makes must not filter what the original receives; nor does a peer that
    /// is many.)
    pub(super) fn filter_datagrams(&mut self, socket: UdpId) {
        let holders = self.inet.holders(socket);
        let peer = match holders[..] {
            [only] => match self.inet(only).map(|socket| &socket.state) {
                Ok(State::Datagrams { peer, .. }) => *peer,
                _ => None,
            },
            _ => None,
        };
        let one = |&(addr, _): &(IpAddr, u16)| match addr {
            IpAddr::V4(v4) => !addr.is_multicast() && !self.ifs.is_broadcast(&v4),
            IpAddr::V6(_) => !addr.is_multicast(),
        };
        let peer = peer.filter(one);
        self.udp.connect(socket, peer);
    }

    pub(super) fn inet_disconnect(&mut self, id: FileId) -> Result<FileId, Errno> {
        match self.inet(id)?.state {
            State::Datagrams { socket, local, .. } => self.share_datagrams(id, socket, local, None),
            _ => Err(errno::EINVAL),
        }
    }

    /// Another file of the same UDP socket.
    pub(super) fn share_datagrams(
        &mut self,
        id: FileId,
        socket: UdpId,
        local: (IpAddr, u16),
        peer: Option<(IpAddr, u16)>,
    ) -> Result<FileId, Errno> {
        let shared = self.derive(
            id,
            State::Datagrams {
                socket,
                local,
                peer,
            },
        )?;
        self.inet.holders.entry(socket).or_default().push(shared);
        self.filter_datagrams(socket);
        Ok(shared)
    }

    /// `bind`, `connect` and `sendto` of a datagram socket.
    pub(super) fn udp_name(
        &mut self,
        id: FileId,
        local: Option<(IpAddr, u16)>,
        peer: Option<(IpAddr, u16)>,
    ) -> Result<FileId, Errno> {
        match (&self.inet(id)?.state, local) {
            (State::Fresh, local) => {
                let family =
                    peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |(addr, _)| match addr {
                        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
                    });
                // In place: answers to what is sent now come to the original.
                self.bind_datagrams(id, local.unwrap_or((family, 0)))?;
            }
            (State::Datagrams { .. }, None) => {}
            _ => return Err(errno::EINVAL),
        }
        let State::Datagrams { socket, local, .. } = self.inet(id)?.state else {
            return Err(errno::EINVAL);
        };
        self.share_datagrams(id, socket, local, peer)
    }
}

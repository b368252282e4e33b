//! Groups that datagram sockets are in. A socket leaves them when the last of its files is closed.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use scheme::FileId;
use scheme::errno::{self, Errno};

use super::{Context, Socket, State, Transport};
use crate::ifnet::{IfFlags, IfIndex, MAX_GROUPS, MemberKind, RESERVED_GROUPS};
use crate::stack::UdpId;

/// Most memberships of a socket: BSD's former `IP_MAX_MEMBERSHIPS`, and Linux's present
/// `igmp_max_memberships`. One more is `ENOBUFS`.
const MAX_MEMBERSHIPS: usize = 20;
/// Most memberships of all sockets.
const MAX_ALL_MEMBERSHIPS: usize = 65_536;
/// Of these, how many are reserved for the superuser.
const RESERVED_MEMBERSHIPS: usize = 4096;

/// The key of a socket: its file as long as it has no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SocketKey {
    Fresh(FileId),
    Bound(UdpId),
}

/// The group memberships of sockets, by interface. The interface counts each of them, too.
#[derive(Debug, Default)]
pub(super) struct Memberships {
    of: BTreeMap<SocketKey, Vec<(IfIndex, IpAddr)>>,
    /// How many there are.
    count: usize,
}

impl Memberships {
    /// A socket got a name.
    pub(super) fn bound(&mut self, id: FileId, socket: UdpId) {
        if let Some(groups) = self.of.remove(&SocketKey::Fresh(id)) {
            self.of.insert(SocketKey::Bound(socket), groups);
        }
    }

    /// Removes every membership on an interface that is gone: its number will be reused.
    pub(super) fn detach(&mut self, dev: IfIndex) {
        self.count = 0;
        self.of.retain(|_, groups| {
            groups.retain(|&(of, _)| of != dev);
            self.count += groups.len();
            !groups.is_empty()
        });
    }
}

/// A group to join or leave: `struct ip_mreq` or `struct ipv6_mreq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    group: IpAddr,
    interface: Interface,
}

/// The interface in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interface {
    /// The one on the route to the group.
    Any,
    /// The one with this address.
    Address(Ipv4Addr),
    /// The one with this index; no interface has one that a program could know.
    Index,
}

impl Request {
    pub(super) fn parse_v4(payload: &[u8]) -> Option<Self> {
        let &[a, b, c, d, e, f, g, h] = payload.first_chunk()?;
        let addr = Ipv4Addr::new(e, f, g, h);
        let interface = match addr.is_unspecified() {
            true => Interface::Any,
            false => Interface::Address(addr),
        };
        let group = Ipv4Addr::new(a, b, c, d).into();
        Some(Self { group, interface })
    }

    pub(super) fn parse_v6(payload: &[u8]) -> Option<Self> {
        let (group, rest) = payload.split_first_chunk::<16>()?;
        let interface = match u32::from_ne_bytes(*rest.first_chunk()?) {
            0 => Interface::Any,
            _ => Interface::Index,
        };
        let group = Ipv6Addr::from(*group).into();
        Some(Self { group, interface })
    }
}

impl Socket {
    /// `IP_ADD_MEMBERSHIP`, `IPV6_JOIN_GROUP`.
    pub(super) fn join(&self, cx: &mut Context<'_>, request: Request) -> Result<(), Errno> {
        let key = self.key(cx.id)?;
        let (most, most_of_all) = match self.uid {
            0 => (MAX_GROUPS, MAX_ALL_MEMBERSHIPS),
            _ => (
                MAX_GROUPS - RESERVED_GROUPS,
                MAX_ALL_MEMBERSHIPS - RESERVED_MEMBERSHIPS,
            ),
        };
        let Request { group, interface } = request;
        if !group.is_multicast() {
            return Err(errno::EINVAL);
        }
        let dev = match interface {
            Interface::Any => cx.net.ip.way_to(&group, None).ok().map(|path| path.dev),
            Interface::Address(addr) => cx.net.ip.ifs.holder(&addr.into()),
            Interface::Index => None,
        };
        let ifp = dev.and_then(|dev| cx.net.ip.ifs.get(dev));
        let ifp = ifp.filter(|ifp| {
            let carries = group.is_ipv4() || ifp.has_ipv6();
            carries && ifp.flags.contains(IfFlags::MULTICAST)
        });
        let ifp = ifp.ok_or(errno::EADDRNOTAVAIL)?;
        let dev = ifp.index;
        let groups = cx.shared.memberships.of.get(&key);
        let groups = groups.map_or(&[][..], Vec::as_slice);
        if groups.contains(&(dev, group)) {
            return Err(errno::EADDRINUSE);
        }
        if groups.len() >= MAX_MEMBERSHIPS
            || cx.shared.memberships.count >= most_of_all
            || !cx.net.ip.group_join(dev, group, MemberKind::Socket, most)
        {
            return Err(errno::ENOBUFS);
        }
        let of = cx.shared.memberships.of.entry(key).or_default();
        of.push((dev, group));
        cx.shared.memberships.count += 1;
        Ok(())
    }

    /// `IP_DROP_MEMBERSHIP`, `IPV6_LEAVE_GROUP`. Without an interface, the first membership in the
    /// group ends.
    pub(super) fn leave(&self, cx: &mut Context<'_>, request: Request) -> Result<(), Errno> {
        let key = self.key(cx.id)?;
        let Request { group, interface } = request;
        if !group.is_multicast() {
            return Err(errno::EINVAL);
        }
        let wanted = match interface {
            Interface::Any => None,
            Interface::Address(addr) => {
                let dev = cx.net.ip.ifs.holder(&addr.into());
                Some(dev.ok_or(errno::EADDRNOTAVAIL)?)
            }
            Interface::Index => return Err(errno::EADDRNOTAVAIL),
        };
        let groups = cx.shared.memberships.of.get_mut(&key);
        let groups = groups.ok_or(errno::EADDRNOTAVAIL)?;
        let meant = |&(dev, of): &(IfIndex, IpAddr)| {
            of == group && wanted.is_none_or(|wanted| wanted == dev)
        };
        let at = groups.iter().position(meant).ok_or(errno::EADDRNOTAVAIL)?;
        let (dev, group) = groups.remove(at);
        cx.shared.memberships.count -= 1;
        if groups.is_empty() {
            cx.shared.memberships.of.remove(&key);
        }
        cx.net.ip.group_leave(dev, group, MemberKind::Socket);
        Ok(())
    }

    fn key(&self, id: FileId) -> Result<SocketKey, Errno> {
        match (self.transport, &self.state) {
            (Transport::Tcp, _) => Err(errno::EOPNOTSUPP),
            (Transport::Udp, &State::Datagrams { socket, .. }) => Ok(SocketKey::Bound(socket)),
            (Transport::Udp, _) => Ok(SocketKey::Fresh(id)),
        }
    }
}

impl Context<'_> {
    /// Ends all memberships of a socket whose last file is closed.
    pub(super) fn leave_all(&mut self, key: SocketKey) {
        let groups = self.shared.memberships.of.remove(&key);
        for (dev, group) in groups.into_iter().flatten() {
            self.shared.memberships.count -= 1;
            self.net.ip.group_leave(dev, group, MemberKind::Socket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_any_length() {
        let request = Request::parse_v4(&[239, 1, 2, 3, 10, 0, 0, 1, 9]).unwrap();
        assert_eq!(request.group, IpAddr::from([239, 1, 2, 3]));
        assert_eq!(request.interface, Interface::Address([10, 0, 0, 1].into()));
        let mut v6 = [0; 20];
        v6[0] = 0xff;
        assert_eq!(Request::parse_v6(&v6).unwrap().interface, Interface::Any);
        v6[19] = 1;
        assert_eq!(Request::parse_v6(&v6).unwrap().interface, Interface::Index);
        for short in 0..8 {
            assert_eq!(Request::parse_v4(&v6[..short]), None);
        }
        for short in 0..20 {
            assert_eq!(Request::parse_v6(&v6[..short]), None);
        }
    }
}

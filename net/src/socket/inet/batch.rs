//! Many datagrams in one read or write. Each is a [frame](crate::batch): the address and port it
//! came from or goes to, and its data.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use scheme::Outcome;
use scheme::errno::{self, Errno};

use super::{Context, Socket, State, any, destination};
use crate::batch;
use crate::net::Net;
use crate::stack::Peer;

/// The smallest buffer of a read, bytes: the longest datagram fits.
const SMALLEST_READ: usize = 65_560;
/// The most bytes of a write.
const LONGEST_WRITE: usize = 1 << 20;
/// Bytes of an address in front of a datagram.
pub(super) const ADDRESS: usize = 24;

/// The family in an address. They are those of the tun device.
mod family {
    /// No address: the peer.
    pub(super) const UNSPEC: u16 = 0;
    pub(super) const INET: u16 = 2;
    pub(super) const INET6: u16 = 10;
}

/// Writes an address and a port as `{ u16 family, u16 port, u32 scope, u8 addr[16] }`: the port in
/// network order, the rest in native order. There is no scope.
pub(super) fn encode((addr, port): (IpAddr, u16)) -> [u8; ADDRESS] {
    let mut bytes = [0; ADDRESS];
    let family = match addr {
        IpAddr::V4(addr) => {
            bytes[8..12].copy_from_slice(&addr.octets());
            family::INET
        }
        IpAddr::V6(addr) => {
            bytes[8..].copy_from_slice(&addr.octets());
            family::INET6
        }
    };
    bytes[..2].copy_from_slice(&family.to_ne_bytes());
    bytes[2..4].copy_from_slice(&port.to_be_bytes());
    bytes
}

/// Reads an address and a port; `None` for the peer. `EAFNOSUPPORT` if it is of another family. An
/// IPv4-mapped address is the IPv4 address, as in a path.
fn decode(bytes: &[u8; ADDRESS]) -> Result<Option<(IpAddr, u16)>, Errno> {
    let [f0, f1, p0, p1, _, _, _, _, addr @ ..] = *bytes;
    let addr = match u16::from_ne_bytes([f0, f1]) {
        family::UNSPEC => return Ok(None),
        family::INET => {
            let [a, b, c, d, ..] = addr;
            Ipv4Addr::new(a, b, c, d).into()
        }
        family::INET6 => IpAddr::from(Ipv6Addr::from(addr)).to_canonical(),
        _ => return Err(errno::EAFNOSUPPORT),
    };
    Ok(Some((addr, u16::from_be_bytes([p0, p1]))))
}

/// Splits a frame into address and data. `None` if it has no whole address.
fn split(frame: &[u8]) -> Option<(&[u8; ADDRESS], &[u8])> {
    frame.split_first_chunk()
}

impl Socket {
    /// Reads as many whole datagrams as are queued and fit. `EINVAL` for a buffer in which the
    /// longest might not.
    pub(super) fn read_batch(&self, net: &mut Net, buf: &mut [u8]) -> Outcome<usize> {
        if buf.len() < SMALLEST_READ {
            return errno::EINVAL.into();
        }
        let socket = match self.state {
            State::Datagrams { socket, .. } => socket,
            State::Moved => return errno::EBADF.into(),
            // Nothing can come to a socket without a name.
            _ => return Outcome::Wait,
        };
        if self.shut_read {
            return Outcome::Done(Ok(0));
        }
        let mut filled = 0;
        while let Some(next) = net.udp.peek(socket) {
            let size = batch::size(ADDRESS + next.data().len());
            let Some(room) = buf.get_mut(filled..filled + size) else {
                break;
            };
            batch::put(room, &[&encode(next.from), next.data()]);
            net.udp.recv(socket);
            filled += size;
        }
        match filled {
            // An error is told after the data that came before it.
            0 => {
                let error = net.udp.take_error(socket);
                error.map_or(Outcome::Wait, Outcome::from)
            }
            _ => Outcome::Done(Ok(filled)),
        }
    }

    /// Sends datagrams in order. `EINVAL`, and nothing is sent, if the framing is wrong anywhere or
    /// it is more than [`LONGEST_WRITE`]. The first that cannot be sent ends the call, with the
    /// bytes of the frames before it, or its error if there are none.
    pub(super) fn write_batch(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Result<usize, Errno> {
        let mut rest = buf;
        while !rest.is_empty() {
            let frame = batch::take(&mut rest).and_then(split);
            frame.ok_or(errno::EINVAL)?;
        }
        if buf.len() > LONGEST_WRITE {
            return Err(errno::EINVAL);
        }
        let mut rest = buf;
        let mut sent = 0;
        while let Some((address, data)) = batch::take(&mut rest).and_then(split) {
            match self.send_to(cx, address, data) {
                Ok(()) => sent = buf.len() - rest.len(),
                Err(error) if sent == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(sent)
    }

    /// Sends one datagram of a batch. A socket without a name is bound by it, as by `sendto`.
    fn send_to(
        &mut self,
        cx: &mut Context<'_>,
        address: &[u8; ADDRESS],
        data: &[u8],
    ) -> Result<(), Errno> {
        let to = decode(address)?.map(Peer::from);
        let to = to.map(destination).transpose()?;
        if let (State::Fresh, Some(_)) = (&self.state, to) {
            self.bind_datagrams(cx, any(to))?;
        }
        let (peer, to) = match (&self.state, to) {
            (State::Moved, _) => return Err(errno::EBADF),
            (State::Datagrams { peer, .. }, to) => (*peer, to.or(*peer)),
            _ => (None, None),
        };
        let to = to.ok_or(errno::EDESTADDRREQ)?;
        if peer.is_some_and(|peer| peer.name() != to.name()) {
            return Err(errno::EISCONN);
        }
        self.send_datagram(cx.net, peer.unwrap_or(to), data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_there_and_back() {
        for name in ["10.0.0.1:53", "[fd00::1]:65535"] {
            let name: std::net::SocketAddr = name.parse().unwrap();
            let name = (name.ip(), name.port());
            assert_eq!(decode(&encode(name)), Ok(Some(name)));
        }
        let bytes = encode((Ipv4Addr::new(10, 0, 0, 1).into(), 53));
        assert_eq!(bytes[..2], 2_u16.to_ne_bytes());
        assert_eq!(bytes[2..4], [0, 53]);
        assert_eq!(bytes[8..12], [10, 0, 0, 1]);
        assert_eq!(bytes[12..], [0; 12]);
        let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
        let decoded = decode(&encode((mapped.into(), 7)));
        assert_eq!(decoded, Ok(Some((Ipv4Addr::LOCALHOST.into(), 7))));
        assert_eq!(decode(&[0; ADDRESS]), Ok(None));
        assert_eq!(decode(&[1; ADDRESS]), Err(errno::EAFNOSUPPORT));
    }
}

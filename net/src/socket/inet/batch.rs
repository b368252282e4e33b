//! Many datagrams in one read or write. Each is a [frame](crate::batch): the address and port it
//! came from or goes to, and its data.

use scheme::Outcome;
use scheme::errno::{self, Errno};

use super::{Context, Socket, State, any, destination};
use crate::batch;
use crate::net::Net;
use crate::socket::address::{ADDRESS, decode, encode};
use crate::stack::Peer;

/// The smallest buffer of a read, bytes: the longest datagram fits.
const SMALLEST_READ: usize = 65_560;
/// The most bytes of a write.
const LONGEST_WRITE: usize = 1 << 20;
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

//! Device controls of sockets: what a tunnel program asks of the socket that carries its tunnel.

use scheme::Argument;
use scheme::errno::{self, Errno};

use super::{Context, Socket, State, Transport};
use crate::ifnet::IfName;
use crate::ioctl::triple;
use crate::socket::address::{ADDRESS, encode};

/// A call on Redox whose first word is smaller than this is a `SocketCall`, else a device control.
/// Every request with an argument is larger, because its number has the size of the argument.
const FIRST_REQUEST: u64 = 1 << 16;

/// The requests of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    /// `TUNSBATCH`
    SetBatch,
    /// `TUNGBATCH`
    GetBatch,
    /// `TUNSBYPASS`
    SetBypass,
    /// `TUNGSOCKNAME`
    GetName,
}

impl Request {
    /// `None` if there is no such request.
    fn decode(request: u64) -> Option<Self> {
        const T: u32 = b't' as u32;
        const NAME: u32 = ADDRESS as u32;

        Some(match triple(u32::try_from(request).ok()?) {
            (T, 130, 4) => Self::SetBatch,
            (T, 131, 4) => Self::GetBatch,
            (T, 133, 16) => Self::SetBypass,
            (T, 134, NAME) => Self::GetName,
            _ => return None,
        })
    }
}

/// The device control in the words of a call; `None` if it is a `SocketCall`.
pub(crate) fn request(metadata: &[u64]) -> Option<u64> {
    let request = metadata.first().copied();
    request.filter(|&request| request >= FIRST_REQUEST)
}

impl Socket {
    /// Handles a device control. `ENOTTY` if sockets of this transport do not have it.
    pub(crate) fn ioctl(
        &mut self,
        cx: &mut Context<'_>,
        request: u64,
        mut arg: Argument<'_>,
    ) -> Result<(), Errno> {
        let request = Request::decode(request).ok_or(errno::ENOTTY)?;
        match (request, self.transport) {
            (Request::SetBatch, Transport::Udp) => {
                self.options.batch = i32::from_ne_bytes(arg.get()?) != 0;
                Ok(())
            }
            (Request::GetBatch, Transport::Udp) => {
                arg.put(i32::from(self.options.batch).to_ne_bytes())
            }
            (Request::SetBatch | Request::GetBatch, Transport::Tcp) => Err(errno::ENOTTY),
            (Request::SetBypass, _) => {
                // Whoever could bypass a tunnel would send in clear what its owner wants in it. The
                // user that comes with a call on Redox is nobody that can be believed, but the one
                // that opened the socket is.
                if self.uid != 0 {
                    return Err(errno::EPERM);
                }
                self.options.bypass = IfName::parse(arg.get()?).ok_or(errno::EINVAL)?;
                self.apply_options(cx.net);
                Ok(())
            }
            (Request::GetName, _) => {
                let local = match self.state {
                    State::Listening { local, .. }
                    | State::Flow { local, .. }
                    | State::Datagrams { local, .. } => Some(local),
                    State::Fresh | State::Moved => None,
                };
                arg.put(local.map_or([0; ADDRESS], encode))
            }
        }
    }
}

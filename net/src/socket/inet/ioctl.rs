//! Device controls of sockets: what a tunnel program asks of the socket that carries its tunnel.

use scheme::errno::{self, Errno};
use scheme::{Argument, Caller};

use super::{Context, Socket};
use crate::ifnet::IfName;
use crate::ioctl::triple;

/// A call on Redox whose first word is smaller than this is a `SocketCall`, else a device control.
/// Every request with an argument is larger, because its number has the size of the argument.
const FIRST_REQUEST: u64 = 1 << 16;

/// The requests of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    /// `TUNSBYPASS`
    SetBypass,
}

impl Request {
    /// `None` if there is no such request.
    fn decode(request: u64) -> Option<Self> {
        const T: u32 = b't' as u32;

        Some(match triple(u32::try_from(request).ok()?) {
            (T, 133, 16) => Self::SetBypass,
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
    /// Handles a device control. `ENOTTY` if sockets do not have it.
    pub(crate) fn ioctl(
        &mut self,
        cx: &mut Context<'_>,
        request: u64,
        arg: Argument<'_>,
        caller: Caller,
    ) -> Result<(), Errno> {
        match Request::decode(request).ok_or(errno::ENOTTY)? {
            Request::SetBypass => {
                // Whoever could bypass a tunnel would send in clear what its owner wants in it.
                if caller.uid != 0 {
                    return Err(errno::EPERM);
                }
                self.options.bypass = IfName::parse(arg.get()?).ok_or(errno::EINVAL)?;
                self.apply_options(cx.net);
                Ok(())
            }
        }
    }
}

//! Device controls of sockets: what a tunnel program asks of the socket that carries its tunnel.

use scheme::errno::{self, Errno};
use scheme::{Argument, Caller};

use super::{Context, Socket};

/// A call on Redox whose first word is smaller than this is a `SocketCall`, else a device control.
/// Every request with an argument is larger, because its number has the size of the argument.
const FIRST_REQUEST: u64 = 1 << 16;

/// The device control in the words of a call; `None` if it is a `SocketCall`.
pub(crate) fn request(metadata: &[u64]) -> Option<u64> {
    let request = metadata.first().copied();
    request.filter(|&request| request >= FIRST_REQUEST)
}

impl Socket {
    /// Handles a device control. `ENOTTY` if sockets of this transport do not have it.
    pub(crate) fn ioctl(
        &mut self,
        _cx: &mut Context<'_>,
        _request: u64,
        _arg: Argument<'_>,
        _caller: Caller,
    ) -> Result<(), Errno> {
        Err(errno::ENOTTY)
    }
}

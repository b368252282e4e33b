//! `ip/HH`: whole packets of one protocol, its number in hexadecimal, headers included. Only the
//! superuser may open it.

use scheme::errno::{self, Errno};
use scheme::{Caller, FileId, Outcome, Ready, Stat};

use super::SOCKET;
use crate::net::Net;
use crate::stack::{Owner, RawId};

/// Whether a path below `ip` can be opened.
pub(crate) fn stat(path: &str) -> Result<Stat, Errno> {
    // Only the superuser opens one.
    let stat = Stat {
        mode: 0o600,
        ..SOCKET
    };
    protocol(path).map(|_| stat)
}

fn protocol(path: &str) -> Result<u8, Errno> {
    let digits = (1..=2).contains(&path.len()) && path.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = digits.then(|| u8::from_str_radix(path, 16).ok()).flatten();
    number.ok_or(errno::ENOENT)
}

/// Opens a socket; events of it come with `file`.
pub(crate) fn open(
    net: &mut Net,
    path: &str,
    caller: Caller,
    file: FileId,
) -> Result<RawId, Errno> {
    if caller.uid != 0 {
        return Err(errno::EACCES);
    }
    net.raw.open(protocol(path)?, Owner(file.0))
}

pub(crate) fn read(net: &mut Net, id: RawId, buf: &mut [u8]) -> Outcome<usize> {
    if buf.is_empty() {
        return Outcome::Done(Ok(0));
    }
    let Some(packet) = net.raw.recv(id) else {
        return Outcome::Wait;
    };
    let len = packet.len().min(buf.len());
    buf[..len].copy_from_slice(&packet[..len]);
    Outcome::Done(Ok(len))
}

pub(crate) fn write(net: &mut Net, id: RawId, buf: &[u8]) -> Result<usize, Errno> {
    net.raw.send(&mut net.ip, id, buf)?;
    Ok(buf.len())
}

pub(crate) fn ready(net: &Net, id: RawId) -> Ready {
    match net.raw.has_queued(id) {
        true => Ready::all(),
        false => Ready::WRITE,
    }
}

pub(crate) fn path(net: &Net, id: RawId) -> String {
    match net.raw.protocol(id) {
        Some(protocol) => format!("ip/{protocol:02x}"),
        None => "ip".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_hexadecimal() {
        assert_eq!(protocol("01"), Ok(1));
        assert_eq!(protocol("1"), Ok(1));
        assert_eq!(protocol("fF"), Ok(255));
        for bad in ["", "g", "100", "+1", "icmp", "1/2"] {
            assert_eq!(protocol(bad), Err(errno::ENOENT), "{bad:?}");
        }
    }
}

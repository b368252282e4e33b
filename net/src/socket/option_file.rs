//! Options of sockets as files: a dup with the name of one gives a file that reads and writes it.

use std::num::NonZeroU8;
use std::time::Duration;

use scheme::errno::{self, Errno};
use scheme::wait::Direction;

/// An option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// The time limit of a read or a write: eight bytes of seconds, four of nanoseconds, padding.
    Timeout(Direction),
    /// Hop limit of packets sent: one byte.
    HopLimit,
}

impl Name {
    /// Reads the verb of a dup.
    pub(super) fn parse(verb: &str) -> Option<Self> {
        match verb {
            "read_timeout" => Some(Self::Timeout(Direction::Read)),
            "write_timeout" => Some(Self::Timeout(Direction::Write)),
            "hop_limit" => Some(Self::HopLimit),
            _ => None,
        }
    }
}

impl Name {
    /// Parses a value as the C library, or a program written for netstack, writes it to the file.
    pub(crate) fn parse_value(self, buf: &[u8]) -> Result<(Value, usize), Errno> {
        match self {
            Self::Timeout(direction) => {
                let bytes = buf.first_chunk().ok_or(errno::EINVAL)?;
                let timeout = parse_timeout(bytes).ok_or(errno::EINVAL)?;
                Ok((Value::Timeout(direction, timeout), bytes.len()))
            }
            Self::HopLimit => {
                // Netstack gives the same answer to an empty write.
                let hops = *buf.first().ok_or(errno::EIO)?;
                let hops = NonZeroU8::new(hops).ok_or(errno::EINVAL)?;
                Ok((Value::HopLimit(hops), 1))
            }
        }
    }
}

/// A value that was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Timeout(Direction, Option<Duration>),
    HopLimit(NonZeroU8),
}

/// Writes a timeout in the format of its file; nothing, if there is none.
pub(crate) fn write_timeout(buf: &mut [u8], timeout: Option<Duration>) -> Result<usize, Errno> {
    let Some(timeout) = timeout else {
        return Ok(0);
    };
    let to: &mut [u8; 16] = buf.first_chunk_mut().ok_or(errno::EINVAL)?;
    to[..8].copy_from_slice(&timeout.as_secs().to_ne_bytes());
    to[8..12].copy_from_slice(&timeout.subsec_nanos().to_ne_bytes());
    to[12..].fill(0);
    Ok(to.len())
}

/// Writes a hop limit in the format of its file.
pub(crate) fn write_hop_limit(buf: &mut [u8], hops: u8) -> Result<usize, Errno> {
    *buf.first_mut().ok_or(errno::EIO)? = hops;
    Ok(1)
}

/// Parses a timeout as the C library writes it; zero means none. `None` if it is not a valid time.
fn parse_timeout(bytes: &[u8; 16]) -> Option<Option<Duration>> {
    let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, ..] = *bytes;
    let seconds = i64::from_ne_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
    let nanos = i32::from_ne_bytes([n0, n1, n2, n3]);
    let seconds = u64::try_from(seconds).ok()?;
    let nanos = u32::try_from(nanos).ok();
    let nanos = nanos.filter(|&nanos| nanos < 1_000_000_000)?;
    let timeout = Duration::new(seconds, nanos);
    Some((!timeout.is_zero()).then_some(timeout))
}

//! Options of sockets, and the files of settings that dup makes.

use std::time::Duration;

use scheme::FileId;
use scheme::errno::{self, Errno};
use scheme::wait::Direction;

use super::{Kind, State};
use crate::net::{File, Held, Net};

/// Options of `SOL_SOCKET`.
mod sol_socket {
    pub(super) const REUSEADDR: u64 = 2;
    pub(super) const TYPE: u64 = 3;
    pub(super) const ERROR: u64 = 4;
    pub(super) const BROADCAST: u64 = 6;
    pub(super) const SNDBUF: u64 = 7;
    pub(super) const RCVBUF: u64 = 8;
    pub(super) const KEEPALIVE: u64 = 9;
    pub(super) const LINGER: u64 = 13;
    pub(super) const REUSEPORT: u64 = 15;
    pub(super) const RCVTIMEO: u64 = 20;
    pub(super) const SNDTIMEO: u64 = 21;
}

/// A file that dup makes of a socket to read or write one of its settings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    socket: Held,
    direction: Direction,
}

const fn place(direction: Direction) -> usize {
    match direction {
        Direction::Read => 0,
        Direction::Write => 1,
    }
}

impl Net {
    pub(super) fn inet_setting(
        &mut self,
        id: FileId,
        direction: Direction,
    ) -> Result<FileId, Errno> {
        let socket = self.hold(id)?;
        self.add_file(File::InetSetting(Setting { socket, direction }))
    }

    /// `SO_RCVTIMEO` and `SO_SNDTIMEO`.
    pub(crate) fn inet_patience(&self, id: FileId, direction: Direction) -> Option<Duration> {
        match self.file(id) {
            Ok(File::Inet(socket)) => socket.timeouts[place(direction)],
            _ => None,
        }
    }

    pub(super) fn get_option(
        &mut self,
        id: FileId,
        name: u64,
        payload: &mut [u8],
    ) -> Result<usize, Errno> {
        let socket = self.inet(id)?;
        let (kind, timeouts, keep_alive) = (socket.kind, socket.timeouts, socket.keep_alive);
        let int = |value: i32| value.to_ne_bytes().to_vec();
        let value = match name {
            sol_socket::TYPE => int(if kind == Kind::Tcp { 1 } else { 2 }),
            sol_socket::ERROR => {
                let error = match self.inet(id)?.state {
                    State::Flow { flow, .. } => {
                        let error = self.tcp.error(flow);
                        self.tcp.clear_error(flow);
                        error
                    }
                    State::Datagrams { socket, .. } => self.udp.take_error(socket),
                    _ => None,
                };
                int(error.map_or(0, Errno::raw))
            }
            sol_socket::SNDBUF | sol_socket::RCVBUF => {
                let size = match self.inet(id)?.state {
                    State::Flow { flow, .. } => {
                        let socket = self.tcp.socket(flow);
                        socket.map_or(0, |socket| match name {
                            sol_socket::SNDBUF => socket.send_capacity(),
                            _ => socket.recv_capacity(),
                        })
                    }
                    _ => 65_536,
                };
                int(i32::try_from(size).unwrap_or(i32::MAX))
            }
            sol_socket::KEEPALIVE => int(keep_alive.into()),
            sol_socket::REUSEADDR | sol_socket::REUSEPORT | sol_socket::BROADCAST => int(1),
            sol_socket::LINGER => vec![0; 8],
            sol_socket::RCVTIMEO | sol_socket::SNDTIMEO => {
                let timeout =
                    timeouts[usize::from(name == sol_socket::SNDTIMEO)].unwrap_or_default();
                let mut value = timeout.as_secs().to_ne_bytes().to_vec();
                value.extend_from_slice(&timeout.subsec_micros().to_ne_bytes());
                value.resize(16, 0);
                value
            }
            _ => return Err(errno::ENOPROTOOPT),
        };
        let len = value.len();
        payload
            .get_mut(..len)
            .ok_or(errno::EINVAL)?
            .copy_from_slice(&value);
        Ok(len)
    }

    pub(super) fn set_option(
        &mut self,
        id: FileId,
        name: u64,
        payload: &[u8],
    ) -> Result<usize, Errno> {
        let int = || {
            payload
                .first_chunk()
                .map(|bytes| i32::from_ne_bytes(*bytes))
        };
        let socket = self.inet(id)?;
        match name {
            sol_socket::KEEPALIVE => {
                socket.keep_alive = int().ok_or(errno::EINVAL)? != 0;
                let on = socket.keep_alive;
                if let State::Flow { flow, .. } = socket.state {
                    self.tcp_keep_alive(flow, on);
                }
            }
            // What they would allow is allowed, and sizes are ours to choose.
            sol_socket::REUSEADDR
            | sol_socket::REUSEPORT
            | sol_socket::BROADCAST
            | sol_socket::SNDBUF
            | sol_socket::RCVBUF
            | sol_socket::LINGER => {}
            _ => return Err(errno::ENOPROTOOPT),
        }
        Ok(0)
    }

    /// A timeout as the C library writes it: seconds of eight bytes, nanoseconds of four, padding.
    /// Zero means none.
    pub(crate) fn inet_setting_write(
        &mut self,
        setting: Setting,
        buf: &[u8],
    ) -> Result<usize, Errno> {
        let bytes: &[u8; 16] = buf.first_chunk().ok_or(errno::EINVAL)?;
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, ..] = *bytes;
        let seconds = i64::from_ne_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let nanos = i32::from_ne_bytes([n0, n1, n2, n3]);
        let seconds = u64::try_from(seconds).map_err(|_| errno::EINVAL)?;
        let nanos = u32::try_from(nanos)
            .ok()
            .filter(|&nanos| nanos < 1_000_000_000);
        let timeout = Duration::new(seconds, nanos.ok_or(errno::EINVAL)?);
        let id = self.held(setting.socket)?;
        self.inet(id)?.timeouts[place(setting.direction)] = (!timeout.is_zero()).then_some(timeout);
        Ok(16)
    }

    pub(crate) fn inet_setting_read(
        &mut self,
        setting: Setting,
        buf: &mut [u8],
    ) -> Result<usize, Errno> {
        let id = self.held(setting.socket)?;
        let Some(timeout) = self.inet(id)?.timeouts[place(setting.direction)] else {
            return Ok(0);
        };
        let to: &mut [u8; 16] = buf.first_chunk_mut().ok_or(errno::EINVAL)?;
        to[..8].copy_from_slice(&timeout.as_secs().to_ne_bytes());
        to[8..12].copy_from_slice(&timeout.subsec_nanos().to_ne_bytes());
        to[12..].fill(0);
        Ok(16)
    }
}

//! Options of the protocols: IP, IPv6 and TCP. Numbers are the C library's, which are Linux's.
//!
//! Redox's C library passes on only the options of `SOL_SOCKET`, and reports success for all
//! others. A program that makes the call itself gives the level in the third word.

use std::net::Ipv4Addr;
use std::num::NonZeroU8;

use scheme::errno::{self, Errno};

use super::group::Request;
use super::{Context, Socket, Transport};
use crate::ifnet::{IfFlags, Ifnet};
use crate::ip::Ip;
use crate::stack::SendTerms;

/// Marks that a third word is present: the kernel fills missing words with zero, and `IPPROTO_IP`
/// is zero.
const PRESENT: u64 = 1 << 32;

/// Options of `IPPROTO_IP`.
mod ip {
    pub(super) const TTL: u64 = 2;
    pub(super) const MULTICAST_IF: u64 = 32;
    pub(super) const MULTICAST_TTL: u64 = 33;
    pub(super) const MULTICAST_LOOP: u64 = 34;
    pub(super) const ADD_MEMBERSHIP: u64 = 35;
    pub(super) const DROP_MEMBERSHIP: u64 = 36;
}

/// Options of `IPPROTO_IPV6`.
mod ipv6 {
    pub(super) const UNICAST_HOPS: u64 = 16;
    pub(super) const MULTICAST_IF: u64 = 17;
    pub(super) const MULTICAST_HOPS: u64 = 18;
    pub(super) const MULTICAST_LOOP: u64 = 19;
    pub(super) const JOIN_GROUP: u64 = 20;
    pub(super) const LEAVE_GROUP: u64 = 21;
}

/// Options of `IPPROTO_TCP`.
mod tcp {
    pub(super) const NODELAY: u64 = 1;
}

/// The first argument of `setsockopt` behind the descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// `SOL_SOCKET`
    Socket,
    /// `IPPROTO_IP`
    Ip,
    /// `IPPROTO_IPV6`
    Ipv6,
    /// `IPPROTO_TCP`
    Tcp,
}

impl Level {
    /// Parses the third word of a call. `None` for an unknown level.
    pub(super) fn parse(word: u64) -> Option<Self> {
        const SOL_SOCKET: u64 = PRESENT | 1;
        const IP: u64 = PRESENT;
        const IPV6: u64 = PRESENT | 41;
        const TCP: u64 = PRESENT | 6;

        match word {
            0 | SOL_SOCKET => Some(Self::Socket),
            IP => Some(Self::Ip),
            IPV6 => Some(Self::Ipv6),
            TCP => Some(Self::Tcp),
            _ => None,
        }
    }
}

/// An option of a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProtocolOption {
    Hops,
    GroupHops,
    GroupLoop,
    /// An address for IPv4, an index for IPv6.
    GroupIf,
    NoDelay,
}

impl ProtocolOption {
    fn parse(level: Level, name: u64) -> Option<Self> {
        Some(match (level, name) {
            (Level::Ip, ip::TTL) | (Level::Ipv6, ipv6::UNICAST_HOPS) => Self::Hops,
            (Level::Ip, ip::MULTICAST_TTL) | (Level::Ipv6, ipv6::MULTICAST_HOPS) => Self::GroupHops,
            (Level::Ip, ip::MULTICAST_LOOP) | (Level::Ipv6, ipv6::MULTICAST_LOOP) => {
                Self::GroupLoop
            }
            (Level::Ip, ip::MULTICAST_IF) | (Level::Ipv6, ipv6::MULTICAST_IF) => Self::GroupIf,
            (Level::Tcp, tcp::NODELAY) => Self::NoDelay,
            _ => return None,
        })
    }

    /// Whether sockets of the transport have it.
    fn check(self, transport: Transport) -> Result<(), Errno> {
        match (self, transport) {
            (Self::Hops, _) | (Self::NoDelay, Transport::Tcp) => Ok(()),
            (Self::NoDelay, Transport::Udp) => Err(errno::ENOPROTOOPT),
            // As on BSD: streams have no groups.
            (_, Transport::Tcp) => Err(errno::EOPNOTSUPP),
            (_, Transport::Udp) => Ok(()),
        }
    }
}

impl Socket {
    pub(super) fn get_protocol_option(
        &self,
        level: Level,
        name: u64,
        payload: &mut [u8],
    ) -> Result<usize, Errno> {
        let option = ProtocolOption::parse(level, name).ok_or(errno::ENOPROTOOPT)?;
        option.check(self.transport)?;
        let options = &self.options;
        let value = match option {
            ProtocolOption::Hops => self.hop_limit().into(),
            ProtocolOption::GroupHops => options.group_hops.into(),
            ProtocolOption::GroupLoop => options.group_loop.into(),
            ProtocolOption::NoDelay => options.no_delay.into(),
            ProtocolOption::GroupIf => {
                let addr = options.group_if.filter(|_| level == Level::Ip);
                let addr = addr.unwrap_or(Ipv4Addr::UNSPECIFIED);
                i32::from_ne_bytes(addr.octets())
            }
        };
        // Where BSD expects one byte, programs may pass one.
        if let Some(room) = payload.first_chunk_mut() {
            *room = i32::to_ne_bytes(value);
            Ok(room.len())
        } else {
            let room = payload.first_mut().ok_or(errno::EINVAL)?;
            *room = u8::try_from(value).map_err(|_| errno::EINVAL)?;
            Ok(1)
        }
    }

    pub(super) fn set_protocol_option(
        &mut self,
        cx: &mut Context<'_>,
        level: Level,
        name: u64,
        payload: &[u8],
    ) -> Result<usize, Errno> {
        let request = match level {
            Level::Ip => Request::parse_v4(payload),
            _ => Request::parse_v6(payload),
        };
        match (level, name) {
            (Level::Ip, ip::ADD_MEMBERSHIP) | (Level::Ipv6, ipv6::JOIN_GROUP) => {
                self.join(cx, request.ok_or(errno::EINVAL)?)?;
                return Ok(0);
            }
            (Level::Ip, ip::DROP_MEMBERSHIP) | (Level::Ipv6, ipv6::LEAVE_GROUP) => {
                self.leave(cx, request.ok_or(errno::EINVAL)?)?;
                return Ok(0);
            }
            _ => {}
        }
        let option = ProtocolOption::parse(level, name).ok_or(errno::ENOPROTOOPT)?;
        option.check(self.transport)?;
        let value = number(payload).ok_or(errno::EINVAL)?;
        let group_if = match option {
            // An exact size, so that the beginning of another structure or of an address is not
            // accepted.
            ProtocolOption::GroupIf if payload.len() != size_of_val(&value) => {
                return Err(errno::EINVAL);
            }
            ProtocolOption::GroupIf => group_if(&cx.net.ip, level, value)?,
            _ => None,
        };
        let options = &mut self.options;
        match option {
            ProtocolOption::Hops => {
                // No packet may be sent with a hop limit of zero (RFC 1122 section 3.2.1.7).
                // -1 is for the default (RFC 3493 section 5.1).
                options.hop_limit = match value {
                    -1 => SendTerms::default().hop_limit,
                    value => {
                        let hops = u8::try_from(value).ok().and_then(NonZeroU8::new);
                        Some(hops.ok_or(errno::EINVAL)?)
                    }
                };
            }
            ProtocolOption::GroupHops => {
                options.group_hops = match value {
                    -1 => SendTerms::default().group_hops,
                    value => u8::try_from(value).map_err(|_| errno::EINVAL)?,
                };
            }
            ProtocolOption::GroupLoop => options.group_loop = value != 0,
            ProtocolOption::NoDelay => options.no_delay = value != 0,
            ProtocolOption::GroupIf => options.group_if = group_if,
        }
        self.apply_options(cx.net);
        Ok(0)
    }
}

/// The interface that a program chose for multicasts; `None` for the route's.
fn group_if(ip: &Ip, level: Level, value: i32) -> Result<Option<Ipv4Addr>, Errno> {
    let addr = Ipv4Addr::from(value.to_ne_bytes());
    // Interfaces have no indices that a program could know.
    let is_address = level == Level::Ip;
    if addr.is_unspecified() {
        return Ok(None);
    }
    let ifp = ip.ifs.holder(&addr.into()).and_then(|dev| ip.ifs.get(dev));
    let can = |ifp: &Ifnet| ifp.flags.contains(IfFlags::MULTICAST);
    match ifp.is_some_and(can) && is_address {
        true => Ok(Some(addr)),
        false => Err(errno::EADDRNOTAVAIL),
    }
}

/// The number in a payload: an int, or one byte.
fn number(payload: &[u8]) -> Option<i32> {
    match payload.first_chunk() {
        Some(bytes) => Some(i32::from_ne_bytes(*bytes)),
        None => payload.first().copied().map(i32::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_the_level_of_sockets() {
        assert_eq!(Level::parse(0), Some(Level::Socket));
        assert_eq!(Level::parse(PRESENT), Some(Level::Ip));
        for unknown in [1, 6, 41, PRESENT | 17, PRESENT << 1, u64::MAX] {
            assert_eq!(Level::parse(unknown), None, "{unknown:#x}");
        }
    }
}

//! Sockets as files, with the names, verbs and layouts of Redox's C library.
//!
//! - [`inet`]: `tcp` and `udp`;
//! - [`name`]: addresses as text, in paths and answers;
//! - [`message`]: the payloads of `recvmsg` and `sendmsg`;
//! - [`setting`]: the files of settings that dup makes;
//! - [`mod@echo`]: pings, through `icmp`;
//! - [`raw`]: whole packets, through `ip`.
//!
//! docs/sockets.md has the whole surface as a table.

mod echo;
mod inet;
mod message;
mod name;
mod raw;
mod setting;

use scheme::{FileKind, Stat};

pub(crate) use echo::{IcmpSockets, stat as icmp_stat};
pub(crate) use inet::{
    InetSockets, Kind, Socket, call_direction, dup_direction, stat as inet_stat,
};
pub(crate) use raw::{RawSockets, stat as raw_stat};
pub(crate) use setting::Setting;

/// What a socket looks like.
pub(crate) const SOCKET: Stat = Stat {
    kind: FileKind::Device,
    mode: 0o666,
    size: 0,
};

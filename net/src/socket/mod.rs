//! Sockets as files, with the names, verbs and layouts of Redox's C library.
//!
//! - [`inet`]: `tcp` and `udp`;
//! - [`name`]: addresses as text, in paths and answers;
//! - [`address`]: addresses as bytes;
//! - [`message`]: the payloads of `recvmsg` and `sendmsg`;
//! - [`option_file`]: the files of options that dup makes;
//! - [`mod@echo`]: pings, through `icmp`;
//! - [`raw`]: whole packets, through `ip`.
//!
//! docs/sockets.md has a table of the whole interface.

mod address;
pub(crate) mod echo;
pub(crate) mod inet;
mod message;
mod name;
pub(crate) mod option_file;
pub(crate) mod raw;

use scheme::{FileKind, Stat};

/// The answer of `stat` for a socket.
pub(crate) const SOCKET: Stat = Stat {
    kind: FileKind::Device,
    mode: 0o666,
    size: 0,
};

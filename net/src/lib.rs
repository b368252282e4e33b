//! One machine's network: the tun driver and the network stack behind it, served as trees of files.
//!
//! The layers, from the bottom up. Each knows only those before it (`tests/layers.rs` sees to
//! that):
//!
//! - [`packet`], [`capture`]: one packet in memory; packets as a stream that Wireshark reads.
//!   [`mod@seed`]: the keys that follow from the seed of a machine.
//! - [`ifnet`]: interfaces, with addresses, flags, counters and send queues.
//! - [`route`]: the longest-prefix table.
//! - [`ip`]: the network layer, netisr: input, reassembly, forwarding, ICMP, groups, and the way out.
//! - [`tun`] and [`link`], the drivers; [`stack`], the transports; [`bpf`], capture and injection;
//!   [`netisr`], other protocols.
//!   Each is given the network layer as an argument.
//! - [`mod@net`]: [`Net`](net::Net) holds these together. Its turn hands each packet that input
//!   [delivers](ip::Delivery) to its receiver.
//! - [`socket`] (`tcp`, `udp`, `icmp`, `ip`) and [`netcfg`] (interfaces and routes as text): the
//!   files through which programs use the network; [`serve`], the small services echo, discard and
//!   chargen.
//! - [`host`]: [`Host`], the tree of all files. It is a [`scheme::FileServer`], which the [`scheme`]
//!   crate serves as a Redox scheme, as a FUSE mount, or to threads of this process.
//! - [`adapters`]: network cards that come and go, for programs that have access to some.
//!
//! A packet written to `tun/0` goes host → tun → capture → netisr → IP → transport → socket. A packet
//! for the tunnel goes socket → transport → route → interface → capture → header → send queue →
//! program.
//!
//! **Nothing in here reads a clock, a descriptor, the environment or randomness**: time comes with
//! each [turn](scheme::FileServer::turn) and chance from one seed, so that a network of many such
//! machines runs in virtual time and replays bit for bit.

#![forbid(unsafe_code)]

pub mod adapters;
mod batch;
mod bpf;
mod capture;
mod files;
pub mod host;
pub mod ifnet;
mod ioctl;
mod ip;
pub mod link;
mod memory;
mod net;
mod netcfg;
mod netisr;
pub mod packet;
pub mod route;
mod seed;
pub mod serve;
mod socket;
mod stack;
mod timers;
pub mod tun;
mod users;

pub use host::{Config, Host};
pub use netcfg::MAX_STATE;
pub use seed::Seed;
pub use serve::Services;

/// Items for fuzz targets only.
#[cfg(fuzzing)]
pub mod fuzzing {
    pub use crate::stack::segments;
}

//! tund: the TUN device and network stack for Redox OS.
//!
//! One daemon is the tun driver and the network stack that the driver is the face of, served as
//! trees of files. From the top:
//!
//! - [`Net`]: one machine's network. It is a [`scheme::FileServer`], and an adapter of the
//!   [`scheme`] crate calls it: for a Redox scheme, a FUSE mount, or threads of this process.
//! - **The file servers**: what each path means. [`tun`] (devices), [`netcfg`] (interfaces and
//!   routes as text), [`bpf`] (capture and injection), [`socket`] (`tcp`, `udp`, `icmp`, `ip`).
//! - [`ifnet`]: interfaces, with addresses, flags, counters and send queues.
//! - [`netisr`]: what is received: input, reassembly, forwarding, ICMP; and the way out.
//! - [`route`]: the longest-prefix table.
//! - [`stack`]: TCP and UDP on smoltcp.
//! - Ethernet is in [`link`].
//! - [`serve`]: the small services echo, discard and chargen.
//!
//! A packet written to `tun/0` goes tun → capture → netisr → IP → flow → socket. A packet for the
//! tunnel goes socket → smoltcp → route → interface → capture → header → send queue → program.
//!
//! **Nothing in here reads a clock, a descriptor, the environment or randomness**: time comes with
//! each [turn](scheme::FileServer::turn) and chance from one seed, so that a network of many such
//! machines runs in virtual time and replays bit for bit.

#![forbid(unsafe_code)]

pub mod bpf;
pub mod ifnet;
pub mod link;
pub mod net;
pub mod netcfg;
pub mod netisr;
pub mod packet;
pub mod route;
pub mod serve;
pub mod socket;
pub mod stack;
pub mod tun;

pub use net::{Config, Net};
pub use serve::Services;

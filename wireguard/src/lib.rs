//! WireGuard over tund's tun device: what the program `tun-wireguard` is made of.
//!
//! From the bottom up:
//!
//! - [`key`] and [`config`]: keys, and the file that describes a tunnel, as wg-quick reads it;
//! - [`allowed`]: whose an address is;
//! - [`tunnel`]: the protocol with all peers. It reads no clock and no descriptor: time, packets and
//!   datagrams are arguments, and what is to be sent goes to an [`tunnel::Outbox`];
//! - [`inner`] and [`outer`]: the tun device, and the UDP that carries the tunnel;
//! - [`setup`] and [`dns`]: addresses, routes and the name server, and how they are put back;
//! - [`state`]: what a running tunnel tells, and `show` prints;
//! - [`run`]: one thread with one wait that moves packets between the two.

pub mod allowed;
pub mod config;
pub mod dns;
pub mod inner;
pub mod key;
pub mod outer;
pub mod run;
pub mod setup;
pub mod state;
pub mod tunnel;

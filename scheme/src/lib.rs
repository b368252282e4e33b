//! File servers, and the three ways to call one.
//!
//! On Redox a driver is a program that serves a *scheme*: a tree of paths that other programs open,
//! read, write and poll. This crate defines the interface of such a program, and knows nothing of
//! networks.
//!
//! - [`server`]: the contract. A [`FileServer`] answers requests, and returns [`Outcome::Wait`]
//!   when it cannot yet. It has no clock, no descriptor and no thread.
//! - [`dispatch`]: the parts that every front needs around a server: access modes, the queues of
//!   requests that wait ([`wait`]), and exactly one answer for each.
//! - [`drivers`]: what a server exchanges bytes with, beside its clients.
//! - [`readiness`]: the watchers of files, for edge-triggered events.
//! - Three *fronts* call a server, and only they depend on a system:
//!   [`local`] (same process, any number of threads, and virtual time),
//!   `fuse` (real files on Linux) and `redox` (real schemes on Redox).
//! - [`restart`]: when a daemon that ended is started again, and with what.
//! - [`errno`]: error numbers.

#![deny(unsafe_code)]

pub mod dispatch;
pub mod drivers;
pub mod errno;
pub mod local;
pub mod readiness;
pub mod restart;
pub mod server;
mod table;
pub mod wait;

#[cfg(target_os = "linux")]
pub mod fuse;
#[cfg(any(target_os = "redox", feature = "redox-dispatch"))]
pub mod redox;

pub use drivers::Drivers;
pub use errno::Errno;
pub use server::{
    Argument, Caller, DirEntry, FileId, FileKind, FileServer, Now, OpenFlags, Outcome, Pid,
    Processes, Ready, Signal, SignalTarget, Stat, Turn, Wakeup, earlier,
};

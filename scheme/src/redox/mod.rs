//! The adapter for Redox: each top directory of the tree is a scheme.
//!
//! - [`face`]: requests as redox-scheme decodes them, answered by a
//!   [`FileServer`](crate::FileServer). Builds on any system, to be tested with hand-made requests.
//! - `serve`: threads, sockets, timer, adapters, and the order of things.
//! - `supervise`: the parent that starts a daemon again.
//! - `system`: processes, clocks and signals.

pub mod face;
#[cfg(target_os = "redox")]
mod serve;
#[cfg(target_os = "redox")]
mod supervise;
#[cfg(target_os = "redox")]
#[allow(unsafe_code)]
mod system;

#[cfg(target_os = "redox")]
pub use serve::{Adapters, serve};
#[cfg(target_os = "redox")]
pub use supervise::supervise;
#[cfg(target_os = "redox")]
pub use system::{Namespace, RedoxProcesses, now};

//! The Redox front: each top directory of the tree is a scheme.
//!
//! - [`front`]: requests as redox-scheme decodes them, answered by a
//!   [`FileServer`](crate::FileServer). It builds on any system, to be tested with hand-made
//!   requests.
//! - [`processes`]: what is known of clients' processes. It builds on any system, too.
//! - `serve`: threads, sockets, timer and drivers, and the order of their work.
//! - `supervise`: the parent that starts a daemon again.
//! - `system`: processes, clocks and signals.

pub mod front;
pub mod processes;
#[cfg(target_os = "redox")]
mod serve;
#[cfg(target_os = "redox")]
mod supervise;
#[cfg(target_os = "redox")]
#[allow(unsafe_code)]
mod system;

#[cfg(target_os = "redox")]
pub use serve::{DriverWork, serve};
#[cfg(target_os = "redox")]
pub use supervise::{Worker, supervise};
#[cfg(target_os = "redox")]
pub use system::{Namespace, now};

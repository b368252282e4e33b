//! The FUSE front, for Linux: the tree as real files, through `/dev/fuse`.
//!
//! The protocol is spoken directly, because a tun device needs three things at once that no FUSE
//! crate carries: ioctl, poll, and interrupt, with replies kept for later. The structures are those
//! of `polyfuse-kernel`; requests are served in the order in which the kernel hands them out, so
//! that a close that came before an open is served before it.
//!
//! - `mount`: mounting, taking the place of a mount whose daemon died, unmounting.
//! - `session`: the loop, and what each request of the kernel asks for.
//! - `transfer`: a read or write that may wait.
//! - `listings`: the entries of open directories.
//! - `nodes`: the numbers that the kernel knows paths by.
//! - `drivers`: the wake-ups of drivers.
//! - `message`: what is read from and written to `/dev/fuse`.
//! - `processes`: what `/proc` tells of clients, and signals.

mod drivers;
mod listings;
mod message;
mod mount;
mod nodes;
mod processes;
mod session;
mod transfer;

pub use drivers::DriverWork;
pub use mount::Mount;
pub use processes::{LinuxProcesses, stop_signals};
pub use session::serve;

/// Most bytes of one read or write.
const MAX_OPERATION: usize = 1 << 20;

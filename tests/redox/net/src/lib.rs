//! The parts that the two programs share. They use the network as any program does, through std,
//! and know nothing of the daemon that serves it: the same runs on netstack and on tund.
//!
//! - [`apart`]: each piece of work in a process of its own, with a limit;
//! - [`place`]: the interfaces to test over, [`mirror`]: a tun peer that reflects,
//!   [`lease`]: Ethernet;
//! - [`pattern`]: bytes that are checked, [`pair`]: connections, [`poll`]: readiness;
//! - [`usage`]: the cost of the daemon.

#[cfg(not(target_os = "redox"))]
compile_error!("these programs run on Redox: build for x86_64-unknown-redox");

pub mod apart;
pub mod lease;
pub mod mirror;
pub mod pair;
pub mod pattern;
pub mod place;
pub mod poll;
pub mod usage;

use std::io::Write;

/// Prints a line in one write, so that no other output comes in between.
pub fn say(line: &str) {
    let line = format!("{}\n", line.replace('\n', " | "));
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(line.as_bytes());
    let _ = out.flush();
}

/// Prints a measured value.
pub fn tell(name: &str, value: f64) {
    match value {
        value if value >= 100.0 => say(&format!("redox-net {name} {value:.0}")),
        value => say(&format!("redox-net {name} {value:.3}")),
    }
}

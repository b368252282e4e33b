//! The speed of the network over 127.0.0.1, and over Ethernet, on any daemon that serves it.
//!
//! ```text
//! net-measure            everything
//! net-measure NAME...    these
//! ```
//!
//! Prints `redox-net NAME VALUE`. Each measurement is a process of its own that is stopped when it
//! takes too long: then its line says so.

mod connect;
mod ethernet;
mod latency;
mod rate;
mod tunnel;

use std::process::ExitCode;
use std::time::Duration;

use redox_net::apart::{self, End};
use redox_net::{lease, say, tell, usage};

/// A measurement; it prints its lines itself.
#[derive(Clone, Copy)]
struct Measure {
    name: &'static str,
    body: fn(&str),
}

const ALL: [Measure; 19] = [
    Measure {
        name: "tcp_bulk_4k_mb_per_s",
        body: |name| rate::bulk(name, 4 << 10, 8 << 20),
    },
    Measure {
        name: "tcp_bulk_64k_mb_per_s",
        body: |name| rate::bulk(name, 64 << 10, 16 << 20),
    },
    Measure {
        name: "tcp_bulk_1000_mb_per_s",
        body: |name| rate::bulk(name, 1000, 2 << 20),
    },
    Measure {
        name: "tcp_both_ways_mb_per_s",
        body: |name| rate::both_ways(name, 16 << 10, 4 << 20),
    },
    Measure {
        name: "tcp_request_response_us",
        body: latency::stream,
    },
    Measure {
        name: "udp_request_response_us",
        body: latency::datagram,
    },
    Measure {
        name: "operation_us",
        body: latency::operation,
    },
    Measure {
        name: "udp_64_per_s",
        body: |name| rate::flood(name, 64),
    },
    Measure {
        name: "udp_1400_per_s",
        body: |name| rate::flood(name, 1400),
    },
    Measure {
        name: "udp_64_paced_per_s",
        body: |name| rate::paced(name, 64),
    },
    Measure {
        name: "udp_1400_paced_per_s",
        body: |name| rate::paced(name, 1400),
    },
    Measure {
        name: "udp_1400_batch_per_s",
        body: |name| rate::batch(name, 1400),
    },
    Measure {
        name: "connect_close_per_s",
        body: connect::connect_close,
    },
    Measure {
        name: "connect_500_s",
        body: connect::hold,
    },
    Measure {
        name: "tun_ping_us",
        body: tunnel::ping,
    },
    Measure {
        name: "eth_echo_300_kb_ms",
        body: |name| ethernet::echo(name, 300_000),
    },
    Measure {
        name: "eth_echo_1_mb_ms",
        body: |name| ethernet::echo(name, 1_000_000),
    },
    Measure {
        name: "eth_download_4_mb_ms",
        body: |name| ethernet::download(name, 4_000_000),
    },
    Measure {
        name: "idle_cpu_ms_in_5_s",
        body: idle,
    },
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if let ["--one", wanted] = args[..] {
        if let Some(measure) = ALL.iter().find(|measure| measure.name == wanted) {
            (measure.body)(measure.name);
        }
        return ExitCode::SUCCESS;
    }
    // dhcpd is at work after a start, and would disturb the measurements.
    let _ = lease::wait(Duration::from_secs(10));
    for Measure { name, .. } in ALL {
        if !args.is_empty() && !args.contains(&name) {
            continue;
        }
        let before = usage::daemon();
        match apart::run(&["--one", name], Duration::from_secs(40)) {
            End::Code(0) => {}
            End::Code(code) => say(&format!("redox-net {name} failed with {code}")),
            End::Other(why) => say(&format!("redox-net {name} failed: {why}")),
        }
        if let (Some(before), Some(after)) = (before, usage::daemon()) {
            tell(&format!("{name}:daemon_cpu_s"), after.time - before.time);
        }
    }
    ExitCode::SUCCESS
}

/// The cost of the daemon when no program uses it.
fn idle(name: &str) {
    let before = usage::daemon();
    std::thread::sleep(Duration::from_secs(5));
    if let (Some(before), Some(after)) = (before, usage::daemon()) {
        tell(name, (after.time - before.time) * 1000.0);
        tell("daemon_memory_mb", after.memory as f64 / f64::from(1 << 20));
    }
}

//! The first Ethernet adapter, as dhcpd sets it up.

use std::fs;
use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

/// The address of `eth0`, once it has one.
pub fn wait(limit: Duration) -> Option<Ipv4Addr> {
    let start = Instant::now();
    loop {
        let text = fs::read_to_string("/scheme/netcfg/ifaces/eth0/addr/list").unwrap_or_default();
        let addresses = text.lines().filter_map(|line| line.split('/').next());
        let found = addresses
            .filter_map(|addr| addr.parse::<Ipv4Addr>().ok())
            .find(|addr| !addr.is_unspecified());
        if found.is_some() || start.elapsed() > limit {
            return found;
        }
        thread::sleep(Duration::from_millis(100));
    }
}

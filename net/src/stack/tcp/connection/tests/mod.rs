//! Tests of the connection: by scripts of packets, over an emulated link, and by chance.

mod chance;
mod link;
mod recovery;
mod rfc9293;
mod script;
mod table;

use core::time::Duration;

use super::*;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn config(local_port: u16, remote_port: u16) -> Config {
    Config {
        local_port,
        remote_port,
        v6: false,
        mtu: 1500,
        send_buffer: Buffer::Auto(LARGEST),
        receive_buffer: Buffer::Auto(LARGEST),
        rx_ring: None,
        no_delay: false,
        keep_alive: false,
        clock: 1_000_000,
    }
}

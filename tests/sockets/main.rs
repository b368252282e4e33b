//! Sockets, called as relibc's socket layer calls them, through the local front over `lo0`.
#![allow(missing_docs)]

#[path = "../common/mod.rs"]
mod common;

mod batch;
mod datagram;
mod groups;
mod ioctl;
mod multicast;
mod names;
mod options;
mod stream;
mod waiting;

use std::sync::Arc;

use common::libc::{BOTH, Libc};
use common::system::machine;
use net::{Host, Services};
use scheme::local::{Fd, Local, ManualClock};
use scheme::{Caller, Pid};

fn system() -> Arc<Local<Host>> {
    Local::new(common::system::host(3, Services::ECHO))
}

/// A machine without a front, and a caller that is root.
fn host() -> (Host, Caller) {
    let root = Caller {
        pid: Pid(1),
        uid: 0,
    };
    (common::system::host(3, Services::empty()), root)
}

/// The system with a clock that is set by hand.
fn system_by_hand() -> (Arc<Local<Host>>, Arc<ManualClock>) {
    machine(3, Services::empty())
}

/// Tunnel `tun0` with address 10.1.0.1/24, with nonblocking reads.
fn tunnel(libc: &Libc) -> Fd {
    common::program::tunnel(&libc.0, 0, "10.1.0.1/24")
}

/// The same with IPv6 as well: each packet is preceded by its family.
fn tunnel_with_head(libc: &Libc) -> Fd {
    const TUNSIFHEAD: u32 = 0x8004_7460;

    let tun = tunnel(libc);
    libc.0.ioctl(tun, TUNSIFHEAD, &mut [1, 0, 0, 0]).unwrap();
    set(libc, "ifaces/tun0/addr/add", "fd00::1/64\n");
    tun
}

fn set(libc: &Libc, path: &str, line: &str) {
    let written = common::program::set(&libc.0, path, line);
    assert_eq!(written, Ok(line.len()));
}

/// The packets that left by a tunnel.
fn sent(libc: &Libc, tun: Fd) -> Vec<Vec<u8>> {
    let mut buf = vec![0; 70_000];
    let next = || {
        libc.0
            .read(tun, &mut buf)
            .ok()
            .map(|len| buf[..len].to_vec())
    };
    std::iter::from_fn(next).collect()
}

/// The hop limits of the packets that left by a tunnel, with or without a family in front.
fn hops(libc: &Libc, tun: Fd) -> Vec<u8> {
    let hops = |packet: &Vec<u8>| match packet[..] {
        [0, 0, 0, _, ref packet @ ..] if packet[0] >> 4 == 6 => packet[7],
        [0, 0, 0, _, ref packet @ ..] => packet[8],
        ref packet => packet[8],
    };
    sent(libc, tun).iter().map(hops).collect()
}

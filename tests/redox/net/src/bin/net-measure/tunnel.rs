//! Through a tun device, where there is one.

use std::fs::OpenOptions;
use std::io::{Read, Write};

use redox_net::mirror;
use redox_net::place::On;

use crate::latency::report;

/// An echo request through the tunnel, which comes back as a request, and its answer. Nothing is
/// printed where there is no tun driver.
pub(crate) fn ping(name: &str) {
    if On::Tun.prepare().is_err() {
        return;
    }
    let path = format!("/scheme/icmp/echo/{}", mirror::PEER);
    let socket = OpenOptions::new().read(true).write(true).open(path);
    let mut socket = socket.expect("icmp");
    let mut answer = [0; 100];
    report(name, || {
        socket.write_all(&[0; 58]).expect("request");
        let len = socket.read(&mut answer).expect("answer");
        assert_eq!(len, 58);
    });
}

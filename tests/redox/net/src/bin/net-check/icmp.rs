//! Echo requests through `/scheme/icmp`.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::IpAddr;
use std::time::Duration;

use redox_net::pattern;
use redox_net::place::Place;
use redox_net::poll;

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    Test::both("ping", ping),
    Test::both("ping_large", ping_large),
];

const SOON: Duration = Duration::from_secs(5);

fn open(to: IpAddr) -> File {
    let path = format!("/scheme/icmp/echo/{to}");
    let socket = OpenOptions::new().read(true).write(true).open(&path);
    socket.unwrap_or_else(|error| panic!("open {path}: {error}"))
}

/// Sends echo requests with `size` bytes of data; each must have its answer.
pub(crate) fn answered(to: impl Into<IpAddr>, size: usize) {
    let mut socket = open(to.into());
    let mut answer = vec![0; 65_536];
    for sequence in 1..=3_u16 {
        let mut request = sequence.to_be_bytes().to_vec();
        request.extend_from_slice(pattern::at(0, size));
        socket.write_all(&request).expect("request");
        assert!(poll::readable(&socket, SOON), "no answer to {sequence}");
        let len = socket.read(&mut answer).expect("answer");
        assert_eq!(answer[..len], request);
    }
}

fn ping(place: &Place) {
    answered(place.target, 56);
}

fn ping_large(place: &Place) {
    answered(place.target, 8000);
}

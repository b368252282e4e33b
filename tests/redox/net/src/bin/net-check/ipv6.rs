//! IPv6, which is only reachable by paths: relibc has no AF_INET6.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::Duration;

use redox_net::place::Place;
use redox_net::poll;

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    Test::lo("ipv6_stream", ipv6_stream),
    Test::lo("ipv6_datagram", ipv6_datagram),
    Test::lo("ipv6_ping", ipv6_ping),
];

const SOON: Duration = Duration::from_secs(3);

unsafe extern "C" {
    fn redox_dup_v1(fd: usize, verb: *const u8, len: usize) -> usize;
}

fn open(path: &str) -> File {
    let file = OpenOptions::new().read(true).write(true).open(path);
    file.unwrap_or_else(|error| panic!("open {path}: {error}"))
}

/// A dup of an open file with a verb.
fn dup(file: &File, verb: &str) -> io::Result<File> {
    // A descriptor is never negative.
    let fd = file.as_raw_fd() as usize;
    // SAFETY: the verb is readable for the length given.
    let made = unsafe { redox_dup_v1(fd, verb.as_ptr(), verb.len()) };
    match made as isize {
        error @ ..0 => Err(io::Error::from_raw_os_error(-error as i32)),
        // SAFETY: the descriptor is new, and ours.
        made => Ok(unsafe { File::from_raw_fd(made as i32) }),
    }
}

fn ipv6_stream(_place: &Place) {
    let listener = open("/scheme/tcp//[::1]:4711");
    let mut client = open("/scheme/tcp/[::1]:4711");
    let mut server = dup(&listener, "listen").expect("accept");
    client.write_all(b"six").expect("write");
    let mut seen = [0; 3];
    server.read_exact(&mut seen).expect("read");
    assert_eq!(&seen, b"six");
    drop(client);
    assert_eq!(server.read(&mut seen).expect("read"), 0);
}

fn ipv6_datagram(_place: &Place) {
    let mut server = open("/scheme/udp//[::1]:4712");
    let mut client = open("/scheme/udp/[::1]:4712");
    client.write_all(b"six").expect("send");
    assert!(poll::readable(&server, SOON), "nothing arrives");
    let mut seen = [0; 100];
    let len = server.read(&mut seen).expect("receive");
    assert_eq!(&seen[..len], b"six");
}

fn ipv6_ping(_place: &Place) {
    let mut socket = open("/scheme/icmp/echo/::1");
    socket.write_all(b"\0\x01data").expect("request");
    assert!(poll::readable(&socket, SOON), "no answer");
    let mut answer = [0; 100];
    let len = socket.read(&mut answer).expect("answer");
    assert_eq!(&answer[..len], b"\0\x01data");
}

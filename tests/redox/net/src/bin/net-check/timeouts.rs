//! Timeouts: neither at once nor never.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use redox_net::pair::{connected, datagrams};
use redox_net::place::Place;

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    Test::lo("stream_read_timeout", stream_read_timeout),
    Test::lo("stream_write_timeout", stream_write_timeout),
    Test::lo("timeouts_not_swapped", timeouts_not_swapped),
    Test::lo("timeout_removed", timeout_removed),
    Test::lo("timeout_told", timeout_told),
    Test::lo("datagram_read_timeout", datagram_read_timeout),
    Test::lo("connect_timeout", connect_timeout),
    Test::lo("connect_timeout_refused", connect_timeout_refused),
];

const TIMEOUT: Duration = Duration::from_millis(300);

/// Fails unless `wait` ends with a timeout, in time.
fn expires(wait: impl FnOnce() -> io::Result<usize>) {
    let start = Instant::now();
    let error = wait().expect_err("no timeout");
    let kinds = [ErrorKind::TimedOut, ErrorKind::WouldBlock];
    assert!(kinds.contains(&error.kind()), "{error}");
    let took = start.elapsed();
    assert!(
        (TIMEOUT * 9 / 10..TIMEOUT * 5).contains(&took),
        "after {took:?}"
    );
}

fn stream_read_timeout(place: &Place) {
    let (mut client, mut server) = connected(place);
    client.set_read_timeout(Some(TIMEOUT)).expect("set");
    expires(|| client.read(&mut [0]));
    // The connection still works.
    server.write_all(b"x").expect("write");
    let mut byte = [0];
    client.read_exact(&mut byte).expect("read");
    assert_eq!(&byte, b"x");
    expires(|| client.read(&mut [0]));
}

fn stream_write_timeout(place: &Place) {
    let (mut client, _server) = connected(place);
    client.set_write_timeout(Some(TIMEOUT)).expect("set");
    // Write until the buffer is full: then the next write waits.
    let block = vec![0; 16 << 10];
    let mut last = Instant::now();
    for _ in 0..1000 {
        last = Instant::now();
        if let Err(error) = client.write(&block) {
            let kinds = [ErrorKind::TimedOut, ErrorKind::WouldBlock];
            assert!(kinds.contains(&error.kind()), "{error}");
            let took = last.elapsed();
            assert!(
                (TIMEOUT * 9 / 10..TIMEOUT * 5).contains(&took),
                "after {took:?}"
            );
            return;
        }
    }
    panic!("16 MB were taken, the last within {:?}", last.elapsed());
}

fn timeouts_not_swapped(place: &Place) {
    let (client, server) = connected(place);
    client.set_write_timeout(Some(TIMEOUT / 3)).expect("set");
    waits(client, server);
}

fn timeout_removed(place: &Place) {
    let (client, server) = connected(place);
    client.set_read_timeout(Some(TIMEOUT / 3)).expect("set");
    client.set_read_timeout(None).expect("removed");
    waits(client, server);
}

/// Fails unless a read waits until data comes, longer than a timeout would allow.
fn waits(mut client: TcpStream, mut server: TcpStream) {
    let late = thread::spawn(move || {
        thread::sleep(TIMEOUT * 2);
        server.write_all(b"late").map(|()| server)
    });
    let mut answer = [0; 4];
    client.read_exact(&mut answer).expect("read");
    assert_eq!(&answer, b"late");
    late.join().expect("server").expect("write");
}

fn timeout_told(place: &Place) {
    let (client, _server) = connected(place);
    client.set_read_timeout(Some(TIMEOUT)).expect("set");
    assert_eq!(client.read_timeout().expect("get"), Some(TIMEOUT));
    assert_eq!(client.write_timeout().expect("get"), None);
}

fn datagram_read_timeout(place: &Place) {
    let (client, server) = datagrams(place);
    client.set_read_timeout(Some(TIMEOUT)).expect("set");
    expires(|| client.recv(&mut [0; 100]));
    server.set_read_timeout(Some(TIMEOUT)).expect("set");
    expires(|| server.recv_from(&mut [0; 100]).map(|(len, _)| len));
    client.send(b"now").expect("send");
    let (len, _) = server.recv_from(&mut [0; 100]).expect("receive");
    assert_eq!(len, 3);
}

fn connect_timeout(place: &Place) {
    let (listener, port) = redox_net::pair::listener(place);
    let limit = Duration::from_secs(5);
    let at = place.at(port).into();
    let mut client = TcpStream::connect_timeout(&at, limit).expect("connect");
    let (mut server, _) = listener.accept().expect("accept");
    client.write_all(b"here").expect("write");
    let mut seen = [0; 4];
    server.read_exact(&mut seen).expect("read");
    assert_eq!(&seen, b"here");
}

fn connect_timeout_refused(place: &Place) {
    let (closed, port) = redox_net::pair::listener(place);
    drop(closed);
    let at = place.at(port).into();
    let refused = TcpStream::connect_timeout(&at, Duration::from_secs(5));
    let error = refused.expect_err("connected to nobody");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
}

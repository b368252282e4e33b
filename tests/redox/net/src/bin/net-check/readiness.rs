//! Nonblocking sockets and poll.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use redox_net::pair::{connected, datagrams, listener};
use redox_net::place::Place;
use redox_net::poll;

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    Test::both("poll_listener", poll_listener),
    Test::lo("poll_stream", poll_stream),
    Test::lo("poll_datagram", poll_datagram),
    Test::lo("poll_wakes", poll_wakes),
    Test::both("nonblocking_connect", nonblocking_connect),
    Test::lo("nonblocking_refused", nonblocking_refused),
    Test::lo("nonblocking_accept", nonblocking_accept),
    Test::lo("nonblocking_stream", nonblocking_stream),
];

const SOON: Duration = Duration::from_secs(3);
const AT_ONCE: Duration = Duration::from_millis(150);

fn poll_listener(place: &Place) {
    let (listener, port) = listener(place);
    assert!(!poll::readable(&listener, AT_ONCE), "an idle listener");
    let _first = TcpStream::connect(place.at(port)).expect("connect");
    let _second = TcpStream::connect(place.at(port)).expect("connect");
    for _ in 0..2 {
        assert!(poll::readable(&listener, SOON), "a connection waits");
        listener.accept().expect("accept");
    }
    assert!(!poll::readable(&listener, AT_ONCE), "nothing is left");
}

fn poll_stream(place: &Place) {
    let (mut client, mut server) = connected(place);
    assert!(poll::writable(&client, SOON), "there is room");
    assert!(!poll::readable(&server, AT_ONCE), "nothing to read");
    client.write_all(b"x").expect("write");
    assert!(poll::readable(&server, SOON), "a byte");
    server.read_exact(&mut [0]).expect("read");
    assert!(!poll::readable(&server, AT_ONCE), "it was read");
    drop(client);
    assert!(poll::readable(&server, SOON), "the end");
    assert_eq!(server.read(&mut [0]).expect("read"), 0);
}

fn poll_datagram(place: &Place) {
    let (client, server) = datagrams(place);
    assert!(!poll::readable(&server, AT_ONCE), "nothing to read");
    assert!(poll::writable(&client, SOON), "there is room");
    client.send(b"x").expect("send");
    assert!(poll::readable(&server, SOON), "a datagram");
    server.recv_from(&mut [0; 100]).expect("receive");
    assert!(!poll::readable(&server, AT_ONCE), "it was read");
}

fn poll_wakes(place: &Place) {
    let (mut client, server) = connected(place);
    let start = Instant::now();
    let writer = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        client.write_all(b"x").map(|()| client)
    });
    assert!(poll::readable(&server, SOON), "no wake-up");
    let took = start.elapsed();
    assert!(took < Duration::from_millis(1500), "after {took:?}");
    writer.join().expect("writer").expect("write");
}

fn nonblocking_connect(place: &Place) {
    let (listener, port) = listener(place);
    let socket = poll::stream_socket(true).expect("socket");
    if let Err(error) = poll::connect(&socket, place.at(port)) {
        assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS), "{error}");
    }
    assert!(poll::writable(&socket, SOON), "never connected");
    let mut client = TcpStream::from(socket);
    let (mut server, _) = listener.accept().expect("accept");
    client.write_all(b"here").expect("write");
    let mut seen = [0; 4];
    server.read_exact(&mut seen).expect("read");
    assert_eq!(&seen, b"here");
}

fn nonblocking_refused(place: &Place) {
    let (closed, port) = listener(place);
    drop(closed);
    let socket = poll::stream_socket(true).expect("socket");
    let refused = match poll::connect(&socket, place.at(port)) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
            assert!(poll::writable(&socket, SOON), "never told");
            let read = TcpStream::from(socket).read(&mut [0]);
            read.expect_err("read from nobody")
        }
        done => done.expect_err("connected to nobody"),
    };
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
}

fn nonblocking_accept(place: &Place) {
    let (listener, port) = listener(place);
    listener.set_nonblocking(true).expect("set");
    let error = listener.accept().expect_err("accepted nobody");
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
    let _client = TcpStream::connect(place.at(port)).expect("connect");
    assert!(poll::readable(&listener, SOON), "a connection waits");
    listener.accept().expect("accept");
}

fn nonblocking_stream(place: &Place) {
    let (mut client, mut server) = connected(place);
    for end in [&client, &server] {
        end.set_nonblocking(true).expect("set");
    }
    let error = server.read(&mut [0]).expect_err("read nothing");
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
    let block = vec![7; 16 << 10];
    let mut sent = 0;
    let error = loop {
        match client.write(&block) {
            Ok(len) => sent += len,
            Err(error) => break error,
        }
        assert!(sent < 64 << 20, "it takes everything");
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
    let mut buffer = vec![0; 64 << 10];
    let mut received = 0;
    while received < sent {
        assert!(poll::readable(&server, SOON), "{received} of {sent}");
        received += server.read(&mut buffer).expect("read");
    }
    assert_eq!(received, sent);
    assert!(poll::writable(&client, SOON), "room again");
}

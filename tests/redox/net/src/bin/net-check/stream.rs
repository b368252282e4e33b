//! Streams: nothing is lost, and ends and refusals are reported.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use redox_net::pair::{connected, listener};
use redox_net::pattern;
use redox_net::place::Place;
use redox_net::poll;

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    Test::both("drop_sends_fin", drop_sends_fin),
    Test::every("drop_loses_nothing", drop_loses_nothing),
    Test::both("closed_port_refused", closed_port_refused),
    Test::both("simultaneous_connects", simultaneous_connects),
    Test::lo("connects_before_accept", connects_before_accept),
    Test::both("names", names),
    Test::lo("peek_stream", peek_stream),
    Test::both("half_close", half_close),
    Test::lo("write_after_shutdown", write_after_shutdown),
    Test::lo("unread_data_resets", unread_data_resets),
    Test::every("transfer_one_way", transfer_one_way),
    Test::every("transfer_both_ways", transfer_both_ways),
    Test::lo("transfer_odd_sizes", transfer_odd_sizes),
    Test::lo("port_in_use", port_in_use),
    Test::lo("listener_again_at_once", listener_again_at_once),
    Test::lo("same_ports_server_waits", same_ports_server_waits),
    Test::lo("same_ports_client_waits", same_ports_client_waits),
];

fn drop_sends_fin(place: &Place) {
    let (client, mut server) = connected(place);
    drop(client);
    let mut byte = [0];
    assert_eq!(server.read(&mut byte).expect("read"), 0);
}

fn drop_loses_nothing(place: &Place) {
    const TOTAL: usize = 200_000;
    let (client, server) = connected(place);
    // More than fits into buffers, so that there is still data to send when it is dropped.
    let sender = thread::spawn(move || pattern::send(client, TOTAL, TOTAL));
    thread::sleep(Duration::from_millis(200));
    let received = pattern::receive(server, TOTAL + 1, 16 << 10).expect("receive");
    assert_eq!(received, TOTAL);
    sender.join().expect("sender").expect("send");
}

fn closed_port_refused(place: &Place) {
    // The port that this listener had is free again.
    let (closed, port) = listener(place);
    drop(closed);
    let error = TcpStream::connect(place.at(port)).expect_err("connected to nobody");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
}

fn simultaneous_connects(place: &Place) {
    const CLIENTS: u8 = 12;
    let (listener, port) = listener(place);
    let at = place.at(port);
    let client = |number| {
        move || {
            let mut stream = TcpStream::connect(at).expect("connect");
            stream.write_all(&[number]).expect("write");
            let mut answer = [0];
            stream.read_exact(&mut answer).expect("read");
            assert_eq!(answer, [!number]);
        }
    };
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| thread::spawn(client(number)))
        .collect();
    let mut seen = Vec::new();
    for _ in 0..CLIENTS {
        let (mut stream, _) = listener.accept().expect("accept");
        let mut number = [0];
        stream.read_exact(&mut number).expect("read");
        stream.write_all(&[!number[0]]).expect("write");
        seen.push(number[0]);
    }
    for client in clients {
        client.join().expect("client");
    }
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..CLIENTS));
}

fn connects_before_accept(place: &Place) {
    const CLIENTS: u8 = 100;
    let (listener, port) = listener(place);
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|_| TcpStream::connect(place.at(port)).expect("connect"))
        .collect();
    for (client, number) in clients.iter_mut().zip(0..) {
        client.write_all(&[number]).expect("write");
    }
    let mut seen: Vec<u8> = (0..CLIENTS)
        .map(|_| {
            let (mut stream, _) = listener.accept().expect("accept");
            let mut number = [0];
            stream.read_exact(&mut number).expect("read");
            number[0]
        })
        .collect();
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..CLIENTS));
}

fn names(place: &Place) {
    let (listener, port) = listener(place);
    let client = TcpStream::connect(place.at(port)).expect("connect");
    let (server, from) = listener.accept().expect("accept");
    assert_eq!(client.peer_addr().expect("peer"), place.at(port).into());
    assert_eq!(server.peer_addr().expect("peer"), from);
    assert_eq!(from.port(), client.local_addr().expect("local").port());
    assert_eq!(server.local_addr().expect("local").port(), port);
}

fn peek_stream(place: &Place) {
    let (mut client, mut server) = connected(place);
    client.write_all(b"peeked").expect("write");
    let mut seen = [0; 4];
    assert_eq!(server.peek(&mut seen).expect("peek"), 4);
    assert_eq!(&seen, b"peek");
    assert_eq!(server.peek(&mut seen).expect("peek again"), 4);
    let mut whole = [0; 6];
    server.read_exact(&mut whole).expect("read");
    assert_eq!(&whole, b"peeked");
}

fn half_close(place: &Place) {
    const TOTAL: usize = 100_000;
    let (client, server) = connected(place);
    client.shutdown(Shutdown::Write).expect("shutdown");
    assert_eq!((&server).read(&mut [0]).expect("read"), 0);
    let sender = thread::spawn(move || pattern::send(server, TOTAL, 4096));
    let received = pattern::receive(&client, TOTAL + 1, 4096).expect("receive");
    assert_eq!(received, TOTAL);
    sender.join().expect("sender").expect("send");
}

fn write_after_shutdown(place: &Place) {
    let (mut client, _server) = connected(place);
    client.shutdown(Shutdown::Write).expect("shutdown");
    let error = client.write(&[1]).expect_err("written");
    assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
}

fn unread_data_resets(place: &Place) {
    let (mut client, server) = connected(place);
    client.write_all(&[1; 100]).expect("write");
    assert!(poll::readable(&server, Duration::from_secs(5)));
    drop(server);
    let error = client.read(&mut [0]).expect_err("no reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
}

fn transfer_one_way(place: &Place) {
    let total = place.bearable(4 << 20);
    let (client, server) = connected(place);
    let sender = thread::spawn(move || pattern::send(client, total, 64 << 10));
    let received = pattern::receive(server, total + 1, 64 << 10).expect("receive");
    assert_eq!(received, total);
    sender.join().expect("sender").expect("send");
}

fn transfer_both_ways(place: &Place) {
    let total = place.bearable(2 << 20);
    let (client, server) = connected(place);
    let ends = [client, server].map(|end| {
        let copy = end.try_clone().expect("clone");
        let sender = thread::spawn(move || pattern::send(copy, total, 16 << 10));
        let receiver = thread::spawn(move || pattern::receive(end, total, 16 << 10));
        (sender, receiver)
    });
    for (sender, receiver) in ends {
        sender.join().expect("sender").expect("send");
        let received = receiver.join().expect("receiver").expect("receive");
        assert_eq!(received, total);
    }
}

fn transfer_odd_sizes(place: &Place) {
    const TOTAL: usize = 1_000_003;
    let (client, server) = connected(place);
    let sender = thread::spawn(move || {
        let (mut position, mut size) = (0, 1);
        while position < TOTAL {
            let part = pattern::at(position, size.min(TOTAL - position));
            (&client).write_all(part)?;
            position += part.len();
            size = size * 5 % 9973 + 1;
        }
        std::io::Result::Ok(())
    });
    let received = pattern::receive(server, TOTAL + 1, 3001).expect("receive");
    assert_eq!(received, TOTAL);
    sender.join().expect("sender").expect("send");
}

fn port_in_use(place: &Place) {
    let (_listener, port) = listener(place);
    let again = TcpListener::bind(SocketAddrV4::new(place.bind, port));
    let error = again.expect_err("bound twice");
    assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}");
}

fn listener_again_at_once(place: &Place) {
    let (first, port) = listener(place);
    let client = TcpStream::connect(place.at(port)).expect("connect");
    let (server, _) = first.accept().expect("accept");
    // The server closes first, so that its end is in TIME-WAIT.
    drop(server);
    drop(client);
    drop(first);
    let second = TcpListener::bind(SocketAddrV4::new(place.bind, port)).expect("bind again");
    let _client = TcpStream::connect(place.at(port)).expect("connect again");
    second.accept().expect("accept again");
}

/// Connects the same pair of ports again right after it was closed: by the server, if
/// `server_first`.
fn again(place: &Place, server_first: bool) {
    let (listener, port) = listener(place);
    let (other, own) = redox_net::pair::listener(place);
    drop(other);
    for _ in 0..3 {
        let socket = poll::stream_socket(false).expect("socket");
        poll::bind(&socket, SocketAddrV4::new(place.bind, own)).expect("bind");
        poll::connect(&socket, place.at(port)).expect("connect");
        let client = TcpStream::from(socket);
        let (server, from) = listener.accept().expect("accept");
        assert_eq!(from.port(), own);
        // The end that closes first waits in TIME-WAIT.
        let (first, mut second) = match server_first {
            true => (server, client),
            false => (client, server),
        };
        drop(first);
        assert_eq!(second.read(&mut [0]).expect("read"), 0);
        drop(second);
        thread::sleep(Duration::from_millis(100));
    }
}

fn same_ports_server_waits(place: &Place) {
    again(place, true);
}

fn same_ports_client_waits(place: &Place) {
    again(place, false);
}

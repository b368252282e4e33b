//! Datagrams: delivered whole or not at all, and from the named sender.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::Duration;

use redox_net::pair::{batch, datagram, datagrams};
use redox_net::pattern;
use redox_net::place::Place;
use redox_net::poll;

use tun::udp::{Datagrams, Outgoing};

use crate::{Test, skip};

pub(crate) const TESTS: &[Test] = &[
    Test::both("datagram_sizes", datagram_sizes),
    Test::lo("datagram_refused", datagram_refused),
    Test::lo("datagram_too_long", datagram_too_long),
    Test::both("datagram_answer", datagram_answer),
    Test::lo("datagram_filter", datagram_filter),
    Test::lo("datagrams_stay_apart", datagrams_stay_apart),
    Test::lo("peek_datagram", peek_datagram),
    Test::lo("datagram_port_in_use", datagram_port_in_use),
    Test::both("datagram_batch", datagram_batch),
];

/// Tests that crash netstack.
pub(crate) const LAST: &[Test] = &[Test::lo("short_buffer", short_buffer)];

/// The time limit of a datagram.
const SOON: Duration = Duration::from_secs(3);

fn datagram_sizes(place: &Place) {
    let (client, server) = datagrams(place);
    let mut buffer = vec![0; 70_000];
    for size in [
        1, 64, 1458, 1459, 1472, 1473, 2000, 4096, 8192, 9000, 16_384, 32_768, 65_000, 65_507,
    ] {
        let sent = pattern::at(0, size);
        assert_eq!(client.send(sent).expect("send"), size);
        assert!(poll::readable(&server, SOON), "{size} bytes do not arrive");
        let (len, _) = server.recv_from(&mut buffer).expect("receive");
        assert_eq!(len, size);
        assert_eq!(pattern::difference(0, &buffer[..len]), None, "of {size}");
    }
}

fn datagram_too_long(place: &Place) {
    let (client, _server) = datagrams(place);
    let error = client.send(pattern::at(0, 65_508)).expect_err("sent");
    assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE), "{error}");
}

/// A connected socket learns that there is no socket at the other end.
fn datagram_refused(place: &Place) {
    let (closed, port) = datagram(place);
    drop(closed);
    let client = UdpSocket::bind("0.0.0.0:0").expect("bind");
    client.connect(place.at(port)).expect("connect");
    client.send(b"anybody").expect("send");
    client.set_read_timeout(Some(SOON)).expect("set");
    let error = client.recv(&mut [0; 100]).expect_err("received");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
}

fn datagram_answer(place: &Place) {
    let (server, port) = datagram(place);
    let client = UdpSocket::bind("0.0.0.0:0").expect("bind");
    client.send_to(b"question", place.at(port)).expect("send");
    let mut buffer = [0; 2000];
    assert!(poll::readable(&server, SOON), "no question");
    let (len, from) = server.recv_from(&mut buffer).expect("receive");
    assert_eq!(&buffer[..len], b"question");
    assert_eq!(from.port(), client.local_addr().expect("local").port());
    server.send_to(b"answer", from).expect("answer");
    assert!(poll::readable(&client, SOON), "no answer");
    let (len, from) = client.recv_from(&mut buffer).expect("receive");
    assert_eq!(&buffer[..len], b"answer");
    assert_eq!(from, place.at(port).into());
}

fn datagram_filter(place: &Place) {
    let (client, server) = datagrams(place);
    let (stranger, _) = datagram(place);
    let own = client.local_addr().expect("local").port();
    stranger.send_to(b"stranger", place.at(own)).expect("send");
    server.send_to(b"peer", place.at(own)).expect("send");
    assert!(poll::readable(&client, SOON));
    let mut buffer = [0; 2000];
    let len = client.recv(&mut buffer).expect("receive");
    assert_eq!(&buffer[..len], b"peer");
}

fn datagrams_stay_apart(place: &Place) {
    let (client, server) = datagrams(place);
    for size in [10, 20, 30] {
        client.send(pattern::at(size, size)).expect("send");
    }
    let mut buffer = [0; 2000];
    for size in [10, 20, 30] {
        assert!(poll::readable(&server, SOON));
        let (len, _) = server.recv_from(&mut buffer).expect("receive");
        assert_eq!(len, size);
        assert_eq!(pattern::difference(size, &buffer[..len]), None);
    }
}

fn peek_datagram(place: &Place) {
    let (client, server) = datagrams(place);
    client.send(b"peeked").expect("send");
    assert!(poll::readable(&server, SOON));
    let mut buffer = [0; 2000];
    let (len, _) = server.peek_from(&mut buffer).expect("peek");
    assert_eq!(&buffer[..len], b"peeked");
    assert!(poll::readable(&server, SOON), "it is gone");
    let (len, _) = server.recv_from(&mut buffer).expect("receive");
    assert_eq!(&buffer[..len], b"peeked");
}

fn datagram_port_in_use(place: &Place) {
    let (_socket, port) = datagram(place);
    let error = UdpSocket::bind((place.bind, port)).expect_err("bound twice");
    assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}");
}

/// Many datagrams in one operation, between sockets that have that and with one that has not.
fn datagram_batch(place: &Place) {
    const SIZES: [usize; 8] = [0, 1, 3, 64, 1400, 1473, 9000, 65_507];
    let (Some((client, client_port)), Some((server, port))) = (batch(place), batch(place)) else {
        skip("this daemon has no batches of datagrams");
    };
    let mut outgoing = Outgoing::default();
    for size in SIZES {
        let data = pattern::at(0, size);
        outgoing.push(data, place.at(port).into()).expect("room");
    }
    client.send(&mut outgoing).expect("send");
    let mut datagrams = Datagrams::default();
    let mut sizes = Vec::new();
    while sizes.len() < SIZES.len() {
        assert!(poll::readable(&server, SOON), "{sizes:?} and no more");
        for (from, data) in server.recv(&mut datagrams).expect("receive") {
            assert_eq!(from.port(), client_port);
            assert_eq!(pattern::difference(0, data), None);
            sizes.push(data.len());
        }
    }
    assert_eq!(sizes, SIZES);
    // What carries a tunnel stays out of it; this is no tunnel's name.
    client.set_bypass(Some("tun77")).expect("TUNSBYPASS");
    // The other end need not know of batches.
    let (plain, plain_port) = datagram(place);
    let to = place.at(plain_port).into();
    for _ in 0..3 {
        outgoing.push(b"question", to).expect("room");
    }
    client.send(&mut outgoing).expect("send");
    let mut buffer = [0; 100];
    for _ in 0..3 {
        assert!(poll::readable(&plain, SOON), "no question");
        let (len, from) = plain.recv_from(&mut buffer).expect("receive");
        assert_eq!(
            (&buffer[..len], from.port()),
            (&b"question"[..], client_port)
        );
        plain.send_to(b"answer", from).expect("answer");
    }
    let mut answers = 0;
    while answers < 3 {
        assert!(poll::readable(&client, SOON), "no answer");
        let received = client.recv(&mut datagrams).expect("receive");
        answers += received.filter(|(_, data)| **data == *b"answer").count();
    }
}

fn short_buffer(place: &Place) {
    let (client, server) = datagrams(place);
    client.send(pattern::at(0, 1000)).expect("send");
    client.send(b"next").expect("send");
    assert!(poll::readable(&server, SOON));
    let mut short = [0; 10];
    let (len, _) = server.recv_from(&mut short).expect("a short receive");
    assert_eq!(len, 10);
    assert_eq!(pattern::difference(0, &short), None);
    assert!(poll::readable(&server, SOON));
    let mut buffer = [0; 2000];
    let (len, _) = server.recv_from(&mut buffer).expect("receive");
    assert_eq!(&buffer[..len], b"next");
    // Other sockets are not affected.
    datagrams(place);
    redox_net::pair::connected(place);
}

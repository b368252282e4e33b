//! Tests over the emulated adapter, with the services of QEMU's user network.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use redox_net::pattern;
use redox_net::place::{ECHO, Place};
use redox_net::poll;

use crate::{Test, adapters, icmp, skip};

pub(crate) const TESTS: &[Test] = &[
    Test::eth("lease", lease),
    Test::eth("ping_gateway", ping_gateway),
    Test::eth("stream_echo", stream_echo),
    Test::eth("several_streams", several_streams),
    Test::eth("datagrams", datagrams),
    Test::eth("own_address", own_address),
    Test::eth("ipv6_by_itself", ipv6_by_itself),
];

/// QEMU's gateway, which is also its TFTP server.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// Its other address.
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 2);
/// The file that the runner puts into the TFTP server: the numbers from 1, one a line.
const FILE: &str = "numbers";
const FILE_LEN: usize = 100_000;

fn lease(place: &Place) {
    assert_eq!(place.target.octets()[..3], [10, 0, 2]);
}

fn ping_gateway(_place: &Place) {
    icmp::answered(GATEWAY, 56);
    icmp::answered(GATEWAY, 1400);
}

fn echoed(total: usize) {
    let stream = TcpStream::connect(ECHO).expect("connect");
    let copy = stream.try_clone().expect("clone");
    let sender = thread::spawn(move || pattern::send(copy, total, 16 << 10));
    let received = pattern::receive(&stream, total, 16 << 10).expect("receive");
    assert_eq!(received, total);
    sender.join().expect("sender").expect("send");
    stream.shutdown(Shutdown::Write).expect("shutdown");
    let rest = pattern::receive(&stream, 1, 1).expect("the end");
    assert_eq!(rest, 0);
}

fn stream_echo(_place: &Place) {
    echoed(1 << 20);
}

fn several_streams(_place: &Place) {
    let streams: Vec<_> = (0..5).map(|_| thread::spawn(|| echoed(100_000))).collect();
    for stream in streams {
        stream.join().expect("stream");
    }
}

/// Fetches a file by TFTP (RFC 1350): one datagram with 512 bytes of data for each of ours.
fn datagrams(_place: &Place) {
    const DATA: u16 = 3;
    let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
    let request = format!("\0\x01{FILE}\0octet\0");
    socket
        .send_to(request.as_bytes(), (GATEWAY, 69))
        .expect("request");
    let mut expected = String::new();
    for number in 1.. {
        expected.push_str(&format!("{number}\n"));
        if expected.len() >= FILE_LEN {
            break;
        }
    }
    let mut buffer = [0; 2000];
    let (mut position, mut block) = (0, 1_u16);
    loop {
        assert!(
            poll::readable(&socket, Duration::from_secs(5)),
            "block {block} is lost"
        );
        let (len, from) = socket.recv_from(&mut buffer).expect("receive");
        let (head, data) = buffer[..len].split_at(4);
        assert_eq!(head[..2], DATA.to_be_bytes(), "{data:?}");
        assert_eq!(head[2..], block.to_be_bytes());
        let end = (position + data.len()).min(FILE_LEN);
        assert!(data == &expected.as_bytes()[position..end], "block {block}");
        position += data.len();
        let [high, low] = block.to_be_bytes();
        socket.send_to(&[0, 4, high, low], from).expect("ack");
        block += 1;
        if data.len() < 512 {
            break;
        }
    }
    assert_eq!(position, FILE_LEN);
}

/// QEMU's router advertises the network: no program sets an address or a route for it.
fn ipv6_by_itself(_place: &Place) {
    let list = "/scheme/netcfg/ifaces/eth0/addr/list";
    let Ok(mut addresses) = fs::read_to_string(list) else {
        skip("one address an interface: not tund");
    };
    if adapters::program().as_deref() == Some("e1000d") {
        skip("e1000d hands on no multicast; NIC=rtl8139");
    }
    let start = Instant::now();
    while !addresses.contains("\nfec0::") {
        assert!(start.elapsed() < Duration::from_secs(20), "{addresses}");
        thread::sleep(Duration::from_millis(100));
        addresses = fs::read_to_string(list).expect("addresses");
    }
    let routes = fs::read_to_string("/scheme/netcfg/route/list").expect("routes");
    assert!(routes.contains("default via fe80::"), "{routes}");
    icmp::answered(GATEWAY_V6, 56);
    icmp::answered(GATEWAY_V6, 1400);
}

/// Packets to the adapter's own address never leave the host.
fn own_address(place: &Place) {
    let (client, server) = redox_net::pair::connected(place);
    let sender = thread::spawn(move || pattern::send(client, 100_000, 4096));
    let received = pattern::receive(server, 100_000, 4096).expect("receive");
    assert_eq!(received, 100_000);
    sender.join().expect("sender").expect("send");
    icmp::answered(place.target, 56);
}

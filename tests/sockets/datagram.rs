//! UDP: whole datagrams, and their receivers.

use scheme::errno;

use crate::common::libc::{IP, IP_ADD_MEMBERSHIP, Libc, mreq};
use crate::common::packet::{checksum, ipv4, udp};
use crate::{BOTH, sent, system, tunnel};

#[test]
fn datagrams_whole_short_and_peeked() {
    let system = system();
    let libc = Libc::new(&system);
    let server = libc.bind(libc.socket("udp"), "127.0.0.1:0").unwrap();
    let server_name = libc.sockname(server);
    let client = libc.connect(libc.socket("udp"), &server_name).unwrap();
    for size in [0, 1, 1458, 1459, 20_000, 65_507] {
        let data: Vec<u8> = (0..size).map(|at| at as u8).collect();
        assert_eq!(libc.0.write(client, &data), Ok(size));
        let (peeker, len, peeked) = libc.recvmsg(server, 70_000, 2).unwrap();
        let (sender, again, read) = libc.recvmsg(server, 70_000, 0).unwrap();
        assert_eq!((len, &peeked), (size, &data));
        assert_eq!((again, &read), (size, &data));
        assert_eq!(peeker, sender);
        assert_eq!(sender, format!("/scheme/udp/{}", libc.sockname(client)));
    }
    assert_eq!(libc.0.write(client, &vec![0; 65_508]), Err(errno::EMSGSIZE));
    // A short buffer loses the rest, and the full length is returned.
    libc.0.write(client, &[5; 100]).unwrap();
    let (_, len, data) = libc.recvmsg(server, 10, 0).unwrap();
    assert_eq!((len, data.len()), (100, 10));
    libc.0.write(client, &[5; 100]).unwrap();
    assert_eq!(libc.0.read(server, &mut [0; 10]), Ok(10));
    assert_eq!(libc.recvmsg(server, 10, 64), Err(errno::EAGAIN));
    assert_eq!(libc.0.write(server, b"x"), Err(errno::EDESTADDRREQ));
}

#[test]
fn sendto_is_a_copy_that_filters_nothing() {
    let system = system();
    let libc = Libc::new(&system);
    let server = libc.bind(libc.socket("udp"), "127.0.0.1:0").unwrap();
    let other = libc.bind(libc.socket("udp"), "127.0.0.1:0").unwrap();
    let client = libc.socket("udp");
    let copy = libc
        .0
        .dup_verb(client, libc.sockname(server).as_bytes())
        .unwrap();
    libc.0.write(copy, b"question").unwrap();
    libc.0.close(copy).unwrap();
    // The socket has a port now, and receives from any sender.
    let name = libc.sockname(client);
    let port = name.rsplit(':').next().unwrap();
    for from in [server, other] {
        let copy = libc
            .0
            .dup_verb(from, format!("127.0.0.1:{port}").as_bytes())
            .unwrap();
        libc.0.write(copy, b"answer").unwrap();
        libc.0.close(copy).unwrap();
        let (sender, _, data) = libc.recvmsg(client, 100, 0).unwrap();
        assert_eq!(data, b"answer");
        assert_eq!(sender, format!("/scheme/udp/{}", libc.sockname(from)));
    }
    // Once connected, it receives only from its peer.
    let client = libc.connect(client, &libc.sockname(server)).unwrap();
    let copy = libc
        .0
        .dup_verb(other, libc.sockname(client).as_bytes())
        .unwrap();
    libc.0.write(copy, b"intruder").unwrap();
    assert_eq!(libc.recvmsg(client, 100, 64), Err(errno::EAGAIN));
}

#[test]
fn a_socket_has_so_many_files() {
    let system = system();
    let libc = Libc::new(&system);
    let server = libc.bind(libc.socket("udp"), "127.0.0.1:0").unwrap();
    let copy = || libc.0.dup_verb(server, b"127.0.0.1:9");
    let copies: Vec<_> = (1..1024).map(|_| copy().unwrap()).collect();
    assert_eq!(copy(), Err(errno::ENFILE));
    // It can still do all it could, and another copy once one is closed.
    let client = libc.connect(libc.socket("udp"), &libc.sockname(server));
    libc.0.write(client.unwrap(), b"all").unwrap();
    assert_eq!(libc.recvmsg(server, 10, 64).unwrap().2, b"all");
    libc.0.close(copies[0]).unwrap();
    assert!(copy().is_ok());
}

#[test]
fn a_datagram_to_nobody_is_told_to_who_is_connected() {
    let system = system();
    let libc = Libc::new(&system);
    let client = libc.connect(libc.socket("udp"), "127.0.0.1:4").unwrap();
    libc.0.write(client, b"x").unwrap();
    assert_eq!(libc.0.read(client, &mut [0; 10]), Err(errno::ECONNREFUSED));
}

#[test]
fn an_error_is_told_after_the_data_that_came_before_it() {
    let system = system();
    let libc = Libc::new(&system);
    let tun = tunnel(&libc);
    let fd = libc.0.open("udp/10.1.0.2:9/0.0.0.0:5000", BOTH).unwrap();
    libc.0.set_nonblocking(fd, true).unwrap();
    libc.0.write(fd, b"question").unwrap();
    let question = sent(&libc, tun).remove(0);
    for data in [&b"one"[..], b"two"] {
        let answer = udp(("10.1.0.2", 9), ("10.1.0.1", 5000), data);
        libc.0.write(tun, &answer).unwrap();
    }
    // Port unreachable.
    let mut message = vec![3, 3, 0, 0, 0, 0, 0, 0];
    message.extend(&question[..28]);
    let sum = checksum(&[&message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let [here, there] = [[10, 1, 0, 1], [10, 1, 0, 2]].map(Into::into);
    libc.0.write(tun, &ipv4(there, here, 1, &message)).unwrap();
    let mut buf = [0; 8];
    assert_eq!(libc.recvmsg(fd, 8, 2).unwrap().2, b"one");
    assert_eq!(libc.0.read(fd, &mut buf), Ok(3));
    assert_eq!(libc.recvmsg(fd, 8, 0).unwrap().2, b"two");
    assert_eq!(libc.0.read(fd, &mut buf), Err(errno::ECONNREFUSED));
    assert_eq!(libc.0.read(fd, &mut buf), Err(errno::EAGAIN));
}

#[test]
fn what_is_for_many_is_not_for_sockets_of_other_addresses() {
    const DONTWAIT: u64 = 64;

    let libc = Libc::new(&system());
    let tun = tunnel(&libc);
    let bound = |name| libc.bind(libc.socket("udp"), name).unwrap();
    let (lo, own) = (bound("127.0.0.1:5000"), bound("10.1.0.1:5000"));
    let [one, other] = ["239.1.1.1:5000", "239.2.2.2:5000"].map(bound);
    libc.set_option_at(IP, one, IP_ADD_MEMBERSHIP, &mreq([239, 1, 1, 1], [0; 4]))
        .unwrap();
    for to in ["224.0.0.1", "239.1.1.1"] {
        let datagram = udp(("10.1.0.2", 9), (to, 5000), b"many");
        libc.0.write(tun, &datagram).unwrap();
    }
    assert_eq!(libc.recvmsg(one, 10, DONTWAIT).unwrap().2, b"many");
    for fd in [lo, own, one, other] {
        assert_eq!(libc.recvmsg(fd, 10, DONTWAIT), Err(errno::EAGAIN));
    }
}

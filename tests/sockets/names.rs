//! Names, addresses and ports: which socket is bound and connected to what.

use std::time::Duration;

use scheme::Ready;
use scheme::errno;
use scheme::local::Fd;

use crate::common::libc::Libc;
use crate::common::packet::udp;
use crate::{BOTH, sent, set, system, tunnel, tunnel_with_head};

#[test]
fn names_of_both_ends() {
    let system = system();
    let libc = Libc::new(&system);
    let fresh = libc.socket("tcp");
    assert_eq!(
        libc.0.path(fresh).unwrap(),
        "/scheme/tcp/0.0.0.0:0/0.0.0.0:0"
    );
    let (listener, port) = libc.listener("0.0.0.0");
    assert_eq!(
        libc.0.path(listener).unwrap(),
        format!("/scheme/tcp/0.0.0.0:0/0.0.0.0:{port}")
    );
    let client = libc.connect(fresh, &format!("127.0.0.1:{port}")).unwrap();
    let server = libc.accept(listener).unwrap();
    let client_name = libc.sockname(client);
    assert_eq!(
        libc.0.path(server).unwrap(),
        format!("/scheme/tcp/{client_name}/127.0.0.1:{port}")
    );
    assert_eq!(libc.peername(server).unwrap(), libc.0.path(server).unwrap());
    assert_eq!(libc.peername(listener), Err(errno::ENOTCONN));
    // Verbs that relibc sends by accident.
    assert_eq!(libc.0.dup_verb(client, b"termios"), Err(errno::EINVAL));
}

#[test]
fn ipv6_by_path() {
    let system = system();
    let libc = Libc::new(&system);
    let fd = libc.connect(libc.socket("tcp"), "[::1]:7").unwrap();
    libc.write_all(fd, b"six");
    let mut buf = [0; 10];
    assert_eq!(libc.0.read(fd, &mut buf), Ok(3));
    assert!(
        libc.0
            .path(fd)
            .unwrap()
            .starts_with("/scheme/tcp/[::1]:7/[::1]:")
    );
}

#[test]
fn the_peer_of_a_nonblocking_connect_has_a_name() {
    let system = system();
    let libc = Libc::new(&system);
    let (listener, port) = libc.listener("127.0.0.1");
    let fd = libc.socket("tcp");
    libc.0.set_nonblocking(fd, true).unwrap();
    let begun = libc.0.dup_verb(fd, format!("127.0.0.1:{port}").as_bytes());
    assert_eq!(begun, Err(errno::EINPROGRESS));
    let ready = libc
        .0
        .poll(&[(fd, Ready::WRITE)], Some(Duration::from_secs(10)));
    assert_eq!(ready, Ok(vec![Ready::WRITE]));
    assert!(
        libc.peername(fd)
            .unwrap()
            .contains(&format!("127.0.0.1:{port}"))
    );
    libc.accept(listener).unwrap();
}

#[test]
fn ports_are_guarded_and_taken_once() {
    let system = system();
    let user = Libc(system.process(2, 1000));
    let fd = user.0.open("/scheme/tcp", BOTH).unwrap();
    assert_eq!(user.0.dup_verb(fd, b"/0.0.0.0:1024"), Err(errno::EACCES));
    assert_eq!(
        user.0.dup_verb(fd, b"/10.1.2.3:2000"),
        Err(errno::EADDRNOTAVAIL)
    );
    let bound = user.0.dup_verb(fd, b"/0.0.0.0:2000").unwrap();
    assert_eq!(
        user.0.dup_verb(fd, b"/0.0.0.0:2000"),
        Err(errno::EADDRINUSE)
    );
    user.0.close(bound).unwrap();
    assert!(user.0.dup_verb(fd, b"/0.0.0.0:2000").is_ok());
}

#[test]
fn a_listener_of_all_addresses_has_its_port_alone() {
    let system = system();
    let process = system.process(2, 1000);
    let fd = process.open("/scheme/tcp", BOTH).unwrap();
    let listen = |local: &str| process.dup_verb(fd, format!("/{local}:2000").as_bytes());
    let all = listen("0.0.0.0").unwrap();
    assert_eq!(listen("127.0.0.1"), Err(errno::EADDRINUSE));
    process.close(all).unwrap();
    let some = ["127.0.0.1", "[::1]"].map(|local| listen(local).unwrap());
    assert_eq!(listen("127.0.0.1"), Err(errno::EADDRINUSE));
    for (one, all) in some.into_iter().zip(["0.0.0.0", "[::]"]) {
        assert_eq!(listen(all), Err(errno::EADDRINUSE));
        process.close(one).unwrap();
        assert!(listen(all).is_ok());
    }
}

#[test]
fn a_stream_is_not_bound_to_a_group() {
    let system = system();
    let libc = Libc::new(&system);
    let bound = libc.0.dup_verb(libc.socket("tcp"), b"/239.1.2.3:5000");
    assert_eq!(bound, Err(errno::EADDRNOTAVAIL));
    libc.bind(libc.socket("udp"), "239.1.2.3:5000").unwrap();
}

#[test]
fn a_connect_that_fails_leaves_every_listener_alone() {
    let system = system();
    let libc = Libc::new(&system);
    let bound = libc.bind(libc.socket("tcp"), "127.0.0.1:5000").unwrap();
    let unreachable = libc.0.dup_verb(bound, b"10.9.9.9:80");
    assert_eq!(unreachable, Err(errno::ENETUNREACH));
    let other = libc.bind(libc.socket("tcp"), "127.0.0.1:5001").unwrap();
    let client = libc.connect(libc.socket("tcp"), "127.0.0.1:5001").unwrap();
    libc.0.set_nonblocking(bound, true).unwrap();
    assert_eq!(libc.accept(bound), Err(errno::EAGAIN));
    libc.0.close(bound).unwrap();
    let server = libc.accept(other).unwrap();
    assert_eq!(libc.0.write(client, b"still here"), Ok(10));
    assert_eq!(libc.0.read(server, &mut [0; 16]), Ok(10));
}

#[test]
fn a_host_connects_to_itself_from_every_port_but_the_listeners_own() {
    let system = system();
    let libc = Libc::new(&system);
    let (listener, port) = libc.listener("127.0.0.1");
    let name = format!("127.0.0.1:{port}");
    let clients: Vec<Fd> = (49_152..65_535)
        .map(|_| {
            let client = libc.connect(libc.socket("tcp"), &name).unwrap();
            let server = libc.accept(listener).unwrap();
            libc.write_all(client, b"x");
            assert_eq!(libc.0.read(server, &mut [0; 8]), Ok(1));
            client
        })
        .collect();
    let one_more = libc.connect(libc.socket("tcp"), &name);
    assert_eq!(one_more, Err(errno::EADDRNOTAVAIL));
    assert_eq!(clients.len(), 16_383);
}

#[test]
fn a_setting_does_not_outlive_its_socket() {
    let system = system();
    let (alice, bob) = (system.process(10, 1000), system.process(20, 0));
    let socket = alice.open("/scheme/udp", BOTH).unwrap();
    let setting = alice.dup_verb(socket, b"read_timeout").unwrap();
    alice.close(socket).unwrap();
    // It gets the number that has become free.
    bob.open("/scheme/udp", BOTH).unwrap();
    assert_eq!(alice.write(setting, &[1; 16]), Err(errno::EBADF));
    assert_eq!(alice.read(setting, &mut [0; 16]), Err(errno::EBADF));
}

#[test]
fn all_addresses_are_those_of_one_family() {
    let system = system();
    let libc = Libc::new(&system);
    // Streams: each family has a listener of its own on the port.
    let open = |path: &str| libc.0.open(path, BOTH);
    let v4 = open("tcp//0.0.0.0:5000").unwrap();
    assert_eq!(
        open("tcp/[::1]:5000").and_then(connected(&libc)),
        Err(errno::ECONNREFUSED)
    );
    let v6 = open("tcp//[::]:5000").unwrap();
    for taken in [
        "tcp//0.0.0.0:5000",
        "tcp//[::]:5000",
        "tcp//[::1]:5000",
        "tcp//127.0.0.1:5000",
    ] {
        assert_eq!(open(taken), Err(errno::EADDRINUSE), "{taken}");
    }
    for (listener, own) in [(v4, "127.0.0.1"), (v6, "[::1]")] {
        libc.0.set_nonblocking(listener, true).unwrap();
        libc.connect(libc.socket("tcp"), &format!("{own}:5000"))
            .unwrap();
        let accepted = libc.accept(listener).unwrap();
        assert!(
            libc.peername(accepted)
                .unwrap()
                .contains(&format!("/tcp/{own}:"))
        );
        assert_eq!(libc.accept(listener), Err(errno::EAGAIN), "the other's");
    }
    // Datagrams likewise; and each answers in its own family only.
    let v4 = open("udp//0.0.0.0:5000").unwrap();
    let v6 = open("udp//[::]:5000").unwrap();
    assert_eq!(open("udp//[::1]:5000"), Err(errno::EADDRINUSE));
    for (receiver, own) in [(v4, "127.0.0.1"), (v6, "[::1]")] {
        libc.0.set_nonblocking(receiver, true).unwrap();
        let sender = open(&format!("udp/{own}:5000")).unwrap();
        libc.0.write(sender, own.as_bytes()).unwrap();
        let (name, _, data) = libc.recvmsg(receiver, 64, 0).unwrap();
        assert!(name.contains(own) && data == own.as_bytes());
    }
    let other = libc.0.dup_verb(v4, b"[::1]:5000");
    assert_eq!(other, Err(errno::EADDRNOTAVAIL));
    let other = open("udp/127.0.0.1:5000/[::]:0");
    assert_eq!(other, Err(errno::EADDRNOTAVAIL));
    let other = open("tcp/[::1]:7/0.0.0.0:0");
    assert_eq!(other, Err(errno::EADDRNOTAVAIL));
}

/// Waits until a connection stands, or says why not.
fn connected(libc: &Libc) -> impl Fn(Fd) -> Result<Fd, errno::Errno> {
    |fd| libc.0.read(fd, &mut [0; 1]).map(|_| fd)
}

#[test]
fn a_mapped_address_is_the_ipv4_address() {
    let system = system();
    let libc = Libc::new(&system);
    let tun = tunnel_with_head(&libc);
    set(&libc, "route/add", "default via fd00::2\n");
    let paths = [
        "udp/[::ffff:10.1.0.2]:53",
        "tcp/[::ffff:10.1.0.2]:53",
        "icmp/echo/::ffff:10.1.0.2",
    ];
    for path in paths {
        let fd = libc.0.open(path, BOTH).unwrap();
        if !path.starts_with("tcp") {
            libc.0.write(fd, b"to IPv4").unwrap();
        }
        system.pump();
        let packets = sent(&libc, tun);
        assert_eq!(packets.len(), 1, "{path}");
        assert_eq!(packets[0][20..24], [10, 1, 0, 2], "{path}");
        assert!(libc.0.path(fd).unwrap().contains("/10.1.0.2"), "{path}");
    }
    // Where it is nobody's, as one of ours is.
    let fd = libc.bind(libc.socket("udp"), "[::ffff:10.1.0.1]:5000");
    assert_eq!(libc.sockname(fd.unwrap()), "10.1.0.1:5000");
}

#[test]
fn nobody_has_port_zero() {
    let system = system();
    let libc = Libc::new(&system);
    let tun = tunnel(&libc);
    for path in [
        "udp/10.1.0.2:0",
        "tcp/10.1.0.2:0",
        "udp/127.0.0.1:0",
        "udp/10.1.0.2:0/0.0.0.0:5000",
    ] {
        assert_eq!(libc.0.open(path, BOTH), Err(errno::EADDRNOTAVAIL), "{path}");
    }
    let bound = libc.bind(libc.socket("udp"), "0.0.0.0:5000").unwrap();
    let to = libc.0.dup_verb(bound, b"10.1.0.2:0");
    assert_eq!(to, Err(errno::EADDRNOTAVAIL));
    assert!(sent(&libc, tun).is_empty());
}

#[test]
fn a_stream_is_not_connected_to_many() {
    let system = system();
    let libc = Libc::new(&system);
    let tun = tunnel(&libc);
    for many in ["10.1.0.255", "255.255.255.255", "240.0.0.1"] {
        let fd = libc.0.open(&format!("tcp/{many}:80"), BOTH);
        assert_eq!(fd, Err(errno::ENETUNREACH), "{many}");
    }
    assert!(sent(&libc, tun).is_empty());
}

#[test]
fn sources_that_must_not_leave() {
    let system = system();
    let libc = Libc::new(&system);
    let tun = tunnel_with_head(&libc);
    set(&libc, "ifaces/tun0/addr/add", "10.7.0.1/24\n");
    let away = |transport: &str, remote: &str, local: &str| {
        let open = libc.0.open(&format!("{transport}/{remote}/{local}"), BOTH);
        open.and_then(|fd| libc.0.write(fd, b"x"))
    };
    for transport in ["udp", "tcp"] {
        let v4 = away(transport, "10.1.0.2:9", "127.0.0.1:0");
        let v6 = away(transport, "[fd00::2]:9", "[::1]:0");
        assert_eq!(
            (v4, v6),
            (Err(errno::EADDRNOTAVAIL), Err(errno::EADDRNOTAVAIL))
        );
    }
    let open = |path: &str| libc.0.open(path, BOTH).unwrap();
    let fd = open("udp/10.1.0.2:9/10.7.0.1:5000");
    assert_eq!(libc.0.write(fd, b"x"), Ok(1));
    let stream = open("tcp/10.1.0.2:9/10.7.0.1:5000");
    system.pump();
    assert_eq!(sent(&libc, tun).len(), 2);
    // The address goes: the sockets that are bound to it send nothing more.
    set(&libc, "ifaces/tun0/addr/rm", "10.7.0.1/24\n");
    assert_eq!(libc.0.write(fd, b"x"), Err(errno::EADDRNOTAVAIL));
    libc.0.close(stream).unwrap();
    system.pump();
    assert!(sent(&libc, tun).is_empty());
    set(&libc, "ifaces/tun0/addr/add", "10.7.0.1/24\n");
    assert_eq!(libc.0.write(fd, b"x"), Ok(1));
}

#[test]
fn datagrams_for_all_come_to_who_is_bound_to_the_broadcast_address() {
    let system = system();
    let libc = Libc::new(&system);
    let tun = tunnel(&libc);
    let fd = libc.bind(libc.socket("udp"), "10.1.0.255:5000").unwrap();
    let everybody = libc
        .bind(libc.socket("udp"), "255.255.255.255:5000")
        .unwrap();
    let stream = libc.0.dup_verb(libc.socket("tcp"), b"/10.1.0.255:5000");
    assert_eq!(stream, Err(errno::EADDRNOTAVAIL));
    for (receiver, to) in [(fd, "10.1.0.255"), (everybody, "255.255.255.255")] {
        libc.0.set_nonblocking(receiver, true).unwrap();
        for dst in ["10.1.0.1", to] {
            let datagram = udp(("10.1.0.2", 9), (dst, 5000), to.as_bytes());
            libc.0.write(tun, &datagram).unwrap();
        }
        assert_eq!(libc.recvmsg(receiver, 64, 0).unwrap().2, to.as_bytes());
        assert_eq!(libc.recvmsg(receiver, 64, 0), Err(errno::EAGAIN));
    }
    // Its answers come from an address of one host.
    sent(&libc, tun);
    let to = libc.0.dup_verb(fd, b"10.1.0.2:9").unwrap();
    libc.0.write(to, b"x").unwrap();
    assert_eq!(sent(&libc, tun)[0][12..16], [10, 1, 0, 1]);
}

//! Operations that wait, their time limits, and operations that do not wait.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use net::Host;
use scheme::errno;
use scheme::{Argument, FileServer, Now, OpenFlags, Outcome, Ready};

use crate::common::libc::Libc;
use crate::common::packet::{checksum, ipv4};
use crate::{BOTH, host, system, tunnel};

const TUNSIFHEAD: u32 = 0x8004_7460;

#[test]
fn connecting_without_waiting() {
    let system = system();
    let libc = Libc::new(&system);
    let (listener, port) = libc.listener("127.0.0.1");
    let fd = libc.socket("tcp");
    libc.0.set_nonblocking(fd, true).unwrap();
    let name = format!("127.0.0.1:{port}");
    assert_eq!(
        libc.0.dup_verb(fd, name.as_bytes()),
        Err(errno::EINPROGRESS)
    );
    let ready = libc
        .0
        .poll(&[(fd, Ready::WRITE)], Some(Duration::from_secs(10)))
        .unwrap();
    assert_eq!(ready, [Ready::WRITE]);
    libc.write_all(fd, b"x");
    let server = libc.accept(listener).unwrap();
    let mut buf = [0; 9];
    assert_eq!(libc.0.read(server, &mut buf), Ok(1));
    // What this host refuses is refused at once, and the socket can try again.
    let fd = libc.socket("tcp");
    libc.0.set_nonblocking(fd, true).unwrap();
    for name in ["127.0.0.1:4", "[::1]:4"] {
        let refused = libc.0.dup_verb(fd, name.as_bytes());
        assert_eq!(refused, Err(errno::ECONNREFUSED), "{name}");
    }
    let name = format!("127.0.0.1:{port}");
    let begun = libc.0.dup_verb(fd, name.as_bytes());
    assert_eq!(begun, Err(errno::EINPROGRESS));
    let other = libc.accept(listener).unwrap();
    libc.write_all(fd, b"y");
    assert_eq!(libc.0.read(other, &mut buf), Ok(1));
}

#[test]
fn only_who_connects_to_this_host_waits_for_its_answer() {
    let (mut net, root) = host();
    let tun = net.open("tun/0", BOTH, root).unwrap();
    let mut on = [1, 0, 0, 0];
    net.ioctl(tun, TUNSIFHEAD, Argument::new(&mut on), root)
        .unwrap();
    let add = net.open("netcfg/ifaces/tun0/addr/add", BOTH, root).unwrap();
    let text = b"10.1.0.1/24\nfd00::1/64\n";
    let written = net.write(add, text, 0, root);
    assert_eq!(written, Outcome::Done(Ok(text.len())));
    let _ = net.turn(Now::default());
    let segments = |net: &Host| net.interface("tun0").unwrap().stats.opackets;
    let mut connect = |name: &str| {
        let before = segments(&net);
        let socket = net.open("tcp", BOTH, root).unwrap();
        let made = net.dup(socket, name.as_bytes(), true, root);
        let at_once = segments(&net) - before;
        let _ = net.turn(Now::default());
        (made, at_once, segments(&net) - before)
    };
    for refused in [
        "127.0.0.1:4",
        "127.9.9.9:4",
        "[::1]:4",
        "10.1.0.1:4",
        "[fd00::1]:4",
    ] {
        let refused = connect(refused);
        assert_eq!(refused, (errno::ECONNREFUSED.into(), 0, 0));
    }
    // No turn is spent on the others: what they send leaves with the next one.
    for begun in ["10.1.0.2:4", "[fd00::2]:4"] {
        assert_eq!(connect(begun), (errno::EINPROGRESS.into(), 0, 1), "{begun}");
    }
}

#[test]
fn a_refusal_from_elsewhere_shows_as_readiness_and_once_as_the_error() {
    let system = system();
    let libc = Libc::new(&system);
    let tun = tunnel(&libc);
    let fd = libc.socket("tcp");
    libc.0.set_nonblocking(fd, true).unwrap();
    assert_eq!(libc.0.dup_verb(fd, b"10.1.0.2:4"), Err(errno::EINPROGRESS));
    let mut syn = [0; 1500];
    libc.0.read(tun, &mut syn).unwrap();
    let next = u32::from_be_bytes(syn[24..28].try_into().unwrap()) + 1;
    let mut reset = [&syn[22..24], &syn[20..22], &[0; 4]].concat();
    reset.extend_from_slice(&next.to_be_bytes());
    reset.extend_from_slice(&[0x50, 0x14, 0, 0, 0, 0, 0, 0]);
    let (src, dst) = ([10, 1, 0, 2], [10, 1, 0, 1]);
    let sum = checksum(&[&src, &dst, &[0, 6, 0, 20], &reset]);
    reset[16..18].copy_from_slice(&sum.to_be_bytes());
    let reset = ipv4(src.into(), dst.into(), 6, &reset);
    libc.0.write(tun, &reset).unwrap();
    let ready = libc
        .0
        .poll(&[(fd, Ready::all())], Some(Duration::from_secs(10)))
        .unwrap();
    assert_eq!(ready, [Ready::all()]);
    let mut buf = [0; 9];
    assert_eq!(libc.0.read(fd, &mut buf), Err(errno::ECONNREFUSED));
    assert_eq!(libc.0.read(fd, &mut buf), Ok(0));
}

#[test]
fn timeouts_are_for_their_own_direction() {
    let system = system();
    let libc = Libc::new(&system);
    let (client, server) = libc.pair();
    let mut buf = [0; 10];
    libc.set_timeout(client, "write_timeout", Duration::from_millis(1));
    libc.set_timeout(client, "read_timeout", Duration::from_millis(200));
    for _ in 0..2 {
        let start = Instant::now();
        assert_eq!(libc.0.read(client, &mut buf), Err(errno::ETIMEDOUT));
        assert!(
            start.elapsed() >= Duration::from_millis(200),
            "{:?}",
            start.elapsed()
        );
    }
    // An operation that is possible at once is not delayed.
    libc.write_all(client, b"x");
    libc.write_all(server, b"y");
    assert_eq!(libc.0.read(client, &mut buf), Ok(1));
    // Zero means no timeout.
    libc.set_timeout(client, "read_timeout", Duration::ZERO);
    let reader = {
        let libc = Arc::clone(&libc);
        thread::spawn(move || libc.0.read(client, &mut [0; 10]))
    };
    thread::sleep(Duration::from_millis(300));
    libc.write_all(server, b"z");
    assert_eq!(reader.join().unwrap(), Ok(1));
    // A datagram socket has timeouts as well.
    let udp = libc.bind(libc.socket("udp"), "127.0.0.1:0").unwrap();
    libc.set_timeout(udp, "read_timeout", Duration::from_millis(50));
    assert_eq!(libc.0.read(udp, &mut buf), Err(errno::ETIMEDOUT));
}

#[test]
fn each_waiting_read_has_its_own_timeout() {
    let system = system();
    let libc = Libc::new(&system);
    let fd = libc.bind(libc.socket("udp"), "127.0.0.1:4000").unwrap();
    libc.set_timeout(fd, "read_timeout", Duration::from_millis(300));
    // A nonblocking receive does not extend the time of the others; nor do they extend each
    // other's.
    let receives: Vec<_> = (0..4)
        .map(|_| {
            let libc = libc.clone();
            thread::spawn(move || {
                let start = Instant::now();
                let result = libc.0.read(fd, &mut [0; 16]);
                (result, start.elapsed())
            })
        })
        .collect();
    while !receives.iter().all(thread::JoinHandle::is_finished) {
        assert!(libc.recvmsg(fd, 16, 64).is_err());
        thread::sleep(Duration::from_millis(20));
    }
    for receive in receives {
        let (result, took) = receive.join().unwrap();
        assert_eq!(result, Err(errno::ETIMEDOUT));
        assert!(took >= Duration::from_millis(300), "{took:?}");
    }
}

#[test]
fn a_sendmsg_that_waits_does_not_hold_up_reads() {
    let system = system();
    let libc = Libc::new(&system);
    let (client, server) = libc.pair();
    // The server does not read: fill the buffers on the way to it.
    libc.0.set_nonblocking(client, true).unwrap();
    while libc.0.write(client, &[1; 65_536]).is_ok()
        || libc
            .0
            .poll(&[(client, Ready::WRITE)], Some(Duration::from_millis(300)))
            .unwrap()[0]
            == Ready::WRITE
    {}
    libc.0.set_nonblocking(client, false).unwrap();
    let sender = libc.clone();
    thread::spawn(move || {
        let mut payload = 30_000_u64.to_le_bytes().to_vec();
        payload.resize(8 + 30_000, 7);
        let _ = sender.0.sys_call(client, &mut payload, &[4, 0]);
    });
    while system.waiting() == 0 {
        thread::yield_now();
    }
    libc.0.write(server, b"hello").unwrap();
    let reader = libc.clone();
    let read = move || reader.0.read(client, &mut [0; 16]);
    assert_eq!(in_time(Duration::from_secs(10), read), Some(Ok(5)));
}

#[test]
fn a_read_of_no_bytes_does_not_wait() {
    let system = system();
    let libc = Libc::new(&system);
    let tun = crate::common::program::tunnel(&libc.0, 1, "10.2.0.1/24");
    libc.0.set_nonblocking(tun, false).unwrap();
    let (client, _server) = libc.pair();
    let udp = libc.bind(libc.socket("udp"), "127.0.0.1:5000").unwrap();
    for fd in [tun, client, udp] {
        let waiting = {
            let libc = Arc::clone(&libc);
            thread::spawn(move || libc.0.read(fd, &mut [0; 10]))
        };
        while system.waiting() == 0 {
            thread::yield_now();
        }
        assert_eq!(libc.0.read(fd, &mut []), Ok(0), "though another waits");
        libc.0.close(fd).unwrap();
        assert!(waiting.join().unwrap().is_err());
    }
    // Nor does it take a datagram.
    let udp = libc.bind(libc.socket("udp"), "127.0.0.1:5000").unwrap();
    let sender = libc.0.open("udp/127.0.0.1:5000", BOTH).unwrap();
    libc.0.write(sender, b"whole").unwrap();
    assert_eq!(libc.0.read(udp, &mut []), Ok(0));
    assert_eq!(libc.0.read(udp, &mut [0; 10]), Ok(5));
}

/// Runs a call that may wait in a thread of its own; returns its answer, if it comes in time.
fn in_time<T: Send + 'static>(
    limit: Duration,
    call: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (answer, answered) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let _ = answer.send(call());
    });
    answered.recv_timeout(limit).ok()
}

#[test]
fn who_left_something_is_told_again() {
    let (mut net, caller) = host();
    let open_one = |net: &mut Host, path: &str| {
        let flags = match path.ends_with("events") {
            true => OpenFlags::READ,
            false => BOTH,
        };
        net.open(path, flags, caller).unwrap()
    };
    let mut open = |path: &str| open_one(&mut net, path);
    let tun = open("tun/0");
    let addr = open("netcfg/ifaces/tun0/addr/set");
    let datagrams = [open("udp//127.0.0.1:5000"), open("udp/127.0.0.1:5000")];
    let away = open("udp/10.1.0.2:9");
    let ping = open("icmp/echo/127.0.0.1");
    let raw = open("ip/fd");
    let capture = open("bpf/lo0");
    let here = [127, 0, 0, 1].into();
    let whole = ipv4(here, here, 0xfd, b"raw");
    let written = net.write(addr, b"10.1.0.1/24\n", 0, caller);
    assert_eq!(written, Outcome::Done(Ok(12)));
    let run = |net: &mut Host| while net.turn(Now::default()).pending {};
    let told = |net: &mut Host, file| {
        run(net);
        let wakeups = std::iter::from_fn(|| net.poll_wakeup());
        let here = wakeups.filter(|wakeup| wakeup.file == file);
        here.fold(Ready::empty(), |all, wakeup| all | wakeup.ready)
            .contains(Ready::READ)
    };
    let cases = [
        (tun, away, &b"data"[..]),
        (datagrams[0], datagrams[1], b"data"),
        (ping, ping, b"01data"),
        (raw, raw, &whole),
    ];
    for (file, from, data) in cases {
        while net.poll_wakeup().is_some() {}
        for _ in 0..3 {
            let written = net.write(from, data, 0, caller);
            assert_eq!(written, Outcome::Done(Ok(data.len())));
        }
        for left in [2, 1, 0] {
            assert!(told(&mut net, file), "{left}");
            let read = net.read(file, &mut [0; 1500], 0, caller);
            assert!(matches!(read, Outcome::Done(Ok(1..))), "{read:?}");
            net.complete_read(file, true);
        }
        assert!(!told(&mut net, file), "nothing is left");
    }
    // A message taken by a call, and a stream of bytes.
    for _ in 0..2 {
        let _ = net.write(datagrams[1], b"data", 0, caller);
    }
    assert!(told(&mut net, datagrams[0]));
    // Lines, of which a read takes whole ones.
    let events = open_one(&mut net, "netcfg/ifaces/lo0/events");
    let mtu = open_one(&mut net, "netcfg/ifaces/lo0/mtu");
    for line in [&b"9000\n"[..], b"9001\n", b"9002\n"] {
        let written = net.write(mtu, line, 0, caller);
        assert_eq!(written, Outcome::Done(Ok(5)));
    }
    for line in [&b"mtu 9000\n"[..], b"mtu 9001\n", b"mtu 9002\n"] {
        assert!(told(&mut net, events));
        let mut buf = [0; 17];
        let read = net.read(events, &mut buf, 0, caller);
        assert_eq!((read, &buf[..9]), (Outcome::Done(Ok(9)), line));
    }
    assert!(!told(&mut net, events));
    // Packets of a protocol for which a program registered.
    let ipx = open_one(&mut net, "netisr/ipx");
    let mut on = [1, 0, 0, 0];
    let arg = Argument::new(&mut on);
    net.ioctl(tun, TUNSIFHEAD, arg, caller).unwrap();
    for _ in 0..3 {
        let written = net.write(tun, &[0, 0, 0, 23, 1, 2, 3], 0, caller);
        assert_eq!(written, Outcome::Done(Ok(7)));
    }
    for _ in 0..3 {
        assert!(told(&mut net, ipx));
        let read = net.read(ipx, &mut [0; 100], 0, caller);
        assert_eq!(read, Outcome::Done(Ok(19)));
        net.complete_read(ipx, true);
    }
    assert!(!told(&mut net, ipx));
    let mut message = [0; 100];
    message[8] = 20;
    let taken = net.call(datagrams[0], &mut message, &[5, 0], caller);
    assert!(matches!(taken, Outcome::Done(Ok(_))), "{taken:?}");
    assert!(told(&mut net, datagrams[0]));
    while net.poll_wakeup().is_some() {}
    assert_eq!(
        net.read(capture, &mut [0; 9], 0, caller),
        Outcome::Done(Ok(9))
    );
    assert!(told(&mut net, capture));
    // Connections to accept.
    let mut open = |path: &str| net.open(path, BOTH, caller).unwrap();
    let listener = open("tcp//127.0.0.1:80");
    for _ in 0..2 {
        open("tcp/127.0.0.1:80");
    }
    for _ in 0..2 {
        assert!(told(&mut net, listener));
        let accepted = net.dup(listener, b"listen", true, caller);
        assert!(matches!(accepted, Outcome::Done(Ok(_))), "{accepted:?}");
    }
    assert!(!told(&mut net, listener));
}

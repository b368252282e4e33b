//! Operations that wait, their time limits, and operations that do not wait.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use scheme::Ready;
use scheme::errno;

use crate::common::libc::Libc;
use crate::system;

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
    // A refused connection shows as readiness, and then as the error, once.
    let fd = libc.socket("tcp");
    libc.0.set_nonblocking(fd, true).unwrap();
    assert_eq!(libc.0.dup_verb(fd, b"127.0.0.1:4"), Err(errno::EINPROGRESS));
    let ready = libc
        .0
        .poll(&[(fd, Ready::all())], Some(Duration::from_secs(10)))
        .unwrap();
    assert_eq!(ready, [Ready::all()]);
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

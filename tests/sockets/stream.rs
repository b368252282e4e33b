//! TCP: connecting, every byte, and the end.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use scheme::errno;
use scheme::{OpenFlags, Ready};

use crate::common::libc::Libc;
use crate::common::system::counter;
use crate::{system, system_by_hand};

#[test]
fn every_byte_both_ways_and_the_end_of_each() {
    let system = system();
    let libc = Libc::new(&system);
    let (client, server) = libc.pair();
    let data: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    let echo = {
        let libc = Arc::clone(&libc);
        thread::spawn(move || {
            let all = libc.read_all(server);
            libc.write_all(server, &all);
            libc.0.close(server).unwrap();
        })
    };
    libc.write_all(client, &data);
    assert_eq!(libc.shutdown(client, 1), Ok(0));
    assert_eq!(libc.0.write(client, b"more"), Err(errno::EPIPE));
    assert_eq!(libc.read_all(client), data);
    echo.join().unwrap();
}

#[test]
fn a_dropped_stream_loses_nothing_and_ends() {
    let system = system();
    let libc = Libc::new(&system);
    let (client, server) = libc.pair();
    let data = vec![7; 200_000];
    let writer = {
        let (libc, data) = (Arc::clone(&libc), data.clone());
        thread::spawn(move || {
            libc.write_all(client, &data);
            libc.0.close(client).unwrap();
        })
    };
    assert_eq!(libc.read_all(server).len(), data.len());
    writer.join().unwrap();
}

#[test]
fn a_closed_port_refuses() {
    let system = system();
    let libc = Libc::new(&system);
    let fd = libc.socket("tcp");
    assert_eq!(
        libc.0.dup_verb(fd, b"127.0.0.1:4"),
        Err(errno::ECONNREFUSED)
    );
    // The socket is still usable.
    assert_eq!(libc.0.dup_verb(fd, b"10.9.9.9:4"), Err(errno::ENETUNREACH));
    let fd = libc.connect(fd, "127.0.0.1:7").unwrap();
    libc.write_all(fd, b"hello");
    let mut buf = [0; 10];
    assert_eq!(libc.0.read(fd, &mut buf), Ok(5));
}

#[test]
fn a_closed_port_of_this_host_refuses_whatever_port_asks() {
    let libc = Libc::new(&system());
    for port in 49_152..=65_535_u32 {
        let client = libc.socket("tcp");
        let connected = libc
            .0
            .dup_verb(client, format!("127.0.0.1:{port}").as_bytes());
        libc.0.close(client).unwrap();
        assert_eq!(connected, Err(errno::ECONNREFUSED), "{port}");
    }
}

#[test]
fn twelve_at_once_are_all_accepted() {
    let system = system();
    let libc = Libc::new(&system);
    let (listener, port) = libc.listener("127.0.0.1");
    let clients: Vec<_> = (0..12)
        .map(|number| {
            let (libc, port) = (Arc::clone(&libc), port.clone());
            thread::spawn(move || {
                let fd = libc
                    .connect(libc.socket("tcp"), &format!("127.0.0.1:{port}"))
                    .unwrap();
                libc.write_all(fd, &[number]);
                let mut buf = [0; 1];
                assert_eq!(libc.0.read(fd, &mut buf), Ok(1));
                assert_eq!(buf[0], number + 100);
            })
        })
        .collect();
    for _ in 0..12 {
        let fd = libc.accept(listener).unwrap();
        let mut buf = [0; 1];
        libc.0.read(fd, &mut buf).unwrap();
        libc.write_all(fd, &[buf[0] + 100]);
    }
    clients
        .into_iter()
        .for_each(|client| client.join().unwrap());
}

#[test]
fn a_listener_is_readable_when_there_is_somebody_to_accept() {
    let system = system();
    let libc = Libc::new(&system);
    let (listener, port) = libc.listener("127.0.0.1");
    let poll = || {
        libc.0
            .poll(&[(listener, Ready::all())], Some(Duration::ZERO))
            .unwrap()[0]
    };
    assert_eq!(poll(), Ready::empty());
    let client = libc
        .connect(libc.socket("tcp"), &format!("127.0.0.1:{port}"))
        .unwrap();
    assert_eq!(poll(), Ready::READ);
    let server = libc.accept(listener).unwrap();
    assert_eq!(poll(), Ready::empty());
    // A reset is reported as one, after the data before it was read.
    libc.write_all(server, b"unread");
    let mut buf = [0; 3];
    libc.0.read(client, &mut buf).unwrap();
    libc.0.close(client).unwrap();
    assert_eq!(libc.0.read(server, &mut buf), Err(errno::ECONNRESET));
    assert_eq!(libc.0.read(server, &mut buf), Ok(0));
    assert_eq!(libc.0.write(server, b"x"), Err(errno::EPIPE));
}

#[test]
fn a_time_wait_does_not_refuse_a_new_connection() {
    let system = system();
    let libc = Libc::new(&system);
    let (listener, port) = libc.listener("127.0.0.1");
    for _ in 0..3 {
        let names = format!("127.0.0.1:{port}/127.0.0.1:40000");
        let client = libc.connect(libc.socket("tcp"), &names).unwrap();
        let server = libc.accept(listener).unwrap();
        libc.0.close(server).unwrap();
        assert_eq!(libc.0.read(client, &mut [0; 1]), Ok(0));
        libc.0.close(client).unwrap();
    }
}

#[test]
fn nothing_is_lost_while_no_time_passes() {
    const TOTAL: usize = 1 << 20;

    let (system, _) = system_by_hand();
    let libc = Libc::new(&system);
    let (client, server) = libc.pair();
    for fd in [client, server] {
        libc.0.set_nonblocking(fd, true).unwrap();
    }
    let chunk = vec![1; 16 << 10];
    let mut buf = vec![0; 64 << 10];
    let mut read = [0; 2];
    let mut written = [0; 2];
    while read != [TOTAL; 2] {
        for (side, fd) in [client, server].into_iter().enumerate() {
            let len = chunk.len().min(TOTAL - written[side]);
            written[side] += libc.0.write(fd, &chunk[..len]).unwrap_or(0);
            read[side] += libc.0.read(fd, &mut buf).unwrap_or(0);
        }
    }
    let mut stats = [0; 8192];
    let file = libc
        .0
        .open("/scheme/netcfg/ifaces/lo0/stats", OpenFlags::READ)
        .unwrap();
    let len = libc.0.read(file, &mut stats).unwrap();
    let sent = counter(str::from_utf8(&stats[..len]).unwrap(), "obytes");
    let needed = 2 * TOTAL as u64;
    assert!(sent < needed + needed / 20, "{sent} bytes for {needed}");
}

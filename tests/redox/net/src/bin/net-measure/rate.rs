//! Throughput.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use redox_net::pair::{self, connected, datagrams};
use redox_net::pattern::{self, Aligned};
use redox_net::place::On;
use redox_net::{say, tell};
use tun::udp::{Datagrams, Outgoing};

/// Datagrams of a flood.
const DATAGRAMS: u64 = 5000;
/// How many datagrams are sent between two looks at the clock, which is a slow system call.
const SELDOM: u64 = 100;

fn megabytes(total: usize, start: Instant) -> f64 {
    total as f64 / 1e6 / start.elapsed().as_secs_f64()
}

/// `total` bytes one way, written in chunks, every byte checked.
pub(crate) fn bulk(name: &str, chunk: usize, total: usize) {
    let place = On::Lo.prepare().expect("127.0.0.1");
    let (mut client, mut server) = connected(&place);
    // The stream's bytes are made before the clock runs.
    pattern::at(0, 1);
    let start = Instant::now();
    let receiver = thread::spawn(move || {
        let received = pattern::receive(&mut server, total, 64 << 10);
        server.write_all(&[1]).map(|()| (received, server))
    });
    pattern::send(&mut client, total, chunk).expect("send");
    client.read_exact(&mut [0]).expect("confirmation");
    let rate = megabytes(total, start);
    let (received, _server) = receiver.join().expect("receiver").expect("confirm");
    assert_eq!(received.expect("receive"), total);
    tell(name, rate);
}

/// The same in both directions at once; reports the sum of both.
pub(crate) fn both_ways(name: &str, chunk: usize, total: usize) {
    let place = On::Lo.prepare().expect("127.0.0.1");
    let (client, server) = connected(&place);
    pattern::at(0, 1);
    let start = Instant::now();
    let side = |stream: TcpStream| {
        let copy = stream.try_clone().expect("clone");
        let sender = thread::spawn(move || pattern::send(copy, total, chunk));
        let receiver = thread::spawn(move || {
            let received = pattern::receive(&stream, total, 64 << 10);
            (received, stream)
        });
        (sender, receiver)
    };
    let sides = [side(client), side(server)];
    for (sender, receiver) in sides {
        sender.join().expect("sender").expect("send");
        let (received, _stream) = receiver.join().expect("receiver");
        assert_eq!(received.expect("receive"), total);
    }
    tell(name, megabytes(2 * total, start));
}

/// Sends datagrams as fast as they are accepted; reports the arrivals in a second. Each is checked.
pub(crate) fn flood(name: &str, size: usize) {
    let place = On::Lo.prepare().expect("127.0.0.1");
    let (client, server) = datagrams(&place);
    let (count, last) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let start = Instant::now();
    // This thread lasts as long as the process: not every daemon supports timeouts.
    thread::spawn({
        let (count, last) = (Arc::clone(&count), Arc::clone(&last));
        move || {
            let mut buffer = Aligned::new(2048);
            while let Ok((len, _)) = server.recv_from(buffer.get_mut()) {
                let datagram = &buffer.get()[..len];
                assert_eq!(len, size);
                assert_eq!(pattern::difference(8, &datagram[8..]), None);
                let seen = count.fetch_add(1, Ordering::Relaxed) + 1;
                let end = datagram[..8] == (DATAGRAMS - 1).to_le_bytes();
                if end || seen % SELDOM == 0 {
                    last.store(start.elapsed().as_micros() as u64, Ordering::Relaxed);
                }
            }
        }
    });
    let mut buffer = Aligned::new(size);
    buffer.get_mut().copy_from_slice(pattern::at(0, size));
    for number in 0..DATAGRAMS {
        buffer.get_mut()[..8].copy_from_slice(&number.to_le_bytes());
        client.send(buffer.get()).expect("send");
        if number % SELDOM == 0 && start.elapsed() > Duration::from_secs(20) {
            break;
        }
    }
    let sending = start.elapsed().as_secs_f64();
    let mut seen = 0;
    loop {
        thread::sleep(Duration::from_millis(500));
        let now = count.load(Ordering::Relaxed);
        if now == seen || now == DATAGRAMS {
            seen = now;
            break;
        }
        seen = now;
    }
    let seconds = last.load(Ordering::Relaxed) as f64 / 1e6;
    tell(name, seen as f64 / seconds);
    tell(&format!("{name}:received_of_{DATAGRAMS}"), seen as f64);
    tell(&format!("{name}:sending_s"), sending);
}

/// How many datagrams are on the way when none is to be lost.
const WINDOW: u64 = 32;

/// Datagrams with never more than a few on the way, so that none is lost.
pub(crate) fn paced(name: &str, size: usize) {
    let place = On::Lo.prepare().expect("127.0.0.1");
    let (client, server) = datagrams(&place);
    let mut buffer = Aligned::new(2048);
    let start = Instant::now();
    let mut count = 0;
    while count < DATAGRAMS && start.elapsed() < Duration::from_secs(20) {
        for _ in 0..WINDOW {
            client.send(pattern::at(0, size)).expect("send");
        }
        for _ in 0..WINDOW {
            let (len, _) = server.recv_from(buffer.get_mut()).expect("receive");
            assert_eq!(len, size);
        }
        count += WINDOW;
    }
    tell(name, count as f64 / start.elapsed().as_secs_f64());
}

/// The same with a whole window in one operation.
pub(crate) fn batch(name: &str, size: usize) {
    let place = On::Lo.prepare().expect("127.0.0.1");
    let (Some((client, _)), Some((server, port))) = (pair::batch(&place), pair::batch(&place))
    else {
        say(&format!("redox-net {name} failed: no batches of datagrams"));
        return;
    };
    let to = place.at(port).into();
    let mut outgoing = Outgoing::default();
    let mut incoming = Datagrams::default();
    let start = Instant::now();
    let mut count = 0;
    while count < DATAGRAMS && start.elapsed() < Duration::from_secs(20) {
        for _ in 0..WINDOW {
            outgoing.push(pattern::at(0, size), to).expect("room");
        }
        client.send(&mut outgoing).expect("send");
        let mut received = 0;
        while received < WINDOW {
            for (_, data) in server.recv(&mut incoming).expect("receive") {
                assert_eq!(data.len(), size);
                received += 1;
            }
        }
        count += WINDOW;
    }
    tell(name, count as f64 / start.elapsed().as_secs_f64());
}

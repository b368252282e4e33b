//! Round-trip times. Medians are used, so that the end of a time slice in between does not count.

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use redox_net::pair::{connected, datagrams};
use redox_net::pattern;
use redox_net::place::On;
use redox_net::tell;

const ROUNDS: usize = 2000;
const LIMIT: Duration = Duration::from_secs(15);

/// Prints the median and the 99th percentile.
pub(crate) fn report(name: &str, mut round: impl FnMut()) {
    let start = Instant::now();
    let mut times = Vec::with_capacity(ROUNDS);
    while times.len() < ROUNDS && start.elapsed() < LIMIT {
        let asked = Instant::now();
        round();
        times.push(asked.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    tell(name, times[times.len() / 2]);
    tell(&format!("{name}:p99"), times[times.len() * 99 / 100]);
}

/// A byte there and back over a stream.
pub(crate) fn stream(name: &str) {
    let place = On::Lo.prepare().expect("127.0.0.1");
    let (mut client, mut server) = connected(&place);
    thread::spawn(move || {
        let mut byte = [0];
        while server.read_exact(&mut byte).is_ok() && server.write_all(&byte).is_ok() {}
    });
    let mut number = 0_u8;
    report(name, || {
        number = number.wrapping_add(1);
        client.write_all(&[number]).expect("write");
        let mut answer = [0];
        client.read_exact(&mut answer).expect("read");
        assert_eq!(answer, [number]);
    });
}

/// 64 bytes there and back in datagrams.
pub(crate) fn datagram(name: &str) {
    let place = On::Lo.prepare().expect("127.0.0.1");
    let (client, server) = datagrams(&place);
    thread::spawn(move || {
        let mut buffer = [0; 2000];
        while let Ok((len, from)) = server.recv_from(&mut buffer) {
            if server.send_to(&buffer[..len], from).is_err() {
                return;
            }
        }
    });
    let mut buffer = [0; 2000];
    report(name, || {
        client.send(pattern::at(0, 64)).expect("send");
        let len = client.recv(&mut buffer).expect("receive");
        assert_eq!(len, 64);
    });
}

/// The cost of an operation for which the daemon does almost nothing: a socket's own name.
pub(crate) fn operation(name: &str) {
    let place = On::Lo.prepare().expect("127.0.0.1");
    let (client, _server) = datagrams(&place);
    report(name, || {
        client.local_addr().expect("name");
    });
}

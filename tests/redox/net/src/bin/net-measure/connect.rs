//! The cost of a connection.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use redox_net::pair::listener;
use redox_net::place::On;
use redox_net::tell;

/// Connects, accepts and closes both ends, one connection at a time.
pub(crate) fn connect_close(name: &str) {
    const COUNT: u32 = 1000;
    let place = On::Lo.prepare().expect("127.0.0.1");
    let (listener, port) = listener(&place);
    let start = Instant::now();
    let mut count = 0;
    while count < COUNT && start.elapsed() < Duration::from_secs(10) {
        let client = TcpStream::connect(place.at(port)).expect("connect");
        let (server, _) = listener.accept().expect("accept");
        drop((client, server));
        count += 1;
    }
    tell(name, f64::from(count) / start.elapsed().as_secs_f64());
}

/// Connects, and keeps the connections open.
pub(crate) fn hold(name: &str) {
    const COUNT: usize = 500;
    let place = On::Lo.prepare().expect("127.0.0.1");
    let (listener, port) = listener(&place);
    let start = Instant::now();
    let mut held = Vec::with_capacity(COUNT);
    while held.len() < COUNT {
        let client = TcpStream::connect(place.at(port)).expect("connect");
        held.push((client, listener.accept().expect("accept")));
    }
    tell(name, start.elapsed().as_secs_f64());
}

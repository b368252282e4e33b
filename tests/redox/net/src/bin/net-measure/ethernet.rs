//! Streams over the emulated adapter, with services that the runner provides, and how long each stands
//! still: what is lost in an adapter's ring shows as silence.

use std::io::{self, Read};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use redox_net::place::{DOWNLOAD, ECHO, On};
use redox_net::{pattern, tell};

/// A reader that notes the longest time in which nothing came.
struct Watched<R> {
    from: R,
    last: Instant,
    silence: Duration,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.from.read(buffer)?;
        self.silence = self.silence.max(self.last.elapsed());
        self.last = Instant::now();
        Ok(len)
    }
}

impl<R> Watched<R> {
    fn new(from: R) -> Self {
        Self {
            from,
            last: Instant::now(),
            silence: Duration::ZERO,
        }
    }

    /// Reports the time since `start`, and the silence, in milliseconds.
    fn tell(&self, name: &str, start: Instant) {
        tell(name, start.elapsed().as_secs_f64() * 1000.0);
        let silence = self.silence.as_secs_f64() * 1000.0;
        tell(&format!("{name}:silence"), silence);
    }
}

/// Has `total` bytes echoed. Nothing is printed where there is no Ethernet.
pub(crate) fn echo(name: &str, total: usize) {
    if On::Eth.prepare().is_err() {
        return;
    }
    let stream = TcpStream::connect(ECHO).expect("connect");
    let copy = stream.try_clone().expect("clone");
    pattern::at(0, 1);
    let start = Instant::now();
    let sender = thread::spawn(move || pattern::send(copy, total, 16 << 10));
    let mut watched = Watched::new(&stream);
    let received = pattern::receive(&mut watched, total, 64 << 10);
    assert_eq!(received.expect("receive"), total);
    watched.tell(name, start);
    sender.join().expect("sender").expect("send");
}

/// Fetches `total` bytes from a host that sends them as fast as it may.
pub(crate) fn download(name: &str, total: usize) {
    if On::Eth.prepare().is_err() {
        return;
    }
    let stream = TcpStream::connect(DOWNLOAD).expect("connect");
    let start = Instant::now();
    let mut watched = Watched::new(&stream);
    let mut buffer = vec![0; 64 << 10];
    let mut received = 0;
    while received < total {
        let len = watched.read(&mut buffer).expect("read");
        assert!(len > 0, "the end after {received} bytes");
        received += len;
    }
    watched.tell(name, start);
}

//! The traffic over the link: bulk transfers, fetches, and exchanges of single bytes.
//!
//! The near program always connects, since a mount on Linux has no listeners; the sender is chosen.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt;
use serde::Serialize;

use crate::bed::{Bed, Stream};

/// Port of the first near host's connections; the others follow.
const PORT: u16 = 5000;
/// Bytes of one read or write of a program.
const PIECE: usize = 65_536;
/// The time limit of a fetch or exchange.
const PATIENCE: Duration = Duration::from_secs(120);

/// The text of every connection, repeated: a prime length, so that no lost or doubled segment hides.
static TEXT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut rng = fastrand::Rng::with_seed(9);
    (0..65_521).map(|_| rng.u8(..)).collect()
});

/// The side that sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) enum Direction {
    /// The near side, whose stack is measured.
    D,
    /// The far side.
    U,
}

/// The length of a bulk transfer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Length {
    /// For this long, from before the connection is made; only bytes that arrived by then count.
    Time(Duration),
    /// Until every flow has this many bytes; it is an error if that takes longer than the duration.
    #[allow(dead_code, reason = "what tests/wan.rs does")]
    Bytes(u64, Duration),
}

/// The text that a stream has received so far.
#[derive(Default)]
struct Progress {
    bytes: AtomicU64,
    wrong: AtomicBool,
}

/// Moves text over `flows` connections of each of the first `hosts` near hosts at the same time.
/// Gives Mbit/s for each host, counted where they arrive, slow start and handshake included.
pub(crate) fn bulk(
    bed: &Bed,
    hosts: usize,
    flows: usize,
    direction: Direction,
    length: Length,
) -> io::Result<Vec<f64>> {
    let progress: Vec<_> = (0..hosts).map(|_| Arc::new(Progress::default())).collect();
    let (done, all_done) = mpsc::channel();
    let amount = match length {
        Length::Time(_) => u64::MAX,
        Length::Bytes(bytes, _) => bytes,
    };
    let far = Arc::new(Far::default());
    let start = Instant::now();
    for (number, progress) in progress.iter().enumerate() {
        let listener = bed.listen(PORT + number as u16)?;
        let (far, progress, done) = (Arc::clone(&far), Arc::clone(progress), done.clone());
        thread::spawn(move || far.accept(&listener, flows, direction, amount, &progress, &done));
    }
    thread::scope(|scope| {
        let dials: Vec<_> = progress
            .iter()
            .enumerate()
            .flat_map(|host| std::iter::repeat_n(host, flows))
            .map(|(number, progress)| {
                let (progress, done) = (Arc::clone(progress), done.clone());
                scope.spawn(move || -> io::Result<()> {
                    let stream = bed.dial(number, PORT + number as u16)?;
                    // The thread may outlive this call: it may wait until its stack is gone.
                    thread::spawn(move || match direction {
                        Direction::D => send(stream, amount),
                        Direction::U => receive(stream, amount, &progress, &done),
                    });
                    Ok(())
                })
            })
            .collect();
        dials.into_iter().try_for_each(join)
    })?;
    match length {
        Length::Time(time) => {
            thread::sleep((start + time).saturating_duration_since(Instant::now()))
        }
        Length::Bytes(_, within) => wait_for(&all_done, hosts * flows, start + within)?,
    }
    let elapsed = start.elapsed().as_secs_f64();
    let bytes = |progress: &Arc<Progress>| progress.bytes.load(Ordering::Relaxed) as f64;
    let rates = progress
        .iter()
        .map(bytes)
        .map(|bytes| bytes * 8e-6 / elapsed);
    let rates = rates.collect();
    bed.link().calm();
    far.reset();
    match progress.iter().any(|one| one.wrong.load(Ordering::Relaxed)) {
        true => Err(io::Error::other(
            "the bytes that came are not those that went",
        )),
        false => Ok(rates),
    }
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    let joined = thread.join();
    joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn wait_for(done: &Receiver<()>, flows: usize, until: Instant) -> io::Result<()> {
    for flow in 0..flows {
        let left = until.saturating_duration_since(Instant::now());
        if done.recv_timeout(left).is_err() {
            let text = format!("only {flow} of {flows} flows were done in time");
            return Err(io::Error::new(ErrorKind::TimedOut, text));
        }
    }
    Ok(())
}

/// The far ends of a bulk measurement.
#[derive(Default)]
struct Far {
    streams: Mutex<Vec<TcpStream>>,
}

impl Far {
    fn accept(
        &self,
        listener: &TcpListener,
        flows: usize,
        direction: Direction,
        amount: u64,
        progress: &Arc<Progress>,
        done: &Sender<()>,
    ) {
        for stream in listener.incoming().take(flows).flatten() {
            let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
            streams.extend(stream.try_clone());
            drop(streams);
            let (progress, done) = (Arc::clone(progress), done.clone());
            thread::spawn(move || match direction {
                Direction::D => receive(Box::new(stream), amount, &progress, &done),
                Direction::U => send(Box::new(stream), amount),
            });
        }
    }

    /// Resets all of them at once, and with them the near ends.
    fn reset(&self) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in streams.drain(..) {
            // These calls fail only if the connection has ended already.
            let _ = sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
            let _ = stream.shutdown(Shutdown::Read);
        }
    }
}

/// Sends text until `amount` bytes are sent, or the other end is gone.
fn send(mut stream: Box<dyn Stream>, amount: u64) {
    let mut at = 0;
    while at < amount {
        let from = (at % TEXT.len() as u64) as usize;
        let most = usize::try_from(amount - at).unwrap_or(PIECE).min(PIECE);
        let text = &TEXT[from..];
        match stream.write(&text[..text.len().min(most)]) {
            Ok(len) => at += len as u64,
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            Err(_) => return,
        }
    }
}

/// Receives text until `amount` bytes arrived, or the other end is gone.
fn receive(mut stream: Box<dyn Stream>, amount: u64, progress: &Progress, done: &Sender<()>) {
    let mut buf = vec![0; PIECE];
    let mut at = 0;
    while at < amount {
        let len = match stream.read(&mut buf) {
            Ok(0) => return,
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        if !is_text(&buf[..len], at) {
            progress.wrong.store(true, Ordering::Relaxed);
        }
        at += len as u64;
        progress.bytes.fetch_add(len as u64, Ordering::Relaxed);
    }
    // The receiver no longer listens if the time is up.
    let _ = done.send(());
}

/// Whether these bytes are the text at a position.
fn is_text(mut bytes: &[u8], at: u64) -> bool {
    let mut from = (at % TEXT.len() as u64) as usize;
    while !bytes.is_empty() {
        let text = &TEXT[from..];
        let len = text.len().min(bytes.len());
        if bytes[..len] != text[..len] {
            return false;
        }
        bytes = &bytes[len..];
        from = 0;
    }
    true
}

/// Makes this many fetches one after the other, each over a connection of its own. Returns
/// milliseconds from before the connection is made until all bytes have arrived and the sender
/// knows it: a request of one byte and the text (U), or the text and an answer of one byte (D).
pub(crate) fn fetches(
    bed: &Bed,
    count: usize,
    bytes: usize,
    direction: Direction,
) -> io::Result<Vec<f64>> {
    let serve = move |stream: &mut TcpStream| match direction {
        Direction::D => answer(stream, bytes, 1),
        Direction::U => answer(stream, 1, bytes),
    };
    let (near, far) = match direction {
        Direction::D => (bytes, 1),
        Direction::U => (1, bytes),
    };
    served(bed, count, serve, || {
        (0..count)
            .map(|_| {
                let start = Instant::now();
                let mut stream = bed.dial(0, PORT)?;
                write(&mut stream, near)?;
                read(&mut stream, far)?;
                Ok(start.elapsed().as_secs_f64() * 1e3)
            })
            .collect()
    })
}

/// Sends one byte and waits for its echo, `exchanges` times over each of `connections` at the same
/// time. Returns the milliseconds of each exchange.
pub(crate) fn echoes(bed: &Bed, connections: usize, exchanges: usize) -> io::Result<Vec<f64>> {
    let serve = move |stream: &mut TcpStream| (0..exchanges).try_for_each(|_| answer(stream, 1, 1));
    served(bed, connections, serve, || {
        let exchange = || -> io::Result<Vec<f64>> {
            let mut stream = bed.dial(0, PORT)?;
            let times = (0..exchanges).map(|_| {
                let start = Instant::now();
                write(&mut stream, 1)?;
                read(&mut stream, 1)?;
                Ok(start.elapsed().as_secs_f64() * 1e3)
            });
            times.collect()
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..connections).map(|_| scope.spawn(exchange)).collect();
            let times: io::Result<Vec<_>> = threads.into_iter().map(join).collect();
            Ok(times?.concat())
        })
    })
}

/// Runs `work` while the far side serves this many connections, each in a thread.
fn served<T>(
    bed: &Bed,
    connections: usize,
    serve: impl Fn(&mut TcpStream) -> io::Result<()> + Send + Copy + 'static,
    work: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let listener = bed.listen(PORT)?;
    thread::spawn(move || {
        for mut stream in listener.incoming().take(connections).flatten() {
            thread::spawn(move || -> io::Result<()> {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                serve(&mut stream)?;
                // The near end closes first, so that nothing is reset under it.
                stream.read(&mut [0]).map(drop)
            });
        }
    });
    work()
}

fn answer(stream: &mut TcpStream, request: usize, answer: usize) -> io::Result<()> {
    read(stream, request)?;
    write(stream, answer)
}

fn write(stream: &mut impl Write, len: usize) -> io::Result<()> {
    // In one piece if it fits into the text, else in several.
    let mut left = len;
    while left > 0 {
        let piece = left.min(TEXT.len());
        stream.write_all(&TEXT[..piece])?;
        left -= piece;
    }
    Ok(())
}

fn read(stream: &mut impl Read, len: usize) -> io::Result<()> {
    let mut buf = vec![0; len];
    stream.read_exact(&mut buf)?;
    match is_text(&buf, 0) {
        true => Ok(()),
        false => Err(io::Error::other(
            "the bytes that came are not those that went",
        )),
    }
}

//! The log, which never makes the network wait.
//!
//! Whoever reads it may sleep: a pager, or a supervisor that is busy. So lines are queued, and a thread
//! of its own writes them. What finds no room in the queue is counted, and a line tells how many they
//! were. Only to a file of Linux, which has no reader that could sleep, lines are written at once.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Most bytes of lines that wait to be written.
const MAX_BYTES: usize = 256 << 10;
/// Bytes that a line takes besides its own.
const OVERHEAD: usize = size_of::<(Stream, Vec<u8>)>();
/// At the end, what is left is waited for this long, or longer while something is read.
const LAST: Duration = Duration::from_secs(1);
/// But not longer than this.
const VERY_LAST: Duration = Duration::from_secs(5);

/// The log, and what else the daemon says.
#[derive(Clone)]
pub(crate) struct Logger(Arc<Parts>);

struct Parts {
    format: env_logger::Logger,
    queue: Queue,
}

/// Where a line goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    #[cfg_attr(not(target_os = "linux"), expect(dead_code))]
    Out,
    /// Standard error.
    Err,
}

/// Lines that wait to be written.
#[derive(Clone, Default)]
struct Queue(Arc<Shared>);

#[derive(Default)]
struct Shared {
    lines: Mutex<Lines>,
    /// There is something to write.
    come: Condvar,
    /// Something was written.
    gone: Condvar,
}

#[derive(Default)]
struct Lines {
    waiting: VecDeque<(Stream, Vec<u8>)>,
    /// Bytes of those, and of the line that is being written.
    bytes: usize,
    /// Lines that were lost since the last one that was not.
    lost: u64,
    /// Whether there is a thread that writes. Before that, whoever has a line writes it.
    thread: bool,
    /// Whether it does not write what is for standard error.
    file: bool,
}

impl Logger {
    /// Makes this the log of the process, and has it tell of panics.
    pub(crate) fn install(level: log::LevelFilter) -> Self {
        let queue = Queue::default();
        let format = env_logger::Builder::new()
            .filter_level(level)
            .target(env_logger::Target::Pipe(Box::new(queue.clone())))
            .build();
        log::set_max_level(format.filter());
        let logger = Self(Arc::new(Parts { format, queue }));
        if log::set_boxed_logger(Box::new(logger.clone())).is_err() {
            // There is a log already, and that will do.
            return logger;
        }
        std::panic::set_hook(Box::new(|panic| {
            let trace = std::backtrace::Backtrace::capture();
            match trace.status() {
                std::backtrace::BacktraceStatus::Captured => log::error!("{panic}\n{trace}"),
                _ => log::error!("{panic}"),
            }
            log::logger().flush();
        }));
        logger
    }

    /// From now on a thread writes. The process must not fork any more.
    pub(crate) fn start(&self) -> io::Result<()> {
        let queue = self.0.queue.clone();
        let builder = thread::Builder::new().name("log".to_owned());
        builder.spawn(move || {
            queue.write_for_ever(|stream, line| {
                let _ = stream.write(line);
            });
        })?;
        let mut lines = self.0.queue.0.lines.lock();
        lines.thread = true;
        lines.file = is_file(io::stderr().as_fd());
        Ok(())
    }

    /// Says something that is not for the log.
    pub(crate) fn say(&self, stream: Stream, line: &str) {
        self.0.queue.push(stream, format!("{line}\n").as_bytes());
    }
}

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        self.0.format.enabled(metadata)
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.format.log(record);
    }

    /// Waits until everything is written, but not for ever.
    fn flush(&self) {
        self.0.queue.flush(LAST, VERY_LAST);
    }
}

impl Stream {
    /// An output that is closed, or a disk that is full, is nobody's fault here.
    fn write(self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::Out => {
                let mut out = io::stdout().lock();
                out.write_all(line)?;
                out.flush()
            }
            Self::Err => io::stderr().lock().write_all(line),
        }
    }
}

/// Whether something is an ordinary file. On Redox that is of no use: another process has it.
fn is_file(fd: BorrowedFd<'_>) -> bool {
    let metadata = fd
        .try_clone_to_owned()
        .and_then(|fd| File::from(fd).metadata());
    cfg!(target_os = "linux") && metadata.is_ok_and(|metadata| metadata.is_file())
}

impl Queue {
    fn push(&self, stream: Stream, line: &[u8]) {
        let mut lines = self.0.lines.lock();
        if !lines.thread || (lines.file && stream == Stream::Err) {
            drop(lines);
            let _ = stream.write(line);
            return;
        }
        let note = lines.note();
        let more = line.len() + OVERHEAD + note.as_ref().map_or(0, |note| note.len() + OVERHEAD);
        if lines.bytes + more > MAX_BYTES {
            lines.lost += 1;
            self.0.come.notify_one();
            return;
        }
        lines.bytes += more;
        if let Some(note) = note {
            lines.lost = 0;
            lines.waiting.push_back((Stream::Err, note));
        }
        lines.waiting.push_back((stream, line.to_vec()));
        drop(lines);
        self.0.come.notify_one();
    }

    /// Writes every line, one after the other.
    fn write_for_ever(&self, mut write: impl FnMut(Stream, &[u8])) {
        loop {
            let (stream, line) = self.next();
            write(stream, &line);
            self.0.lines.lock().bytes -= line.len() + OVERHEAD;
            self.0.gone.notify_all();
        }
    }

    fn next(&self) -> (Stream, Vec<u8>) {
        let mut lines = self.0.lines.lock();
        loop {
            if let Some(line) = lines.waiting.pop_front() {
                return line;
            }
            if let Some(note) = lines.note() {
                lines.lost = 0;
                lines.bytes += note.len() + OVERHEAD;
                return (Stream::Err, note);
            }
            self.0.come.wait(&mut lines);
        }
    }

    /// Waits until everything is written: for `each` line so long, and for all `limit` at most.
    fn flush(&self, each: Duration, limit: Duration) {
        let end = Instant::now() + limit;
        let mut lines = self.0.lines.lock();
        while lines.bytes > 0 || lines.lost > 0 {
            let end = end.min(Instant::now() + each);
            if self.0.gone.wait_until(&mut lines, end).timed_out() {
                return;
            }
        }
    }
}

impl Lines {
    /// A line that tells how many were lost.
    fn note(&self) -> Option<Vec<u8>> {
        let note = |lost| format!("[log: {lost} lines were lost here]\n").into_bytes();
        (self.lost > 0).then(|| note(self.lost))
    }
}

/// The log's lines come here, each as a whole.
impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(Stream::Err, line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const SHORT: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(60);

    /// A queue whose thread writes a line when it is let.
    fn queue() -> (Queue, mpsc::Sender<()>, mpsc::Receiver<String>) {
        let queue = Queue::default();
        queue.0.lines.lock().thread = true;
        let (let_it, may) = mpsc::channel();
        let (write, written) = mpsc::channel();
        let writer = queue.clone();
        thread::spawn(move || {
            writer.write_for_ever(|_, line| {
                let _ = may.recv();
                let _ = write.send(String::from_utf8(line.to_vec()).unwrap());
            });
        });
        (queue, let_it, written)
    }

    #[test]
    fn lines_that_nobody_reads_are_bounded_and_those_lost_are_counted() {
        let (queue, let_it, written) = queue();
        let line = "x".repeat(1000);
        for _ in 0..1000 {
            queue.push(Stream::Err, line.as_bytes());
        }
        let (bytes, lost) = {
            let lines = queue.0.lines.lock();
            (lines.bytes, lines.lost)
        };
        assert!(bytes <= MAX_BYTES && bytes > MAX_BYTES - 2000, "{bytes}");
        let kept = 1000 - lost;
        assert!(kept > 200, "{kept}");
        // Those that were kept come first, and then how many are missing, though nothing more is said.
        (0..=kept).for_each(|_| let_it.send(()).unwrap());
        for _ in 0..kept {
            assert_eq!(written.recv().unwrap(), line);
        }
        let note = format!("[log: {lost} lines were lost here]\n");
        assert_eq!(written.recv().unwrap(), note);
        // A line that comes after a loss stands behind the note.
        for _ in 0..1000 {
            queue.push(Stream::Err, line.as_bytes());
        }
        (0..10).for_each(|_| let_it.send(()).unwrap());
        (0..10).for_each(|_| assert_eq!(written.recv().unwrap(), line));
        queue.push(Stream::Err, b"after\n");
        drop(let_it);
        let rest: Vec<_> = written
            .iter()
            .take_while(|line| line != "after\n")
            .collect();
        assert!(rest.last().unwrap().contains("lines were lost here"));
        queue.flush(LONG, LONG);
        let lines = queue.0.lines.lock();
        assert_eq!((lines.bytes, lines.lost), (0, 0));
    }

    #[test]
    fn the_end_does_not_wait_for_ever() {
        let (queue, let_it, written) = queue();
        queue.push(Stream::Out, b"one\n");
        queue.push(Stream::Err, b"two\n");
        queue.flush(SHORT, LONG);
        queue.flush(LONG, SHORT);
        assert!(written.try_recv().is_err(), "nobody reads");
        drop(let_it);
        queue.flush(LONG, LONG);
        assert_eq!(written.try_iter().collect::<Vec<_>>(), ["one\n", "two\n"]);
    }

    #[test]
    fn a_line_that_is_too_long_is_lost() {
        let (queue, let_it, written) = queue();
        queue.push(Stream::Err, &vec![b'x'; MAX_BYTES]);
        drop(let_it);
        assert_eq!(written.recv().unwrap(), "[log: 1 lines were lost here]\n");
    }
}

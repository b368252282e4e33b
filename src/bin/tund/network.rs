//! Redox's network adapters: schemes whose names begin with `network.`, one frame a read or write.
//!
//! A driver is another process. A call into it may take long, and never ends if the driver is killed
//! meanwhile, so no thread that holds the network's lock makes one. Each driver has two threads of
//! its own, and a driver that does not answer costs only itself:
//!
//! - `serve` opens it, sends frames, and finds out whether it lives;
//! - `receive` waits for frames.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use net::Host;
use net::adapters::{Adapters, Bus, FrameIo, LONGEST};
use net::link::Mac;
use parking_lot::{Condvar, Mutex, MutexGuard};
use scheme::redox::{DriverWork, Namespace};

/// The prefix of the names of such schemes.
const PREFIX: &str = "network.";
/// Most frames that wait for a driver to take them. The others wait in the interface's queue.
const MAX_OUTGOING: usize = 32;
/// Most frames received before the network handles them.
const MAX_INCOMING: usize = 16;
/// A call into a driver that takes this long will not come back.
const STUCK: Duration = Duration::from_secs(2);
/// At the start, drivers are waited for this long: programs that start after us want their
/// interfaces.
const START: Duration = Duration::from_secs(2);
/// Most threads of drivers, those included that will not come back.
const MAX_THREADS: usize = 192;
/// The stack of such a thread; its calls are not deeply nested, unless it handles frames.
const STACK_SIZE: usize = 512 << 10;
/// The number that stands for a search rather than for a driver.
const SEARCH: usize = usize::MAX;

/// Adapters, for the daemon's threads.
struct Network(Adapters<Schemes>);

/// The schemes of a namespace; there are none without a namespace.
struct Schemes {
    namespace: Option<Arc<Namespace>>,
    /// The drivers that are being opened, and since when.
    opening: BTreeMap<String, (Instant, Driver)>,
    work: DriverWork<Host>,
    threads: Arc<AtomicUsize>,
}

/// A driver, as the network sees it. Its threads end when it is dropped.
struct Driver(Arc<Card>);

/// The state shared with the threads of a driver.
struct Card {
    name: String,
    queues: Mutex<Queues>,
    /// There is something for the thread that serves.
    serve: Condvar,
    /// There is something for the thread that receives.
    receive: Condvar,
    sending: Call,
    receiving: Call,
}

#[derive(Default)]
struct Queues {
    opened: Option<io::Result<Mac>>,
    /// The number of the adapter, once it has one.
    number: Option<usize>,
    outgoing: VecDeque<Vec<u8>>,
    /// Whether somebody waits for room.
    full: bool,
    incoming: VecDeque<Vec<u8>>,
    /// Whether the driver said that it has frames.
    readable: bool,
    probe: bool,
    /// The error that ended the driver.
    failed: Option<io::Error>,
    /// Nobody uses the driver any more.
    closed: bool,
}

/// A call into a driver: the monotonic time at which it began, in microseconds, or 0.
#[derive(Default)]
struct Call(AtomicU64);

impl Call {
    fn make<T>(&self, call: impl FnOnce() -> T) -> T {
        let now = scheme::redox::now().monotonic.as_micros();
        self.0.store(
            u64::try_from(now).unwrap_or(u64::MAX).max(1),
            Ordering::Relaxed,
        );
        let result = call();
        self.0.store(0, Ordering::Relaxed);
        result
    }

    fn is_stuck(&self, now: Duration) -> bool {
        match self.0.load(Ordering::Relaxed) {
            0 => false,
            began => Duration::from_micros(began) + STUCK < now,
        }
    }
}

/// Makes an interface on every adapter there is, and on those that come later.
pub(crate) fn attach(
    host: &mut Host,
    work: DriverWork<Host>,
) -> Box<dyn scheme::redox::Drivers<Host>> {
    let namespace = Namespace::keep();
    let namespace = namespace.inspect_err(|error| log::error!("no network adapters: {error}"));
    let schemes = Schemes {
        namespace: namespace.ok().map(Arc::new),
        opening: BTreeMap::new(),
        work,
        threads: Arc::default(),
    };
    let mut adapters = Adapters::new(schemes, host);
    let start = Instant::now();
    while adapters.is_opening() && start.elapsed() < START {
        thread::sleep(Duration::from_millis(1));
        adapters.search(host);
    }
    Box::new(Network(adapters))
}

impl Bus for Schemes {
    type Io = Driver;

    fn names(&mut self) -> Vec<String> {
        let names = self.namespace.as_ref().map(|namespace| namespace.names());
        let mut names = names.unwrap_or(Ok(Vec::new())).unwrap_or_else(|error| {
            log::warn!("/scheme: {error}");
            Vec::new()
        });
        names.retain(|name| name.starts_with(PREFIX));
        names
    }

    fn open(&mut self, name: &str) -> io::Result<(Mac, Driver)> {
        let Some((since, driver)) = self.opening.remove(name) else {
            let driver = self.start(name)?;
            self.opening
                .insert(name.to_owned(), (Instant::now(), driver));
            return Err(ErrorKind::WouldBlock.into());
        };
        let opened = driver.0.lock().opened.take();
        match opened {
            Some(opened) => Ok((opened?, driver)),
            None if since.elapsed() < STUCK => {
                self.opening.insert(name.to_owned(), (since, driver));
                Err(ErrorKind::WouldBlock.into())
            }
            None => Err(ErrorKind::TimedOut.into()),
        }
    }

    /// The thread that opened a driver, or tries to, does it.
    fn clear(&mut self, _name: &str) {}
}

impl Schemes {
    /// Starts the thread that opens and serves a driver.
    fn start(&self, name: &str) -> io::Result<Driver> {
        let namespace = Arc::clone(self.namespace.as_ref().ok_or(ErrorKind::NotFound)?);
        if self.threads.load(Ordering::Relaxed) >= MAX_THREADS {
            return Err(io::Error::other("too many of its drivers did not answer"));
        }
        let card = Arc::new(Card {
            name: name.to_owned(),
            queues: Mutex::default(),
            serve: Condvar::new(),
            receive: Condvar::new(),
            sending: Call::default(),
            receiving: Call::default(),
        });
        let driver = Driver(Arc::clone(&card));
        let work = self.work.clone();
        let threads = Arc::clone(&self.threads);
        spawn(&self.threads, move || {
            serve(&card, &namespace, &work, &threads);
        })?;
        Ok(driver)
    }
}

fn spawn(threads: &Arc<AtomicUsize>, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let counted = Arc::clone(threads);
    counted.fetch_add(1, Ordering::Relaxed);
    let builder = thread::Builder::new().stack_size(STACK_SIZE);
    let spawned = builder.spawn(move || {
        body();
        counted.fetch_sub(1, Ordering::Relaxed);
    });
    if spawned.is_err() {
        threads.fetch_sub(1, Ordering::Relaxed);
    }
    spawned.map(drop)
}

impl Card {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock()
    }

    /// Ends a driver that cannot be used any more. Its name is free for another when that is seen.
    fn fail(
        &self,
        error: io::Error,
        namespace: &Namespace,
        work: &DriverWork<Host>,
        number: usize,
    ) {
        namespace.clear(&self.name);
        self.lock().failed.get_or_insert(error);
        work.receive(number);
    }
}

/// Opens a driver, and sends its frames until nobody uses it any more.
fn serve(
    card: &Arc<Card>,
    namespace: &Arc<Namespace>,
    work: &DriverWork<Host>,
    threads: &Arc<AtomicUsize>,
) {
    let name = &card.name;
    let (mac, file) = match card.sending.make(|| open(namespace, name)) {
        Ok(opened) => opened,
        Err(error) => {
            // A daemon that ended leaves the name of its scheme behind.
            card.sending.make(|| namespace.clear(name));
            card.lock().opened = Some(Err(error));
            return work.receive(SEARCH);
        }
    };
    let file = Arc::new(file);
    card.lock().opened = Some(Ok(mac));
    work.receive(SEARCH);
    let Some(number) = wait(card, &card.serve, |queues| queues.number) else {
        return;
    };
    let receiver = {
        let (card, file) = (Arc::clone(card), Arc::clone(&file));
        let (namespace, work) = (Arc::clone(namespace), work.clone());
        spawn(threads, move || {
            if let Err(error) = receive(&card, &file, &work, number) {
                card.fail(error, &namespace, &work, number);
            }
        })
    };
    if let Err(error) = receiver.and_then(|()| send(card, &file, work, number)) {
        card.fail(error, namespace, work, number);
    }
}

fn open(namespace: &Namespace, name: &str) -> io::Result<(Mac, File)> {
    let mut mac = [0; 6];
    let mut file = namespace.open(name, "mac", libc::O_RDONLY)?;
    file.read_exact(&mut mac)?;
    let frames = namespace.open(name, "", libc::O_RDWR | libc::O_NONBLOCK)?;
    Ok((Mac(mac), frames))
}

/// Waits until there is `something`. `None` if nobody uses the driver any more.
fn wait<T>(
    card: &Card,
    changed: &Condvar,
    mut something: impl FnMut(&mut Queues) -> Option<T>,
) -> Option<T> {
    let mut queues = card.lock();
    loop {
        if queues.closed {
            return None;
        }
        if let Some(something) = something(&mut queues) {
            return Some(something);
        }
        changed.wait(&mut queues);
    }
}

/// Something for the thread that serves.
enum Task {
    Send {
        frames: VecDeque<Vec<u8>>,
        /// Whether somebody waits for the room that this made.
        tell: bool,
    },
    Probe,
}

fn send(card: &Card, file: &File, work: &DriverWork<Host>, number: usize) -> io::Result<()> {
    let next = |queues: &mut Queues| {
        if std::mem::take(&mut queues.probe) {
            return Some(Task::Probe);
        }
        let frames = std::mem::take(&mut queues.outgoing);
        let tell = std::mem::take(&mut queues.full);
        (!frames.is_empty()).then_some(Task::Send { frames, tell })
    };
    while let Some(task) = wait(card, &card.serve, next) {
        match task {
            Task::Probe => {
                // Any other error comes from a driver that still exists.
                let gone = |error: &io::Error| error.raw_os_error() == Some(libc::ENODEV);
                if let Err(error) = card.sending.make(|| file.metadata())
                    && gone(&error)
                {
                    return Err(error);
                }
            }
            Task::Send { frames, tell } => {
                for frame in frames {
                    let mut file = file;
                    match card.sending.make(|| file.write(&frame)) {
                        Ok(_) => {}
                        Err(error) if is_refused(&error) => log::debug!("{}: {error}", card.name),
                        Err(error) => return Err(error),
                    }
                }
                if tell {
                    work.receive(number);
                }
            }
        }
    }
    Ok(())
}

/// Whether a driver refused this frame only. The frame is lost, as on a wire.
fn is_refused(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
        || matches!(
            error.raw_os_error(),
            Some(libc::EMSGSIZE | libc::ENOBUFS | libc::EINTR)
        )
}

/// Receives frames until nobody uses the driver any more.
fn receive(card: &Card, file: &File, work: &DriverWork<Host>, number: usize) -> io::Result<()> {
    card.receiving
        .make(|| work.watch(file.as_raw_fd(), number))?;
    let mut buffer = vec![0; LONGEST];
    loop {
        // The driver tells once of everything it has, and frames may have come before the
        // subscription.
        let mut more = true;
        while more {
            let mut frames = VecDeque::new();
            while more && frames.len() < MAX_INCOMING {
                let mut file = file;
                match card.receiving.make(|| file.read(&mut buffer)) {
                    Ok(0) => more = false,
                    Ok(len) => frames.push_back(buffer[..len].to_vec()),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => more = false,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            let mut queues = card.lock();
            if queues.closed {
                return Ok(());
            }
            if !frames.is_empty() {
                queues.incoming.extend(frames);
                drop(queues);
                work.receive(number);
            }
        }
        let readable = |queues: &mut Queues| std::mem::take(&mut queues.readable).then_some(());
        if wait(card, &card.receive, readable).is_none() {
            return Ok(());
        }
    }
}

impl FrameIo for Driver {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut queues = self.0.lock();
        match queues.incoming.pop_front() {
            Some(frame) => {
                let len = frame.len().min(buffer.len());
                buffer[..len].copy_from_slice(&frame[..len]);
                Ok(len)
            }
            None => Err(queues.failed.take().unwrap_or(ErrorKind::WouldBlock.into())),
        }
    }

    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.0.lock().outgoing.push_back(frame.to_vec());
        self.0.serve.notify_one();
        Ok(())
    }

    fn has_room(&mut self) -> bool {
        let mut queues = self.0.lock();
        queues.full = queues.outgoing.len() >= MAX_OUTGOING;
        !queues.full
    }

    fn is_alive(&self, now: Duration) -> bool {
        !self.0.sending.is_stuck(now)
            && !self.0.receiving.is_stuck(now)
            && self.0.lock().failed.is_none()
    }

    fn probe(&mut self) {
        self.0.lock().probe = true;
        self.0.serve.notify_one();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.serve.notify_one();
        self.0.receive.notify_one();
    }
}

impl scheme::redox::Drivers<Host> for Network {
    fn receive(&mut self, host: &mut Host, at: usize) {
        match at {
            SEARCH => host.ask_for_adapters(),
            at => self.0.receive(host, at),
        }
    }

    fn readable(&mut self, at: usize) {
        if let Some(Driver(card)) = self.0.frames(at) {
            card.lock().readable = true;
            card.receive.notify_one();
        }
    }

    fn transmit(&mut self, host: &mut Host) -> bool {
        let more = self.0.transmit(host);
        while let Some((at, driver)) = self.0.poll_opened() {
            driver.0.lock().number = Some(at);
            driver.0.serve.notify_one();
        }
        more
    }
}

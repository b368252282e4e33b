//! Network adapters, one frame a read or write: on Redox schemes whose names begin with `network.`,
//! on Linux packet sockets.
//!
//! A driver may be another process. A call into it may take long, and never ends if the driver is
//! killed meanwhile, so no thread that holds the network's lock makes one. Each driver has two
//! threads of its own, and a driver that does not answer costs only itself:
//!
//! - `serve` opens it, sends frames, and finds out whether it lives;
//! - `receive` waits for frames.
//!
//! What comes in is looked at while frames go out, too. Which drivers there are is asked of another
//! process as well, which may be waiting for a driver: that is the work of a thread of its own, the
//! [`finder`].

mod finder;
#[cfg(target_os = "linux")]
mod links;
#[cfg(target_os = "linux")]
mod offload;
#[cfg(target_os = "linux")]
mod packet_socket;
#[cfg(target_os = "redox")]
mod schemes;

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use finder::{Finder, Findings};
use net::Host;
use net::adapters::{Adapters, Bus, FrameIo, LONGEST, Lost};
use net::link::Mac;
use parking_lot::{Condvar, Mutex, MutexGuard};

#[cfg(target_os = "linux")]
pub(crate) use links::Links;
#[cfg(target_os = "redox")]
pub(crate) use schemes::Schemes;

/// How a driver's thread has the network work for it.
#[cfg(target_os = "linux")]
pub(crate) type Work = scheme::fuse::DriverWork;
#[cfg(target_os = "redox")]
pub(crate) type Work = scheme::redox::DriverWork<Host>;

/// Most frames that wait for a driver to take them. The others wait in the interface's queue.
const MAX_OUTGOING: usize = 32;
/// Frames that are sent between two looks at what came in: an e1000 has room for 16.
const LOOK: usize = 4;
/// Most frames received at a time.
const BATCH: usize = 16;
/// Most frames received that the network has not handled yet. The driver keeps the others.
const MAX_INCOMING: usize = 64;
/// A call into a driver that takes this long will not come back.
const STUCK: Duration = Duration::from_secs(2);
/// Most times that a driver which ended is asked for frames that it still has.
const MAX_LAST_LOOKS: usize = 1024;
/// At the start, drivers are waited for this long: programs that start after us want their
/// interfaces.
const START: Duration = Duration::from_secs(2);
/// Most threads of drivers, those included that will not come back.
const MAX_THREADS: usize = 192;
/// The stack of such a thread; its calls are not deeply nested, unless it handles frames.
const STACK_SIZE: usize = 512 << 10;
/// The number that stands for a search rather than for a driver.
const SEARCH: usize = usize::MAX;

/// The place where a system has its drivers. Any call may take long, and may never return.
pub(crate) trait Place: Send + Sync + 'static {
    /// The frames of a driver.
    type Frames: Frames;

    /// The names of the drivers that are there, in the order in which their interfaces get numbers.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Opens a driver: its hardware address, and its frames.
    fn open(&self, name: &str) -> io::Result<(Mac, Self::Frames)>;

    /// Removes the name of a driver that ended, where it stays behind.
    fn clear(&self, _name: &str) {}
}

/// The frames of a driver. Any call may take long, and may never return. The descriptor becomes
/// readable when there are frames.
pub(crate) trait Frames: AsFd + Send + Sync + 'static {
    /// Receives a frame; `WouldBlock` when there is none.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// The number of frames since the last call that came, and that `receive` cannot hand out.
    fn missed(&self) -> u64 {
        0
    }

    /// Sends a frame.
    fn send(&self, frame: &[u8]) -> io::Result<()>;

    /// Fails if the driver is gone.
    fn probe(&self) -> io::Result<()>;

    /// The longest packet that it carries, bytes, where that is known.
    fn mtu(&self) -> Option<u16> {
        None
    }

    /// Frames that it has room for until they are received, where that is few.
    fn rx_ring(&self) -> Option<u16> {
        None
    }
}

/// Adapters, for the thread that has the network.
struct Network<P: Place> {
    adapters: Adapters<Drivers<P>>,
    findings: Findings<P::Frames>,
}

/// The drivers of a place.
struct Drivers<P: Place> {
    finder: Finder<P::Frames>,
    /// The drivers that are being opened, and since when.
    opening: BTreeMap<String, (Instant, Driver<P::Frames>)>,
    work: Work,
    threads: Arc<AtomicUsize>,
}

/// A driver, as the network sees it. Its threads end when it is dropped.
struct Driver<F>(Arc<Card<F>>);

/// The state shared with the threads of a driver.
struct Card<F> {
    name: String,
    work: Work,
    /// Set when it is opened.
    frames: OnceLock<F>,
    queues: Mutex<Queues>,
    /// There is something for the thread that serves.
    serve: Condvar,
    /// There is something for the thread that receives, or room for more.
    receive: Condvar,
    sending: Call,
    receiving: Call,
    /// Held by the thread that receives, so that frames keep their order.
    buffer: Mutex<Vec<u8>>,
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
    lost: Lost,
    /// Whether the driver said that it has frames.
    readable: bool,
    probe: bool,
    /// Whether one of the threads is ending the driver.
    failing: bool,
    /// The error that ended the driver.
    failed: Option<io::Error>,
    /// Frames that the thread which serves has taken, and not sent yet.
    held: usize,
    /// Whether there is a thread that receives: it may have frames.
    receiving: bool,
    /// Nobody uses the driver any more.
    closed: bool,
}

/// A call into a driver: the monotonic time at which it began, in microseconds, or 0.
#[derive(Default)]
struct Call(AtomicU64);

impl Call {
    fn make<T>(&self, work: &Work, call: impl FnOnce() -> T) -> T {
        let now = work.now().as_micros();
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

/// Makes an interface on every adapter of a place, and on those that come later. The host has been
/// told the time.
pub(crate) fn attach<P: Place>(
    host: &mut Host,
    place: Arc<P>,
    work: Work,
) -> io::Result<Box<dyn scheme::Drivers<Host>>> {
    let drivers = Drivers::new(place, work)?;
    let findings = drivers.finder.findings();
    let mut adapters = Adapters::new(drivers, host);
    let start = Instant::now();
    while adapters.is_opening() && start.elapsed() < START {
        thread::sleep(Duration::from_millis(1));
        findings.accept();
        adapters.search(host);
    }
    findings.tell();
    Ok(Box::new(Network { adapters, findings }))
}

impl<P: Place> Bus for Drivers<P> {
    type Io = Driver<P::Frames>;

    fn names(&mut self) -> Option<Vec<String>> {
        self.finder.names()
    }

    /// They come sorted.
    fn sort(&self, _names: &mut [String]) {}

    fn open(&mut self, name: &str) -> io::Result<(Mac, Driver<P::Frames>)> {
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

impl<P: Place> Drivers<P> {
    fn new(place: Arc<P>, work: Work) -> io::Result<Self> {
        let threads = Arc::default();
        Ok(Self {
            finder: Finder::start(place, work.clone(), Arc::clone(&threads))?,
            opening: BTreeMap::new(),
            work,
            threads,
        })
    }

    /// Has a thread made that opens and serves a driver.
    fn start(&self, name: &str) -> io::Result<Driver<P::Frames>> {
        if self.threads.load(Ordering::Relaxed) >= MAX_THREADS {
            return Err(io::Error::other("too many of its drivers did not answer"));
        }
        let card = Arc::new(Card {
            name: name.to_owned(),
            work: self.work.clone(),
            frames: OnceLock::new(),
            queues: Mutex::default(),
            serve: Condvar::new(),
            receive: Condvar::new(),
            sending: Call::default(),
            receiving: Call::default(),
            buffer: Mutex::new(vec![0; LONGEST]),
        });
        self.finder
            .make_thread(Arc::clone(&card), Counted::new(&self.threads));
        Ok(Driver(card))
    }
}

/// A thread of a driver, for as long as it counts.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(threads: &Arc<AtomicUsize>) -> Self {
        threads.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(threads))
    }

    fn spawn(self, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let builder = thread::Builder::new().stack_size(STACK_SIZE);
        let counted = move || {
            body();
            drop(self);
        };
        builder.spawn(counted).map(drop)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<F> Card<F> {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock()
    }

    /// Ends a driver that cannot be used any more. The network sees that when nothing is
    /// [received](Self::received) any more.
    fn fail(&self, error: io::Error, place: &impl Place) {
        if std::mem::replace(&mut self.lock().failing, true) {
            return;
        }
        log::info!("{}: {error}", self.name);
        // Its name is free for another when the end is seen.
        place.clear(&self.name);
        let mut queues = self.lock();
        let unsent = std::mem::take(&mut queues.outgoing).len() + std::mem::take(&mut queues.held);
        queues.lost.refused += unsent as u64;
        queues.failed = Some(error);
        self.receive.notify_one();
    }

    /// No more frames come.
    fn received(&self, number: usize) {
        self.lock().receiving = false;
        self.serve.notify_one();
        self.work.receive(number);
    }

    /// Waits until the thread that receives has what a driver left at its end, unless a call of it
    /// does not come back.
    fn wait_for_receiver(&self) {
        let mut queues = self.lock();
        while queues.receiving && !queues.closed && !self.receiving.is_stuck(self.work.now()) {
            self.serve.wait_for(&mut queues, STUCK);
        }
    }
}

impl Queues {
    /// Whether the driver ended, and every frame of it was received.
    fn is_over(&self) -> bool {
        self.failed.is_some() && !self.receiving && self.incoming.is_empty()
    }
}

/// Opens a driver, and sends its frames until nobody uses it any more.
fn serve<P: Place>(card: &Arc<Card<P::Frames>>, place: &Arc<P>, threads: &Arc<AtomicUsize>) {
    let (name, work) = (&card.name, &card.work);
    let (mac, frames) = match card.sending.make(work, || place.open(name)) {
        Ok(opened) => opened,
        Err(error) => {
            // A daemon that ended leaves the name of its scheme behind.
            card.sending.make(work, || place.clear(name));
            card.lock().opened = Some(Err(error));
            return work.receive(SEARCH);
        }
    };
    let frames = card.frames.get_or_init(|| frames);
    card.lock().opened = Some(Ok(mac));
    work.receive(SEARCH);
    let Some(number) = wait(card, &card.serve, |queues| queues.number) else {
        return;
    };
    let receiver = {
        let (card, place) = (Arc::clone(card), Arc::clone(place));
        card.lock().receiving = true;
        Counted::new(threads).spawn(move || {
            if let Some(frames) = card.frames.get() {
                if let Err(error) = receive(&card, frames, number) {
                    card.fail(error, &*place);
                }
                receive_last(&card, frames, number);
            }
            card.received(number);
        })
    };
    if receiver.is_err() {
        card.lock().receiving = false;
    }
    // What is opened may be a link that is down.
    let sent = receiver
        .and_then(|()| card.sending.make(work, || frames.probe()))
        .and_then(|()| send(card, frames, number));
    if let Err(error) = sent {
        card.fail(error, &**place);
        card.wait_for_receiver();
        card.received(number);
    }
}

/// Waits until there is `something`. `None` if nobody uses the driver any more.
fn wait<F, T>(
    card: &Card<F>,
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

fn send<F: Frames>(card: &Card<F>, frames: &F, number: usize) -> io::Result<()> {
    let next = |queues: &mut Queues| {
        if std::mem::take(&mut queues.probe) {
            return Some(Task::Probe);
        }
        let frames = std::mem::take(&mut queues.outgoing);
        queues.held = frames.len();
        let tell = std::mem::take(&mut queues.full);
        (!frames.is_empty()).then_some(Task::Send { frames, tell })
    };
    while let Some(task) = wait(card, &card.serve, next) {
        match task {
            Task::Probe => card.sending.make(&card.work, || frames.probe())?,
            Task::Send {
                frames: outgoing,
                tell,
            } => {
                if send_all(card, frames, number, outgoing)? || tell {
                    card.work.receive(number);
                }
            }
        }
    }
    Ok(())
}

/// Sends frames that are held, until nobody uses the driver any more: one that was given up because it
/// did not answer is not called again, since on Redox a driver that ends during a call keeps its device.
/// True if the driver refused a frame.
fn send_all<F: Frames>(
    card: &Card<F>,
    frames: &F,
    number: usize,
    mut outgoing: VecDeque<Vec<u8>>,
) -> io::Result<bool> {
    let mut any_refused = false;
    while !outgoing.is_empty() {
        let few = outgoing.len().min(LOOK);
        let (mut sent, mut refused) = (0, 0);
        let result: io::Result<()> = outgoing.drain(..few).try_for_each(|frame| {
            if card.lock().closed {
                return Ok(());
            }
            refused += u64::from(!send_frame(card, frames, &frame)?);
            sent += 1;
            Ok(())
        });
        let mut queues = card.lock();
        // The end of the driver has counted all that were held.
        if queues.failed.is_none() {
            queues.held -= sent;
            queues.lost.refused += refused;
        }
        let closed = queues.closed;
        drop(queues);
        result?;
        any_refused |= refused > 0;
        if closed {
            break;
        }
        if look(card, frames, number)? {
            card.lock().readable = true;
            card.receive.notify_one();
        }
    }
    Ok(any_refused)
}

/// Sends a frame. False if the driver refused it.
fn send_frame<F: Frames>(card: &Card<F>, frames: &F, frame: &[u8]) -> io::Result<bool> {
    match card.sending.make(&card.work, || frames.send(frame)) {
        Ok(()) => Ok(true),
        Err(error) if is_refused(&error) => {
            log::debug!("{}: {error}", card.name);
            Ok(false)
        }
        Err(error) => Err(error),
    }
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
fn receive<F: Frames>(card: &Card<F>, frames: &F, number: usize) -> io::Result<()> {
    let work = &card.work;
    card.receiving
        .make(work, || work.watch(frames.as_fd(), number))?;
    loop {
        // The driver tells once of everything it has, and frames may have come before the
        // subscription.
        let mut more = true;
        while more {
            if wait(card, &card.receive, room).is_none() {
                return Ok(());
            }
            more = look(card, frames, number)?;
        }
        let readable = |queues: &mut Queues| {
            let readable = std::mem::take(&mut queues.readable);
            (readable || queues.failed.is_some()).then_some(queues.failed.is_some())
        };
        if wait(card, &card.receive, readable) != Some(false) {
            return Ok(());
        }
    }
}

/// Receives what a driver that ended still has. A packet socket tells that its link is down before it
/// hands out the frames that came before that.
fn receive_last<F: Frames>(card: &Card<F>, frames: &F, number: usize) {
    let mut told = false;
    for _ in 0..MAX_LAST_LOOKS {
        if wait(card, &card.receive, room).is_none() {
            return;
        }
        match look(card, frames, number) {
            Ok(true) => {}
            Err(_) if !told => told = true,
            _ => return,
        }
    }
}

/// Whether frames that are received have room.
fn room(queues: &mut Queues) -> Option<()> {
    (queues.incoming.len() < MAX_INCOMING).then_some(())
}

/// Receives frames, as many as there is room for, and has the network handle them, even if the driver
/// ends then. True if the driver may have more.
fn look<F: Frames>(card: &Card<F>, frames: &F, number: usize) -> io::Result<bool> {
    let mut buffer = card.buffer.lock();
    let room = MAX_INCOMING.saturating_sub(card.lock().incoming.len());
    let mut batch = VecDeque::new();
    let more = loop {
        if batch.len() >= room.min(BATCH) {
            break Ok(true);
        }
        match card
            .receiving
            .make(&card.work, || frames.receive(&mut buffer))
        {
            Ok(0) => break Ok(false),
            Ok(len) => batch.push_back(buffer[..len].to_vec()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    let missed = frames.missed();
    if !batch.is_empty() || missed > 0 {
        let mut queues = card.lock();
        queues.incoming.extend(batch);
        queues.lost.missed += missed;
        drop(queues);
        drop(buffer);
        card.work.receive(number);
    }
    more
}

impl<F: Frames> FrameIo for Driver<F> {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut queues = self.0.lock();
        match queues.incoming.pop_front() {
            Some(frame) => {
                let len = frame.len().min(buffer.len());
                buffer[..len].copy_from_slice(&frame[..len]);
                if queues.incoming.is_empty() {
                    self.0.receive.notify_one();
                }
                Ok(len)
            }
            None => {
                let over = queues.is_over();
                let ended = queues.failed.take_if(|_| over);
                Err(ended.unwrap_or(ErrorKind::WouldBlock.into()))
            }
        }
    }

    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        let mut queues = self.0.lock();
        if queues.failed.is_some() {
            return Err(ErrorKind::NotConnected.into());
        }
        queues.outgoing.push_back(frame.to_vec());
        self.0.serve.notify_one();
        Ok(())
    }

    fn has_room(&mut self) -> bool {
        let mut queues = self.0.lock();
        queues.full = queues.outgoing.len() >= MAX_OUTGOING;
        !queues.full
    }

    /// One that ended is alive until its last frame is received.
    fn is_alive(&self, now: Duration) -> bool {
        let stuck = self.0.sending.is_stuck(now) || self.0.receiving.is_stuck(now);
        !stuck && !self.0.lock().is_over()
    }

    fn probe(&mut self) {
        self.0.lock().probe = true;
        self.0.serve.notify_one();
    }

    fn take_lost(&mut self) -> Lost {
        std::mem::take(&mut self.0.lock().lost)
    }

    fn mtu(&self) -> Option<u16> {
        self.0.frames.get()?.mtu()
    }

    fn rx_ring(&self) -> Option<u16> {
        self.0.frames.get()?.rx_ring()
    }
}

impl<F> Drop for Driver<F> {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.serve.notify_one();
        self.0.receive.notify_one();
    }
}

impl<P: Place> scheme::Drivers<Host> for Network<P> {
    fn receive(&mut self, host: &mut Host, at: usize) {
        match at {
            SEARCH => {
                self.findings.accept();
                host.ask_for_adapters();
            }
            at => self.adapters.receive(host, at),
        }
    }

    fn readable(&mut self, at: usize) {
        if let Some(Driver(card)) = self.adapters.frames(at) {
            card.lock().readable = true;
            card.receive.notify_one();
        }
    }

    fn transmit(&mut self, host: &mut Host) -> bool {
        let more = self.adapters.transmit(host);
        while let Some((at, driver)) = self.adapters.poll_opened() {
            driver.0.lock().number = Some(at);
            driver.0.serve.notify_one();
        }
        more
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests;

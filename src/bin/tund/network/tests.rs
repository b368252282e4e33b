//! A place whose drivers answer when they are let.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;

use net::{Config, Services};
use scheme::FileServer;
use scheme::fuse::{self, LinuxProcesses, Mount};
use scheme::local::{Clock, ManualClock, SystemClock};

use super::*;

/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a call into a driver waits for.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut open = self.open.lock();
        while !*open {
            self.opened.wait(&mut open);
        }
    }

    fn open(&self) {
        *self.open.lock() = true;
        self.opened.notify_all();
    }

    fn shut(&self) {
        *self.open.lock() = false;
    }
}

/// Drivers, each call into which passes a gate.
struct Slow {
    names: Mutex<Vec<String>>,
    looking: Gate,
    opening: Gate,
    calls: Arc<Calls>,
}

/// The gates of a driver that is open, and what it was asked for.
#[derive(Default)]
struct Calls {
    probing: Gate,
    sending: Gate,
    receiving: Gate,
    /// Whether there is always another frame.
    endless: AtomicBool,
    given: AtomicUsize,
    taken: AtomicUsize,
}

struct Frame {
    fd: OwnedFd,
    calls: Arc<Calls>,
}

impl Slow {
    /// All gates are shut.
    fn new(names: &[&str]) -> Arc<Self> {
        Arc::new(Self {
            names: Mutex::new(names.iter().map(|&name| name.to_owned()).collect()),
            looking: Gate::default(),
            opening: Gate::default(),
            calls: Arc::default(),
        })
    }
}

impl Place for Slow {
    type Frames = Frame;

    fn names(&self) -> io::Result<Vec<String>> {
        self.looking.pass();
        Ok(self.names.lock().clone())
    }

    fn open(&self, name: &str) -> io::Result<(Mac, Frame)> {
        self.opening.pass();
        if name != "card" {
            return Err(ErrorKind::NotFound.into());
        }
        let frames = Frame {
            fd: io::pipe()?.0.into(),
            calls: Arc::clone(&self.calls),
        };
        Ok((Mac([2, 0, 0, 0, 0, 1]), frames))
    }
}

impl AsFd for Frame {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Frames for Frame {
    fn receive(&self, _: &mut [u8]) -> io::Result<usize> {
        self.calls.receiving.pass();
        if !self.calls.endless.load(Ordering::Relaxed) {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.calls.given.fetch_add(1, Ordering::Relaxed);
        Ok(60)
    }

    fn send(&self, _: &[u8]) -> io::Result<()> {
        self.calls.taken.fetch_add(1, Ordering::Relaxed);
        self.calls.sending.pass();
        Ok(())
    }

    fn probe(&self) -> io::Result<()> {
        self.calls.probing.pass();
        Ok(())
    }
}

fn drivers<P: Place>(place: &Arc<P>) -> Drivers<P> {
    let work = Work::new(Arc::new(ManualClock::default())).unwrap();
    Drivers::new(Arc::clone(place), work).unwrap()
}

/// A driver of the place, opened, whose threads have not begun.
fn open<P: Place>(drivers: &mut Drivers<P>) -> Driver<P::Frames> {
    loop {
        match drivers.open("card") {
            Ok((_, driver)) => return driver,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        thread::yield_now();
    }
}

#[test]
fn threads_of_drivers_that_do_not_answer_are_bounded() {
    let place = Slow::new(&[]);
    let drivers = drivers(&place);
    let started = (0..MAX_THREADS + 9).filter(|_| drivers.start("stuck").is_ok());
    assert_eq!(started.count(), MAX_THREADS);
    place.opening.open();
    while drivers.threads.load(Ordering::Relaxed) > 0 {
        thread::yield_now();
    }
    assert!(drivers.start("another").is_ok());
}

/// Frames that a driver has when it ends: more than fit.
const LEFT: usize = 3 * MAX_INCOMING;

/// A driver that tells that it ended before it hands out its frames, as a packet socket does.
struct Ending {
    fd: OwnedFd,
    told: AtomicBool,
    left: AtomicUsize,
}

/// A place where it is.
struct Brief;

impl Place for Brief {
    type Frames = Ending;

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(vec!["card".to_owned()])
    }

    fn open(&self, _: &str) -> io::Result<(Mac, Ending)> {
        let ending = Ending {
            fd: io::pipe()?.0.into(),
            told: AtomicBool::new(false),
            left: AtomicUsize::new(LEFT),
        };
        Ok((Mac([2, 0, 0, 0, 0, 1]), ending))
    }
}

impl AsFd for Ending {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Frames for Ending {
    fn receive(&self, _: &mut [u8]) -> io::Result<usize> {
        if !self.told.swap(true, Ordering::Relaxed) {
            return Err(io::Error::from_raw_os_error(libc::ENETDOWN));
        }
        let next = |left: usize| left.checked_sub(1);
        let order = Ordering::Relaxed;
        match self.left.fetch_update(order, order, next) {
            Ok(_) => Ok(60),
            Err(_) => Err(ErrorKind::WouldBlock.into()),
        }
    }

    fn send(&self, _: &[u8]) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::ENETDOWN))
    }

    fn probe(&self) -> io::Result<()> {
        match self.told.load(Ordering::Relaxed) {
            true => Err(io::Error::from_raw_os_error(libc::ENETDOWN)),
            false => Ok(()),
        }
    }
}

#[test]
fn frames_of_a_driver_that_ends_are_received_and_those_for_it_counted() {
    let mut drivers = drivers(&Arc::new(Brief));
    let mut driver = open(&mut drivers);
    let frame = [0; 60];
    for _ in 0..2 {
        driver.send(&frame).unwrap();
    }
    driver.0.lock().number = Some(0);
    driver.0.serve.notify_one();
    let mut buffer = [0; 64];
    let mut received = 0;
    while driver.is_alive(Duration::ZERO) {
        match driver.receive(&mut buffer) {
            Ok(len) => received += len / 60,
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::yield_now(),
            Err(error) => panic!("it ended while it was alive: {error}"),
        }
    }
    assert_eq!(received, LEFT);
    let error = driver.send(&frame).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotConnected);
    let error = driver.receive(&mut buffer).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENETDOWN));
    assert_eq!(driver.take_lost().refused, 2);
}

/// A place with a driver that ends while it takes a frame.
#[derive(Default)]
struct Halting(Arc<Halt>);

#[derive(Default)]
struct Halt {
    taking: AtomicBool,
    sending: Gate,
}

struct HaltingFrames {
    fd: OwnedFd,
    halt: Arc<Halt>,
}

impl Place for Halting {
    type Frames = HaltingFrames;

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn open(&self, _: &str) -> io::Result<(Mac, HaltingFrames)> {
        let (fd, halt) = (io::pipe()?.0.into(), Arc::clone(&self.0));
        Ok((Mac([2, 0, 0, 0, 0, 1]), HaltingFrames { fd, halt }))
    }
}

impl AsFd for HaltingFrames {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Frames for HaltingFrames {
    fn receive(&self, _: &mut [u8]) -> io::Result<usize> {
        match self.halt.taking.load(Ordering::Relaxed) {
            true => Err(io::Error::from_raw_os_error(libc::ENODEV)),
            false => Err(ErrorKind::WouldBlock.into()),
        }
    }

    fn send(&self, _: &[u8]) -> io::Result<()> {
        self.halt.taking.store(true, Ordering::Relaxed);
        self.halt.sending.pass();
        Ok(())
    }

    fn probe(&self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn frames_that_are_held_when_a_driver_ends_are_counted_once() {
    let place = Arc::new(Halting::default());
    let mut drivers = drivers(&place);
    let mut driver = open(&mut drivers);
    for _ in 0..9 {
        driver.send(&[0; 60]).unwrap();
    }
    driver.0.lock().number = Some(0);
    driver.0.serve.notify_one();
    while driver.is_alive(Duration::ZERO) {
        driver.0.lock().readable = true;
        driver.0.receive.notify_one();
        thread::yield_now();
    }
    assert_eq!(driver.take_lost().refused, 9);
    place.0.sending.open();
    while drivers.threads.load(Ordering::Relaxed) > 1 {
        thread::yield_now();
    }
    driver.0.lock().closed = true;
    driver.0.serve.notify_one();
    while drivers.threads.load(Ordering::Relaxed) > 0 {
        thread::yield_now();
    }
    assert_eq!(driver.take_lost().refused, 0);
}

#[test]
fn frames_at_a_driver_are_bounded() {
    let place = Slow::new(&[]);
    let calls = &place.calls;
    calls.endless.store(true, Ordering::Relaxed);
    for gate in [&place.opening, &calls.probing, &calls.receiving] {
        gate.open();
    }
    let mut drivers = drivers(&place);
    let mut driver = open(&mut drivers);
    driver.0.lock().number = Some(0);
    driver.0.serve.notify_one();
    while driver.0.lock().incoming.len() < MAX_INCOMING {
        thread::yield_now();
    }
    // No frame is asked for that there is no room for.
    let mut frame = [0; 60];
    for taken in 0..MAX_INCOMING {
        assert_eq!(calls.given.load(Ordering::Relaxed), MAX_INCOMING);
        assert_eq!(driver.receive(&mut frame).unwrap(), 60, "{taken}");
    }
    // Those that are being handed over are not among those that wait.
    let mut sent = 0;
    while driver.has_room() {
        driver.send(&frame).unwrap();
        sent += 1;
        assert!(sent <= 2 * MAX_OUTGOING);
    }
    assert!(sent >= MAX_OUTGOING);
    calls.sending.open();
    while !driver.has_room() {
        thread::yield_now();
    }
}

/// Waits until something is so.
fn wait_until(what: &str, so: impl Fn() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_names_are_looked_up_by_nobody_who_is_waited_for() {
    let place = Slow::new(&["card"]);
    let drivers = drivers(&place);
    let (finder, findings) = (&drivers.finder, drivers.finder.findings());
    let names = || {
        findings.accept();
        finder.names()
    };
    for _ in 0..9 {
        assert_eq!(names(), None, "it does not wait");
    }
    place.looking.open();
    wait_until("they are found", || {
        names() == Some(vec!["card".to_owned()])
    });
    // Whoever asks meanwhile hears of what came meanwhile.
    place.looking.shut();
    assert_eq!(names(), None);
    place.names.lock().push("other".to_owned());
    assert_eq!(names(), None);
    place.looking.open();
    wait_until("both are found", || {
        names().is_some_and(|names| names == ["card", "other"])
    });
}

/// The tree is served, with a card, and `test` is given its directory.
fn on_a_mount(place: &Arc<Slow>, test: impl FnOnce(&Path)) {
    let root = tempfile::tempdir().unwrap();
    let mount = match Mount::new(root.path()) {
        Ok(mount) => mount,
        Err(error) => {
            let _ = writeln!(io::stderr(), "skipped: no mount can be made here: {error}");
            return;
        }
    };
    let services = Services::all();
    let mut host = Host::new(
        Config {
            services,
            ..Config::default()
        },
        LinuxProcesses,
    );
    let clock = Arc::new(SystemClock::default());
    let _ = host.turn(clock.now());
    let work = Work::new(clock.clone()).unwrap();
    let drivers = attach(&mut host, Arc::clone(place), work.clone()).unwrap();
    let (stop, stopper) = io::pipe().unwrap();
    thread::scope(|scope| {
        let serve = || fuse::serve(host, &mount, &clock, stop.as_fd(), Some((drivers, work)));
        let served = scope.spawn(serve);
        // Also if the test fails.
        let stopper = stopper;
        test(root.path());
        drop(stopper);
        served.join().unwrap().unwrap();
    });
}

/// Other programs are answered: by the files of settings, and by this host over `lo0`.
fn others_are_answered(dir: &Path) {
    let dir = dir.to_owned();
    let (say, said) = mpsc::channel();
    // A thread that is never answered must not keep the test from failing.
    thread::spawn(move || {
        let interfaces = fs::read_dir(dir.join("netcfg/ifaces")).unwrap().count();
        let path = dir.join("udp/127.0.0.1:7");
        let mut socket = File::options().read(true).write(true).open(path).unwrap();
        socket.write_all(b"over lo0").unwrap();
        let mut echo = [0; 100];
        let len = socket.read(&mut echo).unwrap();
        let _ = say.send((interfaces, echo[..len].to_vec()));
    });
    let (interfaces, echo) = said.recv_timeout(PATIENCE).expect("others are answered");
    assert!(interfaces > 0);
    assert_eq!(echo, b"over lo0");
}

#[test]
fn a_driver_that_does_not_answer_stops_nobody() {
    let place = Slow::new(&["card"]);
    let calls = Arc::clone(&place.calls);
    on_a_mount(&place, |dir| {
        // Not even which drivers there are.
        others_are_answered(dir);
        place.looking.open();
        // It does not let itself be opened.
        others_are_answered(dir);
        place.opening.open();
        let eth0 = dir.join("netcfg/ifaces/eth0");
        wait_until("its interface", || eth0.exists());
        // It does not say whether it lives, and has nothing for us.
        others_are_answered(dir);
        calls.probing.open();
        // It does not take what it is given, more than there is room for.
        fs::write(eth0.join("addr/set"), "10.9.0.1/24\n").unwrap();
        for number in 2..200 {
            // Each asks for a hardware address.
            let path = dir.join(format!("udp/10.9.0.{number}:9"));
            let _ = fs::write(path, "to nobody");
        }
        wait_until("a frame on its way", || {
            calls.taken.load(Ordering::Relaxed) > 0
        });
        others_are_answered(dir);
        // It does not hand out what it has.
        calls.sending.open();
        others_are_answered(dir);
        calls.receiving.open();
        others_are_answered(dir);
    });
    for gate in [&place.looking, &place.opening] {
        gate.open();
    }
    for gate in [&calls.probing, &calls.sending, &calls.receiving] {
        gate.open();
    }
}

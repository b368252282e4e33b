//! The emulated network as threads: what one device sends, another receives, as [`Way`] says.
//!
//! For each way one thread reads every device of a side, and one writes what has arrived. A thread that
//! waits for a time does so with the finest timer the kernel has, and a late wake-up does not slow the
//! line: when a packet is due follows from when it was read.

use std::io;
use std::net::Ipv4Addr;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tun::host::HostTun;
use tun::{Tun, batch};

use crate::way::{Count, Shape, Way, destination};

/// Longest packet of a device.
const LONGEST: usize = 65_536;
/// Bytes of one read or write in batch mode.
const BATCH: usize = 65_536;
/// Packets that are read in one turn of a device of the kernel.
const BUDGET: usize = 64;
/// The highest priority: a network is not slower because the machine that emulates it is busy.
const PRIORITY: i32 = -20;
/// How long a reader waits before it checks whether the link is being taken down.
const TURN: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// A tun device, and the address whose packets it takes.
#[derive(Debug)]
pub(crate) struct Port {
    address: Ipv4Addr,
    device: Device,
}

#[derive(Debug)]
enum Device {
    Kernel(HostTun),
    Scheme(Tun),
}

impl Port {
    /// A tun device of the Linux kernel.
    pub(crate) fn kernel(address: Ipv4Addr, device: HostTun) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&device, true)?;
        let device = Device::Kernel(device);
        Ok(Self { address, device })
    }

    /// `tun/N` of a mount, which goes into batch mode.
    pub(crate) fn scheme(address: Ipv4Addr, device: Tun) -> io::Result<Self> {
        device.set_batch(true)?;
        let device = Device::Scheme(device);
        Ok(Self { address, device })
    }

    /// Waits for packets and takes them; returns without any now and then.
    fn receive(&self, buf: &mut [u8], mut take: impl FnMut(&[u8])) -> io::Result<()> {
        match &self.device {
            Device::Scheme(tun) => {
                let len = tun.read(buf)?;
                batch::packets(&buf[..len]).for_each(take);
            }
            Device::Kernel(tun) => {
                wait(tun.as_fd())?;
                for _ in 0..BUDGET {
                    match tun.read(buf) {
                        Ok(len) => take(&buf[..len]),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(())
    }

    /// Hands packets to the device. What it refuses, because it is down or gone, is lost as on a wire.
    fn send<'a>(&self, packets: impl Iterator<Item = &'a Vec<u8>>, frames: &mut Vec<u8>) {
        match &self.device {
            Device::Kernel(tun) => packets.for_each(|packet| drop(tun.write(packet))),
            Device::Scheme(tun) => {
                frames.clear();
                for packet in packets {
                    if frames.len() + packet.len() + 8 > BATCH {
                        let _ = tun.write(frames);
                        frames.clear();
                    }
                    batch::push(frames, packet);
                }
                if !frames.is_empty() {
                    let _ = tun.write(frames);
                }
            }
        }
    }
}

/// Gives this thread, and what it starts from now on, a priority as of nice(1).
pub(crate) fn prefer(priority: i32) {
    // Without it measurements are less exact on a busy machine, and no other harm is done.
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), priority);
}

fn wait(fd: BorrowedFd<'_>) -> io::Result<()> {
    match poll(
        &mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)],
        Some(&TURN),
    ) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// One direction of the link, and the condition variable of its writer.
struct Lane {
    way: Mutex<Way>,
    /// A packet arrives earlier than the writer expected.
    earlier: Condvar,
    /// The link is being taken down.
    over: AtomicBool,
}

impl Lane {
    fn new(shape: Shape, number: u64) -> Arc<Self> {
        Arc::new(Self {
            way: Mutex::new(Way::new(shape, number)),
            earlier: Condvar::new(),
            over: AtomicBool::new(false),
        })
    }

    fn way(&self) -> MutexGuard<'_, Way> {
        self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Reads a device until the link is over or the device is gone.
    fn read(&self, port: &Port) {
        prefer(PRIORITY);
        let mut buf = vec![0; LONGEST.max(BATCH)];
        while !self.is_over() {
            let mut way = None;
            let received = port.receive(&mut buf, |packet| {
                // The kernel sends IPv6 packets of its own accord.
                if destination(packet).is_some() {
                    let (way, _) = way.get_or_insert_with(|| {
                        let way = self.way();
                        let before = way.poll_at();
                        (way, before)
                    });
                    way.handle_packet(Instant::now(), packet);
                }
            });
            if let Some((way, before)) = way {
                let earlier = match (way.poll_at(), before) {
                    (Some(now), Some(before)) => now < before,
                    (now, None) => now.is_some(),
                    (None, Some(_)) => false,
                };
                drop(way);
                if earlier {
                    self.earlier.notify_one();
                }
            }
            match received {
                Ok(()) => (),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(_) => return,
            }
        }
    }

    /// Writes what arrives to the device of its address, until the link is over.
    fn write(&self, ports: &[Port]) {
        prefer(PRIORITY);
        // Without it the kernel wakes us up to 50 µs late; with it, on time. It cannot fail for a
        // number that fits, and if it did the link would only be less exact.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let mut arrived = Vec::new();
        let mut frames = Vec::with_capacity(BATCH);
        while self.poll_arrived(&mut arrived) {
            for port in ports {
                let its = |packet: &&Vec<u8>| destination(packet) == Some(port.address);
                port.send(arrived.iter().filter(its), &mut frames);
            }
            arrived.clear();
        }
    }

    /// Waits for packets that are due; `false` when the link is over.
    fn poll_arrived(&self, arrived: &mut Vec<Vec<u8>>) -> bool {
        let mut way = self.way();
        loop {
            if self.is_over() {
                return false;
            }
            let now = Instant::now();
            while let Some(packet) = way.poll_delivery(now) {
                arrived.push(packet);
            }
            if !arrived.is_empty() {
                return true;
            }
            let patience = way.poll_at().map_or(Duration::from_secs(1), |at| {
                at.saturating_duration_since(now)
            });
            let waited = self.earlier.wait_timeout(way, patience);
            way = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        // Under the lock: `over` must not change between the check and the wait.
        let _way = self.way();
        self.earlier.notify_all();
    }
}

/// The network between two sides. It is there until it is dropped.
pub(crate) struct Link {
    lanes: [Arc<Lane>; 2],
    sides: [Arc<[Port]>; 2],
    threads: Vec<JoinHandle<()>>,
}

impl Link {
    /// Connects the devices of two sides; those of one side share the line in both directions.
    pub(crate) fn new(shape: Shape, near: Vec<Port>, far: Vec<Port>) -> Self {
        let lanes = [Lane::new(shape, 0), Lane::new(shape, 1)];
        let sides: [Arc<[Port]>; 2] = [near.into(), far.into()];
        let mut threads = Vec::new();
        for (lane, [from, to]) in lanes.iter().zip([[0, 1], [1, 0]]) {
            for number in 0..sides[from].len() {
                let (lane, side) = (Arc::clone(lane), Arc::clone(&sides[from]));
                threads.push(thread::spawn(move || lane.read(&side[number])));
            }
            let (lane, side) = (Arc::clone(lane), Arc::clone(&sides[to]));
            threads.push(thread::spawn(move || lane.write(&side)));
        }
        Self {
            lanes,
            sides,
            threads,
        }
    }

    /// From now on nothing is lost and nothing comes late.
    pub(crate) fn calm(&self) {
        self.lanes.iter().for_each(|lane| lane.way().calm());
    }

    /// The packet counters: first from near to far, then from far to near.
    pub(crate) fn counts(&self) -> [Count; 2] {
        [0, 1].map(|lane| self.lanes[lane].way().count())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.lanes.iter().for_each(|lane| lane.end());
        for port in self.sides.iter().flat_map(|side| side.iter()) {
            if let Device::Scheme(tun) = &port.device {
                // Ends the read; if the daemon is gone, so is the read.
                let _ = tun.shut();
            }
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

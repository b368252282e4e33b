//! Random operations on the tun driver, and beside it a model small enough to be trusted. After
//! every step both must agree: on the result, on the queued packets and their order, on readiness,
//! `FIONREAD`, flags and every other text; and every packet is in exactly one place.
#![allow(missing_docs)]

mod common;

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use common::packet::{self, echo_request, udp};
use common::system::machine;
use net::ifnet::DropReason;
use net::{Host, Services};
use scheme::errno::{self, Errno};
use scheme::local::{Fd, Local, ManualClock, Process};
use scheme::{OpenFlags, Pid, Ready, SignalTarget};

/// Units that are opened by number; `clone` may open one more.
const UNITS: u16 = 3;
const TUNMRU: usize = 16_384;
const PID: u32 = 42;
const CHILD: u32 = 50;

const TUNSIFINFO: u32 = 0x8008_745b;
const TUNGIFINFO: u32 = 0x4008_745c;
const TUNSLMODE: u32 = 0x8004_745d;
const TUNSIFMODE: u32 = 0x8004_745e;
const TUNSIFPID: u32 = 0x2000_745f;
const TUNSIFHEAD: u32 = 0x8004_7460;
const TUNGIFHEAD: u32 = 0x4004_7461;
const TUNGIFNAME: u32 = 0x4020_7462;
const TUNSTRANSIENT: u32 = 0x8004_7462;
const TUNGTRANSIENT: u32 = 0x4004_7463;
const TUNSBATCH: u32 = 0x8004_7482;
const TUNGBATCH: u32 = 0x4004_7483;
const TUNSHUT: u32 = 0x2000_7484;
const FIOGETOWN: u32 = 0x4004_667b;
const FIOSETOWN: u32 = 0x8004_667c;
const FIOASYNC: u32 = 0x8004_667d;
const FIONREAD: u32 = 0x4004_667f;

/// The model of an interface and its unit.
#[derive(Clone)]
struct Unit {
    /// The handle that has it open.
    holder: Option<usize>,
    pid: u32,
    up: bool,
    running: bool,
    multicast: bool,
    broadcast: bool,
    mtu: u16,
    if_type: u8,
    baudrate: i32,
    addrs: Vec<String>,
    ifhead: bool,
    lmode: bool,
    batch: bool,
    transient: bool,
    asynchronous: bool,
    owner: i32,
    queue: VecDeque<Vec<u8>>,
    /// The bounds of the queue: packets and bytes.
    limits: (usize, usize),
    counters: Counters,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Counters {
    ipackets: u64,
    ibytes: u64,
    opackets: u64,
    obytes: u64,
    delivered: u64,
    oerrors: u64,
    drops: BTreeMap<&'static str, u64>,
}

impl Unit {
    fn new() -> Self {
        Self {
            holder: None,
            pid: 0,
            up: false,
            running: false,
            multicast: true,
            broadcast: false,
            mtu: 1500,
            if_type: 0x17,
            baudrate: 0,
            addrs: Vec::new(),
            ifhead: false,
            lmode: false,
            batch: false,
            transient: false,
            asynchronous: false,
            owner: 0,
            queue: VecDeque::new(),
            limits: (250, 1_048_576),
            counters: Counters::default(),
        }
    }

    fn drop(&mut self, reason: &'static str, packets: u64) {
        if packets > 0 {
            *self.counters.drops.entry(reason).or_default() += packets;
        }
    }

    /// Drops an outgoing packet, and reports the error to its sender.
    fn refuse(&mut self, reason: &'static str, error: Errno) -> Result<(), Errno> {
        self.counters.oerrors += 1;
        self.drop(reason, 1);
        Err(error)
    }

    /// `tunclose`.
    fn close(&mut self) {
        self.holder = None;
        self.owner = 0;
        (self.up, self.running, self.batch) = (false, false, false);
        let purged = self.queue.len() as u64;
        self.queue.clear();
        self.drop("purged", purged);
    }

    /// `tunoutput`.
    fn output(&mut self, af: u32, packet: &[u8], next_hop: Option<Ipv4Addr>) -> Result<(), Errno> {
        if self.holder.is_none() {
            return self.refuse("not_open", errno::EHOSTDOWN);
        }
        if af == 10 && self.mtu < 1280 {
            return self.refuse("no_ipv6", errno::EAFNOSUPPORT);
        }
        let mut frame = Vec::new();
        if self.ifhead {
            frame.extend_from_slice(&af.to_be_bytes());
        } else if af != 2 {
            return self.refuse("family_refused", errno::EAFNOSUPPORT);
        } else if self.lmode {
            frame.extend_from_slice(&[16, 2, 0, 0]);
            frame.extend_from_slice(&next_hop.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
            frame.resize(16, 0);
        }
        frame.extend_from_slice(packet);
        let bytes: usize = self.queue.iter().map(Vec::len).sum();
        if self.queue.len() >= self.limits.0 || bytes + frame.len() > self.limits.1 {
            self.drop("queue_full", 1);
            return Err(errno::ENOBUFS);
        }
        self.counters.opackets += 1;
        self.counters.obytes += packet.len() as u64;
        self.queue.push_back(frame);
        Ok(())
    }

    /// A new send queue: what is queued goes into it, in order, and what does not fit is dropped.
    fn set_limits(&mut self, limits: (usize, usize)) {
        self.limits = limits;
        let (mut kept, mut bytes) = (VecDeque::new(), 0);
        for frame in std::mem::take(&mut self.queue) {
            if kept.len() < limits.0 && bytes + frame.len() <= limits.1 {
                bytes += frame.len();
                kept.push_back(frame);
            } else {
                self.drop("queue_full", 1);
            }
        }
        self.queue = kept;
    }

    /// `tunread`, into a buffer of that size.
    fn read(&mut self, room: usize) -> Result<Vec<u8>, Errno> {
        if room == 0 {
            return Ok(Vec::new());
        }
        if self.queue.is_empty() {
            return Err(errno::EAGAIN);
        }
        let mut all = Vec::new();
        if !self.batch {
            let mut frame = self.queue.pop_front().unwrap();
            if frame.len() > room {
                frame.truncate(room);
                self.drop("truncated", 1);
            } else {
                self.counters.delivered += 1;
            }
            return Ok(frame);
        }
        while let Some(frame) = self.queue.front() {
            if all.len() + batched(frame) > room {
                break;
            }
            all.extend_from_slice(&(frame.len() as u32).to_ne_bytes());
            all.extend_from_slice(frame);
            all.resize(all.len().next_multiple_of(4), 0);
            self.queue.pop_front();
            self.counters.delivered += 1;
        }
        match all.is_empty() {
            true => Err(errno::EMSGSIZE),
            false => Ok(all),
        }
    }

    fn fionread(&self) -> i32 {
        let len = |frame: &Vec<u8>| match self.batch {
            true => batched(frame),
            false => frame.len(),
        };
        self.queue.front().map_or(0, len) as i32
    }

    fn flags(&self) -> String {
        let names = [
            (self.up, "UP"),
            (self.broadcast, "BROADCAST"),
            (!self.broadcast, "POINTOPOINT"),
            (self.running, "RUNNING"),
            (self.multicast, "MULTICAST"),
        ];
        let names = names
            .into_iter()
            .filter_map(|(on, name)| on.then_some(name));
        names.collect::<Vec<_>>().join(",")
    }

    fn set_mtu(&mut self, mtu: u16) {
        self.mtu = mtu;
        if mtu < 1280 {
            self.addrs.retain(|addr| !addr.contains(':'));
        }
    }

    fn init(&mut self) {
        (self.up, self.running) = (true, true);
    }
}

/// The bytes that a frame takes in a batch.
fn batched(frame: &[u8]) -> usize {
    4 + frame.len().next_multiple_of(4)
}

/// A packet that a program writes to the device, by its destination.
#[derive(Clone)]
enum Packet {
    Garbage(usize),
    /// For another host.
    Elsewhere,
    Elsewhere6,
    /// For address `addr` of unit `unit`, from its network.
    Echo {
        unit: u16,
        addr: u8,
        data: Vec<u8>,
    },
}

impl Packet {
    fn random(rng: &mut fastrand::Rng) -> Self {
        match rng.u8(0..10) {
            0..2 => Self::Garbage(rng.usize(0..100)),
            2 => Self::Garbage(rng.usize(TUNMRU - 2..=TUNMRU + 2)),
            3 => Self::Elsewhere,
            4 => Self::Elsewhere6,
            _ => Self::Echo {
                unit: rng.u16(0..UNITS),
                addr: rng.u8(0..3),
                data: vec![rng.u8(..); rng.usize(0..30)],
            },
        }
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Garbage(len) => vec![0; *len],
            Self::Elsewhere => udp(("10.200.0.1", 9), ("10.201.0.1", 9), b"on"),
            Self::Elsewhere6 => udp(("fd98::1", 9), ("fd99::1", 9), b"on"),
            Self::Echo { unit, addr, data } => {
                let net = format!("10.{unit}.{addr}");
                echo_request(&format!("{net}.9"), &format!("{net}.1"), 1, data)
            }
        }
    }
}

/// A descriptor's file.
#[derive(Clone)]
struct Handle {
    unit: u16,
    fds: Vec<Fd>,
    read: bool,
    write: bool,
    gone: bool,
}

/// The driver, the model, and the random generator.
struct Run {
    rng: fastrand::Rng,
    local: Arc<Local<Host>>,
    clock: Arc<ManualClock>,
    process: Process<Host>,
    units: BTreeMap<u16, Unit>,
    handles: BTreeMap<usize, Handle>,
    next: usize,
    /// The expected targets of `SIGIO`.
    signals: Vec<SignalTarget>,
    /// The number of times that each kind of step had each result.
    seen: BTreeMap<String, u32>,
    what: String,
}

impl Run {
    fn new(seed: u64) -> Self {
        let (local, clock) = machine(seed, Services::empty());
        let process = local.process(PID, 0);
        Self {
            rng: fastrand::Rng::with_seed(seed),
            local,
            clock,
            process,
            units: BTreeMap::new(),
            handles: BTreeMap::new(),
            next: 0,
            signals: Vec::new(),
            seen: BTreeMap::new(),
            what: String::new(),
        }
    }

    /// Compares two results, and counts the result.
    fn agree<T: PartialEq + std::fmt::Debug>(
        &mut self,
        step: &str,
        real: Result<T, Errno>,
        model: Result<T, Errno>,
    ) {
        let kind = match &model {
            Ok(_) => "ok".to_owned(),
            Err(error) => format!("{error:?}"),
        };
        *self.seen.entry(format!("{step} {kind}")).or_default() += 1;
        assert_eq!(real, model, "{}", self.what);
    }

    /// Any handle, seldom one that was shut.
    fn handle(&mut self) -> Option<(usize, Handle)> {
        let shut = self.rng.u8(0..8) == 0;
        let mut some: Vec<_> = self.handles.iter().collect();
        if !shut && some.iter().any(|(_, handle)| !handle.gone) {
            some.retain(|(_, handle)| !handle.gone);
        }
        let (&id, handle) = self.rng.choice(some)?;
        Some((id, handle.clone()))
    }

    fn fd(&mut self, handle: &Handle) -> Fd {
        handle.fds[self.rng.usize(0..handle.fds.len())]
    }

    /// The unit that a handle still has.
    fn unit(&mut self, handle: &Handle) -> Result<&mut Unit, Errno> {
        match handle.gone {
            true => Err(errno::EHOSTDOWN),
            false => self.units.get_mut(&handle.unit).ok_or(errno::EHOSTDOWN),
        }
    }

    fn last_close(&mut self, number: u16) {
        let unit = self.units.get_mut(&number).unwrap();
        unit.close();
        if unit.transient {
            self.units.remove(&number);
        }
    }

    fn step(&mut self) {
        let step = self.rng.u8(0..100);
        self.what = format!("step {step}");
        match step {
            0..6 => self.open(),
            6..9 => self.dup(),
            9..13 => self.close(),
            13..35 => self.inject(),
            35..50 => self.read(),
            50..70 => self.write(),
            70..72 => self.shut(),
            72..86 => self.ioctl(),
            86..88 => self.fork(),
            88..99 => self.configure(),
            _ => {
                self.clock.advance(Duration::from_secs(1));
                self.local.pump();
            }
        }
        self.check();
    }

    fn open(&mut self) {
        let lowest = (0..).find(|unit| self.units.get(unit).is_none_or(|u| u.holder.is_none()));
        let (path, unit) = match self.rng.u16(0..=UNITS) {
            UNITS => ("clone".to_owned(), lowest.unwrap()),
            unit => (unit.to_string(), unit),
        };
        let (read, write) =
            [(true, true), (true, true), (true, false), (false, true)][self.rng.usize(0..4)];
        let mut flags = OpenFlags::empty();
        flags.set(OpenFlags::READ, read);
        flags.set(OpenFlags::WRITE, write);
        self.what = format!("open {path} {flags:?}");
        let opened = self.process.open(&format!("/scheme/tun/{path}"), flags);
        let busy = self.units.get(&unit).is_some_and(|u| u.holder.is_some());
        let model = if busy { Err(errno::EBUSY) } else { Ok(()) };
        self.agree("open", opened.map(drop), model);
        let Ok(fd) = opened else { return };
        self.process.set_nonblocking(fd, true).unwrap();
        let path = self.process.path(fd).unwrap();
        assert_eq!(path, format!("/scheme/tun/{unit}"));
        let handle = Handle {
            unit,
            fds: vec![fd],
            read,
            write,
            gone: false,
        };
        let model = self.units.entry(unit).or_insert_with(Unit::new);
        (model.holder, model.pid) = (Some(self.next), PID);
        self.handles.insert(self.next, handle);
        self.next += 1;
    }

    fn dup(&mut self) {
        let Some((id, handle)) = self.handle() else {
            return;
        };
        let fd = self.fd(&handle);
        let copy = self.process.dup(fd).unwrap();
        self.handles.get_mut(&id).unwrap().fds.push(copy);
    }

    fn close(&mut self) {
        let Some((id, handle)) = self.handle() else {
            return;
        };
        let fd = self.fd(&handle);
        self.what = format!("close {fd:?} of tun{}", handle.unit);
        self.process.close(fd).unwrap();
        let fds = &mut self.handles.get_mut(&id).unwrap().fds;
        fds.retain(|&other| other != fd);
        if fds.is_empty() {
            self.handles.remove(&id);
            if !handle.gone {
                self.last_close(handle.unit);
            }
        }
    }

    /// Sends a packet from the system, by way of a capture.
    fn inject(&mut self) {
        let unit = self.rng.u16(0..=UNITS);
        let number = self.rng.u8(..);
        let len = match self.rng.u8(0..4) {
            0 => self.rng.usize(1..1600),
            _ => self.rng.usize(1..200),
        };
        let af = *self.rng.choice(&[2, 2, 2, 2, 10, 28, 4, 99]).unwrap();
        let packet = vec![number; len];
        self.what = format!("inject {len} bytes of family {af} into tun{unit}");
        let bpf = self
            .process
            .open(&format!("bpf/tun{unit}"), OpenFlags::WRITE);
        let Some(model) = self.units.get_mut(&unit) else {
            return self.agree("inject", bpf.map(drop), Err(errno::ENOENT));
        };
        let expected = if af == 99 {
            let refused = match model.holder {
                Some(_) => model.refuse("family_refused", errno::EAFNOSUPPORT),
                None => model.refuse("not_open", errno::EHOSTDOWN),
            };
            refused.map(|()| 0)
        } else if len > usize::from(model.mtu) {
            Err(errno::EMSGSIZE)
        } else {
            let own = if af == 28 { 10 } else { af };
            let next_hop = (len >= 20).then(|| Ipv4Addr::from([number; 4]));
            let done = model.output(own, &packet, next_hop);
            if done.is_ok() {
                self.sigio(unit);
            }
            done.map(|()| 4 + len)
        };
        let frame = [&u32::to_ne_bytes(af)[..], &packet].concat();
        let written = self.process.write(bpf.unwrap(), &frame);
        self.process.close(bpf.unwrap()).unwrap();
        self.agree("inject", written, expected);
    }

    /// Expects `SIGIO` for a queued packet, if it is on.
    fn sigio(&mut self, unit: u16) {
        let unit = &self.units[&unit];
        let target = match unit.owner {
            _ if !unit.asynchronous => return,
            0 => return,
            1.. => SignalTarget::Process(Pid(unit.owner.unsigned_abs())),
            _ => SignalTarget::Group(Pid(unit.owner.unsigned_abs())),
        };
        if !self.signals.contains(&target) {
            self.signals.push(target);
        }
    }

    fn read(&mut self) {
        let Some((_, handle)) = self.handle() else {
            return;
        };
        let room = match self.rng.u8(0..6) {
            0 => 0,
            // This much of an answer is needed to recognise it.
            1 => self.rng.usize(26..60),
            2 => self.rng.usize(60..600),
            _ => 20_000,
        };
        self.what = format!("read {room} of tun{}", handle.unit);
        let fd = self.fd(&handle);
        let mut buf = vec![0; room];
        let real = self.process.read(fd, &mut buf);
        let real = real.map(|len| buf[..len].to_vec()).map(neutral);
        let model = match handle.read {
            false => Err(errno::EBADF),
            true => self.unit(&handle).and_then(|unit| unit.read(room)),
        };
        self.agree("read", real, model.map(neutral));
    }

    fn write(&mut self) {
        let Some((_, handle)) = self.handle() else {
            return;
        };
        let (head, batch) = match self.unit(&handle) {
            Ok(unit) => (unit.ifhead, unit.batch),
            Err(_) => (false, false),
        };
        let number = if batch { self.rng.usize(0..4) } else { 1 };
        let mut frames = Vec::new();
        let mut bytes = Vec::new();
        for _ in 0..number {
            let packet = Packet::random(&mut self.rng);
            let af = *self
                .rng
                .choice(&[2, 2, 2, 2, 10, 24, 28, 30, 4, 7])
                .unwrap();
            let mut frame = Vec::new();
            if head {
                frame.extend_from_slice(&u32::to_be_bytes(af));
            }
            frame.extend_from_slice(&packet.bytes());
            if batch {
                bytes.extend_from_slice(&(frame.len() as u32).to_ne_bytes());
            }
            bytes.extend_from_slice(&frame);
            if batch {
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
            frames.push((if head { af } else { 2 }, packet, frame));
        }
        // Now and then the end is missing.
        let short = self.rng.u8(0..12) == 0 && !bytes.is_empty();
        if short {
            let most = *self.rng.choice(&[8, usize::MAX]).unwrap();
            bytes.truncate(self.rng.usize(0..bytes.len().min(most)));
        }
        self.what = format!("write {} bytes to tun{}", bytes.len(), handle.unit);
        let expected = match () {
            () if !handle.write => Err(errno::EBADF),
            () if handle.gone => Err(errno::EHOSTDOWN),
            () if bytes.is_empty() => Ok(0),
            () if batch => self.expect_batch(&handle, &bytes, short, head, frames),
            () => {
                let (mut af, packet, _) = frames.remove(0);
                let size = bytes.len() - if head { 4.min(bytes.len()) } else { 0 };
                // A packet whose end is missing is not a valid packet.
                let packet = if short { Packet::Garbage(size) } else { packet };
                if !head {
                    af = 2;
                }
                if head && bytes.len() < 4 {
                    Err(errno::EINVAL)
                } else if size > TUNMRU {
                    Err(errno::EIO)
                } else {
                    self.input(handle.unit, af, &packet, size)
                        .map(|()| bytes.len())
                }
            }
        };
        let fd = self.fd(&handle);
        let written = self.process.write(fd, &bytes);
        self.agree(if batch { "batch" } else { "write" }, written, expected);
    }

    /// A batch is checked completely, frame by frame, before any of it is processed.
    fn expect_batch(
        &mut self,
        handle: &Handle,
        bytes: &[u8],
        short: bool,
        head: bool,
        frames: Vec<(u32, Packet, Vec<u8>)>,
    ) -> Result<usize, Errno> {
        let mut at = 0;
        let mut taken = Vec::new();
        for (af, packet, frame) in frames {
            if short && at == bytes.len() {
                break;
            }
            let there = bytes.len() >= at + 4 + frame.len();
            if !there || frame.is_empty() {
                return Err(errno::EINVAL);
            }
            let size = frame.len() - if head { 4 } else { 0 };
            if size > TUNMRU {
                return Err(errno::EIO);
            }
            if !matches!(af, 2 | 10 | 24 | 28 | 30) {
                return Err(errno::EAFNOSUPPORT);
            }
            at += 4 + frame.len().next_multiple_of(4);
            if bytes.len() < at {
                return Err(errno::EINVAL);
            }
            taken.push((af, packet, size));
        }
        for (af, packet, size) in taken {
            self.input(handle.unit, af, &packet, size)?;
        }
        Ok(bytes.len())
    }

    /// The expected handling of a packet by the system.
    fn input(&mut self, number: u16, af: u32, packet: &Packet, size: usize) -> Result<(), Errno> {
        let unit = self.units.get_mut(&number).unwrap();
        if !matches!(af, 2 | 10 | 24 | 28 | 30) {
            unit.drop("unknown_family", 1);
            return Err(errno::EAFNOSUPPORT);
        }
        unit.counters.ipackets += 1;
        unit.counters.ibytes += size as u64;
        match (af, packet) {
            (2, Packet::Elsewhere) => unit.drop("not_for_us", 1),
            (10.., Packet::Elsewhere6) if unit.mtu < 1280 => unit.drop("no_ipv6", 1),
            (10.., Packet::Elsewhere6) => unit.drop("not_for_us", 1),
            (2, Packet::Echo { unit, addr, data }) => self.echo(number, *unit, *addr, data),
            _ => unit.drop("malformed", 1),
        }
        Ok(())
    }

    /// An answer leaves by the network's interface, or else by the one that was asked.
    fn echo(&mut self, asked: u16, unit: u16, addr: u8, data: &[u8]) {
        let net = format!("10.{unit}.{addr}");
        let own = format!("{net}.1/24");
        let home = self.units.get(&unit);
        if !home.is_some_and(|home| home.addrs.contains(&own)) {
            return self.units.get_mut(&asked).unwrap().drop("not_for_us", 1);
        }
        let way = [unit, asked].into_iter().find(|way| self.units[way].up);
        let Some(way) = way else { return };
        let (us, peer) = (format!("{net}.1"), format!("{net}.9"));
        let mut reply = echo_request(&us, &peer, 1, data);
        reply[20] = 0;
        reply[22..24].fill(0);
        let sum = packet::checksum(&[&reply[20..]]);
        reply[22..24].copy_from_slice(&sum.to_be_bytes());
        let out = self.units.get_mut(&way).unwrap();
        if out.output(2, &reply, peer.parse().ok()).is_ok() {
            self.sigio(way);
        }
    }

    fn shut(&mut self) {
        let Some((id, handle)) = self.handle() else {
            return;
        };
        self.what = format!("TUNSHUT of tun{}", handle.unit);
        let fd = self.fd(&handle);
        let real = self.process.ioctl(fd, TUNSHUT, &mut []);
        let model = self.unit(&handle).map(drop);
        self.agree("shut", real, model);
        if !handle.gone {
            self.handles.get_mut(&id).unwrap().gone = true;
            self.last_close(handle.unit);
        }
    }

    fn ioctl(&mut self) {
        let Some((_, handle)) = self.handle() else {
            return;
        };
        let fd = self.fd(&handle);
        let on = self.rng.bool();
        let mut arg = i32::from(on).to_ne_bytes().to_vec();
        let requests = [
            TUNSIFHEAD,
            TUNSLMODE,
            TUNSBATCH,
            TUNSTRANSIENT,
            FIOASYNC,
            FIOSETOWN,
            TUNSIFMODE,
            TUNSIFINFO,
            0x8004_7401,
        ];
        let request = *self.rng.choice(&requests).unwrap();
        if request == TUNSTRANSIENT && on && self.rng.u8(0..3) > 0 {
            return;
        }
        let owner = *self.rng.choice(&[0, 7, -9, 999, 5000, i32::MIN]).unwrap();
        let mode = *self
            .rng
            .choice(&[0x10, 0x2, 0x8010, 0x1002, 0x12, 0])
            .unwrap();
        let mtu = *self
            .rng
            .choice(&[0_u16, 71, 72, 1279, 1280, 1500, 9000, 65_535])
            .unwrap();
        let (if_type, baudrate) = (self.rng.u8(..), self.rng.i32(..));
        match request {
            FIOSETOWN => arg = owner.to_ne_bytes().to_vec(),
            TUNSIFMODE => arg = i32::to_ne_bytes(mode).to_vec(),
            TUNSIFINFO => {
                arg = baudrate.to_ne_bytes().to_vec();
                arg.extend_from_slice(&mtu.to_ne_bytes());
                arg.extend_from_slice(&[if_type, 0]);
            }
            _ => {}
        }
        self.what = format!("ioctl {request:#x} {arg:?} of tun{}", handle.unit);
        let real = self.process.ioctl(fd, request, &mut arg);
        let model = self.unit(&handle).and_then(|unit| {
            match request {
                TUNSIFHEAD => (unit.ifhead, unit.lmode) = (on, unit.lmode && !on),
                TUNSLMODE => (unit.lmode, unit.ifhead) = (on, unit.ifhead && !on),
                TUNSBATCH => unit.batch = on,
                TUNSTRANSIENT => unit.transient = on,
                FIOASYNC => unit.asynchronous = on,
                FIOSETOWN => match owner {
                    999 => return Err(errno::EPERM),
                    5000 | i32::MIN => return Err(errno::ESRCH),
                    _ => unit.owner = owner,
                },
                TUNSIFMODE if unit.up => return Err(errno::EBUSY),
                TUNSIFMODE => match mode & !0x9000 {
                    0x10 | 0x2 => {
                        unit.broadcast = mode & 0x2 != 0;
                        unit.multicast = mode & 0x9000 != 0;
                    }
                    _ => return Err(errno::EINVAL),
                },
                TUNSIFINFO if mtu < 72 => return Err(errno::EINVAL),
                TUNSIFINFO => {
                    unit.set_mtu(mtu);
                    (unit.if_type, unit.baudrate) = (if_type, baudrate);
                }
                _ => return Err(errno::ENOTTY),
            }
            Ok(())
        });
        self.agree(&format!("ioctl {request:#x}"), real, model);
    }

    /// Forks a child with the same descriptors, which claims a unit, and exits.
    fn fork(&mut self) {
        let Some((_, handle)) = self.handle() else {
            return;
        };
        let fd = self.fd(&handle);
        self.what = format!("TUNSIFPID of tun{} by a child", handle.unit);
        let child = self.process.fork(CHILD);
        let real = child.ioctl(fd, TUNSIFPID, &mut []);
        drop(child);
        let model = self.unit(&handle).map(|unit| unit.pid = CHILD);
        self.agree("pid", real, model);
    }

    /// Writes one or two lines to netcfg.
    fn configure(&mut self) {
        let number = self.rng.u16(0..UNITS);
        let v4 = format!("10.{number}.{}.1/24", self.rng.u8(0..3));
        let v6 = format!("fd0{number}::{}/64", self.rng.u8(1..4));
        let addr = if self.rng.u8(0..3) == 0 { v6 } else { v4 };
        let twice = self.rng.u8(0..6) == 0;
        let path = *self
            .rng
            .choice(&[
                "flags", "addr/set", "addr/add", "addr/add", "addr/rm", "mtu", "queue", "destroy",
            ])
            .unwrap();
        let limits = (self.rng.usize(1..20), self.rng.usize(1..4000));
        let mtu = *self
            .rng
            .choice(&[71_u32, 72, 1000, 1280, 1500, 65_536])
            .unwrap();
        let up = self.rng.bool();
        let mut line = match path {
            "flags" => (if up { "up" } else { "down" }).to_owned(),
            "mtu" => mtu.to_string(),
            "queue" => format!("fifo limit {} packets {} bytes", limits.0, limits.1),
            "destroy" => "1".to_owned(),
            _ => addr.clone(),
        };
        let twice = twice && path.starts_with("addr");
        if twice {
            line = format!("{line}\n{line}");
        }
        self.what = format!("{line:?} to {path} of tun{number}");
        let file = format!("netcfg/ifaces/tun{number}/{path}");
        let opened = self.process.open(&file, OpenFlags::WRITE);
        let real = opened.and_then(|file| {
            let written = self.process.write(file, format!("{line}\n").as_bytes());
            self.process.close(file).unwrap();
            written.map(drop)
        });
        let model = match self.units.get_mut(&number) {
            None => Err(errno::ENOENT),
            Some(unit) => {
                let has = unit.addrs.contains(&addr);
                let v6 = addr.contains(':') && unit.mtu < 1280;
                match path {
                    "addr/set" | "addr/add" if v6 => Err(errno::EINVAL),
                    "addr/add" if has || twice => Err(errno::EINVAL),
                    "addr/rm" if !has || twice => Err(errno::EINVAL),
                    "mtu" if !(72..65_536).contains(&mtu) => Err(errno::EINVAL),
                    "destroy" if unit.holder.is_some() => Err(errno::EBUSY),
                    _ => Ok(()),
                }
            }
        };
        let fine = model.is_ok();
        self.agree(path, real, model);
        let Some(unit) = self.units.get_mut(&number).filter(|_| fine) else {
            return;
        };
        match path {
            "flags" if up && !unit.addrs.is_empty() => unit.init(),
            "flags" => unit.up = up,
            "addr/set" => {
                unit.addrs = vec![addr];
                unit.init();
            }
            "addr/add" => {
                unit.addrs.push(addr);
                unit.init();
            }
            "addr/rm" => unit.addrs.retain(|own| *own != addr),
            "mtu" => unit.set_mtu(mtu as u16),
            "queue" => unit.set_limits(limits),
            _ => {
                self.units.remove(&number);
            }
        }
    }

    fn text(&self, path: &str) -> Result<String, Errno> {
        let file = self.process.open(path, OpenFlags::READ)?;
        let mut text = vec![0; 8192];
        let len = self.process.read(file, &mut text).unwrap();
        self.process.close(file).unwrap();
        Ok(String::from_utf8(text[..len].to_vec()).unwrap())
    }

    /// Checks that all visible state is as the model has it.
    fn check(&mut self) {
        let what = &self.what;
        let signals = std::mem::take(&mut self.signals);
        assert_eq!(self.local.take_signals(), signals, "{what}");
        for number in 0..=UNITS {
            let text = |file: &str| self.text(&format!("netcfg/ifaces/tun{number}/{file}"));
            let Some(unit) = self.units.get(&number) else {
                assert_eq!(text("flags"), Err(errno::ENOENT), "{what}");
                continue;
            };
            let status = match unit.holder {
                Some(_) => format!("\tOpened by PID {}\n", unit.pid),
                None => String::new(),
            };
            let addrs: String = unit.addrs.iter().map(|addr| format!("{addr}\n")).collect();
            let (packets, bytes) = unit.limits;
            for (file, model) in [
                ("flags", format!("{}\n", unit.flags())),
                ("mtu", format!("{}\n", unit.mtu)),
                ("status", status),
                ("addr/list", addrs),
                (
                    "queue",
                    format!("fifo limit {packets} packets {bytes} bytes\n"),
                ),
            ] {
                assert_eq!(text(file), Ok(model), "{what}: {file} of tun{number}");
            }
            self.check_counters(number, unit);
        }
        for handle in self.handles.values() {
            self.check_handle(handle);
        }
    }

    fn check_counters(&self, number: u16, unit: &Unit) {
        self.local.with_server(|net| {
            let ifp = net.interface(&format!("tun{number}")).unwrap();
            let (stats, what) = (&ifp.stats, &self.what);
            let drops = DropReason::ALL
                .into_iter()
                .map(|reason| (reason.name(), stats.drops(reason)));
            let real = Counters {
                ipackets: stats.ipackets,
                ibytes: stats.ibytes,
                opackets: stats.opackets,
                obytes: stats.obytes,
                delivered: stats.output().delivered,
                oerrors: stats.oerrors,
                drops: drops.filter(|(_, packets)| *packets > 0).collect(),
            };
            assert_eq!(real, unit.counters, "{what}: tun{number}");
            let (input, output) = (stats.input(), stats.output());
            assert!(
                input.closes() && output.closes(),
                "{what}: {input:?} {output:?}"
            );
            assert_eq!(input.queued, 0, "{what}: tun{number}");
            assert_eq!(
                output.queued,
                unit.queue.len() as u64,
                "{what}: tun{number}"
            );
            let frames = unit.queue.len();
            assert_eq!(ifp.snd.len(), frames, "{what}: tun{number}");
            let count = |name: &str| unit.counters.drops.get(name).copied().unwrap_or(0);
            assert_eq!(
                [stats.ierrors, stats.odrops, stats.collisions],
                [
                    count("unknown_family") + count("malformed"),
                    count("queue_full"),
                    count("queue_full"),
                ],
                "{what}: errors of tun{number}"
            );
        });
    }

    fn check_handle(&self, handle: &Handle) {
        let what = &self.what;
        let fd = handle.fds[0];
        let get = |request: u32| {
            let mut arg = [0; 4];
            let done = self.process.ioctl(fd, request, &mut arg);
            done.map(|()| i32::from_ne_bytes(arg))
        };
        let ready = self
            .process
            .poll(&[(fd, Ready::all())], Some(Duration::ZERO));
        if handle.gone {
            assert_eq!(ready, Ok(vec![Ready::all()]), "{what}");
            assert_eq!(get(FIONREAD), Err(errno::EHOSTDOWN), "{what}");
            return;
        }
        let unit = &self.units[&handle.unit];
        let mut model = Ready::WRITE;
        model.set(Ready::READ, !unit.queue.is_empty());
        assert_eq!(ready, Ok(vec![model]), "{what}: tun{}", handle.unit);
        for (request, value) in [
            (FIONREAD, unit.fionread()),
            (TUNGIFHEAD, unit.ifhead.into()),
            (TUNGBATCH, unit.batch.into()),
            (TUNGTRANSIENT, unit.transient.into()),
            (FIOGETOWN, unit.owner),
        ] {
            assert_eq!(get(request), Ok(value), "{what}: {request:#x}");
        }
        let mut info = [0; 8];
        assert_eq!(self.process.ioctl(fd, TUNGIFINFO, &mut info), Ok(()));
        let mut model = unit.baudrate.to_ne_bytes().to_vec();
        model.extend_from_slice(&unit.mtu.to_ne_bytes());
        model.extend_from_slice(&[unit.if_type, 0]);
        assert_eq!(info[..], model, "{what}");
        let mut name = [0; 32];
        assert_eq!(self.process.ioctl(fd, TUNGIFNAME, &mut name), Ok(()));
        let model = format!("tun{}", handle.unit);
        assert_eq!(name.split(|byte| *byte == 0).next(), Some(model.as_bytes()));
    }
}

/// Zeroes the identification and header checksum of IPv4 answers, which the model does not predict.
fn neutral(mut frames: Vec<u8>) -> Vec<u8> {
    for at in 0..frames.len().saturating_sub(9) {
        if frames[at..at + 2] == [0x45, 0] && frames[at + 8..at + 10] == [64, 1] {
            let end = frames.len().min(at + 12);
            frames[at + 4..at + 6].fill(0);
            frames[at + 10..end].fill(0);
        }
    }
    frames
}

#[test]
fn the_driver_does_as_the_model() {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for seed in 0..20 {
        let mut run = Run::new(seed);
        for _ in 0..1500 {
            run.step();
        }
        for (kind, times) in run.seen {
            *seen.entry(kind).or_default() += times;
        }
    }
    // Every kind of step has occurred.
    for kind in [
        "open ok",
        "open EBUSY",
        "inject ok",
        "inject ENOENT",
        "inject EHOSTDOWN",
        "inject EAFNOSUPPORT",
        "inject ENOBUFS",
        "inject EMSGSIZE",
        "read ok",
        "read EAGAIN",
        "read EBADF",
        "read EHOSTDOWN",
        "read EMSGSIZE",
        "write ok",
        "write EBADF",
        "write EHOSTDOWN",
        "write EINVAL",
        "write EIO",
        "write EAFNOSUPPORT",
        "batch ok",
        "batch EINVAL",
        "batch EIO",
        "batch EAFNOSUPPORT",
        "shut ok",
        "shut EHOSTDOWN",
        "pid ok",
        "flags ok",
        "addr/set ok",
        "addr/add EINVAL",
        "addr/rm ok",
        "mtu EINVAL",
        "queue ok",
        "destroy ok",
        "destroy EBUSY",
    ] {
        assert!(seen.contains_key(kind), "never {kind}: {seen:?}");
    }
}

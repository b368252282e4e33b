//! Send queues with disciplines and rates, as programs see them, in virtual time.
#![allow(missing_docs)]

mod common;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::packet::udp;
use common::program::{set, text, tunnel};
use common::system::{counter, machine};
use common::wire::{PEER, US, Wire};
use net::{Host, Services};
use scheme::errno::{self, Errno};
use scheme::local::{Fd, Local, ManualClock, Process};
use scheme::{OpenFlags, Pid, Ready, SignalTarget};

const BOTH: OpenFlags = OpenFlags::READ.union(OpenFlags::WRITE);
const FIONREAD: u32 = 0x4004_667f;
const FIOASYNC: u32 = 0x8004_667d;
const FIOSETOWN: u32 = 0x8004_667c;
const TUNSIFHEAD: u32 = 0x8004_7460;
const TUNSBATCH: u32 = 0x8004_7482;
const QUEUE: &str = "ifaces/tun0/queue";
/// Bytes of the headers before the data of a datagram.
const HEADERS: usize = 28;

/// A machine whose clock the test moves, with tun0 at 10.0.0.1/24, and a socket to 10.0.0.2:9.
struct Machine {
    local: Arc<Local<Host>>,
    clock: Arc<ManualClock>,
    process: Process<Host>,
    tun: Fd,
    socket: Fd,
}

impl Machine {
    fn new(queue: &str) -> Self {
        let (local, clock) = machine(5, Services::all());
        let process = local.process(1, 0);
        let tun = tunnel(&process, 0, "10.0.0.1/24");
        let socket = Self::socket_of(&process, 9);
        let machine = Self {
            local,
            clock,
            process,
            tun,
            socket,
        };
        machine.set(queue).unwrap();
        machine
    }

    fn socket_of(process: &Process<Host>, port: u16) -> Fd {
        let socket = process.open("/scheme/udp", BOTH).unwrap();
        let to = format!("10.0.0.2:{port}");
        process.dup_verb(socket, to.as_bytes()).unwrap()
    }

    fn set(&self, queue: &str) -> Result<usize, Errno> {
        set(&self.process, QUEUE, &format!("{queue}\n"))
    }

    /// Sends a packet of `len` bytes.
    fn send(&self, len: usize) -> Result<usize, Errno> {
        self.process.write(self.socket, &vec![7; len - HEADERS])
    }

    /// Reads a packet; its length.
    fn read(&self) -> Result<usize, Errno> {
        self.process.read(self.tun, &mut [0; 2000])
    }

    fn drain(&self) -> usize {
        std::iter::from_fn(|| self.read().ok()).count()
    }

    fn ready(&self) -> Ready {
        let wanted = [(self.tun, Ready::all())];
        self.process.poll(&wanted, Some(Duration::ZERO)).unwrap()[0]
    }

    fn first_len(&self) -> i32 {
        let mut len = [0; 4];
        self.process.ioctl(self.tun, FIONREAD, &mut len).unwrap();
        i32::from_ne_bytes(len)
    }

    fn switch(&self, request: u32, value: i32) {
        let mut arg = value.to_ne_bytes();
        self.process.ioctl(self.tun, request, &mut arg).unwrap();
    }

    fn wait(&self, us: u64) {
        self.clock.advance(Duration::from_micros(us));
        self.local.pump();
    }

    fn stat(&self, name: &str) -> u64 {
        counter(&text(&self.process, "ifaces/tun0/stats"), name)
    }

    fn check_ledger(&self) {
        let ledger = text(&self.process, "ifaces/tun0/ledger");
        let get = |name: &str| counter(&ledger, name);
        for way in ["in", "out"] {
            let parts = ["delivered", "forwarded", "queued", "dropped"];
            let sum: u64 = parts.iter().map(|part| get(&format!("{way}.{part}"))).sum();
            assert_eq!(get(&format!("{way}.offered")), sum, "{ledger}");
        }
        assert_eq!(get("out.queued"), self.stat("queue.packets"));
    }
}

const DISCIPLINES: [&str; 3] = ["fifo", "priq", "fq_codel"];

#[test]
fn the_file_reads_back_with_all_its_parts() {
    let machine = Machine::new("fq_codel limit 9 packets noecn");
    let line = "fq_codel limit 9 packets 33554432 bytes target 5000 us interval 100000 us \
                flows 1024 quantum 1514 bytes noecn\n";
    assert_eq!(text(&machine.process, QUEUE), line);
    for bad in [
        "fq_codel limit 9 packets limit 9 packets",
        "rate 7999 burst 1 fifo",
        "rate 8000 fifo",
        "red",
        "priq flows 7",
        "fifo\nfifo limit 0 packets",
    ] {
        assert_eq!(machine.set(bad), Err(errno::EINVAL), "{bad:?}");
        assert_eq!(text(&machine.process, QUEUE), line);
    }
    let lo0 = "ifaces/lo0/queue";
    assert_eq!(set(&machine.process, lo0, "fifo\n"), Err(errno::EINVAL));
    assert_eq!(text(&machine.process, lo0), "");
    assert_eq!(machine.set("rate 1000000 burst 1500 priq"), Ok(29));
    assert_eq!(
        text(&machine.process, QUEUE),
        "rate 1000000 burst 1500 priq limit 250 packets 1048576 bytes\n"
    );
}

#[test]
fn while_nothing_may_go_the_device_is_not_ready() {
    for discipline in DISCIPLINES {
        // A byte a microsecond.
        let machine = Machine::new(&format!("rate 8000000 burst 1000 {discipline}"));
        for _ in 0..3 {
            machine.send(1000).unwrap();
        }
        assert_eq!((machine.ready(), machine.first_len()), (Ready::all(), 1000));
        assert_eq!(machine.read(), Ok(1000));
        // The bucket is empty.
        assert_eq!((machine.ready(), machine.first_len()), (Ready::WRITE, 0));
        assert_eq!(machine.read(), Err(errno::EAGAIN));
        assert_eq!(machine.stat("queue.packets"), 2);
        assert_eq!(machine.stat("queue.bytes"), 2000);
        // A token is there after a nanosecond, and one packet may go.
        machine.wait(1);
        assert_eq!((machine.ready(), machine.first_len()), (Ready::all(), 1000));
        assert_eq!(machine.read(), Ok(1000));
        machine.wait(999);
        assert_eq!(machine.read(), Err(errno::EAGAIN));
        machine.wait(1);
        assert_eq!(machine.read(), Ok(1000));
        assert_eq!(machine.stat("queue.delay_us"), 1001);
        assert_eq!(machine.stat("queue.packets"), 0);
        machine.check_ledger();
        assert_eq!(machine.local.deadline(), None, "no timer without packets");
    }
}

/// How long a thread of a test may take to reach a system call.
fn until(what: impl Fn() -> bool) {
    while !what() {
        thread::yield_now();
    }
}

#[test]
fn a_reader_that_sleeps_is_woken_at_the_release_and_not_before() {
    let machine = Machine::new("rate 8000000 burst 1000 fifo");
    machine.send(1000).unwrap();
    machine.read().unwrap();
    machine.process.set_nonblocking(machine.tun, false).unwrap();
    let before = machine.local.waiting();
    machine.send(1000).unwrap();
    thread::scope(|scope| {
        let sleeping = scope.spawn(|| machine.read());
        until(|| machine.local.waiting() > before);
        // There are tokens for one, and a debt after it.
        machine.wait(1);
        assert_eq!(sleeping.join().unwrap(), Ok(1000));
        machine.send(500).unwrap();
        let sleeping = scope.spawn(|| machine.read());
        until(|| machine.local.waiting() > before);
        machine.wait(999);
        assert_eq!(machine.local.waiting(), before + 1, "it sleeps on");
        assert!(!sleeping.is_finished());
        machine.wait(1);
        assert_eq!(sleeping.join().unwrap(), Ok(500));
    });
}

#[test]
fn a_poll_that_sleeps_is_woken_at_the_release_and_not_before() {
    let machine = &Machine::new("rate 8000000 burst 1000 fq_codel");
    machine.send(1000).unwrap();
    machine.read().unwrap();
    machine.wait(1);
    machine.send(1000).unwrap();
    machine.read().unwrap();
    machine.send(1000).unwrap();
    machine.local.pump();
    let readable = || machine.ready().contains(Ready::READ);
    assert!(!readable());
    let deadline = machine.local.deadline().unwrap();
    let release = Duration::from_nanos(1_000_001);
    assert_eq!(deadline, release);
    thread::scope(|scope| {
        let wanted = [(machine.tun, Ready::READ)];
        let sleeping = scope.spawn(move || machine.process.poll(&wanted, None));
        machine
            .clock
            .advance(deadline - Duration::from_nanos(1) - Duration::from_micros(1));
        machine.local.pump();
        assert!(!readable() && !sleeping.is_finished());
        assert_eq!(machine.local.deadline(), Some(deadline), "one timer");
        machine.clock.advance(Duration::from_nanos(1));
        machine.local.pump();
        assert_eq!(sleeping.join().unwrap().unwrap(), [Ready::READ]);
    });
}

#[test]
fn sigio_comes_with_the_release() {
    let machine = Machine::new("rate 8000000 burst 1000 fifo");
    machine.switch(FIOSETOWN, 1);
    machine.switch(FIOASYNC, 1);
    let owner = [SignalTarget::Process(Pid(1))];
    let signals = || machine.local.take_signals();
    machine.send(1000).unwrap();
    assert_eq!(signals(), owner);
    machine.send(1000).unwrap();
    assert_eq!(signals(), owner, "the first was not read, so it may go");
    machine.read().unwrap();
    machine.send(1000).unwrap();
    assert_eq!(signals(), [], "held back");
    machine.wait(1);
    assert_eq!(signals(), owner);
    machine.wait(5000);
    assert_eq!(signals(), [], "once");
    machine.read().unwrap();
    machine.wait(1);
    assert_eq!(signals(), owner);
    machine.read().unwrap();
    machine.check_ledger();
}

#[test]
fn a_batch_ends_where_the_rate_holds_back() {
    let machine = Machine::new("rate 8000000 burst 1500 fq_codel");
    machine.switch(TUNSBATCH, 1);
    for _ in 0..5 {
        machine.send(1000).unwrap();
    }
    let mut buf = [0; 20_000];
    let read = |buf: &mut [u8]| machine.process.read(machine.tun, buf);
    assert_eq!(read(&mut buf), Ok(2 * 1004));
    assert_eq!(machine.first_len(), 0);
    assert_eq!(read(&mut buf[..10]), Err(errno::EAGAIN));
    machine.wait(501);
    assert_eq!(machine.first_len(), 1004);
    assert_eq!(read(&mut buf[..10]), Err(errno::EMSGSIZE));
    assert_eq!(read(&mut buf), Ok(1004));
    machine.check_ledger();
}

#[test]
fn the_header_counts_for_the_rate() {
    let machine = Machine::new("rate 8000000 burst 1 fifo");
    machine.switch(TUNSIFHEAD, 1);
    for _ in 0..2 {
        machine.send(1000).unwrap();
    }
    assert_eq!(machine.read(), Ok(1004));
    machine.wait(1003);
    assert_eq!(machine.read(), Err(errno::EAGAIN));
    machine.wait(1);
    assert_eq!(machine.read(), Ok(1004));
}

#[test]
fn the_smallest_rate_with_a_full_queue_can_be_changed_and_closed() {
    for discipline in DISCIPLINES {
        let line = format!("rate 8000 burst 1 {discipline} limit 1000 packets");
        let machine = Machine::new(&line);
        let mut sent = 0;
        while sent < 1000 {
            machine.send(1000).unwrap();
            sent += 1;
        }
        let full = machine.send(1000);
        match discipline {
            // Its oldest packet went, and this one is queued.
            "fq_codel" => assert_eq!(full, Ok(1000 - HEADERS)),
            _ => assert_eq!(full, Err(errno::ENOBUFS)),
        }
        assert_eq!(machine.stat("drop.queue_full"), 1);
        assert_eq!(machine.stat("collisions"), 1);
        // An hour of seconds, of which each brings a packet.
        assert_eq!(machine.drain(), 1);
        for _ in 0..2 {
            machine.wait(1_000_000);
            assert_eq!(machine.drain(), 1);
        }
        machine.check_ledger();
        // Without the rate all may go, and a reader is told.
        machine.set(discipline).unwrap();
        assert!(machine.ready().contains(Ready::READ));
        let left = machine.stat("queue.packets");
        assert!(left > 200, "{left}");
        let before = machine.stat("drop.codel");
        let read = machine.drain() as u64;
        assert_eq!(read + machine.stat("drop.codel") - before, left);
        machine.set(&line).unwrap();
        for _ in 0..3 {
            machine.send(1000).unwrap();
        }
        machine.drain();
        assert_eq!(machine.stat("queue.packets"), 2);
        machine.check_ledger();
        machine.process.close(machine.tun).unwrap();
        assert_eq!(machine.stat("drop.purged"), 2);
        assert_eq!(machine.stat("queue.packets"), 0);
        assert_eq!(machine.local.deadline(), None);
        machine.check_ledger();
    }
}

#[test]
fn a_discipline_is_changed_many_times_under_load() {
    let machine = Machine::new("fifo");
    let mut rng = fastrand::Rng::with_seed(9);
    let mut read = 0;
    for round in 0..1000 {
        for _ in 0..rng.usize(..5) {
            // Some find the queue full.
            let _ = machine.send(rng.usize(HEADERS + 1..1500));
        }
        let rate = ["", "rate 80000000 burst 3000 "][rng.usize(..2)];
        let limit = rng.usize(1..100);
        let line = format!("{rate}{} limit {limit} packets", DISCIPLINES[round % 3]);
        machine.set(&line).unwrap();
        assert!(machine.stat("queue.packets") <= limit as u64);
        for _ in 0..rng.usize(..4) {
            read += machine.read().is_ok() as usize;
        }
        machine.wait(rng.u64(..500));
        machine.check_ledger();
    }
    assert!(read > 500, "{read}");
    assert!(machine.stat("drop.queue_full") > 0);
}

#[test]
fn codel_drops_before_fionread_answers() {
    let machine = Machine::new("fq_codel noecn");
    for _ in 0..100 {
        machine.send(1000).unwrap();
    }
    // Delays of more than the target, for more than an interval.
    machine.wait(10_000);
    assert_eq!(machine.read(), Ok(1000));
    machine.wait(200_000);
    assert_eq!(machine.stat("drop.codel"), 0);
    assert_eq!(machine.first_len(), 1000);
    assert_eq!(machine.stat("drop.codel"), 1, "somebody looked");
    for _ in 0..5 {
        assert_eq!(machine.first_len(), 1000);
    }
    assert_eq!(machine.stat("drop.codel"), 1);
    assert_eq!(machine.read(), Ok(1000));
    machine.check_ledger();
}

#[test]
fn a_connection_is_held_back_before_its_packets_are_dropped() {
    for discipline in DISCIPLINES {
        let machine = Machine::new(&format!(
            "rate 800000 burst 3000 {discipline} limit 8 packets"
        ));
        // chargen sends without end, as far as the peer's window goes.
        let (port, window) = (19, 65_535_u16);
        let segment = |flags: u8, seq: u32, ack: u32| {
            let mut segment = Vec::new();
            segment.extend(40_000_u16.to_be_bytes());
            segment.extend(u16::to_be_bytes(port));
            segment.extend(seq.to_be_bytes());
            segment.extend(ack.to_be_bytes());
            segment.extend([0x50, flags]);
            segment.extend(window.to_be_bytes());
            segment.extend([0; 4]);
            let pseudo = [10, 0, 0, 2, 10, 0, 0, 1, 0, 6, 0, 20];
            let sum = common::packet::checksum(&[&pseudo, &segment]);
            segment[16..18].copy_from_slice(&sum.to_be_bytes());
            common::packet::ipv4([10, 0, 0, 2].into(), [10, 0, 0, 1].into(), 6, &segment)
        };
        let write = |packet: &[u8]| machine.process.write(machine.tun, packet).unwrap();
        write(&segment(2, 1000, 0));
        let mut reply = [0; 2000];
        machine.process.read(machine.tun, &mut reply).unwrap();
        let number = |at: usize| u32::from_be_bytes(reply[at..at + 4].try_into().unwrap());
        let mut next = number(24) + 1;
        write(&segment(16, 1001, next));
        let mut bytes = 0;
        for _ in 0..20_000 {
            machine.wait(1000);
            while let Ok(len) = machine.process.read(machine.tun, &mut reply) {
                let seq = u32::from_be_bytes(reply[24..28].try_into().unwrap());
                if seq == next {
                    next = next.wrapping_add(len as u32 - 40);
                    bytes += len;
                }
                write(&segment(16, 1001, next));
            }
        }
        // 20 seconds at 100 000 bytes a second, and the burst, after which there may be a debt.
        assert!(
            (1_800_000..=2_004_500).contains(&bytes),
            "{discipline}: {bytes}"
        );
        for reason in ["drop.queue_full", "drop.codel"] {
            assert_eq!(machine.stat(reason), 0, "{discipline}");
        }
        machine.check_ledger();
    }
}

#[test]
fn an_adapter_sends_at_the_rate_and_its_timer_wakes_it() {
    let wire = Wire::new();
    wire.take_address();
    wire.send(US.0, 0x0806, &wire.arp(1, [10, 0, 0, 2], [10, 0, 0, 1]));
    while wire.sent().is_some() {}
    wire.set("ifaces/eth0/queue", "rate 8000000 burst 1 fq_codel\n")
        .unwrap();
    let socket = wire.process.open("/scheme/udp", BOTH).unwrap();
    let socket = wire.process.dup_verb(socket, b"10.0.0.2:9").unwrap();
    for _ in 0..4 {
        wire.process
            .write(socket, &[0; 1000 - 14 - HEADERS])
            .unwrap();
    }
    let (dst, ethertype, packet) = wire.sent().unwrap();
    assert_eq!((dst, ethertype, packet.len()), (PEER.0, 0x0800, 1000 - 14));
    assert_eq!(wire.sent(), None);
    for _ in 0..3 {
        // The header of the frame counts, so it is a millisecond.
        wire.local.pump();
        let deadline = wire.local.deadline().unwrap() - wire.now().monotonic;
        assert!(deadline <= Duration::from_micros(1000), "{deadline:?}");
        wire.wait(1);
        assert!(wire.sent().is_some());
        assert_eq!(wire.sent(), None);
        wire.assert_ledger_closes();
    }
    // Those that wait when the rate goes may go.
    wire.process.write(socket, b"one more").unwrap();
    assert_eq!(wire.sent(), None);
    wire.set("ifaces/eth0/queue", "fifo\n").unwrap();
    assert!(wire.sent().is_some());
    wire.assert_ledger_closes();
}

#[test]
fn an_urgent_packet_that_is_forwarded_overtakes_others() {
    let machine = Machine::new("rate 8000 burst 1 priq");
    set(&machine.process, "ip/forwarding", "1\n").unwrap();
    let other = tunnel(&machine.process, 1, "10.1.0.1/24");
    let mut packet = udp(("10.1.0.2", 1), ("10.0.0.2", 2), b"data");
    for (class, number) in [(0, 1), (5, 2), (3, 3), (5, 4)] {
        packet[1] = class << 5;
        packet[4..6].copy_from_slice(&u16::to_be_bytes(number));
        packet[10..12].fill(0);
        let sum = common::packet::checksum(&[&packet[..20]]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        machine.process.write(other, &packet).unwrap();
    }
    let mut order = Vec::new();
    let mut buf = [0; 100];
    for _ in 0..200 {
        machine.wait(1000);
        if machine.process.read(machine.tun, &mut buf).is_ok() {
            order.push(buf[5]);
        }
    }
    assert_eq!(order, [2, 4, 3, 1]);
}

#[test]
fn a_packet_in_debt_holds_the_next_back_for_everyone() {
    let machine = Machine::new("rate 8000 burst 1 fifo");
    set(&machine.process, "ifaces/tun0/mtu", "9000\n").unwrap();
    for _ in 0..2 {
        machine.send(8000).unwrap();
    }
    assert_eq!(machine.first_len(), 8000);
    let mut buf = [0; 9000];
    assert_eq!(machine.process.read(machine.tun, &mut buf), Ok(8000));
    machine.wait(10_000);
    assert_eq!((machine.ready(), machine.first_len()), (Ready::WRITE, 0));
    machine.wait(7_990_000);
    assert_eq!(machine.first_len(), 8000);
    machine.check_ledger();
}

/// A turn for an adapter without frames would be followed by the same question, again and again until the
/// packets are released.
#[test]
fn packets_that_are_held_give_an_adapter_nothing_to_do() {
    let wire = Wire::new();
    let tun = tunnel(&wire.process, 0, "10.9.0.1/24");
    set(&wire.process, QUEUE, "rate 8000 burst 1 fifo\n").unwrap();
    let socket = wire.process.open("/scheme/udp", BOTH).unwrap();
    let socket = wire.process.dup_verb(socket, b"10.9.0.2:9").unwrap();
    for _ in 0..2 {
        wire.process.write(socket, &[7; 100]).unwrap();
    }
    assert_eq!(wire.process.read(tun, &mut [0; 200]), Ok(100 + HEADERS));
    wire.local.pump();
    wire.local.with_server(|host| {
        assert!(!host.needs_turn());
        while host.poll_frame(wire.port).is_some() {}
        assert!(!host.needs_turn());
    });
}

//! A simulated Ethernet adapter: frames and time are made by hand.
#![allow(missing_docs)]

mod common;

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use common::packet::{self, echo_request, payload_v4, udp};
use common::system::host;
use common::wire::{EVERYBODY, PEER, US, Wire};
use net::adapters::{Adapters, Bus, FrameIo, Lost};
use net::link::Mac;
use net::{Host, Services};
use scheme::{Caller, FileServer, Now, OpenFlags, Outcome, Pid, errno};

const BOTH: OpenFlags = OpenFlags::READ.union(OpenFlags::WRITE);

fn ping() -> Vec<u8> {
    echo_request("10.0.0.2", "10.0.0.1", 1, b"data")
}

#[test]
fn it_is_there_from_the_start() {
    let wire = Wire::new();
    assert_eq!(wire.text("ifaces/eth0/mac"), "02-00-00-00-00-01\n");
    assert_eq!(
        wire.text("ifaces/eth0/flags"),
        "UP,BROADCAST,RUNNING,MULTICAST\n"
    );
    assert_eq!(wire.text("ifaces/eth0/addr/list"), "fe80::ff:fe00:1/64\n");
    wire.set("ifaces/eth0/addr/set", "10.0.0.1/24\n").unwrap();
    assert_eq!(
        wire.text("ifaces/eth0/addr/list"),
        "fe80::ff:fe00:1/64\n10.0.0.1/24\n"
    );
    wire.set("ifaces/eth0/mac", "02:00:00:00:00:09\n").unwrap();
    assert_eq!(wire.text("ifaces/eth0/mac"), "02-00-00-00-00-09\n");
    wire.wait(1000);
    assert_eq!(
        wire.text("ifaces/eth0/addr/list"),
        "10.0.0.1/24\nfe80::ff:fe00:9/64\n"
    );
    assert_eq!(
        wire.set("ifaces/lo0/mac", "02:00:00:00:00:09\n"),
        Err(errno::EINVAL)
    );
    wire.local.with_server(|net| net.detach_ethernet(wire.port));
    assert!(
        wire.process
            .open("/scheme/netcfg/ifaces/eth0/mac", OpenFlags::READ)
            .is_err()
    );
}

#[test]
fn who_asks_for_us_gets_an_answer_and_is_noted() {
    let wire = Wire::new();
    wire.take_address();
    wire.send(
        EVERYBODY,
        0x0806,
        &wire.arp(1, [10, 0, 0, 2], [10, 0, 0, 1]),
    );
    let (dst, ethertype, arp) = wire.sent().unwrap();
    assert_eq!((dst, ethertype), (PEER.0, 0x0806));
    assert_eq!(arp[6..8], [0, 2]);
    assert_eq!(arp[8..14], US.0);
    assert_eq!(arp[14..18], [10, 0, 0, 1]);
    // The peer is not asked for again: the answer to the ping is sent straight to it.
    wire.send(US.0, 0x0800, &ping());
    let (dst, ethertype, reply) = wire.sent().unwrap();
    assert_eq!((dst, ethertype), (PEER.0, 0x0800));
    assert_eq!(payload_v4(&reply)[0], 0);
    // Requests for other hosts are not answered.
    wire.send(
        EVERYBODY,
        0x0806,
        &wire.arp(1, [10, 0, 0, 2], [10, 0, 0, 3]),
    );
    assert_eq!(wire.sent(), None);
    wire.assert_ledger_closes();
}

#[test]
fn packets_wait_for_the_answer() {
    let wire = Wire::new();
    wire.take_address();
    for _ in 0..3 {
        wire.send(US.0, 0x0800, &ping());
    }
    let (dst, ethertype, arp) = wire.sent().unwrap();
    assert_eq!((dst, ethertype), (EVERYBODY, 0x0806));
    assert_eq!(arp[24..28], [10, 0, 0, 2]);
    assert_eq!(wire.sent(), None);
    wire.assert_ledger_closes();
    wire.send(US.0, 0x0806, &wire.arp(2, [10, 0, 0, 2], [10, 0, 0, 1]));
    for _ in 0..3 {
        let (dst, ethertype, _) = wire.sent().unwrap();
        assert_eq!((dst, ethertype), (PEER.0, 0x0800));
    }
    wire.assert_ledger_closes();
}

/// A packet may wait for the adapter for so long that its neighbour has to be asked again.
#[test]
fn a_question_that_falls_due_as_a_packet_leaves_is_asked() {
    let wire = Wire::new();
    wire.take_address();
    wire.send(US.0, 0x0800, &ping());
    assert_eq!(wire.sent().unwrap().1, 0x0806);
    wire.send(US.0, 0x0806, &wire.arp(2, [10, 0, 0, 2], [10, 0, 0, 1]));
    assert_eq!(wire.sent().unwrap().1, 0x0800);
    // While this one waits, the answer gets old.
    wire.send(US.0, 0x0800, &ping());
    wire.wait(60_000);
    let sent = || std::iter::from_fn(|| wire.sent()).collect::<Vec<_>>();
    assert!(sent().iter().any(|(_, ethertype, _)| *ethertype == 0x0800));
    wire.wait(5000);
    let [(dst, 0x0806, arp)] = &sent()[..] else {
        panic!("there is one question");
    };
    assert_eq!((*dst, arp[7]), (PEER.0, 1));
    assert_eq!(arp[24..28], [10, 0, 0, 2]);
    wire.assert_ledger_closes();
}

#[test]
fn who_does_not_answer_is_unreachable() {
    let wire = Wire::new();
    wire.take_address();
    let socket = wire.process.open("/scheme/udp", BOTH).unwrap();
    let socket = wire.process.dup_verb(socket, b"10.0.0.2:9").unwrap();
    wire.process.set_nonblocking(socket, true).unwrap();
    wire.process.write(socket, b"anybody?").unwrap();
    for _ in 0..3 {
        assert_eq!(wire.sent().unwrap().1, 0x0806);
        assert_eq!(wire.sent(), None);
        wire.wait(1000);
    }
    assert_eq!(wire.sent(), None);
    wire.assert_ledger_closes();
    let stats = wire.text("ifaces/eth0/stats");
    assert!(stats.contains("drop.no_neighbor 1\n"), "{stats}");
}

#[test]
fn neighbour_discovery() {
    let wire = Wire::new();
    wire.set("ifaces/eth0/addr/add", "fd00::1/64\n").unwrap();
    // Other stations are asked for the address, and it is announced to all.
    let (_, _, question) = wire.sent().unwrap();
    assert_eq!((question[40], &question[8..24]), (135, &[0; 16][..]));
    let (dst, _, advert) = wire.sent().unwrap();
    assert_eq!((dst, advert[40]), ([0x33, 0x33, 0, 0, 0, 1], 136));
    let us: Ipv6Addr = "fd00::1".parse().unwrap();
    let peer: Ipv6Addr = "fd00::2".parse().unwrap();
    let nd = |kind: u8, flags: u8, target: Ipv6Addr, option: u8, mac: Mac, dst: Ipv6Addr| {
        let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
        message.extend_from_slice(&target.octets());
        message.extend_from_slice(&[option, 1]);
        message.extend_from_slice(&mac.0);
        packet::icmpv6(peer, dst, &message)
    };
    // The request goes to the group of our address.
    let group: Ipv6Addr = "ff02::1:ff00:1".parse().unwrap();
    wire.send(
        [0x33, 0x33, 0xff, 0, 0, 1],
        0x86dd,
        &nd(135, 0, us, 1, PEER, group),
    );
    let (dst, ethertype, advert) = wire.sent().unwrap();
    assert_eq!((dst, ethertype), (PEER.0, 0x86dd));
    assert_eq!((advert[40], advert[44]), (136, 0x60));
    assert_eq!(advert[48..64], us.octets());
    assert_eq!(advert[66..72], US.0);
    wire.assert_ledger_closes();

    // A forwarding host says that it is a router.
    wire.set("ip/forwarding", "1\n").unwrap();
    wire.send(
        [0x33, 0x33, 0xff, 0, 0, 1],
        0x86dd,
        &nd(135, 0, us, 1, PEER, group),
    );
    let (_, _, advert) = wire.sent().unwrap();
    assert_eq!((advert[40], advert[44]), (136, 0xe0));

    // The other way round: a ping waits until the peer gives its hardware address.
    let other: Ipv6Addr = "fd00::3".parse().unwrap();
    let icmp = wire
        .process
        .open("/scheme/icmp/echo/fd00::3", BOTH)
        .unwrap();
    wire.process.write(icmp, &[0, 1, 9, 9]).unwrap();
    let (dst, _, solicit) = wire.sent().unwrap();
    assert_eq!(dst, [0x33, 0x33, 0xff, 0, 0, 3]);
    assert_eq!((solicit[7], solicit[40]), (255, 135));
    wire.send(US.0, 0x86dd, &nd(136, 0x60, other, 2, PEER, us));
    let (dst, _, request) = wire.sent().unwrap();
    assert_eq!((dst, request[40]), (PEER.0, 128));
    // A message from beyond the link is ignored.
    let mut forged = nd(136, 0x60, other, 2, Mac([2, 9, 9, 9, 9, 9]), us);
    forged[7] = 254;
    wire.send(US.0, 0x86dd, &forged);
    wire.process.write(icmp, &[0, 2, 9, 9]).unwrap();
    assert_eq!(wire.sent().unwrap().0, PEER.0);
    wire.assert_ledger_closes();
}

#[test]
fn dhcp_without_an_address() {
    let wire = Wire::new();
    // As dhcpd does it: bind, connect to the broadcast address, send, receive from any server.
    let socket = wire.process.open("/scheme/udp", BOTH).unwrap();
    let bound = wire.process.dup_verb(socket, b"/0.0.0.0:68").unwrap();
    wire.process.close(socket).unwrap();
    let client = wire.process.dup_verb(bound, b"255.255.255.255:67").unwrap();
    wire.process.close(bound).unwrap();
    wire.process.write(client, &[1; 548]).unwrap();
    let (dst, ethertype, discover) = wire.sent().unwrap();
    assert_eq!((dst, ethertype), (EVERYBODY, 0x0800));
    assert_eq!(discover[12..20], [0, 0, 0, 0, 255, 255, 255, 255]);
    // The offer comes to the broadcast address, or to the address that it offers.
    let mut read = [0; 1000];
    for to in ["255.255.255.255", "10.0.0.1"] {
        let offer = udp(("10.0.0.254", 67), (to, 68), &[2; 300]);
        wire.send(
            if to == "10.0.0.1" { US.0 } else { EVERYBODY },
            0x0800,
            &offer,
        );
        assert_eq!(wire.process.read(client, &mut read), Ok(300));
    }
    let file = wire
        .process
        .open("/scheme/netcfg/ifaces/eth0/addr/set", OpenFlags::WRITE)
        .unwrap();
    wire.process.write(file, b"10.0.0.1/24\n").unwrap();
    assert_eq!(wire.process.sync(file), Ok(()));
    wire.process.close(file).unwrap();
    for _ in 0..2 {
        let file = wire
            .process
            .open("/scheme/netcfg/route/add", OpenFlags::WRITE)
            .unwrap();
        wire.process.write(file, b"default via 10.0.0.254").unwrap();
        assert_eq!(wire.process.sync(file), Ok(()));
        wire.process.close(file).unwrap();
    }
    assert!(
        wire.text("route/list")
            .starts_with("default via 10.0.0.254 dev eth0\n")
    );
    wire.assert_claimed();
    wire.process.write(client, &[1; 548]).unwrap();
    let (dst, _, request) = wire.sent().unwrap();
    assert_eq!(dst, EVERYBODY);
    assert_eq!(request[12..16], [10, 0, 0, 1]);
    // Beyond the link, packets go to the router.
    let icmp = wire
        .process
        .open("/scheme/icmp/echo/8.8.8.8", BOTH)
        .unwrap();
    wire.process.write(icmp, &[0, 1]).unwrap();
    let (_, ethertype, arp) = wire.sent().unwrap();
    assert_eq!((ethertype, &arp[24..28]), (0x0806, &[10, 0, 0, 254][..]));
    wire.assert_ledger_closes();
}

#[test]
fn frames_of_any_kind_are_counted() {
    let wire = Wire::new();
    wire.take_address();
    wire.send([2, 9, 9, 9, 9, 9], 0x0800, &ping());
    wire.send(US.0, 0x9999, b"what?");
    wire.send(US.0, 0x0806, b"short");
    wire.local
        .with_server(|net| net.handle_frame(wire.port, &[1, 2, 3]));
    // Messages that claim our own address as their source. It is defended, once.
    for _ in 0..2 {
        wire.send(US.0, 0x0806, &wire.arp(2, [10, 0, 0, 1], [10, 0, 0, 1]));
    }
    wire.assert_announced();
    assert_eq!(wire.sent(), None);
    wire.send(
        US.0,
        0x0800,
        &udp(("10.0.0.1", 5), ("10.0.0.1", 7), b"spoofed"),
    );
    assert_eq!(wire.sent(), None);
    let stats = wire.text("ifaces/eth0/stats");
    for line in [
        "drop.not_for_us 1",
        "drop.unknown_family 1",
        "drop.malformed 2",
        "drop.bad_source 1",
    ] {
        assert!(stats.contains(&format!("{line}\n")), "{line} in {stats}");
    }
    wire.assert_ledger_closes();
}

/// Simulated drivers: the state of a bus, by name.
#[derive(Clone, Default)]
struct Drivers(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    drivers: BTreeMap<String, Driver>,
    /// The number of searches.
    searches: usize,
    /// Whether no frame can be received.
    broken: bool,
    serial: u32,
}

/// A driver. One that ended leaves its name behind.
struct Driver {
    mac: Mac,
    alive: bool,
    serial: u32,
    received: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
    /// Frames longer than this are refused, bytes.
    longest: usize,
    /// Frames that it has room for.
    room: usize,
    /// Frames that it lost without saying so at once.
    lost: Lost,
    /// The longest packet, if it is known.
    mtu: Option<u16>,
}

/// The frames of one driver, as long as it is the same driver.
struct Opened {
    drivers: Drivers,
    name: String,
    serial: u32,
    /// Whether a probe found that the driver is gone.
    missed: bool,
}

impl Drivers {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn start(&self, name: &str, mac: Mac) {
        let mut state = self.state();
        state.serial += 1;
        let driver = Driver {
            mac,
            alive: true,
            serial: state.serial,
            received: VecDeque::new(),
            sent: Vec::new(),
            longest: 1514,
            room: usize::MAX,
            lost: Lost::default(),
            mtu: None,
        };
        let before = state.drivers.insert(name.to_owned(), driver);
        assert!(before.is_none(), "{name} is there already");
    }

    fn kill(&self, name: &str) {
        self.state().drivers.get_mut(name).unwrap().alive = false;
    }

    /// The frames that a driver sent.
    fn taken(&self, name: &str) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.state().drivers.get_mut(name).unwrap().sent)
    }
}

impl Bus for Drivers {
    type Io = Opened;

    fn names(&mut self) -> Option<Vec<String>> {
        let mut state = self.state();
        state.searches += 1;
        // In an arbitrary order.
        Some(state.drivers.keys().rev().cloned().collect())
    }

    fn open(&mut self, name: &str) -> io::Result<(Mac, Opened)> {
        let state = self.state();
        let driver = state.drivers.get(name).filter(|driver| driver.alive);
        let driver = driver.ok_or(ErrorKind::NotFound)?;
        let opened = Opened {
            drivers: self.clone(),
            name: name.to_owned(),
            serial: driver.serial,
            missed: false,
        };
        Ok((driver.mac, opened))
    }

    fn clear(&mut self, name: &str) {
        let mut state = self.state();
        if state.drivers.get(name).is_some_and(|driver| !driver.alive) {
            state.drivers.remove(name);
        }
    }
}

impl Opened {
    fn with<T>(&self, body: impl FnOnce(&mut Driver) -> T) -> io::Result<T> {
        let mut state = self.drivers.state();
        let driver = state.drivers.get_mut(&self.name);
        let driver = driver.filter(|driver| driver.alive && driver.serial == self.serial);
        driver.map(body).ok_or(ErrorKind::NotFound.into())
    }
}

impl FrameIo for Opened {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.drivers.state().broken {
            return Err(ErrorKind::InvalidData.into());
        }
        let frame = self.with(|driver| driver.received.pop_front())?;
        let frame = frame.ok_or(ErrorKind::WouldBlock)?;
        buffer[..frame.len()].copy_from_slice(&frame);
        Ok(frame.len())
    }

    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.probe();
        self.with(|driver| {
            if driver.room == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            if frame.len() > driver.longest {
                return Err(ErrorKind::InvalidInput.into());
            }
            driver.room -= 1;
            driver.sent.push(frame.to_vec());
            Ok(())
        })?
    }

    fn is_alive(&self, _now: Duration) -> bool {
        !self.missed
    }

    fn probe(&mut self) {
        self.missed = self.with(|_| ()).is_err();
    }

    fn take_lost(&mut self) -> Lost {
        let lost = self.with(|driver| std::mem::take(&mut driver.lost));
        lost.unwrap_or_default()
    }

    fn mtu(&self) -> Option<u16> {
        self.with(|driver| driver.mtu).unwrap_or_default()
    }
}

/// A machine with these drivers, as a daemon runs it.
struct Machine {
    drivers: Drivers,
    net: Host,
    adapters: Adapters<Drivers>,
    now: Duration,
    deadline: Option<Duration>,
}

impl Machine {
    fn new(drivers: &Drivers) -> Self {
        let mut net = host(5, Services::empty());
        let adapters = Adapters::new(drivers.clone(), &mut net);
        let mut machine = Self {
            drivers: drivers.clone(),
            net,
            adapters,
            now: Duration::ZERO,
            deadline: None,
        };
        machine.run();
        machine
    }

    /// Does all the work that is due now.
    fn run(&mut self) {
        for _ in 0..1000 {
            let turn = self.net.turn(Now {
                monotonic: self.now,
                wall: self.now,
            });
            let mut more = self.adapters.transmit(&mut self.net);
            while let Some((at, _)) = self.adapters.poll_opened() {
                self.adapters.receive(&mut self.net, at);
                more = true;
            }
            if !turn.pending && !more {
                self.deadline = turn.deadline;
                return;
            }
        }
        panic!("it does not come to rest");
    }

    /// Advances the time, and does all work when it is due.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(deadline) = self.deadline.filter(|deadline| *deadline <= end) {
            assert!(deadline > self.now, "{deadline:?} is due again");
            self.now = deadline;
            self.run();
        }
        self.now = end;
        self.run();
    }

    fn set(&mut self, path: &str, line: &str) {
        let caller = Caller {
            pid: Pid(1),
            uid: 0,
        };
        let path = format!("netcfg/{path}");
        let file = self.net.open(&path, OpenFlags::WRITE, caller).unwrap();
        let Outcome::Done(written) = self.net.write(file, line.as_bytes(), 0, caller) else {
            panic!("it waits");
        };
        assert_eq!(written, Ok(line.len()));
        self.net.close(file);
        self.run();
    }

    /// As `ls /scheme/netcfg/ifaces` does it, twice: the second sees the result of the first's
    /// request.
    fn list(&mut self) -> Vec<String> {
        let caller = Caller {
            pid: Pid(1),
            uid: 1000,
        };
        let file = self.net.open("netcfg/ifaces", OpenFlags::READ, caller);
        let file = file.unwrap();
        self.run();
        let entries = self.net.list(file).unwrap();
        self.net.close(file);
        self.run();
        entries.into_iter().map(|entry| entry.name).collect()
    }

    /// Whether a ping that comes in is answered, or a request for the way back is sent.
    fn answers(&mut self, at: usize, name: &str) -> bool {
        let ping = echo_request("10.0.0.2", "10.0.0.1", 1, b"data");
        {
            let mut state = self.drivers.state();
            let driver = state.drivers.get_mut(name).unwrap();
            let frame = [&driver.mac.0[..], &PEER.0, &[8, 0], &ping].concat();
            driver.received.push_back(frame);
        }
        self.adapters.receive(&mut self.net, at);
        self.run();
        !self.drivers.taken(name).is_empty()
    }

    fn flags(&self, name: &str) -> String {
        self.net.interface(name).unwrap().flags.to_string()
    }
}

const RUNNING: &str = "UP,BROADCAST,RUNNING,MULTICAST";
const LOST: &str = "UP,BROADCAST,MULTICAST";

#[test]
fn a_driver_that_ends_leaves_its_interface_to_the_next() {
    let drivers = Drivers::default();
    drivers.start("network.b", Mac([2, 0, 0, 0, 0, 0xb]));
    drivers.start("network.a", US);
    let mut machine = Machine::new(&drivers);
    // Nobody asks for routers meanwhile.
    machine.set("ifaces/eth0/autoconf", "0\n");
    machine.set("ifaces/eth1/autoconf", "0\n");
    assert_eq!(machine.list(), ["eth0", "eth1", "lo0"]);
    machine.set("ifaces/eth0/addr/set", "10.0.0.1/24\n");
    machine.set("route/add", "default via 10.0.0.254\n");
    assert!(machine.answers(0, "network.a"));
    machine.wait(Duration::from_secs(1));
    let searches = drivers.state().searches;

    // While all drivers run there are no searches, and nothing is due.
    machine.wait(Duration::from_secs(3600));
    assert_eq!(drivers.state().searches, searches);
    assert_eq!(machine.deadline, None);

    // The end is noticed with the next frame. The frame to be sent is lost, and counted.
    drivers.kill("network.a");
    machine.adapters.receive(&mut machine.net, 0);
    machine.run();
    assert_eq!(machine.flags("eth0"), LOST);
    assert!(!drivers.state().drivers.contains_key("network.a"));
    assert_eq!(drivers.state().searches, searches + 1);
    let ifp = machine.net.interface("eth0").unwrap();
    assert!(ifp.stats.output().closes(), "{:?}", ifp.stats.output());
    assert_eq!(machine.flags("eth1"), RUNNING);

    // The driver is looked for, and is found within the second, with its settings.
    machine.wait(Duration::from_millis(500));
    assert!(drivers.state().searches > searches + 1);
    drivers.start("network.a", US);
    machine.wait(Duration::from_secs(1));
    assert_eq!(machine.flags("eth0"), RUNNING);
    assert_eq!(machine.list(), ["eth0", "eth1", "lo0"]);
    assert!(machine.answers(0, "network.a"));
    let addrs = &machine.net.interface("eth0").unwrap().addrs;
    assert!(addrs.iter().any(|addr| addr.to_string() == "10.0.0.1/24"));
    machine.wait(Duration::from_secs(1));
    let searches = drivers.state().searches;
    machine.wait(Duration::from_secs(3600));
    assert_eq!(drivers.state().searches, searches);
}

#[test]
fn who_stays_away_is_not_looked_for_for_ever() {
    let drivers = Drivers::default();
    drivers.start("network.a", US);
    let mut machine = Machine::new(&drivers);
    drivers.kill("network.a");
    machine.adapters.receive(&mut machine.net, 0);
    machine.run();
    machine.wait(Duration::from_secs(1000));
    let searches = drivers.state().searches;
    assert!((10..100).contains(&searches), "{searches}");
    assert_eq!(machine.deadline, None);
    // But a listing does look. The driver has another adapter now.
    drivers.start("network.a", Mac([2, 0, 0, 0, 0, 9]));
    machine.list();
    assert_eq!(machine.flags("eth0"), RUNNING);
    machine.wait(Duration::from_secs(1));
    let addrs = &machine.net.interface("eth0").unwrap().addrs;
    assert_eq!(addrs[0].to_string(), "fe80::ff:fe00:9/64");
}

#[test]
fn a_driver_that_fails_again_and_again_keeps_nobody_busy() {
    let drivers = Drivers::default();
    drivers.start("network.a", US);
    let mut machine = Machine::new(&drivers);
    drivers.state().broken = true;
    machine.adapters.receive(&mut machine.net, 0);
    machine.run();
    machine.wait(Duration::from_secs(3600));
    let searches = drivers.state().searches;
    assert!((10..100).contains(&searches), "{searches}");
    assert_eq!(machine.deadline, None);
    drivers.state().broken = false;
    machine.list();
    assert_eq!(machine.flags("eth0"), RUNNING);
    // A driver that ran for a while is looked for at once again.
    machine.wait(Duration::from_secs(60));
    drivers.kill("network.a");
    machine.adapters.receive(&mut machine.net, 0);
    machine.run();
    drivers.start("network.a", US);
    machine.wait(Duration::from_millis(100));
    assert_eq!(machine.flags("eth0"), RUNNING);
}

#[test]
fn a_driver_that_comes_late_is_found_when_somebody_looks() {
    let drivers = Drivers::default();
    let mut machine = Machine::new(&drivers);
    drivers.start("network.a", US);
    machine.wait(Duration::from_secs(10));
    assert!(machine.net.interface("eth0").is_none());
    assert_eq!(machine.list(), ["eth0", "lo0"]);
    // Or opens one that does not exist.
    drivers.start("network.b", Mac([2, 0, 0, 0, 0, 0xb]));
    let caller = Caller {
        pid: Pid(1),
        uid: 1000,
    };
    machine.wait(Duration::from_secs(1));
    let open = machine
        .net
        .open("netcfg/ifaces/eth1/mac", OpenFlags::READ, caller);
    assert_eq!(open, Err(errno::ENOENT));
    machine.run();
    assert!(machine.net.interface("eth1").is_some());
    // The directory may have a trailing slash.
    drivers.start("network.c", Mac([2, 0, 0, 0, 0, 0xc]));
    machine.wait(Duration::from_secs(1));
    let open = machine
        .net
        .open("netcfg/ifaces/", OpenFlags::READ, caller)
        .unwrap();
    machine.run();
    assert!(machine.net.interface("eth2").is_some());
    machine.net.close(open);
    // On Redox a path is checked before it is opened.
    drivers.start("network.d", Mac([2, 0, 0, 0, 0, 0xd]));
    machine.wait(Duration::from_secs(1));
    let stat = machine.net.stat("netcfg/ifaces/eth3/mac");
    assert_eq!(stat, Err(errno::ENOENT));
    machine.run();
    assert!(machine.net.interface("eth3").is_some());
    // However many requests there are, there is a pause between two searches.
    let searches = drivers.state().searches;
    for _ in 0..1000 {
        machine.list();
        machine.wait(Duration::from_millis(1));
    }
    let searches = drivers.state().searches - searches;
    assert!((9..=11).contains(&searches), "{searches}");
}

#[test]
fn a_name_that_was_left_before_the_start_is_not_in_the_way() {
    let drivers = Drivers::default();
    drivers.start("network.a", US);
    drivers.kill("network.a");
    let mut machine = Machine::new(&drivers);
    assert_eq!(machine.list(), ["lo0"]);
    drivers.start("network.a", US);
    machine.wait(Duration::from_secs(1));
    assert_eq!(machine.list(), ["eth0", "lo0"]);
}

#[test]
fn a_driver_that_nobody_talks_to_is_missed_when_somebody_looks() {
    let drivers = Drivers::default();
    drivers.start("network.a", US);
    let mut machine = Machine::new(&drivers);
    // Nobody asks for routers meanwhile.
    machine.set("ifaces/eth0/autoconf", "0\n");
    machine.wait(Duration::from_secs(20));
    // The driver ended, and nothing was sent or received.
    drivers.kill("network.a");
    machine.wait(Duration::from_secs(3600));
    assert_eq!(machine.flags("eth0"), RUNNING);
    machine.list();
    assert_eq!(machine.flags("eth0"), LOST);
    drivers.start("network.a", US);
    machine.wait(Duration::from_secs(1));
    assert_eq!(machine.flags("eth0"), RUNNING);
    // The same, with a frame to be sent: it is lost, and counted.
    machine.set("ifaces/eth0/addr/set", "10.0.0.1/24\n");
    drivers.kill("network.a");
    machine.set("ifaces/eth0/multicast", "join 239.1.2.3\n");
    assert_eq!(machine.flags("eth0"), LOST);
    drivers.start("network.a", US);
    machine.wait(Duration::from_secs(1));
    assert!(machine.answers(0, "network.a"));
    let ifp = machine.net.interface("eth0").unwrap();
    assert!(ifp.stats.output().closes(), "{:?}", ifp.stats.output());
}

#[test]
fn without_a_driver_the_network_is_down() {
    let wire = Wire::new();
    wire.take_address();
    let datagrams = wire.process.open("/scheme/udp", BOTH).unwrap();
    let datagrams = wire.process.dup_verb(datagrams, b"10.0.0.2:9").unwrap();
    // These packets wait for the neighbour.
    for _ in 0..3 {
        wire.process.write(datagrams, b"x").unwrap();
    }
    wire.local.with_server(|net| net.ethernet_lost(wire.port));
    assert_eq!(wire.process.write(datagrams, b"x"), Err(errno::ENETDOWN));
    wire.assert_ledger_closes();
    assert_eq!(wire.sent(), None);
    let stats = wire.text("ifaces/eth0/stats");
    assert!(stats.contains("drop.purged 4\n"), "{stats}");
    assert!(stats.contains("drop.not_open 1\n"), "{stats}");
    // The last frames of a driver are not received.
    wire.send(US.0, 0x0800, &ping());
    assert_eq!(wire.sent(), None);
    wire.wait(10_000);
    // Addresses and groups are announced again.
    wire.set("ifaces/eth0/multicast", "join 239.1.2.3\n")
        .unwrap();
    wire.local
        .with_server(|net| net.ethernet_found(wire.port, US));
    let (dst, _, report) = wire.sent().unwrap();
    assert_eq!((dst, report[24]), ([1, 0, 0x5e, 0, 0, 22], 0x22));
    assert_eq!(report[32..], [4, 0, 0, 0, 239, 1, 2, 3]);
    let (dst, _, report) = wire.sent().unwrap();
    assert_eq!((dst, report[48]), ([0x33, 0x33, 0, 0, 0, 0x16], 143));
    // Other stations may have cached another hardware address for ours.
    let (dst, _, advert) = wire.sent().unwrap();
    assert_eq!((dst, advert[40]), ([0x33, 0x33, 0, 0, 0, 1], 136));
    wire.assert_announced();
    wire.process.write(datagrams, b"x").unwrap();
    assert_eq!(wire.sent().unwrap().1, 0x0806);
    wire.assert_ledger_closes();
}

#[test]
fn another_adapter_speaks_for_itself() {
    let wire = Wire::new();
    wire.take_address();
    wire.set("ifaces/eth0/multicast", "join 239.1.2.3\n")
        .unwrap();
    wire.wait(20_000);
    while wire.frame().is_some() {}
    wire.local.with_server(|net| net.ethernet_lost(wire.port));
    let mac = Mac([2, 0, 0, 0, 0, 9]);
    wire.local
        .with_server(|net| net.ethernet_found(wire.port, mac));
    wire.wait(0);
    let frames: Vec<_> = std::iter::from_fn(|| wire.frame()).collect();
    assert!(frames.len() > 2);
    assert!(frames.iter().all(|frame| frame[6..12] == mac.0));
}

#[test]
fn settings_do_not_make_up_a_driver() {
    let drivers = Drivers::default();
    drivers.start("network.a", US);
    let mut machine = Machine::new(&drivers);
    machine.wait(Duration::from_secs(1));
    drivers.kill("network.a");
    machine.list();
    assert_eq!(machine.flags("eth0"), LOST);
    machine.set("ifaces/eth0/addr/set", "10.0.0.1/24\n");
    assert_eq!(machine.flags("eth0"), LOST);
    machine.set("ifaces/eth0/addr/add", "10.0.1.1/24\n");
    machine.set("ifaces/eth0/flags", "up\n");
    assert_eq!(machine.flags("eth0"), LOST);
    machine.set("ifaces/eth0/flags", "down\n");
    machine.set("ifaces/eth0/flags", "up\n");
    assert_eq!(machine.flags("eth0"), LOST);
    // Nor does undoing lines that were applied.
    let caller = Caller {
        pid: Pid(1),
        uid: 0,
    };
    let file = machine
        .net
        .open("netcfg/ifaces/eth0/addr/add", OpenFlags::WRITE, caller)
        .unwrap();
    let lines = b"10.0.2.1/24\n10.0.2.1/24\n";
    let refused = machine.net.write(file, lines, 0, caller);
    assert_eq!(refused, Outcome::Done(Err(errno::EINVAL)));
    assert_eq!(machine.flags("eth0"), LOST);
    drivers.start("network.a", US);
    machine.wait(Duration::from_secs(1));
    assert_eq!(machine.flags("eth0"), RUNNING);
}

#[test]
fn a_connection_waits_for_the_driver() {
    let wire = Wire::new();
    wire.take_address();
    // Nobody asks for routers meanwhile.
    wire.set("ifaces/eth0/autoconf", "0\n").unwrap();
    let stream = wire.process.open("/scheme/tcp", BOTH).unwrap();
    wire.process.set_nonblocking(stream, true).unwrap();
    let begun = wire.process.dup_verb(stream, b"10.0.0.2:80");
    assert_eq!(begun, Err(errno::EINPROGRESS));
    let answer = wire.arp(2, [10, 0, 0, 2], [10, 0, 0, 1]);
    wire.send(US.0, 0x0806, &answer);
    let last = |wire: &Wire| std::iter::from_fn(|| wire.sent()).last();
    let (_, _, syn) = last(&wire).unwrap();
    assert_eq!(payload_v4(&syn)[13], 2);
    wire.local.with_server(|net| net.ethernet_lost(wire.port));
    for _ in 0..20 {
        wire.wait(1000);
    }
    assert_eq!(wire.sent(), None);
    wire.local
        .with_server(|net| net.ethernet_found(wire.port, US));
    for _ in 0..60 {
        wire.wait(1000);
        wire.send(US.0, 0x0806, &answer);
    }
    let (_, _, again) = last(&wire).unwrap();
    assert_eq!(payload_v4(&again)[..8], payload_v4(&syn)[..8]);
    wire.assert_ledger_closes();
}

/// Packets for one host in frames for many: each station would answer, complain or forward
/// (RFC 1122 section 3.3.6, RFC 1812 section 5.3.4).
#[test]
fn a_packet_for_one_host_in_a_frame_for_many() {
    let wire = Wire::new();
    wire.take_address();
    wire.set("ip/forwarding", "1\n").unwrap();
    wire.send(
        EVERYBODY,
        0x0806,
        &wire.arp(1, [10, 0, 0, 2], [10, 0, 0, 1]),
    );
    assert!(wire.sent().is_some());
    let bound = wire.process.open("/scheme/udp", BOTH).unwrap();
    let bound = wire.process.dup_verb(bound, b"/10.0.0.1:9").unwrap();
    let heard = wire.process.dup_verb(bound, b"10.0.0.2:5").unwrap();
    wire.process.set_nonblocking(heard, true).unwrap();
    let mut syn = vec![
        0, 5, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 1, 0, 0, 0, 0, 0,
    ];
    let [us, peer] = ["10.0.0.1", "10.0.0.2"].map(|addr| addr.parse().unwrap());
    let sum = packet::checksum(&[&[10, 0, 0, 2, 10, 0, 0, 1, 0, 6, 0, 20], &syn]);
    syn[16..18].copy_from_slice(&sum.to_be_bytes());
    let syn = packet::ip(peer, us, 6, &syn);
    let packets = [
        syn,
        udp(("10.0.0.2", 5), ("10.0.0.1", 999), b"closed"),
        udp(("10.0.0.2", 5), ("10.0.0.1", 9), b"open"),
        udp(("10.0.0.2", 5), ("10.0.0.3", 9), b"another's"),
        ping(),
    ];
    for dst in [EVERYBODY, [1, 0, 0x5e, 0, 0, 1]] {
        for packet in &packets {
            wire.send(dst, 0x0800, packet);
            assert_eq!(wire.sent(), None);
        }
    }
    let mut buffer = [0; 100];
    let read = wire.process.read(heard, &mut buffer);
    assert_eq!(read, Err(errno::EAGAIN));
    let stats = wire.text("ifaces/eth0/stats");
    assert!(stats.contains("drop.bad_destination 10\n"), "{stats}");
    // The same in IPv6.
    let (us, peer) = (
        "fe80::ff:fe00:1".parse().unwrap(),
        "fe80::2".parse().unwrap(),
    );
    let echo = packet::icmpv6(peer, us, &[128, 0, 0, 0, 0, 1, 0, 1]);
    wire.send([0x33, 0x33, 0, 0, 0, 1], 0x86dd, &echo);
    assert_eq!(wire.sent(), None);
    // In frames for us alone, all of these have an effect.
    wire.send(US.0, 0x86dd, &echo);
    assert!(wire.sent().is_some());
    for packet in &packets {
        wire.send(US.0, 0x0800, packet);
    }
    assert_eq!(wire.process.read(heard, &mut buffer), Ok(4));
    assert_eq!(std::iter::from_fn(|| wire.sent()).count(), 4);
    wire.assert_ledger_closes();
}

/// A ping in a frame to a driver.
fn ping_frame(machine: &Machine, name: &str, data: &[u8]) -> Vec<u8> {
    let ping = echo_request("10.0.0.2", "10.0.0.1", 1, data);
    let mac = machine.drivers.state().drivers[name].mac;
    [&mac.0[..], &PEER.0, &[8, 0], &ping].concat()
}

/// Gives the driver these frames, with the peer's address before them.
fn arrive(machine: &mut Machine, at: usize, name: &str, frames: Vec<Vec<u8>>) {
    let asked = [0, 1, 8, 0, 6, 4, 0, 1];
    let arp = [&asked[..], &PEER.0, &[10, 0, 0, 2], &[0; 6], &[10, 0, 0, 1]].concat();
    let arp = [&EVERYBODY[..], &PEER.0, &[8, 6], &arp].concat();
    let mut state = machine.drivers.state();
    let received = &mut state.drivers.get_mut(name).unwrap().received;
    received.push_back(arp);
    received.extend(frames);
    drop(state);
    machine.adapters.receive(&mut machine.net, at);
}

#[test]
fn a_refused_frame_is_lost_and_its_driver_is_not() {
    let drivers = Drivers::default();
    drivers.start("network.a", US);
    let mut machine = Machine::new(&drivers);
    machine.set("ifaces/eth0/addr/set", "10.0.0.1/24\n");
    machine.set("ifaces/eth0/mtu", "9000\n");
    machine.wait(Duration::from_secs(15));
    drivers.taken("network.a");
    let searches = drivers.state().searches;
    let frames = [3000, 100, 3000, 100].map(|len| ping_frame(&machine, "network.a", &vec![7; len]));
    arrive(&mut machine, 0, "network.a", frames.to_vec());
    machine.run();
    // The answer to the request for our address, and the two short pings.
    assert_eq!(drivers.taken("network.a").len(), 3);
    assert_eq!(machine.flags("eth0"), RUNNING);
    // Nor is a driver without room taken for one that ended.
    drivers.state().drivers.get_mut("network.a").unwrap().room = 1;
    let ping = ping_frame(&machine, "network.a", b"data");
    arrive(&mut machine, 0, "network.a", vec![ping]);
    machine.run();
    assert_eq!(drivers.taken("network.a").len(), 1);
    assert_eq!(drivers.state().searches, searches);
    let stats = &machine.net.interface("eth0").unwrap().stats;
    assert_eq!(stats.drops(net::ifnet::DropReason::Refused), 3);
    assert!(stats.output().closes(), "{:?}", stats.output());
}

#[test]
fn frames_that_a_driver_lost_are_counted() {
    let drivers = Drivers::default();
    drivers.start("network.a", US);
    let mut machine = Machine::new(&drivers);
    machine.set("ifaces/eth0/addr/set", "10.0.0.1/24\n");
    machine.wait(Duration::from_secs(15));
    let stats = |machine: &Machine| machine.net.interface("eth0").unwrap().stats.clone();
    let before = stats(&machine);
    let sent = before.output().delivered;
    assert!(sent >= 2);
    // It cannot have refused more than it was given.
    for (missed, refused) in [(3, 2), (0, u64::MAX)] {
        let lost = Lost { missed, refused };
        drivers.state().drivers.get_mut("network.a").unwrap().lost = lost;
        machine.run();
    }
    let after = stats(&machine);
    assert_eq!(after.drops(net::ifnet::DropReason::Missed), 3);
    assert_eq!(after.iqdrops, before.iqdrops + 3);
    assert_eq!(after.drops(net::ifnet::DropReason::Refused), sent);
    for ledger in [after.input(), after.output()] {
        assert!(ledger.closes(), "{ledger:?}");
    }
}

#[test]
fn an_mtu_is_as_much_as_the_link_carries() {
    let drivers = Drivers::default();
    drivers.start("network.a", US);
    drivers.state().drivers.get_mut("network.a").unwrap().mtu = Some(1400);
    let mut machine = Machine::new(&drivers);
    let mtu = |machine: &Machine| machine.net.interface("eth0").unwrap().mtu;
    assert_eq!(mtu(&machine), 1400);
    machine.set("ifaces/eth0/mtu", "9000\n");
    assert_eq!(mtu(&machine), 1400);
    for (link, wanted) in [
        (Some(4000), 4000),
        (None, 9000),
        (Some(1000), 1000),
        (Some(1), 72),
    ] {
        drivers.kill("network.a");
        machine.wait(Duration::from_secs(15));
        drivers.state().drivers.remove("network.a");
        drivers.start("network.a", US);
        drivers.state().drivers.get_mut("network.a").unwrap().mtu = link;
        machine.net.ask_for_adapters();
        machine.wait(Duration::from_secs(15));
        assert_eq!(machine.flags("eth0"), RUNNING);
        assert_eq!(mtu(&machine), wanted);
    }
}

#[test]
fn a_flood_on_one_adapter_leaves_the_others_their_turn() {
    let drivers = Drivers::default();
    drivers.start("network.a", US);
    drivers.start("network.b", Mac([2, 0, 0, 0, 0, 0xb]));
    let mut machine = Machine::new(&drivers);
    machine.set("ifaces/eth1/addr/set", "10.0.0.1/24\n");
    machine.wait(Duration::from_secs(15));
    drivers.taken("network.b");
    // Each is dropped, but only after it was looked at.
    let noise = echo_request("10.0.0.2", "10.0.0.9", 1, b"noise");
    let noise = [&US.0[..], &PEER.0, &[8, 0], &noise].concat();
    arrive(&mut machine, 0, "network.a", vec![noise; 20_000]);
    let ping = ping_frame(&machine, "network.b", b"data");
    arrive(&mut machine, 1, "network.b", vec![ping]);
    let now = Now {
        monotonic: machine.now,
        wall: machine.now,
    };
    for _ in 0..2 {
        let _ = machine.net.turn(now);
        assert!(machine.adapters.transmit(&mut machine.net), "there is more");
    }
    // Both the request for our address and the ping are answered.
    assert_eq!(drivers.taken("network.b").len(), 2);
    let left = |drivers: &Drivers| drivers.state().drivers["network.a"].received.len();
    assert!(left(&drivers) > 19_000);
    // Nothing is forgotten, and it comes to rest.
    machine.run();
    assert_eq!(left(&drivers), 0);
}

/// RFC 5227 section 2.4: an address that another station uses is defended, but not in every frame.
#[test]
fn an_address_that_another_station_has_is_defended() {
    let wire = Wire::new();
    wire.take_address();
    // Nobody asks for routers meanwhile.
    wire.set("ifaces/eth0/autoconf", "0\n").unwrap();
    for _ in 0..2 {
        // The answer to our question, another host's question, and its announcement.
        for (operation, target) in [(2, 1), (1, 9), (1, 1)] {
            let claim = wire.arp(operation, [10, 0, 0, 1], [10, 0, 0, target]);
            wire.send(EVERYBODY, 0x0806, &claim);
        }
        wire.assert_announced();
        wire.wait(9900);
        assert_eq!(wire.sent(), None);
        wire.wait(100);
    }
    assert!(wire.text("ifaces/eth0/addr/list").contains("10.0.0.1/24"));
    wire.assert_ledger_closes();
}

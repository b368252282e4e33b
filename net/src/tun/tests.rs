//! The driver with a hand-made network layer, call by call.

use std::net::IpAddr;

use scheme::local::OneSession;
use scheme::{Caller, Outcome, Pid};

use super::*;
use crate::ifnet::{DropReason, Family, IfIndex};
use crate::ip::NetError;
use crate::ip::header::proto;
use crate::ip::testing::{HOST, PEER, bare, give_addr, ipv4};
use crate::packet::Packet;

const ROOT: Caller = Caller {
    pid: Pid(7),
    uid: 0,
};
const FILE: FileId = FileId(3);

/// A network layer, and `tun0` in it, open and up.
struct Bench {
    ip: Ip,
    units: Units,
    handle: Handle,
    dev: IfIndex,
}

impl Bench {
    fn new() -> Self {
        let (mut ip, mut units) = (bare(), Units::default());
        let handle = units.open(&mut ip, "0", ROOT, FILE, &OneSession).unwrap();
        let dev = ip.ifs.by_name("tun0").unwrap();
        give_addr(&mut ip, dev, &format!("{HOST}/24"));
        let mut bench = Self {
            ip,
            units,
            handle,
            dev,
        };
        assert_eq!(bench.events(), []);
        bench
    }

    fn set(&mut self, flags: TunFlags, on: bool) {
        flags.set_on(self.ip.ifs.get_mut(self.dev).unwrap(), on);
    }

    /// The system sends a packet by the interface.
    fn output(&mut self, packet: &[u8]) -> Result<(), NetError> {
        self.output_as(Family::Inet, PEER.into(), packet)
    }

    fn output_as(
        &mut self,
        family: Family,
        next_hop: IpAddr,
        packet: &[u8],
    ) -> Result<(), NetError> {
        self.ip
            .if_output(self.dev, family, Packet::from(packet), next_hop)
    }

    fn read(&mut self, len: usize) -> Outcome<Vec<u8>> {
        let mut buf = vec![0; len];
        let outcome = self
            .units
            .read(&mut self.ip, &mut self.handle, &mut buf, ROOT, &OneSession);
        match outcome {
            Outcome::Done(Ok(len)) => Outcome::Done(Ok(buf[..len].to_vec())),
            Outcome::Done(Err(error)) => error.into(),
            Outcome::Wait => Outcome::Wait,
        }
    }

    /// Reads a packet that reaches the reader.
    fn take(&mut self) -> Vec<u8> {
        let Outcome::Done(Ok(packet)) = self.read(2000) else {
            panic!("no packet");
        };
        self.units.complete(&mut self.ip, &self.handle, true);
        packet
    }

    fn write(&mut self, frame: &[u8]) -> Result<usize, Errno> {
        self.units
            .write(&mut self.ip, &mut self.handle, frame, ROOT, &OneSession)
    }

    /// Tells the driver of the activity at its interface, as a turn does, and takes its events.
    fn events(&mut self) -> Vec<TunEvent> {
        while let Some((dev, activity)) = self.ip.ifs.poll_activity() {
            assert_eq!(dev, self.dev);
            self.units.start(&self.ip, 0, activity);
        }
        std::iter::from_fn(|| self.units.poll_event()).collect()
    }

    fn drops(&self, reason: DropReason) -> u64 {
        self.ip.ifs.get(self.dev).unwrap().stats.drops(reason)
    }

    /// Checks that every packet is in exactly one place.
    fn check_ledger(&self) {
        let ledger = self.ip.ifs.get(self.dev).unwrap().stats.output();
        assert_eq!(
            ledger.offered,
            ledger.delivered + ledger.queued + ledger.dropped
        );
    }
}

#[test]
fn the_lowest_unit_that_is_not_open() {
    let mut units = Units::default();
    assert_eq!(units.lowest_free(), Some(0));
    for unit in [0, 1, 3] {
        let mut softc = Softc::new(IfIndex(0));
        softc.open(FileId(unit.into()), 1, Pid(1));
        units.units.insert(unit, softc);
    }
    assert_eq!(units.lowest_free(), Some(2));
    units.units.get_mut(&1).unwrap().close();
    assert_eq!(units.lowest_free(), Some(1));
}

#[test]
fn a_unit_is_the_superusers_and_one_openings() {
    let mut bench = Bench::new();
    let user = Caller { uid: 1000, ..ROOT };
    let mut open = |path: &str, caller| {
        let Bench { ip, units, .. } = &mut bench;
        units.open(ip, path, caller, FileId(4), &OneSession).err()
    };
    assert_eq!(open("1", user), Some(errno::EPERM));
    assert_eq!(open("0", ROOT), Some(errno::EBUSY));
    for path in ["32768", "00", "-1", "x", ""] {
        assert_eq!(open(path, ROOT), Some(errno::ENOENT), "{path:?}");
    }
    assert_eq!(open("clone", ROOT), None);
    assert!(bench.ip.ifs.by_name("tun1").is_some());
}

#[test]
fn the_header_before_a_packet_is_that_of_the_mode() {
    const SOCKADDR: [u8; 16] = [16, 2, 0, 0, 10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0];
    let modes: [(TunFlags, &[&[u8]]); 4] = [
        (TunFlags::empty(), &[]),
        (TunFlags::IFHEAD, &[&[0, 0, 0, 2]]),
        (TunFlags::LMODE, &[&SOCKADDR]),
        (
            TunFlags::IFHEAD.union(TunFlags::LMODE),
            &[&[0, 0, 0, 2], &SOCKADDR],
        ),
    ];
    let packet = ipv4(HOST, PEER, proto::UDP, b"hello");
    let mut bench = Bench::new();
    for (mode, headers) in modes {
        bench.set(TunFlags::IFHEAD | TunFlags::LMODE, false);
        bench.set(mode, true);
        bench.output(&packet).unwrap();
        let mut frame = headers.concat();
        frame.extend_from_slice(&packet);
        assert_eq!(bench.take(), frame, "{mode:?}");
    }
    let stats = &bench.ip.ifs.get(bench.dev).unwrap().stats;
    assert_eq!(stats.obytes, 4 * packet.len() as u64, "without headers");
}

#[test]
fn ipv6_needs_the_family_before_it() {
    let mut bench = Bench::new();
    let (next_hop, packet) = (IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 2]), [0x60; 40]);
    let refused = bench.output_as(Family::Inet6, next_hop, &packet);
    assert_eq!(refused, Err(NetError::Family));
    assert_eq!(bench.drops(DropReason::FamilyRefused), 1);
    bench.set(TunFlags::IFHEAD, true);
    bench.output_as(Family::Inet6, next_hop, &packet).unwrap();
    assert_eq!(bench.take()[..5], [0, 0, 0, 10, 0x60]);
    bench.check_ledger();
}

#[test]
fn a_reader_that_waits_is_told_once_until_the_queue_is_empty() {
    let ready = TunEvent::Ready(FILE, Ready::READ);
    let mut bench = Bench::new();
    assert_eq!(bench.read(2000), Outcome::Wait);
    bench.output(b"one").unwrap();
    bench.output(b"two").unwrap();
    assert_eq!(bench.events(), [ready]);
    bench.output(b"three").unwrap();
    assert_eq!(bench.events(), []);
    let Bench {
        ip, units, handle, ..
    } = &mut bench;
    assert_eq!(units.ready(ip, handle), Ready::all());
    for packet in ["one", "two", "three"] {
        assert_eq!(bench.take(), packet.as_bytes());
    }
    assert_eq!(bench.read(2000), Outcome::Wait);
    assert_eq!(bench.events(), []);
    bench.output(b"four").unwrap();
    assert_eq!(bench.events(), [ready]);
    bench.check_ledger();
}

#[test]
fn a_read_that_was_not_delivered_is_read_again() {
    let mut bench = Bench::new();
    bench.output(b"one").unwrap();
    bench.output(b"two").unwrap();
    assert_eq!(bench.events().len(), 1);
    assert_eq!(bench.read(2000), Outcome::Done(Ok(b"one".to_vec())));
    bench.units.complete(&mut bench.ip, &bench.handle, false);
    assert_eq!(bench.events(), [TunEvent::Ready(FILE, Ready::READ)]);
    let ledger = bench.ip.ifs.get(bench.dev).unwrap().stats.output();
    assert_eq!((ledger.delivered, ledger.queued), (0, 2));
    assert_eq!(bench.take(), b"one");
    assert_eq!(bench.take(), b"two");
    bench.check_ledger();
}

#[test]
fn a_short_read_loses_the_rest_and_that_is_counted() {
    let mut bench = Bench::new();
    bench.output(b"packet").unwrap();
    assert_eq!(bench.read(3), Outcome::Done(Ok(b"pac".to_vec())));
    bench.units.complete(&mut bench.ip, &bench.handle, true);
    assert_eq!(bench.drops(DropReason::Truncated), 1);
    assert_eq!(bench.read(2000), Outcome::Wait);
    bench.check_ledger();
}

#[test]
fn a_written_packet_is_queued_for_the_network_layer() {
    let mut bench = Bench::new();
    let packet = ipv4(PEER, HOST, proto::UDP, b"hello");
    assert_eq!(bench.write(&packet), Ok(packet.len()));
    assert!(bench.ip.has_work());
    bench.set(TunFlags::IFHEAD, true);
    let mut frame = vec![0, 0, 0, 99];
    frame.extend_from_slice(&packet);
    assert_eq!(bench.write(&frame), Err(errno::EAFNOSUPPORT));
    assert_eq!(bench.drops(DropReason::UnknownFamily), 1);
    assert_eq!(bench.write(&[0, 0]), Err(errno::EINVAL));
    let stats = &bench.ip.ifs.get(bench.dev).unwrap().stats;
    assert_eq!((stats.input().offered, stats.input().queued), (2, 1));
}

#[test]
fn close_wakes_whoever_waits_and_purges_the_queue() {
    let mut bench = Bench::new();
    bench.output(b"one").unwrap();
    bench.events();
    bench.units.close(&mut bench.ip, &bench.handle);
    assert_eq!(bench.events(), [TunEvent::Ready(FILE, Ready::all())]);
    assert_eq!(bench.read(2000), Outcome::Done(Err(errno::EHOSTDOWN)));
    assert_eq!(bench.output(b"two"), Err(NetError::HostDown));
    assert_eq!(bench.drops(DropReason::Purged), 1);
    assert!(!bench.ip.is_up(bench.dev));
    bench.check_ledger();
}

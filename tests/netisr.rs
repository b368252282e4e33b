//! Packets of protocols that are not ours, for programs that register for them.
#![allow(missing_docs)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::program::{text, tunnel};
use common::system::{TestProcesses, counter};
use net::{Config, Host};
use scheme::errno::{self, Errno};
use scheme::local::{Fd, Local, Process};
use scheme::{OpenFlags, Pid, Processes, Ready, SignalTarget};

const BOTH: OpenFlags = OpenFlags::READ.union(OpenFlags::WRITE);
const TUNSIFHEAD: u32 = 0x8004_7460;
const TUNSBATCH: u32 = 0x8004_7482;
/// The families by their numbers on BSD and on Linux.
const IPX: [u32; 2] = [23, 4];
const APPLETALK: [u32; 2] = [16, 5];

struct Machine {
    local: Arc<Local<Host>>,
    root: Process<Host>,
    tun: Fd,
}

impl Machine {
    fn new() -> Self {
        Self::with(TestProcesses)
    }

    fn with(processes: impl Processes + Send + 'static) -> Self {
        let local = Local::new(Host::new(Config::default(), processes));
        let root = local.process(1, 0);
        let tun = tunnel(&root, 0, "10.0.0.1/24");
        let machine = Self { local, root, tun };
        machine.head(true);
        machine
    }

    fn head(&self, on: bool) {
        let mut arg = i32::from(on).to_ne_bytes();
        self.root.ioctl(self.tun, TUNSIFHEAD, &mut arg).unwrap();
    }

    fn register(&self, name: &str) -> Fd {
        let file = self.root.open(&format!("/scheme/netisr/{name}"), BOTH);
        let file = file.unwrap();
        self.root.set_nonblocking(file, true).unwrap();
        file
    }

    fn write(&self, af: u32, packet: &[u8]) -> Result<usize, Errno> {
        let frame = [&af.to_be_bytes()[..], packet].concat();
        self.root.write(self.tun, &frame)
    }

    fn read(&self, file: Fd) -> Result<Vec<u8>, Errno> {
        let mut buf = [0; 2000];
        let len = self.root.read(file, &mut buf)?;
        Ok(buf[..len].to_vec())
    }

    fn ready(&self, file: Fd) -> bool {
        let ready = self
            .root
            .poll(&[(file, Ready::READ)], Some(std::time::Duration::ZERO));
        !ready.unwrap()[0].is_empty()
    }

    fn stat(&self, name: &str) -> u64 {
        counter(&text(&self.root, "ifaces/tun0/stats"), name)
    }

    fn check_ledger(&self) {
        self.local.with_server(|net| {
            for ifp in net.interfaces() {
                let (input, output) = (ifp.stats.input(), ifp.stats.output());
                assert!(input.closes() && output.closes(), "{input:?} {output:?}");
            }
        });
    }
}

fn named(name: &str, packet: &[u8]) -> Vec<u8> {
    let mut frame = name.as_bytes().to_vec();
    frame.resize(16, 0);
    frame.extend_from_slice(packet);
    frame
}

#[test]
fn packets_of_the_family_are_read_behind_the_name_of_the_interface() {
    let machine = Machine::new();
    for (file, families) in [("ipx", IPX), ("atalk", APPLETALK)] {
        for af in families {
            assert_eq!(machine.write(af, b"nobody"), Err(errno::EAFNOSUPPORT));
        }
        let file = machine.register(file);
        assert_eq!(machine.read(file), Err(errno::EAGAIN));
        assert!(!machine.ready(file));
        for af in families {
            assert_eq!(machine.write(af, b"packet"), Ok(10));
        }
        machine.check_ledger();
        for _ in families {
            assert!(machine.ready(file));
            assert_eq!(machine.read(file), Ok(named("tun0", b"packet")));
        }
        assert!(!machine.ready(file));
        machine.root.close(file).unwrap();
        assert_eq!(
            machine.write(families[0], b"late"),
            Err(errno::EAFNOSUPPORT)
        );
        machine.check_ledger();
    }
    assert_eq!(machine.stat("drop.unknown_family"), 6);
    assert_eq!(machine.stat("ipackets"), 4);
}

#[test]
fn a_family_is_one_programs_and_the_superusers() {
    let machine = Machine::new();
    let user = machine.local.process(2, 1000);
    let open = |process: &Process<Host>, name: &str| process.open(name, BOTH).err();
    assert_eq!(open(&user, "/scheme/netisr/ipx"), Some(errno::EPERM));
    let file = machine.register("ipx");
    assert_eq!(
        open(&machine.root, "/scheme/netisr/ipx"),
        Some(errno::EBUSY)
    );
    assert_eq!(open(&user, "/scheme/netisr/ipx"), Some(errno::EPERM));
    let other = machine.register("atalk");
    for name in ["x", "ip", "ipx/", "ipx/0", "IPX"] {
        let error = open(&machine.root, &format!("/scheme/netisr/{name}"));
        assert_eq!(error, Some(errno::ENOENT), "{name}");
    }
    assert_eq!(machine.root.path(file).unwrap(), "/scheme/netisr/ipx");
    // It is held until the last descriptor is closed.
    let copy = machine.root.dup(file).unwrap();
    machine.root.close(file).unwrap();
    assert_eq!(
        open(&machine.root, "/scheme/netisr/ipx"),
        Some(errno::EBUSY)
    );
    machine.root.close(copy).unwrap();
    machine.root.close(other).unwrap();
    machine.register("ipx");
    machine.register("atalk");
}

#[test]
fn the_queue_is_bounded_and_purged_at_the_last_close() {
    let machine = Machine::new();
    let file = machine.register("ipx");
    for _ in 0..300 {
        // A full queue is a counted drop, not an error of the writer.
        assert_eq!(machine.write(23, &[7; 100]), Ok(104));
    }
    assert_eq!(machine.stat("drop.netisr_full"), 44);
    assert_eq!(machine.stat("iqdrops"), 44);
    machine.check_ledger();
    machine.read(file).unwrap();
    machine.root.close(file).unwrap();
    assert_eq!(machine.stat("drop.purged"), 255);
    machine.check_ledger();
    let file = machine.register("ipx");
    assert_eq!(machine.read(file), Err(errno::EAGAIN), "of before");
    for _ in 0..300 {
        machine.write(23, &[7; 16_000]).unwrap();
    }
    let held = std::iter::from_fn(|| machine.read(file).ok()).count();
    assert!((32..70).contains(&held), "{held} of 16 000 bytes");
    machine.check_ledger();
}

#[test]
fn a_short_read_loses_the_rest_and_that_is_counted() {
    let machine = Machine::new();
    let file = machine.register("atalk");
    for _ in 0..3 {
        machine.write(16, b"packet").unwrap();
    }
    let short = |room: usize| {
        let mut buf = vec![0xee; room];
        let len = machine.root.read(file, &mut buf).unwrap();
        buf[..len].to_vec()
    };
    assert_eq!(short(0), b"");
    assert_eq!(short(19), named("tun0", b"pac"));
    assert_eq!(short(3), b"tun");
    assert_eq!(machine.stat("drop.truncated"), 2);
    assert_eq!(short(22), named("tun0", b"packet"));
    machine.check_ledger();
}

#[test]
fn a_write_sends_a_packet_of_the_family() {
    let machine = Machine::new();
    let file = machine.register("ipx");
    let write = |frame: &[u8]| machine.root.write(file, frame);
    let capture = machine.root.open("/scheme/bpf/tun0", BOTH).unwrap();
    assert_eq!(write(&named("tun0", b"hello")), Ok(21));
    assert_eq!(machine.read(machine.tun), Ok(b"\0\0\0\x04hello".to_vec()));
    // The capture saw it, behind its family.
    let mut pcap = [0; 200];
    let len = machine.root.read(capture, &mut pcap).unwrap();
    assert!(pcap[..len].ends_with(&[&23_u32.to_ne_bytes()[..], b"hello"].concat()));
    machine.head(false);
    assert_eq!(write(&named("tun0", b"hello")), Err(errno::EAFNOSUPPORT));
    assert_eq!(machine.stat("drop.family_refused"), 1);
    assert_eq!(write(&named("lo0", b"hello")), Err(errno::EAFNOSUPPORT));
    assert_eq!(write(&named("tun1", b"hello")), Err(errno::ENXIO));
    assert_eq!(write(&named("tun0", &[0; 1501])), Err(errno::EMSGSIZE));
    assert_eq!(write(b""), Ok(0));
    let mut behind = named("tun0", b"hello");
    behind[15] = b'x';
    for bad in [
        &b"tun0"[..],
        &named("tun0", b""),
        &behind,
        &[b'x'; 20],
        &[0xff; 20],
    ] {
        assert_eq!(write(bad), Err(errno::EINVAL), "{bad:?}");
    }
    machine.root.close(machine.tun).unwrap();
    assert_eq!(write(&named("tun0", b"hello")), Err(errno::EHOSTDOWN));
    machine.check_ledger();
}

#[test]
fn a_batch_with_other_families_is_taken_while_somebody_takes_them() {
    let machine = Machine::new();
    let mut arg = 1_i32.to_ne_bytes();
    machine
        .root
        .ioctl(machine.tun, TUNSBATCH, &mut arg)
        .unwrap();
    let frame = |af: u32| {
        let frame = [
            &10_u32.to_ne_bytes()[..],
            &af.to_be_bytes(),
            b"packet",
            b"\0\0",
        ];
        frame.concat()
    };
    let batch = [frame(23), frame(2), frame(4)].concat();
    let write = || machine.root.write(machine.tun, &batch);
    assert_eq!(write(), Err(errno::EAFNOSUPPORT));
    assert_eq!(machine.stat("ipackets"), 0, "checked whole");
    let file = machine.register("ipx");
    assert_eq!(write(), Ok(batch.len()));
    for _ in 0..2 {
        assert_eq!(machine.read(file), Ok(named("tun0", b"packet")));
    }
    assert_eq!(machine.read(file), Err(errno::EAGAIN));
    machine.check_ledger();
}

#[test]
fn packets_of_an_interface_that_is_gone_are_gone() {
    let machine = Machine::new();
    let file = machine.register("ipx");
    machine.write(23, b"packet").unwrap();
    machine.root.close(machine.tun).unwrap();
    // Closing it does not take what it received.
    assert!(machine.ready(file));
    common::program::set(&machine.root, "ifaces/tun0/destroy", "1\n").unwrap();
    assert_eq!(machine.read(file), Err(errno::EAGAIN));
    assert!(!machine.ready(file));
    machine.check_ledger();
}

/// A system that may fail to report a close, with a process 2 that dies.
#[derive(Clone, Default)]
struct Mortal(Arc<AtomicBool>);

impl Processes for Mortal {
    fn session(&self, _: SignalTarget) -> Option<Pid> {
        Some(Pid(1))
    }

    fn identity(&self, pid: Pid) -> Option<u64> {
        (pid != Pid(2) || !self.0.load(Ordering::SeqCst)).then_some(0)
    }

    fn closes_get_lost(&self) -> bool {
        true
    }
}

#[test]
fn a_protocol_of_the_dead_is_taken_over() {
    let processes = Mortal::default();
    let machine = Machine::with(processes.clone());
    let other = machine.local.process(2, 0);
    let old = other.open("/scheme/netisr/ipx", BOTH).unwrap();
    other.set_nonblocking(old, true).unwrap();
    machine.write(IPX[0], b"for the old one").unwrap();
    let busy = machine.root.open("/scheme/netisr/ipx", BOTH);
    assert_eq!(busy, Err(errno::EBUSY));
    processes.0.store(true, Ordering::SeqCst);
    let new = machine.register("ipx");
    assert_eq!(machine.read(new), Err(errno::EAGAIN));
    assert_eq!(machine.stat("drop.purged"), 1);
    // The old file is down, and says so to who waits; its close takes nothing away.
    let mut buf = [0; 100];
    assert_eq!(other.read(old, &mut buf), Err(errno::EHOSTDOWN));
    assert_eq!(other.write(old, &[0; 20]), Err(errno::EHOSTDOWN));
    let wanted = [(old, Ready::all())];
    let ready = other.poll(&wanted, Some(std::time::Duration::ZERO));
    assert_eq!(ready, Ok(vec![Ready::all()]));
    other.close(old).unwrap();
    machine.write(IPX[0], b"for the new one").unwrap();
    assert!(machine.read(new).unwrap().ends_with(b"for the new one"));
}

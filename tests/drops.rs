//! The packets that were dropped, as a program reads them: each with its reason, from every interface,
//! and none lost for a reader that is slow.
#![allow(missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::packet;
use common::system::machine;
use net::adapters::Lost;
use net::ifnet::DropReason;
use net::link::Mac;
use net::{Host, Services};
use pcap_file::DataLink;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use scheme::errno;
use scheme::local::{Fd, Local, ManualClock, Process};
use scheme::{OpenFlags, Ready};

const BOTH: OpenFlags = OpenFlags::READ.union(OpenFlags::WRITE);
const PATH: &str = "/scheme/bpf/drops";
const BIOCGSTATS: u32 = 0x4008_426f;

struct System {
    local: Arc<Local<Host>>,
    clock: Arc<ManualClock>,
    root: Process<Host>,
}

/// A packet of the stream.
#[derive(Debug)]
struct Seen {
    interface: String,
    link: DataLink,
    comment: String,
    data: Vec<u8>,
    /// Packets lost before it.
    missed: u64,
}

impl System {
    fn new() -> Self {
        let (local, clock) = machine(3, Services::empty());
        Self {
            root: local.process(1, 0),
            local,
            clock,
        }
    }

    fn tunnel(&self, unit: u16) -> Fd {
        common::program::tunnel(&self.root, unit.into(), &format!("10.{unit}.0.1/24"))
    }

    fn set(&self, path: &str, text: &str) {
        common::program::set(&self.root, path, text).unwrap();
    }

    fn watch(&self) -> Fd {
        let fd = self.root.open(PATH, OpenFlags::READ).unwrap();
        self.root.set_nonblocking(fd, true).unwrap();
        fd
    }

    /// All that there is to read.
    fn stream(&self, fd: Fd) -> Vec<u8> {
        let (mut stream, mut buf) = (Vec::new(), vec![0; 4096]);
        while let Ok(len) = self.root.read(fd, &mut buf) {
            stream.extend_from_slice(&buf[..len]);
        }
        stream
    }

    /// The drops of an interface, for each reason, and of all together.
    fn counted(&self) -> BTreeMap<(String, &'static str), u64> {
        self.local.with_server(|host| {
            let mut counted = BTreeMap::new();
            for ifp in host.interfaces() {
                for reason in DropReason::ALL {
                    if ifp.stats.drops(reason) > 0 {
                        counted.insert((ifp.name.clone(), reason.name()), ifp.stats.drops(reason));
                    }
                }
            }
            counted
        })
    }
}

/// Parses a stream from its beginning.
fn parse(stream: &[u8]) -> Vec<Seen> {
    let mut reader = PcapNgReader::new(stream).unwrap();
    let (mut interfaces, mut seen) = (Vec::new(), Vec::new());
    while let Some(block) = reader.next_block() {
        match block.unwrap() {
            Block::InterfaceDescription(block) => {
                let name = block.options.iter().find_map(|option| match option {
                    InterfaceDescriptionOption::IfName(name) => Some(name.to_string()),
                    _ => None,
                });
                interfaces.push((name.unwrap(), block.linktype));
            }
            Block::EnhancedPacket(block) => {
                let (interface, link) = interfaces[block.interface_id as usize].clone();
                let (mut comment, mut missed) = (String::new(), 0);
                for option in &block.options {
                    match option {
                        EnhancedPacketOption::Comment(text) => comment = text.to_string(),
                        EnhancedPacketOption::DropCount(count) => missed = *count,
                        option => panic!("{option:?}"),
                    }
                }
                seen.push(Seen {
                    interface,
                    link,
                    comment,
                    data: block.data.to_vec(),
                    missed,
                });
            }
            block => panic!("{block:?}"),
        }
    }
    seen
}

/// The packets for each interface and reason.
fn by_reason(seen: &[Seen]) -> BTreeMap<(String, &str), u64> {
    let mut by_reason = BTreeMap::new();
    for Seen {
        interface, comment, ..
    } in seen
    {
        let (_, reason) = comment.split_once(' ').unwrap();
        *by_reason.entry((interface.clone(), reason)).or_default() += 1;
    }
    by_reason
}

#[test]
fn each_with_its_way_its_reason_and_its_interface() {
    let system = System::new();
    let tun = system.tunnel(0);
    let drops = system.watch();
    assert_eq!(
        parse(&system.stream(drops)).len(),
        0,
        "the section header is there"
    );
    let drops = system.watch();
    let nobody = packet::udp(("10.0.0.2", 9), ("10.0.0.1", 9), b"nobody");
    system.root.write(tun, &nobody).unwrap();
    let mut broken = nobody.clone();
    broken[10] ^= 1;
    system.root.write(tun, &broken).unwrap();
    // A queue of one, and then none to read it.
    system.set("ifaces/tun0/queue", "fifo limit 1 packets\n");
    let out = system.root.open("/scheme/udp/10.0.0.2:7", BOTH).unwrap();
    while system.root.write(out, b"the first waits").is_ok() {}
    system.root.read(tun, &mut [0; 2]).unwrap();
    system.local.pump();
    system.root.write(out, b"purged").unwrap();
    system.root.close(tun).unwrap();
    let late = system.root.write(out, b"nobody reads");
    assert!(late.is_err());
    let seen = parse(&system.stream(drops));
    let comments: Vec<_> = seen.iter().map(|seen| seen.comment.as_str()).collect();
    assert_eq!(
        comments[..2],
        ["in no_port", "in bad_checksum"],
        "{comments:?}"
    );
    assert_eq!(seen[0].data, [&2_u32.to_ne_bytes()[..], &nobody].concat());
    assert_eq!(seen[1].data[4..], broken);
    for comment in ["out queue_full", "out truncated", "out purged"] {
        assert!(comments.contains(&comment), "{comments:?}");
    }
    assert!(
        seen.iter()
            .all(|seen| seen.interface == "tun0" && seen.link == DataLink::NULL)
    );
    let end = |comment: &str| {
        let of = seen.iter().find(|seen| seen.comment == comment);
        String::from_utf8_lossy(&of.unwrap().data).into_owned()
    };
    assert!(end("out purged").ends_with("purged"));
    assert_eq!(by_reason(&seen), system.counted());
}

#[test]
fn headers_of_the_device_are_not_shown() {
    let system = System::new();
    let tun = system.tunnel(0);
    let drops = system.watch();
    let mut one = 1_i32.to_ne_bytes();
    system.root.ioctl(tun, 0x8004_7460, &mut one).unwrap();
    let out = system.root.open("/scheme/udp/10.0.0.2:7", BOTH).unwrap();
    system.root.write(out, b"data").unwrap();
    system.root.close(tun).unwrap();
    let seen = parse(&system.stream(drops));
    let purged = seen
        .iter()
        .find(|seen| seen.data.ends_with(b"data"))
        .unwrap();
    assert_eq!(
        (purged.comment.as_str(), purged.data[4]),
        ("out purged", 0x45)
    );
    assert_eq!(by_reason(&seen), system.counted());
}

#[test]
fn fragments_that_were_held() {
    let system = System::new();
    let tun = system.tunnel(0);
    let whole = packet::udp(("10.0.0.2", 9), ("10.0.0.1", 9), &[7; 4000]);
    let fragments = packet::fragments_v4(&whole, 1024);
    let drops = system.watch();
    // All of one datagram, for nobody; of another, the first two, whose time runs out.
    for fragment in &fragments {
        system.root.write(tun, fragment).unwrap();
    }
    for fragment in &fragments[..2] {
        system.root.write(tun, fragment).unwrap();
    }
    system.clock.advance(Duration::from_secs(61));
    system.local.pump();
    let seen = parse(&system.stream(drops));
    let of = |comment: &str| -> Vec<_> {
        let of = seen.iter().filter(|seen| seen.comment == comment);
        of.map(|seen| &seen.data[4..]).collect()
    };
    let mut nobody = of("in no_port");
    nobody.rotate_left(1);
    // Not assert_eq, which would print them.
    assert!(nobody == fragments);
    assert!(of("in fragment_timeout") == fragments[..2]);
    assert_eq!(by_reason(&seen), system.counted());
}

#[test]
fn fragments_from_before_anybody_watched_are_missed_and_counted() {
    let system = System::new();
    let tun = system.tunnel(0);
    let whole = packet::udp(("10.0.0.2", 9), ("10.0.0.1", 9), &[7; 4000]);
    let fragments = packet::fragments_v4(&whole, 1024);
    system.root.write(tun, &fragments[0]).unwrap();
    system.local.pump();
    let drops = system.watch();
    system.clock.advance(Duration::from_secs(61));
    system.local.pump();
    assert_eq!(parse(&system.stream(drops)).len(), 0);
    assert_eq!(stats(&system, drops), (1, 1));
}

/// Packets that a capture saw, and of these, those that it lost.
fn stats(system: &System, fd: Fd) -> (u32, u32) {
    let mut stats = [0; 8];
    system.root.ioctl(fd, BIOCGSTATS, &mut stats).unwrap();
    let number = |at: usize| u32::from_ne_bytes(stats[at..at + 4].try_into().unwrap());
    (number(0), number(4))
}

#[test]
fn every_interface_even_one_that_comes_later_or_goes() {
    let system = System::new();
    let drops = system.watch();
    let (zero, one) = (system.tunnel(0), system.tunnel(1));
    for (tun, unit) in [(zero, 0), (one, 1)] {
        let (src, dst) = (format!("10.{unit}.0.2"), format!("10.{unit}.0.1"));
        let nobody = packet::udp((&src, 9), (&dst, 9), b"nobody");
        system.root.write(tun, &nobody).unwrap();
    }
    system.root.close(one).unwrap();
    system.set("ifaces/tun1/destroy", "1\n");
    let card = system.local.with_server(|host| {
        let card = host.attach_ethernet(Mac([2, 0, 0, 0, 0, 1])).unwrap();
        host.handle_frame(card, &[7; 60]);
        card
    });
    system.local.pump();
    let seen = parse(&system.stream(drops));
    let mut names: Vec<_> = seen.iter().map(|seen| seen.interface.as_str()).collect();
    names.dedup();
    assert_eq!(names, ["tun0", "tun1", "eth0"]);
    let frame = seen.last().unwrap();
    assert_eq!(
        (frame.link, &frame.data[..]),
        (DataLink::ETHERNET, &[7; 60][..])
    );
    // A frame that the driver refuses.
    let drops = system.watch();
    system.local.with_server(|host| {
        while let Some(frame) = host.poll_frame(card) {
            assert!(frame.len() >= 14);
            host.frames_lost(
                card,
                Lost {
                    missed: 0,
                    refused: 1,
                },
            );
        }
    });
    system.local.pump();
    let seen = parse(&system.stream(drops));
    let refused = |seen: &Seen| seen.comment == "out refused" && seen.link == DataLink::ETHERNET;
    assert!(!seen.is_empty() && seen.iter().all(refused), "{seen:?}");
}

#[test]
fn a_reader_that_is_slow_loses_captures_and_nobody_a_packet() {
    let system = System::new();
    let tun = system.tunnel(0);
    let (slow, other) = (system.watch(), system.watch());
    let nobody = packet::udp(("10.0.0.2", 9), ("10.0.0.1", 9), &[7; 1400]);
    let mut read = system.stream(other);
    for sequence in 0..3000 {
        system.root.write(tun, &nobody).unwrap();
        if sequence % 100 == 0 {
            read.extend(system.stream(other));
            let ping = packet::echo_request("10.0.0.2", "10.0.0.1", sequence, &[]);
            system.root.write(tun, &ping).unwrap();
            let mut answer = [0; 1500];
            let answered = |answer: &[u8]| answer[9] == 1 && answer[20] == 0;
            while !{
                system.root.read(tun, &mut answer).unwrap();
                answered(&answer)
            } {}
        }
    }
    read.extend(system.stream(other));
    let (seen, lost) = stats(&system, slow);
    assert_eq!(seen, 3000);
    assert!(lost > 1000, "{lost} of {seen} lost");
    let recorded = parse(&system.stream(slow));
    assert_eq!(recorded.len() as u32, seen - lost);
    assert_eq!(stats(&system, other).1, 0);
    assert_eq!(parse(&read).len(), 3000);
    // The next one says how many are missing before it.
    let again = system.watch();
    let mut stream = system.stream(again);
    system.root.write(tun, &nobody).unwrap();
    let tail = system.stream(slow);
    stream.extend(interface_block(&system.stream(again)));
    stream.extend(tail);
    assert_eq!(parse(&stream).last().unwrap().missed, u64::from(lost));
}

/// The first block of a stream that goes on.
fn interface_block(stream: &[u8]) -> &[u8] {
    let len = u32::from_ne_bytes(stream[4..8].try_into().unwrap());
    &stream[..len as usize]
}

#[test]
fn read_only_and_for_the_superuser() {
    let system = System::new();
    let tun = system.tunnel(0);
    let user = system.local.process(9, 1000);
    assert_eq!(user.open(PATH, OpenFlags::READ), Err(errno::EPERM));
    let fd = system.root.open(PATH, BOTH).unwrap();
    assert_eq!(system.root.write(fd, &[2, 0, 0, 0, 1]), Err(errno::EBADF));
    assert_eq!(system.root.path(fd).unwrap(), PATH);
    system.root.set_nonblocking(fd, true).unwrap();
    let ready = |system: &System| {
        let ready = system.root.poll(&[(fd, Ready::READ)], Some(Duration::ZERO));
        ready.unwrap()[0]
    };
    assert_eq!(ready(&system), Ready::READ);
    system.stream(fd);
    assert_eq!(ready(&system), Ready::empty());
    assert_eq!(system.root.read(fd, &mut [0; 100]), Err(errno::EAGAIN));
    let nobody = packet::udp(("10.0.0.2", 9), ("10.0.0.1", 9), b"nobody");
    system.root.write(tun, &nobody).unwrap();
    assert_eq!(ready(&system), Ready::READ);
    // Small reads give the same stream.
    let whole = system.watch();
    system.root.write(tun, &nobody).unwrap();
    let stream = system.stream(whole);
    let mut pieces = Vec::new();
    let again = system.watch();
    system.root.write(tun, &nobody).unwrap();
    let mut byte = [0; 1];
    while system.root.read(again, &mut byte).is_ok() {
        pieces.push(byte[0]);
    }
    assert_eq!(pieces, stream);
}

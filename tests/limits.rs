//! Every bound in docs/limits.md: its numbers are those of the code, and it holds. A bound that a
//! program can reach is reached here; for the others the test that does is named.
#![allow(missing_docs)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::named::assert_is_test;
use common::packet::udp;
use common::system::{TestProcesses, counter};
use net::adapters::{Adapters, Bus, FrameIo};
use net::link::Mac;
use net::{Config, Host, Services};
use scheme::errno::{self, Errno};
use scheme::{Argument, Caller, FileId, FileServer, Now, OpenFlags, Outcome, Pid};

const BOTH: OpenFlags = OpenFlags::READ.union(OpenFlags::WRITE);
const TUNSBATCH: u32 = 0x8004_7482;
const BIOCGSTATS: u32 = 0x4008_426f;

enum Check {
    /// Reaches the bound.
    Here(fn()),
    /// This file has this test, which does.
    By(&'static str, &'static str),
}

use Check::{By, Here};

/// For each row of the table, by its first cell.
const CHECKS: &[(&str, Check)] = &[
    ("open files", Here(open_files)),
    (
        "requests that wait",
        By(
            "scheme/src/wait.rs",
            "bounded_in_number_and_bytes_and_the_last_are_the_superusers",
        ),
    ),
    (
        "a write that waits",
        By(
            "scheme/src/fuse/transfer.rs",
            "a_write_that_waits_keeps_a_part_of_its_own",
        ),
    ),
    (
        "one read or write",
        By("tests/contract/test_cut.py", "test_largest"),
    ),
    (
        "names that the kernel knows",
        By(
            "scheme/src/fuse/nodes.rs",
            "files_are_bounded_and_the_oldest_makes_room",
        ),
    ),
    (
        "lists of open directories",
        By(
            "scheme/src/fuse/listings.rs",
            "all_lists_are_bounded_and_the_last_entries_are_the_superusers",
        ),
    ),
    (
        "directories that are read",
        By(
            "scheme/tests/redox_dispatch.rs",
            "lists_are_kept_as_long_as_there_is_room",
        ),
    ),
    (
        "handles for stat",
        By(
            "scheme/tests/redox_dispatch.rs",
            "the_last_stat_handles_are_the_superusers",
        ),
    ),
    ("tun units", Here(units)),
    (
        "the list of processes",
        By(
            "scheme/src/redox/processes.rs",
            "a_list_without_end_is_given_up",
        ),
    ),
    (
        "processes that share a unit",
        By("net/src/users.rs", "free_only_when_every_user_is_dead"),
    ),
    ("a packet into a unit", Here(packet_into_a_unit)),
    ("send queue", Here(send_queue)),
    ("flows of a send queue", Here(flows_of_a_send_queue)),
    ("flows of all send queues", Here(flows_of_all_send_queues)),
    (
        "send queues together",
        By(
            "net/src/ifnet/table.rs",
            "all_send_queues_together_are_bounded_and_an_empty_one_takes_a_packet",
        ),
    ),
    ("input queue", Here(input_queue)),
    ("datagrams to this host", Here(looped)),
    ("rings of captures", Here(ring)),
    ("rings together", Here(rings)),
    (
        "drops that wait to be shown",
        By(
            "net/src/ifnet/dropped.rs",
            "what_waits_to_be_collected_is_bounded_for_each_interface_and_all",
        ),
    ),
    (
        "fragments",
        By(
            "net/src/ip/reassembly.rs",
            "bounded_in_datagrams_bytes_and_names",
        ),
    ),
    (
        "path MTUs",
        By("net/src/ip/pmtu.rs", "bounded_and_the_oldest_goes"),
    ),
    (
        "redirects",
        By(
            "net/src/ip/redirect.rs",
            "bounded_and_the_oldest_makes_room",
        ),
    ),
    (
        "routes",
        By("net/src/route/mod.rs", "a_full_table_still_replaces"),
    ),
    ("addresses", Here(addresses)),
    (
        "addresses of all interfaces",
        By(
            "net/src/ifnet/table.rs",
            "addresses_of_all_interfaces_are_bounded",
        ),
    ),
    (
        "addresses that others are asked about",
        By(
            "net/src/link/claim.rs",
            "the_oldest_is_asked_about_no_longer",
        ),
    ),
    (
        "groups",
        By("tests/sockets/groups.rs", "memberships_that_cannot_be"),
    ),
    (
        "changes of groups to be reported again",
        By(
            "net/src/ip/reports.rs",
            "changes_to_be_repeated_are_bounded",
        ),
    ),
    (
        "memberships",
        By("tests/sockets/groups.rs", "memberships_that_cannot_be"),
    ),
    (
        "memberships of all sockets",
        By(
            "tests/sockets/groups.rs",
            "all_memberships_are_bounded_and_the_last_are_the_superusers",
        ),
    ),
    (
        "neighbours",
        By("net/src/link/neighbor.rs", "strangers_push_out_nobody"),
    ),
    (
        "packets that wait for a neighbour",
        By("net/src/link/neighbor.rs", "bounded"),
    ),
    (
        "frames before the send queue",
        By(
            "net/src/link/tests.rs",
            "frames_before_the_send_queue_are_bounded",
        ),
    ),
    (
        "what routers advertise",
        By("tests/autoconf.rs", "however_much_is_advertised"),
    ),
    ("adapters", Here(adapters)),
    (
        "frames at a driver",
        By(
            "src/bin/tund/network/tests.rs",
            "frames_at_a_driver_are_bounded",
        ),
    ),
    (
        "threads of drivers",
        By(
            "src/bin/tund/network/tests.rs",
            "threads_of_drivers_that_do_not_answer_are_bounded",
        ),
    ),
    (
        "lines of the log that are not written yet",
        By(
            "src/bin/tund/logger.rs",
            "lines_that_nobody_reads_are_bounded_and_those_lost_are_counted",
        ),
    ),
    (
        "packets of IPX or AppleTalk",
        By(
            "tests/netisr.rs",
            "the_queue_is_bounded_and_purged_at_the_last_close",
        ),
    ),
    ("ports", Here(ports)),
    (
        "connections to one destination",
        Here(connections_to_one_destination),
    ),
    (
        "UDP sockets",
        By("net/src/stack/udp.rs", "sockets_are_bounded"),
    ),
    (
        "files of a UDP socket",
        By("tests/sockets/datagram.rs", "a_socket_has_so_many_files"),
    ),
    (
        "what a UDP socket remembers",
        By(
            "net/src/stack/udp.rs",
            "a_notice_is_for_the_socket_that_sent_and_is_connected",
        ),
    ),
    ("UDP queue", Here(udp_queue)),
    ("UDP queues together", Here(udp_queues)),
    ("echo sockets", Here(echo_sockets)),
    (
        "echo replies",
        By("net/src/stack/echo.rs", "a_full_queue_drops"),
    ),
    (
        "echo replies together",
        By(
            "net/src/stack/echo.rs",
            "sockets_that_are_not_read_leave_room_for_the_superusers",
        ),
    ),
    ("raw sockets", Here(raw_sockets)),
    (
        "TCP connections",
        By(
            "net/src/stack/tcp/flows.rs",
            "the_last_connections_are_the_superusers",
        ),
    ),
    (
        "memory of TCP",
        By(
            "net/src/stack/tcp/flows.rs",
            "without_memory_a_connection_takes_the_least_and_no_more",
        ),
    ),
    ("buffers of a connection", Here(buffers)),
    (
        "segments of a connection on their way",
        By(
            "net/src/stack/tcp/connection/tests/recovery.rs",
            "however_small_segments_are_few_are_in_flight",
        ),
    ),
    (
        "pieces beyond a hole",
        By(
            "net/src/stack/tcp/connection/receive/held.rs",
            "a_stranger_cannot_have_us_keep_any_number_of_pieces",
        ),
    ),
    (
        "listeners",
        By(
            "net/src/stack/tcp/flows.rs",
            "listeners_and_what_waits_at_one_are_bounded",
        ),
    ),
    (
        "handshakes under way together",
        By(
            "net/src/stack/tcp/flows.rs",
            "handshakes_of_all_listeners_together_are_bounded",
        ),
    ),
    (
        "handshakes under way",
        By(
            "net/src/stack/tcp/flows.rs",
            "listeners_and_what_waits_at_one_are_bounded",
        ),
    ),
    (
        "connections to accept",
        By(
            "tests/netsim.rs",
            "a_backlog_overflows_and_everybody_gets_in_later",
        ),
    ),
    (
        "connections of cookies to accept",
        By(
            "net/src/stack/tcp/flows.rs",
            "listeners_and_what_waits_at_one_are_bounded",
        ),
    ),
    (
        "TIME-WAIT",
        By(
            "net/src/stack/tcp/time_wait.rs",
            "the_first_to_be_over_makes_room",
        ),
    ),
    ("a line of a setting", Here(line)),
    ("unfinished lines together", Here(unfinished_lines)),
    ("lines of one write", Here(lines)),
    (
        "what is kept to undo a write",
        By(
            "tests/hostile.rs",
            "what_is_refused_leaves_the_routes_as_they_were",
        ),
    ),
    (
        "events that are not read",
        By(
            "net/src/netcfg/events.rs",
            "what_all_readers_leave_is_bounded_and_the_last_is_the_superusers",
        ),
    ),
    (
        "texts that are being read",
        By(
            "net/src/netcfg/texts.rs",
            "different_texts_are_bounded_and_the_last_bytes_are_the_superusers",
        ),
    ),
    (
        "what survives the daemon",
        By(
            "tests/restart.rs",
            "a_long_text_is_bounded_and_not_made_all_the_time",
        ),
    ),
];

struct Machine {
    host: Host,
    milli: u64,
}

const ROOT: Caller = Caller {
    pid: Pid(1),
    uid: 0,
};
const USER: Caller = Caller {
    pid: Pid(9),
    uid: 1000,
};

impl Machine {
    fn new() -> Self {
        let config = Config {
            seed: 11.into(),
            services: Services::all(),
        };
        Self {
            host: Host::new(config, TestProcesses),
            milli: 0,
        }
    }

    /// A machine with `tun0`, which is 10.0.0.1/24.
    fn with_tunnel() -> (Self, FileId) {
        let mut machine = Self::new();
        let tun = machine.open("tun/0", ROOT).unwrap();
        machine
            .set("ifaces/tun0/addr/set", "10.0.0.1/24\n")
            .unwrap();
        (machine, tun)
    }

    fn open(&mut self, path: &str, caller: Caller) -> Result<FileId, Errno> {
        let flags = match path.starts_with("netcfg") && caller.uid != 0 {
            true => OpenFlags::READ,
            false => BOTH,
        };
        self.host.open(path, flags, caller)
    }

    fn write(&mut self, file: FileId, bytes: &[u8]) -> Result<usize, Errno> {
        done(self.host.write(file, bytes, 0, ROOT))
    }

    fn read(&mut self, file: FileId, buf: &mut [u8]) -> Result<usize, Errno> {
        done(self.host.read(file, buf, 0, ROOT))
    }

    fn set(&mut self, path: &str, text: &str) -> Result<usize, Errno> {
        let file = self.open(&format!("netcfg/{path}"), ROOT)?;
        let written = self.write(file, text.as_bytes());
        self.host.close(file);
        written
    }

    fn stat(&mut self, interface: &str, name: &str) -> u64 {
        let path = format!("netcfg/ifaces/{interface}/stats");
        let file = self.open(&path, USER).unwrap();
        let mut text = vec![0; 8192];
        let len = self.read(file, &mut text).unwrap();
        self.host.close(file);
        counter(std::str::from_utf8(&text[..len]).unwrap(), name)
    }

    /// Handles all there is to handle.
    fn settle(&mut self) {
        loop {
            self.milli += 1;
            let time = Duration::from_millis(self.milli);
            let turn = self.host.turn(Now {
                monotonic: time,
                wall: time,
            });
            while self.host.poll_wakeup().is_some() {}
            if !turn.pending {
                return;
            }
        }
    }

    /// How many of `file(n)` can be opened, and the error of the next.
    fn fill(&mut self, caller: Caller, path: impl Fn(usize) -> String) -> (usize, Errno) {
        for opened in 0.. {
            if let Err(error) = self.open(&path(opened), caller) {
                return (opened, error);
            }
        }
        unreachable!("without end");
    }
}

fn done<T>(outcome: Outcome<T>) -> Result<T, Errno> {
    match outcome {
        Outcome::Done(result) => result,
        Outcome::Wait => Err(errno::EAGAIN),
    }
}

fn open_files() {
    let mut machine = Machine::new();
    let path = |_| "netcfg/ip/forwarding".to_owned();
    assert_eq!(machine.fill(USER, path), (61_440, errno::ENFILE));
    assert_eq!(machine.fill(ROOT, path), (4096, errno::ENFILE));
}

fn units() {
    let mut machine = Machine::new();
    let path = |unit: usize| format!("tun/{unit}");
    assert_eq!(machine.fill(ROOT, path), (32_768, errno::ENOENT));
    assert_eq!(machine.open("tun/clone", ROOT), Err(errno::EBUSY));
}

fn packet_into_a_unit() {
    let (mut machine, tun) = Machine::with_tunnel();
    let mut packet = udp(("10.0.0.2", 9), ("10.0.0.1", 9), &[0; 16_384 - 28]);
    assert_eq!(machine.write(tun, &packet), Ok(16_384));
    packet.push(0);
    assert_eq!(machine.write(tun, &packet), Err(errno::EIO));
}

fn flows_of_a_send_queue() {
    let (mut machine, _tun) = Machine::with_tunnel();
    let mut set = |flows| {
        let line = format!("fq_codel flows {flows}\n");
        machine.set("ifaces/tun0/queue", &line).map(|_| ())
    };
    assert_eq!(set(65_536), Ok(()));
    assert_eq!(set(65_537), Err(errno::EINVAL));
}

fn flows_of_all_send_queues() {
    let mut machine = Machine::new();
    let mut set = |unit, line: &str| {
        machine.open(&format!("tun/{unit}"), ROOT).ok();
        machine.set(&format!("ifaces/tun{unit}/queue"), line)
    };
    let many = "fq_codel flows 65536\n";
    let taken = (0..100).take_while(|&unit| set(unit, many).is_ok()).count();
    // Each flow takes 64 bytes at least.
    assert!(
        (1..=(128 << 20) / (64 * 65_536)).contains(&taken),
        "{taken}"
    );
    assert_eq!(set(taken, many), Err(errno::ENOSPC));
    // What needs none is not refused, nor is one that has its flows already.
    assert!(set(taken, "priq limit 9 packets\n").is_ok());
    assert!(set(0, "fq_codel flows 65536 ecn\n").is_ok());
    // One that is changed, or destroyed, makes room.
    assert!(set(0, "fifo limit 9 packets\n").is_ok() && set(taken, many).is_ok());
    assert_eq!(set(0, many), Err(errno::ENOSPC));
    let mut machine = Machine::new();
    for _ in 0..3 * taken {
        let tun = machine.open("tun/0", ROOT).unwrap();
        machine.set("ifaces/tun0/queue", many).unwrap();
        machine.host.close(tun);
        machine.set("ifaces/tun0/destroy", "1\n").unwrap();
        machine.settle();
    }
}

fn send_queue() {
    let (mut machine, tun) = Machine::with_tunnel();
    let socket = machine.open("udp/10.0.0.2:9", USER).unwrap();
    for _ in 0..250 {
        assert_eq!(machine.write(socket, b"x"), Ok(1));
    }
    assert_eq!(machine.write(socket, b"x"), Err(errno::ENOBUFS));
    assert_eq!(machine.stat("tun0", "drop.queue_full"), 1);
    machine.host.close(tun);
    // By bytes, and as large as it can be asked for.
    let (mut machine, _tun) = Machine::with_tunnel();
    let queue = "ifaces/tun0/queue";
    for most in ["65536 packets", "67108864 bytes"] {
        machine.set(queue, &format!("fifo limit {most}\n")).unwrap();
    }
    for more in ["65537 packets", "67108865 bytes"] {
        let refused = machine.set(queue, &format!("fifo limit {more}\n"));
        assert_eq!(refused, Err(errno::EINVAL));
    }
    machine.set(queue, "fifo limit 4000 bytes\n").unwrap();
    let socket = machine.open("udp/10.0.0.2:9", USER).unwrap();
    let sent: Vec<_> = (0..3).map(|_| machine.write(socket, &[0; 1400])).collect();
    assert_eq!(sent, [Ok(1400), Ok(1400), Err(errno::ENOBUFS)]);
}

fn input_queue() {
    let (mut machine, tun) = Machine::with_tunnel();
    let on = &mut 1_i32.to_ne_bytes()[..];
    machine
        .host
        .ioctl(tun, TUNSBATCH, Argument::new(on), ROOT)
        .unwrap();
    let frames = |count: usize, len: usize| {
        let packet = udp(("10.0.0.2", 9), ("10.0.0.1", 9), &vec![0; len - 28]);
        [&(len as u32).to_ne_bytes()[..], &packet]
            .concat()
            .repeat(count)
    };
    machine.write(tun, &frames(8193, 28)).unwrap();
    assert_eq!(machine.stat("tun0", "drop.netisr_full"), 1);
    machine.settle();
    for _ in 0..20 {
        machine.write(tun, &frames(64, 16_000)).unwrap();
    }
    let dropped = machine.stat("tun0", "drop.netisr_full") - 1;
    assert_eq!(dropped, 20 * 64 - (16 << 20) / 16_000);
    machine.settle();
}

/// A program that sends to this host itself, as many in one write as fit, takes no place in the
/// queue that others need, and holds nobody up.
fn looped() {
    let (mut machine, tun) = Machine::with_tunnel();
    let batch = |machine: &mut Machine, file| {
        let on = &mut 1_i32.to_ne_bytes()[..];
        let on = Argument::new(on);
        machine.host.ioctl(file, TUNSBATCH, on, ROOT).unwrap();
    };
    let address = |host: [u8; 4]| {
        let port = 9_u16.to_be_bytes();
        let head = [&2_u16.to_ne_bytes()[..], &port, &[0; 4], &host, &[0; 12]].concat();
        [&24_u32.to_ne_bytes()[..], &head].concat()
    };
    for host in [[127, 0, 0, 1], [10, 0, 0, 1]] {
        let socket = machine.open("udp/bind/0.0.0.0:0", USER).unwrap();
        batch(&mut machine, socket);
        let frames = address(host).repeat(9000);
        assert_eq!(machine.write(socket, &frames), Ok(512 * 28));
        assert_eq!(machine.write(socket, &frames), Err(errno::ENOBUFS));
        let packet = udp(("10.0.0.2", 9), ("10.0.0.1", 9), b"");
        for _ in 0..8192 - 512 {
            machine.write(tun, &packet).unwrap();
        }
        assert_eq!(machine.stat("tun0", "drop.netisr_full"), 0);
        machine.settle();
        assert_eq!(machine.write(socket, &frames), Ok(512 * 28));
        machine.settle();
        machine.host.close(socket);
    }
    assert_eq!(machine.stat("lo0", "drop.netisr_full"), 0);
}

/// Sends datagrams of 16 000 bytes over lo0.
fn load(machine: &mut Machine, datagrams: usize) {
    let socket = machine.open("udp/127.0.0.1:9", USER).unwrap();
    for _ in 0..datagrams {
        machine.write(socket, &[0; 16_000]).unwrap();
        machine.settle();
    }
    machine.host.close(socket);
}

/// Reads all that a capture holds, and the number of captures that it has lost.
fn captured(machine: &mut Machine, capture: FileId) -> (usize, u32) {
    let mut stats = [0; 8];
    let arg = Argument::new(&mut stats);
    machine.host.ioctl(capture, BIOCGSTATS, arg, ROOT).unwrap();
    let mut all = vec![0; 2 << 20];
    let len = machine.read(capture, &mut all).unwrap();
    (len, u32::from_ne_bytes(*stats.last_chunk().unwrap()))
}

fn ring() {
    let mut machine = Machine::new();
    let capture = machine.open("bpf/lo0", ROOT).unwrap();
    load(&mut machine, 100);
    let (held, lost) = captured(&mut machine, capture);
    assert!((1 << 20) - held < 20_000 && held <= 1 << 20, "{held}");
    assert!(lost > 0);
    assert_eq!(machine.stat("lo0", "ipackets"), 100);
}

fn rings() {
    let mut machine = Machine::new();
    let captures: Vec<_> = (0..100)
        .map(|_| machine.open("bpf/lo0", ROOT).unwrap())
        .collect();
    load(&mut machine, 100);
    let mut all = 0;
    for capture in captures {
        let (held, lost) = captured(&mut machine, capture);
        all += held;
        assert!(lost > 0);
    }
    assert!((32 << 20..=64 << 20).contains(&all), "{all}");
}

fn addresses() {
    let (mut machine, _tun) = Machine::with_tunnel();
    for at in 1..256 {
        let line = format!("10.1.{at}.1/24\n");
        machine.set("ifaces/tun0/addr/add", &line).unwrap();
    }
    let more = machine.set("ifaces/tun0/addr/add", "10.2.0.1/24\n");
    assert_eq!(more, Err(errno::ENOSPC));
}

struct Nothing;

impl FrameIo for Nothing {
    fn receive(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn send(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn is_alive(&self, _: Duration) -> bool {
        true
    }
}

impl Bus for Nothing {
    type Io = Self;

    fn names(&mut self) -> Option<Vec<String>> {
        Some((0..65).map(|number| format!("network.{number}")).collect())
    }

    fn open(&mut self, _: &str) -> io::Result<(Mac, Self)> {
        Ok((Mac([2, 0, 0, 0, 0, 1]), Self))
    }

    fn clear(&mut self, _: &str) {}
}

fn adapters() {
    let mut machine = Machine::new();
    let mut adapters = Adapters::new(Nothing, &mut machine.host);
    adapters.search(&mut machine.host);
    assert_eq!(machine.host.interfaces().count(), 1 + 64);
}

fn ports() {
    let mut machine = Machine::new();
    for transport in ["udp", "tcp"] {
        let any = |_| format!("{transport}//0.0.0.0:0");
        assert_eq!(machine.fill(USER, any), (15_360, errno::EADDRINUSE));
        // Nor does it get one by its name, whichever are left.
        for port in 49_152..=65_535 {
            let named = format!("{transport}//0.0.0.0:{port}");
            assert_eq!(machine.open(&named, USER), Err(errno::EADDRINUSE));
        }
        // What has no share in these is not touched.
        for other in ["[::]:0", "0.0.0.0:49151"] {
            let path = format!("{transport}//{other}");
            machine.open(&path, USER).unwrap();
        }
        assert_eq!(machine.fill(ROOT, any), (1024, errno::EADDRINUSE));
    }
}

fn connections_to_one_destination() {
    let there = |_| "tcp/10.0.0.2:9".to_owned();
    let (mut machine, _tun) = Machine::with_tunnel();
    assert_eq!(machine.fill(USER, there), (15_360, errno::EADDRNOTAVAIL));
    let named: Vec<_> = (49_152..=65_535)
        .map(|port| machine.open(&format!("tcp/10.0.0.2:9/0.0.0.0:{port}"), USER))
        .collect();
    assert!(named.iter().all(Result::is_err));
    machine.open("tcp/10.0.0.2:10", USER).unwrap();
    assert_eq!(machine.fill(ROOT, there), (1024, errno::EADDRNOTAVAIL));
    // Ports that are listened on are not given out; that takes nothing from the superuser, either.
    let (mut machine, _tun) = Machine::with_tunnel();
    let (listens, _) = machine.fill(USER, |_| "tcp//0.0.0.0:0".to_owned());
    assert_eq!(listens, 15_360);
    let (connects, error) = machine.fill(USER, there);
    assert!(connects <= 1024 && error == errno::EADDRNOTAVAIL);
    for _ in 0..1024 {
        machine.open("tcp/10.0.0.2:9", ROOT).unwrap();
    }
}

fn udp_queue() {
    let mut machine = Machine::new();
    machine.open("udp//127.0.0.1:5000", USER).unwrap();
    let giver = machine.open("udp/127.0.0.1:5000", USER).unwrap();
    for _ in 0..250 {
        machine.write(giver, &[0; 1000]).unwrap();
    }
    machine.settle();
    let kept = 250 - machine.stat("lo0", "drop.socket_full");
    // What each takes is its memory, and 256 more.
    let each = 56 + 8 + 1000 + 256;
    assert_eq!(kept, (208 << 10) / each);
}

fn udp_queues() {
    let mut machine = Machine::new();
    let mut taken = |caller: Caller, sockets: std::ops::Range<u16>| {
        let before = machine.stat("lo0", "drop.socket_full");
        let sent = 14 * sockets.len() as u64;
        for port in sockets {
            let path = format!("udp//127.0.0.1:{}", 10_000 + port);
            machine.open(&path, caller).unwrap();
            let path = format!("udp/127.0.0.1:{}", 10_000 + port);
            let giver = machine.open(&path, caller).unwrap();
            for _ in 0..14 {
                machine.write(giver, &[0; 14_000]).unwrap();
            }
            machine.settle();
        }
        sent - (machine.stat("lo0", "drop.socket_full") - before)
    };
    let bytes = |datagrams: u64| datagrams as usize * 14_320;
    let users = bytes(taken(USER, 0..300));
    assert!(users <= 48 << 20 && (48 << 20) - users < 20_000, "{users}");
    assert_eq!(taken(USER, 300..301), 0);
    let all = users + bytes(taken(ROOT, 301..400));
    assert!(all <= 64 << 20 && (64 << 20) - all < 20_000, "{all}");
}

fn echo_sockets() {
    let mut machine = Machine::new();
    let path = |_| "icmp/echo/127.0.0.1".to_owned();
    assert_eq!(machine.fill(USER, path), (32_768 - 1024, errno::ENFILE));
    assert_eq!(machine.fill(ROOT, path), (1024, errno::ENFILE));
}

fn raw_sockets() {
    let mut machine = Machine::new();
    let path = |_| "ip/59".to_owned();
    assert_eq!(machine.fill(ROOT, path), (1024, errno::ENFILE));
    // Each holds as much as it may, and all together as much as they may.
    let packet = common::packet::ipv4(
        [127, 0, 0, 1].into(),
        [127, 0, 0, 1].into(),
        89,
        &[0; 15_000],
    );
    let first = FileId(0);
    for _ in 0..20 {
        machine.write(first, &packet).unwrap();
        machine.settle();
    }
    let mut all = 0;
    let mut buf = vec![0; 20_000];
    for socket in 0..1024 {
        let mut held = 0;
        while let Ok(len) = machine.read(FileId(socket), &mut buf) {
            held += len;
        }
        assert!(held <= 208 << 10);
        all += held;
    }
    assert!((60 << 20..=64 << 20).contains(&all), "{all}");
}

fn buffers() {
    let (mut machine, _tun) = Machine::with_tunnel();
    let socket = machine.open("tcp/10.0.0.1:9", USER).unwrap();
    machine.settle();
    // The other end reads; at an end of our own that does not, it stops.
    assert_eq!(machine.write(socket, &[0; 1000]), Ok(1000));
    let generator = machine.open("tcp/10.0.0.1:19", USER).unwrap();
    for _ in 0..2000 {
        machine.settle();
    }
    let mut held = 0;
    let mut buf = vec![0; 1 << 20];
    while let Ok(len) = machine.read(generator, &mut buf) {
        held += len;
        if held > 7 << 20 {
            break;
        }
        // Nothing more comes meanwhile: there is no turn.
    }
    assert!(held > 10_000 && held <= 6 << 20, "{held}");
}

fn line() {
    let mut machine = Machine::new();
    let file = machine.open("netcfg/route/add", ROOT).unwrap();
    assert_eq!(machine.write(file, &[b' '; 4096]), Ok(4096));
    assert_eq!(machine.write(file, b" "), Err(errno::EINVAL));
}

fn unfinished_lines() {
    let mut machine = Machine::new();
    let mut begun = 0;
    let refused = loop {
        let file = machine.open("netcfg/route/add", ROOT).unwrap();
        match machine.write(file, &[b' '; 4096]) {
            Ok(_) => begun += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((begun, refused), ((64 << 20) / 4096, errno::ENOBUFS));
}

fn lines() {
    let (mut machine, _tun) = Machine::with_tunnel();
    let mut set = |path: &str, line: &str, lines: usize| machine.set(path, &line.repeat(lines));
    assert_eq!(set("ifaces/tun0/flags", "up\n", 1024), Ok(3 * 1024));
    assert_eq!(set("ifaces/tun0/flags", "up\n", 1025), Err(errno::ENOSPC));
    let route = "10.5.0.0/24 dev tun0\n";
    assert_eq!(set("route/add", route, 65_537), Err(errno::ENOSPC));
    let routes: String = (0..65_536)
        .map(|at| format!("11.{}.{}.0/24 dev tun0\n", at >> 8, at & 255))
        .collect();
    assert_eq!(machine.set("route/add", &routes), Ok(routes.len()));
}

#[test]
fn every_bound_is_reached_and_none_passed() {
    for (what, check) in CHECKS {
        match check {
            Here(reach) => {
                println!("{what}");
                reach();
            }
            By(file, test) => assert_is_test(file, test),
        }
    }
}

#[test]
fn a_number_is_not_used_while_anything_of_the_old_interface_is_under_way() {
    let (mut machine, tun) = Machine::with_tunnel();
    let old = machine.host.interface("tun0").unwrap().index;
    let capture = machine.open("bpf/tun0", ROOT).unwrap();
    // Queued both ways, and a fragment held.
    let mut fragment = udp(("10.0.0.2", 9), ("10.0.0.1", 9), &[0; 72]);
    fragment[6] = 0x20;
    fragment[10..12].fill(0);
    let sum = common::packet::checksum(&[&fragment[..20]]);
    fragment[10..12].copy_from_slice(&sum.to_be_bytes());
    machine.write(tun, &fragment).unwrap();
    machine.settle();
    machine.write(tun, &fragment).unwrap();
    let socket = machine.open("udp/10.0.0.2:9", USER).unwrap();
    machine.write(socket, b"x").unwrap();
    // It goes, and two come, before anybody looks at what that leads to.
    machine.host.close(tun);
    let destroy = machine.open("netcfg/ifaces/tun0/destroy", ROOT).unwrap();
    machine.write(destroy, b"1\n").unwrap();
    let next = machine.open("tun/1", ROOT).unwrap();
    let index = |machine: &Machine, name| machine.host.interface(name).unwrap().index;
    assert_ne!(index(&machine, "tun1"), old);
    machine
        .set("ifaces/tun1/addr/set", "10.0.0.1/24\n")
        .unwrap();
    machine.write(next, &fragment).unwrap();
    machine.settle();
    let stats = machine.host.interface("tun1").unwrap().stats.input();
    assert_eq!((stats.offered, stats.queued), (1, 1));
    // The capture ends with what it saw of the old one.
    let mut buf = vec![0; 4096];
    let len = machine.read(capture, &mut buf).unwrap();
    assert_eq!(len, 24 + 2 * (16 + 4 + 100) + (16 + 4 + 29));
    assert_eq!(machine.read(capture, &mut buf), Err(errno::ENXIO));
    machine.open("tun/2", ROOT).unwrap();
    assert_eq!(index(&machine, "tun2"), old, "now it is free");
    machine.milli += 100_000;
    machine.settle();
    let stats = machine.host.interface("tun1").unwrap().stats.input();
    assert_eq!((stats.offered, stats.queued, stats.dropped), (1, 0, 1));
    let stats = machine.host.interface("tun2").unwrap().stats.input();
    assert_eq!((stats.offered, stats.queued, stats.dropped), (0, 0, 0));
}

#[test]
fn the_page_says_what_is_checked() {
    let checked: BTreeSet<_> = CHECKS.iter().map(|(what, _)| (*what).to_owned()).collect();
    let said: BTreeSet<_> = rows().into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(said, checked);
    assert_eq!(rows().len(), CHECKS.len(), "each once");
}

#[test]
fn every_field_that_can_grow_is_bounded() {
    let listed = fs::read_to_string(root().join("tests/limits/fields.txt")).unwrap();
    let rows: BTreeSet<_> = rows().into_iter().map(|row| row[0].clone()).collect();
    let (mut file, mut known) = ("", BTreeSet::new());
    for line in listed.lines() {
        let Some(entry) = line.strip_prefix("    ") else {
            file = line;
            continue;
        };
        let (field, bound) = entry.split_once(' ').unwrap_or((entry, ""));
        let bound = bound.trim_start();
        let reason = bound.strip_prefix("= ").is_some_and(|why| !why.is_empty());
        assert!(
            reason || rows.contains(bound),
            "{file} {field}: no row {bound:?}"
        );
        assert!(
            known.insert(format!("{file} {field}")),
            "twice: {file} {field}"
        );
    }
    let mut found = BTreeSet::new();
    for folder in ["net/src", "scheme/src"] {
        for path in sources(&root().join(folder)) {
            let source = fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(root()).unwrap().to_str().unwrap();
            let fields = fields_that_grow(&source).into_iter();
            found.extend(fields.map(|field| format!("{path} {field}")));
        }
    }
    assert!(found.len() > 150, "{}", found.len());
    let unlisted: Vec<_> = found.difference(&known).collect();
    assert!(
        unlisted.is_empty(),
        "not in tests/limits/fields.txt: {unlisted:#?}"
    );
    let gone: Vec<_> = known.difference(&found).collect();
    assert!(
        gone.is_empty(),
        "in tests/limits/fields.txt, and not in the code: {gone:#?}"
    );
}

#[test]
fn fields_that_grow_are_found() {
    let source = "
struct Wrapped(BTreeMap<u8, u8>);

struct Number(u8);

pub(crate) struct Held<T> {
    /// A Vec<u8>.
    pub(crate) bytes: Vec<u8>,
    count: usize,
    table: HashMap<u8, T, ahash::RandomState>,
    parts: Box<[u8]>,
}

enum Kind {
    None,
    Named(String),
    Listed {
        all: std::collections::VecDeque<T>,
    },
}

fn make(all: Vec<u8>) {
    let all: Vec<u8> = all;
}

#[cfg(test)]
mod tests {
    struct Here {
        all: Vec<u8>,
    }
}
";
    let found = [
        "Wrapped",
        "Held.bytes",
        "Held.table",
        "Held.parts",
        "Kind.Named",
        "Kind.all",
    ];
    assert_eq!(fields_that_grow(source), found);
}

/// The source files of a folder, those that are only tests not included.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        if ["tests", "testing", "fuzzing"].contains(&name) {
            continue;
        }
        match path.is_dir() {
            true => files.extend(sources(&path)),
            false => files.push(path),
        }
    }
    files
}

/// The fields of structures whose types can hold more or less, as `Structure.field`. As rustfmt
/// leaves it, a field has a line of its own, and a structure ends with a brace below its beginning.
fn fields_that_grow(source: &str) -> Vec<String> {
    const GROW: [&str; 11] = [
        "Vec",
        "VecDeque",
        "BTreeMap",
        "HashMap",
        "BTreeSet",
        "HashSet",
        "Slab",
        "BinaryHeap",
        "SmallVec",
        "PrefixMap",
        "String",
    ];
    let grows = |text: &str| {
        let mut words = text.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
        words.any(|word| GROW.contains(&word)) || text.contains("Box<[")
    };
    let name_of = |text: &str| {
        let end = text.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
        text[..end.unwrap_or(text.len())].to_owned()
    };
    let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let (mut found, mut inside) = (Vec::new(), None);
    for line in code.lines() {
        let indent = line.len() - line.trim_start().len();
        let mut text = line.trim_start();
        if text.starts_with("//") {
            continue;
        }
        if let Some(public) = text.strip_prefix("pub") {
            let visible = public
                .strip_prefix('(')
                .and_then(|rest| rest.split_once(')'));
            text = visible.map_or(public, |(_, rest)| rest).trim_start();
        }
        let begun = ["struct ", "enum "]
            .iter()
            .find_map(|word| text.strip_prefix(word));
        if let Some(rest) = begun {
            let name = name_of(rest);
            if !text.ends_with(';') {
                inside = Some((name, indent));
            } else if grows(rest) {
                found.push(name);
            }
        } else if let Some((name, at)) = &inside {
            if indent == *at && text.starts_with('}') {
                inside = None;
            } else if grows(text) {
                found.push(format!("{name}.{}", name_of(text)));
            }
        }
    }
    found
}

#[test]
fn the_numbers_of_the_page_are_those_of_the_code() {
    let mut compared = 0;
    for row in rows() {
        let files: Vec<_> = quoted(&row[2]).map(str::to_owned).collect();
        let sources = files
            .iter()
            .map(|file| fs::read_to_string(root().join(file)));
        let sources = sources.map(Result::unwrap).collect::<Vec<_>>().join("\n");
        let constants = constants(&sources);
        for (name, value) in said(&row[1]) {
            let code = evaluate(&constants, &name);
            assert_eq!(code, value, "{}: {name} in {files:?}", row[0]);
            compared += 1;
        }
    }
    assert!(compared > 50, "{compared}");
}

#[test]
fn the_counters_of_the_page_are_there() {
    let mut machine = Machine::new();
    for row in rows() {
        for name in quoted(&row[5]).filter(|name| name.starts_with("drop.")) {
            machine.stat("lo0", name);
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The cells of each row of the table.
fn rows() -> Vec<Vec<String>> {
    let page = fs::read_to_string(root().join("docs/limits.md")).unwrap();
    let lines = page.lines().filter(|line| line.starts_with("| "));
    let cells = |line: &str| {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
    };
    let rows: Vec<_> = lines.skip(1).map(cells).collect();
    assert!(rows.iter().all(|row| row.len() == 6));
    rows
}

/// What stands between backquotes.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Every `NAME` = 64 MiB of a cell.
fn said(cell: &str) -> Vec<(String, u64)> {
    let pieces: Vec<_> = cell.split('`').collect();
    let mut said = Vec::new();
    for pair in pieces.chunks(2).skip(1).zip(pieces.chunks(2)) {
        let (after, before) = (pair.0[0], pair.1.get(1));
        let (Some(name), Some(value)) = (before, after.strip_prefix(" = ")) else {
            continue;
        };
        // A group of three digits may follow a space.
        let mut number = String::new();
        let mut words = value.split([' ', ',', ';', ':']).peekable();
        while let Some(word) = words.next_if(|word| is_number(word)) {
            assert!(number.is_empty() || word.len() == 3, "{cell}");
            number.push_str(word);
        }
        let unit = match words.next() {
            Some("KiB") => 1 << 10,
            Some("MiB") => 1 << 20,
            _ => 1,
        };
        let number: u64 = number
            .parse()
            .unwrap_or_else(|_| panic!("{value:?} in {cell}"));
        said.push(((*name).to_owned(), number * unit));
    }
    said
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

/// The constants of a source, with their expressions.
fn constants(source: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for line in source.lines() {
        let Some((_, rest)) = line.split_once("const ") else {
            continue;
        };
        if let Some((name, rest)) = rest.split_once(": ")
            && let Some((_, value)) = rest.split_once(" = ")
            && let Some(value) = value.strip_suffix(';')
        {
            found.insert(name.to_owned(), value.to_owned());
        }
    }
    found
}

/// The value of an expression of numbers and constants: of `<<`, of `+`, of `*`.
fn evaluate(constants: &BTreeMap<String, String>, expression: &str) -> u64 {
    let value = |text: &str| evaluate(constants, text.trim());
    if let Some((one, other)) = expression.split_once("<<") {
        return value(one) << value(other);
    }
    if let Some((one, other)) = expression.split_once('*') {
        return value(one) * value(other);
    }
    let digits = expression.replace('_', "");
    if let Some(hex) = digits.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).unwrap();
    }
    digits.parse().unwrap_or_else(|_| {
        let of = constants.get(expression);
        value(of.unwrap_or_else(|| panic!("no constant {expression}")))
    })
}

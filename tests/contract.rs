//! The contract, as a program sees it: the same scenarios through the local front and, with plain
//! system calls, on a real mount. Those that need one are skipped by name where there is none.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use common::packet::{echo_request, fragments_v4, payload_v4, udp};
use common::system::{LocalSystem, MountSystem, System};

const EINTR: i32 = 4;
const EIO: i32 = 5;
const ENOENT: i32 = 2;
const EAGAIN: i32 = 11;
const EBUSY: i32 = 16;
const EINVAL: i32 = 22;
const ENOTTY: i32 = 25;
const EMSGSIZE: i32 = 90;
const EAFNOSUPPORT: i32 = 97;
const ENETDOWN: i32 = 100;
const EHOSTDOWN: i32 = 112;

const fn ior(kind: u8, number: u32, size: u32) -> u32 {
    2 << 30 | size << 16 | (kind as u32) << 8 | number
}

const fn iow(kind: u8, number: u32, size: u32) -> u32 {
    1 << 30 | size << 16 | (kind as u32) << 8 | number
}

const TUNSIFINFO: u32 = iow(b't', 91, 8);
const TUNGIFINFO: u32 = ior(b't', 92, 8);
const TUNSLMODE: u32 = iow(b't', 93, 4);
const TUNSIFMODE: u32 = iow(b't', 94, 4);
const TUNSIFHEAD: u32 = iow(b't', 96, 4);
const TUNGIFHEAD: u32 = ior(b't', 97, 4);
const TUNGIFNAME: u32 = ior(b't', 98, 32);
const TUNSTRANSIENT: u32 = iow(b't', 98, 4);
const TUNSBATCH: u32 = iow(b't', 130, 4);
const TUNSHUT: u32 = (b't' as u32) << 8 | 132;
const FIONREAD: u32 = ior(b'f', 127, 4);

const ADDRESS: &str = "netcfg/ifaces/tun0/addr/set";
/// Long enough for any expected event.
const SOON: Duration = Duration::from_secs(10);

type Scenario = fn(&Arc<dyn System>);

const SCENARIOS: [(&str, Scenario); 18] = [
    ("units_and_exclusive_open", units_and_exclusive_open),
    ("ping_goes_round", ping_goes_round),
    (
        "short_read_loses_the_rest_and_counts_it",
        short_read_loses_the_rest_and_counts_it,
    ),
    ("write_sizes_and_families", write_sizes_and_families),
    (
        "a_waiting_read_gets_the_packet",
        a_waiting_read_gets_the_packet,
    ),
    (
        "a_waiting_read_ends_with_its_descriptor",
        a_waiting_read_ends_with_its_descriptor,
    ),
    ("tunshut_gives_the_unit_back", tunshut_gives_the_unit_back),
    ("readiness", readiness),
    (
        "header_modes_exclude_each_other",
        header_modes_exclude_each_other,
    ),
    ("interface_info_and_mode", interface_info_and_mode),
    ("batch_mode", batch_mode),
    ("last_close", last_close),
    ("down_is_for_routing", down_is_for_routing),
    ("a_route_names_its_source", a_route_names_its_source),
    ("settings_are_atomic", settings_are_atomic),
    ("fragments_are_put_together", fragments_are_put_together),
    ("capture_sees_both_ways", capture_sees_both_ways),
    ("garbage_is_counted", garbage_is_counted),
];

fn main() {
    let mut args = Arguments::from_args();
    // One at a time: a daemon being spawned holds copies of the others' descriptors for a moment,
    // and then a close is not the last.
    args.test_threads = Some(1);
    let local = SCENARIOS.iter().map(|&(name, scenario)| {
        Trial::test(format!("local::{name}"), move || {
            run(scenario, Arc::new(LocalSystem::new()))
        })
    });
    let mount = SCENARIOS.iter().map(|&(name, scenario)| {
        Trial::ignorable_test(format!("mount::{name}"), move || {
            if let Some(reason) = MountSystem::missing() {
                return Ok(Completion::ignored_with(reason));
            }
            run(scenario, Arc::new(MountSystem::new()))?;
            Ok(Completion::Completed)
        })
    });
    libtest_mimic::run(&args, local.chain(mount).collect()).exit();
}

fn run(scenario: Scenario, system: Arc<dyn System>) -> Result<(), Failed> {
    scenario(&system);
    let names = ["lo0", "tun0", "tun1", "tun7"];
    for name in names {
        if system
            .open(&format!("netcfg/ifaces/{name}/stats"), true, false)
            .is_ok()
        {
            system.assert_ledger_closes(name);
        }
    }
    Ok(())
}

/// tun/0, with an address.
fn tunnel(system: &Arc<dyn System>) -> i32 {
    let tun = system.open_rw("tun/0");
    system.set(ADDRESS, "10.0.0.1/24\n").unwrap();
    tun
}

fn int(system: &Arc<dyn System>, fd: i32, request: u32, value: i32) -> Result<(), i32> {
    system.ioctl(fd, request, &mut value.to_ne_bytes())
}

fn get_int(system: &Arc<dyn System>, fd: i32, request: u32) -> Result<i32, i32> {
    let mut value = [0; 4];
    system.ioctl(fd, request, &mut value)?;
    Ok(i32::from_ne_bytes(value))
}

fn ping(sequence: u16) -> Vec<u8> {
    echo_request("10.0.0.2", "10.0.0.1", sequence, b"some data to echo")
}

fn units_and_exclusive_open(system: &Arc<dyn System>) {
    for path in [
        "tun/00",
        "tun/x",
        "tun/-1",
        "tun/+1",
        "tun/32768",
        "tun/99999999999",
        "tun/0x0",
    ] {
        assert_eq!(system.open(path, true, true), Err(ENOENT), "{path}");
    }
    let last = system.open_rw("tun/32767");
    let first = system.open_rw("tun/clone");
    let mut name = [0; 32];
    system.ioctl(first, TUNGIFNAME, &mut name).unwrap();
    assert!(name.starts_with(b"tun0\0"));
    assert_eq!(system.open("tun/0", true, true), Err(EBUSY));
    let status = system.text("netcfg/ifaces/tun0/status");
    assert_eq!(status, format!("\tOpened by PID {}\n", system.pid()));
    let copy = system.dup(first).unwrap();
    system.close(first).unwrap();
    assert_eq!(system.open("tun/0", true, true), Err(EBUSY));
    system.close(copy).unwrap();
    for _ in 0..200 {
        let tun = system.open_rw("tun/0");
        system.close(tun).unwrap();
    }
    assert_eq!(system.text("netcfg/ifaces/tun0/status"), "");
    system.close(last).unwrap();
    system.set("netcfg/ifaces/tun32767/destroy", "1\n").unwrap();
    assert_eq!(
        system.open("netcfg/ifaces/tun32767/mtu", true, false),
        Err(ENOENT)
    );
}

fn ping_goes_round(system: &Arc<dyn System>) {
    let tun = tunnel(system);
    let mut reply = [0; 2000];
    for sequence in 0..100 {
        let request = ping(sequence);
        assert_eq!(system.write(tun, &request), Ok(request.len()));
        let len = system.read(tun, &mut reply).unwrap();
        let message = payload_v4(&reply[..len]);
        assert_eq!(message[0], 0);
        assert_eq!(message[6..], request[26..]);
    }
    assert_eq!(system.stat("tun0", "ipackets"), 100);
    assert_eq!(system.stat("tun0", "obytes"), 100 * ping(0).len() as u64);
}

fn short_read_loses_the_rest_and_counts_it(system: &Arc<dyn System>) {
    let tun = tunnel(system);
    system.write(tun, &ping(1)).unwrap();
    system.write(tun, &ping(2)).unwrap();
    let mut short = [0; 24];
    assert_eq!(system.read(tun, &mut []), Ok(0));
    assert_eq!(system.read(tun, &mut short), Ok(24));
    assert_eq!(system.stat("tun0", "drop.truncated"), 1);
    let mut reply = [0; 100];
    let len = system.read(tun, &mut reply).unwrap();
    assert_eq!(payload_v4(&reply[..len])[7], 2);
}

fn write_sizes_and_families(system: &Arc<dyn System>) {
    let tun = tunnel(system);
    assert_eq!(system.write(tun, &[]), Ok(0));
    assert_eq!(system.write(tun, &[0; 16_384]), Ok(16_384));
    assert_eq!(system.write(tun, &[0; 16_385]), Err(EIO));
    int(system, tun, TUNSIFHEAD, 1).unwrap();
    for (len, result) in [
        (1, Err(EINVAL)),
        (3, Err(EINVAL)),
        (16_388, Ok(16_388)),
        (16_389, Err(EIO)),
    ] {
        let mut frame = vec![0; len];
        if let Some(family) = frame.get_mut(3) {
            *family = 2;
        }
        assert_eq!(system.write(tun, &frame), result, "{len} bytes");
    }
    let before = system.stat("tun0", "ipackets");
    for family in [10_u32, 24, 28, 30] {
        let frame = [&family.to_be_bytes()[..], &[0x60; 40]].concat();
        assert_eq!(system.write(tun, &frame), Ok(44), "family {family}");
    }
    for family in [0_u32, 4, 5, 16, 23, 99, 2 << 24] {
        let frame = [&family.to_be_bytes()[..], &[0; 20]].concat();
        assert_eq!(
            system.write(tun, &frame),
            Err(EAFNOSUPPORT),
            "family {family}"
        );
    }
    assert_eq!(system.stat("tun0", "ipackets"), before + 4);
    assert_eq!(system.stat("tun0", "drop.unknown_family"), 7);
}

fn a_waiting_read_gets_the_packet(system: &Arc<dyn System>) {
    let tun = tunnel(system);
    let reader = {
        let system = Arc::clone(system);
        thread::spawn(move || {
            let mut reply = [0; 100];
            system.read(tun, &mut reply)
        })
    };
    thread::sleep(Duration::from_millis(300));
    assert!(!reader.is_finished());
    system.write(tun, &ping(1)).unwrap();
    assert_eq!(reader.join().unwrap(), Ok(ping(1).len()));
    system.set_nonblocking(tun).unwrap();
    assert_eq!(system.read(tun, &mut [0; 100]), Err(EAGAIN));
}

fn a_waiting_read_ends_with_its_descriptor(system: &Arc<dyn System>) {
    let tun = tunnel(system);
    let keep = system.dup(tun).unwrap();
    let reader = {
        let system = Arc::clone(system);
        thread::spawn(move || system.read(tun, &mut [0; 100]))
    };
    thread::sleep(Duration::from_millis(300));
    system.close(tun).unwrap();
    assert_eq!(reader.join().unwrap(), Err(EINTR));
    // The device is still open, and the interrupted read took nothing.
    system.write(keep, &ping(1)).unwrap();
    assert_eq!(system.read(keep, &mut [0; 100]), Ok(ping(1).len()));
}

fn tunshut_gives_the_unit_back(system: &Arc<dyn System>) {
    let tun = tunnel(system);
    let reader = {
        let system = Arc::clone(system);
        thread::spawn(move || system.read(tun, &mut [0; 100]))
    };
    thread::sleep(Duration::from_millis(300));
    system.ioctl(tun, TUNSHUT, &mut []).unwrap();
    assert_eq!(reader.join().unwrap(), Err(EHOSTDOWN));
    assert_eq!(system.write(tun, &ping(1)), Err(EHOSTDOWN));
    assert_eq!(get_int(system, tun, FIONREAD), Err(EHOSTDOWN));
    let again = system.open_rw("tun/0");
    system.close(tun).unwrap();
    assert_eq!(system.open("tun/0", true, true), Err(EBUSY));
    system.close(again).unwrap();
}

fn readiness(system: &Arc<dyn System>) {
    let tun = tunnel(system);
    assert_eq!(system.poll(tun, Duration::ZERO), Ok((false, true)));
    let poller = {
        let system = Arc::clone(system);
        thread::spawn(move || system.poll(tun, SOON))
    };
    thread::sleep(Duration::from_millis(300));
    assert!(!poller.is_finished());
    system.write(tun, &ping(1)).unwrap();
    assert_eq!(poller.join().unwrap(), Ok((true, true)));
    assert_eq!(get_int(system, tun, FIONREAD), Ok(ping(1).len() as i32));
    system.read(tun, &mut [0; 100]).unwrap();
    assert_eq!(get_int(system, tun, FIONREAD), Ok(0));
    assert_eq!(system.poll(tun, Duration::ZERO), Ok((false, true)));
}

fn header_modes_exclude_each_other(system: &Arc<dyn System>) {
    let tun = tunnel(system);
    int(system, tun, TUNSIFHEAD, 1).unwrap();
    assert_eq!(get_int(system, tun, TUNGIFHEAD), Ok(1));
    let framed = [&2_u32.to_be_bytes()[..], &ping(1)].concat();
    system.write(tun, &framed).unwrap();
    // A change of mode does not affect queued packets.
    int(system, tun, TUNSLMODE, 1).unwrap();
    assert_eq!(get_int(system, tun, TUNGIFHEAD), Ok(0));
    let mut frame = [0; 200];
    let len = system.read(tun, &mut frame).unwrap();
    assert_eq!(frame[..4], 2_u32.to_be_bytes());
    payload_v4(&frame[4..len]);
    system.write(tun, &ping(2)).unwrap();
    let len = system.read(tun, &mut frame).unwrap();
    assert_eq!(
        frame[..16],
        [16, 2, 0, 0, 10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0]
    );
    payload_v4(&frame[16..len]);
    int(system, tun, TUNSLMODE, 0).unwrap();
    // Without a family in front, IPv6 cannot be sent.
    system
        .set("netcfg/ifaces/tun0/addr/add", "fd00::1/64\n")
        .unwrap();
    let icmp = system.open_rw("icmp/echo/fd00::2");
    assert_eq!(system.write(icmp, &[0, 1, 2, 3]), Err(EAFNOSUPPORT));
    int(system, tun, TUNSIFHEAD, 1).unwrap();
    system.write(icmp, &[0, 1, 2, 3]).unwrap();
    let len = system.read(tun, &mut frame).unwrap();
    assert_eq!(frame[..4], 10_u32.to_be_bytes());
    assert_eq!(len, 4 + 40 + 8 + 2);
}

fn interface_info_and_mode(system: &Arc<dyn System>) {
    let tun = system.open_rw("tun/0");
    let flags = || system.text("netcfg/ifaces/tun0/flags");
    assert_eq!(flags(), "POINTOPOINT,MULTICAST\n");
    let mut info = [0; 8];
    system.ioctl(tun, TUNGIFINFO, &mut info).unwrap();
    assert_eq!(info[4..], [0xdc, 5, 0x17, 0]);
    info[4..6].copy_from_slice(&71_u16.to_ne_bytes());
    assert_eq!(system.ioctl(tun, TUNSIFINFO, &mut info), Err(EINVAL));
    info[..4].copy_from_slice(&9600_i32.to_ne_bytes());
    info[4..6].copy_from_slice(&40_000_u16.to_ne_bytes());
    info[6] = 0x35;
    system.ioctl(tun, TUNSIFINFO, &mut info).unwrap();
    let mut read = [0; 8];
    system.ioctl(tun, TUNGIFINFO, &mut read).unwrap();
    assert_eq!(read, info);
    assert_eq!(system.text("netcfg/ifaces/tun0/mtu"), "40000\n");
    for (mode, result, shown) in [
        (0x8002, Ok(()), "BROADCAST,MULTICAST\n"),
        (0x10, Ok(()), "POINTOPOINT\n"),
        (0x12, Err(EINVAL), "POINTOPOINT\n"),
        (0x8000, Err(EINVAL), "POINTOPOINT\n"),
        (0x1002, Ok(()), "BROADCAST,MULTICAST\n"),
    ] {
        assert_eq!(int(system, tun, TUNSIFMODE, mode), result, "{mode:#x}");
        assert_eq!(flags(), shown);
    }
    system.set(ADDRESS, "10.0.0.1/24\n").unwrap();
    assert_eq!(flags(), "UP,BROADCAST,RUNNING,MULTICAST\n");
    assert_eq!(int(system, tun, TUNSIFMODE, 0x10), Err(EBUSY));
    for unknown in [iow(b't', 100, 4), iow(b't', 96, 8), ior(b'x', 1, 4)] {
        assert_eq!(
            system.ioctl(tun, unknown, &mut [0; 8]),
            Err(ENOTTY),
            "{unknown:#x}"
        );
    }
}

fn batch_mode(system: &Arc<dyn System>) {
    let tun = tunnel(system);
    int(system, tun, TUNSBATCH, 1).unwrap();
    let mut batch = Vec::new();
    for sequence in 0..50 {
        tun::batch::push(&mut batch, &ping(sequence));
    }
    assert_eq!(system.write(tun, &batch), Ok(batch.len()));
    // A batch is accepted as a whole or not at all.
    let broken = [&batch[..], &[9, 0]].concat();
    assert_eq!(system.write(tun, &broken), Err(EINVAL));
    let frame_len = 4 + ping(0).len().next_multiple_of(4);
    assert_eq!(get_int(system, tun, FIONREAD), Ok(frame_len as i32));
    assert_eq!(system.read(tun, &mut vec![0; frame_len - 1]), Err(EMSGSIZE));
    let mut replies = vec![0; 65_536];
    let len = system.read(tun, &mut replies).unwrap();
    let sequences: Vec<u8> = tun::batch::packets(&replies[..len])
        .map(|packet| payload_v4(packet)[7])
        .collect();
    assert_eq!(sequences, (0..50).collect::<Vec<_>>());
    assert_eq!(system.stat("tun0", "ipackets"), 50);
}

fn last_close(system: &Arc<dyn System>) {
    let tun = tunnel(system);
    system
        .set("netcfg/route/add", "10.9.0.0/16 dev tun0\n")
        .unwrap();
    int(system, tun, TUNSLMODE, 1).unwrap();
    int(system, tun, TUNSBATCH, 1).unwrap();
    int(system, tun, TUNSBATCH, 0).unwrap();
    system.write(tun, &ping(1)).unwrap();
    system.close(tun).unwrap();
    assert_eq!(system.text("netcfg/route/list"), "");
    assert_eq!(
        system.text("netcfg/ifaces/tun0/flags"),
        "POINTOPOINT,MULTICAST\n"
    );
    assert_eq!(system.text("netcfg/ifaces/tun0/addr/list"), "10.0.0.1/24\n");
    assert_eq!(system.stat("tun0", "drop.purged"), 1);
    let tun = system.open_rw("tun/0");
    system.set_nonblocking(tun).unwrap();
    assert_eq!(system.read(tun, &mut [0; 100]), Err(EAGAIN));
    system.set("netcfg/ifaces/tun0/flags", "up\n").unwrap();
    assert_eq!(system.text("netcfg/route/list"), "10.0.0.0/24 dev tun0\n");
    int(system, tun, TUNSTRANSIENT, 1).unwrap();
    system.close(tun).unwrap();
    assert_eq!(
        system.open("netcfg/ifaces/tun0/mtu", true, false),
        Err(ENOENT)
    );
}

fn down_is_for_routing(system: &Arc<dyn System>) {
    let tun = tunnel(system);
    let icmp = system.open_rw("icmp/echo/10.0.0.2");
    system.set("netcfg/ifaces/tun0/flags", "down\n").unwrap();
    assert_eq!(system.write(icmp, &[0, 1, 2, 3]), Err(ENETDOWN));
    // The driver itself does not check it.
    let request = udp(("10.0.0.2", 5), ("10.0.0.1", 9), b"to discard");
    system.write(tun, &request).unwrap();
    system.set("netcfg/ifaces/tun0/flags", "up\n").unwrap();
    system.write(icmp, &[0, 1, 2, 3]).unwrap();
    let mut request = [0; 100];
    let len = system.read(tun, &mut request).unwrap();
    assert_eq!(payload_v4(&request[..len])[0], 8);
    system.close(tun).unwrap();
    assert_eq!(system.write(icmp, &[0, 2, 2, 3]), Err(101));
}

/// The source of a route is used while the address is ours; the route may exist before the address.
fn a_route_names_its_source(system: &Arc<dyn System>) {
    let tun = tunnel(system);
    let route = "10.9.0.0/16 dev tun0 src 10.5.0.1\n";
    system.set("netcfg/route/add", route).unwrap();
    let source = || {
        let udp = system.open_rw("udp/10.9.0.1:9");
        system.write(udp, b"x").unwrap();
        system.close(udp).unwrap();
        let mut packet = [0; 100];
        system.read(tun, &mut packet).unwrap();
        packet[12..16].to_vec()
    };
    assert_eq!(source(), [10, 0, 0, 1]);
    for path in ["add", "rm"] {
        let path = format!("netcfg/ifaces/tun0/addr/{path}");
        system.set(&path, "10.5.0.1/24\n").unwrap();
        let expected = if path.ends_with("add") { 5 } else { 0 };
        assert_eq!(source(), [10, expected, 0, 1]);
    }
    assert!(system.text("netcfg/route/list").contains(route));
    system.close(tun).unwrap();
}

fn settings_are_atomic(system: &Arc<dyn System>) {
    let tun = tunnel(system);
    let add = "netcfg/ifaces/tun0/addr/add";
    assert_eq!(
        system.set(add, "10.1.0.1/24\n10.2.0.1/24\nnonsense\n"),
        Err(EINVAL)
    );
    assert_eq!(system.set(add, "10.1.0.1/24\n10.0.0.1/24\n"), Err(EINVAL));
    assert_eq!(system.text("netcfg/ifaces/tun0/addr/list"), "10.0.0.1/24\n");
    assert_eq!(system.text("netcfg/route/list"), "10.0.0.0/24 dev tun0\n");
    // A line in pieces, finished by fsync, and one finished by close.
    let file = system.open("netcfg/ifaces/tun0/mtu", false, true).unwrap();
    system.write(file, b"14").unwrap();
    system.write(file, b"00").unwrap();
    assert_eq!(system.text("netcfg/ifaces/tun0/mtu"), "1500\n");
    system.fsync(file).unwrap();
    assert_eq!(system.text("netcfg/ifaces/tun0/mtu"), "1400\n");
    system.fsync(file).unwrap();
    system.write(file, b"1300").unwrap();
    system.close(file).unwrap();
    assert_eq!(system.text("netcfg/ifaces/tun0/mtu"), "1300\n");
    for (path, bad) in [
        ("mtu", "71\n"),
        ("mtu", "65536\n"),
        ("flags", "sideways\n"),
        ("queue", "codel\n"),
    ] {
        let path = format!("netcfg/ifaces/tun0/{path}");
        let before = system.text(&path);
        assert_eq!(system.set(&path, bad), Err(EINVAL), "{path}: {bad}");
        assert_eq!(system.text(&path), before);
    }
    // Below 1280 the interface carries no IPv6.
    system.set("netcfg/ifaces/tun0/mtu", "1279\n").unwrap();
    assert_eq!(system.set(add, "fd00::1/64\n"), Err(EINVAL));
    system.close(tun).unwrap();
}

fn fragments_are_put_together(system: &Arc<dyn System>) {
    let tun = tunnel(system);
    let data: Vec<u8> = (0..4000_u32).map(|byte| (byte % 251) as u8).collect();
    let whole = echo_request("10.0.0.2", "10.0.0.1", 7, &data);
    let mut pieces = fragments_v4(&whole, 1480);
    pieces.reverse();
    for piece in &pieces {
        system.write(tun, piece).unwrap();
    }
    let mut payload = BTreeMap::new();
    for _ in 0..3 {
        let mut piece = [0; 1500];
        let len = system.read(tun, &mut piece).unwrap();
        let offset = u16::from_be_bytes([piece[6], piece[7]]) & 0x1fff;
        payload.insert(offset, payload_v4(&piece[..len]).to_vec());
    }
    let reply: Vec<u8> = payload.into_values().flatten().collect();
    assert_eq!(reply[0], 0);
    assert_eq!(reply[8..], data);
}

fn capture_sees_both_ways(system: &Arc<dyn System>) {
    let tun = tunnel(system);
    let tap = system.open_rw("bpf/tun0");
    system.write(tun, &ping(1)).unwrap();
    system.read(tun, &mut [0; 200]).unwrap();
    let mut stream = vec![0; 8192];
    let mut len = 0;
    while len < 24 + 2 * (16 + 4 + ping(1).len()) {
        len += system.read(tap, &mut stream[len..]).unwrap();
    }
    let word = |at: usize| u32::from_ne_bytes(stream[at..at + 4].try_into().unwrap());
    assert_eq!((word(0), word(16), word(20)), (0xa1b2_c3d4, 65_535, 0));
    assert_eq!(word(24 + 8) as usize, 4 + ping(1).len());
    assert_eq!(word(40), 2);
    assert_eq!(stream[44..44 + ping(1).len()], ping(1));
    // Injection: out of the interface, without a route.
    assert_eq!(system.write(tap, &[2, 0, 0]), Err(EINVAL));
    let packet = [&2_u32.to_ne_bytes()[..], &ping(9)].concat();
    assert_eq!(system.write(tap, &packet), Ok(packet.len()));
    let mut read = [0; 200];
    let len = system.read(tun, &mut read).unwrap();
    assert_eq!(read[..len], ping(9));
}

fn garbage_is_counted(system: &Arc<dyn System>) {
    let tun = tunnel(system);
    system.set_nonblocking(tun).unwrap();
    let mut state = 0x9e37_79b9_u32;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    for _ in 0..2000 {
        let mut packet = ping(random() as u16);
        for _ in 0..random() % 4 {
            let at = random() as usize % packet.len();
            packet[at] = random() as u8;
        }
        packet.truncate(1 + random() as usize % packet.len());
        system.write(tun, &packet).unwrap();
        while system.read(tun, &mut [0; 200]).is_ok() {}
    }
    assert_eq!(system.stat("tun0", "ipackets"), 2000);
    system.write(tun, &ping(1)).unwrap();
    assert_eq!(system.poll(tun, SOON), Ok((true, true)));
}

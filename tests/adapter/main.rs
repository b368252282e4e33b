//! Ethernet against programs that are not ours: the daemon drives one end of a veth through a packet
//! socket, and on the other end are the kernel, routers, servers and scanners.
//!
//! Every test has network namespaces of its own. It needs root, FUSE and the programs that it names;
//! without one of them it is skipped by name, or has failed (CONTRIBUTING.md).

#[path = "../common/mod.rs"]
mod common;

mod addresses;
mod bed;
mod bulk;
mod groups;
mod routers;

use std::process::Command;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use bed::{Bed, Link, missing};
use common::system::System;
use common::wait::until;

type Test = fn(&Bed);

fn main() {
    let mut args = Arguments::from_args();
    args.test_threads = Some(1);
    let python = &["python3"][..];
    let tests: [(&str, &'static [&str], Test); 27] = [
        ("kernel_pings_us", &[], kernel_pings_us),
        ("we_ping_the_kernel", &[], we_ping_the_kernel),
        ("every_byte_of_tcp_and_udp", python, every_byte),
        (
            "connections_that_we_begin",
            python,
            bulk::connections_of_ours,
        ),
        ("iperf3_across", &["iperf3"], bulk::iperf3),
        ("segments_that_were_put_together", python, segments),
        ("frames_that_come_too_fast", python, frames_too_fast),
        ("frames_left_when_a_link_changes", python, frames_left),
        ("frames_of_noise", python, frames_of_noise),
        ("tagged_frames_are_not_for_us", python, tagged_frames),
        (
            "an_address_the_kernel_has",
            python,
            addresses::the_kernel_has_it,
        ),
        (
            "an_address_we_have",
            &["arping", "python3"],
            addresses::we_have_it,
        ),
        (
            "an_address_the_kernel_is_about_to_have",
            &[],
            addresses::the_kernel_is_about_to_have_it,
        ),
        ("mtu_of_the_link", &[], mtu_of_the_link),
        ("link_goes_and_comes", &[], link_goes_and_comes),
        ("link_is_made_again", &[], link_is_made_again),
        ("another_hardware_address", &[], another_hardware_address),
        ("arping", &["arping"], addresses::arping),
        ("ndisc6", &["ndisc6"], addresses::ndisc6),
        (
            "routers_whose_lifetimes_end",
            &["radvd"],
            routers::lifetimes_end,
        ),
        (
            "routers_with_every_option",
            &["radvd", "python3"],
            routers::every_option,
        ),
        (
            "two_routers_and_new_numbers",
            &["radvd", "python3"],
            routers::two_routers,
        ),
        ("lease_of_dnsmasq", &["dnsmasq", "python3"], lease),
        ("nmap_scans", &["nmap"], nmap),
        ("queries_for_groups", python, groups::queries),
        (
            "queries_of_a_bridge",
            &["bridge", "python3"],
            groups::queries_of_a_bridge,
        ),
        ("what_is_no_adapter", &[], what_is_no_adapter),
    ];
    let trials = tests.map(|(name, programs, test)| {
        Trial::ignorable_test(name, move || -> Result<Completion, Failed> {
            if let Some(missing) = missing(programs) {
                return missing.completion();
            }
            let bed = Bed::new();
            test(&bed);
            bed.system.assert_ledger_closes("eth0");
            Ok(Completion::Completed)
        })
    });
    libtest_mimic::run(&args, trials.into()).exit();
}

fn kernel_pings_us(bed: &Bed) {
    let link_local = format!("{}%b0", bed.link_local());
    for address in ["10.0.0.1", "fd00::1", &link_local] {
        for size in ["56", "1472", "20000"] {
            bed.kernel_ping(address, size);
        }
    }
    let text = bed.run(&["ip", "neigh", "show", "dev", "b0"]);
    let mac = bed.mac();
    for address in ["10.0.0.1", "fd00::1"] {
        let known = |line: &str| line.starts_with(address) && line.contains(&mac);
        assert!(text.lines().any(known), "{text}");
    }
    assert_eq!(bed.drops("bad_checksum"), 0);
}

fn we_ping_the_kernel(bed: &Bed) {
    for address in ["10.0.0.2", "fd00::2"] {
        for size in ["56", "1472", "20000"] {
            bed.ping(address, size);
        }
    }
    assert_eq!(bed.drops("bad_checksum"), 0);
}

/// The kernel leaves checksums to the card, of which there is none, and so to us.
fn every_byte(bed: &Bed) {
    bed.python(
        r#"
import os, socket, threading
for family, address in ((socket.AF_INET, "10.0.0.1"), (socket.AF_INET6, "fd00::1")):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.settimeout(20)
    s.connect((address, 7))
    for size in [0, 1, 2, 3, 1471, 1472, 1473, 9000, 60000]:
        data = os.urandom(size)
        s.send(data)
        assert s.recv(65536) == data, (address, size)
    t = socket.create_connection((address, 7), timeout=60)
    data = os.urandom(4_000_001)
    sender = threading.Thread(target=lambda: (t.sendall(data), t.shutdown(socket.SHUT_WR)))
    sender.start()
    back = b""
    while piece := t.recv(1 << 20):
        back += piece
    sender.join()
    assert back == data, (address, len(back))
print("all good")
"#,
    );
    for reason in ["bad_checksum", "malformed", "missed"] {
        assert_eq!(bed.drops(reason), 0, "{reason}");
    }
}

/// One datagram of the kernel's that stands for many. And TCP's longest segments reach a station
/// behind us as they would from a card: none is larger than the link carries.
fn segments(bed: &Bed) {
    bed.python(
        r#"
import os, socket, struct
UDP_SEGMENT = 103
for family, address in ((socket.AF_INET, "10.0.0.1"), (socket.AF_INET6, "fd00::1")):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.settimeout(20)
    s.connect((address, 7))
    data = os.urandom(10 * 1000 + 7)
    control = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", 1000))]
    s.sendmsg([data], control)
    back = [s.recv(65536) for _ in range(11)]
    assert back == [data[at:at + 1000] for at in range(0, len(data), 1000)], [len(b) for b in back]
print("all good")
"#,
    );
    let tun = bed.system.open_rw("tun/0");
    bed.set("ifaces/tun0/addr/set", "10.9.0.1/24");
    bed.set("ip/forwarding", "1");
    bed.run(&["ip", "route", "add", "10.9.0.0/24", "via", "10.0.0.1"]);
    bed.python(
        r#"
import socket
s = socket.socket()
s.setblocking(False)
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
try:
    s.connect(("10.9.0.2", 9))
except BlockingIOError:
    pass
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.connect(("10.9.0.2", 9))
u.sendmsg([bytes(20000)], [(socket.IPPROTO_UDP, 103, bytes([1000 & 255, 1000 >> 8]))])
print("all good")
"#,
    );
    let mut datagrams = 0;
    let mut buffer = vec![0; 65_536];
    while datagrams < 20 {
        let len = bed.system.read(tun, &mut buffer).unwrap();
        assert!(len <= 1500, "a packet of {len} bytes");
        datagrams += u32::from(buffer[9] == 17 && len == 1028);
    }
    bed.system.close(tun).unwrap();
}

/// Nobody takes them for a while: the system's buffer is bounded, and what it cannot keep is counted.
fn frames_too_fast(bed: &Bed) {
    // The kernel has to know where we are.
    bed.kernel_ping("10.0.0.1", "56");
    bed.system.signal(libc::SIGSTOP);
    bed.python(
        r#"
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(("10.0.0.1", 9))
for _ in range(20000):
    s.send(bytes(1400))
print("all good")
"#,
    );
    bed.system.signal(libc::SIGCONT);
    bed.kernel_ping("10.0.0.1", "56");
    until("what was lost is counted", || bed.drops("missed") > 0);
    until("all are accounted for", || {
        bed.drops("missed") + bed.system.stat("eth0", "ipackets") >= 20_000
    });
}

/// What came before a link went down, or became another, is handled.
fn frames_left(bed: &Bed) {
    const FRAMES: u64 = 700;
    let (ours, peers) = (bed.our_link(), bed.peers_link());
    let changes: [(&Link<'_>, &[&str], &[&str]); 3] = [
        (&ours, &["down"], &["up"]),
        (&peers, &["down"], &["up"]),
        (&ours, &["mtu", "1400"], &["mtu", "1500"]),
    ];
    for (link, change, back) in changes {
        bed.kernel_ping("10.0.0.1", "56");
        let before = bed.drops("no_port");
        bed.system.signal(libc::SIGSTOP);
        bed.python(&format!(
            r#"
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range({FRAMES}):
    s.sendto(bytes(1000), ("10.0.0.1", 11))
print("all good")
"#,
        ));
        link.set(change);
        bed.system.signal(libc::SIGCONT);
        until("each is handled", || {
            bed.drops("no_port") >= before + FRAMES
        });
        assert_eq!(bed.drops("no_port"), before + FRAMES);
        until("the change is seen", || {
            !bed.is_running() || bed.has("ifaces/eth0/mtu", "1400")
        });
        link.set(back);
        until("it is as before", || {
            bed.is_running() && bed.has("ifaces/eth0/mtu", "1500")
        });
    }
    assert_eq!(bed.drops("missed"), 0);
}

/// Whatever comes, it is counted, and we go on.
fn frames_of_noise(bed: &Bed) {
    let before = bed.system.drops("eth0");
    bed.python(&format!(
        r#"
import random, socket
random.seed(5)
ours = bytes.fromhex("{mac}")
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(("b0", 0))
src = s.getsockname()[4]
types = [b"\x08\x00", b"\x86\xdd", b"\x08\x06", b"\x81\x00", b"\x00\x20"]
starts = [b"\x45\x00", b"\x60\x00\x00\x00", b"\x00\x01\x08\x00\x06\x04", b""]
for _ in range(5000):
    dst = random.choice([ours, b"\xff" * 6, b"\x33\x33\x00\x00\x00\x01", random.randbytes(6)])
    body = random.choice(starts) + random.randbytes(random.choice([0, 1, 20, 40, 60, 1400]))
    s.send(dst + src + random.choice(types) + body)
print("all good")
"#,
        mac = bed.mac().replace(':', "")
    ));
    bed.kernel_ping("10.0.0.1", "56");
    bed.kernel_ping("fd00::1", "56");
    assert!(bed.system.drops("eth0") > before);
    assert!(bed.is_running());
}

/// The tag comes beside the frame, which looks like one for us without it.
fn tagged_frames(bed: &Bed) {
    let before = bed.drops("unknown_family");
    bed.python(&format!(
        r#"
import socket, struct
ours = bytes.fromhex("{mac}")
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(("b0", 0))
src = s.getsockname()[4]
def sum16(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    total = (total & 0xffff) + (total >> 16)
    return ~(total + (total >> 16)) & 0xffff
icmp = struct.pack("!BBHHH", 8, 0, 0, 0x7a67, 1)
icmp = struct.pack("!BBHHH", 8, 0, sum16(icmp), 0x7a67, 1)
ip = lambda check: struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 1, 0, 64, 1, check,
                               socket.inet_aton("10.0.0.2"), socket.inet_aton("10.0.0.1"))
packet = ip(sum16(ip(0))) + icmp
for tags in ("81000005", "88a80005", "88a8000581000006"):
    s.send(ours + src + bytes.fromhex(tags) + b"\x08\x00" + packet)
# Only this one is for us.
s.send(ours + src + b"\x08\x00" + packet)
s.settimeout(20)
answers = []
while True:
    frame = s.recv(2000)
    if frame[:6] == src and frame[12:14] == b"\x08\x00" and frame[23] == 1 and frame[34] == 0:
        answers.append(frame)
        break
s.settimeout(0.2)
try:
    while True:
        frame = s.recv(2000)
        assert not (frame[:6] == src and frame[12:14] == b"\x08\x00" and frame[23] == 1), "two answers"
except TimeoutError:
    pass
print("all good")
"#,
        mac = bed.mac().replace(':', "")
    ));
    assert_eq!(bed.drops("unknown_family"), before + 3);
}

fn mtu_of_the_link(bed: &Bed) {
    let mtu = |wanted: &str| {
        let text = format!("{wanted}\n");
        until("the mtu follows the link's", || {
            bed.text("ifaces/eth0/mtu") == text && bed.is_running()
        });
    };
    bed.set("ifaces/eth0/mtu", "9000");
    mtu("1500");
    bed.kernel_ping("10.0.0.1", "3000");
    bed.ping("fd00::2", "3000");
    bed.links_mtu("9000");
    mtu("9000");
    bed.kernel_ping("10.0.0.1", "8972");
    bed.ping("fd00::2", "8952");
    bed.links_mtu("1400");
    mtu("1400");
    bed.kernel_ping("fd00::1", "3000");
    bed.ping("10.0.0.2", "3000");
    bed.set("ifaces/eth0/mtu", "1300");
    // The link is found anew, and what was set stays.
    bed.until_found_anew(|| bed.links_mtu("1500"));
    mtu("1300");
    bed.ping("10.0.0.2", "3000");
    assert_eq!(bed.drops("refused"), 0);
}

fn link_goes_and_comes(bed: &Bed) {
    for link in [bed.our_link(), bed.peers_link()] {
        link.set(&["down"]);
        until("it does not run", || !bed.is_running());
        assert!(bed.text("ifaces/eth0/flags").contains("UP"));
        link.set(&["up"]);
        until("it runs", || bed.is_running());
        // The kernel forgot this one.
        let _ = bed.try_run(&["ip", "addr", "add", "fd00::2/64", "dev", "b0", "nodad"]);
        bed.kernel_ping("10.0.0.1", "56");
        bed.ping("fd00::2", "56");
    }
    let list = bed.text("ifaces/eth0/addr/list");
    assert!(
        list.contains("10.0.0.1/24") && list.contains("fd00::1/64"),
        "{list}"
    );
}

fn link_is_made_again(bed: &Bed) {
    bed.our_link().delete();
    until("it does not run", || !bed.is_running());
    bed.make_links();
    until("it runs", || bed.is_running());
    bed.kernel_ping("10.0.0.1", "56");
    bed.ping("fd00::2", "56");
    assert!(!bed.text("ifaces").contains("eth1"));
}

fn another_hardware_address(bed: &Bed) {
    bed.kernel_ping("10.0.0.1", "56");
    bed.kernel_ping("fd00::1", "56");
    bed.our_link().set(&["address", "02:00:00:00:00:77"]);
    until("it is the link's", || bed.mac() == "02:00:00:00:00:77");
    // Announced, so the kernel need not find out first.
    until("the kernel hears of it", || {
        bed.run(&["ip", "neigh", "show", "dev", "b0"])
            .matches("02:00:00:00:00:77")
            .count()
            >= 2
    });
    bed.kernel_ping("10.0.0.1", "56");
    bed.kernel_ping("fd00::1", "56");
    until("the link-local address follows", || {
        bed.text("ifaces/eth0/addr/list")
            .contains("fe80::ff:fe00:77/64")
    });
    bed.peers_link().set(&["address", "02:00:00:00:00:88"]);
    bed.kernel_ping("10.0.0.1", "56");
    bed.kernel_ping("fd00::1", "56");
    bed.ping("10.0.0.2", "56");
    bed.ping("fd00::2", "56");
}

/// As Redox's dhcpd gets one.
fn lease(bed: &Bed) {
    bed.set("ifaces/eth0/addr/rm", "10.0.0.1");
    let leases = bed.directory().join("leases");
    let _server = bed.start(&[
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--port=0",
        "--user=root",
        "--pid-file",
        "--interface=b0",
        "--bind-interfaces",
        "--no-ping",
        "--dhcp-authoritative",
        "--dhcp-range=10.0.0.50,10.0.0.50,255.255.255.0,1h",
        "--dhcp-option=option:router,10.0.0.2",
        "--dhcp-option=option:dns-server,10.0.0.53",
        &format!("--dhcp-leasefile={}", leases.display()),
    ]);
    let script = include_str!("dhcp.py");
    let output = Command::new("timeout")
        .args(["60", "python3", "-c", script])
        .arg(bed.system.dir())
        .arg(bed.mac())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("all good"), "{text}\n{errors}");
    assert!(bed.has("ifaces/eth0/addr/list", "10.0.0.50/24"));
    assert_eq!(bed.text("resolv/nameserver"), "10.0.0.53\n");
    bed.kernel_ping("10.0.0.50", "56");
    bed.run(&["ip", "addr", "add", "192.0.2.1/32", "dev", "lo"]);
    bed.ping("192.0.2.1", "56");
    let leases = std::fs::read_to_string(leases).unwrap();
    assert!(
        leases.contains(&format!("{} 10.0.0.50", bed.mac())),
        "{leases}"
    );
}

fn nmap(bed: &Bed) {
    let open = |text: &str, port: &str| {
        let line = text.lines().find(|line| line.starts_with(port));
        line.unwrap_or_else(|| panic!("no {port} in {text}"))
            .contains("open")
    };
    for (family, address) in [(&["-4"][..], "10.0.0.1"), (&["-6"], "fd00::1")] {
        let scan = |options: &[&str]| {
            let patient = [
                "-n",
                "-Pn",
                "--min-rtt-timeout",
                "500ms",
                "--max-retries",
                "10",
            ];
            bed.run(&[&["nmap"][..], family, &patient, options, &[address]].concat())
        };
        let text = scan(&["-sS", "-p", "1-200"]);
        for port in ["7/tcp", "9/tcp", "19/tcp"] {
            assert!(open(&text, port), "{text}");
        }
        assert!(text.contains("197 closed"), "{text}");
        let text = scan(&["-sU", "-p", "7,9,11"]);
        assert!(open(&text, "7/udp") && !open(&text, "11/udp"), "{text}");
        let text = scan(&["-O", "--max-os-tries", "1", "-p", "6,7,9"]);
        assert!(text.contains("OS detection performed"), "{text}");
        bed.kernel_ping(address, "56");
    }
}

fn what_is_no_adapter(bed: &Bed) {
    let refused = |args: &[&str]| {
        let output = bed
            .our_namespace(env!("CARGO_BIN_EXE_tund"))
            .args(args)
            .output();
        let output = output.unwrap();
        assert!(!output.status.success(), "{args:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let dir = bed.directory();
    let mount = ["--mount", dir.to_str().unwrap(), "--adapter"];
    for name in ["nothing", "lo", "a-name-that-is-too-long-for-one", ""] {
        let text = refused(&[&mount[..], &[name]].concat());
        assert!(text.contains(&format!("{name}: ")), "{text}");
    }
    assert!(refused(&["--adapter", "a0"]).contains("--mount"));
}

//! A router between two Linux kernels: two network namespaces, each bridged to a tun device of one
//! mount, and between them our stack with `ip/forwarding` on.
//!
//! Needs root, FUSE, /dev/net/tun and the programs named below; skipped by name elsewhere.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use common::needs::Missing;
use common::ping;
use common::system::{MountSystem, System, counter};
use common::wait::until;

/// The time limit of any program, seconds.
const PATIENCE: &str = "60";
const LEFT: usize = 0;
const RIGHT: usize = 1;

type Test = fn(&Router);

/// The reason why the test cannot run here.
fn missing(programs: &[&str]) -> Option<Missing> {
    Missing::mount()
        .or_else(Missing::kernel_tun)
        .or_else(|| Missing::program(&["ip", "ping"]))
        .or_else(|| Missing::program(programs))
}

fn main() {
    let mut args = Arguments::from_args();
    args.test_threads = Some(1);
    let http = &["curl", "python3"][..];
    let tests: [(&str, &'static [&str], Test); 13] = [
        ("ping_across", &[], ping_across),
        ("hop_limit_runs_out", &[], hop_limit_runs_out),
        ("nothing_is_forwarded_when_off", &[], nothing_when_off),
        ("no_route_is_told", &[], no_route_is_told),
        ("an_interface_down_is_told", &[], an_interface_down_is_told),
        ("too_big_is_told_1280", &[], |router| too_big(router, 1280)),
        ("too_big_is_told_1400", &[], |router| too_big(router, 1400)),
        ("fragments_on_the_way", &[], fragments_on_the_way),
        ("http_across", http, http_across),
        ("http_over_a_narrow_link", http, http_over_a_narrow_link),
        ("answers_to_syns_are_clamped", http, answers_are_clamped),
        ("iperf3_tcp", &["iperf3"], iperf3_tcp),
        ("iperf3_udp_loss_is_counted", &["iperf3"], iperf3_udp),
    ];
    let trials = tests.map(|(name, programs, test)| {
        Trial::ignorable_test(name, move || -> Result<Completion, Failed> {
            if let Some(missing) = missing(programs) {
                return missing.completion();
            }
            let router = Router::new();
            test(&router);
            for interface in ["tun0", "tun1"] {
                router.system.assert_ledger_closes(interface);
            }
            Ok(Completion::Completed)
        })
    });
    libtest_mimic::run(&args, trials.into()).exit();
}

/// Our stack in the middle; 10.0.0.2 and fd00::2 on the left, 10.1.0.2 and fd01::2 on the right.
struct Router {
    system: MountSystem,
    sides: Vec<Side>,
}

/// A namespace, and the bridge that carries its packets.
struct Side {
    namespace: String,
    pump: Option<Child>,
}

impl Router {
    fn new() -> Self {
        let system = MountSystem::new();
        let sides = [LEFT, RIGHT].map(|side| Side::new(&system, side)).into();
        set(&system, "ip/forwarding", "1");
        Self { system, sides }
    }

    fn set(&self, path: &str, line: &str) {
        set(&self.system, path, line);
    }

    fn command(&self, side: usize, program: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.sides[side].namespace])
            .args(["timeout", PATIENCE])
            .args(program);
        command
    }

    /// Runs a program until it exits.
    fn try_run(&self, side: usize, program: &[&str]) -> (Output, String) {
        let output = self.command(side, program).output().unwrap();
        let texts = [&output.stdout[..], b"\n", &output.stderr].concat();
        let text = String::from_utf8_lossy(&texts).into_owned();
        (output, text)
    }

    /// Runs a program, which must succeed.
    fn run(&self, side: usize, program: &[&str]) -> String {
        let (output, text) = self.try_run(side, program);
        assert!(output.status.success(), "{program:?}: {text}");
        text
    }

    /// The left pings, and every ping is answered.
    fn ping(&self, times: usize, options: &[&str], address: &str) {
        ping::answered(times, options, address, |program| self.run(LEFT, program));
    }

    /// Starts a server on the right; it ends with the guard.
    fn serve(&self, program: &[&str], port: u16) -> Server {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.sides[RIGHT].namespace])
            .args(program)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // `ip netns exec` becomes the program it runs: this is our own child.
        let server = Server(command.spawn().unwrap());
        let start = Instant::now();
        let port = format!(":{port:04X} ");
        let listens = |line: &str| line.contains(&port) && line.contains(" 0A ");
        while !["tcp", "tcp6"].iter().any(|table| {
            let text = self.run(RIGHT, &["cat", &format!("/proc/net/{table}")]);
            text.lines().any(listens)
        }) {
            assert!(start.elapsed() < Duration::from_secs(20), "{program:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    /// A counter of an interface's ledger.
    fn ledger(&self, interface: &str, name: &str) -> u64 {
        let text = self
            .system
            .text(&format!("netcfg/ifaces/{interface}/ledger"));
        counter(&text, name)
    }

    fn forwarded(&self) -> [u64; 2] {
        ["tun0", "tun1"].map(|interface| self.ledger(interface, "in.forwarded"))
    }

    fn capture(&self, interface: &str) -> Capture<'_> {
        let system = &self.system;
        let fd = system
            .open(&format!("bpf/{interface}"), true, false)
            .unwrap();
        system.set_nonblocking(fd).unwrap();
        Capture { system, fd }
    }
}

fn set(system: &MountSystem, path: &str, line: &str) {
    let written = system.set(&format!("netcfg/{path}"), &format!("{line}\n"));
    assert_eq!(written, Ok(()), "{line:?} to {path}");
}

impl Side {
    fn new(system: &MountSystem, side: usize) -> Self {
        let namespace = format!("tund-{}-side{side}", std::process::id());
        let (side, name) = (side.to_string(), namespace.as_str());
        ip(&["netns", "add", name]);
        let mut this = Self {
            namespace: name.to_owned(),
            pump: None,
        };
        let tunctl = env!("CARGO_BIN_EXE_tunctl");
        let root = system.dir().to_str().unwrap();
        let pump = Command::new("ip")
            .args(["netns", "exec", name, tunctl, "--root", root])
            .args(["bridge", &side, "peer0"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let pump = this.pump.insert(pump);
        let mut line = String::new();
        BufReader::new(pump.stderr.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert!(line.contains("Pumping"), "tunctl bridge said {line:?}");
        let (v4, v6) = (format!("10.{side}.0"), format!("fd0{side}:"));
        set(
            system,
            &format!("ifaces/tun{side}/addr/set"),
            &format!("{v4}.1/24"),
        );
        set(
            system,
            &format!("ifaces/tun{side}/addr/add"),
            &format!("{v6}:1/64"),
        );
        let addr = |addr: &str| ip(&["-n", name, "addr", "add", addr, "dev", "peer0"]);
        addr(&format!("{v4}.2/24"));
        ip(&[
            "-n",
            name,
            "addr",
            "add",
            &format!("{v6}:2/64"),
            "dev",
            "peer0",
            "nodad",
        ]);
        ip(&["-n", name, "link", "set", "lo", "up"]);
        ip(&["-n", name, "link", "set", "peer0", "up"]);
        for (family, via) in [("-4", format!("{v4}.1")), ("-6", format!("{v6}:1"))] {
            ip(&["-n", name, family, "route", "add", "default", "via", &via]);
        }
        this
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        if let Some(pump) = &mut self.pump {
            let _ = pump.kill();
            let _ = pump.wait();
        }
        ip(&["netns", "del", &self.namespace]);
    }
}

/// A server that ends when it is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ip(args: &[&str]) {
    let status = Command::new("ip").args(args).status().unwrap();
    assert!(status.success(), "ip {args:?}");
}

/// A capture of an interface, from now on.
struct Capture<'a> {
    system: &'a MountSystem,
    fd: i32,
}

impl Capture<'_> {
    /// The packets so far.
    fn packets(self) -> Vec<Vec<u8>> {
        let (mut stream, mut buf) = (Vec::new(), vec![0; 65_536]);
        while let Ok(len @ 1..) = self.system.read(self.fd, &mut buf) {
            stream.extend_from_slice(&buf[..len]);
        }
        self.system.close(self.fd).unwrap();
        let mut stream = &stream[24..];
        let mut packets = Vec::new();
        let mut record = [0; 16];
        while stream.read_exact(&mut record).is_ok() {
            let len = u32::from_ne_bytes([record[8], record[9], record[10], record[11]]);
            let (packet, rest) = stream.split_at(len as usize);
            packets.push(packet[4..].to_vec());
            stream = rest;
        }
        packets
    }

    /// For every SYN: whether it answers another, and the segment size it asks for.
    fn segment_sizes(self) -> Vec<(bool, u16)> {
        let size = |packet: Vec<u8>| {
            let (protocol, tcp) = match packet[0] >> 4 {
                4 => (packet[9], &packet[usize::from(packet[0] & 15) * 4..]),
                _ => (packet[6], &packet[40..]),
            };
            if protocol != 6 || tcp[13] & 2 == 0 {
                return None;
            }
            let mut options = &tcp[20..usize::from(tcp[12] >> 4) * 4];
            loop {
                options = match options {
                    [2, 4, high, low, ..] => {
                        return Some((tcp[13] & 16 != 0, u16::from_be_bytes([*high, *low])));
                    }
                    [1, rest @ ..] => rest,
                    [_, len, ..] => &options[usize::from(*len)..],
                    _ => panic!("a SYN without a segment size"),
                }
            }
        };
        self.packets().into_iter().filter_map(size).collect()
    }
}

fn ping_across(router: &Router) {
    for (from, address) in [
        (LEFT, "10.1.0.2"),
        (LEFT, "fd01::2"),
        (RIGHT, "10.0.0.2"),
        (RIGHT, "fd00::2"),
    ] {
        let before = router.forwarded();
        let text = ping::answered(5, &[], address, |program| router.run(from, program));
        // The hop limit is one less, in both directions.
        assert_eq!(text.matches("ttl=63").count(), 5, "{text}");
        assert_eq!(router.forwarded(), before.map(|count| count + 5));
    }
}

fn hop_limit_runs_out(router: &Router) {
    for (address, us, told) in [
        ("10.1.0.2", "10.0.0.1", "Time to live exceeded"),
        ("fd01::2", "fd00::1", "Time exceeded: Hop limit"),
    ] {
        let (_, text) = router.try_run(LEFT, &ping::program(&["-c", "2", "-t", "1"], address));
        assert!(text.contains(told), "{text}");
        assert!(
            text.to_ascii_lowercase().contains(&format!("from {us}")),
            "{text}"
        );
        assert!(text.contains("0 received"), "{text}");
        // Two hops are enough.
        router.ping(1, &["-t", "2"], address);
    }
    assert_eq!(router.system.stat("tun0", "drop.ttl_exceeded"), 4);
    assert_eq!(router.forwarded(), [2, 2]);
}

fn nothing_when_off(router: &Router) {
    router.set("ip/forwarding", "0");
    for address in ["10.1.0.2", "fd01::2"] {
        let (_, text) = router.try_run(LEFT, &["ping", "-c", "2", "-i", "0.1", "-W", "1", address]);
        assert!(text.contains("0 received"), "{text}");
    }
    // They may come late.
    let dropped = || router.system.stat("tun0", "drop.not_for_us");
    until("each is dropped", || dropped() >= 4);
    assert_eq!(dropped(), 4);
    assert_eq!(router.forwarded(), [0, 0]);
    // Our own addresses are still reachable.
    for address in ["10.0.0.1", "10.1.0.1", "fd01::1"] {
        router.ping(1, &[], address);
    }
}

fn no_route_is_told(router: &Router) {
    for (address, us, told) in [
        ("10.9.0.2", "10.0.0.1", "Destination Net Unreachable"),
        ("fd09::2", "fd00::1", "Destination unreachable: No route"),
    ] {
        let (_, text) = router.try_run(LEFT, &ping::program(&["-c", "2", "-i", "0.1"], address));
        assert!(text.contains(told), "{text}");
        assert!(
            text.to_ascii_lowercase().contains(&format!("from {us}")),
            "{text}"
        );
    }
    assert_eq!(router.system.stat("tun0", "drop.no_route"), 4);
    assert_eq!(router.forwarded(), [0, 0]);
}

fn an_interface_down_is_told(router: &Router) {
    router.set("ifaces/tun1/flags", "down");
    let (_, text) = router.try_run(LEFT, &ping::program(&["-c", "1"], "10.1.0.2"));
    assert!(text.contains("Unreachable"), "{text}");
    assert_eq!(router.system.stat("tun0", "drop.net_down"), 1);
    router.set("ifaces/tun1/flags", "up");
    router.ping(1, &[], "10.1.0.2");
}

fn too_big(router: &Router, mtu: u16) {
    router.set("ifaces/tun1/mtu", &mtu.to_string());
    // The largest packet that fits, and one byte more.
    for (address, headers, told) in [
        (
            "10.1.0.2",
            28,
            format!("Frag needed and DF set (mtu = {mtu})"),
        ),
        ("fd01::2", 48, format!("Packet too big: mtu={mtu}")),
    ] {
        let size = |packet: u16| (packet - headers).to_string();
        router.ping(1, &["-M", "do", "-s", &size(mtu)], address);
        let before = router.forwarded();
        let too_big = size(mtu + 1);
        let args = ping::program(&["-M", "do", "-c", "1", "-s", &too_big], address);
        let (_, text) = router.try_run(LEFT, &args);
        assert!(text.contains(&told), "{text}");
        assert_eq!(router.forwarded(), before);
        // The kernel believed it.
        let text = router.run(LEFT, &["ip", "route", "get", address]);
        assert!(text.contains(&format!("mtu {mtu}")), "{text}");
    }
    assert_eq!(router.system.stat("tun0", "drop.too_big"), 2);
}

fn fragments_on_the_way(router: &Router) {
    router.set("ifaces/tun1/mtu", "1280");
    let capture = router.capture("tun1");
    // Packets that arrive whole, and packets in fragments that do not fit either.
    for size in ["1400", "4000", "20000"] {
        router.ping(3, &["-M", "dont", "-s", size], "10.1.0.2");
    }
    let sent = capture.packets();
    let sent = sent
        .iter()
        .filter(|packet| packet[0] >> 4 == 4 && packet[19] == 2 && packet[17] == 1);
    let (mut whole, mut first) = (0, 0);
    for packet in sent {
        assert!(packet.len() <= 1280, "{} bytes on tun1", packet.len());
        common::packet::payload_v4(packet);
        let word = u16::from_be_bytes([packet[6], packet[7]]);
        whole += u32::from(word & 0x3fff == 0);
        first += u32::from(word & 0x3fff == 0x2000);
    }
    assert_eq!((whole, first), (0, 9));
    // IPv6 leaves fragmentation to the sender, which learns the mtu.
    let args = ping::program(&["-c", "1", "-s", "4000"], "fd01::2");
    let (_, text) = router.try_run(LEFT, &args);
    assert!(text.contains("Packet too big: mtu=1280"), "{text}");
    router.ping(3, &["-s", "4000"], "fd01::2");
}

/// Fetches a large file over both families; every byte must be right.
fn fetch(router: &Router) {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = fastrand::Rng::with_seed(9);
    let data: Vec<u8> = std::iter::repeat_with(|| rng.u8(..))
        .take(8 << 20)
        .collect();
    std::fs::write(dir.path().join("data"), &data).unwrap();
    let path = dir.path().to_str().unwrap();
    let program = [
        "python3",
        "-m",
        "http.server",
        "-b",
        "::",
        "-d",
        path,
        "8000",
    ];
    let _server = router.serve(&program, 8000);
    for host in ["10.1.0.2", "[fd01::2]"] {
        let url = format!("http://{host}:8000/data");
        let (output, _) = router.try_run(LEFT, &["curl", "-gsSf", &url]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{url}: {errors}");
        assert!(output.stdout == data, "{url}: {}", output.stdout.len());
        // An upload: the server refuses it, after it has arrived.
        let upload = dir.path().join("data");
        let upload = format!("@{}", upload.to_str().unwrap());
        let args = ["curl", "-gs", "-o", "/dev/null", "-w", "%{size_upload}"];
        let tail = ["-H", "Expect:", "--data-binary", &upload, &url];
        router.try_run(LEFT, &[&args[..], &tail].concat());
    }
}

fn http_across(router: &Router) {
    fetch(router);
    let [left, right] = router.forwarded();
    assert!(
        left > 1000 && right > 2 * (8 << 20) / 1460,
        "{left} {right}"
    );
}

/// The segment sizes that SYNs of both families carry past an interface, before its ring is full.
fn segment_sizes(router: &Router, interface: &str) -> Vec<(bool, u16)> {
    let _server = router.serve(&["python3", "-m", "http.server", "-b", "::", "8000"], 8000);
    let capture = router.capture(interface);
    for host in ["10.1.0.2", "[fd01::2]"] {
        router.run(LEFT, &["curl", "-gsI", &format!("http://{host}:8000/")]);
    }
    capture.segment_sizes()
}

fn http_over_a_narrow_link(router: &Router) {
    router.set("ifaces/tun1/mtu", "1280");
    let sizes = segment_sizes(router, "tun1");
    let asked = sizes.iter().filter(|(answer, _)| !answer);
    assert_eq!(
        asked.map(|&(_, size)| size).collect::<Vec<_>>(),
        [1240, 1220]
    );
    fetch(router);
}

/// The way back is as narrow, so the segment size in the answer to a SYN must fit it too.
fn answers_are_clamped(router: &Router) {
    router.set("ifaces/tun1/mtu", "1280");
    let sizes = segment_sizes(router, "tun0");
    let answers = sizes.iter().filter(|(answer, _)| *answer);
    assert_eq!(
        answers.map(|&(_, size)| size).collect::<Vec<_>>(),
        [1240, 1220]
    );
}

/// Runs iperf3 against a new server; returns its report.
fn iperf3(router: &Router, args: &[&str]) -> serde_json::Value {
    let _server = router.serve(&["iperf3", "-s", "-1"], 5201);
    let text = router.run(LEFT, &[&["iperf3", "-J"][..], args].concat());
    serde_json::from_str(&text).unwrap()
}

fn iperf3_tcp(router: &Router) {
    // Of 8 MiB; the server stops counting while the last of them are under way.
    const MOST: u64 = 2 << 20;

    for host in ["10.1.0.2", "fd01::2"] {
        for reverse in [&[][..], &["-R"]] {
            let report = iperf3(router, &[&["-c", host, "-n", "8M"][..], reverse].concat());
            let received = &report["end"]["sum_received"];
            let bytes = received["bytes"].as_u64().unwrap();
            eprintln!(
                "{host} {reverse:?}: {:.0} Mbit/s",
                received["bits_per_second"].as_f64().unwrap() / 1e6
            );
            assert!(bytes >= MOST, "{report}");
        }
    }
}

fn iperf3_udp(router: &Router) {
    // At a low rate nothing is lost.
    let args = ["-u", "-c", "10.1.0.2", "-t", "1", "-l", "1000", "-b"];
    let report = iperf3(router, &[&args[..], &["1M"]].concat());
    assert_eq!(report["end"]["sum"]["lost_packets"], 0, "{}", report["end"]);
    // At full speed, every lost packet is counted somewhere.
    let report = iperf3(router, &[&args[..], &["0"]].concat());
    let sum = &report["end"]["sum"];
    let (lost, sent) = (sum["lost_packets"].as_u64(), sum["packets"].as_u64());
    let (lost, sent) = (lost.unwrap(), sent.unwrap());
    let ours: u64 = [("tun0", "drop.netisr_full"), ("tun1", "drop.queue_full")]
        .map(|(interface, reason)| router.system.stat(interface, reason))
        .iter()
        .sum();
    let counter = |side: usize, name: &str| -> u64 {
        let path = format!("/sys/class/net/peer0/statistics/{name}");
        let text = router.run(side, &["cat", &path]);
        text.trim().parse().unwrap()
    };
    let kernels = counter(LEFT, "tx_dropped") + counter(RIGHT, "rx_dropped");
    // The counters of the receiver's socket.
    let snmp = router.run(RIGHT, &["cat", "/proc/net/snmp"]);
    let udp = snmp.lines().rfind(|line| line.starts_with("Udp: "));
    let socket: u64 = udp.unwrap().split(' ').nth(5).unwrap().parse().unwrap();
    eprintln!("{lost} of {sent} lost; dropped by us {ours}, tun {kernels}, socket {socket}");
    assert!(lost <= ours + kernels + socket, "loss that nobody counted");
    // The ledger has each of them.
    let [forwarded, _] = router.forwarded();
    let offered = router.ledger("tun1", "out.offered");
    assert!(offered >= forwarded, "{offered} {forwarded}");
}

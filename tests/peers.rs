//! The Linux kernel as peer: a network namespace with a tun device of the kernel, bridged to ours.
//!
//! The kernel's ping, UDP and several hundred TCP connections reach the stack, and every byte is
//! checked. Needs root, FUSE and /dev/net/tun; skipped by name elsewhere.

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use common::needs::Missing;
use common::ping;
use common::system::{MountSystem, System};

/// The time limit of any step.
const PATIENCE: Duration = Duration::from_secs(60);

type Test = fn(&Bridge);

fn missing() -> Option<Missing> {
    Missing::mount()
        .or_else(Missing::kernel_tun)
        .or_else(|| Missing::program(&["ip", "ping", "python3"]))
}

fn main() {
    let mut args = Arguments::from_args();
    args.test_threads = Some(1);
    let tests: [(&str, Test); 5] = [
        ("kernel_ping", kernel_ping),
        ("kernel_ping_fragmented", kernel_ping_fragmented),
        ("our_ping", our_ping),
        ("udp_every_byte", udp_every_byte),
        (
            "tcp_several_hundred_connections",
            tcp_several_hundred_connections,
        ),
    ];
    let trials = tests.map(|(name, test)| {
        Trial::ignorable_test(name, move || -> Result<Completion, Failed> {
            if let Some(missing) = missing() {
                return missing.completion();
            }
            let bridge = Bridge::new(name);
            test(&bridge);
            bridge.system.assert_ledger_closes("tun0");
            Ok(Completion::Completed)
        })
    });
    libtest_mimic::run(&args, trials.into()).exit();
}

/// Our stack on one side, the kernel's in a namespace of its own on the other.
struct Bridge {
    system: MountSystem,
    namespace: String,
    pump: Child,
}

impl Bridge {
    fn new(name: &str) -> Self {
        let system = MountSystem::new();
        let namespace = format!("tund-{}-{}", std::process::id(), name.len());
        ip(&["netns", "add", &namespace]);
        let mut pump = Command::new("ip")
            .args([
                "netns",
                "exec",
                &namespace,
                env!("CARGO_BIN_EXE_tunctl"),
                "--root",
            ])
            .arg(system.dir())
            .args(["bridge", "0", "peer0"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(pump.stderr.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert!(line.contains("Pumping"), "tunctl bridge said {line:?}");
        for address in ["10.0.0.2/24", "fd00::2/64"] {
            let nodad = address.contains(":").then_some("nodad");
            let args = ["-n", &namespace, "addr", "add", address, "dev", "peer0"];
            ip(&args.into_iter().chain(nodad).collect::<Vec<_>>());
        }
        ip(&["-n", &namespace, "link", "set", "peer0", "up"]);
        system
            .set("netcfg/ifaces/tun0/addr/set", "10.0.0.1/24\n")
            .unwrap();
        system
            .set("netcfg/ifaces/tun0/addr/add", "fd00::1/64\n")
            .unwrap();
        Self {
            system,
            namespace,
            pump,
        }
    }

    /// Runs a program of the kernel's side; returns what it printed.
    fn run(&self, program: &[&str]) -> String {
        let patience = PATIENCE.as_secs().to_string();
        let output = Command::new("ip")
            .args(["netns", "exec", &self.namespace, "timeout", &patience])
            .args(program)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{program:?}: {}\n{text}\n{errors}",
            output.status
        );
        text
    }

    fn python(&self, script: &str) {
        let output = self.run(&["python3", "-c", script]);
        assert!(output.contains("all good"), "{output}");
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // `ip netns exec` replaces itself with the program it runs, so this is our own child.
        let _ = self.pump.kill();
        let _ = self.pump.wait();
        ip(&["netns", "del", &self.namespace]);
    }
}

fn ip(args: &[&str]) {
    let status = Command::new("ip").args(args).status().unwrap();
    assert!(status.success(), "ip {args:?}");
}

fn kernel_ping(bridge: &Bridge) {
    for address in ["10.0.0.1", "fd00::1"] {
        ping::answered(10, &[], address, |program| bridge.run(program));
    }
}

fn kernel_ping_fragmented(bridge: &Bridge) {
    for address in ["10.0.0.1", "fd00::1"] {
        ping::answered(5, &["-s", "20000"], address, |program| bridge.run(program));
    }
    assert!(bridge.system.stat("tun0", "ipackets") >= 2 * 5 * 14);
}

fn our_ping(bridge: &Bridge) {
    for address in ["10.0.0.2", "fd00::2"] {
        let output = Command::new(env!("CARGO_BIN_EXE_tunctl"))
            .arg("--root")
            .arg(bridge.system.dir())
            .args([
                "--json", "ping", "-c", "5", "-i", "0.02", "-W", "30", "-s", "3000", address,
            ])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let summary: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(summary["received"], 5, "{text}");
    }
}

fn udp_every_byte(bridge: &Bridge) {
    bridge.python(
        r#"
import socket, os
for family, address in ((socket.AF_INET, "10.0.0.1"), (socket.AF_INET6, "fd00::1")):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.settimeout(10)
    s.connect((address, 7))
    for size in list(range(0, 200)) + [1471, 1472, 1473, 9000, 60000]:
        data = os.urandom(size)
        s.send(data)
        assert s.recv(65536) == data, (address, size)
    # Nobody there: the kernel hears of it.
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.settimeout(10)
    s.connect((address, 4))
    s.send(b"x")
    try:
        s.recv(10)
        raise SystemExit("port 4 answered")
    except ConnectionRefusedError:
        pass
print("all good")
"#,
    );
}

fn tcp_several_hundred_connections(bridge: &Bridge) {
    bridge.python(
        r#"
import socket, os, selectors, threading
N, SIZE = 400, 30000
address = {socket.AF_INET: "10.0.0.1", socket.AF_INET6: "fd00::1"}
sel = selectors.DefaultSelector()
flows = []
for n in range(N):
    family = socket.AF_INET6 if n % 2 else socket.AF_INET
    s = socket.create_connection((address[family], 7), timeout=20)
    s.setblocking(False)
    flow = dict(s=s, data=os.urandom(SIZE), sent=0, got=b"")
    sel.register(s, selectors.EVENT_READ | selectors.EVENT_WRITE, flow)
    flows.append(flow)
done = 0
while done < N:
    events = sel.select(20)
    assert events, "nothing moves"
    for key, mask in events:
        f = key.data
        if mask & selectors.EVENT_WRITE and f["sent"] < SIZE:
            f["sent"] += f["s"].send(f["data"][f["sent"]:f["sent"] + 8192])
            if f["sent"] == SIZE:
                f["s"].shutdown(socket.SHUT_WR)
                sel.modify(f["s"], selectors.EVENT_READ, f)
        if mask & selectors.EVENT_READ:
            piece = f["s"].recv(65536)
            if piece:
                f["got"] += piece
            else:
                assert f["got"] == f["data"], "bytes differ"
                sel.unregister(f["s"])
                f["s"].close()
                done += 1
# A closed port refuses, at once.
try:
    socket.create_connection(("10.0.0.1", 4), timeout=10)
    raise SystemExit("port 4 accepted")
except ConnectionRefusedError:
    pass
# The others: one swallows, one never ends.
s = socket.create_connection(("fd00::1", 9), timeout=20)
s.sendall(b"x" * 1000000)
s.close()
s = socket.create_connection(("10.0.0.1", 19), timeout=20)
text = b""
while len(text) < 74 * 95 * 3:
    text += s.recv(65536)
lines = text.split(b"\r\n")
for number, line in enumerate(lines[:-1]):
    assert line == bytes(32 + (number + at) % 95 for at in range(72)), (number, line)
s.close()
print("all good")
"#,
    );
}

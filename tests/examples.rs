//! The client library's examples, each run against a mount, as a reader would run it.
//!
//! Needs root and FUSE; skipped by name elsewhere. `cargo test --workspace` builds the examples.

mod common;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use common::system::{MountSystem, System};

/// The time limit of any step.
const LIMIT: Duration = Duration::from_secs(30);

type Test = fn(&MountSystem);

fn main() {
    let mut args = Arguments::from_args();
    args.test_threads = Some(1);
    let tests: [(&str, Test); 4] = [
        ("echo", echo_answers_pings),
        ("batch", batch_returns_datagrams),
        ("watch", watch_tells_of_changes),
        ("tunnel", tunnel_joins_two_networks),
    ];
    let trials = tests.map(|(name, test)| {
        Trial::ignorable_test(name, move || -> Result<Completion, Failed> {
            if let Some(reason) = MountSystem::missing() {
                return Ok(Completion::ignored_with(reason));
            }
            if !program(name).exists() {
                let reason = "not built: cargo build -p tun-client --examples";
                return Ok(Completion::ignored_with(reason));
            }
            test(&MountSystem::new());
            Ok(Completion::Completed)
        })
    });
    libtest_mimic::run(&args, trials.into()).exit();
}

/// The path of an example: cargo puts it beside the programs.
fn program(name: &str) -> PathBuf {
    let tund = Path::new(env!("CARGO_BIN_EXE_tund"));
    tund.with_file_name("examples").join(name)
}

/// An example that runs until it is dropped.
struct Example {
    child: Child,
    lines: Receiver<String>,
}

impl Example {
    fn start(name: &str, system: &MountSystem, args: &[&str]) -> Self {
        let mut child = Command::new(program(name))
            .arg(system.dir())
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (tell, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            // Ends with the example, or when the receiver is gone.
            let _ = stdout
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| tell.send(line));
        });
        Self { child, lines }
    }

    /// The next line that it prints.
    fn line(&self) -> String {
        self.lines.recv_timeout(LIMIT).expect("a line in time")
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn echo_answers_pings(system: &MountSystem) {
    let echo = Example::start("echo", system, &[]);
    assert_eq!(echo.line(), "tun0: ping 10.9.0.2 or fd09::2");
    for address in ["10.9.0.2", "10.9.0.254", "fd09::2"] {
        for size in ["16", "57", "1400"] {
            let ping = Command::new(env!("CARGO_BIN_EXE_tunctl"))
                .arg("--root")
                .arg(system.dir())
                .args([
                    "--json", "ping", "-c", "5", "-i", "0.02", "-W", "30", "-s", size,
                ])
                .arg(address)
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&ping.stdout);
            let summary: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(summary["received"], 5, "{address}, {size} bytes: {text}");
        }
    }
    system.assert_ledger_closes("tun0");
}

fn batch_returns_datagrams(system: &MountSystem) {
    const DATAGRAMS: usize = 100;

    let batch = Example::start("batch", system, &[]);
    assert_eq!(batch.line(), "tun0: send datagrams to 10.8.0.2");
    let socket = system.open_rw("udp/10.8.0.2:7777");
    let datagram = |number: usize| format!("datagram {number}{}", ".".repeat(number));
    for number in 0..DATAGRAMS {
        let text = datagram(number);
        assert_eq!(system.write(socket, text.as_bytes()), Ok(text.len()));
    }
    let mut buf = [0; 2048];
    for number in 0..DATAGRAMS {
        assert_eq!(system.poll(socket, LIMIT).map(|(read, _)| read), Ok(true));
        let len = system.read(socket, &mut buf).unwrap();
        assert_eq!(buf[..len], *datagram(number).as_bytes());
    }
    // Every one of the packets was in a batch.
    let mut counted = 0;
    while counted < DATAGRAMS {
        let line = batch.line();
        let count = line.strip_suffix(" in one read").unwrap();
        counted += count.parse::<usize>().unwrap();
    }
    assert_eq!(counted, DATAGRAMS);
    system.assert_ledger_closes("tun0");
}

/// A port of this machine's loopback that nobody has at present.
fn free_port() -> u16 {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

fn tunnel_joins_two_networks(here: &MountSystem) {
    let there = MountSystem::new();
    let routes = |system: &MountSystem| system.text("netcfg/route/list");
    let before = routes(here);
    let [one, two] = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
    let first = Example::start("tunnel", here, &[&one, &two, "10.7.0.1/24", "10.8.0.0/16"]);
    let second = Example::start("tunnel", &there, &[&two, &one, "10.7.0.2/24"]);
    assert!(first.line().starts_with("tun0: 10.7.0.1/24"));
    assert!(second.line().starts_with("tun0: 10.7.0.2/24"));
    assert!(routes(here).contains("10.8.0.0/16 dev tun0"));
    let ping = Command::new(env!("CARGO_BIN_EXE_tunctl"))
        .arg("--root")
        .arg(here.dir())
        .args([
            "--json", "ping", "-c", "5", "-i", "0.02", "-W", "30", "-s", "1400",
        ])
        .arg("10.7.0.2")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&ping.stdout);
    let summary: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(summary["received"], 5, "{text}");
    // Killed, as it is at the end of this, it leaves nothing.
    drop(first);
    let end = std::time::Instant::now() + LIMIT;
    while here.dir().join("netcfg/ifaces/tun0").exists() {
        assert!(std::time::Instant::now() < end, "the interface stays");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(routes(here), before);
}

fn watch_tells_of_changes(system: &MountSystem) {
    const FLAGS: &str = "netcfg/ifaces/tun0/flags";

    let tun = system.open_rw("tun/0");
    let watch = Example::start("watch", system, &["ifaces/tun0/flags"]);
    let now = || system.text(FLAGS).trim_end().to_owned();
    assert_eq!(watch.line(), now());
    for flag in ["up\n", "down\n"] {
        let before = now();
        system.set(FLAGS, flag).unwrap();
        assert_ne!(now(), before);
        assert_eq!(watch.line(), now());
    }
    // Another setting has changed, so there is nothing to report.
    system.set("netcfg/ifaces/tun0/mtu", "1400\n").unwrap();
    let more = watch.lines.recv_timeout(Duration::from_millis(300));
    assert!(more.is_err(), "{more:?}");
    system.close(tun).unwrap();
}

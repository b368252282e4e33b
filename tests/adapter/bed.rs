//! Two network namespaces with a veth between them: the daemon drives `a0` in one, and the kernel's
//! own network has `b0` in the other.

use std::cell::RefCell;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::common::needs::Missing;
use crate::common::ping;
use crate::common::system::{MountSystem, System};
use crate::common::wait::{PATIENCE, until};

/// The reason why a test that needs these programs cannot run here.
pub(crate) fn missing(programs: &[&str]) -> Option<Missing> {
    Missing::mount()
        .or_else(|| Missing::program(&["ip"]))
        .or_else(|| no_link("veth"))
        .or_else(|| match programs.contains(&"bridge") {
            true => no_link("bridge"),
            false => None,
        })
        .or_else(|| Missing::program(&["ping", "nsenter"]))
        .or_else(|| Missing::program(programs))
}

fn no_link(kind: &str) -> Option<Missing> {
    let reason = || Missing::System(format!("no network namespaces, or no {kind}"));
    (!Namespace::can_have(kind)).then(reason)
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

/// Runs `ip`, which must succeed.
fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {args:?}: {errors}");
}

/// A network namespace, which goes with this.
struct Namespace(String);

impl Namespace {
    /// Whether there can be one, with a link of this kind.
    fn can_have(kind: &str) -> bool {
        let name = format!("tund-{}-try", std::process::id());
        let ip = |args: &[&str]| {
            let output = Command::new("ip").args(args).output();
            output.is_ok_and(|output| output.status.success())
        };
        let made = ip(&["netns", "add", &name]);
        let link = made && ip(&["-n", &name, "link", "add", "a0", "type", kind]);
        let _ = made && ip(&["netns", "del", &name]);
        link
    }

    fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("tund-{}-{number}", std::process::id());
        ip(&["netns", "add", &name]);
        let namespace = Self(name);
        ip(&["-n", &namespace.0, "link", "set", "lo", "up"]);
        for file in ["all/forwarding", "default/forwarding"] {
            namespace.kernel_file(&format!("net/ipv6/conf/{file}"), "1");
        }
        // Its addresses are not asked for, and so there at once.
        for file in ["all/accept_dad", "default/accept_dad"] {
            namespace.kernel_file(&format!("net/ipv6/conf/{file}"), "0");
        }
        namespace
    }

    /// A command inside, whose mounts are ours. It becomes the program.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.0))
            .arg(program);
        command
    }

    fn kernel_file(&self, path: &str, value: &str) {
        let script = format!("echo {value} > /proc/sys/{path}");
        let status = self.command("sh").args(["-c", &script]).status().unwrap();
        assert!(status.success(), "{path}");
    }

    fn start(&self, program: &[&str]) -> Server {
        let mut command = self.command(program[0]);
        command
            .args(&program[1..])
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        Server(command.spawn().unwrap())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// A program that runs until this is dropped.
pub(crate) struct Server(Child);

impl Server {
    /// Has it say good-bye.
    pub(crate) fn stop(mut self) {
        // SAFETY: a signal to our own child, which is not reaped yet.
        unsafe { libc::kill(self.0.id() as i32, libc::SIGTERM) };
        let _ = self.0.wait();
    }

    /// What it has printed when it has ended.
    pub(crate) fn line(mut self) -> String {
        let mut text = String::new();
        if let Some(output) = self.0.stdout.take() {
            let _ = BufReader::new(output).read_line(&mut text);
        }
        text
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A link in a namespace.
pub(crate) struct Link<'a>(&'a Namespace, &'static str);

impl Link<'_> {
    /// Changes it, as `ip link set` does.
    pub(crate) fn set(&self, what: &[&str]) {
        ip(&[&["-n", &self.0.0, "link", "set", "dev", self.1], what].concat());
    }

    pub(crate) fn delete(&self) {
        ip(&["-n", &self.0.0, "link", "del", "dev", self.1]);
    }

    fn link_local(&self) -> String {
        let address = || {
            let show = ["-o", "-6", "addr", "show", "dev", self.1, "scope", "link"];
            let output = Command::new("ip")
                .args(["-n", &self.0.0])
                .args(show)
                .output();
            let text = String::from_utf8(output.unwrap().stdout).unwrap();
            let mut words = text.split([' ', '/']);
            words
                .find(|word| word.starts_with("fe80"))
                .map(str::to_owned)
        };
        until("the kernel has a link-local address", || {
            address().is_some()
        });
        address().unwrap()
    }
}

/// Another station on the link, which the kernel's end carries.
pub(crate) struct Station {
    namespace: Namespace,
    directory: tempfile::TempDir,
}

impl Station {
    pub(crate) fn radvd(&self, interface: &str) -> Server {
        radvd(&self.namespace, &self.directory, "c0", interface)
    }

    pub(crate) fn link_local(&self) -> String {
        Link(&self.namespace, "c0").link_local()
    }
}

fn radvd(
    namespace: &Namespace,
    directory: &tempfile::TempDir,
    link: &str,
    interface: &str,
) -> Server {
    let (config, pid) = (
        directory.path().join("radvd.conf"),
        directory.path().join("radvd.pid"),
    );
    let text = format!(
        "interface {link} {{ AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4;
         {interface} }};"
    );
    std::fs::write(&config, text).unwrap();
    let _ = std::fs::remove_file(&pid);
    let (config, pid) = (config.to_str().unwrap(), pid.to_str().unwrap());
    namespace.start(&[
        "radvd",
        "--nodaemon",
        "-C",
        config,
        "-p",
        pid,
        "-m",
        "stderr",
    ])
}

/// We have 10.0.0.1 and fd00::1, the kernel 10.0.0.2 and fd00::2.
pub(crate) struct Bed {
    pub(crate) system: MountSystem,
    ours: Namespace,
    peers: Namespace,
    directory: tempfile::TempDir,
}

impl Bed {
    pub(crate) fn new() -> Self {
        let (ours, peers) = (Namespace::new(), Namespace::new());
        make_links(&ours, &peers);
        let directory = tempfile::tempdir().unwrap();
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let mut daemon = ours.command(env!("CARGO_BIN_EXE_tund"));
        daemon.args(["--adapter", "a0"]).stderr(log);
        let bed = Self {
            system: MountSystem::started(daemon),
            ours,
            peers,
            directory,
        };
        bed.set("ifaces/eth0/addr/set", "10.0.0.1/24");
        bed.set("ifaces/eth0/addr/add", "fd00::1/64");
        until("there is a link-local address", || {
            bed.has("ifaces/eth0/addr/list", "fe80")
        });
        bed
    }

    /// Makes the veth, after it was deleted.
    pub(crate) fn make_links(&self) {
        make_links(&self.ours, &self.peers);
    }

    pub(crate) fn set(&self, path: &str, line: &str) {
        let path = format!("netcfg/{path}");
        let result = self.system.set(&path, &format!("{line}\n"));
        assert_eq!(result, Ok(()), "{path}: {line}");
    }

    pub(crate) fn text(&self, path: &str) -> String {
        if path == "ifaces" {
            let entries = std::fs::read_dir(self.system.dir().join("netcfg/ifaces")).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            return names.collect::<Vec<_>>().join("\n");
        }
        self.system.text(&format!("netcfg/{path}"))
    }

    /// Whether a text contains this.
    pub(crate) fn has(&self, path: &str, what: &str) -> bool {
        self.text(path).contains(what)
    }

    pub(crate) fn drops(&self, reason: &str) -> u64 {
        self.system.stat("eth0", &format!("drop.{reason}"))
    }

    pub(crate) fn is_running(&self) -> bool {
        self.has("ifaces/eth0/flags", "RUNNING")
    }

    /// Our hardware address, as Linux writes it.
    pub(crate) fn mac(&self) -> String {
        self.text("ifaces/eth0/mac")
            .trim()
            .replace('-', ":")
            .to_lowercase()
    }

    pub(crate) fn link_local(&self) -> String {
        let text = self.text("ifaces/eth0/addr/list");
        let addr = text.lines().find(|line| line.starts_with("fe80"));
        let addr = addr.and_then(|line| line.split('/').next());
        addr.unwrap_or_else(|| panic!("no link-local address: {text}"))
            .to_owned()
    }

    pub(crate) fn peers_link_local(&self) -> String {
        self.peers_link().link_local()
    }

    pub(crate) fn our_link(&self) -> Link<'_> {
        Link(&self.ours, "a0")
    }

    pub(crate) fn peers_link(&self) -> Link<'_> {
        Link(&self.peers, "b0")
    }

    /// Makes a change of the link, and waits until the interface was stopped and runs again.
    pub(crate) fn until_found_anew(&self, change: impl FnOnce()) {
        let events = self.events();
        change();
        until("it is found anew", || events.told("running\n"));
    }

    /// The interface's events from now on.
    pub(crate) fn events(&self) -> Events<'_> {
        let fd = self.system.open("netcfg/ifaces/eth0/events", true, false);
        let fd = fd.unwrap();
        self.system.set_nonblocking(fd).unwrap();
        Events(&self.system, fd, RefCell::default())
    }

    /// What the daemon has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    /// The kernel's end first where it has to carry more.
    pub(crate) fn links_mtu(&self, mtu: &str) {
        self.peers_link().set(&["mtu", mtu]);
        self.our_link().set(&["mtu", mtu]);
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// A program in the namespace of our link.
    pub(crate) fn our_namespace(&self, program: &str) -> Command {
        self.ours.command(program)
    }

    /// Writes a file below `/proc/sys` of the kernel's side.
    pub(crate) fn kernel_file(&self, path: &str, value: &str) {
        self.peers.kernel_file(path, value);
    }

    /// Runs a program of the kernel's side: its status, and what it printed.
    pub(crate) fn try_run(&self, program: &[&str]) -> (Option<i32>, String) {
        run(&self.peers, program)
    }

    /// Runs a program of the kernel's side, which must succeed.
    pub(crate) fn run(&self, program: &[&str]) -> String {
        let (status, text) = self.try_run(program);
        assert_eq!(status, Some(0), "{program:?}: {text}");
        text
    }

    /// Runs a script of the kernel's side, which says at its end that all is good.
    pub(crate) fn python(&self, script: &str) {
        let (_, text) = self.try_run(&["python3", "-c", script]);
        assert!(text.contains("all good"), "{text}");
    }

    /// Starts a program of the kernel's side.
    pub(crate) fn start(&self, program: &[&str]) -> Server {
        self.peers.start(program)
    }

    /// Starts a script of the kernel's side, and waits until it prints a first line.
    pub(crate) fn start_python(&self, script: &str) -> Server {
        let mut server = self.start(&["python3", "-c", script]);
        let mut byte = [0];
        let output = server.0.stdout.as_mut().unwrap();
        // No more than that line: the next one is for the test.
        while byte != *b"\n" {
            std::io::Read::read_exact(output, &mut byte).unwrap();
        }
        server
    }

    /// Starts a script of the kernel's side that watches the link. `frames()` are those that we send,
    /// whole and in order.
    pub(crate) fn watch(&self, script: &str) -> Server {
        let ours = self.mac().replace(':', "");
        self.start_python(&format!(
            r#"
import socket
ours = bytes.fromhex("{ours}")
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(("b0", 0))
s.settimeout(30)
print("ready", flush=True)
def frames():
    while True:
        frame = s.recv(70000)
        if frame[6:12] == ours:
            yield frame
{script}
"#
        ))
    }

    /// A router on the kernel's side. It is killed when this is dropped.
    pub(crate) fn radvd(&self, interface: &str) -> Server {
        // Its first advertisement should come from an address that it has.
        self.peers_link_local();
        radvd(&self.peers, &self.directory, "b0", interface)
    }

    pub(crate) fn another_station(&self) -> Station {
        let namespace = Namespace::new();
        let link = [
            "link",
            "add",
            "c0",
            "link",
            "b0",
            "netns",
            &namespace.0,
            "type",
            "macvlan",
        ];
        ip(&[&["-n", &self.peers.0][..], &link].concat());
        ip(&["-n", &namespace.0, "link", "set", "c0", "up"]);
        let station = Station {
            namespace,
            directory: tempfile::tempdir().unwrap(),
        };
        station.link_local();
        station
    }

    /// A station behind us, for which we forward.
    pub(crate) fn behind(&self) -> Behind {
        let namespace = Namespace::new();
        let root = self.system.dir().to_str().unwrap();
        let tunctl = env!("CARGO_BIN_EXE_tunctl");
        let pump = namespace.start(&[tunctl, "--root", root, "bridge", "0", "peer0"]);
        let show = ["-n", &namespace.0, "link", "show", "peer0"];
        until("its device is there", || {
            let output = Command::new("ip").args(show).output().unwrap();
            output.status.success() && self.has("ifaces", "tun0")
        });
        self.set("ifaces/tun0/addr/set", "10.9.0.1/24");
        self.set("ifaces/tun0/addr/add", "fd09::1/64");
        self.set("ip/forwarding", "1");
        let theirs = |line: &str| ip(&[&["-n", &namespace.0], &words(line)[..]].concat());
        theirs("addr add 10.9.0.2/24 dev peer0");
        theirs("addr add fd09::2/64 dev peer0 nodad");
        theirs("link set peer0 up");
        theirs("route add default via 10.9.0.1");
        theirs("-6 route add default via fd09::1");
        let peers = |line: &str| ip(&[&["-n", &self.peers.0], &words(line)[..]].concat());
        peers("route add 10.9.0.0/24 via 10.0.0.1");
        peers("-6 route add fd09::/64 via fd00::1");
        Behind {
            _pump: pump,
            namespace,
        }
    }

    /// The kernel pings us.
    pub(crate) fn kernel_ping(&self, address: &str, size: &str) {
        ping::answered(3, &["-s", size], address, |program| self.run(program));
    }

    /// We ping the kernel.
    pub(crate) fn ping(&self, address: &str, size: &str) {
        let output = Command::new(env!("CARGO_BIN_EXE_tunctl"))
            .arg("--root")
            .arg(self.system.dir())
            .args([
                "--json", "ping", "-c", "3", "-i", "0.02", "-W", "20", "-s", size, address,
            ])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        let summary: serde_json::Value = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{address}: {error}: {text}{errors}"));
        assert_eq!(
            summary["received"], 3,
            "{address}, {size} bytes: {text}{errors}"
        );
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// Events of an interface.
pub(crate) struct Events<'a>(&'a MountSystem, i32, RefCell<Vec<u8>>);

impl Events<'_> {
    /// Whether this was told by now.
    pub(crate) fn told(&self, what: &str) -> bool {
        let mut buf = [0; 4096];
        let mut told = self.2.borrow_mut();
        while let Ok(len @ 1..) = self.0.read(self.1, &mut buf) {
            told.extend_from_slice(&buf[..len]);
        }
        String::from_utf8_lossy(&told).contains(what)
    }
}

impl Drop for Events<'_> {
    fn drop(&mut self) {
        let _ = self.0.close(self.1);
    }
}

/// A station behind us: the kernel's network in a namespace of its own, on a tun device of ours. It
/// has 10.9.0.2 and fd09::2.
pub(crate) struct Behind {
    // Fields are dropped in this order.
    _pump: Server,
    namespace: Namespace,
}

impl Behind {
    /// Runs a program there: its status, and what it printed.
    pub(crate) fn run(&self, program: &[&str]) -> (Option<i32>, String) {
        run(&self.namespace, program)
    }
}

/// Runs a program, with a limit: its status, and what it printed.
fn run(namespace: &Namespace, program: &[&str]) -> (Option<i32>, String) {
    let patience = PATIENCE.as_secs().to_string();
    let mut command = namespace.command("timeout");
    let output = command.arg(patience).args(program).output().unwrap();
    let texts = [&output.stdout[..], b"\n", &output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&texts).into_owned(),
    )
}

fn make_links(ours: &Namespace, peers: &Namespace) {
    let a0 = ["-n", &ours.0, "link", "add", "a0", "type", "veth"];
    ip(&[&a0[..], &["peer", "name", "b0", "netns", &peers.0]].concat());
    // What docs/adapter.md tells to do.
    ours.kernel_file("net/ipv6/conf/a0/disable_ipv6", "1");
    ip(&["-n", &ours.0, "link", "set", "a0", "up"]);
    ip(&["-n", &peers.0, "addr", "add", "10.0.0.2/24", "dev", "b0"]);
    ip(&[
        "-n",
        &peers.0,
        "addr",
        "add",
        "fd00::2/64",
        "dev",
        "b0",
        "nodad",
    ]);
    ip(&["-n", &peers.0, "link", "set", "b0", "up"]);
}

//! What survives the daemon: a host that begins with the state of another has everything that was
//! set there, and nothing else.
#![allow(missing_docs)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::program;
use common::system::TestProcesses;
use net::link::Mac;
use net::{Config, Host, MAX_STATE};
use scheme::local::{Fd, Local, ManualClock, Process};
use scheme::{FileServer, OpenFlags, errno};

const BOTH: OpenFlags = OpenFlags::READ.union(OpenFlags::WRITE);
const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

const TUNSIFINFO: u32 = 0x8008_745b;
const TUNGIFINFO: u32 = 0x4008_745c;
const TUNSLMODE: u32 = 0x8004_745d;
const TUNSIFMODE: u32 = 0x8004_745e;
const TUNSIFHEAD: u32 = 0x8004_7460;
const TUNGIFHEAD: u32 = 0x4004_7461;
const TUNSTRANSIENT: u32 = 0x8004_7462;
const TUNSBATCH: u32 = 0x8004_7482;
const TUNGBATCH: u32 = 0x4004_7483;
const FIOASYNC: u32 = 0x8004_667d;

/// A host whose clock is set by hand.
struct Machine {
    local: Arc<Local<Host>>,
    process: Process<Host>,
    clock: Arc<ManualClock>,
}

impl Machine {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::default());
        let host = Host::new(Config::default(), TestProcesses);
        let local = Local::with_clock(host, Arc::clone(&clock));
        let process = local.process(1, 0);
        Self {
            local,
            process,
            clock,
        }
    }

    /// A host that begins with this state.
    fn after(state: &str) -> Self {
        let machine = Self::new();
        machine
            .local
            .with_server(|host| host.restore(state.as_bytes()));
        machine.local.pump();
        machine
    }

    fn attach(&self) {
        let attached = self.local.with_server(|host| host.attach_ethernet(MAC));
        attached.expect("an adapter");
        self.local.pump();
    }

    fn wait(&self, millis: u64) {
        self.clock.advance(Duration::from_millis(millis));
        self.local.pump();
    }

    fn state(&self) -> Option<String> {
        self.local.with_server(FileServer::poll_state)
    }

    /// The state after a change that changes nothing.
    fn state_now(&self) -> String {
        self.put("ip/forwarding", &self.text("ip/forwarding"));
        self.state().expect("a state")
    }

    fn set(&self, path: &str, line: &str) -> Result<(), errno::Errno> {
        program::set(&self.process, path, line).map(drop)
    }

    #[track_caller]
    fn put(&self, path: &str, line: &str) {
        if let Err(error) = self.set(path, line) {
            panic!("{path}: {line}: {error}");
        }
    }

    #[track_caller]
    fn text(&self, path: &str) -> String {
        let path = format!("/scheme/netcfg/{path}");
        let file = self.process.open(&path, OpenFlags::READ).unwrap();
        let (mut text, mut buf) = (Vec::new(), [0; 4096]);
        while let len @ 1.. = self.process.read(file, &mut buf).unwrap() {
            text.extend_from_slice(&buf[..len]);
        }
        self.process.close(file).unwrap();
        String::from_utf8(text).unwrap()
    }

    fn exists(&self, path: &str) -> bool {
        let path = format!("/scheme/netcfg/{path}");
        let opened = self.process.open(&path, OpenFlags::READ);
        opened.map(|fd| self.process.close(fd).unwrap()).is_ok()
    }

    fn open(&self, unit: u16) -> Result<Fd, errno::Errno> {
        self.process.open(&format!("/scheme/tun/{unit}"), BOTH)
    }

    fn ioctl(&self, tun: Fd, request: u32, value: i32) -> Result<(), errno::Errno> {
        self.process.ioctl(tun, request, &mut value.to_ne_bytes())
    }

    fn get(&self, tun: Fd, request: u32) -> i32 {
        let mut value = [0; 4];
        self.process.ioctl(tun, request, &mut value).unwrap();
        i32::from_ne_bytes(value)
    }

    /// The text of every file of settings there is, without the routes over tunnels.
    fn settings(&self) -> String {
        let mut all = String::new();
        let mut add = |path: &str| {
            all += &format!("{path}:\n{}", self.text(path));
        };
        for path in ["resolv/nameserver", "ip/forwarding", "debug/if_tun_debug"] {
            add(path);
        }
        for name in ["lo0", "eth0", "tun0", "tun1", "tun2", "tun3"] {
            if self.exists(&format!("ifaces/{name}/mtu")) {
                for file in ["addr/list", "mtu", "flags", "multicast", "queue", "mac"] {
                    add(&format!("ifaces/{name}/{file}"));
                }
            }
        }
        let routes = self.text("route/list");
        let lasting = |route: &&str| !route.contains("dev tun");
        let routes: Vec<_> = routes.lines().filter(lasting).collect();
        all + &routes.join("\n")
    }
}

/// Ethernet with a lease, as dhcpd leaves it.
fn lease(machine: &Machine) {
    machine.put("ifaces/eth0/addr/set", "10.0.2.15/24\n");
    machine.put("route/add", "default via 10.0.2.2\n");
    machine.put("resolv/nameserver", "10.0.2.3\n");
}

#[test]
fn an_adapter_keeps_its_lease() {
    let old = Machine::new();
    old.attach();
    lease(&old);
    let state = old.state().expect("a state");
    let new = Machine::after(&state);
    assert_eq!(new.text("resolv/nameserver"), "10.0.2.3\n");
    assert!(!new.exists("ifaces/eth0/mtu"));
    // Nobody sees it before it has its address.
    new.attach();
    assert_eq!(new.text("ifaces/eth0/addr/list"), "10.0.2.15/24\n");
    assert_eq!(
        new.text("route/list"),
        "default via 10.0.2.2 dev eth0\n10.0.2.0/24 dev eth0\n"
    );
    assert_eq!(
        new.text("ifaces/eth0/flags"),
        "UP,BROADCAST,RUNNING,MULTICAST\n"
    );
}

/// The worker may die again before the driver has answered.
#[test]
fn what_waits_for_an_adapter_is_not_lost() {
    let old = Machine::new();
    old.attach();
    lease(&old);
    let mut state = old.state().expect("a state");
    for _ in 0..10 {
        let next = Machine::after(&state);
        state = next.state().expect("a state");
    }
    let last = Machine::after(&state);
    last.attach();
    assert_eq!(last.settings(), old.settings());
    assert!(last.text("route/list").starts_with("default via 10.0.2.2"));
}

#[test]
fn every_kind_of_setting_survives() {
    let old = Machine::new();
    old.attach();
    lease(&old);
    for (path, line) in [
        ("ip/forwarding", "1\n"),
        ("debug/if_tun_debug", "3\n"),
        ("ifaces/eth0/mac", "02-00-00-00-00-09\n"),
        ("ifaces/eth0/autoconf", "0\n"),
        ("ifaces/eth0/mtu", "1400\n"),
        ("ifaces/eth0/addr/add", "10.9.0.1 peer 10.9.0.2\n"),
        ("ifaces/eth0/addr/add", "fd00::1/64\n"),
        ("ifaces/eth0/multicast", "join 239.1.2.3\n"),
        ("ifaces/eth0/multicast", "join 239.1.2.3\n"),
        ("ifaces/eth0/multicast", "join ff05::7\n"),
        ("ifaces/eth0/queue", "fifo limit 9 packets 99999 bytes\n"),
        ("ifaces/lo0/addr/add", "10.200.0.1/32\n"),
        ("ifaces/lo0/mtu", "9000\n"),
        (
            "route/add",
            "172.16.0.0/12 via 10.0.2.9 dev eth0 metric 7\n",
        ),
        ("route/add", "fd01::/32 via fe80::9 dev eth0 src fd00::1\n"),
        ("route/add", "192.0.2.0/24 dev lo0\n"),
    ] {
        old.put(path, line);
    }
    let tun = old.open(3).unwrap();
    old.ioctl(tun, TUNSIFMODE, 0x8002).unwrap();
    old.ioctl(tun, TUNSIFHEAD, 1).unwrap();
    old.ioctl(tun, FIOASYNC, 1).unwrap();
    let mut info = [0, 0, 1, 0, 0x78, 5, 0x55, 0];
    old.process.ioctl(tun, TUNSIFINFO, &mut info).unwrap();
    old.put("ifaces/tun3/addr/set", "10.8.0.1/24\n");
    old.put("ifaces/tun3/addr/add", "10.8.1.1/24\n");
    old.put("ifaces/tun3/multicast", "join 239.9.9.9\n");
    old.put("ifaces/tun3/queue", "fifo limit 5 packets 5000 bytes\n");
    let state = old.state().expect("a state");
    // The same again after a last close: so it looks on the new host.
    old.process.close(tun).unwrap();

    let new = Machine::after(&state);
    new.attach();
    assert_eq!(new.settings(), old.settings());
    assert_eq!(new.text("ifaces/eth0/autoconf"), "0\n");
    assert_eq!(new.text("ifaces/tun3/flags"), "BROADCAST,MULTICAST\n");
    let tun = new.open(3).expect("open at once");
    let mut info = [0; 8];
    new.process.ioctl(tun, TUNGIFINFO, &mut info).unwrap();
    assert_eq!(info, [0, 0, 1, 0, 0x78, 5, 0x55, 0]);
    assert_eq!(new.get(tun, TUNGIFHEAD), 1);
    // The routes of its addresses come back when it goes up again.
    assert!(!new.text("route/list").contains("tun3"));
    new.put("ifaces/tun3/flags", "up\n");
    assert!(new.text("route/list").contains("10.8.1.0/24 dev tun3"));
    // Joined twice, it is left twice.
    new.put("ifaces/eth0/multicast", "leave 239.1.2.3\n");
    assert!(new.text("ifaces/eth0/multicast").contains("239.1.2.3"));
    // And the state is the same again, once its units are closed.
    new.process.close(tun).unwrap();
    new.put("ifaces/eth0/multicast", "join 239.1.2.3\n");
    assert_eq!(new.state_now(), old.state_now());
}

#[test]
fn what_ends_with_the_daemon() {
    let old = Machine::new();
    let (kept, gone) = (old.open(0).unwrap(), old.open(1).unwrap());
    old.ioctl(kept, TUNSBATCH, 1).unwrap();
    old.ioctl(gone, TUNSTRANSIENT, 1).unwrap();
    for unit in 0..2 {
        let base = format!("ifaces/tun{unit}");
        old.put(&format!("{base}/addr/set"), &format!("10.{unit}.0.1/24\n"));
        old.put(
            "route/add",
            &format!("172.{}.0.0/16 dev tun{unit}\n", 16 + unit),
        );
    }
    let new = Machine::after(&old.state().expect("a state"));
    assert!(!new.exists("ifaces/tun1/mtu"), "it is transient");
    assert_eq!(new.text("ifaces/tun0/flags"), "POINTOPOINT,MULTICAST\n");
    assert_eq!(new.text("ifaces/tun0/status"), "");
    assert_eq!(new.text("ifaces/tun0/addr/list"), "10.0.0.1/24\n");
    assert_eq!(new.text("route/list"), "");
    let tun = new.open(0).expect("open at once");
    assert_eq!(new.get(tun, TUNGBATCH), 0);
}

/// Addresses that an adapter gives itself, and what routers say, are learned again.
#[test]
fn what_was_learned_is_not_kept() {
    let old = Machine::new();
    old.attach();
    for _ in 0..15 {
        old.wait(1000);
    }
    assert_eq!(old.text("ifaces/eth0/addr/list"), "fe80::ff:fe00:1/64\n");
    let state = old.state().expect("a state");
    assert!(!state.contains("fe80"), "{state}");
}

#[test]
fn settings_that_take_something_away_survive() {
    let old = Machine::new();
    old.attach();
    lease(&old);
    for (path, line) in [
        ("ifaces/lo0/addr/rm", "127.0.0.1/8\n"),
        ("ifaces/lo0/addr/rm", "::1/128\n"),
        ("ifaces/lo0/flags", "down\n"),
        ("route/rm", "10.0.2.0/24\n"),
        ("ifaces/eth0/flags", "down\n"),
    ] {
        old.put(path, line);
    }
    let new = Machine::after(&old.state().expect("a state"));
    new.attach();
    assert_eq!(new.text("ifaces/lo0/addr/list"), "");
    assert_eq!(new.settings(), old.settings());
    // The route comes back with the interface, as on the old host.
    new.put("ifaces/eth0/flags", "up\n");
    assert!(new.text("route/list").contains("10.0.2.0/24 dev eth0"));
    new.put("route/rm", "10.0.2.0/24\n");
    let next = Machine::after(&new.state().expect("a state"));
    next.attach();
    assert_eq!(next.text("route/list"), "default via 10.0.2.2 dev eth0\n");
}

#[test]
fn a_line_that_is_refused_does_not_spoil_the_others() {
    let old = Machine::new();
    old.attach();
    lease(&old);
    let state = old.state().expect("a state");
    let good = Machine::after(&state);
    good.attach();
    let bad = [
        "",
        " ",
        "tun/0",
        "tun/00 type 23 baudrate 0 flags POINTOPOINT",
        "tun/clone type 23 baudrate 0 flags POINTOPOINT",
        "tun/9 type 23 baudrate 0 flags",
        "netcfg/nothing 1",
        "netcfg/ifaces/tun9/mtu 1500",
        "netcfg/ifaces/lo0/mtu 71",
        "netcfg/ifaces/eth0/mtu 71",
        "netcfg/ifaces/lo0/stats 1",
        "netcfg/ifaces/eth0/destroy 1",
        "netcfg/route/add default via 10.0.0.1 dev tun9",
        "netcfg/route/add nonsense dev eth0",
        "bpf/tun0 x",
        "\u{fffd}\u{0}\t",
    ];
    let mut spoiled = bad.join("\n") + "\n";
    for line in state.lines() {
        spoiled += line;
        spoiled += "\n";
        spoiled += &(bad.join("\n") + "\n");
    }
    let new = Machine::after(&spoiled);
    new.attach();
    assert_eq!(new.settings(), good.settings());
}

#[test]
fn no_text_is_too_much() {
    let old = Machine::new();
    old.attach();
    lease(&old);
    let tun = old.open(0).unwrap();
    old.ioctl(tun, TUNSLMODE, 1).unwrap();
    old.put("ifaces/tun0/addr/set", "10.8.0.1/24\n");
    let state = old.state().expect("a state").into_bytes();
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut text = state.clone();
        for _ in 0..rng.usize(1..40) {
            let at = rng.usize(0..text.len());
            match rng.u8(0..4) {
                0 => text[at] = rng.u8(..),
                1 => drop(text.remove(at)),
                2 => text.insert(at, *b" \n/0.9:-\xff".get(rng.usize(0..9)).unwrap()),
                _ => {
                    let to = rng.usize(at..text.len()).min(at + 60);
                    let copy = text[at..to].to_vec();
                    let into = rng.usize(0..text.len());
                    text.splice(into..into, copy);
                }
            }
        }
        let new = Machine::new();
        new.local.with_server(|host| host.restore(&text));
        new.attach();
        // It can be told again, and a host that begins with that is the same.
        let again = new.state().expect("a state");
        let next = Machine::after(&again);
        next.attach();
        assert_eq!(next.settings(), new.settings(), "seed {seed}");
    }
}

/// After random settings, the next host is as this one once its units are closed; and so is the one
/// after that.
#[test]
fn random_settings_go_round() {
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let old = Machine::new();
        if rng.bool() {
            old.attach();
        }
        let mut open = Vec::new();
        for _ in 0..rng.usize(1..60) {
            random_setting(&old, &mut rng, &mut open);
        }
        let state = old.state_now();
        for unit in 0..3 {
            // A unit may have been brought up while it was closed.
            if old.exists(&format!("ifaces/tun{unit}/mtu")) {
                open.extend(old.open(unit).map(|tun| (unit, tun)));
            }
        }
        for (_, tun) in open {
            old.process.close(tun).unwrap();
        }
        let attached = old.exists("ifaces/eth0/mtu");
        let mut texts = vec![old.settings()];
        let mut states = vec![state];
        for _ in 0..2 {
            let new = Machine::after(states.last().unwrap());
            if attached {
                new.attach();
            }
            texts.push(new.settings());
            states.push(new.state().expect("a state"));
        }
        assert_eq!(states[1], states[2], "seed {seed}");
        assert_eq!(states[0], states[1], "seed {seed}");
        assert_eq!(texts[0], texts[1], "seed {seed}\n{}", states[0]);
        assert_eq!(texts[1], texts[2], "seed {seed}");
    }
}

fn random_setting(machine: &Machine, rng: &mut fastrand::Rng, open: &mut Vec<(u16, Fd)>) {
    let unit = rng.u16(0..3);
    let (name, net) = match rng.u8(0..6) {
        0 => ("lo0".to_owned(), 9),
        1 | 2 => ("eth0".to_owned(), 8),
        _ => (format!("tun{unit}"), unit),
    };
    let (third, other) = (rng.u8(0..6), rng.u8(0..6));
    let addr = match rng.u8(0..4) {
        0 => format!("fd0{net}:{third}::1/64"),
        1 => format!("10.{net}.{third}.1 peer 10.{net}.{other}.2"),
        _ => format!("10.{net}.{third}.{}/24", rng.u8(1..4)),
    };
    let (path, line) = match rng.u8(0..16) {
        0 | 1 => {
            if let Ok(tun) = machine.open(unit) {
                open.push((unit, tun));
            }
            return;
        }
        2 => {
            if !open.is_empty() {
                let (_, tun) = open.swap_remove(rng.usize(0..open.len()));
                machine.process.close(tun).unwrap();
            }
            return;
        }
        3 | 4 => {
            if let Some(&(_, tun)) = open.get(rng.usize(0..3)) {
                let (request, value) = *rng
                    .choice(&[
                        (TUNSIFHEAD, 1),
                        (TUNSLMODE, 1),
                        (TUNSIFHEAD, 0),
                        (FIOASYNC, 1),
                        (TUNSIFMODE, 0x8002),
                        (TUNSIFMODE, 0x10),
                        (TUNSTRANSIENT, 1),
                        (TUNSTRANSIENT, 0),
                        (TUNSBATCH, 1),
                    ])
                    .unwrap();
                // A unit that is up does not change its mode.
                let _ = machine.ioctl(tun, request, value);
            }
            return;
        }
        5 => ("ip/forwarding".to_owned(), rng.u8(0..2).to_string()),
        6 => (
            "resolv/nameserver".to_owned(),
            format!("9.9.9.{}", rng.u8(1..9)),
        ),
        7 => (format!("ifaces/{name}/addr/set"), addr),
        8 | 9 => (format!("ifaces/{name}/addr/add"), addr),
        10 => (format!("ifaces/{name}/mtu"), rng.u16(600..2000).to_string()),
        11 => {
            let verb = rng.choice(["join", "join", "leave"]).unwrap();
            let group = rng.choice(["239.1.1.1", "ff05::5"]).unwrap();
            (
                format!("ifaces/{name}/multicast"),
                format!("{verb} {group}"),
            )
        }
        12 => {
            let packets = rng.u8(1..9);
            let line = format!("fifo limit {packets} packets 9000 bytes");
            // lo0 queues nothing.
            (
                format!("ifaces/{}/queue", name.replace("lo0", "eth0")),
                line,
            )
        }
        13 | 14 => {
            let metric = rng.u8(0..3);
            let line = format!("172.16.{}.0/24 dev {name} metric {metric}", rng.u8(0..4));
            ("route/add".to_owned(), line)
        }
        _ => (format!("ifaces/{name}/addr/rm"), addr),
    };
    // Many are refused, which is fine.
    let _ = machine.set(&path, &(line + "\n"));
}

#[test]
fn a_text_is_made_when_something_changed() {
    let machine = Machine::new();
    assert!(machine.state().is_some());
    assert_eq!(machine.state(), None);
    machine.wait(5000);
    assert_eq!(machine.state(), None);
    machine.put("ip/forwarding", "1\n");
    assert!(
        machine
            .state()
            .is_some_and(|state| state.contains("ip/forwarding 1\n"))
    );
    let tun = machine.open(0).unwrap();
    assert!(
        machine
            .state()
            .is_some_and(|state| state.contains("\ntun/0 "))
    );
    machine.ioctl(tun, TUNSIFHEAD, 1).unwrap();
    assert!(
        machine
            .state()
            .is_some_and(|state| state.contains("IFHEAD"))
    );
}

/// A large table is not written out after each line.
#[test]
fn a_long_text_is_bounded_and_not_made_all_the_time() {
    let machine = Machine::new();
    machine.attach();
    lease(&machine);
    let tun = machine.open(0).unwrap();
    let routes = |second: u32| {
        let line = |third: u32| format!("10.{second}.{third}.0/24 via 10.0.2.9 dev eth0\n");
        (0..250).map(line).collect::<String>()
    };
    for second in 10..200 {
        machine.put("route/add", &routes(second));
    }
    let state = machine.state().expect("a state");
    assert!(state.len() <= MAX_STATE && state.ends_with('\n'));
    assert!(state.len() > MAX_STATE - 100, "{}", state.len());
    machine.put("ip/forwarding", "1\n");
    assert_eq!(machine.state(), None, "too soon");
    let deadline = machine.local.deadline().expect("a later time");
    let now = machine.local.with_server(|host| host.now());
    machine.clock.advance(deadline.saturating_sub(now));
    machine.local.pump();
    let state = machine.state().expect("it is time");
    assert!(state.contains("netcfg/ip/forwarding 1\n"));
    // The machine's own interfaces come first, and their addresses are all there.
    let new = Machine::after(&state);
    new.attach();
    assert_eq!(new.text("ifaces/eth0/addr/list"), "10.0.2.15/24\n");
    assert!(new.text("route/list").lines().count() > 5000);
    machine.process.close(tun).unwrap();
}

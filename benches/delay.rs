//! What a send queue does to delay: a bulk flow and a ping share a tunnel of 10 Mbit/s.
//!
//! The machines run in this process and in virtual time, so that the numbers are the same on every
//! machine. The far side is 10 ms away each way. Either the near machine sends itself, whose connections a
//! queue can hold back, or it forwards the packets of another, which only drops can tell.
//!
//! `cargo bench --bench delay`, or with `-- --quick` only to see that it runs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use net::ifnet::DropReason;
use net::{Config, Host, Services};
use scheme::OpenFlags;
use scheme::local::{Clock, Fd, Local, ManualClock, OneSession, Process};

const BOTH: OpenFlags = OpenFlags::READ.union(OpenFlags::WRITE);
/// The time between two looks at all machines.
const STEP: Duration = Duration::from_micros(100);
/// From one end of the tunnel to the other.
const DELAY: Duration = Duration::from_millis(10);
/// Between two pings.
const PAUSE: Duration = Duration::from_millis(50);
const QUEUES: [&str; 4] = [
    "fifo",
    "fifo limit 1000 packets 16777216 bytes",
    "priq",
    "fq_codel",
];

/// A stack, and the programs of its tunnels.
struct Machine {
    local: Arc<Local<Host>>,
    process: Process<Host>,
}

impl Machine {
    fn new(seed: u64, clock: &Arc<ManualClock>) -> Self {
        let config = Config {
            seed: seed.into(),
            services: Services::all(),
        };
        let local = Local::with_clock(Host::new(config, OneSession), Arc::clone(clock));
        let process = local.process(1, 0);
        Self { local, process }
    }

    fn set(&self, path: &str, line: &str) {
        let path = format!("/scheme/netcfg/{path}");
        let file = self.process.open(&path, OpenFlags::WRITE).unwrap();
        let line = format!("{line}\n");
        self.process.write(file, line.as_bytes()).unwrap();
        self.process.close(file).unwrap();
    }

    fn open(&self, path: &str) -> Fd {
        let file = self.process.open(&format!("/scheme/{path}"), BOTH).unwrap();
        self.process.set_nonblocking(file, true).unwrap();
        file
    }

    fn tunnel(&self, unit: u32, address: &str) -> Fd {
        let tun = self.open(&format!("tun/{unit}"));
        self.set(&format!("ifaces/tun{unit}/addr/set"), address);
        tun
    }

    fn read(&self, file: Fd) -> Option<Vec<u8>> {
        let mut buf = [0; 2000];
        let len = self.process.read(file, &mut buf).ok()?;
        Some(buf[..len].to_vec())
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.local
            .with_server(|net| net.interface("tun0").unwrap().stats.drops(reason))
    }
}

/// One direction between two tunnels.
struct Way {
    delay: Duration,
    packets: VecDeque<(Duration, Vec<u8>)>,
}

impl Way {
    fn new(delay: Duration) -> Self {
        let packets = VecDeque::new();
        Self { delay, packets }
    }

    /// Carries packets; whether there were any.
    fn carry(&mut self, now: Duration, from: (&Machine, Fd), to: (&Machine, Fd)) -> bool {
        let before = self.packets.len();
        let sent = std::iter::from_fn(|| from.0.read(from.1));
        self.packets
            .extend(sent.map(|packet| (now + self.delay, packet)));
        let mut busy = self.packets.len() > before;
        while self.packets.front().is_some_and(|(at, _)| *at <= now)
            && let Some((_, packet)) = self.packets.pop_front()
        {
            // A full queue loses it, as a wire would.
            let _ = to.0.process.write(to.1, &packet);
            busy = true;
        }
        busy
    }
}

/// What came out.
struct Outcome {
    /// Of all pings, in order of their size, milliseconds.
    round_trips: Vec<f64>,
    lost: usize,
    mbits: f64,
    full: u64,
    codel: u64,
}

fn run(queue: &str, forwarded: bool, seconds: u64) -> Outcome {
    let clock = Arc::new(ManualClock::default());
    let [near, far, behind] = [1, 2, 3].map(|seed| Machine::new(seed, &clock));
    let near_tun = near.tunnel(0, "10.0.0.1/24");
    let far_tun = far.tunnel(0, "10.0.0.2/24");
    let inner = near.tunnel(1, "10.1.0.1/24");
    let behind_tun = behind.tunnel(0, "10.1.0.2/24");
    near.set("ip/forwarding", "1");
    behind.set("route/add", "default dev tun0");
    far.set("route/add", "10.1.0.0/24 dev tun0");
    let rate = format!("rate 10000000 burst 3000 {queue}");
    near.set("ifaces/tun0/queue", &rate);
    let (sender, address) = match forwarded {
        true => (&behind, "10.1.0.2"),
        false => (&near, "10.0.0.1"),
    };
    let mut ways = [DELAY, DELAY, Duration::ZERO, Duration::ZERO].map(Way::new);
    // The bulk flow is what a character generator sends.
    let bulk = far.process.open("/scheme/tcp", BOTH).unwrap();
    far.process.set_nonblocking(bulk, true).unwrap();
    let _ = far
        .process
        .dup_verb(bulk, format!("{address}:19").as_bytes());
    let ping = sender.open("icmp/echo/10.0.0.2");
    let mut sent_at = Vec::new();
    let (mut round_trips, mut bytes) = (Vec::new(), 0);
    let mut data = vec![0; 1 << 20];
    let end = Duration::from_secs(seconds);
    while clock.now().monotonic < end {
        clock.advance(STEP);
        let now = clock.now().monotonic;
        if now >= PAUSE * (sent_at.len() as u32 + 1) {
            let sequence = (sent_at.len() as u16).to_be_bytes();
            sender
                .process
                .write(ping, &[&sequence[..], &[0; 56]].concat())
                .unwrap();
            sent_at.push(now);
        }
        for machine in [&near, &far, &behind] {
            machine.local.pump();
        }
        loop {
            let [there, back, down, up] = &mut ways;
            let mut busy = there.carry(now, (&near, near_tun), (&far, far_tun));
            busy |= back.carry(now, (&far, far_tun), (&near, near_tun));
            busy |= down.carry(now, (&near, inner), (&behind, behind_tun));
            busy |= up.carry(now, (&behind, behind_tun), (&near, inner));
            while let Ok(len @ 1..) = far.process.read(bulk, &mut data) {
                bytes += len;
                busy = true;
            }
            while let Some(reply) = sender.read(ping) {
                let sequence = usize::from(u16::from_be_bytes([reply[0], reply[1]]));
                round_trips.push((now - sent_at[sequence]).as_secs_f64() * 1e3);
            }
            if !busy {
                break;
            }
        }
    }
    round_trips.sort_unstable_by(f64::total_cmp);
    let under_way = 1 + (Duration::from_secs(2).as_millis() / PAUSE.as_millis()) as usize;
    Outcome {
        lost: sent_at.len().saturating_sub(round_trips.len() + under_way),
        round_trips,
        mbits: bytes as f64 * 8.0 / seconds as f64 / 1e6,
        full: near.dropped(DropReason::QueueFull),
        codel: near.dropped(DropReason::Codel),
    }
}

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let seconds = if quick { 5 } else { 60 };
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header([
        "bulk and ping",
        "queue",
        "ping p50, ms",
        "p99, ms",
        "lost",
        "bulk, Mbit/s",
        "full",
        "codel",
    ]);
    for (name, forwarded) in [("sent here", false), ("forwarded", true)] {
        for queue in QUEUES {
            let outcome = run(queue, forwarded, seconds);
            let times = &outcome.round_trips;
            let part = |part: usize| times.get(times.len() * part / 100).copied();
            let shown = |time: Option<f64>| time.map_or("-".to_owned(), |ms| format!("{ms:.1}"));
            table.add_row([
                name.to_owned(),
                queue.to_owned(),
                shown(part(50)),
                shown(part(99)),
                outcome.lost.to_string(),
                format!("{:.2}", outcome.mbits),
                outcome.full.to_string(),
                outcome.codel.to_string(),
            ]);
        }
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
}

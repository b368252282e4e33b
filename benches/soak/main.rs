//! Everything at once, for long: units and sockets come and go, connections carry data, floods of a
//! moderate rate arrive, addresses and routes change, captures are read and left unread.
//!
//! `cargo bench --bench soak -- virtual` runs in virtual time, `-- mount` on a real mount, each for
//! `--seconds` of its own time, ten minutes by default; what is done follows from `--seed`. It fails if
//! memory grows in the second half, a ledger does not close, or something stays open at the end.

#[path = "../../tests/common/mod.rs"]
mod common;
mod programs;
mod virtual_time;

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};

use common::system::{MountSystem, System};
use common::usage::resident;
use programs::Programs;
use virtual_time::VirtualMachine;

/// Everything at once, for long
#[derive(Debug, Parser)]
struct Options {
    /// Where [default: both]
    #[arg(value_enum)]
    places: Vec<Place>,
    /// How long, in the time of that place
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// What everything that is done follows from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Place {
    /// In this process, in virtual time
    Virtual,
    /// On a mount, for real; needs root and FUSE
    Mount,
}

/// Bytes by which the most memory of two quarters may differ: what happens to be open.
const SLACK: u64 = 16 << 20;
/// Bytes of the heap by which two quarters of virtual time may differ when all is closed: a leak adds to
/// each.
const REST_SLACK: u64 = 64 << 10;
/// After this time nothing is under way any more: TIME-WAIT, reassembly, connections that nobody answers.
const REST: Duration = Duration::from_secs(600);

fn main() -> ExitCode {
    let options = Options::parse();
    let places = match options.places.is_empty() {
        true => vec![Place::Virtual, Place::Mount],
        false => options.places.clone(),
    };
    for place in places {
        let span = Duration::from_secs(options.seconds);
        match place {
            Place::Virtual => in_virtual_time(span, options.seed),
            Place::Mount => match MountSystem::missing() {
                Some(reason) => println!("soak: no mount, {reason}"),
                None => on_a_mount(span, options.seed),
            },
        }
    }
    ExitCode::SUCCESS
}

fn in_virtual_time(span: Duration, seed: u64) {
    let machine = VirtualMachine::new(seed);
    let system = machine.programs();
    let process = std::process::id();
    let mut programs = Programs::new(&system, seed);
    let mut watch = Watch::new("virtual time", process, span);
    let mut rests = Vec::new();
    let mut start = machine.now();
    for _ in 0..4 {
        let end = machine.now() + span / 4;
        while machine.now() < end {
            programs.step();
            machine.advance(programs.pause());
            watch.look(machine.now() - start, &mut programs);
        }
        programs.end();
        machine.advance(REST);
        start += REST;
        rests.push(heap());
    }
    watch.end();
    println!("soak: virtual time: bytes when all is closed: {rests:?}");
    let grown = rests[3].saturating_sub(rests[1]);
    assert!(grown < REST_SLACK, "{grown} bytes more are left");
    assert_eq!(machine.waiting(), 0, "nothing waits");
    machine.assert_all_is_closed();
}

fn on_a_mount(span: Duration, seed: u64) {
    let system = MountSystem::new();
    let daemon = system.daemon_pid();
    let open = |process| fs::read_dir(format!("/proc/{process}/fd")).unwrap().count();
    let before = [daemon, std::process::id()].map(open);
    let mut programs = Programs::new(&system, seed);
    let mut watch = Watch::new("mount", daemon, span);
    let start = Instant::now();
    while start.elapsed() < span {
        programs.step();
        // Moderate: the machine has other things to do.
        if programs.steps().is_multiple_of(16) {
            std::thread::sleep(Duration::from_millis(1));
        }
        watch.look(start.elapsed(), &mut programs);
    }
    programs.end();
    watch.end();
    assert_eq!(
        [daemon, std::process::id()].map(open),
        before,
        "descriptors"
    );
}

/// Watches the memory of a process, and the ledgers.
struct Watch {
    place: &'static str,
    process: u32,
    span: Duration,
    due: Duration,
    /// Most resident bytes in each quarter.
    most: [u64; 4],
    steps: u64,
}

impl Watch {
    fn new(place: &'static str, process: u32, span: Duration) -> Self {
        Self {
            place,
            process,
            span,
            due: Duration::ZERO,
            most: [0; 4],
            steps: 0,
        }
    }

    fn look<S: System>(&mut self, now: Duration, programs: &mut Programs<'_, S>) {
        self.steps += 1;
        if now < self.due {
            return;
        }
        self.due = now + self.span / 200;
        programs.assert_ledgers_close();
        let quarter = (now.as_secs_f64() / self.span.as_secs_f64() * 4.0) as usize;
        let most = &mut self.most[quarter.min(3)];
        *most = (*most).max(resident(self.process));
    }

    fn end(&self) {
        let mb = self.most.map(|bytes| format!("{:.1}", bytes as f64 / 1e6));
        let (place, steps) = (self.place, self.steps);
        println!(
            "soak: {place}: {steps} steps; MB at most in each quarter: {}",
            mb.join(" ")
        );
        let [_, second, third, last] = self.most;
        let grown = last.saturating_sub(second.max(third));
        assert!(
            grown < SLACK,
            "{place}: {grown} bytes more in the last quarter"
        );
        let grown = third.max(last).saturating_sub(second);
        assert!(
            grown < SLACK,
            "{place}: {grown} bytes more in the second half"
        );
    }
}

/// Bytes of this process's heap that are in use: what the allocator keeps does not count.
fn heap() -> u64 {
    // SAFETY: takes and touches nothing.
    unsafe { libc::mallinfo2() }.uordblks as u64
}

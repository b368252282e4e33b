//! The short form of `benches/wan`: tund beside the Linux kernel over an emulated link, with
//! thresholds that noise does not reach. Every byte is checked.
//!
//! Needs root, FUSE, /dev/net/tun and namespaces; skipped by name elsewhere. The emulated link
//! itself is tested in virtual time, anywhere.

#[allow(dead_code, reason = "the bench uses more of it")]
#[path = "../benches/wan/bed.rs"]
mod bed;
mod common;
#[allow(dead_code, reason = "the bench uses more of it")]
#[path = "../benches/wan/host.rs"]
mod host;
#[allow(dead_code, reason = "the bench uses more of it")]
#[path = "../benches/wan/link.rs"]
mod link;
#[allow(dead_code, reason = "the bench uses more of it")]
#[path = "../benches/wan/mount.rs"]
mod mount;
#[allow(dead_code, reason = "the bench uses more of it")]
#[path = "../benches/wan/tcp.rs"]
mod tcp;
#[path = "../benches/wan/way.rs"]
mod way;

use std::path::Path;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use bed::{Bed, Stack};
use common::needs::Missing;
use tcp::{Direction, Length, bulk};
use way::{LATE, Shape, Way, destination};

/// The bytes moved in each cell.
const BYTES: u64 = 8_000_000;
/// The time limit of a cell.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cell: round trip in milliseconds, share lost, the sender, and the required share of Linux's
/// goodput.
struct Cell {
    name: &'static str,
    rtt: u64,
    loss: f64,
    direction: Direction,
    threshold: f64,
}

const CELLS: [Cell; 6] = [
    cell("rtt_20_we_send", 20, 0.0, Direction::D, 0.5),
    cell("rtt_20_peer_sends", 20, 0.0, Direction::U, 0.5),
    cell("rtt_20_loss_1_we_send", 20, 0.01, Direction::D, 0.5),
    cell("rtt_20_loss_1_peer_sends", 20, 0.01, Direction::U, 0.5),
    cell("rtt_100_we_send", 100, 0.0, Direction::D, 0.5),
    cell("rtt_100_peer_sends", 100, 0.0, Direction::U, 0.5),
];

const fn cell(
    name: &'static str,
    rtt: u64,
    loss: f64,
    direction: Direction,
    threshold: f64,
) -> Cell {
    Cell {
        name,
        rtt,
        loss,
        direction,
        threshold,
    }
}

type Test = fn();

fn main() {
    let mut args = Arguments::from_args();
    args.test_threads = Some(1);
    let tests: [(&str, Test); 4] = [
        ("way_delays", way_delays),
        ("way_has_a_rate_and_a_queue", way_has_a_rate_and_a_queue),
        ("way_reorders", way_reorders),
        ("way_loses_by_seed", way_loses_by_seed),
    ];
    let tests = tests.map(|(name, test)| {
        Trial::test(name, move || -> Result<(), Failed> {
            test();
            Ok(())
        })
    });
    let cells = CELLS.iter().map(|cell| {
        Trial::ignorable_test(cell.name, || match missing() {
            Some(missing) => missing.completion(),
            None => compare(cell),
        })
    });
    libtest_mimic::run(&args, cells.chain(tests).collect()).exit();
}

fn missing() -> Option<Missing> {
    let no_bed = || Bed::missing().map(|reason| Missing::System(reason.to_owned()));
    Missing::mount()
        .or_else(|| Missing::program(&["ip"]))
        .or_else(no_bed)
}

/// Measures both stacks in turns, with the same seeds; the better of two runs each counts, since
/// other programs take time from both.
fn compare(cell: &Cell) -> Result<Completion, Failed> {
    let mut rates = [0.0_f64; 2];
    for seed in 1..=2 {
        for (rate, stack) in rates.iter_mut().zip(Stack::BOTH) {
            let shape = Shape {
                loss: cell.loss,
                seed,
                ..Shape::line(cell.rtt)
            };
            let bed = Bed::new(&[stack], shape, Path::new(env!("CARGO_BIN_EXE_tund")))?;
            let length = Length::Bytes(BYTES, PATIENCE);
            let measured = bulk(&bed, 1, 1, cell.direction, length)?;
            *rate = rate.max(measured[0]);
        }
        // A rate that is good enough is not measured again.
        if rates[0] >= cell.threshold * rates[1] {
            return Ok(Completion::Completed);
        }
    }
    let [tund, linux] = rates;
    let text = format!(
        "tund {tund:.1} Mbit/s, Linux {linux:.1}: {:.2} of it, {} wanted",
        tund / linux,
        cell.threshold
    );
    Err(text.into())
}

/// An IPv4 packet of this length, with a number in it.
fn packet(len: usize, number: u8) -> Vec<u8> {
    let mut packet = vec![0; len];
    packet[0] = 0x45;
    packet[4] = number;
    packet[16..20].copy_from_slice(&[10, 9, 0, 1]);
    packet
}

/// All packets that arrive, and their times.
fn arrivals(way: &mut Way, start: Instant) -> Vec<(Duration, u8)> {
    let mut arrived = Vec::new();
    while let Some(at) = way.poll_at() {
        assert_eq!(way.poll_delivery(at - Duration::from_nanos(1)), None);
        let packet = way.poll_delivery(at).expect("it is due");
        arrived.push((at - start, packet[4]));
    }
    arrived
}

fn way_delays() {
    let start = Instant::now();
    let shape = Shape {
        rate: None,
        ..Shape::line(20)
    };
    let mut way = Way::new(shape, 0);
    way.handle_packet(start, &packet(1500, 1));
    way.handle_packet(start, &packet(40, 2));
    let ten = Duration::from_millis(10);
    assert_eq!(arrivals(&mut way, start), [(ten, 1), (ten, 2)]);
    assert_eq!(destination(&packet(40, 0)), Some([10, 9, 0, 1].into()));
    assert_eq!(destination(&[0x60; 40]), None);
    assert_eq!(destination(&[0x45; 19]), None);
}

fn way_has_a_rate_and_a_queue() {
    let start = Instant::now();
    let shape = Shape {
        queue: 3,
        ..Shape::line(0)
    };
    let mut way = Way::new(shape, 0);
    // One is on the line, three wait, and two are too many: 1500 bytes take 240 µs.
    for number in 1..=6 {
        way.handle_packet(start, &packet(1500, number));
    }
    assert_eq!(way.count().overflowed, 2);
    // There is room again as soon as the line takes the next packet.
    let later = start + Duration::from_micros(240);
    way.handle_packet(later, &packet(1500, 7));
    way.handle_packet(later, &packet(1500, 8));
    assert_eq!(way.count().overflowed, 3);
    let expected = [(240, 1), (480, 2), (720, 3), (960, 4), (1200, 7)];
    let expected = expected.map(|(micros, number)| (Duration::from_micros(micros), number));
    assert_eq!(arrivals(&mut way, start), expected);
}

fn way_reorders() {
    let start = Instant::now();
    let shape = Shape {
        reordered: 0.2,
        ..Shape::line(20)
    };
    let mut way = Way::new(shape, 0);
    let spaced = |number: u8| start + Duration::from_millis(number.into());
    for number in 0..100 {
        way.handle_packet(spaced(number), &packet(40, number));
    }
    let late = way.count().late;
    assert!((5..=50).contains(&late), "{late} late");
    let arrived = arrivals(&mut way, start);
    assert_eq!(arrived.len(), 100);
    let on_time = |number: u8| spaced(number) - start + Duration::from_nanos(10_006_400);
    for (at, number) in arrived {
        let lateness = at - on_time(number);
        assert!(lateness == Duration::ZERO || lateness == LATE);
    }
}

fn way_loses_by_seed() {
    let start = Instant::now();
    let lost = |seed, number| {
        let shape = Shape {
            loss: 0.03,
            rate: None,
            seed,
            ..Shape::line(0)
        };
        let mut way = Way::new(shape, number);
        for _ in 0..10_000 {
            way.handle_packet(start, &packet(40, 0));
        }
        let count = way.count();
        assert!((200..=400).contains(&count.lost), "{count:?}");
        count.lost
    };
    assert_eq!(lost(1, 0), lost(1, 0));
    assert_ne!((lost(1, 0), lost(1, 0)), (lost(2, 0), lost(1, 1)));
}

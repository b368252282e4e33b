//! Goodput over emulated links, as a table with thresholds.

use super::link::*;
use super::*;

/// Megabits per second that one flow carries in so many seconds.
fn goodput(path: Path, seconds: u64, seed: u64) -> f64 {
    transfer(path, seconds, seed, None).0
}

/// The same, to a receiver whose driver has room for so many frames, and how many packets to it were
/// lost.
fn transfer(path: Path, seconds: u64, seed: u64, rx_ring: Option<u16>) -> (f64, u64) {
    let mut link = Link::new(path, seed);
    let mut left = Machine::client(config(1, 2), &[Program::Source(u64::MAX)], link.now);
    let receiver = Config {
        rx_ring,
        ..config(2, 1)
    };
    let mut right = Machine::server(receiver, 1, Program::Sink);
    let until = link.now + Duration::from_secs(seconds);
    while link.step([&mut left, &mut right], until) {}
    left.flow(0).connection.invariants();
    right.flow(0).connection.invariants();
    let rate = right.read(0) as f64 * 8.0 / seconds as f64 / 1e6;
    (rate, link.dropped[1])
}

/// The median of so many seeds.
fn median(path: Path, seconds: u64, seeds: u64) -> f64 {
    let mut rates: Vec<f64> = (1..=seeds)
        .map(|seed| goodput(path, seconds, seed))
        .collect();
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// Round trip in milliseconds, loss in per mille, the least goodput at 50 Mbit/s.
const GRID: [(u64, u64, f64); 16] = [
    (0, 0, 47.5),
    (0, 1, 47.5),
    (0, 10, 45.0),
    (0, 30, 35.0),
    (20, 0, 47.0),
    (20, 1, 25.0),
    (20, 10, 6.3),
    (20, 30, 3.3),
    (100, 0, 42.0),
    (100, 1, 8.0),
    (100, 10, 1.3),
    (100, 30, 0.7),
    (200, 0, 30.0),
    (200, 1, 4.5),
    (200, 10, 0.6),
    (200, 30, 0.3),
];

#[test]
fn grid() {
    let mut low = Vec::new();
    for (rtt, loss, least) in GRID {
        let path = Path::new(rtt, loss as f64 / 1000.0);
        let rate = match (rtt, loss) {
            (0, _) => goodput(path, 3, 1),
            (_, 0) => goodput(path, 10, 1),
            (_, 1) => median(path, 10, 3),
            _ => median(path, 40, 3),
        };
        println!("rtt {rtt:3} ms, loss {loss:2} per mille: {rate:5.1} Mbit/s, at least {least}");
        if rate < least {
            low.push((rtt, loss, rate));
        }
    }
    assert!(low.is_empty(), "{low:?}");
}

#[test]
fn reordering_costs_little() {
    for (rtt, seconds) in [(0, 3), (20, 5), (100, 10), (200, 15)] {
        let path = Path::new(rtt, 0.0);
        let clean = goodput(path, seconds, 1);
        let late = median(Path { late: 0.01, ..path }, seconds, 3);
        println!("rtt {rtt:3} ms, 1 % late: {late:.1} of {clean:.1} Mbit/s");
        assert!(late > 0.85 * clean, "{rtt}: {late} of {clean}");
    }
}

#[test]
fn windows_open_without_a_rate_limit() {
    for (rtt, least) in [(20, 300.0), (100, 150.0), (200, 60.0)] {
        let path = Path {
            rate: None,
            ..Path::new(rtt, 0.0)
        };
        let rate = goodput(path, 3, 1);
        println!("rtt {rtt:3} ms, no rate: {rate:.0} Mbit/s");
        assert!(rate > least, "{rtt}: {rate}");
    }
}

#[test]
fn what_is_asked_for_fits_a_small_ring() {
    // A driver that takes 350 microseconds for a frame.
    let near = Path {
        queue: 15,
        rate: Some(34e6),
        ..Path::new(0, 0.0)
    };
    let (rate, lost) = transfer(near, 10, 1, None);
    assert!(lost > 10, "{lost} lost, {rate} Mbit/s");
    for delay in [10, 100, 500] {
        let near = Path {
            delay: Duration::from_micros(delay),
            ..near
        };
        let (rate, lost) = transfer(near, 10, 1, Some(16));
        assert_eq!(lost, 0, "{delay}: {rate} Mbit/s");
        assert!(rate > 31.0, "{delay}: {rate}");
    }
    // What is far away is not held back by it.
    for rtt in [5, 20, 100, 200] {
        let path = Path::new(rtt, 0.0);
        let most = goodput(path, 10, 1);
        let (rate, _) = transfer(path, 10, 1, Some(16));
        println!("rtt {rtt:3} ms: {rate:.1} of {most:.1} Mbit/s");
        assert!(rate > 0.9 * most, "{rtt}: {rate} of {most}");
    }
}

#[test]
fn flows_to_one_small_ring_ask_for_less() {
    let lost = |rx_ring| {
        let path = Path {
            queue: 15,
            rate: Some(34e6),
            ..Path::new(0, 0.0)
        };
        let mut link = Link::new(path, 1);
        let programs = [Program::Source(u64::MAX); 3];
        let mut left = Machine::client(config(1, 2), &programs, link.now);
        let receiver = Config {
            rx_ring,
            ..config(2, 1)
        };
        let mut right = Machine::server(receiver, 3, Program::Sink);
        let until = link.now + Duration::from_secs(10);
        while link.step([&mut left, &mut right], until) {}
        let read: Vec<u64> = (0..3).map(|at| right.read(at)).collect();
        println!("{rx_ring:?}: {read:?} bytes, {} lost", link.dropped[1]);
        assert!(read.iter().sum::<u64>() > 38_000_000, "{read:?}");
        assert!(read.iter().all(|&read| read > 4_000_000), "{read:?}");
        link.dropped[1]
    };
    let (many, few) = (lost(None), lost(Some(16)));
    // One that begins while others fill the ring takes that for the length of the path.
    assert!(few < many / 3, "{few} of {many}");
}

#[test]
fn two_flows_share() {
    for rtt in [20, 100] {
        let mut link = Link::new(Path::new(rtt, 0.0), 3);
        let programs = [Program::Source(u64::MAX), Program::Source(u64::MAX)];
        let mut left = Machine::client(config(1, 2), &programs, link.now);
        let mut right = Machine::server(config(2, 1), 2, Program::Sink);
        let until = link.now + Duration::from_secs(60);
        while link.step([&mut left, &mut right], until) {}
        let (one, other) = (right.read(0), right.read(1));
        println!(
            "rtt {rtt} ms: {} and {} Mbit/s",
            one / 7_500_000,
            other / 7_500_000
        );
        assert!(one < 2 * other && other < 2 * one, "{one} {other}");
        assert!(one + other > 60 * 5_500_000);
    }
}

/// Times of so many exchanges of one byte, sorted.
fn exchanges(path: Path, count: usize, seed: u64) -> Vec<Duration> {
    let mut link = Link::new(path, seed);
    let mut left = Machine::client(config(1, 2), &[Program::Sink], link.now);
    let mut right = Machine::server(config(2, 1), 1, Program::Sink);
    let mut times = Vec::new();
    let far = link.now + Duration::from_secs(1 << 20);
    while left.flow(0).connection.state() != State::Established {
        link.step([&mut left, &mut right], far);
    }
    for n in 0..count {
        let start = link.now;
        left.flow(0).connection.send(bytes(n as u64, 1));
        while right.read(0) <= n as u64 {
            assert!(link.step([&mut left, &mut right], far));
        }
        right.flow(0).connection.send(bytes(n as u64, 1));
        while left.read(0) <= n as u64 {
            assert!(link.step([&mut left, &mut right], far));
        }
        times.push(link.now - start);
    }
    times.sort();
    times
}

#[test]
fn one_byte_there_and_back() {
    let times = exchanges(Path::new(20, 0.02), 2000, 1);
    let (median, late) = (times[1000], times[1980]);
    println!("one byte, 2 % lost: median {median:?}, 99th percentile {late:?}");
    assert!(median < ms(21));
    // Linux: 251.
    assert!(late < ms(300));
}

/// How long it takes to fetch so many bytes, from the SYN on.
fn fetch(path: Path, bytes: u64, seed: u64) -> Duration {
    let mut link = Link::new(path, seed);
    let start = link.now;
    let mut left = Machine::client(config(1, 2), &[Program::Sink], link.now);
    let mut right = Machine::server(config(2, 1), 1, Program::Source(bytes));
    let far = link.now + Duration::from_secs(1 << 20);
    while left.read(0) < bytes {
        assert!(link.step([&mut left, &mut right], far));
    }
    link.now - start
}

#[test]
fn a_page_comes_fast() {
    let clean = fetch(Path::new(100, 0.0), 100_000, 1);
    let mut lossy: Vec<Duration> = (0..100)
        .map(|seed| fetch(Path::new(100, 0.02), 100_000, seed))
        .collect();
    lossy.sort();
    println!(
        "100 kB at 100 ms: {clean:?}; 2 % lost: median {:?}, 95th percentile {:?}",
        lossy[50], lossy[95]
    );
    // Linux: 407 ms; 508 and 1615.
    assert!(clean < ms(450));
    assert!(lossy[50] < ms(660) && lossy[95] < ms(2100));
}

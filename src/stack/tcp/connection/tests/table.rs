//! Goodput over emulated links, as a table with thresholds.

use super::link::*;
use super::*;

/// Megabits per second that one flow carries in so many seconds.
fn goodput(path: Path, seconds: u64, seed: u64) -> (f64, Stats) {
    let mut link = Link::new(path, seed);
    let mut left = Machine::client(config(1, 2), &[Program::Source(u64::MAX)], link.now);
    let mut right = Machine::server(config(2, 1), 1, Program::Sink);
    let until = link.now + Duration::from_secs(seconds);
    while link.step([&mut left, &mut right], until) {}
    let stats = left.flow(0).connection.stats();
    (right.read(0) as f64 * 8.0 / seconds as f64 / 1e6, stats)
}

#[test]
fn grid() {
    for rtt in [0, 20, 100, 200] {
        for loss in [0.0, 0.001, 0.01, 0.03] {
            let start = std::time::Instant::now();
            let (rate, stats) = goodput(Path::new(rtt, loss), 10, 1);
            println!(
                "rtt {rtt} loss {loss}: {rate:.1} {:?} {:?} cwnd {}",
                start.elapsed(),
                stats.counters,
                stats.cwnd,
            );
        }
        let mut path = Path::new(rtt, 0.0);
        path.late = 0.01;
        let (rate, stats) = goodput(path, 10, 1);
        println!("rtt {rtt} late 1 %: {rate:.1} {:?}", stats.counters);
    }
}

//! Ten thousand connections, and the cost of one.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use redox_net::pair::listener;
use redox_net::place::Place;
use redox_net::{tell, usage};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[Test::lo("ten_thousand", ten_thousand)];

const STEP: usize = 1000;
const STEPS: usize = 10;
/// The time limit of the whole test.
const LIMIT: Duration = Duration::from_secs(60);

fn ten_thousand(place: &Place) {
    let (listener, port) = listener(place);
    let start = Instant::now();
    let before = usage::daemon();
    let mut pairs: Vec<(TcpStream, TcpStream)> = Vec::new();
    let mut steps = Vec::new();
    let mut trouble = None;
    'steps: for _ in 0..STEPS {
        let step = Instant::now();
        for _ in 0..STEP {
            if start.elapsed() > LIMIT {
                trouble = Some(format!("{LIMIT:?} are over"));
                break 'steps;
            }
            let connected = TcpStream::connect(place.at(port));
            let pair = connected.and_then(|client| Ok((client, listener.accept()?.0)));
            match pair {
                Ok(pair) => pairs.push(pair),
                Err(error) => {
                    trouble = Some(error.to_string());
                    break 'steps;
                }
            }
        }
        steps.push(step.elapsed().as_secs_f64());
        let name = format!("connections_to_{}_s", pairs.len());
        tell(&name, step.elapsed().as_secs_f64());
    }
    tell("connections", pairs.len() as f64);
    if let (Some(before), Some(after)) = (before, usage::daemon()) {
        let grown = after.memory.saturating_sub(before.memory) as f64;
        let ends = 2.0 * pairs.len() as f64;
        tell("memory_per_idle_connection_end_bytes", grown / ends);
    }
    // Every one of them works.
    for (number, (client, server)) in pairs.iter_mut().enumerate().step_by(97) {
        let sent = (number as u32).to_le_bytes();
        client.write_all(&sent).expect("write");
        let mut seen = [0; 4];
        server.read_exact(&mut seen).expect("read");
        assert_eq!(seen, sent);
    }
    let end = Instant::now();
    let count = pairs.len();
    drop(pairs);
    tell("connections_closed_s", end.elapsed().as_secs_f64());
    if let Some(trouble) = trouble {
        panic!("{count} connections: {trouble}");
    }
    let (first, last) = (steps[0], steps[STEPS - 1]);
    assert!(
        last < 2.5 * first,
        "the first {STEP} took {first:.2} s, the last {last:.2} s"
    );
}

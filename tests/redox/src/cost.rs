//! The cost of operations: lines `redox-cost NAME VALUE`.
//!
//! Times are medians in microseconds of one boot, compared with a scheme that does nothing; under
//! emulation only the ratios mean something.

use std::cell::RefCell;
use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Write};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use tun::batch::{packets, push};

use crate::device::{Tun, Wire, bsd, open_path};
use crate::harness::{caught, message, say};
use crate::packet::{echo_request, numbered};
use crate::sys;

const ROUNDS: usize = 3000;
/// How long a throughput is measured.
const SPAN: Duration = Duration::from_secs(2);

fn cost(name: &str, value: f64) {
    say(&format!("redox-cost {name} {value:.2}"));
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

/// The median time of `work`, after a few rounds to warm up.
fn time(mut work: impl FnMut()) -> f64 {
    for _ in 0..ROUNDS / 10 {
        work();
    }
    let once = |_| {
        let start = Instant::now();
        work();
        start.elapsed()
    };
    median((0..ROUNDS).map(once).collect())
}

/// The sum of the results of `work` in a second.
fn rate(mut work: impl FnMut() -> usize) -> f64 {
    work();
    let start = Instant::now();
    let mut done = 0;
    while start.elapsed() < SPAN {
        done += work();
    }
    done as f64 / start.elapsed().as_secs_f64()
}

/// Two interleaved measurements of each, so that a slow moment of the machine affects both.
fn both(mut one: impl FnMut() -> f64, mut two: impl FnMut() -> f64) -> (f64, f64) {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        first.push(one());
        second.push(two());
    }
    let least = |times: &[f64]| times.iter().copied().fold(f64::INFINITY, f64::min);
    (least(&first), least(&second))
}

fn idle_scheme() -> (std::process::Child, File) {
    const NAME: &str = "redoxtestidle";

    let _ = sys::unlink_scheme(NAME);
    let program = std::env::current_exe().expect("this program");
    let server = Command::new(program)
        .args(["--idle-scheme", NAME])
        .stdin(Stdio::null())
        .spawn()
        .expect("start the scheme that does nothing");
    let path = format!("/scheme/{NAME}/x");
    let mut file = open_path(&path);
    sys::becomes(Duration::from_secs(5), || {
        if file.is_err() {
            file = open_path(&path);
        }
        file.is_ok()
    });
    (server, file.expect("open the scheme that does nothing"))
}

fn measure() {
    let tun = Tun::up(32);
    let (mut server, mut idle) = idle_scheme();
    let mut buf = vec![0; 65_536];

    // One packet out and its answer back, compared with the same operations with the same buffers
    // on a scheme that does nothing. The buffer matters: the kernel copies all of a small one each
    // time.
    for len in [84, 1500] {
        let request = echo_request(32, 1, len);
        // The same buffer for both, because its address matters as well.
        let reply = RefCell::new(vec![0; 2048]);
        let (ours, nothing) = both(
            || {
                time(|| {
                    tun.write(&request).expect("write");
                    let reply = &mut *reply.borrow_mut();
                    let len = (&tun.file).read(reply).expect("read");
                    black_box(&reply[..len]);
                })
            },
            || {
                time(|| {
                    (&idle).write_all(&request).expect("write");
                    let reply = &mut *reply.borrow_mut();
                    let len = (&idle).read(reply).expect("read");
                    black_box(&reply[..len]);
                })
            },
        );
        cost(&format!("round_trip_{len}_us"), ours);
        cost(&format!("idle_round_trip_{len}_us"), nothing);
        cost(&format!("round_trip_{len}_ratio"), ours / nothing);
    }

    // A daemon that keeps timers reads the clock.
    let start = Instant::now();
    for _ in 0..ROUNDS {
        black_box(Instant::now());
    }
    cost(
        "clock_read_us",
        start.elapsed().as_secs_f64() * 1e6 / ROUNDS as f64,
    );

    // And one that allocates pays for the C library's lock.
    let start = Instant::now();
    for _ in 0..ROUNDS {
        drop(black_box(vec![0_u8; black_box(100)]));
    }
    cost(
        "allocate_and_free_us",
        start.elapsed().as_secs_f64() * 1e6 / ROUNDS as f64,
    );

    // Single operations.
    cost("ioctl_us", time(|| _ = black_box(tun.get(bsd::TUNGIFHEAD))));
    tun.set_nonblocking(true);
    cost("read_empty_us", time(|| drop(tun.read(100))));
    tun.set_nonblocking(false);
    let rubbish = [0; 20];
    cost("write_dropped_us", time(|| drop(tun.write(&rubbish))));
    for len in [1, 1500, 16_384, 65_536] {
        let bytes = vec![0; len];
        let write = time(|| idle.write_all(&bytes).expect("write"));
        cost(&format!("idle_write_{len}_us"), write);
    }

    // A reader that waits, and is woken from another process.
    {
        let echo = tun.again();
        let (mut there, mut here) = sys::pipe();
        let child = sys::fork(|_| {
            let wire = Wire::open(32);
            let mut byte = [0];
            while there.read_exact(&mut byte).is_ok() && byte == *b"g" {
                wire.send(&numbered(32, 1, 84)).expect("send");
            }
        });
        let mut reply = vec![0; 2048];
        let woken = time(|| {
            here.write_all(b"g").expect("ask");
            black_box((&echo.file).read(&mut reply).expect("read"));
        });
        cost("wake_from_another_process_us", woken);
        here.write_all(b"e").expect("ask");
        child.finish();
    }

    // Packets a second: one by one, and in batches.
    for (len, many) in [(84, 120), (1400, 40)] {
        let request = echo_request(32, 1, len);
        let mut batch = Vec::new();
        for _ in 0..many {
            push(&mut batch, &request);
        }
        let single = rate(|| {
            tun.write(&request).expect("write");
            usize::from((&tun.file).read(&mut buf).expect("read") == len)
        });
        tun.set(bsd::TUNSBATCH, 1);
        let batched = rate(|| {
            tun.write(&batch).expect("write");
            let mut got = 0;
            while got < many {
                let len = (&tun.file).read(&mut buf).expect("read");
                got += packets(&buf[..len]).count();
            }
            got
        });
        tun.set(bsd::TUNSBATCH, 0);
        cost(&format!("single_{len}_packets_per_second"), single);
        cost(&format!("batch_{len}_packets_per_second"), batched);
        cost(&format!("batch_{len}_ratio"), batched / single);
    }
    let _ = server.kill();
    let _ = server.wait();
    let _ = sys::unlink_scheme("redoxtestidle");
}

/// Runs the measurements.
pub(crate) fn run() -> ExitCode {
    match caught(measure) {
        Ok(()) => {
            say("redox-cost: done");
            ExitCode::SUCCESS
        }
        Err(payload) => {
            say(&format!("redox-cost: FAILED {}", message(&*payload)));
            ExitCode::FAILURE
        }
    }
}

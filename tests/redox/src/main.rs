//! Tests of tund from inside a running Redox, from a program's side.
//!
//! ```text
//! redox-test                 every test
//! redox-test NAME...         the tests whose names begin so
//! redox-test --list          their names
//! redox-test --cost          what operations cost: lines `redox-cost NAME VALUE`
//! redox-test --with-cost     that, and then every test
//! ```
//!
//! The daemon is the one that init started as the system's network. The tests must be run as root.

#[cfg(not(target_os = "redox"))]
compile_error!("these tests run on Redox: build for x86_64-unknown-redox");

mod harness;

mod device;
mod netcfg;
mod packet;
mod process;
mod sys;

mod batch;
mod bpf;
mod client;
mod cost;
mod events;
mod families;
mod header;
mod idle;
mod io;
mod ioctl;
mod life;
mod load;
mod open;
mod queues;
mod restart;
mod settings;
mod tools;
mod traps;
mod tunnels;

use std::process::ExitCode;

use harness::Test;

/// Every module's tests. The last ones kill the daemon.
const ALL: [&[Test]; 17] = [
    open::TESTS,
    io::TESTS,
    header::TESTS,
    ioctl::TESTS,
    batch::TESTS,
    events::TESTS,
    life::TESTS,
    settings::TESTS,
    tunnels::TESTS,
    queues::TESTS,
    families::TESTS,
    bpf::TESTS,
    client::TESTS,
    tools::TESTS,
    traps::TESTS,
    load::TESTS,
    restart::TESTS,
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let all = || ALL.into_iter().flatten().copied();
    match args[..] {
        [] => harness::run_all(&all().collect::<Vec<_>>()),
        ["--list"] => {
            all().for_each(|test| harness::say(test.name));
            ExitCode::SUCCESS
        }
        ["--one", name] => match all().find(|test| test.name == name) {
            Some(test) => harness::run_one(test),
            None => ExitCode::FAILURE,
        },
        ["--cost"] => cost::run(),
        ["--with-cost"] => {
            harness::run_cost();
            harness::run_all(&all().collect::<Vec<_>>())
        }
        ["--idle-scheme", name] => idle::serve(name),
        _ => {
            let wanted = |test: &Test| args.iter().any(|name| test.name.starts_with(name));
            harness::run_all(&all().filter(wanted).collect::<Vec<_>>())
        }
    }
}

//! Tests of the network as ordinary programs use it.
//!
//! ```text
//! net-check                      every test
//! net-check NAME...              the tests whose names begin so
//! net-check --list               their names
//! net-check --measured ...       runs net-measure first
//! ```
//!
//! A test is a function that panics when something is not as it should be; it runs in a process of
//! its own, and prints `redox-test NAME ok|FAILED|skipped REASON`. The Ethernet tests use QEMU's
//! user network: a gateway that answers pings, an echo service ([`ECHO`](redox_net::place::ECHO)), a TFTP
//! server.

mod adapters;
mod datagram;
mod ethernet;
mod icmp;
mod ipv6;
mod many;
mod programs;
mod readiness;
mod restart;
mod stream;
mod timeouts;

use std::any::Any;
use std::panic::{self, PanicHookInfo};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::time::Duration;

use redox_net::apart::{self, End, FAILED, SKIPPED};
use redox_net::lease;
use redox_net::place::{On, Place};
use redox_net::say;

/// A test, and the interfaces over which it is run.
#[derive(Clone, Copy)]
pub(crate) struct Test {
    pub(crate) name: &'static str,
    pub(crate) on: &'static [On],
    pub(crate) body: fn(&Place),
}

impl Test {
    /// Tested over 127.0.0.1.
    pub(crate) const fn lo(name: &'static str, body: fn(&Place)) -> Self {
        let on = &[On::Lo];
        Self { name, on, body }
    }

    /// Tested over 127.0.0.1 and a tunnel.
    pub(crate) const fn both(name: &'static str, body: fn(&Place)) -> Self {
        let on = &[On::Lo, On::Tun];
        Self { name, on, body }
    }

    /// Tested over 127.0.0.1, a tunnel, and a tunnel that loses packets.
    pub(crate) const fn every(name: &'static str, body: fn(&Place)) -> Self {
        let on = &[On::Lo, On::Tun, On::Lossy];
        Self { name, on, body }
    }

    /// Tested over Ethernet.
    pub(crate) const fn eth(name: &'static str, body: fn(&Place)) -> Self {
        let on = &[On::Eth];
        Self { name, on, body }
    }
}

/// Every module's tests. Those that crash netstack are last.
const ALL: [&[Test]; 12] = [
    stream::TESTS,
    datagram::TESTS,
    timeouts::TESTS,
    readiness::TESTS,
    icmp::TESTS,
    ipv6::TESTS,
    ethernet::TESTS,
    programs::TESTS,
    many::TESTS,
    adapters::TESTS,
    restart::TESTS,
    datagram::LAST,
];

/// Each test at each of its places, with its name.
fn all() -> impl Iterator<Item = (String, On, Test)> {
    ALL.into_iter().flatten().flat_map(|test| {
        let name = |on: On| format!("{}_{}", on.prefix(), test.name);
        test.on.iter().map(move |on| (name(*on), *on, *test))
    })
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["--list"] => {
            all().for_each(|(name, ..)| say(&name));
            return ExitCode::SUCCESS;
        }
        ["--one", wanted] => {
            let found = all().find(|(name, ..)| name == wanted);
            return found.map_or(ExitCode::FAILURE, |(name, on, test)| one(&name, on, test));
        }
        _ => {}
    }
    if args.first() == Some(&"--measured") {
        args.remove(0);
        if let Err(error) = Command::new("net-measure").status() {
            say(&format!("redox-net: {error}"));
        }
    }
    // dhcpd is at work after a start, and would disturb the tests.
    let _ = lease::wait(Duration::from_secs(10));
    let wanted = |name: &str| args.is_empty() || args.iter().any(|arg| name.starts_with(arg));
    run(&all()
        .map(|(name, ..)| name)
        .filter(|name| wanted(name))
        .collect::<Vec<_>>())
}

/// The time limit of a test.
fn limit(name: &str) -> Duration {
    Duration::from_secs(match name {
        name if name.contains("thousand") || name.contains("kills") => 150,
        name if name.starts_with(On::Lossy.prefix()) => 90,
        _ => 15,
    })
}

/// Runs tests one after the other, and counts the results.
fn run(names: &[String]) -> ExitCode {
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for name in names {
        match apart::run(&["--one", name], limit(name)) {
            End::Code(0) => passed += 1,
            End::Code(SKIPPED) => skipped += 1,
            End::Code(_) => failed += 1,
            End::Other(why) => {
                failed += 1;
                say(&format!("redox-test {name} FAILED {why}"));
            }
        }
    }
    say(&format!(
        "redox-test: {passed} passed, {failed} failed, {skipped} skipped"
    ));
    match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// The place and message of the first panic: later ones follow from it.
static FIRST: Mutex<Option<String>> = Mutex::new(None);

fn remember(info: &PanicHookInfo<'_>) {
    let place = info.location().map(|at| {
        let file = at.file().rsplit('/').next().unwrap_or_default();
        format!("{file}:{}: ", at.line())
    });
    if let Ok(mut first) = FIRST.lock() {
        first.get_or_insert(place.unwrap_or_default() + message(info.payload()));
    }
}

/// The reason why a test does not apply here.
struct Skip(String);

/// Ends a test that does not apply here.
pub(crate) fn skip(reason: &str) -> ! {
    // Not a panic that is reported.
    panic::resume_unwind(Box::new(Skip(reason.to_owned())))
}

fn message(payload: &dyn Any) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("panic")
}

/// Runs a test in this process.
fn one(name: &str, on: On, test: Test) -> ExitCode {
    panic::set_hook(Box::new(remember));
    let done = panic::catch_unwind(|| on.prepare().map(|place| (test.body)(&place)));
    let done = match done {
        Err(payload) if payload.is::<Skip>() => {
            let reason = payload.downcast::<Skip>();
            Ok(Err(reason.map(|skip| skip.0).unwrap_or_default()))
        }
        done => done,
    };
    match done {
        Ok(Ok(())) => {
            say(&format!("redox-test {name} ok"));
            ExitCode::SUCCESS
        }
        Ok(Err(reason)) => {
            say(&format!("redox-test {name} skipped {reason}"));
            SKIPPED.into()
        }
        Err(_) => {
            let why = FIRST.lock().ok().and_then(|first| first.clone());
            say(&format!(
                "redox-test {name} FAILED {}",
                why.unwrap_or_default()
            ));
            FAILED.into()
        }
    }
}

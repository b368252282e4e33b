//! Runs tests, each in a process of its own, and prints one line for each:
//! `redox-test NAME ok|FAILED|skipped REASON`.
//!
//! A test is a function that panics when something is not as it should be. The program runs tests
//! one after the other, so that all of them can use the one network of the system, and kills those
//! that hang. The same functions are `#[test]`s of the standard harness (with one thread).

use std::any::Any;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::panic::{self, PanicHookInfo, UnwindSafe};
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// The time limit of a test.
fn limit(name: &str) -> Duration {
    Duration::from_secs(match name {
        // The pauses before a daemon that is killed again and again comes back are long.
        name if name.contains("kills") || name.contains("dropped") => 120,
        _ => 40,
    })
}

/// Exit codes of a process that runs one test and reported its result. One that crashes ends with
/// 1.
const FAILED: u8 = 76;
const SKIPPED: u8 = 77;

/// A test: its name and what it does.
#[derive(Clone, Copy)]
pub(crate) struct Test {
    pub(crate) name: &'static str,
    pub(crate) body: fn(),
}

/// Lists the tests of a module, for the program and for the standard harness.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub(crate) const TESTS: &[$crate::harness::Test] = &[
            $($crate::harness::Test { name: stringify!($name), body: $name }),*
        ];

        #[cfg(test)]
        mod libtest {
            $(
                #[test]
                fn $name() {
                    $crate::harness::under_libtest(stringify!($name), super::$name);
                }
            )*
        }
    };
}

/// The reason why a test does not apply.
struct Skip(String);

/// Ends a test that cannot be run here.
pub(crate) fn skip(reason: &str) -> ! {
    panic::panic_any(Skip(reason.to_owned()))
}

/// The result of a test.
enum Verdict {
    Ok,
    Failed(String),
    Skipped(String),
}

/// The place of the last panic.
static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

fn remember(info: &PanicHookInfo<'_>) {
    let place = info
        .location()
        .map(|at| format!("{}:{}: ", at.file(), at.line()));
    if let Ok(mut last) = LAST_PANIC.lock() {
        *last = place.unwrap_or_default();
    }
}

/// The place and message of a panic.
pub(crate) fn message(payload: &(dyn Any + Send)) -> String {
    let said = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("panic");
    let place = LAST_PANIC.lock().map(|last| last.clone());
    format!("{}{said}", place.unwrap_or_default())
}

/// Runs `body` and returns why it failed, if it did.
pub(crate) fn caught(body: impl FnOnce() + UnwindSafe) -> Result<(), Box<dyn Any + Send>> {
    panic::set_hook(Box::new(remember));
    let done = panic::catch_unwind(body);
    let _ = panic::take_hook();
    done
}

fn run(body: fn()) -> Verdict {
    match caught(body) {
        Ok(()) => Verdict::Ok,
        Err(payload) => match payload.downcast_ref::<Skip>() {
            Some(Skip(reason)) => Verdict::Skipped(reason.clone()),
            None => Verdict::Failed(message(&*payload)),
        },
    }
}

/// Prints a line in one write, so that no other output comes in between.
pub(crate) fn say(line: &str) {
    let line = format!("{}\n", line.replace('\n', " | "));
    let mut out = io::stdout().lock();
    let _ = out.write_all(line.as_bytes());
    let _ = out.flush();
}

fn report(name: &str, verdict: &Verdict) {
    match verdict {
        Verdict::Ok => say(&format!("redox-test {name} ok")),
        Verdict::Failed(why) => say(&format!("redox-test {name} FAILED {why}")),
        Verdict::Skipped(why) => say(&format!("redox-test {name} skipped {why}")),
    }
}

/// Runs a test for the standard harness, in a process of its own, on its main thread, which is the
/// one that receives signals. Tests take turns.
#[cfg(test)]
pub(crate) fn under_libtest(name: &str, body: fn()) {
    static TURN: Mutex<()> = Mutex::new(());

    libtest::keep_awake();
    let _turn = TURN.lock();
    let child = crate::sys::fork(|_| {
        crate::sys::new_group();
        let verdict = run(body);
        report(name, &verdict);
        if let Verdict::Failed(_) = verdict {
            crate::sys::exit_now(FAILED.into());
        }
    });
    child.finish();
}

/// Runs one test in this process.
pub(crate) fn run_one(test: Test) -> ExitCode {
    let verdict = run(test.body);
    report(test.name, &verdict);
    match verdict {
        Verdict::Ok => ExitCode::SUCCESS,
        Verdict::Failed(_) => FAILED.into(),
        Verdict::Skipped(_) => SKIPPED.into(),
    }
}

/// Runs tests, each in a process of its own, and counts the results.
pub(crate) fn run_all(tests: &[Test]) -> ExitCode {
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for test in tests {
        match run_apart(*test) {
            Ok(0) => passed += 1,
            Ok(code) if code == SKIPPED.into() => skipped += 1,
            Ok(code) if code == FAILED.into() => failed += 1,
            Ok(code) => {
                failed += 1;
                report(
                    test.name,
                    &Verdict::Failed(format!("ended with code {code}")),
                );
            }
            Err(why) => {
                failed += 1;
                report(test.name, &Verdict::Failed(why));
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

/// Runs the measurements, in a process of their own.
pub(crate) fn run_cost() {
    let program = std::env::current_exe().expect("this program");
    let done = Command::new(program).arg("--cost").status();
    if !done.as_ref().is_ok_and(ExitStatus::success) {
        say(&format!("redox-cost: FAILED {done:?}"));
    }
}

/// The exit code of a process that runs one test, or the reason why there is none.
fn run_apart(test: Test) -> Result<i32, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut process = Command::new(program)
        .args(["--one", test.name])
        // Signals to a test's process group must not reach others.
        .process_group(0)
        .spawn()
        .map_err(|error| format!("cannot start: {error}"))?;
    let (start, limit) = (Instant::now(), limit(test.name));
    loop {
        match process.try_wait() {
            Ok(Some(status)) => return status.code().ok_or_else(|| status.to_string()),
            Ok(None) if start.elapsed() < limit => thread::sleep(Duration::from_millis(5)),
            Ok(None) => {
                // Not waited for: a process that hangs in the kernel does not even die.
                let _ = process.kill();
                thread::sleep(Duration::from_millis(300));
                let _ = process.try_wait();
                return Err(format!("no end within {limit:?}"));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// A workaround for the standard harness. Its main thread sleeps on a futex while a test runs;
/// after a fork the page is another one, and Redox, which knows futexes by the page, wakes no
/// thread. So the main thread is interrupted now and then, and checks for itself.
#[cfg(test)]
mod libtest {
    use std::ffi::c_int;
    use std::sync::Once;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use crate::sys;

    static MAIN: AtomicUsize = AtomicUsize::new(0);

    #[used]
    #[unsafe(link_section = ".init_array")]
    static AT_START: extern "C" fn() = remember_main;

    extern "C" fn remember_main() {
        // SAFETY: takes nothing.
        MAIN.store(unsafe { libc::pthread_self() } as usize, Ordering::Relaxed);
    }

    extern "C" fn nothing(_: c_int) {}

    pub(super) fn keep_awake() {
        static STARTED: Once = Once::new();

        STARTED.call_once(|| {
            sys::on_signal(libc::SIGUSR2, nothing, false);
            thread::spawn(|| {
                loop {
                    thread::sleep(Duration::from_millis(100));
                    let main = MAIN.load(Ordering::Relaxed) as libc::pthread_t;
                    // SAFETY: the main thread lives as long as the process.
                    unsafe { libc::pthread_kill(main, libc::SIGUSR2) };
                }
            });
        });
    }
}

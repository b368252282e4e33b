//! Signals: Ctrl-C, for commands that print something at their end, and calls that one interrupts.

use std::io::{self, Read};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

/// Calls `then`, in a thread of its own, at the first SIGINT or SIGTERM. A process that has not
/// ended a second later, because its output is not read, is killed.
pub(crate) fn at_interrupt(then: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let (mut reader, writer) = io::pipe()?;
    for signal in [SIGINT, SIGTERM] {
        pipe::register(signal, writer.try_clone()?)?;
    }
    thread::spawn(move || {
        if reader.read_exact(&mut [0]).is_ok() {
            thread::spawn(|| {
                thread::sleep(Duration::from_secs(1));
                std::process::exit(130);
            });
            then();
        }
    });
    Ok(())
}

/// Makes a call again for as long as a signal interrupts it, such as that of Ctrl-Z.
pub(crate) fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

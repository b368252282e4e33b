//! The kernel's ping.

/// The time in which an answer has to come, seconds.
const PATIENCE: &str = "30";

/// Has the kernel ping an address so many `times`, one after another. Every ping has to be answered.
/// `run` runs a program on the kernel's side, which has to succeed. Returns what all of them printed.
///
/// Each ping is a program of its own. One that sends several keeps to its `-W` only while none is
/// answered: otherwise it waits for the last answer only twice as long as the slowest one took, or
/// as long as the pause between two. On a busy machine an answer that is on its way takes longer.
pub fn answered(
    times: usize,
    options: &[&str],
    address: &str,
    run: impl Fn(&[&str]) -> String,
) -> String {
    let program = program(&[&["-c", "1"], options].concat(), address);
    (0..times).map(|_| run(&program)).collect()
}

/// A ping that ends when each request led to an answer or an error, and is patient until the first
/// answer.
pub fn program<'a>(options: &[&'a str], address: &'a str) -> Vec<&'a str> {
    [&["ping", "-W", PATIENCE], options, &[address]].concat()
}

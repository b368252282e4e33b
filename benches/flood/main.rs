//! What floods cost: the memory of the stack before, during and after, and what an honest program
//! sees of it.
//!
//! Each flood comes to a daemon of its own, through its mount or over a link. Meanwhile an honest
//! program on the same mount sends one datagram after another to the echo service, and takes the time.
//! Floods are paced, so that what is measured is their effect on the stack, and not that a machine with
//! few cores has no time left; `--times 1000` has them go as fast as they can. `cargo bench --bench
//! flood` prints the table of docs/performance.md. Needs root, FUSE, and for a link a network namespace.

mod bed;
#[path = "../../tests/common/mod.rs"]
mod common;
mod link;
mod mount;
mod table;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use bed::{Bed, Flood};
use link::Link;
use mount::Mount;

/// What floods cost the stack, and an honest program
#[derive(Debug, Parser)]
struct Options {
    /// Seconds before the flood, during it, and after it
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// How many times the usual rate of each flood
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    times: f64,
    /// Only floods whose name begins so
    #[arg(long, value_name = "NAME", default_value = "")]
    row: String,
    /// Little time: to see that it works
    #[arg(long)]
    quick: bool,
    /// The daemon to measure
    #[arg(long, value_name = "PROGRAM", default_value = env!("CARGO_BIN_EXE_tund"))]
    tund: PathBuf,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(reason) = mount::missing() {
        println!("flood: skipped, {reason}");
        return ExitCode::SUCCESS;
    }
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flood: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<()> {
    let bed = Bed {
        seconds: if options.quick { 1.0 } else { options.seconds },
    };
    let mut rows = Vec::new();
    let mut measure = |name: &'static str, rate: u32, mount: &Mount, flood: Flood<'_>| {
        eprintln!("{name}");
        rows.push((
            name,
            bed.measure(mount, options.times * f64::from(rate), flood)?,
        ));
        Ok::<_, io::Error>(())
    };
    let wanted = |name: &str| name.starts_with(&options.row);
    for (name, rate, flood) in mount::FLOODS.iter().filter(|flood| wanted(flood.0)) {
        let mount = Mount::new(&options.tund, &[])?;
        measure(name, *rate, &mount, flood(&mount)?)?;
    }
    let mut link = None;
    for (name, rate, flood) in link::FLOODS.iter().filter(|flood| wanted(flood.0)) {
        if link.is_none() {
            link = Some(Link::new()?);
        }
        if let Some(link) = &link {
            let mount = link.mount(&options.tund)?;
            measure(name, *rate, &mount, flood(link, &mount)?)?;
        }
    }
    table::print(&rows);
    Ok(())
}

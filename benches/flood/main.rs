//! What floods cost: the memory of the stack before, during and after, and what an honest program
//! sees of it.
//!
//! Most floods come through a mount of a daemon of their own; those of a link come from an adapter
//! made by hand, in this process. Meanwhile an honest program, on the same mount or in the same
//! process, sends one datagram after another to the echo service, and takes the time. Floods are
//! paced (`--rate`), so that what is measured is their effect on the stack, and not that a machine
//! with few cores has no time left. `cargo bench --bench flood` prints the table of
//! docs/performance.md. Needs root and FUSE.

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

use bed::Bed;

/// What floods cost the stack, and an honest program
#[derive(Debug, Parser)]
struct Options {
    /// Seconds before the flood, during it, and after it
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Packets, or operations, a second
    #[arg(long, default_value_t = 20_000)]
    rate: u32,
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
        rate: options.rate,
    };
    let mut rows = Vec::new();
    for (name, flood) in mount::FLOODS {
        if name.starts_with(&options.row) {
            eprintln!("{name}");
            let mount = mount::Mount::new(&options.tund)?;
            rows.push((*name, bed.measure(&mount, flood(&mount)?)?));
        }
    }
    for (name, flood) in link::FLOODS {
        if name.starts_with(&options.row) {
            eprintln!("{name}");
            let station = link::Station::new()?;
            rows.push((*name, bed.measure(&station, flood(&station))?));
        }
    }
    table::print(&rows);
    Ok(())
}

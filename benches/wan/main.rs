//! tund beside the Linux kernel over one emulated link, in the same run.
//!
//! A link of our own carries packets between the kernel in a network namespace on the far side, and
//! on the near side either `/scheme/tun/0` of a mount, or the kernel in a second namespace. Both
//! stacks meet the same seeds. `cargo bench --bench wan` prints every table, in about an hour;
//! `-- --quick` roughly, in ten minutes, and `-- --help` tells how to ask for single cells. Needs root,
//! FUSE and /dev/net/tun.

mod bed;
mod cells;
mod host;
mod link;
mod mount;
mod table;
mod tcp;
mod way;

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};

use bed::{Bed, Stack};
use cells::{Cell, Effort, Table};
use table::{Outcome, Run};
use way::Count;

/// tund beside the Linux kernel over one emulated link
#[derive(Debug, Parser)]
struct Options {
    /// Tables to measure [default: all]
    #[arg(value_enum)]
    tables: Vec<Table>,
    /// Only these round trips, milliseconds
    #[arg(long, value_delimiter = ',')]
    rtt: Vec<u64>,
    /// Only these losses, per cent, and without reordering
    #[arg(long, value_delimiter = ',')]
    loss: Vec<f64>,
    /// Seconds of each bulk measurement
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Seeds of each cell with loss or reordering, of which the median counts
    #[arg(long, default_value_t = 5)]
    seeds: u64,
    /// Measurements at the same time, each over a link of its own, where the link is the limit
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// One seed and little time: to see that it works, and roughly what comes out
    #[arg(long)]
    quick: bool,
    /// Write all numbers to this file, for plot.py
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The daemon to measure
    #[arg(long, value_name = "PROGRAM", default_value = env!("CARGO_BIN_EXE_tund"))]
    tund: PathBuf,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    fn effort(&self) -> Effort {
        match self.quick {
            true => Effort {
                seconds: self.seconds.min(5.0),
                seeds: 1,
                repeats: 1,
                fetches: 20,
                exchanges: 2000,
            },
            false => Effort {
                seconds: self.seconds,
                seeds: self.seeds,
                repeats: self.seeds.min(3),
                fetches: 40,
                exchanges: 2000,
            },
        }
    }

    fn cells(&self, table: Table) -> Vec<Cell> {
        let mut cells = Cell::of(table);
        cells.retain(|cell| {
            let rtt = self.rtt.is_empty() || self.rtt.contains(&cell.rtt);
            let fault = cell.fault.reordered == 0.0 && self.loss.contains(&cell.fault.loss);
            rtt && (self.loss.is_empty() || fault)
        });
        cells
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(reason) = Bed::missing() {
        println!("wan: skipped, {reason}");
        return ExitCode::SUCCESS;
    }
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wan: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<()> {
    // Between two measurements, so that no mount is left behind.
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    let effort = options.effort();
    let tables = match options.tables.is_empty() {
        true => Table::ALL.to_vec(),
        false => options.tables.clone(),
    };
    let mut outcomes = Vec::new();
    for table in tables {
        outcomes.extend(measure(options, table, &effort, &interrupted)?);
        table::print(table, &outcomes);
        if let Some(file) = &options.json {
            let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
            let run = Run {
                kernel: kernel.trim().to_owned(),
                effort: &effort,
                outcomes: &outcomes,
            };
            // After each table, so that an interrupted run keeps the tables that are finished.
            fs::write(file, serde_json::to_vec_pretty(&run)?)?;
        }
    }
    Ok(())
}

/// One measurement of a cell.
struct Job {
    cell: usize,
    team: &'static [Stack],
    seed: u64,
}

/// Measures the cells of a table, the stacks in turns.
fn measure(
    options: &Options,
    table: Table,
    effort: &Effort,
    interrupted: &AtomicBool,
) -> io::Result<Vec<Outcome>> {
    let cells = options.cells(table);
    let mut jobs = VecDeque::new();
    for (number, cell) in cells.iter().enumerate() {
        for seed in 1..=cell.times(effort) {
            jobs.extend(cell.teams().iter().map(|&team| Job {
                cell: number,
                team,
                seed,
            }));
        }
    }
    let workers = if table.is_alone() { 1 } else { options.jobs };
    let jobs = Mutex::new(jobs);
    let values: Mutex<BTreeMap<(usize, Stack), Vec<f64>>> = Mutex::default();
    let work = || -> io::Result<()> {
        loop {
            let next = jobs
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front();
            let Some(Job { cell, team, seed }) = next else {
                return Ok(());
            };
            if interrupted.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let measured = cells[cell].measure(team, seed, effort, &options.tund)?;
            let mut values = values.lock().unwrap_or_else(PoisonError::into_inner);
            for (&stack, numbers) in team.iter().zip(measured.numbers) {
                tell(&cells[cell], stack, seed, &numbers, measured.packets);
                values.entry((cell, stack)).or_default().extend(numbers);
            }
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..workers.max(1)).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| {
            let joined = thread.join();
            joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })?;
    let values = values.into_inner().unwrap_or_else(PoisonError::into_inner);
    let of = |cell, stack| values.get(&(cell, stack)).cloned().unwrap_or_default();
    let outcomes = cells.iter().enumerate();
    let outcomes = outcomes.map(|(number, cell)| Outcome::new(*cell, |stack| of(number, stack)));
    Ok(outcomes.collect())
}

/// Prints one line of progress.
fn tell(cell: &Cell, stack: Stack, seed: u64, numbers: &[f64], packets: [Count; 2]) {
    let mean = numbers.iter().sum::<f64>() / numbers.len().max(1) as f64;
    let [out, back] = packets.map(|count| {
        let Count {
            offered,
            lost,
            overflowed,
            late,
        } = count;
        format!("{offered} packets, {lost} lost, {overflowed} overflowed, {late} late")
    });
    eprintln!(
        "{:?}, RTT {} ms, {}, {:?}, seed {seed}: {stack} {mean:.2} (out: {out}; back: {back})",
        cell.table, cell.rtt, cell.fault, cell.direction
    );
}

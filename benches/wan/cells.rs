//! The measurements: the cells of each table, and a single measurement of a cell.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use crate::bed::{Bed, Stack};
use crate::tcp::{Direction, Length, bulk, echoes, fetches};
use crate::way::{Count, Shape};

/// Round trips of the tables, milliseconds.
const ROUND_TRIPS: [u64; 4] = [0, 20, 100, 200];
/// The size of a fetched file, bytes.
const FETCH: usize = 100_000;
/// Connections that exchange bytes at the same time.
const EXCHANGING: usize = 20;

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Table {
    /// Goodput of one flow at 50 Mbit/s, over round trip and loss
    Grid,
    /// Goodput of one flow without a rate limit
    Unlimited,
    /// Goodput of eight flows without a rate limit
    Eight,
    /// Time to fetch 100 kB at a round trip of 100 ms
    Fetch,
    /// One byte there and back at a round trip of 20 ms with 2 % loss
    Echo,
    /// Two flows, one of each stack, in one bottleneck at a round trip of 100 ms
    Fair,
}

impl Table {
    /// All of them.
    pub(crate) const ALL: [Self; 6] = [
        Self::Grid,
        Self::Unlimited,
        Self::Eight,
        Self::Fetch,
        Self::Echo,
        Self::Fair,
    ];

    /// Whether a measurement wants the machine for itself.
    pub(crate) fn is_alone(self) -> bool {
        matches!(self, Self::Unlimited | Self::Eight)
    }
}

/// The faults of the emulated network.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Fault {
    /// Share of packets lost each way, per cent.
    pub(crate) loss: f64,
    /// Share of packets that come late, per cent.
    pub(crate) reordered: f64,
}

impl Fault {
    /// No faults.
    pub(crate) const NONE: Self = Self::lost(0.0);
    /// The rows of the grid.
    pub(crate) const GRID: [Self; 5] = [
        Self::NONE,
        Self::lost(0.1),
        Self::lost(1.0),
        Self::lost(3.0),
        Self {
            loss: 0.0,
            reordered: 1.0,
        },
    ];

    /// Loss, in per cent.
    pub(crate) const fn lost(loss: f64) -> Self {
        Self {
            loss,
            reordered: 0.0,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NONE => f.write_str("no loss"),
            Self { loss, .. } if loss > 0.0 => write!(f, "{loss} % lost"),
            Self { reordered, .. } => write!(f, "{reordered} % reordered"),
        }
    }
}

/// The extent of the measurements.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Effort {
    /// Seconds of each bulk measurement; the fair one takes six times as long.
    pub(crate) seconds: f64,
    /// Seeds of a cell in which chance plays.
    pub(crate) seeds: u64,
    /// Measurements of a cell without random faults.
    pub(crate) repeats: u64,
    /// Fetches with each seed.
    pub(crate) fetches: usize,
    /// Exchanges with each seed.
    pub(crate) exchanges: usize,
}

/// A cell of a table, for both stacks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Cell {
    /// The table that the cell belongs to.
    pub(crate) table: Table,
    /// Round trip, milliseconds.
    pub(crate) rtt: u64,
    /// The faults of the network.
    #[serde(flatten)]
    pub(crate) fault: Fault,
    /// The side that sends.
    pub(crate) direction: Direction,
}

impl Cell {
    /// The cells of a table, where round trip and fault are among those wanted.
    pub(crate) fn of(table: Table) -> Vec<Self> {
        let (round_trips, faults): (&[u64], &[Fault]) = match table {
            Table::Grid => (&ROUND_TRIPS, &Fault::GRID),
            Table::Unlimited => (&ROUND_TRIPS[1..], &[Fault::NONE]),
            Table::Eight => (&[20, 100], &[Fault::NONE]),
            Table::Fetch => (&[100], &[Fault::NONE, Fault::lost(2.0)]),
            Table::Echo => (&[20], &[Fault::lost(2.0)]),
            Table::Fair => (&[100], &[Fault::NONE]),
        };
        let directions: &[Direction] = match table {
            Table::Echo | Table::Fair => &[Direction::D],
            _ => &[Direction::D, Direction::U],
        };
        let mut cells = Vec::new();
        for &fault in faults {
            for &rtt in round_trips {
                cells.extend(directions.iter().map(|&direction| Self {
                    table,
                    rtt,
                    fault,
                    direction,
                }));
            }
        }
        cells
    }

    /// The number of measurements of this cell.
    pub(crate) fn times(&self, effort: &Effort) -> u64 {
        match self.fault {
            _ if self.table == Table::Fair => 1,
            Fault::NONE => effort.repeats,
            _ => effort.seeds,
        }
    }

    /// The stacks that are measured at the same time: in the fair cell both share one line.
    pub(crate) fn teams(&self) -> &'static [&'static [Stack]] {
        match self.table {
            Table::Fair => &[&Stack::BOTH],
            _ => &[&[Stack::Tund], &[Stack::Linux]],
        }
    }

    /// Makes one measurement.
    pub(crate) fn measure(
        &self,
        team: &[Stack],
        seed: u64,
        effort: &Effort,
        tund: &Path,
    ) -> io::Result<Measured> {
        let mut shape = Shape {
            loss: self.fault.loss / 100.0,
            reordered: self.fault.reordered / 100.0,
            seed,
            ..Shape::line(self.rtt)
        };
        if matches!(self.table, Table::Unlimited | Table::Eight) {
            shape.rate = None;
        }
        let time = |factor| Length::Time(Duration::from_secs_f64(effort.seconds * factor));
        let bed = Bed::new(team, shape, tund)?;
        let each = |rates: Vec<f64>| rates.into_iter().map(|rate| vec![rate]).collect();
        let direction = self.direction;
        let numbers = match self.table {
            Table::Grid | Table::Unlimited => each(bulk(&bed, 1, 1, direction, time(1.0))?),
            Table::Eight => each(bulk(&bed, 1, 8, direction, time(1.0))?),
            Table::Fair => each(bulk(&bed, team.len(), 1, direction, time(6.0))?),
            Table::Fetch => vec![fetches(&bed, effort.fetches, FETCH, direction)?],
            Table::Echo => {
                let each = effort.exchanges.div_ceil(EXCHANGING);
                vec![echoes(&bed, EXCHANGING, each)?]
            }
        };
        let packets = bed.link().counts();
        Ok(Measured { numbers, packets })
    }
}

/// The result of one measurement.
#[derive(Debug)]
pub(crate) struct Measured {
    /// For each stack of the team: Mbit/s or milliseconds.
    pub(crate) numbers: Vec<Vec<f64>>,
    /// The packet counters: first of the way to the far side, then of the way back.
    pub(crate) packets: [Count; 2],
}

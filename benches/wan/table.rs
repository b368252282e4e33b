//! Results, and the tables they make: Markdown, as docs/performance.md has them.

use std::fmt::Display;

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table as Grid};
use serde::Serialize;

use crate::bed::Stack;
use crate::cells::{Cell, Effort, Fault, Table};
use crate::tcp::Direction;

/// The results of one cell.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    #[serde(flatten)]
    cell: Cell,
    tund: Numbers,
    linux: Numbers,
}

/// The numbers of one stack: Mbit/s, one for each seed, or milliseconds of all fetches or exchanges.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Numbers {
    median: f64,
    p95: f64,
    p99: f64,
    values: Vec<f64>,
}

impl Numbers {
    fn new(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self {
            median: quantile(&values, 0.5),
            p95: quantile(&values, 0.95),
            p99: quantile(&values, 0.99),
            values,
        }
    }
}

/// The lower of two middle values, so that an even number of seeds favours neither stack.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = (sorted.len() as f64 * share).ceil() as usize;
    sorted
        .get(at.saturating_sub(1))
        .copied()
        .unwrap_or(f64::NAN)
}

impl Outcome {
    /// The outcome of a cell, from all values of both stacks.
    pub(crate) fn new(cell: Cell, values: impl Fn(Stack) -> Vec<f64>) -> Self {
        Self {
            cell,
            tund: Numbers::new(values(Stack::Tund)),
            linux: Numbers::new(values(Stack::Linux)),
        }
    }

    /// A quantity of both, and their ratio: `0.46 (22.1 / 47.9)`.
    fn text(&self, of: impl Fn(&Numbers) -> f64, decimals: usize) -> String {
        let (tund, linux) = (of(&self.tund), of(&self.linux));
        format!(
            "{:.2} ({tund:.decimals$} / {linux:.decimals$})",
            tund / linux
        )
    }

    fn median(&self) -> String {
        self.text(|numbers| numbers.median, 1)
    }
}

/// Everything of one run, as the file of `--json` has it.
#[derive(Debug, Serialize)]
pub(crate) struct Run<'a> {
    /// The release of the kernel that was measured.
    pub(crate) kernel: String,
    /// The extent of the measurements.
    pub(crate) effort: &'a Effort,
    /// The results, one for each cell.
    pub(crate) outcomes: &'a [Outcome],
}

/// Prints the table that these outcomes are of.
pub(crate) fn print(table: Table, outcomes: &[Outcome]) {
    let of_table: Vec<_> = outcomes
        .iter()
        .filter(|outcome| outcome.cell.table == table)
        .collect();
    if of_table.is_empty() {
        return;
    }
    let grid = match table {
        Table::Grid | Table::Unlimited | Table::Eight => goodput(&of_table),
        Table::Fetch | Table::Echo => times(&of_table),
        Table::Fair => fair(&of_table),
    };
    println!("\n{}\n\n{grid}", title(table));
}

fn title(table: Table) -> &'static str {
    match table {
        Table::Grid => {
            "One flow at 50 Mbit/s with a queue of 100 packets: goodput tund/Linux (Mbit/s of each)."
        }
        Table::Unlimited => "One flow without a rate limit: the same.",
        Table::Eight => "Eight flows without a rate limit: the same.",
        Table::Fetch => {
            "100 kB over a new connection, round trip of 100 ms: tund/Linux (ms of each)."
        }
        Table::Echo => "One byte there and back, round trip of 20 ms: tund/Linux (ms of each).",
        Table::Fair => "Two flows in one bottleneck of 50 Mbit/s, round trip of 100 ms, Mbit/s.",
    }
}

fn goodput(outcomes: &[&Outcome]) -> Grid {
    let mut round_trips: Vec<_> = outcomes.iter().map(|outcome| outcome.cell.rtt).collect();
    round_trips.sort_unstable();
    round_trips.dedup();
    let columns = round_trips.iter().map(|rtt| format!("RTT {rtt} ms"));
    let mut grid = grid(
        [String::new(), "sends".to_owned()]
            .into_iter()
            .chain(columns),
    );
    let mut rows: Vec<(Fault, Direction)> = Vec::new();
    for outcome in outcomes {
        let row = (outcome.cell.fault, outcome.cell.direction);
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    rows.sort_by_key(|(_, direction)| *direction);
    for (fault, direction) in rows {
        let cells = round_trips.iter().map(|&rtt| {
            let wanted = (fault, direction, rtt);
            let found = outcomes.iter().find(|outcome| {
                (outcome.cell.fault, outcome.cell.direction, outcome.cell.rtt) == wanted
            });
            found.map_or_else(String::new, |outcome| outcome.median())
        });
        let head = [fault.to_string(), sender(direction).to_owned()];
        grid.add_row(head.into_iter().chain(cells));
    }
    grid
}

fn times(outcomes: &[&Outcome]) -> Grid {
    let mut grid = grid(["", "sends", "median", "95 %", "99 %"]);
    for outcome in outcomes {
        grid.add_row([
            outcome.cell.fault.to_string(),
            match outcome.cell.table {
                Table::Echo => "both".to_owned(),
                _ => sender(outcome.cell.direction).to_owned(),
            },
            outcome.text(|numbers| numbers.median, 0),
            outcome.text(|numbers| numbers.p95, 0),
            outcome.text(|numbers| numbers.p99, 0),
        ]);
    }
    grid
}

fn fair(outcomes: &[&Outcome]) -> Grid {
    let mut grid = grid(["tund", "Linux", "ratio"]);
    for Outcome { tund, linux, .. } in outcomes {
        let (tund, linux) = (tund.median, linux.median);
        let ratio = tund / linux;
        grid.add_row([tund, linux, ratio].map(|number| format!("{number:.2}")));
    }
    grid
}

fn sender(direction: Direction) -> &'static str {
    match direction {
        Direction::D => "we",
        Direction::U => "peer",
    }
}

fn grid(columns: impl IntoIterator<Item = impl Display>) -> Grid {
    let mut grid = Grid::new();
    grid.load_style(ASCII_MARKDOWN);
    grid.set_header(columns.into_iter().map(|column| column.to_string()));
    for column in grid.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    grid
}

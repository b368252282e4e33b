//! The table, in Markdown, as docs/performance.md has it.

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};

use crate::bed::Outcome;

pub(crate) fn print(rows: &[(&str, Outcome)]) {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header([
        "flood",
        "a second",
        "before, MB",
        "at most",
        "after",
        "p50 before, us",
        "during",
        "ratio",
        "p99 before",
        "during",
    ]);
    for (name, outcome) in rows {
        let Outcome {
            memory,
            times: [alone, beside],
            rate,
        } = outcome;
        let mb = memory.map(|bytes| format!("{:.1}", bytes as f64 / 1e6));
        let us = |time: std::time::Duration| format!("{}", time.as_micros());
        let ratio = beside.p50.as_secs_f64() / alone.p50.as_secs_f64();
        let cells = [(*name).to_owned(), format!("{rate:.0}")];
        let times = [
            us(alone.p50),
            us(beside.p50),
            format!("{ratio:.2}"),
            us(alone.p99),
            us(beside.p99),
        ];
        table.add_row(cells.into_iter().chain(mb).chain(times));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
}

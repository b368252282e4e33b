//! The picture: interfaces, what they drop, and the busiest sockets.

use std::collections::VecDeque;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::bar;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Row, Table};

use super::sample::{History, KEPT};

/// Sockets that are shown, if there is room for them.
const SOCKETS: usize = 10;
/// Columns of the rates of the last minute.
const SPARK: u16 = 20;
/// Lines of a table besides its rows.
const AROUND: u16 = 2;

/// The lines that all of the picture takes.
pub(super) fn height(history: &History) -> u16 {
    let now = history.now();
    // A table without rows has a line that says so.
    let sockets = now.sockets.len().clamp(1, SOCKETS);
    let rows = now.interfaces.len() + now.drops.len().max(1) + sockets;
    u16::try_from(rows)
        .unwrap_or(u16::MAX)
        .saturating_add(1 + 3 * AROUND)
}

/// Draws the picture; `root` is where it is from, on a terminal on which it can be left.
pub(super) fn draw(frame: &mut Frame<'_>, history: &History, root: Option<&str>) {
    let now = history.now();
    let lines = |rows: usize| {
        u16::try_from(rows)
            .unwrap_or(u16::MAX)
            .saturating_add(AROUND)
    };
    let [head, interfaces, drops, sockets] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Max(lines(now.interfaces.len())),
        Constraint::Max(lines(now.drops.len().max(1))),
        Constraint::Min(AROUND + 1),
    ])
    .areas(frame.area());
    let title = match root {
        Some(root) => format!("tunctl top: {root}, the last minute    q: leave"),
        None => "tunctl top".to_owned(),
    };
    let bold = Style::new().add_modifier(Modifier::BOLD);
    frame.render_widget(Paragraph::new(Line::styled(title, bold)), head);
    draw_interfaces(frame, interfaces, history);
    draw_drops(frame, drops, history);
    draw_sockets(frame, sockets, history);
}

fn table<'a>(
    title: &'a str,
    header: Vec<String>,
    rows: Vec<Row<'a>>,
    widths: &[Constraint],
) -> Table<'a> {
    let block = Block::new().borders(Borders::TOP).title(title);
    let header = Row::new(header).style(Style::new().fg(Color::Cyan));
    Table::new(rows, widths.iter().copied())
        .header(header)
        .block(block)
        .column_spacing(1)
}

fn right(text: impl Into<Span<'static>>) -> Line<'static> {
    Line::from(text.into()).right_aligned()
}

fn draw_interfaces(frame: &mut Frame<'_>, area: Rect, history: &History) {
    let rows = history.now().interfaces.iter().map(|rates| {
        let [before_in, before_out] = match history.rates(&rates.name) {
            Some(kept) => [spark(&kept[0]), spark(&kept[1])],
            None => [String::new(), String::new()],
        };
        let (state, color) = match rates.up {
            true => ("up", Color::Green),
            false => ("down", Color::DarkGray),
        };
        let number =
            |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
        let delay = rates.delay_us.map_or("-".to_owned(), micros);
        let drops = match rates.drops {
            0 => Style::new(),
            _ => Style::new().fg(Color::Red),
        };
        Row::new([
            Line::from(rates.name.clone()),
            Line::styled(state, Style::new().fg(color)),
            right(bits(rates.in_bits)),
            Line::from(before_in),
            right(bits(rates.out_bits)),
            Line::from(before_out),
            right(format!("{}/{}", rates.in_packets, rates.out_packets)),
            right(number(rates.queued)),
            right(delay),
            right(Span::styled(rates.drops.to_string(), drops)),
        ])
    });
    let header = [
        "interface",
        "state",
        "in",
        "",
        "out",
        "",
        "pkt/s in/out",
        "queued",
        "delay",
        "drops/s",
    ];
    let widths = [
        Constraint::Length(9),
        Constraint::Length(5),
        Constraint::Length(11),
        Constraint::Max(SPARK),
        Constraint::Length(11),
        Constraint::Max(SPARK),
        Constraint::Length(13),
        Constraint::Length(6),
        Constraint::Length(8),
        Constraint::Length(7),
    ];
    let header = header.map(str::to_owned).to_vec();
    frame.render_widget(table("interfaces", header, rows.collect(), &widths), area);
}

fn draw_drops(frame: &mut Frame<'_>, area: Rect, history: &History) {
    let drops = &history.now().drops;
    let rows = drops.iter().map(|drops| {
        Row::new([
            Line::from(drops.interface.clone()),
            Line::from(drops.reason.replace('_', " ")),
            right(drops.per_second.to_string()),
            right(drops.total.to_string()),
        ])
    });
    let mut rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        rows.push(Row::new(["none"]));
    }
    let widths = [
        Constraint::Length(9),
        Constraint::Length(20),
        Constraint::Length(10),
        Constraint::Length(12),
    ];
    let header = ["interface", "reason", "per second", "total"]
        .map(str::to_owned)
        .to_vec();
    frame.render_widget(table("drops that rose", header, rows, &widths), area);
}

fn draw_sockets(frame: &mut Frame<'_>, area: Rect, history: &History) {
    let sockets = &history.now().sockets;
    let rows = sockets.iter().take(SOCKETS).map(|busy| {
        let socket = &busy.socket;
        let pid = match socket.number("pid") {
            0 => String::new(),
            pid => pid.to_string(),
        };
        Row::new([
            Line::from(socket.kind()),
            Line::from(socket.state().to_owned()),
            right(bits(busy.in_bits)),
            right(bits(busy.out_bits)),
            right(socket.number("recv").to_string()),
            right(socket.number("send").to_string()),
            right(pid),
            Line::from(socket.local.clone()),
            Line::from(socket.remote.clone()),
        ])
    });
    let widths = [
        Constraint::Length(6),
        Constraint::Length(12),
        Constraint::Length(11),
        Constraint::Length(11),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(7),
        Constraint::Fill(1),
        Constraint::Fill(1),
    ];
    let header = [
        "netid", "state", "in", "out", "recv-q", "send-q", "pid", "local", "remote",
    ];
    let title = format!("the busiest of {} sockets", sockets.len());
    let header = header.map(str::to_owned).to_vec();
    frame.render_widget(table(&title, header, rows.collect(), &widths), area);
}

/// A rate with a unit that fits it.
fn bits(rate: u64) -> String {
    let rate = rate as f64;
    match rate {
        1e9.. => format!("{:.2} Gbit/s", rate / 1e9),
        1e6.. => format!("{:.1} Mbit/s", rate / 1e6),
        1e3.. => format!("{:.1} kbit/s", rate / 1e3),
        _ => format!("{rate:.0} bit/s"),
    }
}

fn micros(micros: u64) -> String {
    match micros {
        0..1000 => format!("{micros} us"),
        _ => format!("{:.1} ms", micros as f64 / 1e3),
    }
}

/// The last minute in bars, as high as the highest rate of that time asks for.
fn spark(rates: &VecDeque<u64>) -> String {
    let width = usize::from(SPARK);
    let highest = rates.iter().copied().max().unwrap_or(0).max(1);
    // Several looks share a column, which shows the highest of them; the newest are on the right.
    let newest_first: Vec<u64> = rates.iter().rev().copied().collect();
    let columns = newest_first.chunks(KEPT.div_ceil(width)).map(|looks| {
        let column = looks.iter().copied().max().unwrap_or(0);
        match column.saturating_mul(8).div_ceil(highest) {
            0 => " ",
            1 => bar::ONE_EIGHTH,
            2 => bar::ONE_QUARTER,
            3 => bar::THREE_EIGHTHS,
            4 => bar::HALF,
            5 => bar::FIVE_EIGHTHS,
            6 => bar::THREE_QUARTERS,
            7 => bar::SEVEN_EIGHTHS,
            _ => bar::FULL,
        }
    });
    let columns: Vec<_> = columns.collect();
    let text: String = columns.into_iter().rev().collect();
    format!("{text:>width$}")
}

#[cfg(test)]
mod tests {
    use super::super::picture;
    use super::super::sample::tests::history;
    use super::*;

    #[test]
    fn the_picture_has_all_of_it() {
        let history = history();
        let text = picture(&history, 120, height(&history)).unwrap();
        for shown in [
            "tun0",
            "up",
            "1.0 Mbit/s",
            "100/0",
            "1.5 ms",
            "no port",
            "ESTABLISHED",
            "2.0 Mbit/s",
            "10.0.0.2:40000",
            "the busiest of 2 sockets",
            "█",
        ] {
            assert!(text.contains(shown), "{shown} in:\n{text}");
        }
        assert!(!text.contains("purged"), "{text}");
    }

    #[test]
    fn a_screen_of_any_size() {
        let history = history();
        for (width, height) in [(1, 1), (20, 5), (80, 24), (300, 100)] {
            picture(&history, width, height).unwrap();
        }
    }

    #[test]
    fn bars_grow_with_the_rates() {
        let bars = |rates: &[u64]| {
            spark(&rates.iter().copied().collect())
                .trim_start()
                .to_owned()
        };
        assert_eq!(bars(&[]), "");
        assert_eq!(bars(&[0, 0, 8, 0, 0, 4]), "█▄");
        assert_eq!(
            spark(&(0..60).collect()).chars().count(),
            usize::from(SPARK)
        );
    }
}

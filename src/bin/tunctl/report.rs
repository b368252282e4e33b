//! Output as tables for people, and as JSON for programs.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use comfy_table::presets::{NOTHING, UTF8_FULL_CONDENSED};
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use crate::tree::{Failure, Tree};

/// Everything about an interface.
#[derive(Debug, Serialize)]
struct Interface {
    name: String,
    flags: Vec<String>,
    mtu: u16,
    addresses: Vec<String>,
    mac: Option<String>,
    opened_by: Option<u32>,
    queue: String,
    multicast: Vec<String>,
    stats: BTreeMap<String, u64>,
    ledger: BTreeMap<String, u64>,
}

impl Interface {
    fn read(tree: &Tree, name: &str) -> Result<Self, Failure> {
        let get = |file: &str| tree.get(name, file);
        let words = |text: String, separator: char| -> Vec<String> {
            let words = text.trim().split(separator).map(str::to_owned);
            words.filter(|word| !word.is_empty()).collect()
        };
        let mtu = get("mtu")?;
        let mac = get("mac")?;
        let opened = get("status")?;
        Ok(Self {
            name: name.to_owned(),
            flags: words(get("flags")?, ','),
            mtu: mtu
                .trim()
                .parse()
                .map_err(|_| Failure::new(format!("{name}: mtu {mtu}")))?,
            addresses: words(get("addr/list")?, '\n'),
            mac: Some(mac.trim().to_owned()).filter(|mac| mac != "Not configured"),
            opened_by: opened
                .rsplit(' ')
                .next()
                .and_then(|pid| pid.trim().parse().ok()),
            queue: get("queue")?.trim().to_owned(),
            multicast: words(get("multicast")?, '\n'),
            stats: counters(&get("stats")?),
            ledger: counters(&get("ledger")?),
        })
    }
}

/// Parses lines of names and numbers.
fn counters(text: &str) -> BTreeMap<String, u64> {
    let counter = |line: &str| {
        let (name, count) = line.split_once(' ')?;
        Some((name.to_owned(), count.parse().ok()?))
    };
    text.lines().filter_map(counter).collect()
}

pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value);
    let text = text.map_err(|error| Failure::new(error.to_string()))?;
    say(&text)
}

/// Prints a text. If the reader of a pipe is gone, that is not an error.
pub(crate) fn say(text: &str) -> Result<(), Failure> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::new(error.to_string())),
        Ok(()) => Ok(()),
    }
}

/// Tells the user something beside the output. Where that cannot be printed, nothing can.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(header);
    table
}

fn align_right(table: &mut Table, from: usize) {
    for column in table.column_iter_mut().skip(from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

/// One setting as JSON: a number or bool if it is one.
pub(crate) fn value(
    text: &str,
    json: bool,
    parse: impl FnOnce(&str) -> serde_json::Value,
) -> Result<(), Failure> {
    let text = text.trim();
    match json {
        true => print_json(&parse(text)),
        false => say(text),
    }
}

/// Prints a text with one setting on each line.
pub(crate) fn lines(text: &str, json: bool) -> Result<(), Failure> {
    match json {
        true => print_json(&text.lines().collect::<Vec<_>>()),
        false => say(text.trim_end()),
    }
}

pub(crate) fn list(tree: &Tree, json: bool) -> Result<(), Failure> {
    let names = tree.interfaces()?;
    let mut interfaces = Vec::new();
    for name in &names {
        match Interface::read(tree, name) {
            Ok(interface) => interfaces.push(interface),
            // An interface that was removed in the meantime is not listed.
            Err(_) if !tree.interfaces()?.contains(name) => {}
            Err(failure) => return Err(failure),
        }
    }
    if json {
        return print_json(&interfaces);
    }
    let mut table = table(&["interface", "flags", "mtu", "addresses", "opened by"]);
    for Interface {
        name,
        flags,
        mtu,
        addresses,
        opened_by,
        ..
    } in interfaces
    {
        let opened_by = opened_by.map_or_else(String::new, |pid| format!("PID {pid}"));
        table.add_row([
            name,
            flags.join(","),
            mtu.to_string(),
            addresses.join("\n"),
            opened_by,
        ]);
    }
    say(&table.to_string())
}

pub(crate) fn show(tree: &Tree, name: &str, json: bool) -> Result<(), Failure> {
    let interface = Interface::read(tree, name)?;
    if json {
        return print_json(&interface);
    }
    let mut table = Table::new();
    table.load_style(NOTHING);
    let none = |text: String| {
        if text.is_empty() {
            "none".to_owned()
        } else {
            text
        }
    };
    let opened = interface
        .opened_by
        .map_or_else(|| "nobody".to_owned(), |pid| format!("PID {pid}"));
    table.add_row(["interface", &interface.name]);
    table.add_row(["flags", &interface.flags.join(",")]);
    table.add_row(["mtu", &interface.mtu.to_string()]);
    table.add_row(["addresses", &none(interface.addresses.join("\n"))]);
    if let Some(mac) = &interface.mac {
        table.add_row(["mac", mac]);
    }
    table.add_row(["opened by", &opened]);
    table.add_row(["queue", &interface.queue]);
    table.add_row(["groups", &none(interface.multicast.join("\n"))]);
    // Cut the blanks that fill the last column.
    say(&table.trim_fmt())?;
    say("")?;
    say(&stats_table(&interface.stats, &interface.ledger))
}

fn stats_table(stats: &BTreeMap<String, u64>, ledger: &BTreeMap<String, u64>) -> String {
    let get = |from: &BTreeMap<String, u64>, name: &str| from.get(name).copied().unwrap_or(0);
    let mut text = String::new();
    let mut counted = table(&["", "packets", "bytes", "errors", "drops"]);
    for (way, letter, drops) in [("in", 'i', "iqdrops"), ("out", 'o', "odrops")] {
        let stat = |name: &str| get(stats, &format!("{letter}{name}")).to_string();
        let drops = get(stats, drops).to_string();
        counted.add_row([
            way.to_owned(),
            stat("packets"),
            stat("bytes"),
            stat("errors"),
            drops,
        ]);
    }
    align_right(&mut counted, 1);
    text.push_str(&counted.to_string());
    let parts = ["offered", "delivered", "forwarded", "queued", "dropped"];
    let mut books = table(&["ledger", parts[0], parts[1], parts[2], parts[3], parts[4]]);
    for way in ["in", "out"] {
        let part = |part: &&str| get(ledger, &format!("{way}.{part}")).to_string();
        books.add_row(std::iter::once(way.to_owned()).chain(parts.iter().map(part)));
    }
    align_right(&mut books, 1);
    text.push('\n');
    text.push_str(&books.to_string());
    for (name, count) in stats {
        if let (Some(reason), 1..) = (name.strip_prefix("drop."), *count) {
            text.push_str(&format!(
                "\n  dropped, {}: {count}",
                reason.replace('_', " ")
            ));
        }
    }
    text
}

/// The counters of an interface, for programs.
#[derive(Debug, Serialize)]
struct Stats {
    interface: String,
    stats: BTreeMap<String, u64>,
    ledger: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rates: Option<Rates>,
}

impl Stats {
    fn read(tree: &Tree, name: &str) -> Result<Self, Failure> {
        Ok(Self {
            interface: name.to_owned(),
            stats: counters(&tree.get(name, "stats")?),
            ledger: counters(&tree.get(name, "ledger")?),
            rates: None,
        })
    }

    fn table(&self) -> String {
        stats_table(&self.stats, &self.ledger)
    }
}

/// The rates: differences of counters, per second.
#[derive(Clone, Copy, Debug, Serialize)]
struct Rates {
    ipackets: f64,
    ibytes: f64,
    opackets: f64,
    obytes: f64,
}

impl Rates {
    fn between(before: &Stats, now: &Stats, took: Duration) -> Self {
        let rate = |counter: &str| {
            let get = |from: &Stats| from.stats.get(counter).copied().unwrap_or(0);
            get(now).saturating_sub(get(before)) as f64 / took.as_secs_f64()
        };
        Self {
            ipackets: rate("ipackets"),
            ibytes: rate("ibytes"),
            opackets: rate("opackets"),
            obytes: rate("obytes"),
        }
    }
}

pub(crate) fn stats(tree: &Tree, name: &str, json: bool) -> Result<(), Failure> {
    let stats = Stats::read(tree, name)?;
    match json {
        true => print_json(&stats),
        false => say(&stats.table()),
    }
}

/// Prints the counters again and again, with rates; on a terminal in the same place, and for
/// programs as one object per line.
pub(crate) fn watch(
    tree: &Tree,
    name: &str,
    interval: Duration,
    json: bool,
) -> Result<(), Failure> {
    let mut before = Stats::read(tree, name)?;
    let mut looked = Instant::now();
    loop {
        std::thread::sleep(interval);
        let mut now = Stats::read(tree, name)?;
        let rates = Rates::between(&before, &now, looked.elapsed());
        looked = Instant::now();
        if json {
            now.rates = Some(rates);
            let line = serde_json::to_string(&now);
            say(&line.map_err(|error| Failure::new(error.to_string()))?)?;
        } else {
            if std::io::stdout().is_terminal() {
                // Move the cursor home, and clear to the end.
                say("\x1b[H\x1b[J")?;
            }
            say(&rates_table(name, &rates))?;
            say(&now.table())?;
        }
        before = now;
    }
}

fn rates_table(name: &str, rates: &Rates) -> String {
    let mut table = table(&[name, "packets/s", "Mbit/s"]);
    for (way, packets, bytes) in [
        ("in", rates.ipackets, rates.ibytes),
        ("out", rates.opackets, rates.obytes),
    ] {
        let packets = format!("{packets:.0}");
        let megabits = format!("{:.2}", bytes * 8e-6);
        table.add_row([way.to_owned(), packets, megabits]);
    }
    align_right(&mut table, 1);
    table.to_string()
}

/// A line of the routing table, or of `route/lookup`.
#[derive(Debug, Default, Serialize)]
pub(crate) struct RouteLine {
    /// For an address of this machine, and for a group, the address.
    pub(crate) prefix: String,
    /// What the address is: local, multicast or broadcast.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<String>,
    pub(crate) unreachable: bool,
    pub(crate) via: Option<String>,
    pub(crate) dev: Option<String>,
    pub(crate) src: Option<String>,
    pub(crate) metric: u32,
}

impl RouteLine {
    pub(crate) fn parse(line: &str) -> Self {
        let mut words = line.split_ascii_whitespace().map(str::to_owned);
        let mut route = Self {
            prefix: words.next().unwrap_or_default(),
            ..Self::default()
        };
        if matches!(route.prefix.as_str(), "local" | "multicast" | "broadcast") {
            route.kind = Some(route.prefix);
            route.prefix = words.next().unwrap_or_default();
        }
        while let Some(word) = words.next() {
            match word.as_str() {
                "unreachable" => route.unreachable = true,
                "via" => route.via = words.next(),
                "dev" => route.dev = words.next(),
                "src" => route.src = words.next(),
                _ => route.metric = words.next().and_then(|n| n.parse().ok()).unwrap_or(0),
            }
        }
        route
    }
}

/// The answer of `route/lookup`.
pub(crate) fn route(line: &str, json: bool) -> Result<(), Failure> {
    match json {
        true => print_json(&RouteLine::parse(line)),
        false => say(line.trim_end()),
    }
}

pub(crate) fn routes(tree: &Tree, json: bool) -> Result<(), Failure> {
    let text = tree.read("netcfg/route/list")?;
    let routes: Vec<_> = text.lines().map(RouteLine::parse).collect();
    if json {
        return print_json(&routes);
    }
    let mut table = table(&["destination", "via", "interface", "source", "metric"]);
    for RouteLine {
        prefix,
        unreachable,
        via,
        dev,
        src,
        metric,
        ..
    } in routes
    {
        let text = |text: Option<String>| text.unwrap_or_default();
        let via = via.or_else(|| unreachable.then(|| "unreachable".to_owned()));
        table.add_row([prefix, text(via), text(dev), text(src), metric.to_string()]);
    }
    say(&table.to_string())
}

//! Reading and writing `netcfg`.

use std::collections::BTreeMap;
use std::{fs, io};

/// The path of a setting.
pub(crate) fn path(name: &str) -> String {
    format!("/scheme/netcfg/{name}")
}

/// The text of a file.
#[track_caller]
pub(crate) fn get(name: &str) -> String {
    match fs::read_to_string(path(name)) {
        Ok(text) => text,
        Err(error) => panic!("read netcfg/{name}: {error}"),
    }
}

/// The text of a file of `tunN`.
#[track_caller]
pub(crate) fn get_if(unit: u16, name: &str) -> String {
    get(&format!("ifaces/tun{unit}/{name}"))
}

/// Writes a line.
pub(crate) fn put(name: &str, line: &str) -> io::Result<()> {
    fs::write(path(name), format!("{line}\n"))
}

/// Writes a line to a file of `tunN`.
pub(crate) fn put_if(unit: u16, name: &str, line: &str) -> io::Result<()> {
    put(&format!("ifaces/tun{unit}/{name}"), line)
}

/// The names in a directory of `netcfg`.
#[track_caller]
pub(crate) fn list(name: &str) -> Vec<String> {
    names(&path(name))
}

/// The names in any directory, sorted.
#[track_caller]
pub(crate) fn names(path: &str) -> Vec<String> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => panic!("list {path}: {error}"),
    };
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Whether there is an interface `tunN`.
pub(crate) fn exists(unit: u16) -> bool {
    list("ifaces").contains(&format!("tun{unit}"))
}

/// The counters of `tunN`.
pub(crate) fn stats(unit: u16) -> BTreeMap<String, u64> {
    counters(&get_if(unit, "stats"))
}

fn counters(text: &str) -> BTreeMap<String, u64> {
    let line = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// Fails unless every packet of `tunN` is in exactly one place.
#[track_caller]
pub(crate) fn assert_ledger_closes(unit: u16) {
    let ledger = counters(&get_if(unit, "ledger"));
    for way in ["in", "out"] {
        let count = |name: &str| ledger.get(&format!("{way}.{name}")).copied().unwrap_or(0);
        let places = ["delivered", "forwarded", "queued", "dropped"];
        let sum: u64 = places.into_iter().map(count).sum();
        assert_eq!(
            count("offered"),
            sum,
            "the ledger does not close: {ledger:?}"
        );
    }
}

//! The floors of the house: no module names one above it, nor a neighbour on its own floor.
//!
//! It reads every line of `src` but comments, and takes each `crate::NAME` for an import. That is
//! coarse, and enough: there are no macros and no glob imports that would hide one.

// A test of sources reads files; the library does not.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// From the ground up. What stands on one floor does not know each other.
const FLOORS: &[&[&str]] = &[
    &["memory"],
    &[
        "batch", "packet", "capture", "files", "ioctl", "timers", "seed", "users",
    ],
    &["ifnet"],
    &["route"],
    &["ip"],
    &["tun", "link", "stack", "bpf", "netisr"],
    &["net"],
    &["socket", "netcfg", "serve"],
    &["host"],
    &["adapters"],
];

/// Where a driver may look, besides the tools at the bottom: nowhere else.
const DRIVERS_SEE: &[&str] = &["ifnet", "ip", "route"];

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// Every source file with the module at the top that it belongs to.
fn sources(dir: &Path, top: Option<&str>, found: &mut Vec<(String, PathBuf)>) {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    for path in entries {
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let module = top.map_or(stem.clone(), str::to_owned);
        if path.is_dir() {
            sources(&path, Some(&module), found);
        } else if stem != "lib" && path.extension().is_some_and(|end| end == "rs") {
            found.push((module, path));
        }
    }
}

/// The modules at the top that a source names, with the number of the line.
fn named(source: &str) -> Vec<(usize, String)> {
    let mut named = Vec::new();
    for (number, line) in source.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for rest in code.split("crate::").skip(1) {
            // `pub(in crate::x)` restricts, and names what it is in.
            let mut names = vec![rest];
            if let Some(list) = rest.strip_prefix('{') {
                names = list.split(',').collect();
            }
            for name in names {
                let end = name.trim().find(|c: char| !c.is_alphanumeric() && c != '_');
                let name = &name.trim()[..end.unwrap_or(name.trim().len())];
                named.push((number + 1, name.to_owned()));
            }
        }
    }
    named
}

/// What is wrong with a module that names these others.
fn wrong(module: &str, names: &[(usize, String)]) -> Vec<String> {
    let own = floor(module);
    let mut wrong = Vec::new();
    for (line, name) in names {
        let below = floor(name) < own && floor(name).is_some();
        let driver = ["tun", "link"].contains(&module);
        let sees = floor(name) < floor("ifnet") || DRIVERS_SEE.contains(&name.as_str());
        if name != module && (!below || (driver && !sees)) {
            wrong.push(format!("line {line}: {module} names {name}"));
        }
    }
    wrong
}

#[test]
fn no_module_names_one_above_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, None, &mut files);
    assert!(files.len() > 40, "the sources are not where they were");
    let mut all = Vec::new();
    for (module, path) in &files {
        assert!(floor(module).is_some(), "{module} is on no floor");
        let source = fs::read_to_string(path).unwrap();
        for wrong in wrong(module, &named(&source)) {
            all.push(format!("{}: {wrong}", path.display()));
        }
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

#[test]
fn every_floor_is_lived_on() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, None, &mut files);
    let there: BTreeSet<&str> = files.iter().map(|(module, _)| module.as_str()).collect();
    let floors: BTreeSet<&str> = FLOORS
        .iter()
        .flat_map(|floor| floor.iter().copied())
        .collect();
    assert_eq!(there, floors);
}

#[test]
fn what_is_forbidden_is_found() {
    let says = |module, line: &str| wrong(module, &named(line)).len();
    assert_eq!(says("ip", "use crate::ifnet::IfIndex;"), 0);
    assert_eq!(says("ip", "use crate::stack::Tcp;"), 1);
    assert_eq!(says("ip", "    let x = crate::tun::TUNMTU;"), 1);
    assert_eq!(says("ip", "// crate::tun is above"), 0);
    assert_eq!(says("tun", "use crate::link::Mac;"), 1);
    assert_eq!(says("tun", "use crate::{ifnet::IfIndex, net::Net};"), 1);
    assert_eq!(says("socket", "use crate::host::Host;"), 1);
    assert_eq!(says("link", "use crate::nowhere::Thing;"), 1);
    assert_eq!(says("ifnet", "use crate::route::Route;"), 1);
}

//! The cost of the network's daemon, from the kernel's list of contexts.

use std::fs;

/// The resources that a daemon uses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Private memory of the largest of its processes, bytes; the kernel rounds it.
    pub memory: u64,
    /// Processor time of all its threads, seconds.
    pub time: f64,
}

/// Reads the usage of the running daemon, tund or netstack.
pub fn daemon() -> Option<Usage> {
    let text = fs::read_to_string("/scheme/sys/context").ok()?;
    let mut usage: Option<Usage> = None;
    for line in text.lines() {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        let name = words.pop().unwrap_or_default();
        let name = name.rsplit('/').next().unwrap_or_default();
        if !["netstack", "tund", "smolnetd"].contains(&name) {
            continue;
        }
        let Some(time) = words.iter().position(|word| word.contains(':')) else {
            continue;
        };
        let usage = usage.get_or_insert_default();
        usage.time += seconds(words[time]);
        usage.memory = usage.memory.max(size(&words[time + 1..]));
    }
    usage
}

fn seconds(text: &str) -> f64 {
    let parts = text.split(':').filter_map(|part| part.parse::<f64>().ok());
    parts.fold(0.0, |sum, part| sum * 60.0 + part)
}

/// The first size of a line, which is a number and a unit, with or without a space.
fn size(words: &[&str]) -> u64 {
    let text = words.concat();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, rest) = text.split_at(digits.unwrap_or(text.len()));
    let scale = match rest.chars().next() {
        Some('K' | 'k') => 1 << 10,
        Some('M') => 1 << 20,
        Some('G') => 1 << 30,
        _ => 1,
    };
    (number.parse::<f64>().unwrap_or(0.0) * f64::from(scale)) as u64
}

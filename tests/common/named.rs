//! Tests that a page or a table names.

use std::fs;
use std::path::Path;

/// Fails if a source file has no such test: a function that a harness runs.
pub fn assert_is_test(file: &str, test: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let source = fs::read_to_string(path).unwrap_or_else(|_| panic!("{file}"));
    let is_test = match file.ends_with(".py") {
        true => source.contains(&format!("def {test}(")),
        false => is_marked(&source, test) || is_listed(&source, test),
    };
    assert!(is_test, "{file} has no test {test}");
}

fn is_marked(source: &str, test: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    lines.iter().enumerate().any(|(at, line)| {
        let attributes = lines[..at].iter().rev();
        let mut attributes = attributes.take_while(|line| line.starts_with("#["));
        line.starts_with(&format!("fn {test}(")) && attributes.any(|line| *line == "#[test]")
    })
}

/// Whether a harness of the file's own has it in its list, with its name beside it or without.
fn is_listed(source: &str, test: &str) -> bool {
    let named = source.split_whitespace().collect::<String>();
    let listed = source.lines().any(|line| line.trim() == format!("{test},"));
    listed || named.contains(&format!("(\"{test}\","))
}

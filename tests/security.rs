//! SECURITY.md names tests: each is there.
#![allow(missing_docs)]

use std::fs;
use std::path::Path;

#[test]
fn every_claim_has_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let mut found = 0;
    let claims = page.lines().filter(|line| line.starts_with("- "));
    for claim in claims {
        let quoted: Vec<_> = claim.split('`').skip(1).step_by(2).collect();
        let tests = quoted.chunks_exact(2).filter(|pair| {
            let end = Path::new(pair[0]).extension();
            end.is_some_and(|end| end == "rs" || end == "py")
        });
        let before = found;
        for pair in tests {
            let [file, test] = pair else {
                unreachable!("a pair");
            };
            let source = fs::read_to_string(root.join(file)).unwrap_or_else(|_| panic!("{file}"));
            let there = ["fn", "def"].map(|word| source.contains(&format!("{word} {test}(")));
            // Some are named in a list, by a harness of their own.
            let named = source.contains(&format!("(\"{test}\", "));
            assert!(there.contains(&true) || named, "{file} has no {test}");
            found += 1;
        }
        assert!(found > before, "nothing shows it: {claim}");
    }
    assert!(found > 30, "{found}");
}

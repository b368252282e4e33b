//! SECURITY.md names tests: each is there.
#![allow(missing_docs)]

mod common;

use std::fs;
use std::path::Path;

use common::named::assert_is_test;

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
            assert_is_test(file, test);
            found += 1;
        }
        assert!(found > before, "nothing shows it: {claim}");
    }
    assert!(found > 30, "{found}");
}

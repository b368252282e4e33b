//! The manual pages and completions that are installed are those that the programs make.
#![cfg(target_os = "linux")]
#![allow(missing_docs)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

const PROGRAMS: [(&str, &str); 2] = [
    ("tund", env!("CARGO_BIN_EXE_tund")),
    ("tunctl", env!("CARGO_BIN_EXE_tunctl")),
];

/// The text of every file of a directory, by name.
fn files(directory: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read_to_string(entry.path()).unwrap())
        })
        .collect()
}

fn output(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().unwrap();
    assert!(output.status.success(), "{program} {words:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_is_installed_is_what_the_programs_say() {
    let share = Path::new(env!("CARGO_MANIFEST_DIR")).join("share");
    let pages = tempfile::tempdir().unwrap();
    for (name, program) in PROGRAMS {
        output(program, &["man", pages.path().to_str().unwrap()]);
        for (shell, place) in [
            ("bash", format!("bash-completion/completions/{name}")),
            ("zsh", format!("zsh/site-functions/_{name}")),
            ("fish", format!("fish/vendor_completions.d/{name}.fish")),
        ] {
            let made = output(program, &["completions", shell]);
            let installed = fs::read_to_string(share.join(place)).unwrap_or_default();
            assert!(
                made == installed,
                "{shell}: `./ci.sh manual` writes share/ anew"
            );
        }
    }
    let (made, installed) = (files(pages.path()), files(&share.join("man/man1")));
    let names = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        names(&made),
        names(&installed),
        "`./ci.sh manual` writes share/ anew"
    );
    for (name, text) in made {
        assert!(
            text == installed[&name],
            "{name}: `./ci.sh manual` writes share/ anew"
        );
    }
}

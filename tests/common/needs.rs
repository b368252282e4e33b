//! What a test needs of the machine on which it runs.

use std::path::Path;
use std::process::Command;

use libtest_mimic::{Completion, Failed};

use super::system::MountSystem;

/// If this is `all`, a test whose program is not installed fails. `ci.sh` sets it.
const TESTS: &str = "TUND_TESTS";

/// The reason why a test cannot run here.
#[derive(Debug)]
pub enum Missing {
    /// Something that the system, or this user, does not have.
    System(String),
    /// A program, which can be installed.
    Program(String),
}

impl Missing {
    /// What a mount needs.
    pub fn mount() -> Option<Self> {
        MountSystem::missing().map(|reason| Self::System(reason.to_owned()))
    }

    /// What a tun device of the kernel's needs.
    pub fn kernel_tun() -> Option<Self> {
        let there = Path::new("/dev/net/tun").exists();
        (!there).then(|| Self::System("no /dev/net/tun".into()))
    }

    /// The first of these programs that is not there.
    pub fn program(names: &[&str]) -> Option<Self> {
        let mut names = names.iter();
        let absent = names.find(|name| !is_there(name))?;
        Some(Self::Program(format!("no {absent}")))
    }

    /// The end of a test that cannot run: it is ignored with the reason, or has failed.
    pub fn completion(self) -> Result<Completion, Failed> {
        match self {
            Self::Program(reason) if std::env::var(TESTS).is_ok_and(|value| value == "all") => {
                Err(format!("{reason}, and {TESTS}=all").into())
            }
            Self::System(reason) | Self::Program(reason) => Ok(Completion::ignored_with(reason)),
        }
    }
}

fn is_there(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output();
    found.is_ok_and(|output| output.status.success())
}

//! Without a Linux kernel there is nothing to bridge to.

use crate::tree::{Failure, Tree};

pub(crate) fn run(_tree: &Tree, _unit: u16, _hostif: &str) -> Result<(), Failure> {
    Err(Failure::new("only Linux has another kernel to bridge to"))
}

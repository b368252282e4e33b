//! The node numbers by which the kernel knows paths.

use std::collections::BTreeMap;

use crate::errno::{self, Errno};

/// The kernel's number for the root of the tree.
const ROOT: u64 = 1;
/// The paths for which the kernel holds node numbers.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    nodes: BTreeMap<u64, Node>,
    numbers: BTreeMap<String, u64>,
    last: u64,
}

#[derive(Debug)]
struct Node {
    path: String,
    lookups: u64,
}

impl Nodes {
    pub(super) fn path(&self, number: u64) -> Result<&str, Errno> {
        match number {
            ROOT => Ok(""),
            _ => Ok(&self.nodes.get(&number).ok_or(errno::ENOENT)?.path),
        }
    }

    pub(super) fn child(&self, parent: u64, name: &str) -> Result<String, Errno> {
        let parent = self.path(parent)?;
        Ok(match parent {
            "" => name.to_owned(),
            _ => format!("{parent}/{name}"),
        })
    }

    pub(super) fn look_up(&mut self, path: String) -> u64 {
        let number = *self.numbers.entry(path.clone()).or_insert_with(|| {
            self.last += 1;
            self.last + ROOT
        });
        let node = self
            .nodes
            .entry(number)
            .or_insert(Node { path, lookups: 0 });
        node.lookups += 1;
        number
    }

    pub(super) fn forget(&mut self, number: u64, lookups: u64) {
        let Some(node) = self.nodes.get_mut(&number) else {
            return;
        };
        node.lookups = node.lookups.saturating_sub(lookups);
        if node.lookups == 0
            && let Some(node) = self.nodes.remove(&number)
        {
            self.numbers.remove(&node.path);
        }
    }
}

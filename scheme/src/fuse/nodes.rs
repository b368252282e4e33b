//! The node numbers by which the kernel knows paths.

use std::collections::{BTreeMap, BTreeSet};

use crate::errno::{self, Errno};
use crate::server::FileKind;

/// The kernel's number for the root of the tree.
const ROOT: u64 = 1;
/// Most paths of files. The kernel keeps a path until it needs the memory, and everybody may ask for as
/// many names of sockets as there are; so the number that was given first is forgotten for another. The
/// kernel looks up a path whenever it is used, and then learns the new number.
const MAX_FILES: usize = 65_536;

/// The paths for which the kernel holds node numbers.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    nodes: BTreeMap<u64, Node>,
    numbers: BTreeMap<String, u64>,
    /// Those that are files. The others are as many as the server has directories.
    files: BTreeSet<u64>,
    last: u64,
}

#[derive(Debug)]
struct Node {
    path: String,
    lookups: u64,
}

impl Nodes {
    /// `ESTALE` for a number that was forgotten: the kernel then looks up its path again.
    pub(super) fn path(&self, number: u64) -> Result<&str, Errno> {
        match number {
            ROOT => Ok(""),
            _ => Ok(&self.nodes.get(&number).ok_or(errno::ESTALE)?.path),
        }
    }

    pub(super) fn child(&self, parent: u64, name: &str) -> Result<String, Errno> {
        let parent = self.path(parent)?;
        Ok(match parent {
            "" => name.to_owned(),
            _ => format!("{parent}/{name}"),
        })
    }

    pub(super) fn look_up(&mut self, path: String, kind: FileKind) -> u64 {
        if let Some(&number) = self.numbers.get(&path)
            && let Some(node) = self.nodes.get_mut(&number)
        {
            node.lookups += 1;
            return number;
        }
        if kind != FileKind::Directory
            && self.files.len() >= MAX_FILES
            && let Some(&first) = self.files.first()
        {
            self.remove(first);
        }
        self.last += 1;
        let number = self.last + ROOT;
        if kind != FileKind::Directory {
            self.files.insert(number);
        }
        self.numbers.insert(path.clone(), number);
        self.nodes.insert(number, Node { path, lookups: 1 });
        number
    }

    pub(super) fn forget(&mut self, number: u64, lookups: u64) {
        let Some(node) = self.nodes.get_mut(&number) else {
            return;
        };
        node.lookups = node.lookups.saturating_sub(lookups);
        if node.lookups == 0 {
            self.remove(number);
        }
    }

    fn remove(&mut self, number: u64) {
        if let Some(node) = self.nodes.remove(&number) {
            self.numbers.remove(&node.path);
            self.files.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stands_for_its_path_until_it_is_forgotten() {
        let mut nodes = Nodes::default();
        let dir = nodes.look_up("udp".to_owned(), FileKind::Directory);
        let path = nodes.child(dir, "127.0.0.1:9").unwrap();
        let file = nodes.look_up(path.clone(), FileKind::Device);
        assert_eq!(nodes.look_up(path, FileKind::Device), file);
        nodes.forget(file, 1);
        assert_eq!(nodes.path(file), Ok("udp/127.0.0.1:9"));
        nodes.forget(file, 1);
        assert_eq!(nodes.path(file), Err(errno::ESTALE));
        assert_eq!(nodes.path(dir), Ok("udp"));
    }

    #[test]
    fn files_are_bounded_and_the_oldest_makes_room() {
        let mut nodes = Nodes::default();
        let dir = nodes.look_up("udp".to_owned(), FileKind::Directory);
        let mut numbers = Vec::new();
        for port in 0..=MAX_FILES {
            numbers.push(nodes.look_up(format!("udp/{port}"), FileKind::Device));
        }
        assert_eq!(nodes.path(numbers[0]), Err(errno::ESTALE));
        assert!(nodes.path(numbers[1]).is_ok() && nodes.path(dir).is_ok());
        let sizes = [
            nodes.files.len(),
            nodes.nodes.len() - 1,
            nodes.numbers.len() - 1,
        ];
        assert_eq!(sizes, [MAX_FILES; 3]);
        // It is looked up again, and the kernel tells once of the number that it had.
        assert!(nodes.look_up("udp/0".to_owned(), FileKind::Device) > numbers[MAX_FILES]);
        nodes.forget(numbers[0], 1);
        assert_eq!(nodes.nodes.len() - 1, MAX_FILES);
    }
}

//! The texts that readers have begun. A reader sees one text to its end, so the text is kept for as
//! long as the file is open: once for all readers that began it when it was the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use scheme::errno::{self, Errno};

use super::node::Node;
use crate::memory::Memory;

/// The texts of all open files.
#[derive(Debug, Default)]
pub(super) struct Texts {
    /// The text of each file that was read last, as long as it has readers.
    latest: BTreeMap<Node, Arc<str>>,
    /// Of these, and of older ones that have readers. A routing table of a hundred thousand routes is
    /// some 5 MB.
    memory: Memory,
}

impl Texts {
    /// Keeps a text for a reader of `uid`, until it is [released](Self::release). `ENOBUFS` if there
    /// is no room.
    pub(super) fn keep(&mut self, node: &Node, text: String, uid: u32) -> Result<Arc<str>, Errno> {
        if let Some(latest) = self.latest.get(node)
            && **latest == *text
        {
            return Ok(Arc::clone(latest));
        }
        if !self.memory.has_room(text.len(), uid) {
            return Err(errno::ENOBUFS);
        }
        self.memory.take(text.len());
        let text = Arc::<str>::from(text);
        self.latest.insert(node.clone(), Arc::clone(&text));
        Ok(text)
    }

    /// Forgets a text of which a reader has no use any more, if it was the last one.
    pub(super) fn release(&mut self, node: &Node, text: Option<Arc<str>>) {
        let Some(text) = text else {
            return;
        };
        let latest = self.latest.get(node);
        let is_latest = latest.is_some_and(|latest| Arc::ptr_eq(latest, &text));
        if Arc::strong_count(&text) > 1 + usize::from(is_latest) {
            return;
        }
        self.memory.give_back(text.len());
        if is_latest {
            self.latest.remove(node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{LIMIT, RESERVED};

    const NODE: Node = Node::RouteList;

    #[test]
    fn readers_of_one_text_share_it() {
        let mut texts = Texts::default();
        let keep =
            |texts: &mut Texts, text: &str| texts.keep(&NODE, text.to_owned(), 1000).unwrap();
        let one = keep(&mut texts, "old\n");
        let two = keep(&mut texts, "old\n");
        assert!(Arc::ptr_eq(&one, &two) && texts.memory.bytes() == 4);
        let new = keep(&mut texts, "newer\n");
        assert_eq!(texts.memory.bytes(), 10);
        texts.release(&NODE, Some(one));
        assert_eq!((&*two, texts.memory.bytes()), ("old\n", 10));
        texts.release(&NODE, Some(two));
        assert_eq!(texts.memory.bytes(), 6);
        texts.release(&NODE, Some(new));
        assert!(texts.memory.bytes() == 0 && texts.latest.is_empty());
    }

    #[test]
    fn different_texts_are_bounded_and_the_last_bytes_are_the_superusers() {
        let mut texts = Texts::default();
        let mut number = 0;
        let mut keep = |texts: &mut Texts, uid| {
            number += 1;
            let mut text = format!("{number} ");
            text.extend(std::iter::repeat_n('x', (1 << 20) - text.len()));
            texts.keep(&NODE, text, uid)
        };
        let read = std::iter::from_fn(|| keep(&mut texts, 1000).ok());
        let mut kept: Vec<_> = read.collect();
        assert_eq!(kept.len(), (LIMIT - RESERVED) >> 20);
        kept.push(keep(&mut texts, 0).unwrap());
        assert_eq!(keep(&mut texts, 1000), Err(errno::ENOBUFS));
        for text in kept {
            texts.release(&NODE, Some(text));
        }
        assert!(texts.memory.bytes() == 0 && texts.latest.is_empty());
    }
}

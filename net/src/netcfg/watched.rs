//! Files whose next change a program waits for. They stand together by what they show, so that a
//! change costs a comparison for each text, however many files wait for it to be another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use scheme::{FileId, Ready};

use super::node::Node;
use crate::files::Wakes;

/// Files that wait.
#[derive(Debug, Default)]
pub(super) struct Watched(BTreeMap<Node, Vec<Group>>);

/// Files that were read as the same text.
#[derive(Debug)]
struct Group {
    text: Arc<str>,
    files: BTreeSet<FileId>,
}

impl Watched {
    /// Whether nobody waits.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A file, which was read as this text, waits for another.
    pub(super) fn add(&mut self, node: &Node, text: &Arc<str>, id: FileId) {
        let groups = self.0.entry(node.clone()).or_default();
        match groups
            .iter_mut()
            .find(|group| Arc::ptr_eq(&group.text, text))
        {
            Some(group) => {
                group.files.insert(id);
            }
            None => groups.push(Group {
                text: Arc::clone(text),
                files: BTreeSet::from([id]),
            }),
        }
    }

    /// A file does not wait any more.
    pub(super) fn remove(&mut self, node: &Node, id: FileId) {
        let Some(groups) = self.0.get_mut(node) else {
            return;
        };
        groups.retain_mut(|group| {
            group.files.remove(&id);
            !group.files.is_empty()
        });
        if groups.is_empty() {
            self.0.remove(node);
        }
    }

    /// Wakes files whose text is another now; they do not wait any more. `text` gives that of a node,
    /// and `None` if it cannot be told, or there is none any more.
    pub(super) fn tell(
        &mut self,
        wakes: &mut Wakes,
        mut text: impl FnMut(&Node) -> Option<Arc<str>>,
    ) {
        self.0.retain(|node, groups| {
            let now = text(node);
            groups.retain(|group| {
                let stays = now.as_ref().is_some_and(|now| *now == group.text);
                if !stays {
                    for &id in &group.files {
                        wakes.wake(id, Ready::READ);
                    }
                }
                stays
            });
            !groups.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_costs_a_text_for_each_node_however_many_wait() {
        let mut watched = Watched::default();
        let (old, new) = (Arc::<str>::from("1\n"), Arc::<str>::from("2\n"));
        for id in 0..1000 {
            watched.add(&Node::Forwarding, &old, FileId(id));
            watched.add(&Node::TunDebug, &old, FileId(1000 + id));
        }
        watched.remove(&Node::Forwarding, FileId(7));
        let (mut wakes, mut made) = (Wakes::default(), 0);
        let mut tell = |watched: &mut Watched| {
            watched.tell(&mut wakes, |node| {
                made += 1;
                Some(Arc::clone(if *node == Node::Forwarding {
                    &new
                } else {
                    &old
                }))
            });
            std::iter::from_fn(|| wakes.poll()).count()
        };
        assert_eq!(tell(&mut watched), 999);
        assert_eq!(tell(&mut watched), 0, "each is told once");
        assert_eq!(made, 3);
        for id in 0..1000 {
            watched.remove(&Node::TunDebug, FileId(1000 + id));
        }
        assert!(watched.is_empty());
    }

    #[test]
    fn who_cannot_be_told_the_same_text_is_told_to_read() {
        let mut watched = Watched::default();
        let (one, other) = (Arc::<str>::from("1\n"), Arc::<str>::from("2\n"));
        watched.add(&Node::Forwarding, &one, FileId(1));
        watched.add(&Node::Forwarding, &other, FileId(2));
        let mut wakes = Wakes::default();
        watched.tell(&mut wakes, |_| Some(Arc::from("2\n")));
        assert_eq!(wakes.poll().map(|wakeup| wakeup.file), Some(FileId(1)));
        assert_eq!(wakes.poll(), None);
        watched.tell(&mut wakes, |_| None);
        assert_eq!(wakes.poll().map(|wakeup| wakeup.file), Some(FileId(2)));
        assert!(watched.is_empty());
    }
}

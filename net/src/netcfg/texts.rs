//! The texts that readers have begun. A reader sees one text to its end, so the text is kept for as
//! long as the file is open: once for all readers that began it when it was the same.
//!
//! The list of routes may be long. It is made once for each generation of the table, however often it
//! is asked for, and kept for a moment when nobody reads it any more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use scheme::errno::{self, Errno};

use super::node::Node;
use crate::memory::Memory;
use crate::net::Net;

/// How long the list of routes is kept when nobody reads it.
const IDLE: Duration = Duration::from_secs(1);
/// The user for whom a text is made that is only compared: not the superuser.
const NOBODY: u32 = u32::MAX;

/// The texts of all open files.
#[derive(Debug, Default)]
pub(super) struct Texts {
    /// The text of each file that was read last, as long as it has readers.
    latest: BTreeMap<Node, Arc<str>>,
    /// Of these, and of older ones that have readers. A routing table of a hundred thousand routes is
    /// some 5 MB.
    memory: Memory,
    /// The generation of the table whose list the latest one is.
    routes_at: Option<u64>,
    /// The generation of the table for whose list there was no room, and the bytes of that.
    refused: Option<(u64, usize)>,
    /// When the list of routes goes if nobody reads it.
    idle_until: Option<Duration>,
    /// How often the list of routes was made.
    #[cfg(test)]
    made: usize,
}

impl Texts {
    /// The present text of a file, kept for a reader of `uid` until it is
    /// [released](Self::release). `ENOENT` if the file is gone, `ENOBUFS` if there is no room.
    pub(super) fn read(&mut self, net: &Net, node: &Node, uid: u32) -> Result<Arc<str>, Errno> {
        if *node != Node::RouteList {
            let text = node.read(net).ok_or(errno::ENOENT)?;
            return self.keep(node, text, uid);
        }
        self.idle_until = Some(net.ip.now.monotonic + IDLE);
        let generation = Some(net.ip.routes.generation());
        if self.routes_at == generation
            && let Some(latest) = self.latest.get(node)
        {
            return Ok(Arc::clone(latest));
        }
        self.drop_idle();
        if let Some((at, len)) = self.refused
            && Some(at) == generation
            && !self.memory.has_room(len, uid)
        {
            return Err(errno::ENOBUFS);
        }
        #[cfg(test)]
        {
            self.made += 1;
        }
        let text = node.read(net).ok_or(errno::ENOENT)?;
        let len = text.len();
        let kept = self.keep(node, text, uid);
        match kept {
            Ok(_) => self.routes_at = generation,
            Err(_) => self.refused = generation.map(|at| (at, len)),
        }
        kept
    }

    /// The present text of a file, to be compared. `None` if the file is gone, or there is no room for
    /// a long one.
    pub(super) fn present(&mut self, net: &Net, node: &Node) -> Option<Arc<str>> {
        match node {
            Node::RouteList => self.read(net, node, NOBODY).ok(),
            _ => node.read(net).map(Arc::from),
        }
    }

    /// Keeps a text.
    fn keep(&mut self, node: &Node, text: String, uid: u32) -> Result<Arc<str>, Errno> {
        if let Some(latest) = self.latest.get(node)
            && **latest == *text
        {
            return Ok(Arc::clone(latest));
        }
        if !self.memory.has_room(text.len(), uid) {
            self.drop_idle();
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
    pub(super) fn release(&mut self, net: &Net, node: &Node, text: Option<Arc<str>>) {
        let Some(text) = text else {
            return;
        };
        let latest = self.latest.get(node);
        let is_latest = latest.is_some_and(|latest| Arc::ptr_eq(latest, &text));
        if Arc::strong_count(&text) > 1 + usize::from(is_latest) {
            return;
        }
        if is_latest && *node == Node::RouteList {
            self.idle_until = Some(net.ip.now.monotonic + IDLE);
            return;
        }
        self.memory.give_back(text.len());
        if is_latest {
            self.latest.remove(node);
        }
    }

    /// Forgets the list of routes if nobody has read it for a while. No timer is armed for that: a
    /// machine with nothing else to do need not wake for it.
    pub(super) fn expire(&mut self, now: Duration) {
        if self.idle_until.is_some_and(|until| until <= now) {
            self.idle_until = None;
            self.drop_idle();
        }
    }

    /// Forgets the list of routes if nobody reads it.
    fn drop_idle(&mut self) {
        if let Some(text) = self.latest.get(&Node::RouteList)
            && Arc::strong_count(text) == 1
        {
            self.memory.give_back(text.len());
            self.latest.remove(&Node::RouteList);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{LIMIT, RESERVED};
    use crate::route::{Origin, Route};
    use crate::seed::Seed;

    const NODE: Node = Node::TcpStats;

    fn net() -> Net {
        Net::new(&Seed::from(1))
    }

    fn add_route(net: &mut Net, number: u32) {
        let route = Route {
            dev: None,
            tunnel: false,
            via: None,
            src: None,
            metric: 0,
            origin: Origin::Static,
        };
        let prefix = format!("10.{}.{}.0/24", number >> 8, number & 0xff);
        let _ = net.ip.routes.insert(prefix.parse().unwrap(), route);
    }

    #[test]
    fn the_list_of_routes_is_made_once_for_each_state_of_the_table() {
        let node = Node::RouteList;
        let (mut net, mut texts) = (net(), Texts::default());
        (0..100).for_each(|number| add_route(&mut net, number));
        // Whoever opens it, looks at its first byte, and closes it, again and again.
        for _ in 0..1000 {
            let text = texts.read(&net, &node, 1000).unwrap();
            assert_eq!(text.lines().count(), 100);
            texts.release(&net, &node, Some(text));
            assert!(texts.present(&net, &node).is_some());
        }
        assert_eq!(texts.made, 1);
        add_route(&mut net, 100);
        let text = texts.read(&net, &node, 1000).unwrap();
        assert_eq!((texts.made, text.lines().count()), (2, 101));
        // A reader that has it open sees its own to the end; then nothing is left of either.
        add_route(&mut net, 101);
        let newer = texts.read(&net, &node, 1000).unwrap();
        assert_eq!(texts.memory.bytes(), text.len() + newer.len());
        for text in [text, newer] {
            texts.release(&net, &node, Some(text));
        }
        assert!(texts.memory.bytes() > 0);
        texts.expire(IDLE / 2);
        assert!(!texts.memory.is_empty());
        texts.expire(IDLE);
        assert!(texts.memory.is_empty() && texts.latest.is_empty());
    }

    #[test]
    fn a_list_that_nobody_reads_keeps_nobody_out() {
        let (mut net, mut texts) = (net(), Texts::default());
        (0..100).for_each(|number| add_route(&mut net, number));
        let list = texts.read(&net, &Node::RouteList, 1000).unwrap();
        texts.memory.take(LIMIT - RESERVED - list.len());
        let keep = |texts: &mut Texts| texts.keep(&NODE, "text\n".to_owned(), 1000);
        assert_eq!(keep(&mut texts), Err(errno::ENOBUFS), "it is read");
        texts.release(&net, &Node::RouteList, Some(list));
        assert!(keep(&mut texts).is_ok());
    }

    #[test]
    fn a_list_that_finds_no_room_is_not_made_again_and_again() {
        let node = Node::RouteList;
        let (mut net, mut texts) = (net(), Texts::default());
        (0..100).for_each(|number| add_route(&mut net, number));
        texts.memory.take(LIMIT - RESERVED);
        for _ in 0..1000 {
            assert_eq!(texts.read(&net, &node, 1000), Err(errno::ENOBUFS));
            assert_eq!(texts.present(&net, &node), None);
        }
        assert_eq!(texts.made, 1);
        assert!(texts.read(&net, &node, 0).is_ok());
        assert!(texts.read(&net, &node, 1000).is_ok(), "it is there");
        assert_eq!(texts.made, 2);
    }

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
        texts.release(&net(), &NODE, Some(one));
        assert_eq!((&*two, texts.memory.bytes()), ("old\n", 10));
        texts.release(&net(), &NODE, Some(two));
        assert_eq!(texts.memory.bytes(), 6);
        texts.release(&net(), &NODE, Some(new));
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
            texts.release(&net(), &NODE, Some(text));
        }
        assert!(texts.memory.bytes() == 0 && texts.latest.is_empty());
    }
}

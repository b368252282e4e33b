//! `ifaces/IF/events`: what changes at an interface, a line each.
//!
//! An interface is compared with its last known state after each request and turn that may have
//! changed it. What a request changes and changes back is not seen, so a write that is refused makes
//! no lines.

use std::collections::{BTreeMap, BTreeSet};

use scheme::errno;
use scheme::{FileId, Outcome, Ready};

use super::generation;
use crate::files::Wakes;
use crate::ifnet::{IfAddr, IfFlags, IfIndex, Ifnet};
use crate::ip::Ip;
use crate::memory::Memory;

/// Most bytes of lines that wait for one reader. When there are more, the last line is [`LOST`]
/// until the reader has read them all.
const MOST: usize = 64 << 10;
/// The line in place of those that found no room.
const LOST: &str = "lost\n";

/// Every open file of events.
#[derive(Debug, Default)]
pub(crate) struct Events {
    readers: BTreeMap<FileId, Reader>,
    /// The interfaces that have readers.
    watched: BTreeMap<IfIndex, Watched>,
    /// The generation at which they were compared.
    compared: u64,
    /// Bytes of memory of all lines that wait.
    memory: Memory,
}

/// An interface that has readers.
#[derive(Debug)]
struct Watched {
    /// As it was last seen.
    state: State,
    readers: BTreeSet<FileId>,
}

#[derive(Debug)]
struct Reader {
    /// `None` when the interface is gone.
    dev: Option<IfIndex>,
    uid: u32,
    /// Lines to read. It is charged what it occupies.
    lines: String,
    /// Whether lines were lost, behind these.
    lost: bool,
}

/// What is told of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    up: bool,
    running: bool,
    mtu: u16,
    addrs: Vec<IfAddr>,
}

impl State {
    fn of(ifp: &Ifnet) -> Self {
        Self {
            up: ifp.is_up(),
            running: ifp.flags.contains(IfFlags::RUNNING),
            mtu: ifp.mtu,
            addrs: ifp.addrs.clone(),
        }
    }

    /// The lines that lead from this state to another; `None` is for an interface that is gone.
    fn lines_to(&self, new: Option<&Self>) -> Vec<String> {
        let mut lines = Vec::new();
        let mut say = |line: String| lines.push(line + "\n");
        let has = |state: Option<&Self>, of: fn(&Self) -> bool| state.is_some_and(of);
        if self.up && !has(new, |new| new.up) {
            say("down".to_owned());
        }
        if self.running && !has(new, |new| new.running) {
            say("stopped".to_owned());
        }
        let addrs = new.map_or(&[][..], |new| &new.addrs);
        for gone in self.addrs.iter().filter(|own| !addrs.contains(own)) {
            say(format!("addr rm {gone}"));
        }
        let Some(new) = new else {
            say("destroyed".to_owned());
            return lines;
        };
        if self.mtu != new.mtu {
            say(format!("mtu {}", new.mtu));
        }
        for added in new.addrs.iter().filter(|new| !self.addrs.contains(new)) {
            say(format!("addr add {added}"));
        }
        if !self.up && new.up {
            say("up".to_owned());
        }
        if !self.running && new.running {
            say("running".to_owned());
        }
        lines
    }
}

impl Reader {
    fn new(dev: IfIndex, uid: u32) -> Self {
        Self {
            dev: Some(dev),
            uid,
            lines: String::new(),
            lost: false,
        }
    }

    /// Adds a line, or notes that one was lost.
    fn push(&mut self, line: &str, memory: &mut Memory) {
        if self.lost {
            return;
        }
        let before = self.lines.capacity();
        self.lost = !self.make_room(line.len(), memory);
        self.lines.push_str(if self.lost { LOST } else { line });
        memory.take(self.lines.capacity() - before);
    }

    /// Has the lines grow by so many bytes if they need to, and leaves room for [`LOST`] behind these.
    /// False if there is no room for that.
    fn make_room(&mut self, bytes: usize, memory: &Memory) -> bool {
        let (len, capacity) = (self.lines.len(), self.lines.capacity());
        if len + bytes > MOST {
            return false;
        }
        let needed = len + bytes + LOST.len();
        if needed > capacity {
            let wanted = needed.max(2 * capacity).min(MOST + LOST.len());
            if !memory.has_room(wanted - capacity, self.uid) {
                return false;
            }
            self.lines.reserve_exact(wanted - len);
        }
        true
    }

    /// Takes so many bytes from the front. Memory of which less than a quarter is used is given back.
    fn take(&mut self, len: usize, memory: &mut Memory) {
        let before = self.lines.capacity();
        self.lines.drain(..len);
        if self.lines.len() < before / 4 {
            self.lines.shrink_to_fit();
        }
        self.lost &= !self.lines.is_empty();
        memory.give_back(before - self.lines.capacity());
    }
}

impl Events {
    /// Begins to tell a file of `uid` about an interface.
    pub(crate) fn open(&mut self, ip: &Ip, dev: IfIndex, id: FileId, uid: u32) {
        let Some(ifp) = ip.ifs.get(dev) else {
            return;
        };
        let watched = self.watched.entry(dev).or_insert_with(|| Watched {
            state: State::of(ifp),
            readers: BTreeSet::new(),
        });
        watched.readers.insert(id);
        self.readers.insert(id, Reader::new(dev, uid));
    }

    pub(crate) fn close(&mut self, id: FileId) {
        let Some(Reader { dev, lines, .. }) = self.readers.remove(&id) else {
            return;
        };
        self.memory.give_back(lines.capacity());
        if let Some(dev) = dev
            && let Some(watched) = self.watched.get_mut(&dev)
        {
            watched.readers.remove(&id);
            if watched.readers.is_empty() {
                self.watched.remove(&dev);
            }
        }
    }

    /// Reads as many whole lines as fit. `EINVAL` if not even one does. When the interface is gone
    /// and all lines are read, there is nothing more.
    pub(crate) fn read(&mut self, id: FileId, buf: &mut [u8]) -> Outcome<usize> {
        let Some(reader) = self.readers.get_mut(&id) else {
            return errno::EBADF.into();
        };
        if buf.is_empty() || (reader.lines.is_empty() && reader.dev.is_none()) {
            return Outcome::Done(Ok(0));
        }
        if reader.lines.is_empty() {
            return Outcome::Wait;
        }
        let bytes = reader.lines.as_bytes();
        let fits = &bytes[..bytes.len().min(buf.len())];
        let Some(end) = fits.iter().rposition(|&byte| byte == b'\n') else {
            return errno::EINVAL.into();
        };
        let len = end + 1;
        buf[..len].copy_from_slice(&fits[..len]);
        reader.take(len, &mut self.memory);
        Outcome::Done(Ok(len))
    }

    /// Readable while there are lines, and when there will be none any more.
    pub(crate) fn ready(&self, id: FileId) -> Ready {
        match self.readers.get(&id) {
            Some(Reader { dev, lines, .. }) if lines.is_empty() && dev.is_some() => Ready::WRITE,
            _ => Ready::all(),
        }
    }

    /// Tells readers what has changed.
    #[inline]
    pub(crate) fn run(&mut self, ip: &Ip, wakes: &mut Wakes) {
        if !self.readers.is_empty()
            && std::mem::replace(&mut self.compared, generation(ip)) != generation(ip)
        {
            self.compare(ip, wakes);
        }
    }

    fn compare(&mut self, ip: &Ip, wakes: &mut Wakes) {
        let Self {
            readers,
            watched,
            memory,
            ..
        } = self;
        watched.retain(|&dev, watched| {
            let new = ip.ifs.get(dev).map(State::of);
            let lines = watched.state.lines_to(new.as_ref());
            if lines.is_empty() {
                return true;
            }
            for &id in &watched.readers {
                let Some(reader) = readers.get_mut(&id) else {
                    continue;
                };
                for line in &lines {
                    reader.push(line, memory);
                }
                reader.dev = reader.dev.filter(|_| new.is_some());
                wakes.wake(id, Ready::READ);
            }
            match new {
                Some(new) => {
                    watched.state = new;
                    true
                }
                None => false,
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{LIMIT, RESERVED};

    fn state(up: bool, addrs: &[&str]) -> State {
        State {
            up,
            running: up,
            mtu: 1500,
            addrs: addrs
                .iter()
                .filter_map(|addr| IfAddr::parse(addr))
                .collect(),
        }
    }

    #[test]
    fn the_lines_lead_from_one_state_to_the_other() {
        let (old, mut new) = (state(false, &["10.0.0.1/24"]), state(true, &["fd00::1/64"]));
        new.mtu = 1400;
        let lines = old.lines_to(Some(&new)).concat();
        let up = "addr rm 10.0.0.1/24\nmtu 1400\naddr add fd00::1/64\nup\nrunning\n";
        assert_eq!(lines, up);
        let gone = "down\nstopped\naddr rm fd00::1/64\ndestroyed\n";
        assert_eq!(new.lines_to(None).concat(), gone);
        assert!(new.lines_to(Some(&new)).is_empty());
    }

    /// What all readers occupy.
    fn occupied(events: &Events) -> usize {
        let readers = events.readers.values();
        readers.map(|reader| reader.lines.capacity()).sum()
    }

    #[test]
    fn what_all_readers_leave_is_bounded_and_the_last_is_the_superusers() {
        let mut events = Events::default();
        let line = "addr add 2001:db8:0:1234:5678:9abc:def0:1234/64\n";
        let mut fill = |uid: u32| {
            let mut readers = 0;
            loop {
                let mut reader = Reader::new(IfIndex(1), uid);
                while !reader.lost {
                    reader.push(line, &mut events.memory);
                }
                readers += 1;
                assert!(events.memory.bytes() <= LIMIT, "{readers}");
                let empty = reader.lines == LOST;
                events.readers.insert(FileId(readers + uid), reader);
                if empty {
                    return events.memory.bytes();
                }
            }
        };
        let users = fill(1000);
        assert!(
            (LIMIT - RESERVED - MOST..=LIMIT - RESERVED).contains(&users),
            "{users}"
        );
        let all = fill(0);
        assert!((LIMIT - MOST..=LIMIT).contains(&all), "{all}");
        assert_eq!(all, occupied(&events));
    }

    #[test]
    fn what_finds_no_room_is_one_line() {
        let id = FileId(3);
        let mut events = Events::default();
        events.readers.insert(id, Reader::new(IfIndex(1), 1000));
        let push = |events: &mut Events, line: &str| {
            let reader = events.readers.get_mut(&id).unwrap();
            reader.push(line, &mut events.memory);
            assert_eq!(events.memory.bytes(), occupied(events));
        };
        let fits = MOST / "mtu 1400\n".len();
        for _ in 0..10_000 {
            push(&mut events, "mtu 1400\n");
        }
        assert!(events.memory.bytes() <= MOST + LOST.len());
        let (mut text, mut buf) = (String::new(), [0; 1000]);
        while let Outcome::Done(Ok(len @ 1..)) = events.read(id, &mut buf) {
            assert_eq!(buf[len - 1], b'\n');
            text.push_str(std::str::from_utf8(&buf[..len]).unwrap());
            assert_eq!(events.memory.bytes(), occupied(&events));
        }
        assert_eq!(text, "mtu 1400\n".repeat(fits) + LOST);
        assert!(events.memory.is_empty());
        push(&mut events, "up\n");
        assert_eq!(
            events.read(id, &mut buf[..2]),
            Outcome::Done(Err(errno::EINVAL))
        );
        assert_eq!(events.read(id, &mut buf), Outcome::Done(Ok(3)));
        assert_eq!(events.read(id, &mut buf), Outcome::Wait);
        events.close(id);
        assert!(events.readers.is_empty() && events.memory.is_empty());
    }

    #[test]
    fn readers_that_leave_a_line_pay_for_what_they_occupy() {
        let mut events = Events::default();
        let mut buf = vec![0; MOST];
        let (mut id, mut left) = (0, 0);
        while events.memory.has_room(2 * MOST, 1000) {
            let file = FileId(id);
            events.readers.insert(file, Reader::new(IfIndex(1), 1000));
            let reader = events.readers.get_mut(&file).unwrap();
            for _ in 0..7000 {
                reader.push("mtu 1400\n", &mut events.memory);
            }
            // All but the last line.
            let most = reader.lines.len() - 1;
            assert!(matches!(
                events.read(file, &mut buf[..most]),
                Outcome::Done(Ok(_))
            ));
            left += 9;
            id += 1;
            assert_eq!(events.memory.bytes(), occupied(&events));
            if id == 5000 {
                break;
            }
        }
        assert_eq!(id, 5000, "nobody else is kept out");
        assert!(occupied(&events) < 4 * left, "{}", occupied(&events));
    }

    #[test]
    fn an_interface_has_its_own_readers_and_a_close_leaves_the_others_alone() {
        let (mut ip, dev) = crate::ip::testing::connected();
        let lo0 = IfIndex(0);
        let mut events = Events::default();
        for id in 0..100 {
            let dev = if id < 50 { dev } else { lo0 };
            events.open(&ip, dev, FileId(id), 1000);
        }
        events.close(FileId(0));
        let of = |events: &Events, dev| {
            let watched = events.watched.get(&dev);
            watched.map_or(0, |watched| watched.readers.len())
        };
        assert_eq!((of(&events, dev), of(&events, lo0)), (49, 50));
        let mut wakes = Wakes::default();
        let mut told = |events: &mut Events, ip: &Ip| {
            events.run(ip, &mut wakes);
            std::iter::from_fn(|| wakes.poll()).count()
        };
        told(&mut events, &ip);
        ip.ifs.get_mut(dev).unwrap().mtu = 1400;
        ip.ifs.touch();
        assert_eq!(
            told(&mut events, &ip),
            49,
            "those of the other hear nothing"
        );
        assert_eq!(told(&mut events, &ip), 0);
        (1..100).for_each(|id| events.close(FileId(id)));
        assert!(events.watched.is_empty() && events.memory.is_empty());
    }
}

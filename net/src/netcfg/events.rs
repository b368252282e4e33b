//! `ifaces/IF/events`: what changes at an interface, a line each.
//!
//! An interface is compared with its last known state after each request and turn that may have
//! changed it. What a request changes and changes back is not seen, so a write that is refused makes
//! no lines.

use std::collections::BTreeMap;

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
    /// The interfaces that have readers, as they were last seen.
    states: BTreeMap<IfIndex, State>,
    /// The generation at which they were.
    compared: u64,
    /// Bytes of all lines that wait.
    memory: Memory,
}

#[derive(Debug)]
struct Reader {
    /// `None` when the interface is gone.
    dev: Option<IfIndex>,
    uid: u32,
    /// Lines to read.
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
    /// Adds a line, or notes that one was lost. Returns by how many bytes it grew.
    fn push(&mut self, line: &str, memory: &Memory) -> usize {
        if self.lost {
            return 0;
        }
        let fits = self.lines.len() + line.len() <= MOST && memory.has_room(line.len(), self.uid);
        self.lost = !fits;
        let line = if fits { line } else { LOST };
        self.lines.push_str(line);
        line.len()
    }
}

impl Events {
    /// Begins to tell a file of `uid` about an interface.
    pub(crate) fn open(&mut self, ip: &Ip, dev: IfIndex, id: FileId, uid: u32) {
        if let Some(ifp) = ip.ifs.get(dev) {
            self.states.entry(dev).or_insert_with(|| State::of(ifp));
        }
        let reader = Reader {
            dev: Some(dev),
            uid,
            lines: String::new(),
            lost: false,
        };
        self.readers.insert(id, reader);
    }

    pub(crate) fn close(&mut self, id: FileId) {
        let Some(Reader { dev, lines, .. }) = self.readers.remove(&id) else {
            return;
        };
        self.memory.give_back(lines.len());
        if let Some(dev) = dev
            && self.readers.values().all(|reader| reader.dev != Some(dev))
        {
            self.states.remove(&dev);
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
        reader.lines.drain(..len);
        reader.lost &= !reader.lines.is_empty();
        self.memory.give_back(len);
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
        let devs: Vec<IfIndex> = self.states.keys().copied().collect();
        for dev in devs {
            let new = ip.ifs.get(dev).map(State::of);
            let old = match &new {
                Some(new) => self.states.insert(dev, new.clone()),
                None => self.states.remove(&dev),
            };
            let lines = old.map_or(Vec::new(), |old| match Some(&old) == new.as_ref() {
                true => Vec::new(),
                false => old.lines_to(new.as_ref()),
            });
            if lines.is_empty() {
                continue;
            }
            let readers = self.readers.iter_mut();
            for (&id, reader) in readers.filter(|(_, reader)| reader.dev == Some(dev)) {
                for line in &lines {
                    self.memory.take(reader.push(line, &self.memory));
                }
                if new.is_none() {
                    reader.dev = None;
                }
                wakes.wake(id, Ready::READ);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn what_finds_no_room_is_one_line() {
        let id = FileId(3);
        let mut events = Events::default();
        let mut reader = Reader {
            dev: Some(IfIndex(1)),
            uid: 1000,
            lines: String::new(),
            lost: false,
        };
        let mut fits = 0;
        for _ in 0..10_000 {
            let grown = reader.push("mtu 1400\n", &events.memory);
            events.memory.take(grown);
            fits += usize::from(grown == "mtu 1400\n".len());
        }
        assert_eq!(fits, MOST / "mtu 1400\n".len());
        events.readers.insert(id, reader);
        let (mut text, mut buf) = (String::new(), [0; 1000]);
        while let Outcome::Done(Ok(len @ 1..)) = events.read(id, &mut buf) {
            assert_eq!(buf[len - 1], b'\n');
            text.push_str(std::str::from_utf8(&buf[..len]).unwrap());
        }
        assert_eq!(text, "mtu 1400\n".repeat(fits) + LOST);
        assert!(events.memory.is_empty());
        let reader = events.readers.get_mut(&id).unwrap();
        assert_eq!(reader.push("up\n", &events.memory), 3);
        events.memory.take(3);
        assert_eq!(
            events.read(id, &mut buf[..2]),
            Outcome::Done(Err(errno::EINVAL))
        );
        assert_eq!(events.read(id, &mut buf), Outcome::Done(Ok(3)));
        assert_eq!(events.read(id, &mut buf), Outcome::Wait);
        events.close(id);
        assert!(events.readers.is_empty() && events.memory.is_empty());
    }
}

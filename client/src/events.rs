//! What changes about an interface.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;

use crate::sys;

/// Most bytes of events that a file holds.
const MOST: usize = 64 << 10;

/// A change of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// It was set up.
    Up,
    /// It was set down.
    Down,
    /// It can carry packets (`RUNNING`): a tunnel that was given an address, an adapter whose driver
    /// is there.
    Running,
    /// It no longer can: its program closed it, or its adapter's driver is gone.
    Stopped,
    /// It has another mtu, bytes.
    Mtu(u32),
    /// It has a new address, such as `10.0.0.1/24`.
    AddressAdded(String),
    /// It lost an address.
    AddressRemoved(String),
    /// It is gone.
    Destroyed,
    /// More happened than there was room for: look at the interface anew.
    Lost,
    /// A line that this version does not know.
    Other(String),
}

impl Event {
    fn parse(line: &str) -> Self {
        let words: Vec<&str> = line.splitn(3, ' ').collect();
        match words[..] {
            ["up"] => Self::Up,
            ["down"] => Self::Down,
            ["running"] => Self::Running,
            ["stopped"] => Self::Stopped,
            ["destroyed"] => Self::Destroyed,
            ["lost"] => Self::Lost,
            ["mtu", mtu] => match mtu.parse() {
                Ok(mtu) => Self::Mtu(mtu),
                Err(_) => Self::Other(line.to_owned()),
            },
            ["addr", "add", addr] => Self::AddressAdded(addr.to_owned()),
            ["addr", "rm", addr] => Self::AddressRemoved(addr.to_owned()),
            _ => Self::Other(line.to_owned()),
        }
    }
}

/// The changes of an interface from the time this was opened (`ifaces/IF/events`). Its descriptor is
/// readable while there are some: a program waits for it with poll(2) beside its device.
///
/// ```no_run
/// # fn main() -> std::io::Result<()> {
/// use tun::{Event, Events};
///
/// let events = Events::open("/scheme", "eth0")?;
/// loop {
///     for event in events.read()? {
///         match event {
///             Event::AddressAdded(addr) => println!("we are {addr} now"),
///             Event::Destroyed => return Ok(()),
///             other => println!("{other:?}"),
///         }
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Events {
    file: File,
}

impl Events {
    /// Opens those of an interface of the tree at `root`; every user may. `ENOENT` if there is no
    /// such interface.
    pub fn open(root: impl AsRef<Path>, interface: &str) -> io::Result<Self> {
        let path = format!("netcfg/ifaces/{interface}/events");
        let file = File::open(root.as_ref().join(path))?;
        Ok(Self { file })
    }

    /// Sets whether reads return `EAGAIN` instead of waiting.
    pub fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        sys::set_nonblocking(self.file.as_fd(), on)
    }

    /// Waits for events and returns all there are; none at the end, after [`Event::Destroyed`]. When
    /// a signal interrupts it, it is tried again.
    pub fn read(&self) -> io::Result<Vec<Event>> {
        let mut buf = vec![0; MOST];
        let len = loop {
            match (&self.file).read(&mut buf) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        let text = String::from_utf8_lossy(&buf[..len]);
        Ok(text.lines().map(Event::parse).collect())
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_an_event() {
        for (line, event) in [
            ("up", Event::Up),
            ("down", Event::Down),
            ("running", Event::Running),
            ("stopped", Event::Stopped),
            ("mtu 1420", Event::Mtu(1420)),
            (
                "addr add fd00::1/64",
                Event::AddressAdded("fd00::1/64".into()),
            ),
            (
                "addr rm 10.0.0.1 peer 10.0.0.2",
                Event::AddressRemoved("10.0.0.1 peer 10.0.0.2".into()),
            ),
            ("destroyed", Event::Destroyed),
            ("lost", Event::Lost),
            ("mtu many", Event::Other("mtu many".into())),
            ("speed 10", Event::Other("speed 10".into())),
            ("", Event::Other(String::new())),
        ] {
            assert_eq!(Event::parse(line), event);
        }
    }
}

//! Redox's drivers: schemes whose names begin with `network.`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use net::link::Mac;
use scheme::redox::Namespace;

use super::{Frames, Place};

/// The prefix of the names of such schemes.
const PREFIX: &str = "network.";

/// Frames that a driver has room for: none tells, e1000d has 16, and others have more.
const RX_RING: u16 = 16;

/// The schemes of a namespace; there are none without a namespace.
pub(crate) struct Schemes(Option<Namespace>);

/// The root of a driver's scheme.
pub(crate) struct Root(File);

impl Schemes {
    /// The schemes of this process's namespace.
    pub(crate) fn keep() -> Self {
        let namespace = Namespace::keep();
        let namespace = namespace.inspect_err(|error| log::error!("no network adapters: {error}"));
        Self(namespace.ok())
    }
}

impl Place for Schemes {
    type Frames = Root;

    fn names(&self) -> io::Result<Vec<String>> {
        let names = self.0.as_ref().map(Namespace::names);
        let mut names = names.unwrap_or(Ok(Vec::new()))?;
        names.retain(|name| name.starts_with(PREFIX));
        names.sort();
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<(Mac, Root)> {
        let namespace = self.0.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let mut mac = [0; 6];
        let mut file = namespace.open(name, "mac", libc::O_RDONLY)?;
        file.read_exact(&mut mac)?;
        let frames = namespace.open(name, "", libc::O_RDWR | libc::O_NONBLOCK)?;
        Ok((Mac(mac), Root(frames)))
    }

    fn clear(&self, name: &str) {
        if let Some(namespace) = &self.0 {
            namespace.clear(name);
        }
    }
}

impl Frames for Root {
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(buffer)
    }

    fn send(&self, frame: &[u8]) -> io::Result<()> {
        (&self.0).write(frame).map(drop)
    }

    fn probe(&self) -> io::Result<()> {
        // Any other error comes from a driver that still exists.
        let gone = |error: &io::Error| error.raw_os_error() == Some(libc::ENODEV);
        match self.0.metadata() {
            Err(error) if gone(&error) => Err(error),
            _ => Ok(()),
        }
    }

    fn rx_ring(&self) -> Option<u16> {
        Some(RX_RING)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

//! Redox's network adapters: schemes whose names begin with `network.`, one frame a read or write.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;

use net::Host;
use net::adapters::{Adapters, Bus, FrameIo};
use net::link::Mac;
use scheme::redox::Namespace;

/// The prefix of the names of such schemes.
const PREFIX: &str = "network.";

/// The schemes of a namespace; there are none without a namespace.
struct Schemes(Option<Namespace>);

struct Driver(File);

/// Adapters, for the daemon's loop.
struct Network(Adapters<Schemes>);

/// Makes an interface on every adapter there is, and on those that come later.
pub(crate) fn attach(host: &mut Host) -> Box<dyn scheme::redox::Drivers<Host>> {
    let namespace = Namespace::keep();
    let namespace = namespace.inspect_err(|error| log::error!("no network adapters: {error}"));
    Box::new(Network(Adapters::new(Schemes(namespace.ok()), host)))
}

impl Bus for Schemes {
    type Io = Driver;

    fn names(&mut self) -> Vec<String> {
        let names = self.0.as_ref().map(Namespace::names);
        let mut names = names.unwrap_or(Ok(Vec::new())).unwrap_or_else(|error| {
            log::warn!("/scheme: {error}");
            Vec::new()
        });
        names.retain(|name| name.starts_with(PREFIX));
        names
    }

    fn open(&mut self, name: &str) -> io::Result<(Mac, Driver)> {
        let namespace = self.0.as_ref().ok_or(ErrorKind::NotFound)?;
        let mut mac = [0; 6];
        let mut file = namespace.open(name, "mac", libc::O_RDONLY)?;
        file.read_exact(&mut mac)?;
        let frames = namespace.open(name, "", libc::O_RDWR | libc::O_NONBLOCK)?;
        Ok((Mac(mac), Driver(frames)))
    }

    fn clear(&mut self, name: &str) {
        if let Some(namespace) = &self.0 {
            namespace.clear(name);
        }
    }
}

impl FrameIo for Driver {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }

    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.0.write(frame).map(drop)
    }

    fn is_alive(&self) -> bool {
        // Any other error comes from a driver that still exists.
        let gone = |error: &io::Error| error.raw_os_error() == Some(libc::ENODEV);
        !self.0.metadata().is_err_and(|error| gone(&error))
    }
}

impl scheme::redox::Drivers<Host> for Network {
    fn receive(&mut self, host: &mut Host, at: usize) {
        self.0.receive(host, at);
    }

    fn transmit(
        &mut self,
        host: &mut Host,
        watch: &mut dyn FnMut(usize, usize) -> io::Result<()>,
    ) -> bool {
        let mut more = self.0.transmit(host);
        while let Some((at, Driver(file))) = self.0.poll_opened() {
            let fd = usize::try_from(file.as_raw_fd()).map_err(|_| ErrorKind::InvalidData.into());
            if let Err(error) = fd.and_then(|fd| watch(fd, at)) {
                log::error!("network adapter: {error}");
            }
            // Frames may have arrived before the subscription.
            self.0.receive(host, at);
            more = true;
        }
        more
    }
}

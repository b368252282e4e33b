//! Redox's network adapters: schemes whose names begin with `network.`, one frame a read or write.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use scheme::redox::Adapter;
use tund::Net;
use tund::link::{Mac, PortId};

/// Longest frame that any driver hands out; one of them ends itself when a buffer is shorter.
const LONGEST: usize = 65_536;

/// An adapter, and the interface on it.
struct NetworkAdapter {
    frames: File,
    port: PortId,
    buffer: Vec<u8>,
    /// The driver is gone.
    dead: bool,
}

/// Makes an interface on every adapter there is: `eth0` is the first by the name of its scheme.
/// None is no error: there are tunnels.
pub(crate) fn attach_all(net: &mut Net) -> Vec<Box<dyn Adapter<Net>>> {
    let entries = fs::read_dir("/scheme").into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.filter(|name| name.starts_with("network.")).collect();
    names.sort();
    let mut adapters: Vec<Box<dyn Adapter<Net>>> = Vec::new();
    for name in names {
        match attach(net, &name) {
            Ok(adapter) => adapters.push(Box::new(adapter)),
            Err(error) => log::warn!("/scheme/{name}: {error}"),
        }
    }
    adapters
}

fn attach(net: &mut Net, name: &str) -> io::Result<NetworkAdapter> {
    let path = Path::new("/scheme").join(name);
    let mut mac = [0; 6];
    File::open(path.join("mac"))?.read_exact(&mut mac)?;
    let frames = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&path)?;
    let port = net
        .attach_ethernet(Mac(mac))
        .ok_or(ErrorKind::InvalidData)?;
    log::info!(
        "{} is /scheme/{name}, {}",
        net.ethernet_name(port).unwrap_or("?"),
        Mac(mac)
    );
    Ok(NetworkAdapter {
        frames,
        port,
        buffer: vec![0; LONGEST],
        dead: false,
    })
}

impl NetworkAdapter {
    /// The driver ended: so does the interface.
    fn fail(&mut self, net: &mut Net, error: &io::Error) {
        log::error!("network adapter: {error}");
        net.detach_ethernet(self.port);
        self.dead = true;
    }
}

impl Adapter<Net> for NetworkAdapter {
    fn raw_fd(&self) -> usize {
        usize::try_from(self.frames.as_raw_fd()).unwrap_or(usize::MAX)
    }

    fn receive(&mut self, net: &mut Net) {
        // The driver tells once for all that is there: until it has no more.
        while !self.dead {
            match self.frames.read(&mut self.buffer) {
                Ok(0) => return,
                Ok(len) => net.handle_frame(self.port, &self.buffer[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => self.fail(net, &error),
            }
        }
    }

    fn transmit(&mut self, net: &mut Net) {
        while !self.dead
            && let Some(frame) = net.poll_frame(self.port)
        {
            // What the driver has no room for is lost, as on a wire.
            if let Err(error) = self.frames.write(&frame)
                && error.kind() != ErrorKind::WouldBlock
            {
                self.fail(net, &error);
            }
        }
    }
}

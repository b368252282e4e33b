//! The device whose packets go into the tunnel.

use std::io;
use std::path::Path;

use tun::batch::{Incoming, Outgoing, Refused};
use tun::{Device, Mode, Tun, TunInfo, Unit};

/// Room for what one read brings, bytes, and for what is written at once.
const ROOM: usize = 256 << 10;
/// Packets of a device without batch mode that are read before something else is done.
const PACKETS: usize = 64;

/// Opens the lowest unit of tund's that is free. Its interface is destroyed when the device is
/// closed, however that happens. Peers reach each other through us, so it is a network and not a line
/// between two.
pub fn open(root: &Path, mtu: u16, batch: bool) -> io::Result<Box<dyn Device>> {
    let tun = Tun::open(root, Unit::Clone)?;
    tun.set_transient(true)?;
    tun.set_mode(Mode::Broadcast, false)?;
    let info = tun.info()?;
    tun.set_info(TunInfo { mtu, ..info })?;
    tun.set_ifhead(true)?;
    tun.set_batch(batch)?;
    tun.set_nonblocking(true)?;
    Ok(Box::new(tun))
}

/// Opens, or makes, a tun device of the Linux kernel. Its addresses and routes are for somebody else
/// to set.
#[cfg(target_os = "linux")]
pub fn host(name: &str) -> io::Result<Box<dyn Device>> {
    let tun = tun::host::HostTun::open(name)?;
    tun.set_nonblocking(true)?;
    Ok(Box::new(tun))
}

/// Packets that were read.
#[derive(Debug)]
pub struct Reader {
    incoming: Incoming,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            incoming: Incoming::new(ROOM),
        }
    }
}

impl Reader {
    /// Reads what is there, up to a bound, and calls `each` with every packet.
    pub fn read(&mut self, device: &dyn Device, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        let reads = if device.format().batch { 1 } else { PACKETS };
        for _ in 0..reads {
            match device.recv(&mut self.incoming) {
                Ok(packets) => packets.for_each(|packet| each(packet)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Packets that are to be written.
pub struct Writer<'a> {
    device: &'a dyn Device,
    outgoing: Outgoing,
}

impl<'a> Writer<'a> {
    /// With room for a batch.
    pub fn new(device: &'a dyn Device) -> Self {
        Self {
            device,
            outgoing: Outgoing::new(device.format(), ROOM),
        }
    }

    /// Keeps a packet until [`flush`](Self::flush), or until there is no more room. One that the
    /// device would not take is lost.
    pub fn push(&mut self, packet: &[u8]) {
        if self.outgoing.push(packet) == Err(Refused::Full) {
            self.flush();
            let _ = self.outgoing.push(packet);
        }
    }

    /// Writes what is kept. What the device does not take is lost; what is wrong with the device
    /// itself, its read will tell.
    pub fn flush(&mut self) {
        if self.outgoing.is_empty() {
            return;
        }
        if let Err(error) = self.device.send(&mut self.outgoing) {
            log::debug!("write to the device: {error}");
            self.outgoing.clear();
        }
    }
}

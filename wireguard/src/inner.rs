//! The device whose packets go into the tunnel.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use tun::{Mode, Tun, TunInfo, Unit, batch};

use crate::tunnel::MAX_PACKET;

/// Room for what one read brings, bytes, and what is written at once.
const ROOM: usize = 256 << 10;
/// Packets of a device without batch mode that are read before something else is done.
const PACKETS: usize = 64;
/// `AF_INET` and `AF_INET6`, as the device has them before a packet.
const IPV4: [u8; 4] = 2_u32.to_be_bytes();
const IPV6: [u8; 4] = 10_u32.to_be_bytes();

/// A tun device.
#[derive(Debug)]
pub struct Device {
    kind: Kind,
    name: String,
}

#[derive(Debug)]
enum Kind {
    Tund {
        tun: Tun,
        batch: bool,
    },
    #[cfg(target_os = "linux")]
    Host(tun::host::HostTun),
}

impl Device {
    /// Opens the lowest unit of tund's that is free. Its interface is destroyed when the device is
    /// closed, however that happens. Others reach each other through us, so it is a network and not
    /// a line between two.
    pub fn open(root: &Path, mtu: u16, batch: bool) -> io::Result<Self> {
        let tun = Tun::open(root, Unit::Clone)?;
        tun.set_transient(true)?;
        tun.set_mode(Mode::Broadcast, false)?;
        let info = tun.info()?;
        tun.set_info(TunInfo { mtu, ..info })?;
        tun.set_ifhead(true)?;
        tun.set_batch(batch)?;
        tun.set_nonblocking(true)?;
        let name = tun.name()?;
        Ok(Self {
            kind: Kind::Tund { tun, batch },
            name,
        })
    }

    /// Opens, or makes, a tun device of the Linux kernel. Its addresses and routes are for somebody
    /// else to set.
    #[cfg(target_os = "linux")]
    pub fn host(name: &str) -> io::Result<Self> {
        use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

        let tun = tun::host::HostTun::open(name)?;
        let flags = fcntl_getfl(tun.as_fd())?;
        fcntl_setfl(tun.as_fd(), flags | OFlags::NONBLOCK)?;
        Ok(Self {
            kind: Kind::Host(tun),
            name: name.to_owned(),
        })
    }

    /// Name of the interface.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn one_by_one(&self) -> bool {
        !matches!(self.kind, Kind::Tund { batch: true, .. })
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Tund { tun, .. } => tun.as_fd(),
            #[cfg(target_os = "linux")]
            Kind::Host(tun) => tun.as_fd(),
        }
    }
}

/// Packets that were read.
#[derive(Debug)]
pub struct Reader {
    buf: Vec<u8>,
}

impl Reader {
    /// With room for a batch.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self { buf: vec![0; ROOM] }
    }

    /// Reads what is there, up to a bound, and calls `each` with every packet.
    pub fn read(&mut self, device: &Device, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        let times = if device.one_by_one() { PACKETS } else { 1 };
        for _ in 0..times {
            let read = match &device.kind {
                Kind::Tund { tun, .. } => tun.read(&mut self.buf),
                #[cfg(target_os = "linux")]
                Kind::Host(tun) => tun.read(&mut self.buf),
            };
            let len = match read {
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
                Err(error) => return Err(error),
            };
            let read = &self.buf[..len];
            match &device.kind {
                Kind::Tund { batch: true, .. } => {
                    for frame in batch::packets(read) {
                        each(frame.get(IPV4.len()..).unwrap_or_default());
                    }
                }
                Kind::Tund { batch: false, .. } => each(read.get(IPV4.len()..).unwrap_or_default()),
                #[cfg(target_os = "linux")]
                Kind::Host(_) => each(read),
            }
        }
        Ok(())
    }
}

/// Packets that are to be written.
#[derive(Debug, Default)]
pub struct Writer {
    batch: Vec<u8>,
    frame: Vec<u8>,
    failed: Option<io::Error>,
}

impl Writer {
    /// Writes a packet, or keeps it until [`flush`](Self::flush).
    pub fn push(&mut self, device: &Device, packet: &[u8]) {
        if packet.is_empty() || packet.len() > MAX_PACKET {
            return;
        }
        let family = if packet[0] >> 4 == 6 { IPV6 } else { IPV4 };
        match &device.kind {
            Kind::Tund { tun, batch } => {
                self.frame.clear();
                self.frame.extend_from_slice(&family);
                self.frame.extend_from_slice(packet);
                if !*batch {
                    let written = tun.write(&self.frame);
                    return self.written(written);
                }
                batch::push(&mut self.batch, &self.frame);
                if self.batch.len() + MAX_PACKET > ROOM {
                    self.flush(device);
                }
            }
            #[cfg(target_os = "linux")]
            Kind::Host(tun) => {
                let written = tun.write(packet);
                self.written(written);
            }
        }
    }

    /// Writes what is kept.
    pub fn flush(&mut self, device: &Device) {
        if let Kind::Tund { tun, .. } = &device.kind
            && !self.batch.is_empty()
        {
            let written = loop {
                match tun.write(&self.batch) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    written => break written,
                }
            };
            self.batch.clear();
            self.written(written);
        }
    }

    /// The first error since the last call of this. Packets that met one are lost.
    pub fn failed(&mut self) -> Option<io::Error> {
        self.failed.take()
    }

    fn written(&mut self, written: io::Result<usize>) {
        if let Err(error) = written {
            self.failed.get_or_insert(error);
        }
    }
}

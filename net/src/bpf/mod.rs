//! `bpf/IF`: capture and injection.
//!
//! A read gives a classic pcap stream, `DLT_NULL`, in host byte order; a write sends a packet out
//! of the interface. Every open file has a [ring](crate::capture) of its own at the interface.
//!
//! [`drops`] are the packets that all interfaces dropped.

pub(crate) mod drops;

use scheme::errno::{self, Errno};
use scheme::{Argument, Caller, DirEntry, FileKind, Outcome, Ready, Stat};

use crate::capture::Capture;
use crate::ifnet::{Family, IfIndex, Tap, TapId};
use crate::ioctl::triple;
use crate::ip::{Ip, destination_of};
use crate::packet::Packet;

/// `BIOCGSTATS`: two counters, packets seen by the filter and packets lost.
const BIOCGSTATS: (u32, u32, u32) = (b'B' as u32, 111, 8);

/// The answer of `stat` for a capture.
pub(crate) const DEVICE: Stat = Stat {
    kind: FileKind::Device,
    mode: 0o600,
    size: 0,
};

/// An open capture.
#[derive(Debug)]
pub(crate) struct Handle {
    interface: String,
    stream: Stream,
}

/// The source of the packets.
#[derive(Debug)]
enum Stream {
    /// At the interface, where they are captured.
    Attached(IfIndex, TapId),
    /// The interface is gone. These packets are left to read.
    Left(Capture),
}

/// The entries of the directory `bpf`.
pub(crate) fn list(ip: &Ip) -> Vec<DirEntry> {
    let entry = |name: &str| DirEntry {
        name: name.to_owned(),
        kind: FileKind::Device,
    };
    ip.ifs.names().chain([drops::NAME]).map(entry).collect()
}

/// Describes a capture without beginning one.
pub(crate) fn stat(ip: &Ip, name: &str) -> Result<Stat, Errno> {
    if name == drops::NAME {
        return Ok(drops::DEVICE);
    }
    ip.ifs.by_name(name).map(|_| DEVICE).ok_or(errno::ENOENT)
}

/// Begins to capture on an interface. `id` is a number that no other capture has. `EPERM` unless
/// the caller is the superuser.
pub(crate) fn open(ip: &mut Ip, name: &str, caller: Caller, id: TapId) -> Result<Handle, Errno> {
    if caller.uid != 0 {
        return Err(errno::EPERM);
    }
    let dev = ip.ifs.by_name(name).ok_or(errno::ENOENT)?;
    let capture = Capture::new(&ip.rings);
    let ifp = ip.ifs.get_mut(dev).ok_or(errno::ENOENT)?;
    ifp.taps.push(Tap {
        id,
        capture,
        rose: false,
    });
    Ok(Handle {
        interface: name.to_owned(),
        stream: Stream::Attached(dev, id),
    })
}

impl Handle {
    pub(crate) fn path(&self) -> String {
        format!("bpf/{}", self.interface)
    }

    fn capture<'a>(&'a mut self, ip: &'a mut Ip) -> Option<&'a mut Capture> {
        match &mut self.stream {
            Stream::Attached(dev, id) => {
                let mut taps = ip.ifs.get_mut(*dev)?.taps.iter_mut();
                Some(&mut taps.find(|tap| tap.id == *id)?.capture)
            }
            Stream::Left(capture) => Some(capture),
        }
    }

    fn dev(&self) -> Result<IfIndex, Errno> {
        match self.stream {
            Stream::Attached(dev, _) => Ok(dev),
            Stream::Left(_) => Err(errno::ENXIO),
        }
    }

    /// Reads the next bytes of the stream. When the interface is gone, a reader gets what is left,
    /// and then `ENXIO`.
    pub(crate) fn read(&mut self, ip: &mut Ip, buf: &mut [u8]) -> Outcome<usize> {
        if buf.is_empty() {
            return Outcome::Done(Ok(0));
        }
        let dev = self.dev();
        match self.capture(ip) {
            Some(capture) if !capture.is_empty() => Outcome::Done(Ok(capture.ring().read(buf))),
            _ => match dev {
                Ok(_) => Outcome::Wait,
                Err(error) => error.into(),
            },
        }
    }

    /// Sends a packet out of the interface, as `AF_UNSPEC` does in DragonFly's `tunoutput`: four
    /// bytes of family come first, in host byte order.
    pub(crate) fn write(&self, ip: &mut Ip, buf: &[u8]) -> Result<usize, Errno> {
        let dev = self.dev()?;
        let (af, packet) = buf.split_first_chunk().ok_or(errno::EINVAL)?;
        let af = u32::from_ne_bytes(*af);
        if packet.is_empty() {
            return Err(errno::EINVAL);
        }
        let known = Family::from_af(af);
        let mtu = ip.ifs.get(dev).ok_or(errno::ENXIO)?.mtu;
        if known.is_some() && packet.len() > usize::from(mtu) {
            return Err(errno::EMSGSIZE);
        }
        let family = known.unwrap_or(Family::Other(af));
        let next_hop = destination_of(family, packet);
        ip.if_output(dev, family, Packet::from(packet), next_hop)?;
        Ok(buf.len())
    }

    pub(crate) fn ioctl(
        &mut self,
        ip: &mut Ip,
        request: u32,
        arg: Argument<'_>,
    ) -> Result<(), Errno> {
        ring_ioctl(request, arg, || {
            self.capture(ip).map(|capture| capture.ring().counters())
        })
    }

    pub(crate) fn ready(&mut self, ip: &mut Ip) -> Ready {
        let attached = self.dev().is_ok();
        let empty = self.capture(ip).is_none_or(|capture| capture.is_empty());
        match attached && empty {
            true => Ready::WRITE,
            false => Ready::all(),
        }
    }

    /// Stops capturing.
    pub(crate) fn close(&self, ip: &mut Ip) {
        if let Stream::Attached(dev, id) = self.stream
            && let Some(ifp) = ip.ifs.get_mut(dev)
        {
            ifp.taps.retain(|tap| tap.id != id);
        }
    }

    /// Handles the end of the interface: keeps the packets its capture holds.
    pub(crate) fn detached(&mut self, left: Capture) {
        self.stream = Stream::Left(left);
    }
}

/// The ioctls of every capture; `counters` are those of its ring, if it is there.
fn ring_ioctl(
    request: u32,
    mut arg: Argument<'_>,
    counters: impl FnOnce() -> Option<(u32, u32)>,
) -> Result<(), Errno> {
    if triple(request) != BIOCGSTATS {
        return Err(errno::ENOTTY);
    }
    let (seen, lost) = counters().ok_or(errno::ENXIO)?;
    let mut stats = [0; 8];
    stats[..4].copy_from_slice(&seen.to_ne_bytes());
    stats[4..].copy_from_slice(&lost.to_ne_bytes());
    arg.put(stats)
}

//! `bpf/IF`: capture and injection.
//!
//! A read gives a classic pcap stream, `DLT_NULL`, in host byte order; a write sends a packet out
//! of the interface. Every open file has a ring of its own: a slow reader loses captures, which are
//! counted, and never traffic.

use std::collections::VecDeque;
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::{DataLink, Endianness, TsResolution};
use scheme::errno::{self, Errno};
use scheme::{Argument, Caller, DirEntry, FileId, FileKind, Outcome, Ready, Stat};

use crate::ifnet::{Family, IfIndex, Ifnet};
use crate::net::{File, Net};
use crate::netisr::destination_of;
use crate::packet::Packet;

/// Most bytes of a packet that are captured.
pub const SNAPLEN: u32 = 65_535;
/// Bytes that a ring holds for its reader.
const RING_BYTES: usize = 1 << 20;
/// `BIOCGSTATS`: two counters, packets seen by the filter and packets lost.
const BIOCGSTATS: (u32, u32, u32) = (b'B' as u32, 111, 8);

pub(crate) const DEVICE: Stat = Stat {
    kind: FileKind::Device,
    mode: 0o600,
    size: 0,
};

/// One capture.
pub(crate) struct Handle {
    interface: String,
    /// `None` when the interface is gone.
    dev: Option<IfIndex>,
    /// The stream, as far as it is not read.
    ring: VecDeque<u8>,
    captured: u32,
    lost: u32,
}

impl Handle {
    pub(crate) fn path(&self) -> String {
        format!("bpf/{}", self.interface)
    }

    /// Adds a packet to the ring, if it has room for all of it. True when the ring was empty.
    fn capture(&mut self, wall: Duration, af: u32, packet: &[u8]) -> bool {
        self.captured = self.captured.wrapping_add(1);
        let mut data = Vec::with_capacity(4 + packet.len());
        data.extend_from_slice(&af.to_ne_bytes());
        data.extend_from_slice(packet);
        let orig_len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        data.truncate(SNAPLEN as usize);
        let record = PcapPacket::new_owned(wall, orig_len, data);
        let Ok(mut writer) = PcapWriter::with_header(Vec::new(), header()) else {
            return false;
        };
        if writer.write_packet(&record).is_err() {
            return false;
        }
        let bytes = writer.into_writer();
        let record = &bytes[HEADER_LEN.min(bytes.len())..];
        if self.ring.len() + record.len() > RING_BYTES {
            self.lost = self.lost.wrapping_add(1);
            return false;
        }
        let edge = self.ring.is_empty();
        self.ring.extend(record);
        edge
    }
}

/// Bytes of the file header of a pcap stream.
const HEADER_LEN: usize = 24;

fn header() -> PcapHeader {
    PcapHeader {
        snaplen: SNAPLEN,
        datalink: DataLink::NULL,
        ts_resolution: TsResolution::MicroSecond,
        endianness: Endianness::native(),
        ..PcapHeader::default()
    }
}

impl Net {
    pub(crate) fn bpf_list(&self) -> Vec<DirEntry> {
        let entry = |name: &str| DirEntry {
            name: name.to_owned(),
            kind: FileKind::Device,
        };
        self.ifs.names().map(entry).collect()
    }

    pub(crate) fn bpf_stat(&self, name: &str) -> Result<Stat, Errno> {
        self.ifs.by_name(name).map(|_| DEVICE).ok_or(errno::ENOENT)
    }

    pub(crate) fn bpf_open(&mut self, name: &str, caller: Caller) -> Result<FileId, Errno> {
        if caller.uid != 0 {
            return Err(errno::EPERM);
        }
        let dev = self.ifs.by_name(name).ok_or(errno::ENOENT)?;
        // The stream begins with the header, before there is any packet.
        let writer = PcapWriter::with_header(Vec::new(), header()).map_err(|_| errno::EIO)?;
        let handle = Handle {
            interface: name.to_owned(),
            dev: Some(dev),
            ring: writer.into_writer().into(),
            captured: 0,
            lost: 0,
        };
        let id = self.add_file(File::Bpf(Box::new(handle)))?;
        if let Some(ifp) = self.ifs.get_mut(dev) {
            ifp.taps.push(id);
        }
        Ok(id)
    }

    fn bpf(&mut self, id: FileId) -> Result<&mut Handle, Errno> {
        match self.file_mut(id)? {
            File::Bpf(handle) => Ok(handle),
            _ => Err(errno::EBADF),
        }
    }

    pub(crate) fn bpf_read(&mut self, id: FileId, buf: &mut [u8]) -> Outcome<usize> {
        let handle = match self.bpf(id) {
            Ok(handle) => handle,
            Err(error) => return error.into(),
        };
        if buf.is_empty() {
            return Outcome::Done(Ok(0));
        }
        if handle.ring.is_empty() {
            return match handle.dev {
                Some(_) => Outcome::Wait,
                None => errno::ENXIO.into(),
            };
        }
        let len = buf.len().min(handle.ring.len());
        for (to, from) in buf.iter_mut().zip(handle.ring.drain(..len)) {
            *to = from;
        }
        Outcome::Done(Ok(len))
    }

    /// The seed's `AF_UNSPEC` case of `tunoutput`: the family comes first, in host byte order.
    pub(crate) fn bpf_write(&mut self, id: FileId, buf: &[u8]) -> Result<usize, Errno> {
        let dev = self.bpf(id)?.dev.ok_or(errno::ENXIO)?;
        let (af, packet) = buf.split_first_chunk().ok_or(errno::EINVAL)?;
        let af = u32::from_ne_bytes(*af);
        if packet.is_empty() {
            return Err(errno::EINVAL);
        }
        let Some(family) = Family::from_af(af) else {
            return Err(self.if_refuse(dev, af, packet).into());
        };
        let mtu = self.ifs.get(dev).ok_or(errno::ENXIO)?.mtu;
        if packet.len() > usize::from(mtu) {
            return Err(errno::EMSGSIZE);
        }
        let next_hop = destination_of(family, packet);
        self.if_output(dev, family, Packet::from(packet), next_hop)?;
        Ok(buf.len())
    }

    pub(crate) fn bpf_ioctl(
        &mut self,
        id: FileId,
        request: u32,
        mut arg: Argument<'_>,
    ) -> Result<(), Errno> {
        if crate::tun::triple(request) != BIOCGSTATS {
            return Err(errno::ENOTTY);
        }
        let handle = self.bpf(id)?;
        let mut stats = [0; 8];
        stats[..4].copy_from_slice(&handle.captured.to_ne_bytes());
        stats[4..].copy_from_slice(&handle.lost.to_ne_bytes());
        arg.put(stats)
    }

    pub(crate) fn bpf_ready(&mut self, id: FileId) -> Ready {
        match self.bpf(id) {
            Ok(handle) if handle.ring.is_empty() && handle.dev.is_some() => Ready::WRITE,
            Ok(_) => Ready::all(),
            Err(_) => Ready::empty(),
        }
    }

    pub(crate) fn bpf_close(&mut self, id: FileId) {
        if let Ok(Handle { dev: Some(dev), .. }) = self.bpf(id) {
            let dev = *dev;
            if let Some(ifp) = self.ifs.get_mut(dev) {
                ifp.taps.retain(|&tap| tap != id);
            }
        }
    }

    /// `bpf_mtap`: shows a packet to everybody who captures on the interface.
    #[inline]
    pub(crate) fn bpf_tap(&mut self, dev: IfIndex, af: u32, packet: &[u8]) {
        // Almost always nobody does.
        if self.ifs.get(dev).is_some_and(|ifp| !ifp.taps.is_empty()) {
            self.bpf_capture(dev, af, packet);
        }
    }

    #[cold]
    fn bpf_capture(&mut self, dev: IfIndex, af: u32, packet: &[u8]) {
        let taps = self.ifs.get(dev).map(|ifp| ifp.taps.clone());
        let wall = self.now.wall;
        for id in taps.into_iter().flatten() {
            if let Ok(handle) = self.bpf(id)
                && handle.capture(wall, af, packet)
            {
                self.wake(id, Ready::READ);
            }
        }
    }

    /// The interface is gone; readers get what is left, and then `ENXIO`.
    pub(crate) fn bpf_detach(&mut self, ifp: &Ifnet) {
        for &id in &ifp.taps {
            if let Ok(handle) = self.bpf(id) {
                handle.dev = None;
            }
            self.wake(id, Ready::all());
        }
    }
}

//! Many packets in one read or write.
//!
//! [`Incoming`] and [`Outgoing`] hold them for [`Device::recv`](crate::Device::recv) and
//! [`Device::send`](crate::Device::send), whatever the format of the device: in batch mode or one
//! by one, with the address family in front or without, ours or the kernel's.
//!
//! [`push`] and [`packets`] are the bare format of batch mode for programs that read and write by
//! themselves: a sequence of frames, each the length as a native-endian `u32`, the packet with its
//! header, and zeros up to a multiple of four.
//!
//! ```
//! use tun::batch;
//!
//! let mut batch = Vec::new();
//! batch::push(&mut batch, b"one packet");
//! batch::push(&mut batch, b"another");
//! assert_eq!(batch.len(), 4 + 12 + 4 + 8);
//!
//! let packets: Vec<&[u8]> = batch::packets(&batch).collect();
//! assert_eq!(packets, [&b"one packet"[..], b"another"]);
//! ```

use std::{fmt, io};

use crate::TUNMRU;
use crate::frames::{self, FramesMut, LENGTH, Reading, Writing};

/// Adds a packet to a batch.
pub fn push(batch: &mut Vec<u8>, packet: &[u8]) {
    let len = u32::try_from(packet.len()).unwrap_or(u32::MAX);
    batch.extend_from_slice(&len.to_ne_bytes());
    batch.extend_from_slice(packet);
    batch.resize(batch.len().next_multiple_of(4), 0);
}

/// The packets of a batch that was read. Ends at the first incomplete frame.
pub fn packets(batch: &[u8]) -> Packets<'_> {
    Packets { rest: batch }
}

/// Iterator over the packets of a batch.
#[derive(Clone, Debug)]
pub struct Packets<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Packets<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (len, rest) = self.rest.split_first_chunk::<LENGTH>()?;
        let len = usize::try_from(u32::from_ne_bytes(*len)).ok()?;
        let packet = rest.get(..len)?;
        self.rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(packet)
    }
}
/// Bytes of address family before a packet, if it is on.
const HEAD: usize = 4;
/// Least room for packets that are read, bytes: the longest there are, with every header.
const LEAST_READ: usize = 68 * 1024;

/// How a device wants what is read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Format {
    /// Whether one read or write carries many packets ([`Tun::set_batch`](crate::Tun::set_batch)).
    pub batch: bool,
    /// Whether four bytes of address family precede each packet
    /// ([`Tun::set_ifhead`](crate::Tun::set_ifhead)).
    pub ifhead: bool,
}

/// Packets that were read, in memory that begins on a page. [`Device::recv`](crate::Device::recv)
/// fills it.
#[derive(Debug)]
pub struct Incoming {
    frames: Reading,
    /// Bytes in front of each packet.
    head: usize,
}

impl Incoming {
    /// Room for so many bytes in one read: at least 68 KiB, at most 1 MiB.
    pub fn new(capacity: usize) -> Self {
        Self {
            frames: Reading::new(capacity, LEAST_READ),
            head: 0,
        }
    }

    /// The packets that were read last.
    pub fn packets(&mut self) -> PacketsMut<'_> {
        PacketsMut {
            frames: self.frames.frames(),
            head: self.head,
        }
    }

    pub(crate) fn recv(
        &mut self,
        format: Format,
        read: impl Fn(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<PacketsMut<'_>> {
        self.frames.read(|buf| match format.batch {
            true => read(buf),
            false => {
                let len = read(&mut buf[LENGTH..])?;
                Ok(frames::finish(buf, len))
            }
        })?;
        self.head = if format.ifhead { HEAD } else { 0 };
        Ok(self.packets())
    }
}

impl Default for Incoming {
    /// Room for 128 KiB.
    fn default() -> Self {
        Self::new(128 * 1024)
    }
}

/// Iterator over packets that were read. They begin with the IP header, whatever the format of the
/// device, and may be changed in place.
#[derive(Debug)]
pub struct PacketsMut<'a> {
    frames: FramesMut<'a>,
    head: usize,
}

impl<'a> Iterator for PacketsMut<'a> {
    type Item = &'a mut [u8];

    fn next(&mut self) -> Option<&'a mut [u8]> {
        self.frames.next()?.get_mut(self.head..)
    }
}

/// Packets to be written. It lends the room for each, so that none is copied, and puts headers and
/// padding around it. [`Device::send`](crate::Device::send) writes them.
///
/// ```
/// use tun::batch::{Format, Outgoing, Refused};
///
/// let format = Format { batch: true, ifhead: true };
/// let mut outgoing = Outgoing::new(format, 64 * 1024);
/// let room = outgoing.lend(1420).expect("room for at least one");
/// room[0] = 0x45; // an IPv4 packet is made, decrypted, … here
/// outgoing.commit(40)?; // and was 40 bytes long
///
/// // One that nobody would take is refused alone.
/// outgoing.lend(20_000).expect("more room");
/// assert_eq!(outgoing.commit(20_000), Err(Refused::TooLong));
/// assert_eq!(outgoing.push(&[0; 20]), Err(Refused::NotIp));
/// assert_eq!(outgoing.len(), 1);
/// # Ok::<(), Refused>(())
/// ```
#[derive(Debug)]
pub struct Outgoing {
    frames: Writing,
    ifhead: bool,
}

/// Why a packet was not added to a batch, which is as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no more room: write the batch first.
    Full,
    /// It is longer than [`TUNMRU`], or than the room that was lent.
    TooLong,
    /// It is empty, or its version is neither 4 nor 6.
    NotIp,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "no more room in the batch",
            Self::TooLong => "packet too long",
            Self::NotIp => "not an IP packet",
        })
    }
}

impl std::error::Error for Refused {}

impl Outgoing {
    /// Room for so many bytes, at most 1 MiB, with headers and padding; at least for one packet of
    /// [`TUNMRU`]. The format is that of the device they will be written to, from
    /// [`Device::format`](crate::Device::format).
    pub fn new(format: Format, capacity: usize) -> Self {
        let prefix = if format.ifhead { HEAD } else { 0 };
        Self {
            frames: Writing::new(capacity, prefix, TUNMRU),
            ifhead: format.ifhead,
        }
    }

    /// Room for a packet of at most `len` bytes; `None` if there is not so much left. It holds
    /// whatever was in it before. The packet is added by [`commit`](Self::commit); until then,
    /// lending again lends the same room.
    pub fn lend(&mut self, len: usize) -> Option<&mut [u8]> {
        self.frames.lend(len)
    }

    /// Adds the packet that is in the first `len` bytes of the room that was lent last.
    pub fn commit(&mut self, len: usize) -> Result<(), Refused> {
        let packet = self.frames.lent(len).ok_or(Refused::TooLong)?;
        if len > TUNMRU {
            return Err(Refused::TooLong);
        }
        let family: u32 = match packet.first().map(|first| first >> 4) {
            Some(4) => 2,
            Some(6) => 10,
            _ => return Err(Refused::NotIp),
        };
        match self.ifhead {
            true => self.frames.commit(&family.to_be_bytes(), len),
            false => self.frames.commit(&[], len),
        }
        Ok(())
    }

    /// Adds a copy of a packet.
    pub fn push(&mut self, packet: &[u8]) -> Result<(), Refused> {
        if packet.len() > TUNMRU {
            return Err(Refused::TooLong);
        }
        let room = self.lend(packet.len()).ok_or(Refused::Full)?;
        room.copy_from_slice(packet);
        self.commit(packet.len())
    }

    /// The number of packets in it.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes all packets out.
    pub fn clear(&mut self) {
        self.frames.clear();
    }

    pub(crate) fn send(
        &mut self,
        format: Format,
        write: impl Fn(&[u8]) -> io::Result<usize>,
    ) -> io::Result<()> {
        if format.ifhead != self.ifhead {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if format.batch {
            return self.frames.write_whole(write);
        }
        // What was written is one frame, however long it is.
        let write = |frames: &[u8]| write(frames::first(frames)).map(|_| 1);
        let waits = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        self.frames.write_all(write, waits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let mut batch = Vec::new();
        for packet in [&b"one"[..], b"four", b"seventeen bytes !"] {
            push(&mut batch, packet);
        }
        assert_eq!(batch.len() % 4, 0);
        let out: Vec<_> = packets(&batch).collect();
        assert_eq!(out, [&b"one"[..], b"four", b"seventeen bytes !"]);
        assert_eq!(packets(&batch[..5]).count(), 0);
        assert_eq!(packets(&[0xff; 8]).count(), 0);
    }

    const BATCH: Format = Format {
        batch: true,
        ifhead: true,
    };

    /// What `send` gives to the device, call by call.
    fn written(outgoing: &mut Outgoing, format: Format) -> Vec<Vec<u8>> {
        let calls = std::cell::RefCell::new(Vec::new());
        let write = |bytes: &[u8]| {
            calls.borrow_mut().push(bytes.to_vec());
            Ok(bytes.len())
        };
        outgoing.send(format, write).unwrap();
        assert!(outgoing.is_empty());
        calls.into_inner()
    }

    fn fill(outgoing: &mut Outgoing) {
        for packet in [&[0x45; 20][..], &[0x60; 41]] {
            outgoing.push(packet).unwrap();
        }
    }

    #[test]
    fn packets_leave_as_the_device_wants_them() {
        let mut with_head = Outgoing::new(BATCH, 0);
        fill(&mut with_head);
        let calls = written(&mut with_head, BATCH);
        let [batch] = &calls[..] else {
            panic!("{calls:?}");
        };
        let frames: Vec<_> = packets(batch).collect();
        assert_eq!(frames[0], [&[0, 0, 0, 2][..], &[0x45; 20]].concat());
        assert_eq!(frames[1], [&[0, 0, 0, 10][..], &[0x60; 41]].concat());
        assert_eq!((frames.len(), batch.len() % 4), (2, 0));

        let single = Format::default();
        let mut bare = Outgoing::new(single, 0);
        fill(&mut bare);
        assert_eq!(written(&mut bare, single), [vec![0x45; 20], vec![0x60; 41]]);
        fill(&mut bare);
        assert!(bare.send(BATCH, |_| Ok(1)).is_err(), "another format");
    }

    #[test]
    fn packets_come_without_headers() {
        let mut incoming = Incoming::new(0);
        let mut batch = Vec::new();
        push(&mut batch, &[0, 0, 0, 2, 0x45, 1]);
        push(&mut batch, &[0, 0, 0, 10, 0x60, 2, 3]);
        let read = |bytes: Vec<u8>| {
            move |buf: &mut [u8]| {
                buf[..bytes.len()].copy_from_slice(&bytes);
                Ok(bytes.len())
            }
        };
        let got = incoming.recv(BATCH, read(batch)).unwrap();
        let got: Vec<_> = got.map(|packet| packet.to_vec()).collect();
        assert_eq!(got, [vec![0x45, 1], vec![0x60, 2, 3]]);
        let single = Format::default();
        let mut got = incoming.recv(single, read(vec![0x45; 7])).unwrap();
        assert_eq!(got.next().as_deref(), Some(&[0x45; 7][..]));
        assert_eq!(got.next(), None);
    }

    #[test]
    fn one_that_is_refused_leaves_the_others() {
        let mut outgoing = Outgoing::new(BATCH, 0);
        assert_eq!(outgoing.push(&[]), Err(Refused::NotIp));
        assert_eq!(outgoing.push(&[0x45; TUNMRU + 1]), Err(Refused::TooLong));
        assert_eq!(outgoing.push(&[0x50; 20]), Err(Refused::NotIp));
        outgoing.lend(20).unwrap();
        assert_eq!(outgoing.commit(21), Err(Refused::TooLong));
        outgoing.push(&[0x45; TUNMRU]).unwrap();
        assert_eq!(outgoing.push(&[0x45; 20]), Err(Refused::Full));
        assert_eq!(outgoing.len(), 1);
    }
}

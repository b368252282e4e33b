//! `bpf/drops`: the packets that any interface drops, and why.
//!
//! A read gives a pcapng stream, in host byte order, with a comment `in REASON` or `out REASON` on each
//! packet. Interfaces keep what they drop only while such a file is open.

use scheme::errno::{self, Errno};
use scheme::{Argument, Caller, FileKind, Outcome, Ready, Stat};

use super::ring_ioctl;
use crate::capture::CommentedCapture;
use crate::ifnet::{Ifnet, TapId};
use crate::ip::Ip;

/// Its name below `bpf`. No interface has it.
pub(crate) const NAME: &str = "drops";

/// The answer of `stat`.
pub(crate) const DEVICE: Stat = Stat {
    kind: FileKind::Device,
    mode: 0o400,
    size: 0,
};

/// Everybody who watches.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    captures: Vec<(TapId, CommentedCapture)>,
}

impl Watchers {
    /// Begins to watch. `id` is a number that no other capture has. `EPERM` unless the caller is the
    /// superuser.
    pub(crate) fn open(&mut self, ip: &mut Ip, caller: Caller, id: TapId) -> Result<TapId, Errno> {
        if caller.uid != 0 {
            return Err(errno::EPERM);
        }
        if self.captures.is_empty() {
            ip.watch_drops(true);
        }
        self.captures.push((id, CommentedCapture::new(&ip.rings)));
        Ok(id)
    }

    /// Stops watching.
    pub(crate) fn close(&mut self, ip: &mut Ip, id: TapId) {
        self.captures.retain(|(other, _)| *other != id);
        if self.captures.is_empty() {
            ip.watch_drops(false);
        }
    }

    /// Takes what an interface dropped. `rose` is called for each capture that had nothing to read
    /// before.
    pub(crate) fn collect(&mut self, ip: &mut Ip, mut rose: impl FnMut(TapId)) {
        let wall = ip.now.wall;
        for ifp in ip.ifs.iter_mut() {
            self.record(ifp, wall, &mut rose);
        }
    }

    /// The same, for an interface that is gone.
    pub(crate) fn record(
        &mut self,
        ifp: &mut Ifnet,
        wall: std::time::Duration,
        mut rose: impl FnMut(TapId),
    ) {
        let Some(drops) = ifp.take_drops() else {
            return;
        };
        for (id, capture) in &mut self.captures {
            let edge = capture.is_empty();
            capture.miss(drops.missed);
            for dropped in &drops.packets {
                let comment = format!("{} {}", dropped.way.name(), dropped.reason.name());
                let (packet, len) = (&dropped.packet, dropped.len);
                capture.record(wall, &ifp.name, dropped.framing, &comment, packet, len);
            }
            if edge && !capture.is_empty() {
                rose(*id);
            }
        }
    }

    fn capture(&mut self, id: TapId) -> Option<&mut CommentedCapture> {
        let mut captures = self.captures.iter_mut();
        Some(&mut captures.find(|(other, _)| *other == id)?.1)
    }

    /// Reads the next bytes of the stream.
    pub(crate) fn read(&mut self, id: TapId, buf: &mut [u8]) -> Outcome<usize> {
        match self.capture(id) {
            None => errno::EBADF.into(),
            Some(_) if buf.is_empty() => Outcome::Done(Ok(0)),
            Some(capture) if capture.is_empty() => Outcome::Wait,
            Some(capture) => Outcome::Done(Ok(capture.ring().read(buf))),
        }
    }

    pub(crate) fn ioctl(
        &mut self,
        id: TapId,
        request: u32,
        arg: Argument<'_>,
    ) -> Result<(), Errno> {
        ring_ioctl(request, arg, || {
            self.capture(id).map(|capture| capture.ring().counters())
        })
    }

    /// Readable when there is something to read. A write is refused at once.
    pub(crate) fn ready(&mut self, id: TapId) -> Ready {
        match self.capture(id) {
            Some(capture) if capture.is_empty() => Ready::WRITE,
            _ => Ready::all(),
        }
    }
}

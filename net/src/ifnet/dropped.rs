//! Packets that an interface dropped, on their way to those who watch.

use super::{DropReason, Family, Frame, IfStats, Ifnet};
use crate::capture::{Framing, RING_BYTES, SNAPLEN};
use crate::memory::{Pool, Share};

/// Bytes charged for a packet besides its own: its place, in a list that may be half full.
const OVERHEAD: usize = 2 * size_of::<Dropped>();

/// The direction in which a packet was going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    In,
    Out,
}

impl Way {
    /// Its name in the ledger.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

/// A packet that was dropped.
#[derive(Clone, Debug)]
pub(crate) struct Dropped {
    pub(crate) way: Way,
    pub(crate) reason: DropReason,
    pub(crate) framing: Framing,
    /// As much of it as captures keep.
    pub(crate) packet: Vec<u8>,
    /// Its length, bytes.
    pub(crate) len: usize,
}

/// The packets that an interface dropped since they were last collected, as many as captures have
/// room for.
#[derive(Debug)]
pub(crate) struct Drops {
    pub(crate) packets: Vec<Dropped>,
    bytes: usize,
    /// Their memory, which is in that of all captures.
    share: Share,
    /// Packets for which there was no room, or that were not kept.
    pub(crate) missed: u64,
}

/// A copy of counters has no packets.
impl Clone for Drops {
    fn clone(&self) -> Self {
        Self::new(self.share.pool())
    }
}

impl Drops {
    /// None yet.
    pub(super) fn new(pool: &Pool) -> Self {
        Self {
            packets: Vec::new(),
            bytes: 0,
            share: pool.share(),
            missed: 0,
        }
    }

    fn push(&mut self, way: Way, reason: DropReason, framing: Framing, packet: &[u8]) {
        let kept = &packet[..packet.len().min(SNAPLEN as usize)];
        let bytes = self.bytes + kept.len() + OVERHEAD;
        if bytes > RING_BYTES || !self.share.resize(bytes) {
            self.missed += 1;
            return;
        }
        self.bytes = bytes;
        self.packets.push(Dropped {
            way,
            reason,
            framing,
            packet: kept.to_vec(),
            len: packet.len(),
        });
    }

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.packets.is_empty() && self.missed == 0
    }
}

impl Ifnet {
    /// Counts a packet that came in and is dropped.
    pub(crate) fn drop_input(&mut self, reason: DropReason, family: Family, packet: &[u8]) {
        self.stats.drop_input(reason, 1);
        self.show_dropped(Way::In, reason, Framing::Null(family.dlt_null()), packet);
    }

    /// Counts a packet that was to go out and is dropped.
    pub(crate) fn drop_output(&mut self, reason: DropReason, family: Family, packet: &[u8]) {
        self.stats.drop_output(reason, 1);
        self.show_dropped(Way::Out, reason, Framing::Null(family.dlt_null()), packet);
    }

    /// The same, for one that was counted as queued.
    pub(crate) fn drop_queued(&mut self, reason: DropReason, framing: Framing, packet: &[u8]) {
        self.stats.output.queued -= 1;
        self.stats.drop_output(reason, 1);
        self.show_dropped(Way::Out, reason, framing, packet);
    }

    /// Shows a dropped packet, which was counted, to those who watch.
    #[inline]
    pub(crate) fn show_dropped(
        &mut self,
        way: Way,
        reason: DropReason,
        framing: Framing,
        packet: &[u8],
    ) {
        if let Some(drops) = &mut self.stats.watched {
            drops.push(way, reason, framing, packet);
        }
    }

    /// Notes dropped packets that cannot be shown.
    pub(crate) fn miss_dropped(&mut self, packets: u64) {
        if let Some(drops) = &mut self.stats.watched {
            drops.missed += packets;
        }
    }

    /// Takes what was dropped since the last call; `None` if that is nothing, as when nobody watches.
    pub(crate) fn take_drops(&mut self) -> Option<Drops> {
        let watched = self.stats.watched.as_deref_mut()?;
        let none = Drops::new(watched.share.pool());
        (!watched.is_empty()).then(|| std::mem::replace(watched, none))
    }
}

impl IfStats {
    /// Counts a frame that was in the send queue and is dropped, and shows it to those who watch.
    pub(super) fn lose(&mut self, frame: &Frame, reason: DropReason) {
        self.output.queued -= 1;
        self.drop_output(reason, 1);
        if let Some(drops) = &mut self.watched {
            let framing = Framing::Null(frame.family.dlt_null());
            drops.push(Way::Out, reason, framing, frame.packet());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::LIMIT;

    #[test]
    fn what_waits_to_be_collected_is_bounded_for_each_interface_and_all() {
        let pool = Pool::default();
        let fill = |drops: &mut Drops| {
            while drops.missed == 0 {
                let framing = Framing::Null(2);
                drops.push(Way::In, DropReason::NoPort, framing, &[0; 1000]);
            }
            drops.packets.len()
        };
        let mut all: Vec<_> = (0..100).map(|_| Drops::new(&pool)).collect();
        let most = fill(&mut all[0]);
        assert!(most > 500 && most * 1000 < RING_BYTES);
        let kept: usize = all.iter_mut().map(fill).sum();
        assert!(kept < 100 * most && pool.bytes() <= LIMIT);
        assert!(LIMIT - pool.bytes() < 2000);
        drop(all);
        assert_eq!(pool.bytes(), 0);
    }
}

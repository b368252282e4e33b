//! Packets that an interface dropped, on their way to those who watch.

use super::{DropReason, Family, Frame, IfStats, Ifnet};
use crate::capture::{Framing, RING_BYTES, SNAPLEN};

/// Bytes charged for a packet besides its own.
const OVERHEAD: usize = 64;

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
#[derive(Clone, Debug, Default)]
pub(crate) struct Drops {
    pub(crate) packets: Vec<Dropped>,
    bytes: usize,
    /// Packets for which there was no room, or that were not kept.
    pub(crate) missed: u64,
}

impl Drops {
    fn push(&mut self, way: Way, reason: DropReason, framing: Framing, packet: &[u8]) {
        let kept = &packet[..packet.len().min(SNAPLEN as usize)];
        if self.bytes + kept.len() + OVERHEAD > RING_BYTES {
            self.missed += 1;
            return;
        }
        self.bytes += kept.len() + OVERHEAD;
        self.packets.push(Dropped {
            way,
            reason,
            framing,
            packet: kept.to_vec(),
            len: packet.len(),
        });
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
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

    /// Takes what was dropped since the last call; nothing unless somebody watches.
    pub(crate) fn take_drops(&mut self) -> Drops {
        let watched = self.stats.watched.as_deref_mut();
        watched.map(std::mem::take).unwrap_or_default()
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

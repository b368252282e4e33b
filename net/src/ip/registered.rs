//! Programs that take the packets of a protocol other than IP: BSD's `netisr_register`.
//!
//! There is one for each family at most. Its packets wait here, within bounds, until it reads them;
//! they count as queued at the interface that they came by until their delivery is confirmed.

use std::collections::VecDeque;

use scheme::{FileId, Pid};

use super::Ip;
use crate::ifnet::{DropReason, Family, IfIndex};
use crate::packet::Packet;
use crate::users::Users;

/// Most packets that wait for a program.
const MAX_PACKETS: usize = 256;
/// Most bytes of memory that they occupy.
const MAX_BYTES: usize = 1 << 20;

/// The programs that registered, and the packets for them.
#[derive(Debug, Default)]
pub(super) struct Registered {
    ipx: Option<Handler>,
    appletalk: Option<Handler>,
    /// Files that became readable.
    risen: VecDeque<FileId>,
}

/// The file of a program, and its packets.
#[derive(Debug)]
struct Handler {
    file: FileId,
    users: Users,
    packets: VecDeque<Arrived>,
    /// Bytes of memory that they occupy.
    bytes: usize,
    /// Reads that are not yet known to be delivered, oldest first: the packet, if there was one, and
    /// whether the buffer was too short for it.
    handed: VecDeque<Option<(Arrived, bool)>>,
}

/// A packet that came by an interface.
#[derive(Debug)]
pub(crate) struct Arrived {
    /// The name of the interface.
    pub(crate) interface: String,
    /// The packet.
    pub(crate) packet: Packet,
    /// The interface; `None` if it is gone.
    dev: Option<IfIndex>,
}

impl Registered {
    fn slot(&mut self, family: Family) -> Option<&mut Option<Handler>> {
        match family {
            Family::Ipx => Some(&mut self.ipx),
            Family::AppleTalk => Some(&mut self.appletalk),
            Family::Inet | Family::Inet6 | Family::Other(_) => None,
        }
    }

    fn handler(&mut self, family: Family) -> Option<&mut Handler> {
        self.slot(family)?.as_mut()
    }

    /// Whether a program takes packets of the family.
    pub(super) fn takes(&self, family: Family) -> bool {
        match family {
            Family::Ipx => self.ipx.is_some(),
            Family::AppleTalk => self.appletalk.is_some(),
            Family::Inet | Family::Inet6 | Family::Other(_) => false,
        }
    }

    /// Queues a packet for its program, or hands it back if there is none, or its queue is full.
    pub(super) fn enqueue(
        &mut self,
        family: Family,
        dev: IfIndex,
        interface: &str,
        packet: Packet,
    ) -> Result<(), Packet> {
        let Some(handler) = self.handler(family) else {
            return Err(packet);
        };
        let memory = packet.memory();
        if handler.packets.len() >= MAX_PACKETS || handler.bytes + memory > MAX_BYTES {
            return Err(packet);
        }
        let (first, file) = (handler.packets.is_empty(), handler.file);
        handler.bytes += memory;
        handler.packets.push_back(Arrived {
            interface: interface.to_owned(),
            packet,
            dev: Some(dev),
        });
        if first {
            self.risen.push_back(file);
        }
        Ok(())
    }

    /// Forgets the packets of an interface that is gone.
    pub(super) fn detach(&mut self, dev: IfIndex) {
        for handler in [&mut self.ipx, &mut self.appletalk].into_iter().flatten() {
            handler.packets.retain(|packet| packet.dev != Some(dev));
            let memory = handler.packets.iter().map(|packet| packet.packet.memory());
            handler.bytes = memory.sum();
            let handed = handler.handed.iter_mut().flatten();
            for (packet, _) in handed.filter(|(packet, _)| packet.dev == Some(dev)) {
                packet.dev = None;
            }
        }
    }

    /// Whether [`Ip::poll_registered`] has a file.
    pub(super) fn has_events(&self) -> bool {
        !self.risen.is_empty()
    }
}

impl Ip {
    /// `netisr_register`: packets of the family go to this file from now on, which `opener` has. False
    /// if a program takes them already.
    pub(crate) fn register(&mut self, family: Family, file: FileId, opener: Pid) -> bool {
        match self.registered.slot(family) {
            Some(slot @ None) => {
                *slot = Some(Handler {
                    file,
                    users: Users::of(opener),
                    packets: VecDeque::new(),
                    bytes: 0,
                    handed: VecDeque::new(),
                });
                true
            }
            Some(Some(_)) | None => false,
        }
    }

    /// Ends that. The packets that were not read are dropped.
    pub(crate) fn unregister(&mut self, family: Family) {
        let Some(handler) = self.registered.slot(family).and_then(Option::take) else {
            return;
        };
        let handed = handler.handed.into_iter().flatten();
        for packet in handed.map(|(packet, _)| packet).chain(handler.packets) {
            self.settle(family, &packet, Some(DropReason::Purged));
        }
    }

    /// Ends that, too, when the file is still open. Requests that wait for it are tried again.
    pub(crate) fn evict(&mut self, family: Family) {
        let file = self.registered.handler(family).map(|handler| handler.file);
        self.unregister(family);
        self.registered.risen.extend(file);
    }

    /// The processes that have used the file to which packets of the family go; `None` if that is not
    /// this file.
    pub(crate) fn registered_users(&mut self, family: Family, file: FileId) -> Option<&mut Users> {
        let handler = self.registered.handler(family)?;
        (handler.file == file).then_some(&mut handler.users)
    }

    /// Whether packets of the family go to a file that all its users have left behind.
    pub(crate) fn is_abandoned(&mut self, family: Family, alive: impl Fn(Pid) -> bool) -> bool {
        let handler = self.registered.handler(family);
        handler.is_some_and(|handler| handler.users.all_dead(alive))
    }

    /// The next packet for the program of a family.
    pub(crate) fn registered_peek(&mut self, family: Family) -> Option<&Arrived> {
        self.registered.handler(family)?.packets.front()
    }

    /// Hands it out to a read that it does not fit in if it is `truncated`; nothing, if the read asked
    /// for none. [`registered_complete`](Self::registered_complete) settles it.
    pub(crate) fn registered_take(&mut self, family: Family, truncated: Option<bool>) {
        let Some(handler) = self.registered.handler(family) else {
            return;
        };
        let taken = truncated.and_then(|truncated| {
            let packet = handler.packets.pop_front()?;
            handler.bytes -= packet.packet.memory();
            Some((packet, truncated))
        });
        handler.handed.push_back(taken);
    }

    /// Ends the oldest read. If it was not `delivered`, its packet returns to the head of the queue.
    pub(crate) fn registered_complete(&mut self, family: Family, delivered: bool) {
        let Some(handler) = self.registered.handler(family) else {
            return;
        };
        let Some((packet, truncated)) = handler.handed.pop_front().flatten() else {
            return;
        };
        if delivered {
            self.settle(family, &packet, truncated.then_some(DropReason::Truncated));
        } else if packet.dev.is_some() {
            let file = handler.file;
            handler.bytes += packet.packet.memory();
            handler.packets.push_front(packet);
            self.registered.risen.push_back(file);
        }
    }

    /// Counts the fate of a packet: delivered, or dropped for this reason.
    fn settle(&mut self, family: Family, packet: &Arrived, dropped: Option<DropReason>) {
        let Some(ifp) = packet.dev.and_then(|dev| self.ifs.get_mut(dev)) else {
            return;
        };
        ifp.stats.input.queued -= 1;
        match dropped {
            Some(reason) => ifp.drop_input(reason, family, &packet.packet),
            None => ifp.stats.input.delivered += 1,
        }
    }

    /// The next file that became readable.
    #[must_use]
    pub(crate) fn poll_registered(&mut self) -> Option<FileId> {
        self.registered.risen.pop_front()
    }

    /// Whether [`poll_registered`](Self::poll_registered) has one.
    #[inline]
    pub(crate) fn has_registered_events(&self) -> bool {
        self.registered.has_events()
    }
}

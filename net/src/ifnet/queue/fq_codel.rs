//! Fair queueing with CoDel (RFC 8290).

use std::collections::VecDeque;
use std::time::Duration;

use slab::Slab;

use super::codel::{Backlog, Codel};
use super::flow::{Flow, mark};
use super::spec::{FqCodelSpec, Rate};
use super::{Class, Discipline, Frame, Full, SPARE_PLACES};
use crate::ifnet::{DropReason, Family, IfStats};

/// No frame.
const NONE: u32 = u32::MAX;

/// Queues by flow, which take turns, each looked after by CoDel. When the whole is over its limit,
/// the flow that holds most loses its oldest frame.
#[derive(Debug)]
pub(super) struct FqCodel {
    spec: FqCodelSpec,
    /// Decides which flows share a queue.
    key: ahash::RandomState,
    /// The frames of all flows. Memory is bounded by the limit, however they are distributed.
    frames: Slab<Held>,
    flows: Box<[FlowQueue]>,
    /// Bytes of each flow, close together because the largest is looked for.
    backlogs: Box<[u32]>,
    /// Flows that have just begun, which come first, and the others.
    new: VecDeque<u32>,
    old: VecDeque<u32>,
    /// Frames that were released, and looked at or brought back. They leave next.
    settled: VecDeque<Frame>,
    /// Bytes of all frames, those that are settled included.
    bytes: usize,
    /// Bytes of memory that the frames take.
    memory: usize,
    /// The largest frame so far, bytes.
    largest: usize,
}

/// A frame in the queue of its flow.
#[derive(Debug)]
struct Held {
    frame: Frame,
    /// The frame behind it.
    next: u32,
}

#[derive(Clone, Debug)]
struct FlowQueue {
    first: u32,
    last: u32,
    /// Bytes that it may send before it is another's turn.
    deficit: i64,
    /// Whether it is in one of the lists.
    listed: bool,
    codel: Codel,
}

/// Bytes of memory that a flow takes without packets: its queue, its backlog, and its places in the
/// lists, which may be half full.
pub(super) const FLOW_MEMORY: usize = size_of::<FlowQueue>() + 5 * size_of::<u32>();

impl FqCodel {
    /// Empty queues. `key` decides which flows share one.
    pub(super) fn new(spec: FqCodelSpec, key: ahash::RandomState) -> Self {
        let flow = FlowQueue {
            first: NONE,
            last: NONE,
            deficit: 0,
            listed: false,
            codel: Codel::default(),
        };
        Self {
            spec,
            key,
            frames: Slab::new(),
            flows: vec![flow; spec.flows].into(),
            backlogs: vec![0; spec.flows].into(),
            new: VecDeque::new(),
            old: VecDeque::new(),
            settled: VecDeque::new(),
            bytes: 0,
            memory: 0,
            largest: 0,
        }
    }

    fn class_of(&self, flow: &Flow) -> Class {
        Class((self.key.hash_one(flow) % self.spec.flows as u64) as u32)
    }

    fn is_over(&self) -> bool {
        self.len() > self.spec.limits.packets || self.bytes > self.spec.limits.bytes
    }

    /// Takes the oldest frame of a flow.
    fn pop(&mut self, flow: u32) -> Option<Frame> {
        let queue = self.flows.get_mut(flow as usize)?;
        let Held { frame, next } = self.frames.try_remove(queue.first as usize)?;
        if self.frames.is_empty() && self.frames.capacity() > SPARE_PLACES {
            self.frames = Slab::new();
        }
        queue.first = next;
        if next == NONE {
            queue.last = NONE;
        }
        let len = frame.bytes.len();
        self.bytes -= len;
        self.memory -= frame.memory();
        self.backlogs[flow as usize] -= len as u32;
        Some(frame)
    }

    /// The flow that holds most bytes.
    fn fattest(&self) -> Option<u32> {
        // By hand, because the compiler makes a fast loop of it.
        let most = self.backlogs.iter().fold(0, |most, &bytes| most.max(bytes));
        let at = self.backlogs.iter().position(|&bytes| bytes == most)?;
        (self.flows[at].first != NONE).then_some(at as u32)
    }

    /// Releases a frame by the rules of RFC 8290 section 4.2.
    fn release(&mut self, now: Duration, stats: &mut IfStats) -> Option<Frame> {
        loop {
            let (new, flow) = match self.new.front() {
                Some(&flow) => (true, flow),
                None => (false, *self.old.front()?),
            };
            let quantum = self.spec.quantum as i64;
            let queue = self.flows.get_mut(flow as usize)?;
            if queue.deficit <= 0 {
                queue.deficit += quantum;
                self.unlist(new);
                self.old.push_back(flow);
                continue;
            }
            let mut codel = queue.codel;
            let terms = self.spec.terms;
            let mut backlog = OneFlow {
                all: self,
                flow,
                stats,
            };
            let frame = codel.dequeue(&terms, now, &mut backlog);
            let queue = self.flows.get_mut(flow as usize)?;
            queue.codel = codel;
            if let Some(frame) = frame {
                queue.deficit -= frame.wire_len() as i64;
                return Some(frame);
            }
            // A flow that has just begun and ended does not come first again at once: the others
            // would starve.
            let again = new && !self.old.is_empty();
            queue.listed = again;
            self.unlist(new);
            if again {
                self.old.push_back(flow);
            }
        }
    }

    fn unlist(&mut self, new: bool) {
        match new {
            true => self.new.pop_front(),
            false => self.old.pop_front(),
        };
    }
}

impl Discipline for FqCodel {
    fn classify(&self, family: Family, packet: &[u8]) -> Class {
        self.class_of(&Flow::of(family, packet))
    }

    fn enqueue(&mut self, frame: Frame, stats: &mut IfStats) -> Result<(), Full> {
        let (flow, serial, len) = (frame.class.0, frame.serial, frame.bytes.len());
        let Some(queue) = self.flows.get_mut(flow as usize) else {
            return Err(Full(frame));
        };
        self.largest = self.largest.max(frame.wire_len());
        self.memory += frame.memory();
        let at = self.frames.insert(Held { frame, next: NONE }) as u32;
        match self.frames.get_mut(queue.last as usize) {
            Some(last) => last.next = at,
            None => queue.first = at,
        }
        queue.last = at;
        if !queue.listed {
            queue.listed = true;
            queue.deficit = self.spec.quantum as i64;
            self.new.push_back(flow);
        }
        self.bytes += len;
        self.backlogs[flow as usize] += len as u32;
        while self.is_over() {
            let fattest = self.fattest().unwrap_or(flow);
            let Some(lost) = self.pop(fattest) else {
                break;
            };
            if lost.serial == serial {
                return Err(Full(lost));
            }
            stats.lose(&lost, DropReason::QueueFull);
        }
        Ok(())
    }

    fn dequeue(&mut self, now: Duration, stats: &mut IfStats) -> Option<Frame> {
        match self.settled.pop_front() {
            Some(frame) => {
                self.bytes -= frame.bytes.len();
                self.memory -= frame.memory();
                Some(frame)
            }
            None => self.release(now, stats),
        }
    }

    fn peek(&mut self, now: Duration, stats: &mut IfStats) -> Option<&Frame> {
        if self.settled.is_empty() {
            let frame = self.release(now, stats)?;
            self.requeue(frame);
        }
        self.settled.front()
    }

    fn requeue(&mut self, frame: Frame) {
        self.bytes += frame.bytes.len();
        self.memory += frame.memory();
        self.settled.push_front(frame);
    }

    /// Others make room.
    fn takes(&self, _class: Class, frames: usize, bytes: usize) -> bool {
        frames <= self.spec.limits.packets && bytes <= self.spec.limits.bytes
    }

    fn free(&self) -> usize {
        self.spec.limits.free(self.len(), self.bytes)
    }

    /// One that has nothing here may send, even when others hold nearly everything: it is not the one
    /// that will lose. Others are held back before CoDel has to drop what they sent: with a rate, by
    /// what half the target's time carries of each flow; without one, when their oldest frame has
    /// waited for the target.
    fn admits(&self, flow: &dyn Fn() -> Flow, rate: Option<Rate>, now: Duration) -> bool {
        let flow = self.class_of(&flow()).0 as usize;
        let (Some(queue), Some(&backlog)) = (self.flows.get(flow), self.backlogs.get(flow)) else {
            return false;
        };
        let Some(oldest) = self.frames.get(queue.first as usize) else {
            return true;
        };
        let target = self.spec.terms.target;
        let early = match rate {
            Some(Rate { bits, .. }) => {
                let bytes = u128::from(bits) * target.as_micros() / (2 * 8 * 1_000_000);
                let active = (self.new.len() + self.old.len()).max(1) as u128;
                u128::from(backlog) <= (bytes / active).max(self.largest as u128)
            }
            None => now.saturating_sub(oldest.frame.queued_at) < target,
        };
        early && self.free() > 0
    }

    /// Not all, because each has to be asked whether it may go on.
    fn woken(&self) -> usize {
        const MOST: usize = 8;

        match self.len() {
            0 => self.free(),
            _ => MOST,
        }
    }

    fn len(&self) -> usize {
        self.frames.len() + self.settled.len()
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn memory(&self) -> usize {
        self.memory
    }

    fn drain(&mut self) -> Vec<Frame> {
        let empty = Self::new(self.spec, self.key.clone());
        let all = std::mem::replace(self, empty);
        let held = all.frames.into_iter().map(|(_, held)| held.frame);
        all.settled.into_iter().chain(held).collect()
    }
}

/// The queue of one flow, for CoDel.
struct OneFlow<'a> {
    all: &'a mut FqCodel,
    flow: u32,
    stats: &'a mut IfStats,
}

impl Backlog for OneFlow<'_> {
    type Frame = Frame;

    fn pop(&mut self) -> Option<(Frame, Duration)> {
        let frame = self.all.pop(self.flow)?;
        let queued_at = frame.queued_at;
        Some((frame, queued_at))
    }

    fn is_short(&self) -> bool {
        let backlog = self.all.backlogs.get(self.flow as usize);
        backlog.is_none_or(|&bytes| bytes as usize <= self.all.largest)
    }

    fn mark(&mut self, frame: &mut Frame) -> bool {
        let family = frame.family;
        let marked = mark(family, frame.packet_mut());
        self.stats.marked += u64::from(marked);
        marked
    }

    fn discard(&mut self, frame: Frame) {
        self.stats.lose(&frame, DropReason::Codel);
    }
}

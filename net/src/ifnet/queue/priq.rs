//! Strict priorities: ALTQ's `priq`.

use std::time::Duration;

use super::fifo::Fifo;
use super::flow::precedence;
use super::spec::Limits;
use super::{Class, Discipline, Frame, Full};
use crate::ifnet::{Family, IfStats};

/// Eight queues, by the [precedence] of packets, each with the limits. A frame leaves when those
/// above it are empty.
#[derive(Debug)]
pub(super) struct Priq {
    /// The least urgent first.
    queues: [Fifo; 8],
    /// The class whose first frame was looked at, and so leaves next, whatever comes meanwhile.
    settled: Option<Class>,
}

impl Priq {
    /// Empty queues.
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            queues: std::array::from_fn(|_| Fifo::new(limits)),
            settled: None,
        }
    }

    fn queue(&self, class: Class) -> &Fifo {
        &self.queues[class.0 as usize % 8]
    }

    fn queue_mut(&mut self, class: Class) -> &mut Fifo {
        &mut self.queues[class.0 as usize % 8]
    }

    /// The class that leaves next.
    fn next(&self) -> Option<Class> {
        let busy = self.queues.iter().rposition(|queue| queue.len() > 0);
        self.settled.or(busy.map(|class| Class(class as u32)))
    }
}

impl Discipline for Priq {
    fn classify(&self, family: Family, packet: &[u8]) -> Class {
        Class(precedence(family, packet).into())
    }

    fn enqueue(&mut self, frame: Frame, stats: &mut IfStats) -> Result<(), Full> {
        self.queue_mut(frame.class).enqueue(frame, stats)
    }

    fn dequeue(&mut self, now: Duration, stats: &mut IfStats) -> Option<Frame> {
        let class = self.next()?;
        self.settled = None;
        self.queue_mut(class).dequeue(now, stats)
    }

    fn peek(&mut self, now: Duration, stats: &mut IfStats) -> Option<&Frame> {
        self.settled = self.next();
        self.queue_mut(self.settled?).peek(now, stats)
    }

    fn requeue(&mut self, frame: Frame) {
        self.settled = Some(frame.class);
        self.queue_mut(frame.class).requeue(frame);
    }

    fn takes(&self, class: Class, frames: usize, bytes: usize) -> bool {
        self.queue(class).takes(class, frames, bytes)
    }

    /// Of the lowest class, to which the packets of our own connections belong.
    fn free(&self) -> usize {
        self.queue(Class(0)).free()
    }

    fn len(&self) -> usize {
        self.queues.iter().map(Fifo::len).sum()
    }

    fn bytes(&self) -> usize {
        self.queues.iter().map(Fifo::bytes).sum()
    }

    fn memory(&self) -> usize {
        self.queues.iter().map(Fifo::memory).sum()
    }

    fn drain(&mut self) -> Vec<Frame> {
        self.settled = None;
        self.queues.iter_mut().flat_map(Fifo::drain).collect()
    }
}

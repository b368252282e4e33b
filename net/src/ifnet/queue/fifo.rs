//! First in, first out.

use std::collections::VecDeque;
use std::time::Duration;

use super::spec::Limits;
use super::{Class, Discipline, Frame, Full, SPARE_PLACES};
use crate::ifnet::IfStats;
use crate::memory;

/// First in, first out, bounded in packets and in bytes. When it is full, the newest frame is
/// refused.
#[derive(Debug)]
pub(super) struct Fifo {
    frames: VecDeque<Frame>,
    bytes: usize,
    /// Bytes of memory that the frames take.
    memory: usize,
    limits: Limits,
}

impl Fifo {
    /// An empty queue.
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            frames: VecDeque::new(),
            bytes: 0,
            memory: 0,
            limits,
        }
    }
}

impl Discipline for Fifo {
    fn enqueue(&mut self, frame: Frame, _stats: &mut IfStats) -> Result<(), Full> {
        if !self.takes(frame.class, 1, frame.bytes.len()) {
            return Err(Full(frame));
        }
        self.bytes += frame.bytes.len();
        self.memory += frame.memory();
        self.frames.push_back(frame);
        Ok(())
    }

    fn dequeue(&mut self, _now: Duration, _stats: &mut IfStats) -> Option<Frame> {
        let frame = memory::pop_front(&mut self.frames, SPARE_PLACES)?;
        self.bytes -= frame.bytes.len();
        self.memory -= frame.memory();
        Some(frame)
    }

    fn peek(&mut self, _now: Duration, _stats: &mut IfStats) -> Option<&Frame> {
        self.frames.front()
    }

    fn requeue(&mut self, frame: Frame) {
        self.bytes += frame.bytes.len();
        self.memory += frame.memory();
        self.frames.push_front(frame);
    }

    fn takes(&self, _class: Class, frames: usize, bytes: usize) -> bool {
        self.frames.len() + frames <= self.limits.packets && self.bytes + bytes <= self.limits.bytes
    }

    fn free(&self) -> usize {
        self.limits.free(self.frames.len(), self.bytes)
    }

    fn len(&self) -> usize {
        self.frames.len()
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn memory(&self) -> usize {
        self.memory
    }

    fn drain(&mut self) -> Vec<Frame> {
        (self.bytes, self.memory) = (0, 0);
        std::mem::take(&mut self.frames).into()
    }
}

//! The send queue of an interface: BSD's `ifq`, with ALTQ's disciplines and its regulator.
//!
//! A [`SendQueue`] has a [discipline](Discipline), which says what is kept and what leaves next, and
//! may have a [token bucket](bucket) at the way out, which says when. Packets are
//! [classified](SendQueue::classify) before any header is put before them.
//!
//! - [`fifo`], [`priq`], [`fq_codel`] with [`codel`]: the disciplines;
//! - [`flow`]: what they see of a packet;
//! - [`bucket`]: the rate;
//! - [`spec`]: the line of text that describes all this.

mod bucket;
mod codel;
mod fifo;
mod flow;
mod fq_codel;
mod priq;
mod spec;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use scheme::Now;

use super::{DropReason, Family, IfStats, Outgoing};
use crate::packet::Packet;
use bucket::TokenBucket;
use fifo::Fifo;
pub use flow::Flow;
use fq_codel::FqCodel;
use priq::Priq;
pub use spec::{DisciplineSpec, FqCodelSpec, Limits, QueueSpec, Rate};

/// A packet in a send queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The packet. For a tun device it includes the header, as the program will read it.
    pub bytes: Packet,
    /// Family of the packet.
    pub family: Family,
    /// The router, or the destination itself when it is on the link.
    pub next_hop: IpAddr,
    /// Bytes of headers before the packet.
    head: u8,
    /// Bytes of the header that it gets when it leaves.
    owed: u8,
    class: Class,
    /// Counts the frames of the queue, and wraps around.
    serial: u32,
    queued_at: Duration,
}

/// The class of a packet in the discipline that [assigned](SendQueue::classify) it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Class(u32);

impl Frame {
    /// A frame of a packet.
    pub fn new(bytes: Packet, family: Family, next_hop: IpAddr) -> Self {
        Self {
            bytes,
            family,
            next_hop,
            head: 0,
            owed: 0,
            class: Class::default(),
            serial: 0,
            queued_at: Duration::ZERO,
        }
    }

    /// The frame of a packet without a header, and its length. It takes the packet.
    pub(crate) fn of(outgoing: &mut Outgoing, class: Class) -> (Self, usize) {
        let bytes = std::mem::take(&mut outgoing.packet);
        let len = bytes.len();
        let frame = Self::new(bytes, outgoing.family, outgoing.next_hop);
        (frame.in_class(class), len)
    }

    /// The same frame, in a class that the queue assigned to it.
    pub(crate) fn in_class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    /// Puts a header in front of the packet.
    pub(crate) fn prepend(&mut self, header: &[u8]) {
        self.bytes.prepend(header);
        self.head = self.head.saturating_add(header.len() as u8);
    }

    /// The same frame, which begins with a header of so many bytes.
    pub(crate) fn headed(mut self, header: u8) -> Self {
        self.head = header;
        self
    }

    /// Notes that it will get a header of so many bytes when it leaves. They count for the rate.
    pub(crate) fn owe(mut self, header: u8) -> Self {
        self.owed = header;
        self
    }

    /// The packet, without its headers.
    pub(crate) fn packet(&self) -> &[u8] {
        self.bytes.get(self.head.into()..).unwrap_or_default()
    }

    fn packet_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.head.into()..).unwrap_or_default()
    }

    /// Bytes of memory that it takes in a queue.
    fn memory(&self) -> usize {
        size_of::<Self>() + self.bytes.memory()
    }

    /// Its length as it leaves, bytes.
    fn wire_len(&self) -> usize {
        self.bytes.len() + usize::from(self.owed)
    }
}

/// A queue refused the frame, which it returns.
#[derive(Debug)]
pub struct Full(pub Frame);

/// A queueing discipline: chooses the frames to keep and the frame to release next.
///
/// Times are arguments. As long as any frames are held, one is released. Frames that it dropped
/// after it took them it [counts](IfStats::lose).
trait Discipline: fmt::Debug + Send {
    /// The class of a packet without a header of the link.
    fn classify(&self, _family: Family, _packet: &[u8]) -> Class {
        Class::default()
    }

    /// Takes a frame, whose class it assigned, or hands it back if there is no room for it. It may
    /// have dropped others.
    fn enqueue(&mut self, frame: Frame, stats: &mut IfStats) -> Result<(), Full>;

    /// Releases the next frame.
    fn dequeue(&mut self, now: Duration, stats: &mut IfStats) -> Option<Frame>;

    /// The frame that is released next, whatever comes meanwhile.
    fn peek(&mut self, now: Duration, stats: &mut IfStats) -> Option<&Frame>;

    /// Puts a released frame back at the head, even beyond the limit, because it was not delivered.
    fn requeue(&mut self, frame: Frame);

    /// Whether so many frames of a class, of `bytes` in all, would be taken one after another.
    fn takes(&self, class: Class, frames: usize, bytes: usize) -> bool;

    /// The number of frames that senders that can wait may queue. None are left before it is full, so
    /// that those that cannot wait find room.
    fn free(&self) -> usize;

    /// Whether a sender that can wait may queue a frame of a flow now. `rate` is that of the bucket.
    fn admits(&self, _flow: &dyn Fn() -> Flow, _rate: Option<Rate>, _now: Duration) -> bool {
        self.free() > 0
    }

    /// The number of waiting senders to let try after a frame was released.
    fn woken(&self) -> usize {
        self.free()
    }

    /// Frames held.
    fn len(&self) -> usize;

    /// Their bytes.
    fn bytes(&self) -> usize;

    /// Bytes of memory that the frames take.
    fn memory(&self) -> usize;

    /// Takes all frames out, in any order.
    fn drain(&mut self) -> Vec<Frame>;
}

/// Any discipline. Calls of a fifo, which nearly every interface has, are direct.
#[derive(Debug)]
enum AnyDiscipline {
    Fifo(Fifo),
    Other(Box<dyn Discipline>),
}

/// Calls a method of whichever discipline it is.
macro_rules! either {
    ($any:expr, $queue:ident => $call:expr) => {
        match $any {
            AnyDiscipline::Fifo($queue) => $call,
            AnyDiscipline::Other($queue) => $call,
        }
    };
}

impl Discipline for AnyDiscipline {
    #[inline]
    fn classify(&self, family: Family, packet: &[u8]) -> Class {
        either!(self, queue => queue.classify(family, packet))
    }

    #[inline]
    fn enqueue(&mut self, frame: Frame, stats: &mut IfStats) -> Result<(), Full> {
        either!(self, queue => queue.enqueue(frame, stats))
    }

    #[inline]
    fn dequeue(&mut self, now: Duration, stats: &mut IfStats) -> Option<Frame> {
        either!(self, queue => queue.dequeue(now, stats))
    }

    fn peek(&mut self, now: Duration, stats: &mut IfStats) -> Option<&Frame> {
        either!(self, queue => queue.peek(now, stats))
    }

    fn requeue(&mut self, frame: Frame) {
        either!(self, queue => queue.requeue(frame));
    }

    #[inline]
    fn takes(&self, class: Class, frames: usize, bytes: usize) -> bool {
        either!(self, queue => queue.takes(class, frames, bytes))
    }

    #[inline]
    fn free(&self) -> usize {
        either!(self, queue => queue.free())
    }

    #[inline]
    fn admits(&self, flow: &dyn Fn() -> Flow, rate: Option<Rate>, now: Duration) -> bool {
        either!(self, queue => queue.admits(flow, rate, now))
    }

    #[inline]
    fn woken(&self) -> usize {
        either!(self, queue => queue.woken())
    }

    #[inline]
    fn len(&self) -> usize {
        either!(self, queue => queue.len())
    }

    #[inline]
    fn bytes(&self) -> usize {
        either!(self, queue => queue.bytes())
    }

    #[inline]
    fn memory(&self) -> usize {
        either!(self, queue => queue.memory())
    }

    fn drain(&mut self) -> Vec<Frame> {
        either!(self, queue => queue.drain())
    }
}

/// Places for frames that a queue keeps when nothing is in them: those of the default limit.
const SPARE_PLACES: usize = 256;

/// The packets that wait for the wire, or for the program that reads them.
#[derive(Debug)]
pub struct SendQueue {
    spec: QueueSpec,
    discipline: AnyDiscipline,
    /// `None` if frames leave as soon as they are asked for.
    bucket: Option<TokenBucket>,
    /// The serial number of the next frame.
    serial: u32,
    /// When the frame that was released last was queued, and when it was released.
    stay: (Duration, Duration),
}

impl Default for SendQueue {
    /// A fifo with the default limits.
    fn default() -> Self {
        Self {
            spec: QueueSpec::default(),
            discipline: AnyDiscipline::Fifo(Fifo::new(Limits::default())),
            bucket: None,
            serial: 0,
            stay: (Duration::ZERO, Duration::ZERO),
        }
    }
}

impl SendQueue {
    /// Another discipline and rate. Frames that are held stay, in the order in which they came, as
    /// far as the new limits allow; the others are dropped and counted. A debt of the old bucket is
    /// the new one's. `key` decides which flows share a queue.
    pub(super) fn change(
        &mut self,
        spec: QueueSpec,
        key: &ahash::RandomState,
        now: Now,
        stats: &mut IfStats,
    ) {
        let now = now.monotonic;
        let mut held = self.discipline.drain();
        held.sort_by_key(|frame| std::cmp::Reverse(self.serial.wrapping_sub(frame.serial)));
        self.discipline = match spec.discipline {
            DisciplineSpec::Fifo(limits) => AnyDiscipline::Fifo(Fifo::new(limits)),
            DisciplineSpec::Priq(limits) => AnyDiscipline::Other(Box::new(Priq::new(limits))),
            DisciplineSpec::FqCodel(spec) => {
                AnyDiscipline::Other(Box::new(FqCodel::new(spec, key.clone())))
            }
        };
        self.bucket = spec.rate.map(|rate| match &self.bucket {
            Some(bucket) => bucket.with_rate(rate, now),
            None => TokenBucket::full(rate, now),
        });
        self.spec = spec;
        for mut frame in held {
            frame.class = self.discipline.classify(frame.family, frame.packet());
            if let Err(Full(frame)) = self.discipline.enqueue(frame, stats) {
                stats.lose(&frame, DropReason::QueueFull);
            }
        }
    }

    /// `ifq_classify`: the class of a packet, before a header is put before it.
    #[inline]
    pub(crate) fn classify(&self, family: Family, packet: &[u8]) -> Class {
        self.discipline.classify(family, packet)
    }

    /// `ifq_enqueue`: takes a frame, or hands it back if it is the one for which there is no room.
    #[inline]
    pub(super) fn enqueue(
        &mut self,
        mut frame: Frame,
        now: Now,
        stats: &mut IfStats,
    ) -> Result<(), Full> {
        frame.serial = self.serial;
        self.serial = self.serial.wrapping_add(1);
        frame.queued_at = now.monotonic;
        self.discipline.enqueue(frame, stats)
    }

    /// Whether there is a rate.
    #[inline]
    pub(super) fn has_rate(&self) -> bool {
        self.bucket.is_some()
    }

    /// Whether the rate lets a frame go now, if there is one.
    #[inline]
    pub(super) fn is_open(&self, now: Now) -> bool {
        let bucket = self.bucket.as_ref();
        bucket.is_none_or(|bucket| bucket.may_send(now.monotonic))
    }

    /// `ifq_dequeue`: releases the next frame; `None` while the rate holds it back.
    #[inline]
    pub(super) fn dequeue(&mut self, now: Now, stats: &mut IfStats) -> Option<Frame> {
        if !self.is_open(now) {
            return None;
        }
        let frame = self.discipline.dequeue(now.monotonic, stats)?;
        self.charge(frame.wire_len(), now);
        self.stay = (frame.queued_at, now.monotonic);
        Some(frame)
    }

    /// `ifq_poll`: the frame that is released next; `None` while the rate holds it back. From then
    /// on it is the next, whatever comes meanwhile.
    pub(super) fn peek(&mut self, now: Now, stats: &mut IfStats) -> Option<&Frame> {
        match self.is_open(now) {
            true => self.discipline.peek(now.monotonic, stats),
            false => None,
        }
    }

    /// Puts a released frame back at the head, even beyond the limit, because it was not delivered.
    /// The rate gets its tokens back.
    pub(crate) fn requeue(&mut self, mut frame: Frame) {
        if let Some(bucket) = &mut self.bucket {
            bucket.give(frame.wire_len());
        }
        // The discipline may be another than that which released it.
        frame.class = self.discipline.classify(frame.family, frame.packet());
        self.discipline.requeue(frame);
    }

    /// Pays for bytes that leave by the interface without waiting here.
    #[inline]
    pub(crate) fn charge(&mut self, len: usize, now: Now) {
        if let Some(bucket) = &mut self.bucket {
            bucket.take(len, now.monotonic);
        }
    }

    /// Whether a frame is released now.
    #[inline]
    pub(crate) fn ready(&self, now: Now) -> bool {
        !self.is_empty() && self.is_open(now)
    }

    /// The monotonic time at which the rate releases the next frame; `None` if none is held back.
    #[inline]
    pub(super) fn released_at(&self, now: Now) -> Option<Duration> {
        let bucket = self.bucket.as_ref()?;
        let at = bucket.opens_at(now.monotonic)?;
        (!self.is_empty()).then_some(at)
    }

    /// Whether so many frames of a class, of `bytes` in all, would be taken one after another.
    pub(crate) fn takes(&self, class: Class, frames: usize, bytes: usize) -> bool {
        self.discipline.takes(class, frames, bytes)
    }

    /// Whether a sender that can wait may queue a frame of this flow now.
    #[inline]
    pub(crate) fn admits(&self, flow: impl Fn() -> Flow, now: Now) -> bool {
        self.discipline.admits(&flow, self.spec.rate, now.monotonic)
    }

    /// The number of waiting senders to let try after a frame was released.
    pub(crate) fn woken(&self) -> usize {
        self.discipline.woken()
    }

    /// Its discipline and rate.
    pub(in crate::ifnet) fn spec(&self) -> &QueueSpec {
        &self.spec
    }

    /// Frames held.
    pub fn len(&self) -> usize {
        self.discipline.len()
    }

    /// Their bytes, headers included.
    pub fn bytes(&self) -> usize {
        self.discipline.bytes()
    }

    /// Bytes of memory that the frames take.
    #[inline]
    pub(super) fn memory(&self) -> usize {
        self.discipline.memory()
    }

    /// Whether none are held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How long the frame that was released last has waited.
    pub fn delay(&self) -> Duration {
        let (from, to) = self.stay;
        to.saturating_sub(from)
    }

    /// `ifq_purge`: gives up all frames, which it returns.
    pub(super) fn purge(&mut self) -> Vec<Frame> {
        self.discipline.drain()
    }

    /// Its discipline and rate, in the format of `ifaces/IF/queue`.
    pub fn describe(&self) -> String {
        self.spec.to_string()
    }
}

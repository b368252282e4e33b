//! The sending side: what the program wrote, and the scoreboard of what is in flight (RFC 6675).
//!
//! Bytes stay in the queue until they are acknowledged; a segment in flight is only described.

mod flight;

use core::time::Duration;
use std::collections::VecDeque;

pub(super) use self::flight::{Flight, Mark};
use super::Buffer;
use super::queue::Queue;
use super::receive::FIRST;
use super::seq::SeqNumber;

/// Most segments in flight, so that no peer has us keep a multitude of small ones, which each ACK would
/// be looked up in. Full ones of 1448 bytes are more than any buffer holds.
const MAX_FLIGHTS: usize = 8192;

/// The sending side of a connection.
#[derive(Debug)]
pub(super) struct Send {
    /// `SND.UNA`: the first number that is not acknowledged.
    pub(super) una: SeqNumber,
    /// `SND.NXT`: the first that was never sent.
    pub(super) nxt: SeqNumber,
    /// `SND.WND`, scaled.
    pub(super) window: u32,
    /// The largest window that the other end ever offered.
    pub(super) widest: u32,
    /// `SND.WL1` and `SND.WL2`: the segment that the window is from.
    pub(super) wl1: SeqNumber,
    pub(super) wl2: SeqNumber,
    /// Shift of the other end's windows.
    pub(super) shift: u8,
    /// From `una` on, what the program wrote.
    queue: Queue,
    /// Bytes that the queue may hold.
    limit: u32,
    most: u32,
    /// In flight, oldest first: without a hole from `una` to `nxt`.
    flights: VecDeque<Flight>,
    /// Bytes in flight that are not marked in any way.
    pipe: u32,
    /// Bytes that are marked as lost.
    lost: u32,
    /// Bytes that the other end has beyond a hole.
    sacked: u32,
    /// What is marked as lost is not before this.
    lost_from: SeqNumber,
    /// One past the last small segment, for Nagle's algorithm as Minshall mended it.
    pub(super) small: Option<SeqNumber>,
    /// The program will write no more.
    pub(super) finishing: bool,
    /// The FIN is in flight, or acknowledged.
    pub(super) fin_sent: bool,
}

impl Send {
    pub(super) fn new(buffer: Buffer, iss: SeqNumber) -> Self {
        let (limit, most) = buffer.range(FIRST);
        Self {
            una: iss,
            nxt: iss,
            window: 0,
            widest: 0,
            wl1: SeqNumber(0),
            wl2: SeqNumber(0),
            shift: 0,
            queue: Queue::default(),
            limit,
            most,
            flights: VecDeque::new(),
            pipe: 0,
            lost: 0,
            sacked: 0,
            lost_from: iss,
            small: None,
            finishing: false,
            fin_sent: false,
        }
    }

    /// Has the buffer hold two windows of this size, one in flight and one to follow.
    pub(super) fn grow(&mut self, window: u32) {
        let wanted = window.saturating_mul(2).min(self.most);
        self.limit = self.limit.max(wanted);
    }

    /// Bytes that the program can write.
    pub(super) fn room(&self) -> usize {
        (self.limit as usize).saturating_sub(self.queue.len())
    }

    /// The most that can wait.
    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    /// The bytes that wait for an acknowledgment, or to be sent.
    pub(super) fn queue(&mut self) -> &mut Queue {
        &mut self.queue
    }

    /// Bytes written and not yet acknowledged.
    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Bytes in the queue that were never sent.
    pub(super) fn unsent(&self) -> u32 {
        let sent = self.nxt.since(self.una) - u32::from(self.fin_in_flight());
        (self.queue.len() as u32).saturating_sub(sent)
    }

    fn fin_in_flight(&self) -> bool {
        self.fin_sent && self.una < self.nxt
    }

    /// Whether the FIN is still to be sent, after what is in the queue.
    pub(super) fn owes_fin(&self) -> bool {
        self.finishing && !self.fin_sent
    }

    /// Whether the other end has everything and the FIN.
    pub(super) fn is_finished(&self) -> bool {
        self.fin_sent && self.una == self.nxt
    }

    /// One past the last number that the other end takes.
    pub(super) fn edge(&self) -> SeqNumber {
        self.una + self.window
    }

    /// Bytes of memory beside the connection's own.
    pub(super) fn memory(&self) -> usize {
        self.queue.memory() + self.flights.capacity() * size_of::<Flight>()
    }

    /// Text of `len` bytes from `seq` on, in two pieces; of more than two, the first two.
    pub(super) fn text(&self, seq: SeqNumber, len: u32) -> (&[u8], &[u8]) {
        self.queue
            .slices(seq.since(self.una) as usize, len as usize)
    }

    /// Bytes in flight as far as anybody knows: neither lost nor arrived (RFC 6675 section 4).
    pub(super) fn pipe(&self) -> u32 {
        self.pipe
    }

    /// Bytes that were lost and not sent again.
    pub(super) fn lost(&self) -> u32 {
        self.lost
    }

    /// Bytes that the other end has beyond a hole.
    pub(super) fn sacked(&self) -> u32 {
        self.sacked
    }

    /// Whether anything waits for an acknowledgment.
    pub(super) fn is_outstanding(&self) -> bool {
        !self.flights.is_empty()
    }

    /// The segment that waits longest.
    pub(super) fn oldest(&self) -> Option<&Flight> {
        self.flights.front()
    }

    /// The segment with the highest numbers.
    pub(super) fn newest(&self) -> Option<&Flight> {
        self.flights.back()
    }

    /// Whether a further segment may be in flight.
    pub(super) fn may_fly(&self) -> bool {
        self.flights.len() < MAX_FLIGHTS
    }

    /// How many segments are in flight, the arrived counted by blocks.
    pub(super) fn segments(&self) -> usize {
        self.flights.len()
    }

    /// A new segment left, at `nxt`.
    pub(super) fn sent(&mut self, flight: Flight) {
        self.nxt = flight.end();
        self.fin_sent |= flight.fin;
        self.pipe += flight.len;
        self.flights.push_back(flight);
    }

    /// What is before `ack` has arrived; `visit` is shown each segment of which that is news.
    pub(super) fn acknowledge(&mut self, ack: SeqNumber, mut visit: impl FnMut(&Flight)) {
        let mut text = ack.since(self.una);
        while let Some(first) = self.flights.front()
            && first.end() <= ack
        {
            let Some(flight) = self.flights.pop_front() else {
                break;
            };
            self.uncount(&flight);
            text = text.saturating_sub(u32::from(flight.fin));
            if flight.mark != Mark::Sacked {
                visit(&flight);
            }
        }
        if let Some(first) = self.flights.front().copied()
            && first.seq < ack
        {
            let (before, after) = first.split(ack.since(first.seq));
            self.uncount(&before);
            if let Some(front) = self.flights.front_mut() {
                *front = after;
            }
            if before.mark != Mark::Sacked {
                visit(&before);
            }
        }
        self.una = ack;
        self.queue.consume(text as usize);
        if self.small.is_some_and(|small| small <= ack) {
            self.small = None;
        }
        if self.flights.is_empty() && self.flights.capacity() > 8 {
            self.flights = VecDeque::new();
        }
    }

    /// The other end says that it has a block; `visit` is shown each segment of which that is news.
    pub(super) fn sack(
        &mut self,
        left: SeqNumber,
        right: SeqNumber,
        mut visit: impl FnMut(&Flight),
    ) {
        let mut first = self.index(left);
        // A segment counts when all of it arrived.
        first += usize::from(self.flights.get(first).is_some_and(|at| at.seq < left));
        let (mut end, mut news) = (first, false);
        while let Some(flight) = self.flights.get_mut(end)
            && flight.end() <= right
        {
            if flight.mark != Mark::Sacked {
                let before = *flight;
                flight.mark = Mark::Sacked;
                visit(&before);
                self.uncount(&before);
                self.sacked += before.len;
                news = true;
            }
            end += 1;
        }
        if news {
            self.merge(first, end);
        }
    }

    /// Joins these, which arrived, with what arrived beside them: nothing is to be known of the parts
    /// any more. All at once, because the others move for it.
    fn merge(&mut self, first: usize, end: usize) {
        let sacked = |flight: Option<&Flight>| flight.is_some_and(|at| at.mark == Mark::Sacked);
        let before = first.checked_sub(1);
        let before = before.filter(|&before| sacked(self.flights.get(before)));
        let first = before.unwrap_or(first);
        let end = end + usize::from(sacked(self.flights.get(end)));
        let rest = self.flights.drain(first + 1..end);
        let joined = rest.reduce(|mut joined, flight| {
            joined.join(&flight);
            joined
        });
        if let (Some(flight), Some(joined)) = (self.flights.get_mut(first), joined) {
            flight.join(&joined);
        }
    }

    /// The first segment that ends after `seq`.
    fn index(&self, seq: SeqNumber) -> usize {
        self.flights.partition_point(|flight| flight.end() <= seq)
    }

    /// Whether the other end says no more that it has what it once said it has (RFC 2018 section 8).
    pub(super) fn reneged(&self) -> bool {
        self.flights
            .front()
            .is_some_and(|first| first.mark == Mark::Sacked)
    }

    /// Asks for each segment that is in flight, in order, whether it is lost; `None` ends it.
    /// Returns the bytes that are.
    pub(super) fn mark_lost(&mut self, mut judge: impl FnMut(&Flight) -> Option<bool>) -> u32 {
        let mut found = 0;
        for flight in &mut self.flights {
            if flight.mark != Mark::InFlight {
                continue;
            }
            match judge(flight) {
                None => break,
                Some(false) => {}
                Some(true) => {
                    flight.mark = Mark::Lost;
                    if self.lost == 0 || flight.seq < self.lost_from {
                        self.lost_from = flight.seq;
                    }
                    self.pipe -= flight.len;
                    self.lost += flight.len;
                    found += flight.len;
                }
            }
        }
        found
    }

    /// Nothing is known any more of what arrived.
    pub(super) fn forget_sacked(&mut self) {
        for flight in &mut self.flights {
            if flight.mark == Mark::Sacked {
                flight.mark = Mark::InFlight;
                self.pipe += flight.len;
            }
        }
        self.sacked = 0;
    }

    /// What was marked as lost is only late.
    pub(super) fn unmark_lost(&mut self) {
        for flight in &mut self.flights {
            if flight.mark == Mark::Lost {
                flight.mark = Mark::InFlight;
                self.pipe += flight.len;
            }
        }
        self.lost = 0;
    }

    /// The first segment that was lost.
    pub(super) fn next_lost(&self) -> Option<Flight> {
        if self.lost == 0 {
            return None;
        }
        let start = self.index(self.lost_from);
        let mut rest = self.flights.range(start.min(self.flights.len())..);
        rest.find(|flight| flight.mark == Mark::Lost).copied()
    }

    /// The first `len` bytes of the segment at `seq` were sent again.
    pub(super) fn resent(
        &mut self,
        seq: SeqNumber,
        len: u32,
        now: Duration,
        stamp: (u32, Duration),
    ) {
        let index = self.index(seq);
        let Some(flight) = self.flights.get_mut(index) else {
            return;
        };
        if len < flight.len {
            let (before, after) = flight.split(len);
            *flight = before;
            self.flights.insert(index + 1, after);
        }
        if let Some(flight) = self.flights.get_mut(index) {
            if flight.mark == Mark::Lost {
                self.lost -= flight.len;
                self.pipe += flight.len;
                flight.mark = Mark::InFlight;
                self.lost_from = flight.end();
            }
            flight.resent = true;
            flight.sent = now;
            (flight.delivered, flight.delivered_at) = stamp;
        }
    }

    fn uncount(&mut self, flight: &Flight) {
        match flight.mark {
            Mark::InFlight => self.pipe -= flight.len,
            Mark::Lost => self.lost -= flight.len,
            Mark::Sacked => self.sacked -= flight.len,
        }
    }

    /// Forgets what was to be sent.
    pub(super) fn clear(&mut self) {
        self.queue.clear();
        self.flights = VecDeque::new();
        (self.pipe, self.lost, self.sacked) = (0, 0, 0);
    }

    /// Checks what must always hold.
    #[cfg(any(test, fuzzing))]
    pub(super) fn invariants(&self, synchronized: bool) {
        assert!(self.una <= self.nxt);
        if !synchronized {
            return;
        }
        assert!(!self.reneged());
        let (mut seq, mut sums) = (self.una, [0; 3]);
        let mut last = Mark::InFlight;
        for flight in &self.flights {
            assert_eq!(flight.seq, seq);
            assert!(flight.len > 0);
            assert!(last != Mark::Sacked || flight.mark != Mark::Sacked);
            last = flight.mark;
            seq = flight.end();
            sums[flight.mark as usize] += flight.len;
            if flight.mark == Mark::Lost {
                assert!(self.lost_from <= flight.seq);
            }
        }
        assert_eq!(seq, self.nxt);
        assert_eq!(sums, [self.pipe, self.lost, self.sacked]);
        let sent = self.nxt.since(self.una) - u32::from(self.fin_in_flight());
        assert!(sent as usize <= self.queue.len());
    }
}

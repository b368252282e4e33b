//! What an ACK says: what arrived, what was lost, and how fast to go on.

use core::time::Duration;

use super::congestion::Delivery;
use super::episode::{Cause, Episode};
use super::options::Block;
use super::segment::Segment;
use super::send::Flight;
use super::seq::SeqNumber;
use super::timer::TIME_WAIT;
use super::{Connection, Controller, State};

/// Duplicate ACKs that make a loss likely with a peer without SACK (RFC 5681 section 3.2).
const DUPLICATES: u8 = 3;

/// What one ACK delivered.
#[derive(Debug, Default)]
struct Tally {
    bytes: u32,
    /// Of those that went once: when the first and the last were sent.
    first: Option<Duration>,
    last: Option<Duration>,
    /// Whether something that went once had been sent before the recovery under way.
    original: bool,
    /// Bytes delivered when the last was sent, and when the last of those were.
    stamp: Option<(u32, Duration)>,
}

impl Tally {
    fn add(&mut self, flight: &Flight, recover: Option<SeqNumber>) {
        self.bytes += flight.len;
        if !flight.resent {
            self.first = Some(
                self.first
                    .map_or(flight.sent, |first| first.min(flight.sent)),
            );
            self.original |= recover.is_some_and(|recover| flight.end() <= recover);
        }
        if self.last.is_none_or(|last| flight.sent >= last) {
            self.stamp = Some((flight.delivered, flight.delivered_at));
            if !flight.resent {
                self.last = Some(flight.sent);
            }
        }
    }
}

impl Connection {
    /// Takes the acknowledgment of a segment in, which is not beyond `SND.NXT`.
    pub(super) fn acknowledge(&mut self, segment: &Segment<'_>, now: Duration) {
        let (una, ack) = (self.send.una, segment.ack.later(self.send.una));
        let before = self.send.pipe();
        // Receivers whose windows grow say so with every duplicate ACK.
        let smaller = self.update_window(segment);
        let echo = match segment.options.timestamps {
            Some(clocks) if self.timestamps && clocks.echo != 0 => Some(clocks.echo),
            _ => None,
        };
        let tally = self.score(segment, ack, echo, now);
        // An ACK that another overtook tells of holes that are filled by now, not of repetitions.
        let twice = self.received_twice(segment.options.sack.as_slice(), segment.ack);
        let moved = ack != una;
        if moved {
            self.patience.progress = now;
            self.unreachable = false;
            self.patience.rto_base = now;
            self.duplicates = 0;
            if self.path.renew(now) {
                let mss = self.mss();
                self.congestion.set_mss(mss);
            }
        }
        self.measure(&tally, moved, echo, now);
        self.end_tail_probe(ack, moved, twice, now);
        if moved && self.send.reneged() {
            self.send.forget_sacked();
        }
        if !self.sack
            && !moved
            && segment.ack == una
            && segment.payload.is_empty()
            && !smaller
            && self.send.is_outstanding()
        {
            self.duplicates = self.duplicates.saturating_add(1);
        }
        self.recover(&tally, (moved, twice), echo, before, now);
        if !self.pressure {
            self.send.grow(self.congestion.window());
        }
        if self.send.is_finished() {
            self.finished(now);
        }
    }

    /// Our FIN is acknowledged.
    fn finished(&mut self, now: Duration) {
        match self.state {
            State::FinWait1 => self.state = State::FinWait2,
            State::Closing => {
                self.state = State::TimeWait;
                self.patience.wait_until = now + TIME_WAIT;
            }
            State::LastAck => self.end(None),
            _ => {}
        }
    }

    /// `SND.WND` (RFC 9293 section 3.10.7.4). Returns whether it became smaller.
    fn update_window(&mut self, segment: &Segment<'_>) -> bool {
        let send = &self.send;
        let newer = segment.seq > send.wl1 || segment.seq == send.wl1 && segment.ack >= send.wl2;
        if segment.ack < send.una || !newer && segment.ack == send.una {
            return false;
        }
        let window = self.scaled(segment);
        let smaller = window < send.window;
        let opens = send.window == 0 && window > 0;
        self.set_window(segment, window);
        if opens && self.patience.window_probes > 0 {
            // What was sent beyond the window was not taken, a probe perhaps neither. That says
            // nothing about the network.
            self.send.mark_lost(|_| Some(true));
            self.patience.rto_base = self.patience.heard;
        }
        if window > 0 {
            self.patience.window_probes = 0;
        }
        smaller
    }

    /// Notes in the scoreboard what arrived.
    fn score(
        &mut self,
        segment: &Segment<'_>,
        ack: SeqNumber,
        echo: Option<u32>,
        now: Duration,
    ) -> Tally {
        let mut tally = Tally::default();
        let Self {
            send, rack, rtt, ..
        } = self;
        let (clock, least) = (self.clock, rtt.least().unwrap_or_default());
        let recover = self.episode.as_ref().map(|episode| episode.recover);
        let mut visit = |flight: &Flight| {
            // Whether this is about an earlier sending (RFC 8985 section 6.2, step 2).
            let stale = flight.resent && {
                let sent = clock.wrapping_add(flight.sent.as_millis() as u32);
                let early = echo.is_some_and(|echo| echo.wrapping_sub(sent).cast_signed() < 0);
                early || now.saturating_sub(flight.sent) < least
            };
            rack.delivered(flight, stale, now);
            tally.add(flight, recover);
        };
        if ack > send.una {
            send.acknowledge(ack, &mut visit);
        }
        if self.sack {
            for &(left, right) in segment.options.sack.as_slice() {
                // A block outside what was sent is somebody's mistake, and so is one of what the other
                // end says in the same breath that it lacks.
                if left < right && left > ack && right <= send.nxt {
                    send.sack(left, right, &mut visit);
                }
            }
        }
        if tally.bytes > 0 {
            self.delivered = self.delivered.wrapping_add(tally.bytes);
            self.delivered_at = now;
        }
        tally
    }

    /// Whether the first SACK block says that something was received twice (RFC 2883 section 4).
    fn received_twice(&mut self, blocks: &[Block], ack: SeqNumber) -> bool {
        let Some((&(left, right), rest)) = blocks.split_first() else {
            return false;
        };
        let inside = rest
            .first()
            .is_some_and(|&(outer, end)| outer <= left && right <= end);
        let twice = self.sack && left < right && (right <= ack || inside) && right <= self.send.nxt;
        if twice {
            self.counters.spurious = self.counters.spurious.wrapping_add(1);
            self.rack.received_twice(self.send.una, self.send.nxt);
            if let Some(episode) = &mut self.episode {
                episode.resent = episode.resent.saturating_sub(1);
            }
        }
        twice
    }

    /// Takes the round-trip time off an ACK (RFC 6298 section 3, RFC 7323 section 4.1).
    fn measure(&mut self, tally: &Tally, moved: bool, echo: Option<u32>, now: Duration) {
        let sample = match (tally.first, echo) {
            (Some(first), _) => Some(now.saturating_sub(first)),
            (None, Some(echo)) if moved => {
                let passed = self.timestamp(now).wrapping_sub(echo).cast_signed();
                let passed = u64::try_from(passed).ok();
                passed.map(|passed| Duration::from_millis(passed.max(1)))
            }
            _ => None,
        };
        if let Some(rtt) = sample.filter(|&rtt| rtt <= now) {
            self.rtt.sample(rtt, now);
            self.rtt.relax();
        }
        if let Some(last) = tally.last {
            self.rtt.sample_least(now.saturating_sub(last), now);
        }
        if let Some((delivered, at)) = tally.stamp {
            let bytes = u64::from(self.delivered.wrapping_sub(delivered));
            let micros = now.saturating_sub(at).as_micros().max(1);
            self.rate = bytes.saturating_mul(1_000_000) / u64::try_from(micros).unwrap_or(u64::MAX);
        }
    }

    /// Did the tail loss probe repair a loss that nobody else saw (RFC 8985 section 7.4)?
    fn end_tail_probe(&mut self, ack: SeqNumber, moved: bool, twice: bool, now: Duration) {
        let Some((end, again)) = self.tail else {
            return;
        };
        if ack < end {
            return;
        }
        if !again || twice || ack == end && !moved {
            self.tail = None;
        } else if ack > end {
            self.tail = None;
            if self.episode.is_none() {
                self.congestion.on_loss(now);
                let threshold = self.congestion.threshold();
                self.congestion.set_window(threshold);
                self.counters.recoveries = self.counters.recoveries.wrapping_add(1);
            }
        }
    }

    /// What an ACK means for recovery and for the window.
    fn recover(
        &mut self,
        tally: &Tally,
        (moved, twice): (bool, bool),
        echo: Option<u32>,
        before: u32,
        now: Duration,
    ) {
        if self.was_spurious(tally, (moved, twice), echo) {
            self.undo();
        }
        let una = self.send.una;
        if let Some(episode) = self.episode.take_if(|episode| una >= episode.recover) {
            if episode.cause == Cause::Loss {
                let threshold = self.congestion.threshold();
                self.congestion.set_window(threshold);
            }
            self.rack.recovered();
        }
        let lost = self.detect(moved, now);
        let state = (self.pipe(), self.congestion.threshold(), self.mss());
        if let Some(episode) = &mut self.episode
            && episode.cause == Cause::Loss
        {
            if tally.bytes > 0 || lost > 0 {
                let window = episode.reduce(tally.bytes, moved && lost == 0, state);
                self.congestion.set_window(window);
            }
        } else if tally.bytes > 0 && (moved || self.rack.has_seen_reordering()) {
            // What is only out of order may yet be a loss (as Linux).
            let window = self.congestion.window();
            let slow_start = window < self.congestion.threshold();
            let limited = self.limited.is_some_and(|limited| una <= limited)
                || slow_start && window < before.saturating_mul(2);
            self.congestion.on_delivery(&Delivery {
                bytes: tally.bytes,
                rtt: tally.last.map(|sent| now.saturating_sub(sent)),
                smoothed: self.rtt.smoothed().unwrap_or_default(),
                rate: Some(self.rate),
                limited,
                una,
                nxt: self.send.nxt,
                now,
            });
        }
        if self.limited.is_some_and(|limited| una > limited) {
            self.limited = None;
        }
    }

    /// Bytes in flight. Each duplicate ACK of a peer without SACK is for one that arrived.
    pub(super) fn pipe(&self) -> u32 {
        let arrived = u32::from(self.duplicates) * self.mss();
        self.send.pipe().saturating_sub(arrived)
    }

    /// Whether the episode under way began for nothing.
    fn was_spurious(
        &mut self,
        tally: &Tally,
        (moved, twice): (bool, bool),
        echo: Option<u32>,
    ) -> bool {
        let Some(episode) = &mut self.episode else {
            return false;
        };
        if !episode.any_resent {
            return false;
        }
        // All that went again was received twice (RFC 3708).
        if twice && episode.resent == 0 {
            return true;
        }
        match (echo, episode.first_resent) {
            // The ACK is of the first sending (RFC 3522 section 3.2).
            (Some(echo), Some(first)) => moved && echo.wrapping_sub(first).cast_signed() < 0,
            // After a timeout, something arrived that went only once (RFC 5682 section 3.1).
            _ => {
                let doubtful = episode.doubtful && tally.original;
                episode.doubtful &= !moved;
                doubtful
            }
        }
    }

    /// What was taken for lost was late (RFC 4015, and as Linux: the window is as it was).
    fn undo(&mut self) {
        self.episode = None;
        self.rack.was_late();
        self.send.unmark_lost();
        self.congestion.on_undo();
        self.rtt.relax();
        self.counters.undone = self.counters.undone.wrapping_add(1);
    }

    /// Finds out what was lost, and begins to recover from it. Returns how many bytes that are.
    pub(super) fn detect(&mut self, moved: bool, now: Duration) -> u32 {
        self.patience.reorder = None;
        if !self.send.is_outstanding() {
            return 0;
        }
        let flight = self.send.pipe() + self.send.lost();
        let mss = self.mss();
        let lost = if self.sack {
            let least = self.rtt.least().unwrap_or_default();
            let smoothed = self.rtt.smoothed().unwrap_or_default();
            let recovering = self.episode.is_some();
            let (lost, wait) =
                self.rack
                    .detect(&mut self.send, (mss, recovering), (least, smoothed), now);
            self.patience.reorder = wait.map(|wait| now + wait);
            lost
        } else {
            self.detect_by_duplicates(moved)
        };
        self.counters.lost = self.counters.lost.wrapping_add(lost);
        if lost > 0 && self.episode.is_none() {
            self.congestion.on_loss(now);
            let nxt = self.send.nxt;
            self.episode = Some(Box::new(Episode::new(Cause::Loss, nxt, flight)));
            self.counters.recoveries = self.counters.recoveries.wrapping_add(1);
            self.tail = None;
        }
        lost
    }

    /// The same with a peer without SACK: three duplicates, and every ACK in recovery that leaves
    /// something open (RFC 6582 section 3.2).
    fn detect_by_duplicates(&mut self, moved: bool) -> u32 {
        let partial = self.episode.is_some() && moved;
        let enough = self.episode.is_none() && self.duplicates == DUPLICATES;
        if !partial && !enough {
            return 0;
        }
        let una = self.send.una;
        self.send
            .mark_lost(|flight| (flight.seq == una).then_some(true))
    }

    /// The retransmission timer fired (RFC 6298 section 5.4 on, RFC 8985 section 6.3).
    pub(super) fn time_out(&mut self, now: Duration) {
        self.counters.timeouts = self.counters.timeouts.wrapping_add(1);
        self.rtt.back_off();
        self.patience.rto_base = now;
        self.tail = None;
        self.duplicates = 0;
        let full = self
            .send
            .oldest()
            .is_some_and(|oldest| oldest.text() >= self.mss());
        if full && self.path.timed_out(self.rtt.backoff(), now) {
            self.resize();
        }
        let flight = self.send.pipe() + self.send.lost();
        // The same loss again must not halve the threshold again (RFC 5681 section 3.1).
        let again = matches!(&self.episode, Some(episode) if episode.cause == Cause::Timeout);
        if again {
            let mss = self.mss();
            self.congestion.set_window(mss);
        } else {
            self.congestion.on_timeout(now);
        }
        let mut episode = Episode::new(Cause::Timeout, self.send.nxt, flight);
        if let Some(old) = self.episode.take() {
            // What went again before may still arrive twice.
            episode.first_resent = old.first_resent;
            episode.resent = old.resent;
            episode.any_resent = old.any_resent;
            episode.doubtful = false;
        }
        self.episode = Some(Box::new(episode));
        let least = self.rtt.least().unwrap_or_default();
        let smoothed = self.rtt.smoothed().unwrap_or_default();
        let (una, rack, sack) = (self.send.una, &self.rack, self.sack);
        let lost = self.send.mark_lost(|flight| {
            let overdue = !sack || rack.is_overdue(flight, (least, smoothed), now);
            Some(flight.seq == una || overdue)
        });
        self.counters.lost = self.counters.lost.wrapping_add(lost);
        self.patience.reorder = None;
    }
}

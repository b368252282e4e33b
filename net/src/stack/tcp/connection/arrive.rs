//! A segment arrives (RFC 9293 section 3.10.7), with the defences of RFC 5961.

use core::time::Duration;

use super::segment::{Flags, Segment};
use super::seq::SeqNumber;
use super::timer::{Due, Owed, TIME_WAIT};
use super::{CloseReason, Connection, Controller, LEAST_MSS, State};

/// Time between two answers to what could be forged, or could be an answer itself (RFC 5961 section
/// 7, and so that two ends that disagree do not tell each other for ever).
const PAUSE: Duration = Duration::from_millis(500);
/// After so long without a segment, the other end's clock says nothing (RFC 7323 section 5.5).
const STALE: Duration = Duration::from_secs(24 * 24 * 3600);
/// How long the ACK of a segment may wait for company.
const DELAY: Duration = Duration::from_millis(10);

impl Connection {
    /// Takes a segment in.
    pub(crate) fn handle_segment(&mut self, segment: &Segment<'_>, now: Duration) {
        match self.state {
            State::Closed => return,
            State::SynSent => self.arrive_early(segment, now),
            _ => self.arrive(segment, now),
        }
        self.arm(now);
    }

    /// In SYN-SENT (section 3.10.7.3).
    fn arrive_early(&mut self, segment: &Segment<'_>, now: Duration) {
        let acks = segment.flags.has(Flags::ACK);
        if acks && segment.ack != self.send.nxt {
            if !segment.flags.has(Flags::RST) {
                self.refuse(segment);
            }
            return;
        }
        if segment.flags.has(Flags::RST) {
            // Without an ACK of our SYN, it could be anybody's.
            if acks && self.send.nxt != self.iss {
                self.end(Some(CloseReason::Refused));
            }
            return;
        }
        if !segment.flags.has(Flags::SYN) || acks && self.send.nxt == self.iss {
            return;
        }
        self.agree(segment, now);
        if !acks {
            // Both began at once.
            self.state = State::SynReceived;
            self.due = Due::Syn;
            return;
        }
        self.patience.heard = now;
        self.measure_handshake(segment, now);
        self.establish(segment.ack, now);
        self.set_window(segment, segment.window.into());
        self.owed = Owed::Now;
        let finish = segment.flags.has(Flags::FIN);
        if !segment.payload.is_empty() || finish {
            self.take_text(segment.seq + 1, segment, now);
        }
    }

    /// In every other state (section 3.10.7.4).
    fn arrive(&mut self, segment: &Segment<'_>, now: Duration) {
        let flags = segment.flags;
        let mut seq = segment.seq;
        if flags.has(Flags::SYN) && !flags.has(Flags::RST) {
            let same = seq + 1 == self.receive.nxt && self.state == State::SynReceived;
            if !same {
                // Whoever lost its connection replies with a reset of the right number (RFC 5961
                // section 4).
                self.challenge(now);
                return;
            }
            if !flags.has(Flags::ACK) {
                // It has not heard our SYN.
                self.due = Due::Syn;
                return;
            }
            // The other half of a simultaneous open.
            seq += 1;
        }
        let text = segment.payload.len() as u32;
        let end = seq + text + u32::from(flags.has(Flags::FIN));
        if self.is_stale(segment, now) {
            self.receive.note_twice(seq, end.earlier(self.receive.nxt));
            self.answer(seq != end, now);
            return;
        }
        // First, the sequence number.
        let (nxt, edge) = (
            self.receive.nxt,
            self.receive.edge().later(self.receive.nxt),
        );
        // Beyond the text that fits, an empty segment may stand right at the edge: it is from a
        // sender that filled the window.
        let fits = if seq == end {
            seq >= nxt && seq <= edge
        } else {
            end > nxt && (seq < edge || seq == nxt)
        };
        if !fits {
            if flags.has(Flags::RST) {
                return;
            }
            self.patience.heard = now;
            self.arrive_outside(segment, (seq, end), now);
            return;
        }
        if let Some(clocks) = segment.options.timestamps
            && self.timestamps
            && seq <= self.last_ack
            && clocks.value.wrapping_sub(self.ts_recent).cast_signed() >= 0
        {
            self.ts_recent = clocks.value;
            self.ts_recent_at = now;
        }
        // Second, the reset.
        if flags.has(Flags::RST) {
            self.arrive_reset(seq, now);
            return;
        }
        // Fifth, the acknowledgment.
        if !flags.has(Flags::ACK) {
            return;
        }
        self.patience.heard = now;
        self.patience.probes = 0;
        if self.state == State::SynReceived {
            if segment.ack != self.send.nxt || self.send.nxt == self.iss {
                self.refuse(segment);
                return;
            }
            self.measure_handshake(segment, now);
            self.establish(segment.ack, now);
            self.set_window(segment, self.scaled(segment));
        } else if segment.ack > self.send.nxt
            || segment.ack < self.send.una - self.send.widest.max(1)
        {
            // Of what was never sent, or long ago (RFC 5961 section 5.2).
            self.challenge(now);
            return;
        } else {
            self.acknowledge(segment, now);
        }
        // Sixth to eighth: what is urgent is text like any other; the text, and the FIN.
        if seq != end {
            self.take_text(seq, segment, now);
        }
    }

    /// Whether the other end's clock went back: an old segment, from before the numbers wrapped (RFC
    /// 7323 section 5). One without a clock is let pass; somebody on the way may have cut it out.
    fn is_stale(&self, segment: &Segment<'_>, now: Duration) -> bool {
        let Some(clocks) = segment.options.timestamps else {
            return false;
        };
        let behind = self.ts_recent.wrapping_sub(clocks.value);
        let old = self.timestamps
            && !segment.flags.has(Flags::RST)
            && behind.cast_signed() > 0
            && now.saturating_sub(self.ts_recent_at) < STALE;
        // An ACK that another overtook moves nothing, but tells of holes (as Linux).
        let overtaken = segment.len() == 0
            && segment.seq == self.receive.nxt
            && segment.ack <= self.send.una
            && u128::from(behind) < self.rtt.base().as_millis();
        old && !overtaken
    }

    /// A segment that does not touch the window is answered, so that the other end learns where we
    /// are.
    fn arrive_outside(
        &mut self,
        segment: &Segment<'_>,
        (seq, end): (SeqNumber, SeqNumber),
        now: Duration,
    ) {
        let old = end <= self.receive.nxt;
        if old && self.state == State::TimeWait && segment.flags.has(Flags::FIN) {
            // It has not heard our last ACK.
            self.patience.wait_until = now + TIME_WAIT;
        }
        if old {
            self.receive
                .note_twice(seq, seq + segment.payload.len() as u32);
        }
        self.answer(seq != end, now);
        // Two ends that repeat what the other has must hear each other's ACK, as in BSD; no further
        // back than a window reaches, for beyond it is a guess.
        let near = seq >= self.receive.nxt - self.receive.limit();
        let known = segment.ack <= self.send.nxt && segment.ack > self.send.una;
        if old && near && known && segment.flags.has(Flags::ACK) && self.state != State::SynReceived
        {
            self.acknowledge(segment, now);
        }
    }

    /// A reset within the window: the exact number ends the connection, any other is asked about
    /// (RFC 5961 section 3.2).
    fn arrive_reset(&mut self, seq: SeqNumber, now: Duration) {
        if seq != self.receive.nxt {
            self.challenge(now);
            return;
        }
        match self.state {
            // It must not end the wait (RFC 1337).
            State::TimeWait => {}
            State::SynReceived => self.end(Some(CloseReason::Refused)),
            State::Closing | State::LastAck => self.end(None),
            _ => self.end(Some(CloseReason::Reset)),
        }
    }

    /// The text of a segment, and its FIN.
    fn take_text(&mut self, seq: SeqNumber, segment: &Segment<'_>, now: Duration) {
        let text = segment.payload;
        if !self.is_receiving() {
            // After the FIN, only what came before it may come again.
            self.answer(true, now);
            return;
        }
        if self.orphan && seq + text.len() as u32 > self.receive.nxt {
            // There is nobody to read it (RFC 9293 section 3.10.4, RFC 2525 section 2.17).
            self.reset = Some((self.next_seq(), Some(self.receive.nxt)));
            self.end(None);
            return;
        }
        let finish = segment.flags.has(Flags::FIN);
        let arrival = self.receive.take(seq, text, finish);
        if arrival.in_order > 0 {
            self.patience.progress = now;
            self.unacked = self.unacked.saturating_add(arrival.in_order);
            self.receive.tune(now, self.timestamps, self.pressure);
        }
        // More is on its way, if the sender does not wait for a larger window.
        let more = !segment.flags.has(Flags::PSH) && text.len() >= usize::from(self.receive.mss());
        let at_once = arrival.out_of_order
            || arrival.refused
            || arrival.finished
            || self.receive.has_hole()
            // More than a full segment, as Linux: its sender may have no more to send before.
            || self.unacked > u32::from(self.receive.mss());
        let clocks = segment
            .options
            .timestamps
            .filter(|_| self.timestamps && more);
        if let Some(clocks) = clocks
            && clocks.echo != 0
        {
            let passed = self.timestamp(now).wrapping_sub(clocks.echo);
            self.receive.measured(Duration::from_millis(passed.into()));
        }
        if at_once {
            self.owed = Owed::Now;
        } else if more && self.quick > 0 {
            self.quick -= 1;
            self.owed = Owed::Now;
        } else if self.owed == Owed::Nothing {
            self.owed = Owed::Delayed(now + DELAY);
        }
        if arrival.finished {
            self.patience.progress = now;
            self.state = match self.state {
                State::Established => State::CloseWait,
                State::FinWait1 => State::Closing,
                _ => {
                    self.patience.wait_until = now + TIME_WAIT;
                    State::TimeWait
                }
            };
        }
    }

    /// What a SYN offers, and what follows from it.
    pub(super) fn agree(&mut self, syn: &Segment<'_>, now: Duration) {
        let options = &syn.options;
        self.receive.begin(syn.seq);
        self.last_ack = self.receive.nxt;
        if let Some(mss) = options.mss {
            self.peer_mss = mss.max(LEAST_MSS);
        }
        self.sack &= options.sack_permitted;
        self.timestamps &= options.timestamps.is_some();
        if let Some(clocks) = options.timestamps {
            self.ts_recent = clocks.value;
            self.ts_recent_at = now;
        }
        match options.window_scale {
            Some(shift) if self.scaling => self.send.shift = shift,
            _ => {
                self.scaling = false;
                self.receive.do_not_scale();
            }
        }
        let mss = self.mss();
        self.congestion.set_mss(mss);
        // The window of a SYN is not scaled.
        self.set_window(syn, syn.window.into());
    }

    /// The handshake is done.
    pub(super) fn establish(&mut self, una: SeqNumber, now: Duration) {
        self.send.una = una;
        self.state = if self.send.finishing {
            State::FinWait1
        } else {
            State::Established
        };
        if self.patience.syns > 2 {
            // The path loses much (RFC 5681 section 3.1).
            let mss = self.mss();
            self.congestion.set_window(mss);
        }
        self.due = Due::Nothing;
        self.rtt.relax();
        self.patience.progress = now;
        self.patience.heard = now;
        self.unreachable = false;
    }

    /// The first round trip. What went twice tells nothing without clocks (Karn's algorithm).
    fn measure_handshake(&mut self, segment: &Segment<'_>, now: Duration) {
        let rtt = match segment.options.timestamps {
            _ if self.patience.syns == 1 => now.saturating_sub(self.patience.syn_sent),
            Some(clocks) if self.timestamps => {
                let passed = self.timestamp(now).wrapping_sub(clocks.echo);
                Duration::from_millis(passed.into())
            }
            _ => return,
        };
        if rtt <= now {
            self.rtt.sample(rtt, now);
            self.receive.measured(rtt);
        }
    }

    /// Answers a segment that cannot be right (section 3.10.7.1, and the half-open cases of section
    /// 3.5.1).
    fn refuse(&mut self, segment: &Segment<'_>) {
        self.reset = Some((segment.ack, None));
    }

    /// Answers what moves nothing: at once if it has text, since its sender waits for that.
    fn answer(&mut self, text: bool, now: Duration) {
        if text {
            self.owed = Owed::Now;
        } else {
            self.challenge(now);
        }
    }

    /// An ACK for whoever may have forged a segment.
    fn challenge(&mut self, now: Duration) {
        if now >= self.patience.next_challenge {
            self.patience.next_challenge = now + PAUSE;
            self.counters.challenges = self.counters.challenges.wrapping_add(1);
            self.owed = Owed::Now;
        }
    }

    /// The window of a segment, in bytes.
    pub(super) fn scaled(&self, segment: &Segment<'_>) -> u32 {
        u32::from(segment.window) << self.send.shift
    }

    /// Notes the window that a segment offers.
    pub(super) fn set_window(&mut self, segment: &Segment<'_>, window: u32) {
        self.send.window = window;
        self.send.widest = self.send.widest.max(window);
        self.send.wl1 = segment.seq;
        self.send.wl2 = segment.ack;
    }
}

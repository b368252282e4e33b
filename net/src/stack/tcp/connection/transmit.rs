//! The next segment to send.

use core::time::Duration;

use super::options::{Blocks, MAX_BLOCKS, Options, Timestamps};
use super::segment::{Flags, Header};
use super::send::{Flight, Mark};
use super::seq::SeqNumber;
use super::timer::{Due, Owed};
use super::{Connection, Controller, State};
use crate::packet::Packet;

/// SACK blocks that fit beside timestamps.
const BLOCKS_BESIDE_CLOCKS: usize = 3;

impl Connection {
    /// The next segment to send, without an IP header and with a checksum of zero. `None` if there
    /// is nothing to send until something happens.
    #[must_use]
    pub(crate) fn poll_transmit(&mut self, now: Duration) -> Option<Packet> {
        if let Some((seq, ack)) = self.reset.take() {
            return Some(self.emit_reset(seq, ack));
        }
        let packet = match self.state {
            State::Closed => return None,
            State::SynSent | State::SynReceived => self.emit_syn(now),
            State::TimeWait => None,
            _ => self.emit_text(now),
        };
        let packet = packet.or_else(|| self.emit_ack(now));
        // The program may have written or read since.
        self.arm(now);
        packet
    }

    fn emit_syn(&mut self, now: Duration) -> Option<Packet> {
        if self.due != Due::Syn {
            return None;
        }
        self.due = Due::Nothing;
        self.patience.syns = self.patience.syns.saturating_add(1);
        self.patience.syn_sent = now;
        self.patience.rto_base = now;
        self.send.nxt = self.iss + 1;
        let answer = self.state == State::SynReceived;
        let options = Options {
            mss: Some(self.path.mss()),
            window_scale: self.scaling.then(|| self.receive.shift()),
            sack_permitted: self.sack,
            timestamps: self.clocks(now),
            sack: Blocks::default(),
        };
        let window = self.receive.offer(true);
        let flags = if answer {
            self.acknowledged();
            Flags::SYN.with(Flags::ACK)
        } else {
            Flags::SYN
        };
        let seq = self.iss;
        let header = self.header(seq, window, flags, options);
        Some(header.emit(&[], &[]))
    }

    /// A segment with text, or our FIN.
    fn emit_text(&mut self, now: Duration) -> Option<Packet> {
        if !self.send.is_outstanding() && self.send.unsent() == 0 && !self.send.owes_fin() {
            if matches!(self.due, Due::Tail | Due::Window | Due::Override) {
                self.due = Due::Nothing;
            }
            return None;
        }
        match self.due {
            Due::Window => {
                self.due = Due::Nothing;
                return self.emit_window_probe(now);
            }
            Due::Tail => {
                self.due = Due::Nothing;
                return self.emit_tail_probe(now);
            }
            _ => {}
        }
        let packet = self.emit_lost(now);
        let packet = packet.or_else(|| self.emit_new(false, now));
        if self.due == Due::Override {
            self.due = Due::Nothing;
        }
        packet
    }

    /// What was lost goes again.
    fn emit_lost(&mut self, now: Duration) -> Option<Packet> {
        let flight = self.send.next_lost()?;
        let room = self.send.edge().past(flight.seq);
        let head = flight.seq == self.send.una;
        let text = flight.text().min(self.text_room());
        // Beyond a window that shrank, it waits.
        let text = if room >= text {
            text
        } else if head && room > 0 {
            room
        } else {
            return None;
        };
        let pipe = self.pipe();
        if pipe > 0 && pipe.saturating_add(text) > self.congestion.window() {
            return None;
        }
        self.emit_again(&flight, text, now)
    }

    /// The start of a segment goes again.
    fn emit_again(&mut self, flight: &Flight, text: u32, now: Duration) -> Option<Packet> {
        let (packet, got, fin) = self.emit_stream(flight.seq, text, flight.fin, now);
        let len = got + u32::from(fin);
        if len == 0 {
            return None;
        }
        let stamp = (self.delivered, self.delivered_at);
        self.send.resent(flight.seq, len, now, stamp);
        self.note_sent(false, flight.seq, now);
        self.counters.retransmits = self.counters.retransmits.wrapping_add(1);
        let clock = self.timestamp(now);
        if let Some(episode) = &mut self.episode {
            episode.sent(len);
            episode.any_resent = true;
            episode.resent = episode.resent.saturating_add(1);
            if self.timestamps {
                episode.first_resent.get_or_insert(clock);
            }
        }
        Some(packet)
    }

    /// What was never sent, as far as the other end's window, the network's, and the avoidance of
    /// small segments allow (RFC 9293 sections 3.7.4 and 3.8.6.2.1). A probe may exceed the
    /// network's.
    fn emit_new(&mut self, probe: bool, now: Duration) -> Option<Packet> {
        let unsent = self.send.unsent();
        let owes_fin = self.send.owes_fin();
        if unsent == 0 && !owes_fin {
            return None;
        }
        let idle = !self.send.is_outstanding();
        if idle {
            self.restart(now);
        }
        let full = self.text_room();
        let window = self.send.edge().past(self.send.nxt);
        let len = unsent.min(full).min(window);
        let last = len == unsent;
        // Of so few segments one is never full, and would wait for an ACK that is delayed.
        let few = self.send.limit() < 4 * full;
        let ready = len >= full
            || last && (few || self.no_delay || owes_fin || self.send.small.is_none() || idle)
            || len > 0 && len >= self.send.widest / 2
            || len > 0 && self.due == Due::Override;
        if !ready || len == 0 && !(last && owes_fin) {
            return None;
        }
        let pipe = self.pipe();
        if !probe && pipe > 0 && pipe.saturating_add(len) > self.congestion.window() {
            self.limited = Some(self.send.nxt);
            return None;
        }
        if !probe && !self.send.may_fly() {
            return None;
        }
        let rate = self.pacing_rate();
        if !probe && rate.is_some() && !self.pace.allows(now) {
            self.limited = Some(self.send.nxt);
            return None;
        }
        let seq = self.send.nxt;
        let (packet, got, fin) = self.emit_stream(seq, len, owes_fin, now);
        self.sent(seq, got, fin, now);
        if let Some(rate) = rate {
            self.pace.sent(got, rate, now);
        }
        if got < full && !fin {
            self.send.small = Some(seq + got);
        }
        Some(packet)
    }

    /// Bytes a second of new text, if it is paced. Recovery has a pace of its own.
    fn pacing_rate(&self) -> Option<u64> {
        match self.episode {
            None => self.congestion.pacing_rate(self.rtt.smoothed()?),
            Some(_) => None,
        }
    }

    /// Text from `seq` on, up to `len` bytes, and our FIN if it is to go and follows on that. Returns
    /// how many bytes there are, and whether the FIN is.
    fn emit_stream(
        &mut self,
        seq: SeqNumber,
        len: u32,
        fin: bool,
        now: Duration,
    ) -> (Packet, u32, bool) {
        let header = self.header_of_text(seq, now);
        let (first, second) = self.send.text(seq, len);
        let got = (first.len() + second.len()) as u32;
        let last = seq + got == self.send.una + self.send.queued() as u32;
        let fin = fin && last;
        let mut flags = header.flags;
        if last && got > 0 {
            flags = flags.with(Flags::PSH);
        }
        if fin {
            flags = flags.with(Flags::FIN);
        }
        let packet = Header { flags, ..header }.emit(first, second);
        (packet, got, fin)
    }

    /// After a pause, what the window was says little (RFC 5681 section 4.1).
    fn restart(&mut self, now: Duration) {
        let timeout = self.rtt.timeout();
        let pause = now.saturating_sub(self.patience.last_sent);
        if pause > timeout && self.patience.rto_base < now {
            let timeouts = pause.as_micros() / timeout.as_micros().max(1);
            let timeouts = u32::try_from(timeouts).unwrap_or(u32::MAX);
            self.congestion.on_idle(timeouts);
            // Once for each pause.
            self.patience.last_sent = now;
        }
    }

    /// Something new left.
    fn sent(&mut self, seq: SeqNumber, text: u32, fin: bool, now: Duration) {
        let idle = !self.send.is_outstanding();
        if idle {
            // Rates are of times in which there was something to send.
            self.delivered_at = now;
        }
        let len = text + u32::from(fin);
        self.send.sent(Flight {
            seq,
            len,
            mark: Mark::InFlight,
            resent: false,
            fin,
            sent: now,
            delivered: self.delivered,
            delivered_at: self.delivered_at,
        });
        self.note_sent(idle, seq, now);
        if let Some(episode) = &mut self.episode {
            episode.sent(len);
        }
    }

    /// The last segments may be lost, and nothing after them would show it (RFC 8985 section 7.3).
    fn emit_tail_probe(&mut self, now: Duration) -> Option<Packet> {
        let new = self.emit_new(true, now);
        // One for each tail, whether or not it can go.
        self.tail = Some((self.send.nxt, false));
        let packet = match new {
            Some(packet) => packet,
            None => {
                let newest = *self
                    .send
                    .newest()
                    .filter(|newest| newest.mark == Mark::InFlight)?;
                let text = newest.text().min(self.text_room());
                self.tail = Some((newest.end(), true));
                self.emit_again(&newest, text, now)?
            }
        };
        self.patience.rto_base = now;
        self.counters.tail_probes = self.counters.tail_probes.wrapping_add(1);
        Some(packet)
    }

    /// Asks for the window with one byte that the other end does not have (RFC 9293 section
    /// 3.8.6.1).
    fn emit_window_probe(&mut self, now: Duration) -> Option<Packet> {
        if let Some(oldest) = self.send.oldest().copied() {
            let text = oldest.text().min(1);
            return self.emit_again(&oldest, text, now);
        }
        let seq = self.send.nxt;
        let len = self.send.unsent().min(1);
        if len == 0 {
            return None;
        }
        let header = self.header_of_text(seq, now);
        let (first, second) = self.send.text(seq, len);
        let packet = header.emit(first, second);
        self.sent(seq, len, false, now);
        Some(packet)
    }

    /// An ACK without text.
    fn emit_ack(&mut self, now: Duration) -> Option<Packet> {
        let mut seq = self.next_seq();
        if self.due == Due::KeepAlive {
            self.due = Due::Nothing;
            // Of a number that is not expected: it must be answered (RFC 9293 section 3.8.4).
            seq = self.send.una - 1;
        } else if self.owed != Owed::Now || self.state == State::SynSent {
            return None;
        }
        let blocks = self.receive.blocks(self.most_blocks());
        let window = self.receive.offer(false);
        self.acknowledged();
        let options = Options {
            timestamps: self.clocks(now),
            sack: blocks,
            ..Options::default()
        };
        Some(self.header(seq, window, Flags::ACK, options).emit(&[], &[]))
    }

    fn emit_reset(&mut self, seq: SeqNumber, ack: Option<SeqNumber>) -> Packet {
        self.counters.resets = self.counters.resets.wrapping_add(1);
        let flags = if ack.is_some() {
            Flags::RST.with(Flags::ACK)
        } else {
            Flags::RST
        };
        let header = self.header(seq, 0, flags, Options::default());
        let ack = ack.unwrap_or_default();
        Header { ack, ..header }.emit(&[], &[])
    }

    /// The header of a segment with text. What it acknowledges counts as acknowledged.
    fn header_of_text(&mut self, seq: SeqNumber, now: Duration) -> Header {
        let sack = self.receive.blocks(self.most_blocks());
        let window = self.receive.offer(false);
        self.acknowledged();
        let options = Options {
            timestamps: self.clocks(now),
            sack,
            ..Options::default()
        };
        self.header(seq, window, Flags::ACK, options)
    }

    fn header(&self, seq: SeqNumber, window: u16, flags: Flags, options: Options) -> Header {
        Header {
            src_port: self.local_port,
            dst_port: self.remote_port,
            seq,
            ack: self.receive.nxt,
            window,
            flags,
            options,
        }
    }

    fn clocks(&self, now: Duration) -> Option<Timestamps> {
        self.timestamps.then(|| Timestamps {
            value: self.timestamp(now),
            echo: if self.state == State::SynSent {
                0
            } else {
                self.ts_recent
            },
        })
    }

    /// An ACK goes with the segment that is being made.
    fn acknowledged(&mut self) {
        self.last_ack = self.receive.nxt;
        self.owed = Owed::Nothing;
        self.unacked = 0;
    }

    fn most_blocks(&self) -> usize {
        match (self.sack, self.timestamps) {
            (false, _) => 0,
            (true, true) => BLOCKS_BESIDE_CLOCKS,
            (true, false) => MAX_BLOCKS,
        }
    }

    /// Bytes of text that the next segment may have, beside the options that it needs.
    fn text_room(&self) -> u32 {
        let blocks = if self.sack && self.receive.has_blocks() {
            4 + 8 * self.most_blocks() as u32
        } else {
            0
        };
        // Not even two segments that fill the buffer would leave room for a third.
        let most = self.mss().saturating_sub(blocks).min(self.send.limit() / 2);
        most.max(1)
    }

    /// The program has read: does the other end have to hear of the room?
    pub(super) fn announce(&mut self) {
        if self.is_receiving() && self.receive.has_news() {
            self.owed = Owed::Now;
        }
    }
}

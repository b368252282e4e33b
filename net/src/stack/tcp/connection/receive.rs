//! The receiving side: reassembly, the window that is offered, and what is said of holes.
//!
//! Bytes in order wait in a queue for the program; those beyond a hole in runs, each a buffer that
//! moves into the queue when the hole is filled.

mod held;

use core::time::Duration;

use self::held::Held;
use super::Buffer;
use super::options::{Block, Blocks};
use super::queue::Queue;
use super::seq::SeqNumber;

/// What every buffer begins with, except for those behind a driver that has room for less.
pub(crate) const FIRST: u32 = 64 * 1024;
/// Size of a full segment, before one was seen.
const GUESS: u16 = 536;
/// Units of the window by which it may be rounded up past its limit, rather than have its edge move
/// back (RFC 7323 section 2.4).
const SLACK: u32 = 32;

/// In so much time, it shows how fast a program reads, and not how much it reads at once.
const STEADY: Duration = Duration::from_millis(10);

/// Segments that are asked for, however much is lost: with fewer, one that is lost would not be followed
/// by enough others to tell.
const NARROWEST: u32 = 4;

/// What became of a segment's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Arrival {
    /// Bytes that the program can read now.
    pub(super) in_order: u32,
    /// There is a hole before it, or there was one.
    pub(super) out_of_order: bool,
    /// Some or all of it had been received before, or does not fit the window.
    pub(super) refused: bool,
    /// The other end will send no more.
    pub(super) finished: bool,
}

/// The receiving side of a connection.
#[derive(Debug)]
pub(super) struct Receive {
    /// `RCV.NXT`.
    pub(super) nxt: SeqNumber,
    /// `RCV.NXT` when the stream began.
    begun: SeqNumber,
    /// `RCV.NXT + RCV.WND` at its furthest: what was offered is taken, whatever happens.
    edge: SeqNumber,
    queue: Queue,
    held: Option<Box<Held>>,
    /// Number of the FIN, once it was seen.
    fin: Option<SeqNumber>,
    /// Bytes that may wait for the program.
    limit: u32,
    /// Up to where the limit may grow.
    most: u32,
    /// Shift of our windows.
    shift: u8,
    /// The largest segment that came, or a guess.
    mss: u16,
    /// Received twice, and not yet told (RFC 2883).
    twice: Option<Block>,
    /// Whether the driver has so little room that queues in front of it lose segments.
    shallow: bool,
    tuning: Tuning,
}

/// Finds out how much the program reads in a round trip: twice that is the window it needs.
#[derive(Debug, Default)]
struct Tuning {
    /// The sender's round-trip time as it can be seen from here; zero if it is not known.
    rtt: Duration,
    /// The least that it was.
    least: Option<Duration>,
    /// When the round trip under way began.
    since: Duration,
    /// Bytes read since.
    read: u32,
    /// Bytes read in the best one.
    best: u32,
    /// A window's worth is complete when this comes, and began then.
    mark: Option<(SeqNumber, Duration)>,
}

impl Receive {
    /// The path carries segments of `mss` bytes, and the driver has room for `rx_ring` of them, where
    /// that is known to be few. A quarter of it is left to segments without text. A program that asked
    /// for a buffer knows what it does.
    pub(super) fn new(buffer: Buffer, mss: u16, rx_ring: Option<u16>) -> Self {
        let fits = rx_ring.map(|frames| (u32::from(frames) * 3 / 4).max(2) * u32::from(mss));
        let (limit, most) = buffer.range(fits.map_or(FIRST, |fits| fits.min(FIRST)));
        Self {
            nxt: SeqNumber(0),
            begun: SeqNumber(0),
            edge: SeqNumber(0),
            queue: Queue::default(),
            held: None,
            fin: None,
            limit,
            most,
            shift: shift_for(most),
            mss: mss.min(GUESS),
            twice: None,
            shallow: rx_ring.is_some() && matches!(buffer, Buffer::Auto(_)),
            tuning: Tuning::default(),
        }
    }

    /// The other end begins with this number, and its SYN is received.
    pub(super) fn begin(&mut self, irs: SeqNumber) {
        self.nxt = irs + 1;
        self.begun = self.nxt;
        // As far as the window of our SYN went.
        self.edge = self.nxt + self.limit.min(u32::from(u16::MAX));
    }

    /// Shift of our windows.
    pub(super) fn shift(&self) -> u8 {
        self.shift
    }

    /// The other end cannot scale.
    pub(super) fn do_not_scale(&mut self) {
        self.shift = 0;
        self.most = self.most.min(u32::from(u16::MAX));
        self.limit = self.limit.min(self.most);
    }

    /// Bytes of the stream that arrived, the FIN included, modulo 2^32.
    pub(super) fn arrived(&self) -> u32 {
        self.nxt.since(self.begun)
    }

    /// Bytes that the program can read.
    pub(super) fn unread(&self) -> usize {
        self.queue.len()
    }

    /// The first bytes in one piece.
    pub(super) fn front(&self) -> &[u8] {
        self.queue.front()
    }

    /// What there is to read, piece by piece.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.queue.pieces()
    }

    /// The program has read `len` bytes.
    pub(super) fn consume(&mut self, len: usize) {
        let len = len.min(self.queue.len());
        self.queue.consume(len);
        self.tuning.read = self.tuning.read.saturating_add(len as u32);
    }

    /// Nobody will read any more.
    pub(super) fn discard(&mut self) {
        self.queue.clear();
        self.held = None;
    }

    /// Bytes of memory beside the connection's own.
    pub(super) fn memory(&self) -> usize {
        self.queue.memory() + self.held.as_ref().map_or(0, |held| held.memory())
    }

    /// `RCV.WND`.
    pub(super) fn window(&self) -> u32 {
        self.edge.past(self.nxt)
    }

    /// One past the last number that is taken.
    pub(super) fn edge(&self) -> SeqNumber {
        self.edge
    }

    /// The limit of the buffer.
    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    /// Whether something is missing.
    pub(super) fn has_hole(&self) -> bool {
        self.held.is_some() || self.fin.is_some_and(|fin| fin >= self.nxt)
    }

    /// Largest segment seen.
    pub(super) fn mss(&self) -> u16 {
        self.mss
    }

    /// Takes a segment's text and FIN. It may begin before what is expected and end after the
    /// window; only what is new and fits is kept.
    pub(super) fn take(&mut self, seq: SeqNumber, payload: &[u8], fin: bool) -> Arrival {
        let mut arrival = Arrival::default();
        let (mut seq, mut payload, mut fin) = (seq, payload, fin);
        let end = seq + payload.len() as u32;
        if seq < self.nxt && !payload.is_empty() {
            self.twice = Some((seq, end.earlier(self.nxt)));
            arrival.refused = true;
        }
        let old = self.nxt.past(seq) as usize;
        if let Some(new) = payload.get(old..) {
            payload = new;
            seq = seq.later(self.nxt);
        } else {
            // Everything is old; a FIN, too, if it is not the very next.
            fin &= end == self.nxt;
            payload = &[];
            seq = self.nxt;
        }
        // The FIN itself may stand just behind the window: it takes no memory.
        let last = self.fin.map_or(self.edge, |fin| fin.earlier(self.edge));
        let room = last.past(seq) as usize;
        if let Some((fits, _)) = payload.split_at_checked(room)
            && room < payload.len()
        {
            payload = fits;
            fin = false;
            arrival.refused = true;
        }
        // The first FIN is the one that counts, and none behind which there was text.
        if fin && self.fin.is_none() && seq <= self.edge {
            let at = seq + payload.len() as u32;
            let beyond = self.held.as_ref().and_then(|held| held.end());
            if beyond.is_none_or(|beyond| beyond <= at) && at >= self.nxt {
                self.fin = Some(at);
            }
        }
        if !payload.is_empty() {
            self.mss = self
                .mss
                .max(u16::try_from(payload.len()).unwrap_or(u16::MAX));
        }
        if seq == self.nxt {
            self.queue.push(payload);
            self.nxt += payload.len() as u32;
            arrival.in_order = payload.len() as u32;
            if let Some(held) = &mut self.held {
                arrival.out_of_order = true;
                while let Some(bytes) = held.pop(self.nxt) {
                    self.nxt += bytes.len() as u32;
                    arrival.in_order += bytes.len() as u32;
                    self.queue.append(bytes);
                }
                if held.is_empty() {
                    self.held = None;
                }
            }
        } else {
            arrival.out_of_order = true;
            if !payload.is_empty() {
                if self.shallow && self.held.is_none() {
                    self.narrow();
                }
                let held = self.held.get_or_insert_default();
                // Buffers that grow are up to half empty.
                let most = 2 * self.limit.max(FIRST) as usize;
                if let Some(twice) = held.insert(self.nxt, seq, payload, most) {
                    self.twice = Some(twice);
                }
                if held.is_empty() {
                    self.held = None;
                }
            }
        }
        if self.fin == Some(self.nxt) {
            self.nxt += 1;
            arrival.finished = true;
        }
        arrival
    }

    /// What of the text in `seq..end` was received before is told with the next ACK.
    pub(super) fn note_twice(&mut self, seq: SeqNumber, end: SeqNumber) {
        if seq < end {
            self.twice = Some((seq, end));
        }
    }

    /// Where the window could end now. It moves only by as much as makes a difference (RFC 9293
    /// section 3.8.6.2.2), and never back.
    fn next_edge(&self) -> SeqNumber {
        let free = self.limit.saturating_sub(self.queue.len() as u32);
        let target = self.nxt + free;
        let step = (self.limit / 2).min(u32::from(self.mss)).max(1);
        if self.fin.is_some_and(|fin| fin < self.nxt) {
            return self.edge.later(self.nxt);
        }
        if target.past(self.edge) >= step {
            target
        } else {
            self.edge.later(self.nxt)
        }
    }

    /// The window as it goes into a header. It is offered by this; with a SYN it is not scaled.
    pub(super) fn offer(&mut self, syn: bool) -> u16 {
        let edge = self.next_edge();
        let shift = if syn { 0 } else { self.shift };
        let unit = 1_u32 << shift;
        let window = edge.since(self.nxt);
        let mut field = window.div_ceil(unit);
        let slack = (SLACK * unit).min(self.limit / 8);
        let most = (self.limit + slack).saturating_sub(self.queue.len() as u32);
        if field.saturating_mul(unit) > most {
            field = window / unit;
        }
        let field = u16::try_from(field).unwrap_or(u16::MAX);
        self.edge = self.edge.later(self.nxt + (u32::from(field) << shift));
        field
    }

    /// Whether the window that could be offered is so much larger than the one that was that the
    /// other end should hear of it.
    pub(super) fn has_news(&self) -> bool {
        let now = self.window();
        let next = self.next_edge().past(self.nxt);
        next > now && next / 2 >= now
    }

    /// The holes, as they are told to the other end: what came twice first, then what came last.
    pub(super) fn blocks(&mut self, max: usize) -> Blocks {
        let mut blocks = Blocks::default();
        if max == 0 {
            return blocks;
        }
        if let Some(twice) = self.twice.take() {
            blocks.push(twice);
        }
        if let Some(held) = &self.held {
            held.report(&mut blocks, max);
        }
        blocks
    }

    /// Whether there is something that [`Self::blocks`] would tell.
    pub(super) fn has_blocks(&self) -> bool {
        self.twice.is_some() || self.held.is_some()
    }

    /// A segment echoed our clock: the round trip took so long.
    pub(super) fn measured(&mut self, rtt: Duration) {
        self.tuning.least = Some(self.tuning.least.map_or(rtt, |least| least.min(rtt)));
        let rtt = rtt.max(Duration::from_millis(1));
        let known = self.tuning.rtt;
        // The sender may have been idle in between, so less is nearer to the truth.
        self.tuning.rtt = if known.is_zero() || rtt < known {
            rtt
        } else {
            (known * 7 + rtt.min(known * 8)) / 8
        };
    }

    /// Something was lost, maybe in the driver: less is asked for, until it shows again how much the path
    /// holds.
    fn narrow(&mut self) {
        let least = NARROWEST * u32::from(self.mss);
        self.limit = self.limit.min((self.limit / 2).max(least));
        self.tuning.best = 0;
        self.tuning.read = 0;
    }

    /// Has the buffer grow if the program reads so fast that the window is what holds the sender
    /// back. Called for each segment with text in order.
    pub(super) fn tune(&mut self, now: Duration, clocked: bool, pressure: bool) {
        let tuning = &mut self.tuning;
        if !clocked {
            // Without clocks, a window's worth takes a round trip at the least.
            match tuning.mark {
                Some((mark, since)) if self.nxt >= mark => {
                    tuning.mark = None;
                    self.measured(now.saturating_sub(since));
                }
                Some(_) => {}
                None => tuning.mark = Some((self.edge, now)),
            }
        }
        let tuning = &mut self.tuning;
        let period = match self.shallow {
            true => tuning.rtt.max(STEADY),
            false => tuning.rtt,
        };
        let passed = now.saturating_sub(tuning.since);
        if tuning.rtt.is_zero() || passed < period {
            return;
        }
        let mut read = core::mem::take(&mut tuning.read);
        let mut more = 16 * u32::from(self.mss);
        if self.shallow {
            // What is on its way beyond what the path itself holds waits in a queue. If that is in the
            // driver, it is lost.
            let least = tuning.least.unwrap_or(passed).min(passed);
            let held = u128::from(read) * least.as_micros() / passed.as_micros().max(1);
            read = u32::try_from(held).unwrap_or(u32::MAX);
            more = 0;
        }
        tuning.since = now;
        if read <= tuning.best {
            return;
        }
        let best = core::mem::replace(&mut tuning.best, read);
        if pressure || self.limit >= self.most {
            return;
        }
        // A sender in slow start doubles what it sends while this is on its way.
        let mut limit = read.saturating_mul(2).saturating_add(more);
        let rise = u64::from(limit) * u64::from(read - best) / u64::from(best.max(FIRST / 4));
        limit = limit.saturating_add(u32::try_from(rise * 2).unwrap_or(u32::MAX));
        self.limit = self.limit.max(limit.min(self.most));
    }

    /// Checks what must always hold.
    #[cfg(any(test, fuzzing))]
    pub(super) fn invariants(&self) {
        let offered = self.window() as usize + self.queue.len();
        let most = self.most.max(self.limit) as usize + ((SLACK as usize + 1) << self.shift);
        assert!(
            offered <= most.max(FIRST as usize * 2),
            "{offered} of {most}"
        );
        if let Some(held) = &self.held {
            held.invariants(self.nxt, self.edge);
        }
    }
}

/// The least shift with which a window of so many bytes can be offered.
fn shift_for(most: u32) -> u8 {
    let bits = u32::BITS - most.leading_zeros();
    (bits.saturating_sub(16) as u8).min(super::options::MAX_SHIFT)
}

#[cfg(test)]
mod tests {
    use super::super::config::LARGEST;
    use super::*;

    #[test]
    fn a_buffer_takes_what_it_may_and_no_more() {
        for (buffer, most) in [
            (Buffer::Fixed(u32::MAX), LARGEST),
            (Buffer::Fixed(20_000), 20_000),
            (Buffer::Auto(LARGEST), FIRST),
        ] {
            // Also of a peer who sends so little each time that the window could be rounded up for ever.
            for segment in [1460, 50, 1] {
                let mut receive = Receive::new(buffer, 1460, None);
                receive.begin(SeqNumber(7));
                let text = [0; 1460];
                let mut segments = 0;
                while receive.window() > 0 || receive.has_news() {
                    let big = receive.unread() + 20_000 < most as usize;
                    let len = if big { 1460 } else { segment };
                    receive.take(receive.nxt, &text[..len], false);
                    receive.offer(false);
                    segments += 1;
                    assert!(segments < 50_000, "{} of {most}", receive.unread());
                }
                let unread = receive.unread();
                let least = most as usize - 1460 - (1 << receive.shift());
                let limit = most as usize + ((SLACK as usize) << receive.shift());
                assert!((least..=limit).contains(&unread), "{unread} of {most}");
                receive.take(receive.nxt, &text, false);
                assert_eq!(receive.unread(), unread);
            }
        }
    }
}

//! A TCP connection without IO (RFC 9293): segments and time go in, segments and timers come out.
//!
//! - [`Connection`]: the state machine. [`arrive`] takes a segment through the checks of RFC 9293
//!   section 3.10.7, [`acknowledge`] what its ACK says, [`transmit`] makes the next segment,
//!   [`timer`] says when to look again and what is due then.
//! - [`receive`] and [`send`]: one half of the stream each, with its bytes in a [`queue`].
//! - [`rack`], [`rtt`], [`congestion`], [`episode`]: what is lost, how long an answer takes, how much
//!   may be in flight, and how a loss is got over.
//! - [`pmtu`]: how large segments may be. [`segment`], [`options`], [`seq`]: what is on the wire.
//!
//! It knows no address, no listener and no file, and in TIME-WAIT a [`TimeWait`] is all that has to
//! be kept of it.

mod acknowledge;
mod arrive;
mod congestion;
mod episode;
mod options;
mod pmtu;
mod queue;
mod rack;
mod receive;
mod rtt;
mod segment;
mod send;
mod seq;
mod stats;
#[cfg(test)]
mod tests;
mod time_wait;
mod timer;
mod transmit;

use core::time::Duration;

use self::congestion::{Controller, Cubic};
use self::episode::Episode;
use self::options::TIMESTAMPS_LEN;
pub(crate) use self::options::{Blocks, Options, Timestamps};
use self::pmtu::Pmtu;
use self::rack::Rack;
use self::receive::Receive;
use self::rtt::Rtt;
pub(crate) use self::segment::{Flags, Segment};
use self::send::Send;
pub(crate) use self::seq::SeqNumber;
pub(crate) use self::stats::{Counters, Stats};
pub(crate) use self::time_wait::TimeWait;
use self::timer::{Due, Owed, Patience, Timer};

/// Largest buffer of one direction.
pub(crate) const LARGEST: u32 = 6 * 1024 * 1024;
/// What an IPv4 peer takes that names no MSS (RFC 9293 section 3.7.1).
const DEFAULT_MSS_V4: u16 = 536;
/// The same of IPv6.
const DEFAULT_MSS_V6: u16 = 1220;
/// Smallest MSS that is believed: less would have us send tiny packets in floods.
const LEAST_MSS: u16 = 48;
/// Full segments at the start that are acknowledged at once, while the other end's window is small.
const QUICK: u8 = 16;

/// How many bytes a buffer may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Buffer {
    /// As many, as the program asked.
    Fixed(u32),
    /// As many as the path needs, up to this.
    Auto(u32),
}

impl Buffer {
    /// With how many it begins, and how many it may have.
    fn range(self, first: u32) -> (u32, u32) {
        match self {
            Self::Fixed(size) => (size.clamp(1, LARGEST), size.clamp(1, LARGEST)),
            Self::Auto(most) => (first.min(most), most.clamp(1, LARGEST)),
        }
    }
}

/// What a connection is made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    /// Our port.
    pub(crate) local_port: u16,
    /// The other end's.
    pub(crate) remote_port: u16,
    /// Whether it runs over IPv6.
    pub(crate) v6: bool,
    /// Largest packet towards the other end, IP header included.
    pub(crate) mtu: u16,
    /// For what the program writes.
    pub(crate) send_buffer: Buffer,
    /// For what it reads.
    pub(crate) receive_buffer: Buffer,
    /// Small segments go at once.
    pub(crate) no_delay: bool,
    /// An idle connection is probed.
    pub(crate) keep_alive: bool,
    /// Added to the clock in timestamps, so that it says nothing of our uptime (RFC 7323 section
    /// 5.4). It must be the same for all connections of the same two hosts.
    pub(crate) clock: u32,
}

/// Where a connection stands (RFC 9293 section 3.3.2). LISTEN is not a connection's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    SynSent,
    SynReceived,
    Established,
    FinWait1,
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    TimeWait,
    Closed,
}

/// Why a connection ended, if not as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// Nobody answers: ETIMEDOUT.
    TimedOut,
    /// The other end does not want it: ECONNREFUSED.
    Refused,
    /// The other end reset it: ECONNRESET.
    Reset,
    /// Nobody answers, and somebody on the way said that there is no way: EHOSTUNREACH.
    Unreachable,
}

/// What a SYN cookie carries of a handshake.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cookie {
    /// Number of our SYN.
    pub(crate) iss: SeqNumber,
    /// Number of the other end's.
    pub(crate) irs: SeqNumber,
    /// The MSS option, if there was one.
    pub(crate) mss: Option<u16>,
    /// The shift of the other end's windows, if both sides scale.
    pub(crate) window_scale: Option<u8>,
    /// Whether the other end understands SACK blocks.
    pub(crate) sack: bool,
    /// The other end's clock, if both sides send timestamps.
    pub(crate) timestamp: Option<u32>,
}

/// One connection.
///
/// Its methods are of four kinds:
///
/// - **getters**, with `&self`: state, readiness, statistics;
/// - **inputs from the network**: [`handle_segment`](Self::handle_segment),
///   [`handle_timeout`](Self::handle_timeout), [`handle_mtu`](Self::handle_mtu),
///   [`handle_unreachable`](Self::handle_unreachable);
/// - **inputs from the program**: [`send`](Self::send), [`recv`](Self::recv),
///   [`close`](Self::close), [`abort`](Self::abort), [`abandon`](Self::abandon) and the setters;
/// - **outputs**: [`poll_transmit`](Self::poll_transmit) and [`poll_timeout`](Self::poll_timeout).
///
/// After any input, call `poll_transmit` until it has nothing more or until there is no room for a
/// packet, and then `poll_timeout`; a getter may have another answer, too. Nothing counts as sent
/// before `poll_transmit` has returned it, so it may be called later just as well.
///
/// `now` is the time since any fixed start. It must not run backwards. No segment, and no order of
/// calls, leads to a panic.
#[derive(Debug)]
pub(crate) struct Connection {
    state: State,
    local_port: u16,
    remote_port: u16,
    /// `ISS`.
    iss: SeqNumber,
    /// Whether the other end began.
    passive: bool,
    send: Send,
    receive: Receive,
    rtt: Rtt,
    rack: Rack,
    congestion: Cubic,
    path: Pmtu,
    episode: Option<Box<Episode>>,
    /// Largest text that the other end takes.
    peer_mss: u16,
    /// What both ends agreed on; before that, what we offer.
    sack: bool,
    timestamps: bool,
    scaling: bool,
    no_delay: bool,
    /// Nobody holds it any more.
    orphan: bool,
    /// Buffers must not grow.
    pressure: bool,
    /// Somebody on the way said that there is no way.
    unreachable: bool,
    /// Added to the clock in timestamps.
    clock: u32,
    /// `TS.Recent`, and when it came.
    ts_recent: u32,
    ts_recent_at: Duration,
    /// `Last.ACK.sent`.
    last_ack: SeqNumber,
    /// Bytes that arrived at the other end, and when the last of them did.
    delivered: u32,
    delivered_at: Duration,
    /// Bytes per second of the last ones.
    rate: u64,
    /// The window held something back when this was `SND.NXT`.
    limited: Option<SeqNumber>,
    /// Duplicate ACKs of a peer without SACK.
    duplicates: u8,
    /// A tail loss probe ends here, and whether it was sent before.
    tail: Option<(SeqNumber, bool)>,
    /// The ACK that we owe.
    owed: Owed,
    /// Bytes received since the last ACK.
    unacked: u32,
    /// Full segments that are still acknowledged at once.
    quick: u8,
    /// What a timer has made due.
    due: Due,
    /// A reset to be sent: its number, and what it acknowledges.
    reset: Option<(SeqNumber, Option<SeqNumber>)>,
    timer: Option<(Timer, Duration)>,
    patience: Patience,
    reason: Option<CloseReason>,
    counters: Counters,
}

impl Connection {
    /// Begins a connection with sequence number `iss`.
    pub(crate) fn connect(config: &Config, iss: SeqNumber, now: Duration) -> Self {
        let mut connection = Self::new(config, iss, now);
        connection.due = Due::Syn;
        connection
    }

    /// Answers a SYN, of which [`Segment::is_first_syn`] is true.
    pub(crate) fn accept(
        config: &Config,
        syn: &Segment<'_>,
        iss: SeqNumber,
        now: Duration,
    ) -> Self {
        let mut connection = Self::new(config, iss, now);
        connection.passive = true;
        connection.state = State::SynReceived;
        connection.agree(syn, now);
        connection.due = Due::Syn;
        connection
    }

    /// A connection whose handshake is done, but for the ACK that brought the cookie: that is
    /// [handled](Self::handle_segment) next.
    pub(crate) fn from_cookie(config: &Config, cookie: &Cookie, now: Duration) -> Self {
        let mut connection = Self::new(config, cookie.iss, now);
        connection.passive = true;
        let options = Options {
            mss: cookie.mss,
            window_scale: cookie.window_scale,
            sack_permitted: cookie.sack,
            timestamps: cookie.timestamp.map(|value| Timestamps { value, echo: 0 }),
            sack: Blocks::default(),
        };
        let syn = Segment {
            src_port: config.remote_port,
            dst_port: config.local_port,
            seq: cookie.irs,
            ack: SeqNumber(0),
            window: 0,
            flags: Flags::SYN,
            options,
            payload: &[],
        };
        connection.agree(&syn, now);
        connection.send.nxt = cookie.iss + 1;
        connection.establish(cookie.iss + 1, now);
        connection
    }

    fn new(config: &Config, iss: SeqNumber, now: Duration) -> Self {
        let path = Pmtu::new(config.v6, config.mtu);
        let mut patience = Patience::new(now);
        patience.keep_alive = config.keep_alive;
        Self {
            state: State::SynSent,
            local_port: config.local_port,
            remote_port: config.remote_port,
            iss,
            passive: false,
            send: Send::new(config.send_buffer, iss),
            receive: Receive::new(config.receive_buffer, path.mss()),
            rtt: Rtt::default(),
            rack: Rack::default(),
            congestion: Cubic::new(u32::from(path.mss())),
            path,
            episode: None,
            peer_mss: if config.v6 {
                DEFAULT_MSS_V6
            } else {
                DEFAULT_MSS_V4
            },
            sack: true,
            timestamps: true,
            scaling: true,
            no_delay: config.no_delay,
            orphan: false,
            pressure: false,
            unreachable: false,
            clock: config.clock,
            ts_recent: 0,
            ts_recent_at: now,
            last_ack: SeqNumber(0),
            delivered: 0,
            delivered_at: now,
            rate: 0,
            limited: None,
            duplicates: 0,
            tail: None,
            owed: Owed::Nothing,
            unacked: 0,
            quick: QUICK,
            due: Due::Nothing,
            reset: None,
            timer: None,
            patience,
            reason: None,
            counters: Counters::default(),
        }
    }

    /// Takes as much of `bytes` as there is room for, and returns how much that is: nothing if
    /// [`Self::may_send`] is false.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> usize {
        if !self.may_send() {
            return 0;
        }
        let len = bytes.len().min(self.send.room());
        self.send.queue().push(bytes.get(..len).unwrap_or_default());
        len
    }

    /// Has `fill` write up to `max` bytes, or as many as there is room for in one piece, and say
    /// how many it wrote.
    pub(crate) fn send_with(&mut self, max: usize, fill: impl FnOnce(&mut [u8]) -> usize) -> usize {
        let max = max.min(self.send.room());
        if !self.may_send() || max == 0 {
            return 0;
        }
        self.send.queue().push_with(max, fill)
    }

    /// Shows `take` up to `max` bytes that came, as many as are in one piece; it says how many of
    /// them it took. Nothing is shown if there are none.
    pub(crate) fn recv(&mut self, max: usize, take: impl FnOnce(&[u8]) -> usize) -> usize {
        let front = self.peek();
        let front = front.get(..max).unwrap_or(front);
        if front.is_empty() {
            return 0;
        }
        let len = take(front).min(front.len());
        self.receive.consume(len);
        self.announce();
        len
    }

    /// Fills `buf` with bytes that came, as many as there are, and returns how many.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> usize {
        let mut len = 0;
        while let Some(room) = buf.get_mut(len..).filter(|room| !room.is_empty()) {
            let front = self.receive.front();
            let piece = front.len().min(room.len());
            if piece == 0 {
                break;
            }
            if let (Some(room), Some(front)) = (room.get_mut(..piece), front.get(..piece)) {
                room.copy_from_slice(front);
            }
            self.receive.consume(piece);
            len += piece;
        }
        if len > 0 {
            self.announce();
        }
        len
    }

    /// The first bytes that came, as many as are in one piece.
    pub(crate) fn peek(&self) -> &[u8] {
        self.receive.front()
    }

    /// The program has written everything (RFC 9293 section 3.10.4). What it wrote is still sent.
    pub(crate) fn close(&mut self, now: Duration) {
        self.state = match self.state {
            State::SynSent => {
                self.end(None);
                return;
            }
            State::Established => State::FinWait1,
            State::CloseWait => State::LastAck,
            // The FIN goes when the handshake is done.
            State::SynReceived => State::SynReceived,
            _ => return,
        };
        self.send.finishing = true;
        self.arm(now);
    }

    /// Ends the connection at once, with a reset (RFC 9293 section 3.10.5).
    pub(crate) fn abort(&mut self) {
        match self.state {
            State::Closed => return,
            State::SynSent | State::TimeWait => {}
            _ => self.reset = Some((self.next_seq(), Some(self.receive.nxt))),
        }
        self.end(None);
    }

    /// Nobody will read or write any more. What was written is still sent, but whoever does not read
    /// what came tells the other end that it is lost (RFC 1122 section 4.2.2.13), and so it is told
    /// when more comes.
    pub(crate) fn abandon(&mut self, now: Duration) {
        self.orphan = true;
        self.patience.progress = now;
        if self.receive.unread() > 0 && self.state != State::TimeWait {
            self.abort();
        } else {
            self.close(now);
        }
        self.receive.discard();
        self.arm(now);
    }

    /// Whether small segments go at once.
    pub(crate) fn set_no_delay(&mut self, no_delay: bool) {
        self.no_delay = no_delay;
    }

    /// Whether an idle connection is probed. Silence until now says nothing: nobody asked.
    pub(crate) fn set_keep_alive(&mut self, keep_alive: bool, now: Duration) {
        if keep_alive && !self.patience.keep_alive {
            self.patience.heard = now;
            self.patience.probes = 0;
        }
        self.patience.keep_alive = keep_alive;
    }

    /// Changes the sizes of the buffers; a window that was offered stays.
    pub(crate) fn set_buffers(&mut self, send: Buffer, receive: Buffer) {
        self.send.set_buffer(send);
        self.receive.set_buffer(receive);
    }

    /// While memory is short, buffers do not grow.
    pub(crate) fn set_memory_pressure(&mut self, pressure: bool) {
        self.pressure = pressure;
    }

    /// Where it stands.
    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Whether there are bytes to read.
    pub(crate) fn can_recv(&self) -> bool {
        self.receive.unread() > 0
    }

    /// Whether there are bytes to read, or may ever be.
    pub(crate) fn may_recv(&self) -> bool {
        let open = matches!(
            self.state,
            State::Established | State::FinWait1 | State::FinWait2
        );
        open || self.can_recv()
    }

    /// Whether there is room to write, and somebody to write to.
    pub(crate) fn can_send(&self) -> bool {
        self.may_send() && self.send.room() > 0
    }

    /// Whether the stream to the other end is open. Before the handshake is done, what is written
    /// waits for it.
    pub(crate) fn may_send(&self) -> bool {
        let open = matches!(
            self.state,
            State::SynSent | State::SynReceived | State::Established | State::CloseWait
        );
        open && !self.send.finishing
    }

    /// Bytes that there is room to write.
    pub(crate) fn send_room(&self) -> usize {
        self.send.room()
    }

    /// Bytes that wait for their acknowledgment, or to be sent.
    pub(crate) fn send_queue(&self) -> usize {
        self.send.queued()
    }

    /// Bytes that can be read.
    pub(crate) fn recv_queue(&self) -> usize {
        self.receive.unread()
    }

    /// Bytes that the buffers may hold at present: for writing, and for reading.
    pub(crate) fn buffers(&self) -> (u32, u32) {
        (self.send.limit(), self.receive.limit())
    }

    /// Why it ended, if not as it should.
    pub(crate) fn close_reason(&self) -> Option<CloseReason> {
        self.reason
    }

    /// Whether routers must not cut its packets up.
    pub(crate) fn dont_fragment(&self) -> bool {
        self.path.dont_fragment()
    }

    /// Bytes of memory it takes, its own included.
    pub(crate) fn memory(&self) -> usize {
        let episode = self.episode.as_ref().map_or(0, |_| size_of::<Episode>());
        size_of::<Self>() + episode + self.send.memory() + self.receive.memory()
    }

    /// What has to be kept of it in TIME-WAIT.
    pub(crate) fn time_wait(&self) -> Option<TimeWait> {
        (self.state == State::TimeWait).then_some(TimeWait {
            snd_nxt: self.send.nxt,
            rcv_nxt: self.receive.nxt,
            ts_recent: self.timestamps.then_some(self.ts_recent),
        })
    }

    /// How it does.
    pub(crate) fn stats(&self) -> Stats {
        Stats {
            srtt: self.rtt.smoothed(),
            rttvar: self.rtt.variance(),
            min_rtt: self.rtt.least(),
            rto: self.rtt.timeout(),
            cwnd: self.congestion.window(),
            ssthresh: self.congestion.threshold(),
            in_flight: self.send.pipe(),
            mss: self.mss(),
            send_window: self.send.window,
            receive_window: self.receive.window(),
            delivery_rate: self.rate,
            counters: self.counters,
        }
    }

    /// Bytes of text in a full segment.
    fn mss(&self) -> u32 {
        let clocks = if self.timestamps { TIMESTAMPS_LEN } else { 0 };
        u32::from(self.path.mss().min(self.peer_mss)).saturating_sub(clocks as u32)
    }

    /// Our clock, as it goes into timestamps: in milliseconds.
    fn timestamp(&self, now: Duration) -> u32 {
        self.clock.wrapping_add(now.as_millis() as u32)
    }

    /// The number for a segment without text: `SND.NXT`, or less if the other end took back what it
    /// had offered (as Linux: beyond its window it would not hear our ACK).
    fn next_seq(&self) -> SeqNumber {
        if self.state == State::SynReceived {
            return self.send.nxt;
        }
        self.send.nxt.earlier(self.send.edge().later(self.send.una))
    }

    /// It is over.
    fn end(&mut self, reason: Option<CloseReason>) {
        self.state = State::Closed;
        self.reason = self.reason.or(reason);
        self.send.clear();
        self.episode = None;
        self.timer = None;
        self.owed = Owed::Nothing;
        self.due = Due::Nothing;
    }

    /// Checks what must always hold, after any sequence of calls.
    ///
    /// # Panics
    ///
    /// If it does not.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn invariants(&self) {
        let synchronized = !matches!(
            self.state,
            State::SynSent | State::SynReceived | State::Closed
        );
        self.send.invariants(synchronized);
        if !matches!(self.state, State::SynSent | State::Closed) {
            self.receive.invariants();
        }
        assert!(self.congestion.window() >= 1);
        let bytes = self.send.queued() + self.receive.unread();
        let buffers = self.send.limit() as usize + self.receive.limit() as usize;
        assert!(self.memory() <= 4096 + 8 * queue::CHUNK + 3 * (bytes + buffers));
    }
}

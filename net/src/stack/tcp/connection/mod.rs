//! A TCP connection without IO (RFC 9293): segments and time go in, segments and timers come out.
//!
//! - [`Connection`]: the state machine. [`arrive`] takes a segment through the checks of RFC 9293
//!   section 3.10.7, [`acknowledge`] what its ACK says, [`transmit`] makes the next segment,
//!   [`timer`] says when to look again and what is due then.
//! - [`program`] is what the program does; [`config`] what it begins with.
//! - [`receive`] and [`send`]: one half of the stream each, with its bytes in a [`queue`].
//! - [`rack`], [`rtt`], [`congestion`], [`episode`]: what is lost, how long an answer takes, how much
//!   may be in flight, and how a loss is got over.
//! - [`pmtu`]: how large segments may be. [`segment`], [`options`], [`seq`]: what is on the wire.
//!
//! It knows no address, no listener and no file, and in TIME-WAIT a [`TimeWait`] is all that has to
//! be kept of it.

mod acknowledge;
mod arrive;
mod config;
mod congestion;
mod episode;
#[cfg(fuzzing)]
mod fuzzing;
mod notice;
mod options;
mod pace;
mod pmtu;
mod program;
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

use core::ops::Range;
use core::time::Duration;

pub(crate) use self::config::{Buffer, CloseReason, Config, Cookie, LARGEST, State};
use self::congestion::{Controller, Cubic};
use self::episode::Episode;
#[cfg(fuzzing)]
pub use self::fuzzing::segments;
use self::options::TIMESTAMPS_LEN;
pub(crate) use self::options::{Blocks, Options, Timestamps};
use self::pace::Pace;
use self::pmtu::Pmtu;
use self::rack::Rack;
pub(crate) use self::receive::FIRST;
use self::receive::Receive;
use self::rtt::Rtt;
pub(crate) use self::segment::{Flags, Header, Segment};
use self::send::Send;
pub(crate) use self::seq::SeqNumber;
pub(crate) use self::stats::{Counters, Stats};
pub(crate) use self::time_wait::TimeWait;
pub(crate) use self::timer::TIME_WAIT;
use self::timer::{Due, Owed, Patience, Timer};

/// Smallest MSS that is believed: less would have us send tiny packets in floods.
const LEAST_MSS: u16 = 48;
/// Full segments at the start that are acknowledged at once, while the other end's window is small.
const QUICK: u8 = 16;

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
    pace: Pace,
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
            receive: Receive::new(config.receive_buffer, path.mss(), config.rx_ring),
            rtt: Rtt::default(),
            rack: Rack::default(),
            congestion: Cubic::new(u32::from(path.mss())),
            pace: Pace::default(),
            path,
            episode: None,
            peer_mss: config.default_mss(),
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
        self.is_receiving() || self.can_recv()
    }

    /// Whether the stream from the other end is open.
    fn is_receiving(&self) -> bool {
        matches!(
            self.state,
            State::Established | State::FinWait1 | State::FinWait2
        )
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

    /// Where what is on its way begins and ends: `SND.UNA` and `SND.NXT`.
    pub(crate) fn on_its_way(&self) -> Range<SeqNumber> {
        self.send.una..self.send.nxt
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

    /// Bytes of memory that what was received takes.
    pub(crate) fn receive_memory(&self) -> usize {
        self.receive.memory()
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

    /// What was counted.
    pub(crate) fn counters(&self) -> Counters {
        self.counters
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
            acked: match self.send.una == self.iss {
                true => 0,
                false => self.send.una.since(self.iss + 1),
            },
            received: self.receive.arrived(),
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

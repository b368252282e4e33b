//! One timer for everything a connection waits for.

use core::time::Duration;

use super::{CloseReason, Connection, SeqNumber, State};

/// How long TIME-WAIT lasts from the last FIN on.
pub(crate) const TIME_WAIT: Duration = Duration::from_secs(10);
/// A handshake that takes longer is given up. RFC 9293 section 3.8.3 wants three minutes at least
/// from whoever opens.
const HANDSHAKE: Duration = Duration::from_secs(180);
/// The same for one that somebody else began: its memory is a stranger's to take (RFC 4987).
const EMBRYO: Duration = Duration::from_secs(75);
/// R2 of RFC 9293 section 3.8.3: how long what was sent may go unanswered. A window of zero is an
/// answer (section 3.8.6.1), so it is measured from the last segment that came.
const UNANSWERED: Duration = Duration::from_secs(15 * 60);
/// A connection that nobody holds any more is given up after so long without progress; then a
/// window of zero is none.
const ORPHAN: Duration = Duration::from_secs(60);
/// Time between two probes of an idle connection: longer than any NAT would.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// Probes without an answer before the other end is taken for gone.
const KEEP_ALIVES: u32 = 9;
/// Longest time between two probes of a closed window.
const SLOWEST_PROBE: Duration = Duration::from_secs(60);
/// How long a small segment may wait for a larger window (RFC 9293 section 3.8.6.2.1).
const OVERRIDE: Duration = Duration::from_millis(200);
/// How long the other end may keep the ACK of a lone segment back (RFC 8985 section 7.2).
const SLOW_ACK: Duration = Duration::from_millis(200);
/// Least time of a tail loss probe beyond two round trips.
const TICK: Duration = Duration::from_millis(2);

/// What the main timer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// An answer to our SYN.
    Syn,
    /// An ACK.
    Retransmit,
    /// Something that may only be late.
    Reorder,
    /// The ACK of the last segments.
    Tail,
    /// A window of zero to open.
    Window,
    /// A small window to grow.
    Override,
}

/// What is due without a segment that asked for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Due {
    #[default]
    Nothing,
    /// Our SYN, with or without an ACK.
    Syn,
    /// A tail loss probe.
    Tail,
    /// A probe of the window.
    Window,
    /// Whatever fits the window.
    Override,
    /// A probe of an idle connection.
    KeepAlive,
}

/// The ACK that we owe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Owed {
    #[default]
    Nothing,
    /// It may wait until then for company.
    Delayed(Duration),
    Now,
}

/// What the timers follow from.
#[derive(Debug)]
pub(super) struct Patience {
    /// Since when the connection is.
    began: Duration,
    /// When it last got further.
    pub(super) progress: Duration,
    /// When a segment last came.
    pub(super) heard: Duration,
    /// Since when something waits for its acknowledgment.
    asked: Option<Duration>,
    /// From when on the retransmission timeout counts.
    pub(super) rto_base: Duration,
    /// When text was last sent.
    pub(super) last_sent: Duration,
    /// When what may only be late is lost.
    pub(super) reorder: Option<Duration>,
    /// SYNs that were sent, and when the last was.
    pub(super) syns: u32,
    pub(super) syn_sent: Duration,
    /// Since when the window keeps us waiting, and probes of it so far.
    window_since: Option<Duration>,
    pub(super) window_probes: u32,
    /// Whether idle connections are probed, and probes without an answer.
    pub(super) keep_alive: bool,
    pub(super) probes: u32,
    /// When the next answer to a possible forgery may go.
    pub(super) next_challenge: Duration,
    /// When TIME-WAIT is over.
    pub(super) wait_until: Duration,
}

impl Patience {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            began: now,
            progress: now,
            heard: now,
            asked: None,
            rto_base: now,
            last_sent: now,
            reorder: None,
            syns: 0,
            syn_sent: now,
            window_since: None,
            window_probes: 0,
            keep_alive: false,
            probes: 0,
            next_challenge: Duration::ZERO,
            wait_until: now,
        }
    }
}

impl Connection {
    /// When [`handle_timeout`](Self::handle_timeout) is to be called, if nothing comes before;
    /// `None` for never. It mostly moves away: an owner need not follow it until it is due.
    #[must_use]
    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        let delayed = match self.owed {
            Owed::Delayed(at) => Some(at),
            _ => None,
        };
        let timer = self.timer.map(|(_, at)| at);
        let pace = self.pace.wake();
        [timer, pace, delayed, self.keep_alive_at(), self.deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Duration) {
        if self.state == State::Closed {
            return;
        }
        if matches!(self.owed, Owed::Delayed(at) if at <= now) {
            self.owed = Owed::Now;
        }
        self.pace.look(now);
        if let Some((timer, at)) = self.timer
            && at <= now
        {
            self.timer = None;
            self.fire(timer, now);
        }
        if self.keep_alive_at().is_some_and(|at| at <= now) {
            self.patience.probes += 1;
            self.probe(Due::KeepAlive);
        }
        if self.deadline().is_some_and(|at| at <= now) {
            self.give_up();
        }
        self.arm(now);
    }

    fn fire(&mut self, timer: Timer, now: Duration) {
        match timer {
            Timer::Syn => {
                if self.unreachable && self.state == State::SynSent {
                    self.end(Some(CloseReason::Unreachable));
                    return;
                }
                self.rtt.back_off();
                self.rtt.repeated_syn();
                self.patience.rto_base = now;
                self.due = Due::Syn;
            }
            Timer::Retransmit => self.time_out(now),
            Timer::Reorder => {
                self.detect(false, now);
            }
            Timer::Tail => {
                self.patience.rto_base = now;
                self.probe(Due::Tail);
            }
            Timer::Window => {
                self.patience.window_since = Some(now);
                self.patience.window_probes += 1;
                self.probe(Due::Window);
            }
            Timer::Override => {
                self.patience.window_since = Some(now);
                self.probe(Due::Override);
            }
        }
    }

    /// A probe of the window, or of the tail.
    fn probe(&mut self, due: Due) {
        if self.due == Due::Nothing {
            self.due = due;
        }
    }

    fn give_up(&mut self) {
        if self.state == State::TimeWait {
            self.end(None);
            return;
        }
        let reason = if self.unreachable {
            CloseReason::Unreachable
        } else {
            CloseReason::TimedOut
        };
        self.abort();
        self.reason = self.reason.or(Some(reason));
    }

    /// Sets the main timer, after anything that happened.
    pub(super) fn arm(&mut self, now: Duration) {
        if self.state == State::Closed {
            self.timer = None;
            return;
        }
        let outstanding = self.send.is_outstanding();
        if outstanding || self.send.queued() > 0 || self.send.owes_fin() {
            self.patience.asked.get_or_insert(now);
        } else {
            self.patience.asked = None;
        }
        self.timer = match self.state {
            State::SynSent | State::SynReceived => (self.due != Due::Syn).then(|| {
                let at = self.patience.syn_sent + self.syn_timeout();
                (Timer::Syn, at)
            }),
            _ if self.send.window == 0 && (outstanding || self.send.unsent() > 0) => {
                let since = *self.patience.window_since.get_or_insert(now);
                let wait = self.rtt.base() * (1 << self.patience.window_probes.min(10));
                Some((Timer::Window, since + wait.min(SLOWEST_PROBE)))
            }
            _ if outstanding => {
                self.patience.window_since = None;
                Some(self.retransmission(now))
            }
            _ if self.send.unsent() > 0 => {
                let since = *self.patience.window_since.get_or_insert(now);
                Some((Timer::Override, since + OVERRIDE))
            }
            _ => {
                self.patience.window_since = None;
                None
            }
        };
    }

    /// One second, then twice as long each time, whatever the caution for later.
    fn syn_timeout(&self) -> Duration {
        super::rtt::INITIAL * (1 << self.patience.syns.saturating_sub(1).min(6))
    }

    /// The timer for what is in flight.
    fn retransmission(&self, now: Duration) -> (Timer, Duration) {
        let timeout = (
            Timer::Retransmit,
            self.patience.rto_base + self.rtt.timeout(),
        );
        match self.patience.reorder {
            Some(at) if at < timeout.1 => return (Timer::Reorder, at),
            Some(_) => return timeout,
            None => {}
        }
        let probes = self.sack
            && self.tail.is_none()
            && self.episode.is_none()
            && self.send.lost() == 0
            && self.due != Due::Tail;
        let Some(smoothed) = self.rtt.smoothed().filter(|_| probes) else {
            return timeout;
        };
        let slow = if self.send.segments() == 1 {
            SLOW_ACK
        } else {
            TICK
        };
        let base = self.patience.last_sent.max(self.patience.rto_base);
        let at = (base + smoothed * 2 + slow).max(now);
        if at < timeout.1 {
            (Timer::Tail, at)
        } else {
            timeout
        }
    }

    fn keep_alive_at(&self) -> Option<Duration> {
        let synchronized = matches!(
            self.state,
            State::Established | State::CloseWait | State::FinWait2
        );
        let idle = self.patience.keep_alive
            && synchronized
            && self.due != Due::KeepAlive
            && self.patience.probes < KEEP_ALIVES
            && !self.send.is_outstanding();
        idle.then(|| self.patience.heard + KEEP_ALIVE * (self.patience.probes + 1))
    }

    /// When it is to be given up.
    fn deadline(&self) -> Option<Duration> {
        let patience = &self.patience;
        match self.state {
            State::Closed => None,
            State::TimeWait => Some(patience.wait_until),
            _ if self.orphan => Some(patience.progress + ORPHAN),
            State::SynReceived if self.passive => Some(patience.began + EMBRYO),
            State::SynSent | State::SynReceived => Some(patience.began + HANDSHAKE),
            _ => {
                let unanswered = patience
                    .asked
                    .map(|asked| patience.heard.max(asked) + UNANSWERED);
                let probed = patience
                    .keep_alive
                    .then(|| patience.heard + KEEP_ALIVE * (KEEP_ALIVES + 1));
                unanswered.into_iter().chain(probed).min()
            }
        }
    }

    /// A segment with text, or our FIN, left.
    pub(super) fn note_sent(&mut self, first: bool, seq: SeqNumber, now: Duration) {
        self.patience.last_sent = now;
        if first || seq == self.send.una {
            self.patience.rto_base = now;
        }
    }
}

//! What the program that holds a connection does.

use core::time::Duration;

use super::{Connection, State};

impl Connection {
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

    /// A copy of the first bytes that came, up to `max`, which stay to be read.
    pub(crate) fn peek_all(&self, max: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for piece in self.receive.pieces() {
            let len = piece.len().min(max - bytes.len());
            bytes.extend_from_slice(piece.get(..len).unwrap_or_default());
            if bytes.len() >= max {
                break;
            }
        }
        bytes
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

    /// While memory is short, buffers do not grow.
    pub(crate) fn set_memory_pressure(&mut self, pressure: bool) {
        self.pressure = pressure;
    }
}

//! What a connection is made with, and what it says of itself.

use super::seq::SeqNumber;

/// Largest buffer of one direction.
pub(crate) const LARGEST: u32 = 6 * 1024 * 1024;
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
    pub(super) fn range(self, first: u32) -> (u32, u32) {
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
    /// Frames that the driver has room for until they are taken from it, where that is so few that
    /// what is on its way at a time had better fit.
    pub(crate) rx_ring: Option<u16>,
    /// Small segments go at once.
    pub(crate) no_delay: bool,
    /// An idle connection is probed.
    pub(crate) keep_alive: bool,
    /// Added to the clock in timestamps, so that it says nothing of our uptime (RFC 7323 section
    /// 5.4). It must be the same for all connections of the same two hosts.
    pub(crate) clock: u32,
}

impl Config {
    /// What a peer takes that names no MSS (RFC 9293 section 3.7.1).
    pub(crate) fn default_mss(&self) -> u16 {
        if self.v6 { 1220 } else { 536 }
    }
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

impl State {
    /// Its name in RFC 9293.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::SynSent => "SYN-SENT",
            Self::SynReceived => "SYN-RECEIVED",
            Self::Established => "ESTABLISHED",
            Self::FinWait1 => "FIN-WAIT-1",
            Self::FinWait2 => "FIN-WAIT-2",
            Self::CloseWait => "CLOSE-WAIT",
            Self::Closing => "CLOSING",
            Self::LastAck => "LAST-ACK",
            Self::TimeWait => "TIME-WAIT",
            Self::Closed => "CLOSED",
        }
    }
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

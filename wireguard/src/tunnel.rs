//! The protocol with all peers: which packet goes to whom, who may send what, and when something is
//! due.
//!
//! [`Tunnel`] reads no clock and no descriptor. Every call says what time it is, by a clock that
//! starts anywhere and never goes back; what is to be sent goes to an [`Outbox`]. The noise
//! protocol itself is boringtun's, whose clock this module sets at each call.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use boringtun::x25519;
use mock_instant::MockClock;

use crate::allowed::AllowedIps;
use crate::config::Config;
use crate::key::Public;

/// Longest packet that is carried, bytes: what tund's device takes.
pub const MAX_PACKET: usize = tun::TUNMRU;
/// How often timers are looked at while there is something to time. The protocol's are in seconds.
const TICK: Duration = Duration::from_millis(250);
/// Handshakes a second, from all peers and strangers, above which a cookie is asked for.
const HANDSHAKES_PER_SECOND: u64 = 100;
/// Message types (whitepaper, section 5.4).
const INITIATION: u8 = 1;
const RESPONSE: u8 = 2;
const COOKIE: u8 = 3;
const DATA: u8 = 4;
/// Bytes of a data message without its packet: header and tag.
const OVERHEAD: usize = 32;
/// Packets are padded to a multiple of this before they are encrypted (section 5.4.6), bytes.
const PADDING: usize = 16;
/// Messages that one key may carry (`REJECT_AFTER_MESSAGES`, section 6.1).
const MAX_COUNTER: u64 = u64::MAX - (1 << 13);
/// Space for any message, bytes: the longest datagram, and the longest packet with its overhead.
const SPACE: usize = 1 << 16;
/// Peers are told apart by the upper bits of the indices that we give to sessions.
const SESSION_BITS: u32 = 8;
const INDEX_MASK: u32 = u32::MAX >> SESSION_BITS;
/// Packets that may wait for a handshake; boringtun's bound, which ends a loop here, too.
const MAX_WAITING: usize = 256;

/// Where packets and datagrams go.
pub trait Outbox {
    /// A datagram for a peer at `to`.
    fn datagram(&mut self, to: SocketAddr, datagram: &[u8]);
    /// A packet for the interface, at most [`MAX_PACKET`] bytes.
    fn packet(&mut self, packet: &[u8]);
}

/// Why something went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// A packet for an address that belongs to no peer.
    NoPeer,
    /// A packet for a peer of which we do not know where it is.
    NoEndpoint,
    /// A packet that is empty, over-long or not IP.
    BadPacket,
    /// A datagram that is not a message of the protocol.
    BadDatagram,
    /// A handshake that no peer can have made.
    Stranger,
    /// A message that cannot be of now: a replay, one of a session that is over, or altered.
    NotGenuine,
    /// A peer's packet from an address that is not its own.
    WrongSource,
}

impl Dropped {
    /// Number of reasons.
    pub const COUNT: usize = 7;
    /// All reasons, in the order of [`Tunnel::dropped`].
    pub const ALL: [Self; Self::COUNT] = [
        Self::NoPeer,
        Self::NoEndpoint,
        Self::BadPacket,
        Self::BadDatagram,
        Self::Stranger,
        Self::NotGenuine,
        Self::WrongSource,
    ];

    /// A name for counters.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoPeer => "no-peer",
            Self::NoEndpoint => "no-endpoint",
            Self::BadPacket => "bad-packet",
            Self::BadDatagram => "bad-datagram",
            Self::Stranger => "stranger",
            Self::NotGenuine => "not-genuine",
            Self::WrongSource => "wrong-source",
        }
    }
}

/// All peers, and what is under way with them.
pub struct Tunnel {
    private: x25519::StaticSecret,
    public: x25519::PublicKey,
    /// Every handshake passes it, before a peer is looked for. It asks for cookies under load.
    gate: RateLimiter,
    /// The upper bits of the indices of the first peer's sessions.
    first_index: u32,
    peers: Vec<Peer>,
    allowed: AllowedIps,
    /// mtu of the interface, bytes: padding does not go over it.
    mtu: usize,
    /// The time of the last call, and when timers are looked at next.
    now: Duration,
    next_tick: Duration,
    drops: [u64; Dropped::COUNT],
    space: Box<Space>,
}

/// Where messages are made.
struct Space {
    message: [u8; SPACE],
    padded: [u8; SPACE],
}

/// One peer.
pub struct Peer {
    tunn: Tunn,
    public: Public,
    endpoint: Option<SocketAddr>,
    keepalive: Option<u16>,
    /// It began a handshake, and its first message with the new key will end it.
    unconfirmed: bool,
    last_handshake: Option<Duration>,
    received: u64,
    sent: u64,
}

impl Peer {
    /// Its public key.
    pub fn public_key(&self) -> Public {
        self.public
    }

    /// Where it was last heard, or else where the file says it is.
    pub fn endpoint(&self) -> Option<SocketAddr> {
        self.endpoint
    }

    /// Seconds after which something is sent in any case.
    pub fn keepalive(&self) -> Option<u16> {
        self.keepalive
    }

    /// When the last handshake was complete, by the clock of the calls.
    pub fn last_handshake(&self) -> Option<Duration> {
        self.last_handshake
    }

    /// Bytes of genuine messages received, with all of WireGuard's own.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Bytes of messages sent, with all of WireGuard's own.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    fn send(&mut self, datagram: &[u8], out: &mut impl Outbox) {
        if let Some(to) = self.endpoint {
            self.sent += datagram.len() as u64;
            out.datagram(to, datagram);
        }
    }

    /// Sends what waited for a handshake.
    fn send_waiting(&mut self, message: &mut [u8], out: &mut impl Outbox) {
        for _ in 0..=MAX_WAITING {
            match self.tunn.decapsulate(None, &[], message) {
                TunnResult::WriteToNetwork(datagram) => {
                    let datagram = &*datagram;
                    if let Some(to) = self.endpoint {
                        self.sent += datagram.len() as u64;
                        out.datagram(to, datagram);
                    }
                }
                _ => return,
            }
        }
    }

    fn begin_handshake(&mut self, message: &mut [u8], out: &mut impl Outbox) {
        if self.endpoint.is_none() {
            return;
        }
        if let TunnResult::WriteToNetwork(datagram) =
            self.tunn.format_handshake_initiation(message, false)
        {
            let datagram = &*datagram;
            self.send(datagram, out);
        }
    }
}

impl Tunnel {
    /// `endpoints` are where the peers of `config` are, in their order. `chance` should differ from
    /// one start to the next, so that messages of an old session are not taken for those of a new.
    pub fn new(
        config: &Config,
        endpoints: &[Option<SocketAddr>],
        chance: u32,
        now: Duration,
    ) -> Self {
        MockClock::set_time(now);
        let private = config.private_key.private();
        let public = x25519::PublicKey::from(&private);
        // What passed the gate is not held up by a second one.
        let open = Arc::new(RateLimiter::new(&public, u64::MAX));
        let mut allowed = AllowedIps::default();
        let mut peers = Vec::new();
        for (index, peer) in config.peers.iter().enumerate() {
            for network in &peer.allowed_ips {
                allowed.insert(network.net, index);
            }
            let session = chance.wrapping_add(index as u32) & INDEX_MASK;
            peers.push(Peer {
                tunn: Tunn::new(
                    private.clone(),
                    peer.public_key.key(),
                    peer.preshared_key.as_ref().map(|key| key.bytes()),
                    peer.keepalive,
                    session,
                    Some(Arc::clone(&open)),
                ),
                public: peer.public_key,
                endpoint: endpoints.get(index).copied().flatten(),
                keepalive: peer.keepalive,
                unconfirmed: false,
                last_handshake: None,
                received: 0,
                sent: 0,
            });
        }
        Self {
            gate: RateLimiter::new(&public, HANDSHAKES_PER_SECOND),
            private,
            public,
            first_index: chance & INDEX_MASK,
            peers,
            allowed,
            mtu: config.mtu.into(),
            now,
            next_tick: now,
            drops: [0; Dropped::COUNT],
            space: Box::new(Space {
                message: [0; SPACE],
                padded: [0; SPACE],
            }),
        }
    }

    /// Begins a handshake with every peer of which we know where it is. A peer that still has a
    /// session with a predecessor of ours would otherwise be silent until it gives up.
    pub fn start(&mut self, now: Duration, out: &mut impl Outbox) {
        self.timers(now, out);
        for peer in &mut self.peers {
            peer.begin_handshake(&mut self.space.message, out);
        }
    }

    /// A packet that the system sends into the interface.
    pub fn packet(&mut self, now: Duration, packet: &[u8], out: &mut impl Outbox) {
        self.timers(now, out);
        if packet.len() > MAX_PACKET {
            return self.drop(Dropped::BadPacket);
        }
        let Some(to) = Tunn::dst_address(packet) else {
            return self.drop(Dropped::BadPacket);
        };
        let Some(peer) = self
            .allowed
            .peer(to)
            .and_then(|index| self.peers.get_mut(index))
        else {
            return self.drop(Dropped::NoPeer);
        };
        if peer.endpoint.is_none() {
            return self.drop(Dropped::NoEndpoint);
        }
        let Space { message, padded } = &mut *self.space;
        let len = packet
            .len()
            .next_multiple_of(PADDING)
            .min(self.mtu)
            .max(packet.len());
        let (head, tail) = padded[..len].split_at_mut(packet.len());
        head.copy_from_slice(packet);
        tail.fill(0);
        if let TunnResult::WriteToNetwork(datagram) = peer.tunn.encapsulate(&padded[..len], message)
        {
            let datagram = &*datagram;
            peer.send(datagram, out);
        }
    }

    /// A datagram that came from `from`.
    pub fn datagram(
        &mut self,
        now: Duration,
        from: SocketAddr,
        datagram: &[u8],
        out: &mut impl Outbox,
    ) {
        self.timers(now, out);
        if let Err(reason) = self.input(from, datagram, out) {
            self.drop(reason);
        }
    }

    fn input(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        out: &mut impl Outbox,
    ) -> Result<(), Dropped> {
        if datagram.len() > MAX_PACKET + PADDING + OVERHEAD {
            return Err(Dropped::BadDatagram);
        }
        let message = &mut self.space.message[..];
        let (kind, index) = match self.gate.verify_packet(Some(from.ip()), datagram, message) {
            Ok(Packet::HandshakeInit(initiation)) => {
                let half = parse_handshake_anon(&self.private, &self.public, &initiation);
                let key = half.map_err(|_| Dropped::Stranger)?.peer_static_public;
                let key = Public::from_bytes(key);
                let index = self.peers.iter().position(|peer| peer.public == key);
                (INITIATION, index.ok_or(Dropped::Stranger)?)
            }
            Ok(Packet::HandshakeResponse(response)) => {
                (RESPONSE, self.index(response.receiver_idx)?)
            }
            Ok(Packet::PacketCookieReply(reply)) => (COOKIE, self.index(reply.receiver_idx)?),
            Ok(Packet::PacketData(data)) => {
                let counter = datagram
                    .get(8..16)
                    .and_then(|bytes| bytes.try_into().ok())
                    .map(u64::from_le_bytes);
                if counter.is_none_or(|counter| counter >= MAX_COUNTER) {
                    return Err(Dropped::NotGenuine);
                }
                (DATA, self.index(data.receiver_idx)?)
            }
            Err(TunnResult::WriteToNetwork(cookie)) => {
                out.datagram(from, cookie);
                return Ok(());
            }
            Err(_) => return Err(Dropped::BadDatagram),
        };
        let peer = self.peers.get_mut(index).ok_or(Dropped::NotGenuine)?;
        let message = &mut self.space.message[..];
        let mut packet: Option<(&[u8], IpAddr)> = None;
        let mut reply: Option<&[u8]> = None;
        match peer.tunn.decapsulate(Some(from.ip()), datagram, message) {
            TunnResult::Done => {}
            TunnResult::Err(_) if kind == INITIATION => return Err(Dropped::Stranger),
            TunnResult::Err(boringtun::noise::errors::WireGuardError::InvalidPacket)
                if kind == DATA =>
            {
                // It was genuine: only what is inside is not IP.
                return Err(Dropped::BadPacket);
            }
            TunnResult::Err(_) => return Err(Dropped::NotGenuine),
            TunnResult::WriteToNetwork(datagram) => reply = Some(datagram),
            TunnResult::WriteToTunnelV4(inner, source) => packet = Some((inner, source.into())),
            TunnResult::WriteToTunnelV6(inner, source) => packet = Some((inner, source.into())),
        }
        // The peer made this message, so this is where it is now. A cookie does not prove it.
        if kind != COOKIE {
            peer.endpoint = Some(from);
            peer.received += datagram.len() as u64;
        }
        match kind {
            INITIATION => peer.unconfirmed = true,
            RESPONSE => {
                peer.unconfirmed = false;
                peer.last_handshake = Some(self.now);
            }
            _ => {}
        }
        if let Some(reply) = reply {
            peer.send(reply, out);
        }
        let taken = match packet {
            None => Ok(()),
            Some((inner, _)) if inner.len() > MAX_PACKET => Err(Dropped::BadPacket),
            Some((_, source)) if self.allowed.peer(source) != Some(index) => {
                Err(Dropped::WrongSource)
            }
            Some((inner, _)) => {
                out.packet(inner);
                Ok(())
            }
        };
        let confirmed = kind == DATA && std::mem::take(&mut peer.unconfirmed);
        if confirmed {
            peer.last_handshake = Some(self.now);
        }
        if confirmed || kind == RESPONSE {
            peer.send_waiting(&mut self.space.message, out);
        }
        taken
    }

    /// The peer to which we gave an index.
    fn index(&self, index: u32) -> Result<usize, Dropped> {
        let index = (index >> SESSION_BITS).wrapping_sub(self.first_index) & INDEX_MASK;
        let index = index as usize;
        if index < self.peers.len() {
            Ok(index)
        } else {
            Err(Dropped::NotGenuine)
        }
    }

    /// Does what is due: handshakes again, new keys, signs of life. All calls do it first.
    pub fn timers(&mut self, now: Duration, out: &mut impl Outbox) {
        self.now = self.now.max(now);
        MockClock::set_time(self.now);
        if self.now < self.next_tick {
            return;
        }
        self.next_tick = self.now + TICK;
        self.gate.reset_count();
        let message = &mut self.space.message[..];
        for peer in &mut self.peers {
            match peer.tunn.update_timers(message) {
                TunnResult::WriteToNetwork(datagram) => {
                    let datagram = &*datagram;
                    if let Some(to) = peer.endpoint {
                        peer.sent += datagram.len() as u64;
                        out.datagram(to, datagram);
                    }
                }
                // Nobody answers. One that is to be kept alive is called until it does.
                TunnResult::Err(_) if peer.keepalive.is_some() => {
                    peer.begin_handshake(message, out)
                }
                _ => {}
            }
        }
    }

    /// How long until [`timers`](Self::timers) has something to do; `None` for ever, until
    /// something else happens.
    pub fn next_timer(&self) -> Option<Duration> {
        let timed = |peer: &Peer| !peer.tunn.is_expired();
        self.peers
            .iter()
            .any(timed)
            .then(|| self.next_tick.saturating_sub(self.now))
    }

    /// The peers, in the order of the file.
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// What went no further, in the order of [`Dropped::ALL`].
    pub fn dropped(&self) -> [u64; Dropped::COUNT] {
        self.drops
    }

    fn drop(&mut self, reason: Dropped) {
        self.drops[reason as usize] += 1;
    }
}

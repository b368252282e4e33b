//! smoltcp's interface, lent to one connection at a time.
//!
//! An engine has no addresses of its own and takes every one for its own; who is who was decided
//! before. Its mtu is fixed, so there is one engine for each mtu in use. What it draws by chance is
//! predictable, so it draws nothing but the initial sequence number of a connection, and for each is
//! [made anew](Engines::seed).

use std::collections::BTreeMap;

use smoltcp::iface::{Config, Interface, PollResult, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::HardwareAddress;

use crate::packet::Packet;

/// Most engines kept; an mtu that is not used for long loses its engine, and gets a new one.
const MAX_ENGINES: usize = 64;

/// Engines by mtu.
#[derive(Default)]
pub(crate) struct Engines(BTreeMap<u16, Interface>);

/// What an engine sees of the network: at most one packet to receive, and where to put what it
/// sends.
struct OnePacket<'a> {
    mtu: u16,
    received: Option<&'a [u8]>,
    sent: &'a mut Vec<Packet>,
}

impl<'a> OnePacket<'a> {
    /// Nothing to receive.
    fn new(mtu: u16, sent: &'a mut Vec<Packet>) -> Self {
        Self {
            mtu,
            received: None,
            sent,
        }
    }
}

impl Engines {
    /// Has the next initial sequence number of the engine of this mtu follow from `chance`.
    pub(crate) fn seed(&mut self, mtu: u16, now: Instant, chance: u64) {
        let mut sent = Vec::new();
        let mut device = OnePacket::new(mtu, &mut sent);
        let engine = Self::make(&mut device, now, chance);
        *self.engine(&mut device, now) = engine;
    }

    /// Lets the socket of `set` process one packet; what it answers is added to `sent`.
    pub(crate) fn receive(
        &mut self,
        mtu: u16,
        now: Instant,
        set: &mut SocketSet<'static>,
        packet: &[u8],
        sent: &mut Vec<Packet>,
    ) {
        let mut device = OnePacket::new(mtu, sent);
        device.received = Some(packet);
        let engine = self.engine(&mut device, now);
        engine.poll_ingress_single(now, &mut device, set);
    }

    /// Lets the socket of `set` send one packet. False if it had none to send.
    pub(crate) fn transmit(
        &mut self,
        mtu: u16,
        now: Instant,
        set: &mut SocketSet<'static>,
        sent: &mut Vec<Packet>,
    ) -> bool {
        let mut device = OnePacket::new(mtu, sent);
        let engine = self.engine(&mut device, now);
        engine.poll_egress(now, &mut device, set) == PollResult::SocketStateChanged
    }

    /// When the socket of `set` wants to be polled again; `None` for not before a packet comes.
    pub(crate) fn poll_at(
        &mut self,
        mtu: u16,
        now: Instant,
        set: &SocketSet<'static>,
    ) -> Option<Instant> {
        let mut sent = Vec::new();
        let mut device = OnePacket::new(mtu, &mut sent);
        self.engine(&mut device, now).poll_at(now, set)
    }

    /// The engine of this mtu; smoltcp wants it for opening a socket as well.
    pub(crate) fn with<T>(
        &mut self,
        mtu: u16,
        now: Instant,
        body: impl FnOnce(&mut Interface) -> T,
    ) -> T {
        let mut sent = Vec::new();
        let mut device = OnePacket::new(mtu, &mut sent);
        body(self.engine(&mut device, now))
    }

    fn engine(&mut self, device: &mut OnePacket<'_>, now: Instant) -> &mut Interface {
        let mtu = device.mtu;
        if self.0.len() >= MAX_ENGINES && !self.0.contains_key(&mtu) {
            // Nothing is lost: it is in the sockets.
            self.0.clear();
        }
        self.0
            .entry(mtu)
            .or_insert_with(|| Self::make(device, now, 0))
    }

    fn make(device: &mut OnePacket<'_>, now: Instant, chance: u64) -> Interface {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = chance;
        let mut engine = Interface::new(config, device, now);
        engine.set_any_ip(true);
        engine
    }
}

impl Device for OnePacket<'_> {
    type RxToken<'t>
        = Received<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Sent<'t>
    where
        Self: 't;

    fn receive(&mut self, _now: Instant) -> Option<(Received<'_>, Sent<'_>)> {
        let received = self.received.take()?;
        Some((Received(received), Sent(self.sent)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Sent<'_>> {
        Some(Sent(self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu.into();
        // Input has verified what came, and TCP's own are filled in behind; the others are not asked.
        capabilities.checksum.ipv4 = Checksum::Tx;
        capabilities.checksum.tcp = Checksum::None;
        capabilities
    }
}

struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

struct Sent<'a>(&'a mut Vec<Packet>);

impl TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = Packet::zeroed(len);
        let result = f(&mut packet);
        self.0.push(packet);
        result
    }
}

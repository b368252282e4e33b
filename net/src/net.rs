//! One machine's network: the layers below, and the turn in which packets go from one to another.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use scheme::{FileId, Now, Ready, earlier};

use crate::bpf::drops;
use crate::ifnet::{Activity, AdapterId, Driver, DropReason, IfIndex, Ifnet, TapId};
use crate::ip::header::proto;
use crate::ip::icmp::Notice;
use crate::ip::{Budget, Delivery, IcmpError, Ip, Quoted, Received, Verdict};
use crate::link::Link;
use crate::packet::Packet;
use crate::seed::{Purpose, Seed};
use crate::stack::{Echo, Owner, Raw, Tcp, Udp};
use crate::tun::{TunEvent, Units};

/// Interfaces, routes, drivers and transports.
///
/// Time comes in with [`turn`](Self::turn). Events for the files above are taken out with
/// [`poll_event`](Self::poll_event), those of the transports with their own `poll_event`.
pub(crate) struct Net {
    pub(crate) ip: Ip,
    pub(crate) tun: Units,
    pub(crate) link: Link,
    pub(crate) tcp: Tcp,
    pub(crate) udp: Udp,
    pub(crate) echo: Echo,
    pub(crate) raw: Raw,
    /// Those who watch what interfaces drop.
    pub(crate) drops: drops::Watchers,
    /// The name server that somebody set.
    pub(crate) nameserver: Option<IpAddr>,
    events: VecDeque<Event>,
}

/// An event for the files above.
#[derive(Debug)]
pub(crate) enum Event {
    /// Something became possible on the file of a device or capture.
    Ready(FileId, Ready),
    /// A packet came to an echo or raw socket.
    Arrived(Owner),
    /// `SIGIO` is due.
    Signal(scheme::Signal),
    /// An interface is gone. Its captures may still hold packets to read.
    Detached(Box<Ifnet>),
}

impl Net {
    /// A network with `lo0` and nothing else. All randomness comes from `seed`.
    pub(crate) fn new(seed: &Seed) -> Self {
        let mut ip = Ip::new(seed);
        ip.attach_loopback();
        Self {
            ip,
            tun: Units::default(),
            link: Link::default(),
            tcp: Tcp::new(seed),
            udp: Udp::new(seed.tables(Purpose::UdpTables)),
            echo: Echo::default(),
            raw: Raw::default(),
            drops: drops::Watchers::default(),
            nameserver: None,
            events: VecDeque::new(),
        }
    }

    /// The address in `resolv/nameserver`: what somebody set, or else what a router advertised.
    pub(crate) fn nameserver(&self) -> Option<IpAddr> {
        self.nameserver.or_else(|| self.link.nameserver())
    }

    /// Handles packets and connections, as many as the budget allows, and timers that are due.
    pub(crate) fn turn(&mut self, budget: Budget) {
        let clocks = self.ip.now;
        let now = clocks.monotonic;
        let due = |deadline: Option<Duration>| deadline.is_some_and(|at| at <= now);
        if due(self.ip.ifs.release_deadline()) {
            self.ip.ifs.release(clocks);
        }
        self.handle_activity();
        self.netisr_run(budget);
        // Before a question whether it is there falls due.
        while let Some((dev, next_hop)) = self.tcp.poll_proven() {
            self.link.confirm(&mut self.ip, dev, next_hop);
        }
        // First, because the routes of a router end with its lifetime.
        if due(self.link.deadline()) {
            self.link.run(&mut self.ip);
        }
        while let Some(error) = self.ip.poll_notice() {
            self.notice(&error);
        }
        self.tcp.reroute(&self.ip);
        if self.tcp.has_work() || due(self.tcp.deadline()) {
            self.tcp.run(&mut self.ip, budget);
        }
        if due(self.ip.deadline()) {
            self.ip.netisr_expire();
        }
        self.handle_activity();
    }

    /// Advances time, and returns the monotonic one. A clock that goes back is held still.
    #[inline]
    pub(crate) fn set_now(&mut self, now: Now) -> Duration {
        let monotonic = self.ip.now.monotonic.max(now.monotonic);
        self.ip.now = Now { monotonic, ..now };
        monotonic
    }

    /// Whether a turn has packets, connections or events to handle.
    pub(crate) fn has_work(&self) -> bool {
        self.ip.has_work() || self.tcp.has_work() || self.udp.has_work()
    }

    /// Whether the rate of a send queue holds packets back, so that the next timer changes with every
    /// packet that is taken.
    #[inline]
    pub(crate) fn holds_packets(&self) -> bool {
        self.ip.ifs.release_deadline().is_some()
    }

    /// The time of the next timer; `None` if none is armed.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let packets = earlier(self.ip.deadline(), self.ip.ifs.release_deadline());
        earlier(packets, earlier(self.tcp.deadline(), self.link.deadline()))
    }

    /// Whether something happened at interfaces, or to files, that was not passed on yet.
    #[inline]
    pub(crate) fn has_news(&self) -> bool {
        // Without branches: it is asked several times a packet, and there is hardly ever any.
        self.ip.ifs.has_activity()
            | self.tun.has_events()
            | self.echo.has_events()
            | self.raw.has_events()
            | self.ip.has_registered_events()
            | !self.events.is_empty()
    }

    /// The next event for the files above.
    #[must_use]
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        if let Some(event) = self.tun.poll_event() {
            return Some(match event {
                TunEvent::Ready(file, ready) => Event::Ready(file, ready),
                TunEvent::Signal(owner) => Event::Signal(owner),
            });
        }
        if let Some(file) = self.ip.poll_registered() {
            return Some(Event::Ready(file, Ready::READ));
        }
        let arrived = self.echo.poll_event().or_else(|| self.raw.poll_event());
        arrived
            .map(Event::Arrived)
            .or_else(|| self.events.pop_front())
    }

    /// The next frame to send by an adapter, if there is one.
    #[must_use]
    pub(crate) fn poll_frame(&mut self, id: AdapterId) -> Option<Packet> {
        let frame = self.link.poll_frame(&mut self.ip, id);
        // Connections may have waited for the room that this made in the queue.
        self.handle_activity();
        frame
    }

    /// Takes received packets from the queue, and hands each to its receiver.
    fn netisr_run(&mut self, mut budget: Budget) {
        while let Some((received, receipt)) = self.ip.poll_received(&mut budget) {
            let verdict = self.deliver(received);
            self.ip.netisr_count(receipt, verdict);
        }
    }

    fn deliver(&mut self, received: Received) -> Verdict {
        let shown = self.raw.input(&received);
        match self.ip.dispatch(received, shown) {
            Delivery::Settled(verdict) => verdict,
            Delivery::Tcp(received) => self.tcp.input(&mut self.ip, received),
            Delivery::Udp(received) => self.udp.input(&mut self.ip, received),
            Delivery::EchoReply(received) => self.echo.input(&self.ip, &received),
            Delivery::Neighbour(received) => self.link.nd_input(&mut self.ip, &received),
            Delivery::Notice(error) => self.notice(&error),
            Delivery::Redirect(quoted, redirect) if self.knows(&quoted) => {
                self.ip.redirect(&redirect)
            }
            Delivery::Redirect(..) => Verdict::Dropped(DropReason::RedirectRefused),
        }
    }

    /// Whether a transport remembers that it sent a packet.
    fn knows(&self, quoted: &Quoted) -> bool {
        match quoted.protocol {
            proto::TCP => self.tcp.knows(&quoted.endpoints),
            proto::UDP => self.udp.knows(&quoted.endpoints),
            proto::ICMP | proto::ICMPV6 => self.echo.knows(&self.ip, quoted),
            _ => false,
        }
    }

    /// Passes an error about a packet of ours, from ICMP or a driver, to the transport that may
    /// have sent the packet.
    fn notice(&mut self, error: &IcmpError) -> Verdict {
        let &IcmpError {
            ref quoted,
            notice,
            said,
        } = error;
        let endpoints = &quoted.endpoints;
        let known = match (quoted.protocol, notice) {
            (proto::UDP, Notice::Narrow(_)) => self.udp.may_have_sent(endpoints),
            _ => self.knows(quoted),
        };
        if !known {
            return Verdict::Dropped(DropReason::NotWanted);
        }
        if let Notice::Narrow(mtu) = notice {
            let now = self.ip.now.monotonic;
            self.ip.path_mtus.learn(endpoints.remote.0, mtu, now);
        }
        match quoted.protocol {
            proto::TCP => self.tcp.notice(&self.ip, endpoints, notice),
            proto::UDP => self.udp.notice(endpoints, notice),
            proto::ICMP | proto::ICMPV6 => self.echo.notice(&self.ip, quoted, said),
            _ => {}
        }
        Verdict::Delivered
    }

    /// Passes on the activity of interfaces: to drivers, captures and connections.
    #[inline]
    pub(crate) fn handle_activity(&mut self) {
        if self.ip.ifs.has_activity() {
            self.tell_activity();
        }
    }

    fn tell_activity(&mut self) {
        while let Some((dev, activity)) = self.ip.ifs.poll_activity() {
            let ifp = self.ip.ifs.get(dev);
            let driver = ifp.map(|ifp| ifp.driver);
            if ifp.is_some_and(Ifnet::holds_back) {
                self.ip.ifs.watch_release(dev, self.ip.now);
            }
            match driver {
                Some(Driver::Tun(unit)) => self.tun.start(&self.ip, unit, activity),
                Some(Driver::Ethernet(adapter)) if activity.contains(Activity::QUEUED) => {
                    self.link.start(&mut self.ip, adapter);
                }
                _ => {}
            }
            if activity.contains(Activity::CAPTURED) {
                self.tell_captures(dev);
            }
            if activity.contains(Activity::ROOM) {
                self.tcp.unblock(&mut self.ip, dev);
            }
        }
        let wall = self.ip.now.wall;
        let events = &mut self.events;
        if self.ip.ifs.watches_drops() {
            let rose = |id: TapId| events.push_back(Event::Ready(FileId(id.0), Ready::READ));
            self.drops.collect(&mut self.ip, rose);
        }
        while let Some(mut ifp) = self.ip.ifs.poll_detached() {
            let rose = |id: TapId| events.push_back(Event::Ready(FileId(id.0), Ready::READ));
            self.drops.record(&mut ifp, wall, rose);
            self.tcp.unblock(&mut self.ip, ifp.index);
            events.push_back(Event::Detached(Box::new(ifp)));
        }
    }

    fn tell_captures(&mut self, dev: IfIndex) {
        let taps = self.ip.ifs.get_mut(dev).map(|ifp| &mut ifp.taps);
        for tap in taps.into_iter().flatten() {
            if std::mem::take(&mut tap.rose) {
                let event = Event::Ready(FileId(tap.id.0), Ready::READ);
                self.events.push_back(event);
            }
        }
    }
}

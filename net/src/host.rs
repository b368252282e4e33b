//! One machine's network as a tree of files.

use std::collections::VecDeque;
use std::time::Duration;

use scheme::errno::{self, Errno};
use scheme::wait::Direction;
use scheme::{
    Argument, Caller, DirEntry, FileId, FileKind, FileServer, Now, OpenFlags, Outcome, Processes,
    Ready, Signal, Stat, Turn, Wakeup, earlier,
};

use crate::bpf::{self, drops};
use crate::files::{Files, Held, Wakes};
use crate::ifnet::{AdapterId, Ifnet, TapId};
use crate::ip::Budget;
use crate::link::{Found, Lost, Mac};
use crate::net::{Event, Net};
use crate::netcfg;
use crate::netisr;
use crate::packet::Packet;
use crate::seed::Seed;
use crate::serve::{Servers, Service, Services};
use crate::socket::inet::{self, Context, Derived, InetSockets, Socket, Transport};
use crate::socket::option_file::{self, Value};
use crate::socket::{self, echo, raw};
use crate::stack::{EchoId, Owner, RawId, TcpEvent, UdpEvent};
use crate::tun;

/// The schemes served, in the order in which they are listed.
pub const SCHEMES: [&str; 8] = ["tun", "netcfg", "bpf", "tcp", "udp", "icmp", "ip", "netisr"];

/// The configuration of a [`Host`].
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The seed of all randomness: sequence numbers, ports, identifiers, hash tables. Two hosts
    /// with the same seed and the same input behave the same, bit for bit.
    pub seed: Seed,
    /// The small services to run.
    pub services: Services,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: Seed::default(),
            services: Services::empty(),
        }
    }
}

/// One machine: its network, and the files of `tun`, `netcfg`, `bpf`, `tcp`, `udp`, `icmp`, `ip` and
/// `netisr`.
///
/// It is driven through [`FileServer`]; a program that has network cards also uses
/// [`attach_ethernet`](Self::attach_ethernet) and its companions. It reads no clock, no descriptor,
/// no environment and no randomness.
///
/// ```
/// use net::{Config, Host};
/// use scheme::local::{Local, OneSession};
/// use scheme::OpenFlags;
///
/// let host = Local::new(Host::new(Config::default(), OneSession));
/// let root = host.process(1, 0);
/// let both = OpenFlags::READ | OpenFlags::WRITE;
/// let tun = root.open("tun/0", both)?;
/// let addr = root.open("netcfg/ifaces/tun0/addr/set", OpenFlags::WRITE)?;
/// root.write(addr, b"10.0.0.1/24\n")?;
/// assert!(root.path(tun)?.ends_with("tun/0"));
/// # Ok::<(), scheme::Errno>(())
/// ```
pub struct Host {
    net: Net,
    processes: Box<dyn Processes + Send>,
    files: Files<File>,
    wakes: Wakes,
    signals: VecDeque<Signal>,
    inet: InetSockets,
    servers: Servers,
    watchers: netcfg::Watchers,
    events: netcfg::Events,
    keeper: netcfg::Keeper,
    /// The result of the last turn, as long as nothing has happened since that could change it.
    /// Most turns have nothing to do, and this spares them the search for work.
    idle: Option<Turn>,
}

/// An open file, by its kind.
enum File {
    Directory(String),
    Tun(tun::Handle),
    TunPgrp(tun::PgrpHandle),
    Text(netcfg::Handle),
    Lookup(netcfg::Lookup),
    /// The events of an interface, at this path.
    Events(String),
    Sockets(netcfg::Listing),
    Bpf(bpf::Handle),
    Drops(TapId),
    Netisr(netisr::Handle),
    Echo(EchoId),
    Raw(RawId),
    Inet(Box<Socket>),
    /// An option of the socket of another file.
    Option(Held, option_file::Name),
}

const DIRECTORY: Stat = Stat {
    kind: FileKind::Directory,
    mode: 0o555,
    size: 0,
};

impl Host {
    /// A machine with `lo0` and nothing else.
    pub fn new(config: Config, processes: impl Processes + Send + 'static) -> Self {
        let mut net = Net::new(&config.seed);
        Servers::start(&mut net, config.services);
        Self {
            net,
            processes: Box::new(processes),
            files: Files::new(),
            wakes: Wakes::default(),
            signals: VecDeque::new(),
            inet: InetSockets::default(),
            servers: Servers::default(),
            watchers: netcfg::Watchers::default(),
            events: netcfg::Events::default(),
            keeper: netcfg::Keeper::default(),
            idle: None,
        }
    }

    /// The interface with this name.
    pub fn interface(&self, name: &str) -> Option<&Ifnet> {
        let ifs = &self.net.ip.ifs;
        ifs.get(ifs.by_name(name)?)
    }

    /// Every interface.
    pub fn interfaces(&self) -> impl Iterator<Item = &Ifnet> {
        self.net.ip.ifs.iter()
    }

    /// Makes `ethN`, with the lowest free number, on an adapter with this address. It is up at
    /// once, so that a program can ask the network for an address; unless the
    /// [restored](Self::restore) state says otherwise.
    pub fn attach_ethernet(&mut self, mac: Mac) -> Option<AdapterId> {
        self.schedule();
        let id = self.net.link.attach_ethernet(&mut self.net.ip, mac)?;
        if let Some(name) = self.ethernet_name(id).map(str::to_owned) {
            self.keeper.attached(&mut self.net, &name);
        }
        Some(id)
    }

    /// Sets everything that programs had set on another host, from the text that its
    /// [`poll_state`](FileServer::poll_state) returned. It is called before the host is served.
    ///
    /// Any text will do: a line that is not understood, or is refused, is logged and left out.
    /// What it says of an adapter is set when that is [attached](Self::attach_ethernet).
    pub fn restore(&mut self, state: &[u8]) {
        self.schedule();
        self.keeper.restore(&mut self.net, state);
    }

    /// Removes an adapter that is gone for good, and its interface.
    pub fn detach_ethernet(&mut self, id: AdapterId) {
        self.schedule();
        self.net.link.detach_ethernet(&mut self.net.ip, id);
    }

    /// Notes that the driver of an adapter ended. The interface stays, with all its settings, but
    /// is not RUNNING: packets sent through it are lost until the adapter is [found
    /// again](Self::ethernet_found).
    pub fn ethernet_lost(&mut self, id: AdapterId) {
        self.schedule();
        self.net.link.ethernet_lost(&mut self.net.ip, id);
    }

    /// Notes that the adapter is there again, maybe with another hardware address. The interface
    /// keeps its addresses, routes, groups and UP flag.
    pub fn ethernet_found(&mut self, id: AdapterId, mac: Mac) {
        self.schedule();
        self.net.link.ethernet_found(&mut self.net.ip, id, mac);
    }

    /// The name of an adapter's interface.
    pub fn ethernet_name(&self, id: AdapterId) -> Option<&str> {
        let dev = self.net.link.interface(id)?;
        Some(&self.net.ip.ifs.get(dev)?.name)
    }

    /// Handles a received frame, without its check sequence.
    pub fn handle_frame(&mut self, id: AdapterId, frame: &[u8]) {
        self.schedule();
        self.net.link.handle_frame(&mut self.net.ip, id, frame);
    }

    /// The next frame to send, if there is one.
    #[must_use]
    pub fn poll_frame(&mut self, id: AdapterId) -> Option<Packet> {
        let frame = self.net.poll_frame(id);
        // That there is none says nothing new: a turn for it would be followed by this question again.
        if frame.is_some() || self.net.has_work() {
            self.counted();
        }
        // The neighbour may be asked for only now, and asked again earlier than anything else is due.
        let asks = self.net.link.next_question(id);
        if let Some(Turn { deadline, .. }) = self.idle
            && earlier(asks, deadline) != deadline
        {
            self.schedule();
        }
        frame
    }

    /// The monotonic time of the last turn.
    pub fn now(&self) -> Duration {
        self.net.ip.now.monotonic
    }

    /// Looks for adapters soon: one may have come.
    pub fn ask_for_adapters(&mut self) {
        self.schedule();
        self.net.link.ask_for_adapters(&self.net.ip);
    }

    /// Counts frames that the driver of an adapter lost, of those that it was given to send and of
    /// those that came.
    pub fn frames_lost(&mut self, id: AdapterId, lost: Lost) {
        self.net.link.frames_lost(&mut self.net.ip, id, lost);
        self.counted();
    }

    /// Notes the longest packet that an adapter carries, bytes, or that this is not known. The mtu
    /// of its interface is as much of what somebody set as fits.
    pub fn ethernet_mtu(&mut self, id: AdapterId, most: Option<u16>) {
        self.schedule();
        self.net.link.ethernet_mtu(&mut self.net.ip, id, most);
    }

    /// Notes how many frames an adapter has room for until they are received, if that is few. It counts
    /// for connections that begin from now on.
    pub fn ethernet_rx_ring(&mut self, id: AdapterId, frames: Option<u16>) {
        self.net.link.ethernet_rx_ring(&mut self.net.ip, id, frames);
    }

    /// Whether to look for adapters now. A program that has adapters asks after every turn, and
    /// [says](Self::adapters_searched) when it has looked.
    pub fn wants_adapters(&self) -> bool {
        self.net.link.wants_adapters(&self.net.ip)
    }

    /// The program has looked for adapters.
    pub fn adapters_searched(&mut self, found: Found) {
        self.schedule();
        self.net.link.adapters_searched(&self.net.ip, found);
    }

    /// Whether something has happened since the last turn that needs another: there are packets,
    /// connections or events to handle, or a timer may be due earlier.
    pub fn needs_turn(&self) -> bool {
        self.idle.is_none()
    }

    /// `schednetisr`: makes the next turn look for work.
    fn schedule(&mut self) {
        self.idle = None;
        self.tell_events();
    }

    /// Tells those that wait for it what has changed at interfaces since it was last called.
    #[inline]
    fn tell_events(&mut self) {
        self.events.run(&self.net.ip, &mut self.wakes);
    }

    /// Notes that counters changed outside of a turn, and that connections may have room to send.
    fn counted(&mut self) {
        if self.watchers.counted() || self.net.has_work() || self.net.holds_packets() {
            self.schedule();
        }
    }

    /// Collects the events of the network.
    #[inline]
    fn collect(&mut self) {
        if self.net.has_news() {
            self.collect_news();
        }
    }

    fn collect_news(&mut self) {
        self.net.handle_activity();
        while let Some(event) = self.net.poll_event() {
            match event {
                Event::Ready(file, ready) => self.wakes.wake(file, ready),
                Event::Arrived(Owner(file)) => self.wakes.wake(FileId(file), Ready::READ),
                // A signal is a flag: sending it twice is the same as sending it once.
                Event::Signal(signal) if self.signals.contains(&signal) => {}
                Event::Signal(signal) => self.signals.push_back(signal),
                Event::Detached(ifp) => {
                    self.inet.detach(ifp.index);
                    for tap in ifp.taps {
                        let file = FileId(tap.id.0);
                        if let Ok(File::Bpf(handle)) = self.files.get_mut(file) {
                            handle.detached(tap.capture);
                        }
                        // Readers get what is left, and then ENXIO.
                        self.wakes.wake(file, Ready::all());
                    }
                    self.net.ip.ifs.free_number(ifp.index);
                }
            }
        }
    }

    /// Passes events to the owners of sockets, as many as the budget allows.
    fn tell_sockets(&mut self, mut budget: Budget) {
        let net = &mut self.net;
        while budget.take() {
            if let Some(event) = net.tcp.poll_event() {
                let (TcpEvent::Acceptable(_, owner) | TcpEvent::Changed(_, owner)) = event;
                match (Service::of(owner), event) {
                    (Some(_), TcpEvent::Acceptable(listener, _)) => Servers::accept(net, listener),
                    (Some(service), TcpEvent::Changed(flow, _)) => {
                        self.servers.serve_flow(net, flow, service);
                    }
                    (None, _) => self.wakes.wake(FileId(owner.0), Ready::all()),
                }
            } else if let Some(UdpEvent { socket, owner }) = net.udp.poll_event() {
                match Service::of(owner) {
                    Some(service) => self.servers.serve_socket(net, socket, service),
                    None => {
                        for file in self.inet.holders(socket) {
                            self.wakes.wake(file, Ready::READ);
                        }
                    }
                }
            } else {
                return;
            }
        }
    }

    fn stat_path(&self, path: &str) -> Result<Stat, Errno> {
        // Only directories may have a trailing slash.
        if let Some(path) = path.strip_suffix('/') {
            let stat = self.stat_exact(path)?;
            return match stat.kind {
                FileKind::Directory if !path.ends_with('/') => Ok(stat),
                _ => Err(errno::ENOENT),
            };
        }
        self.stat_exact(path)
    }

    fn stat_exact(&self, path: &str) -> Result<Stat, Errno> {
        match split(path) {
            ("", "") => Ok(DIRECTORY),
            (scheme, "") if SCHEMES.contains(&scheme) => Ok(DIRECTORY),
            ("tun", rest) => tun::stat(rest),
            ("bpf", rest) => bpf::stat(&self.net.ip, rest),
            ("netisr", rest) => netisr::stat(rest),
            ("netcfg", rest) => {
                let stat = netcfg::stat_path(&self.net, rest)?;
                Ok(stat.unwrap_or(DIRECTORY))
            }
            ("icmp", rest) => Ok(echo::stat(rest)?.unwrap_or(DIRECTORY)),
            ("tcp", rest) => Ok(Transport::Tcp.stat(rest)?.unwrap_or(DIRECTORY)),
            ("udp", rest) => Ok(Transport::Udp.stat(rest)?.unwrap_or(DIRECTORY)),
            ("ip", rest) => raw::stat(rest),
            _ => Err(errno::ENOENT),
        }
    }

    fn list_path(&self, path: &str) -> Result<Vec<DirEntry>, Errno> {
        let directory = |name: &str| DirEntry {
            name: name.to_owned(),
            kind: FileKind::Directory,
        };
        match split(path) {
            ("", "") => Ok(SCHEMES.into_iter().map(directory).collect()),
            ("tun", "") => Ok(self.net.tun.list()),
            ("bpf", "") => Ok(bpf::list(&self.net.ip)),
            ("netisr", "") => Ok(netisr::list()),
            ("udp", "") => Ok(vec![directory(inet::BIND)]),
            ("tcp" | "icmp" | "ip", "")
            | ("icmp", echo::ECHO | echo::PING)
            | ("udp", inet::BIND) => Ok(Vec::new()),
            ("netcfg", rest) => netcfg::list(&self.net, rest),
            _ => Err(errno::ENOTDIR),
        }
    }

    fn open_file(
        &mut self,
        path: &str,
        flags: OpenFlags,
        caller: Caller,
        id: FileId,
    ) -> Result<File, Errno> {
        let transport = match split(path).0 {
            "tcp" => Some(Transport::Tcp),
            "udp" => Some(Transport::Udp),
            _ => None,
        };
        // The scheme without a path is a socket without a name.
        if let (Some(transport), "") = (transport, split(path).1)
            && !flags.contains(OpenFlags::DIRECTORY)
            && flags.contains(OpenFlags::WRITE)
        {
            return self.open_socket(transport, "", caller, id);
        }
        let stat = self.stat(path)?;
        if stat.kind == FileKind::Directory {
            if flags.contains(OpenFlags::WRITE) {
                return Err(errno::EISDIR);
            }
            let path = path.strip_suffix('/').unwrap_or(path).to_owned();
            return Ok(File::Directory(path));
        }
        if flags.contains(OpenFlags::DIRECTORY) {
            return Err(errno::ENOTDIR);
        }
        let Self {
            net,
            processes,
            events,
            ..
        } = self;
        let rest = split(path).1;
        match (split(path).0, transport) {
            ("tun", _) => {
                let tun = &mut net.tun;
                tun.open(&mut net.ip, rest, caller, id, &**processes)
                    .map(File::Tun)
            }
            ("bpf", _) if rest == drops::NAME => {
                let opened = net.drops.open(&mut net.ip, caller, TapId(id.0));
                opened.map(File::Drops)
            }
            ("bpf", _) => bpf::open(&mut net.ip, rest, caller, TapId(id.0)).map(File::Bpf),
            ("netisr", _) => {
                netisr::open(&mut net.ip, rest, caller, id, &**processes).map(File::Netisr)
            }
            ("netcfg", _) if rest == netcfg::SOCKETS => {
                netcfg::open_sockets(flags, caller).map(File::Sockets)
            }
            ("netcfg", _) => Ok(match netcfg::open(net, rest, flags, caller)? {
                netcfg::Opened::Text(handle) => File::Text(handle),
                netcfg::Opened::Lookup(lookup) => File::Lookup(lookup),
                netcfg::Opened::Events(dev) => {
                    events.open(&net.ip, dev, id, caller.uid);
                    File::Events(path.to_owned())
                }
            }),
            ("icmp", _) => echo::open(net, rest, caller, id).map(File::Echo),
            ("ip", _) => raw::open(net, rest, caller, id).map(File::Raw),
            (_, Some(transport)) => self.open_socket(transport, rest, caller, id),
            _ => Err(errno::ENOENT),
        }
    }

    fn open_socket(
        &mut self,
        transport: Transport,
        path: &str,
        caller: Caller,
        id: FileId,
    ) -> Result<File, Errno> {
        let mut cx = Context::new(&mut self.net, &mut self.inet, &mut self.wakes, id);
        let socket = Socket::open(&mut cx, transport, path, caller)?;
        Ok(File::Inet(Box::new(socket)))
    }

    fn dup_file(
        &mut self,
        id: FileId,
        verb: &[u8],
        nonblocking: bool,
        caller: Caller,
        new: FileId,
    ) -> Outcome<File> {
        let held = match self.files.hold(id) {
            Ok(held) => held,
            Err(error) => return error.into(),
        };
        let Self {
            net,
            processes,
            files,
            wakes,
            inet,
            ..
        } = self;
        match files.get_mut(id) {
            Ok(File::Inet(socket)) => {
                let mut cx = Context::new(net, inet, wakes, id);
                match socket.dup(&mut cx, verb, nonblocking, new) {
                    Outcome::Done(Ok(Derived::Socket(socket))) => {
                        Outcome::Done(Ok(File::Inet(socket)))
                    }
                    Outcome::Done(Ok(Derived::Option(name))) => {
                        Outcome::Done(Ok(File::Option(held, name)))
                    }
                    Outcome::Done(Err(error)) => error.into(),
                    Outcome::Wait => Outcome::Wait,
                }
            }
            Ok(File::Tun(handle)) => {
                let tun = &mut net.tun;
                let pgrp = tun.dup(&mut net.ip, handle, verb, caller, &**processes);
                pgrp.map(File::TunPgrp).into()
            }
            Ok(File::Echo(_)) => echo::dup(verb).map(|name| File::Option(held, name)).into(),
            Ok(_) => errno::EINVAL.into(),
            Err(error) => error.into(),
        }
    }

    /// Whether a connection that was just begun has failed already. It has if it is to an address of
    /// this host where nobody listens: the packets go round at once.
    fn is_refused_here(&mut self, id: FileId) -> bool {
        let Self { net, files, .. } = self;
        let Ok(File::Inet(socket)) = files.get(id) else {
            return false;
        };
        if !socket.connects_here(net) {
            return false;
        }
        // One turn sends the request, the next hands round that and its answer.
        for _ in 0..2 {
            net.turn(Budget::TURN);
        }
        socket.has_failed(net)
    }

    fn read_file(
        &mut self,
        id: FileId,
        buf: &mut [u8],
        offset: u64,
        caller: Caller,
    ) -> Outcome<usize> {
        self.tell_events();
        let Self {
            net,
            processes,
            files,
            watchers,
            events,
            ..
        } = self;
        let file = match files.get_mut(id) {
            Ok(file) => file,
            Err(error) => return error.into(),
        };
        match file {
            File::Tun(handle) => {
                let tun = &mut net.tun;
                let outcome = tun.read(&mut net.ip, handle, buf, caller, &**processes);
                // Connections may have waited for room in the queue.
                net.handle_activity();
                if net.tcp.has_work() || net.holds_packets() {
                    self.schedule();
                }
                outcome
            }
            File::TunPgrp(handle) => net.tun.pgrp_read(*handle, buf, &**processes).into(),
            File::Text(handle) => handle.read(net, watchers, id, buf, offset).into(),
            File::Lookup(lookup) => Outcome::Done(Ok(lookup.read(buf))),
            File::Events(_) => events.read(id, buf),
            File::Sockets(_) => self.read_sockets(id, buf, offset).into(),
            File::Bpf(handle) => handle.read(&mut net.ip, buf),
            &mut File::Drops(id) => net.drops.read(id, buf),
            File::Netisr(handle) => handle.read(&mut net.ip, buf, caller, &**processes),
            &mut File::Echo(echo) => echo::read(net, echo, buf),
            &mut File::Raw(raw) => raw::read(net, raw, buf),
            File::Inet(socket) => {
                let outcome = socket.read(net, buf);
                if net.tcp.has_work() {
                    self.schedule();
                }
                outcome
            }
            &mut File::Option(held, name) => self.read_option(held, name, buf).into(),
            File::Directory(_) => errno::EISDIR.into(),
        }
    }

    fn read_sockets(&mut self, id: FileId, buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
        let File::Sockets(listing) = self.files.get_mut(id)? else {
            return Err(errno::EBADF);
        };
        // It asks for the openers of other files, and so is taken out of theirs.
        let mut listing = std::mem::take(listing);
        let opener = |Owner(file): Owner| self.files.opener(FileId(file));
        let read = listing.read(&self.net, opener, buf, offset);
        if let File::Sockets(place) = self.files.get_mut(id)? {
            *place = listing;
        }
        read
    }

    /// Tells the programs that watch a file again if its reader left something: those that are told
    /// of edges read once for each.
    fn tell_rest(&mut self, id: FileId) {
        if let Ok(File::Tun(handle)) = self.files.get(id) {
            if self
                .net
                .tun
                .ready(&self.net.ip, handle)
                .contains(Ready::READ)
            {
                self.wakes.wake(id, Ready::READ);
            }
            return;
        }
        let has_queue = matches!(
            self.files.get(id),
            Ok(File::Events(_)
                | File::Bpf(_)
                | File::Drops(_)
                | File::Netisr(_)
                | File::Echo(_)
                | File::Raw(_)
                | File::Inet(_))
        );
        if has_queue && self.ready(id).contains(Ready::READ) {
            self.wakes.wake(id, Ready::READ);
        }
    }

    fn read_option(
        &mut self,
        held: Held,
        name: option_file::Name,
        buf: &mut [u8],
    ) -> Result<usize, Errno> {
        let (_, file) = self.files.held(held)?;
        match (name, file) {
            (option_file::Name::Timeout(direction), File::Inet(socket)) => {
                option_file::write_timeout(buf, socket.timeout(direction))
            }
            (option_file::Name::HopLimit, File::Inet(socket)) => {
                option_file::write_hop_limit(buf, socket.hop_limit())
            }
            (option_file::Name::HopLimit, File::Echo(id)) => {
                let hops = self.net.echo.hop_limit(*id).ok_or(errno::EBADF)?;
                option_file::write_hop_limit(buf, hops)
            }
            _ => Err(errno::EBADF),
        }
    }

    fn write_option(
        &mut self,
        held: Held,
        name: option_file::Name,
        buf: &[u8],
    ) -> Result<usize, Errno> {
        let (value, len) = name.parse_value(buf)?;
        let (_, file) = self.files.held(held)?;
        match (value, file) {
            (Value::Timeout(direction, timeout), File::Inet(socket)) => {
                socket.set_timeout(direction, timeout);
            }
            (Value::HopLimit(hops), File::Inet(socket)) => {
                socket.set_hop_limit(&mut self.net, hops);
            }
            (Value::HopLimit(hops), File::Echo(id)) => self.net.echo.set_hop_limit(*id, hops),
            _ => return Err(errno::EBADF),
        }
        Ok(len)
    }
}

/// Splits `scheme/rest`.
fn split(path: &str) -> (&str, &str) {
    path.split_once('/').unwrap_or((path, ""))
}

impl FileServer for Host {
    fn turn(&mut self, now: Now) -> Turn {
        let monotonic = self.net.set_now(now);
        if let Some(turn) = self.idle
            && turn.deadline.is_none_or(|deadline| monotonic < deadline)
        {
            return turn;
        }
        self.net.turn(Budget::TURN);
        if self.net.has_work() {
            self.tell_sockets(Budget::TURN);
            self.net.handle_activity();
        }
        let Self {
            net,
            wakes,
            watchers,
            events,
            keeper,
            ..
        } = self;
        events.run(&net.ip, wakes);
        watchers.run(net, wakes);
        // Each of these steps may have left work for the ones before it.
        let pending = net.has_work();
        let files = earlier(watchers.deadline(), keeper.deadline(net));
        let turn = Turn {
            pending,
            deadline: earlier(net.deadline(), files),
        };
        self.idle = (!pending).then_some(turn);
        turn
    }

    fn poll_wakeup(&mut self) -> Option<Wakeup> {
        self.tell_events();
        self.collect();
        self.wakes.poll()
    }

    fn poll_state(&mut self) -> Option<String> {
        self.keeper.poll(&self.net)
    }

    fn poll_signal(&mut self) -> Option<Signal> {
        self.collect();
        self.signals.pop_front()
    }

    fn stat(&mut self, path: &str) -> Result<Stat, Errno> {
        let stat = self.stat_path(path);
        let below = path.strip_prefix("netcfg/ifaces");
        if below.is_some_and(|below| matches!(below, "" | "/") || stat.is_err()) {
            // A program that lists interfaces may be waiting for one that is not there yet. It may
            // never open one, so the listing is all we see of it.
            self.ask_for_adapters();
        }
        stat
    }

    fn open(&mut self, path: &str, flags: OpenFlags, caller: Caller) -> Result<FileId, Errno> {
        self.schedule();
        let id = self.files.next_id(caller.uid)?;
        let file = self.open_file(path, flags, caller, id)?;
        Ok(self.files.insert(file, caller))
    }

    fn dup(
        &mut self,
        id: FileId,
        verb: &[u8],
        nonblocking: bool,
        caller: Caller,
    ) -> Outcome<FileId> {
        self.schedule();
        let new = match self.files.next_id(caller.uid) {
            Ok(new) => new,
            Err(error) => return error.into(),
        };
        let mut made = self.dup_file(id, verb, nonblocking, caller, new);
        if matches!(made, Outcome::Done(Err(errno::EINPROGRESS))) && self.is_refused_here(id) {
            made = self.dup_file(id, verb, nonblocking, caller, new);
        }
        match made {
            Outcome::Done(Ok(file)) => {
                // An accept takes from a queue, as a read does.
                if inet::dup_direction(verb) == Direction::Read {
                    self.tell_rest(id);
                }
                Outcome::Done(Ok(self.files.insert(file, caller)))
            }
            Outcome::Done(Err(error)) => error.into(),
            Outcome::Wait => Outcome::Wait,
        }
    }

    fn read(&mut self, id: FileId, buf: &mut [u8], offset: u64, caller: Caller) -> Outcome<usize> {
        let outcome = self.read_file(id, buf, offset, caller);
        if matches!(outcome, Outcome::Done(Ok(1..))) {
            self.tell_rest(id);
        }
        outcome
    }

    /// Those of packets that nobody else gets, and that come back if they were not delivered.
    fn looks_at_waiters(&self, id: FileId) -> bool {
        matches!(self.files.get(id), Ok(File::Tun(_) | File::Netisr(_)))
    }

    fn complete_read(&mut self, id: FileId, delivered: bool) {
        let Self { net, files, .. } = self;
        match files.get(id) {
            Ok(File::Tun(handle)) => {
                net.tun.complete(&mut net.ip, handle, delivered);
                if !delivered {
                    net.handle_activity();
                }
            }
            Ok(File::Netisr(handle)) => handle.complete(&mut net.ip, delivered),
            _ => {}
        }
        self.counted();
    }

    fn write(&mut self, id: FileId, buf: &[u8], offset: u64, caller: Caller) -> Outcome<usize> {
        self.schedule();
        let Self {
            net,
            processes,
            files,
            wakes,
            inet,
            watchers,
            ..
        } = self;
        let file = match files.get_mut(id) {
            Ok(file) => file,
            Err(error) => return error.into(),
        };
        match file {
            File::Tun(handle) => {
                let tun = &mut net.tun;
                tun.write(&mut net.ip, handle, buf, caller, &**processes)
                    .into()
            }
            File::TunPgrp(handle) => net
                .tun
                .pgrp_write(*handle, buf, caller, &**processes)
                .into(),
            File::Text(handle) => handle.write(net, watchers, buf, offset).into(),
            File::Lookup(lookup) => lookup.write(net, buf).into(),
            File::Events(_) | File::Sockets(_) | File::Drops(_) => errno::EBADF.into(),
            File::Bpf(handle) => handle.write(&mut net.ip, buf).into(),
            File::Netisr(handle) => handle.write(&mut net.ip, buf, caller, &**processes).into(),
            &mut File::Echo(echo) => echo::write(net, echo, buf).into(),
            &mut File::Raw(raw) => raw::write(net, raw, buf).into(),
            File::Inet(socket) => {
                let mut cx = Context::new(net, inet, wakes, id);
                socket.write(&mut cx, buf)
            }
            &mut File::Option(held, name) => self.write_option(held, name, buf).into(),
            File::Directory(_) => errno::EISDIR.into(),
        }
    }

    fn ioctl(
        &mut self,
        id: FileId,
        request: u32,
        arg: Argument<'_>,
        caller: Caller,
    ) -> Result<(), Errno> {
        self.schedule();
        let Self {
            net,
            processes,
            files,
            wakes,
            inet,
            ..
        } = self;
        match files.get_mut(id)? {
            File::Tun(handle) => {
                let tun = &mut net.tun;
                tun.ioctl(&mut net.ip, handle, request, arg, caller, &**processes)
            }
            File::Inet(socket) => {
                let mut cx = Context::new(net, inet, wakes, id);
                socket.ioctl(&mut cx, request.into(), arg)
            }
            File::Bpf(handle) => handle.ioctl(&mut net.ip, request, arg),
            &mut File::Drops(id) => net.drops.ioctl(id, request, arg),
            _ => Err(errno::ENOTTY),
        }
    }

    fn call(
        &mut self,
        id: FileId,
        payload: &mut [u8],
        metadata: &[u64],
        caller: Caller,
    ) -> Outcome<usize> {
        self.tell_events();
        let Self {
            net,
            processes,
            files,
            wakes,
            inet,
            idle,
            ..
        } = self;
        match files.get_mut(id) {
            Ok(File::Tun(handle)) => {
                *idle = None;
                let tun = &mut net.tun;
                tun.call(&mut net.ip, handle, payload, metadata, caller, &**processes)
                    .into()
            }
            Ok(File::Inet(socket)) => {
                if Socket::changes(metadata) {
                    *idle = None;
                }
                let mut cx = Context::new(net, inet, wakes, id);
                if let Some(request) = inet::request(metadata) {
                    let arg = Argument::new(payload);
                    let done = socket.ioctl(&mut cx, request, arg);
                    return done.map(|()| 0).into();
                }
                let outcome = socket.call(&mut cx, payload, metadata);
                if net.tcp.has_work() {
                    *idle = None;
                }
                if Socket::takes(metadata) && matches!(outcome, Outcome::Done(Ok(_))) {
                    self.tell_rest(id);
                }
                outcome
            }
            Ok(file @ (File::Bpf(_) | File::Drops(_))) => {
                *idle = None;
                let request = metadata.first().copied().unwrap_or_default();
                let Ok(request) = u32::try_from(request) else {
                    return errno::ENOTTY.into();
                };
                let arg = Argument::new(payload);
                let done = match file {
                    File::Bpf(handle) => handle.ioctl(&mut net.ip, request, arg),
                    File::Drops(id) => net.drops.ioctl(*id, request, arg),
                    _ => Err(errno::ENOTTY),
                };
                done.map(|()| 0).into()
            }
            Ok(_) => errno::EOPNOTSUPP.into(),
            Err(error) => error.into(),
        }
    }

    fn timeout(&self, id: FileId, direction: Direction) -> Option<Duration> {
        match self.files.get(id) {
            Ok(File::Inet(socket)) => socket.timeout(direction),
            _ => None,
        }
    }

    fn dup_direction(&self, verb: &[u8]) -> Direction {
        inet::dup_direction(verb)
    }

    fn call_direction(&self, metadata: &[u64]) -> Direction {
        inet::call_direction(metadata)
    }

    fn set_async(&mut self, id: FileId, on: bool) -> Result<(), Errno> {
        match self.files.get(id)? {
            File::Tun(handle) => self.net.tun.set_async(&mut self.net.ip, handle, on),
            _ => Ok(()),
        }
    }

    fn sync(&mut self, id: FileId) -> Result<(), Errno> {
        self.schedule();
        match self.files.get_mut(id)? {
            File::Text(handle) => handle.sync(&mut self.net, &mut self.watchers),
            _ => Ok(()),
        }
    }

    fn fstat(&mut self, id: FileId) -> Result<Stat, Errno> {
        match self.files.get(id)? {
            File::Directory(_) => Ok(DIRECTORY),
            File::Tun(_) | File::TunPgrp(_) => Ok(tun::DEVICE),
            File::Bpf(_) => Ok(bpf::DEVICE),
            File::Drops(_) => Ok(drops::DEVICE),
            File::Netisr(_) => Ok(netisr::DEVICE),
            File::Text(handle) => Ok(handle.stat()),
            File::Lookup(_) => Ok(netcfg::LOOKUP),
            File::Events(_) => Ok(netcfg::EVENTS),
            File::Sockets(_) => Ok(netcfg::READ_ONLY),
            File::Echo(_) | File::Raw(_) | File::Inet(_) | File::Option(..) => Ok(socket::SOCKET),
        }
    }

    fn list(&mut self, id: FileId) -> Result<Vec<DirEntry>, Errno> {
        match self.files.get(id)? {
            File::Directory(path) => self.list_path(path),
            _ => Err(errno::ENOTDIR),
        }
    }

    fn path(&self, id: FileId) -> Result<String, Errno> {
        let net = &self.net;
        match self.files.get(id)? {
            File::Directory(path) => Ok(path.clone()),
            File::Tun(handle) => Ok(handle.path()),
            File::TunPgrp(_) => Ok("tun".to_owned()),
            File::Text(handle) => Ok(handle.path()),
            File::Lookup(_) => Ok("netcfg/route/lookup".to_owned()),
            File::Events(path) => Ok(path.clone()),
            File::Sockets(_) => Ok(format!("netcfg/{}", netcfg::SOCKETS)),
            File::Bpf(handle) => Ok(handle.path()),
            File::Drops(_) => Ok(format!("bpf/{}", drops::NAME)),
            File::Netisr(handle) => Ok(handle.path()),
            &File::Echo(echo) => Ok(echo::path(net, echo)),
            &File::Raw(raw) => Ok(raw::path(net, raw)),
            File::Inet(socket) => Ok(socket.path(net)),
            File::Option(..) => Err(errno::EBADF),
        }
    }

    fn ready(&mut self, id: FileId) -> Ready {
        self.tell_events();
        let Self {
            net,
            files,
            watchers,
            events,
            idle,
            ..
        } = self;
        match files.get_mut(id) {
            Ok(File::Tun(handle)) => net.tun.ready(&net.ip, handle),
            Ok(File::Text(handle)) => {
                *idle = None;
                handle.ready(net, watchers, id)
            }
            Ok(File::Events(_)) => events.ready(id),
            Ok(File::Bpf(handle)) => handle.ready(&mut net.ip),
            Ok(&mut File::Drops(id)) => net.drops.ready(id),
            Ok(File::Netisr(handle)) => handle.ready(&mut net.ip),
            Ok(&mut File::Echo(echo)) => echo::ready(net, echo),
            Ok(&mut File::Raw(raw)) => raw::ready(net, raw),
            Ok(File::Inet(socket)) => socket.ready(net),
            Ok(
                File::Directory(_)
                | File::Lookup(_)
                | File::TunPgrp(_)
                | File::Option(..)
                | File::Sockets(_),
            ) => Ready::all(),
            Err(_) => Ready::empty(),
        }
    }

    fn close(&mut self, id: FileId) {
        self.schedule();
        // Events of the file are collected before another file gets its number.
        self.collect();
        let Self {
            net,
            files,
            wakes,
            inet,
            watchers,
            events,
            ..
        } = self;
        match files.get_mut(id) {
            Ok(File::Tun(handle)) => net.tun.close(&mut net.ip, handle),
            Ok(File::Text(handle)) => handle.close(net, watchers, id),
            Ok(File::Events(_)) => events.close(id),
            Ok(File::Bpf(handle)) => handle.close(&mut net.ip),
            Ok(&mut File::Drops(id)) => net.drops.close(&mut net.ip, id),
            Ok(File::Netisr(handle)) => handle.close(&mut net.ip),
            Ok(&mut File::Echo(echo)) => net.echo.close(echo),
            Ok(&mut File::Raw(raw)) => net.raw.close(raw),
            Ok(File::Inet(socket)) => {
                let mut cx = Context::new(net, inet, wakes, id);
                socket.close(&mut cx);
            }
            Ok(
                File::Directory(_)
                | File::Lookup(_)
                | File::TunPgrp(_)
                | File::Option(..)
                | File::Sockets(_),
            ) => {}
            Err(_) => return,
        }
        self.collect();
        self.files.remove(id);
        self.wakes.forget(id);
    }
}

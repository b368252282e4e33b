//! One machine's network, and the tree of files that shows it.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use scheme::errno::{self, Errno};
use scheme::wait::Direction;
use scheme::{
    Argument, Caller, DirEntry, FileId, FileKind, FileServer, Now, OpenFlags, Outcome, Processes,
    Ready, SignalTarget, Stat, Turn, Wakeup,
};
use slab::Slab;

use crate::bpf;
use crate::ifnet::{Driver, IfAddr, IfFlags, IfIndex, IfTable, Ifnet};
use crate::link::Ports;
use crate::netcfg;
use crate::netisr::{Budget, Netisr};
use crate::route::RouteTable;
use crate::serve::{Servers, Services};
use crate::socket::{self, IcmpSockets, InetSockets, Kind, RawSockets};
use crate::stack::{Engines, Tcp, Udp};
use crate::tun;

/// Most files open at once.
const MAX_FILES: usize = 65_536;
/// Of these, what only the superuser may still open.
const RESERVED_FILES: usize = 4096;

/// The schemes served, in the order in which they are listed.
pub const SCHEMES: [&str; 7] = ["tun", "netcfg", "bpf", "tcp", "udp", "icmp", "ip"];

/// How to start.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Where all chance comes from: sequence numbers, ports, identifiers, the spread of hash
    /// tables. Two networks with the same seed and the same input do the same, bit for bit.
    pub seed: u64,
    /// The small services to run.
    pub services: Services,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: 0,
            services: Services::empty(),
        }
    }
}

/// Interfaces, routes, sockets, and the files of `tun`, `netcfg`, `bpf`, `tcp`, `udp`, `icmp`
/// and `ip`.
///
/// It is driven through [`FileServer`], and by nothing else: it reads no clock, no descriptor, no
/// environment and no randomness.
pub struct Net {
    pub(crate) now: Now,
    pub(crate) rng: fastrand::Rng,
    pub(crate) ifs: IfTable,
    pub(crate) routes: RouteTable,
    pub(crate) netisr: Netisr,
    pub(crate) engines: Engines,
    pub(crate) tcp: Tcp,
    pub(crate) udp: Udp,
    pub(crate) icmp: IcmpSockets,
    pub(crate) inet: InetSockets,
    pub(crate) raw: RawSockets,
    pub(crate) servers: Servers,
    pub(crate) tun: tun::Units,
    pub(crate) links: Ports,
    pub(crate) watchers: netcfg::Watchers,
    pub(crate) nameserver: Option<IpAddr>,
    pub(crate) forwarding: bool,
    pub(crate) processes: Box<dyn Processes + Send>,
    /// What the last turn said, as long as nothing has been done since that could change it. Most
    /// turns have nothing to do, and should not have to look everywhere to find that out.
    idle: Option<Turn>,
    files: Slab<Slot>,
    /// Of the file made last.
    serial: u64,
    wakeups: VecDeque<FileId>,
    signals: VecDeque<tun::Owner>,
}

/// What a [`FileId`] stands for.
pub(crate) enum File {
    Directory(String),
    Tun(tun::Handle),
    TunPgrp(tun::PgrpHandle),
    Text(netcfg::Handle),
    Bpf(Box<bpf::Handle>),
    Icmp(u32),
    Raw(u32),
    Inet(Box<socket::Socket>),
    InetSetting(socket::Setting),
}

struct Slot {
    file: File,
    /// Never used again, unlike the number.
    serial: u64,
    /// What rose since the last wake-up was taken.
    risen: Ready,
}

/// One file that another remembers, and that may be closed meanwhile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    id: FileId,
    serial: u64,
}

impl Net {
    /// A network with `lo0` and nothing else.
    pub fn new(config: Config, processes: impl Processes + Send + 'static) -> Self {
        let mut rng = fastrand::Rng::with_seed(config.seed);
        let secret = [config.seed, rng.u64(..)];
        let mut hasher = || {
            let mut seed = || rng.u64(..);
            ahash::RandomState::with_seeds(seed(), seed(), seed(), seed())
        };
        let mut net = Self {
            now: Now::default(),
            ifs: IfTable::new(hasher()),
            routes: RouteTable::new(),
            netisr: Netisr::new(hasher()),
            tcp: Tcp::new(hasher(), secret),
            udp: Udp::new(hasher()),
            icmp: IcmpSockets::default(),
            inet: InetSockets::default(),
            raw: RawSockets::default(),
            servers: Servers::default(),
            tun: tun::Units::default(),
            links: Ports::default(),
            watchers: netcfg::Watchers::default(),
            nameserver: None,
            forwarding: false,
            processes: Box::new(processes),
            idle: None,
            files: Slab::new(),
            serial: 0,
            wakeups: VecDeque::new(),
            signals: VecDeque::new(),
            engines: Engines::default(),
            rng,
        };
        net.attach_loopback();
        net.start_services(config.services);
        net
    }

    fn attach_loopback(&mut self) {
        const IFT_LOOP: u8 = 0x18;
        const LOMTU: u16 = 16_384;

        let flags = IfFlags::UP | IfFlags::LOOPBACK | IfFlags::RUNNING | IfFlags::MULTICAST;
        let lo0 = self
            .ifs
            .attach("lo0", Driver::Loopback, flags, IFT_LOOP, LOMTU);
        for addr in ["127.0.0.1/8", "::1/128"] {
            if let (Some(lo0), Some(addr)) = (lo0, IfAddr::parse(addr)) {
                self.ifs.add_addr(lo0, addr);
            }
        }
    }

    /// The interface with this name.
    pub fn interface(&self, name: &str) -> Option<&Ifnet> {
        self.ifs.get(self.ifs.by_name(name)?)
    }

    /// Every interface.
    pub fn interfaces(&self) -> impl Iterator<Item = &Ifnet> {
        self.ifs.iter()
    }

    pub(crate) fn add_file(&mut self, file: File) -> Result<FileId, Errno> {
        if self.files.len() >= MAX_FILES {
            return Err(errno::ENFILE);
        }
        let risen = Ready::empty();
        self.serial += 1;
        let serial = self.serial;
        let slot = Slot {
            file,
            serial,
            risen,
        };
        let key = self.files.insert(slot);
        u32::try_from(key).map(FileId).map_err(|_| errno::ENFILE)
    }

    pub(crate) fn file(&self, id: FileId) -> Result<&File, Errno> {
        let slot = self.files.get(id.0 as usize).ok_or(errno::EBADF)?;
        Ok(&slot.file)
    }

    pub(crate) fn file_mut(&mut self, id: FileId) -> Result<&mut File, Errno> {
        let slot = self.files.get_mut(id.0 as usize).ok_or(errno::EBADF)?;
        Ok(&mut slot.file)
    }

    /// Remembers a file.
    pub(crate) fn hold(&self, id: FileId) -> Result<Held, Errno> {
        let slot = self.files.get(id.0 as usize).ok_or(errno::EBADF)?;
        let serial = slot.serial;
        Ok(Held { id, serial })
    }

    /// The file that was remembered; `EBADF` if it is closed, even if its number is another's now.
    pub(crate) fn held(&self, held: Held) -> Result<FileId, Errno> {
        let slot = self.files.get(held.id.0 as usize);
        let same = slot.is_some_and(|slot| slot.serial == held.serial);
        same.then_some(held.id).ok_or(errno::EBADF)
    }

    /// The last files are the superuser's: nobody else can lock everybody out.
    fn check_share(&self, caller: Caller) -> Result<(), Errno> {
        let limit = match caller.uid {
            0 => MAX_FILES,
            _ => MAX_FILES - RESERVED_FILES,
        };
        match self.files.len() < limit {
            true => Ok(()),
            false => Err(errno::ENFILE),
        }
    }

    /// Whether packets, connections or their owners wait for a turn.
    pub(crate) fn has_work(&self) -> bool {
        self.netisr.has_work() || self.tcp.has_work() || self.udp.has_work()
    }

    /// There may be something to do: the next turn looks.
    pub(crate) fn stir(&mut self) {
        self.idle = None;
    }

    /// Takes back a file that was made but cannot be given out.
    pub(crate) fn discard_file(&mut self, id: FileId) {
        self.files.try_remove(id.0 as usize);
    }

    /// Something became possible on a file: on the edge, and at most once until it is taken.
    pub(crate) fn wake(&mut self, id: FileId, ready: Ready) {
        let Some(slot) = self.files.get_mut(id.0 as usize) else {
            return;
        };
        if slot.risen.is_empty() {
            self.wakeups.push_back(id);
        }
        slot.risen |= ready;
    }

    pub(crate) fn signal(&mut self, owner: tun::Owner) {
        // One is as good as many: a signal is a flag.
        if !self.signals.contains(&owner) {
            self.signals.push_back(owner);
        }
    }

    /// Whether packets leave by the interface.
    pub(crate) fn is_up(&self, dev: IfIndex) -> bool {
        self.ifs.get(dev).is_some_and(Ifnet::is_up)
    }

    /// The addresses of an interface, to be changed meanwhile.
    pub(crate) fn addrs_of(&self, dev: IfIndex) -> Vec<IfAddr> {
        self.ifs
            .get(dev)
            .map_or(Vec::new(), |ifp| ifp.addrs.clone())
    }

    /// Whether IPv6 packets do.
    pub(crate) fn runs_ipv6(&self, dev: IfIndex) -> bool {
        self.ifs
            .get(dev)
            .is_some_and(|ifp| ifp.is_up() && ifp.has_ipv6())
    }

    fn root_entries() -> Vec<DirEntry> {
        let entry = |name: &&str| DirEntry {
            name: (*name).to_owned(),
            kind: FileKind::Directory,
        };
        SCHEMES.iter().map(entry).collect()
    }

    fn stat_path(&self, path: &str) -> Result<Stat, Errno> {
        // A slash at the end is for directories.
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
            ("tun" | "bpf" | "netcfg" | "tcp" | "udp" | "icmp" | "ip", "") => Ok(DIRECTORY),
            ("tun", rest) => tun::stat(rest),
            ("bpf", rest) => self.bpf_stat(rest),
            ("netcfg", rest) => self.netcfg_stat(rest),
            ("icmp", rest) => socket::icmp_stat(rest),
            ("tcp" | "udp", rest) => socket::inet_stat(rest),
            ("ip", rest) => socket::raw_stat(rest),
            _ => Err(errno::ENOENT),
        }
    }

    fn list_path(&self, path: &str) -> Result<Vec<DirEntry>, Errno> {
        match split(path) {
            ("", "") => Ok(Self::root_entries()),
            ("tun", "") => Ok(self.tun_list()),
            ("bpf", "") => Ok(self.bpf_list()),
            ("tcp" | "udp" | "icmp" | "ip", "") | ("icmp", "echo") => Ok(Vec::new()),
            ("netcfg", rest) => self.netcfg_list(rest),
            _ => Err(errno::ENOTDIR),
        }
    }
}

/// Parts `scheme/rest`.
fn split(path: &str) -> (&str, &str) {
    path.split_once('/').unwrap_or((path, ""))
}

pub(crate) const DIRECTORY: Stat = Stat {
    kind: FileKind::Directory,
    mode: 0o555,
    size: 0,
};

impl FileServer for Net {
    fn turn(&mut self, now: Now) -> Turn {
        // A clock that goes back is held still.
        self.now.monotonic = self.now.monotonic.max(now.monotonic);
        self.now.wall = now.wall;
        if let Some(turn) = self.idle
            && turn
                .deadline
                .is_none_or(|deadline| self.now.monotonic < deadline)
        {
            return turn;
        }
        let now = self.now.monotonic;
        let due = |deadline: Option<Duration>| deadline.is_some_and(|at| at <= now);
        self.netisr_run(Budget::TURN);
        // Routes go with the life of a router.
        if due(self.links.deadline()) {
            self.links_run();
        }
        self.tcp_reroute();
        if self.tcp.has_work() || due(self.tcp.deadline()) {
            self.tcp_run(Budget::TURN);
        }
        if due(self.netisr.deadline()) {
            self.netisr_expire();
        }
        if self.tcp.has_work() || self.udp.has_work() {
            self.serve_run(Budget::TURN);
        }
        self.netcfg_watch();
        // Each of them may have left work to those before it.
        let pending = self.has_work();
        let deadlines = [
            self.tcp.deadline(),
            self.netisr.deadline(),
            self.links.deadline(),
            self.watchers.deadline(),
        ];
        let turn = Turn {
            pending,
            deadline: deadlines.into_iter().flatten().min(),
        };
        self.idle = (!pending).then_some(turn);
        turn
    }

    fn poll_wakeup(&mut self) -> Option<Wakeup> {
        loop {
            let file = self.wakeups.pop_front()?;
            if let Some(slot) = self.files.get_mut(file.0 as usize) {
                let ready = std::mem::take(&mut slot.risen);
                if !ready.is_empty() {
                    return Some(Wakeup { file, ready });
                }
            }
        }
    }

    fn poll_signal(&mut self) -> Option<SignalTarget> {
        // Asked once for all the packets of a turn: it takes system calls.
        let owners = std::iter::from_fn(|| self.signals.pop_front());
        let mut there = owners.filter(|owner| owner.exists(&*self.processes));
        there.next().map(|owner| owner.target)
    }

    fn stat(&mut self, path: &str) -> Result<Stat, Errno> {
        let stat = self.stat_path(path);
        let below = path.strip_prefix("netcfg/ifaces");
        if below.is_some_and(|below| matches!(below, "" | "/") || stat.is_err()) {
            // Whoever looks may be waiting for one that is not there yet; and what is not there is
            // often not opened any more.
            self.ask_for_adapters();
        }
        stat
    }

    fn open(&mut self, path: &str, flags: OpenFlags, caller: Caller) -> Result<FileId, Errno> {
        self.stir();
        self.check_share(caller)?;
        // The bare scheme is a socket without a name.
        if let ("tcp" | "udp", "") = split(path)
            && !flags.contains(OpenFlags::DIRECTORY)
            && flags.contains(OpenFlags::WRITE)
        {
            let kind = if split(path).0 == "tcp" {
                Kind::Tcp
            } else {
                Kind::Udp
            };
            return self.inet_open(kind, "", caller);
        }
        let stat = self.stat(path)?;
        if stat.kind == FileKind::Directory {
            if flags.contains(OpenFlags::WRITE) {
                return Err(errno::EISDIR);
            }
            let path = path.strip_suffix('/').unwrap_or(path).to_owned();
            return self.add_file(File::Directory(path));
        }
        if flags.contains(OpenFlags::DIRECTORY) {
            return Err(errno::ENOTDIR);
        }
        match split(path) {
            ("tun", rest) => self.tun_open(rest, caller),
            ("bpf", rest) => self.bpf_open(rest, caller),
            ("netcfg", rest) => self.netcfg_open(rest, flags, caller),
            ("icmp", rest) => self.icmp_open(rest),
            ("tcp", rest) => self.inet_open(Kind::Tcp, rest, caller),
            ("udp", rest) => self.inet_open(Kind::Udp, rest, caller),
            ("ip", rest) => self.raw_open(rest, caller),
            _ => Err(errno::ENOENT),
        }
    }

    fn dup(
        &mut self,
        file: FileId,
        verb: &[u8],
        nonblocking: bool,
        caller: Caller,
    ) -> Outcome<FileId> {
        self.stir();
        if let Err(error) = self.check_share(caller) {
            return error.into();
        }
        match self.file(file) {
            Ok(File::Inet(_)) => self.inet_dup(file, verb, nonblocking),
            Ok(File::Tun(_)) => self.tun_dup(file, verb, caller).into(),
            Ok(File::Icmp(_)) => self.icmp_dup(file, verb).into(),
            Ok(_) => errno::EINVAL.into(),
            Err(error) => error.into(),
        }
    }

    fn read(&mut self, id: FileId, buf: &mut [u8], offset: u64, caller: Caller) -> Outcome<usize> {
        match self.file(id) {
            Ok(File::Tun(_)) => self.tun_read(id, buf, caller),
            Ok(File::TunPgrp(_)) => self.tun_pgrp_read(id, buf).into(),
            Ok(File::Text(_)) => self.netcfg_read(id, buf, offset).into(),
            Ok(File::Bpf(_)) => self.bpf_read(id, buf),
            Ok(File::Icmp(_)) => self.icmp_read(id, buf),
            Ok(File::Raw(_)) => self.raw_read(id, buf),
            Ok(File::Inet(_)) => self.inet_read(id, buf),
            Ok(&File::InetSetting(setting)) => self.setting_read(setting, buf).into(),
            Ok(File::Directory(_)) => errno::EISDIR.into(),
            Err(error) => error.into(),
        }
    }

    fn complete_read(&mut self, id: FileId, delivered: bool) {
        if let Ok(File::Tun(_)) = self.file(id) {
            self.tun_settle(id, delivered);
        }
    }

    fn write(&mut self, id: FileId, buf: &[u8], _offset: u64, caller: Caller) -> Outcome<usize> {
        self.stir();
        match self.file(id) {
            Ok(File::Tun(_)) => self.tun_write(id, buf, caller).into(),
            Ok(File::TunPgrp(_)) => self.tun_pgrp_write(id, buf, caller).into(),
            Ok(File::Text(_)) => self.netcfg_write(id, buf).into(),
            Ok(File::Bpf(_)) => self.bpf_write(id, buf).into(),
            Ok(File::Icmp(_)) => self.icmp_write(id, buf).into(),
            Ok(File::Raw(_)) => self.raw_write(id, buf).into(),
            Ok(File::Inet(_)) => self.inet_write(id, buf),
            Ok(&File::InetSetting(setting)) => self.setting_write(setting, buf).into(),
            Ok(File::Directory(_)) => errno::EISDIR.into(),
            Err(error) => error.into(),
        }
    }

    fn ioctl(
        &mut self,
        id: FileId,
        request: u32,
        arg: Argument<'_>,
        caller: Caller,
    ) -> Result<(), Errno> {
        self.stir();
        match self.file(id)? {
            File::Tun(_) => self.tun_ioctl(id, request, arg, caller),
            File::Bpf(_) => self.bpf_ioctl(id, request, arg),
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
        match self.file(id) {
            Ok(File::Tun(_)) => {
                self.stir();
                self.tun_call(id, payload, metadata, caller).into()
            }
            Ok(File::Inet(_)) => self.inet_call(id, payload, metadata),
            Ok(File::Bpf(_)) => {
                self.stir();
                let request = metadata.first().copied().unwrap_or_default();
                let Ok(request) = u32::try_from(request) else {
                    return errno::ENOTTY.into();
                };
                let done = self.bpf_ioctl(id, request, Argument::new(payload));
                done.map(|()| 0).into()
            }
            Ok(_) => errno::EOPNOTSUPP.into(),
            Err(error) => error.into(),
        }
    }

    fn timeout(&self, id: FileId, direction: Direction) -> Option<Duration> {
        self.inet_patience(id, direction)
    }

    fn dup_direction(&self, verb: &[u8]) -> Direction {
        socket::dup_direction(verb)
    }

    fn call_direction(&self, metadata: &[u64]) -> Direction {
        socket::call_direction(metadata)
    }

    fn set_async(&mut self, id: FileId, on: bool) -> Result<(), Errno> {
        match self.file(id)? {
            File::Tun(_) => self.tun_set_async(id, on),
            _ => Ok(()),
        }
    }

    fn sync(&mut self, id: FileId) -> Result<(), Errno> {
        self.stir();
        match self.file(id)? {
            File::Text(_) => self.netcfg_sync(id),
            _ => Ok(()),
        }
    }

    fn fstat(&mut self, id: FileId) -> Result<Stat, Errno> {
        match self.file(id)? {
            File::Directory(_) => Ok(DIRECTORY),
            File::Tun(_) | File::TunPgrp(_) => Ok(tun::DEVICE),
            File::Bpf(_) => Ok(bpf::DEVICE),
            File::Text(handle) => Ok(handle.stat()),
            File::Icmp(_) | File::Raw(_) | File::Inet(_) | File::InetSetting(_) => {
                Ok(socket::SOCKET)
            }
        }
    }

    fn list(&mut self, id: FileId) -> Result<Vec<DirEntry>, Errno> {
        match self.file(id)? {
            File::Directory(path) => self.list_path(path),
            _ => Err(errno::ENOTDIR),
        }
    }

    fn path(&self, id: FileId) -> Result<String, Errno> {
        match self.file(id)? {
            File::Directory(path) => Ok(path.clone()),
            File::Tun(handle) => Ok(handle.path()),
            File::TunPgrp(_) => Ok("tun".to_owned()),
            File::Text(handle) => Ok(handle.path()),
            File::Bpf(handle) => Ok(handle.path()),
            File::Icmp(socket) => Ok(self.icmp_path(*socket)),
            File::Raw(socket) => Ok(self.raw_path(*socket)),
            File::Inet(_) => Ok(self.inet_path(id)),
            File::InetSetting(_) => Err(errno::EBADF),
        }
    }

    fn ready(&mut self, id: FileId) -> Ready {
        match self.file(id) {
            Ok(File::Tun(_)) => self.tun_ready(id),
            Ok(File::Text(_)) => self.netcfg_ready(id),
            Ok(File::Bpf(_)) => self.bpf_ready(id),
            Ok(File::Icmp(_)) => self.icmp_ready(id),
            Ok(File::Raw(_)) => self.raw_ready(id),
            Ok(File::Inet(_)) => self.inet_ready(id),
            Ok(File::Directory(_) | File::TunPgrp(_) | File::InetSetting(_)) => Ready::all(),
            Err(_) => Ready::empty(),
        }
    }

    fn close(&mut self, id: FileId) {
        self.stir();
        match self.file(id) {
            Ok(File::Tun(_)) => self.tun_close(id),
            Ok(File::Text(_)) => self.netcfg_close(id),
            Ok(File::Bpf(_)) => self.bpf_close(id),
            Ok(File::Icmp(_)) => self.icmp_close(id),
            Ok(File::Raw(_)) => self.raw_close(id),
            Ok(File::Inet(_)) => self.inet_close(id),
            Ok(File::Directory(_) | File::TunPgrp(_) | File::InetSetting(_)) => {}
            Err(_) => return,
        }
        self.files.try_remove(id.0 as usize);
    }
}

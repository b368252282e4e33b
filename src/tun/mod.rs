//! The tun driver: a network interface whose wire is a file. After DragonFly's `if_tun.c`.
//!
//! A program that opens `tun/N` reads the packets that the system sends out of interface `tunN`,
//! and what it writes, the system receives there. One read, one packet; one write, one packet: "an
//! atomic write is a packet - or else!".
//!
//! - [`softc`]: what the driver remembers of a unit.
//! - [`frame`]: the bytes on the file: headers and batches.
//! - [`ioctl`]: device controls, by the numbers of every system.
//!
//! This module is the glue to the files above and to the interface and netisr below, and sees the
//! stack only through those two.

mod frame;
mod ioctl;
mod softc;

use std::net::IpAddr;

use scheme::errno::{self, Errno};
use scheme::{Caller, DirEntry, FileId, FileKind, Outcome, Pid, Ready, SignalTarget, Stat};

use crate::ifnet::{Driver, DropReason, Family, Frame, IfFlags, IfIndex, parse_decimal, stamp};
use crate::net::{File, Held, Net};
use crate::netisr::NetError;
use crate::packet::Packet;
use crate::route::{Origin, Route, advertised_metric};

use frame::{Frames, Taken, decode, decode_batch};
pub(crate) use ioctl::triple;
pub(crate) use softc::Owner;
pub(crate) use softc::Units;
use softc::{Softc, TunFlags};

/// Largest packet that a program may write, bytes, header not included.
pub const TUNMRU: usize = 16_384;
/// The mtu of a new interface.
pub const TUNMTU: u16 = 1500;
/// Highest unit.
pub const MAX_UNIT: u16 = 0x7fff;
const IFT_PPP: u8 = 0x17;

/// What a device looks like.
pub(crate) const DEVICE: Stat = Stat {
    kind: FileKind::Device,
    mode: 0o600,
    size: 0,
};

/// An open device.
pub(crate) struct Handle {
    unit: u16,
    /// Taken over, or given back by `TUNSHUT`: it answers `EHOSTDOWN` from now on.
    gone: bool,
    /// The process seen on it last.
    user: Pid,
}

/// The file that dup `"pgrp"` makes: the process group, to read or write.
#[derive(Clone, Copy)]
pub(crate) struct PgrpHandle {
    tun: Held,
    unit: u16,
}

impl Handle {
    pub(crate) fn path(&self) -> String {
        format!("tun/{}", self.unit)
    }
}

/// Which unit a path names.
enum UnitPath {
    Clone,
    Unit(u16),
}

fn parse_path(path: &str) -> Result<UnitPath, Errno> {
    match path {
        "clone" => Ok(UnitPath::Clone),
        _ => parse_decimal(path)
            .filter(|&unit| unit <= MAX_UNIT)
            .map(UnitPath::Unit)
            .ok_or(errno::ENOENT),
    }
}

/// Describes a device without claiming it.
pub(crate) fn stat(path: &str) -> Result<Stat, Errno> {
    parse_path(path).map(|_| DEVICE)
}

impl Net {
    pub(crate) fn tun_list(&self) -> Vec<DirEntry> {
        let entry = |name: String| DirEntry {
            name,
            kind: FileKind::Device,
        };
        let units = self.tun.units.keys().map(u16::to_string);
        std::iter::once("clone".to_owned())
            .chain(units)
            .map(entry)
            .collect()
    }

    /// `tunopen`: the superuser's, one at a time; makes the interface when it is the first.
    pub(crate) fn tun_open(&mut self, path: &str, caller: Caller) -> Result<FileId, Errno> {
        let path = parse_path(path)?;
        if caller.uid != 0 {
            return Err(errno::EPERM);
        }
        let unit = match path {
            UnitPath::Unit(unit) => {
                if self.tun.is_open(unit) && !self.tun_take_over(unit) {
                    return Err(errno::EBUSY);
                }
                unit
            }
            UnitPath::Clone => self.tun.lowest_free().ok_or(errno::EBUSY)?,
        };
        if !self.tun.units.contains_key(&unit) {
            self.tun_create(unit)?;
        }
        let handle = Handle {
            unit,
            gone: false,
            user: caller.pid,
        };
        let file = self.add_file(File::Tun(handle))?;
        let softc = self.tun.units.get_mut(&unit).ok_or(errno::ENXIO)?;
        softc.open(file, caller.pid);
        self.watchers.touch();
        self.tun_debug(unit, "open");
        Ok(file)
    }

    /// `tuncreate`: a new interface, down and without addresses.
    fn tun_create(&mut self, unit: u16) -> Result<(), Errno> {
        let name = format!("tun{unit}");
        let flags = IfFlags::POINTOPOINT | IfFlags::MULTICAST;
        let dev = self
            .ifs
            .attach(&name, Driver::Tun(unit), flags, IFT_PPP, TUNMTU);
        let dev = dev.ok_or(errno::EEXIST)?;
        self.tun.units.insert(unit, Softc::new(dev));
        Ok(())
    }

    /// Frees a unit whose holders are all dead, where the system may not have told of it.
    fn tun_take_over(&mut self, unit: u16) -> bool {
        if !self.processes.closes_get_lost() {
            return false;
        }
        let Some(softc) = self.tun.units.get(&unit) else {
            return false;
        };
        if !softc.users.all_dead(|pid| self.processes.alive(pid)) {
            return false;
        }
        self.tun_debug(unit, "taken over from the dead");
        self.tun_last_close(unit);
        true
    }

    /// `tunclose`, for the last descriptor of a handle.
    pub(crate) fn tun_close(&mut self, id: FileId) {
        if let Ok(File::Tun(Handle {
            unit, gone: false, ..
        })) = self.file(id)
        {
            self.tun_last_close(*unit);
        }
    }

    /// Gives a unit back: junks pending output, takes the interface down, deletes its routes. The
    /// interface stays, unless it is transient.
    fn tun_last_close(&mut self, unit: u16) {
        let Some(softc) = self.tun.units.get_mut(&unit) else {
            return;
        };
        let (dev, transient) = (softc.dev, softc.flags.contains(TunFlags::TRANSIENT));
        let (file, unsettled) = softc.close();
        if let Some(file) = file
            && let Ok(File::Tun(handle)) = self.file_mut(file)
        {
            handle.gone = true;
        }
        let now = self.now;
        if let Some(ifp) = self.ifs.get_mut(dev) {
            let purged = (ifp.snd.purge() + unsettled) as u64;
            ifp.stats.output.queued -= purged;
            ifp.stats.drop_output(DropReason::Purged, purged);
            if ifp.is_up() {
                ifp.flags.remove(IfFlags::UP);
                stamp(ifp, now);
            }
            ifp.flags.remove(IfFlags::RUNNING);
        }
        self.routes.purge(|_, route| route.dev == dev);
        self.routes.touch();
        self.tcp_unblock(dev);
        if let Some(file) = file {
            // Those who wait hear EHOSTDOWN; those who poll look again.
            self.wake(file, Ready::all());
        }
        self.tun_debug(unit, "closed");
        if transient {
            self.tun_destroy(unit);
        }
    }

    /// Removes a closed unit and its interface. False if it is open.
    pub(crate) fn tun_destroy(&mut self, unit: u16) -> bool {
        if self.tun.is_open(unit) {
            return false;
        }
        let Some(softc) = self.tun.units.remove(&unit) else {
            return false;
        };
        self.if_destroy(softc.dev);
        true
    }

    /// `if_detach`: an interface is gone, and with it all that was of it.
    pub(crate) fn if_destroy(&mut self, dev: IfIndex) {
        self.netisr_detach(dev);
        self.inet_detach(dev);
        self.routes.purge(|_, route| route.dev == dev);
        if let Some(ifp) = self.ifs.detach(dev) {
            self.bpf_detach(&ifp);
        }
        self.routes.touch();
        self.tcp_unblock(dev);
    }

    /// The unit that a handle holds, noting who uses it.
    fn tun_unit(&mut self, id: FileId, caller: Option<Caller>) -> Result<u16, Errno> {
        let File::Tun(handle) = self.file_mut(id)? else {
            return Err(errno::EBADF);
        };
        let unit = handle.unit;
        if handle.gone {
            return Err(errno::EHOSTDOWN);
        }
        if let Some(caller) = caller
            && std::mem::replace(&mut handle.user, caller.pid) != caller.pid
            && self.processes.closes_get_lost()
            && let Some(softc) = self.tun.units.get_mut(&unit)
        {
            let processes = &self.processes;
            softc.users.add(caller.pid, |pid| processes.alive(pid));
        }
        Ok(unit)
    }

    fn softc(&mut self, unit: u16) -> Result<&mut Softc, Errno> {
        self.tun.units.get_mut(&unit).ok_or(errno::EHOSTDOWN)
    }

    /// `tunread`: reads a packet at a time, or at least as much of a packet as fits. In batch mode,
    /// as many whole frames as do.
    pub(crate) fn tun_read(
        &mut self,
        id: FileId,
        buf: &mut [u8],
        caller: Caller,
    ) -> Outcome<usize> {
        let unit = match self.tun_unit(id, Some(caller)) {
            Ok(unit) => unit,
            Err(error) => return error.into(),
        };
        self.tun_debug(unit, "read");
        let now = self.now;
        let Some(softc) = self.tun.units.get_mut(&unit) else {
            return errno::EHOSTDOWN.into();
        };
        let Some(ifp) = self.ifs.get_mut(softc.dev) else {
            return errno::EHOSTDOWN.into();
        };
        if buf.is_empty() {
            softc.hand_out(Frames::new());
            return Outcome::Done(Ok(0));
        }
        let batch = softc.flags.contains(TunFlags::BATCH);
        let read = frame::read(ifp.snd.as_mut(), buf, batch, now);
        let Outcome::Done(Ok((len, frames))) = read else {
            return match read {
                Outcome::Wait => Outcome::Wait,
                Outcome::Done(Err(error)) => error.into(),
                Outcome::Done(Ok(_)) => errno::EIO.into(),
            };
        };
        softc.hand_out(frames);
        let dev = softc.dev;
        self.tcp_unblock(dev);
        Outcome::Done(Ok(len))
    }

    /// A read reached its reader, or did not: then its packets are the next to be read again.
    pub(crate) fn tun_settle(&mut self, id: FileId, delivered: bool) {
        self.netcfg_counted();
        let Ok(unit) = self.tun_unit(id, None) else {
            return;
        };
        let Some(softc) = self.tun.units.get_mut(&unit) else {
            return;
        };
        let frames = softc.settle();
        let Some(ifp) = self.ifs.get_mut(softc.dev) else {
            return;
        };
        if delivered {
            for Taken { truncated, .. } in frames {
                ifp.stats.output.queued -= 1;
                if truncated {
                    ifp.stats.drop_output(DropReason::Truncated, 1);
                } else {
                    ifp.stats.output.delivered += 1;
                }
            }
        } else {
            let any = !frames.is_empty();
            for Taken { frame, .. } in frames.into_iter().rev() {
                ifp.snd.requeue(frame);
            }
            if any {
                self.wake(id, Ready::READ);
            }
        }
    }

    /// `tunwrite`: the packet is taken whole, or refused whole, and never waits.
    pub(crate) fn tun_write(
        &mut self,
        id: FileId,
        buf: &[u8],
        caller: Caller,
    ) -> Result<usize, Errno> {
        let unit = self.tun_unit(id, Some(caller))?;
        self.tun_debug(unit, "write");
        if buf.is_empty() {
            return Ok(0);
        }
        let softc = self.softc(unit)?;
        let (dev, head) = (softc.dev, softc.flags.contains(TunFlags::IFHEAD));
        if softc.flags.contains(TunFlags::BATCH) {
            let takes = |family| self.netisr_takes(family);
            let frames = decode_batch(buf, head, takes)?;
            for (family, packet) in frames {
                self.tun_input(dev, family, packet);
            }
        } else {
            let (af, packet) = decode(buf, head)?;
            let family = Family::from_af(af);
            match family.filter(|&family| self.netisr_takes(family)) {
                Some(family) => self.tun_input(dev, family, packet),
                None => {
                    // Capture comes before the family is judged.
                    self.bpf_tap(dev, family.map_or(af, Family::dlt_null), packet);
                    if let Some(ifp) = self.ifs.get_mut(dev) {
                        ifp.stats.input.offered += 1;
                        ifp.stats.drop_input(DropReason::UnknownFamily, 1);
                    }
                    return Err(errno::EAFNOSUPPORT);
                }
            }
        }
        Ok(buf.len())
    }

    fn tun_input(&mut self, dev: IfIndex, family: Family, packet: &[u8]) {
        self.bpf_tap(dev, family.dlt_null(), packet);
        self.netisr_enqueue(dev, family, Packet::from(packet));
    }

    /// `tunoutput`: queues a packet from the system for the program that has the device open.
    pub(crate) fn tun_output(
        &mut self,
        unit: u16,
        dev: IfIndex,
        family: Family,
        mut packet: Packet,
        next_hop: IpAddr,
    ) -> Result<(), NetError> {
        self.tun_debug(unit, "output");
        let refuse = |net: &mut Self, reason, error| {
            if let Some(ifp) = net.ifs.get_mut(dev) {
                ifp.stats.drop_output(reason, 1);
            }
            Err(error)
        };
        if !self.tun.is_open(unit) {
            return refuse(self, DropReason::NotOpen, NetError::HostDown);
        }
        self.bpf_tap(dev, family.dlt_null(), &packet);
        let now = self.now;
        let (Some(softc), Some(ifp)) = (self.tun.units.get(&unit), self.ifs.get_mut(dev)) else {
            return Err(NetError::HostDown);
        };
        if family == Family::Inet6 && !ifp.has_ipv6() {
            return refuse(self, DropReason::NoIpv6, NetError::Family);
        }
        let len = packet.len();
        if softc.flags.contains(TunFlags::LMODE)
            && let IpAddr::V4(next_hop) = next_hop
        {
            packet.prepend(&frame::sockaddr_in(next_hop));
        }
        if softc.flags.contains(TunFlags::IFHEAD) {
            packet.prepend(&family.af().to_be_bytes());
        } else if family != Family::Inet {
            return refuse(self, DropReason::FamilyRefused, NetError::Family);
        }
        let header = packet.len() - len;
        let was_ready = ifp.snd.ready(now);
        let frame = Frame {
            bytes: packet,
            header,
        };
        if ifp.snd.enqueue(frame, now).is_err() {
            return refuse(self, DropReason::QueueFull, NetError::NoBuffers);
        }
        ifp.stats.opackets += 1;
        ifp.stats.obytes += len as u64;
        ifp.stats.output.queued += 1;
        let rose = !was_ready && ifp.snd.ready(now);
        let owner = softc
            .sigio
            .filter(|_| softc.flags.contains(TunFlags::ASYNC));
        if rose && let Some(file) = softc.file {
            self.wake(file, Ready::READ);
        }
        if let Some(owner) = owner {
            self.signal(owner);
        }
        Ok(())
    }

    /// `tuninit`: what an address, or being brought up with one, does to an interface.
    pub(crate) fn if_init(&mut self, dev: IfIndex) {
        let now = self.now;
        let has_driver = self.has_driver(dev);
        if let Some(ifp) = self.ifs.get_mut(dev) {
            ifp.flags.insert(IfFlags::UP);
            ifp.flags.set(IfFlags::RUNNING, has_driver);
            stamp(ifp, now);
            if let Driver::Tun(unit) = ifp.driver {
                self.tun_debug(unit, "init");
            }
        }
        self.connect_routes(dev);
    }

    /// Makes the routes that come with the addresses of an interface, where they are missing.
    pub(crate) fn connect_routes(&mut self, dev: IfIndex) {
        for addr in self.addrs_of(dev) {
            self.connect_route(dev, &addr);
        }
        self.routes.touch();
    }

    /// `tunpoll`: readable while a packet is queued, writable always.
    pub(crate) fn tun_ready(&mut self, id: FileId) -> Ready {
        let now = self.now;
        let Ok(unit) = self.tun_unit(id, None) else {
            // Whatever is asked is answered at once, with EHOSTDOWN.
            return Ready::all();
        };
        self.tun_debug(unit, "poll");
        let dev = self.tun.units.get(&unit).map(|softc| softc.dev);
        let ifp = dev.and_then(|dev| self.ifs.get(dev));
        match ifp.is_some_and(|ifp| ifp.snd.ready(now)) {
            true => Ready::all(),
            false => Ready::WRITE,
        }
    }

    /// dup with a verb: `"pgrp"` is how relibc does `TIOCSPGRP` and `TIOCGPGRP`.
    pub(crate) fn tun_dup(
        &mut self,
        id: FileId,
        verb: &[u8],
        caller: Caller,
    ) -> Result<FileId, Errno> {
        let unit = self.tun_unit(id, Some(caller))?;
        let tun = self.hold(id)?;
        match verb {
            b"pgrp" => self.add_file(File::TunPgrp(PgrpHandle { tun, unit })),
            _ => Err(errno::EINVAL),
        }
    }

    fn pgrp_unit(&mut self, id: FileId) -> Result<u16, Errno> {
        let File::TunPgrp(PgrpHandle { tun, unit }) = *self.file(id)? else {
            return Err(errno::EBADF);
        };
        // The device may have been closed since, and its number used again.
        let tun = self.held(tun).map_err(|_| errno::EHOSTDOWN)?;
        match self.tun_unit(tun, None) {
            Ok(still) if still == unit => Ok(unit),
            _ => Err(errno::EHOSTDOWN),
        }
    }

    pub(crate) fn tun_pgrp_read(&mut self, id: FileId, buf: &mut [u8]) -> Result<usize, Errno> {
        let unit = self.pgrp_unit(id)?;
        let pgrp = self.fgetown(unit)?.wrapping_neg();
        let to = buf.first_chunk_mut().ok_or(errno::EINVAL)?;
        *to = pgrp.to_ne_bytes();
        Ok(4)
    }

    pub(crate) fn tun_pgrp_write(
        &mut self,
        id: FileId,
        buf: &[u8],
        caller: Caller,
    ) -> Result<usize, Errno> {
        let unit = self.pgrp_unit(id)?;
        let pgrp = i32::from_ne_bytes(buf.try_into().map_err(|_| errno::EINVAL)?);
        self.fsetown(unit, pgrp.checked_neg().ok_or(errno::EINVAL)?, caller)?;
        Ok(buf.len())
    }

    /// `O_ASYNC` through `F_SETFL`.
    pub(crate) fn tun_set_async(&mut self, id: FileId, on: bool) -> Result<(), Errno> {
        let unit = self.tun_unit(id, None)?;
        self.softc(unit)?.flags.set(TunFlags::ASYNC, on);
        Ok(())
    }

    /// `fsetown`: who gets `SIGIO`. Positive is a process, negative a group, zero nobody. `ESRCH`
    /// if there is none, `EPERM` if it is of another session than the caller.
    fn fsetown(&mut self, unit: u16, owner: i32, caller: Caller) -> Result<(), Errno> {
        let target = match owner {
            0 => None,
            1.. => Some(SignalTarget::Process(Pid(owner.unsigned_abs()))),
            _ => Some(SignalTarget::Group(Pid(owner.unsigned_abs()))),
        };
        if let Some(target) = target {
            let session = self.processes.session(target).ok_or(errno::ESRCH)?;
            let own = self.processes.session(SignalTarget::Process(caller.pid));
            if own != Some(session) {
                return Err(errno::EPERM);
            }
        }
        let owner = target.map(|target| Owner::new(target, &*self.processes));
        self.softc(unit)?.sigio = owner;
        Ok(())
    }

    /// `fgetown`: who gets `SIGIO`: a process, a group as a negative, or 0.
    fn fgetown(&mut self, unit: u16) -> Result<i32, Errno> {
        let softc = self.tun.units.get_mut(&unit).ok_or(errno::EHOSTDOWN)?;
        let owner = softc.owner(&*self.processes);
        Ok(owner.map_or(0, |owner| owner.number()))
    }

    /// The text of `ifaces/IF/status` (`SIOCGIFSTATUS`).
    pub(crate) fn tun_status(&self, unit: u16) -> String {
        match self.tun.units.get(&unit).and_then(|softc| softc.pid) {
            Some(pid) => format!("\tOpened by PID {}\n", pid.0),
            None => String::new(),
        }
    }

    /// Makes the route of one address: its network, or its peer.
    pub(crate) fn connect_route(&mut self, dev: IfIndex, addr: &crate::ifnet::IfAddr) {
        if !self.is_up(dev)
            || self
                .ifs
                .get(dev)
                .is_none_or(|ifp| ifp.driver == Driver::Loopback)
        {
            return;
        }
        let Some(prefix) = addr.prefix() else {
            return;
        };
        // What a router told of is behind what somebody set.
        let behind = advertised_metric(dev);
        let lowest = match addr.addr.is_ipv6() && self.is_made(dev, &addr.addr) {
            true => behind,
            false => {
                let learned =
                    |route: &Route| route.origin == Origin::Connected && route.metric >= behind;
                self.routes
                    .remove(prefix, |route| route.dev == dev && learned(route));
                0
            }
        };
        let taken = self.routes.at(prefix);
        if taken.iter().any(|route| route.dev == dev) {
            return;
        }
        // The lowest metric that no other interface has: networks may overlap.
        let metric = (lowest..).find(|&metric| taken.iter().all(|route| route.metric != metric));
        let route = Route {
            dev,
            via: None,
            src: None,
            metric: metric.unwrap_or(0),
            origin: Origin::Connected,
        };
        if self.routes.insert(prefix, route).is_err() {
            log::warn!("no room for the route of {addr}");
        }
    }

    pub(super) fn tun_debug(&self, unit: u16, what: &str) {
        if self.tun.debug != 0 {
            log::info!("tun{unit}: {what}");
        }
    }
}

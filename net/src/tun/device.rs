//! The file of a device: `tunopen`, `tunclose`, `tunread`, `tunwrite` and `tunpoll`.

use scheme::errno::{self, Errno};
use scheme::{Caller, FileId, Outcome, Pid, Processes, Ready, SignalTarget};

use super::frame::{self, Taken, decode, decode_batch};
use super::output::output;
use super::softc::{Softc, TunFlags, owner_number, signal_to};
use super::{IFT_PPP, TUNMTU, TunEvent, UnitPath, Units, parse_path, trace};
use crate::capture::Framing;
use crate::ifnet::{Activity, Driver, DropReason, Family, IfFlags, IfIndex, Ifnet};
use crate::ip::Ip;
use crate::packet::Packet;

/// An open device.
#[derive(Debug)]
pub(crate) struct Handle {
    unit: u16,
    /// The number of this opening. If the unit has another, or none, this one was taken over or
    /// ended by `TUNSHUT`: every request is answered with `EHOSTDOWN` from then on.
    opening: u64,
    /// The process that used it last.
    user: Pid,
}

/// The file that dup `"pgrp"` makes: the process group, to read or write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PgrpHandle {
    unit: u16,
    opening: u64,
}

impl Handle {
    pub(crate) fn path(&self) -> String {
        format!("tun/{}", self.unit)
    }

    pub(super) fn unit(&self) -> u16 {
        self.unit
    }
}

impl Units {
    /// `tunopen`: opens a unit, and makes its interface if it has none. `file` is the number of the
    /// handle in [events](TunEvent). `EPERM` unless the caller is the superuser, `EBUSY` if the
    /// unit is open.
    pub(crate) fn open(
        &mut self,
        ip: &mut Ip,
        path: &str,
        caller: Caller,
        file: FileId,
        processes: &dyn Processes,
    ) -> Result<Handle, Errno> {
        let path = parse_path(path)?;
        if caller.uid != 0 {
            return Err(errno::EPERM);
        }
        let unit = match path {
            UnitPath::Unit(unit) => {
                if self.is_open(unit) && !self.take_over(ip, unit, processes) {
                    return Err(errno::EBUSY);
                }
                unit
            }
            UnitPath::Clone => self.lowest_free().ok_or(errno::EBUSY)?,
        };
        if !self.units.contains_key(&unit) {
            self.create(ip, unit)?;
        }
        let softc = self.units.get_mut(&unit).ok_or(errno::ENXIO)?;
        self.opening += 1;
        softc.open(file, self.opening, caller.pid);
        if let Some(ifp) = ip.ifs.get_mut(softc.dev) {
            TunFlags::OPEN.set_on(ifp, true);
            trace(ifp, "open");
        }
        ip.ifs.touch();
        Ok(Handle {
            unit,
            opening: self.opening,
            user: caller.pid,
        })
    }

    /// `tuncreate`: a new interface, down and without addresses.
    pub(super) fn create(&mut self, ip: &mut Ip, unit: u16) -> Result<(), Errno> {
        let name = format!("tun{unit}");
        let flags = IfFlags::POINTOPOINT | IfFlags::MULTICAST;
        let dev = ip
            .ifs
            .attach(&name, Driver::Tun(unit), output, flags, IFT_PPP, TUNMTU);
        let dev = dev.ok_or(errno::EEXIST)?;
        if let Some(ifp) = ip.ifs.get_mut(dev) {
            ifp.debug = self.debug != 0;
        }
        self.units.insert(unit, Softc::new(dev));
        Ok(())
    }

    /// Frees a unit whose holders are all dead, in case the system did not report their close.
    fn take_over(&mut self, ip: &mut Ip, unit: u16, processes: &dyn Processes) -> bool {
        if !processes.closes_get_lost() {
            return false;
        }
        let Some(softc) = self.units.get(&unit) else {
            return false;
        };
        if !softc.users.all_dead(|pid| processes.alive(pid)) {
            return false;
        }
        if let Some(ifp) = ip.ifs.get(softc.dev) {
            trace(ifp, "taken over from the dead");
        }
        self.last_close(ip, unit);
        true
    }

    /// `tunclose`, for the last descriptor of a handle.
    pub(crate) fn close(&mut self, ip: &mut Ip, handle: &Handle) {
        if self.softc_of(handle.unit, handle.opening).is_ok() {
            self.last_close(ip, handle.unit);
        }
    }

    /// Releases a unit: drops pending output, takes the interface down, deletes its routes. A
    /// transient interface is destroyed. Any other stays, and as in DragonFly its addresses, mtu,
    /// type, mode, headers and `ASYNC` survive.
    pub(super) fn last_close(&mut self, ip: &mut Ip, unit: u16) {
        let Some(softc) = self.units.get_mut(&unit) else {
            return;
        };
        let dev = softc.dev;
        let (file, taken) = softc.close();
        let now = ip.now;
        let mut transient = false;
        if let Some(ifp) = ip.ifs.get_mut(dev) {
            transient = TunFlags::of(ifp).contains(TunFlags::TRANSIENT);
            (TunFlags::OPEN | TunFlags::BATCH).set_on(ifp, false);
            for Taken { frame, .. } in taken {
                let framing = Framing::Null(frame.family.dlt_null());
                ifp.drop_queued(DropReason::Purged, framing, frame.packet());
            }
            ifp.purge();
            if ifp.is_up() {
                ifp.flags.remove(IfFlags::UP);
                ifp.set_lastchange(now);
            }
            ifp.flags.remove(IfFlags::RUNNING);
            trace(ifp, "closed");
        }
        ip.routes.remove_over(dev, |_| true);
        ip.routes.touch();
        ip.ifs.note(dev, Activity::ROOM);
        if let Some(file) = file {
            // Requests that wait are answered with EHOSTDOWN, and programs that poll look again.
            self.events.push_back(TunEvent::Ready(file, Ready::all()));
        }
        if transient {
            self.destroy(ip, unit);
        }
    }

    /// Removes a closed unit and its interface. False if it is open.
    pub(crate) fn destroy(&mut self, ip: &mut Ip, unit: u16) -> bool {
        if self.is_open(unit) {
            return false;
        }
        let Some(softc) = self.units.remove(&unit) else {
            return false;
        };
        ip.if_detach(softc.dev);
        true
    }

    /// The unit of an opening; `EHOSTDOWN` if the opening is over.
    fn softc_of(&mut self, unit: u16, opening: u64) -> Result<&mut Softc, Errno> {
        let softc = self.units.get_mut(&unit);
        softc
            .filter(|softc| softc.file.is_some() && softc.opening == opening)
            .ok_or(errno::EHOSTDOWN)
    }

    /// The unit that a handle holds, and its interface. Notes that the caller uses the handle.
    pub(super) fn used<'a>(
        &'a mut self,
        ip: &'a mut Ip,
        handle: &mut Handle,
        caller: Caller,
        processes: &dyn Processes,
    ) -> Result<(&'a mut Softc, &'a mut Ifnet), Errno> {
        let softc = self.softc_of(handle.unit, handle.opening)?;
        if std::mem::replace(&mut handle.user, caller.pid) != caller.pid
            && processes.closes_get_lost()
        {
            softc
                .users
                .add(caller.pid, |pid| processes.is_known_dead(pid));
        }
        let ifp = ip.ifs.get_mut(softc.dev).ok_or(errno::EHOSTDOWN)?;
        Ok((softc, ifp))
    }

    /// `tunread`: reads one packet, truncated to the buffer. In batch mode it reads as many whole
    /// frames as fit.
    pub(crate) fn read(
        &mut self,
        ip: &mut Ip,
        handle: &mut Handle,
        buf: &mut [u8],
        caller: Caller,
        processes: &dyn Processes,
    ) -> Outcome<usize> {
        let now = ip.now;
        let (softc, ifp) = match self.used(ip, handle, caller, processes) {
            Ok(used) => used,
            Err(error) => return error.into(),
        };
        trace(ifp, "read");
        if buf.is_empty() {
            softc.hand_out(0);
            return Outcome::Done(Ok(0));
        }
        let batch = TunFlags::of(ifp).contains(TunFlags::BATCH);
        let (len, frames) = match frame::read(ifp, buf, batch, now, &mut softc.taken) {
            Outcome::Done(Ok(read)) => read,
            Outcome::Done(Err(error)) => return error.into(),
            Outcome::Wait => return Outcome::Wait,
        };
        softc.hand_out(frames);
        let dev = softc.dev;
        ip.ifs.note_room(dev);
        Outcome::Done(Ok(len))
    }

    /// Ends the oldest read. If its packets were not `delivered`, they return to the head of the
    /// queue.
    pub(crate) fn complete(&mut self, ip: &mut Ip, handle: &Handle, delivered: bool) {
        let Ok(softc) = self.softc_of(handle.unit, handle.opening) else {
            return;
        };
        let (frames, dev) = (softc.complete(), softc.dev);
        let Some(ifp) = ip.ifs.get_mut(dev) else {
            return;
        };
        if delivered {
            for _ in 0..frames {
                match softc.taken.pop_front() {
                    Some(Taken {
                        frame,
                        truncated: true,
                    }) => {
                        let framing = Framing::Null(frame.family.dlt_null());
                        ifp.drop_queued(DropReason::Truncated, framing, frame.packet());
                    }
                    _ => {
                        ifp.stats.output.queued -= 1;
                        ifp.stats.output.delivered += 1;
                    }
                }
            }
            return;
        }
        for Taken { frame, .. } in softc.taken.drain(..frames).rev() {
            ifp.snd.requeue(frame);
        }
        if frames > 0 && ifp.snd.ready(ip.now) {
            let file = softc.file;
            self.events
                .extend(file.map(|file| TunEvent::Ready(file, Ready::READ)));
        }
        ip.ifs.note(dev, Activity::ROOM);
    }

    /// `tunwrite`: the packet is accepted or refused as a whole, and the call never waits.
    pub(crate) fn write(
        &mut self,
        ip: &mut Ip,
        handle: &mut Handle,
        buf: &[u8],
        caller: Caller,
        processes: &dyn Processes,
    ) -> Result<usize, Errno> {
        let (softc, ifp) = self.used(ip, handle, caller, processes)?;
        trace(ifp, "write");
        if buf.is_empty() {
            return Ok(0);
        }
        let (dev, flags) = (softc.dev, TunFlags::of(ifp));
        let head = flags.contains(TunFlags::IFHEAD);
        if flags.contains(TunFlags::BATCH) {
            let frames = decode_batch(buf, head, |family| ip.netisr_takes(family))?;
            for (family, packet) in frames {
                input(ip, dev, family, packet);
            }
            return Ok(buf.len());
        }
        let (af, packet) = decode(buf, head)?;
        let family = Family::from_af(af).unwrap_or(Family::Other(af));
        if ip.netisr_takes(family) {
            input(ip, dev, family, packet);
            return Ok(buf.len());
        }
        let wall = ip.now.wall;
        ip.ifs.with(dev, |ifp| {
            // Captures see the packet even though its family is refused.
            ifp.tap(wall, family.dlt_null(), packet);
            ifp.stats.input.offered += 1;
            ifp.drop_input(DropReason::UnknownFamily, family, packet);
        });
        Err(errno::EAFNOSUPPORT)
    }

    /// `tunpoll`: readable while a packet is queued, writable always.
    pub(crate) fn ready(&mut self, ip: &Ip, handle: &Handle) -> Ready {
        let Ok(softc) = self.softc_of(handle.unit, handle.opening) else {
            // Every request is answered at once, with EHOSTDOWN.
            return Ready::all();
        };
        let Some(ifp) = ip.ifs.get(softc.dev) else {
            return Ready::all();
        };
        trace(ifp, "poll");
        match ifp.snd.ready(ip.now) {
            true => Ready::all(),
            false => Ready::WRITE,
        }
    }

    /// dup with a verb: `"pgrp"` is how relibc does `TIOCSPGRP` and `TIOCGPGRP`.
    pub(crate) fn dup(
        &mut self,
        ip: &mut Ip,
        handle: &mut Handle,
        verb: &[u8],
        caller: Caller,
        processes: &dyn Processes,
    ) -> Result<PgrpHandle, Errno> {
        self.used(ip, handle, caller, processes)?;
        let &mut Handle { unit, opening, .. } = handle;
        match verb {
            b"pgrp" => Ok(PgrpHandle { unit, opening }),
            _ => Err(errno::EINVAL),
        }
    }

    pub(crate) fn pgrp_read(
        &mut self,
        handle: PgrpHandle,
        buf: &mut [u8],
        processes: &dyn Processes,
    ) -> Result<usize, Errno> {
        let softc = self.softc_of(handle.unit, handle.opening)?;
        let pgrp = softc.fgetown(processes).wrapping_neg();
        let to = buf.first_chunk_mut().ok_or(errno::EINVAL)?;
        *to = pgrp.to_ne_bytes();
        Ok(4)
    }

    pub(crate) fn pgrp_write(
        &mut self,
        handle: PgrpHandle,
        buf: &[u8],
        caller: Caller,
        processes: &dyn Processes,
    ) -> Result<usize, Errno> {
        let softc = self.softc_of(handle.unit, handle.opening)?;
        let pgrp = i32::from_ne_bytes(buf.try_into().map_err(|_| errno::EINVAL)?);
        let owner = pgrp.checked_neg().ok_or(errno::EINVAL)?;
        softc.fsetown(owner, caller, processes)?;
        Ok(buf.len())
    }

    /// `O_ASYNC` through `F_SETFL`.
    pub(crate) fn set_async(
        &mut self,
        ip: &mut Ip,
        handle: &Handle,
        on: bool,
    ) -> Result<(), Errno> {
        let dev = self.softc_of(handle.unit, handle.opening)?.dev;
        let ifp = ip.ifs.get_mut(dev).ok_or(errno::EHOSTDOWN)?;
        TunFlags::ASYNC.set_on(ifp, on);
        ip.ifs.touch();
        Ok(())
    }
}

/// Receives a packet that was written to the device.
fn input(ip: &mut Ip, dev: IfIndex, family: Family, packet: &[u8]) {
    let wall = ip.now.wall;
    ip.ifs
        .with(dev, |ifp| ifp.tap(wall, family.dlt_null(), packet));
    ip.netisr_enqueue(dev, family, Packet::from(packet));
}

impl Softc {
    /// `fsetown`: sets the owner that gets `SIGIO`. Positive is a process, negative a group, zero
    /// nobody. `ESRCH` if there is none, `EPERM` if it is of another session than the caller.
    pub(super) fn fsetown(
        &mut self,
        owner: i32,
        caller: Caller,
        processes: &dyn Processes,
    ) -> Result<(), Errno> {
        let target = match owner {
            0 => None,
            1.. => Some(SignalTarget::Process(Pid(owner.unsigned_abs()))),
            _ => Some(SignalTarget::Group(Pid(owner.unsigned_abs()))),
        };
        if let Some(target) = target {
            let session = processes.session(target).ok_or(errno::ESRCH)?;
            let own = processes.session(SignalTarget::Process(caller.pid));
            if own != Some(session) {
                return Err(errno::EPERM);
            }
        }
        self.sigio = target.map(|target| signal_to(target, processes));
        Ok(())
    }

    /// `fgetown`: the owner that gets `SIGIO`: a process, a negative process group, or 0.
    pub(super) fn fgetown(&mut self, processes: &dyn Processes) -> i32 {
        self.owner(processes).map_or(0, owner_number)
    }
}

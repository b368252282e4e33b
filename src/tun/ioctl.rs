//! Device controls. A request is known by its type, number and size: BSD and Linux encode the
//! direction differently, and Redox's libc like Linux.

use scheme::errno::{self, Errno};
use scheme::{Argument, Caller, FileId};

use super::softc::TunFlags;
use super::{Softc, frame};
use crate::ifnet::{Driver, IF_MINMTU, IfFlags};
use crate::net::Net;

/// `TtyCall::Pgrp` of Redox's protocol, which relibc sends for `TIOCSPGRP` and `TIOCGPGRP`; the
/// second word says which: 0 reads, 1 writes.
const TTY_PGRP: u64 = 6;

/// Type, number and size of a request: bits 29 to 31 are the direction on one system or another.
pub(crate) const fn triple(request: u32) -> (u32, u32, u32) {
    let request = request & 0x1fff_ffff;
    ((request >> 8) & 0xff, request & 0xff, request >> 16)
}

/// The requests of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    GetDebug,
    SetDebug,
    SetInfo,
    GetInfo,
    SetLmode,
    SetMode,
    SetPid,
    SetHead,
    GetHead,
    GetName,
    SetTransient,
    GetTransient,
    SetBatch,
    GetBatch,
    Shut,
    Fionbio,
    Fioasync,
    Fionread,
    SetOwner,
    GetOwner,
    SetPgrp,
    GetPgrp,
}

impl Request {
    fn decode(request: u32) -> Option<Self> {
        const T: u32 = b't' as u32;
        const F: u32 = b'f' as u32;

        Some(match triple(request) {
            (T, 89, 4) => Self::GetDebug,
            (T, 90, 4) => Self::SetDebug,
            (T, 91, 8) => Self::SetInfo,
            (T, 92, 8) => Self::GetInfo,
            (T, 93, 4) => Self::SetLmode,
            (T, 94, 4) => Self::SetMode,
            (T, 95, 0) => Self::SetPid,
            (T, 96, 4) => Self::SetHead,
            (T, 97, 4) => Self::GetHead,
            // FreeBSD's number and DragonFly's; each is another request with another size.
            (T, 93 | 98, 32) => Self::GetName,
            (T, 98, 4) => Self::SetTransient,
            (T, 99, 4) => Self::GetTransient,
            (T, 130, 4) => Self::SetBatch,
            (T, 131, 4) => Self::GetBatch,
            (T, 132, 0) => Self::Shut,
            (F, 126, 4) => Self::Fionbio,
            (F, 125, 4) => Self::Fioasync,
            (F, 127, 4) => Self::Fionread,
            (F, 124, 4) => Self::SetOwner,
            (F, 123, 4) => Self::GetOwner,
            (T, 118, 4) => Self::SetPgrp,
            (T, 119, 4) => Self::GetPgrp,
            _ => return None,
        })
    }
}

fn int(arg: &Argument<'_>) -> Result<i32, Errno> {
    arg.get().map(i32::from_ne_bytes)
}

fn put_int(arg: &mut Argument<'_>, value: i32) -> Result<(), Errno> {
    arg.put(value.to_ne_bytes())
}

impl Net {
    /// `tunioctl`.
    pub(crate) fn tun_ioctl(
        &mut self,
        id: FileId,
        request: u32,
        mut arg: Argument<'_>,
        caller: Caller,
    ) -> Result<(), Errno> {
        let unit = self.tun_unit(id, Some(caller))?;
        self.tun_debug(unit, "ioctl");
        self.watchers.touch();
        let decoded = Request::decode(request).ok_or(errno::ENOTTY)?;
        let now = self.now;
        match decoded {
            Request::GetDebug => put_int(&mut arg, self.tun.debug),
            Request::SetDebug => {
                self.tun.debug = int(&arg)?;
                Ok(())
            }
            Request::SetInfo => {
                let [b0, b1, b2, b3, m0, m1, if_type, _] = arg.get()?;
                let mtu = u16::from_ne_bytes([m0, m1]);
                let dev = self.softc(unit)?.dev;
                self.set_mtu(dev, mtu)?;
                let ifp = self.ifs.get_mut(dev).ok_or(errno::ENXIO)?;
                ifp.if_type = if_type;
                ifp.baudrate = i32::from_ne_bytes([b0, b1, b2, b3]);
                Ok(())
            }
            Request::GetInfo => {
                let dev = self.softc(unit)?.dev;
                let ifp = self.ifs.get(dev).ok_or(errno::ENXIO)?;
                let mut info = [0; 8];
                info[..4].copy_from_slice(&ifp.baudrate.to_ne_bytes());
                info[4..6].copy_from_slice(&ifp.mtu.to_ne_bytes());
                info[6] = ifp.if_type;
                arg.put(info)
            }
            Request::SetLmode => self.set_header(unit, TunFlags::LMODE, TunFlags::IFHEAD, &arg),
            Request::SetHead => self.set_header(unit, TunFlags::IFHEAD, TunFlags::LMODE, &arg),
            Request::GetHead => {
                let on = self.softc(unit)?.flags.contains(TunFlags::IFHEAD);
                put_int(&mut arg, on.into())
            }
            Request::SetMode => self.set_mode(unit, int(&arg)?),
            Request::SetPid => {
                self.softc(unit)?.pid = Some(caller.pid);
                Ok(())
            }
            Request::GetName => {
                let dev = self.softc(unit)?.dev;
                let name = &self.ifs.get(dev).ok_or(errno::ENXIO)?.name;
                let mut ifreq = [0; 32];
                // "tun" and at most five digits.
                ifreq[..name.len().min(15)].copy_from_slice(&name.as_bytes()[..name.len().min(15)]);
                arg.put(ifreq)
            }
            Request::SetTransient => self.set_flag(unit, TunFlags::TRANSIENT, &arg),
            Request::GetTransient => {
                let on = self.softc(unit)?.flags.contains(TunFlags::TRANSIENT);
                put_int(&mut arg, on.into())
            }
            Request::SetBatch => self.set_flag(unit, TunFlags::BATCH, &arg),
            Request::GetBatch => {
                let on = self.softc(unit)?.flags.contains(TunFlags::BATCH);
                put_int(&mut arg, on.into())
            }
            Request::Shut => {
                self.tun_last_close(unit);
                Ok(())
            }
            // The adapter keeps O_NONBLOCK.
            Request::Fionbio => int(&arg).map(drop),
            Request::Fioasync => self.set_flag(unit, TunFlags::ASYNC, &arg),
            Request::Fionread => {
                let &mut Softc { dev, flags, .. } = self.softc(unit)?;
                let ifp = self.ifs.get(dev).ok_or(errno::ENXIO)?;
                let batch = flags.contains(TunFlags::BATCH);
                let len = frame::first_len(ifp.snd.as_ref(), batch, now);
                put_int(&mut arg, i32::try_from(len).unwrap_or(i32::MAX))
            }
            Request::SetOwner => self.fsetown(unit, int(&arg)?, caller),
            Request::GetOwner => {
                let owner = self.fgetown(unit)?;
                put_int(&mut arg, owner)
            }
            // The same, negated, for those who still use the names of a tty.
            Request::SetPgrp => {
                let owner = int(&arg)?.checked_neg().ok_or(errno::EINVAL)?;
                self.fsetown(unit, owner, caller)
            }
            Request::GetPgrp => {
                let owner = self.fgetown(unit)?;
                put_int(&mut arg, owner.wrapping_neg())
            }
        }
    }

    /// An ioctl as Redox carries it: the request in the first word.
    pub(crate) fn tun_call(
        &mut self,
        id: FileId,
        payload: &mut [u8],
        metadata: &[u64],
        caller: Caller,
    ) -> Result<usize, Errno> {
        let verb = metadata.first().copied().unwrap_or_default();
        if verb == TTY_PGRP {
            let unit = self.tun_unit(id, Some(caller))?;
            let mut arg = Argument::new(payload);
            match metadata.get(1) {
                Some(1) => {
                    let owner = int(&arg)?.checked_neg().ok_or(errno::EINVAL)?;
                    self.fsetown(unit, owner, caller)?;
                }
                _ => {
                    let owner = self.fgetown(unit)?;
                    put_int(&mut arg, owner.wrapping_neg())?;
                }
            }
            return Ok(4);
        }
        let request = u32::try_from(verb).map_err(|_| errno::ENOTTY)?;
        let known = Request::decode(request).is_some();
        if known && payload.len() != triple(request).2 as usize {
            self.tun_unit(id, Some(caller))?;
            return Err(errno::EINVAL);
        }
        self.tun_ioctl(id, request, Argument::new(payload), caller)?;
        Ok(0)
    }

    fn set_flag(&mut self, unit: u16, flag: TunFlags, arg: &Argument<'_>) -> Result<(), Errno> {
        let on = int(arg)? != 0;
        self.softc(unit)?.flags.set(flag, on);
        Ok(())
    }

    /// One header mode excludes the other; switching one off leaves the other alone.
    fn set_header(
        &mut self,
        unit: u16,
        wanted: TunFlags,
        other: TunFlags,
        arg: &Argument<'_>,
    ) -> Result<(), Errno> {
        let on = int(arg)? != 0;
        let flags = &mut self.softc(unit)?.flags;
        flags.set(wanted, on);
        if on {
            flags.remove(other);
        }
        Ok(())
    }

    /// `TUNSIFMODE`: point-to-point or broadcast, with or without multicast, while down.
    fn set_mode(&mut self, unit: u16, mode: i32) -> Result<(), Errno> {
        /// `IFF_MULTICAST` by BSD's number, and by Linux's, which relibc uses.
        const MULTICAST: u32 = 0x8000 | 0x1000;

        let dev = self.softc(unit)?.dev;
        let ifp = self.ifs.get_mut(dev).ok_or(errno::ENXIO)?;
        if ifp.is_up() {
            return Err(errno::EBUSY);
        }
        let mode = mode.cast_unsigned();
        let kind = match mode & !MULTICAST {
            0x10 => IfFlags::POINTOPOINT,
            0x2 => IfFlags::BROADCAST,
            _ => return Err(errno::EINVAL),
        };
        let replaced = IfFlags::POINTOPOINT | IfFlags::BROADCAST | IfFlags::MULTICAST;
        ifp.flags.remove(replaced);
        ifp.flags.insert(kind);
        ifp.flags.set(IfFlags::MULTICAST, mode & MULTICAST != 0);
        Ok(())
    }

    /// `SIOCSIFMTU`, with bounds. Below 1280 an interface has no IPv6.
    pub(crate) fn set_mtu(&mut self, dev: crate::ifnet::IfIndex, mtu: u16) -> Result<(), Errno> {
        if mtu < IF_MINMTU {
            return Err(errno::EINVAL);
        }
        let ifp = self.ifs.get_mut(dev).ok_or(errno::ENXIO)?;
        ifp.mtu = mtu;
        let (driver, ipv6) = (ifp.driver, ifp.has_ipv6());
        if let Driver::Tun(unit) = driver {
            self.tun_debug(unit, "mtu set");
        }
        if !ipv6 {
            let addrs = self.addrs_of(dev);
            for addr in addrs.iter().filter(|addr| addr.addr.is_ipv6()) {
                self.remove_addr(dev, addr);
            }
            self.routes
                .purge(|prefix, route| route.dev == dev && prefix.network().is_ipv6());
        }
        // Who keeps a way over this interface keeps its mtu.
        self.routes.touch();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_the_contract_in_both_encodings() {
        let numbers = [
            (0x8004_7460, Request::SetHead),
            (0x4004_7461, Request::GetHead),
            (0x8004_745e, Request::SetMode),
            (0x8004_745d, Request::SetLmode),
            (0x2000_745f, Request::SetPid),
            (0x8008_745b, Request::SetInfo),
            (0x4008_745c, Request::GetInfo),
            (0x8004_745a, Request::SetDebug),
            (0x4004_7459, Request::GetDebug),
            (0x4020_7462, Request::GetName),
            (0x4020_745d, Request::GetName),
            (0x8004_7462, Request::SetTransient),
            (0x4004_7463, Request::GetTransient),
            (0x8004_7482, Request::SetBatch),
            (0x4004_7483, Request::GetBatch),
            (0x2000_7484, Request::Shut),
            (0x4004_667b, Request::GetOwner),
            (0x8004_667c, Request::SetOwner),
            (0x8004_667d, Request::Fioasync),
            (0x8004_667e, Request::Fionbio),
            (0x4004_667f, Request::Fionread),
            (0x8004_7476, Request::SetPgrp),
            (0x4004_7477, Request::GetPgrp),
        ];
        for (bsd, request) in numbers {
            assert_eq!(Request::decode(bsd), Some(request), "{bsd:#x}");
            let linux = match bsd >> 29 {
                0b100 => bsd ^ 0xc000_0000,
                0b010 => bsd ^ 0xc000_0000,
                _ => bsd & !0x2000_0000,
            };
            assert_eq!(Request::decode(linux), Some(request), "{linux:#x}");
        }
        for unknown in [0, 0x8004_7461 + 0x40_0000, 0x8001_7460, 0x5401, 0x8008_7460] {
            assert_eq!(Request::decode(unknown), None, "{unknown:#x}");
        }
    }
}

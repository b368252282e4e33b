//! Device controls. A request is recognised by its type, number and size: BSD and Linux encode the
//! direction differently, and Redox's libc does it like Linux.

use scheme::errno::{self, Errno};
use scheme::{Argument, Caller, Processes};

use super::softc::TunFlags;
use super::{Handle, Units, frame, trace};
use crate::ifnet::{IfFlags, Ifnet};
use crate::ioctl::triple;
use crate::ip::Ip;

/// `TtyCall::Pgrp` of Redox's protocol, which relibc sends for `TIOCSPGRP` and `TIOCGPGRP`; the
/// second word is 0 to read and 1 to write.
const TTY_PGRP: u64 = 6;

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

    /// Whether it may change what others see of the interface.
    fn may_change(self) -> bool {
        !matches!(
            self,
            Self::GetDebug
                | Self::GetInfo
                | Self::GetHead
                | Self::GetName
                | Self::GetTransient
                | Self::GetBatch
                | Self::Fionbio
                | Self::Fionread
                | Self::GetOwner
                | Self::GetPgrp
        )
    }
}

fn int(arg: &Argument<'_>) -> Result<i32, Errno> {
    arg.get().map(i32::from_ne_bytes)
}

fn put_int(arg: &mut Argument<'_>, value: i32) -> Result<(), Errno> {
    arg.put(value.to_ne_bytes())
}

impl Units {
    /// `tunioctl`.
    pub(crate) fn ioctl(
        &mut self,
        ip: &mut Ip,
        handle: &mut Handle,
        request: u32,
        mut arg: Argument<'_>,
        caller: Caller,
        processes: &dyn Processes,
    ) -> Result<(), Errno> {
        let now = ip.now;
        let (debug, unit) = (self.debug(), handle.unit());
        let request = Request::decode(request);
        if request.is_some_and(Request::may_change) {
            ip.ifs.touch();
        }
        let (softc, ifp) = self.used(ip, handle, caller, processes)?;
        trace(ifp, "ioctl");
        match request.ok_or(errno::ENOTTY)? {
            Request::GetDebug => put_int(&mut arg, debug),
            Request::SetDebug => {
                self.set_debug(ip, int(&arg)?);
                Ok(())
            }
            Request::SetInfo => {
                let [b0, b1, b2, b3, m0, m1, if_type, _] = arg.get()?;
                let dev = softc.dev;
                ip.set_mtu(dev, u16::from_ne_bytes([m0, m1]))?;
                ip.forget_places(dev);
                let ifp = ip.ifs.get_mut(dev).ok_or(errno::ENXIO)?;
                ifp.if_type = if_type;
                ifp.baudrate = i32::from_ne_bytes([b0, b1, b2, b3]);
                Ok(())
            }
            Request::GetInfo => {
                let mut info = [0; 8];
                info[..4].copy_from_slice(&ifp.baudrate.to_ne_bytes());
                info[4..6].copy_from_slice(&ifp.mtu.to_ne_bytes());
                info[6] = ifp.if_type;
                arg.put(info)
            }
            Request::SetLmode => set_header(ifp, TunFlags::LMODE, TunFlags::IFHEAD, &arg),
            Request::SetHead => set_header(ifp, TunFlags::IFHEAD, TunFlags::LMODE, &arg),
            Request::GetHead => get_flag(ifp, TunFlags::IFHEAD, &mut arg),
            Request::SetMode => set_mode(ifp, int(&arg)?),
            Request::SetPid => {
                softc.pid = Some(caller.pid);
                Ok(())
            }
            Request::GetName => {
                let mut ifreq = [0; 32];
                // "tun" and at most five digits.
                let len = ifp.name.len().min(15);
                ifreq[..len].copy_from_slice(&ifp.name.as_bytes()[..len]);
                arg.put(ifreq)
            }
            Request::SetTransient => set_flag(ifp, TunFlags::TRANSIENT, &arg),
            Request::GetTransient => get_flag(ifp, TunFlags::TRANSIENT, &mut arg),
            Request::SetBatch => set_flag(ifp, TunFlags::BATCH, &arg),
            Request::GetBatch => get_flag(ifp, TunFlags::BATCH, &mut arg),
            Request::Shut => {
                self.last_close(ip, unit);
                Ok(())
            }
            // `O_NONBLOCK` is kept by the front.
            Request::Fionbio => int(&arg).map(drop),
            Request::Fioasync => set_flag(ifp, TunFlags::ASYNC, &arg),
            Request::Fionread => {
                let batch = TunFlags::of(ifp).contains(TunFlags::BATCH);
                let len = frame::first_len(ifp, batch, now);
                put_int(&mut arg, i32::try_from(len).unwrap_or(i32::MAX))
            }
            Request::SetOwner => softc.fsetown(int(&arg)?, caller, processes),
            Request::GetOwner => put_int(&mut arg, softc.fgetown(processes)),
            // The owner with its sign reversed, for programs that use the names of a tty.
            Request::SetPgrp => {
                let owner = int(&arg)?.checked_neg().ok_or(errno::EINVAL)?;
                softc.fsetown(owner, caller, processes)
            }
            Request::GetPgrp => put_int(&mut arg, softc.fgetown(processes).wrapping_neg()),
        }
    }

    /// An ioctl as Redox carries it: the request is in the first word.
    pub(crate) fn call(
        &mut self,
        ip: &mut Ip,
        handle: &mut Handle,
        payload: &mut [u8],
        metadata: &[u64],
        caller: Caller,
        processes: &dyn Processes,
    ) -> Result<usize, Errno> {
        let verb = metadata.first().copied().unwrap_or_default();
        if verb == TTY_PGRP {
            let (softc, _) = self.used(ip, handle, caller, processes)?;
            let mut arg = Argument::new(payload);
            match metadata.get(1) {
                Some(1) => {
                    let owner = int(&arg)?.checked_neg().ok_or(errno::EINVAL)?;
                    softc.fsetown(owner, caller, processes)?;
                }
                _ => put_int(&mut arg, softc.fgetown(processes).wrapping_neg())?,
            }
            return Ok(4);
        }
        let request = u32::try_from(verb).map_err(|_| errno::ENOTTY)?;
        let known = Request::decode(request).is_some();
        if known && payload.len() != triple(request).2 as usize {
            self.used(ip, handle, caller, processes)?;
            return Err(errno::EINVAL);
        }
        let arg = Argument::new(payload);
        self.ioctl(ip, handle, request, arg, caller, processes)?;
        Ok(0)
    }
}

fn set_flag(ifp: &mut Ifnet, flag: TunFlags, arg: &Argument<'_>) -> Result<(), Errno> {
    flag.set_on(ifp, int(arg)? != 0);
    Ok(())
}

fn get_flag(ifp: &Ifnet, flag: TunFlags, arg: &mut Argument<'_>) -> Result<(), Errno> {
    put_int(arg, TunFlags::of(ifp).contains(flag).into())
}

/// Sets a header mode. Each excludes the other; switching one off does not change the other.
fn set_header(
    ifp: &mut Ifnet,
    wanted: TunFlags,
    other: TunFlags,
    arg: &Argument<'_>,
) -> Result<(), Errno> {
    let on = int(arg)? != 0;
    wanted.set_on(ifp, on);
    if on {
        other.set_on(ifp, false);
    }
    Ok(())
}

/// `TUNSIFMODE`: point-to-point or broadcast, with or without multicast, while down.
fn set_mode(ifp: &mut Ifnet, mode: i32) -> Result<(), Errno> {
    /// `IFF_MULTICAST` by BSD's number, and by Linux's, which relibc uses.
    const MULTICAST: u32 = 0x8000 | 0x1000;

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

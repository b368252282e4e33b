//! The settings of a unit that have no file, as text: those that survive the last close, and with
//! it the driver.

use std::fmt;

use scheme::errno::{self, Errno};

use super::softc::TunFlags;
use super::{UnitPath, Units, parse_path};
use crate::ifnet::{IfFlags, parse_decimal};
use crate::ip::Ip;

/// The settings of one unit: `type 23 baudrate 0 flags POINTOPOINT,MULTICAST modes IFHEAD,ASYNC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnitState {
    if_type: u8,
    baudrate: i32,
    flags: IfFlags,
    modes: TunFlags,
}

/// The flags that `TUNSIFMODE` sets.
const MODE: IfFlags = IfFlags::POINTOPOINT
    .union(IfFlags::BROADCAST)
    .union(IfFlags::MULTICAST);
/// The driver's flags that survive the last close.
const MODES: TunFlags = TunFlags::LMODE
    .union(TunFlags::IFHEAD)
    .union(TunFlags::ASYNC);

impl fmt::Display for UnitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            if_type,
            baudrate,
            flags,
            modes,
        } = self;
        write!(f, "type {if_type} baudrate {baudrate} flags {flags}")?;
        if !modes.is_empty() {
            let names: Vec<_> = modes.iter_names().map(|(name, _)| name).collect();
            write!(f, " modes {}", names.join(","))?;
        }
        Ok(())
    }
}

impl UnitState {
    /// The same, of an interface that carries multicast.
    pub(crate) fn with_multicast(self) -> Self {
        let flags = self.flags | IfFlags::MULTICAST;
        Self { flags, ..self }
    }

    /// Parses what [`Display`](fmt::Display) writes. `None` for anything that no unit can have.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let (mut if_type, mut baudrate, mut flags, mut modes) = (None, None, None, None);
        while let Some(word) = words.next() {
            let value = words.next()?;
            match word {
                "type" if if_type.is_none() => if_type = Some(parse_decimal(value)?),
                "baudrate" if baudrate.is_none() => baudrate = Some(value.parse().ok()?),
                "flags" if flags.is_none() => {
                    let named = value.split(',').map(IfFlags::from_name);
                    flags = Some(named.collect::<Option<IfFlags>>()?);
                }
                "modes" if modes.is_none() => {
                    let named = value.split(',').map(TunFlags::from_name);
                    modes = Some(named.collect::<Option<TunFlags>>()?);
                }
                _ => return None,
            }
        }
        let (flags, modes) = (flags?, modes.unwrap_or(TunFlags::empty()));
        let kind = flags - IfFlags::MULTICAST;
        let one_kind = kind == IfFlags::POINTOPOINT || kind == IfFlags::BROADCAST;
        let one_header = !modes.contains(TunFlags::LMODE | TunFlags::IFHEAD);
        (one_kind && one_header && MODES.contains(modes)).then_some(Self {
            if_type: if_type?,
            baudrate: baudrate?,
            flags,
            modes,
        })
    }
}

impl Units {
    /// The settings of a unit that the last close leaves. `None` if it takes the unit as well, or
    /// there is none.
    pub(crate) fn state(&self, ip: &Ip, unit: u16) -> Option<UnitState> {
        let ifp = ip.ifs.get(self.units.get(&unit)?.dev)?;
        let all = TunFlags::of(ifp);
        (!all.contains(TunFlags::TRANSIENT)).then_some(UnitState {
            if_type: ifp.if_type,
            baudrate: ifp.baudrate,
            flags: ifp.flags & MODE,
            modes: all & MODES,
        })
    }

    /// Gives the unit that a path names these settings, and makes it if there is none.
    pub(crate) fn restore(
        &mut self,
        ip: &mut Ip,
        path: &str,
        state: UnitState,
    ) -> Result<(), Errno> {
        let UnitPath::Unit(unit) = parse_path(path)? else {
            return Err(errno::EINVAL);
        };
        if !self.units.contains_key(&unit) {
            self.create(ip, unit)?;
        }
        let dev = self.units.get(&unit).ok_or(errno::ENXIO)?.dev;
        let ifp = ip.ifs.get_mut(dev).ok_or(errno::ENXIO)?;
        ifp.if_type = state.if_type;
        ifp.baudrate = state.baudrate;
        ifp.flags = (ifp.flags - MODE) | state.flags;
        MODES.set_on(ifp, false);
        state.modes.set_on(ifp, true);
        ip.ifs.touch();
        Ok(())
    }

    /// Brings every unit that is not open into the state after a last close.
    pub(crate) fn settle(&mut self, ip: &mut Ip) {
        let closed = self.units.iter().filter(|(_, softc)| softc.file.is_none());
        let closed: Vec<u16> = closed.map(|(unit, _)| *unit).collect();
        for unit in closed {
            self.last_close(ip, unit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_read_back_as_it_is_written() {
        for line in [
            "type 23 baudrate 0 flags POINTOPOINT,MULTICAST",
            "type 255 baudrate -1 flags BROADCAST modes LMODE",
            "type 6 baudrate 9600 flags POINTOPOINT modes ASYNC,IFHEAD",
        ] {
            let state = UnitState::parse(line).unwrap();
            assert_eq!(state.to_string(), line);
        }
    }

    #[test]
    fn what_no_unit_can_have() {
        for bad in [
            "",
            "type 23 baudrate 0",
            "type 23 flags POINTOPOINT",
            "baudrate 0 flags POINTOPOINT",
            "type 256 baudrate 0 flags POINTOPOINT",
            "type 23 baudrate 0 flags POINTOPOINT,BROADCAST",
            "type 23 baudrate 0 flags MULTICAST",
            "type 23 baudrate 0 flags UP,POINTOPOINT",
            "type 23 baudrate 0 flags POINTOPOINT modes",
            "type 23 baudrate 0 flags POINTOPOINT modes OPEN",
            "type 23 baudrate 0 flags POINTOPOINT modes LMODE,IFHEAD",
            "type 23 type 23 baudrate 0 flags POINTOPOINT",
            "type 23 baudrate 0 flags ,",
        ] {
            assert_eq!(UnitState::parse(bad), None, "{bad:?}");
        }
    }
}

//! The tun driver: a network interface whose wire is a file. After DragonFly's `if_tun.c`.
//!
//! A program that opens `tun/N` reads the packets that the system sends out of interface `tunN`,
//! and the system receives there the packets that it writes. One read, one packet; one write, one
//! packet: "an atomic write is a packet - or else!".
//!
//! - [`device`]: the file, in the order of DragonFly's entry points: open, close, read, write,
//!   poll;
//! - [`output`]: packets that the system sends;
//! - [`ioctl`]: device controls, by the numbers of every system;
//! - [`softc`]: the state of a unit;
//! - [`state`]: the part of it that outlives the driver;
//! - [`frame`]: the bytes on the file: headers and batches.
//!
//! The driver sees the interface and the network layer, and nothing else. [`Units::poll_event`]
//! returns the files that became ready, and the owners that get `SIGIO`.

mod device;
mod frame;
mod ioctl;
mod output;
mod softc;
mod state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use scheme::errno::{self, Errno};
use scheme::{DirEntry, FileId, FileKind, Ready, Stat};

use crate::ifnet::{Activity, Ifnet, parse_decimal};
use crate::ip::Ip;

pub(crate) use device::{Handle, PgrpHandle};
use softc::{Softc, TunFlags};
pub(crate) use state::UnitState;

/// Largest packet that a program may write, bytes, header not included.
pub const TUNMRU: usize = 16_384;
/// The mtu of a new interface.
pub const TUNMTU: u16 = 1500;
/// Highest unit.
pub const MAX_UNIT: u16 = 0x7fff;
const IFT_PPP: u8 = 0x17;

/// The answer of `stat` for a device.
pub(crate) const DEVICE: Stat = Stat {
    kind: FileKind::Device,
    mode: 0o600,
    size: 0,
};

/// The unit that a path names.
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

/// An event for the files above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TunEvent {
    /// Something became possible on the file of a device.
    Ready(FileId, Ready),
    /// `SIGIO` is due.
    Signal(scheme::Signal),
}

/// Every unit, and the debug switch that they share.
#[derive(Debug, Default)]
pub(crate) struct Units {
    units: BTreeMap<u16, Softc>,
    /// `debug.if_tun_debug`: non-zero traces every entry point.
    debug: i32,
    /// Number of the last opening.
    opening: u64,
    events: VecDeque<TunEvent>,
}

impl Units {
    /// The entries of the directory `tun`.
    pub(crate) fn list(&self) -> Vec<DirEntry> {
        let entry = |name: String| DirEntry {
            name,
            kind: FileKind::Device,
        };
        let units = self.units.keys().map(u16::to_string);
        std::iter::once("clone".to_owned())
            .chain(units)
            .map(entry)
            .collect()
    }

    /// The next event, in the order in which they happened.
    #[must_use]
    pub(crate) fn poll_event(&mut self) -> Option<TunEvent> {
        self.events.pop_front()
    }

    /// Whether [`poll_event`](Self::poll_event) has one.
    pub(crate) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// `tunstart`: handles activity at the interface of a unit.
    pub(crate) fn start(&mut self, ip: &Ip, unit: u16, activity: Activity) {
        let Some(softc) = self.units.get(&unit) else {
            return;
        };
        if activity.contains(Activity::READY)
            && let Some(file) = softc.file
        {
            self.events.push_back(TunEvent::Ready(file, Ready::READ));
        }
        let asked = |ifp: &Ifnet| TunFlags::of(ifp).contains(TunFlags::ASYNC);
        if activity.contains(Activity::RELEASED)
            && let Some(owner) = softc.sigio
            && ip.ifs.get(softc.dev).is_some_and(asked)
        {
            self.events.push_back(TunEvent::Signal(owner));
        }
    }

    /// The text of `ifaces/IF/status` (`SIOCGIFSTATUS`).
    pub(crate) fn status(&self, unit: u16) -> String {
        match self.units.get(&unit).and_then(|softc| softc.pid) {
            Some(pid) => format!("\tOpened by PID {}\n", pid.0),
            None => String::new(),
        }
    }

    /// The debug switch: non-zero traces every entry point.
    pub(crate) fn debug(&self) -> i32 {
        self.debug
    }

    /// Sets the debug level, and returns the previous one.
    pub(crate) fn set_debug(&mut self, ip: &mut Ip, debug: i32) -> i32 {
        for softc in self.units.values() {
            if let Some(ifp) = ip.ifs.get_mut(softc.dev) {
                ifp.debug = debug != 0;
            }
        }
        std::mem::replace(&mut self.debug, debug)
    }

    fn is_open(&self, unit: u16) -> bool {
        let softc = self.units.get(&unit);
        softc.is_some_and(|softc| softc.file.is_some())
    }

    /// The lowest unit that is not open.
    fn lowest_free(&self) -> Option<u16> {
        let mut wanted = 0;
        for (&unit, softc) in &self.units {
            if unit > wanted || softc.file.is_none() {
                break;
            }
            wanted = unit + 1;
        }
        (wanted <= MAX_UNIT).then_some(wanted)
    }
}

fn trace(ifp: &Ifnet, what: &str) {
    if ifp.debug {
        log::info!("{}: {what}", ifp.name);
    }
}

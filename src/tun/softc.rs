//! What the driver remembers of a unit: the seed's `struct tun_softc`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bitflags::bitflags;
use scheme::{FileId, Pid, Processes, SignalTarget};

use super::MAX_UNIT;
use super::frame::Frames;
use crate::ifnet::IfIndex;

/// Most processes remembered of a handle. With more, a unit is never taken over.
const MAX_USERS: usize = 256;

bitflags! {
    /// State of a unit.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct TunFlags: u16 {
        /// A next hop before every packet read.
        const LMODE = 0x0020;
        /// `SIGIO` for every packet queued.
        const ASYNC = 0x0080;
        /// A family before every packet.
        const IFHEAD = 0x0100;
        /// The interface goes with the last close.
        const TRANSIENT = 0x1000;
        /// Many packets in one read or write.
        const BATCH = 0x2000;
    }
}

/// Who gets `SIGIO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) target: SignalTarget,
    /// Of the process, when it became the owner: another may get its number.
    identity: Option<u64>,
}

impl Owner {
    pub(super) fn new(target: SignalTarget, processes: &dyn Processes) -> Self {
        let identity = match target {
            SignalTarget::Process(pid) => processes.identity(pid),
            SignalTarget::Group(_) => None,
        };
        Self { target, identity }
    }

    /// Whether it is still there, as far as that can be told of a group.
    pub(crate) fn exists(&self, processes: &dyn Processes) -> bool {
        match self.target {
            SignalTarget::Process(pid) => {
                self.identity.is_some() && processes.identity(pid) == self.identity
            }
            // A group is known by its number only.
            SignalTarget::Group(_) => true,
        }
    }

    /// In the manner of `fgetown`: a process, or a group as a negative.
    pub(super) fn number(&self) -> i32 {
        let number = |pid: Pid| i32::try_from(pid.0).unwrap_or(i32::MAX);
        match self.target {
            SignalTarget::Process(pid) => number(pid),
            SignalTarget::Group(group) => -number(group),
        }
    }
}

/// One unit. It is made with its interface, so it is always `INITED`; it is `OPEN` while it has a
/// file.
#[derive(Debug)]
pub(crate) struct Softc {
    /// Its interface.
    pub(super) dev: IfIndex,
    pub(super) flags: TunFlags,
    /// The open file.
    pub(super) file: Option<FileId>,
    /// The process that opened it, or claimed it by `TUNSIFPID`.
    pub(super) pid: Option<Pid>,
    /// Every process seen on the handle.
    pub(super) users: Users,
    /// Who gets `SIGIO`.
    pub(super) sigio: Option<Owner>,
    /// Reads that are not settled, oldest first.
    unsettled: VecDeque<Frames>,
}

impl Softc {
    pub(super) fn new(dev: IfIndex) -> Self {
        Self {
            dev,
            flags: TunFlags::empty(),
            file: None,
            pid: None,
            users: Users::default(),
            sigio: None,
            unsettled: VecDeque::new(),
        }
    }

    pub(super) fn open(&mut self, file: FileId, pid: Pid) {
        self.file = Some(file);
        self.pid = Some(pid);
        self.users = Users::default();
        self.users.pids.insert(pid);
    }

    /// Forgets who had it, and returns the file and how many frames readers had not got yet.
    /// Addresses, mtu, type, mode, headers and `ASYNC` survive, as in the seed.
    pub(super) fn close(&mut self) -> (Option<FileId>, usize) {
        self.pid = None;
        self.sigio = None;
        self.users = Users::default();
        self.flags.remove(TunFlags::BATCH);
        let unsettled = self.unsettled.drain(..).map(|frames| frames.len()).sum();
        (self.file.take(), unsettled)
    }

    /// Notes what a read was given.
    pub(super) fn hand_out(&mut self, frames: Frames) {
        self.unsettled.push_back(frames);
    }

    /// What the oldest read that is not settled was given.
    pub(super) fn settle(&mut self) -> Frames {
        self.unsettled.pop_front().unwrap_or_default()
    }

    /// Who gets `SIGIO`, if that is still there. An owner that ended is none any more.
    pub(super) fn owner(&mut self, processes: &dyn Processes) -> Option<Owner> {
        self.sigio = self.sigio.filter(|owner| owner.exists(processes));
        self.sigio
    }
}

/// The processes that have used a handle, to tell when all of them are dead.
#[derive(Debug, Default)]
pub(super) struct Users {
    pids: BTreeSet<Pid>,
    /// There were too many to remember.
    overflow: bool,
}

impl Users {
    /// Notes a process; `alive` helps to forget others when there are too many.
    #[inline]
    pub(super) fn add(&mut self, pid: Pid, alive: impl Fn(Pid) -> bool) {
        if self.pids.contains(&pid) || self.overflow {
            return;
        }
        if self.pids.len() >= MAX_USERS {
            self.pids.retain(|&pid| alive(pid));
        }
        if self.pids.len() >= MAX_USERS {
            self.overflow = true;
        } else {
            self.pids.insert(pid);
        }
    }

    pub(super) fn all_dead(&self, alive: impl Fn(Pid) -> bool) -> bool {
        !self.overflow && !self.pids.iter().any(|&pid| alive(pid))
    }
}

/// Every unit, and the switch that they share.
#[derive(Debug, Default)]
pub(crate) struct Units {
    pub(super) units: BTreeMap<u16, Softc>,
    /// `debug.if_tun_debug`: non-zero traces every entry point.
    pub(crate) debug: i32,
}

impl Units {
    pub(crate) fn is_open(&self, unit: u16) -> bool {
        self.units
            .get(&unit)
            .is_some_and(|softc| softc.file.is_some())
    }

    /// The lowest unit that is not open.
    pub(super) fn lowest_free(&self) -> Option<u16> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_unit_that_is_not_open() {
        let mut units = Units::default();
        assert_eq!(units.lowest_free(), Some(0));
        for unit in [0, 1, 3] {
            let mut softc = Softc::new(IfIndex(0));
            softc.open(FileId(unit.into()), Pid(1));
            units.units.insert(unit, softc);
        }
        assert_eq!(units.lowest_free(), Some(2));
        units.units.get_mut(&1).unwrap().close();
        assert_eq!(units.lowest_free(), Some(1));
    }

    #[test]
    fn a_unit_is_free_only_when_every_user_is_dead() {
        let mut users = Users::default();
        users.add(Pid(1), |_| true);
        users.add(Pid(2), |_| true);
        assert!(!users.all_dead(|pid| pid == Pid(2)));
        assert!(users.all_dead(|_| false));
        for pid in 0..=MAX_USERS as u32 {
            users.add(Pid(pid), |_| true);
        }
        assert!(!users.all_dead(|_| false));
    }
}

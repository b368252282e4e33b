//! The state of a unit: DragonFly's `struct tun_softc`.

use std::collections::VecDeque;

use bitflags::bitflags;
use scheme::{FileId, Pid, Processes, Signal, SignalTarget};

use super::frame::Taken;
use crate::ifnet::{IfIndex, Ifnet};
use crate::users::Users;

bitflags! {
    /// Flags of a unit. They are kept in the driver's flags of its interface, where
    /// [`output`](super::output::output) sees them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct TunFlags: u16 {
        /// The device is open.
        const OPEN = 0x0001;
        /// The next hop precedes every packet read.
        const LMODE = 0x0020;
        /// `SIGIO` for every packet queued.
        const ASYNC = 0x0080;
        /// The address family precedes every packet.
        const IFHEAD = 0x0100;
        /// The interface is destroyed at the last close.
        const TRANSIENT = 0x1000;
        /// One read or write carries many packets.
        const BATCH = 0x2000;
    }
}

impl TunFlags {
    pub(super) fn of(ifp: &Ifnet) -> Self {
        Self::from_bits_retain(ifp.link_flags)
    }

    /// Sets or clears these flags.
    pub(super) fn set_on(self, ifp: &mut Ifnet, on: bool) {
        let mut flags = Self::of(ifp);
        flags.set(self, on);
        ifp.link_flags = flags.bits();
    }
}

/// The signal that an owner gets from now on.
pub(super) fn signal_to(target: SignalTarget, processes: &dyn Processes) -> Signal {
    let identity = match target {
        SignalTarget::Process(pid) => processes.identity(pid),
        SignalTarget::Group(_) => None,
    };
    Signal { target, identity }
}

/// The number of an owner that `fgetown` returns: a process, or a negative process group.
pub(super) fn owner_number(target: SignalTarget) -> i32 {
    let number = |pid: Pid| i32::try_from(pid.0).unwrap_or(i32::MAX);
    match target {
        SignalTarget::Process(pid) => number(pid),
        SignalTarget::Group(group) => -number(group),
    }
}

/// One unit. It is made with its interface, so it is always `INITED`; its flags are with the
/// interface.
#[derive(Debug)]
pub(crate) struct Softc {
    /// Its interface.
    pub(super) dev: IfIndex,
    /// The open file.
    pub(super) file: Option<FileId>,
    /// The number of the present opening. Handles of other openings are invalid.
    pub(super) opening: u64,
    /// The process that opened it, or claimed it by `TUNSIFPID`.
    pub(super) pid: Option<Pid>,
    /// Every process that used the handle.
    pub(super) users: Users,
    /// The `SIGIO` that its owner gets.
    pub(super) sigio: Option<Signal>,
    /// The frames of reads that are not yet known to be delivered, oldest first.
    pub(super) taken: VecDeque<Taken>,
    /// How many of them each of these reads was given.
    incomplete: VecDeque<usize>,
}

impl Softc {
    pub(super) fn new(dev: IfIndex) -> Self {
        Self {
            dev,
            file: None,
            opening: 0,
            pid: None,
            users: Users::default(),
            sigio: None,
            taken: VecDeque::new(),
            incomplete: VecDeque::new(),
        }
    }

    pub(super) fn open(&mut self, file: FileId, opening: u64, pid: Pid) {
        self.file = Some(file);
        self.opening = opening;
        self.pid = Some(pid);
        self.users = Users::of(pid);
    }

    /// Forgets the holder. Returns the file, and the frames of incomplete reads.
    pub(super) fn close(&mut self) -> (Option<FileId>, VecDeque<Taken>) {
        self.pid = None;
        self.sigio = None;
        self.users = Users::default();
        self.incomplete.clear();
        (self.file.take(), std::mem::take(&mut self.taken))
    }

    /// Notes that a read was given the last so many of the frames that were taken.
    pub(super) fn hand_out(&mut self, frames: usize) {
        self.incomplete.push_back(frames);
    }

    /// Ends the oldest incomplete read. Returns how many of the frames, the first, are its.
    pub(super) fn complete(&mut self) -> usize {
        let frames = self.incomplete.pop_front().unwrap_or_default();
        frames.min(self.taken.len())
    }

    /// The process or group that gets `SIGIO`. Forgets it if it ended.
    pub(super) fn owner(&mut self, processes: &dyn Processes) -> Option<SignalTarget> {
        self.sigio = self.sigio.filter(|signal| signal.is_wanted(processes));
        self.sigio.map(|signal| signal.target)
    }
}

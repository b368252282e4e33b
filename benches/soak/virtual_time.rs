//! A machine in virtual time.

use std::sync::Arc;
use std::time::Duration;

use net::{Host, Services};
use scheme::local::{Clock, Local, ManualClock};
use scheme::{FileServer, OpenFlags};

use crate::common::system::{LocalSystem, machine};

pub(crate) struct VirtualMachine {
    local: Arc<Local<Host>>,
    clock: Arc<ManualClock>,
}

impl VirtualMachine {
    pub(crate) fn new(seed: u64) -> Self {
        let (local, clock) = machine(seed, Services::all());
        Self { local, clock }
    }

    /// Its programs. None may wait: time stands still meanwhile.
    pub(crate) fn programs(&self) -> LocalSystem {
        LocalSystem::over(&self.local)
    }

    pub(crate) fn now(&self) -> Duration {
        self.clock.now().monotonic
    }

    /// Lets time pass, and what is due happen.
    pub(crate) fn advance(&self, pause: Duration) {
        self.clock.advance(pause);
        self.local.pump();
    }

    /// Calls that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.local.waiting()
    }

    /// Checks that no file is open: as many can be opened as there may be.
    pub(crate) fn assert_all_is_closed(&self) {
        self.local.with_server(|host| {
            let root = scheme::Caller {
                pid: scheme::Pid(42),
                uid: 0,
            };
            let mut open = || host.open("netcfg/ip/forwarding", OpenFlags::READ, root);
            let opened = (0..70_000).take_while(|_| open().is_ok()).count();
            assert_eq!(opened, 65_536, "files are left open");
        });
    }
}

//! A system in virtual time, with the system calls of a real one.

use std::sync::Arc;
use std::time::Duration;

use net::{Config, Host, Services};
use scheme::local::{Clock, Fd, Local, ManualClock, Process};
use scheme::{FileServer, OpenFlags, Ready};

use crate::common::system::{System, TestProcesses};

type Errno = i32;

pub(crate) struct VirtualSystem {
    local: Arc<Local<Host>>,
    clock: Arc<ManualClock>,
    process: Process<Host>,
}

impl VirtualSystem {
    pub(crate) fn new(seed: u64) -> Self {
        let config = Config {
            seed: seed.into(),
            services: Services::all(),
        };
        let clock = Arc::new(ManualClock::default());
        let local = Local::with_clock(Host::new(config, TestProcesses), Arc::clone(&clock));
        let process = local.process(42, 0);
        Self {
            local,
            clock,
            process,
        }
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

fn fd(number: i32) -> Fd {
    Fd::from_raw(number as u32)
}

impl System for VirtualSystem {
    fn open(&self, path: &str, read: bool, write: bool) -> Result<i32, Errno> {
        let mut flags = OpenFlags::empty();
        flags.set(OpenFlags::READ, read);
        flags.set(OpenFlags::WRITE, write);
        let opened = self.process.open(path, flags);
        opened
            .map(|fd| fd.raw() as i32)
            .map_err(|error| error.raw())
    }

    fn read(&self, at: i32, buf: &mut [u8]) -> Result<usize, Errno> {
        self.process.read(fd(at), buf).map_err(|error| error.raw())
    }

    fn write(&self, at: i32, bytes: &[u8]) -> Result<usize, Errno> {
        self.process
            .write(fd(at), bytes)
            .map_err(|error| error.raw())
    }

    fn ioctl(&self, at: i32, request: u32, arg: &mut [u8]) -> Result<(), Errno> {
        let done = self.process.ioctl(fd(at), request, arg);
        done.map_err(|error| error.raw())
    }

    /// Does not wait: time stands still meanwhile.
    fn poll(&self, at: i32, _: Duration) -> Result<(bool, bool), Errno> {
        let ready = self
            .process
            .poll(&[(fd(at), Ready::all())], Some(Duration::ZERO));
        let ready = ready.map_err(|error| error.raw())?[0];
        Ok((ready.contains(Ready::READ), ready.contains(Ready::WRITE)))
    }

    fn set_nonblocking(&self, at: i32) -> Result<(), Errno> {
        let set = self.process.set_nonblocking(fd(at), true);
        set.map_err(|error| error.raw())
    }

    fn dup(&self, at: i32) -> Result<i32, Errno> {
        let copy = self.process.dup(fd(at));
        copy.map(|fd| fd.raw() as i32).map_err(|error| error.raw())
    }

    fn close(&self, at: i32) -> Result<(), Errno> {
        self.process.close(fd(at)).map_err(|error| error.raw())
    }

    fn fsync(&self, at: i32) -> Result<(), Errno> {
        self.process.sync(fd(at)).map_err(|error| error.raw())
    }

    fn pid(&self) -> u32 {
        42
    }
}

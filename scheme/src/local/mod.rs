//! The local front, without a system: programs are threads of this process.
//!
//! A [`Local`] plays the kernel. Each [`Process`] has its own credentials and descriptor table, and
//! its methods are the system calls: they wait, are interrupted, share descriptions across
//! [`dup`](Process::dup) and [`fork`](Process::fork), and fail with the same errors as on a real
//! system. There is no thread of its own: threads that make calls do the work that is due, and
//! threads that wait keep the timers.
//!
//! - `process`: processes, and the system calls that they make.
//! - `system_call`: those of them that may wait.
//! - `clock`: the system's clocks, and one that is moved by hand.

mod clock;
mod process;
mod system_call;

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use self::clock::{Clock, ManualClock, SystemClock};
pub use self::process::{Fd, Process};
use self::system_call::{SystemCall, read_of};
use crate::dispatch::{Answer, Dispatch, Life};
use crate::server::{Caller, FileId, FileServer, Now, Pid, Processes, SignalTarget};

/// Most turns of a pending server before a call returns; the rest is left to the next call.
const TURNS_PER_CALL: usize = 64;

/// Processes that all exist, in one session: for programs that are alone with their server.
#[derive(Clone, Copy, Debug)]
pub struct OneSession;

impl Processes for OneSession {
    fn session(&self, _target: SignalTarget) -> Option<Pid> {
        Some(Pid(1))
    }

    fn identity(&self, _pid: Pid) -> Option<u64> {
        Some(0)
    }

    fn closes_get_lost(&self) -> bool {
        false
    }
}

/// The kernel that the processes share.
pub struct Local<S> {
    kernel: Mutex<Kernel<S>>,
    wake: Condvar,
    clock: Box<dyn Clock>,
}

struct Kernel<S> {
    dispatch: Dispatch<S, SystemCall>,
    descriptions: BTreeMap<u64, Description>,
    done: BTreeMap<u64, (Answer<SystemCall>, Vec<u8>)>,
    signals: Vec<SignalTarget>,
    next: u64,
    deadline: Option<Duration>,
}

/// An open file description: what dup and fork share.
struct Description {
    file: FileId,
    descriptors: usize,
    nonblocking: bool,
    offset: u64,
}

impl<S: FileServer> Local<S> {
    /// A kernel that serves `server`, with the system's clocks.
    pub fn new(server: S) -> Arc<Self> {
        Self::with_clock(server, SystemClock::default())
    }

    /// A kernel with a clock of the caller's choice.
    pub fn with_clock(server: S, clock: impl Clock + 'static) -> Arc<Self> {
        let local = Arc::new(Self {
            kernel: Mutex::new(Kernel {
                dispatch: Dispatch::new(server),
                descriptions: BTreeMap::new(),
                done: BTreeMap::new(),
                signals: Vec::new(),
                next: 0,
                deadline: None,
            }),
            wake: Condvar::new(),
            clock: Box::new(clock),
        });
        local.pump();
        local
    }

    /// A new process.
    pub fn process(self: &Arc<Self>, pid: u32, uid: u32) -> Process<S> {
        let caller = Caller { pid: Pid(pid), uid };
        Process::new(Arc::clone(self), caller)
    }

    /// Does the work that is due now, for a clock that was set by hand.
    pub fn pump(&self) {
        let mut kernel = self.lock();
        kernel.run(self.clock.now());
        drop(kernel);
        self.wake.notify_all();
    }

    /// The monotonic time at which work is due next.
    pub fn deadline(&self) -> Option<Duration> {
        self.lock().deadline
    }

    /// Calls `look` with the server.
    pub fn with_server<T>(&self, look: impl FnOnce(&mut S) -> T) -> T {
        look(&mut self.lock().dispatch.server)
    }

    /// The number of calls that wait.
    pub fn waiting(&self) -> usize {
        self.lock().dispatch.waiting()
    }

    /// Takes the signals sent so far, oldest first.
    pub fn take_signals(&self) -> Vec<SignalTarget> {
        std::mem::take(&mut self.lock().signals)
    }

    // A panic in one client thread must not take the others along.
    fn lock(&self) -> MutexGuard<'_, Kernel<S>> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: FileServer> Kernel<S> {
    /// Runs the server until it is idle and hands out the results. True if a sleeping thread may
    /// have to wake up, if only to sleep for less time.
    fn run(&mut self, now: Now) -> bool {
        let mut woke = false;
        let before = self.deadline;
        for _ in 0..TURNS_PER_CALL {
            let mut edges = Vec::new();
            let done = &mut self.done;
            let answer = |answer: Answer<_>, server: &mut S, buffer: &Vec<u8>| {
                let read = read_of(&answer, buffer).to_vec();
                complete(server, &answer);
                done.insert(answer.request.tag, (answer, read));
                woke = true;
            };
            let turn = self
                .dispatch
                .turn(now, answer, &mut edges, |_, _| Life::Alive, |_| true);
            self.deadline = match turn.pending {
                true => Some(now.monotonic),
                false => turn.deadline,
            };
            woke |= !edges.is_empty();
            while let Some(signal) = self.dispatch.server.poll_signal() {
                self.signals.push(signal.target);
            }
            if !turn.pending {
                break;
            }
        }
        let earlier = self
            .deadline
            .is_some_and(|deadline| before.is_none_or(|before| deadline < before));
        woke || earlier
    }

    /// Keeps the answer of a call whose wait was ended, for the thread that made it.
    fn finish(&mut self, answer: Answer<SystemCall>) {
        self.done.insert(answer.request.tag, (answer, Vec::new()));
    }

    fn close(&mut self, id: u64, caller: Caller) {
        let Some(description) = self.descriptions.get_mut(&id) else {
            return;
        };
        let file = description.file;
        for answer in self
            .dispatch
            .interrupt(file, |call| call.caller.pid == caller.pid)
        {
            self.finish(answer);
        }
        if let Some(description) = self.descriptions.get_mut(&id) {
            description.descriptors -= 1;
            if description.descriptors == 0 {
                self.descriptions.remove(&id);
                for answer in self.dispatch.close(file) {
                    self.finish(answer);
                }
            }
        }
    }
}

/// Tells the server that a read is over. In this front the bytes read are always delivered.
fn complete<S: FileServer>(server: &mut S, answer: &Answer<SystemCall>) {
    if matches!(answer.request.operation, SystemCall::Read { .. }) && answer.result.is_ok() {
        server.complete_read(answer.request.file, true);
    }
}

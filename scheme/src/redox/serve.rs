//! The daemon's threads, and the order of their work.
//!
//! One thread waits for each scheme's requests, threads of their own for the drivers, and the first
//! thread for the timer and for signals. Waiting for all of them in one place would cost every
//! request a second system call and a second wake-up. There is one state behind one lock, so nothing
//! runs concurrently; the thread that has a request does all the resulting work, for any scheme.
//! Calls into other processes, which may take long, are made without the lock: the thread whose work
//! led to a signal, or whose request to a question about a process, releases it first. Whether those
//! who wait live is found out by another thread.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use event::{EventFlags, EventQueue};
// On Redox the mutex of std is the C library's, which makes a system call for every unlock.
use parking_lot::{Condvar, Mutex};
use redox_scheme::scheme::{Op, SchemeState, register_scheme_inner};
use redox_scheme::{CallerCtx, Request, RequestKind, Response, SignalBehavior, Socket};
use syscall::error::{EAGAIN, EINTR, ENOSYS, EOPNOTSUPP, Error};

use super::front::{AfterSend, Outgoing, ROOT, SchemeFront};
use super::processes::{Answers, Known, List, Manager, Question};
use super::supervise::Worker;
use super::system::{self, Clocks, ProcessManager, Timer};
use crate::drivers::Drivers;
use crate::restart::Handover;
use crate::server::{FileServer, Pid, SignalTarget, Turn, Wakeup};

/// Most requests taken from one scheme at a time.
const MAX_REQUESTS: usize = 64;
/// The data of the timer's event. Events of drivers carry the driver's number.
const TIMER: usize = usize::MAX;
/// Requests are handled on this stack, and their calls are not deeply nested.
const STACK_SIZE: usize = 512 << 10;

/// With this, a driver's thread has the server work for it.
pub struct DriverWork<S>(Arc<OnceLock<Loop<S>>>);

/// The shared parts of the loop.
struct Loop<S> {
    shared: Arc<Shared<S>>,
    /// Made before the process leaves its namespace; another one could not be had afterwards.
    queue: Arc<EventQueue<usize>>,
}

impl<S> Clone for DriverWork<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> Default for DriverWork<S> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<S: FileServer> DriverWork<S> {
    /// The present monotonic time.
    pub fn now(&self) -> Duration {
        system::now().monotonic
    }

    /// Calls [`Drivers::receive`] for a driver, and does all the resulting work. The caller may hold
    /// no lock that the drivers take. Waits until the server serves.
    pub fn receive(&self, driver: usize) {
        let shared = &self.0.wait().shared;
        // If a driver's thread panics while it holds the state, the daemon must end.
        let end = ExitOnDrop;
        if let Err(error) = run(shared, |state| state.receive(driver)) {
            log::error!("timer: {error}");
            drop(end);
        } else {
            std::mem::forget(end);
        }
    }

    /// From now on [`Drivers::readable`] is called when this descriptor of a driver becomes readable.
    /// That asks the driver, and so must be done without a lock.
    pub fn watch(&self, fd: BorrowedFd<'_>, driver: usize) -> io::Result<()> {
        let fd = usize::try_from(fd.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidData)?;
        let queue = &self.0.wait().queue;
        Ok(queue.subscribe(fd, driver, EventFlags::READ)?)
    }
}

/// The state, and what is used without its lock.
struct Shared<S> {
    state: Mutex<State<S>>,
    manager: ProcessManager,
    /// Whether it is to be found out who lives.
    wanted: Mutex<bool>,
    look: Condvar,
}

/// The responses to be written to a scheme's socket.
struct Outbox {
    socket: Arc<Socket>,
    responses: VecDeque<Response>,
    /// For each response, the action after it was sent.
    after: VecDeque<AfterSend>,
}

/// The state of all threads, behind one lock.
struct State<S> {
    front: SchemeFront<S>,
    outboxes: Vec<Outbox>,
    drivers: Box<dyn Drivers<S>>,
    processes: Known,
    timer: Timer,
    clock: Clocks,
    /// Where the next worker finds the state of the server.
    handover: Handover<'static>,
    /// Kept from call to call, so that its memory is reused.
    out: Vec<Outgoing>,
}

/// Registers a scheme for each of `names` and serves them until SIGTERM. Init is told that we are
/// ready when all are registered; then the process leaves its namespace. From then on the state of
/// the server is kept for the next worker. What the server knows of `processes` is found out for it.
pub fn serve<S: FileServer + Send + 'static>(
    server: S,
    names: &[&'static str],
    processes: Known,
    drivers: Box<dyn Drivers<S>>,
    work: &DriverWork<S>,
    worker: Worker,
) -> io::Result<()> {
    let Worker { notify, handover } = worker;
    system::catch_signals();
    let timer = Timer::new()?;
    let queue = Arc::new(EventQueue::<usize>::new()?);
    queue.subscribe(timer.raw(), TIMER, EventFlags::READ)?;
    let mut outboxes = Vec::with_capacity(names.len());
    for _ in names {
        let socket = Socket::create().map_err(io_error)?;
        outboxes.push(Outbox {
            socket: Arc::new(socket),
            responses: VecDeque::new(),
            after: VecDeque::new(),
        });
    }
    let sockets: Vec<_> = outboxes
        .iter()
        .map(|outbox| Arc::clone(&outbox.socket))
        .collect();
    let state = Mutex::new(State {
        front: SchemeFront::new(server, names),
        outboxes,
        drivers,
        processes,
        timer,
        clock: Clocks::default(),
        handover,
        out: Vec::new(),
    });
    let manager = ProcessManager::keep()?;
    let shared = Arc::new(Shared {
        state,
        manager,
        wanted: Mutex::default(),
        look: Condvar::new(),
    });
    // It is set only here.
    let _ = work.0.set(Loop {
        shared: Arc::clone(&shared),
        queue: Arc::clone(&queue),
    });
    for (at, socket) in sockets.iter().enumerate() {
        let (socket, shared) = (Arc::clone(socket), Arc::clone(&shared));
        let builder = thread::Builder::new()
            .name(names[at].to_owned())
            .stack_size(STACK_SIZE);
        builder.spawn(move || serve_scheme(at, &socket, &shared))?;
    }
    let looked = Arc::clone(&shared);
    let builder = thread::Builder::new().stack_size(STACK_SIZE);
    builder.spawn(move || {
        let end = ExitOnDrop;
        if let Err(error) = look(&looked) {
            log::error!("timer: {error}");
        }
        drop(end);
    })?;
    // The names are registered only when all threads exist: the system neither ends nor runs a
    // process that is killed while it makes one.
    for (socket, name) in sockets.iter().zip(names) {
        register_scheme_inner(socket, name, ROOT).map_err(io_error)?;
    }
    notify.ready();
    handover.ready();
    libredox::call::setrens(0, 0)?;
    log::debug!("serving {names:?}");

    // The first time, for events from before the subscription.
    let mut due = true;
    while !system::stopped() {
        if due {
            run(&shared, |_| {})?;
        }
        due = match queue.next_event() {
            Ok(event) if event.user_data == TIMER => {
                shared.state.lock().timer.fired();
                true
            }
            Ok(event) => {
                shared.state.lock().drivers.readable(event.user_data);
                false
            }
            Err(error) if error.errno() == EINTR => false,
            Err(error) => return Err(error.into()),
        };
    }
    Ok(())
}

/// Serves one scheme: takes its requests, and does the resulting work.
fn serve_scheme<S: FileServer>(scheme: usize, socket: &Socket, shared: &Shared<S>) {
    // If this thread ends, so must the daemon: its clients would wait for ever.
    let end = ExitOnDrop;
    let mut locks = SchemeState::new();
    let mut requests = Vec::with_capacity(MAX_REQUESTS);
    let mut again = Vec::new();
    loop {
        match socket.read_requests(&mut requests, SignalBehavior::Interrupt) {
            Ok(()) if requests.is_empty() => break,
            Ok(()) => {}
            Err(Error { errno: EINTR, .. }) if !system::stopped() => continue,
            Err(Error { errno: EINTR, .. }) => exit(0),
            Err(error) => {
                log::error!("requests: {error}");
                break;
            }
        }
        let mut handled = run(shared, |state| {
            state.handle(scheme, &mut locks, &mut requests, &mut again);
        });
        while handled.is_ok()
            && let Some(mut request) = again.pop()
        {
            request.find_answers(&shared.manager);
            handled = run(shared, |state| {
                state.handle_again(scheme, &mut locks, request, &mut again);
            });
        }
        if let Err(error) = handled {
            log::error!("timer: {error}");
            break;
        }
    }
    drop(end);
}

/// Ends the process when it is dropped, for instance by a panic.
struct ExitOnDrop;

impl Drop for ExitOnDrop {
    fn drop(&mut self) {
        exit(1);
    }
}

/// Ends the process, after the last lines of its log.
fn exit(code: i32) -> ! {
    log::logger().flush();
    std::process::exit(code);
}

/// A request that is made again when what it asked is known.
struct Again {
    op: Op,
    ctx: CallerCtx,
    questions: Vec<Question>,
    answers: Answers,
    /// The highest number of a process that was seen when it asked.
    newest: Pid,
}

impl Again {
    fn find_answers(&mut self, manager: &ProcessManager) {
        self.answers.add(&self.questions, self.newest, manager);
    }
}

/// Finds out who lives, for files that were woken and whose waiters may be dead. All that are woken
/// meanwhile share the next reading of the list.
fn look<S: FileServer>(shared: &Shared<S>) -> io::Result<()> {
    loop {
        let mut wanted = shared.wanted.lock();
        while !std::mem::take(&mut *wanted) {
            shared.look.wait(&mut wanted);
        }
        drop(wanted);
        let mut state = shared.state.lock();
        let (held, newest) = (state.front.take_held(), state.front.newest());
        drop(state);
        let list = shared.manager.list();
        let list = list.map(|list| List::parse(&list, newest));
        run(shared, |state| {
            state.release(held, list.unwrap_or_default());
        })?;
    }
}

/// Runs `first`, and then all the resulting work, a turn at a time.
fn run<S: FileServer>(shared: &Shared<S>, first: impl FnOnce(&mut State<S>)) -> io::Result<()> {
    let mut first = Some(first);
    loop {
        // The lock is released between turns, so that other threads can run.
        let mut state = shared.state.lock();
        state.clock.now();
        let mut turn = state.turn();
        if let Some(first) = first.take() {
            first(&mut state);
            turn = state.turn();
        }
        let (came_back, signals) = state.finish();
        let more = turn.pending || came_back;
        if !more && let Some(deadline) = turn.deadline {
            state.timer.arm(deadline)?;
        }
        let look = state.processes.take_outdated() || state.front.dispatch.is_holding();
        drop(state);
        if look {
            *shared.wanted.lock() = true;
            shared.look.notify_one();
        }
        signals.into_iter().for_each(system::signal);
        if !more {
            return Ok(());
        }
    }
}

impl<S: FileServer> State<S> {
    fn handle(
        &mut self,
        scheme: usize,
        locks: &mut SchemeState,
        requests: &mut Vec<Request>,
        again: &mut Vec<Again>,
    ) {
        for (number, request) in requests.drain(..).enumerate() {
            if number > 0 {
                // The work caused by a request is done before the next request.
                let _ = self.turn();
            }
            let Self { front, out, .. } = self;
            match request.kind() {
                RequestKind::Call(call) => {
                    let ctx = call.caller();
                    match call.op() {
                        Ok(op) => self.call(scheme, locks, op, ctx, again),
                        Err(call) => {
                            out.push(Outgoing::answer(scheme, Response::err(ENOSYS, call)))
                        }
                    }
                }
                RequestKind::Cancellation(cancel) => front.cancel(scheme, cancel.id, out),
                RequestKind::OnClose { id } => front.close(id, out),
                // We take no descriptors and give none, but the request must be answered.
                RequestKind::SendFd(request) => {
                    out.push(Outgoing::answer(scheme, Response::err(EOPNOTSUPP, request)));
                }
                RequestKind::RecvFd(request) => {
                    out.push(Outgoing::answer(scheme, Response::err(EOPNOTSUPP, request)));
                }
                // Nothing is ever mapped, and no request asked to be told of a detach.
                RequestKind::MsyncMsg
                | RequestKind::MunmapMsg
                | RequestKind::MmapMsg
                | RequestKind::OnDetach { .. } => {}
            }
        }
    }

    /// Handles a request that had asked something, now that the answers are there.
    fn handle_again(
        &mut self,
        scheme: usize,
        locks: &mut SchemeState,
        request: Again,
        again: &mut Vec<Again>,
    ) {
        self.processes.begin(request.answers);
        self.call(scheme, locks, request.op, request.ctx, again);
        // The answers are this request's only.
        let _ = self.processes.take();
    }

    fn call(
        &mut self,
        scheme: usize,
        locks: &mut SchemeState,
        op: Op,
        ctx: CallerCtx,
        again: &mut Vec<Again>,
    ) {
        let Self {
            front,
            out,
            processes,
            ..
        } = self;
        let asked = || processes.is_asked();
        if let Some(op) = front.handle(scheme, locks, op, &ctx, out, asked) {
            let (questions, answers) = processes.take();
            again.push(Again {
                op,
                ctx,
                questions,
                answers,
                newest: front.newest(),
            });
        } else if processes.is_asked() {
            // No other request is made again because of it.
            let _ = processes.take();
        }
    }

    /// Serves the waits of files that were held, with a list that was read since.
    fn release(&mut self, held: Vec<Wakeup>, list: List) {
        let alive = |pid| !list.is_dead(pid);
        self.front.release(held, alive, &mut self.out);
        self.processes.learn(list);
    }

    fn receive(&mut self, driver: usize) {
        self.drivers
            .receive(&mut self.front.dispatch.server, driver);
    }

    fn turn(&mut self) -> Turn {
        let now = self.clock.last();
        self.front.turn(now, &mut self.out)
    }

    /// Keeps the state for the next worker. Before this one is ready, it is not known to be good.
    fn keep(&mut self) {
        if self.handover.is_ready()
            && let Some(state) = self.front.dispatch.server.poll_state()
            && !self.handover.write(state.as_bytes())
        {
            log::error!("no room to keep the settings, of {} bytes", state.len());
        }
    }

    /// Hands out the results of the turns: answers, events, frames. True if there is more to do, or if
    /// a packet came back for which others may have waited; and the signals to be sent.
    fn finish(&mut self) -> (bool, Vec<SignalTarget>) {
        let mut came_back = false;
        // Before the answers: what a program knows to be set is not lost.
        self.keep();
        for outgoing in self.out.drain(..) {
            let outbox = &mut self.outboxes[outgoing.scheme];
            outbox.responses.push_back(outgoing.response);
            outbox.after.push_back(outgoing.after);
        }
        for outbox in &mut self.outboxes {
            if !outbox.responses.is_empty() {
                came_back |= outbox.flush(&mut self.front, &mut self.out);
            }
        }
        let server = &mut self.front.dispatch.server;
        came_back |= self.drivers.transmit(server);
        // Whether they are wanted still is found out by sending them.
        let signals = std::iter::from_fn(|| server.poll_signal());
        (came_back, signals.map(|signal| signal.target).collect())
    }
}

impl Outbox {
    /// Writes all responses. If the kernel refuses one, because its caller is gone, the action
    /// after it is run: its packet goes back, its new handle is closed. True if there was one.
    fn flush<S: FileServer>(
        &mut self,
        front: &mut SchemeFront<S>,
        out: &mut Vec<Outgoing>,
    ) -> bool {
        let mut came_back = false;
        while !self.responses.is_empty() {
            self.responses.make_contiguous();
            let before = self.responses.len();
            let written = self
                .socket
                .write_responses(&mut self.responses, SignalBehavior::Restart);
            let delivered = before - self.responses.len();
            for _ in 0..delivered {
                if let Some(AfterSend::CompleteRead(file)) = self.after.pop_front() {
                    front.dispatch.server.complete_read(file, true);
                }
            }
            match written {
                Ok(()) if delivered > 0 => {}
                // The socket blocks; should it return this nevertheless, other threads may run.
                Err(Error { errno: EAGAIN, .. }) => thread::yield_now(),
                Ok(()) | Err(_) => {
                    came_back = true;
                    self.responses.pop_front();
                    match self.after.pop_front() {
                        Some(AfterSend::CompleteRead(file)) => {
                            front.dispatch.server.complete_read(file, false)
                        }
                        Some(AfterSend::CloseIfRefused(number)) => front.close(number, out),
                        Some(AfterSend::Nothing) | None => {}
                    }
                }
            }
        }
        came_back
    }
}

fn io_error(error: Error) -> io::Error {
    io::Error::from_raw_os_error(error.errno)
}

//! The daemon's loop: sockets, events, timer, and the order of things.

use std::collections::VecDeque;
use std::io;

use event::{EventFlags, EventQueue};
use redox_scheme::scheme::{SchemeState, register_scheme_inner};
use redox_scheme::{RequestKind, Response, SignalBehavior, Socket};
use syscall::error::{EAGAIN, EINTR, ENOSYS, EOPNOTSUPP, Error};

use super::face::{Face, Outgoing, ROOT};
use super::system::{self, Clock, Notify, RedoxProcesses, Timer};
use crate::server::{FileId, FileServer, Processes};

/// Most requests taken from one scheme before the others get their turn.
const REQUESTS: usize = 64;
/// What the timer's event carries; those of the schemes carry their place.
const TIMER: usize = usize::MAX;

/// A scheme: its socket, the locks on its files, and what is to be written.
struct Scheme {
    socket: Socket,
    state: SchemeState,
    outbox: VecDeque<Response>,
    /// For each response, the file whose read it settles.
    settles: VecDeque<Option<FileId>>,
}

/// Registers a scheme for each of `names` and serves them until SIGTERM. Init hears that we are
/// ready when all are there; then the process leaves its namespace.
pub fn serve<S: FileServer>(server: S, names: &[&'static str]) -> io::Result<()> {
    let notify = Notify::take();
    system::catch_stop();
    let mut timer = Timer::new()?;
    let queue = EventQueue::<usize>::new()?;
    queue.subscribe(timer.raw(), TIMER, EventFlags::READ)?;
    let mut schemes = Vec::with_capacity(names.len());
    for (at, name) in names.iter().enumerate() {
        let socket = Socket::nonblock().map_err(io_error)?;
        queue.subscribe(socket.inner().raw(), at, EventFlags::READ)?;
        register_scheme_inner(&socket, name, ROOT).map_err(io_error)?;
        schemes.push(Scheme {
            socket,
            state: SchemeState::new(),
            outbox: VecDeque::new(),
            settles: VecDeque::new(),
        });
    }
    let mut face = Face::new(server, names);
    notify.ready();
    libredox::call::setrens(0, 0)?;
    log::debug!("serving {names:?}");

    let mut requests = Vec::with_capacity(REQUESTS);
    let mut out = Vec::new();
    // Which schemes may have requests: at first all, whose events may have come before we listened.
    let mut awake: Vec<usize> = (0..schemes.len()).collect();
    let mut clock = Clock::default();
    loop {
        let now = clock.now();
        let mut turn = face.dispatch.turn(now);
        awake.retain(|&at| {
            let scheme = &mut schemes[at];
            match scheme
                .socket
                .read_requests(&mut requests, SignalBehavior::Interrupt)
            {
                Ok(()) => {}
                Err(Error {
                    errno: EAGAIN | EINTR,
                    ..
                }) => {}
                Err(error) => log::error!("scheme {}: {error}", names[at]),
            }
            // Fewer than there was room for: that was all, and the next one brings an event.
            let more = requests.len() == REQUESTS;
            for request in requests.drain(..) {
                handle(&mut face, at, &mut scheme.state, request.kind(), &mut out);
                // What a request leads to comes before the next request.
                turn = face.dispatch.turn(now);
            }
            more
        });
        face.wakeups(|pid| RedoxProcesses.alive(pid), &mut out);
        for outgoing in out.drain(..) {
            let scheme = &mut schemes[outgoing.scheme];
            scheme.outbox.push_back(outgoing.response);
            scheme.settles.push_back(outgoing.settles);
        }
        while let Some(target) = face.dispatch.server.poll_signal() {
            system::signal(target);
        }
        for scheme in &mut schemes {
            scheme.flush(&mut face);
        }
        if system::stopped() {
            return Ok(());
        }
        if turn.pending || !awake.is_empty() {
            continue;
        }
        if let Some(deadline) = turn.deadline {
            timer.arm(deadline)?;
        }
        match queue.next_event() {
            Ok(event) if event.user_data == TIMER => timer.fired(),
            Ok(event) => awake.push(event.user_data),
            Err(error) if error.errno() == EINTR => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn handle<S: FileServer>(
    face: &mut Face<S>,
    at: usize,
    state: &mut SchemeState,
    kind: RequestKind,
    out: &mut Vec<Outgoing>,
) {
    match kind {
        RequestKind::Call(call) => {
            let ctx = call.caller();
            match call.op() {
                Ok(op) => face.handle(at, state, op, &ctx, out),
                Err(call) => {
                    out.push(Outgoing::answer(at, Response::err(ENOSYS, call)));
                }
            }
        }
        RequestKind::Cancellation(cancel) => face.cancel(at, cancel.id, out),
        RequestKind::OnClose { id } => face.close(id, out),
        // We take no descriptors and give none; but whoever asks gets an answer.
        RequestKind::SendFd(request) => {
            out.push(Outgoing::answer(at, Response::err(EOPNOTSUPP, request)));
        }
        RequestKind::RecvFd(request) => {
            out.push(Outgoing::answer(at, Response::err(EOPNOTSUPP, request)));
        }
        // Nothing is ever mapped, and nobody asked to hear of a detach.
        RequestKind::MsyncMsg
        | RequestKind::MunmapMsg
        | RequestKind::MmapMsg
        | RequestKind::OnDetach { .. } => {}
    }
}

impl Scheme {
    /// Writes everything. What the kernel refuses (a caller that is gone) is passed over, and its
    /// packet goes back.
    fn flush<S: FileServer>(&mut self, face: &mut Face<S>) {
        while !self.outbox.is_empty() {
            self.outbox.make_contiguous();
            let before = self.outbox.len();
            let written = self
                .socket
                .write_responses(&mut self.outbox, SignalBehavior::Restart);
            let delivered = before - self.outbox.len();
            for _ in 0..delivered {
                if let Some(Some(file)) = self.settles.pop_front() {
                    face.dispatch.server.settle(file, true);
                }
            }
            match written {
                Ok(()) if delivered > 0 => {}
                Err(Error { errno: EAGAIN, .. }) => {}
                Ok(()) | Err(_) => {
                    // Its caller is gone; there is nothing to free.
                    self.outbox.pop_front();
                    if let Some(Some(file)) = self.settles.pop_front() {
                        face.dispatch.server.settle(file, false);
                    }
                }
            }
        }
    }
}

fn io_error(error: Error) -> io::Error {
    io::Error::from_raw_os_error(error.errno)
}

//! Requests that may wait: read, write, dup, call.

use redox_scheme::scheme::Op;
use redox_scheme::{Id, OpenResult, Response};
use syscall::schemev2::NewFdFlags;

use super::{error, number};
use crate::dispatch::{Method, Operation, Request};
use crate::errno::{self, Errno};
use crate::server::{FileServer, Outcome};

/// The operation holds the client's buffer.
impl Operation for Op {
    /// The scheme, and the request's number there.
    type Tag = (usize, Id);
    type Waiting = Self;
    type Buffer = ();

    fn method(&mut self) -> Method<'_> {
        match self {
            Self::Write(_) => Method::Write,
            Self::Dup(dup) => Method::Dup(dup.buf()),
            Self::Call(call) => Method::Call(call.payload_and_metadata().1),
            Self::Read(read) => Method::Read(read.buf().len()),
            // No other operation becomes a request.
            _ => Method::Read(0),
        }
    }

    fn into_waiting(self) -> Self {
        self
    }

    /// Its bytes are in the memory of its caller, which the kernel shows us.
    fn memory(&self) -> usize {
        0
    }

    fn attempt<S: FileServer>(
        request: &mut Request<Self>,
        server: &mut S,
        (): &mut (),
    ) -> Outcome<usize> {
        let Request { file, caller, .. } = *request;
        match &mut request.operation {
            Self::Read(read) => {
                let offset = read.offset;
                server.read(file, read.buf(), offset, caller)
            }
            Self::Write(write) => server.write(file, write.buf(), write.offset, caller),
            Self::Dup(dup) => match server.dup(file, dup.buf(), request.nonblocking, caller) {
                Outcome::Done(made) => Outcome::Done(made.map(number)),
                Outcome::Wait => Outcome::Wait,
            },
            Self::Call(call) => {
                let (payload, metadata) = call.payload_and_metadata();
                server.call(file, payload, metadata, caller)
            }
            _ => errno::ENOSYS.into(),
        }
    }
}

/// The response that answers an operation.
pub(super) fn respond(op: Op, result: Result<usize, Errno>) -> Response {
    match (&op, result) {
        (Op::Dup(_), Ok(made)) => {
            let flags = NewFdFlags::empty();
            let opened = OpenResult::ThisScheme {
                number: made,
                flags,
            };
            Response::open_dup_like(Ok(opened), op)
        }
        (_, result) => Response::new(result.map_err(error), op),
    }
}

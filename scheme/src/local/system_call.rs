//! System calls that may wait.

use crate::dispatch::{Method, Operation, Request};
use crate::server::{FileServer, Outcome};

/// A call, with memory of its own for what it carries.
pub(super) enum SystemCall {
    Read {
        offset: u64,
        buf: Vec<u8>,
    },
    Write {
        offset: u64,
        bytes: Vec<u8>,
    },
    Dup {
        verb: Vec<u8>,
    },
    Call {
        payload: Vec<u8>,
        metadata: Vec<u64>,
    },
}

impl Operation for SystemCall {
    type Tag = u64;
    type Waiting = Self;
    type Buffer = ();

    fn method(&mut self) -> Method<'_> {
        match self {
            Self::Read { .. } => Method::Read,
            Self::Write { .. } => Method::Write,
            Self::Dup { verb } => Method::Dup(verb),
            Self::Call { metadata, .. } => Method::Call(metadata),
        }
    }

    fn attempt<S: FileServer>(
        request: &mut Request<Self>,
        server: &mut S,
        (): &mut (),
    ) -> Outcome<usize> {
        let Request { file, caller, .. } = *request;
        match &mut request.operation {
            Self::Read { offset, buf } => server.read(file, buf, *offset, caller),
            Self::Write { offset, bytes } => server.write(file, bytes, *offset, caller),
            Self::Dup { verb } => match server.dup(file, verb, request.nonblocking, caller) {
                Outcome::Done(result) => Outcome::Done(result.map(|file| file.0 as usize)),
                Outcome::Wait => Outcome::Wait,
            },
            Self::Call { payload, metadata } => server.call(file, payload, metadata, caller),
        }
    }

    fn into_waiting(self) -> Self {
        self
    }
}

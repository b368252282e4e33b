//! System calls that may wait.

use crate::dispatch::{Answer, Method, Operation, Request};
use crate::server::{FileServer, Outcome};

/// A call, which owns the bytes it carries.
pub(super) enum SystemCall {
    Read {
        offset: u64,
        size: usize,
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

/// The bytes that a call read into `buffer`.
pub(super) fn read_of<'a>(answer: &Answer<SystemCall>, buffer: &'a [u8]) -> &'a [u8] {
    match (&answer.request.operation, answer.result) {
        (SystemCall::Read { .. }, Ok(len)) => &buffer[..len],
        _ => &[],
    }
}

impl Operation for SystemCall {
    type Tag = u64;
    type Waiting = Self;
    /// The bytes read, at the start. As long as the longest read so far.
    type Buffer = Vec<u8>;

    fn method(&mut self) -> Method<'_> {
        match self {
            Self::Read { size, .. } => Method::Read(*size),
            Self::Write { .. } => Method::Write,
            Self::Dup { verb } => Method::Dup(verb),
            Self::Call { metadata, .. } => Method::Call(metadata),
        }
    }

    fn attempt<S: FileServer>(
        request: &mut Request<Self>,
        server: &mut S,
        buffer: &mut Vec<u8>,
    ) -> Outcome<usize> {
        let Request { file, caller, .. } = *request;
        match &mut request.operation {
            &mut Self::Read { offset, size } => {
                if buffer.len() < size {
                    buffer.resize(size, 0);
                }
                server.read(file, &mut buffer[..size], offset, caller)
            }
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

    /// Its bytes are those of its caller, who waits for it.
    fn memory(&self) -> usize {
        0
    }
}

//! A read or write that may wait.

use crate::dispatch::{Kind, Operation, Request};
use crate::server::{FileServer, Outcome};

/// Most of a write that is kept while it waits, bytes. Only streams wait for room, and they take a
/// part.
const KEPT: usize = 64 << 10;
/// A read or write that may wait.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) offset: u64,
    pub(super) kind: CallKind,
}

#[derive(Debug)]
pub(super) enum CallKind {
    /// The size wanted, and what was read.
    Read(usize, Vec<u8>),
    Write(Vec<u8>),
}

impl Operation for Call {
    /// The request's number in the protocol.
    type Tag = u64;

    fn kind(&mut self) -> Kind<'_> {
        match self.kind {
            CallKind::Read(..) => Kind::Read,
            CallKind::Write(_) => Kind::Write,
        }
    }

    fn park(&mut self) {
        if let CallKind::Write(bytes) = &mut self.kind {
            bytes.truncate(KEPT);
            bytes.shrink_to_fit();
        }
    }

    fn attempt<S: FileServer>(request: &mut Request<Self>, server: &mut S) -> Outcome<usize> {
        let Request { file, caller, .. } = *request;
        let Self { offset, kind } = &mut request.operation;
        match kind {
            CallKind::Read(size, bytes) => {
                let mut buf = vec![0; *size];
                let outcome = server.read(file, &mut buf, *offset, caller);
                if let Outcome::Done(Ok(len)) = outcome {
                    buf.truncate(len);
                    *bytes = buf;
                }
                outcome
            }
            CallKind::Write(bytes) => server.write(file, bytes, *offset, caller),
        }
    }
}

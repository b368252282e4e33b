//! A scheme that does nothing, with which the cost of operations is compared.

use std::process::ExitCode;

use redox_scheme::scheme::{SchemeState, SchemeSync, register_sync_scheme};
use redox_scheme::{CallerCtx, OpenResult, RequestKind, SignalBehavior, Socket};
use syscall::error::{EACCES, Error, Result};
use syscall::schemev2::NewFdFlags;

const ROOT: usize = 0;
const FILE: usize = 1;

/// Every read and write is answered at once. A read returns as many bytes as were written last, or
/// as there is room for, so that a caller need not know the length.
struct Nothing {
    written: usize,
}

impl SchemeSync for Nothing {
    fn scheme_root(&mut self) -> Result<usize> {
        Ok(ROOT)
    }

    fn openat(
        &mut self,
        dir: usize,
        _path: &str,
        _flags: usize,
        _fcntl_flags: u32,
        _caller: &CallerCtx,
    ) -> Result<OpenResult> {
        if dir != ROOT {
            return Err(Error::new(EACCES));
        }
        Ok(OpenResult::ThisScheme {
            number: FILE,
            flags: NewFdFlags::empty(),
        })
    }

    fn read(
        &mut self,
        _id: usize,
        buf: &mut [u8],
        _offset: u64,
        _flags: u32,
        _caller: &CallerCtx,
    ) -> Result<usize> {
        Ok(buf.len().min(self.written))
    }

    fn write(
        &mut self,
        _id: usize,
        buf: &[u8],
        _offset: u64,
        _flags: u32,
        _caller: &CallerCtx,
    ) -> Result<usize> {
        self.written = buf.len();
        Ok(buf.len())
    }
}

/// Serves until it is killed.
pub(crate) fn serve(name: &str) -> ExitCode {
    let serve = || -> Result<()> {
        let socket = Socket::create()?;
        let mut scheme = Nothing { written: 0 };
        register_sync_scheme(&socket, name, &mut scheme)?;
        let mut state = SchemeState::new();
        while let Some(request) = socket.next_request(SignalBehavior::Restart)? {
            if let RequestKind::Call(call) = request.kind() {
                let response = call.handle_sync(&mut scheme, &mut state);
                socket.write_response(response, SignalBehavior::Restart)?;
            }
        }
        Ok(())
    };
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("redox-test: /scheme/{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

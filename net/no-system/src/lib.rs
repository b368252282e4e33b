//! The network of one machine for a target without a system: the proof that the library needs none.
//!
//! Built for `wasm32-unknown-unknown`, it is a module that imports nothing: no clock, no descriptor,
//! no environment, no randomness. `check.py` beside this file looks for what would betray one.
//!
//! A caller passes paths and packets through one [`buffer`]. Calls return a number, or an errno as a
//! negative.

use std::cell::RefCell;
use std::time::Duration;

use net::{Config, Host};
use scheme::errno::{self, Errno};
use scheme::local::OneSession;
use scheme::{Caller, FileId, FileServer, Now, OpenFlags, Outcome, Pid};

/// Bytes of the buffer.
const BUFFER: usize = 65_536;
/// The only program there is. It is the superuser's.
const PROGRAM: Caller = Caller {
    pid: Pid(1),
    uid: 0,
};

thread_local! {
    static HOST: RefCell<Option<Host>> = const { RefCell::new(None) };
    static BYTES: RefCell<[u8; BUFFER]> = const { RefCell::new([0; BUFFER]) };
}

/// Makes the machine, or another in its place. All chance comes from `seed`.
// SAFETY: the name is no other function's, here and below.
#[unsafe(no_mangle)]
pub extern "C" fn start(seed: u64) {
    let config = Config {
        seed: seed.into(),
        ..Config::default()
    };
    HOST.set(Some(Host::new(config, OneSession)));
}

/// Where the buffer is: 64 KiB.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub extern "C" fn buffer() -> *mut u8 {
    BYTES.with(|bytes| bytes.as_ptr().cast())
}

/// Advances time to `micros` since the start, and does what is due. Returns the time of the next
/// turn: `micros` itself if there is work left, a negative if nothing will be due by itself.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub extern "C" fn turn(micros: u64) -> i64 {
    let time = Duration::from_micros(micros);
    let now = Now {
        monotonic: time,
        wall: time,
    };
    HOST.with_borrow_mut(|host| {
        let turn = host.as_mut()?.turn(now);
        let at = match turn.pending {
            true => time,
            false => turn.deadline?,
        };
        i64::try_from(at.as_micros()).ok()
    })
    .unwrap_or(-1)
}

/// Opens the path in the first `len` bytes of the buffer, to read and write. Returns the file.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub extern "C" fn open(len: usize) -> i32 {
    with(len, |host, bytes| {
        let path = std::str::from_utf8(bytes).map_err(|_| errno::EINVAL)?;
        let file = host.open(path, OpenFlags::READ | OpenFlags::WRITE, PROGRAM)?;
        Ok(file.0 as usize)
    })
}

/// Reads from a file into the first `len` bytes of the buffer. Returns how many there were, or
/// `-EAGAIN` if there is nothing yet.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub extern "C" fn read(file: u32, len: usize) -> i32 {
    with(len, |host, bytes| {
        let file = FileId(file);
        let read = done(host.read(file, bytes, 0, PROGRAM))?;
        host.complete_read(file, true);
        Ok(read)
    })
}

/// Writes the first `len` bytes of the buffer to a file. Returns how many were taken.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub extern "C" fn write(file: u32, len: usize) -> i32 {
    with(len, |host, bytes| {
        done(host.write(FileId(file), bytes, 0, PROGRAM))
    })
}

/// Closes a file.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub extern "C" fn close(file: u32) {
    HOST.with_borrow_mut(|host| {
        if let Some(host) = host {
            host.close(FileId(file));
        }
    });
}

/// Does something with the machine and the first `len` bytes of the buffer.
fn with(len: usize, call: impl FnOnce(&mut Host, &mut [u8]) -> Result<usize, Errno>) -> i32 {
    let result = HOST.with_borrow_mut(|host| {
        let host = host.as_mut().ok_or(errno::ENODEV)?;
        BYTES.with_borrow_mut(|bytes| {
            let bytes = bytes.get_mut(..len).ok_or(errno::EINVAL)?;
            call(host, bytes)
        })
    });
    match result {
        Ok(number) => number as i32,
        Err(error) => -error.raw(),
    }
}

fn done(outcome: Outcome<usize>) -> Result<usize, Errno> {
    match outcome {
        Outcome::Done(result) => result,
        Outcome::Wait => Err(errno::EAGAIN),
    }
}

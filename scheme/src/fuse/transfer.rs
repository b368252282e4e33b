//! A read or write that may wait.

use std::borrow::Cow;

use crate::dispatch::{Method, Operation, Request};
use crate::server::{FileServer, Outcome};

/// Most bytes of a write that waits. Only streams wait for room, and they accept partial writes.
const MAX_WAITING_WRITE: usize = 64 << 10;

/// A read or write, and the table of descriptors that it came by. In the first attempt the bytes of
/// a write are borrowed from the kernel's message.
#[derive(Debug)]
pub(super) struct Transfer<'a> {
    /// The kernel's number for the table, which the threads of a process share (`lock_owner`).
    pub(super) owner: u64,
    pub(super) offset: u64,
    pub(super) data: Data<'a>,
}

/// The size, or the bytes, of a transfer.
#[derive(Debug)]
pub(super) enum Data<'a> {
    Read(usize),
    Write(Cow<'a, [u8]>),
}

impl Operation for Transfer<'_> {
    /// The request's number in the protocol.
    type Tag = u64;
    type Waiting = Transfer<'static>;
    /// The bytes read, at the start. As long as the longest read so far.
    type Buffer = Vec<u8>;

    fn method(&mut self) -> Method<'_> {
        match self.data {
            Data::Read(size) => Method::Read(size),
            Data::Write(_) => Method::Write,
        }
    }

    fn attempt<S: FileServer>(
        request: &mut Request<Self>,
        server: &mut S,
        buffer: &mut Vec<u8>,
    ) -> Outcome<usize> {
        let Request { file, caller, .. } = *request;
        let offset = request.operation.offset;
        match &request.operation.data {
            &Data::Read(size) => {
                if buffer.len() < size {
                    buffer.resize(size, 0);
                }
                server.read(file, &mut buffer[..size], offset, caller)
            }
            Data::Write(bytes) => server.write(file, bytes, offset, caller),
        }
    }

    fn memory(&self) -> usize {
        match &self.data {
            Data::Read(_) => 0,
            Data::Write(bytes) => bytes.len().min(MAX_WAITING_WRITE),
        }
    }

    fn into_waiting(self) -> Transfer<'static> {
        let data = match self.data {
            Data::Read(size) => Data::Read(size),
            Data::Write(bytes) => {
                let bytes = &bytes[..bytes.len().min(MAX_WAITING_WRITE)];
                Data::Write(Cow::Owned(bytes.to_vec()))
            }
        };
        Transfer {
            owner: self.owner,
            offset: self.offset,
            data,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::{Answer, Dispatch, Life};
    use crate::errno::{self, Errno};
    use crate::server::{
        Caller, DirEntry, FileId, FileKind, Now, OpenFlags, Pid, Ready, Stat, Turn, Wakeup,
    };

    /// A file that records where the bytes of each attempt were.
    #[derive(Default)]
    struct Attempts {
        /// Whether requests have to wait.
        full: bool,
        woken: bool,
        /// Address and length of the bytes of each attempt.
        seen: Vec<(*const u8, usize)>,
    }

    impl Attempts {
        fn outcome(&mut self, bytes: &[u8]) -> Outcome<usize> {
            self.seen.push((bytes.as_ptr(), bytes.len()));
            match self.full {
                true => Outcome::Wait,
                false => Outcome::Done(Ok(bytes.len().min(3))),
            }
        }
    }

    const DEVICE: Stat = Stat {
        kind: FileKind::Device,
        mode: 0o600,
        size: 0,
    };
    const CALLER: Caller = Caller {
        pid: Pid(1),
        uid: 0,
    };

    impl FileServer for Attempts {
        fn turn(&mut self, _: Now) -> Turn {
            Turn {
                pending: false,
                deadline: None,
            }
        }

        fn poll_wakeup(&mut self) -> Option<Wakeup> {
            std::mem::take(&mut self.woken).then_some(Wakeup {
                file: FileId(0),
                ready: Ready::all(),
            })
        }

        fn stat(&mut self, _: &str) -> Result<Stat, Errno> {
            Ok(DEVICE)
        }

        fn open(&mut self, _: &str, _: OpenFlags, _: Caller) -> Result<FileId, Errno> {
            Ok(FileId(0))
        }

        fn read(&mut self, _: FileId, buf: &mut [u8], _: u64, _: Caller) -> Outcome<usize> {
            if !self.full {
                buf[..3].copy_from_slice(b"abc");
            }
            self.outcome(buf)
        }

        fn write(&mut self, _: FileId, buf: &[u8], _: u64, _: Caller) -> Outcome<usize> {
            self.outcome(buf)
        }

        fn fstat(&mut self, _: FileId) -> Result<Stat, Errno> {
            Ok(DEVICE)
        }

        fn list(&mut self, _: FileId) -> Result<Vec<DirEntry>, Errno> {
            Err(errno::ENOTDIR)
        }

        fn path(&self, _: FileId) -> Result<String, Errno> {
            Ok(String::new())
        }

        fn ready(&mut self, _: FileId) -> Ready {
            Ready::empty()
        }

        fn close(&mut self, _: FileId) {}
    }

    fn dispatch(full: bool) -> Dispatch<Attempts, Transfer<'static>> {
        let server = Attempts {
            full,
            ..Attempts::default()
        };
        let mut dispatch = Dispatch::new(server);
        let both = OpenFlags::READ | OpenFlags::WRITE;
        dispatch.open("", both, CALLER).unwrap();
        dispatch
    }

    fn request(tag: u64, data: Data<'_>) -> Request<Transfer<'_>> {
        let operation = Transfer {
            owner: 0,
            offset: 0,
            data,
        };
        Request {
            tag,
            file: FileId(0),
            caller: CALLER,
            nonblocking: false,
            operation,
        }
    }

    fn read(tag: u64) -> Request<Transfer<'static>> {
        request(tag, Data::Read(1 << 16))
    }

    fn write(tag: u64, bytes: &[u8]) -> Request<Transfer<'_>> {
        request(tag, Data::Write(Cow::Borrowed(bytes)))
    }

    /// Wakes the file. Returns, for each answer, its tag and the bytes read.
    fn wake(dispatch: &mut Dispatch<Attempts, Transfer<'static>>) -> Vec<(u64, Vec<u8>)> {
        let mut answers = Vec::new();
        dispatch.server.woken = true;
        let answer = |answer: Answer<Transfer<'_>>, _: &mut _, buffer: &Vec<u8>| {
            let read = buffer[..answer.result.unwrap()].to_vec();
            answers.push((answer.request.tag, read));
        };
        let life = |_: &Request<_>, _| Life::Alive;
        let _ = dispatch.turn(Now::default(), answer, &mut Vec::new(), life, |_| false);
        answers
    }

    #[test]
    fn a_write_is_tried_where_the_kernel_put_it() {
        let mut dispatch = dispatch(false);
        let message = vec![7; 1 << 20];
        let answer = dispatch.submit(write(1, &message)).unwrap();
        assert_eq!(answer.result, Ok(3));
        let whole = (message.as_ptr(), message.len());
        assert_eq!(dispatch.server.seen, [whole]);
    }

    #[test]
    fn a_write_that_waits_keeps_a_part_of_its_own() {
        let mut dispatch = dispatch(true);
        let message = vec![7; 1 << 20];
        assert!(dispatch.submit(write(1, &message)).is_none());
        drop(message);
        wake(&mut dispatch);
        wake(&mut dispatch);
        let [_, second, third] = dispatch.server.seen[..] else {
            panic!("{:?}", dispatch.server.seen);
        };
        assert_eq!(second.1, MAX_WAITING_WRITE);
        assert_eq!(second, third);
    }

    #[test]
    fn a_read_of_no_bytes_stands_behind_nobody() {
        let mut dispatch = dispatch(true);
        assert!(dispatch.submit(read(1)).is_none());
        let mut empty = read(2);
        empty.operation.data = Data::Read(0);
        assert!(dispatch.submit(empty).is_none());
        assert_eq!(dispatch.server.seen.len(), 2, "it was tried at once");
    }

    #[test]
    fn reads_that_wait_have_one_buffer_for_every_attempt() {
        let mut dispatch = dispatch(true);
        assert!(dispatch.submit(read(1)).is_none());
        assert!(dispatch.submit(read(2)).is_none());
        for _ in 0..3 {
            assert_eq!(wake(&mut dispatch), []);
        }
        dispatch.server.full = false;
        let abc = b"abc".to_vec();
        assert_eq!(wake(&mut dispatch), [(1, abc.clone()), (2, abc)]);
        let buffer = (dispatch.buffer.as_ptr(), 1 << 16);
        assert_eq!(dispatch.server.seen, [buffer; 6]);
    }
}

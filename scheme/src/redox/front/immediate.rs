//! Requests that never wait: open, stat, events, directories.

use redox_scheme::scheme::SchemeSync;
use redox_scheme::{CallerCtx, OpenResult};
use syscall::dirent::{DirEntry as SysDirEntry, DirentBuf, DirentKind};
use syscall::error::Result;
use syscall::flag::{
    EventFlags, F_GETFL, F_SETFL, MODE_CHR, MODE_DIR, MODE_FILE, MapFlags, O_ACCMODE, O_ASYNC,
    O_DIRECTORY, O_NONBLOCK, O_RDONLY, O_RDWR, O_STAT, O_TRUNC, O_WRONLY,
};
use syscall::schemev2::NewFdFlags;

use super::{
    MAX_STAT_HANDLES, RESERVED_STAT_HANDLES, ROOT, SchemeFront, StatHandle, caller, error,
    event_flags, number,
};
use crate::errno;
use crate::server::{FileKind, FileServer, OpenFlags, Ready, Stat};

/// One scheme of the front, for the requests that never wait.
pub(super) struct OneScheme<'a, S> {
    pub(super) front: &'a mut SchemeFront<S>,
    pub(super) scheme: usize,
}

impl<S: FileServer> SchemeSync for OneScheme<'_, S> {
    fn openat(
        &mut self,
        dir: usize,
        path: &str,
        flags: usize,
        fcntl_flags: u32,
        ctx: &CallerCtx,
    ) -> Result<OpenResult> {
        let path = self.front.resolve(self.scheme, dir, path)?;
        let server = &mut self.front.dispatch.server;
        let stat = server.stat(&path).map_err(error)?;
        if flags & O_STAT == O_STAT {
            return self.open_to_stat(path, stat, ctx.uid);
        }
        let mut open = match flags & O_ACCMODE {
            O_RDONLY => OpenFlags::READ,
            O_WRONLY => OpenFlags::WRITE,
            O_RDWR => OpenFlags::READ | OpenFlags::WRITE,
            _ => OpenFlags::empty(),
        };
        open.set(OpenFlags::DIRECTORY, flags & O_DIRECTORY == O_DIRECTORY);
        open.set(OpenFlags::TRUNCATE, flags & O_TRUNC == O_TRUNC);
        let file = self
            .front
            .dispatch
            .open(&path, open, caller(ctx, true))
            .map_err(error)?;
        let fcntl_flags = fcntl_flags as usize;
        let nonblocking = fcntl_flags & O_NONBLOCK != 0;
        let user = caller(ctx, true).pid;
        self.front.note_open(self.scheme, file, user, nonblocking);
        if fcntl_flags & O_ASYNC != 0 {
            self.front
                .dispatch
                .server
                .set_async(file, true)
                .map_err(error)?;
        }
        let flags = match stat.kind {
            // The kernel keeps the offset of text files; packets have none.
            FileKind::Text | FileKind::Directory => NewFdFlags::POSITIONED,
            FileKind::Device | FileKind::Stream => NewFdFlags::empty(),
        };
        let number = number(file);
        Ok(OpenResult::ThisScheme { number, flags })
    }

    fn fcntl(&mut self, id: usize, cmd: usize, arg: usize, _ctx: &CallerCtx) -> Result<usize> {
        if self.front.stat_handles.contains_key(&id) {
            return Ok(0);
        }
        match cmd {
            // The kernel answers with its own flags; it only needs a result that is not an error.
            F_GETFL => Ok(0),
            F_SETFL => {
                let file = self.front.file(id)?;
                let open = self.front.open.get_mut(file.0).ok_or(error(errno::EBADF))?;
                open.nonblocking = arg & O_NONBLOCK != 0;
                let server = &mut self.front.dispatch.server;
                server.set_async(file, arg & O_ASYNC != 0).map_err(error)?;
                Ok(0)
            }
            _ => Err(error(errno::EINVAL)),
        }
    }

    fn fevent(&mut self, id: usize, flags: EventFlags, _ctx: &CallerCtx) -> Result<EventFlags> {
        let Ok(file) = self.front.file(id) else {
            // This is never an error: poll would fail for all of its files.
            return Ok(EventFlags::empty());
        };
        let mut mask = Ready::empty();
        mask.set(Ready::READ, flags.contains(EventFlags::EVENT_READ));
        mask.set(Ready::WRITE, flags.contains(EventFlags::EVENT_WRITE));
        let ready = self.front.dispatch.server.ready(file);
        Ok(event_flags(self.front.watches.arm(file, mask, ready)))
    }

    fn fpath(&mut self, id: usize, buf: &mut [u8], _ctx: &CallerCtx) -> Result<usize> {
        let path = if id == ROOT {
            self.front.names[self.scheme].to_owned()
        } else if let Some(look) = self.front.stat_handles.get(&id) {
            look.path.clone()
        } else {
            let file = self.front.file(id)?;
            self.front.dispatch.server.path(file).map_err(error)?
        };
        let path = format!("/scheme/{path}");
        let len = path.len().min(buf.len());
        buf[..len].copy_from_slice(&path.as_bytes()[..len]);
        Ok(len)
    }

    fn fstat(&mut self, id: usize, stat: &mut syscall::Stat, _ctx: &CallerCtx) -> Result<()> {
        let found = if id == ROOT {
            let name = self.front.names[self.scheme];
            self.front.dispatch.server.stat(name)
        } else if let Some(look) = self.front.stat_handles.get(&id) {
            Ok(look.stat)
        } else {
            let file = self.front.file(id)?;
            self.front.dispatch.server.fstat(file)
        };
        fill(found.map_err(error)?, stat);
        Ok(())
    }

    fn fsync(&mut self, id: usize, _ctx: &CallerCtx) -> Result<()> {
        let file = self.front.file(id)?;
        self.front.dispatch.server.sync(file).map_err(error)
    }

    fn ftruncate(&mut self, id: usize, _len: u64, _ctx: &CallerCtx) -> Result<()> {
        // O_TRUNC and ftruncate change nothing: there is no file to truncate.
        self.front.file(id).map(drop)
    }

    fn getdents<'buf>(
        &mut self,
        id: usize,
        mut buf: DirentBuf<&'buf mut [u8]>,
        opaque_offset: u64,
    ) -> Result<DirentBuf<&'buf mut [u8]>> {
        let file = self.front.file(id)?;
        let start = usize::try_from(opaque_offset).map_err(|_| error(errno::EINVAL))?;
        let entries = self.front.listing(file, start)?;
        if start >= entries.len() {
            // The reader is at the end.
            self.front.forget_listing(file);
            return Ok(buf);
        }
        for (at, entry) in entries.iter().enumerate().skip(start) {
            let kind = match entry.kind {
                FileKind::Directory => DirentKind::Directory,
                FileKind::Text | FileKind::Stream => DirentKind::Regular,
                FileKind::Device => DirentKind::CharDev,
            };
            let added = buf.entry(SysDirEntry {
                inode: 0,
                next_opaque_id: at as u64 + 1,
                name: &entry.name,
                kind,
            });
            match added {
                Ok(()) => {}
                // The buffer is full; the rest comes with the next call, but one entry at least
                // must fit.
                Err(error) if at == start => return Err(error),
                Err(_) => break,
            }
        }
        Ok(buf)
    }

    fn mmap_prep(
        &mut self,
        _id: usize,
        _offset: u64,
        _size: usize,
        _flags: MapFlags,
        _ctx: &CallerCtx,
    ) -> Result<usize> {
        // Nothing is shared with clients, and a private mapping of ours would crash the kernel.
        Err(error(errno::ENODEV))
    }
}

impl<S: FileServer> OneScheme<'_, S> {
    fn open_to_stat(&mut self, path: String, stat: Stat, uid: u32) -> Result<OpenResult> {
        let front = &mut *self.front;
        let limit = match uid {
            0 => MAX_STAT_HANDLES,
            _ => MAX_STAT_HANDLES - RESERVED_STAT_HANDLES,
        };
        if front.stat_handles.len() >= limit {
            return Err(error(errno::ENFILE));
        }
        front.next_stat_handle += 1;
        front
            .stat_handles
            .insert(front.next_stat_handle, StatHandle { path, stat });
        Ok(OpenResult::ThisScheme {
            number: front.next_stat_handle,
            flags: NewFdFlags::empty(),
        })
    }
}

fn fill(stat: Stat, out: &mut syscall::Stat) {
    let kind = match stat.kind {
        FileKind::Directory => MODE_DIR,
        FileKind::Text | FileKind::Stream => MODE_FILE,
        FileKind::Device => MODE_CHR,
    };
    *out = syscall::Stat {
        st_mode: kind | stat.mode,
        st_nlink: 1,
        st_size: stat.size,
        st_blksize: 4096,
        ..Default::default()
    };
}

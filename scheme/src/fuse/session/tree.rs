//! Requests about paths.

use polyfuse_kernel as abi;
use rustix::fs::OFlags;
use zerocopy::{FromBytes, IntoBytes};

use super::Session;
use crate::errno;
use crate::fuse::message::{Reply, file, name, parse};
use crate::fuse::processes::process_of;
use crate::server::{Caller, DirEntry, FileId, FileKind, FileServer, OpenFlags, Stat};

/// The kernel allows several writes at once (`FOPEN_PARALLEL_DIRECT_WRITES`); without it a waiting
/// read would hold the lock that a write needs.
const PARALLEL_DIRECT_WRITES: u32 = 1 << 6;

/// The size of a file that has none, bytes.
const DEVICE_SIZE: u64 = 1 << 40;
/// Bytes of a block, for those that ask.
const BLOCK: u32 = 4096;

impl<S: FileServer> Session<'_, S> {
    pub(super) fn look_up(&mut self, parent: u64, body: &[u8]) -> Reply {
        let path = self.nodes.child(parent, name(body)?)?;
        let stat = self.dispatch.server.stat(&path)?;
        let nodeid = self.nodes.look_up(path, stat.kind);
        // The kernel must not cache it: interfaces come and go.
        let entry = abi::fuse_entry_out {
            nodeid,
            attr: attributes(nodeid, stat),
            ..Default::default()
        };
        Ok(entry.as_bytes().to_vec())
    }

    pub(super) fn forget_many(&mut self, body: &[u8]) {
        let Ok((batch, mut rest)) = abi::fuse_batch_forget_in::read_from_prefix(body) else {
            return;
        };
        for _ in 0..batch.count {
            let Ok((one, tail)) = abi::fuse_forget_one::read_from_prefix(rest) else {
                return;
            };
            self.nodes.forget(one.nodeid, one.nlookup);
            rest = tail;
        }
    }

    pub(super) fn attributes(&mut self, nodeid: u64) -> Reply {
        let server = &mut self.dispatch.server;
        let stat = self.nodes.path(nodeid).and_then(|path| server.stat(path));
        let stat = stat.or_else(|error| {
            // The kernel does not say whether it was asked about an open file, whose path may be
            // gone, or forgotten.
            let files = (nodeid, FileId(0))..=(nodeid, FileId(u32::MAX));
            match self.opened.range(files).next() {
                Some(&(_, file)) => server.fstat(file),
                None => Err(error),
            }
        })?;
        let out = abi::fuse_attr_out {
            attr: attributes(nodeid, stat),
            ..Default::default()
        };
        Ok(out.as_bytes().to_vec())
    }

    /// Answers by the permission bits, which hold for root too, as they do for an open.
    pub(super) fn access(&mut self, nodeid: u64, body: &[u8], caller: Caller) -> Reply {
        let wanted = parse::<abi::fuse_access_in>(body)?.mask;
        let stat = self.dispatch.server.stat(self.nodes.path(nodeid)?)?;
        // Every file belongs to root.
        let granted = match caller.uid {
            0 => stat.mode >> 6,
            _ => stat.mode,
        };
        match wanted & 0o7 & !u32::from(granted) {
            0 => Ok(Vec::new()),
            _ => Err(errno::EACCES),
        }
    }

    pub(super) fn set_attributes(&mut self, nodeid: u64, body: &[u8]) -> Reply {
        let set = parse::<abi::fuse_setattr_in>(body)?;
        if set.valid & (abi::FATTR_MODE | abi::FATTR_UID | abi::FATTR_GID) != 0 {
            return Err(errno::EPERM);
        }
        self.attributes(nodeid)
    }

    pub(super) fn open(&mut self, nodeid: u64, body: &[u8], caller: Caller) -> Reply {
        let open = parse::<abi::fuse_open_in>(body)?;
        let sys = OFlags::from_bits_retain(open.flags);
        let mut flags = match sys & OFlags::RWMODE {
            OFlags::WRONLY => OpenFlags::WRITE,
            OFlags::RDWR => OpenFlags::READ | OpenFlags::WRITE,
            _ => OpenFlags::READ,
        };
        flags.set(OpenFlags::TRUNCATE, sys.contains(OFlags::TRUNC));
        let path = self.nodes.path(nodeid)?.to_owned();
        let stat = self.dispatch.server.stat(&path)?;
        // A file of this size cannot be opened without O_LARGEFILE. The kernel itself does, to ask
        // for the attributes of chattr(1), which there are not.
        if stat.kind == FileKind::Device && !sys.contains(OFlags::LARGEFILE) {
            return Err(errno::ENOTTY);
        }
        let caller = Caller {
            pid: process_of(caller.pid),
            ..caller
        };
        let id = self.dispatch.open(&path, flags, caller)?;
        self.opened.insert((nodeid, id));
        let open_flags = match stat.kind {
            FileKind::Device | FileKind::Stream => {
                self.devices.insert(id);
                abi::FOPEN_DIRECT_IO
                    | abi::FOPEN_STREAM
                    | abi::FOPEN_NONSEEKABLE
                    | PARALLEL_DIRECT_WRITES
            }
            FileKind::Text | FileKind::Directory => abi::FOPEN_DIRECT_IO,
        };
        let out = abi::fuse_open_out {
            fh: id.0.into(),
            open_flags,
            padding: 0,
        };
        Ok(out.as_bytes().to_vec())
    }

    pub(super) fn open_directory(&mut self, nodeid: u64, caller: Caller) -> Reply {
        let path = self.nodes.path(nodeid)?.to_owned();
        let flags = OpenFlags::READ | OpenFlags::DIRECTORY;
        let id = self.dispatch.open(&path, flags, caller)?;
        let out = abi::fuse_open_out {
            fh: id.0.into(),
            ..Default::default()
        };
        Ok(out.as_bytes().to_vec())
    }

    pub(super) fn read_directory(&mut self, body: &[u8], caller: Caller) -> Reply {
        let read = parse::<abi::fuse_read_in>(body)?;
        let file = file(read.fh);
        // A program that reads from the start again gets a new list.
        if read.offset == 0 {
            let dot = |name: &str| DirEntry {
                name: name.to_owned(),
                kind: FileKind::Directory,
            };
            let mut entries = vec![dot("."), dot("..")];
            entries.extend(self.dispatch.server.list(file)?);
            self.listings.keep(file, entries, caller.uid)?;
        }
        let entries = self.listings.get(file);
        let start = usize::try_from(read.offset).map_err(|_| errno::EINVAL)?;
        let mut out = Vec::new();
        for (at, entry) in entries.iter().enumerate().skip(start) {
            let dirent = abi::fuse_dirent {
                ino: u64::MAX,
                off: at as u64 + 1,
                namelen: entry.name.len() as u32,
                typ: kind_bits(entry.kind) >> 12,
                name: [],
            };
            let len = (dirent.as_bytes().len() + entry.name.len()).next_multiple_of(8);
            if out.len() + len > read.size as usize {
                break;
            }
            let end = out.len() + len;
            out.extend_from_slice(dirent.as_bytes());
            out.extend_from_slice(entry.name.as_bytes());
            out.resize(end, 0);
        }
        Ok(out)
    }
}

/// The statistics of the file system: it takes no blocks, like `/proc`.
pub(super) fn statistics() -> Vec<u8> {
    let out = abi::fuse_statfs_out {
        st: abi::fuse_kstatfs {
            bsize: BLOCK,
            frsize: BLOCK,
            namelen: 255,
            ..Default::default()
        },
    };
    out.as_bytes().to_vec()
}

fn kind_bits(kind: FileKind) -> u32 {
    match kind {
        FileKind::Directory => 0o040_000,
        // Linux would open a device node itself, so on a mount a device is a regular file.
        FileKind::Text | FileKind::Stream | FileKind::Device => 0o100_000,
    }
}

fn attributes(nodeid: u64, stat: Stat) -> abi::fuse_attr {
    abi::fuse_attr {
        ino: nodeid,
        // A write past the end would have the kernel lock the path against all other writers, and
        // keep it locked while one of them waits.
        size: match stat.kind {
            FileKind::Device => DEVICE_SIZE,
            _ => stat.size,
        },
        mode: kind_bits(stat.kind) | u32::from(stat.mode),
        nlink: 1,
        blksize: BLOCK,
        ..Default::default()
    }
}

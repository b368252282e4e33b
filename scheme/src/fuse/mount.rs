//! Mounting and unmounting the tree.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno as Sys;
use rustix::mount::{MountFlags, UnmountFlags};

use super::MAX_OPERATION;
use super::message::Channel;

/// The type of our mounts in the list of mounts.
const FILE_SYSTEM: &str = "fuse.tund";

/// A mounted tree; unmounted on drop.
#[derive(Debug)]
pub struct Mount {
    device: OwnedFd,
    dir: PathBuf,
}

impl Mount {
    /// Mounts at `dir`, which must exist. Needs root, or a user namespace of one's own. Replaces a
    /// mount whose daemon died; `EBUSY` if the daemon is alive.
    pub fn new(dir: &Path) -> io::Result<Self> {
        let dir = vacate(dir)?;
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let device = rustix::fs::open("/dev/fuse", flags, Mode::empty())?;
        let options = format!(
            "fd={},rootmode=40000,user_id={},group_id={},allow_other,max_read={MAX_OPERATION}",
            device.as_raw_fd(),
            rustix::process::getuid().as_raw(),
            rustix::process::getgid().as_raw(),
        );
        let options = std::ffi::CString::new(options)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
        rustix::mount::mount("tund", &dir, FILE_SYSTEM, flags, options.as_c_str())?;
        Ok(Self { device, dir })
    }

    /// The directory of the mount.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The connection to the kernel.
    pub(super) fn channel(&self) -> Channel<'_> {
        Channel(self.device.as_fd())
    }

    /// Whether the kernel has closed the connection.
    fn is_gone(&self) -> bool {
        let mut fds = [PollFd::new(&self.device, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&Timespec::default())), Ok(1..))
            && fds[0].revents().contains(PollFlags::ERR)
    }
}

/// The real path of `dir`, once no mount of ours is there. A mount without a daemon is removed.
fn vacate(dir: &Path) -> io::Result<PathBuf> {
    let dir = dir.canonicalize()?;
    while is_ours(&dir)? {
        match rustix::fs::stat(&dir) {
            Err(Sys::NOTCONN) => {
                log::warn!("the daemon that served {} died", dir.display());
                rustix::mount::unmount(&dir, UnmountFlags::DETACH)?;
            }
            _ => {
                let busy = io::ErrorKind::ResourceBusy;
                return Err(io::Error::new(busy, "another tund serves it"));
            }
        }
    }
    Ok(dir)
}

/// Whether a path is on a mount of ours, alive or dead.
fn is_ours(path: &Path) -> io::Result<bool> {
    // A mount without a daemon answers nothing, but the kernel still knows its device number.
    let flags = AtFlags::STATX_DONT_SYNC;
    let stat = rustix::fs::statx(CWD, path, flags, StatxFlags::empty())?;
    let device = format!("{}:{}", stat.stx_dev_major, stat.stx_dev_minor);
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(mounts.lines().any(|line| {
        // Number, parent, device, ... - kind, ...
        let kind = line
            .split_once(" - ")
            .map(|(_, rest)| rest.split(' ').next());
        line.split(' ').nth(2) == Some(&device) && kind == Some(Some(FILE_SYSTEM))
    }))
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.is_gone() {
            // It was unmounted by somebody else. Whatever is mounted there now is not ours.
            return;
        }
        if let Err(error) = rustix::mount::unmount(&self.dir, UnmountFlags::DETACH) {
            log::warn!("cannot unmount {}: {error}", self.dir.display());
        }
    }
}

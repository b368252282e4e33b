//! Mounting and unmounting the tree.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno as Sys;
use rustix::mount::{MountFlags, UnmountFlags};

use super::MAX_OPERATION;
use super::message::Channel;

/// The type of our mounts in the list of mounts.
const FILE_SYSTEM: &str = "fuse.tund";

/// Asks for a mount's number that is never used again (`STATX_MNT_ID_UNIQUE`, Linux 6.8). An older
/// kernel ignores it.
const UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// A mounted tree. On drop it is unmounted, wherever it was moved; what somebody else mounted over
/// it, or in its place, stays.
#[derive(Debug)]
pub struct Mount {
    device: OwnedFd,
    dir: PathBuf,
    place: Place,
}

/// Which mount a path is on.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    /// The number of the mount.
    mount: u64,
    /// The device number of its file system, as the list of mounts writes it.
    device: String,
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
        let place = Place::of(&dir)?;
        Ok(Self { device, dir, place })
    }

    /// The directory of the mount.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The connection to the kernel.
    pub(super) fn channel(&self) -> Channel<'_> {
        Channel(self.device.as_fd())
    }

    /// The end of a connection that the kernel has closed: an error if the tree is still mounted,
    /// because then nobody unmounted it.
    pub(super) fn ended(&self) -> io::Result<()> {
        match self.find()? {
            Found::Nowhere => Ok(()),
            Found::At(_) | Found::Covered(_) => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                format!("the kernel aborted the mount at {}", self.dir.display()),
            )),
        }
    }

    /// Where the mount is now.
    fn find(&self) -> io::Result<Found> {
        let mut found = Found::Nowhere;
        for point in mount_points(&self.place.device)? {
            match Place::of(&point) {
                Ok(place) if place == self.place => return Ok(Found::At(point)),
                // Another mount of the same tree, made by `mount --bind`.
                Ok(place) if place.device == self.place.device => {}
                _ => found = Found::Covered(point),
            }
        }
        Ok(found)
    }

    fn unmount(&self) -> io::Result<()> {
        match self.find()? {
            Found::At(point) => {
                if point != self.dir {
                    log::warn!("the mount was moved to {}", point.display());
                }
                Ok(rustix::mount::unmount(&point, UnmountFlags::DETACH)?)
            }
            Found::Covered(point) => {
                log::warn!(
                    "another mount covers {}: ours stays below it, dead",
                    point.display()
                );
                Ok(())
            }
            Found::Nowhere => Ok(()),
        }
    }
}

/// Where a mount is.
enum Found {
    At(PathBuf),
    /// Below a mount of somebody else, which would have to go first.
    Covered(PathBuf),
    Nowhere,
}

impl Place {
    fn of(path: &Path) -> io::Result<Self> {
        // A mount without a daemon answers nothing, but the kernel still knows its numbers.
        let flags = AtFlags::STATX_DONT_SYNC;
        let stat = rustix::fs::statx(CWD, path, flags, StatxFlags::MNT_ID | UNIQUE)?;
        Ok(Self {
            mount: stat.stx_mnt_id,
            device: format!("{}:{}", stat.stx_dev_major, stat.stx_dev_minor),
        })
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
    Ok(!mount_points(&Place::of(path)?.device)?.is_empty())
}

/// The mount points of our trees with this device number.
fn mount_points(device: &str) -> io::Result<Vec<PathBuf>> {
    let mounts = fs::read("/proc/self/mountinfo")?;
    let lines = mounts.split(|&byte| byte == b'\n');
    Ok(lines.filter_map(|line| mount_point(line, device)).collect())
}

/// The mount point of a line of the list of mounts, if it is a tree of ours with this device number.
fn mount_point(line: &[u8], device: &str) -> Option<PathBuf> {
    // Number, parent, device, root, mount point, options, any number of tags, -, kind, ...
    let mut words = line.split(|&byte| byte == b' ');
    let of_device = words.nth(2)? == device.as_bytes();
    let point = words.nth(1)?;
    let kind = words.skip_while(|&word| word != b"-").nth(1)?;
    (of_device && kind == FILE_SYSTEM.as_bytes()).then(|| unescape(point))
}

/// The path that the list of mounts writes so: blanks and backslashes are three octal digits after a
/// backslash.
fn unescape(word: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(word.len());
    let mut rest = word;
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..3).and_then(|digits| str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        (rest, _) = match (first, escaped) {
            (b'\\', Some(byte)) => (&tail[3..], path.push(byte)),
            _ => (tail, path.push(*first)),
        };
    }
    PathBuf::from(OsString::from_vec(path))
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            log::warn!("cannot unmount {}: {error}", self.dir.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_found_by_device_and_kind() {
        let line =
            br"36 35 0:52 / /tmp/a\040b\134 rw,noatime shared:1 master:2 - fuse.tund tund rw";
        let point = PathBuf::from(r"/tmp/a b\");
        assert_eq!(mount_point(line, "0:52"), Some(point));
        assert_eq!(mount_point(line, "0:5"), None);
        let other = b"36 35 0:52 / /tmp/a rw - tmpfs tund rw";
        assert_eq!(mount_point(other, "0:52"), None);
        assert_eq!(mount_point(b"", "0:52"), None);
    }

    #[test]
    fn a_backslash_without_digits_is_a_backslash() {
        for path in [r"/a\", r"/a\9", r"/a\999", r"\0a"] {
            assert_eq!(unescape(path.as_bytes()), PathBuf::from(path));
        }
    }
}

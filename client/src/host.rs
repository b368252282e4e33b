//! Linux's own tun device, the other end of `tunctl bridge`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use crate::batch::Format;
use crate::{Device, sys};

const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const IFF_TUN: i16 = 0x0001;
const IFF_NO_PI: i16 = 0x1000;

/// A tun device of the Linux kernel, without packet information.
///
/// ```no_run
/// # fn main() -> std::io::Result<()> {
/// let host0 = tun::host::HostTun::open("host0")?;
/// let tun = tun::Tun::open("/tmp/net", tun::Unit::Clone)?;
/// let mut packet = [0; 65_536];
/// loop {
///     let len = host0.read(&mut packet)?; // EINTR as in `Tun::read`
///     tun.write(&packet[..len])?; // the kernel's packets reach the stack
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct HostTun {
    file: File,
    name: String,
}

#[repr(C)]
struct IfReq {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

impl HostTun {
    /// Attaches to the kernel's interface `name`, making it if it is not there. `EPERM` without
    /// `CAP_NET_ADMIN`, `EBUSY` if somebody has it, `EINVAL` for a name of more than 15 bytes.
    pub fn open(name: &str) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/net/tun")?;
        let mut ifreq = IfReq {
            name: [0; 16],
            flags: IFF_TUN | IFF_NO_PI,
            rest: [0; 22],
        };
        if name.is_empty() || name.len() > 15 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        ifreq.name[..name.len()].copy_from_slice(name.as_bytes());
        // SAFETY: the kernel reads and writes a struct ifreq, whose layout and size `IfReq` has.
        let done = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut ifreq) };
        match done {
            -1 => Err(io::Error::last_os_error()),
            _ => {
                // The kernel fills in the number of a name such as "tun%d".
                let name = ifreq.name.split(|&byte| byte == 0).next();
                let name = String::from_utf8_lossy(name.unwrap_or_default()).into_owned();
                Ok(Self { file, name })
            }
        }
    }

    /// Sets whether reads return `EAGAIN` instead of waiting.
    pub fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        sys::set_nonblocking(self.file.as_fd(), on)
    }

    /// Reads one packet that the kernel sends.
    pub fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(buf)
    }

    /// Writes one packet for the kernel to receive.
    pub fn write(&self, packet: &[u8]) -> io::Result<usize> {
        (&self.file).write(packet)
    }
}

impl AsFd for HostTun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for HostTun {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl Device for HostTun {
    fn name(&self) -> io::Result<String> {
        Ok(self.name.clone())
    }

    fn mtu(&self) -> io::Result<u16> {
        let path = format!("/sys/class/net/{}/mtu", self.name);
        let mtu = std::fs::read_to_string(path)?;
        mtu.trim().parse().map_err(io::Error::other)
    }

    fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        self.set_nonblocking(on)
    }

    /// One packet at a time, without a header.
    fn format(&self) -> Format {
        Format::default()
    }

    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.read(buf)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.write(bytes)
    }
}

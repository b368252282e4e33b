//! The client library for programs that use the tun device, on Redox and on Linux alike.
//!
//! A tunnel program sets its interface up, and moves packets, many at a time:
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use tun::batch::{Incoming, Outgoing};
//! use tun::{Builder, Device};
//!
//! let tunnel = Builder::new("/scheme") // on Linux where `tund --mount` serves its tree
//!     .address("10.9.0.1/24")
//!     .address("fd09::1/64")
//!     .mtu(1420)
//!     .route("10.0.0.0/8")
//!     .build()?;
//! println!("{} is up", tunnel.name()?);
//!
//! let mut incoming = Incoming::default();
//! let mut outgoing = Outgoing::new(tunnel.format(), 128 * 1024);
//! loop {
//!     for packet in tunnel.recv(&mut incoming)? {
//!         // The room for an answer is the batch's own; headers and padding it adds itself.
//!         let Some(room) = outgoing.lend(packet.len()) else {
//!             break; // full, which cannot be: the memory of both is the same
//!         };
//!         room.copy_from_slice(packet);
//!         outgoing.commit(packet.len()).ok(); // one that is no packet is refused alone
//!     }
//!     tunnel.send(&mut outgoing)?;
//! }
//! # }
//! ```
//!
//! - [`Builder`] and [`Tunnel`]: a device whose interface is set up, and undone when it is dropped.
//!   What the builder sets goes with the device's close, so that `kill -9` leaves nothing behind
//!   either.
//! - [`Tun`]: the device itself, with every ioctl as a method, one packet in a read or write, or a
//!   batch.
//! - [`Device`]: what our device and the Linux kernel's (`host::HostTun`) have in common, and
//!   [`batch`], the packets it moves.
//! - [`udp`]: the socket that carries a tunnel, many datagrams in one operation where it can.
//! - [`Stats`] and [`Events`]: what an interface counted, and what changes about it.
//! - `AsyncDevice`, `AsyncUdpSocket` and `AsyncEvents`, with the feature `tokio`.
//!
//! Everything that can wait is a descriptor ([`AsFd`], [`AsRawFd`]) for poll(2), epoll or Redox's
//! event queue.
//!
//! # Interrupted operations
//!
//! [`Tun::read`] is read(2): a signal ends a wait with `EINTR`, also one that the program does not
//! handle, such as those of Ctrl-Z and `fg`, and on Linux the close of another descriptor of the
//! device in the same process. `recv`, `send` and [`Events::read`] try again. A program that a
//! signal is to end waits with poll(2), which it does interrupt.
//!
//! # Beside other libraries
//!
//! | | here | `tun-rs` 2.8 | `tun` 0.8 | wireguard-go's `tun` |
//! |---|---|---|---|---|
//! | systems | Redox; Linux, through a mount | Linux, macOS, Windows, BSDs, mobile ones | Linux, macOS, Windows, BSDs, mobile ones | Linux, macOS, Windows, FreeBSD, OpenBSD |
//! | set up | [`Builder`]: unit, addresses, peers, mtu, mode, up, routes, bypasses | `DeviceBuilder`: name, addresses, mtu, up, queues | `Configuration`: name, one address and netmask, destination, mtu, up, queues | `CreateTUN(name, mtu)`; addresses and routes are `wg-quick`'s |
//! | routes | yes, also later ([`Tunnel::add_route`]) | of its addresses, on some systems | of its address, by `route` on some | no |
//! | at the end | undone on drop; gone with the process however it ends | the interface goes with its descriptor, or on drop | the same | the same |
//! | a routing loop | [`Builder::bypass`], for each packet | no | no | `fwmark`, in the socket's code |
//! | name, mtu | [`Device::name`], [`Device::mtu`], [`Tunnel::set_mtu`] | yes | yes | `Name`, `MTU` |
//! | counters | [`Tunnel::stats`], with a reason for every drop | no | no | no |
//! | events | [`Tunnel::events`]: up, down, running, mtu, addresses, gone; a descriptor | no | no | `Events()`: up, down, mtu; a channel |
//! | one packet | [`Tun::read`], [`Tun::write`], [`Tun::write_vectored`] | `recv`, `send`, vectored | `Read`, `Write` | a batch of one |
//! | many packets | [`Device::recv`], [`Device::send`]; as many as fit the memory | `recv_multiple`, `send_multiple`, on Linux with offload | no | `Read(bufs, sizes, offset)`, `BatchSize()`, on Linux with offload |
//! | their memory | one block, page-aligned; packets where they are, headers and padding unseen | a buffer for each, and an offset | | a buffer for each, and an offset |
//! | one bad packet | refused alone ([`Refused`](batch::Refused)) | an error of the call | an error of the call | an error of the call |
//! | family before packets | set and hidden | hidden | `PACKET_INFORMATION_LENGTH`, for the program to skip | hidden in the offset |
//! | the kernel's device | `host::HostTun`, the same [`Device`] | yes | yes | yes |
//! | segmentation offload | no: the stack makes whole packets | Linux | no | Linux |
//! | link layer (tap) | no | yes | no | no |
//! | async | tokio; else any poller | tokio, async-io | tokio, with a codec | goroutines |
//! | end a read from elsewhere | [`Tun::close`], [`Tun::shut`] | `InterruptEvent` | no | `Close` |
//! | SIGIO, `FIONREAD`, owner | [`Tun::set_async`], [`Tun::pending`], [`Tun::claim`] | no | no | no |
//! | datagrams of the tunnel | [`udp::UdpSocket`] | no | no | `conn`, a package of its own |
//!
//! `examples/` has whole programs: `tunnel`, `echo`, `batch` and `watch`.

#![deny(unsafe_code)]

#[cfg(feature = "tokio")]
#[allow(unsafe_code)]
mod asynchronous;
pub mod batch;
mod builder;
mod device;
mod events;
mod frames;
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub mod host;
mod netcfg;
mod pages;
mod stats;
#[allow(unsafe_code)]
mod sys;
pub mod udp;

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(feature = "tokio")]
pub use self::asynchronous::{AsyncDevice, AsyncEvents, AsyncUdpSocket};
pub use self::builder::{Builder, SetupError, Tunnel};
pub use self::device::Device;
pub use self::events::{Event, Events};
pub use self::stats::Stats;

use self::batch::Format;

/// The code of the README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// Largest packet that can be written, bytes, without its header (`TUNMRU`).
pub const TUNMRU: usize = 16_384;

/// Which device to open.
///
/// ```
/// use tun::Unit;
///
/// assert_eq!(Unit::from(3), Unit::Number(3));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// The unit with this number; `EBUSY` if it is open.
    Number(u16),
    /// The lowest unit that is not open.
    Clone,
}

impl From<u16> for Unit {
    fn from(unit: u16) -> Self {
        Self::Number(unit)
    }
}

/// Parameters of an interface, for `TUNSIFINFO` and `TUNGIFINFO` (`struct tuninfo`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunInfo {
    /// Line speed, bits a second; 0 for unknown.
    pub baudrate: i32,
    /// Largest packet, bytes; at least 72.
    pub mtu: u16,
    /// Interface type, by `<net/if_types.h>`.
    pub if_type: u8,
}

/// Whether the interface has one peer or a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `IFF_POINTOPOINT`.
    PointToPoint,
    /// `IFF_BROADCAST`.
    Broadcast,
}

/// An open tun device. It closes with the last descriptor: this one, and duplicates made from it.
#[derive(Debug)]
pub struct Tun {
    file: File,
    root: Arc<Path>,
    modes: Arc<Modes>,
}

/// The modes that were set last through any descriptor made by this library.
#[derive(Debug)]
struct Modes {
    batch: AtomicBool,
    ifhead: AtomicBool,
}

impl Tun {
    /// Opens a device below `root`. `EPERM` unless the caller is root, `EBUSY` if the unit is open,
    /// `ENOENT` if there is no tun driver at `root`.
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// use tun::{Tun, Unit};
    ///
    /// let tun3 = Tun::open("/scheme", 3)?;
    /// let lowest = Tun::open("/tmp/net", Unit::Clone)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn open(root: impl AsRef<Path>, unit: impl Into<Unit>) -> io::Result<Self> {
        let name = match unit.into() {
            Unit::Number(unit) => unit.to_string(),
            Unit::Clone => "clone".to_owned(),
        };
        let root: Arc<Path> = root.as_ref().into();
        let path = root.join("tun").join(name);
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let modes = Modes {
            batch: false.into(),
            ifhead: false.into(),
        };
        let tun = Self {
            file,
            root,
            modes: modes.into(),
        };
        // This survives a close.
        let ifhead = tun.ifhead()?;
        tun.modes.ifhead.store(ifhead, Ordering::Relaxed);
        Ok(tun)
    }

    /// Another descriptor of the same open device.
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// # let tun = tun::Tun::open("/scheme", tun::Unit::Clone)?;
    /// let reader = tun.try_clone()?;
    /// std::thread::spawn(move || {
    ///     let mut packet = [0; 65_536];
    ///     loop {
    ///         match reader.read(&mut packet) {
    ///             Ok(len) => println!("{len} bytes"),
    ///             Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
    ///             Err(_) => return, // the device was closed
    ///         }
    ///     }
    /// });
    /// tun.close()?; // ends the read of the thread
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            file: self.file.try_clone()?,
            root: Arc::clone(&self.root),
            modes: Arc::clone(&self.modes),
        })
    }

    /// Reads one packet, with its header if one is on; waits for it unless
    /// [nonblocking](Self::set_nonblocking). A packet longer than `buf` is truncated. `EHOSTDOWN`
    /// when the device was shut or taken over. `EINTR` when a signal interrupts the wait, also one
    /// that the program does not handle, such as those of Ctrl-Z and `fg`: read again.
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// # let tun = tun::Tun::open("/scheme", tun::Unit::Clone)?;
    /// let mut packet = [0; 65_536];
    /// let len = loop {
    ///     match tun.read(&mut packet) {
    ///         Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
    ///         read => break read?,
    ///     }
    /// };
    /// println!("{:02x?}", &packet[..len]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(buf)
    }

    /// Writes one packet, with its header if one is on. Never waits. `EIO` for more than [`TUNMRU`]
    /// bytes, `EAFNOSUPPORT` for an unknown address family.
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// # let tun = tun::Tun::open("/scheme", tun::Unit::Clone)?;
    /// let echo_request = [
    ///     0x45, 0, 0, 28, 0, 1, 0, 0, 64, 1, 0x66, 0xde, 10, 0, 0, 2, 10, 0, 0, 1, // IP
    ///     8, 0, 0xf7, 0xfd, 0, 1, 0, 1, // ICMP
    /// ];
    /// tun.write(&echo_request)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn write(&self, packet: &[u8]) -> io::Result<usize> {
        (&self.file).write(packet)
    }

    /// Writes one packet from pieces, such as a header and the rest.
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// # let tun = tun::Tun::open("/scheme", tun::Unit::Clone)?;
    /// use std::io::IoSlice;
    ///
    /// tun.set_ifhead(true)?;
    /// let packet = [0x60, 0, 0, 0];
    /// let ipv6 = 10_u32.to_be_bytes();
    /// tun.write_vectored(&[IoSlice::new(&ipv6), IoSlice::new(&packet)])?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        (&self.file).write_vectored(pieces)
    }

    /// Sets whether reads return `EAGAIN` instead of waiting.
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// # let tun = tun::Tun::open("/scheme", tun::Unit::Clone)?;
    /// tun.set_nonblocking(true)?;
    /// match tun.read(&mut [0; 65_536]) {
    ///     Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => println!("nothing queued"),
    ///     read => println!("{} bytes", read?),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        sys::set_nonblocking(self.file.as_fd(), on)
    }

    /// Name of the interface (`TUNGIFNAME`).
    pub fn name(&self) -> io::Result<String> {
        let mut ifreq = [0; 32];
        self.ioctl(request::TUNGIFNAME, &mut ifreq)?;
        let name = ifreq.split(|&byte| byte == 0).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(name).into_owned())
    }

    /// Speed, mtu and type of the interface (`TUNGIFINFO`).
    pub fn info(&self) -> io::Result<TunInfo> {
        let mut info = [0; 8];
        self.ioctl(request::TUNGIFINFO, &mut info)?;
        let [b0, b1, b2, b3, m0, m1, if_type, _] = info;
        Ok(TunInfo {
            baudrate: i32::from_ne_bytes([b0, b1, b2, b3]),
            mtu: u16::from_ne_bytes([m0, m1]),
            if_type,
        })
    }

    /// Sets speed, mtu and type of the interface (`TUNSIFINFO`). `EINVAL` for an mtu below 72.
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// # let tun = tun::Tun::open("/scheme", tun::Unit::Clone)?;
    /// let info = tun.info()?;
    /// tun.set_info(tun::TunInfo { mtu: 1420, ..info })?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_info(&self, info: TunInfo) -> io::Result<()> {
        let [b0, b1, b2, b3] = info.baudrate.to_ne_bytes();
        let [m0, m1] = info.mtu.to_ne_bytes();
        let mut info = [b0, b1, b2, b3, m0, m1, info.if_type, 0];
        self.ioctl(request::TUNSIFINFO, &mut info)
    }

    /// Sets whether four bytes of address family, in network order, precede every packet
    /// (`TUNSIFHEAD`). IPv6 needs it. Excludes [`set_lmode`](Self::set_lmode).
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// # let tun = tun::Tun::open("/scheme", tun::Unit::Clone)?;
    /// tun.set_ifhead(true)?;
    /// let mut frame = [0; 65_536];
    /// let len = tun.read(&mut frame)?;
    /// if let Some((family, packet)) = frame[..len].split_first_chunk() {
    ///     match u32::from_be_bytes(*family) {
    ///         2 => println!("IPv4, {} bytes", packet.len()),
    ///         10 => println!("IPv6, {} bytes", packet.len()),
    ///         other => println!("family {other}"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_ifhead(&self, on: bool) -> io::Result<()> {
        self.set_int(request::TUNSIFHEAD, on.into())?;
        self.modes.ifhead.store(on, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the address family precedes every packet (`TUNGIFHEAD`).
    pub fn ifhead(&self) -> io::Result<bool> {
        self.get_int(request::TUNGIFHEAD).map(|on| on != 0)
    }

    /// Sets whether the `sockaddr_in` of the next hop precedes every packet read (`TUNSLMODE`).
    /// [`recv`](Device::recv) leaves it in front.
    pub fn set_lmode(&self, on: bool) -> io::Result<()> {
        self.set_int(request::TUNSLMODE, on.into())?;
        if on {
            self.modes.ifhead.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Sets the kind of interface (`TUNSIFMODE`). `EBUSY` while it is up.
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// # let tun = tun::Tun::open("/scheme", tun::Unit::Clone)?;
    /// tun.set_mode(tun::Mode::Broadcast, true)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_mode(&self, mode: Mode, multicast: bool) -> io::Result<()> {
        let kind = match mode {
            Mode::PointToPoint => 0x10,
            Mode::Broadcast => 0x2,
        };
        let multicast = if multicast { 0x8000 } else { 0 };
        self.set_int(request::TUNSIFMODE, kind | multicast)
    }

    /// Makes the calling process the owner that the file `status` names (`TUNSIFPID`).
    pub fn claim(&self) -> io::Result<()> {
        self.ioctl(request::TUNSIFPID, &mut [])
    }

    /// Sets whether the interface is destroyed at the last close (`TUNSTRANSIENT`).
    pub fn set_transient(&self, on: bool) -> io::Result<()> {
        self.set_int(request::TUNSTRANSIENT, on.into())
    }

    /// Whether the interface is destroyed at the last close (`TUNGTRANSIENT`).
    pub fn transient(&self) -> io::Result<bool> {
        self.get_int(request::TUNGTRANSIENT).map(|on| on != 0)
    }

    /// Sets whether one read or write carries many packets (`TUNSBATCH`); see [`batch`].
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// # let tun = tun::Tun::open("/scheme", tun::Unit::Clone)?;
    /// use tun::batch;
    ///
    /// tun.set_batch(true)?;
    /// let mut buf = vec![0; 256 * 1024];
    /// let len = tun.read(&mut buf)?; // EINTR as in `read`
    /// for packet in batch::packets(&buf[..len]) {
    ///     println!("{} bytes", packet.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_batch(&self, on: bool) -> io::Result<()> {
        self.set_int(request::TUNSBATCH, on.into())?;
        self.modes.batch.store(on, Ordering::Relaxed);
        Ok(())
    }

    /// Whether one read or write carries many packets (`TUNGBATCH`).
    pub fn batch(&self) -> io::Result<bool> {
        self.get_int(request::TUNGBATCH).map(|on| on != 0)
    }

    /// Bytes of the first packet in the queue (`FIONREAD`), in batch mode with its length and padding;
    /// 0 when nothing is queued.
    pub fn pending(&self) -> io::Result<usize> {
        let len = self.get_int(request::FIONREAD)?;
        Ok(usize::try_from(len).unwrap_or(0))
    }

    /// Sets whether every packet raises `SIGIO` (`FIOASYNC`), for the [owner](Self::set_owner).
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// # let tun = tun::Tun::open("/scheme", tun::Unit::Clone)?;
    /// tun.set_owner(std::process::id() as i32)?;
    /// tun.set_async(true)?; // with a handler for SIGIO: without, the signal ends the program
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_async(&self, on: bool) -> io::Result<()> {
        self.set_int(request::FIOASYNC, on.into())
    }

    /// Sets the owner that gets `SIGIO` (`FIOSETOWN`): a process, a negative process group, or 0
    /// for none.
    pub fn set_owner(&self, owner: i32) -> io::Result<()> {
        self.set_int(request::FIOSETOWN, owner)
    }

    /// The owner that gets `SIGIO` (`FIOGETOWN`): a process, a negative process group, or 0 for
    /// none.
    pub fn owner(&self) -> io::Result<i32> {
        self.get_int(request::FIOGETOWN)
    }

    /// Sets the driver-wide debug level (`TUNSDEBUG`).
    pub fn set_debug(&self, level: i32) -> io::Result<()> {
        self.set_int(request::TUNSDEBUG, level)
    }

    /// The driver-wide debug level (`TUNGDEBUG`).
    pub fn debug(&self) -> io::Result<i32> {
        self.get_int(request::TUNGDEBUG)
    }

    /// Ends every operation that waits on the device and releases the unit at once (`TUNSHUT`),
    /// even if others hold descriptors of it.
    pub fn shut(&self) -> io::Result<()> {
        self.ioctl(request::TUNSHUT, &mut [])
    }

    /// Closes the device. Unlike dropping it, this first ends the reads of other threads. On Redox
    /// nothing else would end them.
    pub fn close(self) -> io::Result<()> {
        self.shut()
    }

    fn set_int(&self, request: u32, value: i32) -> io::Result<()> {
        self.ioctl(request, &mut value.to_ne_bytes())
    }

    fn get_int(&self, request: u32) -> io::Result<i32> {
        let mut value = [0; 4];
        self.ioctl(request, &mut value)?;
        Ok(i32::from_ne_bytes(value))
    }

    fn ioctl(&self, request: u32, arg: &mut [u8]) -> io::Result<()> {
        sys::ioctl(self.file.as_fd(), request, arg)
    }
}

impl Device for Tun {
    fn name(&self) -> io::Result<String> {
        self.name()
    }

    fn mtu(&self) -> io::Result<u16> {
        Ok(self.info()?.mtu)
    }

    fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        self.set_nonblocking(on)
    }

    /// As it was set through this library; what others do with the device's file it does not see.
    fn format(&self) -> Format {
        Format {
            batch: self.modes.batch.load(Ordering::Relaxed),
            ifhead: self.modes.ifhead.load(Ordering::Relaxed),
        }
    }

    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.read(buf)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.write(bytes)
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for Tun {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// Request numbers in Linux's encoding, which carries their arguments on every system. They are the
/// same as in `include/net/if_tun.h`.
///
/// ```
/// // _IOW('t', 96, int)
/// assert_eq!(tun::request::TUNSIFHEAD, 0x4004_7460);
/// ```
pub mod request {
    const fn io(kind: u8, number: u32) -> u32 {
        (kind as u32) << 8 | number
    }

    const fn ior(kind: u8, number: u32, size: u32) -> u32 {
        2 << 30 | size << 16 | io(kind, number)
    }

    const fn iow(kind: u8, number: u32, size: u32) -> u32 {
        1 << 30 | size << 16 | io(kind, number)
    }

    /// Driver-wide debug switch, out.
    pub const TUNGDEBUG: u32 = ior(b't', 89, 4);
    /// Driver-wide debug switch, in.
    pub const TUNSDEBUG: u32 = iow(b't', 90, 4);
    /// `struct tuninfo`, in.
    pub const TUNSIFINFO: u32 = iow(b't', 91, 8);
    /// `struct tuninfo`, out.
    pub const TUNGIFINFO: u32 = ior(b't', 92, 8);
    /// Next hop before packets, in.
    pub const TUNSLMODE: u32 = iow(b't', 93, 4);
    /// Point-to-point or broadcast, in.
    pub const TUNSIFMODE: u32 = iow(b't', 94, 4);
    /// The caller becomes the owner.
    pub const TUNSIFPID: u32 = io(b't', 95);
    /// Family before packets, in.
    pub const TUNSIFHEAD: u32 = iow(b't', 96, 4);
    /// Family before packets, out.
    pub const TUNGIFHEAD: u32 = ior(b't', 97, 4);
    /// Name of the interface, in the first 16 of 32 bytes, out.
    pub const TUNGIFNAME: u32 = ior(b't', 98, 32);
    /// Destroy the interface at the last close, in.
    pub const TUNSTRANSIENT: u32 = iow(b't', 98, 4);
    /// Destroy the interface at the last close, out.
    pub const TUNGTRANSIENT: u32 = ior(b't', 99, 4);
    /// Batch mode, in.
    pub const TUNSBATCH: u32 = iow(b't', 130, 4);
    /// Batch mode, out.
    pub const TUNGBATCH: u32 = ior(b't', 131, 4);
    /// End all waits and release the unit.
    pub const TUNSHUT: u32 = io(b't', 132);
    /// The interface by which nothing of a socket leaves, in 16 bytes, in.
    pub const TUNSBYPASS: u32 = iow(b't', 133, 16);
    /// Address and port of a socket, out.
    pub const TUNGSOCKNAME: u32 = ior(b't', 134, 24);
    /// `SIGIO` on every packet, in.
    pub const FIOASYNC: u32 = iow(b'f', 125, 4);
    /// Bytes of the first packet, out.
    pub const FIONREAD: u32 = ior(b'f', 127, 4);
    /// Owner of `SIGIO`, in.
    pub const FIOSETOWN: u32 = iow(b'f', 124, 4);
    /// Owner of `SIGIO`, out.
    pub const FIOGETOWN: u32 = ior(b'f', 123, 4);
}

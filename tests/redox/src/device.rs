//! The device as these tests use it: bare reads, writes and calls.

use std::ffi::c_int;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::time::Duration;

use crate::packet::addresses;
use crate::{netcfg, sys};

/// Request numbers in BSD's encoding.
pub(crate) mod bsd {
    pub(crate) const TUNGDEBUG: u32 = 0x4004_7459;
    pub(crate) const TUNSDEBUG: u32 = 0x8004_745a;
    pub(crate) const TUNSIFINFO: u32 = 0x8008_745b;
    pub(crate) const TUNGIFINFO: u32 = 0x4008_745c;
    pub(crate) const TUNSLMODE: u32 = 0x8004_745d;
    pub(crate) const TUNSIFMODE: u32 = 0x8004_745e;
    pub(crate) const TUNSIFPID: u32 = 0x2000_745f;
    pub(crate) const TUNSIFHEAD: u32 = 0x8004_7460;
    pub(crate) const TUNGIFHEAD: u32 = 0x4004_7461;
    /// The request of DragonFly.
    pub(crate) const TUNGIFNAME: u32 = 0x4020_7462;
    /// The request of FreeBSD.
    pub(crate) const TUNGIFNAME_FREEBSD: u32 = 0x4020_745d;
    pub(crate) const TUNSTRANSIENT: u32 = 0x8004_7462;
    pub(crate) const TUNGTRANSIENT: u32 = 0x4004_7463;
    pub(crate) const TUNSBATCH: u32 = 0x8004_7482;
    pub(crate) const TUNGBATCH: u32 = 0x4004_7483;
    pub(crate) const TUNSHUT: u32 = 0x2000_7484;
    pub(crate) const FIOGETOWN: u32 = 0x4004_667b;
    pub(crate) const FIOSETOWN: u32 = 0x8004_667c;
    pub(crate) const FIOASYNC: u32 = 0x8004_667d;
    pub(crate) const FIONBIO: u32 = 0x8004_667e;
    pub(crate) const FIONREAD: u32 = 0x4004_667f;
    pub(crate) const TIOCSPGRP: u32 = 0x8004_7476;
    pub(crate) const TIOCGPGRP: u32 = 0x4004_7477;
}

/// The same request as Linux and relibc encode it: the direction bits swapped, none for `_IO`.
pub(crate) const fn linux(request: u32) -> u32 {
    match request >> 29 {
        0b100 | 0b010 => request ^ 0xc000_0000,
        _ => request & 0x1fff_ffff,
    }
}

/// The path of a unit.
pub(crate) fn path(unit: u16) -> String {
    format!("/scheme/tun/{unit}")
}

/// Opens a path for reading and writing.
pub(crate) fn open_path(path: &str) -> io::Result<File> {
    sys::open(path, libc::O_RDWR | libc::O_CLOEXEC)
}

/// An open unit.
pub(crate) struct Tun {
    pub(crate) file: File,
    pub(crate) unit: u16,
}

impl Tun {
    /// Opens a unit.
    pub(crate) fn open(unit: u16) -> io::Result<Self> {
        Self::open_with(unit, libc::O_RDWR)
    }

    /// Opens a unit with these flags.
    pub(crate) fn open_with(unit: u16, flags: c_int) -> io::Result<Self> {
        let file = sys::open(&path(unit), flags | libc::O_CLOEXEC)?;
        Ok(Self { file, unit })
    }

    /// Opens a unit whose interface is new, and is destroyed at the last close.
    #[track_caller]
    pub(crate) fn fresh(unit: u16) -> Self {
        // Another test may have left an interface behind.
        let _ = netcfg::put_if(unit, "destroy", "1");
        let tun = match Self::open(unit) {
            Ok(tun) => tun,
            Err(error) => panic!("open tun/{unit}: {error}"),
        };
        tun.set(bsd::TUNSTRANSIENT, 1);
        tun
    }

    /// Opens such a unit and gives it an address: up and running.
    #[track_caller]
    pub(crate) fn up(unit: u16) -> Self {
        let tun = Self::fresh(unit);
        let (own, _) = addresses(unit);
        netcfg::put_if(unit, "addr/set", &format!("{own}/24")).expect("set the address");
        tun
    }

    /// An ioctl: the request is in the first word.
    pub(crate) fn call(&self, request: u32, payload: &mut [u8]) -> io::Result<usize> {
        sys::call(&self.file, payload, &[request.into()])
    }

    /// An ioctl that sets an int.
    pub(crate) fn try_set(&self, request: u32, value: i32) -> io::Result<()> {
        self.call(request, &mut value.to_ne_bytes()).map(drop)
    }

    /// An ioctl that sets an int.
    #[track_caller]
    pub(crate) fn set(&self, request: u32, value: i32) {
        if let Err(error) = self.try_set(request, value) {
            panic!("ioctl {request:#x} of {value}: {error}");
        }
    }

    /// An ioctl that gets an int.
    #[track_caller]
    pub(crate) fn get(&self, request: u32) -> i32 {
        let mut value = [0xee; 4];
        match self.call(request, &mut value) {
            Ok(_) => i32::from_ne_bytes(value),
            Err(error) => panic!("ioctl {request:#x}: {error}"),
        }
    }

    /// Reads into `len` bytes.
    pub(crate) fn read(&self, len: usize) -> io::Result<Vec<u8>> {
        let mut packet = vec![0xee; len];
        let got = (&self.file).read(&mut packet)?;
        packet.truncate(got);
        Ok(packet)
    }

    /// Reads a packet that must be there at once.
    #[track_caller]
    pub(crate) fn read_now(&self) -> Vec<u8> {
        self.set_nonblocking(true);
        let packet = self.read(0x1_0000);
        self.set_nonblocking(false);
        match packet {
            Ok(packet) => packet,
            Err(error) => panic!("nothing to read: {error}"),
        }
    }

    /// Fails if there is something to read.
    #[track_caller]
    pub(crate) fn assert_empty(&self) {
        self.set_nonblocking(true);
        let packet = self.read(0x1_0000);
        self.set_nonblocking(false);
        assert_errno(packet, libc::EAGAIN);
    }

    pub(crate) fn write(&self, packet: &[u8]) -> io::Result<usize> {
        (&self.file).write(packet)
    }

    pub(crate) fn set_nonblocking(&self, on: bool) {
        sys::set_flag(&self.file, libc::O_NONBLOCK, on);
    }

    /// Another descriptor of the same open device.
    pub(crate) fn again(&self) -> Self {
        let file = self.file.try_clone().expect("another descriptor");
        Self {
            file,
            unit: self.unit,
        }
    }

    /// Sends packets out of the interface, to be read here.
    #[track_caller]
    pub(crate) fn inject(&self, packets: &[Vec<u8>]) {
        let wire = Wire::open(self.unit);
        for packet in packets {
            if let Err(error) = wire.send(packet) {
                panic!("inject {} bytes: {error}", packet.len());
            }
        }
    }
}

impl AsRawFd for Tun {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl From<Tun> for OwnedFd {
    fn from(tun: Tun) -> Self {
        tun.file.into()
    }
}

impl IntoRawFd for Tun {
    fn into_raw_fd(self) -> RawFd {
        self.file.into_raw_fd()
    }
}

/// The capture file of an interface, which sends the packets that are written to it.
pub(crate) struct Wire(File);

impl Wire {
    #[track_caller]
    pub(crate) fn open(unit: u16) -> Self {
        let path = format!("/scheme/bpf/tun{unit}");
        match sys::open(&path, libc::O_WRONLY | libc::O_CLOEXEC) {
            Ok(file) => Self(file),
            Err(error) => panic!("open {path}: {error}"),
        }
    }

    pub(crate) fn send(&self, packet: &[u8]) -> io::Result<usize> {
        let family: u32 = if packet[0] >> 4 == 6 { 28 } else { 2 };
        self.send_as(family, packet)
    }

    pub(crate) fn send_as(&self, family: u32, packet: &[u8]) -> io::Result<usize> {
        (&self.0).write(&[&family.to_ne_bytes()[..], packet].concat())
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        (&self.0).write(bytes)
    }
}

/// Fails unless the result is this error.
#[track_caller]
pub(crate) fn assert_errno<T>(result: io::Result<T>, errno: c_int) {
    let expected = io::Error::from_raw_os_error(errno);
    match result {
        Ok(_) => panic!("no error where it should be {expected}"),
        Err(error) if error.raw_os_error() == Some(errno) => {}
        Err(error) => panic!("{error} where it should be {expected}"),
    }
}

/// Opens a unit as soon as it is free: it may take a moment until a close arrives.
#[track_caller]
pub(crate) fn open_soon(unit: u16) -> Tun {
    let mut tun = Tun::open(unit);
    let free = || {
        if tun.is_err() {
            tun = Tun::open(unit);
        }
        tun.is_ok()
    };
    sys::becomes(Duration::from_secs(2), free);
    match tun {
        Ok(tun) => tun,
        Err(error) => panic!("open tun/{unit}: {error}"),
    }
}

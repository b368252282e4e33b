//! Floods through a mount.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;
use tun::Tun;

use crate::bed::Flood;
use crate::common::packet;
use crate::common::usage::{allow_files, resident};

/// How a flood of a mount is made.
pub(crate) type Make = for<'a> fn(&'a Mount) -> io::Result<Flood<'a>>;

/// Their names, and packets or operations a second: as many of each as leave this machine time for the
/// honest program.
pub(crate) const FLOODS: &[(&str, u32, Make)] = &[
    ("SYN from everywhere", 20_000, syn),
    ("first fragments", 20_000, fragments),
    ("datagrams to a closed port", 20_000, closed_port),
    ("pings of oneself, not read", 2500, pings),
    ("UDP to readers that sleep", 5000, sleepers),
    ("opens, up to 65 536 at once", 5000, opens),
    ("texts of 20 000 routes that change", 10, texts),
    ("captures that are not read", 500, captures),
];

/// Most files that this process may open.
const FILES: u64 = 70_000;

/// The reason why there is no mount here.
pub(crate) fn missing() -> Option<&'static str> {
    if !geteuid().is_root() {
        return Some("not root");
    }
    (!Path::new("/dev/fuse").exists()).then_some("no /dev/fuse")
}

/// A daemon and its mount, with 10.9.0.1/24 on `tun0`. Both end when this is dropped.
pub(crate) struct Mount {
    daemon: Child,
    dir: TempDir,
    tun: Tun,
}

impl Mount {
    /// Starts the daemon with these arguments besides.
    pub(crate) fn new(program: &Path, args: &[&str]) -> io::Result<Self> {
        allow_files(FILES);
        let dir = tempfile::tempdir()?;
        let mut daemon = Command::new(program)
            .args(["--serve", "echo", "--mount"])
            .arg(dir.path())
            .args(args)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(output) = daemon.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        if !line.contains("serving") {
            return Err(io::Error::other(format!("tund said {line:?}")));
        }
        let tun = Tun::open(dir.path(), 0)?;
        let mount = Self { daemon, dir, tun };
        mount.set("ifaces/tun0/addr/set", "10.9.0.1/24\n")?;
        mount.tun.set_batch(true)?;
        Ok(mount)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    pub(crate) fn open(&self, path: &str) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).open(self.path(path))
    }

    pub(crate) fn set(&self, path: &str, text: &str) -> io::Result<()> {
        let path = self.path("netcfg").join(path);
        let mut file = OpenOptions::new().write(true).open(path)?;
        file.write_all(text.as_bytes())
    }

    /// Writes packets to the device, many at a time.
    fn batch(&self, packets: impl Iterator<Item = Vec<u8>>) -> io::Result<()> {
        self.tun.write(&packet::batch(packets))?;
        Ok(())
    }

    /// A program that has its datagrams echoed: each call is one round trip.
    pub(crate) fn honest(&self) -> io::Result<impl FnMut() -> io::Result<()>> {
        let mut socket = self.open("udp/127.0.0.1:7")?;
        Ok(move || {
            socket.write_all(&[7; 32])?;
            let mut buf = [0; 64];
            let len = socket.read(&mut buf)?;
            match len {
                32 => Ok(()),
                _ => Err(io::ErrorKind::InvalidData.into()),
            }
        })
    }

    /// Bytes of memory that the daemon takes.
    pub(crate) fn memory(&self) -> u64 {
        resident(self.daemon.id())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let ended = kill_process(Pid::from_child(&self.daemon), Signal::TERM);
        if let Err(error) = ended
            .map_err(io::Error::from)
            .and_then(|()| self.daemon.wait())
        {
            eprintln!("flood: tund does not end: {error}");
        }
    }
}

/// Whether there are too many files, in the stack or in this process.
fn is_full(error: &io::Error) -> bool {
    use rustix::io::Errno;

    [Errno::NFILE, Errno::MFILE]
        .map(|errno| Some(errno.raw_os_error()))
        .contains(&error.raw_os_error())
}

/// What a full queue refuses is part of the flood.
pub(crate) fn refused(done: io::Result<usize>) -> io::Result<()> {
    match done {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::NOBUFS.raw_os_error()) => {
            Err(error)
        }
        _ => Ok(()),
    }
}

fn syn(mount: &Mount) -> io::Result<Flood<'_>> {
    let mut rng = fastrand::Rng::with_seed(1);
    Ok(Box::new(move |count| {
        let segments = (0..count).map(|_| {
            let from = format!("11.{}.{}.{}", rng.u8(..), rng.u8(..), rng.u8(1..));
            packet::tcp_syn((&from, rng.u16(1024..)), ("10.9.0.1", 7), rng.u32(..))
        });
        mount.batch(segments)
    }))
}

fn fragments(mount: &Mount) -> io::Result<Flood<'_>> {
    let mut number = 0_u32;
    Ok(Box::new(move |count| {
        let fragments = (0..count).map(|_| {
            number += 1;
            packet::first_fragment("10.9.0.2", "10.9.0.1", number)
        });
        mount.batch(fragments)
    }))
}

fn closed_port(mount: &Mount) -> io::Result<Flood<'_>> {
    let datagram = packet::udp(("10.9.0.2", 99), ("10.9.0.1", 99), &[0; 32]);
    Ok(Box::new(move |count| {
        mount.batch(std::iter::repeat_n(datagram.clone(), count))
    }))
}

fn pings(mount: &Mount) -> io::Result<Flood<'_>> {
    let mut sockets = Vec::new();
    Ok(Box::new(move |count| {
        for _ in 0..count {
            if sockets.len() < 2000 {
                sockets.push(mount.open("icmp/echo/127.0.0.1")?);
            }
            let at = fastrand::usize(..sockets.len());
            refused(sockets[at].write(&[0; 1402]))?;
        }
        Ok(())
    }))
}

fn sleepers(mount: &Mount) -> io::Result<Flood<'_>> {
    let mut sockets: Vec<(File, u16)> = Vec::new();
    for _ in 0..400 {
        let mut socket = mount.open("udp/10.9.0.2:9")?;
        // The port that it has is in what it sends.
        socket.write_all(b"x")?;
        let mut frame = [0; 256];
        mount.tun.read(&mut frame)?;
        sockets.push((socket, u16::from_be_bytes([frame[24], frame[25]])));
    }
    let mut rng = fastrand::Rng::with_seed(4);
    Ok(Box::new(move |count| {
        let datagrams = (0..count).map(|_| {
            let (_, port) = sockets[rng.usize(..sockets.len())];
            packet::udp(("10.9.0.2", 9), ("10.9.0.1", port), &[0; 1400])
        });
        mount.batch(datagrams)
    }))
}

fn opens(mount: &Mount) -> io::Result<Flood<'_>> {
    let mut files = Vec::new();
    Ok(Box::new(move |count| {
        for _ in 0..count {
            match mount.open("netcfg/ip/forwarding") {
                Ok(file) => files.push(file),
                Err(error) if is_full(&error) => {
                    files.truncate(files.len() / 2);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }))
}

fn texts(mount: &Mount) -> io::Result<Flood<'_>> {
    let routes: String = (0..20_000)
        .map(|at| format!("11.{}.{}.0/24 dev tun0\n", at >> 8, at & 255))
        .collect();
    mount.set("route/add", &routes)?;
    let mut readers = Vec::new();
    let mut number = 0;
    Ok(Box::new(move |count| {
        // A text is some 600 kB.
        for _ in 0..count {
            number += 1;
            let prefix = format!("12.{}.{}.0/24", number >> 8 & 255, number & 255);
            mount.set("route/add", &format!("{prefix} dev tun0\n"))?;
            let mut reader = File::open(mount.path("netcfg/route/list"))?;
            // It has begun, and never goes on.
            refused(reader.read(&mut [0; 16]))?;
            readers.push(reader);
        }
        Ok(())
    }))
}

fn captures(mount: &Mount) -> io::Result<Flood<'_>> {
    let mut captures = Vec::new();
    let mut socket = mount.open("udp/127.0.0.1:7")?;
    Ok(Box::new(move |count| {
        if captures.len() < 200 {
            captures.push(mount.open("bpf/lo0")?);
        }
        for _ in 0..count {
            refused(socket.write(&[0; 1400]).or(Ok(0)))?;
        }
        Ok(())
    }))
}

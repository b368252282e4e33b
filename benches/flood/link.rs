//! Floods on a link: the daemon drives one end of a veth, and strangers' frames come in by the other.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;

use rustix::net::{AddressFamily, SocketType};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::bed::Flood;
use crate::common::packet;
use crate::mount::{Mount, refused};

type Make = for<'a> fn(&'a Link, &'a Mount) -> io::Result<Flood<'a>>;

/// Their names, and packets or operations a second.
pub(crate) const FLOODS: &[(&str, u32, Make)] = &[
    ("neighbour solicitations", 20_000, solicitations),
    ("destinations that do not answer", 2500, unresolvable),
];

/// The hardware address of the daemon's end.
const US: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A link in a network namespace that this process is in from now on.
pub(crate) struct Link {
    /// Sends frames by the end that is not the daemon's.
    socket: OwnedFd,
}

impl Link {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no file descriptors are unshared, only the network.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        ip("link add a0 address 02:00:00:00:00:01 type veth peer name b0")?;
        // What docs/adapter.md tells to do.
        std::fs::write("/proc/sys/net/ipv6/conf/a0/disable_ipv6", "1")?;
        ip("link set a0 up")?;
        ip("link set b0 up")?;
        // "3: b0@a0: <BROADCAST..."
        let shown = ip("-o link show dev b0")?;
        let index = shown
            .split_once(':')
            .and_then(|(index, _)| index.parse().ok());
        // It receives nothing: its protocol is none.
        let socket = rustix::net::socket(AddressFamily::PACKET, SocketType::RAW, None)?;
        // SAFETY: all zeros is a valid address.
        let mut addr: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        addr.sll_family = libc::AF_PACKET as u16;
        addr.sll_ifindex = index.ok_or(io::ErrorKind::InvalidData)?;
        let len = size_of_val(&addr) as libc::socklen_t;
        // SAFETY: the address is valid for so many bytes.
        match unsafe { libc::bind(socket.as_raw_fd(), (&raw const addr).cast(), len) } {
            0 => Ok(Self { socket }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// A daemon on it, whose `eth0` has 10.8.0.1/16 and fd08::1/64.
    pub(crate) fn mount(&self, program: &Path) -> io::Result<Mount> {
        let mount = Mount::new(program, &["--adapter", "a0"])?;
        mount.set("ifaces/eth0/addr/add", "10.8.0.1/16\n")?;
        mount.set("ifaces/eth0/addr/add", "fd08::1/64\n")?;
        Ok(mount)
    }
}

/// Runs `ip`, and returns what it says.
fn ip(args: &str) -> io::Result<String> {
    let output = Command::new("ip").args(args.split(' ')).output()?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => {
            let error = String::from_utf8_lossy(&output.stderr);
            Err(io::Error::other(format!("ip {args}: {}", error.trim())))
        }
    }
}

fn solicitations<'a>(link: &'a Link, _: &'a Mount) -> io::Result<Flood<'a>> {
    let mut rng = fastrand::Rng::with_seed(2);
    let us = std::net::Ipv6Addr::new(0xfd08, 0, 0, 0, 0, 0, 0, 1);
    Ok(Box::new(move |count| {
        for _ in 0..count {
            let [a, b, c, d] = rng.u32(..).to_be_bytes();
            let mac = [2, 9, a, b, c, d];
            let from = [0xfd08, 0, 0, 0, 0, 0, rng.u16(1..), rng.u16(1..)];
            let message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &us.octets(), &[1, 1], &mac];
            let packet = packet::icmpv6(from.into(), us, &message.concat());
            let frame = [&US[..], &mac, &0x86dd_u16.to_be_bytes(), &packet].concat();
            refused(rustix::io::write(&link.socket, &frame).map_err(io::Error::from))?;
        }
        Ok(())
    }))
}

fn unresolvable<'a>(_: &'a Link, mount: &'a Mount) -> io::Result<Flood<'a>> {
    let mut rng = fastrand::Rng::with_seed(3);
    Ok(Box::new(move |count| {
        for _ in 0..count {
            let to = format!("udp/10.8.{}.{}:9", rng.u8(1..), rng.u8(1..255));
            let mut socket = mount.open(&to)?;
            // A full queue refuses it.
            refused(io::Write::write(&mut socket, &[0; 1400]))?;
        }
        Ok(())
    }))
}

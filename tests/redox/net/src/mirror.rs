//! A peer behind a tun device that sends every IPv4 packet back with its two addresses exchanged.
//!
//! Neither checksum changes by that. So a program that connects to the peer's address is connected
//! to this system: a packet to port 80 of the peer arrives from the peer at port 80 here, and the
//! answer goes the same way back. Every operation of std thus goes through the tun device, twice.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::thread;

/// Our end of the tunnel.
pub const OURS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// The address of the mirror.
pub const PEER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);

/// Opens a tun device and reflects packets from now on, until the process ends. One of every
/// `drop_each` packets is dropped; 0 for none.
pub fn start(drop_each: u64) -> io::Result<()> {
    let tun = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/scheme/tun/clone")?;
    let name = name(&tun)?;
    fs::write(
        format!("/scheme/netcfg/ifaces/{name}/addr/set"),
        format!("{OURS}/24\n"),
    )?;
    thread::spawn(move || reflect(tun, drop_each));
    Ok(())
}

/// The interface of the device, which its path names.
fn name(tun: &File) -> io::Result<String> {
    use std::os::fd::AsRawFd;

    let mut path = [0_u8; 64];
    // SAFETY: the buffer is writable for its length, which is what the call is told.
    let len = unsafe { redox_fpath(tun.as_raw_fd(), path.as_mut_ptr().cast(), path.len()) };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    let path = String::from_utf8_lossy(&path[..len.min(path.len())]);
    let unit = path.rsplit('/').next().unwrap_or_default();
    Ok(format!("tun{unit}"))
}

unsafe extern "C" {
    fn redox_fpath(fd: libc::c_int, buf: *mut libc::c_void, count: libc::size_t) -> libc::ssize_t;
}

fn reflect(mut tun: File, drop_each: u64) {
    let mut packet = vec![0; 65_536];
    let mut count = 0;
    while let Ok(len) = tun.read(&mut packet) {
        count += 1;
        let lost = drop_each > 0 && count % drop_each == 0;
        if len < 20 || packet[0] >> 4 != 4 || lost {
            continue;
        }
        let (source, destination) = packet[12..20].split_at_mut(4);
        source.swap_with_slice(destination);
        if tun.write(&packet[..len]).is_err() {
            return;
        }
    }
}

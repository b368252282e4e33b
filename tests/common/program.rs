//! Operations of a program on the network of the local system.

use net::Host;
use scheme::OpenFlags;
use scheme::errno::Errno;
use scheme::local::{Fd, Process};

/// Writes to a file of `netcfg`. Returns the number of bytes accepted.
pub fn set(program: &Process<Host>, path: &str, text: &str) -> Result<usize, Errno> {
    let fd = program.open(&format!("/scheme/netcfg/{path}"), OpenFlags::WRITE)?;
    let written = program.write(fd, text.as_bytes());
    program.close(fd).unwrap();
    written
}

/// The text of a file of `netcfg`, of which 4096 bytes are read.
pub fn text(program: &Process<Host>, path: &str) -> String {
    let path = format!("/scheme/netcfg/{path}");
    let fd = program.open(&path, OpenFlags::READ).unwrap();
    let mut buf = [0; 4096];
    let len = program.read(fd, &mut buf).unwrap();
    program.close(fd).unwrap();
    String::from_utf8(buf[..len].to_vec()).unwrap()
}

/// Tunnel `tunN` with this address, with nonblocking reads.
pub fn tunnel(program: &Process<Host>, unit: u32, address: &str) -> Fd {
    let both = OpenFlags::READ | OpenFlags::WRITE;
    let tun = program.open(&format!("/scheme/tun/{unit}"), both).unwrap();
    program.set_nonblocking(tun, true).unwrap();
    let path = format!("ifaces/tun{unit}/addr/set");
    set(program, &path, &format!("{address}\n")).unwrap();
    tun
}

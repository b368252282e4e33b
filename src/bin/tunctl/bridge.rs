//! Pumps packets between a tun device of tund and one of the Linux kernel.

use crate::tree::{Failure, Tree};

#[cfg(target_os = "linux")]
pub(crate) fn run(tree: &Tree, unit: u16, hostif: &str) -> Result<(), Failure> {
    use std::io;
    use std::thread;

    use tun::Tun;
    use tun::host::HostTun;

    /// Longest packet of either end, bytes.
    const LONGEST: usize = 65_536;
    const EHOSTDOWN: i32 = 112;

    let path = format!("tun/{unit}");
    let ours = Tun::open(tree.root(), unit).map_err(|error| tree.explain(&path, None, &error))?;
    // With the family in front, packets of both IP versions can pass.
    ours.set_ifhead(true)
        .map_err(|error| tree.explain(&path, None, &error))?;
    let name = ours
        .name()
        .map_err(|error| tree.explain(&path, None, &error))?;
    let theirs = HostTun::open(hostif).map_err(|error| {
        Failure::new(match error.kind() {
            io::ErrorKind::PermissionDenied => {
                format!("the kernel's {hostif}: only root may do that")
            }
            io::ErrorKind::ResourceBusy => {
                format!("the kernel's {hostif}: it is open, by another program")
            }
            io::ErrorKind::InvalidInput => format!("the kernel's {hostif} is no tun device"),
            _ => format!("the kernel's {hostif}: {error}"),
        })
    })?;
    eprintln!("Pumping packets between {name} and the kernel's {hostif}; interrupt to stop.");

    let again = |error: &io::Error| error.kind() == io::ErrorKind::Interrupted;
    let outward = || -> io::Result<()> {
        let mut frame = vec![0; 4 + LONGEST];
        loop {
            let len = match ours.read(&mut frame) {
                Ok(len) => len,
                Err(error) if again(&error) => continue,
                Err(error) => return Err(error),
            };
            let Some(packet) = frame.get(4..len) else {
                continue;
            };
            // The kernel refuses packets while its interface is down. They are lost, as on a wire.
            let _ = theirs.write(packet);
        }
    };
    let inward = || -> io::Result<()> {
        let mut frame = vec![0; 4 + LONGEST];
        loop {
            let len = match theirs.read(&mut frame[4..]) {
                Ok(len) => len,
                Err(error) if again(&error) => continue,
                Err(error) => return Err(error),
            };
            let family: u32 = match frame[4] >> 4 {
                6 => 10,
                _ => 2,
            };
            frame[..4].copy_from_slice(&family.to_be_bytes());
            // A device that was shut ends the bridge. A packet that is refused does not.
            if let Err(error) = ours.write(&frame[..4 + len])
                && error.raw_os_error() == Some(EHOSTDOWN)
            {
                return Err(error);
            }
        }
    };
    // Each direction ends only with an error. The process then exits, which ends the other.
    let ended = thread::scope(|scope| {
        scope.spawn(|| {
            if let Err(error) = outward() {
                eprintln!("tunctl: {}", tree.explain(&path, None, &error));
            }
            std::process::exit(1);
        });
        inward()
    });
    ended.map_err(|error| match error.raw_os_error() {
        Some(EHOSTDOWN) => tree.explain(&path, None, &error),
        _ => Failure::new(format!("the kernel's {hostif}: {error}")),
    })
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn run(_tree: &Tree, _unit: u16, _hostif: &str) -> Result<(), Failure> {
    Err(Failure::new("only Linux has another kernel to bridge to"))
}

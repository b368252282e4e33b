//! Pumps packets between a tun device of tund and one of the Linux kernel.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread;

use tun::Tun;
use tun::host::HostTun;

use crate::interrupt::retry;
use crate::report::note;
use crate::tree::{Failure, Tree};

/// Longest packet of either end, bytes.
const LONGEST: usize = 65_536;
const EBADFD: i32 = 77;
const EHOSTDOWN: i32 = 112;

pub(crate) fn run(tree: &Tree, unit: u16, hostif: &str) -> Result<(), Failure> {
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
    note(&format!(
        "Pumping packets between {name} and the kernel's {hostif}; interrupt to stop."
    ));

    let ends = Arc::new((ours, theirs));
    let (ended, end) = mpsc::channel();
    let (outward, told) = (Arc::clone(&ends), ended.clone());
    thread::spawn(move || drop(told.send(carry_out(&outward.0, &outward.1))));
    thread::spawn(move || drop(ended.send(carry_in(&ends.1, &ends.0))));
    // Each direction ends only with an error. The process then exits, which ends the other.
    Err(match end.recv() {
        Ok(End::Ours(error)) => tree.explain(&path, None, &error),
        Ok(End::Theirs(error)) if error.raw_os_error() == Some(EBADFD) => {
            Failure::new(format!("the kernel's {hostif} was removed"))
        }
        Ok(End::Theirs(error)) => Failure::new(format!("the kernel's {hostif}: {error}")),
        Err(_) => Failure::new("the bridge broke"),
    })
}

/// The device that ended the bridge.
enum End {
    Ours(io::Error),
    Theirs(io::Error),
}

/// Carries packets from our device to the kernel's.
fn carry_out(ours: &Tun, theirs: &HostTun) -> End {
    let mut frame = vec![0; 4 + LONGEST];
    loop {
        let len = match retry(|| ours.read(&mut frame)) {
            Ok(len) => len,
            Err(error) => return End::Ours(error),
        };
        let Some(packet) = frame.get(4..len) else {
            continue;
        };
        // The kernel refuses packets while its interface is down. They are lost, as on a wire. If
        // the interface is gone, the other direction is told.
        let _ = retry(|| theirs.write(packet));
    }
}

/// Carries packets from the kernel's device to ours.
fn carry_in(theirs: &HostTun, ours: &Tun) -> End {
    let mut frame = vec![0; 4 + LONGEST];
    loop {
        let len = match retry(|| theirs.read(&mut frame[4..])) {
            Ok(len) => len,
            Err(error) => return End::Theirs(error),
        };
        let family: u32 = match frame[4] >> 4 {
            6 => 10,
            _ => 2,
        };
        frame[..4].copy_from_slice(&family.to_be_bytes());
        // A device that was shut, or whose tund is gone, ends the bridge. A packet that is refused
        // does not; and our reader is told of everything that ends it.
        if let Err(error) = retry(|| ours.write(&frame[..4 + len]))
            && error.raw_os_error() == Some(EHOSTDOWN)
        {
            return End::Ours(error);
        }
    }
}

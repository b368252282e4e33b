//! The test bed: one or more hosts on the near side of a link, and Linux on the far side.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Serialize;

use crate::host::Host;
use crate::link::{Link, Port, prefer};
use crate::mount::Mount;
use crate::way::Shape;

const FAR: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// The address of the first near host; those of the others follow.
const NEAR: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

/// The priority of the stacks and the programs that use them: above other programs, below the link.
const PRIORITY: i32 = -10;

/// The stack that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stack {
    /// This project, through a mount.
    Tund,
    /// The kernel, with CUBIC.
    Linux,
}

impl Stack {
    /// Both stacks.
    pub(crate) const BOTH: [Self; 2] = [Self::Tund, Self::Linux];
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tund => "tund",
            Self::Linux => "Linux",
        })
    }
}

/// A connection of either stack.
pub(crate) trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

#[derive(Debug)]
enum Near {
    Tund(Mount),
    Linux(Host),
}

/// Hosts and the link between them, made for one measurement.
pub(crate) struct Bed {
    // Before the hosts: fields are dropped in this order, and the link still uses their devices.
    link: Link,
    near: Vec<Near>,
    far: Host,
}

impl Bed {
    /// The reason why the test bed cannot run here, if there is one.
    pub(crate) fn missing() -> Option<&'static str> {
        let ip = Command::new("ip").arg("-V").stdout(Stdio::null()).status();
        [
            (rustix::process::geteuid().is_root(), "not root"),
            (Path::new("/dev/fuse").exists(), "no /dev/fuse"),
            (Path::new("/dev/net/tun").exists(), "no /dev/net/tun"),
            (ip.is_ok_and(|status| status.success()), "no ip (iproute2)"),
            (namespaces(), "no network namespaces"),
        ]
        .into_iter()
        .find_map(|(there, reason)| (!there).then_some(reason))
    }

    /// Hosts of these stacks beside each other, on one line to the far side. `tund` is the daemon's
    /// program. This thread and what it starts go before other programs of the machine afterwards.
    pub(crate) fn new(stacks: &[Stack], shape: Shape, tund: &Path) -> io::Result<Self> {
        prefer(PRIORITY);
        let (far, device) = Host::new(FAR)?;
        let far_port = Port::kernel(FAR, device)?;
        let mut near = Vec::new();
        let mut ports = Vec::new();
        for (number, stack) in (0..).zip(stacks) {
            let address = Ipv4Addr::from_bits(NEAR.to_bits() + number);
            let (host, port) = match stack {
                Stack::Tund => {
                    let (mount, device) = Mount::new(tund, address)?;
                    (Near::Tund(mount), Port::scheme(address, device)?)
                }
                Stack::Linux => {
                    let (host, device) = Host::new(address)?;
                    (Near::Linux(host), Port::kernel(address, device)?)
                }
            };
            near.push(host);
            ports.push(port);
        }
        let link = Link::new(shape, ports, vec![far_port]);
        Ok(Self { link, near, far })
    }

    /// The link, to read its counters or to [calm](Link::calm) it.
    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// A listener on the far side.
    pub(crate) fn listen(&self, port: u16) -> io::Result<TcpListener> {
        self.far.listen(port)
    }

    /// Connects the near host of this number to a port of the far side. An error, too, if there is
    /// no such host.
    pub(crate) fn dial(&self, number: usize, port: u16) -> io::Result<Box<dyn Stream>> {
        let to = SocketAddrV4::new(FAR, port);
        match self.near.get(number) {
            Some(Near::Tund(mount)) => Ok(Box::new(mount.dial(to)?)),
            Some(Near::Linux(host)) => Ok(Box::new(host.dial(to)?)),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// Whether the kernel lets this process make network namespaces: some containers do not.
fn namespaces() -> bool {
    Host::new(FAR).is_ok()
}

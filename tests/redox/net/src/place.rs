//! The interfaces to test over.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use crate::{lease, mirror};

/// The echo service (RFC 862) that the runner provides.
pub const ECHO: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 100), 7);
/// Its service that sends some megabytes and closes.
pub const DOWNLOAD: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 100), 9);

/// An interface, or a way to use one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// 127.0.0.1.
    Lo,
    /// A tun device, whose other end reflects.
    Tun,
    /// The same, with one of 13 packets dropped.
    Lossy,
    /// The first Ethernet adapter.
    Eth,
}

/// The addresses and properties that a test is given.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The address that servers bind to.
    pub bind: Ipv4Addr,
    /// The address at which clients reach them.
    pub target: Ipv4Addr,
    /// Whether packets get lost on the way, each of which may cost a second.
    pub lossy: bool,
}

impl On {
    /// The prefix of the names of tests.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Lo => "lo",
            Self::Tun => "tun",
            Self::Lossy => "lossy",
            Self::Eth => "eth",
        }
    }

    /// Makes the interface ready for use. Returns the reason if there is no such interface.
    pub fn prepare(self) -> Result<Place, String> {
        let everywhere = Ipv4Addr::UNSPECIFIED;
        match self {
            Self::Lo => Ok(Place {
                bind: Ipv4Addr::LOCALHOST,
                target: Ipv4Addr::LOCALHOST,
                lossy: false,
            }),
            Self::Tun | Self::Lossy => {
                let drop_each = if self == Self::Lossy { 13 } else { 0 };
                match mirror::start(drop_each) {
                    Ok(()) => Ok(Place {
                        bind: everywhere,
                        target: mirror::PEER,
                        lossy: self == Self::Lossy,
                    }),
                    Err(error)
                        if error.kind() == ErrorKind::NotFound
                            || error.raw_os_error() == Some(libc::ENODEV) =>
                    {
                        Err("no tun driver".to_owned())
                    }
                    Err(error) => panic!("tun: {error}"),
                }
            }
            Self::Eth => match lease::wait(Duration::from_secs(15)) {
                Some(address) => Ok(Place {
                    bind: everywhere,
                    target: address,
                    lossy: false,
                }),
                None => Err("eth0 has no address".to_owned()),
            },
        }
    }
}

impl Place {
    /// The address at which clients reach a server at `port`.
    pub fn at(&self, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(self.target, port)
    }

    /// The part of `bytes` that can be moved here in a reasonable time.
    pub fn bearable(&self, bytes: usize) -> usize {
        match self.lossy {
            true => bytes / 20,
            false => bytes,
        }
    }

    /// The address that a server binds, at any port.
    pub fn any(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.bind, 0)
    }
}

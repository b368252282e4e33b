//! Linux's drivers: the links that the command line names, each through a packet socket.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::thread;

use net::link::Mac;
use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, netlink};

use super::packet_socket::{Link, PacketSocket};
use super::{Place, SEARCH, STACK_SIZE, Work};

/// Messages about links, such as that one is up.
const RTMGRP_LINK: u32 = 1;

/// Links of this system, by name.
pub(crate) struct Links {
    /// In the order of the command line, in which interfaces are numbered.
    names: Vec<String>,
    /// Those that were opened once. From then on they are there only while they are up.
    opened: Mutex<BTreeSet<String>>,
}

impl Links {
    /// These links, which must exist and carry Ethernet. From now on the network looks at them
    /// whenever one changes.
    pub(crate) fn new(mut names: Vec<String>, work: &Work) -> io::Result<Self> {
        let mut seen = BTreeSet::new();
        names.retain(|name| seen.insert(name.clone()));
        for name in &names {
            let told = |error| io::Error::other(format!("{name}: {error}"));
            let link = Link::look_up(name).map_err(told)?;
            // Even if we may not, the user should hear of it at once.
            PacketSocket::open(&link).map_err(told)?;
            for addr in link.addresses() {
                log::warn!(
                    "the host has {addr} on {name}, too, and answers for it: remove its addresses, and \
                     set net.ipv6.conf.{name}.disable_ipv6"
                );
            }
        }
        let changes = changes()?;
        let work = work.clone();
        let builder = thread::Builder::new().stack_size(STACK_SIZE);
        builder.spawn(move || watch(&changes, &work))?;
        Ok(Self {
            names,
            opened: Mutex::default(),
        })
    }
}

/// A socket that hears of every change of a link.
fn changes() -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::bind(&socket, &netlink::SocketAddrNetlink::new(0, RTMGRP_LINK))?;
    Ok(socket)
}

/// Has the network look at its adapters after each change.
fn watch(changes: &OwnedFd, work: &Work) {
    loop {
        match rustix::io::read(changes, &mut [0; 4096]) {
            // Which link it was does not matter, nor do messages that were lost: all are looked at.
            Ok(_) | Err(Errno::NOBUFS | Errno::INTR) => work.receive(SEARCH),
            Err(error) => return log::error!("changes of links are not seen any more: {error}"),
        }
    }
}

impl Place for Links {
    type Frames = PacketSocket;

    fn names(&self) -> io::Result<Vec<String>> {
        let opened = self.opened.lock();
        let there = |name: &&String| match Link::look_up(name) {
            // One that is down has its number all the same.
            Ok(link) => link.running || !opened.contains(*name),
            Err(_) => false,
        };
        Ok(self.names.iter().filter(there).cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<(Mac, PacketSocket)> {
        let link = Link::look_up(name)?;
        let socket = PacketSocket::open(&link)?;
        self.opened.lock().insert(name.to_owned());
        Ok((Mac(link.mac), socket))
    }
}

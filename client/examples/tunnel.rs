//! A whole tunnel program: packets that the system sends into its interface go to the peer as UDP
//! datagrams, many at a time, and the peer's packets come back. Nothing is encrypted, and whoever
//! can write to its port from the peer's address is believed.
//!
//! ```sh
//! # Here 192.0.2.1, there 192.0.2.2. ROOT is /scheme on Redox, else where `tund --mount` serves.
//! cargo run -p tun-client --example tunnel -- ROOT 192.0.2.1:7000 192.0.2.2:7000 10.7.0.1/24
//! cargo run -p tun-client --example tunnel -- ROOT 192.0.2.2:7000 192.0.2.1:7000 10.7.0.2/24
//! ```
//!
//! More arguments are routes into the tunnel, such as `default`. When it ends, killed or not, the
//! interface goes, and its routes with it.

use std::error::Error;
use std::net::SocketAddr;
use std::{env, io};

use rustix::event::{PollFd, PollFlags, poll};
use tun::batch::{Incoming, Outgoing, Refused};
use tun::udp::{self, Datagrams, UdpSocket};
use tun::{Builder, Device, Tunnel};

/// What a packet has less room for in the tunnel: IPv6 and UDP headers.
const OVERHEAD: u16 = 48;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [root, local, peer, address, routes @ ..] = &args[..] else {
        return Err("usage: tunnel ROOT LOCAL:PORT PEER:PORT ADDRESS/LEN [ROUTE]...".into());
    };
    let peer: SocketAddr = peer.parse()?;
    let socket = UdpSocket::bind(local.parse()?)?;
    socket.set_nonblocking(true)?;

    let mut builder = Builder::new(root)
        .address(address)
        .mtu(1500 - OVERHEAD)
        .nonblocking(true);
    if socket.is_batch() {
        // It is of the same stack, whose routes may lead into the tunnel.
        builder = builder.bypass(&socket);
    }
    for route in routes {
        builder = builder.route(route);
    }
    let tunnel = builder.build()?;
    let events = tunnel.events()?;
    println!("{}: {} is on the way to {peer}", tunnel.name()?, address);

    let mut out = Out::new();
    let mut back = Back::new(&tunnel);
    loop {
        let mut wanted = [
            PollFd::new(&tunnel, PollFlags::IN),
            PollFd::new(&socket, PollFlags::IN),
            PollFd::new(&events, PollFlags::IN),
        ];
        match poll(&mut wanted, None) {
            Err(rustix::io::Errno::INTR) => continue,
            polled => polled?,
        };
        let [from_tunnel, from_socket, changed] = wanted.map(|wanted| !wanted.revents().is_empty());
        if from_tunnel {
            out.carry(&tunnel, &socket, peer)?;
        }
        if from_socket {
            back.carry(&tunnel, &socket, peer)?;
        }
        if changed {
            // Somebody else set it down, gave it another mtu, …
            println!("{:?}", events.read()?);
        }
    }
}

/// Packets on their way out.
struct Out {
    packets: Incoming,
    datagrams: udp::Outgoing,
}

impl Out {
    fn new() -> Self {
        Self {
            packets: Incoming::default(),
            datagrams: udp::Outgoing::default(),
        }
    }

    fn carry(&mut self, tunnel: &Tunnel, socket: &UdpSocket, peer: SocketAddr) -> io::Result<()> {
        for packet in or_nothing(tunnel.recv(&mut self.packets))?
            .into_iter()
            .flatten()
        {
            if self.datagrams.lend(packet.len()).is_none() {
                send(socket, &mut self.datagrams);
            }
            // The room is the batch's: a program that encrypts does so from the one into the other.
            if let Some(room) = self.datagrams.lend(packet.len()) {
                room.copy_from_slice(packet);
                self.datagrams.commit(packet.len(), peer)?;
            }
        }
        send(socket, &mut self.datagrams);
        Ok(())
    }
}

/// Packets on their way back.
struct Back {
    datagrams: Datagrams,
    packets: Outgoing,
}

impl Back {
    fn new(tunnel: &Tunnel) -> Self {
        Self {
            datagrams: Datagrams::default(),
            packets: Outgoing::new(tunnel.format(), 256 * 1024),
        }
    }

    fn carry(&mut self, tunnel: &Tunnel, socket: &UdpSocket, peer: SocketAddr) -> io::Result<()> {
        for (from, data) in or_nothing(socket.recv(&mut self.datagrams))?
            .into_iter()
            .flatten()
        {
            if from != peer {
                continue;
            }
            match self.packets.push(data) {
                Err(Refused::Full) => {
                    tunnel.send(&mut self.packets)?;
                    // It is empty now.
                    let _ = self.packets.push(data);
                }
                // Neither is a packet: the peer's mistake harms no other.
                Err(Refused::TooLong | Refused::NotIp) | Ok(()) => {}
            }
        }
        tunnel.send(&mut self.packets)
    }
}

/// Nothing, if there is nothing at present.
fn or_nothing<T>(received: io::Result<T>) -> io::Result<Option<T>> {
    match received {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        // What we sent did not arrive; the peer may come yet.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(None),
        received => received.map(Some),
    }
}

/// Sends datagrams. Those that cannot be sent now are lost, as on any wire.
fn send(socket: &UdpSocket, datagrams: &mut udp::Outgoing) {
    if let Err(error) = socket.send(datagrams) {
        eprintln!("datagrams lost: {error}");
        datagrams.clear();
    }
}

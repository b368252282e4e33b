//! The small services, on TCP and UDP of every interface: echo (RFC 862), discard (RFC 863) and
//! character generator (RFC 864).

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

use bitflags::bitflags;

use crate::ifnet::is_host;
use crate::net::Net;
use crate::stack::{Connection, Datagram, FlowId, ListenerId, Owner, STRANGER, Terms, UdpId};

/// Most connections of each service that wait to be accepted.
const BACKLOG: usize = 1024;
/// Bytes moved for one connection before another gets its turn.
const CHUNK: usize = 64 << 10;
/// The services are open to strangers, and do not keep memory for an idle connection.
const IDLE_LIMIT: Duration = Duration::from_secs(5 * 60);
/// Characters in a line of the character generator, without its end.
const LINE: usize = 72;

bitflags! {
    /// Which services run.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Services: u8 {
        /// Sends received bytes back.
        const ECHO = 1;
        /// Discards received bytes.
        const DISCARD = 2;
        /// Sends characters without end.
        const CHARGEN = 4;
    }
}

/// A word that names no service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownService(String);

impl fmt::Display for UnknownService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(word) = self;
        write!(
            f,
            "no service '{word}': there are echo, discard and chargen"
        )
    }
}

impl std::error::Error for UnknownService {}

impl FromStr for Services {
    type Err = UnknownService;

    /// Parses a list such as `echo,discard,chargen`.
    fn from_str(text: &str) -> Result<Self, UnknownService> {
        let service = |word: &str| match word.trim() {
            "echo" => Ok(Self::ECHO),
            "discard" => Ok(Self::DISCARD),
            "chargen" => Ok(Self::CHARGEN),
            word => Err(UnknownService(word.to_owned())),
        };
        text.split(',').map(service).collect()
    }
}

/// One service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// RFC 862.
    Echo,
    /// RFC 863.
    Discard,
    /// RFC 864.
    Chargen,
}

impl Service {
    const ALL: [(Services, Self); 3] = [
        (Services::ECHO, Self::Echo),
        (Services::DISCARD, Self::Discard),
        (Services::CHARGEN, Self::Chargen),
    ];

    /// The owner of its sockets: a number that no file has.
    fn owner(self) -> Owner {
        Owner(u32::MAX - u32::from(self.port()))
    }

    /// The service that `owner` stands for, if it is one.
    pub(crate) fn of(owner: Owner) -> Option<Self> {
        let mut all = Self::ALL.into_iter().map(|(_, service)| service);
        all.find(|service| service.owner() == owner)
    }

    const fn port(self) -> u16 {
        match self {
            Self::Echo => 7,
            Self::Discard => 9,
            Self::Chargen => 19,
        }
    }
}

/// The state of the services.
#[derive(Debug, Default)]
pub(crate) struct Servers {
    /// The position of each character generator. Bounded by the number of connections.
    positions: BTreeMap<FlowId, usize>,
    /// The position at which the next datagram of the character generator begins.
    line: usize,
    /// Carries bytes from a receive buffer to a send buffer; nothing stays in it.
    chunk: Vec<u8>,
}

impl Servers {
    /// Opens the sockets of these services.
    pub(crate) fn start(net: &mut Net, services: Services) {
        for (flag, service) in Service::ALL {
            if services.contains(flag) {
                let (port, owner) = (service.port(), service.owner());
                let all: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
                for addr in all {
                    // Nothing else is bound yet: these cannot fail.
                    let tcp = net.tcp.listen(addr, port, BACKLOG, owner, STRANGER);
                    let udp = net.udp.bind(addr, port, owner, STRANGER);
                    debug_assert!(tcp.is_ok() && udp.is_ok());
                    if let Ok(listener) = tcp {
                        let terms = Terms {
                            idle_limit: Some(IDLE_LIMIT),
                            ..Terms::default()
                        };
                        net.tcp.set_listener_terms(listener, terms);
                    }
                }
            }
        }
    }

    /// Accepts the connections that wait.
    pub(crate) fn accept(net: &mut Net, listener: ListenerId) {
        // Events of each connection follow at once.
        while net.tcp.accept(listener).is_some() {}
    }

    /// Serves a connection that has an event.
    pub(crate) fn serve_flow(&mut self, net: &mut Net, id: FlowId, service: Service) {
        let position = self.positions.get(&id).copied().unwrap_or(0);
        let most = net.tcp.room_to_send(id).min(CHUNK);
        let moved = net.tcp.pump(id, |connection| match service {
            Service::Echo => echo(connection, &mut self.chunk, most),
            Service::Discard => discard(connection),
            Service::Chargen => {
                discard(connection);
                generate(connection, position, most)
            }
        });
        let (Some(moved), Some(connection)) = (moved, net.tcp.connection(id)) else {
            self.positions.remove(&id);
            return;
        };
        if !connection.may_recv() {
            // The other end has closed. Bytes queued for it are still sent.
            self.positions.remove(&id);
            net.tcp.close(&net.ip, id);
            return;
        }
        if service == Service::Chargen {
            // The text repeats after as many lines as there are characters.
            let position = (position + moved) % ((LINE + 2) * CHARACTERS);
            self.positions.insert(id, position);
        }
    }

    /// Serves a socket that has received datagrams.
    pub(crate) fn serve_socket(&mut self, net: &mut Net, id: UdpId, service: Service) {
        // The queue is bounded, and nothing arrives in the meantime.
        while let Some(datagram) = net.udp.recv(id) {
            self.serve_datagram(net, id, service, &datagram);
        }
    }

    fn serve_datagram(&mut self, net: &mut Net, id: UdpId, service: Service, datagram: &Datagram) {
        let from = datagram.from;
        // Two such services must not answer each other for ever (inetd's old rule).
        let loops = [Service::Echo, Service::Chargen].map(Service::port);
        if loops.contains(&from.1) || from.1 == 0 || !is_host(&from.0) {
            return;
        }
        // From the address that was asked, unless that was a group or broadcast address.
        let to = datagram.to;
        let own = net.ip.ifs.is_local(&to).then_some(to);
        let sent = match service {
            Service::Discard => return,
            Service::Echo => net.udp.send(&mut net.ip, id, own, from, datagram.data()),
            Service::Chargen => {
                let start = self.line * (LINE + 2);
                let line: Vec<u8> = (start..start + LINE + 2).map(character).collect();
                self.line = (self.line + 1) % CHARACTERS;
                net.udp.send(&mut net.ip, id, own, from, &line)
            }
        };
        // A datagram that cannot be answered is lost, as datagrams are; the interface counted it.
        if let Err(error) = sent {
            log::debug!("{service:?} to {}: {error}", from.0);
        }
    }
}

/// Sends received bytes back by way of `chunk`, as many as there is room for, and about `most`.
fn echo(connection: &mut Connection, chunk: &mut Vec<u8>, most: usize) -> usize {
    chunk.resize(4096, 0);
    let mut moved = 0;
    while moved < most {
        let room = connection.send_room().min(chunk.len());
        if !connection.can_send() || room == 0 {
            break;
        }
        let len = connection.read(&mut chunk[..room]);
        if len == 0 {
            break;
        }
        moved += connection.send(&chunk[..len]);
    }
    moved
}

fn discard(connection: &mut Connection) -> usize {
    let mut moved = 0;
    while moved < CHUNK {
        match connection.recv(CHUNK, <[u8]>::len) {
            0 => break,
            len => moved += len,
        }
    }
    moved
}

/// Sends up to `most` characters of the endless text, from `position` on.
fn generate(connection: &mut Connection, position: usize, most: usize) -> usize {
    let mut moved = 0;
    while moved < most {
        let at = position + moved;
        let sent = connection.send_with(most - moved, |room| {
            for (offset, byte) in room.iter_mut().enumerate() {
                *byte = character(at + offset);
            }
            room.len()
        });
        if sent == 0 {
            break;
        }
        moved += sent;
    }
    moved
}

/// The number of printing characters, and of lines before they repeat.
const CHARACTERS: usize = 95;

/// The character at `position` of the endless text: each line begins one character further on.
fn character(position: usize) -> u8 {
    let (line, column) = (position / (LINE + 2), position % (LINE + 2));
    match column {
        LINE => b'\r',
        column if column > LINE => b'\n',
        column => b' ' + ((line + column) % CHARACTERS) as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_of_rfc_864() {
        let line = |number: usize| -> String {
            let start = number * (LINE + 2);
            (start..start + LINE + 2)
                .map(|at| char::from(character(at)))
                .collect()
        };
        assert!(line(0).starts_with(" !\"#$%&'()*+,-./0123456789"));
        assert!(line(1).starts_with("!\"#") && line(1).ends_with("\r\n"));
        assert_eq!(line(0).len(), 74);
        assert_eq!(line(0), line(CHARACTERS));
    }

    #[test]
    fn services_by_name() {
        assert_eq!("echo,discard,chargen".parse(), Ok(Services::all()));
        assert_eq!("echo".parse(), Ok(Services::ECHO));
        let error = "echo,daytime".parse::<Services>().unwrap_err();
        assert!(error.to_string().contains("'daytime'"));
    }
}

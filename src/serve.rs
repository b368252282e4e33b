//! The small services, on TCP and UDP of every interface: echo (RFC 862), discard (RFC 863) and
//! character generator (RFC 864).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use bitflags::bitflags;

use crate::net::Net;
use crate::netisr::Budget;
use crate::stack::{Datagram, FlowId, ListenerId, Owner, TcpEvent, UdpEvent, UdpId};

/// Connections that a service lets wait, each.
const BACKLOG: usize = 1024;
/// Bytes moved for one connection before another gets its turn.
const CHUNK: usize = 64 << 10;
/// Characters in a line of the character generator, without its end.
const LINE: usize = 72;

bitflags! {
    /// Which services run.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Services: u8 {
        /// What comes goes back.
        const ECHO = 1;
        /// What comes is thrown away.
        const DISCARD = 2;
        /// Characters without end.
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

    /// Reads `echo,discard,chargen` or a part of it.
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
    const fn port(self) -> u16 {
        match self {
            Self::Echo => 7,
            Self::Discard => 9,
            Self::Chargen => 19,
        }
    }
}

/// What the services remember of their connections.
#[derive(Debug, Default)]
pub(crate) struct Servers {
    /// How far each character generator is. Bounded by the connections.
    positions: BTreeMap<FlowId, usize>,
    /// Where the next datagram of the character generator begins.
    line: usize,
}

impl Net {
    pub(crate) fn start_services(&mut self, services: Services) {
        let all = [
            (Services::ECHO, Service::Echo),
            (Services::DISCARD, Service::Discard),
            (Services::CHARGEN, Service::Chargen),
        ];
        for (flag, service) in all {
            if services.contains(flag) {
                let owner = Owner::Service(service);
                // Nothing else is bound yet: these cannot fail.
                let tcp = self.tcp.listen(None, service.port(), BACKLOG, owner);
                let udp = self.udp.bind(None, service.port(), owner);
                debug_assert!(tcp.is_ok() && udp.is_ok());
            }
        }
    }

    /// Tells owners what happened on their sockets, and serves those that are ours.
    pub(crate) fn serve_run(&mut self, budget: Budget) {
        for _ in 0..budget.get() {
            if let Some(event) = self.tcp.poll_event() {
                match event {
                    TcpEvent::Acceptable(listener, Owner::Service(_)) => {
                        self.serve_accept(listener)
                    }
                    TcpEvent::Changed(flow, Owner::Service(service)) => {
                        self.serve_flow(flow, service);
                    }
                    TcpEvent::Acceptable(_, Owner::File(file))
                    | TcpEvent::Changed(_, Owner::File(file)) => {
                        self.wake(file, scheme::Ready::all());
                    }
                }
            } else if let Some(event) = self.udp.poll_event() {
                let UdpEvent { socket, owner } = event;
                match owner {
                    Owner::Service(service) => self.serve_socket(socket, service),
                    Owner::File(_) => {
                        for file in self.inet.holders(socket) {
                            self.wake(file, scheme::Ready::READ);
                        }
                    }
                }
            } else {
                return;
            }
        }
    }

    fn serve_accept(&mut self, listener: ListenerId) {
        // Each hears of itself right after.
        while self.tcp.accept(listener).is_some() {}
    }

    fn serve_flow(&mut self, id: FlowId, service: Service) {
        let position = self.servers.positions.get(&id).copied().unwrap_or(0);
        let Some(socket) = self.tcp.socket(id) else {
            self.servers.positions.remove(&id);
            return;
        };
        let mut moved = 0;
        match service {
            Service::Echo => {
                let mut chunk = [0; 4096];
                while moved < CHUNK && socket.can_recv() && socket.can_send() {
                    let room = socket.send_capacity() - socket.send_queue();
                    let len = room.min(chunk.len());
                    let Ok(len) = socket.recv_slice(&mut chunk[..len]) else {
                        break;
                    };
                    // There was room for it.
                    let _ = socket.send_slice(&chunk[..len]);
                    moved += len;
                }
            }
            Service::Discard => {
                while moved < CHUNK && socket.can_recv() {
                    let Ok(len) = socket.recv(|data| (data.len(), data.len())) else {
                        break;
                    };
                    moved += len;
                }
            }
            Service::Chargen => {
                while socket.can_recv() && socket.recv(|data| (data.len(), ())).is_ok() {}
                while moved < CHUNK && socket.can_send() {
                    let at = position + moved;
                    let sent = socket.send(|room| {
                        for (offset, byte) in room.iter_mut().enumerate() {
                            *byte = character(at + offset);
                        }
                        (room.len(), room.len())
                    });
                    let Ok(len) = sent else {
                        break;
                    };
                    moved += len;
                }
            }
        }
        let over = !socket.may_recv() && socket.recv_queue() == 0;
        if over || !socket.is_active() {
            // The other end is done. What is queued for it still goes out.
            self.servers.positions.remove(&id);
            self.tcp_close(id);
            return;
        }
        if service == Service::Chargen {
            // Lines repeat after as many as there are characters.
            let position = (position + moved) % ((LINE + 2) * CHARACTERS);
            self.servers.positions.insert(id, position);
        }
        if moved > 0 {
            self.tcp_touch(id);
        }
    }

    fn serve_socket(&mut self, id: UdpId, service: Service) {
        // The queue is bounded, and nothing comes meanwhile.
        while let Some(datagram) = self.udp.recv(id) {
            self.serve_datagram(id, service, &datagram);
        }
    }

    fn serve_datagram(&mut self, id: UdpId, service: Service, datagram: &Datagram) {
        let from = datagram.from;
        // Two such services must not be set upon each other (inetd's old rule).
        let loops = [Service::Echo, Service::Chargen].map(Service::port);
        if loops.contains(&from.1) || from.1 == 0 || !crate::ifnet::is_host(&from.0) {
            return;
        }
        // From the address that was asked, unless that was a group or everybody.
        let to = datagram.to;
        let own = self.ifs.is_local(&to).then_some(to);
        let sent = match service {
            Service::Discard => return,
            Service::Echo => self.udp_send(id, own, from, datagram.data()),
            Service::Chargen => {
                let start = self.servers.line * (LINE + 2);
                let line: Vec<u8> = (start..start + LINE + 2).map(character).collect();
                self.servers.line = (self.servers.line + 1) % CHARACTERS;
                self.udp_send(id, own, from, &line)
            }
        };
        // A datagram that cannot be answered is lost, as datagrams are; the interface counted it.
        if let Err(error) = sent {
            log::debug!("{service:?} to {}: {error}", from.0);
        }
    }
}

/// Printing characters, and so lines before they repeat.
const CHARACTERS: usize = 95;

/// The character at `position` of the endless text: each line begins one further on.
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

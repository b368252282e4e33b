//! Pairs of connections and sockets.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

use tun::udp;

use crate::place::Place;

/// A listener, and its port.
pub fn listener(place: &Place) -> (TcpListener, u16) {
    let listener = TcpListener::bind(place.any()).expect("bind");
    let port = listener.local_addr().expect("local_addr").port();
    (listener, port)
}

/// A connection: the client's end and the server's.
pub fn connected(place: &Place) -> (TcpStream, TcpStream) {
    let (listener, port) = listener(place);
    let client = TcpStream::connect(place.at(port)).expect("connect");
    let (server, _) = listener.accept().expect("accept");
    (client, server)
}

/// A datagram socket, and its port.
pub fn datagram(place: &Place) -> (UdpSocket, u16) {
    let socket = UdpSocket::bind(place.any()).expect("bind");
    let port = socket.local_addr().expect("local_addr").port();
    (socket, port)
}

/// A client's socket that is connected to a server's.
pub fn datagrams(place: &Place) -> (UdpSocket, UdpSocket) {
    let (server, port) = datagram(place);
    let client = UdpSocket::bind("0.0.0.0:0").expect("bind");
    client.connect(place.at(port)).expect("connect");
    (client, server)
}

/// A socket that carries many datagrams in an operation, and its port. `None` on a daemon that has
/// none.
pub fn batch(place: &Place) -> Option<(udp::UdpSocket, u16)> {
    let socket = udp::UdpSocket::bind(SocketAddr::V4(place.any())).expect("bind");
    let port = socket.local_addr().expect("local_addr").port();
    socket.is_batch().then_some((socket, port))
}

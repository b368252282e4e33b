//! Devices, sockets and events for programs that run on tokio.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::batch::{Incoming, Outgoing, PacketsMut};
use crate::udp::{self, Datagrams, Received, UdpSocket};
use crate::{Device, Event, Events};

/// A device whose operations wait without holding up their thread.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use tun::batch::{Incoming, Outgoing};
/// use tun::{AsyncDevice, Builder, Device};
///
/// let tunnel = Builder::new("/scheme").address("10.9.0.1/24").build()?;
/// let tunnel = AsyncDevice::new(tunnel)?;
/// let mut incoming = Incoming::default();
/// let mut outgoing = Outgoing::new(tunnel.get_ref().format(), 128 * 1024);
/// loop {
///     for packet in tunnel.recv(&mut incoming).await? {
///         outgoing.push(packet).ok();
///     }
///     tunnel.send(&mut outgoing).await?;
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct AsyncDevice<D> {
    device: D,
    ready: Ready,
}

impl<D: Device> AsyncDevice<D> {
    /// Makes a device nonblocking and registers it with the runtime. Panics outside of a runtime
    /// with I/O, as all of tokio.
    pub fn new(device: D) -> io::Result<Self> {
        device.set_nonblocking(true)?;
        let ready = Ready::new(&device, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { device, ready })
    }

    /// The device.
    pub fn get_ref(&self) -> &D {
        &self.device
    }

    /// [`Device::recv`]. Nothing is lost if it is cancelled.
    pub async fn recv<'a>(&self, incoming: &'a mut Incoming) -> io::Result<PacketsMut<'a>> {
        let read = || self.device.recv(&mut *incoming).map(drop);
        self.ready.when(Interest::READABLE, read).await?;
        Ok(incoming.packets())
    }

    /// [`Device::send`]. If it is cancelled, what was not sent is still in `outgoing`.
    pub async fn send(&self, outgoing: &mut Outgoing) -> io::Result<()> {
        let write = || self.device.send(&mut *outgoing);
        self.ready.when(Interest::WRITABLE, write).await
    }
}

/// A socket whose operations wait without holding up their thread.
#[derive(Debug)]
pub struct AsyncUdpSocket {
    socket: UdpSocket,
    ready: Ready,
}

impl AsyncUdpSocket {
    /// Makes a socket nonblocking and registers it with the runtime. Panics outside of a runtime
    /// with I/O.
    pub fn new(socket: UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let ready = Ready::new(&socket, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { socket, ready })
    }

    /// The socket.
    pub fn get_ref(&self) -> &UdpSocket {
        &self.socket
    }

    /// [`UdpSocket::recv`]. Nothing is lost if it is cancelled.
    pub async fn recv<'a>(&self, datagrams: &'a mut Datagrams) -> io::Result<Received<'a>> {
        let read = || self.socket.recv(&mut *datagrams).map(drop);
        self.ready.when(Interest::READABLE, read).await?;
        Ok(datagrams.datagrams())
    }

    /// [`UdpSocket::send`]. If it is cancelled, what was not sent is still in `outgoing`.
    pub async fn send(&self, outgoing: &mut udp::Outgoing) -> io::Result<()> {
        let write = || self.socket.send(&mut *outgoing);
        self.ready.when(Interest::WRITABLE, write).await
    }
}

/// The changes of an interface, waited for without holding up a thread.
#[derive(Debug)]
pub struct AsyncEvents {
    events: Events,
    ready: Ready,
}

impl AsyncEvents {
    /// Makes the file nonblocking and registers it with the runtime. Panics outside of a runtime
    /// with I/O.
    pub fn new(events: Events) -> io::Result<Self> {
        events.set_nonblocking(true)?;
        let ready = Ready::new(&events, Interest::READABLE)?;
        Ok(Self { events, ready })
    }

    /// [`Events::read`].
    pub async fn read(&self) -> io::Result<Vec<Event>> {
        let read = || self.events.read();
        self.ready.when(Interest::READABLE, read).await
    }
}

/// The readiness of a file, watched by a descriptor of its own.
#[derive(Debug)]
struct Ready(AsyncFd<OwnedFd>);

impl Ready {
    fn new(file: &impl AsFd, interest: Interest) -> io::Result<Self> {
        let own = file.as_fd().try_clone_to_owned()?;
        // SAFETY: an OwnedFd is open, and the same descriptor, until it is dropped; nobody gets at
        // this one.
        let fd = unsafe { AsyncFd::register_with_interest(own, interest) };
        Ok(Self(fd.map_err(io::Error::from)?))
    }

    /// Tries an operation each time the file becomes ready, until it would not wait.
    async fn when<T>(
        &self,
        interest: Interest,
        mut operation: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        self.0.async_io(interest, |_| operation()).await
    }
}

//! What every tun device does, ours or the kernel's.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use crate::batch::{Format, Incoming, Outgoing, PacketsMut};

/// A tun device: [`Tun`](crate::Tun) or, on Linux, the kernel's [`HostTun`](crate::host::HostTun).
///
/// ```no_run
/// # fn main() -> std::io::Result<()> {
/// use tun::batch::{Incoming, Outgoing};
/// use tun::{Device, Tun, Unit};
///
/// let tun = Tun::open("/scheme", Unit::Clone)?;
/// tun.set_batch(true)?;
/// let mut incoming = Incoming::default();
/// let mut outgoing = Outgoing::new(tun.format(), 128 * 1024);
/// for packet in tun.recv(&mut incoming)? {
///     println!("{} bytes", packet.len());
///     outgoing.push(packet).ok(); // one that cannot be sent is lost alone
/// }
/// tun.send(&mut outgoing)?;
/// # Ok(())
/// # }
/// ```
pub trait Device: AsFd + AsRawFd {
    /// The name of the interface.
    fn name(&self) -> io::Result<String>;

    /// The largest packet that leaves by the interface, bytes.
    fn mtu(&self) -> io::Result<u16>;

    /// Sets whether an operation that would wait is `EAGAIN` instead.
    fn set_nonblocking(&self, on: bool) -> io::Result<()>;

    /// How it wants what is read and written.
    fn format(&self) -> Format;

    /// One read(2).
    fn read(&self, buf: &mut [u8]) -> io::Result<usize>;

    /// One write(2).
    fn write(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Waits for packets and reads as many as one read brings. They replace those that were in
    /// `incoming`. When a signal interrupts it, it is tried again: a program that a signal is to
    /// end waits with poll(2), and reads nonblocking.
    fn recv<'a>(&self, incoming: &'a mut Incoming) -> io::Result<PacketsMut<'a>> {
        incoming.recv(self.format(), |buf| self.read(buf))
    }

    /// Writes all packets of `outgoing`, which is empty afterwards. Without batch mode, one that
    /// the device refuses is passed over, and the first such error returned at the end; after
    /// `EAGAIN`, which only the kernel's device knows, the rest stays. `EINVAL` if it was made for
    /// another format.
    fn send(&self, outgoing: &mut Outgoing) -> io::Result<()> {
        outgoing.send(self.format(), |bytes| self.write(bytes))
    }
}

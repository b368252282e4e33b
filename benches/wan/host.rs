//! A host that is the Linux kernel in a network namespace of its own, with one tun device.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::thread;

use rustix::net::{AddressFamily, SocketType, bind, connect, listen, socket, sockopt};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use tun::host::HostTun;

/// Name of the device inside the namespace.
const DEVICE: &str = "wan0";
/// The congestion control that Linux is measured with: its default.
const CONTROL: &str = "cubic";
/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// The kernel in a network namespace. The namespace lives as long as this, its device and its
/// sockets.
#[derive(Debug)]
pub(crate) struct Host {
    namespace: OwnedFd,
    address: Ipv4Addr,
}

impl Host {
    /// Makes the namespace, and in it a device with this address in a /24. The caller carries the
    /// packets of the returned device.
    pub(crate) fn new(address: Ipv4Addr) -> io::Result<(Self, HostTun)> {
        on_thread(|| {
            // SAFETY: unsafe because of `CLONE_FILES`, which is not asked for: files stay shared.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
            let namespace = File::open("/proc/thread-self/ns/net")?.into();
            let device = HostTun::open(DEVICE)?;
            // A host must not remember from one measurement what it learned in another.
            fs::write("/proc/sys/net/ipv4/tcp_no_metrics_save", "1")?;
            ip(&["link", "set", "lo", "up"])?;
            // So long that what overflows is the link's queue and not this one.
            ip(&["link", "set", DEVICE, "txqueuelen", "10000", "up"])?;
            ip(&["addr", "add", &format!("{address}/24"), "dev", DEVICE])?;
            Ok((Self { namespace, address }, device))
        })
    }

    /// A listener of the host.
    pub(crate) fn listen(&self, port: u16) -> io::Result<TcpListener> {
        let listener = self.socket()?;
        sockopt::set_socket_reuseaddr(&listener, true)?;
        bind(&listener, &SocketAddrV4::new(self.address, port))?;
        listen(&listener, BACKLOG)?;
        Ok(listener.into())
    }

    /// A connection from the host.
    pub(crate) fn dial(&self, to: SocketAddrV4) -> io::Result<TcpStream> {
        let stream = self.socket()?;
        connect(&stream, &to)?;
        Ok(stream.into())
    }

    /// A socket belongs to the namespace in which it was created, wherever it is used.
    fn socket(&self) -> io::Result<OwnedFd> {
        let socket = on_thread(|| {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(self.namespace.as_fd(), kind)?;
            Ok(socket(AddressFamily::INET, SocketType::STREAM, None)?)
        })?;
        sockopt::set_tcp_congestion(&socket, CONTROL)?;
        Ok(socket)
    }
}

/// Runs `work` in a thread of its own, because it changes the namespace of its thread.
fn on_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| scope.spawn(work).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn ip(args: &[&str]) -> io::Result<()> {
    let output = Command::new("ip").args(args).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let text = format!("ip {}: {}", args.join(" "), said.trim());
    Err(io::Error::other(text))
}

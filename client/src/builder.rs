//! A device with its interface set up, and taken down again.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use crate::batch::Format;
use crate::udp::{self, UdpSocket};
use crate::{Device, Events, Mode, Stats, Tun, TunInfo, Unit, netcfg};

/// The settings of a [`Tunnel`].
///
/// ```no_run
/// use tun::udp::UdpSocket;
/// use tun::{Builder, Device};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // The socket that carries the tunnel, on the stack that the tunnel is part of.
/// let outer = UdpSocket::bind_below("/scheme", "0.0.0.0:4789".parse()?)?;
/// let tunnel = Builder::new("/scheme")
///     .address("10.9.0.1/24")
///     .address("fd09::1/64")
///     .mtu(1420)
///     .bypass(&outer)
///     .route("default")
///     .build()?;
/// println!("everything goes into {} now, but what the socket sends", tunnel.name()?);
/// drop(tunnel); // the network is as it was
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    root: PathBuf,
    unit: Unit,
    addresses: Vec<String>,
    routes: Vec<String>,
    bypasses: Vec<Arc<udp::Kind>>,
    mtu: Option<u16>,
    mode: Option<(Mode, bool)>,
    up: bool,
    ifhead: bool,
    batch: bool,
    transient: bool,
    nonblocking: bool,
}

impl Builder {
    /// A tunnel of the tree at `root`: the lowest unit that is not open, up, transient, with batch
    /// mode and the family before packets, which [`recv`](Device::recv) and
    /// [`send`](Device::send) hide.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            unit: Unit::Clone,
            addresses: Vec::new(),
            routes: Vec::new(),
            bypasses: Vec::new(),
            mtu: None,
            mode: None,
            up: true,
            ifhead: true,
            batch: true,
            transient: true,
            nonblocking: false,
        }
    }

    /// Which device to open.
    #[must_use]
    pub fn unit(mut self, unit: impl Into<Unit>) -> Self {
        self.unit = unit.into();
        self
    }

    /// Adds an address: `10.9.0.1/24`, `10.0.0.1 peer 10.0.0.2`, `fd00::1/64`. The route to its
    /// network comes with it.
    #[must_use]
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.addresses.push(address.into());
        self
    }

    /// Adds a route into the tunnel: `10.0.0.0/8`, `default metric 10`,
    /// `fd00::/8 via fd09::2 src fd09::1`. It always leaves by this interface, so that it goes with
    /// the device.
    #[must_use]
    pub fn route(mut self, route: impl Into<String>) -> Self {
        self.routes.push(route.into());
        self
    }

    /// Keeps what this socket sends out of the tunnel, whatever the routes.
    #[must_use]
    pub fn bypass(mut self, socket: &UdpSocket) -> Self {
        self.bypasses.push(Arc::clone(&socket.kind));
        self
    }

    /// Sets the mtu, 72 or more; 1280 or more for IPv6.
    #[must_use]
    pub fn mtu(mut self, mtu: u16) -> Self {
        self.mtu = Some(mtu);
        self
    }

    /// Sets the kind of interface, with multicast or without.
    #[must_use]
    pub fn mode(mut self, mode: Mode, multicast: bool) -> Self {
        self.mode = Some((mode, multicast));
        self
    }

    /// Whether it is up in the end. While it is down nothing is routed to it.
    #[must_use]
    pub fn up(mut self, up: bool) -> Self {
        self.up = up;
        self
    }

    /// Whether the family precedes packets. Without it the tunnel carries IPv4 alone.
    #[must_use]
    pub fn ifhead(mut self, on: bool) -> Self {
        self.ifhead = on;
        self
    }

    /// Whether one operation carries many packets.
    #[must_use]
    pub fn batch(mut self, on: bool) -> Self {
        self.batch = on;
        self
    }

    /// Whether the interface goes with the last descriptor of the device, so that nothing stays
    /// when the program is killed. Without it, addresses and mtu are undone only by
    /// [dropping](Tunnel) the tunnel.
    #[must_use]
    pub fn transient(mut self, on: bool) -> Self {
        self.transient = on;
        self
    }

    /// Whether an operation that would wait is `EAGAIN` instead.
    #[must_use]
    pub fn nonblocking(mut self, on: bool) -> Self {
        self.nonblocking = on;
        self
    }

    /// Opens the device and sets it up. What was set before an error is undone.
    pub fn build(&self) -> Result<Tunnel, SetupError> {
        let at = |what: &str| {
            let what = what.to_owned();
            move |source| SetupError { what, source }
        };
        // One that was there before the device was opened is somebody else's, and stays.
        let before: Vec<_> = std::fs::read_dir(self.root.join("netcfg/ifaces"))
            .and_then(Iterator::collect::<io::Result<Vec<_>>>)
            .map_err(at("netcfg/ifaces"))?;
        let unit = match self.unit {
            Unit::Number(unit) => format!("tun/{unit}"),
            Unit::Clone => "tun/clone".to_owned(),
        };
        let tun = Tun::open(&self.root, self.unit).map_err(at(&unit))?;
        let name = tun.name().map_err(at(&unit))?;
        let existed = before.iter().any(|entry| *entry.file_name() == *name);
        let mut tunnel = Tunnel {
            name,
            tun,
            undo: Vec::new(),
        };
        tunnel
            .set_transient(self.transient, existed)
            .map_err(at("TUNSTRANSIENT"))?;
        if let Some((mode, multicast)) = self.mode {
            tunnel.set_mode(mode, multicast).map_err(at("mode"))?;
        }
        if let Some(mtu) = self.mtu {
            tunnel.set_mtu(mtu).map_err(at(&format!("mtu {mtu}")))?;
        }
        tunnel.set_ifhead(self.ifhead).map_err(at("TUNSIFHEAD"))?;
        let tun = &tunnel.tun;
        tun.set_batch(self.batch).map_err(at("TUNSBATCH"))?;
        tun.set_nonblocking(self.nonblocking)
            .map_err(at("O_NONBLOCK"))?;
        tunnel
            .undo
            .push(Undo::Line(tunnel.interface("flags"), "down".to_owned()));
        for address in &self.addresses {
            tunnel
                .add_address(address)
                .map_err(at(&format!("address {address}")))?;
        }
        let up = if self.up { "up" } else { "down" };
        let flags = tunnel.interface("flags");
        netcfg::set(&tunnel.tun.root, &flags, up).map_err(at(up))?;
        // Before the routes: not one packet of the socket goes into the tunnel.
        for socket in &self.bypasses {
            tunnel.bypass(socket).map_err(at("bypass"))?;
        }
        for route in &self.routes {
            tunnel
                .add_route(route)
                .map_err(at(&format!("route {route}")))?;
        }
        Ok(tunnel)
    }
}

/// A [`Tun`] whose interface a [`Builder`] set up. Dropping it undoes that, even while others hold
/// descriptors of the device.
#[derive(Debug)]
pub struct Tunnel {
    tun: Tun,
    name: String,
    undo: Vec<Undo>,
}

/// How to undo a setting.
#[derive(Debug)]
enum Undo {
    /// A line to a file of `netcfg`.
    Line(String, String),
    Info(TunInfo),
    Mode(Mode, bool),
    Ifhead(bool),
    Transient(bool),
    /// The socket may be closed by then.
    Bypass(Weak<udp::Kind>),
}

impl Tunnel {
    /// A file of the interface in `netcfg`.
    fn interface(&self, file: &str) -> String {
        format!("ifaces/{}/{file}", self.name)
    }

    /// The root of the tree that it is part of.
    pub fn root(&self) -> &Path {
        &self.tun.root
    }

    /// Adds an address, until the tunnel is dropped. One that the interface had already stays.
    pub fn add_address(&mut self, address: &str) -> io::Result<()> {
        let before = netcfg::get(&self.tun.root, &self.interface("addr/list"))?;
        if before.lines().any(|line| line == address) {
            return Ok(());
        }
        netcfg::set(&self.tun.root, &self.interface("addr/add"), address)?;
        let undo = Undo::Line(self.interface("addr/rm"), address.to_owned());
        self.undo.push(undo);
        Ok(())
    }

    /// Adds a route into the tunnel, until the tunnel is dropped, as [`Builder::route`] does.
    /// `EINVAL` if it names an interface, or none at all.
    pub fn add_route(&mut self, route: &str) -> io::Result<()> {
        let line = self.route_line(route)?;
        netcfg::set(&self.tun.root, "route/add", &line)?;
        self.undo.push(Undo::Line("route/rm".to_owned(), line));
        Ok(())
    }

    /// Removes a route that [`add_route`](Self::add_route) or the builder added.
    pub fn remove_route(&mut self, route: &str) -> io::Result<()> {
        let line = self.route_line(route)?;
        netcfg::set(&self.tun.root, "route/rm", &line)?;
        self.undo.retain(|undo| match undo {
            Undo::Line(file, old) => file != "route/rm" || *old != line,
            _ => true,
        });
        Ok(())
    }

    fn route_line(&self, route: &str) -> io::Result<String> {
        let mut words = route.split_whitespace();
        if route.trim().is_empty() || words.any(|word| matches!(word, "dev" | "unreachable")) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(format!("{} dev {}", route.trim(), self.name))
    }

    /// Sets the mtu, until the tunnel is dropped.
    pub fn set_mtu(&mut self, mtu: u16) -> io::Result<()> {
        let info = self.tun.info()?;
        self.tun.set_info(TunInfo { mtu, ..info })?;
        self.undo.push(Undo::Info(info));
        Ok(())
    }

    fn set_mode(&mut self, mode: Mode, multicast: bool) -> io::Result<()> {
        let flags = netcfg::get(&self.tun.root, &self.interface("flags"))?;
        let has = |flag: &str| flags.trim().split(',').any(|other| other == flag);
        let old = match has("BROADCAST") {
            true => Mode::Broadcast,
            false => Mode::PointToPoint,
        };
        self.tun.set_mode(mode, multicast)?;
        self.undo.push(Undo::Mode(old, has("MULTICAST")));
        Ok(())
    }

    fn set_ifhead(&mut self, on: bool) -> io::Result<()> {
        let old = self.tun.ifhead()?;
        if !on {
            self.tun.set_lmode(false)?;
        }
        self.tun.set_ifhead(on)?;
        self.undo.push(Undo::Ifhead(old));
        Ok(())
    }

    fn set_transient(&mut self, on: bool, existed: bool) -> io::Result<()> {
        let old = self.tun.transient()?;
        self.tun.set_transient(on)?;
        if existed {
            self.undo.push(Undo::Transient(old));
        }
        Ok(())
    }

    fn bypass(&mut self, socket: &Arc<udp::Kind>) -> io::Result<()> {
        socket.set_bypass(Some(&self.name))?;
        self.undo.push(Undo::Bypass(Arc::downgrade(socket)));
        Ok(())
    }

    /// The counters of the interface.
    pub fn stats(&self) -> io::Result<Stats> {
        Stats::of(&self.tun.root, &self.name)
    }

    /// What changes about the interface from now on.
    pub fn events(&self) -> io::Result<Events> {
        Events::open(&self.tun.root, &self.name)
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let tun = &self.tun;
        while let Some(undo) = self.undo.pop() {
            // What fails was undone by somebody else, or is when the device closes.
            let _ = match undo {
                Undo::Line(file, line) => netcfg::set(&tun.root, &file, &line),
                Undo::Info(info) => tun.set_info(info),
                Undo::Mode(mode, multicast) => tun.set_mode(mode, multicast),
                Undo::Ifhead(on) => tun.set_ifhead(on),
                Undo::Transient(on) => tun.set_transient(on),
                Undo::Bypass(socket) => match socket.upgrade() {
                    Some(socket) => socket.set_bypass(None),
                    None => Ok(()),
                },
            };
        }
    }
}

impl Deref for Tunnel {
    type Target = Tun;

    fn deref(&self) -> &Tun {
        &self.tun
    }
}

impl AsFd for Tunnel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tun.as_fd()
    }
}

impl AsRawFd for Tunnel {
    fn as_raw_fd(&self) -> RawFd {
        self.tun.as_raw_fd()
    }
}

impl Device for Tunnel {
    fn name(&self) -> io::Result<String> {
        Ok(self.name.clone())
    }

    fn mtu(&self) -> io::Result<u16> {
        self.tun.mtu()
    }

    fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        self.tun.set_nonblocking(on)
    }

    fn format(&self) -> Format {
        self.tun.format()
    }

    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.tun.read(buf)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.tun.write(bytes)
    }
}

/// Why a tunnel could not be set up, and which setting it was.
#[derive(Debug)]
pub struct SetupError {
    what: String,
    source: io::Error,
}

impl SetupError {
    /// The system's error.
    pub fn error(&self) -> &io::Error {
        &self.source
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.source)
    }
}

impl std::error::Error for SetupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl From<SetupError> for io::Error {
    fn from(error: SetupError) -> Self {
        Self::new(error.source.kind(), error)
    }
}

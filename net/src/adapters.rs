//! The network cards of a machine, which come and go, and the interfaces on them.

use std::io::{self, ErrorKind};
use std::time::Duration;

use crate::host::Host;
use crate::ifnet::AdapterId;
use crate::ip::Budget;
pub use crate::link::Lost;
use crate::link::{Found, HEADER, Mac};

/// Longest frame that any driver hands out, bytes: the longest packet with its header and a VLAN
/// tag. One driver ends itself when a buffer is shorter than 65 536.
pub const LONGEST: usize = HEADER + 4 + 65_535;
/// Most adapters ever seen: the interface of an adapter that is gone waits for its return.
const MAX_ADAPTERS: usize = 64;

/// The place where adapters are found.
pub trait Bus {
    /// Receives and sends the frames of one adapter.
    type Io: FrameIo;

    /// The names of the adapters that are there. `None` while they are being looked up: they are asked
    /// for again at the next search. No call waits.
    fn names(&mut self) -> Option<Vec<String>>;

    /// Sorts names into the order in which interfaces get their numbers: that of the alphabet, where
    /// nobody chose another.
    fn sort(&self, names: &mut [String]) {
        names.sort();
    }

    /// Opens an adapter: its hardware address, and its frames. `WouldBlock` while that is under way:
    /// it is asked for again at the next search.
    fn open(&mut self, name: &str) -> io::Result<(Mac, Self::Io)>;

    /// Removes the name of an adapter whose driver ended, so that a new driver can take it.
    fn clear(&mut self, name: &str);
}

/// The frames of one adapter, without their check sequences. No call waits, and so none may call into
/// another process: a call into a driver may take long, and may never end.
pub trait FrameIo {
    /// Receives a frame; `WouldBlock` when there is none.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Sends a frame. After an error the frame is lost, and so is the driver unless it [is
    /// alive](Self::is_alive): one that has no room (`WouldBlock`), or finds the frame too long.
    fn send(&mut self, frame: &[u8]) -> io::Result<()>;

    /// Whether there is room for a frame to send. Frames that wait for it stay in the interface's
    /// queue, and are sent when the adapters are next asked to [transmit](Adapters::transmit).
    fn has_room(&mut self) -> bool {
        true
    }

    /// Whether the driver is still there, as far as is known at this monotonic time.
    fn is_alive(&self, now: Duration) -> bool;

    /// Starts to find out whether the driver is still there: [`is_alive`](Self::is_alive) tells later.
    fn probe(&mut self) {}

    /// The frames that were lost since the last call.
    fn take_lost(&mut self) -> Lost {
        Lost::default()
    }

    /// The longest packet that the driver carries, bytes, where that is known.
    fn mtu(&self) -> Option<u16> {
        None
    }

    /// Frames that the driver has room for until they are received, where that is few: so many or
    /// less are asked for at a time, unless the other end is far away.
    fn rx_ring(&self) -> Option<u16> {
        None
    }
}

struct Adapter<F> {
    name: String,
    id: AdapterId,
    /// `None` while the driver is gone.
    frames: Option<F>,
    /// Whether it may have more frames than were received in this turn.
    pending: bool,
}

/// Every adapter that was ever seen. They are numbered from 0 in the order in which they were
/// found.
pub struct Adapters<B: Bus> {
    bus: B,
    adapters: Vec<Adapter<B::Io>>,
    /// Numbers of the adapters opened since [`poll_opened`](Self::poll_opened) was called.
    opened: Vec<usize>,
    /// Whether the last search is not over.
    opening: bool,
    buffer: Vec<u8>,
}

impl<B: Bus> Adapters<B> {
    /// Makes an interface on every adapter there is: `eth0` is the [first](Bus::sort). A machine without
    /// adapters is fine: it has tunnels.
    pub fn new(bus: B, host: &mut Host) -> Self {
        let mut adapters = Self {
            bus,
            adapters: Vec::new(),
            opened: Vec::new(),
            opening: false,
            buffer: vec![0; LONGEST],
        };
        adapters.search(host);
        adapters
    }

    /// The next adapter that was opened since the last call: its number, and its frames. There may
    /// already be frames to [receive](Self::receive).
    pub fn poll_opened(&mut self) -> Option<(usize, &B::Io)> {
        loop {
            let at = self.opened.pop()?;
            // It may have failed since then.
            if self.adapters.get(at)?.frames.is_some() {
                return Some((at, self.adapters.get(at)?.frames.as_ref()?));
            }
        }
    }

    /// The frames of the adapter with number `at`, while its driver is there.
    pub fn frames(&mut self, at: usize) -> Option<&mut B::Io> {
        self.adapters.get_mut(at)?.frames.as_mut()
    }

    /// Receives the frames that the adapter with number `at` has. Those beyond its share of a turn
    /// are received in the next ones, which [`transmit`](Self::transmit) asks for: an adapter on a
    /// flooded link does not take the turn of the others, and its own driver drops what is too
    /// much.
    pub fn receive(&mut self, host: &mut Host, at: usize) {
        let share = self.share();
        let Some(adapter) = self.adapters.get_mut(at) else {
            return;
        };
        // The driver wakes us once for everything it has, so this has to be remembered.
        if !adapter.pending {
            adapter.receive(host, &mut self.bus, &mut self.buffer, share);
        }
    }

    /// Whether the last search is not over: an adapter is still being opened, or it is not known which
    /// there are.
    pub fn is_opening(&self) -> bool {
        self.opening
    }

    /// Most frames of one adapter in a turn: together no more than a turn can handle.
    fn share(&self) -> usize {
        (Budget::TURN.get() / self.adapters.len().max(1)).max(1)
    }

    /// Sends every queued frame for which there is room, receives frames that were left in the last
    /// turn, and searches for adapters if that is due. True if the host needs a turn because of it.
    #[must_use]
    pub fn transmit(&mut self, host: &mut Host) -> bool {
        let mut received = false;
        let (share, now) = (self.share(), host.now());
        for adapter in &mut self.adapters {
            while let Some(frames) = &mut adapter.frames
                && frames.has_room()
                && let Some(frame) = host.poll_frame(adapter.id)
            {
                if let Err(error) = frames.send(&frame) {
                    host.frames_lost(adapter.id, refused(1));
                    if error.kind() != ErrorKind::WouldBlock && !frames.is_alive(now) {
                        adapter.fail(host, &mut self.bus, &error);
                    }
                }
            }
            adapter.count_lost(host);
            if std::mem::take(&mut adapter.pending) {
                received = true;
                adapter.receive(host, &mut self.bus, &mut self.buffer, share);
            }
            adapter.check(host, &mut self.bus, now);
        }
        let search = host.wants_adapters();
        if search {
            self.search(host);
        }
        // Connections may have waited for the room that this made in a queue.
        search || received || host.needs_turn()
    }

    /// Searches for adapters.
    pub fn search(&mut self, host: &mut Host) {
        let now = host.now();
        for adapter in &mut self.adapters {
            // A driver that has nothing to do may end without our hearing of it.
            if let Some(frames) = &mut adapter.frames {
                frames.probe();
            }
            adapter.check(host, &mut self.bus, now);
        }
        let Some(mut names) = self.bus.names() else {
            self.opening = true;
            return host.adapters_searched(Found::Looking);
        };
        self.opening = false;
        self.bus.sort(&mut names);
        for name in names {
            let known = self
                .adapters
                .iter()
                .position(|adapter| adapter.name == name);
            match known {
                Some(at) if self.adapters[at].frames.is_some() => {}
                Some(at) => match self.attach_again(host, at) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => self.opening = true,
                    Err(error) => {
                        log::debug!("{name}: {error}");
                        self.bus.clear(&name);
                    }
                },
                None if self.adapters.len() >= MAX_ADAPTERS => {}
                None => match self.attach(host, &name) {
                    Ok(()) => {}
                    // Interfaces are numbered in the order of these names.
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        self.opening = true;
                        break;
                    }
                    Err(error) => {
                        log::warn!("{name}: {error}");
                        self.bus.clear(&name);
                    }
                },
            }
        }
        let gone = |adapter: &Adapter<_>| adapter.frames.is_none();
        host.adapters_searched(match self.adapters.iter().any(gone) {
            _ if self.opening => Found::Opening,
            true => Found::Missing,
            false => Found::All,
        });
    }

    fn attach(&mut self, host: &mut Host, name: &str) -> io::Result<()> {
        let (mac, frames) = self.bus.open(name)?;
        let id = host.attach_ethernet(mac).ok_or(ErrorKind::InvalidData)?;
        host.ethernet_mtu(id, frames.mtu());
        host.ethernet_rx_ring(id, frames.rx_ring());
        let interface = host.ethernet_name(id).unwrap_or("?");
        log::info!("{interface} is {name}, {mac}");
        self.opened.push(self.adapters.len());
        self.adapters.push(Adapter {
            name: name.to_owned(),
            id,
            frames: Some(frames),
            pending: false,
        });
        Ok(())
    }

    fn attach_again(&mut self, host: &mut Host, at: usize) -> io::Result<()> {
        let adapter = &mut self.adapters[at];
        let (mac, frames) = self.bus.open(&adapter.name)?;
        host.ethernet_mtu(adapter.id, frames.mtu());
        host.ethernet_rx_ring(adapter.id, frames.rx_ring());
        host.ethernet_found(adapter.id, mac);
        let interface = host.ethernet_name(adapter.id).unwrap_or("?");
        log::info!("{interface} is {} again, {mac}", adapter.name);
        adapter.frames = Some(frames);
        self.opened.push(at);
        Ok(())
    }
}

impl<F: FrameIo> Adapter<F> {
    /// Notices that the driver is gone.
    fn check(&mut self, host: &mut Host, bus: &mut impl Bus, now: Duration) {
        let gone = |frames: &F| !frames.is_alive(now);
        if self.frames.as_ref().is_some_and(gone) {
            self.fail(host, bus, &ErrorKind::NotConnected.into());
        }
    }

    /// Counts the frames that the driver lost.
    fn count_lost(&mut self, host: &mut Host) {
        if let Some(frames) = &mut self.frames {
            let lost = frames.take_lost();
            if lost != Lost::default() {
                host.frames_lost(self.id, lost);
            }
        }
    }

    /// Receives frames, `share` of them at most.
    fn receive(&mut self, host: &mut Host, bus: &mut impl Bus, buffer: &mut [u8], share: usize) {
        for _ in 0..share {
            let Some(frames) = &mut self.frames else {
                return;
            };
            match frames.receive(buffer) {
                Ok(0) => return,
                Ok(len) => host.handle_frame(self.id, &buffer[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return self.fail(host, bus, &error),
            }
        }
        self.pending = true;
    }

    /// Handles the end of a driver. The interface waits for the next one.
    fn fail(&mut self, host: &mut Host, bus: &mut impl Bus, error: &io::Error) {
        log::error!("{}: {error}", self.name);
        self.count_lost(host);
        host.ethernet_lost(self.id);
        self.frames = None;
        self.pending = false;
        bus.clear(&self.name);
    }
}

fn refused(frames: u64) -> Lost {
    Lost {
        refused: frames,
        missed: 0,
    }
}

//! One thread with one wait, which moves packets between the device and UDP.

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tun::Device;

use crate::config::Config;
use crate::inner::{Reader, Writer};
use crate::outer::{Outer, Sender};
use crate::state;
use crate::tunnel::{Outbox, Tunnel};

/// What a running tunnel consists of.
pub struct Parts<'a> {
    /// The file.
    pub config: &'a Config,
    /// The protocol, which has not started yet.
    pub tunnel: Tunnel,
    /// The device whose packets go into the tunnel.
    pub device: &'a dyn Device,
    /// The UDP that carries it.
    pub outer: Outer,
    /// What it tells; `None` if that has no place.
    pub state: Option<state::Writer>,
    /// Becomes readable when the program shall end.
    pub stop: BorrowedFd<'a>,
    /// The origin of the times that `tunnel` was given.
    pub began: Instant,
}

/// Both ways out.
struct Out<'a, 'b, 'c> {
    writer: &'a mut Writer<'b>,
    sender: &'a mut Sender<'c>,
}

impl Outbox for Out<'_, '_, '_> {
    fn datagram(&mut self, to: SocketAddr, datagram: &[u8]) {
        self.sender.push(to, datagram);
    }

    fn packet(&mut self, packet: &[u8]) {
        self.writer.push(packet);
    }
}

/// Runs until it is told to stop. The device's errors end it: it was taken over, or tund is gone.
pub fn run(parts: Parts<'_>) -> io::Result<()> {
    let Parts {
        config,
        mut tunnel,
        device,
        mut outer,
        mut state,
        stop,
        began,
    } = parts;
    let mut reader = Reader::default();
    let mut writer = Writer::new(device);
    {
        let sender = &mut outer.sender();
        tunnel.start(
            began.elapsed(),
            &mut Out {
                writer: &mut writer,
                sender,
            },
        );
        sender.flush();
    }
    loop {
        let now = began.elapsed();
        let told = state
            .as_mut()
            .and_then(|state| state.update(config, &tunnel, now));
        let timeout = [told, tunnel.next_timer()].into_iter().flatten().min();
        let ready = wait(device, &outer, stop, timeout)?;
        if ready.stop {
            return Ok(());
        }
        // All packets of a turn came at the same time.
        let now = began.elapsed();
        {
            let sender = &mut outer.sender();
            let mut out = Out {
                writer: &mut writer,
                sender,
            };
            tunnel.timers(now, &mut out);
            if ready.device {
                reader.read(device, |packet| tunnel.packet(now, packet, &mut out))?;
            }
            sender.flush();
        }
        if ready.outer {
            outer.receive(|sender, from, datagram| {
                let mut out = Out {
                    writer: &mut writer,
                    sender,
                };
                tunnel.datagram(now, from, datagram, &mut out);
            });
            outer.sender().flush();
            writer.flush();
        }
    }
}

/// What is ready.
struct Ready {
    stop: bool,
    device: bool,
    outer: bool,
}

fn wait(
    device: &dyn Device,
    outer: &Outer,
    stop: BorrowedFd<'_>,
    timeout: Option<Duration>,
) -> io::Result<Ready> {
    let mut fds = vec![
        PollFd::from_borrowed_fd(stop, PollFlags::IN),
        PollFd::from_borrowed_fd(device.as_fd(), PollFlags::IN),
    ];
    fds.extend(
        outer
            .fds()
            .into_iter()
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
    );
    // Rounded up, or it would be called for nothing.
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: timeout.as_secs().min(3600) as i64,
        tv_nsec: (timeout.subsec_nanos() + 1).min(999_999_999).into(),
    });
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) => {}
        // On Redox it is interrupted for as long as the signal is not delivered, which may be never
        // while it is called again and again; a thread that yields gets it.
        Err(rustix::io::Errno::INTR) => std::thread::yield_now(),
        Err(error) => return Err(error.into()),
    }
    let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
    Ok(Ready {
        stop: ready[0],
        device: ready[1],
        outer: ready[2..].contains(&true),
    })
}

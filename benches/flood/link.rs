//! Floods on a link, with an adapter made by hand.

use std::io;
use std::sync::Arc;

use net::ifnet::AdapterId;
use net::link::Mac;
use net::{Config, Host, Services};
use scheme::local::{Fd, Local, OneSession, Process};
use scheme::{Errno, OpenFlags};

use crate::bed::{Flood, Stack, resident};
use crate::common::packet;

type Make = for<'a> fn(&'a Station) -> Flood<'a>;

pub(crate) const FLOODS: &[(&str, Make)] = &[
    ("neighbour solicitations", solicitations),
    ("destinations that do not answer", unresolvable),
];

const BOTH: OpenFlags = OpenFlags::READ.union(OpenFlags::WRITE);
const US: Mac = Mac([2, 0, 0, 0, 0, 1]);

/// A host in this process, with `eth0`, which is 10.9.0.1/16 and fd09::1/64, and forwards.
pub(crate) struct Station {
    local: Arc<Local<Host>>,
    adapter: AdapterId,
    root: Process<Host>,
}

impl Station {
    pub(crate) fn new() -> io::Result<Self> {
        let config = Config {
            seed: 1.into(),
            services: Services::ECHO,
        };
        let local = Local::new(Host::new(config, OneSession));
        let adapter = local.with_server(|host| host.attach_ethernet(US));
        let adapter = adapter.ok_or(io::ErrorKind::Other)?;
        let root = local.process(1, 0);
        let station = Self {
            local,
            adapter,
            root,
        };
        for (path, text) in [
            ("ifaces/eth0/addr/add", "10.9.0.1/16\n"),
            ("ifaces/eth0/addr/add", "fd09::1/64\n"),
        ] {
            station.set(path, text).map_err(error)?;
        }
        Ok(station)
    }

    fn set(&self, path: &str, text: &str) -> Result<(), Errno> {
        let path = format!("netcfg/{path}");
        let file = self.root.open(&path, OpenFlags::WRITE)?;
        self.root.write(file, text.as_bytes())?;
        self.root.close(file)
    }

    /// Hands in a frame, and takes those to be sent.
    fn frame(&self, dst: [u8; 6], src: [u8; 6], ethertype: u16, payload: &[u8]) {
        let frame = [&dst[..], &src, &ethertype.to_be_bytes(), payload].concat();
        self.local
            .with_server(|host| host.handle_frame(self.adapter, &frame));
        self.local.pump();
        self.take();
    }

    fn take(&self) {
        self.local
            .with_server(|host| while host.poll_frame(self.adapter).is_some() {});
    }
}

impl Stack for Station {
    fn honest(&self) -> io::Result<Box<dyn FnMut() -> io::Result<()> + '_>> {
        let program = self.local.process(9, 1000);
        let socket: Fd = program.open("udp/127.0.0.1:7", BOTH).map_err(error)?;
        Ok(Box::new(move || {
            program.write(socket, &[7; 32]).map_err(error)?;
            let len = program.read(socket, &mut [0; 64]).map_err(error)?;
            match len {
                32 => Ok(()),
                _ => Err(io::ErrorKind::InvalidData.into()),
            }
        }))
    }

    fn memory(&self) -> io::Result<u64> {
        resident("self")
    }
}

fn error(error: Errno) -> io::Error {
    io::Error::from_raw_os_error(error.raw())
}

fn solicitations(station: &Station) -> Flood<'_> {
    let mut rng = fastrand::Rng::with_seed(2);
    Box::new(move |count| {
        for _ in 0..count {
            let [a, b, c, d] = rng.u32(..).to_be_bytes();
            let from = format!("fd09::{:x}:{:x}", rng.u16(1..), rng.u16(1..));
            let mac = [2, 9, a, b, c, d];
            let message = [
                &[135, 0, 0, 0, 0, 0, 0, 0][..],
                &std::net::Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1).octets(),
                &[1, 1],
                &mac,
            ];
            let (from, to) = (from.parse(), "fd09::1".parse());
            let (Ok(from), Ok(to)) = (from, to) else {
                return Err(io::ErrorKind::InvalidInput.into());
            };
            let packet = packet::icmpv6(from, to, &message.concat());
            station.frame(US.0, mac, 0x86dd, &packet);
        }
        Ok(())
    })
}

fn unresolvable(station: &Station) -> Flood<'_> {
    let user = station.local.process(10, 1000);
    let mut rng = fastrand::Rng::with_seed(3);
    Box::new(move |count| {
        for _ in 0..count {
            let to = format!("udp/10.9.{}.{}:9", rng.u8(1..), rng.u8(1..255));
            let socket = user.open(&to, BOTH).map_err(error)?;
            // A full queue refuses it.
            let _ = user.write(socket, &[0; 1400]);
            user.close(socket).map_err(error)?;
            station.take();
        }
        Ok(())
    })
}

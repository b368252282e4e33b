//! Frames of any bytes into an adapter, messages of neighbour discovery among them, and time.
#![no_main]

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use net::link::Mac;
use net::{Config, Host, Services};
use scheme::local::{Clock, Local, ManualClock, OneSession};
use scheme::{FileServer, OpenFlags};

const US: Mac = Mac([2, 0, 0, 0, 0, 1]);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

#[derive(arbitrary::Arbitrary, Debug)]
enum Event {
    /// A frame: its type, and what it carries.
    Frame(u16, Vec<u8>),
    /// A message of ICMP version 6 from a station on the link, with the right checksum.
    Message {
        from: u8,
        to_us: bool,
        message: Vec<u8>,
    },
    /// Time passes, milliseconds.
    Wait(u16),
    /// The driver ends, or is there again.
    Lost,
    Found(bool),
    /// A setting of the interface.
    Set(Setting),
}

#[derive(arbitrary::Arbitrary, Debug)]
enum Setting {
    Up(bool),
    Ipv6(bool),
    Autoconf(bool),
    Address(u8),
}

fn message(from: u8, to_us: bool, mut message: Vec<u8>) -> Vec<u8> {
    let src = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, from.into());
    let dst = if to_us { US.link_local() } else { ALL_NODES };
    let len = message.len() as u16;
    if message.len() >= 4 {
        message[2..4].fill(0);
        let pseudo = [
            &src.octets()[..],
            &dst.octets(),
            &[0, 0],
            &len.to_be_bytes(),
            &[0, 0, 0, 58],
        ];
        let mut bytes = pseudo.concat();
        bytes.extend_from_slice(&message);
        let mut sum = bytes.chunks(2).fold(0_u32, |sum, pair| {
            sum + u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))
        });
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        message[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    }
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend_from_slice(&len.to_be_bytes());
    packet.extend_from_slice(&[58, 255]);
    packet.extend_from_slice(&src.octets());
    packet.extend_from_slice(&dst.octets());
    packet.extend_from_slice(&message);
    packet
}

fuzz_target!(|events: Vec<Event>| {
    let clock = Arc::new(ManualClock::default());
    let config = Config {
        seed: 1.into(),
        services: Services::all(),
    };
    let local = Local::with_clock(Host::new(config, OneSession), Arc::clone(&clock));
    let port = local.with_server(|net| net.attach_ethernet(US)).unwrap();
    let process = local.process(1, 0);
    let set = |path: &str, line: &str| {
        let path = format!("netcfg/ifaces/eth0/{path}");
        let file = process.open(&path, OpenFlags::WRITE).unwrap();
        let _ = process.write(file, line.as_bytes());
        process.close(file).unwrap();
    };
    set("addr/set", "10.0.0.1/24\n");
    let frame = |ethertype: u16, payload: &[u8]| {
        let header = [
            &[0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..],
            &ethertype.to_be_bytes(),
        ];
        let frame = [&header.concat()[..], payload].concat();
        local.with_server(|net| net.handle_frame(port, &frame));
    };
    for event in events {
        match event {
            Event::Frame(ethertype, payload) => frame(ethertype, &payload),
            Event::Message {
                from,
                to_us,
                message: bytes,
            } => {
                if bytes.len() < 60_000 {
                    frame(0x86dd, &message(from, to_us, bytes));
                }
            }
            Event::Wait(millis) => clock.advance(Duration::from_millis(millis.into())),
            Event::Lost => local.with_server(|net| net.ethernet_lost(port)),
            Event::Found(other) => {
                let mac = if other { Mac([2, 0, 0, 0, 0, 9]) } else { US };
                local.with_server(|net| net.ethernet_found(port, mac));
            }
            Event::Set(Setting::Up(up)) => set("flags", if up { "up\n" } else { "down\n" }),
            Event::Set(Setting::Ipv6(on)) => set("mtu", if on { "1500\n" } else { "1000\n" }),
            Event::Set(Setting::Autoconf(on)) => set("autoconf", if on { "1\n" } else { "0\n" }),
            Event::Set(Setting::Address(last)) => {
                set(
                    "addr/add",
                    &format!("fd00::{last:x}/64\n10.0.0.{last}/24\n"),
                );
            }
        }
        local.pump();
        local.with_server(|net| while net.poll_frame(port).is_some() {});
    }
    local.pump();
    local.with_server(|net| {
        let now = clock.now();
        let turn = net.turn(now);
        assert!(turn.pending || turn.deadline.is_none_or(|at| at > now.monotonic));
        for ifp in net.interfaces() {
            assert!(ifp.stats.input().closes(), "{:?}", ifp.stats.input());
            assert!(ifp.stats.output().closes(), "{:?}", ifp.stats.output());
        }
    });
});

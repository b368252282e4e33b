//! The client library against a mount: setting up and undoing, many packets at a time, sockets,
//! events, and tokio.
//!
//! Needs root and FUSE; skipped by name elsewhere.

mod common;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tun::batch::{Incoming, Outgoing};
use tun::udp::{self, Datagrams, UdpSocket};
use tun::{
    AsyncDevice, AsyncEvents, AsyncUdpSocket, Builder, Device, Event, Events, Mode, Tun, Unit,
};

use common::system::{MountSystem, System};

/// The time limit of whatever must come.
const LIMIT: Timespec = Timespec {
    tv_sec: 30,
    tv_nsec: 0,
};

type Test = fn(&MountSystem);

fn main() {
    let mut args = Arguments::from_args();
    args.test_threads = Some(1);
    let tests: &[(&str, Test)] = &[
        ("a_tunnel_leaves_nothing", a_tunnel_leaves_nothing),
        (
            "an_interface_that_was_there_is_as_it_was",
            an_interface_that_was_there_is_as_it_was,
        ),
        (
            "an_error_names_the_setting_and_undoes",
            an_error_names_the_setting_and_undoes,
        ),
        ("dropped_while_others_hold_it", dropped_while_others_hold_it),
        ("packets_in_every_format", packets_in_every_format),
        ("datagrams_of_the_stack", datagrams_of_the_stack),
        (
            "a_tunnel_does_not_carry_its_own_datagrams",
            a_tunnel_does_not_carry_its_own_datagrams,
        ),
        ("events_are_told_to_who_waits", events_are_told_to_who_waits),
        ("on_tokio", on_tokio),
    ];
    let trials = tests.iter().map(|&(name, test)| {
        Trial::ignorable_test(name, move || -> Result<Completion, Failed> {
            if let Some(reason) = MountSystem::missing() {
                return Ok(Completion::ignored_with(reason));
            }
            test(&MountSystem::new());
            Ok(Completion::Completed)
        })
    });
    libtest_mimic::run(&args, trials.collect()).exit();
}

/// What somebody else sees of the network.
fn network(system: &MountSystem) -> Vec<String> {
    let ifaces = system.dir().join("netcfg/ifaces");
    let mut names: Vec<_> = std::fs::read_dir(ifaces)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let mut seen = vec![system.text("netcfg/route/list"), names.join(" ")];
    for name in names {
        for file in ["addr/list", "mtu", "flags"] {
            seen.push(system.text(&format!("netcfg/ifaces/{name}/{file}")));
        }
    }
    seen
}

fn wait_readable(file: &impl std::os::fd::AsFd) {
    let ready = poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&LIMIT));
    assert_eq!(ready, Ok(1), "nothing came in time");
}

fn a_tunnel_leaves_nothing(system: &MountSystem) {
    let before = network(system);
    let tunnel = Builder::new(system.dir())
        .address("10.9.0.1/24")
        .address("fd09::1/64")
        .mode(Mode::Broadcast, true)
        .mtu(1420)
        .route("default metric 7")
        .route("fd10::/16 via fd09::2")
        .build()
        .unwrap();
    assert_eq!(tunnel.name().unwrap(), "tun0");
    assert_eq!(tunnel.mtu().unwrap(), 1420);
    let flags = system.text("netcfg/ifaces/tun0/flags");
    assert_eq!(flags, "UP,BROADCAST,RUNNING,MULTICAST\n");
    let routes = system.text("netcfg/route/list");
    for route in [
        "default dev tun0 metric 7",
        "fd10::/16 via fd09::2 dev tun0",
    ] {
        assert!(
            routes.lines().any(|line| line == route),
            "{route}:\n{routes}"
        );
    }
    let format = tunnel.format();
    assert!(format.batch && format.ifhead && tunnel.transient().unwrap());
    assert_eq!(tunnel.stats().unwrap().ipackets, 0);
    drop(tunnel);
    assert_eq!(network(system), before);

    let down = Builder::new(system.dir())
        .unit(3)
        .up(false)
        .build()
        .unwrap();
    assert!(!system.text("netcfg/ifaces/tun3/flags").contains("UP"));
    drop(down);
    let lasting = Builder::new(system.dir()).address("10.1.0.1/24").mtu(1300);
    drop(lasting.transient(false).build().unwrap());
    assert_eq!(system.text("netcfg/ifaces/tun0/addr/list"), "");
    assert_eq!(system.text("netcfg/ifaces/tun0/mtu"), "1500\n");
}

fn an_interface_that_was_there_is_as_it_was(system: &MountSystem) {
    let tun = Tun::open(system.dir(), 5).unwrap();
    tun.set_mode(Mode::Broadcast, false).unwrap();
    system
        .set("netcfg/ifaces/tun5/addr/set", "10.5.0.1/24\n")
        .unwrap();
    system.set("netcfg/ifaces/tun5/mtu", "1300\n").unwrap();
    drop(tun);
    let before = network(system);
    let builder = Builder::new(system.dir())
        .unit(5)
        .mode(Mode::PointToPoint, true);
    let tunnel = builder.address("10.6.0.1/24").mtu(1400).build().unwrap();
    assert_ne!(network(system), before);
    drop(tunnel);
    assert_eq!(network(system), before);
}

fn an_error_names_the_setting_and_undoes(system: &MountSystem) {
    let before = network(system);
    let builder = || Builder::new(system.dir()).address("10.9.0.1/24");
    for (builder, what) in [
        (builder().address("10.9.0.300/24"), "address 10.9.0.300/24"),
        (
            builder().address("10.8.0.1/24\n10.7.0.1/24"),
            "address 10.8.0.1/24",
        ),
        (builder().route("10.0.0.0/33"), "route 10.0.0.0/33"),
        (
            builder().route("10.0.0.0/8 dev lo0"),
            "route 10.0.0.0/8 dev lo0",
        ),
        (
            builder().route("default unreachable"),
            "route default unreachable",
        ),
        (builder().mtu(71), "mtu 71"),
    ] {
        let error = builder.build().unwrap_err();
        assert!(error.to_string().starts_with(what), "{error}");
        assert_eq!(error.error().kind(), io::ErrorKind::InvalidInput, "{error}");
        assert_eq!(network(system), before, "{what}");
    }
    let nowhere = Builder::new("/nowhere").build().unwrap_err();
    assert_eq!(io::Error::from(nowhere).kind(), io::ErrorKind::NotFound);
}

fn dropped_while_others_hold_it(system: &MountSystem) {
    let routes = system.text("netcfg/route/list");
    let mut tunnel = Builder::new(system.dir())
        .address("10.9.0.1/24")
        .build()
        .unwrap();
    tunnel.add_route("10.0.0.0/8").unwrap();
    tunnel.add_route("default").unwrap();
    tunnel.remove_route("10.0.0.0/8").unwrap();
    assert!(tunnel.remove_route("10.0.0.0/8").is_err());
    let held = tunnel.try_clone().unwrap();
    drop(tunnel);
    assert_eq!(system.text("netcfg/route/list"), routes);
    assert_eq!(system.text("netcfg/ifaces/tun0/addr/list"), "");
    drop(held);
    assert!(!system.dir().join("netcfg/ifaces/tun0").exists());
}

/// Sends an IPv4 datagram back to its sender: addresses and ports are only exchanged.
fn turn_round(packet: &mut [u8]) -> bool {
    if packet[0] >> 4 != 4 || packet[9] != 17 {
        return false;
    }
    let (src, dst) = packet[12..20].split_at_mut(4);
    src.swap_with_slice(dst);
    let (src, dst) = packet[20..24].split_at_mut(2);
    src.swap_with_slice(dst);
    true
}

fn packets_in_every_format(system: &MountSystem) {
    const DATAGRAMS: usize = 40;

    for (batch, ifhead) in [(false, false), (false, true), (true, false), (true, true)] {
        let builder = Builder::new(system.dir()).address("10.9.0.1/24");
        let tunnel = builder.batch(batch).ifhead(ifhead).build().unwrap();
        let socket = UdpSocket::bind_below(system.dir(), any()).unwrap();
        let to = "10.9.0.2:9".parse().unwrap();
        let mut datagrams = udp::Outgoing::default();
        for size in 0..DATAGRAMS {
            datagrams.push(&vec![size as u8; size], to).unwrap();
        }
        socket.send(&mut datagrams).unwrap();

        let mut incoming = Incoming::default();
        let mut outgoing = Outgoing::new(tunnel.format(), 0);
        let mut reads = 0;
        while outgoing.len() < DATAGRAMS {
            wait_readable(&tunnel);
            for packet in tunnel.recv(&mut incoming).unwrap() {
                if turn_round(packet) {
                    let room = outgoing.lend(packet.len()).unwrap();
                    room.copy_from_slice(packet);
                    outgoing.commit(packet.len()).unwrap();
                }
            }
            reads += 1;
        }
        assert!(batch || reads >= DATAGRAMS);
        tunnel.send(&mut outgoing).unwrap();
        assert!(outgoing.is_empty());

        let mut got = Datagrams::default();
        let mut sizes = Vec::new();
        while sizes.len() < DATAGRAMS {
            wait_readable(&socket);
            for (from, data) in socket.recv(&mut got).unwrap() {
                assert_eq!(from, to);
                assert!(data.iter().all(|&byte| usize::from(byte) == data.len()));
                sizes.push(data.len());
            }
        }
        assert_eq!(sizes, (0..DATAGRAMS).collect::<Vec<_>>());
        let stats = tunnel.stats().unwrap();
        assert_eq!(stats.ipackets, DATAGRAMS as u64, "batch {batch}");
        system.assert_ledger_closes("tun0");
    }
}

fn any() -> SocketAddr {
    "0.0.0.0:0".parse().unwrap()
}

fn datagrams_of_the_stack(system: &MountSystem) {
    let bind = |addr: &str| UdpSocket::bind_below(system.dir(), addr.parse().unwrap());
    let [one, two] = ["127.0.0.1:0", "127.0.0.1:0"].map(|addr| bind(addr).unwrap());
    let [one_addr, two_addr] = [&one, &two].map(|socket| socket.local_addr().unwrap());
    assert!(one.is_batch() && one_addr.port() != 0 && one_addr != two_addr);
    let taken = bind(&one_addr.to_string()).unwrap_err();
    assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    let six = bind("[::1]:0").unwrap();
    assert!(six.local_addr().unwrap().is_ipv6());
    // The second cannot be sent, which harms no other.
    let mut outgoing = udp::Outgoing::default();
    outgoing.push(b"one", two_addr).unwrap();
    outgoing
        .push(b"lost", "203.0.113.7:9".parse().unwrap())
        .unwrap();
    outgoing.push(&[7; 40_000], two_addr).unwrap();
    let error = one.send(&mut outgoing).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH));
    let mut datagrams = Datagrams::default();
    let mut got = Vec::new();
    while got.len() < 2 {
        wait_readable(&two);
        let received = two.recv(&mut datagrams).unwrap();
        got.extend(received.map(|(from, data)| (from, data.to_vec())));
    }
    assert_eq!(
        got,
        [(one_addr, b"one".to_vec()), (one_addr, vec![7; 40_000])]
    );
    two.set_nonblocking(true).unwrap();
    let empty = two.recv(&mut datagrams).map(drop).unwrap_err();
    assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
    let nowhere = UdpSocket::bind_below(Path::new("/nowhere"), any()).unwrap_err();
    assert_eq!(nowhere.kind(), io::ErrorKind::NotFound);
}

fn a_tunnel_does_not_carry_its_own_datagrams(system: &MountSystem) {
    let outer = UdpSocket::bind_below(system.dir(), any()).unwrap();
    let other = UdpSocket::bind_below(system.dir(), any()).unwrap();
    let send = |socket: &UdpSocket| {
        let mut outgoing = udp::Outgoing::default();
        outgoing
            .push(b"out", "203.0.113.7:9".parse().unwrap())
            .unwrap();
        socket
            .send(&mut outgoing)
            .map_err(|error| error.raw_os_error())
    };
    let default = || {
        let builder = Builder::new(system.dir()).address("10.9.0.1/24");
        builder.route("default").nonblocking(true)
    };
    let tunnel = default().bypass(&outer).build().unwrap();
    assert_eq!(send(&outer), Err(Some(libc::ENETUNREACH)));
    assert_eq!(send(&other), Ok(()));
    let count = |tunnel: &tun::Tunnel| {
        let mut incoming = Incoming::default();
        tunnel
            .recv(&mut incoming)
            .unwrap()
            .filter(|packet| packet[9] == 17)
            .count()
    };
    assert_eq!(count(&tunnel), 1);
    // The name is somebody else's from then on.
    drop(tunnel);
    let tunnel = default().build().unwrap();
    assert_eq!(send(&outer), Ok(()));
    assert_eq!(count(&tunnel), 1);
    // A socket that is closed is held open by no tunnel.
    let port = outer.local_addr().unwrap();
    let bypassed = Builder::new(system.dir()).bypass(&outer).build().unwrap();
    drop(outer);
    drop(UdpSocket::bind_below(system.dir(), port).unwrap());
    drop(bypassed);
    // The kernel's sockets have no such thing.
    let plain = UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let error = Builder::new(system.dir())
        .bypass(&plain)
        .build()
        .unwrap_err();
    assert_eq!(error.error().kind(), io::ErrorKind::Unsupported);
}

fn events_are_told_to_who_waits(system: &MountSystem) {
    let tunnel = Builder::new(system.dir())
        .address("10.9.0.1/24")
        .build()
        .unwrap();
    let events = tunnel.events().unwrap();
    events.set_nonblocking(true).unwrap();
    let none = events.read().unwrap_err();
    assert_eq!(
        none.kind(),
        io::ErrorKind::WouldBlock,
        "only what comes is told"
    );
    let mut got = Vec::new();
    let mut more = |expected: &[Event]| {
        while got.len() < expected.len() {
            wait_readable(&events);
            got.extend(events.read().unwrap());
        }
        assert_eq!(got, expected);
        got.clear();
    };
    let set = |file: &str, line: &str| {
        let path = format!("netcfg/ifaces/tun0/{file}");
        system.set(&path, line).unwrap();
    };
    set("mtu", "1400\n");
    more(&[Event::Mtu(1400)]);
    set("addr/add", "fd09::1/64\n");
    more(&[Event::AddressAdded("fd09::1/64".to_owned())]);
    set("addr/rm", "fd09::1/64\n");
    more(&[Event::AddressRemoved("fd09::1/64".to_owned())]);
    set("flags", "down\n");
    set("flags", "up\n");
    more(&[Event::Down, Event::Up]);

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let seen = runtime.block_on(async {
        let events = AsyncEvents::new(events).unwrap();
        drop(tunnel);
        let mut seen = Vec::new();
        let all = async {
            while !seen.contains(&Event::Destroyed) {
                seen.extend(events.read().await.unwrap());
            }
        };
        let limit = Duration::from_secs(30);
        tokio::time::timeout(limit, all).await.expect("in time");
        assert_eq!(events.read().await.unwrap(), [], "the end");
        seen
    });
    for event in [Event::AddressRemoved("10.9.0.1/24".to_owned()), Event::Down] {
        assert!(seen.contains(&event), "{event:?} in {seen:?}");
    }
    let gone = Events::open(system.dir(), "tun0").unwrap_err();
    assert_eq!(gone.kind(), io::ErrorKind::NotFound);
}

fn on_tokio(system: &MountSystem) {
    let tunnel = Builder::new(system.dir())
        .unit(Unit::Clone)
        .address("10.9.0.1/24")
        .build()
        .unwrap();
    let socket = UdpSocket::bind_below(system.dir(), any()).unwrap();
    let to = "10.9.0.2:9".parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let body = async {
        let tunnel = AsyncDevice::new(tunnel).unwrap();
        let socket = AsyncUdpSocket::new(socket).unwrap();
        let echo = async {
            let mut incoming = Incoming::default();
            let mut outgoing = Outgoing::new(tunnel.get_ref().format(), 0);
            loop {
                for packet in tunnel.recv(&mut incoming).await.unwrap() {
                    if turn_round(packet) {
                        outgoing.push(packet).unwrap();
                    }
                }
                tunnel.send(&mut outgoing).await.unwrap();
            }
        };
        let ask = async {
            let mut outgoing = udp::Outgoing::default();
            let mut datagrams = Datagrams::default();
            for round in 0..20_u8 {
                outgoing.push(&[round], to).unwrap();
                socket.send(&mut outgoing).await.unwrap();
                let got = socket.recv(&mut datagrams).await.unwrap();
                let got: Vec<_> = got.map(|(from, data)| (from, data.to_vec())).collect();
                assert_eq!(got, [(to, vec![round])]);
            }
        };
        // The one that never ends is dropped with the other.
        let mut echo = std::pin::pin!(echo);
        let mut ask = std::pin::pin!(ask);
        std::future::poll_fn(|cx| {
            let _: std::task::Poll<()> = echo.as_mut().poll(cx);
            ask.as_mut().poll(cx)
        })
        .await;
    };
    runtime.block_on(async {
        let limit = Duration::from_secs(30);
        tokio::time::timeout(limit, body).await.expect("in time");
    });
}

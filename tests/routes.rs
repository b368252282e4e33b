//! Routes and addresses that a program sets, and those that are refused.
#![allow(missing_docs)]

mod common;

use common::system::machine;
use net::{Host, Services};
use scheme::errno::{self, Errno};
use scheme::local::Process;

const ADD: &str = "route/add";

struct System {
    root: Process<Host>,
}

/// A machine with a tunnel that carries both families.
fn system() -> System {
    let (local, _) = machine(3, Services::all());
    let system = System {
        root: local.process(1, 0),
    };
    common::program::tunnel(&system.root, 0, "10.0.0.1/24");
    let addrs = "fd09::1/64\nfe80::1/64\n";
    system.set("ifaces/tun0/addr/add", addrs).unwrap();
    system
}

impl System {
    fn set(&self, path: &str, text: &str) -> Result<usize, Errno> {
        common::program::set(&self.root, path, text)
    }

    fn text(&self, path: &str) -> String {
        common::program::text(&self.root, path)
    }
}

#[test]
fn a_router_is_another_host() {
    let system = system();
    let before = system.text("route/list");
    for line in [
        "10.77.0.0/16 via 10.0.0.1\n",
        "10.77.0.0/16 via 127.0.0.1 dev lo0\n",
        "10.77.0.0/16 via 127.9.9.9 dev tun0\n",
        "fd77::/64 via fd09::1\n",
        "fd77::/64 via fe80::1 dev tun0\n",
    ] {
        assert_eq!(system.set(ADD, line), Err(errno::EINVAL), "{line}");
    }
    assert_eq!(system.text("route/list"), before);
    system.set(ADD, "10.77.0.0/16 via 10.0.0.2\n").unwrap();
    // What is ours on one link may be a router on another.
    common::program::tunnel(&system.root, 1, "10.1.0.1/24");
    system.set(ADD, "fd77::/64 via fe80::1 dev tun1\n").unwrap();
}

#[test]
fn a_network_without_room_for_its_route_is_refused() {
    let system = system();
    for metric in 0..64 {
        let line = format!("10.8.0.0/24 via 10.0.0.2 metric {metric}\n");
        system.set(ADD, &line).unwrap();
    }
    let (list, routes) = (
        system.text("ifaces/tun0/addr/list"),
        system.text("route/list"),
    );
    for how in ["add", "set"] {
        let path = format!("ifaces/tun0/addr/{how}");
        assert_eq!(system.set(&path, "10.8.0.1/24\n"), Err(errno::ENOSPC));
    }
    assert_eq!(system.text("ifaces/tun0/addr/list"), list);
    assert_eq!(system.text("route/list"), routes);
    system.set("route/rm", "10.8.0.0/24 metric 3\n").unwrap();
    system.set("ifaces/tun0/addr/add", "10.8.0.1/24\n").unwrap();
    assert!(
        system
            .text("route/list")
            .contains("10.8.0.0/24 dev tun0 metric 3\n")
    );
}

#[test]
fn what_carries_no_ipv6_takes_no_route_of_it() {
    let system = system();
    system.set(ADD, "fd77::/64 dev tun0\n").unwrap();
    system.set("ifaces/tun0/mtu", "1279\n").unwrap();
    for line in ["fd77::/64 dev tun0\n", "default via fe80::9 dev tun0\n"] {
        assert_eq!(system.set(ADD, line), Err(errno::EINVAL), "{line}");
    }
    assert!(!system.text("route/list").contains("fd"));
    system.set(ADD, "10.77.0.0/16 dev tun0\n").unwrap();
}

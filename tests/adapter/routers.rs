//! Routers that advertise themselves: radvd.

use crate::bed::Bed;
use crate::common::wait::until;

/// The lifetimes of a router that says no more.
pub(crate) fn lifetimes_end(bed: &Bed) {
    let radvd = bed.radvd(
        "AdvDefaultLifetime 10; prefix fd00:1::/64 { AdvValidLifetime 10; AdvPreferredLifetime 9; };",
    );
    until("there is an address", || {
        bed.has("ifaces/eth0/addr/list", "fd00:1::")
    });
    let router = format!("default via {}", bed.peers_link_local());
    assert!(bed.has("route/list", &router), "{}", bed.text("route/list"));
    bed.run(&["ip", "addr", "add", "fd00:1::2/64", "dev", "b0", "nodad"]);
    bed.run(&["ip", "addr", "add", "fd00:5::1/128", "dev", "lo"]);
    bed.ping("fd00:5::1", "56");
    drop(radvd);
    until("the address has ended", || {
        !bed.has("ifaces/eth0/addr/list", "fd00:1::")
    });
    until("the router has ended", || !bed.has("route/list", &router));
    assert!(!bed.has("route/list", "fd00:1::/64"));
}

pub(crate) fn every_option(bed: &Bed) {
    let radvd = bed.radvd(
        "AdvLinkMTU 1400; AdvCurHopLimit 33; AdvReachableTime 20000; AdvRetransTimer 500;
         AdvManagedFlag on; AdvOtherConfigFlag on; AdvHomeAgentFlag on; AdvHomeAgentInfo on;
         HomeAgentLifetime 1000; AdvMobRtrSupportFlag on; AdvIntervalOpt on; AdvDefaultPreference high;
         prefix fd00:1::/64 { AdvRouterAddr off; };
         prefix fd00:2::/64 { AdvOnLink off; };
         prefix fd00:3::/64 { AdvAutonomous off; };
         prefix fd00:4::/48 { };
         route fd00:6::/48 { AdvRoutePreference low; AdvRouteLifetime 600; };
         RDNSS fd00::53 fd00::54 { AdvRDNSSLifetime 600; };
         DNSSL example.net corp.example.net { AdvDNSSLLifetime 600; };",
    );
    until("there are addresses", || {
        let list = bed.text("ifaces/eth0/addr/list");
        list.contains("fd00:1::") && list.contains("fd00:2::")
    });
    let list = bed.text("ifaces/eth0/addr/list");
    assert!(
        !list.contains("fd00:3::") && !list.contains("fd00:4::"),
        "{list}"
    );
    let routes = bed.text("route/list");
    for (prefix, there) in [
        ("fd00:1::/64", true),
        ("fd00:2::/64", false),
        ("fd00:3::/64", true),
    ] {
        let on_link = |line: &str| line.starts_with(prefix) && !line.contains("via");
        assert_eq!(routes.lines().any(on_link), there, "{prefix} in {routes}");
    }
    // The router's is the only default route; its routes to elsewhere are not used.
    let via = format!("default via {} dev eth0 metric ", bed.peers_link_local());
    let defaults = routes.lines().filter(|line| line.starts_with("default"));
    let defaults: Vec<_> = defaults.collect();
    assert!(
        matches!(defaults[..], [line] if line.starts_with(&via)),
        "{routes}"
    );
    assert!(!routes.contains("fd00:6::"), "{routes}");
    until("there is a name server", || {
        bed.text("resolv/nameserver") == "fd00::53\n"
    });
    what_is_sent(bed);
    assert_eq!(bed.drops("malformed"), 0);
    assert_eq!(bed.drops("bad_option"), 0);
    bed.kernel_ping("fd00::1", "3000");
    // It says that it is none any more, and names no server.
    radvd.stop();
    until("the router is gone", || {
        !bed.has("route/list", "default via fe80")
    });
    until("the name server is gone", || {
        bed.text("resolv/nameserver").trim().is_empty()
    });
}

/// The hop limit and the mtu that the router named are those of what we send by IPv6, and of nothing
/// else.
fn what_is_sent(bed: &Bed) {
    let seen = bed.watch(
        r#"
hops, longest = {}, {}
for frame in frames():
    packet = frame[14:]
    if frame[12:14] == b"\x08\x00" and packet[9] in (1, 6):
        kind, hop, size = ("4", packet[8], int.from_bytes(packet[2:4], "big"))
    elif frame[12:14] == b"\x86\xdd" and packet[6] in (44, 6):
        kind, hop, size = ("6", packet[7], 40 + int.from_bytes(packet[4:6], "big"))
    else:
        continue
    kind += "tcp" if packet[9 if kind == "4" else 6] == 6 else ""
    hops.setdefault(kind, set()).add(hop)
    longest[kind] = max(longest.get(kind, 0), size)
    if kind == "4" and size == 20 + 8 + 777:
        break
print({kind: (*hops[kind], longest[kind]) for kind in sorted(hops)})
"#,
    );
    bed.ping("fd00::2", "3000");
    bed.ping("10.0.0.2", "3000");
    bed.python(
        r#"
import socket
for family, address in ((socket.AF_INET, "10.0.0.1"), (socket.AF_INET6, "fd00::1")):
    t = socket.create_connection((address, 7), timeout=60)
    t.sendall(bytes(50000))
    t.shutdown(socket.SHUT_WR)
    left = 50000
    while piece := t.recv(65536):
        left -= len(piece)
    assert left == 0
print("all good")
"#,
    );
    bed.ping("10.0.0.2", "777");
    // The parts of a fragmented packet are multiples of eight bytes.
    assert_eq!(
        seen.line(),
        "{'4': (64, 1500), '4tcp': (64, 1500), '6': (33, 1400), '6tcp': (33, 1400)}\n"
    );
    assert_eq!(bed.text("ifaces/eth0/mtu"), "1500\n");
}

pub(crate) fn two_routers(bed: &Bed) {
    let first = bed.radvd("AdvDefaultPreference low; prefix fd00:1::/64 { };");
    let first_is_used = format!("default via {}", bed.peers_link_local());
    until("there is a router", || {
        bed.has("route/list", &first_is_used)
    });
    let other = bed.another_station();
    let second = other.radvd("AdvDefaultPreference high; prefix fdff:2::/64 { };");
    let second_is_used = format!("default via {}", other.link_local());
    until("the other is preferred", || {
        bed.has("route/list", &second_is_used)
    });
    until("there are both prefixes", || {
        let list = bed.text("ifaces/eth0/addr/list");
        list.contains("fd00:1::") && list.contains("fdff:2::")
    });
    second.stop();
    until("the first is used again", || {
        bed.has("route/list", &first_is_used)
    });
    // New numbers: nothing begins from the old ones, though they are closer.
    bed.set("ifaces/eth0/addr/rm", "fd00::1");
    first.stop();
    let _first = bed.radvd(
        "prefix fd00:1::/64 { AdvPreferredLifetime 0; AdvValidLifetime 600; };
         prefix fd00:3::/64 { };",
    );
    until("there is a new address", || {
        bed.has("ifaces/eth0/addr/list", "fd00:3::")
    });
    bed.run(&["ip", "addr", "add", "fd00:1::2/64", "dev", "b0", "nodad"]);
    bed.run(&["ip", "addr", "add", "fd00:3::2/64", "dev", "b0", "nodad"]);
    bed.run(&["ip", "addr", "add", "fd00:1:0:1::1/128", "dev", "lo"]);
    let sniffer = bed.start_python(
        r#"
import socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x86dd))
s.bind(("b0", 0))
s.settimeout(30)
print("ready", flush=True)
while True:
    packet = s.recv(2000)
    if packet[6] == 58 and packet[40] == 128:
        print(socket.inet_ntop(socket.AF_INET6, packet[8:24]))
        break
"#,
    );
    bed.ping("fd00:1:0:1::1", "56");
    let source = sniffer.line();
    assert!(source.starts_with("fd00:3::"), "{source}");
}

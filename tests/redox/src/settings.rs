//! `netcfg`: interfaces, routes and settings as text.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, UdpSocket};
use std::time::Duration;

use event::EventFlags;

use crate::device::{Tun, assert_errno, bsd};
use crate::sys::{self, Events, fork};
use crate::{netcfg, tests};

tests![
    netcfg_lists,
    netcfg_addresses,
    netcfg_ipv6_addresses,
    netcfg_mtu,
    netcfg_flags,
    netcfg_routes,
    netcfg_multicast,
    netcfg_queue,
    netcfg_stats,
    netcfg_fixed_files,
    netcfg_destroy,
    netcfg_bad_lines_change_nothing,
    netcfg_unfinished_lines,
    netcfg_many_lines_at_once,
    netcfg_as_a_user,
    netcfg_reads_by_offset,
    netcfg_tells_of_changes,
    netcfg_tells_of_every_change,
    netcfg_bad_paths,
    netcfg_modes,
    netcfg_lists_sockets,
];

fn netcfg_lists() {
    let _tun = Tun::fresh(27);
    let top = netcfg::list("");
    for name in ["debug", "ifaces", "ip", "resolv", "route"] {
        assert!(top.iter().any(|other| other == name), "{top:?}");
    }
    let ifaces = netcfg::list("ifaces");
    for name in ["lo0", "tun27"] {
        assert!(ifaces.iter().any(|other| other == name), "{ifaces:?}");
    }
    let files = netcfg::list("ifaces/tun27");
    for name in [
        "mac",
        "addr",
        "mtu",
        "flags",
        "status",
        "multicast",
        "queue",
        "stats",
        "destroy",
    ] {
        assert!(files.iter().any(|other| other == name), "{files:?}");
    }
    assert_eq!(
        netcfg::list("ifaces/tun27/addr"),
        ["add", "list", "rm", "set"]
    );
    assert_eq!(netcfg::list("route"), ["add", "list", "lookup", "rm"]);
    assert!(fs::metadata(netcfg::path("ifaces")).expect("stat").is_dir());
    assert!(
        fs::metadata(netcfg::path("route/list"))
            .expect("stat")
            .is_file()
    );
}

fn netcfg_addresses() {
    let _tun = Tun::fresh(27);
    netcfg::put_if(27, "addr/set", "10.0.27.1/24").expect("set");
    let flags = netcfg::get_if(27, "flags");
    assert_eq!(flags, "UP,POINTOPOINT,RUNNING,MULTICAST\n");
    netcfg::put_if(27, "addr/add", "10.1.27.1 peer 10.1.27.2").expect("add");
    let list = netcfg::get_if(27, "addr/list");
    assert_eq!(list, "10.0.27.1/24\n10.1.27.1 peer 10.1.27.2\n");
    let routes = netcfg::get("route/list");
    assert!(routes.contains("10.0.27.0/24 dev tun27"), "{routes}");
    assert!(routes.contains("10.1.27.2/32 dev tun27"), "{routes}");
    assert_errno(netcfg::put_if(27, "addr/add", "10.0.27.1/24"), libc::EINVAL);
    netcfg::put_if(27, "addr/rm", "10.0.27.1/24").expect("remove");
    assert_errno(netcfg::put_if(27, "addr/rm", "10.0.27.1/24"), libc::EINVAL);
    netcfg::put_if(27, "addr/set", "10.2.27.1/24").expect("set");
    assert_eq!(netcfg::get_if(27, "addr/list"), "10.2.27.1/24\n");
    assert!(!netcfg::get("route/list").contains("10.0.27.0/24"));
}

fn netcfg_ipv6_addresses() {
    let _tun = Tun::fresh(27);
    netcfg::put_if(27, "addr/add", "fd00:27::1/64").expect("add");
    let list = netcfg::get_if(27, "addr/list");
    assert!(list.contains("fd00:27::1/64\n"), "{list}");
    let routes = netcfg::get("route/list");
    assert!(routes.contains("fd00:27::/64 dev tun27"), "{routes}");
    netcfg::put_if(27, "mtu", "1279").expect("set the mtu");
    assert!(!netcfg::get_if(27, "addr/list").contains("fd00:27::1"));
}

fn netcfg_mtu() {
    let _tun = Tun::fresh(27);
    for mtu in ["72", "1400", "65535"] {
        netcfg::put_if(27, "mtu", mtu).expect("set the mtu");
        assert_eq!(netcfg::get_if(27, "mtu"), format!("{mtu}\n"));
    }
    for mtu in ["71", "0", "65536", "-1", "x", "1400x", "0x600", ""] {
        assert_errno(netcfg::put_if(27, "mtu", mtu), libc::EINVAL);
    }
    assert_eq!(netcfg::get_if(27, "mtu"), "65535\n");
    assert_eq!(netcfg::get_if(27, "mac"), "Not configured\n");
    assert_errno(netcfg::put_if(27, "mac", "02:00:00:00:00:01"), libc::EINVAL);
}

fn netcfg_flags() {
    let _tun = Tun::up(27);
    netcfg::put_if(27, "flags", "down").expect("down");
    let flags = netcfg::get_if(27, "flags");
    assert!(!flags.contains("UP"), "{flags}");
    netcfg::put_if(27, "flags", "up").expect("up");
    assert!(netcfg::get_if(27, "flags").starts_with("UP,"));
    assert_errno(netcfg::put_if(27, "flags", "sideways"), libc::EINVAL);
    let changed = netcfg::stats(27)["lastchange"];
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.expect("after 1970").as_secs();
    assert!(changed <= now && changed + 5 > now, "{changed} at {now}");
}

fn netcfg_routes() {
    let _tun = Tun::up(27);
    let lines = [
        "172.27.0.0/16 dev tun27",
        "172.28.0.0/16 via 10.0.27.2",
        "172.29.0.0/16 via 10.0.27.2 dev tun27 src 10.0.27.1 metric 10",
        "default via 10.0.27.2",
    ];
    for line in lines {
        netcfg::put("route/add", line).unwrap_or_else(|error| panic!("add {line}: {error}"));
    }
    let list = netcfg::get("route/list");
    for prefix in ["172.27.0.0/16", "172.28.0.0/16", "172.29.0.0/16"] {
        assert!(list.contains(prefix), "{list}");
    }
    assert!(list.contains("default via 10.0.27.2"), "{list}");
    assert!(list.contains("src 10.0.27.1 metric 10"), "{list}");
    for line in lines {
        netcfg::put("route/rm", line).unwrap_or_else(|error| panic!("rm {line}: {error}"));
    }
    assert_errno(netcfg::put("route/rm", lines[0]), libc::EINVAL);
    assert!(!netcfg::get("route/list").contains("172."));
    for line in [
        "172.27.0.0/33 dev tun27",
        "172.27.0.0/16",
        "x",
        "default via 192.0.2.1",
    ] {
        assert_errno(netcfg::put("route/add", line), libc::EINVAL);
    }
    assert_errno(
        netcfg::put("route/add", "172.27.0.0/16 dev tun999"),
        libc::EINVAL,
    );
}

fn netcfg_multicast() {
    let _tun = Tun::up(27);
    netcfg::put_if(27, "multicast", "join 239.1.2.3").expect("join");
    assert!(netcfg::get_if(27, "multicast").contains("239.1.2.3\n"));
    netcfg::put_if(27, "multicast", "leave 239.1.2.3").expect("leave");
    assert!(!netcfg::get_if(27, "multicast").contains("239.1.2.3"));
    for line in ["leave 239.1.2.3", "join 10.0.0.1", "join", "239.1.2.3"] {
        assert_errno(netcfg::put_if(27, "multicast", line), libc::EINVAL);
    }
}

fn netcfg_queue() {
    let tun = Tun::up(27);
    let standard = "fifo limit 250 packets 1048576 bytes\n";
    assert_eq!(netcfg::get_if(27, "queue"), standard);
    netcfg::put_if(27, "queue", "fifo limit 2 packets").expect("set the queue");
    let wire = crate::device::Wire::open(27);
    for number in 0..2 {
        wire.send(&crate::packet::numbered(27, number, 60))
            .expect("room");
    }
    let full = wire.send(&crate::packet::numbered(27, 2, 60));
    assert_errno(full, libc::ENOBUFS);
    assert_errno(netcfg::put_if(27, "queue", "lifo"), libc::EINVAL);
    tun.read_now();
}

fn netcfg_stats() {
    let _tun = Tun::fresh(27);
    let text = netcfg::get_if(27, "stats");
    let names: Vec<_> = text
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    let first = [
        "ipackets",
        "ibytes",
        "ierrors",
        "iqdrops",
        "opackets",
        "obytes",
        "oerrors",
        "odrops",
        "collisions",
        "lastchange",
    ];
    assert_eq!(names[..10], first);
    let last = ["marked", "queue.packets", "queue.bytes", "queue.delay_us"];
    let (drops, rest) = names[10..].split_at(names.len() - 10 - last.len());
    assert!(
        drops.iter().all(|name| name.starts_with("drop.")),
        "{names:?}"
    );
    assert_eq!(rest, last);
    for name in ["stats", "status", "addr/list"] {
        assert_errno(netcfg::put_if(27, name, "1"), libc::EACCES);
    }
}

fn netcfg_fixed_files() {
    let before = netcfg::get("resolv/nameserver");
    for server in ["192.0.2.53", "2001:db8::53"] {
        netcfg::put("resolv/nameserver", server).expect("set");
        assert_eq!(netcfg::get("resolv/nameserver"), format!("{server}\n"));
    }
    for server in ["x", "192.0.2.53 192.0.2.54", "192.0.2.300", ""] {
        assert_errno(netcfg::put("resolv/nameserver", server), libc::EINVAL);
    }
    if !before.is_empty() {
        netcfg::put("resolv/nameserver", before.trim()).expect("put it back");
    }
    assert_eq!(netcfg::get("ip/forwarding"), "0\n");
    netcfg::put("ip/forwarding", "1").expect("set");
    assert_eq!(netcfg::get("ip/forwarding"), "1\n");
    netcfg::put("ip/forwarding", "0").expect("set");
    assert_errno(netcfg::put("ip/forwarding", "2"), libc::EINVAL);
    assert_eq!(netcfg::get("debug/if_tun_debug"), "0\n");
}

fn netcfg_destroy() {
    let tun = Tun::fresh(27);
    assert_errno(netcfg::put_if(27, "destroy", "1"), libc::EBUSY);
    tun.set(bsd::TUNSTRANSIENT, 0);
    drop(tun);
    assert_errno(netcfg::put_if(27, "destroy", "0"), libc::EINVAL);
    netcfg::put_if(27, "destroy", "1").expect("destroy");
    assert!(!netcfg::exists(27));
    assert_errno(netcfg::put("ifaces/lo0/destroy", "1"), libc::EINVAL);
}

fn netcfg_bad_lines_change_nothing() {
    let _tun = Tun::up(27);
    let before = netcfg::get_if(27, "addr/list");
    let lines = [
        "10.0.27.9/33",
        "10.0.27",
        "x",
        "10.0.27.9/24 x",
        "\u{0}",
        "peer 10.0.0.1",
    ];
    for line in lines {
        assert_errno(netcfg::put_if(27, "addr/add", line), libc::EINVAL);
    }
    // The first line is valid, but is not applied without the second.
    let both = netcfg::put_if(27, "addr/add", "10.8.0.1/24\n10.9.0.1/99");
    assert_errno(both, libc::EINVAL);
    let long = "1".repeat(10_000);
    assert_errno(netcfg::put_if(27, "mtu", &long), libc::EINVAL);
    assert_eq!(netcfg::get_if(27, "addr/list"), before);
}

fn netcfg_unfinished_lines() {
    let _tun = Tun::fresh(27);
    let open = || {
        OpenOptions::new()
            .write(true)
            .open(netcfg::path("ifaces/tun27/mtu"))
            .expect("open")
    };
    let mut mtu = open();
    mtu.write_all(b"14").expect("write");
    assert_eq!(netcfg::get_if(27, "mtu"), "1500\n");
    mtu.write_all(b"00\n").expect("write");
    assert_eq!(netcfg::get_if(27, "mtu"), "1400\n", "at once");
    mtu.write_all(b"1300").expect("write");
    mtu.sync_all().expect("fsync");
    assert_eq!(netcfg::get_if(27, "mtu"), "1300\n", "at fsync");
    mtu.write_all(b"7").expect("write");
    assert_errno(mtu.sync_all(), libc::EINVAL);
    mtu.write_all(b"1200").expect("write");
    drop(mtu);
    let closed = || netcfg::get_if(27, "mtu") == "1200\n";
    assert!(sys::becomes(Duration::from_secs(1), closed), "at close");
    open().write_all(b"junk").expect("write");
    assert_eq!(netcfg::get_if(27, "mtu"), "1200\n");
}

fn netcfg_many_lines_at_once() {
    let _tun = Tun::fresh(27);
    let lines = "10.0.27.1/24\n10.1.27.1/24\n10.2.27.1/24";
    netcfg::put_if(27, "addr/add", lines).expect("add");
    assert_eq!(netcfg::get_if(27, "addr/list"), format!("{lines}\n"));
}

fn netcfg_as_a_user() {
    let _tun = Tun::up(27);
    let child = fork(|_| {
        sys::become_user(1000);
        assert_eq!(netcfg::get_if(27, "mtu"), "1500\n");
        assert!(netcfg::list("ifaces").contains(&"tun27".to_owned()));
        assert_errno(netcfg::put_if(27, "mtu", "1400"), libc::EACCES);
        assert_errno(netcfg::put("ip/forwarding", "1"), libc::EACCES);
        let path = netcfg::path("ifaces/tun27/mtu");
        assert_errno(sys::open(&path, libc::O_RDWR), libc::EACCES);
        assert_errno(
            sys::open(&path, libc::O_RDONLY | libc::O_TRUNC),
            libc::EACCES,
        );
        let mut reader = fs::File::open(&path).expect("open");
        assert_errno(reader.write(b"1400\n"), libc::EBADF);
        let _ = reader.sync_all();
    });
    child.finish();
    assert_eq!(netcfg::get_if(27, "mtu"), "1500\n");
    // A file that root opened may be used by any process that has the descriptor.
    let mut mtu = OpenOptions::new()
        .write(true)
        .open(netcfg::path("ifaces/tun27/mtu"))
        .expect("open");
    let child = fork(|_| {
        sys::become_user(1000);
        mtu.write_all(b"1400\n").expect("write");
    });
    child.finish();
    assert_eq!(netcfg::get_if(27, "mtu"), "1400\n");
}

fn netcfg_reads_by_offset() {
    let _tun = Tun::fresh(27);
    let whole = netcfg::get_if(27, "stats");
    let mut file = fs::File::open(netcfg::path("ifaces/tun27/stats")).expect("open");
    let mut pieces = String::new();
    let mut piece = [0; 7];
    loop {
        let got = file.read(&mut piece).expect("read");
        if got == 0 {
            break;
        }
        pieces.push_str(std::str::from_utf8(&piece[..got]).expect("text"));
    }
    assert_eq!(pieces, whole);
    file.seek(SeekFrom::Start(0)).expect("seek");
    let mut again = String::new();
    file.read_to_string(&mut again).expect("read");
    assert_eq!(again, whole);
}

fn netcfg_tells_of_changes() {
    let tun = Tun::fresh(27);
    let mut flags = fs::File::open(netcfg::path("ifaces/tun27/flags")).expect("open");
    let mut text = String::new();
    flags.read_to_string(&mut text).expect("read");
    let events = Events::new();
    events.subscribe(&flags, 1, EventFlags::READ);
    assert_eq!(events.next(Duration::from_millis(150)), None);
    netcfg::put_if(27, "addr/set", "10.0.27.1/24").expect("set the address");
    let event = events.next(Duration::from_secs(1));
    assert_eq!(event, Some((1, EventFlags::READ)));
    flags.seek(SeekFrom::Start(0)).expect("seek");
    text.clear();
    flags.read_to_string(&mut text).expect("read");
    assert!(text.starts_with("UP,"), "{text}");
    assert_eq!(sys::poll(&flags, libc::POLLIN, 100), 0);
    drop(tun);
    assert_eq!(sys::poll(&flags, libc::POLLIN, 1000), libc::POLLIN);
}

/// A program that reads after each event is told of the next change without subscribing again.
fn netcfg_tells_of_every_change() {
    let _tun = Tun::fresh(27);
    let mut file = fs::File::open(netcfg::path("ifaces/tun27/mtu")).expect("open");
    let events = Events::new();
    events.subscribe(&file, 1, EventFlags::READ);
    for mtu in 1300..1305 {
        let mut text = String::new();
        file.seek(SeekFrom::Start(0)).expect("seek");
        file.read_to_string(&mut text).expect("read");
        // The first event is for the state before the first read.
        while events.next(Duration::from_millis(100)).is_some() {}
        netcfg::put_if(27, "mtu", &mtu.to_string()).expect("set the mtu");
        let event = events.next(Duration::from_secs(1));
        assert_eq!(event, Some((1, EventFlags::READ)), "{mtu}");
    }
}

fn netcfg_bad_paths() {
    let paths = [
        "x",
        "ifaces/tun999",
        "ifaces/tun999/mtu",
        "ifaces/lo0/x",
        "./ip/forwarding",
        "ip/./forwarding",
        "ip//forwarding",
        "../netcfg/ip/forwarding",
        "/ip/forwarding",
        "ip/forwarding/x",
        "ifaces/../ip/forwarding",
    ];
    for path in paths {
        assert_errno(fs::File::open(netcfg::path(path)), libc::ENOENT);
    }
    let file_as_directory = fs::File::open(netcfg::path("ip/forwarding/"));
    assert!(file_as_directory.is_err());
}

fn netcfg_modes() {
    let mode = |name: &str| {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(netcfg::path(name)).expect("stat").mode() & 0o777
    };
    assert_eq!(mode("ip/forwarding"), 0o644);
    assert_eq!(mode("route/list"), 0o444);
}

fn netcfg_lists_sockets() {
    let datagrams = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let name = datagrams.local_addr().expect("a name");
    let pid = sys::pid();
    let text = netcfg::get("sockets");
    let udp = format!("udp - {name} 0.0.0.0:0 recv 0 send 0 pid {pid}\n");
    assert!(text.contains(&udp), "{text}");
    let name = listener.local_addr().expect("a name");
    let tcp = format!("tcp LISTEN {name} 0.0.0.0:0 recv 0 send 128 pid {pid}\n");
    assert!(text.contains(&tcp), "{text}");
    datagrams
        .send_to(&[7; 100], datagrams.local_addr().expect("a name"))
        .expect("send");
    let text = netcfg::get("sockets");
    assert!(text.contains(&udp.replace("recv 0", "recv 100")), "{text}");
    // In pieces of any size it is the same.
    let mut file = fs::File::open(netcfg::path("sockets")).expect("open");
    let (mut pieces, mut piece) = (Vec::new(), [0; 7]);
    loop {
        match file.read(&mut piece).expect("read") {
            0 => break,
            len => pieces.extend_from_slice(&piece[..len]),
        }
    }
    let pieces = String::from_utf8(pieces).expect("a text");
    assert!(pieces.contains(&tcp), "{pieces}");
    assert_errno(
        OpenOptions::new().write(true).open(netcfg::path("sockets")),
        libc::EACCES,
    );
}

//! What a tunnel program needs beside its device: routes beside the machine's own, a socket that
//! keeps out of the tunnel, the answer to where packets go, and news of its interface.

use std::fs::File;
use std::io::{Read, Write};

use crate::device::{Tun, assert_errno, open_path};
use crate::sys;
use crate::{netcfg, tests};

tests![
    equal_routes_stand_side_by_side,
    unreachable_is_told_to_senders,
    a_socket_bypasses_a_tunnel,
    where_packets_go_can_be_asked,
    events_tell_what_changes,
];

/// `TUNSBYPASS` as relibc encodes it.
const TUNSBYPASS: u64 = 0x4010_7485;

/// The answer of `route/lookup`.
fn lookup(dst: &str) -> std::io::Result<String> {
    let mut file = open_path(&netcfg::path("route/lookup"))?;
    file.write_all(format!("{dst}\n").as_bytes())?;
    let mut line = String::new();
    file.read_to_string(&mut line)?;
    Ok(line)
}

fn bypass(socket: &File, name: &str) -> std::io::Result<usize> {
    let mut argument = [0; 16];
    argument[..name.len()].copy_from_slice(name.as_bytes());
    sys::call(socket, &mut argument, &[TUNSBYPASS])
}

/// The destination of the next packet that left by a tunnel.
fn destination(tun: &Tun) -> [u8; 4] {
    let packet = tun.read_now();
    packet[16..20].try_into().expect("an IPv4 packet")
}

fn equal_routes_stand_side_by_side() {
    let outer = Tun::up(27);
    let inner = Tun::up(28);
    netcfg::put("route/add", "198.18.0.0/15 dev tun27").expect("add");
    netcfg::put("route/add", "198.18.0.0/15 dev tun28").expect("add");
    let list = netcfg::get("route/list");
    let both = "198.18.0.0/15 dev tun27\n198.18.0.0/15 dev tun28\n";
    assert!(list.contains(both), "{list}");
    assert!(lookup("198.18.0.1").expect("a route").contains("tun28"));
    drop(inner);
    assert!(lookup("198.18.0.1").expect("a route").contains("tun27"));
    drop(outer);
    assert!(!netcfg::get("route/list").contains("198.18."));
}

fn unreachable_is_told_to_senders() {
    netcfg::put("route/add", "198.18.0.0/15 unreachable metric 9").expect("add");
    let mut socket = open_path("/scheme/udp/198.18.0.1:9").expect("a socket");
    let sent = socket.write(b"x");
    let asked = lookup("198.18.0.1");
    netcfg::put("route/rm", "198.18.0.0/15 unreachable").expect("rm");
    assert_errno(sent, libc::EHOSTUNREACH);
    assert_errno(asked, libc::EHOSTUNREACH);
    assert_errno(
        netcfg::put("route/add", "198.18.0.0/15 unreachable dev lo0"),
        libc::EINVAL,
    );
}

fn a_socket_bypasses_a_tunnel() {
    let outer = Tun::up(27);
    let inner = Tun::up(28);
    netcfg::put("route/add", "198.0.0.0/8 dev tun27").expect("add");
    netcfg::put("route/add", "198.18.0.0/15 dev tun28").expect("add");
    let mut socket = open_path("/scheme/udp/198.18.0.1:9").expect("a socket");
    bypass(&socket, "tun28").expect("TUNSBYPASS");
    socket.write_all(b"around").expect("sent");
    assert_eq!(destination(&outer), [198, 18, 0, 1]);
    bypass(&socket, "").expect("TUNSBYPASS");
    socket.write_all(b"inside").expect("sent");
    assert_eq!(destination(&inner), [198, 18, 0, 1]);
    // What is smaller is a SocketCall, and what is no request is none of these files'.
    assert_errno(sys::call(&socket, &mut [0; 16], &[65_535]), libc::EINVAL);
    assert_errno(sys::call(&socket, &mut [0; 16], &[65_536]), libc::ENOTTY);
    assert_errno(
        sys::call(&socket, &mut [0; 15], &[TUNSBYPASS]),
        libc::EINVAL,
    );
    assert_errno(
        sys::call(&socket, &mut [b'x'; 16], &[TUNSBYPASS]),
        libc::EINVAL,
    );
    let stream = open_path("/scheme/tcp").expect("a socket");
    bypass(&stream, "tun28").expect("TUNSBYPASS");
}

fn where_packets_go_can_be_asked() {
    let _tun = Tun::up(27);
    let line = lookup("10.0.27.2").expect("a route");
    assert_eq!(line, "10.0.27.0/24 dev tun27 src 10.0.27.1\n");
    assert_eq!(
        lookup("10.0.27.1").expect("ours"),
        "local 10.0.27.1 dev tun27\n"
    );
    assert_errno(lookup("10.0.27.1/24"), libc::EINVAL);
    netcfg::put_if(27, "flags", "down").expect("down");
    assert_errno(lookup("10.0.27.2"), libc::ENETDOWN);
}

fn events_tell_what_changes() {
    let tun = Tun::up(27);
    let path = netcfg::path("ifaces/tun27/events");
    let mut file = File::open(&path).expect("events");
    let mut waiter = File::open(&path).expect("events");
    let heard = sys::background(move || {
        let mut buf = [0; 100];
        let len = waiter.read(&mut buf).expect("a line");
        String::from_utf8_lossy(&buf[..len]).into_owned()
    });
    netcfg::put_if(27, "mtu", "1400").expect("mtu");
    let first = heard.recv_timeout(std::time::Duration::from_secs(5));
    assert_eq!(first.as_deref(), Ok("mtu 1400\n"));
    netcfg::put_if(27, "addr/add", "10.1.27.1/24").expect("add");
    // The last close takes it with it.
    drop(tun);
    // A buffer that is shorter than a line is refused, as std's would be.
    let (mut text, mut piece) = (String::new(), [0; 1000]);
    loop {
        match file.read(&mut piece).expect("lines") {
            0 => break,
            len => text.push_str(&String::from_utf8_lossy(&piece[..len])),
        }
    }
    let lines = "mtu 1400\naddr add 10.1.27.1/24\ndown\nstopped\n";
    assert!(
        text.starts_with(lines) && text.ends_with("\ndestroyed\n"),
        "{text}"
    );
}

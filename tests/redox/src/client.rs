//! The client library, and the C header through relibc.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use tun::batch::{Incoming, Outgoing};
use tun::{Device, Mode, TunInfo, Unit};

use crate::device::{Tun, assert_errno};
use crate::packet::{assert_echo_reply, echo_request};
use crate::{netcfg, sys, tests};

tests![
    client_library,
    client_library_close_ends_reads,
    client_library_shares,
    client_library_builder,
    c_header_through_relibc,
];

const ROOT: &str = "/scheme";

fn client_library() {
    let _ = netcfg::put_if(29, "destroy", "1");
    let tun = tun::Tun::open(ROOT, 29).expect("open");
    tun.set_transient(true).expect("TUNSTRANSIENT");
    assert!(tun.transient().expect("TUNGTRANSIENT"));
    assert_eq!(tun.name().expect("TUNGIFNAME"), "tun29");
    let info = TunInfo {
        baudrate: 115_200,
        mtu: 1300,
        if_type: 0x17,
    };
    tun.set_info(info).expect("TUNSIFINFO");
    assert_eq!(tun.info().expect("TUNGIFINFO"), info);
    tun.set_mode(Mode::Broadcast, true).expect("TUNSIFMODE");
    assert_eq!(netcfg::get_if(29, "flags"), "BROADCAST,MULTICAST\n");
    tun.claim().expect("TUNSIFPID");
    tun.set_owner(sys::pid()).expect("FIOSETOWN");
    assert_eq!(tun.owner().expect("FIOGETOWN"), sys::pid());
    tun.set_async(false).expect("FIOASYNC");
    assert_eq!(tun.debug().expect("TUNGDEBUG"), 0);
    netcfg::put_if(29, "addr/set", "10.0.29.1/24").expect("set the address");
    tun.write(&echo_request(29, 1, 84)).expect("write");
    assert_eq!(tun.pending().expect("FIONREAD"), 84);
    let mut reply = [0; 2000];
    let len = tun.read(&mut reply).expect("read");
    assert_echo_reply(&reply[..len], 29, 1, 84);
    tun.set_nonblocking(true).expect("F_SETFL");
    assert_errno(tun.read(&mut reply), libc::EAGAIN);
    tun.set_ifhead(true).expect("TUNSIFHEAD");
    assert!(tun.ifhead().expect("TUNGIFHEAD"));
    tun.set_lmode(true).expect("TUNSLMODE");
    assert!(!tun.ifhead().expect("TUNGIFHEAD"));
    tun.set_batch(true).expect("TUNSBATCH");
    assert!(tun.batch().expect("TUNGBATCH"));
    assert_errno(tun::Tun::open(ROOT, 29), libc::EBUSY);
    let other = tun::Tun::open(ROOT, Unit::Clone).expect("open clone");
    assert_ne!(other.name().expect("TUNGIFNAME"), "tun29");
    other.set_transient(true).expect("TUNSTRANSIENT");
}

fn client_library_close_ends_reads() {
    for _ in 0..20 {
        let _ = netcfg::put_if(29, "destroy", "1");
        let tun = tun::Tun::open(ROOT, 29).expect("open");
        let reader = tun.try_clone().expect("another descriptor");
        let got = sys::background(move || reader.read(&mut [0; 100]));
        sys::pause(20);
        tun.close().expect("close");
        let got = got
            .recv_timeout(Duration::from_secs(1))
            .expect("the read ends");
        assert_errno(got, libc::EHOSTDOWN);
    }
    Tun::fresh(29);
}

fn client_library_shares() {
    let tun = tun::Tun::open(ROOT, 29).expect("open");
    tun.set_transient(true).expect("TUNSTRANSIENT");
    let again: OwnedFd = tun
        .as_fd()
        .try_clone_to_owned()
        .expect("another descriptor");
    drop(tun);
    assert_errno(tun::Tun::open(ROOT, 29), libc::EBUSY);
    drop(again);
    Tun::fresh(29);
}

/// A tunnel that a builder set up carries many packets in an operation, and leaves nothing.
fn client_library_builder() {
    let _ = netcfg::put_if(29, "destroy", "1");
    let routes = std::fs::read_to_string("/scheme/netcfg/route/list").expect("routes");
    let tunnel = tun::Builder::new(ROOT)
        .unit(29)
        .address("10.0.29.1/24")
        .mtu(1420)
        .route("10.29.0.0/16")
        .build()
        .expect("build");
    assert_eq!(tunnel.mtu().expect("TUNGIFINFO"), 1420);
    let mut outgoing = Outgoing::new(tunnel.format(), 0);
    let sizes = [84, 500, 1400];
    for (sequence, size) in sizes.into_iter().enumerate() {
        let request = echo_request(29, sequence as u16, size);
        outgoing.push(&request).expect("room");
    }
    tunnel.send(&mut outgoing).expect("send");
    let mut incoming = Incoming::default();
    let mut got = 0;
    while got < sizes.len() {
        for reply in tunnel.recv(&mut incoming).expect("recv") {
            assert_echo_reply(reply, 29, got as u16, sizes[got]);
            got += 1;
        }
    }
    assert_eq!(tunnel.stats().expect("stats").ipackets, 3);
    drop(tunnel);
    let after = std::fs::read_to_string("/scheme/netcfg/route/list").expect("routes");
    assert_eq!(after, routes);
    assert_errno(tun::Stats::of(ROOT, "tun29"), libc::ENOENT);
}

#[cfg(no_c)]
fn c_header_through_relibc() {
    crate::harness::skip("no C compiler for Redox when this was built");
}

#[cfg(not(no_c))]
fn c_header_through_relibc() {
    use std::ffi::{CStr, c_char, c_int};

    unsafe extern "C" {
        fn if_tun_test(path: *const c_char, name: *const c_char, error: *mut c_int) -> c_int;
    }

    let _ = netcfg::put_if(29, "destroy", "1");
    let (path, name): (&CStr, &CStr) = (c"/scheme/tun/29", c"tun29");
    let mut error = 0;
    // SAFETY: two C strings and an int, which live until the call returns.
    let line = unsafe { if_tun_test(path.as_ptr(), name.as_ptr(), &raw mut error) };
    let error = std::io::Error::from_raw_os_error(error);
    assert!(line == 0, "if_tun.c:{line} ({error})");
}

//! `netisr`: packets of other protocols, and the program that takes them.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::IntoRawFd;
use std::time::Duration;

use event::EventFlags;

use crate::device::{Tun, assert_errno, bsd, open_path};
use crate::sys::{self, Events, fork};
use crate::{netcfg, tests};

const SOON: Duration = Duration::from_secs(1);
/// Families of IPX, as OpenBSD and FreeBSD number it.
const IPX: [u32; 2] = [23, 4];
const APPLETALK: u32 = 16;

tests![
    packets_of_other_protocols_have_a_program,
    packets_of_other_protocols_are_sent,
    reader_of_other_protocols_is_woken,
    only_one_program_takes_a_protocol,
    protocol_of_the_dead_is_taken_over,
];

fn path(name: &str) -> String {
    format!("/scheme/netisr/{name}")
}

/// A tunnel whose packets have their family before them.
fn tunnel() -> Tun {
    let tun = Tun::up(33);
    tun.set(bsd::TUNSIFHEAD, 1);
    tun
}

fn with_family(family: u32, packet: &[u8]) -> Vec<u8> {
    [&family.to_be_bytes()[..], packet].concat()
}

fn with_name(packet: &[u8]) -> Vec<u8> {
    [&b"tun33\0\0\0\0\0\0\0\0\0\0\0"[..], packet].concat()
}

fn read(file: &File) -> std::io::Result<Vec<u8>> {
    let mut packet = vec![0; 2000];
    let len = { file }.read(&mut packet)?;
    packet.truncate(len);
    Ok(packet)
}

fn packets_of_other_protocols_have_a_program() {
    assert_eq!(netcfg::names("/scheme/netisr"), ["atalk", "ipx"]);
    let tun = tunnel();
    let none = tun.write(&with_family(IPX[0], b"nobody"));
    assert_errno(none, libc::EAFNOSUPPORT);
    let program = open_path(&path("ipx")).expect("open");
    for family in IPX {
        let packet = with_family(family, b"a packet");
        assert_eq!(tun.write(&packet).expect("write"), packet.len());
        assert_eq!(read(&program).expect("read"), with_name(b"a packet"));
    }
    let other = tun.write(&with_family(APPLETALK, b"nobody"));
    assert_errno(other, libc::EAFNOSUPPORT);
    sys::set_flag(&program, libc::O_NONBLOCK, true);
    assert_errno(read(&program), libc::EAGAIN);
    tun.write(&with_family(IPX[0], b"not read")).expect("write");
    drop(program);
    assert_eq!(netcfg::stats(33)["drop.purged"], 1);
    let none = tun.write(&with_family(IPX[0], b"nobody"));
    assert_errno(none, libc::EAFNOSUPPORT);
    netcfg::assert_ledger_closes(33);
}

fn packets_of_other_protocols_are_sent() {
    let tun = tunnel();
    let mut program = open_path(&path("atalk")).expect("open");
    program.write_all(&with_name(b"hello")).expect("write");
    let sent = tun.read_now();
    assert_eq!(sent, with_family(5, b"hello"));
    assert_errno(program.write(b"short"), libc::EINVAL);
    tun.set(bsd::TUNSIFHEAD, 0);
    let headless = program.write(&with_name(b"hello"));
    assert_errno(headless, libc::EAFNOSUPPORT);
}

fn reader_of_other_protocols_is_woken() {
    let tun = tunnel();
    let program = open_path(&path("ipx")).expect("open");
    let events = Events::new();
    events.subscribe(&program, 1, EventFlags::READ);
    assert_eq!(events.next(Duration::from_millis(150)), None);
    tun.write(&with_family(IPX[0], b"one")).expect("write");
    assert_eq!(events.next(SOON), Some((1, EventFlags::READ)));
    assert_eq!(read(&program).expect("read"), with_name(b"one"));
    let again = program.try_clone().expect("another descriptor");
    let got = sys::background(move || read(&again));
    sys::pause(100);
    tun.write(&with_family(IPX[0], b"two")).expect("write");
    let got = got.recv_timeout(SOON).expect("the read ends");
    assert_eq!(got.expect("read"), with_name(b"two"));
}

fn only_one_program_takes_a_protocol() {
    let program = open_path(&path("ipx")).expect("open");
    assert_errno(open_path(&path("ipx")), libc::EBUSY);
    assert!(
        std::fs::metadata(path("ipx")).is_ok(),
        "stat claims nothing"
    );
    assert!(open_path(&path("atalk")).is_ok());
    drop(program);
    let child = fork(|_| {
        sys::become_user(1000);
        assert_errno(open_path(&path("ipx")), libc::EPERM);
    });
    child.finish();
    assert!(open_path(&path("ipx")).is_ok());
}

/// The system does not report the close of a descriptor that another thread reads.
fn protocol_of_the_dead_is_taken_over() {
    let tun = tunnel();
    for _ in 0..3 {
        let mut child = fork(|parent| {
            let fd = open_path(&path("ipx")).expect("open").into_raw_fd();
            let _got = sys::background(move || sys::read(fd, &mut [0; 100]));
            sys::pause(50);
            sys::close(fd).expect("close");
            parent.ready();
            sys::pause(10_000);
        });
        child.ready();
        sys::pause(50);
        assert_errno(open_path(&path("ipx")), libc::EBUSY);
        child.kill();
        let program = open_path(&path("ipx")).expect("open after the process is dead");
        tun.write(&with_family(IPX[0], b"mine")).expect("write");
        assert_eq!(read(&program).expect("read"), with_name(b"mine"));
    }
}

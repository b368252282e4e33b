//! The life of a handle: descriptors, last close, TUNSHUT, signals, death, other processes.

use std::ffi::c_int;
use std::fs;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::time::Duration;

use crate::device::{Tun, Wire, assert_errno, bsd, open_soon};
use crate::packet::{self, addresses, assert_echo_reply, echo_request, numbered};
use crate::sys::{self, Parent, fork};
use crate::{netcfg, tests};

const SOON: Duration = Duration::from_secs(1);

tests![
    last_close_takes_everything_down,
    settings_survive_the_close,
    descriptors_are_the_same_device,
    forked_processes_share_the_device,
    tunshut_gives_the_unit_back,
    tunshut_ends_waits,
    tunshut_then_close_by_another_thread,
    signal_interrupts_a_read,
    signal_with_sa_restart_does_not,
    alarm_interrupts_a_read,
    interrupted_read_eats_no_packet,
    default_signal_ends_a_reader,
    default_signal_ends_whoever_waits,
    signal_that_was_not_noticed_comes_with_the_next,
    death_gives_the_unit_back,
    death_with_a_waiting_thread,
    death_of_one_of_two,
    handle_passed_to_another_process,
];

extern "C" fn nothing(_: c_int) {}

fn last_close_takes_everything_down() {
    let tun = Tun::up(26);
    tun.set(bsd::TUNSTRANSIENT, 0);
    netcfg::put("route/add", "172.30.0.0/16 via 10.0.26.2 dev tun26").expect("add a route");
    tun.inject(&[numbered(26, 1, 60), numbered(26, 2, 60)]);
    assert!(netcfg::get("route/list").contains("tun26"));
    assert!(netcfg::get_if(26, "flags").contains("UP"));
    drop(tun);
    assert_eq!(netcfg::get_if(26, "flags"), "POINTOPOINT,MULTICAST\n");
    assert_eq!(netcfg::get_if(26, "status"), "");
    assert!(!netcfg::get("route/list").contains("tun26"));
    assert_eq!(netcfg::stats(26)["drop.purged"], 2);
    netcfg::assert_ledger_closes(26);
    let tun = Tun::open(26).expect("open again");
    tun.assert_empty();
    // Addresses survive, and their routes come back with them.
    let (own, _) = addresses(26);
    assert_eq!(netcfg::get_if(26, "addr/list"), format!("{own}/24\n"));
    netcfg::put_if(26, "flags", "up").expect("up");
    assert!(netcfg::get("route/list").contains("10.0.26.0/24 dev tun26"));
    tun.write(&echo_request(26, 1, 84)).expect("write");
    assert_echo_reply(&tun.read_now(), 26, 1, 84);
    tun.set(bsd::TUNSTRANSIENT, 1);
}

fn settings_survive_the_close() {
    let tun = Tun::fresh(26);
    tun.set(bsd::TUNSTRANSIENT, 0);
    tun.set(bsd::TUNSIFHEAD, 1);
    tun.set(bsd::TUNSBATCH, 1);
    tun.set(bsd::TUNSIFMODE, 0x8002);
    tun.set(bsd::FIOSETOWN, sys::pid());
    netcfg::put_if(26, "mtu", "1400").expect("set the mtu");
    drop(tun);
    let tun = Tun::open(26).expect("open again");
    assert_eq!(tun.get(bsd::TUNGIFHEAD), 1);
    assert_eq!(tun.get(bsd::TUNGBATCH), 0);
    assert_eq!(tun.get(bsd::FIOGETOWN), 0);
    assert_eq!(netcfg::get_if(26, "flags"), "BROADCAST,MULTICAST\n");
    assert_eq!(netcfg::get_if(26, "mtu"), "1400\n");
    tun.set(bsd::TUNSTRANSIENT, 1);
}

fn descriptors_are_the_same_device() {
    let tun = Tun::up(26);
    let again = tun.again();
    again.set(bsd::TUNSIFHEAD, 1);
    assert_eq!(tun.get(bsd::TUNGIFHEAD), 1);
    drop(tun);
    assert_errno(Tun::open(26), libc::EBUSY);
    again.inject(&[numbered(26, 1, 60)]);
    assert_eq!(again.read_now().len(), 64);
    drop(again);
    assert!(!netcfg::exists(26), "the last close");
}

fn forked_processes_share_the_device() {
    let tun = Tun::up(26);
    let mut child = fork(|parent| {
        tun.write(&echo_request(26, 1, 84)).expect("write");
        assert_echo_reply(&tun.read_now(), 26, 1, 84);
        parent.ready();
        sys::pause(10_000);
    });
    child.ready();
    drop(tun);
    assert_errno(Tun::open(26), libc::EBUSY);
    child.kill();
    open_soon(26).set(bsd::TUNSTRANSIENT, 1);
}

fn tunshut_gives_the_unit_back() {
    let tun = Tun::up(26);
    tun.set(bsd::TUNSTRANSIENT, 0);
    tun.inject(&[numbered(26, 1, 60)]);
    tun.call(bsd::TUNSHUT, &mut []).expect("TUNSHUT");
    assert_errno(tun.read(100), libc::EHOSTDOWN);
    assert_errno(tun.write(&[0x45; 20]), libc::EHOSTDOWN);
    assert_errno(tun.call(bsd::TUNGIFHEAD, &mut [0; 4]), libc::EHOSTDOWN);
    assert_errno(tun.call(bsd::TUNSHUT, &mut []), libc::EHOSTDOWN);
    let next = Tun::open(26).expect("open at once");
    // The close of the old handle does not affect the new one.
    drop(tun);
    assert_errno(Tun::open(26), libc::EBUSY);
    netcfg::put_if(26, "flags", "up").expect("up");
    next.assert_empty();
    next.write(&echo_request(26, 1, 84)).expect("write");
    assert_echo_reply(&next.read_now(), 26, 1, 84);
    next.set(bsd::TUNSTRANSIENT, 1);
}

fn tunshut_ends_waits() {
    let tun = Tun::up(26);
    let readers: Vec<_> = (0..10)
        .map(|_| {
            let reader = tun.again();
            sys::background(move || reader.read(100))
        })
        .collect();
    sys::pause(150);
    tun.call(bsd::TUNSHUT, &mut []).expect("TUNSHUT");
    for reader in readers {
        let got = reader.recv_timeout(SOON).expect("the read ends");
        assert_errno(got, libc::EHOSTDOWN);
    }
}

fn tunshut_then_close_by_another_thread() {
    for _ in 0..20 {
        let tun = Tun::fresh(26);
        let shut = tun.again();
        let fd = tun.into_raw_fd();
        let got = sys::background(move || sys::read(fd, &mut [0; 100]));
        sys::pause(20);
        shut.call(bsd::TUNSHUT, &mut []).expect("TUNSHUT");
        sys::close(fd).expect("close");
        drop(shut);
        let got = got.recv_timeout(SOON).expect("the read ends");
        let errno = got.expect_err("an error").raw_os_error();
        let expected = [Some(libc::EHOSTDOWN), Some(libc::EBADF)];
        assert!(expected.contains(&errno), "{errno:?}");
        drop(Tun::open(26).expect("open at once"));
        let _ = netcfg::put_if(26, "destroy", "1");
    }
}

fn signal_interrupts_a_read() {
    let tun = Tun::up(26);
    let mut child = fork(|parent| {
        sys::on_signal(libc::SIGUSR1, nothing, false);
        parent.ready();
        assert_errno(tun.read(100), libc::EINTR);
        parent.ready();
        assert_errno(tun.read(100), libc::EINTR);
    });
    for _ in 0..2 {
        child.waiting();
        child.signal(libc::SIGUSR1);
    }
    child.finish();
    tun.inject(&[numbered(26, 1, 60)]);
    assert_eq!(packet::number(&tun.read_now()), 1);
}

fn signal_with_sa_restart_does_not() {
    let tun = Tun::up(26);
    let mut child = fork(|parent| {
        sys::on_signal(libc::SIGUSR1, nothing, true);
        parent.ready();
        let packet = tun.read(100).expect("read");
        assert_eq!(packet::number(&packet), 7);
    });
    child.waiting();
    for _ in 0..5 {
        child.signal(libc::SIGUSR1);
        sys::pause(30);
    }
    tun.inject(&[numbered(26, 7, 60)]);
    child.finish();
    tun.assert_empty();
}

fn alarm_interrupts_a_read() {
    sys::on_signal(libc::SIGALRM, nothing, false);
    let tun = Tun::fresh(26);
    // SAFETY: takes a number; the handler does nothing.
    unsafe { libc::alarm(1) };
    assert_errno(tun.read(100), libc::EINTR);
}

fn interrupted_read_eats_no_packet() {
    let tun = Tun::up(26);
    for number in 0..20 {
        let mut child = fork(|parent| {
            sys::on_signal(libc::SIGUSR1, nothing, false);
            parent.ready();
            match tun.read(100) {
                // The packet arrived before the signal.
                Ok(packet) => assert_eq!(packet::number(&packet), number),
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::EINTR), "{error}");
                    tun.set_nonblocking(true);
                    let read = || tun.read(100).is_ok();
                    assert!(sys::becomes(SOON, read), "packet {number} is lost");
                    tun.set_nonblocking(false);
                }
            }
        });
        child.ready();
        sys::pause(20);
        let wire = Wire::open(26);
        child.signal(libc::SIGUSR1);
        wire.send(&numbered(26, number, 60)).expect("inject");
        child.finish();
    }
    tun.assert_empty();
    netcfg::assert_ledger_closes(26);
}

fn default_signal_ends_a_reader() {
    let tun = Tun::up(26);
    let mut child = fork(|parent| {
        parent.ready();
        let _ = tun.read(100);
    });
    child.waiting();
    child.signal(libc::SIGTERM);
    assert_eq!(child.ended_by(SOON), Some(libc::SIGTERM));
    tun.inject(&[numbered(26, 1, 60)]);
    assert_eq!(packet::number(&tun.read_now()), 1);
}

/// Whatever the read is of, and what was open is free at once.
fn default_signal_ends_whoever_waits() {
    type Wait = fn(&Parent);
    let waits: [(&str, Wait); 4] = [
        ("tun", wait_in_a_unit),
        ("udp", |parent| {
            let socket = UdpSocket::bind("127.0.0.1:5926").expect("bind");
            parent.ready();
            let _ = socket.recv(&mut [0; 100]);
        }),
        ("netisr", |parent| {
            let file = sys::open("/scheme/netisr/ipx", libc::O_RDWR).expect("open");
            parent.ready();
            let _ = sys::read(file.as_raw_fd(), &mut [0; 100]);
        }),
        ("events", |parent| {
            let file = fs::File::open(netcfg::path("ifaces/lo0/events")).expect("open");
            parent.ready();
            let _ = sys::read(file.as_raw_fd(), &mut [0; 100]);
        }),
    ];
    let _ = netcfg::put_if(26, "destroy", "1");
    for (name, wait) in waits {
        for _ in 0..5 {
            let mut child = fork(wait);
            child.waiting();
            child.signal(libc::SIGTERM);
            assert_eq!(child.ended_by(SOON), Some(libc::SIGTERM), "{name}");
        }
    }
    netcfg::put_if(26, "destroy", "1").expect("destroy");
}

/// While others are busy, a signal may come when a read has begun and does not sleep yet: the kernel
/// does not look again, and tells nobody. The next signal finds the reader asleep. Whichever ends it,
/// its unit is free.
fn signal_that_was_not_noticed_comes_with_the_next() {
    let _ = netcfg::put_if(26, "destroy", "1");
    let busy: Vec<_> = (0..2)
        .map(|_| {
            fork(|_| {
                loop {
                    netcfg::get("ip/forwarding");
                }
            })
        })
        .collect();
    for _ in 0..30 {
        let mut child = fork(wait_in_a_unit);
        child.ready();
        child.signal(libc::SIGTERM);
        if child.ended_by(SOON).is_none() {
            child.signal(libc::SIGUSR1);
            let ended = child.ended_by(5 * SOON).expect("the next signal ends it");
            assert!([libc::SIGTERM, libc::SIGUSR1].contains(&ended), "{ended}");
        }
        drop(open_soon(26));
    }
    busy.into_iter().for_each(sys::Child::kill);
    netcfg::put_if(26, "destroy", "1").expect("destroy");
}

fn wait_in_a_unit(parent: &Parent) {
    let tun = Tun::open(26).expect("open");
    parent.ready();
    let _ = tun.read(100);
}

fn death_gives_the_unit_back() {
    type Death = fn();
    let deaths: [(&str, Death); 4] = [
        ("_exit", || sys::exit_now(3)),
        ("abort", || std::process::abort()),
        ("kill -9", || {
            sys::kill(sys::pid(), libc::SIGKILL).expect("kill")
        }),
        ("SIGSEGV", || {
            sys::kill(sys::pid(), libc::SIGSEGV).expect("kill")
        }),
    ];
    let _ = netcfg::put_if(26, "destroy", "1");
    for (name, death) in deaths {
        let mut child = fork(|parent| {
            let tun = Tun::open(26).expect("open");
            tun.set(bsd::TUNSBATCH, 1);
            parent.ready();
            death();
            drop(tun);
        });
        child.ready();
        drop(child);
        let free = || Tun::open(26).is_ok();
        assert!(sys::becomes(SOON, free), "after {name}");
    }
    netcfg::put_if(26, "destroy", "1").expect("destroy");
}

fn death_with_a_waiting_thread() {
    let _ = netcfg::put_if(26, "destroy", "1");
    for _ in 0..5 {
        let mut child = fork(|parent| {
            let tun = Tun::open(26).expect("open");
            let reader = tun.again();
            let _got = sys::background(move || reader.read(100));
            sys::pause(50);
            parent.ready();
            sys::pause(10_000);
            drop(tun);
        });
        child.ready();
        assert_errno(Tun::open(26), libc::EBUSY);
        child.kill();
        drop(open_soon(26));
    }
    netcfg::put_if(26, "destroy", "1").expect("destroy");
}

fn death_of_one_of_two() {
    let tun = Tun::up(26);
    let mut child = fork(|parent| {
        tun.get(bsd::TUNGIFHEAD);
        parent.ready();
        sys::pause(10_000);
    });
    child.ready();
    child.kill();
    sys::pause(50);
    assert_errno(Tun::open(26), libc::EBUSY);
    tun.write(&echo_request(26, 1, 84)).expect("write");
    assert_echo_reply(&tun.read_now(), 26, 1, 84);
}

fn handle_passed_to_another_process() {
    let (here, there) = sys::socket_pair();
    let tun = Tun::up(26);
    let mut child = fork(|parent| {
        let file = sys::receive_fd(&there).expect("receive");
        let tun = Tun { file, unit: 26 };
        assert_eq!(sys::fpath(&tun).expect("fpath"), "/scheme/tun/26");
        tun.write(&echo_request(26, 1, 84)).expect("write");
        assert_echo_reply(&tun.read_now(), 26, 1, 84);
        tun.call(bsd::TUNSIFPID, &mut []).expect("TUNSIFPID");
        parent.ready();
        sys::pause(10_000);
    });
    // The child has a copy from the fork, too, which must not count.
    sys::send_fd(&here, tun.as_raw_fd()).expect("send");
    child.ready();
    let status = format!("\tOpened by PID {}\n", child.pid);
    assert_eq!(netcfg::get_if(26, "status"), status);
    // Sending moves the descriptor.
    std::mem::forget(tun);
    assert_errno(Tun::open(26), libc::EBUSY);
    child.kill();
    open_soon(26).set(bsd::TUNSTRANSIENT, 1);
}

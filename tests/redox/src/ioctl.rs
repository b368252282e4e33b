//! Device controls, as Redox carries them.

use std::ffi::c_int;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::device::{Tun, assert_errno, bsd, linux};
use crate::packet::{number, numbered};
use crate::sys::{self, fork};
use crate::{netcfg, tests};

tests![
    ioctl_in_both_encodings,
    ioctl_of_the_wrong_size,
    ioctl_unknown,
    ioctl_ifinfo,
    ioctl_ifmode,
    ioctl_ifpid,
    ioctl_ifhead_excludes_lmode,
    ioctl_ifname_by_both_numbers,
    ioctl_transient,
    ioctl_debug_is_one_switch,
    ioctl_owner,
    ioctl_owner_of_another_session,
    ioctl_pgrp_is_the_owner_negated,
    dup_pgrp,
    dup_of_other_verbs,
    tty_call_pgrp,
    pgrp_through_relibc,
    sigio,
    sigio_by_o_async,
    sigio_ignored,
];

fn ioctl_in_both_encodings() {
    let tun = Tun::fresh(22);
    let pairs = [
        (bsd::TUNSIFHEAD, bsd::TUNGIFHEAD),
        (bsd::TUNSTRANSIENT, bsd::TUNGTRANSIENT),
        (bsd::TUNSBATCH, bsd::TUNGBATCH),
    ];
    for (set, get) in pairs {
        for (set, get) in [(set, get), (linux(set), linux(get)), (set, linux(get))] {
            tun.set(set, 0);
            assert_eq!(tun.get(get), 0, "{set:#x}");
            // Any number but zero means on, and reads back as one.
            tun.set(set, -5);
            assert_eq!(tun.get(get), 1, "{set:#x}");
        }
        tun.set(set, 0);
    }
    for request in [bsd::TUNSIFPID, linux(bsd::TUNSIFPID)] {
        assert_eq!(tun.call(request, &mut []).expect("TUNSIFPID"), 0);
    }
    let others = [
        (bsd::TUNGDEBUG, 4),
        (bsd::TUNGIFINFO, 8),
        (bsd::TUNGIFNAME, 32),
        (bsd::TUNGIFNAME_FREEBSD, 32),
        (bsd::FIONBIO, 4),
        (bsd::FIOASYNC, 4),
        (bsd::FIONREAD, 4),
        (bsd::FIOGETOWN, 4),
        (bsd::FIOSETOWN, 4),
        (bsd::TIOCGPGRP, 4),
        (bsd::TIOCSPGRP, 4),
        (bsd::TUNSLMODE, 4),
    ];
    for (request, size) in others {
        for request in [request, linux(request)] {
            let done = tun.call(request, &mut vec![0; size]);
            assert_eq!(done.expect("a known request"), 0, "{request:#x}");
        }
    }
    tun.set(linux(bsd::TUNSTRANSIENT), 1);
}

fn ioctl_of_the_wrong_size() {
    let tun = Tun::fresh(22);
    let requests = [
        (bsd::TUNSIFHEAD, 4),
        (bsd::TUNGIFHEAD, 4),
        (bsd::TUNSIFINFO, 8),
        (bsd::TUNGIFINFO, 8),
        (bsd::TUNGIFNAME, 32),
        (bsd::TUNSIFPID, 0),
        (bsd::TUNSHUT, 0),
        (bsd::FIONREAD, 4),
        (bsd::TIOCSPGRP, 4),
    ];
    for (request, size) in requests {
        for wrong in [0, 1, 3, 5, 7, 9, 31, 33, 4096] {
            if wrong != size {
                let done = tun.call(request, &mut vec![1; wrong]);
                assert_errno(done, libc::EINVAL);
            }
        }
    }
    assert_eq!(tun.get(bsd::TUNGIFHEAD), 0);
}

fn ioctl_unknown() {
    let tun = Tun::fresh(22);
    let unknown: [u64; 9] = [
        0,
        0x5401,
        0x8004_7400,
        0x8001_7460,
        0x8008_7460,
        0x4004_7461 + 0x40_0000,
        0x4004_74ff,
        0x1_8004_7460,
        u64::MAX,
    ];
    for request in unknown {
        let done = sys::call(&tun, &mut [1, 0, 0, 0], &[request]);
        assert_errno(done, libc::ENOTTY);
    }
    assert_eq!(tun.get(bsd::TUNGIFHEAD), 0);
}

fn ioctl_ifinfo() {
    let tun = Tun::fresh(22);
    let mut info = [0xee; 8];
    tun.call(bsd::TUNGIFINFO, &mut info).expect("TUNGIFINFO");
    let [m0, m1] = 1500_u16.to_ne_bytes();
    assert_eq!(info, [0, 0, 0, 0, m0, m1, 0x17, 0]);
    let wanted = |mtu: u16| {
        let ([b0, b1, b2, b3], [m0, m1]) = (9600_i32.to_ne_bytes(), mtu.to_ne_bytes());
        [b0, b1, b2, b3, m0, m1, 0x53, 0]
    };
    for mtu in [0, 71] {
        assert_errno(tun.call(bsd::TUNSIFINFO, &mut wanted(mtu)), libc::EINVAL);
        tun.call(bsd::TUNGIFINFO, &mut info).expect("TUNGIFINFO");
        assert_eq!(info, [0, 0, 0, 0, m0, m1, 0x17, 0], "nothing changed");
    }
    for mtu in [72, 1400, u16::MAX] {
        tun.call(bsd::TUNSIFINFO, &mut wanted(mtu))
            .expect("TUNSIFINFO");
        tun.call(bsd::TUNGIFINFO, &mut info).expect("TUNGIFINFO");
        assert_eq!(info, wanted(mtu));
        assert_eq!(netcfg::get_if(22, "mtu"), format!("{mtu}\n"));
    }
}

fn ioctl_ifmode() {
    const POINTOPOINT: i32 = 0x10;
    const BROADCAST: i32 = 0x2;

    let tun = Tun::fresh(22);
    let modes = [
        (BROADCAST, "BROADCAST\n"),
        (BROADCAST | 0x8000, "BROADCAST,MULTICAST\n"),
        (POINTOPOINT, "POINTOPOINT\n"),
        (POINTOPOINT | 0x1000, "POINTOPOINT,MULTICAST\n"),
    ];
    for (mode, flags) in modes {
        tun.set(bsd::TUNSIFMODE, mode);
        assert_eq!(netcfg::get_if(22, "flags"), flags);
    }
    for mode in [
        0,
        POINTOPOINT | BROADCAST,
        0x8000,
        1,
        -1,
        POINTOPOINT | 0x40,
    ] {
        assert_errno(tun.try_set(bsd::TUNSIFMODE, mode), libc::EINVAL);
    }
    netcfg::put_if(22, "addr/set", "10.0.22.1/24").expect("set the address");
    assert_errno(tun.try_set(bsd::TUNSIFMODE, BROADCAST), libc::EBUSY);
    netcfg::put_if(22, "flags", "down").expect("down");
    tun.set(bsd::TUNSIFMODE, POINTOPOINT);
}

fn ioctl_ifpid() {
    let tun = Tun::fresh(22);
    let mut child = fork(|parent| {
        tun.call(bsd::TUNSIFPID, &mut []).expect("TUNSIFPID");
        parent.ready();
        sys::pause(10_000);
    });
    child.ready();
    let status = format!("\tOpened by PID {}\n", child.pid);
    assert_eq!(netcfg::get_if(22, "status"), status);
}

fn ioctl_ifhead_excludes_lmode() {
    let tun = Tun::fresh(22);
    tun.set(bsd::TUNSIFHEAD, 1);
    tun.set(bsd::TUNSLMODE, 0);
    assert_eq!(tun.get(bsd::TUNGIFHEAD), 1, "off leaves the other alone");
    tun.set(bsd::TUNSLMODE, 1);
    assert_eq!(tun.get(bsd::TUNGIFHEAD), 0);
    tun.set(bsd::TUNSIFHEAD, 1);
    netcfg::put_if(22, "addr/set", "10.0.22.1/24").expect("set the address");
    tun.inject(&[numbered(22, 1, 60)]);
    assert_eq!(tun.read_now().len(), 64, "the family only");
}

fn ioctl_ifname_by_both_numbers() {
    let tun = Tun::fresh(22);
    for request in [bsd::TUNGIFNAME, bsd::TUNGIFNAME_FREEBSD] {
        let mut name = [0xee; 32];
        tun.call(request, &mut name).expect("TUNGIFNAME");
        assert_eq!(&name[..16], b"tun22\0\0\0\0\0\0\0\0\0\0\0");
    }
}

fn ioctl_transient() {
    let tun = Tun::fresh(22);
    assert_eq!(tun.get(bsd::TUNGTRANSIENT), 1);
    drop(tun);
    assert!(!netcfg::exists(22));
    let tun = Tun::open(22).expect("open");
    assert_eq!(tun.get(bsd::TUNGTRANSIENT), 0, "a new interface");
    drop(tun);
    assert!(netcfg::exists(22));
    netcfg::put_if(22, "destroy", "1").expect("destroy");
}

fn ioctl_debug_is_one_switch() {
    let tun = Tun::fresh(22);
    tun.set(bsd::TUNSDEBUG, 1);
    let other = Tun::fresh(23);
    assert_eq!(other.get(bsd::TUNGDEBUG), 1);
    assert_eq!(netcfg::get("debug/if_tun_debug"), "1\n");
    netcfg::put("debug/if_tun_debug", "0").expect("switch it off");
    assert_eq!(tun.get(bsd::TUNGDEBUG), 0);
}

fn ioctl_owner() {
    let tun = Tun::fresh(22);
    assert_eq!(tun.get(bsd::FIOGETOWN), 0);
    for owner in [sys::pid(), -sys::group(), 0] {
        tun.set(bsd::FIOSETOWN, owner);
        assert_eq!(tun.get(bsd::FIOGETOWN), owner);
    }
    let dead = fork(|_| ());
    let pid = dead.pid;
    dead.finish();
    for nobody in [pid, -pid, i32::MAX, i32::MIN] {
        assert_errno(tun.try_set(bsd::FIOSETOWN, nobody), libc::ESRCH);
    }
    assert_eq!(tun.get(bsd::FIOGETOWN), 0);
}

fn ioctl_owner_of_another_session() {
    let tun = Tun::fresh(22);
    let mut child = fork(|parent| {
        sys::new_session();
        parent.ready();
        sys::pause(10_000);
    });
    child.ready();
    assert_errno(tun.try_set(bsd::FIOSETOWN, child.pid), libc::EPERM);
    assert_errno(tun.try_set(bsd::FIOSETOWN, -child.pid), libc::EPERM);
    assert_eq!(tun.get(bsd::FIOGETOWN), 0);
}

fn ioctl_pgrp_is_the_owner_negated() {
    let tun = Tun::fresh(22);
    let group = sys::group();
    tun.set(bsd::TIOCSPGRP, group);
    assert_eq!(tun.get(bsd::TIOCGPGRP), group);
    assert_eq!(tun.get(bsd::FIOGETOWN), -group);
    tun.set(bsd::FIOSETOWN, sys::pid());
    assert_eq!(tun.get(bsd::TIOCGPGRP), -sys::pid());
    assert_errno(tun.try_set(bsd::TIOCSPGRP, i32::MIN), libc::EINVAL);
}

fn dup_pgrp() {
    let tun = Tun::fresh(22);
    let group = sys::group();
    let mut pgrp = sys::dup(&tun, "pgrp").expect("dup pgrp");
    pgrp.write_all(&group.to_ne_bytes()).expect("set the group");
    assert_eq!(tun.get(bsd::FIOGETOWN), -group);
    let mut got = [0; 4];
    let mut pgrp = sys::dup(&tun, "pgrp").expect("dup pgrp");
    pgrp.read_exact(&mut got).expect("get the group");
    assert_eq!(i32::from_ne_bytes(got), group);
    assert_errno(pgrp.write(&[0; 3]), libc::EINVAL);
    // The file of the group is not the device.
    drop(tun);
    assert_errno(pgrp.read(&mut got), libc::EHOSTDOWN);
    drop(pgrp);
    Tun::fresh(22);
}

fn dup_of_other_verbs() {
    let tun = Tun::fresh(22);
    for verb in ["termios", "winsize", "x", "pgrp ", "listen", "/pgrp"] {
        assert_errno(sys::dup(&tun, verb), libc::EINVAL);
    }
    assert!(!std::io::IsTerminal::is_terminal(&tun.file));
}

fn tty_call_pgrp() {
    const PGRP: u64 = 6;

    let tun = Tun::fresh(22);
    let group = sys::group();
    sys::call(&tun, &mut group.to_ne_bytes(), &[PGRP, 1]).expect("set the group");
    assert_eq!(tun.get(bsd::FIOGETOWN), -group);
    let mut got = [0; 4];
    sys::call(&tun, &mut got, &[PGRP, 0]).expect("get the group");
    assert_eq!(i32::from_ne_bytes(got), group);
    assert_errno(sys::call(&tun, &mut [0; 3], &[PGRP, 1]), libc::EINVAL);
    assert_errno(sys::call(&tun, &mut [0; 8], &[PGRP, 0]), libc::EINVAL);
}

fn pgrp_through_relibc() {
    let tun = Tun::fresh(22);
    let group = sys::group();
    sys::tcsetpgrp(&tun, group).expect("tcsetpgrp");
    assert_eq!(tun.get(bsd::FIOGETOWN), -group);
    assert_eq!(sys::tcgetpgrp(&tun).expect("tcgetpgrp"), group);
}

static SIGNALS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(_: c_int) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

fn signalled(times: usize) -> bool {
    sys::becomes(Duration::from_secs(1), || {
        SIGNALS.load(Ordering::Relaxed) >= times
    })
}

fn sigio() {
    sys::on_signal(libc::SIGIO, count, true);
    let tun = Tun::up(22);
    tun.set(bsd::FIOSETOWN, sys::pid());
    tun.inject(&[numbered(22, 1, 60)]);
    assert!(!signalled(1), "without FIOASYNC");
    tun.set(bsd::FIOASYNC, 1);
    tun.inject(&[numbered(22, 2, 60)]);
    assert!(signalled(1));
    // The signal is sent for every packet, not only for the first.
    tun.inject(&[numbered(22, 3, 60)]);
    assert!(signalled(2));
    tun.set(bsd::FIOSETOWN, -sys::group());
    tun.inject(&[numbered(22, 4, 60)]);
    assert!(signalled(3));
    tun.set(bsd::FIOASYNC, 0);
    tun.inject(&[numbered(22, 5, 60)]);
    sys::pause(100);
    assert_eq!(SIGNALS.load(Ordering::Relaxed), 3);
}

fn sigio_by_o_async() {
    sys::on_signal(libc::SIGIO, count, true);
    let tun = Tun::up(22);
    tun.set(bsd::FIOSETOWN, sys::pid());
    sys::set_flag(&tun, libc::O_ASYNC, true);
    let before = SIGNALS.load(Ordering::Relaxed);
    tun.inject(&[numbered(22, 1, 60)]);
    assert!(signalled(before + 1));
    sys::set_flag(&tun, libc::O_ASYNC, false);
    let before = SIGNALS.load(Ordering::Relaxed);
    tun.inject(&[numbered(22, 2, 60)]);
    sys::pause(100);
    assert_eq!(SIGNALS.load(Ordering::Relaxed), before);
}

/// A group that ignores SIGIO: sleeping and waiting processes are not interrupted.
fn sigio_ignored() {
    let tun = Tun::up(22);
    let mut sleeper = fork(|parent| {
        sys::new_group();
        sys::ignore(libc::SIGIO);
        parent.ready();
        sys::pause(400);
        parent.ready();
    });
    sleeper.ready();
    tun.set(bsd::FIOSETOWN, -sleeper.pid);
    tun.set(bsd::FIOASYNC, 1);
    for number in 0..3 {
        tun.inject(&[numbered(22, number, 60)]);
        sys::pause(30);
    }
    sleeper.ready();
    sleeper.finish();
    tun.set(bsd::FIOSETOWN, 0);
    tun.set(bsd::FIOASYNC, 0);
    while tun.get(bsd::FIONREAD) != 0 {
        tun.read_now();
    }
    let mut waiter = fork(|parent| {
        sys::new_group();
        sys::ignore(libc::SIGIO);
        parent.ready();
        let packet = tun.read(100).expect("read");
        assert_eq!(number(&packet), 9);
    });
    waiter.waiting();
    sys::kill(-waiter.pid, libc::SIGIO).expect("kill");
    sys::pause(50);
    tun.inject(&[numbered(22, 9, 60)]);
    waiter.finish();
}

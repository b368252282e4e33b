//! Opening, listing and describing devices.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use crate::device::{Tun, assert_errno, bsd, open_path, path};
use crate::sys::{self, fork};
use crate::{netcfg, packet, tests};

tests![
    open_makes_an_interface,
    open_is_exclusive,
    open_is_for_root,
    open_takes_exact_names_only,
    open_takes_the_highest_unit,
    open_by_the_old_spelling,
    open_relative_to_a_directory,
    open_clone_takes_the_lowest_free,
    open_right_after_close,
    list_has_clone_and_units,
    directories_are_read_only,
    stat_claims_nothing,
    fstat_is_a_character_device,
    fpath_names_the_unit,
    access_modes_are_enforced,
];

fn open_makes_an_interface() {
    let _ = netcfg::put_if(7, "destroy", "1");
    assert!(!netcfg::exists(7));
    let tun = Tun::open(7).expect("open");
    assert!(netcfg::exists(7));
    assert_eq!(netcfg::get_if(7, "flags"), "POINTOPOINT,MULTICAST\n");
    assert_eq!(netcfg::get_if(7, "mtu"), "1500\n");
    assert_eq!(netcfg::get_if(7, "addr/list"), "");
    let status = format!("\tOpened by PID {}\n", sys::pid());
    assert_eq!(netcfg::get_if(7, "status"), status);
    drop(tun);
    assert!(netcfg::exists(7), "the interface stays");
    assert_eq!(netcfg::get_if(7, "status"), "");
    netcfg::put_if(7, "destroy", "1").expect("destroy");
    assert!(!netcfg::exists(7));
}

fn open_is_exclusive() {
    let tun = Tun::fresh(3);
    assert_errno(Tun::open(3), libc::EBUSY);
    assert_errno(Tun::open_with(3, libc::O_RDONLY), libc::EBUSY);
    fork(|_| assert_errno(Tun::open(3), libc::EBUSY)).finish();
    drop(tun);
    Tun::open(3).expect("open after close");
}

fn open_is_for_root() {
    let _tun = Tun::fresh(3);
    let child = fork(|_| {
        sys::become_user(1000);
        assert_errno(Tun::open(4), libc::EPERM);
        assert_errno(Tun::open_with(4, libc::O_RDONLY), libc::EPERM);
        assert_errno(open_path("/scheme/tun/clone"), libc::EPERM);
        // Nor is the caller told which process has it open.
        assert_errno(Tun::open(3), libc::EPERM);
        netcfg::names("/scheme/tun");
    });
    child.finish();
    assert!(!netcfg::exists(4), "a refused open made an interface");
}

fn open_takes_exact_names_only() {
    let names = [
        "00",
        "01",
        "+1",
        "-1",
        " 1",
        "1 ",
        "x",
        "0x0",
        "32768",
        "65536",
        "4294967296",
        "./0",
        "0/",
        "0/.",
        "/0",
        "//0",
        "../tun/0",
        "0/../0",
        "0/x",
        "clone/",
        "Clone",
        "\u{0661}",
        ".",
        "..",
        "./",
        "../tun/",
    ];
    for name in names {
        for prefix in ["/scheme/tun/", "tun:"] {
            // relibc itself takes a slash after the colon for the start of a path.
            let path = format!("{prefix}{name}");
            match open_path(&path) {
                Ok(_) => panic!("{path:?} opened"),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => panic!("{path:?}: {error} where it should be ENOENT"),
            }
        }
        if matches!(name, "." | ".." | "./" | "../tun/") {
            continue;
        }
        let stat = fs::metadata(format!("/scheme/tun/{name}"));
        assert!(stat.is_err(), "stat of {name:?} told {stat:?}");
    }
}

fn open_takes_the_highest_unit() {
    let tun = Tun::fresh(32767);
    let mut name = [0; 32];
    tun.call(bsd::TUNGIFNAME, &mut name).expect("TUNGIFNAME");
    assert_eq!(&name[..9], b"tun32767\0");
}

fn open_by_the_old_spelling() {
    let tun = open_path("tun:5").expect("open tun:5");
    assert_errno(Tun::open(5), libc::EBUSY);
    drop(tun);
    Tun::fresh(5);
}

fn open_relative_to_a_directory() {
    let dir = sys::open("/scheme/tun", libc::O_RDONLY | libc::O_DIRECTORY).expect("directory");
    let tun = sys::openat(&dir, "6", libc::O_RDWR).expect("openat");
    assert_errno(Tun::open(6), libc::EBUSY);
    assert_errno(sys::openat(&tun, "6", libc::O_RDWR), libc::ENOTDIR);
    assert_errno(sys::openat(&dir, "./6", libc::O_RDWR), libc::ENOENT);
    assert_errno(sys::openat(&dir, "../tun/6", libc::O_RDWR), libc::ENOENT);
    drop(tun);
    let child = fork(|_| {
        std::env::set_current_dir("/scheme/tun").expect("chdir");
        let _tun = open_path("6").expect("open in the directory");
        assert_errno(Tun::open(6), libc::EBUSY);
    });
    child.finish();
    Tun::fresh(6);
}

fn open_clone_takes_the_lowest_free() {
    let zero = Tun::fresh(0);
    let two = Tun::fresh(2);
    let clone = open_path("/scheme/tun/clone").expect("open clone");
    assert_eq!(sys::fpath(&clone).expect("fpath"), "/scheme/tun/1");
    let mut name = [0xff; 32];
    sys::call(&clone, &mut name, &[bsd::TUNGIFNAME.into()]).expect("TUNGIFNAME");
    assert_eq!(&name[..5], b"tun1\0");
    let next = open_path("/scheme/tun/clone").expect("open clone again");
    assert_eq!(sys::fpath(&next).expect("fpath"), "/scheme/tun/3");
    drop(zero);
    let lowest = open_path("/scheme/tun/clone").expect("open clone again");
    assert_eq!(sys::fpath(&lowest).expect("fpath"), "/scheme/tun/0");
    drop((two, clone, next, lowest));
    for unit in 0..4 {
        let _ = netcfg::put_if(unit, "destroy", "1");
    }
}

fn open_right_after_close() {
    let first = Tun::fresh(8);
    drop(first);
    for round in 0..200 {
        match Tun::open(8) {
            Ok(tun) => drop(tun),
            Err(error) => panic!("open {round} after a close: {error}"),
        }
    }
    Tun::fresh(8);
}

fn list_has_clone_and_units() {
    let _tuns = [Tun::fresh(11), Tun::fresh(200)];
    for path in ["/scheme/tun", "/scheme/tun/"] {
        let names = netcfg::names(path);
        for name in ["clone", "11", "200"] {
            assert!(names.iter().any(|other| other == name), "{names:?}");
        }
        assert!(!names.contains(&"12".to_owned()), "{names:?}");
    }
    let devices = fs::read_dir("/scheme/tun").expect("list");
    for entry in devices.map(|entry| entry.expect("an entry")) {
        assert!(!entry.file_type().expect("a type").is_dir());
    }
}

fn directories_are_read_only() {
    assert_errno(open_path("/scheme/tun"), libc::EISDIR);
    let dir = sys::open("/scheme/tun", libc::O_RDONLY).expect("open the directory");
    assert_errno(
        sys::read(std::os::fd::AsRawFd::as_raw_fd(&dir), &mut [0; 8]),
        libc::EISDIR,
    );
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    let _tun = Tun::fresh(9);
    assert_errno(sys::open("/scheme/tun/9", flags), libc::ENOTDIR);
    assert!(fs::remove_file("/scheme/tun/9").is_err());
    assert!(netcfg::exists(9));
}

fn stat_claims_nothing() {
    let _ = netcfg::put_if(9, "destroy", "1");
    for path in ["/scheme/tun/9", "/scheme/tun/clone"] {
        let stat = fs::metadata(path).expect("stat");
        assert!(stat.file_type().is_char_device(), "{:?}", stat.file_type());
        assert_eq!(stat.mode() & 0o7777, 0o600, "{path}");
        assert_eq!((stat.uid(), stat.gid()), (0, 0), "{path}");
    }
    assert!(!netcfg::exists(9), "stat made an interface");
    let tun = Tun::up(9);
    tun.inject(&[packet::numbered(9, 1, 50)]);
    for _ in 0..10 {
        fs::metadata(path(9)).expect("stat of a unit in use");
    }
    let stat_only = sys::open(&path(9), libc::O_PATH).expect("open for stat");
    drop(stat_only);
    let child = fork(|_| {
        sys::become_user(1000);
        fs::metadata(path(9)).expect("stat as a user");
    });
    child.finish();
    assert_eq!(packet::number(&tun.read_now()), 1);
    assert_errno(Tun::open(9), libc::EBUSY);
    assert_errno(fs::metadata("/scheme/tun/32768"), libc::ENOENT);
    assert!(fs::metadata("/scheme/tun").expect("stat").is_dir());
}

fn fstat_is_a_character_device() {
    let tun = Tun::fresh(9);
    let stat = tun.file.metadata().expect("fstat");
    assert!(stat.file_type().is_char_device(), "{:?}", stat.file_type());
    assert_eq!(stat.mode() & 0o7777, 0o600);
    assert_eq!((stat.uid(), stat.gid(), stat.len()), (0, 0, 0));
}

fn fpath_names_the_unit() {
    let tun = Tun::fresh(123);
    assert_eq!(sys::fpath(&tun).expect("fpath"), "/scheme/tun/123");
    let dir = sys::open("/scheme/netcfg/ifaces", libc::O_RDONLY).expect("directory");
    assert_eq!(sys::fpath(&dir).expect("fpath"), "/scheme/netcfg/ifaces");
}

fn access_modes_are_enforced() {
    drop(Tun::fresh(9));
    let reader = Tun::open_with(9, libc::O_RDONLY).expect("open for reading");
    assert_errno(reader.write(&packet::echo_request(9, 1, 60)), libc::EBADF);
    assert_errno(reader.write(&[]), libc::EBADF);
    reader.assert_empty();
    assert_eq!(reader.get(bsd::TUNGIFHEAD), 0);
    drop(reader);
    let writer = Tun::open_with(9, libc::O_WRONLY).expect("open for writing");
    netcfg::put_if(9, "addr/set", "10.0.9.1/24").expect("set the address");
    assert_eq!(
        writer
            .write(&packet::echo_request(9, 1, 60))
            .expect("write"),
        60
    );
    assert_eq!(writer.get(bsd::FIONREAD), 60);
    assert_errno(writer.read(100), libc::EBADF);
    assert_errno(writer.read(0), libc::EBADF);
    assert_eq!(
        writer.get(bsd::FIONREAD),
        60,
        "a refused read took a packet"
    );
    writer.set(bsd::TUNSTRANSIENT, 1);
}

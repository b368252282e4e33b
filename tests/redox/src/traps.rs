//! Peculiarities of Redox found by probing a running system: each breaks a daemon written for
//! another system.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::sync::mpsc;
use std::time::Duration;

use crate::device::{Tun, Wire, assert_errno, bsd, open_path, open_soon, path};
use crate::packet::{self, assert_echo_reply, echo_request, numbered};
use crate::process::daemon;
use crate::sys::{self, Child, fork};
use crate::{netcfg, tests};

const SOON: Duration = Duration::from_secs(1);

tests![
    close_lost_under_a_read,
    close_lost_under_writes,
    unit_of_the_dead_is_taken_over,
    unit_of_the_living_is_not,
    unit_of_a_zombie_is_taken_over,
    killed_reader_eats_no_packet,
    zombie_eats_no_packet,
    killed_readers_eat_no_packets,
    killed_reader_of_a_batch,
    killed_reader_with_a_living_one_behind,
    killed_reader_with_an_heir,
    killed_reader_with_an_heir_of_netisr,
    forged_uid_in_a_call,
    refused_responses,
    private_mapping_is_refused,
    descriptors_sent_to_a_device,
    odd_requests_are_answered,
    cancelled_calls,
    idle_daemon_sleeps,
];

/// In a child, a thread waits in a read while another closes the only descriptor: the system does
/// not report that close. The unit stays busy while the process lives, and is free when it is dead.
fn close_lost_under_a_read() {
    let _ = netcfg::put_if(30, "destroy", "1");
    for _ in 0..5 {
        let mut child = fork(|parent| {
            let fd = Tun::open(30).expect("open").into_raw_fd();
            let _got = sys::background(move || sys::read(fd, &mut [0; 100]));
            sys::pause(50);
            sys::close(fd).expect("close");
            parent.ready();
            sys::pause(10_000);
        });
        child.ready();
        sys::pause(50);
        assert_errno(Tun::open(30), libc::EBUSY);
        child.kill();
        // Already free now, not some time later.
        let tun = Tun::open(30).expect("open after the process is dead");
        tun.assert_empty();
        netcfg::put_if(30, "addr/set", "10.0.30.1/24").expect("set the address");
        tun.write(&echo_request(30, 1, 84)).expect("write");
        assert_echo_reply(&tun.read_now(), 30, 1, 84);
    }
    netcfg::put_if(30, "destroy", "1").expect("destroy");
}

fn close_lost_under_writes() {
    let _ = netcfg::put_if(30, "destroy", "1");
    for _ in 0..10 {
        let child = fork(|_| {
            let tun = Tun::open(30).expect("open");
            let fd = tun.into_raw_fd();
            let packet = [0x45; 20];
            let writer =
                sys::background(
                    move || {
                        while libredox::call::write(fd as usize, &packet).is_ok() {}
                    },
                );
            sys::pause(20);
            sys::close(fd).expect("close");
            let _ = writer.recv_timeout(SOON);
        });
        child.finish();
        drop(open_soon(30));
    }
    netcfg::put_if(30, "destroy", "1").expect("destroy");
}

/// A child opens the unit and passes it here, where it is not used. When the child is dead, so is
/// every process that used the handle: the unit may be opened again, and the old handle is down.
fn unit_of_the_dead_is_taken_over() {
    let _ = netcfg::put_if(30, "destroy", "1");
    let (child, old) = opened_by_a_child(30);
    assert_errno(Tun::open(30), libc::EBUSY);
    child.kill();
    let new = Tun::open(30).expect("take it over");
    assert_errno(old.read(100), libc::EHOSTDOWN);
    assert_errno(old.write(&[0x45; 20]), libc::EHOSTDOWN);
    assert_errno(old.call(bsd::TUNGIFHEAD, &mut [0; 4]), libc::EHOSTDOWN);
    assert_eq!(sys::poll(&old, libc::POLLIN, 1000), libc::POLLIN);
    drop(old);
    assert_errno(Tun::open(30), libc::EBUSY);
    new.set(bsd::TUNSTRANSIENT, 1);
    assert_eq!(new.get(bsd::TUNGIFHEAD), 0);
}

/// The same, but here the handle was used: this process is alive, so the unit is not taken over.
fn unit_of_the_living_is_not() {
    let _ = netcfg::put_if(30, "destroy", "1");
    let (child, tun) = opened_by_a_child(30);
    tun.set(bsd::TUNSTRANSIENT, 1);
    child.kill();
    let other = fork(|_| assert_errno(Tun::open(30), libc::EBUSY));
    other.finish();
    netcfg::put_if(30, "addr/set", "10.0.30.1/24").expect("set the address");
    tun.write(&echo_request(30, 1, 84)).expect("write");
    assert_echo_reply(&tun.read_now(), 30, 1, 84);
}

/// A child that opened a unit and passed it here.
fn opened_by_a_child(unit: u16) -> (Child, Tun) {
    let (here, there) = sys::socket_pair();
    let mut child = fork(|parent| {
        let tun = Tun::open(unit).expect("open");
        sys::send_fd(&there, tun.into_raw_fd()).expect("send");
        parent.ready();
        sys::pause(10_000);
    });
    child.ready();
    let file = sys::receive_fd(&here).expect("receive");
    (child, Tun { file, unit })
}

/// A process that begins to read a packet.
fn reader(tun: &Tun) -> Child {
    fork(|parent| {
        parent.ready();
        let _ = tun.read(100);
    })
}

/// Lets `count` processes wait for a packet, and kills them.
fn kill_readers(tun: &Tun, count: u32) {
    let mut readers: Vec<_> = (0..count).map(|_| reader(tun)).collect();
    readers.iter_mut().for_each(|reader| reader.ready());
    sys::pause(150);
    readers.into_iter().for_each(Child::kill);
}

fn killed_reader_eats_no_packet() {
    let tun = Tun::up(30);
    for number in 0..10 {
        let mut child = reader(&tun);
        child.waiting();
        child.kill();
        tun.inject(&[numbered(30, number, 60)]);
        tun.set_nonblocking(true);
        let mut packet = None;
        sys::becomes(SOON, || {
            packet = tun.read(100).ok();
            packet.is_some()
        });
        let packet = packet.unwrap_or_else(|| panic!("packet {number} went to the dead"));
        assert_eq!(packet::number(&packet), number);
        tun.set_nonblocking(false);
    }
    tun.assert_empty();
    netcfg::assert_ledger_closes(30);
}

fn killed_readers_eat_no_packets() {
    const READERS: u32 = 6;

    let tun = Tun::up(30);
    kill_readers(&tun, READERS);
    let packets: Vec<_> = (0..READERS).map(|n| numbered(30, n, 60)).collect();
    tun.inject(&packets);
    for packet in packets {
        assert_eq!(tun.read_now(), packet);
    }
    tun.assert_empty();
    netcfg::assert_ledger_closes(30);
}

fn killed_reader_of_a_batch() {
    let tun = Tun::up(30);
    tun.set(bsd::TUNSBATCH, 1);
    let mut child = fork(|parent| {
        parent.ready();
        let _ = tun.read(65_536);
    });
    child.waiting();
    child.kill();
    let packets = [numbered(30, 1, 60), numbered(30, 2, 60)];
    tun.inject(&packets);
    let got: Vec<u8> = tun.read_now();
    assert_eq!(tun::batch::packets(&got).collect::<Vec<_>>(), packets);
}

fn killed_reader_with_a_living_one_behind() {
    let tun = Tun::up(30);
    let mut dead = reader(&tun);
    dead.waiting();
    let mut living = fork(|parent| {
        parent.ready();
        let packet = tun.read(100).expect("read");
        assert_eq!(packet::number(&packet), 5);
    });
    living.waiting();
    dead.kill();
    tun.inject(&[numbered(30, 5, 60)]);
    living.finish();
    tun.assert_empty();
}

/// A process opens a file, forks a child that does not use it yet, and is killed while it waits in a
/// read. `send` lets three packets come, of 41 to 43 bytes and what `head` is put before them.
fn heir_misses_nothing(open: fn() -> File, send: impl Fn(usize), head: usize) {
    const SIZES: [usize; 3] = [41, 42, 43];
    let (mut begins, begin) = sys::pipe();
    let (mut said, say) = sys::pipe();
    let mut parent = fork(|parent| {
        let file = open();
        // Nobody waits for it when its parent is dead: it ends by itself.
        std::mem::forget(fork(|_| {
            begins.read_exact(&mut [0]).expect("begin");
            sys::set_flag(&file, libc::O_NONBLOCK, true);
            let mut got = Vec::new();
            let mut read = || {
                let mut packet = [0; 100];
                let len = sys::read(file.as_raw_fd(), &mut packet);
                got.extend(len.map(|len| (len - head) as u8));
                got.len() == SIZES.len()
            };
            sys::becomes(SOON, &mut read);
            (&say).write_all(&got).expect("say what was read");
        }));
        parent.ready();
        let _ = sys::read(file.as_raw_fd(), &mut [0; 100]);
    });
    parent.waiting();
    parent.kill();
    SIZES.into_iter().for_each(send);
    (&begin).write_all(b"!").expect("begin");
    drop(say);
    let mut got = Vec::new();
    said.read_to_end(&mut got).expect("what was read");
    assert_eq!(got, SIZES.map(|size| size as u8), "the dead took the rest");
}

fn killed_reader_with_an_heir() {
    let _ = netcfg::put_if(30, "destroy", "1");
    let send = |size| {
        let wire = Wire::open(30);
        wire.send(&numbered(30, 1, size)).expect("inject");
    };
    for _ in 0..3 {
        heir_misses_nothing(|| Tun::up(30).file, send, 0);
        drop(open_soon(30));
    }
    netcfg::put_if(30, "destroy", "1").expect("destroy");
}

/// The same of the other files that hand each packet to one reader.
fn killed_reader_with_an_heir_of_netisr() {
    const IPX: u32 = 23;
    const NAME: usize = 16;

    let tun = Tun::up(30);
    tun.set(bsd::TUNSIFHEAD, 1);
    let send = |size| {
        let mut packet = IPX.to_be_bytes().to_vec();
        packet.resize(packet.len() + size, 7);
        tun.write(&packet).expect("write");
    };
    let open = || open_path("/scheme/netisr/ipx").expect("open");
    heir_misses_nothing(open, send, NAME);
}

/// On Redox the user in a `call` is chosen by the client.
fn forged_uid_in_a_call() {
    let tun = Tun::up(30);
    let child = fork(|_| {
        sys::become_user(1000);
        let info = {
            let [m0, m1] = 1400_u16.to_ne_bytes();
            [0, 0, 0, 0, m0, m1, 0x17, 0]
        };
        let words = [bsd::TUNSIFINFO.into(), 0, 0];
        for name in [
            "ifaces/tun30/mtu",
            "ifaces/tun30/flags",
            "ip/forwarding",
            "ifaces",
        ] {
            let file = File::open(netcfg::path(name)).expect("open for reading");
            assert!(
                sys::call(&file, &mut info.clone(), &words).is_err(),
                "{name}"
            );
            for verb in 0..20 {
                let _ = sys::call(&file, &mut b"1400\n".to_owned(), &[verb, 0, 0]);
                let _ = sys::call(&file, &mut b"1\n".to_owned(), &[verb, 1, 0]);
            }
            assert!(sys::openat(&file, "0", libc::O_RDWR).is_err(), "{name}");
        }
        let dir = sys::open("/scheme/tun", libc::O_RDONLY | libc::O_DIRECTORY).expect("directory");
        assert!(sys::call(&dir, &mut [1, 0, 0, 0], &[bsd::TUNSIFHEAD.into(), 0, 0]).is_err());
        assert_errno(sys::openat(&dir, "31", libc::O_RDWR), libc::EPERM);
    });
    child.finish();
    assert_eq!(netcfg::get_if(30, "mtu"), "1500\n");
    assert_eq!(netcfg::get("ip/forwarding"), "0\n");
    // Any process that has the descriptor of a device may use it, whatever user it claims to be.
    let words = [bsd::TUNSIFHEAD.into(), 0, 1000 | 1000 << 32];
    sys::call(&tun, &mut [1, 0, 0, 0], &words).expect("as root, whatever the words say");
    assert_eq!(tun.get(bsd::TUNGIFHEAD), 1);
}

/// Answers to operations of dead processes, which the kernel refuses.
fn refused_responses() {
    let before = daemon().map(|daemon| daemon.pid);
    for _ in 0..4 {
        let tun = Tun::up(30);
        kill_readers(&tun, 12);
        // Some get a packet, the rest get `EHOSTDOWN`.
        tun.inject(&[numbered(30, 1, 60), numbered(30, 2, 60)]);
        tun.read_now();
        tun.call(bsd::TUNSHUT, &mut []).expect("TUNSHUT");
    }
    // Events for descriptors that are closed.
    for _ in 0..20 {
        let tun = Tun::up(30);
        let poller = tun.again();
        let _polled = sys::background(move || sys::poll(&poller, libc::POLLIN, 300));
        sys::pause(5);
        tun.inject(&[numbered(30, 1, 60)]);
        tun.call(bsd::TUNSHUT, &mut []).expect("TUNSHUT");
    }
    sys::pause(400);
    assert_eq!(
        daemon().map(|daemon| daemon.pid),
        before,
        "it was restarted"
    );
    Tun::fresh(30);
}

fn private_mapping_is_refused() {
    let tun = Tun::up(30);
    let files = [
        tun.file.try_clone().expect("another descriptor"),
        File::open(netcfg::path("ifaces/tun30/mtu")).expect("open"),
        open_path("/scheme/bpf/tun30").expect("open"),
        sys::open("/scheme/tun", libc::O_RDONLY).expect("open"),
    ];
    for file in &files {
        // In a child: a descriptor that is accepted does not come back.
        let child = fork(|_| {
            let mapped = sys::map(file, libc::MAP_PRIVATE);
            assert!(mapped.is_err(), "a private mapping was accepted");
            // The page is never touched: the request only has to be answered.
            let _ = sys::map(file, libc::MAP_SHARED);
        });
        child.finish();
    }
    tun.write(&echo_request(30, 1, 84)).expect("write");
    assert_echo_reply(&tun.read_now(), 30, 1, 84);
}

fn descriptors_sent_to_a_device() {
    let tun = Tun::up(30);
    let text = File::open(netcfg::path("ip/forwarding")).expect("open");
    for number in 0..3 {
        let (read, write) = sys::pipe();
        let sent = write.into();
        let device = tun.again();
        let answered = match number {
            0 => sys::within(SOON, move || sys::send_to_server(&device, sent).is_ok()),
            1 => {
                let text = text.try_clone().expect("another descriptor");
                sys::within(SOON, move || sys::send_to_server(&text, sent).is_ok())
            }
            _ => sys::within(SOON, move || sys::receive_from_server(&device).is_ok()),
        };
        assert_eq!(answered, Some(false), "refused, not kept waiting");
        drop(read);
    }
    tun.write(&echo_request(30, 1, 84)).expect("write");
    assert_echo_reply(&tun.read_now(), 30, 1, 84);
}

/// All other requests that a program can make on a descriptor get an answer.
fn odd_requests_are_answered() {
    let tun = Tun::up(30);
    let (send, done) = mpsc::channel();
    let device = tun.again();
    std::thread::spawn(move || {
        let say = |what: &str| send.send(what.to_owned());
        let fd = device.as_raw_fd();
        say("ftruncate")?;
        let _ = device.file.set_len(0);
        say("fsync")?;
        let _ = device.file.sync_all();
        say("fchmod")?;
        let permissions = device.file.metadata().map(|stat| stat.permissions());
        if let Ok(permissions) = permissions {
            let _ = device.file.set_permissions(permissions);
        }
        say("flock")?;
        // SAFETY: takes numbers.
        unsafe { libc::flock(fd, libc::LOCK_EX | libc::LOCK_NB) };
        say("lseek")?;
        // SAFETY: takes numbers.
        unsafe { libc::lseek(fd, 100, libc::SEEK_SET) };
        say("getdents")?;
        let _ = fs::read_dir(path(30)).map(Iterator::count);
        say("unlink")?;
        let _ = fs::remove_file(path(30));
        say("rename")?;
        let _ = fs::rename(path(30), path(31));
        say("mkdir")?;
        let _ = fs::create_dir("/scheme/tun/x");
        say("fstatvfs")?;
        let _ = libredox::call::fstatvfs(fd as usize);
        say("futimens")?;
        let _ = device.file.set_modified(std::time::SystemTime::now());
        say("call without words")?;
        let _ = sys::call(&device, &mut [], &[]);
        say("end")
    });
    let mut last = String::new();
    loop {
        match done.recv_timeout(Duration::from_secs(2)) {
            Ok(what) if what == "end" => break,
            Ok(what) => last = what,
            Err(error) => panic!("{last}: {error}"),
        }
    }
    tun.write(&echo_request(30, 1, 84)).expect("write");
    assert_echo_reply(&tun.read_now(), 30, 1, 84);
}

/// Many signals at readers that come and go: every cancellation is answered once.
fn cancelled_calls() {
    extern "C" fn nothing(_: std::ffi::c_int) {}

    let tun = Tun::up(30);
    let mut child = fork(|parent| {
        sys::on_signal(libc::SIGUSR1, nothing, false);
        parent.ready();
        let mut got = 0;
        while got < 30 {
            match tun.read(100) {
                Ok(packet) => {
                    assert_eq!(packet::number(&packet), got);
                    got += 1;
                }
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EINTR), "{error}"),
            }
        }
    });
    child.ready();
    for number in 0..30 {
        for _ in 0..3 {
            let _ = sys::kill(child.pid, libc::SIGUSR1);
            sys::pause(2);
        }
        tun.inject(&[numbered(30, number, 60)]);
    }
    child.finish();
    tun.assert_empty();
    netcfg::assert_ledger_closes(30);
}

/// With devices open and a reader waiting, but nothing to do, the daemon does not run.
fn idle_daemon_sleeps() {
    let switches = || {
        let text = fs::read_to_string("/scheme/sys/stat").expect("the kernel's counters");
        let count = text
            .lines()
            .find_map(|line| line.strip_prefix("context_switches: "));
        count.and_then(|count| count.trim().parse::<u64>().ok())
    };
    // Where no router answers, they are asked for again and again (RFC 7559): that is no idleness.
    let asking = "ifaces/eth0/autoconf";
    let asks = fs::metadata(netcfg::path(asking)).is_ok();
    if asks {
        netcfg::put(asking, "0").expect(asking);
    }
    let tun = Tun::up(30);
    let reader = tun.again();
    let _got = sys::background(move || reader.read(100));
    sys::pause(500);
    let Some(pid) = daemon().map(|daemon| daemon.pid) else {
        crate::harness::skip("no process named tund");
    };
    let cpu_time = || {
        let list = fs::read_to_string("/scheme/sys/context").expect("the contexts");
        let own = |line: &&str| line.split_whitespace().next() == Some(&pid.to_string());
        let time = |line: &str| {
            line.split_whitespace()
                .find(|word| word.contains(':'))
                .map(str::to_owned)
        };
        list.lines()
            .filter(own)
            .filter_map(time)
            .collect::<Vec<_>>()
    };
    let (time, count) = (cpu_time(), switches());
    assert!(!time.is_empty(), "no context of process {pid}");
    sys::pause(3000);
    assert_eq!(cpu_time(), time, "CPU time of the idle daemon");
    if let (Some(before), Some(after)) = (count, switches()) {
        crate::harness::say(&format!(
            "redox-cost idle_context_switches_per_second {}",
            (after - before) / 3
        ));
    }
    if asks {
        netcfg::put(asking, "1").expect(asking);
    }
    tun.call(bsd::TUNSHUT, &mut []).expect("TUNSHUT");
}

/// A child that is dead, and was not waited for: a signal still reaches it.
fn zombie(mut child: Child) -> Child {
    child.ready();
    child.signal(libc::SIGKILL);
    sys::pause(200);
    sys::kill(child.pid, 0).expect("it is still there");
    child
}

fn unit_of_a_zombie_is_taken_over() {
    let _ = netcfg::put_if(30, "destroy", "1");
    let child = zombie(fork(|parent| {
        let fd = Tun::open(30).expect("open").into_raw_fd();
        let _got = sys::background(move || sys::read(fd, &mut [0; 100]));
        sys::pause(50);
        sys::close(fd).expect("close");
        parent.ready();
        sys::pause(10_000);
    }));
    drop(Tun::open(30).expect("open beside the zombie"));
    drop(child);
    netcfg::put_if(30, "destroy", "1").expect("destroy");
}

fn zombie_eats_no_packet() {
    let tun = Tun::up(30);
    let child = zombie(fork(|parent| {
        parent.ready();
        let _ = tun.read(100);
    }));
    tun.inject(&[numbered(30, 1, 60)]);
    assert_eq!(packet::number(&tun.read_now()), 1);
    drop(child);
}

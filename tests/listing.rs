//! The list of sockets: what it says of each, to whom, and that a long one holds nobody up.
#![allow(missing_docs)]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use common::packet;
use common::system::machine;
use net::{Host, Services};
use scheme::local::{Fd, Local, ManualClock, Process};
use scheme::{OpenFlags, Ready, errno};

const BOTH: OpenFlags = OpenFlags::READ.union(OpenFlags::WRITE);
const PATH: &str = "/scheme/netcfg/sockets";
/// Most lines of one read.
const LINES: usize = 256;

struct System {
    local: Arc<Local<Host>>,
    clock: Arc<ManualClock>,
    root: Process<Host>,
    user: Process<Host>,
}

fn system() -> System {
    let (local, clock) = machine(3, Services::empty());
    System {
        root: local.process(7, 0),
        user: local.process(42, 1000),
        local,
        clock,
    }
}

/// What is left of the list, read with a buffer of so many bytes.
fn rest(program: &Process<Host>, fd: Fd, size: usize) -> String {
    let (mut text, mut buf) = (Vec::new(), vec![0; size]);
    loop {
        match program.read(fd, &mut buf).unwrap() {
            0 => return String::from_utf8(text).unwrap(),
            len => text.extend_from_slice(&buf[..len]),
        }
    }
}

fn list(program: &Process<Host>) -> Vec<String> {
    let fd = program.open(PATH, OpenFlags::READ).unwrap();
    let text = rest(program, fd, 4096);
    program.close(fd).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// The first line with this beginning, without it.
fn line(program: &Process<Host>, beginning: &str) -> String {
    let lines = list(program);
    let line = lines.iter().find_map(|line| line.strip_prefix(beginning));
    line.unwrap_or_else(|| panic!("no {beginning} in {lines:#?}"))
        .to_owned()
}

fn pair(line: &str, name: &str) -> u64 {
    let words: Vec<_> = line.split(' ').collect();
    let at = words.iter().position(|word| *word == name);
    words[at.unwrap_or_else(|| panic!("no {name} in {line}")) + 1]
        .parse()
        .unwrap()
}

/// Calls `connect` until it is done.
fn connect(system: &System, program: &Process<Host>, name: &str) -> Fd {
    let fd = program.open("/scheme/tcp", BOTH).unwrap();
    let connected = program.dup_verb(fd, name.as_bytes()).unwrap();
    program.close(fd).unwrap();
    system.local.pump();
    connected
}

fn bind(program: &Process<Host>, scheme: &str, name: &str) -> Fd {
    let fd = program.open(&format!("/scheme/{scheme}"), BOTH).unwrap();
    let bound = program.dup_verb(fd, name.as_bytes()).unwrap();
    program.close(fd).unwrap();
    bound
}

#[test]
fn a_line_for_every_kind_of_socket() {
    let system = system();
    let root = &system.root;
    assert!(list(root).is_empty());
    let _listener = bind(root, "tcp", "/0.0.0.0:80");
    let _six = bind(root, "tcp", "/[::]:81");
    let datagrams = bind(root, "udp", "/127.0.0.1:53");
    let _echo = root.open("/scheme/icmp/echo/10.0.0.2", BOTH).unwrap();
    let _raw = root.open("/scheme/ip/59", BOTH).unwrap();
    assert_eq!(
        list(root),
        [
            "tcp LISTEN 0.0.0.0:80 0.0.0.0:0 recv 0 send 128 pid 7",
            "tcp LISTEN [::]:81 [::]:0 recv 0 send 128 pid 7",
            "udp - 127.0.0.1:53 0.0.0.0:0 recv 0 send 0 pid 7",
            "icmp - 0.0.0.0 10.0.0.2 recv 0 send 0 pid 7",
            "ip 89 0.0.0.0 0.0.0.0 recv 0 send 0 pid 7",
        ]
    );
    let sender = bind(&system.user, "udp", "127.0.0.1:53");
    system.user.write(sender, &[7; 512]).unwrap();
    system.user.write(sender, &[7; 100]).unwrap();
    system.local.pump();
    let waits = line(root, "udp - 127.0.0.1:53 0.0.0.0:0 ");
    assert_eq!(waits, "recv 612 send 0 pid 7");
    assert!(
        list(root)
            .iter()
            .any(|line| line.ends_with(" 127.0.0.1:53 recv 0 send 0 pid 42"))
    );
    root.close(datagrams).unwrap();
    assert!(
        !list(root)
            .iter()
            .any(|line| line.starts_with("udp - 127.0.0.1:53"))
    );
}

#[test]
fn the_life_of_a_connection() {
    let system = system();
    let (root, user) = (&system.root, &system.user);
    let listener = bind(root, "tcp", "/127.0.0.1:80");
    let client = connect(&system, user, "127.0.0.1:80");
    let waits = "tcp LISTEN 127.0.0.1:80 0.0.0.0:0 ";
    assert_eq!(line(root, waits), "recv 1 send 128 pid 7");
    // Nobody holds it yet.
    assert_eq!(pair(&line(root, "tcp ESTABLISHED 127.0.0.1:80 "), "pid"), 0);
    let server = root.dup_verb(listener, b"listen").unwrap();
    assert_eq!(line(root, waits), "recv 0 send 128 pid 7");
    user.write(client, &[1; 3000]).unwrap();
    system.local.pump();
    let accepted = line(root, "tcp ESTABLISHED 127.0.0.1:80 ");
    assert_eq!((pair(&accepted, "recv"), pair(&accepted, "pid")), (3000, 7));
    let names: Vec<_> = accepted.split(' ').skip(1).step_by(2).take(10).collect();
    let begin = [
        "recv", "send", "pid", "srtt_us", "rto_us", "cwnd", "ssthresh", "inflight", "mss",
    ];
    assert_eq!(names, [&begin[..], &["retransmits"]].concat());
    assert!(pair(&accepted, "rto_us") >= 200_000 && pair(&accepted, "mss") > 500);
    root.close(server).unwrap();
    system.local.pump();
    // What was not read was reset.
    assert_eq!(pair(&line(root, "tcp CLOSED "), "pid"), 42);

    let client = connect(&system, user, "127.0.0.1:80");
    let server = root.dup_verb(listener, b"listen").unwrap();
    user.close(client).unwrap();
    system.local.pump();
    assert_eq!(pair(&line(root, "tcp FIN-WAIT-2 "), "pid"), 0);
    assert_eq!(pair(&line(root, "tcp CLOSE-WAIT "), "pid"), 7);
    root.close(server).unwrap();
    system.local.pump();
    let over = line(root, "tcp TIME-WAIT ");
    assert!(over.contains(" 127.0.0.1:80 recv 0 send 0 pid 0"), "{over}");
    for _ in 0..300 {
        system.clock.advance(Duration::from_secs(1));
        system.local.pump();
    }
    assert!(!list(root).iter().any(|line| line.contains("TIME-WAIT")));
}

#[test]
fn what_nobody_answers() {
    let system = system();
    common::program::tunnel(&system.root, 0, "10.0.0.1/24");
    let user = &system.user;
    let fd = user.open("/scheme/tcp", BOTH).unwrap();
    user.set_nonblocking(fd, true).unwrap();
    let begun = user.dup_verb(fd, b"10.0.0.2:80");
    assert_eq!(begun.err(), Some(errno::EINPROGRESS));
    let begins = line(user, "tcp SYN-SENT 10.0.0.1:");
    assert!(
        begins.contains(" 10.0.0.2:80 recv 0 send 0 pid 42 srtt_us 0 rto_us "),
        "{begins}"
    );
}

#[test]
fn others_are_shown_without_their_processes() {
    let system = system();
    let _of_root = bind(&system.root, "tcp", "/127.0.0.1:80");
    let _of_user = bind(&system.user, "tcp", "/127.0.0.1:8080");
    let pids = |program: &Process<Host>| -> Vec<_> {
        list(program).iter().map(|line| pair(line, "pid")).collect()
    };
    assert_eq!(pids(&system.root), [7, 42]);
    assert_eq!(pids(&system.user), [0, 42]);
    assert_eq!(pids(&system.local.process(43, 1001)), [0, 0]);
    // A file that is passed on shows what its opener was allowed to see.
    let fd = system.root.open(PATH, OpenFlags::READ).unwrap();
    let child = system.root.fork(50);
    assert!(rest(&child, fd, 100).contains("pid 42"));
}

#[test]
fn it_can_only_be_read() {
    let system = system();
    for program in [&system.root, &system.user] {
        assert_eq!(program.open(PATH, BOTH), Err(errno::EACCES));
        assert_eq!(program.open(PATH, OpenFlags::WRITE), Err(errno::EACCES));
        let fd = program.open(PATH, OpenFlags::READ).unwrap();
        assert_eq!(program.path(fd).unwrap(), PATH);
        assert!(program.write(fd, b"x\n").is_err());
        let ready = program.poll(&[(fd, Ready::READ)], Some(Duration::ZERO));
        assert_eq!(ready.unwrap(), [Ready::READ]);
    }
}

#[test]
fn the_list_is_the_same_in_pieces_of_any_size() {
    let system = system();
    let root = &system.root;
    for port in 1..40 {
        bind(root, "udp", &format!("/127.0.0.1:{port}"));
    }
    let whole = list(root).join("\n") + "\n";
    let fd = root.open(PATH, OpenFlags::READ).unwrap();
    for size in [1, 7, 300, 100_000] {
        assert_eq!(rest(root, fd, size), whole, "pieces of {size}");
        root.close(fd).unwrap();
        let again = root.open(PATH, OpenFlags::READ).unwrap();
        assert_eq!(again, fd);
    }
}

#[test]
fn ten_thousand_hold_nobody_up() {
    let system = system();
    let (root, user) = (&system.root, &system.user);
    let tun = common::program::tunnel(root, 0, "10.0.0.1/24");
    let sockets: Vec<_> = (0..10_000)
        .map(|at| {
            user.open(
                &format!("/scheme/udp/10.0.0.2:9/10.0.0.1:{}", 2000 + at),
                BOTH,
            )
        })
        .collect::<Result<_, _>>()
        .unwrap();
    let fd = user.open(PATH, OpenFlags::READ).unwrap();
    let (mut text, mut buf) = (String::new(), vec![0; 4 << 20]);
    for piece in 0_u16.. {
        let len = user.read(fd, &mut buf).unwrap();
        if len == 0 {
            break;
        }
        let part = std::str::from_utf8(&buf[..len]).unwrap();
        assert!(
            part.lines().count() <= LINES,
            "one read makes a bounded part of the list"
        );
        text.push_str(part);
        // Packets go on between two reads, and sockets come and go.
        let ping = packet::echo_request("10.0.0.2", "10.0.0.1", piece, &[]);
        root.write(tun, &ping).unwrap();
        let answer = root.read(tun, &mut buf).unwrap();
        assert_eq!((answer, buf[20]), (ping.len(), 0), "an echo reply");
        user.close(sockets[usize::from(piece) * 17]).unwrap();
        bind(root, "udp", &format!("/10.0.0.1:{}", 20_000 + piece));
    }
    let lines: Vec<_> = text.lines().collect();
    let distinct: BTreeSet<_> = lines.iter().collect();
    assert_eq!(distinct.len(), lines.len(), "no socket is listed twice");
    let closed = 40;
    let mine = lines
        .iter()
        .filter(|line| line.ends_with(" 10.0.0.2:9 recv 0 send 0 pid 42"));
    assert!(mine.count() >= 10_000 - closed);
}

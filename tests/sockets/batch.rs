//! UDP in batches: many datagrams in one read or write.

use std::sync::Arc;

use net::Host;
use scheme::errno::{self, Errno};
use scheme::local::{Fd, Local};
use scheme::{Caller, FileServer, OpenFlags, Outcome};

use crate::common::libc::Libc;
use crate::common::packet::udp;
use crate::{BOTH, host, sent, set, system, tunnel, tunnel_with_head};

const TUNSBATCH: u32 = 0x4004_7482;
const TUNGBATCH: u32 = 0x8004_7483;
const TUNGSOCKNAME: u32 = 0x8018_7486;
/// The smallest buffer of a read.
const SMALLEST: usize = 65_560;

/// An address of a frame.
fn address(family: u16, addr: &[u8], port: u16) -> Vec<u8> {
    let mut bytes = family.to_ne_bytes().to_vec();
    bytes.extend(port.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(addr);
    bytes.resize(24, 0);
    bytes
}

fn frame(address: &[u8], data: &[u8]) -> Vec<u8> {
    let len = (address.len() + data.len()) as u32;
    let mut frame = [&len.to_ne_bytes()[..], address, data].concat();
    frame.resize(frame.len().next_multiple_of(4), 0);
    frame
}

/// A datagram to or from this host.
fn here(port: u16, data: &[u8]) -> Vec<u8> {
    frame(&address(2, &[127, 0, 0, 1], port), data)
}

/// A datagram to the peer.
fn peers(data: &[u8]) -> Vec<u8> {
    frame(&[0; 24], data)
}

fn batch(libc: &Libc, fd: Fd) -> Fd {
    libc.0.ioctl(fd, TUNSBATCH, &mut [1, 0, 0, 0]).unwrap();
    libc.0.set_nonblocking(fd, true).unwrap();
    fd
}

/// The socket of a path below `udp`, in batch mode, and its port.
fn opened(libc: &Libc, path: &str) -> (Fd, u16) {
    let fd = libc.0.open(&format!("/scheme/udp/{path}"), BOTH).unwrap();
    (batch(libc, fd), port(libc, fd))
}

fn port(libc: &Libc, fd: Fd) -> u16 {
    let name = libc.sockname(fd);
    name.rsplit(':').next().unwrap().parse().unwrap()
}

fn read(libc: &Libc, fd: Fd) -> Result<Vec<u8>, Errno> {
    let mut buf = vec![0xee; 1 << 20];
    let len = libc.0.read(fd, &mut buf)?;
    buf.truncate(len);
    Ok(buf)
}

#[test]
fn many_go_and_many_come_with_their_addresses() {
    let libc = Libc::new(&system());
    let (one, one_port) = opened(&libc, "bind/127.0.0.1:0");
    let (two, two_port) = opened(&libc, "bind/0.0.0.0:0");
    assert_ne!(one_port, 0);
    let sizes = [0, 1, 3, 4, 1472, 1473, 20_000, 65_507];
    let data = |size: usize| (0..size).map(|at| at as u8).collect::<Vec<_>>();
    let frames = |port| {
        let frames = sizes.iter().map(|&size| here(port, &data(size)));
        frames.collect::<Vec<_>>().concat()
    };
    let out = frames(two_port);
    assert_eq!(libc.0.write(one, &out), Ok(out.len()));
    assert_eq!(read(&libc, two).unwrap(), frames(one_port));
    assert_eq!(read(&libc, two), Err(errno::EAGAIN));
    assert_eq!(libc.0.write(one, &[]), Ok(0));
    assert_eq!(
        read(&libc, two),
        Err(errno::EAGAIN),
        "no bytes are no datagram"
    );
}

#[test]
fn a_read_never_cuts_and_leaves_what_does_not_fit() {
    let libc = Libc::new(&system());
    let (from, from_port) = opened(&libc, "bind/127.0.0.1:0");
    let (to, to_port) = opened(&libc, "bind/127.0.0.1:0");
    let longest = vec![7; 65_507];
    let out = [here(to_port, b"first"), here(to_port, &longest)].concat();
    libc.0.write(from, &out).unwrap();
    let mut buf = vec![0; SMALLEST];
    for room in [1, 64, 1500, SMALLEST - 1] {
        assert_eq!(libc.0.read(to, &mut buf[..room]), Err(errno::EINVAL));
    }
    let first = here(from_port, b"first");
    assert_eq!(libc.0.read(to, &mut buf), Ok(first.len()));
    assert_eq!(buf[..first.len()], first);
    let second = here(from_port, &longest);
    assert_eq!(libc.0.read(to, &mut buf), Ok(second.len()));
    assert_eq!(buf[..second.len()], second);
}

#[test]
fn framing_is_checked_before_anything_is_sent() {
    let libc = Libc::new(&system());
    let (from, _) = opened(&libc, "bind/127.0.0.1:0");
    let (to, to_port) = opened(&libc, "bind/127.0.0.1:0");
    let good = here(to_port, b"good");
    let cut = here(to_port, b"padding")[..4 + 24 + 7].to_vec();
    let length = |len: u32, rest: usize| [&len.to_ne_bytes()[..], &vec![0; rest]].concat();
    for bad in [
        vec![1],
        length(0, 0),
        length(23, 24),
        length(24, 20),
        length(u32::MAX, 64),
        cut,
    ] {
        let batch = [&good[..], &bad].concat();
        assert_eq!(libc.0.write(from, &batch), Err(errno::EINVAL), "{bad:?}");
        assert_eq!(libc.0.write(from, &bad), Err(errno::EINVAL), "{bad:?}");
    }
    let one = here(to_port, &[0; 4]);
    let more = one.repeat((1 << 20) / one.len() + 1);
    assert_eq!(libc.0.write(from, &more), Err(errno::EINVAL), "over 1 MiB");
    assert_eq!(read(&libc, to), Err(errno::EAGAIN), "nothing was sent");
}

#[test]
fn what_cannot_be_sent_ends_the_call_behind_those_before_it() {
    let libc = Libc::new(&system());
    let (from, from_port) = opened(&libc, "bind/127.0.0.1:0");
    let (to, to_port) = opened(&libc, "bind/127.0.0.1:0");
    let good = here(to_port, b"good");
    let six = address(10, &[0; 16], to_port);
    for (bad, error) in [
        (peers(b"nobody"), errno::EDESTADDRREQ),
        (here(0, b"port"), errno::EADDRNOTAVAIL),
        (here(to_port, &[0; 65_508]), errno::EMSGSIZE),
        (frame(&six, b"other family"), errno::EADDRNOTAVAIL),
        (frame(&address(3, &[0; 16], 9), b""), errno::EAFNOSUPPORT),
    ] {
        assert_eq!(libc.0.write(from, &bad), Err(error));
        let batch = [&good[..], &good, &bad, &good].concat();
        assert_eq!(libc.0.write(from, &batch), Ok(2 * good.len()), "{error}");
        let expected = here(from_port, b"good").repeat(2);
        assert_eq!(read(&libc, to).unwrap(), expected, "{error}");
    }
}

#[test]
fn a_connected_socket_sends_to_its_peer() {
    let libc = Libc::new(&system());
    let (server, server_port) = opened(&libc, "bind/127.0.0.1:0");
    let (client, client_port) = opened(&libc, &format!("127.0.0.1:{server_port}"));
    let out = [peers(b"one"), here(server_port, b"two")].concat();
    assert_eq!(libc.0.write(client, &out), Ok(out.len()));
    let got = [here(client_port, b"one"), here(client_port, b"two")].concat();
    assert_eq!(read(&libc, server).unwrap(), got);
    let other = here(client_port, b"other");
    assert_eq!(libc.0.write(client, &other), Err(errno::EISCONN));
    // Nobody is there any more: the error is told once, and after that the datagrams go.
    libc.0.close(server).unwrap();
    libc.0.write(client, &peers(b"anybody?")).unwrap();
    assert_eq!(read(&libc, client), Err(errno::ECONNREFUSED));
    libc.0.write(client, &peers(b"anybody?")).unwrap();
    assert_eq!(libc.0.write(client, &peers(b"x")), Err(errno::ECONNREFUSED));
    libc.shutdown(client, 2).unwrap();
    assert_eq!(libc.0.write(client, &peers(b"x")), Err(errno::EPIPE));
    assert_eq!(read(&libc, client), Ok(vec![]));
}

#[test]
fn one_that_is_bound_only_can_only_read_without_batches() {
    let libc = Libc::new(&system());
    let fd = libc.0.open("/scheme/udp/bind/127.0.0.1:0", BOTH).unwrap();
    assert_eq!(libc.0.write(fd, b"x"), Err(errno::EDESTADDRREQ));
    let port = port(&libc, fd);
    let (other, _) = opened(&libc, "bind/127.0.0.1:0");
    libc.0.write(other, &here(port, b"hello")).unwrap();
    let mut buf = [0; 16];
    assert_eq!(libc.0.read(fd, &mut buf), Ok(5));
    assert_eq!(&buf[..5], b"hello");
    let again = format!("/scheme/udp/bind/127.0.0.1:{port}");
    assert_eq!(libc.0.open(&again, BOTH), Err(errno::EADDRINUSE));
    for bad in [
        "udp/bind/127.0.0.1:1/127.0.0.1:2",
        "udp/bind//127.0.0.1:1",
        "udp/bind/",
        "udp/bind/x",
        "tcp/bind/127.0.0.1:1",
        "tcp/bind",
    ] {
        let opened = libc.0.open(&format!("/scheme/{bad}"), BOTH);
        assert!(
            matches!(opened, Err(errno::ENOENT | errno::EISDIR)),
            "{bad}: {opened:?}"
        );
    }
    let user: Arc<Local<Host>> = system();
    let user = user.process(2, 1000);
    let low = user.open("/scheme/udp/bind/127.0.0.1:53", BOTH);
    assert_eq!(low, Err(errno::EACCES));
    assert!(user.open("/scheme/udp/bind", OpenFlags::READ).is_ok());
}

#[test]
fn a_control_of_udp_only_that_bind_and_connect_keep() {
    let libc = Libc::new(&system());
    let get = |fd| {
        let mut on = [0xee; 4];
        libc.0.ioctl(fd, TUNGBATCH, &mut on).map(|()| on[0])
    };
    let fd = libc.socket("udp");
    assert_eq!(get(fd), Ok(0));
    for (argument, result) in [(4, Ok(0)), (3, Err(errno::EINVAL)), (8, Err(errno::EINVAL))] {
        let argument = &mut [1; 8][..argument];
        let called = libc.0.sys_call(fd, argument, &[TUNSBATCH.into()]);
        assert_eq!(called, result);
    }
    assert_eq!(get(fd), Ok(1));
    let fd = libc.bind(fd, "127.0.0.1:0").unwrap();
    let fd = libc.connect(fd, "127.0.0.1:9").unwrap();
    assert_eq!(get(fd), Ok(1));
    let mut name = [0xee; 24];
    libc.0.ioctl(fd, TUNGSOCKNAME, &mut name).unwrap();
    assert_eq!(name[..], address(2, &[127, 0, 0, 1], port(&libc, fd)));
    // Calls still carry one datagram each.
    let word = 3_u64.to_le_bytes();
    let mut message = [&word[..], b"one"].concat();
    assert_eq!(libc.0.sys_call(fd, &mut message, &[4, 0]), Ok(3));
    libc.0.ioctl(fd, TUNSBATCH, &mut [0; 4]).unwrap();
    assert_eq!(get(fd), Ok(0));
    let stream = libc.socket("tcp");
    assert_eq!(get(stream), Err(errno::ENOTTY));
    let set = libc.0.ioctl(stream, TUNSBATCH, &mut [1, 0, 0, 0]);
    assert_eq!(set, Err(errno::ENOTTY));
}

#[test]
fn a_socket_without_a_name_is_bound_by_what_it_sends() {
    let libc = Libc::new(&system());
    let (server, server_port) = opened(&libc, "bind/127.0.0.1:0");
    let client = batch(&libc, libc.socket("udp"));
    assert_eq!(read(&libc, client), Err(errno::EAGAIN));
    assert_eq!(libc.0.write(client, &peers(b"x")), Err(errno::EDESTADDRREQ));
    libc.0
        .write(client, &here(server_port, b"question"))
        .unwrap();
    let client_port = port(&libc, client);
    assert_eq!(read(&libc, server).unwrap(), here(client_port, b"question"));
    libc.0.write(server, &here(client_port, b"answer")).unwrap();
    assert_eq!(read(&libc, client).unwrap(), here(server_port, b"answer"));
}

#[test]
fn both_families_through_a_tunnel() {
    let libc = Libc::new(&system());
    let tun = tunnel_with_head(&libc);
    let (six, six_port) = opened(&libc, "bind/[::]:0");
    let peer = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
    let to = address(10, &peer, 4000);
    libc.0.write(six, &frame(&to, b"six").repeat(3)).unwrap();
    let packets = sent(&libc, tun);
    let datagrams: Vec<_> = packets
        .iter()
        .filter(|packet| packet[4 + 6] == 17)
        .collect();
    assert_eq!(datagrams.len(), 3);
    // Turned round: addresses and ports are only exchanged, so the checksum stays.
    let mut answer = datagrams[0].clone();
    answer.copy_within(4 + 24..4 + 40, 4 + 8);
    answer[4 + 24..4 + 40].copy_from_slice(&datagrams[0][4 + 8..4 + 24]);
    answer.copy_within(4 + 42..4 + 44, 4 + 40);
    answer[4 + 42..4 + 44].copy_from_slice(&six_port.to_be_bytes());
    libc.0.write(tun, &answer).unwrap();
    libc.0.write(tun, &answer).unwrap();
    assert_eq!(read(&libc, six).unwrap(), frame(&to, b"six").repeat(2));
}

#[test]
fn a_full_send_queue_ends_the_call() {
    let libc = Libc::new(&system());
    let tun = tunnel(&libc);
    set(&libc, "ifaces/tun0/queue", "fifo limit 3 packets\n");
    let (from, from_port) = opened(&libc, "bind/10.1.0.1:0");
    let one = frame(&address(2, &[10, 1, 0, 2], 9), b"one");
    let written = libc.0.write(from, &one.repeat(5));
    assert_eq!(written, Ok(3 * one.len()));
    assert_eq!(libc.0.write(from, &one), Err(errno::ENOBUFS));
    let packets = sent(&libc, tun);
    assert_eq!(packets.len(), 3);
    let ports = [&from_port.to_be_bytes()[..], &[0, 9]].concat();
    assert_eq!(packets[0][20..24], ports);
    let answer = udp(("10.1.0.2", 9), ("10.1.0.1", from_port), b"two");
    libc.0.write(tun, &answer).unwrap();
    let got = frame(&address(2, &[10, 1, 0, 2], 9), b"two");
    assert_eq!(read(&libc, from).unwrap(), got);
}

#[test]
fn whatever_is_written_is_taken_up_to_a_frame_or_refused() {
    let libc = Libc::new(&system());
    let (from, from_port) = opened(&libc, "bind/127.0.0.1:0");
    let (to, to_port) = opened(&libc, "bind/127.0.0.1:0");
    let mut chance = fastrand::Rng::with_seed(7);
    let mut taken = 0;
    for _ in 0..5000 {
        let mut ends = vec![0];
        let mut batch = Vec::new();
        for _ in 0..chance.usize(..6) {
            let port = chance.choice([0, 9, from_port, to_port]).unwrap();
            let name = match chance.u8(..4) {
                0 => vec![chance.u8(..); 24],
                1 => address(10, &[0; 16], port),
                _ => address(2, &[127, 0, 0, 1], port),
            };
            batch.extend(frame(&name, &vec![7; chance.usize(..60)]));
            ends.push(batch.len());
        }
        let mut whole = true;
        if !batch.is_empty() && chance.u8(..4) == 0 {
            // A length, most likely, or what does not matter.
            let at = ends[chance.usize(..ends.len() - 1)] + chance.usize(..4);
            batch[at] ^= 1 << chance.u8(..8);
            whole = false;
        }
        match libc.0.write(from, &batch) {
            Ok(len) if whole => assert!(ends.contains(&len), "{len} of {ends:?}"),
            Ok(len) => assert!(len <= batch.len() && len % 4 == 0),
            Err(error) => {
                let known = [
                    errno::EDESTADDRREQ,
                    errno::EINVAL,
                    errno::EAFNOSUPPORT,
                    errno::EADDRNOTAVAIL,
                    errno::ENETUNREACH,
                    errno::EHOSTUNREACH,
                ];
                assert!(known.contains(&error), "{error}");
                assert!(!whole || error != errno::EINVAL);
            }
        }
        for fd in [from, to] {
            match read(&libc, fd) {
                Ok(got) => {
                    assert_eq!(got.len() % 4, 0);
                    taken += got.len();
                }
                Err(error) => assert_eq!(error, errno::EAGAIN),
            }
        }
    }
    assert!(taken > 50_000, "{taken} bytes arrived");
}

#[test]
fn who_may_bypass_is_known_from_the_open() {
    const TUNSBYPASS: u64 = 0x4010_7485;

    let (mut host, root) = host();
    let somebody = Caller { uid: 1000, ..root };
    // On Redox a call comes with whatever user its maker says, and the front passes on none.
    let nobody = Caller {
        uid: u32::MAX,
        ..root
    };
    for (opener, caller, allowed) in [(root, nobody, Ok(0)), (somebody, root, Err(errno::EPERM))] {
        let file = host.open("udp/bind/127.0.0.1:0", BOTH, opener).unwrap();
        let mut name = [0; 16];
        name[..4].copy_from_slice(b"tun0");
        let done = host.call(file, &mut name, &[TUNSBYPASS], caller);
        assert_eq!(done, Outcome::Done(allowed));
    }
}

//! Reading and writing packets.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::device::{Tun, Wire, assert_errno, bsd};
use crate::packet::{self, assert_echo_reply, echo_request, numbered};
use crate::sys;
use crate::{netcfg, tests};

const SECOND: Duration = Duration::from_secs(1);

tests![
    write_reply_read,
    read_is_one_packet,
    read_shorter_than_the_packet,
    read_of_nothing,
    read_waits,
    read_in_order_by_several,
    read_nonblocking,
    write_is_one_packet,
    write_of_nothing,
    write_of_the_largest,
    write_of_rubbish_is_counted,
    write_while_down_or_without_address,
    queue_full,
    output_while_closed,
    bad_memory,
    fcntl_knows_flags_only,
];

fn write_reply_read() {
    let tun = Tun::up(20);
    for (sequence, len) in [(1, 28), (2, 29), (3, 84), (4, 1500)] {
        let request = echo_request(20, sequence, len);
        assert_eq!(tun.write(&request).expect("write"), len);
        assert_echo_reply(&tun.read_now(), 20, sequence, len);
    }
    tun.assert_empty();
    let stats = netcfg::stats(20);
    assert_eq!((stats["ipackets"], stats["opackets"]), (4, 4), "{stats:?}");
    let bytes = 28 + 29 + 84 + 1500;
    assert_eq!((stats["ibytes"], stats["obytes"]), (bytes, bytes));
    netcfg::assert_ledger_closes(20);
}

fn read_is_one_packet() {
    let tun = Tun::up(20);
    let packets = [
        numbered(20, 1, 40),
        numbered(20, 2, 1500),
        numbered(20, 3, 24),
    ];
    tun.inject(&packets);
    for packet in &packets {
        assert_eq!(tun.get(bsd::FIONREAD), packet.len() as i32);
        assert_eq!(tun.read_now(), *packet);
    }
    assert_eq!(tun.get(bsd::FIONREAD), 0);
    tun.assert_empty();
    netcfg::assert_ledger_closes(20);
}

fn read_shorter_than_the_packet() {
    let tun = Tun::up(20);
    let packets = [numbered(20, 1, 100), numbered(20, 2, 100)];
    tun.inject(&packets);
    assert_eq!(tun.read(30).expect("read"), packets[0][..30]);
    assert_eq!(tun.read(1000).expect("read"), packets[1]);
    tun.assert_empty();
    assert_eq!(netcfg::stats(20)["drop.truncated"], 1);
    netcfg::assert_ledger_closes(20);
}

fn read_of_nothing() {
    let tun = Tun::up(20);
    // Neither call waits.
    assert_eq!(tun.read(0).expect("read"), []);
    tun.inject(&[numbered(20, 1, 100)]);
    assert_eq!(tun.read(0).expect("read"), []);
    assert_eq!(tun.read_now().len(), 100);
    netcfg::assert_ledger_closes(20);
}

fn read_waits() {
    let tun = Tun::up(20);
    let reader = tun.again();
    let got = sys::background(move || reader.read(2000));
    assert!(got.recv_timeout(Duration::from_millis(200)).is_err());
    tun.inject(&[numbered(20, 77, 100)]);
    let packet = got.recv_timeout(SECOND).expect("the read returns");
    assert_eq!(packet::number(&packet.expect("read")), 77);
    netcfg::assert_ledger_closes(20);
}

fn read_in_order_by_several() {
    let tun = Tun::up(20);
    let mut readers = Vec::new();
    for _ in 0..8 {
        let reader = tun.again();
        readers.push(sys::background(move || reader.read(2000)));
        // First come, first served: the pause makes sure which one came first.
        sys::pause(30);
    }
    let packets: Vec<_> = (0..8).map(|n| numbered(20, n, 60)).collect();
    tun.inject(&packets);
    for (packet, reader) in packets.iter().zip(readers) {
        let got = reader.recv_timeout(SECOND).expect("the read returns");
        assert_eq!(got.expect("read"), *packet);
    }
    tun.assert_empty();
}

fn read_nonblocking() {
    drop(Tun::fresh(20));
    let flags = libc::O_RDWR | libc::O_NONBLOCK;
    let tun = Tun::open_with(20, flags).expect("open");
    tun.set(bsd::TUNSTRANSIENT, 1);
    assert_errno(tun.read(100), libc::EAGAIN);
    let flags = sys::fcntl(&tun, libc::F_GETFL, 0).expect("F_GETFL");
    assert_ne!(flags & libc::O_NONBLOCK, 0);
    tun.set_nonblocking(false);
    let flags = sys::fcntl(&tun, libc::F_GETFL, 0).expect("F_GETFL");
    assert_eq!(flags & libc::O_NONBLOCK, 0);
    let reader = tun.again();
    let got = sys::background(move || reader.read(100));
    assert!(got.recv_timeout(Duration::from_millis(150)).is_err());
    // The flag belongs to the open file, but a read that waits goes on waiting.
    tun.set_nonblocking(true);
    assert!(got.recv_timeout(Duration::from_millis(50)).is_err());
    assert_errno(tun.again().read(100), libc::EAGAIN);
    tun.call(bsd::TUNSHUT, &mut []).expect("TUNSHUT");
    assert!(got.recv_timeout(SECOND).is_ok());
}

fn write_is_one_packet() {
    let tun = Tun::up(20);
    let request = echo_request(20, 5, 500);
    let pieces = [&request[..1], &request[1..20], &request[20..]].map(IoSlice::new);
    assert_eq!((&tun.file).write_vectored(&pieces).expect("writev"), 500);
    let (mut head, mut body) = ([0; 20], [0; 1000]);
    let mut pieces = [IoSliceMut::new(&mut head), IoSliceMut::new(&mut body)];
    assert_eq!((&tun.file).read_vectored(&mut pieces).expect("readv"), 500);
    let reply = [&head[..], &body[..480]].concat();
    assert_echo_reply(&reply, 20, 5, 500);
    // A packet that is cut in half is a malformed packet.
    assert_eq!(tun.write(&request[..250]).expect("write"), 250);
    assert_eq!(tun.write(&request[250..]).expect("write"), 250);
    tun.assert_empty();
}

fn write_of_nothing() {
    let tun = Tun::up(20);
    assert_eq!(tun.write(&[]).expect("write"), 0);
    tun.assert_empty();
    assert_eq!(netcfg::stats(20)["ipackets"], 0);
}

fn write_of_the_largest() {
    let tun = Tun::up(20);
    assert_eq!(tun.write(&vec![0; 16384]).expect("write"), 16384);
    assert_errno(tun.write(&vec![0; 16385]), libc::EIO);
    assert_errno(tun.write(&vec![0; 1 << 20]), libc::EIO);
    let request = echo_request(20, 1, 84);
    tun.write(&request).expect("write");
    assert_echo_reply(&tun.read_now(), 20, 1, 84);
    netcfg::assert_ledger_closes(20);
}

fn write_of_rubbish_is_counted() {
    let tun = Tun::up(20);
    let mut wrong_sum = echo_request(20, 1, 84);
    wrong_sum[10] ^= 1;
    let rubbish = [vec![0x45], vec![0xff; 40], vec![0; 19], wrong_sum];
    for packet in &rubbish {
        assert_eq!(tun.write(packet).expect("write"), packet.len());
    }
    tun.assert_empty();
    let stats = netcfg::stats(20);
    assert_eq!(stats["ierrors"], rubbish.len() as u64, "{stats:?}");
    netcfg::assert_ledger_closes(20);
}

fn write_while_down_or_without_address() {
    let tun = Tun::fresh(20);
    let request = echo_request(20, 1, 84);
    assert_eq!(tun.write(&request).expect("write while down"), 84);
    tun.assert_empty();
    let (own, _) = packet::addresses(20);
    netcfg::put_if(20, "addr/set", &format!("{own}/24")).expect("set the address");
    tun.write(&request).expect("write");
    assert_eq!(tun.read_now().len(), 84);
    netcfg::put_if(20, "flags", "down").expect("down");
    assert_eq!(tun.write(&request).expect("write while down"), 84);
    tun.assert_empty();
    netcfg::assert_ledger_closes(20);
}

fn queue_full() {
    let tun = Tun::up(20);
    let wire = Wire::open(20);
    for number in 0..250 {
        wire.send(&numbered(20, number, 60)).expect("room");
    }
    assert_errno(wire.send(&numbered(20, 250, 60)), libc::ENOBUFS);
    let stats = netcfg::stats(20);
    assert_eq!((stats["odrops"], stats["collisions"]), (1, 1));
    assert_eq!(stats["drop.queue_full"], 1);
    assert_eq!(stats["opackets"], 250);
    for number in 0..250 {
        assert_eq!(packet::number(&tun.read_now()), number);
    }
    tun.assert_empty();
    netcfg::assert_ledger_closes(20);
}

fn output_while_closed() {
    let tun = Tun::up(20);
    tun.set(bsd::TUNSTRANSIENT, 0);
    let wire = Wire::open(20);
    drop(tun);
    assert_errno(wire.send(&numbered(20, 1, 60)), libc::EHOSTDOWN);
    assert_eq!(netcfg::stats(20)["drop.not_open"], 1);
    netcfg::assert_ledger_closes(20);
    netcfg::put_if(20, "destroy", "1").expect("destroy");
}

/// The kernel refuses a buffer at an unmapped address, in some calls only after the daemon has
/// answered: then the packet is lost, as in the seed.
fn bad_memory() {
    /// An address at which nothing is mapped.
    const NOWHERE: usize = 0x6000_0000_0000;

    let tun = Tun::up(20);
    tun.inject(&[numbered(20, 1, 60)]);
    // SAFETY: the kernel checks the address, and refuses it.
    let got = unsafe { libc::read(tun.as_raw_fd(), NOWHERE as *mut _, 60) };
    assert_eq!(got, -1);
    assert_errno(Err::<(), _>(io::Error::last_os_error()), libc::EFAULT);
    // SAFETY: the kernel checks the address, and refuses it.
    let put = unsafe { libc::write(tun.as_raw_fd(), NOWHERE as *const _, 60) };
    assert_eq!(put, -1);
    assert_errno(Err::<(), _>(io::Error::last_os_error()), libc::EFAULT);
    while tun.get(bsd::FIONREAD) != 0 {
        tun.read_now();
    }
    tun.write(&echo_request(20, 1, 84)).expect("write");
    assert_echo_reply(&tun.read_now(), 20, 1, 84);
    netcfg::assert_ledger_closes(20);
}

fn fcntl_knows_flags_only() {
    let tun = Tun::fresh(20);
    for command in [8, 9, 100, 0x1001] {
        assert_errno(sys::fcntl(&tun, command, 0), libc::EINVAL);
    }
    assert!(sys::fcntl(&tun, libc::F_GETFL, 0).is_ok());
}

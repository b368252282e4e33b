//! Disciplines and rates of send queues: what goes first, and when.

use std::time::{Duration, Instant};

use event::EventFlags;

use crate::device::{Tun, Wire, assert_errno, bsd};
use crate::packet::{self, numbered};
use crate::sys::{self, Events};
use crate::{netcfg, tests};

const SOON: Duration = Duration::from_secs(25);
const QUIET: Duration = Duration::from_millis(100);
/// 1000 bytes a second; any packet leaves the bucket in debt.
const SLOW: &str = "rate 8000 burst 1 fifo limit 50 packets 100000 bytes";

/// A packet of this size is paid for in eight seconds, however slow this machine is.
const SIZE: usize = 8000;
/// What is certainly less.
const HELD: Duration = Duration::from_secs(2);

tests![
    queue_lines_are_read_back,
    urgent_packets_go_first,
    packets_that_are_held_are_not_there,
    watcher_is_woken_at_the_release,
    reader_is_woken_at_the_release,
];

fn queue_lines_are_read_back() {
    let _tun = Tun::up(34);
    for (line, text) in [
        (
            "priq limit 5 packets 9000 bytes",
            "priq limit 5 packets 9000 bytes\n",
        ),
        (
            SLOW,
            "rate 8000 burst 1 fifo limit 50 packets 100000 bytes\n",
        ),
        (
            "fq_codel",
            "fq_codel limit 10240 packets 33554432 bytes target 5000 us interval 100000 us \
             flows 1024 quantum 1514 bytes ecn\n",
        ),
        ("fifo", "fifo limit 250 packets 1048576 bytes\n"),
    ] {
        netcfg::put_if(34, "queue", line).expect(line);
        assert_eq!(netcfg::get_if(34, "queue"), text);
    }
    for bad in [
        "lifo",
        "rate 7999 burst 1000 fifo",
        "rate 8000 fifo",
        "priq limit 0 packets",
        "fq_codel flows 0",
    ] {
        assert_errno(netcfg::put_if(34, "queue", bad), libc::EINVAL);
        let text = netcfg::get_if(34, "queue");
        assert_eq!(text, "fifo limit 250 packets 1048576 bytes\n", "{bad}");
    }
    assert_errno(netcfg::put("ifaces/lo0/queue", "priq"), libc::EINVAL);
}

/// A numbered packet of a traffic class.
fn of_class(number: u32, class: u8) -> Vec<u8> {
    let mut packet = numbered(34, number, 60);
    packet[1] = class;
    packet
}

fn urgent_packets_go_first() {
    let tun = Tun::up(34);
    netcfg::put_if(34, "queue", "priq").expect("set");
    // Expedited forwarding (RFC 3246) is 0xb8; a lower class is 0x20.
    let classes = [0, 0x20, 0, 0xb8, 0x20, 0xb8];
    let packets: Vec<_> = (1..)
        .zip(classes)
        .map(|(at, class)| of_class(at, class))
        .collect();
    tun.inject(&packets);
    let order: Vec<u32> = packets
        .iter()
        .map(|_| packet::number(&tun.read_now()))
        .collect();
    assert_eq!(order, [4, 6, 2, 5, 1, 3]);
    netcfg::assert_ledger_closes(34);
}

/// The first packet goes at once, the next when it is paid for.
fn slow_tunnel() -> Tun {
    let tun = Tun::up(34);
    netcfg::put_if(34, "mtu", "9000").expect("set");
    netcfg::put_if(34, "queue", SLOW).expect("set");
    tun
}

fn packets_that_are_held_are_not_there() {
    let tun = slow_tunnel();
    tun.inject(&[numbered(34, 1, SIZE), numbered(34, 2, SIZE)]);
    assert_eq!(tun.get(bsd::FIONREAD), SIZE as i32);
    assert_eq!(packet::number(&tun.read_now()), 1);
    assert_eq!(tun.get(bsd::FIONREAD), 0);
    assert_eq!(sys::poll(&tun, libc::POLLIN, 0), 0);
    tun.assert_empty();
    assert_eq!(netcfg::stats(34)["queue.packets"], 1);
    netcfg::put_if(34, "queue", "fifo").expect("set");
    assert_eq!(packet::number(&tun.read_now()), 2);
}

fn watcher_is_woken_at_the_release() {
    let tun = slow_tunnel();
    let events = Events::new();
    events.subscribe(&tun, 1, EventFlags::READ);
    assert_eq!(events.next(QUIET), None);
    let wire = Wire::open(34);
    wire.send(&numbered(34, 1, SIZE)).expect("inject");
    assert_eq!(events.next(SOON), Some((1, EventFlags::READ)));
    let start = Instant::now();
    assert_eq!(packet::number(&tun.read_now()), 1);
    wire.send(&numbered(34, 2, SIZE)).expect("inject");
    assert_eq!(events.next(SOON), Some((1, EventFlags::READ)));
    let took = start.elapsed();
    assert!(took > HELD, "not held: {took:?}");
    assert_eq!(packet::number(&tun.read_now()), 2);
}

fn reader_is_woken_at_the_release() {
    let tun = slow_tunnel();
    tun.inject(&[numbered(34, 1, SIZE), numbered(34, 2, SIZE)]);
    let start = Instant::now();
    for number in [1, 2] {
        let packet = tun.read(SIZE).expect("read");
        assert_eq!(packet::number(&packet), number);
    }
    let took = start.elapsed();
    assert!(took > HELD, "not held: {took:?}");
}

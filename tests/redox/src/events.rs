//! Readiness: event queues, poll and epoll.

use std::time::Duration;

use event::EventFlags;

use crate::device::{Tun, Wire, bsd};
use crate::packet::{self, numbered};
use crate::sys::{self, Epoll, Events, fork};
use crate::tests;

const SOON: Duration = Duration::from_secs(1);
const QUIET: Duration = Duration::from_millis(150);
const IN: i16 = libc::POLLIN;
const OUT: i16 = libc::POLLOUT;

tests![
    poll_tells_the_state,
    poll_waits_for_a_packet,
    poll_hears_tunshut,
    queue_tells_what_is_ready_at_once,
    queue_tells_edges,
    queue_again_after_subscribing_again,
    two_queues_on_one_device,
    queues_and_dup,
    epoll_tells_edges,
    no_wakeup_is_lost,
    no_wakeup_is_lost_in_batch_mode,
];

fn poll_tells_the_state() {
    let tun = Tun::up(25);
    assert_eq!(sys::poll(&tun, IN | OUT, 100), OUT);
    assert_eq!(sys::poll(&tun, IN, 0), 0);
    assert_eq!(sys::poll(&tun, IN, 100), 0);
    tun.inject(&[numbered(25, 1, 60), numbered(25, 2, 60)]);
    for _ in 0..3 {
        // Readiness is a level: it holds as long as a packet is queued.
        assert_eq!(sys::poll(&tun, IN, 1000), IN);
    }
    assert_eq!(sys::poll(&tun, IN | OUT, 1000), IN | OUT);
    tun.read_now();
    assert_eq!(sys::poll(&tun, IN, 1000), IN, "there is another");
    tun.read_now();
    assert_eq!(sys::poll(&tun, IN, 100), 0);
}

fn poll_waits_for_a_packet() {
    let tun = Tun::up(25);
    for number in 0..5 {
        let poller = tun.again();
        let got = sys::background(move || sys::poll(&poller, IN, 5000));
        sys::pause(50);
        tun.inject(&[numbered(25, number, 60)]);
        assert_eq!(got.recv_timeout(SOON), Ok(IN), "packet {number}");
        tun.read_now();
    }
}

fn poll_hears_tunshut() {
    let tun = Tun::up(25);
    let poller = tun.again();
    let got = sys::background(move || sys::poll(&poller, IN, 5000));
    sys::pause(50);
    tun.call(bsd::TUNSHUT, &mut []).expect("TUNSHUT");
    assert_eq!(got.recv_timeout(SOON), Ok(IN));
}

fn queue_tells_what_is_ready_at_once() {
    let tun = Tun::up(25);
    let events = Events::new();
    events.subscribe(&tun, 1, EventFlags::WRITE);
    let event = events.next(SOON).expect("an event");
    assert_eq!(event, (1, EventFlags::WRITE));
    let events = Events::new();
    tun.inject(&[numbered(25, 1, 60)]);
    events.subscribe(&tun, 2, EventFlags::READ);
    let event = events.next(SOON).expect("an event");
    assert_eq!(event, (2, EventFlags::READ));
}

fn queue_tells_edges() {
    let tun = Tun::up(25);
    let events = Events::new();
    events.subscribe(&tun, 1, EventFlags::READ);
    assert_eq!(events.next(QUIET), None);
    for round in 0..5 {
        tun.inject(&[
            numbered(25, 1, 60),
            numbered(25, 2, 60),
            numbered(25, 3, 60),
        ]);
        let event = events.next(SOON);
        assert_eq!(event, Some((1, EventFlags::READ)), "round {round}");
        // There is not one event for every packet: they would pile up.
        assert_eq!(events.count(QUIET), 0, "round {round}");
        // But a read that leaves something is followed by one.
        for left in [1, 1, 0] {
            tun.read_now();
            assert_eq!(events.count(QUIET), left, "round {round}");
        }
    }
}

fn queue_again_after_subscribing_again() {
    let tun = Tun::up(25);
    let events = Events::new();
    events.subscribe(&tun, 1, EventFlags::READ);
    tun.inject(&[numbered(25, 1, 60)]);
    assert!(events.next(SOON).is_some());
    assert_eq!(events.next(QUIET), None);
    events.subscribe(&tun, 1, EventFlags::READ);
    assert!(events.next(SOON).is_some(), "it is still there");
    events.subscribe(&tun, 1, EventFlags::empty());
    tun.read_now();
    tun.inject(&[numbered(25, 2, 60)]);
    assert_eq!(events.next(QUIET), None, "unsubscribed");
}

fn two_queues_on_one_device() {
    let tun = Tun::up(25);
    let (one, two) = (Events::new(), Events::new());
    one.subscribe(&tun, 1, EventFlags::READ);
    two.subscribe(&tun, 2, EventFlags::READ | EventFlags::WRITE);
    assert!(two.next(SOON).is_some(), "writable");
    while one.next(QUIET).is_some() {}
    while two.next(QUIET).is_some() {}
    tun.inject(&[numbered(25, 1, 60)]);
    let (_, flags) = one.next(SOON).expect("an event in the first");
    assert!(flags.contains(EventFlags::READ));
    let (_, flags) = two.next(SOON).expect("an event in the second");
    assert!(flags.contains(EventFlags::READ));
}

fn queues_and_dup() {
    let tun = Tun::up(25);
    let events = Events::new();
    let again = tun.again();
    events.subscribe(&again, 1, EventFlags::READ);
    drop(again);
    let again = tun.again();
    events.subscribe(&again, 3, EventFlags::READ);
    tun.inject(&[numbered(25, 1, 60)]);
    assert!(events.next(SOON).is_some());
}

fn epoll_tells_edges() {
    let tun = Tun::up(25);
    let epoll = Epoll::new().expect("epoll");
    let events = libc::EPOLLIN | libc::EPOLLET;
    epoll.control(libc::EPOLL_CTL_ADD, &tun, events);
    assert_eq!(epoll.wait(100), []);
    tun.inject(&[numbered(25, 1, 60)]);
    assert_eq!(epoll.wait(1000), [libc::EPOLLIN as u32]);
    assert_eq!(epoll.wait(100), [], "told once");
    epoll.control(libc::EPOLL_CTL_MOD, &tun, events);
    assert_eq!(epoll.wait(1000), [libc::EPOLLIN as u32], "asked again");
    tun.read_now();
    tun.inject(&[numbered(25, 2, 60)]);
    assert_eq!(epoll.wait(1000), [libc::EPOLLIN as u32]);
    epoll.control(libc::EPOLL_CTL_DEL, &tun, 0);
    tun.read_now();
    tun.inject(&[numbered(25, 3, 60)]);
    assert_eq!(epoll.wait(100), []);
}

/// A sender that does not wait, and a reader that reads until there is nothing, then waits for an
/// edge: every packet arrives.
fn hammer(batch: bool) {
    const PACKETS: u32 = 2000;

    let tun = Tun::up(25);
    let child = fork(|_| {
        let wire = Wire::open(25);
        let mut number = 0;
        while number < PACKETS {
            match wire.send(&numbered(25, number, 60)) {
                Ok(_) => number += 1,
                // The reader has fallen behind.
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS), "{error}");
                    sys::pause(1);
                }
            }
            if number % 97 == 0 {
                sys::pause(3);
            }
        }
    });
    if batch {
        tun.set(bsd::TUNSBATCH, 1);
    }
    tun.set_nonblocking(true);
    let events = Events::new();
    events.subscribe(&tun, 1, EventFlags::READ);
    let mut expected = 0;
    while expected < PACKETS {
        let event = events.next(Duration::from_secs(3));
        assert!(event.is_some(), "no wake-up after packet {expected}");
        while let Ok(read) = tun.read(65_536) {
            if batch {
                for packet in tun::batch::packets(&read) {
                    assert_eq!(packet::number(packet), expected);
                    expected += 1;
                }
            } else {
                assert_eq!(packet::number(&read), expected);
                expected += 1;
            }
        }
    }
    child.finish();
}

fn no_wakeup_is_lost() {
    hammer(false);
}

fn no_wakeup_is_lost_in_batch_mode() {
    hammer(true);
}

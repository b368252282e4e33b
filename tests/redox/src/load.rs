//! Many units, many operations.

use std::thread;
use std::time::Duration;

use crate::device::{Tun, Wire, assert_errno, bsd};
use crate::packet::{self, assert_echo_reply, echo_request, numbered};
use crate::sys::{self, fork};
use crate::{netcfg, tests};

tests![
    two_hundred_units,
    thousands_of_operations_in_flight,
    many_processes_at_once,
    thousands_of_opens,
];

fn two_hundred_units() {
    const FIRST: u16 = 1000;
    const UNITS: u16 = 200;

    let tuns: Vec<_> = (FIRST..FIRST + UNITS).map(Tun::up).collect();
    assert!(netcfg::names("/scheme/tun").len() > UNITS.into());
    for tun in &tuns {
        tun.write(&echo_request(tun.unit, tun.unit, 84))
            .expect("write");
    }
    for tun in tuns.iter().rev() {
        assert_echo_reply(&tun.read_now(), tun.unit, tun.unit, 84);
        tun.assert_empty();
    }
    for tun in &tuns {
        assert_errno(Tun::open(tun.unit), libc::EBUSY);
    }
    netcfg::assert_ledger_closes(FIRST + UNITS - 1);
    drop(tuns);
    let left = netcfg::list("ifaces");
    assert!(!left.contains(&format!("tun{FIRST}")), "{left:?}");
}

/// Threads that wait in reads, many on each of many devices; then as many packets arrive.
fn thousands_of_operations_in_flight() {
    const UNITS: u16 = 20;
    const READERS: u32 = 100;
    const STACK: usize = 64 << 10;

    let tuns: Vec<_> = (40..40 + UNITS).map(Tun::up).collect();
    let (send, received) = std::sync::mpsc::channel();
    for tun in &tuns {
        for _ in 0..READERS {
            let (reader, send) = (tun.again(), send.clone());
            let started = thread::Builder::new().stack_size(STACK).spawn(move || {
                let packet = reader.read(100);
                let _ = send.send((reader.unit, packet.map(|packet| packet::number(&packet))));
            });
            started.expect("a thread");
        }
    }
    sys::pause(1000);
    assert!(received.try_recv().is_err(), "a read returned too early");
    for tun in &tuns {
        let wire = Wire::open(tun.unit);
        for number in 0..READERS {
            wire.send(&numbered(tun.unit, number, 60)).expect("inject");
        }
    }
    let mut got = vec![Vec::new(); UNITS.into()];
    for _ in 0..u32::from(UNITS) * READERS {
        let (unit, number) = received
            .recv_timeout(Duration::from_secs(10))
            .expect("every read returns");
        got[usize::from(unit - 40)].push(number.expect("read"));
    }
    for (unit, mut numbers) in got.into_iter().enumerate() {
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..READERS), "unit {}", unit + 40);
    }
    for tun in &tuns {
        tun.assert_empty();
        netcfg::assert_ledger_closes(tun.unit);
    }
}

fn many_processes_at_once() {
    let children: Vec<_> = (60..76)
        .map(|unit| {
            fork(move |_| {
                let tun = Tun::up(unit);
                for sequence in 0..100 {
                    tun.write(&echo_request(unit, sequence, 84)).expect("write");
                    let reply = tun.read(2000).expect("read");
                    assert_echo_reply(&reply, unit, sequence, 84);
                }
            })
        })
        .collect();
    children.into_iter().for_each(sys::Child::finish);
}

fn thousands_of_opens() {
    drop(Tun::fresh(80));
    for _ in 0..2000 {
        let tun = Tun::open(80).expect("open");
        drop(tun);
    }
    let tun = Tun::open(80).expect("open");
    tun.set(bsd::TUNSTRANSIENT, 1);
}

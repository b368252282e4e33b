//! Scripts for losses, late segments, small paths, and the rows of what was wrong before.

use super::link::{Link, Machine, Path, Program};
use super::script::{IRS, ISS, run};
use super::*;

#[test]
fn one_loss_is_mended_though_the_window_grows() {
    run("slow 40 mss 1000 sackok
         write 6000
         any
         wait 40
         < . 1 ack 1 win 65001 sack 1001-2001
         < . 1 ack 1 win 65100 sack 1001-3001
         silent
         < . 1 ack 1 win 65300 sack 1001-4001
         > . 1:1001
         stat recoveries 1
         < . 1 ack 6001 win 65500
         stat timeouts 0
         stat inflight 0");
}

#[test]
fn however_small_segments_are_few_are_in_flight() {
    // Each round the other end acknowledges everything, and the window doubles.
    let mut script = "set sndbuf 2000000\npassive mss 48 wscale 14 win 60000\n".to_owned();
    let mut sent = 1;
    for round in 0..=10 {
        let bytes = 480 << round;
        sent += bytes;
        let inflight = bytes.min(8192 * 48);
        script += &format!("write {bytes}\nany\nwait 1\nany\nstat inflight {inflight}\n");
        script += &format!("< . 1 ack {} win 60000\n", sent - (bytes - inflight));
    }
    run(&(script + "any\nstat inflight 98304\n"));
}

#[test]
fn duplicates_without_blocks_mend_one_loss_and_then_the_next() {
    run("passive mss 1000
         write 8000
         any
         < . 1 ack 1 win 65001
         < . 1 ack 1 win 65100
         silent
         < . 1 ack 1 win 65300
         > . 1:1001
         < . 1 ack 2001
         > . 2001:3001
         < . 1 ack 8001
         stat recoveries 1
         stat timeouts 0");
}

#[test]
fn reordering_window_waits_a_quarter_of_a_round_trip() {
    run("slow 40 mss 1000 sackok
         write 3000
         any
         wait 40
         < . 1 ack 1 sack 1001-2001
         silent
         # 10 ms later it is lost.
         wait 15
         >@90 . 1:1001
         stat recoveries 1
         < . 1 ack 3001");
}

#[test]
fn late_segment_is_no_loss_once_reordering_is_known() {
    run("slow 40 mss 1000 sackok
         write 9000
         any
         wait 40
         < . 1 ack 1 sack 1001-2001
         < . 1 ack 2001
         # It was only late. From now on three are not enough.
         < . 1 ack 2001 sack 3001-4001
         < . 1 ack 2001 sack 3001-5001
         < . 1 ack 2001 sack 3001-7001
         silent
         wait 5
         < . 1 ack 9001
         stat recoveries 0
         stat retransmits 0");
}

#[test]
fn clocks_undo_what_was_only_late() {
    run("slow 40 mss 1000 sackok ts 1 5000
         write 9000
         any
         stat cwnd 9880
         wait 40
         < . 1 ack 1 sack 989-1977 ts 2 5040
         < . 1 ack 1 sack 989-2965 ts 2 5040
         < . 1 ack 1 sack 989-3953 ts 2 5040
         > . 1:989
         any
         stat ssthresh 7000-
         wait 1
         # The first sending has arrived: its clock comes back.
         < . 1 ack 3953 ts 3 5040
         stat undone 1
         stat ssthresh 4000000000+
         stat cwnd 9880+
         any");
}

#[test]
fn spurious_timeout_is_undone() {
    let script = |clock: &str, echo: &str| {
        format!(
            "slow 100 mss 1000 sackok {clock}
             nodelay
             write 9000
             any
             wait 550
             any
             stat timeouts 1
             stat ssthresh 7000-
             < . 1 ack 2001 {echo}
             stat undone 1
             stat ssthresh 4000000000+
             any"
        )
    };
    // By clocks, and by what arrived that went only once.
    run(&script("ts 1 5000", "ts 2 5100"));
    run(&script("", ""));
}

#[test]
fn what_arrived_twice_undoes() {
    run("slow 40 mss 1000 sackok
         write 9000
         any
         wait 40
         < . 1 ack 1 sack 1001-2001
         < . 1 ack 1 sack 1001-3001
         < . 1 ack 1 sack 1001-4001
         > . 1:1001
         stat ssthresh 8000-
         < . 1 ack 4001
         any
         < . 1 ack 5001 sack 1-1001
         stat undone 1
         stat spurious 1
         stat ssthresh 4000000000+
         any");
}

#[test]
fn ack_that_was_overtaken_tells_of_no_repetition() {
    run("slow 40 mss 1000 sackok
         write 5000
         any
         wait 40
         < . 1 ack 4001
         < . 1 ack 1001 sack 2001-3001
         stat spurious 0
         silent
         < . 1 ack 5001");
}

#[test]
fn tail_loss_is_probed() {
    run("slow 20 mss 1000 sackok
         write 3000
         any
         wait 20
         < . 1 ack 1001
         # Two round trips after: the last one again.
         wait 70
         >@82 P. 2001:3001
         stat probes 1
         < . 1 ack 1001 sack 2001-3001
         # That shows what is missing.
         > . 1001:2001
         < . 1 ack 3001
         stat timeouts 0");
}

#[test]
fn tail_probe_prefers_new_text() {
    run("slow 20 mss 1000 sackok
         write 20000
         any
         wait 50
         > . 10001:11001
         stat probes 1
         any");
}

#[test]
fn timeout_does_not_send_again_what_arrived() {
    run("passive mss 1000 sackok
         write 5000
         any
         < . 1 ack 1 sack 2001-3001
         wait 150
         any
         wait 300
         any
         < . 1 ack 1001 sack 2001-3001
         any
         < . 1 ack 3001
         any
         < . 1 ack 5001
         stat inflight 0
         stat retransmits 12-");
}

#[test]
fn lost_retransmission_is_seen_without_a_timeout() {
    run("slow 20 mss 1000 sackok
         write 30000
         any
         wait 20
         < . 1 ack 1 sack 1001-4001
         > . 1:1001
         any
         wait 20
         < . 1 ack 1 sack 1001-10001
         any
         wait 20
         < . 1 ack 1 sack 1001-12001
         > . 1:1001
         any
         stat timeouts 0");
}

#[test]
fn receiver_that_forgets_what_it_said() {
    run("passive mss 1000 sackok
         write 5000
         any
         < . 1 ack 1 sack 1001-3001
         any
         < . 1 ack 1001
         any
         wait 2000
         any
         stat timeouts 1+
         < . 1 ack 3001
         any
         < . 1 ack 5001
         any
         stat inflight 0");
}

#[test]
fn ten_segments_to_begin_with_and_twice_as_many_each_round_trip() {
    run("passive mss 1000
         write 60000
         > . 1:1001
         any
         stat inflight 10000
         any");
    run("passive mss 1000
         write 60000
         any
         < . 1 ack 10001
         any
         stat cwnd 20000
         stat inflight 20000");
}

#[test]
fn idle_connections_begin_carefully_again() {
    run("passive mss 1000
         write 60000
         any
         < . 1 ack 10001
         any
         < . 1 ack 30001
         any
         < . 1 ack 55001
         any
         < . 1 ack 60001
         stat cwnd 30000+
         wait 60000
         write 30000
         any
         stat inflight 10000");
}

#[test]
fn what_was_too_large_goes_again_at_once() {
    run("passive
         any");
    run("passive mss 1460
         write 4380
         > . 1:1461
         > . 1461:2921
         > P. 2921:4381
         df 1
         mtu 1000
         > . 1:961
         > . 961:1461
         > . 1461:2421
         > . 2421:2921
         > . 2921:3881
         > P. 3881:4381
         stat timeouts 0
         stat recoveries 0
         stat ssthresh 4000000000+
         # Less than 552 is not believed, but then routers may cut.
         mtu 300
         stat mss 512
         df 0
         any");
}

#[test]
fn black_hole_is_found() {
    run("passive mss 1460
         write 1460
         any
         wait 1500
         any
         # After three timeouts, in smaller pieces.
         stat mss 1360
         < . 1 ack 1461
         wait 30000
         write 1
         any
         < . 1 ack 1462
         stat mss 1460");
}

#[test]
fn blocked_owner_loses_nothing() {
    // Nothing counts as sent before it was taken.
    let config = config(1, 2);
    let now = ms(5);
    let mut connection = Connection::connect(&config, ISS, now);
    assert_eq!(
        connection.poll_timeout(),
        Some(now + Duration::from_secs(180))
    );
    assert!(connection.poll_transmit(now).is_some());
    assert!(connection.poll_transmit(now).is_none());
    assert_eq!(
        connection.poll_timeout(),
        Some(now + Duration::from_secs(1))
    );
}

#[test]
fn cookie_makes_an_established_connection() {
    let cookie = Cookie {
        iss: ISS,
        irs: IRS,
        mss: Some(1000),
        window_scale: Some(2),
        sack: true,
        timestamp: Some(7),
    };
    let mut connection = Connection::from_cookie(&config(1, 2), &cookie, ms(9));
    assert_eq!(connection.state(), State::Established);
    let ack = Segment {
        src_port: 2,
        dst_port: 1,
        seq: IRS + 1,
        ack: ISS + 1,
        window: 1000,
        flags: Flags::ACK,
        options: Options {
            timestamps: Some(Timestamps { value: 8, echo: 0 }),
            ..Options::default()
        },
        payload: b"hello",
    };
    connection.handle_segment(&ack, ms(9));
    assert_eq!(connection.peek(), b"hello");
    assert_eq!(connection.stats().send_window, 4000);
    assert_eq!(connection.stats().mss, 988);
    assert_eq!(connection.send(&[1; 2000]), 2000);
    assert!(
        connection
            .poll_transmit(ms(9))
            .is_some_and(|packet| packet.len() == 32 + 988)
    );
    connection.invariants();
}

#[test]
fn time_wait_tells_a_new_connection_from_an_old_syn() {
    let syn = |seq: u32, clock: Option<u32>| Segment {
        src_port: 1,
        dst_port: 2,
        seq: SeqNumber(seq),
        ack: SeqNumber(0),
        window: 0,
        flags: Flags::SYN,
        options: Options {
            timestamps: clock.map(|value| Timestamps { value, echo: 0 }),
            ..Options::default()
        },
        payload: &[],
    };
    let wait = |ts_recent| TimeWait {
        snd_nxt: SeqNumber(5),
        rcv_nxt: SeqNumber(1000),
        ts_recent,
    };
    assert!(wait(None).admits(&syn(1001, None)));
    assert!(!wait(None).admits(&syn(1000, None)));
    assert!(!wait(Some(50)).admits(&syn(999, None)));
    assert!(wait(Some(50)).admits(&syn(999, Some(51))));
    assert!(!wait(Some(50)).admits(&syn(2000, Some(49))));
    assert!(!wait(Some(50)).admits(&syn(999, Some(50))));
    assert!(wait(Some(50)).admits(&syn(1001, Some(50))));
    let mut reset = syn(2000, None);
    reset.flags = Flags::SYN.with(Flags::RST);
    assert!(!wait(None).admits(&reset));
}

#[test]
fn memory_comes_and_goes_with_the_bytes() {
    let mut link = Link::new(Path::new(20, 0.0), 1);
    let mut left = Machine::client(config(1, 2), &[Program::Source(3_000_000)], link.now);
    left.strict = true;
    let mut right = Machine::server(config(2, 1), 1, Program::Sink);
    right.strict = true;
    let until = link.now + Duration::from_millis(300);
    while link.step([&mut left, &mut right], until) {}
    assert!(left.flow(0).connection.memory() > 60_000);
    // Everything acknowledged, nothing closed yet on this side.
    left.flow(0).program = Program::Sink;
    let until = link.now + Duration::from_secs(20);
    while link.step([&mut left, &mut right], until) {}
    assert_eq!(left.flow(0).connection.send_queue(), 0);
    for machine in [&mut left, &mut right] {
        let memory = machine.flow(0).connection.memory();
        assert!(memory <= 1536, "{memory}");
    }
    println!("a connection: {} bytes", size_of::<Connection>());
}

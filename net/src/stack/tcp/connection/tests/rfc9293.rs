//! One script for every MUST and SHOULD of RFC 9293 appendix B that concerns a connection; and for
//! what RFC 5961, RFC 7323 and RFC 2018 add. docs/tcp.md lists them.

use super::script::run;

#[test]
fn window_is_unsigned() {
    run("passive mss 1000
         < . 1 ack 1 win 65535
         write 10000
         any
         < . 1 ack 10001 win 65535
         write 20000
         stat inflight 20000-
         any");
}

#[test]
fn mss_option_is_sent_and_heard() {
    run("connect
         > S 0 mss 1460 sackok wscale 7 win 65535
         < S. 0 ack 1 mss 700
         > . 1 ack 1
         write 2000
         > . 1:701
         > . 701:1401
         > P. 1401:2001");
    run("set v6 1
         accept mss 9000
         > S. 0 ack 1 mss 1440");
}

#[test]
fn mss_without_the_option_is_536_or_1220() {
    run("active
         stat mss 536");
    run("set v6 1
         active
         stat mss 1220");
}

#[test]
fn mss_option_is_only_on_a_syn() {
    // Of the other end it would be heard nowhere else either.
    run("passive mss 1000
         < . 1:2 ack 1 mss 500
         any
         wait 20
         any
         stat mss 1000");
}

#[test]
fn options_are_read_in_any_segment_and_at_any_place() {
    // NOP, END, an unknown one, and SACK blocks behind a NOP: nothing is refused.
    run("passive mss 1000 sackok
         write 3000
         any
         < . 1 ack 1 raw 01050a000000000000000001fe0400000000
         < . 1:11 ack 1 raw fe03ff01
         wait 20
         any
         unread 10");
}

#[test]
fn bad_option_lengths_do_no_harm() {
    run("passive mss 1000
         < . 1:11 ack 1 raw 0200
         < . 11:21 ack 1 raw 080301
         < . 21:31 ack 1 raw 0528
         < . 31:41 ack 1 raw 02
         wait 20
         any
         unread 40");
    // In a SYN as well.
    run("active raw 0204058002000000
         stat mss 1408");
}

#[test]
fn window_that_shrinks_to_less() {
    run("passive mss 1000
         write 6000
         any
         # The other end takes back what it had offered: no more goes, and nothing is reset.
         < . 1 ack 1001 win 1000
         write 1000
         silent
         # What was beyond the window goes again within it.
         wait 400
         > . 1001:2001
         < . 1 ack 6001 win 60000
         > P. 6001:7001
         state Established");
}

#[test]
fn window_that_shrinks_to_nothing_over_text_in_flight() {
    run("passive mss 1000
         write 3000
         any
         < . 1 ack 1001 win 0
         silent
         wait 3000
         # One byte, again and again, and no congestion.
         > . 1001:1002
         > . 1001:1002
         any
         stat timeouts 0
         < . 1 ack 1001 win 5000
         > . 1001:1002
         > . 1002:2001
         > P. 2001:3001");
}

#[test]
fn zero_window_is_probed_for_ever_and_more_slowly() {
    run("passive mss 1000 win 0
         write 3000
         silent
         wait 7000
         >@200 . 1:2
         >@600 . 1:2
         >@1400 . 1:2
         >@3000 . 1:2
         >@6200 . 1:2
         # As long as it answers, the window may stay at zero: one hour.
         < . 1 ack 1 win 0
         wait 600000
         any
         < . 1 ack 1 win 0
         wait 600000
         any
         < . 1 ack 1 win 0
         wait 600000
         any
         state Established
         < . 1 ack 1 win 3000
         > . 1:2
         > . 2:1002
         > . 1002:2002
         any
         stat timeouts 0");
}

#[test]
fn probe_that_is_taken() {
    run("passive mss 1000 win 0
         write 3000
         wait 201
         > . 1:2
         < . 1 ack 2 win 0
         wait 401
         > . 2:3
         < . 1 ack 3 win 60000
         > . 3:1003
         > . 1003:2003
         > P. 2003:3001
         < . 1 ack 3001");
}

#[test]
fn ack_goes_with_a_number_the_peer_takes_when_its_window_is_closed() {
    run("passive mss 1000 win 0
         write 3000
         wait 201
         > . 1:2
         < P. 1:11 ack 1 win 0
         wait 20
         > . 1 ack 11");
}

#[test]
fn reset_is_heard_with_a_window_of_zero() {
    run("set rcvbuf 2000
         passive mss 1000
         < . 1:1001 ack 1
         any
         < P. 1001:2001 ack 1
         wait 20
         > . 1 ack 2001 win 0
         # Text is refused, its ACK heard.
         write 10
         > P. 1:11
         < P. 2001:3001 ack 11
         > . 11 ack 2001 win 0
         stat inflight 0
         < R 2001
         state Closed
         reason Reset");
}

#[test]
fn urgent_text_is_text() {
    run("passive mss 1000
         < PU. 1:11 ack 1
         wait 20
         > . 1 ack 11
         read 10");
}

#[test]
fn push_is_set_on_what_empties_the_queue() {
    run("passive mss 1000
         write 2500
         > . 1:1001
         > . 1001:2001
         > P. 2001:2501");
}

#[test]
fn simultaneous_open() {
    run("connect
         > S 0
         < S 0 mss 1000
         > S. 0 ack 1
         state SynReceived
         < S. 0 ack 1
         state Established
         any
         write 1
         > P. 1:2 ack 1");
}

#[test]
fn repeated_syn_is_answered_again() {
    run("accept mss 1000
         > S. 0 ack 1
         < S 0
         > S. 0 ack 1
         < . 1 ack 1
         state Established");
}

#[test]
fn syn_is_repeated_with_backoff_and_given_up_after_three_minutes() {
    run("connect
         > S 0
         wait 179000
         >@1000 S 0
         >@3000 S 0
         >@7000 S 0
         >@15000 S 0
         >@31000 S 0
         >@63000 S 0
         >@127000 S 0
         state SynSent
         wait 2000
         state Closed
         reason TimedOut");
    run("accept
         > S. 0 ack 1
         wait 3000
         > S. 0 ack 1
         > S. 0 ack 1
         wait 72000
         any
         state Closed");
}

#[test]
fn syn_sent_hears_only_what_acknowledges_it() {
    run("connect
         > S 0
         < . 1 ack 500
         > R 500
         < S. 0 ack 2
         > R 2
         < R. 0 ack 2
         silent
         < R 0
         < F. 0 ack 1
         state SynSent
         < R. 0 ack 1
         state Closed
         reason Refused");
}

#[test]
fn syn_received_resets_a_wrong_ack() {
    run("accept
         > S. 0 ack 1
         < . 1 ack 5
         > R 5
         state SynReceived
         < R 1
         state Closed");
}

#[test]
fn half_close() {
    run("active mss 1000
         close
         > F. 1 ack 1
         mute
         < . 1 ack 2
         state FinWait2
         < P. 1:101 ack 2
         wait 20
         > . 2 ack 101
         read 100
         < F. 101 ack 2
         > . 2 ack 102
         state TimeWait
         # The last ACK was lost.
         wait 5000
         < F. 101 ack 2
         > . 2 ack 102
         wait 9000
         state TimeWait
         wait 2000
         state Closed
         reason none");
}

#[test]
fn closed_by_the_other_end() {
    run("active mss 1000
         < PF. 1:11 ack 1
         > . 1 ack 12
         state CloseWait
         unread 10
         write 5
         > P. 1:6 ack 12
         close
         > F. 6 ack 12
         state LastAck
         < . 12 ack 7
         state Closed
         reason none");
}

#[test]
fn both_close_at_once() {
    run("active
         close
         > F. 1 ack 1
         < F. 1 ack 1
         > . 2 ack 2
         state Closing
         < . 2 ack 2
         state TimeWait");
}

#[test]
fn fin_goes_with_the_last_text_and_again_if_lost() {
    run("passive mss 1000
         write 1500
         > . 1:1001
         > P. 1001:1501
         close
         > F. 1501
         wait 3000
         any
         < . 1 ack 1001
         > P. 1001:1501
         > F. 1501
         < . 1 ack 1502
         state FinWait2
         any");
}

#[test]
fn fin_out_of_order_is_kept() {
    run("passive mss 1000 sackok
         < F. 101:201 ack 1
         > . 1 ack 1 sack 101-201
         state Established
         < P. 1:101 ack 1
         > . 1 ack 202
         state CloseWait
         read 200
         deaf");
    // Alone, too.
    run("passive mss 1000
         < F. 101 ack 1
         > . 1 ack 1
         < P. 1:101 ack 1
         > . 1 ack 102
         state CloseWait");
}

#[test]
fn text_after_the_fin_is_none() {
    run("passive mss 1000
         < F. 1 ack 1
         > . 1 ack 2
         < P. 2:102 ack 1
         > . 1 ack 2
         unread 0
         state CloseWait");
}

#[test]
fn abort_tells_the_other_end() {
    run("active
         write 100
         any
         abort
         > R. 101 ack 1
         state Closed");
}

#[test]
fn abandoned_with_unread_text_is_reset() {
    run("active
         < P. 1:11 ack 1
         abandon
         > R. 1 ack 11
         state Closed");
}

#[test]
fn text_after_abandoning_is_reset() {
    run("active
         abandon
         > F. 1 ack 1
         < P. 1:11 ack 2
         > R. 2 ack 1
         state Closed");
    // But not what came before.
    run("active
         < P. 1:11 ack 1
         wait 20
         > . 1 ack 11
         read 10
         abandon
         > F. 1 ack 11
         < P. 1:11 ack 2
         > . 2 ack 11
         state FinWait2
         wait 61000
         any
         state Closed");
}

#[test]
fn timeout_backs_off_and_sends_less() {
    run("passive mss 1000
         write 10000
         any
         stat cwnd 10000
         wait 600000
         >@200 . 1:1001
         >@600 . 1:1001
         >@1400 . 1:1001
         any
         stat cwnd 1000-
         stat timeouts 15-
         state Established
         wait 301000
         any
         state Closed
         reason TimedOut");
}

#[test]
fn karn_nothing_is_measured_from_what_went_twice() {
    run("passive mss 1000
         write 1000
         any
         wait 1001
         any
         stat srtt 0
         wait 1500
         any
         < . 1 ack 1001
         stat srtt 0");
}

#[test]
fn least_timeout_is_200_ms() {
    run("passive mss 1000
         write 1000
         any
         wait 20
         < . 1 ack 1001
         stat srtt 20-
         stat rto 220-
         write 1000
         any
         wait 230
         > . 1001:2001");
}

#[test]
fn acks_are_delayed_but_not_for_long() {
    run("passive mss 1000
         < P. 1:101 ack 1
         silent
         wait 9
         silent
         wait 2
         > . 1 ack 101");
}

#[test]
fn ack_waits_for_company() {
    run("passive mss 1000
         < P. 1:101 ack 1
         write 10
         > P. 1:11 ack 101
         wait 50
         silent
         any");
}

#[test]
fn every_second_full_segment_is_acknowledged_at_once() {
    run("passive mss 1000
         < P. 1:1001 ack 1
         silent
         < P. 1001:2001 ack 1
         > . 1 ack 2001");
}

#[test]
fn text_out_of_order_is_kept_and_told() {
    run("passive mss 1000 sackok
         < . 1001:2001 ack 1
         > . 1 ack 1 sack 1001-2001
         < . 3001:4001 ack 1
         > . 1 ack 1 sack 3001-4001,1001-2001
         < . 2001:3001 ack 1
         > . 1 ack 1 sack 1001-4001
         # Everything that fits is acknowledged with one.
         < . 1:1001 ack 1
         > . 1 ack 4001 nosack
         read 4000");
}

#[test]
fn four_blocks_without_clocks_and_three_with() {
    let holes = "< . 101:102 ack 1 CLOCK
         any
         < . 201:202 ack 1 CLOCK
         any
         < . 301:302 ack 1 CLOCK
         any
         < . 401:402 ack 1 CLOCK
         any
         < . 501:502 ack 1 CLOCK\n";
    run(&format!(
        "passive mss 1000 sackok
         {}> . 1 ack 1 sack 501-502,401-402,301-302,201-202",
        holes.replace("CLOCK", "")
    ));
    // The handshake's own ACK has none, and is let pass.
    run(&format!(
        "passive mss 1000 sackok ts 100 0
         {}> . 1 ack 1 sack 501-502,401-402,301-302",
        holes.replace("CLOCK", "ts 101 5000")
    ));
}

#[test]
fn what_came_twice_is_told_first() {
    run("passive mss 1000 sackok
         < P. 1:101 ack 1
         wait 20
         > . 1 ack 101
         < P. 1:101 ack 1
         > . 1 ack 101 sack 1-101
         < P. 201:301 ack 1
         > . 1 ack 101 sack 201-301
         < P. 201:301 ack 1
         > . 1 ack 101 sack 201-301,201-301
         # Half of it.
         < P. 51:151 ack 1
         > . 1 ack 151 sack 51-101,201-301");
}

#[test]
fn no_blocks_for_who_does_not_know_them() {
    run("passive mss 1000
         < . 1001:2001 ack 1
         > . 1 ack 1 nosack");
}

#[test]
fn many_holes_are_all_acknowledged() {
    let mut script = "passive mss 1000 sackok\n".to_owned();
    for hole in 0..200 {
        let at = 11 + 20 * hole;
        script += &format!("< . {at}:{} ack 1\n > . 1 ack 1\n", at + 10);
    }
    for hole in 0..200 {
        let at = 1 + 20 * hole;
        script += &format!("< . {at}:{} ack 1\n > . 1 ack {}\n", at + 10, at + 20);
    }
    run(&(script + "read 4000"));
}

#[test]
fn receiver_does_not_offer_a_silly_window() {
    run("set rcvbuf 4000
         passive mss 1000
         < . 1:1001 ack 1
         any
         < . 1001:2001 ack 1
         any
         < . 2001:3001 ack 1
         any
         < P. 3001:4001 ack 1
         wait 20
         > . 1 ack 4001 win 0
         read 20
         silent
         read 500
         silent
         # A full segment is worth it.
         read 480
         > . 1 ack 4001 win 1000
         read 500
         silent");
}

#[test]
fn sender_does_not_fill_a_silly_window() {
    run("passive mss 1000 win 5000
         write 20000
         any
         < . 1 ack 5001 win 10
         # In the end a little is better than nothing.
         silent
         wait 150
         silent
         wait 100
         > . 5001:5011
         < . 1 ack 5011 win 10
         wait 150
         silent
         # Half of the largest window is enough.
         < . 1 ack 5011 win 2500
         > . 5011:6011
         > . 6011:7011
         any");
}

#[test]
fn nagle_holds_a_small_segment_back() {
    run("passive mss 1000
         write 10
         > P. 1:11
         write 10
         silent
         write 10
         silent
         < . 1 ack 11
         > P. 11:31
         # A full one goes, and a small one behind only full ones (Minshall).
         < . 1 ack 31
         write 1500
         > . 31:1031
         > P. 1031:1531
         write 10
         silent
         nodelay
         > P. 1531:1541
         write 1
         > P. 1541:1542");
}

#[test]
fn without_nagle_small_segments_go() {
    run("passive mss 1000
         nodelay
         write 10
         > P. 1:11
         write 10
         > P. 11:21");
}

#[test]
fn keep_alive() {
    run("passive mss 1000
         wait 10000000
         silent
         keepalive
         wait 74000
         silent
         wait 2000
         > . 0 ack 1
         < . 1 ack 1
         silent
         wait 76000
         > . 0 ack 1
         # One answer lost is none of nine.
         wait 75000
         > . 0 ack 1
         < . 1 ack 1
         wait 700000
         any
         state Established
         wait 60000
         > R. 1 ack 1
         state Closed
         reason TimedOut");
}

#[test]
fn keep_alive_of_the_other_end_is_answered() {
    run("passive mss 1000
         < . 0 ack 1
         > . 1 ack 1
         wait 1000
         < . 0:1 ack 1
         > . 1 ack 1
         unread 0");
}

#[test]
fn unreachable_is_only_a_reason() {
    run("active
         write 100
         any
         unreachable
         state Established
         < . 1 ack 101
         write 100
         unreachable
         wait 1000000
         any
         reason Unreachable");
    run("connect
         > S 0
         unreachable
         state SynSent
         wait 1001
         state Closed
         reason Unreachable");
    run("connect
         > S 0
         unreachable
         < S. 0 ack 1
         > . 1 ack 1
         state Established");
}

#[test]
fn reset_must_be_exact() {
    run("passive mss 1000
         < R 2
         > . 1 ack 1
         < R 3
         silent
         < R 70000
         silent
         state Established
         < R 1
         state Closed
         reason Reset");
}

#[test]
fn syn_on_a_connection_is_challenged() {
    run("passive mss 1000
         < S 0
         > . 1 ack 1
         wait 600
         < S 5000
         > . 1 ack 1
         < S. 1 ack 1
         silent
         state Established");
}

#[test]
fn ack_of_what_was_never_sent() {
    run("passive mss 1000
         < P. 1:11 ack 5
         > . 1 ack 1
         unread 0
         wait 600
         # Or long ago.
         < P. 1:11 ack 4000000000
         > . 1 ack 1
         unread 0");
}

#[test]
fn two_acks_do_not_loop() {
    run("passive mss 1000
         < . 100000 ack 1
         > . 1 ack 1
         < . 100000 ack 1
         < . 100000 ack 1
         < . 1 ack 77
         silent");
}

#[test]
fn text_with_an_older_ack_is_taken() {
    run("passive mss 1000
         write 100
         any
         < . 1 ack 101
         < P. 1:11 ack 50
         wait 20
         > . 101 ack 11
         read 10");
}

#[test]
fn ack_of_repeated_text_is_heard() {
    run("passive mss 1000
         < P. 1:11 ack 1
         wait 20
         > . 1 ack 11
         write 100
         > P. 1:101
         < P. 1:11 ack 101
         > . 101 ack 11
         stat inflight 0");
}

#[test]
fn segment_without_an_ack_is_dropped() {
    run("passive mss 1000
         < P 1:11
         silent
         unread 0");
}

#[test]
fn text_beyond_the_window_is_cut_off() {
    run("set rcvbuf 1000
         passive mss 1000
         < P. 1:1501 ack 1
         > . 1 ack 1001 win 0
         unread 1000
         read 1000
         > . 1 ack 1001 win 1000");
}

#[test]
fn clock_that_goes_back_is_an_old_segment() {
    run("passive mss 1000 sackok ts 1000 0
         < P. 1:11 ack 1 ts 1100 5000
         wait 20
         > . 1 ack 11 ts 5010 1100
         < P. 11:21 ack 1 ts 900 5000
         > . 1 ack 11 ts 5020 1100
         unread 10
         # One that wraps goes forward.
         < P. 11:21 ack 1 ts 2147484000 5000
         wait 20
         > . 1 ack 21 ts 5030 2147484000
         # A reset needs none.
         < R 21 ts 5 0
         state Closed");
}

#[test]
fn clock_is_echoed_from_the_first_segment_that_waits() {
    run("passive mss 1000 sackok ts 1000 0
         < P. 1:101 ack 1 ts 1100 5000
         < P. 101:201 ack 1 ts 1200 5000
         wait 20
         > . 1 ack 201 ts 5010 1100
         < P. 301:401 ack 1 ts 1300 5000
         > . 1 ack 201 ts 5020 1100 sack 301-401");
}

#[test]
fn segment_without_a_clock_is_let_pass() {
    run("passive mss 1000 ts 1000 0
         < P. 1:11 ack 1
         wait 20
         > . 1 ack 11
         unread 10");
}

#[test]
fn clocks_and_scales_only_if_both_have_them() {
    run("connect
         > S 0 ts 5000 0
         < S. 0 ack 1 mss 1000
         > . 1 ack 1 nots win 65535
         stat mss 1000");
    run("connect
         > S 0
         < S. 0 ack 1 mss 1000 wscale 7 ts 9 5000 win 100
         > . 1 ack 1 ts 5000 9 win 512
         write 3000
         stat mss 988
         # The window of a SYN is not scaled.
         > . 1:101
         < . 1 ack 101 win 100 ts 9 5000
         > . 101:1089
         any");
}

#[test]
fn blocks_outside_what_was_sent_are_none() {
    run("passive mss 1000 sackok
         write 5000
         any
         < . 1 ack 1 sack 6001-7001
         < . 1 ack 1 sack 4001-9001
         < . 1 ack 1 sack 3001-2001
         < . 1 ack 1 sack 2001-2001
         < . 1 ack 1001 sack 1-50000
         silent
         stat inflight 4000
         stat recoveries 0");
}

//! Options of IPv4 headers, in replies and when forwarding.

use std::time::Duration;

use smoltcp::wire::Ipv4Packet;

use super::super::testing::ipv4;
use super::*;

const RECORD_ROUTE: [u8; 12] = [7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const TIMESTAMP: [u8; 12] = [68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// An echo request with options.
fn request(dst: &str, options: &[u8]) -> Vec<u8> {
    let mut message = [8, 0, 0, 0, 0, 7, 0, 1];
    let sum = checksum::fill_plain(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let (src, dst) = ("10.9.0.2".parse().unwrap(), dst.parse().unwrap());
    let mut packet = ipv4(src, dst, proto::ICMP, &[options, &message].concat()).to_vec();
    let mut ip = Ipv4Packet::new_unchecked(&mut packet[..]);
    ip.set_header_len((20 + options.len()) as u8);
    ip.fill_checksum();
    packet
}

#[test]
fn a_reply_has_the_route_and_the_time() {
    for (options, right) in [
        (RECORD_ROUTE, [7, 11, 8, 10, 9, 0, 1, 0, 0, 0, 0, 0]),
        (TIMESTAMP, [68, 12, 9, 0, 0, 0, 0x10, 0, 0, 0, 0, 0]),
    ] {
        let (mut ip, [dev]) = machine([&["10.9.0.1/24"]]);
        ip.now.wall = Duration::from_millis(0x1000);
        let verdict = arrive(&mut ip, dev, &request("10.9.0.1", &options)[..]);
        assert_eq!(verdict, Some(Verdict::Delivered));
        let reply = sent(&mut ip, dev).remove(0);
        let parsed = Ipv4Packet::new_checked(&reply[..]).unwrap();
        assert!(parsed.verify_checksum() && checksum::verify_plain(parsed.payload()));
        assert_eq!((parsed.payload()[0], &reply[20..32]), (0, &right[..]));
    }
    // Others are not for the reply.
    let (mut ip, [dev]) = machine([&["10.9.0.1/24"]]);
    arrive(&mut ip, dev, &request("10.9.0.1", &[0x94, 4, 0, 0])[..]);
    assert_eq!(sent(&mut ip, dev).remove(0)[0], 0x45);
}

#[test]
fn a_router_fills_in_the_address_that_it_sends_from() {
    let (mut ip, [dev, out]) = machine([&["10.9.0.1/24"], &["10.8.0.1/24"]]);
    ip.forwarding = true;
    let verdict = arrive(&mut ip, dev, &request("10.8.0.9", &RECORD_ROUTE)[..]);
    assert_eq!(verdict, Some(Verdict::Forwarded));
    let packet = sent(&mut ip, out).remove(0);
    assert!(
        Ipv4Packet::new_checked(&packet[..])
            .unwrap()
            .verify_checksum()
    );
    assert_eq!(packet[20..32], [7, 11, 8, 10, 8, 0, 1, 0, 0, 0, 0, 0]);
}

#[test]
fn what_is_wrong_is_told_where() {
    for (options, pointer) in [
        ([7, 0, 0, 0], 21),
        ([1, 7, 9, 4], 22),
        ([1, 1, 1, 7], 23),
        ([7, 4, 3, 0], 22),
        ([68, 4, 5, 0xf0], 23),
    ] {
        for dst in ["10.9.0.1", "10.8.0.9"] {
            let (mut ip, [dev, _]) = machine([&["10.9.0.1/24"], &["10.8.0.1/24"]]);
            ip.forwarding = true;
            let verdict = arrive(&mut ip, dev, &request(dst, &options)[..]);
            assert_eq!(verdict, Some(Verdict::Dropped(DropReason::BadOption)));
            let error = sent(&mut ip, dev).remove(0);
            assert_eq!(
                error[20..25],
                [12, 0, error[22], error[23], pointer],
                "{dst}"
            );
            ip.forwarding = false;
            arrive(&mut ip, dev, &request("10.8.0.9", &options)[..]);
            assert!(sent(&mut ip, dev).is_empty());
        }
    }
}

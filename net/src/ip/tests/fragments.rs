//! Fragments, and what stands behind an IPv6 fragment header.

use std::time::Duration;

use super::super::header::fragment_header;
use super::*;

const US: &str = "fd09::1";
const THEM: &str = "fd09::2";

fn first_fragment(ident: u32) -> Vec<u8> {
    let mut payload = vec![proto::UDP, 0, 0, 1, 0, 0, 0, 0];
    payload[4..].copy_from_slice(&ident.to_be_bytes());
    payload.extend_from_slice(&[0; 64]);
    ipv6(THEM, US, proto::FRAGMENT, &payload)
}

#[test]
fn what_is_evicted_is_counted_at_once_and_never_for_the_next_interface() {
    let (mut ip, [dev]) = machine([&["fd09::1/64"]]);
    for ident in 0..5000 {
        arrive(&mut ip, dev, &first_fragment(ident)[..]);
    }
    let stats = &ip.ifs.get(dev).unwrap().stats;
    let queued = stats.input().queued;
    assert!(queued > 0 && queued < 300, "{queued}");
    assert_eq!(stats.drops(DropReason::FragmentLimit), 5000 - queued);
    // The interface goes, and another gets its number.
    ip.if_detach(dev);
    let gone = ip.ifs.poll_detached().unwrap();
    ip.ifs.free_number(gone.index);
    let (flags, driver) = (IfFlags::POINTOPOINT, Driver::Tun(9));
    let next = ip.ifs.attach("tun9", driver, keep, flags, 0x17, 1500);
    assert_eq!(next, Some(dev));
    ip.now.monotonic += Duration::from_secs(100);
    ip.netisr_expire();
    assert_eq!(ip.ifs.get(dev).unwrap().stats.input(), Default::default());
    assert_eq!(ip.deadline(), None);
}

/// A fragment with `data` that begins with a header of the protocol `next`.
fn fragment(next: u8, offset: u16, more: bool, data: &[u8]) -> Vec<u8> {
    let payload = [&fragment_header(next, offset, more, 77)[..], data].concat();
    ipv6(THEM, US, proto::FRAGMENT, &payload)
}

/// The code and pointer of the one parameter problem that was sent.
fn problem(ip: &mut Ip, dev: IfIndex) -> Option<(u8, u32)> {
    let out = sent(ip, dev);
    assert!(out.len() <= 1);
    let error = out.first()?;
    assert_eq!((error[6], error[40]), (proto::ICMPV6, 4));
    Some((
        error[41],
        u32::from_be_bytes(*error[44..48].first_chunk().unwrap()),
    ))
}

#[test]
fn what_stands_behind_a_fragment_header_goes_on_from_what_is_before_it() {
    let echo = icmp6(THEM, US, 128, b"");
    let behind = |option: u8| [&[proto::ICMPV6, 0, option, 4, 0, 0, 0, 0][..], &echo].concat();
    let late_route = [&[proto::ICMPV6, 0, 0, 1, 0, 0, 0, 0][..], &echo].concat();
    let unknown = proto::DESTINATION;
    for more in [false, true] {
        for (next, data, right) in [
            (proto::HOP_BY_HOP, behind(1), Some((1, 40))),
            (unknown, behind(0x9e), Some((2, 50))),
            (unknown, behind(0x5e), None),
            (proto::ROUTING, late_route.clone(), Some((0, 50))),
        ] {
            let (mut ip, [dev]) = machine([&["fd09::1/64"]]);
            let dropped = Some(Verdict::Dropped(DropReason::BadOption));
            assert_eq!(
                arrive(&mut ip, dev, &fragment(next, 0, more, &data)[..]),
                dropped
            );
            assert_eq!(problem(&mut ip, dev), right, "{next} {more}");
        }
    }
    // An option that may be skipped is, and the request is answered.
    let (mut ip, [dev]) = machine([&["fd09::1/64"]]);
    let skipped = fragment(unknown, 0, false, &behind(0x1e));
    assert_eq!(arrive(&mut ip, dev, &skipped[..]), Some(Verdict::Delivered));
    assert_eq!(sent(&mut ip, dev).len(), 1);
}

#[test]
fn a_first_fragment_has_every_header() {
    let options = [proto::UDP, 0, 1, 4, 0, 0, 0, 0];
    for (next, data) in [
        (proto::DESTINATION, &options[..]),
        (proto::DESTINATION, &[proto::UDP, 1, 1, 12, 0, 0, 0, 0]),
        (proto::TCP, &[0; 16]),
    ] {
        let (mut ip, [dev]) = machine([&["fd09::1/64"]]);
        let verdict = arrive(&mut ip, dev, &fragment(next, 0, true, data)[..]);
        assert!(matches!(verdict, Some(Verdict::Dropped(_))), "{verdict:?}");
        assert_eq!(problem(&mut ip, dev), Some((3, 0)));
    }
    let (mut ip, [dev]) = machine([&["fd09::1/64"]]);
    assert_eq!(
        arrive(&mut ip, dev, &fragment(proto::UDP, 0, true, &[0; 8])[..]),
        None
    );
}

#[test]
fn a_fragment_that_cannot_be_one_is_told_where() {
    let (mut ip, [dev]) = machine([&["fd09::1/64"]]);
    for (offset, more, len, right) in [
        (0, true, 13, (0, 4)),
        (800, true, 13, (0, 4)),
        (65_528, false, 8, (0, 42)),
    ] {
        arrive(
            &mut ip,
            dev,
            &fragment(proto::UDP, offset, more, &vec![0; len])[..],
        );
        assert_eq!(problem(&mut ip, dev), Some(right));
    }
    // The rest of what may be an ICMP error is never reported.
    arrive(
        &mut ip,
        dev,
        &fragment(proto::ICMPV6, 800, true, &[0; 13])[..],
    );
    assert_eq!(problem(&mut ip, dev), None);
}

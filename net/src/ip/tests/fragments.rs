//! Fragments, and what stands behind an IPv6 fragment header.

use std::time::Duration;

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
    assert!(ip.ifs.poll_detached().is_some());
    let (flags, driver) = (IfFlags::POINTOPOINT, Driver::Tun(9));
    let next = ip.ifs.attach("tun9", driver, keep, flags, 0x17, 1500);
    assert_eq!(next, Some(dev));
    ip.now.monotonic += Duration::from_secs(100);
    ip.netisr_expire();
    assert_eq!(ip.ifs.get(dev).unwrap().stats.input(), Default::default());
    assert_eq!(ip.deadline(), None);
}

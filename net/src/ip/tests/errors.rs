//! Errors that this host sends: to whom, and how many.

use super::super::testing::ipv4;
use super::*;

/// A protocol that nobody here has.
const NOBODYS: u8 = 99;

#[test]
fn what_this_host_tells_itself_is_nobodys_share() {
    let (mut ip, [dev]) = machine([&["10.9.0.1/24", "fd09::1/64"]]);
    let lo0 = ip.ifs.loopback().unwrap().index;
    let [own, peer] = ["10.9.0.1", "10.9.0.2"].map(|addr| addr.parse().unwrap());
    let answers = |ip: &Ip| ip.ifs.get(lo0).unwrap().stats.opackets;
    for _ in 0..1000 {
        arrive(&mut ip, lo0, ipv4(own, own, NOBODYS, b""));
        arrive(&mut ip, lo0, &ipv6("::1", "fd09::1", NOBODYS, b"")[..]);
    }
    assert_eq!(answers(&ip), 2000);
    for _ in 0..41 {
        arrive(&mut ip, dev, ipv4(peer, own, NOBODYS, b""));
        arrive(&mut ip, dev, &ipv6("fd09::2", "fd09::1", NOBODYS, b"")[..]);
    }
    assert_eq!(sent(&mut ip, dev).len(), 82);
    // One who asks for more than a share gets the share, whatever the errors are about.
    for _ in 0..1000 {
        arrive(&mut ip, dev, ipv4(peer, own, NOBODYS, b""));
    }
    assert!(sent(&mut ip, dev).len() < 50);
}

#[test]
fn a_flood_takes_nothing_of_what_a_path_needs() {
    let (mut ip, [dev, out]) = machine([&["10.9.0.1/24"], &["10.8.0.1/24"]]);
    ip.forwarding = true;
    ip.ifs.get_mut(out).unwrap().mtu = 576;
    let [own, flood, honest, far] =
        ["10.9.0.1", "10.9.0.66", "10.9.0.2", "10.8.0.9"].map(|addr| addr.parse().unwrap());
    for _ in 0..5000 {
        arrive(&mut ip, dev, ipv4(flood, own, NOBODYS, b""));
        sent(&mut ip, dev);
    }
    for src in [flood, honest] {
        for _ in 0..41 {
            // The header says that nobody may cut it.
            arrive(&mut ip, dev, ipv4(src, far, NOBODYS, &[0; 1000]));
        }
        let errors = sent(&mut ip, dev);
        assert_eq!(errors.len(), 41, "{src}");
        assert!(errors.iter().all(|error| error[20..22] == [3, 4]));
    }
}

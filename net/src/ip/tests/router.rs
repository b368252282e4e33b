//! What a router sends on, what it does not, and whom it tells.

use smoltcp::wire::Ipv4Packet;

use super::super::testing::ipv4;
use super::*;
use crate::ifnet::{Ifnet, Outgoing, OutputError, Sent};

/// The output function of a device that nobody has open.
fn closed(ifp: &mut Ifnet, _: &mut Outgoing) -> Result<Sent, OutputError> {
    Err(ifp.refuse(DropReason::NotOpen, OutputError::HostDown))
}

#[test]
fn nothing_goes_back_to_the_one_peer() {
    let (mut ip, [dev]) = machine([&["fd09::1/64"]]);
    ip.forwarding = true;
    for (dst, right) in [
        // Nobody has this address of the network.
        ("fd09::77", Some(Verdict::Dropped(DropReason::NoRoute))),
        // A network behind the other end: as before.
        ("fd0a::1", Some(Verdict::Forwarded)),
    ] {
        let through = crate::route::Route {
            dev: Some(dev),
            tunnel: true,
            via: None,
            src: None,
            metric: 0,
            origin: crate::route::Origin::Static,
        };
        ip.routes
            .insert("fd0a::/64".parse().unwrap(), through)
            .unwrap();
        let packet = ipv6("fd09::2", dst, proto::NO_NEXT, b"");
        assert_eq!(arrive(&mut ip, dev, &packet[..]), right);
        let out = sent(&mut ip, dev);
        match right {
            Some(Verdict::Forwarded) => assert_eq!(out[0][24..26], [0xfd, 0x0a]),
            _ => assert_eq!((out[0][40], out[0][41]), (1, 3)),
        }
    }
}

#[test]
fn a_hub_sends_its_peers_to_each_other() {
    let (mut ip, [dev]) = machine([&["fd09::1/64", "10.9.0.1/24"]]);
    ip.forwarding = true;
    let hub = ip.ifs.get_mut(dev).unwrap();
    hub.flags.remove(IfFlags::POINTOPOINT);
    hub.flags.insert(IfFlags::BROADCAST);
    for (from, to) in [("fd09::2", "fd09::3"), ("fd09::3", "fd09::2")] {
        let packet = ipv6(from, to, proto::NO_NEXT, b"");
        assert_eq!(arrive(&mut ip, dev, &packet[..]), Some(Verdict::Forwarded));
        assert_eq!(sent(&mut ip, dev)[0][7], 63);
    }
    let [a, b] = ["10.9.0.2", "10.9.0.3"].map(|addr| addr.parse().unwrap());
    assert_eq!(
        arrive(&mut ip, dev, ipv4(a, b, 99, b"")),
        Some(Verdict::Forwarded)
    );
}

#[test]
fn what_an_interface_cannot_send_is_told_and_counted_as_dropped() {
    let (mut ip, [dev, out]) = machine([
        &["fd09::1/64", "10.9.0.1/24"],
        &["fd08::1/64", "10.8.0.1/24"],
    ]);
    ip.forwarding = true;
    ip.ifs.get_mut(out).unwrap().output = closed;
    let dropped = Some(Verdict::Dropped(DropReason::NetDown));
    let packet = ipv6("fd09::2", "fd08::9", proto::NO_NEXT, b"quoted");
    assert_eq!(arrive(&mut ip, dev, &packet[..]), dropped);
    let error = sent(&mut ip, dev).remove(0);
    assert_eq!((error[40], error[41]), (1, 3));
    assert!(error.ends_with(b"quoted"));
    let [src, dst] = ["10.9.0.2", "10.8.0.9"].map(|addr| addr.parse().unwrap());
    for len in [8, 3000] {
        // Without the bit that forbids fragments.
        let mut packet = ipv4(src, dst, 99, &vec![0; len]);
        packet[6] = 0;
        Ipv4Packet::new_unchecked(&mut packet[..]).fill_checksum();
        assert_eq!(arrive(&mut ip, dev, packet), dropped);
        let error = sent(&mut ip, dev).remove(0);
        assert_eq!(error[20..22], [3, 1], "{len}");
    }
    assert!(ip.ifs.get(out).unwrap().stats.output().closes());
}

#[test]
fn what_lo0_brings_for_others_is_not_forwarded() {
    let (mut ip, [_]) = machine([&["10.9.0.1/24", "fd09::1/64"]]);
    ip.forwarding = true;
    let lo0 = ip.ifs.loopback().unwrap().index;
    let dropped = Some(Verdict::Dropped(DropReason::NotForUs));
    let [src, dst] = ["10.9.0.1", "10.77.0.9"].map(|addr| addr.parse().unwrap());
    assert_eq!(arrive(&mut ip, lo0, ipv4(src, dst, 99, b"")), dropped);
    let packet = ipv6("fd09::1", "fd09::5", proto::NO_NEXT, b"");
    assert_eq!(arrive(&mut ip, lo0, &packet[..]), dropped);
}

#[test]
fn of_a_packet_all_fragments_are_sent_or_none() {
    let (mut ip, [dev]) = machine([&["10.9.0.1/24"]]);
    ip.ifs.get_mut(dev).unwrap().mtu = 72;
    let dst = "10.9.0.2".parse().unwrap();
    let path = ip.route_to(&dst, None).unwrap();
    let src = path.src.unwrap();
    for (len, most) in [(65_507, 250), (4000, 20)] {
        let limits = crate::ifnet::FifoLimits {
            packets: most,
            bytes: 1 << 20,
        };
        ip.set_queue(dev, limits);
        let sending = ip.ip_output(path, src, dst, 17, 64, Packet::zeroed(len));
        assert_eq!(sending, Err(crate::ip::NetError::NoBuffers));
        assert!(sent(&mut ip, dev).is_empty());
        let output = ip.ifs.get(dev).unwrap().stats.output();
        assert_eq!((output.queued, output.dropped), (0, output.offered));
    }
    assert_eq!(
        ip.ip_output(path, src, dst, 17, 64, Packet::zeroed(400)),
        Ok(())
    );
    assert!(sent(&mut ip, dev).len() > 1);
}

#[test]
fn the_network_of_an_address_has_its_route_beside_others() {
    use crate::route::{Origin, Route};

    let (mut ip, [dev]) = machine([&["10.7.0.1/24"]]);
    let (prefix, via) = ("10.8.0.0/24".parse().unwrap(), "10.7.0.9".parse().ok());
    let route = |metric| Route {
        dev: Some(dev),
        tunnel: true,
        via,
        src: None,
        metric,
        origin: Origin::Static,
    };
    ip.routes.insert(prefix, route(50)).unwrap();
    give_addr(&mut ip, dev, "10.8.0.1/24");
    let neighbour = "10.8.0.2".parse().unwrap();
    assert_eq!(ip.way_to(&neighbour, None).unwrap().next_hop, neighbour);
    ip.routes.remove(prefix, |route| route.via.is_some());
    assert_eq!(ip.way_to(&neighbour, None).unwrap().next_hop, neighbour);
    // When there is no room for one, the address is not given.
    let other = crate::ifnet::IfAddr::parse("10.6.0.1/24").unwrap();
    let prefix = other.prefix().unwrap();
    for metric in 0.. {
        if ip.routes.insert(prefix, route(metric)).is_err() {
            break;
        }
        assert_eq!(ip.can_connect(dev, &other), metric < 63, "{metric}");
    }
}

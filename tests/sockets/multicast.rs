//! Datagrams to groups: outgoing interface, hop limit, and loopback.

use scheme::errno;

use crate::common::libc::{
    IP, IP_ADD_MEMBERSHIP, IP_MULTICAST_IF, IP_MULTICAST_LOOP, IP_MULTICAST_TTL, IP_TTL, IPV6,
    IPV6_MULTICAST_HOPS, IPV6_MULTICAST_IF, IPV6_MULTICAST_LOOP, Libc, int, mreq,
};
use crate::{BOTH, hops, sent, set, system, tunnel, tunnel_with_head};

#[test]
fn where_and_how_far_datagrams_to_groups_go() {
    let system = system();
    let libc = Libc::new(&system);
    let tun = tunnel_with_head(&libc);
    let other = libc.0.open("/scheme/tun/1", BOTH).unwrap();
    libc.0.set_nonblocking(other, true).unwrap();
    set(&libc, "ifaces/tun1/addr/set", "10.2.0.1/24\n");
    let fresh = libc.socket("udp");
    assert_eq!(libc.option_at(IP, fresh, IP_MULTICAST_TTL), Ok(1));
    assert_eq!(libc.option_at(IP, fresh, IP_MULTICAST_LOOP), Ok(1));
    assert_eq!(libc.option_at(IP, fresh, IP_MULTICAST_IF), Ok(0));
    let sender = libc.connect(fresh, "239.1.2.3:5000").unwrap();
    let send = || libc.0.write(sender, b"x").unwrap();
    send();
    libc.set_option_at(IP, sender, IP_MULTICAST_TTL, &[32])
        .unwrap();
    send();
    libc.set_option_at(IP, sender, IP_MULTICAST_TTL, &int(-1))
        .unwrap();
    send();
    // The unicast hop limit does not apply.
    libc.set_option_at(IP, sender, IP_TTL, &int(99)).unwrap();
    send();
    assert_eq!(hops(&libc, tun), [1, 32, 1, 1]);
    // The packet does not leave this host.
    libc.set_option_at(IP, sender, IP_MULTICAST_TTL, &int(0))
        .unwrap();
    send();
    assert_eq!(hops(&libc, tun), []);
    assert_eq!(hops(&libc, other), []);

    libc.set_option_at(IP, sender, IP_MULTICAST_TTL, &int(5))
        .unwrap();
    libc.set_option_at(IP, sender, IP_MULTICAST_IF, &[10, 2, 0, 1])
        .unwrap();
    let addr = libc.option_at(IP, sender, IP_MULTICAST_IF).unwrap();
    assert_eq!(addr.to_ne_bytes(), [10, 2, 0, 1]);
    send();
    let packets = sent(&libc, other);
    assert_eq!(
        (packets.len(), &packets[0][12..16]),
        (1, &[10, 2, 0, 1][..])
    );
    // The address is gone, and so is the route; an unknown address is refused.
    set(&libc, "ifaces/tun1/addr/rm", "10.2.0.1/24\n");
    assert_eq!(libc.0.write(sender, b"x"), Err(errno::EADDRNOTAVAIL));
    let set_if = |addr: &[u8]| libc.set_option_at(IP, sender, IP_MULTICAST_IF, addr);
    assert_eq!(set_if(&[10, 2, 0, 1]), Err(errno::EADDRNOTAVAIL));
    assert_eq!(set_if(&[0; 4]), Ok(0));
    send();
    assert_eq!(hops(&libc, tun), [5]);

    // IPv6 has the same options; interfaces have no index.
    let sender = libc
        .connect(libc.socket("udp"), "[ff05::1234]:5000")
        .unwrap();
    libc.0.write(sender, b"x").unwrap();
    libc.set_option_at(IPV6, sender, IPV6_MULTICAST_HOPS, &int(9))
        .unwrap();
    libc.0.write(sender, b"x").unwrap();
    assert_eq!(hops(&libc, tun), [1, 9]);
    assert_eq!(libc.option_at(IPV6, sender, IPV6_MULTICAST_LOOP), Ok(1));
    assert_eq!(
        libc.set_option_at(IPV6, sender, IPV6_MULTICAST_IF, &int(0)),
        Ok(0)
    );
    let by_index = libc.set_option_at(IPV6, sender, IPV6_MULTICAST_IF, &int(1));
    assert_eq!(by_index, Err(errno::EADDRNOTAVAIL));
    let stream = libc.socket("tcp");
    assert_eq!(
        libc.option_at(IP, stream, IP_MULTICAST_TTL),
        Err(errno::EOPNOTSUPP)
    );
}

#[test]
fn the_interface_of_groups_is_an_address_and_nothing_else() {
    let system = system();
    let libc = Libc::new(&system);
    let fd = libc.socket("udp");
    let lo0 = [127, 0, 0, 1];
    assert_eq!(libc.set_option_at(IP, fd, IP_MULTICAST_IF, &lo0), Ok(0));
    // Other sizes are refused, even that of struct ip_mreqn, which begins with the group.
    let mreqn = [&[0; 4][..], &lo0, &[0; 4]].concat();
    for other in [&[][..], &[0], &[0; 3], &[0; 5], &mreqn] {
        let set = libc.set_option_at(IP, fd, IP_MULTICAST_IF, other);
        assert_eq!(set, Err(errno::EINVAL), "{other:?}");
    }
    let kept = libc
        .option_at(IP, fd, IP_MULTICAST_IF)
        .map(i32::to_ne_bytes);
    assert_eq!(kept, Ok(lo0));
}

#[test]
fn what_is_sent_to_a_group_comes_back_to_members_here() {
    let system = system();
    let libc = Libc::new(&system);
    let tun = tunnel(&libc);
    let member = libc.bind(libc.socket("udp"), "0.0.0.0:5000").unwrap();
    let sender = libc.connect(libc.socket("udp"), "239.1.2.3:5000").unwrap();
    let send = |data: &[u8]| assert_eq!(libc.0.write(sender, data), Ok(data.len()));
    let received = || {
        libc.recvmsg(member, 10, 64)
            .map(|(from, _, data)| (from, data))
    };
    send(b"nobody");
    assert_eq!(received(), Err(errno::EAGAIN));
    let group = mreq([239, 1, 2, 3], [0; 4]);
    libc.set_option_at(IP, member, IP_ADD_MEMBERSHIP, &group)
        .unwrap();
    send(b"one");
    let port = libc.sockname(sender);
    let port = port.rsplit(':').next().unwrap();
    let from = format!("/scheme/udp/10.1.0.1:{port}");
    assert_eq!(received(), Ok((from.clone(), b"one".to_vec())));
    assert_eq!(received(), Err(errno::EAGAIN));
    libc.set_option_at(IP, sender, IP_MULTICAST_LOOP, &int(0))
        .unwrap();
    send(b"two");
    assert_eq!(received(), Err(errno::EAGAIN));
    // Only to this host.
    libc.set_option_at(IP, sender, IP_MULTICAST_LOOP, &[1])
        .unwrap();
    libc.set_option_at(IP, sender, IP_MULTICAST_TTL, &int(0))
        .unwrap();
    sent(&libc, tun);
    send(b"three");
    assert_eq!(received(), Ok((from, b"three".to_vec())));
    assert_eq!(hops(&libc, tun), []);
    // Over lo0 there is one copy, too.
    libc.set_option_at(
        IP,
        member,
        IP_ADD_MEMBERSHIP,
        &mreq([239, 1, 2, 3], [127, 0, 0, 1]),
    )
    .unwrap();
    libc.set_option_at(IP, sender, IP_MULTICAST_IF, &[127, 0, 0, 1])
        .unwrap();
    libc.set_option_at(IP, sender, IP_MULTICAST_TTL, &int(1))
        .unwrap();
    send(b"four");
    assert_eq!(received().unwrap().1, b"four");
    assert_eq!(received(), Err(errno::EAGAIN));
}

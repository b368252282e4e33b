//! Group memberships, and their reports.

use std::time::Duration;

use scheme::errno;
use scheme::local::Fd;
use scheme::{FileServer, Now, OpenFlags, Outcome, Ready};

use crate::common::libc::{
    IP, IP_ADD_MEMBERSHIP, IP_DROP_MEMBERSHIP, IPV6, IPV6_JOIN_GROUP, IPV6_LEAVE_GROUP, Libc, mreq,
};
use crate::common::packet::{ipv4, udp};
use crate::{BOTH, host, sent, set, system, system_by_hand, tunnel, tunnel_with_head};

#[test]
fn a_socket_joins_groups_and_leaves_them_with_its_last_file() {
    const GROUP: [u8; 4] = [239, 1, 2, 3];

    let system = system();
    let libc = Libc::new(&system);
    let tun = tunnel(&libc);
    let datagram = udp(("10.1.0.2", 9), ("239.1.2.3", 5000), b"all");
    let fresh = libc.socket("udp");
    let join =
        |fd, interface| libc.set_option_at(IP, fd, IP_ADD_MEMBERSHIP, &mreq(GROUP, interface));
    let leave =
        |fd, interface| libc.set_option_at(IP, fd, IP_DROP_MEMBERSHIP, &mreq(GROUP, interface));
    assert_eq!(join(fresh, [0; 4]), Ok(0));
    assert_eq!(reports(&libc, tun), [(JOINED, GROUP)]);
    // Once only, by any name of the interface.
    assert_eq!(join(fresh, [0; 4]), Err(errno::EADDRINUSE));
    assert_eq!(join(fresh, [10, 1, 0, 1]), Err(errno::EADDRINUSE));

    // The membership moves along with the socket from file to file.
    let bound = libc.bind(fresh, "0.0.0.0:5000").unwrap();
    libc.0.write(tun, &datagram).unwrap();
    assert_eq!(libc.recvmsg(bound, 10, 64).unwrap().2, b"all");
    let copy = libc.0.dup_verb(bound, b"10.1.0.2:9").unwrap();
    libc.0.close(bound).unwrap();
    assert_eq!(reports(&libc, tun), []);
    assert_eq!(join(copy, [0; 4]), Err(errno::EADDRINUSE));

    // Another socket is a member by itself: the interface leaves the group with the last member.
    let other = libc.socket("udp");
    assert_eq!(join(other, [10, 1, 0, 1]), Ok(0));
    libc.0.close(copy).unwrap();
    assert_eq!(reports(&libc, tun), []);
    assert_eq!(leave(other, [0; 4]), Ok(0));
    assert_eq!(reports(&libc, tun), [(LEFT, GROUP)]);
    assert_eq!(leave(other, [0; 4]), Err(errno::EADDRNOTAVAIL));
    libc.0.write(tun, &datagram).unwrap();
    assert!(libc.0.path(other).is_ok());
    let bound = libc.bind(other, "0.0.0.0:5000").unwrap();
    libc.0.write(tun, &datagram).unwrap();
    assert_eq!(libc.recvmsg(bound, 10, 64), Err(errno::EAGAIN));
    // A socket that never got a name, too.
    let fresh = libc.socket("udp");
    join(fresh, [0; 4]).unwrap();
    libc.0.close(fresh).unwrap();
    assert_eq!(reports(&libc, tun), [(JOINED, GROUP), (LEFT, GROUP)]);
}

#[test]
fn a_change_is_reported_twice() {
    const GROUP: [u8; 4] = [239, 1, 2, 3];

    let (system, clock) = system_by_hand();
    let libc = Libc::new(&system);
    let tun = tunnel(&libc);
    let fd = libc.socket("udp");
    let join = || libc.set_option_at(IP, fd, IP_ADD_MEMBERSHIP, &mreq(GROUP, [0; 4]));
    let leave = || libc.set_option_at(IP, fd, IP_DROP_MEMBERSHIP, &mreq(GROUP, [0; 4]));
    let wait = || {
        clock.advance(Duration::from_secs(10));
        system.pump();
    };
    join().unwrap();
    assert_eq!(reports(&libc, tun), [(JOINED, GROUP)]);
    wait();
    assert_eq!(reports(&libc, tun), [(JOINED, GROUP)]);
    wait();
    assert_eq!(reports(&libc, tun), []);
    // So is the leave, and of what follows fast only the last.
    leave().unwrap();
    join().unwrap();
    leave().unwrap();
    let said = [(LEFT, GROUP), (JOINED, GROUP), (LEFT, GROUP)];
    assert_eq!(reports(&libc, tun), said);
    wait();
    assert_eq!(reports(&libc, tun), [(LEFT, GROUP)]);
    wait();
    assert_eq!(reports(&libc, tun), []);
}

#[test]
fn what_was_joined_before_it_could_be_said_is_reported_then() {
    const GROUP: [u8; 4] = [239, 1, 2, 3];

    let (system, clock) = system_by_hand();
    let libc = Libc::new(&system);
    let tun = libc.0.open("/scheme/tun/0", BOTH).unwrap();
    libc.0.set_nonblocking(tun, true).unwrap();
    let said = || {
        clock.advance(Duration::from_secs(10));
        system.pump();
        reports(&libc, tun)
    };
    // The group is joined before there is an address.
    set(&libc, "ifaces/tun0/multicast", "join 239.1.2.3\n");
    assert_eq!(said(), []);
    set(&libc, "ifaces/tun0/addr/set", "10.1.0.1/24\n");
    assert_eq!(said(), [(JOINED, GROUP), (JOINED, GROUP)]);
    // Another address causes no new report.
    set(&libc, "ifaces/tun0/addr/add", "10.1.1.1/24\n");
    set(&libc, "ifaces/tun0/flags", "up\n");
    assert_eq!(said(), []);
    set(&libc, "ifaces/tun0/multicast", "leave 239.1.2.3\n");
    assert_eq!(said(), [(LEFT, GROUP), (LEFT, GROUP)]);
    // The group is joined while the interface is down.
    set(&libc, "ifaces/tun0/flags", "down\n");
    let fd = libc.socket("udp");
    let group = mreq(GROUP, [10, 1, 0, 1]);
    libc.set_option_at(IP, fd, IP_ADD_MEMBERSHIP, &group)
        .unwrap();
    assert_eq!(said(), []);
    set(&libc, "ifaces/tun0/flags", "up\n");
    assert_eq!(said(), [(JOINED, GROUP), (JOINED, GROUP)]);
}

#[test]
fn groups_that_everybody_is_in_are_never_reported() {
    let (system, clock) = system_by_hand();
    let libc = Libc::new(&system);
    let tun = tunnel_with_head(&libc);
    sent(&libc, tun);
    let said = || {
        clock.advance(Duration::from_secs(10));
        system.pump();
        sent(&libc, tun).len()
    };
    for quiet in ["224.0.0.1", "ff02::1", "ff00::7", "ff11::7"] {
        set(&libc, "ifaces/tun0/multicast", &format!("join {quiet}\n"));
        assert_eq!(said(), 0, "{quiet}");
        // Not even in answer to a router's query.
        let query = [&[0x11, 10, 0xec, 0x78][..], &[0; 4], &[2, 125, 0, 0]].concat();
        let from = "10.1.0.2".parse().unwrap();
        let packet = ipv4(from, "224.0.0.1".parse().unwrap(), 2, &query);
        let framed = [&[0, 0, 0, 2][..], &packet].concat();
        libc.0.write(tun, &framed).unwrap();
        assert_eq!(said(), 0, "{quiet}");
        set(&libc, "ifaces/tun0/multicast", &format!("leave {quiet}\n"));
        assert_eq!(said(), 0, "{quiet}");
    }
    for told in ["224.0.0.2", "ff02::2", "ff05::1"] {
        set(&libc, "ifaces/tun0/multicast", &format!("join {told}\n"));
        assert_eq!(said(), 2, "{told}");
        set(&libc, "ifaces/tun0/multicast", &format!("leave {told}\n"));
        assert_eq!(said(), 2, "{told}");
    }
}

#[test]
fn who_watches_groups_hears_of_sockets() {
    let (mut net, caller) = host();
    let path = "netcfg/ifaces/lo0/multicast";
    let text = net.open(path, OpenFlags::READ, caller).unwrap();
    let sockets = [(); 2].map(|()| net.open("udp", BOTH, caller).unwrap());
    // Whether a program that read the text, and watches for the next change, is woken.
    let mut told = |socket, option| {
        let read = net.read(text, &mut [0; 100], 0, caller);
        assert!(matches!(read, Outcome::Done(Ok(_))), "{read:?}");
        assert_eq!(net.ready(text), Ready::WRITE);
        let _ = net.turn(Now::default());
        while net.poll_wakeup().is_some() {}
        let mut group = mreq([239, 1, 2, 3], [127, 0, 0, 1]);
        let done = net.call(socket, &mut group, &[2, option, 1 << 32 | IP], caller);
        assert_eq!(done, Outcome::Done(Ok(0)));
        let _ = net.turn(Now::default());
        std::iter::from_fn(|| net.poll_wakeup()).any(|wakeup| wakeup.file == text)
    };
    let [one, other] = sockets;
    assert!(told(one, IP_ADD_MEMBERSHIP));
    assert!(!told(other, IP_ADD_MEMBERSHIP));
    assert!(!told(one, IP_DROP_MEMBERSHIP));
    assert!(told(other, IP_DROP_MEMBERSHIP));
}

#[test]
fn netcfg_leaves_only_what_it_joined() {
    const GROUP: [u8; 4] = [239, 1, 2, 3];

    let system = system();
    let libc = Libc::new(&system);
    let tun = tunnel(&libc);
    let setting = |line: &str| {
        let path = "/scheme/netcfg/ifaces/tun0/multicast";
        let file = libc.0.open(path, OpenFlags::WRITE).unwrap();
        let written = libc.0.write(file, line.as_bytes()).map(drop);
        libc.0.close(file).unwrap();
        written
    };
    let fd = libc.socket("udp");
    let group = mreq(GROUP, [0; 4]);
    libc.set_option_at(IP, fd, IP_ADD_MEMBERSHIP, &group)
        .unwrap();
    assert_eq!(setting("leave 239.1.2.3\n"), Err(errno::EINVAL));
    assert_eq!(reports(&libc, tun), [(JOINED, GROUP)]);
    // The interface leaves with the last member.
    assert_eq!(setting("join 239.1.2.3\n"), Ok(()));
    libc.0.close(fd).unwrap();
    assert_eq!(reports(&libc, tun), []);
    assert_eq!(setting("leave 239.1.2.3\n"), Ok(()));
    assert_eq!(reports(&libc, tun), [(LEFT, GROUP)]);
    assert_eq!(setting("leave 239.1.2.3\n"), Err(errno::EINVAL));
}

#[test]
fn memberships_that_cannot_be() {
    let system = system();
    let libc = Libc::new(&system);
    let fd = libc.socket("udp");
    let join = |fd, group, interface| {
        libc.set_option_at(IP, fd, IP_ADD_MEMBERSHIP, &mreq(group, interface))
    };
    let leave =
        |group, interface| libc.set_option_at(IP, fd, IP_DROP_MEMBERSHIP, &mreq(group, interface));
    let group = [239, 0, 0, 1];
    // There is no interface but lo0, which must be named.
    assert_eq!(join(fd, group, [0; 4]), Err(errno::EADDRNOTAVAIL));
    assert_eq!(join(fd, group, [127, 0, 0, 1]), Ok(0));
    assert_eq!(leave(group, [127, 0, 0, 1]), Ok(0));
    assert_eq!(join(fd, group, [10, 9, 9, 9]), Err(errno::EADDRNOTAVAIL));
    assert_eq!(join(fd, [10, 1, 0, 2], [127, 0, 0, 1]), Err(errno::EINVAL));
    assert_eq!(leave([10, 1, 0, 2], [0; 4]), Err(errno::EINVAL));
    assert_eq!(leave(group, [10, 9, 9, 9]), Err(errno::EADDRNOTAVAIL));
    let short = libc.set_option_at(IP, fd, IP_ADD_MEMBERSHIP, &group);
    assert_eq!(short, Err(errno::EINVAL));
    let stream = libc.socket("tcp");
    let joined = join(stream, group, [127, 0, 0, 1]);
    assert_eq!(joined, Err(errno::EOPNOTSUPP));
    assert_eq!(
        libc.option_at(IP, fd, IP_ADD_MEMBERSHIP),
        Err(errno::ENOPROTOOPT)
    );

    // Twenty groups for a socket, and 256 for an interface, however many sockets there are. The
    // last 32 are reserved for the superuser.
    for last in 0..20 {
        assert_eq!(join(fd, [239, 1, 0, last], [127, 0, 0, 1]), Ok(0));
    }
    let more = join(fd, [239, 1, 0, 20], [127, 0, 0, 1]);
    assert_eq!(more, Err(errno::ENOBUFS));
    leave([239, 1, 0, 7], [0; 4]).unwrap();
    join(fd, [239, 1, 0, 20], [127, 0, 0, 1]).unwrap();
    let mut joined = 20;
    let mut fill = |libc: &Libc| loop {
        let other = libc.socket("udp");
        for last in 0..20 {
            let group = mreq([239, 2, joined as u8, last], [127, 0, 0, 1]);
            match libc.set_option_at(IP, other, IP_ADD_MEMBERSHIP, &group) {
                Ok(_) => joined += 1,
                Err(error) => return (error, joined),
            }
        }
    };
    let user = Libc(system.process(2, 1000));
    assert_eq!(fill(&user), (errno::ENOBUFS, 224));
    assert_eq!(fill(&libc), (errno::ENOBUFS, 256));
    // Joining a group that is already joined takes no more room.
    let known = mreq([239, 1, 0, 1], [127, 0, 0, 1]);
    for libc in [&user, &*libc] {
        let fd = libc.socket("udp");
        assert_eq!(libc.set_option_at(IP, fd, IP_ADD_MEMBERSHIP, &known), Ok(0));
    }
}

#[test]
fn an_interface_that_goes_takes_memberships_along() {
    let system = system();
    let libc = Libc::new(&system);
    let tun = tunnel(&libc);
    let group = [239, 1, 2, 3];
    let fd = libc.socket("udp");
    let join = || libc.set_option_at(IP, fd, IP_ADD_MEMBERSHIP, &mreq(group, [0; 4]));
    join().unwrap();
    libc.0.close(tun).unwrap();
    set(&libc, "ifaces/tun0/destroy", "1\n");
    let left = libc.set_option_at(IP, fd, IP_DROP_MEMBERSHIP, &mreq(group, [0; 4]));
    assert_eq!(left, Err(errno::EADDRNOTAVAIL));
    // A new interface with the same number does not inherit memberships.
    let tun = tunnel(&libc);
    set(&libc, "ifaces/tun0/multicast", "join 239.1.2.3\n");
    libc.0.close(fd).unwrap();
    assert_eq!(reports(&libc, tun), [(JOINED, group)]);
}

#[test]
fn what_was_refused_is_not_reported() {
    const GROUP: [u8; 4] = [239, 1, 2, 3];

    let system = system();
    let libc = Libc::new(&system);
    let tun = tunnel(&libc);
    let path = "ifaces/tun0/multicast";
    let write = |lines: &str| crate::common::program::set(&libc.0, path, lines);
    let refused = write("join 239.1.2.3\nleave 239.9.9.9\n");
    assert_eq!(refused, Err(errno::EINVAL));
    assert_eq!(reports(&libc, tun), []);
    set(&libc, path, "join 239.1.2.3\n");
    assert_eq!(reports(&libc, tun), [(JOINED, GROUP)]);
    let refused = write("leave 239.1.2.3\nleave 239.1.2.3\n");
    assert_eq!(refused, Err(errno::EINVAL));
    // Nor is what the same write took back.
    set(&libc, path, "leave 239.1.2.3\njoin 239.1.2.3\n");
    set(&libc, path, "join 239.4.4.4\nleave 239.4.4.4\n");
    assert_eq!(reports(&libc, tun), []);
    set(&libc, path, "leave 239.1.2.3\n");
    assert_eq!(reports(&libc, tun), [(LEFT, GROUP)]);
}

#[test]
fn groups_of_ipv6() {
    let system = system();
    let libc = Libc::new(&system);
    let tun = tunnel_with_head(&libc);
    let group: std::net::Ipv6Addr = "ff05::1234".parse().unwrap();
    let mreq = |index: u32| [&group.octets()[..], &index.to_ne_bytes()].concat();
    let fd = libc.bind(libc.socket("udp"), "[::]:5000").unwrap();
    let join = |index| libc.set_option_at(IPV6, fd, IPV6_JOIN_GROUP, &mreq(index));
    assert_eq!(join(0), Ok(0));
    let packets = sent(&libc, tun);
    // The type behind the hop-by-hop header, and the only record.
    let said = |kind: u8| [&[0, 0, 0, 1, kind, 0, 0, 0][..], &group.octets()].concat();
    assert_eq!(packets[0][4 + 48], 143);
    assert_eq!(packets[0][4 + 52..], said(JOINED));
    assert_eq!(join(0), Err(errno::EADDRINUSE));
    assert_eq!(join(1), Err(errno::EADDRNOTAVAIL));
    let datagram = udp(("fd00::2", 9), ("ff05::1234", 5000), b"all");
    let framed = [&[0, 0, 0, 24][..], &datagram].concat();
    libc.0.write(tun, &framed).unwrap();
    assert_eq!(libc.recvmsg(fd, 10, 64).unwrap().2, b"all");
    assert_eq!(
        libc.set_option_at(IPV6, fd, IPV6_LEAVE_GROUP, &mreq(0)),
        Ok(0)
    );
    assert_eq!(sent(&libc, tun)[0][4 + 52..], said(LEFT));
    let again = libc.set_option_at(IPV6, fd, IPV6_LEAVE_GROUP, &mreq(0));
    assert_eq!(again, Err(errno::EADDRNOTAVAIL));
}

/// The types of the records that left by a tunnel in messages of IGMP version 3, and their groups.
fn reports(libc: &Libc, tun: Fd) -> Vec<(u8, [u8; 4])> {
    let mut reports = Vec::new();
    for packet in sent(libc, tun).iter().filter(|packet| packet[9] == 2) {
        assert_eq!(packet[16..20], [224, 0, 0, 22]);
        assert_eq!(packet[24], 0x22);
        let records = packet[32..].chunks_exact(8);
        assert_eq!(usize::from(packet[31]), records.len());
        reports.extend(records.map(|record| (record[0], record[4..].try_into().unwrap())));
    }
    reports
}

/// CHANGE_TO_EXCLUDE_MODE: of no source, so all are wanted.
const JOINED: u8 = 4;

/// CHANGE_TO_INCLUDE_MODE: of no source.
const LEFT: u8 = 3;

#[test]
fn all_memberships_are_bounded_and_the_last_are_the_superusers() {
    let system = system();
    // Many sockets are in the same groups, which is the same to the interface.
    let fill = |libc: &Libc| {
        let mut joined = 0;
        loop {
            let fd = libc.socket("udp");
            for last in 0..16 {
                let group = mreq([239, 1, 0, last], [127, 0, 0, 1]);
                match libc.set_option_at(IP, fd, IP_ADD_MEMBERSHIP, &group) {
                    Ok(_) => joined += 1,
                    Err(error) => return (error, joined),
                }
            }
        }
    };
    let user = Libc(system.process(2, 1000));
    assert_eq!(fill(&user), (errno::ENOBUFS, 65_536 - 4096));
    let root = Libc::new(&system);
    let first = root.socket("udp");
    let group = mreq([239, 1, 0, 1], [127, 0, 0, 1]);
    root.set_option_at(IP, first, IP_ADD_MEMBERSHIP, &group)
        .unwrap();
    assert_eq!(fill(&root), (errno::ENOBUFS, 4095));
    // What a socket leaves when it is closed is free for another.
    root.0.close(first).unwrap();
    assert_eq!(fill(&root), (errno::ENOBUFS, 1));
}

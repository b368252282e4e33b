//! Options of one socket: hop limits, buffers, Nagle.

use std::time::Duration;

use scheme::Ready;
use scheme::errno;

use crate::common::libc::{
    IP, IP_TTL, IPV6, IPV6_UNICAST_HOPS, Libc, SO_RCVBUF, SO_SNDBUF, TCP, TCP_NODELAY, int,
};
use crate::common::packet::{checksum, ipv4};
use crate::{BOTH, hops, sent, system, tunnel, tunnel_with_head};

#[test]
fn the_hop_limit_is_a_file_of_one_byte() {
    let system = system();
    let libc = Libc::new(&system);
    let tun = tunnel(&libc);
    // If it is set before there is a name, the connection inherits it.
    let stream = libc.socket("tcp");
    libc.0.set_nonblocking(stream, true).unwrap();
    let setting = libc.0.dup_verb(stream, b"hop_limit").unwrap();
    let mut buf = [0; 4];
    assert_eq!(libc.0.read(setting, &mut buf), Ok(1));
    assert_eq!(buf, [64, 0, 0, 0]);
    assert_eq!(libc.0.write(setting, &[0]), Err(errno::EINVAL));
    assert_eq!(libc.0.write(setting, &[]), Err(errno::EIO));
    assert_eq!(libc.0.read(setting, &mut []), Err(errno::EIO));
    assert_eq!(libc.0.write(setting, &[9, 8, 7]), Ok(1));
    assert_eq!(libc.0.read(setting, &mut buf), Ok(1));
    assert_eq!(buf, [9, 0, 0, 0]);
    let begun = libc.0.dup_verb(stream, b"10.1.0.2:80");
    assert_eq!(begun, Err(errno::EINPROGRESS));
    assert_eq!(hops(&libc, tun), [9]);

    // Datagrams: the copies that sendto makes use it, too.
    let datagrams = libc.bind(libc.socket("udp"), "0.0.0.0:0").unwrap();
    let setting = libc.0.dup_verb(datagrams, b"hop_limit").unwrap();
    let send = || {
        let copy = libc.0.dup_verb(datagrams, b"10.1.0.2:9").unwrap();
        libc.0.write(copy, b"x").unwrap();
        libc.0.close(copy).unwrap();
    };
    send();
    libc.0.write(setting, &[255]).unwrap();
    send();
    assert_eq!(hops(&libc, tun), [64, 255]);

    let ping = libc.0.open("/scheme/icmp/echo/10.1.0.2", BOTH).unwrap();
    let setting = libc.0.dup_verb(ping, b"hop_limit").unwrap();
    libc.0.write(setting, &[3]).unwrap();
    assert_eq!(libc.0.read(setting, &mut buf), Ok(1));
    assert_eq!(buf[0], 3);
    libc.0.write(ping, &[0, 1]).unwrap();
    assert_eq!(hops(&libc, tun), [3]);
    assert_eq!(libc.0.dup_verb(ping, b"10.1.0.3"), Err(errno::EINVAL));
}

#[test]
fn a_listeners_hop_limit_is_that_of_what_it_accepts() {
    let system = system();
    let libc = Libc::new(&system);
    let tun = tunnel(&libc);
    let listener = libc.bind(libc.socket("tcp"), "10.1.0.1:80").unwrap();
    let setting = libc.0.dup_verb(listener, b"hop_limit").unwrap();
    // RFC 5082: both ends send with the highest, so that a distant sender cannot pretend to be
    // near.
    libc.0.write(setting, &[255]).unwrap();
    let mut syn = [
        &4000_u16.to_be_bytes()[..],
        &80_u16.to_be_bytes(),
        &[0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 16, 0, 0, 0, 0, 0],
    ]
    .concat();
    let (src, dst) = ([10, 1, 0, 2], [10, 1, 0, 1]);
    let sum = checksum(&[&src, &dst, &[0, 6, 0, 20], &syn]);
    syn[16..18].copy_from_slice(&sum.to_be_bytes());
    libc.0
        .write(tun, &ipv4(src.into(), dst.into(), 6, &syn))
        .unwrap();
    assert_eq!(hops(&libc, tun), [255]);
}

#[test]
fn the_hop_limit_as_an_option() {
    let system = system();
    let libc = Libc::new(&system);
    let tun = tunnel_with_head(&libc);
    for (level, option, peer) in [
        (IP, IP_TTL, "10.1.0.2:9"),
        (IPV6, IPV6_UNICAST_HOPS, "[fd00::2]:9"),
    ] {
        let fresh = libc.socket("udp");
        assert_eq!(libc.option_at(level, fresh, option), Ok(64));
        assert_eq!(libc.set_option_at(level, fresh, option, &int(7)), Ok(0));
        assert_eq!(libc.option_at(level, fresh, option), Ok(7));
        for bad in [0, -2, 256] {
            let set = libc.set_option_at(level, fresh, option, &int(bad));
            assert_eq!(set, Err(errno::EINVAL), "{bad}");
        }
        assert_eq!(
            libc.set_option_at(level, fresh, option, &[]),
            Err(errno::EINVAL)
        );
        let client = libc.connect(fresh, peer).unwrap();
        libc.0.write(client, b"x").unwrap();
        // The default again; and as one byte, as programs for BSD pass it.
        libc.set_option_at(level, client, option, &int(-1)).unwrap();
        libc.0.write(client, b"x").unwrap();
        libc.set_option_at(level, client, option, &[200]).unwrap();
        libc.0.write(client, b"x").unwrap();
        assert_eq!(hops(&libc, tun), [7, 64, 200]);
        // It is the same as in the option file.
        let setting = libc.0.dup_verb(client, b"hop_limit").unwrap();
        let mut hops = [0];
        libc.0.read(setting, &mut hops).unwrap();
        assert_eq!(hops, [200]);
    }
    // The level must be marked as present: the kernel fills missing words with zeros.
    let fd = libc.socket("udp");
    let words = |level| [3, IP_TTL, level];
    for unknown in [6, 41, 1 << 32 | 17] {
        let got = libc.0.sys_call(fd, &mut [0; 4], &words(unknown));
        assert_eq!(got, Err(errno::ENOPROTOOPT));
    }
    assert_eq!(libc.option_at(1, fd, SO_RCVBUF), libc.option(fd, SO_RCVBUF));
    assert_eq!(libc.option_at(IP, fd, 99), Err(errno::ENOPROTOOPT));
}

#[test]
fn buffers_are_as_large_as_was_asked() {
    let system = system();
    let libc = Libc::new(&system);
    // The size stays within bounds, whatever is asked for.
    let fresh = libc.socket("tcp");
    assert_eq!(libc.option(fresh, SO_RCVBUF), Ok(65_536));
    for (asked, told) in [(0, 4096), (10_000, 10_000), (i32::MAX, 6 << 20)] {
        assert_eq!(libc.set_option(fresh, SO_SNDBUF, asked), Ok(0));
        assert_eq!(libc.option(fresh, SO_SNDBUF), Ok(told));
    }
    assert_eq!(libc.set_option(fresh, SO_SNDBUF, -1), Err(errno::EINVAL));
    assert_eq!(
        libc.0.sys_call(fresh, &mut [0; 3], &[2, SO_SNDBUF]),
        Err(errno::EINVAL)
    );

    // A connection inherits the value; and so does one that is accepted.
    libc.set_option(fresh, SO_SNDBUF, 5000).unwrap();
    let listening = libc.socket("tcp");
    libc.set_option(listening, SO_SNDBUF, 20_000).unwrap();
    let listener = libc.bind(listening, "127.0.0.1:0").unwrap();
    libc.set_option(listener, SO_RCVBUF, 6000).unwrap();
    let client = libc.connect(fresh, &libc.sockname(listener)).unwrap();
    let server = libc.accept(listener).unwrap();
    let both = |fd| [SO_RCVBUF, SO_SNDBUF].map(|option| libc.option(fd, option).unwrap());
    assert_eq!(both(client), [65_536, 5000]);
    assert_eq!(both(server), [6000, 20_000]);
    // An established connection does not change.
    libc.set_option(client, SO_SNDBUF, 30_000).unwrap();
    assert_eq!(both(client), [65_536, 5000]);

    // It bounds the data that is held while the server does not read.
    let mut held = 0;
    libc.0.set_nonblocking(client, true).unwrap();
    let room = || {
        let poll = libc
            .0
            .poll(&[(client, Ready::WRITE)], Some(Duration::from_millis(300)));
        poll.unwrap()[0] == Ready::WRITE
    };
    while room() {
        held += libc.0.write(client, &[1; 65_536]).unwrap();
    }
    assert_eq!(held, 6000 + 5000);
}

#[test]
fn a_datagram_socket_holds_what_was_asked() {
    let system = system();
    let libc = Libc::new(&system);
    let fresh = libc.socket("udp");
    assert_eq!(libc.option(fresh, SO_RCVBUF), Ok(208 << 10));
    assert_eq!(libc.option(fresh, SO_SNDBUF), Ok(65_507));
    libc.set_option(fresh, SO_RCVBUF, 10_000).unwrap();
    assert_eq!(libc.option(fresh, SO_RCVBUF), Ok(10_000));
    let server = libc.bind(fresh, "127.0.0.1:0").unwrap();
    assert_eq!(libc.option(server, SO_RCVBUF), Ok(10_000));
    let client = libc
        .connect(libc.socket("udp"), &libc.sockname(server))
        .unwrap();
    let held = || {
        for _ in 0..100 {
            libc.0.write(client, &[1; 1000]).unwrap();
        }
        let received = || libc.recvmsg(server, 2000, 64).ok();
        std::iter::from_fn(received).count()
    };
    // Each datagram costs its headers and 256 bytes more.
    assert_eq!(held(), 10_000 / (1028 + 256));
    libc.set_option(server, SO_RCVBUF, 1 << 30).unwrap();
    assert_eq!(libc.option(server, SO_RCVBUF), Ok(208 << 10));
    assert_eq!(held(), 100);
    // It belongs to the socket, and the last file to set it decides.
    let copy = libc.0.dup_verb(server, b"127.0.0.1:9").unwrap();
    libc.set_option(server, SO_RCVBUF, 20_000).unwrap();
    libc.set_option_at(IP, copy, IP_TTL, &int(9)).unwrap();
    libc.set_option(copy, SO_SNDBUF, 9000).unwrap();
    assert_eq!(libc.option(server, SO_RCVBUF), Ok(20_000));
    libc.set_option(copy, SO_RCVBUF, 30_000).unwrap();
    assert_eq!(libc.option(server, SO_RCVBUF), Ok(30_000));
}

#[test]
fn nodelay_sends_small_segments_at_once() {
    let system = system();
    let libc = Libc::new(&system);
    let tun = tunnel(&libc);
    for no_delay in [false, true] {
        let fresh = libc.socket("tcp");
        assert_eq!(libc.option_at(TCP, fresh, TCP_NODELAY), Ok(0));
        libc.set_option_at(TCP, fresh, TCP_NODELAY, &int(no_delay.into()))
            .unwrap();
        assert_eq!(libc.option_at(TCP, fresh, TCP_NODELAY), Ok(no_delay.into()));
        libc.0.set_nonblocking(fresh, true).unwrap();
        let begun = libc.0.dup_verb(fresh, b"10.1.0.2:80");
        assert_eq!(begun, Err(errno::EINPROGRESS));
        let syn = sent(&libc, tun).remove(0);
        // The other end supports it too.
        let mut reply = [&syn[22..24], &syn[20..22], &[0, 0, 0, 9]].concat();
        let seq = u32::from_be_bytes(syn[24..28].try_into().unwrap());
        reply.extend_from_slice(&(seq + 1).to_be_bytes());
        reply.extend_from_slice(&[0x50, 0x12, 64, 0, 0, 0, 0, 0]);
        let (src, dst) = ([10, 1, 0, 2], [10, 1, 0, 1]);
        let sum = checksum(&[&src, &dst, &[0, 6, 0, 20], &reply]);
        reply[16..18].copy_from_slice(&sum.to_be_bytes());
        libc.0
            .write(tun, &ipv4(src.into(), dst.into(), 6, &reply))
            .unwrap();
        sent(&libc, tun);
        for part in [b"a", b"b", b"c"] {
            assert_eq!(libc.0.write(fresh, part), Ok(1));
        }
        let packets = sent(&libc, tun);
        match no_delay {
            true => assert_eq!(data(&packets), [b"a", b"b", b"c"]),
            false => assert_eq!(data(&packets), [b"a"]),
        }
        // When it is turned on later, the waiting data is sent.
        libc.set_option_at(TCP, fresh, TCP_NODELAY, &int(1))
            .unwrap();
        let packets = sent(&libc, tun);
        match no_delay {
            true => assert_eq!(data(&packets), [b""; 0]),
            false => assert_eq!(data(&packets), [b"bc"]),
        }
        libc.0.close(fresh).unwrap();
        sent(&libc, tun);
    }
    let datagrams = libc.socket("udp");
    assert_eq!(
        libc.option_at(TCP, datagrams, TCP_NODELAY),
        Err(errno::ENOPROTOOPT)
    );
}

/// Data of the segments in IPv4 packets.
fn data(packets: &[Vec<u8>]) -> Vec<&[u8]> {
    let data = |packet: &'_ Vec<u8>| 20 + usize::from(packet[32] >> 4) * 4;
    let data = packets.iter().map(|packet| &packet[data(packet)..]);
    data.filter(|data| !data.is_empty()).collect()
}

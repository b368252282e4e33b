//! Connections with a hand-made peer: timeouts, and events that must not end a connection.
#![allow(missing_docs)]

mod common;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use common::packet;
use common::system::machine;
use net::{Host, Services};
use scheme::OpenFlags;
use scheme::errno;
use scheme::local::{Fd, Local, ManualClock, Process};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

const BOTH: OpenFlags = OpenFlags::READ.union(OpenFlags::WRITE);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const HERE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

struct System {
    local: Arc<Local<Host>>,
    clock: Arc<ManualClock>,
    program: Process<Host>,
    tun: Fd,
}

/// The parts of a segment that a test looks at.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Seen {
    seq: u32,
    ack: u32,
    rst: bool,
    fin: bool,
    syn: bool,
    len: usize,
    port: u16,
}

fn tunnel(program: &Process<Host>, unit: u32) -> Fd {
    common::program::tunnel(program, unit, &format!("10.{unit}.0.1/24"))
}

fn set(program: &Process<Host>, path: &str, line: &str) {
    common::program::set(program, path, line).unwrap();
}

impl System {
    fn new() -> Self {
        let (local, clock) = machine(3, Services::all());
        let program = local.process(1, 0);
        let tun = tunnel(&program, 0);
        Self {
            local,
            clock,
            program,
            tun,
        }
    }

    fn wait(&self, seconds: u64) {
        for _ in 0..seconds {
            self.clock.advance(Duration::from_secs(1));
            self.local.pump();
        }
    }

    fn packets(&self, tun: Fd) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        let mut buf = vec![0; 70_000];
        while let Ok(len) = self.program.read(tun, &mut buf) {
            packets.push(buf[..len].to_vec());
        }
        packets
    }

    fn segments(&self, tun: Fd) -> Vec<Seen> {
        let seen = |packet: &Vec<u8>| {
            let tcp = TcpPacket::new_checked(packet.get(20..)?).ok()?;
            (packet[9] == 6).then(|| Seen {
                seq: tcp.seq_number().0 as u32,
                ack: tcp.ack_number().0 as u32,
                rst: tcp.rst(),
                fin: tcp.fin(),
                syn: tcp.syn(),
                len: tcp.payload().len(),
                port: tcp.dst_port(),
            })
        };
        self.packets(tun).iter().filter_map(seen).collect()
    }

    /// Sends a segment from the peer, and returns the immediate answers.
    fn send(
        &self,
        ports: (u16, u16),
        control: TcpControl,
        seq: u32,
        ack: Option<u32>,
        window: u16,
        payload: &[u8],
    ) -> Vec<Seen> {
        let packet = segment(ports, control, seq, ack, window, payload);
        self.program.write(self.tun, &packet).unwrap();
        self.local.pump();
        self.segments(self.tun)
    }

    /// A handshake begun by the peer; returns the next sequence number of each direction.
    fn shake(&self, ports: (u16, u16)) -> (u32, u32) {
        let answer = self.send(ports, TcpControl::Syn, 1000, None, 65_535, &[]);
        let ack = answer.iter().find(|seen| seen.syn).unwrap().seq + 1;
        self.send(ports, TcpControl::None, 1001, Some(ack), 65_535, &[]);
        (1001, ack)
    }

    /// A router sends an ICMP error about a segment from our port.
    fn icmp(&self, kind: u8, port: u16) {
        let [high, low] = port.to_be_bytes();
        let to = if port == PORTS.1 { PORTS.0 } else { 80 };
        let [to_high, to_low] = to.to_be_bytes();
        let quoted = [high, low, to_high, to_low, 0, 0, 0, 0];
        let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
        message.extend(packet::ipv4(HERE, PEER, 6, &quoted));
        let sum = packet::checksum(&[&message]);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let router = Ipv4Addr::new(10, 0, 0, 77);
        let packet = packet::ipv4(router, HERE, 1, &message);
        self.program.write(self.tun, &packet).unwrap();
        self.local.pump();
    }

    fn listen(&self, port: u16) -> Fd {
        let fd = self.program.open("/scheme/tcp", BOTH).unwrap();
        let name = format!("/10.0.0.1:{port}");
        self.program.dup_verb(fd, name.as_bytes()).unwrap()
    }

    fn accept(&self, listener: Fd) -> Fd {
        self.program.dup_verb(listener, b"listen").unwrap()
    }

    /// A connection that the peer began.
    fn accepted(&self) -> Fd {
        let listener = self.listen(PORTS.1);
        self.shake(PORTS);
        self.accept(listener)
    }
}

/// A packet with a segment of the peer.
fn segment(
    ports: (u16, u16),
    control: TcpControl,
    seq: u32,
    ack: Option<u32>,
    window: u16,
    payload: &[u8],
) -> Vec<u8> {
    let repr = TcpRepr {
        src_port: ports.0,
        dst_port: ports.1,
        control,
        seq_number: TcpSeqNumber(seq as i32),
        ack_number: ack.map(|ack| TcpSeqNumber(ack as i32)),
        window_len: window,
        window_scale: None,
        max_seg_size: (control == TcpControl::Syn).then_some(1460),
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload,
    };
    let mut segment = vec![0; repr.buffer_len()];
    let mut tcp = TcpPacket::new_unchecked(&mut segment[..]);
    let sums = ChecksumCapabilities::default();
    repr.emit(&mut tcp, &PEER.into(), &HERE.into(), &sums);
    packet::ipv4(PEER, HERE, 6, &segment)
}

const PORTS: (u16, u16) = (40_000, 5000);

#[test]
fn who_closes_after_a_long_silence_sends_fin() {
    let system = System::new();
    let fd = system.accepted();
    system.wait(3600);
    assert_eq!(system.segments(system.tun), []);
    system.program.close(fd).unwrap();
    system.local.pump();
    let sent = system.segments(system.tun);
    assert!(sent.iter().any(|seen| seen.fin), "{sent:?}");
    assert!(!sent.iter().any(|seen| seen.rst), "{sent:?}");
    // The peer does not answer: the connection is reset in the end.
    system.wait(90);
    assert!(system.segments(system.tun).iter().any(|seen| seen.rst));
}

#[test]
fn an_orphan_against_a_window_of_zero_ends() {
    let system = System::new();
    let listener = system.listen(5000);
    let (seq, ack) = system.shake(PORTS);
    let fd = system.accept(listener);
    let stop = || system.send(PORTS, TcpControl::None, seq, Some(ack), 0, &[]);
    stop();
    system.program.write(fd, &[1; 10_000]).unwrap();
    let reset = |seconds: u64| {
        (0..seconds).any(|_| {
            system.wait(1);
            stop().iter().any(|seen| seen.rst)
        })
    };
    // As long as a program holds it, the peer may take its time (RFC 9293 section 3.8.6.1).
    assert!(!reset(3600));
    system.program.close(fd).unwrap();
    assert!(!reset(50));
    assert!(reset(20));
}

#[test]
fn a_peer_that_vanished_is_given_up() {
    let system = System::new();
    let fd = system.accepted();
    system.program.set_nonblocking(fd, true).unwrap();
    // Silence before the probe does not count.
    system.wait(3600);
    system.program.write(fd, b"hello").unwrap();
    system.wait(14 * 60);
    assert_eq!(system.program.read(fd, &mut [0; 4]), Err(errno::EAGAIN));
    system.wait(2 * 60);
    assert_eq!(system.program.read(fd, &mut [0; 4]), Err(errno::ETIMEDOUT));
}

#[test]
fn keep_alive_ends_when_nothing_answers() {
    let system = System::new();
    let fd = system.accepted();
    system.program.set_nonblocking(fd, true).unwrap();
    system.wait(3600);
    system.segments(system.tun);
    let mut on = 1_i32.to_ne_bytes();
    system.program.sys_call(fd, &mut on, &[2, 9]).unwrap();
    system.wait(9 * 75);
    assert_eq!(system.program.read(fd, &mut [0; 4]), Err(errno::EAGAIN));
    system.wait(2 * 75);
    assert_eq!(system.program.read(fd, &mut [0; 4]), Err(errno::ETIMEDOUT));
    let probes = system.segments(system.tun);
    assert!((9..=12).contains(&probes.len()), "{}", probes.len());
}

#[test]
fn the_services_do_not_wait_for_the_silent() {
    let system = System::new();
    for (at, port) in [7, 9, 19].into_iter().enumerate() {
        let ports = (41_000 + at as u16, port);
        let (seq, ack) = system.shake(ports);
        system.wait(6 * 60);
        system.wait(90);
        system.segments(system.tun);
        let answer = system.send(ports, TcpControl::Psh, seq, Some(ack), 65_535, b"x");
        assert!(answer.iter().any(|seen| seen.rst), "{port}: {answer:?}");
    }
}

#[test]
fn the_blocked_time_out_and_find_another_way() {
    for route in [false, true] {
        let system = System::new();
        let program = &system.program;
        let udp = program.open("/scheme/udp/10.0.0.9:9", BOTH).unwrap();
        for _ in 0..200 {
            program.write(udp, b"x").unwrap();
        }
        let tun1 = tunnel(program, 1);
        let fd = program.open("/scheme/tcp", BOTH).unwrap();
        program.set_nonblocking(fd, true).unwrap();
        assert!(program.dup_verb(fd, b"10.0.0.2:80").is_err());
        system.wait(10);
        if route {
            set(program, "route/add", "10.0.0.2/32 dev tun1\n");
            system.wait(2);
            assert!(system.segments(tun1).iter().any(|seen| seen.syn));
        } else {
            system.wait(200);
            let again = program.dup_verb(fd, b"10.0.0.2:80").map(|_| ());
            assert_eq!(again, Err(errno::ETIMEDOUT));
        }
    }
}

#[test]
fn the_blocked_all_get_their_turn() {
    const MANY: u16 = 600;

    let system = System::new();
    let program = &system.program;
    let udp = program.open("/scheme/udp/10.0.0.9:9", BOTH).unwrap();
    for _ in 0..200 {
        program.write(udp, b"x").unwrap();
    }
    for _ in 0..MANY {
        let fd = program.open("/scheme/tcp", BOTH).unwrap();
        program.set_nonblocking(fd, true).unwrap();
        assert!(program.dup_verb(fd, b"10.0.0.2:80").is_err());
    }
    system.local.pump();
    // One read: the queue stays below its limit, and is only refilled up to it.
    let mut syns = 0;
    for _ in 0..20 {
        syns += system.segments(system.tun).iter().filter(|s| s.syn).count();
        system.local.pump();
    }
    assert_eq!(syns, usize::from(MANY));
}

#[test]
fn a_reset_that_was_guessed_is_questioned() {
    let system = System::new();
    let ports = (40_000, 7);
    let (seq, ack) = system.shake(ports);
    let rst = |seq| system.send(ports, TcpControl::Rst, seq, None, 0, &[]);
    let challenge = rst(seq + 30_000);
    assert_eq!(challenge.len(), 1, "{challenge:?}");
    assert_eq!((challenge[0].seq, challenge[0].ack), (ack, seq));
    assert!(!challenge[0].rst);
    // No second answer at once, and none for a number outside of the window.
    assert_eq!(rst(seq + 20_000), []);
    system.wait(1);
    assert_eq!(rst(seq.wrapping_sub(1)), []);
    assert_eq!(rst(seq + 70_000), []);
    system.send(ports, TcpControl::Psh, seq, Some(ack), 65_535, b"hi");
    // Data has arrived in the meantime, and the number with it.
    assert_eq!(rst(seq).len(), 0);
    let challenge = rst(seq + 3);
    assert_eq!((challenge.len(), challenge[0].ack), (1, seq + 2));
    assert_eq!(rst(seq + 2), []);
    let answer = system.send(ports, TcpControl::Psh, seq + 2, Some(ack), 65_535, b"hi");
    assert!(answer.iter().any(|seen| seen.rst), "it is gone: {answer:?}");
}

#[test]
fn a_peer_that_began_anew_gets_rid_of_the_old() {
    let system = System::new();
    let ports = (40_000, 7);
    let (seq, ack) = system.shake(ports);
    for _ in 0..2 {
        let answer = system.send(ports, TcpControl::Syn, 0x7777_0000, None, 65_535, &[]);
        assert_eq!(answer.len(), 1, "{answer:?}");
        assert_eq!((answer[0].seq, answer[0].ack), (ack, seq));
        assert!(!answer[0].syn && !answer[0].rst);
        let again = system.send(ports, TcpControl::Syn, 0x7777_0000, None, 65_535, &[]);
        assert_eq!(again, []);
        system.wait(1);
    }
    system.send(ports, TcpControl::Rst, seq, None, 0, &[]);
    let answer = system.send(ports, TcpControl::Syn, 0x7777_0000, None, 65_535, &[]);
    assert!(answer[0].syn && answer[0].ack == 0x7777_0001, "{answer:?}");
}

#[test]
fn connects_know_what_was_learnt_of_the_path() {
    let system = System::new();
    let program = &system.program;
    let mut lens = Vec::new();
    for port in [5555, 5556] {
        let name = format!("/scheme/tcp/10.0.0.2:80/0.0.0.0:{port}");
        let fd = program.open(&name, BOTH).unwrap();
        system.local.pump();
        let seq = system.segments(system.tun)[0].seq + 1;
        let ports = (80, port);
        system.send(ports, TcpControl::Syn, 99, Some(seq), 65_535, &[]);
        program.write(fd, &[1; 3000]).unwrap();
        system.local.pump();
        lens.push(system.segments(system.tun)[0].len);
        // "Fragmentation needed", with an mtu of 1024.
        let [high, low] = port.to_be_bytes();
        let quoted = packet::ipv4(HERE, PEER, 6, &[high, low, 0, 80, 0, 0, 0, 0]);
        let mut message = vec![3, 4, 0, 0, 0, 0, 4, 0];
        message.extend(quoted);
        let sum = packet::checksum(&[&message]);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let router = Ipv4Addr::new(10, 0, 0, 77);
        let packet = packet::ipv4(router, HERE, 1, &message);
        program.write(system.tun, &packet).unwrap();
        system.local.pump();
        system.segments(system.tun);
    }
    assert_eq!(lens, [1460, 984]);
}

#[test]
fn a_packet_that_was_lost_on_the_way_ends_a_connect_at_its_next_timeout() {
    // Time Exceeded in transit, and Parameter Problem.
    for (port, kind) in [(5555, 11), (5556, 12)] {
        let system = System::new();
        let program = &system.program;
        let name = format!("/scheme/tcp/10.0.0.2:80/0.0.0.0:{port}");
        let fd = program.open(&name, BOTH).unwrap();
        system.local.pump();
        assert!(system.segments(system.tun)[0].syn);
        system.icmp(kind, port);
        program.set_nonblocking(fd, true).unwrap();
        assert_eq!(
            program.read(fd, &mut [0; 1]),
            Err(errno::EAGAIN),
            "one may arrive"
        );
        system.wait(3);
        assert_eq!(program.read(fd, &mut [0; 1]), Err(errno::EHOSTUNREACH));
    }
    // One that stands goes on.
    let system = System::new();
    let fd = system.accepted();
    system.icmp(11, PORTS.1);
    system.wait(3);
    assert_eq!(system.program.write(fd, b"still here"), Ok(10));
}

#[test]
fn a_sequence_number_follows_from_ends_and_time_alone() {
    let begin = |others: u16, seconds: u64| {
        let system = System::new();
        system.listen(5000);
        system.wait(seconds);
        let numbers: Vec<u32> = (1..=others + 1)
            .rev()
            .map(|port| system.shake((port, 5000)).1)
            .collect();
        assert!(numbers.windows(2).all(|pair| pair[0] != pair[1]));
        numbers[usize::from(others)]
    };
    // The numbers of one's own connections reveal nothing about those of others (RFC 6528).
    assert_eq!(begin(0, 1), begin(20, 1));
    assert_ne!(begin(0, 1), begin(0, 2));
}

#[test]
fn small_buffers_are_not_slow() {
    let system = System::new();
    let program = &system.program;
    let listener = program.open("/scheme/tcp", BOTH).unwrap();
    let listener = program.dup_verb(listener, b"/127.0.0.1:5000").unwrap();
    for size in [4096_i32, 5000, 16_000, 32_768] {
        let client = program.open("/scheme/tcp", BOTH).unwrap();
        let mut bytes = size.to_ne_bytes();
        program.sys_call(client, &mut bytes, &[2, 7]).unwrap();
        let client = program.dup_verb(client, b"127.0.0.1:5000").unwrap();
        let server = program.dup_verb(listener, b"listen").unwrap();
        for fd in [client, server] {
            program.set_nonblocking(fd, true).unwrap();
        }
        let (mut read, mut pauses) = (0, 0);
        while read < 1 << 20 {
            let more = program.write(client, &[7; 4096]).unwrap_or(0);
            let less = program.read(server, &mut [0; 65_536]).unwrap_or(0);
            read += less;
            if more + less == 0 {
                // Data in flight waits for a delayed ACK.
                system.clock.advance(Duration::from_millis(10));
                system.local.pump();
                pauses += 1;
            }
        }
        assert!(pauses < 10, "{size}: {pauses}");
    }
}

#[test]
fn a_challenge_has_the_hop_limit_of_its_connection() {
    let system = System::new();
    let listener = system.listen(PORTS.1);
    let mut hops = 9_i32.to_ne_bytes();
    let ip_ttl = [2, 2, 1 << 32];
    system
        .program
        .sys_call(listener, &mut hops, &ip_ttl)
        .unwrap();
    system.shake(PORTS);
    let forged = segment(PORTS, TcpControl::Syn, 9000, None, 65_535, &[]);
    system.program.write(system.tun, &forged).unwrap();
    system.local.pump();
    let packets = system.packets(system.tun);
    assert!(!packets.is_empty());
    assert!(packets.iter().all(|packet| packet[8] == 9));
}

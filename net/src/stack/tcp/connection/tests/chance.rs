//! Random schedules: links that do everything wrong, segments that nobody would send, and a stranger
//! at the other end.

use smoltcp::iface::{Config as InterfaceConfig, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, Ipv4Address, Ipv4Packet, Ipv4Repr};

use super::link::*;
use super::*;

/// How many times as many schedules as usual are tried.
fn zeal() -> u64 {
    let zeal = option_env!("TUND_TCP_ZEAL");
    zeal.and_then(|zeal| zeal.parse().ok()).unwrap_or(1)
}

fn any_path(rng: &mut fastrand::Rng) -> Path {
    let rtt = [0, 1, 20, 100, 200][rng.usize(..5)];
    Path {
        loss: [0.0, 0.01, 0.05, 0.2][rng.usize(..4)],
        late: [0.0, 0.02, 0.2][rng.usize(..3)],
        twice: [0.0, 0.02, 0.2][rng.usize(..3)],
        rate: [None, Some(50e6), Some(1e6)][rng.usize(..3)],
        queue: [5, 100][rng.usize(..2)],
        ..Path::new(rtt, 0.0)
    }
}

fn any_config(rng: &mut fastrand::Rng, ports: (u16, u16)) -> Config {
    let mut buffer = || match rng.usize(..3) {
        0 => Buffer::Fixed(rng.u32(1000..20_000)),
        _ => Buffer::Auto(LARGEST),
    };
    let (send_buffer, receive_buffer) = (buffer(), buffer());
    Config {
        send_buffer,
        receive_buffer,
        mtu: [600, 1280, 1500, 9000, 65_535][rng.usize(..5)],
        no_delay: rng.bool(),
        rx_ring: rng.bool().then(|| rng.u16(1..64)),
        ..config(ports.0, ports.1)
    }
}

/// Both ends write so much, read it, close, and are gone; and no schedule keeps them from it.
#[test]
fn every_byte_arrives_whatever_the_link_does() {
    let mut elapsed = Duration::ZERO;
    for seed in 0..250 * zeal() {
        let mut rng = fastrand::Rng::with_seed(seed);
        let path = any_path(&mut rng);
        let mut link = Link::new(path, seed);
        let most = [10, 3000, 60_000][rng.usize(..3)];
        let (up, down) = (rng.u64(..most), rng.u64(..most));
        let left = any_config(&mut rng, (1, 2));
        let mut left = Machine::client(left, &[Program::Source(up)], link.now);
        let right = any_config(&mut rng, (2, 1));
        let mut right = Machine::server(right, 1, Program::Source(down));
        (left.strict, right.strict) = (true, true);
        let end = link.now + Duration::from_secs(3600);
        let begin = link.now;
        let (mut steps, mut last) = (0, begin);
        while link.step([&mut left, &mut right], end) {
            steps += 1;
            last = link.now;
            assert!(steps < 300_000, "seed {seed}: no end");
        }
        elapsed += last - begin;
        let failed = left.flow(0).connection.close_reason();
        // Where a fifth is lost, even a handshake may not come about.
        if failed.is_none() && right.flows[0].is_some() {
            let case = format!("seed {seed}: {path:?}");
            let states = [&mut left, &mut right].map(|end| end.flow(0).connection.state());
            let lossy = path.loss > 0.1 && right.flow(0).connection.close_reason().is_some();
            assert!(
                lossy || right.read(0) == up,
                "{case}: {} of {up} {states:?}",
                right.read(0)
            );
            assert!(
                lossy || left.read(0) == down,
                "{case}: {} of {down} {states:?}",
                left.read(0)
            );
            assert_eq!(states, [State::Closed; 2], "{case}");
        } else {
            assert!(path.loss > 0.1, "seed {seed}: {failed:?}");
        }
    }
    println!("{} hours of virtual time", elapsed.as_secs() / 3600);
}

/// Any segment in any state, with anything that a program may do in between.
#[test]
fn no_segment_and_no_call_breaks_a_connection() {
    for seed in 0..300 * zeal() {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut now = Duration::from_secs(rng.u64(..3));
        let config = any_config(&mut rng, (1, 2));
        let iss = SeqNumber(rng.u32(..));
        let mut connection = Connection::connect(&config, iss, now);
        // The window that was offered, which must never move back by more than its unit.
        let (mut edge, mut unit) = (None::<SeqNumber>, 0);
        for _ in 0..400 {
            let bytes: Vec<u8> = (0..rng.usize(..40)).map(|_| rng.u8(..)).collect();
            let near = |rng: &mut fastrand::Rng, seq: SeqNumber| match rng.usize(..8) {
                0..4 => seq,
                4 => seq - rng.u32(..3000),
                5 => seq + rng.u32(..3000),
                6 => seq + rng.u32(..100_000),
                _ => SeqNumber(rng.u32(..)),
            };
            match rng.usize(..12) {
                0..6 => {
                    let text = vec![7; [0, 0, 1, 100, 1400][rng.usize(..5)]];
                    let sane = [0x10, 0x10, 0x10, 0x12, 0x18, 0x11, 0x02];
                    let flags = match rng.usize(..20) {
                        0 => rng.u8(..),
                        n => sane[n % sane.len()],
                    };
                    let seq = connection.receive.nxt;
                    let base = near(&mut rng, seq);
                    let una = connection.send.una;
                    let ack = match rng.bool() {
                        true => una + rng.u32(..=connection.send.nxt.since(una)),
                        false => near(&mut rng, una),
                    };
                    let mut options = Options::parse(&bytes);
                    if rng.bool() {
                        options.timestamps = Some(Timestamps {
                            value: connection.ts_recent.wrapping_add(rng.u32(..3)),
                            echo: connection.timestamp(now).wrapping_sub(rng.u32(..300)),
                        });
                        for _ in 0..rng.usize(..4) {
                            let left = una + rng.u32(..=connection.send.nxt.since(una));
                            options.sack.push((left, left + rng.u32(..4000)));
                        }
                    }
                    let segment = Segment {
                        src_port: 2,
                        dst_port: 1,
                        seq: base,
                        ack,
                        window: [0, 1, 100, 5000, 65_535][rng.usize(..5)],
                        flags: Flags(flags),
                        options,
                        payload: &text,
                    };
                    connection.handle_segment(&segment, now);
                }
                6 => {
                    connection.send(&vec![1; rng.usize(..20_000)]);
                }
                7 => {
                    connection.recv(rng.usize(..20_000), |bytes| bytes.len());
                }
                8 => {
                    now += Duration::from_millis([0, 1, 50, 300, 5000][rng.usize(..5)]);
                    connection.handle_timeout(now);
                }
                9 => connection.handle_mtu(rng.u16(..), now),
                10 => match rng.usize(..40) {
                    0 => connection.close(now),
                    1 => connection.abort(),
                    2 => connection.abandon(now),
                    3 => connection.handle_unreachable(),
                    4 => connection.set_memory_pressure(rng.bool()),
                    5 => connection.set_keep_alive(rng.bool(), now),
                    _ => connection.set_no_delay(rng.bool()),
                },
                _ => {}
            }
            connection.invariants();
            for _ in 0..rng.usize(..60) {
                let Some(packet) = connection.poll_transmit(now) else {
                    break;
                };
                connection.invariants();
                let Some(segment) = Segment::parse(&packet) else {
                    panic!("seed {seed}: not a segment");
                };
                let offers = segment.flags.has(Flags::ACK) && !segment.flags.has(Flags::RST);
                if offers && !segment.flags.has(Flags::SYN) {
                    unit = 1 << connection.receive.shift();
                    let next = segment.ack + u32::from(segment.window) * unit;
                    let moved = edge.is_none_or(|edge| next + (unit - 1) >= edge);
                    assert!(moved, "seed {seed}: {edge:?} {next:?}");
                    edge = Some(edge.map_or(next, |edge| edge.later(next)));
                }
            }
            let due = connection.poll_timeout();
            assert!(due.is_some() || connection.state() != State::SynSent);
        }
        let _ = unit;
    }
}

/// smoltcp as the other end.
struct Stranger {
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    wire: Wire,
    source: u64,
    written: u64,
    read: u64,
    now: Duration,
}

#[derive(Default)]
struct Wire {
    received: Option<Vec<u8>>,
    sent: std::collections::VecDeque<Vec<u8>>,
}

struct Received(Vec<u8>);
struct Sent<'a>(&'a mut Wire);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, body: F) -> R {
        body(&self.0)
    }
}

impl TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, body: F) -> R {
        let mut packet = vec![0; len];
        let result = body(&mut packet);
        self.0.sent.push_back(packet);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sent<'_>)> {
        let received = self.received.take()?;
        Some((Received(received), Sent(self)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sent<'_>> {
        Some(Sent(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1500;
        capabilities.checksum = ChecksumCapabilities::ignored();
        capabilities
    }
}

const OURS: Ipv4Address = Ipv4Address::new(10, 0, 0, 1);
const THEIRS: Ipv4Address = Ipv4Address::new(10, 0, 0, 2);

fn instant(now: Duration) -> Instant {
    Instant::from_micros(now.as_micros() as i64)
}

impl Stranger {
    fn new(listens: bool, source: u64, now: Duration) -> Self {
        let mut wire = Wire::default();
        let config = InterfaceConfig::new(HardwareAddress::Ip);
        let mut interface = Interface::new(config, &mut wire, instant(now));
        interface.update_ip_addrs(|addrs| {
            let _ = addrs.push(IpCidr::new(IpAddress::Ipv4(THEIRS), 24));
        });
        let buffer = || tcp::SocketBuffer::new(vec![0; 65_536]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        if listens {
            socket.listen(2).expect("listens");
        } else {
            let ours = (IpAddress::Ipv4(OURS), 1);
            socket
                .connect(interface.context(), ours, 2)
                .expect("connects");
        }
        let mut sockets = SocketSet::new(vec![]);
        let socket = sockets.add(socket);
        Self {
            interface,
            sockets,
            socket,
            wire,
            source,
            written: 0,
            read: 0,
            now,
        }
    }

    fn run(&mut self) {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.socket);
        while socket.can_recv() {
            let at = self.read;
            let len = socket
                .recv(|got| {
                    let got = &got[..got.len().min(60_000)];
                    assert!(got == bytes(at, got.len()));
                    (got.len(), got.len())
                })
                .expect("reads");
            self.read += len as u64;
        }
        while self.written < self.source && socket.can_send() {
            let most = (self.source - self.written).min(60_000) as usize;
            let len = socket
                .send_slice(bytes(self.written, most))
                .expect("writes");
            self.written += len as u64;
        }
        if self.written == self.source
            && socket.may_send()
            && socket.state() != tcp::State::SynReceived
        {
            socket.close();
        }
    }
}

impl End for Stranger {
    fn receive(&mut self, _: usize, segment: &[u8], now: Duration) {
        let repr = Ipv4Repr {
            src_addr: OURS,
            dst_addr: THEIRS,
            next_header: smoltcp::wire::IpProtocol::Tcp,
            payload_len: segment.len(),
            hop_limit: 64,
        };
        let mut packet = vec![0; 20];
        let mut header = Ipv4Packet::new_unchecked(&mut packet[..]);
        header.set_version(4);
        header.set_header_len(20);
        header.set_total_len(20 + segment.len() as u16);
        repr.emit(
            &mut Ipv4Packet::new_unchecked(&mut packet[..]),
            &ChecksumCapabilities::ignored(),
        );
        packet.extend_from_slice(segment);
        self.wire.received = Some(packet);
        self.now = now;
        self.interface
            .poll(instant(now), &mut self.wire, &mut self.sockets);
        self.run();
    }

    fn time_out(&mut self, now: Duration) {
        self.now = now;
        self.interface
            .poll(instant(now), &mut self.wire, &mut self.sockets);
    }

    fn transmit(&mut self, now: Duration) -> Option<(usize, Vec<u8>)> {
        if self.wire.sent.is_empty() {
            self.now = now;
            self.run();
            self.interface
                .poll(instant(now), &mut self.wire, &mut self.sockets);
        }
        let packet = self.wire.sent.pop_front()?;
        Some((0, packet.get(20..)?.to_vec()))
    }

    fn deadline(&self) -> Option<Duration> {
        let socket = self.sockets.get::<tcp::Socket<'_>>(self.socket);
        if matches!(socket.state(), tcp::State::Closed | tcp::State::TimeWait) {
            return None;
        }
        let mut interface = Interface::new(
            InterfaceConfig::new(HardwareAddress::Ip),
            &mut Wire::default(),
            instant(self.now),
        );
        let at = interface.poll_at(instant(self.now), &self.sockets)?;
        let at = Duration::from_micros(at.total_micros().max(0) as u64);
        Some(at.max(self.now + ms(1)))
    }
}

#[test]
fn a_stranger_is_understood() {
    for seed in 0..20 {
        let path = Path {
            late: 0.01,
            ..Path::new(20, 0.01)
        };
        let mut link = Link::new(path, seed);
        let (up, down) = (400_000, 300_000);
        let listens = seed % 2 == 0;
        let mut stranger = Stranger::new(listens, down, link.now);
        let mut ours = if listens {
            Machine::client(config(1, 2), &[Program::Source(up)], link.now)
        } else {
            Machine::server(config(1, 2), 1, Program::Source(up))
        };
        ours.strict = true;
        let until = link.now + Duration::from_secs(120);
        while link.step([&mut ours, &mut stranger], until)
            && (ours.read(0) < down || stranger.read < up)
        {}
        assert_eq!((ours.read(0), stranger.read), (down, up), "seed {seed}");
    }
}

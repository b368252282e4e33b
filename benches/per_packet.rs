//! The cost of a packet, and that it does not grow with the number of connections and routes.
//!
//! Each measurement is of a whole packet: written to the device, through the stack, and its answer
//! read. The same is done bare, by smoltcp alone with one socket, and on systems with many
//! connections, listeners, interfaces and routes; all take turns, so that a machine that changes its
//! speed changes it for all. What counts are the ratios.
//!
//! `cargo bench --bench per_packet`, or with `-- --quick` only to see that it runs. `--row NAME`
//! measures only the rows whose name begins so: `ping`, `fq_codel`, `udp echo`, `tcp one`, `tcp all`,
//! `udp batch`, `bare`.
//! Instructions instead of time, by row: docs/performance.md.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use net::{Config, Host, Services};
use scheme::OpenFlags;
use scheme::local::{Fd, Local, OneSession, Process};
use smoltcp::iface::{Config as IfaceConfig, Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::udp;
use smoltcp::time::Instant as SmolInstant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

const BOTH: OpenFlags = OpenFlags::READ.union(OpenFlags::WRITE);

/// The number of each kind of object in a system.
#[derive(Clone, Copy)]
struct Scale {
    connections: usize,
    listeners: usize,
    interfaces: usize,
    routes: usize,
}

const ONE: Scale = Scale {
    connections: 1,
    listeners: 1,
    interfaces: 1,
    routes: 1,
};
const MANY: Scale = Scale {
    connections: 10_000,
    listeners: 1000,
    interfaces: 256,
    routes: 100_000,
};

fn checksum(sum: u32, bytes: &[u8]) -> u32 {
    bytes.chunks(2).fold(sum, |sum, pair| {
        sum + u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))
    })
}

fn fold(mut sum: u32) -> [u8; 2] {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// An IPv4 packet to 10.0.0.1, its checksums filled in; `at` is where that of the payload stands.
fn packet(src: Ipv4Addr, protocol: u8, payload: &[u8], at: usize) -> Vec<u8> {
    let dst = [10, 0, 0, 1];
    let mut payload = payload.to_vec();
    let mut sum = u32::from(protocol) + payload.len() as u32;
    sum = checksum(checksum(sum, &src.octets()), &dst);
    let sum = if protocol == 1 { 0 } else { sum };
    let sum = fold(checksum(sum, &payload));
    payload[at..at + 2].copy_from_slice(&sum);
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
    packet[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
    packet.extend_from_slice(&src.octets());
    packet.extend_from_slice(&dst);
    let sum = fold(checksum(0, &packet));
    packet[10..12].copy_from_slice(&sum);
    packet.extend_from_slice(&payload);
    packet
}

fn ping(src: Ipv4Addr) -> Vec<u8> {
    let mut message = vec![8, 0, 0, 0, 0, 1, 0, 1];
    message.resize(64, 0x55);
    packet(src, 1, &message, 2)
}

fn datagram(src: Ipv4Addr) -> Vec<u8> {
    let mut datagram = vec![0x9c, 0x40, 0, 7, 0, 64, 0, 0];
    datagram.resize(64, 0x55);
    packet(src, 17, &datagram, 6)
}

/// One end of a TCP connection, by hand.
#[derive(Clone, Copy)]
struct Flow {
    src: Ipv4Addr,
    port: u16,
    seq: u32,
    ack: u32,
}

impl Flow {
    fn segment(&self, flags: u8, data: &[u8]) -> Vec<u8> {
        let mut segment = Vec::with_capacity(20 + data.len());
        segment.extend_from_slice(&self.port.to_be_bytes());
        segment.extend_from_slice(&7_u16.to_be_bytes());
        segment.extend_from_slice(&self.seq.to_be_bytes());
        segment.extend_from_slice(&self.ack.to_be_bytes());
        segment.extend_from_slice(&[0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        segment.extend_from_slice(data);
        packet(self.src, 6, &segment, 16)
    }

    fn take(&mut self, reply: &[u8]) {
        let segment = &reply[20..];
        let len = segment.len() - usize::from(segment[12] >> 4) * 4;
        let seq = u32::from_be_bytes([segment[4], segment[5], segment[6], segment[7]]);
        let syn = u32::from(segment[13] & 2 != 0);
        self.ack = seq.wrapping_add(len as u32 + syn);
    }
}

/// Writes a setting.
fn set(process: &Process<Host>, path: &str, text: &str) {
    let file = process.open(path, OpenFlags::WRITE).unwrap();
    process.write(file, text.as_bytes()).unwrap();
    process.close(file).unwrap();
}

/// A system, with tun/0 open.
struct System {
    process: Process<Host>,
    tun: Fd,
    flows: Vec<Flow>,
    next: usize,
    reply: Vec<u8>,
}

impl System {
    fn new(scale: Scale) -> Self {
        let config = Config {
            seed: 1.into(),
            services: Services::ECHO,
        };
        let local: Arc<Local<Host>> = Local::new(Host::new(config, OneSession));
        let process = local.process(1, 0);
        let tun = process.open("/scheme/tun/0", BOTH).unwrap();
        let set = |path: &str, text: &str| set(&process, path, text);
        set("/scheme/netcfg/ifaces/tun0/addr/set", "10.0.0.1/24\n");
        set("/scheme/netcfg/route/add", "10.0.0.0/8 dev tun0\n");
        for unit in 1..scale.interfaces {
            process.open(&format!("/scheme/tun/{unit}"), BOTH).unwrap();
            let (high, low) = (unit / 200, unit % 200);
            let addr = format!("172.{}.{low}.1/24\n", 16 + high);
            set(&format!("/scheme/netcfg/ifaces/tun{unit}/addr/set"), &addr);
        }
        for chunk in (1..scale.routes).collect::<Vec<_>>().chunks(1000) {
            let line = |route: &usize| {
                let [_, a, b, c] = (*route as u32).to_be_bytes();
                format!(
                    "{}.{b}.{c}.0/24 dev tun{}\n",
                    20 + a,
                    route % scale.interfaces
                )
            };
            set(
                "/scheme/netcfg/route/add",
                &chunk.iter().map(line).collect::<String>(),
            );
        }
        for port in 1..scale.listeners {
            process
                .open(&format!("/scheme/tcp//0.0.0.0:{}", 2000 + port), BOTH)
                .unwrap();
        }
        process.set_nonblocking(tun, true).unwrap();
        let mut system = Self {
            process,
            tun,
            flows: Vec::new(),
            next: 0,
            reply: vec![0; 2000],
        };
        for number in 0..scale.connections {
            let [_, _, high, low] = (number as u32 / 50_000 + 2).to_be_bytes();
            let mut flow = Flow {
                src: Ipv4Addr::new(10, 0, high, low),
                port: 1025 + (number % 50_000) as u16,
                seq: 1000,
                ack: 0,
            };
            let len = system
                .exchange(&flow.segment(2, &[]))
                .expect("a SYN is answered");
            flow.take(&system.reply[..len]);
            flow.seq += 1;
            assert_eq!(system.exchange(&flow.segment(16, &[])), None);
            system.flows.push(flow);
        }
        system
    }

    fn set_queue(&self, line: &str) {
        let queue = "/scheme/netcfg/ifaces/tun0/queue";
        set(&self.process, queue, line);
    }

    fn exchange(&mut self, packet: &[u8]) -> Option<usize> {
        self.process.write(self.tun, packet).unwrap();
        self.process.read(self.tun, &mut self.reply).ok()
    }

    /// Data on a connection and its echo; the echo acknowledges.
    fn tcp_echo(&mut self, flow: usize) {
        let segment = self.flows[flow].segment(24, &[0x55; 44]);
        self.flows[flow].seq = self.flows[flow].seq.wrapping_add(44);
        let len = self.exchange(&segment).expect("an echo");
        let mut flow_state = self.flows[flow];
        flow_state.take(&self.reply[..len]);
        self.flows[flow] = flow_state;
        // Acknowledged, so that nothing is ever sent again.
        let ack = self.flows[flow].segment(16, &[]);
        assert_eq!(self.exchange(&ack), None);
    }
}

/// smoltcp alone: one interface, one socket, packets in a queue of one.
struct Bare {
    interface: Interface,
    sockets: SocketSet<'static>,
    device: Queue,
    handle: smoltcp::iface::SocketHandle,
}

#[derive(Default)]
struct Queue {
    received: Option<Vec<u8>>,
    sent: Option<Vec<u8>>,
}

struct Token<T>(T);

impl RxToken for Token<Vec<u8>> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Token<&mut Option<Vec<u8>>> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        *self.0 = Some(packet);
        result
    }
}

impl Device for Queue {
    type RxToken<'a> = Token<Vec<u8>>;
    type TxToken<'a> = Token<&'a mut Option<Vec<u8>>>;

    fn receive(&mut self, _: SmolInstant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        Some((Token(self.received.take()?), Token(&mut self.sent)))
    }

    fn transmit(&mut self, _: SmolInstant) -> Option<Self::TxToken<'_>> {
        Some(Token(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1500;
        capabilities
    }
}

impl Bare {
    fn new() -> Self {
        let mut device = Queue::default();
        let config = IfaceConfig::new(HardwareAddress::Ip);
        let mut interface = Interface::new(config, &mut device, SmolInstant::ZERO);
        interface.update_ip_addrs(|addrs| {
            addrs
                .push(IpCidr::new(IpAddress::v4(10, 0, 0, 1), 24))
                .unwrap();
        });
        let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 4], vec![0; 4096]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(7).unwrap();
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(socket);
        Self {
            interface,
            sockets,
            device,
            handle,
        }
    }

    fn udp_echo(&mut self, packet: &[u8]) {
        self.device.received = Some(packet.to_vec());
        self.interface
            .poll(SmolInstant::ZERO, &mut self.device, &mut self.sockets);
        let socket = self.sockets.get_mut::<udp::Socket<'_>>(self.handle);
        let (data, from) = socket.recv().unwrap();
        let data = data.to_vec();
        socket.send_slice(&data, from).unwrap();
        self.interface
            .poll(SmolInstant::ZERO, &mut self.device, &mut self.sockets);
        black_box(self.device.sent.take().unwrap());
    }
}

/// Datagrams of 64 bytes on their way from one socket of a system to another.
struct Datagrams {
    process: Process<Host>,
    /// Connected to the other, in batch mode or not.
    client: Fd,
    server: Fd,
    /// The bytes of a write, how often they are written, and the bytes of a datagram as it is read.
    out: Vec<u8>,
    writes: usize,
    size: usize,
    room: Vec<u8>,
}

impl Datagrams {
    /// How many there are in a round.
    const MANY: usize = 32;

    fn new(batch: bool) -> Self {
        const TUNSBATCH: u32 = 0x4004_7482;

        let local = Local::new(Host::new(Config::default(), OneSession));
        let process: Process<Host> = local.process(1, 0);
        let open = |name: &str| process.open(&format!("/scheme/udp/{name}"), BOTH).unwrap();
        let server = open("bind/127.0.0.1:5000");
        let client = open("127.0.0.1:5000");
        let (mut out, mut writes, mut size) = (vec![0x55; 64], Self::MANY, 64);
        if batch {
            for fd in [client, server] {
                process.ioctl(fd, TUNSBATCH, &mut [1, 0, 0, 0]).unwrap();
            }
            // The length, and the peer.
            let head = [&88_u32.to_ne_bytes()[..], &[0; 24]].concat();
            let frame = [head, out].concat();
            (size, writes) = (frame.len(), 1);
            out = frame.repeat(Self::MANY);
        }
        Self {
            process,
            client,
            server,
            out,
            writes,
            size,
            room: vec![0; 128 << 10],
        }
    }

    /// All of them, one by one or in a batch.
    fn round(&mut self) {
        for _ in 0..self.writes {
            self.process.write(self.client, &self.out).unwrap();
        }
        let mut come = 0;
        while come < Self::MANY {
            let len = self.process.read(self.server, &mut self.room).unwrap();
            come += len / self.size;
        }
    }
}

/// The code that is measured.
type Body<'a> = Box<dyn FnMut() + 'a>;

/// Nanoseconds a round, by turns: the median of many short runs of each.
fn measure(rounds: usize, runs: usize, bodies: &mut [(&str, Body<'_>)]) -> Vec<f64> {
    let mut times = vec![Vec::new(); bodies.len()];
    for _ in 0..runs {
        for ((_, body), times) in bodies.iter_mut().zip(&mut times) {
            let start = Instant::now();
            for _ in 0..rounds {
                body();
            }
            times.push(start.elapsed());
        }
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2].as_nanos() as f64 / rounds as f64
    };
    times.iter_mut().map(median).collect()
}

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let only = std::env::args().skip_while(|arg| arg != "--row").nth(1);
    let wanted = |name: &str| {
        only.as_ref()
            .is_none_or(|only| name.starts_with(only.as_str()))
    };
    let many = match quick {
        true => Scale {
            connections: 200,
            listeners: 20,
            interfaces: 8,
            routes: 1000,
        },
        false => MANY,
    };
    let (rounds, runs) = if quick { (20, 3) } else { (2000, 41) };
    let src = Ipv4Addr::new(10, 0, 0, 2);
    let (echo, data) = (ping(src), datagram(src));
    let mut bare = Bare::new();
    let [mut one, mut lots] = [ONE, many].map(System::new);
    let connections = lots.flows.len();
    // Rows of the same round trip: the send queue, and the packet.
    let each = [
        ("ping", "fifo\n", &echo),
        ("fq_codel: ping", "fq_codel\n", &echo),
        ("udp echo", "fifo\n", &data),
    ];
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header([
        "round trip of 84 bytes",
        "one of each, ns",
        "many, ns",
        "ratio",
    ]);
    let mut row = |name: &str, times: [f64; 2]| {
        let [one, many] = times;
        table.add_row([
            name.to_owned(),
            format!("{one:.0}"),
            format!("{many:.0}"),
            format!("{:.2}", many / one),
        ]);
    };
    for (name, queue, packet) in each.into_iter().filter(|(name, ..)| wanted(name)) {
        one.set_queue(queue);
        lots.set_queue(queue);
        let times = measure(
            rounds,
            runs,
            &mut [
                ("one", Box::new(|| assert!(one.exchange(packet).is_some()))),
                (
                    "many",
                    Box::new(|| assert!(lots.exchange(packet).is_some())),
                ),
            ],
        );
        row(name, [times[0], times[1]]);
    }
    for system in [&one, &lots] {
        system.set_queue("fifo\n");
    }
    if wanted("tcp one") {
        let times = measure(
            rounds,
            runs,
            &mut [
                ("one", Box::new(|| one.tcp_echo(0))),
                ("many", Box::new(|| lots.tcp_echo(0))),
            ],
        );
        row(
            "tcp one: echo and ack, one connection busy",
            [times[0], times[1]],
        );
    }
    if wanted("tcp all") {
        let times = measure(
            rounds,
            runs,
            &mut [
                ("one", Box::new(|| one.tcp_echo(0))),
                (
                    "many",
                    Box::new(|| {
                        // A stride that visits all, and no two neighbours.
                        lots.next = (lots.next + 7919) % connections;
                        let flow = lots.next;
                        lots.tcp_echo(flow);
                    }),
                ),
            ],
        );
        row(
            "tcp all: echo and ack, every connection busy",
            [times[0], times[1]],
        );
    }
    if wanted("udp batch") {
        let [mut single, mut batch] = [false, true].map(Datagrams::new);
        let times = measure(
            rounds / 20,
            runs,
            &mut [
                ("single", Box::new(|| single.round())),
                ("batch", Box::new(|| batch.round())),
            ],
        );
        println!(
            "{} datagrams of 64 bytes over lo0, one by one {:.0} ns, in a batch {:.0} ns: {:.2} times",
            Datagrams::MANY,
            times[0],
            times[1],
            times[1] / times[0]
        );
    }
    if !wanted("bare") {
        return;
    }
    let times = measure(
        rounds,
        runs,
        &mut [
            ("bare", Box::new(|| bare.udp_echo(&data))),
            ("tund", Box::new(|| assert!(one.exchange(&data).is_some()))),
        ],
    );
    println!(
        "{} connections, {} listeners, {} interfaces, {} routes:",
        connections, many.listeners, many.interfaces, many.routes
    );
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
    println!(
        "udp echo, bare smoltcp {:.0} ns, through the device {:.0} ns: {:.2} times",
        times[0],
        times[1],
        times[1] / times[0]
    );
}

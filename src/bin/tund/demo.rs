//! The demonstration: stack, driver and a client in one process.
//!
//! The client is a program as it would be on Redox: it opens the device, reads, writes and polls.
//! Behind the device it has a bare smoltcp, which is the other end of the tunnel. No privilege is
//! needed: there are no real descriptors, and the demonstration decides who is root.

use std::error::Error;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};
use net::{Config, Host, Services};
use scheme::local::{Fd, Local, OneSession, Process};
use scheme::{OpenFlags, Ready, errno};
use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::socket::{icmp, tcp, udp};
use smoltcp::wire::{HardwareAddress, Icmpv4Packet, Icmpv4Repr, IpAddress, IpCidr, IpEndpoint};

const SYSTEM: IpAddress = IpAddress::v4(10, 0, 0, 1);
const CLIENT: IpAddress = IpAddress::v4(10, 0, 0, 2);
const MTU: usize = 1500;
const ECHO: u16 = 7;
/// A step that makes no progress for this long has failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of the TCP transfer that are captured. More would only fill the disk.
const CAPTURED: u64 = 4 << 20;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Echo requests to send
    #[arg(long, default_value_t = 100)]
    pings: u16,
    /// UDP datagrams to send, each with 1024 bytes
    #[arg(long, default_value_t = 10_000)]
    datagrams: u32,
    /// Megabytes to move over TCP, both ways together
    #[arg(long, default_value_t = 1024)]
    megabytes: u64,
    /// Where to write the capture
    #[arg(long, value_name = "FILE", default_value = "tund-demo.pcap")]
    capture: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pings: 100,
            datagrams: 10_000,
            megabytes: 1024,
            capture: "tund-demo.pcap".into(),
        }
    }
}

pub(crate) fn run(config: Config, options: Options) -> Result<(), Box<dyn Error>> {
    let config = Config {
        services: config.services | Services::all(),
        ..config
    };
    let system = Local::new(Host::new(config, OneSession));
    // A front decides which user is root, and here the demonstration is.
    let root = system.process(1, 0);
    say(&format!(
        "Opening tun/0 and giving tun0 the address {SYSTEM}/24; the client is {CLIENT}."
    ))?;
    let mut demo = Demo::new(&system, root, &options)?;
    let mut rows = Vec::new();
    demo.ping(&options, &mut rows)?;
    demo.datagrams(&options, &mut rows)?;
    demo.transfer(&options, &mut rows)?;
    demo.report(rows, &options)
}

/// A row of the table: name, amount, rate.
type Row = [String; 3];

struct Demo {
    client: Client,
    capture: Option<(Fd, File)>,
    captured: u64,
}

/// The program that has the device open.
struct Client {
    device: Device,
    interface: Interface,
    sockets: SocketSet<'static>,
    start: Instant,
}

/// smoltcp's view of the device: reads and writes of one packet each.
struct Device {
    process: Arc<Process<Host>>,
    tun: Fd,
    buffer: Vec<u8>,
    read: Traffic,
    written: Traffic,
}

#[derive(Clone, Copy, Default)]
struct Traffic {
    packets: u64,
    bytes: u64,
}

impl Traffic {
    fn count(&mut self, len: usize) {
        self.packets += 1;
        self.bytes += len as u64;
    }
}

impl phy::Device for Device {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sender<'a>;

    fn receive(&mut self, _now: smoltcp::time::Instant) -> Option<(Received, Sender<'_>)> {
        // EAGAIN when nothing is queued.
        let len = self.process.read(self.tun, &mut self.buffer).ok()?;
        self.read.count(len);
        Some((Received(self.buffer[..len].to_vec()), Sender(self)))
    }

    fn transmit(&mut self, _now: smoltcp::time::Instant) -> Option<Sender<'_>> {
        Some(Sender(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}

struct Received(Vec<u8>);

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Sender<'a>(&'a mut Device);

impl phy::TxToken for Sender<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        match self.0.process.write(self.0.tun, &packet) {
            Ok(_) => self.0.written.count(len),
            Err(error) => log::error!("write to tun/0: {error}"),
        }
        result
    }
}

impl Client {
    fn poll(&mut self) {
        let now = smoltcp::time::Instant::from_micros(self.start.elapsed().as_micros() as i64);
        self.interface
            .poll(now, &mut self.device, &mut self.sockets);
    }

    /// Waits for a packet with poll(2), as a program does that has nothing else to do.
    fn wait(&self) -> Result<(), errno::Errno> {
        let wanted = [(self.device.tun, Ready::READ)];
        let pause = Some(Duration::from_millis(5));
        self.device.process.poll(&wanted, pause).map(drop)
    }
}

impl Demo {
    fn new(
        system: &Arc<Local<Host>>,
        root: Process<Host>,
        options: &Options,
    ) -> Result<Self, Box<dyn Error>> {
        let both = OpenFlags::READ | OpenFlags::WRITE;
        let tun = root.open("/scheme/tun/0", both)?;
        root.set_nonblocking(tun, true)?;
        set(
            &root,
            "/scheme/netcfg/ifaces/tun0/addr/set",
            &format!("{SYSTEM}/24\n"),
        )?;
        let tap = root.open("/scheme/bpf/tun0", both)?;
        root.set_nonblocking(tap, true)?;
        let capture = match File::create(&options.capture) {
            Ok(file) => Some((tap, file)),
            Err(error) => {
                let path = options.capture.display();
                say(&format!(
                    "No capture: {path}: {error}. Going on without one."
                ))?;
                root.close(tap)?;
                None
            }
        };
        let start = Instant::now();
        let mut device = Device {
            process: Arc::new(root),
            tun,
            buffer: vec![0; 65_536],
            read: Traffic::default(),
            written: Traffic::default(),
        };
        let mut config = smoltcp::iface::Config::new(HardwareAddress::Ip);
        config.random_seed = system
            .with_server(|_| start.elapsed().subsec_nanos())
            .into();
        let mut interface = Interface::new(config, &mut device, smoltcp::time::Instant::ZERO);
        interface.update_ip_addrs(|addrs| {
            // There is room for more than one address.
            let _ = addrs.push(IpCidr::new(CLIENT, 24));
        });
        let client = Client {
            device,
            interface,
            sockets: SocketSet::new(Vec::new()),
            start,
        };
        Ok(Self {
            client,
            capture,
            captured: 0,
        })
    }

    /// Moves the captured packets to the file.
    fn drain_capture(&mut self) -> Result<(), Box<dyn Error>> {
        let Some((tap, file)) = &mut self.capture else {
            return Ok(());
        };
        let mut chunk = vec![0; 256 << 10];
        while let Ok(len) = self.client.device.process.read(*tap, &mut chunk) {
            file.write_all(&chunk[..len])?;
            self.captured += len as u64;
        }
        Ok(())
    }

    fn ping(&mut self, options: &Options, rows: &mut Vec<Row>) -> Result<(), Box<dyn Error>> {
        const IDENT: u16 = 0x7475;

        let buffer = || {
            let metadata = vec![icmp::PacketMetadata::EMPTY; 8];
            icmp::PacketBuffer::new(metadata, vec![0; 2048])
        };
        let mut socket = icmp::Socket::new(buffer(), buffer());
        socket.bind(icmp::Endpoint::Ident(IDENT))?;
        let handle = self.client.sockets.add(socket);
        let bar = progress(options.pings.into(), "ping", "{pos}/{len} replies");
        let mut times = Vec::new();
        for sequence in 0..options.pings {
            let sent = Instant::now();
            let socket = self.client.sockets.get_mut::<icmp::Socket<'_>>(handle);
            let request = Icmpv4Repr::EchoRequest {
                ident: IDENT,
                seq_no: sequence,
                data: &[0x55; 56],
            };
            let message = socket.send(request.buffer_len(), SYSTEM)?;
            request.emit(
                &mut Icmpv4Packet::new_unchecked(message),
                &phy::ChecksumCapabilities::default(),
            );
            loop {
                self.client.poll();
                let socket = self.client.sockets.get_mut::<icmp::Socket<'_>>(handle);
                if socket.can_recv() {
                    let (message, _) = socket.recv()?;
                    let reply = Icmpv4Packet::new_checked(message)?;
                    if reply.echo_seq_no() == sequence {
                        break;
                    }
                }
                if sent.elapsed() > PATIENCE {
                    return Err(format!("no reply to ping {sequence}").into());
                }
                self.client.wait()?;
            }
            times.push(sent.elapsed());
            bar.inc(1);
        }
        bar.finish_and_clear();
        self.client.sockets.remove(handle);
        self.drain_capture()?;
        times.sort_unstable();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        say(&format!(
            "{} pings, {} replies.",
            options.pings,
            times.len()
        ))?;
        let replies = format!("{} of {} replies", times.len(), options.pings);
        rows.push(["ping".into(), replies, format!("median {median:.1?}")]);
        Ok(())
    }

    fn datagrams(&mut self, options: &Options, rows: &mut Vec<Row>) -> Result<(), Box<dyn Error>> {
        const LEN: usize = 1024;
        /// Datagrams in flight: fewer than the device's queue holds.
        const WINDOW: u32 = 32;

        let buffer = || {
            let metadata = vec![udp::PacketMetadata::EMPTY; 64];
            udp::PacketBuffer::new(metadata, vec![0; 64 * LEN])
        };
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(40_000)?;
        let handle = self.client.sockets.add(socket);
        let bar = progress(options.datagrams.into(), "udp", "{pos}/{len} echoed");
        let (mut sent, mut echoed) = (0, 0);
        let start = Instant::now();
        let mut last = start;
        while echoed < options.datagrams {
            let socket = self.client.sockets.get_mut::<udp::Socket<'_>>(handle);
            while sent < options.datagrams && sent - echoed < WINDOW && socket.can_send() {
                socket.send_slice(&datagram(sent, LEN), IpEndpoint::new(SYSTEM, ECHO))?;
                sent += 1;
            }
            let before = echoed;
            while socket.can_recv() {
                let (data, _) = socket.recv()?;
                if *data != datagram(echoed, LEN) {
                    return Err(format!("datagram {echoed} came back different").into());
                }
                echoed += 1;
            }
            if echoed > before {
                last = Instant::now();
                bar.set_position(echoed.into());
            } else if last.elapsed() > PATIENCE {
                return Err(format!("datagram {echoed} did not come back").into());
            }
            self.client.poll();
        }
        let took = start.elapsed();
        bar.finish_and_clear();
        self.client.sockets.remove(handle);
        self.drain_capture()?;
        say(&format!(
            "{sent} datagrams of {LEN} bytes sent, {echoed} echoed, every byte checked."
        ))?;
        let rate = f64::from(2 * echoed) / took.as_secs_f64();
        let moved = format!("{echoed} of {sent} echoed");
        rows.push([
            "UDP".into(),
            moved,
            format!("{rate:.0} packets/s, both ways"),
        ]);
        Ok(())
    }

    fn transfer(&mut self, options: &Options, rows: &mut Vec<Row>) -> Result<(), Box<dyn Error>> {
        let total = (options.megabytes << 20) / 2;
        let buffer = || tcp::SocketBuffer::new(vec![0; 256 << 10]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_congestion_control(tcp::CongestionControl::Cubic);
        let remote = (SYSTEM, ECHO);
        socket.connect(self.client.interface.context(), remote, 50_000)?;
        let handle = self.client.sockets.add(socket);
        let template = "{bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";
        let bar = progress(2 * total, "tcp", template);
        let (mut sent, mut received) = (0_u64, 0_u64);
        let start = Instant::now();
        let mut last = (start, 0);
        while received < total {
            self.client.poll();
            let moved = step(
                &mut self.client.sockets,
                handle,
                total,
                &mut sent,
                &mut received,
            )?;
            if moved > 0 {
                last = (Instant::now(), received);
                bar.set_position(sent + received);
            } else if last.0.elapsed() > PATIENCE {
                return Err(format!("TCP stands still after {} bytes", last.1).into());
            } else {
                self.client.wait()?;
            }
            if self.capture.is_some() {
                self.drain_capture()?;
                if self.captured > CAPTURED
                    && let Some((tap, _)) = self.capture.take()
                {
                    self.client.device.process.close(tap)?;
                }
            }
        }
        let took = start.elapsed();
        self.client
            .sockets
            .get_mut::<tcp::Socket<'_>>(handle)
            .close();
        for _ in 0..16 {
            self.client.poll();
        }
        bar.finish_and_clear();
        let both = HumanBytes(sent + received);
        say(&format!(
            "{both} over TCP, half of it each way, every byte checked, in {}.",
            HumanDuration(took)
        ))?;
        let rate = (sent + received) as f64 / took.as_secs_f64() / 1e6;
        rows.push([
            "TCP".into(),
            both.to_string(),
            format!("{rate:.0} MB/s, both ways"),
        ]);
        Ok(())
    }

    fn report(mut self, rows: Vec<Row>, options: &Options) -> Result<(), Box<dyn Error>> {
        self.drain_capture()?;
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        table.set_header(["measured", "moved", "speed"]);
        table.add_rows(rows);
        say(&format!("\n{table}\n"))?;

        let process = &self.client.device.process;
        let stats = Counters::read(process, "/scheme/netcfg/ifaces/tun0/stats")?;
        let ledger = Counters::read(process, "/scheme/netcfg/ifaces/tun0/ledger")?;
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        table.set_header(["tun0", "into the system", "out of it"]);
        let pair = |name: &str| {
            [format!("in.{name}"), format!("out.{name}")].map(|name| ledger.get(&name))
        };
        for name in ["offered", "delivered", "forwarded", "queued", "dropped"] {
            let [input, output] = pair(name);
            table.add_row([name.to_owned(), input.to_string(), output.to_string()]);
        }
        let device = &self.client.device;
        let bytes = [stats.get("ibytes"), stats.get("obytes")];
        let claimed = [device.written.bytes, device.read.bytes];
        table.add_row([
            "bytes".to_owned(),
            bytes[0].to_string(),
            bytes[1].to_string(),
        ]);
        let [written, read] = claimed;
        table.add_row([
            "bytes the client saw".to_owned(),
            written.to_string(),
            read.to_string(),
        ]);
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        say(&table.to_string())?;
        for (name, count) in stats.drops() {
            say(&format!("  {name} {count}"))?;
        }
        let closes = ["in", "out"].iter().all(|way| {
            let get = |name: &str| ledger.get(&format!("{way}.{name}"));
            let parts = ["delivered", "forwarded", "queued", "dropped"];
            get("offered") == parts.iter().map(|name| get(name)).sum::<u64>()
        });
        if !closes || bytes != claimed {
            return Err("the ledger of tun0 does not close".into());
        }
        say("Every packet and every byte is accounted for.")?;
        if self.captured == 0 {
            return Ok(());
        }
        let path = options
            .capture
            .canonicalize()
            .unwrap_or_else(|_| options.capture.clone());
        say(&format!(
            "The capture, {} of it, is in {}",
            HumanBytes(self.captured),
            path.display()
        ))
    }
}

/// Sends and receives as much as is possible at once; returns the number of bytes.
fn step(
    sockets: &mut SocketSet<'static>,
    handle: SocketHandle,
    total: u64,
    sent: &mut u64,
    received: &mut u64,
) -> Result<u64, Box<dyn Error>> {
    let socket = sockets.get_mut::<tcp::Socket<'_>>(handle);
    let before = *sent + *received;
    while *sent < total && socket.can_send() {
        let left = total - *sent;
        let start = *sent;
        let len = socket.send(|room| {
            let len = room.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            for (at, byte) in room[..len].iter_mut().enumerate() {
                *byte = pattern(start + at as u64);
            }
            (len, len)
        })?;
        *sent += len as u64;
    }
    while socket.can_recv() {
        let start = *received;
        let (len, good) = socket.recv(|data| {
            let mut bytes = data.iter().enumerate();
            let good = bytes.all(|(at, &byte)| byte == pattern(start + at as u64));
            (data.len(), (data.len(), good))
        })?;
        if !good {
            return Err(format!("a byte after {start} came back different").into());
        }
        *received += len as u64;
    }
    if !socket.is_active() {
        return Err(format!("the connection ended after {received} bytes").into());
    }
    Ok(*sent + *received - before)
}

/// The byte at this position of the stream. Its period is not one of the sizes used here.
fn pattern(at: u64) -> u8 {
    (at % 251) as u8
}

fn datagram(number: u32, len: usize) -> Vec<u8> {
    let mut data = vec![number as u8; len];
    data[..4].copy_from_slice(&number.to_be_bytes());
    data
}

/// Prints a text. If the reader of a pipe is gone, that is not an error.
fn say(text: &str) -> Result<(), Box<dyn Error>> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        written => Ok(written?),
    }
}

fn progress(len: u64, name: &'static str, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(len).with_prefix(name);
    let style = ProgressStyle::with_template(&format!("{{prefix:>5}} {{wide_bar}} {template}"));
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn set(process: &Process<Host>, path: &str, line: &str) -> Result<(), errno::Errno> {
    let file = process.open(path, OpenFlags::WRITE)?;
    process.write(file, line.as_bytes())?;
    process.close(file)
}

/// A text of names and numbers, one pair on each line.
struct Counters(String);

impl Counters {
    fn read(process: &Process<Host>, path: &str) -> Result<Self, Box<dyn Error>> {
        let file = process.open(path, OpenFlags::READ)?;
        let mut text = vec![0; 16 << 10];
        let len = process.read(file, &mut text)?;
        process.close(file)?;
        text.truncate(len);
        Ok(Self(String::from_utf8(text)?))
    }

    fn lines(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.lines().filter_map(|line| {
            let (name, count) = line.split_once(' ')?;
            Some((name, count.parse().ok()?))
        })
    }

    fn get(&self, wanted: &str) -> u64 {
        let mut lines = self.lines();
        lines
            .find(|(name, _)| *name == wanted)
            .map_or(0, |(_, count)| count)
    }

    fn drops(&self) -> impl Iterator<Item = (&str, u64)> {
        self.lines()
            .filter(|(name, count)| name.starts_with("drop.") && *count > 0)
    }
}

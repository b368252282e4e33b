//! Sockets, called as relibc's socket layer calls them: the same opens, dups, calls and layouts,
//! through the local front over `lo0`.
#![allow(missing_docs)]

mod common;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::packet::{checksum, ipv4, udp};
use common::system::TestProcesses;
use scheme::errno::{self, Errno};
use scheme::local::{Fd, Local, ManualClock, Process};
use scheme::{Caller, FileServer, Now, OpenFlags, Outcome, Pid, Ready};
use tund::{Config, Net, Services};

const BOTH: OpenFlags = OpenFlags::READ.union(OpenFlags::WRITE);

fn system() -> Arc<Local<Net>> {
    let config = Config {
        seed: 3,
        services: Services::ECHO,
    };
    Local::new(Net::new(config, TestProcesses))
}

/// The same, with time by hand.
fn system_by_hand() -> (Arc<Local<Net>>, Arc<ManualClock>) {
    let config = Config {
        seed: 3,
        services: Services::empty(),
    };
    let clock = Arc::new(ManualClock::default());
    let net = Net::new(config, TestProcesses);
    (Local::with_clock(net, Arc::clone(&clock)), clock)
}

/// What relibc does for a program.
struct Libc(Process<Net>);

impl Libc {
    fn new(system: &Arc<Local<Net>>) -> Arc<Self> {
        Arc::new(Self(system.process(1, 0)))
    }

    fn socket(&self, scheme: &str) -> Fd {
        self.0.open(&format!("/scheme/{scheme}"), BOTH).unwrap()
    }

    /// A dup whose result takes the place of the descriptor.
    fn renamed(&self, fd: Fd, verb: &str) -> Result<Fd, Errno> {
        let new = self.0.dup_verb(fd, verb.as_bytes())?;
        self.0.close(fd).unwrap();
        Ok(new)
    }

    fn bind(&self, fd: Fd, name: &str) -> Result<Fd, Errno> {
        self.renamed(fd, &format!("/{name}"))
    }

    fn connect(&self, fd: Fd, name: &str) -> Result<Fd, Errno> {
        self.renamed(fd, name)
    }

    fn accept(&self, fd: Fd) -> Result<Fd, Errno> {
        self.0.dup_verb(fd, b"listen")
    }

    /// The part of fpath behind the last slash.
    fn sockname(&self, fd: Fd) -> String {
        self.0
            .path(fd)
            .unwrap()
            .rsplit('/')
            .next()
            .unwrap()
            .to_owned()
    }

    fn peername(&self, fd: Fd) -> Result<String, Errno> {
        let mut payload = [0; 256];
        let len = self.0.sys_call(fd, &mut payload, &[8])?;
        Ok(String::from_utf8(payload[..len].to_vec()).unwrap())
    }

    fn timeout(&self, fd: Fd, verb: &str, timeout: Duration) {
        let setting = self.0.dup_verb(fd, verb.as_bytes()).unwrap();
        let mut time = [0; 16];
        time[..8].copy_from_slice(&(timeout.as_secs() as i64).to_ne_bytes());
        time[8..12].copy_from_slice(&(timeout.subsec_nanos() as i32).to_ne_bytes());
        assert_eq!(self.0.write(setting, &time), Ok(16));
        self.0.close(setting).unwrap();
    }

    /// recvmsg: the sender's name, the length there was, and the data.
    fn recvmsg(&self, fd: Fd, room: usize, flags: u64) -> Result<(String, usize, Vec<u8>), Errno> {
        let mut payload = vec![0; 64 + 8 + 128 + 8 + room + 8];
        payload[..8].copy_from_slice(&128_u64.to_le_bytes());
        payload[8..16].copy_from_slice(&(room as u64).to_le_bytes());
        let total = self.0.sys_call(fd, &mut payload, &[5, flags])?;
        let word = |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().unwrap()) as usize;
        let name = word(0);
        let len = word(8 + name);
        let data = payload[16 + name..total].to_vec();
        let name = String::from_utf8(payload[8..8 + name].to_vec()).unwrap();
        Ok((name, len, data))
    }

    fn shutdown(&self, fd: Fd, how: u64) -> Result<usize, Errno> {
        self.0.sys_call(fd, &mut [], &[9, how])
    }

    /// setsockopt of a number.
    fn set_option(&self, fd: Fd, option: u64, value: i32) -> Result<usize, Errno> {
        self.0.sys_call(fd, &mut value.to_ne_bytes(), &[2, option])
    }

    /// getsockopt of a number.
    fn option(&self, fd: Fd, option: u64) -> Result<i32, Errno> {
        let mut value = [0; 4];
        let len = self.0.sys_call(fd, &mut value, &[3, option])?;
        assert_eq!(len, 4);
        Ok(i32::from_ne_bytes(value))
    }

    /// The same two for the options of a protocol.
    fn set_at(&self, level: u64, fd: Fd, option: u64, value: &[u8]) -> Result<usize, Errno> {
        let words = [2, option, 1 << 32 | level];
        self.0.sys_call(fd, &mut value.to_vec(), &words)
    }

    fn at(&self, level: u64, fd: Fd, option: u64) -> Result<i32, Errno> {
        let mut value = [0; 4];
        let words = [3, option, 1 << 32 | level];
        let len = self.0.sys_call(fd, &mut value, &words)?;
        assert_eq!(len, 4);
        Ok(i32::from_ne_bytes(value))
    }

    fn read_all(&self, fd: Fd) -> Vec<u8> {
        let mut all = Vec::new();
        let mut buf = vec![0; 65_536];
        loop {
            match self.0.read(fd, &mut buf).unwrap() {
                0 => return all,
                len => all.extend_from_slice(&buf[..len]),
            }
        }
    }

    fn write_all(&self, fd: Fd, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let len = self.0.write(fd, bytes).unwrap();
            bytes = &bytes[len..];
        }
    }

    /// A listener, and its port.
    fn listener(&self, address: &str) -> (Fd, String) {
        let fd = self
            .bind(self.socket("tcp"), &format!("{address}:0"))
            .unwrap();
        let name = self.sockname(fd);
        (fd, name.rsplit(':').next().unwrap().to_owned())
    }

    /// Both ends of a connection.
    fn pair(&self) -> (Fd, Fd) {
        let (listener, port) = self.listener("127.0.0.1");
        let client = self
            .connect(self.socket("tcp"), &format!("127.0.0.1:{port}"))
            .unwrap();
        let server = self.accept(listener).unwrap();
        self.0.close(listener).unwrap();
        (client, server)
    }
}

/// Tunnel `tun0` with address 10.1.0.1/24, read without waiting.
fn tunnel(libc: &Libc) -> Fd {
    common::program::tunnel(&libc.0, 0, "10.1.0.1/24")
}

/// The same with IPv6 as well: each packet has its family in front.
fn tunnel_with_head(libc: &Libc) -> Fd {
    const TUNSIFHEAD: u32 = 0x8004_7460;

    let tun = tunnel(libc);
    libc.0.ioctl(tun, TUNSIFHEAD, &mut [1, 0, 0, 0]).unwrap();
    set(libc, "ifaces/tun0/addr/add", "fd00::1/64\n");
    tun
}

fn set(libc: &Libc, path: &str, line: &str) {
    let written = common::program::set(&libc.0, path, line);
    assert_eq!(written, Ok(line.len()));
}

/// The packets that left by a tunnel.
fn sent(libc: &Libc, tun: Fd) -> Vec<Vec<u8>> {
    let mut buf = vec![0; 70_000];
    let next = || {
        libc.0
            .read(tun, &mut buf)
            .ok()
            .map(|len| buf[..len].to_vec())
    };
    std::iter::from_fn(next).collect()
}

/// The hop limits of the packets that left by a tunnel, with a head or without.
fn hops(libc: &Libc, tun: Fd) -> Vec<u8> {
    let hops = |packet: &Vec<u8>| match packet[..] {
        [0, 0, 0, _, ref packet @ ..] if packet[0] >> 4 == 6 => packet[7],
        [0, 0, 0, _, ref packet @ ..] => packet[8],
        ref packet => packet[8],
    };
    sent(libc, tun).iter().map(hops).collect()
}

#[test]
fn names_of_both_ends() {
    let system = system();
    let libc = Libc::new(&system);
    let fresh = libc.socket("tcp");
    assert_eq!(
        libc.0.path(fresh).unwrap(),
        "/scheme/tcp/0.0.0.0:0/0.0.0.0:0"
    );
    let (listener, port) = libc.listener("0.0.0.0");
    assert_eq!(
        libc.0.path(listener).unwrap(),
        format!("/scheme/tcp/0.0.0.0:0/0.0.0.0:{port}")
    );
    let client = libc.connect(fresh, &format!("127.0.0.1:{port}")).unwrap();
    let server = libc.accept(listener).unwrap();
    let client_name = libc.sockname(client);
    assert_eq!(
        libc.0.path(server).unwrap(),
        format!("/scheme/tcp/{client_name}/127.0.0.1:{port}")
    );
    assert_eq!(libc.peername(server).unwrap(), libc.0.path(server).unwrap());
    assert_eq!(libc.peername(listener), Err(errno::ENOTCONN));
    // Names that relibc asks for by accident.
    assert_eq!(libc.0.dup_verb(client, b"termios"), Err(errno::EINVAL));
}

#[test]
fn every_byte_both_ways_and_the_end_of_each() {
    let system = system();
    let libc = Libc::new(&system);
    let (client, server) = libc.pair();
    let data: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    let echo = {
        let libc = Arc::clone(&libc);
        thread::spawn(move || {
            let all = libc.read_all(server);
            libc.write_all(server, &all);
            libc.0.close(server).unwrap();
        })
    };
    libc.write_all(client, &data);
    assert_eq!(libc.shutdown(client, 1), Ok(0));
    assert_eq!(libc.0.write(client, b"more"), Err(errno::EPIPE));
    assert_eq!(libc.read_all(client), data);
    echo.join().unwrap();
}

#[test]
fn a_dropped_stream_loses_nothing_and_ends() {
    let system = system();
    let libc = Libc::new(&system);
    let (client, server) = libc.pair();
    let data = vec![7; 200_000];
    let writer = {
        let (libc, data) = (Arc::clone(&libc), data.clone());
        thread::spawn(move || {
            libc.write_all(client, &data);
            libc.0.close(client).unwrap();
        })
    };
    assert_eq!(libc.read_all(server).len(), data.len());
    writer.join().unwrap();
}

#[test]
fn a_closed_port_refuses() {
    let system = system();
    let libc = Libc::new(&system);
    let fd = libc.socket("tcp");
    assert_eq!(
        libc.0.dup_verb(fd, b"127.0.0.1:4"),
        Err(errno::ECONNREFUSED)
    );
    // And the socket is as good as new.
    assert_eq!(libc.0.dup_verb(fd, b"10.9.9.9:4"), Err(errno::ENETUNREACH));
    let fd = libc.connect(fd, "127.0.0.1:7").unwrap();
    libc.write_all(fd, b"hello");
    let mut buf = [0; 10];
    assert_eq!(libc.0.read(fd, &mut buf), Ok(5));
}

#[test]
fn twelve_at_once_are_all_accepted() {
    let system = system();
    let libc = Libc::new(&system);
    let (listener, port) = libc.listener("127.0.0.1");
    let clients: Vec<_> = (0..12)
        .map(|number| {
            let (libc, port) = (Arc::clone(&libc), port.clone());
            thread::spawn(move || {
                let fd = libc
                    .connect(libc.socket("tcp"), &format!("127.0.0.1:{port}"))
                    .unwrap();
                libc.write_all(fd, &[number]);
                let mut buf = [0; 1];
                assert_eq!(libc.0.read(fd, &mut buf), Ok(1));
                assert_eq!(buf[0], number + 100);
            })
        })
        .collect();
    for _ in 0..12 {
        let fd = libc.accept(listener).unwrap();
        let mut buf = [0; 1];
        libc.0.read(fd, &mut buf).unwrap();
        libc.write_all(fd, &[buf[0] + 100]);
    }
    clients
        .into_iter()
        .for_each(|client| client.join().unwrap());
}

#[test]
fn connecting_without_waiting() {
    let system = system();
    let libc = Libc::new(&system);
    let (listener, port) = libc.listener("127.0.0.1");
    let fd = libc.socket("tcp");
    libc.0.set_nonblocking(fd, true).unwrap();
    let name = format!("127.0.0.1:{port}");
    assert_eq!(
        libc.0.dup_verb(fd, name.as_bytes()),
        Err(errno::EINPROGRESS)
    );
    let ready = libc
        .0
        .poll(&[(fd, Ready::WRITE)], Some(Duration::from_secs(10)))
        .unwrap();
    assert_eq!(ready, [Ready::WRITE]);
    libc.write_all(fd, b"x");
    let server = libc.accept(listener).unwrap();
    let mut buf = [0; 9];
    assert_eq!(libc.0.read(server, &mut buf), Ok(1));
    // Refused: it shows as readiness, and then as the error, once.
    let fd = libc.socket("tcp");
    libc.0.set_nonblocking(fd, true).unwrap();
    assert_eq!(libc.0.dup_verb(fd, b"127.0.0.1:4"), Err(errno::EINPROGRESS));
    let ready = libc
        .0
        .poll(&[(fd, Ready::all())], Some(Duration::from_secs(10)))
        .unwrap();
    assert_eq!(ready, [Ready::all()]);
    assert_eq!(libc.0.read(fd, &mut buf), Err(errno::ECONNREFUSED));
    assert_eq!(libc.0.read(fd, &mut buf), Ok(0));
}

#[test]
fn timeouts_are_for_their_own_direction() {
    let system = system();
    let libc = Libc::new(&system);
    let (client, server) = libc.pair();
    let mut buf = [0; 10];
    libc.timeout(client, "write_timeout", Duration::from_millis(1));
    libc.timeout(client, "read_timeout", Duration::from_millis(200));
    for _ in 0..2 {
        let start = Instant::now();
        assert_eq!(libc.0.read(client, &mut buf), Err(errno::ETIMEDOUT));
        assert!(
            start.elapsed() >= Duration::from_millis(200),
            "{:?}",
            start.elapsed()
        );
    }
    // What can be done at once is.
    libc.write_all(client, b"x");
    libc.write_all(server, b"y");
    assert_eq!(libc.0.read(client, &mut buf), Ok(1));
    // Zero means none.
    libc.timeout(client, "read_timeout", Duration::ZERO);
    let reader = {
        let libc = Arc::clone(&libc);
        thread::spawn(move || libc.0.read(client, &mut [0; 10]))
    };
    thread::sleep(Duration::from_millis(300));
    libc.write_all(server, b"z");
    assert_eq!(reader.join().unwrap(), Ok(1));
    // And a datagram socket has them as well.
    let udp = libc.bind(libc.socket("udp"), "127.0.0.1:0").unwrap();
    libc.timeout(udp, "read_timeout", Duration::from_millis(50));
    assert_eq!(libc.0.read(udp, &mut buf), Err(errno::ETIMEDOUT));
}

#[test]
fn datagrams_whole_short_and_peeked() {
    let system = system();
    let libc = Libc::new(&system);
    let server = libc.bind(libc.socket("udp"), "127.0.0.1:0").unwrap();
    let server_name = libc.sockname(server);
    let client = libc.connect(libc.socket("udp"), &server_name).unwrap();
    for size in [0, 1, 1458, 1459, 20_000, 65_507] {
        let data: Vec<u8> = (0..size).map(|at| at as u8).collect();
        assert_eq!(libc.0.write(client, &data), Ok(size));
        let (peeker, len, peeked) = libc.recvmsg(server, 70_000, 2).unwrap();
        let (sender, again, read) = libc.recvmsg(server, 70_000, 0).unwrap();
        assert_eq!((len, &peeked), (size, &data));
        assert_eq!((again, &read), (size, &data));
        assert_eq!(peeker, sender);
        assert_eq!(sender, format!("/scheme/udp/{}", libc.sockname(client)));
    }
    assert_eq!(libc.0.write(client, &vec![0; 65_508]), Err(errno::EMSGSIZE));
    // A short buffer loses the rest, and says how much there was.
    libc.0.write(client, &[5; 100]).unwrap();
    let (_, len, data) = libc.recvmsg(server, 10, 0).unwrap();
    assert_eq!((len, data.len()), (100, 10));
    libc.0.write(client, &[5; 100]).unwrap();
    assert_eq!(libc.0.read(server, &mut [0; 10]), Ok(10));
    assert_eq!(libc.recvmsg(server, 10, 64), Err(errno::EAGAIN));
    assert_eq!(libc.0.write(server, b"x"), Err(errno::EDESTADDRREQ));
}

#[test]
fn sendto_is_a_copy_that_filters_nothing() {
    let system = system();
    let libc = Libc::new(&system);
    let server = libc.bind(libc.socket("udp"), "127.0.0.1:0").unwrap();
    let other = libc.bind(libc.socket("udp"), "127.0.0.1:0").unwrap();
    let client = libc.socket("udp");
    let copy = libc
        .0
        .dup_verb(client, libc.sockname(server).as_bytes())
        .unwrap();
    libc.0.write(copy, b"question").unwrap();
    libc.0.close(copy).unwrap();
    // The socket has a port now, and hears from everybody.
    let name = libc.sockname(client);
    let port = name.rsplit(':').next().unwrap();
    for from in [server, other] {
        let copy = libc
            .0
            .dup_verb(from, format!("127.0.0.1:{port}").as_bytes())
            .unwrap();
        libc.0.write(copy, b"answer").unwrap();
        libc.0.close(copy).unwrap();
        let (sender, _, data) = libc.recvmsg(client, 100, 0).unwrap();
        assert_eq!(data, b"answer");
        assert_eq!(sender, format!("/scheme/udp/{}", libc.sockname(from)));
    }
    // Once connected it does not.
    let client = libc.connect(client, &libc.sockname(server)).unwrap();
    let copy = libc
        .0
        .dup_verb(other, libc.sockname(client).as_bytes())
        .unwrap();
    libc.0.write(copy, b"intruder").unwrap();
    assert_eq!(libc.recvmsg(client, 100, 64), Err(errno::EAGAIN));
}

#[test]
fn a_datagram_to_nobody_is_told_to_who_is_connected() {
    let system = system();
    let libc = Libc::new(&system);
    let client = libc.connect(libc.socket("udp"), "127.0.0.1:4").unwrap();
    libc.0.write(client, b"x").unwrap();
    assert_eq!(libc.0.read(client, &mut [0; 10]), Err(errno::ECONNREFUSED));
}

#[test]
fn ports_are_guarded_and_taken_once() {
    let system = system();
    let user = Libc(system.process(2, 1000));
    let fd = user.0.open("/scheme/tcp", BOTH).unwrap();
    assert_eq!(user.0.dup_verb(fd, b"/0.0.0.0:1024"), Err(errno::EACCES));
    assert_eq!(
        user.0.dup_verb(fd, b"/10.1.2.3:2000"),
        Err(errno::EADDRNOTAVAIL)
    );
    let bound = user.0.dup_verb(fd, b"/0.0.0.0:2000").unwrap();
    assert_eq!(
        user.0.dup_verb(fd, b"/0.0.0.0:2000"),
        Err(errno::EADDRINUSE)
    );
    user.0.close(bound).unwrap();
    assert!(user.0.dup_verb(fd, b"/0.0.0.0:2000").is_ok());
}

#[test]
fn a_listener_of_all_addresses_has_its_port_alone() {
    let system = system();
    let process = system.process(2, 1000);
    let fd = process.open("/scheme/tcp", BOTH).unwrap();
    let listen = |local: &str| process.dup_verb(fd, format!("/{local}:2000").as_bytes());
    let all = listen("0.0.0.0").unwrap();
    assert_eq!(listen("127.0.0.1"), Err(errno::EADDRINUSE));
    process.close(all).unwrap();
    let some = ["127.0.0.1", "[::1]"].map(|local| listen(local).unwrap());
    assert_eq!(listen("127.0.0.1"), Err(errno::EADDRINUSE));
    for one in some {
        assert_eq!(listen("0.0.0.0"), Err(errno::EADDRINUSE));
        process.close(one).unwrap();
    }
    assert!(listen("0.0.0.0").is_ok());
}

#[test]
fn ipv6_by_path() {
    let system = system();
    let libc = Libc::new(&system);
    let fd = libc.connect(libc.socket("tcp"), "[::1]:7").unwrap();
    libc.write_all(fd, b"six");
    let mut buf = [0; 10];
    assert_eq!(libc.0.read(fd, &mut buf), Ok(3));
    assert!(
        libc.0
            .path(fd)
            .unwrap()
            .starts_with("/scheme/tcp/[::1]:7/[::1]:")
    );
}

#[test]
fn a_listener_is_readable_when_there_is_somebody_to_accept() {
    let system = system();
    let libc = Libc::new(&system);
    let (listener, port) = libc.listener("127.0.0.1");
    let poll = || {
        libc.0
            .poll(&[(listener, Ready::all())], Some(Duration::ZERO))
            .unwrap()[0]
    };
    assert_eq!(poll(), Ready::empty());
    let client = libc
        .connect(libc.socket("tcp"), &format!("127.0.0.1:{port}"))
        .unwrap();
    assert_eq!(poll(), Ready::READ);
    let server = libc.accept(listener).unwrap();
    assert_eq!(poll(), Ready::empty());
    // A reset is told as one, after what came before it was read.
    libc.write_all(server, b"unread");
    let mut buf = [0; 3];
    libc.0.read(client, &mut buf).unwrap();
    libc.0.close(client).unwrap();
    assert_eq!(libc.0.read(server, &mut buf), Err(errno::ECONNRESET));
    assert_eq!(libc.0.read(server, &mut buf), Ok(0));
    assert_eq!(libc.0.write(server, b"x"), Err(errno::EPIPE));
}

#[test]
fn a_time_wait_does_not_refuse_a_new_connection() {
    let system = system();
    let libc = Libc::new(&system);
    let (listener, port) = libc.listener("127.0.0.1");
    for _ in 0..3 {
        let names = format!("127.0.0.1:{port}/127.0.0.1:40000");
        let client = libc.connect(libc.socket("tcp"), &names).unwrap();
        let server = libc.accept(listener).unwrap();
        libc.0.close(server).unwrap();
        assert_eq!(libc.0.read(client, &mut [0; 1]), Ok(0));
        libc.0.close(client).unwrap();
    }
}

/// Runs a call that may wait in a thread of its own; its answer, if it comes in time.
fn in_time<T: Send + 'static>(
    limit: Duration,
    call: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (answer, answered) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let _ = answer.send(call());
    });
    answered.recv_timeout(limit).ok()
}

#[test]
fn a_sendmsg_that_waits_does_not_hold_up_reads() {
    let system = system();
    let libc = Libc::new(&system);
    let (client, server) = libc.pair();
    // Nobody reads at the server: fill the way to it.
    libc.0.set_nonblocking(client, true).unwrap();
    while libc.0.write(client, &[1; 65_536]).is_ok()
        || libc
            .0
            .poll(&[(client, Ready::WRITE)], Some(Duration::from_millis(300)))
            .unwrap()[0]
            == Ready::WRITE
    {}
    libc.0.set_nonblocking(client, false).unwrap();
    let sender = libc.clone();
    thread::spawn(move || {
        let mut payload = 30_000_u64.to_le_bytes().to_vec();
        payload.resize(8 + 30_000, 7);
        let _ = sender.0.sys_call(client, &mut payload, &[4, 0]);
    });
    while system.waiting() == 0 {
        thread::yield_now();
    }
    libc.0.write(server, b"hello").unwrap();
    let reader = libc.clone();
    let read = move || reader.0.read(client, &mut [0; 16]);
    assert_eq!(in_time(Duration::from_secs(10), read), Some(Ok(5)));
}

#[test]
fn each_waiting_read_has_its_own_timeout() {
    let system = system();
    let libc = Libc::new(&system);
    let fd = libc.bind(libc.socket("udp"), "127.0.0.1:4000").unwrap();
    libc.timeout(fd, "read_timeout", Duration::from_millis(300));
    // A receive that would not wait does not give the others more time; nor do they each other.
    let receives: Vec<_> = (0..4)
        .map(|_| {
            let libc = libc.clone();
            thread::spawn(move || {
                let start = Instant::now();
                let result = libc.0.read(fd, &mut [0; 16]);
                (result, start.elapsed())
            })
        })
        .collect();
    while !receives.iter().all(thread::JoinHandle::is_finished) {
        assert!(libc.recvmsg(fd, 16, 64).is_err());
        thread::sleep(Duration::from_millis(20));
    }
    for receive in receives {
        let (result, took) = receive.join().unwrap();
        assert_eq!(result, Err(errno::ETIMEDOUT));
        assert!(took >= Duration::from_millis(300), "{took:?}");
    }
}

#[test]
fn a_setting_does_not_outlive_its_socket() {
    let system = system();
    let (alice, bob) = (system.process(10, 1000), system.process(20, 0));
    let socket = alice.open("/scheme/udp", BOTH).unwrap();
    let setting = alice.dup_verb(socket, b"read_timeout").unwrap();
    alice.close(socket).unwrap();
    // It gets the number that is free now.
    bob.open("/scheme/udp", BOTH).unwrap();
    assert_eq!(alice.write(setting, &[1; 16]), Err(errno::EBADF));
    assert_eq!(alice.read(setting, &mut [0; 16]), Err(errno::EBADF));
}

#[test]
fn a_connect_that_fails_leaves_every_listener_alone() {
    let system = system();
    let libc = Libc::new(&system);
    let bound = libc.bind(libc.socket("tcp"), "127.0.0.1:5000").unwrap();
    let unreachable = libc.0.dup_verb(bound, b"10.9.9.9:80");
    assert_eq!(unreachable, Err(errno::ENETUNREACH));
    let other = libc.bind(libc.socket("tcp"), "127.0.0.1:5001").unwrap();
    let client = libc.connect(libc.socket("tcp"), "127.0.0.1:5001").unwrap();
    libc.0.set_nonblocking(bound, true).unwrap();
    assert_eq!(libc.accept(bound), Err(errno::EAGAIN));
    libc.0.close(bound).unwrap();
    let server = libc.accept(other).unwrap();
    assert_eq!(libc.0.write(client, b"still here"), Ok(10));
    assert_eq!(libc.0.read(server, &mut [0; 16]), Ok(10));
}

#[test]
fn the_peer_of_a_nonblocking_connect_has_a_name() {
    let system = system();
    let libc = Libc::new(&system);
    let (listener, port) = libc.listener("127.0.0.1");
    let fd = libc.socket("tcp");
    libc.0.set_nonblocking(fd, true).unwrap();
    let begun = libc.0.dup_verb(fd, format!("127.0.0.1:{port}").as_bytes());
    assert_eq!(begun, Err(errno::EINPROGRESS));
    let ready = libc
        .0
        .poll(&[(fd, Ready::WRITE)], Some(Duration::from_secs(10)));
    assert_eq!(ready, Ok(vec![Ready::WRITE]));
    assert!(
        libc.peername(fd)
            .unwrap()
            .contains(&format!("127.0.0.1:{port}"))
    );
    libc.accept(listener).unwrap();
}

#[test]
fn a_stream_is_not_bound_to_a_group() {
    let system = system();
    let libc = Libc::new(&system);
    let bound = libc.0.dup_verb(libc.socket("tcp"), b"/239.1.2.3:5000");
    assert_eq!(bound, Err(errno::EADDRNOTAVAIL));
    libc.bind(libc.socket("udp"), "239.1.2.3:5000").unwrap();
}

#[test]
fn a_host_connects_to_itself_from_every_port_but_the_listeners_own() {
    let system = system();
    let libc = Libc::new(&system);
    let (listener, port) = libc.listener("127.0.0.1");
    let name = format!("127.0.0.1:{port}");
    let clients: Vec<Fd> = (49_152..65_535)
        .map(|_| {
            let client = libc.connect(libc.socket("tcp"), &name).unwrap();
            let server = libc.accept(listener).unwrap();
            libc.write_all(client, b"x");
            assert_eq!(libc.0.read(server, &mut [0; 8]), Ok(1));
            client
        })
        .collect();
    let one_more = libc.connect(libc.socket("tcp"), &name);
    assert_eq!(one_more, Err(errno::EADDRNOTAVAIL));
    assert_eq!(clients.len(), 16_383);
}

#[test]
fn the_hop_limit_is_a_file_of_one_byte() {
    let system = system();
    let libc = Libc::new(&system);
    let tun = tunnel(&libc);
    // Set before there is a name, it is that of the connection.
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

    // Datagrams: copies that sendto makes send with it, too.
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
    // RFC 5082: both ends send with the highest, so that nobody further away can pretend.
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

const SO_SNDBUF: u64 = 7;
const SO_RCVBUF: u64 = 8;

#[test]
fn buffers_are_as_large_as_was_asked() {
    let system = system();
    let libc = Libc::new(&system);
    // Within bounds, whatever is asked.
    let fresh = libc.socket("tcp");
    assert_eq!(libc.option(fresh, SO_RCVBUF), Ok(65_536));
    for (asked, told) in [(0, 4096), (10_000, 10_000), (i32::MAX, 65_536)] {
        assert_eq!(libc.set_option(fresh, SO_SNDBUF, asked), Ok(0));
        assert_eq!(libc.option(fresh, SO_SNDBUF), Ok(told));
    }
    assert_eq!(libc.set_option(fresh, SO_SNDBUF, -1), Err(errno::EINVAL));
    assert_eq!(
        libc.0.sys_call(fresh, &mut [0; 3], &[2, SO_SNDBUF]),
        Err(errno::EINVAL)
    );

    // A connection takes what was set before it; and so does one that is accepted.
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
    // Not one that stands.
    libc.set_option(client, SO_SNDBUF, 30_000).unwrap();
    assert_eq!(both(client), [65_536, 5000]);

    // It is what is held while nobody reads.
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
    // Each costs its headers and 256 bytes more.
    assert_eq!(held(), 10_000 / (1028 + 256));
    libc.set_option(server, SO_RCVBUF, 1 << 30).unwrap();
    assert_eq!(libc.option(server, SO_RCVBUF), Ok(208 << 10));
    assert_eq!(held(), 100);
    // It is the socket's, whichever file set it last.
    let copy = libc.0.dup_verb(server, b"127.0.0.1:9").unwrap();
    libc.set_option(server, SO_RCVBUF, 20_000).unwrap();
    libc.set_at(IP, copy, IP_TTL, &int(9)).unwrap();
    libc.set_option(copy, SO_SNDBUF, 9000).unwrap();
    assert_eq!(libc.option(server, SO_RCVBUF), Ok(20_000));
    libc.set_option(copy, SO_RCVBUF, 30_000).unwrap();
    assert_eq!(libc.option(server, SO_RCVBUF), Ok(30_000));
}

const IP: u64 = 0;
const TCP: u64 = 6;
const IPV6: u64 = 41;
const TCP_NODELAY: u64 = 1;
const IP_TTL: u64 = 2;
const IPV6_UNICAST_HOPS: u64 = 16;
const IPV6_MULTICAST_IF: u64 = 17;
const IPV6_MULTICAST_HOPS: u64 = 18;
const IPV6_MULTICAST_LOOP: u64 = 19;
const IP_MULTICAST_IF: u64 = 32;
const IP_MULTICAST_TTL: u64 = 33;
const IP_MULTICAST_LOOP: u64 = 34;

fn int(value: i32) -> [u8; 4] {
    value.to_ne_bytes()
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
        assert_eq!(libc.at(level, fresh, option), Ok(64));
        assert_eq!(libc.set_at(level, fresh, option, &int(7)), Ok(0));
        assert_eq!(libc.at(level, fresh, option), Ok(7));
        for bad in [0, -2, 256] {
            let set = libc.set_at(level, fresh, option, &int(bad));
            assert_eq!(set, Err(errno::EINVAL), "{bad}");
        }
        assert_eq!(libc.set_at(level, fresh, option, &[]), Err(errno::EINVAL));
        let client = libc.connect(fresh, peer).unwrap();
        libc.0.write(client, b"x").unwrap();
        // The default again; and of a byte, as BSD's programs have it.
        libc.set_at(level, client, option, &int(-1)).unwrap();
        libc.0.write(client, b"x").unwrap();
        libc.set_at(level, client, option, &[200]).unwrap();
        libc.0.write(client, b"x").unwrap();
        assert_eq!(hops(&libc, tun), [7, 64, 200]);
        // It is the same as that of the file.
        let setting = libc.0.dup_verb(client, b"hop_limit").unwrap();
        let mut hops = [0];
        libc.0.read(setting, &mut hops).unwrap();
        assert_eq!(hops, [200]);
    }
    // A level must be said to be there: the kernel fills up with zeros.
    let fd = libc.socket("udp");
    let words = |level| [3, IP_TTL, level];
    for unknown in [6, 41, 1 << 32 | 17] {
        let got = libc.0.sys_call(fd, &mut [0; 4], &words(unknown));
        assert_eq!(got, Err(errno::ENOPROTOOPT));
    }
    assert_eq!(libc.at(1, fd, SO_RCVBUF), libc.option(fd, SO_RCVBUF));
    assert_eq!(libc.at(IP, fd, 99), Err(errno::ENOPROTOOPT));
}

/// Data of the segments in packets of IPv4.
fn data(packets: &[Vec<u8>]) -> Vec<&[u8]> {
    let data = |packet: &'_ Vec<u8>| 20 + usize::from(packet[32] >> 4) * 4;
    let data = packets.iter().map(|packet| &packet[data(packet)..]);
    data.filter(|data| !data.is_empty()).collect()
}

#[test]
fn nodelay_sends_small_segments_at_once() {
    let system = system();
    let libc = Libc::new(&system);
    let tun = tunnel(&libc);
    for no_delay in [false, true] {
        let fresh = libc.socket("tcp");
        assert_eq!(libc.at(TCP, fresh, TCP_NODELAY), Ok(0));
        libc.set_at(TCP, fresh, TCP_NODELAY, &int(no_delay.into()))
            .unwrap();
        assert_eq!(libc.at(TCP, fresh, TCP_NODELAY), Ok(no_delay.into()));
        libc.0.set_nonblocking(fresh, true).unwrap();
        let begun = libc.0.dup_verb(fresh, b"10.1.0.2:80");
        assert_eq!(begun, Err(errno::EINPROGRESS));
        let syn = sent(&libc, tun).remove(0);
        // The other end agrees.
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
        // Whoever turns it on later gets what waited.
        libc.set_at(TCP, fresh, TCP_NODELAY, &int(1)).unwrap();
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
        libc.at(TCP, datagrams, TCP_NODELAY),
        Err(errno::ENOPROTOOPT)
    );
}

#[test]
fn where_and_how_far_datagrams_to_groups_go() {
    let system = system();
    let libc = Libc::new(&system);
    let tun = tunnel_with_head(&libc);
    let other = libc.0.open("/scheme/tun/1", BOTH).unwrap();
    libc.0.set_nonblocking(other, true).unwrap();
    set(&libc, "ifaces/tun1/addr/set", "10.2.0.1/24\n");
    let fresh = libc.socket("udp");
    assert_eq!(libc.at(IP, fresh, IP_MULTICAST_TTL), Ok(1));
    assert_eq!(libc.at(IP, fresh, IP_MULTICAST_LOOP), Ok(1));
    assert_eq!(libc.at(IP, fresh, IP_MULTICAST_IF), Ok(0));
    let sender = libc.connect(fresh, "239.1.2.3:5000").unwrap();
    let send = || libc.0.write(sender, b"x").unwrap();
    send();
    libc.set_at(IP, sender, IP_MULTICAST_TTL, &[32]).unwrap();
    send();
    libc.set_at(IP, sender, IP_MULTICAST_TTL, &int(-1)).unwrap();
    send();
    // The hop limit is for hosts.
    libc.set_at(IP, sender, IP_TTL, &int(99)).unwrap();
    send();
    assert_eq!(hops(&libc, tun), [1, 32, 1, 1]);
    // Not beyond this host.
    libc.set_at(IP, sender, IP_MULTICAST_TTL, &int(0)).unwrap();
    send();
    assert_eq!(hops(&libc, tun), []);
    assert_eq!(hops(&libc, other), []);

    libc.set_at(IP, sender, IP_MULTICAST_TTL, &int(5)).unwrap();
    libc.set_at(IP, sender, IP_MULTICAST_IF, &[10, 2, 0, 1])
        .unwrap();
    let addr = libc.at(IP, sender, IP_MULTICAST_IF).unwrap();
    assert_eq!(addr.to_ne_bytes(), [10, 2, 0, 1]);
    send();
    let packets = sent(&libc, other);
    assert_eq!(
        (packets.len(), &packets[0][12..16]),
        (1, &[10, 2, 0, 1][..])
    );
    // The address is gone, and so is the way; any other is not there.
    set(&libc, "ifaces/tun1/addr/rm", "10.2.0.1/24\n");
    assert_eq!(libc.0.write(sender, b"x"), Err(errno::EADDRNOTAVAIL));
    let set_if = |addr: &[u8]| libc.set_at(IP, sender, IP_MULTICAST_IF, addr);
    assert_eq!(set_if(&[10, 2, 0, 1]), Err(errno::EADDRNOTAVAIL));
    assert_eq!(set_if(&[0; 4]), Ok(0));
    send();
    assert_eq!(hops(&libc, tun), [5]);

    // IPv6 has the same; interfaces have no index.
    let sender = libc
        .connect(libc.socket("udp"), "[ff05::1234]:5000")
        .unwrap();
    libc.0.write(sender, b"x").unwrap();
    libc.set_at(IPV6, sender, IPV6_MULTICAST_HOPS, &int(9))
        .unwrap();
    libc.0.write(sender, b"x").unwrap();
    assert_eq!(hops(&libc, tun), [1, 9]);
    assert_eq!(libc.at(IPV6, sender, IPV6_MULTICAST_LOOP), Ok(1));
    assert_eq!(libc.set_at(IPV6, sender, IPV6_MULTICAST_IF, &int(0)), Ok(0));
    let by_index = libc.set_at(IPV6, sender, IPV6_MULTICAST_IF, &int(1));
    assert_eq!(by_index, Err(errno::EADDRNOTAVAIL));
    let stream = libc.socket("tcp");
    assert_eq!(
        libc.at(IP, stream, IP_MULTICAST_TTL),
        Err(errno::EOPNOTSUPP)
    );
}

const IP_ADD_MEMBERSHIP: u64 = 35;
const IP_DROP_MEMBERSHIP: u64 = 36;
const IPV6_JOIN_GROUP: u64 = 20;
const IPV6_LEAVE_GROUP: u64 = 21;

fn mreq(group: [u8; 4], interface: [u8; 4]) -> Vec<u8> {
    [group, interface].concat()
}

/// The kinds of the IGMP messages that left by a tunnel, and their groups.
fn reports(libc: &Libc, tun: Fd) -> Vec<(u8, [u8; 4])> {
    let packets = sent(libc, tun);
    let igmp = packets.iter().filter(|packet| packet[9] == 2);
    igmp.map(|packet| (packet[24], packet[28..32].try_into().unwrap()))
        .collect()
}

const JOINED: u8 = 0x16;
const LEFT: u8 = 0x17;

#[test]
fn a_socket_joins_groups_and_leaves_them_with_its_last_file() {
    const GROUP: [u8; 4] = [239, 1, 2, 3];

    let system = system();
    let libc = Libc::new(&system);
    let tun = tunnel(&libc);
    let datagram = udp(("10.1.0.2", 9), ("239.1.2.3", 5000), b"all");
    let fresh = libc.socket("udp");
    let join = |fd, interface| libc.set_at(IP, fd, IP_ADD_MEMBERSHIP, &mreq(GROUP, interface));
    let leave = |fd, interface| libc.set_at(IP, fd, IP_DROP_MEMBERSHIP, &mreq(GROUP, interface));
    assert_eq!(join(fresh, [0; 4]), Ok(0));
    assert_eq!(reports(&libc, tun), [(JOINED, GROUP)]);
    // Once, by whichever name of the interface.
    assert_eq!(join(fresh, [0; 4]), Err(errno::EADDRINUSE));
    assert_eq!(join(fresh, [10, 1, 0, 1]), Err(errno::EADDRINUSE));

    // The membership goes along with the socket from file to file.
    let bound = libc.bind(fresh, "0.0.0.0:5000").unwrap();
    libc.0.write(tun, &datagram).unwrap();
    assert_eq!(libc.recvmsg(bound, 10, 64).unwrap().2, b"all");
    let copy = libc.0.dup_verb(bound, b"10.1.0.2:9").unwrap();
    libc.0.close(bound).unwrap();
    assert_eq!(reports(&libc, tun), []);
    assert_eq!(join(copy, [0; 4]), Err(errno::EADDRINUSE));

    // Another socket is in the group for itself: the interface leaves it with the last.
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
    // And one that never got a name.
    let fresh = libc.socket("udp");
    join(fresh, [0; 4]).unwrap();
    libc.0.close(fresh).unwrap();
    assert_eq!(reports(&libc, tun), [(JOINED, GROUP), (LEFT, GROUP)]);
}

#[test]
fn a_join_is_reported_twice() {
    const GROUP: [u8; 4] = [239, 1, 2, 3];

    let (system, clock) = system_by_hand();
    let libc = Libc::new(&system);
    let tun = tunnel(&libc);
    let fd = libc.socket("udp");
    let join = || libc.set_at(IP, fd, IP_ADD_MEMBERSHIP, &mreq(GROUP, [0; 4]));
    let leave = || libc.set_at(IP, fd, IP_DROP_MEMBERSHIP, &mreq(GROUP, [0; 4]));
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
    // Unless it has left meanwhile.
    leave().unwrap();
    join().unwrap();
    leave().unwrap();
    let said = [(LEFT, GROUP), (JOINED, GROUP), (LEFT, GROUP)];
    assert_eq!(reports(&libc, tun), said);
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
    // Before there is an address.
    set(&libc, "ifaces/tun0/multicast", "join 239.1.2.3\n");
    assert_eq!(said(), []);
    set(&libc, "ifaces/tun0/addr/set", "10.1.0.1/24\n");
    assert_eq!(said(), [(JOINED, GROUP), (JOINED, GROUP)]);
    // Another address is nothing new.
    set(&libc, "ifaces/tun0/addr/add", "10.1.1.1/24\n");
    set(&libc, "ifaces/tun0/flags", "up\n");
    assert_eq!(said(), []);
    set(&libc, "ifaces/tun0/multicast", "leave 239.1.2.3\n");
    assert_eq!(said(), [(LEFT, GROUP)]);
    // While it is down.
    set(&libc, "ifaces/tun0/flags", "down\n");
    let fd = libc.socket("udp");
    let group = mreq(GROUP, [10, 1, 0, 1]);
    libc.set_at(IP, fd, IP_ADD_MEMBERSHIP, &group).unwrap();
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
        // Not to a router that asks, either.
        let query = [&[0x11, 10, 0xee, 0xf5][..], &[0; 4]].concat();
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
        assert_eq!(said(), 1, "{told}");
    }
}

#[test]
fn the_interface_of_groups_is_an_address_and_nothing_else() {
    let system = system();
    let libc = Libc::new(&system);
    let fd = libc.socket("udp");
    let lo0 = [127, 0, 0, 1];
    assert_eq!(libc.set_at(IP, fd, IP_MULTICAST_IF, &lo0), Ok(0));
    // Not the end of struct ip_mreqn either, which begins with the group.
    let mreqn = [&[0; 4][..], &lo0, &[0; 4]].concat();
    for other in [&[][..], &[0], &[0; 3], &[0; 5], &mreqn] {
        let set = libc.set_at(IP, fd, IP_MULTICAST_IF, other);
        assert_eq!(set, Err(errno::EINVAL), "{other:?}");
    }
    let kept = libc.at(IP, fd, IP_MULTICAST_IF).map(i32::to_ne_bytes);
    assert_eq!(kept, Ok(lo0));
}

#[test]
fn who_watches_groups_hears_of_sockets() {
    let caller = Caller {
        pid: Pid(1),
        uid: 0,
    };
    let config = Config {
        seed: 3,
        services: Services::empty(),
    };
    let mut net = Net::new(config, TestProcesses);
    let path = "netcfg/ifaces/lo0/multicast";
    let text = net.open(path, OpenFlags::READ, caller).unwrap();
    let sockets = [(); 2].map(|()| net.open("udp", BOTH, caller).unwrap());
    // Whether who read the text, and asked to be told of the next, is woken.
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
    libc.set_at(IP, fd, IP_ADD_MEMBERSHIP, &group).unwrap();
    assert_eq!(setting("leave 239.1.2.3\n"), Err(errno::EINVAL));
    assert_eq!(reports(&libc, tun), [(JOINED, GROUP)]);
    // Whoever is last leaves for the interface.
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
    let join =
        |fd, group, interface| libc.set_at(IP, fd, IP_ADD_MEMBERSHIP, &mreq(group, interface));
    let leave = |group, interface| libc.set_at(IP, fd, IP_DROP_MEMBERSHIP, &mreq(group, interface));
    let group = [239, 0, 0, 1];
    // No interface but lo0, and that only by name.
    assert_eq!(join(fd, group, [0; 4]), Err(errno::EADDRNOTAVAIL));
    assert_eq!(join(fd, group, [127, 0, 0, 1]), Ok(0));
    assert_eq!(leave(group, [127, 0, 0, 1]), Ok(0));
    assert_eq!(join(fd, group, [10, 9, 9, 9]), Err(errno::EADDRNOTAVAIL));
    assert_eq!(join(fd, [10, 1, 0, 2], [127, 0, 0, 1]), Err(errno::EINVAL));
    assert_eq!(leave([10, 1, 0, 2], [0; 4]), Err(errno::EINVAL));
    assert_eq!(leave(group, [10, 9, 9, 9]), Err(errno::EADDRNOTAVAIL));
    let short = libc.set_at(IP, fd, IP_ADD_MEMBERSHIP, &group);
    assert_eq!(short, Err(errno::EINVAL));
    let stream = libc.socket("tcp");
    let joined = join(stream, group, [127, 0, 0, 1]);
    assert_eq!(joined, Err(errno::EOPNOTSUPP));
    assert_eq!(libc.at(IP, fd, IP_ADD_MEMBERSHIP), Err(errno::ENOPROTOOPT));

    // Twenty of a socket; and 256 of an interface, however many sockets there are. The last 32 are
    // the superuser's.
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
            match libc.set_at(IP, other, IP_ADD_MEMBERSHIP, &group) {
                Ok(_) => joined += 1,
                Err(error) => return (error, joined),
            }
        }
    };
    let user = Libc(system.process(2, 1000));
    assert_eq!(fill(&user), (errno::ENOBUFS, 224));
    assert_eq!(fill(&libc), (errno::ENOBUFS, 256));
    // Whoever joins what is joined already takes no more room.
    let known = mreq([239, 1, 0, 1], [127, 0, 0, 1]);
    for libc in [&user, &*libc] {
        let fd = libc.socket("udp");
        assert_eq!(libc.set_at(IP, fd, IP_ADD_MEMBERSHIP, &known), Ok(0));
    }
}

#[test]
fn an_interface_that_goes_takes_memberships_along() {
    let system = system();
    let libc = Libc::new(&system);
    let tun = tunnel(&libc);
    let group = [239, 1, 2, 3];
    let fd = libc.socket("udp");
    let join = || libc.set_at(IP, fd, IP_ADD_MEMBERSHIP, &mreq(group, [0; 4]));
    join().unwrap();
    libc.0.close(tun).unwrap();
    set(&libc, "ifaces/tun0/destroy", "1\n");
    let left = libc.set_at(IP, fd, IP_DROP_MEMBERSHIP, &mreq(group, [0; 4]));
    assert_eq!(left, Err(errno::EADDRNOTAVAIL));
    // A new interface with the same number is another's.
    let tun = tunnel(&libc);
    set(&libc, "ifaces/tun0/multicast", "join 239.1.2.3\n");
    libc.0.close(fd).unwrap();
    assert_eq!(reports(&libc, tun), [(JOINED, group)]);
}

#[test]
fn groups_of_ipv6() {
    let system = system();
    let libc = Libc::new(&system);
    let tun = tunnel_with_head(&libc);
    let group: std::net::Ipv6Addr = "ff05::1234".parse().unwrap();
    let mreq = |index: u32| [&group.octets()[..], &index.to_ne_bytes()].concat();
    let fd = libc.bind(libc.socket("udp"), "[::]:5000").unwrap();
    let join = |index| libc.set_at(IPV6, fd, IPV6_JOIN_GROUP, &mreq(index));
    assert_eq!(join(0), Ok(0));
    let packets = sent(&libc, tun);
    // The type behind the hop-by-hop header, and the group.
    assert_eq!(
        (packets[0][4 + 48], &packets[0][4 + 56..]),
        (131, &group.octets()[..])
    );
    assert_eq!(join(0), Err(errno::EADDRINUSE));
    assert_eq!(join(1), Err(errno::EADDRNOTAVAIL));
    let datagram = udp(("fd00::2", 9), ("ff05::1234", 5000), b"all");
    let framed = [&[0, 0, 0, 24][..], &datagram].concat();
    libc.0.write(tun, &framed).unwrap();
    assert_eq!(libc.recvmsg(fd, 10, 64).unwrap().2, b"all");
    assert_eq!(libc.set_at(IPV6, fd, IPV6_LEAVE_GROUP, &mreq(0)), Ok(0));
    assert_eq!(sent(&libc, tun)[0][4 + 48], 132);
    let again = libc.set_at(IPV6, fd, IPV6_LEAVE_GROUP, &mreq(0));
    assert_eq!(again, Err(errno::EADDRNOTAVAIL));
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
    libc.set_at(IP, member, IP_ADD_MEMBERSHIP, &group).unwrap();
    send(b"one");
    let port = libc.sockname(sender);
    let port = port.rsplit(':').next().unwrap();
    let from = format!("/scheme/udp/10.1.0.1:{port}");
    assert_eq!(received(), Ok((from.clone(), b"one".to_vec())));
    assert_eq!(received(), Err(errno::EAGAIN));
    libc.set_at(IP, sender, IP_MULTICAST_LOOP, &int(0)).unwrap();
    send(b"two");
    assert_eq!(received(), Err(errno::EAGAIN));
    // Only here.
    libc.set_at(IP, sender, IP_MULTICAST_LOOP, &[1]).unwrap();
    libc.set_at(IP, sender, IP_MULTICAST_TTL, &int(0)).unwrap();
    sent(&libc, tun);
    send(b"three");
    assert_eq!(received(), Ok((from, b"three".to_vec())));
    assert_eq!(hops(&libc, tun), []);
    // By lo0 there is one copy, too.
    libc.set_at(
        IP,
        member,
        IP_ADD_MEMBERSHIP,
        &mreq([239, 1, 2, 3], [127, 0, 0, 1]),
    )
    .unwrap();
    libc.set_at(IP, sender, IP_MULTICAST_IF, &[127, 0, 0, 1])
        .unwrap();
    libc.set_at(IP, sender, IP_MULTICAST_TTL, &int(1)).unwrap();
    send(b"four");
    assert_eq!(received().unwrap().1, b"four");
    assert_eq!(received(), Err(errno::EAGAIN));
}

#[test]
fn a_closed_port_of_this_host_refuses_whatever_port_asks() {
    let libc = Libc::new(&system());
    for port in 49_152..=65_535_u32 {
        let client = libc.socket("tcp");
        let connected = libc
            .0
            .dup_verb(client, format!("127.0.0.1:{port}").as_bytes());
        libc.0.close(client).unwrap();
        assert_eq!(connected, Err(errno::ECONNREFUSED), "{port}");
    }
}

#[test]
fn what_is_for_many_is_not_for_sockets_of_other_addresses() {
    const DONTWAIT: u64 = 64;

    let libc = Libc::new(&system());
    let tun = tunnel(&libc);
    let bound = |name| libc.bind(libc.socket("udp"), name).unwrap();
    let (lo, own) = (bound("127.0.0.1:5000"), bound("10.1.0.1:5000"));
    let [one, other] = ["239.1.1.1:5000", "239.2.2.2:5000"].map(bound);
    libc.set_at(IP, one, IP_ADD_MEMBERSHIP, &mreq([239, 1, 1, 1], [0; 4]))
        .unwrap();
    for to in ["224.0.0.1", "239.1.1.1"] {
        let datagram = udp(("10.1.0.2", 9), (to, 5000), b"many");
        libc.0.write(tun, &datagram).unwrap();
    }
    assert_eq!(libc.recvmsg(one, 10, DONTWAIT).unwrap().2, b"many");
    for fd in [lo, own, one, other] {
        assert_eq!(libc.recvmsg(fd, 10, DONTWAIT), Err(errno::EAGAIN));
    }
}

//! The C library of Redox, as far as sockets go: the same opens, dups, calls and layouts.

use std::sync::Arc;
use std::time::Duration;

use net::Host;
use scheme::OpenFlags;
use scheme::errno::Errno;
use scheme::local::{Fd, Local, Process};

/// Open for reading and writing.
pub const BOTH: OpenFlags = OpenFlags::READ.union(OpenFlags::WRITE);

/// The calls of relibc for a program.
pub struct Libc(pub Process<Host>);

impl Libc {
    pub fn new(system: &Arc<Local<Host>>) -> Arc<Self> {
        Arc::new(Self(system.process(1, 0)))
    }

    pub fn socket(&self, scheme: &str) -> Fd {
        self.0.open(&format!("/scheme/{scheme}"), BOTH).unwrap()
    }

    /// A dup whose result takes the place of the descriptor.
    pub fn renamed(&self, fd: Fd, verb: &str) -> Result<Fd, Errno> {
        let new = self.0.dup_verb(fd, verb.as_bytes())?;
        self.0.close(fd).unwrap();
        Ok(new)
    }

    pub fn bind(&self, fd: Fd, name: &str) -> Result<Fd, Errno> {
        self.renamed(fd, &format!("/{name}"))
    }

    pub fn connect(&self, fd: Fd, name: &str) -> Result<Fd, Errno> {
        self.renamed(fd, name)
    }

    pub fn accept(&self, fd: Fd) -> Result<Fd, Errno> {
        self.0.dup_verb(fd, b"listen")
    }

    /// The part of the fpath behind the last slash.
    pub fn sockname(&self, fd: Fd) -> String {
        self.0
            .path(fd)
            .unwrap()
            .rsplit('/')
            .next()
            .unwrap()
            .to_owned()
    }

    pub fn peername(&self, fd: Fd) -> Result<String, Errno> {
        let mut payload = [0; 256];
        let len = self.0.sys_call(fd, &mut payload, &[8])?;
        Ok(String::from_utf8(payload[..len].to_vec()).unwrap())
    }

    pub fn set_timeout(&self, fd: Fd, verb: &str, timeout: Duration) {
        let setting = self.0.dup_verb(fd, verb.as_bytes()).unwrap();
        let mut time = [0; 16];
        time[..8].copy_from_slice(&(timeout.as_secs() as i64).to_ne_bytes());
        time[8..12].copy_from_slice(&(timeout.subsec_nanos() as i32).to_ne_bytes());
        assert_eq!(self.0.write(setting, &time), Ok(16));
        self.0.close(setting).unwrap();
    }

    /// recvmsg: the sender's name, the length of the datagram, and the data.
    pub fn recvmsg(
        &self,
        fd: Fd,
        room: usize,
        flags: u64,
    ) -> Result<(String, usize, Vec<u8>), Errno> {
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

    pub fn shutdown(&self, fd: Fd, how: u64) -> Result<usize, Errno> {
        self.0.sys_call(fd, &mut [], &[9, how])
    }

    /// setsockopt with a number.
    pub fn set_option(&self, fd: Fd, option: u64, value: i32) -> Result<usize, Errno> {
        self.0.sys_call(fd, &mut value.to_ne_bytes(), &[2, option])
    }

    /// getsockopt of a number.
    pub fn option(&self, fd: Fd, option: u64) -> Result<i32, Errno> {
        let mut value = [0; 4];
        let len = self.0.sys_call(fd, &mut value, &[3, option])?;
        assert_eq!(len, 4);
        Ok(i32::from_ne_bytes(value))
    }

    /// setsockopt for the options of a protocol.
    pub fn set_option_at(
        &self,
        level: u64,
        fd: Fd,
        option: u64,
        value: &[u8],
    ) -> Result<usize, Errno> {
        let words = [2, option, 1 << 32 | level];
        self.0.sys_call(fd, &mut value.to_vec(), &words)
    }

    pub fn option_at(&self, level: u64, fd: Fd, option: u64) -> Result<i32, Errno> {
        let mut value = [0; 4];
        let words = [3, option, 1 << 32 | level];
        let len = self.0.sys_call(fd, &mut value, &words)?;
        assert_eq!(len, 4);
        Ok(i32::from_ne_bytes(value))
    }

    pub fn read_all(&self, fd: Fd) -> Vec<u8> {
        let mut all = Vec::new();
        let mut buf = vec![0; 65_536];
        loop {
            match self.0.read(fd, &mut buf).unwrap() {
                0 => return all,
                len => all.extend_from_slice(&buf[..len]),
            }
        }
    }

    pub fn write_all(&self, fd: Fd, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let len = self.0.write(fd, bytes).unwrap();
            bytes = &bytes[len..];
        }
    }

    /// A listener, and its port.
    pub fn listener(&self, address: &str) -> (Fd, String) {
        let fd = self
            .bind(self.socket("tcp"), &format!("{address}:0"))
            .unwrap();
        let name = self.sockname(fd);
        (fd, name.rsplit(':').next().unwrap().to_owned())
    }

    /// Both ends of a connection.
    pub fn pair(&self) -> (Fd, Fd) {
        let (listener, port) = self.listener("127.0.0.1");
        let client = self
            .connect(self.socket("tcp"), &format!("127.0.0.1:{port}"))
            .unwrap();
        let server = self.accept(listener).unwrap();
        self.0.close(listener).unwrap();
        (client, server)
    }
}

/// The value of an option that is a number.
pub fn int(value: i32) -> [u8; 4] {
    value.to_ne_bytes()
}

/// `struct ip_mreq`.
pub fn mreq(group: [u8; 4], interface: [u8; 4]) -> Vec<u8> {
    [group, interface].concat()
}

// Levels of options, and options of each.
pub const SO_SNDBUF: u64 = 7;
pub const SO_RCVBUF: u64 = 8;
pub const IP: u64 = 0;
pub const TCP: u64 = 6;
pub const IPV6: u64 = 41;
pub const TCP_NODELAY: u64 = 1;
pub const IP_TTL: u64 = 2;
pub const IPV6_UNICAST_HOPS: u64 = 16;
pub const IPV6_MULTICAST_IF: u64 = 17;
pub const IPV6_MULTICAST_HOPS: u64 = 18;
pub const IPV6_MULTICAST_LOOP: u64 = 19;
pub const IP_MULTICAST_IF: u64 = 32;
pub const IP_MULTICAST_TTL: u64 = 33;
pub const IP_MULTICAST_LOOP: u64 = 34;
pub const IP_ADD_MEMBERSHIP: u64 = 35;
pub const IP_DROP_MEMBERSHIP: u64 = 36;
pub const IPV6_JOIN_GROUP: u64 = 20;
pub const IPV6_LEAVE_GROUP: u64 = 21;

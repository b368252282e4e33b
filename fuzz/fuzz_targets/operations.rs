//! Sequences of system calls, by a program that does not know what it does.
#![no_main]

use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use net::{Config, Host, Services};
use scheme::OpenFlags;
use scheme::local::{Fd, Local, ManualClock, OneSession};

#[derive(Arbitrary, Debug)]
enum Operation {
    Open {
        path: Path,
        read: bool,
        write: bool,
    },
    Read {
        fd: u8,
        len: u16,
    },
    Write {
        fd: u8,
        bytes: Vec<u8>,
    },
    Ioctl {
        fd: u8,
        request: u32,
        arg: Vec<u8>,
    },
    /// One of ours, with an argument of its size.
    Known {
        fd: u8,
        number: u8,
        arg: [u8; 32],
    },
    Call {
        fd: u8,
        payload: Vec<u8>,
        words: [u64; 3],
    },
    Dup {
        fd: u8,
    },
    Verb {
        fd: u8,
        verb: String,
    },
    Sync {
        fd: u8,
    },
    Close {
        fd: u8,
    },
    Wait {
        millis: u16,
    },
    /// An option of a socket or a protocol.
    Option {
        fd: u8,
        get: bool,
        level: u8,
        name: u8,
        value: [u8; 20],
    },
}

#[derive(Arbitrary, Debug)]
enum Path {
    Tun(u8),
    Bpf(u8),
    Setting(u8, u8),
    Route(bool),
    Socket(bool),
    Other(String),
}

impl Path {
    fn text(&self) -> String {
        const SETTINGS: [&str; 13] = [
            "addr/set",
            "addr/add",
            "addr/rm",
            "mtu",
            "flags",
            "multicast",
            "queue",
            "destroy",
            "stats",
            "ledger",
            "addr/list",
            "status",
            "events",
        ];
        match self {
            Self::Tun(3) => "tun/clone".to_owned(),
            Self::Tun(unit) => format!("tun/{}", unit % 3),
            Self::Bpf(3) => "bpf/drops".to_owned(),
            Self::Bpf(unit) => format!("bpf/tun{}", unit % 3),
            Self::Setting(3, _) => "netcfg/sockets".to_owned(),
            Self::Setting(unit, setting) => {
                let setting = SETTINGS[usize::from(*setting) % SETTINGS.len()];
                format!("netcfg/ifaces/tun{}/{setting}", unit % 3)
            }
            Self::Route(add) => format!("netcfg/route/{}", if *add { "add" } else { "rm" }),
            Self::Socket(tcp) => if *tcp { "tcp" } else { "udp" }.to_owned(),
            Self::Other(path) => path.clone(),
        }
    }
}

fuzz_target!(|operations: Vec<Operation>| {
    let config = Config {
        seed: 1.into(),
        services: Services::all(),
    };
    let clock = std::sync::Arc::new(ManualClock::default());
    let local = Local::with_clock(Host::new(config, OneSession), std::sync::Arc::clone(&clock));
    let process = local.process(1, 0);
    let fd = |number: u8| Fd::from_raw(u32::from(number) % 16);
    for operation in operations {
        match operation {
            Operation::Open { path, read, write } => {
                let mut flags = OpenFlags::empty();
                flags.set(OpenFlags::READ, read);
                flags.set(OpenFlags::WRITE, write);
                if let Ok(fd) = process.open(&path.text(), flags) {
                    // Nobody would wake it.
                    let _ = process.set_nonblocking(fd, true);
                }
            }
            Operation::Read { fd: at, len } => {
                // A batch of datagrams wants more than 64 KiB.
                let _ = process.read(fd(at), &mut vec![0; 2 * usize::from(len)]);
            }
            Operation::Write { fd: at, bytes } => {
                let _ = process.write(fd(at), &bytes);
            }
            Operation::Ioctl {
                fd: at,
                request,
                mut arg,
            } => {
                let _ = process.ioctl(fd(at), request, &mut arg);
            }
            Operation::Known {
                fd: at,
                number,
                mut arg,
            } => {
                let (kind, number) = (u32::from(b"tf"[usize::from(number & 1)]), number >> 1);
                for size in [0, 4, 8, 16, 24, 32] {
                    let request = (size as u32) << 16 | kind << 8 | u32::from(number) + 64;
                    let _ = process.ioctl(fd(at), request, &mut arg[..size]);
                }
            }
            Operation::Option {
                fd: at,
                get,
                level,
                name,
                mut value,
            } => {
                let level = [0, 1, 6, 41][usize::from(level % 4)];
                let words = [2 + u64::from(get), u64::from(name % 40), 1 << 32 | level];
                let _ = process.sys_call(fd(at), &mut value, &words);
            }
            Operation::Call {
                fd: at,
                mut payload,
                words,
            } => {
                let _ = process.sys_call(fd(at), &mut payload, &words);
            }
            Operation::Dup { fd: at } => {
                let _ = process.dup(fd(at));
            }
            Operation::Verb { fd: at, verb } => {
                let made = process.dup_verb(fd(at), verb.as_bytes());
                if let Ok(made) = made {
                    let _ = process.set_nonblocking(made, true);
                }
            }
            Operation::Sync { fd: at } => {
                let _ = process.sync(fd(at));
            }
            Operation::Close { fd: at } => {
                let _ = process.close(fd(at));
            }
            Operation::Wait { millis } => {
                clock.advance(Duration::from_millis(millis.into()));
                local.pump();
            }
        }
        local.with_server(|net| {
            for ifp in net.interfaces() {
                assert!(ifp.stats.input().closes(), "{:?}", ifp.stats.input());
                assert!(ifp.stats.output().closes(), "{:?}", ifp.stats.output());
            }
        });
    }
});

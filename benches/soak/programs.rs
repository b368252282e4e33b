//! What programs do, one after the other, by chance. None of it waits, and what is refused is refused.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;

use crate::common::packet::{self, first_fragment, tcp_syn};
use crate::common::system::System;

/// As the system's own `_IOW` has them; the stack knows them in either form.
const TUNSIFHEAD: u32 = 0x4004_7460;
const TUNSTRANSIENT: u32 = 0x4004_7462;
/// Units that are used.
const UNITS: u32 = 6;
/// Most sockets and captures at once.
const FILES: usize = 120;

pub(crate) struct Programs<'a, S> {
    system: &'a S,
    rng: Rng,
    /// Open units.
    tuns: BTreeMap<u32, i32>,
    /// Sockets, captures and texts.
    files: Vec<i32>,
    steps: u64,
    /// Numbers that no other packet had.
    number: u32,
}

impl<'a, S: System> Programs<'a, S> {
    pub(crate) fn new(system: &'a S, seed: u64) -> Self {
        Self {
            system,
            rng: Rng::with_seed(seed),
            tuns: BTreeMap::new(),
            files: Vec::new(),
            steps: 0,
            number: 0,
        }
    }

    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// Time until the next step.
    pub(crate) fn pause(&mut self) -> Duration {
        // Now and then long enough for every timer.
        let most = if self.rng.u32(..20_000) == 0 {
            90_000_000
        } else {
            4000
        };
        Duration::from_micros(self.rng.u64(..most))
    }

    pub(crate) fn step(&mut self) {
        self.steps += 1;
        match self.rng.u32(..100) {
            0..3 => self.open_unit(),
            3..5 => self.close_unit(),
            5..14 => self.open_file(),
            14..22 => self.close_file(),
            22..50 => self.use_file(),
            50..70 => self.drain(),
            70..80 => self.set(),
            80..97 => self.packet(),
            _ => self.flood(),
        }
    }

    fn open_unit(&mut self) {
        let unit = self.rng.u32(..UNITS);
        let Ok(tun) = self.system.open(&format!("tun/{unit}"), true, true) else {
            return;
        };
        self.system.set_nonblocking(tun).unwrap();
        let flags = [TUNSIFHEAD, TUNSTRANSIENT].map(|request| (request, self.rng.i32(..2)));
        for (request, on) in flags {
            self.system
                .ioctl(tun, request, &mut on.to_ne_bytes())
                .unwrap();
        }
        let _ = self.write(unit, "addr/set", &format!("10.{unit}.0.1/16\n"));
        self.tuns.insert(unit, tun);
    }

    fn close_unit(&mut self) {
        let unit = self.rng.u32(..UNITS);
        if let Some(tun) = self.tuns.remove(&unit) {
            self.system.close(tun).unwrap();
        }
        if self.rng.bool() {
            let _ = self.write(unit, "destroy", "1\n");
        }
    }

    fn write(&self, unit: u32, file: &str, text: &str) -> Result<(), i32> {
        let path = format!("netcfg/ifaces/tun{unit}/{file}");
        self.settle(&path, text)
    }

    /// Writes a setting, which may be refused.
    fn settle(&self, path: &str, text: &str) -> Result<(), i32> {
        let file = self.system.open(path, false, true)?;
        let written = self.system.write(file, text.as_bytes());
        // A line that a close applies may be refused there.
        let _ = self.system.close(file);
        written.map(drop)
    }

    fn open_file(&mut self) {
        let (unit, host) = (self.rng.u32(..UNITS), self.rng.u8(2..6));
        let path = match self.rng.u32(..12) {
            0 => "tcp/127.0.0.1:7".to_owned(),
            1 => "tcp/127.0.0.1:19".to_owned(),
            2 => format!("tcp/10.{unit}.0.{host}:80"),
            3 => "udp/127.0.0.1:7".to_owned(),
            4 => format!("udp/10.{unit}.0.{host}:53"),
            5 => "icmp/echo/127.0.0.1".to_owned(),
            6 => format!("icmp/ping/10.{unit}.0.{host}"),
            7 => "ip/11".to_owned(),
            8 => "bpf/lo0".to_owned(),
            9 => format!("bpf/tun{unit}"),
            10 => "netcfg/route/list".to_owned(),
            _ => format!("netcfg/ifaces/tun{unit}/stats"),
        };
        let write = !path.starts_with("netcfg");
        if let Ok(file) = self.system.open(&path, true, write) {
            self.system.set_nonblocking(file).unwrap();
            self.files.push(file);
        }
        if self.files.len() > FILES {
            self.close_file();
        }
    }

    fn close_file(&mut self) {
        if !self.files.is_empty() {
            let file = self.files.swap_remove(self.rng.usize(..self.files.len()));
            self.system.close(file).unwrap();
        }
    }

    fn use_file(&mut self) {
        let Some(at) = (!self.files.is_empty()).then(|| self.rng.usize(..self.files.len())) else {
            return;
        };
        let file = self.files[at];
        let mut buf = [0; 16_384];
        self.rng.fill(&mut buf[..4]);
        let len = self.rng.usize(2..9000);
        match self.rng.bool() {
            true => drop(self.system.write(file, &buf[..len])),
            false => drop(self.system.read(file, &mut buf[..len])),
        }
        if self.rng.u32(..8) == 0 {
            let _ = self.system.poll(file, Duration::ZERO);
        }
    }

    /// The programs behind the tunnels read.
    fn drain(&mut self) {
        let mut buf = [0; 20_000];
        for &tun in self.tuns.values() {
            for _ in 0..64 {
                if self.system.read(tun, &mut buf).is_err() {
                    break;
                }
            }
        }
    }

    fn set(&mut self) {
        let unit = self.rng.u32(..UNITS);
        let (a, b) = (self.rng.u8(..8), self.rng.u8(..8));
        let route = format!("11.{a}.{b}.0/24");
        let _ = match self.rng.u32(..12) {
            0..3 => self.settle("netcfg/route/add", &format!("{route} dev tun{unit}\n")),
            3..5 => self.settle("netcfg/route/rm", &format!("{route}\n")),
            5 => self.write(unit, "addr/add", &format!("fd{a:02}:{unit}::1/64\n")),
            6 => self.write(unit, "addr/rm", &format!("fd{a:02}:{unit}::1/64\n")),
            7 => self.write(
                unit,
                "mtu",
                ["1500\n", "1280\n", "600\n", "9000\n"][usize::from(a / 2)],
            ),
            8 => self.write(unit, "flags", ["up\n", "down\n"][usize::from(a / 4)]),
            9 => self.write(
                unit,
                "queue",
                &format!("fifo limit {} packets\n", 1 + usize::from(a) * 100),
            ),
            10 => self.settle("netcfg/ip/forwarding", ["0\n", "1\n"][usize::from(a / 4)]),
            // An unfinished line, which the close applies, and refuses.
            _ => self.settle("netcfg/route/add", "10.0.0.0/"),
        };
    }

    /// A unit that is open, its number, and whether a family precedes its packets is unknown: those
    /// with another are refused.
    fn any_tun(&mut self) -> Option<(u32, i32)> {
        let at = (!self.tuns.is_empty()).then(|| self.rng.usize(..self.tuns.len()))?;
        let (&unit, &tun) = self.tuns.iter().nth(at)?;
        Some((unit, tun))
    }

    fn packet(&mut self) {
        let Some((unit, tun)) = self.any_tun() else {
            return;
        };
        let (us, them) = (
            format!("10.{unit}.0.1"),
            format!("10.{unit}.0.{}", self.rng.u8(2..6)),
        );
        self.number += 1;
        let data = vec![0; self.rng.usize(..1400)];
        let mut packet = match self.rng.u32(..6) {
            0 => packet::echo_request(&them, &us, self.number as u16, &data),
            1 => packet::udp((&them, 53), (&us, self.rng.u16(49_152..)), &data),
            2 => packet::udp((&them, 53), (&us, 7), &data),
            3 => packet::udp((&them, 53), ("11.1.1.1", 9), &data),
            4 => tcp_syn((&them, self.rng.u16(1024..)), (&us, 7), self.number),
            _ => first_fragment(&them, &us, self.number),
        };
        if self.rng.u32(..10) == 0 {
            let at = self.rng.usize(..packet.len());
            packet[at] ^= 1 << self.rng.u32(..8);
        }
        self.give(tun, &packet);
    }

    fn flood(&mut self) {
        let Some((unit, tun)) = self.any_tun() else {
            return;
        };
        let us = format!("10.{unit}.0.1");
        let kind = self.rng.u32(..3);
        for _ in 0..100 {
            self.number += 1;
            let them = format!("10.{unit}.{}.{}", self.rng.u8(1..), self.rng.u8(1..));
            let packet = match kind {
                0 => tcp_syn((&them, self.rng.u16(1024..)), (&us, 7), self.number),
                1 => first_fragment(&them, &us, self.number),
                _ => packet::udp((&them, 99), (&us, 99), &[0; 100]),
            };
            self.give(tun, &packet);
        }
    }

    /// Writes a packet, with a family before it and without: one of both is refused.
    fn give(&self, tun: i32, packet: &[u8]) {
        if self.system.write(tun, packet).is_err() {
            let _ = self
                .system
                .write(tun, &[&2_u32.to_be_bytes(), packet].concat());
        }
    }

    /// Every packet of every interface is in one place.
    pub(crate) fn assert_ledgers_close(&mut self) {
        self.system.assert_ledger_closes("lo0");
        for unit in 0..UNITS {
            let path = format!("netcfg/ifaces/tun{unit}/ledger");
            if let Ok(file) = self.system.open(&path, true, false) {
                self.system.close(file).unwrap();
                self.system.assert_ledger_closes(&format!("tun{unit}"));
            }
        }
    }

    /// Everybody closes everything.
    pub(crate) fn end(&mut self) {
        self.assert_ledgers_close();
        while !self.files.is_empty() {
            self.close_file();
        }
        for (_, tun) in std::mem::take(&mut self.tuns) {
            self.system.close(tun).unwrap();
        }
        self.assert_ledgers_close();
    }
}

//! Packets of any bytes, of both families, into a system with services and forwarding.
#![no_main]

use libfuzzer_sys::fuzz_target;
use net::{Config, Host, Services};
use scheme::OpenFlags;
use scheme::local::{Local, ManualClock, OneSession};

fuzz_target!(|packets: Vec<(bool, Vec<u8>)>| {
    let config = Config {
        seed: 1.into(),
        services: Services::all(),
    };
    let local = Local::with_clock(Host::new(config, OneSession), ManualClock::default());
    let process = local.process(1, 0);
    let tun = process
        .open("tun/0", OpenFlags::READ | OpenFlags::WRITE)
        .unwrap();
    process.set_nonblocking(tun, true).unwrap();
    process
        .ioctl(tun, 0x4004_7460, &mut 1_i32.to_ne_bytes())
        .unwrap();
    for (path, line) in [
        ("netcfg/ifaces/tun0/addr/set", "10.0.0.1/24\n"),
        ("netcfg/ifaces/tun0/addr/add", "fd00::1/64\n"),
        ("netcfg/ip/forwarding", "1\n"),
    ] {
        let file = process.open(path, OpenFlags::WRITE).unwrap();
        process.write(file, line.as_bytes()).unwrap();
        process.close(file).unwrap();
    }
    let mut reply = vec![0; 65_536];
    for (ipv6, mut packet) in packets {
        // Checksums of headers are hard to guess; what is behind them is worth reaching.
        if !ipv6 && packet.len() >= 20 {
            packet[0] = 0x45;
            let len = packet.len() as u16;
            packet[2..4].copy_from_slice(&len.to_be_bytes());
            packet[10..12].fill(0);
            let sum = packet[..20].chunks(2).fold(0_u32, |sum, pair| {
                sum + u32::from(u16::from_be_bytes([pair[0], pair[1]]))
            });
            let sum = (sum & 0xffff) + (sum >> 16);
            let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        let family: u32 = if ipv6 { 10 } else { 2 };
        let frame = [&family.to_be_bytes()[..], &packet].concat();
        let _ = process.write(tun, &frame);
        while process.read(tun, &mut reply).is_ok() {}
    }
    local.with_server(|net| {
        for ifp in net.interfaces() {
            assert!(ifp.stats.input().closes(), "{:?}", ifp.stats.input());
            assert!(ifp.stats.output().closes(), "{:?}", ifp.stats.output());
        }
    });
});

//! Capture and injection.

use std::fs;
use std::io::{Read, Write};
use std::time::Duration;

use event::EventFlags;

use crate::device::{Tun, Wire, assert_errno, bsd, open_path};
use crate::packet::{self, echo_request, numbered};
use crate::sys::{self, Events, fork};
use crate::{netcfg, tests};

tests![
    bpf_is_a_pcap_stream,
    bpf_sees_families_not_headers,
    bpf_injects,
    bpf_refuses,
    bpf_is_for_root,
    bpf_waits_and_tells,
    bpf_slow_reader_loses_captures_not_traffic,
    bpf_outlives_the_interface,
    bpf_drops_tell_the_reason,
];

const HEADER: usize = 24;
const RECORD: usize = 16;

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Reads all that is available.
fn drain(file: &mut fs::File) -> Vec<u8> {
    sys::set_flag(file, libc::O_NONBLOCK, true);
    let mut all = Vec::new();
    let mut piece = vec![0; 65_536];
    loop {
        match file.read(&mut piece) {
            Ok(got) => all.extend_from_slice(&piece[..got]),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EAGAIN), "{error}");
                return all;
            }
        }
    }
}

/// Families and packets of a stream without its header.
fn records(mut stream: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mut records = Vec::new();
    while !stream.is_empty() {
        let (len, whole) = (word(stream, 8), word(stream, 12));
        assert_eq!(len, whole, "cut short");
        let data = &stream[RECORD..RECORD + len as usize];
        records.push((word(data, 0), data[4..].to_vec()));
        stream = &stream[RECORD + len as usize..];
    }
    records
}

fn bpf_is_a_pcap_stream() {
    let tun = Tun::up(28);
    let mut capture = fs::File::open("/scheme/bpf/tun28").expect("open");
    let request = echo_request(28, 1, 84);
    tun.write(&request).expect("write");
    let reply = tun.read_now();
    let stream = drain(&mut capture);
    assert_eq!(word(&stream, 0), 0xa1b2_c3d4, "magic in host order");
    assert_eq!(
        stream[4..8],
        [2_u16.to_ne_bytes(), 4_u16.to_ne_bytes()].concat()
    );
    assert_eq!(word(&stream, 16), 65_535, "snaplen");
    assert_eq!(word(&stream, 20), 0, "DLT_NULL");
    let records = records(&stream[HEADER..]);
    assert_eq!(records, [(2, request), (2, reply)], "both directions");
    let seconds = word(&stream, HEADER);
    assert!(seconds > 1_500_000_000, "a time of day: {seconds}");
    assert_eq!(sys::fpath(&capture).expect("fpath"), "/scheme/bpf/tun28");
    assert!(netcfg::names("/scheme/bpf").contains(&"tun28".to_owned()));
}

fn bpf_sees_families_not_headers() {
    let tun = Tun::up(28);
    tun.set(bsd::TUNSIFHEAD, 1);
    let (own, _) = packet::addresses6(28);
    netcfg::put_if(28, "addr/add", &format!("{own}/64")).expect("add the address");
    let mut capture = fs::File::open("/scheme/bpf/tun28").expect("open");
    let request = packet::echo_request6(28, 1);
    let with_head = [&[0, 0, 0, 10][..], &request].concat();
    tun.write(&with_head).expect("write");
    // It is refused only after it was captured.
    let unknown = [&[0, 0, 0, 99][..], &[7; 20]].concat();
    assert_errno(tun.write(&unknown), libc::EAFNOSUPPORT);
    let stream = drain(&mut capture);
    let records = records(&stream[HEADER..]);
    assert!(records.contains(&(28, request)), "IPv6 is 28 there");
    assert!(records.contains(&(99, vec![7; 20])), "the refused one, too");
    let reply = |(family, packet): &(u32, Vec<u8>)| *family == 28 && packet::is_echo_reply6(packet);
    assert!(records.iter().any(reply));
}

fn bpf_injects() {
    let tun = Tun::up(28);
    let sent = numbered(28, 9, 100);
    tun.inject(std::slice::from_ref(&sent));
    assert_eq!(tun.read_now(), sent);
    netcfg::assert_ledger_closes(28);
}

fn bpf_refuses() {
    let tun = Tun::up(28);
    let wire = Wire::open(28);
    for len in 0..4 {
        let done = wire.write(&[2, 0, 0, 0][..len]);
        if len == 0 && done.is_ok() {
            continue;
        }
        assert_errno(done, libc::EINVAL);
    }
    assert_errno(wire.write(&[2, 0, 0, 0]), libc::EINVAL);
    let sent = wire.send_as(99, &numbered(28, 1, 60));
    assert_errno(sent, libc::EAFNOSUPPORT);
    assert_errno(wire.send(&numbered(28, 1, 1501)), libc::EMSGSIZE);
    tun.assert_empty();
    assert_errno(open_path("/scheme/bpf/tun999"), libc::ENOENT);
    assert_errno(open_path("/scheme/bpf/./tun28"), libc::ENOENT);
}

fn bpf_is_for_root() {
    let _tun = Tun::up(28);
    let child = fork(|_| {
        sys::become_user(1000);
        assert_errno(fs::File::open("/scheme/bpf/tun28"), libc::EPERM);
        assert_errno(open_path("/scheme/bpf/lo0"), libc::EPERM);
    });
    child.finish();
}

fn bpf_waits_and_tells() {
    let tun = Tun::up(28);
    let mut capture = fs::File::open("/scheme/bpf/tun28").expect("open");
    let events = Events::new();
    events.subscribe(&capture, 1, EventFlags::READ);
    assert!(events.next(Duration::from_secs(1)).is_some(), "the header");
    drain(&mut capture);
    assert_eq!(events.next(Duration::from_millis(150)), None);
    tun.inject(&[numbered(28, 1, 60)]);
    assert!(events.next(Duration::from_secs(1)).is_some());
    drain(&mut capture);
    sys::set_flag(&capture, libc::O_NONBLOCK, false);
    let mut reader = capture.try_clone().expect("another descriptor");
    let got = sys::background(move || reader.read(&mut [0; 1000]).ok());
    assert!(got.recv_timeout(Duration::from_millis(150)).is_err());
    tun.inject(&[numbered(28, 2, 60)]);
    let got = got
        .recv_timeout(Duration::from_secs(1))
        .expect("the read returns");
    assert_eq!(got, Some(RECORD + 4 + 60));
}

fn bpf_slow_reader_loses_captures_not_traffic() {
    const BIOCGSTATS: u64 = 0x4008_426f;

    let tun = Tun::up(28);
    let slow = fs::File::open("/scheme/bpf/tun28").expect("open");
    let request = echo_request(28, 1, 1500);
    for _ in 0..600 {
        tun.write(&request).expect("write");
        assert_eq!(tun.read_now().len(), 1500);
    }
    let mut stats = [0; 8];
    if sys::call(&slow, &mut stats, &[BIOCGSTATS]).is_ok() {
        assert_eq!(word(&stats, 0), 1200, "seen");
        assert!(word(&stats, 4) > 0, "lost");
    }
    netcfg::assert_ledger_closes(28);
}

fn bpf_outlives_the_interface() {
    let tun = Tun::up(28);
    let mut capture = fs::File::open("/scheme/bpf/tun28").expect("open");
    drain_header(&mut capture);
    let mut reader = capture.try_clone().expect("another descriptor");
    let got = sys::background(move || reader.read(&mut [0; 1000]));
    sys::pause(100);
    drop(tun);
    let got = got
        .recv_timeout(Duration::from_secs(1))
        .expect("the read ends");
    assert_errno(got, libc::ENXIO);
}

fn drain_header(capture: &mut fs::File) {
    drain(capture);
    sys::set_flag(capture, libc::O_NONBLOCK, false);
}

fn bpf_drops_tell_the_reason() {
    let tun = Tun::up(28);
    let mut drops = fs::File::open("/scheme/bpf/drops").expect("open");
    let stream = drain(&mut drops);
    assert_eq!(word(&stream, 0), 0x0a0d_0d0a, "a section header");
    assert_eq!(word(&stream, 8), 0x1a2b_3c4d, "in host order");
    let mut broken = echo_request(28, 1, 84);
    broken[10] ^= 1;
    tun.write(&broken).expect("write");
    let events = Events::new();
    events.subscribe(&drops, 1, EventFlags::READ);
    assert!(
        events.next(Duration::from_secs(1)).is_some(),
        "a dropped packet"
    );
    let stream = drain(&mut drops);
    let has = |text: &[u8]| stream.windows(text.len()).any(|part| part == text);
    assert!(
        has(b"tun28") && has(b"in bad_checksum") && has(&broken),
        "{stream:?}"
    );
    let both = open_path("/scheme/bpf/drops").expect("open for both");
    assert_errno((&both).write(&[2, 0, 0, 0, 69]), libc::EBADF);
    let child = fork(|_| {
        sys::become_user(1000);
        assert_errno(fs::File::open("/scheme/bpf/drops"), libc::EPERM);
    });
    child.finish();
}

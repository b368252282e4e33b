//! Batch mode: many packets in one read or write.

use tun::batch::{packets, push};

use crate::device::{Tun, assert_errno, bsd};
use crate::packet::{self, assert_echo_reply, echo_request, numbered};
use crate::{netcfg, tests};

tests![
    batch_reads_what_is_queued,
    batch_writes_many,
    batch_with_head,
    batch_too_small_a_buffer,
    batch_refuses_the_whole,
    batch_counts_the_first_frame,
    batch_ends_with_the_close,
    batch_of_64_kib,
];

fn batching(unit: u16) -> Tun {
    let tun = Tun::up(unit);
    tun.set(bsd::TUNSBATCH, 1);
    tun
}

/// A frame whose length says `len`, followed by `bytes` bytes.
fn frame(len: u32, bytes: usize) -> Vec<u8> {
    [&len.to_ne_bytes()[..], &vec![0x45; bytes]].concat()
}

fn batch_reads_what_is_queued() {
    let tun = batching(24);
    let sent = [
        numbered(24, 1, 41),
        numbered(24, 2, 44),
        numbered(24, 3, 1500),
    ];
    tun.inject(&sent);
    let batch = tun.read_now();
    assert_eq!(batch.len(), (4 + 44) + (4 + 44) + (4 + 1500));
    let got: Vec<_> = packets(&batch).collect();
    assert_eq!(got, sent);
    assert_eq!(batch[45..48], [0; 3], "padding");
    tun.assert_empty();
    // A read returns as many whole frames as fit.
    tun.inject(&sent);
    let batch = tun.read(100).expect("read");
    assert_eq!(batch.len(), 96);
    assert_eq!(packets(&batch).collect::<Vec<_>>(), sent[..2]);
    assert_eq!(packets(&tun.read_now()).collect::<Vec<_>>(), sent[2..]);
    netcfg::assert_ledger_closes(24);
}

fn batch_writes_many() {
    let tun = batching(24);
    let mut batch = Vec::new();
    let lens = [28, 29, 30, 31, 84, 1500];
    for (sequence, &len) in lens.iter().enumerate() {
        push(&mut batch, &echo_request(24, sequence as u16, len));
    }
    assert_eq!(tun.write(&batch).expect("write"), batch.len());
    let batch = tun.read_now();
    let replies: Vec<_> = packets(&batch).collect();
    assert_eq!(replies.len(), lens.len());
    for (sequence, (&len, reply)) in lens.iter().zip(replies).enumerate() {
        assert_echo_reply(reply, 24, sequence as u16, len);
    }
    assert_eq!(tun.write(&[]).expect("write"), 0);
    netcfg::assert_ledger_closes(24);
}

fn batch_with_head() {
    let tun = batching(24);
    tun.set(bsd::TUNSIFHEAD, 1);
    let request = echo_request(24, 1, 29);
    let mut batch = Vec::new();
    push(&mut batch, &[&[0, 0, 0, 2][..], &request].concat());
    push(&mut batch, &[&[0, 0, 0, 2][..], &request].concat());
    tun.write(&batch).expect("write");
    let batch = tun.read_now();
    let replies: Vec<_> = packets(&batch).collect();
    assert_eq!(replies.len(), 2);
    for reply in replies {
        assert_eq!(reply[..4], [0, 0, 0, 2]);
        assert_echo_reply(&reply[4..], 24, 1, 29);
    }
}

fn batch_too_small_a_buffer() {
    let tun = batching(24);
    tun.inject(&[numbered(24, 1, 41), numbered(24, 2, 60)]);
    for room in [1, 4, 44, 47] {
        assert_errno(tun.read(room), libc::EMSGSIZE);
    }
    let batch = tun.read(48).expect("read");
    assert_eq!(packet::number(packets(&batch).next().expect("a packet")), 1);
    assert_errno(tun.read(63), libc::EMSGSIZE);
    assert_eq!(tun.read(64).expect("read").len(), 64);
    tun.assert_empty();
    assert_eq!(netcfg::stats(24)["drop.truncated"], 0);
}

fn batch_refuses_the_whole() {
    let tun = batching(24);
    let mut good = Vec::new();
    push(&mut good, &echo_request(24, 1, 40));
    let with = |tail: &[u8]| [&good[..], tail].concat();
    let wrong = [
        (frame(0, 0), libc::EINVAL),
        (vec![1], libc::EINVAL),
        (vec![0; 3], libc::EINVAL),
        (frame(5, 4), libc::EINVAL),
        (frame(5, 5), libc::EINVAL),
        (frame(u32::MAX, 8), libc::EINVAL),
        (frame(16385, 16388), libc::EIO),
    ];
    for (tail, errno) in wrong {
        assert_errno(tun.write(&with(&tail)), errno);
        assert_errno(tun.write(&tail), errno);
    }
    tun.set(bsd::TUNSIFHEAD, 1);
    let mut batch = Vec::new();
    push(
        &mut batch,
        &[&[0, 0, 0, 2][..], &echo_request(24, 1, 40)].concat(),
    );
    let mut unknown = batch.clone();
    push(&mut unknown, &[&[0, 0, 0, 99][..], &[0; 20]].concat());
    assert_errno(tun.write(&unknown), libc::EAFNOSUPPORT);
    batch.extend(frame(3, 4));
    assert_errno(tun.write(&batch), libc::EINVAL);
    tun.assert_empty();
    assert_eq!(netcfg::stats(24)["ipackets"], 0, "a part was taken");
}

fn batch_counts_the_first_frame() {
    let tun = batching(24);
    assert_eq!(tun.get(bsd::FIONREAD), 0);
    tun.inject(&[numbered(24, 1, 41), numbered(24, 2, 100)]);
    assert_eq!(tun.get(bsd::FIONREAD), 4 + 44);
    tun.set(bsd::TUNSBATCH, 0);
    assert_eq!(tun.get(bsd::FIONREAD), 41);
    assert_eq!(tun.read_now(), numbered(24, 1, 41));
}

fn batch_ends_with_the_close() {
    let tun = batching(24);
    tun.set(bsd::TUNSTRANSIENT, 0);
    drop(tun);
    let tun = Tun::open(24).expect("open");
    assert_eq!(tun.get(bsd::TUNGBATCH), 0);
    tun.set(bsd::TUNSTRANSIENT, 1);
}

fn batch_of_64_kib() {
    let tun = batching(24);
    for len in [84, 500, 1400] {
        let mut batch = Vec::new();
        let mut sent: u16 = 0;
        while batch.len() + len + 4 <= 65_536 && sent < 200 {
            push(&mut batch, &echo_request(24, sent, len));
            sent += 1;
        }
        assert_eq!(tun.write(&batch).expect("write"), batch.len());
        let mut got = 0;
        while got < sent {
            for reply in packets(&tun.read_now()) {
                assert_echo_reply(reply, 24, got, len);
                got += 1;
            }
        }
        tun.assert_empty();
    }
    netcfg::assert_ledger_closes(24);
}

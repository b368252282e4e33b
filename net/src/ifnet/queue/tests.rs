//! Send queues in virtual time, against small models of what they should do.

use super::*;
use crate::ifnet::queue::flow::precedence;

fn key() -> ahash::RandomState {
    ahash::RandomState::with_seeds(1, 2, 3, 4)
}

fn at(us: u64) -> Now {
    Now {
        monotonic: Duration::from_micros(us),
        wall: Duration::ZERO,
    }
}

/// A queue, and the counters of its interface.
struct Bench {
    queue: SendQueue,
    stats: IfStats,
    now: Now,
    offered: u64,
    taken: u64,
}

impl Bench {
    fn new(line: &str) -> Self {
        let mut bench = Self {
            queue: SendQueue::default(),
            stats: IfStats::default(),
            now: at(0),
            offered: 0,
            taken: 0,
        };
        bench.change(line);
        bench
    }

    fn change(&mut self, line: &str) {
        let spec = QueueSpec::parse(line).unwrap();
        self.queue.change(spec, &key(), self.now, &mut self.stats);
    }

    /// Queues a UDP packet of a flow, which begins with the number of the packet. Returns whether it
    /// was taken.
    fn put(&mut self, flow: u16, number: u32, len: usize, tos: u8) -> bool {
        let mut packet = vec![0; len.max(28)];
        packet[..2].copy_from_slice(&[0x45, tos]);
        packet[9] = 17;
        packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        packet[20..22].copy_from_slice(&flow.to_be_bytes());
        packet[24..28].copy_from_slice(&number.to_be_bytes());
        let class = self.queue.classify(Family::Inet, &packet);
        let next_hop = IpAddr::from([10, 0, 0, 2]);
        let frame = Frame::new(Packet::from(&packet[..]), Family::Inet, next_hop).in_class(class);
        self.offered += 1;
        let sent = self.queue.enqueue(frame, self.now, &mut self.stats);
        match sent {
            Ok(()) => self.stats.output.queued += 1,
            Err(_) => self.stats.drop_output(DropReason::QueueFull, 1),
        }
        self.check();
        sent.is_ok()
    }

    fn get(&mut self) -> Option<(u16, u32)> {
        let frame = self.queue.dequeue(self.now, &mut self.stats);
        if frame.is_some() {
            self.stats.output.queued -= 1;
            self.taken += 1;
        }
        self.check();
        frame.map(|frame| identity(&frame))
    }

    fn peek(&mut self) -> Option<(u16, u32)> {
        let frame = self.queue.peek(self.now, &mut self.stats);
        frame.map(identity)
    }

    /// Everything that is released now.
    fn drain(&mut self) -> Vec<(u16, u32)> {
        std::iter::from_fn(|| self.get()).collect()
    }

    /// The ledger closes.
    fn check(&self) {
        assert_eq!(self.queue.len() as u64, self.stats.output.queued);
        let dropped = self.stats.output.dropped;
        assert_eq!(self.offered, self.taken + self.queue.len() as u64 + dropped);
        assert_eq!(self.queue.is_empty(), self.queue.bytes() == 0);
    }

    fn lost(&self, reason: DropReason) -> u64 {
        self.stats.drops(reason)
    }
}

fn identity(frame: &Frame) -> (u16, u32) {
    let packet = frame.packet();
    let flow = u16::from_be_bytes([packet[20], packet[21]]);
    let number = u32::from_be_bytes([packet[24], packet[25], packet[26], packet[27]]);
    (flow, number)
}

const DISCIPLINES: [&str; 3] = ["fifo", "priq", "fq_codel"];

#[test]
fn a_fifo_refuses_what_is_too_much() {
    let mut bench = Bench::new("fifo limit 2 packets 100 bytes");
    assert!(bench.put(1, 1, 60, 0));
    assert!(!bench.put(1, 2, 41, 0));
    assert!(bench.put(1, 3, 40, 0));
    assert!(!bench.put(1, 4, 28, 0));
    assert_eq!(bench.drain(), [(1, 1), (1, 3)]);
    assert_eq!(bench.lost(DropReason::QueueFull), 2);
}

#[test]
fn what_was_looked_at_is_what_leaves_next() {
    for line in DISCIPLINES {
        let mut bench = Bench::new(line);
        bench.put(1, 1, 500, 0);
        bench.put(1, 2, 500, 0);
        assert_eq!(bench.peek(), Some((1, 1)));
        // Neither an urgent packet nor a new flow overtakes it.
        bench.put(2, 3, 100, 0xe0);
        assert_eq!(bench.peek(), Some((1, 1)), "{line}");
        let frame = bench.queue.dequeue(bench.now, &mut bench.stats).unwrap();
        assert_eq!(identity(&frame), (1, 1));
        // It comes back, as when its reader was killed.
        bench.queue.requeue(frame);
        assert_eq!(bench.peek(), Some((1, 1)), "{line}");
        assert_eq!(bench.get(), Some((1, 1)));
        assert_eq!(bench.drain().len(), 2);
    }
}

#[test]
fn priorities_are_strict_and_each_has_the_limits() {
    let mut rng = fastrand::Rng::with_seed(3);
    let mut bench = Bench::new("priq limit 5 packets 2000 bytes");
    let mut model: [Vec<(u32, usize)>; 8] = Default::default();
    for number in 0..5000 {
        let (tos, len) = (rng.u8(..), rng.usize(28..900));
        let held = &mut model[usize::from(tos >> 5)];
        let bytes: usize = held.iter().map(|(_, len)| len).sum();
        let fits = held.len() < 5 && bytes + len <= 2000;
        assert_eq!(bench.put(1, number, len, tos), fits);
        if fits {
            held.push((number, len));
        }
        if rng.bool() {
            let next = model.iter_mut().rev().find(|held| !held.is_empty());
            let next = next.map(|held| (1, held.remove(0).0));
            assert_eq!(bench.get(), next);
        }
    }
    assert_eq!(precedence(Family::Other(0x0806), &[]), 7, "ARP comes first");
}

#[test]
fn the_rate_is_kept_by_every_discipline() {
    for line in DISCIPLINES {
        // A byte a microsecond.
        let mut bench = Bench::new(&format!("rate 8000000 burst 3000 {line}"));
        for number in 0..20 {
            bench.put(1, number, 1000, 0);
        }
        // The burst, and one that begins when a token is left. The third leaves no debt.
        assert_eq!(bench.drain().len(), 3, "{line}");
        assert!(!bench.queue.ready(bench.now) && bench.peek().is_none());
        let mut released = 3;
        for us in (0..16_500).step_by(100) {
            bench.now = at(us);
            let opens = bench.queue.released_at(bench.now);
            let ready = bench.queue.ready(bench.now);
            assert_eq!(opens.is_some(), !ready && !bench.queue.is_empty());
            released += bench.drain().len() as u64;
            assert_eq!(released, (3 + us.div_ceil(1000)).min(20), "{line} at {us}");
        }
        assert_eq!(bench.queue.released_at(bench.now), None, "nothing is held");
        assert_eq!(bench.queue.delay(), Duration::from_micros(16_100));
    }
}

#[test]
fn a_packet_that_comes_back_gives_back_its_tokens() {
    for line in DISCIPLINES {
        let mut bench = Bench::new(&format!("rate 8000 burst 1000 {line}"));
        bench.put(1, 1, 1000, 0);
        bench.put(1, 2, 1000, 0);
        let frame = bench.queue.dequeue(bench.now, &mut bench.stats).unwrap();
        assert!(!bench.queue.ready(bench.now));
        bench.queue.requeue(frame);
        assert!(bench.queue.ready(bench.now));
        assert_eq!(bench.get(), Some((1, 1)), "{line}");
        assert!(!bench.queue.ready(bench.now));
    }
}

#[test]
fn a_change_keeps_what_is_queued_in_order_as_far_as_it_fits() {
    for from in DISCIPLINES {
        for to in DISCIPLINES {
            let mut bench = Bench::new(from);
            for number in 0..100 {
                bench.put((number % 7) as u16, number, 100, ((number % 8) << 5) as u8);
            }
            // One that was looked at is among them.
            bench.peek();
            bench.change(to);
            // Back in a fifo, the order of arrival is seen.
            bench.change("fifo");
            let numbers: Vec<_> = bench.drain().iter().map(|(_, number)| *number).collect();
            assert_eq!(numbers, (0..100).collect::<Vec<_>>(), "{from} to {to}");
        }
    }
    let mut bench = Bench::new("fifo");
    for number in 0..100 {
        bench.put(1, number, 100, 0);
    }
    bench.change("fifo limit 10 packets");
    bench.check();
    assert_eq!(bench.lost(DropReason::QueueFull), 90);
    assert_eq!(bench.drain()[9], (1, 9), "the newest are too much");
    for number in 0..100 {
        bench.put(1, number, 100, 0);
    }
    bench.change("fq_codel limit 4 packets");
    bench.check();
    // Of the fattest flow the oldest are too much.
    assert_eq!(bench.drain()[0], (1, 6));
}

#[test]
fn a_frame_read_under_another_discipline_comes_back_to_the_new_one() {
    for from in DISCIPLINES {
        for to in ["priq", "fq_codel flows 1", "fifo"] {
            let mut bench = Bench::new(from);
            bench.put(5, 1, 100, 0xe0);
            bench.put(5, 2, 100, 0xe0);
            let frame = bench.queue.dequeue(bench.now, &mut bench.stats).unwrap();
            bench.change(to);
            bench.queue.requeue(frame);
            assert_eq!(bench.drain(), [(5, 1), (5, 2)], "{from} to {to}");
        }
    }
}

#[test]
fn changes_make_no_burst() {
    let mut bench = Bench::new("rate 8000 burst 1000 fifo");
    let mut released = 0;
    for number in 0..1000 {
        bench.put(1, number, 100, 0);
        let line = DISCIPLINES[number as usize % 3];
        bench.change(&format!("rate 8000 burst 1000 {line}"));
        released += bench.drain().len();
    }
    assert_eq!(released, 10);
    let purged = bench.queue.purge();
    bench.stats.output.queued -= purged.len() as u64;
    bench
        .stats
        .drop_output(DropReason::Purged, purged.len() as u64);
    bench.check();
    assert_eq!(bench.queue.released_at(bench.now), None);
}

#[test]
fn the_smallest_rate_takes_an_hour() {
    let mut bench = Bench::new("rate 8000 burst 1 fifo limit 65536 packets 3600000 bytes");
    for number in 0..2400 {
        assert!(bench.put(1, number, 1500, 0));
    }
    let mut read = 0;
    while let Some(next) = bench.queue.released_at(bench.now).or_else(|| {
        read += bench.drain().len();
        bench.queue.released_at(bench.now)
    }) {
        bench.now.monotonic = next;
    }
    assert_eq!(read, 2400);
    let seconds = bench.now.monotonic.as_secs_f64();
    assert!((3595.0..3600.0).contains(&seconds), "{seconds}");
}

#[test]
fn flows_share_the_rate_however_much_each_sends() {
    // A flow that floods, one that sends large packets, one small ones.
    let mut bench = Bench::new("rate 8000000 burst 1514 fq_codel flows 4096 limit 600 packets");
    let mut bytes = [0_usize; 3];
    let sizes = [1500, 1000, 200];
    for us in (0..10_000_000).step_by(500) {
        bench.now = at(us);
        for flow in 0..3 {
            for _ in 0..[4, 1, 3][flow] {
                bench.put(flow as u16, 0, sizes[flow], 0);
            }
        }
        while let Some((flow, _)) = bench.get() {
            bytes[usize::from(flow)] += sizes[usize::from(flow)];
        }
    }
    let fair = 10_000_000 / 3;
    for (flow, bytes) in bytes.into_iter().enumerate() {
        let share = bytes as f64 / fair as f64;
        assert!((0.97..1.03).contains(&share), "flow {flow} got {share}");
    }
    assert!(bench.lost(DropReason::QueueFull) > 0 && bench.lost(DropReason::Codel) > 0);
}

#[test]
fn a_flow_that_sends_little_does_not_wait_for_those_that_send_much() {
    let mut bench = Bench::new("rate 8000000 burst 1514 fq_codel flows 65536");
    let mut longest = Duration::ZERO;
    for ms in 0..5000 {
        bench.now = at(ms * 1000);
        for flow in 1..=4 {
            bench.put(flow, 0, 1000, 0);
        }
        if ms % 100 == 50 {
            bench.put(9, 0, 100, 0);
        }
        while let Some((flow, _)) = bench.get() {
            if flow == 9 {
                longest = longest.max(bench.queue.delay());
            }
        }
    }
    // Two of the others may be before it: one under way, and one that pays for the last.
    assert!(longest <= Duration::from_millis(3), "{longest:?}");
    let mut fifo = Bench::new("rate 8000000 burst 1514 fifo");
    for ms in 0..1000 {
        fifo.now = at(ms * 1000);
        for flow in 1..=4 {
            fifo.put(flow, 0, 1000, 0);
        }
        fifo.drain();
    }
    assert!(fifo.queue.delay() > Duration::from_millis(200));
}

#[test]
fn the_fattest_flow_loses_its_oldest_packet() {
    let mut bench = Bench::new("fq_codel flows 65536 limit 10 packets");
    for number in 0..7 {
        assert!(bench.put(1, number, 500, 0));
    }
    for number in 0..3 {
        assert!(bench.put(2, number, 600, 0));
    }
    // Another comes, and it is the first flow that loses.
    assert!(bench.put(3, 0, 100, 0));
    assert!(bench.put(2, 3, 600, 0));
    assert_eq!(bench.lost(DropReason::QueueFull), 2);
    let left = bench.drain();
    let of = |wanted: u16| {
        let left = left.iter().filter(|(flow, _)| *flow == wanted);
        left.map(|(_, number)| *number).collect::<Vec<_>>()
    };
    assert_eq!(of(1), [2, 3, 4, 5, 6]);
    assert_eq!((of(2), of(3)), (vec![0, 1, 2, 3], vec![0]));
    // A sender hears of it only if the packet that is lost is the one that it sends.
    let mut bench = Bench::new("fq_codel flows 65536 limit 1 packets 1000 bytes");
    assert!(bench.put(1, 0, 500, 0));
    assert!(!bench.put(2, 0, 600, 0));
    assert!(bench.put(3, 0, 400, 0));
    assert!(!bench.put(3, 1, 1001, 0));
    assert!(bench.queue.is_empty());
}

#[test]
fn who_can_wait_is_held_back_before_packets_are_lost() {
    let flow = |port| Flow::between(17, ([10, 0, 0, 1].into(), port), ([10, 0, 0, 2].into(), 0));
    for line in DISCIPLINES {
        let mut bench = Bench::new(&format!("{line} limit 100 packets"));
        let mut put = 0;
        while bench.queue.admits(|| flow(1), bench.now) {
            assert!(bench.put(1, put, 100, 0));
            put += 1;
        }
        assert_eq!((put, bench.stats.output.dropped), (75, 0), "{line}");
        // Where queueing is fair, that of another does not hold one up.
        let fair = line == "fq_codel";
        assert_eq!(bench.queue.admits(|| flow(2), bench.now), fair);
        assert_eq!(bench.queue.woken() > 0, fair);
        bench.get();
        assert!(bench.queue.woken() > 0 && bench.queue.admits(|| flow(1), bench.now));
    }
}

#[test]
fn who_can_wait_is_held_back_before_codel_drops() {
    let flow = || Flow::between(17, ([10, 0, 0, 1].into(), 1), ([10, 0, 0, 2].into(), 0));
    for bits in [100_000_u64, 800_000, 10_000_000, 100_000_000] {
        let mut bench = Bench::new(&format!("rate {bits} burst 1514 fq_codel"));
        let mut bytes = 0;
        for us in (0..5_000_000).step_by(100) {
            bench.now = at(us);
            while bench.queue.admits(flow, bench.now) {
                bench.put(1, 0, 1500, 0);
            }
            while bench.get().is_some() {
                bytes += 1500;
                if bench.queue.admits(flow, bench.now) {
                    bench.put(1, 0, 1500, 0);
                }
            }
        }
        assert_eq!(bench.stats.output.dropped, 0, "{bits}");
        let all = bits / 8 * 5;
        assert!(
            bytes >= all * 98 / 100,
            "the rate is reached: {bytes} of {all}"
        );
    }
    // Without a rate, nobody knows how fast the reader is until it reads.
    let mut bench = Bench::new("fq_codel");
    for ms in 0..5000 {
        bench.now = at(ms * 1000);
        for _ in 0..10 {
            if bench.queue.admits(flow, bench.now) {
                bench.put(1, 0, 1500, 0);
            }
        }
        bench.get();
    }
    assert_eq!(bench.stats.output.dropped, 0);
}

#[test]
fn packets_that_wait_for_too_long_are_dropped_or_marked() {
    for (tos, line) in [(0, "fq_codel"), (1, "fq_codel noecn"), (1, "fq_codel")] {
        let mut bench = Bench::new(&format!("rate 8000000 burst 1514 {line}"));
        for ms in 0..4000 {
            bench.now = at(ms * 1000);
            bench.put(1, 0, 1000, tos);
            bench.put(1, 0, 1000, tos);
            while let Some(frame) = bench.queue.dequeue(bench.now, &mut bench.stats) {
                bench.stats.output.queued -= 1;
                bench.taken += 1;
                assert!(frame.bytes[1] == tos || frame.bytes[1] == 3);
            }
        }
        let (codel, marked) = (bench.lost(DropReason::Codel), bench.stats.marked);
        match (tos, line) {
            (1, "fq_codel") => assert!(codel == 0 && marked > 100, "{codel} {marked}"),
            _ => assert!(codel > 100 && marked == 0, "{codel} {marked}"),
        }
    }
}

#[test]
fn a_mark_is_put_behind_the_header_of_the_device() {
    let mut packet = vec![0x60, 0x20, 0, 0, 0, 0, 59, 64];
    packet.resize(40, 1);
    let mut frame = Frame::new(Packet::from(&packet[..]), Family::Inet6, [0; 16].into());
    frame.prepend(&[0, 0, 0, 10]);
    assert_eq!(frame.packet(), packet);
    assert!(flow::mark(frame.family, frame.packet_mut()));
    assert_eq!(frame.bytes[..6], [0, 0, 0, 10, 0x60, 0x30]);
    assert_eq!((frame.wire_len(), frame.owe(14).wire_len()), (44, 58));
}

#[test]
fn whatever_happens_the_ledger_closes() {
    for seed in 0..20 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut bench = Bench::new("fifo");
        for number in 0..2000 {
            bench.now = at(bench.now.monotonic.as_micros() as u64 + rng.u64(..3000));
            match rng.u8(..10) {
                0..5 => {
                    bench.put(rng.u16(..5), number, rng.usize(28..1500), rng.u8(..));
                }
                5..8 => {
                    let next = bench.peek();
                    assert_eq!(next.is_some(), bench.queue.ready(bench.now));
                    assert_eq!(bench.get(), next);
                }
                8 => {
                    if let Some(frame) = bench.queue.dequeue(bench.now, &mut bench.stats) {
                        bench.queue.requeue(frame);
                    }
                    bench.check();
                }
                _ => {
                    let line = DISCIPLINES[rng.usize(..3)];
                    let limit = rng.usize(1..60);
                    let rate = [
                        String::new(),
                        format!("rate {} burst 900 ", rng.u32(8000..9_000_000)),
                    ];
                    bench.change(&format!(
                        "{}{line} limit {limit} packets {} bytes",
                        rate[rng.usize(..2)],
                        limit * 1000
                    ));
                    bench.check();
                    assert!(bench.queue.len() <= limit * 8);
                }
            }
        }
    }
}

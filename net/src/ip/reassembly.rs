//! Reassembly of fragments, for both families, within bounds.
//!
//! Overlapping fragments invalidate their datagram: no host sends them, attackers do (RFC 5722, and
//! RFC 8200 section 4.5, which we apply to IPv4 as well). An exact duplicate is only dropped.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use crate::ifnet::{DropReason, Family, IfIndex};
use crate::timers::{Timer, Timers};

/// Most incomplete datagrams.
const MAX_DATAGRAMS: usize = 256;
/// Most bytes of all incomplete datagrams, overhead included.
const MAX_BYTES: usize = 4 << 20;
/// The share of both that one source may take, as a divisor. A source that floods evicts its own
/// fragments.
const SHARE: usize = 4;
/// Bytes charged for a fragment besides its data: its places in tables, and what the allocator adds.
const OVERHEAD: usize = 128;
/// Bytes charged for a datagram besides its fragments, likewise.
const DATAGRAM: usize = 640;
/// How long a datagram waits for the rest, from the arrival of its first fragment. RFC 8200 section
/// 4.5 says 60 seconds, and RFC 1122 section 3.3.2 allows it.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Largest payload of a packet.
const MAX_PAYLOAD: usize = 65_535;

/// Fragments of a datagram that were held, by the interface they came from.
pub(crate) type HeldFragments = Vec<HeldFrom>;

/// Fragments that came from one interface.
#[derive(Debug)]
pub(crate) struct HeldFrom {
    pub(crate) rcvif: IfIndex,
    pub(crate) count: u64,
    /// Those that came while [packets were kept](Reassembly::keep_packets).
    pub(crate) packets: Vec<(Family, Vec<u8>)>,
}

/// The fields that all fragments of one datagram have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) ident: u32,
    /// Only IPv4 tells datagrams apart by it (RFC 791 section 3.2).
    pub(crate) protocol: u8,
}

/// One fragment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fragment<'a> {
    /// Offset of its data, bytes from the start of the datagram's payload.
    pub(crate) offset: usize,
    /// Whether more fragments follow.
    pub(crate) more: bool,
    /// Its data.
    pub(crate) data: &'a [u8],
    /// The packet it came in, to quote in an error.
    pub(crate) packet: &'a [u8],
    /// Protocol of the payload; that of the first fragment counts.
    pub(crate) protocol: u8,
}

/// The result of adding a fragment.
#[derive(Debug)]
pub(crate) enum Added {
    /// It is kept. Other datagrams were evicted for it, of which these fragments were held.
    Held(Vec<HeldFragments>),
    /// The datagram is complete.
    Whole {
        protocol: u8,
        payload: Vec<u8>,
        /// The fragments held until now; the last one is not among them.
        held: HeldFragments,
    },
    /// It is dropped. These held fragments of the same datagram are dropped with it.
    Dropped(DropReason, HeldFragments),
}

/// A datagram that was given up.
#[derive(Debug)]
pub(crate) struct Expired {
    /// The packet with offset 0, if it arrived.
    pub(crate) first: Option<First>,
    pub(crate) held: HeldFragments,
}

/// The beginning of a first fragment, for an error message about it.
#[derive(Clone, Debug)]
pub(crate) struct First {
    pub(crate) rcvif: IfIndex,
    pub(crate) packet: Vec<u8>,
}

#[derive(Debug)]
struct Datagram {
    /// The time at which it is given up.
    timer: Timer,
    /// The data received, by offset. No two pieces overlap.
    pieces: BTreeMap<usize, Vec<u8>>,
    /// Bytes of data received.
    received: usize,
    /// Bytes charged for the datagram.
    cost: usize,
    total: Option<usize>,
    protocol: u8,
    first: Option<First>,
    held: HeldFragments,
}

#[derive(Debug)]
pub(crate) struct Reassembly {
    datagrams: HashMap<Key, Datagram, ahash::RandomState>,
    /// The time at which each is given up. That is also the order of arrival, since all wait
    /// equally long.
    timers: Timers<Key>,
    bytes: usize,
    /// Number of datagrams, and bytes charged, of each source.
    sources: HashMap<IpAddr, (usize, usize), ahash::RandomState>,
    /// Whether whole packets are kept, for those who watch what is dropped.
    keeps_packets: bool,
}

impl Reassembly {
    pub(crate) fn new(hasher: ahash::RandomState) -> Self {
        Self {
            datagrams: HashMap::with_hasher(hasher.clone()),
            sources: HashMap::with_hasher(hasher),
            timers: Timers::default(),
            bytes: 0,
            keeps_packets: false,
        }
    }

    /// Keeps the packets of fragments, too, or does not any more.
    pub(crate) fn keep_packets(&mut self, on: bool) {
        self.keeps_packets = on;
    }

    /// Adds a fragment.
    pub(crate) fn add(
        &mut self,
        key: Key,
        rcvif: IfIndex,
        fragment: Fragment<'_>,
        now: Duration,
    ) -> Added {
        let Fragment {
            offset,
            more,
            data,
            packet,
            protocol,
        } = fragment;
        let end = offset + data.len();
        // Every fragment but the last is a multiple of eight bytes long.
        if end > MAX_PAYLOAD || data.is_empty() || (more && data.len() % 8 != 0) {
            return self.spoil(&key, DropReason::Malformed);
        }
        if !self.datagrams.contains_key(&key) {
            self.start(key, protocol, now);
        }
        let Some(datagram) = self.datagrams.get_mut(&key) else {
            return Added::Dropped(DropReason::FragmentLimit, HeldFragments::new());
        };
        let before = datagram.pieces.range(..=offset).next_back();
        let before = before.map(|(&start, piece)| (start, start + piece.len(), piece));
        if let Some((start, stop, piece)) = before
            && end <= stop
            && piece[offset - start..end - start] == *data
        {
            return Added::Dropped(DropReason::FragmentOverlap, HeldFragments::new());
        }
        let after = datagram.pieces.range(offset..).next();
        let overlaps = before.is_some_and(|(_, stop, _)| stop > offset)
            || after.is_some_and(|(&start, _)| start < end);
        let total = if more { datagram.total } else { Some(end) };
        let last = datagram.pieces.last_key_value();
        let last = last.map_or(0, |(&start, piece)| start + piece.len());
        let contradicts = datagram.total.is_some_and(|known| Some(known) != total)
            || total.is_some_and(|total| end.max(last) > total);
        if overlaps || contradicts {
            return self.spoil(&key, DropReason::FragmentOverlap);
        }
        let mut cost = OVERHEAD + data.len();
        datagram.pieces.insert(offset, data.to_vec());
        datagram.received += data.len();
        datagram.total = total;
        if offset == 0 {
            datagram.protocol = protocol;
            // No error message quotes more.
            let quoted = packet[..packet.len().min(1232)].to_vec();
            cost += quoted.len();
            datagram.first = Some(First {
                rcvif,
                packet: quoted,
            });
        }
        if self.keeps_packets {
            cost += OVERHEAD + packet.len();
        }
        datagram.cost += cost;
        self.bytes += cost;
        self.sources.entry(key.src).or_default().1 += cost;
        // No pieces overlap, so the datagram is complete once enough bytes have arrived.
        if total == Some(datagram.received)
            && let Some(datagram) = self.take(&key)
        {
            return Added::Whole {
                protocol: datagram.protocol,
                payload: datagram.pieces.into_values().flatten().collect(),
                held: datagram.held,
            };
        }
        if let Some(datagram) = self.datagrams.get_mut(&key) {
            let held = held_from(&mut datagram.held, rcvif);
            held.count += 1;
            if self.keeps_packets {
                held.packets.push((Family::of(&key.src), packet.to_vec()));
            }
        }
        Added::Held(self.make_room(&key))
    }

    /// The next datagram whose time is over.
    pub(crate) fn pop_expired(&mut self, now: Duration) -> Option<Expired> {
        let key = self.timers.pop(now)?;
        self.datagrams.get_mut(&key)?.timer.expired();
        let Datagram { first, held, .. } = self.take(&key)?;
        Some(Expired { first, held })
    }

    /// The time at which the next datagram is given up.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.timers.deadline()
    }

    /// Gives up every datagram with a fragment from an interface that is gone.
    pub(crate) fn detach(&mut self, dev: IfIndex) -> Vec<HeldFragments> {
        let of_dev = |datagram: &Datagram| datagram.held.iter().any(|held| held.rcvif == dev);
        let gone = self
            .datagrams
            .iter()
            .filter(|(_, datagram)| of_dev(datagram));
        let keys: Vec<_> = gone.map(|(&key, _)| key).collect();
        let taken = keys.iter().filter_map(|key| self.take(key));
        taken.map(|datagram| datagram.held).collect()
    }

    fn start(&mut self, key: Key, protocol: u8, now: Duration) {
        let mut datagram = Datagram {
            timer: Timer::default(),
            pieces: BTreeMap::new(),
            received: 0,
            cost: DATAGRAM,
            total: None,
            protocol,
            first: None,
            held: HeldFragments::new(),
        };
        self.timers.arm(&mut datagram.timer, key, now + TIMEOUT);
        self.datagrams.insert(key, datagram);
        self.bytes += DATAGRAM;
        let (datagrams, bytes) = self.sources.entry(key.src).or_default();
        *datagrams += 1;
        *bytes += DATAGRAM;
    }

    /// Evicts the oldest other datagrams until the bounds hold; only those of the same source, if
    /// that source exceeds its share. Returns the fragments that were held of them.
    fn make_room(&mut self, spare: &Key) -> Vec<HeldFragments> {
        let over = |datagrams: usize, bytes: usize, share: usize| {
            datagrams > MAX_DATAGRAMS / share || bytes > MAX_BYTES / share
        };
        let mut thrown_out = Vec::new();
        loop {
            let (datagrams, bytes) = self.sources.get(&spare.src).copied().unwrap_or_default();
            let greedy = over(datagrams, bytes, SHARE);
            if !greedy && !over(self.datagrams.len(), self.bytes, 1) {
                return thrown_out;
            }
            let oldest = self
                .timers
                .iter()
                .find(|key| key != spare && (!greedy || key.src == spare.src));
            let Some(datagram) = oldest.and_then(|key| self.take(&key)) else {
                return thrown_out;
            };
            thrown_out.push(datagram.held);
        }
    }

    fn spoil(&mut self, key: &Key, reason: DropReason) -> Added {
        let held = self.take(key).map(|datagram| datagram.held);
        Added::Dropped(reason, held.unwrap_or_default())
    }

    fn take(&mut self, key: &Key) -> Option<Datagram> {
        let mut datagram = self.datagrams.remove(key)?;
        self.timers.disarm(&mut datagram.timer, *key);
        self.bytes -= datagram.cost;
        if let Some((datagrams, bytes)) = self.sources.get_mut(&key.src) {
            *datagrams -= 1;
            *bytes -= datagram.cost;
            if *datagrams == 0 {
                self.sources.remove(&key.src);
            }
        }
        Some(datagram)
    }
}

/// The fragments from one interface.
fn held_from(held: &mut HeldFragments, rcvif: IfIndex) -> &mut HeldFrom {
    let known = held.iter().position(|held| held.rcvif == rcvif);
    let at = known.unwrap_or_else(|| {
        held.push(HeldFrom {
            rcvif,
            count: 0,
            packets: Vec::new(),
        });
        held.len() - 1
    });
    &mut held[at]
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEV: IfIndex = IfIndex(7);

    fn key(ident: u32) -> Key {
        Key {
            src: "10.0.0.1".parse().unwrap(),
            dst: "10.0.0.2".parse().unwrap(),
            ident,
            protocol: 17,
        }
    }

    fn counts(held: &HeldFragments) -> Vec<(IfIndex, u64)> {
        held.iter().map(|held| (held.rcvif, held.count)).collect()
    }

    fn reassembly() -> Reassembly {
        Reassembly::new(ahash::RandomState::with_seeds(1, 2, 3, 4))
    }

    fn add(r: &mut Reassembly, ident: u32, offset: usize, more: bool, data: &[u8]) -> Added {
        let fragment = Fragment {
            offset,
            more,
            data,
            packet: data,
            protocol: 17,
        };
        r.add(key(ident), DEV, fragment, Duration::from_secs(1))
    }

    #[test]
    fn any_order_makes_a_whole() {
        let orders = [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ];
        for order in orders {
            let mut r = reassembly();
            let pieces = [
                (0, true, [1_u8; 16].as_slice()),
                (16, true, &[2; 8]),
                (24, false, &[3; 5]),
            ];
            for &at in &order[..2] {
                let (offset, more, data) = pieces[at];
                assert!(matches!(add(&mut r, 1, offset, more, data), Added::Held(_)));
            }
            let (offset, more, data) = pieces[order[2]];
            let Added::Whole { payload, held, .. } = add(&mut r, 1, offset, more, data) else {
                panic!("not whole in order {order:?}");
            };
            assert_eq!(payload, [&[1_u8; 16][..], &[2; 8], &[3; 5]].concat());
            assert_eq!(counts(&held), [(DEV, 2)]);
            assert_eq!(r.bytes, 0);
        }
    }

    #[test]
    fn overlaps_and_contradictions_spoil_the_datagram() {
        let cases: [(usize, bool, usize); 4] =
            [(8, true, 16), (0, true, 24), (24, false, 3), (16, false, 4)];
        for (offset, more, len) in cases {
            let mut r = reassembly();
            assert!(matches!(add(&mut r, 1, 0, true, &[0; 16]), Added::Held(_)));
            assert!(matches!(add(&mut r, 1, 32, false, &[0; 8]), Added::Held(_)));
            let added = add(&mut r, 1, offset, more, &vec![1; len]);
            let Added::Dropped(DropReason::FragmentOverlap, held) = added else {
                panic!("{offset} {more} {len}: {added:?}");
            };
            assert_eq!(counts(&held), [(DEV, 2)]);
            assert!(r.datagrams.is_empty());
        }
    }

    #[test]
    fn a_duplicate_is_only_dropped() {
        let mut r = reassembly();
        assert!(matches!(add(&mut r, 1, 8, true, &[0; 16]), Added::Held(_)));
        assert!(matches!(add(&mut r, 1, 24, true, &[0; 8]), Added::Held(_)));
        for (offset, len) in [(8, 16), (24, 8), (16, 8)] {
            let again = add(&mut r, 1, offset, true, &vec![0; len]);
            assert!(
                matches!(again, Added::Dropped(DropReason::FragmentOverlap, held) if held.is_empty())
            );
        }
        assert_eq!(r.datagrams.len(), 1);
    }

    #[test]
    fn what_cannot_be_a_fragment() {
        let mut r = reassembly();
        assert!(matches!(
            add(&mut r, 1, 0, true, &[0; 9]),
            Added::Dropped(DropReason::Malformed, _)
        ));
        assert!(matches!(
            add(&mut r, 1, 0, true, &[]),
            Added::Dropped(DropReason::Malformed, _)
        ));
        let end = add(&mut r, 1, 65_528, false, &[0; 8]);
        assert!(matches!(end, Added::Dropped(DropReason::Malformed, _)));
        assert!(r.datagrams.is_empty());
    }

    #[test]
    fn time_runs_out_from_the_first_fragment() {
        let mut r = reassembly();
        assert!(matches!(add(&mut r, 1, 0, true, &[9; 8]), Added::Held(_)));
        assert_eq!(r.deadline(), Some(Duration::from_secs(61)));
        assert!(r.pop_expired(Duration::from_secs(60)).is_none());
        let expired = r.pop_expired(Duration::from_secs(61)).unwrap();
        assert_eq!(counts(&expired.held), [(DEV, 1)]);
        assert_eq!(expired.first.unwrap().packet, [9; 8]);
        assert_eq!(r.deadline(), None);
    }

    #[test]
    fn bounded_in_datagrams_bytes_and_names() {
        let mut r = reassembly();
        let mut evicted = 0;
        let total = 10_000;
        for ident in 0..total {
            let source = IpAddr::from([10, 1, 0, (ident % 8) as u8]);
            let fragment = Fragment {
                offset: 8,
                more: true,
                data: &[0; 32_000],
                packet: &[],
                protocol: 17,
            };
            let key = Key {
                src: source,
                ..key(ident)
            };
            let added = r.add(key, DEV, fragment, Duration::from_secs(1));
            let Added::Held(thrown_out) = added else {
                panic!("{added:?}");
            };
            evicted += thrown_out.iter().map(|held| held[0].count).sum::<u64>();
            assert!(r.pop_expired(Duration::ZERO).is_none());
            assert!(r.datagrams.len() <= MAX_DATAGRAMS && r.bytes <= MAX_BYTES);
            assert_eq!(r.timers.len(), r.datagrams.len());
        }
        assert_eq!(evicted as usize + r.datagrams.len(), total as usize);
        assert_eq!(
            r.detach(DEV).len(),
            MAX_BYTES / (32_000 + OVERHEAD + DATAGRAM)
        );
        assert!(r.bytes == 0 && r.sources.is_empty());
    }

    #[test]
    fn small_datagrams_are_bounded_in_number() {
        let mut r = reassembly();
        for sources in [1, 2, 8] {
            for ident in 0..10_000_u32 {
                let src = IpAddr::from([10, 1, 0, (ident % sources) as u8]);
                let fragment = Fragment {
                    offset: 0,
                    more: true,
                    data: &[0; 8],
                    packet: &[],
                    protocol: 17,
                };
                let key = Key { src, ..key(ident) };
                let added = r.add(key, DEV, fragment, Duration::from_secs(1));
                assert!(matches!(added, Added::Held(_)));
            }
            let share = MAX_DATAGRAMS / SHARE * sources as usize;
            assert_eq!(r.detach(DEV).len(), share.min(MAX_DATAGRAMS), "{sources}");
        }
    }

    #[test]
    fn who_floods_throws_out_its_own() {
        let mut r = reassembly();
        let half = Fragment {
            offset: 0,
            more: true,
            data: &[1; 8],
            packet: &[],
            protocol: 17,
        };
        let honest = Key {
            src: "10.0.0.9".parse().unwrap(),
            ..key(1)
        };
        let now = Duration::from_secs(1);
        assert!(matches!(r.add(honest, DEV, half, now), Added::Held(_)));
        for ident in 0..10_000 {
            // Far out, and small: charged what it holds.
            assert!(matches!(
                add(&mut r, ident, 65_504, true, &[0; 8]),
                Added::Held(_)
            ));
            assert!(
                r.bytes < 65 * (DATAGRAM + OVERHEAD + 8) + 900,
                "{}",
                r.bytes
            );
        }
        assert_eq!(r.datagrams.len(), 1 + MAX_DATAGRAMS / SHARE);
        let rest = Fragment {
            offset: 8,
            more: false,
            ..half
        };
        assert!(matches!(r.add(honest, DEV, rest, now), Added::Whole { .. }));
    }
}

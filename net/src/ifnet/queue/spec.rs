//! The line of `ifaces/IF/queue`.

use std::fmt;
use std::time::Duration;

use super::super::parse_decimal;
use super::codel::Terms;
use super::fq_codel::FLOW_MEMORY;

/// Largest bounds of a queue, or of each class of one. Memory is bounded whatever is written.
const MOST: Limits = Limits {
    packets: 65_536,
    bytes: 64 << 20,
};
/// Rates that can be kept, bits a second, both inclusive.
const RATES: (u64, u64) = (8000, 100_000_000_000);
/// Most flows.
const MOST_FLOWS: usize = 65_536;
/// Bytes that a flow may send in one turn, both inclusive. With fewer a turn would cost more than
/// the packets in it.
const QUANTA: (usize, usize) = (256, 1 << 20);
/// Times of CoDel, microseconds, both inclusive.
const TIMES: (u64, u64) = (1, 10_000_000);

/// What a send queue does with its frames, and the rate at which they leave.
///
/// Its text, which [`parse`](Self::parse) reads: `[rate BITS burst BYTES] DISCIPLINE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueSpec {
    /// The token bucket at the way out; `None` for no bound.
    pub rate: Option<Rate>,
    /// The order in which frames leave.
    pub discipline: DisciplineSpec,
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Bits a second, headers included.
    pub bits: u64,
    /// Bytes that may leave at once after a pause.
    pub burst: usize,
}

/// A discipline, and its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisciplineSpec {
    /// First in, first out.
    Fifo(Limits),
    /// Eight classes by the traffic class of packets, each with these bounds.
    Priq(Limits),
    /// Fair queueing with CoDel.
    FqCodel(FqCodelSpec),
}

/// The bounds of a queue, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most frames held.
    pub packets: usize,
    /// Most bytes held, headers included.
    pub bytes: usize,
}

/// The numbers of `fq_codel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FqCodelSpec {
    pub(super) limits: Limits,
    pub(super) terms: Terms,
    pub(super) flows: usize,
    pub(super) quantum: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            packets: 250,
            bytes: 1_048_576,
        }
    }
}

impl Default for FqCodelSpec {
    fn default() -> Self {
        Self {
            limits: Limits {
                packets: 10_240,
                bytes: 32 << 20,
            },
            terms: Terms {
                target: Duration::from_micros(5000),
                interval: Duration::from_micros(100_000),
                ecn: true,
            },
            flows: 1024,
            quantum: 1514,
        }
    }
}

impl Default for QueueSpec {
    fn default() -> Self {
        Self {
            rate: None,
            discipline: DisciplineSpec::Fifo(Limits::default()),
        }
    }
}

impl Limits {
    /// The number of waiting senders that may go on, when so much is held: none beyond three
    /// quarters, which leaves the rest to those that cannot wait.
    pub(super) fn free(&self, packets: usize, bytes: usize) -> usize {
        let pressed = |held: usize, limit: usize| held >= limit - limit / 4;
        if pressed(packets, self.packets) || pressed(bytes, self.bytes) {
            return 0;
        }
        self.packets - self.packets / 4 - packets
    }

    /// Reads the numbers after `limit`, at least one of them.
    fn parse(&mut self, words: &mut Words<'_>) -> Option<()> {
        let (mut packets, mut bytes) = (false, false);
        while words.peek().is_some_and(is_number) {
            let number: usize = words.number()?;
            let (seen, held, most) = match words.next()? {
                "packets" => (&mut packets, &mut self.packets, MOST.packets),
                "bytes" => (&mut bytes, &mut self.bytes, MOST.bytes),
                _ => return None,
            };
            if std::mem::replace(seen, true) || !(1..=most).contains(&number) {
                return None;
            }
            *held = number;
        }
        (packets || bytes).then_some(())
    }
}

/// The words of a line.
type Words<'a> = std::iter::Peekable<std::str::SplitAsciiWhitespace<'a>>;

/// Reading words.
trait Read {
    /// A plain decimal number.
    fn number<T: std::str::FromStr>(&mut self) -> Option<T>;

    /// A number of microseconds, and its unit.
    fn time(&mut self) -> Option<Duration>;

    /// This very word.
    fn word(&mut self, word: &str) -> Option<()>;
}

impl Read for Words<'_> {
    fn number<T: std::str::FromStr>(&mut self) -> Option<T> {
        parse_decimal(self.next()?)
    }

    fn time(&mut self) -> Option<Duration> {
        let number = self.number().filter(within(TIMES))?;
        self.word("us")?;
        Some(Duration::from_micros(number))
    }

    fn word(&mut self, word: &str) -> Option<()> {
        (self.next()? == word).then_some(())
    }
}

fn is_number(word: &&str) -> bool {
    word.starts_with(|first: char| first.is_ascii_digit())
}

fn within<T: PartialOrd>((least, most): (T, T)) -> impl Fn(&T) -> bool {
    move |number| (&least..=&most).contains(&number)
}

impl QueueSpec {
    /// Bytes of memory that the flows of such a queue take, besides their packets.
    pub(in crate::ifnet) fn flow_memory(&self) -> usize {
        match self.discipline {
            DisciplineSpec::FqCodel(spec) => spec.flows * FLOW_MEMORY,
            DisciplineSpec::Fifo(_) | DisciplineSpec::Priq(_) => 0,
        }
    }

    /// Reads a line. Parts that are left out have their defaults; each may be there once. `None` if
    /// a word is unknown or a number out of range.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace().peekable();
        let mut rate = None;
        if words.next_if_eq(&"rate").is_some() {
            let bits = words.number().filter(within(RATES))?;
            words.word("burst")?;
            let burst = words.number().filter(within((1, MOST.bytes)))?;
            rate = Some(Rate { bits, burst });
        }
        let discipline = match words.next()? {
            "fifo" => DisciplineSpec::Fifo(parse_limits(&mut words)?),
            "priq" => DisciplineSpec::Priq(parse_limits(&mut words)?),
            "fq_codel" => DisciplineSpec::FqCodel(FqCodelSpec::parse(&mut words)?),
            _ => return None,
        };
        words.next().is_none().then_some(Self { rate, discipline })
    }
}

fn parse_limits(words: &mut Words<'_>) -> Option<Limits> {
    let mut limits = Limits::default();
    if words.next_if_eq(&"limit").is_some() {
        limits.parse(words)?;
    }
    Some(limits)
}

impl FqCodelSpec {
    fn parse(words: &mut Words<'_>) -> Option<Self> {
        let mut spec = Self::default();
        let mut seen = Vec::new();
        while let Some(word) = words.next() {
            let part = match word {
                "noecn" => "ecn",
                _ => word,
            };
            if seen.contains(&part) {
                return None;
            }
            seen.push(part);
            match word {
                "limit" => spec.limits.parse(words)?,
                "target" => spec.terms.target = words.time()?,
                "interval" => spec.terms.interval = words.time()?,
                "flows" => spec.flows = words.number().filter(within((1, MOST_FLOWS)))?,
                "quantum" => {
                    spec.quantum = words.number().filter(within(QUANTA))?;
                    words.word("bytes")?;
                }
                "ecn" => spec.terms.ecn = true,
                "noecn" => spec.terms.ecn = false,
                _ => return None,
            }
        }
        Some(spec)
    }
}

impl fmt::Display for QueueSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Rate { bits, burst }) = self.rate {
            write!(f, "rate {bits} burst {burst} ")?;
        }
        match &self.discipline {
            DisciplineSpec::Fifo(limits) => write!(f, "fifo {limits}"),
            DisciplineSpec::Priq(limits) => write!(f, "priq {limits}"),
            DisciplineSpec::FqCodel(spec) => write!(f, "fq_codel {spec}"),
        }
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { packets, bytes } = self;
        write!(f, "limit {packets} packets {bytes} bytes")
    }
}

impl fmt::Display for FqCodelSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            limits,
            terms,
            flows,
            quantum,
        } = self;
        let [target, interval] = [terms.target, terms.interval].map(|time| time.as_micros());
        let ecn = if terms.ecn { "ecn" } else { "noecn" };
        write!(
            f,
            "{limits} target {target} us interval {interval} us flows {flows} \
             quantum {quantum} bytes {ecn}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines, and what they read back as.
    const GOOD: [(&str, &str); 17] = [
        ("fifo", "fifo limit 250 packets 1048576 bytes"),
        ("fifo limit 9 packets", "fifo limit 9 packets 1048576 bytes"),
        ("fifo limit 9 bytes", "fifo limit 250 packets 9 bytes"),
        (
            "fifo limit 9 bytes 1 packets",
            "fifo limit 1 packets 9 bytes",
        ),
        ("  priq \t", "priq limit 250 packets 1048576 bytes"),
        (
            "priq limit 65536 packets 67108864 bytes",
            "priq limit 65536 packets 67108864 bytes",
        ),
        (
            "rate 8000 burst 1 fifo",
            "rate 8000 burst 1 fifo limit 250 packets 1048576 bytes",
        ),
        (
            "rate 100000000000 burst 67108864 priq limit 5 packets",
            "rate 100000000000 burst 67108864 priq limit 5 packets 1048576 bytes",
        ),
        (
            "fq_codel",
            "fq_codel limit 10240 packets 33554432 bytes target 5000 us interval 100000 us \
             flows 1024 quantum 1514 bytes ecn",
        ),
        (
            "fq_codel noecn",
            "fq_codel limit 10240 packets 33554432 bytes target 5000 us interval 100000 us \
             flows 1024 quantum 1514 bytes noecn",
        ),
        (
            "fq_codel ecn",
            "fq_codel limit 10240 packets 33554432 bytes target 5000 us interval 100000 us \
             flows 1024 quantum 1514 bytes ecn",
        ),
        (
            "fq_codel limit 10 packets",
            "fq_codel limit 10 packets 33554432 bytes target 5000 us interval 100000 us \
             flows 1024 quantum 1514 bytes ecn",
        ),
        (
            "fq_codel limit 10 packets 20 bytes target 1 us interval 10000000 us flows 65536 \
             quantum 256 bytes noecn",
            "fq_codel limit 10 packets 20 bytes target 1 us interval 10000000 us flows 65536 \
             quantum 256 bytes noecn",
        ),
        (
            "fq_codel quantum 300 bytes flows 1 target 7 us limit 9 bytes",
            "fq_codel limit 10240 packets 9 bytes target 7 us interval 100000 us flows 1 \
             quantum 300 bytes ecn",
        ),
        (
            "fq_codel interval 200000 us",
            "fq_codel limit 10240 packets 33554432 bytes target 5000 us interval 200000 us \
             flows 1024 quantum 1514 bytes ecn",
        ),
        (
            "rate 1000000 burst 3000 fq_codel flows 7",
            "rate 1000000 burst 3000 fq_codel limit 10240 packets 33554432 bytes \
             target 5000 us interval 100000 us flows 7 quantum 1514 bytes ecn",
        ),
        (
            "fq_codel quantum 1048576 bytes",
            "fq_codel limit 10240 packets 33554432 bytes target 5000 us interval 100000 us \
             flows 1024 quantum 1048576 bytes ecn",
        ),
    ];

    const BAD: &str = "|codel|Fifo|fifo limit|fifo limit 0 packets|fifo limit 9|fifo limit 9 apples\
        |fifo limit 9 packets 8 packets|fifo limit 9 bytes 8 packets 7 bytes|fifo limit 65537 packets\
        |fifo limit 67108865 bytes|fifo limit 0 bytes|fifo limit -1 bytes|fifo limit +1 bytes\
        |fifo limit 01 packets|fifo limit 1.5 packets|fifo limit 99999999999999999999 bytes\
        |fifo limit 9 packets limit 9 bytes|fifo limit 9 packets ecn|fifo 9 packets|fifo fifo\
        |fifo limit 9 packets priq|priq limit 0 packets|priq limit|priq target 5 us|priq flows 8\
        |rate|rate 8000|rate 8000 burst|rate 8000 burst 1|rate 7999 burst 1 fifo\
        |rate 100000000001 burst 1 fifo|rate 8000 burst 0 fifo|rate 8000 burst 67108865 fifo\
        |rate 0 burst 1 fifo|rate -1 burst 1 fifo|rate 8000 fifo|burst 1 fifo|burst 1 rate 8000 fifo\
        |rate 8000 burst 1 rate 8000 burst 1 fifo|fifo rate 8000 burst 1|rate 8k burst 1 fifo\
        |rate 8000 rate 8000 burst 1 fifo|rate 8000 burst 1 burst 1 fifo\
        |fq_codel limit 0 packets|fq_codel limit 65537 packets|fq_codel limit|fq_codel target 5000\
        |fq_codel target 0 us|fq_codel target 10000001 us|fq_codel target 5 ms|fq_codel target us\
        |fq_codel interval 0 us|fq_codel interval 10000001 us|fq_codel interval 5\
        |fq_codel flows 0|fq_codel flows 65537|fq_codel flows|fq_codel quantum 0 bytes\
        |fq_codel quantum 255 bytes|fq_codel quantum 1048577 bytes|fq_codel quantum 300\
        |fq_codel ecn ecn|fq_codel ecn noecn|fq_codel noecn ecn|fq_codel flows 8 flows 8\
        |fq_codel limit 9 packets limit 9 bytes|fq_codel target 5 us target 5 us\
        |fq_codel interval 5 us interval 5 us|fq_codel quantum 300 bytes quantum 300 bytes\
        |fq_codel memory 5|fq_codel ECN|fq_codel limit 9 packets 9 us|rate 8000 burst 1 sfq\
        |fq_codel flows 8 extra|fq_codel\u{a0}ecn";

    #[test]
    fn a_line_reads_back_with_all_its_parts() {
        for (line, text) in GOOD {
            let spec = QueueSpec::parse(line).unwrap_or_else(|| panic!("{line:?}"));
            assert_eq!(spec.to_string(), text);
            assert_eq!(QueueSpec::parse(text), Some(spec));
        }
        let default = "fifo limit 250 packets 1048576 bytes";
        assert_eq!(QueueSpec::default().to_string(), default);
    }

    #[test]
    fn a_line_that_is_malformed_is_refused() {
        for line in BAD.split('|') {
            assert_eq!(QueueSpec::parse(line), None, "{line:?}");
        }
    }
}

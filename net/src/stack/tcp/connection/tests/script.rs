//! A small language for packets in and packets out, in virtual time, after packetdrill's idea.
//!
//! A script is a list of lines. Numbers of sequence are relative: ours to our SYN, theirs to
//! theirs, so that the first byte is 1. Times are in milliseconds since the script began.
//!
//! | line | meaning |
//! |---|---|
//! | `active WORDS`, `passive WORDS` | a handshake; `WORDS` as in a segment, for the other end's SYN |
//! | `slow MS WORDS` | an active one with such a round trip |
//! | `connect`, `accept WORDS` | begin one, and leave the rest to the script |
//! | `set NAME VALUE` | before a handshake: `mtu`, `sndbuf`, `rcvbuf`, `v6` |
//! | `< FLAGS SEQ:END WORDS` | this comes; flags of `S F R P U .`, `-` for none |
//! | `> FLAGS SEQ:END WORDS` | this must be the next to go; what is not named may be anything |
//! | `>@TIME FLAGS …` | the same, and at this time |
//! | `silent` | nothing goes |
//! | `any` | whatever has gone is fine |
//! | `wait MS` | time passes, and timers fire |
//! | `write N`, `read N`, `close`, `abort`, `abandon`, `nodelay`, `keepalive`, `mtu N`, `unreachable`, `pressure` | what the program and the owner do |
//! | `state S`, `reason R`, `unread N`, `room N`, `deaf`, `mute` | what must be so |
//! | `stat NAME N` | a figure must be so; `N+` for at least, `N-` for at most |
//!
//! Words of a segment: `ack N`, `win N`, `ts VALUE ECHO`, `sack A-B,C-D`, `mss N`, `wscale N`,
//! `sackok`, `df`; `nots`, `nosack` expect the option not to be there. `raw HEX` puts options in as they are.

use std::collections::VecDeque;

use super::super::options::MAX_LEN;
use super::*;
use crate::packet::Packet;

pub(super) const ISS: SeqNumber = SeqNumber(0xffff_f000);
pub(super) const IRS: SeqNumber = SeqNumber(0xffff_ff00);
const START: Duration = Duration::from_secs(1000);
/// The clock in our timestamps when a script begins.
pub(super) const CLOCK: u32 = 5000;

struct Script {
    config: Config,
    connection: Option<Connection>,
    now: Duration,
    sent: VecDeque<(Duration, Packet)>,
}

/// Runs a script.
#[track_caller]
pub(super) fn run(script: &str) {
    let mut config = config(1000, 2000);
    config.clock = CLOCK.wrapping_sub(START.as_millis() as u32);
    let mut runner = Script {
        config,
        connection: None,
        now: START,
        sent: VecDeque::new(),
    };
    for (index, line) in script.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty()
            && let Err(error) = runner.line(line)
        {
            panic!("line {}: {line}: {error}", index + 1);
        }
    }
    if let Some((_, packet)) = runner.sent.front() {
        panic!("at the end, not expected: {}", show(packet));
    }
}

type Result<T> = std::result::Result<T, String>;

fn number(word: Option<&str>) -> Result<u32> {
    let word = word.ok_or("a number is missing")?;
    word.parse().map_err(|_| format!("no number: {word}"))
}

/// A segment as it stands in a script.
#[derive(Default)]
struct Words {
    flags: Flags,
    seq: u32,
    len: u32,
    ack: Option<u32>,
    window: Option<u16>,
    options: Options,
    timestamps: Option<(u32, u32)>,
    sack: Option<Vec<(u32, u32)>>,
    raw: Option<Vec<u8>>,
    no_clock: bool,
    no_sack: bool,
}

fn words<'a>(mut input: impl Iterator<Item = &'a str>, head: bool) -> Result<Words> {
    let mut words = Words::default();
    if head {
        for letter in input.next().ok_or("flags are missing")?.chars() {
            words.flags = words.flags.with(match letter {
                'S' => Flags::SYN,
                'F' => Flags::FIN,
                'R' => Flags::RST,
                'P' => Flags::PSH,
                'U' => Flags::URG,
                '.' => Flags::ACK,
                '-' => Flags::default(),
                _ => return Err(format!("no flag: {letter}")),
            });
        }
        let place = input.next().ok_or("a place is missing")?;
        let (seq, end) = place.split_once(':').unwrap_or((place, place));
        words.seq = number(Some(seq))?;
        words.len = number(Some(end))?.wrapping_sub(words.seq);
    }
    while let Some(word) = input.next() {
        match word {
            "ack" => words.ack = Some(number(input.next())?),
            "win" => words.window = Some(number(input.next())? as u16),
            "mss" => words.options.mss = Some(number(input.next())? as u16),
            "wscale" => words.options.window_scale = Some(number(input.next())? as u8),
            "sackok" => words.options.sack_permitted = true,
            "ts" => words.timestamps = Some((number(input.next())?, number(input.next())?)),
            "sack" => {
                let blocks = input.next().ok_or("blocks are missing")?.split(',');
                let block = |block: &str| {
                    let (left, right) = block.split_once('-').ok_or("no block")?;
                    Ok((number(Some(left))?, number(Some(right))?))
                };
                words.sack = Some(blocks.map(block).collect::<Result<_>>()?);
            }
            "raw" => {
                let hex = input.next().ok_or("bytes are missing")?;
                let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).map_err(|e| e.to_string());
                words.raw = Some((0..hex.len()).step_by(2).map(byte).collect::<Result<_>>()?);
            }
            "nots" => words.no_clock = true,
            "nosack" => words.no_sack = true,
            _ => return Err(format!("no word: {word}")),
        }
    }
    Ok(words)
}

impl Words {
    /// The segment, as it comes from the other end.
    fn build(&self) -> Vec<u8> {
        let mut options = self.options;
        options.timestamps = self
            .timestamps
            .map(|(value, echo)| Timestamps { value, echo });
        for (left, right) in self.sack.iter().flatten() {
            options.sack.push((ISS + *left, ISS + *right));
        }
        let mut room = [0; MAX_LEN];
        let mut len = options.emit(&mut room);
        if let Some(raw) = &self.raw {
            room = [0; MAX_LEN];
            room[..raw.len()].copy_from_slice(raw);
            len = raw.len().next_multiple_of(4);
        }
        let mut bytes = vec![0; 20];
        bytes[..2].copy_from_slice(&2000_u16.to_be_bytes());
        bytes[2..4].copy_from_slice(&1000_u16.to_be_bytes());
        bytes[4..8].copy_from_slice(&(IRS + self.seq).0.to_be_bytes());
        let ack = self.ack.map_or(SeqNumber(0), |ack| ISS + ack);
        bytes[8..12].copy_from_slice(&ack.0.to_be_bytes());
        bytes[12] = (((20 + len) / 4) << 4) as u8;
        bytes[13] = self.flags.0;
        let window = self.window.unwrap_or(65_000);
        bytes[14..16].copy_from_slice(&window.to_be_bytes());
        bytes.extend_from_slice(&room[..len]);
        let control = self.flags.has(Flags::SYN) as u32;
        let first = self.seq + control;
        let text = first..first + self.len;
        bytes.extend(text.map(|at| byte(at.into())));
        bytes
    }

    fn check(&self, bytes: &[u8]) -> Result<()> {
        let got = Segment::parse(bytes).ok_or("not a segment")?;
        let without_push = |flags: Flags| flags.0 & !Flags::PSH.0;
        let mut wrong = Vec::new();
        let mut differ = |what: &str, differs: bool| {
            if differs {
                wrong.push(what.to_owned());
            }
        };
        differ("flags", without_push(got.flags) != without_push(self.flags));
        differ(
            "PSH",
            self.flags.has(Flags::PSH) && !got.flags.has(Flags::PSH),
        );
        differ("seq", got.seq != ISS + self.seq);
        differ("len", got.payload.len() as u32 != self.len);
        differ("ack", self.ack.is_some_and(|ack| got.ack != IRS + ack));
        differ(
            "win",
            self.window.is_some_and(|window| got.window != window),
        );
        let options = &got.options;
        differ(
            "mss",
            self.options.mss.is_some() && options.mss != self.options.mss,
        );
        let scale = self.options.window_scale;
        differ("wscale", scale.is_some() && options.window_scale != scale);
        differ(
            "sackok",
            self.options.sack_permitted && !options.sack_permitted,
        );
        differ("ts there", self.no_clock && options.timestamps.is_some());
        let told = options.sack.as_slice();
        differ("sack there", self.no_sack && !told.is_empty());
        if let Some((value, echo)) = self.timestamps {
            differ("ts", options.timestamps != Some(Timestamps { value, echo }));
        }
        if let Some(sack) = &self.sack {
            let blocks = sack.iter().map(|(left, right)| (IRS + *left, IRS + *right));
            differ("sack", !blocks.eq(told.iter().copied()));
        }
        let first = got.seq.since(ISS);
        let mut text = got.payload.iter().enumerate();
        let good = text.all(|(offset, &got)| got == byte(u64::from(first) - 1 + offset as u64));
        differ("text", !good);
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(format!("{} differ: {}", wrong.join(", "), show(bytes)))
        }
    }
}

fn show(bytes: &[u8]) -> String {
    let Some(got) = Segment::parse(bytes) else {
        return "no segment".to_owned();
    };
    let letters = "FSRP.U".chars().enumerate();
    let flags: String = letters
        .filter(|(bit, _)| got.flags.0 & 1 << bit != 0)
        .map(|(_, letter)| letter)
        .collect();
    let seq = got.seq.since(ISS);
    let mut shown = format!("{flags} {seq}:{}", seq + got.payload.len() as u32);
    shown += &format!(" ack {} win {}", got.ack.since(IRS), got.window);
    for (left, right) in got.options.sack.as_slice() {
        shown += &format!(" sack {}-{}", left.since(IRS), right.since(IRS));
    }
    if let Some(Timestamps { value, echo }) = got.options.timestamps {
        shown += &format!(" ts {value} {echo}");
    }
    shown
}

/// The byte at a place of both streams: the place, and what is above it.
fn byte(at: u64) -> u8 {
    (at ^ (at >> 8)) as u8
}

impl Script {
    fn line(&mut self, line: &str) -> Result<()> {
        let mut input = line.split_whitespace();
        let command = input.next().unwrap_or_default();
        match command {
            "set" => return self.set(input.next().unwrap_or_default(), number(input.next())?),
            "connect" => {
                let connection = Connection::connect(&self.config, ISS, self.now);
                self.connection = Some(connection);
            }
            "accept" => self.accept(input)?,
            "active" => {
                self.line("connect")?;
                self.line("> S 0")?;
                let rest: Vec<&str> = input.collect();
                self.line(&format!("< S. 0 ack 1 {}", rest.join(" ")))?;
                self.line("> . 1 ack 1")?;
            }
            "slow" => {
                self.line("connect")?;
                self.line("> S 0")?;
                self.wait(number(input.next())?)?;
                let rest: Vec<&str> = input.collect();
                self.line(&format!("< S. 0 ack 1 {}", rest.join(" ")))?;
                self.line("> . 1 ack 1")?;
            }
            "passive" => {
                let rest: Vec<&str> = input.collect();
                self.accept(rest.iter().copied())?;
                self.flush();
                self.line("> S. 0 ack 1")?;
                let window = rest.iter().skip_while(|&&word| word != "win").nth(1);
                self.line(&format!("< . 1 ack 1 win {}", window.unwrap_or(&"65000")))?;
            }
            "wait" => self.wait(number(input.next())?)?,
            "silent" => {
                if let Some((_, packet)) = self.sent.front() {
                    return Err(format!("not silent: {}", show(packet)));
                }
            }
            "any" => self.sent.clear(),
            "<" => {
                if let Some((_, packet)) = self.sent.front() {
                    return Err(format!("not expected before: {}", show(packet)));
                }
                let bytes = words(input, true)?.build();
                let segment = Segment::parse(&bytes).ok_or("no segment")?;
                let now = self.now;
                self.connection()?.handle_segment(&segment, now);
            }
            _ if command.starts_with('>') => {
                let words = words(input, true)?;
                let (at, packet) = self.sent.pop_front().ok_or("nothing went")?;
                words.check(&packet)?;
                if let Some(when) = command.strip_prefix(">@") {
                    let at = (at - START).as_millis() as u32;
                    let when = number(Some(when))?;
                    if at.abs_diff(when) > 1 {
                        return Err(format!("went at {at}"));
                    }
                }
                return Ok(());
            }
            _ => self.other(command, &mut input)?,
        }
        self.flush();
        Ok(())
    }

    fn set(&mut self, name: &str, value: u32) -> Result<()> {
        match name {
            "mtu" => self.config.mtu = value as u16,
            "sndbuf" => self.config.send_buffer = Buffer::Fixed(value),
            "rcvbuf" => self.config.receive_buffer = Buffer::Fixed(value),
            "v6" => self.config.v6 = value != 0,
            _ => return Err("no such setting".to_owned()),
        }
        Ok(())
    }

    fn accept<'a>(&mut self, input: impl Iterator<Item = &'a str>) -> Result<()> {
        let mut syn = words(input, false)?;
        syn.flags = Flags::SYN;
        let bytes = syn.build();
        let segment = Segment::parse(&bytes).ok_or("no segment")?;
        let connection = Connection::accept(&self.config, &segment, ISS, self.now);
        self.connection = Some(connection);
        Ok(())
    }

    fn connection(&mut self) -> Result<&mut Connection> {
        self.connection.as_mut().ok_or("no connection".to_owned())
    }

    fn other<'a>(
        &mut self,
        command: &str,
        input: &mut impl Iterator<Item = &'a str>,
    ) -> Result<()> {
        let now = self.now;
        let connection = self.connection()?;
        let matches = |got: String, wanted: Option<&str>| {
            let wanted = wanted.unwrap_or_default();
            let good = got.eq_ignore_ascii_case(wanted);
            good.then_some(()).ok_or_else(|| format!("it is {got}"))
        };
        match command {
            "write" => {
                // The next bytes after what is queued.
                let first = connection.send.una.since(ISS).max(1) as u64 - 1
                    + connection.send_queue() as u64;
                let bytes: Vec<u8> = (first..first + u64::from(number(input.next())?))
                    .map(byte)
                    .collect();
                if connection.send(&bytes) != bytes.len() {
                    return Err("there was no room".to_owned());
                }
            }
            "read" => {
                let len = number(input.next())? as usize;
                let mut bytes = vec![0; len];
                let nxt = connection.receive.nxt.since(IRS) as u64;
                let first = nxt
                    - connection.recv_queue() as u64
                    - u64::from(!matches!(
                        connection.state,
                        State::Established | State::FinWait1 | State::FinWait2
                    ));
                if connection.read(&mut bytes) != len {
                    return Err("there was less".to_owned());
                }
                if !bytes.iter().zip(first..).all(|(&got, at)| got == byte(at)) {
                    return Err("other bytes".to_owned());
                }
            }
            "close" => connection.close(now),
            "abort" => connection.abort(),
            "abandon" => connection.abandon(now),
            "nodelay" => connection.set_no_delay(true),
            "keepalive" => connection.set_keep_alive(true, now),
            "pressure" => connection.set_memory_pressure(true),
            "mtu" => connection.handle_mtu(number(input.next())? as u16, now),
            "unreachable" => connection.handle_unreachable(),
            "state" => matches(format!("{:?}", connection.state()), input.next())?,
            "reason" => {
                let reason = connection.close_reason();
                let reason = reason.map_or("none".to_owned(), |reason| format!("{reason:?}"));
                matches(reason, input.next())?;
            }
            "unread" => matches(connection.recv_queue().to_string(), input.next())?,
            "room" => matches(connection.send_room().to_string(), input.next())?,
            "deaf" => matches(connection.may_recv().to_string(), Some("false"))?,
            "mute" => matches(connection.may_send().to_string(), Some("false"))?,
            "df" => {
                let wanted = if number(input.next())? != 0 {
                    "true"
                } else {
                    "false"
                };
                matches(connection.dont_fragment().to_string(), Some(wanted))?;
            }
            "stat" => {
                let stats = connection.stats();
                let got = match input.next().unwrap_or_default() {
                    "cwnd" => stats.cwnd,
                    "ssthresh" => stats.ssthresh,
                    "mss" => stats.mss,
                    "inflight" => stats.in_flight,
                    "rto" => stats.rto.as_millis() as u32,
                    "srtt" => stats.srtt.unwrap_or_default().as_millis() as u32,
                    "timeouts" => stats.counters.timeouts,
                    "retransmits" => stats.counters.retransmits,
                    "recoveries" => stats.counters.recoveries,
                    "probes" => stats.counters.tail_probes,
                    "undone" => stats.counters.undone,
                    "spurious" => stats.counters.spurious,
                    "lost" => stats.counters.lost,
                    "challenges" => stats.counters.challenges,
                    other => return Err(format!("no figure: {other}")),
                };
                let wanted = input.next().unwrap_or_default();
                let good = match wanted.strip_suffix(['+', '-']) {
                    Some(least) if wanted.ends_with('+') => got >= number(Some(least))?,
                    Some(most) => got <= number(Some(most))?,
                    None => got == number(Some(wanted))?,
                };
                return good.then_some(()).ok_or_else(|| format!("it is {got}"));
            }
            _ => return Err("no such command".to_owned()),
        }
        Ok(())
    }

    /// Lets time pass, from timer to timer.
    fn wait(&mut self, ms: u32) -> Result<()> {
        let until = self.now + Duration::from_millis(ms.into());
        for _ in 0..100_000 {
            let next = self.connection()?.poll_timeout().filter(|&at| at <= until);
            self.now = next.unwrap_or(until).max(self.now);
            if next.is_none() {
                return Ok(());
            }
            let now = self.now;
            self.connection()?.handle_timeout(now);
            self.flush();
        }
        Err("no end of timers".to_owned())
    }

    fn flush(&mut self) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        connection.invariants();
        let mut packets = 0;
        while let Some(packet) = connection.poll_transmit(self.now) {
            self.sent.push_back((self.now, packet));
            connection.invariants();
            packets += 1;
            assert!(packets < 10_000, "no end of packets");
        }
    }
}

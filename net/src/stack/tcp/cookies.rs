//! SYN cookies (RFC 4987 section 3.6): when a listener has as many handshakes under way as it may,
//! further ones are kept nowhere but in the number that we begin with and in our timestamp.
//!
//! The number is, from the top: five bits of time, three bits for the MSS, and 24 bits that prove
//! both. What the peer offered besides (the shift of its windows, SACK) is in the lowest bits of the
//! timestamp, as Linux has it; a peer without timestamps does without these.

use std::time::Duration;

use super::connection::{Config, Connection, Cookie, Segment, SeqNumber};
use super::secret::Secret;
use crate::ip::header::Endpoints;

/// How long one value of the time in a cookie stands.
const PERIOD: Duration = Duration::from_secs(64);
/// A cookie is good in the period in which it was made, and the next.
const PERIODS: u32 = 2;
/// Segment sizes that a cookie can say, ascending; the first is taken for anything below.
const MSS: [u16; 8] = [64, 536, 1024, 1220, 1300, 1400, 1440, 1460];
/// What of a timestamp carries options: five bits.
const OPTION_BITS: u32 = 0x1f;
/// Says that windows are not scaled.
const NO_SCALE: u32 = 0xf;
const SACK: u32 = 0x10;

/// Whether cookies were given out of late: only then is one believed.
#[derive(Debug, Default)]
pub(super) struct Cookies {
    until: Option<Duration>,
}

impl Cookies {
    /// One is given out.
    pub(super) fn given(&mut self, now: Duration) {
        self.until = Some(now + PERIOD * PERIODS);
    }

    /// Whether one may come back.
    pub(super) fn expected(&self, now: Duration) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

/// Where a period begins counting, as far as a cookie can say.
fn period(now: Duration) -> u32 {
    (now.as_secs() / PERIOD.as_secs()) as u32
}

fn number(secret: &Secret, endpoints: &Endpoints, irs: u32, period: u32, mss: u32) -> u32 {
    let said = (period & 0x1f) << 3 | mss;
    let proof = secret.cookie(endpoints, (irs, period << 3 | mss)) & 0x00ff_ffff;
    said << 24 | proof
}

/// The answer to a SYN that keeps nothing: a connection that is asked for its SYN-ACK and then
/// forgotten.
pub(super) fn make(
    secret: &Secret,
    endpoints: &Endpoints,
    config: Config,
    syn: &Segment<'_>,
    now: Duration,
) -> Connection {
    let asked = syn.options.mss.unwrap_or(config.default_mss());
    let mss = MSS.iter().rposition(|&mss| mss <= asked).unwrap_or(0) as u32;
    let iss = number(secret, endpoints, syn.seq.0, period(now), mss);
    // What the timestamp cannot carry is not agreed on.
    let mut syn = *syn;
    if syn.options.timestamps.is_none() {
        syn.options.window_scale = None;
        syn.options.sack_permitted = false;
    }
    let bits = option_bits(&syn);
    let clock = config.clock.wrapping_add(now.as_millis() as u32);
    let mut told = clock & !OPTION_BITS | bits;
    if told.wrapping_sub(clock).cast_signed() > 0 {
        // Clocks of later segments must not seem to go back.
        told = told.wrapping_sub(OPTION_BITS + 1);
    }
    let config = Config {
        clock: config.clock.wrapping_add(told.wrapping_sub(clock)),
        ..config
    };
    Connection::accept(&config, &syn, SeqNumber(iss), now)
}

fn option_bits(syn: &Segment<'_>) -> u32 {
    let scale = syn.options.window_scale.map_or(NO_SCALE, u32::from);
    scale | if syn.options.sack_permitted { SACK } else { 0 }
}

/// The handshake that an ACK completes, if its number is one of our cookies.
pub(super) fn read(
    secret: &Secret,
    endpoints: &Endpoints,
    ack: &Segment<'_>,
    now: Duration,
) -> Option<Cookie> {
    let (iss, irs) = (ack.ack - 1, ack.seq - 1);
    let mss = iss.0 >> 24 & 7;
    let current = period(now);
    let mut periods = (0..PERIODS).filter_map(|back| current.checked_sub(back));
    periods.find(|&period| number(secret, endpoints, irs.0, period, mss) == iss.0)?;
    let echoed = ack.options.timestamps.map(|clocks| clocks.echo);
    let scale = echoed.map(|echo| echo & NO_SCALE);
    Some(Cookie {
        iss,
        irs,
        mss: Some(MSS[mss as usize]),
        window_scale: scale
            .filter(|&scale| scale < NO_SCALE)
            .map(|scale| scale as u8),
        sack: echoed.is_some_and(|echo| echo & SACK != 0),
        timestamp: ack.options.timestamps.map(|clocks| clocks.value),
    })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::super::connection::{Buffer, Flags, Options, Timestamps};
    use super::*;
    use crate::seed::Seed;

    const NOW: Duration = Duration::from_secs(1000);

    fn endpoints(last: u8) -> Endpoints {
        Endpoints {
            local: (IpAddr::from([10, 0, 0, 1]), 80),
            remote: (IpAddr::from([10, 0, 0, last]), 4000),
            link: None,
        }
    }

    fn config() -> Config {
        Config {
            local_port: 80,
            remote_port: 4000,
            v6: false,
            mtu: 1500,
            send_buffer: Buffer::Auto(65_536),
            receive_buffer: Buffer::Auto(65_536),
            rx_ring: None,
            no_delay: false,
            keep_alive: false,
            clock: 12_345,
        }
    }

    fn segment(seq: u32, ack: u32, flags: Flags, options: Options) -> Segment<'static> {
        Segment {
            src_port: 4000,
            dst_port: 80,
            seq: SeqNumber(seq),
            ack: SeqNumber(ack),
            window: 1000,
            flags,
            options,
            payload: &[],
        }
    }

    /// What comes back of a SYN with these options, and by when.
    fn round(options: Options, later: Duration, guess: u32) -> Option<Cookie> {
        let secret = Secret::new(&Seed::from(7));
        let syn = segment(99, 0, Flags::SYN, options);
        let mut made = make(&secret, &endpoints(2), config(), &syn, NOW);
        let sent = made.poll_transmit(NOW).unwrap();
        let answer = Segment::parse(&sent).unwrap();
        let clocks = answer.options.timestamps.map(|clocks| Timestamps {
            value: 78,
            echo: clocks.value,
        });
        let options = Options {
            timestamps: clocks,
            ..Options::default()
        };
        let ack = segment(
            100,
            answer.seq.0.wrapping_add(1 + guess),
            Flags::ACK,
            options,
        );
        assert_eq!(
            read(&secret, &endpoints(3), &ack, NOW + later).map(|c| c.irs.0),
            None
        );
        read(&secret, &endpoints(2), &ack, NOW + later)
    }

    #[test]
    fn what_was_offered_comes_back() {
        let options = Options {
            mss: Some(1460),
            window_scale: Some(9),
            sack_permitted: true,
            timestamps: Some(Timestamps { value: 77, echo: 0 }),
            ..Options::default()
        };
        let cookie = round(options, Duration::from_millis(300), 0).unwrap();
        assert_eq!(
            (cookie.irs.0, cookie.mss, cookie.window_scale),
            (99, Some(1460), Some(9))
        );
        assert!(cookie.sack);
        assert_eq!(cookie.timestamp, Some(78));
        let bare = Options {
            mss: Some(600),
            window_scale: Some(9),
            sack_permitted: true,
            ..Options::default()
        };
        let cookie = round(bare, Duration::ZERO, 0).unwrap();
        assert_eq!(
            (cookie.mss, cookie.window_scale, cookie.sack),
            (Some(536), None, false)
        );
    }

    #[test]
    fn neither_a_guess_nor_an_old_one_is_believed() {
        assert!(round(Options::default(), Duration::ZERO, 1).is_none());
        assert!(round(Options::default(), PERIOD, 0).is_some());
        assert!(round(Options::default(), PERIOD * 2, 0).is_none());
    }
}

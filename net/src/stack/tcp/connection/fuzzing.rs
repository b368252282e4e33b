//! A connection driven by chance, for the fuzz target `segments`.

use core::time::Duration;

use super::{Buffer, Config, Connection, Flags, Options, Segment, SeqNumber, Timestamps};

/// Bytes of chance, of which there may be no more.
struct Chance<'a>(&'a [u8]);

impl Chance<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn word(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }

    /// A number not far from `place`.
    fn near(&mut self, place: SeqNumber) -> Option<SeqNumber> {
        let offset = i32::from(self.word()?.cast_signed());
        Some(SeqNumber(place.0.wrapping_add(offset.cast_unsigned())))
    }
}

/// Does to a connection what `bytes` say, and checks after each step what must always hold.
///
/// # Panics
///
/// If it does not.
pub fn segments(bytes: &[u8]) {
    let _ = play(&mut Chance(bytes));
}

fn play(chance: &mut Chance<'_>) -> Option<()> {
    let first = chance.byte()?;
    let buffer = match first & 1 {
        0 => Buffer::Auto(super::LARGEST),
        _ => Buffer::Fixed(8192),
    };
    let config = Config {
        local_port: 1,
        remote_port: 2,
        v6: first & 2 != 0,
        mtu: 1500,
        send_buffer: buffer,
        receive_buffer: buffer,
        rx_ring: None,
        no_delay: first & 4 != 0,
        keep_alive: first & 8 != 0,
        clock: 7,
    };
    let mut now = Duration::from_secs(1);
    let iss = SeqNumber(u32::MAX - 5000);
    let syn = Segment {
        src_port: 2,
        dst_port: 1,
        seq: SeqNumber(1000),
        ack: SeqNumber(0),
        window: 5000,
        flags: Flags::SYN,
        options: Options::parse(chance.0.get(..8)?),
        payload: &[],
    };
    let mut connection = match first & 16 {
        0 => Connection::connect(&config, iss, now),
        _ => Connection::accept(&config, &syn, iss, now),
    };
    let text = [5; 3000];
    while let Some(step) = chance.byte() {
        match step & 15 {
            0..=6 => {
                let flags = chance.byte()? & 0x3f;
                let mut options = Options::parse(chance.0.get(..12).unwrap_or_default());
                if step & 16 != 0 {
                    options.timestamps = Some(Timestamps {
                        value: connection.ts_recent.wrapping_add(u32::from(chance.byte()?)),
                        echo: connection
                            .timestamp(now)
                            .wrapping_sub(chance.byte()?.into()),
                    });
                }
                for _ in 0..step >> 5 & 3 {
                    let left = chance.near(connection.send.una)?;
                    options.sack.push((left, left + u32::from(chance.word()?)));
                }
                let len = usize::from(chance.word()? % 3000);
                let segment = Segment {
                    src_port: 2,
                    dst_port: 1,
                    seq: chance.near(connection.receive.nxt)?,
                    ack: chance.near(connection.send.una)?,
                    window: chance.word()?,
                    flags: Flags(flags),
                    options,
                    payload: text.get(..len)?,
                };
                connection.handle_segment(&segment, now);
            }
            7 => drop(connection.send(&text)),
            8 => drop(connection.recv(usize::from(chance.word()?), <[u8]>::len)),
            9 | 10 => {
                now += Duration::from_millis(u64::from(chance.word()?));
                connection.handle_timeout(now);
            }
            11 => connection.handle_mtu(chance.word()?, now),
            12 => connection.close(now),
            13 => connection.abandon(now),
            14 => connection.handle_unreachable(),
            _ => connection.set_memory_pressure(step & 16 != 0),
        }
        connection.invariants();
        for _ in 0..chance.byte()? % 16 {
            let Some(packet) = connection.poll_transmit(now) else {
                break;
            };
            assert!(
                Segment::parse(&packet).is_some(),
                "what is sent is a segment"
            );
            connection.invariants();
        }
        let _ = connection.poll_timeout();
    }
    Some(())
}

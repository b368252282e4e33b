//! Options of IPv4 headers (RFC 791 section 3.1).

use std::net::Ipv4Addr;
use std::time::Duration;

const END: u8 = 0;
const NOP: u8 = 1;
const RECORD_ROUTE: u8 = 7;
const TIMESTAMP: u8 = 0x44;
const LSRR: u8 = 0x83;
const SSRR: u8 = 0x89;

/// Why a packet is dropped for its options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It asks for a source route.
    SourceRoute,
    /// The byte at this offset of the options is wrong.
    At(usize),
}

/// Calls `visit` with the offset and length of each option that is not padding, until it fails.
/// It is an error, too, if a length is wrong.
fn each(
    options: &[u8],
    mut visit: impl FnMut(usize, usize) -> Result<(), Refused>,
) -> Result<(), Refused> {
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        match (kind, options.get(at + 1)) {
            (END, _) => return Ok(()),
            (NOP, _) => at += 1,
            (_, None) => return Err(Refused::At(at)),
            (_, Some(&len)) => {
                let len = usize::from(len);
                if len < 2 || len > options.len() - at {
                    return Err(Refused::At(at + 1));
                }
                visit(at, len)?;
                at += len;
            }
        }
    }
    Ok(())
}

/// Checks the options of a received packet.
pub(super) fn check(options: &[u8]) -> Result<(), Refused> {
    each(options, |at, _| match options[at] {
        LSRR | SSRR => Err(Refused::SourceRoute),
        _ => Ok(()),
    })
}

/// Fills in what Record Route and Timestamp ask for: the address `own`, and the `time` since 1970.
/// `is_ours` says which addresses are asked for by name. If a pointer leads nowhere, nothing more is
/// filled in, and the error says where.
pub(super) fn fill_in(
    options: &mut [u8],
    own: Ipv4Addr,
    is_ours: impl Fn(Ipv4Addr) -> bool,
    time: Duration,
) -> Result<(), Refused> {
    let mut found = Vec::new();
    each(options, |at, len| {
        found.push((at, len));
        Ok(())
    })?;
    for (at, len) in found {
        let option = &mut options[at..at + len];
        let filled = match option[0] {
            RECORD_ROUTE => record(option, own),
            TIMESTAMP => stamp(option, own, &is_ours, time),
            _ => Ok(()),
        };
        filled.map_err(|wrong| Refused::At(at + wrong))?;
    }
    Ok(())
}

/// The options that the reply to an echo request has in common with it (RFC 1122 section 3.2.2.6),
/// padded.
pub(super) fn of_reply(options: &[u8]) -> Vec<u8> {
    let mut kept = Vec::new();
    let _ = each(options, |at, len| {
        if matches!(options[at], RECORD_ROUTE | TIMESTAMP) {
            kept.extend_from_slice(&options[at..at + len]);
        }
        Ok(())
    });
    kept.resize(kept.len().next_multiple_of(4), END);
    kept
}

/// Record Route: the address goes to where the pointer, counted from one, says. An error is the
/// offset of what is wrong.
fn record(option: &mut [u8], own: Ipv4Addr) -> Result<(), usize> {
    const FIRST: usize = 4;

    let next = usize::from(*option.get(2).ok_or(1_usize)?);
    if next < FIRST {
        return Err(2);
    }
    if next <= option.len() {
        put(option, next, &own.octets())?;
    }
    Ok(())
}

/// Timestamp: the time, behind an address if the flags ask for one. Without room it is counted.
fn stamp(
    option: &mut [u8],
    own: Ipv4Addr,
    is_ours: impl Fn(Ipv4Addr) -> bool,
    time: Duration,
) -> Result<(), usize> {
    const FIRST: usize = 5;
    const ONLY_TIMES: u8 = 0;
    const WITH_ADDRESSES: u8 = 1;
    const OF_THESE_HOSTS: u8 = 3;
    const DAY: u128 = 24 * 3600 * 1000;
    const OVERFLOW: u8 = 0x10;

    let (Some(&next), Some(&flags)) = (option.get(2), option.get(3)) else {
        return Err(1);
    };
    let next = usize::from(next);
    if next < FIRST {
        return Err(2);
    }
    if next > option.len() {
        // Hosts that found no room are counted, up to fifteen.
        let more = option[3].checked_add(OVERFLOW);
        option[3] = more.ok_or(3_usize)?;
        return Ok(());
    }
    let millis = ((time.as_millis() % DAY) as u32).to_be_bytes();
    let [a, b, c, d] = own.octets();
    let [e, f, g, h] = millis;
    match flags & 0xf {
        ONLY_TIMES => put(option, next, &millis),
        WITH_ADDRESSES => put(option, next, &[a, b, c, d, e, f, g, h]),
        OF_THESE_HOSTS => {
            let asked = option
                .get(next - 1..next + 3)
                .and_then(|asked| asked.first_chunk::<4>());
            let asked = Ipv4Addr::from(*asked.ok_or(2_usize)?);
            let [a, b, c, d] = asked.octets();
            match is_ours(asked) {
                true => put(option, next, &[a, b, c, d, e, f, g, h]),
                false => Ok(()),
            }
        }
        _ => Err(3),
    }
}

/// Writes `bytes` to where the pointer `next` says, and moves it on.
fn put(option: &mut [u8], next: usize, bytes: &[u8]) -> Result<(), usize> {
    let room = option.get_mut(next - 1..next - 1 + bytes.len());
    room.ok_or(2_usize)?.copy_from_slice(bytes);
    option[2] += bytes.len() as u8;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

    fn filled(options: &[u8]) -> Result<Vec<u8>, Refused> {
        let mut options = options.to_vec();
        let time = Duration::from_millis(24 * 3600 * 1000 + 0x0102);
        fill_in(&mut options, OWN, |addr| addr == OWN, time)?;
        Ok(options)
    }

    #[test]
    fn source_routes_and_broken_options_are_refused() {
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(check(&[1, 1, 0, 0]), Ok(()));
        assert_eq!(check(&[0x94, 4, 0, 0]), Ok(()));
        assert_eq!(check(&[1, 0x83, 3, 4]), Err(Refused::SourceRoute));
        assert_eq!(check(&[0x89, 3, 4, 0]), Err(Refused::SourceRoute));
        assert_eq!(check(&[1, 1, 1, 7]), Err(Refused::At(3)));
        assert_eq!(check(&[1, 7, 0, 0]), Err(Refused::At(2)));
        assert_eq!(check(&[7, 1, 0, 0]), Err(Refused::At(1)));
        assert_eq!(check(&[7, 5, 0, 0]), Err(Refused::At(1)));
    }

    #[test]
    fn an_address_is_recorded_where_there_is_room() {
        let one = filled(&[1, 7, 7, 4, 0, 0, 0, 0]).unwrap();
        assert_eq!(one, [1, 7, 7, 8, 10, 9, 0, 1]);
        assert_eq!(filled(&one).unwrap(), one);
        assert_eq!(filled(&[7, 7, 3, 0, 0, 0, 0, 0]), Err(Refused::At(2)));
        assert_eq!(filled(&[7, 6, 4, 0, 0, 0, 0, 0]), Err(Refused::At(2)));
        assert_eq!(filled(&[7, 2, 0, 0]), Err(Refused::At(1)));
    }

    #[test]
    fn the_time_is_put_as_the_flags_ask() {
        let time = filled(&[68, 8, 5, 0, 9, 9, 9, 9]).unwrap();
        assert_eq!(time, [68, 8, 9, 0, 0, 0, 1, 2]);
        assert_eq!(filled(&time).unwrap()[..4], [68, 8, 9, 0x10]);
        assert_eq!(filled(&[68, 8, 9, 0xf0, 0, 0, 0, 0]), Err(Refused::At(3)));
        let both = filled(&[68, 12, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        assert_eq!(both, [68, 12, 13, 1, 10, 9, 0, 1, 0, 0, 1, 2]);
        let ours = [68, 12, 5, 3, 10, 9, 0, 1, 0, 0, 0, 0];
        assert_eq!(
            filled(&ours).unwrap()[2..],
            [13, 3, 10, 9, 0, 1, 0, 0, 1, 2]
        );
        let theirs = [68, 12, 5, 3, 10, 9, 0, 2, 0, 0, 0, 0];
        assert_eq!(filled(&theirs).unwrap(), theirs);
        assert_eq!(filled(&[68, 8, 5, 1, 0, 0, 0, 0]), Err(Refused::At(2)));
        assert_eq!(filled(&[68, 8, 5, 2, 0, 0, 0, 0]), Err(Refused::At(3)));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..100_000 {
            let len = rng.usize(..=10) * 4;
            let options: Vec<u8> = (0..len)
                .map(|_| {
                    *rng.choice(&[0, 1, 3, 4, 5, 7, 8, 12, 68, 40, 0xff])
                        .unwrap()
                })
                .collect();
            if let Ok(filled) = filled(&options) {
                assert_eq!(of_reply(&filled).len() % 4, 0);
            }
        }
    }
}

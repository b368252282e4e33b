//! The bytes on the file: packing packets into reads, and unpacking them from writes.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use scheme::errno::{self, Errno};
use scheme::{Now, Outcome};

use super::TUNMRU;
use crate::batch;
use crate::ifnet::{Family, Frame, Ifnet};

/// A frame that a reader was given.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) frame: Frame,
    /// The reader's buffer was too short for the packet.
    pub(super) truncated: bool,
}

/// The next hop before a packet in LMODE: BSD's `struct sockaddr_in`, its length first.
pub(super) fn sockaddr_in(addr: Ipv4Addr) -> [u8; 16] {
    let mut sockaddr = [0; 16];
    sockaddr[0] = 16;
    sockaddr[1] = 2;
    sockaddr[4..8].copy_from_slice(&addr.octets());
    sockaddr
}

/// Copies frames from the queue into `buf`, and moves them to `taken`: one, truncated if it does not
/// fit; or in batch mode as many whole ones as fit. Returns the bytes and the number of frames.
/// `EMSGSIZE` if not even the first fits a batch; it stays queued.
#[inline]
pub(super) fn read(
    ifp: &mut Ifnet,
    buf: &mut [u8],
    many: bool,
    now: Now,
    taken: &mut VecDeque<Taken>,
) -> Outcome<(usize, usize)> {
    if many {
        return read_batch(ifp, buf, now, taken);
    }
    let Some(frame) = ifp.dequeue(now) else {
        return Outcome::Wait;
    };
    let len = frame.bytes.len().min(buf.len());
    buf[..len].copy_from_slice(&frame.bytes[..len]);
    let truncated = len < frame.bytes.len();
    taken.push_back(Taken { frame, truncated });
    Outcome::Done(Ok((len, 1)))
}

fn read_batch(
    ifp: &mut Ifnet,
    buf: &mut [u8],
    now: Now,
    taken: &mut VecDeque<Taken>,
) -> Outcome<(usize, usize)> {
    let (mut filled, mut frames) = (0, 0);
    while let Some(next) = ifp.peek(now) {
        let end = filled + batch::size(next.bytes.len());
        if end > buf.len() {
            break;
        }
        let Some(frame) = ifp.dequeue(now) else {
            break;
        };
        batch::put(&mut buf[filled..end], &[&frame.bytes]);
        filled = end;
        frames += 1;
        taken.push_back(Taken {
            frame,
            truncated: false,
        });
    }
    match (filled, ifp.snd.ready(now)) {
        (0, true) => errno::EMSGSIZE.into(),
        (0, false) => Outcome::Wait,
        _ => Outcome::Done(Ok((filled, frames))),
    }
}

/// The answer to `FIONREAD`: bytes of the first frame, in batch mode with its length and padding; 0
/// if there is none.
pub(super) fn first_len(ifp: &mut Ifnet, many: bool, now: Now) -> usize {
    match ifp.peek(now) {
        None => 0,
        Some(frame) if many => batch::size(frame.bytes.len()),
        Some(frame) => frame.bytes.len(),
    }
}

/// Splits a written frame into family and packet. `EINVAL` if the family is cut off, `EIO` if the
/// packet is longer than [`TUNMRU`].
pub(super) fn decode(frame: &[u8], head: bool) -> Result<(u32, &[u8]), Errno> {
    let (af, packet) = if head {
        let (af, packet) = frame.split_first_chunk().ok_or(errno::EINVAL)?;
        (u32::from_be_bytes(*af), packet)
    } else {
        (Family::Inet.af(), frame)
    };
    match packet.len() > TUNMRU {
        true => Err(errno::EIO),
        false => Ok((af, packet)),
    }
}

/// Splits a written batch completely, before any of it is processed.
pub(super) fn decode_batch(
    mut buf: &[u8],
    head: bool,
    takes: impl Fn(Family) -> bool,
) -> Result<Vec<(Family, &[u8])>, Errno> {
    let mut frames = Vec::new();
    while !buf.is_empty() {
        let frame = batch::take(&mut buf).filter(|frame| !frame.is_empty());
        let (af, packet) = decode(frame.ok_or(errno::EINVAL)?, head)?;
        let family = Family::from_af(af).filter(|&family| takes(family));
        frames.push((family.ok_or(errno::EAFNOSUPPORT)?, packet));
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ifnet::{Driver, IfFlags, IfTable, Outgoing, OutputError, Sent};
    use crate::packet::Packet;

    /// The functions of the driver do not matter here.
    fn refuse(_: &mut Ifnet, _: &mut Outgoing) -> Result<Sent, OutputError> {
        Err(OutputError::Down)
    }

    /// An interface with frames of these lengths in its queue.
    fn queue(lens: &[usize]) -> Ifnet {
        let mut ifs = IfTable::new(ahash::RandomState::with_seeds(1, 2, 3, 4));
        let (driver, flags) = (Driver::Tun(0), IfFlags::POINTOPOINT);
        let dev = ifs.attach("tun0", driver, refuse, flags, 0x17, 1500);
        let dev = dev.unwrap();
        let ifp = ifs.get_mut(dev).unwrap();
        for &len in lens {
            let bytes = Packet::from(&vec![len as u8; len][..]);
            let frame = Frame::new(bytes, Family::Inet, Ipv4Addr::LOCALHOST.into());
            let _ = ifp.enqueue(frame, len, Now::default()).unwrap();
        }
        ifs.detach(dev);
        ifs.poll_detached().unwrap()
    }

    fn read_len(queue: &mut Ifnet, room: usize, batch: bool) -> Outcome<(usize, usize)> {
        let mut taken = VecDeque::new();
        let outcome = read(
            queue,
            &mut vec![0xee; room],
            batch,
            Now::default(),
            &mut taken,
        );
        if let Outcome::Done(Ok((_, frames))) = outcome {
            assert_eq!(taken.len(), frames);
        }
        outcome
    }

    #[test]
    fn a_batch_holds_whole_frames_padded_to_four() {
        let mut fifo = queue(&[5, 8, 100]);
        assert_eq!(first_len(&mut fifo, true, Now::default()), 12);
        assert_eq!(
            read_len(&mut fifo, 12 + 12 + 103, true),
            Outcome::Done(Ok((24, 2)))
        );
        assert_eq!(read_len(&mut fifo, 103, true), errno::EMSGSIZE.into());
        assert_eq!(read_len(&mut fifo, 104, true), Outcome::Done(Ok((104, 1))));
        assert_eq!(read_len(&mut fifo, 104, true), Outcome::Wait);
    }

    #[test]
    fn what_is_read_in_a_batch_is_written_as_one() {
        let mut fifo = queue(&[5, 8]);
        let mut buf = [0xee; 64];
        let outcome = read(
            &mut fifo,
            &mut buf,
            true,
            Now::default(),
            &mut VecDeque::new(),
        );
        let Outcome::Done(Ok((len, 2))) = outcome else {
            panic!("nothing read");
        };
        let frames = decode_batch(&buf[..len], false, |_| true).unwrap();
        let packets: Vec<_> = frames.iter().map(|(_, packet)| packet.len()).collect();
        assert_eq!(packets, [5, 8]);
    }

    #[test]
    fn a_batch_is_refused_whole() {
        let frame = |len: u32, bytes: usize| [&len.to_ne_bytes()[..], &vec![0; bytes]].concat();
        let good = frame(20, 20);
        let batch = |tail: &[u8], head| {
            let takes = |family| matches!(family, Family::Inet | Family::Inet6);
            decode_batch(&[&good[..], tail].concat(), head, takes).map(|frames| frames.len())
        };
        assert_eq!(batch(&[], false), Ok(1));
        assert_eq!(batch(&frame(0, 0), false), Err(errno::EINVAL));
        assert_eq!(batch(&[1, 0], false), Err(errno::EINVAL));
        assert_eq!(batch(&frame(5, 5), false), Err(errno::EINVAL));
        assert_eq!(batch(&frame(5, 8), false), Ok(2));
        assert_eq!(batch(&frame(u32::MAX, 8), false), Err(errno::EINVAL));
        let most = TUNMRU as u32;
        assert_eq!(batch(&frame(most, TUNMRU), false), Ok(2));
        assert_eq!(batch(&frame(most + 1, TUNMRU + 4), false), Err(errno::EIO));
        // The first frame's family is 0 when a head is expected.
        assert_eq!(batch(&[], true), Err(errno::EAFNOSUPPORT));
        let short = frame(3, 4);
        assert_eq!(decode_batch(&short, true, |_| true), Err(errno::EINVAL));
    }

    #[test]
    fn one_frame_at_a_time() {
        assert_eq!(decode(&[0, 0, 0, 2, 9], true), Ok((2, &[9][..])));
        assert_eq!(decode(&[0, 0, 2], true), Err(errno::EINVAL));
        assert_eq!(decode(&[0; TUNMRU], false).map(|(af, _)| af), Ok(2));
        assert_eq!(decode(&[0; TUNMRU + 1], false), Err(errno::EIO));
        assert!(decode(&[0; TUNMRU + 4], true).is_ok());
        assert_eq!(decode(&[0; TUNMRU + 5], true), Err(errno::EIO));
    }
}

//! Messages of ICMP as `icmp/ping/ADDR` tells them, and the words of ping(8) for errors.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of the head: the address of the sender, and what ICMP says.
const HEAD: usize = 32;
/// The families of addresses.
const INET: u16 = 2;
const INET6: u16 = 10;

/// A reply, or an error about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// The host that sent it.
    pub(crate) from: IpAddr,
    kind: u8,
    code: u8,
    /// The sequence number of the request.
    pub(crate) sequence: u16,
    word: u32,
}

impl Message {
    /// Splits what was read into the message and the data of a reply. `None` if it is too short, or
    /// of a family that is not known.
    pub(crate) fn parse(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (head, data) = bytes.split_first_chunk::<HEAD>()?;
        let [f0, f1, _, _, _, _, _, _, rest @ ..] = *head;
        let (addr, rest) = rest.split_first_chunk::<16>()?;
        let &[kind, code, s0, s1, w0, w1, w2, w3] = rest else {
            return None;
        };
        let from = match (u16::from_ne_bytes([f0, f1]), addr) {
            (INET, &[a, b, c, d, ..]) => Ipv4Addr::new(a, b, c, d).into(),
            (INET6, addr) => Ipv6Addr::from(*addr).into(),
            _ => return None,
        };
        let message = Self {
            from,
            kind,
            code,
            sequence: u16::from_be_bytes([s0, s1]),
            word: u32::from_be_bytes([w0, w1, w2, w3]),
        };
        Some((message, data))
    }

    /// Whether it is a reply.
    pub(crate) fn is_reply(&self) -> bool {
        const REPLY: u8 = 0;
        const REPLY_V6: u8 = 129;

        self.kind == if self.from.is_ipv4() { REPLY } else { REPLY_V6 }
    }

    fn words_v4(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind, code, word, ..
        } = *self;
        match (kind, code) {
            (3, 0) => f.write_str("Destination Net Unreachable"),
            (3, 1) => f.write_str("Destination Host Unreachable"),
            (3, 2) => f.write_str("Destination Protocol Unreachable"),
            (3, 3) => f.write_str("Destination Port Unreachable"),
            (3, 4) => write!(f, "Frag needed and DF set (mtu = {})", word & 0xffff),
            (3, 5) => f.write_str("Source Route Failed"),
            (3, 6) => f.write_str("Destination Net Unknown"),
            (3, 7) => f.write_str("Destination Host Unknown"),
            (3, 8) => f.write_str("Source Host Isolated"),
            (3, 9) => f.write_str("Destination Net Prohibited"),
            (3, 10) => f.write_str("Destination Host Prohibited"),
            (3, 11) => f.write_str("Destination Net Unreachable for Type of Service"),
            (3, 12) => f.write_str("Destination Host Unreachable for Type of Service"),
            (3, 13) => f.write_str("Packet filtered"),
            (3, 14) => f.write_str("Precedence Violation"),
            (3, 15) => f.write_str("Precedence Cutoff"),
            (3, code) => write!(f, "Dest Unreachable, Bad Code: {code}"),
            (11, 0) => f.write_str("Time to live exceeded"),
            (11, 1) => f.write_str("Frag reassembly time exceeded"),
            (11, code) => write!(f, "Time exceeded, Bad Code: {code}"),
            (12, _) => write!(f, "Parameter problem: pointer = {}", word >> 24),
            (kind, _) => write!(f, "Bad ICMP type: {kind}"),
        }
    }

    fn words_v6(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind, code, word, ..
        } = *self;
        match (kind, code) {
            (1, 0) => f.write_str("Destination unreachable: No route"),
            (1, 1) => f.write_str("Destination unreachable: Administratively prohibited"),
            (1, 2) => f.write_str("Destination unreachable: Beyond scope of source address"),
            (1, 3) => f.write_str("Destination unreachable: Address unreachable"),
            (1, 4) => f.write_str("Destination unreachable: Port unreachable"),
            (1, code) => write!(f, "Destination unreachable: Unknown code {code}"),
            (2, _) => write!(f, "Packet too big: mtu={word}"),
            (3, 0) => f.write_str("Time exceeded: Hop limit"),
            (3, 1) => f.write_str("Time exceeded: Defragmentation failure"),
            (3, code) => write!(f, "Time exceeded: code {code}"),
            (4, 0) => write!(f, "Parameter problem: Wrong header field at {word}"),
            (4, 1) => write!(f, "Parameter problem: Unknown header at {word}"),
            (4, 2) => write!(f, "Parameter problem: Unknown option at {word}"),
            (4, code) => write!(f, "Parameter problem: code {code} at {word}"),
            (kind, _) => write!(f, "Unknown icmp type: {kind}"),
        }
    }
}

/// What an error says.
impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.from {
            IpAddr::V4(_) => self.words_v4(f),
            IpAddr::V6(_) => self.words_v6(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(from: IpAddr, said: [u8; 8]) -> Vec<u8> {
        let mut bytes = vec![0; 8];
        let family = if from.is_ipv4() { INET } else { INET6 };
        bytes[..2].copy_from_slice(&family.to_ne_bytes());
        match from {
            IpAddr::V4(from) => bytes.extend([&from.octets()[..], &[0; 12]].concat()),
            IpAddr::V6(from) => bytes.extend(from.octets()),
        }
        bytes.extend(said);
        bytes
    }

    #[test]
    fn what_is_read_is_who_said_what() {
        for (from, said, words) in [
            (
                "10.9.0.1",
                [3, 1, 1, 2, 0, 0, 0, 0],
                "Destination Host Unreachable",
            ),
            (
                "10.9.0.9",
                [3, 4, 1, 2, 0, 0, 5, 0],
                "Frag needed and DF set (mtu = 1280)",
            ),
            (
                "10.9.0.9",
                [11, 0, 1, 2, 0, 0, 0, 0],
                "Time to live exceeded",
            ),
            (
                "fd09::1",
                [1, 3, 1, 2, 0, 0, 0, 0],
                "Destination unreachable: Address unreachable",
            ),
            (
                "fd09::9",
                [2, 0, 1, 2, 0, 0, 5, 0],
                "Packet too big: mtu=1280",
            ),
            (
                "fd09::9",
                [3, 0, 1, 2, 0, 0, 0, 0],
                "Time exceeded: Hop limit",
            ),
        ] {
            let from = from.parse().unwrap();
            let bytes = bytes(from, said);
            let (message, data) = Message::parse(&bytes).unwrap();
            assert_eq!((message.from, message.sequence), (from, 0x0102));
            assert!(!message.is_reply() && data.is_empty());
            assert_eq!(message.to_string(), words);
            for len in 0..bytes.len() {
                assert_eq!(Message::parse(&bytes[..len]), None);
            }
        }
        for (from, kind) in [("10.9.0.1", 0), ("fd09::1", 129)] {
            let mut bytes = bytes(from.parse().unwrap(), [kind, 0, 0, 7, 0, 0, 0, 0]);
            bytes.extend(b"data");
            let (message, data) = Message::parse(&bytes).unwrap();
            assert!(message.is_reply() && data == b"data" && message.sequence == 7);
        }
        assert_eq!(Message::parse(&[9; HEAD]), None);
    }

    #[test]
    fn there_are_words_for_every_message() {
        for from in ["10.9.0.1", "fd09::1"] {
            for kind in 0..=255 {
                for code in 0..=255 {
                    let bytes = bytes(from.parse().unwrap(), [kind, code, 0, 0, 9, 9, 9, 9]);
                    let (message, _) = Message::parse(&bytes).unwrap();
                    assert!(!message.to_string().is_empty());
                }
            }
        }
    }
}

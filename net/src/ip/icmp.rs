//! ICMP for both families: echo replies, errors about packets, and what others send us about ours.
//!
//! Errors follow RFC 1122 section 3.2.2 and RFC 4443 section 2.4. None is sent about an error, a
//! multicast or broadcast, a fragment other than the first (but for its fragment header), or a
//! packet whose source is not a host. Their rate is limited.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::header::{
    Addressee, IPV4_HEADER, IPV6_HEADER, addresses, is_later_fragment, payload_of, proto,
};
use super::options;
use super::reassembly::First;
use super::redirect::Redirect;
use super::{Delivery, IcmpError, Ip, Quoted, Received, Verdict, checksum};
use crate::ifnet::{DropReason, IfIndex, is_host};
use crate::packet::Packet;

const ECHO_REPLY_V4: u8 = 0;
const UNREACHABLE_V4: u8 = 3;
const REDIRECT_V4: u8 = 5;
const ECHO_REQUEST_V4: u8 = 8;
const TIME_EXCEEDED_V4: u8 = 11;
const PARAMETER_V4: u8 = 12;
const UNREACHABLE_V6: u8 = 1;
const TOO_BIG_V6: u8 = 2;
const TIME_EXCEEDED_V6: u8 = 3;
const PARAMETER_V6: u8 = 4;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
const MLD_QUERY: u8 = 130;
const MLD_REPORT: u8 = 131;
pub(crate) const REDIRECT_V6: u8 = 137;
const ROUTER_SOLICITATION: u8 = 133;

/// Bytes of an ICMP header.
const HEADER: usize = 8;
/// Longest ICMPv4 error (RFC 1812 section 4.3.2.3).
const LONGEST_V4: usize = 576;
/// Longest ICMPv6 error (RFC 4443 section 2.4 (c)).
const LONGEST_V6: usize = 1280;

/// The problem with a packet that an error reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// No socket on the port.
    Port,
    /// No such protocol; its number is at offset `pointer` (reported by IPv6 only).
    Protocol { pointer: u32 },
    /// No route.
    NoRoute,
    /// The last router cannot reach the host.
    Host,
    /// Larger than the mtu of the next link, and it may not be fragmented.
    TooBig { mtu: u16 },
    /// Its hop limit is used up.
    HopLimit,
    /// Its other fragments did not arrive in time.
    Reassembly,
    /// A header field, at offset `pointer`, is invalid.
    Parameter { code: u8, pointer: u32 },
}

impl Problem {
    /// Type, code and the second word of the message.
    const fn message(self, ipv6: bool) -> (u8, u8, [u8; 4]) {
        const NONE: [u8; 4] = [0; 4];
        match (self, ipv6) {
            (Self::Port, false) => (UNREACHABLE_V4, 3, NONE),
            (Self::Port, true) => (UNREACHABLE_V6, 4, NONE),
            (Self::Protocol { .. }, false) => (UNREACHABLE_V4, 2, NONE),
            (Self::Protocol { pointer }, true) => (PARAMETER_V6, 1, pointer.to_be_bytes()),
            (Self::NoRoute, false) => (UNREACHABLE_V4, 0, NONE),
            (Self::NoRoute, true) => (UNREACHABLE_V6, 0, NONE),
            (Self::Host, false) => (UNREACHABLE_V4, 1, NONE),
            (Self::Host, true) => (UNREACHABLE_V6, 3, NONE),
            // RFC 1191 section 4: the mtu is in the lower half.
            (Self::TooBig { mtu }, false) => (UNREACHABLE_V4, 4, (mtu as u32).to_be_bytes()),
            (Self::TooBig { mtu }, true) => (TOO_BIG_V6, 0, (mtu as u32).to_be_bytes()),
            (Self::HopLimit, false) => (TIME_EXCEEDED_V4, 0, NONE),
            (Self::HopLimit, true) => (TIME_EXCEEDED_V6, 0, NONE),
            (Self::Reassembly, false) => (TIME_EXCEEDED_V4, 1, NONE),
            (Self::Reassembly, true) => (TIME_EXCEEDED_V6, 1, NONE),
            (Self::Parameter { pointer, .. }, false) => (PARAMETER_V4, 0, [pointer as u8, 0, 0, 0]),
            (Self::Parameter { code, pointer }, true) => {
                (PARAMETER_V6, code, pointer.to_be_bytes())
            }
        }
    }
}

/// Limits how many errors this host sends. No destination can take the share of the others, and the
/// path mtu, without which a path is a black hole, has an allowance of its own.
#[derive(Debug)]
pub(crate) struct RateLimit {
    too_big: Allowance,
    others: Allowance,
    hasher: ahash::RandomState,
}

/// The errors of one kind: those to all destinations, and those to the destinations with one hash.
#[derive(Debug)]
struct Allowance {
    all: Bucket,
    shares: Vec<Bucket>,
}

/// A token bucket, with one token for each error.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: u32,
    filled: Duration,
}

impl RateLimit {
    pub(crate) fn new(hasher: ahash::RandomState) -> Self {
        Self {
            too_big: Allowance::full(),
            others: Allowance::full(),
            hasher,
        }
    }

    /// Whether an error of this kind may be sent now.
    fn take(&mut self, problem: Problem, dst: &IpAddr, now: Duration) -> bool {
        let hash = self.hasher.hash_one(dst) as usize;
        match problem {
            Problem::TooBig { .. } => self.too_big.take(hash, now),
            _ => self.others.take(hash, now),
        }
    }
}

impl Allowance {
    /// To all: a thousand a second, 200 at once.
    const ALL: (u32, Duration) = (200, Duration::from_millis(1));
    /// To each: a quarter of it.
    const SHARE: (u32, Duration) = (50, Duration::from_millis(4));
    /// Number of shares. Destinations with one hash have a share in common.
    const SHARES: usize = 256;

    fn full() -> Self {
        let full = |(burst, _): (u32, Duration)| Bucket {
            tokens: burst,
            filled: Duration::ZERO,
        };
        Self {
            all: full(Self::ALL),
            shares: vec![full(Self::SHARE); Self::SHARES],
        }
    }

    fn take(&mut self, hash: usize, now: Duration) -> bool {
        let share = &mut self.shares[hash % Self::SHARES];
        share.take(Self::SHARE, now) && self.all.take(Self::ALL, now)
    }
}

impl Bucket {
    /// Takes a token of `burst`, of which one more comes each `period`.
    fn take(&mut self, (burst, period): (u32, Duration), now: Duration) -> bool {
        let periods = now.saturating_sub(self.filled).as_nanos() / period.as_nanos();
        if periods > 0 {
            let more = u32::try_from(periods).unwrap_or(u32::MAX);
            self.tokens = self.tokens.saturating_add(more).min(burst);
            self.filled = now;
        }
        let left = self.tokens.checked_sub(1);
        self.tokens = left.unwrap_or(0);
        left.is_some()
    }
}

/// The meaning of an error about a packet of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// The mtu of the path in bytes; 0 if the router did not say it.
    Narrow(u16),
    /// The destination refuses it: no such port or protocol, or it is forbidden.
    Refused,
    /// The destination cannot be reached.
    Unreachable,
    /// The packet was lost on the way, by its hop limit or for something in its header. The next one
    /// may arrive: the error is a soft one (RFC 1122 section 4.2.3.9).
    Lost,
}

/// An ICMP message, and who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) by: IpAddr,
    /// The type.
    pub(crate) kind: u8,
    pub(crate) code: u8,
    /// The second word: an mtu or a pointer.
    pub(crate) word: [u8; 4],
}

/// Whether a message of ICMP version 6 belongs to neighbour discovery (RFC 4861 section 4).
pub(super) fn is_nd(kind: u8) -> bool {
    (ROUTER_SOLICITATION..=REDIRECT_V6).contains(&kind)
}

impl Ip {
    /// Sends an error to the sender of `packet`, which came by `rcvif`, if the rules allow it.
    pub(crate) fn icmp_error(&mut self, rcvif: IfIndex, packet: &[u8], problem: Problem) {
        let Some((src, dst)) = addresses(packet) else {
            return;
        };
        if !self.may_report(packet, &src, &dst, problem) {
            return;
        }
        // What this host tells itself costs nobody anything.
        let now = self.now.monotonic;
        if !self.is_loopback(rcvif) && !self.rate_limit.take(problem, &src, now) {
            return;
        }
        let ipv6 = src.is_ipv6();
        let (kind, code, word) = problem.message(ipv6);
        let room = if ipv6 {
            LONGEST_V6 - IPV6_HEADER - HEADER
        } else {
            LONGEST_V4 - IPV4_HEADER - HEADER
        };
        let mut head = [kind, code, 0, 0, 0, 0, 0, 0];
        head[4..].copy_from_slice(&word);
        let quote = &packet[..packet.len().min(room)];
        let own = self.ifs.is_local_on(&dst, rcvif).then_some(dst);
        self.icmp_send(rcvif, own, src, &[], Packet::concat(&head, quote));
    }

    /// The error about a datagram whose fragments did not all come (RFC 8200 section 4.5).
    pub(crate) fn icmp_reassembly_timeout(&mut self, first: &First) {
        self.icmp_error(first.rcvif, &first.packet, Problem::Reassembly);
    }

    /// Tells the sender of a packet that we forwarded that its destination does not answer.
    pub(crate) fn icmp_unreachable_host(&mut self, dev: IfIndex, packet: &[u8]) {
        let from_us = addresses(packet).is_none_or(|(src, _)| self.ifs.is_local(&src));
        if !from_us {
            self.icmp_error(dev, packet, Problem::Host);
        }
    }

    fn may_report(&self, packet: &[u8], src: &IpAddr, dst: &IpAddr, problem: Problem) -> bool {
        let unicast_dst = match dst {
            IpAddr::V4(v4) => is_host(dst) && !self.ifs.is_broadcast(v4),
            IpAddr::V6(_) => !dst.is_multicast(),
        };
        let is_parameter = matches!(problem, Problem::Parameter { .. });
        // RFC 4443 section 2.4 (e.3): these two may be about a multicast.
        let about_multicast = src.is_ipv6()
            && matches!(
                problem,
                Problem::TooBig { .. } | Problem::Parameter { code: 2, .. }
            );
        let one_sender = match src {
            IpAddr::V4(v4) => is_host(src) && !self.ifs.is_broadcast(v4),
            IpAddr::V6(_) => is_host(src),
        };
        let (protocol, at) = match payload_of(packet) {
            Some(payload) => payload,
            // The fields of a fragment other than the first (RFC 8200 section 4.5).
            None if is_parameter && is_later_fragment(packet) => (proto::NO_NEXT, 0),
            None => return false,
        };
        let about_error = match (protocol, packet.get(at)) {
            (proto::ICMP, Some(kind)) => matches!(
                *kind,
                UNREACHABLE_V4 | 4 | REDIRECT_V4 | TIME_EXCEEDED_V4 | PARAMETER_V4
            ),
            (proto::ICMPV6, Some(kind)) => *kind < 128 || *kind == REDIRECT_V6,
            // Its type is cut off, so it may be an error.
            (proto::ICMP | proto::ICMPV6, None) => true,
            _ => false,
        };
        one_sender && (unicast_dst || about_multicast) && !about_error
    }

    /// Sends an ICMP message whose checksum is still zero. `options` are those of an IPv4 header.
    fn icmp_send(
        &mut self,
        dev: IfIndex,
        own: Option<IpAddr>,
        dst: IpAddr,
        options: &[u8],
        mut message: Packet,
    ) {
        let Ok(path) = self.route_back(dev, own, &dst, None) else {
            return;
        };
        let Some(src) = own.or(path.src) else {
            return;
        };
        let (protocol, sum) = if dst.is_ipv4() {
            (proto::ICMP, checksum::fill_plain(&message))
        } else {
            let sum = checksum::fill(&src, &dst, proto::ICMPV6, &message);
            (proto::ICMPV6, sum)
        };
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        // A packet that finds the queue full is counted there.
        let _ = match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) if !options.is_empty() => {
                self.ip_output_options(path, src, dst, protocol, options, message)
            }
            _ => self.ip_output(path, src, dst, protocol, path.hops, message),
        };
    }

    pub(super) fn icmp_input(&mut self, received: Received) -> Delivery {
        let &[kind, code, _, _, a, b, high, low, ref quote @ ..] = received.payload() else {
            return Delivery::Settled(Verdict::Dropped(DropReason::Malformed));
        };
        match kind {
            // A redirect for a network is as good as one for the host (RFC 1122 section 3.2.2.2).
            REDIRECT_V4 if code < 4 && received.header.addressee == Addressee::Host => {
                match self.parse_quote(received.rcvif, quote) {
                    Ok(quoted) => {
                        let redirect = Redirect {
                            rcvif: received.rcvif,
                            from: received.header.src,
                            dst: quoted.endpoints.remote.0,
                            to: Ipv4Addr::new(a, b, high, low).into(),
                        };
                        Delivery::Redirect(quoted, redirect)
                    }
                    Err(reason) => Delivery::Settled(Verdict::Dropped(reason)),
                }
            }
            // RFC 1122 section 3.2.2.6 allows a host to ignore requests to a broadcast, which is
            // safer.
            ECHO_REQUEST_V4 if received.header.addressee == Addressee::Host => {
                self.echo_reply(received, ECHO_REPLY_V4)
            }
            ECHO_REPLY_V4 => Delivery::EchoReply(received),
            UNREACHABLE_V4 => {
                let notice = match code {
                    4 => Notice::Narrow(u16::from_be_bytes([high, low])),
                    2 | 3 | 9 | 10 | 13 => Notice::Refused,
                    _ => Notice::Unreachable,
                };
                self.quoted(&received, notice)
            }
            TIME_EXCEEDED_V4 | PARAMETER_V4 => self.quoted(&received, Notice::Lost),
            _ => Delivery::Settled(Verdict::Dropped(DropReason::NotWanted)),
        }
    }

    pub(super) fn icmp6_input(&mut self, received: Received) -> Delivery {
        let &[kind, code, _, _, a, b, c, d, ..] = received.payload() else {
            return Delivery::Settled(Verdict::Dropped(DropReason::Malformed));
        };
        match kind {
            ECHO_REQUEST_V6 => self.echo_reply(received, ECHO_REPLY_V6),
            ECHO_REPLY_V6 => Delivery::EchoReply(received),
            TOO_BIG_V6 => {
                let mtu = u32::from_be_bytes([a, b, c, d]);
                let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
                self.quoted(&received, Notice::Narrow(mtu))
            }
            UNREACHABLE_V6 => {
                let notice = match code {
                    1 | 4 => Notice::Refused,
                    _ => Notice::Unreachable,
                };
                self.quoted(&received, notice)
            }
            TIME_EXCEEDED_V6 | PARAMETER_V6 => self.quoted(&received, Notice::Lost),
            MLD_QUERY | MLD_REPORT => Delivery::Settled(self.mld_input(&received)),
            _ if is_nd(kind) => Delivery::Neighbour(received),
            _ => Delivery::Settled(Verdict::Dropped(DropReason::NotWanted)),
        }
    }

    /// Turns the request into its reply, as BSD's `icmp_reflect` does.
    fn echo_reply(&mut self, received: Received, kind: u8) -> Delivery {
        let Received {
            rcvif,
            header,
            packet: mut reply,
        } = received;
        let mut options = Vec::new();
        if let IpAddr::V4(own) = header.dst
            && header.payload > IPV4_HEADER
        {
            let is_ours = |addr: Ipv4Addr| self.ifs.is_local(&addr.into());
            let received = &mut reply[IPV4_HEADER..header.payload];
            if let Err(refused) = options::fill_in(received, own, is_ours, self.now.wall) {
                self.refuse_options(rcvif, &reply, refused);
                return Delivery::Settled(Verdict::Dropped(DropReason::BadOption));
            }
            options = options::of_reply(received);
        }
        reply.strip(header.payload);
        reply[0] = kind;
        reply[2..4].fill(0);
        // From the address that was asked; for a group, from one of the interface.
        let own = (header.addressee == Addressee::Host).then_some(header.dst);
        self.icmp_send(rcvif, own, header.src, &options, reply);
        Delivery::Settled(Verdict::Delivered)
    }

    /// Notes that the driver of an interface could not reach the host that a packet of ours was for,
    /// without an ICMP message: this host says so.
    pub(crate) fn notice_unreachable(&mut self, dev: IfIndex, packet: &[u8]) {
        let Some((by, _)) = addresses(packet) else {
            return;
        };
        let (kind, code, word) = Problem::Host.message(by.is_ipv6());
        let said = Said {
            by,
            kind,
            code,
            word,
        };
        if let Ok(quoted) = self.parse_quote(dev, packet) {
            self.notices.push_back(IcmpError {
                quoted,
                notice: Notice::Unreachable,
                said,
            });
        }
    }

    /// What a message, which quotes a packet behind its header, says of that packet.
    fn quoted(&self, received: &Received, notice: Notice) -> Delivery {
        let Some((&[kind, code, _, _, a, b, c, d], quote)) = received.payload().split_first_chunk()
        else {
            return Delivery::Settled(Verdict::Dropped(DropReason::Malformed));
        };
        let said = Said {
            by: received.header.src,
            kind,
            code,
            word: [a, b, c, d],
        };
        match self.parse_quote(received.rcvif, quote) {
            Ok(quoted) => Delivery::Notice(IcmpError {
                quoted,
                notice,
                said,
            }),
            Err(reason) => Delivery::Settled(Verdict::Dropped(reason)),
        }
    }

    /// Parses the packet of ours that a message, which came by an interface, is about; `quote` is
    /// its beginning. The transport that may have sent the packet decides whether to accept the
    /// message: only if there is such a connection, or if a datagram or echo request was sent there
    /// recently (RFC 8201 section 6). RFC 5927 section 4.1 would also check the quoted sequence
    /// number.
    fn parse_quote(&self, dev: IfIndex, quote: &[u8]) -> Result<Quoted, DropReason> {
        let (src, dst) = addresses(quote).ok_or(DropReason::Malformed)?;
        let (protocol, at) = payload_of(quote).ok_or(DropReason::NotWanted)?;
        let payload = quote.get(at..).unwrap_or_default();
        let &[a, b, c, d] = payload.first_chunk().ok_or(DropReason::NotWanted)?;
        if !self.ifs.is_local(&src) {
            return Err(DropReason::NotWanted);
        }
        let requests = match protocol {
            proto::ICMP => a == ECHO_REQUEST_V4,
            proto::ICMPV6 => a == ECHO_REQUEST_V6,
            _ => false,
        };
        let echo = payload.get(4..).and_then(|rest| rest.first_chunk::<4>());
        Ok(Quoted {
            protocol,
            endpoints: self.endpoints(
                (src, u16::from_be_bytes([a, b])),
                (dst, u16::from_be_bytes([c, d])),
                dev,
            ),
            dev,
            echo: echo
                .filter(|_| requests)
                .map(|&[a, b, c, d]| (u16::from_be_bytes([a, b]), [c, d])),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_destination_has_a_share_of_each_kind() {
        let mut limit = RateLimit::new(ahash::RandomState::with_seeds(1, 2, 3, 4));
        let start = Duration::from_secs(5);
        let [flood, honest] = [[10, 9, 0, 66], [10, 9, 0, 2]].map(IpAddr::from);
        let mut taken = |problem, dst: &IpAddr, times: u32, now| {
            (0..times).filter(|_| limit.take(problem, dst, now)).count()
        };
        let mtu = Problem::TooBig { mtu: 1280 };
        assert_eq!(taken(Problem::Port, &flood, 10_000, start), 50);
        assert_eq!(taken(Problem::Port, &honest, 41, start), 41);
        assert_eq!(taken(mtu, &flood, 41, start), 41);
        assert_eq!(taken(mtu, &honest, 41, start), 41);
        // All together get no more than they would from one bucket.
        let later = start + Duration::from_secs(60);
        assert_eq!(taken(Problem::Port, &flood, 10_000, later), 50);
        let soon = later + Duration::from_millis(4);
        assert_eq!(taken(Problem::Port, &flood, 10, soon), 1);
        let others = (0..60_000_u32).map(|host| IpAddr::V4((0x0b00_0000 + host).into()));
        let all: usize = others.map(|dst| taken(Problem::Port, &dst, 1, soon)).sum();
        assert!(all < 200, "{all}");
    }
}

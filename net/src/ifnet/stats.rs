//! Counters of an interface, and the ledger in which they must balance.
//!
//! Every packet is in exactly one place. For the input of an interface, `offered = delivered +
//! forwarded + queued + dropped`; for its output `offered = delivered + queued + dropped`, where a
//! frame that was handed to a reader counts as queued until its delivery is confirmed.
//! [`IfStats::input`] and [`IfStats::output`] return these numbers.

use std::time::Duration;

use super::Drops;
use crate::memory::Pool;

/// Why a packet was dropped. Each has its own counter in `ifaces/IF/stats`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum DropReason {
    /// In: written with an unsupported address family (the writer got `EAFNOSUPPORT`).
    UnknownFamily,
    /// In: netisr's queue was full, or that of the program that registered for the family.
    NetisrFull,
    /// In: not a packet: too short, wrong version, lengths that do not add up.
    Malformed,
    /// In: a checksum is wrong, of IP, TCP, UDP or ICMP.
    BadChecksum,
    /// In: a source that no host can have (RFC 1122 section 3.2.1.3), or one of our own.
    BadSource,
    /// In: a destination that must not appear on the wire, or not in a frame for many stations.
    BadDestination,
    /// In: an option or extension header we refuse: source routes, unknown ones marked so.
    BadOption,
    /// In: for another host, and forwarding is off.
    NotForUs,
    /// In: for a group that the interface has not joined.
    NotMember,
    /// In: no such protocol above IP.
    NoProtocol,
    /// In: no socket on that UDP or TCP port.
    NoPort,
    /// In: for a connection or socket that does not accept it.
    NotWanted,
    /// In: the queue of every socket it was for is full.
    SocketFull,
    /// In: a SYN for a listener whose backlog is full.
    BacklogFull,
    /// In: a SYN that would exceed the memory for connections.
    NoMemory,
    /// In: fragments of a datagram whose other fragments did not arrive in time.
    FragmentTimeout,
    /// In: fragments that overlap or contradict each other (RFC 5722), and duplicates of one that
    /// is held.
    FragmentOverlap,
    /// In: fragments evicted to make room for others.
    FragmentLimit,
    /// In: hop limit used up.
    TtlExceeded,
    /// In: to be forwarded, but there is no route.
    NoRoute,
    /// In: to be forwarded, and its destination is declared unreachable.
    Unreachable,
    /// In: to be forwarded over an interface that is down, not open, or without the family.
    NetDown,
    /// In: to be forwarded, too big, and may not be fragmented.
    TooBig,
    /// Both: IPv6 on an interface with an mtu below 1280.
    NoIpv6,
    /// Out: the tun device is not open (`EHOSTDOWN`).
    NotOpen,
    /// Out: a family that the header mode cannot carry (`EAFNOSUPPORT`).
    FamilyRefused,
    /// Out: the send queue was full (`ENOBUFS`).
    QueueFull,
    /// Out: CoDel dropped it, because packets waited for too long.
    Codel,
    /// Both: the reader's buffer was shorter than the packet.
    Truncated,
    /// Both: still queued at the last close.
    Purged,
    /// Out: the neighbour does not answer, or too many packets wait for one.
    NoNeighbor,
    /// Out: the driver of the adapter had no room for the frame, or refused it, as it does with one
    /// that is too long for its link.
    Refused,
    /// In: the driver of the adapter had no room for the frame, or could not hand it out.
    Missed,
    /// In: a redirect that is not from the first hop in use, or names none that can be (RFC 4861
    /// section 8.1, RFC 1122 section 3.2.2.2).
    RedirectRefused,
}

impl DropReason {
    /// Every reason, in the order in which `stats` shows them.
    pub const ALL: [Self; 34] = [
        Self::UnknownFamily,
        Self::NetisrFull,
        Self::Malformed,
        Self::BadChecksum,
        Self::BadSource,
        Self::BadDestination,
        Self::BadOption,
        Self::NotForUs,
        Self::NotMember,
        Self::NoProtocol,
        Self::NoPort,
        Self::NotWanted,
        Self::SocketFull,
        Self::BacklogFull,
        Self::NoMemory,
        Self::FragmentTimeout,
        Self::FragmentOverlap,
        Self::FragmentLimit,
        Self::TtlExceeded,
        Self::NoRoute,
        Self::Unreachable,
        Self::NetDown,
        Self::TooBig,
        Self::NoIpv6,
        Self::NotOpen,
        Self::FamilyRefused,
        Self::QueueFull,
        Self::Codel,
        Self::Truncated,
        Self::Purged,
        Self::NoNeighbor,
        Self::Refused,
        Self::Missed,
        Self::RedirectRefused,
    ];

    /// The name in `stats`, behind `drop.`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnknownFamily => "unknown_family",
            Self::NetisrFull => "netisr_full",
            Self::Malformed => "malformed",
            Self::BadChecksum => "bad_checksum",
            Self::BadSource => "bad_source",
            Self::BadDestination => "bad_destination",
            Self::BadOption => "bad_option",
            Self::NotForUs => "not_for_us",
            Self::NotMember => "not_member",
            Self::NoProtocol => "no_protocol",
            Self::NoPort => "no_port",
            Self::NotWanted => "not_wanted",
            Self::SocketFull => "socket_full",
            Self::BacklogFull => "backlog_full",
            Self::NoMemory => "no_memory",
            Self::FragmentTimeout => "fragment_timeout",
            Self::FragmentOverlap => "fragment_overlap",
            Self::FragmentLimit => "fragment_limit",
            Self::TtlExceeded => "ttl_exceeded",
            Self::NoRoute => "no_route",
            Self::Unreachable => "unreachable",
            Self::NetDown => "net_down",
            Self::TooBig => "too_big",
            Self::NoIpv6 => "no_ipv6",
            Self::NotOpen => "not_open",
            Self::FamilyRefused => "family_refused",
            Self::QueueFull => "queue_full",
            Self::Codel => "codel",
            Self::Truncated => "truncated",
            Self::Purged => "purged",
            Self::NoNeighbor => "no_neighbor",
            Self::Refused => "refused",
            Self::Missed => "missed",
            Self::RedirectRefused => "redirect_refused",
        }
    }
}

/// One direction of the ledger, in packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Came to the interface, to be received or sent.
    pub offered: u64,
    /// Reached a socket, a protocol or a reader.
    pub delivered: u64,
    /// Went on to another interface.
    pub forwarded: u64,
    /// Is still here: queued, or a fragment that waits for the others.
    pub queued: u64,
    /// Dropped, for all reasons together.
    pub dropped: u64,
}

impl Ledger {
    /// Whether the ledger balances: every packet is in exactly one place.
    pub fn closes(&self) -> bool {
        self.offered == self.delivered + self.forwarded + self.queued + self.dropped
    }
}

/// The counters of an interface. Bytes are those of packets, link headers not included.
#[derive(Clone, Debug)]
pub struct IfStats {
    /// Packets received from the wire, unsupported address families not included.
    pub ipackets: u64,
    /// Their bytes.
    pub ibytes: u64,
    /// Packets from the wire that were broken.
    pub ierrors: u64,
    /// Packets that netisr's queue had no room for.
    pub iqdrops: u64,
    /// Packets put on the send queue.
    pub opackets: u64,
    /// Their bytes.
    pub obytes: u64,
    /// Packets that could not be sent for a reason other than a full queue.
    pub oerrors: u64,
    /// Packets that the send queue had no room for.
    pub odrops: u64,
    /// The same number, under the name by which DragonFly's driver counts it.
    pub collisions: u64,
    /// The time of the last change between up and down, since 1970; zero for never.
    pub lastchange: Duration,
    /// Packets that CoDel marked instead of dropping them.
    pub marked: u64,
    pub(crate) input: Ledger,
    pub(crate) output: Ledger,
    drops: [u64; DropReason::ALL.len()],
    /// The packets that were dropped lately; `None` while nobody watches.
    pub(super) watched: Option<Box<Drops>>,
}

impl Default for IfStats {
    fn default() -> Self {
        Self {
            ipackets: 0,
            ibytes: 0,
            ierrors: 0,
            iqdrops: 0,
            opackets: 0,
            obytes: 0,
            oerrors: 0,
            odrops: 0,
            collisions: 0,
            lastchange: Duration::ZERO,
            marked: 0,
            input: Ledger::default(),
            output: Ledger::default(),
            drops: [0; DropReason::ALL.len()],
            watched: None,
        }
    }
}

impl IfStats {
    /// Zeros. With `drops`, packets that are dropped are kept for those who watch, in that memory.
    pub(super) fn new(drops: Option<&Pool>) -> Self {
        Self {
            watched: drops.map(|drops| Box::new(Drops::new(drops))),
            ..Self::default()
        }
    }

    /// The number of packets dropped for this reason.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// The ledger of the packets from the wire.
    pub fn input(&self) -> Ledger {
        self.input
    }

    /// The ledger of the packets to the wire.
    pub fn output(&self) -> Ledger {
        self.output
    }

    /// Counts packets that came in and were dropped.
    pub(crate) fn drop_input(&mut self, reason: DropReason, packets: u64) {
        self.drops[reason as usize] += packets;
        self.input.dropped += packets;
        match reason {
            DropReason::NetisrFull | DropReason::Missed => self.iqdrops += packets,
            DropReason::UnknownFamily
            | DropReason::Malformed
            | DropReason::BadChecksum
            | DropReason::BadSource
            | DropReason::BadDestination
            | DropReason::BadOption
            | DropReason::FragmentOverlap => self.ierrors += packets,
            _ => {}
        }
    }

    /// Counts packets that were to go out and were dropped.
    pub(crate) fn drop_output(&mut self, reason: DropReason, packets: u64) {
        self.drops[reason as usize] += packets;
        self.output.dropped += packets;
        match reason {
            DropReason::QueueFull => {
                self.odrops += packets;
                self.collisions += packets;
            }
            DropReason::NotOpen
            | DropReason::FamilyRefused
            | DropReason::NoIpv6
            | DropReason::NoNeighbor => {
                self.oerrors += packets;
            }
            _ => {}
        }
    }

    /// The first lines of `ifaces/IF/stats`, which do not depend on the send queue.
    pub fn render(&self) -> String {
        use std::fmt::Write;

        let counters = [
            ("ipackets", self.ipackets),
            ("ibytes", self.ibytes),
            ("ierrors", self.ierrors),
            ("iqdrops", self.iqdrops),
            ("opackets", self.opackets),
            ("obytes", self.obytes),
            ("oerrors", self.oerrors),
            ("odrops", self.odrops),
            ("collisions", self.collisions),
            ("lastchange", self.lastchange.as_secs()),
        ];
        let mut text = String::with_capacity(1024);
        for (name, value) in counters {
            let _ = writeln!(text, "{name} {value}");
        }
        for reason in DropReason::ALL {
            let _ = writeln!(text, "drop.{} {}", reason.name(), self.drops(reason));
        }
        text
    }

    /// The text of `ifaces/IF/ledger`.
    pub fn render_ledger(&self) -> String {
        use std::fmt::Write;

        let mut text = String::with_capacity(256);
        for (name, ledger) in [("in", self.input), ("out", self.output)] {
            let Ledger {
                offered,
                delivered,
                forwarded,
                queued,
                dropped,
            } = ledger;
            let _ = writeln!(
                text,
                "{name}.offered {offered}\n{name}.delivered {delivered}\n\
                 {name}.forwarded {forwarded}\n{name}.queued {queued}\n{name}.dropped {dropped}"
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_place_and_a_name_of_its_own() {
        for (at, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
        }
        let names: std::collections::BTreeSet<_> =
            DropReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), DropReason::ALL.len());
    }

    #[test]
    fn stats_begin_with_the_ten_counters() {
        let mut stats = IfStats::default();
        stats.drop_output(DropReason::QueueFull, 3);
        let text = stats.render();
        let names: Vec<_> = text
            .lines()
            .map(|line| line.split(' ').next().unwrap())
            .collect();
        assert_eq!(
            names[..10],
            [
                "ipackets",
                "ibytes",
                "ierrors",
                "iqdrops",
                "opackets",
                "obytes",
                "oerrors",
                "odrops",
                "collisions",
                "lastchange"
            ]
        );
        assert!(names[10..].iter().all(|name| name.starts_with("drop.")));
        assert!(text.contains("\nodrops 3\ncollisions 3\n"));
        assert!(text.contains("\ndrop.queue_full 3\n"));
    }
}

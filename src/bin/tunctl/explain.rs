//! The reasons for which packets are dropped, in words, and what to do.

/// What a reason means.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Explanation {
    /// The name in `stats`, behind `drop.`.
    pub(crate) reason: &'static str,
    /// What happened to the packet.
    pub(crate) means: &'static str,
    /// What a user can do.
    pub(crate) advice: &'static str,
}

const fn of(reason: &'static str, means: &'static str, advice: &'static str) -> Explanation {
    Explanation {
        reason,
        means,
        advice,
    }
}

/// Every reason.
pub(crate) const ALL: [Explanation; 34] = [
    of(
        "unknown_family",
        "In: a program wrote a packet of a family that nobody takes, and got EAFNOSUPPORT; or a frame was of no protocol that is spoken here.",
        "Check the family that the tunnel program puts in front of its packets; frames of foreign protocols are harmless.",
    ),
    of(
        "netisr_full",
        "In: packets came faster than they were worked off, and the input queue was full.",
        "The sender should slow down or the machine is too slow; look for a flood with `tunctl top` and `tunctl capture`.",
    ),
    of(
        "malformed",
        "In: it is no packet: too short, of a wrong version, or its lengths do not add up.",
        "Look at it with `tunctl capture --drops`; a tunnel program with a wrong header mode (TUNSIFHEAD) is the usual cause.",
    ),
    of(
        "bad_checksum",
        "In: a checksum of IP, TCP, UDP or ICMP is wrong.",
        "Something changes packets on their way, or the sender leaves checksums to a card that is not there: turn its checksum offload off.",
    ),
    of(
        "bad_source",
        "In: its source is an address that no host can have, or one of our own.",
        "Look for a second host with our address, a loop, or a forger.",
    ),
    of(
        "bad_destination",
        "In: its destination must not appear on a wire, or not in a frame for many stations.",
        "The sender is misconfigured; nothing has to be done here.",
    ),
    of(
        "bad_option",
        "In: it has an option or extension header that is refused, such as a source route.",
        "Nothing, unless you know the sender: source routes are refused for safety.",
    ),
    of(
        "not_for_us",
        "In: it is for another host, and forwarding is off.",
        "If this machine is to be a router: `tunctl forwarding on`. Else correct the sender's routes.",
    ),
    of(
        "not_member",
        "In: it is for a group that the interface has not joined.",
        "Nothing: other hosts want it. A program that should hear it has to join the group.",
    ),
    of(
        "no_protocol",
        "In: nobody here speaks the protocol above IP.",
        "Start the program that speaks it.",
    ),
    of(
        "no_port",
        "In: no program has that port open.",
        "Compare with `tunctl sockets -l`; start the program, or let it listen on the right address.",
    ),
    of(
        "not_wanted",
        "In: its connection or socket does not accept it: it is late, forged, or an answer that nobody waits for.",
        "Nothing, if there are few. Many may be what is left of programs that ended.",
    ),
    of(
        "socket_full",
        "In: the queue of every socket it was for is full, because the program does not read.",
        "Find the program with `tunctl sockets` (Recv-Q); let it read faster, or give it a larger receive buffer.",
    ),
    of(
        "backlog_full",
        "In: a connection was asked for while as many waited to be accepted as the program allows.",
        "The program accepts too slowly: see Recv-Q of its LISTEN line in `tunctl sockets`.",
    ),
    of(
        "no_memory",
        "In: a connection was asked for while connections took all the memory they may.",
        "Close connections; `tunctl sockets` shows who has so many.",
    ),
    of(
        "fragment_timeout",
        "In: other fragments of the datagram did not come in time.",
        "Fragments are lost on the way. Send smaller datagrams, or find the link that loses them.",
    ),
    of(
        "fragment_overlap",
        "In: fragments overlap or contradict each other, or one came twice.",
        "Few are copies that the network made. Many are an attack, or a broken sender.",
    ),
    of(
        "fragment_limit",
        "In: fragments made room for others: too many datagrams were incomplete.",
        "Send smaller datagrams; if one source sends them all, it is an attack.",
    ),
    of(
        "ttl_exceeded",
        "In: its hop limit was used up.",
        "A traceroute does this. Else look for a loop of routes between this machine and its neighbours.",
    ),
    of(
        "no_route",
        "In: it was to be forwarded, and no route leads there.",
        "Add a route: `tunctl route add PREFIX via ROUTER`.",
    ),
    of(
        "net_down",
        "In: it was to be forwarded over an interface that is down, not open, or without its family; or came while the interface was down.",
        "`tunctl up INTERFACE`, or start the program that serves the tunnel.",
    ),
    of(
        "too_big",
        "In: it was to be forwarded, is too big for the next link, and may not be cut up; its sender was told.",
        "Nothing, if senders listen to ICMP. Else raise the mtu of the link, or lower that of the senders.",
    ),
    of(
        "unreachable",
        "In: it was to be forwarded, and its route says that the destination is unreachable.",
        "This is what such a route is for. To let it pass: `tunctl route rm`.",
    ),
    of(
        "no_ipv6",
        "It is IPv6, and the interface's mtu is below 1280.",
        "`tunctl mtu INTERFACE 1280` or more.",
    ),
    of(
        "not_open",
        "Out: no program has the tun device open, or the adapter's driver is gone.",
        "Start the program that serves the tunnel; of an adapter, restart its driver.",
    ),
    of(
        "family_refused",
        "Out: the device cannot carry its family in the header mode that is set.",
        "Let the tunnel program set TUNSIFHEAD, which IPv6 needs, or remove IPv6 addresses and routes.",
    ),
    of(
        "queue_full",
        "Out: the send queue was full: packets were sent faster than they left.",
        "A fast sender does this all the time. If it hurts others, try `tunctl queue INTERFACE fq_codel`; else let the reader read faster.",
    ),
    of(
        "codel",
        "Out: it had waited too long in the queue, and its sender is to slow down.",
        "Nothing: this is how the queue keeps delay short.",
    ),
    of(
        "truncated",
        "Out: the reader's buffer was shorter than the packet.",
        "The tunnel program must read with a buffer of the interface's mtu and its header.",
    ),
    of(
        "purged",
        "Out: it was still queued when the device was closed or the adapter went.",
        "Nothing: nobody was left to take it.",
    ),
    of(
        "no_neighbor",
        "Out: its neighbour does not answer, or too many packets wait for one.",
        "Check the address, the cable, and that the next hop is on this link.",
    ),
    of(
        "missed",
        "In: frames came faster than they were taken from the driver, or from the packet socket, which had to let them go.",
        "The machine is too slow for what comes; look for a flood with `tunctl top` and `tunctl capture`.",
    ),
    of(
        "redirect_refused",
        "In: a redirect to another router did not come from the router in use, or named one that cannot be used; or this machine forwards, and so follows none.",
        "Nothing, if there are few: the router that sent it also forwards. Many may be forged; look at them with `tunctl capture --drops`.",
    ),
    of(
        "refused",
        "Out: the adapter's driver had no room for the frame, or found it too long.",
        "Lower the mtu to what the link carries; if it is not that, the driver is too slow.",
    ),
];

/// What is known of a reason.
pub(crate) fn of_reason(reason: &str) -> Option<&'static Explanation> {
    ALL.iter().find(|known| known.reason == reason)
}

#[cfg(test)]
mod tests {
    use net::ifnet::DropReason;

    use super::*;

    #[test]
    fn every_reason_is_explained_once() {
        for reason in DropReason::ALL {
            let name = reason.name();
            let known = ALL.iter().filter(|known| known.reason == name);
            assert_eq!(known.count(), 1, "{name}");
        }
        for Explanation {
            reason,
            means,
            advice,
        } in ALL
        {
            assert!(means.ends_with('.') && advice.ends_with('.'), "{reason}");
        }
    }
}

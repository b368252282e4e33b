"""The stack behind the device: what a peer on the tunnel sees."""

import random
import struct
import time

import packet as wire
from case import Contract
from packet import ACK, FIN, PSH, RST, SYN

CLOSED = 4444
ECHO, DISCARD, CHARGEN = 7, 9, 19


class Stack(Contract):
    """Packets written to a unit, and what comes back."""

    def setUp(self):
        super().setUp()
        self.link_ = self.link(head=True)
        self.link_.drain()

    def both(self):
        """Peer and own address, once per family, and whether it is IPv6."""
        link = self.link_
        return ((link.peer, link.here, False), (link.peer6, link.here6, True))

    def dropped(self):
        """The packets dropped on the way in."""
        return self.tree.ledger(self.name)["in.dropped"]

    def silent(self, *packets):
        """Asserts that packets are each answered by nothing and counted as one drop each."""
        for packet in packets:
            with self.subTest(packet=packet[:60].hex()):
                before = self.dropped()
                self.link_.send(packet)
                self.assertEqual(self.link_.before_pong(), [])
                self.assertEqual(self.dropped(), before + 1)

    def test_ping(self):
        """Echo replies of both families carry identifier, sequence and data of any size."""
        for peer, here, six in self.both():
            for size in (0, 1, 2, 56, 57, 1400):
                with self.subTest(here=here, size=size):
                    data = random.Random(size).randbytes(size)
                    self.link_.send(wire.echo(peer, here, 0x1234, size, data))
                    found = self.link_.recv()
                    self.assertTrue(found.is_pong)
                    self.assertEqual((found.src, found.dst), (here, peer))
                    self.assertEqual(found.payload[4:], struct.pack("!HH", 0x1234, size) + data)
                    self.assertEqual(found.version, 6 if six else 4)

    def test_fragmented_ping(self):
        """Fragments in order, reversed, shuffled and doubled are put together."""
        chance = random.Random(1)
        for peer, here, _ in self.both():
            data = chance.randbytes(3000)
            for turn in range(6):
                with self.subTest(here=here, turn=turn):
                    ping = wire.echo(peer, here, 5, turn, data)
                    parts = wire.fragments(ping, (8, 504, 1000, 1480)[turn % 4], 100 + turn)
                    if turn == 1:
                        parts.reverse()
                    elif turn >= 2:
                        chance.shuffle(parts)
                    for part in parts:
                        self.link_.send(part)
                    self.assertEqual(self.whole(), struct.pack("!HH", 5, turn) + data)

    def whole(self):
        """The body of an echo reply, which may come in fragments."""
        parts, end = {}, None
        while end is None or sum(map(len, parts.values())) < end:
            found = self.link_.recv()
            if not found.is_fragment:
                return found.payload[4:]
            six = found.version == 6
            start = found.fragment & 0xFFF8 if six else (found.fragment & 0x1FFF) * 8
            parts[start] = found.payload
            if not found.fragment & (1 if six else wire.MORE):
                end = start + len(found.payload)
        body = b"".join(parts[start] for start in sorted(parts))
        self.assertEqual(len(body), end)
        return body[4:]

    def test_overlapping_fragments(self):
        """Fragments that overlap are refused: no reply is made of them, every one is counted."""
        for number, (peer, here, six) in enumerate(self.both()):
            ping = wire.Packet(wire.echo(peer, here, 6, 6, bytes(72)))
            body, proto, ident = ping.payload, ping.proto, 300 + number
            pieces = [(0, 32, True), (24, 48, True), (48, 80, False)]
            before = self.dropped()
            for start, end, more in pieces:
                part = body[start:end]
                self.link_.send(wire.fragment(peer, here, proto, part, start, more, ident))
            self.assertEqual(self.link_.before_pong(six), [])
            self.assertGreaterEqual(self.dropped(), before + 2)

    def test_fragment_beyond_the_end(self):
        """Fragments whose sum would pass 65535 bytes never make a packet."""
        for peer, here, six in self.both():
            self.link_.send(wire.fragment(peer, here, 17, bytes(64), 65528, False, 301))
            self.link_.send(wire.fragment(peer, here, 17, bytes(64), 0, True, 301))
            before = [found for found in self.link_.before_pong(six) if not found.is_icmp]
            self.assertEqual(before, [])

    def test_udp_echo(self):
        """The echo service gives every datagram back, the empty one too."""
        for peer, here, _ in self.both():
            for data in (b"", b"x", b"hello", bytes(range(256)) * 5):
                self.link_.send(wire.udp(peer, here, 5000, ECHO, data))
                found = self.link_.recv()
                self.assertEqual((found.src, found.dst, found.ports), (here, peer, (ECHO, 5000)))
                self.assertEqual(found.payload[8:], data)

    def test_udp_discard(self):
        """The discard service answers nothing, and nothing is dropped."""
        for peer, here, six in self.both():
            before = self.dropped()
            self.link_.send(wire.udp(peer, here, 5000, DISCARD, b"gone"))
            self.assertEqual(self.link_.before_pong(six), [])
            self.assertEqual(self.dropped(), before)

    def test_udp_chargen(self):
        """The chargen service answers a datagram with one of printable characters."""
        for peer, here, _ in self.both():
            self.link_.send(wire.udp(peer, here, 5000, CHARGEN, b""))
            found = self.link_.recv()
            self.assertEqual(found.ports, (CHARGEN, 5000))
            self.assertLessEqual(len(found.payload[8:]), 512)
            self.assertTrue(all(c in b"\r\n" or 32 <= c < 127 for c in found.payload[8:]))

    def test_udp_checksum_left_out(self):
        """Zero means none in IPv4; in IPv6 it is a bad checksum."""
        link = self.link_
        link.send(wire.udp(link.peer, link.here, 5000, ECHO, b"zero", zero=True))
        self.assertEqual(link.recv().payload[8:], b"zero")
        self.silent(wire.udp(link.peer6, link.here6, 5000, ECHO, b"zero", zero=True))

    def test_closed_udp_port(self):
        """ICMP port unreachable, about the datagram that caused it; and a counted drop."""
        for peer, here, six in self.both():
            before = self.dropped()
            datagram = wire.udp(peer, here, 5000, CLOSED, b"who?")
            self.link_.send(datagram)
            found = self.link_.recv()
            self.assertTrue(found.is_icmp)
            self.assertEqual(found.kind, (1, 4) if six else (3, 3))
            self.assertEqual((found.src, found.dst), (here, peer))
            self.assertTrue(datagram.startswith(found.payload[8:36]))
            self.assertGreaterEqual(len(found.payload), 8 + (len(datagram) if six else 28))
            self.assertEqual(self.dropped(), before + 1)

    def test_unknown_protocol(self):
        """Protocol unreachable in IPv4; a parameter problem that points to it in IPv6."""
        link = self.link_
        link.send(wire.ip4(link.peer, link.here, 253, b"experiment"))
        found = link.recv()
        self.assertEqual((found.is_icmp, found.kind), (True, (3, 2)))
        link.send(wire.ip6(link.peer6, link.here6, 253, b"experiment"))
        found = link.recv()
        self.assertEqual((found.is_icmp, found.kind, found.payload[4:8]), (True, (4, 1), b"\0\0\0\x06"))
        self.assertEqual(self.dropped(), 2)

    def test_no_errors_about(self):
        """No ICMP error about multicast and broadcast, ICMP errors, later fragments, or no sender."""
        link = self.link_
        inner = wire.udp(link.here, link.peer, 1, 2, b"")
        inner6 = wire.udp(link.here6, link.peer6, 1, 2, b"")
        unreachable = wire.icmp(link.peer, link.here, 3, 3, bytes(4), inner)
        unreachable6 = wire.icmp(link.peer6, link.here6, 1, 4, bytes(4), inner6)
        strange = wire.icmp(link.peer, link.here, 3, 77, bytes(4), inner)
        packets = [
            wire.udp(link.peer, "224.0.0.1", 5000, CLOSED),
            wire.udp(link.peer, "239.9.9.9", 5000, CLOSED),
            wire.udp(link.peer, "255.255.255.255", 5000, CLOSED),
            wire.udp(link.peer6, "ff02::1", 5000, CLOSED),
            wire.ip4(link.peer, "224.0.0.1", 253, bytes(20)),
            wire.ip4(link.peer, link.here, wire.ICMP, unreachable),
            wire.ip4(link.peer, link.here, wire.ICMP, strange),
            wire.ip6(link.peer6, link.here6, wire.ICMP6, unreachable6),
            wire.fragment(link.peer, link.here, 253, bytes(16), 64, False, 901),
            wire.udp("224.1.1.1", link.here, 5000, CLOSED),
            wire.udp("255.255.255.255", link.here, 5000, CLOSED),
            wire.udp("0.0.0.0", link.here, 5000, CLOSED),
            wire.udp("127.0.0.1", link.here, 5000, CLOSED),
            wire.udp("ff02::1", link.here6, 5000, CLOSED),
            wire.udp("::", link.here6, 5000, CLOSED),
        ]
        for packet in packets:
            with self.subTest(packet=packet[:40].hex()):
                link.send(packet)
                before = [found for found in link.before_pong() if found.is_icmp]
                self.assertEqual(before, [])

    def test_errors_are_rate_limited(self):
        """A flood of datagrams for a closed port gets far fewer errors than datagrams."""
        for peer, here, six in self.both():
            total, answers = 5000, 0
            datagram = wire.udp(peer, here, 5000, CLOSED)
            began = time.monotonic()
            for number in range(total):
                self.link_.send(datagram)
                if number % 50 == 49:
                    answers += len(self.link_.drain())
            answers += len(self.link_.before_pong(six))
            self.assertGreater(answers, 0)
            self.assertLess(answers, total // 2, f"in {time.monotonic() - began:.2f} s")

    def test_bad_checksums(self):
        """Bad checksums of IP, ICMP, UDP and TCP are silent, counted drops."""
        for peer, here, six in self.both():
            self.silent(
                wire.echo(peer, here, bad=True),
                wire.udp(peer, here, 5000, ECHO, b"bad", bad=True),
                wire.udp(peer, here, 5000, CLOSED, b"bad", bad=True),
                wire.tcp(peer, here, 5000, ECHO, SYN, 1, bad=True),
                wire.tcp(peer, here, 5000, CLOSED, SYN, 1, bad=True),
            )
            if not six:
                body = wire.Packet(wire.udp(peer, here, 5000, ECHO, b"bad")).payload
                self.silent(wire.ip4(peer, here, wire.UDP, body, bad=True))

    def test_not_for_us(self):
        """Without forwarding, a packet for another host is a silent, counted drop."""
        link = self.link_
        self.silent(
            wire.echo(link.peer, "203.0.113.9"),
            wire.udp(link.peer, "203.0.113.9", 5000, CLOSED),
            wire.echo(link.peer6, "2001:db8::9"),
        )

    def test_forwarding(self):
        """With forwarding, a packet leaves by the other interface, one hop older."""
        link, other = self.link_, self.link(head=True, unit=next(self.units))
        self.tree.write("ip/forwarding", "1\n")
        self.addCleanup(self.tree.write, "ip/forwarding", "0\n")
        for peer, target in ((link.peer, other.peer), (link.peer6, other.peer6)):
            ping = wire.echo(peer, target, 7, 7, b"through")
            before = self.tree.ledger(self.name)["in.forwarded"]
            link.send(ping)
            found = other.recv()
            self.assertEqual((found.src, found.dst, found.ttl), (peer, target, 63))
            self.assertEqual(found.payload, wire.Packet(ping).payload)
            self.assertEqual(self.tree.ledger(self.name)["in.forwarded"], before + 1)

    def test_forwarding_errors(self):
        """Hops used up: time exceeded. Too big: fragmentation needed, packet too big. No route."""
        link, other = self.link_, self.link(head=True, unit=next(self.units))
        self.tree.write("ip/forwarding", "1\n")
        self.addCleanup(self.tree.write, "ip/forwarding", "0\n")
        self.tree.write(f"ifaces/{other.name}/mtu", "1280\n")
        big, dont = bytes(1400), {"fragment": wire.DONT}
        cases = [
            (wire.echo(link.peer, other.peer, ttl=1), (11, 0), None),
            (wire.echo(link.peer6, other.peer6, hops=1), (3, 0), None),
            (wire.echo(link.peer, other.peer, data=big, **dont), (3, 4), struct.pack("!HH", 0, 1280)),
            (wire.echo(link.peer6, other.peer6, data=big), (2, 0), struct.pack("!I", 1280)),
            (wire.echo(link.peer, "203.0.113.9"), (3, 0), None),
            (wire.echo(link.peer6, "2001:db8::9"), (1, 0), None),
        ]
        for packet, kind, rest in cases:
            with self.subTest(kind=kind):
                before = self.dropped()
                link.send(packet)
                found = link.recv()
                self.assertEqual((found.is_icmp, found.kind), (True, kind))
                if rest:
                    self.assertEqual(found.payload[4:8], rest)
                self.assertEqual(self.dropped(), before + 1)

    def test_forwarding_cuts(self):
        """An IPv4 packet that may be cut leaves in fragments that fit."""
        link, other = self.link_, self.link(head=True, unit=next(self.units))
        self.tree.write("ip/forwarding", "1\n")
        self.addCleanup(self.tree.write, "ip/forwarding", "0\n")
        self.tree.write(f"ifaces/{other.name}/mtu", "576\n")
        data = random.Random(2).randbytes(1400)
        ping = wire.echo(link.peer, other.peer, 8, 8, data)
        link.send(ping)
        body = b""
        while len(body) < 1408:
            found = other.recv()
            self.assertLessEqual(len(found.data), 576)
            self.assertEqual((found.fragment & 0x1FFF) * 8, len(body))
            body += found.payload
        self.assertEqual(body, wire.Packet(ping).payload)


class Tcp(Contract):
    """TCP by hand-made segments."""

    def setUp(self):
        super().setUp()
        self.link_ = self.link(head=True)
        self.link_.drain()

    def both(self):
        """Peer and own address, once per family."""
        link = self.link_
        return ((link.peer, link.here), (link.peer6, link.here6))

    def segment(self, wanted, port):
        """The next segment for a port that has these flags (PSH aside), or data if wanted is None."""

        def match(found):
            if found.proto != wire.TCP or found.ports[1] != port:
                return False
            _, _, flags, data = found.segment
            return bool(data) if wanted is None else flags & ~PSH == wanted

        return self.link_.recv(match).segment

    def test_echo(self):
        """Handshake, data there and back, and an orderly end."""
        for peer, here in self.both():
            with self.subTest(here=here):
                self.talk(peer, here, 6001)

    def talk(self, peer, here, port):
        """One conversation with the echo service."""

        def send(flags, seq, ack, data=b""):
            self.link_.send(wire.tcp(peer, here, port, ECHO, flags, seq, ack, data))

        mine = 0xFFFFFFF0  # The sequence wraps on the way.
        send(SYN, mine, 0)
        theirs, ack, _, _ = self.segment(SYN | ACK, port)
        mine, theirs = (mine + 1) & 0xFFFFFFFF, (theirs + 1) & 0xFFFFFFFF
        self.assertEqual(ack, mine)
        send(ACK, mine, theirs)
        for text in (b"hello", b"x" * 1000, b"bye"):
            send(ACK | PSH, mine, theirs, text)
            mine = (mine + len(text)) & 0xFFFFFFFF
            back = b""
            while len(back) < len(text):
                seq, ack, _, data = self.segment(None, port)
                skip = (theirs - seq) & 0xFFFFFFFF
                if skip < len(data):
                    back += data[skip:]
                    theirs = (theirs + len(data) - skip) & 0xFFFFFFFF
                self.assertEqual(ack, mine)
                send(ACK, mine, theirs)
            self.assertEqual(back, text)
        send(FIN | ACK, mine, theirs)
        seq, _, _, _ = self.segment(FIN | ACK, port)
        self.assertEqual(seq, theirs)
        send(ACK, (mine + 1) & 0xFFFFFFFF, (theirs + 1) & 0xFFFFFFFF)
        self.assertEqual(self.link_.before_pong(), [])

    def test_handshake_says_its_segment_size(self):
        """The SYN-ACK names a segment size that fits the mtu."""
        for peer, here in self.both():
            self.link_.send(wire.tcp(peer, here, 6002, ECHO, SYN, 1))
            found = self.link_.recv(lambda found: found.proto == wire.TCP)
            options = found.payload[20 : (found.payload[12] >> 4) * 4]
            where = options.index(b"\x02\x04")
            size = struct.unpack("!H", options[where + 2 : where + 4])[0]
            self.assertEqual(size, 1500 - 20 - (40 if ":" in here else 20))
            self.link_.send(wire.tcp(peer, here, 6002, ECHO, RST, 2))

    def test_closed_port(self):
        """A SYN for a closed port is reset with the numbers of RFC 9293, and counted."""
        for peer, here in self.both():
            before = self.tree.ledger(self.name)["in.dropped"]
            self.link_.send(wire.tcp(peer, here, 6003, CLOSED, SYN, 1000))
            seq, ack, flags, _ = self.link_.recv().segment
            self.assertEqual((seq, ack, flags), (0, 1001, RST | ACK))
            self.link_.send(wire.tcp(peer, here, 6003, CLOSED, ACK, 1000, 77, b"data"))
            seq, ack, flags, _ = self.link_.recv().segment
            self.assertEqual((seq, flags & RST), (77, RST))
            self.assertEqual(self.tree.ledger(self.name)["in.dropped"], before + 2)

    def test_no_reset_for(self):
        """A RST is never answered, nor a segment to or from a group."""
        link = self.link_
        for packet in (
            wire.tcp(link.peer, link.here, 6004, CLOSED, RST, 5),
            wire.tcp(link.peer, link.here, 6004, CLOSED, RST | ACK, 5, 5),
            wire.tcp(link.peer, link.here, 6004, ECHO, RST, 5),
            wire.tcp(link.peer, "224.0.0.1", 6004, ECHO, SYN, 5),
            wire.tcp(link.peer, "255.255.255.255", 6004, ECHO, SYN, 5),
            wire.tcp("224.0.0.1", link.here, 6004, ECHO, SYN, 5),
            wire.tcp(link.peer6, "ff02::1", 6004, ECHO, SYN, 5),
        ):
            with self.subTest(packet=packet[:60].hex()):
                link.send(packet)
                self.assertEqual(link.before_pong(), [])

    def test_many_connections(self):
        """Two hundred connections at a time each get their own bytes back."""
        link = self.link_
        states = {}
        for port in range(7000, 7200):
            link.send(wire.tcp(link.peer, link.here, port, ECHO, SYN, port))
            theirs, ack, _, _ = self.segment(SYN | ACK, port)
            self.assertEqual(ack, port + 1)
            states[port] = theirs + 1
        for port, theirs in states.items():
            text = b"port %d" % port
            link.send(wire.tcp(link.peer, link.here, port, ECHO, ACK | PSH, port + 1, theirs % 2**32, text))
            self.assertEqual(self.segment(None, port)[3], text)
            link.send(wire.tcp(link.peer, link.here, port, ECHO, RST, port + 1 + len(text)))
        self.assertEqual(link.before_pong(), [])

"""Section 1, write: a packet a call, families, sizes, and drops that are not errors."""

import errno
import os
import struct
import time

import packet as wire
from case import Contract
from procs import Background

TUNMRU = 16384
IPV4, IPV6 = 2, (10, 24, 28, 30)


def head(family, packet=b""):
    """A packet behind the header of IFHEAD."""
    return struct.pack("!I", family) + packet


class Write(Contract):
    """What write(2) accepts."""

    def test_zero_bytes(self):
        """A write of nothing returns 0 and nothing happens, with and without IFHEAD."""
        file = self.open()
        before = self.tree.stats(self.name), self.tree.ledger(self.name)
        self.assertEqual(os.write(file, b""), 0)
        self.set(file, "TUNSIFHEAD", 1)
        self.assertEqual(os.write(file, b""), 0)
        self.assertEqual((self.tree.stats(self.name), self.tree.ledger(self.name)), before)

    def test_largest(self):
        """TUNMRU bytes are taken, one more is EIO, and nothing of it is counted as input."""
        link = self.link()
        largest = wire.udp(link.peer, link.here, 5, 9, bytes(TUNMRU - 28))
        self.assertEqual(link.send(largest), TUNMRU)
        before = self.tree.stats(link.name)["ipackets"]
        for size in (TUNMRU + 1, TUNMRU + 4, 65536, 1 << 20):
            self.fails(errno.EIO, os.write, link.file, largest.ljust(size, b"\0"))
        self.assertEqual(self.tree.stats(link.name)["ipackets"], before)

    def test_largest_does_not_count_the_header(self):
        """With IFHEAD, TUNMRU bytes and the header are taken; one more is EIO."""
        link = self.link(head=True)
        largest = wire.udp(link.peer, link.here, 5, 9, bytes(TUNMRU - 28))
        self.assertEqual(link.send(largest), TUNMRU + 4)
        self.fails(errno.EIO, link.send, largest + b"\0")

    def test_gathered(self):
        """writev gathers header and packet into one, wherever it is cut."""
        link = self.link(head=True)
        ping = wire.echo(link.peer, link.here, 3, 4, b"gathered")
        whole = head(IPV4, ping)
        for pieces in ([whole[:4], ping], [whole[:2], whole[2:9], whole[9:]], list(map(bytes, zip(whole)))):
            self.assertEqual(os.writev(link.file, pieces), len(whole))
            self.assertEqual(link.recv().payload[8:], b"gathered")
        stats = self.tree.stats(link.name)
        self.assertEqual((stats["ipackets"], stats["ibytes"]), (3, 3 * len(ping)))

    def test_families_of_ip(self):
        """2 is IPv4; 10, 24, 28 and 30 are IPv6; replies carry 2 and 10."""
        link = self.link(head=True)
        cases = [(IPV4, link.peer, link.here)] + [(n, link.peer6, link.here6) for n in IPV6]
        for family, peer, here in cases:
            with self.subTest(family=family):
                os.write(link.file, head(family, wire.echo(peer, here, 1, family, b"f")))
                while True:
                    data = os.read(link.file, 2000)
                    if wire.Packet(data[4:]).is_pong:
                        break
                self.assertEqual(data[:4], head(2 if family == IPV4 else 10))

    def test_families_nobody_takes(self):
        """Unknown families, and IPX and AppleTalk without a program, are counted EAFNOSUPPORT."""
        file = self.open()
        self.set(file, "TUNSIFHEAD", 1)
        unknown = [0, 1, 3, 17, 255, 0x02000000, 0x0A000000, 0xFFFFFFFF]
        for count, family in enumerate(unknown + [4, 23, 5, 16], 1):
            with self.subTest(family=family):
                self.fails(errno.EAFNOSUPPORT, os.write, file, head(family, bytes(40)))
                stats, ledger = self.tree.stats(self.name), self.tree.ledger(self.name)
                self.assertEqual((stats["ipackets"], stats["ibytes"]), (0, 0))
                self.assertEqual(self.tree.drops(self.name), count)
                self.assertEqual(ledger["in.dropped"], count)

    def test_without_the_header_all_is_ipv4(self):
        """Without IFHEAD an IPv6 packet is a malformed IPv4 one: a counted drop, no error."""
        link = self.link()
        packet = wire.echo(link.peer6, link.here6)
        self.assertEqual(link.send(packet), len(packet))
        self.assertEqual(link.before_pong(), [])
        self.assertEqual(self.tree.ledger(link.name)["in.dropped"], 1)

    def test_short_header(self):
        """Fewer than 4 bytes with IFHEAD: EINVAL."""
        file = self.open()
        self.set(file, "TUNSIFHEAD", 1)
        for size in (1, 2, 3):
            self.fails(errno.EINVAL, os.write, file, bytes(size))
        self.assertEqual(self.tree.stats(self.name)["ipackets"], 0)

    def test_malformed_is_a_counted_drop(self):
        """Malformed packets are taken with their full length, dropped and counted, one each."""
        link = self.link(head=True)
        good = wire.echo(link.peer, link.here, data=bytes(32))
        good6 = wire.echo(link.peer6, link.here6, data=bytes(32))
        bad = [b"\x45", good[:19], b"\x46" + good[1:20], b"\x41" + good[1:], b"\x55" + good[1:]]
        bad += [good[:40], good6[:39], good6[:41], b"\x40" + good6[1:]]
        bad += [wire.ip4(link.peer, link.here, 1, b"", length=19)]
        bad += [wire.ip4(link.peer, link.here, 17, bytes(7)), wire.ip4(link.peer, link.here, 6, bytes(19))]
        bad += [wire.udp(link.peer, link.here, 1, 7, b"")[:24] + b"\xff\xff\0\0"]
        for packet in bad:
            family = 10 if packet in (good6[:39], good6[:41], bad[8]) else 2
            with self.subTest(packet=packet.hex()):
                before = self.tree.ledger(link.name)["in.dropped"]
                self.assertEqual(os.write(link.file, head(family, packet)), len(packet) + 4)
                self.assertEqual(link.before_pong(), [])
                self.assertEqual(self.tree.ledger(link.name)["in.dropped"], before + 1)

    def test_only_a_header(self):
        """The header of IFHEAD alone is a packet of no bytes: taken, and a counted drop."""
        link = self.link(head=True)
        self.assertEqual(os.write(link.file, head(IPV4)), 4)
        link.before_pong()
        self.assertEqual(self.tree.ledger(link.name)["in.dropped"], 1)

    def test_up_is_not_asked(self):
        """Neither read nor write looks at UP: a down interface takes packets and gives them."""
        file = self.open()
        packet = wire.echo("10.1.1.1", "10.1.1.2")
        self.assertEqual(os.write(file, packet), len(packet))
        self.assertEqual(self.tree.stats(self.name)["ipackets"], 1)
        self.tree.inject(self.name, packet)
        self.assertEqual(os.read(file, 100), packet)

    def test_never_blocks(self):
        """Thousands of writes return their length at once although nobody reads the answers."""
        link = self.link()
        ping = wire.echo(link.peer, link.here, data=bytes(1000))

        def flood():
            return {link.send(ping) for _ in range(5000)}

        began = time.monotonic()
        self.assertEqual(Background(flood).result(30), ("value", {len(ping)}))
        self.assertLess(time.monotonic() - began, 20)
        self.assertEqual(self.tree.stats(link.name)["ipackets"], 5000)
        self.assertEqual(len(link.drain()), 250)
        self.assertEqual(link.before_pong(), [])

    def test_writers_in_threads(self):
        """Writes of four threads on one descriptor are all taken, each as one packet."""
        link = self.link()
        ping = wire.udp(link.peer, link.here, 5, 9, bytes(50))

        def write():
            for _ in range(1000):
                link.send(ping)

        for writer in [Background(write) for _ in range(4)]:
            self.assertEqual(writer.result(30), ("value", None))
        stats = self.tree.stats(link.name)
        self.assertEqual((stats["ipackets"], stats["ibytes"]), (4000, 4000 * len(ping)))

    def test_counters(self):
        """ipackets and ibytes count packets without headers, opackets and obytes as well."""
        link = self.link(head=True, six=False)
        ping = wire.echo(link.peer, link.here, data=bytes(100))
        for _ in range(10):
            link.send(ping)
            link.recv()
        stats = self.tree.stats(link.name)
        self.assertEqual((stats["ipackets"], stats["ibytes"]), (10, 1280))
        self.assertEqual((stats["opackets"], stats["obytes"]), (10, 1280))

"""Section 1, batch mode: many frames in one call."""

import errno
import os
import struct

import packet as wire
from case import Contract, Link
from procs import Background, raw_read, wait_in_call
from tree import wait_until


def sample(size, mark=0):
    """A packet of a size, recognisable by a mark."""
    return wire.ip4("10.1.1.1", "10.1.1.2", 253, bytes([mark]) * (size - 20))


def frame(packet):
    """A packet in its frame."""
    return struct.pack("=I", len(packet)) + packet + bytes(-len(packet) % 4)


class Batch(Contract):
    """Reads and writes with TUNSBATCH on."""

    def setUp(self):
        super().setUp()
        self.file = self.open()
        self.set(self.file, "TUNSBATCH", 1)

    def frames(self, data):
        """The packets in what a read returned; the framing has to be exact."""
        found = []
        while data:
            size = struct.unpack("=I", data[:4])[0]
            end = 4 + size
            padded = end + -size % 4
            self.assertGreaterEqual(len(data), padded)
            self.assertEqual(data[end:padded], bytes(padded - end), "zero bytes fill up")
            found.append(data[4:end])
            data = data[padded:]
        return found

    def test_read_many(self):
        """A read returns all whole frames that are queued and fit, padded with zero bytes."""
        packets = [sample(size, size & 255) for size in range(20, 60)]
        for packet in packets:
            self.tree.inject(self.name, packet)
        data = os.read(self.file, 1 << 20)
        self.assertEqual(self.frames(data), packets)

    def test_read_what_fits(self):
        """What does not fit whole stays queued for the next read, in order."""
        packets = [sample(100, mark) for mark in range(10)]
        for packet in packets:
            self.tree.inject(self.name, packet)
        self.assertEqual(self.frames(os.read(self.file, 3 * 104 + 103)), packets[:3])
        self.assertEqual(self.frames(os.read(self.file, 104)), packets[3:4])
        self.assertEqual(self.frames(os.read(self.file, 4096)), packets[4:])

    def test_first_does_not_fit(self):
        """A first packet that does not fit is EMSGSIZE, stays queued, and drops nothing."""
        self.tree.inject(self.name, sample(101))
        for size in (1, 3, 4, 50, 101, 105, 107):
            with self.subTest(size=size):
                self.fails(errno.EMSGSIZE, os.read, self.file, size)
        self.assertEqual(self.get(self.file, "FIONREAD"), 108)
        self.assertEqual(self.tree.drops(self.name), 0)
        self.assertEqual(self.frames(os.read(self.file, 108)), [sample(101)])

    def test_fionread(self):
        """FIONREAD counts the first frame: length word, packet, fill."""
        self.assertEqual(self.get(self.file, "FIONREAD"), 0)
        self.tree.inject(self.name, sample(42))
        self.tree.inject(self.name, sample(300))
        self.assertEqual(self.get(self.file, "FIONREAD"), 48)
        self.set(self.file, "TUNSBATCH", 0)
        self.assertEqual(self.get(self.file, "FIONREAD"), 42)

    def test_waiting_and_empty(self):
        """An empty queue waits, or is EAGAIN; no bytes are no bytes; a wait ends with a frame."""
        self.assertEqual(raw_read(self.file, 0), b"")
        self.assertEqual(os.write(self.file, b""), 0)
        reader = Background(lambda: raw_read(self.file))
        wait_in_call(self.file, thread=reader)
        self.tree.inject(self.name, sample(50))
        self.assertEqual(reader.result(), ("value", frame(sample(50))))
        os.set_blocking(self.file, False)
        self.fails(errno.EAGAIN, os.read, self.file, 100)

    def test_with_headers(self):
        """Headers are part of the packet in its frame, of queued packets as they were sent."""
        self.set(self.file, "TUNSIFHEAD", 1)
        self.tree.inject(self.name, sample(30))
        self.set(self.file, "TUNSLMODE", 1)
        self.tree.inject(self.name, sample(31))
        found = self.frames(os.read(self.file, 4096))
        self.assertEqual(found[0], b"\0\0\0\x02" + sample(30))
        self.assertEqual(found[1][:2], b"\x10\x02")
        self.assertEqual(found[1][16:], sample(31))

    def test_write_many(self):
        """A write takes any number of frames and returns its full length."""
        link = self.link_on(self.file)
        pings = [wire.echo(link.peer, link.here, 9, n, bytes(n % 50)) for n in range(200)]
        data = b"".join(map(frame, pings))
        self.assertEqual(os.write(self.file, data), len(data))
        self.assertEqual(self.tree.stats(self.name)["ipackets"], 200)
        answers = []
        while len(answers) < 200:
            self.assertTrue(self.readable(self.file, 10))
            answers += self.frames(os.read(self.file, 1 << 16))
        self.assertTrue(all(wire.Packet(answer).is_pong for answer in answers))

    def test_write_more_than_fits(self):
        """A call of nearly 1 MiB is taken whole; what netisr has no room for is a counted drop."""
        link = self.link_on(self.file)
        one = frame(wire.udp(link.peer, link.here, 5, 9, bytes(16)))
        count = ((1 << 20) - 8192) // len(one)
        self.assertEqual(os.write(self.file, one * count), count * len(one))
        stats = self.tree.stats(self.name)
        self.assertEqual((stats["ipackets"], stats["ibytes"]), (count, count * 44))
        wait_until(lambda: self.tree.ledger(self.name)["in.queued"] == 0, "an empty input queue")
        ledger = self.tree.ledger(self.name)
        self.assertEqual(ledger["in.offered"], count)
        self.assertEqual(ledger["in.delivered"] + ledger["in.dropped"], count)
        self.assertGreater(ledger["in.delivered"], 0)

    def test_write_with_header(self):
        """With IFHEAD each frame has its own family."""
        link = self.link_on(self.file)
        self.set(self.file, "TUNSIFHEAD", 1)
        self.tree.write(f"ifaces/{self.name}/addr/add", f"{link.here6}/64\n")
        four = struct.pack("!I", 2) + wire.echo(link.peer, link.here, 1, 1, b"four")
        six = struct.pack("!I", 28) + wire.echo(link.peer6, link.here6, 1, 2, b"six")
        os.write(self.file, frame(four) + frame(six))
        pongs = set()
        while len(pongs) < 2:
            self.assertTrue(self.readable(self.file, 10))
            for found in map(wire.Packet, (x[4:] for x in self.frames(os.read(self.file, 4096)))):
                if found.is_pong:
                    pongs.add(found.payload[8:])
        self.assertEqual(pongs, {b"four", b"six"})

    def link_on(self, file):
        """Sets the address of the unit under test."""
        link = Link(self.tree, self.unit, file, False)
        self.tree.write(f"ifaces/{link.name}/addr/add", f"{link.here}/24\n")
        return link

    def test_refused_whole(self):
        """One bad frame refuses the call: no packet of it is taken, in front or behind."""
        good = frame(sample(40))
        bad = {
            "length runs over": (errno.EINVAL, struct.pack("=I", 41) + sample(40)),
            "length far over": (errno.EINVAL, struct.pack("=I", 2**32 - 1) + sample(40)),
            "half a length": (errno.EINVAL, b"\x28\0"),
            "an empty frame": (errno.EINVAL, frame(b"")),
            "over TUNMRU": (errno.EIO, frame(bytes(16385))),
        }
        for what, (number, data) in bad.items():
            for whole in (data, good + data, good * 3 + data):
                with self.subTest(what=what):
                    self.fails(number, os.write, self.file, whole)
                    self.assertEqual(self.tree.stats(self.name)["ipackets"], 0)
        for whole in (frame(bytes(16385)) + good, frame(b"") + good):
            self.assertRaises(OSError, os.write, self.file, whole)
        self.assertEqual(self.tree.stats(self.name)["ipackets"], 0)

    def test_refused_families(self):
        """A family that nobody takes refuses the whole call with EAFNOSUPPORT; a short one EINVAL."""
        self.set(self.file, "TUNSIFHEAD", 1)
        good = frame(struct.pack("!I", 2) + sample(40))
        for family in (0, 3, 4, 5, 16, 23, 0x02000000):
            bad = frame(struct.pack("!I", family) + sample(40))
            for whole in (bad, good + bad, bad + good, good + bad + good):
                self.fails(errno.EAFNOSUPPORT, os.write, self.file, whole)
        for size in (1, 2, 3):
            self.fails(errno.EINVAL, os.write, self.file, good + frame(bytes(size)))
        self.fails(errno.EIO, os.write, self.file, good + frame(struct.pack("!I", 2) + bytes(16385)))
        self.assertEqual(self.tree.stats(self.name)["ipackets"], 0)
        whole = good + frame(struct.pack("!I", 2) + bytes(16384))
        self.assertEqual(os.write(self.file, whole), len(whole))
        self.assertEqual(self.tree.stats(self.name)["ipackets"], 2)

    def test_poll(self):
        """READ while a frame is queued, also when a read left some behind."""
        self.assertFalse(self.readable(self.file))
        for _ in range(3):
            self.tree.inject(self.name, sample(40))
        self.assertEqual(len(os.read(self.file, 44)), 44)
        self.assertTrue(self.readable(self.file))
        os.read(self.file, 4096)
        self.assertFalse(self.readable(self.file))

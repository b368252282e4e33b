"""Section 6, netisr: packets of other protocols, for the program that registered for them."""

import errno
import os
import struct

from case import Contract

FAMILIES = {"ipx": (23, 4), "atalk": (16, 5)}


class Netisr(Contract):
    """netisr/ipx and netisr/atalk."""

    def setUp(self):
        super().setUp()
        self.file = self.open()
        self.set(self.file, "TUNSIFHEAD", 1)

    def register(self, name):
        """Opens a file of netisr."""
        return self.keep(os.open(self.tree.path("netisr", name), os.O_RDWR | os.O_NONBLOCK))

    def put(self, family, packet):
        """Writes a packet of a family to the device."""
        return os.write(self.file, struct.pack("!I", family) + packet)

    def named(self, packet, name=None):
        """A packet behind the name of its interface."""
        return (name or self.name).encode().ljust(16, b"\0") + packet

    def test_listed(self):
        """Both are there, and opening one is root's."""
        self.assertEqual(sorted(os.listdir(self.tree.path("netisr"))), ["atalk", "ipx"])
        self.assertEqual(os.stat(self.tree.path("netisr", "ipx")).st_mode & 0o777, 0o600)
        self.fails(errno.ENOENT, os.open, self.tree.path("netisr", "x25"), os.O_RDWR)

    def test_input(self):
        """EAFNOSUPPORT without a program; with one, a packet a read; not ready when there is none."""
        for name, families in FAMILIES.items():
            for family in families:
                self.fails(errno.EAFNOSUPPORT, self.put, family, b"nobody")
            file = self.register(name)
            self.fails(errno.EBUSY, os.open, self.tree.path("netisr", name), os.O_RDWR)
            self.assertFalse(self.readable(file))
            for family in families:
                self.assertEqual(self.put(family, b"packet"), 10)
            for _ in families:
                self.assertTrue(self.readable(file, 10))
                self.assertEqual(os.read(file, 2000), self.named(b"packet"))
            self.fails(errno.EAGAIN, os.read, file, 2000)
            self.put(families[0], b"not read")
            os.close(file)
            file = self.register(name)
            self.fails(errno.EAGAIN, os.read, file, 2000)
            os.close(file)
        self.assertEqual(self.tree.stats(self.name)["drop.purged"], 2)

    def test_reader_sleeps(self):
        """A reader that sleeps gets the packet."""
        file = self.register("ipx")
        os.set_blocking(file, True)

        def work(pipe):
            pipe.send(os.read(file, 2000))

        child = self.child(work)
        self.put(23, b"packet")
        self.assertEqual(child.hear(10), self.named(b"packet"))

    def test_output(self):
        """A write goes out of the interface it names; without IFHEAD EAFNOSUPPORT."""
        file = self.register("atalk")
        self.assertEqual(os.write(file, self.named(b"hello")), 21)
        self.assertEqual(os.read(self.file, 2000), b"\0\0\0\x05hello")
        self.set(self.file, "TUNSIFHEAD", 0)
        self.fails(errno.EAFNOSUPPORT, os.write, file, self.named(b"hello"))
        for bad in (b"short", self.named(b""), b"x" * 20):
            self.fails(errno.EINVAL, os.write, file, bad)
        self.fails(errno.ENXIO, os.write, file, self.named(b"hello", "tun32000"))
        self.fails(errno.EMSGSIZE, os.write, file, self.named(bytes(1501)))

    def test_bounded(self):
        """A full queue is a counted drop, not an error of the writer."""
        self.register("ipx")
        for _ in range(1000):
            self.put(23, bytes(1000))
        self.assertGreater(self.tree.stats(self.name)["drop.netisr_full"], 500)

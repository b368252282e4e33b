"""What every test here starts from: a tree per class, a unit per test, and the ledger at its end."""

import errno
import fcntl
import itertools
import os
import select
import shutil
import struct
import time
import unittest

import numbers_of as numbers
import packet as wire
from procs import Child
from tree import PATIENCE, Tree, wait_until


def needs(program):
    """Skips a test whose program is not installed. With TUND_TESTS=all it runs, and fails."""
    there = shutil.which(program) or os.environ.get("TUND_TESTS") == "all"
    return unittest.skipUnless(there, f"no {program}")


class Link:
    """An open unit with its addresses, seen from the program that serves it."""

    def __init__(self, tree, unit, file, head):
        self.tree, self.unit, self.file, self.head = tree, unit, file, head
        self.name = f"tun{unit}"
        self.here, self.peer = f"10.9.{unit}.1", f"10.9.{unit}.2"
        self.here6, self.peer6 = f"fd09:{unit}::1", f"fd09:{unit}::2"

    def send(self, packet):
        """Writes a packet, behind its family if IFHEAD is on."""
        if self.head:
            packet = struct.pack("!I", 2 if packet[0] >> 4 == 4 else 10) + packet
        return os.write(self.file, packet)

    def recv(self, match=lambda packet: not packet.is_chatter, timeout=PATIENCE):
        """The next packet that matches; those before it are let go."""
        deadline = time.monotonic() + timeout
        poll = select.poll()
        poll.register(self.file, select.POLLIN)
        while True:
            left = deadline - time.monotonic()
            if left < 0 or not poll.poll(left * 1000):
                raise AssertionError("the packet that was to come did not come")
            data = os.read(self.file, 65540)
            found = wire.Packet(data[4:] if self.head else data)
            if match(found):
                return found

    def drain(self):
        """Every packet that is queued now."""
        poll = select.poll()
        poll.register(self.file, select.POLLIN)
        found = []
        while poll.poll(0):
            data = os.read(self.file, 65540)
            found.append(wire.Packet(data[4:] if self.head else data))
        return found

    def before_pong(self, six=False):
        """Pings the stack and returns what it sent before it answered, other than chatter."""
        token = os.urandom(8)
        src, dst = (self.peer6, self.here6) if six else (self.peer, self.here)
        self.send(wire.echo(src, dst, 0x7070, 1, token))
        before = []

        def is_answer(found):
            mine = found.is_pong and found.payload[8:] == token
            if not mine and not found.is_chatter:
                before.append(found)
            return mine

        self.recv(is_answer)
        return before


class Contract(unittest.TestCase):
    """A test of the contract. At its end the ledger of every interface closes."""

    units = None
    tree = None

    @classmethod
    def setUpClass(cls):
        cls.tree = Tree()
        cls.units = itertools.count(10)

    @classmethod
    def tearDownClass(cls):
        cls.tree.stop()

    def setUp(self):
        if self.tree.daemon.poll() is not None:
            self.tree.lost()
            type(self).tree = Tree()  # A test before us lost its daemon, and has said so.
        self.unit = next(self.units)
        self.name = f"tun{self.unit}"
        self.before = set(self.tree.interfaces())
        self.addCleanup(self.settle)

    def tearDown(self):
        self.assertEqual(self.tree.unclosed(), [], "the ledger closes")

    def settle(self):
        """After the last close the ledger still closes, and the interfaces of the test go."""
        wrong = self.tree.unclosed()
        for name in set(self.tree.interfaces()) - self.before:
            wait_until(lambda name=name: self.destroyed(name), f"{name} can be destroyed")
        self.assertEqual(wrong, [], "the ledger closes after the last close")

    def destroyed(self, name):
        """Tries to destroy an interface: whether it is gone."""
        self.tree.destroy(name)
        return name not in self.tree.interfaces()

    def open(self, unit=None, flags=os.O_RDWR):
        """Opens a unit, the test's own by default; it is closed at the end of the test."""
        return self.keep(self.tree.tun(self.unit if unit is None else unit, flags))

    def keep(self, file):
        """Closes a descriptor at the end of the test, if the test has not."""
        self.addCleanup(self.close_if_open, file, os.fstat(file))
        return file

    def close_if_open(self, file, was):
        """Closes a descriptor that still is what it was."""
        try:
            now = os.fstat(file)
        except OSError:
            return
        if (now.st_dev, now.st_ino) == (was.st_dev, was.st_ino):
            os.close(file)

    def child(self, work, uid=0):
        """A child that is ended with the test."""
        child = Child(work, uid)
        self.addCleanup(child.finish)
        return child

    def link(self, head=False, unit=None, six=None):
        """An open unit that is up, with an IPv4 address and, with IFHEAD, an IPv6 one."""
        file = self.open(unit)
        link = Link(self.tree, self.unit if unit is None else unit, file, head)
        if head:
            self.set(file, "TUNSIFHEAD", 1)
        self.tree.write(f"ifaces/{link.name}/addr/add", f"{link.here}/24\n")
        if head if six is None else six:
            self.tree.write(f"ifaces/{link.name}/addr/add", f"{link.here6}/64\n")
        return link

    def fails(self, number, work, *args):
        """Asserts that a call fails with one errno."""
        try:
            value = work(*args)
        except OSError as error:
            found = errno.errorcode.get(error.errno, error.errno)
            self.assertEqual(found, errno.errorcode[number])
        else:
            self.fail(f"{errno.errorcode[number]} was to come, not {value!r}")

    def set(self, file, name, value=0):
        """A request that takes an int, or nothing."""
        size = numbers.REQUESTS[name][2]
        argument = struct.pack("=i", value) if size else 0
        return fcntl.ioctl(file, numbers.linux(name), argument)

    def get(self, file, name):
        """A request that gives an int."""
        answer = fcntl.ioctl(file, numbers.linux(name), b"\xee" * 4)
        return struct.unpack("=i", answer)[0]

    def flags(self, name=None):
        """The flags of an interface, as a set."""
        text = self.tree.read(f"ifaces/{name or self.name}/flags")
        self.assertTrue(text.endswith("\n"))
        return set(text.strip().split(",")) - {""}

    def readable(self, file, timeout=0):
        """Whether poll says that a descriptor can be read, within some seconds."""
        poll = select.poll()
        poll.register(file, select.POLLIN)
        return bool(poll.poll(timeout * 1000))

"""Random input of every kind, from a fixed seed: no panic, no hang, and the ledger closes."""

import fcntl
import os
import random
import struct

import numbers_of as numbers
import packet as wire
from case import Contract

SEED = 20051211
TURNS = 20_000
WORDS = """10.0.0.1 10.0.0.1/24 10.0.0.0/8 0.0.0.0/0 255.255.255.255/32 fd00::1/64 fd00::1 fe80::1 ::/0 ff02::1
peer via dev src metric unreachable default tun0 tun1 tun2 lo0 x 0 1 -1 71 72 1280 1500 65535 65536 4294967296
up down join leave 224.0.0.5 fifo limit packets bytes 1024 / , . % \0 \u00e9""".split(" ")

SETTINGS = "add rm set mtu flags queue multicast nameserver forwarding destroy mac".split()


class Fuzz(Contract):
    """Some 20000 calls with random arguments."""

    def setUp(self):
        super().setUp()
        self.chance = random.Random(SEED)
        self.refusals = 0

    def attempt(self, work, *args):
        """A call that may be refused."""
        try:
            return work(*args)
        except (OSError, ValueError, SystemError):
            self.refusals += 1
            return None

    def packet(self):
        """A packet: noise, a good one, or a good one with some bytes changed or cut off."""
        chance = self.chance
        here, peer = chance.choice((("10.9.1.1", "10.9.1.2"), ("fd09:1::1", "fd09:1::2")))
        kind = chance.randrange(7)
        if kind == 0:
            return chance.randbytes(chance.choice((1, 4, 19, 20, 40, 60, 1500, 16384)))
        if kind in (1, 2):
            data = wire.echo(peer, here, 1, chance.randrange(65536), chance.randbytes(chance.randrange(200)))
        elif kind == 3:
            data = wire.udp(peer, here, 1000, chance.choice((7, 9, 19, 53)), chance.randbytes(chance.randrange(200)))
        elif kind == 4:
            flags = chance.randrange(64)
            numbers_ = chance.getrandbits(32), chance.getrandbits(32)
            data = wire.tcp(peer, here, chance.randrange(1, 9), 7, flags, *numbers_, data=bytes(chance.randrange(9)))
        elif kind == 5:
            part, start = chance.randbytes(8 * chance.randrange(20)), 8 * chance.randrange(30)
            data = wire.fragment(peer, here, 17, part, start, chance.random() < 0.7, chance.randrange(4))
        else:
            kind, code = chance.randrange(256), chance.randrange(5)
            body = wire.icmp(peer, here, kind, code, chance.randbytes(4), chance.randbytes(60))
            data = wire.ip(peer, here, 58 if ":" in here else 1, body)
        data = bytearray(data)
        if chance.random() < 0.5:
            for _ in range(chance.randrange(1, 4)):
                data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.1:
            del data[chance.randrange(len(data)) :]
        return bytes(data)

    def request(self):
        """A request of the table, other than TUNSHUT and the debug switch, or noise."""
        chance = self.chance
        if chance.random() < 0.3:
            # Sizes stay below the buffer; 't' and 'f' with noise, both directions.
            size, number = chance.randrange(40), chance.randrange(256)
            if number in (90, 132):
                number = 91
            way = chance.choice((0, 1, 2, 3)) << 30
            return numbers.triple(chance.choice("tfux"), number, size) | way
        name = chance.choice(sorted(set(numbers.REQUESTS) - {"TUNSHUT", "TUNSDEBUG", "FIOASYNC"}))
        return chance.choice((numbers.linux, numbers.bsd))(name)

    def line(self):
        """A line for netcfg."""
        words = [self.chance.choice(WORDS) for _ in range(self.chance.randrange(1, 7))]
        text = self.chance.choice((" ", " ", "", "\t")).join(words).encode()
        if self.chance.random() < 0.05:
            text = self.chance.randbytes(self.chance.randrange(3000))
        return text + self.chance.choice((b"\n", b"\n", b"", b"\n\n", b"\r\n"))

    def settings(self):
        """The files of netcfg that can be written, other than the debug switch."""
        found = []
        for where, _, names in os.walk(self.tree.path("netcfg")):
            for name in names:
                if name in SETTINGS:
                    found.append(os.path.join(where, name))
        return sorted(found)

    def write_file(self, name, data):
        """Writes to a file and closes it."""
        file = os.open(name, os.O_WRONLY | self.chance.choice((0, os.O_TRUNC, os.O_CREAT)))
        try:
            os.write(file, data)
            if self.chance.random() < 0.2:
                os.fsync(file)
        finally:
            os.close(file)

    def test_everything_at_once(self):
        """Packets, requests, settings, injections and reads in a random order."""
        units = (0, 1, 2)
        files = {unit: self.tree.tun(unit, os.O_RDWR | os.O_NONBLOCK) for unit in units}
        self.addCleanup(lambda: [os.close(file) for file in files.values()])
        for unit in units:
            self.tree.write(f"ifaces/tun{unit}/addr/add", f"10.9.{unit}.1/24\nfd09:{unit}::1/64\n")
        taps = [self.keep(self.tree.bpf(f"tun{unit}", os.O_RDWR | os.O_NONBLOCK)) for unit in units]
        settings = self.settings()
        chance = self.chance
        for turn in range(TURNS):
            unit = chance.choice(units)
            what = chance.randrange(100)
            if what < 40:
                head = b"" if chance.random() < 0.5 else struct.pack("!I", chance.choice((2, 10, 28, 4, 77)))
                self.attempt(os.write, files[unit], head + self.packet())
            elif what < 55:
                argument = bytearray(struct.pack("=ii", chance.choice((0, 1, -1, 2, 16, 72, -(2**31), 2**31 - 1)), 0))
                argument = argument.ljust(64, b"\xff")
                self.attempt(fcntl.ioctl, files[unit], self.request(), argument)
            elif what < 70:
                self.attempt(self.write_file, chance.choice(settings), self.line())
            elif what < 80:
                family = struct.pack("=I", chance.choice((2, 10, 28, 30, 0, 77)))
                self.attempt(os.write, chance.choice(taps), (family + self.packet())[chance.choice((0, 0, 0, 1, 3)) :])
            elif what < 92:
                self.attempt(os.read, files[unit], chance.choice((0, 1, 100, 2000, 65536)))
            elif what < 96:
                self.attempt(os.read, chance.choice(taps), chance.choice((1, 24, 100, 65536)))
            else:
                os.close(files[unit])
                files[unit] = self.tree.tun(unit, os.O_RDWR | os.O_NONBLOCK)
            if turn % 1000 == 999:
                self.assertEqual(self.tree.unclosed(), [])
        self.assertGreater(self.refusals, 100)
        self.assertLess(self.refusals, TURNS)
        self.assertIsNone(self.tree.daemon.poll(), "the daemon lives")
        self.assertEqual(self.link(head=True).before_pong(), [])

    def test_names(self):
        """Paths of every odd kind are refused without harm."""
        chance = self.chance
        alphabet = "0019afx./ -+%\\\u00e9:[]"
        for _ in range(3000):
            name = "".join(chance.choice(alphabet) for _ in range(chance.randrange(1, 24))).replace("..", "x")
            place = chance.choice(("tun", "netcfg", "netcfg/ifaces", "netcfg/route", "bpf", "icmp", "icmp/echo", ""))
            file = self.attempt(os.open, self.tree.path(place) + "/" + name, os.O_RDONLY | os.O_NONBLOCK)
            if file is not None:
                os.close(file)
        self.assertEqual(self.link().before_pong(), [])

    def test_framing(self):
        """Batches with lengths that lie are refused or taken, never half."""
        link = self.link()
        self.set(link.file, "TUNSBATCH", 1)
        chance = self.chance
        for _ in range(3000):
            data = b""
            for _ in range(chance.randrange(1, 6)):
                packet = wire.echo(link.peer, link.here, data=bytes(chance.randrange(40)))
                data += struct.pack("=I", len(packet)) + packet + bytes(-len(packet) % 4)
            data = bytearray(data)
            if chance.random() < 0.7:
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            if chance.random() < 0.3:
                del data[chance.randrange(len(data)) :]
            before = self.tree.stats(link.name)["ipackets"]
            if self.attempt(os.write, link.file, bytes(data)) is None:
                self.assertEqual(self.tree.stats(link.name)["ipackets"], before)
        self.set(link.file, "TUNSBATCH", 0)
        link.drain()
        self.assertEqual(link.before_pong(), [])

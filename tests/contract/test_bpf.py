"""Section 4: capture and injection."""

import errno
import os
import signal
import struct
import subprocess
import tempfile

import packet as wire
from case import Contract, needs
from procs import Background, as_user, outcome, raw_read, wait_in_call
from tree import wait_until

MAGIC = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 0)


class Bpf(Contract):
    """DIR/bpf/IF."""

    def tap(self, name=None):
        """An open capture that does not wait."""
        return self.keep(self.tree.bpf(name or self.name, os.O_RDWR | os.O_NONBLOCK))

    def stream(self, file):
        """All that a capture has now."""
        data = b""
        while True:
            try:
                part = os.read(file, 65536)
            except BlockingIOError:
                return data
            if not part:
                return data
            data += part

    def records(self, data):
        """Family and packet of every record of a stream, checked against pcap's layout."""
        self.assertEqual(data[:24], MAGIC)
        data = data[24:]
        found = []
        while data:
            seconds, micros, kept, size = struct.unpack("=IIII", data[:16])
            self.assertLess(micros, 1_000_000)
            self.assertEqual(kept, size)
            self.assertGreaterEqual(len(data), 16 + kept, "a whole record")
            self.assertGreater(seconds, 0)
            family = struct.unpack("=I", data[16:20])[0]
            found.append((family, data[20 : 16 + kept]))
            data = data[16 + kept :]
        return found

    def test_stream(self):
        """A pcap header, then both directions of both families, DLT_NULL, IPv6 as family 28."""
        link = self.link(head=True)
        link.drain()
        tap = self.tap()
        pings = [wire.echo(link.peer, link.here, 1, 1, b"four"), wire.echo(link.peer6, link.here6, 1, 1, b"six")]
        answers = []
        for ping in pings:
            link.send(ping)
            answers.append(link.recv(lambda found: found.is_pong).data)
        found = [
            (family, packet)
            for family, packet in self.records(self.stream(tap))
            if not wire.Packet(packet).is_chatter
        ]
        self.assertEqual(found, [(2, pings[0]), (2, answers[0]), (28, pings[1]), (28, answers[1])])

    def test_header_first(self):
        """The header of the stream is there before any packet."""
        self.open()
        self.assertEqual(self.stream(self.tap()), MAGIC)

    def test_small_reads(self):
        """The stream is a stream: read in pieces of any size it is the same."""
        link = self.link()
        tap, other = self.tap(), self.tap()
        for size in (0, 1, 500):
            link.send(wire.echo(link.peer, link.here, data=bytes(size)))
            link.recv()
        pieces = b""
        while True:
            try:
                pieces += os.read(tap, 7)
            except BlockingIOError:
                break
        self.assertEqual(pieces, self.stream(other))
        self.assertEqual(len(self.records(pieces)), 6)

    def test_outlives_its_interface(self):
        """A capture and a text of an interface that is gone are open files as before: fstat tells of them."""
        file = self.open()
        tap = self.tap()
        text = self.keep(os.open(self.tree.path(f"netcfg/ifaces/{self.name}/mtu"), os.O_RDONLY))
        before = [os.fstat(fd).st_mode for fd in (tap, text)]
        os.close(file)
        wait_until(lambda: self.destroyed(self.name), "a destroyed interface")
        self.assertEqual([os.fstat(fd).st_mode for fd in (tap, text)], before)
        with self.assertRaises(FileNotFoundError):
            os.stat(self.tree.path(f"bpf/{self.name}"))

    def test_waits(self):
        """A read with nothing to tell waits for the next packet; poll tells of it."""
        self.open()
        tap = self.keep(self.tree.bpf(self.name, os.O_RDWR))
        self.assertEqual(raw_read(tap), MAGIC)
        self.assertFalse(self.readable(tap))
        reader = Background(lambda: raw_read(tap))
        wait_in_call(tap, thread=reader)
        packet = wire.echo("10.1.1.1", "10.1.1.2")
        self.tree.inject(self.name, packet)
        kind, data = reader.result()
        self.assertEqual(kind, "value")
        self.assertEqual(self.records(MAGIC + data), [(2, packet)])

    def test_wait_can_be_ended(self):
        """A waiting read of a capture ends with EINTR on a signal, and can be killed."""
        self.open()
        tap = self.keep(self.tree.bpf(self.name, os.O_RDWR))
        self.assertEqual(raw_read(tap), MAGIC)

        def reader(pipe):
            signal.signal(signal.SIGUSR1, lambda number, frame: None)
            pipe.send("ready")
            pipe.send(outcome(lambda: raw_read(tap)))

        for number in (signal.SIGUSR1, signal.SIGKILL):
            child = self.child(reader)
            child.hear()
            wait_in_call(tap, child.pid)
            child.kill(number)
            if number == signal.SIGUSR1:
                self.assertEqual(child.hear(), ("errno", errno.EINTR))
            child.wait()

    def test_before_the_header(self):
        """What goes out is captured without the header that the reader gets."""
        file = self.open()
        tap = self.tap()
        packet = wire.echo("10.1.1.1", "10.1.1.2")
        for mode in ("TUNSIFHEAD", "TUNSLMODE"):
            self.set(file, mode, 1)
            self.tree.inject(self.name, packet)
            os.read(file, 100)
        self.assertEqual(self.records(self.stream(tap)), [(2, packet)] * 2)

    def test_captured_before_it_is_judged(self):
        """A packet of a refused family is captured, in both directions."""
        file = self.open()
        tap = self.tap()
        six = wire.echo("fd00::1", "fd00::2")
        self.fails(errno.EAFNOSUPPORT, self.tree.inject, self.name, six, 28)
        self.assertEqual(self.records(self.stream(tap)), [(28, six)])
        self.set(file, "TUNSIFHEAD", 1)
        tap = self.tap()
        self.fails(errno.EAFNOSUPPORT, os.write, file, struct.pack("!I", 99) + b"unknown family")
        self.assertEqual(self.records(self.stream(tap)), [(99, b"unknown family")])

    def test_injection(self):
        """A write of family and packet goes out as it is, returns its length, and is captured."""
        file = self.open()
        self.set(file, "TUNSIFHEAD", 1)
        tap = self.tap()
        four, six = wire.echo("10.1.1.1", "10.1.1.2"), wire.echo("fd00::1", "fd00::2")
        for family, packet, shown in ((2, four, 2), (28, six, 10), (10, six, 10)):
            with self.subTest(family=family):
                self.assertEqual(os.write(tap, struct.pack("=I", family) + packet), 4 + len(packet))
                self.assertEqual(os.read(file, 200), struct.pack("!I", shown) + packet)
        self.assertEqual(self.records(self.stream(tap)), [(2, four), (28, six), (28, six)])

    def test_unknown_family_goes_the_output_path(self):
        """Of a family that is no IP: EAFNOSUPPORT without IFHEAD, after capture, and counted."""
        self.open()
        for family in (77, 0, 23, 16):
            with self.subTest(family=family):
                tap, drops = self.tap(), self.tree.drops(self.name)
                self.fails(errno.EAFNOSUPPORT, self.tree.inject, self.name, b"not for the internet", family)
                self.assertEqual(self.records(self.stream(tap)), [(family, b"not for the internet")])
                self.assertEqual(self.tree.drops(self.name), drops + 1)

    def test_closed_comes_first(self):
        """Out of a closed interface everything is EHOSTDOWN, whatever its family, and counted."""
        os.close(self.open())
        for family in (2, 28, 77):
            with self.subTest(family=family):
                drops = self.tree.drops(self.name)
                self.fails(errno.EHOSTDOWN, self.tree.inject, self.name, bytes(40), family)
                self.assertEqual(self.tree.drops(self.name), drops + 1)

    def test_injection_length(self):
        """Fewer than 4 bytes are EINVAL; nothing goes out."""
        file = self.open()
        tap = self.tap()
        for size in (1, 2, 3):
            self.fails(errno.EINVAL, os.write, tap, bytes(size))
        self.assertEqual(self.tree.stats(self.name)["opackets"], 0)
        self.assertFalse(self.readable(file))

    def test_slow_reader(self):
        """A reader that does not read loses captures, whole ones; the traffic loses nothing."""
        link = self.link()
        slow = self.tap()
        self.stream(slow)
        total, data = 3000, bytes(1400)
        for number in range(total):
            link.send(wire.echo(link.peer, link.here, 1, number & 0xFFFF, data))
            link.recv()
        self.assertEqual(self.tree.stats(self.name)["opackets"], total)
        self.assertEqual(self.tree.drops(self.name), 0)
        found = self.records(MAGIC + self.stream(slow))
        self.assertGreater(len(found), 10)
        self.assertLess(len(found), 2 * total)
        for family, packet in found:
            self.assertEqual((family, len(packet)), (2, 1428))

    def test_loopback(self):
        """A ping of ourselves is seen on lo0: request and reply, out and in again."""
        tap = self.tap("lo0")
        file = self.keep(os.open(self.tree.path("icmp", "echo", "127.0.0.1"), os.O_RDWR))
        os.write(file, b"\0\1data")
        self.assertTrue(self.readable(file, 10))
        found = [wire.Packet(packet) for _, packet in self.records(self.stream(tap))]
        self.assertLessEqual({(8, 0), (0, 0)}, {packet.kind for packet in found})

    def test_every_handle_has_its_own(self):
        """Two captures see the same packets; one opened later sees the later ones."""
        file = self.open()
        first, second = self.tap(), self.tap()
        packets = [wire.echo("10.1.1.1", "10.1.1.2", 1, n) for n in range(3)]
        self.tree.inject(self.name, packets[0])
        third = self.tap()
        for packet in packets[1:]:
            self.tree.inject(self.name, packet)
        expected = [(2, packet) for packet in packets]
        self.assertEqual(self.records(self.stream(first)), expected)
        self.assertEqual(self.records(self.stream(second)), expected)
        self.assertEqual(self.records(self.stream(third)), expected[1:])
        self.assertEqual(self.get(file, "FIONREAD"), 28)

    def test_uid(self):
        """Only root opens a capture."""
        self.open()
        for name in (self.name, "lo0"):
            path = self.tree.path("bpf", name)
            for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
                kind, number = as_user(lambda path=path, flags=flags: os.open(path, flags))
                self.assertEqual(kind, "errno")
                self.assertIn(number, (errno.EPERM, errno.EACCES))

    def test_names(self):
        """The directory lists the interfaces, and what they drop; other names are ENOENT."""
        self.open()
        self.assertEqual(set(os.listdir(self.tree.path("bpf"))), {"drops", *self.tree.interfaces()})
        self.fails(errno.ENOENT, self.tree.bpf, "tun999")
        self.fails(errno.ENOENT, self.tree.bpf, "x")

    @needs("cat")
    def test_cat(self):
        """`cat bpf/IF > file` is what the contract promises."""
        file = self.open()
        with tempfile.NamedTemporaryFile() as target:
            with subprocess.Popen(["cat", self.tree.path("bpf", self.name)], stdout=target) as cat:
                try:
                    self.until_it_has(target.name, 24)
                    packet = wire.echo("10.1.1.1", "10.1.1.2")
                    self.tree.inject(self.name, packet)
                    os.read(file, 100)
                    self.until_it_has(target.name, 24 + 16 + 4 + len(packet))
                finally:
                    cat.terminate()
            with open(target.name, "rb") as capture:
                self.assertEqual(self.records(capture.read()), [(2, packet)])

    def until_it_has(self, name, size):
        """Waits until a file has a size."""
        wait_until(lambda: os.stat(name).st_size >= size, f"{size} bytes of capture")

    @needs("tshark")
    def test_tshark(self):
        """tshark reads a capture with pings of both families without complaint."""
        link = self.link(head=True)
        link.drain()
        tap = self.tap()
        link.send(wire.echo(link.peer, link.here, data=b"four"))
        link.recv(lambda found: found.is_pong)
        link.send(wire.echo(link.peer6, link.here6, data=b"six"))
        link.recv(lambda found: found.is_pong)
        with tempfile.NamedTemporaryFile(suffix=".pcap") as target:
            target.write(self.stream(tap))
            target.flush()
            fields = ["-T", "fields", "-e", "frame.protocols"]
            found = subprocess.run(
                ["tshark", "-r", target.name, *fields], capture_output=True, text=True, timeout=60, check=False
            )
        self.assertEqual(found.returncode, 0, found.stderr)
        protocols = [line.split(":") for line in found.stdout.split()]
        self.assertEqual(sum("icmp" in line for line in protocols), 2, found.stdout)
        self.assertGreaterEqual(sum("icmpv6" in line for line in protocols), 2, found.stdout)
        self.assertNotIn("malformed", found.stdout)
        self.assertNotIn("cut short", found.stderr)

"""Section 4: the packets that are dropped, and why."""

import errno
import os
import struct
import subprocess
import tempfile

import packet as wire
from case import Contract, needs
from procs import Background, as_user, outcome, raw_read, wait_in_call

SECTION, INTERFACE, PACKET = 0x0A0D0D0A, 1, 6
COMMENT, IF_NAME, LOST = 1, 2, 4


class Drops(Contract):
    """DIR/bpf/drops."""

    def watch(self, flags=os.O_RDONLY):
        """An open stream that does not wait."""
        return self.keep(self.tree.bpf("drops", flags | os.O_NONBLOCK))

    def stream(self, file):
        """All that there is to read now."""
        data = b""
        while True:
            try:
                data += os.read(file, 65536)
            except BlockingIOError:
                return data

    @staticmethod
    def options(data):
        """The options of a block, by their code."""
        found = {}
        while data:
            code, size = struct.unpack("=HH", data[:4])
            if code == 0:
                break
            found[code] = data[4 : 4 + size]
            data = data[4 + (size + 3) // 4 * 4 :]
        return found

    def packets(self, data):
        """Interface, comment, family and packet of each block of a stream, whose layout is checked."""
        kind, size, magic, major, minor = struct.unpack("=IIIHH", data[:16])
        self.assertEqual((kind, magic, major, minor), (SECTION, 0x1A2B3C4D, 1, 0))
        names, found = [], []
        while data:
            kind, size = struct.unpack("=II", data[:8])
            self.assertEqual(size % 4, 0)
            self.assertEqual(struct.unpack("=I", data[size - 4 : size])[0], size)
            body, data = data[8 : size - 4], data[size:]
            if kind == INTERFACE:
                link = struct.unpack("=H", body[:2])[0]
                self.assertEqual(link, 0, "DLT_NULL")
                names.append(self.options(body[8:])[IF_NAME].decode())
            elif kind == PACKET:
                number, _, _, kept, length = struct.unpack("=IIIII", body[:20])
                self.assertEqual(kept, length)
                options = self.options(body[20 + (kept + 3) // 4 * 4 :])
                family = struct.unpack("=I", body[20:24])[0]
                found.append((names[number], options[COMMENT].decode(), family, body[24 : 20 + kept]))
            else:
                self.assertEqual(kind, SECTION)
        return found

    def test_both_ways(self):
        """In and out, each with its reason, its packet as it was, and its interface."""
        link = self.link(head=True)
        link.drain()
        drops = self.watch()
        nobody = wire.udp(link.peer, link.here, 9, 9999, b"nobody")
        nobody6 = wire.udp(link.peer6, link.here6, 9, 9999, b"nobody")
        broken = wire.udp(link.peer, link.here, 9, 9999, b"broken", bad=True)
        for packet in (nobody, nobody6, broken):
            link.send(packet)
        link.before_pong()
        late = wire.echo(link.here, link.peer, data=b"late")
        self.tree.inject(link.name, late)
        os.close(link.file)
        found = self.packets(self.stream(drops))
        expected = [
            (link.name, "in no_port", 2, nobody),
            (link.name, "in no_port", 28, nobody6),
            (link.name, "in bad_checksum", 2, broken),
        ]
        self.assertEqual(found[:3], expected)
        self.assertIn((link.name, "out purged", 2, late), found)
        stats = self.tree.stats(link.name)
        for name, count in stats.items():
            if name.startswith("drop."):
                reason = name.removeprefix("drop.")
                shown = [comment for _, comment, _, _ in found if comment.split(" ")[1] == reason]
                self.assertEqual(len(shown), count, name)

    def test_section_first(self):
        """Without any packet there is a section header, and poll tells of more."""
        self.open()
        drops = self.watch()
        self.assertTrue(self.readable(drops))
        self.assertEqual(self.packets(self.stream(drops)), [])
        self.assertFalse(self.readable(drops))

    def test_waits(self):
        """A read waits for the next packet that is dropped."""
        link = self.link()
        drops = self.keep(self.tree.bpf("drops", os.O_RDONLY))
        header = raw_read(drops)
        reader = Background(lambda: raw_read(drops))
        wait_in_call(drops, thread=reader)
        nobody = wire.udp(link.peer, link.here, 9, 9999, b"nobody")
        link.send(nobody)
        kind, data = reader.result()
        self.assertEqual(kind, "value")
        self.assertEqual(self.packets(header + data), [(link.name, "in no_port", 2, nobody)])

    def test_read_only(self):
        """A write is EBADF, however it was opened; only root opens it; the directory lists it."""
        self.open()
        for flags in (os.O_RDONLY, os.O_RDWR, os.O_WRONLY):
            file = self.watch(flags)
            self.fails(errno.EBADF, os.write, file, struct.pack("=I", 2) + bytes(20))
        path = self.tree.path("bpf", "drops")
        kind, number = as_user(lambda: os.open(path, os.O_RDONLY))
        self.assertEqual(kind, "errno")
        self.assertIn(number, (errno.EPERM, errno.EACCES))
        self.assertIn("drops", os.listdir(self.tree.path("bpf")))

    def test_slow_reader(self):
        """Who does not read loses captures, whole ones, and is told how many; packets go on."""
        link = self.link()
        slow = self.watch()
        nobody = wire.udp(link.peer, link.here, 9, 9999, bytes(1400))
        total = 2000
        for number in range(total):
            link.send(nobody)
            if number % 100 == 0:
                link.before_pong()
                link.drain()
        found = self.packets(self.stream(slow))
        self.assertGreater(len(found), 10)
        self.assertLess(len(found), total)
        self.assertEqual(self.tree.stats(link.name)["drop.no_port"], total)
        link.send(nobody)
        link.before_pong()
        block = self.stream(slow)
        kept = struct.unpack("=I", block[20:24])[0]
        options = self.options(block[28 + (kept + 3) // 4 * 4 : -4])
        self.assertEqual(struct.unpack("=Q", options[LOST])[0], total - len(found))

    @needs("tshark")
    def test_tshark(self):
        """tshark shows the reason and the interface of each packet."""
        link = self.link(head=True)
        link.drain()
        drops = self.watch()
        link.send(wire.udp(link.peer, link.here, 9, 9999, b"nobody"))
        link.send(wire.udp(link.peer6, link.here6, 9, 9999, b"nobody"))
        link.before_pong()
        with tempfile.NamedTemporaryFile(suffix=".pcapng") as target:
            target.write(self.stream(drops))
            target.flush()
            fields = [word for name in ("interface_name", "comment", "protocols") for word in ("-e", f"frame.{name}")]
            found = subprocess.run(
                ["tshark", "-r", target.name, "-T", "fields", *fields],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        self.assertEqual(found.returncode, 0, found.stderr)
        lines = [line.split("\t") for line in found.stdout.splitlines()]
        self.assertEqual([line[:2] for line in lines], [[link.name, "in no_port"]] * 2)
        self.assertIn("ip:udp", lines[0][2])
        self.assertIn("ipv6:udp", lines[1][2])
        self.assertNotIn("cut short", found.stderr)

    def test_end(self):
        """A stream goes on when interfaces come and go."""
        drops = self.watch()
        before = self.stream(drops)
        for _ in range(2):
            link = self.link()
            nobody = wire.udp(link.peer, link.here, 9, 9999, b"nobody")
            link.send(nobody)
            link.before_pong()
            os.close(link.file)
            self.tree.destroy(link.name)
        found = self.packets(before + self.stream(drops))
        seen = [entry[:2] for entry in found if entry[3] == nobody]
        self.assertEqual(seen, [(link.name, "in no_port")] * 2)
        self.assertEqual(outcome(lambda: os.read(drops, 100)), ("errno", errno.EAGAIN))

"""Routes beside each other, the bypass of a socket, route/lookup, and the events of an interface."""

import errno
import fcntl
import os
import struct

import numbers_of as numbers
import packet as wire
from case import Contract
from procs import NOBODY, outcome


class Tunnels(Contract):
    """What a tunnel program needs beside its device."""

    def setUp(self):
        super().setUp()
        before = self.tree.read("route/list").splitlines()
        self.addCleanup(self.remove_routes, before)

    def remove_routes(self, before):
        """Takes away the routes of the test that no close takes away."""
        for line in reversed(self.tree.read("route/list").splitlines()):
            if line not in before:
                self.tree.write("route/rm", line + "\n")

    def pair(self):
        """Two links: the outer one, and a tunnel that was opened after it."""
        return self.link(), self.link(unit=next(self.units))

    def lookup(self, target):
        """The answer of route/lookup, without its newline."""
        file = os.open(self.tree.path("netcfg", "route", "lookup"), os.O_RDWR)
        try:
            os.write(file, f"{target}\n".encode())
            text = os.read(file, 4096).decode()
            self.assertEqual(os.read(file, 4096), b"")
        finally:
            os.close(file)
        self.assertTrue(text.endswith("\n") and text.count("\n") == 1, text)
        return text[:-1]

    def socket(self, path):
        """An open socket of udp or tcp."""
        return self.keep(os.open(self.tree.path(*path.split("/")), os.O_RDWR))

    @staticmethod
    def bypass(file, name):
        """TUNSBYPASS with a name."""
        fcntl.ioctl(file, numbers.TUNSBYPASS, struct.pack("16s", name.encode()))

    def test_side_by_side(self):
        """The tunnel that was added last is used; when it is down or gone, the one before it."""
        outer, inner = self.pair()
        before = self.tree.read("route/list")
        lines = [f"default via {outer.peer} dev {outer.name}", f"default dev {inner.name}"]
        self.tree.write("route/add", "\n".join(lines) + "\n")
        self.assertEqual(self.tree.read("route/list").splitlines()[:2], lines)
        self.assertEqual(self.lookup("192.0.2.1"), f"{lines[1]} src {inner.here}")
        self.tree.write("route/add", lines[0] + "\n")  # Again: it replaces itself, in its place.
        self.assertEqual(self.lookup("192.0.2.1"), f"{lines[1]} src {inner.here}")
        self.tree.write(f"ifaces/{inner.name}/flags", "down\n")
        self.assertEqual(self.lookup("192.0.2.1"), f"{lines[0]} src {outer.here}")
        self.tree.write(f"ifaces/{inner.name}/flags", "up\n")
        self.tree.write("route/rm", "default\n")
        self.assertEqual(self.lookup("192.0.2.1"), f"{lines[0]} src {outer.here}")
        self.tree.write("route/add", lines[1] + "\n")
        self.fails(errno.EINVAL, self.tree.write, "route/rm", f"default\n{lines[1]}\n")
        self.assertEqual(self.tree.read("route/list").splitlines()[:2], lines)
        os.close(inner.file)
        self.assertEqual(self.lookup("192.0.2.1"), f"{lines[0]} src {outer.here}")
        self.tree.write("route/rm", lines[0] + "\n")
        gone = f"10.9.{inner.unit}.0/24 dev {inner.name}\n"
        self.assertEqual(self.tree.read("route/list"), before.replace(gone, ""))

    def test_list_makes_the_same_table(self):
        """Equals are listed from the oldest on: written back they make the same table."""
        first, second = self.pair()
        lines = [f"198.18.0.0/15 dev {first.name}", f"198.18.0.0/15 dev {second.name}"]
        for order in (lines, lines[::-1]):
            with self.subTest(order=order):
                self.tree.write("route/add", "\n".join(order) + "\n")
                before = self.tree.read("route/list"), self.lookup("198.18.0.1")
                self.assertIn("\n".join(order) + "\n", before[0])
                self.assertIn(order[1], before[1])
                for line in before[0].splitlines():
                    self.tree.write("route/rm", line + "\n")
                self.assertEqual(self.tree.read("route/list"), "")
                self.tree.write("route/add", before[0])
                self.assertEqual((self.tree.read("route/list"), self.lookup("198.18.0.1")), before)
                self.tree.write("route/rm", "\n".join(order) + "\n")

    def test_unreachable(self):
        """Senders get EHOSTUNREACH; who sent a packet to be forwarded gets an ICMP error."""
        link = self.link()
        self.tree.write("ip/forwarding", "1\n")
        self.addCleanup(self.tree.write, "ip/forwarding", "0\n")
        self.tree.write("route/add", "198.18.0.0/15 unreachable metric 1000\n")
        self.assertIn("198.18.0.0/15 unreachable metric 1000\n", self.tree.read("route/list"))
        self.fails(errno.EHOSTUNREACH, self.lookup, "198.18.0.1")
        self.fails(errno.EHOSTUNREACH, os.write, self.socket("udp/198.18.0.1:9"), b"x")
        self.fails(errno.EHOSTUNREACH, self.socket, "tcp/198.18.0.1:9")
        link.send(wire.udp(link.peer, "198.18.0.1", 5, 6, b"x"))
        error = link.recv()
        self.assertEqual((error.src, tuple(error.payload[:2])), (link.here, (3, 1)))
        self.assertEqual(self.tree.stats(link.name)["drop.unreachable"], 1)
        # A route with a lower metric goes before it, and leaves it when it goes.
        self.tree.write("route/add", f"198.18.0.0/15 dev {link.name}\n")
        self.assertIn(link.name, self.lookup("198.18.0.1"))
        self.tree.write("route/rm", "198.18.0.0/15\n")
        self.fails(errno.EHOSTUNREACH, self.lookup, "198.18.0.1")

    def test_bad_lines(self):
        """Lines that are no route are EINVAL and change nothing."""
        self.open()
        before = self.tree.read("route/list")
        for line in (
            "unreachable",
            "198.18.0.0/15 unreachable x",
            "198.18.0.0/15 unreachable metric",
            "198.18.0.0/15 unreachable metric x",
            f"198.18.0.0/15 unreachable dev {self.name}",
            f"198.18.0.0/15 dev {self.name} unreachable",
            "198.18.0.0/15 unreachable via 10.0.0.1",
            "198.18.0.1/15 unreachable",
        ):
            for file in ("route/add", "route/rm"):
                self.fails(errno.EINVAL, self.tree.write, file, line + "\n")
        self.fails(errno.EINVAL, self.tree.write, "route/rm", "198.18.0.0/15 unreachable\n")
        self.assertEqual(self.tree.read("route/list"), before)

    def test_bypass(self):
        """What the socket sends goes by the next route, and nobody else's packets do."""
        outer, inner = self.pair()
        self.tree.write("route/add", f"default via {outer.peer}\n198.18.0.0/15 dev {inner.name}\n")
        self.tree.write("route/add", f"default dev {inner.name}\n")
        file, other = self.socket("udp/198.18.0.1:9"), self.socket("udp/198.18.0.1:9")
        self.bypass(file, inner.name)
        os.write(file, b"around")
        os.write(other, b"inside")
        self.assertEqual(outer.recv().payload[8:], b"around")
        self.assertEqual(inner.recv().payload[8:], b"inside")
        self.tree.write("route/rm", f"default via {outer.peer}\n")
        self.fails(errno.ENETUNREACH, os.write, file, b"nowhere")
        self.tree.write("route/add", f"198.0.0.0/8 via {outer.peer}\n")
        os.write(file, b"around")
        self.assertEqual(outer.recv().payload[8:], b"around")
        self.bypass(file, "")
        os.write(file, b"inside")
        self.assertEqual(inner.recv().payload[8:], b"inside")
        self.assertEqual(outer.before_pong(), [])

    def test_bypass_is_refused(self):
        """EPERM for others than root, EINVAL for what is no name, ENOTTY on other files."""
        link = self.link()
        file = self.socket(f"udp/{link.peer}:9")
        for name in (b"x" * 16, b"a\0b" + bytes(13), b"\0a" + bytes(14), b"a b" + bytes(13), b"\xff" + bytes(15)):
            self.fails(errno.EINVAL, fcntl.ioctl, file, numbers.TUNSBYPASS, name)
        self.bypass(file, "tun32000")
        for other in (link.file, os.open(self.tree.path("netcfg", "route", "list"), os.O_RDONLY)):
            self.fails(errno.ENOTTY, self.bypass, other, "tun0")
        os.close(other)
        small = numbers.triple("t", 133, 4) | numbers.IN_LINUX
        self.fails(errno.ENOTTY, fcntl.ioctl, file, small, bytes(4))
        path = self.tree.path("udp", f"{link.peer}:9")

        def work(pipe):
            pipe.send(outcome(lambda: self.bypass(os.open(path, os.O_RDWR), "tun0")))

        self.assertEqual(self.child(work, NOBODY).hear(), ("errno", errno.EPERM))

    def test_lookup(self):
        """Everybody may ask; the errors are those of a packet, and come at the write."""
        link = self.link(head=True)
        self.assertEqual(self.lookup(link.peer), f"10.9.{link.unit}.0/24 dev {link.name} src {link.here}")
        self.assertEqual(self.lookup(link.here), f"local {link.here} dev {link.name}")
        self.assertEqual(self.lookup(link.peer6), f"fd09:{link.unit}::/64 dev {link.name} src {link.here6}")
        self.assertEqual(self.lookup("127.0.0.1"), "local 127.0.0.1 dev lo0")
        self.tree.write("route/add", f"239.0.0.0/8 dev {link.name}\n")
        self.assertIn(f" dev {link.name}", self.lookup("239.1.2.3"))
        self.fails(errno.ENETUNREACH, self.lookup, "192.0.2.1")
        path = self.tree.path("netcfg", "route", "lookup")
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o666)

        def work(pipe):
            file = os.open(path, os.O_RDWR)
            os.write(file, link.peer.encode())
            pipe.send(os.read(file, 4096))
            pipe.send(outcome(lambda: os.write(file, b"x")))
            pipe.send(os.read(file, 4096))

        child = self.child(work, NOBODY)
        self.assertIn(link.name.encode(), child.hear())
        self.assertEqual((child.hear(), child.hear()), (("errno", errno.EINVAL), b""))
        for bad in ("", "x", "10.0.0.0/8", "10.0.0.1 10.0.0.2", "fe80::1%lo0"):
            self.fails(errno.EINVAL, self.lookup, bad)
        self.tree.write(f"ifaces/{link.name}/flags", "down\n")
        self.fails(errno.ENETDOWN, self.lookup, link.peer)

    def events(self, flags=os.O_NONBLOCK):
        """The events of the interface of the test."""
        path = self.tree.path("netcfg", "ifaces", self.name, "events")
        return self.keep(os.open(path, os.O_RDONLY | flags))

    def test_events(self):
        """Each change is a line, from the open on, for each reader."""
        device, files = self.open(), [self.events(), self.events()]
        of = f"ifaces/{self.name}"
        self.fails(errno.EAGAIN, os.read, files[0], 4096)
        self.assertFalse(self.readable(files[0]))
        self.tree.write(f"{of}/addr/set", "10.80.0.1/24\n")
        self.assertTrue(self.readable(files[0], 10))
        self.tree.write(f"{of}/mtu", "1400\n")
        self.fails(errno.EINVAL, self.tree.write, f"{of}/mtu", "1300\nx\n")
        self.tree.write(f"{of}/flags", "down\n")
        self.tree.write(f"{of}/flags", "up\n")
        self.tree.write(f"{of}/addr/rm", "10.80.0.1\n")
        lines = "addr add 10.80.0.1/24 up running mtu@1400 down up addr rm 10.80.0.1/24".replace("@", " ")
        text = os.read(files[0], 4096).decode()
        self.assertEqual(text.replace("\n", " ").strip(), lines)
        self.assertTrue(text.endswith("\n"))
        self.fails(errno.EAGAIN, os.read, files[0], 4096)
        self.assertFalse(self.readable(files[0]))
        os.close(device)
        self.assertTrue(self.readable(files[0], 10))
        self.assertEqual(os.read(files[0], 4096), b"down\nstopped\n")
        self.assertTrue(self.destroyed(self.name))
        self.assertEqual(os.read(files[0], 4096), b"destroyed\n")
        self.assertEqual(os.read(files[0], 4096), b"")
        self.assertEqual(os.read(files[1], 4096).decode(), text + "down\nstopped\ndestroyed\n")

    def test_events_come_whole(self):
        """A buffer that is shorter than what waits gets whole lines; one shorter than a line EINVAL."""
        self.open()
        file = self.events()
        self.tree.write(f"ifaces/{self.name}/mtu", "1400\n")
        self.tree.write(f"ifaces/{self.name}/mtu", "1401\n")
        self.fails(errno.EINVAL, os.read, file, 8)
        self.assertEqual(os.read(file, 10), b"mtu 1400\n")
        self.assertEqual(os.read(file, 17), b"mtu 1401\n")
        path = self.tree.path("netcfg", "ifaces", self.name, "events")
        self.fails(errno.EACCES, os.open, path, os.O_WRONLY)

    def test_events_wait(self):
        """A reader waits for the next change, as another user, too."""
        self.open()
        path = self.tree.path("netcfg", "ifaces", self.name, "events")

        def work(pipe):
            file = os.open(path, os.O_RDONLY)
            pipe.send("open")
            pipe.send(os.read(file, 4096))

        child = self.child(work, NOBODY)
        self.assertEqual(child.hear(), "open")
        self.tree.write(f"ifaces/{self.name}/mtu", "1400\n")
        self.assertEqual(child.hear(), b"mtu 1400\n")

    def test_events_that_are_lost(self):
        """64 KiB wait for a reader, and then one line says that there were more."""
        self.open()
        file = self.events()
        mtu = os.open(self.tree.path("netcfg", "ifaces", self.name, "mtu"), os.O_WRONLY)
        for turn in range(8000):
            os.write(mtu, b"%d\n" % (1400 + turn % 2))
        os.close(mtu)
        text = b""
        while self.readable(file):
            text += os.read(file, 4096)
        self.assertLessEqual(len(text), 65536 + 5)
        self.assertGreater(len(text), 65000)
        self.assertTrue(text.endswith(b"\nlost\n"))
        self.assertEqual(text.count(b"lost"), 1)
        self.tree.write(f"ifaces/{self.name}/mtu", "1400\n")
        self.assertEqual(os.read(file, 4096), b"mtu 1400\n")

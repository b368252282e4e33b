"""Section 1, last close and what is down: what goes, what stays, and ENETDOWN."""

import errno
import fcntl
import os
import struct

import numbers_of as numbers
import packet as wire
from case import Contract
from tree import wait_until


class LastClose(Contract):
    """What the last close does."""

    def routes(self, name=None):
        """The routes that leave by an interface."""
        lines = self.tree.read("route/list").splitlines()
        return [line for line in lines if f"dev {name or self.name}" in line]

    def test_what_goes(self):
        """The queue is purged (and counted), the interface goes down, its routes go."""
        link = self.link(head=True)
        self.tree.write("route/add", f"198.18.0.0/16 via {link.peer} dev {link.name}\n")
        self.tree.write("route/add", f"2001:db8::/32 dev {link.name}\n")
        self.assertEqual(len(self.routes()), 4)
        self.assertLessEqual({"UP", "RUNNING"}, self.flags())
        link.drain()
        for _ in range(7):
            self.tree.inject(self.name, wire.echo(link.here, link.peer))
        drops = self.tree.drops(self.name)
        os.close(link.file)
        wait_until(lambda: self.flags() == {"POINTOPOINT", "MULTICAST"}, "a down interface")
        self.assertEqual(self.routes(), [])
        self.assertEqual(self.tree.read(f"ifaces/{self.name}/status"), "")
        self.assertEqual(self.tree.drops(self.name), drops + 7)
        self.assertEqual(self.tree.ledger(self.name)["out.queued"], 0)
        self.assertIn(str(self.unit), os.listdir(self.tree.path("tun")))
        file = self.open()
        self.assertFalse(self.readable(file))

    def test_what_stays(self):
        """Addresses, mtu, type, mode and IFHEAD survive; batch mode does not."""
        file = self.open()
        self.set(file, "TUNSIFMODE", 0x8002)
        fcntl.ioctl(file, numbers.linux("TUNSIFINFO"), struct.pack("=iHBB", 9600, 1400, 6, 0))
        self.tree.write(f"ifaces/{self.name}/addr/set", "10.77.0.1/24\n")
        self.set(file, "TUNSIFHEAD", 1)
        self.set(file, "TUNSBATCH", 1)
        os.close(file)
        self.assertEqual(self.tree.read(f"ifaces/{self.name}/mtu"), "1400\n")
        self.assertEqual(self.tree.read(f"ifaces/{self.name}/addr/list"), "10.77.0.1/24\n")
        file = self.open()
        self.assertEqual(self.flags(), {"BROADCAST", "MULTICAST"})
        self.assertEqual(self.get(file, "TUNGIFHEAD"), 1)
        self.assertEqual(self.get(file, "TUNGBATCH"), 0)
        info = fcntl.ioctl(file, numbers.linux("TUNGIFINFO"), bytes(8))
        self.assertEqual(struct.unpack("=iHB", info[:7]), (9600, 1400, 6))

    def test_lmode_stays(self):
        """LMODE survives the last close."""
        file = self.open()
        self.set(file, "TUNSLMODE", 1)
        os.close(file)
        file = self.open()
        self.tree.inject(self.name, wire.echo("10.1.1.1", "10.1.1.2"))
        self.assertEqual(len(os.read(file, 200)), 16 + 28)

    def test_connected_routes_come_back(self):
        """Up again, the interface has its connected routes again, and only those."""
        link = self.link(head=True)
        connected = self.routes()
        self.assertEqual(len(connected), 2)
        self.tree.write("route/add", f"198.18.0.0/16 dev {link.name}\n")
        os.close(link.file)
        wait_until(lambda: self.routes() == [], "no routes")
        link.file = self.open()
        self.assertEqual(self.routes(), [])
        self.tree.write(f"ifaces/{self.name}/flags", "up\n")
        self.assertEqual(self.routes(), connected)
        self.assertEqual(link.before_pong(), [])
        self.assertEqual(link.before_pong(six=True), [])

    def test_transient(self):
        """With TRANSIENT the last close destroys the interface; the next open is a new one."""
        for _ in range(3):
            link = self.link()
            self.set(link.file, "TUNSTRANSIENT", 1)
            self.tree.write(f"ifaces/{self.name}/mtu", "1400\n")
            second = os.dup(link.file)
            os.close(link.file)
            self.assertIn(self.name, self.tree.interfaces())
            os.close(second)
            wait_until(lambda: self.name not in self.tree.interfaces(), "a destroyed interface")
            self.assertNotIn(str(self.unit), os.listdir(self.tree.path("tun")))
            self.assertEqual(self.routes(), [])
        file = self.open()
        self.assertEqual(self.get(file, "TUNGTRANSIENT"), 0)
        self.assertEqual(self.tree.read(f"ifaces/{self.name}/mtu"), "1500\n")
        self.assertEqual(self.tree.read(f"ifaces/{self.name}/addr/list"), "")

    def test_shut_is_a_last_close(self):
        """TUNSHUT does what the last close does, although descriptors are left."""
        link = self.link()
        self.keep(os.dup(link.file))
        self.tree.inject(self.name, wire.echo(link.here, link.peer))
        self.set(link.file, "TUNSHUT")
        self.assertEqual(self.flags(), {"POINTOPOINT", "MULTICAST"})
        self.assertEqual(self.routes(), [])
        self.assertEqual(self.tree.read(f"ifaces/{self.name}/status"), "")
        self.assertFalse(self.readable(self.open()))

    def test_output_of_a_closed_unit(self):
        """What is sent out of a closed interface is EHOSTDOWN, counted, and not captured."""
        os.close(self.open())
        tap = self.keep(self.tree.bpf(self.name, os.O_RDWR | os.O_NONBLOCK))
        self.fails(errno.EHOSTDOWN, os.write, tap, struct.pack("=I", 2) + wire.echo("1.1.1.1", "1.1.1.2"))
        header = os.read(tap, 4096)
        self.assertEqual(len(header), 24)


class Down(Contract):
    """What is down is routing."""

    def ping(self, link, data=b"ping"):
        """Writes an echo request to a new socket for the peer; the descriptor."""
        file = self.keep(os.open(self.tree.path("icmp", "echo", link.peer), os.O_RDWR))
        os.write(file, struct.pack("!H", 7) + data)
        return file

    def test_icmp_socket(self):
        """While up: an echo request goes out, and the reply comes back to the socket."""
        link = self.link()
        file = self.ping(link)
        asked = link.recv()
        self.assertEqual((asked.src, asked.dst, asked.kind), (link.here, link.peer, (8, 0)))
        self.assertEqual(asked.payload[6:], b"\0\x07ping")
        body = wire.icmp(link.peer, link.here, 0, 0, asked.payload[4:8], b"ping")
        link.send(wire.ip4(link.peer, link.here, wire.ICMP, body))
        self.assertTrue(self.readable(file, 10))
        self.assertEqual(os.read(file, 100), b"\0\x07ping")

    def test_senders_get_enetdown(self):
        """Over an interface that is down, senders get ENETDOWN; up again, they succeed."""
        link = self.link()
        flags = f"ifaces/{link.name}/flags"
        self.tree.write(flags, "down\n")
        self.assertNotIn("UP", self.flags())
        file = self.keep(os.open(self.tree.path("icmp", "echo", link.peer), os.O_RDWR))
        self.fails(errno.ENETDOWN, os.write, file, b"\0\1data")
        self.assertFalse(self.readable(link.file))
        self.tree.write(flags, "up\n")
        self.assertEqual(os.write(file, b"\0\1data"), 6)
        self.assertEqual(link.recv().dst, link.peer)

    def test_errors_of_the_output_reach_the_sender(self):
        """EHOSTDOWN from a closed unit, ENOBUFS from a full queue, EAFNOSUPPORT without IFHEAD."""
        link = self.link(six=True)
        four = self.keep(os.open(self.tree.path("icmp", "echo", link.peer), os.O_RDWR))
        six = self.keep(os.open(self.tree.path("icmp", "echo", link.peer6), os.O_RDWR))
        self.fails(errno.EAFNOSUPPORT, os.write, six, b"\0\1data")
        self.tree.write(f"ifaces/{link.name}/queue", "fifo limit 1 packets 1048576 bytes\n")
        self.assertEqual(os.write(four, b"\0\1data"), 6)
        self.fails(errno.ENOBUFS, os.write, four, b"\0\2data")
        os.close(link.file)
        self.tree.write(f"ifaces/{link.name}/flags", "up\n")
        self.fails(errno.EHOSTDOWN, os.write, four, b"\0\3data")

    def test_ping_ourselves(self):
        """Our own addresses answer, those of lo0 and of a unit, and no packet leaves."""
        link = self.link()
        for target in ("127.0.0.1", "::1", link.here):
            file = self.keep(os.open(self.tree.path("icmp", "echo", target), os.O_RDWR))
            os.write(file, b"\0\5self")
            self.assertTrue(self.readable(file, 10))
            self.assertEqual(os.read(file, 100), b"\0\5self")
        self.assertFalse(self.readable(link.file))

    def test_ipv6_needs_its_mtu(self):
        """Below an mtu of 1280 an address of IPv6 is EINVAL."""
        self.open()
        self.tree.write(f"ifaces/{self.name}/mtu", "1279\n")
        for verb in ("add", "set"):
            self.fails(errno.EINVAL, self.tree.write, f"ifaces/{self.name}/addr/{verb}", "fd00:7::1/64\n")
        self.assertEqual(self.tree.read(f"ifaces/{self.name}/addr/list"), "")
        self.tree.write(f"ifaces/{self.name}/mtu", "1280\n")
        self.tree.write(f"ifaces/{self.name}/addr/add", "fd00:7::1/64\n")
        self.assertEqual(self.tree.read(f"ifaces/{self.name}/addr/list"), "fd00:7::1/64\n")

    def test_ipv6_packets_below_its_mtu(self):
        """Below an mtu of 1280, packets of IPv6 are dropped and counted; IPv4 goes on."""
        link = self.link(head=True)
        self.assertEqual(link.before_pong(six=True), [])
        self.tree.write(f"ifaces/{self.name}/mtu", "1279\n")
        link.drain()
        before = self.tree.ledger(self.name)["in.dropped"]
        ping = wire.echo(link.peer6, link.here6)
        for count in range(1, 4):
            self.assertEqual(link.send(ping), len(ping) + 4)
            self.assertEqual(link.before_pong(), [])
            self.assertEqual(self.tree.ledger(self.name)["in.dropped"], before + count)
        sent = self.tree.ledger(self.name)["out.dropped"]
        try:
            self.tree.inject(self.name, ping, 28)
        except OSError:
            pass  # The contract names no error for it.
        self.assertEqual(self.tree.ledger(self.name)["out.dropped"], sent + 1)

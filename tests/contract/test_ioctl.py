"""Section 2: every request, in both encodings, with every error."""

import errno
import fcntl
import os
import struct

import numbers_of as numbers
import packet as wire
from case import Contract, Link
from numbers_of import REQUESTS, bsd, linux

# What the contract prints, in the form of BSD.
PRINTED = {
    "TUNSIFHEAD": 0x80047460,
    "TUNGIFHEAD": 0x40047461,
    "TUNSIFMODE": 0x8004745E,
    "TUNSLMODE": 0x8004745D,
    "TUNSIFPID": 0x2000745F,
    "TUNSIFINFO": 0x8008745B,
    "TUNGIFINFO": 0x4008745C,
    "TUNSDEBUG": 0x8004745A,
    "TUNGDEBUG": 0x40047459,
    "FIONREAD": 0x4004667F,
}


def sample(size=60):
    """A packet of a size."""
    return wire.ip4("10.1.1.1", "10.1.1.2", 253, bytes(size - 20))


class Ioctl(Contract):
    """ioctl(2) on a unit."""

    def setUp(self):
        super().setUp()
        self.file = self.open()

    def info(self):
        """TUNGIFINFO: baudrate, mtu and type."""
        answer = fcntl.ioctl(self.file, linux("TUNGIFINFO"), b"\xee" * 8)
        return struct.unpack("=iHB", answer[:7])

    def set_info(self, baudrate, mtu, kind):
        """TUNSIFINFO."""
        fcntl.ioctl(self.file, linux("TUNSIFINFO"), struct.pack("=iHBB", baudrate, mtu, kind, 0))

    def test_numbers(self):
        """The encoding here gives the numbers that the contract prints."""
        for name, number in PRINTED.items():
            self.assertEqual(bsd(name), number, name)

    def test_bsd_encoding(self):
        """In BSD's encoding, requests without argument work; FUSE carries no argument: EINVAL."""
        for name, (_, _, size, _) in REQUESTS.items():
            with self.subTest(name=name):
                if size:
                    self.fails(errno.EINVAL, fcntl.ioctl, self.file, bsd(name), bytes(size))
        fcntl.ioctl(self.file, bsd("TUNSIFPID"))
        fcntl.ioctl(self.file, bsd("TUNSHUT"))
        self.fails(errno.EHOSTDOWN, os.read, self.file, 10)

    def test_direction_bits_do_not_matter(self):
        """Bits 29 to 31 are cleared: a request that goes both ways is the same request."""
        both = numbers.IN_LINUX | numbers.OUT_LINUX
        fcntl.ioctl(self.file, numbers.triple("t", 96, 4) | both, struct.pack("=i", 1))
        answer = fcntl.ioctl(self.file, numbers.triple("t", 97, 4) | both, bytes(4))
        self.assertEqual(struct.unpack("=i", answer), (1,))

    def test_unknown(self):
        """A (type, number, size) that is not in the table is ENOTTY, in both encodings."""
        wrong = [("t", 88, 4), ("t", 100, 4), ("t", 129, 4), ("t", 133, 0), ("u", 96, 4)]
        wrong += [("t", 95, 4), ("t", 96, 8), ("t", 91, 4), ("t", 92, 4), ("t", 98, 16)]
        wrong += [("t", 97, 0), ("f", 127, 8), ("f", 128, 4), ("f", 1, 0), ("t", 132, 4), ("t", 89, 1)]
        for group, number, size in wrong:
            for way in (numbers.IN_LINUX, numbers.OUT_LINUX) if size else (0, numbers.VOID_BSD):
                with self.subTest(group=group, number=number, size=size, way=way):
                    request = numbers.triple(group, number, size) | way
                    self.fails(errno.ENOTTY, fcntl.ioctl, self.file, request, bytes(max(size, 4)))

    def test_names(self):
        """TUNGIFNAME of DragonFly and of FreeBSD: the name, NUL-padded, in the first 16 bytes."""
        for request in ("TUNGIFNAME", "TUNGIFNAME_FREEBSD"):
            answer = fcntl.ioctl(self.file, linux(request), b"\xee" * 32)
            self.assertEqual(answer[:16], self.name.encode().ljust(16, b"\0"))

    def test_info(self):
        """TUNSIFINFO sets mtu, type and baudrate; an mtu below 72 is EINVAL and changes nothing."""
        self.assertEqual(self.info(), (0, 1500, 0x17))
        self.set_info(115200, 72, 0x35)
        self.assertEqual(self.info(), (115200, 72, 0x35))
        self.assertEqual(self.tree.read(f"ifaces/{self.name}/mtu"), "72\n")
        for mtu in (71, 1, 0):
            self.fails(errno.EINVAL, self.set_info, 1, mtu, 1)
        self.assertEqual(self.info(), (115200, 72, 0x35))
        self.set_info(-1, 65535, 255)
        self.assertEqual(self.info(), (-1, 65535, 255))
        self.tree.write(f"ifaces/{self.name}/mtu", "1400\n")
        self.assertEqual(self.info(), (-1, 1400, 255))

    def test_debug(self):
        """TUNSDEBUG keeps any int, for the whole driver, and netcfg shows the same switch."""
        other = self.open(next(self.units))
        self.addCleanup(self.tree.write, "debug/if_tun_debug", "0\n")
        self.assertEqual(self.get(self.file, "TUNGDEBUG"), 0)
        for value in (1, -1, 2**31 - 1, -(2**31), 0):
            self.set(self.file, "TUNSDEBUG", value)
            self.assertEqual(self.get(other, "TUNGDEBUG"), value)
            self.assertEqual(self.tree.read("debug/if_tun_debug"), f"{value}\n")
        self.tree.write("debug/if_tun_debug", "7\n")
        self.assertEqual(self.get(self.file, "TUNGDEBUG"), 7)

    def test_debug_traces(self):
        """The debug switch traces the entry points, with the name of the interface."""
        self.set(self.file, "TUNSDEBUG", 1)
        self.addCleanup(self.tree.write, "debug/if_tun_debug", "0\n")
        os.write(self.file, sample())
        self.tree.inject(self.name, sample())
        os.read(self.file, 100)
        self.readable(self.file)
        self.set(self.file, "TUNSDEBUG", 0)
        said = self.tree.said()
        self.assertIn(self.name, said)

    def test_header_modes_exclude_each_other(self):
        """IFHEAD turns LMODE off and the other way round; zero turns off only its own."""
        packet = sample()
        next_hop = struct.pack("=BBH4s8s", 16, 2, 0, bytes([10, 1, 1, 2]), bytes(8))
        heads = {"none": b"", "ifhead": b"\0\0\0\x02", "lmode": next_hop}
        steps = [("TUNSIFHEAD", 1, "ifhead"), ("TUNSLMODE", 0, "ifhead"), ("TUNSLMODE", 5, "lmode")]
        steps += [("TUNSIFHEAD", 0, "lmode"), ("TUNSIFHEAD", -1, "ifhead"), ("TUNSLMODE", 1, "lmode")]
        steps += [("TUNSLMODE", 0, "none"), ("TUNSIFHEAD", 1, "ifhead"), ("TUNSIFHEAD", 0, "none")]
        self.assertEqual(self.get(self.file, "TUNGIFHEAD"), 0)
        for request, value, mode in steps:
            self.set(self.file, request, value)
            self.assertEqual(self.get(self.file, "TUNGIFHEAD"), int(mode == "ifhead"))
            self.tree.inject(self.name, packet)
            found = os.read(self.file, 200)
            self.assertEqual(found[len(heads[mode]) :], packet)
            if mode != "lmode":  # An injected packet has no route; its sockaddr is tested below.
                self.assertEqual(found[: len(heads[mode])], heads[mode])

    def test_mode_does_not_touch_queued_packets(self):
        """A packet has the header of the mode that was in force when it was sent."""
        self.tree.inject(self.name, sample(40))
        self.set(self.file, "TUNSIFHEAD", 1)
        self.tree.inject(self.name, sample(41))
        self.set(self.file, "TUNSLMODE", 1)
        self.tree.inject(self.name, sample(42))
        self.set(self.file, "TUNSLMODE", 0)
        self.tree.inject(self.name, sample(43))
        sizes = [len(os.read(self.file, 200)) for _ in range(4)]
        self.assertEqual(sizes, [40, 45, 58, 43])

    def test_lmode_carries_no_ipv6(self):
        """LMODE without IFHEAD takes AF_INET only: EAFNOSUPPORT for the rest, counted."""
        self.set(self.file, "TUNSLMODE", 1)
        self.fails(errno.EAFNOSUPPORT, self.tree.inject, self.name, wire.echo("fd00::1", "fd00::2"), 28)
        self.assertEqual(self.tree.drops(self.name), 1)
        self.assertEqual(self.tree.stats(self.name)["opackets"], 0)

    def test_next_hop(self):
        """LMODE: a sockaddr_in of the gateway that the route gives, or of the destination."""
        link = self.link_of_file()
        self.set(self.file, "TUNSLMODE", 1)
        far = "198.18.7.7"
        self.tree.write("route/add", f"198.18.0.0/16 via {link.peer} dev {link.name}\n")
        for src, hop in ((link.peer, link.peer), (far, link.peer)):
            ping = wire.echo(src, link.here)
            self.assertEqual(os.write(self.file, ping), len(ping))
            self.assertTrue(self.readable(self.file, 10))
            found = os.read(self.file, 200)
            expected = struct.pack("=BBH4s8s", 16, 2, 0, wire.address(hop), bytes(8))
            self.assertEqual(found[:16], expected)
            self.assertEqual(wire.Packet(found[16:]).dst, src)

    def link_of_file(self):
        """The addresses of the unit, set."""
        link = Link(self.tree, self.unit, self.file, False)
        self.tree.write(f"ifaces/{link.name}/addr/add", f"{link.here}/24\n")
        return link

    def test_ifmode(self):
        """TUNSIFMODE replaces POINTOPOINT, BROADCAST and MULTICAST; other values are EINVAL."""
        steps = [(0x2, {"BROADCAST"}), (0x8002, {"BROADCAST", "MULTICAST"}), (0x10, {"POINTOPOINT"})]
        steps += [(0x1002, {"BROADCAST", "MULTICAST"}), (0x8010, {"POINTOPOINT", "MULTICAST"})]
        steps += [(0x9010, {"POINTOPOINT", "MULTICAST"})]
        for value, flags in steps:
            self.set(self.file, "TUNSIFMODE", value)
            self.assertEqual(self.flags(), flags)
            for bad in (0, 0x12, 0x8012, 0x8000, 0x1000, 0x1, 0x11, 0x42, 0x10010, -1, -(2**31)):
                self.fails(errno.EINVAL, self.set, self.file, "TUNSIFMODE", bad)
            self.assertEqual(self.flags(), flags)

    def test_ifmode_while_up(self):
        """EBUSY while UP, whatever the value; after down it works again."""
        self.tree.write(f"ifaces/{self.name}/flags", "up\n")
        for value in (0x2, 0x10, 0x12):
            self.fails(errno.EBUSY, self.set, self.file, "TUNSIFMODE", value)
        self.tree.write(f"ifaces/{self.name}/flags", "down\n")
        self.set(self.file, "TUNSIFMODE", 0x2)
        self.assertIn("BROADCAST", self.flags())

    def test_fionread(self):
        """The bytes of the first packet with its header; 0 for an empty queue."""
        self.assertEqual(self.get(self.file, "FIONREAD"), 0)
        self.tree.inject(self.name, sample(50))
        self.set(self.file, "TUNSIFHEAD", 1)
        self.tree.inject(self.name, sample(60))
        self.set(self.file, "TUNSLMODE", 1)
        self.tree.inject(self.name, sample(70))
        for size in (50, 64, 86):
            self.assertEqual(self.get(self.file, "FIONREAD"), size)
            self.assertEqual(len(os.read(self.file, 200)), size)
        self.assertEqual(self.get(self.file, "FIONREAD"), 0)

    def test_fionbio_is_accepted(self):
        """BSD's FIONBIO is accepted, and leaves the flags of the descriptor alone."""
        self.set(self.file, "FIONBIO", 1)
        self.set(self.file, "FIONBIO", 0)
        self.assertFalse(fcntl.fcntl(self.file, fcntl.F_GETFL) & os.O_NONBLOCK)

    def test_transient(self):
        """TUNSTRANSIENT is a switch, off at first; TUNGTRANSIENT tells."""
        self.assertEqual(self.get(self.file, "TUNGTRANSIENT"), 0)
        self.set(self.file, "TUNSTRANSIENT", 5)
        self.assertEqual(self.get(self.file, "TUNGTRANSIENT"), 1)
        self.set(self.file, "TUNSTRANSIENT", 0)
        self.assertEqual(self.get(self.file, "TUNGTRANSIENT"), 0)

    def test_batch_switch(self):
        """TUNSBATCH is a switch, off at first; TUNGBATCH tells."""
        self.assertEqual(self.get(self.file, "TUNGBATCH"), 0)
        self.set(self.file, "TUNSBATCH", -3)
        self.assertEqual(self.get(self.file, "TUNGBATCH"), 1)
        self.set(self.file, "TUNSBATCH", 0)
        self.assertEqual(self.get(self.file, "TUNGBATCH"), 0)

"""Section 3: ifnet as text files."""

import errno
import os
import select
import stat
import subprocess

import packet as wire
from case import Contract
from procs import as_user
from tree import PATIENCE

STATS = "ipackets ibytes ierrors iqdrops opackets obytes oerrors odrops collisions lastchange".split()


class Netcfg(Contract):
    """The files that are not about one interface, and what holds for all files."""

    def of(self, name):
        """A netcfg file of the interface under test."""
        return f"ifaces/{self.name}/{name}"

    def refused(self, name, lines, witness=None):
        """Asserts that lines are EINVAL and that a text stays as it was."""
        witness = witness or name
        before = self.tree.read(witness)
        for line in lines:
            with self.subTest(file=name, line=line):
                self.fails(errno.EINVAL, self.tree.write, name, line + "\n")
                self.assertEqual(self.tree.read(witness), before)

    def test_directories(self):
        """The tree has the directories and files of the contract."""
        self.open()
        ours = "mac addr mtu flags status multicast queue stats destroy ledger".split()
        expected = {
            "": ["resolv", "debug", "route", "ip", "ifaces"],
            "resolv": ["nameserver"],
            "debug": ["if_tun_debug"],
            "route": ["list", "add", "rm"],
            "ip": ["forwarding"],
            "ifaces": ["lo0", self.name],
            f"ifaces/{self.name}": ours,
            f"ifaces/{self.name}/addr": ["list", "set", "add", "rm"],
        }
        for name, entries in expected.items():
            with self.subTest(directory=name):
                self.assertLessEqual(set(entries), set(os.listdir(self.tree.path("netcfg", name))))

    def test_unknown_names(self):
        """Names that are not there are ENOENT, also with O_CREAT on them; nothing is created."""
        for name in ("x", "route/x", "ifaces/tun99", "ifaces/x/mtu", "ifaces/lo0/x", "ifaces/tun01/mtu"):
            path = self.tree.path("netcfg", name)
            with self.subTest(name=name):
                self.fails(errno.ENOENT, os.open, path, os.O_RDONLY)
                self.assertRaises(OSError, os.open, path, os.O_WRONLY | os.O_CREAT)
                self.fails(errno.ENOENT, os.stat, path)

    def test_access(self):
        """access(2) says what an open would."""
        self.open()
        paths = {"tun/clone": (True, True), "netcfg/route/add": (True, True), "netcfg/route/list": (True, False)}
        for name, (reads, writes) in paths.items():
            path = self.tree.path(*name.split("/"))
            with self.subTest(name=name):
                self.assertEqual(os.access(path, os.R_OK), reads)
                self.assertEqual(os.access(path, os.W_OK), writes)
                self.assertFalse(os.access(path, os.X_OK))
                for mode in (os.R_OK, os.W_OK):
                    allowed = mode == os.R_OK and name != "tun/clone"
                    found = as_user(lambda path=path, mode=mode: os.access(path, mode))
                    self.assertEqual(found, ("value", allowed))
        self.assertTrue(os.access(self.tree.path("netcfg"), os.R_OK | os.X_OK))
        self.assertFalse(os.access(self.tree.path("netcfg"), os.W_OK))

    def test_listing(self):
        """What goes while a directory is listed hides nothing else; `.` and `..` are there."""
        files = [self.open(unit) for unit in range(2000, 2200)]
        path = self.tree.path("netcfg", "ifaces")
        with os.scandir(path) as listing:
            first = next(listing).name
            for file in files[:100]:
                os.close(file)
            for unit in range(2000, 2100):
                self.tree.destroy(f"tun{unit}")
            names = {first, *(entry.name for entry in listing)}
        self.assertLessEqual({f"tun{unit}" for unit in range(2100, 2200)}, names)
        shown = subprocess.run(["ls", "-a", path], capture_output=True, text=True, check=True).stdout
        self.assertEqual(shown.split()[:2], [".", ".."])

    def test_other_users(self):
        """Everyone reads; a user other than root gets EACCES for writing."""
        self.open()
        for name in ("route/list", "resolv/nameserver", self.of("mtu"), self.of("stats")):
            path = self.tree.path("netcfg", name)
            kind, text = as_user(lambda path=path: os.read(os.open(path, os.O_RDONLY), 4096).decode())
            self.assertEqual((kind, text), ("value", self.tree.read(name)))
        for name in ("route/add", self.of("mtu"), self.of("addr/set"), "resolv/nameserver", self.of("destroy")):
            path = self.tree.path("netcfg", name)
            for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_WRONLY | os.O_CREAT):
                found = as_user(lambda path=path, flags=flags: os.open(path, flags))
                self.assertEqual(found, ("errno", errno.EACCES), f"{name} {flags}")

    def test_create_and_truncate(self):
        """O_CREAT and O_TRUNC are accepted, truncation alone changes nothing, the shell's > works."""
        self.open()
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        file = os.open(self.tree.path("netcfg", self.of("mtu")), flags, 0o644)
        self.assertEqual(self.tree.read(self.of("mtu")), "1500\n")
        os.write(file, b"1450\n")
        os.close(file)
        self.assertEqual(self.tree.read(self.of("mtu")), "1450\n")
        path = self.tree.path("netcfg", self.of("mtu"))
        subprocess.run(["sh", "-c", 'echo 1451 > "$1"', "sh", path], check=True)
        self.assertEqual(self.tree.read(self.of("mtu")), "1451\n")
        found = subprocess.run(["sh", "-c", 'echo 71 > "$1"', "sh", path], check=False, capture_output=True)
        self.assertNotEqual(found.returncode, 0)

    def test_unfinished_line(self):
        """A line without its end takes effect on fsync or close, not before; pieces are one line."""
        self.open()
        mtu = self.of("mtu")
        file = os.open(self.tree.path("netcfg", mtu), os.O_WRONLY)
        os.write(file, b"14")
        self.assertEqual(self.tree.read(mtu), "1500\n")
        os.write(file, b"00")
        self.assertEqual(self.tree.read(mtu), "1500\n")
        os.fsync(file)
        self.assertEqual(self.tree.read(mtu), "1400\n")
        os.write(file, b"1401\n")
        self.assertEqual(self.tree.read(mtu), "1401\n")
        os.write(file, b"71")
        self.fails(errno.EINVAL, os.fsync, file)
        self.assertEqual(self.tree.read(mtu), "1401\n")
        os.write(file, b"1402")
        os.close(file)
        self.assertEqual(self.tree.read(mtu), "1402\n")
        file = os.open(self.tree.path("netcfg", mtu), os.O_WRONLY)
        os.write(file, b"nonsense")
        os.close(file)
        self.assertEqual(self.tree.read(mtu), "1402\n")

    def test_line_in_pieces_by_children(self):
        """The exit of a child that inherited the file is not the close that ends a line."""
        self.open()
        file = os.open(self.tree.path("netcfg", self.of("mtu")), os.O_WRONLY)
        os.write(file, b"14")
        self.child(lambda pipe: None).wait()
        self.assertEqual(os.write(file, b"00\n"), 3)
        os.close(file)
        self.assertEqual(self.tree.read(self.of("mtu")), "1400\n")

    def test_endless_line(self):
        """A line that never ends is refused at some length, and leaves the setting alone."""
        self.open()
        file = os.open(self.tree.path("netcfg", self.of("mtu")), os.O_WRONLY)
        with self.assertRaises(OSError):
            for _ in range(256):
                os.write(file, b"1" * 65536)
        os.close(file)
        self.assertEqual(self.tree.read(self.of("mtu")), "1500\n")

    def test_several_lines(self):
        """One setting per line: a write of several lines makes all of them."""
        self.open()
        self.tree.write(self.of("addr/add"), "10.80.0.1/24\n10.81.0.1/24\n")
        self.assertEqual(self.tree.read(self.of("addr/list")), "10.80.0.1/24\n10.81.0.1/24\n")

    def test_nameserver(self):
        """One IPv4 or IPv6 address, shown as written."""
        name = "resolv/nameserver"
        for text in ("192.0.2.53\n", "2001:db8::53\n"):
            self.tree.write(name, text)
            self.assertEqual(self.tree.read(name), text)
        self.refused(name, ["x", "1.2.3", "1.2.3.4.5", "1.2.3.256", "1.2.3.4/8", "1.2.3.4 5.6.7.8", ":::"])

    def test_one_value(self):
        """Where there is one value, a second line is refused: it is not silently the last."""
        for name, one, other in (
            ("resolv/nameserver", b"192.0.2.53\n", b"192.0.2.54\n"),
            ("ip/forwarding", b"0\n", b"1\n"),
            ("debug/if_tun_debug", b"0\n", b"7\n"),
        ):
            with self.subTest(name=name):
                path = self.tree.path("netcfg", name)
                file = self.keep(os.open(path, os.O_RDWR))
                os.write(file, one)
                self.fails(errno.EINVAL, os.write, self.keep(os.open(path, os.O_RDWR)), other + one)
                if name == "resolv/nameserver":
                    # As a shell's printf does it.
                    self.fails(errno.EINVAL, os.write, file, other)
                self.assertEqual(self.tree.read(name).encode(), one)
                # From the start it is another text; so it is for each >> of a shell.
                os.pwrite(file, other, 0)
                self.assertEqual(self.tree.read(name).encode(), other)
                for line in (other, one):
                    append = os.open(path, os.O_WRONLY | os.O_APPEND)
                    os.write(append, line)
                    os.close(append)
                self.assertEqual(self.tree.read(name).encode(), one)

    def test_debug(self):
        """An int, exactly."""
        name = "debug/if_tun_debug"
        self.addCleanup(self.tree.write, name, "0\n")
        self.assertEqual(self.tree.read(name), "0\n")
        for text in ("-1\n", "2147483647\n", "-2147483648\n", "0\n"):
            self.tree.write(name, text)
            self.assertEqual(self.tree.read(name), text)
        self.refused(name, ["x", "2147483648", "1.5", "1 1", "0x1", ""])

    def test_forwarding(self):
        """0 or 1, nothing else."""
        name = "ip/forwarding"
        self.assertEqual(self.tree.read(name), "0\n")
        self.tree.write(name, "1\n")
        self.assertEqual(self.tree.read(name), "1\n")
        self.refused(name, ["2", "-1", "yes", "01x"])
        self.tree.write(name, "0\n")
        self.assertEqual(self.tree.read(name), "0\n")

    def test_mtu(self):
        """72..=65535."""
        self.open()
        self.refused(self.of("mtu"), ["71", "0", "-1", "65536", "4294967368", "x", "1500x", "1500 1"])
        for text in ("72\n", "65535\n", "1500\n"):
            self.tree.write(self.of("mtu"), text)
            self.assertEqual(self.tree.read(self.of("mtu")), text)

    def test_flags(self):
        """The text names the flags; up and down are written; nothing else is."""
        self.open()
        flags = self.of("flags")
        self.assertEqual(self.tree.read(flags), "POINTOPOINT,MULTICAST\n")
        self.tree.write(flags, "up\n")
        self.assertIn("UP", self.flags())
        self.refused(flags, ["sideways", "up down", "RUNNING", "UP,RUNNING"])
        self.tree.write(flags, "down\n")
        self.assertNotIn("UP", self.flags())
        self.tree.write(self.of("addr/set"), "10.80.0.1/24\n")
        self.assertEqual(self.tree.read(flags), "UP,POINTOPOINT,RUNNING,MULTICAST\n")
        self.assertEqual(self.flags("lo0") & {"UP", "LOOPBACK"}, {"UP", "LOOPBACK"})

    def test_setting_an_address_brings_it_up(self):
        """Setting an address makes the interface UP and RUNNING and stamps lastchange."""
        for verb, line in (("add", "10.80.0.1/24"), ("set", "10.80.0.1 peer 10.80.0.2"), ("add", "fd80::1/64")):
            self.unit = next(self.units)
            self.name = f"tun{self.unit}"
            self.open()
            self.assertEqual(self.tree.stats(self.name)["lastchange"], 0)
            self.tree.write(self.of(f"addr/{verb}"), line + "\n")
            self.assertLessEqual({"UP", "RUNNING"}, self.flags())
            self.assertGreater(self.tree.stats(self.name)["lastchange"], 0)
            self.assertEqual(self.tree.read(self.of("addr/list")), line + "\n")

    def test_addresses(self):
        """add, rm, and set, which replaces all; connected routes follow."""
        self.open()
        add, rm, put, shown = (self.of(f"addr/{verb}") for verb in ("add", "rm", "set", "list"))
        self.tree.write(add, "10.80.0.1/24\n")
        self.tree.write(add, "10.81.0.1 peer 10.81.0.2\n")
        self.tree.write(add, "fd80::1/64\n")
        lines = "10.80.0.1/24 | 10.81.0.1 peer 10.81.0.2 | fd80::1/64".split(" | ")
        self.assertEqual(self.tree.read(shown).splitlines(), lines)
        routes = self.tree.read("route/list")
        for route in ("10.80.0.0/24", "10.81.0.2", "fd80::/64"):
            self.assertIn(route, routes)
        self.tree.write(rm, "10.80.0.1/24\n")
        self.assertEqual(self.tree.read(shown).splitlines(), lines[1:])
        self.assertNotIn("10.80.0.0/24", self.tree.read("route/list"))
        self.tree.write(put, "10.82.0.1/16\n")
        self.assertIn("10.82.0.1/16", self.tree.read(shown).splitlines())
        self.assertNotIn("10.81.0.1", self.tree.read(shown))
        self.assertNotIn("10.81.0.2", self.tree.read("route/list"))

    def test_set_replaces_a_family_or_all(self):
        """set replaces: of what was there in its family, nothing is left."""
        self.open()
        for text in ("10.80.0.1/24\n", "10.81.0.1/24\n", "10.82.0.1/24\n"):
            self.tree.write(self.of("addr/set"), text)
            self.assertEqual(self.tree.read(self.of("addr/list")), text)

    def test_bad_addresses(self):
        """Lines that are no address, or none that an interface can have, are EINVAL."""
        self.open()
        self.tree.write(self.of("addr/set"), "10.80.0.1/24\n")
        bad = ["x", "10.0.0.1/33", "10.0.0.1/-1", "10.0.0.256/8", "10.0.0/8", "10.0.0.1/24 x", "fd00::1/129"]
        bad += ["10.0.0.1 peer", "10.0.0.1 peer fd00::1", "peer 10.0.0.1", "224.0.0.1/24", "ff02::1/64"]
        bad += ["10.0.0.1/x", "10.0.0.1/", "/24", "10.0.0.1 to 10.0.0.2"]
        for verb in ("add", "set"):
            self.refused(self.of(f"addr/{verb}"), bad, self.of("addr/list"))
        self.refused(self.of("addr/rm"), ["x", "10.0.0.1/33"], self.of("addr/list"))

    def test_routes(self):
        """The grammar of a route, and what list shows of it; rm takes it away again."""
        self.open()
        self.tree.write(self.of("addr/add"), "10.80.0.1/24\nfd80::1/64\n")
        before = self.tree.read("route/list").splitlines()
        gateway = "10.80.0.2"
        lines = [
            f"default via {gateway}",
            f"198.18.0.0/16 via {gateway}",
            f"198.19.0.0/16 dev {self.name}",
            f"198.51.100.0/24 via {gateway} dev {self.name} src 10.80.0.1 metric 10",
            f"fd81::/16 via fe80::1 dev {self.name} src fd80::1 metric 10",
            f"2001:db8::/32 dev {self.name}",
            f"203.0.113.7 dev {self.name}",
        ]
        for line in lines:
            with self.subTest(line=line):
                self.tree.write("route/add", line + "\n")
                new = [text for text in self.tree.read("route/list").splitlines() if text not in before]
                self.assertEqual(len(new), 1)
                if "203.0" not in line and "fd81" not in line:
                    self.assertIn(line.split()[0], new[0])
                for word in ("via", "src", "metric"):
                    self.assertEqual(f" {word} " in new[0], f" {word} " in line, new[0])
                self.assertIn(f"dev {self.name}", new[0])
                self.tree.write("route/rm", line + "\n")
                self.assertEqual(self.tree.read("route/list").splitlines(), before)

    def test_list_of_routes_can_be_written_back(self):
        """What list shows, rm and add understand."""
        self.open()
        self.tree.write(self.of("addr/add"), "10.80.0.1/24\nfd80::1/64\n")
        self.tree.write("route/add", f"default via 10.80.0.2\n2001:db8::/32 via fe80::1 dev {self.name} metric 7\n")
        before = self.tree.read("route/list")
        for line in before.splitlines():
            if line.startswith(("default", "2001")):
                self.tree.write("route/rm", line + "\n")
                self.assertNotIn(line, self.tree.read("route/list").splitlines())
                self.tree.write("route/add", line + "\n")
        self.assertEqual(sorted(self.tree.read("route/list").splitlines()), sorted(before.splitlines()))

    def test_bad_routes(self):
        """Lines that are no route are EINVAL and change nothing."""
        self.open()
        self.tree.write(self.of("addr/add"), "10.80.0.1/24\n")
        here = f"dev {self.name}"
        bad = ["x", "default", "default via", "default via x", "default via 10.80.0.2 dev", "10.0.0.0/8"]
        bad += [f"10.0.0.0/33 {here}", f"10.0.0.0/8 via fd00::1 {here}", f"10.0.0.0/8 {here} metric x"]
        bad += [f"10.0.0.0/8 {here} metric", f"10.0.0.0/8 {here} {here}", f"10.0.0.0/8 {here} colour red"]
        bad += [f"10.0.0.0/8 {here} metric -1", f"10.0.0.0/8 {here} src fd00::1", f"fd00::/129 {here}"]
        self.refused("route/add", bad, "route/list")
        self.refused("route/rm", bad[:4] + bad[6:], "route/list")

    def test_longest_prefix(self):
        """The most specific route decides which interface a packet takes."""
        first = self.link()
        second = self.link(unit=next(self.units))
        self.tree.write("route/add", f"198.18.0.0/15 dev {first.name}\n198.18.5.0/24 dev {second.name}\n")
        for target, link in (("198.18.5.9", second), ("198.18.6.9", first), ("198.19.5.9", first)):
            file = self.keep(os.open(self.tree.path("icmp", "echo", target), os.O_RDWR))
            os.write(file, b"\0\1x")
            self.assertEqual(link.recv().dst, target)

    def test_mac(self):
        """A tun has none."""
        self.open()
        self.assertEqual(self.tree.read(self.of("mac")), "Not configured\n")
        self.assertRaises(OSError, self.tree.write, self.of("mac"), "02:00:00:00:00:01\n")

    def test_multicast(self):
        """Groups are joined and left by name; others than groups are EINVAL."""
        self.link(head=True)
        groups = self.of("multicast")
        for group in ("239.1.2.3", "ff05::1234"):
            self.assertNotIn(group, self.tree.read(groups))
            self.tree.write(groups, f"join {group}\n")
            self.assertIn(group, self.tree.read(groups).split())
            self.tree.write(groups, f"leave {group}\n")
            self.assertNotIn(group, self.tree.read(groups))
        self.refused(groups, ["join", "join x", "join 10.0.0.1", "join fd00::1", "239.1.2.3", "part 239.1.2.3"])

    def test_destroy(self):
        """1 removes a closed tunN with its routes; an open one, lo0 and other text are refused."""
        link = self.link()
        self.assertRaises(OSError, self.tree.write, self.of("destroy"), "1\n")
        self.assertIn(self.name, self.tree.interfaces())
        os.close(link.file)
        self.refused(self.of("destroy"), ["0", "x", "2", "1 1"], self.of("mtu"))
        self.tree.write(self.of("destroy"), "1\n")
        self.assertNotIn(self.name, self.tree.interfaces())
        self.assertNotIn(str(self.unit), os.listdir(self.tree.path("tun")))
        self.assertNotIn(self.name, os.listdir(self.tree.path("bpf")))
        self.fails(errno.ENOENT, self.tree.read, self.of("mtu"))
        self.assertRaises(OSError, self.tree.write, "ifaces/lo0/destroy", "1\n")
        self.assertIn("lo0", self.tree.interfaces())
        self.open()
        self.assertEqual(self.tree.read(self.of("addr/list")), "")

    def test_destroy_under_open_files(self):
        """Files of an interface that is gone answer with errors or nothing, and the name can return."""
        os.close(self.open())
        files = [os.open(self.tree.path("netcfg", self.of(name)), os.O_RDWR) for name in ("mtu", "flags")]
        tap = self.keep(self.tree.bpf(self.name, os.O_RDWR | os.O_NONBLOCK))
        self.tree.write(self.of("destroy"), "1\n")
        for file in files:
            self.assertRaises(OSError, os.write, file, b"1400\n")
            os.close(file)
        self.assertRaises(OSError, os.write, tap, bytes(60))
        self.open()
        self.assertEqual(self.tree.read(self.of("mtu")), "1500\n")

    def test_stats_names(self):
        """One `name value` per line, in the order of the contract, then drop.REASON lines."""
        self.open()
        queue = ("marked", "queue.packets", "queue.bytes", "queue.delay_us")
        for name in ("lo0", self.name):
            text = self.tree.read(f"ifaces/{name}/stats")
            lines = [line.split(" ") for line in text.splitlines()]
            self.assertTrue(text.endswith("\n") and all(len(line) == 2 for line in lines))
            names = [line[0] for line in lines]
            self.assertEqual(names[: len(STATS)], STATS)
            self.assertTrue(names[len(STATS) :])
            self.assertEqual(len(set(names)), len(names))
            for extra in names[len(STATS) :]:
                self.assertTrue(extra.startswith("drop.") or extra in queue, extra)
            self.assertTrue(all(line[1].isdigit() for line in lines))

    def test_ledger_names(self):
        """Both directions have the same five places."""
        self.open()
        places = "offered delivered forwarded queued dropped".split()
        expected = [f"{way}.{place}" for way in ("in", "out") for place in places]
        self.assertEqual(list(self.tree.ledger(self.name)), expected)

    def test_modes(self):
        """Readable by all, writable by root at most; directories are directories."""
        self.open()
        for name, mode in (("route/list", 0o444), (self.of("mtu"), 0o644), (self.of("stats"), 0o444)):
            found = os.stat(self.tree.path("netcfg", name))
            self.assertEqual(stat.S_IMODE(found.st_mode), mode, name)
        self.assertTrue(stat.S_ISDIR(os.stat(self.tree.path("netcfg", "ifaces")).st_mode))


class Queue(Contract):
    """ifaces/IF/queue: the limits of the send queue."""

    def setUp(self):
        super().setUp()
        self.file = self.open()
        self.queue = f"ifaces/{self.name}/queue"

    def fill(self, size, most):
        """Injects packets until ENOBUFS; how many went in."""
        packet = wire.ip4("10.1.1.1", "10.1.1.2", 253, bytes(size - 20))
        for count in range(most):
            try:
                self.tree.inject(self.name, packet)
            except OSError as error:
                self.assertEqual(error.errno, errno.ENOBUFS)
                return count
        return most

    def test_default(self):
        """250 packets and 1 MiB."""
        self.assertEqual(self.tree.read(self.queue), "fifo limit 250 packets 1048576 bytes\n")
        self.assertEqual(self.fill(60, 300), 250)

    def test_full_in_packets(self):
        """A full queue is ENOBUFS, `collisions` and a drop; opackets counts what went in."""
        self.tree.write(self.queue, "fifo limit 3 packets 1048576 bytes\n")
        self.assertEqual(self.tree.read(self.queue), "fifo limit 3 packets 1048576 bytes\n")
        for drops in (1, 2):
            self.assertEqual(self.fill(60, 10), 3 if drops == 1 else 0)
            stats = self.tree.stats(self.name)
            self.assertEqual((stats["opackets"], stats["odrops"], stats["collisions"]), (3, drops, drops))
            self.assertEqual(self.tree.drops(self.name), drops)
        self.assertEqual(self.tree.ledger(self.name)["out.queued"], 3)
        self.assertEqual(len(os.read(self.file, 100)), 60)
        self.assertEqual(self.fill(60, 10), 1)

    def test_full_in_bytes(self):
        """The limit in bytes holds as well."""
        self.tree.write(self.queue, "fifo limit 250 packets 1000 bytes\n")
        self.assertEqual(self.fill(300, 10), 3)
        self.assertEqual(self.tree.stats(self.name)["collisions"], 1)

    def test_bad_lines(self):
        """Other text is EINVAL and changes nothing."""
        before = self.tree.read(self.queue)
        bad = ["fifo limit", "fifo limit x packets 1 bytes", "lifo limit 1 packets 1 bytes", "250"]
        bad += ["fifo limit -1 packets 1 bytes", "fifo limit 1 packets 1 bytes more", "codel"]
        bad += ["fifo limit 1 packets 99999999999999999999999 bytes"]
        for line in bad:
            with self.subTest(line=line):
                self.fails(errno.EINVAL, self.tree.write, self.queue, line + "\n")
                self.assertEqual(self.tree.read(self.queue), before)


class Changes(Contract):
    """fevent READ on a file fires when its text changes."""

    def setUp(self):
        super().setUp()
        self.file = self.open()

    def test_poll_fires_on_change(self):
        """A watcher that has read a file is woken by the next change of its text, and only then."""
        name = f"ifaces/{self.name}"
        changes = {
            f"{name}/mtu": lambda: self.tree.write(f"{name}/mtu", "1444\n"),
            f"{name}/flags": lambda: self.tree.write(f"{name}/flags", "up\n"),
            f"{name}/addr/list": lambda: self.tree.write(f"{name}/addr/add", "10.80.0.1/24\n"),
            "route/list": lambda: self.tree.write("route/add", f"198.18.0.0/16 dev {self.name}\n"),
            "resolv/nameserver": lambda: self.tree.write("resolv/nameserver", "192.0.2.99\n"),
            "ip/forwarding": lambda: self.tree.write("ip/forwarding", "1\n"),
            f"{name}/multicast": lambda: self.tree.write(f"{name}/multicast", "join 239.1.2.3\n"),
            f"{name}/queue": lambda: self.tree.write(f"{name}/queue", "fifo limit 9 packets 9999 bytes\n"),
            f"{name}/stats": lambda: os.write(self.file, bytes(40)),
            f"{name}/ledger": lambda: os.write(self.file, bytes(40)),
            "debug/if_tun_debug": lambda: self.tree.write("debug/if_tun_debug", "2\n"),
            f"{name}/status": lambda: self.set(self.file, "TUNSHUT"),
        }
        self.addCleanup(self.tree.write, "ip/forwarding", "0\n")
        self.addCleanup(self.tree.write, "debug/if_tun_debug", "0\n")
        for path, change in changes.items():
            with self.subTest(path=path):
                self.watch(path, change)

    def watch(self, path, change):
        """Watches one file over one change, with poll and with an edge-triggered epoll."""
        file = self.keep(os.open(self.tree.path("netcfg", path), os.O_RDONLY | os.O_NONBLOCK))
        before = os.pread(file, 65536, 0)
        while os.read(file, 65536):
            pass
        poller = select.epoll()
        self.addCleanup(poller.close)
        poller.register(file, select.EPOLLIN | select.EPOLLET)
        poller.poll(0)
        self.assertFalse(self.readable(file), "readable before anything changed")
        self.assertEqual(poller.poll(0), [])
        change()
        self.assertTrue(self.readable(file, PATIENCE))
        self.assertTrue(poller.poll(PATIENCE))
        self.assertNotEqual(os.pread(file, 65536, 0), before)

    def test_every_change_is_told(self):
        """Whoever reads after each edge hears of the next change without asking again."""
        path = f"ifaces/{self.name}/mtu"
        file = self.keep(os.open(self.tree.path("netcfg", path), os.O_RDONLY | os.O_NONBLOCK))
        os.pread(file, 100, 0)
        poller = select.epoll()
        self.addCleanup(poller.close)
        poller.register(file, select.EPOLLIN | select.EPOLLET)
        poller.poll(0)
        for mtu in range(1300, 1305):
            self.tree.write(path, f"{mtu}\n")
            self.assertTrue(poller.poll(PATIENCE), mtu)
            self.assertEqual(os.pread(file, 100, 0), b"%d\n" % mtu)

    def test_others_stay_quiet(self):
        """A file that did not change does not fire."""
        path = f"ifaces/{self.name}/mtu"
        file = self.keep(os.open(self.tree.path("netcfg", path), os.O_RDONLY | os.O_NONBLOCK))
        while os.read(file, 65536):
            pass
        self.tree.write("resolv/nameserver", "192.0.2.100\n")
        os.close(self.open(next(self.units)))
        self.assertFalse(self.readable(file, 0.1))

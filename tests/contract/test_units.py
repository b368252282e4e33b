"""Section 1: units, the clone, permissions, and how long a descriptor keeps a unit."""

import errno
import fcntl
import os
import socket
import stat
import struct

import numbers_of as numbers
import packet as wire
from case import Contract
from procs import Background, as_user, outcome
from tree import wait_until


class Units(Contract):
    """Which names can be opened, by whom, and for how long."""

    def unit_name(self, file, request="TUNGIFNAME"):
        """The name that TUNGIFNAME gives."""
        answer = fcntl.ioctl(file, numbers.linux(request), b"\xee" * 32)
        return answer[:16].rstrip(b"\0").decode()

    def test_schemes(self):
        """The tree has every scheme of the contract (netisr is for later)."""
        expected = {"tun", "netcfg", "bpf", "icmp", "tcp", "udp", "ip"}
        self.assertEqual(expected - set(os.listdir(self.tree.root)), set(), "schemes that are missing")

    def test_limits_of_the_number(self):
        """0 and 32767 open; everything that is not a plain decimal up to 32767 is ENOENT."""
        for unit in ("0", "32767"):
            os.close(self.tree.tun(unit))
            self.assertIn(f"tun{unit}", self.tree.interfaces())
        bad = ["32768", "65536", "4294967296", "9" * 30, "00", "01", "+1", "-1", "-0", "x", "1x"]
        bad += ["0x1", "1 ", " 1", "1.0", "\uff11", "tun0", "Clone", "clone0"]
        for unit in bad:
            with self.subTest(unit=unit):
                self.fails(errno.ENOENT, self.tree.tun, unit)

    def test_first_open_creates_the_interface(self):
        """The interface appears with the first open, with the defaults of the contract."""
        self.assertNotIn(self.name, self.tree.interfaces())
        file = self.open()
        self.assertIn(self.name, self.tree.interfaces())
        self.assertEqual(self.tree.read(f"ifaces/{self.name}/mtu"), "1500\n")
        self.assertEqual(self.flags(), {"POINTOPOINT", "MULTICAST"})
        info = fcntl.ioctl(file, numbers.linux("TUNGIFINFO"), b"\xee" * 8)
        self.assertEqual(struct.unpack("=iHB", info[:7]), (0, 1500, 0x17))

    def test_uid(self):
        """Another user gets EPERM and creates nothing, for a unit and for the clone."""
        path = self.tree.path("tun", self.unit)
        clone = self.tree.path("tun", "clone")
        before = set(self.tree.interfaces())
        for name in (path, clone):
            for flags in (os.O_RDWR, os.O_RDONLY, os.O_WRONLY):
                found = as_user(lambda name=name, flags=flags: os.open(name, flags))
                self.assertEqual(found, ("errno", errno.EPERM))
        self.assertEqual(set(self.tree.interfaces()), before)
        self.open()
        self.assertEqual(as_user(lambda: os.open(path, os.O_RDWR)), ("errno", errno.EPERM))

    def test_busy(self):
        """A unit that is open is EBUSY, for this process and for another, in every mode."""
        self.open()
        self.fails(errno.EBUSY, self.tree.tun, self.unit)
        self.fails(errno.EBUSY, self.tree.tun, self.unit, os.O_RDONLY)
        child = self.child(lambda pipe: pipe.send(outcome(lambda: self.tree.tun(self.unit))))
        self.assertEqual(child.hear(), ("errno", errno.EBUSY))

    def test_close_then_open_is_never_busy(self):
        """Close and open follow each other thousands of times without EBUSY."""
        for _ in range(4000):
            os.close(self.tree.tun(self.unit))

    def test_close_then_open_of_threads(self):
        """Four threads, each with a unit of its own, never meet EBUSY either."""

        def loop(unit):
            for _ in range(500):
                os.close(self.tree.tun(unit))

        units = [self.unit] + [next(self.units) for _ in range(3)]
        threads = [Background(lambda unit=unit: loop(unit)) for unit in units]
        for thread in threads:
            self.assertEqual(thread.result(), ("value", None))

    def test_clone_takes_the_lowest(self):
        """clone gives the lowest unit that is not open, and says its name in both spellings."""
        first = self.open("clone")
        self.assertEqual(self.unit_name(first), "tun0")
        self.assertEqual(self.unit_name(first, "TUNGIFNAME_FREEBSD"), "tun0")
        second = self.open("clone")
        self.assertEqual(self.unit_name(second), "tun1")
        self.open(2)
        third = self.open("clone")
        self.assertEqual(self.unit_name(third), "tun3")
        os.close(second)
        self.assertEqual(self.unit_name(self.open("clone")), "tun1")
        self.fails(errno.EBUSY, self.tree.tun, 0)

    def test_listing(self):
        """The directory lists clone and every unit that exists, open or not."""
        self.open()
        closed = next(self.units)
        os.close(self.tree.tun(closed))
        listed = set(os.listdir(self.tree.path("tun")))
        units = {name[3:] for name in self.tree.interfaces() if name.startswith("tun")}
        self.assertEqual(listed, units | {"clone"})
        self.assertLessEqual({str(self.unit), str(closed)}, listed)

    def test_stat(self):
        """A unit looks like a regular file of root, mode 0600; stat neither claims nor creates."""
        os.close(self.tree.tun(self.unit))
        path = self.tree.path("tun", self.unit)
        other = next(self.units)
        for _ in range(50):
            found = os.stat(path)
            os.access(path, os.R_OK | os.W_OK)
            outcome(lambda: os.stat(self.tree.path("tun", other)))
        self.assertTrue(stat.S_ISREG(found.st_mode))
        self.assertEqual(stat.S_IMODE(found.st_mode), 0o600)
        self.assertEqual(found.st_uid, 0)
        self.assertNotIn(f"tun{other}", self.tree.interfaces())
        file = self.open()
        self.assertEqual(stat.S_IMODE(os.fstat(file).st_mode), 0o600)
        os.stat(path)
        self.assertEqual(self.tree.read(f"ifaces/{self.name}/status").count("Opened"), 1)

    def test_status_of_a_thread(self):
        """status names the process, also when a thread opened; it is empty when closed."""
        status = f"ifaces/{self.name}/status"
        kind, file = Background(lambda: self.tree.tun(self.unit)).result()
        self.assertEqual(kind, "value")
        self.keep(file)
        self.assertEqual(self.tree.read(status), f"\tOpened by PID {os.getpid()}\n")
        os.close(file)
        wait_until(lambda: self.tree.read(status) == "", "an empty status")

    def test_status_of_another_process(self):
        """status names the process that opened, and TUNSIFPID the one that asks (a thread's too)."""
        status = f"ifaces/{self.name}/status"
        file = self.open()

        def take(pipe):
            pipe.send(Background(lambda: self.set(file, "TUNSIFPID")).result())
            pipe.recv()

        child = self.child(take)
        self.assertEqual(child.hear()[0], "value")
        self.assertEqual(self.tree.read(status), f"\tOpened by PID {child.pid}\n")
        child.pipe.send("done")
        child.wait()
        self.set(file, "TUNSIFPID")
        self.assertEqual(self.tree.read(status), f"\tOpened by PID {os.getpid()}\n")

    def is_busy(self):
        """Whether the unit is open."""
        return outcome(lambda: os.close(self.tree.tun(self.unit))) == ("errno", errno.EBUSY)

    def test_dup_keeps_it_open(self):
        """A duplicate is the same open device; the unit closes with the last descriptor."""
        first = self.open()
        second = self.keep(os.dup(first))
        os.close(first)
        self.assertTrue(self.is_busy())
        self.tree.inject(self.name, b"E" + bytes(40))
        self.assertEqual(len(os.read(second, 100)), 41)
        os.close(second)
        self.assertFalse(self.is_busy())

    def test_fork_keeps_it_open(self):
        """A child's copy keeps the unit open; its death closes it."""
        file = self.open()
        child = self.child(lambda pipe: pipe.recv())
        os.close(file)
        self.assertTrue(self.is_busy())
        child.kill()
        child.wait()
        self.assertFalse(self.is_busy())

    def test_passing_keeps_it_open(self):
        """A descriptor under way in a socket, and one that was received, keep the unit open."""
        left, right = socket.socketpair()
        with left, right:
            file = self.open()
            socket.send_fds(left, [b"x"], [file])
            os.close(file)
            self.assertTrue(self.is_busy())

            def receive(pipe):
                _, files, _, _ = socket.recv_fds(right, 1, 1)
                pipe.send(outcome(lambda: os.write(files[0], wire.echo("1.2.3.4", "1.2.3.5"))))
                pipe.recv()

            child = self.child(receive)
            self.assertEqual(child.hear(), ("value", 28))
            self.assertTrue(self.is_busy())
            child.pipe.send("done")
            child.wait()
        wait_until(lambda: not self.is_busy(), "a closed unit")

    def test_path_only(self):
        """A descriptor that is only a path (O_PATH) does not claim the unit."""
        os.close(self.tree.tun(self.unit))
        self.keep(self.tree.tun(self.unit, os.O_PATH))
        self.assertFalse(self.is_busy())

    def test_names_are_fixed(self):
        """Nobody creates, removes or renames files of the tree."""
        os.close(self.tree.tun(self.unit))
        path, other = self.tree.path("tun", self.unit), self.tree.path("tun", "new")
        for work in (
            lambda: os.unlink(path),
            lambda: os.rename(path, other),
            lambda: os.mkdir(other),
            lambda: os.symlink("x", other),
            lambda: os.link(path, other),
            lambda: os.rmdir(self.tree.path("tun")),
        ):
            self.assertEqual(outcome(work)[0], "errno")
        self.assertIn(str(self.unit), os.listdir(self.tree.path("tun")))

    def test_many_units(self):
        """Hundreds of units can be open at a time."""
        files = [self.open(unit) for unit in range(20000, 20400)]
        self.assertEqual(len({self.unit_name(file) for file in files}), 400)

    def test_wrong_way(self):
        """A read on a write-only handle and a write on a read-only one are EBADF."""
        file = self.open(flags=os.O_WRONLY)
        self.fails(errno.EBADF, os.read, file, 100)
        os.close(file)
        file = self.open(flags=os.O_RDONLY)
        self.fails(errno.EBADF, os.write, file, bytes(28))

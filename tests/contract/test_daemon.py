"""Section 7: how the daemon starts and how it ends."""

import errno
import fcntl
import os
import re
import select
import signal
import subprocess
import tempfile
import unittest

import packet as wire
from procs import NOBODY, Background, Child, outcome, raw_read, wait_in_call
from tree import PATIENCE, PROGRAM, Tree, wait_until


class Daemon(unittest.TestCase):
    """tund as a process."""

    def test_ends_in_order(self):
        """SIGINT, SIGTERM and SIGHUP: status 0 and unmounted, also with files open and a read waiting."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with self.subTest(signal=number):
                tree = Tree()
                file = tree.tun(0)
                self.addCleanup(outcome, lambda file=file: os.close(file))
                reader = Background(lambda file=file: raw_read(file))
                wait_in_call(file, thread=reader)
                tree.daemon.send_signal(number)
                self.assertEqual(tree.daemon.wait(PATIENCE), 0)
                self.assertEqual(reader.result()[0], "errno")
                self.assertEqual(outcome(lambda file=file: raw_read(file))[0], "errno")
                self.assertFalse(tree.mounted())
                tree.stop()

    def test_one_line(self):
        """It prints one line when it is ready, and nothing after it."""
        tree = Tree()
        self.assertIn("tun", os.listdir(tree.root))
        os.close(tree.tun(0))
        ready, _, _ = select.select([tree.daemon.stdout], [], [], 0.1)
        self.assertEqual(ready, [])
        tree.stop()

    def test_two_trees(self):
        """Two daemons on two mounts know nothing of each other."""
        first, second = Tree(), Tree()
        file, other = first.tun(0), second.tun(0)
        first.inject("tun0", wire.echo("10.1.1.1", "10.1.1.2"))
        os.set_blocking(other, False)
        self.assertEqual(outcome(lambda: os.read(other, 100)), ("errno", errno.EAGAIN))
        self.assertEqual(len(os.read(file, 100)), 28)
        os.close(file)
        os.close(other)
        first.stop()
        second.stop()

    def refused(self, *options):
        """Asserts that tund ends at once, with an error that it prints, and returns it."""
        found = subprocess.run([PROGRAM, *options], capture_output=True, timeout=30, check=False)
        self.assertNotEqual(found.returncode, 0)
        self.assertTrue(found.stderr)
        self.assertNotIn(b"panicked", found.stderr)
        return found.stderr

    def test_one_at_a_directory(self):
        """A directory that is served is refused, by any name, and the first daemon serves on."""
        tree = Tree()
        link = os.path.join(tree.base, "link")
        os.symlink(tree.root, link)
        for name in (tree.root, link, tree.path("netcfg")):
            self.assertIn(b"another tund", self.refused("--mount", name))
        self.assertIn("tun", os.listdir(tree.root))
        tree.stop()

    def test_after_a_death(self):
        """A mount whose daemon was killed is taken over, and the end leaves none behind."""
        tree = Tree()
        tree.daemon.kill()
        tree.daemon.wait()
        tree.daemon.stdout.close()
        self.assertEqual(outcome(lambda: os.stat(tree.root)), ("errno", errno.ENOTCONN))
        tree.start()
        self.assertIn("tun", os.listdir(tree.root))
        tree.stop()

    def test_unmounted_from_outside(self):
        """umount ends the daemon, quietly."""
        for options in ([], ["-l"]):
            with self.subTest(options=options):
                tree = Tree()
                os.close(tree.tun(0))
                subprocess.run(["umount", *options, tree.root], check=True)
                self.assertEqual(tree.daemon.wait(PATIENCE), 0)
                self.assertEqual(tree.said(), "")
                tree.lost()

    def ended(self, tree, status):
        """Waits for the end of a daemon, and returns what it said."""
        self.assertEqual(tree.daemon.wait(PATIENCE), status)
        said = tree.said()
        self.assertNotIn("panicked", said)
        return said

    def mount(self, *words):
        """Mounts something until the end of the test."""
        subprocess.run(["mount", *words], check=True)
        where = words[-1]
        self.addCleanup(subprocess.run, ["umount", "-l", where], check=False, stderr=subprocess.DEVNULL)

    def kind(self, path):
        """The kind of the mount that is on top at a path, None if there is none."""
        with open("/proc/self/mounts", encoding="utf-8") as mounts:
            words = [line.split(" ") for line in mounts]
        return ([None] + [word[2] for word in words if word[1] == path])[-1]

    def test_covered(self):
        """What somebody else mounted over ours stays, and we say that ours does."""
        tree = Tree()
        self.mount("-t", "tmpfs", "none", tree.root)
        tree.daemon.send_signal(signal.SIGTERM)
        self.assertIn("covers", self.ended(tree, 0))
        self.assertEqual(self.kind(tree.root), "tmpfs")
        subprocess.run(["umount", tree.root], check=True)
        self.assertEqual(self.kind(tree.root), "fuse.tund")
        tree.lost()

    def test_replaced(self):
        """What somebody else mounted in the place of ours stays."""
        tree = Tree()
        file = tree.tun(0)  # With it open, the connection outlives the mount.
        subprocess.run(["umount", "-l", tree.root], check=True)
        self.mount("-t", "tmpfs", "none", tree.root)
        tree.daemon.send_signal(signal.SIGTERM)
        self.assertEqual(self.ended(tree, 0), "")
        self.assertEqual(self.kind(tree.root), "tmpfs")
        outcome(lambda: os.close(file))
        subprocess.run(["umount", tree.root], check=True)
        tree.lost()

    def test_bound(self):
        """A second mount of the tree, made by mount --bind, is not ours to take away."""
        tree = Tree()
        other = os.path.join(tree.base, "other")
        os.mkdir(other)
        self.mount("--bind", tree.root, other)
        tree.daemon.send_signal(signal.SIGTERM)
        self.assertEqual(self.ended(tree, 0), "")
        self.assertIsNone(self.kind(tree.root))
        self.assertEqual(self.kind(other), "fuse.tund")
        subprocess.run(["umount", "-l", other], check=True)
        tree.lost()

    def test_moved(self):
        """A mount that was moved is unmounted where it is; another one at its old place stays."""
        where = tempfile.mkdtemp()
        self.addCleanup(os.rmdir, where)
        self.mount("-t", "tmpfs", "none", where)
        subprocess.run(["mount", "--make-private", where], check=True)
        old, new = os.path.join(where, "old"), os.path.join(where, "new place")
        os.mkdir(old)
        os.mkdir(new)
        daemon = subprocess.Popen([PROGRAM, "--mount", old], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertIn(b"serving", daemon.stdout.readline())
        subprocess.run(["mount", "--move", old, new], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", old], check=True)
        daemon.send_signal(signal.SIGTERM)
        _, said = daemon.communicate(timeout=PATIENCE)
        self.assertEqual(daemon.returncode, 0)
        self.assertIn(b"moved", said)
        self.assertEqual(self.kind(old), "tmpfs")
        self.assertIsNone(self.kind(new.replace(" ", "\\040")))
        subprocess.run(["umount", old], check=True)

    def test_aborted(self):
        """A connection that the kernel aborts is an error, and leaves no dead mount."""
        tree = Tree()
        number = os.minor(os.stat(tree.root).st_dev)
        with tempfile.TemporaryDirectory() as control:
            if subprocess.run(["mount", "-t", "fusectl", "none", control], check=False).returncode:
                tree.stop()
                self.skipTest("no fusectl")
            try:
                with open(os.path.join(control, str(number), "abort"), "w", encoding="ascii") as abort:
                    abort.write("1")
                self.assertIn("abort", self.ended(tree, 1))
            finally:
                subprocess.run(["umount", control], check=True)
        self.assertFalse(tree.mounted())
        tree.lost()

    def test_forced(self):
        """umount -f of a tree that is in use is an error as well, and leaves no dead mount."""
        tree = Tree()
        file = tree.tun(0)
        subprocess.run(["umount", "-f", tree.root], check=False, stderr=subprocess.DEVNULL)
        self.assertIn("abort", self.ended(tree, 1))
        self.assertFalse(tree.mounted())
        outcome(lambda: os.close(file))
        tree.lost()

    def test_output_that_cannot_be_written(self):
        """A pipe without a reader, or a full disk, does not end a daemon, nor leave its mount."""
        reader, broken = os.pipe()
        os.close(reader)
        full = os.open("/dev/full", os.O_WRONLY)
        for file in (broken, full):
            with self.subTest(file=file), tempfile.TemporaryDirectory() as root:
                daemon = subprocess.Popen([PROGRAM, "-vv", "--mount", root], stdout=file, stderr=file)
                wait_until(lambda root=root: os.path.exists(os.path.join(root, "tun")), "a tree")
                self.assertTrue(os.path.exists(os.path.join(root, "netcfg", "ifaces")))
                daemon.send_signal(signal.SIGTERM)
                self.assertEqual(daemon.wait(PATIENCE), 0)
                self.assertFalse(os.path.ismount(root))
                failed = subprocess.run([PROGRAM, "--mount", "/dev/null"], stderr=file, check=False)
                self.assertEqual(failed.returncode, 1)
            os.close(file)

    def test_log_that_nobody_reads(self):
        """A full pipe makes nobody wait; what is lost is counted, and the daemon ends in order."""
        size = 4096
        reader, full = os.pipe()
        self.addCleanup(os.close, reader)
        fcntl.fcntl(full, fcntl.F_SETPIPE_SZ, size)
        # Full from the start, as that of a daemon before it may be.
        os.write(full, b"x" * (size - 1) + b"\n")
        with tempfile.TemporaryDirectory() as root:
            daemon, file = self.traced(root, full)
            # Each is a line of more than 30 bytes, and the queue holds 256 KiB.
            reads = 20_000
            for _ in range(reads):
                self.assertEqual(outcome(lambda: os.read(file, 100)), ("errno", errno.EAGAIN))
            said = b""
            while b"lines were lost" not in said:
                said += os.read(reader, 65_536)
            self.assertIn(b"tund: serving", said)
            lost = int(re.search(rb"(\d+) lines were lost", said).group(1))
            kept = said.count(b"tun0: read")
            self.assertGreater(kept, 0)
            self.assertGreaterEqual(kept + lost, reads)
            # Nobody reads again.
            for _ in range(reads):
                self.assertEqual(outcome(lambda: os.read(file, 100)), ("errno", errno.EAGAIN))
            os.close(file)
            daemon.send_signal(signal.SIGTERM)
            self.assertEqual(daemon.wait(PATIENCE), 0)
            self.assertFalse(os.path.ismount(root))

    def traced(self, root, log):
        """A daemon that says in the log what its driver does, and a file of a unit that does not wait."""
        daemon = subprocess.Popen([PROGRAM, "--mount", root], stdout=log, stderr=log)
        os.close(log)
        wait_until(lambda: os.path.exists(os.path.join(root, "tun")), "a tree")
        path = os.path.join(root, "netcfg", "debug", "if_tun_debug")
        with open(path, "w", encoding="ascii") as debug:
            debug.write("1\n")
        file = os.open(os.path.join(root, "tun", "0"), os.O_RDWR)
        os.set_blocking(file, False)
        return daemon, file

    def test_last_lines(self):
        """What was said before the end is written, though it had to wait for its reader."""
        reader, log = os.pipe()
        fcntl.fcntl(log, fcntl.F_SETPIPE_SZ, 4096)
        with tempfile.TemporaryDirectory() as root:
            daemon, file = self.traced(root, log)
            for _ in range(1000):
                self.assertEqual(outcome(lambda: os.read(file, 100)), ("errno", errno.EAGAIN))
            os.close(file)
            with os.fdopen(reader, "rb") as log:
                said = Background(log.read)
                daemon.send_signal(signal.SIGTERM)
                self.assertEqual(daemon.wait(PATIENCE), 0)
                self.assertEqual(said.result()[1].count(b"tun0: read\n"), 1000)
            self.assertFalse(os.path.ismount(root))

    def test_ends_while_it_is_busy(self):
        """SIGTERM ends it though there is always another request."""
        tree = Tree()
        path = tree.path("netcfg", "ip", "forwarding")

        def work(pipe):
            file = os.open(path, os.O_RDONLY)
            pipe.send("reads")
            try:
                while True:
                    os.pread(file, 10, 0)
            except OSError:
                pass

        readers = [Child(work, NOBODY) for _ in range(100)]
        for reader in readers:
            self.addCleanup(reader.finish)
            reader.hear()
        tree.daemon.send_signal(signal.SIGTERM)
        self.assertEqual(tree.daemon.wait(PATIENCE), 0)
        for reader in readers:
            reader.wait()
        tree.stop()

    def test_nohup(self):
        """A SIGHUP that was ignored when it was started does not end it."""
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            tree = Tree()
        finally:
            signal.signal(signal.SIGHUP, before)
        tree.daemon.send_signal(signal.SIGHUP)
        self.assertRaises(subprocess.TimeoutExpired, tree.daemon.wait, 0.2)
        tree.stop()

    def test_bad_options(self):
        """A directory that is not there, a file, and unknown services are errors."""
        with tempfile.TemporaryDirectory() as where:
            self.refused("--mount", os.path.join(where, "missing"))
            name = os.path.join(where, "file")
            with open(name, "wb"):
                pass
            self.refused("--mount", name)
            self.refused("--mount", where, "--serve", "echo,finger")
            self.assertFalse(os.path.ismount(where))
            self.assertEqual(os.listdir(where), ["file"])

    def test_demo(self):
        """`tund demo` needs no privilege, and no mount."""

        def forgo():
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)

        with open(PROGRAM, "rb") as program, tempfile.TemporaryDirectory() as where:
            os.chown(where, NOBODY, NOBODY)  # It leaves a capture there.
            os.chmod(where, 0o755)
            copy = os.path.join(where, "tund")
            with open(copy, "wb") as target:
                target.write(program.read())
            os.chmod(copy, 0o755)
            found = subprocess.run(
                [copy, "demo"], capture_output=True, timeout=50, check=False, preexec_fn=forgo, cwd=where
            )
        self.assertEqual(found.returncode, 0, found.stderr)
        self.assertGreater(len(found.stdout.splitlines()), 3)

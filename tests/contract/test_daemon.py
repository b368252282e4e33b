"""Section 7: how the daemon starts and how it ends."""

import errno
import os
import select
import signal
import subprocess
import tempfile
import unittest

import packet as wire
from procs import NOBODY, Background, outcome, raw_read, wait_in_call
from tree import PATIENCE, PROGRAM, Tree


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

"""tunctl on a mount: what it says, and that nothing that it cannot say ends it the wrong way."""

import json
import os
import signal
import struct
import subprocess
import unittest

import packet as wire
from case import Contract, needs
from procs import LIBC
from tree import PATIENCE, PROGRAM

PIDFD_GETFD = 438
TUNCTL = os.path.join(os.path.dirname(PROGRAM), "tunctl")


@unittest.skipUnless(os.path.exists(TUNCTL), "no tunctl beside tund")
class Tools(Contract):
    """tunctl, run as a user runs it."""

    def start(self, *words, **streams):
        """Starts tunctl; it is ended with the test."""
        environment = dict(os.environ, TUND_ROOT=self.tree.root)
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
        process = subprocess.Popen([TUNCTL, *words], env=environment, text=True, **streams)
        self.addCleanup(self.end, process)
        return process

    @staticmethod
    def end(process):
        """Ends it if it still runs."""
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()

    def run_tool(self, *words, **streams):
        """Runs it to its end: status, output, errors."""
        process = self.start(*words, **streams)
        out, err = process.communicate(timeout=PATIENCE)
        self.assertNotIn("panicked", err or "")
        return process.returncode, out, err

    def test_output_that_cannot_be_written(self):
        """A full device is status 1, a reader that is gone is no error."""
        with open("/dev/full", "w", encoding="ascii") as full:
            self.assertEqual(self.run_tool("list", stdout=full)[0], 1)
            self.assertEqual(self.run_tool("--json", "route", stdout=full)[0], 1)
            self.assertEqual(self.run_tool("show", "tun99999", stderr=full)[0], 1)
            self.assertEqual(self.run_tool("show", "tun99999", stdout=full, stderr=full)[0], 1)
        for stream, status in (("stdout", 0), ("stderr", 1)):
            reader, writer = os.pipe()
            os.close(reader)
            words = ("list",) if stream == "stdout" else ("show", "tun99999")
            self.assertEqual(self.run_tool(*words, **{stream: writer})[0], status)
            os.close(writer)

    def test_capture_whose_messages_nobody_reads(self):
        """A capture goes on without its messages."""
        link = self.link()
        file = os.path.join(self.tree.base, "capture")
        with open("/dev/full", "w", encoding="ascii") as full:
            capture = self.start("capture", link.name, file, "--packets", "1", stderr=full)
            while capture.poll() is None:
                self.assertEqual(link.before_pong(), [])
        self.assertEqual(capture.returncode, 0)
        self.assertGreater(os.path.getsize(file), 24 + 16)

    def test_ping_that_was_stopped(self):
        """Ctrl-Z and fg, as signals: every reply is still heard."""
        ping = self.start("ping", "-c", "4", "-i", "0.2", "127.0.0.1")
        while "seq=0" not in ping.stdout.readline():
            self.assertIsNone(ping.poll())
        for number in (signal.SIGSTOP, signal.SIGCONT) * 3:
            ping.send_signal(number)
        out, _ = ping.communicate(timeout=PATIENCE)
        self.assertIn("4 sent, 4 received", out)

    def test_capture_that_was_stopped(self):
        """The same for a capture, which waits in a read most of the time."""
        link = self.link()
        file = os.path.join(self.tree.base, "stopped")
        capture = self.start("capture", link.name, file, "--packets", "2")
        for _ in range(2):
            size = os.path.getsize(file) if os.path.exists(file) else 0
            while capture.poll() is None and (not os.path.exists(file) or os.path.getsize(file) == size):
                self.assertEqual(link.before_pong(), [])
            if capture.poll() is None:
                for number in (signal.SIGSTOP, signal.SIGCONT) * 3:
                    capture.send_signal(number)
        self.assertEqual(capture.wait(PATIENCE), 0)

    def test_ping_says_who_said_what(self):
        """Errors of routers, in the words of ping(8); each ends the wait for its reply."""
        link = self.link(head=True)
        for here, peer, router, errors in (
            (
                link.here,
                link.peer,
                f"10.9.{self.unit}.9",
                (
                    (3, 1, 0, "Destination Host Unreachable"),
                    (3, 13, 0, "Packet filtered"),
                    (11, 0, 0, "Time to live exceeded"),
                ),
            ),
            (
                link.here6,
                link.peer6,
                f"fd09:{self.unit}::9",
                (
                    (1, 3, 0, "Destination unreachable: Address unreachable"),
                    (2, 0, 1280, "Packet too big: mtu=1280"),
                    (3, 0, 0, "Time exceeded: Hop limit"),
                ),
            ),
        ):
            count = str(len(errors))
            ping = self.start("ping", "-c", count, "-i", "0.01", "-W", "1000", peer)
            for kind, code, word, _ in errors:
                request = link.recv()
                word = struct.pack("!I", word)
                body = wire.icmp(router, here, kind, code, word, request.data)
                link.send(wire.ip(router, here, request.proto, body))
            out, said = ping.communicate(timeout=PATIENCE)
            self.assertEqual(ping.returncode, 1)
            for *_, words in errors:
                self.assertIn(f"From {router}: {words}", out)
            self.assertIn(f"{count} sent, 0 received, {count} errors", out)
            self.assertIn(f"no reply from {peer}", said)
        # One error, and then a reply; the same for programs.
        ping = self.start("--json", "ping", "-c", "2", "-i", "0.01", "-W", "1000", link.peer)
        for number in range(2):
            request = link.recv()
            kind, rest, data = (3, bytes(4), request.data)
            if number:
                kind, rest, data = (0, request.payload[4:8], request.payload[8:])
            link.send(wire.ip4(link.peer, link.here, 1, wire.icmp(link.peer, link.here, kind, 0, rest, data)))
        out, _ = ping.communicate(timeout=PATIENCE)
        found = json.loads(out)
        self.assertEqual((ping.returncode, found["received"], found["errors"]), (0, 1, 1))

    def test_any_time(self):
        """Times that no clock reaches are only long."""
        words = ("ping", "-c", "1", "-W", "1e19", "-i", "1e19", "127.0.0.1")
        status, out, _ = self.run_tool(*words)
        self.assertEqual(status, 0, out)

    def test_words(self):
        """What it shows can be set, and what was refused is named."""
        self.addCleanup(self.tree.write, "ip/forwarding", "0\n")
        for switch, shown in (("1", "on"), ("off", "off"), ("on", "on"), ("0", "off")):
            self.assertEqual(self.run_tool("forwarding", switch)[0], 0)
            self.assertEqual(self.run_tool("forwarding")[1], f"{shown}\n")
            self.assertEqual(json.loads(self.run_tool("--json", "forwarding")[1]), shown == "on")
        link = self.link()
        for verb in ("add", "rm"):
            status, _, said = self.run_tool("route", verb, "10.1.0.1/16", "dev", link.name)
            self.assertEqual(status, 1)
            self.assertIn("10.1.0.0/16", said)
        self.assertIn("not a name", self.run_tool("ping", "www.example.org")[2])
        self.assertNotIn("--root", self.run_tool("ping")[2])
        self.assertEqual(self.run_tool("ping", "-c", "0", "127.0.0.1")[0], 2)
        self.assertTrue(self.run_tool("--version")[1].startswith("tunctl "))

    def test_refusals(self):
        """A line that is refused is status 1, at every file."""
        link = self.link()
        for words in (
            ("addr", link.name, "add", "bad"),
            ("addr", link.name, "rm", "10.99.0.1/24"),
            ("route", "add", "bad"),
            ("queue", link.name, "bad"),
        ):
            self.assertEqual(self.run_tool(*words)[0], 1, words)

    def test_order(self):
        """Interfaces are listed as people count."""
        units = (100, 20, 3)
        for unit in units:
            self.open(unit)
        found = [entry["name"] for entry in json.loads(self.run_tool("--json", "list")[1])]
        found = [name for name in found if name in {f"tun{unit}" for unit in units}]
        self.assertEqual(found, ["tun3", "tun20", "tun100"])

    @unittest.skipUnless(os.path.exists("/dev/net/tun"), "no /dev/net/tun")
    @needs("ip")
    def test_bridge_ends_with_either_end(self):
        """The end of one device ends the bridge, which says which it was and gives our unit back."""
        for ending in ("theirs", "ours"):
            with self.subTest(ending=ending):
                host = f"cut{os.getpid() % 10**9}"
                bridge = self.start("bridge", str(self.unit), host)
                self.assertIn("Pumping", bridge.stderr.readline())
                if ending == "theirs":
                    subprocess.run(["ip", "link", "del", host], check=True)
                else:
                    self.shut_as_another(bridge.pid)
                _, said = bridge.communicate(timeout=PATIENCE)
                self.assertEqual(bridge.returncode, 1)
                self.assertRegex(said, host if ending == "theirs" else f"tun/{self.unit}")
                os.close(self.tree.tun(self.unit))

    def shut_as_another(self, pid):
        """Shuts the unit by way of the descriptor of the process that has it open."""
        names = os.listdir(f"/proc/{pid}/fd")
        [name] = [name for name in names if os.readlink(f"/proc/{pid}/fd/{name}") == self.tree.path("tun", self.unit)]
        process = os.pidfd_open(pid)
        file = LIBC.syscall(PIDFD_GETFD, process, int(name), 0)
        os.close(process)
        self.assertGreater(file, 0)
        self.set(file, "TUNSHUT")
        os.close(file)

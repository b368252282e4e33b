"""Section 3: the list of sockets."""

import os
import resource

import packet as wire
from case import Contract
from procs import as_user
from tree import wait_until

PAIRS = ("recv", "send", "pid")
PATH = ("srtt_us", "rto_us", "cwnd", "ssthresh", "inflight", "mss", "retransmits")
MANY = 10_000


class Sockets(Contract):
    """DIR/netcfg/sockets."""

    def sockets(self):
        """The lines of the list, as words."""
        return [line.split(" ") for line in self.tree.read("sockets").splitlines()]

    def find(self, *words):
        """The pairs of every socket whose line begins so, in order and as a dict."""
        found = []
        for line in self.sockets():
            if tuple(line[: len(words)]) == words:
                names, values = line[4::2], line[5::2]
                self.assertEqual(tuple(names[:3]), PAIRS)
                found.append(dict(zip(names, values)))
        return found

    def socket(self, *path):
        """A socket, opened by its path."""
        return self.keep(os.open(self.tree.path(*path), os.O_RDWR | os.O_NONBLOCK))

    def test_kinds(self):
        """A line for every kind of socket, with its owner."""
        link = self.link(head=True)
        mine = str(os.getpid())
        self.socket("udp", f"{link.peer}:7")
        self.socket("udp", f"[{link.peer6}]:7")
        self.socket("icmp", "echo", link.peer)
        self.socket("ip", "59")
        lines = [line for line in self.sockets() if line[9] == mine]
        pairs = ["recv", "0", "send", "0", "pid", mine]
        self.assertEqual(
            [line[:2] + line[3:] for line in lines],
            [
                ["udp", "-", f"{link.peer}:7", *pairs],
                ["udp", "-", f"[{link.peer6}]:7", *pairs],
                ["icmp", "-", link.peer, *pairs],
                ["ip", "89", "0.0.0.0", *pairs],
            ],
        )
        self.assertRegex(lines[0][2], r"^0\.0\.0\.0:\d+$")
        self.assertRegex(lines[1][2], r"^\[::\]:\d+$")
        self.assertEqual([line[2] for line in lines[2:]], ["0.0.0.0", "0.0.0.0"])
        # What the daemon serves itself is nobody's.
        [echo] = self.find("tcp", "LISTEN", "0.0.0.0:7", "0.0.0.0:0")
        self.assertEqual((echo["recv"], echo["pid"]), ("0", "0"))

    def test_connection(self):
        """What TCP knows of its path, by name; what was sent counts until it is acknowledged."""
        self.link()
        file = self.keep(os.open(self.tree.path("tcp", "127.0.0.1:7"), os.O_RDWR))
        os.write(file, b"hello")
        self.assertTrue(self.readable(file, 10))
        [line] = [line for line in self.sockets() if line[3] == "127.0.0.1:7"]
        self.assertEqual(line[:2], ["tcp", "ESTABLISHED"])
        self.assertEqual(tuple(line[10:24:2]), PATH)
        pairs = dict(zip(line[4::2], line[5::2]))
        self.assertEqual((pairs["recv"], pairs["pid"]), ("5", str(os.getpid())))
        self.assertTrue(all(value.isdigit() for value in pairs.values()), line)
        self.assertGreater(int(pairs["mss"]), 500)
        self.assertEqual(os.read(file, 100), b"hello")
        os.close(file)
        ours = line[2]
        states = {"FIN-WAIT-1", "FIN-WAIT-2", "CLOSING", "TIME-WAIT"}

        def over():
            found = [entry for entry in self.sockets() if entry[2] == ours]
            for entry in found:
                self.assertIn(entry[1], states)
                self.assertEqual(entry[9], "0", "nobody holds it")
            return not found or found[0][1] == "TIME-WAIT"

        wait_until(over, "TIME-WAIT")

    def test_others(self):
        """Who is not root is not told who others are; everybody may read, nobody write."""
        path = self.tree.path("netcfg", "sockets")
        link = self.link()
        self.socket("udp", f"{link.peer}:7")

        def pids():
            with open(path, encoding="ascii") as file:
                return {line.split()[9] for line in file}

        self.assertEqual(as_user(pids), ("value", {"0"}))
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o444)
        for flags in (os.O_WRONLY, os.O_RDWR):
            self.assertEqual(as_user(lambda flags=flags: os.open(path, flags))[0], "errno")
            with self.assertRaises(PermissionError):
                os.open(path, flags)
        self.assertIn("sockets", os.listdir(self.tree.path("netcfg")))

    def test_many(self):
        """Ten thousand are listed in pieces, each once, and packets go on between two pieces."""
        link = self.link()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        resource.setrlimit(resource.RLIMIT_NOFILE, (MANY + 100, max(MANY + 100, limits[1])))
        files = []
        try:
            for _ in range(MANY):
                files.append(os.open(self.tree.path("udp", f"{link.peer}:9"), os.O_RDWR))
            file = self.keep(os.open(self.tree.path("netcfg", "sockets"), os.O_RDONLY))
            text = b""
            while piece := os.read(file, 65536):
                self.assertEqual(link.before_pong(), [])
                text += piece
            mine = [line for line in text.decode().splitlines() if f" {link.peer}:9 " in line]
            self.assertEqual(len(mine), MANY)
            self.assertEqual(len(set(mine)), MANY)
            self.assertTrue(text.endswith(b"\n"))
        finally:
            for file in files:
                os.close(file)

    def test_waiting_bytes(self):
        """Datagrams that wait are counted by their bytes."""
        link = self.link()
        file = self.socket("udp", f"{link.peer}:7")
        [name] = [line[2] for line in self.sockets() if line[3] == f"{link.peer}:7"]
        port = int(name.rpartition(":")[2])
        for size in (100, 412):
            link.send(wire.udp(link.peer, link.here, 7, port, bytes(size)))
        link.before_pong()
        [found] = self.find("udp", "-", name)
        self.assertEqual(found["recv"], "512")
        os.read(file, 1000)
        [found] = self.find("udp", "-", name)
        self.assertEqual(found["recv"], "412")


"""`tunctl top`, in a terminal, and what else tunctl shows of the network now."""

import json
import os
import shutil
import subprocess
import tempfile
import threading
import unittest

import packet as wire
from case import Contract, needs
from test_tools import TUNCTL
from tree import PATIENCE, wait_until


class Terminal:
    """A terminal of tmux, with a shell command in it."""

    def __init__(self, command, root, width=120, height=40):
        self.server = ["tmux", "-u", "-L", f"contract{os.getpid()}", "-f", "/dev/null"]
        self.environment = dict(os.environ, TUND_ROOT=root, TERM="xterm-256color", LC_ALL="C.UTF-8")
        self.environment.pop("TMUX", None)
        size = ["-x", str(width), "-y", str(height)]
        self.tmux("new-session", "-d", *size, command)

    def tmux(self, *words):
        """Runs a command of tmux, and returns what it prints."""
        done = subprocess.run(
            [*self.server, *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return done.stdout

    def screen(self):
        """What the screen shows."""
        return self.tmux("capture-pane", "-p")

    def shows(self, *texts):
        """Waits until the screen shows all of these texts, and returns it."""
        last = []

        def there():
            last[:] = [self.screen()]
            return all(text in last[0] for text in texts) and last[0]

        try:
            return wait_until(there, f"{texts} on the screen")
        except AssertionError as error:
            raise AssertionError(f"{error}; it shows:\n{last[0]}") from error

    def close(self):
        """Ends the terminal, and its server."""
        self.tmux("kill-server")


@unittest.skipUnless(os.path.exists(TUNCTL), "no tunctl beside tund")
class Top(Contract):
    """tunctl, as a user sees it."""

    def run_tool(self, *words):
        """Runs tunctl to its end, and returns what it prints."""
        environment = dict(os.environ, TUND_ROOT=self.tree.root)
        done = subprocess.run(
            [TUNCTL, *words], env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def traffic(self, link):
        """Drops, again and again until the test ends."""
        stop = threading.Event()
        nobody = wire.udp(link.peer, link.here, 9, 9999, bytes(1000))

        def send():
            while not stop.wait(0.01):
                link.send(nobody)

        thread = threading.Thread(target=send)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(stop.set)

    @needs("tmux")
    def test_screen(self):
        """Rates, drops and sockets come, a new size is used, and q gives the screen back."""
        link = self.link()
        self.traffic(link)
        terminal = Terminal(f"echo before; {TUNCTL} top -i 0.2; echo after; cat", self.tree.root)
        self.addCleanup(terminal.close)
        screen = terminal.shows("q: leave", link.name, "no port", "LISTEN", "bit/s", "\u2588")
        self.assertNotIn("before", screen)
        [line] = [line for line in screen.splitlines() if line.startswith(f"{link.name} ") and " up " in line]
        self.assertRegex(line, r"\d+\.\d [kM]bit/s")
        terminal.tmux("resize-window", "-x", "80", "-y", "24")
        terminal.shows("q: leave", link.name, "the busiest of")
        terminal.tmux("resize-window", "-x", "20", "-y", "4")
        terminal.shows("tunctl top")
        terminal.tmux("resize-window", "-x", "120", "-y", "40")
        terminal.shows("q: leave", link.name, "0.0.0.0:7")
        terminal.tmux("send-keys", "q")
        self.assertNotIn("q: leave", terminal.shows("before", "after"))

    @needs("tmux")
    def test_control_c(self):
        """Ctrl-C leaves as well, and the terminal is as before."""
        terminal = Terminal(f"{TUNCTL} top; echo after $?; cat", self.tree.root)
        self.addCleanup(terminal.close)
        terminal.shows("q: leave")
        terminal.tmux("send-keys", "C-c")
        terminal.shows("after 0")
        terminal.tmux("send-keys", "echoed", "Enter")
        screen = terminal.shows("echoed\nechoed")
        self.assertNotIn("q: leave", screen)

    def test_once(self):
        """For scripts: the same picture as text, and as JSON."""
        link = self.link()
        self.traffic(link)
        text = self.run_tool("top", "--once", "-i", "0.3")
        for shown in (link.name, "no port", "LISTEN", "0.0.0.0:7", "bit/s"):
            self.assertIn(shown, text)
        now = json.loads(self.run_tool("--json", "top", "--once", "-i", "0.3"))
        [rates] = [entry for entry in now["interfaces"] if entry["name"] == link.name]
        self.assertGreater(rates["in_bits"], 0)
        self.assertGreater(rates["drops"], 0)
        drops = [(entry["interface"], entry["reason"]) for entry in now["drops"]]
        self.assertIn((link.name, "no_port"), drops)
        self.assertTrue(any(entry["state"] == "LISTEN" for entry in now["sockets"]))

    def test_no_terminal(self):
        """Without a terminal it says what to do."""
        environment = dict(os.environ, TUND_ROOT=self.tree.root)
        done = subprocess.run([TUNCTL, "top"], env=environment, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("--once", done.stderr)

    def test_sockets(self):
        """The table has what the file has, chosen as with ss."""
        link = self.link()
        self.keep(os.open(self.tree.path("udp", f"{link.peer}:7"), os.O_RDWR))
        lines = [line.split() for line in self.run_tool("sockets", "-tuln").splitlines()]
        self.assertEqual(lines[0][:2], ["Netid", "State"])
        self.assertIn(["tcp", "LISTEN", "0", "1024", "0.0.0.0:7", "0.0.0.0:*"], [line[:6] for line in lines])
        self.assertFalse([line for line in lines if f"{link.peer}:7" in line])
        [line] = [line for line in self.run_tool("sockets", "-u").splitlines() if f"{link.peer}:7" in line]
        words = line.split()
        self.assertEqual(words[:4] + words[5:], ["udp", "CONN", "0", "0", f"{link.peer}:7", "PID", str(os.getpid())])
        everything = json.loads(self.run_tool("--json", "sockets"))
        self.assertEqual(len(everything), len(self.tree.read("sockets").splitlines()))
        file = self.keep(os.open(self.tree.path("tcp", "127.0.0.1:7"), os.O_RDWR))
        os.write(file, b"hello")
        self.assertTrue(self.readable(file, 10))
        self.assertRegex(self.run_tool("sockets", "--info"), r"\n +srtt:\d+\.\d+ms .* mss:\d+ ")

    def test_explain(self):
        """Each reason in words, and what to do."""
        link = self.link()
        link.send(wire.udp(link.peer, link.here, 9, 9999, b"nobody"))
        link.before_pong()
        text = self.run_tool("stats", link.name, "--explain")
        self.assertRegex(text, r"\nno port: 1\n  In: no program has that port open.\n  .*tunctl sockets -l")
        reasons = json.loads(self.run_tool("--json", "stats", link.name, "--explain"))["explained"]
        counted = {name.removeprefix("drop.") for name in self.tree.stats(link.name) if name.startswith("drop.")}
        self.assertEqual({reason["reason"] for reason in reasons}, counted)
        for reason in reasons:
            self.assertTrue(reason["means"] and reason["advice"], reason)

    def test_capture_drops(self):
        """`capture --drops` writes the stream, and stops after so many packets."""
        link = self.link()
        self.traffic(link)
        with tempfile.TemporaryDirectory() as place:
            file = os.path.join(place, "drops.pcapng")
            self.run_tool("capture", "--drops", file, "--packets", "3")
            with open(file, "rb") as stream:
                data = stream.read()
            self.assertEqual(data.count(b"in no_port"), 3)
            if shutil.which("tshark"):
                done = subprocess.run(
                    ["tshark", "-r", file, "-T", "fields", "-e", "frame.comment"],
                    capture_output=True,
                    text=True,
                    timeout=60,
                    check=False,
                )
                self.assertEqual(done.stdout.split("\n"), ["in no_port"] * 3 + [""])

    def test_manual(self):
        """Completions for shells and manual pages know every command."""
        commands = {"sockets", "top", "capture", "stats", "completions"}
        for shell in ("bash", "zsh", "fish"):
            text = self.run_tool("completions", shell)
            self.assertTrue(all(command in text for command in commands), shell)
        with tempfile.TemporaryDirectory() as place:
            pages = os.path.join(place, "man1")
            self.run_tool("man", pages)
            self.assertLessEqual({f"tunctl-{command}.1" for command in commands}, set(os.listdir(pages)))
            with open(os.path.join(pages, "tunctl-sockets.1"), encoding="utf-8") as page:
                self.assertIn("ss does", page.read())

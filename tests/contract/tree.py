"""A running tund on a mount of its own, and the text files of its netcfg."""

import errno
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

PROGRAM = os.environ.get("TUND") or os.path.join(
    os.path.dirname(os.path.abspath(__file__)), "..", "..", "target", "release", "tund"
)
# Generous: it bounds a failure, no test that passes waits for it.
PATIENCE = 10


def wait_until(condition, what="condition", timeout=PATIENCE):
    """Waits until `condition()` is true and returns its value."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"after {timeout} s still not: {what}")
        time.sleep(0.002)


class Tree:
    """The daemon and the paths below its mount."""

    running = []

    def __init__(self):
        self.base = tempfile.mkdtemp(prefix="contract")
        os.chmod(self.base, 0o755)
        self.root = os.path.join(self.base, "mount")
        os.mkdir(self.root)
        self.log = os.path.join(self.base, "log")
        self.start()
        Tree.running.append(self)

    def start(self):
        """Starts the daemon, once more if there was one, and waits until it serves."""
        with open(self.log, "wb") as log:
            self.daemon = subprocess.Popen(
                [PROGRAM, "--mount", self.root, "--serve", "echo,discard,chargen"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        ready, _, _ = select.select([self.daemon.stdout], [], [], PATIENCE)
        line = self.daemon.stdout.readline() if ready else b""
        if not line:
            self.daemon.kill()
            self.daemon.wait()
            said = self.said()
            self.clear()
            raise AssertionError(f"tund did not get ready: {said}")

    def said(self):
        """What the daemon wrote to its standard error."""
        with open(self.log, "rb") as log:
            return log.read().decode(errors="replace")

    def mounted(self):
        """Whether the mount is there, even one whose daemon is dead, which stat cannot tell."""
        with open("/proc/self/mounts", encoding="utf-8") as mounts:
            return any(line.split(" ")[1] == self.root for line in mounts)

    def clear(self):
        """Removes the mount, if the daemon left it, and the directory; whether it was left."""
        left = self.mounted()
        if left:
            subprocess.run(["umount", "-l", self.root], check=False)
        shutil.rmtree(self.base, ignore_errors=True)
        return left

    def lost(self):
        """Forgets a daemon that died, and its mount."""
        Tree.running.remove(self)
        self.daemon.stdout.close()
        self.clear()

    def stop(self):
        """Ends the daemon as a user would; it has to leave in order, and unmounted."""
        Tree.running.remove(self)
        self.daemon.send_signal(signal.SIGTERM)
        try:
            status = self.daemon.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            status = self.daemon.wait()
        self.daemon.stdout.close()
        said = self.said()
        left = self.clear()
        if "panicked" in said:
            raise AssertionError(f"tund panicked: {said[-2000:]}")
        if status != 0:
            raise AssertionError(f"tund ended with {status} at SIGTERM: {said[-2000:]}")
        if left:
            raise AssertionError("tund left its mount behind")

    def path(self, *names):
        """A path below the mount."""
        return os.path.join(self.root, *(str(name) for name in names))

    def tun(self, unit, flags=os.O_RDWR):
        """Opens a unit, or `clone`."""
        return os.open(self.path("tun", unit), flags)

    def bpf(self, name, flags=os.O_RDWR):
        """Opens the capture of an interface."""
        return os.open(self.path("bpf", name), flags)

    def read(self, name):
        """The text of a netcfg file."""
        with open(self.path("netcfg", name), encoding="ascii") as file:
            return file.read()

    def write(self, name, text):
        """Writes to a netcfg file in one write(2)."""
        file = os.open(self.path("netcfg", name), os.O_WRONLY)
        try:
            return os.write(file, text.encode())
        finally:
            os.close(file)

    def counters(self, name, file):
        """`stats` or `ledger` of an interface, as a dict in the order of the file."""
        lines = self.read(f"ifaces/{name}/{file}").splitlines()
        return {key: int(value) for key, value in (line.split(" ") for line in lines)}

    def stats(self, name):
        """The counters of an interface."""
        return self.counters(name, "stats")

    def ledger(self, name):
        """Where the packets of an interface are."""
        return self.counters(name, "ledger")

    def drops(self, name):
        """The drops of an interface, of all reasons."""
        return sum(n for key, n in self.stats(name).items() if key.startswith("drop."))

    def interfaces(self):
        """The names of the interfaces."""
        return os.listdir(self.path("netcfg", "ifaces"))

    def unclosed(self):
        """What does not add up in the ledgers: nothing, in a correct stack."""
        wrong = []
        for name in self.interfaces():
            for _ in range(100):
                before, ledger, after = self.stats(name), self.ledger(name), self.stats(name)
                if before == after:
                    break
            for way in ("in", "out"):
                places = ("delivered", "forwarded", "queued", "dropped")
                found = sum(ledger[f"{way}.{place}"] for place in places)
                if ledger[f"{way}.offered"] != found:
                    wrong.append(f"{name} {way}: {ledger}")
            drops = sum(n for key, n in after.items() if key.startswith("drop."))
            if drops != ledger["in.dropped"] + ledger["out.dropped"]:
                wrong.append(f"{name}: {drops} drops by reason, {ledger}")
        return wrong

    def inject(self, name, packet, family=2):
        """Sends a packet out of an interface through its bpf file."""
        file = self.bpf(name, os.O_WRONLY)
        try:
            return os.write(file, family.to_bytes(4, sys.byteorder) + packet)
        finally:
            os.close(file)

    def destroy(self, name):
        """Removes a closed interface, which may be gone already."""
        try:
            self.write(f"ifaces/{name}/destroy", "1\n")
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise

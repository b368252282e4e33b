"""A program that waits ends with the signal that is to end it, and gives back what it had."""

import os
import signal

from case import Contract
from procs import wait_in_call


class Terminated(Contract):
    """SIGTERM, whose default is to end the process, while others keep the daemon busy."""

    def setUp(self):
        super().setUp()
        self.busy = [self.child(self.ask_for_ever) for _ in range(2)]
        for child in self.busy:
            child.hear()

    def ask_for_ever(self, pipe):
        """Reads settings without a pause."""
        pipe.send("ready")
        while True:
            self.tree.read("ip/forwarding")

    def ended(self, path, flags=os.O_RDWR):
        """A child waits in a read of the path until SIGTERM ends it; nothing is left of it."""

        def work(pipe):
            file = os.open(self.tree.path(path), flags)
            pipe.send(file)
            while os.read(file, 65536):
                pass

        child = self.child(work)
        wait_in_call(child.hear(), child.pid)
        child.kill(signal.SIGTERM)
        status = child.wait()
        self.assertTrue(os.WIFSIGNALED(status), path)
        self.assertEqual(os.WTERMSIG(status), signal.SIGTERM)
        os.close(os.open(self.tree.path(path), flags))

    def test_of_a_unit(self):
        """In a read of a tun device, of which there is one opening."""
        for _ in range(20):
            self.ended(f"tun/{self.unit}")

    def test_of_anything_else(self):
        """In a read of each other file that waits."""
        self.link()
        for path in ("netisr/ipx", "icmp/echo/10.99.0.1", "icmp/ping/10.99.0.1", "udp/bind/127.0.0.1:5999"):
            self.ended(path)
        for path in (f"bpf/{self.name}", "bpf/drops", f"netcfg/ifaces/{self.name}/events"):
            self.ended(path, os.O_RDONLY)

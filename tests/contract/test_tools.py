"""tunctl on a mount: what it says, and that nothing that it cannot say ends it the wrong way."""

import os
import signal
import subprocess
import unittest

from case import Contract
from tree import PATIENCE, PROGRAM

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

    def test_ping_that_was_stopped(self):
        """Ctrl-Z and fg, as signals: every reply is still heard."""
        ping = self.start("ping", "-c", "4", "-i", "0.2", "127.0.0.1")
        while "seq=0" not in ping.stdout.readline():
            self.assertIsNone(ping.poll())
        for number in (signal.SIGSTOP, signal.SIGCONT) * 3:
            ping.send_signal(number)
        out, _ = ping.communicate(timeout=PATIENCE)
        self.assertIn("4 sent, 4 received", out)

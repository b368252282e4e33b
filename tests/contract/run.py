#!/usr/bin/env python3
"""Runs the contract tests: one line per test, a closing count, and an exit status that says it.

Needs root, FUSE, and the binary that TUND names (target/release/tund). Arguments select tests by a
part of their name.
"""

import os
import signal
import sys
import threading
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True

from tree import Tree  # noqa: E402: the path comes first

# A test that hangs loses its daemon, so that every call on the mount ends.
HANG = 60


class Watchdog(threading.Thread):
    """Kills the daemon of a test that runs for too long."""

    def __init__(self):
        super().__init__(daemon=True)
        self.started = None
        self.start()

    def run(self):
        while True:
            time.sleep(1)
            if self.started and time.monotonic() - self.started > HANG:
                for tree in list(Tree.running):
                    tree.daemon.kill()


class Lines(unittest.TestResult):
    """One line per test."""

    def __init__(self, watchdog):
        super().__init__()
        self.counts = {"ok": 0, "FAILED": 0, "skipped": 0}
        self.details = []
        self.watchdog = watchdog
        self.failed_parts = 0

    @staticmethod
    def name(test):
        """module.Class.test, short."""
        return test.id().removeprefix("test_") if hasattr(test, "id") else str(test)

    def startTest(self, test):
        super().startTest(test)
        self.failed_parts = 0
        self.outcome = ("ok", "")
        self.watchdog.started = time.monotonic()

    def stopTest(self, test):
        self.watchdog.started = None
        self.say(self.name(test), *self.outcome)
        super().stopTest(test)

    def say(self, name, word, reason):
        """Prints and counts."""
        self.counts[word] += 1
        print(f"{name} {word}{' ' + reason if reason else ''}", flush=True)

    def note(self, test, error):
        """Keeps the story of a failure for the end."""
        self.outcome = ("FAILED", str(error[1]).splitlines()[0] if str(error[1]) else "")
        self.details.append(f"{test}\n{self._exc_info_to_string(error, test)}")
        if not isinstance(test, unittest.TestCase):
            self.say(str(test), *self.outcome)

    def addError(self, test, err):
        self.note(test, err)

    def addFailure(self, test, err):
        self.note(test, err)

    def addSubTest(self, test, subtest, err):
        if err:
            self.note(test, err)
            self.details[-1] = f"{subtest}\n{self.details[-1]}"

    def addSkip(self, test, reason):
        self.outcome = ("skipped", reason)
        if not isinstance(test, unittest.TestCase):
            self.say(str(test), *self.outcome)


def selected(suite, words):
    """The tests whose name contains one of the words."""
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from selected(test, words)
        elif not words or any(word in test.id() for word in words):
            yield test


def main():
    """Runs what was selected."""
    # Under nohup it is ignored, and so it would be by the daemons of these tests.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    watchdog = Watchdog()
    result = Lines(watchdog)
    suite = unittest.TestLoader().discover(HERE, "test_*.py")
    unittest.TestSuite(selected(suite, sys.argv[1:])).run(result)
    for story in result.details:
        print(f"\n--- {story}", file=sys.stderr)
    counts = result.counts
    print(f"{counts['ok']} passed, {counts['FAILED']} failed, {counts['skipped']} skipped")
    return 1 if counts["FAILED"] else 0


if __name__ == "__main__":
    sys.exit(main())

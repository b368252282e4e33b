"""What a request costs the daemon, counted in its calls of read(2), which no load changes."""

import os
import threading

from case import Contract
from procs import outcome, raw_read
from tree import wait_until


class Cost(Contract):
    """One program cannot make requests of others expensive."""

    WAITERS = 100
    REQUESTS = 200

    def reads(self):
        """The calls of read(2) that the daemon has made."""
        with open(f"/proc/{self.tree.daemon.pid}/io", encoding="ascii") as counts:
            return next(int(line.split()[1]) for line in counts if line.startswith("syscr:"))

    def cost(self, request):
        """The calls of the daemon for a request, on average."""
        before = self.reads()
        for _ in range(self.REQUESTS):
            request()
        return (self.reads() - before) / self.REQUESTS

    def wait(self, file):
        """A child whose threads all wait in a read of a file that we have, too."""

        def work(pipe):
            threads = [
                threading.Thread(target=lambda: outcome(lambda: raw_read(file)), daemon=True)
                for _ in range(self.WAITERS)
            ]
            for thread in threads:
                thread.start()
            pipe.send("started")
            threads[0].join()

        child = self.child(work)
        child.hear()
        wait_until(lambda: self.in_call(child.pid, file) == self.WAITERS, "all wait")
        return child

    @staticmethod
    def in_call(pid, file):
        """The threads of a process that are in a call on a descriptor."""
        count = 0
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/syscall", encoding="ascii") as status:
                words = status.read().split()
            count += len(words) > 1 and int(words[1], 16) == file
        return count

    def test_among_waiters(self):
        """A close, and a setting that is read, while many threads of another program wait."""
        for path in (f"tun/{self.unit}", "udp/bind/127.0.0.1:5998"):
            file = self.keep(os.open(self.tree.path(path), os.O_RDWR))
            requests = (lambda file=file: os.close(os.dup(file)), lambda: self.tree.read("ip/forwarding"))
            alone = [self.cost(request) for request in requests]
            child = self.wait(file)
            among = [self.cost(request) for request in requests]
            for one, other in zip(alone, among):
                self.assertLess(other, one + 5)
            self.assertEqual(self.in_call(child.pid, file), self.WAITERS, "they wait on")
            child.kill()
            child.wait()

"""Section 1, fevent and poll: READ while a packet is queued, WRITE always, nothing lost."""

import errno
import os
import select
import struct

import packet as wire
from case import Contract
from procs import Background
from tree import PATIENCE


def sample(number=0):
    """A small packet with a number in it."""
    return wire.ip4("10.1.1.1", "10.1.1.2", 253, struct.pack("!I", number))


class Poll(Contract):
    """poll(2), select(2) and epoll(7) on a unit."""

    def setUp(self):
        super().setUp()
        self.file = self.open()

    def poller(self, events):
        """An epoll that watches the unit."""
        poller = select.epoll()
        self.addCleanup(poller.close)
        poller.register(self.file, events)
        return poller

    def test_poll_and_select(self):
        """WRITE always; READ exactly while the queue holds a packet."""
        poll = select.poll()
        poll.register(self.file, select.POLLIN | select.POLLOUT)
        both = [self.file]
        self.assertEqual(poll.poll(0), [(self.file, select.POLLOUT)])
        self.assertEqual(select.select(both, both, both, 0), ([], both, []))
        self.tree.inject(self.name, sample())
        self.tree.inject(self.name, sample())
        for _ in range(2):
            self.assertEqual(poll.poll(0), [(self.file, select.POLLIN | select.POLLOUT)])
            self.assertEqual(select.select(both, both, both, 0), (both, both, []))
            os.read(self.file, 100)
        self.assertEqual(poll.poll(0), [(self.file, select.POLLOUT)])

    def test_waiting_poll(self):
        """A waiting poll, select and epoll_wait end when a packet comes."""
        poller = self.poller(select.EPOLLIN)
        waits = [
            lambda: self.readable(self.file, PATIENCE),
            lambda: bool(select.select([self.file], [], [], PATIENCE)[0]),
            lambda: bool(poller.poll(PATIENCE)),
        ]
        for _ in range(20):
            for wait in waits:
                self.assertFalse(self.readable(self.file))
                waiter = Background(wait)
                self.tree.inject(self.name, sample())
                self.assertEqual(waiter.result(), ("value", True))
                os.read(self.file, 100)

    def test_two_pollers(self):
        """All who wait are woken, not only one of them."""
        waiters = [Background(lambda: self.readable(self.file, PATIENCE)) for _ in range(6)]
        self.tree.inject(self.name, sample())
        for waiter in waiters:
            self.assertEqual(waiter.result(), ("value", True))

    def test_level(self):
        """A level-triggered epoll reports as long as a packet is queued."""
        poller = self.poller(select.EPOLLIN)
        self.assertEqual(poller.poll(0), [])
        self.tree.inject(self.name, sample())
        for _ in range(5):
            self.assertEqual(poller.poll(PATIENCE), [(self.file, select.EPOLLIN)])
        os.read(self.file, 100)
        self.assertEqual(poller.poll(0), [])

    def test_edge(self):
        """An edge-triggered epoll reports every change from empty to occupied, once."""
        poller = self.poller(select.EPOLLIN | select.EPOLLET)
        self.assertEqual(poller.poll(0), [])
        for _ in range(2000):
            self.tree.inject(self.name, sample())
            self.assertEqual(poller.poll(PATIENCE), [(self.file, select.EPOLLIN)])
            self.assertEqual(poller.poll(0), [])
            os.read(self.file, 100)

    def test_edge_without_draining(self):
        """One read for each event is enough, whatever else comes meanwhile."""
        poller = self.poller(select.EPOLLIN | select.EPOLLET)
        for _ in range(3):
            self.tree.inject(self.name, sample())
        for more in (True, True, True, True, False, False, False):
            self.assertEqual(poller.poll(PATIENCE), [(self.file, select.EPOLLIN)])
            os.read(self.file, 100)
            if more:
                self.tree.inject(self.name, sample())
        self.assertEqual(poller.poll(0), [])

    def test_registering_again(self):
        """Registering again with a packet queued reports it at once (level, edge and one-shot)."""
        for mode in (0, select.EPOLLET, select.EPOLLONESHOT):
            poller = self.poller(select.EPOLLIN | mode)
            self.tree.inject(self.name, sample())
            for _ in range(5):
                self.assertEqual(poller.poll(PATIENCE), [(self.file, select.EPOLLIN)])
                poller.modify(self.file, select.EPOLLIN | mode)
            poller.unregister(self.file)
            poller.register(self.file, select.EPOLLIN | mode)
            self.assertEqual(poller.poll(PATIENCE), [(self.file, select.EPOLLIN)])
            os.read(self.file, 100)

    def stress(self, wait, total=3000):
        """A sender and a receiver that sleeps in `wait` whenever the queue is empty."""
        os.set_blocking(self.file, False)
        tap = self.keep(self.tree.bpf(self.name, os.O_WRONLY))
        prefix = struct.pack("=I", 2)

        def sender():
            for number in range(total):
                while True:
                    try:
                        os.write(tap, prefix + sample(number))
                        break
                    except OSError as error:
                        if error.errno != errno.ENOBUFS:
                            raise

        thread = Background(sender)
        expected = 0
        while expected < total:
            self.assertTrue(wait(), f"a wake-up after {expected} packets")
            while True:
                try:
                    data = os.read(self.file, 100)
                except BlockingIOError:
                    break
                self.assertEqual(data, sample(expected))
                expected += 1
        self.assertEqual(thread.result(), ("value", None))

    def test_no_wakeup_is_lost_level(self):
        """Level-triggered, a receiver is always woken again."""
        poller = self.poller(select.EPOLLIN)
        self.stress(lambda: poller.poll(PATIENCE))

    def test_no_wakeup_is_lost_edge(self):
        """Edge-triggered, a receiver that empties the queue is always woken again."""
        poller = self.poller(select.EPOLLIN | select.EPOLLET)
        self.stress(lambda: poller.poll(PATIENCE))

    def test_no_wakeup_is_lost_poll(self):
        """The same with poll(2)."""
        self.stress(lambda: self.readable(self.file, PATIENCE))

    def test_shut_wakes(self):
        """The end of the device wakes those who poll."""
        poller = self.poller(select.EPOLLIN | select.EPOLLET)
        poll = select.poll()
        poll.register(self.file, select.POLLIN)
        waits = (lambda: bool(poll.poll(PATIENCE * 1000)), lambda: bool(poller.poll(PATIENCE)))
        waiters = [Background(wait) for wait in waits]
        self.set(self.file, "TUNSHUT")
        for waiter in waiters:
            self.assertEqual(waiter.result(2 * PATIENCE), ("value", True))

    def test_other_units_stay_quiet(self):
        """A packet wakes the poll of its own unit only."""
        other = self.open(next(self.units))
        self.tree.inject(self.name, sample())
        self.assertTrue(self.readable(self.file))
        self.assertFalse(self.readable(other))

    def test_close_of_an_empty_queue(self):
        """After the last close a new opener does not see what was queued."""
        self.tree.inject(self.name, sample())
        os.close(self.file)
        self.file = self.open()
        self.assertFalse(self.readable(self.file))

"""Section 3, queue disciplines: the line of ifaces/IF/queue, the rate, and who is told when."""

import errno
import os
import select
import signal
import threading
import time

import packet as wire
from case import Contract
from tree import wait_until

FQ = "fq_codel limit {} packets {} bytes target {} us interval {} us flows {} quantum {} bytes {}\n"
# A packet of 1000 bytes takes this long, in seconds, at the rate of SLOW.
PAUSE = 0.5
SLOW = "rate 16000 burst 1"

BAD = """
rate 7999 burst 1 fifo | rate 100000000001 burst 1 fifo | rate 8000 burst 0 fifo | rate 8000 fifo
rate 8000 burst 1 | burst 1 fifo | rate -1 burst 1 fifo | rate 8000 burst 1 rate 8000 burst 1 fifo
fifo rate 8000 burst 1 | fifo limit 0 packets | fifo limit 9 packets 9 packets | fifo limit | red
fifo limit 9 packets limit 9 bytes | fifo ecn | priq target 5000 us | priq limit 65537 packets
fq_codel target 0 us | fq_codel target 5000 | fq_codel target 5 ms | fq_codel interval 0 us
fq_codel flows 0 | fq_codel flows 65537 | fq_codel flows 1 flows 1 | fq_codel quantum 0 bytes
fq_codel quantum 300 | fq_codel ecn noecn | fq_codel ecn ecn | fq_codel limit 9 | fq_codel more
fq_codel limit 9 packets limit 9 packets | fq_codel limit 99999999999999999999 bytes
"""


def sized(size, mark=0):
    """An IPv4 packet of this length, of a protocol without ports."""
    return wire.ip4("10.1.1.1", "10.1.1.2", 253, bytes([mark]) + bytes(size - 21))


class Queue(Contract):
    """ifaces/IF/queue."""

    def setUp(self):
        super().setUp()
        self.file = self.open()
        self.queue = f"ifaces/{self.name}/queue"

    def put(self, size=1000, mark=0):
        """Queues a packet."""
        self.tree.inject(self.name, sized(size, mark))

    def read(self):
        """Reads a packet: its mark."""
        return os.read(self.file, 2000)[20]

    def empty_bucket(self):
        """A rate whose bucket is empty: the next packet goes after PAUSE."""
        self.tree.write(self.queue, SLOW + " fifo\n")
        self.put()
        self.read()
        return time.monotonic()

    def test_text(self):
        """Parts left out have their defaults; the file reads back with all."""
        default = (10240, 33554432, 5000, 100000, 1024, 1514, "ecn")
        lines = {
            "fq_codel": FQ.format(*default),
            "fq_codel noecn limit 9 packets": FQ.format(9, *default[1:6], "noecn"),
            "rate 8000 burst 9 fq_codel flows 7": "rate 8000 burst 9 " + FQ.format(*default[:4], 7, 1514, "ecn"),
            "priq": "priq limit 250 packets 1048576 bytes\n",
            "rate 100000000000 burst 1 fifo limit 9 bytes": "rate 100000000000 burst 1 fifo limit 250 packets 9 bytes\n",
            "fifo": "fifo limit 250 packets 1048576 bytes\n",
        }
        for line, text in lines.items():
            self.tree.write(self.queue, line + "\n")
            self.assertEqual(self.tree.read(self.queue), text)
            self.tree.write(self.queue, text)
            self.assertEqual(self.tree.read(self.queue), text)

    def test_bad_lines(self):
        """A malformed line is EINVAL and changes nothing."""
        self.tree.write(self.queue, "priq limit 7 packets\n")
        text = self.tree.read(self.queue)
        for line in BAD.replace("\n", "|").split("|"):
            if line.strip():
                with self.subTest(line=line):
                    self.fails(errno.EINVAL, self.tree.write, self.queue, line.strip() + "\n")
                    self.assertEqual(self.tree.read(self.queue), text)
        self.fails(errno.EINVAL, self.tree.write, "ifaces/lo0/queue", "fifo\n")

    def test_held_back(self):
        """While nothing may go: not ready, EAGAIN, FIONREAD 0; the counters say what is queued."""
        start = self.empty_bucket()
        self.put()
        os.set_blocking(self.file, False)
        ready, first = self.readable(self.file), self.get(self.file, "FIONREAD")
        stats = self.tree.stats(self.name)
        # On a machine that was busy for so long, it has been released meanwhile.
        if time.monotonic() - start < PAUSE * 0.8:
            self.assertEqual((ready, first), (False, 0))
            self.assertEqual(stats["queue.bytes"], 1000)
        self.assertTrue(self.readable(self.file, 10))
        self.assertEqual(self.get(self.file, "FIONREAD"), 1000)
        self.read()
        self.assertGreater(self.tree.stats(self.name)["queue.delay_us"], 0)

    def test_read_sleeps(self):
        """A reader that sleeps is woken at the release, and not before."""
        start = self.empty_bucket()
        self.put(mark=7)
        self.assertEqual(self.read(), 7)
        self.assertEqual(self.tree.stats(self.name)["queue.packets"], 0)
        self.assertGreater(time.monotonic() - start, PAUSE * 0.8)
        self.put(mark=8)
        self.assertEqual(self.read(), 8)
        self.assertGreater(time.monotonic() - start, PAUSE * 1.8)

    def test_poll_sleeps(self):
        """And so is poll."""
        self.empty_bucket()
        self.put()
        self.read()
        start = time.monotonic()
        self.put()
        poll = select.poll()
        poll.register(self.file, select.POLLIN)
        self.assertTrue(poll.poll(10_000))
        self.assertGreater(time.monotonic() - start, PAUSE * 0.8)

    def test_sigio(self):
        """SIGIO comes with the release."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO})
        self.addCleanup(signal.pthread_sigmask, signal.SIG_UNBLOCK, {signal.SIGIO})
        self.addCleanup(signal.sigtimedwait, {signal.SIGIO}, 0)
        self.empty_bucket()
        self.put()
        self.read()
        self.set(self.file, "FIOSETOWN", os.getpid())
        self.set(self.file, "FIOASYNC", 1)
        start = time.monotonic()
        self.put()
        self.assertIsNotNone(signal.sigtimedwait({signal.SIGIO}, 10))
        self.assertGreater(time.monotonic() - start, PAUSE * 0.8)
        self.set(self.file, "FIOASYNC", 0)
        self.set(self.file, "FIOSETOWN", 0)

    def test_full_and_slow(self):
        """The smallest rate with a full queue, which takes long: changed, and closed."""
        self.tree.write(self.queue, "rate 8000 burst 1 fifo limit 50 packets\n")
        for mark in range(50):
            self.put(mark=mark)
        self.fails(errno.ENOBUFS, self.put)
        self.assertEqual(self.read(), 0)
        self.tree.write(self.queue, "priq limit 30 packets\n")
        self.assertEqual(self.tree.stats(self.name)["drop.queue_full"], 1 + 19)
        self.assertEqual([self.read() for _ in range(30)], list(range(1, 31)))
        self.tree.write(self.queue, "rate 8000 burst 1 fq_codel\n")
        for _ in range(20):
            self.put()
        self.read()
        os.close(self.file)
        wait_until(lambda: self.tree.stats(self.name)["drop.purged"] == 19, "the purge")

    def test_close_ends_a_read(self):
        """A read that waits for the rate ends when the unit is given back."""
        self.empty_bucket()
        self.tree.write(self.queue, "rate 8000 burst 1 fifo\n")
        self.put(60_000 // 40)
        self.put(60_000 // 40)
        os.set_blocking(self.file, True)
        self.read()
        found = []

        def sleeper():
            try:
                found.append(os.read(self.file, 2000))
            except OSError as error:
                found.append(error.errno)

        thread = threading.Thread(target=sleeper)
        thread.start()
        self.set(self.file, "TUNSHUT")
        thread.join(10)
        self.assertEqual(found, [errno.EHOSTDOWN])

    def test_priorities(self):
        """priq: the upper three bits of the traffic class."""
        self.tree.write(self.queue, "priq\n")
        for tos in (0, 0x20, 0xE0, 0x60):
            packet = bytearray(sized(100, tos))
            packet[1] = tos
            self.tree.inject(self.name, bytes(packet))
        self.assertEqual([self.read() for _ in range(4)], [0xE0, 0x60, 0x20, 0])

    def test_changed_often(self):
        """Changed many times under load, every packet is somewhere."""
        stop = threading.Event()

        def load():
            while not stop.is_set():
                try:
                    self.put(200)
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise
                if self.readable(self.file):
                    self.read()

        os.set_blocking(self.file, True)
        thread = threading.Thread(target=load)
        thread.start()
        try:
            for number in range(300):
                rate = "rate 80000000 burst 3000 " if number % 2 else ""
                line = ("fifo", "priq", "fq_codel")[number % 3]
                self.tree.write(self.queue, f"{rate}{line} limit {1 + number % 40} packets\n")
        finally:
            stop.set()
            thread.join()
        self.tree.write(self.queue, "fifo\n")

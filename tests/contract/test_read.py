"""Section 1, read: one packet a call, and every way in which a wait ends."""

import errno
import fcntl
import os
import signal
import struct

import packet as wire
from case import Contract
from procs import Background, outcome, raw_read, wait_in_call
from tree import wait_until


def sample(size, mark=0):
    """A packet of a size, recognisable by a mark."""
    return wire.ip4("10.1.1.1", "10.1.1.2", 253, bytes([mark]) * (size - 20))


class Read(Contract):
    """What read(2) returns."""

    def setUp(self):
        super().setUp()
        self.file = self.open()

    def nonblocking(self):
        """Sets O_NONBLOCK on the unit."""
        flags = fcntl.fcntl(self.file, fcntl.F_GETFL)
        fcntl.fcntl(self.file, fcntl.F_SETFL, flags | os.O_NONBLOCK)

    def test_one_packet_a_call(self):
        """Packets come whole, one per call, in the order in which they were sent."""
        packets = [sample(size, size & 255) for size in (20, 21, 576, 1500, 28)]
        for each in packets:
            self.tree.inject(self.name, each)
        for each in packets:
            self.assertEqual(os.read(self.file, 65536), each)

    def test_shorter_buffer(self):
        """A shorter buffer gets the head, the rest is dropped, and that is counted."""
        first, second = sample(500, 1), sample(60, 2)
        self.tree.inject(self.name, first)
        self.tree.inject(self.name, second)
        drops = self.tree.drops(self.name)
        self.assertEqual(os.read(self.file, 100), first[:100])
        self.assertEqual(os.read(self.file, 100), second)
        wait_until(lambda: self.tree.drops(self.name) == drops + 1, "a counted truncation")

    def test_scattered(self):
        """readv fills its pieces from one packet."""
        sent = sample(100)
        self.tree.inject(self.name, sent)
        pieces = [bytearray(30), bytearray(200)]
        self.assertEqual(os.readv(self.file, pieces), 100)
        self.assertEqual(bytes(pieces[0]) + bytes(pieces[1][:70]), sent)

    def test_zero_bytes(self):
        """A read of no bytes returns 0 and takes nothing, and does not wait."""
        self.assertEqual(Background(lambda: raw_read(self.file, 0)).result(), ("value", b""))
        self.tree.inject(self.name, sample(40))
        self.assertEqual(raw_read(self.file, 0), b"")
        self.assertEqual(os.read(self.file, 100), sample(40))

    def test_nonblocking(self):
        """EAGAIN with O_NONBLOCK, set at open or with F_SETFL; cleared, it waits again."""
        self.nonblocking()
        self.assertTrue(fcntl.fcntl(self.file, fcntl.F_GETFL) & os.O_NONBLOCK)
        self.fails(errno.EAGAIN, os.read, self.file, 100)
        self.tree.inject(self.name, sample(40))
        self.assertEqual(os.read(self.file, 100), sample(40))
        self.fails(errno.EAGAIN, os.read, self.file, 100)
        other = self.open(next(self.units), os.O_RDWR | os.O_NONBLOCK)
        self.fails(errno.EAGAIN, os.read, other, 100)
        fcntl.fcntl(self.file, fcntl.F_SETFL, os.O_RDWR)
        reader = Background(lambda: raw_read(self.file))
        wait_in_call(self.file, thread=reader)
        self.tree.inject(self.name, sample(50))
        self.assertEqual(reader.result(), ("value", sample(50)))

    def test_fionbio_of_linux(self):
        """FIONBIO of the C library is F_SETFL in other words."""
        fcntl.ioctl(self.file, 0x5421, struct.pack("=i", 1))
        self.fails(errno.EAGAIN, os.read, self.file, 100)

    def test_woken_by_a_packet(self):
        """A waiting read ends with the packet that comes."""
        reader = Background(lambda: raw_read(self.file))
        wait_in_call(self.file, thread=reader)
        self.tree.inject(self.name, sample(80))
        self.assertEqual(reader.result(), ("value", sample(80)))

    def test_first_come_first_served(self):
        """Several waiting reads are served one packet each, none twice."""
        readers = []
        for _ in range(8):
            readers.append(Background(lambda: raw_read(self.file)))
            wait_in_call(self.file, thread=readers[-1])
        for mark in range(8):
            self.tree.inject(self.name, sample(60, mark))
        found = [reader.result() for reader in readers]
        self.assertEqual(sorted(found), [("value", sample(60, mark)) for mark in range(8)])

    def test_a_wait_does_not_block_a_write(self):
        """While one thread waits in read, another can write and ask on the same descriptor."""
        reader = Background(lambda: raw_read(self.file))
        wait_in_call(self.file, thread=reader)
        writer = Background(lambda: os.write(self.file, sample(40)))
        self.assertEqual(writer.result(), ("value", 40))
        self.assertEqual(Background(lambda: self.get(self.file, "FIONREAD")).result(), ("value", 0))
        self.tree.inject(self.name, sample(70))
        self.assertEqual(reader.result(), ("value", sample(70)))

    def test_signal(self):
        """A signal with a handler ends the wait with EINTR, and no packet is eaten."""

        def reader(pipe):
            signal.signal(signal.SIGUSR1, lambda number, frame: None)
            signal.siginterrupt(signal.SIGUSR1, True)
            pipe.send("ready")
            pipe.send(outcome(lambda: raw_read(self.file)))

        for _ in range(20):
            child = self.child(reader)
            child.hear()
            wait_in_call(self.file, child.pid)
            child.kill(signal.SIGUSR1)
            self.assertEqual(child.hear(), ("errno", errno.EINTR))
            child.wait()
        self.nothing_eaten()

    def nothing_eaten(self):
        """The next packet comes to the next reader, and it is the only one."""
        self.tree.inject(self.name, sample(66, 6))
        self.nonblocking()
        self.assertEqual(os.read(self.file, 100), sample(66, 6))
        self.fails(errno.EAGAIN, os.read, self.file, 100)

    def waiting(self, file):
        """A child that waits in a read of a descriptor it shares with us, and tells the outcome."""

        def reader(pipe):
            pipe.send("ready")
            pipe.send(outcome(lambda: raw_read(file)))

        child = self.child(reader)
        child.hear()
        wait_in_call(file, child.pid)
        return child

    def test_killed_reader(self):
        """A reader killed in its wait on a shared descriptor eats no packet."""
        for _ in range(20):
            child = self.waiting(self.file)
            child.kill()
            child.wait()
        self.nothing_eaten()

    def test_killed_reader_and_a_packet_at_once(self):
        """The same when the packet comes before the killed reader has got as far as to die."""
        link = self.link(unit=next(self.units))
        # On one processor the killed one has no chance to run before the daemon has answered.
        for pid in (0, self.tree.daemon.pid):
            all_of_them = os.sched_getaffinity(pid)
            os.sched_setaffinity(pid, {min(all_of_them)})
            self.addCleanup(os.sched_setaffinity, pid, all_of_them)
        for mark in range(50):
            child = self.waiting(link.file)
            ping = wire.echo(link.peer, link.here, 0x7070, mark, b"at once")
            os.kill(child.pid, signal.SIGKILL)
            os.write(link.file, ping)
            child.wait()
            self.assertTrue(link.recv(timeout=5).is_pong)

    def test_killed_reader_among_others(self):
        """Of three waiting processes the killed one gets nothing, the others get what comes."""
        children = [self.waiting(self.file) for _ in range(3)]
        children[0].kill()
        children[0].wait()
        for mark in range(2):
            self.tree.inject(self.name, sample(60, mark))
        found = sorted(child.hear() for child in children[1:])
        self.assertEqual(found, [("value", sample(60, mark)) for mark in range(2)])
        for child in children:
            child.wait()

    def test_close_by_another_thread(self):
        """close(2) by another thread ends the wait with EINTR and gives the unit back."""
        reader = Background(lambda: raw_read(self.file))
        wait_in_call(self.file, thread=reader)
        os.close(self.file)
        self.assertEqual(reader.result(), ("errno", errno.EINTR))
        os.close(self.tree.tun(self.unit))

    def test_exit_of_a_child_that_inherited(self):
        """A child that inherited the descriptor and exits does not end our wait."""
        reader = Background(lambda: raw_read(self.file))
        wait_in_call(self.file, thread=reader)
        child = self.child(lambda pipe: None)
        child.wait()
        reader.join(0.2)
        self.assertTrue(reader.is_alive(), "the wait goes on")
        self.tree.inject(self.name, sample(40))
        self.assertEqual(reader.result(), ("value", sample(40)))

    def test_close_of_our_copy(self):
        """Our close does not end the wait of a child that has a descriptor of its own."""

        def reader(pipe):
            pipe.send("ready")
            pipe.send(outcome(lambda: raw_read(self.file)))

        child = self.child(reader)
        child.hear()
        wait_in_call(self.file, child.pid)
        os.close(self.file)
        self.assertFalse(child.pipe.poll(0.2), "the wait goes on")
        self.tree.inject(self.name, sample(40))
        self.assertEqual(child.hear(), ("value", sample(40)))
        child.wait()

    def test_signals_race_with_packets(self):
        """Under a rain of signals every packet is read once and in order."""
        total = 2000

        def reader(pipe):
            signal.signal(signal.SIGALRM, lambda number, frame: None)
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0003)
            seen, interrupted = [], 0
            while len(seen) < total:
                kind, found = outcome(lambda: raw_read(self.file))
                if kind == "value":
                    seen.append(struct.unpack("!I", found[20:24])[0])
                elif found == errno.EINTR:
                    interrupted += 1
                else:
                    break
            signal.setitimer(signal.ITIMER_REAL, 0)
            pipe.send((seen, interrupted))

        child = self.child(reader)
        tap = self.keep(self.tree.bpf(self.name, os.O_WRONLY))
        for number in range(total):
            packet = wire.ip4("10.1.1.1", "10.1.1.2", 253, struct.pack("!I", number))
            while outcome(lambda: os.write(tap, struct.pack("=I", 2) + packet))[0] == "errno":
                pass
            if number % 20 == 0:
                wait_until(lambda: self.get(self.file, "FIONREAD") == 0, "an empty queue")
        seen, interrupted = child.hear(30)
        child.wait()
        self.assertEqual(seen, list(range(total)))
        self.assertGreater(interrupted, 0)

    def test_many_wait(self):
        """A hundred waiting reads keep nobody else from anything."""
        readers = [Background(lambda: raw_read(self.file)) for _ in range(100)]
        for reader in readers:
            wait_in_call(self.file, thread=reader)
        other = self.open(next(self.units))
        self.assertEqual(os.write(other, sample(40)), 40)
        self.assertIn(self.name, self.tree.interfaces())
        self.set(self.file, "TUNSHUT")
        for reader in readers:
            self.assertEqual(reader.result(), ("errno", errno.EHOSTDOWN))

    def test_shut(self):
        """TUNSHUT ends waits with EHOSTDOWN, gives the unit back, and the old handle is dead."""
        readers = [Background(lambda: raw_read(self.file)) for _ in range(3)]
        for reader in readers:
            wait_in_call(self.file, thread=reader)
        self.set(self.file, "TUNSHUT")
        for reader in readers:
            self.assertEqual(reader.result(), ("errno", errno.EHOSTDOWN))
        second = self.open()
        self.fails(errno.EHOSTDOWN, os.read, self.file, 100)
        self.fails(errno.EHOSTDOWN, os.write, self.file, sample(40))
        self.fails(errno.EHOSTDOWN, self.get, self.file, "FIONREAD")
        self.fails(errno.EHOSTDOWN, self.set, self.file, "TUNSHUT")
        self.tree.inject(self.name, sample(44))
        os.close(self.file)
        self.assertEqual(os.read(second, 100), sample(44))
        self.fails(errno.EBUSY, self.tree.tun, self.unit)

    def test_shut_races_with_reads(self):
        """A read that comes just before or just after TUNSHUT is EHOSTDOWN; none waits on."""
        for _ in range(200):
            readers = [Background(lambda: raw_read(self.file)) for _ in range(2)]
            self.set(self.file, "TUNSHUT")
            for reader in readers:
                self.assertEqual(reader.result(), ("errno", errno.EHOSTDOWN))
            os.close(self.file)
            self.file = self.open()

    def test_bounds_of_a_packet_are_kept_under_load(self):
        """Readers in four threads see every packet once and whole."""
        total, seen = 2000, []

        def reader():
            while True:
                data = os.read(self.file, 4096)
                if len(data) == 20:
                    return
                seen.append(struct.unpack("!I", data[20:24])[0])

        readers = [Background(reader) for _ in range(4)]
        tap = self.keep(self.tree.bpf(self.name, os.O_WRONLY))
        prefix = struct.pack("=I", 2)

        def send(data):
            while True:
                try:
                    return os.write(tap, prefix + data)
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise

        for number in range(total):
            data = struct.pack("!I", number) * (1 + number % 300)
            send(wire.ip4("10.1.1.1", "10.1.1.2", 253, data))
        for _ in readers:
            send(sample(20))
        for reader in readers:
            self.assertEqual(reader.result(30), ("value", None))
        self.assertEqual(sorted(seen), list(range(total)))


class Heirs(Contract):
    """A file that a process shares with a child that has not used it yet."""

    def inherited(self, number):
        """A reader that waits and is ended by a signal takes no packet from its child."""

        def work(pipe):
            file = self.tree.tun(self.unit)
            if os.fork() == 0:
                pipe.recv()
                os.set_blocking(file, False)
                pipe.send([len(os.read(file, 100)) for _ in range(3)])
                os._exit(0)
            pipe.send(file)
            os.read(file, 100)

        parent = self.child(work)
        file = parent.hear()
        tap = self.keep(self.tree.bpf(self.name, os.O_WRONLY))
        wait_in_call(file, pid=parent.pid)
        parent.kill(number)
        for size in (41, 42, 43):
            os.write(tap, struct.pack("=I", 2) + sample(size))
        parent.wait()
        parent.pipe.send("read")
        self.assertEqual(parent.hear(), [41, 42, 43])

    def test_killed(self):
        """SIGKILL."""
        self.inherited(signal.SIGKILL)

    def test_terminated(self):
        """A signal whose default is to end the process, which the kernel turns into a kill."""
        self.inherited(signal.SIGTERM)

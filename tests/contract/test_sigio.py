"""Section 2, SIGIO: who gets it, when, and who may ask for it."""

import errno
import os
import signal
import time

import packet as wire
from case import Contract
from tree import wait_until

PACKET = wire.ip4("10.1.1.1", "10.1.1.2", 253, bytes(20))
# Long enough for a signal that should not come.
QUIET = 0.2


def await_signal(seconds):
    """Whether SIGIO, which is blocked, comes within some seconds."""
    return signal.sigtimedwait({signal.SIGIO}, seconds) is not None


def obedient(prepare):
    """A child that runs `prepare()`, blocks SIGIO, and answers how long it may wait for one."""

    def work(pipe):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO})
        prepare()
        pipe.send(os.getpgrp())
        while True:
            pipe.send(await_signal(pipe.recv()))

    return work


class Sigio(Contract):
    """FIOASYNC, FIOSETOWN and their relatives."""

    def setUp(self):
        super().setUp()
        self.file = self.open()

    def listener(self, prepare=lambda: None):
        """A child that waits for SIGIO."""
        child = self.child(obedient(prepare))
        child.group = child.hear()
        return child

    def sigio(self, child, comes):
        """Asserts that one packet makes SIGIO come to a child, or not."""
        self.tree.inject(self.name, PACKET)
        child.pipe.send(10 if comes else QUIET)
        self.assertEqual(child.hear(20), comes)

    def test_process(self):
        """With FIOASYNC and an owner, every packet queued sends SIGIO; without either, none."""
        child = self.listener()
        self.sigio(child, False)
        self.set(self.file, "FIOSETOWN", child.pid)
        self.sigio(child, False)
        self.set(self.file, "FIOASYNC", 1)
        for _ in range(5):
            self.sigio(child, True)
        self.set(self.file, "FIOASYNC", 0)
        self.sigio(child, False)
        self.set(self.file, "FIOASYNC", 1)
        self.sigio(child, True)
        self.set(self.file, "FIOSETOWN", 0)
        self.sigio(child, False)

    def test_handler_here(self):
        """The classic use: our own process as owner, and a handler."""
        came = []
        old = signal.signal(signal.SIGIO, lambda number, frame: came.append(number))
        self.addCleanup(signal.signal, signal.SIGIO, old)
        self.set(self.file, "FIOSETOWN", os.getpid())
        self.set(self.file, "FIOASYNC", 1)
        self.tree.inject(self.name, PACKET)
        wait_until(lambda: came, "SIGIO")
        self.set(self.file, "FIOASYNC", 0)

    def test_group(self):
        """A negative owner is a process group: every process in it gets the signal."""
        leader = self.listener(lambda: os.setpgid(0, 0))
        member = self.listener(lambda: os.setpgid(0, leader.pid))
        other = self.listener()
        self.assertEqual((leader.group, member.group), (leader.pid, leader.pid))
        self.set(self.file, "FIOASYNC", 1)
        for set_owner in (("FIOSETOWN", -leader.pid), ("TIOCSPGRP", leader.pid)):
            self.set(self.file, *set_owner)
            for child in (leader, member):
                self.sigio(child, True)
                # The packet was for both.
            for child in (leader, member):
                child.pipe.send(0)
                child.hear()
            other.pipe.send(0)
            self.assertFalse(other.hear())
            self.set(self.file, "FIOSETOWN", 0)

    def test_owner_is_told(self):
        """FIOGETOWN and TIOCGPGRP tell the owner, each with its own sign; 0 when there is none."""
        child = self.listener(lambda: os.setpgid(0, 0))
        self.assertEqual(self.get(self.file, "FIOGETOWN"), 0)
        self.assertEqual(self.get(self.file, "TIOCGPGRP"), 0)
        steps = [("FIOSETOWN", child.pid, child.pid), ("FIOSETOWN", -child.pid, -child.pid)]
        steps += [("TIOCSPGRP", child.pid, -child.pid), ("TIOCSPGRP", -child.pid, child.pid)]
        steps += [("FIOSETOWN", os.getpid(), os.getpid()), ("FIOSETOWN", 0, 0)]
        steps += [("FIOSETOWN", child.pid, child.pid), ("TIOCSPGRP", 0, 0)]
        for request, value, owner in steps:
            self.set(self.file, request, value)
            self.assertEqual(self.get(self.file, "FIOGETOWN"), owner)
            self.assertEqual(self.get(self.file, "TIOCGPGRP"), -owner)

    def test_nobody_there(self):
        """A process or group that does not exist is ESRCH and changes nothing."""
        child = self.child(lambda pipe: None)
        child.wait()
        self.set(self.file, "FIOSETOWN", os.getpid())
        for request in ("FIOSETOWN", "TIOCSPGRP"):
            for value in (child.pid, -child.pid, 2**31 - 1, -(2**31) + 1):
                with self.subTest(request=request, value=value):
                    self.fails(errno.ESRCH, self.set, self.file, request, value)
        # A child that leads no group: a process, but not a group.
        member = self.listener()
        self.fails(errno.ESRCH, self.set, self.file, "FIOSETOWN", -member.pid)
        self.fails(errno.ESRCH, self.set, self.file, "TIOCSPGRP", member.pid)
        self.assertEqual(self.get(self.file, "FIOGETOWN"), os.getpid())

    def test_another_session(self):
        """A process or group of another session is EPERM, even for root, and changes nothing."""
        child = self.listener(os.setsid)
        self.set(self.file, "FIOSETOWN", os.getpid())
        for request, value in (("FIOSETOWN", 1), ("FIOSETOWN", -1), ("TIOCSPGRP", 1)):
            self.fails(errno.EPERM, self.set, self.file, request, value * child.pid)
        self.assertEqual(self.get(self.file, "FIOGETOWN"), os.getpid())

    def dead_owner(self):
        """A child that owns the device, and died."""
        child = self.listener()
        self.set(self.file, "FIOASYNC", 1)
        self.set(self.file, "FIOSETOWN", child.pid)
        child.kill()
        child.wait()
        return child

    def test_owner_that_died(self):
        """A dead owner is nobody: packets go on, and nothing is signalled."""
        self.dead_owner()
        self.tree.inject(self.name, PACKET)
        self.assertEqual(os.read(self.file, 100), PACKET)
        self.assertEqual(self.get(self.file, "FIOGETOWN"), 0)

    def test_number_of_a_dead_owner(self):
        """Whoever gets the number of an owner that died is not the owner."""
        child = self.dead_owner()
        time.sleep(0.05)  # Older systems tell processes apart by hundredths of a second.
        for _ in range(100):
            try:
                with open("/proc/sys/kernel/ns_last_pid", "w", encoding="ascii") as last:
                    last.write(str(child.pid - 1))
            except OSError as error:
                self.skipTest(f"no choice of process numbers: {error}")
            heir = self.listener()
            if heir.pid == child.pid:
                break
            heir.finish()
        if heir.pid != child.pid:
            self.skipTest("others are quicker to take the number")
        self.sigio(heir, False)

    def test_last_close(self):
        """The last close forgets the owner; ASYNC survives it."""
        child = self.listener()
        self.set(self.file, "FIOASYNC", 1)
        self.set(self.file, "FIOSETOWN", child.pid)
        # The child holds a copy of the descriptor: TUNSHUT closes for all.
        self.set(self.file, "TUNSHUT")
        os.close(self.file)
        self.file = self.open()
        self.assertEqual(self.get(self.file, "FIOGETOWN"), 0)
        self.sigio(child, False)
        self.set(self.file, "FIOSETOWN", child.pid)
        self.sigio(child, True)

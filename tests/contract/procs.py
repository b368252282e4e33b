"""Other processes and threads: children, other users, and calls that Python does not retry."""

import ctypes
import multiprocessing
import os
import signal
import threading
import time

from tree import PATIENCE, wait_until

LIBC = ctypes.CDLL(None, use_errno=True)
NOBODY = 65534


def raw_read(file, size=65536):
    """read(2) once, without Python's retry on EINTR: the bytes, or OSError."""
    buffer = ctypes.create_string_buffer(size)
    count = LIBC.read(file, buffer, ctypes.c_size_t(size))
    if count < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return buffer.raw[:count]


def outcome(work):
    """What `work()` returned, or the number of its OSError."""
    try:
        return ("value", work())
    except OSError as error:
        return ("errno", error.errno)


class Child:
    """A forked process that runs `work(pipe)`; what it sends is heard here."""

    def __init__(self, work, uid=0):
        self.pipe, far = multiprocessing.Pipe()
        self.pid = os.fork()
        self.status = None
        if self.pid == 0:
            code = 1
            try:
                self.pipe.close()
                if uid:
                    os.setgroups([])
                    os.setresgid(uid, uid, uid)
                    os.setresuid(uid, uid, uid)
                work(far)
                code = 0
            finally:
                os._exit(code)
        far.close()

    def hear(self, timeout=PATIENCE):
        """The next thing that the child sent."""
        if not self.pipe.poll(timeout):
            raise AssertionError(f"a child said nothing for {timeout} s")
        return self.pipe.recv()

    def kill(self, number=signal.SIGKILL):
        """Signals the child, while it runs."""
        if self.status is None:
            os.kill(self.pid, number)

    def wait(self, timeout=PATIENCE):
        """Waits for its end and returns the wait status."""

        def ended():
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = status
            return pid

        if self.status is None:
            wait_until(ended, "the end of a child", timeout)
        return self.status

    def finish(self):
        """Ends it if it still runs. Safe to call twice."""
        if self.status is None:
            self.kill()
            self.wait()
        self.pipe.close()


def as_user(work, uid=NOBODY):
    """The outcome of `work()` in a child with another user id."""
    child = Child(lambda pipe: pipe.send(outcome(work)), uid)
    try:
        return child.hear()
    finally:
        child.wait()
        child.finish()


class Background(threading.Thread):
    """A thread that runs `work()`; its outcome is fetched with `result`."""

    def __init__(self, work):
        super().__init__(daemon=True)
        self.work = work
        self.found = ("errno", None)
        self.start()

    def run(self):
        self.found = outcome(self.work)

    def result(self, timeout=PATIENCE):
        """The outcome, once the thread has ended."""
        self.join(timeout)
        if self.is_alive():
            raise AssertionError(f"a thread still waits after {timeout} s")
        return self.found


def wait_in_call(file, pid=None, thread=None):
    """Waits until a process, or one of our threads, is inside a system call on descriptor `file`."""
    pid = pid or os.getpid()
    if thread:
        wait_until(lambda: thread.native_id, "a thread that runs")
    path = f"/proc/{pid}/task/{thread.native_id if thread else pid}/syscall"
    try:
        with open(path, encoding="ascii") as status:
            status.read()
    except OSError:
        time.sleep(1)  # This system hides it.
        return

    def inside():
        with open(path, encoding="ascii") as status:
            words = status.read().split()
        return len(words) > 1 and int(words[1], 16) == file

    wait_until(inside, f"a system call on descriptor {file}")

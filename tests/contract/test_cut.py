"""What the kernel makes of one call: requests that were cut, pages of a mapping, questions of its own."""

import array
import errno
import fcntl
import mmap
import os
import signal
import struct

import packet as wire
from case import Contract

FS_IOC_GETFLAGS = 0x80086601
# The kernel puts at most this many pieces, each in a page, into one request.
PIECES = 256


class Cut(Contract):
    """A call of more than 256 pieces comes as several requests."""

    def test_write(self):
        """The rest of a packet is no packet: the call accepts less than all, and one packet is wrong."""
        link = self.link()
        whole = wire.echo(link.peer, link.here, 7, 1, b"x" * 1000)
        pieces = [whole[at : at + 4] for at in range(0, len(whole), 4)]
        self.assertEqual(len(pieces), PIECES + 1)
        before = self.tree.stats(link.name)
        self.assertEqual(os.writev(link.file, pieces), 4 * PIECES)
        after = self.tree.stats(link.name)
        self.assertEqual(after["ipackets"] - before["ipackets"], 1)
        # The next call is a packet again.
        self.assertEqual(os.writev(link.file, [whole[:20], whole[20:]]), len(whole))
        self.assertTrue(link.recv().is_pong)

    def test_largest(self):
        """A call of more than 1 MiB accepts the packets of the first 1 MiB."""
        link = self.link()
        self.set(link.file, "TUNSBATCH", 1)
        packet = wire.udp(link.peer, link.here, 5, 9, bytes(1020 - 28))
        one = struct.pack("=I", len(packet)) + packet
        self.assertEqual(len(one), 1024)
        # Memory of its own begins on a page, so that the kernel cuts behind a frame.
        with mmap.mmap(-1, (1 << 20) + 8192) as memory:
            memory.write(one * (len(memory) // len(one)))
            before = self.tree.stats(link.name)["ipackets"]
            self.assertEqual(os.write(link.file, memory), 1 << 20)
            self.assertEqual(self.tree.stats(link.name)["ipackets"] - before, 1024)

    def test_read(self):
        """readv of more pieces gets one packet, and the next call the next one."""
        link = self.link()
        sizes = (1024, 1024, 500)
        for size in sizes:
            self.tree.inject(link.name, wire.echo(link.here, link.peer, 7, 1, b"x" * (size - 28)))
        for size in sizes:
            pieces = [bytearray(4) for _ in range(PIECES + 44)]
            self.assertEqual(os.readv(link.file, pieces), size)
        self.assertFalse(self.readable(link.file))

    def test_stream(self):
        """A readv that all bytes of a stream fit into does not wait for more."""
        echo = self.keep(os.open(self.tree.path("tcp", "127.0.0.1:7"), os.O_RDWR))
        for size in (1000, 1024):
            whole = os.urandom(size)
            self.assertEqual(os.write(echo, whole), size)
            found = b""
            while len(found) < size:
                pieces = [bytearray(4) for _ in range(PIECES + 44)]
                count = os.readv(echo, pieces)
                found += b"".join(pieces)[:count]
            self.assertEqual(found, whole)

    def test_datagrams(self):
        """Two datagrams are two calls for a socket as well."""
        socket = self.keep(os.open(self.tree.path("udp", "127.0.0.1:7"), os.O_RDWR))
        for fill in (b"a", b"b"):
            os.write(socket, fill * 1024)
        for fill in (b"a", b"b"):
            pieces = [bytearray(4) for _ in range(PIECES + 44)]
            self.assertEqual(os.readv(socket, pieces), 1024)
            self.assertEqual(b"".join(pieces)[:1024], fill * 1024)

    def test_events(self):
        """What is told as it comes is a stream as well: the rest of a call waits for no further line."""
        link = self.link()
        events = self.keep(os.open(self.tree.path("netcfg", "ifaces", link.name, "events"), os.O_RDONLY))
        lines = [f"mtu {700 + number % 2}\n" for number in range(PIECES * 4 // 8)]
        for line in lines:
            self.tree.write(f"ifaces/{link.name}/mtu", line[4:])
        pieces = [bytearray(4) for _ in range(PIECES + 44)]
        self.assertEqual(os.readv(events, pieces), 4 * PIECES)
        self.assertEqual(b"".join(pieces)[: 4 * PIECES], "".join(lines).encode())

    def test_append(self):
        """O_APPEND, as of a shell's >>, changes nothing for whole packets."""
        link = self.link()
        again = self.keep(os.open(self.tree.path("icmp", "echo", link.peer), os.O_RDWR | os.O_APPEND))
        for sequence in (1, 2):
            self.assertEqual(os.write(again, sequence.to_bytes(2, "big") + b"data"), 6)
            self.assertEqual(link.recv().payload[8:], b"data")


class Kernel(Contract):
    """What the kernel does to a file without being asked by read or write."""

    def test_mapping(self):
        """A page of a private mapping is not filled with a packet."""
        link = self.link()
        self.tree.inject(link.name, wire.echo(link.here, link.peer))

        def touch(pipe):
            try:
                pages = mmap.mmap(link.file, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ)
            except OSError:
                return
            pipe.send(pages[0])

        status = self.child(touch).wait()
        self.assertTrue(status == 0 or os.WTERMSIG(status) == signal.SIGBUS, status)
        self.assertEqual(len(os.read(link.file, 100)), 28)

    def test_mapping_of_events(self):
        """Nor with lines that are told once."""
        events = self.keep(os.open(self.tree.path("netcfg", "ifaces", "lo0", "events"), os.O_RDONLY))
        self.addCleanup(self.tree.write, "ifaces/lo0/mtu", "16384\n")
        self.tree.write("ifaces/lo0/mtu", "9000\n")
        status = self.child(lambda pipe: mmap.mmap(events, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ)[0]).wait()
        self.assertNotEqual(status, 0)
        self.assertEqual(os.read(events, 100), b"mtu 9000\n")

    def test_attributes(self):
        """lsattr(1) on an open tun: there are no such attributes; and tun/clone makes no unit."""
        file = self.open()
        units = self.tree.interfaces()
        for path in (file, self.tree.path("bpf", self.name)):
            opened = path if path == file else self.keep(os.open(path, os.O_RDONLY))
            self.fails(errno.ENOTTY, fcntl.ioctl, opened, FS_IOC_GETFLAGS, array.array("i", [0]))
        self.assertEqual(self.tree.interfaces(), units)

    def test_links(self):
        """Links cannot be made."""
        new = self.tree.path("netcfg", "new")
        self.fails(errno.EPERM, os.symlink, "there", new)
        self.fails(errno.EPERM, os.link, self.tree.path("netcfg", "route", "list"), new)

    def test_statistics(self):
        """statvfs says what names and blocks are like, and that nothing is stored."""
        found = os.statvfs(self.tree.root)
        self.assertEqual((found.f_bsize, found.f_frsize, found.f_namemax), (4096, 4096, 255))
        self.assertEqual((found.f_blocks, found.f_bfree), (0, 0))

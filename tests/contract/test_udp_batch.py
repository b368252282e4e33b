"""Section 5: UDP in batches, and sockets that are bound and not connected."""

import errno
import fcntl
import os
import socket
import struct

import numbers_of as numbers
from case import Contract
from procs import Background, raw_read, wait_in_call

# A read that is smaller is refused.
SMALLEST = 65560
MOST = 1 << 20


def address(host, port, family=None):
    """The address in a frame."""
    known = socket.AF_INET6 if ":" in host else socket.AF_INET
    number = {socket.AF_INET: 2, socket.AF_INET6: 10}[known] if family is None else family
    raw = socket.inet_pton(known, host)
    return struct.pack("=H", number) + struct.pack("!H", port) + bytes(4) + raw.ljust(16, b"\0")


PEER = bytes(24)


def frame(where, data):
    """A datagram in its frame."""
    body = where + data
    return struct.pack("=I", len(body)) + body + bytes(-len(body) % 4)


class UdpBatch(Contract):
    """Files of `udp` with TUNSBATCH on."""

    def udp(self, name, batch=True):
        """Opens a path below udp; its port."""
        file = self.keep(os.open(self.tree.path("udp", *name.split("/")), os.O_RDWR))
        if batch:
            self.set(file, "TUNSBATCH", 1)
        return file, self.name_of(file)[1]

    def name_of(self, file):
        """What the socket is bound to."""
        raw = fcntl.ioctl(file, numbers.TUNGSOCKNAME, b"\xee" * 24)
        family = struct.unpack("=H", raw[:2])[0]
        port = struct.unpack("!H", raw[2:4])[0]
        self.assertEqual(raw[4:8], bytes(4), "no scope")
        if family == 2:
            self.assertEqual(raw[12:], bytes(12))
            return socket.inet_ntop(socket.AF_INET, raw[8:12]), port
        self.assertEqual(family, 10)
        return socket.inet_ntop(socket.AF_INET6, raw[8:24]), port

    def read_all(self, file, size):
        """Reads until so many bytes are there; each read is of whole frames."""
        data = b""
        while len(data) < size:
            self.assertTrue(self.readable(file, 10), f"{len(data)} of {size}")
            part = raw_read(file, MOST)
            rest = part
            while rest:
                end = 4 + struct.unpack("=I", rest[:4])[0]
                self.assertLessEqual(end + -end % 4, len(rest), "whole frames")
                rest = rest[end + -end % 4 :]
            data += part
        return data

    def test_port(self):
        """Port 0 is any; TUNGSOCKNAME tells which, and the port is taken."""
        file, port = self.udp("bind/127.0.0.1:0")
        self.assertEqual(self.name_of(file), ("127.0.0.1", port))
        self.assertGreater(port, 0)
        self.assertEqual(self.name_of(self.udp("bind/[::]:0")[0])[0], "::")
        path = self.tree.path("udp", "bind", f"127.0.0.1:{port}")
        self.fails(errno.EADDRINUSE, os.open, path, os.O_RDWR)
        path = self.tree.path("udp", "bind", "203.0.113.7:0")
        self.fails(errno.EADDRNOTAVAIL, os.open, path, os.O_RDWR)

    def test_without_batch_it_reads(self):
        """Without batch mode a bound socket can only read."""
        file, port = self.udp("bind/127.0.0.1:0", batch=False)
        self.fails(errno.EDESTADDRREQ, os.write, file, b"x")
        sender, _ = self.udp("bind/127.0.0.1:0")
        os.write(sender, frame(address("127.0.0.1", port), b"hello"))
        self.assertTrue(self.readable(file, 10))
        self.assertEqual(os.read(file, 100), b"hello")

    def test_many(self):
        """Datagrams of all sizes go in one write, come in order, with where they came from."""
        here, here_port = self.udp("bind/127.0.0.1:0")
        there, there_port = self.udp("bind/127.0.0.1:0")
        sizes = [0, 1, 2, 3, 4, 5, 1472, 9000, 65507]
        data = [bytes([n]) * size for n, size in enumerate(sizes)]
        out = b"".join(frame(address("127.0.0.1", there_port), one) for one in data)
        self.assertEqual(os.write(here, out), len(out))
        expected = b"".join(frame(address("127.0.0.1", here_port), one) for one in data)
        self.assertEqual(self.read_all(there, len(expected)), expected)
        self.assertFalse(self.readable(there))

    def test_wait(self):
        """A read waits for the first datagram, or is EAGAIN; no bytes are no bytes."""
        file, port = self.udp("bind/127.0.0.1:0")
        self.assertEqual(raw_read(file, 0), b"")
        self.assertEqual(os.write(file, b""), 0)
        reader = Background(lambda: raw_read(file, SMALLEST))
        wait_in_call(file, thread=reader)
        sender, from_port = self.udp("bind/127.0.0.1:0")
        os.write(sender, frame(address("127.0.0.1", port), b"at last"))
        got = frame(address("127.0.0.1", from_port), b"at last")
        self.assertEqual(reader.result(), ("value", got))
        os.set_blocking(file, False)
        self.fails(errno.EAGAIN, os.read, file, SMALLEST)

    def test_small_reads(self):
        """A read into fewer than 65560 bytes is EINVAL, and takes nothing."""
        file, port = self.udp("bind/127.0.0.1:0")
        os.write(file, frame(address("127.0.0.1", port), b"stays"))
        for size in (1, 32, 4096, SMALLEST - 1):
            self.fails(errno.EINVAL, os.read, file, size)
        got = frame(address("127.0.0.1", port), b"stays")
        self.assertEqual(os.read(file, SMALLEST), got)

    def test_framing(self):
        """Wrong framing anywhere is EINVAL, and nothing is sent."""
        file, port = self.udp("bind/127.0.0.1:0")
        os.set_blocking(file, False)
        good = frame(address("127.0.0.1", port), b"good")
        bad = {
            "half a length": b"\x18\0",
            "no address": frame(bytes(23), b""),
            "empty": struct.pack("=I", 0),
            "runs over": struct.pack("=I", 100) + bytes(96),
            "runs far over": struct.pack("=I", 2**32 - 1) + bytes(96),
            "padding missing": frame(address("127.0.0.1", port), b"odd")[:-1],
        }
        for name, tail in bad.items():
            with self.subTest(name):
                self.fails(errno.EINVAL, os.write, file, tail)
                self.fails(errno.EINVAL, os.write, file, good * 3 + tail)
                self.fails(errno.EAGAIN, os.read, file, SMALLEST)

    def test_first_that_fails(self):
        """What cannot be sent ends the call with the bytes before it, or with its errno."""
        file, port = self.udp("bind/127.0.0.1:0")
        good = frame(address("127.0.0.1", port), b"good")
        bad = {
            errno.EDESTADDRREQ: frame(PEER, b"to whom?"),
            errno.EMSGSIZE: frame(address("127.0.0.1", port), bytes(65508)),
            errno.ENETUNREACH: frame(address("203.0.113.7", 9), b"no route"),
            errno.EAFNOSUPPORT: frame(address("127.0.0.1", port, family=99), b"family"),
        }
        for number, one in bad.items():
            with self.subTest(errno.errorcode[number]):
                self.fails(number, os.write, file, one)
                self.assertEqual(os.write(file, good * 2 + one + good), 2 * len(good))
                self.assertEqual(self.read_all(file, 2 * len(good)), good * 2)

    def test_connected(self):
        """On a connected socket family 0 is the peer, and another address EISCONN."""
        server, port = self.udp("bind/127.0.0.1:0")
        client, client_port = self.udp(f"127.0.0.1:{port}")
        os.write(client, frame(PEER, b"one") + frame(address("127.0.0.1", port), b"two"))
        source = address("127.0.0.1", client_port)
        expected = frame(source, b"one") + frame(source, b"two")
        self.assertEqual(self.read_all(server, len(expected)), expected)
        self.fails(errno.EISCONN, os.write, client, frame(address("127.0.0.1", 9), b"three"))
        os.write(server, frame(source, b"back"))
        got = frame(address("127.0.0.1", port), b"back")
        self.assertEqual(self.read_all(client, len(got)), got)

    def test_switch(self):
        """TUNGBATCH tells; it is off at first and off again, of udp only."""
        file, port = self.udp("bind/127.0.0.1:0", batch=False)
        self.assertEqual(self.get(file, "TUNGBATCH"), 0)
        self.set(file, "TUNSBATCH", 7)
        self.assertEqual(self.get(file, "TUNGBATCH"), 1)
        os.write(file, frame(address("127.0.0.1", port), b"mixed"))
        self.set(file, "TUNSBATCH", 0)
        self.assertEqual(os.read(file, 100), b"mixed")
        stream = self.keep(os.open(self.tree.path("tcp", "127.0.0.1:7"), os.O_RDWR))
        self.fails(errno.ENOTTY, self.set, stream, "TUNSBATCH", 1)
        self.fails(errno.ENOTTY, self.get, stream, "TUNGBATCH")

    def test_families_through_a_tunnel(self):
        """IPv4 and IPv6 through a tunnel, the ledger closing behind them."""
        link = self.link(head=True)
        for here, peer, six in ((link.here, link.peer, False), (link.here6, link.peer6, True)):
            name = f"[{here}]" if six else here
            file, port = self.udp(f"bind/{name}:0")
            self.assertEqual(self.name_of(file), (here, port))
            out = b"".join(frame(address(peer, 4000 + n), bytes([n]) * n) for n in range(50))
            self.assertEqual(os.write(file, out), len(out))
            for n in range(50):
                packet = link.recv(lambda found: found.proto == 17)
                ports = struct.unpack("!HH", packet.payload[:4])
                self.assertEqual(ports, (port, 4000 + n))
                self.assertEqual(packet.payload[8:], bytes([n]) * n)

"""A router that asks which groups have members, on b0: IGMP and MLD of every version.

Each is answered in its own version, as far as older queriers allow."""

import socket
import struct
import time

ETH_P_ALL = 3
GROUP4, GROUP6 = "239.1.2.3", "ff15::1234"
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
s.bind(("b0", 0))
mac = s.getsockname()[4]


def sum16(data):
    data += bytes(len(data) % 2)
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def igmp(group, rest=b"", code=1):
    message = struct.pack("!BBH4s", 0x11, code, 0, socket.inet_aton(group)) + rest
    message = message[:2] + struct.pack("!H", sum16(message)) + message[4:]
    dst = "224.0.0.1" if group == "0.0.0.0" else group
    head = struct.pack("!BBHHHBBH4s4s4s", 0x46, 0xC0, 24 + len(message), 1, 0, 1, 2, 0,
                       socket.inet_aton("10.0.0.2"), socket.inet_aton(dst), bytes([148, 4, 0, 0]))
    head = head[:10] + struct.pack("!H", sum16(head)) + head[12:]
    low = socket.inet_aton(dst)[1:]
    s.send(bytes([1, 0, 0x5E, low[0] & 127, low[1], low[2]]) + mac + b"\x08\x00" + head + message)


def mld(group, rest=b""):
    dst = "ff02::1" if group == "::" else group
    src, dst = socket.inet_pton(socket.AF_INET6, "fe80::2"), socket.inet_pton(socket.AF_INET6, dst)
    message = struct.pack("!BBHHH", 130, 0, 0, 100, 0) + socket.inet_pton(socket.AF_INET6, group) + rest
    pseudo = src + dst + struct.pack("!II", len(message), 58)
    message = message[:2] + struct.pack("!H", sum16(pseudo + message)) + message[4:]
    hop = bytes([58, 0, 5, 2, 0, 0, 1, 0])
    head = struct.pack("!IHBB", 6 << 28, len(hop) + len(message), 0, 1) + src + dst
    s.send(bytes([0x33, 0x33]) + dst[-4:] + mac + b"\x86\xdd" + head + hop + message)


def reported(frame):
    """The version of the report that a frame is, counted as IGMP's, and its groups."""
    if frame[6:12] == mac:
        return
    if frame[12:14] == b"\x08\x00" and frame[23] == 2:
        packet = frame[14:]
        assert packet[8] == 1 and packet[20:24] == bytes([148, 4, 0, 0]), "no router alert"
        message = packet[24 : struct.unpack("!H", packet[2:4])[0]]
        assert sum16(message) == 0, "checksum"
        if message[0] in (0x12, 0x16):
            assert packet[16:20] == message[4:8], "not to the group"
            yield {0x12: 1, 0x16: 2}[message[0]], socket.inet_ntoa(message[4:8])
        if message[0] == 0x22:
            assert packet[16:20] == bytes([224, 0, 0, 22]), "not to routers"
            yield from ((3, socket.inet_ntoa(group)) for group in joined(message, 4))
    if frame[12:14] == b"\x86\xdd" and frame[20] == 0:
        packet = frame[14:]
        assert packet[7] == 1 and packet[8:10] == b"\xfe\x80", "not from the link"
        message = packet[48 : 40 + struct.unpack("!H", packet[4:6])[0]]
        if packet[40] == 58 and message[0] == 131:
            assert packet[24:40] == message[8:24], "not to the group"
            yield 2, socket.inet_ntop(socket.AF_INET6, message[8:24])
        if packet[40] == 58 and message[0] == 143:
            assert packet[24:40] == socket.inet_pton(socket.AF_INET6, "ff02::16"), "not to routers"
            yield from ((3, socket.inet_ntop(socket.AF_INET6, group)) for group in joined(message, 16))


def joined(message, size):
    """The groups of the records that answer a query: all sources are wanted, and none named."""
    records = message[8:]
    assert len(records) == struct.unpack("!H", message[6:8])[0] * (4 + size), "length"
    for at in range(0, len(records), 4 + size):
        kind, more, sources = struct.unpack("!BBH", records[at : at + 4])
        assert (more, sources) == (0, 0)
        if kind == 2:
            yield records[at + 4 : at + 4 + size]


def expect(version, group):
    deadline = time.monotonic() + 30
    while True:
        s.settimeout(max(deadline - time.monotonic(), 0.001))
        for said, what in reported(s.recv(2000)):
            if what == group:
                assert said == version, (said, version)
                return


def drain():
    """What was not asked for."""
    s.settimeout(0.001)
    try:
        while True:
            s.recv(2000)
    except (TimeoutError, BlockingIOError):
        pass


# What version 3 and version 2 add: no suppression, robustness 2, every 125 s, no sources.
MORE = bytes([2, 125, 0, 0])
# The newest first: once an older querier was there, everybody hears what it understands.
for version, rest in (3, MORE), (2, b""), (2, MORE):
    for group in ("0.0.0.0", GROUP4):
        drain()
        igmp(group, rest)
        expect(version, GROUP4)
    for group in ("::", GROUP6):
        drain()
        mld(group, rest)
        expect(version, GROUP6)
drain()
igmp("0.0.0.0", code=0)
expect(1, GROUP4)
# Nobody is there for others, and neither query is ours to answer if it is cut.
igmp(GROUP4, MORE[:3])
mld(GROUP6, MORE[:3])
print("all good")

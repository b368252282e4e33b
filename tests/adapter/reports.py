"""Reports of groups that are seen on b0."""

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

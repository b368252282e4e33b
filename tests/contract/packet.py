"""Packets made and read by hand: IPv4, IPv6, ICMP, UDP and TCP, with their checksums."""

import ipaddress
import struct

ICMP, TCP, UDP, ICMP6 = 1, 6, 17, 58
FRAGMENT6 = 44
MORE = 0x2000
DONT = 0x4000
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


def checksum(data):
    """The Internet checksum of some bytes (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def address(text):
    """An address in network order."""
    return ipaddress.ip_address(text).packed


def ip4(src, dst, proto, payload, ident=1, fragment=0, ttl=64, bad=False, length=None):
    """An IPv4 packet; `fragment` is the word of flags and offset, `bad` spoils the checksum."""
    size = 20 + len(payload) if length is None else length
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, size, ident, fragment, ttl, proto, 0, address(src), address(dst)
    )
    total = checksum(header) ^ (0x5555 if bad else 0)
    return header[:10] + struct.pack("!H", total) + header[12:] + payload


def ip6(src, dst, proto, payload, hops=64, length=None):
    """An IPv6 packet."""
    size = len(payload) if length is None else length
    return struct.pack("!IHBB", 6 << 28, size, proto, hops) + address(src) + address(dst) + payload


def ip(src, dst, proto, payload, **more):
    """A packet of the family that the addresses have."""
    return (ip6 if ":" in dst else ip4)(src, dst, proto, payload, **more)


def pseudo(src, dst, proto, payload):
    """A transport payload behind its pseudo header, to be summed."""
    if ":" in dst:
        return address(src) + address(dst) + struct.pack("!II", len(payload), proto) + payload
    return address(src) + address(dst) + struct.pack("!HH", proto, len(payload)) + payload


def filled(header, where, total, data, bad):
    """Puts a checksum into a header at `where`, spoilt on request."""
    total ^= 0x5555 if bad else 0
    return header[:where] + struct.pack("!H", total) + header[where + 2 :] + data


def icmp(src, dst, kind, code, rest, data=b"", bad=False):
    """The payload of an ICMP message of the family of `dst`; `rest` is bytes 4 to 8."""
    header = struct.pack("!BBH4s", kind, code, 0, rest)
    whole = pseudo(src, dst, ICMP6, header + data) if ":" in dst else header + data
    return filled(header, 2, checksum(whole), data, bad)


def echo(src, dst, ident=1, seq=1, data=b"", bad=False, **more):
    """A whole echo request."""
    six = ":" in dst
    body = icmp(src, dst, 128 if six else 8, 0, struct.pack("!HH", ident, seq), data, bad)
    return ip(src, dst, ICMP6 if six else ICMP, body, **more)


def udp(src, dst, sport, dport, data=b"", bad=False, zero=False, **more):
    """A whole UDP datagram; `zero` leaves the checksum out."""
    header = struct.pack("!HHHH", sport, dport, 8 + len(data), 0)
    total = checksum(pseudo(src, dst, UDP, header + data)) or 0xFFFF
    body = header + data if zero else filled(header, 6, total, data, bad)
    return ip(src, dst, UDP, body, **more)


def tcp(src, dst, sport, dport, flags, seq=0, ack=0, data=b"", window=8192, bad=False, **more):
    """A whole TCP segment without options."""
    header = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, 5 << 4, flags, window, 0, 0)
    body = filled(header, 16, checksum(pseudo(src, dst, TCP, header + data)), data, bad)
    return ip(src, dst, TCP, body, **more)


def fragments(packet, size, ident=0x4242):
    """Cuts a packet into fragments that carry `size` bytes each (a multiple of 8)."""
    whole = Packet(packet)
    pieces = []
    for start in range(0, len(whole.payload), size):
        part = whole.payload[start : start + size]
        more = start + size < len(whole.payload)
        pieces.append(fragment(whole.src, whole.dst, whole.proto, part, start, more, ident))
    return pieces


def fragment(src, dst, proto, part, start, more, ident=0x4242):
    """One fragment, of `part`, which begins at byte `start` of the payload."""
    if ":" in dst:
        header = struct.pack("!BBHI", proto, 0, start | more, ident)
        return ip6(src, dst, FRAGMENT6, header + part)
    return ip4(src, dst, proto, part, ident=ident, fragment=(MORE if more else 0) | start // 8)


class Packet:
    """What a packet says: raises ValueError unless the lengths and the checksums are right."""

    def __init__(self, data):
        self.data = data
        self.fragment = 0
        if data[0] >> 4 == 4:
            self.version = 4
            length, self.ident, self.fragment = struct.unpack("!2xHHH", data[:8])
            self.ttl, self.proto = data[8], data[9]
            start = (data[0] & 15) * 4
            src, dst = data[12:16], data[16:20]
            if checksum(data[:start]):
                raise ValueError("IPv4 header checksum")
        else:
            self.version = 6
            length, self.proto, self.ttl = struct.unpack("!4xHBB", data[:8])
            length += 40
            start = 40
            src, dst = data[8:24], data[24:40]
            if self.proto == 0:
                self.proto, start = data[40], 48 + data[41] * 8
            if self.proto == FRAGMENT6:
                self.proto, self.fragment, self.ident = struct.unpack("!BxHI", data[40:48])
                start = 48
        if length != len(data):
            raise ValueError(f"length {length} of {len(data)}")
        self.src = str(ipaddress.ip_address(src))
        self.dst = str(ipaddress.ip_address(dst))
        self.payload = data[start:]
        self.is_fragment = bool(self.fragment & (0x3FFF if self.version == 4 else 0xFFF9))
        if not self.is_fragment:
            self.check()

    def check(self):
        """The checksum of the transport."""
        whole = self.payload
        if self.proto not in (ICMP, ICMP6, UDP, TCP):
            return
        if self.proto != ICMP:
            whole = pseudo(self.src, self.dst, self.proto, whole)
        if checksum(whole):
            raise ValueError(f"checksum of protocol {self.proto}")

    @property
    def is_icmp(self):
        """Whether it is a message of the ICMP of its family."""
        return self.proto == (ICMP if self.version == 4 else ICMP6)

    @property
    def kind(self):
        """Type and code of an ICMP message."""
        return self.payload[0], self.payload[1]

    @property
    def is_pong(self):
        """Whether it is an echo reply."""
        return self.is_icmp and self.kind == ((0, 0) if self.version == 4 else (129, 0))

    @property
    def is_chatter(self):
        """Whether a stack may send it unasked: IGMP, MLD, router and neighbour messages."""
        return self.proto == 2 or (self.proto == ICMP6 and self.payload[0] in range(130, 154))

    @property
    def ports(self):
        """Source and destination port."""
        return struct.unpack("!HH", self.payload[:4])

    @property
    def segment(self):
        """Of TCP: sequence, acknowledgement, flags and data."""
        seq, ack, offset, flags = struct.unpack("!4xIIBB", self.payload[:14])
        return seq, ack, flags & 0x3F, self.payload[(offset >> 4) * 4 :]

    def __repr__(self):
        return f"<{self.src} > {self.dst} proto {self.proto} {self.payload[:24].hex()}>"

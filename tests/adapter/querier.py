"""A router that asks which groups have members, on b0: IGMP and MLD of every version.

Each is answered in its own version, as far as older queriers allow. Behind reports.py."""

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

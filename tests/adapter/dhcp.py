"""A DHCP client on the files of a mount: DIR MAC. What it gets it writes to netcfg, as dhcpd does."""

import fcntl
import os
import select
import socket
import struct
import sys

root, mac = sys.argv[1], bytes.fromhex(sys.argv[2].replace(":", ""))
TUNSBATCH = 0x40047482
COOKIE = bytes([99, 130, 83, 99])
DISCOVER, OFFER, REQUEST, ACK = 1, 2, 3, 5
MASK, ROUTER, DNS, ADDRESS, KIND, SERVER = 1, 3, 6, 50, 53, 54

fd = os.open(f"{root}/udp/bind/0.0.0.0:68", os.O_RDWR)
fcntl.ioctl(fd, TUNSBATCH, struct.pack("i", 1))


def send(kind, options=()):
    # The answer has to be a broadcast: we have no address yet.
    message = struct.pack("!BBBBIHH", 1, 1, 6, 0, 0x1234, 0, 0x8000) + bytes(16)
    message += mac + bytes(10 + 64 + 128) + COOKIE
    for code, value in ((KIND, bytes([kind])), *options):
        message += bytes([code, len(value)]) + value
    message += b"\xff"
    to = struct.pack("=H", socket.AF_INET) + struct.pack("!H", 67) + struct.pack("=I", 0)
    to += socket.inet_aton("255.255.255.255") + bytes(12)
    frame = to + message
    frame = struct.pack("=I", len(frame)) + frame + bytes(-len(frame) % 4)
    assert os.write(fd, frame) == len(frame)


def answers(buffer):
    while buffer:
        (size,) = struct.unpack("=I", buffer[:4])
        message = buffer[4 + 24 : 4 + size]
        buffer = buffer[4 + (size + 3) // 4 * 4 :]
        if message[:1] != b"\x02" or message[4:8] != struct.pack("!I", 0x1234):
            continue
        options, rest = {}, message[240:]
        while rest and rest[0] != 255:
            if rest[0] == 0:
                rest = rest[1:]
                continue
            options[rest[0]] = rest[2 : 2 + rest[1]]
            rest = rest[2 + rest[1] :]
        yield message[16:20], options


def ask(kind, wanted, options=()):
    """Asks until it is answered."""
    while True:
        send(kind, options)
        while select.select([fd], [], [], 1)[0]:
            for address, found in answers(os.read(fd, 1 << 17)):
                if found.get(KIND) == bytes([wanted]):
                    return address, found


def write(path, line):
    with open(f"{root}/netcfg/{path}", "w") as file:
        file.write(line + "\n")


address, offer = ask(DISCOVER, OFFER)
address, lease = ask(REQUEST, ACK, ((ADDRESS, address), (SERVER, offer[SERVER])))
bits = bin(int.from_bytes(lease[MASK], "big")).count("1")
write("ifaces/eth0/addr/set", f"{socket.inet_ntoa(address)}/{bits}")
write("route/add", f"default via {socket.inet_ntoa(lease[ROUTER][:4])}")
write("resolv/nameserver", socket.inet_ntoa(lease[DNS][:4]))
os.close(fd)
print("all good")

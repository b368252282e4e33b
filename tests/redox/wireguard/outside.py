"""The other end of the tunnel of a booted image: see run.sh.

    usage: outside.py DIRECTORY-OF-KEYS CONSOLE LIMIT QEMU ARGUMENT...
"""

import os
import random
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
sys.path[:0] = [f"{TOP}/wireguard/tests", f"{TOP}/wireguard/benches"]
sys.dont_write_bytecode = True

from bed import Bed, Keys, run, until  # noqa: E402: the path comes first
from stranger import echoed, pings  # noqa: E402
from tunnel import down, up  # noqa: E402

# What is moved to be measured, bytes.
MEASURED = 2 << 20


def keys(path):
    pair = Keys.__new__(Keys)
    with open(path, encoding="ascii") as file:
        pair.private = file.read().strip()
    pair.public = run("wg", "pubkey", input=pair.private).strip()
    return pair


def check(name, good):
    print(f"redox-wireguard {name}: {'ok' if good else 'FAILED'}", flush=True)
    return good


def udp(address, data):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.settimeout(10)
        one.connect((address, 7))
        one.send(data)
        return one.recv(65536)


def cpu(process):
    """Seconds of CPU time that a process has used."""
    with open(f"/proc/{process.pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main():
    directory, console, limit, *qemu = sys.argv[1:]
    bed = Bed(tund=False)
    bed.ours, bed.theirs = keys(f"{directory}/ours"), keys(f"{directory}/theirs")
    try:
        space = bed.namespace()
        bed.stranger(space, allowed="0.0.0.0/0,::/0")
        machine = bed.start(*qemu, space=space, stdin=subprocess.DEVNULL)
        until("the handshake", lambda: bed.theirs_about_us("latest-handshakes") not in (None, ["0"]) or machine.poll() is not None, int(limit))
        random.seed(1)
        data = random.randbytes(300_000)
        good = check("handshake", machine.poll() is None)
        # The image may still be busy with its start.
        good &= check("ping", bool(until("an answer", lambda: pings(space, "10.9.0.1"))))
        good &= check("ping over IPv6", pings(space, "fd09::1"))
        good &= check("UDP", space.inside(udp, "10.9.0.1", data[:1000]) == data[:1000])
        good &= check("TCP, every byte", space.inside(echoed, "10.9.0.1", data) == data)
        good &= check("TCP over IPv6, every byte", space.inside(echoed, "fd09::1", data, socket.AF_INET6) == data)
        for name, way in (("up", up), ("down", down)):
            begun = time.monotonic(), cpu(machine)
            space.inside(way, MEASURED)
            took = time.monotonic() - begun[0], cpu(machine) - begun[1]
            print(f"redox-wireguard {name}_mb_per_s {MEASURED / 1e6 / took[0]:.2f}", flush=True)
            # What else the host does matters less to this one: MB a second of the emulator's CPU time.
            print(f"redox-wireguard {name}_mb_per_cpu_s {MEASURED / 1e6 / took[1]:.2f}", flush=True)
    except (AssertionError, OSError) as error:
        good = check(str(error), False)
    finally:
        print(run("wg", "show", bed.tool, "transfer"), end="", flush=True)
        bed.close()
    if not good:
        with open(console, encoding="utf-8", errors="replace") as file:
            print(file.read()[-4000:])
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()

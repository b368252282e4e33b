#!/usr/bin/env python3
"""What a tunnel costs: our program on tund in batches and one by one, on a tun device of the Linux
kernel, and wireguard-go, each with a wireguard-go at the other end of a cable between two namespaces.

    usage: tunnel.py [MEBIBYTES [ROUNDS]]        (64, 3)

One TCP connection, up (from our side) and down. In turns, so that whatever else the machine does meets all; prints
medians of MB/s, and of microseconds of CPU time for each packet through the tunnel, in either direction. The CPU time is
that of tund and the program, with what the kernel does for them, or of wireguard-go. Needs what
tests/stranger.py needs.
"""

import glob
import os
import socket
import statistics
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "tests"))
sys.dont_write_bytecode = True

from bed import Bed, missing, run, until  # noqa: E402: the path comes first

ADDRESSES = "Address = 10.9.0.1/24"
NETWORK = "Endpoint = 192.0.2.2:51820\nAllowedIPs = 10.9.0.0/24"
CHUNK = bytes(1 << 18)


def cpu(processes):
    """Nanoseconds that all threads have run."""
    total = 0
    for process in processes:
        for path in glob.glob(f"/proc/{process.pid}/task/*/schedstat"):
            try:
                with open(path, encoding="ascii") as file:
                    total += int(file.read().split()[0])
            except OSError:
                pass
    return total


class Services:
    """Discard and chargen of the kernel, where there is no tund that serves them."""

    def __init__(self, space):
        self.listeners = []
        for port, serve in ((9, self.discard), (19, self.generate)):
            listener = space.inside(self.listen, port)
            self.listeners.append(listener)
            threading.Thread(target=self.accept, args=(listener, serve), daemon=True).start()

    @staticmethod
    def listen(port):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("10.9.0.1", port))
        listener.listen()
        return listener

    @staticmethod
    def accept(listener, serve):
        while True:
            try:
                stream, _ = listener.accept()
            except OSError:
                return
            with stream:
                try:
                    serve(stream)
                except OSError:
                    pass

    @staticmethod
    def discard(stream):
        while stream.recv(1 << 18):
            pass

    @staticmethod
    def generate(stream):
        while True:
            stream.sendall(CHUNK)

    def close(self):
        for listener in self.listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()


def down(total):
    """Sends to our side's discard service."""
    with socket.create_connection(("10.9.0.1", 9), timeout=60) as stream:
        for _ in range(total // len(CHUNK)):
            stream.sendall(CHUNK)
        stream.shutdown(socket.SHUT_WR)
        while stream.recv(1 << 16):
            pass


def up(total):
    """Receives from our side's character generator."""
    with socket.create_connection(("10.9.0.1", 19), timeout=60) as stream:
        while total > 0:
            total -= len(stream.recv(1 << 18))


def start(bed, here, kind):
    """Starts our side, and returns the processes whose time counts, and services."""
    if kind.startswith("tund"):
        single = ["--single"] if "single" in kind else []
        process = bed.program(bed.configuration(ADDRESSES, NETWORK), *single, space=here)
        return [process, bed.tund], None
    if kind == "kernel tun":
        process = bed.program(bed.configuration(ADDRESSES, NETWORK), "--host-tun", "wgtun", space=here)
        name = "wgtun"
    else:
        process, name = bed.wireguard_go(here)
        key = f"{bed.directory}/ours"
        with open(key, "w", encoding="ascii") as file:
            file.write(bed.ours.private)
        peer = ["peer", bed.theirs.public, "endpoint", "192.0.2.2:51820", "allowed-ips", "10.9.0.0/24", "persistent-keepalive", "25"]
        run("wg", "set", name, "private-key", key, *peer)
    here.run("ip", "addr", "add", "10.9.0.1/24", "dev", name)
    here.run("ip", "link", "set", name, "mtu", "1420", "up")
    return [process], Services(here)


def packets(there, tool):
    """Packets that the other end's interface has carried."""
    text = there.run("cat", "/proc/net/dev")
    fields = next(line.split() for line in text.splitlines() if line.strip().startswith(tool))
    return int(fields[2]) + int(fields[10])


def measure(kind, total):
    bed = Bed()
    try:
        here, there = bed.namespace(), bed.namespace()
        bed.veth(here, there)
        bed.stranger(there)
        counted, services = start(bed, here, kind)
        ping = there.command("ping", "-q", "-c", "1", "-W", "1", "10.9.0.1")
        until("a way", lambda: subprocess.run(ping, stdout=subprocess.DEVNULL, check=False).returncode == 0)
        figures = {}
        for name, way in (("up", up), ("down", down)):
            there.inside(way, 1 << 22)
            before = (cpu(counted), packets(there, bed.tool), time.monotonic())
            there.inside(way, total)
            spent, carried, took = (now - then for now, then in zip((cpu(counted), packets(there, bed.tool), time.monotonic()), before))
            figures[name] = (total / 1e6 / took, spent / 1e3 / carried)
        if services:
            services.close()
        return figures
    finally:
        bed.close()


def main():
    reason = missing()
    if reason:
        print(f"skipped: {reason}")
        return
    total = int(sys.argv[1] if len(sys.argv) > 1 else 64) << 20
    rounds = int(sys.argv[2] if len(sys.argv) > 2 else 3)
    kinds = ("tund, batches", "tund, single packets", "kernel tun", "wireguard-go")
    figures = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind in kinds:
            figures[kind].append(measure(kind, total))
    print(f"{'':22} {'MB/s up':>8} {'down':>8} {'µs a packet, up':>16} {'down':>8}")
    for kind in kinds:
        row = [statistics.median(one[way][which] for one in figures[kind]) for which in (0, 1) for way in ("up", "down")]
        print(f"{kind:22} {row[0]:8.1f} {row[1]:8.1f} {row[2]:16.1f} {row[3]:8.1f}")


if __name__ == "__main__":
    main()

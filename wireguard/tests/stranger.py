#!/usr/bin/env python3
"""Our program with wireguard-go and wg at the other end, which share no code with it.

Needs root, FUSE, /dev/net/tun, wireguard-go and wireguard-tools; skipped by name elsewhere. TUND,
TUNCTL and TUN_WIREGUARD say where the programs are, the release builds without. Arguments select
tests as unittest does. With LONG=1 in the environment a session lives until its keys are renewed.
"""

import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

from bed import PROGRAM, TUNCTL, Bed, missing, run, until  # noqa: E402: the path comes first

ADDRESSES = "Address = 10.9.0.1/24, fd09::1/64"
NETWORK = "AllowedIPs = 10.9.0.0/24, fd09::/64"


def pings(space, address, count=3):
    """Whether the kernel's ping is answered."""
    command = space.command("ping", "-q", "-i", "0.02", "-W", "2", "-c", str(count), address)
    return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0


def echoed(address, data, family=socket.AF_INET):
    """What comes back of data from a TCP echo service."""
    with socket.socket(family, socket.SOCK_STREAM) as stream:
        stream.settimeout(30)
        stream.connect((address, 7))
        sender = threading.Thread(target=stream.sendall, args=(data,))
        sender.start()
        back = bytearray()
        while len(back) < len(data):
            got = stream.recv(1 << 16)
            if not got:
                break
            back += got
        sender.join()
        return bytes(back)


class EchoServer:
    """A TCP echo server of the kernel in a namespace."""

    def __init__(self, space, address, port=7000):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET

        def listen():
            listener = socket.socket(family, socket.SOCK_STREAM)
            listener.bind((address, port))
            listener.listen()
            return listener

        self.listener = space.inside(listen)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                stream, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.echo, args=(stream,), daemon=True).start()

    @staticmethod
    def echo(stream):
        with stream:
            while data := stream.recv(1 << 16):
                stream.sendall(data)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class Sniffer:
    """What the kernel sees on an interface of a namespace."""

    def __init__(self, space, interface):
        def listen():
            listener = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
            listener.bind((interface, 3))
            listener.settimeout(0.5)
            return listener

        self.listener = space.inside(listen)
        self.packets = []
        self.ended = False
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def watch(self):
        while not self.ended:
            try:
                self.packets.append(self.listener.recv(65536))
            except TimeoutError:
                pass

    def close(self):
        self.ended = True
        self.thread.join()
        self.listener.close()

    def in_clear(self):
        """IPv4 packets that are not the tunnel's UDP, and not pieces of it."""

        def is_tunnel(packet):
            header = (packet[0] & 15) * 4
            ports = (int.from_bytes(packet[header : header + 2]), int.from_bytes(packet[header + 2 : header + 4]))
            return packet[9] == 17 and 51820 in ports

        return [packet for packet in self.packets if packet and packet[0] >> 4 == 4 and not is_tunnel(packet)]


class Case(unittest.TestCase):
    """With a bed that is closed at the end."""

    def setUp(self):
        self.bed = Bed()
        self.addCleanup(self.bed.close)
        self.random = random.Random(self.id())

    def through_tund(self, address, port, data):
        """What comes back of data over a TCP connection of tund's."""
        fd = os.open(f"{self.bed.root}/tcp/{address}:{port}", os.O_RDWR)
        try:
            back = bytearray()

            def read():
                while len(back) < len(data) and (got := os.read(fd, 1 << 16)):
                    back.extend(got)

            reader = threading.Thread(target=read)
            reader.start()
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest[: 1 << 16]) :]
            reader.join(60)
            return bytes(back)
        finally:
            os.close(fd)

    def no_key_was_printed(self, *texts):
        with open(f"{self.bed.directory}/log", encoding="utf-8", errors="replace") as file:
            texts = [*texts, file.read()]
        for text in texts:
            self.assertNotIn(self.bed.ours.private, text)


class OverTheHost(Case):
    """The tunnel is tund's, and the kernel's UDP carries it."""

    def setUp(self):
        super().setUp()
        bed = self.bed
        self.here, self.there = bed.namespace(), bed.namespace()
        bed.veth(self.here, self.there)
        self.stranger = bed.stranger(self.there)

    def program(self, more="", interface=ADDRESSES, endpoint="192.0.2.2:51820", networks=NETWORK, options=()):
        file = self.bed.configuration(interface, f"Endpoint = {endpoint}\n{networks}\n{more}")
        return self.bed.program(file, *options, space=self.here)

    def test_a_handshake_at_the_start_and_packets_of_both_families(self):
        process = self.program("PersistentKeepalive = 25")
        self.assertEqual(process.interface, "tun0")
        until("the handshake", lambda: self.bed.theirs_about_us("latest-handshakes") not in (None, ["0"]))
        for address in ("10.9.0.1", "fd09::1"):
            self.assertTrue(pings(self.there, address), address)
        for address in ("10.9.0.2", "fd09::2"):
            run(TUNCTL, "--root", self.bed.root, "ping", "-c", "3", address)
        self.assertIn("BROADCAST", self.bed.text("netcfg/ifaces/tun0/flags"))
        self.assertEqual(self.bed.text("netcfg/ifaces/tun0/mtu").strip(), "1420")
        # What `show` tells is what the stranger tells.
        peer = until("the same numbers", self.same_transfer)["peers"][0]
        self.assertGreater(peer["received"], 0)
        self.assertEqual(peer["public_key"], self.bed.theirs.public)
        self.assertEqual(peer["endpoint"], "192.0.2.2:51820")
        handshake = int(self.bed.theirs_about_us("latest-handshakes")[0])
        self.assertLessEqual(abs(peer["latest_handshake"] - handshake), 2)
        text = self.bed.show()
        for part in (f"peer: {self.bed.theirs.public}", "latest handshake: ", "transfer: ", "every 25 seconds"):
            self.assertIn(part, text)
        self.no_key_was_printed(text, self.bed.show("--json"))

    def same_transfer(self):
        state = self.bed.status()
        peer = state["peers"][0]
        theirs = self.bed.theirs_about_us("transfer")
        same = [str(peer["sent"]), str(peer["received"])] == theirs
        return state if same else None

    def test_tcp_both_ways_every_byte(self):
        for options in ((), ("--single",)):
            process = self.program(options=options)
            data = self.random.randbytes(8 << 20)
            for address, family in (("10.9.0.1", socket.AF_INET), ("fd09::1", socket.AF_INET6)):
                back = self.there.inside(echoed, address, data, family)
                self.assertEqual(hashlib.sha256(back).digest(), hashlib.sha256(data).digest(), address)
            for address, name in (("10.9.0.2", "10.9.0.2"), ("fd09::2", "[fd09::2]")):
                server = EchoServer(self.there, address)
                back = self.through_tund(name, 7000, data)
                server.close()
                self.assertEqual(hashlib.sha256(back).digest(), hashlib.sha256(data).digest(), address)
            self.assertEqual(self.bed.end(process), 0)

    def test_udp_of_every_length(self):
        self.program()

        def exchange(address, family):
            with socket.socket(family, socket.SOCK_DGRAM) as udp:
                udp.settimeout(5)
                udp.connect((address, 7))
                for length in (0, 1, 15, 16, 17, 500, 1371, 1372, 1392, 1393, 4000, 9000):
                    data = self.random.randbytes(length)
                    udp.send(data)
                    self.assertEqual(udp.recv(65536), data, (address, length))

        self.there.inside(exchange, "10.9.0.1", socket.AF_INET)
        self.there.inside(exchange, "fd09::1", socket.AF_INET6)

    def test_over_ipv6_outside(self):
        self.program(endpoint="[2001:db8::2]:51820")
        self.assertTrue(pings(self.there, "10.9.0.1"))
        self.assertEqual(self.bed.theirs_about_us("endpoints")[0].split("]")[0], "[2001:db8::1")

    def test_a_name_is_looked_up(self):
        self.program(endpoint="localhost:51820")
        self.assertIn(self.bed.status()["peers"][0]["endpoint"], ("127.0.0.1:51820", "[::1]:51820"))

    def test_a_full_tunnel(self):
        self.there.run("ip", "addr", "add", "10.77.0.1/32", "dev", "lo")
        self.there.run("ip", "addr", "add", "fd77::1/128", "dev", "lo", "nodad")
        self.program(interface="Address = 10.9.0.1, fd09::1", networks="AllowedIPs = 0.0.0.0/0, ::/0")
        for address in ("10.77.0.1", "fd77::1"):
            run(TUNCTL, "--root", self.bed.root, "ping", "-c", "2", address)
        routes = self.bed.text("netcfg/route/list")
        self.assertIn("default dev tun0", routes)

    def test_table_off_sets_no_routes(self):
        self.program(interface=ADDRESSES + "\nTable = off", networks="AllowedIPs = 0.0.0.0/0, 10.9.0.0/24")
        self.assertNotIn("default", self.bed.text("netcfg/route/list"))
        self.assertTrue(pings(self.there, "10.9.0.1"))

    def test_either_side_roams(self):
        self.program()
        self.assertTrue(pings(self.there, "10.9.0.1"))
        # We: another address, from one moment to the next.
        self.here.run("ip", "addr", "add", "192.0.2.11/24", "dev", "link0")
        self.here.run("ip", "addr", "del", "192.0.2.1/24", "dev", "link0")
        self.here.run("ip", "addr", "replace", "192.0.2.11/24", "dev", "link0")
        run(TUNCTL, "--root", self.bed.root, "ping", "-c", "2", "10.9.0.2")
        endpoint = self.bed.theirs_about_us("endpoints")[0]
        self.assertTrue(endpoint.startswith("192.0.2.11:"), endpoint)
        self.assertTrue(pings(self.there, "10.9.0.1"))
        # They: another address and port.
        self.there.run("ip", "addr", "del", "192.0.2.2/24", "dev", "link0")
        self.there.run("ip", "addr", "add", "192.0.2.12/24", "dev", "link0")
        run("wg", "set", self.bed.tool, "listen-port", "51999")
        self.assertTrue(pings(self.there, "10.9.0.1"))
        run(TUNCTL, "--root", self.bed.root, "ping", "-c", "2", "10.9.0.2")
        until("the endpoint", lambda: self.bed.status()["peers"][0]["endpoint"] == "192.0.2.12:51999")

    def test_either_side_starts_again(self):
        process = self.program()
        self.assertTrue(pings(self.there, "10.9.0.1"))
        for how in (signal.SIGTERM, signal.SIGKILL):
            self.bed.end(process, how)
            process = self.program()
            # They have a session with the dead one, and we call them at once.
            self.assertTrue(pings(self.there, "10.9.0.1"))
        self.bed.end(self.stranger, signal.SIGKILL)
        self.bed.stranger(self.there, endpoint=f"192.0.2.1:{process.port}")
        self.assertTrue(pings(self.there, "10.9.0.1"))

    def test_several_peers_reach_each_other_through_us(self):
        third = self.bed.namespace()
        run("ip", "link", "add", "name", "link3", "netns", self.here.name, "type", "veth", "peer", "name", "link0", "netns", third.name)
        self.here.run("ip", "addr", "add", "198.51.100.1/24", "dev", "link3")
        self.here.run("ip", "link", "set", "link3", "up")
        third.run("ip", "addr", "add", "198.51.100.3/24", "dev", "link0")
        third.run("ip", "link", "set", "link0", "up")
        private = run("wg", "genkey").strip()
        public = run("wg", "pubkey", input=private).strip()
        networks = f"AllowedIPs = 10.9.0.2/32\n[Peer]\nPublicKey = {public}\nAllowedIPs = 10.9.0.0/24"
        process = self.program(interface=ADDRESSES + "\nListenPort = 51900", networks=networks)
        self.bed.write("netcfg/ip/forwarding", "1")
        run("wg", "set", self.bed.tool, "peer", self.bed.ours.public, "allowed-ips", "10.9.0.0/24")
        _, tool = self.bed.wireguard_go(third)
        path = f"{self.bed.directory}/third"
        with open(path, "w", encoding="ascii") as file:
            file.write(private)
        run("wg", "set", tool, "private-key", path, "peer", self.bed.ours.public, "allowed-ips", "10.9.0.0/24", "endpoint", f"198.51.100.1:{process.port}")
        third.run("ip", "addr", "add", "10.9.0.3/24", "dev", tool)
        third.run("ip", "link", "set", tool, "mtu", "1420", "up")
        self.assertTrue(pings(third, "10.9.0.1"))
        self.assertTrue(pings(third, "10.9.0.2"))
        self.assertTrue(pings(self.there, "10.9.0.3"))
        # 10.9.0.2 is also in the third one's network, but the longest prefix says whose it is.
        third.run("ip", "addr", "add", "10.9.0.2/32", "dev", "lo")
        command = third.command("ping", "-q", "-W", "1", "-c", "2", "-I", "10.9.0.2", "10.9.0.1")
        self.assertNotEqual(subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode, 0)
        until("the count", lambda: self.bed.status()["dropped"].get("wrong-source", 0) >= 2)

    def test_a_kill_leaves_nothing(self):
        before = (self.bed.text("netcfg/route/list"), sorted(self.bed.interfaces()))
        for how in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
            process = self.program(networks="AllowedIPs = 0.0.0.0/0, ::/0")
            self.assertTrue(pings(self.there, "10.9.0.1"))
            self.assertIn("tun0", self.bed.interfaces())
            status = self.bed.end(process, how)
            self.assertEqual(status, -9 if how == signal.SIGKILL else 0)
            after = lambda: (self.bed.text("netcfg/route/list"), sorted(self.bed.interfaces()))  # noqa: E731
            until("as it was", lambda: after() == before, patience=1)
            self.assertEqual(self.bed.show("--json").strip(), "[]")
        self.assertEqual(os.listdir(self.bed.state), [])

    def test_tund_ends_and_so_does_the_program(self):
        process = self.program()
        self.bed.tund.kill()
        self.assertEqual(process.wait(10), 1)

    @unittest.skipUnless(os.environ.get("LONG"), "two minutes and more: LONG=1")
    def test_keys_are_renewed(self):
        self.program()
        first = None
        begun = time.monotonic()
        while time.monotonic() - begun < 150:
            self.assertTrue(pings(self.there, "10.9.0.1"))
            latest = int(self.bed.theirs_about_us("latest-handshakes")[0])
            first = first or latest
            time.sleep(1)
        self.assertGreater(latest, first + 100)


class OverTund(Case):
    """Both the tunnel and the UDP that carries it are tund's, behind its own default route."""

    def setUp(self):
        super().setUp()
        bed = self.bed
        self.there = bed.namespace()
        self.stranger = bed.stranger(self.there)
        self.uplink(5, "out0", "192.0.2")
        # The metric makes up for the outer interface being one of tund's tunnels, too: one of a network card
        # stands behind the tunnel's default without it.
        bed.write("netcfg/route/add", "default via 192.0.2.2 dev tun5 metric 9")
        self.there.run("ip", "addr", "add", "203.0.113.2/32", "dev", "lo")
        self.there.run("ip", "addr", "add", "10.77.0.1/32", "dev", "lo")

    def uplink(self, unit, name, network):
        """A network between an interface of tund's and the other side's kernel."""
        bridge = self.bed.start(TUNCTL, "--root", self.bed.root, "bridge", str(unit), name, space=self.there, stdout=subprocess.DEVNULL)
        until("the bridge", lambda: os.path.exists(f"{self.bed.root}/netcfg/ifaces/tun{unit}"))
        until("its other end", lambda: name in self.there.run("ip", "-br", "link"))
        self.there.run("ip", "addr", "add", f"{network}.2/24", "dev", name)
        self.there.run("ip", "link", "set", name, "up")
        self.bed.write(f"netcfg/ifaces/tun{unit}/addr/set", f"{network}.1/24")
        return bridge

    def program(self, *options):
        file = self.bed.configuration(ADDRESSES, "Endpoint = 203.0.113.2:51820\nAllowedIPs = 0.0.0.0/0")
        return self.bed.program(file, "--outer", "tund", *options)

    def ping(self, address="10.77.0.1", count=2):
        run(TUNCTL, "--root", self.bed.root, "ping", "-c", str(count), address)

    def test_a_full_tunnel_has_no_loop(self):
        process = self.program()
        sniffer = Sniffer(self.there, "out0")
        self.ping()
        data = self.random.randbytes(4 << 20)
        server = EchoServer(self.there, "10.77.0.1")
        back = self.through_tund("10.77.0.1", 7000, data)
        server.close()
        self.assertEqual(hashlib.sha256(back).digest(), hashlib.sha256(data).digest())
        # Without an outer route the tunnel's own packets go nowhere, and not into the tunnel.
        self.bed.write("netcfg/route/rm", "default via 192.0.2.2 dev tun5")
        before = self.bed.stat("tun0", "opackets")
        command = [TUNCTL, "--root", self.bed.root, "ping", "-c", "3", "-W", "1", "10.77.0.1"]
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, timeout=30)
        self.assertLess(self.bed.stat("tun0", "opackets") - before, 20)
        sniffer.close()
        self.assertGreater(len(sniffer.packets), 1000)
        self.assertEqual(sniffer.in_clear(), [])
        # Back through another network: we roam, the session lives.
        self.uplink(6, "out1", "198.51.100")
        self.bed.write("netcfg/route/add", "default via 198.51.100.2 dev tun6 metric 9")
        self.ping()
        endpoint = self.bed.theirs_about_us("endpoints")[0]
        self.assertTrue(endpoint.startswith("198.51.100.1:"), endpoint)
        self.assertIsNone(process.poll())

    def test_a_kill_leaves_the_default_route(self):
        before = self.bed.text("netcfg/route/list")
        self.assertIn("default via 192.0.2.2 dev tun5", before)
        process = self.program()
        self.ping()
        self.assertIn("default dev tun0", self.bed.text("netcfg/route/list"))
        self.bed.end(process, signal.SIGKILL)
        until("the routes as they were", lambda: self.bed.text("netcfg/route/list") == before, patience=1)
        self.ping("203.0.113.2")

    def test_a_kill_switch_stays(self):
        process = self.program("--kill-switch")
        self.ping()
        self.ping()
        self.bed.end(process, signal.SIGKILL)
        until("the interface to go", lambda: "tun0" not in self.bed.interfaces(), patience=1)
        sent = self.bed.stat("tun5", "opackets")
        command = [TUNCTL, "--root", self.bed.root, "ping", "-c", "1", "-W", "1", "203.0.113.2"]
        self.assertNotEqual(subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode, 0)
        self.assertEqual(self.bed.stat("tun5", "opackets"), sent, "it went out in clear")
        # A new tunnel works behind it.
        process = self.program("--kill-switch")
        self.ping()
        self.bed.end(process)
        # And the user takes it away.
        self.bed.write("netcfg/route/rm", "default unreachable")
        self.ping("203.0.113.2")

    def test_roaming_of_the_other_side_to_where_the_tunnel_would_lead(self):
        self.program()
        self.ping()
        # Every address is behind the tunnel for everybody else, wherever the peer goes.
        run("wg", "set", self.bed.tool, "listen-port", "51998")
        self.assertTrue(pings(self.there, "10.9.0.1"))
        before = self.bed.stat("tun0", "opackets")
        self.ping()
        self.assertLess(self.bed.stat("tun0", "opackets") - before, 20)
        until("the endpoint", lambda: self.bed.status()["peers"][0]["endpoint"].endswith(":51998"))


class Files(Case):
    """What is wrong with a file, before anything is set up."""

    def refused(self, text, mode=0o600):
        path = f"{self.bed.directory}/wrong.conf"
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, mode)
        done = subprocess.run(
            [PROGRAM, "--root", self.bed.root, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=30, check=False
        )
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertEqual(self.bed.interfaces(), ["lo0"])
        self.assertNotIn(self.bed.ours.private, done.stderr + done.stdout)
        return path, done.stderr.splitlines()

    def test_every_problem_with_its_file_and_line(self):
        path, lines = self.refused(f"[Interface]\nPrivateKey = {self.bed.ours.private}\nMTU = 1\n[Peer]\nEndpoint = x\n")
        self.assertEqual(
            lines,
            [
                f"{path}:3: MTU: a number from 576 to 65535",
                f"{path}:4: [Peer] without PublicKey",
                f"{path}:5: Endpoint: x: ADDRESS:PORT, [ADDRESS]:PORT or NAME:PORT",
            ],
        )

    def test_what_the_network_refuses_has_its_line_too(self):
        path, lines = self.refused(f"[Interface]\nPrivateKey = {self.bed.ours.private}\nAddress = 224.0.0.1/24\n")
        self.assertTrue(lines[-1].startswith(f"{path}:3: Address: 224.0.0.1/24: "), lines)

    def test_others_may_read_it(self):
        path, lines = self.refused(f"[Interface]\nPrivateKey = {self.bed.ours.private}\nMTU = 1\n", 0o644)
        self.assertIn("others may read it", lines[0])
        self.assertIn(path, lines[0])

    def test_no_file(self):
        done = subprocess.run([PROGRAM, "/nowhere/x.conf"], stderr=subprocess.PIPE, text=True, check=False)
        self.assertEqual((done.returncode, done.stderr.split(":")[0]), (1, "/nowhere/x.conf"))

    def test_no_tund(self):
        file = self.bed.configuration(ADDRESSES, NETWORK)
        done = subprocess.run([PROGRAM, "--root", "/nowhere", file], stderr=subprocess.PIPE, text=True, check=False)
        self.assertEqual((done.returncode, done.stderr.split(":")[0]), (1, "/nowhere/tun"))

    def test_what_is_passed_over(self):
        file = self.bed.configuration(ADDRESSES + "\nPostUp = touch /nowhere\nDNS = 10.9.0.2", NETWORK)
        self.bed.end(self.bed.program(file))
        with open(f"{self.bed.directory}/log", encoding="utf-8") as log:
            text = log.read()
        self.assertIn(f"{file}:4: PostUp: passed over", text)
        self.assertIn("DNS: not set on this system", text)


if __name__ == "__main__":
    reason = missing()
    if reason:
        print(f"skipped: the stranger's tests: {reason}")
        sys.exit(0)
    unittest.main(verbosity=2, warnings="ignore")

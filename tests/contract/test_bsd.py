"""tunctl under the names ifconfig and route, on a mount, as tunnel programs' scripts run them."""

import os
import subprocess
import unittest

from case import Contract
from tree import PATIENCE, PROGRAM

TUNCTL = os.path.join(os.path.dirname(os.path.abspath(PROGRAM)), "tunctl")
EX_USAGE = 64


@unittest.skipUnless(os.path.exists(TUNCTL), "no tunctl beside tund")
class Bsd(Contract):
    """Links to tunctl, run with the command lines of OpenVPN, tinc, vpnc-script and iodine."""

    def setUp(self):
        super().setUp()
        self.links = os.path.join(self.tree.base, "bin")
        os.makedirs(self.links, exist_ok=True)
        for name in ("ifconfig", "route"):
            if not os.path.lexists(os.path.join(self.links, name)):
                os.symlink(TUNCTL, os.path.join(self.links, name))

    def status(self, line):
        """Runs a command line: status, output, errors. TUN stands for the interface of the test."""
        name, *words = line.replace("TUN", self.name).split(" ")
        environment = dict(os.environ, TUND_ROOT=self.tree.root)
        run = subprocess.run(
            [os.path.join(self.links, name), *words],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertNotIn("panicked", run.stderr)
        return run.returncode, run.stdout, run.stderr

    def runs(self, *lines):
        """Runs command lines that succeed; the output of the last."""
        for line in lines:
            status, out, err = self.status(line)
            self.assertEqual(status, 0, f"{line}: {err}")
        return out

    def addrs(self):
        """The addresses of the interface of the test."""
        return self.tree.read(self.of("addr/list")).splitlines()

    def of(self, file):
        """A file of the interface of the test."""
        return f"ifaces/{self.name}/{file}"

    def routes(self):
        """The routes over the interface of the test."""
        lines = self.tree.read("route/list").splitlines()
        return {line.replace(f" dev {self.name}", "") for line in lines if f" dev {self.name}" in line}

    def test_openvpn(self):
        """A tunnel with one other end, and routes through it, up and down."""
        self.open()
        self.runs(
            "ifconfig TUN 10.80.0.2 10.80.0.1 mtu 1450 netmask 255.255.255.255 up",
            "ifconfig TUN inet6 fd80::2/64 mtu 1450 up",
            "route add -net 198.18.0.0 10.80.0.1 255.254.0.0",
            "route add -net 0.0.0.0 10.80.0.1 128.0.0.0",
            "route add -net 128.0.0.0 10.80.0.1 -netmask 128.0.0.0",
            "route add -inet6 fd81::/16 -iface TUN",
        )
        self.assertEqual(self.addrs(), ["10.80.0.2 peer 10.80.0.1", "fd80::2/64"])
        self.assertEqual(self.tree.read(self.of("mtu")), "1450\n")
        self.assertLessEqual({"UP", "RUNNING"}, self.flags())
        via = "via 10.80.0.1"
        wanted = {f"198.18.0.0/15 {via}", f"0.0.0.0/1 {via}", f"128.0.0.0/1 {via}", "fd81::/16"}
        self.assertLessEqual(wanted, self.routes())
        self.runs(
            "route delete -net 198.18.0.0 10.80.0.1 255.254.0.0",
            "route delete -net 0.0.0.0 10.80.0.1 128.0.0.0",
            "route delete -net 128.0.0.0 10.80.0.1 -netmask 128.0.0.0",
            "route delete -inet6 fd81::/16 -iface TUN",
        )
        self.assertFalse(wanted & self.routes())
        self.runs("ifconfig TUN 10.80.0.2 -alias", "ifconfig TUN inet6 fd80::2/64 -alias")
        self.assertEqual(self.addrs(), [])
        self.assertEqual(self.status("route delete -net 198.18.0.0 10.80.0.1 255.254.0.0")[0], 1)

    def test_openvpn_subnet(self):
        """A network in the tunnel: as FreeBSD, and as macOS has it."""
        self.open()
        self.runs("ifconfig TUN 10.80.0.2/24 mtu 1500 up")
        self.assertEqual(self.addrs(), ["10.80.0.2/24"])
        self.runs("ifconfig TUN delete")
        self.assertEqual(self.addrs(), [])
        self.runs("ifconfig TUN 10.80.0.3 10.80.0.3 netmask 255.255.255.0 mtu 1400 up")
        self.runs("route add -net 10.80.0.0 10.80.0.3 255.255.255.0")
        self.assertEqual(self.addrs(), ["10.80.0.3/24"])
        self.assertEqual(self.routes(), {"10.80.0.0/24"})

    def test_tinc_and_iodine(self):
        """Routes that name the address of the interface itself."""
        self.open()
        self.runs(
            "ifconfig TUN 10.81.54.1 netmask 255.255.0.0",
            "ifconfig TUN inet6 fd81::1 prefixlen 48",
            "route add 198.18.0.0/15 10.81.54.1",
            "route add 198.51.100.0/24 10.81.54.1 -interface",
            "route add -inet6 fd82:: fd81::1 -prefixlen 32",
        )
        self.assertEqual(self.addrs(), ["10.81.54.1/16", "fd81::1/48"])
        wanted = {"10.81.0.0/16", "fd81::/48", "198.18.0.0/15", "198.51.100.0/24", "fd82::/32"}
        self.assertEqual(self.routes(), wanted)
        self.runs("ifconfig TUN 10.82.0.2 10.82.0.1 netmask 255.255.255.224", "route add 10.82.0.0/27 10.82.0.2")
        self.assertEqual(self.addrs(), ["fd81::1/48", "10.82.0.2 peer 10.82.0.1"])
        self.assertIn("10.82.0.0/27", self.routes())
        self.runs("ifconfig TUN mtu 1300", "ifconfig TUN down")
        self.assertNotIn("UP", self.flags())

    def test_vpnc_script(self):
        """The default route taken and given back; the interface made and removed."""
        self.assertEqual(self.status("ifconfig TUN")[0], 1)
        self.assertEqual(self.status("ifconfig --help")[0], EX_USAGE)
        self.runs("ifconfig TUN create", "ifconfig TUN")
        self.assertEqual(self.status("ifconfig TUN create")[0], 1)
        device, outer = self.open(), self.link(unit=next(self.units))
        self.tree.write("route/add", f"default via {outer.peer}\n")
        self.runs(
            "ifconfig TUN inet 10.83.0.2 10.83.0.2 netmask 255.255.255.255 mtu 1412 up",
            f"route add -host 192.0.2.1 {outer.peer}",
            f"route delete default {outer.peer}",
            "route add default 10.83.0.2",
            "route add -net 198.18.0.0 -netmask 255.254.0.0 10.83.0.2",
        )
        self.assertEqual(self.routes(), {"default", "198.18.0.0/15"})
        shown = self.runs("route -n get default")
        self.assertIn(f"interface: {self.name}\n", shown)
        self.assertIn(f"gateway: {outer.peer}\n", self.runs("route -n get 192.0.2.1"))
        table = self.runs("route -n show").splitlines()
        self.assertIn(["192.0.2.1", outer.peer, "UGH", outer.name], [line.split() for line in table])
        self.runs("route delete default 10.83.0.2", f"route add default {outer.peer}")
        self.assertIn(f"gateway: {outer.peer}\n", self.runs("route -n get default"))
        self.runs(f"route delete -host 192.0.2.1 {outer.peer}", "ifconfig TUN 0.0.0.0", "route delete default")
        self.assertEqual(self.addrs(), [])
        os.close(device)
        self.runs("ifconfig TUN destroy")
        self.assertNotIn(self.name, self.tree.interfaces())

    def test_shown(self):
        """Interfaces as BSD shows them."""
        self.open()
        self.runs("ifconfig TUN 10.84.0.2 10.84.0.1 up", "ifconfig TUN inet 10.85.0.1/24 alias")
        shown = self.runs("ifconfig TUN")
        lines = [line.strip() for line in shown.splitlines()]
        self.assertEqual(lines[0], f"{self.name}: flags=8051<UP,POINTOPOINT,RUNNING,MULTICAST> mtu 1500")
        self.assertIn("inet 10.84.0.2 --> 10.84.0.1 netmask 0xffffffff", lines)
        self.assertIn("inet 10.85.0.1 netmask 0xffffff00 broadcast 10.85.0.255", lines)
        self.assertIn(f"Opened by PID {os.getpid()}", lines)
        for line in ("ifconfig", "ifconfig -a"):
            self.assertIn(shown, self.runs(line) + "\n")
        self.assertIn("inet6 ::1 prefixlen 128", self.runs("ifconfig lo0"))

    def test_refusals(self):
        """What is not understood is 64 and changes nothing; what the network refuses is 1."""
        self.open()
        self.runs("ifconfig TUN 10.86.0.1/24 up")
        before = self.tree.read("route/list"), self.addrs()
        for line in (
            "ifconfig TUN 10.86.0.2/24 sideways",
            "ifconfig TUN 10.86.0.2 netmask 255.0.255.0",
            "ifconfig TUN mtu",
            "ifconfig -z",
            "route",
            "route flush",
            "route add 198.18.0.0/15",
            "route add 198.18.0.0/15 x",
            "route add -rtt 3 198.18.0.0/15 10.86.0.2",
            "route get",
        ):
            status, _, said = self.status(line)
            self.assertEqual(status, EX_USAGE, f"{line}: {said}")
            self.assertTrue(said.startswith(line.split()[0] + ": "), said)
        for line in (
            "ifconfig TUN mtu 71",
            "ifconfig TUN destroy",
            "ifconfig tun9999 up",
            "ifconfig lo0 destroy",
            "route add 198.18.0.0/15 10.99.0.1",
            "route add 198.18.0.0/15 -interface tun9999",
            "route delete 198.18.0.0/15 10.86.0.2",
            "route get 192.0.2.1",
        ):
            self.assertEqual(self.status(line)[0], 1, line)
        self.assertEqual((self.tree.read("route/list"), self.addrs()), before)

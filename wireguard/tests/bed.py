"""A tund, our program beside it, and a stranger in another network namespace."""

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
TUND = os.environ.get("TUND", f"{TOP}/target/release/tund")
TUNCTL = os.environ.get("TUNCTL", f"{TOP}/target/release/tunctl")
PROGRAM = os.environ.get("TUN_WIREGUARD", f"{TOP}/wireguard/target/release/tun-wireguard")
# Limit of any wait, seconds.
PATIENCE = 30

libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x4000_0000


def missing():
    """What keeps the tests from running here, if anything."""
    if os.geteuid() != 0:
        return "not root"
    for path in ("/dev/fuse", "/dev/net/tun"):
        if not os.path.exists(path):
            return f"no {path}"
    for tool in ("ip", "ping", "wg", "wireguard-go"):
        if not shutil.which(tool):
            # It can be installed.
            if os.environ.get("TUND_TESTS") == "all":
                sys.exit(f"no {tool}, and TUND_TESTS=all")
            return f"no {tool}"
    for path in (TUND, TUNCTL, PROGRAM):
        if not os.path.exists(path):
            return f"no {path}"
    return None


def until(what, condition, patience=PATIENCE):
    """Waits for what must come, and returns it."""
    end = time.monotonic() + patience
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {patience} s: {what}")
        time.sleep(0.02)


def run(*command, **more):
    """Runs a command that must succeed, and returns what it prints."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, **more)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.returncode}\n{done.stdout}")
    return done.stdout


class Namespace:
    """A network namespace of its own, for commands and for this program's own sockets."""

    count = 0

    def __init__(self):
        Namespace.count += 1
        self.name = f"wg-{os.getpid()}-{Namespace.count}"
        run("ip", "netns", "add", self.name)
        self.run("ip", "link", "set", "lo", "up")

    def command(self, *command):
        # `ip netns exec` would hide mounts.
        return ("nsenter", f"--net=/run/netns/{self.name}", *command)

    def run(self, *command, **more):
        return run(*self.command(*command), **more)

    def popen(self, *command, **more):
        return subprocess.Popen(self.command(*command), **more)

    def inside(self, function, *args):
        """Calls a function in a thread that is in the namespace, and returns what it returns."""
        result = {}

        def body():
            with open(f"/run/netns/{self.name}", "rb") as net:
                if libc.setns(net.fileno(), CLONE_NEWNET):
                    result["error"] = OSError(ctypes.get_errno(), "setns")
                    return
            try:
                result["value"] = function(*args)
            except BaseException as error:  # pylint: disable=broad-except
                result["error"] = error

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        if "error" in result:
            raise result["error"]
        return result["value"]

    def close(self):
        subprocess.run(["ip", "netns", "del", self.name], check=False)


class Keys:
    """A pair of keys, made by the stranger's tool."""

    def __init__(self):
        self.private = run("wg", "genkey").strip()
        self.public = run("wg", "pubkey", input=self.private).strip()


class Bed:
    """Everything a test needs; closing it ends all processes that it started."""

    strangers = 0

    def __init__(self, tund=True):
        self.directory = tempfile.mkdtemp(prefix="tun-wireguard-")
        self.root = f"{self.directory}/net"
        self.state = f"{self.directory}/state"
        os.mkdir(self.root)
        self.processes = []
        self.namespaces = []
        # Control sockets, which a killed wireguard-go leaves behind; and the last one's interface.
        self.controls = []
        self.tool = None
        self.tund = None
        if tund:
            self.tund = self.start(TUND, "--mount", self.root, "--serve", "echo,discard,chargen", stdout=subprocess.DEVNULL)
            until("the mount", lambda: os.path.exists(f"{self.root}/netcfg/ifaces"))
        self.ours, self.theirs = Keys(), Keys()

    def namespace(self):
        space = Namespace()
        self.namespaces.append(space)
        return space

    def start(self, *command, space=None, **more):
        if space:
            command = space.command(*command)
        process = subprocess.Popen(command, **more)
        self.processes.append(process)
        return process

    def text(self, path):
        with open(f"{self.root}/{path}", encoding="ascii") as file:
            return file.read()

    def write(self, path, line):
        with open(f"{self.root}/{path}", "w", encoding="ascii") as file:
            file.write(line + "\n")

    def stat(self, interface, name):
        for line in self.text(f"netcfg/ifaces/{interface}/stats").splitlines():
            if line.split()[0] == name:
                return int(line.split()[1])
        raise AssertionError(f"{interface} has no {name}")

    def interfaces(self):
        return os.listdir(f"{self.root}/netcfg/ifaces")

    def veth(self, one, other):
        """A cable between two namespaces: 192.0.2.1 and .2, 2001:db8::1 and ::2."""
        run("ip", "link", "add", "name", "link0", "netns", one.name, "type", "veth", "peer", "name", "link0", "netns", other.name)
        for number, space in ((1, one), (2, other)):
            space.run("ip", "addr", "add", f"192.0.2.{number}/24", "dev", "link0")
            space.run("ip", "addr", "add", f"2001:db8::{number}/64", "dev", "link0", "nodad")
            space.run("ip", "link", "set", "link0", "up")

    def configuration(self, interface="", peer="", name="wg.conf"):
        """Our file."""
        path = f"{self.directory}/{name}"
        text = f"[Interface]\nPrivateKey = {self.ours.private}\n{interface}\n[Peer]\nPublicKey = {self.theirs.public}\n{peer}\n"
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        os.chmod(path, 0o600)
        return path

    def program(self, file, *options, space=None):
        """Our program, when it has said that it is there."""
        log = open(f"{self.directory}/log", "ab")
        environment = dict(os.environ, TUN_WIREGUARD_STATE=self.state, RUST_BACKTRACE="1")
        process = self.start(
            PROGRAM, "--root", self.root, *options, file, space=space, stdout=subprocess.PIPE, stderr=log, env=environment
        )
        log.close()
        ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
        line = process.stdout.readline().decode() if ready else ""
        if ": port " not in line:
            with open(f"{self.directory}/log", encoding="utf-8") as file:
                raise AssertionError(f"it did not start: {line}{file.read()}")
        process.stdout.close()
        process.interface = line.split(":")[0]
        process.port = int(line.split()[-1])
        return process

    def show(self, *options):
        environment = dict(os.environ, TUN_WIREGUARD_STATE=self.state)
        return run(PROGRAM, "show", *options, env=environment)

    def status(self):
        """The only tunnel that is there."""
        states = until("a tunnel", lambda: json.loads(self.show("--json")))
        assert len(states) == 1, states
        return states[0]

    def wireguard_go(self, space):
        """A new one, and the name of its interface, which no other on this machine has."""
        Bed.strangers += 1
        name = f"wg{os.getpid()}x{Bed.strangers}"
        process = self.start("wireguard-go", "-f", name, space=space, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        control = f"/var/run/wireguard/{name}.sock"
        self.controls.append(control)
        # The socket is there before somebody listens.
        ask = ["wg", "show", name]
        until("wireguard-go", lambda: subprocess.run(ask, capture_output=True, check=False).returncode == 0)
        return process, name

    def stranger(self, space, port=51820, endpoint=None, allowed="10.9.0.1/32,fd09::1/128"):
        """wireguard-go with the addresses 10.9.0.2 and fd09::2."""
        process, name = self.wireguard_go(space)
        key = f"{self.directory}/theirs"
        with open(key, "w", encoding="ascii") as file:
            file.write(self.theirs.private)
        more = ["endpoint", endpoint] if endpoint else []
        run("wg", "set", name, "listen-port", str(port), "private-key", key, "peer", self.ours.public, "allowed-ips", allowed, *more)
        space.run("ip", "addr", "add", "10.9.0.2/24", "dev", name)
        space.run("ip", "addr", "add", "fd09::2/64", "dev", name, "nodad")
        space.run("ip", "link", "set", name, "mtu", "1420", "up")
        self.tool = name
        return process

    def theirs_about_us(self, column):
        """One of `wg show`'s tables, about us."""
        for line in run("wg", "show", self.tool, column).splitlines():
            if line.startswith(self.ours.public):
                return line.split("\t")[1:]
        return None

    def end(self, process, how=signal.SIGTERM):
        """Ends a process, and returns its exit status."""
        if process.poll() is None:
            process.send_signal(how)
        status = process.wait(PATIENCE)
        if process in self.processes:
            self.processes.remove(process)
        return status

    def close(self):
        for process in reversed(self.processes):
            if process is not self.tund and process.poll() is None:
                process.kill()
                process.wait(PATIENCE)
        if self.tund:
            self.tund.terminate()
            try:
                self.tund.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.tund.kill()
            # A tund that was killed leaves its mount behind.
            subprocess.run(["umount", "-l", self.root], stderr=subprocess.DEVNULL, check=False)
        for control in self.controls:
            if os.path.exists(control):
                os.remove(control)
        for space in self.namespaces:
            space.close()
        shutil.rmtree(self.directory, ignore_errors=True)

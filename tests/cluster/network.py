"""A network of the trials' own: a hub and hosts around it, in network namespaces that end with their processes.

A program that is started `apart` has nothing but a loopback of its own, and sees only its own processes; the hub is
made there. Whatever it leaves behind ends with it, and nothing that it sends can leave this machine, or even reach it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

HUB = "10.99.0.1"
_APART = (
    "setpriv",
    "--pdeathsig",
    "KILL",
    "unshare",
    "--net",
    "--mount",
    "--pid",
    "--fork",
    "--mount-proc",
    "--kill-child",
)
_AS_ANYBODY = ("--user", "--map-current-user", "--keep-caps")


def apart(command: Sequence[str | Path]) -> list[str]:
    """The command line that runs `command` by itself; who is not root needs a kernel that lets anybody do that."""
    return [*_APART, *(_AS_ANYBODY if os.geteuid() else ()), *map(str, command)]


def can_be_apart() -> bool:
    """Whether this machine lets us."""
    return subprocess.run(apart(["ip", "link"]), capture_output=True, check=False).returncode == 0


class Network:
    """The hub, with an address of its own. Made by a program that runs apart."""

    def __init__(self) -> None:
        _ip("link set lo up")
        _ip("link add hub type bridge")
        _ip(f"addr add {HUB}/24 dev hub")
        _ip("link set hub up")
        self._hosts = 1

    def host(self, home: Path) -> Host:
        """One more host; `home` is a folder that each sees for itself, empty."""
        self._hosts += 1
        return Host(self._hosts, home)


class Host:
    """A namespace with one line to the hub, and what runs in it."""

    def __init__(self, number: int, home: Path) -> None:
        self.address = f"10.99.0.{number}"
        self._line = f"host{number}"
        hold = 'mount -t tmpfs own "$0" && echo ready && exec sleep infinity'
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "sh", "-c", hold, home], stdout=subprocess.PIPE, start_new_session=True
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n"
        _ip(f"link add {self._line} type veth peer name eth0 netns {self._holder.pid}")
        _ip(f"link set {self._line} master hub up")
        for words in ("link set lo up", f"addr add {self.address}/24 dev eth0", "link set eth0 up"):
            subprocess.run(self.command(["ip", *words.split()]), check=True)

    def command(self, words: Sequence[str | Path]) -> list[str]:
        """The command line that runs there."""
        return ["nsenter", f"--target={self._holder.pid}", "--net", "--mount", *map(str, words)]

    def pids(self) -> list[int]:
        """Every process there, without the one that holds the place."""
        own = _network_of(self._holder.pid)
        return [pid for pid in _all_pids() if pid != self._holder.pid and _network_of(pid) == own]

    def cut(self) -> None:
        """The cable is pulled."""
        _ip(f"link set {self._line} down")

    def join(self) -> None:
        """And put back."""
        _ip(f"link set {self._line} up")

    def slow(self) -> None:
        """Two hundred kilobits a second, both ways."""
        rate = "root tbf rate 200kbit burst 16kb latency 2s"
        _run(f"tc qdisc add dev {self._line} {rate}")
        subprocess.run(self.command(f"tc qdisc add dev eth0 {rate}".split()), check=True)

    def hurry(self) -> None:
        """As before."""
        _run(f"tc qdisc del dev {self._line} root")
        subprocess.run(self.command(["tc", "qdisc", "del", "dev", "eth0", "root"]), check=True)

    def end(self) -> None:
        """The machine loses its power."""
        kill_all(self.pids)
        self._holder.kill()
        self._holder.wait()


def kill_all(alive) -> None:
    """kill -9 until there is none: one that is being killed may have just started another."""
    while pids := alive():
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def named(pids: Sequence[int], name: str) -> list[int]:
    """Those whose command line begins with the program, or title, `name`."""
    return [pid for pid in pids if _title(pid).startswith(name)]


def _title(pid: int) -> str:
    try:
        first = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
    except OSError:
        return ""
    return first.rpartition("/")[2]


def _all_pids() -> list[int]:
    return [int(each) for each in os.listdir("/proc") if each.isdigit() and not is_gone(int(each))]


def is_gone(pid: int) -> bool:
    """Ended, and perhaps not yet waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def children(pid: int) -> list[int]:
    """The processes that it started itself."""
    return [each for each in _all_pids() if _parent_of(each) == pid]


def _parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _network_of(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return ""


def _ip(words: str) -> None:
    _run(f"ip {words}")


def _run(words: str) -> None:
    subprocess.run(words.split(), check=True)

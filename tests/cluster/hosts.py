"""A Ray cluster over several hosts: a head without work at the hub, and hosts of one CPU each; with Ray's token."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tests.cluster.network import HUB, Host, Network, kill_all, named
from tests.ports import wait_for

PORT = 6379
_RAY = Path(sys.executable).with_name("ray")
_MEMORY = "--object-store-memory=80000000"


class Hosts:
    """`home`: bgbatch's folder, which each host has for itself. `environment`: what a worker's pod has in its own."""

    def __init__(self, network: Network, home: Path, count: int, environment: Mapping[str, str]) -> None:
        self.token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
        self._network, self._home, self._count = network, home, count
        self._environment = dict(environment)
        self._log = (home.parent / "ray.log").open("ab")
        self.members: list[tuple[Host, subprocess.Popen[bytes]]] = []
        self._put_up()

    def tend(self) -> list[str]:
        """Put up again whatever is down, as an operator of clusters does. Returns what it was."""
        if self._head.poll() is not None:
            self._take_down()
            self._put_up()
            return ["cluster"]
        lost = [each for each in self.members if each[1].poll() is not None]
        for member in lost:
            member[0].end()
            self.members.remove(member)
            self.members.append(self._new_host())
        return ["host"] * len(lost)

    def host(self, number: int) -> Host:
        """One of them."""
        return self.members[number % len(self.members)][0]

    def actors(self) -> list[int]:
        """The processes of the segmenters, wherever they are."""
        return [pid for host, _ in self.members for pid in named(host.pids(), "ray::SegmenterActor")]

    def raylets(self) -> list[int]:
        """The process of each host that starts all its others."""
        return [pid for host, _ in self.members for pid in named(host.pids(), "raylet")]

    def gcs(self) -> list[int]:
        """The head's own process, which knows the cluster."""
        return named(self._of_the_head(), "gcs_server")

    def end(self) -> None:
        """Everything of it."""
        self._take_down()
        self._log.close()

    def _put_up(self) -> None:
        folder = tempfile.mkdtemp(prefix="ray-", dir=self._home.parent)
        where = ["--head", f"--port={PORT}", f"--node-ip-address={HUB}", f"--temp-dir={folder}", "--num-cpus=0"]
        self._head = self._start([_RAY, "start", "--block", *where, "--include-dashboard=false", _MEMORY])
        wait_for(PORT, self._head, HUB)
        self.members = []
        for _ in range(self._count):
            self.members.append(self._new_host())
            self._wait_for_last()

    def _wait_for_last(self) -> None:
        """One after another: where all start at once on a busy machine, Ray gives up on some, after 30 seconds."""
        host, process = self.members[-1]
        agents = ("ray::RuntimeEnvAgent", "ray::DashboardAgent")  # it joins once it has both
        while process.poll() is None and not all(named(host.pids(), each) for each in agents):
            time.sleep(0.1)

    def _new_host(self) -> tuple[Host, subprocess.Popen[bytes]]:
        host = self._network.host(self._home)
        where = [f"--address={HUB}:{PORT}", f"--node-ip-address={host.address}", "--num-cpus=1"]
        return host, self._start(host.command([_RAY, "start", "--block", *where, _MEMORY]))

    def _start(self, command: list) -> subprocess.Popen[bytes]:
        environment = os.environ | self.token | self._environment
        return subprocess.Popen(command, env=environment, stdout=self._log, stderr=self._log, start_new_session=True)

    def _take_down(self) -> None:
        for host, process in self.members:
            host.end()
            process.wait()
        self.members.clear()
        kill_all(self._of_the_head)
        self._head.wait()

    def _of_the_head(self) -> list[int]:
        """Its processes at the hub are known by the session that their head began."""
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _session(pid) == self._head.pid]


def _session(pid: int) -> int:
    try:
        state, *_, session = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]
    except OSError:
        return 0
    return 0 if state in "ZX" else int(session)

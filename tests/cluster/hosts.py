"""A Ray cluster of several hosts on this machine: a head without work and hosts of one CPU each."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import ray
from ray.cluster_utils import Cluster

from store.settings import Settings


class Hosts:
    """Starts with `workers` hosts. `home`: where actors say that they are there (tests.cluster.rehearsal).

    `secrets`: what the hosts have in their environment, as pods have; no driver hands them any.
    """

    def __init__(self, home: Path, workers: int, secrets: dict[str, str]) -> None:
        self.home = home
        self._secrets = secrets
        self._cluster = Cluster()
        self._cluster.add_node(num_cpus=0, object_store_memory=80 * 2**20, include_dashboard=False)
        self.nodes = [self._add() for _ in range(workers)]
        self._cluster.wait_for_nodes()

    @property
    def address(self) -> str:
        return self._cluster.address

    def settings(self, base: Settings) -> Settings:
        return base.model_copy(update={"ray_address": self.address, "actors": len(self.nodes)})

    def lose_one(self, number: int) -> None:
        """A host goes without a word."""
        node = self.nodes.pop(number % len(self.nodes))
        self._cluster.remove_node(node, allow_graceful=False)

    def bring_one(self) -> None:
        self.nodes.append(self._add())

    def freeze_one(self, number: int, seconds: float) -> None:
        """A host stands still and comes back, as one that swaps or is cut off for a moment."""
        node = self.nodes[number % len(self.nodes)]
        raylet = node.all_processes["raylet"][0].process.pid
        held = [raylet, *(each for each in self.actors() if _parent(each) == raylet)]
        for signum in (signal.SIGSTOP, signal.SIGCONT):
            for pid in held:
                with suppress(ProcessLookupError):
                    os.kill(pid, signum)
            if signum is signal.SIGSTOP:
                time.sleep(seconds)

    def lose_the_head(self) -> None:
        """The cluster's memory dies: so does the cluster, and another is put in its place."""
        self._cluster.head_node.all_processes["gcs_server"][0].process.kill()

    def kill_an_actor(self, number: int) -> None:
        alive = [pid for pid in self.actors() if Path(f"/proc/{pid}").exists()]
        if alive:
            with suppress(ProcessLookupError):
                os.kill(alive[number % len(alive)], signal.SIGKILL)

    def actors(self) -> list[int]:
        folder = self.home / "actors"
        return sorted(int(each.name) for each in folder.iterdir()) if folder.is_dir() else []

    def end(self) -> None:
        if ray.is_initialized():
            ray.shutdown()
        self._cluster.shutdown()

    def _add(self):
        with patch.dict(os.environ, self._secrets):
            return self._cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20, wait=False)


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except FileNotFoundError:
        return 0

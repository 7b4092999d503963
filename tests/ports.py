"""Ports of this machine for the servers of tests."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path
from random import Random

_OF_THE_SYSTEM = Path("/proc/sys/net/ipv4/ip_local_port_range")
_MANY = 10_000
_marks: list[socket.socket] = []


def free_port() -> int:
    """A port that nobody listens on, and that nobody else is given while this process lives.

    It lies below those that the system gives to whoever asks for any: one of them may be taken before the server has
    started for which it was found. Among tests, a name that only one can have says that it is taken.
    """
    first = int(_OF_THE_SYSTEM.read_text().split()[0])
    below = range(max(1024, first - _MANY), first)
    for port in Random().sample(below, len(below)):
        mark = socket.socket(socket.AF_UNIX)
        try:
            mark.bind(f"\0bgbatch-tests-{port}")
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            mark.close()
            continue
        _marks.append(mark)
        return port
    raise RuntimeError("no port is free")


def wait_for(
    port: int, process: subprocess.Popen[bytes] | None = None, host: str = "127.0.0.1", seconds: float = 300
) -> None:
    """Until something listens there; a busy machine of two cores needs more than half a minute for some."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex((host, port)) == 0:
                return
        if process is not None and process.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError(f"nothing listens on port {port}")

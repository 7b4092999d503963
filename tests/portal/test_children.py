"""What `serve` keeps running never outlives it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from portal.cli.children import _PORTS, _TIED, _free_port

KEEPER = """
import sys, threading
from portal.cli.children import Children
from schemas.clock import system_clock
child = "import os, sys, time; print(os.getpid(), flush=True); time.sleep(600)"
Children(threading.Event(), system_clock, []).keep("a child", (sys.executable, "-c", child))
"""


def wait_until(is_true: Callable[[], bool]) -> None:
    until = time.monotonic() + 300
    while not is_true():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize("way", [signal.SIG_DFL, signal.SIG_IGN], ids=["by itself", "with & in a script"])
def test_a_child_ends_when_its_keeper_is_killed_and_cannot_end_it(way: signal.Handlers) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KEEPER],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, way),
    ) as keeper:
        assert keeper.stdout is not None
        child = Path("/proc") / keeper.stdout.readline().strip()
        assert "time.sleep(600)" in (child / "cmdline").read_text()
        keeper.kill()
    wait_until(lambda: not child.exists())


def test_a_child_that_starts_after_its_keeper_is_gone_ends_at_once() -> None:
    ended = subprocess.run([sys.executable, "-c", _TIED, "0", "echo", "I run"], capture_output=True, timeout=300)
    assert ended.stdout == b""


def test_prefects_server_has_a_port_that_no_other_program_is_given_by_chance() -> None:
    first_of_the_system = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(_free_port() in _PORTS for _ in range(20))
    assert _PORTS[-1] < first_of_the_system

"""Ray as it is deployed asks for its token: who has another, or none, does not get in."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.rclone import free_port, wait_for

TOKEN = secrets.token_hex(32)
WITH_TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A head of a cluster, with a token, on this machine's loopback."""
    port, home = free_port(), tempfile.mkdtemp(prefix="bgb-", dir="/tmp")
    command = [Path(sys.executable).with_name("ray"), "start", "--head", "--block", f"--port={port}", "--num-cpus=1"]
    where = ["--node-ip-address=127.0.0.1", "--include-dashboard=false", f"--temp-dir={home}"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    head = subprocess.Popen(
        [*command, *where, "--object-store-memory=80000000"],
        env=os.environ | WITH_TOKEN,
        start_new_session=True,
        **quiet,
    )
    wait_for(port, head)
    yield f"127.0.0.1:{port}"
    head.send_signal(signal.SIGTERM)
    try:
        head.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(head.pid, signal.SIGKILL)
    shutil.rmtree(home, ignore_errors=True)


def knock(address: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Ask the cluster how many hosts it has, in a process of its own."""
    ask = f"import ray; ray.init(address={address!r}, log_to_driver=False); print(len(ray.nodes()), 'hosts')"
    return subprocess.run(
        [sys.executable, "-c", ask], env=os.environ | environment, capture_output=True, text=True, check=False
    )


def test_who_has_another_token_or_none_does_not_get_into_the_cluster(address: str) -> None:
    assert knock(address, **WITH_TOKEN).stdout == "1 hosts\n"
    for stranger in (WITH_TOKEN | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}, {"RAY_AUTH_MODE": "disabled"}):
        refused = knock(address, **stranger)
        assert refused.returncode != 0
        assert "hosts" not in refused.stdout

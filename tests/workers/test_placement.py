"""Joining a cluster that is not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.ports import free_port

JOIN = """
import sys
from schemas.errors import WorkersLost
from store.settings import Settings
from workers.placement import connect

try:
    connect(Settings(home=sys.argv[1], ray_address=f"127.0.0.1:{sys.argv[2]}"))
except WorkersLost as fault:
    print(fault)
"""


def test_a_cluster_that_does_not_answer_is_told_at_once(tmp_path: Path) -> None:
    """In a process of its own: Ray's own patience ends with `timeout` alone."""
    asked = [sys.executable, "-c", JOIN, str(tmp_path), str(free_port())]
    said = subprocess.run(asked, capture_output=True, text=True, timeout=60)
    assert said.stdout.startswith("No Ray cluster answers at BGBATCH_RAY_ADDRESS."), said.stderr

"""`bgbatch --help`, or a look at a batch, does not wait for libraries that it has no use for."""

from __future__ import annotations

import subprocess
import sys

_SLOW = ("cv2", "fastapi", "numba", "numpy", "prefect", "pyarrow", "ray", "s3fs", "torch", "uvicorn")


def test_the_command_line_loads_none_of_the_slow_libraries_before_it_knows_what_is_wanted() -> None:
    code = "import sys, portal.cli.app; print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert sorted(set(said.split()) & set(_SLOW)) == []

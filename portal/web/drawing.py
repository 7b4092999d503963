"""Has small pictures made by a process apart, that holds no secret: see `workers.preview_process`."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

from schemas.options import Format
from workers.decode import Limits

_SECONDS = 60.0
"""No picture takes as long; whatever does is ended, and the next one is made by a fresh process."""

_COMMAND = (sys.executable, "-I", "-m", "workers.preview_process")


class Drawer:
    """One such process, started when it is first needed and again after it died. It ends with this one."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()

    def draw(self, of: str, format: Format, file: bytes, limits: Limits) -> bytes | None:
        """A small picture as WebP; None when there is none to be made of these bytes."""
        wanted = {"of": of, "format": format, "pixels": limits.pixels, "bytes": limits.bytes, "size": len(file)}
        with self._turn:
            process = self._process = self._process or subprocess.Popen(
                _COMMAND, env={}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            watch = threading.Timer(_SECONDS, process.kill)
            watch.start()
            try:
                made = _ask(process, json.dumps(wanted).encode() + b"\n" + file)
            finally:
                watch.cancel()
            if made is None:
                self._end(process)
        return made or None

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.communicate()
        self._process = None


def _ask(process: subprocess.Popen[bytes], message: bytes) -> bytes | None:
    """What the process says; None when it died over it."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(message)
        process.stdin.flush()
    except BrokenPipeError:
        return None
    head = process.stdout.read(8)
    size = int.from_bytes(head, "big")
    made = process.stdout.read(size)
    return made if len(head) == 8 and len(made) == size else None

"""What a table looks like in a real window of 80 columns."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
from subprocess import Popen

from flows.receive import stamp_batch
from portal.cli.children import BGBATCH
from schemas.batch import BatchState, Counts
from schemas.ids import BatchId
from schemas.industries import Industry
from schemas.options import CutoutOptions
from store.batches import set_progress
from tests.api.conftest import Desk
from tests.portal.test_batch_commands import fail_all


def in_a_window(*words: str, columns: int = 80) -> str:
    """What the command shows there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    with Popen([*BGBATCH, *words], stdout=theirs, env=environment | {"TERM": "xterm"}) as child:
        os.close(theirs)
        shown = b""
        while piece := _read(ours):
            shown += piece
    os.close(ours)
    assert child.returncode == 0
    return shown.decode()


def _read(ours: int) -> bytes:
    try:
        return os.read(ours, 65536)
    except OSError:  # Linux says so when nobody holds the other side any more
        return b""


def test_an_id_stands_in_one_piece(desk: Desk) -> None:
    batches = [stamp_batch(desk.parts, desk.accounts["Acme"][0], tag, CutoutOptions()) for tag in (None, *Industry)]
    with desk.parts.records.transaction() as connection:
        for each in batches:
            counts = Counts(items=9_999_999, done=9_999_998, failed=1)
            set_progress(connection, each.batch_id, counts, BatchState.PARTIALLY_COMPLETED)
    shown = in_a_window("status").splitlines()
    for each in batches:
        assert sum(f"│ {each.batch_id} │" in line for line in shown) == 1
    assert {len(line) for line in shown if line.startswith("│")} == {80}
    batch = desk.send({"VIN1/" + "x" * 90 + ".jpg": b"no photo"})
    fail_all(desk.parts, BatchId(batch))
    shown = in_a_window("status", batch).splitlines()
    assert "photo          VIN1/" + "x" * 90 + ".jpg" in shown, "nor is a path broken"
    assert "code           not_an_image" in shown

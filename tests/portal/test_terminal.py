"""What a person sees in a real window of 80 columns."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import sys
import termios
from pathlib import Path
from subprocess import Popen, run

import pytest

from flows.cleaning import cleaning
from flows.receive import stamp_batch
from portal.cli.children import BGBATCH
from portal.cli.terminal import say, tell
from schemas.batch import BatchState, Counts
from schemas.ids import BatchId
from schemas.industries import Industry
from schemas.options import CutoutOptions
from store.purging.cleanup import clean_up
from store.records.batches import hasten, set_progress
from tests.api.conftest import Desk
from tests.portal.test_batch_commands import fail_all


def in_a_window(*words: str, start: tuple[str, ...] = BGBATCH, code: int = 0) -> str:
    """What the command shows there. It must end with `code`."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    environment = {name: value for name, value in kept.items() if not name.startswith("PREFECT_")}  # another test's
    window = {"stdout": theirs, "stderr": theirs, "env": environment | {"TERM": "xterm"}}
    with Popen([*start, *words], **window) as child:  # type: ignore[call-overload]
        os.close(theirs)
        shown = b""
        while piece := _read(ours):
            shown += piece
    os.close(ours)
    assert child.returncode == code
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


def test_a_sentence_is_not_broken_however_long_what_it_names(capsys: pytest.CaptureFixture[str]) -> None:
    sentence = f"A contact sheet is in /{'folder of photos/' * 10}sheet.png."
    say(sentence)
    tell(sentence)
    assert capsys.readouterr() == (f"{sentence}\n", f"{sentence}\n")


BROKEN = """
from flows import steps
def broken(*_what):
    raise RuntimeError("grandmothers-portrait.jpg")
steps.plan = broken
from portal.cli.app import main
main()
"""


def test_what_nobody_foresaw_is_one_sentence_and_nothing_keeps_what_it_said(desk: Desk, tmp_path: Path) -> None:
    batch = desk.send({"1.jpg": b"no photo"})
    shown = in_a_window("run", batch, start=(sys.executable, "-c", BROKEN), code=1)
    last = shown.rpartition("\x1b[1;31m")[2].replace("\x1b[0m", "")
    assert last.startswith("internal: Something went wrong that nobody foresaw (RuntimeError at process_batch.py:")
    assert f"`bgbatch run {batch}` does the rest." in last
    assert [
        each for each in ("Traceback", "File ", "ERROR", "Finished in state", "grandmothers") if each in shown
    ] == []
    home = desk.parts.settings.home
    kept = [each for each in home.rglob("*") if each.is_file() and b"grandmothers-portrait.jpg" in each.read_bytes()]
    assert kept == []
    assert (home / "prefect/prefect.db").stat().st_size > 0, "Prefect has written of it"


EARLY = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "portal.cli.app":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize("way_in", ["from portal.cli.start import main; main()", BGBATCH[-1]], ids=["command", "child"])
def test_ctrl_c_while_it_is_still_starting_leaves_no_trace(desk: Desk, way_in: str) -> None:
    assert in_a_window("status", start=(sys.executable, "-c", EARLY + way_in), code=-signal.SIGINT) == ""


def test_receipts_stand_in_a_table_however_much_was_deleted(desk: Desk) -> None:
    batch = desk.send({"1.jpg": b"no photo"})
    with desk.parts.records.transaction() as connection:
        hasten(connection, BatchId(batch), desk.parts.clock())
    clean_up(cleaning(desk.parts))
    shown = in_a_window("receipts").splitlines()
    assert sum(line.startswith("│") and f" {batch} " in line for line in shown) == 1
    assert max(len(line) for line in shown if line.startswith("│")) <= 80


def test_a_first_look_at_an_empty_house_says_how_to_begin(desk: Desk) -> None:
    assert in_a_window("status").splitlines() == [
        "There is none.",
        "`bgbatch submit FOLDER --account NAME` sends the first.",
    ]


def test_no_other_process_of_the_user_looks_into_a_command_which_may_hold_passwords() -> None:
    asked = "\ntry: main()\nexcept SystemExit: print(__import__('ctypes').CDLL(None).prctl(3))"
    start = [*BGBATCH[:2], BGBATCH[2].replace("; main()", asked), "--version"]
    said = run(start, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[-1] == "0", "/proc shows its memory and environment"

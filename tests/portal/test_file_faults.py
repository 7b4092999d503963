"""What a command says when a disk or a file would not do what was asked."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest
import typer

from portal.cli.children import BGBATCH
from portal.cli.terminal import CALLERS_MISTAKE, exit_codes
from store.objects.folder import write_whole


@pytest.mark.parametrize(
    ("number", "name", "told"),
    [
        (errno.ENOSPC, None, "file_fault: No space left on device. Make room, or choose a place on another disk"),
        (errno.EACCES, "/cutouts", "file_fault: Permission denied: /cutouts. Change its permissions"),
        (errno.EIO, "/cutouts", "file_fault: Input/output error: /cutouts. Check the place"),
    ],
)
def test_a_fault_of_a_disk_says_what_to_do(
    number: int, name: str | None, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as end, exit_codes():
        raise OSError(number, os.strerror(number), *([name] if name else []))
    assert end.value.exit_code == CALLERS_MISTAKE
    said = capsys.readouterr().err.strip()
    assert said.startswith(told)
    assert said.endswith(".")


def test_a_fault_names_what_is_in_the_way_and_moves_no_cursor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    in_the_way = tmp_path / "a\x1b[2J.png"
    in_the_way.mkdir()
    with pytest.raises(typer.Exit), exit_codes():
        write_whole(str(tmp_path / ".bgbatch-0"), str(in_the_way), b"cutout")
    assert capsys.readouterr().err.startswith(f"file_fault: Is a directory: {tmp_path}/a\\x1b[2J.png. Check the place")


@pytest.mark.parametrize("words", [(), ("--help",), ("--version",), ("status", "--help")], ids=" ".join)
def test_help_that_a_full_disk_does_not_take_is_one_line_and_no_trace(words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run((*BGBATCH, *words), stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == CALLERS_MISTAKE
    assert done.stderr.startswith("file_fault: No space left on device.")
    assert done.stderr.count("\n") == 1

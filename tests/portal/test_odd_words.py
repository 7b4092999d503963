"""What a script may hand to a command by mistake: nothing at all, bytes of another encoding, numbers beyond sense."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from portal.cli.app import app
from tests.api.conftest import Desk
from tests.portal.commands import run


def typed(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command as a shell starts it."""
    command = [sys.executable, "-c", "from portal.cli.app import main; main()", *words]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, errors="replace", check=False
    )


@pytest.mark.parametrize(
    "words",
    [("submit", "", "--account", "Acme"), ("status", "--account", ""), ("download", "x", "--to", "")],
)
def test_an_empty_word_does_not_mean_this_folder_or_everybody(desk: Desk, words: tuple[str, ...]) -> None:
    done = typed(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("bad_request: There is nothing")
    assert "Is a variable not set?" in done.stderr


def test_where_nothing_is_a_value_it_may_be_given(desk: Desk) -> None:
    assert "There is nothing" not in typed("upkeep", "--compact", "", "--no-such-option").stderr


def test_bytes_in_no_utf8_are_told_without_a_trace(desk: Desk) -> None:
    done = typed("status", os.fsdecode(b"\xff"))
    assert done.returncode == 2
    assert done.stderr.startswith("bad_request: A name or an argument is in no UTF-8.")
    assert "Traceback" not in done.stderr
    assert "bgbatch.trace" not in done.stderr


def test_a_terminal_of_few_letters_gets_the_others_escaped(desk: Desk) -> None:
    run("account", "create", "Ünïcödé 車", "--email", "owner@unicode.example")
    done = typed("account", "list", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u8eca" in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("audit", "--days", "99999999999999999999"),
        ("audit", "--days", "-1"),
        ("schedule", "show", "s", "--nights", "99999999999999999999"),
        ("certificate", "b", "--after", "99999999999999999999"),
        ("certificate",),
    ],
)
def test_numbers_beyond_sense_and_what_is_missing_are_the_callers_mistakes(desk: Desk, words: tuple[str, ...]) -> None:
    assert "bgbatch.trace" not in run(*words, code=2)


def test_who_has_read_enough_ends_a_command_without_a_word(desk: Desk, tmp_path: Path) -> None:
    words = [sys.executable, "-c", "from portal.cli.app import main; main()", "status", "--json"]
    with (tmp_path / "said").open("w+") as said:
        pipe = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=said)
        assert pipe.stdout is not None
        pipe.stdout.close()
        pipe.wait(300)
    assert (tmp_path / "said").read_text() == ""


@pytest.mark.parametrize("group", [each.name for each in app.registered_groups])
def test_a_group_of_commands_alone_shows_which_there_are(group: str) -> None:
    shown = run(group, code=2)
    assert "Commands" in shown
    assert "Missing command" not in shown


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_ends_no_command_and_no_file_has_its_number(desk: Desk, tmp_path: Path, closed: str) -> None:
    python = shlex.quote(sys.executable)
    command = f"{python} -c 'from portal.cli.start import main; main()' status nothing"
    assert subprocess.run(["bash", "-c", f"{command} {closed}"], check=False).returncode == 2
    opened = tmp_path / "opened"
    look = (
        "from portal.cli.start import _open_what_is_closed; import os, subprocess; _open_what_is_closed(); "
        f"held = os.open({str(opened)!r}, os.O_CREAT | os.O_RDWR); assert held > 2, held; "
        "print('a line of a library'); subprocess.run(['bash', '-c', 'echo another; echo more >&2'], check=True)"
    )
    done = subprocess.run(["bash", "-c", f"{python} -c {shlex.quote(look)} {closed}"], check=False)
    assert (done.returncode, opened.read_bytes()) == (0, b"")

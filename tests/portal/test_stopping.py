"""A command that is stopped while it is in code that no exception gets through, as Ray's is now and then."""

from __future__ import annotations

import os
import pty
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE, Popen, TimeoutExpired

import httpx
import pytest

from portal.cli.children import BGBATCH
from tests.api.conftest import Desk
from tests.ports import free_port

STUCK = """
import ctypes, os, threading
from portal.cli import status
def stuck(*_what):
    lock = (ctypes.c_char * 64)()
    threading.Timer(1, os.write, (1, b"stuck")).start()
    while True:
        ctypes.CDLL(None).pthread_mutex_lock(lock)
status.list_batches = stuck
from portal.cli.start import main
main()
"""
WAITS = """
import os, time
from portal.cli import status
def waits(*_what):
    try:
        os.write(1, b"waits")
        time.sleep(600)
    finally:
        time.sleep(2)
        os.write(1, b", and tidied up")
status.list_batches = waits
from portal.cli.start import main
main()
"""


THROWS_AWAY = """
import os, signal, time, weakref
from portal.cli import status
class Thing:
    pass
def waits(*_what):
    thing = Thing()
    seen = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
    os.write(1, b"waits")
    del thing
    time.sleep(600)
status.list_batches = waits
from portal.cli.start import main
main()
"""
SHOWS_A_BAR = """
import sys, time
from pathlib import Path
from portal.cli import status, terminal
tidied_up = Path(sys.argv.pop())
def waits(*_what):
    try:
        with terminal.progress_bar("Removing backgrounds"):
            time.sleep(600)
    finally:
        terminal.tell("stopping")
        tidied_up.touch()
status.list_batches = waits
from portal.cli.start import main
main()
"""
IN_PYDANTIC = """
import signal
from pydantic import BaseModel, model_serializer
from portal.cli import status
class Thing(BaseModel):
    @model_serializer
    def in_words(self):
        signal.raise_signal(signal.SIGINT)
status.list_batches = lambda *_what: Thing().model_dump()
from portal.cli.start import main
main()
"""
BEGINS = """
import os, time
import typer.main
def put_together(*_what):
    os.write(1, b"begins")
    time.sleep(600)
typer.main.get_command = put_together
from portal.cli.start import main
main()
"""
ENDS = """
import atexit, os, time
from portal.cli import status
def slowly():
    os.write(1, b"ends")
    time.sleep(2)
    os.write(1, b", in good order")
def ends(*_what):
    atexit.register(slowly)
    raise SystemExit(0)
status.list_batches = ends
from portal.cli.start import main
main()
"""
STUCK_AT_THE_END = STUCK.replace(
    "status.list_batches = stuck",
    """
def ends(*_what):
    import atexit
    atexit.register(stuck)
    raise SystemExit(0)
status.list_batches = ends
""",
)
IN_A_FLOW = STUCK.replace(
    "    lock =",
    """    from prefect.utilities.engine import capture_sigterm
    flow = capture_sigterm()
    flow.__enter__()
    lock =""",
)


def started(program: str, told: bytes) -> Popen[bytes]:
    child = Popen([sys.executable, "-c", program, "status"], stdout=PIPE, stderr=PIPE, preexec_fn=_hears)
    assert child.stdout is not None
    assert child.stdout.read(len(told)) == told
    return child


def _hears() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a shell that runs tests with `&` has them ignored
        signal.signal(number, signal.SIG_DFL)


def portal_that_answers() -> Popen[bytes]:
    port = free_port()
    words = [*BGBATCH, "serve", "--portal-only", "--port", str(port)]
    child = Popen(words, stdout=PIPE, stderr=PIPE, preexec_fn=_hears)
    with httpx.Client(transport=httpx.HTTPTransport(retries=10), timeout=120) as client:  # it listens before it serves
        client.get(f"http://127.0.0.1:{port}/healthz")
    return child


def ended_by(child: Popen[bytes], number: signal.Signals) -> int:
    """Its exit code. Once more after a second: it counts from when the first was heard, late on a busy machine."""
    for _ in range(20):
        child.send_signal(number)
        with suppress(TimeoutExpired):
            return child.wait(timeout=3)
    raise AssertionError("it is not stopped")


@pytest.mark.parametrize(
    ("program", "number"),
    [
        (STUCK, signal.SIGINT),
        (STUCK, signal.SIGTERM),
        (STUCK, signal.SIGHUP),
        (IN_A_FLOW, signal.SIGTERM),
        (STUCK_AT_THE_END, signal.SIGINT),
    ],
)
def test_a_second_stop_ends_what_the_first_could_not(desk: Desk, program: str, number: signal.Signals) -> None:
    child = started(program, b"stuck")
    child.send_signal(number)
    time.sleep(1.2)
    assert child.poll() is None, "or it was not stuck"
    assert ended_by(child, number) == 130
    assert child.stderr is not None
    assert child.stderr.read() == b"Stopped at once. `bgbatch status` shows what is done.\n"


def test_a_second_stop_ends_it_also_when_its_window_is_gone(desk: Desk) -> None:
    child = started(STUCK, b"stuck")
    assert child.stderr is not None
    child.stderr.close()
    child.send_signal(signal.SIGHUP)
    time.sleep(1.2)
    assert ended_by(child, signal.SIGTERM) == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_who_is_stopped_once_ends_in_good_order(desk: Desk, number: signal.Signals) -> None:
    child = started(WAITS, b"waits")
    child.send_signal(number)
    printed, said = child.communicate(timeout=60)
    assert (child.returncode, printed) == (130, b", and tidied up")
    assert said.startswith(b"Stopped. What is done stays done")


def test_who_closes_the_window_while_a_bar_is_shown_ends_it_in_good_order(desk: Desk, tmp_path: Path) -> None:
    """The end of it is to be seen in a file: it has no terminal any more."""
    pid, window = pty.fork()
    if pid == 0:
        _hears()
        os.execv(sys.executable, [sys.executable, "-c", SHOWS_A_BAR, "status", str(tmp_path / "tidied up")])
    seen = b""
    while b"Removing" not in seen:
        seen += os.read(window, 1024)
    os.close(window)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    assert (tmp_path / "tidied up").exists()


def test_a_stop_while_the_commands_are_put_together_is_told_in_a_word(desk: Desk) -> None:
    child = started(BEGINS, b"begins")
    child.send_signal(signal.SIGTERM)
    _, said = child.communicate(timeout=60)
    assert (child.returncode, said) == (130, b"Stopped.\n")


def test_a_stop_that_comes_while_something_is_thrown_away_is_heard(desk: Desk) -> None:
    child = started(THROWS_AWAY, b"waits")
    _, said = child.communicate(timeout=60)
    assert (child.returncode, said.count(b"\n")) == (130, 1), said


def test_a_stop_of_which_a_library_makes_another_exception_is_told_as_a_stop(desk: Desk) -> None:
    child = started(IN_PYDANTIC, b"")
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130, said
    assert said.startswith(b"Stopped. What is done stays done")
    assert said.count(b"\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_that_comes_when_all_is_done_breaks_nothing_off(desk: Desk, number: signal.Signals) -> None:
    child = started(ENDS, b"ends")
    child.send_signal(number)
    printed, said = child.communicate(timeout=60)
    assert (child.returncode, printed, said) == (0, b", in good order", b"")


def test_a_portal_that_is_stopped_twice_at_once_ends_without_a_trace(desk: Desk) -> None:
    child = portal_that_answers()
    for _ in range(2):
        child.send_signal(signal.SIGINT)
        time.sleep(0.02)  # uvicorn looks ten times a second
    _, said = child.communicate(timeout=60)
    assert child.returncode in (0, -signal.SIGINT)  # that of a second one at the very end, where nobody hears it
    assert said.count(b"\n") == 2, said


def test_a_portal_whose_window_is_closed_ends_as_by_sigterm(desk: Desk) -> None:
    child = portal_that_answers()
    child.send_signal(signal.SIGHUP)
    _, said = child.communicate(timeout=60)
    assert (child.returncode, said.count(b"\n")) == (0, 2), said

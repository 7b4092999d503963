"""Prefect's server where none is configured: in the process that needs it, for as long as that lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from flows import engine
from store.settings import Settings
from tests.flows.test_serve import processes_of

_RUNS_A_FLOW = """
import os, sys
from pathlib import Path
from flows import engine
from store.settings import Settings

engine.prepare(Settings())
from prefect import flow
from prefect.settings import PREFECT_API_URL

@flow
def two():
    return 2

engine.start()
address = PREFECT_API_URL.value()
engine.start()
print(two(), address, PREFECT_API_URL.value() == address, "PREFECT_API_URL" in os.environ, flush=True)
if "wait" in sys.argv:
    sys.stdin.read()
"""

_STARTS_SIX_AT_ONCE = """
import os
from flows import engine
from schemas.errors import EngineFault
from store.settings import Settings

engine.prepare(Settings())
import prefect.server.api.server

def started():
    try:
        engine.start()
    except EngineFault:
        return 1
    return 0

children = []
for _ in range(6):
    child = os.fork()
    if child == 0:
        os._exit(started())
    children.append(child)
print([os.waitpid(each, 0)[1] for each in children])
"""

_STARTS_BESIDE_SERVE = """
import os, threading
from flows import engine
from portal.cli.children import Children, keep_prefect
from schemas.clock import system_clock
from store.settings import Settings

engine.prepare(Settings())
child = os.fork()
if child == 0:
    engine.start()
    os._exit(0)
ending, states = threading.Event(), []
children = Children(ending, system_clock, states)
keep_prefect(children, ending)
print(os.waitpid(child, 0)[1], [state.restarts for state in states])
ending.set()
children.join()
"""


def start(home: Path, *words: str) -> subprocess.Popen[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return subprocess.Popen(
        [sys.executable, "-c", _RUNS_A_FLOW, *words],
        # On a read-only file system, as a container's is, nothing can be written beside Prefect itself either.
        env=env | {"BGBATCH_HOME": str(home), "PREFECT_SERVER_UI_STATIC_DIRECTORY": "/dev/null/pages"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def is_there(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health", trust_env=False, timeout=60).is_success
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_server_is_no_process_of_its_own_and_is_gone_with_the_one_that_needs_it(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = start(tmp_path / "home", "wait")
    assert process.stdout is not None
    given, address, is_same, is_told_to_programs = process.stdout.readline().split()
    assert (given, is_same, is_told_to_programs) == ("2", "True", "False")
    assert is_there(address)
    assert len(processes_of(tmp_path / "home")) == 1
    process.send_signal(number)
    process.communicate(timeout=300)
    assert not is_there(address)


def test_a_process_that_ran_a_flow_ends_by_itself_and_in_silence(tmp_path: Path) -> None:
    said = start(tmp_path / "home").communicate(timeout=300)
    assert said[0].startswith("2 http://127.0.0.1:")
    assert said[1] == ""
    assert (tmp_path / "home/prefect/prefect.db").exists()


def test_commands_that_are_the_first_in_a_home_at_once_all_have_their_server(tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    words = [sys.executable, "-c", _STARTS_SIX_AT_ONCE]
    done = subprocess.run(words, env=env | {"BGBATCH_HOME": str(tmp_path / "home")}, capture_output=True, text=True)
    assert done.stdout == "[0, 0, 0, 0, 0, 0]\n", done.stderr


def test_a_command_beside_serve_that_is_the_first_in_a_home_has_its_server(tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    words = [sys.executable, "-c", _STARTS_BESIDE_SERVE]
    done = subprocess.run(words, env=env | {"BGBATCH_HOME": str(tmp_path / "home")}, capture_output=True, text=True)
    assert done.stdout == "0 [0]\n", done.stderr


def test_a_command_that_stands_still_while_its_server_starts_keeps_no_other_waiting_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after Ctrl-Z. A cleanup purges what is due in any case."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.setattr(engine, "_STARTS_WITHIN", 0.1)

    def start_alone() -> None:
        with engine.alone():
            pass

    with ThreadPoolExecutor(1) as another, engine.alone():
        another.submit(start_alone).result(60)


def test_a_home_that_cannot_hold_its_records_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "home/prefect/prefect.db").mkdir(parents=True)
    _, said = start(tmp_path / "home").communicate(timeout=300)
    assert "EngineFault: Prefect's server did not start. Look whether `prefect` under BGBATCH_HOME can be" in said
    assert "OperationalError" not in said


def test_a_home_that_a_command_makes_is_nobody_elses(tmp_path: Path) -> None:
    """Names, addresses of people and secrets of webhooks lie below it, whatever the umask says."""
    words = [sys.executable, "-c", "from portal.cli.app import main; main()", "account", "list"]
    subprocess.run(words, env=os.environ | {"BGBATCH_HOME": str(tmp_path / "home")}, umask=0o022, check=True)
    assert (tmp_path / "home/records.db").exists()
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("home", ["/dev/null/home", None])
def test_what_is_kept_for_a_user_without_a_home_is_kept_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str | None
) -> None:
    """A system's user has /nonexistent, and a container's perhaps none. Code that is root's keeps nothing compiled."""
    monkeypatch.setattr(os, "environ", {"HOME": home} if home is not None else {})
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}["nobody"])
    engine.prepare(Settings(home=tmp_path / "home", ray_address="head:6379"))
    assert os.environ.keys().isdisjoint({"NUMBA_CACHE_DIR", "RAY_AUTH_TOKEN"}), "these files are ours, the token theirs"
    monkeypatch.setattr(engine, "__file__", "/dev/null/flows/engine.py")
    engine.prepare(Settings(home=tmp_path / "home"))
    assert os.environ["NUMBA_CACHE_DIR"] == str(tmp_path / "home/compiled/numba")
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64

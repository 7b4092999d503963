from __future__ import annotations

import ast
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from schemas.batch import PROMISED_LIFE
from store.purging.engine_history import forget_runs
from store.purging.file_search import files_with
from store.purging.places import places, places_page
from store.purging.ray_sessions import dead_sessions, sweep_sessions
from store.settings import Settings
from store.transient.transient_store import open_transient
from tests.store.conftest import NOON

ROOT = Path(__file__).parents[3]
PACKAGES = ("schemas", "store", "consent", "lake", "workers", "flows", "portal")
_WRITING_METHODS = {
    *("write_bytes", "write_text", "pipe_file", "pipe", "put_object", "upload_part", "savez", "to_csv", "tofile"),
    *("mkstemp", "mkdtemp", "NamedTemporaryFile", "TemporaryFile", "TemporaryDirectory", "SpooledTemporaryFile"),
    *("copyfile", "copytree", "copyfileobj", "write_table", "ParquetWriter", "write_dataset", "imwrite", "save_file"),
    *("create_engine", "FileHandler", "RotatingFileHandler", "dump", "memmap", "SharedMemory"),
}
_IN_MEMORY = {"json.dump", "pickle.dump", "os.pipe"}


def test_whatever_writes_is_among_the_places(tmp_path: Path) -> None:
    """A new writer must say where it writes, for how long, who erases it and who looks."""
    known = {writer for place in places(Settings(home=tmp_path)) for writer in place.writers}
    writers = {module for module, tree in _modules() if _writes(tree)}
    unknown = {each for each in writers if not any(f"{each}.".startswith(f"{writer}.") for writer in known)}
    assert unknown == set(), "add these to store/purging/places.py"


def test_a_writer_would_be_noticed() -> None:
    for line in (
        "open(path, 'wb')",
        "open(path, mode='a')",
        "path.open('w')",
        "Path('x').write_bytes(b'')",
        "tempfile.mkdtemp()",
        "os.open(path, os.O_CREAT)",
    ):
        assert _writes(ast.parse(line)), line
    for line in ("open(path)", "path.open('rb')", "store.read(key)"):
        assert not _writes(ast.parse(line)), line


def test_the_page_says_what_the_registry_says() -> None:
    assert (ROOT / "docs/places.md").read_text() == places_page(Settings())


def test_no_place_for_photos_keeps_them_past_the_promise(tmp_path: Path) -> None:
    for place in places(Settings(home=tmp_path)):
        assert place.eraser
        assert place.verifier
        if "photos" in place.may_hold and place.name not in ("lake", "the customer's own disk"):
            assert place.retention is not None
            assert place.retention <= PROMISED_LIFE


def test_sessions_of_dead_processes_are_dead() -> None:
    names = ["session_2026-11-24_20-15-57_123456_100", "session_2026-11-24_20-15-57_123456_200", "session_latest"]
    assert dead_sessions(names, {100}, []) == [names[1]]
    assert dead_sessions(names, {100}, [f"raylet --session-dir=/tmp/ray/{names[1]}"]) == []


def test_what_a_killed_ray_left_is_swept_and_what_lives_stays(tmp_path: Path) -> None:
    dead = tmp_path / f"session_2026-11-24_20-15-57_123456_{2**22}"  # Linux gives smaller numbers only
    alive = tmp_path / f"session_2026-11-24_20-15-57_123456_{os.getpid()}"
    for folder in (dead, alive):
        (folder / "spill").mkdir(parents=True)
        (folder / "spill/object").write_bytes(b"pixels")
    (tmp_path / "session_latest").symlink_to(dead)
    assert sweep_sessions(tmp_path) == 1
    assert alive.exists()
    assert not dead.exists()
    assert sweep_sessions(tmp_path / "nowhere") == 0


def test_a_session_whose_beginner_has_gone_lives_while_a_process_works_for_it(tmp_path: Path) -> None:
    session = tmp_path / f"session_2026-11-24_20-15-57_123456_{2**22}"
    session.mkdir()
    raylet = (sys.executable, "-c", "import sys; sys.stdin.read()", f"--session-dir={session}")
    with subprocess.Popen(raylet, stdin=subprocess.PIPE) as working:
        assert sweep_sessions(tmp_path) == 0
        working.communicate()
    assert sweep_sessions(tmp_path) == 1


def test_old_runs_are_forgotten_and_young_ones_kept(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "prefect.db")
    database.execute("CREATE TABLE flow_run (updated TIMESTAMP)")
    database.execute("CREATE TABLE log (timestamp TIMESTAMP)")
    for table, column in (("flow_run", "updated"), ("log", "timestamp")):
        for day in ("2026-11-10 10:00:00.000000", "2026-11-24 10:00:00.000000"):
            database.execute(f"INSERT INTO {table} ({column}) VALUES (?)", (day,))
    database.commit()
    assert forget_runs(tmp_path, NOON - timedelta(days=7)) == 2
    assert database.execute("SELECT updated FROM flow_run").fetchall() == [("2026-11-24 10:00:00.000000",)]
    assert forget_runs(tmp_path / "nowhere", NOON) == 0


def test_of_what_is_forgotten_no_byte_stays_while_prefect_keeps_its_database_open(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "prefect.db")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE log (timestamp TIMESTAMP, message TEXT)")
    database.execute("INSERT INTO log VALUES ('2026-11-10 10:00:00.000000', 'marker')")
    database.commit()
    assert len(list(files_with([b"marker"], [tmp_path]))) == 1
    assert forget_runs(tmp_path, NOON - timedelta(days=7)) == 1
    assert list(files_with([b"marker"], [tmp_path])) == []
    database.close()


CRASHES = """
import os
from store.no_core_dumps import forbid_core_dumps
forbid_core_dumps()
os.abort()
"""


def test_who_opens_the_transient_store_writes_no_core_dump(tmp_path: Path) -> None:
    """A limit of 0 stops none that the machine sends to a program."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    open_transient(Settings(home=tmp_path), lambda: NOON)
    assert resource.getrlimit(resource.RLIMIT_CORE) == ((0, 0) if most == 0 else (1, 1))
    (tmp_path / "here").mkdir()
    crashed = subprocess.run([sys.executable, "-c", CRASHES], cwd=tmp_path / "here", check=False)
    assert crashed.returncode == -signal.SIGABRT
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.parametrize("size", [0, (1 << 22) - 10])
def test_bytes_are_found_wherever_they_lie(tmp_path: Path, size: int) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/file").write_bytes(b"x" * size + b"marker" + b"y" * 100)
    (tmp_path / "a marker.txt").write_bytes(b"")
    (tmp_path / "other").write_bytes(b"mark er")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "again").symlink_to(tmp_path)
    found = sorted(path.name for path in files_with([b"marker"], [tmp_path]))
    assert found == ["a marker.txt", "file"], "each once: no link is followed"
    assert list(files_with([b"marker"], [tmp_path], [tmp_path / "deep"])) == [tmp_path / "a marker.txt"]


def _modules() -> list[tuple[str, ast.Module]]:
    found = []
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            if ".migrations" not in module:
                found.append((module, ast.parse(path.read_text())))
    return found


def _writes(tree: ast.AST) -> bool:
    return any(isinstance(node, ast.Call) and _is_a_write(node) for node in ast.walk(tree))


def _is_a_write(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if ast.unparse(call.func) in _IN_MEMORY:
        return False
    if name in _WRITING_METHODS:
        return True
    if name != "open":
        return False
    said = [*call.args, *(each.value for each in call.keywords if each.arg in ("mode", "flags"))]
    modes = [each.value for each in said if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    return any(set(mode) <= set("rwaxbt+") and set(mode) & set("wax+") for mode in modes) or "O_CREAT" in ast.unparse(
        call
    )

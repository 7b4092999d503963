"""After the purge nothing of a batch is anywhere on the machine, read byte by byte while Ray and Prefect are alive."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from PIL import Image

from flows.parts import Parts, open_parts
from schemas.clock import system_clock
from schemas.industries import Industry
from store.purging.engine_history import forget_runs
from store.purging.places import places
from store.records.batches import get_batch, hasten
from store.records.people import find_account
from store.transient.transient_store import batch_prefix
from tests.flows.conftest import Place
from tests.flows.test_command_line import Shell
from tests.records import at_home

MARKER = os.urandom(16).hex()
NAME = f"VIN-{os.urandom(12).hex()}"
PIXELS = os.urandom(64 * 64 * 3)
BLOCK = PIXELS[: 64 * 3]
"""A row of the photo as it lies in memory."""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect_server: str) -> Iterator[Shell]:
    """A machine with Prefect's server, and folders of its own for Ray and for temporary files."""
    short = Path(tempfile.mkdtemp(prefix="bgbf-", dir="/tmp"))  # Ray's sockets allow no long paths
    (tmp_path / "tmp").mkdir()
    for name, value in {
        "RAY_TMPDIR": str(short),
        "TMPDIR": str(tmp_path / "tmp"),
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_URL": prefect_server,
        "BGBATCH_HOME": str(tmp_path / "home"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    shell = Shell(tmp_path / "home")
    shell.env |= {"BGBATCH_ACTORS": "1"}
    yield shell
    shutil.rmtree(short, ignore_errors=True)


def test_nothing_of_a_batch_is_left_anywhere(machine: Shell, tmp_path: Path) -> None:
    machine.run("account", "create", "Acme", "--email", "owner@acme.example")
    parts = open_parts(at_home(machine.home, actors=1), system_clock)
    with parts.records.transaction() as connection:
        account_id = find_account(connection, "Acme").account_id
    sent = Place(parts, account_id, tmp_path / "customer").send({f"{NAME}.tif": photo()}, Industry.AUTOMOTIVE)
    shutil.rmtree(tmp_path / "customer")
    worker = machine.start("work")
    try:
        wait_until_ended(parts, sent.batch_id, worker)
        before = hits(parts)
        assert {needle for needle, _ in before} == {MARKER, NAME, "pixels"}, "else the search would prove nothing"
        assert {place for _, place in before} == {"transient store"}
        planted = plant(parts)
        assert {place for _, place in hits(parts)} == {"transient store", *planted}
        for path in planted.values():
            path.unlink()

        with parts.records.transaction() as connection:
            hasten(connection, sent.batch_id, parts.clock())
        machine.run("cleanup")
        forget_runs(Path(os.environ["PREFECT_HOME"]), datetime.now(UTC) + timedelta(minutes=1))
        assert worker.poll() is None, "Ray and Prefect are at work still"
        assert hits(parts) == set()
        with parts.records.transaction() as connection:
            assert get_batch(connection, sent.batch_id).purged_at is not None
        assert next(iter(parts.transient.objects.walk(batch_prefix(sent.batch_id))), None) is None
    finally:
        worker.terminate()
        worker.wait(timeout=300)
        parts.records.engine.dispose()


def photo() -> bytes:
    """An uncompressed TIFF: its pixels stand in the file as they stand in memory."""
    file = io.BytesIO()
    Image.frombytes("RGB", (64, 64), PIXELS).save(file, "TIFF", description=MARKER)
    return file.getvalue()


def wait_until_ended(parts: Parts, batch_id: str, worker: subprocess.Popen[bytes]) -> None:
    for _ in range(2400):
        with parts.records.reading() as connection:
            if get_batch(connection, batch_id).state.has_ended:
                return
        assert worker.poll() is None, "the worker has ended"
        time.sleep(0.25)
    pytest.fail("the batch did not end")


def hits(parts: Parts) -> set[tuple[str, str]]:
    """What was found (marker, name or pixels) and in which of `store.purging.places`."""
    needles = {MARKER: MARKER.encode(), NAME: NAME.encode(), "pixels": BLOCK}
    found = set()
    listed = places(parts.settings)
    for place in listed:
        others = [folder for other in listed if other is not place for folder in other.folders]
        for path in files_of(place.folders, others):
            text = os.fsencode(path.name) + b"\0" + read(path)
            found |= {(name, place.name) for name, needle in needles.items() if needle in text}
    return found


def files_of(folders: Sequence[Path], but_not: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        if folder.is_file():
            yield folder
        for top, below, names in os.walk(folder):
            below[:] = [name for name in below if Path(top, name) not in but_not]
            yield from (Path(top, name) for name in names)


def read(path: Path) -> bytes:
    """All of a regular file, without the holes of a sparse one (shared memory is mostly that)."""
    if not path.is_file() or path.is_symlink():
        return b""
    pieces, at = [], 0
    try:
        with path.open("rb", buffering=0) as file:
            while True:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
                end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
                pieces.append(os.pread(file.fileno(), end - at, at))
                at = end
    except OSError:  # no data after here; or the file has gone meanwhile, or is not ours to read
        return b"".join(pieces)


def plant(parts: Parts) -> dict[str, Path]:
    """A leak in each place where an engine could make one: name of the place -> file."""
    by_name = {place.name: place for place in places(parts.settings)}
    (ray,) = by_name["Ray sessions, spill folders and worker logs"].folders
    session = next(each for each in ray.glob("session_2*") if each.is_dir())
    planted = {
        "Ray sessions, spill folders and worker logs": session / "logs" / "spilled.bin",
        "plasma (shared memory)": Path("/dev/shm", f"bgbatch-{NAME}"),
        "Prefect's database, results and logs": Path(os.environ["PREFECT_HOME"], "storage.bin"),
        "web server logs and temporary files": Path(tempfile.gettempdir(), "upload.bin"),
        "lake": Path(parts.settings.lake_root, "left.bin"),
    }
    for path in planted.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 100_000 + BLOCK)
    return planted

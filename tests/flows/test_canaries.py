"""Canaries: what is left of one after its deadline is found wherever it lies, at every cleanup, until it is gone."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.canary import look_for_canaries, send_canary
from flows.cleaning import cleaning
from flows.parts import Parts, open_parts
from lake.admission import admit
from lake.write import LakeFile
from schemas.ids import BatchId, GrantId
from schemas.industries import Industry
from store.purging import canary, file_search
from store.purging.cleanup import clean_up
from store.purging.health import read_health
from store.purging.places import SHARED_MEMORY
from store.transient.transient_store import source_key
from tests.records import at_home

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


@dataclass
class Mine:
    """One machine, its clock, and a canary that was sent at noon."""

    parts: Parts
    clock: list[datetime]
    batch_id: BatchId
    sent: bytes

    def a_day_later(self) -> None:
        self.clock[0] = NOON + timedelta(hours=24)
        assert clean_up(cleaning(self.parts)).faults == []
        self.clock[0] += timedelta(minutes=10)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mine]:
    for name in ("tmp", "ray", "prefect"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    clock = [NOON]
    parts = open_parts(at_home(tmp_path / "home"), lambda: clock[0])
    batch_id = send_canary(parts, os.urandom)
    yield Mine(parts, clock, batch_id, parts.transient.read(source_key(batch_id, 1)))
    parts.records.engine.dispose()


def test_nothing_is_found_of_a_canary_that_was_purged_and_every_cleanup_of_an_hour_looks_for_it(mine: Mine) -> None:
    assert look_for_canaries(mine.parts) == {}, "its time has not come"
    mine.a_day_later()
    for _ in range(2):
        assert look_for_canaries(mine.parts) == {mine.batch_id: []}
    mine.clock[0] += timedelta(hours=1)
    assert look_for_canaries(mine.parts) == {}


def test_what_one_container_finds_on_itself_no_others_look_clears(
    mine: Mine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "prefect" / "left.bin"
    copy.write_bytes(mine.sent)
    mine.a_day_later()
    monkeypatch.setattr(socket, "gethostname", lambda: "cleanup-1")
    assert len(look_for_canaries(mine.parts)[mine.batch_id]) == 1
    copy.unlink()
    monkeypatch.setattr(socket, "gethostname", lambda: "upkeep-1")
    assert look_for_canaries(mine.parts) == {mine.batch_id: []}
    assert read_health(mine.parts.transient.objects, mine.parts.records, mine.clock[0]).canaries_found == 1
    monkeypatch.setattr(socket, "gethostname", lambda: "cleanup-1")
    assert look_for_canaries(mine.parts) == {mine.batch_id: []}
    assert read_health(mine.parts.transient.objects, mine.parts.records, mine.clock[0]).canaries_found == 0


@pytest.mark.parametrize("where", ["tmp", "ray", "prefect", "home/lake-suppressions"])
@pytest.mark.parametrize("what", ["file", "pixels", "name"])
def test_a_copy_is_found_at_every_look_until_it_is_gone(mine: Mine, tmp_path: Path, where: str, what: str) -> None:
    leaked = {
        "file": mine.sent,
        "pixels": b"some cache " + canary.pixel_block(mine.batch_id) + b" of rows",
        "name": b"took " + canary.photo(mine.batch_id)[0].encode(),
    }[what]
    copy = tmp_path / where / "deeper" / "left.bin"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(leaked)
    mine.a_day_later()
    for _ in range(2):
        (found,) = look_for_canaries(mine.parts).values()
        assert len(found) == 1
    copy.unlink()
    assert look_for_canaries(mine.parts) == {mine.batch_id: []}
    mine.clock[0] += timedelta(hours=1)
    assert look_for_canaries(mine.parts) == {}


def test_what_has_not_changed_since_a_canary_was_sent_is_not_read(mine: Mine, tmp_path: Path) -> None:
    """A look through all that others keep in the folder for temporary files held up the next cleanup."""
    mine.clock[0] = datetime.now(UTC) + timedelta(hours=2)  # by then whatever is here lies untouched for long
    sent = send_canary(mine.parts, os.urandom)
    for name in ("tmp/left.bin", f"tmp/{canary.marker(sent).decode()}"):
        (tmp_path / name).write_bytes(canary.pixel_block(sent))
    mine.clock[0] += timedelta(hours=24)
    assert clean_up(cleaning(mine.parts)).faults == []
    (found,) = look_for_canaries(mine.parts)[sent]
    assert found.startswith("web server logs and temporary files"), "by its name"
    (tmp_path / f"tmp/{canary.marker(sent).decode()}").unlink()
    assert look_for_canaries(mine.parts) == {sent: []}


def test_shared_memory_is_read_though_it_seems_unchanged(mine: Mine) -> None:
    """What is written there through a mapping leaves no time behind."""
    mine.clock[0] = datetime.now(UTC) + timedelta(hours=2)
    sent = send_canary(mine.parts, os.urandom)
    mine.clock[0] += timedelta(hours=24)
    assert clean_up(cleaning(mine.parts)).faults == []
    with tempfile.NamedTemporaryFile(dir=SHARED_MEMORY) as left:
        left.write(canary.pixel_block(sent))
        left.flush()
        (found,) = look_for_canaries(mine.parts)[sent]
    assert found.startswith("plasma")


def test_a_canary_that_no_cleanup_purged_is_found_in_the_store(mine: Mine) -> None:
    mine.clock[0] = NOON + timedelta(hours=24)
    assert look_for_canaries(mine.parts)[mine.batch_id][0] == "transient store"


def test_a_canary_that_came_into_the_lake_is_found_there(mine: Mine) -> None:
    mine.parts.lake.write(f"industry=automotive/grant=none/{mine.batch_id}-000001.parquet", b"rows")
    mine.a_day_later()
    assert look_for_canaries(mine.parts) == {mine.batch_id: ["lake"]}


def test_a_canary_whose_file_was_merged_with_others_in_the_lake_is_found_there(mine: Mine) -> None:
    key = f"industry=automotive/grant=some/{mine.batch_id}-000001.parquet"
    file = LakeFile(
        key=key,
        rows=1,
        bytes=4,
        sha256="0" * 64,
        batch_id=mine.batch_id,
        grant_id=GrantId("g" + "0" * 32),
        industry=Industry.AUTOMOTIVE,
        items=(1,),
    )
    mine.parts.lake.write(key, b"rows")
    with mine.parts.records.transaction() as connection:
        admit(connection, file, NOON, mine.parts.lake)
    mine.parts.lake.delete([key])
    mine.a_day_later()
    assert look_for_canaries(mine.parts) == {mine.batch_id: ["lake"]}


def test_looking_for_a_canary_reads_nothing_that_may_live(mine: Mine, monkeypatch: pytest.MonkeyPatch) -> None:
    mine.clock[0] = NOON + timedelta(hours=20)
    send_canary(mine.parts, os.urandom)  # lives at the time of the look
    mine.parts.lake.write("industry=automotive/grant=some/merged.parquet", b"rows")
    mine.a_day_later()
    looked_at, opened = [], file_search._holds
    monkeypatch.setattr(file_search, "_holds", lambda path, *how: looked_at.append(path) or opened(path, *how))
    assert look_for_canaries(mine.parts) == {mine.batch_id: []}
    home = mine.parts.settings.home
    assert home / "records.db" in looked_at
    assert not [
        each for each in looked_at if each.is_relative_to(home / "transient") or each.is_relative_to(home / "lake")
    ]

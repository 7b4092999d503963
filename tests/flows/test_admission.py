"""What a worker that was taken over by a photo writes and says puts nobody's photo into the lake."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select, update

from flows import steps
from flows.parts import Parts, open_parts
from lake.layout import Place
from lake.write import LakeFile, write_candidates
from schemas.errors import StoreFault
from schemas.ids import BatchId
from schemas.industries import Industry
from schemas.results import ShardReport
from store.settings import Settings
from store.tables import admissions, batches
from store.transient import manifest_key
from tests.batches import lay_out, send_folder
from tests.consent.conftest import NOON, Owner, new_owner
from tests.lake.conftest import a_photo
from tests.promise.world import StandInCutter
from workers.shard import process_shard

AUTO, STUDIO = Industry.AUTOMOTIVE, Industry.STUDIO


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    parts = open_parts(Settings(home=tmp_path / "home"), lambda: NOON)
    yield parts
    parts.records.engine.dispose()


def send(parts: Parts, owner: Owner, folder: Path) -> BatchId:
    photos = lay_out(folder, {"1.jpg": a_photo(1, (16, 16)), "2.jpg": a_photo(2, (16, 16))})
    return send_folder(parts, owner.account_id, photos, AUTO).batch_id


def process(parts: Parts, batch_id: BatchId, said: Callable[[LakeFile], LakeFile] = lambda file: file) -> list[str]:
    """The reasons why nothing went into the lake. `said`: what the worker says of a file that it wrote."""

    def run(batch_id, shards, clock, keep, stop) -> Iterator[ShardReport]:  # type: ignore[no-untyped-def]
        manifest = parts.transient.manifest(batch_id)
        for shard in shards:
            yield process_shard(parts.transient, StandInCutter(), manifest, shard, clock)  # type: ignore[arg-type]

    def write(portions, admitted_at) -> Iterator[LakeFile]:  # type: ignore[no-untyped-def]
        for portion in portions:
            yield said(write_candidates(parts.lake, parts.transient, portion, admitted_at))

    steps.cut(parts, batch_id, steps.plan(parts, batch_id), run)
    return sorted(steps.admit(parts, batch_id, write).refusals)


def admitted(parts: Parts) -> list[tuple[str, str]]:
    with parts.records.reading() as connection:
        return [tuple(row) for row in connection.execute(select(admissions.c.batch_id, admissions.c.grant_id))]  # type: ignore[misc]


def test_a_manifest_that_names_anothers_permission_puts_nothing_into_the_lake(parts: Parts, tmp_path: Path) -> None:
    generous, private = new_owner(parts.records), new_owner(parts.records, "Private")
    (grant,) = generous.press(AUTO)
    batch_id = send(parts, private, tmp_path / "photos")
    manifest = parts.transient.manifest(batch_id)
    forged = manifest.stamp.model_copy(update={"grant_id": grant.grant_id})
    text = manifest.model_copy(update={"stamp": forged, "items": tuple(manifest.items)}).model_dump_json()
    parts.transient.objects.write(manifest_key(batch_id), text.encode())
    assert process(parts, batch_id) == ["no_grant"]
    assert admitted(parts) == []
    assert list(parts.lake.walk("")) == []


def test_a_permission_of_another_account_is_none(parts: Parts, tmp_path: Path) -> None:
    generous, private = new_owner(parts.records), new_owner(parts.records, "Private")
    (grant,) = generous.press(AUTO)
    private.press(AUTO)
    batch_id = send(parts, private, tmp_path / "photos")
    with parts.records.transaction() as connection:
        connection.execute(update(batches).values(grant_id=grant.grant_id))
    assert process(parts, batch_id) == ["unknown_grant"]
    assert admitted(parts) == []


@pytest.mark.parametrize("wrong", ["grant", "industry", "key", "batch"])
def test_a_file_that_a_worker_wrote_for_another_permission_is_not_admitted(
    parts: Parts, tmp_path: Path, wrong: str
) -> None:
    owner, other = new_owner(parts.records), new_owner(parts.records, "Other")
    (grant,), (theirs,) = owner.press(AUTO), other.press(AUTO)
    batch_id, another = (send(parts, owner, tmp_path / name) for name in ("one", "two"))
    name = "x" * 12

    def said(file: LakeFile) -> LakeFile:
        place = {
            "grant": Place(AUTO, theirs.grant_id),
            "industry": Place(STUDIO, grant.grant_id),
            "key": Place(AUTO, grant.grant_id),
            "batch": Place(AUTO, grant.grant_id),
        }[wrong]
        moved = replace(file, industry=place.industry, grant_id=place.grant_id, key=f"{place.prefix}/{name}.parquet")
        if wrong == "key":
            moved = replace(moved, key=f"{Place(AUTO, theirs.grant_id).prefix}/{name}.parquet")
        if wrong == "batch":
            moved = replace(moved, batch_id=another)
        parts.lake.write(moved.key, parts.lake.read(file.key))
        return moved

    with pytest.raises(StoreFault, match="another permission"):
        process(parts, batch_id, said)
    assert admitted(parts) == []

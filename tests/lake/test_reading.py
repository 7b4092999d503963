"""Whoever reads finds the live rows: pyarrow, DuckDB, Polars, Ray Data, Hugging Face datasets, fastparquet."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import fastparquet
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lake.audit import audit
from lake.reading import Lake
from lake.stats import look_at, weekly
from schemas.candidate import IMAGE_COLUMNS, LABELS, READ
from schemas.industries import Industry
from store.settings import Settings
from tests.lake.conftest import AUTO, World, a_photo, build_world
from tests.store.ceph import KEY, SECRET
from tests.store.conftest import ceph_bucket

README = Path(__file__).parents[2] / "README.md"
VERSIONS = sorted((Path(__file__).parent / "versions").glob("*.parquet"))


@pytest.fixture
def filled(world: World) -> World:
    """Two live customers with three rows each, one who withdrew, one of another industry."""
    return fill(world)


@pytest.fixture(params=["folder", "s3"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The same, also on S3, with the variables that docs/lake.md names for whoever opens the files by itself."""
    url, server = ("", Settings()) if request.param == "folder" else ceph_bucket()
    if url:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.s3_endpoint)
    at = {name: getattr(server, name) for name in ("s3_endpoint", "s3_key", "s3_secret")}
    world = build_world(tmp_path, url, **at)
    yield fill(world)
    world.records.engine.dispose()


def fill(world: World) -> World:
    for _ in range(2):
        world.give(world.grant(), 3)
    ended = world.grant()
    world.give(ended)
    world.give(world.grant(Industry.STUDIO))
    world.withdraw(ended)
    return world


def test_a_dataset_holds_live_rows_with_their_industry_and_grant(filled: World) -> None:
    table = filled.reader().dataset(AUTO).to_table()
    assert table.num_rows == 6
    assert set(table["grant"].to_pylist()) == set(filled.live()) - {_studio(filled)}
    assert set(table["industry"].to_pylist()) == {"automotive"}
    images = table["image"].to_pylist()
    assert [hashlib.sha256(each).hexdigest() for each in images] == table["image_sha256"].to_pylist()
    assert filled.reader().dataset().to_table().num_rows == 8


def test_a_dataset_of_nothing_is_empty(world: World) -> None:
    assert world.reader().dataset(AUTO).to_table().num_rows == 0
    assert world.reader().labels(AUTO).num_rows == 0


def test_labels_say_where_each_row_lies(filled: World) -> None:
    reader = filled.reader()
    for row in reader.labels(AUTO, ("candidate_id",)).to_pylist():
        there = reader.open(row["file"]).read(["candidate_id"])["candidate_id"][row["row"]].as_py()
        assert there == row["candidate_id"]
        assert row["grant_id"] in row["file"]


def test_a_withdrawn_candidate_is_out_of_reach_before_it_is_gone(filled: World) -> None:
    reader = filled.reader()
    (file, *_) = reader.snapshot(AUTO).files
    filled.withdraw(filled.grants[file.grant_id])
    assert file.grant_id not in {each.grant_id for each in reader.snapshot(AUTO).files}
    assert file.grant_id not in set(reader.labels(AUTO)["grant_id"].to_pylist())
    assert file.grant_id not in set(reader.dataset(AUTO).to_table()["grant"].to_pylist())
    assert filled.lake.exists(file.key)


def test_the_state_of_the_lake_names_its_content(filled: World) -> None:
    before = filled.reader().snapshot(AUTO).state
    assert filled.reader().snapshot(AUTO).state == before
    filled.give(filled.grant())
    assert filled.reader().snapshot(AUTO).state != before


def as_the_readme_says(lake: Lake, begins: str, **given: object) -> Any:
    """What the line of the README that begins so gives."""
    (line,) = (each for each in README.read_text().splitlines() if each.startswith(begins))
    return eval(line, {"lake": lake, **given})  # our own words


def test_pyarrow_and_torch_read_as_the_readme_says(filled: World) -> None:
    assert as_the_readme_says(filled.reader(), "lake.dataset(").count_rows() == 6
    assert len(list(as_the_readme_says(filled.reader(), "lake.torch_dataset("))) == 6


def test_duckdb_reads_the_files(filled: World) -> None:
    assert as_the_readme_says(filled.reader(), "duckdb.", duckdb=duckdb).fetchall() == [(pytest.approx(0.2),)]
    paths = filled.reader().paths("automotive")
    counted = duckdb.sql(
        f'SELECT "grant", count(*), avg(edge_uncertainty) FROM read_parquet({paths}, hive_partitioning = true) '
        "WHERE width >= 40 GROUP BY ALL"
    ).fetchall()
    assert {grant: count for grant, count, _ in counted} == {
        each: 3 for each in filled.live() if each != _studio(filled)
    }


def test_polars_reads_the_files(anywhere: World) -> None:
    assert as_the_readme_says(anywhere.reader(), "polars.", polars=pl).collect().height == 6
    paths = anywhere.reader().paths("automotive")
    hardest = pl.scan_parquet(paths, hive_partitioning=True).sort("edge_uncertainty", descending=True).head(2).collect()
    assert hardest["edge_uncertainty"].to_list() == pytest.approx([0.3, 0.3])
    assert hardest["industry"].to_list() == ["automotive"] * 2


def test_hugging_face_streams_the_files(anywhere: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    rows = list(as_the_readme_says(anywhere.reader(), "datasets.", datasets=datasets))
    assert {row["candidate_id"] for row in rows} == _ids(anywhere)


def test_ray_data_reads_the_files(anywhere: World, tmp_path: Path) -> None:
    import ray

    from workers.placement import connect

    started = not ray.is_initialized()
    if started:
        connect(Settings(home=tmp_path), cpus=2)  # on the loopback address alone
    try:
        rows = as_the_readme_says(anywhere.reader(), "ray.data.", ray=ray).select_columns(["candidate_id"]).take_all()
    finally:
        if started:
            ray.shutdown()
    assert {row["candidate_id"] for row in rows} == _ids(anywhere)


@pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.stem)
def test_a_file_of_every_version_is_readable_beside_new_ones(world: World, version: Path) -> None:
    new = world.give(world.grant())
    data = version.read_bytes()
    (batch_id,) = set(pq.read_table(version)["batch_id"].to_pylist())
    old = replace(new, key=f"{new.key[:-20]}ffffff.parquet", items=(98, 99), batch_id=batch_id)
    world.lake.write(old.key, data)
    world.admit(replace(old, bytes=len(data), sha256=hashlib.sha256(data).hexdigest()))
    table = world.reader().dataset(AUTO).to_table()
    assert table.num_rows == 4
    assert {int(version.stem)} <= set(table["schema_version"].to_pylist())
    assert audit(world.reader()).faults == []
    as_they_come = world.reader().paths(AUTO)
    for paths in (as_they_come, as_they_come[::-1]):
        query = f"SELECT count(image) FROM read_parquet({paths}, union_by_name = true, hive_partitioning = true)"
        assert duckdb.sql(query).fetchall() == [(4,)]
        scan = pl.scan_parquet(paths, hive_partitioning=True, missing_columns="insert", extra_columns="ignore")
        assert scan.select("candidate_id", "grant").collect().height == 4


def test_there_is_a_kept_file_of_every_version() -> None:
    from schemas.candidate import SCHEMA_VERSION

    assert [path.stem for path in VERSIONS] == [str(number) for number in range(1, SCHEMA_VERSION + 1)]
    newest = pq.read_schema(VERSIONS[-1])
    assert newest.names == READ.names, "the columns changed: raise SCHEMA_VERSION, and keep a file of the new version"


def test_labels_are_a_hundredth_of_a_file_of_real_photos(world: World) -> None:
    """What a scan of labels reads: the footer, and the light columns' pages."""
    sink = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (480, 640, 3), np.uint8)).save(sink, "JPEG", quality=95)
    photo = sink.getvalue()
    assert len(photo) > 300_000
    file = world.write(world.batch(world.grant(), [photo] * 40))
    reader = world.reader().open(file.key)
    metadata = reader.metadata
    light = sum(
        metadata.row_group(group).column(column).total_compressed_size
        for group in range(metadata.num_row_groups)
        for column in range(len(LABELS))
    )
    assert metadata.num_row_groups == 2
    assert (light + metadata.serialized_size) / file.bytes < 0.01
    for column in range(len(LABELS), len(READ)):
        heavy = metadata.row_group(0).column(column)
        assert heavy.path_in_schema in IMAGE_COLUMNS
        assert (heavy.compression, heavy.statistics) == ("UNCOMPRESSED", None)


def test_small_images_share_a_row_group_so_that_labels_are_read_at_once(world: World) -> None:
    file = world.write(world.batch(world.grant(), [a_photo(1)] * 40))
    reader = world.reader().open(file.key)
    assert (reader.num_row_groups, len(reader.values(0, "image"))) == (1, 40)


def test_the_audit_agrees(filled: World) -> None:
    found = audit(filled.reader(), AUTO)
    assert (found.files, found.rows, found.faults) == (2, 6, [])


def test_the_audit_finds_a_file_that_was_changed(filled: World) -> None:
    (file, *_) = filled.reader().snapshot(AUTO).files
    table = pq.read_table(pa.BufferReader(filled.lake.read(file.key)))
    sink = pa.BufferOutputStream()
    pq.write_table(table.slice(0, 2), sink)
    filled.lake.write(file.key, sink.getvalue().to_pybytes())
    assert [key for key, _ in audit(filled.reader(), AUTO).faults] == [file.key] * 2


def test_the_audit_finds_an_image_that_does_not_fit_its_hash(filled: World) -> None:
    (file, *_) = filled.reader().snapshot(AUTO).files
    data = bytearray(filled.lake.read(file.key))
    image = pq.read_table(pa.BufferReader(bytes(data)))["image"][0].as_py()
    place = bytes(data).index(image) + len(image) // 2
    data[place] ^= 1
    filled.lake.write(file.key, bytes(data))
    faults = {fault for _, fault in audit(filled.reader(), AUTO).faults}
    assert "pyarrow reads an image that does not fit its hash" in faults
    assert "fastparquet reads an image that does not fit its hash" in faults


def test_the_audit_finds_what_is_missing_torn_or_twice(filled: World) -> None:
    first, second = filled.reader().snapshot(AUTO).files
    filled.lake.delete([first.key])
    filled.lake.write(second.key, filled.lake.read(second.key)[:-10])
    assert dict(audit(filled.reader(), AUTO).faults).keys() == {first.key, second.key}


def test_both_readers_of_the_audit_read_every_type_alike(filled: World) -> None:
    (path, *_) = filled.reader().paths(AUTO)
    first, second = pq.read_table(path), fastparquet.ParquetFile(path).to_pandas()
    for name in READ.names:
        ours = first[name].to_pylist()
        theirs = list(second[name])
        if pa.types.is_timestamp(READ.field(name).type):
            theirs = [each.tz_localize("UTC").to_pydatetime() for each in theirs]
        assert ours == theirs, name


def test_stats_count_by_industry_and_week(filled: World) -> None:
    lines = weekly(filled.reader())
    assert [(each.industry, each.week, each.grants, each.images) for each in lines] == [
        ("automotive", "2026-W48", 2, 6),
        ("studio", "2026-W48", 1, 2),
    ]
    assert lines[0].megapixels == pytest.approx(48 * 32 / 1e6)


def test_stats_show_a_few_candidates(filled: World) -> None:
    shown = look_at(filled.reader(), AUTO, 4, 100)
    assert len(shown) == 4
    for caption, photo, cutout in shown:
        assert caption.startswith("automotive  48 x 32  edges")
        assert photo.startswith(b"\x89PNG")
        assert cutout.startswith(b"\x89PNG")


def _studio(world: World) -> str:
    return next(each.grant_id for each in world.grants.values() if each.industry is Industry.STUDIO)


def _ids(world: World) -> set[str]:
    return set(world.reader().labels(AUTO)["candidate_id"].to_pylist())

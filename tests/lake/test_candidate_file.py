"""Images are taken as slices of their file, and are the same that pyarrow reads, however the file was laid out."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.candidate_file import CandidateFile, _slices
from lake.compact import compact
from tests.lake.conftest import AUTO, World

VALUES = [bytes([number]) * size for number, size in enumerate((0, 1, 3, 70_000, 5, 200_000, 0))]


def written(values: list[bytes | None], nullable: bool = False, **options: object) -> CandidateFile:
    schema = pa.schema([pa.field("image", pa.binary(), nullable=nullable)])
    sink = io.BytesIO()
    layout = {"compression": "none", "use_dictionary": False, "write_statistics": False, **options}
    pq.write_table(pa.table({"image": values}, schema), sink, **layout)
    return CandidateFile(pa.BufferReader(sink.getvalue()))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"write_page_checksum": True},
        {"data_page_size": 1, "write_batch_size": 2},
        {"write_statistics": True},
        {"use_dictionary": True},
        {"compression": "zstd"},
        {"data_page_version": "2.0"},
        {"nullable": True},
        {"use_dictionary": False, "column_encoding": {"image": "DELTA_LENGTH_BYTE_ARRAY"}},
    ],
)
def test_values_are_those_that_pyarrow_reads(options: dict[str, object]) -> None:
    assert [bytes(each) for each in written(list(VALUES), **options).values(0, "image")] == VALUES


def test_the_lake_writes_so_that_nothing_is_copied(world: World) -> None:
    file = world.give(world.grant(), 3)
    path = f"{world.lake.storage.root}/{file.key}"  # type: ignore[attr-defined]
    mapped = pa.memory_map(path)
    start = mapped.read_buffer().address
    for name in ("image", "mask_png"):
        for each in CandidateFile(mapped).values(0, name):
            assert start <= each.address < start + Path(path).stat().st_size


@given(st.binary(max_size=60))
def test_what_is_no_page_is_left_to_pyarrow(chunk: bytes) -> None:
    assert _slices(pa.py_buffer(chunk), 10_000) is None


def test_every_live_image_comes_once_with_its_mask(world: World) -> None:
    for _ in range(2):
        grant = world.grant()
        world.give(grant)
        world.give(grant)
    compact(world.reader(), lambda connection, grant_id: True, world.clock, world.random.randbytes, least_files=2)
    world.withdraw(world.grants[world.live()[0]])
    table = world.reader().dataset(AUTO).to_table().sort_by("candidate_id")
    expected = list(zip(*(table[name].to_pylist() for name in ("candidate_id", "image", "mask_png")), strict=True))
    found = sorted((id_, bytes(image), bytes(mask)) for id_, image, mask in world.reader().images(AUTO))
    assert found == expected
    assert len(found) == 4


def test_who_withdraws_while_images_are_read_is_left_out_from_then_on(world: World) -> None:
    for _ in range(2):
        world.give(world.grant(), 1)
    images = world.reader().images(AUTO)
    first = next(images)
    for grant in list(world.grants.values()):
        world.withdraw(grant)
    assert [*images] == []
    assert len(bytes(first.image)) > 0

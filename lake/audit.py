"""The audit: two readers that share no code read every file, and must agree with each other and with the records.

pyarrow wrote the files, so it alone would be a poor witness; fastparquet is the second. Counts, grants, candidates and
the hash of every image are compared; of each batch a file holds as many rows as were admitted, merged or not.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import fastparquet
import pyarrow as pa
import pyarrow.parquet as pq

from lake.admission import AdmittedFile, admitted_rows, current
from lake.layout import place_of
from lake.reading import Lake
from schemas.errors import NotFound
from schemas.ids import BatchId
from schemas.industries import Industry

_COMPARED = ("candidate_id", "batch_id", "image_sha256", "schema_version")


@dataclass
class Audit:
    """What was read. `faults`: a file's key and what is wrong with it."""

    files: int = 0
    rows: int = 0
    bytes: int = 0
    faults: list[tuple[str, str]] = field(default_factory=list)


def audit(
    lake: Lake, industry: Industry | None = None, on_file: Callable[[int, int], None] = lambda done, of: None
) -> Audit:
    """Read every live file with both readers. Raises `StoreFault`."""
    report = Audit()
    seen: dict[str, str] = {}
    files = lake.snapshot(industry).files
    for place, file in enumerate(files, start=1):
        try:
            data = lake.objects.read(file.key)
        except NotFound:
            if file in lake.snapshot(file.industry).files:  # not merged or taken back meanwhile
                report.faults.append((file.key, "it was admitted, but is not there"))
            continue
        report.files, report.bytes = report.files + 1, report.bytes + len(data)
        try:
            candidates, faults = _read_twice(file, data, _admitted(lake, file))
        except Exception as error:  # noqa: BLE001 - each reader has errors of its own, and all of them are a finding
            candidates, faults = [], [f"a reader failed on it ({type(error).__name__})"]
        report.rows += len(candidates)
        twice = [each for each in candidates if seen.setdefault(each, file.key) != file.key]
        if twice or len(set(candidates)) != len(candidates):
            faults.append("it holds a candidate that is also elsewhere")
        report.faults += [(file.key, fault) for fault in faults]
        on_file(place, len(files))
    return report


def _admitted(lake: Lake, file: AdmittedFile) -> dict[BatchId, int] | None:
    """How many rows of which batch it must hold; None for one that was merged or taken back meanwhile."""
    with lake.records.reading() as connection:
        rows = admitted_rows(connection, file.key)
        return rows if current(connection, [file.key]) else None


def _read_twice(file: AdmittedFile, data: bytes, admitted: Mapping[BatchId, int] | None) -> tuple[list[str], list[str]]:
    first = pq.read_table(pa.BufferReader(data))
    second = fastparquet.ParquetFile(file.key, open_with=lambda path, mode="rb": io.BytesIO(data)).to_pandas()
    return first["candidate_id"].to_pylist(), list(_disagreements(file, data, first, second, admitted))


def _disagreements(
    file: AdmittedFile, data: bytes, first: pa.Table, second: object, admitted: Mapping[BatchId, int] | None
) -> Iterator[str]:
    if hashlib.sha256(data).hexdigest() != file.sha256 or len(data) != file.bytes:
        yield "its bytes are not those that were admitted"
    place = place_of(file.key)
    if place is None or (place.grant_id, place.industry) != (file.grant_id, file.industry):
        yield "its path names another grant than its admission"
    if not first.num_rows == len(second) == file.rows:  # type: ignore[arg-type]
        yield "the readers and the records count differently"
        return
    if admitted is not None and Counter(first["batch_id"].to_pylist()) != admitted:
        yield "its rows are not those of the batches that were admitted"
    for name in _COMPARED:
        if first[name].to_pylist() != list(second[name]):  # type: ignore[index]
            yield f"the readers disagree on {name}"
    said = first["image_sha256"].to_pylist()
    if [hashlib.sha256(each.as_buffer()).hexdigest() for each in first["image"]] != said:
        yield "pyarrow reads an image that does not fit its hash"
    if [hashlib.sha256(each).hexdigest() for each in second["image"]] != said:  # type: ignore[index]
        yield "fastparquet reads an image that does not fit its hash"

"""A row of the lake, as an Arrow schema.

The account is nowhere in it: the grant is all that leads back, through the ledger.

Types are those that pyarrow writes and fastparquet, DuckDB, Polars, Spark and Ray Data read the same:
hashes as hex text, times as timestamp(us, UTC), labels as dictionaries. Images come last, so that a scan of labels
skips them.
"""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = 2
"""1: the first. 2: `phash` and the scores `pieces`, `cut_by_frame`, `sharpness`, `exposure`; absent from older rows."""

LICENCE = (
    "The customer keeps exclusive ownership of this image. It may be used to improve background-removal models only, "
    "and only while the grant in this row is live."
)

_LABEL = pa.dictionary(pa.int32(), pa.string())
_TIME = pa.timestamp("us", tz="UTC")

CANDIDATE = pa.schema(
    [
        pa.field("candidate_id", pa.string(), nullable=False),
        pa.field("batch_id", pa.string(), nullable=False),
        pa.field("item", pa.int32(), nullable=False),
        pa.field("received_at", _TIME, nullable=False),
        pa.field("admitted_at", _TIME, nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("network", _LABEL, nullable=False),
        pa.field("weights_sha256", _LABEL, nullable=False),
        pa.field("device", _LABEL, nullable=False),
        pa.field("coverage", pa.float32(), nullable=False),
        pa.field("edge_uncertainty", pa.float32(), nullable=False),
        pa.field("pieces", pa.float32()),
        pa.field("cut_by_frame", pa.float32()),
        pa.field("sharpness", pa.float32()),
        pa.field("exposure", pa.float32()),
        pa.field("image_sha256", pa.string(), nullable=False),
        pa.field("phash", pa.string()),
        pa.field("licence", _LABEL, nullable=False),
        pa.field("schema_version", pa.int32(), nullable=False),
        pa.field("mask_png", pa.binary(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
    ]
)
"""Columns of one file. `industry` and `grant` stand in the path (`industry=<tag>/grant=<id>/`) and join on reading.

`mask_png`: 8-bit gray PNG of `width` x `height`; 0 is background, 255 subject. `image`: the source file, upright or
with its orientation tag; `width` and `height` are those of the upright image. `phash`: 64 bits in hex of how the
upright image looks; few bits differ between two that look alike. Scores: see `schemas.results.Scores`.

A column that may be null came with a later version. Nothing else may change: no column goes, moves to another type or
gets another meaning, so that files of all versions are read together.
"""

IMAGE_COLUMNS = ("mask_png", "image")
"""The heavy columns: written uncompressed (they are compressed already), without statistics."""

LABELS = tuple(name for name in CANDIDATE.names if name not in IMAGE_COLUMNS)
"""The light columns."""


def _plain(field: pa.Field) -> pa.Field:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    return pa.field(field.name, kind, field.nullable)


READ = pa.schema([_plain(field) for field in CANDIDATE])
"""How readers see a file of any version: dictionaries are a matter of the file, columns that it lacks are null."""

"""A row of the lake, as an Arrow schema.

The account is nowhere in it: the grant is all that leads back, through the ledger.

Types are those that pyarrow writes and fastparquet, DuckDB, Polars, Spark and Ray Data read the same:
hashes as hex text, times as timestamp(us, UTC), labels as dictionaries. Images come last, so that a scan of labels
skips them.
"""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = 1

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
        pa.field("image_sha256", pa.string(), nullable=False),
        pa.field("licence", _LABEL, nullable=False),
        pa.field("schema_version", pa.int32(), nullable=False),
        pa.field("mask_png", pa.binary(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
    ]
)
"""Columns of one file. `industry` and `grant` stand in the path (`industry=<tag>/grant=<id>/`) and join on reading.

`mask_png`: 8-bit gray PNG of `width` x `height`; 0 is background, 255 subject. `image`: the source file, upright or
with its orientation tag; `width` and `height` are those of the upright image.
"""

IMAGE_COLUMNS = ("mask_png", "image")
"""The heavy columns: written uncompressed (they are compressed already), without statistics."""

"""A candidate file's bytes: one whole Parquet object, the same bytes for the same rows.

Labels come first and compressed, images last and as they are, so that a scan of labels reads next to nothing and a
look at one image reads its row group only.
"""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.candidate import IMAGE_COLUMNS

ROW_GROUP_ROWS = 32
"""At least, of photos: one image's read fetches 6 MB instead of 59, and a scan of labels stays small (measured)."""

ROW_GROUP_BYTES = 8 * 1024 * 1024
"""Small images are put together until they are so many bytes: each group costs a scan of labels 0.07 ms (measured)."""
_MOST_ROWS = 4096


def to_parquet(table: pa.Table) -> bytes:
    """The file of `table`, whose columns are those of `schemas.candidate.CANDIDATE` in their order."""
    sink = io.BytesIO()
    labels = [name for name in table.column_names if name not in IMAGE_COLUMNS]
    dictionaries = [name for name in labels if pa.types.is_dictionary(table.schema.field(name).type)]
    with pq.ParquetWriter(
        sink,
        table.schema,
        version="2.6",
        compression={name: "none" if name in IMAGE_COLUMNS else "zstd" for name in table.column_names},
        use_dictionary=dictionaries,
        write_statistics=labels,
        write_page_checksum=True,
        store_schema=False,  # readers know the schema; Arrow's copy of it would be half of a small file's footer
    ) as writer:
        rows = _rows_of_a_group(table)
        for start in range(0, table.num_rows, rows):
            writer.write_table(table.slice(start, rows), row_group_size=rows)
        if table.schema.metadata:  # which went with Arrow's copy
            writer.add_key_value_metadata(table.schema.metadata)
    return sink.getvalue()


def _rows_of_a_group(table: pa.Table) -> int:
    """The same for all groups of a file (its last may be smaller): readers count on it, as on both sizes above."""
    row_bytes: int = max(table.nbytes // max(table.num_rows, 1), 1)
    return min(max(ROW_GROUP_BYTES // row_bytes, ROW_GROUP_ROWS), _MOST_ROWS)

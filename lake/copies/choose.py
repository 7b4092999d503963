"""Which candidates a pull takes, into which split each goes, and in what portions. Pure: labels in, parts out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lake.copies.manifest import USUAL, Part, Shares, Source, Split, Summary
from lake.layout import Place
from lake.query import Query, as_filter
from lake.reading import FILE
from schemas.ids import GrantId
from schemas.industries import Industry

PART_ROWS = 1000
PART_BYTES = 128 * 1024 * 1024
"""Of images: a part is made in memory."""

HARDEST_FIRST = [("edge_uncertainty", "descending"), ("candidate_id", "ascending")]
_PLOTTED = ("edge_uncertainty", "coverage", "sharpness", "exposure", "cut_by_frame")
_BINS = 10


class _Row(NamedTuple):
    """A candidate, the lake's file that it is in, and of which others it is a duplicate."""

    key: str
    candidate: str
    duplicate_of: str | None
    near_duplicate_of: str | None


def split_of(grant_id: GrantId, shares: Shares = USUAL) -> Split:
    """It depends on the grant and the shares alone, so none moves to another split in a later pull of these shares."""
    drawn = int(hashlib.sha256(f"split/{grant_id}".encode()).hexdigest()[:8], 16) / 2**32 * sum(shares)
    ends = zip(accumulate(shares), Split, strict=True)
    return next(split for end, split in ends if drawn < end)


def choose(labels: pa.Table, query: Query) -> pa.Table:
    """The rows that `query` asks for; `labels` carry the marks of duplicates. Raises `BadQuery`.

    A limit takes the hardest, or else a sample that is the same each time and leans to no customer.
    """
    keep = as_filter(query.where)
    if keep is not None:
        labels = labels.filter(keep)
    if query.leave_out is not None:
        labels = labels.filter(pc.is_null(labels[f"{'near_' if query.leave_out == 'near' else ''}duplicate_of"]))
    if query.hardest_first:
        labels = labels.sort_by(HARDEST_FIRST)
    if query.limit is not None and query.limit < labels.num_rows:
        if not query.hardest_first:
            drawn = [hashlib.sha256(each.encode()).digest() for each in labels["candidate_id"].to_pylist()]
            labels = labels.take(pa.array(np.argsort(np.array(drawn))))
        labels = labels.slice(0, query.limit)
    return labels


def cut(
    chosen: pa.Table, row_bytes: Mapping[str, float], hardest_first: bool = False, shares: Shares = USUAL
) -> list[Part]:
    """Portions of one grant each. `row_bytes`: a file's bytes per row. From portion to portion the order of `chosen` is
    kept when the hardest are to come first, and is that of the lake's files otherwise.
    """
    chosen = chosen.set_column(chosen.column_names.index(FILE), FILE, chosen[FILE].cast(pa.string()))
    if not hardest_first:
        chosen = chosen.sort_by([(FILE, "ascending"), ("candidate_id", "ascending")])
    columns = ("industry", "grant_id", FILE, "candidate_id", "duplicate_of", "near_duplicate_of")
    by_grant: dict[tuple[str, str], list[_Row]] = {}
    for industry, grant_id, *row in zip(*(chosen[name].to_pylist() for name in columns), strict=True):
        by_grant.setdefault((industry, grant_id), []).append(_Row(*row))
    return [
        _part(Place(Industry(industry), GrantId(grant_id)), split_of(GrantId(grant_id), shares), number, some)
        for (industry, grant_id), rows in sorted(by_grant.items())
        for number, some in enumerate(_portions(rows, row_bytes))
    ]


def summarise(chosen: pa.Table) -> Summary:
    """What the card shows."""
    plots = {name: _histogram(chosen[name]) for name in _PLOTTED}
    pixels = pc.divide(pc.multiply(chosen["width"].cast(pa.float64()), chosen["height"].cast(pa.float64())), 1e6)
    plots["megapixels"] = _histogram(pixels)
    weeks = pc.strftime(chosen["received_at"], format="%G-W%V").value_counts()
    plots["week"] = tuple(sorted((each["values"].as_py(), each["counts"].as_py()) for each in weeks))
    return Summary(
        plots={name: bars for name, bars in plots.items() if bars},
        duplicates=chosen.num_rows - chosen["duplicate_of"].null_count,
        near_duplicates=chosen.num_rows - chosen["near_duplicate_of"].null_count,
        networks=tuple(sorted(set(chosen["network"].to_pylist()))),
    )


def _portions(rows: list[_Row], row_bytes: Mapping[str, float]) -> Iterator[list[_Row]]:
    some: list[_Row] = []
    size = 0.0
    for row in rows:
        weight = row_bytes.get(row.key, 0.0)
        if some and (len(some) >= PART_ROWS or size + weight > PART_BYTES):
            yield some
            some, size = [], 0.0
        some.append(row)
        size += weight
    yield some


def _part(place: Place, split: Split, number: int, rows: list[_Row]) -> Part:
    sources: dict[str, list[str]] = {}
    for row in rows:
        sources.setdefault(row.key, []).append(row.candidate)
    return Part(
        name=f"{place.grant_id}-{number:05d}",
        split=split,
        industry=place.industry,
        grant_id=place.grant_id,
        sources=tuple(Source(key=key, candidates=tuple(some)) for key, some in sources.items()),
        duplicate_of={row.candidate: row.duplicate_of for row in rows if row.duplicate_of is not None},
        near_duplicate_of={row.candidate: row.near_duplicate_of for row in rows if row.near_duplicate_of is not None},
    )


def _histogram(column: pa.ChunkedArray) -> tuple[tuple[str, int], ...]:
    values = column.drop_null().to_numpy()
    if not len(values):
        return ()
    counts, edges = np.histogram(values, _BINS)
    return tuple((f"{low:.3g} to {high:.3g}", int(n)) for low, high, n in zip(edges, edges[1:], counts, strict=False))

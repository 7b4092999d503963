"""Marks candidates of one grant that are the same image, or look the same. Pure; nothing is lost by a mark.

The first to be received is the original, the others point to it. Marks are made when labels are read, so they hold
over all files of the grant, merged or not. Two grants are never compared.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

NEAR_BITS = 4
"""Of 64: recompressed and scaled copies differ by 0 to 4, other photos by far more (see docs/lake.md)."""

_Hashes = npt.NDArray[np.uint64]
_Places = npt.NDArray[np.int64]
_FEW = 256
"""So many are compared with each other without looking for a better way."""
_MOST = 16_384
"""With so many others at most is a hash compared, on average: hashes may be crafted so that no way is a better one."""


def mark_duplicates(labels: pa.Table) -> pa.Table:
    """`labels` with the columns `duplicate_of` and `near_duplicate_of`: a candidate id, or null for an original.

    Needs the columns candidate_id, grant_id, received_at, image_sha256 and phash. The order of rows stays.
    """
    place = pa.array(np.arange(labels.num_rows))
    grant_ids = labels["grant_id"].cast(pa.string())
    ordered = labels.select(["received_at", "candidate_id"]).append_column("grant_id", grant_ids)
    ordered = ordered.append_column("place", place)
    order = ordered.sort_by([("grant_id", "ascending"), ("received_at", "ascending"), ("candidate_id", "ascending")])
    order_np = order["place"].to_numpy()
    grants = _codes(grant_ids)[order_np]
    same = _first_of(grants, _codes(labels["image_sha256"])[order_np])
    near = _near(grants, labels["phash"].combine_chunks().take(pa.array(order_np)))
    near = np.where(same != np.arange(len(same)), same, near)
    ids = labels["candidate_id"].combine_chunks().take(pa.array(order_np))
    back = np.empty_like(order_np)
    back[order_np] = np.arange(len(order_np))
    for name, original in (("duplicate_of", same), ("near_duplicate_of", near)):
        is_original = original == np.arange(len(original))
        column = pc.if_else(pa.array(is_original), pa.scalar(None, pa.string()), ids.take(pa.array(original)))
        labels = labels.append_column(name, column.take(pa.array(back)))
    return labels


def _codes(column: pa.ChunkedArray) -> _Places:
    return np.asarray(column.combine_chunks().dictionary_encode().indices.to_numpy(), np.int64)


def _first_of(grants: _Places, values: _Places) -> _Places:
    """For each place the first place of the same grant and value."""
    if not len(grants):
        return np.arange(0)
    key = grants * (values.max() + 1) + values
    _, first, which = np.unique(key, return_index=True, return_inverse=True)
    return np.asarray(first[which], np.int64)


def _near(grants: _Places, phash: pa.Array) -> _Places:
    """For each place the first place of the same grant whose hash is near its own."""
    result = np.arange(len(grants))
    if not len(grants):
        return result
    known = np.asarray(phash.is_valid().to_numpy(zero_copy_only=False))
    text = phash.drop_null().to_pylist()
    hashes = np.zeros(len(grants), np.uint64)
    hashes[known] = np.array([int(each, 16) for each in text], np.uint64)
    starts = np.flatnonzero(np.diff(grants, prepend=-1))
    for start, end in zip(starts, np.append(starts[1:], len(grants)), strict=True):
        inside = start + np.flatnonzero(known[start:end])
        unique, first, which = np.unique(hashes[inside], return_index=True, return_inverse=True)
        nearest = _nearest_first(unique, first)
        result[inside] = inside[nearest[which]]
    return result


def _nearest_first(unique: _Hashes, first: _Places) -> _Places:
    """For each hash the smallest `first` among those within `NEAR_BITS`, its own included.

    Where more than `_MOST` agree in so many bits that no band tells them apart, it is looked for among the first.
    """
    best = first.copy()
    if len(unique):
        _search(unique, first, best, np.arange(len(unique)))
    return best


def _search(unique: _Hashes, first: _Places, best: _Places, places: _Places) -> None:
    """Compare these hashes with each other, as far as they can be near.

    Of one more than `NEAR_BITS` bands of the bits that vary among them, two that are near share one: so only what
    shares a band is compared, and that in the same way.
    """
    hashes = unique[places]
    varying = int(np.bitwise_or.reduce(hashes ^ hashes[0]))
    if varying.bit_count() <= NEAR_BITS:
        best[places] = np.minimum(best[places], first[places].min())
        return
    if len(places) > _FEW:
        groups = [group for mask in _bands(varying) for group in _sharing(hashes & mask)]
        if 2 * sum(_comparisons(len(group)) for group in groups) < _comparisons(len(places)):
            for group in groups:
                _search(unique, first, best, places[group])
            return
    others = places if len(places) <= _MOST else places[np.argsort(first[places])[:_MOST]]
    for some in np.array_split(places, -(-len(places) // _FEW)):
        _compare(unique, first, best, some, others)


def _comparisons(count: int) -> int:
    """What it takes to compare so many hashes without looking for a better way."""
    return count * min(count, _MOST)


def _compare(unique: _Hashes, first: _Places, best: _Places, some: _Places, others: _Places) -> None:
    distance = np.bitwise_count(unique[some][:, None] ^ unique[others][None, :])
    firsts = np.where(distance <= NEAR_BITS, first[others][None, :], np.iinfo(np.int64).max)
    best[some] = np.minimum(best[some], firsts.min(axis=1))


def _bands(varying: int) -> list[np.uint64]:
    bits = [bit for bit in range(64) if varying >> bit & 1]
    return [np.uint64(sum(1 << bit for bit in bits[band :: NEAR_BITS + 1])) for band in range(NEAR_BITS + 1)]


def _sharing(keys: _Hashes) -> list[_Places]:
    """The places of each key that is there more than once."""
    order = np.argsort(keys, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(keys[order])) + 1)
    return [group for group in groups if len(group) > 1]

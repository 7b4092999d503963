"""Which items still need work, and in what portions. Pure: results go in, shards come out."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from schemas.errors import ItemError, OutOfMemory, SourceMissing, WorkerLost
from schemas.results import Done, Failed

Shard = tuple[int, ...]
"""Item numbers of one call to an actor, in order."""

OUR_CODES = frozenset(each.code for each in (WorkerLost, OutOfMemory, ItemError, SourceMissing))
"""Failures that may not happen again: whoever runs a batch again means these, too.

A background that cannot be used is none: mostly it stays so, and each turn of a large batch would cut it in vain.
"""


def plan_shards(
    items: Collection[int],
    results: Mapping[int, Done | Failed],
    shard_items: int,
    again: Collection[str] = OUR_CODES,
) -> list[Shard]:
    """Cut what is not done into shards of at most `shard_items`, in order.

    Not done: no result yet, or a failure whose code is in `again`.
    """
    todo = [number for number in sorted(items) if _is_open(results.get(number), again)]
    return [tuple(todo[start : start + shard_items]) for start in range(0, len(todo), shard_items)]


def after_loss(shard: Shard, losses: int) -> list[Shard]:
    """What to do with a shard whose worker died for the `losses`-th time: again, then item by item, then give up.

    Its first loss may be another's fault, after it a shard is alone with its worker. An item that kills two workers
    while it is alone there is lost; its neighbours are not.
    """
    if len(shard) > 1:
        return [shard] if losses < 2 else [(number,) for number in shard]
    return [shard] if losses < 3 else []


def _is_open(result: Done | Failed | None, again: Collection[str]) -> bool:
    return result is None or (isinstance(result, Failed) and result.code in again)

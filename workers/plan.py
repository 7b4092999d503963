"""Which items still need work, and in what portions. Pure: failures go in, shards come out."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from schemas.errors import ItemError, OutOfMemory, SourceMissing, WorkerLost
from schemas.results import Failed

Shard = tuple[int, ...]
"""Item numbers of one call to an actor, in order."""

OUR_CODES = frozenset(each.code for each in (WorkerLost, OutOfMemory, ItemError, SourceMissing))
"""Failures that may not happen again: whoever runs a batch again means these, too.

A background that cannot be used is none: mostly it stays so, and each turn of a large batch would cut it in vain.
"""


def plan_shards(
    left: Collection[int], failed: Mapping[int, Failed], shard_items: int, again: Collection[str]
) -> list[Shard]:
    """Cut items without a cutout into shards of at most `shard_items`, in order. `again`: codes of failures to try."""
    todo = [number for number in sorted(left) if number not in failed or failed[number].code in again]
    return [tuple(todo[start : start + shard_items]) for start in range(0, len(todo), shard_items)]


def after_loss(shard: Shard, losses: int) -> list[Shard]:
    """What to do with a shard whose worker died for the `losses`-th time: again, then item by item, then give up.

    Its first loss may be another's fault, after it a shard is alone with its worker. An item that kills two workers
    while it is alone there is lost; its neighbours are not.
    """
    if len(shard) > 1:
        return [shard] if losses < 2 else [(number,) for number in shard]
    return [shard] if losses < 3 else []

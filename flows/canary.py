"""Canaries: a batch of our own every hour, sent like any other, and looked for everywhere after its deadline."""

from __future__ import annotations

import os
import socket
from datetime import timedelta

from flows.parts import Parts
from flows.receive import seal, stamp_batch
from schemas.batch import Item
from schemas.ids import BatchId, Randomness
from schemas.options import CutoutOptions
from store.purging import canary
from store.purging.places import places
from store.transient.transient_store import source_key

AFTER = timedelta(minutes=30)
"""A canary is looked for so long after its purge time: two cleanups have been there."""


def send_canary(parts: Parts, randomness: Randomness = os.urandom) -> BatchId:
    """Submit one. It has no industry, so nothing could ever take it into the lake. Raises `IntakeStopped`."""
    with parts.records.transaction() as connection:
        canary.ensure_account(connection, parts.clock())
    stamp = stamp_batch(parts, canary.ACCOUNT, None, CutoutOptions(), randomness)
    name, data = canary.photo(stamp.batch_id)
    with parts.records.transaction() as connection:
        canary.remember(connection, stamp.batch_id, stamp.purge_at)
    parts.transient.write(stamp, source_key(stamp.batch_id, 1), data)
    seal(parts, stamp, [Item(number=1, path=name, size=len(data))])
    return stamp.batch_id


def look_for_canaries(parts: Parts) -> dict[BatchId, list[str]]:
    """Look for those whose deadline passed, in every place of `store.purging.places` that this machine sees.

    Records and returns where each was found.
    """
    with parts.records.reading() as connection:
        wanted = canary.to_look_for(connection, parts.clock(), AFTER)
        admitted = canary.admitted(connection, wanted)
    if not wanted:
        return {}
    machine = socket.gethostname()
    found = canary.look(wanted, parts.transient.objects, parts.lake, places(parts.settings), machine)
    for batch_id in admitted:
        if "lake" not in found[batch_id]:
            found[batch_id].append("lake")
    with parts.records.transaction() as connection:
        canary.note_look(connection, found, machine, parts.clock())
    return found

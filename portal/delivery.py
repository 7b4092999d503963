"""Handing cutouts over: each under its photo's relative path, each name once."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from schemas.ids import BatchId
from schemas.naming import delivery_paths
from schemas.results import Done, results_by_number
from store.transient import TransientStore, cutout_key


def deliver(transient: TransientStore, batch_id: BatchId, to: Path, on_item: Callable[[], None]) -> int:
    """Write all cutouts of a batch below `to`; returns how many. Raises `BatchNotSealed`, `StoreFault`.

    A file appears whole under its name or not at all, so an interrupted download can be run again.
    """
    manifest = transient.manifest(batch_id)
    suffix = manifest.stamp.options.format.suffix
    paths = delivery_paths(manifest.items, suffix)
    results = results_by_number(transient.reports(batch_id))
    done = [number for number, result in sorted(results.items()) if isinstance(result, Done)]
    for number in done:
        target = to / paths[number]
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        partial.write_bytes(transient.read(cutout_key(batch_id, number, suffix)))
        os.replace(partial, target)
        on_item()
    return len(done)

"""How fast a purge deletes, beside a bare bulk delete on the same server; and whether what lives costs anything.

`python -m bench.purge` starts its own Ceph gateway and writes its section of bench/RESULTS.md.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

from bench.results import write_section
from schemas.ids import new_batch_id
from store.objects import ObjectStore
from store.purge import Purge
from store.records import Records, open_records
from store.s3 import S3
from store.settings import Settings
from store.transient import source_key
from tests.store.conftest import ceph_bucket, open_store

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
DAY = timedelta(hours=23)


def fill(store: ObjectStore, batches: int, items: int, hours_ago: float, seed: int) -> list[str]:
    """Write `batches` of `items` objects that were received so long ago. Returns their keys."""
    randomness = Random(seed).randbytes
    received = NOW - timedelta(hours=hours_ago)
    keys = []
    for _ in range(batches):
        batch_id = new_batch_id(received, randomness)
        keys += [source_key(batch_id, number) for number in range(1, items + 1)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: store.write(key, b"x"), keys))
    return keys


def bare(store: ObjectStore, keys: list[str]) -> float:
    """Seconds for nothing but `delete_objects`, a thousand keys a request, as many at once as the purge uses."""
    s3 = store.storage
    assert isinstance(s3, S3)
    chunks = [keys[start : start + 1000] for start in range(0, len(keys), 1000)]

    def delete(chunk: list[str]) -> None:
        named = [{"Key": f"transient/{key}"} for key in chunk]
        s3.call("delete_objects", Delete={"Objects": named, "Quiet": True})

    started = time.perf_counter()
    with ThreadPoolExecutor(s3.AT_ONCE) as pool:
        list(pool.map(delete, chunks))
    return time.perf_counter() - started


def purged(store: ObjectStore, records: Records) -> float:
    """Seconds for one purge, listings, verification and receipts included."""
    started = time.perf_counter()
    report = Purge(store, records, DAY, lambda: NOW).run()
    seconds = time.perf_counter() - started
    assert not report.faults, report.faults
    return seconds


def main() -> None:
    """Measure side by side, several times, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--live", type=int, default=100_000, help="living keys beside 1,000 expired ones")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        records = open_records(Settings(home=Path(home)))
        store = open_store(*ceph_bucket())
        keys = asked.batches * asked.items
        rates = []
        for each in range(asked.rounds):
            by_hand = bare(store, fill(store, asked.batches, asked.items, 23.5, each))
            fill(store, asked.batches, asked.items, 23.5, 1000 + each)
            rates.append((keys / by_hand, keys / purged(store, records)))
        alone, crowded = [], []
        for each in range(asked.rounds):
            fill(store, 2, 500, 23.5, 2000 + each)
            alone.append(purged(store, records))
        fill(store, max(1, asked.live // 1000), 1000, 5, 3000)
        for each in range(asked.rounds):
            fill(store, 2, 500, 23.5, 4000 + each)
            crowded.append(purged(store, records))
    bare_rate, purge_rate = (statistics.median(column) for column in zip(*rates, strict=True))
    ratio = statistics.median(purge / by_hand for by_hand, purge in rates)
    cost = statistics.median(crowded) / statistics.median(alone)
    write_section(
        "Purge",
        [
            f"Ceph RGW (memstore) on this machine, {keys:,} keys in {asked.batches} batches, median of {asked.rounds} "
            "rounds, each beside",
            "a bare `delete_objects` of as many keys, with as many requests at once.",
            "",
            "| | keys/s |",
            "|---|---:|",
            f"| bare bulk delete | {bare_rate:,.0f} |",
            f"| purge: list, note, delete, list again, receipts | {purge_rate:,.0f} |",
            f"| ratio (median of rounds; goal 0.9) | {ratio:.2f} |",
            "",
            f"1,000 expired keys beside {asked.live:,} living ones cost {cost:.2f} times as much as alone (goal 1.2).",
        ],
    )
    print(f"ratio {ratio:.2f}, with living keys {cost:.2f}")


if __name__ == "__main__":
    main()

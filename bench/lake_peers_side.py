"""The other side of bench/lake.py: WebDataset, LitData and Delta, in an environment of their own. Prints JSON.

`python lake_peers_side.py loaders FOLDER ROUNDS`: FOLDER holds tars. Or `delta FOLDER GRANTS ROWS SIZE`.
"""

from __future__ import annotations

import glob
import io
import json
import os
import shutil
import sys
import time


def loaders(folder: str, rounds: int) -> dict[str, dict[str, float]]:
    """CPU-seconds and images of one pass over the same images, decoded by the same decoder, one process; the least."""
    import simplejpeg
    import webdataset as wds
    from litdata import StreamingDataset, optimize

    tars = sorted(glob.glob(f"{folder}/data/*/*.tar"))
    chunks = f"{folder}-litdata"
    shutil.rmtree(chunks, ignore_errors=True)
    images = [sample["jpg"] for sample in wds.WebDataset(tars, shardshuffle=False)]
    optimize(_Identity(images), inputs=list(range(len(images))), output_dir=chunks, chunk_bytes="64MB", num_workers=1)

    def webdataset(decode: bool) -> int:
        found = 0
        for sample in wds.WebDataset(tars, shardshuffle=100).shuffle(256):
            if decode:
                simplejpeg.decode_jpeg(sample["jpg"])
            found += 1
        return found

    def litdata(decode: bool) -> int:
        found = 0
        for sample in StreamingDataset(chunks, shuffle=True):
            if decode:
                simplejpeg.decode_jpeg(sample)
            found += 1
        return found

    return {
        f"{name} {'decoded' if decode else 'bytes'}": least(rounds, lambda w=work, d=decode: w(d))
        for name, work in (("WebDataset", webdataset), ("LitData", litdata))
        for decode in (True, False)
    }


class _Identity:
    """Hands LitData one image by its number."""

    def __init__(self, images: list[bytes]) -> None:
        self.images = images

    def __call__(self, place: int) -> bytes:
        return self.images[place]


def delta(folder: str, grants: int, rows: int, size: int) -> dict[str, dict[str, float]]:
    """Erase one grant of a Delta table: delete and vacuum, seconds and bytes rewritten."""
    import pyarrow as pa
    from deltalake import DeltaTable, write_deltalake

    result = {}
    for name, partitions in (("Delta, a partition per grant", ["grant_id"]), ("Delta, no partitions", None)):
        place = f"{folder}/{name.replace(' ', '-')}"
        for start in range(0, grants, 20):
            ids = [f"g{grant:032x}" for grant in range(start, start + 20) for _ in range(rows)]
            table = pa.table({"grant_id": ids, "image": [os.urandom(size) for _ in ids]})
            write_deltalake(place, table, partition_by=partitions, mode="append")
        before = set(glob.glob(f"{place}/**/*.parquet", recursive=True))
        begun, cpu = time.perf_counter(), time.process_time()
        table = DeltaTable(place)
        table.delete(f"grant_id = 'g{7:032x}'")
        table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
        rewritten = set(glob.glob(f"{place}/**/*.parquet", recursive=True)) - before
        result[name] = {"seconds": seconds, "cpu": cpu, "rewritten": sum(map(os.path.getsize, rewritten))}
    return result


def least(rounds: int, work) -> dict[str, float]:  # type: ignore[no-untyped-def]
    """The least CPU time of some rounds, and how many images each saw."""
    best, images = float("inf"), 0
    for _ in range(rounds):
        begun = time.process_time()
        images = work()
        best = min(best, time.process_time() - begun)
    return {"cpu": best, "images": images}


if __name__ == "__main__":
    _, what, where, *numbers = sys.argv
    out, sys.stdout = sys.stdout, io.StringIO()  # the libraries talk
    found = {"loaders": loaders, "delta": delta}[what](where, *map(int, numbers))
    print(json.dumps(found), file=out)

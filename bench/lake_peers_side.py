"""The other side of bench/lake.py: WebDataset, LitData and Delta, in an environment of their own. Prints JSON.

`python -m bench.lake_peers_side loaders FOLDER HOME ROUNDS`: FOLDER holds tars, HOME the lake. Or
`delta FOLDER GRANTS ROWS SIZE`. The peers' environment sees bgbatch's own, so that the lake's loader runs in it, too.
"""

from __future__ import annotations

import glob
import io
import json
import os
import sys
import time


def loaders(folder: str, home: str, rounds: int) -> dict[str, dict[str, float]]:
    """Passes over the same images, decoded by the same decoder, the loaders in turn: the least CPU-s and wall s.

    FOLDER holds tars, HOME a lake with the same images; this process reads both.
    """
    import torch
    import webdataset as wds
    from litdata import StreamingDataset, optimize
    from torch.utils.data import DataLoader

    tars = sorted(glob.glob(f"{folder}/data/*/*.tar"))
    chunks = f"{folder}-litdata"
    images = [sample["jpg"] for sample in wds.WebDataset(tars, shardshuffle=False)]
    optimize(_Identity(images), inputs=list(range(len(images))), output_dir=chunks, chunk_bytes="64MB", num_workers=1)

    def webdataset():  # type: ignore[no-untyped-def]
        return wds.WebDataset(tars, shardshuffle=100).shuffle(256).map(_decoded)

    def litdata():  # type: ignore[no-untyped-def]
        return StreamingDataset(chunks, shuffle=True, transform=_decode)

    def ours(decoders: int | None):  # type: ignore[no-untyped-def]
        from lake.training import CandidateDataset, Reading

        return CandidateDataset(_Open(home), Reading(masks=False, decoders=decoders))

    def passed(dataset, **how):  # type: ignore[no-untyped-def]
        """How many images came, each as a tensor."""
        count = 0
        for each in DataLoader(dataset, batch_size=None, **how):
            pixels = each if isinstance(each, torch.Tensor) else torch.from_numpy(each.image)
            count += pixels.dtype == torch.uint8 and pixels.shape[2] == 3
        return count

    works = {}
    for workers in (0, 2):
        sides = {"bgbatch": lambda: ours(None), "WebDataset": webdataset, "LitData": litdata}
        if not workers:
            sides["bgbatch, no threads"] = lambda: ours(0)
        for name, side in sides.items():
            # LitData has made spawn the default
            how = {"num_workers": workers, "multiprocessing_context": "fork"} if workers else {}
            works[f"{name}/{workers}"] = lambda make=side, how=how: passed(make(), **how)
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            cpu, wall = sum(os.times()[:4]), time.perf_counter()
            seen = work()
            assert seen == len(images), (name, seen)
            if turn:  # the first warms up
                spent[name].append((sum(os.times()[:4]) - cpu, time.perf_counter() - wall))
    return {
        name: {"images": len(images), "cpu": min(c for c, _ in each), "wall": min(w for _, w in each)}
        for name, each in spent.items()
    }


class _Open:
    """Opens the lake, in each worker anew."""

    def __init__(self, home: str) -> None:
        self.home = home

    def __call__(self):  # type: ignore[no-untyped-def]
        from pathlib import Path

        from lake.reading import Lake
        from store.objects.object_store import open_store
        from store.records.database import open_records
        from store.settings import Settings

        settings = Settings(home=Path(self.home))
        grants = Path(self.home, "grants").read_text().split()
        return Lake(open_store(settings.lake_root, settings), open_records(settings), lambda: grants)


def _decode(jpeg):  # type: ignore[no-untyped-def]
    import simplejpeg

    return simplejpeg.decode_jpeg(jpeg)


def _decoded(sample):  # type: ignore[no-untyped-def]
    return _decode(sample["jpg"])


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
        result[name] = {"wall": seconds, "cpu": cpu, "rewritten": sum(map(os.path.getsize, rewritten))}
    return result


if __name__ == "__main__":
    _, what, *where = sys.argv
    out, sys.stdout = sys.stdout, io.StringIO()  # the libraries talk
    given = [int(each) if each.isdigit() else each for each in where]
    found = {"loaders": loaders, "delta": delta}[what](*given)
    print(json.dumps(found), file=out)

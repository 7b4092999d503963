"""Candidates for a training loop: a torch dataset that shuffles, decodes, and asks the ledger at each epoch.

Each epoch begins with a new look at the records and the live grants; what was withdrawn is left out from then on, and a
file that vanishes in the middle is left out at once. Ranks and workers each take their own share of the row groups.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
from torch.utils.data import IterableDataset, get_worker_info

from lake.admission import AdmittedFile
from lake.parquet import ROW_GROUP_ROWS
from lake.pictures import gray, rgb
from lake.query import as_filter, columns_of
from lake.reading import Lake, as_read
from schemas.errors import NotFound
from schemas.ids import GrantId
from schemas.industries import Industry

_OPEN_FILES = 8


@dataclass(frozen=True)
class Sample:
    """One candidate. `image`: uint8, height x width x 3, upright. `mask`: uint8, height x width, if asked for."""

    candidate_id: str
    grant_id: GrantId
    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8] | None


@dataclass(frozen=True)
class Reading:
    """How to read. `shuffle`: samples held to draw from, 0 for the files' own order. `at_least`: (height, width) that
    suffice, for which a JPEG is decoded small. `rank` and `ranks`: this process among all; from torch.distributed if
    that runs.
    """

    industry: Industry | None = None
    where: str | None = None
    masks: bool = True
    shuffle: int = 256
    seed: int = 0
    at_least: tuple[int, int] = (0, 0)
    rank: int | None = None
    ranks: int | None = None


class CandidateDataset(IterableDataset[object]):
    """See the module. `open_lake` is called in each worker, because connections do not survive a fork.

    `transform` turns a `Sample` into what the training loop wants, in the worker.
    """

    def __init__(
        self, open_lake: Callable[[], Lake], reading: Reading, transform: Callable[[Sample], object] | None = None
    ) -> None:
        self._open_lake = open_lake
        self._reading = reading
        self._transform = transform
        self._epoch = 0
        self._keep = as_filter(reading.where)
        self._columns = ["candidate_id", *sorted(columns_of(reading.where) - {"candidate_id"})]
        self._columns += ["mask_png", "image"] if reading.masks else ["image"]

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass, on every rank alike; call it before each, as for a DistributedSampler."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[object]:
        """One epoch."""
        epoch, self._epoch = self._epoch, self._epoch + 1
        worker = get_worker_info()
        share, shares = _share(self._reading, (worker.id, worker.num_workers) if worker else (0, 1))
        random = Random(f"{self._reading.seed}/{epoch}")
        lake = self._open_lake()
        groups = list(_row_groups(lake, self._reading.industry))
        if self._reading.shuffle:
            random.shuffle(groups)
        samples = self._samples(lake, groups[share::shares])
        if self._reading.shuffle:
            samples = _shuffled(samples, self._reading.shuffle, Random(f"{self._reading.seed}/{epoch}/{share}"))
        for each in samples:
            sample = self._decoded(each)
            if sample is not None:
                yield self._transform(sample) if self._transform else sample

    def _samples(self, lake: Lake, groups: list[tuple[AdmittedFile, int]]) -> Iterator[_Raw]:
        opened: OrderedDict[str, pq.ParquetFile] = OrderedDict()
        for file, group in groups:
            try:
                if file.key not in opened:
                    opened[file.key] = lake.open(file.key)
                    while len(opened) > _OPEN_FILES:
                        opened.popitem(last=False)[1].close()
                reader = opened[file.key]
                if group >= reader.num_row_groups:
                    continue
                table = as_read(reader.read_row_group(group, columns=self._columns, use_threads=False), self._columns)
            except NotFound:
                continue  # taken back, or merged: then the next epoch has it again
            if self._keep is not None:
                table = table.filter(self._keep)
            images = table["image"]
            masks = table["mask_png"] if self._reading.masks else None
            for place, candidate_id in enumerate(table["candidate_id"].to_pylist()):
                mask = masks[place].as_buffer() if masks is not None else None
                yield candidate_id, file.grant_id, images[place].as_buffer(), mask

    def _decoded(self, raw: _Raw) -> Sample | None:
        candidate_id, grant_id, image, mask = raw
        try:
            pixels = rgb(memoryview(image), self._reading.at_least)
            return Sample(candidate_id, grant_id, pixels, gray(memoryview(mask)) if mask is not None else None)
        except ValueError:
            return None


_Raw = tuple[str, GrantId, Any, Any]


def _row_groups(lake: Lake, industry: Industry | None) -> Iterator[tuple[AdmittedFile, int]]:
    """Every row group of every live file. Files are written with at most so many rows in each."""
    for file in lake.snapshot(industry).files:
        for group in range(-(-file.rows // ROW_GROUP_ROWS)):
            yield file, group


def _share(reading: Reading, worker: tuple[int, int]) -> tuple[int, int]:
    rank, ranks = reading.rank, reading.ranks
    if rank is None or ranks is None:
        running = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank, ranks = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if running else (0, 1)
    return rank * worker[1] + worker[0], ranks * worker[1]


def _shuffled(samples: Iterator[_Raw], size: int, random: Random) -> Iterator[_Raw]:
    held: list[_Raw] = []
    for sample in samples:
        if len(held) < size:
            held.append(sample)
            continue
        place = random.randrange(size)
        held[place], sample = sample, held[place]
        yield sample
    random.shuffle(held)
    yield from held

"""Candidates for a training loop: a torch dataset that shuffles, decodes, and asks the ledger at each epoch.

Each pass begins with a new look at the records and the live grants, and asks for these again every few seconds: what is
withdrawn is left out from then on, also what was read already, or lies in a file that is open still. Ranks and workers
each take their own share of the parts of one list. `set_epoch` names the moment whose list it is, so that all have the
same one while the lake is merged.
"""

from __future__ import annotations

import math
import os
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from heapq import heapreplace
from random import Random
from time import monotonic

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
import torch.distributed
from torch.utils.data import IterableDataset, get_worker_info

from lake.admission import AdmittedFile
from lake.candidate_file import CandidateFile
from lake.layout import SKEW
from lake.parquet import ROW_GROUP_BYTES, ROW_GROUP_ROWS
from lake.pictures import gray, rgb
from lake.query import as_filter, columns_of
from lake.reading import ROW, Lake, as_read
from schemas.clock import Clock, system_clock
from schemas.errors import NotFound
from schemas.ids import GrantId
from schemas.industries import Industry

_OPEN_FILES = 8
_MOST_DECODERS = 8
_AHEAD = 2
"""Samples that are decoded ahead, for each decoder."""
_ASK_EVERY = 5.0
"""Seconds after which a pass asks the ledger again: it may take hours."""
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


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
    that runs. `decoders`: threads that decode ahead, 0 for none; as many as cores, and none in a DataLoader's worker.
    """

    industry: Industry | None = None
    where: str | None = None
    masks: bool = True
    shuffle: int = 256
    seed: int = 0
    at_least: tuple[int, int] = (0, 0)
    rank: int | None = None
    ranks: int | None = None
    decoders: int | None = None


class CandidateDataset(IterableDataset[object]):
    """See the module. `open_lake` is called in each worker, because connections do not survive a fork.

    `transform` turns a `Sample` into what the training loop wants, in the worker.
    """

    def __init__(
        self,
        open_lake: Callable[[], Lake],
        reading: Reading,
        transform: Callable[[Sample], object] | None = None,
        clock: Clock = system_clock,
    ) -> None:
        self._open_lake = open_lake
        self._reading = reading
        self._transform = transform
        self._clock = clock
        self._pass = torch.zeros(2, dtype=torch.int64)  # epoch, moment
        self._pass.share_memory_()  # type: ignore[no-untyped-call]  # workers that live on from pass to pass see both
        self._last: tuple[int, int] | None = None
        self._again = 0
        self._keep = as_filter(reading.where)
        self._labels = ["candidate_id", *sorted(columns_of(reading.where) - {"candidate_id"})]

    def set_epoch(self, epoch: int, at: datetime | None = None) -> None:
        """Choose the order of the next pass and the moment whose lake it reads; call it before each, on every rank.

        `at`: that moment, the same on every rank. By itself it is ten minutes ago, when all is recorded whatever
        clocks say; with torch.distributed, ten minutes ago on rank 0. Grants are asked for anew all the same.
        """
        moment = at or self._clock() - SKEW
        if at is None and _is_distributed():
            said: list[object] = [moment]
            torch.distributed.broadcast_object_list(said, src=0)
            (moment,) = said  # type: ignore[assignment]
        self._pass.copy_(torch.tensor([epoch, (moment - _BEGINNING) // _MICROSECOND]))

    def __getstate__(self) -> dict[str, object]:
        """For a worker that is no fork of this process: torch.distributed does not run there, so the rank goes too."""
        if not _is_distributed():
            return self.__dict__
        rank, ranks = _rank(self._reading)
        return self.__dict__ | {"_reading": replace(self._reading, rank=rank, ranks=ranks)}

    def __iter__(self) -> Iterator[object]:
        """One epoch."""
        worker = get_worker_info()
        epoch, moment = self._begin()
        share, shares = _share(self._reading, (worker.id, worker.num_workers) if worker else (0, 1))
        lake = self._open_lake()
        parts = list(_parts(_files(lake, self._reading.industry, moment)))
        if self._reading.shuffle:
            Random(f"{self._reading.seed}/{epoch}").shuffle(parts)
        live = _Live(lake)
        own = [each for each in _dealt(parts, share, shares) if each.file.grant_id in live]
        random = Random(f"{self._reading.seed}/{epoch}/{share}")
        if worker and moment is None and self._reading.shuffle:  # who cannot count passes, as it is made anew for each
            random = Random(worker.seed)
            random.shuffle(own)
        samples = self._samples(lake, own)
        if self._reading.shuffle:
            samples = _shuffled(samples, self._reading.shuffle, random)
        for sample in _each(self._decoded, samples, _decoders(self._reading, worker is not None)):
            if sample is not None and sample.grant_id in live:
                yield self._transform(sample) if self._transform else sample

    def _begin(self) -> tuple[int, datetime | None]:
        """The epoch of this pass and its moment. A pass that `set_epoch` was not called for is the next, as of now.

        A worker that is made anew for each pass knows none before: for it each is the first.
        """
        said = epoch, since = int(self._pass[0]), int(self._pass[1])
        self._again = self._again + 1 if said == self._last else 0
        self._last = said
        is_set = since and not self._again
        return epoch + self._again, _BEGINNING + since * _MICROSECOND if is_set else None

    def _samples(self, lake: Lake, parts: list[_Part]) -> Iterator[_Raw]:
        opened: OrderedDict[str, CandidateFile] = OrderedDict()
        for part in parts:
            file = part.file
            try:
                if file.key not in opened:
                    opened[file.key] = lake.open(file.key)
                    while len(opened) > _OPEN_FILES:
                        opened.popitem(last=False)
                for group in part.row_groups(opened[file.key].num_row_groups):
                    yield from self._of_group(opened[file.key], file.grant_id, group)
            except NotFound:
                continue  # taken back

    def _of_group(self, file: CandidateFile, grant_id: GrantId, group: int) -> Iterator[_Raw]:
        table = as_read(file.read_row_group(group, columns=self._labels, use_threads=False), self._labels)
        table = table.append_column(ROW, pa.array(range(table.num_rows), pa.int32()))
        if self._keep is not None:
            table = table.filter(self._keep)
        rows = list(zip(table["candidate_id"].to_pylist(), table[ROW].to_pylist(), strict=True))
        if not rows:
            return
        images = file.values(group, "image")
        masks = file.values(group, "mask_png") if self._reading.masks else None
        own = memoryview if file.is_mapped else bytes  # a slice of what was read would keep the whole group in memory
        for candidate_id, row in rows:
            yield candidate_id, grant_id, own(images[row]), own(masks[row]) if masks is not None else None

    def _decoded(self, raw: _Raw) -> Sample | None:
        candidate_id, grant_id, image, mask = raw
        try:
            pixels = rgb(image, self._reading.at_least)
            return Sample(candidate_id, grant_id, pixels, gray(mask) if mask is not None else None)
        except ValueError:
            return None


class _Live:
    """The grants that were live a few seconds ago at most."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._grants: frozenset[GrantId] = frozenset()
        self._asked = -math.inf

    def __contains__(self, grant_id: GrantId) -> bool:
        if monotonic() - self._asked >= _ASK_EVERY:
            self._grants, self._asked = frozenset(self._lake.live()), monotonic()
        return grant_id in self._grants


_Raw = tuple[str, GrantId, bytes | memoryview, bytes | memoryview | None]


def _files(lake: Lake, industry: Industry | None, moment: datetime | None) -> tuple[AdmittedFile, ...]:
    return lake.snapshot(industry).files if moment is None else lake.files_at(moment, industry)


@dataclass(frozen=True)
class _Part:
    """The `number`th of so many parts of a file: one row group, at times two."""

    file: AdmittedFile
    number: int
    of: int

    def row_groups(self, count: int) -> range:
        """Those of the file's `count` that are in this part."""
        return range(self.number * count // self.of, (self.number + 1) * count // self.of)


def _parts(files: tuple[AdmittedFile, ...]) -> Iterator[_Part]:
    """Every file in as many parts as it surely has row groups: else whoever is given a part finds nothing in it.

    Told by the records alone, so that all ranks have the same list, also when a file is gone for one of them.
    """
    for file in files:
        rows, size = file.rows, file.bytes * 99 // 100  # the rest, at most, is what a file has beside its rows
        count = min(-(-rows // ROW_GROUP_ROWS), -(-size // ROW_GROUP_BYTES))
        yield from (_Part(file, number, count) for number in range(count))


def _dealt(parts: list[_Part], share: int, shares: int) -> Iterator[_Part]:
    """Those of one share: each part goes to whoever has the fewest rows by then, for files differ in size."""
    fewest = [(0.0, number) for number in range(shares)]
    for part in parts:
        rows, to = fewest[0]
        heapreplace(fewest, (rows + part.file.rows / part.of, to))
        if to == share:
            yield part


def _share(reading: Reading, worker: tuple[int, int]) -> tuple[int, int]:
    rank, ranks = _rank(reading)
    return worker[0] * ranks + rank, ranks * worker[1]  # of few parts, one for each rank before one for each worker


def _rank(reading: Reading) -> tuple[int, int]:
    if reading.rank is not None and reading.ranks is not None:
        return reading.rank, reading.ranks
    return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if _is_distributed() else (0, 1)


def _is_distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _decoders(reading: Reading, in_worker: bool) -> int:
    if reading.decoders is not None:
        return reading.decoders
    cores = len(os.sched_getaffinity(0))
    return 0 if in_worker or cores < 2 else min(cores, _MOST_DECODERS)


def _each(decoded: Callable[[_Raw], Sample | None], samples: Iterator[_Raw], decoders: int) -> Iterator[Sample | None]:
    """The samples in their order, decoded here or by threads that are some samples ahead."""
    if not decoders:
        yield from map(decoded, samples)
        return
    with ThreadPoolExecutor(decoders) as pool:
        waiting: deque[Future[Sample | None]] = deque()
        for raw in samples:
            waiting.append(pool.submit(decoded, raw))
            if len(waiting) > _AHEAD * decoders:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


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

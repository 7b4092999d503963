"""Reading candidates: from the records, never from a bare listing, and only those whose grant is live now.

A file that vanishes while it is read was merged into another or erased; the records say which, so readers look again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs

from lake.admission import AdmittedFile, admitted_files, files_at
from lake.candidate_file import UNREADABLE, CandidateFile
from schemas.candidate import LABELS, READ
from schemas.errors import NotFound, StoreFault
from schemas.ids import GrantId
from schemas.industries import Industry, parse_industry
from store.objects.folder import Folder
from store.objects.object_store import ObjectStore, no_such_object
from store.objects.s3 import S3
from store.records.database import Records

if TYPE_CHECKING:
    from torch.utils.data import IterableDataset

LiveGrants = Callable[[], Collection[GrantId]]
"""Asks the ledger which grants are live now. It may open a transaction, so it is never called inside one."""

FILE, ROW = "file", "row"
"""Columns of labels that say where a row lies: the file's key, and its place there."""

_LOOKS = 10
_AT_ONCE = 16
_PARTITIONS = pa.schema([pa.field("industry", pa.string()), pa.field("grant", pa.string())])


@dataclass(frozen=True)
class Snapshot:
    """The files that held each live candidate exactly once at one moment. `state` names that moment's content."""

    files: tuple[AdmittedFile, ...]

    @property
    def state(self) -> str:
        """SHA-256 over names and hashes: two lakes of one state hold the same bytes."""
        lines = "".join(f"{file.key} {file.sha256}\n" for file in self.files)
        return hashlib.sha256(lines.encode()).hexdigest()


class Images(NamedTuple):
    """A candidate's heavy columns: slices of its file, or of what was read of it."""

    candidate_id: str
    image: pa.Buffer
    mask_png: pa.Buffer


@dataclass(frozen=True)
class Lake:
    """The lake as its readers see it."""

    objects: ObjectStore
    records: Records
    live: LiveGrants
    reopen: Callable[[], Lake] | None = None
    """How another process opens this lake anew; it must be a function that can be named there."""

    def snapshot(self, industry: Industry | str | None = None) -> Snapshot:
        """What may be read at this moment. `industry` None: all."""
        live = self.live()
        with self.records.reading() as connection:
            return Snapshot(tuple(admitted_files(connection, parse_industry(industry) if industry else None, live)))

    def files_at(self, moment: datetime, industry: Industry | str | None = None) -> tuple[AdmittedFile, ...]:
        """What the records say of a moment in the past, to whomever and whenever: also grants that have ended since."""
        with self.records.reading() as connection:
            return tuple(files_at(connection, parse_industry(industry) if industry else None, moment))

    def labels(self, industry: Industry | str | None = None, columns: Sequence[str] = LABELS) -> pa.Table:
        """The light columns of every live candidate, and `industry`, `grant_id`, `file`, `row`. Raises `StoreFault`."""
        return self.look(industry, columns)[1]

    def look(self, industry: Industry | str | None, columns: Sequence[str]) -> tuple[Snapshot, pa.Table]:
        """The same with the files that they are in."""
        for _ in range(_LOOKS):
            found = self.snapshot(industry)
            try:
                return found, self.labels_of(found, columns)
            except NotFound:
                continue
        raise StoreFault("The lake's files keep changing while they are read. Try again.")

    def labels_of(self, snapshot: Snapshot, columns: Sequence[str] = LABELS) -> pa.Table:
        """The same of a given moment. Raises `NotFound` when one of its files is gone."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            tables = list(pool.map(lambda file: self._labels(file, columns), snapshot.files))
        whole = pa.concat_tables([as_read(_EMPTY, columns), *tables])
        return _with_places(whole, snapshot.files, [each.num_rows for each in tables])

    def open(self, key: str) -> CandidateFile:
        """A file, for reading parts of it. Raises `NotFound`."""
        return CandidateFile(_readable(self.objects, key), lambda: self.objects.exists(key))

    def images(self, industry: Industry | str | None = None) -> Iterator[Images]:
        """Every live candidate's image and mask, as fast as the files can be read: nothing is copied.

        The ledger is asked again before each customer's first file; who withdrew meanwhile is left out. A slice keeps
        its row group in memory for as long as it is held. Raises `StoreFault` when a live file is gone.
        """
        for grant_id, files in groupby(self.snapshot(industry).files, lambda file: file.grant_id):
            if grant_id in self.live():
                for file in files:
                    yield from self._images(file)

    def dataset(self, industry: Industry | str | None = None) -> ds.FileSystemDataset:
        """A pyarrow dataset of what may be read at this moment, with columns `industry` and `grant` from the paths.

        It stays with its files: make a new one for each pass, so that what was taken back is left out.
        """
        filesystem, root = arrow_filesystem(self.objects)
        return ds.dataset(
            [f"{root}/{file.key}" for file in self.snapshot(industry).files],
            schema=pa.schema([*READ, *_PARTITIONS]),
            format=ds.ParquetFileFormat(pre_buffer=not isinstance(self.objects.storage, Folder)),
            filesystem=filesystem,
            partitioning=ds.partitioning(_PARTITIONS, flavor="hive"),
            partition_base_dir=root,
        )

    def torch_dataset(
        self, industry: Industry | str | None = None, transform: Callable[..., object] | None = None, **how: Any
    ) -> IterableDataset[object]:
        """A torch dataset that shuffles, decodes and asks the ledger at each epoch: see `lake.training`."""
        from lake.training import CandidateDataset, Reading  # torch is slow to import, and most readers need none of it

        reading = Reading(industry=parse_industry(industry) if industry else None, **how)
        return CandidateDataset(self.reopen or (lambda: self), reading, transform)

    def paths(self, industry: Industry | str | None = None) -> list[str]:
        """Where the files lie that may be read at this moment, for other readers (DuckDB, Polars, Ray Data, Spark)."""
        root = self.objects.storage.root  # type: ignore[attr-defined]
        return [f"{root}/{file.key}" for file in self.snapshot(industry).files]

    def _images(self, file: AdmittedFile) -> Iterator[Images]:
        try:
            opened = self.open(file.key)
            for group in range(opened.num_row_groups):
                ids = opened.read_row_group(group, columns=["candidate_id"], use_threads=False)["candidate_id"]
                yield from map(Images, ids.to_pylist(), opened.values(group, "image"), opened.values(group, "mask_png"))
        except NotFound:
            if file.grant_id not in self.live():
                return
            raise StoreFault(
                "A file was merged into another so long ago that it is gone. Begin to read again."
            ) from None

    def _labels(self, file: AdmittedFile, columns: Sequence[str]) -> pa.Table:
        # Files are read side by side already.
        return as_read(self.open(file.key).read(list(columns), use_threads=False), columns)


def as_read(table: pa.Table, columns: Sequence[str] = tuple(READ.names)) -> pa.Table:
    """`table`, written under any version, with these columns as `READ` has them; what it lacks is null."""
    fields = [READ.field(name) for name in columns]
    arrays = [
        _cast(table[field.name], field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in fields
    ]
    return pa.Table.from_arrays(arrays, schema=pa.schema([pa.field(each.name, each.type) for each in fields]))


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    return column if column.type == kind else column.cast(kind)  # a cast to the same type costs, too


def arrow_filesystem(objects: ObjectStore) -> tuple[pafs.FileSystem, str]:
    """The store as pyarrow itself reads it, and its root there: on S3 many times faster than through s3fs."""
    storage = objects.storage
    if isinstance(storage, Folder):
        return pafs.LocalFileSystem(use_mmap=True), storage.root  # twice as fast as reading into buffers
    if isinstance(storage, S3):
        through = storage.filesystem
        keys = {"access_key": through.key, "secret_key": through.secret} if through.key else {}
        where = {"endpoint_override": through.endpoint_url} if through.endpoint_url else {}
        if where:  # servers other than AWS send checksums that its library cannot verify, or none (seen on rclone)
            os.environ.setdefault("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
        # Its library does not know the variable by which every other client of S3 is told whom to trust.
        trusted = {"tls_ca_file_path": os.environ.get("AWS_CA_BUNDLE") or None}
        return pafs.S3FileSystem(**keys, **where, **trusted), storage.root.removeprefix("s3://")
    raise StoreFault("This store has no file system that pyarrow can read.")


_EMPTY = READ.empty_table()


def _with_places(table: pa.Table, files: Sequence[AdmittedFile], rows: Sequence[int]) -> pa.Table:
    """`table` holds so many `rows` of each of `files`, one file after the other."""
    which = np.repeat(np.arange(len(files)), np.array(rows, np.int64))
    for name, values in (
        ("industry", [file.industry.value for file in files]),
        ("grant_id", [file.grant_id for file in files]),
        (FILE, [file.key for file in files]),
    ):
        codes = {value: code for code, value in enumerate(dict.fromkeys(values))}
        coded = np.array([codes[value] for value in values], np.int32)[which]
        table = table.append_column(name, pa.DictionaryArray.from_arrays(coded, pa.array(codes, pa.string())))
    places = np.concatenate([np.arange(each, dtype=np.int32) for each in (0, *rows)])
    return table.append_column(ROW, pa.array(places))


def _readable(objects: ObjectStore, key: str) -> pa.NativeFile:
    storage = objects.storage
    try:
        if isinstance(storage, Folder):
            return pa.memory_map(f"{storage.root}/{key}")
        if isinstance(storage, S3):
            filesystem, root = arrow_filesystem(objects)
            return filesystem.open_input_file(f"{root}/{key}")
    except FileNotFoundError:
        raise no_such_object() from None
    except OSError as error:
        raise StoreFault(UNREADABLE) from error
    return pa.BufferReader(objects.read(key))

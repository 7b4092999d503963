"""A candidate file that is open for reading; its images can be taken without a copy.

Images are written plain (`lake.parquet`): a chunk of them is a page header, then length, image, length, image, and so
on. pyarrow copies all of it into a buffer of its own. Here each image is a slice of the chunk as it was read, or of
the file itself where that is mapped into memory. A chunk that is laid out in another way is left to pyarrow.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import NotFound, StoreFault

_DATA_PAGE, _PLAIN = 0, 0
_TYPE, _COMPRESSED_SIZE, _DATA_PAGE_HEADER = 1, 3, 5
_ENCODING = 2
UNREADABLE = "A candidate file cannot be read: it is damaged, or out of reach. Run `bgbatch lake audit`."
_LENGTH = struct.Struct("<I")


class CandidateFile(pq.ParquetFile):  # type: ignore[misc]  # pyarrow has no types
    """A `ParquetFile` that also hands out values as slices.

    Reading raises `NotFound` once the file is gone from S3, and `StoreFault` for one that is damaged or out of reach.
    `is_there`: whether it still is, asked when a read fails: pyarrow's error says so in words of each server.
    """

    def __init__(self, source: pa.NativeFile, is_there: Callable[[], bool] = lambda: True) -> None:
        self._source = source
        self._is_there = is_there
        with self._or_gone():
            super().__init__(source, pre_buffer=not isinstance(source, pa.MemoryMappedFile))  # few requests, at once

    @property
    def is_mapped(self) -> bool:
        """Whether slices are of the file itself, which the system may drop from memory, and not of a copy."""
        return isinstance(self._source, pa.MemoryMappedFile)

    def read(self, *args: Any, **how: Any) -> pa.Table:
        """As `ParquetFile` does."""
        with self._or_gone():
            return super().read(*args, **how)

    def read_row_group(self, *args: Any, **how: Any) -> pa.Table:
        """As `ParquetFile` does."""
        with self._or_gone():
            return super().read_row_group(*args, **how)

    def values(self, group: int, name: str) -> list[pa.Buffer]:
        """The values of a binary column without nulls in a row group, in its order. They keep its bytes in memory."""
        place = self.schema_arrow.get_field_index(name)
        chunk = self.metadata.row_group(group).column(place)
        if self.schema.column(place).max_definition_level == 0 and chunk.compression == "UNCOMPRESSED":
            with self._or_gone():
                self._source.seek(chunk.data_page_offset)
                read = self._source.read_buffer(chunk.total_compressed_size)
            found = _slices(read, chunk.num_values)
            if found is not None:
                return found
        column = self.read_row_group(group, columns=[name], use_threads=False)[name]
        return [each.as_buffer() for each in column]

    @contextmanager
    def _or_gone(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            if self._is_there():
                raise StoreFault(UNREADABLE) from error
            raise NotFound("The file was erased, or merged into another long ago, while it was read.") from None


def _slices(chunk: pa.Buffer, count: int) -> list[pa.Buffer] | None:
    """The values of a chunk; None when its pages are not plain ones that hold exactly `count`."""
    view = memoryview(chunk).cast("B")
    found: list[pa.Buffer] = []
    at = 0
    try:
        while at < len(view):
            header, at = _read_struct(view, at)
            page = header.get(_DATA_PAGE_HEADER)
            size = header.get(_COMPRESSED_SIZE)
            if header.get(_TYPE) != _DATA_PAGE or not isinstance(page, dict) or not isinstance(size, int):
                return None
            if page.get(_ENCODING) != _PLAIN:
                return None
            end = at + size
            while at < end:
                (length,) = _LENGTH.unpack_from(view, at)
                found.append(chunk.slice(at + 4, length))
                at += 4 + length
            if at != end or end > len(view):
                return None
    except (IndexError, struct.error, _Unknown):
        return None
    return found if len(found) == count else None


class _Unknown(Exception):
    """A field of a page header that no plain page has."""


_Fields = dict[int, "int | _Fields"]


def _read_struct(view: memoryview, at: int) -> tuple[_Fields, int]:
    """A struct in Thrift's compact protocol, as page headers are: its numbers and structs, and where it ends."""
    fields: _Fields = {}
    field = 0
    while kind := view[at]:
        at += 1
        if not kind >> 4:
            raise _Unknown
        field += kind >> 4
        match kind & 15:
            case 1 | 2:  # true, false
                pass
            case 4 | 5 | 6:  # integers
                number, at = _read_varint(view, at)
                fields[field] = (number >> 1) ^ -(number & 1)
            case 8:  # bytes: a statistic
                size, at = _read_varint(view, at)
                at += size
            case 12:
                fields[field], at = _read_struct(view, at)
            case _:
                raise _Unknown
    return fields, at + 1


def _read_varint(view: memoryview, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = view[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7

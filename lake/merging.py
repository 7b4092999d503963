"""Which small files to merge. Pure: files in, merges out. Never across two grants or industries.

Files of like size are merged, eight or more at a time, so a byte is rewritten about once for each eightfold of size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from lake.admission import AdmittedFile
from lake.layout import Place

LEAST_FILES = 8
LARGEST_BYTES = 256 * 1024 * 1024
"""A merge is made in memory, and one file is read by one worker."""
_SMALLEST_TIER = 1024 * 1024


@dataclass(frozen=True)
class Merge:
    """Files of one place that become one file."""

    place: Place
    files: tuple[AdmittedFile, ...]


def plan_merges(
    files: Iterable[AdmittedFile], least_files: int = LEAST_FILES, largest_bytes: int = LARGEST_BYTES
) -> list[Merge]:
    """The merges that are worth making now, in order of their places."""
    ordered = sorted(files, key=lambda file: (file.industry, file.grant_id, _tier(file.bytes), file.key))
    merges: list[Merge] = []
    for (industry, grant_id, _), group in groupby(ordered, lambda f: (f.industry, f.grant_id, _tier(f.bytes))):
        place = Place(industry, grant_id)
        filled = _filled(group, largest_bytes)
        merges.extend(Merge(place, tuple(some)) for some in filled if len(some) >= max(least_files, 2))
    return merges


def _filled(files: Iterable[AdmittedFile], largest_bytes: int) -> Iterator[list[AdmittedFile]]:
    some: list[AdmittedFile] = []
    size = 0
    for file in files:
        if size + file.bytes > largest_bytes:
            yield some
            some, size = [], 0
        some.append(file)
        size += file.bytes
    yield some


def _tier(size: int) -> int:
    tier = 0
    while size > _SMALLEST_TIER:
        size //= LEAST_FILES
        tier += 1
    return tier
